//! The promise: Datadog's system-probe is read as it is, every byte that it tells counts once, and what stands in the way
//! is said.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::Duration;
use weir_testkit::feed;
use weir_testkit::process::until;
use weir_testkit::system_probe::{Behaviour, Connection, StandIn, Version};
use weir_testkit::weir::Weir;
use weir_wire::api::{Answer, Edge, Transaction};

const PATIENCE: Duration = Duration::from_secs(40);
/// A long connection of a client in a pod.
const LONG: u64 = 1;
const ID: &str = "eae2780ca50271940c642eb532ec85cc6898c7a9a9512f7a41a0dcdcd2708860";

fn up(folder: &Path, socket: &Path) -> Result<Weir> {
    Weir::up(&folder.join("data"), "200ms", &["--feed", &format!("unix:{}", socket.display())])
}

fn long() -> Connection {
    Connection { container: ID.into(), ..Connection::tcp("10.244.0.7:40000", "10.244.0.8:8080") }
}

/// The edge to a port: sent, received, connections, failures.
fn edge(weir: &Weir, port: u16) -> Result<(u64, u64, u64, u64)> {
    let edges: Vec<Edge> = weir.edges()?.into_iter().filter(|edge| edge.port == port).collect();
    let sum = |of: fn(&Edge) -> u64| edges.iter().map(of).sum();
    ensure!(!edges.is_empty(), "no edge to port {port} yet");
    Ok((
        sum(|edge| edge.sent_bytes),
        sum(|edge| edge.recv_bytes),
        sum(|edge| edge.connections),
        sum(|edge| edge.failures),
    ))
}

fn becomes(weir: &Weir, port: u16, wanted: (u64, u64, u64, u64)) -> Result<()> {
    until(PATIENCE, || {
        let now = edge(weir, port)?;
        ensure!(now == wanted, "the edge to {port} is {now:?}, {wanted:?} is true");
        Ok(true)
    })
}

fn transaction(weir: &Weir, local_port: u16) -> Result<Transaction> {
    let found =
        weir.transactions()?.into_iter().filter(|row| row.source_port == local_port).max_by_key(|row| row.generation);
    found.with_context(|| format!("no transaction from port {local_port}"))
}

fn lost(weir: &Weir, reason: &str) -> Result<u64> {
    let answer: Answer<Edge> = weir.answer(&["edges", "--since", "1h"])?;
    Ok(answer.completeness.losses.iter().filter(|loss| loss.reason == reason).map(|loss| loss.count).sum())
}

#[test]
fn every_byte_that_system_probe_tells_counts_once_through_lost_replies_kills_and_restarts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("sysprobe.sock");
    let mut probe = StandIn::listen(&socket, Version::Today)?;
    probe.open(LONG, long());
    probe.moved(LONG, 5000, 300);
    let weir = up(folder.path(), &socket)?;
    // The first fetch is as old as system-probe: told, and in no window.
    until(PATIENCE, || {
        let row = transaction(&weir, 40_000)?;
        ensure!((row.monotonic_sent_bytes, row.bytes_before) == (5000, 5300), "{row:?}");
        ensure!((row.pid, row.net_ns, row.direction.as_str()) == (1000, 4_026_532_201, "outgoing"), "{row:?}");
        Ok(true)
    })?;
    becomes(&weir, 8080, (0, 0, 1, 0))?;
    probe.moved(LONG, 100, 10);
    becomes(&weir, 8080, (100, 10, 1, 0))?;
    ensure!(probe.in_protobuf() > 0, "protobuf is what is asked for");

    // A reply that breaks off has been told and is forgotten by the other side.
    probe.behave(Behaviour::BreakOff);
    probe.moved(LONG, 50, 5);
    until(PATIENCE, || Ok(weir.node()?.detail.contains("truncated")))?;
    probe.behave(Behaviour::Serve);
    becomes(&weir, 8080, (150, 15, 1, 0))?;
    ensure!(lost(&weir, "closed_rows_not_kept")? > 0, "what ended meanwhile is not known, and that is told");

    // One that came and went between two polls, one that failed, one through a Service, one over UDP.
    probe.open(2, Connection { counts: [70, 7, 0, 1, 0], ..Connection::tcp("10.244.0.7:40001", "10.244.0.9:81") });
    probe.close(2);
    let failed = Connection {
        failures: [(111, 1)].into(),
        counts: [0; 5],
        ..Connection::tcp("10.244.0.7:40002", "10.244.0.9:82")
    };
    probe.open(3, failed);
    probe.close(3);
    let backend = ("10.244.0.8:8083".parse()?, "10.244.0.7:40003".parse()?);
    let service = Connection {
        translation: Some(backend),
        counts: [33, 3, 0, 1, 0],
        ..Connection::tcp("10.244.0.7:40003", "10.96.0.1:83")
    };
    probe.open(4, service);
    let udp = Connection {
        is_udp: true,
        direction: 4,
        counts: [40, 90, 0, 0, 0],
        ..Connection::tcp("10.244.0.7:40004", "10.244.0.10:84")
    };
    probe.open(5, udp);
    becomes(&weir, 81, (70, 7, 1, 0))?;
    becomes(&weir, 82, (0, 0, 1, 1))?;
    becomes(&weir, 8083, (33, 3, 1, 0))?;
    becomes(&weir, 84, (40, 90, 1, 0))?;

    // It starts again and counts from 0.
    probe.restart()?;
    probe.moved(LONG, 30, 3);
    becomes(&weir, 8080, (180, 18, 1, 0))?;
    probe.moved(LONG, 1, 0);
    becomes(&weir, 8080, (181, 18, 1, 0))?;
    ensure!(lost(&weir, "tracer_restarted")? == 1, "{} restarts are told", lost(&weir, "tracer_restarted")?);

    // A killed agent is another client afterwards.
    weir.kill("agent")?;
    probe.moved(LONG, 1000, 0);
    becomes(&weir, 8080, (1181, 18, 1, 0))?;
    let row = transaction(&weir, 40_000)?;
    ensure!((row.monotonic_sent_bytes, row.bytes_before, row.generation) == (6181, 5300, 0), "{row:?}");

    // Its own losses are passed on, once.
    probe.lose("closed_conn_dropped", 4);
    until(PATIENCE, || Ok(lost(&weir, "closed_conn_dropped")? == 4))?;
    probe.moved(LONG, 1, 0);
    becomes(&weir, 8080, (1182, 18, 1, 0))?;
    ensure!(lost(&weir, "closed_conn_dropped")? == 4);
    assert!(weir.stop(Duration::from_secs(5))?.success());
    Ok(())
}

