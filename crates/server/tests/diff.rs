//! Promise: what is different between two spans is told by the right name, and what chance explains is not; a span that was
//! not watched is no difference.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[cfg(test)]
mod support;

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::*;
use weir_testkit::cluster::kubernetes::{ApiServer, Tls};
use weir_wire::agent::Record;

/// Polls before anything changes: a quarter of an hour.
const QUIET: u64 = 90;
/// Polls in the span after that: five minutes.
const SPAN: u64 = 30;

/// A client that calls servers beyond the cluster.
struct Town {
    agent: TestAgent,
    session: Session,
    server: TestServer,
    cookie: u64,
    polls: u64,
    batches: u64,
}

impl Town {
    async fn open(flags: &[&str]) -> Self {
        let server = TestServer::start_in(Arc::new(tempfile::tempdir().unwrap()), clock(), flags).await;
        let agent = TestAgent::new("a", 1);
        let session = agent.connect(&server).await;
        Self { agent, session, server, cookie: 0, polls: 0, batches: 0 }
    }

    fn calls(&mut self, host: u8, count: u64, mend: impl Fn(&mut Record)) -> Vec<Record> {
        let end = START + (self.polls as i64 + 1) * POLL - SECOND;
        let call = |_| {
            self.cookie += 1;
            let local = format!("10.0.0.1:{}", 20_000 + self.cookie % 40_000);
            let view = view(self.cookie, &local, &format!("192.0.2.{host}:443"), 2, (20_000, 500), end);
            let mut record = Record { closed_unix_ns: end, close_reason: "closed".into(), ..view };
            mend(&mut record);
            record
        };
        (0..count).map(call).collect()
    }

    /// Ten seconds.
    async fn deliver(&mut self, records: Vec<Record>) {
        let batch = self.agent.batch(records);
        self.polls += 1;
        self.batches += 1;
        move_to(&self.server.clock, 10 * self.polls as i64);
        self.session.deliver(&batch).await;
        self.server.applied(self.batches).await;
    }

    async fn poll(&mut self, is_changed: bool) {
        let mut records = self.calls(1, 5, |record| {
            if is_changed {
                refuse(record);
            }
        });
        records.extend(self.calls(2, 5, |_| {}));
        records.extend(self.calls(if is_changed { 4 } else { 3 }, 5, |_| {}));
        records.extend(self.calls(5, 5, |record| {
            if is_changed {
                (record.sent_total, record.sent_delta) = (200_000, 200_000);
            }
        }));
        if self.polls.is_multiple_of(45) && !is_changed {
            records.extend(self.calls(6, 1, |_| {}));
        }
        records.extend(self.calls(7, 5, |record| {
            if !is_changed {
                refuse(record);
            }
        }));
        if self.polls == QUIET + 3 {
            records.extend(self.calls(8, 3, |_| {}));
        }
        if is_changed {
            records.extend(self.calls(9, 5, refuse));
        }
        self.deliver(records).await;
    }

    /// Every change by its server.
    async fn changes(&self, query: &str) -> BTreeMap<String, Value> {
        let items = self.server.items(&format!("/api/v1/diff?{query}")).await;
        let server = |change: &Value| {
            let edge = if change["after"].is_null() { &change["before"] } else { &change["after"] };
            edge["server"]["name"].as_str().unwrap().to_owned()
        };
        items.iter().map(|change| (server(change), change.clone())).collect()
    }
}

fn refuse(record: &mut Record) {
    "refused".clone_into(&mut record.close_reason);
    (record.sent_total, record.sent_delta, record.recv_total, record.recv_delta, record.rtt_us) = (0, 0, 0, 0, 0);
}

