//! The contract: what every backend promises. A backend's test calls [`state`] and [`history`] with a way to open it.

pub(crate) mod compaction;
pub(crate) mod shared;

use std::collections::BTreeMap;
use std::sync::Arc;
use weir_model::{
    Bytes, Certainty, ConnectionId, ConnectionKey, Deltas, Direction, Endpoint, Fact, Generation, Instance, NodeName,
    Protocol, Side, Totals, Tuple, UnixNanos,
};
use weir_store::{
    BATCHES_LOST, BatchReport, Before, Claim, Condition, Coverage, DnsClient, DnsCount, DnsName, FactsMax, HistoryRow,
    HistoryStore, Loss, Lsn, MetadataState, Owner, Retention, Rtt, SegmentId, SourceState, StateChanges, StateStore,
    StateView, StreamId, TierLimit, Transaction, TransactionSpan, Translation,
};

pub(crate) fn transaction(cookie: u64, last: i64) -> Transaction {
    let tuple = Tuple::new([10, 0, 0, 1].into(), 1000 + cookie as u16, [10, 0, 0, 2].into(), 80);
    Transaction {
        key: ConnectionKey {
            node: NodeName("a".into()),
            boot: [3; 16],
            instance: Instance::Socket { cookie },
            generation: Generation { count: 2, run: u64::MAX },
        },
        protocol: Protocol::Tcp,
        tuple,
        translated: None,
        netns: 4_026_531_840,
        totals: Totals { sent: Bytes(u64::MAX - cookie), recv: Bytes(cookie), retransmits: 1 },
        before: Before { sent: Bytes(5), recv: Bytes(6) },
        started: Some(UnixNanos(last - 10)),
        first: UnixNanos(last - 10),
        seen: UnixNanos(last - 1),
        last: UnixNanos(last),
        condition: Condition {
            closed: None,
            at: UnixNanos(last),
            state: "established".into(),
            close_reason: None,
            errno: 0,
        },
        claim: Some(Claim { certainty: Certainty::Known, at: UnixNanos(last), direction: Direction::Outgoing }),
        owner: Some(Owner {
            at: UnixNanos(last),
            pid: 9,
            process_start_ns: u64::MAX,
            process: "curl".into(),
            cgroup_id: u64::MAX,
            cgroup_path: "/a".into(),
            container_id: String::new(),
        }),
        rtt: Some(Rtt { at: UnixNanos(last), us: 7 }),
        connect_latency_us: Some(8),
        other_peer: false,
    }
}

fn closed(cookie: u64, last: i64, at: i64) -> Transaction {
    let mut row = transaction(cookie, last);
    row.condition.closed = Some(UnixNanos(at));
    row.condition.close_reason = Some("reset".into());
    row.condition.errno = 104;
    row
}

/// One of each other kind of key and of everything that can be absent.
fn unusual() -> Vec<Transaction> {
    let tuple = Tuple::new("fd00::1".parse().unwrap(), 5, "fd00::2".parse().unwrap(), 53);
    let bare = Transaction {
        started: None,
        claim: None,
        owner: None,
        rtt: None,
        connect_latency_us: None,
        protocol: Protocol::Udp,
        tuple,
        other_peer: true,
        translated: Some(tuple.reversed()),
        ..transaction(900, 100)
    };
    let with = |instance| Transaction { key: ConnectionKey { instance, ..bare.key.clone() }, ..bare.clone() };
    vec![
        with(Instance::Peer { cookie: u64::MAX, tuple }),
        with(Instance::Tuple { protocol: Protocol::Udp, netns: 1, pid: 2, tuple }),
    ]
}

/// More than any of these tests has.
const FACTS_MAX: FactsMax = FactsMax { by_kind: &[], others: 1_000_000 };

pub(crate) fn fact(id: &str, said: i64, name: &str, to: Option<i64>) -> Fact {
    Fact {
        node: NodeName("a".into()),
        source: "cri".into(),
        kind: "container".into(),
        id: id.into(),
        from: UnixNanos(1),
        said: UnixNanos(said),
        to: to.map(UnixNanos),
        name: name.into(),
        namespace: "shop".into(),
        parent: "pod".into(),
        netns: 5,
        addresses: vec!["10.0.0.1".into()],
        attributes: BTreeMap::from([("app".to_owned(), "front \"end\"".to_owned())]),
    }
}

