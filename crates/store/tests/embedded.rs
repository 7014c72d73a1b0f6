//! The embedded backend keeps the contract, and finds its way back from every step at which it can be stopped.

#[cfg(test)]
mod care;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod migrations;
#[cfg(test)]
mod names;

#[cfg(test)]
mod place {
    use crate::contract::shared::Place;
    use std::sync::Arc;
    use weir_store::StoreError;
    use weir_store::embedded::Embedded;
    use weir_store::shared::SharedState;

    impl Place for tempfile::TempDir {
        fn open(&self) -> Result<Arc<dyn SharedState>, StoreError> {
            Ok(Arc::new(Embedded::open(self.path())?))
        }

        fn raise_format(&self) {
            std::fs::write(self.path().join("VERSION"), "weir-data 2\n").unwrap();
        }

        fn open_with_wrong_credentials(&self) -> Option<Result<Arc<dyn SharedState>, StoreError>> {
            None
        }

        fn row_bytes_max(&self) -> Option<usize> {
            None
        }

        fn many(&self) -> u64 {
            12_000
        }
    }
}

use contract::{LATER, row};
use weir_model::UnixNanos;
use weir_store::embedded::Embedded;
use weir_store::embedded::log::{Entry, EntryKind, Log, NewEntry};
use weir_store::{HistoryStore as _, Lsn, SegmentId, StateChanges, StateStore as _, StreamId};

fn id(first: u64, last: u64) -> SegmentId {
    SegmentId { first: Lsn(first), last: Lsn(last) }
}

#[test]
fn it_keeps_the_contract_of_state() {
    let folder = tempfile::tempdir().unwrap();
    contract::state(|| Embedded::open(folder.path()).unwrap());
}

#[test]
fn it_keeps_the_contract_of_shared_state() {
    contract::shared::shared(|| tempfile::tempdir().unwrap());
}

#[test]
fn it_keeps_the_contract_of_history() {
    let folder = tempfile::tempdir().unwrap();
    contract::history(|| Embedded::open(folder.path()).unwrap());
}

#[test]
fn it_keeps_the_contract_of_compaction() {
    contract::compaction::compaction(|| {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        (folder, store)
    });
}

#[test]
fn a_segment_file_that_the_catalogue_does_not_name_does_not_exist() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    {
        let store = Embedded::open(other.path()).unwrap();
        store.put_segment(id(1, 3), LATER, &[&[row(100, 1, 5)]]).unwrap();
    }
    drop(Embedded::open(folder.path()).unwrap());
    // The crash came after the rename and before the catalogue's transaction, and another one while a file was written.
    let name = "00000000000000000001-00000000000000000003.parquet";
    std::fs::copy(other.path().join("segments").join(name), folder.path().join("segments").join(name)).unwrap();
    std::fs::write(folder.path().join("segments/00000000000000000004-00000000000000000005.tmp"), "half").unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    assert_eq!(std::fs::read_dir(folder.path().join("segments")).unwrap().count(), 0);
    assert_eq!(store.watermark().unwrap(), Lsn(0));
    // The replay writes it again, perhaps with another end.
    store.put_segment(id(1, 2), LATER, &[&[row(100, 1, 5)]]).unwrap();
    let mut rows = 0;
    store.scan(UnixNanos(0), UnixNanos(200), Lsn(9), &mut |_| rows += 1).unwrap();
    assert_eq!(rows, 1);
}

#[test]
fn a_copy_taken_while_it_runs_opens_with_everything_that_was_merged() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    let transactions = vec![contract::transaction(1, 100)];
    let reports = vec![contract::report(1, 10)];
    store.apply(&StateChanges { transactions, reports, ..StateChanges::default() }).unwrap();
    store.put_segment(id(1, 1), LATER, &[&[row(100, 1, 5)]]).unwrap();
    let copy = tempfile::tempdir().unwrap();
    for name in ["VERSION", "state.db", "state.db-wal"] {
        std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    std::fs::create_dir(copy.path().join("segments")).unwrap();
    for entry in std::fs::read_dir(folder.path().join("segments")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join("segments").join(entry.file_name())).unwrap();
    }
    let copied = Embedded::open(copy.path()).unwrap();
    assert_eq!(copied.watermark().unwrap(), Lsn(1));
    assert_eq!(copied.view().unwrap().streams().unwrap()[0].applied_sequence, 1);
    assert_eq!(copied.summary().unwrap().rows, 1);
}

#[test]
fn a_segment_is_readable_by_its_columns_and_says_its_version() {
    use parquet::file::reader::FileReader as _;
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    store.put_segment(id(1, 3), LATER, &[&[row(100, 1, 5), row(100, 2, 6)]]).unwrap();
    let path = folder.path().join("segments/00000000000000000001-00000000000000000003.parquet");
    let reader = parquet::file::reader::SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let metadata = reader.metadata().file_metadata();
    let value = |key: &str| {
        let pairs = metadata.key_value_metadata().unwrap();
        pairs.iter().find(|pair| pair.key == key).unwrap().value.clone().unwrap()
    };
    assert_eq!(
        (value("weir.segment.version"), value("weir.segment.first"), value("weir.segment.last")),
        ("1".into(), "1".into(), "3".into())
    );
    let columns: Vec<&str> = metadata.schema_descr().columns().iter().map(|column| column.name()).collect();
    assert_eq!(
        columns,
        [
            "window_start",
            "from_time",
            "to_time",
            "connection",
            "edge",
            "view",
            "node",
            "protocol",
            "net_ns",
            "client_address",
            "client_port",
            "client_kind",
            "client_namespace",
            "client_name",
            "server_address",
            "server_port",
            "server_kind",
            "server_namespace",
            "server_name",
            "process",
            "container_id",
            "sent_bytes",
            "recv_bytes",
            "retransmits",
            "opened",
            "closed",
            "failure",
            "rtt_us",
            "started",
            "counted",
            "late",
        ]
    );
}

#[test]
fn the_log_and_the_watermark_together_lose_no_entry_whenever_the_log_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    let entry = |sequence| NewEntry {
        kind: EntryKind::Batch,
        encoding: 1,
        stream: StreamId([1; 16]),
        sequence,
        received: UnixNanos(1),
        payload: vec![1, 2, 3].into(),
    };
    let open_log = |watermark| {
        let mut entries: Vec<Entry> = Vec::new();
        let log = Log::open(&store.folder().log(), watermark, &mut |entry| {
            entries.push(entry);
            Ok(())
        });
        (log.unwrap().0, entries)
    };
    let (mut log, _) = open_log(Lsn(0));
    log.append(&[entry(1), entry(2), entry(3)]).unwrap();
    store.put_segment(id(1, 2), LATER, &[]).unwrap();
    drop(log);
    // Stopped after the watermark moved and before the log was cut.
    let (mut log, entries) = open_log(store.watermark().unwrap());
    assert_eq!(entries.iter().map(|entry| entry.entry.sequence).collect::<Vec<_>>(), [3]);
    log.truncate(Lsn(2)).unwrap();
    drop(log);
    let (_, entries) = open_log(store.watermark().unwrap());
    assert_eq!(entries.len(), 1);
}
