//! One node whose tracer is the real one: real connections on loopback in a cgroup of their own, which is all that this
//! tracer sees, and the truth that their two ends tell.

use super::parts::PartCommand;
use crate::cluster::cgroups;
use crate::cluster::janitor::Janitor;
use crate::played::{Playing, Server, start};
use crate::traffic::{Manner, Truth};
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

/// Nodes that this process has made: each has a cgroup of its own.
static MADE: AtomicU64 = AtomicU64::new(0);

/// The node's traffic. When it is dropped all in its cgroup is killed, and the cgroup removed; also after `kill -9`.
#[derive(Debug)]
pub struct Real {
    server: Option<Server>,
    client: Option<Playing>,
    cgroup: PathBuf,
    _janitor: Janitor,
}

impl Real {
    /// Makes the cgroup, and lets a server listen in it. `folder` is made, and removed with the cgroup.
    ///
    /// # Errors
    /// When there is no cgroup v2, or the server does not listen.
    pub fn open(folder: &Path) -> Result<Self> {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let cgroup = cgroups::mounted()?.join(format!("weir-torture-{}-{number}", std::process::id()));
        let (janitor, _life) = Janitor::start(&cgroup, folder)?;
        std::fs::create_dir(folder)?;
        let mut real = Self { server: None, client: None, cgroup, _janitor: janitor };
        std::fs::create_dir_all(real.traced())
            .with_context(|| format!("failed to make {}", real.traced().display()))?;
        let traced = real.traced();
        real.server = Some(Server::open(&[], &|command| Ok(inside(&traced, &command)))?);
        Ok(real)
    }

    /// The cgroup of the traffic: what the tracer shall see.
    pub fn traced(&self) -> PathBuf {
        self.cgroup.join("traced")
    }

    /// A program in the node's cgroup beside the traffic: whatever it leaves behind goes with the cgroup.
    ///
    /// # Errors
    /// When the cgroup cannot be made.
    pub fn beside(&self, program: &Path, arguments: &[String]) -> Result<PartCommand> {
        let watching = self.cgroup.join("watching");
        std::fs::create_dir_all(&watching)?;
        let joined = [JOIN.map(str::to_owned).into(), vec![text(&watching.join(PROCESSES)), text(program)]];
        Ok(PartCommand { program: "sh".into(), arguments: [joined.concat(), arguments.to_vec()].concat() })
    }

    /// Connections begin, one after the other, until [`Real::end`].
    ///
    /// # Errors
    /// When the client cannot be started.
    pub fn begin(&mut self) -> Result<()> {
        let port = self.server.as_ref().map_or(0, |server| server.port(Manner::Echo));
        let (address, traced) = (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), self.traced());
        self.client = Some(start(&["churn"], address, &|command| Ok(inside(&traced, &command)))?);
        Ok(())
    }

    /// Ends them, and tells what they were.
    ///
    /// # Errors
    /// When a client or the server failed.
    pub fn end(&mut self) -> Result<Vec<Truth>> {
        let client = self.client.take().context("no connections were begun")?;
        let mut truth = client.end()?.truth;
        let server = self.server.take().context("the server was ended")?;
        truth.extend(server.close()?.truth);
        Ok(truth)
    }
}

/// Arguments of a shell that joins a cgroup, the first word behind them, and becomes what the others say.
const JOIN: [&str; 2] = ["-c", "echo 0 > \"$0\" && exec \"$@\""];
const PROCESSES: &str = "cgroup.procs";

/// `command` of the traffic, which is led by its standard input, in the cgroup.
fn inside(cgroup: &Path, command: &Command) -> Command {
    let mut joined = Command::new("sh");
    joined.args(JOIN).arg(cgroup.join(PROCESSES)).arg(command.get_program()).args(command.get_args());
    joined.stdin(Stdio::piped());
    joined
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
