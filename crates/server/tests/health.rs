//! Promise: an edge that does worse than its own past is called unhealthy, by the right name, within two windows; one that
//! always did so is not; where too little happened nothing is said.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[cfg(test)]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use support::*;
use weir_wire::agent::record::InstanceKind;
use weir_wire::agent::{Dns, Record};

/// Polls before the trouble: ten minutes and a bit, so that the past has ten whole ones.
const QUIET: u64 = 66;

/// A client that calls servers beyond the cluster, five times a poll.
struct Town {
    agent: TestAgent,
    session: Session,
    server: TestServer,
    cookie: u64,
    polls: u64,
}

impl Town {
    async fn open() -> Self {
        let server = TestServer::start().await;
        let agent = TestAgent::new("a", 1);
        let session = agent.connect(&server).await;
        Self { agent, session, server, cookie: 0, polls: 0 }
    }

    fn end(&self) -> i64 {
        START + (self.polls as i64 + 1) * POLL - SECOND
    }

    fn call(&mut self, to: &str) -> Record {
        self.cookie += 1;
        let local = format!("10.0.0.1:{}", 20_000 + self.cookie % 40_000);
        Record {
            closed_unix_ns: self.end(),
            close_reason: "closed".into(),
            ..view(self.cookie, &local, to, 2, (20_000, 500), self.end())
        }
    }

    fn calls(&mut self, host: u8, count: u64, mend: impl Fn(u64, &mut Record)) -> Vec<Record> {
        let to = format!("192.0.2.{host}:443");
        let call = |number| {
            let mut record = self.call(&to);
            mend(number, &mut record);
            record
        };
        (0..count).map(call).collect()
    }

    fn queries(&mut self, name: &str, rcode: &str, count: u64) -> Dns {
        let at = self.end();
        Dns {
            server: vec![192, 0, 2, 53].into(),
            name: name.into(),
            query_type: "A".into(),
            rcode: rcode.into(),
            count,
            latency_sum_us: 300 * count,
            latency_max_us: 500,
            first_unix_ns: at,
            last_unix_ns: at,
            ..Dns::default()
        }
    }

    /// Ten seconds.
    async fn poll(&mut self, is_sick: bool) {
        let refused = |record: &mut Record| {
            "refused".clone_into(&mut record.close_reason);
            (record.sent_total, record.sent_delta, record.recv_total, record.recv_delta, record.rtt_us) =
                (0, 0, 0, 0, 0);
        };
        let mut records = self.calls(1, 5, |_, record| {
            if is_sick {
                refused(record);
            }
        });
        records.extend(self.calls(2, 5, |number, record| {
            if number < 2 {
                refused(record);
            }
        }));
        records.extend(self.calls(3, 5, |_, record| {
            (record.retransmits_total, record.retransmits_delta) = if is_sick { (4, 4) } else { (0, 0) };
        }));
        records.extend(self.calls(4, 5, |number, record| {
            record.rtt_us = if is_sick { 40_000 } else { 300 } + 10 * number as u32;
        }));
        records.extend(self.calls(5, 5, |_, _| {}));
        if is_sick {
            records.extend(self.calls(7, 8, |_, record| refused(record)));
        }
        if is_sick && self.polls == QUIET {
            records.extend(self.calls(6, 1, |_, record| refused(record)));
        }
        let mut lookup = self.call("192.0.2.53:53");
        (lookup.protocol, lookup.rtt_us, lookup.instance_kind) = (1, 0, InstanceKind::Peer.into());
        records.push(lookup);
        let dns = vec![
            self.queries("a.shop", "noerror", 5),
            self.queries("b.shop", if is_sick { "servfail" } else { "noerror" }, 5),
            self.queries("a.shop.search.path", "nxdomain", 20),
        ];
        let mut batch = self.agent.batch(records);
        batch.dns = dns;
        self.polls += 1;
        move_to(&self.server.clock, 10 * self.polls as i64);
        self.session.deliver(&batch).await;
        self.server.applied(self.polls).await;
    }

