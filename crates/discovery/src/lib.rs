//! Feeds the inventory: who runs on this node, and what the node is.
//!
//! - [`access`]: why a socket may not be used, and who may.
//! - [`unix_http`]: one HTTP request over a unix socket, its body in chunks, every step under a deadline.
//! - [`tracer`]: the tracer's `/processes` and `/status`.
//! - [`proc`]: the same processes read from `/proc`, for feeds that are not weir's.
//! - [`node`]: the node's name, addresses, kernel and boot.
//! - [`said`]: what a source says of one thing.
//! - [`source`]: a source of metadata, as the agent runs it.
//! - [`collect`]: what is collected beside, by configuration.
//! - [`cri`]: pods and containers as a container runtime tells them.
//! - [`docker`]: containers as a Docker engine tells them.
//! - [`kubernetes`]: the Kubernetes API, listed and watched.
//! - [`kubelet`], [`api_pods`]: the node's pods as the kubelet tells them, or the API server where that is closed.
//! - [`permissions`]: every call to a kubelet or an API server.
//!
//! Every reader of files takes the root's path, so that tests use a tree of their own.

pub mod access;
pub mod api_pods;
pub mod collect;
pub mod cri;
pub mod docker;
mod events;
pub mod kubelet;
pub mod kubernetes;
pub mod node;
pub mod permissions;
pub mod proc;
pub mod said;
pub mod source;
pub mod tracer;
pub mod unix_http;
