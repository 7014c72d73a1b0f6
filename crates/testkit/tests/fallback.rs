//! The promise: without eBPF, and for an ordinary user, TCP is exact from the socket to the edge, and every answer says
//! that it is not all.

use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::process::Command;
use std::time::Duration;
use weir_testkit::is_root_or_skip;
use weir_testkit::process::{binary, until};
use weir_testkit::weir::{Weir, install};

/// `nobody`.
const NOBODY: u32 = 65_534;

/// Sent by the client, sent by the server.
const SIZES: [(usize, usize); 4] = [(1, 0), (17, 34), (65_536, 1), (3_000_000, 70_000)];

fn play(listener: &TcpListener) -> Result<()> {
    for (there, back) in SIZES {
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        let mut server = listener.accept()?.0;
        std::thread::scope(|scope| {
            let send = scope.spawn(|| {
                client.write_all(&vec![1; there])?;
                client.read_exact(&mut vec![0; back])
            });
            server.read_exact(&mut vec![0; there])?;
            server.write_all(&vec![2; back])?;
            send.join().map_err(|_panic| std::io::Error::other("the client panicked"))?
        })?;
    }
    Ok(())
}

fn holds(weir: &Weir) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    play(&listener)?;
    let (there, back) = SIZES.iter().fold((0, 0), |sum, size| (sum.0 + size.0 as u64, sum.1 + size.1 as u64));
    until(Duration::from_secs(30), || {
        let rows = weir.transactions()?;
        let ends = rows.iter().filter(|row| row.close_reason.as_deref() == Some("closed"));
        let ends: Vec<_> = ends.filter(|row| row.dest_port == port || row.source_port == port).collect();
        ensure!(ends.len() == 2 * SIZES.len(), "{} ends", ends.len());
        let sum = |direction: &str| {
            let rows = ends.iter().filter(|row| row.direction == direction);
            rows.fold((0, 0), |sum, row| (sum.0 + row.monotonic_sent_bytes, sum.1 + row.monotonic_recv_bytes))
        };
        ensure!(sum("outgoing") == (there, back), "the clients' ends: {:?}", sum("outgoing"));
        ensure!(sum("incoming") == (back, there), "the servers' ends: {:?}", sum("incoming"));
        let edges = weir.edges()?;
        let edge = edges.iter().find(|edge| edge.port == port).context("the edge")?;
        ensure!((edge.sent_bytes, edge.recv_bytes) == (there, back), "the edge: {edge:?}");
        ensure!(edge.connections == SIZES.len() as u64, "the edge: {edge:?}");
        Ok(true)
    })?;
    let status = weir.status()?;
    let node = status.completeness.nodes.first().context("a node")?;
    ensure!(!status.completeness.complete, "an answer without UDP is not complete");
    ensure!(node.source_state == "degraded", "{node:?}");
    ensure!(
        node.source_detail.starts_with("fallback instead of eBPF: ") && node.source_detail.contains("udp"),
        "{node:?}"
    );
    Ok(())
}

#[test]
fn a_tracer_without_ebpf_is_exact_to_the_edge_and_every_answer_says_that_it_is_degraded() -> Result<()> {
    if !is_root_or_skip("a_tracer_without_ebpf_is_exact_to_the_edge_and_every_answer_says_that_it_is_degraded") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(binary("weir")?);
    command.env("WEIR_TRACER_MODE", "fallback");
    let weir = Weir::up_by(command, &folder.path().join("data"), "1s", &[])?;
    holds(&weir)?;
    ensure!(weir.stop(Duration::from_secs(5))?.success(), "an orderly end");
    Ok(())
}

#[test]
fn an_ordinary_users_weir_up_counts_every_byte_of_tcp_and_says_what_is_missing() -> Result<()> {
    if !is_root_or_skip("an_ordinary_users_weir_up_counts_every_byte_of_tcp_and_says_what_is_missing") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    install(folder.path())?;
    let home = folder.path().join("home");
    std::fs::create_dir(&home)?;
    chown(&home, Some(NOBODY), Some(NOBODY))?;
    let id = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--inh-caps=-all"])
        .arg(folder.path().join("weir"))
        .env("HOME", &home)
        .env_remove("XDG_DATA_HOME");
    let weir = Weir::up_by(command, &home.join(".local/share/weir"), "1s", &[])?;
    holds(&weir)?;
    let detail = weir.node()?.detail;
    ensure!(detail.contains("lacks CAP_BPF, CAP_PERFMON"), "{detail}");
    ensure!(weir.stop(Duration::from_secs(5))?.success(), "an orderly end");
    Ok(())
}
