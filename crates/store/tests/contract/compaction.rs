//! The promises of compaction: nothing is lost, nothing is there twice, whatever the split, the order and the moment.

use super::{LATER, row};
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_model::{Endpoint, Side, UnixNanos};
use weir_store::rollup::{Resolution, Rollup, RollupRow, Sums};
use weir_store::{
    Due, EdgeTotals, Fate, HistoryRow, HistoryStore, HistoryView, Judge, Judgement, Lsn, SegmentId, SettledEdge,
    SettledEnd, SettledName, Step, StoreError, TierLimit,
};

const MINUTE: i64 = 60_000_000_000;
const ALL: (UnixNanos, UnixNanos) = (UnixNanos(i64::MIN), UnixNanos(i64::MAX));

/// Decides by the connection's id alone: some rows do not count, some turn out to be the other end's.
pub(crate) struct ById;

impl Judge for ById {
    fn prepare(&mut self, _: Option<(UnixNanos, UnixNanos)>, _: &[&HistoryRow]) -> Result<(), StoreError> {
        Ok(())
    }

    fn judge(&mut self, row: &HistoryRow) -> Judgement {
        let number = row.connection.0[0];
        let side = row.view.unwrap_or(if number.is_multiple_of(5) { Side::Server } else { Side::Client });
        let fate = if number.is_multiple_of(4) { Fate::OtherView } else { Fate::Counted };
        Judgement { side, fate, edge: None }
    }
}

fn is_counted(row: &HistoryRow) -> bool {
    ById.judge(row).fate == Fate::Counted
}

fn turned(row: &HistoryRow) -> HistoryRow {
    let mut row = row.clone();
    let side = ById.judge(&row).side;
    if row.view.unwrap_or(Side::Client) != side {
        std::mem::swap(&mut row.client, &mut row.server);
        std::mem::swap(&mut row.client_endpoint, &mut row.server_endpoint);
        std::mem::swap(&mut row.deltas.sent, &mut row.deltas.recv);
    }
    row.view = Some(side);
    row
}

/// Numbers that look random and are the same every time (Knuth's multiplier).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) % bound
    }
}

/// Rows over three hours and a few, of connections that last, with late ones among them.
fn rows(seed: u64, count: usize) -> Vec<HistoryRow> {
    let mut numbers = Numbers(seed);
    let mut at = 100 * 360 * MINUTE;
    let mut rows = Vec::new();
    for _ in 0..count {
        at += numbers.below(2 * 180 * MINUTE as u64 / count as u64) as i64;
        let late = if numbers.below(10) == 0 { numbers.below(30 * MINUTE as u64) as i64 } else { 0 };
        let number = numbers.below(40) as u8;
        let mut row = row(at - late, number, numbers.below(1 << 40));
        row.from = row.to.plus(-10_000_000_000);
        row.deltas.recv.0 = numbers.below(1 << 40);
        row.deltas.retransmits = numbers.below(5);
        row.opened = numbers.below(7) == 0;
        row.closed = numbers.below(7) == 0;
        row.failure = ["", "", "", "reset", "refused"][numbers.below(5) as usize].into();
        row.rtt_us = (numbers.below(3) == 0).then(|| numbers.below(100_000) as u32);
        rows.push(row);
    }
    rows
}

fn put(store: &dyn HistoryStore, rows: &[HistoryRow], numbers: &mut Numbers) {
    let mut rest = rows;
    let mut lsn = store.summary().unwrap().watermark.0 + 1;
    while !rest.is_empty() {
        let (now, later) = rest.split_at((1 + numbers.below(50) as usize).min(rest.len()));
        let last = lsn + numbers.below(3);
        store.put_segment(SegmentId { first: Lsn(lsn), last: Lsn(last) }, LATER, &[now]).unwrap();
        (rest, lsn) = (later, last + 1);
    }
}

pub(crate) type ByEdge = BTreeMap<(Endpoint, Endpoint, u16, bool), Sums>;

