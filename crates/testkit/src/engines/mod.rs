//! Real container engines, those that Debian packages, each with a folder, a cgroup and a network namespace of its own,
//! so that the machine's own engines, addresses and rules are left alone.
//!
//! - [`docker`]: `dockerd`, by its Engine API.
//! - [`containerd`]: `containerd`, by CRI calls as a kubelet makes them.
//! - [`image`]: the one image that they run: Debian's static busybox.
//!
//! The engine and all that it starts lie in one cgroup, which the janitor kills and removes with the folder once this
//! process has ended, however it ended; mounts, bridges and rules go with the engine's namespaces. Those are held by a
//! process of their own, so that an engine that was killed can be started again where it was.

pub mod containerd;
pub mod docker;
pub mod image;

use crate::cluster::cgroups;
use crate::cluster::janitor::Janitor;
use crate::process::Process;
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What an engine stands on. Removed on drop.
#[derive(Debug)]
struct Ground {
    folder: PathBuf,
    /// The cgroup's name, in every hierarchy.
    cgroup: String,
    /// Holds the namespaces.
    holder: Process,
    _janitor: Janitor,
}

impl Ground {
    /// A folder, a cgroup and namespaces, and the janitor that will remove them.
    fn new(engine: &str) -> Result<Self> {
        // Others may enter it, as they may /run: the engine's socket itself says who may use it.
        let mode = std::fs::Permissions::from_mode(0o711);
        let prefix = format!("weir-{engine}-");
        let folder = tempfile::Builder::new().prefix(&prefix).permissions(mode).tempdir()?.keep();
        let name = folder.file_name().and_then(|name| name.to_str()).context("a temporary folder has a name")?;
        let name = name.to_owned();
        let unified = cgroups::mounted()?.join(&name);
        let (janitor, _end) = Janitor::start(&unified, &folder)?;
        std::fs::create_dir_all(unified.join("engine")).context("failed to make the engine's cgroup")?;
        // The files of pods' network namespaces lie in the folder, too: an engine that is killed leaves them.
        let netns = folder.join("netns");
        std::fs::create_dir(&netns)?;
        let own = format!("mkdir -p /run/netns && mount --bind {} /run/netns", netns.display());
        let script = format!("{} && {own} && ip link set lo up && echo && exec sleep infinity", enter(&name)?);
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-c", &script]).stdin(Stdio::null());
        let holder = Process::spawn(command)?;
        holder.line(Duration::from_secs(30)).context("failed to make the engine's namespaces")?;
        Ok(Self { folder, cgroup: name, holder, _janitor: janitor })
    }

    /// Starts `program` in the cgroup and the namespaces; its log is added to `FOLDER/log`.
    fn run(&self, program: &str, arguments: &[String]) -> Result<Process> {
        let script = format!("{} && exec \"$@\"", enter(&self.cgroup)?);
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.pid().to_string(), "--net", "--mount"]);
        command.args(["sh", "-c", &script, "sh", program]).args(arguments);
        let log = std::fs::File::options().create(true).append(true).open(self.folder.join("log"))?;
        command.stderr(Stdio::from(log)).stdin(Stdio::null());
        Process::spawn(command)
    }

    /// The cgroup, in the unified hierarchy.
    fn cgroup(&self) -> Result<PathBuf> {
        Ok(cgroups::mounted()?.join(&self.cgroup))
    }

    /// The end of the engine's log, for a failure's words.
    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// What a shell does to enter the cgroup of an engine.
fn enter(cgroup: &str) -> Result<String> {
    Ok(format!("echo 0 > {}", cgroups::mounted()?.join(cgroup).join("engine/cgroup.procs").display()))
}

/// `kill -9` of an engine; what it has started lives on, or not, as the engine has it.
fn kill(process: &mut Process) -> Result<()> {
    process.signal(Signal::SIGKILL)?;
    process.wait(Duration::from_secs(30))?;
    Ok(())
}

/// The processes that the kernel has in a container, the one that began first first: its number need not be the lowest.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn pids(container: &str) -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has ended since is in no container.
        let cgroups = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if cgroups.contains(container) {
            pids.push((began(pid), pid));
        }
    }
    pids.sort_unstable();
    Ok(pids.into_iter().map(|(_, pid)| pid).collect())
}

/// When a process began, in ticks since boot (proc(5), field 22 of `stat`); one that has ended begins last.
fn began(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().nth(19).and_then(|ticks| ticks.parse().ok()).unwrap_or(u64::MAX)
}

/// The IPv4 address of a container by its network namespace's own word, loopback's aside.
///
/// # Errors
/// When it has no process or no address.
pub fn address(container: &str) -> Result<Ipv4Addr> {
    let pid = pids(container)?.first().copied().with_context(|| format!("nothing runs in {container}"))?;
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid.to_string(), "--net", "ip", "-4", "-o", "address", "show", "scope", "global"]);
    let told = String::from_utf8(command.output()?.stdout)?;
    let address = told.split_once("inet ").and_then(|(_, rest)| rest.split('/').next());
    address.with_context(|| format!("{container} has no address: {told}"))?.parse().context("ip prints addresses")
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
