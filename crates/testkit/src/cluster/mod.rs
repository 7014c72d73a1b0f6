//! A cluster of network namespaces on this machine's kernel, in one call, and without a trace afterwards.
//!
//! ```text
//!   outside ──┐   ┌── control: weir server, API server
//!  10.88.0.200│   │10.88.0.250
//!           ┌─┴───┴─┐
//!           │ wire  │ a bridge, or routes
//!           └┬──┬──┬┘
//!      node1 │  │  │ node3     10.88.0.11-13, conntrack, DNAT as kube-proxy makes it
//!      ┌─────┴┐ : ┌┴─────┐
//!      │ pods │   │ pods │     10.244.n.0/24: sandbox, containers as cgroups named by the kubelet's rules
//!      └──────┘   └──────┘
//! ```
//!
//! Every box is a namespace without a name, held by a process ([`place`]). Everything runs below one cgroup. The
//! [`janitor`] removes what would stay: also after `kill -9` of this process.

pub mod addresses;
pub mod cgroups;
mod dnat;
mod gate;
pub mod janitor;
pub mod kubernetes;
mod links;
pub mod node;
pub mod place;
pub mod plan;
pub mod pod;
pub mod service;
mod serving;
pub mod weir;

pub use node::Node;
pub use place::Place;
pub use plan::{Dnat, Driver, Families, Kind, Links, Plan, PodPlan, Protocol, ServicePlan, TrafficPolicy};
pub use pod::Pod;
pub use service::Service;
pub use weir::{ClusterWeir, Metadata, Settings};

use addresses::Addresses;
use anyhow::{Context, Result, ensure};
use janitor::Janitor;
use kubernetes::Kubernetes;
use links::{Forwarding, Host, Style, settings};
use place::Holder;
use plan::Backends;
use std::collections::BTreeMap;
use std::io::PipeReader;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A running cluster. Dropping it ends all of its processes and waits until nothing is left.
#[derive(Debug)]
pub struct Cluster {
    // In the order of their end: first whoever holds namespaces, last the janitor.
    kubernetes: Kubernetes,
    pods: Vec<Pod>,
    nodes: Vec<Node>,
    outside: Holder,
    control: Holder,
    wire: Holder,
    services: Vec<Service>,
    style: Style,
    dnat: Dnat,
    root: PathBuf,
    folder: PathBuf,
    life: PipeReader,
    _janitor: Janitor,
}

impl Cluster {
    /// Builds what `plan` says, as root.
    ///
    /// # Errors
    /// When the plan contradicts itself, or the kernel or a program (ip, nft or iptables, conntrack) refuses.
    pub fn build(plan: &Plan) -> Result<Self> {
        plan.check()?;
        let (root, folder) = own_folders()?;
        let (janitor, life) = Janitor::start(&root, &folder)?;
        for path in [&root, &folder] {
            std::fs::create_dir(path).with_context(|| format!("failed to make {}", path.display()))?;
        }
        let style = Style { links: plan.links, families: plan.families };
        let holder = |name: &str, forwards| -> Result<Holder> {
            let holder = Holder::start(&root.join(name), &life, None)?;
            settings(&holder.place, forwards)?;
            Ok(holder)
        };
        let wire_forwards = if plan.links == Links::Routed { Forwarding::On } else { Forwarding::Off };
        let (wire, outside) = (holder("wire", wire_forwards)?, holder("outside", Forwarding::Off)?);
        let control = holder("control", Forwarding::Off)?;
        let mut nodes = Vec::new();
        for (index, node) in plan.nodes.iter().enumerate() {
            nodes.push(Node::start(node, index as u8, &root, style, &life)?);
        }
        let (pods, services) = (Vec::new(), Vec::new());
        let dnat = plan.dnat;
        let kubernetes = Kubernetes::start(&control.place, &nodes, &pod::hex(16)?)?;
        let mut cluster = Self {
            kubernetes,
            pods,
            nodes,
            outside,
            control,
            wire,
            services,
            style,
            dnat,
            root,
            folder,
            life,
            _janitor: janitor,
        };
        cluster.join_hosts()?;
        cluster.admit_service(&Service::of_the_api_server())?;
        for service in &plan.services {
            cluster.admit_service(service)?;
        }
        for node in &mut cluster.nodes {
            let here: Vec<&PodPlan> = plan.pods.iter().filter(|pod| pod.node == node.plan.name).collect();
            cluster.pods.extend(node.add_pods(&here, style, &cluster.life)?);
        }
        ensure!(cluster.pods.len() == plan.pods.len(), "a pod is planned on a node that is not");
        let names: std::collections::BTreeSet<_> = plan.pods.iter().map(|pod| (&pod.namespace, &pod.name)).collect();
        ensure!(names.len() == plan.pods.len(), "two pods have the same name");
        cluster.translate()?;
        Ok(cluster)
    }

