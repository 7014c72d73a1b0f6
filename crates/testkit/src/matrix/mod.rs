//! The matrix: every kind of traffic and every path through a cluster, played while weir watches, and checked.
//!
//! [`kinds`] says what is played, [`run`] plays and checks it. `tests/accuracy.rs` plays the short form in `make test`,
//! the program `weir-accuracy` all of it for `docs/accuracy.md`.

pub mod kinds;
pub mod run;

/// How much is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What a minute allows.
    Short,
    /// Everything.
    Full,
}
