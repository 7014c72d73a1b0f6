//! Tortures weir: `make torture`. Each run is drawn from its seed, and `--seed N` plays one again.

use anyhow::{Result, ensure};
use clap::Parser;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use weir_testkit::torture::report;
use weir_testkit::torture::run::{Outcome, Plan, play};

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
    /// Where the table goes; only what failed and how many passed is told otherwise.
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
    let next = AtomicU64::new(from);
    let failed = Mutex::new(Vec::new());
    let done: Mutex<Vec<Outcome>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..args.parallel.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + runs {
                        return;
                    }
                    match play(&Plan::of(seed)) {
                        Ok(outcome) => {
                            println!("seed {seed}: ok {}", told(&outcome));
                            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(outcome);
                        }
                        Err(error) => {
                            println!("seed {seed}: FAILED {error:#}");
                            failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(seed);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(out) = &args.out {
        std::fs::write(out, report::page(from, from + runs - 1, &done, &failed))?;
    }
    ensure!(failed.is_empty(), "{} of {runs} runs failed, with the seeds {failed:?}", failed.len());
    println!("{runs} runs, none failed");
    Ok(())
}

fn random() -> Result<u64> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("failed to draw a seed: {error}"))?;
    Ok(u64::from(u32::from_le_bytes(bytes)) % 90_000 + 10_000)
}

fn told(outcome: &Outcome) -> String {
    format!(
        "{} agents, {} flows, {} kills, {} fail points, {} frames, {} message faults, {} feed faults, {} reads {}",
        outcome.writers,
        outcome.flows,
        outcome.kills,
        outcome.aborts,
        outcome.messages.frames,
        outcome.messages.faults(),
        outcome.feed_faults,
        outcome.reads,
        outcome.conditions.join(", ")
    )
}
