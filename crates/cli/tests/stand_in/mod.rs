//! A stand-in for the server: answers what it is told to on a port of its own, and remembers what it was asked. And the
//! real `weir` binary, run against it without the caller's environment.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(missing_docs, reason = "test support")]
#![allow(clippy::unwrap_used, reason = "test support: a panic is the test's failure")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use weir_wire::api::{
    Answer, Completeness, ConnectionRow, DnsRow, Edge, EdgeEnd, LossTotal, MetadataRow, NodeCoverage, Point, Series,
    StatusRow, Steps, Transaction,
};

pub(crate) struct StandIn {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl StandIn {
    /// Answers every request with `status` and `body`, whatever it asks.
    pub(crate) fn answering(status: u16, body: impl Into<String>) -> Self {
        Self::sequence(vec![(status, body.into())])
    }

    /// Answers so much later.
    pub(crate) fn answering_after(delay: Duration, body: impl Into<String>) -> Self {
        let body = body.into();
        Self::start(move |_| {
            std::thread::park_timeout(delay);
            (200, body.clone())
        })
    }

    /// Answers with each in turn, and with the last from then on.
    pub(crate) fn sequence(answers: Vec<(u16, String)>) -> Self {
        let mut answers = answers.into_iter();
        let mut current = (404, String::new());
        Self::start(move |_| {
            if let Some(next) = answers.next() {
                current = next;
            }
            current.clone()
        })
    }

