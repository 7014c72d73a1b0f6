//! A node: a network namespace with its own conntrack and rules, and a cgroup that everything of it lies below.

use super::addresses::{self, Addresses};
use super::dnat::Installed;
use super::links::{Forwarding, Style, settings};
use super::place::{Holder, Place};
use super::plan::{Network, NodePlan, PodPlan};
use super::pod::{Home, Pod};
use crate::process::Process;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::io::PipeReader;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// What it was made from.
    pub plan: NodePlan,
    /// Its addresses.
    pub addresses: Addresses,
    /// Its place among the nodes, from 0.
    pub(crate) index: u8,
    /// When it was made.
    pub created: std::time::SystemTime,
    /// Its UID.
    pub uid: String,
    pub(crate) installed: Installed,
    cgroup: PathBuf,
    holder: Holder,
    /// The last numbers of its pods' addresses that are in use, and the one given last: a freed one comes late again.
    used: BTreeSet<u8>,
    last: u8,
}

impl Node {
    pub(crate) fn start(plan: &NodePlan, index: u8, root: &Path, style: Style, life: &PipeReader) -> Result<Self> {
        let cgroup = root.join(&plan.name);
        let holder = Holder::start(&cgroup.join("system.slice/node.service"), life, None)?;
        settings(&holder.place, Forwarding::On)?;
        let addresses = addresses::host(style.families, addresses::node_number(index));
        let uid = super::pod::uuid()?;
        let (installed, used) = (Installed::default(), BTreeSet::new());
        let created = super::pod::now();
        Ok(Self { plan: plan.clone(), addresses, index, created, uid, installed, cgroup, holder, used, last: 1 })
    }

    /// The folder that every cgroup of this node lies below: what `weir-tracer --cgroup` takes.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The node's own network namespace, with a cgroup of a service of the host.
    pub fn place(&self) -> &Place {
        &self.holder.place
    }

    /// The place of a service of the host, `system.slice/NAME.service`.
    ///
    /// # Errors
    /// When its cgroup cannot be made.
    pub fn service(&self, name: &str) -> Result<Place> {
        self.holder.place.beside(&self.cgroup.join(format!("system.slice/{name}.service")))
    }

    /// Starts a process of the host.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: Command) -> Result<Process> {
        self.holder.place.spawn(command)
    }

    /// Runs a process of the host to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, command: Command) -> Result<Output> {
        self.holder.place.run(command)
    }

    /// Makes pods and joins them to the node.
    pub(crate) fn add_pods(&mut self, plans: &[&PodPlan], style: Style, life: &PipeReader) -> Result<Vec<Pod>> {
        let mut pods = Vec::new();
        for plan in plans {
            let (addresses, host) = match plan.network {
                Network::Host => (self.addresses, Some(&self.holder.place)),
                Network::Own => {
                    let number = self.free_number(plan.address)?;
                    self.used.insert(number);
                    self.last = number;
                    (addresses::pod(style.families, self.index, number), None)
                }
            };
            let home = Home { cgroup: &self.cgroup, driver: self.plan.driver, host, addresses };
            pods.push(Pod::start(plan, &home, life)?);
        }
        let own = |pod: &&Pod| pod.plan.network == Network::Own;
        for pod in pods.iter().filter(own) {
            settings(pod.sandbox(), Forwarding::Off)?;
        }
        let ends: Vec<(&Place, Addresses)> =
            pods.iter().filter(own).map(|pod| (pod.sandbox(), pod.addresses)).collect();
        style.pod_ends(self.addresses, &ends).run(&self.holder.place)?;
        for pod in pods.iter().filter(own) {
            style.pod(pod.addresses, self.index).run(pod.sandbox())?;
        }
        Ok(pods)
    }

    /// Ends a pod's processes, removes its cgroups and its link.
    pub(crate) fn delete_pod(&mut self, pod: &Pod) -> Result<()> {
        super::janitor::remove_cgroup(pod.cgroup())?;
        if pod.plan.network == Network::Own {
            // The namespace's end would remove it too, but only some time later.
            let link = super::links::pod_end(pod.addresses);
            self.holder.place.script("ip", &["-batch", "-"], &format!("link delete {link}\n"))?;
            self.used.remove(&pod.addresses.v4.octets()[3]);
        }
        Ok(())
    }

    fn free_number(&self, wanted: Option<Ipv4Addr>) -> Result<u8> {
        let Some(wanted) = wanted else {
            let after = (self.last + 1..=254).chain(2..=self.last);
            return after
                .into_iter()
                .find(|number| !self.used.contains(number))
                .with_context(|| format!("{} has no free address", self.plan.name));
        };
        let [a, b, c, number] = wanted.octets();
        let [own_a, own_b, own_c, _] = addresses::pod(super::plan::Families::V4, self.index, 1).v4.octets();
        ensure!(
            [a, b, c] == [own_a, own_b, own_c] && (2..=254).contains(&number),
            "{wanted} is no pod's address on {}",
            self.plan.name
        );
        ensure!(!self.used.contains(&number), "{wanted} is in use");
        Ok(number)
    }
}
