//! The data folder: who holds it, what lies where, whose it is, and `up.json`, which tells others what runs.
//!
//! ```text
//! DATA/up.lock            held (flock) by the one weir up, holds its pid
//! DATA/up.json            pid, addresses and parts; rewritten whole on every change, gone after a clean stop
//! DATA/server, DATA/agent the parts' own folders, owned by the user they run as
//! DATA/run                tracer.sock, tracer-state, the token's copy
//! DATA/log                tracer.log, agent.log, server.log
//! ```

use super::account::{Account, Rights};
use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

/// `DATA/up.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The process id of `weir up`.
    pub pid: u32,
    /// Where the HTTP API and the page are, once known.
    pub http: Option<SocketAddr>,
    /// Where agents deliver, once known.
    pub agents: Option<SocketAddr>,
    /// Where the agent's metrics are, once known.
    pub metrics: Option<SocketAddr>,
    /// The tracer's socket.
    #[serde(default)]
    pub feed: PathBuf,
    /// The parts.
    pub parts: Vec<RunningPart>,
}

/// A part in `DATA/up.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningPart {
    /// `tracer`, `agent` or `server`.
    pub name: String,
    /// Its process id while it runs.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u64,
}

impl Running {
    /// What `DATA/up.json` says; nothing where there is none, or none that can be read.
    pub fn read(data: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(data.join("up.json")).ok()?).ok()
    }

    /// What it says if its `weir up` lives.
    pub fn read_live(data: &Path) -> Option<Self> {
        Self::read(data).filter(|running| Path::new(&format!("/proc/{}", running.pid)).exists())
    }
}

/// `DATA/server/server.json`: where the server has bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Bound {
    /// The HTTP API and the page.
    pub http: SocketAddr,
    /// The agents' side.
    pub agents: SocketAddr,
}

/// The data folder of this `weir up`, held as long as this value lives.
#[derive(Debug)]
pub struct Folder {
    data: PathBuf,
    _lock: Flock<File>,
}

/// The default data folder: `/var/lib/weir` for root, else the user's.
pub fn default_data(is_root: bool) -> PathBuf {
    if is_root {
        return "/var/lib/weir".into();
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(std::env::temp_dir)
        .join("weir")
}

impl Folder {
    /// Makes the folder what the parts need, and holds it.
    ///
    /// # Errors
    /// Another `weir up` holds it; it cannot be made or given to the user.
    pub fn open(data: &Path, rights: &Rights) -> anyhow::Result<Self> {
        make(data, 0o755)?;
        let data = data.canonicalize().with_context(|| format!("failed to find the data folder {}", data.display()))?;
        let lock = hold(&data)?;
        let folder = Self { data, _lock: lock };
        if let Some(account) = rights.account()
            && let Some(closed) = super::account::closed_folder(&folder.data.join("server"), account)
                .or_else(|| super::account::closed_folder(&folder.data.join("up.lock"), account))
        {
            anyhow::bail!(
                "user {} may not enter {}: choose another folder with --data, or run the parts as another user with --user",
                account.name,
                closed.display()
            );
        }
        make(&folder.server(), 0o750)?;
        make(&folder.agent(), 0o750)?;
        make(&folder.run(), 0o750)?;
        make(&folder.log(), 0o750)?;
        if let Some(account) = rights.account() {
            give(&folder.server(), account)?;
            give(&folder.agent(), account)?;
            for shared in [folder.run(), folder.log()] {
                std::os::unix::fs::chown(&shared, None, Some(account.gid))
                    .with_context(|| format!("failed to give {} to the group of {}", shared.display(), account.name))?;
            }
        }
        Ok(folder)
    }

    /// The folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The server's folder.
    pub fn server(&self) -> PathBuf {
        self.data.join("server")
    }

    /// The agent's folder.
    pub fn agent(&self) -> PathBuf {
        self.data.join("agent")
    }

    /// Sockets and the tracer's state.
    pub fn run(&self) -> PathBuf {
        self.data.join("run")
    }

    /// The tracer's socket.
    pub fn socket(&self) -> PathBuf {
        self.run().join("tracer.sock")
    }

    /// The parts' logs.
    pub fn log(&self) -> PathBuf {
        self.data.join("log")
    }

    /// Where the server said it has bound.
    pub fn bound(&self) -> Option<Bound> {
        serde_json::from_slice(&std::fs::read(self.server().join("server.json")).ok()?).ok()
    }

    /// Forgets what the last server said.
    pub fn forget_bound(&self) {
        // Where there is none there is nothing to forget.
        let _ = std::fs::remove_file(self.server().join("server.json"));
    }

    /// Replaces `up.json`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn publish(&self, running: &Running) -> anyhow::Result<()> {
        let (new, path) = (self.data.join("up.json.new"), self.data.join("up.json"));
        let text = serde_json::to_vec(running)?;
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &path))
            .with_context(|| format!("failed to write {}", path.display()))
    }

    /// Removes `up.json`: nothing runs.
    pub fn retract(&self) {
        let _ = std::fs::remove_file(self.data.join("up.json"));
    }

    /// A copy of the token file that the parts' user may read; the original where the user is ours.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn token_for_parts(&self, file: &Path, rights: &Rights) -> anyhow::Result<PathBuf> {
        let token = std::fs::read(file).with_context(|| format!("failed to read the token file {}", file.display()))?;
        let Some(account) = rights.account() else {
            return file.canonicalize().with_context(|| format!("failed to find the token file {}", file.display()));
        };
        let copy = self.run().join("token");
        let failed = || format!("failed to write {}", copy.display());
        let _ = std::fs::remove_file(&copy);
        let mut target =
            OpenOptions::new().write(true).create_new(true).mode(0o400).open(&copy).with_context(failed)?;
        target.write_all(&token).with_context(failed)?;
        std::os::unix::fs::fchown(&target, Some(account.uid), Some(account.gid)).with_context(failed)?;
        Ok(copy)
    }
}

