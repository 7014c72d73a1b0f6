//! Real etcd members on loopback, from Debian's `etcd-server` and `etcd-client`. They die with this process.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Clusters that this process has started: each has ports of its own.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// Asks until it is so.
#[expect(clippy::disallowed_methods, reason = "a test waits for another process's real work in real time")]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "it did not become so: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Certificates: who vouches, the members' and a client's, each a file.
pub(crate) struct Certificates {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

pub(crate) struct Servers {
    folder: tempfile::TempDir,
    address: String,
    first_port: u16,
    more: Vec<String>,
    scheme: &'static str,
    members: Vec<Option<Child>>,
    user: Option<&'static str>,
}

impl Servers {
    /// So many members, all healthy.
    pub(crate) fn start(count: usize) -> Self {
        let servers = Self::prepare(count);
        servers.run()
    }

    /// One member that speaks TLS alone, and only to clients with a certificate.
    pub(crate) fn start_with_certificates(make: impl Fn(&Path, &str) -> Certificates) -> (Self, Certificates) {
        let mut servers = Self::prepare(1);
        servers.scheme = "https";
        let made = make(servers.folder.path(), &servers.address);
        for (flag, path) in
            [("--trusted-ca-file", &made.ca), ("--cert-file", &made.certificate), ("--key-file", &made.key)]
        {
            servers.more.extend([flag.to_owned(), path.display().to_string()]);
        }
        servers.more.push("--client-cert-auth".into());
        // `run` would ask for its health without a certificate.
        servers.spawn(0);
        (servers, made)
    }

    fn prepare(count: usize) -> Self {
        let process = std::process::id();
        // An address that no other process of tests has, and that no port of the system's choice is on.
        let address = format!("127.{}.{}.{}", 64 + (process >> 16 & 63), process >> 8 & 255, process & 255);
        let first_port = 2379 + 10 * STARTED.fetch_add(1, Ordering::Relaxed) as u16;
        Self {
            folder: tempfile::tempdir().unwrap(),
            address,
            first_port,
            more: Vec::new(),
            scheme: "http",
            members: (0..count).map(|_| None).collect(),
            user: None,
        }
    }

    fn run(mut self) -> Self {
        for member in 0..self.members.len() {
            self.spawn(member);
        }
        until("every member is healthy", || self.try_ctl(&["endpoint", "health"]).status.success());
        self
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        (0..self.members.len()).map(|member| self.client_url(member)).collect()
    }

    fn client_url(&self, member: usize) -> String {
        format!("{}://{}:{}", self.scheme, self.address, self.first_port + 2 * member as u16)
    }

    fn peer_url(&self, member: usize) -> String {
        format!("http://{}:{}", self.address, self.first_port + 2 * member as u16 + 1)
    }

    /// Starts a member, perhaps again.
    pub(crate) fn spawn(&mut self, member: usize) {
        let cluster: Vec<String> =
            (0..self.members.len()).map(|member| format!("m{member}={}", self.peer_url(member))).collect();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join(format!("m{member}.log")))
            .unwrap();
        // setpriv(1) becomes etcd: the kernel kills it when the thread that started it is gone.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd", "--name"])
            .arg(format!("m{member}"))
            .arg("--data-dir")
            .arg(self.folder.path().join(format!("m{member}")))
            .args(["--listen-client-urls", &self.client_url(member)])
            .args(["--advertise-client-urls", &self.client_url(member)])
            .args(["--listen-peer-urls", &self.peer_url(member)])
            .args(["--initial-advertise-peer-urls", &self.peer_url(member)])
            .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-token", &self.address])
            .args(["--auth-token", "simple"])
            .args(&self.more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("etcd runs: scripts/packages.sh test installs it");
        self.members[member] = Some(child);
    }

    pub(crate) fn signal(&self, member: usize, signal: nix::sys::signal::Signal) {
        let child = self.members[member].as_ref().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
    }

    pub(crate) fn kill(&mut self, member: usize) {
        let mut child = self.members[member].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Lets `weir` with the password `secret` in, to what begins with `/weir/`, and nobody without a name.
    pub(crate) fn ask_for_names(&mut self) {
        for command in [
            vec!["user", "add", "root:root"],
            vec!["user", "grant-role", "root", "root"],
            vec!["role", "add", "weir"],
            vec!["role", "grant-permission", "weir", "--prefix=true", "readwrite", "/weir/"],
            vec!["user", "add", "weir:secret"],
            vec!["user", "grant-role", "weir", "weir"],
            vec!["auth", "enable"],
        ] {
            let output = self.try_ctl(&command);
            // The role root is made by `auth enable` on some versions, by hand on others.
            assert!(
                output.status.success() || command.contains(&"grant-role"),
                "{command:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        self.user = Some("root:root");
    }

    pub(crate) fn try_ctl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoints().join(","), "--dial-timeout", "5s"]);
        if let Some(user) = self.user {
            command.args(["--user", user]);
        }
        command.args(arguments).output().expect("etcdctl runs: scripts/packages.sh test installs it")
    }

    /// What `etcdctl` prints.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let output = self.try_ctl(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in self.members.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
