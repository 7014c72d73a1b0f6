//! Folders of older schemas are raised, keep everything, and are compacted like new ones.
//!
//! `tests/data/schema-3` is a folder that the build of commit af53f02 wrote: `weir up --interval 2s` on a feed of eight
//! made-up connections, 23 polls. The process facts of the machine were deleted from it. Schemas 1 and 2 are schema 3
//! without the tables that came later; their text has not changed since.

use crate::contract::compaction::ById;
use std::path::Path;
use weir_model::UnixNanos;
use weir_store::embedded::{Embedded, SCHEMA_VERSION, check};
use weir_store::{Due, HistoryStore as _, Lsn, StateStore as _, TransactionSpan};

/// The schema of the recorded folder.
const RECORDED: u32 = 3;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn lower(folder: &Path, version: u32) {
    let connection = rusqlite::Connection::open(folder.join("state.db")).unwrap();
    if version < 3 {
        connection.execute_batch("DROP TABLE dns; DROP TABLE dns_names;").unwrap();
    }
    if version < 2 {
        connection.execute_batch("DROP TABLE translations;").unwrap();
    }
    connection.execute("DELETE FROM migrations WHERE version > ?1", [version]).unwrap();
    connection.pragma_update(None, "user_version", version).unwrap();
}

/// Rows, bytes sent, bytes received, over rows of every length.
fn sums(store: &Embedded) -> (u64, u64, u64) {
    let (mut rows, mut sent, mut recv) = (0, 0, 0);
    let all = (UnixNanos(i64::MIN), UnixNanos(i64::MAX));
    let view = store.history(Lsn(u64::MAX)).unwrap();
    let mut add = |more: u64, one: u64, other: u64| {
        rows += more;
        sent += one.min(other);
        recv += one.max(other);
    };
    view.rows(all.0, all.1, &mut |row, _| add(1, row.deltas.sent.0, row.deltas.recv.0)).unwrap();
    view.rollups(all.0, all.1, &mut |row| add(row.sums.rows, row.sums.sent, row.sums.recv)).unwrap();
    (rows, sent, recv)
}

#[test]
fn folders_of_every_older_schema_are_raised_and_keep_everything() {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/schema-3");
    for version in 1..=RECORDED {
        let folder = tempfile::tempdir().unwrap();
        copy(&recorded, folder.path());
        lower(folder.path(), version);
        std::fs::create_dir_all(folder.path().join("log")).unwrap();
        let noted = check(folder.path()).unwrap();
        assert_eq!((noted.findings.len(), noted.notes.len()), (0, 1), "{version}: {noted:?}");

        let store = Embedded::open(folder.path()).unwrap();
        assert_eq!(store.watermark().unwrap(), Lsn(23));
        // What the file's other readers find, too: half as much received as sent.
        assert_eq!(sums(&store), (184, 396_000, 792_000), "schema {version}");
        let view = store.view().unwrap();
        let mut transactions = 0;
        view.transactions(TransactionSpan::default(), &mut |_| transactions += 1).unwrap();
        assert_eq!((transactions, view.streams().unwrap()[0].applied_sequence), (8, 23));
        drop(view);
        // A file without a checksum and without the newer column is compacted like every other.
        let everything = UnixNanos(i64::MAX);
        let due = Due { settled_before: everything, minutes_before: everything, hours_before: everything };
        while store.compact(&due, &mut ById).unwrap().is_some() {}
        assert_eq!(store.summary().unwrap().tiers[2].segments, 1);
        assert_eq!(sums(&store), (184, 396_000, 792_000), "schema {version}, compacted");
        drop(store);
        let checked = check(folder.path()).unwrap();
        assert_eq!((checked.findings.len(), checked.notes.len()), (0, 0), "{checked:?}");
        let raised: u32 = rusqlite::Connection::open(folder.path().join("state.db"))
            .unwrap()
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap();
        assert_eq!(raised, SCHEMA_VERSION);
    }
}