pub(crate) fn report(sequence: u64, to: i64) -> BatchReport {
    BatchReport {
        metadata: vec![MetadataState {
            source: "kubelet".into(),
            state: "ok".into(),
            detail: String::new(),
            things: 3,
            read: Some(UnixNanos(to)),
        }],
        stream: StreamId([4; 16]),
        sequence,
        dropped: None,
        node: NodeName("a".into()),
        boot: [3; 16],
        agent_run: [5; 16],
        version: "1".into(),
        received: UnixNanos(to + 1),
        clock_offset_ns: Some(-3),
        coverage: Some(Coverage {
            node: "a".into(),
            from: UnixNanos(to - 10),
            to: UnixNanos(to),
            covered: sequence % 2 == 1,
            gap_reason: String::new(),
        }),
        source: Some(SourceState { kind: "weir".into(), state: "ok".into(), ..SourceState::default() }),
        losses: vec![Loss {
            node: "a".into(),
            from: UnixNanos(to - 10),
            to: UnixNanos(to),
            place: "kernel".into(),
            reason: "ring_full".into(),
            count: sequence,
            ..Loss::default()
        }],
        counts: BTreeMap::from([("batches".to_owned(), 1), ("records".to_owned(), 10)]),
    }
}

fn everything(view: &dyn StateView) -> Vec<Transaction> {
    let mut rows = Vec::new();
    view.transactions(TransactionSpan::default(), &mut |row| rows.push(row)).unwrap();
    rows.sort_by_key(Transaction::id);
    rows
}

/// The promises of a [`StateStore`]; `open` opens the same store again.
pub(crate) fn state<S: StateStore>(open: impl Fn() -> S) {
    what_is_stored_is_read_back(&open());
    merging_knows_no_order_and_no_repetition(&open());
    a_view_is_a_snapshot(&open());
    reports_add_up_once(&open());
    the_newest_saying_of_a_fact_stands(&open());
    translations_are_a_set(&open());
    let before = everything(&*open().view().unwrap());
    assert_eq!(everything(&*open().view().unwrap()), before, "opening again changes nothing");
    what_is_past_its_time_leaves(&open());
    what_left_and_comes_again_is_itself(&open());
    many_of_one_kind_take_no_place_from_another(&open());
    coverage_that_is_long_past_is_joined(&open());
    dns_counts_once_and_its_names_follow_the_answers(&open());
}

fn coverage_that_is_long_past_is_joined(store: &dyn StateStore) {
    let span = |sequence: u64, from: i64, to: i64| BatchReport {
        coverage: Some(Coverage {
            node: "a".into(),
            from: UnixNanos(from),
            to: UnixNanos(to),
            covered: true,
            gap_reason: String::new(),
        }),
        losses: Vec::new(),
        ..report(sequence, to)
    };
    let reports = vec![span(21, 9_000, 9_100), span(22, 9_100, 9_200), span(23, 9_250, 9_300), span(24, 9_300, 9_900)];
    store.apply(&StateChanges { reports: reports.clone(), ..StateChanges::default() }).unwrap();
    let retention = Retention {
        now: UnixNanos(10_000),
        closed_ns: i64::MAX,
        transactions_max: u64::MAX,
        facts_ns: i64::MAX,
        facts_max: FACTS_MAX,
        translations_ns: i64::MAX,
        translations_max: u64::MAX,
        reports_ns: 950,
        join_coverage_ns: 500,
        dns_max: 1_000_000,
        dns_names_max: 1_000_000,
    };
    for again in [false, true] {
        if again {
            store.apply(&StateChanges { reports: vec![reports[3].clone()], ..StateChanges::default() }).unwrap();
        }
        store.retain(&retention).unwrap();
        let view = store.view().unwrap();
        let spans: Vec<(i64, i64)> = view
            .coverage(UnixNanos(0), UnixNanos(20_000))
            .unwrap()
            .iter()
            .map(|span| (span.from.0, span.to.0))
            .collect();
        // The first two are one, cut where retention ends; a hole stays a hole; what is recent stays as it came.
        assert_eq!(spans, [(9_050, 9_200), (9_250, 9_300), (9_300, 9_900)]);
    }
}

