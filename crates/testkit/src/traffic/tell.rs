//! Prints the truth, and knows who tells it.

use super::counted::Counted;
use super::truth::{Outcome, Protocol, Role, Truth, Word};
use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Prints truth lines; several threads share one.
#[derive(Clone, Debug)]
pub(super) struct Teller {
    lock: Arc<Mutex<()>>,
    process: String,
    net_ns: u32,
    cgroup_id: u64,
}

impl Teller {
    /// One for this process.
    pub(super) fn new() -> Result<Self> {
        let process = std::fs::read_to_string("/proc/self/comm").context("failed to read the own name")?;
        let net_ns = std::fs::metadata("/proc/self/ns/net").context("failed to read the own network namespace")?.ino();
        Ok(Self {
            lock: Arc::default(),
            process: process.trim().to_owned(),
            net_ns: u32::try_from(net_ns)?,
            cgroup_id: own_cgroup().unwrap_or(0),
        })
    }

    /// Prints a line at once, whole.
    pub(super) fn line(&self, value: &impl Serialize) {
        let Ok(line) = serde_json::to_string(value) else { return };
        let _guard = self.lock.lock();
        let mut out = std::io::stdout();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    /// Tells of a stream that is about to be dropped; where it ends in a reset, with the kernel's word.
    pub(super) fn tcp(&self, role: Role, stream: &Counted, outcome: Outcome) {
        let kernel = if outcome.is_abortive() { stream.word().ok() } else { None };
        self.line(&self.truth(
            role,
            Protocol::Tcp,
            (stream.local, stream.remote),
            Word { sent: stream.sent, recv: stream.recv },
            outcome,
            stream.started_ns,
            kernel,
        ));
    }

    /// Tells of one peer of a UDP socket.
    pub(super) fn udp(&self, role: Role, ends: (SocketAddr, SocketAddr), moved: Word, outcome: Outcome, started: u64) {
        self.line(&self.truth(role, Protocol::Udp, ends, moved, outcome, started, None));
    }

    /// Tells of a connect that failed.
    pub(super) fn failed(&self, ends: (SocketAddr, SocketAddr), outcome: Outcome, started: u64) {
        let nothing = Word::default();
        self.line(&self.truth(Role::Client, Protocol::Tcp, ends, nothing, outcome, started, None));
    }

    #[expect(clippy::too_many_arguments, reason = "a truth is this many facts")]
    fn truth(
        &self,
        role: Role,
        protocol: Protocol,
        ends: (SocketAddr, SocketAddr),
        moved: Word,
        outcome: Outcome,
        started_ns: u64,
        kernel: Option<Word>,
    ) -> Truth {
        Truth {
            role,
            protocol,
            local: plain(ends.0),
            remote: plain(ends.1),
            sent: moved.sent,
            recv: moved.recv,
            outcome,
            pid: std::process::id(),
            process: self.process.clone(),
            net_ns: self.net_ns,
            cgroup_id: self.cgroup_id,
            started_ns,
            ended_ns: now_ns(),
            kernel,
        }
    }
}

/// `CLOCK_MONOTONIC`, nanoseconds.
pub(super) fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// An IPv4-mapped address as IPv4.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn own_cgroup() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/').to_owned();
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists())?;
    Some(std::fs::metadata(root.join(path)).ok()?.ino())
}
