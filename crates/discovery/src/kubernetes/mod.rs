//! The Kubernetes API: a client, and watches of what the server must know of a cluster.
//!
//! ```text
//! API server ─list in pages, watch─▶ watch ─▶ objects ─▶ Thing { said } ─▶ weir server: facts with their validity
//! ```
//!
//! - [`client`]: where the API server is, how to prove oneself there, one client a purpose.
//! - [`pace`]: how fast requests may follow each other, and when the API server was heard last.
//! - [`objects`]: what is watched, and what an object says: pure.
//! - [`services`], [`endpoints`], [`nodes`]: the larger of them.
//! - [`watch`]: one kind, listed and watched without end.
//! - [`reviews`]: whose token is this?
//! - [`config_maps`]: ConfigMaps of one namespace, written only over the version that was read.
//!
//! Every path and verb comes from [`crate::permissions`].

pub mod client;
pub mod config_maps;
pub mod endpoints;
pub mod nodes;
pub mod objects;
pub mod pace;
pub mod reviews;
pub mod services;
pub mod watch;

#[cfg(test)]
mod recorded_tests;
