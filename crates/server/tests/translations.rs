//! Promise: an edge through nodes that translate is client to backend, counted once; a client that is not found behind a
//! node is `unknown`, never the node.

#[cfg(test)]
mod support;

use serde_json::Value;
use support::*;
use weir_wire::agent::{Batch, Translation};

const TO: i64 = START + POLL;
const CLIENT: &str = "10.244.1.7:40000";
const ASKED: &str = "10.0.0.2:30080";
const MASQUERADED: &str = "10.0.0.2:61000";
const BACKEND: &str = "10.244.3.8:8080";

fn translation(original: (&str, &str), translated: (&str, &str)) -> Translation {
    Translation {
        protocol: 0,
        original_source: Some(address(original.0)),
        original_dest: Some(address(original.1)),
        translated_source: Some(address(translated.0)),
        translated_dest: Some(address(translated.1)),
        seen_unix_ns: TO - 5 * SECOND,
        began: true,
    }
}

/// A pod on node a asks for node b's port; b sends it on, in its own name, to a pod on node c.
fn node_port() -> [Batch; 3] {
    let [mut a, mut b, mut c] = [("a", 1), ("b", 2), ("c", 3)].map(|(node, number)| TestAgent::new(node, number));
    let mut client = a.batch(vec![view(1, CLIENT, ASKED, 2, (700, 30), TO)]);
    let mut middle = b.batch(Vec::new());
    let mut server = c.batch(vec![view(2, BACKEND, MASQUERADED, 1, (30, 700), TO)]);
    for (batch, address) in [(&mut client, "10.0.0.1"), (&mut middle, "10.0.0.2"), (&mut server, "10.0.0.3")] {
        let fact = node_fact(&batch.node, &[address]);
        batch.metadata.push(fact);
    }
    middle.translations.push(translation((CLIENT, ASKED), (MASQUERADED, BACKEND)));
    [client, middle, server]
}

async fn deliver(server: &TestServer, batches: &[&Batch]) {
    for (count, batch) in (1..).zip(batches) {
        let number = batch.stream_id[0];
        let mut session = TestAgent::new(&batch.node, number).connect(server).await;
        session.deliver(batch).await;
        server.applied(count).await;
    }
    move_to(&server.clock, 11);
}

