use super::*;
use crate::attribute::saved::{SavedCounter, SavedLife};
use std::collections::BTreeMap;

const LIMITS: Limits = Limits { bytes: 8 << 20, age: 3_600_000_000_000 };

/// A counter whose only number is its total.
fn counter(cookie: u64, sent: u64) -> SavedCounter {
    SavedCounter {
        kind: 1,
        cookie,
        life: Some(SavedLife { tuple: vec![1; 36], sent, ..SavedLife::default() }),
        ..SavedCounter::default()
    }
}

fn part(counters: &[(u64, u64)]) -> SavedPart {
    SavedPart { counters: counters.iter().map(|(cookie, sent)| counter(*cookie, *sent)).collect(), facts: Vec::new() }
}

fn position(cursor: u64) -> Position {
    Position { cursor: Some(cursor), previous_at: Some(cursor * 10), ..Position::default() }
}

fn summary(to: i64) -> Summary {
    Summary { from_unix_ns: to - 1, to_unix_ns: to, sent_bytes: 10, recv_bytes: 1, connections: 1, records: 2 }
}

fn open(folder: &Path) -> (Spool, Recovered) {
    Spool::open(folder, LIMITS, [1; 16], 5).unwrap()
}

/// The counters that a restart would find.
fn totals(recovered: &Recovered) -> BTreeMap<u64, u64> {
    let counters = recovered.parts().flat_map(|part| part.counters);
    counters.map(|counter| (counter.cookie, counter.life.as_ref().unwrap().sent)).collect()
}

struct Fixed(Vec<SavedPart>);

impl Baselines for Fixed {
    fn parts(&self) -> Box<dyn Iterator<Item = SavedPart> + '_> {
        Box::new(self.0.iter().cloned())
    }
}

fn batch(byte: u8, length: usize) -> Vec<u8> {
    // Not compressible, so that segments fill as real ones do.
    let mut state = u32::from(byte) + 1;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

#[test]
fn a_batch_is_read_back_byte_for_byte_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, recovered) = open(folder.path());
    assert_eq!((spool.next_sequence(), recovered.position), (1, Position::default()));
    assert_eq!(spool.append(batch(1, 100), &part(&[(1, 10)]), position(1), summary(1)).unwrap(), 1);
    assert_eq!(spool.append(batch(2, 100), &part(&[(1, 20), (2, 5)]), position(2), summary(2)).unwrap(), 2);
    let stream = spool.stream().clone();
    drop(spool);
    let (spool, recovered) = open(folder.path());
    assert_eq!(*spool.stream(), stream);
    assert_eq!(spool.read(1).unwrap().unwrap(), batch(1, 100));
    assert_eq!(spool.read(2).unwrap().unwrap(), batch(2, 100));
    assert_eq!(spool.read(3).unwrap(), None);
    assert_eq!((spool.oldest_sequence(), spool.next_sequence()), (1, 3));
    assert_eq!(totals(&recovered), BTreeMap::from([(1, 20), (2, 5)]));
    assert_eq!(recovered.position, position(2));
}

#[test]
fn cut_off_at_any_byte_the_spool_is_as_after_some_append() {
    let source = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(source.path());
    let mut lengths = vec![spool.bytes()];
    for number in 1..=4u64 {
        spool.append(batch(number as u8, 40), &part(&[(number, number * 10)]), position(number), summary(1)).unwrap();
        lengths.push(spool.bytes());
    }
    drop(spool);
    let (_, path) = segment::list(source.path()).unwrap().pop().unwrap();
    let whole = std::fs::read(&path).unwrap();
    let identity = std::fs::read(source.path().join("stream")).unwrap();
    for cut in 0..=whole.len() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("stream"), &identity).unwrap();
        std::fs::write(folder.path().join(path.file_name().unwrap()), &whole[..cut]).unwrap();
        let (mut spool, recovered) = open(folder.path());
        let whole_batches = lengths.iter().filter(|length| **length <= cut as u64).count().saturating_sub(1) as u64;
        assert_eq!(spool.next_sequence(), whole_batches + 1, "cut at {cut}");
        let expected: BTreeMap<u64, u64> = (1..=whole_batches).map(|number| (number, number * 10)).collect();
        assert_eq!(totals(&recovered), expected, "cut at {cut}");
        assert_eq!(recovered.position.cursor, (whole_batches > 0).then_some(whole_batches));
        // It goes on from there, and what it appends is found again.
        spool.append(batch(9, 40), &part(&[(9, 9)]), position(9), summary(1)).unwrap();
        drop(spool);
        let (spool, recovered) = open(folder.path());
        assert_eq!(spool.damage(), Damage::default(), "cut at {cut}");
        assert_eq!((spool.next_sequence(), totals(&recovered).get(&9)), (whole_batches + 2, Some(&9)));
    }
}

