//! What weir costs those whom it watches, and which connections it keeps. See `weir_testkit::overhead`.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use weir_testkit::overhead::blocks::{self, Plan, Players};
use weir_testkit::overhead::machine::{self, Interrupt, Machine};
use weir_testkit::overhead::report::{self, Report};
use weir_testkit::overhead::settings::Switches;
use weir_testkit::overhead::{costs, kept, watch};

/// Measures what weir costs those whom it watches; prints Markdown. Needs root, and binaries built beside it.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Compares every setting with no tracer at all, and tells what each program costs.
    Ratios(Ratios),
    /// Tells what each program costs, in a few seconds: for whoever works on a program.
    Costs,
    /// Tells which of the connections made at a rate reach the answers, and what the parts use meanwhile.
    Kept {
        /// Connections a second.
        #[arg(long, default_value_t = 2_000)]
        rate: u32,
        /// For how long.
        #[arg(long, default_value_t = 30)]
        seconds: u32,
    },
}

#[derive(Debug, clap::Args)]
struct Ratios {
    /// About a minute instead of a quarter of an hour: to see whether it works, and large differences.
    #[arg(long)]
    quick: bool,
    /// How often every setting has its turn.
    #[arg(long)]
    cycles: Option<u32>,
    /// The beginning of the random order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes everything that was found to this file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Eight settings at about 2.3 s, a quarter of an hour.
const CYCLES: u32 = 48;
const CYCLES_QUICK: u32 = 3;
/// 300 rounds of half a millisecond.
const BLOCK_MS: u32 = 150;

/// An answer that is not what was made.
const DIFFERENT: u8 = 3;

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weir-bench-overhead: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        bail!("this needs root: it loads a tracer and makes network namespaces");
    }
    // Before anything is started: threads inherit it.
    let interrupt = Interrupt::take()?;
    let folder = watch::folder()?;
    match args.what {
        What::Ratios(args) => {
            ratios(&args, folder.path(), &interrupt)?;
            Ok(ExitCode::SUCCESS)
        }
        What::Costs => {
            let mut players = Players::start(machine::make_room()?)?;
            print!("{}", report::costs(&costs::measure(&Switches::ask()?, &mut players, folder.path(), &interrupt)?));
            Ok(ExitCode::SUCCESS)
        }
        What::Kept { rate, seconds } => {
            let cpu = machine::make_room()?;
            let kept = kept::measure(rate, seconds, cpu, folder.path(), &interrupt)?;
            println!("{}", kept.markdown());
            Ok(if kept.is_exact() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) })
        }
    }
}

fn ratios(args: &Ratios, folder: &Path, interrupt: &Interrupt) -> Result<()> {
    let machine = Machine::look()?;
    let switches = Switches::ask()?;
    let settings = switches.settings().len();
    let cpu = machine::make_room()?;
    let cycles = args.cycles.unwrap_or(if args.quick { CYCLES_QUICK } else { CYCLES });
    let plan = Plan { cycles, block_ms: BLOCK_MS, seed: args.seed };
    let mut players = Players::start(cpu)?;
    let mut said = |cycle| eprintln!("cycle {} of {cycles}, {settings} settings", cycle + 1);
    let blocks = blocks::measure(&plan, &switches, &mut players, folder, interrupt, &mut said)?;
    eprintln!("what the programs cost");
    let costs = costs::measure(&switches, &mut players, folder, interrupt)?;
    let report = Report::new(machine, plan, &blocks, costs, switches.unused());
    print!("{}", report.markdown());
    if let Some(path) = &args.json {
        let text = serde_json::to_vec(&report)?;
        std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}
