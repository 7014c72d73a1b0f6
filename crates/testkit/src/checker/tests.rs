//! A checker that cannot fail is a defect: each kind of error makes it fail.

use super::rows::{Row, check};
use super::table::{Expectation, Found, Report};
use super::*;
use crate::traffic::{Outcome, Protocol, Role, Word};
use weir_wire::api::EdgeEnd;

fn truth(role: Role, sent: u64, recv: u64) -> Truth {
    let (client, server) = ("127.0.0.1:4000".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
    let (local, remote) = if role == Role::Client { (client, server) } else { (server, client) };
    Truth {
        role,
        protocol: Protocol::Tcp,
        local,
        remote,
        sent,
        recv,
        outcome: Outcome::Closed,
        pid: 11,
        process: "weir-traffic".into(),
        net_ns: 5,
        cgroup_id: 0,
        started_ns: 1,
        ended_ns: 2,
        kernel: None,
    }
}

fn both() -> Vec<Truth> {
    vec![truth(Role::Client, 5, 7), truth(Role::Server, 7, 5)]
}

fn transaction(truth: &Truth) -> Transaction {
    Transaction {
        protocol: "tcp".into(),
        source: truth.local.ip().to_string(),
        dest: truth.remote.ip().to_string(),
        source_port: truth.local.port(),
        dest_port: truth.remote.port(),
        direction: if truth.role == Role::Client { "outgoing" } else { "incoming" }.into(),
        monotonic_sent_bytes: truth.sent,
        monotonic_recv_bytes: truth.recv,
        pid: truth.pid,
        process: Some(truth.process.clone()),
        net_ns: truth.net_ns,
        state: "closed".into(),
        close_reason: Some("closed".into()),
        ..Transaction::default()
    }
}

fn edge(sent: u64, recv: u64) -> Edge {
    let end = || EdgeEnd { address: Some("127.0.0.1".into()), ..EdgeEnd::default() };
    Edge {
        client: end(),
        server: end(),
        port: 80,
        protocol: "tcp".into(),
        sent_bytes: sent,
        recv_bytes: recv,
        connections: 1,
        ..Edge::default()
    }
}

/// What `change` makes of right transactions.
fn changed(change: impl FnOnce(&mut Vec<Transaction>)) -> String {
    let mut transactions: Vec<_> = both().iter().map(transaction).collect();
    change(&mut transactions);
    transactions_differ(&both(), &transactions)
}

#[test]
fn what_is_right_passes() {
    assert_eq!(changed(|_| ()), "");
    assert_eq!(edges_differ(&both(), &[edge(5, 7)]), "");
}

#[test]
fn one_byte_more_or_less_is_found() {
    assert!(changed(|rows| rows[0].monotonic_sent_bytes += 1).contains("Bytes"));
    assert!(changed(|rows| rows[1].monotonic_recv_bytes -= 1).contains("OneShort"));
    assert!(changed(|rows| rows[1].monotonic_recv_bytes -= 2).contains("Bytes"));
    assert!(changed(|rows| rows[1].bytes_before = 1).contains("Bytes"));
    assert!(edges_differ(&both(), &[edge(6, 7)]).contains("Bytes"));
    assert!(edges_differ(&both(), &[edge(5, 6)]).contains("Bytes"));
}

#[test]
fn a_connection_that_is_missing_or_there_twice_is_found() {
    assert!(changed(|rows| drop(rows.remove(0))).contains("Missing"));
    assert!(changed(|rows| rows.push(rows[0].clone())).contains("Extra"));
    assert!(edges_differ(&both(), &[]).contains("Missing"));
    assert!(edges_differ(&both(), &[edge(5, 7), edge(5, 7)]).contains("Connections"));
    assert!(edges_differ(&both(), &[edge(5, 7), Edge { connections: 0, ..edge(5, 7) }]).contains("Bytes"));
}

#[test]
fn a_row_or_an_edge_that_nobody_played_is_found() {
    let another = |rows: &mut Vec<Transaction>| rows.push(Transaction { source_port: 4001, ..rows[0].clone() });
    assert!(changed(another).contains("Extra"));
    let unknown = Edge { client: EdgeEnd { kind: "unknown".into(), ..EdgeEnd::default() }, ..edge(0, 0) };
    assert!(edges_differ(&both(), &[edge(5, 7), unknown]).contains("Extra"));
    let elsewhere = Transaction { source_port: 9, dest_port: 10, ..transaction(&both()[0]) };
    assert_eq!(changed(|rows| rows.push(elsewhere.clone())), "");
    let ends = ends::of(&both());
    let rows: Vec<Row> =
        both().iter().map(transaction).chain([elsewhere]).map(|transaction| Row::from(&transaction)).collect();
    let verdict = check(View::Feed, &ends, &rows, &Watch::of(&ends).and_all_of(5));
    assert_eq!(verdict.faults.len(), 1, "a namespace of our own is watched whole: {:?}", verdict.faults);
}

#[test]
fn a_swapped_direction_a_wrong_owner_and_a_wrong_ending_are_found() {
    assert!(changed(|rows| rows[0].direction = "incoming".into()).contains("Direction"));
    assert!(changed(|rows| rows[0].direction = "unknown".into()).contains("Undirected"));
    assert!(changed(|rows| rows[0].pid = 12).contains("Owner"));
    assert!(changed(|rows| rows[0].process = None).contains("Owner:"));
    assert!(changed(|rows| (rows[0].pid, rows[0].process) = (0, None)).contains("Ownerless"));
    assert!(changed(|rows| rows[0].close_reason = Some("reset".into())).contains("Ending"));
    let swapped = Edge { sent_bytes: 7, recv_bytes: 5, ..edge(0, 0) };
    assert!(edges_differ(&both(), &[swapped]).contains("Bytes"));
}

#[test]
fn another_namespace_is_another_connection() {
    assert!(changed(|rows| rows[0].net_ns = 6).contains("Missing"));
}

#[test]
fn one_tuple_used_twice_needs_a_row_for_each() {
    let truth = [truth(Role::Client, 5, 7), truth(Role::Client, 6, 7)];
    let rows: Vec<_> = truth.iter().rev().map(transaction).collect();
    assert_eq!(transactions_differ(&truth, &rows), "");
    assert!(transactions_differ(&truth, &rows[..1]).contains("Missing"));
    let doubled = [rows[0].clone(), rows[0].clone()];
    assert!(transactions_differ(&truth, &doubled).contains("Bytes"));
}

#[test]
fn the_kernels_word_decides_where_an_end_was_torn_off() {
    let mut torn = truth(Role::Client, 100, 7);
    torn.outcome = Outcome::Aborted;
    torn.kernel = Some(Word { sent: 60, recv: 9 });
    assert!(torn.is_sound());
    assert_eq!(torn.moved(), Word { sent: 60, recv: 9 });
    torn.kernel = Some(Word { sent: 101, recv: 9 });
    assert!(!torn.is_sound());
}

#[test]
fn a_translated_connection_belongs_to_its_backend() {
    let mut ends = both();
    ends[0].remote = "10.96.0.1:8080".parse().unwrap();
    assert_eq!(edges_differ(&ends, &[edge(5, 7)]), "");
    let to_the_service =
        Edge { server: EdgeEnd { address: Some("10.96.0.1".into()), ..EdgeEnd::default() }, port: 8080, ..edge(5, 7) };
    let differ = edges_differ(&ends, &[to_the_service]);
    assert!(differ.contains("Missing") && differ.contains("Extra"), "{differ}");
}

#[test]
fn a_known_difference_is_explained_and_a_stale_one_is_not_kept() {
    let ends = ends::of(&both());
    let mut rows: Vec<Row> = both().iter().map(transaction).map(|transaction| Row::from(&transaction)).collect();
    let known = |kinds: &[Kind]| Expectation {
        scenarios: vec!["one".into()],
        views: vec![View::Transactions],
        kinds: kinds.into(),
        found: Found::InEveryRun,
        reason: "for a test".into(),
    };
    let report = |rows: &[Row], expectation| Report {
        names: vec!["one".into()],
        ends: ends.clone(),
        transactions: check(View::Transactions, &ends, rows, &Watch::of(&ends)),
        expectations: vec![expectation],
        ..Report::default()
    };
    let exact = report(&rows, known(&[Kind::Bytes])).unexplained();
    assert!(exact.len() == 1 && exact[0].contains("expected to differ"), "{exact:?}");
    rows[0].moved.sent += 1;
    assert_eq!(report(&rows, known(&[Kind::Bytes])).unexplained(), Vec::<String>::new());
    let table = report(&rows, known(&[Kind::Bytes])).markdown();
    assert!(table.contains("- one (transactions): for a test"), "{table}");
    assert_eq!(report(&rows, known(&[Kind::Owner])).unexplained().len(), 2);
}

#[test]
fn a_difference_that_chance_decides_must_be_in_one_of_its_scenarios() {
    let ends = ends::of(&both());
    let mut rows: Vec<Row> = both().iter().map(transaction).map(|transaction| Row::from(&transaction)).collect();
    let report = |rows: &[Row]| Report {
        names: vec!["one".into(), "two".into()],
        ends: ends.clone(),
        transactions: check(View::Transactions, &ends, rows, &Watch::of(&ends)),
        expectations: vec![Expectation {
            scenarios: vec!["one".into(), "two".into()],
            views: vec![View::Feed, View::Transactions],
            kinds: vec![Kind::Ownerless],
            found: Found::InEveryRun,
            reason: "for a test".into(),
        }],
        ..Report::default()
    };
    assert_eq!(report(&rows).unexplained().len(), 1);
    (rows[0].pid, rows[0].process) = (0, None);
    assert_eq!(report(&rows).unexplained(), Vec::<String>::new());
}
