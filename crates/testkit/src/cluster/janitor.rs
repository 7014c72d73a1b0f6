//! The janitor: a process of its own session that outlives this one for a moment and removes what dies with nobody.
//!
//! Namespaces, veths and rules die with their processes. Cgroups and folders do not: the janitor waits until a pipe
//! ends whose other end only this process has, kills what is still in the cluster's cgroup, and removes the cgroups and
//! the cluster's folder. An orderly end takes the same way, so that it is always tried.

use crate::process::{binary, until};
use anyhow::{Context, Result};
use std::io::{PipeReader, PipeWriter, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long killed processes may take to leave the cgroup: one in an uninterruptible call leaves when that returns.
const PATIENCE: Duration = Duration::from_secs(20);

/// The janitor from its owner's side.
#[derive(Debug)]
pub(crate) struct Janitor {
    child: Child,
    life: Option<PipeWriter>,
}

impl Janitor {
    /// Starts one that will remove `cgroup` and `folder`. Also gives the read end of its pipe, for others that end with
    /// this process.
    pub(crate) fn start(cgroup: &Path, folder: &Path) -> Result<(Self, PipeReader)> {
        let (reader, writer) = std::io::pipe()?;
        let mut command = Command::new(binary("weir-hold")?);
        command.arg("janitor").arg(cgroup).arg(folder).stdin(reader.try_clone()?).stdout(Stdio::null());
        let child = own_session(command).spawn().context("failed to start the janitor")?;
        Ok((Self { child, life: Some(writer) }, reader))
    }
}

impl Drop for Janitor {
    /// Ends the pipe and waits until all is removed.
    fn drop(&mut self) {
        drop(self.life.take());
        match self.child.wait() {
            Ok(status) if status.success() => {}
            // The janitor has said what on standard error, which is ours.
            other => eprintln!("the cluster's janitor could not remove everything: {other:?}"),
        }
    }
}

#[expect(
    unsafe_code,
    reason = "a new session is begun between fork and exec, so that a terminal's Ctrl-C does not reach it"
)]
fn own_session(mut command: Command) -> Command {
    // SAFETY: setsid(2) is async-signal-safe and touches only the child.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(|_session| ()).map_err(std::io::Error::from));
    }
    command
}

/// The janitor's own work: waits for the end of standard input, then removes `cgroup` and `folder`.
///
/// # Errors
/// When something stays.
pub fn clean_after_input_ends(cgroup: &Path, folder: &Path) -> Result<()> {
    wait_for_the_end()?;
    let emptied = remove_cgroup(cgroup).and_then(|()| remove_in_hierarchies(cgroup));
    let folder_removed = match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    emptied?;
    folder_removed.with_context(|| format!("failed to remove {}", folder.display()))
}

/// Blocks until standard input ends; nothing is ever written to it.
///
/// # Errors
/// When it cannot be read.
pub fn wait_for_the_end() -> Result<()> {
    let mut nothing = [0_u8; 64];
    let mut input = std::io::stdin();
    while input.read(&mut nothing)? > 0 {}
    Ok(())
}

/// Kills every process below `cgroup` and removes the folders, the deepest first (cgroups(7): a folder with living
/// processes or with folders in it cannot be removed).
///
/// # Errors
/// When a process does not end in time.
pub(crate) fn remove_cgroup(cgroup: &Path) -> Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    until(PATIENCE, || {
        // Again each time: a process may have been moved in after the first kill.
        std::fs::write(cgroup.join("cgroup.kill"), "1").context("failed to kill by cgroup")?;
        remove_folders(cgroup).with_context(|| format!("failed to remove {}", cgroup.display()))?;
        Ok(true)
    })
}

/// Removes the folders of the cgroup's name in the hierarchies of cgroup v1: container engines put theirs in each of
/// them, below the folder that this process is in. Their processes are gone with the cgroup itself.
fn remove_in_hierarchies(cgroup: &Path) -> Result<()> {
    let Some(name) = cgroup.file_name() else { return Ok(()) };
    let own = std::fs::read_to_string("/proc/self/cgroup")?;
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let hierarchy = Path::new("/sys/fs/cgroup").join(controllers.trim_start_matches("name="));
        for folder in [hierarchy.join(name), hierarchy.join(path.trim_start_matches('/')).join(name)] {
            if !controllers.is_empty() && folder.exists() {
                // The kernel lets a folder go a moment after its last process.
                until(PATIENCE, || remove_folders(&folder).map(|()| true))
                    .with_context(|| format!("failed to remove {}", folder.display()))?;
            }
        }
    }
    Ok(())
}

fn remove_folders(cgroup: &Path) -> Result<()> {
    for entry in std::fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_folders(&entry.path())?;
        }
    }
    Ok(std::fs::remove_dir(cgroup)?)
}
