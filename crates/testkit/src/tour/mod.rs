//! The tour of the demo: what is done to the town, and what weir must say then, and nothing else.
//!
//! `weir-tour` plays all of it and writes `docs/tour.md`; a test plays a short form.

mod demo;
mod expect;
mod page;
mod screen;
pub mod watch;

pub use demo::Demo;
pub use expect::{Alarm, Expected, STOPS, Seen, Stop};
pub use page::{Settings, write};
