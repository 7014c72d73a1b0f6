//! A server that is away, refuses, forgets or asks again.

mod support;

use std::sync::Arc;
use support::agent::Agent;
use support::feed::{Answer, Feed};
use support::ingest::Ingest;
use support::until;
use tokio::sync::Notify;
use weir_wire::agent::refusal::Reason;

fn reply(sent: u64) -> Answer {
    let row = format!(
        r#"{{"type":0,"source":"10.0.0.1","dest":"10.0.0.2","sport":1,"dport":2,"cookie":5,"monotonic_sent_bytes":{sent}}}"#
    );
    Answer::Body(format!(r#"{{"run_id":"00000000000000aa","connections":[{row}],"cursor":1}}"#).into())
}

/// A feed whose only connection moves by 10 with every poll.
fn moving(folder: &std::path::Path) -> Feed {
    let mut sent = 0;
    Feed::serve(&folder.join("feed.sock"), move |target| {
        if !target.starts_with("/connections") {
            return Answer::Status(404);
        }
        sent += 10;
        reply(sent)
    })
}

fn contiguous(ingest: &Ingest) -> bool {
    let held = ingest.held();
    held.batches.keys().copied().eq(1..=held.batches.len() as u64)
}

#[test]
fn what_was_polled_while_the_server_was_away_comes_in_sequence() {
    let folder = tempfile::tempdir().unwrap();
    let _feed = moving(folder.path());
    let first = Ingest::start();
    let agent = Agent::start(folder.path(), &first.url, &["--interval", "10ms"]);
    until("some batches are there", || (first.held().batches.len() > 3).then_some(()));
    let (held, port) = (std::sync::Arc::clone(&first.held), first.port());
    drop(first);
    let before = agent.counter("weir_agent_batches_total");
    until("batches wait", || (agent.counter("weir_agent_batches_total") > before + 10).then_some(()));
    assert!(agent.counter("weir_agent_spool_waiting_batches") > 0);
    let second = Ingest::with(held, port);
    until("all have come", || (second.held().batches.len() as u64 > before + 10).then_some(()));
    assert!(agent.stop().success());
    assert!(contiguous(&second));
    let records = second.held().records();
    let last = records.last().unwrap();
    assert_eq!(records.iter().map(|record| record.sent_delta).sum::<u64>() + last.sent_before, last.sent_total);
}

#[test]
fn a_server_that_asks_again_gets_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let _feed = moving(folder.path());
    let first = Ingest::start();
    first.held().silent = true;
    let agent = Agent::start(folder.path(), &first.url, &["--interval", "10ms"]);
    until("a window of frames is there", || (first.held().batches.len() >= 16).then_some(()));
    let (held, port) = (std::sync::Arc::clone(&first.held), first.port());
    drop(first);
    {
        let mut held = held.lock().unwrap();
        held.silent = false;
        held.want = Some(1);
    }
    let second = Ingest::with(held, port);
    until("more have come", || (second.held().batches.len() > 20).then_some(()));
    assert!(agent.stop().success());
    assert!(contiguous(&second));
    assert!(second.held().changed.is_empty());
}

#[test]
fn a_refusal_is_counted_and_waited_out() {
    let folder = tempfile::tempdir().unwrap();
    let _feed = moving(folder.path());
    let ingest = Ingest::start();
    ingest.held().refuse = Some((Reason::Corrupt, 2));
    let agent = Agent::start(folder.path(), &ingest.url, &["--interval", "10ms"]);
    until("batches come", || (ingest.held().batches.len() > 3).then_some(()));
    assert_eq!(agent.counter("weir_agent_export_errors_total{reason=\"corrupt\"}"), 2);
    assert!(contiguous(&ingest));
    assert!(agent.stop().success());
}

#[test]
fn a_server_that_lost_what_it_had_is_told_of_the_hole() {
    let folder = tempfile::tempdir().unwrap();
    let _feed = moving(folder.path());
    let first = Ingest::start();
    let agent = Agent::start(folder.path(), &first.url, &["--interval", "10ms"]);
    until("some batches are there", || (first.held().batches.len() > 5).then_some(()));
    let (held, port) = (std::sync::Arc::clone(&first.held), first.port());
    drop(first);
    {
        let mut held = held.lock().unwrap();
        held.batches.retain(|sequence, _| *sequence <= 2);
        held.bytes.clear();
        held.want = Some(3);
    }
    let second = Ingest::with(held, port);
    until("more have come", || (second.held().batches.len() > 10).then_some(()));
    assert!(agent.stop().success());
    assert!(contiguous(&second));
    let held = second.held();
    let hole = held.batches[&3].tombstone.unwrap();
    assert_eq!((hole.first_sequence, hole.last_sequence), (3, 3));
    assert!(!held.batches[&3].covered);
}

#[test]
fn a_new_stream_begins_where_its_hello_said_whatever_is_dropped_before_the_welcome() {
    let folder = tempfile::tempdir().unwrap();
    let _feed = moving(folder.path());
    let ingest = Ingest::start();
    let welcome = Arc::new(Notify::new());
    ingest.held().late_welcome = Some(Arc::clone(&welcome));
    let agent = Agent::start(folder.path(), &ingest.url, &["--interval", "10ms", "--spool-max-age", "500ms"]);
    let oldest = until("the agent greets", || ingest.held().hellos.first().map(|hello| hello.oldest_sequence));
    until("what was the oldest is dropped", || {
        (agent.counter("weir_agent_losses_total{place=\"agent\",reason=\"spool_old\"}") > oldest + 1).then_some(())
    });
    welcome.notify_one();
    let first = until("batches come", || ingest.held().batches.keys().next().copied());
    assert_eq!(first, oldest, "the server waits for it");
    until("it is told what was dropped", || {
        ingest.held().batches.values().any(|batch| batch.gap_reason == "spool_old").then_some(())
    });
    assert_eq!(ingest.held().hellos.len(), 1, "the server refused it");
    agent.stop();
}

#[test]
fn a_full_spool_drops_the_oldest_and_tells_what_it_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let mut poll = 0u64;
    // Each poll has other connections, so that batches are large.
    let _feed = Feed::serve(&folder.path().join("feed.sock"), move |target| {
        if !target.starts_with("/connections") {
            return Answer::Status(404);
        }
        poll += 1;
        let mut random = poll;
        let rows: Vec<String> = (0..1000)
            .map(|number| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                format!(
                    r#"{{"type":0,"source":"10.0.0.1","dest":"10.0.0.2","sport":{},"dport":2,"cookie":{},"monotonic_sent_bytes":{},"close_epoch":{},"start_epoch":{}}}"#,
                    random >> 48, poll * 1000 + number, random >> 40, poll * 1000 + 1, random >> 20
                )
            })
            .collect();
        Answer::Body(
            format!(r#"{{"run_id":"00000000000000aa","connections":[{}],"cursor":{poll}}}"#, rows.join(",")).into(),
        )
    });
    let agent = Agent::start(folder.path(), "http://127.0.0.1:1", &["--interval", "10ms", "--spool-max-bytes", "1MiB"]);
    until("batches are dropped", || {
        (agent.counter("weir_agent_losses_total{place=\"agent\",reason=\"spool_full\"}") > 5).then_some(())
    });
    assert!(agent.stop().success());
    let ingest = Ingest::start();
    let agent = Agent::start(folder.path(), &ingest.url, &["--interval", "60s", "--spool-max-bytes", "1MiB"]);
    let tombstone = until("a tombstone comes", || ingest.held().batches.values().find_map(|batch| batch.tombstone));
    assert!(tombstone.records >= 1000 && tombstone.last_sequence >= tombstone.first_sequence);
    let hello = ingest.held().hellos[0].clone();
    assert!(hello.oldest_sequence > 1);
    assert!(agent.stop().success());
}

