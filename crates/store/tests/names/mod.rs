//! The catalogue's names leave with the segments that have them, and no number of an edge is given twice.

use crate::contract::row;
use std::path::Path;
use std::sync::Arc;
use weir_model::{Endpoint, Side, UnixNanos};
use weir_store::embedded::{Embedded, check};
use weir_store::{
    Due, EdgeTotal, Fate, HistoryRow, HistoryStore as _, Judge, Judgement, Lsn, SegmentId, SettledEdge, SettledEnd,
    SettledName, StoreError, TierLimit,
};

const MINUTE: i64 = 60_000_000_000;
/// Entries of the log that each segment holds.
const ENTRIES: u64 = 1_000;

/// Names every end as the row does.
struct AsCalled;

impl Judge for AsCalled {
    fn prepare(&mut self, _: Option<(UnixNanos, UnixNanos)>, _: &[&HistoryRow]) -> Result<(), StoreError> {
        Ok(())
    }

    fn judge(&mut self, row: &HistoryRow) -> Judgement {
        let end = |endpoint: &Endpoint| {
            let name =
                SettledName { name: endpoint.name.clone(), kind: endpoint.kind.clone(), ..SettledName::default() };
            Arc::new(SettledEnd { endpoint: name, ..SettledEnd::default() })
        };
        let (client, server) = (end(&row.client_endpoint), end(&row.server_endpoint));
        let edge = SettledEdge { client, server, port: row.server.port(), ..SettledEdge::default() };
        Judgement { side: Side::Client, fate: Fate::Counted, edge: Some(Arc::new(edge)) }
    }
}

/// One pod that stays, and one that comes and goes with its ten minutes.
fn put(store: &Embedded, number: u64) {
    let at = (number as i64 * 10 + 1) * MINUTE;
    let called = |name: String| {
        let client_endpoint = Arc::new(Endpoint { kind: "pod".into(), namespace: String::new(), name });
        HistoryRow { client_endpoint, ..row(at, 0, 1) }
    };
    let id = SegmentId { first: Lsn(number * ENTRIES + 1), last: Lsn((number + 1) * ENTRIES) };
    store.put_segment(id, UnixNanos(at), &[&[called("stays".into()), called(format!("pod-{number}"))]]).unwrap();
    settle(store, UnixNanos(i64::MIN), UnixNanos(i64::MIN));
}

fn settle(store: &Embedded, minutes_before: UnixNanos, hours_before: UnixNanos) {
    let due = Due { settled_before: UnixNanos(i64::MAX), minutes_before, hours_before };
    while store.compact(&due, &mut AsCalled).unwrap().is_some() {}
}

fn keep_from(store: &Embedded, number: u64) -> u64 {
    let limit = TierLimit { keep_from: UnixNanos(number as i64 * 10 * MINUTE), bytes_max: u64::MAX };
    store.retain_history(&[limit; 3]).unwrap().segments
}

/// Edges, ends, endpoints.
fn names(folder: &Path) -> [u64; 3] {
    let connection = rusqlite::Connection::open(folder.join("state.db")).unwrap();
    ["edges", "ends", "endpoints"].map(|table| {
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap() as u64
    })
}

fn newest_edge(folder: &Path) -> i64 {
    let connection = rusqlite::Connection::open(folder.join("state.db")).unwrap();
    connection.query_row("SELECT max(id) FROM edges", [], |row| row.get(0)).unwrap()
}

#[test]
fn names_stay_as_few_as_what_is_kept_has_however_many_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    let mut most = [0; 3];
    for number in 0..120 {
        put(&store, number);
        let settled = UnixNanos((number as i64 - 5) * 10 * MINUTE);
        settle(&store, settled, settled);
        keep_from(&store, number.saturating_sub(30));
        most = std::array::from_fn(|kind| names(folder.path())[kind].max(most[kind]));
    }
    // What 31 segments have, and three strides of ten segments each; of an edge, what it was called before it was settled.
    let bound = 31 + 30 + 36;
    assert!(most[0] <= 2 * bound && most[1] <= bound && most[2] <= bound, "{most:?}");
    // All that is kept has its names.
    let all = (UnixNanos(i64::MIN), UnixNanos(i64::MAX));
    let totals = store.history(Lsn(u64::MAX)).unwrap().edge_totals(all.0, all.1, None).unwrap();
    let (stay, go): (Vec<_>, Vec<_>) = totals.edges.iter().partition(|edge| edge.client.name == "stays");
    let rows = |edges: &[&EdgeTotal]| edges.iter().map(|edge| edge.sums.rows).sum::<u64>();
    assert_eq!((stay.len(), rows(&stay)), (1, rows(&go)));
    drop(store);
    let checked = check(folder.path()).unwrap();
    assert_eq!((checked.findings, checked.notes), (Vec::new(), Vec::new()));
}

#[test]
fn a_reader_names_what_has_left_since_and_no_number_is_given_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    for number in 0..3 {
        put(&store, number);
    }
    let newest = newest_edge(folder.path());
    let all = (UnixNanos(i64::MIN), UnixNanos(i64::MAX));
    let view = store.history(Lsn(u64::MAX)).unwrap();
    let before = view.edge_totals(all.0, all.1, None).unwrap().edges.len();
    assert_eq!(before, 4);
    // Long after: nothing moved in between.
    let id = SegmentId { first: Lsn(3 * ENTRIES + 1), last: Lsn(100 * ENTRIES) };
    store.put_segment(id, UnixNanos(100 * MINUTE), &[]).unwrap();
    assert_eq!(keep_from(&store, 100), 3);
    assert_eq!(view.edge_totals(all.0, all.1, None).unwrap().edges.len(), before);
    assert_ne!(names(folder.path()), [0; 3]);
    drop(view);
    keep_from(&store, 100);
    assert_eq!(names(folder.path()), [0; 3]);
    put(&store, 100);
    assert_eq!(names(folder.path()), [4, 3, 3], "as received and as settled");
    let connection = rusqlite::Connection::open(folder.path().join("state.db")).unwrap();
    let oldest: i64 = connection.query_row("SELECT min(id) FROM edges", [], |row| row.get(0)).unwrap();
    assert!(oldest > newest, "{oldest} {newest}");
}