fn what_is_stored_is_read_back(store: &dyn StateStore) {
    let mut rows = unusual();
    rows.push(transaction(1, 100));
    rows.push(closed(2, 100, 99));
    store.apply(&StateChanges { transactions: rows.clone(), ..StateChanges::default() }).unwrap();
    rows.sort_by_key(Transaction::id);
    let view = store.view().unwrap();
    assert_eq!(everything(&*view), rows);
    let mut linked = Vec::new();
    view.linked(&[transaction(1, 100).link()], &mut |row| linked.push(row)).unwrap();
    assert_eq!(linked, [transaction(1, 100)]);
    for (since, until, expected) in [(None, None, 4), (Some(99), None, 4), (Some(101), None, 3), (None, Some(90), 0)] {
        let span = TransactionSpan { since: since.map(UnixNanos), until: until.map(UnixNanos) };
        let mut count = 0;
        view.transactions(span, &mut |_| count += 1).unwrap();
        // The closed one ended at 100; the open ones reach into every later span.
        assert_eq!(count, expected, "{since:?} {until:?}");
    }
}

fn merging_knows_no_order_and_no_repetition(store: &dyn StateStore) {
    let readings = [transaction(50, 300), closed(50, 400, 390), transaction(50, 500), transaction(50, 200)];
    let expected = readings.iter().cloned().reduce(Transaction::merge).unwrap();
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
        for index in order {
            let one = vec![readings[index].clone(), readings[index].clone()];
            store.apply(&StateChanges { transactions: one, ..StateChanges::default() }).unwrap();
        }
        let view = store.view().unwrap();
        let mut found = Vec::new();
        view.linked(&[expected.link()], &mut |row| found.push(row)).unwrap();
        assert_eq!(found, std::slice::from_ref(&expected));
    }
}

fn a_view_is_a_snapshot(store: &dyn StateStore) {
    let view = store.view().unwrap();
    let before = everything(&*view);
    store.apply(&StateChanges { transactions: vec![transaction(60, 100)], ..StateChanges::default() }).unwrap();
    assert_eq!(everything(&*view), before);
    drop(view);
    assert_eq!(everything(&*store.view().unwrap()).len(), before.len() + 1);
}

fn reports_add_up_once(store: &dyn StateStore) {
    for sequence in [1, 2, 2, 1, 3] {
        let reports = vec![report(sequence, sequence as i64 * 10)];
        store.apply(&StateChanges { reports, ..StateChanges::default() }).unwrap();
    }
    let view = store.view().unwrap();
    let streams = view.streams().unwrap();
    assert_eq!(streams.len(), 1);
    let stream = &streams[0];
    assert_eq!((stream.applied_sequence, stream.counts["batches"], stream.counts["records"]), (3, 3, 30));
    assert_eq!((stream.first_covered, stream.newest.to), (UnixNanos(0), UnixNanos(30)));
    assert_eq!(stream.clock_offset_ns, Some(-3));
    let covered: Vec<bool> =
        view.coverage(UnixNanos(0), UnixNanos(100)).unwrap().iter().map(|span| span.covered).collect();
    assert_eq!(covered, [true, false, true]);
    assert_eq!(view.coverage(UnixNanos(10), UnixNanos(15)).unwrap().len(), 1);
    let lost: u64 = view.losses(UnixNanos(0), UnixNanos(100)).unwrap().iter().map(|loss| loss.count).sum();
    assert_eq!(lost, 6);
    a_tombstone_replaces_what_was_only_seen_to_be_missing(store);
}

fn a_tombstone_replaces_what_was_only_seen_to_be_missing(store: &dyn StateStore) {
    let gap = Loss { from: UnixNanos(30), to: UnixNanos(40), reason: BATCHES_LOST.into(), count: 5, ..Loss::default() };
    let missing =
        BatchReport { losses: vec![gap], coverage: None, source: None, version: String::new(), ..report(8, 40) };
    let tombstone = BatchReport { dropped: Some((4, 8)), losses: Vec::new(), ..report(9, 35) };
    let lost = |store: &dyn StateStore| -> u64 {
        let losses = store.view().unwrap().losses(UnixNanos(30), UnixNanos(100)).unwrap();
        losses.iter().map(|loss| loss.count).sum()
    };
    let before = lost(store);
    store.apply(&StateChanges { reports: vec![missing], ..StateChanges::default() }).unwrap();
    assert_eq!(lost(store), before + 5);
    let stream = store.view().unwrap().streams().unwrap().remove(0);
    assert_eq!((stream.version.as_str(), stream.source.state.as_str()), ("1", "ok"), "what is not told stays");
    store.apply(&StateChanges { reports: vec![tombstone], ..StateChanges::default() }).unwrap();
    assert_eq!(lost(store), before);
}

