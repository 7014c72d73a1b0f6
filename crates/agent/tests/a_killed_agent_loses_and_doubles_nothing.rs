//! SIGKILL at random moments, against a tracer that repeats closed rows until they are acknowledged.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::agent::Agent;
use support::feed::{Answer, Feed};
use support::ingest::Ingest;
use support::{after, monotonic, until};
use weir_wire::feed::{Connection, Reply};

/// A tracer whose connections move whenever it is asked.
#[derive(Default)]
struct Tracer {
    open: Vec<Connection>,
    /// Closed ones that were not acknowledged, each with its sequence.
    closed: Vec<(u64, Connection)>,
    sequence: u64,
    pages: u64,
    truth: BTreeMap<u64, u64>,
    replies: u64,
    next_cookie: u64,
    random: u64,
    frozen: bool,
}

/// Closed rows in a page.
const PAGE: usize = 1;

impl Tracer {
    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn begin(&mut self, start: Option<u64>, sent: u64) {
        self.next_cookie += 1;
        let cookie = self.next_cookie;
        self.truth.insert(cookie, sent);
        self.open.push(Connection {
            cookie: Some(cookie),
            source: "10.0.0.1".into(),
            dest: "10.0.0.2".into(),
            sport: 1024 + (cookie % 60_000) as u16,
            dport: 80,
            monotonic_sent_bytes: Some(sent),
            monotonic_recv_bytes: Some(sent / 2),
            start_epoch: start,
            state: Some("established".into()),
            ..Connection::default()
        });
    }

    fn step(&mut self) {
        for _ in 0..self.random(4) {
            let sent = self.random(1000);
            self.begin(Some(monotonic()), sent);
        }
        for index in 0..self.open.len() {
            if self.random(3) > 0 {
                let more = self.random(10_000);
                let row = &mut self.open[index];
                let sent = row.monotonic_sent_bytes.unwrap() + more;
                row.monotonic_sent_bytes = Some(sent);
                row.monotonic_recv_bytes = Some(sent / 2);
                self.truth.insert(row.cookie.unwrap(), sent);
            }
        }
        for _ in 0..self.random(4) {
            if self.open.len() > 5 {
                let index = self.random(self.open.len() as u64) as usize;
                let mut row = self.open.swap_remove(index);
                row.state = Some("closed".into());
                row.close_reason = Some("closed".into());
                row.close_epoch = Some(monotonic());
                self.sequence += 1;
                self.closed.push((self.sequence, row));
            }
        }
    }

    fn answer(&mut self, target: &str) -> Answer {
        if !target.starts_with("/connections") {
            return Answer::Status(404);
        }
        let acknowledged = target.split("&ack=").nth(1).and_then(|ack| ack.parse::<u64>().ok());
        if let Some(ack) = acknowledged {
            self.closed.retain(|(sequence, _)| *sequence > ack);
        }
        let snapshot = monotonic();
        self.replies += 1;
        if !self.frozen {
            self.step();
        }
        // A real page is of thousands; of one, many a poll comes in several.
        let is_page = acknowledged.is_some() && target.contains("&page=") && self.closed.len() > PAGE;
        self.pages += u64::from(is_page);
        let open: &[Connection] = if is_page { &[] } else { &self.open };
        let closed = if is_page { &self.closed[..PAGE] } else { &self.closed[..] };
        let cursor = if is_page { closed.last().map_or(0, |(sequence, _)| *sequence) } else { self.sequence };
        let reply = Reply {
            run_id: Some("00000000000000aa".into()),
            monotonic_ns: Some(snapshot),
            connections: closed.iter().map(|(_, row)| row.clone()).chain(open.iter().cloned()).collect(),
            cursor: Some(cursor),
            more: is_page.then_some(true),
            complete: Some(true),
            ..Reply::default()
        };
        Answer::Body(serde_json::to_vec(&reply).unwrap())
    }
}

#[test]
fn ten_kills_at_random_moments_lose_nothing_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut tracer = Tracer { random: u64::from(std::process::id()), ..Tracer::default() };
    for _ in 0..10 {
        tracer.begin(None, 5_000);
    }
    let tracer = Arc::new(Mutex::new(tracer));
    let asked = Arc::clone(&tracer);
    let _feed = Feed::serve(&folder.path().join("feed.sock"), move |target| asked.lock().unwrap().answer(target));
    let ingest = Ingest::start();
    for round in 0..10u64 {
        let agent = Agent::start(folder.path(), &ingest.url, &["--interval", "10ms"]);
        let begun = tracer.lock().unwrap().replies;
        until("the agent polls", || (tracer.lock().unwrap().replies > begun + 1).then_some(()));
        let pause = tracer.lock().unwrap().random(150);
        after(Duration::from_millis(pause + round));
        agent.kill();
    }
    let agent = Agent::start(folder.path(), &ingest.url, &["--interval", "10ms"]);
    let frozen_at = {
        let mut tracer = tracer.lock().unwrap();
        tracer.frozen = true;
        tracer.replies
    };
    until("the agent has acknowledged everything", || {
        let tracer = tracer.lock().unwrap();
        (tracer.closed.is_empty() && tracer.replies > frozen_at + 3).then_some(())
    });
    assert!(agent.stop().success());

    let held = ingest.held();
    assert!(held.changed.is_empty(), "a resend is byte for byte the same: {:?}", held.changed);
    let mut sums: BTreeMap<(u64, u32), (u64, u64, u64)> = BTreeMap::new();
    for record in held.records() {
        let sum = sums.entry((record.cookie, record.generation)).or_insert((0, record.sent_before, 0));
        sum.0 += record.sent_delta;
        assert_eq!(sum.1, record.sent_before);
        sum.2 = sum.2.max(record.sent_total);
    }
    let told: BTreeMap<u64, u64> =
        sums.iter().map(|((cookie, _), (delta, before, _))| (*cookie, delta + before)).collect();
    let truth = tracer.lock().unwrap().truth.clone();
    assert!(truth.len() > 50, "{} connections", truth.len());
    assert!(tracer.lock().unwrap().pages > 0, "closed rows came in pages, too");
    assert_eq!(told, truth);
    for ((cookie, generation), (delta, before, total)) in sums {
        assert_eq!((generation, delta + before), (0, total), "connection {cookie}");
        assert!(cookie <= 10 || before == 0, "connection {cookie} began after the stream");
    }
}
