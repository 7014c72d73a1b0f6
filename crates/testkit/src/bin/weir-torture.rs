//! Tortures weir: `make torture`. Each run is drawn from its seed, and `--seed N` plays one again.

use anyhow::{Result, ensure};
use clap::Parser;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use weir_testkit::overhead::machine;
use weir_testkit::torture::plan::{Network, Outcome, Plan, State};
use weir_testkit::torture::report::{self, Place};
use weir_testkit::torture::run::play;

/// Plays runs of real agents and a real server under every fault that can be made, and checks each against its truth.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Plays only the run of this seed.
    #[arg(long, conflicts_with_all = ["from", "runs"])]
    seed: Option<u64>,
    /// The first seed [default: random].
    #[arg(long)]
    from: Option<u64>,
    /// How many runs.
    #[arg(long, default_value_t = 200)]
    runs: u64,
    /// How many at the same time.
    #[arg(long, default_value_t = 2)]
    parallel: u64,
    /// After so many minutes no further run begins; the page says how many were played.
    #[arg(long)]
    minutes: Option<u64>,
    /// Where every run keeps current state [default: as its seed says].
    #[arg(long, value_enum)]
    state: Option<State>,
    /// What lies between agents and the relay in every run [default: as its seed says].
    #[arg(long, value_enum)]
    network: Option<Network>,
    /// Where the page goes; only what failed and how many passed is told otherwise.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (from, runs) = match args.seed {
        Some(seed) => (seed, 1),
        // Five digits are easy to type again.
        None => (args.from.map_or_else(random, Ok)?, args.runs),
    };
    let commit = machine::commit();
    let start = now();
    let next = AtomicU64::new(from);
    let failed: Mutex<Vec<(u64, String)>> = Mutex::new(Vec::new());
    let done: Mutex<Vec<Outcome>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..args.parallel.max(1) {
            scope.spawn(|| {
                loop {
                    if args.minutes.is_some_and(|minutes| start.elapsed().as_secs() >= 60 * minutes) {
                        return;
                    }
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + runs {
                        return;
                    }
                    let plan = Plan::of(seed);
                    let plan = args.state.map_or(plan.clone(), |state| plan.with_state(state));
                    let plan = args.network.map_or(plan.clone(), |network| plan.with_network(network));
                    match play(&plan) {
                        Ok(outcome) => {
                            println!("seed {seed}: ok {}", told(&outcome));
                            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(outcome);
                        }
                        Err(error) => {
                            println!("seed {seed}: FAILED {error:#}");
                            let told = (seed, error.root_cause().to_string());
                            failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(told);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|outcome| outcome.seed);
    if let Some(out) = &args.out {
        let minutes = start.elapsed().as_secs() / 60;
        let place = Place {
            commit,
            machine: format!("{} processors, {}", machine::processors()?.len(), kernel()?),
            time: format!("{minutes} minutes, {} at the same time", args.parallel),
        };
        std::fs::write(out, report::page(&place, (from, runs), &done, &failed))?;
    }
    let seeds: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
    let played = done.len() + failed.len();
    ensure!(failed.is_empty(), "{} of {played} runs failed, with the seeds {seeds:?}", failed.len());
    println!("{played} runs, none failed");
    Ok(())
}

fn kernel() -> Result<String> {
    Ok(format!("Linux {}", nix::sys::utsname::uname()?.release().to_string_lossy()))
}

#[expect(clippy::disallowed_methods, reason = "a campaign takes real time")]
fn now() -> Instant {
    Instant::now()
}

fn random() -> Result<u64> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("failed to draw a seed: {error}"))?;
    Ok(u64::from(u32::from_le_bytes(bytes)) % 90_000 + 10_000)
}

fn told(outcome: &Outcome) -> String {
    format!(
        "{} agents, {} flows, {} kills, {} fail points, {} frames, {} message faults, {} feed faults, {} bytes told as lost, \
         {} reads; {}",
        outcome.writers,
        outcome.flows,
        outcome.killed(),
        outcome.aborted(),
        outcome.messages.frames,
        outcome.messages.faults(),
        outcome.feed_faults,
        outcome.lost.dropped_bytes + outcome.lost.late_bytes,
        outcome.reads,
        outcome.conditions.join(", ")
    )
}
