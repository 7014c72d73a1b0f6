//! Promise: settling history changes no answer, and what it says of each row is what the answers count.

#[cfg(test)]
mod support;

use std::sync::Arc;
use support::*;
use weir_server::care::{self, Exported, Form, UnixNanos};

fn without_time(mut edges: Vec<serde_json::Value>) -> Vec<serde_json::Value> {
    edges.sort_by_key(ToString::to_string);
    edges
}

#[tokio::test(flavor = "multi_thread")]
async fn settling_changes_no_answer_and_counts_each_byte_once() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    for poll in 1..=6_u64 {
        let at = START + POLL * poll as i64;
        let mut records = both_views(1, 40000, 100 * poll, 10 * poll, at);
        // A server's view alone, within what its client's node (the same one) covered, and one that nobody covered.
        records.push(view(9, "127.0.0.1:80", "127.0.0.1:40009", 1, (7 * poll, 7 * poll), at));
        records.push(view(11, "10.0.0.1:80", "198.51.100.7:40011", 1, (5 * poll, 3 * poll), at));
        session.deliver(&agent.batch(records)).await;
        server.applied(poll).await;
    }
    let before = without_time(server.items("/api/v1/edges").await);
    assert!(before.len() >= 2, "{before:?}");
    let (folder, clock) = server.stop().await;
    let data = folder.path().to_path_buf();
    let total = care::compact(&data, None, None).unwrap();
    assert!(total.steps > 0 && total.rows_in == 24, "{total:?}");
    assert_eq!(care::compact(&data, None, None).unwrap().steps, 0, "again: nothing is due");
    assert_eq!(care::check(&data).unwrap().findings, []);

    let mut lines = Vec::new();
    let all = (UnixNanos(i64::MIN), UnixNanos(i64::MAX));
    care::export(&data, Exported::Rows, all.0, all.1, Form::Jsonl, &mut lines).unwrap();
    let counted: u64 = String::from_utf8(lines)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|row| row["counted"] == true)
        .map(|row| row["sent_bytes"].as_u64().unwrap() + row["recv_bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(counted, sum(&before, "sent_bytes") + sum(&before, "recv_bytes"));

    let server = TestServer::start_in(Arc::clone(&folder), clock, &[]).await;
    assert_eq!(without_time(server.items("/api/v1/edges").await), before);
    server.stop().await;
}