    /// The signals of every edge by its server.
    async fn unhealthy(&self, query: &str) -> BTreeMap<String, BTreeSet<String>> {
        let items = self.server.items(&format!("/api/v1/edges?unhealthy=true{query}")).await;
        let signals = |edge: &serde_json::Value| {
            let symptoms = edge["health"]["symptoms"].as_array().unwrap().iter();
            symptoms.map(|symptom| symptom["signal"].as_str().unwrap().to_owned()).collect()
        };
        items.iter().map(|edge| (edge["server"]["name"].as_str().unwrap().to_owned(), signals(edge))).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_is_named_within_two_windows_and_nothing_else_is() {
    let mut town = Town::open().await;
    for poll in 0..QUIET {
        town.poll(false).await;
        if poll % 6 == 0 || poll > QUIET - 3 {
            let found = town.unhealthy("").await;
            assert!(found.is_empty(), "quiet until {poll}: {found:?}");
        }
    }
    town.poll(true).await;
    town.poll(true).await;
    let one = |signal: &str| BTreeSet::from([signal.to_owned()]);
    let expected = BTreeMap::from([
        ("192.0.2.1".to_owned(), one("refused")),
        ("192.0.2.3".to_owned(), one("retransmits")),
        ("192.0.2.4".to_owned(), one("rtt")),
        ("192.0.2.53".to_owned(), one("dns_failures")),
        ("192.0.2.7".to_owned(), one("refused")),
    ]);
    for span in ["", "&since=30s", "&since=5m", "&by=pod"] {
        assert_eq!(town.unhealthy(span).await, expected, "{span}");
    }
    let items = town.server.items("/api/v1/edges?health=true&since=1m").await;
    let of = |host: &str| &items.iter().find(|edge| edge["server"]["name"] == host).unwrap()["health"];
    for (host, verdict) in [("192.0.2.2", "healthy"), ("192.0.2.5", "healthy"), ("192.0.2.6", "unknown")] {
        assert_eq!(of(host)["verdict"], verdict, "{host}: {:#}", of(host));
        assert_eq!((&of(host)["symptoms"], &of(host)["since"]), (&serde_json::json!([]), &serde_json::Value::Null));
    }
    // However small: who is refused moves nothing.
    let first = town.server.items("/api/v1/edges?health=true&since=1m&limit=1").await;
    assert_eq!(first[0]["health"]["verdict"], "unhealthy", "{first:#?}");
    let sick_from = at(QUIET as i64 * 10);
    let refused = of("192.0.2.1");
    assert_eq!(refused["since"], sick_from, "{refused:#}");
    assert_eq!(refused["symptoms"][0]["text"], "10 of 10 connections refused in 20 s, usually none");
    assert_eq!((&refused["symptoms"][0]["now"], &refused["symptoms"][0]["usual"]), (&1.0.into(), &0.0.into()));
    let dns = of("192.0.2.53")["symptoms"][0]["text"].as_str().unwrap();
    assert!(dns.starts_with("DNS: b.shop servfail: 10 of 10 queries failed in "), "{dns}");
    let fresh = of("192.0.2.7")["symptoms"][0].clone();
    assert_eq!(fresh["usual"], serde_json::Value::Null, "{fresh:#}");
    // The row of all others is exact and nobody's health.
    let all = town.server.items("/api/v1/edges?unhealthy=true").await;
    let cut = town.server.items("/api/v1/edges?unhealthy=true&limit=2").await;
    assert_eq!((all.len(), cut.len()), (5, 3));
    assert!(cut[2].get("health").is_none() && cut[2]["server"]["kind"] == "other", "{:#}", cut[2]);
    for counter in ["sent_bytes", "recv_bytes", "connections", "failures", "retransmits"] {
        assert_eq!(sum(&cut, counter), sum(&all, counter), "{counter}");
    }
    // Without being asked nothing is said.
    assert!(town.server.items("/api/v1/edges").await.iter().all(|edge| edge.get("health").is_none()));
    town.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_servers_end_sent_again_is_told_of_it_before_it_is_settled_and_after() {
    let mut town = Town::open().await;
    for poll in 0..QUIET + 2 {
        let mut records = Vec::new();
        for port in 0..5 {
            town.cookie += 2;
            let mut views = both_views(town.cookie, 40_000 + port + 5 * poll as u16, 500, 20_000, town.end());
            for view in &mut views {
                (view.closed_unix_ns, view.close_reason) = (town.end(), "closed".into());
            }
            if poll >= QUIET {
                (views[1].retransmits_total, views[1].retransmits_delta) = (4, 4);
            }
            records.extend(views);
        }
        let batch = town.agent.batch(records);
        town.polls += 1;
        move_to(&town.server.clock, 10 * town.polls as i64);
        town.session.deliver(&batch).await;
        town.server.applied(town.polls).await;
    }
    let then = at(10 * town.polls as i64);
    let path = format!("/api/v1/edges?unhealthy=true&at={then}");
    let told = |items: &[serde_json::Value]| -> Vec<String> {
        let symptoms = items.iter().flat_map(|edge| edge["health"]["symptoms"].as_array().unwrap());
        symptoms.map(|symptom| symptom["text"].as_str().unwrap().to_owned()).collect()
    };
    // How many segments there were is estimated, of single connections or of their sum.
    let is_right = |told: &[String]| {
        let [text] = told else { return false };
        text.starts_with("40 of about 1") && text.ends_with("sent again by the server in 20 s, usually none")
    };
    let before = told(&town.server.items(&path).await);
    assert!(is_right(&before), "{before:?}");
    let retransmits = sum(&town.server.items(&format!("/api/v1/edges?at={then}")).await, "retransmits");
    assert_eq!(retransmits, 40, "of both ends");
    // More than an hour later all of it is settled.
    town.server.flushed().await;
    move_to(&town.server.clock, 3 * 3600);
    town.server.until("/api/v1/status", |body| counter(body, "compactions") > 0).await;
    let after = told(&town.server.items(&path).await);
    assert!(is_right(&after), "{after:?}");
    assert_eq!(sum(&town.server.items(&format!("/api/v1/edges?at={then}")).await, "retransmits"), retransmits);
    town.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_watched_is_neither_sick_nor_well() {
    let mut town = Town::open().await;
    for _ in 0..QUIET {
        town.poll(false).await;
    }
    // Nothing arrives for four minutes; then one poll's connections do.
    move_to(&town.server.clock, QUIET as i64 * 10 + 240);
    assert!(town.unhealthy("").await.is_empty());
    town.polls += 24;
    town.agent.covered_to = START + town.polls as i64 * POLL;
    let end = town.end();
    let batch = {
        let records = town.calls(5, 5, |_, _| {});
        town.agent.batch(records)
    };
    move_to(&town.server.clock, (end - START) / SECOND + 1);
    town.session.deliver(&batch).await;
    town.server.applied(QUIET + 1).await;
    let items = town.server.items("/api/v1/edges?health=true&since=1m").await;
    let verdicts: Vec<&str> = items.iter().map(|edge| edge["health"]["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["unknown"], "{items:#?}");
    town.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_word_for_health_is_answered_with_what_is_allowed() {
    let server = TestServer::start().await;
    for name in ["health", "unhealthy"] {
        let (status, body) = server.get(&format!("/api/v1/edges?{name}=maybe")).await;
        assert_eq!(status, 400);
        assert_eq!(body["error"], format!("parameter `{name}` is `maybe`; write one of true, false"));
        assert_eq!(server.get(&format!("/api/v1/series?{name}=true")).await.0, 400);
        assert_eq!(server.get(&format!("/api/v1/edges?{name}=true&since=4h")).await.0, 200);
        let (status, body) = server.get(&format!("/api/v1/edges?{name}=true&since=100d")).await;
        assert!(status == 400 && body["error"].as_str().unwrap().contains("spans of up to 4h"), "{status}: {body}");
    }
    server.stop().await;
}
