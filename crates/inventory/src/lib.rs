//! Who is behind a process id, a cgroup or a network namespace **at an instant** (R6).
//!
//! Pure: no I/O, no clock. `weir-discovery` reads the facts, one writer gives them to an [`Inventory`], and the agent
//! asks it about a socket's local end. A fact holds for an interval; what is asked about an instant outside every
//! interval, or within the uncertainty of its ends, is unknown, never a neighbour's name (invariant 2).

pub mod cgroup;
pub mod processes;

pub use cgroup::{ContainerId, PodUid};
pub use processes::{Basis, Changes, Inventory, Limits, LocalIdentity, ProcessFact, SocketView};