fn add(sums: &mut ByEdge, client: &Arc<Endpoint>, server: &Arc<Endpoint>, port: u16, counted: bool, more: Sums) {
    let held = sums.entry(((**client).clone(), (**server).clone(), port, counted)).or_default();
    *held = held.plus(more);
}

/// What must be there, summed from the rows themselves.
fn truth(rows: &[HistoryRow]) -> ByEdge {
    let mut sums = ByEdge::new();
    for row in rows {
        let counted = is_counted(row);
        let row = turned(row);
        add(&mut sums, &row.client_endpoint, &row.server_endpoint, row.server.port(), counted, Sums::of(&row));
    }
    sums
}

/// What a reader finds once all is settled, and how many rows of 10 s, of a minute and of an hour that took.
fn found(view: &dyn HistoryView) -> (ByEdge, [u64; 3]) {
    let (mut sums, mut counts) = (ByEdge::new(), [0; 3]);
    view.rows(ALL.0, ALL.1, &mut |row, counted| {
        counts[0] += 1;
        let counted = counted.unwrap_or_else(|| is_counted(&row));
        let row = turned(&row);
        add(&mut sums, &row.client_endpoint, &row.server_endpoint, row.server.port(), counted, Sums::of(&row));
    })
    .unwrap();
    view.rollups(ALL.0, ALL.1, &mut |row| {
        counts[if row.resolution == Resolution::Minute { 1 } else { 2 }] += 1;
        let key = &row.key;
        add(&mut sums, &key.client_endpoint, &key.server_endpoint, key.server.port(), key.counted, row.sums);
    })
    .unwrap();
    (sums, counts)
}

fn rollups(store: &dyn HistoryStore) -> Vec<RollupRow> {
    let mut rows = Vec::new();
    let view = store.history(Lsn(u64::MAX)).unwrap();
    view.rollups(ALL.0, ALL.1, &mut |row| rows.push(row)).unwrap();
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    rows
}

/// Equal keys, that lie in two segments, become one.
fn gathered(rows: &[RollupRow], resolution: Resolution) -> Vec<RollupRow> {
    let mut rollup = Rollup::new(resolution);
    for row in rows {
        rollup.add(row.clone());
    }
    rollup.drain().collect()
}

fn total(totals: &EdgeTotals) -> ByEdge {
    let mut sums = ByEdge::new();
    for edge in totals.edges.iter().filter(|edge| edge.fate != Fate::OtherView) {
        let (client, server) = (Arc::new(edge.client.clone()), Arc::new(edge.server.clone()));
        add(&mut sums, &client, &server, edge.port, true, edge.sums);
    }
    sums
}

fn due(settled: i64, minutes: i64, hours: i64) -> Due {
    Due { settled_before: UnixNanos(settled), minutes_before: UnixNanos(minutes), hours_before: UnixNanos(hours) }
}

fn until_at_rest(store: &dyn HistoryStore, due: &Due) -> u64 {
    let mut steps = 0;
    while store.compact(due, &mut ById).unwrap().is_some() {
        steps += 1;
        assert!(steps < 10_000, "compaction does not come to rest");
    }
    steps
}

/// `fresh` opens a new, empty store; `G` keeps it alive.
pub(crate) fn compaction<G, S: HistoryStore + 'static>(fresh: impl Fn() -> (G, S)) {
    every_step_keeps_every_sum(&fresh().1);
    any_split_and_order_gives_the_same_rows(&fresh().1, &fresh().1);
    what_is_not_due_stays(&fresh().1);
    a_view_stays_as_it_was(&fresh().1);
    a_reader_sees_each_row_once_while_it_is_compacted(&fresh().1);
    edges_are_summed_from_rows_of_every_resolution(&fresh().1);
    steps_add_up_to_the_sums_at_every_resolution(&fresh().1);
    what_is_beyond_the_limits_leaves_and_is_counted(&fresh().1);
    what_settling_knew_stays_with_the_sums(&fresh().1);
    a_cut_window_is_told(&fresh().1);
    a_failing_judge_changes_nothing(&fresh().1);
    a_late_row_is_judged_apart_and_makes_no_span(&fresh().1);
    a_clock_that_is_ahead_keeps_nobody_waiting(&fresh().1);
}

