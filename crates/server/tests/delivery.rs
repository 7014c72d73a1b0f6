//! Promise: acknowledged means durable, a batch counts once, and a stream has one writer.

#[cfg(test)]
mod support;

use support::*;
use weir_wire::agent::refusal::Reason;
use weir_wire::agent::server_message::Message as ToAgent;
use weir_wire::agent::{Frame, Loss, Tombstone};

fn reason(answer: &ToAgent) -> (Reason, u64) {
    match answer {
        ToAgent::Refusal(refusal) => (refusal.reason(), refusal.next_sequence),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_batch_is_acknowledged_and_counted_once() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    assert_eq!(session.welcome.as_ref().unwrap().next_sequence, 0);
    let first = agent.batch(both_views(1, 40000, 100, 0, START + POLL));
    let second = agent.batch(both_views(3, 40001, 50, 0, START + 2 * POLL));
    session.deliver(&first).await;
    session.deliver(&second).await;
    match session.send(&first).await {
        ToAgent::Ack(ack) => assert_eq!(ack.sequence, 2),
        other => panic!("{other:?}"),
    }
    // Also over a new session, and after a restart.
    drop(session);
    let mut session = agent.connect(&server).await;
    assert_eq!(session.welcome.as_ref().unwrap().next_sequence, 3);
    assert!(matches!(session.send(&second).await, ToAgent::Ack(_)));
    drop(session);
    let server = server.restart().await;
    let mut session = agent.connect(&server).await;
    assert_eq!(session.welcome.as_ref().unwrap().next_sequence, 3);
    assert!(matches!(session.send(&second).await, ToAgent::Ack(_)));
    server.applied(2).await;
    assert_eq!(sum(&server.items("/api/v1/edges").await, "sent_bytes"), 150);
    server.stop().await;
}

/// An acknowledgement covers every earlier batch: one that was overtaken would be forgotten by its agent.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_batch_of_a_new_stream_cannot_be_overtaken() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let hello = agent.hello();
    let first = agent.batch(both_views(1, 40000, 100, 0, START + POLL));
    let second = agent.batch(both_views(3, 40001, 50, 0, START + 2 * POLL));
    let mut session = Session::open(&server, hello.clone()).await;
    assert_eq!(reason(&session.send(&second).await), (Reason::OutOfSequence, 1));
    let mut session = Session::open(&server, hello).await;
    session.deliver(&first).await;
    session.deliver(&second).await;
    server.applied(2).await;
    assert_eq!(sum(&server.items("/api/v1/edges").await, "sent_bytes"), 150);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_stream_is_taken_at_its_oldest_and_a_skipped_batch_is_refused() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    agent.sequence = 41;
    let mut session = agent.connect(&server).await;
    session.deliver(&agent.batch(Vec::new())).await;
    agent.sequence += 1;
    let skipped = agent.batch(Vec::new());
    assert_eq!(reason(&session.send(&skipped).await), (Reason::OutOfSequence, 43));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_the_agent_no_longer_has_are_a_told_loss() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    session.deliver(&agent.batch(Vec::new())).await;
    drop(session);
    agent.sequence = 5;
    let mut session = agent.connect(&server).await;
    assert_eq!(session.welcome.as_ref().unwrap().next_sequence, 6);
    session.deliver(&agent.batch(Vec::new())).await;
    move_to(&server.clock, 30);
    let body =
        server.until("/api/v1/edges", |body| !body["completeness"]["losses"].as_array().unwrap().is_empty()).await;
    let loss = &body["completeness"]["losses"][0];
    assert_eq!((&loss["reason"], &loss["count"], &loss["node"]), (&"batches_lost".into(), &4.into(), &"a".into()));
    assert_eq!(body["completeness"]["complete"], false);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_stands_for_its_range_and_is_told() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    session.deliver(&agent.batch(Vec::new())).await;
    agent.sequence = 4;
    agent.covered_to += 4 * POLL;
    let mut batch = agent.batch(Vec::new());
    batch.tombstone = Some(Tombstone {
        first_sequence: 2,
        last_sequence: 5,
        from_unix_ns: START + POLL,
        to_unix_ns: START + 5 * POLL,
        sent_bytes: 1000,
        recv_bytes: 10,
        connections: 3,
        records: 7,
    });
    session.deliver(&batch).await;
    session.deliver(&agent.batch(Vec::new())).await;
    server.applied(3).await;
    move_to(&server.clock, 70);
    let (_, body) = server.get("/api/v1/edges").await;
    let loss = &body["completeness"]["losses"][0];
    assert_eq!((&loss["reason"], &loss["bytes"], &loss["count"]), (&"spool_dropped".into(), &1010.into(), &4.into()));
    let node = &body["completeness"]["nodes"][0];
    assert_eq!(node["missing_ms"], 50_000, "{node:#}");
    server.stop().await;
}

