//! weir in a cluster: a tracer and an agent on every node, a server in the control namespace.
//!
//! Each tracer sees its own node only: its scope is the node's cgroup. So three tracers on one kernel are three nodes.

use super::gate::Gate;
use super::kubernetes::{API_PORT, KUBELET_READ_ONLY_PORT};
use super::{Cluster, Node, addresses};
use crate::answers::Answers;
use crate::process::{Process, binary, until};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long everything may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long one part may take to stop: above each part's own deadline.
const STOPPING: Duration = Duration::from_secs(15);

/// The parts' usual ports, in namespaces of their own.
const HTTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7780);
const AGENTS_PORT: u16 = 7781;

/// A running weir. Dropped, it ends in the direction of the bytes: agents, server, tracers.
#[derive(Debug)]
pub struct ClusterWeir {
    answers: Answers,
    _gate: Gate,
    agents: Vec<(String, Process)>,
    server: Process,
    tracers: Vec<(String, Process)>,
    folder: PathBuf,
}

impl std::ops::Deref for ClusterWeir {
    type Target = Answers;

    fn deref(&self) -> &Answers {
        &self.answers
    }
}

/// How weir is started in a cluster.
#[derive(Debug)]
pub struct Settings {
    /// The agents' `--interval`.
    pub interval: String,
    /// More flags for every tracer.
    pub tracer: Vec<String>,
    /// More flags for every agent.
    pub agent: Vec<String>,
    /// More flags for the server.
    pub server: Vec<String>,
    /// Whether the agents read their node's kubelet and the server watches the API server.
    pub metadata: Metadata,
    /// Where the server is reached from this machine.
    pub listener: TcpListener,
}

/// What weir knows of the cluster beside what its kernel shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metadata {
    /// Nothing.
    #[default]
    None,
    /// What kubelets and API server say.
    Kubernetes,
}

impl Settings {
    /// Polls each second, any free port.
    ///
    /// # Errors
    /// When no port is free.
    pub fn quick() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("failed to listen on loopback")?;
        Ok(Self {
            interval: "1s".into(),
            tracer: Vec::new(),
            agent: Vec::new(),
            server: Vec::new(),
            metadata: Metadata::None,
            listener,
        })
    }
}

impl Cluster {
    /// Starts weir on every node and waits until every node has reported.
    ///
    /// # Errors
    /// When a part does not start, or a node does not report; the parts' last log lines are in the error.
    pub fn start_weir(&self, settings: Settings) -> Result<ClusterWeir> {
        let folder = self.folder().join("weir");
        std::fs::create_dir(&folder)?;
        let token = super::pod::hex(16)?;
        let token_file = folder.join("token");
        std::fs::write(&token_file, &token)?;
        let agents_at =
            SocketAddr::new(addresses::host(self.style.families, addresses::CONTROL).v4.into(), AGENTS_PORT);

        let mut command = Command::new(binary("weir")?);
        command.arg("server").arg("--data").arg(folder.join("server"));
        command.args(["--listen", &HTTP.to_string(), "--agents-listen", &agents_at.to_string()]);
        command.arg("--token-file").arg(&token_file);
        command.args(&settings.server);
        // The stand-ins speak plain HTTP, and a token leaves no machine so: they are asked on loopback, where they listen too.
        let kubernetes_token = folder.join("kubernetes-token");
        std::fs::write(&kubernetes_token, self.kubernetes_token())?;
        if settings.metadata == Metadata::Kubernetes {
            command.args(["--kubernetes", &format!("http://127.0.0.1:{API_PORT}")]);
            command.arg("--kubernetes-token-file").arg(&kubernetes_token);
        }
        let place = self.control().beside(&self.cgroup().join("control/weir-server.service"))?;
        let server = place.spawn(logged(command, &folder.join("server.log"))?)?;
        let gate = Gate::open(settings.listener, self.control(), HTTP, &token)?;
        let answers = Answers::of(&gate.address.to_string());

        let (mut tracers, mut agents) = (Vec::new(), Vec::new());
        for node in self.nodes() {
            let own = folder.join(&node.plan.name);
            std::fs::create_dir(&own)?;
            tracers.push((node.plan.name.clone(), tracer(node, &own, &settings.tracer)?));
            let mut command = Command::new(binary("weir-agent")?);
            command.arg("--feed").arg(format!("unix:{}", socket(&own).display())).arg("--spool").arg(own.join("spool"));
            command.args(["--server", &format!("http://{agents_at}"), "--node", &node.plan.name]);
            command.args(["--interval", &settings.interval]).arg("--token-file").arg(&token_file);
            command.args(&settings.agent);
            if settings.metadata == Metadata::Kubernetes {
                // A token is shown over TLS only: these kubelets are read by the port that asks for none.
                command.args(["--kubelet", &format!("http://127.0.0.1:{KUBELET_READ_ONLY_PORT}")]);
            }
            let agent = node.service("weir-agent")?.spawn(logged(command, &own.join("agent.log"))?)?;
            agents.push((node.plan.name.clone(), agent));
        }
        let weir = ClusterWeir { answers, _gate: gate, agents, server, tracers, folder };
        until(PATIENCE, || {
            let reporting = weir.nodes_reporting()?;
            ensure!(reporting == self.nodes().len(), "{reporting} nodes have reported");
            Ok(true)
        })
        .with_context(|| format!("weir did not come up in the cluster; its logs say:\n{}", weir.last_log_lines()))?;
        Ok(weir)
    }
}

