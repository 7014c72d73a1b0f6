//! The promise: every count is exact, each direction, and an edge counts each byte once.

use anyhow::{Context, Result};
use std::time::Duration;
use weir_testkit::checker::{edges_differ, transactions_differ};
use weir_testkit::is_root_or_skip;
use weir_testkit::played::Stage;
use weir_testkit::process::until;
use weir_testkit::traffic::Manner;
use weir_testkit::weir::Weir;

#[test]
fn every_byte_of_known_exchanges_is_in_the_transactions_and_once_in_the_edges() -> Result<()> {
    if !is_root_or_skip("every_byte_of_known_exchanges_is_in_the_transactions_and_once_in_the_edges") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let weir = Weir::up(&folder.path().join("data"), "1s", &[])?;
    let mut stage = Stage::open()?;
    let (echo, sink, reset) = (
        stage.at("127.0.0.1", Manner::Echo)?,
        stage.at("127.0.0.1", Manner::Sink)?,
        stage.at("127.0.0.1", Manner::Reset)?,
    );
    let echo_v6 = stage.at("::1", Manner::Echo)?;

    stage.play(&["echo", "--bytes", "1"], &[echo])?;
    stage.play(&["echo", "--bytes", "65536"], &[echo])?;
    stage.play(&["echo", "--bytes", "104857600"], &[echo])?;
    stage.play(&["upload", "--bytes", "3000000"], &[sink])?;
    stage.play(&["reset"], &[reset])?;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.local_addr()?
    };
    stage.play(&["refused"], &[nobody])?;
    stage.play(&["echo", "--bytes", "12345"], &[echo_v6])?;
    let datagram_servers = stage.datagram_servers();
    stage.play(&["datagrams", "--count", "50"], &datagram_servers)?;
    stage.play(&["short", "--connections", "1000"], &[stage.at("127.0.0.1", Manner::Echo)?])?;
    let reuse = stage.at("127.0.0.2", Manner::Echo)?;
    stage.play(&["reuse"], &[reuse])?;

    // Directions and owners are compared too.
    let truth = stage.close()?;
    until(Duration::from_secs(30), || {
        let differ = transactions_differ(&truth, &weir.transactions()?);
        anyhow::ensure!(differ.is_empty(), "transactions differ from the truth:\n{differ}");
        Ok(true)
    })?;
    let differ = edges_differ(&truth, &weir.edges()?);
    anyhow::ensure!(differ.is_empty(), "edges differ from the truth:\n{differ}");

    let transactions = weir.transactions()?;
    let refused = transactions.iter().find(|row| row.dest_port == nobody.port()).context("the refused connect")?;
    assert_eq!((refused.close_reason.as_deref(), refused.errno), (Some("refused"), Some(111)));
    let edges = weir.edges()?;
    let failed = edges.iter().find(|edge| edge.port == nobody.port()).context("the refused connect's edge")?;
    assert_eq!((failed.failures, failed.sent_bytes, failed.recv_bytes), (1, 0, 0));
    assert!(weir.stop(Duration::from_secs(5))?.success());
    Ok(())
}
