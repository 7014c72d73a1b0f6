//! Promise: settling history changes no answer, and what it says of each row is what the answers count.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

#[cfg(test)]
mod support;

use std::sync::Arc;
use support::*;
use weir_server::care::{self, Exported, Form, UnixNanos};

fn without_time(mut edges: Vec<serde_json::Value>) -> Vec<serde_json::Value> {
    edges.sort_by_key(ToString::to_string);
    edges
}

#[tokio::test(flavor = "multi_thread")]
async fn settling_changes_no_answer_and_counts_each_byte_once() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    for poll in 1..=6_u64 {
        let at = START + POLL * poll as i64;
        let mut records = both_views(1, 40000, 100 * poll, 10 * poll, at);
        // A server's view alone, within what its client's node (the same one) covered, and one that nobody covered.
        records.push(view(9, "127.0.0.1:80", "127.0.0.1:40009", 1, (7 * poll, 7 * poll), at));
        records.push(view(11, "10.0.0.1:80", "198.51.100.7:40011", 1, (5 * poll, 3 * poll), at));
        for record in &mut records {
            record.rtt_us = 100 * poll as u32;
        }
        session.deliver(&agent.batch(records)).await;
        server.applied(poll).await;
    }
    let before = without_time(server.items("/api/v1/edges").await);
    assert!(before.len() >= 2, "{before:?}");
    let (folder, clock) = server.stop().await;
    let data = folder.path().to_path_buf();
    let total = care::compact(&data, &[], None, None).unwrap();
    assert!(total.steps > 0 && total.rows_in == 24, "{total:?}");
    assert_eq!(care::compact(&data, &[], None, None).unwrap().steps, 0, "again: nothing is due");
    assert_eq!(care::check(&data).unwrap().findings, []);

    let mut lines = Vec::new();
    let all = (UnixNanos(i64::MIN), UnixNanos(i64::MAX));
    care::export(&data, Exported::Rows, all.0, all.1, Form::Jsonl, &mut lines).unwrap();
    let counted: u64 = String::from_utf8(lines)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|row| row["counted"] == true)
        .map(|row| row["sent_bytes"].as_u64().unwrap() + row["recv_bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(counted, sum(&before, "sent_bytes") + sum(&before, "recv_bytes"));

    let server = TestServer::start_in(Arc::clone(&folder), clock, &[]).await;
    assert_eq!(without_time(server.items("/api/v1/edges").await), before);
    server.stop().await;
}

const GROUPINGS: [&str; 9] =
    ["workload", "pod", "container", "service", "namespace", "node", "zone", "process", "address"];

/// Every answer about the first hour.
async fn answers(server: &TestServer) -> Vec<(String, Vec<serde_json::Value>)> {
    let span = format!("since={}&until={}&limit=10000", at(0), at(3600));
    let mut answers = Vec::new();
    let filters = [
        "",
        "&port=80",
        "&protocol=tcp",
        "&from=client3",
        "&name=10.0.0.*",
        "&node=b",
        "&cidr=198.51.100.0/24",
        "&filter=client.process~client3+or+server.address=203.0.113.0/24+and+port%3E443",
        "&filter=not+(kind=external+or+node=a)+and+bytes%3E100kB",
    ];
    for by in GROUPINGS {
        for filter in filters {
            let path = format!("/api/v1/edges?by={by}&{span}{filter}");
            let edges = without_time(server.items(&path).await);
            if matches!(by, "workload" | "address") {
                series_adds_up(server, &path.replace("/edges?", "/series?"), &edges).await;
            }
            answers.push((path, edges));
        }
    }
    answers
}

/// A series is the edges of the same question, and its steps add up to them.
async fn series_adds_up(server: &TestServer, path: &str, edges: &[serde_json::Value]) {
    for step in ["", "&step=10m", "&step=1h"] {
        let path = format!("{path}{step}");
        let (status, body) = server.get(&path).await;
        assert_eq!(status, 200, "{path}: {body}");
        let seconds = body["completeness"]["steps"]["seconds"].as_u64().unwrap();
        let grain = body["completeness"]["resolution"]["seconds"].as_u64().unwrap_or(10);
        assert!(seconds >= grain && seconds.is_multiple_of(grain), "{path}: {seconds} {grain}");
        let mut rows = body["items"].as_array().unwrap().clone();
        for row in &mut rows {
            let points = row.as_object_mut().unwrap().remove("points").unwrap();
            let points = points.as_array().unwrap();
            for counter in ["sent_bytes", "recv_bytes", "retransmits", "failures"] {
                assert_eq!(sum(points, counter), row[counter].as_u64().unwrap(), "{path} {counter}: {row} {points:#?}");
            }
            let times: Vec<jiff::Timestamp> =
                points.iter().map(|point| point["at"].as_str().unwrap().parse().unwrap()).collect();
            assert!(times.is_sorted_by(|a, b| a < b), "{path}: {times:?}");
            assert!(times.iter().all(|at| (at.as_second() as u64).is_multiple_of(seconds)), "{path}: {times:?}");
        }
        assert_eq!(without_time(rows), edges, "{path}");
    }
}

fn same(before: &[(String, Vec<serde_json::Value>)], after: &[(String, Vec<serde_json::Value>)], when: &str) {
    for ((path, before), (_, after)) in before.iter().zip(after) {
        assert_eq!(before, after, "{when}: {path}");
    }
}

/// Numbers that look random and are the same every time (Knuth's multiplier).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A connection's views: (node, record's local end, remote end, direction).
fn views(number: u64) -> Vec<(usize, String, String, u32)> {
    let port = 40_000 + number;
    match number % 4 {
        // Both ends on one node.
        0 => vec![
            (0, format!("127.0.0.1:{port}"), "127.0.0.1:80".into(), 2),
            (0, "127.0.0.1:80".into(), format!("127.0.0.1:{port}"), 1),
        ],
        // From one node to the other.
        1 => vec![
            (0, format!("10.0.0.1:{port}"), "10.0.0.2:443".into(), 2),
            (1, "10.0.0.2:443".into(), format!("10.0.0.1:{port}"), 1),
        ],
        // From beyond, and to beyond.
        2 => vec![(1, "10.0.0.2:80".into(), format!("198.51.100.{}:{port}", number % 9), 1)],
        _ => vec![(0, format!("10.0.0.1:{port}"), format!("203.0.113.{}:5432", number % 5), 2)],
    }
}

/// A server's view alone on the client's own node is told as a loss, not as an edge.
const UNPAIRED: u64 = 90;
const CONNECTIONS: u64 = 24;

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_is_answered_alike_as_rows_settled_as_minutes_and_as_hours() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let more = ["--minutes-after", "70m", "--hours-after", "2h", "--network", "office=198.51.100.0/24"];
    let server = TestServer::start_in(folder, clock(), &more).await;
    let mut agents = [TestAgent::new("a", 1), TestAgent::new("b", 2)];
    let mut sessions = vec![agents[0].connect(&server).await, agents[1].connect(&server).await];
    for agent in &mut agents {
        agent.ends = (0..6).map(|pid| end(4_026_531_840, 100 + pid, &format!("client{pid}"))).collect();
    }
    let mut numbers = Numbers(7);
    let mut delivered = 0;
    let opened: Vec<u64> = (0..CONNECTIONS).map(|_| 1 + numbers.below(6)).collect();
    let closed: Vec<u64> = opened.iter().map(|poll| poll + 1 + numbers.below(7)).collect();
    for poll in 1..=10_u64 {
        let now = 290 * poll as i64;
        move_to(&server.clock, now);
        let to = START + now * SECOND;
        let mut records = [Vec::new(), Vec::new()];
        for number in 0..CONNECTIONS {
            let (first, last) = (opened[number as usize], closed[number as usize]);
            if poll < first || poll > last {
                continue;
            }
            let (sent, recv) = (numbers.below(100_000), numbers.below(1_000_000));
            // Its records come late, but within the horizon.
            let back = if number == 5 { 200 * SECOND } else { 0 };
            for (index, (node, local, remote, direction)) in views(number).into_iter().enumerate() {
                let moved = if direction == 2 || views(number).len() == 1 { (sent, recv) } else { (recv, sent) };
                let mut record = view(10 * number + 1 + index as u64, &local, &remote, direction, moved, to - back);
                record.start_unix_ns = START + 290 * first as i64 * SECOND - 5 * SECOND - back;
                record.opened = poll == first;
                record.local_end = (number % 6) as u32;
                record.retransmits_delta = numbers.below(3);
                if poll == last {
                    record.closed_unix_ns = to - back;
                    record.close_reason = if number % 5 == 0 { "reset".into() } else { "closed".into() };
                }
                records[node].push(record);
            }
        }
        if poll == 4 {
            records[0].push(view(UNPAIRED, "127.0.0.1:81", "127.0.0.1:39999", 1, (70, 7), to));
        }
        for ((agent, session), records) in agents.iter_mut().zip(&mut sessions).zip(records) {
            agent.covered_to = to - POLL;
            let mut batch = agent.batch(records);
            batch.metadata = vec![node_fact(&agent.node, &[if agent.node == "a" { "10.0.0.1" } else { "10.0.0.2" }])];
            session.deliver(&batch).await;
            delivered += 1;
        }
        server.applied(delivered).await;
    }
    let before = answers(&server).await;
    let names: std::collections::BTreeSet<&str> =
        before.iter().flat_map(|(_, items)| items).map(|edge| edge["client"]["name"].as_str().unwrap()).collect();
    assert!(before[0].1.len() > 10 && names.contains("office"), "{names:?}");
    let first_hour = format!("/api/v1/edges?since={}&until={}", at(0), at(3600));
    assert_eq!(lost(&server.get(&first_hour).await.1, "unpaired"), (77, 1));
    server.flushed().await;
    let total = server.store_counter("history_rows_10s").await;

    // Settled, by the server itself.
    move_to(&server.clock, 7_300);
    server.until("/api/v1/status", |body| counter(body, "compactions") > 0 && counter(body, "segments_10s") <= 6).await;
    same(&before, &answers(&server).await, "settled");
    let (_, body) = server.get(&first_hour).await;
    assert_eq!((lost(&body, "unpaired"), &body["completeness"]["resolution"]), ((77, 1), &serde_json::Value::Null));
    // Sums of a minute.
    move_to(&server.clock, 8_400);
    server.until("/api/v1/status", |body| counter(body, "history_rows_10s") == 0).await;
    assert!(server.store_counter("history_rows_1m").await <= total);
    same(&before, &answers(&server).await, "minutes");
    // Sums of an hour, when the state has forgotten what was closed.
    move_to(&server.clock, 12 * 3600);
    server.until("/api/v1/status", |body| counter(body, "history_rows_1m") == 0).await;
    assert!(server.store_counter("history_rows_1h").await > 0);
    same(&before, &answers(&server).await, "hours");
    let (_, body) = server.get(&first_hour).await;
    assert_eq!(lost(&body, "unpaired"), (77, 1));
    let resolution = |since: i64, until: i64| serde_json::json!({"seconds": 3600, "from": at(since), "to": at(until)});
    assert_eq!(body["completeness"]["resolution"], resolution(0, 3600));
    // Whoever asks for a part of an hour is told which hours it is.
    let (_, part) = server.get(&format!("/api/v1/edges?since={}&until={}", at(0), at(600))).await;
    assert_eq!(part["completeness"]["resolution"], resolution(0, 3600));
    assert_eq!(part["items"], body["items"]);
    let (_, part) = server.get(&format!("/api/v1/edges?since={}&until={}", at(600), at(3600))).await;
    assert_eq!(part["completeness"]["resolution"], resolution(3600, 3600));
    assert_eq!(sum(part["items"].as_array().unwrap(), "sent_bytes"), 0, "only what is open still");

    // What comes now of that hour is told and kept apart, before it is settled, after, and as a sum.
    let late = view(9_001, "10.0.0.1:50000", "10.0.0.2:443", 2, (1_000, 234), START + 60 * SECOND);
    agents[0].covered_to = START + 12 * 3600 * SECOND - POLL;
    sessions[0].deliver(&agents[0].batch(vec![late])).await;
    server.until("/api/v1/status", |body| counter(body, "rows_late") == 1).await;
    for stage in ["pending", "in a segment", "settled and summed"] {
        let (_, body) = server.get(&first_hour).await;
        assert_eq!(lost(&body, "late"), (1_234, 1), "{stage}");
        assert_eq!(body["completeness"]["complete"], false, "{stage}");
        same(&before, &answers(&server).await, stage);
        match stage {
            "pending" => server.flushed().await,
            "in a segment" => {
                server.clock.advance(61 * SECOND as u64);
                server.until("/api/v1/status", |body| counter(body, "history_rows_10s") == 0).await;
                server.until("/api/v1/status", |body| counter(body, "history_rows_1m") == 0).await;
            }
            _ => {}
        }
    }
    server.stop().await;
}