fn every_step_keeps_every_sum(store: &dyn HistoryStore) {
    let rows = rows(1, 1_200);
    put(store, &rows, &mut Numbers(7));
    let expected = truth(&rows);
    let everything = due(i64::MAX, i64::MAX, i64::MAX);
    for (stage, due) in [due(i64::MAX, 0, 0), due(i64::MAX, i64::MAX, 0), everything].iter().enumerate() {
        let mut steps = 0;
        while store.compact(due, &mut ById).unwrap().is_some() {
            steps += 1;
            let (sums, _) = found(&*store.history(Lsn(u64::MAX)).unwrap());
            assert_eq!(sums, expected, "stage {stage}, step {steps}");
        }
        assert!(steps > 0, "stage {stage}");
        let (_, counts) = found(&*store.history(Lsn(u64::MAX)).unwrap());
        let others: u64 = counts.iter().enumerate().filter(|(tier, _)| *tier != stage).map(|(_, rows)| rows).sum();
        assert_eq!(others, 0, "all is of the one resolution: {counts:?}");
        // Again: nothing changes.
        assert_eq!(store.compact(due, &mut ById).unwrap(), None);
    }
    // Each window of an hour is the sum of its minutes: summed anew from the truth.
    let mut hours = Rollup::new(Resolution::Hour);
    for row in &rows {
        hours.add(RollupRow::of(&turned(row), is_counted(row)));
    }
    assert_eq!(gathered(&rollups(store), Resolution::Hour), hours.drain().collect::<Vec<_>>());
    assert_eq!(store.summary().unwrap().tiers[2].rows, store.summary().unwrap().rows);
}

fn any_split_and_order_gives_the_same_rows(one: &dyn HistoryStore, other: &dyn HistoryStore) {
    let rows = rows(2, 1_200);
    put(one, &rows, &mut Numbers(3));
    until_at_rest(one, &due(i64::MAX, i64::MAX, 0));
    // The other gets its rows in other segments and is compacted as it grows.
    let mut numbers = Numbers(11);
    for part in rows.chunks(200) {
        put(other, part, &mut numbers);
        let at = part[0].to.0;
        until_at_rest(other, &due(at, at - 60 * MINUTE, 0));
    }
    until_at_rest(other, &due(i64::MAX, i64::MAX, 0));
    assert_eq!(gathered(&rollups(one), Resolution::Minute), gathered(&rollups(other), Resolution::Minute));
    for store in [one, other] {
        until_at_rest(store, &due(i64::MAX, i64::MAX, i64::MAX));
    }
    assert_eq!(gathered(&rollups(one), Resolution::Hour), gathered(&rollups(other), Resolution::Hour));
}

fn what_is_not_due_stays(store: &dyn HistoryStore) {
    let rows = rows(3, 500);
    put(store, &rows, &mut Numbers(5));
    let middle = rows[250].to.0;
    until_at_rest(store, &due(middle, i64::MIN, i64::MIN));
    let mut settled = 0;
    let view = store.history(Lsn(u64::MAX)).unwrap();
    view.rows(ALL.0, ALL.1, &mut |row, counted| {
        assert!(counted.is_none() || row.to.0 < middle, "a row within the horizon is not settled");
        settled += u64::from(counted.is_some());
    })
    .unwrap();
    assert!(settled > 0);
    // Until it is due, a row of 10 s keeps its connection, its ports and its times.
    let mut before: Vec<HistoryRow> = Vec::new();
    view.rows(ALL.0, ALL.1, &mut |row, _| before.push(turned(&row))).unwrap();
    let mut expected: Vec<HistoryRow> = rows.iter().map(turned).collect();
    for rows in [&mut before, &mut expected] {
        rows.sort_by_key(|row| (row.to, row.connection, row.deltas.sent));
    }
    assert_eq!(before, expected);
}

