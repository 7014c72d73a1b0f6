//! The promise: what was lost, where and why, is in every answer whose span it falls into, and in no other. Each reason
//! is forced in `crates/tracer/tests/losses.rs`; here they go the rest of the way, to `weir edges -o json`.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use weir_testkit::feed::{Behaviour, StandIn};
use weir_testkit::process::{Process, binary, until};
use weir_testkit::weir::Weir;
use weir_wire::api::{Answer, Edge, LossTotal, Transaction};
use weir_wire::losses::{ALL, BYTES, Reason};

/// One test goes into a cgroup with the whole process, so the others must not be at work meanwhile.
static ALONE: Mutex<()> = Mutex::new(());

const PATIENCE: Duration = Duration::from_secs(30);

fn up(folder: &Path, socket: &Path) -> Result<Weir> {
    Weir::up(&folder.join("data"), "500ms", &["--feed", &format!("unix:{}", socket.display())])
}

fn edges(weir: &Weir, more: &[&str]) -> Result<Answer<Edge>> {
    weir.answer(&[&["edges"], more].concat())
}

/// A reply without connections, with each reason of the tracer `times` times its place in the list.
fn reply(times: u64) -> Behaviour {
    let mut losses = BTreeMap::new();
    for (count, reason) in (1..).zip(of_the_feed()) {
        losses.insert(reason.word.to_owned(), count * times);
    }
    losses.insert(format!("udp_flows_full{BYTES}"), 1_400 * times);
    let losses: Vec<String> = losses.iter().map(|(word, count)| format!("\"{word}\":{count}")).collect();
    let body = format!(
        "{{\"run_id\":\"00000000000000aa\",\"connections\":[],\"cursor\":7,\"complete\":true,\"losses\":{{{}}}}}",
        losses.join(",")
    );
    Behaviour::Body(body.into())
}

/// The tracer's own words; two of that place are the agent's, about the tracer.
fn of_the_feed() -> impl Iterator<Item = &'static Reason> {
    let told =
        |reason: &&Reason| reason.place == "tracer" && !matches!(reason.word, "closed_unseen" | "tracer_restarted");
    ALL.iter().copied().filter(told)
}

#[test]
fn every_reason_of_the_feed_is_in_the_answers_of_its_span_and_in_no_other() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("feed.sock");
    // What was lost before weir came is not its loss.
    let feed = StandIn::listen(&socket, reply(1))?;
    let weir = up(folder.path(), &socket)?;
    let clean = edges(&weir, &[])?;
    ensure!(clean.completeness.losses.is_empty(), "{:?}", clean.completeness.losses);
    let before = clean.completeness.to;
    feed.behave(reply(3));
    until(PATIENCE, || Ok(!edges(&weir, &[])?.completeness.losses.is_empty()))?;
    let answer = edges(&weir, &[])?.completeness;
    ensure!(!answer.complete, "something was lost");
    let found: BTreeMap<&str, &LossTotal> = answer.losses.iter().map(|loss| (loss.reason.as_str(), loss)).collect();
    ensure!(found.len() == of_the_feed().count() && found.len() == answer.losses.len(), "{:?}", answer.losses);
    for (count, reason) in (1..).zip(of_the_feed()) {
        let loss = found.get(reason.word).with_context(|| format!("{} is missing", reason.word))?;
        ensure!(loss.count == 2 * count && loss.place == "tracer", "{loss:?}");
        ensure!(loss.intended == reason.intended, "{loss:?}");
        ensure!(loss.bytes == if reason.word == "udp_flows_full" { 2_800 } else { 0 }, "{loss:?}");
        ensure!(loss.node == answer.nodes[0].node, "{loss:?}");
        let (from, to) = (loss.from.as_deref().unwrap_or(""), loss.to.as_deref().unwrap_or(""));
        ensure!(from >= answer.from.as_str() && to <= answer.to.as_str() && to > before.as_str(), "{loss:?}");
    }
    // The same counts again, from an agent that starts again: nothing more was lost.
    weir.kill("agent")?;
    let end = answer.losses[0].to.clone().context("the end of the loss")?;
    until(PATIENCE, || {
        let seen = edges(&weir, &[])?.completeness.nodes[0].last_seen.clone().unwrap_or_default();
        Ok(seen > end && weir.up_file()?.parts.iter().any(|part| part.name == "agent" && part.restarts > 0))
    })?;
    let again = edges(&weir, &[])?.completeness;
    ensure!(again.losses == answer.losses, "{:?} became {:?}", answer.losses, again.losses);
    let begin = answer.losses[0].from.clone().context("the beginning of the loss")?;
    let outside = [["--since", "1h", "--until", begin.as_str()], ["--since", end.as_str(), "--until", &again.to]];
    for span in outside {
        let losses = edges(&weir, &span)?.completeness.losses;
        ensure!(losses.is_empty(), "{span:?}: {losses:?}");
    }
    assert!(weir.stop(Duration::from_secs(5))?.success());
    Ok(())
}

