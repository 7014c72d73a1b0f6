//! Load by one thread that is both ends. See `weir_testkit::load`.

use anyhow::Context;
use clap::Parser;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use weir_testkit::load::{Ground, Place, obey};

/// Does what each line of standard input orders, and tells what it did and how long that took.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  echo '{\"order\":\"time\",\"workload\":\"exchange64\",\"millis\":1000}' | weir-load --place veth
  echo '{\"order\":\"pace\",\"rate\":2000,\"seconds\":10}' | weir-load"
)]
struct Args {
    /// The way between the two ends; either is in network namespaces of the program's own.
    #[arg(long, value_enum, default_value = "loopback")]
    place: Place,
    /// The only processor to run on.
    #[arg(long)]
    cpu: Option<usize>,
    /// The process' niceness; below zero it comes before others.
    #[arg(long, allow_negative_numbers = true)]
    nice: Option<i32>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(cpu) = args.cpu {
        let mut set = CpuSet::new();
        set.set(cpu)?;
        sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("failed to move to processor {cpu}"))?;
    }
    if let Some(nice) = args.nice {
        rustix::process::setpriority_process(None, nice).context("failed to set the niceness")?;
    }
    let ground = Ground::open(args.place)?;
    obey(&ground, std::io::stdin().lock(), std::io::stdout().lock())
}