fn a_view_stays_as_it_was(store: &dyn HistoryStore) {
    let rows = rows(4, 500);
    put(store, &rows, &mut Numbers(5));
    let view = store.history(Lsn(u64::MAX)).unwrap();
    until_at_rest(store, &due(i64::MAX, i64::MAX, i64::MAX));
    assert_eq!(found(&*view).1, [500, 0, 0], "it still reads what it began with");
    drop(view);
    let (sums, counts) = found(&*store.history(Lsn(u64::MAX)).unwrap());
    assert_eq!((sums, counts[0]), (truth(&rows), 0));
}

fn a_reader_sees_each_row_once_while_it_is_compacted(store: &dyn HistoryStore) {
    let rows = rows(5, 500);
    put(store, &rows, &mut Numbers(13));
    let expected = truth(&rows);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut reads = 0;
                    while !done.load(std::sync::atomic::Ordering::Relaxed) || reads == 0 {
                        let (sums, _) = found(&*store.history(Lsn(u64::MAX)).unwrap());
                        assert_eq!(sums, expected);
                        reads += 1;
                    }
                })
            })
            .collect();
        until_at_rest(store, &due(i64::MAX, i64::MAX, i64::MAX));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

fn edges_are_summed_from_rows_of_every_resolution(store: &dyn HistoryStore) {
    let rows = rows(6, 1_000);
    put(store, &rows, &mut Numbers(17));
    let without_largest_rtt = |sums: ByEdge, counted_only: bool| -> ByEdge {
        sums.into_iter()
            .filter(|((.., counted), _)| *counted || !counted_only)
            .map(|(key, sums)| (key, Sums { rtt_max_us: 0, ..sums }))
            .collect()
    };
    let totals = |since, until| store.history(Lsn(u64::MAX)).unwrap().edge_totals(since, until, None).unwrap();
    let oldest = rows.iter().map(|row| row.to).min();
    let nothing = EdgeTotals { edges: Vec::new(), unsettled_rows: 1_000, unsettled_from: oldest };
    assert_eq!(totals(ALL.0, ALL.1), nothing);
    let border = UnixNanos(rows[500].to.0);
    let inside: Vec<HistoryRow> = rows.iter().filter(|row| row.to >= border).cloned().collect();
    assert_eq!(totals(border, ALL.1).unsettled_rows, inside.len() as u64);
    until_at_rest(store, &due(i64::MAX, i64::MIN, i64::MIN));
    let expected = without_largest_rtt(truth(&rows), true);
    assert_eq!(total(&totals(ALL.0, ALL.1)), expected);
    assert_eq!(total(&totals(border, ALL.1)), without_largest_rtt(truth(&inside), true));
    let (first, last) = (rows[0].to.0, rows[999].to.0);
    until_at_rest(store, &due(i64::MAX, first + (last - first) / 2, first + (last - first) / 4));
    assert_eq!(total(&totals(ALL.0, ALL.1)), expected);
    until_at_rest(store, &due(i64::MAX, i64::MAX, i64::MAX));
    assert_eq!(total(&totals(ALL.0, ALL.1)), expected);
    // A window is in the span that holds its start: two spans that meet have it once.
    let border = Resolution::Hour.floor(border).plus(MINUTE);
    let (mut both, after) = (total(&totals(ALL.0, border)), total(&totals(border, ALL.1)));
    for (key, sums) in after {
        let held = both.entry(key).or_default();
        *held = held.plus(sums);
    }
    assert_eq!(both, expected);
}

