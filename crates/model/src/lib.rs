//! The vocabulary that every part of weir shares.
//!
//! Pure values: no I/O, no clock, no thread (invariant 1). A counter is a [`Totals`] or a [`Deltas`], never bare; a
//! time is [`MonotonicNanos`] or [`UnixNanos`], never an integer; an address is a [`std::net::SocketAddr`] without
//! scope, IPv4-mapped IPv6 already unmapped.

pub mod connection;
pub mod counters;
pub mod endpoint;
pub mod fact;
pub mod flow;
pub mod time;

pub use connection::{ConnectionId, ConnectionKey, Generation, Instance, NodeName, Protocol, Tuple};
pub use counters::{Bytes, Deltas, Totals};
pub use endpoint::Endpoint;
pub use fact::Fact;
pub use flow::{Certainty, Direction, Flow, Side};
pub use time::{MonotonicNanos, UnixNanos, WINDOW, Window};
