//! Fail points: named steps at which a test ends the process, as a kill or a power cut would.
//!
//! `WEIR_FAILPOINT=NAME` aborts the process when the step NAME is reached, `NAME:N` when it is reached for the Nth time.
//! The variable is read once; without it a step costs one load. Nothing is flushed and no destructor runs.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable.
pub const VARIABLE: &str = "WEIR_FAILPOINT";

/// An agent's steps, in the order in which a batch passes them.
pub const AGENT: &[&str] = &["spool-appended", "spool-segment-begun", "frame-sent", "acknowledgement-taken"];

/// A server's, on the way from the log to the state.
pub const SERVER: &[&str] = &["log-appended", "batch-acknowledged", "state-begun", "batch-applied"];

/// A history's, in the order in which a segment passes them.
pub const SEGMENT: &[&str] = &[
    "segment-created",
    "segment-half-written",
    "segment-synced",
    "segment-renamed",
    "segment-durable",
    "catalogue-begun",
    "catalogue-committed",
];

/// A compaction's, in the order in which it passes them.
pub const COMPACTION: &[&str] = &[
    "compaction-half-read",
    "compaction-durable",
    "compaction-catalogue-begun",
    "compaction-catalogue-committed",
    "compaction-one-removed",
];

struct Wanted {
    step: String,
    /// How many more times it may be reached.
    left: AtomicU64,
}

static WANTED: OnceLock<Option<Wanted>> = OnceLock::new();

/// Ends the process if this is the step that the environment names.
pub fn reach(step: &str) {
    let Some(wanted) = WANTED.get_or_init(|| parse(&std::env::var(VARIABLE).ok()?)) else { return };
    if wanted.step == step && wanted.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        std::process::abort();
    }
}

/// `NAME` or `NAME:N`. A name that is no step, or a zero, is refused aloud: a test that kills nothing proves nothing.
fn parse(text: &str) -> Option<Wanted> {
    let (step, count) = text.split_once(':').unwrap_or((text, "1"));
    let left = count.parse::<u64>().ok().filter(|count| *count > 0);
    let is_known = [AGENT, SERVER, SEGMENT, COMPACTION].iter().any(|steps| steps.contains(&step));
    let (true, Some(left)) = (is_known, left) else {
        tracing::error!(
            %text, variable = VARIABLE, agent = ?AGENT, server = ?SERVER, segment = ?SEGMENT, compaction = ?COMPACTION,
            "no such fail point"
        );
        return None;
    };
    Some(Wanted { step: step.to_owned(), left: AtomicU64::new(left) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_steps_are_taken() {
        assert!(parse("").is_none());
        assert!(parse("segment-renamed:0").is_none());
        assert!(parse("no-such-step").is_none());
        assert_eq!(parse("segment-renamed").unwrap().left.into_inner(), 1);
        assert_eq!(parse("segment-renamed:3").unwrap().left.into_inner(), 3);
    }
}