fn steps_add_up_to_the_sums_at_every_resolution(store: &dyn HistoryStore) {
    let rows = rows(12, 1_000);
    put(store, &rows, &mut Numbers(23));
    let (first, last) = (rows[0].to.0, rows[999].to.0);
    let hold = |stage: &str, since: UnixNanos, until: UnixNanos, step: Step| {
        let history = store.history(Lsn(u64::MAX)).unwrap();
        let totals = history.edge_totals(since, until, Some(step)).unwrap();
        let plain = history.edge_totals(since, until, None).unwrap();
        assert_eq!(total(&totals), total(&plain), "{stage}");
        assert!(plain.edges.iter().all(|edge| edge.steps.is_empty() && edge.failed.is_empty()));
        for edge in &totals.edges {
            let sum = edge.steps.iter().fold(Sums::default(), |sum, (_, step)| sum.plus(*step));
            assert_eq!(sum, edge.sums, "{stage}");
            assert!(edge.steps.is_sorted_by(|a, b| a.0 < b.0), "{stage}");
            let failed = |at: UnixNanos| edge.failed.iter().filter(move |failed| failed.0 == at).map(|failed| failed.2);
            assert!(edge.steps.iter().all(|(at, step)| failed(*at).sum::<u64>() == step.failures), "{stage}");
            assert!(edge.failed.iter().all(|(_, reason, count)| !reason.is_empty() && *count > 0), "{stage}");
            let aligned =
                |(at, _): &(UnixNanos, Sums)| step.floor(*at) == *at && *at >= step.floor(since) && *at < until;
            assert!(edge.steps.iter().all(aligned), "{stage}");
        }
        totals.edges.iter().map(|edge| edge.steps.len()).sum::<usize>()
    };
    let all = (UnixNanos(first), UnixNanos(last + 1));
    until_at_rest(store, &due(i64::MAX, i64::MIN, i64::MIN));
    assert!(hold("settled", all.0, all.1, Step(10_000_000_000)) > 10);
    hold("a part of it", UnixNanos(rows[300].to.0), UnixNanos(rows[700].to.0), Step(60_000_000_000));
    until_at_rest(store, &due(i64::MAX, first + (last - first) / 2, first + (last - first) / 4));
    hold("every resolution", all.0, all.1, Step(3_600_000_000_000));
    until_at_rest(store, &due(i64::MAX, i64::MAX, i64::MAX));
    let whole = Resolution::Hour.floor(all.0);
    hold("hours", whole, all.1, Step(3_600_000_000_000));
}

fn what_is_beyond_the_limits_leaves_and_is_counted(store: &dyn HistoryStore) {
    let rows = rows(8, 1_000);
    put(store, &rows, &mut Numbers(19));
    let (first, last) = (rows[0].to.0, rows[999].to.0);
    until_at_rest(store, &due(i64::MAX, first + (last - first) / 2, first));
    let before = store.summary().unwrap();
    assert!(before.tiers[0].segments > 2 && before.tiers[1].segments > 0);
    let keep = TierLimit { keep_from: UnixNanos(i64::MIN), bytes_max: u64::MAX };
    assert_eq!(store.retain_history(&[keep; 3]).unwrap().segments, 0);
    // By bytes, the oldest first, each tier by its own limit.
    let half = TierLimit { bytes_max: before.tiers[0].bytes / 2, ..keep };
    let removed = store.retain_history(&[half, keep, keep]).unwrap();
    let after = store.summary().unwrap();
    assert!(after.tiers[0].bytes <= half.bytes_max && after.tiers[0].bytes > 0);
    assert!(after.tiers[0].oldest > before.tiers[0].oldest, "the oldest go");
    assert_eq!(after.tiers[1], before.tiers[1]);
    assert_eq!((removed.rows_expired, removed.rows_evicted), (0, before.rows - after.rows));
    assert_eq!((removed.bytes, removed.segments), (before.bytes - after.bytes, before.segments - after.segments));
    // By age.
    let aged = TierLimit { keep_from: UnixNanos(i64::MAX), ..keep };
    let removed = store.retain_history(&[keep, aged, keep]).unwrap();
    assert_eq!((removed.rows_expired, removed.rows_evicted), (after.tiers[1].rows, 0));
    assert_eq!(store.summary().unwrap().tiers[1].segments, 0);
    assert_eq!(store.retain_history(&[aged; 3]).unwrap().rows_expired, after.tiers[0].rows);
    assert_eq!(found(&*store.history(Lsn(u64::MAX)).unwrap()).1, [0; 3]);
    assert_eq!(store.summary().unwrap().watermark, before.watermark);
}

