//! What a batch says about its node beside its records: coverage, losses, the source's state, the agent's own numbers.
//!
//! Made by the server from each batch in its log; goes to the [`StateStore`](crate::StateStore); comes back as
//! [`StreamSummary`], [`Coverage`] and [`Loss`] for every answer's completeness.

use std::collections::BTreeMap;
use weir_model::{NodeName, UnixNanos};

/// A position in the log: the first entry is 1; 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// An agent's stream: 16 random bytes, made with its spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub [u8; 16]);

/// One batch's report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchReport {
    /// The agent's stream.
    pub stream: StreamId,
    /// Its sequence.
    pub sequence: u64,
    /// A tombstone's range: it tells what these earlier batches held, which the agent had to drop. Both included.
    pub dropped: Option<(u64, u64)>,
    /// The node.
    pub node: NodeName,
    /// Its boot.
    pub boot: [u8; 16],
    /// The agent process; zeros where it is not told.
    pub agent_run: [u8; 16],
    /// The agent's version; empty where it is not told.
    pub version: String,
    /// When the server received it.
    pub received: UnixNanos,
    /// The agent's wall clock minus the server's, nanoseconds, as measured when it was received.
    pub clock_offset_ns: Option<i64>,
    /// The span that it reports on, where it tells one.
    pub coverage: Option<Coverage>,
    /// Where its records come from, where it tells.
    pub source: Option<SourceState>,
    /// How the node's sources of metadata do; empty where it is not told.
    pub metadata: Vec<MetadataState>,
    /// What was lost.
    pub losses: Vec<Loss>,
    /// What to add to the stream's counters, by name.
    pub counts: BTreeMap<String, u64>,
}

/// The reason of a loss that a later tombstone tells better, and therefore replaces: the server saw that the agent no
/// longer has some batches, and not what was in them.
pub const BATCHES_LOST: &str = "batches_lost";

/// A span and whether a poll covered it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// The node.
    pub node: String,
    /// Its start. Equal to `to` for a node's first poll: nothing before is covered.
    pub from: UnixNanos,
    /// Its end.
    pub to: UnixNanos,
    /// Whether a poll covered it.
    pub covered: bool,
    /// Why not.
    pub gap_reason: String,
}

/// How a node's source does, in its agent's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// `weir`, `legacy` or `system-probe`.
    pub kind: String,
    /// `ok`, `degraded`, `missing`, ...
    pub state: String,
    /// Its own words.
    pub detail: String,
    /// Its version.
    pub version: String,
}

/// How one of a node's sources of metadata does, in its agent's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataState {
    /// `node` for the node's own name and addresses, else one of [`weir_model::fact::source`].
    pub source: String,
    /// `ok`, `off`, `refused` or `failed`.
    pub state: String,
    /// What is wrong or missing, and how to mend it.
    pub detail: String,
    /// Things that it told of when it was read last.
    pub things: u64,
    /// When its last whole reading began: what it told and did not end was so until then.
    pub read: Option<UnixNanos>,
}

/// What was lost within a batch's span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// The node, empty for the server's own.
    pub node: String,
    /// The span's start.
    pub from: UnixNanos,
    /// The span's end.
    pub to: UnixNanos,
    /// `tracer` (its kernel programs included), `agent`, `server` or `store`.
    pub place: String,
    /// A fixed word.
    pub reason: String,
    /// Events, rows or datagrams.
    pub count: u64,
    /// Bytes known to be in them.
    pub bytes: u64,
    /// Connections known to be in them.
    pub connections: u64,
    /// A switch or a documented cap decided so.
    pub intended: bool,
}

/// What is known about one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSummary {
    /// The stream.
    pub stream: StreamId,
    /// Its node.
    pub node: NodeName,
    /// The node's boot, as the newest batch says.
    pub boot: [u8; 16],
    /// The agent process, as the newest batch says.
    pub agent_run: [u8; 16],
    /// The agent's version.
    pub version: String,
    /// The last sequence that is in the state.
    pub applied_sequence: u64,
    /// When the newest batch was received.
    pub received: UnixNanos,
    /// The end of the first span that it reported on.
    pub first_covered: UnixNanos,
    /// The newest span.
    pub newest: Coverage,
    /// The agent's wall clock minus the server's, nanoseconds.
    pub clock_offset_ns: Option<i64>,
    /// Its source.
    pub source: SourceState,
    /// The node's sources of metadata, as the newest batch that tells of them says.
    pub metadata: Vec<MetadataState>,
    /// Its counters by name.
    pub counts: BTreeMap<String, u64>,
}