/// A cgroup that this process can go into and out of.
struct Scope {
    folder: PathBuf,
    before: PathBuf,
}

impl Scope {
    fn new() -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).context("no cgroup v2")?;
        let root = PathBuf::from(mount.split(' ').nth(4).context("a mount has a place")?);
        let own = std::fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or("").to_owned();
        let folder = root.join(format!("weir-test-losses-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        Ok(Self { folder, before: root.join(own) })
    }

    fn within<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let pid = std::process::id().to_string();
        std::fs::write(self.folder.join("cgroup.procs"), &pid)?;
        let outcome = act();
        std::fs::write(self.before.join("cgroup.procs"), &pid)?;
        outcome
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.folder);
    }
}

fn churn(listener: &TcpListener, count: usize) -> Result<()> {
    for _ in 0..count {
        drop(TcpStream::connect(listener.local_addr()?)?);
        let (stream, _) = listener.accept()?;
        let mut byte = [0];
        std::io::Read::read(&mut &stream, &mut byte)?;
    }
    Ok(())
}

#[test]
fn of_six_hundred_ends_into_a_tiny_ring_each_is_a_transaction_or_told_as_lost() -> Result<()> {
    if !weir_testkit::is_root_or_skip("of_six_hundred_ends_into_a_tiny_ring_each_is_a_transaction_or_told_as_lost") {
        return Ok(());
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("tracer.sock");
    let scope = Scope::new()?;
    let mut command = Command::new(binary("weir-tracer")?);
    command.arg("--socket").arg(&socket).arg("--cgroup").arg(&scope.folder).args(["--closed-ring-bytes", "4096"]);
    let tracer = Process::spawn(command)?;
    until(PATIENCE, || Ok(socket.exists()))?;
    let weir = up(folder.path(), &socket)?;
    // Whose listener it is decides whose connections it accepts.
    let listener = scope.within(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?))?;
    let port = listener.local_addr()?.port();
    // Half of them while nobody takes them from the ring.
    tracer.signal(Signal::SIGSTOP)?;
    let outcome = scope.within(|| churn(&listener, 150));
    tracer.signal(Signal::SIGCONT)?;
    outcome?;
    scope.within(|| churn(&listener, 150))?;
    let mut told = (0, 0);
    until(PATIENCE, || {
        let answer: Answer<Transaction> =
            weir.answer(&["transactions", "--port", &port.to_string(), "--limit", "1000"])?;
        let lost = answer.completeness.losses.iter().filter(|loss| loss.reason == "tcp_closed_ring_full");
        told = (answer.items.len() as u64, lost.map(|loss| loss.count).sum());
        Ok(told.0 + told.1 >= 600)
    })
    .with_context(|| format!("kept and lost: {told:?}"))?;
    ensure!(told.0 + told.1 == 600 && told.1 >= 300 - 30, "kept and lost: {told:?}");
    assert!(weir.stop(Duration::from_secs(5))?.success());
    tracer.signal(Signal::SIGTERM)?;
    Ok(())
}
