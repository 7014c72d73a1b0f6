//! A real server on free ports under a clock that the test moves, an agent that speaks the real protocol, and a reader.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use clap::Parser as _;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use weir_daemon::clock::{Clock as _, ManualClock};
use weir_model::MonotonicNanos;
use weir_server::{Args, Server};
use weir_wire::agent::agent_message::Message as FromAgent;
use weir_wire::agent::ingest_client::IngestClient;
use weir_wire::agent::record::InstanceKind;
use weir_wire::agent::server_message::Message as ToAgent;
use weir_wire::agent::{
    Address, AgentMessage, Batch, Frame, Hello, LocalEnd, MetadataFact, Record, ServerMessage, Source, Welcome,
};

/// 2026-01-01T00:00:00Z, where every test's clock starts.
pub const START: i64 = 1_767_225_600_000_000_000;
pub const SECOND: i64 = 1_000_000_000;
/// A poll.
pub const POLL: i64 = 10 * SECOND;
const DEADLINE: Duration = Duration::from_secs(20);

pub struct TestServer {
    pub folder: Arc<TempDir>,
    pub clock: Arc<ManualClock>,
    pub http: SocketAddr,
    pub agents: SocketAddr,
    shutdown: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

pub fn args(folder: &Path, more: &[&str]) -> Args {
    let folder = folder.to_str().unwrap();
    let fixed = ["weir-server", "--data", folder, "--listen", "127.0.0.1:0", "--agents-listen", "127.0.0.1:0"];
    Args::parse_from(fixed.iter().chain(more))
}

pub fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(MonotonicNanos(1_000_000_000_000), START - 1_000_000_000_000))
}

impl TestServer {
    pub async fn start() -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), clock(), &[]).await
    }

    #[expect(clippy::disallowed_methods, reason = "the test awaits it in `stop` or drops the runtime")]
    pub async fn start_in(folder: Arc<TempDir>, clock: Arc<ManualClock>, more: &[&str]) -> Self {
        let shutdown = CancellationToken::new();
        let server =
            Server::start(args(folder.path(), more), Arc::clone(&clock) as Arc<_>, shutdown.clone()).await.unwrap();
        let (http, agents) = (server.http, server.agents);
        let running = tokio::spawn(server.run());
        Self { folder, clock, http, agents, shutdown, running }
    }

    /// One in another process, with the system's clock: it is asked and delivered to as any.
    #[expect(clippy::disallowed_methods, reason = "a task without work")]
    pub fn elsewhere(folder: Arc<TempDir>, http: SocketAddr, agents: SocketAddr) -> Self {
        let running = tokio::spawn(async { Ok(()) });
        Self { folder, clock: clock(), http, agents, shutdown: CancellationToken::new(), running }
    }

    /// Stops it in the orderly way.
    pub async fn stop(self) -> (Arc<TempDir>, Arc<ManualClock>) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
        (self.folder, self.clock)
    }

    pub async fn restart(self) -> Self {
        let (folder, clock) = self.stop().await;
        Self::start_in(folder, clock, &[]).await
    }

    /// A copy of the data folder as it is on disk now, as a machine that loses its power would find it.
    pub fn copy_of_folder(&self) -> Arc<TempDir> {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(self.folder.path(), copy.path());
        Arc::new(copy)
    }

    pub async fn client(&self) -> IngestClient<tonic::transport::Channel> {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", self.agents)).unwrap();
        IngestClient::new(endpoint.connect().await.unwrap())
    }

    /// What the path answers: the status and the body.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        let (status, _, body) = self.get_raw(path, "").await;
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// What the path answers: the status, the head, the body.
    pub async fn get_raw(&self, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
        let mut stream = tokio::net::TcpStream::connect(self.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), answer[end + 4..].to_vec())
    }

    /// The items of a path that must answer 200.
    pub async fn items(&self, path: &str) -> Vec<Value> {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body["items"].as_array().unwrap().clone()
    }

    /// Asks until `wanted` is true of the whole answer.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let (status, body) = self.get(path).await;
            assert_eq!(status, 200, "{path}: {body}");
            if wanted(&body) {
                return body;
            }
            assert!(tokio::time::Instant::now() < deadline, "{path} still answers {body:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until everything that was acknowledged is in the state.
    pub async fn applied(&self, batches: u64) {
        self.until("/api/v1/status", |body| {
            let nodes = body["items"].as_array().unwrap().iter().filter(|row| row["kind"] == "node");
            nodes.map(|row| row["counters"]["batches"].as_u64().unwrap_or(0)).sum::<u64>() == batches
        })
        .await;
    }

    /// Lets a window pass and waits until what was pending is a segment.
    pub async fn flushed(&self) {
        self.clock.advance(POLL as u64);
        self.until("/api/v1/status", |body| store_counter(body, "pending_rows") == 0).await;
        self.until("/api/v1/status", |body| store_counter(body, "log_entries") == store_counter(body, "watermark"))
            .await;
    }

    pub async fn store_counter(&self, name: &str) -> u64 {
        let (_, body) = self.get("/api/v1/status").await;
        store_counter(&body, name)
    }
}