fn the_newest_saying_of_a_fact_stands(store: &dyn StateStore) {
    let sayings = [fact("x", 5, "old", None), fact("x", 9, "new", Some(8)), fact("x", 7, "between", None)];
    for index in [0, 1, 2, 1, 0] {
        store.apply(&StateChanges { facts: vec![sayings[index].clone()], ..StateChanges::default() }).unwrap();
    }
    let mut found = Vec::new();
    store.view().unwrap().facts(&[], &mut |fact| found.push(fact)).unwrap();
    assert_eq!(found, [sayings[1].clone()]);
}

fn translation(port: u16, seen: i64, began: bool) -> Translation {
    Translation {
        node: NodeName("b".into()),
        protocol: Protocol::Tcp,
        original: Tuple::new([10, 0, 0, 1].into(), port, [10, 0, 0, 2].into(), 30080),
        translated: Tuple::new("fd00::1".parse().unwrap(), port, "fd00::2".parse().unwrap(), 8080),
        seen: UnixNanos(seen),
        began,
    }
}

fn translations(store: &dyn StateStore, links: &[i64]) -> Vec<Translation> {
    let mut found = Vec::new();
    store.view().unwrap().translations(links, &mut |translation| found.push(translation)).unwrap();
    found.sort();
    found.dedup();
    found
}

fn translations_are_a_set(store: &dyn StateStore) {
    let all = [translation(1, 5_000, true), translation(1, 6_000, false), translation(2, 5_000, false)];
    assert!(translations(store, &all[0].links()).is_empty());
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        for index in order {
            let told = vec![all[index].clone(), all[index].clone()];
            store.apply(&StateChanges { translations: told, ..StateChanges::default() }).unwrap();
        }
    }
    // From before it and from behind it, it is found.
    for link in all[0].links() {
        assert_eq!(translations(store, &[link]), all[..2]);
    }
    assert_eq!(translations(store, &[all[0].links()[0], all[2].links()[1]]).len(), 3);
    // That it was seen to begin is kept, whichever was told last.
    let weaker = Translation { began: false, ..all[0].clone() };
    store.apply(&StateChanges { translations: vec![weaker], ..StateChanges::default() }).unwrap();
    assert_eq!(translations(store, &all[0].links()), all[..2]);
    assert_eq!(store.view().unwrap().counters().unwrap()["translations"], 3);
    let retention = Retention {
        now: UnixNanos(7_000),
        closed_ns: i64::MAX,
        transactions_max: u64::MAX,
        facts_ns: i64::MAX,
        facts_max: FACTS_MAX,
        translations_ns: 1_500,
        translations_max: 1,
        reports_ns: 7_000,
        join_coverage_ns: 7_000,
        dns_max: 1_000_000,
        dns_names_max: 1_000_000,
    };
    assert_eq!(store.retain(&retention).unwrap().translations_evicted, 0);
    assert_eq!(translations(store, &all[0].links()), all[1..2]);
    store.apply(&StateChanges { translations: vec![translation(3, 6_500, true)], ..StateChanges::default() }).unwrap();
    assert_eq!(store.retain(&retention).unwrap().translations_evicted, 1);
    assert!(translations(store, &all[1].links()).is_empty(), "the one seen longest ago goes");
}

fn query(sequence: u64, number: u32, name: &str, at: i64, address: [u8; 4]) -> DnsCount {
    DnsCount {
        stream: StreamId([9; 16]),
        sequence,
        number,
        node: NodeName("a".into()),
        client: DnsClient {
            pid: 7,
            process_start_ns: u64::MAX,
            process: "curl".into(),
            cgroup_path: "/a".into(),
            container_id: String::new(),
            netns: 4_026_531_840,
        },
        server: "10.0.0.10".parse().unwrap(),
        name: name.into(),
        query_type: "A".into(),
        rcode: "noerror".into(),
        count: 3,
        latency_sum_us: 30,
        latency_max_us: 20,
        retransmits: 1,
        truncated: 2,
        first: UnixNanos(at),
        last: UnixNanos(at),
        answers: vec![(address.into(), 60), ("fd00::9".parse().unwrap(), 30)],
    }
}