fn socket(own: &Path) -> PathBuf {
    own.join("tracer.sock")
}

fn tracer(node: &Node, own: &Path, more: &[String]) -> Result<Process> {
    let mut command = Command::new(binary("weir-tracer")?);
    command.arg("--socket").arg(socket(own)).arg("--state-dir").arg(own.join("tracer-state"));
    command.arg("--cgroup").arg(node.cgroup()).args(more);
    node.service("weir-tracer")?.spawn(logged(command, &own.join("tracer.log"))?)
}

/// `command` with its messages in a file.
fn logged(mut command: Command, path: &Path) -> Result<Command> {
    let log = File::options().create(true).append(true).open(path);
    command.env("NO_COLOR", "1").stderr(log.with_context(|| format!("failed to open {}", path.display()))?);
    Ok(command)
}

impl ClusterWeir {
    /// The socket of a node's tracer, which serves the feed.
    pub fn feed(&self, node: &str) -> PathBuf {
        socket(&self.folder.join(node))
    }

    /// The sockets of all tracers.
    pub fn feeds(&self) -> Vec<PathBuf> {
        self.tracers.iter().map(|(node, _)| self.feed(node)).collect()
    }

    /// A node's tracer.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn tracer(&self, node: &str) -> Result<&Process> {
        let found = self.tracers.iter().find(|(name, _)| name == node);
        found.map(|(_, process)| process).with_context(|| format!("there is no tracer on {node}"))
    }

    /// A node's agent.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn agent(&self, node: &str) -> Result<&Process> {
        let found = self.agents.iter().find(|(name, _)| name == node);
        found.map(|(_, process)| process).with_context(|| format!("there is no agent on {node}"))
    }

    /// The server's process.
    pub fn server(&self) -> &Process {
        &self.server
    }

    /// The first part that has ended by itself.
    pub fn ended(&mut self) -> Option<String> {
        let ended = |name: String, process: &mut Process| process.wait(Duration::ZERO).is_ok().then_some(name);
        let agents = self.agents.iter_mut().find_map(|(node, agent)| ended(format!("the agent of {node}"), agent));
        let server = ended("the server".into(), &mut self.server);
        let tracers = self.tracers.iter_mut().find_map(|(node, tracer)| ended(format!("the tracer of {node}"), tracer));
        agents.or(server).or(tracers)
    }

    /// The last lines of every part's log.
    pub fn last_log_lines(&self) -> String {
        const LINES: usize = 8;
        let nodes = self.tracers.iter().map(|(node, _)| self.folder.join(node));
        let logs = nodes.flat_map(|own| [own.join("tracer.log"), own.join("agent.log")]);
        let of_log = |path: PathBuf| {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let skipped = text.lines().count().saturating_sub(LINES);
            let lines: Vec<&str> = text.lines().skip(skipped).collect();
            format!("{}:\n{}\n", path.display(), lines.join("\n"))
        };
        logs.chain([self.folder.join("server.log")]).map(of_log).collect()
    }

    /// Stops every part with SIGTERM, in the direction of the bytes, and waits for each.
    ///
    /// # Errors
    /// When a part does not end in time, or not with success.
    pub fn stop(mut self) -> Result<()> {
        let agents = self.agents.iter_mut().map(|(node, process)| (format!("the agent of {node}"), process));
        let server = std::iter::once(("the server".to_owned(), &mut self.server));
        let tracers = self.tracers.iter_mut().map(|(node, process)| (format!("the tracer of {node}"), process));
        for (name, process) in agents.chain(server).chain(tracers) {
            process.signal(Signal::SIGTERM)?;
            let status = process.wait(STOPPING)?;
            ensure!(status.success(), "{name} ended with {status}");
        }
        Ok(())
    }
}
