//! Promise: with `--state configmap`, transactions and metadata outlive the server and its folder, one server at a time
//! writes them, and no update is lost as the first system lost them. Real servers, and the API server's stand-in.

#![cfg(test)]

mod server_process;
mod support;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use server_process::ServerProcess;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use support::*;
use weir_testkit::cluster::kubernetes::{ApiServer, Tls};

/// Not a promise of its own: the server process of the tests below.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_the_tests_below() {
    server_process::run_if_asked().await;
}

/// An API server with a namespace `weir`, and how a server gets there.
struct Cluster {
    api: ApiServer,
    folder: tempfile::TempDir,
}

impl Cluster {
    fn start(tls: Tls) -> Self {
        let api = ApiServer::start(tls).unwrap();
        api.put("namespaces", json!({"metadata": {"name": "weir"}})).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), api.token()).unwrap();
        std::fs::write(folder.path().join("ca.pem"), api.ca().unwrap_or_default()).unwrap();
        Self { api, folder }
    }

    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let file = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let mut arguments = vec!["--kubernetes".to_owned(), self.api.url()];
        arguments.extend(["--kubernetes-token-file".to_owned(), file("token")]);
        if self.api.ca().is_some() {
            arguments.extend(["--kubernetes-ca".to_owned(), file("ca.pem")]);
        }
        let state = ["--state", "configmap", "--configmap-namespace", "weir", "--configmap-lease", "2s"];
        arguments.extend(state.iter().chain(more).map(|word| (*word).to_owned()));
        arguments
    }

    fn spawn(&self) -> ServerProcess {
        let arguments = self.arguments(&[]);
        ServerProcess::spawn(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Every row of every ConfigMap of transactions, by its key.
    fn rows(&self) -> BTreeMap<String, Value> {
        let mut rows = BTreeMap::new();
        for object in self.api.objects("configmaps").unwrap() {
            if !object["metadata"]["name"].as_str().unwrap().contains("transactions") {
                continue;
            }
            for (key, text) in object["data"].as_object().into_iter().flatten() {
                rows.insert(key.clone(), serde_json::from_str(text.as_str().unwrap()).unwrap());
            }
        }
        rows
    }

    /// What was told and is not there, or is older there. The same check for both systems: a told update is the beginning
    /// of a key with the bytes that were sent.
    fn missing(&self, told: &[(String, u64)]) -> Vec<String> {
        let rows = self.rows();
        let is_there = |(key, sent): &&(String, u64)| {
            rows.iter().any(|(found, row)| found.starts_with(key.as_str()) && row["sent"].as_u64() >= Some(*sent))
        };
        told.iter().filter(|update| !is_there(update)).map(|(key, _)| key.clone()).collect()
    }

    /// A request as the first system made them, without a version.
    fn ask(&self, method: &str, name: &str, body: &str) -> Value {
        let address = self.api.url().trim_start_matches("http://").to_owned();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let (token, length) = (self.api.token(), body.len());
        let path = format!("/api/v1/namespaces/weir/configmaps/{name}");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let body = &answer[answer.find('{').unwrap()..=answer.rfind('}').unwrap()];
        serde_json::from_str(body).unwrap()
    }
}

/// The first system's writer: it reads a ConfigMap, adds what it knows, and writes the whole over whatever is there.
struct BlindWriter {
    read: Value,
}

impl BlindWriter {
    fn read(cluster: &Cluster, name: &str) -> Self {
        Self { read: cluster.ask("GET", name, "") }
    }

    fn write(mut self, cluster: &Cluster, key: &str, value: &str) {
        let name = self.read["metadata"]["name"].as_str().unwrap().to_owned();
        self.read["data"][key] = json!(value);
        self.read["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        cluster.ask("PUT", &name, &self.read.to_string());
    }
}

/// The told updates of both ends' views of a connection, as [`both_views`] has it.
fn told(port: u16, sent: u64, recv: u64) -> Vec<(String, u64)> {
    vec![(format!("127.0.0.1-127.0.0.1-{port}-80"), sent), (format!("127.0.0.1-127.0.0.1-80-{port}"), recv)]
}

fn sorted(mut items: Vec<Value>) -> Vec<Value> {
    items.sort_by_key(ToString::to_string);
    items
}

const TRANSACTIONS: &str = "/api/v1/transactions";
const METADATA: &str = "/api/v1/metadata?kind=node";
const SHARD: &str = "weir-transactions-a-0";

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_folder_goes_on_from_the_configmaps_and_a_second_server_is_told_who_the_first_is() {
    let cluster = Cluster::start(Tls::On);
    let first = cluster.spawn();
    let server = first.listening().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    let six = view(9, "[fd00::1]:40001", "[fd00::2]:80", 2, (500, 5), START + POLL);
    let mut batch = agent.batch([both_views(1, 40000, 100, 7, START + POLL), vec![six]].concat());
    batch.metadata.push(node_fact("a", &["10.0.0.1", "fd00::1"]));
    session.deliver(&batch).await;
    server.applied(1).await;
    let answers = (sorted(server.items(TRANSACTIONS).await), sorted(server.items(METADATA).await));
    assert_eq!((answers.0.len(), answers.1.len()), (3, 1), "{answers:?}");
    first.signal(Signal::SIGKILL);
    first.end().await;
    let updates = [told(40000, 100, 7), vec![("fd00__1-fd00__2-40001-80.".to_owned(), 500)]].concat();
    assert_eq!(cluster.missing(&updates), [""; 0]);
    // The second watches until the first one's lease is over, and has nothing but the ConfigMaps.
    let second = cluster.spawn();
    let server = second.listening().await;
    assert_eq!((sorted(server.items(TRANSACTIONS).await), sorted(server.items(METADATA).await)), answers);
    let third = cluster.spawn();
    let (code, said) = third.end().await;
    assert_eq!(code, Some(1), "{said}");
    let holder = format!("process {} on ", second.id());
    assert!(said.contains(&holder) && said.contains("owns it; stop that server"), "{said}");
    assert_eq!(server.items(TRANSACTIONS).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_server_ends_when_it_wakes_and_has_written_nothing_over_its_successor() {
    let cluster = Cluster::start(Tls::Off);
    let first = cluster.spawn();
    let server = first.listening().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    session.deliver(&agent.batch(both_views(1, 40000, 100, 7, START + POLL))).await;
    server.applied(1).await;
    first.pause();
    // It lies in the paused server's socket: an update of what is there, and a node that no ConfigMap is of yet.
    session.send_ahead(frame(&agent.batch(both_views(1, 40000, 150, 7, START + 2 * POLL)))).await;
    let second = cluster.spawn();
    let server = second.listening().await;
    let mut other = TestAgent::new("b", 2);
    other.connect(&server).await.deliver(&other.batch(both_views(5, 40002, 1, 1, START + POLL))).await;
    server.applied(1).await;
    let before = cluster.rows();
    first.signal(Signal::SIGCONT);
    let (code, said) = first.end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("process {} on ", second.id())) && said.contains("owns it now"), "{said}");
    assert_eq!(cluster.rows(), before);
    assert_eq!(server.items(TRANSACTIONS).await.len(), 4, "two of the first, two of the second");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_api_server_is_away_batches_are_acknowledged_readers_answered_and_afterwards_nothing_is_missing() {
    let mut cluster = Cluster::start(Tls::Off);
    let process = cluster.spawn();
    let server = process.listening().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    session.deliver(&agent.batch(both_views(1, 40000, 100, 7, START + POLL))).await;
    server.applied(1).await;
    cluster.api.stop();
    // Durable in the log, whatever the API server does.
    session.deliver(&agent.batch(both_views(3, 40001, 50, 7, START + 2 * POLL))).await;
    assert_eq!(server.items(TRANSACTIONS).await.len(), 2);
    let updates = [told(40000, 100, 7), told(40001, 50, 7)].concat();
    assert_eq!(cluster.missing(&updates).len(), 2);
    cluster.api.start_again().unwrap();
    server.applied(2).await;
    assert_eq!(server.items(TRANSACTIONS).await.len(), 4);
    assert_eq!(cluster.missing(&updates), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_systems_blind_overwrite_loses_an_update_that_the_same_check_sees_and_ours_comes_back() {
    let cluster = Cluster::start(Tls::Off);
    // Two of the first system's nodes, as they meet sooner or later.
    let empty = json!({"metadata": {"name": "transactions", "namespace": "weir"}, "data": {}});
    cluster.api.put("configmaps", empty).unwrap();
    let (one, other) = (BlindWriter::read(&cluster, "transactions"), BlindWriter::read(&cluster, "transactions"));
    one.write(&cluster, "10.0.0.1-10.0.0.2-40000-80", r#"{"sent":100}"#);
    other.write(&cluster, "10.0.0.3-10.0.0.4-40000-80", r#"{"sent":200}"#);
    let updates = [("10.0.0.1-10.0.0.2-40000-80".to_owned(), 100), ("10.0.0.3-10.0.0.4-40000-80".to_owned(), 200)];
    assert_eq!(cluster.missing(&updates), ["10.0.0.1-10.0.0.2-40000-80"], "acknowledged, and gone");
    cluster.api.delete("configmaps", "weir", "transactions").unwrap();
    // One of them against weir's own ConfigMap: it read before the second batch, and writes after it.
    let process = cluster.spawn();
    let server = process.listening().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    session.deliver(&agent.batch(both_views(1, 40000, 100, 7, START + POLL))).await;
    server.applied(1).await;
    let blind = BlindWriter::read(&cluster, SHARD);
    session.deliver(&agent.batch(both_views(3, 40001, 50, 9, START + 2 * POLL))).await;
    server.applied(2).await;
    let mut updates = [told(40000, 100, 7), told(40001, 50, 9)].concat();
    assert_eq!(cluster.missing(&updates), [""; 0]);
    let (key, row) = cluster.rows().into_iter().find(|(key, _)| key.contains("-40000-80.")).unwrap();
    blind.write(&cluster, &key, &row.to_string());
    assert_eq!(cluster.missing(&updates).len(), 2, "the second batch is overwritten");
    session.deliver(&agent.batch(both_views(5, 40002, 30, 8, START + 3 * POLL))).await;
    server.applied(3).await;
    updates.extend(told(40002, 30, 8));
    assert_eq!(cluster.missing(&updates), [""; 0], "it is noticed, and merged again");
    assert!(server.store_counter("configmap_conflicts").await >= 1);
}

/// Both views of some connections that close at once.
fn closed(cookie: u64, connections: u64, to: i64) -> Vec<weir_wire::agent::Record> {
    let views = (0..connections).flat_map(|number| {
        let cookie = cookie + 2 * number;
        both_views(cookie, 30_000 + cookie as u16, 100, 7, to)
    });
    let close = |mut record: weir_wire::agent::Record| {
        record.closed_unix_ns = to;
        record.close_reason = "closed".into();
        record
    };
    views.map(close).collect()
}

fn apply_failures(status: &Value) -> u64 {
    let row = status["items"].as_array().unwrap().iter().find(|row| row["kind"] == "server").unwrap();
    row["counters"]["apply_failures"].as_u64().unwrap()
}

/// An outgrown state is told, loses nothing, and takes the rest as soon as what is past its time has left it: while the
/// server runs, and when it starts.
#[tokio::test(flavor = "multi_thread")]
async fn an_outgrown_state_refuses_until_what_is_past_its_time_has_made_room() {
    let cluster = Cluster::start(Tls::Off);
    let arguments = cluster.arguments(&["--configmap-bytes", "64KiB"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = TestServer::start_in(Arc::new(tempfile::tempdir().unwrap()), clock(), &arguments).await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    let (first, second, third) =
        (closed(1, 30, START + POLL), closed(1_001, 30, START + 2 * POLL), closed(2_001, 30, START + 3 * POLL));
    session.deliver(&agent.batch(first)).await;
    server.applied(1).await;
    let full = cluster.rows();
    assert_eq!(full.len(), 60);
    session.deliver(&agent.batch(second)).await;
    server.until("/api/v1/status", |body| apply_failures(body) >= 2).await;
    assert_eq!(cluster.rows().keys().collect::<Vec<_>>(), full.keys().collect::<Vec<_>>());
    // Two hours after their close the first leave, in the middle of the tries.
    server.clock.advance(3 * 3600 * SECOND as u64);
    server.applied(2).await;
    let full = cluster.rows();
    assert_eq!(full.len(), 60);
    assert!(full.keys().all(|key| !key.contains("-30001-")), "{full:?}");
    // And the same where the server ends meanwhile, and starts when their time has come.
    let now = START + 3 * 3600 * SECOND + 3 * POLL;
    let third: Vec<_> = third
        .into_iter()
        .map(|mut record| {
            (record.from_unix_ns, record.to_unix_ns, record.closed_unix_ns) = (now - POLL, now, now);
            record
        })
        .collect();
    agent.covered_to = now - POLL;
    let before = apply_failures(&server.get("/api/v1/status").await.1);
    session.deliver(&agent.batch(third)).await;
    server.until("/api/v1/status", |body| apply_failures(body) >= before + 2).await;
    drop(session);
    let (folder, clock) = server.stop().await;
    clock.advance(3600 * SECOND as u64);
    let server = TestServer::start_in(folder, clock, &arguments).await;
    server.applied(3).await;
    assert_eq!(cluster.rows().len(), 60);
    assert_eq!(sum(&server.items(TRANSACTIONS).await, "monotonic_sent_bytes"), 30 * 107);
    server.stop().await;
}
