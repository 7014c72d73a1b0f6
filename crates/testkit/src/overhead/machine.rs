//! The machine that is measured on: what it is, and who else is at work on it.

use super::programs;
use anyhow::{Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use std::cell::Cell;
use std::process::Command;

/// What the figures were taken on.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// How many this process may use.
    pub processors: usize,
    /// The kernel's release.
    pub kernel: String,
    /// The commit of the folder that this runs in, with a mark when files are changed.
    pub commit: String,
    /// `/proc/loadavg` at the start: what others did.
    pub load: String,
    /// Programs of other tracers that are loaded at the start; they disturb every setting, `none` too.
    pub foreign_programs: usize,
    /// Whether `kernel.bpf_stats_enabled` was on at the start; it makes every program dearer.
    pub stats_enabled: bool,
}

impl Machine {
    /// Looks.
    ///
    /// # Errors
    /// When not root.
    pub fn look() -> Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let info = read("/proc/cpuinfo");
        let processor = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
        Ok(Self {
            processor: processor.trim_start_matches([' ', '\t', ':']).to_owned(),
            processors: processors()?.len(),
            kernel: read("/proc/sys/kernel/osrelease"),
            commit: commit(),
            load: read("/proc/loadavg"),
            foreign_programs: programs::of_weir()?.len(),
            stats_enabled: read("/proc/sys/kernel/bpf_stats_enabled") == "1",
        })
    }
}

/// The commit of the folder that this runs in, with a mark when files are changed.
pub fn commit() -> String {
    let git = |words: &[&str]| {
        let output = Command::new("git").args(words).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    if changed { format!("{commit} with changes") } else { commit }
}

/// The processors that this process may use.
///
/// # Errors
/// Never on a living process.
pub fn processors() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

/// Leaves the last processor to the load: this process and all that it starts from now on run on the others. Returns the
/// load's; with a single processor everything shares it.
///
/// # Errors
/// When the kernel refuses.
pub fn make_room() -> Result<usize> {
    let all = processors()?;
    let (Some(last), rest) = (all.last().copied(), &all[..all.len().saturating_sub(1)]) else {
        bail!("no processor may be used")
    };
    if !rest.is_empty() {
        let mut set = CpuSet::new();
        for cpu in rest {
            set.set(*cpu)?;
        }
        sched_setaffinity(Pid::from_raw(0), &set)?;
    }
    Ok(last)
}

/// Ctrl-C and SIGTERM, so that an interrupted bench cleans up after itself.
#[derive(Debug)]
pub struct Interrupt {
    signals: SignalFd,
    has_come: Cell<bool>,
}

impl Interrupt {
    /// Takes the two signals from now on. Children inherit that; [`crate::process::Process`] undoes it for them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take() -> Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.thread_block()?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { signals, has_come: Cell::new(false) })
    }

    /// Fails from then on that a signal has come.
    ///
    /// # Errors
    /// That it was interrupted.
    pub fn check(&self) -> Result<()> {
        if self.has_come.get() || self.signals.read_signal()?.is_some() {
            self.has_come.set(true);
            bail!("interrupted");
        }
        Ok(())
    }
}
