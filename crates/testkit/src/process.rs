//! Child processes that cannot outlive their test.

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// Where this workspace's binaries are built: the folder above the running test's `deps`.
///
/// # Errors
/// When the binary is not there: the workspace has to be built first.
pub fn binary(name: &str) -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    exe.ancestors().skip(1).take(3).map(|folder| folder.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        anyhow!("failed to find the binary {name} near {}: run `cargo build --workspace`", exe.display())
    })
}

/// A child that dies with its parent, and whose standard output is read line by line.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    name: String,
}

/// Lines that may wait unread: the longest run of a test's traffic prints a few thousand.
const LINES: usize = 65_536;

impl Process {
    /// Starts `command` in a process group of its own, killed when the calling thread's process dies.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdout(Stdio::piped()).process_group(0);
        let mut child = die_with_parent(command).spawn().with_context(|| format!("failed to start {name}"))?;
        let stdout = child.stdout.take().context("standard output was piped")?;
        let (sender, lines) = sync_channel(LINES);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines, name })
    }

    /// The next line of its standard output.
    ///
    /// # Errors
    /// When none comes within `patience`, or the output has ended.
    pub fn line(&self, patience: Duration) -> Result<String> {
        self.lines.recv_timeout(patience).with_context(|| format!("no line from {} within {patience:?}", self.name))
    }

    /// Its standard input, where that was piped; once.
    pub fn take_input(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("failed to send {signal} to {}", self.name))
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When that cannot be asked.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended within `patience`.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let mut status = None;
        let ended = until(patience, || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        });
        ended.with_context(|| format!("{} did not end within {patience:?}", self.name))?;
        status.ok_or_else(|| anyhow!("{} has no exit status", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill(self.pid(), Signal::SIGTERM);
            let ended = until(Duration::from_secs(8), || Ok(self.child.try_wait()?.is_some()));
            if ended.is_err() {
                let _ = nix::sys::signal::killpg(self.pid(), Signal::SIGKILL);
                let _ = self.child.wait();
            }
        }
    }
}

/// Runs `command`, whose standard input is piped, to its end and feeds it `input`.
///
/// # Errors
/// When it cannot be started.
pub fn piped_into(mut command: Command, input: &str) -> Result<Output> {
    use std::io::Write as _;
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("failed to start {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends early says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    Ok(child.wait_with_output()?)
}

/// `command`, so that the kernel sends it SIGTERM when this process dies, and so that it takes that signal: a child
/// inherits which signals are blocked.
#[expect(unsafe_code, reason = "pre_exec is the only place where the parent-death signal of a child can be set")]
pub fn die_with_parent(mut command: Command) -> Command {
    let tie = || {
        nix::sys::signal::SigSet::empty().thread_set_mask()?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(std::io::Error::from)
    };
    // SAFETY: pthread_sigmask(3) and prctl(2) are async-signal-safe here and touch only the child.
    unsafe {
        command.pre_exec(tie);
    }
    command
}

/// Asks `done` every 20 ms until it says yes.
///
/// # Errors
/// What `done` failed with, or that `patience` is over.
#[expect(clippy::disallowed_methods, reason = "a test waits for another process's real work in real time")]
pub fn until(patience: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = std::time::Instant::now();
    loop {
        let last_error = match done() {
            Ok(true) => return Ok(()),
            Ok(false) => anyhow!("it did not become so"),
            Err(error) => error,
        };
        if start.elapsed() >= patience {
            return Err(last_error.context(format!("after {patience:?}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