fn counts(store: &dyn StateStore, since: i64, until: i64) -> Vec<DnsCount> {
    let mut found = Vec::new();
    store.view().unwrap().dns(UnixNanos(since), UnixNanos(until), &mut |row| found.push(row)).unwrap();
    found.sort_by_key(|row| (row.sequence, row.number));
    found
}

fn told(store: &dyn StateStore) -> Vec<DnsName> {
    let mut found = Vec::new();
    let view = store.view().unwrap();
    view.dns_names(UnixNanos(i64::MIN), UnixNanos(i64::MAX), &mut |row| found.push(row)).unwrap();
    found.retain(|row| row.address == std::net::IpAddr::from([192, 0, 2, 7]));
    found.sort_by_key(|row| row.from);
    found
}

fn dns_counts_once_and_its_names_follow_the_answers(store: &dyn StateStore) {
    let address = [192, 0, 2, 7];
    let batches = [
        vec![query(1, 0, "b.example", 2_000, address), query(1, 1, "a.example", 1_000, address)],
        vec![query(2, 0, "b.example", 3_000, address), query(2, 1, "a.example", 4_000, address)],
    ];
    // As at a restart: what was applied comes again, in order.
    for index in [0, 0, 1, 0, 1] {
        store.apply(&StateChanges { dns: batches[index].clone(), ..StateChanges::default() }).unwrap();
    }
    assert_eq!(counts(store, 0, 5_000), batches.concat());
    assert_eq!(counts(store, 1_000, 2_000), [batches[0][1].clone()]);
    let spans: Vec<(String, i64, i64)> =
        told(store).into_iter().map(|row| (row.name, row.from.0, row.last.0)).collect();
    let span = |name: &str, from, last| (name.to_owned(), from, last);
    assert_eq!(
        spans,
        [span("a.example", 1_000, 1_000), span("b.example", 2_000, 3_000), span("a.example", 4_000, 4_000)]
    );
    let newest = told(store).remove(2);
    assert_eq!((newest.until, newest.netns), (UnixNanos(4_000 + 60_000_000_000), 4_026_531_840));
    assert_eq!(newest.client, weir_store::client_key("", 7, u64::MAX).unwrap());
    // The cap: the oldest go first, and are counted.
    let retention = Retention {
        now: UnixNanos(6_000),
        closed_ns: i64::MAX,
        transactions_max: u64::MAX,
        facts_ns: i64::MAX,
        facts_max: FACTS_MAX,
        translations_ns: i64::MAX,
        translations_max: u64::MAX,
        reports_ns: i64::MAX / 2,
        join_coverage_ns: 0,
        dns_max: 3,
        dns_names_max: 3,
    };
    let removed = store.retain(&retention).unwrap();
    assert_eq!(removed.dns_evicted, 1 + 3, "one count; of six names, three");
    assert_eq!(counts(store, 0, 5_000).len(), 3);
    assert_eq!(store.view().unwrap().counters().unwrap()["dns_evicted"], 1);
}

fn many_of_one_kind_take_no_place_from_another(store: &dyn StateStore) {
    let of = |kind: &str, number: i64, to: Option<i64>| Fact {
        kind: kind.into(),
        ..fact(&format!("{kind}{number}"), number, "n", to)
    };
    let mut facts = vec![of("pod", 1, None), of("novel", 1, None), of("newer", 2, None)];
    facts.extend((1..=9).map(|number| of("process", number, (number % 2 == 0).then_some(100 - number))));
    store.apply(&StateChanges { facts, ..StateChanges::default() }).unwrap();
    // What earlier tests left is one container.
    let retention = Retention {
        now: UnixNanos(200),
        closed_ns: 1_000,
        transactions_max: 1,
        facts_ns: 1_000,
        facts_max: FactsMax { by_kind: &[("container", 0), ("pod", 1), ("process", 4)], others: 1 },
        translations_ns: 1_000,
        translations_max: 1,
        reports_ns: 1_000,
        join_coverage_ns: 0,
        dns_max: 1,
        dns_names_max: 1,
    };
    for evicted in [7, 0] {
        assert_eq!(store.retain(&retention).unwrap().facts_evicted, evicted);
        let mut left = Vec::new();
        store.view().unwrap().facts(&[], &mut |fact| left.push(fact.id)).unwrap();
        left.sort();
        // What has ended goes first, and the one said longest ago.
        assert_eq!(left, ["newer2", "pod1", "process3", "process5", "process7", "process9"]);
        let counters = store.view().unwrap().counters().unwrap();
        assert_eq!((counters["facts_evicted"], counters["facts_evicted_process"]), (7, 5));
        assert!(!counters.contains_key("facts_evicted_pod"));
    }
}

