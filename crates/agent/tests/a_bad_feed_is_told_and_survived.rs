//! Whatever the feed does, the agent lives, says which state the feed is in, stays small, and picks it up again.

mod support;

use support::agent::Agent;
use support::feed::{Answer, Feed};
use support::ingest::Ingest;
use support::until;

const SAMPLE: &str = include_str!("data/sample.json");
const PUBLISHED: &str = include_str!("data/sample-as-published.txt");

#[test]
fn every_state_of_a_feed_is_counted_and_told_and_the_feed_is_picked_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("feed.sock");
    let ingest = Ingest::start();
    let mut agent = Agent::start(folder.path(), &ingest.url, &["--interval", "20ms", "--max-body", "16MiB"]);
    let seen = |state: &str, agent: &Agent| {
        until(&format!("{state} is counted"), || {
            (agent.counter(&format!("weir_agent_polls_total{{state=\"{state}\"}}")) > 0).then_some(())
        });
        let batch = until(&format!("{state} is told"), || {
            let held = ingest.held();
            held.batches
                .values()
                .find(|batch| batch.source.as_ref().is_some_and(|source| source.state == state))
                .cloned()
        });
        assert_eq!((batch.covered, batch.gap_reason.as_str()), (false, state));
        assert!(batch.records.is_empty());
        batch.source.unwrap().detail
    };
    assert!(seen("missing", &agent).contains("nobody listens on"));
    let feed = Feed::constant(&socket, Answer::Status(500));
    assert!(seen("http_error", &agent).contains("answered 500"));
    feed.behave(Answer::Body(PUBLISHED.into()));
    let detail = seen("bad_json", &agent);
    assert!(detail.contains("at byte "), "{detail}");
    feed.behave(Answer::Half(SAMPLE.into()));
    seen("truncated", &agent);
    feed.behave(Answer::Endless(200 << 20));
    assert!(seen("too_large", &agent).contains("longer than 16777216 bytes"));
    feed.behave(Answer::Never);
    assert!(seen("timeout", &agent).contains("did not answer within 5s"));
    assert!(ingest.held().records().is_empty(), "no row of a reply that was not whole counts");

    feed.behave(Answer::Body(SAMPLE.into()));
    let record = until("the feed is picked up again", || ingest.held().records().first().cloned());
    assert_eq!((record.sent_total, record.sent_delta), (3079, 0));
    assert!(agent.lives());
    let peak = agent.peak_memory();
    assert!(peak < 150 << 20, "{peak} bytes at most");
    assert!(agent.stop().success());
}

#[test]
fn a_gap_is_told_and_tcp_totals_bridge_it() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("feed.sock");
    let tcp = |sent: u64| {
        let row = format!(
            r#"{{"type":0,"source":"10.0.0.1","dest":"10.0.0.2","sport":1,"dport":2,"cookie":5,"monotonic_sent_bytes":{sent}}}"#
        );
        Answer::Body(format!(r#"{{"run_id":"00000000000000aa","connections":[{row}],"cursor":1}}"#).into())
    };
    let feed = Feed::constant(&socket, tcp(100));
    let ingest = Ingest::start();
    let agent = Agent::start(folder.path(), &ingest.url, &["--interval", "20ms"]);
    let first = until("the first record is there", || ingest.held().records().first().cloned());
    feed.behave(Answer::Status(503));
    until("the gap is told", || ingest.held().batches.values().find(|batch| !batch.covered).cloned());
    feed.behave(tcp(250));
    let second = until("the second record is there", || ingest.held().records().get(1).cloned());
    assert_eq!((second.sent_delta, second.generation), (150, 0));
    let held = ingest.held();
    let last_good =
        held.batches.values().filter(|batch| batch.covered && batch.covers_to_unix_ns < second.to_unix_ns).last();
    assert_eq!(second.from_unix_ns, last_good.unwrap().covers_to_unix_ns, "the record spans the gap");
    assert!(second.from_unix_ns >= first.to_unix_ns);
    let bridging = held.batches.values().find(|batch| batch.covers_to_unix_ns == second.to_unix_ns).unwrap();
    assert_eq!(bridging.covers_from_unix_ns, second.from_unix_ns, "the same run went on counting: nothing is missing");
    drop(held);
    assert!(agent.stop().success());
}

#[test]
fn a_tracer_that_began_anew_leaves_its_gap_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("feed.sock");
    let reply = |run: u64, sent: u64| {
        let row = format!(
            r#"{{"type":1,"source":"10.0.0.1","dest":"10.0.0.2","sport":1,"dport":2,"cookie":5,"monotonic_sent_bytes":{sent}}}"#
        );
        Answer::Body(
            format!(r#"{{"run_id":"{run:016x}","connections":[{row}],"cursor":1,"losses":{{"ring_full":{run}}}}}"#)
                .into(),
        )
    };
    let feed = Feed::constant(&socket, reply(3, 100));
    let ingest = Ingest::start();
    let agent = Agent::start(folder.path(), &ingest.url, &["--interval", "20ms"]);
    until("the first record is there", || ingest.held().records().first().cloned());
    feed.behave(Answer::Status(503));
    let gap = until("the gap is told", || ingest.held().batches.values().find(|batch| !batch.covered).cloned());
    feed.behave(reply(4, 30));
    let second = until("the second record is there", || ingest.held().records().get(1).cloned());
    assert_eq!((second.generation_run, second.generation, second.sent_delta), (4, 1, 30));
    let held = ingest.held();
    let batch = held.batches.values().find(|batch| !batch.records.is_empty() && batch.sequence > gap.sequence).unwrap();
    let lost: Vec<(&str, &str, u64)> =
        batch.losses.iter().map(|loss| (loss.place.as_str(), loss.reason.as_str(), loss.count)).collect();
    assert_eq!(lost, [("tracer", "ring_full", 4), ("tracer", "tracer_restarted", 1)]);
    assert!(batch.covers_from_unix_ns >= gap.covers_to_unix_ns, "the gap stays one");
    drop(held);
    assert!(agent.stop().success());
}
