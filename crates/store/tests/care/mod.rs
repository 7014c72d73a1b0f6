//! Care of a data folder: checking finds what is wrong, a backup is a moment of the folder, an export has every row.

use crate::contract::compaction::{ById, found_sums, put_all, some_rows};
use crate::contract::{LATER, report, transaction};
use parquet::file::reader::FileReader as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use weir_model::UnixNanos;
use weir_store::embedded::log::{EntryKind, Log, NewEntry};
use weir_store::embedded::{Embedded, Exported, Form, backup, check, export};
use weir_store::{Due, HistoryStore as _, Lsn, SegmentId, StateChanges, StateStore as _, StoreError, StreamId};

const ALL: (UnixNanos, UnixNanos) = (UnixNanos(i64::MIN), UnixNanos(i64::MAX));
const EVERYTHING: Due =
    Due { settled_before: UnixNanos(i64::MAX), minutes_before: UnixNanos(i64::MAX), hours_before: UnixNanos(i64::MAX) };

fn entry(sequence: u64) -> NewEntry {
    NewEntry {
        kind: EntryKind::Batch,
        encoding: 1,
        stream: StreamId([1; 16]),
        sequence,
        received: UnixNanos(1),
        payload: vec![7; 100].into(),
    }
}

/// A folder with rows of every kind, some state and a log that goes on behind the watermark.
fn filled(folder: &Path) {
    let rows = some_rows();
    let store = Embedded::open(folder).unwrap();
    let reports = vec![report(1, 10)];
    store.apply(&StateChanges { transactions: vec![transaction(1, 100)], reports, ..StateChanges::default() }).unwrap();
    let third = rows.len() / 3;
    put_all(&store, &rows[..third]);
    while store.compact(&EVERYTHING, &mut ById).unwrap().is_some() {}
    put_all(&store, &rows[..2 * third]);
    let settle = Due { minutes_before: UnixNanos(i64::MIN), hours_before: UnixNanos(i64::MIN), ..EVERYTHING };
    while store.compact(&settle, &mut ById).unwrap().is_some() {}
    put_all(&store, &rows);
    let (mut log, _) = Log::open(&store.folder().log(), store.watermark().unwrap(), &mut |_| Ok(())).unwrap();
    log.append(&[entry(1), entry(2), entry(3)]).unwrap();
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder.join("segments")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// One finding, about this file, and the words in it.
fn finds(folder: &Path, path: &Path, words: &str) {
    let checked = check(folder).unwrap();
    let [finding] = checked.findings.as_slice() else { panic!("{:?}", checked.findings) };
    assert_eq!(finding.path, path);
    assert!(finding.what.contains(words), "{}", finding.what);
    assert!(!finding.mend.is_empty());
}

#[test]
fn a_whole_folder_has_no_findings_and_is_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let before = segments(folder.path());
    let checked = check(folder.path()).unwrap();
    assert_eq!((&checked.findings, &checked.notes), (&Vec::new(), &Vec::new()));
    assert_eq!((checked.segments, checked.log_entries), (before.len() as u64, 3));
    assert_eq!(segments(folder.path()), before);
}

#[test]
fn a_folder_that_a_server_has_and_one_that_is_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none");
    assert!(check(&none).is_err() && !none.exists(), "nothing is created");
    let store = Embedded::open(folder.path()).unwrap();
    let error = check(folder.path()).unwrap_err();
    assert!(matches!(error, StoreError::Held { .. }));
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    let mut out = Vec::new();
    assert!(export(folder.path(), Exported::Rows, ALL.0, ALL.1, Form::Csv, &mut out).is_err());
    drop(store);
}

#[test]
fn every_damage_is_found_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let path = folder.path();
    let files = segments(path);
    for (index, file) in files.iter().enumerate() {
        let whole = std::fs::read(file).unwrap();
        std::fs::remove_file(file).unwrap();
        finds(path, file, "not there");
        let mut flipped = whole.clone();
        let middle = (index * 31) % flipped.len();
        flipped[middle] ^= 1;
        std::fs::write(file, &flipped).unwrap();
        finds(path, file, "checksum");
        std::fs::write(file, &whole[..whole.len() / 2]).unwrap();
        finds(path, file, "bytes");
        std::fs::write(file, &whole).unwrap();
    }
    // A file that nobody names, and a torn end of the log, mend themselves.
    std::fs::write(path.join("segments/9-9.parquet"), "x").unwrap();
    let log = std::fs::read_dir(path.join("log")).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&log).unwrap();
    std::fs::write(&log, &whole[..whole.len() - 5]).unwrap();
    let checked = check(path).unwrap();
    assert_eq!((checked.findings.len(), checked.notes.len(), checked.log_entries), (0, 2, 2));
    std::fs::write(&log, &whole).unwrap();
    std::fs::remove_file(path.join("segments/9-9.parquet")).unwrap();
    // Entries between the watermark and the log are gone.
    let later = path.join("log/00000000000000000099.log");
    let mut moved = whole.clone();
    moved[16..24].copy_from_slice(&99_u64.to_le_bytes());
    moved.truncate(24);
    std::fs::remove_file(&log).unwrap();
    std::fs::write(&later, moved).unwrap();
    finds(path, &later, "is nowhere");
    std::fs::remove_file(&later).unwrap();
    std::fs::write(&log, &whole).unwrap();
    // The state: a page that SQLite does not understand.
    let state = path.join("state.db");
    drop(Embedded::open(path).unwrap());
    rusqlite::Connection::open(&state)
        .unwrap()
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
        .unwrap();
    let mut bytes = std::fs::read(&state).unwrap();
    let page = bytes.len() - 4096;
    bytes[page..].fill(0xff);
    std::fs::write(&state, bytes).unwrap();
    assert!(check(path).map_or(true, |checked| !checked.findings.is_empty()));
}