fn what_is_past_its_time_leaves(store: &dyn StateStore) {
    let rows = vec![closed(70, 1_000, 900), closed(71, 5_000, 4_900), transaction(72, 1_000)];
    let facts = vec![fact("ended", 5, "ended", Some(10)), fact("holds", 5, "holds", None)];
    store.apply(&StateChanges { transactions: rows, facts, ..StateChanges::default() }).unwrap();
    let retention = Retention {
        now: UnixNanos(6_000),
        closed_ns: 2_000,
        transactions_max: 1_000_000,
        facts_ns: 2_000,
        facts_max: FACTS_MAX,
        translations_ns: 2_000,
        translations_max: 1_000_000,
        reports_ns: 2_000,
        join_coverage_ns: 500,
        dns_max: 1_000_000,
        dns_names_max: 1_000_000,
    };
    let removed = store.retain(&retention).unwrap();
    assert!(removed.transactions_expired >= 1 && removed.transactions_evicted == 0);
    let left = everything(&*store.view().unwrap());
    let has = |cookie| left.iter().any(|row| row.key.instance == Instance::Socket { cookie });
    assert!(!has(70) && has(71) && has(72));
    let mut names = Vec::new();
    store.view().unwrap().facts(&[], &mut |fact| names.push(fact.name)).unwrap();
    assert_eq!(names, ["holds"]);
    let mut pods = 0;
    store.view().unwrap().facts(&["pod", "node"], &mut |_| pods += 1).unwrap();
    assert_eq!(pods, 0);
    assert!(store.view().unwrap().coverage(UnixNanos(0), UnixNanos(100)).unwrap().is_empty());
    // The cap: the oldest closed go first, and are counted.
    let kept = left.len() as u64 - 1;
    let removed = store.retain(&Retention { transactions_max: kept, ..retention }).unwrap();
    assert_eq!(removed.transactions_evicted, 1);
    let view = store.view().unwrap();
    assert!(!everything(&*view).iter().any(|row| row.key.instance == Instance::Socket { cookie: 71 }));
    assert_eq!(view.counters().unwrap()["transactions_evicted"], 1);
}

/// Whatever lies by then where it lay.
fn what_left_and_comes_again_is_itself(store: &dyn StateStore) {
    let (leaves, comes) = (closed(90, 1_000, 900), transaction(91, 5_000));
    let apply = |row: &Transaction| {
        store.apply(&StateChanges { transactions: vec![row.clone()], ..StateChanges::default() }).unwrap();
    };
    apply(&leaves);
    let retention = Retention {
        now: UnixNanos(6_000),
        closed_ns: 2_000,
        transactions_max: u64::MAX,
        facts_ns: i64::MAX,
        facts_max: FACTS_MAX,
        translations_ns: i64::MAX,
        translations_max: u64::MAX,
        reports_ns: i64::MAX,
        join_coverage_ns: i64::MAX,
        dns_max: u64::MAX,
        dns_names_max: u64::MAX,
    };
    assert_eq!(store.retain(&retention).unwrap().transactions_expired, 1);
    for row in [&comes, &leaves, &comes, &leaves] {
        apply(row);
    }
    let of = |cookie| {
        let rows = everything(&*store.view().unwrap());
        rows.into_iter().filter(|row| row.key.instance == Instance::Socket { cookie }).collect::<Vec<_>>()
    };
    assert_eq!((of(90), of(91)), (vec![leaves.clone()], vec![comes.clone()]));
}