/// Bytes and connections of a told loss.
fn lost(body: &serde_json::Value, reason: &str) -> (u64, u64) {
    let losses = body["completeness"]["losses"].as_array().unwrap();
    let sum = |field: &str| {
        losses.iter().filter(|loss| loss["reason"] == reason).map(|loss| loss[field].as_u64().unwrap()).sum::<u64>()
    };
    (sum("bytes"), sum("connections"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_tells_after_a_day_stays_a_told_loss_beside_what_came_in_time() {
    const DAY: i64 = 24 * 3600;
    let server = TestServer::start_in(Arc::new(tempfile::tempdir().unwrap()), clock(), &[]).await;
    let mut agents = [TestAgent::new("a", 1), TestAgent::new("b", 2)];
    let mut sessions = vec![agents[0].connect(&server).await, agents[1].connect(&server).await];
    move_to(&server.clock, DAY);
    let now = START + DAY * SECOND;
    let timely = both_views(2, 40_000, 100, 10, now);
    // Two views of one connection, both too late, and one that the state has forgotten.
    let mut late = both_views(10, 50_000, 1_000, 234, START + 60 * SECOND);
    let mut gone = view(20, "10.0.0.2:50001", "203.0.113.7:443", 2, (70, 7), START + 70 * SECOND);
    gone.closed_unix_ns = START + 70 * SECOND;
    gone.close_reason = "closed".into();
    late.push(gone);
    for ((agent, session), (records, to)) in
        agents.iter_mut().zip(&mut sessions).zip([(timely, now), (late, START + 70 * SECOND)])
    {
        agent.covered_to = to - POLL;
        session.deliver(&agent.batch(records)).await;
    }
    server.applied(2).await;
    server.flushed().await;
    assert_eq!(server.store_counter("segments_10s").await, 1);
    let then = format!("/api/v1/edges?since={}&until={}", at(0), at(3600));
    let today = format!("/api/v1/edges?since={}&until={}", at(DAY - 600), at(DAY + 600));
    let (_, before) = server.get(&then).await;
    let edges = without_time(server.items(&today).await);
    assert_eq!(lost(&before, "late"), (1_311, 2), "{before}");
    assert_eq!((edges.len(), sum(&edges, "sent_bytes")), (1, 100));
    move_to(&server.clock, DAY + 2 * 3600);
    server.until("/api/v1/status", |body| counter(body, "compactions") > 0).await;
    let (_, after) = server.get(&then).await;
    assert_eq!(lost(&after, "late"), (1_311, 2), "{after}");
    let counted = |body: &serde_json::Value| sum(body["items"].as_array().unwrap(), "sent_bytes");
    assert_eq!((counted(&after), counted(&before)), (0, 0));
    assert_eq!(without_time(server.items(&today).await), edges);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_a_day_ahead_keeps_nobodys_rows_from_being_settled() {
    const DAY: i64 = 24 * 3600;
    let more = ["--minutes-after", "70m"];
    let server = TestServer::start_in(Arc::new(tempfile::tempdir().unwrap()), clock(), &more).await;
    let mut agents = [TestAgent::new("a", 1), TestAgent::new("b", 2)];
    let mut sessions = vec![agents[0].connect(&server).await, agents[1].connect(&server).await];
    for poll in 1..=6_u64 {
        let now = 60 * poll as i64;
        move_to(&server.clock, now);
        for (index, (agent, session)) in agents.iter_mut().zip(&mut sessions).enumerate() {
            let to = START + (now + if index == 0 { 0 } else { DAY }) * SECOND;
            let port = 40_000 + 100 * index as u16 + poll as u16;
            let mut records = both_views(10 * poll, port, 100, 10, to);
            // A server's view alone is a loss that is told, and stays one.
            records.push(view(10 * poll + 5, "127.0.0.1:81", &format!("127.0.0.1:{}", port + 1_000), 1, (7, 7), to));
            for record in &mut records {
                record.closed_unix_ns = to;
                record.close_reason = "closed".into();
            }
            agent.covered_to = to - POLL;
            session.deliver(&agent.batch(records)).await;
        }
        server.applied(2 * poll).await;
        server.flushed().await;
    }
    assert_eq!(server.store_counter("segments_10s").await, 6);
    let days = [("today", 0), ("tomorrow", DAY)]
        .map(|(day, from)| (day, format!("/api/v1/edges?by=process&since={}&until={}", at(from), at(from + 3600))));
    let mut before = Vec::new();
    for (day, path) in &days {
        let (_, body) = server.get(path).await;
        let edges = without_time(body["items"].as_array().unwrap().clone());
        assert_eq!((sum(&edges, "sent_bytes"), lost(&body, "unpaired")), (600, (84, 6)), "{day}: {body}");
        before.push(edges);
    }
    for (stage, now) in [("settled", 4_300), ("minutes", 8_900)] {
        move_to(&server.clock, now);
        let is_there = |body: &serde_json::Value| match stage {
            "settled" => counter(body, "compactions") > 0 && counter(body, "segments_10s") <= 1,
            _ => counter(body, "history_rows_10s") == 0,
        };
        server.until("/api/v1/status", is_there).await;
        for ((day, path), before) in days.iter().zip(&before) {
            let (_, body) = server.get(path).await;
            assert_eq!(lost(&body, "unpaired"), (84, 6), "{stage}: {day}: {body}");
            assert_eq!(&without_time(body["items"].as_array().unwrap().clone()), before, "{stage}: {day}");
        }
    }
    server.stop().await;
}

/// A pod of a name that holds an address for a while.
fn holder(name: &str, from: i64, to: i64) -> weir_wire::agent::MetadataFact {
    weir_wire::agent::MetadataFact {
        kind: "pod".into(),
        source: "kubelet".into(),
        id: format!("uid-{name}"),
        name: name.into(),
        namespace: "shop".into(),
        addresses: vec!["10.9.0.5".into()],
        from_unix_ns: START + from * SECOND,
        to_unix_ns: if to == 0 { 0 } else { START + to * SECOND },
        ..weir_wire::agent::MetadataFact::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instant_is_answered_with_the_names_of_then_from_rows_and_minutes() {
    let more = ["--minutes-after", "3h", "--hours-after", "6h"];
    let server = TestServer::start_in(Arc::new(tempfile::tempdir().unwrap()), clock(), &more).await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    // The same address is of one pod and then of another.
    let calls = [(600, "web-1", 100), (1_800, "web-2", 70), (4_200, "web-2", 5)];
    for (poll, (now, _, sent)) in calls.into_iter().enumerate() {
        move_to(&server.clock, now);
        let to = START + now * SECOND;
        let local = format!("10.0.0.1:{}", 40_000 + poll);
        let mut record = view(10 + poll as u64, &local, "10.9.0.5:80", 2, (sent, 1), to);
        record.closed_unix_ns = to;
        record.close_reason = "closed".into();
        agent.covered_to = to - POLL;
        let mut batch = agent.batch(vec![record]);
        batch.metadata = vec![node_fact("a", &["10.0.0.1"]), holder("web-1", -60, 0)];
        if now > 600 {
            batch.metadata = vec![holder("web-1", -60, 900), holder("web-2", 1_200, 0)];
        }
        batch.metadata_sources = vec![weir_wire::agent::MetadataSource {
            source: "kubelet".into(),
            state: "ok".into(),
            read_unix_ns: to,
            ..weir_wire::agent::MetadataSource::default()
        }];
        session.deliver(&batch).await;
        server.applied(poll as u64 + 1).await;
    }
    server.flushed().await;
    let named = |items: &[serde_json::Value]| -> Vec<(String, u64)> {
        let name = |edge: &serde_json::Value| edge["server"]["name"].as_str().unwrap().to_owned();
        let mut named: Vec<_> = items
            .iter()
            .map(|edge| (name(edge), edge["sent_bytes"].as_u64().unwrap()))
            .filter(|(_, sent)| *sent > 0)
            .collect();
        named.sort_unstable();
        named
    };
    // Now, settled, as minutes.
    for (stage, now, seconds) in [("rows", 4_300, 10), ("settled", 8_500, 10), ("minutes", 18_500, 60)] {
        move_to(&server.clock, now);
        let is_there = |body: &serde_json::Value| match stage {
            "settled" => counter(body, "compactions") > 0,
            "minutes" => counter(body, "history_rows_10s") == 0,
            _ => true,
        };
        server.until("/api/v1/status", is_there).await;
        for (instant, name, sent) in [(720, "web-1", 100_u64), (1_920, "web-2", 70), (4_260, "web-2", 5)] {
            let expected = vec![(name.to_owned(), sent)];
            for path in ["edges", "series"] {
                let path = format!("/api/v1/{path}?by=pod&at={}&since=3m", at(instant));
                let (_, body) = server.get(&path).await;
                assert_eq!(named(body["items"].as_array().unwrap()), expected, "{stage}: {path}: {body}");
                assert_eq!(body["completeness"]["to"], at(instant), "{stage}: {path}");
                let resolution = body["completeness"]["resolution"]["seconds"].as_u64().unwrap_or(10);
                assert_eq!(resolution, seconds, "{stage}: {path}");
                let filtered = server.items(&format!("{path}&filter=server.pod=shop/{name}")).await;
                assert_eq!(named(&filtered), expected, "{stage}: {path}");
            }
        }
        for (instant, name) in [(720, "web-1"), (1_920, "web-2"), (4_260, "web-2")] {
            let held = server.items(&format!("/api/v1/metadata?kind=pod&cidr=10.9.0.5&at={}", at(instant))).await;
            let names: Vec<&str> = held.iter().map(|fact| fact["name"].as_str().unwrap()).collect();
            assert_eq!(names, [name], "{stage} {instant}");
        }
        assert_eq!(
            server.items(&format!("/api/v1/metadata?kind=pod&at={}", at(1_000))).await.len(),
            0,
            "between the two"
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_beyond_a_tiers_bytes_goes_the_oldest_first() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let server = TestServer::start_in(folder, clock(), &["--retain-bytes-10s", "40KiB"]).await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    for poll in 1..=12_u64 {
        move_to(&server.clock, 61 * poll as i64);
        let at = START + 61 * poll as i64 * SECOND;
        agent.covered_to = at - POLL;
        session.deliver(&agent.batch(both_views(2 * poll, 40_000 + poll as u16, 100, 10, at))).await;
        server.applied(poll).await;
        server.flushed().await;
    }
    server.clock.advance(61 * SECOND as u64);
    let within = |body: &serde_json::Value| (1..=40 << 10).contains(&counter(body, "segment_bytes_10s"));
    server.until("/api/v1/status", |body| counter(body, "history_rows_evicted") > 0 && within(body)).await;
    let edges = server.items(&format!("/api/v1/edges?since={}", at(0))).await;
    assert!(sum(&edges, "sent_bytes") < 1_200 && sum(&edges, "sent_bytes") > 0, "{edges:?}");
    server.stop().await;
}
