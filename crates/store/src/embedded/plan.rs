//! Which segments to compact next: a pure function of the catalogue and of what is due.
//!
//! ```text
//! received ──1 h + 10 min──▶ settled, one file per 10 min ──▶ 1m, one file per hour ──▶ 1h, one file per 6 h
//! ```
//!
//! Only neighbours in the log become one, so that a segment's name stays the range of the log that it holds. A segment
//! belongs to the span that holds its newest row, or the moment at which it was received where that row is said to be
//! newer; a span is worked on when all of it is due, and is at rest as soon as one file of the aim's kind is left of it.

use super::catalogue::Entry;
use super::segment::SegmentKind;
use crate::history::Due;
use weir_model::UnixNanos;

/// Files that are read at once: each holds a page of every column in memory, about 2 MB.
pub(super) const FAN_IN: usize = 36;
/// Rows that are settled at once, in memory: about 100 MB. One segment has at most 100,000 as the server writes it.
const SETTLED_ROWS_MAX: u64 = 250_000;

const MINUTE_NS: i64 = 60_000_000_000;

/// Neighbours that become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) inputs: Vec<Entry>,
    pub(super) target: SegmentKind,
}

/// `entries` in the order of the log.
pub(super) fn plan(entries: &[Entry], due: &Due) -> Option<Job> {
    let steps = [
        (SegmentKind::Received, SegmentKind::Settled, due.settled_before, 10 * MINUTE_NS),
        (SegmentKind::Settled, SegmentKind::Minute, due.minutes_before, 60 * MINUTE_NS),
        (SegmentKind::Minute, SegmentKind::Hour, due.hours_before, 360 * MINUTE_NS),
    ];
    steps.into_iter().find_map(|(lower, target, before, span_ns)| {
        let span = |entry: &Entry| entry.ended().0.div_euclid(span_ns);
        let is_due = |entry: &&Entry| {
            (entry.kind == lower || entry.kind == target)
                && UnixNanos((span(entry) + 1).saturating_mul(span_ns)) <= before
        };
        let mut rest = entries;
        while !rest.is_empty() {
            let group = rest.iter().take_while(|entry| is_due(entry) && span(entry) == span(&rest[0])).count();
            let (group, after) = rest.split_at(group.max(1));
            rest = after;
            if group.iter().all(|entry| is_due(&entry))
                && let Some(inputs) = next_of(group, lower)
            {
                return Some(Job { inputs, target });
            }
        }
        None
    })
}

/// Those of the lower kind first, so that what is already done is not done anew with every few that follow.
fn next_of(group: &[Entry], lower: SegmentKind) -> Option<Vec<Entry>> {
    if let Some(first) = group.iter().position(|entry| entry.kind == lower) {
        let mut rows = 0;
        let run = group[first..].iter().take(FAN_IN).take_while(|entry| {
            rows += entry.rows;
            entry.kind == lower && (lower != SegmentKind::Received || rows <= SETTLED_ROWS_MAX || rows == entry.rows)
        });
        return Some(run.cloned().collect());
    }
    (group.len() > 1).then(|| group[..group.len().min(FAN_IN)].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::SegmentId;
    use crate::report::Lsn;

    fn entry(lsn: u64, minute: i64, kind: SegmentKind) -> Entry {
        let at = UnixNanos(minute * MINUTE_NS + 5);
        let id = SegmentId { first: Lsn(lsn), last: Lsn(lsn) };
        Entry {
            id,
            kind,
            oldest: at,
            newest: at,
            received: UnixNanos(i64::MAX),
            rows: 100_000,
            bytes: 1,
            checksum: None,
        }
    }

    fn due(minute: i64) -> Due {
        let at = UnixNanos(minute * MINUTE_NS);
        Due { settled_before: at, minutes_before: at, hours_before: at }
    }

    #[test]
    fn a_span_waits_until_all_of_it_is_due() {
        let entries = [entry(1, 1, SegmentKind::Received)];
        assert_eq!(plan(&entries, &due(9)), None);
        let job = plan(&entries, &due(10)).unwrap();
        assert_eq!((job.inputs.len(), job.target), (1, SegmentKind::Settled));
    }

    #[test]
    fn settling_takes_at_most_so_many_rows_and_neighbours_only() {
        let mut entries: Vec<Entry> = (1..6).map(|lsn| entry(lsn, 1, SegmentKind::Received)).collect();
        assert_eq!(plan(&entries, &due(10)).unwrap().inputs, entries[..2]);
        // One that ends tomorrow stays, and what lies on its two sides does not become one.
        entries[1].newest = UnixNanos(i64::MAX);
        assert_eq!(plan(&entries, &due(10)).unwrap().inputs, entries[..1]);
    }

    #[test]
    fn a_row_of_tomorrow_waits_no_longer_than_those_that_came_with_it() {
        let mut entries: Vec<Entry> = (1..4).map(|lsn| entry(lsn, 1, SegmentKind::Received)).collect();
        for entry in &mut entries {
            (entry.received, entry.rows) = (entry.newest.plus(MINUTE_NS), 1);
        }
        entries[1].newest = UnixNanos(24 * 60 * MINUTE_NS);
        assert_eq!(plan(&entries, &due(9)), None);
        assert_eq!(plan(&entries, &due(10)).unwrap().inputs, entries);
    }

    #[test]
    fn one_file_of_the_highest_kind_is_at_rest() {
        assert_eq!(plan(&[entry(1, 1, SegmentKind::Hour)], &due(1000)), None);
        let two = [entry(1, 1, SegmentKind::Hour), entry(2, 200, SegmentKind::Hour)];
        assert_eq!(plan(&two, &due(1000)).unwrap().inputs.len(), 2);
        let apart = [entry(1, 1, SegmentKind::Hour), entry(2, 400, SegmentKind::Hour)];
        assert_eq!(plan(&apart, &due(1000)), None);
    }

    #[test]
    fn the_lower_kind_goes_first() {
        let entries = [entry(1, 1, SegmentKind::Minute), entry(2, 2, SegmentKind::Settled)];
        assert_eq!(plan(&entries, &due(60)).unwrap().inputs, entries[1..]);
    }
}
