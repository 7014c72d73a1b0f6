//! The real `weir-agent` as a process.

use super::until;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A running agent; killed when dropped.
pub struct Agent {
    child: Child,
    metrics: SocketAddr,
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Agent {
    /// The command of an agent in `folder`: its feed is `feed.sock` there, its spool `spool`.
    pub fn command(folder: &Path, server: &str, metrics: SocketAddr, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-agent"));
        command
            .arg("--feed")
            .arg(format!("unix:{}", folder.join("feed.sock").display()))
            .arg("--spool")
            .arg(folder.join("spool"))
            .args(["--server", server, "--metrics-listen", &metrics.to_string(), "--node", "test-node"])
            .args(more)
            .env_clear()
            .stdout(Stdio::null())
            .stderr(std::fs::File::options().create(true).append(true).open(folder.join("agent.log")).unwrap());
        command
    }

    /// Starts one.
    pub fn start(folder: &Path, server: &str, more: &[&str]) -> Self {
        let metrics = SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self::spawn(Self::command(folder, server, metrics, more), metrics)
    }

    /// Starts one by its command.
    pub fn spawn(mut command: Command, metrics: SocketAddr) -> Self {
        Self { child: command.spawn().unwrap(), metrics }
    }

    /// The body of a page of the metrics' listener; empty while it does not answer.
    pub fn page(&self, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(self.metrics) else { return String::new() };
        let _ = write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    }

    /// A counter of `/metrics`, by its line's beginning; 0 when it is not there.
    pub fn counter(&self, name: &str) -> u64 {
        let page = self.page("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    }

    /// The most memory that it has had resident, bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; waits for its end.
    pub fn stop(mut self) -> ExitStatus {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        until("the agent has ended", || self.child.try_wait().unwrap())
    }

    /// Whether it still runs.
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
