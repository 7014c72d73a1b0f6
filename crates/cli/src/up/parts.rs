//! How each part is started: its program, its arguments, its rights, and how it ends when we do.

use super::account::{Account, Rights};
use super::folder::Folder;
use super::supervise::Part;
use crate::args::UpArgs;
use anyhow::Context;
use nix::unistd::{Gid, Uid};
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::{Child, Command};
use weir_daemon::capabilities::{BPF, FOR_EBPF, Held, PERFMON, SYS_PTRACE, names};

/// Where the parts listen: as asked for, or as they said once they had bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// HTTP API and page.
    pub http: SocketAddr,
    /// Agents.
    pub agents: SocketAddr,
    /// The agent's metrics.
    pub metrics: SocketAddr,
}

/// Everything that the parts' command lines are made of.
#[derive(Debug)]
pub struct Recipe<'a> {
    /// `weir up`'s flags.
    pub args: &'a UpArgs,
    /// The data folder.
    pub folder: &'a Folder,
    /// Who runs what.
    pub rights: &'a Rights,
    /// The tracer's socket.
    pub feed: PathBuf,
    /// The token file that the parts may read.
    pub token_file: Option<PathBuf>,
}

/// Why a part could not be started; trying again ends the same way.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct NotStarted(#[from] anyhow::Error);

impl Recipe<'_> {
    /// A part's program.
    ///
    /// # Errors
    /// When it is found neither beside this one nor in `PATH`.
    pub fn program(part: Part) -> anyhow::Result<PathBuf> {
        let own = std::env::current_exe().context("failed to find this program's own file")?;
        let name = match part {
            Part::Server => return Ok(own),
            Part::Tracer => "weir-tracer",
            Part::Agent => "weir-agent",
        };
        let beside = own.parent().map(|folder| folder.join(name));
        let path = std::env::var_os("PATH").unwrap_or_default();
        beside
            .into_iter()
            .chain(std::env::split_paths(&path).map(|folder| folder.join(name)))
            .find(|path| is_program(path))
            .with_context(|| {
                format!("{name} is neither beside {} nor in PATH: build or install it there", own.display())
            })
    }

    /// A part's arguments.
    pub fn arguments(&self, part: Part, addresses: Addresses) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let mut flag =
            |name: &str, value: &dyn AsRef<OsStr>| words.extend([OsString::from(name), value.as_ref().into()]);
        match part {
            Part::Tracer => {
                flag("--socket", &self.feed);
                flag("--state-dir", &self.folder.run().join("tracer-state"));
                let gid = self.rights.account().map_or_else(super::account::own_gid, |account| account.gid);
                flag("--socket-group", &gid.to_string());
            }
            Part::Server => {
                flag("--data", &self.folder.server());
                flag("--listen", &addresses.http.to_string());
                flag("--agents-listen", &addresses.agents.to_string());
            }
            Part::Agent => {
                let mut feed = OsString::from("unix:");
                feed.push(&self.feed);
                flag("--feed", &feed);
                flag("--spool", &self.folder.agent());
                flag("--server", &format!("http://{}", reachable(addresses.agents)));
                flag("--metrics-listen", &addresses.metrics.to_string());
                flag("--interval", &humantime::format_duration(self.args.interval).to_string());
            }
        }
        words.extend(self.args.names.words(part));
        let mut flag =
            |name: &str, value: &dyn AsRef<OsStr>| words.extend([OsString::from(name), value.as_ref().into()]);
        if let Some(token) = self.token_file.as_ref().filter(|_| part != Part::Tracer) {
            flag("--token-file", token);
        }
        flag("--log", &self.args.log);
        if let Some(config) = &self.args.config {
            flag("--config", config);
        }
        if self.args.insecure && part != Part::Tracer {
            words.push("--insecure".into());
        }
        if self.args.no_dns && part == Part::Tracer {
            words.push("--no-dns".into());
        }
        if part == Part::Server {
            words.insert(0, "server".into());
        }
        words
    }

    /// The groups that `part` has beside its user's first one: none but those of the runtimes' sockets that were asked
    /// for by name, and those only the agent.
    pub fn groups(&self, part: Part) -> Vec<u32> {
        match self.rights.account() {
            Some(account) if part == Part::Agent => super::account::groups_of(self.args.names.sockets(), account.gid),
            _ => Vec::new(),
        }
    }

    /// Starts a part. It gets SIGTERM when we die, has a process group of its own (Ctrl-C reaches us alone, so that the
    /// parts stop in order), and writes to its log.
    ///
    /// # Errors
    /// [`NotStarted`].
    pub fn start(&self, part: Part, addresses: Addresses, log: std::fs::File) -> Result<Child, NotStarted> {
        let program = Self::program(part)?;
        let mut command = Command::new(&program);
        let errors = log.try_clone().context("failed to share the log")?;
        command
            .args(self.arguments(part, addresses))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(true)
            // The parts' lines go to a file.
            .env("NO_COLOR", "1")
            // It names kinds of both; each got its own as flags.
            .env_remove("WEIR_COLLECT");
        let account = self.rights.account().filter(|_| part != Part::Tracer);
        if let Some(account) = account {
            if let Some(closed) = super::account::closed_folder(&program, account) {
                return Err(NotStarted(anyhow::anyhow!(
                    "user {} may not enter {}, where {} is: install it elsewhere, or name another user with --user",
                    account.name,
                    closed.display(),
                    program.display()
                )));
            }
            become_account(&mut command, account, &self.groups(part));
        }
        end_with_us(&mut command);
        let child = command.spawn().with_context(|| format!("failed to start {}", program.display()))?;
        Ok(child)
    }
}

