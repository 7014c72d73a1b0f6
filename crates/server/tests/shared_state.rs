//! Promise: with `--state etcd`, transactions and metadata outlive the server and its folder, and one server at a time
//! writes them, whatever is killed or paused. Real servers, each a process of its own, and real etcd.

#![cfg(test)]

#[path = "../../store/tests/etcd_servers/mod.rs"]
#[allow(dead_code, reason = "this file needs a part of it")]
mod etcd_servers;
mod server_process;
mod support;

use etcd_servers::Servers;
use nix::sys::signal::Signal;
use serde_json::Value;
use server_process::ServerProcess;
use support::*;

/// Not a promise of its own: the server process of the tests below.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_the_tests_below() {
    server_process::run_if_asked().await;
}

fn spawn(etcd: &Servers) -> ServerProcess {
    let endpoint = &etcd.endpoints()[0];
    let state = ["--state", "etcd", "--etcd-endpoints", endpoint, "--etcd-lease", "3s"];
    ServerProcess::spawn(&[&["--kubernetes", "off"][..], &state].concat())
}

fn sorted(mut items: Vec<Value>) -> Vec<Value> {
    items.sort_by_key(ToString::to_string);
    items
}

const TRANSACTIONS: &str = "/api/v1/transactions";
const METADATA: &str = "/api/v1/metadata?kind=node";

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_folder_goes_on_from_etcd_and_a_second_server_is_told_who_the_first_is() {
    let etcd = Servers::start(1);
    let first = spawn(&etcd);
    let server = first.listening().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    let mut batch = agent.batch(both_views(1, 40000, 100, 7, START + POLL));
    batch.metadata.push(node_fact("a", &["10.0.0.1"]));
    session.deliver(&batch).await;
    server.applied(1).await;
    let told = (sorted(server.items(TRANSACTIONS).await), sorted(server.items(METADATA).await));
    assert_eq!((told.0.len(), told.1.len()), (2, 1), "{told:?}");
    first.signal(Signal::SIGKILL);
    first.end().await;
    // Its lease still runs: the second waits for its end, and has nothing but etcd.
    let second = spawn(&etcd);
    let server = second.listening().await;
    assert_eq!((sorted(server.items(TRANSACTIONS).await), sorted(server.items(METADATA).await)), told);
    assert_eq!(told.0[0]["key"].as_str().unwrap().split('-').count(), 4);
    // A third one while that lives.
    let third = spawn(&etcd);
    let (code, said) = third.end().await;
    assert_eq!(code, Some(1), "{said}");
    let holder = format!("process {} on ", second.id());
    assert!(said.contains(&holder) && said.contains("owns it; stop that server"), "{said}");
    assert_eq!(server.items(TRANSACTIONS).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_server_ends_when_it_wakes_and_has_written_nothing_over_its_successor() {
    let etcd = Servers::start(1);
    let first = spawn(&etcd);
    let server = first.listening().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    session.deliver(&agent.batch(both_views(1, 40000, 100, 7, START + POLL))).await;
    server.applied(1).await;
    first.pause();
    // It lies in the paused server's socket.
    session.send_ahead(frame(&agent.batch(both_views(3, 40001, 100, 7, START + 2 * POLL)))).await;
    let second = spawn(&etcd);
    let server = second.listening().await;
    let mut other = TestAgent::new("b", 2);
    other.connect(&server).await.deliver(&other.batch(both_views(5, 40002, 1, 1, START + POLL))).await;
    server.applied(1).await;
    let before = etcd.ctl(&["get", "--prefix", "/weir/transactions/"]);
    first.signal(Signal::SIGCONT);
    let (code, said) = first.end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("process {} on ", second.id())) && said.contains("owns it now"), "{said}");
    assert_eq!(etcd.ctl(&["get", "--prefix", "/weir/transactions/"]), before);
    assert_eq!(server.items(TRANSACTIONS).await.len(), 4, "two of the first, two of the second");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_etcd_is_away_batches_are_acknowledged_readers_answered_and_afterwards_nothing_is_missing() {
    let mut etcd = Servers::start(1);
    let process = spawn(&etcd);
    let server = process.listening().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    session.deliver(&agent.batch(both_views(1, 40000, 100, 7, START + POLL))).await;
    server.applied(1).await;
    etcd.kill(0);
    // Durable in the log, whatever etcd does.
    session.deliver(&agent.batch(both_views(3, 40001, 50, 7, START + 2 * POLL))).await;
    assert_eq!(server.items(TRANSACTIONS).await.len(), 2);
    etcd.spawn(0);
    server.applied(2).await;
    assert_eq!(server.items(TRANSACTIONS).await.len(), 4);
    let keys = etcd.ctl(&["get", "--prefix", "--keys-only", "/weir/transactions/"]);
    assert_eq!(keys.split_whitespace().count(), 4, "{keys}");
}
