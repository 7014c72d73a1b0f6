//! weir's own formats where they cross a process.
//!
//! - [`feed`]: the JSON that a tracer serves on its unix socket (`/connections`, `/processes`, `/status`).
//! - [`agent`]: the protobuf that an agent sends to a server; the schema is `proto/weir/agent/v1/agent.proto`.
//! - [`api`]: the JSON of the server's HTTP API, `{"items": [...], "completeness": {...}}`.
//! - [`filter`]: the language in which readers say which rows they want.
//! - [`losses`]: the reasons of losses, which the three of them share.
//!
//! A foreign API's forms live beside its client, not here.

pub mod agent;
pub mod api;
pub mod feed;
pub mod filter;
pub mod losses;