/// Names every end by the connection's id, and gives every fate its turn.
struct Names(BTreeMap<u8, Arc<SettledEdge>>);

impl Names {
    fn new() -> Self {
        let end = |number: u8, kind: &str| SettledEnd {
            endpoint: SettledName {
                kind: kind.into(),
                namespace: "shop".into(),
                name: format!("{kind}{}", number % 7),
                certainty: "known".into(),
            },
            workload: Some(SettledName { kind: "deployment".into(), name: kind.into(), ..SettledName::default() }),
            node: Some(format!("node-{}", number % 3)),
            address: "10.0.0.2".into(),
            is_seen: number.is_multiple_of(2),
            attributes: [("pod.team".into(), "blue".into())].into(),
            ..SettledEnd::default()
        };
        let edge = |number: u8| SettledEdge {
            client: Arc::new(end(number, "front")),
            server: Arc::new(end(number, "back")),
            port: 8000 + u16::from(number % 2),
            service: number.is_multiple_of(2).then(|| "shop/back".into()),
            certainty: "inferred".into(),
            ..SettledEdge::default()
        };
        Self((0..=u8::MAX).map(|number| (number, Arc::new(edge(number)))).collect())
    }
}

impl Judge for Names {
    fn prepare(&mut self, _: Option<(UnixNanos, UnixNanos)>, _: &[&HistoryRow]) -> Result<(), StoreError> {
        Ok(())
    }

    fn judge(&mut self, row: &HistoryRow) -> Judgement {
        let number = row.connection.0[0];
        let fate = [Fate::Counted, Fate::OtherView, Fate::Unpaired, Fate::Late][usize::from(number) % 4];
        Judgement { side: Side::Client, fate, edge: self.0.get(&number).cloned() }
    }
}

/// What was known when rows were settled comes back with their sums, through every step; what does not count is told apart.
fn what_settling_knew_stays_with_the_sums(store: &dyn HistoryStore) {
    type Told = BTreeMap<(Fate, SettledEnd, SettledEnd, u16, Option<String>), (u64, u64)>;
    let rows = rows(12, 1_500);
    put(store, &rows, &mut Numbers(23));
    let mut names = Names::new();
    let mut expected = Told::new();
    let mut expected_resent = 0;
    for row in &rows {
        let Judgement { fate, edge, .. } = names.judge(row);
        let Some(edge) = edge else { continue };
        if fate == Fate::OtherView {
            expected_resent += row.deltas.retransmits;
            continue;
        }
        let key = (fate, (*edge.client).clone(), (*edge.server).clone(), edge.port, edge.service.clone());
        let held = expected.entry(key).or_default();
        // The judge says that every own end is the client: what the server's view sent is turned.
        let sent = if row.view == Some(Side::Server) { row.deltas.recv.0 } else { row.deltas.sent.0 };
        *held = (held.0.saturating_add(sent), held.1 + 1);
    }
    let told = |store: &dyn HistoryStore| -> (Told, u64, u64) {
        let totals = store.history(Lsn(u64::MAX)).unwrap().edge_totals(ALL.0, ALL.1, None).unwrap();
        let (mut found, mut resent) = (Told::new(), 0);
        for edge in &totals.edges {
            let settled = edge.settled.as_ref().expect("a name");
            assert_eq!(
                (&*edge.client, &*edge.server),
                (&settled.client.endpoint.endpoint(), &settled.server.endpoint.endpoint())
            );
            if edge.fate == Fate::OtherView {
                resent += edge.sums.retransmits;
                continue;
            }
            let key = (
                edge.fate,
                (*settled.client).clone(),
                (*settled.server).clone(),
                settled.port,
                settled.service.clone(),
            );
            let held = found.entry(key).or_default();
            *held = (held.0.saturating_add(edge.sums.sent), held.1 + edge.sums.rows);
        }
        (found, totals.unsettled_rows, resent)
    };
    let (first, last) = (rows[0].to.0, rows[rows.len() - 1].to.0);
    for due in [
        due(i64::MAX, i64::MIN, i64::MIN),
        due(i64::MAX, first + (last - first) / 2, i64::MIN),
        due(i64::MAX, i64::MAX, first + (last - first) / 2),
        due(i64::MAX, i64::MAX, i64::MAX),
    ] {
        while store.compact(&due, &mut names).unwrap().is_some() {}
        assert_eq!(told(store), (expected.clone(), 0, expected_resent));
    }
}

