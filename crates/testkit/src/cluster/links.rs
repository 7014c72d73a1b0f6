//! Links, addresses and routes, as batches for `ip` (ip(8) `-batch`): one process for each namespace, not one for each
//! command.
//!
//! ```text
//! Bridge:  pod eth0 ─ veth ─ cni0 (node) eth0 ─ veth ─ bridge (wire)    10.244.n.1 is the pods' gateway
//! Routed:  pod eth0 ─ veth ─ (node)      eth0 ─ veth ─ (wire)           169.254.1.1 is the pods' next hop, 169.254.2.1 the nodes'
//! ```

use super::addresses::{Addresses, POD_HOP, WIRE_HOP, pod_subnets};
use super::place::Place;
use super::plan::{Families, Links};
use anyhow::Result;
use std::fmt::Write as _;
use std::net::IpAddr;

/// The name of the bridge for pods in a node, and of the one between nodes.
const POD_BRIDGE: &str = "cni0";
const WIRE_BRIDGE: &str = "wire0";

/// A batch for `ip`.
#[derive(Debug, Default)]
pub(crate) struct Batch(String);

impl Batch {
    fn add(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.0, "{line}");
    }

    fn address(&mut self, address: IpAddr, length: u8, link: &str) {
        // Duplicate address detection would hold the address back for a second.
        let detect = if address.is_ipv6() { " nodad" } else { "" };
        self.add(format_args!("address add {address}/{length} dev {link}{detect}"));
    }

    /// Runs it in `place`.
    pub(crate) fn run(&self, place: &Place) -> Result<()> {
        if !self.0.is_empty() {
            place.script("ip", &["-batch", "-"], &self.0)?;
        }
        Ok(())
    }
}

/// A host on the wire: a node, the outside client or the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a> {
    pub(crate) place: &'a Place,
    pub(crate) addresses: Addresses,
    /// The number that its end on the wire is named by.
    pub(crate) number: u8,
    /// The index of its pods' subnet.
    pub(crate) node_index: Option<u8>,
}

/// How addresses are used here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) links: Links,
    pub(crate) families: Families,
}

impl Style {
    fn family_count(self) -> usize {
        match self.families {
            Families::V4 => 1,
            Families::Dual => 2,
        }
    }

