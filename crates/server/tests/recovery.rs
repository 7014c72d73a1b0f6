//! Promise: a server that was stopped between any two of its steps comes back with everything that it acknowledged, once.

#[cfg(test)]
mod support;

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use support::*;
use weir_model::UnixNanos;
use weir_store::embedded::log::{EntryKind, Log, NewEntry};
use weir_store::embedded::{Embedded, Folder};
use weir_store::{HistoryStore as _, Lsn, StreamId};
use weir_wire::agent::Batch;

/// Appends batches as the writer does, without a server: each of them was acknowledged, and nothing else happened.
#[cfg(test)]
fn append(folder: &Path, batches: &[&Batch]) {
    let folder = Folder::open(folder).unwrap();
    let (mut log, _) = Log::open(&folder.log(), Lsn(0), &mut |_| Ok(())).unwrap();
    let entries: Vec<NewEntry> = batches
        .iter()
        .map(|batch| NewEntry {
            kind: EntryKind::Batch,
            encoding: 1,
            stream: StreamId(batch.stream_id.as_ref().try_into().unwrap()),
            sequence: batch.sequence,
            received: UnixNanos(START),
            payload: batch.to_bytes().unwrap().into(),
        })
        .collect();
    log.append(&entries).unwrap();
}

async fn sent(server: &TestServer) -> u64 {
    sum(&server.items("/api/v1/edges?since=1h").await, "sent_bytes")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_log_and_was_never_applied_is_applied_at_start() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut agent = TestAgent::new("a", 1);
    let first = agent.batch(both_views(1, 40000, 100, 0, START + POLL));
    let second = agent.batch(both_views(3, 40001, 50, 0, START + 2 * POLL));
    append(folder.path(), &[&first, &second]);
    let server = TestServer::start_in(folder, clock(), &[]).await;
    assert_eq!(sent(&server).await, 150);
    let mut session = agent.connect(&server).await;
    assert_eq!(session.welcome.as_ref().unwrap().next_sequence, 3);
    session.deliver(&agent.batch(both_views(5, 40002, 1, 0, START + 3 * POLL))).await;
    server.applied(3).await;
    assert_eq!(sent(&server).await, 151);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_in_the_log_twice_counts_once() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut agent = TestAgent::new("a", 1);
    let first = agent.batch(both_views(1, 40000, 100, 0, START + POLL));
    append(folder.path(), &[&first, &first]);
    let server = TestServer::start_in(folder, clock(), &[]).await;
    assert_eq!(sent(&server).await, 100);
    server.applied(1).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_is_cut_counted_and_costs_nothing_that_was_acknowledged() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut agent = TestAgent::new("a", 1);
    append(folder.path(), &[&agent.batch(both_views(1, 40000, 100, 0, START + POLL))]);
    let file = folder.path().join("log/00000000000000000001.log");
    let mut log = std::fs::OpenOptions::new().append(true).open(file).unwrap();
    log.write_all(&[0x55; 77]).unwrap();
    drop(log);
    let server = TestServer::start_in(folder, clock(), &[]).await;
    assert_eq!(sent(&server).await, 100);
    let status = server.items("/api/v1/status").await;
    assert_eq!(status[0]["counters"]["log_cut_bytes"], 77);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_before_the_log_was_cut_behind_its_segment_counts_nothing_twice() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    session.deliver(&agent.batch(both_views(1, 40000, 100, 0, START + POLL))).await;
    server.applied(1).await;
    let uncut = std::fs::read(server.folder.path().join("log/00000000000000000001.log")).unwrap();
    drop(session);
    let (folder, clock) = server.stop().await;
    // The segment and the watermark are there, and so is the log as it was before.
    std::fs::write(folder.path().join("log/00000000000000000001.log"), uncut).unwrap();
    let server = TestServer::start_in(folder, clock, &[]).await;
    assert_eq!(sent(&server).await, 100);
    assert_eq!((server.store_counter("pending_rows").await, server.store_counter("history_rows").await), (0, 2));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_before_the_catalogue_named_the_segment_writes_it_again() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut agent = TestAgent::new("a", 1);
    append(folder.path(), &[&agent.batch(both_views(1, 40000, 100, 0, START + POLL))]);
    let leftover = folder.path().join("segments/00000000000000000001-00000000000000000001.parquet");
    std::fs::write(&leftover, "written, and not yet named").unwrap();
    let server = TestServer::start_in(folder, clock(), &[]).await;
    assert_eq!(sent(&server).await, 100);
    let (folder, _) = server.stop().await;
    let store = Embedded::open(folder.path()).unwrap();
    let mut rows = 0;
    store.scan(UnixNanos(i64::MIN), UnixNanos(i64::MAX), Lsn(9), &mut |_| rows += 1).unwrap();
    assert_eq!((rows, store.summary().unwrap().watermark), (2, Lsn(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_cannot_be_written_stops_nobody_and_is_written_once_it_can_be() {
    let server = TestServer::start().await;
    let (segments, aside) = (server.folder.path().join("segments"), server.folder.path().join("aside"));
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    session.deliver(&agent.batch(both_views(1, 40000, 100, 0, START + POLL))).await;
    server.applied(1).await;
    // A file where the folder was: not even root writes a segment into it.
    std::fs::rename(&segments, &aside).unwrap();
    std::fs::write(&segments, "").unwrap();
    // A window passes with every look, as often as it takes.
    let windows_until = |wanted: fn(&serde_json::Value) -> bool| {
        let clock = &server.clock;
        server.until("/api/v1/status", move |status| {
            clock.advance(POLL as u64);
            wanted(status)
        })
    };
    windows_until(|status| counter(status, "flush_failures") >= 1).await;
    session.deliver(&agent.batch(both_views(3, 40001, 50, 0, START + 2 * POLL))).await;
    server.applied(2).await;
    assert_eq!(sent(&server).await, 150, "what waits is answered from");
    windows_until(|status| counter(status, "flush_failures") >= 2).await;
    std::fs::remove_file(&segments).unwrap();
    std::fs::rename(&aside, &segments).unwrap();
    windows_until(|status| counter(status, "pending_rows") == 0).await;
    assert_eq!(server.store_counter("history_rows").await, 4);
    assert_eq!(sent(&server).await, 150);
    let server = server.restart().await;
    assert_eq!(sent(&server).await, 150, "from the segment alone");
    server.stop().await;
}
