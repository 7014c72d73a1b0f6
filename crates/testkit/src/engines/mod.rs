//! Real container engines, those that Debian packages, each with a folder, a cgroup and a network namespace of its own,
//! so that the machine's own engines, addresses and rules are left alone.
//!
//! - [`docker`]: `dockerd`, by its Engine API.
//! - [`containerd`]: `containerd`, by CRI calls as a kubelet makes them.
//! - [`image`]: the one image that they run: Debian's static busybox.
//!
//! The engine and all that it starts lie in one cgroup, which the janitor kills and removes with the folder once this
//! process has ended, however it ended; mounts, bridges and rules go with the engine's namespaces.

pub mod containerd;
pub mod docker;
pub mod image;

use crate::cluster::cgroups;
use crate::cluster::janitor::Janitor;
use crate::process::Process;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What an engine stands on. Removed on drop.
#[derive(Debug)]
struct Ground {
    folder: PathBuf,
    /// The cgroup's name, in every hierarchy.
    cgroup: String,
    _janitor: Janitor,
}

impl Ground {
    /// A folder and a cgroup, and the janitor that will remove them.
    fn new(engine: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix(&format!("weir-{engine}-")).tempdir()?.keep();
        let name = folder.file_name().and_then(|name| name.to_str()).context("a temporary folder has a name")?;
        let name = name.to_owned();
        let unified = cgroups::mounted()?.join(&name);
        let (janitor, _end) = Janitor::start(&unified, &folder)?;
        std::fs::create_dir_all(unified.join("engine")).context("failed to make the engine's cgroup")?;
        Ok(Self { folder, cgroup: name, _janitor: janitor })
    }

    /// Starts `program` in the cgroup and in network and mount namespaces of its own; its log is `FOLDER/log`.
    fn run(&self, program: &str, arguments: &[String]) -> Result<Process> {
        let procs = cgroups::mounted()?.join(&self.cgroup).join("engine/cgroup.procs");
        let script = format!("echo 0 > {} && ip link set lo up && exec \"$@\"", procs.display());
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-c", &script, "sh", program]).args(arguments);
        command.stderr(Stdio::from(std::fs::File::create(self.folder.join("log"))?)).stdin(Stdio::null());
        Process::spawn(command)
    }

    /// The end of the engine's log, for a failure's words.
    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// The inode of a process's network namespace.
///
/// # Errors
/// When it is gone.
pub fn netns(pid: u32) -> Result<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let path = Path::new("/proc").join(pid.to_string()).join("ns/net");
    Ok(std::fs::metadata(&path).with_context(|| format!("failed to read {}", path.display()))?.ino() as u32)
}
