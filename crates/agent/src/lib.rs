//! The agent: observe, attribute, window, spool, export.
//!
//! ```text
//!  tracer's socket                 one task: pipeline                            one task: export
//! ┌───────────────┐  chunks  ┌──────────────────────────────────────────┐      ┌─────────────────┐
//! │ /connections  │ ───────▶ │ observe ─▶ stage ─▶ attribute ─▶ window  │      │ Hello, Welcome, │  gRPC
//! │ /processes    │          │                 commit │                 │      │ frames, acks    │ ◀────▶ server
//! │ /status       │ ◀─────── │        ack=CURSOR      ▼                 │      └───────▲─────────┘
//! └───────────────┘          │              spool: append + fsync ──────┼──watch──▶ reads
//!  /proc (other feeds) ────▶ │              (batch, baselines, cursor)  │
//!                            └──────────────────────────────────────────┘   one task: metrics listener
//! ```
//!
//! - [`observe`] polls, one fetch in flight; rows are staged and count only when the reply is whole.
//! - [`attribute`] knows every counter's baseline and says what a row adds (R1, R2).
//! - [`window`] gives changes their real span in wall time and makes records of them.
//! - [`commit`] makes batch and baselines one durable record in the [`spool`]; only then the tracer is acknowledged.
//! - [`export`] brings what is in the spool to the server and removes what it acknowledged.
//!
//! - [`metadata`] reads the node's other sources, each in a task of its own; what is new goes with the next batch.
//!
//! Between the tasks of the pipeline there are two channels: a `watch` of the newest durable sequence (it holds one value), and within
//! export the frames of one call (a window of 16, and Hello). The queue between poll and server is the spool itself,
//! bounded by bytes and age. The spool is shared behind a mutex that is held for one append, read or acknowledgement.

pub mod args;
pub mod attribute;
pub mod commit;
pub mod dns;
pub mod export;
pub mod facts;
pub mod losses;
pub mod metadata;
pub mod metrics;
pub mod observe;
pub mod pipeline;
pub mod spool;
pub mod window;

pub use args::Args;
pub use pipeline::run;
