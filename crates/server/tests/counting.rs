//! Promise: every byte is counted once, whatever views, windows, restarts and repetitions it comes through.

#[cfg(test)]
mod support;

use serde_json::Value;
use support::*;
use weir_wire::agent::MetadataFact;

fn totals(items: &[Value]) -> (u64, u64, u64) {
    (sum(items, "sent_bytes"), sum(items, "recv_bytes"), sum(items, "connections"))
}

#[tokio::test(flavor = "multi_thread")]
async fn both_views_on_one_node_are_one_edge_that_counts_each_byte_once() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    let batch = agent.batch(both_views(1, 40000, 700, 30, START + POLL));
    session.deliver(&batch).await;
    server.applied(1).await;
    move_to(&server.clock, 11);
    let edges = server.items("/api/v1/edges").await;
    assert_eq!(edges.len(), 1, "{edges:#?}");
    let edge = &edges[0];
    assert_eq!((&edge["client"]["name"], &edge["server"]["name"]), (&"client".into(), &"server".into()));
    assert_eq!((&edge["client"]["kind"], &edge["port"]), (&"process".into(), &80.into()));
    assert_eq!(totals(&edges), (700, 30, 1));
    assert_eq!((&edge["rtt_us"], &edge["certainty"]), (&100.into(), &"known".into()));
    assert_eq!((&edge["client"]["address"], &edge["client"]["node"]), (&"127.0.0.1".into(), &"a".into()));
    let transactions = server.items("/api/v1/transactions").await;
    assert_eq!(transactions.len(), 2);
    assert!(transactions.iter().all(|row| row["paired"] == true));
    let client = transactions.iter().find(|row| row["direction"] == "outgoing").unwrap();
    assert_eq!(client["key"], "127.0.0.1-127.0.0.1-40000-80");
    assert_eq!((&client["monotonic_sent_bytes"], &client["process"]), (&700.into(), &"client".into()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_open_when_its_node_was_heard_of_last_is_not_open_for_ever() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    session.deliver(&agent.batch(both_views(1, 40000, 700, 30, START + POLL))).await;
    // Nothing moves in it, and its node is there.
    session.deliver(&agent.batch(Vec::new())).await;
    server.applied(2).await;
    move_to(&server.clock, 25);
    let idle = server.items(&format!("/api/v1/edges?since={}", at(15))).await;
    assert_eq!(totals(&idle), (0, 0, 1), "{idle:#?}");
    move_to(&server.clock, 1800);
    assert_eq!(server.items("/api/v1/edges?since=5m").await, Vec::<Value>::new());
    assert_eq!(totals(&server.items("/api/v1/edges?since=1h").await), (700, 30, 1));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_rows_segments_and_a_restart_give_the_same_edges() {
    let mut server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    for poll in 1..=4_u64 {
        let to = START + poll as i64 * POLL;
        let batch = agent.batch(both_views(poll * 10, 40000 + poll as u16, poll * 1000, poll, to));
        session.deliver(&batch).await;
        server.applied(poll).await;
        if poll == 2 {
            server.flushed().await;
        }
    }
    let path = "/api/v1/edges?since=1h";
    let before = totals(&server.items(path).await);
    assert_eq!(before, (10_000, 10, 4));
    // As a machine that loses its power now would start again.
    let copy = TestServer::start_in(server.copy_of_folder(), clock(), &[]).await;
    copy.clock.advance(3600 * SECOND as u64);
    assert_eq!(totals(&copy.items("/api/v1/edges?since=2h").await), before);
    copy.stop().await;
    drop(session);
    server = server.restart().await;
    assert_eq!(totals(&server.items(path).await), before);
    assert_eq!(server.store_counter("pending_rows").await, 0);
    assert_eq!(server.store_counter("history_rows").await, 8);
    // What a second restart replays is nothing, and adds nothing.
    server = server.restart().await;
    assert_eq!(totals(&server.items(path).await), before);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_follow_each_other_share_no_byte_and_lose_none() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    for poll in 1..=3_u64 {
        let mut records = both_views(1, 40000, 100, 10, START + poll as i64 * POLL);
        for record in &mut records {
            record.opened = poll == 1;
            record.sent_total = record.sent_delta * poll;
            record.recv_total = record.recv_delta * poll;
            record.start_unix_ns = START + SECOND;
        }
        session.deliver(&agent.batch(records)).await;
    }
    server.applied(3).await;
    move_to(&server.clock, 40);
    let mut whole = 0;
    for (since, until) in [(0, 10), (10, 20), (20, 25), (25, 31)] {
        let path = format!("/api/v1/edges?since={}&until={}", at(since), at(until));
        let items = server.items(&path).await;
        // The connection is open in each of them, whether anything moved or not.
        assert_eq!(sum(&items, "connections"), 1, "{since} {until}");
        whole += sum(&items, "sent_bytes");
    }
    assert_eq!(whole, 300);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_an_edge_of_no_bytes_and_what_lay_before_is_in_none() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    let mut records = both_views(1, 40000, 0, 0, START + POLL);
    for record in &mut records {
        (record.sent_total, record.recv_total) = (5_000, 6_000);
        (record.sent_before, record.recv_before) = (5_000, 6_000);
        record.start_unix_ns = 0;
    }
    session.deliver(&agent.batch(records)).await;
    // Its node is there all the while.
    agent.covered_to = START + 3590 * SECOND;
    session.deliver(&agent.batch(Vec::new())).await;
    server.applied(2).await;
    move_to(&server.clock, 3600);
    let edges = server.items("/api/v1/edges").await;
    assert_eq!(totals(&edges), (0, 0, 1));
    let transactions = server.items("/api/v1/transactions").await;
    assert!(transactions.iter().all(|row| row["bytes_before"] == 11_000), "{transactions:#?}");
    let connections = server.items("/api/v1/connections").await;
    assert_eq!((connections.len(), &connections[0]["sent_bytes"]), (2, &0.into()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_2019_feed_whose_ends_both_claim_to_be_the_client_is_counted_once() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    let to = START + POLL;
    let mut records = vec![
        view(1, "172.17.0.2:41515", "172.17.0.5:53", 2, (3079, 5849), to),
        view(2, "172.17.0.5:53", "172.17.0.2:41515", 2, (5849, 3079), to),
    ];
    for record in &mut records {
        record.direction_certainty = 1;
    }
    session.deliver(&agent.batch(records)).await;
    server.applied(1).await;
    let edges = server.items("/api/v1/edges").await;
    assert_eq!(totals(&edges), (3079, 5849, 1), "{edges:#?}");
    assert_eq!(edges[0]["client"]["address"], "172.17.0.2");
    assert_eq!(edges[0]["certainty"], "inferred");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_view_without_a_client_counts_unless_the_clients_node_should_have_told() {
    let server = TestServer::start().await;
    let mut here = TestAgent::new("a", 1);
    let mut there = TestAgent::new("b", 2);
    let mut session = here.connect(&server).await;
    let mut other_session = there.connect(&server).await;
    let to = START + POLL;
    let mut batch = here.batch(vec![
        view(1, "10.0.0.1:80", "192.0.2.9:5000", 1, (10, 20), to),
        view(2, "10.0.0.1:80", "10.0.0.2:6000", 1, (100, 200), to),
        view(3, "10.0.0.1:80", "10.244.0.7:7000", 1, (1000, 2000), to),
    ]);
    batch.metadata.push(node_fact("a", &["10.0.0.1"]));
    session.deliver(&batch).await;
    server.applied(1).await;
    move_to(&server.clock, 11);
    // Node b has told nothing yet: everything counts from here.
    assert_eq!(totals(&server.items("/api/v1/edges").await), (2220, 1110, 3));
    let mut batch = there.batch(vec![view(9, "10.0.0.2:6000", "10.0.0.1:80", 2, (201, 99), to)]);
    batch.metadata.push(node_fact("b", &["10.0.0.2"]));
    // A pod's address is that pod's alone.
    batch.metadata.push(MetadataFact { kind: "pod".into(), id: "uid".into(), ..node_fact("web", &["10.244.0.7"]) });
    other_session.deliver(&batch).await;
    server.applied(2).await;
    // Its view of one connection counts instead; the other one it should have told of, and did not.
    let (_, body) = server.get("/api/v1/edges").await;
    let edges = body["items"].as_array().unwrap();
    assert_eq!(totals(edges), (221, 109, 2), "{body:#}");
    let loss = &body["completeness"]["losses"][0];
    assert_eq!((&loss["reason"], &loss["bytes"], &loss["connections"]), (&"unpaired".into(), &3000.into(), &1.into()));
    let external = edges.iter().find(|edge| edge["client"]["kind"] == "external").unwrap();
    assert_eq!(external["client"]["name"], "192.0.2.9");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_connection_whose_client_row_lies_in_another_span_is_not_counted_twice() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    let mut records = both_views(1, 40000, 500, 0, START + POLL);
    for record in &mut records {
        record.closed_unix_ns = 0;
    }
    // The client sent and closed in the first window; the server read it all, much later, in the fourth.
    records[0].closed_unix_ns = START + 9 * SECOND;
    records[0].close_reason = "closed".into();
    let mut late = records[1].clone();
    (records[1].recv_delta, records[1].recv_total) = (0, 0);
    session.deliver(&agent.batch(records)).await;
    for _ in 0..2 {
        session.deliver(&agent.batch(Vec::new())).await;
    }
    late.opened = false;
    (late.from_unix_ns, late.to_unix_ns) = (START + 3 * POLL, START + 4 * POLL);
    late.closed_unix_ns = START + 39 * SECOND;
    session.deliver(&agent.batch(vec![late])).await;
    server.applied(4).await;
    move_to(&server.clock, 41);
    let late = server.items(&format!("/api/v1/edges?since={}", at(30))).await;
    assert_eq!(sum(&late, "sent_bytes"), 0, "{late:#?}");
    assert_eq!(totals(&server.items(&format!("/api/v1/edges?since={}", at(0))).await), (500, 0, 1));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_counted_by_edge() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    let mut refused = view(1, "10.0.0.1:5000", "192.0.2.1:81", 2, (0, 0), START + POLL);
    refused.closed_unix_ns = START + 6 * SECOND;
    refused.close_reason = "refused".into();
    refused.error = 111;
    session.deliver(&agent.batch(vec![refused])).await;
    server.applied(1).await;
    let edges = server.items("/api/v1/edges").await;
    assert_eq!((&edges[0]["failures"], &edges[0]["connections"]), (&1.into(), &1.into()));
    let transactions = server.items("/api/v1/transactions?state=closed").await;
    assert_eq!((&transactions[0]["close_reason"], &transactions[0]["errno"]), (&"refused".into(), &111.into()));
    assert_eq!(transactions[0]["state"], "closed");
    assert!(server.items("/api/v1/transactions?state=open").await.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_left_the_state_still_counts_once_from_history() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    let mut records = both_views(1, 40000, 700, 30, START + POLL);
    for record in &mut records {
        record.closed_unix_ns = START + 9 * SECOND;
        record.close_reason = "closed".into();
    }
    session.deliver(&agent.batch(records)).await;
    server.applied(1).await;
    server.flushed().await;
    move_to(&server.clock, 3 * 3600);
    server.until("/api/v1/transactions", |body| body["items"].as_array().unwrap().is_empty()).await;
    let edges = server.items("/api/v1/edges?since=4h").await;
    assert_eq!(totals(&edges), (700, 30, 1), "{edges:#?}");
    assert_eq!((&edges[0]["client"]["name"], &edges[0]["server"]["name"]), (&"client".into(), &"server".into()));
    server.stop().await;
}