pub(crate) fn row(to: i64, number: u8, sent: u64) -> HistoryRow {
    let endpoint = |kind: &str, name: String| Arc::new(Endpoint { kind: kind.into(), namespace: String::new(), name });
    HistoryRow {
        from: UnixNanos(to - 10),
        to: UnixNanos(to),
        connection: ConnectionId([number; 16]),
        view: [Some(Side::Client), Some(Side::Server), None][usize::from(number) % 3],
        node: "a".into(),
        protocol: if number.is_multiple_of(2) { Protocol::Tcp } else { Protocol::Udp },
        netns: 4_026_531_840,
        client: "[fd00::1]:40000".parse().unwrap(),
        server: "10.0.0.2:80".parse().unwrap(),
        client_endpoint: endpoint("process", format!("client{}", number % 2)),
        server_endpoint: endpoint("external", "10.0.0.2".into()),
        process: "curl".into(),
        container_id: "".into(),
        deltas: Deltas { sent: Bytes(sent), recv: Bytes(u64::MAX), retransmits: 3 },
        opened: number.is_multiple_of(2),
        closed: number.is_multiple_of(3),
        failure: if number.is_multiple_of(3) { "reset".into() } else { "".into() },
        rtt_us: (number.is_multiple_of(2)).then_some(9),
        started: (number % 2 == 1).then_some(UnixNanos(to - 5)),
        late: false,
    }
}

fn id(first: u64, last: u64) -> SegmentId {
    SegmentId { first: Lsn(first), last: Lsn(last) }
}

fn scan(store: &dyn HistoryStore, since: i64, until: i64, as_of: u64) -> Vec<HistoryRow> {
    let mut rows = Vec::new();
    store.scan(UnixNanos(since), UnixNanos(until), Lsn(as_of), &mut |row| rows.push(row)).unwrap();
    rows.sort_by_key(|row| (row.to, row.connection));
    rows
}

/// Segments that are received so late have no row of a clock that was ahead.
pub(crate) const LATER: UnixNanos = UnixNanos(i64::MAX);

/// The promises of a [`HistoryStore`]; `open` opens the same, at first empty, store again.
pub(crate) fn history<S: HistoryStore>(open: impl Fn() -> S) {
    let first: Vec<HistoryRow> = (0..6).map(|number| row(100 + i64::from(number), number, 10)).collect();
    {
        let store = open();
        assert_eq!(store.summary().unwrap().watermark, Lsn(0));
        store.put_segment(id(1, 4), LATER, &[&first]).unwrap();
        // The same segment again is already there, whatever it holds.
        store.put_segment(id(1, 4), LATER, &[&[row(100, 1, 999)]]).unwrap();
        store.put_segment(id(1, 2), LATER, &[&[row(100, 1, 999)]]).unwrap();
        assert_eq!(scan(&store, i64::MIN, i64::MAX, u64::MAX), first);
        assert!(store.put_segment(id(6, 7), LATER, &[&first]).is_err(), "a segment that leaves a hole is refused");
        // Nothing moved: only the watermark does.
        store.put_segment(id(5, 5), LATER, &[]).unwrap();
        assert_eq!(store.summary().unwrap().watermark, Lsn(5));
        store.put_segment(id(6, 9), LATER, &[&[row(200, 1, 7)]]).unwrap();
    }
    let store = open();
    let summary = store.summary().unwrap();
    assert_eq!((summary.segments, summary.rows, summary.watermark), (2, 7, Lsn(9)));
    assert_eq!(summary.oldest, Some(UnixNanos(100)));
    assert_eq!(scan(&store, 100, 103, u64::MAX), first[..3]);
    assert_eq!(scan(&store, 103, 200, u64::MAX), first[3..]);
    assert_eq!(scan(&store, 103, 201, u64::MAX).len(), 4);
    assert_eq!(scan(&store, i64::MIN, i64::MAX, 8), first, "a segment above the reader's position is not read");
    let limit = TierLimit { keep_from: UnixNanos(106), bytes_max: u64::MAX };
    let removed = store.retain_history(&[limit; 3]).unwrap();
    assert_eq!((removed.segments, removed.rows_expired), (1, 6));
    assert_eq!(scan(&store, i64::MIN, i64::MAX, u64::MAX).len(), 1);
    assert_eq!(store.summary().unwrap().watermark, Lsn(9));
}
