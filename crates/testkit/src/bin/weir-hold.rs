//! `weir-hold pause` holds the namespaces that it was started in, as a pod's sandbox does; `weir-hold janitor CGROUP
//! FOLDER` removes what a cluster leaves behind. Both until, or once, their standard input ends.

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use weir_testkit::cluster::janitor;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Does nothing.
    Pause,
    /// Removes a cgroup with all that is in it, and a folder.
    Janitor {
        /// The cgroup's folder.
        cgroup: PathBuf,
        /// The folder.
        folder: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().part {
        Part::Pause => {
            nix::sys::prctl::set_name(c"pause")?;
            janitor::wait_for_the_end()
        }
        Part::Janitor { cgroup, folder } => janitor::clean_after_input_ends(&cgroup, &folder),
    }
}
