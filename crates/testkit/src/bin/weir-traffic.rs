//! Real traffic by a process of its own; prints the truth about it as JSON lines. See `weir_testkit::traffic`.

use clap::{Parser, Subcommand};
use weir_testkit::traffic::{Offer, Script, serve};

/// Scripted exchanges over real sockets; every connection's truth is a JSON line on standard output.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Listens on a port for each manner, until standard input ends.
    Serve(Offer),
    #[command(flatten)]
    Play(Script),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().part {
        Part::Serve(offer) => serve(offer),
        Part::Play(script) => script.play(),
    }
}
