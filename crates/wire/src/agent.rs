//! The agent protocol: generated types and the one way to make a frame of a batch and to read it back.

#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/weir/agent/v1/agent.proto, where the documentation is"
)]
mod generated {
    tonic::include_proto!("weir.agent.v1");
}

pub use generated::*;

/// The protocol version that this build speaks.
pub const PROTOCOL: u32 = 1;

/// The version of [`Batch`] that this build writes.
pub const BATCH_FORMAT: u32 = 1;