#[expect(unsafe_code, reason = "the standard library gives up all groups or keeps root's; the agent may need one")]
fn become_account(command: &mut Command, account: &Account, groups: &[u32]) {
    command.env("HOME", &account.home).env("USER", &account.name).env("LOGNAME", &account.name);
    let groups: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    let change = move || {
        nix::unistd::setgroups(&groups)?;
        nix::unistd::setgid(gid)?;
        nix::unistd::setuid(uid)?;
        Ok(())
    };
    // SAFETY: the closure runs in the child after fork, where only one thread is left. It makes three system calls and
    // allocates nothing, so it is async-signal-safe.
    unsafe {
        command.pre_exec(change);
    }
}

#[expect(unsafe_code, reason = "the kernel must be told between fork and exec whose death ends the child")]
fn end_with_us(command: &mut Command) {
    let parent = nix::unistd::Pid::this();
    let tie = move || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)?;
        // We may have died before the line above.
        if nix::unistd::getppid() != parent {
            return Err(nix::errno::Errno::ESRCH.into());
        }
        Ok(())
    };
    // SAFETY: the closure runs in the child after fork, and after the change of user, which would clear the setting
    // (prctl(2)). It makes two system calls and allocates nothing, so it is async-signal-safe.
    unsafe {
        command.pre_exec(tie);
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// An address to connect to for one that is listened on: the wildcard means this machine.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (std::net::Ipv4Addr::LOCALHOST, v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (std::net::Ipv6Addr::LOCALHOST, v6.port()).into(),
        address => address,
    }
}

/// What an ordinary user can do about a tracer that sees little.
pub fn how_to_trace(program: Option<&Path>) -> String {
    let program = program.map_or_else(|| "weir-tracer".to_owned(), |path| path.display().to_string());
    let wanted = [FOR_EBPF.as_slice(), &[SYS_PTRACE]].concat();
    let names = names(&wanted).replace(", ", ",").to_lowercase();
    format!(
        "run `sudo weir up`, or once `sudo setcap {names}=ep {program}`, or read a tracer that runs already with --feed \
         unix:PATH"
    )
}

/// Whether an ordinary user's tracer would have the capabilities that it needs: ours are ambient, or its file has them.
pub fn may_trace(program: &Path) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if Held::parse(&status, "CapAmb").unwrap_or(Held(0)).missing(&[BPF, PERFMON]).is_empty() {
        return true;
    }
    // `getcap` is where `setcap` is; without it nobody has given the file any.
    let found = std::process::Command::new("getcap").arg(program).stderr(Stdio::null()).output();
    found.is_ok_and(|found| String::from_utf8_lossy(&found.stdout).contains("cap_bpf"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command as CliCommand};
    use clap::Parser;

    fn up(words: &[&str]) -> UpArgs {
        match Cli::parse_from(["weir", "up"].iter().chain(words)).command {
            CliCommand::Up(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_part_gets_what_was_asked_for() {
        let data = tempfile::tempdir().unwrap();
        let folder = Folder::open(data.path(), &Rights::Ordinary).unwrap();
        let args = up(&["--interval", "1500ms", "--insecure", "--log", "debug"]);
        let recipe = Recipe {
            args: &args,
            folder: &folder,
            rights: &Rights::Ordinary,
            feed: "/f/tracer.sock".into(),
            token_file: Some("/f/token".into()),
        };
        let addresses = Addresses {
            http: ([0, 0, 0, 0], 1).into(),
            agents: ([0, 0, 0, 0], 2).into(),
            metrics: ([127, 0, 0, 1], 3).into(),
        };
        let line = |part| {
            let words = recipe.arguments(part, addresses);
            let line: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
            line.join(" ").replace(&folder.data().display().to_string(), "DATA")
        };
        assert_eq!(
            line(Part::Server),
            "server --data DATA/server --listen 0.0.0.0:1 --agents-listen 0.0.0.0:2 --token-file /f/token --log debug --insecure"
        );
        assert_eq!(
            line(Part::Agent),
            "--feed unix:/f/tracer.sock --spool DATA/agent --server http://127.0.0.1:2 --metrics-listen 127.0.0.1:3 \
             --interval 1s 500ms --token-file /f/token --log debug --insecure"
        );
        assert!(
            line(Part::Tracer).starts_with("--socket /f/tracer.sock --state-dir DATA/run/tracer-state --socket-group ")
        );
        assert!(!line(Part::Tracer).contains("token") && !line(Part::Tracer).contains("dns"));
        let args = up(&["--no-dns"]);
        let recipe = Recipe { args: &args, token_file: None, feed: "/f/tracer.sock".into(), ..recipe };
        let words = recipe.arguments(Part::Tracer, addresses);
        assert!(words.contains(&"--no-dns".into()), "{words:?}");
    }
}
