//! What a cluster shall consist of, before it is built: plain values with builders.

use anyhow::{Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

/// How the kubelet names cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// `kubepods.slice/kubepods-besteffort.slice/...-pod<uid>.slice/cri-containerd-<id>.scope`.
    #[default]
    Systemd,
    /// `kubepods/besteffort/pod<uid>/<id>`.
    Cgroupfs,
}

/// What makes the Services' rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Dnat {
    /// Chains as kube-proxy's iptables mode makes them.
    Iptables,
    /// Maps as kube-proxy's nftables mode makes them.
    #[default]
    Nftables,
}

/// Which addresses nodes, pods and Services have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Families {
    /// IPv4 only.
    #[default]
    V4,
    /// IPv4 and IPv6.
    Dual,
}

/// How namespaces are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Links {
    /// A bridge between the nodes, and one in each node for its pods (the bridge CNI plugin's way).
    #[default]
    Bridge,
    /// Veth pairs with a route for each end, between nodes and to pods (Calico's way).
    Routed,
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`, as rules spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// Its name.
    pub name: String,
    /// How its kubelet names cgroups.
    pub driver: Driver,
    /// Its zone (`topology.kubernetes.io/zone`).
    pub zone: String,
}

/// Where a pod's sockets live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// In a network namespace of its own.
    #[default]
    Own,
    /// In the node's.
    Host,
}

/// A pod's quality of service, which is part of its cgroup's path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quality {
    /// No requests.
    #[default]
    BestEffort,
    /// Requests below limits.
    Burstable,
    /// Requests equal to limits.
    Guaranteed,
}

/// What created a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `ReplicaSet`, `StatefulSet`, `DaemonSet` or `Job`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPlan {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node that it runs on.
    pub node: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its network.
    pub network: Network,
    /// Its owner.
    pub owner: Option<Owner>,
    /// Its quality of service.
    pub quality: Quality,
    /// The names of its containers, at least one.
    pub containers: Vec<String>,
    /// A wanted IPv4 address of the node's pod subnet; the IPv6 address gets the same last number.
    pub address: Option<Ipv4Addr>,
}

impl PodPlan {
    /// A pod on `node` with one container `main` and the label `app` = `name`.
    pub fn new(namespace: &str, name: &str, node: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            node: node.into(),
            labels: BTreeMap::from([("app".into(), name.into())]),
            network: Network::Own,
            owner: None,
            quality: Quality::BestEffort,
            containers: vec!["main".into()],
            address: None,
        }
    }

    /// Sets a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Puts it on the node's network.
    #[must_use]
    pub fn on_host_network(mut self) -> Self {
        self.network = Network::Host;
        self
    }

    /// Names its owner.
    #[must_use]
    pub fn owned_by(mut self, kind: &str, name: &str) -> Self {
        self.owner = Some(Owner { kind: kind.into(), name: name.into() });
        self
    }

    /// Sets its quality of service.
    #[must_use]
    pub fn quality(mut self, quality: Quality) -> Self {
        self.quality = quality;
        self
    }

    /// Names its containers.
    #[must_use]
    pub fn containers(mut self, names: &[&str]) -> Self {
        self.containers = names.iter().map(ToString::to_string).collect();
        self
    }

    /// Wants this address, for example one that a deleted pod had.
    #[must_use]
    pub fn at(mut self, address: Ipv4Addr) -> Self {
        self.address = Some(address);
        self
    }
}

/// Which endpoints a NodePort leads to, and whether the client's address is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// All endpoints; what comes from outside is masqueraded.
    #[default]
    Cluster,
    /// The node's own endpoints; the client's address is kept.
    Local,
}

/// A Service's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A virtual address within the cluster.
    ClusterIp,
    /// No address of its own: clients find the endpoints by name.
    Headless,
    /// A port of every node beside the virtual address.
    NodePort(TrafficPolicy),
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// Its name.
    pub name: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The Service's port.
    pub port: u16,
    /// The endpoints' port.
    pub target: u16,
    /// A wanted port of the nodes; chosen from 30000 on otherwise.
    pub node_port: Option<u16>,
}

/// Who serves a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backends {
    /// Every pod of the namespace with these labels.
    Selector(BTreeMap<String, String>),
    /// These pods of the namespace.
    Pods(BTreeSet<String>),
    /// The API server's stand-in in the control namespace.
    ApiServer,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePlan {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Its ports.
    pub ports: Vec<PortPlan>,
    /// Who serves it.
    pub backends: Backends,
    /// How long a client stays with its endpoint (`sessionAffinity: ClientIP`).
    pub affinity: Option<Duration>,
    /// A wanted IPv4 address of the Service subnet; the IPv6 address gets the same last two numbers.
    pub address: Option<Ipv4Addr>,
}

impl ServicePlan {
    /// A Service for the pods with the label `app` = `name`.
    pub fn new(namespace: &str, name: &str, kind: Kind) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            kind,
            ports: Vec::new(),
            backends: Backends::Selector(BTreeMap::from([("app".into(), name.into())])),
            affinity: None,
            address: None,
        }
    }

    /// Adds a port that leads to the endpoints' `target`; its name is `tcp-PORT` or `udp-PORT`.
    #[must_use]
    pub fn port(mut self, protocol: Protocol, port: u16, target: u16) -> Self {
        let name = format!("{}-{port}", protocol.as_str());
        self.ports.push(PortPlan { name, protocol, port, target, node_port: None });
        self
    }

    /// Wants this port of the nodes for the port added last.
    #[must_use]
    pub fn node_port(mut self, node_port: u16) -> Self {
        if let Some(port) = self.ports.last_mut() {
            port.node_port = Some(node_port);
        }
        self
    }

    /// Selects the pods with this one label.
    #[must_use]
    pub fn select(mut self, key: &str, value: &str) -> Self {
        self.backends = Backends::Selector(BTreeMap::from([(key.into(), value.into())]));
        self
    }

    /// Is served by exactly these pods of its namespace.
    #[must_use]
    pub fn pods(mut self, names: &[&str]) -> Self {
        self.backends = Backends::Pods(names.iter().map(ToString::to_string).collect());
        self
    }

    /// Keeps a client with its endpoint for this long.
    #[must_use]
    pub fn affinity(mut self, time: Duration) -> Self {
        self.affinity = Some(time);
        self
    }

    /// Wants this address.
    #[must_use]
    pub fn at(mut self, address: Ipv4Addr) -> Self {
        self.address = Some(address);
        self
    }
}

/// A whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Its nodes, at most [`Plan::NODES`].
    pub nodes: Vec<NodePlan>,
    /// Its pods.
    pub pods: Vec<PodPlan>,
    /// Its Services.
    pub services: Vec<ServicePlan>,
    /// What makes the Services' rules.
    pub dnat: Dnat,
    /// Which addresses there are.
    pub families: Families,
    /// How namespaces are joined.
    pub links: Links,
}

impl Plan {
    /// The most nodes: each has one number of 10.88.0.0/24 and one subnet of 10.244.0.0/16.
    pub const NODES: usize = 100;

    /// `count` nodes `node1`, `node2`, ... that take turns in their cgroup drivers and zones.
    pub fn of_nodes(count: usize) -> Self {
        let node = |number: usize| NodePlan {
            name: format!("node{number}"),
            driver: if number % 2 == 1 { Driver::Systemd } else { Driver::Cgroupfs },
            zone: format!("zone-{}", if number % 2 == 1 { "a" } else { "b" }),
        };
        Self { nodes: (1..=count).map(node).collect(), ..Self::default() }
    }

    /// Adds a pod.
    #[must_use]
    pub fn pod(mut self, pod: PodPlan) -> Self {
        self.pods.push(pod);
        self
    }

    /// Adds a Service.
    #[must_use]
    pub fn service(mut self, service: ServicePlan) -> Self {
        self.services.push(service);
        self
    }

    /// Chooses what makes the rules.
    #[must_use]
    pub fn dnat(mut self, dnat: Dnat) -> Self {
        self.dnat = dnat;
        self
    }

    /// Chooses the addresses.
    #[must_use]
    pub fn families(mut self, families: Families) -> Self {
        self.families = families;
        self
    }

    /// Chooses the links.
    #[must_use]
    pub fn links(mut self, links: Links) -> Self {
        self.links = links;
        self
    }

    /// Whether the nodes can be built at all; pods and Services are checked as each is added.
    ///
    /// # Errors
    /// Too few or too many nodes, or a name twice.
    pub(crate) fn check(&self) -> Result<()> {
        let names: BTreeSet<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        ensure!((1..=Self::NODES).contains(&self.nodes.len()), "a cluster has 1 to {} nodes", Self::NODES);
        ensure!(names.len() == self.nodes.len(), "two nodes have the same name");
        Ok(())
    }
}
