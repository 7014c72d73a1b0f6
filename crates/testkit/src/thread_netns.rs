//! Network namespaces of the calling thread: made, entered, and filled by `ip`. They have no name and no process that only
//! holds them, so that they end with whoever holds their files.

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};

/// The one that the calling thread is in.
///
/// # Errors
/// When `/proc` is not there.
pub fn current() -> Result<File> {
    Ok(File::open("/proc/thread-self/ns/net")?)
}

/// A new one, in which the calling thread then is.
///
/// # Errors
/// When not root.
pub fn fresh() -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context("failed to make a network namespace (this needs root)")?;
    current()
}

/// Takes the calling thread there.
///
/// # Errors
/// When not root.
pub fn enter(namespace: &File) -> Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context("failed to enter a network namespace")
}

/// What `ip` calls it by, as long as this process holds the file.
pub fn handle(namespace: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
}

/// Runs `ip -batch` in the calling thread's namespace.
///
/// # Errors
/// Without the `ip` command, or when it fails.
pub fn ip(batch: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("failed to start `ip` (package iproute2)")?;
    child.stdin.take().context("standard input was piped")?.write_all(batch.as_bytes())?;
    let status = child.wait()?;
    ensure!(status.success(), "ip failed ({status}): {batch}");
    Ok(())
}
