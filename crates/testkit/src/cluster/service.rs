//! Services: their addresses and ports, and which pods serve them now.

use super::addresses::{self, Addresses};
use super::dnat::{Backend, ServicePort, View};
use super::node::Node;
use super::plan::{Backends, Families, Kind, Protocol, ServicePlan};
use super::pod::Pod;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// A Service.
#[derive(Clone, Debug)]
pub struct Service {
    /// What it was made from; every port of a NodePort Service has its number.
    pub plan: ServicePlan,
    /// Its addresses; none when it is headless.
    pub addresses: Option<Addresses>,
    /// Its UID.
    pub uid: String,
    /// When it was made.
    pub created: std::time::SystemTime,
}

/// The numbers of NodePorts, as the API server gives them by default.
const NODE_PORTS: u16 = 30_000;
const NODE_PORTS_LAST: u16 = 32_767;

/// Numbers below are given only when they are wanted (10.96.0.1 is `kubernetes`, 10.96.0.10 commonly the DNS).
const FIRST_NUMBER: u16 = 20;

impl Service {
    /// Chooses what the plan leaves open.
    pub(crate) fn new(plan: &ServicePlan, families: Families, others: &[Self]) -> Result<Self> {
        ensure!(!plan.ports.is_empty(), "the Service {} has no port", plan.name);
        let taken: BTreeSet<u16> = others.iter().filter_map(|other| other.addresses).map(number).collect();
        let addresses = match (plan.kind, plan.address) {
            (Kind::Headless, _) => None,
            (_, Some(wanted)) => {
                let [a, b, high, low] = wanted.octets();
                let number = u16::from_be_bytes([high, low]);
                ensure!([a, b] == [10, 96] && number > 0, "{wanted} is no Service's address");
                ensure!(!taken.contains(&number), "{wanted} is in use");
                Some(addresses::service(families, number))
            }
            (_, None) => {
                let number =
                    (FIRST_NUMBER..=u16::MAX).find(|number| !taken.contains(number)).context("no free address")?;
                Some(addresses::service(families, number))
            }
        };
        let mut plan = plan.clone();
        let mut used: BTreeSet<u16> =
            others.iter().flat_map(|other| &other.plan.ports).filter_map(|port| port.node_port).collect();
        for port in &mut plan.ports {
            if !matches!(plan.kind, Kind::NodePort(_)) {
                ensure!(port.node_port.is_none(), "the Service {} is of no kind that has a node port", plan.name);
                continue;
            }
            let number =
                port.node_port.or_else(|| (NODE_PORTS..=NODE_PORTS_LAST).find(|number| !used.contains(number)));
            let number = number.context("no free node port")?;
            ensure!(used.insert(number), "the node port {number} is in use");
            port.node_port = Some(number);
        }
        Ok(Self { plan, addresses, uid: super::pod::uuid()?, created: super::pod::now() })
    }

    /// Where clients within the cluster reach its `port`, IPv4 first.
    ///
    /// # Errors
    /// When it is headless.
    pub fn at(&self, port: u16) -> Result<Vec<SocketAddr>> {
        let addresses = self.addresses.with_context(|| format!("the Service {} is headless", self.plan.name))?;
        Ok(addresses.iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    /// The nodes' port for its `port`.
    ///
    /// # Errors
    /// When it has none.
    pub fn node_port(&self, port: u16) -> Result<u16> {
        let found = self.plan.ports.iter().find(|candidate| candidate.port == port);
        found.and_then(|port| port.node_port).with_context(|| format!("{} has no node port for {port}", self.plan.name))
    }

    /// Whether the pod serves it.
    pub(crate) fn is_served_by(&self, pod: &Pod) -> bool {
        pod.plan.namespace == self.plan.namespace
            && match &self.plan.backends {
                Backends::Selector(labels) => labels.iter().all(|(key, value)| pod.plan.labels.get(key) == Some(value)),
                Backends::Pods(names) => names.contains(&pod.plan.name),
                Backends::ApiServer => false,
            }
    }

    /// The API server's address, where it serves this.
    pub(crate) fn control_backend(&self, family: usize) -> Option<IpAddr> {
        if self.plan.backends != Backends::ApiServer {
            return None;
        }
        let families = if self.addresses?.v6.is_some() { Families::Dual } else { Families::V4 };
        addresses::host(families, addresses::CONTROL).iter().nth(family)
    }

    /// `default/kubernetes`, by which pods reach the API server.
    pub(crate) fn of_the_api_server() -> ServicePlan {
        let plan = ServicePlan::new("default", "kubernetes", Kind::ClusterIp).at([10, 96, 0, 1].into());
        let plan = plan.port(Protocol::Tcp, 443, super::kubernetes::API_PORT);
        ServicePlan { backends: Backends::ApiServer, ..plan }
    }

    /// Its ports in one family as `node` translates them.
    fn ports(&self, family: usize, node: &Node, pods: &[Pod]) -> Vec<ServicePort> {
        let Some(address) = self.addresses.and_then(|addresses| addresses.iter().nth(family)) else {
            return Vec::new();
        };
        let serving = || pods.iter().filter(|pod| self.is_served_by(pod));
        let backends = |port: u16| {
            let of_pod = |pod: &Pod| {
                let address = pod.addresses.iter().nth(family)?;
                Some(Backend { address, port, is_local: pod.plan.node == node.plan.name })
            };
            let mut backends: Vec<Backend> = serving().filter_map(of_pod).collect();
            let control = self.control_backend(family);
            backends.extend(control.map(|address| Backend { address, port, is_local: false }));
            backends.sort_unstable();
            // Two pods on one node's network are one endpoint.
            backends.dedup();
            backends
        };
        let policy = match self.plan.kind {
            Kind::NodePort(policy) => Some(policy),
            Kind::ClusterIp | Kind::Headless => None,
        };
        let ports = self.plan.ports.iter().map(|port| ServicePort {
            service: format!("{}/{}", self.plan.namespace, self.plan.name),
            name: port.name.clone(),
            protocol: port.protocol,
            address,
            port: port.port,
            node_port: port.node_port.zip(policy),
            affinity: self.plan.affinity,
            backends: backends(port.target),
        });
        ports.collect()
    }
}

/// What a node's rules shall say, a view for each family.
pub(crate) fn views(node: &Node, services: &[Service], pods: &[Pod]) -> Vec<View> {
    let subnets = addresses::pod_subnets(node.index);
    let view = |(family, address): (usize, IpAddr)| View {
        pods: addresses::PODS[family],
        own_pods: subnets[family].clone(),
        services: addresses::SERVICES[family],
        node: address,
        ports: services.iter().flat_map(|service| service.ports(family, node, pods)).collect(),
    };
    node.addresses.iter().enumerate().map(view).collect()
}

fn number(addresses: Addresses) -> u16 {
    let [_, _, high, low] = addresses.v4.octets();
    u16::from_be_bytes([high, low])
}
