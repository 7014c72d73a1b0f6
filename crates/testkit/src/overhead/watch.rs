//! A tracer of our own, with an agent or without, for as long as a block lasts.

use super::programs::{self, Program};
use super::settings::{Agent, Setting, Switches};
use crate::process::{Process, binary, until};
use anyhow::{Context, Result, bail};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use weir_wire::feed::Status;

/// How long a tracer or an agent may take to be there, or a reply to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// The beginning of the name of every folder that a bench makes; its process id follows.
const FOLDER: &str = "weir-overhead-";

/// A folder for one bench, removed with it. Folders of benches that were killed are removed first.
///
/// # Errors
/// When it cannot be made.
pub fn folder() -> Result<tempfile::TempDir> {
    let temporary = std::env::temp_dir();
    for entry in std::fs::read_dir(&temporary)?.filter_map(std::result::Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(FOLDER).and_then(|rest| rest.split('-').next()).map(str::to_owned);
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let prefix = format!("{FOLDER}{}-", std::process::id());
    Ok(tempfile::Builder::new().prefix(&prefix).tempdir_in(temporary)?)
}

/// The running processes of a setting; they end when it is dropped, the agent first.
#[derive(Debug)]
pub struct Watch {
    agent: Option<Process>,
    tracer: Option<Process>,
    socket: PathBuf,
}

impl Watch {
    /// Starts what `setting` says, with its files in `folder`, and waits until it is at work.
    ///
    /// # Errors
    /// When it does not come to work, or a probe that it should have does not run.
    pub fn start(setting: &Setting, switches: &Switches, folder: &Path) -> Result<Self> {
        let mut watch = Self { agent: None, tracer: None, socket: folder.join("tracer.sock") };
        if setting.tracer.is_none() {
            return Ok(watch);
        }
        let mut command = Command::new(binary("weir-tracer")?);
        command.arg("--socket").arg(&watch.socket).arg("--state-dir").arg(folder.join("state"));
        command.args(["--mode", "ebpf", "--log", "error"]).args(switches.of(setting));
        watch.tracer = Some(Process::spawn(command)?);
        let mut status = Status::default();
        until(PATIENCE, || {
            status = watch.status()?;
            Ok(true)
        })
        .with_context(|| format!("the tracer of `{}` did not come to work", setting.name))?;
        if let Some(probe) = status.probes.iter().find(|probe| matches!(probe.state.as_str(), "failed" | "unsupported"))
        {
            bail!(
                "probe {} of `{}` does not run: {}",
                probe.name,
                setting.name,
                probe.reason.as_deref().unwrap_or("?")
            );
        }
        if setting.agent == Agent::Polling {
            let mut command = Command::new(binary("weir-agent")?);
            command.arg("--feed").arg(format!("unix:{}", watch.socket.display()));
            command.arg("--spool").arg(folder.join("spool")).args(["--interval", "1s", "--log", "off"]);
            // It has no server: what it would send stays in its spool.
            command.args(["--server", "http://127.0.0.1:1", "--metrics-listen", "127.0.0.1:0"]);
            watch.agent = Some(Process::spawn(command)?);
            until(PATIENCE, || Ok(watch.status()?.gauges.get("clients").is_some_and(|clients| *clients > 0)))
                .context("the agent did not poll")?;
        }
        Ok(watch)
    }

    /// What the tracer says about itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Status> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /status HTTP/1.0\r\n\r\n")?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply)?;
        let body = reply.windows(4).position(|four| four == b"\r\n\r\n").context("no HTTP reply")? + 4;
        serde_json::from_slice(&reply[body..]).context("the tracer's status")
    }

    /// Whether programs of another tracer are loaded.
    ///
    /// # Errors
    /// When not root.
    pub fn has_company(&self) -> Result<bool> {
        let own = if self.tracer.is_some() { self.programs()? } else { Vec::new() };
        Ok(programs::of_weir()?.iter().any(|program| own.iter().all(|own| own.id != program.id)))
    }

    /// The programs of its tracer, and what they have cost so far while the kernel counted.
    ///
    /// # Errors
    /// When there is no tracer.
    pub fn programs(&self) -> Result<Vec<Program>> {
        programs::of_process(self.tracer.as_ref().context("there is no tracer")?.pid().as_raw())
    }
}