#[test]
fn a_damaged_record_is_skipped_counted_and_the_rest_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    let begin = spool.bytes();
    for number in 1..=3u64 {
        spool.append(batch(number as u8, 40), &part(&[(number, 10)]), position(number), summary(1)).unwrap();
    }
    drop(spool);
    let (_, path) = segment::list(folder.path()).unwrap().pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[begin as usize + 20] ^= 0xff;
    std::fs::write(&path, bytes).unwrap();
    let (spool, recovered) = open(folder.path());
    assert_eq!(spool.damage(), Damage { torn_bytes: 0, skipped: 1 });
    assert_eq!(totals(&recovered), BTreeMap::from([(2, 10), (3, 10)]));
    assert_eq!((spool.read(1).unwrap(), spool.read(2).unwrap().is_some()), (None, true));
    assert_eq!(spool.next_sequence(), 4);
}

#[test]
fn what_is_acknowledged_is_not_read_again_and_its_segments_go() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    let baselines = Fixed(vec![part(&[(1, 99)])]);
    for number in 1..=40u64 {
        spool.append(batch(number as u8, 200_000), &part(&[]), position(number), summary(1)).unwrap();
        spool.roll_if_full(&baselines, &position(number)).unwrap();
    }
    let before = segment::list(folder.path()).unwrap().len();
    assert!(before > 3, "{before} segments");
    spool.acknowledge(39).unwrap();
    assert_eq!((spool.oldest_sequence(), spool.waiting()), (40, 1));
    assert!(segment::list(folder.path()).unwrap().len() <= 2);
    spool.write_acknowledged().unwrap();
    drop(spool);
    let (mut spool, recovered) = open(folder.path());
    assert_eq!((spool.oldest_sequence(), spool.next_sequence(), spool.acknowledged()), (40, 41, 39));
    assert_eq!((totals(&recovered), recovered.position), (BTreeMap::from([(1, 99)]), position(40)));
    spool.acknowledge(1_000_000).unwrap();
    assert_eq!((spool.acknowledged(), spool.waiting()), (40, 0));
}

#[test]
fn a_segment_whose_checkpoint_is_not_whole_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    spool.append(batch(1, 2 << 20), &part(&[(1, 10)]), position(1), summary(1)).unwrap();
    spool.roll_if_full(&Fixed(vec![part(&[(1, 10)])]), &position(1)).unwrap();
    drop(spool);
    let segments = segment::list(folder.path()).unwrap();
    assert_eq!(segments.len(), 2);
    let whole = std::fs::read(&segments[1].1).unwrap();
    for cut in [0, 5, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&segments[1].1, &whole[..cut]).unwrap();
        let (spool, recovered) = open(folder.path());
        assert_eq!((spool.next_sequence(), spool.waiting()), (2, 1), "cut at {cut}");
        assert_eq!(totals(&recovered), BTreeMap::from([(1, 10)]));
        assert_eq!(segment::list(folder.path()).unwrap().len(), 1);
    }
}

