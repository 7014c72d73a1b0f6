//! Promise: an answer names ends and Services as they were when the connection began, says how sure that is, and names
//! on the next answer what late metadata tells.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

#[cfg(test)]
mod support;

use serde_json::Value;
use std::sync::Arc;
use support::*;
use weir_wire::agent::{Batch, Dns, DnsAnswer, LocalEnd, MetadataFact, MetadataSource, Record};

const TO: i64 = START + POLL;
/// Before everything.
const LONG_AGO: i64 = START - 3_600 * SECOND;
const WEB: &str = "10.244.1.7";
const REDIS: &str = "10.244.2.9";
const VIRTUAL: &str = "10.96.0.9";

fn id(letter: char) -> String {
    letter.to_string().repeat(64)
}

fn fact(kind: &str, id: &str, namespace: &str, name: &str) -> MetadataFact {
    MetadataFact {
        kind: kind.into(),
        source: "kubelet".into(),
        id: id.into(),
        namespace: namespace.into(),
        name: name.into(),
        from_unix_ns: LONG_AGO,
        ..MetadataFact::default()
    }
}

fn with(mut fact: MetadataFact, attributes: &[(&str, &str)]) -> MetadataFact {
    fact.attributes.extend(attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    fact
}

fn at_address(mut fact: MetadataFact, address: &str) -> MetadataFact {
    fact.addresses.push(address.to_owned());
    fact
}

/// A pod with one container of the name `app`.
fn pod(letter: char, name: &str, address: &str, owner: (&str, &str)) -> [MetadataFact; 2] {
    let uid = format!("uid-{letter}");
    let owned = [("owner_kind", owner.0), ("owner_name", owner.1), ("owner_uid", &format!("uid-{}", owner.1))];
    let container = MetadataFact { parent: uid.clone(), ..fact("container", &id(letter), "shop", "app") };
    [at_address(with(fact("pod", &uid, "shop", name), &owned), address), container]
}

fn by_api(fact: MetadataFact) -> MetadataFact {
    MetadataFact { source: "api".into(), ..fact }
}

fn service(name: &str, address: &str, ports: &str) -> MetadataFact {
    let made = fact("service", &format!("uid-{name}"), "shop", name);
    by_api(with(at_address(made, address), &[("ports", ports), ("service_type", "ClusterIP")]))
}

fn endpoint(service: &str, address: &str, pod: &str, ports: &str) -> MetadataFact {
    let made = MetadataFact {
        parent: format!("shop/{service}"),
        ..fact("endpoint", &format!("slice-{service}/{address}"), "shop", service)
    };
    by_api(with(at_address(made, address), &[("ports", ports), ("target_pod", pod)]))
}

/// The whole small shop: `web` of a Deployment on node a, `redis` of a StatefulSet on node b, behind a Service.
fn shop() -> Vec<MetadataFact> {
    let mut facts = Vec::from(pod('a', "web-7d9-x", WEB, ("ReplicaSet", "web-7d9")));
    facts[0] = with(facts[0].clone(), &[("team", "front")]);
    let set = fact("replica_set", "uid-web-7d9", "shop", "web-7d9");
    facts.push(by_api(with(set, &[("owner_kind", "Deployment"), ("owner_name", "web"), ("owner_uid", "uid-web")])));
    facts
}

fn redis() -> Vec<MetadataFact> {
    let mut facts = Vec::from(pod('b', "redis-0", REDIS, ("StatefulSet", "redis")));
    facts.push(service("redis", VIRTUAL, "6379/tcp"));
    facts.push(endpoint("redis", REDIS, "uid-b", "6379/tcp"));
    facts
}

fn node(name: &str, address: &str, zone: &str) -> MetadataFact {
    with(at_address(fact("node", name, "", name), address), &[("zone", zone), ("instance_type", "m1")])
}

fn in_container(letter: char, pid: u32, process: &str) -> LocalEnd {
    LocalEnd { container_id: id(letter), ..end(9_000 + u32::from(letter as u8), pid, process) }
}

/// Asked for a Service, translated by the client's own node.
fn translated(mut record: Record, local: &str, backend: &str) -> Record {
    record.translated_local = Some(address(local));
    record.translated_remote = Some(address(backend));
    record
}

/// Nodes a and b with what ran on them.
struct Two {
    server: TestServer,
    a: TestAgent,
    b: TestAgent,
    delivered: u64,
}

impl Two {
    async fn start(more: &[&str]) -> Self {
        let server = TestServer::start_in(Arc::new(tempfile::tempdir().unwrap()), clock(), more).await;
        let (mut a, mut b) = (TestAgent::new("a", 1), TestAgent::new("b", 2));
        a.ends = vec![in_container('a', 100, "python"), end(4_026_531_840, 300, "cron")];
        b.ends = vec![end(4_026_531_840, 301, "sshd"), in_container('b', 200, "redis-server")];
        Self { server, a, b, delivered: 0 }
    }

    async fn deliver(&mut self, batch: Batch) {
        self.delivered += 1;
        let agent = if batch.node == "a" { &self.a } else { &self.b };
        let hello =
            weir_wire::agent::Hello { oldest_sequence: batch.sequence, next_sequence: batch.sequence, ..agent.hello() };
        let mut session = Session::open(&self.server, hello).await;
        session.deliver(&batch).await;
        self.server.applied(self.delivered).await;
    }

    async fn on_a(&mut self, records: Vec<Record>, metadata: Vec<MetadataFact>) {
        let batch = Batch { metadata, ..self.a.batch(records) };
        self.deliver(batch).await;
    }

    async fn on_b(&mut self, records: Vec<Record>, metadata: Vec<MetadataFact>) {
        let batch = Batch { metadata, ..self.b.batch(records) };
        self.deliver(batch).await;
    }

    async fn edges(&self, question: &str) -> Vec<Value> {
        self.server.items(&format!("/api/v1/edges?since=1h{question}")).await
    }

    async fn one(&self, question: &str) -> Value {
        let edges = self.edges(question).await;
        assert_eq!(edges.len(), 1, "{question}: {edges:#?}");
        edges[0].clone()
    }
}

fn through_the_service(cookie: u64, port: u16, bytes: (u64, u64)) -> Record {
    let local = format!("{WEB}:{port}");
    let asked = view(cookie, &local, &format!("{VIRTUAL}:6379"), 2, bytes, TO);
    translated(asked, &local, &format!("{REDIS}:6379"))
}

fn accepted(cookie: u64, port: u16, bytes: (u64, u64)) -> Record {
    view(cookie, &format!("{REDIS}:6379"), &format!("{WEB}:{port}"), 1, (bytes.1, bytes.0), TO)
}

fn name_of(end: &Value) -> String {
    let text = |field: &str| end[field].as_str().unwrap_or_default().to_owned();
    format!("{} {}/{} {}", text("kind"), text("namespace"), text("name"), text("certainty"))
}

#[tokio::test(flavor = "multi_thread")]
async fn late_metadata_names_on_the_next_answer_what_was_unknown() {
    let mut two = Two::start(&[]).await;
    two.on_a(vec![through_the_service(1, 40_000, (700, 30))], Vec::new()).await;
    two.on_b(vec![accepted(2, 40_000, (700, 30))], Vec::new()).await;
    move_to(&two.server.clock, 30);
    let edge = two.one("").await;
    assert_eq!(name_of(&edge["client"]), "container /aaaaaaaaaaaa known");
    assert_eq!((&edge["service"], &edge["service_certainty"]), (&Value::Null, &Value::Null));
    // 30 s later the sources have told; the connection is long over.
    two.on_b(Vec::new(), redis()).await;
    two.on_a(Vec::new(), shop()).await;
    for restarted in [false, true] {
        let edge = two.one("").await;
        assert_eq!(name_of(&edge["client"]), "deployment shop/web known", "{restarted}");
        assert_eq!(name_of(&edge["server"]), "stateful_set shop/redis known");
        assert_eq!((&edge["service"], &edge["service_certainty"]), (&"shop/redis".into(), &"known".into()));
        assert_eq!(
            (&edge["sent_bytes"], &edge["recv_bytes"], &edge["connections"]),
            (&700.into(), &30.into(), &1.into())
        );
        assert_eq!(edge["certainty"], "known");
        two.server = two.server.restart().await;
    }
    two.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_grouping_names_both_ends_and_says_how_sure_it_is() {
    let mut two = Two::start(&[]).await;
    let mut a = shop();
    a.push(node("a", "10.0.0.1", "z1"));
    let mut b = redis();
    b.push(node("b", "10.0.0.2", "z2"));
    two.on_a(vec![through_the_service(1, 40_000, (700, 30))], a).await;
    two.on_b(vec![accepted(2, 40_000, (700, 30))], b).await;
    move_to(&two.server.clock, 11);
    for (by, client, server) in [
        ("pod", "pod shop/web-7d9-x known", "pod shop/redis-0 known"),
        ("workload", "deployment shop/web known", "stateful_set shop/redis known"),
        ("container", "container shop/web-7d9-x/app known", "container shop/redis-0/app known"),
        ("service", "deployment shop/web known", "service shop/redis known"),
        ("namespace", "namespace shop/shop known", "namespace shop/shop known"),
        ("node", "node /a known", "node /b known"),
        ("zone", "zone /z1 known", "zone /z2 known"),
        ("process", "process shop/python known", "process shop/redis-server known"),
        ("address", "address /10.244.1.7 known", "address /10.244.2.9 known"),
        ("attribute:team", "attribute /front known", "stateful_set shop/redis known"),
        ("attribute:node.instance_type", "attribute /m1 known", "attribute /m1 known"),
    ] {
        let edge = two.one(&format!("&by={by}")).await;
        assert_eq!((name_of(&edge["client"]), name_of(&edge["server"])), (client.into(), server.into()), "{by}");
        assert_eq!((&edge["service"], &edge["certainty"]), (&"shop/redis".into(), &"known".into()), "{by}");
        assert_eq!((&edge["sent_bytes"], &edge["connections"]), (&700.into(), &1.into()), "{by}: counted once");
    }
    for (filter, found) in [
        ("from=web", 1),
        ("from=shop/web", 1),
        ("from=web-7d9-x", 1),
        ("from=app", 1),
        ("to=web", 0),
        ("name=redis*", 1),
        ("namespace=shop", 1),
        ("namespace=other", 0),
        ("label=team=front", 1),
        ("label=team=back", 0),
        ("label=node.zone=z2", 1),
        ("service=redis", 1),
        ("service=shop/red*", 1),
        ("service=web", 0),
        // An end's own address: behind a Service its pod's, settled or not.
        ("cidr=10.244.2.0/24", 1),
        ("cidr=10.244.1.7", 1),
        ("cidr=10.96.0.0/16", 0),
        ("port=6379", 1),
        ("protocol=udp", 0),
    ] {
        assert_eq!(two.edges(&format!("&{filter}")).await.len(), found, "{filter}");
    }
    two.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_workloads_and_nodes_are_opened_each_by_itself() {
    let mut two = Two::start(&[]).await;
    let on_host = |cookie, local: &str, remote: &str, direction, bytes| Record {
        local_end: 1,
        ..view(cookie, local, remote, direction, bytes, TO)
    };
    let mut a = shop();
    a.push(node("a", "10.0.0.1", "z1"));
    let mut b = redis();
    b.push(node("b", "10.0.0.2", "z2"));
    let cron = on_host(5, "10.0.0.1:50000", "10.0.0.2:22", 2, (90, 9));
    two.on_a(vec![through_the_service(1, 40_000, (700, 30)), cron], a).await;
    let sshd = Record { local_end: 0, ..on_host(6, "10.0.0.2:22", "10.0.0.1:50000", 1, (9, 90)) };
    two.on_b(vec![accepted(2, 40_000, (700, 30)), sshd], b).await;
    move_to(&two.server.clock, 11);
    let names = |edge: &Value| (name_of(&edge["client"]), name_of(&edge["server"]));
    for (expand, client, server) in [
        ("", "namespace shop/shop known", "namespace shop/shop known"),
        ("&expand=shop", "deployment shop/web known", "stateful_set shop/redis known"),
        ("&expand=shop&expand=shop/redis", "deployment shop/web known", "pod shop/redis-0 known"),
        // A workload alone: the rest of its namespace stays one.
        ("&expand=shop/web", "pod shop/web-7d9-x known", "namespace shop/shop known"),
        ("&expand=other&expand=other/web", "namespace shop/shop known", "namespace shop/shop known"),
    ] {
        let edge = two.one(&format!("&by=namespace&port=6379{expand}")).await;
        assert_eq!(names(&edge), (client.into(), server.into()), "{expand}");
        assert_eq!((&edge["sent_bytes"], &edge["connections"]), (&700.into(), &1.into()), "{expand}");
    }
    let pods = two.one("&by=namespace&port=6379&expand=shop/web").await;
    assert_eq!((&pods["client"]["workload"], &pods["server"]["workload"]), (&"web".into(), &Value::Null));
    for (expand, client, server) in [
        ("", "node /a known", "node /b known"),
        ("&expand=node:a", "process /cron known", "node /b known"),
        ("&expand=node:a&expand=node:b", "process /cron known", "process /sshd known"),
    ] {
        let edge = two.one(&format!("&by=namespace&port=22{expand}")).await;
        assert_eq!(names(&edge), (client.into(), server.into()), "{expand}");
        assert_eq!((&edge["client"]["node"], &edge["server"]["node"]), (&"a".into(), &"b".into()), "{expand}");
    }
    let series = two.server.items("/api/v1/series?since=1h&by=namespace&port=6379&expand=shop").await;
    assert_eq!(name_of(&series[0]["client"]), "deployment shop/web known");
    two.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_through_different_services_are_different_and_one_that_is_not_known_keeps_its_candidates() {
    let mut two = Two::start(&[]).await;
    let direct = view(3, &format!("{WEB}:40001"), &format!("{REDIS}:6379"), 2, (50, 5), TO);
    two.on_a(vec![through_the_service(1, 40_000, (700, 30)), direct], shop()).await;
    two.on_b(vec![accepted(2, 40_000, (700, 30)), accepted(4, 40_001, (50, 5))], redis()).await;
    move_to(&two.server.clock, 11);
    // One Service leads there, so the connection that was made without it may have been meant for it.
    let edge = two.one("").await;
    assert_eq!((&edge["service"], &edge["service_certainty"]), (&"shop/redis".into(), &"inferred".into()));
    assert_eq!((&edge["sent_bytes"], &edge["connections"]), (&750.into(), &2.into()));
    // Another Service with the same endpoint: now the direct one could be of either.
    two.on_b(
        Vec::new(),
        vec![service("cache", "10.96.0.10", "6379/tcp"), endpoint("cache", REDIS, "uid-b", "6379/tcp")],
    )
    .await;
    let edges = two.edges("").await;
    assert_eq!(edges.len(), 2, "{edges:#?}");
    assert_eq!((&edges[0]["service"], &edges[0]["sent_bytes"]), (&"shop/redis".into(), &700.into()));
    assert_eq!(
        (&edges[0]["service_certainty"], &edges[0]["service_candidates"]),
        (&"known".into(), &serde_json::json!([]))
    );
    assert_eq!((&edges[1]["service"], &edges[1]["sent_bytes"]), (&Value::Null, &50.into()));
    assert_eq!(edges[1]["service_certainty"], "unknown");
    assert_eq!(edges[1]["service_candidates"], serde_json::json!(["shop/cache", "shop/redis"]));
    assert_eq!(two.edges("&service=cache").await.len(), 1);
    two.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_address_that_nobody_translated_is_the_service() {
    let mut two = Two::start(&[]).await;
    let asked = view(1, &format!("{WEB}:40000"), &format!("{VIRTUAL}:6379"), 2, (700, 30), TO);
    let mut facts = shop();
    facts.extend(redis());
    two.on_a(vec![asked], facts).await;
    move_to(&two.server.clock, 11);
    for by in ["pod", "workload", "service", "node"] {
        let edge = two.one(&format!("&by={by}")).await;
        assert_eq!(name_of(&edge["server"]), "service shop/redis known", "{by}");
        assert_eq!((&edge["service"], &edge["service_certainty"]), (&"shop/redis".into(), &"known".into()));
    }
    two.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_job_is_named_after_its_pod_is_gone() {
    let mut two = Two::start(&[]).await;
    let mut job = Vec::from(pod('a', "report-28-x", WEB, ("Job", "report-28")));
    let job_fact = fact("job", "uid-report-28", "shop", "report-28");
    job.push(by_api(with(
        job_fact,
        &[("owner_kind", "CronJob"), ("owner_name", "report"), ("owner_uid", "uid-report")],
    )));
    for fact in &mut job {
        fact.to_unix_ns = TO + SECOND;
    }
    // Only the server's side was seen: the client is known by its address when the connection began.
    two.on_b(vec![accepted(2, 40_000, (700, 30))], redis()).await;
    let mut next = Vec::from(pod('c', "other", WEB, ("StatefulSet", "other")));
    for fact in &mut next {
        fact.from_unix_ns = TO + 8 * SECOND;
    }
    job.extend(next);
    two.on_a(Vec::new(), job).await;
    move_to(&two.server.clock, 60);
    let unpaired = two.edges("&by=workload").await;
    // Node a covered the time and told nothing of it: its bytes are a told loss, not a guess.
    assert!(unpaired.is_empty(), "{unpaired:#?}");
    let rows = two.server.items("/api/v1/connections?since=1h&from=report").await;
    assert_eq!(rows.len(), 1, "{rows:#?}");
    assert!(two.server.items("/api/v1/connections?since=1h&from=other").await.is_empty(), "never its next holder");
    two.on_a(vec![through_the_service(1, 40_000, (700, 30))], Vec::new()).await;
    let edge = two.one("").await;
    assert_eq!(name_of(&edge["client"]), "cron_job shop/report known");
    assert_eq!(edge["sent_bytes"], 700);
    two.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_names_whom_its_node_answered_for_and_between_holders_nobody() {
    let mut two = Two::start(&[]).await;
    let mut old = Vec::from(pod('b', "old", REDIS, ("StatefulSet", "old")));
    let connect = |cookie: u64, port: u16, to: i64| {
        view(cookie, &format!("{WEB}:{port}"), &format!("{REDIS}:6379"), 2, (7, 3), to)
    };
    let read = |at: i64| {
        vec![MetadataSource {
            source: "kubelet".into(),
            state: "ok".into(),
            read_unix_ns: at,
            ..MetadataSource::default()
        }]
    };
    let batch = Batch { metadata: old.clone(), metadata_sources: read(START + 8 * SECOND), ..two.b.batch(Vec::new()) };
    two.deliver(batch).await;
    // Begun at 5 s and at 15 s: b has answered for its addresses until 8 s.
    two.on_a(vec![connect(1, 40_000, TO)], shop()).await;
    two.on_a(vec![connect(2, 40_001, TO + POLL)], Vec::new()).await;
    move_to(&two.server.clock, 60);
    let servers = |edges: Vec<Value>| {
        let mut names: Vec<String> = edges.iter().map(|edge| name_of(&edge["server"])).collect();
        names.sort();
        names
    };
    let unnamed = "unknown /unnamed on b unknown";
    assert_eq!(servers(two.edges("&by=pod").await), ["pod shop/old inferred", unnamed]);
    assert_eq!(two.edges(&format!("&by=pod&to={REDIS}")).await.len(), 2, "its address still finds it");
    // The old one went at 9 s, the new one has it from 12 s.
    for fact in &mut old {
        fact.to_unix_ns = START + 9 * SECOND;
    }
    let mut new = Vec::from(pod('c', "new", REDIS, ("StatefulSet", "new")));
    for fact in &mut new {
        fact.from_unix_ns = START + 12 * SECOND;
    }
    old.extend(new);
    let batch = Batch { metadata: old, metadata_sources: read(START + 30 * SECOND), ..two.b.batch(Vec::new()) };
    two.deliver(batch).await;
    assert_eq!(servers(two.edges("&by=pod").await), ["pod shop/new inferred", "pod shop/old inferred"]);
    two.on_a(vec![Record { start_unix_ns: START + 10 * SECOND, ..connect(3, 40_002, TO + 2 * POLL) }], Vec::new())
        .await;
    let unknown = format!("unknown /{REDIS} unknown");
    assert_eq!(
        servers(two.edges("&by=pod").await),
        ["pod shop/new inferred", "pod shop/old inferred", &unknown],
        "between the two it is nobody's, and never external"
    );
    two.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn externals_have_the_names_of_configured_networks() {
    let mut two = Two::start(&["--network", "office=192.0.2.0/24,everything=0.0.0.0/0"]).await;
    let record = |cookie: u64, to: &str| view(cookie, &format!("{WEB}:{}", 40_000 + cookie), to, 2, (7, 3), TO);
    two.on_a(vec![record(1, "192.0.2.7:443"), record(2, "198.51.100.7:443")], shop()).await;
    move_to(&two.server.clock, 11);
    let mut names: Vec<String> = two.edges("").await.iter().map(|edge| name_of(&edge["server"])).collect();
    names.sort();
    assert_eq!(names, ["external /everything known", "external /office known"]);
    assert_eq!(two.edges("&to=192.0.2.7").await.len(), 1, "its address still finds it");
    two.server.stop().await;
}

/// What `web` on node a was told by DNS a second after the start.
fn told(name: &str, address: &str) -> Dns {
    let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets().to_vec();
    Dns {
        local_end: 0,
        server: octets("10.96.0.10").into(),
        name: name.into(),
        query_type: "A".into(),
        rcode: "noerror".into(),
        count: 1,
        first_unix_ns: START + SECOND,
        last_unix_ns: START + SECOND,
        answers: vec![DnsAnswer { ip: octets(address).into(), ttl_seconds: 60 }],
        ..Dns::default()
    }
}

/// Service, certainty and candidates of an edge.
fn via(edge: &Value) -> String {
    let text = |field: &str| edge[field].as_str().unwrap_or("-").to_owned();
    format!("{} {} {}", text("service"), text("service_certainty"), edge["service_candidates"])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_reached_by_a_services_dns_name_has_that_service_inferred_with_all_candidates() {
    let mut two = Two::start(&[]).await;
    let named = |name: &str, dns: &str| {
        let made = fact("service", &format!("uid-{name}"), "shop", name);
        by_api(with(made, &[("service_type", "ExternalName"), ("external_name", dns)]))
    };
    let record = |cookie: u64, to: &str| view(cookie, &format!("{WEB}:{}", 40_000 + cookie), to, 2, (7, 3), TO);
    // Of another process, which asked DNS for nothing.
    let unasked = Record { local_end: 1, ..record(5, "192.0.2.10:5433") };
    let records = vec![
        record(1, "192.0.2.10:5432"),
        record(2, "192.0.2.11:5434"),
        record(3, "192.0.2.20:25"),
        record(4, "192.0.2.30:443"),
        unasked,
    ];
    let mut metadata = shop();
    metadata.extend([named("db", "db.example.com"), named("mail", "mx.example.com"), named("post", "mx.example.com")]);
    let dns = vec![
        // The cluster's DNS answers with the CNAME and the address behind it: the name asked for is the Service's.
        told("db.shop.svc.cluster.local", "192.0.2.10"),
        told("db.example.com", "192.0.2.11"),
        told("mx.example.com", "192.0.2.20"),
        told("www.example.com", "192.0.2.30"),
    ];
    let batch = Batch { metadata, dns, ..two.a.batch(records) };
    two.deliver(batch).await;
    move_to(&two.server.clock, 11);
    for (port, server, expected) in [
        (5432, "db.shop.svc.cluster.local", r#"shop/db inferred ["shop/db"]"#),
        (5434, "db.example.com", r#"shop/db inferred ["shop/db"]"#),
        (25, "mx.example.com", r#"- unknown ["shop/mail","shop/post"]"#),
        (443, "www.example.com", "- - []"),
        (5433, "192.0.2.10", "- - []"),
    ] {
        let edge = two.one(&format!("&by=pod&port={port}")).await;
        assert_eq!((edge["server"]["name"].as_str(), via(&edge).as_str()), (Some(server), expected), "{port}");
    }
    let edge = two.one("&by=service&service=db&port=5432").await;
    assert_eq!(name_of(&edge["client"]), "deployment shop/web known");
    assert_eq!(
        (name_of(&edge["server"]), &edge["certainty"]),
        ("service shop/db inferred".to_owned(), &"inferred".into())
    );
    two.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn between_the_services_of_an_end_decides_which_its_client_asked_dns_for() {
    let mut two = Two::start(&[]).await;
    let direct =
        |cookie: u64| view(cookie, &format!("{WEB}:{}", 40_000 + cookie), &format!("{REDIS}:6379"), 2, (7, 3), TO);
    let mut metadata = shop();
    metadata.extend(redis());
    metadata.extend([service("cache", "10.96.0.10", "6379/tcp"), endpoint("cache", REDIS, "uid-b", "6379/tcp")]);
    let dns = vec![told("redis-0.cache.shop.svc.cluster.local", REDIS)];
    // The second one is of a process that asked for nothing.
    let records = vec![direct(1), Record { local_end: 1, ..direct(2) }];
    let batch = Batch { metadata, dns, ..two.a.batch(records) };
    two.deliver(batch).await;
    move_to(&two.server.clock, 11);
    let candidates = r#"["shop/cache","shop/redis"]"#;
    assert_eq!(via(&two.one("&by=process&from=python").await), format!("shop/cache inferred {candidates}"));
    assert_eq!(via(&two.one("&by=process&from=cron").await), format!("- unknown {candidates}"));
    two.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_has_every_kind_with_its_validity_and_what_sources_disagree_about_is_told() {
    let mut two = Two::start(&[]).await;
    let mut facts = shop();
    facts[1] = with(facts[1].clone(), &[("image", "web:7"), ("ports", "http:8080/tcp"), ("pids", "100")]);
    for pid in [100, 107] {
        let process = MetadataFact { parent: id('a'), ..fact("process", &format!("{pid}@5"), "", "python") };
        facts.push(MetadataFact { source: "tracer".into(), ..process });
    }
    let other_name = MetadataFact {
        source: "docker".into(),
        parent: "uid-a".into(),
        ..fact("container", &id('a'), "shop", "k8s_app")
    };
    facts.push(other_name);
    two.on_a(Vec::new(), facts).await;
    two.on_b(Vec::new(), redis()).await;
    move_to(&two.server.clock, 30);
    for (kind, count) in [
        ("pod", 2),
        ("container", 3),
        ("process", 2),
        ("replica_set", 1),
        ("service", 1),
        ("endpoint", 1),
        ("job", 0),
        ("*set", 1),
    ] {
        let rows = two.server.items(&format!("/api/v1/metadata?kind={kind}")).await;
        assert_eq!(rows.len(), count, "{kind}: {rows:#?}");
    }
    let rows = two.server.items("/api/v1/metadata?kind=container&name=app&node=a").await;
    let attributes = &rows[0]["attributes"];
    assert_eq!((&attributes["pids"], &attributes["image"]), (&"100,107".into(), &"web:7".into()), "{rows:#?}");
    assert_eq!((&rows[0]["source"], &rows[0]["parent"]), (&"kubelet".into(), &"uid-a".into()));
    assert_eq!(rows[0]["valid_from"], at(-3_600));
    let status = two.server.items("/api/v1/status").await;
    let row = status.iter().find(|row| row["kind"] == "inventory").unwrap();
    assert_eq!((&row["health"], &row["counters"]["disagreements"]), (&"healthy".into(), &1.into()));
    let detail = row["detail"].as_str().unwrap();
    assert!(detail.contains("app by kubelet") && detail.contains("k8s_app by docker"), "{detail}");
    let (_, _, metrics) = two.server.get_raw("/metrics", "").await;
    assert!(String::from_utf8(metrics).unwrap().contains("weir_inventory_disagreements 1\n"));
    two.server.stop().await;
}
