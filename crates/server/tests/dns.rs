//! Promise: DNS queries are counted once and answered by client, server and name; and an end beyond every known node gets
//! the name that its own client was told.

#[cfg(test)]
mod support;

use support::*;
use weir_wire::agent::{Batch, Dns, DnsAnswer, LocalEnd};

/// `count` queries that were over `seconds` after the start.
fn asked(local_end: u32, name: &str, rcode: &str, count: u64, seconds: i64) -> Dns {
    Dns {
        local_end,
        server: vec![10, 0, 0, 10].into(),
        name: name.into(),
        query_type: "A".into(),
        rcode: rcode.into(),
        count,
        latency_sum_us: if rcode == "timeout" { 0 } else { 300 * count },
        latency_max_us: if rcode == "timeout" { 0 } else { 500 },
        first_unix_ns: START + seconds * SECOND,
        last_unix_ns: START + seconds * SECOND,
        ..Dns::default()
    }
}

fn told(local_end: u32, name: &str, address: [u8; 4], seconds: i64) -> Dns {
    let answers = vec![DnsAnswer { ip: address.to_vec().into(), ttl_seconds: 60 }];
    Dns { answers, ..asked(local_end, name, "noerror", 1, seconds) }
}

async fn delivered(batches: impl FnOnce(&mut TestAgent) -> Vec<Batch>) -> TestServer {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let container = LocalEnd { container_id: "c0ffee00c0ffee00".into(), ..end(77, 300, "nginx") };
    agent.ends.push(container);
    let mut session = agent.connect(&server).await;
    let batches = batches(&mut agent);
    for batch in &batches {
        session.deliver(batch).await;
    }
    server.applied(batches.len() as u64).await;
    move_to(&server.clock, 10 * batches.len() as i64 + 1);
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_summed_by_client_server_name_and_type_and_survive_a_restart_once() {
    let server = delivered(|agent| {
        let mut first = agent.batch(Vec::new());
        first.dns = vec![
            asked(0, "a.example", "noerror", 3, 1),
            asked(0, "a.example", "timeout", 1, 2),
            asked(1, "a.example", "nxdomain", 2, 3),
            Dns { server: vec![1].into(), ..asked(0, "bad.example", "noerror", 1, 3) },
        ];
        let mut second = agent.batch(Vec::new());
        second.dns = vec![
            Dns { retransmits: 2, truncated: 1, ..asked(0, "a.example", "noerror", 1, 12) },
            asked(2, "b.example", "servfail", 1, 13),
        ];
        vec![first, second]
    })
    .await;
    let answer = |body: &serde_json::Value| body["items"].clone();
    let (_, before) = server.get("/api/v1/dns?by=process").await;
    let rows = before["items"].as_array().unwrap();
    assert_eq!(rows.len(), 3, "{before:#}");
    let row = &rows[0];
    assert_eq!((&row["client"]["name"], &row["server"]["name"]), (&"client".into(), &"10.0.0.10".into()));
    assert_eq!((&row["name"], &row["query_type"], &row["queries"]), (&"a.example".into(), &"A".into(), &5.into()));
    assert_eq!(row["rcodes"], serde_json::json!({ "noerror": 4, "timeout": 1 }));
    assert_eq!((&row["failures"], &row["latency_us"], &row["latency_max_us"]), (&1.into(), &300.into(), &500.into()));
    assert_eq!((&row["retransmits"], &row["truncated"]), (&2.into(), &1.into()));
    assert_eq!(row["last_seen"], at(12));
    // A row without a server is refused, and told.
    assert_eq!(sum(before["completeness"]["losses"].as_array().unwrap(), "count"), 1);
    for (query, queries) in [
        ("?name=a.example", 7),
        ("?name=*.example", 8),
        ("?name=nginx", 1),
        ("?from=client", 5),
        ("?to=10.0.0.10", 8),
        ("?cidr=10.0.0.0/8", 8),
        ("?cidr=10.1.0.0/16", 0),
        ("?label=process=server", 2),
        ("?node=b", 0),
        ("?since=9s", 2),
        ("?until=11s", 6),
        ("?limit=1", 8),
    ] {
        assert_eq!(sum(&server.items(&format!("/api/v1/dns{query}")).await, "queries"), queries, "{query}");
    }
    assert_eq!(server.get("/api/v1/dns?port=53").await.0, 400);
    let server = server.restart().await;
    let (_, after) = server.get("/api/v1/dns?by=process").await;
    assert_eq!(answer(&after), answer(&before));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_comes_twice_counts_once() {
    let server = delivered(|agent| {
        let mut batch = agent.batch(Vec::new());
        batch.dns = vec![asked(0, "a.example", "noerror", 3, 1)];
        vec![batch]
    })
    .await;
    // As it lies on disk: the log is replayed over a state that has it already.
    let (folder, clock) = (server.copy_of_folder(), clock());
    move_to(&clock, 11);
    server.stop().await;
    let server = TestServer::start_in(folder, clock, &[]).await;
    assert_eq!(sum(&server.items("/api/v1/dns").await, "queries"), 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_end_has_the_name_that_its_own_client_was_told() {
    let web = [192, 0, 2, 7];
    let server = delivered(|agent| {
        let remote = "192.0.2.7:443";
        // Connections begin 5 s before their record's end.
        let mut records = vec![
            view(1, "10.0.0.1:50000", remote, 2, (10, 20), START + POLL),
            view(2, "10.0.0.1:50001", remote, 2, (1, 2), START + POLL),
            view(3, "10.0.0.1:50002", remote, 2, (3, 4), START + POLL),
            view(4, "10.0.0.1:50003", "10.0.0.9:80", 2, (5, 6), START + POLL),
            view(5, "10.0.0.1:443", "192.0.2.7:60000", 1, (7, 8), START + POLL),
        ];
        records[1].local_end = 1;
        records[2].local_end = 2;
        records[4].local_end = 0;
        let mut batch = agent.batch(records);
        batch.metadata = vec![node_fact("a", &["10.0.0.1"]), node_fact("b", &["10.0.0.9"])];
        batch.dns = vec![
            told(0, "shop.example", web, 1),
            told(0, "mirror.example", web, 3),
            told(0, "later.example", web, 9),
            told(0, "pod.example", [10, 0, 0, 9], 1),
            told(2, "cdn.example", web, 2),
        ];
        vec![batch]
    })
    .await;
    let edge = async |query: &str| {
        let mut found: Vec<String> = server
            .items(&format!("/api/v1/edges?by=process&{query}"))
            .await
            .iter()
            .map(|edge| {
                let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
                let end = |end: &serde_json::Value| format!("{}:{}", text(&end["kind"]), text(&end["name"]));
                format!("{} {} {}", end(&edge["client"]), end(&edge["server"]), text(&edge["certainty"]))
            })
            .collect();
        found.sort();
        found
    };
    assert_eq!(edge("from=client&port=443").await, ["process:client external:mirror.example inferred"]);
    assert_eq!(edge("from=server&port=443").await, ["process:server external:192.0.2.7 known"]);
    assert_eq!(edge("from=nginx&port=443").await, ["process:nginx external:cdn.example inferred"]);
    assert_eq!(
        edge("from=client&port=80").await,
        ["process:client node:b inferred"],
        "the cluster's own keeps its name"
    );
    assert_eq!(edge("to=client").await, ["external:192.0.2.7 process:client known"], "who came in was not asked for");
    assert_eq!(edge("to=mirror.example").await.len(), 1, "filters see the name");
    assert_eq!(edge("cidr=192.0.2.7&to=192.0.2.7").await.len(), 3, "and the address");
    let by_address = server.items("/api/v1/edges?by=address&from=nginx").await;
    assert_eq!(by_address[0]["server"]["name"], "192.0.2.7");
    let names = server.items("/api/v1/metadata?name=*.example").await;
    assert_eq!(names.len(), 5);
    let shop = names.iter().find(|row| row["name"] == "shop.example").unwrap();
    assert_eq!((&shop["kind"], &shop["source"], &shop["id"]), (&"name".into(), &"dns".into(), &"shop.example".into()));
    assert_eq!((&shop["addresses"], &shop["valid_from"]), (&serde_json::json!(["192.0.2.7"]), &at(1).into()));
    assert_eq!(shop["valid_to"], at(61));
    server.stop().await;
}
