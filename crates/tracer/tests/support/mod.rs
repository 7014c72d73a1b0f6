//! A real tracer on real sockets: its own process, its own socket, its own state folder, cleaned up at the end.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of it")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on says where")]

pub mod cgroup;
pub mod netns;
pub mod player;
pub mod tcp;
pub mod user;

pub mod dns;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use weir_daemon::clock::{Clock, SystemClock};
use weir_wire::feed::{Connection, Reply, Status};
use weir_wire::losses::{Reason, Touches};

/// How long anything may take; only a broken tracer needs it.
const DEADLINE: Duration = Duration::from_secs(20);

/// False, and says so, when this machine cannot run the test.
pub fn can_trace(test: &str) -> bool {
    let reason = if !nix::unistd::Uid::effective().is_root() {
        "not root"
    } else if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        "this kernel has no BTF"
    } else {
        return true;
    };
    assert!(std::env::var("WEIR_FORBID_SKIPS").as_deref() != Ok("1"), "{test} must not be skipped here: {reason}");
    println!("SKIP {test}: {reason}");
    false
}

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let clock = SystemClock::new();
    let begin = clock.monotonic().0;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        let waited = Duration::from_nanos(clock.monotonic().0 - begin);
        assert!(waited < DEADLINE, "waited {waited:?} for {what}");
        pause(Duration::from_millis(5));
    }
}

/// Between two looks at something, or for traffic to go on.
pub fn pause(duration: Duration) {
    #[expect(clippy::disallowed_methods, reason = "the one place that waits between looks")]
    std::thread::sleep(duration);
}

pub struct Tracer {
    child: Child,
    folder: PathBuf,
    args: Vec<String>,
    temporary: Option<tempfile::TempDir>,
}

impl Tracer {
    pub fn start(args: &[&str]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut tracer = Self::start_in(temporary.path(), args);
        tracer.temporary = Some(temporary);
        tracer
    }

    /// Starts another one in its place, with the same arguments.
    pub fn restart(&mut self) {
        self.child =
            Self::command(&self.folder, &self.args.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap();
        until("the tracer to answer again", || self.try_get("/status"));
    }

    pub fn start_in(folder: &Path, args: &[&str]) -> Self {
        let mut tracer = Self::of(Self::command(folder, args).spawn().unwrap(), folder);
        tracer.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        tracer
    }

    /// The tracer that `child` is, once it answers.
    pub fn of(child: Child, folder: &Path) -> Self {
        let mut tracer = Self { child, folder: folder.into(), args: Vec::new(), temporary: None };
        until("the tracer to answer", || {
            if let Some(status) = tracer.child.try_wait().unwrap() {
                panic!("the tracer ended at its start: {status}: {}", tracer.log());
            }
            tracer.try_get("/status")
        });
        tracer
    }

    pub fn command(folder: &Path, args: &[&str]) -> Command {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(folder.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-tracer"));
        command
            .arg("--socket")
            .arg(folder.join("tracer.sock"))
            .args(args)
            .env("WEIR_KEEPER_GRACE", "10s")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stderr(log);
        command
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("tracer.sock")
    }

    pub fn state(&self) -> PathBuf {
        self.folder.join("tracer-state")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Status code and body; `None` when nobody answers (properly).
    pub fn request(&self, method: &str, target: &str) -> Option<(u16, Vec<u8>)> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        write!(stream, "{method} {target} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n").ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        let split = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..split]).to_lowercase();
        let code = head.split(' ').nth(1)?.parse().ok()?;
        let body = &bytes[split + 4..];
        if head.contains("transfer-encoding: chunked") {
            Some((code, unchunk(body)?))
        } else {
            Some((code, body.to_vec()))
        }
    }

    pub fn try_get(&self, target: &str) -> Option<Vec<u8>> {
        self.request("GET", target).filter(|(code, _)| *code == 200).map(|(_, body)| body)
    }

    pub fn reply(&self, query: &str) -> Reply {
        let body = until("a reply", || self.try_get(&format!("/connections{query}")));
        serde_json::from_slice(&body).unwrap()
    }

    pub fn status(&self) -> Status {
        serde_json::from_slice(&until("the status", || self.try_get("/status"))).unwrap()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it as a supervisor would; it must end well.
    pub fn stop(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        let status = until("the tracer to stop", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}: {}", self.log());
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    /// The keeper that this tracer started. Nobody may speak to it: it serves one tracer at a time.
    pub fn keeper(&self) -> Option<u32> {
        let parent = format!("PPid:\t{}", self.pid());
        std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
            let is_it = status.starts_with("Name:\tweir-keeper\n") && status.lines().any(|line| line == parent);
            is_it.then(|| entry.file_name().to_str()?.parse().ok()).flatten()
        })
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the tracer's log\n{}", self.log());
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(nix::sys::signal::Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end]).ok()?, 16).ok()?;
        if length == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(end + 2..end + 2 + length)?);
        body = body.get(end + 2 + length + 2..)?;
    }
}

/// The losses that cost bytes. Others of this machine may have connections without an owner.
pub fn lost_bytes(reply: &Reply) -> Vec<(&str, u64)> {
    let touches = |word: &str| {
        let word = word.strip_suffix(weir_wire::losses::BYTES).unwrap_or(word);
        Reason::find("tracer", word).is_none_or(|reason| reason.touches == Touches::Bytes)
    };
    reply.losses.iter().map(|(word, count)| (word.as_str(), *count)).filter(|(word, _)| touches(word)).collect()
}

/// The rows of one connection end.
pub fn rows_of(reply: &Reply, local: u16, remote: u16) -> Vec<&Connection> {
    reply.connections.iter().filter(|row| (row.sport, row.dport) == (local, remote)).collect()
}

/// Sent and received.
pub fn bytes(row: &Connection) -> (u64, u64) {
    (row.monotonic_sent_bytes.unwrap(), row.monotonic_recv_bytes.unwrap())
}

/// Whether a process is there and not only waits to be reaped.
pub fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

/// A client that keeps its cursor, as the agent does.
pub struct Agent {
    pub cursor: u64,
    pub run_id: String,
}

impl Agent {
    pub fn new(tracer: &Tracer) -> Self {
        let first = tracer.reply("?client_id=agent");
        Self { cursor: first.cursor.unwrap(), run_id: first.run_id.unwrap() }
    }

    /// Fetches, and acknowledges at the next fetch.
    pub fn fetch(&mut self, tracer: &Tracer) -> Reply {
        let reply = tracer.reply(&format!("?client_id=agent&ack={}", self.cursor));
        self.cursor = reply.cursor.unwrap();
        assert_eq!(reply.run_id.as_ref(), Some(&self.run_id), "the run went on");
        reply
    }
}
