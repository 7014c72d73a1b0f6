//! Where a process runs: a network namespace and a cgroup.
//!
//! A namespace has no name below /run/netns: it lives as long as its processes and the file descriptors here, so that
//! nothing is left of it when this process dies, however it dies.

use crate::process::{Process, binary, piped_into};
use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::Pid;
use std::fs::File;
use std::io::PipeReader;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

/// A network namespace and a cgroup.
#[derive(Clone, Debug)]
pub struct Place {
    netns: Arc<File>,
    holder: Pid,
    cgroup: PathBuf,
}

impl Place {
    /// The same namespace with another cgroup, which is made.
    pub(crate) fn beside(&self, cgroup: &Path) -> Result<Self> {
        make_cgroup(cgroup)?;
        Ok(Self { cgroup: cgroup.to_owned(), ..self.clone() })
    }

    /// The cgroup's folder.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The process that holds the namespace: `nsenter --net --target PID` enters it.
    pub fn holder(&self) -> Pid {
        self.holder
    }

    /// The command line that opens a shell in this namespace.
    pub fn how_to_enter(&self) -> String {
        format!("nsenter --net --target {} bash", self.holder)
    }

    /// The namespace's inode, as the feed's `net_ns` has it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn net_ns(&self) -> Result<u64> {
        use std::os::unix::fs::MetadataExt;
        Ok(self.netns.metadata()?.ino())
    }

    /// `command`, so that it runs here.
    ///
    /// # Errors
    /// When the cgroup is gone.
    pub fn prepare(&self, command: Command) -> Result<Command> {
        Ok(before_exec(command, join(&self.cgroup)?, Some(Arc::clone(&self.netns))))
    }

    /// Starts `command` here; it ends with this process and with the [`Process`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: Command) -> Result<Process> {
        Process::spawn(self.prepare(command)?)
    }

    /// Runs `command` here to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, command: Command) -> Result<Output> {
        let name = command.get_program().to_string_lossy().into_owned();
        self.prepare(command)?.output().with_context(|| format!("failed to start {name}"))
    }

    /// Runs a program here, feeds it `input`, and gives what it printed.
    ///
    /// # Errors
    /// When it cannot be started or fails; what it said is in the error.
    pub fn script(&self, program: &str, args: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = piped_into(self.prepare(command)?, input)?;
        ensure!(
            output.status.success(),
            "{program} {} failed: {}\n{input}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `work` on a thread of this process that is in this namespace. Sockets that it makes stay there; their cgroup
    /// is this process's.
    ///
    /// # Errors
    /// What `work` failed with, or that the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.move_thread()?;
                work()
            });
            inside.join().map_err(|_panic| anyhow::anyhow!("the thread in the namespace panicked"))?
        })
    }

    /// Puts the calling thread into this namespace for good.
    pub(crate) fn move_thread(&self) -> Result<()> {
        setns(&self.netns, CloneFlags::CLONE_NEWNET).context("failed to enter a network namespace")
    }
}

/// A process that does nothing but hold a network namespace, as a pod's sandbox does, until its standard input ends.
#[derive(Debug)]
pub(crate) struct Holder {
    child: Child,
    /// Its namespace and cgroup.
    pub(crate) place: Place,
}

impl Holder {
    /// Starts one in `cgroup`, which is made, in the namespace of `host` or in a new one. `life` is the read end of a pipe
    /// whose only write end this process has.
    pub(crate) fn start(cgroup: &Path, life: &PipeReader, host: Option<&Place>) -> Result<Self> {
        make_cgroup(cgroup)?;
        let mut command = Command::new(binary("weir-hold")?);
        command.arg("pause").stdin(life.try_clone()?).stdout(Stdio::null()).process_group(0);
        let child = before_exec(command, join(cgroup)?, host.map(|host| Arc::clone(&host.netns)))
            .spawn()
            .with_context(|| format!("failed to start a process with a network namespace in {}", cgroup.display()))?;
        let netns = format!("/proc/{}/ns/net", child.id());
        let netns = File::open(&netns).with_context(|| format!("failed to open {netns}"))?;
        let holder = Pid::from_raw(child.id() as i32);
        Ok(Self { child, place: Place { netns: Arc::new(netns), holder, cgroup: cgroup.to_owned() } })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file that moves whoever writes `0` to it into the cgroup.
fn join(cgroup: &Path) -> Result<File> {
    let path = cgroup.join("cgroup.procs");
    File::options().write(true).open(&path).with_context(|| format!("failed to open {}", path.display()))
}

fn make_cgroup(cgroup: &Path) -> Result<()> {
    std::fs::create_dir_all(cgroup).with_context(|| format!("failed to make the cgroup {}", cgroup.display()))
}

/// `command`, so that the child joins a cgroup, and a namespace (a new one without `netns`), before it becomes the
/// program.
#[expect(unsafe_code, reason = "between fork and exec is the only time when a child can be put elsewhere")]
fn before_exec(mut command: Command, cgroup: File, netns: Option<Arc<File>>) -> Command {
    // SAFETY: write(2), setns(2) and unshare(2) are async-signal-safe and touch only the child; the files were opened
    // before the fork and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::write(&cgroup, b"0")?;
            match &netns {
                Some(netns) => setns(netns, CloneFlags::CLONE_NEWNET)?,
                None => unshare(CloneFlags::CLONE_NEWNET)?,
            }
            Ok(())
        });
    }
    command
}