/// As the agent does it: the batches behind the drop come first, the tombstone takes the next free sequence.
#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_that_comes_later_tells_once_what_was_dropped() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    session.deliver(&agent.batch(Vec::new())).await;
    drop(session);
    agent.sequence = 5;
    agent.covered_to += 4 * POLL;
    let mut session = agent.connect(&server).await;
    session.deliver(&agent.batch(Vec::new())).await;
    let mut tombstone = agent.batch(Vec::new());
    agent.covered_to -= POLL;
    tombstone.source = None;
    tombstone.covers_from_unix_ns = tombstone.covers_to_unix_ns;
    tombstone.losses =
        vec![Loss { place: "agent".into(), reason: "spool_full".into(), count: 4, intended: true, ..Loss::default() }];
    tombstone.tombstone = Some(Tombstone {
        first_sequence: 2,
        last_sequence: 5,
        from_unix_ns: START + POLL,
        to_unix_ns: START + 5 * POLL,
        ..Tombstone::default()
    });
    session.deliver(&tombstone).await;
    session.deliver(&agent.batch(Vec::new())).await;
    server.applied(4).await;
    move_to(&server.clock, 70);
    let (_, body) = server.get("/api/v1/edges").await;
    let losses = body["completeness"]["losses"].as_array().unwrap();
    assert_eq!(losses.len(), 1, "{losses:#?}");
    assert_eq!((&losses[0]["reason"], &losses[0]["count"]), (&"spool_full".into(), &4.into()));
    let node = &body["completeness"]["nodes"][0];
    assert_eq!((&node["source_state"], &node["missing_ms"]), (&"ok".into(), &40_000.into()), "{node:#}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_writer_is_refused_until_the_first_session_ends() {
    let server = TestServer::start().await;
    let agent = TestAgent::new("a", 1);
    let session = agent.connect(&server).await;
    let mut second = TestAgent::new("a", 1);
    second.run = [9; 16];
    let refused = second.connect(&server).await;
    assert_eq!(reason(refused.first.as_ref().unwrap()).0, Reason::SecondWriter);
    // The same run comes back before its old connection is known to be dead.
    let again = agent.connect(&server).await;
    assert!(again.welcome.is_some());
    drop((session, again));
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while second.connect(&server).await.welcome.is_none() {
        assert!(tokio::time::Instant::now() < deadline, "the ended session still holds the stream");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_frame_is_refused_and_nothing_of_it_is_kept() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    let batch = agent.batch(both_views(1, 40000, 100, 0, START + POLL));
    let damaged = Frame { crc32c: 1, ..frame(&batch) };
    assert_eq!(reason(&session.send_frame(damaged).await), (Reason::Corrupt, 1));
    let mut session = agent.connect(&server).await;
    session.deliver(&batch).await;
    server.applied(1).await;
    assert_eq!(sum(&server.items("/api/v1/edges").await, "sent_bytes"), 100);
    server.stop().await;
}

/// `tests/data/batches/README.md` says where they come from.
#[tokio::test(flavor = "multi_thread")]
async fn batches_of_older_agents_are_read_as_they_were_meant() {
    let recorded: [&[u8]; 3] = [
        include_bytes!("data/batches/1-0658f31.batch"),
        include_bytes!("data/batches/2-39c1ab5.batch"),
        include_bytes!("data/batches/3-9807fec.batch"),
    ];
    let server = TestServer::start().await;
    let mut session = TestAgent::new("old", 9).connect(&server).await;
    for (sequence, bytes) in (1..).zip(recorded) {
        let frame = weir_wire::agent::Frame::new(sequence, bytes.into(), START);
        match session.send_frame(frame).await {
            ToAgent::Ack(ack) => assert_eq!(ack.sequence, sequence),
            other => panic!("{sequence}: {other:?}"),
        }
        server.applied(sequence).await;
    }
    let edges = server.items("/api/v1/edges?by=process").await;
    assert_eq!(edges.len(), 1, "{edges:?}");
    assert_eq!((sum(&edges, "sent_bytes"), sum(&edges, "recv_bytes")), (600, 60));
    assert_eq!((&edges[0]["client"]["name"], &edges[0]["server"]["name"]), (&"client".into(), &"server".into()));
    let dns = server.items("/api/v1/dns").await;
    assert_eq!((dns.len(), dns[0]["name"].as_str()), (1, Some("shop.example.")));
    let (_, body) = server.get("/api/v1/edges").await;
    let losses = body["completeness"]["losses"].as_array().unwrap();
    assert_eq!((losses[0]["reason"].as_str(), sum(losses, "bytes")), (Some("closed_rows"), 90));
    // The log that holds them is read again.
    let server = server.restart().await;
    assert_eq!(sum(&server.items("/api/v1/edges?by=process").await, "sent_bytes"), 600);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_told_with_its_offset_and_the_way_out() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    let batch = agent.batch(both_views(1, 40000, 100, 10, START + POLL));
    // Sent, by the agent's clock, 90 s before the server has it by its own.
    let sent = weir_wire::agent::Frame::new(1, batch.to_bytes().unwrap().into(), START - 90 * SECOND);
    assert!(matches!(session.send_frame(sent).await, ToAgent::Ack(_)));
    server.applied(1).await;
    let status = server.items("/api/v1/status").await;
    let node = status.iter().find(|row| row["kind"] == "node").unwrap();
    assert_eq!((&node["health"], &node["counters"]["clock_offset_ms"]), (&"degraded".into(), &90_000.into()));
    assert!(
        node["detail"].as_str().unwrap().contains("its clock is -90000 ms off the server's; synchronise both"),
        "{node}"
    );
    let (_, body) = server.get("/api/v1/edges").await;
    assert_eq!(body["completeness"]["nodes"][0]["clock_offset_ms"], -90_000);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_is_refused() {
    let server = TestServer::start().await;
    let mut hello = TestAgent::new("a", 1).hello();
    hello.protocol = 2;
    let session = Session::open(&server, hello).await;
    assert_eq!(reason(session.first.as_ref().unwrap()).0, Reason::Protocol);
    let Some(ToAgent::Refusal(refusal)) = &session.first else { panic!("{:?}", session.first) };
    assert!(refusal.text.contains("update the server first"), "{}", refusal.text);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_folder_is_refused_and_told_who_holds_it() {
    let server = TestServer::start().await;
    let error = match weir_server::Server::start(
        args(server.folder.path(), &[]),
        clock(),
        tokio_util::sync::CancellationToken::new(),
    )
    .await
    {
        Ok(_) => panic!("two servers hold one folder"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains(&format!("held by process {}", std::process::id())), "{error}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_others_reach_needs_a_token_or_the_explicit_word() {
    let folder = tempfile::tempdir().unwrap();
    let args = args(folder.path(), &[]);
    let args = weir_server::Args { listen: "0.0.0.0:0".parse().unwrap(), ..args };
    let outcome = weir_server::Server::start(args, clock(), tokio_util::sync::CancellationToken::new()).await;
    let Err(error) = outcome else { panic!("it listens to everybody") };
    assert!(error.to_string().contains("--insecure"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn losses_and_gaps_of_an_agent_reach_the_answers_completeness() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    session.deliver(&agent.batch(Vec::new())).await;
    server.applied(1).await;
    move_to(&server.clock, 10);
    let (_, body) = server.get("/api/v1/edges").await;
    assert_eq!(body["completeness"]["complete"], true, "{body:#}");
    let mut batch = agent.batch(Vec::new());
    batch.covered = false;
    batch.gap_reason = "timeout".into();
    batch.losses.push(Loss { place: "kernel".into(), reason: "ring_full".into(), count: 3, ..Loss::default() });
    batch.source.as_mut().unwrap().state = "timeout".into();
    session.deliver(&batch).await;
    server.applied(2).await;
    move_to(&server.clock, 20);
    let (_, body) = server.get("/api/v1/edges").await;
    let completeness = &body["completeness"];
    assert_eq!(completeness["complete"], false);
    assert_eq!(completeness["nodes"][0]["missing_ms"], 10_000, "{completeness:#}");
    assert_eq!(completeness["nodes"][0]["source_state"], "timeout");
    assert_eq!(
        (&completeness["losses"][0]["place"], &completeness["losses"][0]["count"]),
        (&"kernel".into(), &3.into())
    );
    let status = server.items("/api/v1/status").await;
    let node = status.iter().find(|row| row["kind"] == "node").unwrap();
    assert_eq!((&node["health"], &node["counters"]["polls_timeout"]), (&"unhealthy".into(), &1.into()));
    assert_eq!(node["counters"]["lost_kernel_ring_full"], 3);
    // Nothing for two minutes: silent.
    move_to(&server.clock, 200);
    let (_, body) = server.get("/api/v1/edges").await;
    assert_eq!(body["completeness"]["nodes"][0]["state"], "silent");
    server.stop().await;
}
