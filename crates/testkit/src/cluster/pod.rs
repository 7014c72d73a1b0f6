//! A pod: a sandbox that holds its network namespace, and containers, each a cgroup in which processes run.

use super::addresses::Addresses;
use super::cgroups;
use super::place::{Holder, Place};
use super::plan::{Driver, PodPlan};
use crate::process::Process;
use anyhow::{Context, Result, ensure};
use std::io::PipeReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A running pod.
#[derive(Debug)]
pub struct Pod {
    /// What it was made from.
    pub plan: PodPlan,
    /// Its UID.
    pub uid: String,
    /// Its addresses: the node's, on the host network.
    pub addresses: Addresses,
    /// Its containers.
    pub containers: Vec<Container>,
    /// The sandbox's container id, which is in no container status.
    pub sandbox_id: String,
    /// When it was made.
    pub created: std::time::SystemTime,
    cgroup: PathBuf,
    sandbox: Holder,
}

/// A container of a pod.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its id: 64 hexadecimal digits.
    pub id: String,
    place: Place,
}

impl Container {
    /// Where its processes run.
    pub fn place(&self) -> &Place {
        &self.place
    }
}

/// What a pod gets from its node.
pub(crate) struct Home<'a> {
    pub(crate) cgroup: &'a Path,
    pub(crate) driver: Driver,
    /// The node's namespace, for a pod on the host network.
    pub(crate) host: Option<&'a Place>,
    pub(crate) addresses: Addresses,
}

impl Pod {
    /// Makes the pod's cgroups and its sandbox; links and addresses are the node's business.
    pub(crate) fn start(plan: &PodPlan, home: &Home<'_>, life: &PipeReader) -> Result<Self> {
        ensure!(!plan.containers.is_empty(), "the pod {} has no container", plan.name);
        let uid = uuid()?;
        let cgroup = cgroups::pod(home.cgroup, home.driver, plan.quality, &uid);
        let sandbox_id = hex(32)?;
        let sandbox = Holder::start(&cgroups::container(&cgroup, home.driver, &sandbox_id), life, home.host)?;
        let mut containers = Vec::new();
        for name in &plan.containers {
            let id = hex(32)?;
            let place = sandbox.place.beside(&cgroups::container(&cgroup, home.driver, &id))?;
            containers.push(Container { name: name.clone(), id, place });
        }
        let created = now();
        let addresses = home.addresses;
        Ok(Self { plan: plan.clone(), uid, addresses, containers, sandbox_id, created, cgroup, sandbox })
    }

    /// The pod's network namespace and the sandbox's cgroup.
    pub fn sandbox(&self) -> &Place {
        &self.sandbox.place
    }

    /// The cgroup's folder that all of its containers lie in.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// A container.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn container(&self, name: &str) -> Result<&Container> {
        let found = self.containers.iter().find(|container| container.name == name);
        found.with_context(|| format!("the pod {} has no container {name}", self.plan.name))
    }

    /// Starts a process in a container; it ends with this process, with the pod and with the [`Process`].
    ///
    /// # Errors
    /// When there is no such container, or it cannot be started.
    pub fn spawn(&self, container: &str, command: Command) -> Result<Process> {
        self.container(container)?.place.spawn(command)
    }

    /// Runs a process in a container to its end.
    ///
    /// # Errors
    /// When there is no such container, or it cannot be started.
    pub fn run(&self, container: &str, command: Command) -> Result<Output> {
        self.container(container)?.place.run(command)
    }
}

#[expect(clippy::disallowed_methods, reason = "a pod's creation is a real instant that is compared with the kernel's")]
pub(crate) fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// `bytes` random bytes in hexadecimal digits.
pub(crate) fn hex(bytes: usize) -> Result<String> {
    use std::fmt::Write as _;
    let mut random = vec![0_u8; bytes];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("failed to get random bytes: {error}"))?;
    Ok(random.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// A random UUID (RFC 9562, version 4).
pub(crate) fn uuid() -> Result<String> {
    let digits = hex(16)?;
    Ok(format!("{}-{}-4{}-8{}-{}", &digits[..8], &digits[8..12], &digits[13..16], &digits[17..20], &digits[20..]))
}