impl StreamSummary {
    /// What is known of a stream after its next report. What the report does not tell stays as it was.
    #[must_use]
    pub fn after(stored: Option<Self>, report: &BatchReport) -> Self {
        let mut summary = stored.unwrap_or_else(|| Self {
            stream: report.stream,
            node: report.node.clone(),
            boot: report.boot,
            agent_run: report.agent_run,
            version: String::new(),
            applied_sequence: 0,
            received: report.received,
            first_covered: report.coverage.as_ref().map_or(report.received, |coverage| coverage.from),
            newest: Coverage { node: report.node.0.clone(), ..Coverage::default() },
            clock_offset_ns: None,
            source: SourceState::default(),
            metadata: Vec::new(),
            counts: BTreeMap::new(),
        });
        summary.node = report.node.clone();
        summary.boot = report.boot;
        if report.agent_run != [0; 16] {
            summary.agent_run = report.agent_run;
        }
        if !report.version.is_empty() {
            summary.version.clone_from(&report.version);
        }
        summary.applied_sequence = report.sequence;
        summary.received = report.received;
        // A tombstone reports on a span that lies behind.
        if let Some(coverage) = &report.coverage
            && coverage.to >= summary.newest.to
        {
            summary.newest = coverage.clone();
        }
        summary.clock_offset_ns = report.clock_offset_ns.or(summary.clock_offset_ns);
        if let Some(source) = &report.source {
            summary.source = source.clone();
        }
        if !report.metadata.is_empty() {
            summary.metadata = read_again(&summary.metadata, &report.metadata);
        }
        for (name, count) in &report.counts {
            let sum = summary.counts.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*count);
        }
        summary
    }
}

/// The newest states. A source that could not be read since was still read when it was: without that, what it told would
/// be believed without end.
fn read_again(stored: &[MetadataState], newest: &[MetadataState]) -> Vec<MetadataState> {
    let mut states = newest.to_vec();
    for state in &mut states {
        let earlier = stored.iter().find(|earlier| earlier.source == state.source);
        state.read = state.read.max(earlier.and_then(|earlier| earlier.read));
    }
    states
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(sequence: u64, metadata: &[(&str, &str, Option<i64>)]) -> BatchReport {
        let metadata = metadata.iter().map(|(source, state, read)| MetadataState {
            source: (*source).to_owned(),
            state: (*state).to_owned(),
            read: read.map(UnixNanos),
            ..MetadataState::default()
        });
        BatchReport {
            stream: StreamId([1; 16]),
            sequence,
            dropped: None,
            node: NodeName("a".to_owned()),
            boot: [2; 16],
            agent_run: [3; 16],
            version: String::new(),
            received: UnixNanos(0),
            clock_offset_ns: None,
            coverage: None,
            source: None,
            metadata: metadata.collect(),
            losses: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    #[test]
    fn a_source_that_fails_keeps_the_time_at_which_it_was_read_last() {
        let mut summary = None;
        for (sequence, told) in (1..).zip([
            &[("kubelet", "ok", Some(100)), ("cri", "off", None)][..],
            &[("kubelet", "failed", None), ("cri", "ok", Some(200))],
            &[],
            &[("kubelet", "refused", None), ("cri", "ok", Some(300))],
        ]) {
            summary = Some(StreamSummary::after(summary, &report(sequence, told)));
        }
        let kept: Vec<_> = summary
            .iter()
            .flat_map(|summary| &summary.metadata)
            .map(|s| (&s.source[..], &s.state[..], s.read))
            .collect();
        assert_eq!(kept, [("kubelet", "refused", Some(UnixNanos(100))), ("cri", "ok", Some(UnixNanos(300)))]);
    }
}
