use super::*;

fn ended(cookie: u64) -> Ended {
    let row = Row { cookie, at_ns: cookie * 10, sent: cookie, ..Row::default() };
    let end = std::net::SocketAddr::from(([10, 0, 0, 1], cookie as u16));
    let ends = crate::conntrack::Ends { source: end, dest: end };
    // Every second one was translated.
    let translation = cookie.is_multiple_of(2).then_some(Translation { original: ends, reply: ends });
    Ended { row, place: Some(Arc::new(Place::new(format!("/slice/{cookie}")))), translation }
}

fn rows(journal: &Journal, after: u64) -> Vec<(u64, u64)> {
    let mut reader = journal.reader(after);
    let mut found = Vec::new();
    while let Some(Record { sequence, row, path, translation }) = reader.read().unwrap() {
        assert_eq!(path.unwrap(), format!("/slice/{}", row.cookie));
        assert_eq!(translation, ended(row.cookie).translation);
        found.push((sequence, row.cookie));
    }
    found
}

fn journal(folder: &tempfile::TempDir) -> Journal {
    Journal::open(&folder.path().join("closed"), 7, 100).unwrap()
}

#[test]
fn what_was_appended_is_there_after_a_restart_and_known_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = journal(&folder);
    assert_eq!((first.floor(), first.head()), (99, 99));
    first.append(&[ended(1), ended(2)], 0).unwrap();
    drop(first);
    let mut second = journal(&folder);
    assert_eq!(rows(&second, 99), [(100, 1), (101, 2)]);
    assert_eq!(rows(&second, 100), [(101, 2)]);
    assert!(second.has(&ended(1).row) && !second.has(&ended(3).row));
    second.append(&[ended(3)], 0).unwrap();
    assert_eq!(rows(&second, 101), [(102, 3)]);
    second.forget_already();
    assert!(!second.has(&ended(1).row));
}

#[test]
fn another_runs_journal_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    journal(&folder).append(&[ended(1)], 0).unwrap();
    let other = Journal::open(&folder.path().join("closed"), 8, 500).unwrap();
    assert_eq!((other.len(), other.floor(), other.torn_tails()), (0, 499, 0));
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_off_and_the_rest_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("closed");
    let mut whole = journal(&folder);
    whole.append(&[ended(1)], 0).unwrap();
    let keep = whole.bytes();
    whole.append(&[ended(2)], 0).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for length in keep..bytes.len() as u64 {
        std::fs::write(&path, &bytes[..length as usize]).unwrap();
        let mut torn = journal(&folder);
        assert_eq!(rows(&torn, 99), [(100, 1)]);
        assert_eq!(torn.torn_tails(), u64::from(length > keep));
        torn.append(&[ended(2)], 0).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn a_damaged_record_ends_the_journal_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("closed");
    journal(&folder).append(&[ended(1), ended(2)], 0).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(rows(&journal(&folder), 99), [(100, 1)]);
}

#[test]
fn acknowledged_rows_go_and_a_reader_under_way_is_not_disturbed() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = journal(&folder);
    journal.append(&(1..=5).map(ended).collect::<Vec<_>>(), 0).unwrap();
    let mut reader = journal.reader(99);
    journal.drop_until(102).unwrap();
    assert_eq!((journal.floor(), journal.head(), journal.len()), (102, 104, 2));
    assert_eq!(rows(&journal, 99), [(103, 4), (104, 5)]);
    assert_eq!(reader.read().unwrap().unwrap().row.cookie, 1);
    journal.drop_until(200).unwrap();
    assert!(journal.is_empty());
    journal.append(&[ended(6)], 0).unwrap();
    drop(journal);
    assert_eq!(rows(&Journal::open(&folder.path().join("closed"), 7, 100).unwrap(), 0), [(105, 6)]);
}

#[test]
fn a_full_journal_drops_the_oldest_and_says_how_many() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = journal(&folder);
    let batch: Vec<Ended> = (0..ROWS_MAX as u64)
        .map(|cookie| Ended { row: Row { cookie, ..Row::default() }, place: None, translation: None })
        .collect();
    assert_eq!(journal.append(&batch, 0).unwrap(), 0);
    let dropped = journal.append(&batch[..1], 0).unwrap();
    assert_eq!(dropped, ROWS_MAX as u64 / 10 + 1);
    assert_eq!(journal.len(), ROWS_MAX - ROWS_MAX / 10);
    let Record { sequence, row, .. } = journal.reader(0).read().unwrap().unwrap();
    assert_eq!((sequence, row.cookie), (100 + dropped, dropped));
}
