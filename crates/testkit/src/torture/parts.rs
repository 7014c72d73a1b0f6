//! The real processes of a run, each killed, ended at a fail point, stopped or started again: server, agents, and where
//! the run has them etcd and a tracer.

use crate::process::{Process, binary, die_with_parent};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use weir_daemon::failpoint;

/// Debian's package `libfaketime`: gives a process another wall clock, and leaves it its monotonic one.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// The exit code of a part that could not do what it should.
pub const FAILED: i32 = 1;

/// A process that can be started again.
#[derive(Debug)]
pub struct Part {
    command: PartCommand,
    folder: PathBuf,
    name: String,
    process: Option<Process>,
    /// How often it was killed.
    pub kills: u64,
    /// Which fail points ended it, and how often.
    pub steps: BTreeMap<String, u64>,
    /// The exit code with which it may end by itself: that of one that says what it needs and does not find.
    pub forgiven: Option<i32>,
    fail_point: Option<String>,
    stopped: bool,
}

/// What a part runs.
#[derive(Clone, Debug)]
pub struct PartCommand {
    /// The program.
    pub program: PathBuf,
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
            steps: BTreeMap::new(),
            forgiven: None,
            fail_point: None,
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
        let mut command = Command::new(&self.command.program);
        command.args(&self.command.arguments).env_remove(failpoint::VARIABLE);
        if let Some(fail_point) = fail_point {
            command.env(failpoint::VARIABLE, fail_point);
        }
        self.fail_point = fail_point.map(str::to_owned);
        under_clock(&mut command, &self.clock());
        let log = File::options().create(true).append(true).open(self.folder.join(format!("{}.log", self.name)))?;
        command.stderr(log);
        self.process = Some(Process::spawn(command)?);
        self.stopped = false;
        Ok(())
    }

    /// Whether it runs now. An end that nobody asked for is a fault, unless a fail point made it or it is
    /// [forgiven](Part::forgiven).
    ///
    /// # Errors
    /// When it has ended otherwise.
    pub fn is_running(&mut self) -> Result<bool> {
        let Some(process) = &mut self.process else { return Ok(false) };
        let Some(status) = process.ended()? else { return Ok(true) };
        self.process = None;
        let is_aborted = std::os::unix::process::ExitStatusExt::signal(&status) == Some(Signal::SIGABRT as i32);
        if let Some(fail_point) = self.fail_point.take().filter(|_| is_aborted) {
            *self.steps.entry(name_of(&fail_point)).or_default() += 1;
            return Ok(false);
        }
        let is_forgiven = self.forgiven.is_some() && status.code() == self.forgiven;
        ensure!(is_forgiven, "{} ended by itself: {status}", self.name);
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

    /// Stops it in its tracks, or lets it go on; whether that changed anything.
    ///
    /// # Errors
    /// When it is gone.
    pub fn freeze(&mut self, freeze: bool) -> Result<bool> {
        let Some(process) = self.process.as_ref().filter(|_| self.stopped != freeze) else { return Ok(false) };
        process.signal(if freeze { Signal::SIGSTOP } else { Signal::SIGCONT })?;
        self.stopped = freeze;
        Ok(true)
    }

    /// Whether it was stopped in its tracks and not let go on.
    pub fn is_stopped(&self) -> bool {
        self.stopped
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

/// The name in `NAME:N`.
pub fn name_of(fail_point: &str) -> String {
    fail_point.split(':').next().unwrap_or_default().to_owned()
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
    command.arg("store").args(arguments).env_remove(failpoint::VARIABLE).stdin(Stdio::null());
    if let Some(fail_point) = fail_point {
        command.env(failpoint::VARIABLE, fail_point);
    }
    under_clock(&mut command, clock);
    die_with_parent(command).output().context("failed to run weir store")
}
