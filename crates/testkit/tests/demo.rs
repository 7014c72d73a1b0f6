//! The promise: the demo shows a whole cluster's traffic, ends clean, and says what is in its way.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;
use weir_testkit::answers::Answers;
use weir_testkit::is_root_or_skip;
use weir_testkit::process::{Process, binary, until};
use weir_testkit::tour::Demo;

/// A demo with weir on three nodes, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_demo_shows_edges_of_every_node_and_ends_by_itself() -> Result<()> {
    if !is_root_or_skip("a_demo_shows_edges_of_every_node_and_ends_by_itself") {
        return Ok(());
    }
    let mut command = Command::new(binary("weir-demo")?);
    command.args(["--listen", "127.0.0.1:0", "--dual-stack", "--seconds", "20"]);
    let mut demo = Process::spawn(command)?;
    let look = loop {
        let line = demo.line(PATIENCE)?;
        if line.starts_with("Look:") {
            break line;
        }
    };
    let (_, address) = look.split_once("http://").context("the page's address")?;
    let answers = Answers::of(address.trim());
    until(PATIENCE, || {
        let rows = answers.transactions()?;
        let nodes: BTreeSet<&str> = rows.iter().map(|row| row.node.as_str()).collect();
        ensure!(nodes.is_superset(&BTreeSet::from(["node1", "node2", "node3"])), "transactions of {nodes:?}");
        let edges = answers.edges()?;
        let ends: BTreeSet<String> = edges
            .iter()
            .flat_map(|edge| [&edge.client, &edge.server])
            .filter_map(|end| end.address.as_ref().map(ToString::to_string))
            .collect();
        // Pods of every node, the outside customers, a host-network pod, and both families.
        for start in ["10.244.1.", "10.244.2.", "10.244.3.", "10.88.0.200", "10.88.0.13", "fd00:10:"] {
            ensure!(ends.iter().any(|end| end.starts_with(start)), "no edge of {start} in {ends:?}");
        }
        Ok(true)
    })?;
    ensure!(demo.wait(PATIENCE)?.success());
    let last = std::iter::from_fn(|| demo.line(Duration::from_secs(1)).ok()).last();
    ensure!(last.as_deref().is_some_and(|line| line.ends_with("nothing is left")), "{last:?}");
    ensure!(!std::env::temp_dir().join(format!("weir-testkit-{}-0", demo.pid())).exists());
    Ok(())
}

#[test]
fn a_demo_whose_port_is_taken_says_so() -> Result<()> {
    if !is_root_or_skip("a_demo_whose_port_is_taken_says_so") {
        return Ok(());
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let _holder = std::net::TcpListener::bind(taken)?;
    let output = Command::new(binary("weir-demo")?).args(["--listen", &taken.to_string()]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains(&format!("{taken} is in use")), "{said}");
    Ok(())
}

#[test]
fn a_fault_is_switched_from_another_terminal() -> Result<()> {
    if !is_root_or_skip("a_fault_is_switched_from_another_terminal") {
        return Ok(());
    }
    let demo = Demo::start()?;
    let on = || -> Result<Vec<String>> {
        let text = demo.tell(&["faults"])?;
        ensure!(text.lines().count() == 5, "{text}");
        Ok(text.lines().filter(|line| line.contains(" on ")).map(str::to_owned).collect())
    };
    ensure!(on()?.is_empty(), "{:?}", on()?);
    let text = demo.tell(&["fault", "refused"])?;
    ensure!(text.contains("refused is on"), "{text}");
    until(PATIENCE, || {
        let edges = demo.answers.edges_by("workload")?;
        Ok(edges.iter().any(|edge| edge.server.name == "mail" && edge.failures > 0))
    })?;
    let error = demo.tell(&["fault", "refused"]).expect_err("it is on");
    ensure!(error.to_string().contains("on already"), "{error:#}");
    // Every other one goes on and off, and nothing ends of it.
    for fault in ["loss", "dns", "rollout", "heavy"] {
        demo.tell(&["fault", fault])?;
        demo.tell(&["fault", fault, "off"])?;
    }
    ensure!(on()?.iter().map(|line| line.starts_with("refused")).eq([true]), "{:?}", on()?);
    demo.tell(&["fault", "refused", "off"])?;
    let address = demo.address().to_owned();
    demo.stop()?;
    let output = Command::new(binary("weir-demo")?).args(["--listen", &address, "fault", "refused"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("no demo has its page at port"), "{said}");
    Ok(())
}
