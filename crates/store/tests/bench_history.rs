//! The promise: the history on which `make bench-store` measures is what a server's own writer and compaction make of it,
//! and says the same at every resolution.

#[path = "../examples/bench-history/history.rs"]
mod history;

use history::{Cluster, Shape, Sums};
use weir_model::UnixNanos;
use weir_store::embedded::Embedded;
use weir_store::{Due, Fate, HistoryStore as _, Lsn, StoreError};

const HOUR_NS: i64 = 3_600_000_000_000;
/// 2026-01-01T00:00:00Z.
const UNTIL: i64 = 1_767_225_600_000_000_000;
const NEVER: UnixNanos = UnixNanos(i64::MIN);

fn sums(store: &Embedded) -> Result<Sums, StoreError> {
    let totals = store.history(Lsn(u64::MAX >> 1))?.edge_totals(NEVER, UnixNanos(i64::MAX), None)?;
    assert_eq!(totals.unsettled_rows, 0);
    let counted = totals.edges.into_iter().filter(|edge| edge.fate == Fate::Counted);
    let mut sums = Sums::new();
    for edge in counted {
        *sums.entry((edge.client.name.clone(), edge.server.name.clone(), edge.port)).or_default() +=
            edge.sums.sent + edge.sums.recv;
    }
    Ok(sums)
}

#[test]
fn every_resolution_says_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(&folder.path().join("server")).unwrap();
    let mut cluster = Cluster::new();
    let shape = Shape { rows: 20_000, span_ns: 8 * HOUR_NS, until: UnixNanos(UNTIL) };
    let (written, truth) = history::fill(&store, &cluster, shape).unwrap();
    assert!(written >= shape.rows);
    let late = UnixNanos(UNTIL + HOUR_NS);
    for (minutes_before, hours_before) in [(NEVER, NEVER), (late, NEVER), (late, UnixNanos(UNTIL))] {
        let due = Due { settled_before: late, minutes_before, hours_before };
        assert!(history::compact(&store, &mut cluster, due).unwrap() > 0);
        assert_eq!(sums(&store).unwrap(), truth);
    }
    let rows = store.summary().unwrap().tiers.map(|tier| tier.rows);
    assert!(rows[0] == 0 && rows[2] > 0, "{rows:?}");
}