#[test]
fn a_backup_taken_while_everything_moves_is_a_moment_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let copies = tempfile::tempdir().unwrap();
    let rows = some_rows();
    let store = Embedded::open(folder.path()).unwrap();
    let (mut log, _) = Log::open(&store.folder().log(), Lsn(0), &mut |_| Ok(())).unwrap();
    log.append(&[entry(1)]).unwrap();
    let done = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        let backups = scope.spawn(|| {
            let mut taken = Vec::new();
            while !done.load(Ordering::Relaxed) || taken.is_empty() {
                let to = copies.path().join(taken.len().to_string());
                backup(folder.path(), &to).unwrap();
                taken.push(to);
            }
            taken
        });
        // As the server does: into the log, into the state, into a segment, the log cut; and compacted.
        for (row, sequence) in rows.iter().zip(1..) {
            log.append(&[entry(sequence + 1)]).unwrap();
            let reports = vec![report(sequence, 10)];
            store.apply(&StateChanges { reports, ..StateChanges::default() }).unwrap();
            let id = SegmentId { first: Lsn(sequence), last: Lsn(sequence) };
            store.put_segment(id, LATER, &[std::slice::from_ref(row)]).unwrap();
            log.truncate(Lsn(sequence)).unwrap();
            if sequence % 4 == 0 {
                while store.compact(&EVERYTHING, &mut ById).unwrap().is_some() {}
            }
        }
        done.store(true, Ordering::Relaxed);
        backups.join().unwrap()
    });
    for copy in taken {
        let checked = check(&copy).unwrap();
        assert_eq!((&checked.findings, &checked.notes), (&Vec::new(), &Vec::new()));
        let restored = Embedded::open(&copy).unwrap();
        let watermark = restored.watermark().unwrap().0;
        let (truth, found) = found_sums(&restored, &rows[..watermark as usize]);
        assert_eq!(truth, found, "rows up to the watermark, each once");
        let mut next = watermark + 1;
        let (_, recovery) = Log::open(&restored.folder().log(), Lsn(watermark), &mut |entry| {
            assert_eq!(entry.lsn, Lsn(next), "the log goes on where history ends");
            next += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(recovery.cut_bytes, 0);
        let applied = restored.view().unwrap().streams().unwrap().first().map_or(0, |stream| stream.applied_sequence);
        assert!(applied < next, "what the state has is in history or in the log");
    }
}

#[test]
fn a_backup_does_not_overwrite() {
    let folder = tempfile::tempdir().unwrap();
    filled(&folder.path().join("server"));
    let to = folder.path().join("copy");
    std::fs::create_dir(&to).unwrap();
    assert!(backup(&folder.path().join("server"), &to).is_err());
    assert!(backup(&folder.path().join("none"), &folder.path().join("other")).is_err());
    assert!(!folder.path().join("none").exists());
}

fn text(folder: &Path, which: Exported, span: (UnixNanos, UnixNanos), form: Form) -> (u64, String) {
    let mut out = Vec::new();
    let rows = export(folder, which, span.0, span.1, form, &mut out).unwrap();
    (rows, String::from_utf8(out).unwrap())
}

#[test]
fn an_export_has_every_row_of_its_span_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let rows = some_rows();
    let third = rows.len() / 3;
    let (count, lines) = text(folder.path(), Exported::Rows, ALL, Form::Jsonl);
    assert_eq!(count, 2 * third as u64);
    let parsed: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sum: u64 =
        parsed.iter().map(|row| row["sent_bytes"].as_u64().unwrap() + row["recv_bytes"].as_u64().unwrap()).sum();
    let expected: u64 = rows[third..].iter().map(|row| row.deltas.sent.0 + row.deltas.recv.0).sum();
    assert_eq!(sum, expected);
    assert_eq!(parsed.iter().filter(|row| row["counted"].is_null()).count(), third, "those that are not settled");
    assert!(parsed[0]["to_time"].as_str().unwrap().starts_with("1970-01-"), "{}", parsed[0]);
    let half = rows[2 * third].to;
    let inside = rows[third..].iter().filter(|row| row.to >= half).count() as u64;
    assert_eq!(text(folder.path(), Exported::Rows, (half, ALL.1), Form::Jsonl).0, inside);
    let (count, csv) = text(folder.path(), Exported::Hours, ALL, Form::Csv);
    assert_eq!(csv.lines().count() as u64, count + 1);
    assert!(csv.starts_with("window_start,window_seconds,edge,"), "{csv}");
    let mut parquet = Vec::new();
    let count = export(folder.path(), Exported::Rows, ALL.0, ALL.1, Form::Parquet, &mut parquet).unwrap();
    let read = parquet::file::reader::SerializedFileReader::new(bytes::Bytes::from(parquet)).unwrap();
    assert_eq!(read.metadata().file_metadata().num_rows() as u64, count);
}
