//! Promise: the HTTP API answers what was asked, says what is wrong with a question, and lets in only whom it should.

#[cfg(test)]
mod support;

use std::sync::Arc;
use support::*;
use weir_wire::agent::MetadataFact;

async fn with_traffic() -> TestServer {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    agent.ends.push(weir_wire::agent::LocalEnd {
        container_id: "c0ffee00c0ffee00".into(),
        cgroup_path: "/system.slice/web".into(),
        ..end(77, 300, "nginx")
    });
    let mut session = agent.connect(&server).await;
    let to = START + POLL;
    let mut records = both_views(1, 40000, 700, 30, to);
    let mut web = view(5, "10.0.0.1:50000", "192.0.2.7:443", 2, (10, 20), to);
    web.local_end = 2;
    records.push(web);
    let mut lookup = view(6, "10.0.0.1:50001", "192.0.2.53:53", 2, (1, 2), to);
    lookup.protocol = 1;
    lookup.instance_kind = weir_wire::agent::record::InstanceKind::Peer.into();
    records.push(lookup);
    let mut batch = agent.batch(records);
    batch.metadata.push(node_fact("a", &["10.0.0.1"]));
    batch.metadata.push(MetadataFact {
        kind: "container".into(),
        source: "cri".into(),
        id: "c0ffee00c0ffee00".into(),
        name: "web".into(),
        namespace: "shop".into(),
        from_unix_ns: START,
        attributes: [("app".to_owned(), "front".to_owned())].into(),
        ..MetadataFact::default()
    });
    session.deliver(&batch).await;
    server.applied(1).await;
    move_to(&server.clock, 11);
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_pick_what_they_say() {
    let server = with_traffic().await;
    for (query, edges) in [
        ("", 3),
        ("?from=client", 2),
        ("?from=web", 1),
        ("?from=NGI*", 1),
        ("?to=server", 1),
        ("?to=192.0.2.*", 2),
        ("?name=server", 1),
        ("?name=nobody", 0),
        ("?port=443", 1),
        ("?port=40000", 0),
        ("?protocol=udp", 1),
        ("?cidr=192.0.2.0/28", 1),
        ("?cidr=192.0.2.53", 1),
        ("?namespace=shop", 1),
        ("?label=app=front", 1),
        ("?label=process=ngi*", 1),
        ("?label=cgroup_path=/system.slice/*", 1),
        ("?node=a", 3),
        ("?node=b", 0),
        ("?limit=2", 3),
    ] {
        let items = server.items(&format!("/api/v1/edges{query}")).await;
        assert_eq!(items.len(), edges, "{query}: {items:#?}");
    }
    for (query, rows) in [("", 4), ("?port=40000", 2), ("?state=open", 4), ("?state=closed", 0), ("?to=server", 2)] {
        assert_eq!(server.items(&format!("/api/v1/transactions{query}")).await.len(), rows, "{query}");
        assert_eq!(server.items(&format!("/api/v1/connections{query}")).await.len(), rows, "{query}");
    }
    for (query, rows) in
        [("", 2), ("?name=web", 1), ("?namespace=shop", 1), ("?cidr=10.0.0.0/8", 1), ("?label=app=*", 1)]
    {
        assert_eq!(server.items(&format!("/api/v1/metadata{query}")).await.len(), rows, "{query}");
    }
    server.stop().await;
}

/// As the value of a parameter.
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut escaped, byte| {
        let _ = write!(escaped, "%{byte:02X}");
        escaped
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_picks_by_everything_that_can_be_grouped_by_and_by_what_is_summed_up() {
    let server = with_traffic().await;
    for (filter, edges) in [
        ("name=client", 2),
        ("client.name=client and server.name=server", 1),
        ("client.name=server", 0),
        ("process=nginx", 1),
        ("src.process~ngi*", 1),
        ("not process=nginx", 2),
        ("process!=nginx", 2),
        ("container=web", 1),
        ("container_id~c0ffee*", 1),
        ("namespace=shop", 1),
        ("namespace=\"\" and port=80", 1),
        ("workload=\"\"", 3),
        ("kind=external", 2),
        ("server.kind=external and not client.kind=container", 1),
        ("node=a", 3),
        ("server.node=a", 1),
        ("zone=\"\"", 3),
        ("cgroup_path~/system.slice/*", 1),
        ("attribute:app=front", 1),
        ("client.attribute:container.app~f*", 1),
        ("attribute:pod.app=front", 0),
        ("attribute:app!=front", 2),
        ("address=192.0.2.0/24", 2),
        ("dst.address=192.0.2.53", 1),
        ("client.address=192.0.2.53", 0),
        ("address~127.*", 1),
        ("port=443 or port=53", 2),
        ("port>=80 and port<443", 1),
        ("protocol=udp", 1),
        ("service=\"\"", 3),
        ("certainty!=known", 0),
        ("not certainty=unknown and port=443", 1),
        ("server.certainty=known", 3),
        ("bytes>30", 1),
        ("bytes>=30 and protocol=tcp", 2),
        ("sent_bytes>10 or recv_bytes<5", 2),
        ("connections=1 and retransmits=0 and failures<1", 3),
        ("rtt_us<=100us and protocol=tcp", 2),
        ("(process=nginx or port=53) and bytes>3", 1),
    ] {
        let items = server.items(&format!("/api/v1/edges?filter={}", escaped(filter))).await;
        assert_eq!(items.len(), edges, "{filter}: {items:#?}");
    }
    // With the other filters, each alone and in every answer that takes one.
    let both = format!("/api/v1/edges?protocol=tcp&filter={}", escaped("name=client"));
    assert_eq!(server.items(&both).await.len(), 1);
    for (path, filter, rows) in [
        ("connections", "port=40000", 2),
        ("connections", "client.port=40000 and server.port=80", 2),
        ("connections", "server.port=40000", 0),
        ("connections", "bytes>100 or process=nginx", 3),
        ("connections", "state=established and close_reason=\"\"", 4),
        ("connections", "rtt_us>1ms", 0),
        ("transactions", "server.name=server and protocol=tcp", 2),
        ("transactions", "attribute:app=front", 1),
        ("transactions", "server.address=192.0.2.0/24", 2),
        ("metadata", "kind=container and source=cri and attribute:app=front", 1),
        ("metadata", "attribute:container.app=*", 0),
        ("metadata", "attribute:container.app~*f*", 1),
        ("metadata", "address=10.0.0.0/8 or namespace=shop", 2),
        ("metadata", "id=c0ffee00c0ffee00 and node=a and name=web", 1),
    ] {
        let items = server.items(&format!("/api/v1/{path}?filter={}", escaped(filter))).await;
        assert_eq!(items.len(), rows, "{path} {filter}: {items:#?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_filter_is_answered_with_its_place_and_what_could_stand_there() {
    let server = TestServer::start().await;
    for path in ["edges", "connections", "transactions", "metadata", "dns"] {
        let (status, body) =
            server.get(&format!("/api/v1/{path}?filter={}", escaped("name=a and (node=b or nod=c)"))).await;
        assert_eq!(status, 400, "{path}");
        assert_eq!(body["position"]["parameter"], "filter", "{path}: {body}");
        assert_eq!(body["position"]["column"], 23, "{path}: {body}");
        assert!(body["position"]["expected"].as_array().unwrap().contains(&"node".into()), "{path}: {body}");
        assert_eq!(body["error"], format!("filter, column 23: {path} have no field `nod`"));
    }
    let (_, body) = server.get("/api/v1/edges?limit=x").await;
    assert!(body.get("position").is_none(), "{body}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groupings_name_the_ends_and_fall_back() {
    let server = with_traffic().await;
    for (by, expected) in [
        ("workload", ["process client", "container web", "process client"]),
        ("process", ["process client", "process nginx", "process client"]),
        ("namespace", ["node a", "namespace shop", "node a"]),
        ("node", ["node a", "node a", "node a"]),
        ("zone", ["node a", "node a", "node a"]),
        ("address", ["address 127.0.0.1", "address 10.0.0.1", "address 10.0.0.1"]),
        ("service", ["process client", "container web", "process client"]),
    ] {
        let items = server.items(&format!("/api/v1/edges?by={by}")).await;
        // Most bytes first: the loopback connection, the one to 443, the lookup.
        let names: Vec<String> = items
            .iter()
            .map(|edge| {
                format!("{} {}", edge["client"]["kind"].as_str().unwrap(), edge["client"]["name"].as_str().unwrap())
            })
            .collect();
        assert_eq!(names, expected, "{by}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_counts_what_it_leaves_out() {
    let server = with_traffic().await;
    for (path, items, omitted) in
        [("edges", 2, 2), ("series", 2, 2), ("connections", 1, 3), ("transactions", 1, 3), ("metadata", 1, 1)]
    {
        let (_, body) = server.get(&format!("/api/v1/{path}?limit=1")).await;
        assert_eq!(body["items"].as_array().unwrap().len(), items, "{path}");
        assert_eq!(body["completeness"]["omitted"], omitted, "{path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_come_first_and_one_row_is_all_others() {
    let server = with_traffic().await;
    let all = server.items("/api/v1/edges").await;
    for sort in ["bytes", "sent_bytes", "recv_bytes", "connections", "retransmits", "rtt_us", "failures"] {
        let number = |edge: &serde_json::Value| match sort {
            "bytes" => edge["sent_bytes"].as_u64().unwrap() + edge["recv_bytes"].as_u64().unwrap(),
            field => edge[field].as_u64().unwrap_or(0),
        };
        let sorted = server.items(&format!("/api/v1/edges?sort={sort}")).await;
        assert!(sorted.is_sorted_by_key(|edge| std::cmp::Reverse(number(edge))), "{sort}: {sorted:#?}");
        assert_eq!(sorted.len(), all.len(), "nothing is folded without need");
        for limit in 1..=3 {
            let (_, body) = server.get(&format!("/api/v1/edges?sort={sort}&limit={limit}")).await;
            let items = body["items"].as_array().unwrap();
            assert_eq!(items[..limit], sorted[..limit], "{sort} {limit}");
            for counter in ["sent_bytes", "recv_bytes", "connections", "retransmits", "failures"] {
                assert_eq!(sum(items, counter), sum(&all, counter), "{sort} {limit} {counter}");
            }
            let others = &items[limit..];
            assert_eq!(others.len(), usize::from(limit < all.len()), "{sort} {limit}");
            assert_eq!(body["completeness"]["omitted"], all.len() - limit, "{sort} {limit}");
            for other in others {
                assert_eq!((&other["client"]["kind"], &other["server"]["kind"]), (&"other".into(), &"other".into()));
                assert_eq!((&other["port"], &other["protocol"]), (&0.into(), &"".into()), "{other}");
            }
        }
    }
    let connections = server.items("/api/v1/connections?sort=sent_bytes").await;
    assert!(connections.is_sorted_by_key(|row| std::cmp::Reverse(row["sent_bytes"].as_u64())), "{connections:#?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_says_which_of_its_steps_are_not_whole() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    for (poll, seconds) in [(1, 10), (2, 20), (3, 50), (4, 60)] {
        move_to(&server.clock, seconds);
        agent.covered_to = START + (seconds - 10) * SECOND;
        session.deliver(&agent.batch(both_views(1, 40_000, 100 * poll, 1, START + seconds * SECOND - 1))).await;
        server.applied(poll).await;
    }
    let path = format!("/api/v1/series?since={}&until={}&step=20s", at(0), at(60));
    let (_, body) = server.get(&path).await;
    let steps = serde_json::json!({"seconds": 20, "from": at(0), "to": at(60), "incomplete": [at(20)]});
    // 20 s to 40 s were not watched.
    assert_eq!(body["completeness"]["steps"], steps, "{body}");
    let sent: Vec<(String, u64)> = body["items"][0]["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| (point["at"].as_str().unwrap().to_owned(), point["sent_bytes"].as_u64().unwrap()))
        .collect();
    assert_eq!(sent, [(at(0), 300), (at(40), 700)]);
    assert_eq!(body["items"][0]["points"][0]["opened"], 1, "{body}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_question_is_answered_with_what_is_wrong() {
    let server = TestServer::start().await;
    for (path, text) in [
        ("/api/v1/edges?sinse=5m", "parameter `sinse` is not known here"),
        ("/api/v1/edges?since=never", "parameter `since` is `never`"),
        ("/api/v1/status?limit=5", "this path takes none"),
        ("/api/v1/metadata?state=open", "parameter `state` is not known here"),
        ("/api/v1/transactions?limit=x", "parameter `limit` is `x`"),
        ("/api/v1/transactions?at=5m", "parameter `at` is not known here"),
        ("/api/v1/edges?sort=name", "parameter `sort` is `name`"),
        ("/api/v1/edges?at=5m&until=1m", "parameter `at` is the end of the span"),
        ("/api/v1/series?step=7s", "parameter `step` is `7s`; write a multiple of 10s"),
        ("/api/v1/series?since=7d&step=10s", "the span has 60480 of them, at most 1500 are answered"),
    ] {
        let (status, body) = server.get(path).await;
        assert_eq!(status, 400, "{path}");
        assert!(body["error"].as_str().unwrap().contains(text), "{path}: {body}");
    }
    let (status, body) = server.get("/api/v1/nothing").await;
    assert_eq!(status, 404);
    assert!(body["error"].as_str().unwrap().contains("/api/v1/nothing"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_health_metrics_and_description_are_served() {
    let server = with_traffic().await;
    let (status, head, body) = server.get_raw("/", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-security-policy: default-src 'none'; script-src 'self'"), "{head}");
    assert!(head.contains("content-type: text/html") && !body.is_empty());
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let (status, _, body) = server.get_raw("/", &format!("if-none-match: {tag}\r\n")).await;
    assert_eq!((status, body.len()), (304, 0));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.get_raw(path, "").await.0, 200, "{path}");
    }
    let (status, head, body) = server.get_raw("/metrics", "").await;
    let text = String::from_utf8(body).unwrap();
    assert_eq!(status, 200);
    assert!(head.contains("text/plain; version=0.0.4"));
    assert!(text.contains("weir_node_records_total{node=\"a\"} 4\n"), "{text}");
    let (status, body) = server.get("/openapi.json").await;
    assert_eq!((status, &body["openapi"]), (200, &"3.1.0".into()));
    assert!(server.folder.path().join("server.json").exists());
    let (folder, _) = server.stop().await;
    assert!(!folder.path().join("server.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_only_its_bearer_reads_and_delivers() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let file = folder.path().join("token");
    std::fs::write(&file, "0123456789abcdef\n").unwrap();
    let file = file.to_str().unwrap().to_owned();
    let server = TestServer::start_in(Arc::clone(&folder), clock(), &["--token-file", &file]).await;
    assert_eq!(server.get("/api/v1/edges").await.0, 401);
    assert_eq!(server.get_raw("/metrics", "authorization: Bearer wrong\r\n").await.0, 401);
    assert_eq!(server.get_raw("/api/v1/edges", "authorization: Bearer 0123456789abcdef\r\n").await.0, 200);
    assert_eq!(server.get_raw("/healthz", "").await.0, 200);
    let mut client = server.client().await;
    let refused = client.deliver(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_any_node_is_not_complete() {
    let server = TestServer::start().await;
    let (_, body) = server.get("/api/v1/edges").await;
    assert_eq!((&body["completeness"]["complete"], body["items"].as_array().unwrap().len()), (&false.into(), 0));
    server.stop().await;
}
