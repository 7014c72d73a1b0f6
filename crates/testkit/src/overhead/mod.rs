//! What weir costs those whom it watches: the bench behind `make bench-overhead`.
//!
//! ```text
//! for each cycle: for each setting, in random order:          settings.rs
//!     start the tracer (and agent), wait until it answers     watch.rs
//!     for each place and workload, in random order:
//!         weir-load times rounds for a moment ──▶ one block   blocks.rs, ../load
//!     stop it
//! one more pass with the kernel's counters of programs        costs.rs, programs.rs
//! ratio of medians to `none`, with a bootstrap interval       spread.rs
//! Markdown and JSON                                           report.rs
//! ```
//! `none` is measured twice in every cycle: the ratio of the one to the other is what the machine's noise makes of no
//! difference at all. [`kept`] is the other question: which of the connections made at a given rate reach the answers.
//!
//! Nothing is left behind: the processes die with this one, the load's namespaces with the load, the kernel's counting
//! with a descriptor; a folder that a killed bench left is removed by the next one.

pub mod blocks;
pub mod costs;
pub mod kept;
pub mod machine;
pub mod programs;
pub mod report;
pub mod settings;
pub mod spread;
pub mod watch;
