//! The promise: somebody else's tracer is read as it is, and one that misbehaves does no harm.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::Duration;
use weir_testkit::feed::{Behaviour, StandIn, row};
use weir_testkit::process::until;
use weir_testkit::weir::Weir;
use weir_wire::api::{Edge, Transaction};

const SAMPLE: &str = include_str!("data/sample.json");

fn up(folder: &Path, socket: &Path) -> Result<Weir> {
    Weir::up(&folder.join("data"), "500ms", &["--feed", &format!("unix:{}", socket.display())])
}

fn sample_edge(weir: &Weir) -> Result<(Transaction, Edge)> {
    let transactions = weir.transactions()?;
    let transaction = transactions
        .into_iter()
        .find(|row| row.key == "172.17.0.2-172.17.0.5-41515-53")
        .context("the sample's transaction")?;
    let edges = weir.edges()?;
    let edge = edges.into_iter().find(|edge| edge.port == 53).context("the sample's edge")?;
    Ok((transaction, edge))
}

#[test]
fn the_published_sample_is_all_bytes_before_until_its_totals_rise() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("feed.sock");
    let feed = StandIn::listen(&socket, Behaviour::Body(SAMPLE.into()))?;
    let weir = up(folder.path(), &socket)?;
    until(Duration::from_secs(20), || {
        let (transaction, edge) = sample_edge(&weir)?;
        ensure!(transaction.protocol == "udp", "{transaction:?}");
        ensure!(
            (transaction.monotonic_sent_bytes, transaction.monotonic_recv_bytes) == (3079, 5849),
            "{transaction:?}"
        );
        ensure!(transaction.bytes_before == 3079 + 5849, "{transaction:?}");
        ensure!((transaction.pid, transaction.net_ns) == (14931, 4_026_532_528), "{transaction:?}");
        ensure!((edge.sent_bytes, edge.recv_bytes) == (0, 0), "{edge:?}");
        Ok(true)
    })?;
    feed.behave(Behaviour::Body(SAMPLE.replace("3079", "4079").replace("5849", "5850").into()));
    until(Duration::from_secs(20), || {
        let (transaction, edge) = sample_edge(&weir)?;
        ensure!(
            (transaction.monotonic_sent_bytes, transaction.monotonic_recv_bytes) == (4079, 5850),
            "{transaction:?}"
        );
        ensure!(transaction.bytes_before == 3079 + 5849, "{transaction:?}");
        ensure!((edge.sent_bytes, edge.recv_bytes) == (1000, 1), "{edge:?}");
        Ok(true)
    })?;
    assert!(weir.stop(Duration::from_secs(5))?.success());
    Ok(())
}

/// Both ends of a connection between pods, as the 2019 tracer tells them: it calls both outgoing, and shows the
/// retransmits of one tuple on every pid's row.
fn between_pods(bytes: u64) -> String {
    let row = |pid: u32, netns: u32, source: &str, dest: &str, sport: u16, dport: u16, sent: u64, recv: u64| {
        format!(
            r#"{{"pid":{pid},"type":0,"family":0,"net_ns":{netns},"source":"{source}","dest":"{dest}","sport":{sport},
            "dport":{dport},"direction":2,"monotonic_sent_bytes":{sent},"last_sent_bytes":0,"monotonic_recv_bytes":{recv},
            "last_recv_bytes":0,"monotonic_retransmits":{},"last_retransmits":0,"last_update_epoch":11457291007926789,
            "conntrack":null}}"#,
            bytes / 100
        )
    };
    let rows = [
        row(10, 1, "10.244.0.7", "10.244.0.8", 40000, 8080, bytes, 0),
        // A second process with the same socket: its bytes are its own, its retransmits are not.
        row(11, 1, "10.244.0.7", "10.244.0.8", 40000, 8080, 0, 0),
        row(20, 2, "10.244.0.8", "10.244.0.7", 8080, 40000, 0, bytes),
    ];
    format!(r#"{{"connections":[{}]}}"#, rows.join(","))
}