    /// In the wire's namespace: the links to all hosts.
    pub(crate) fn wire(self, hosts: &[Host<'_>]) -> Batch {
        let mut batch = Batch::default();
        batch.add(format_args!("link set lo up"));
        if self.links == Links::Bridge {
            batch.add(format_args!("link add {WIRE_BRIDGE} type bridge"));
            batch.add(format_args!("link set {WIRE_BRIDGE} up"));
            for address in super::addresses::host(self.families, super::addresses::GATEWAY).iter() {
                batch.address(address, self.length(address), WIRE_BRIDGE);
            }
        }
        for host in hosts {
            let end = format!("w{}", host.number);
            batch.add(format_args!("link add {end} type veth peer name eth0 netns {}", host.place.holder()));
            match self.links {
                Links::Bridge => batch.add(format_args!("link set {end} master {WIRE_BRIDGE} up")),
                Links::Routed => {
                    batch.add(format_args!("link set {end} up"));
                    self.hops(&mut batch, &end, WIRE_HOP);
                }
            }
        }
        batch
    }

    /// In the wire's namespace, once the hosts' ends are up: the routes to them and their pods.
    pub(crate) fn wire_routes(self, hosts: &[Host<'_>]) -> Batch {
        let mut batch = Batch::default();
        if self.links == Links::Bridge {
            return batch;
        }
        for host in hosts {
            let end = format!("w{}", host.number);
            for (family, address) in host.addresses.iter().enumerate() {
                batch.add(format_args!("route add {address} dev {end}"));
                if let Some(index) = host.node_index {
                    let subnet = &pod_subnets(index)[family];
                    batch.add(format_args!("route add {subnet} via {address} dev {end}"));
                }
            }
        }
        batch
    }

    /// In a host's namespace: its own addresses and the ways to the others.
    pub(crate) fn host(self, host: &Host<'_>, all: &[Host<'_>]) -> Batch {
        let mut batch = Batch::default();
        batch.add(format_args!("link set lo up"));
        batch.add(format_args!("link set eth0 up"));
        for address in host.addresses.iter() {
            batch.address(address, self.length(address), "eth0");
        }
        match self.links {
            Links::Bridge => {
                for other in all.iter().filter(|other| other.number != host.number) {
                    let Some(index) = other.node_index.filter(|_| host.node_index.is_some()) else { continue };
                    for (family, address) in other.addresses.iter().enumerate() {
                        batch.add(format_args!("route add {} via {address}", pod_subnets(index)[family]));
                    }
                }
                // Nobody forwards there; a Service's address must have a route before its packet is translated.
                for gateway in super::addresses::host(self.families, super::addresses::GATEWAY).iter() {
                    batch.add(format_args!("route add default via {gateway} dev eth0"));
                }
            }
            Links::Routed => self.default_route(&mut batch, WIRE_HOP),
        }
        if let (Some(index), Links::Bridge) = (host.node_index, self.links) {
            batch.add(format_args!("link add {POD_BRIDGE} type bridge"));
            batch.add(format_args!("link set {POD_BRIDGE} up"));
            for address in super::addresses::pod(self.families, index, 1).iter() {
                batch.address(address, if address.is_ipv4() { 24 } else { 64 }, POD_BRIDGE);
            }
        }
        batch
    }

    /// In a node's namespace: the ends of these pods' links, named `veth` and the last number of the address.
    pub(crate) fn pod_ends(self, node: Addresses, pods: &[(&Place, Addresses)]) -> Batch {
        let mut batch = Batch::default();
        for (place, addresses) in pods {
            let end = pod_end(*addresses);
            batch.add(format_args!("link add {end} type veth peer name eth0 netns {}", place.holder()));
            match self.links {
                Links::Bridge => {
                    batch.add(format_args!("link set {end} master {POD_BRIDGE} up"));
                    // A pod that reaches itself by a Service's address goes out and in by one port of the bridge.
                    batch.add(format_args!("link set {end} type bridge_slave hairpin on"));
                }
                Links::Routed => {
                    batch.add(format_args!("link set {end} up"));
                    self.hops(&mut batch, &end, POD_HOP);
                    // Without `src` the node itself would speak to its pods as 169.254.1.1.
                    for (address, own) in addresses.iter().zip(node.iter()) {
                        batch.add(format_args!("route add {address} dev {end} src {own}"));
                    }
                }
            }
        }
        batch
    }

    /// In a pod's namespace.
    pub(crate) fn pod(self, addresses: Addresses, index: u8) -> Batch {
        let mut batch = Batch::default();
        batch.add(format_args!("link set lo up"));
        batch.add(format_args!("link set eth0 up"));
        for address in addresses.iter() {
            batch.address(address, self.length(address), "eth0");
        }
        match self.links {
            Links::Bridge => {
                for gateway in super::addresses::pod(self.families, index, 1).iter() {
                    batch.add(format_args!("route add default via {gateway} dev eth0"));
                }
            }
            Links::Routed => self.default_route(&mut batch, POD_HOP),
        }
        batch
    }

    fn length(self, address: IpAddr) -> u8 {
        match (self.links, address) {
            (Links::Bridge, IpAddr::V4(_)) => 24,
            (Links::Bridge, IpAddr::V6(_)) => 64,
            (Links::Routed, IpAddr::V4(_)) => 32,
            (Links::Routed, IpAddr::V6(_)) => 128,
        }
    }

    fn hops(self, batch: &mut Batch, link: &str, hops: [&str; 2]) {
        for hop in &hops[..self.family_count()] {
            let (length, flags) = if hop.contains(':') { (64, " nodad") } else { (32, " scope link") };
            batch.add(format_args!("address add {hop}/{length} dev {link}{flags}"));
        }
    }

    fn default_route(self, batch: &mut Batch, hops: [&str; 2]) {
        for hop in &hops[..self.family_count()] {
            if !hop.contains(':') {
                batch.add(format_args!("route add {hop} dev eth0 scope link"));
            }
            batch.add(format_args!("route add default via {hop} dev eth0"));
        }
    }
}

/// Whether a namespace forwards packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarding {
    /// It does.
    On,
    /// It does not.
    Off,
}

/// The name of a pod's link in its node.
pub(crate) fn pod_end(addresses: Addresses) -> String {
    format!("veth{}", addresses.v4.octets()[3])
}

/// Before anything else in a namespace. IPv6 is usable at once, packets are forwarded where asked for.
pub(crate) fn settings(place: &Place, forwards: Forwarding) -> Result<()> {
    let mut settings = vec![("ipv6/conf/all/accept_dad", "0"), ("ipv6/conf/default/accept_dad", "0")];
    if forwards == Forwarding::On {
        settings.extend([("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")]);
    }
    place.enter(|| {
        for (name, value) in settings {
            let path = format!("/proc/sys/net/{name}");
            std::fs::write(&path, value).map_err(|error| anyhow::anyhow!("failed to set {path}: {error}"))?;
        }
        Ok(())
    })
}