    fn join_hosts(&self) -> Result<()> {
        let host = |place, number| Host {
            place,
            number,
            addresses: addresses::host(self.style.families, number),
            node_index: None,
        };
        let mut hosts =
            vec![host(&self.outside.place, addresses::OUTSIDE), host(&self.control.place, addresses::CONTROL)];
        for node in &self.nodes {
            let index = Some(node.index);
            hosts.push(Host { node_index: index, ..host(node.place(), addresses::node_number(node.index)) });
        }
        self.style.wire(&hosts).run(&self.wire.place)?;
        for host in &hosts {
            self.style.host(host, &hosts).run(host.place)?;
        }
        self.style.wire_routes(&hosts).run(&self.wire.place)
    }

    /// Makes every node's rules say what the Services are now.
    fn translate(&mut self) -> Result<()> {
        for index in 0..self.nodes.len() {
            let views = service::views(&self.nodes[index], &self.services, &self.pods);
            let node = &mut self.nodes[index];
            let place = node.place().clone();
            node.installed.replace(&place, self.dnat, &views)?;
        }
        self.kubernetes.follow(&self.nodes, &self.pods, &self.services);
        Ok(())
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The pods.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// The Services.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The node of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.plan.name == name).with_context(|| format!("there is no node {name}"))
    }

