//! The log's promises: what was appended is read back, and a torn end costs only what was never acknowledged.

use super::*;

fn entry(sequence: u64, payload: &[u8]) -> NewEntry {
    NewEntry {
        kind: EntryKind::Batch,
        encoding: 1,
        stream: StreamId([9; 16]),
        sequence,
        received: UnixNanos(5),
        payload: Bytes::copy_from_slice(payload),
    }
}

fn open(folder: &Path, watermark: Lsn) -> (Log, Recovery, Vec<Entry>) {
    let mut entries = Vec::new();
    let (log, recovery) = Log::open(folder, watermark, &mut |entry| {
        entries.push(entry);
        Ok(())
    })
    .unwrap();
    (log, recovery, entries)
}

#[test]
fn what_is_appended_is_replayed_from_the_watermark_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _, none) = open(folder.path(), Lsn(0));
    assert!(none.is_empty());
    assert_eq!(log.append(&[entry(1, b"one"), entry(2, b"")]).unwrap(), Lsn(1));
    assert_eq!(log.append(&[entry(3, b"three")]).unwrap(), Lsn(3));
    drop(log);
    let (mut log, recovery, entries) = open(folder.path(), Lsn(1));
    assert_eq!(recovery, Recovery::default());
    assert_eq!(entries.iter().map(|entry| (entry.lsn.0, entry.entry.sequence)).collect::<Vec<_>>(), [(2, 2), (3, 3)]);
    assert_eq!(log.append(&[entry(4, b"four")]).unwrap(), Lsn(4));
    drop(log);
    assert_eq!(open(folder.path(), Lsn(0)).2.len(), 4);
}

#[test]
fn a_log_cut_at_any_byte_gives_back_every_whole_entry_and_goes_on() {
    let source = tempfile::tempdir().unwrap();
    let (mut log, ..) = open(source.path(), Lsn(0));
    for sequence in 1..=3 {
        log.append(&[entry(sequence, b"payload")]).unwrap();
    }
    let path = log.files[0].path.clone();
    let content = std::fs::read(&path).unwrap();
    let size = (content.len() as u64 - HEADER_BYTES) / 3;
    for length in 0..content.len() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(path.file_name().unwrap()), &content[..length]).unwrap();
        let (mut log, recovery, entries) = open(folder.path(), Lsn(0));
        let whole = (length as u64).saturating_sub(HEADER_BYTES) / size;
        assert_eq!(entries.len() as u64, whole, "cut at {length}");
        let expected =
            if (length as u64) < HEADER_BYTES { length as u64 } else { (length as u64 - HEADER_BYTES) % size };
        assert_eq!(recovery.cut_bytes, expected, "cut at {length}");
        log.append(&[entry(whole + 1, b"again")]).unwrap();
        drop(log);
        let (_, recovery, entries) = open(folder.path(), Lsn(0));
        assert_eq!((recovery.cut_bytes, entries.len() as u64), (0, whole + 1), "cut at {length}");
    }
}

#[test]
fn a_flipped_bit_anywhere_in_an_entry_is_noticed() {
    let source = tempfile::tempdir().unwrap();
    let (mut log, ..) = open(source.path(), Lsn(0));
    log.append(&[entry(1, b"payload")]).unwrap();
    let path = log.files[0].path.clone();
    let content = std::fs::read(&path).unwrap();
    for place in HEADER_BYTES as usize..content.len() {
        let folder = tempfile::tempdir().unwrap();
        let mut content = content.clone();
        content[place] ^= 0x10;
        std::fs::write(folder.path().join(path.file_name().unwrap()), &content).unwrap();
        let (_, recovery, entries) = open(folder.path(), Lsn(0));
        assert!(entries.is_empty() && recovery.cut_bytes > 0, "flipped at {place}");
    }
}

#[test]
fn files_below_the_watermark_are_dropped_and_positions_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, ..) = open(folder.path(), Lsn(0));
    log.file_bytes_max = 100;
    for sequence in 1..=6 {
        log.append(&[entry(sequence, b"payload")]).unwrap();
    }
    assert!(log.files.len() > 2);
    log.truncate(Lsn(3)).unwrap();
    drop(log);
    let (mut log, _, entries) = open(folder.path(), Lsn(3));
    assert_eq!(entries.first().unwrap().lsn, Lsn(4));
    log.truncate(Lsn(6)).unwrap();
    assert_eq!(log.bytes(), 0);
    assert_eq!(log.append(&[entry(7, b"payload")]).unwrap(), Lsn(7));
    drop(log);
    assert_eq!(open(folder.path(), Lsn(6)).2.len(), 1);
}

#[test]
fn an_append_that_fails_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, ..) = open(folder.path(), Lsn(0));
    log.append(&[entry(1, b"one")]).unwrap();
    // A file that is open for reading only refuses the write, as a failing disk does.
    log.active = Some(File::open(&log.files[0].path).unwrap());
    log.append(&[entry(2, b"two")]).unwrap_err();
    assert_eq!(log.append(&[entry(2, b"two")]).unwrap(), Lsn(2));
    drop(log);
    let (_, recovery, entries) = open(folder.path(), Lsn(0));
    assert_eq!(recovery.cut_bytes, 0);
    assert_eq!(entries.iter().map(|entry| entry.entry.sequence).collect::<Vec<_>>(), [1, 2]);
}