/// A span's ends that cut a window say where the sums begin and end in truth.
fn a_cut_window_is_told(store: &dyn HistoryStore) {
    let rows = rows(13, 600);
    put(store, &rows, &mut Numbers(29));
    let view = |store: &dyn HistoryStore, since: i64, until: i64| {
        store.history(Lsn(u64::MAX)).unwrap().grain(UnixNanos(since), UnixNanos(until))
    };
    let hour = 60 * MINUTE;
    let begin = 100 * 360 * MINUTE;
    until_at_rest(store, &due(i64::MAX, i64::MIN, i64::MIN));
    assert_eq!(view(store, begin, begin + hour), None, "rows of 10 s are of their own span");
    until_at_rest(store, &due(i64::MAX, i64::MAX, i64::MAX));
    let grain = view(store, begin + MINUTE, begin + hour + MINUTE).unwrap();
    assert_eq!(grain.resolution, Resolution::Hour);
    assert_eq!((grain.from, grain.to), (UnixNanos(begin + hour), UnixNanos(begin + 2 * hour)));
    let grain = view(store, begin, begin + hour).unwrap();
    assert_eq!((grain.from, grain.to), (UnixNanos(begin), UnixNanos(begin + hour)), "nothing is cut");
    assert_eq!(view(store, begin + 100 * hour, begin + 101 * hour), None, "there is nothing");
}

struct Fails;

impl Judge for Fails {
    fn prepare(&mut self, _: Option<(UnixNanos, UnixNanos)>, _: &[&HistoryRow]) -> Result<(), StoreError> {
        Err(StoreError::Corrupt { what: "the state", text: "a test says so".into() })
    }

    fn judge(&mut self, _: &HistoryRow) -> Judgement {
        Judgement { side: Side::Client, fate: Fate::Counted, edge: None }
    }
}

fn a_failing_judge_changes_nothing(store: &dyn HistoryStore) {
    let rows = rows(9, 200);
    put(store, &rows, &mut Numbers(23));
    let before = store.summary().unwrap();
    assert!(store.compact(&due(i64::MAX, i64::MAX, i64::MAX), &mut Fails).is_err());
    assert_eq!(store.summary().unwrap(), before);
    assert_eq!(found(&*store.history(Lsn(u64::MAX)).unwrap()).1, [200, 0, 0]);
}

/// The span, and the ends of the rows apart from it.
type Prepared = (Option<(UnixNanos, UnixNanos)>, Vec<UnixNanos>);

/// Keeps what it is told before it judges.
#[derive(Default)]
struct Listens(Vec<Prepared>);

impl Judge for Listens {
    fn prepare(&mut self, span: Option<(UnixNanos, UnixNanos)>, apart: &[&HistoryRow]) -> Result<(), StoreError> {
        self.0.push((span, apart.iter().map(|row| row.to).collect()));
        Ok(())
    }

    fn judge(&mut self, row: &HistoryRow) -> Judgement {
        ById.judge(row)
    }
}

fn a_late_row_is_judged_apart_and_makes_no_span(store: &dyn HistoryStore) {
    let at = |minutes: i64| (100 * 360 + minutes) * MINUTE;
    let late = |minutes: i64, number: u8| HistoryRow { late: true, ..row(at(minutes), number, 1) };
    let segment = |lsn| SegmentId { first: Lsn(lsn), last: Lsn(lsn) };
    // A node that was cut off for 20 h tells of it beside what others tell of now, and then alone.
    let beside = [row(at(1), 1, 1), late(-1_200, 2), row(at(3), 3, 1)];
    store.put_segment(segment(1), LATER, &[&beside]).unwrap();
    store.put_segment(segment(2), LATER, &[&[late(-1_190, 2)]]).unwrap();
    let mut judge = Listens::default();
    while store.compact(&due(i64::MAX, i64::MIN, i64::MIN), &mut judge).unwrap().is_some() {}
    let nanos = |minutes: i64| UnixNanos(at(minutes));
    assert_eq!(judge.0, [(Some((nanos(1), nanos(3))), vec![nanos(-1_200)]), (None, vec![nanos(-1_190)])]);
}