fn store_counter(body: &Value, name: &str) -> u64 {
    let rows = body["items"].as_array().unwrap();
    rows.iter().find(|row| row["kind"] == "store").unwrap()["counters"][name].as_u64().unwrap()
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// An agent with a stream of its own.
pub struct TestAgent {
    pub node: String,
    pub stream: [u8; 16],
    pub run: [u8; 16],
    pub sequence: u64,
    pub covered_to: i64,
    pub ends: Vec<LocalEnd>,
}

/// A session with a server.
pub struct Session {
    frames: mpsc::Sender<AgentMessage>,
    answers: Streaming<ServerMessage>,
    pub welcome: Option<Welcome>,
    pub first: Option<ToAgent>,
}

impl TestAgent {
    pub fn new(node: &str, number: u8) -> Self {
        Self {
            node: node.to_owned(),
            stream: [number; 16],
            run: [number; 16],
            sequence: 0,
            covered_to: START,
            ends: vec![end(4_026_531_840, 100, "client"), end(4_026_531_840, 200, "server")],
        }
    }

    pub fn hello(&self) -> Hello {
        Hello {
            protocol: 1,
            stream_id: self.stream.to_vec().into(),
            agent_run: self.run.to_vec().into(),
            node: self.node.clone(),
            boot_id: vec![7; 16].into(),
            oldest_sequence: self.sequence + 1,
            next_sequence: self.sequence + 1,
            version: "test".into(),
            sent_at_unix_ns: START,
        }
    }

    pub async fn connect(&self, server: &TestServer) -> Session {
        Session::open(server, self.hello()).await
    }

    /// The next batch: a poll that covers 10 s and yielded these records.
    pub fn batch(&mut self, records: Vec<Record>) -> Batch {
        self.sequence += 1;
        let from = self.covered_to;
        self.covered_to += POLL;
        Batch {
            format: 1,
            stream_id: self.stream.to_vec().into(),
            sequence: self.sequence,
            node: self.node.clone(),
            boot_id: vec![7; 16].into(),
            agent_run: self.run.to_vec().into(),
            agent_version: "test".into(),
            covers_from_unix_ns: from,
            covers_to_unix_ns: self.covered_to,
            covered: true,
            source: Some(Source {
                kind: "weir".into(),
                state: "ok".into(),
                rows: records.len() as u64,
                ..Source::default()
            }),
            local_ends: self.ends.clone(),
            records,
            ..Batch::default()
        }
    }
}

pub fn end(netns: u32, pid: u32, process: &str) -> LocalEnd {
    LocalEnd { netns, pid, process_start_ns: 5, process_name: process.into(), ..LocalEnd::default() }
}

pub fn node_fact(node: &str, addresses: &[&str]) -> MetadataFact {
    MetadataFact {
        kind: "node".into(),
        source: "proc".into(),
        id: node.into(),
        name: node.into(),
        addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
        from_unix_ns: START - POLL,
        ..MetadataFact::default()
    }
}

pub fn address(text: &str) -> Address {
    Address::of(text.parse().unwrap())
}

/// What a view of a TCP connection tells in one poll that ends at `to`.
pub fn view(cookie: u64, local: &str, remote: &str, direction: u32, delta: (u64, u64), to: i64) -> Record {
    Record {
        instance_kind: InstanceKind::Socket.into(),
        cookie,
        local: Some(address(local)),
        remote: Some(address(remote)),
        direction,
        direction_certainty: 2,
        local_end: u32::from(direction == 1),
        sent_total: delta.0,
        recv_total: delta.1,
        sent_delta: delta.0,
        recv_delta: delta.1,
        from_unix_ns: to - POLL,
        to_unix_ns: to,
        start_unix_ns: to - 5 * SECOND,
        opened: true,
        state: "established".into(),
        rtt_us: 100,
        ..Record::default()
    }
}

/// Both views of a connection over loopback.
pub fn both_views(cookie: u64, port: u16, sent: u64, recv: u64, to: i64) -> Vec<Record> {
    let (client, server) = (format!("127.0.0.1:{port}"), "127.0.0.1:80");
    vec![view(cookie, &client, server, 2, (sent, recv), to), view(cookie + 1, server, &client, 1, (recv, sent), to)]
}

pub fn frame(batch: &Batch) -> Frame {
    Frame::new(batch.sequence, batch.to_bytes().unwrap().into(), START)
}

impl Session {
    pub async fn open(server: &TestServer, hello: Hello) -> Self {
        Self::open_with(server, hello, None).await.unwrap()
    }

    /// Shows a token; a refusal at the door is the error, one behind it is there instead of a first message.
    pub async fn open_with(server: &TestServer, hello: Hello, token: Option<&str>) -> Result<Self, tonic::Status> {
        let mut client = server.client().await;
        let (frames, stream) = mpsc::channel(16);
        frames.send(AgentMessage { message: Some(FromAgent::Hello(hello)) }).await.unwrap();
        let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
        let mut request = tonic::Request::new(stream);
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let mut answers = client.deliver(request).await?.into_inner();
        let first = match answers.message().await {
            Ok(answer) => answer.and_then(|answer| answer.message),
            Err(status) if token.is_some() => return Err(status),
            Err(_) => None,
        };
        let welcome = match &first {
            Some(ToAgent::Welcome(welcome)) => Some(*welcome),
            _ => None,
        };
        Ok(Self { frames, answers, welcome, first })
    }

    /// Sends a frame and answers what the server says to it.
    pub async fn send_frame(&mut self, frame: Frame) -> ToAgent {
        self.frames.send(AgentMessage { message: Some(FromAgent::Frame(frame)) }).await.unwrap();
        self.answers.message().await.unwrap().unwrap().message.unwrap()
    }

    /// Sends a frame and waits for nothing.
    pub async fn send_ahead(&mut self, frame: Frame) {
        self.frames.send(AgentMessage { message: Some(FromAgent::Frame(frame)) }).await.unwrap();
    }

    /// Sends a batch that must end the call; says with what.
    pub async fn send_to_be_refused(&mut self, batch: &Batch) -> tonic::Status {
        self.frames.send(AgentMessage { message: Some(FromAgent::Frame(frame(batch))) }).await.unwrap();
        self.answers.message().await.unwrap_err()
    }

    pub async fn send(&mut self, batch: &Batch) -> ToAgent {
        self.send_frame(frame(batch)).await
    }

    /// Sends a batch that must be acknowledged.
    pub async fn deliver(&mut self, batch: &Batch) {
        match self.send(batch).await {
            ToAgent::Ack(ack) => assert_eq!(ack.sequence, batch.sequence),
            other => panic!("expected an acknowledgement of {}, got {other:?}", batch.sequence),
        }
    }
}

/// Seconds since the start as a query parameter.
/// A counter of a status answer, whoever has it; 0 without.
pub fn counter(body: &serde_json::Value, name: &str) -> u64 {
    body["items"].as_array().into_iter().flatten().find_map(|row| row["counters"][name].as_u64()).unwrap_or(0)
}

pub fn at(seconds: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(START + seconds * SECOND)).unwrap().to_string()
}

/// Moves the clock to `seconds` since the start.
pub fn move_to(clock: &ManualClock, seconds: i64) {
    let target = START + seconds * SECOND;
    let now = clock.wall().0;
    assert!(target >= now, "clocks go forward");
    clock.advance((target - now) as u64);
}

/// Sums a field over items.
pub fn sum(items: &[Value], field: &str) -> u64 {
    items.iter().map(|item| item[field].as_u64().unwrap()).sum()
}