#[test]
fn a_system_probe_that_takes_its_endpoint_away_is_named_and_picked_up_when_it_serves_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("sysprobe.sock");
    let mut probe = StandIn::listen(&socket, Version::Today)?;
    probe.open(LONG, long());
    probe.moved(LONG, 500, 0);
    probe.behave(Behaviour::DirectSend);
    let weir = up(folder.path(), &socket)?;
    until(PATIENCE, || {
        let node = weir.node()?;
        ensure!(node.detail.contains("direct_send") && node.detail.contains("system-probe"), "{}", node.detail);
        Ok(true)
    })?;
    probe.behave(Behaviour::Busy);
    until(PATIENCE, || Ok(weir.node()?.detail.contains("429")))?;
    // Its configuration is changed, and it starts again.
    probe.behave(Behaviour::Serve);
    probe.restart()?;
    until(PATIENCE, || Ok(weir.node()?.health == "healthy"))?;
    probe.moved(LONG, 20, 2);
    until(PATIENCE, || {
        let row = transaction(&weir, 40_000)?;
        ensure!((row.monotonic_sent_bytes, row.monotonic_recv_bytes) == (20, 2), "{row:?}");
        Ok(true)
    })?;
    assert!(weir.stop(Duration::from_secs(5))?.success());
    Ok(())
}

#[test]
fn a_system_probe_of_2020_is_read_at_the_root_in_json() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("sysprobe.sock");
    let probe = StandIn::listen(&socket, Version::Of2020)?;
    probe.open(LONG, long());
    probe.moved(LONG, 5000, 300);
    let weir = up(folder.path(), &socket)?;
    until(PATIENCE, || Ok(transaction(&weir, 40_000).is_ok()))?;
    probe.moved(LONG, 100, 10);
    becomes(&weir, 8080, (100, 10, 1, 0))?;
    ensure!(probe.in_protobuf() == 0);
    assert!(weir.stop(Duration::from_secs(5))?.success());
    Ok(())
}

#[test]
fn another_kind_of_tracer_behind_the_same_path_is_found_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("sysprobe.sock");
    let probe = StandIn::listen(&socket, Version::Of2020)?;
    probe.open(LONG, long());
    let weir = up(folder.path(), &socket)?;
    until(PATIENCE, || Ok(transaction(&weir, 40_000).is_ok()))?;
    drop(probe);
    let legacy = format!("{{\"connections\":[{}]}}", feed::row(5));
    let legacy = feed::StandIn::listen(&socket, feed::Behaviour::Body(legacy.into()))?;
    until(PATIENCE, || Ok(transaction(&weir, 1029).is_ok()))?;
    drop(legacy);
    let probe = StandIn::listen(&socket, Version::Today)?;
    probe.open(2, Connection { counts: [7, 0, 0, 1, 0], ..Connection::tcp("10.244.0.7:40009", "10.244.0.8:8080") });
    until(PATIENCE, || Ok(transaction(&weir, 40_009)?.monotonic_sent_bytes == 7))?;
    assert!(weir.stop(Duration::from_secs(5))?.success());
    Ok(())
}