fn words(changes: &BTreeMap<String, Value>) -> Vec<(&str, &str)> {
    changes.iter().map(|(host, change)| (host.as_str(), change["change"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_named_and_what_stayed_is_not() {
    let mut town = Town::open(&[]).await;
    for _ in 0..QUIET {
        town.poll(false).await;
    }
    for quiet in ["before=5m&window=5m", "before=1m&window=1m", "before=10m&window=5m"] {
        assert_eq!(town.changes(quiet).await, BTreeMap::new(), "{quiet}");
    }
    for _ in 0..SPAN {
        town.poll(true).await;
    }
    let expected = [
        ("192.0.2.1", "sicker"),
        ("192.0.2.3", "gone"),
        ("192.0.2.4", "new"),
        ("192.0.2.5", "shifted"),
        ("192.0.2.7", "better"),
        ("192.0.2.9", "sicker"),
    ];
    let exact = format!("before={}..{}&after={}..{}", at(0), at(900), at(900), at(1200));
    for query in
        ["before=5m&window=5m", "before=5m&window=10m", "before=5m&window=5m&by=namespace&expand=node:a", &exact]
    {
        assert_eq!(words(&town.changes(query).await), expected, "{query}");
    }
    let changes = town.changes("before=5m&window=5m").await;
    let text = |host: &str| changes[host]["text"].as_str().unwrap();
    assert_eq!(text("192.0.2.1"), "150 of 150 connections refused in 300 s, before none");
    assert_eq!(text("192.0.2.3"), "gone: it was there in 30 of 30 steps, now in none of 30");
    assert_eq!(text("192.0.2.4"), format!("new since {}: 150 connections and 3075000 bytes", at(900)));
    assert_eq!(text("192.0.2.5"), "9.8 times as much: 100250 bytes a second, before 10250");
    assert_eq!(text("192.0.2.7"), "no longer: 150 of 150 connections refused in 300 s, now none");
    let sick = "not there before; 150 of 150 connections refused in 300 s, and nothing is known of before";
    assert_eq!(text("192.0.2.9"), sick);
    assert_eq!(changes["192.0.2.7"]["symptoms"][0]["now"], 0.0);
    assert_eq!(changes["192.0.2.7"]["symptoms"][0]["usual"], 1.0);
    assert!(changes["192.0.2.3"]["after"].is_null() && changes["192.0.2.9"]["before"].is_null());
    // The weightiest first, and what is beyond the limit is counted.
    let (_, body) = town.server.get("/api/v1/diff?before=5m&window=5m&limit=2").await;
    let items = body["items"].as_array().unwrap();
    assert!(items.len() == 2 && items.iter().all(|change| change["change"] == "sicker"), "{body:#}");
    let completeness = &body["completeness"];
    assert_eq!((&completeness["omitted"], &completeness["from"]), (&json!(4), &json!(at(900))));
    assert_eq!((&completeness["before"]["from"], &completeness["before"]["to"]), (&json!(at(600)), &json!(at(900))));
    // Filters hold for both spans; what is summed up may fit in either.
    let busy = town.changes("before=5m&window=5m&filter=bytes%3E10000000").await;
    assert_eq!(words(&busy), [("192.0.2.5", "shifted")]);
    assert_eq!(words(&town.changes("before=5m&window=5m&cidr=192.0.2.3").await), [("192.0.2.3", "gone")]);
    town.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_is_new_before_its_second_step_is_over_and_a_visit_is_not() {
    let mut town = Town::open(&[]).await;
    for _ in 0..QUIET {
        let records = town.calls(3, 5, |_| {});
        town.deliver(records).await;
    }
    let within = |from: i64, until: &str| format!("before={}..{}&after={}..{until}", at(600), at(900), at(from));
    let mut records = town.calls(3, 5, |_| {});
    records.extend(town.calls(4, 5, |_| {}));
    records.extend(town.calls(5, 5, |_| {}));
    town.deliver(records).await;
    for from in [900, 905] {
        assert_eq!(words(&town.changes(&within(from, &at(910))).await), []);
    }
    let mut records = town.calls(3, 5, |_| {});
    records.extend(town.calls(4, 5, |_| {}));
    town.deliver(records).await;
    // Of the second step half a second is missing.
    let half = at(919).replace('Z', ".5Z");
    for from in [900, 905] {
        let changes = town.changes(&within(from, &half)).await;
        assert_eq!(words(&changes), [("192.0.2.4", "new")]);
        let text = changes["192.0.2.4"]["text"].as_str().unwrap();
        assert!(text.starts_with(&format!("new since {}: 10 connections", at(from))), "{text}");
    }
    town.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_that_was_not_watched_makes_nothing_new_or_gone() {
    let mut town = Town::open(&[]).await;
    for _ in 0..60 {
        let records = town.calls(3, 5, |_| {});
        town.deliver(records).await;
    }
    // Nothing arrives for ten minutes, and what was then is never told.
    town.polls += 60;
    town.agent.covered_to += 60 * POLL;
    for _ in 0..60 {
        let records = town.calls(4, 5, |_| {});
        town.deliver(records).await;
    }
    let spans = |before: (i64, i64), after: (i64, i64)| {
        format!("before={}..{}&after={}..{}", at(before.0), at(before.1), at(after.0), at(after.1))
    };
    let (first, gap, last) = ((0, 600), (600, 1200), (1200, 1800));
    assert_eq!(words(&town.changes(&spans(first, gap)).await), []);
    assert_eq!(words(&town.changes(&spans(gap, last)).await), []);
    let both = town.changes(&spans(first, last)).await;
    assert_eq!(words(&both), [("192.0.2.3", "gone"), ("192.0.2.4", "new")]);
    // Steps that fit the longer span do not fit the shorter: that is no answer of no change.
    let (status, body) = town.server.get(&format!("/api/v1/diff?{}", spans((0, 1500), (1740, 1800)))).await;
    let problem = body["error"].as_str().unwrap();
    assert!(
        problem.contains("the span `after` is 1m long") && problem.contains("spans of 1m 30s or more"),
        "{problem}"
    );
    assert_eq!(status, 400);
    town.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_and_after_a_rollout_are_found_by_its_newest_replica_set() {
    let api = ApiServer::start(Tls::Off).unwrap();
    let roll_out = |name: &str, created: &str| {
        let owner =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "cart", "uid": "d", "controller": true});
        let metadata = json!({
            "name": name, "namespace": "shop", "uid": name, "creationTimestamp": created, "ownerReferences": [owner],
        });
        api.put("replicasets", json!({"metadata": metadata, "spec": {}})).unwrap();
    };
    roll_out("cart-1", "2025-12-01T00:00:00Z");
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("api-token");
    std::fs::write(&token, api.token()).unwrap();
    let url = api.url();
    let mut town = Town::open(&["--kubernetes", &url, "--kubernetes-token-file", token.to_str().unwrap()]).await;
    let sets = "/api/v1/metadata?kind=replica_set&limit=1000";
    let are = |count: usize| move |body: &Value| body["items"].as_array().unwrap().len() == count;
    town.server.until(sets, are(1)).await;
    for poll in 0..90 {
        if poll == 60 {
            roll_out("cart-2", &at(600));
            town.server.until(sets, are(2)).await;
        }
        let mut records = town.calls(2, 5, |_| {});
        records.extend(if poll < 60 { Vec::new() } else { town.calls(4, 5, |_| {}) });
        town.deliver(records).await;
    }
    assert_eq!(words(&town.changes("rollout=shop/cart&window=5m").await), [("192.0.2.4", "new")]);
    let (_, body) = town.server.get("/api/v1/diff?rollout=shop/cart").await;
    let completeness = &body["completeness"];
    assert_eq!((&completeness["from"], &completeness["to"]), (&json!(at(600)), &json!(at(900))), "{completeness:#}");
    assert_eq!(completeness["before"]["from"], at(0));
    let (status, body) = town.server.get("/api/v1/diff?rollout=shop/car").await;
    assert_eq!(status, 400);
    let problem = body["error"].as_str().unwrap();
    assert!(problem.contains("of which no ReplicaSet is known; known are those of shop/cart"), "{problem}");
    town.server.stop().await;
}
