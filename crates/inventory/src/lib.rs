//! Who is behind a process id, a cgroup or a network namespace **at an instant** (R6).
//!
//! Pure: no I/O, no clock. `weir-discovery` reads the facts. An agent gives its node's processes to [`Processes`] and asks
//! about a socket's local end; the server gives every node's facts to an [`Inventory`] and asks about both ends.
//! A fact holds for an interval; what is asked about an instant outside every interval, or within the uncertainty of its
//! ends, is unknown, never a neighbour's name (invariant 2).

pub mod cgroup;
pub mod inventory;
pub mod processes;

pub use cgroup::{ContainerId, PodUid};
pub use inventory::{Inventory, LocalEnd, RemoteEnd, Who};
pub use processes::{Basis, Changes, Limits, LocalIdentity, ProcessFact, Processes, SocketView};