fn ends(edge: &Value) -> (&str, &str, u64) {
    let name = |end: &str| edge[end]["name"].as_str().unwrap_or("");
    (name("client"), name("server"), edge["port"].as_u64().unwrap_or(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_behind_a_node_is_found_in_any_order_and_after_a_restart() {
    let batches = node_port();
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        let mut server = TestServer::start().await;
        deliver(&server, &order.map(|index| &batches[index])).await;
        for restarted in [false, true] {
            let edges = server.items("/api/v1/edges?by=address&since=1h").await;
            assert_eq!(edges.len(), 1, "{order:?} {restarted}: {edges:#?}");
            assert_eq!(ends(&edges[0]), ("10.244.1.7", "10.244.3.8", 8080));
            assert_eq!((&edges[0]["sent_bytes"], &edges[0]["recv_bytes"]), (&700.into(), &30.into()));
            assert_eq!((&edges[0]["connections"], &edges[0]["certainty"]), (&1.into(), &"known".into()));
            let (_, body) = server.get("/api/v1/edges?since=1h").await;
            assert!(body["completeness"]["losses"].as_array().unwrap().is_empty(), "{body:#}");
            let rows = server.items("/api/v1/transactions").await;
            let client = rows.iter().find(|row| row["direction"] == "outgoing").unwrap();
            assert_eq!(
                (&client["dest"], &client["dest_port"]),
                (&"10.0.0.2".into(), &30080.into()),
                "what it asked for"
            );
            assert_eq!(
                (&client["translated_source"], &client["translated_source_port"]),
                (&"10.0.0.2".into(), &61000.into())
            );
            assert_eq!(
                (&client["translated_dest"], &client["translated_dest_port"]),
                (&"10.244.3.8".into(), &8080.into())
            );
            assert!(rows.iter().all(|row| row["paired"] == true));
            if !restarted {
                server = server.restart().await;
                move_to(&server.clock, 12);
            }
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_not_found_is_unknown_behind_the_node_and_never_the_node() {
    let [_, mut middle, backend] = node_port();
    middle.translations.clear();
    let server = TestServer::start().await;
    deliver(&server, &[&middle, &backend]).await;
    for by in ["workload", "node", "process"] {
        let edges = server.items(&format!("/api/v1/edges?by={by}")).await;
        assert_eq!(edges.len(), 1, "{edges:#?}");
        let client = &edges[0]["client"];
        assert_eq!((&client["kind"], &client["name"]), (&"unknown".into(), &"behind b".into()), "{by}");
        assert_eq!((&client["node"], &edges[0]["certainty"]), (&Value::Null, &"unknown".into()));
        assert_eq!((&edges[0]["sent_bytes"], &edges[0]["recv_bytes"]), (&700.into(), &30.into()));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_outside_is_known_by_its_own_address() {
    let [_, mut middle, backend] = node_port();
    middle.translations = vec![translation(("192.0.2.9:5000", ASKED), (MASQUERADED, BACKEND))];
    let server = TestServer::start().await;
    deliver(&server, &[&backend, &middle]).await;
    let edges = server.items("/api/v1/edges").await;
    assert_eq!(edges.len(), 1, "{edges:#?}");
    assert_eq!((&edges[0]["client"]["kind"], &edges[0]["client"]["name"]), (&"external".into(), &"192.0.2.9".into()));
    assert_eq!((&edges[0]["client"]["address"], &edges[0]["sent_bytes"]), (&"192.0.2.9".into(), &700.into()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_through_a_service_is_client_to_backend_counted_once() {
    let server = TestServer::start().await;
    let [mut a, mut c] = [("a", 1), ("c", 3)].map(|(node, number)| TestAgent::new(node, number));
    // The node of the client translates; the backend sees the client itself.
    let mut asks = view(1, CLIENT, "10.96.0.9:80", 2, (700, 30), TO);
    asks.translated_local = Some(address(CLIENT));
    asks.translated_remote = Some(address(BACKEND));
    let client = a.batch(vec![asks]);
    deliver(&server, &[&client]).await;
    // As long as the backend's node is silent, its address is all there is.
    let edges = server.items("/api/v1/edges?by=address").await;
    assert_eq!(edges.iter().map(ends).collect::<Vec<_>>(), [("10.244.1.7", "10.244.3.8", 8080)]);
    let backend = c.batch(vec![view(2, BACKEND, CLIENT, 1, (30, 700), TO)]);
    let mut session = c.connect(&server).await;
    session.deliver(&backend).await;
    server.applied(2).await;
    let edges = server.items("/api/v1/edges?by=address").await;
    assert_eq!(edges.iter().map(ends).collect::<Vec<_>>(), [("10.244.1.7", "10.244.3.8", 8080)]);
    assert_eq!((sum(&edges, "sent_bytes"), sum(&edges, "connections")), (700, 1));
    assert_eq!((&edges[0]["service"], &edges[0]["certainty"]), (&Value::Null, &"known".into()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_translation_that_is_none_is_refused_and_told() {
    let [_, mut middle, _] = node_port();
    let broken = Translation { original_dest: None, ..middle.translations[0].clone() };
    let nothing = translation((CLIENT, ASKED), (CLIENT, ASKED));
    middle.translations = vec![broken, nothing, Translation { protocol: 9, ..middle.translations[0].clone() }];
    let server = TestServer::start().await;
    deliver(&server, &[&middle]).await;
    let (_, body) = server.get("/api/v1/edges?since=1h").await;
    let loss = &body["completeness"]["losses"][0];
    assert_eq!((&loss["reason"], &loss["count"]), (&"record_refused".into(), &3.into()), "{body:#}");
    assert_eq!(server.store_counter("translations").await, 0);
    server.stop().await;
}
