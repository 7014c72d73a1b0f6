//! The real processes of a run: a server and its agents, each killed, ended at a fail point, stopped or started again.

use crate::process::{Process, binary, die_with_parent};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde::Deserialize;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// As [`weir_daemon::failpoint`](../../../weir_daemon/failpoint/index.html) lists them; a test holds both lists together.
pub const AGENT_STEPS: &[&str] = &["spool-appended", "spool-segment-begun", "frame-sent", "acknowledgement-taken"];
/// The server's own, and those of a segment.
pub const SERVER_STEPS: &[&str] = &[
    "log-appended",
    "batch-acknowledged",
    "state-begun",
    "batch-applied",
    "segment-created",
    "segment-half-written",
    "segment-synced",
    "segment-renamed",
    "segment-durable",
    "catalogue-begun",
    "catalogue-committed",
];
/// Those of compaction.
pub const COMPACTION_STEPS: &[&str] = &[
    "compaction-half-read",
    "compaction-durable",
    "compaction-catalogue-begun",
    "compaction-catalogue-committed",
    "compaction-one-removed",
];

/// Debian's package `libfaketime`: gives a process another wall clock, and leaves it its monotonic one.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// A process that can be started again.
#[derive(Debug)]
pub struct Part {
    command: PartCommand,
    folder: PathBuf,
    name: String,
    process: Option<Process>,
    /// How often it was killed.
    pub kills: u64,
    /// How often a fail point ended it.
    pub aborts: u64,
    stopped: bool,
}

/// What a part runs.
#[derive(Clone, Debug)]
pub struct PartCommand {
    /// The program.
    pub program: &'static str,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Part {
    /// A part that does not run yet; its log goes to `folder`.
    pub fn new(name: &str, folder: &Path, command: PartCommand) -> Self {
        Self {
            command,
            folder: folder.to_owned(),
            name: name.to_owned(),
            process: None,
            kills: 0,
            aborts: 0,
            stopped: false,
        }
    }

    /// The file that holds how far the part's wall clock is from the true one.
    fn clock(&self) -> PathBuf {
        self.folder.join(format!("{}.clock", self.name))
    }

    /// Sets the part's wall clock, in seconds from the true one; a running part sees it jump.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_clock(&self, seconds: i64) -> Result<()> {
        let temporary = self.folder.join(format!("{}.clock.new", self.name));
        std::fs::write(&temporary, format!("{seconds:+}\n"))?;
        std::fs::rename(&temporary, self.clock())?;
        Ok(())
    }

    /// Starts it; with a fail point it ends there.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, fail_point: Option<&str>) -> Result<()> {
        let mut command = Command::new(binary(self.command.program)?);
        command.args(&self.command.arguments).env_remove("WEIR_FAILPOINT");
        if let Some(fail_point) = fail_point {
            command.env("WEIR_FAILPOINT", fail_point);
        }
        under_clock(&mut command, &self.clock());
        let log = File::options().create(true).append(true).open(self.folder.join(format!("{}.log", self.name)))?;
        command.stderr(log);
        self.process = Some(Process::spawn(command)?);
        self.stopped = false;
        Ok(())
    }

    /// Whether it runs now. An end that nobody asked for is a fault, unless a fail point made it.
    ///
    /// # Errors
    /// When it has ended otherwise.
    pub fn is_running(&mut self) -> Result<bool> {
        let Some(process) = &mut self.process else { return Ok(false) };
        let Some(status) = process.ended()? else { return Ok(true) };
        self.process = None;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        ensure!(signal == Some(Signal::SIGABRT as i32), "{} ended by itself: {status}", self.name);
        self.aborts += 1;
        Ok(false)
    }

    /// Its process id, 0 while it does not run.
    pub fn pid(&self) -> i32 {
        self.process.as_ref().map_or(0, |process| process.pid().as_raw())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it does not die.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            self.kills += 1;
            process.signal(Signal::SIGKILL)?;
            process.wait(Duration::from_secs(30))?;
        }
        Ok(())
    }

    /// Stops it in its tracks, or lets it go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn freeze(&mut self, freeze: bool) -> Result<()> {
        if self.stopped != freeze
            && let Some(process) = &self.process
        {
            process.signal(if freeze { Signal::SIGSTOP } else { Signal::SIGCONT })?;
            self.stopped = freeze;
        }
        Ok(())
    }

    /// Ends it in the orderly way.
    ///
    /// # Errors
    /// When it does not end within 30 s, or says that something went wrong.
    pub fn stop(&mut self) -> Result<()> {
        self.freeze(false)?;
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGTERM)?;
            let status = process.wait(Duration::from_secs(30))?;
            ensure!(status.success(), "{} stopped with {status}", self.name);
        }
        Ok(())
    }
}

/// Gives a command the wall clock that the file describes; a command without such a file has the true one.
fn under_clock(command: &mut Command, clock: &Path) {
    if clock.exists() {
        command
            .env("LD_PRELOAD", FAKETIME)
            .env("FAKETIME_TIMESTAMP_FILE", clock)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}

/// Whether clocks can be set here.
pub fn can_set_clocks() -> bool {
    Path::new(FAKETIME).exists()
}

/// The addresses that a running server has written down, if it is the one with this process id.
pub fn addresses(data: &Path, pid: i32) -> Option<(SocketAddr, SocketAddr)> {
    #[derive(Deserialize)]
    struct Told {
        http: SocketAddr,
        agents: SocketAddr,
        pid: i32,
    }
    let told: Told = serde_json::from_slice(&std::fs::read(data.join("server.json")).ok()?).ok()?;
    (told.pid == pid).then_some((told.http, told.agents))
}

/// Runs `weir store ...` on a stopped server's folder, its wall clock so many seconds from the true one.
///
/// # Errors
/// When it cannot be started.
pub fn store(arguments: &[&str], seconds: i64, fail_point: Option<&str>, clock: &Path) -> Result<Output> {
    std::fs::write(clock, format!("{seconds:+}\n"))?;
    let mut command = Command::new(binary("weir")?);
    command.arg("store").args(arguments).env_remove("WEIR_FAILPOINT").stdin(Stdio::null());
    if let Some(fail_point) = fail_point {
        command.env("WEIR_FAILPOINT", fail_point);
    }
    under_clock(&mut command, clock);
    die_with_parent(command).output().context("failed to run weir store")
}
