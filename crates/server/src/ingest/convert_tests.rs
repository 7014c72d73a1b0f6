//! A batch's promises: what cannot be is left out and counted, the rest is oriented and stands.

use super::*;

const NODE: &str = "a";

fn record(local: &str, remote: &str, direction: u32) -> Record {
    Record {
        instance_kind: InstanceKind::Socket.into(),
        cookie: 7,
        local: Some(Address::of(local.parse().unwrap())),
        remote: Some(Address::of(remote.parse().unwrap())),
        direction,
        direction_certainty: 2,
        sent_total: 30,
        recv_total: 40,
        sent_delta: 3,
        recv_delta: 4,
        from_unix_ns: 100,
        to_unix_ns: 200,
        ..Record::default()
    }
}

fn batch(records: Vec<Record>) -> Batch {
    Batch {
        format: 1,
        node: NODE.into(),
        sequence: 5,
        covers_from_unix_ns: 100,
        covers_to_unix_ns: 200,
        covered: true,
        local_ends: vec![LocalEnd { pid: 9, process_name: "curl".into(), ..LocalEnd::default() }],
        records,
        ..Batch::default()
    }
}

fn converted(batch: &Batch) -> Converted {
    convert(StreamId([1; 16]), batch, UnixNanos(1), None, &Names::default())
}

#[test]
fn a_servers_view_is_turned_to_the_clients_side() {
    let found = converted(&batch(vec![record("10.0.0.2:80", "10.0.0.1:5000", 1)]));
    let row = &found.rows[0];
    assert_eq!((row.client, row.server), ("10.0.0.1:5000".parse().unwrap(), "10.0.0.2:80".parse().unwrap()));
    // What the server's end received is what the client sent.
    assert_eq!((row.deltas.sent, row.deltas.recv), (Bytes(4), Bytes(3)));
    assert_eq!((row.server_endpoint.name.as_str(), row.client_endpoint.kind.as_str()), ("curl", "external"));
    // The stored counter stays as its own end sees it.
    assert_eq!(found.transactions[0].totals.sent, Bytes(30));
}

#[test]
fn what_cannot_be_is_refused_and_counted_and_the_rest_stands() {
    let good = record("10.0.0.1:5000", "10.0.0.2:80", 2);
    let wrong = [
        Record { local: None, ..good.clone() },
        Record { remote: Some(Address { ip: vec![1, 2, 3].into(), port: 5 }), ..good.clone() },
        Record { local: Some(Address { ip: vec![1, 2, 3, 4].into(), port: 70_000 }), ..good.clone() },
        Record { protocol: 2, ..good.clone() },
        Record { cookie: 0, ..good.clone() },
        Record { instance_kind: 9, ..good.clone() },
        Record { local_end: 1, ..good.clone() },
    ];
    let refused = wrong.len() as u64;
    let found = converted(&batch(wrong.into_iter().chain([good]).collect()));
    assert_eq!((found.records_refused, found.transactions.len(), found.rows.len()), (refused, 1, 1));
    let loss = &found.report.losses[0];
    assert_eq!((loss.reason.as_str(), loss.count, loss.node.as_str()), ("record_refused", refused, NODE));
}

#[test]
fn a_record_that_only_describes_makes_no_row() {
    let still = Record { sent_delta: 0, recv_delta: 0, ..record("10.0.0.1:5000", "10.0.0.2:80", 2) };
    assert!(converted(&batch(vec![still.clone()])).rows.is_empty());
    assert_eq!(converted(&batch(vec![Record { opened: true, ..still.clone() }])).rows.len(), 1);
    assert_eq!(converted(&batch(vec![Record { closed_unix_ns: 150, ..still }])).rows.len(), 1);
}

#[test]
fn both_views_in_a_batch_name_each_other() {
    let server = Record { cookie: 8, ..record("127.0.0.1:80", "127.0.0.1:5000", 1) };
    let found = converted(&batch(vec![record("127.0.0.1:5000", "127.0.0.1:80", 2), server]));
    assert!(found.rows.iter().all(|row| row.client_endpoint.name == "curl" && row.server_endpoint.name == "curl"));
}

#[test]
fn a_first_poll_covers_an_instant_and_a_batch_without_a_span_covers_nothing() {
    let first = Batch { covers_from_unix_ns: 0, ..batch(Vec::new()) };
    let coverage = converted(&first).report.coverage.unwrap();
    assert_eq!((coverage.from, coverage.to), (UnixNanos(200), UnixNanos(200)));
    let none = Batch { covers_from_unix_ns: 0, covers_to_unix_ns: 0, ..batch(Vec::new()) };
    assert_eq!(converted(&none).report.coverage, None);
}

#[test]
fn a_closed_record_says_why_and_only_failures_are_failures() {
    for (reason, fails) in
        [("closed", false), ("disconnected", false), ("refused", true), ("reset", true), ("timed_out", true)]
    {
        let record =
            Record { closed_unix_ns: 150, close_reason: reason.into(), ..record("10.0.0.1:1", "10.0.0.2:2", 2) };
        let found = converted(&batch(vec![record]));
        assert_eq!(found.transactions[0].condition.close_reason.as_deref(), Some(reason));
        assert_eq!(!found.rows[0].failure.is_empty(), fails, "{reason}");
    }
}

#[test]
fn losses_beyond_the_limit_are_summed_not_dropped() {
    let mut many = batch(Vec::new());
    for number in 0..LOSSES_MAX + 10 {
        let reason = format!("reason{number}");
        many.losses.push(weir_wire::agent::Loss { place: "kernel".into(), reason, count: 1, ..Default::default() });
    }
    let losses = converted(&many).report.losses;
    assert_eq!(losses.len(), LOSSES_MAX);
    assert_eq!(losses.iter().map(|loss| loss.count).sum::<u64>(), LOSSES_MAX as u64 + 10);
}

#[test]
fn a_text_is_cut_at_a_characters_border() {
    let long = "ä".repeat(TEXT_BYTES_MAX);
    assert!(clip(&long).len() <= TEXT_BYTES_MAX && long.starts_with(&clip(&long)));
}
