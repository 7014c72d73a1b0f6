//! Ingest: what agents send, until it is durable and acknowledged.
//!
//! ```text
//! session (one a connection) ──Append, 256──▶ writer thread: log, group fsync ──Durable, 64──▶ applier (crate::apply)
//!     ▲  └── one batch in flight a stream ◀───── position or refusal ──┘
//! ```
//!
//! [`service`] speaks the protocol, [`streams`] knows which sequence each stream is at and who holds it, [`frame`]
//! opens a frame, [`convert`] turns a batch into what is stored, [`writer`] makes batches durable.

pub(crate) mod convert;
mod dns;
pub(crate) mod frame;
pub(crate) mod service;
pub(crate) mod streams;
pub(crate) mod writer;
