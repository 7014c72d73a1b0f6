//! A disk that is really full: what grows stops first, nothing is damaged, and it goes on when there is room again.

use crate::contract::compaction::{ById, found_sums, put_all, some_rows};
use crate::contract::{LATER, report, transaction};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::io::Write as _;
use std::path::Path;
use weir_model::UnixNanos;
use weir_store::embedded::log::{EntryKind, Log, NewEntry};
use weir_store::embedded::{Embedded, RESERVE_BYTES};
use weir_store::{Due, HistoryStore as _, Lsn, StateChanges, StateStore as _, StoreError, StreamId};

const EVERYTHING: Due =
    Due { settled_before: UnixNanos(i64::MAX), minutes_before: UnixNanos(i64::MAX), hours_before: UnixNanos(i64::MAX) };

/// A file system of its own for this thread alone: it is gone with the thread, also after a kill.
fn mount_small(folder: &Path, bytes: u64) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some(format!("size={bytes}").as_str())).unwrap();
}

fn fill(path: &Path, leave: u64) {
    let mut file = std::fs::File::create(path).unwrap();
    let room = nix::sys::statvfs::statvfs(path).unwrap();
    let free = room.blocks_available() * room.fragment_size();
    let block = vec![7_u8; 1 << 16];
    let mut left = free.saturating_sub(leave);
    while left > 0 {
        let now = left.min(block.len() as u64);
        if file.write_all(&block[..now as usize]).is_err() {
            return;
        }
        left -= now;
    }
}

fn entry(sequence: u64) -> NewEntry {
    NewEntry {
        kind: EntryKind::Batch,
        encoding: 1,
        stream: StreamId([1; 16]),
        sequence,
        received: UnixNanos(1),
        payload: vec![1; 1 << 20].into(),
    }
}

#[test]
fn a_full_disk_stops_what_grows_and_damages_nothing() {
    if !nix::unistd::geteuid().is_root() {
        let reason = "mounting a small file system needs root";
        assert!(std::env::var_os("WEIR_FORBID_SKIPS").is_none_or(|value| value != "1"), "{reason}");
        eprintln!("SKIP a_full_disk_stops_what_grows_and_damages_nothing: {reason}");
        return;
    }
    std::thread::spawn(|| {
        let folder = tempfile::tempdir().unwrap();
        mount_small(folder.path(), RESERVE_BYTES + (8 << 20));
        on_a_small_disk(folder.path());
    })
    .join()
    .unwrap();
}

fn on_a_small_disk(root: &Path) {
    let folder = root.join("server");
    let ballast = root.join("ballast");
    let rows = some_rows();
    let (first, last) = rows.split_at(rows.len() / 2);
    let store = Embedded::open(&folder).unwrap();
    put_all(&store, first);
    let (mut log, _) = Log::open(&store.folder().log(), Lsn(0), &mut |_| Ok(())).unwrap();

    // The log refuses while there is still room for what it has already taken.
    let mut taken = 0;
    let refused = loop {
        match log.append(&[entry(taken + 1)]) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 100, "the log does not stop");
    };
    assert!(matches!(refused, StoreError::Full { .. }), "{refused}");
    assert!(taken > 0);
    // So does compaction. Segments and state of what is acknowledged are written.
    assert!(matches!(store.compact(&EVERYTHING, &mut ById), Err(StoreError::Full { .. })));
    put_all(&store, &rows[..first.len() + 2]);
    let reports = vec![report(1, 10)];
    store.apply(&StateChanges { reports, ..StateChanges::default() }).unwrap();

    // Somebody else takes the rest.
    fill(&ballast, 0);
    let before = store.summary().unwrap();
    let id = |lsn| weir_store::SegmentId { first: Lsn(lsn), last: Lsn(lsn) };
    let next = first.len() as u64 + 3;
    assert!(store.put_segment(id(next), LATER, &[&last[2..3]]).is_err());
    let transactions = (0..2_000).map(|cookie| transaction(cookie, 100)).collect();
    let changes = StateChanges { transactions, ..StateChanges::default() };
    assert!(store.apply(&changes).is_err());
    assert_eq!(store.summary().unwrap(), before);
    assert!(store.view().unwrap().counters().unwrap()["transactions"] == 0, "all or nothing");
    let names = std::fs::read_dir(folder.join("segments")).unwrap();
    assert_eq!(names.count() as u64, before.segments, "nothing half-written takes room");
    let (truth, found) = found_sums(&store, &rows[..first.len() + 2]);
    assert_eq!(truth, found, "reading goes on");

    // There is room again: everything goes on from where it was, here and after a restart.
    std::fs::remove_file(&ballast).unwrap();
    drop(log);
    store.put_segment(id(next), LATER, &[&last[2..3]]).unwrap();
    store.apply(&changes).unwrap();
    drop(store);
    let store = Embedded::open(&folder).unwrap();
    let mut replayed = 0;
    let (mut log, recovery) = Log::open(&store.folder().log(), Lsn(0), &mut |_| {
        replayed += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!((replayed, recovery.cut_bytes), (taken, 0), "what was acknowledged is there, what was refused is not");
    log.truncate(Lsn(taken)).unwrap();
    put_all(&store, &rows);
    while store.compact(&EVERYTHING, &mut ById).unwrap().is_some() {}
    let (truth, found) = found_sums(&store, &rows);
    assert_eq!(truth, found);
}
