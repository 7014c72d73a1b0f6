//! The promise: whatever is killed, no byte of a TCP connection is missing and none is counted twice.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;
use weir_testkit::checker::{edges_differ, transactions_differ};
use weir_testkit::is_root_or_skip;
use weir_testkit::played::Stage;
use weir_testkit::process::until;
use weir_testkit::traffic::Manner;
use weir_testkit::weir::Weir;

/// How often each part is killed.
const KILLS: usize = 10;

/// A small generator (xorshift, Marsaglia 2003): the order and the pauses of the kills, reproducible by the seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[test]
fn killing_any_part_at_any_time_loses_no_byte_and_counts_none_twice() -> Result<()> {
    if !is_root_or_skip("killing_any_part_at_any_time_loses_no_byte_and_counts_none_twice") {
        return Ok(());
    }
    let seed = std::env::var("WEIR_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()) + 1);
    println!("seed {seed}: run again with WEIR_SEED={seed}");
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::open()?;
    let server = stage.at("127.0.0.1", Manner::Echo)?;
    let weir = Weir::up(&folder.path().join("data"), "500ms", &[])?;
    let churn = stage.start(&["churn"], server)?;

    let mut kills: Vec<&str> = ["tracer", "agent", "server"].repeat(KILLS);
    while !kills.is_empty() {
        let part = kills.swap_remove(random.below(kills.len() as u64) as usize);
        pause(Duration::from_millis(random.below(900)));
        weir.kill(part)?;
    }
    stage.end(churn)?;

    until(Duration::from_secs(180), || {
        let differ = transactions_differ(stage.truth(), &weir.transactions()?);
        ensure!(differ.is_empty(), "seed {seed}: transactions differ from the truth:\n{differ}");
        let differ = edges_differ(stage.truth(), &weir.edges()?);
        ensure!(differ.is_empty(), "seed {seed}: edges differ from the truth:\n{differ}");
        Ok(true)
    })?;
    ensure!(stage.truth().len() > 500, "only {} ends of traffic were played", stage.truth().len());
    let restarts: u64 = weir.up_file()?.parts.iter().map(|part| part.restarts).sum();
    ensure!(restarts >= 3 * KILLS as u64, "{restarts} restarts were counted");
    assert!(weir.stop(Duration::from_secs(5))?.success());
    Ok(())
}

#[test]
fn a_tracer_killed_with_its_keeper_is_a_told_gap_that_live_tcp_bridges() -> Result<()> {
    if !is_root_or_skip("a_tracer_killed_with_its_keeper_is_a_told_gap_that_live_tcp_bridges") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let mut stage = Stage::open()?;
    let server = stage.at("127.0.0.1", Manner::Echo)?;
    let weir = Weir::up(&data, "500ms", &[])?;
    let mut held = stage.start(&["hold", "--bytes", "5000"], server)?;
    held.line()?;
    held.step()?;
    let sent = |weir: &Weir| -> Result<u64> {
        Ok(weir.edges()?.iter().filter(|edge| edge.port == server.port()).map(|edge| edge.sent_bytes).sum())
    };
    until(Duration::from_secs(60), || Ok(sent(&weir)? == 5000))?;

    // Stopped first, or it would replace its keeper before it is killed itself.
    let tracer = weir.pid("tracer")?;
    kill(tracer, Signal::SIGSTOP)?;
    kill(keeper_of(tracer)?, Signal::SIGKILL)?;
    weir.kill("tracer")?;
    held.step()?;
    until(Duration::from_secs(60), || {
        ensure!(sent(&weir)? == 10_000, "{} bytes", sent(&weir)?);
        let status = weir.status()?;
        let told = status.completeness.losses.iter().any(|loss| loss.reason == "tracer_restarted");
        ensure!(told, "losses {:?}", status.completeness.losses);
        ensure!(!status.completeness.complete, "an answer with a gap in it is not complete");
        Ok(true)
    })?;
    stage.end(held)?;
    until(Duration::from_secs(60), || {
        let differ = transactions_differ(stage.truth(), &weir.transactions()?);
        ensure!(differ.is_empty(), "transactions differ from the truth:\n{differ}");
        Ok(true)
    })?;
    assert!(weir.stop(Duration::from_secs(5))?.success());
    Ok(())
}

/// The keeper that this tracer started: several may run on a machine.
fn keeper_of(tracer: Pid) -> Result<Pid> {
    for process in std::fs::read_dir("/proc")? {
        let path = process?.path();
        let Ok(status) = std::fs::read_to_string(path.join("status")) else { continue };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if field("Name:") == Some("weir-keeper") && field("PPid:") == Some(&tracer.to_string()) {
            return Ok(Pid::from_raw(field("Pid:").context("a pid")?.parse()?));
        }
    }
    anyhow::bail!("the tracer {tracer} has no keeper")
}

#[expect(clippy::disallowed_methods, reason = "the kills come at random times; nothing is assumed after the pause")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