    /// Answers each path with its own body.
    pub(crate) fn by_path(bodies: Vec<(&'static str, String)>) -> Self {
        Self::start(move |head| {
            let path = head.split([' ', '?']).nth(1).unwrap_or_default();
            let body = bodies.iter().find(|(known, _)| *known == path);
            body.map_or((404, String::new()), |(_, body)| (200, body.clone()))
        })
    }

    fn start(mut answer: impl FnMut(&str) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut head = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
                log.lock().unwrap().push(head.clone());
                let (status, body) = answer(&head);
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Self { address, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far, head lines and all.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Runs `weir WORDS --server URL`.
    pub(crate) fn weir(&self, words: &[&str]) -> Output {
        weir(&[words, &["--server", &self.url()]].concat())
    }
}

/// `weir WORDS`, in UTC, without any setting of the caller's.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(words).env_clear().env("TZ", "UTC").env("HOME", "/nonexistent").env("PATH", "/usr/bin:/bin");
    command
}

pub(crate) fn weir(words: &[&str]) -> Output {
    command(words).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn body<T: serde::Serialize>(items: Vec<T>, completeness: Completeness) -> String {
    serde_json::to_string(&Answer { items, completeness }).unwrap()
}

pub(crate) fn complete() -> Completeness {
    Completeness {
        complete: true,
        from: "2026-01-31T10:00:00Z".into(),
        to: "2026-01-31T10:05:00Z".into(),
        nodes: vec![NodeCoverage {
            node: "alpha".into(),
            state: "reporting".into(),
            last_seen: Some("2026-01-31T10:04:58Z".into()),
            covered_ms: 300_000,
            clock_offset_ms: Some(-3),
            source_state: "ok".into(),
            ..NodeCoverage::default()
        }],
        ..Completeness::default()
    }
}

pub(crate) fn lossy() -> Completeness {
    let mut completeness = complete();
    completeness.complete = false;
    completeness.omitted = 7;
    completeness.nodes[0].missing_ms = 20_000;
    completeness.losses.push(LossTotal {
        node: "alpha".into(),
        place: "tracer".into(),
        reason: "tcp_closed_ring_full".into(),
        count: 12,
        bytes: 34_567,
        connections: 12,
        intended: false,
        from: Some("2026-01-31T10:00:00Z".into()),
        to: Some("2026-01-31T10:00:10Z".into()),
    });
    completeness
}

pub(crate) fn edges() -> Vec<Edge> {
    let process = |name: &str| EdgeEnd {
        kind: "process".into(),
        name: name.into(),
        node: Some("alpha".into()),
        ..EdgeEnd::default()
    };
    vec![
        Edge {
            client: process("curl"),
            server: EdgeEnd {
                kind: "external".into(),
                name: "203.0.113.7".into(),
                address: Some("203.0.113.7".into()),
                ..EdgeEnd::default()
            },
            port: 443,
            protocol: "tcp".into(),
            sent_bytes: 1_234,
            recv_bytes: 104_857_600,
            connections: 12,
            rtt_us: Some(12_345),
            retransmits: 3,
            certainty: "known".into(),
            ..Edge::default()
        },
        Edge {
            client: EdgeEnd {
                kind: "workload".into(),
                namespace: Some("shop".into()),
                name: "cart".into(),
                ..EdgeEnd::default()
            },
            server: process("redis"),
            service: Some("shop/redis".into()),
            port: 6379,
            protocol: "tcp".into(),
            sent_bytes: 18_446_744_073_709_551_615,
            recv_bytes: 0,
            connections: 1_234_567,
            failures: 2,
            certainty: "inferred".into(),
            ..Edge::default()
        },
    ]
}

/// The same two edges over five minutes, in steps of a minute, and all others.
pub(crate) fn series() -> Vec<Series> {
    let point = |at: &str, sent_bytes: u64, recv_bytes: u64| Point {
        at: format!("2026-01-31T10:{at}:00Z"),
        sent_bytes,
        recv_bytes,
        opened: 4,
        rtt_us: Some(900),
        ..Point::default()
    };
    let points = [vec![point("00", 1_000, 100_000_000), point("04", 234, 4_857_600)], vec![point("02", u64::MAX, 0)]];
    let mut rows: Vec<Series> = edges().into_iter().zip(points).map(|(edge, points)| Series { edge, points }).collect();
    let other = || EdgeEnd { kind: "other".into(), name: "other".into(), ..EdgeEnd::default() };
    let edge = Edge { client: other(), server: other(), sent_bytes: 9, certainty: "known".into(), ..Edge::default() };
    rows.push(Series { edge, points: vec![point("03", 9, 0)] });
    rows
}

/// Of [`series`]: a minute was not watched.
pub(crate) fn stepped() -> Completeness {
    let mut completeness = complete();
    completeness.omitted = 12;
    completeness.steps = Some(Steps {
        seconds: 60,
        from: completeness.from.clone(),
        to: completeness.to.clone(),
        incomplete: vec!["2026-01-31T10:01:00Z".into()],
    });
    completeness
}

pub(crate) fn transaction() -> Transaction {
    Transaction {
        key: "172.17.0.2-172.17.0.5-41515-53".into(),
        protocol: "udp".into(),
        node: "alpha".into(),
        boot_id: "0123456789abcdef0123456789abcdef".into(),
        instance: "tuple:4026531840:123".into(),
        source: "172.17.0.2".into(),
        dest: "172.17.0.5".into(),
        source_port: 41515,
        dest_port: 53,
        direction: "outgoing".into(),
        direction_certainty: "known".into(),
        monotonic_sent_bytes: 3079,
        monotonic_recv_bytes: 5849,
        bytes_before: 8928,
        sent_bytes_before: 3079,
        recv_bytes_before: 5849,
        state: "active".into(),
        pid: 123,
        process: Some("resolver".into()),
        net_ns: 4_026_531_840,
        first_seen: "2026-01-31T10:00:10Z".into(),
        last_seen: "2026-01-31T10:04:50Z".into(),
        ..Transaction::default()
    }
}

pub(crate) fn connection(process: &str) -> ConnectionRow {
    ConnectionRow {
        transaction: Transaction { process: Some(process.into()), rtt_us: Some(85), ..transaction() },
        sent_bytes: 100,
        recv_bytes: 2_000,
        retransmits: 0,
    }
}

pub(crate) fn metadata() -> MetadataRow {
    MetadataRow {
        key: "10.0.0.7".into(),
        kind: "pod".into(),
        source: "kubelet".into(),
        node: "alpha".into(),
        id: "9f1c".into(),
        name: "cart-0".into(),
        namespace: Some("shop".into()),
        addresses: vec!["10.0.0.7".into(), "fd00::7".into()],
        valid_from: "2026-01-30T09:00:00Z".into(),
        attributes: [("app".to_owned(), "cart".to_owned())].into(),
        ..MetadataRow::default()
    }
}

pub(crate) fn dns() -> DnsRow {
    let end = |kind: &str, name: &str| EdgeEnd { kind: kind.into(), name: name.into(), ..EdgeEnd::default() };
    DnsRow {
        client: end("process", "curl"),
        server: end("external", "10.0.0.10"),
        name: "shop.example".into(),
        query_type: "AAAA".into(),
        queries: 1_234,
        failures: 4,
        rcodes: [("noerror".to_owned(), 1_230), ("nxdomain".to_owned(), 3), ("timeout".to_owned(), 1)].into(),
        latency_us: Some(850),
        latency_max_us: Some(12_345),
        retransmits: 2,
        addresses: vec!["2001:db8::7".into(), "2001:db8::8".into()],
        last_seen: "2026-01-31T10:04:58Z".into(),
        ..DnsRow::default()
    }
}

pub(crate) fn status(health: &str) -> Vec<StatusRow> {
    vec![
        StatusRow {
            kind: "server".into(),
            name: "alpha".into(),
            health: "healthy".into(),
            version: "0.1.0".into(),
            last_seen: Some("2026-01-31T10:05:00Z".into()),
            counters: [("batches".to_owned(), 31), ("records".to_owned(), 12_345)].into(),
            ..StatusRow::default()
        },
        StatusRow {
            kind: "node".into(),
            name: "alpha".into(),
            health: health.into(),
            detail: if health == "healthy" { String::new() } else { "the feed answers 500".into() },
            version: "0.1.0".into(),
            last_seen: Some("2026-01-31T10:04:58Z".into()),
            counters: [("polls".to_owned(), 30)].into(),
        },
    ]
}
