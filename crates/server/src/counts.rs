//! The server's own counters since its start: for `/metrics` and `weir status`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters that only rise.
        #[derive(Debug, Default)]
        pub(crate) struct Counts {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)*
        }

        impl Counts {
            /// Every counter by name.
            pub(crate) fn all(&self) -> BTreeMap<String, u64> {
                BTreeMap::from([$((stringify!($name).to_owned(), self.$name.load(Ordering::Relaxed)),)*])
            }
        }
    };
}

counts! {
    /// Batches made durable.
    batches,
    /// Records in them.
    records,
    /// Bytes of payload received in frames.
    frame_bytes,
    /// Batches that were durable already.
    duplicates,
    /// Frames that were not the next one of their stream.
    out_of_sequence,
    /// Frames whose checksum, encoding or content was wrong.
    corrupt_frames,
    /// Frames beyond the size limit.
    too_large_frames,
    /// Sessions refused because another agent run holds the stream.
    second_writers,
    /// Sessions refused for the protocol version.
    protocol_refusals,
    /// Calls without the right token.
    unauthorized,
    /// Agents' tokens that the API server was asked about.
    token_reviews,
    /// Those about which it could not be asked.
    token_review_failures,
    /// Groups of batches that shared one sync.
    groups,
    /// Groups that could not be made durable.
    append_failures,
    /// Batches merged into the state.
    batches_applied,
    /// Facts that the server itself observed.
    facts_observed,
    /// Records refused in batches: no address, or no such local end.
    records_refused,
    /// Rows that came when their time was settled already: kept apart, in no sum.
    rows_late,
    /// Merges that failed and were tried again.
    apply_failures,
    /// Segments written.
    segments_written,
    /// Flushes that failed and were tried again.
    flush_failures,
    /// Steps of compaction.
    compactions,
    /// Times that compaction failed and was tried again.
    compaction_failures,
    /// Segments forgotten by retention.
    segments_forgotten,
    /// Rows in them.
    history_rows_forgotten,
    /// Bytes cut from the log's torn ends at start.
    log_cut_bytes,
    /// HTTP requests answered.
    http_requests,
    /// HTTP requests that were wrong.
    http_bad_requests,
    /// HTTP requests that failed here.
    http_failures,
    /// Subscriptions to an answer begun.
    subscriptions,
    /// Subscriptions refused because there were too many.
    subscriptions_refused,
}
