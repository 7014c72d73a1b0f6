//! A server in a process of its own, that a test kills and pauses: the test's own binary, asked to be one.
//!
//! A file that uses it has a test `a_server_of_the_tests_below` that calls [`run_if_asked`].

use crate::support::TestServer;
use clap::Parser as _;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// The arguments of the server that a child is. Without them the child's test has nothing to do.
const ARGUMENTS: &str = "WEIR_TEST_SERVER_ARGUMENTS";
const DEADLINE: Duration = Duration::from_secs(60);

/// The child's side: a server with the arguments that it was given, until it is killed or ends.
pub(crate) async fn run_if_asked() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    let args = weir_server::Args::parse_from(std::iter::once("weir-server").chain(arguments.split('\n')));
    if let Err(error) = weir_server::run(args, tokio_util::sync::CancellationToken::new()).await {
        eprintln!("server: {error:#}");
        std::process::exit(1);
    }
}

/// A running one. Killed when dropped.
pub(crate) struct ServerProcess {
    child: Child,
    folder: Arc<tempfile::TempDir>,
}

impl ServerProcess {
    /// Starts one in an empty folder.
    pub(crate) fn spawn(more: &[&str]) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let data = folder.path().to_str().unwrap();
        let fixed = ["--data", data, "--listen", "127.0.0.1:0", "--agents-listen", "127.0.0.1:0"];
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "a_server_of_the_tests_below", "--nocapture"])
            .env(ARGUMENTS, [&fixed[..], more].concat().join("\n"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it listens.
    pub(crate) async fn listening(&self) -> TestServer {
        let path = self.folder.path().join("server.json");
        until("the server listens", || path.exists()).await;
        let addresses: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let address = |name: &str| addresses[name].as_str().unwrap().parse().unwrap();
        TestServer::elsewhere(Arc::clone(&self.folder), address("http"), address("agents"))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Stops it, and waits until every thread stands still: until then one of them could read what comes next.
    pub(crate) fn pause(&self) {
        use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
        self.signal(Signal::SIGSTOP);
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        assert_eq!(waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap(), WaitStatus::Stopped(pid, Signal::SIGSTOP));
    }

    /// Waits for its end; what it said.
    pub(crate) async fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        until("the server ends", || self.child.try_wait().unwrap().is_some()).await;
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
