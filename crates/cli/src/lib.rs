//! The `weir` binary: commands, tables, JSON, the live view.
//!
//! - [`args`] is the command line, [`exit`] what an end of it means.
//! - [`client`] asks the server's HTTP API and a tracer's socket; [`read`] holds the reading commands on top of it.
//! - [`show`] turns answers into what a person or a program reads. It is the only place where text from the network
//!   reaches a terminal, and it escapes what could steer one.
//! - [`top`] shows edges and connections as they go on, and takes keys.
//! - [`doctor`] looks at this machine; [`up`] runs tracer, agent and server on it.

pub mod args;
pub mod client;
pub mod doctor;
pub mod exit;
pub mod read;
pub mod settings;
pub mod show;
pub mod store;
pub mod top;
pub mod up;
