//! Attribute: which counter a row belongs to, which life of it, and what came since the last successful poll (R1, R2).
//!
//! - [`key`]: the counter's identity, packed.
//! - [`stage`]: the rows of one reply, until it is known to be whole.
//! - [`life`]: the generation rules.
//! - [`table`]: the baselines, and a row against them.
//! - [`saved`]: a baseline as it lies in the spool.
//!
//! All of it is pure: no I/O, no clock.

pub mod key;
pub mod life;
pub mod saved;
pub mod stage;
pub mod table;
pub mod words;

pub use key::{Key, PackedTuple};
pub use life::{Poll, Previous};
pub use stage::{Stage, StagedRow};
pub use table::{Change, Outcome, Table};
