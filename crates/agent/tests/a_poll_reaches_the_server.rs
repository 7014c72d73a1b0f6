//! The sample of the project's first page, through the whole agent.

mod support;

use support::agent::Agent;
use support::feed::{Answer, Feed};
use support::ingest::Ingest;
use support::until;
use weir_wire::agent::record::InstanceKind;

const SAMPLE: &str = include_str!("data/sample.json");

#[test]
fn what_was_counted_before_the_first_sight_is_told_apart_and_then_deltas_come() {
    let folder = tempfile::tempdir().unwrap();
    let feed = Feed::constant(&folder.path().join("feed.sock"), Answer::Body(SAMPLE.into()));
    let ingest = Ingest::start();
    let agent = Agent::start(folder.path(), &ingest.url, &["--interval", "20ms"]);
    let first = until("the first record is there", || ingest.held().records().first().cloned());
    assert_eq!(first.instance_kind(), InstanceKind::Tuple);
    assert_eq!(first.local.as_ref().unwrap().end(), Some("172.17.0.2:41515".parse().unwrap()));
    assert_eq!(first.remote.as_ref().unwrap().end(), Some("172.17.0.5:53".parse().unwrap()));
    assert_eq!((first.protocol, first.direction, first.direction_certainty), (1, 2, 1));
    assert_eq!((first.sent_total, first.recv_total), (3079, 5849));
    assert_eq!((first.sent_before, first.recv_before), (3079, 5849));
    assert_eq!((first.sent_delta, first.recv_delta, first.opened), (0, 0, true));
    assert_eq!(first.from_unix_ns, first.to_unix_ns, "nothing of it lies in a window");

    feed.behave(Answer::Body(SAMPLE.replace("3079", "4000").replace("5849", "6000").into()));
    let second = until("the totals have risen", || ingest.held().records().get(1).cloned());
    assert_eq!((second.sent_delta, second.recv_delta), (921, 151));
    assert_eq!((second.sent_total, second.sent_before, second.opened), (4000, 3079, false));
    assert!(second.from_unix_ns >= first.to_unix_ns && second.to_unix_ns > second.from_unix_ns);

    let batches = ingest.held().batches.clone();
    let first = &batches[&1];
    assert_eq!((first.covers_from_unix_ns, first.covered, first.node.as_str()), (0, true, "test-node"));
    let source = first.source.as_ref().unwrap();
    assert_eq!((source.kind.as_str(), source.state.as_str(), source.rows), ("legacy", "ok", 1));
    assert!(first.metadata.iter().any(|fact| fact.kind == "node" && fact.id == "test-node"));
    let own = format!("{}@", std::process::id());
    assert!(first.metadata.iter().any(|fact| fact.kind == "process" && fact.id.starts_with(&own)));
    for (one, next) in batches.values().zip(batches.values().skip(1)) {
        assert_eq!(one.covers_to_unix_ns, next.covers_from_unix_ns, "the spans leave no hole");
    }
    assert!(agent.page("/readyz").starts_with("HTTP/1.1 200"));
    assert!(agent.counter("weir_agent_records_total") >= 2);
    assert!(agent.stop().success());
    assert!(ingest.held().changed.is_empty());
}

#[test]
fn a_stopped_agent_leaves_nothing_behind_that_the_server_could_have_had() {
    let folder = tempfile::tempdir().unwrap();
    let feed = Feed::constant(&folder.path().join("feed.sock"), Answer::Body(SAMPLE.into()));
    let ingest = Ingest::start();
    let agent = Agent::start(folder.path(), &ingest.url, &["--interval", "60s"]);
    until("the first record is there", || ingest.held().records().first().cloned());
    feed.behave(Answer::Body(SAMPLE.replace("3079", "4000").into()));
    assert!(agent.stop().success());
    let records = ingest.held().records();
    assert_eq!(records.last().unwrap().sent_delta, 921, "the last poll comes at the end");
}
