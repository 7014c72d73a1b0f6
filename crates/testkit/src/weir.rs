//! `weir up` as a person starts it, in a folder of its own, and its answers through the command line.

use crate::answers::Answers;
use crate::process::{Process, binary, until};
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// Puts the programs where anybody may run them: where they were built nobody else may have any business.
///
/// # Errors
/// When they are not built, or cannot be copied.
pub fn install(folder: &Path) -> Result<()> {
    std::fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    for name in ["weir", "weir-agent", "weir-tracer"] {
        let (built, installed) = (binary(name)?, folder.join(name));
        if std::fs::hard_link(&built, &installed).is_err() {
            std::fs::copy(&built, &installed)?;
        }
        std::fs::set_permissions(&installed, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// A running `weir up`.
#[derive(Debug)]
pub struct Weir {
    process: Process,
    data: PathBuf,
    answers: Answers,
}

impl std::ops::Deref for Weir {
    type Target = Answers;

    fn deref(&self) -> &Answers {
        &self.answers
    }
}

/// What `weir up` writes about itself in `DATA/up.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Up {
    /// The page's and the API's address.
    #[serde(default)]
    pub http: Option<String>,
    /// Its parts.
    #[serde(default)]
    pub parts: Vec<Part>,
}

/// One supervised process.
#[derive(Clone, Debug, Deserialize)]
pub struct Part {
    /// `tracer`, `agent` or `server`.
    pub name: String,
    /// Its process id while it runs.
    #[serde(default)]
    pub pid: Option<i32>,
    /// How often it was started again.
    #[serde(default)]
    pub restarts: u64,
}

impl Weir {
    /// Starts `weir up` with its data in `data`, polls every `interval`, and waits until its first answers.
    ///
    /// # Errors
    /// When it does not answer within 60 s.
    pub fn up(data: &Path, interval: &str, more: &[&str]) -> Result<Self> {
        Self::up_by(Command::new(binary("weir")?), data, interval, more)
    }

    /// The same by a command that ends in the program `weir`: as another user, with another environment.
    ///
    /// # Errors
    /// When it does not answer within 60 s.
    pub fn up_by(mut command: Command, data: &Path, interval: &str, more: &[&str]) -> Result<Self> {
        command
            .args([
                "up",
                "--listen",
                "127.0.0.1:0",
                "--agents-listen",
                "127.0.0.1:0",
                "--metrics-listen",
                "127.0.0.1:0",
            ])
            .args(["--interval", interval, "--data"])
            .arg(data)
            .args(more);
        let _ = std::fs::remove_file(data.join("up.json"));
        let process = Process::spawn(command)?;
        let mut weir = Self { process, data: data.to_owned(), answers: Answers::of("") };
        until(Duration::from_secs(60), || {
            weir.answers = Answers::of(&weir.up_file()?.http.context("no HTTP address yet")?);
            Ok(weir.nodes_reporting()? > 0)
        })
        .context("weir up did not come up")?;
        Ok(weir)
    }

    /// What `up.json` says now.
    ///
    /// # Errors
    /// When it is not there yet or half-written.
    pub fn up_file(&self) -> Result<Up> {
        let path = self.data.join("up.json");
        let text = std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// A part's process id.
    ///
    /// # Errors
    /// When it does not run now.
    pub fn pid(&self, part: &str) -> Result<Pid> {
        let up = self.up_file()?;
        let part = up.parts.iter().find(|entry| entry.name == part).with_context(|| format!("no part {part}"))?;
        Ok(Pid::from_raw(part.pid.with_context(|| format!("{} does not run", part.name))?))
    }

    /// `kill -9` of a part; waits until its pid is another one.
    ///
    /// # Errors
    /// When it does not run, or is not started again within a minute.
    pub fn kill(&self, part: &str) -> Result<()> {
        let mut before = None;
        // It may have ended by itself, and be about to start again.
        until(Duration::from_secs(60), || {
            before = Some(self.pid(part)?);
            Ok(true)
        })?;
        let before = before.context("a pid")?;
        kill(before, Signal::SIGKILL)?;
        until(Duration::from_secs(60), || Ok(self.pid(part).is_ok_and(|pid| pid != before)))
            .with_context(|| format!("{part} was not started again"))
    }

    /// The first Ctrl-C; waits for the end.
    ///
    /// # Errors
    /// When it does not end within `patience`.
    pub fn stop(mut self, patience: Duration) -> Result<ExitStatus> {
        self.process.signal(Signal::SIGINT)?;
        self.process.wait(patience)
    }
}