fn make(folder: &Path, mode: u32) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .with_context(|| format!("failed to make the folder {}: choose another with --data", folder.display()))
}

fn hold(data: &Path) -> anyhow::Result<Flock<File>> {
    let path = data.join("up.lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(&path)
        .with_context(|| format!("failed to open {}: choose another folder with --data", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            let write = |lock: &mut File| {
                lock.set_len(0)?;
                lock.rewind()?;
                writeln!(lock, "{}", std::process::id())
            };
            write(&mut lock).with_context(|| format!("failed to write {}", path.display()))?;
            Ok(lock)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let pid = pid.trim();
            let holder =
                if pid.is_empty() { "another weir up".to_owned() } else { format!("another weir up (pid {pid})") };
            let page = Running::read(data).and_then(|running| running.http);
            let page = page.map_or_else(String::new, |http| format!(", its page is at http://{http}"));
            anyhow::bail!(
                "{holder} holds the data folder {}{page}: stop it, or choose another folder with --data",
                data.display()
            )
        }
        Err((_, errno)) => Err(errno).with_context(|| format!("failed to lock {}", path.display())),
    }
}

/// Gives a folder and all in it to `account`. A folder that is the account's already is left alone: what is in it may
/// be of its making, and root must not be led by it.
fn give(folder: &Path, account: &Account) -> anyhow::Result<()> {
    let failed = |path: &Path| format!("failed to give {} to {}", path.display(), account.name);
    let meta = folder.symlink_metadata().with_context(|| failed(folder))?;
    anyhow::ensure!(meta.is_dir(), "{} is not a folder", folder.display());
    if meta.uid() == account.uid {
        return Ok(());
    }
    give_all_in(folder, account)?;
    std::fs::set_permissions(folder, Permissions::from_mode(0o750)).with_context(|| failed(folder))?;
    lchown(folder, Some(account.uid), Some(account.gid)).with_context(|| failed(folder))
}

fn give_all_in(folder: &Path, account: &Account) -> anyhow::Result<()> {
    let failed = |path: &Path| format!("failed to give {} to {}", path.display(), account.name);
    for entry in folder.read_dir().with_context(|| failed(folder))? {
        let path = entry.with_context(|| failed(folder))?.path();
        let meta = path.symlink_metadata().with_context(|| failed(&path))?;
        if meta.is_dir() {
            give_all_in(&path, account)?;
        } else if meta.nlink() > 1 {
            // A second name of a file that may be anybody's.
            continue;
        }
        lchown(&path, Some(account.uid), Some(account.gid)).with_context(|| failed(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_the_first() {
        let data = tempfile::tempdir().unwrap();
        let first = Folder::open(data.path(), &Rights::Ordinary).unwrap();
        let error = Folder::open(data.path(), &Rights::Ordinary).unwrap_err().to_string();
        assert!(error.contains(&format!("another weir up (pid {})", std::process::id())), "{error}");
        drop(first);
        assert!(Folder::open(data.path(), &Rights::Ordinary).is_ok());
    }

    #[test]
    fn what_runs_is_published_whole_and_retracted() {
        let data = tempfile::tempdir().unwrap();
        let folder = Folder::open(data.path(), &Rights::Ordinary).unwrap();
        let running = Running {
            pid: std::process::id(),
            http: Some(([127, 0, 0, 1], 7780).into()),
            parts: vec![RunningPart { name: "agent".into(), pid: Some(7), restarts: 2 }],
            ..Running::default()
        };
        folder.publish(&running).unwrap();
        assert_eq!(Running::read_live(data.path()), Some(running));
        let text = std::fs::read_to_string(data.path().join("up.json")).unwrap();
        assert!(text.contains("\"http\":\"127.0.0.1:7780\"") && text.contains("\"restarts\":2"), "{text}");
        folder.retract();
        assert_eq!(Running::read(data.path()), None);
    }

    #[test]
    fn the_server_says_where_it_listens() {
        let data = tempfile::tempdir().unwrap();
        let folder = Folder::open(data.path(), &Rights::Ordinary).unwrap();
        assert_eq!(folder.bound(), None);
        let text = r#"{"http":"127.0.0.1:41000","agents":"[::1]:41001"}"#;
        std::fs::write(folder.server().join("server.json"), text).unwrap();
        assert_eq!(folder.bound().map(|bound| (bound.http.port(), bound.agents.port())), Some((41000, 41001)));
        folder.forget_bound();
        assert_eq!(folder.bound(), None);
    }
}