#[test]
fn a_second_agent_on_the_same_spool_is_refused_and_told_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let _feed = moving(folder.path());
    let ingest = Ingest::start();
    let agent = Agent::start(folder.path(), &ingest.url, &["--interval", "10ms"]);
    until("the first one works", || (!ingest.held().batches.is_empty()).then_some(()));
    let metrics = std::net::SocketAddr::from(([127, 0, 0, 1], support::agent::free_port()));
    let output =
        Agent::command(folder.path(), &ingest.url, metrics, &[]).stderr(std::process::Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("is in use by process ") && text.contains("--spool"), "{text}");
    assert!(agent.stop().success());
}

#[test]
fn a_listener_beyond_loopback_needs_a_token_or_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    let output = Agent::command(folder.path(), "http://127.0.0.1:1", metrics, &[])
        .stderr(std::process::Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--insecure"));
}

#[test]
fn the_token_travels_with_the_call() {
    let folder = tempfile::tempdir().unwrap();
    let _feed = moving(folder.path());
    let ingest = Ingest::start();
    let token = folder.path().join("token");
    std::fs::write(&token, "secret\n").unwrap();
    let agent =
        Agent::start(folder.path(), &ingest.url, &["--interval", "10ms", "--token-file", token.to_str().unwrap()]);
    let told = until("a call comes", || ingest.held().tokens.first().cloned());
    assert_eq!(told.as_deref(), Some("Bearer secret"));
    assert!(agent.stop().success());
}

#[test]
fn a_replaced_token_is_used_for_the_next_call() {
    let folder = tempfile::tempdir().unwrap();
    let _feed = moving(folder.path());
    let ingest = Ingest::start();
    let token = folder.path().join("token");
    std::fs::write(&token, "first").unwrap();
    let agent =
        Agent::start(folder.path(), &ingest.url, &["--interval", "10ms", "--token-file", token.to_str().unwrap()]);
    until("a call comes", || ingest.held().tokens.first().cloned());
    std::fs::write(&token, "second").unwrap();
    let (held, port) = (std::sync::Arc::clone(&ingest.held), ingest.port());
    drop(ingest);
    let ingest = Ingest::with(held, port);
    let told = until("another call comes", || ingest.held().tokens.get(1).cloned());
    assert_eq!(told.as_deref(), Some("Bearer second"));
    assert!(agent.stop().success());
}