#[test]
fn what_is_dropped_is_told_before_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    let mut dropped = Vec::new();
    for number in 1..=100u64 {
        while let Some(due) = spool.due_drop(2_000) {
            assert_eq!(due.reason.word, "spool_full");
            spool.append_tombstone(batch(0, 50), position(number), &due).unwrap();
            dropped.push(due.tombstone);
        }
        spool.append(batch(number as u8, 300_000), &part(&[]), position(number), summary(1_000)).unwrap();
        spool.roll_if_full(&Fixed(vec![]), &position(number)).unwrap();
        assert!(spool.bytes() <= LIMITS.bytes, "{} bytes", spool.bytes());
    }
    assert!(!dropped.is_empty());
    let mut expected = 1;
    for tombstone in &dropped {
        assert_eq!(tombstone.first_sequence, expected);
        expected = tombstone.last_sequence + 1;
    }
    assert_eq!(spool.oldest_sequence(), expected);
    let kept: u64 = spool.waiting.iter().map(|waiting| waiting.summary.records).sum();
    let told = dropped.last().unwrap().records;
    assert!(kept > 0 && told > 0);
    let oldest = spool.oldest_sequence();
    drop(spool);
    let (spool, _) = open(folder.path());
    assert_eq!(spool.oldest_sequence(), oldest, "a restart brings nothing back");
}

#[test]
fn batches_that_are_too_old_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    for number in 1..=3 {
        spool.append(batch(1, 10), &part(&[]), position(1), summary(number * 1_000)).unwrap();
    }
    assert_eq!(spool.due_drop(LIMITS.age + 1_000), None);
    let due = spool.due_drop(LIMITS.age + 2_500).unwrap();
    assert_eq!((due.reason.word, due.tombstone.first_sequence, due.tombstone.last_sequence), ("spool_old", 1, 2));
    assert_eq!((due.tombstone.records, due.tombstone.sent_bytes), (4, 20));
    assert_eq!((due.tombstone.from_unix_ns, due.tombstone.to_unix_ns), (999, 2_000));
}

#[test]
fn a_tombstone_goes_with_the_next_batch_that_is_too_old_and_never_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    for number in 1..=3 {
        spool.append(batch(1, 10), &part(&[]), position(1), summary(number * 1_000)).unwrap();
    }
    let late = LIMITS.age + 5_000;
    let first = spool.due_drop(late).unwrap();
    assert_eq!((first.tombstone.last_sequence, first.now.count, first.now.bytes), (3, 3, 33));
    assert_eq!(first.earlier, []);
    spool.append_tombstone(batch(0, 10), position(1), &first).unwrap();
    assert_eq!(spool.due_drop(late), None, "all that waits is the tombstone");
    drop(spool);
    let (mut spool, _) = open(folder.path());
    assert_eq!(spool.due_drop(late), None, "a restart knows it for what it is");
    spool.append(batch(1, 10), &part(&[]), position(1), summary(4_000)).unwrap();
    let second = spool.due_drop(late).unwrap();
    assert_eq!((second.tombstone.first_sequence, second.tombstone.last_sequence), (4, 5));
    assert_eq!((second.now.count, second.now.bytes, second.now.connections), (1, 11, 1));
    let earlier: Vec<_> =
        second.earlier.iter().map(|(sequence, of)| (*sequence, of.sent_bytes + of.recv_bytes)).collect();
    assert_eq!(earlier, [(4, 33)]);
    assert_eq!(second.tombstone.sent_bytes + second.tombstone.recv_bytes, 44, "it stands for all of it");
}

#[test]
fn a_failed_append_leaves_the_spool_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    spool.append(batch(1, 10), &part(&[(1, 1)]), position(1), summary(1)).unwrap();
    let (_, path) = segment::list(folder.path()).unwrap().pop().unwrap();
    // A torn append, as an error in its middle leaves it.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(b"WSR1\x40\0\0\0torn");
    std::fs::write(&path, bytes).unwrap();
    let recovered = spool.reload().unwrap();
    assert_eq!((spool.next_sequence(), totals(&recovered)), (2, BTreeMap::from([(1, 1)])));
    assert_eq!(spool.append(batch(2, 10), &part(&[(1, 2)]), position(2), summary(1)).unwrap(), 2);
    let recovered = spool.reload().unwrap();
    assert_eq!(totals(&recovered), BTreeMap::from([(1, 2)]));
}
