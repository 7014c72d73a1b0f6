//! Promise: the answer is a function of the set of batches received; order between streams, repetition, flushes and
//! restarts change nothing (invariant 4).

#[cfg(test)]
mod support;

use serde_json::Value;
use support::*;
use weir_wire::agent::Batch;

/// What two nodes that talk to each other and within themselves tell in four polls.
fn batches() -> Vec<Batch> {
    let mut agents = [TestAgent::new("a", 1), TestAgent::new("b", 2)];
    let mut batches = Vec::new();
    for poll in 1..=4_u64 {
        let to = START + poll as i64 * POLL;
        let (sent, recv) = (poll * 100, poll * 7);
        let mut between = [
            view(100, "10.0.0.1:5000", "10.0.0.2:80", 2, (sent, recv), to),
            view(200, "10.0.0.2:80", "10.0.0.1:5000", 1, (recv, sent), to),
        ];
        for record in &mut between {
            record.opened = poll == 1;
            record.start_unix_ns = START + SECOND;
            record.sent_total = record.sent_delta * (poll + 1) / 2;
            record.recv_total = record.recv_delta * (poll + 1) / 2;
            if poll == 4 {
                record.closed_unix_ns = to - SECOND;
                record.close_reason = "closed".into();
            }
        }
        for (index, (agent, record)) in agents.iter_mut().zip(between).enumerate() {
            let mut records = vec![record];
            records.extend(both_views(1000 + poll * 10, 41000 + poll as u16, 10 + index as u64, 3, to));
            // One end's view is missing in one poll each: the pairing has to hold all the same.
            if poll as usize == index + 2 {
                records.remove(0);
            }
            let mut batch = agent.batch(records);
            let own = format!("10.0.0.{}", index + 1);
            batch.metadata.push(node_fact(&agent.node, &[&own]));
            batches.push(batch);
        }
    }
    batches
}

async fn answers(server: &TestServer) -> Vec<Value> {
    let mut answers = Vec::new();
    for path in [
        "edges?since=1h",
        "edges?since=1h&by=node",
        "edges?since=1h&by=address",
        "connections?since=1h",
        "transactions",
        "metadata",
    ] {
        answers.push(server.get(&format!("/api/v1/{path}")).await.1);
    }
    answers
}

/// Delivers the batches in this order (within a stream the protocol allows only one), with a restart or a flush in
/// between and some sent twice.
async fn play(order: &[usize], repeat: bool, flush_at: Option<usize>, restart_at: Option<usize>) -> Vec<Value> {
    let batches = batches();
    let mut server = TestServer::start().await;
    let mut delivered = 0;
    for (step, &index) in order.iter().enumerate() {
        let batch = &batches[index];
        let number = batch.stream_id[0];
        let mut agent = TestAgent::new(&batch.node, number);
        agent.sequence = batch.sequence - 1;
        let mut session = agent.connect(&server).await;
        session.deliver(batch).await;
        delivered += 1;
        if repeat {
            session.deliver(batch).await;
        }
        drop(session);
        server.applied(delivered).await;
        if flush_at == Some(step) {
            server.flushed().await;
        }
        if restart_at == Some(step) {
            server = server.restart().await;
        }
    }
    move_to(&server.clock, 100);
    let answers = answers(&server).await;
    server.stop().await;
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn order_repetition_flushes_and_restarts_change_no_answer() {
    let expected = play(&[0, 1, 2, 3, 4, 5, 6, 7], false, None, None).await;
    let edges = expected[2]["items"].as_array().unwrap();
    let between = edges.iter().find(|edge| edge["client"]["address"] == "10.0.0.1").unwrap();
    // From a's own view; the poll whose record never came is missing, not taken from b's view.
    assert_eq!(between["sent_bytes"], 100 + 300 + 400, "{between:#}");
    for (order, repeat, flush_at, restart_at) in [
        ([1, 0, 3, 2, 5, 4, 7, 6], false, None, None),
        ([0, 2, 4, 6, 1, 3, 5, 7], true, None, None),
        ([1, 3, 5, 7, 0, 2, 4, 6], false, Some(4), None),
        ([0, 1, 2, 3, 4, 5, 6, 7], true, Some(2), Some(5)),
        ([1, 0, 2, 4, 3, 6, 5, 7], false, None, Some(3)),
    ] {
        let found = play(&order, repeat, flush_at, restart_at).await;
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found["items"], expected["items"], "{order:?}");
            assert_eq!(found["completeness"]["losses"], expected["completeness"]["losses"], "{order:?}");
        }
    }
}
