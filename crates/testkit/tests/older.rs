//! The promise: a connection older than everything does not dump its lifetime into one window, and what was seen is
//! still there after a restart.

use anyhow::{Context, Result, ensure};
use std::time::Duration;
use weir_testkit::is_root_or_skip;
use weir_testkit::played::Stage;
use weir_testkit::process::until;
use weir_testkit::traffic::Manner;
use weir_testkit::weir::Weir;

#[test]
fn a_connection_older_than_everything_brings_only_what_it_does_from_now_on() -> Result<()> {
    if !is_root_or_skip("a_connection_older_than_everything_brings_only_what_it_does_from_now_on") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::open()?;
    let server = stage.at("127.0.0.1", Manner::Echo)?;
    let mut old = stage.start(&["hold", "--bytes", "100000"], server)?;
    old.line()?;
    for _ in 0..5 {
        old.step()?;
    }

    let weir = Weir::up(&folder.path().join("data"), "1s", &[])?;
    let own = |weir: &Weir| -> Result<(u64, u64, u64)> {
        let edges = weir.edges()?;
        let edge = edges.iter().find(|edge| edge.port == server.port()).context("the old connection's edge")?;
        Ok((edge.sent_bytes, edge.recv_bytes, edge.connections))
    };
    until(Duration::from_secs(20), || {
        let transactions = weir.transactions()?;
        let rows: Vec<_> =
            transactions.iter().filter(|row| row.key.ends_with(&format!("-{}", server.port()))).collect();
        ensure!(rows.len() == 1, "{} rows of the client's end", rows.len());
        ensure!(rows[0].monotonic_sent_bytes == 500_000 && rows[0].bytes_before == 1_000_000, "{:?}", rows[0]);
        ensure!(rows[0].direction == "outgoing", "direction {}", rows[0].direction);
        ensure!(own(&weir)? == (0, 0, 1), "edge {:?}", own(&weir)?);
        Ok(true)
    })?;
    old.step()?;
    until(Duration::from_secs(20), || {
        ensure!(own(&weir)? == (100_000, 100_000, 1), "edge {:?}", own(&weir)?);
        Ok(true)
    })?;
    assert!(weir.stop(Duration::from_secs(5))?.success());

    // Everything is still there; what came while nothing ran is counted by the next run, from the kernel's totals.
    old.step()?;
    let weir = Weir::up(&folder.path().join("data"), "1s", &[])?;
    until(Duration::from_secs(20), || {
        ensure!(own(&weir)? == (200_000, 200_000, 1), "edge {:?}", own(&weir)?);
        Ok(true)
    })?;
    stage.end(old)?;
    assert!(weir.stop(Duration::from_secs(5))?.success());
    Ok(())
}