#[test]
fn the_2019_feeds_direction_is_not_believed_and_a_pods_connection_has_one_client_and_counts_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("feed.sock");
    let feed = StandIn::listen(&socket, Behaviour::Body(between_pods(100).into()))?;
    let weir = up(folder.path(), &socket)?;
    until(Duration::from_secs(20), || Ok(weir.transactions()?.len() == 3))?;
    feed.behave(Behaviour::Body(between_pods(400).into()));
    until(Duration::from_secs(20), || {
        let edges = weir.edges()?;
        let addresses: Vec<_> = edges
            .iter()
            .map(|edge| (edge.client.address.as_deref(), edge.server.address.as_deref(), edge.port))
            .collect();
        ensure!(addresses == [(Some("10.244.0.7"), Some("10.244.0.8"), 8080)], "{addresses:?}");
        let edge = &edges[0];
        // Three of each end's tuple.
        ensure!((edge.sent_bytes, edge.recv_bytes, edge.retransmits) == (300, 0, 6), "{edge:?}");
        Ok(true)
    })?;
    assert!(weir.stop(Duration::from_secs(5))?.success());
    Ok(())
}

#[test]
fn a_feed_that_misbehaves_is_named_and_counted_and_picked_up_when_it_is_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("feed.sock");
    let feed = StandIn::listen(&socket, Behaviour::Body(SAMPLE.into()))?;
    let weir = up(folder.path(), &socket)?;
    let agent = weir.pid("agent")?;
    let as_published = include_str!("data/sample-as-published.txt");
    let bad = [
        (Behaviour::Body(b"\x00\xffrubbish".to_vec()), "bad_json"),
        (Behaviour::Body(as_published.into()), "bad_json"),
        (Behaviour::Body(b"{\"connections\": 7}".to_vec()), "bad_json"),
        (Behaviour::Half(SAMPLE.into()), "truncated"),
        (Behaviour::Endless(200_000_000), "too_large"),
        (Behaviour::Status(500), "http_error"),
        (Behaviour::Never, "timeout"),
    ];
    for (behaviour, state) in bad {
        feed.behave(behaviour.clone());
        until(Duration::from_secs(60), || {
            let node = weir.node()?;
            ensure!(node.detail.contains(state), "expected {state} in the status of the node, got: {}", node.detail);
            let counter = node.counters.get(&format!("polls_{state}")).copied().unwrap_or(0);
            ensure!(counter > 0, "counter polls_{state} in {:?}", node.counters);
            Ok(true)
        })
        .with_context(|| format!("with {}", label(&behaviour)))?;
        ensure!(weir.pid("agent")? == agent, "the agent was restarted by {}", label(&behaviour));
        feed.behave(Behaviour::Body(SAMPLE.into()));
        until(Duration::from_secs(30), || Ok(weir.node()?.health == "healthy"))
            .with_context(|| format!("not picked up after {}", label(&behaviour)))?;
    }
    let peak = peak_memory_bytes(agent.as_raw())?;
    ensure!(peak < 300_000_000, "the agent's memory reached {peak} bytes");
    drop(feed);
    until(Duration::from_secs(30), || Ok(weir.node()?.detail.contains("missing")))?;
    let _feed = StandIn::listen(&socket, Behaviour::Body(format!("{{\"connections\":[{}]}}", row(5)).into()))?;
    until(Duration::from_secs(30), || Ok(weir.node()?.health == "healthy"))?;
    assert!(weir.stop(Duration::from_secs(5))?.success());
    Ok(())
}

fn label(behaviour: &Behaviour) -> String {
    let text = format!("{behaviour:?}");
    text.chars().take(60).collect()
}

/// `VmHWM` of a process: the most memory that it ever had resident.
fn peak_memory_bytes(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
