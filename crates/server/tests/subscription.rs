//! Promise: whoever subscribes to edges gets the answer at once and again when it has changed, is told when nothing
//! changes, does not hold up the server's end, and is refused beyond the bound.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

#[cfg(test)]
mod support;

use serde_json::Value;
use std::time::Duration;
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(30);
const PATH: &str = "/api/v1/edges?since=1h";

/// A reader of events.
struct Reader {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Reader {
    async fn open(server: &TestServer, path: &str) -> (u16, String, Self) {
        let mut stream = TcpStream::connect(server.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: weir\r\naccept: text/event-stream\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reader = Self { stream, read: Vec::new() };
        let head = reader.until(b"\r\n\r\n").await.unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, reader)
    }

    /// The text up to and with `end`; `None`: the server ended it before.
    async fn until(&mut self, end: &[u8]) -> Option<String> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|part| part == end) {
                let rest = self.read.split_off(at + end.len());
                return Some(String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap());
            }
            let more = tokio::time::timeout(DEADLINE, self.stream.read_buf(&mut self.read)).await;
            if more.expect("an event within the deadline").unwrap() == 0 {
                return None;
            }
        }
    }

    /// The next event's lines without what chunking puts between.
    async fn event(&mut self) -> Option<Vec<String>> {
        let text = self.until(b"\n\n").await?;
        let is_chunk = |line: &str| u64::from_str_radix(line, 16).is_ok() || line.is_empty();
        Some(text.lines().map(str::trim).filter(|line| !is_chunk(line)).map(ToOwned::to_owned).collect())
    }

    async fn answer(&mut self) -> Value {
        let event = self.event().await.unwrap();
        assert_eq!(event[0], "event: answer", "{event:?}");
        serde_json::from_str(event[1].strip_prefix("data: ").unwrap()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_gets_the_answer_at_once_and_again_when_it_has_changed() {
    let server = TestServer::start().await;
    let (status, head, mut reader) = Reader::open(&server, PATH).await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/event-stream") && head.contains("x-accel-buffering: no"), "{head}");
    assert_eq!(reader.answer().await["items"], Value::Array(Vec::new()));

    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    session.deliver(&agent.batch(both_views(1, 40_000, 500, 20, START + POLL))).await;
    server.applied(1).await;
    move_to(&server.clock, 11);
    let told = reader.answer().await;
    assert_eq!((told["items"][0]["sent_bytes"].as_u64(), told["items"].as_array().unwrap().len()), (Some(500), 1));
    let (_, asked) = server.get(PATH).await;
    assert_eq!(told["items"], asked["items"], "the same as without a subscription");
    assert_eq!(told["completeness"]["nodes"], asked["completeness"]["nodes"]);

    // A batch in which nothing moved changes no number: after 10 s a comment says so.
    session.deliver(&agent.batch(Vec::new())).await;
    let quiet = reader.event().await.unwrap();
    assert_eq!(quiet, [": nothing changed"]);
    let counters = server.items("/api/v1/status").await.iter().find(|row| row["kind"] == "server").unwrap().clone();
    assert_eq!(counters["counters"]["subscriptions"].as_u64(), Some(1));
    server.stop().await;
    assert_eq!(reader.event().await, None, "the server's end ends it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_question_is_answered_as_without_a_subscription() {
    let server = TestServer::start().await;
    let (status, head, _) = Reader::open(&server, "/api/v1/edges?by=pods").await;
    assert_eq!(status, 400);
    assert!(head.contains("content-type: application/json"), "{head}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_bounded_and_one_that_ends_makes_room() {
    let server = TestServer::start().await;
    let mut readers = Vec::new();
    for _ in 0..64 {
        let (status, _, reader) = Reader::open(&server, PATH).await;
        assert_eq!(status, 200);
        readers.push(reader);
    }
    let (status, _, _) = Reader::open(&server, PATH).await;
    assert_eq!(status, 503);
    // Its place is free when the server notices that it is gone: at the next event at the latest.
    readers.pop();
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let (status, _, reader) = Reader::open(&server, PATH).await;
        if status == 200 {
            readers.push(reader);
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "no room after one left");
        tokio::task::yield_now().await;
    }
    // All others are still served when the server ends.
    server.stop().await;
    for mut reader in readers {
        while reader.event().await.is_some() {}
    }
}