fn a_clock_that_is_ahead_keeps_nobody_waiting(store: &dyn HistoryStore) {
    const TOMORROW: i64 = 24 * 60;
    let at = |minutes: i64| UnixNanos((100 * 360 + minutes) * MINUTE);
    let segment = |lsn| SegmentId { first: Lsn(lsn), last: Lsn(lsn) };
    for (lsn, minute) in (1..).zip(1..=3) {
        let rows = [row(at(minute).0, 1, 1), row(at(TOMORROW + minute).0, 2, 1)];
        store.put_segment(segment(lsn), at(minute).plus(MINUTE / 6), &[&rows]).unwrap();
    }
    // The server's own clock was set back for a moment: what it then took in is not old.
    store.put_segment(segment(4), UnixNanos(0), &[&[row(at(3).0, 3, 1)]]).unwrap();
    let mut judge = Listens::default();
    assert_eq!(store.compact(&due(at(9).0, i64::MIN, i64::MIN), &mut judge).unwrap(), None);
    assert!(store.compact(&due(at(10).0, i64::MIN, i64::MIN), &mut judge).unwrap().is_some());
    let ahead = [1, 2, 3].map(|minute| at(TOMORROW + minute));
    assert_eq!(judge.0, [(Some((at(1), at(3))), ahead.to_vec())]);
    let tomorrow = |store: &dyn HistoryStore| {
        let mut found = Vec::new();
        let view = store.history(Lsn(u64::MAX)).unwrap();
        view.rows(at(TOMORROW), ALL.1, &mut |row, _| found.push(row.to)).unwrap();
        view.rollups(at(TOMORROW), ALL.1, &mut |row| found.push(row.key.window)).unwrap();
        found.sort_unstable();
        found
    };
    assert_eq!(tomorrow(store), ahead, "they keep their times");
    assert!(store.compact(&due(at(60).0, at(60).0, i64::MIN), &mut judge).unwrap().is_some());
    assert_eq!(store.summary().unwrap().tiers.map(|tier| tier.segments), [0, 1, 0]);
    assert_eq!(tomorrow(store), ahead);
    let today = store.history(Lsn(u64::MAX)).unwrap().edge_totals(ALL.0, at(TOMORROW), None).unwrap();
    assert_eq!(total(&today).values().map(|sums| sums.rows).sum::<u64>(), 4);
    // Nor is it kept until then.
    let limit = |minutes| [TierLimit { keep_from: at(minutes), bytes_max: u64::MAX }; 3];
    assert_eq!(store.retain_history(&limit(3)).unwrap().segments, 0);
    assert_eq!(store.retain_history(&limit(4)).unwrap().segments, 1);
}

/// Enough for every kind of step.
pub(crate) fn some_rows() -> Vec<HistoryRow> {
    rows(10, 24)
}

/// Puts those that are not there yet, one a segment: row N is the log's entry N.
pub(crate) fn put_all(store: &dyn HistoryStore, rows: &[HistoryRow]) {
    for (row, lsn) in rows.iter().zip(1..) {
        store.put_segment(SegmentId { first: Lsn(lsn), last: Lsn(lsn) }, LATER, &[std::slice::from_ref(row)]).unwrap();
    }
}

/// What must be there of these rows, and what is.
pub(crate) fn found_sums(store: &dyn HistoryStore, rows: &[HistoryRow]) -> (ByEdge, ByEdge) {
    (truth(rows), found(&*store.history(Lsn(u64::MAX)).unwrap()).0)
}