    /// The pod of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn pod(&self, namespace: &str, name: &str) -> Result<&Pod> {
        let found = self.pods.iter().find(|pod| pod.plan.namespace == namespace && pod.plan.name == name);
        found.with_context(|| format!("there is no pod {namespace}/{name}"))
    }

    /// The Service of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn service(&self, namespace: &str, name: &str) -> Result<&Service> {
        let found = self.services.iter().find(|one| one.plan.namespace == namespace && one.plan.name == name);
        found.with_context(|| format!("there is no Service {namespace}/{name}"))
    }

    /// A machine beyond the cluster that reaches the nodes, and of its addresses only their NodePorts.
    pub fn outside(&self) -> &Place {
        &self.outside.place
    }

    /// The outside machine's addresses.
    pub fn outside_addresses(&self) -> Addresses {
        addresses::host(self.style.families, addresses::OUTSIDE)
    }

    /// Where weir's server and the API server run: on the nodes' network, on no node.
    pub fn control(&self) -> &Place {
        &self.control.place
    }

    /// What joins the hosts: a filter or a queue discipline here makes a lossy hop between nodes.
    pub fn wire(&self) -> &Place {
        &self.wire.place
    }

    /// The cgroup that all of it lies below.
    pub fn cgroup(&self) -> &Path {
        &self.root
    }

    /// A folder of this cluster's own, removed with it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds a pod, and makes it an endpoint where a Service selects it.
    ///
    /// # Errors
    /// When there is no such node, the name or the address is in use, or the kernel refuses.
    pub fn add_pod(&mut self, plan: &PodPlan) -> Result<&Pod> {
        ensure!(self.pod(&plan.namespace, &plan.name).is_err(), "there is a pod {} already", plan.name);
        let node = self.nodes.iter_mut().find(|node| node.plan.name == plan.node);
        let node = node.with_context(|| format!("there is no node {}", plan.node))?;
        self.pods.extend(node.add_pods(&[plan], self.style, &self.life)?);
        self.translate()?;
        self.pod(&plan.namespace, &plan.name)
    }

    /// Ends a pod at once: it is no endpoint any more, its processes are killed, its address is free.
    ///
    /// # Errors
    /// When there is no such pod, or something of it stays.
    pub fn delete_pod(&mut self, namespace: &str, name: &str) -> Result<()> {
        let found = self.pods.iter().position(|pod| pod.plan.namespace == namespace && pod.plan.name == name);
        let pod = self.pods.remove(found.with_context(|| format!("there is no pod {namespace}/{name}"))?);
        self.translate()?;
        let node = self.nodes.iter_mut().find(|node| node.plan.name == pod.plan.node);
        node.context("a pod's node stays as long as the cluster")?.delete_pod(&pod)
    }

    /// Adds a Service.
    ///
    /// # Errors
    /// When the name, the address or a node port is in use, or the kernel refuses.
    pub fn add_service(&mut self, plan: &ServicePlan) -> Result<&Service> {
        self.admit_service(plan)?;
        self.translate()?;
        self.service(&plan.namespace, &plan.name)
    }

    fn admit_service(&mut self, plan: &ServicePlan) -> Result<()> {
        ensure!(self.service(&plan.namespace, &plan.name).is_err(), "there is a Service {} already", plan.name);
        self.services.push(Service::new(plan, self.style.families, &self.services)?);
        Ok(())
    }

    /// Removes a Service.
    ///
    /// # Errors
    /// When there is none, or the kernel refuses.
    pub fn remove_service(&mut self, namespace: &str, name: &str) -> Result<()> {
        self.service(namespace, name)?;
        self.services.retain(|one| one.plan.namespace != namespace || one.plan.name != name);
        self.translate()
    }

    /// Says that a Service is served by exactly these pods of its namespace.
    ///
    /// # Errors
    /// When there is no such Service, or the kernel refuses.
    pub fn set_endpoints(&mut self, namespace: &str, name: &str, pods: &[&str]) -> Result<()> {
        let found = self.services.iter_mut().find(|one| one.plan.namespace == namespace && one.plan.name == name);
        let service = found.with_context(|| format!("there is no Service {namespace}/{name}"))?;
        service.plan.backends = Backends::Pods(pods.iter().map(ToString::to_string).collect());
        self.translate()
    }

    /// Where the API server's stand-in is reached from nodes and pods (plain HTTP).
    pub fn api_server(&self) -> std::net::SocketAddr {
        (addresses::host(self.style.families, addresses::CONTROL).v4, kubernetes::API_PORT).into()
    }

    /// The bearer token that the API server and the kubelets ask for.
    pub fn kubernetes_token(&self) -> &str {
        self.kubernetes.token()
    }

    /// Makes the API server forget every version but the current one: watches from an older one end with 410.
    pub fn compact_versions(&self) {
        self.kubernetes.compact();
    }

    /// How to get into each namespace, by its name.
    pub fn how_to_enter(&self) -> BTreeMap<String, String> {
        let own = [("outside", self.outside()), ("control", self.control()), ("wire", self.wire())];
        let own = own.map(|(name, place)| (name.to_owned(), place.how_to_enter()));
        let nodes = self.nodes.iter().map(|node| (node.plan.name.clone(), node.place().how_to_enter()));
        let pods = self
            .pods
            .iter()
            .map(|pod| (format!("{}/{}", pod.plan.namespace, pod.plan.name), pod.sandbox().how_to_enter()));
        own.into_iter().chain(nodes).chain(pods).collect()
    }
}

/// The cgroup and the folder of a new cluster; the name says whose they are. They are made once the janitor knows them.
fn own_folders() -> Result<(PathBuf, PathBuf)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("weir-testkit-{}-{number}", std::process::id());
    Ok((cgroups::mounted()?.join(&name), std::env::temp_dir().join(name)))
}
