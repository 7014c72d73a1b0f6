//! Services as real translation rules, as kube-proxy makes them on every node: what one node's rules shall say, and how
//! they are put into its kernel. [`iptables`] and [`nftables`] write the text.

pub(crate) mod iptables;
pub(crate) mod nftables;

use super::place::Place;
use super::plan::{Dnat, Protocol, TrafficPolicy};
use anyhow::Result;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

/// The mark of what has to be masqueraded.
const MASQUERADE_MARK: &str = "0x4000";

/// One endpoint of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Backend {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// Whether it is on the node whose rules are written.
    pub(crate) is_local: bool,
}

impl Backend {
    /// `10.244.1.2:8080`, `[fd00:10:244:1::2]:8080`.
    fn socket(self) -> String {
        std::net::SocketAddr::new(self.address, self.port).to_string()
    }
}

/// One port of a Service in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// `namespace/name`.
    pub(crate) service: String,
    /// The port's name.
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) node_port: Option<(u16, TrafficPolicy)>,
    pub(crate) affinity: Option<Duration>,
    pub(crate) backends: Vec<Backend>,
}

impl ServicePort {
    /// 13 letters and digits that name it in chains, always the same.
    fn hash(&self) -> String {
        hash(&format!("{}/{}/{}", self.service, self.name, self.protocol.as_str()))
    }

    /// The endpoints that a NodePort without masquerading leads to.
    fn local(&self) -> Vec<Backend> {
        self.backends.iter().copied().filter(|backend| backend.is_local).collect()
    }
}

/// What one node's rules shall say, for one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// All pods.
    pub(crate) pods: &'static str,
    /// This node's pods.
    pub(crate) own_pods: String,
    /// All Services.
    pub(crate) services: &'static str,
    /// Where NodePorts are reached.
    pub(crate) node: IpAddr,
    pub(crate) ports: Vec<ServicePort>,
}

/// What is in a node's kernel now.
#[derive(Debug, Default)]
pub(crate) struct Installed {
    /// nftables chains, by family, that may have to go.
    chains: [BTreeSet<String>; 2],
    /// UDP (address, port, endpoint): a gone one's conntrack entries would go on leading to nobody.
    datagrams: BTreeSet<(IpAddr, u16, IpAddr)>,
}

impl Installed {
    /// Makes the node's rules say what the views (IPv4, IPv6) say; each family at once.
    pub(crate) fn replace(&mut self, place: &Place, dnat: Dnat, views: &[View]) -> Result<()> {
        for (view, known) in views.iter().zip(&mut self.chains) {
            match dnat {
                Dnat::Iptables => {
                    let program = if view.node.is_ipv4() { "iptables-restore" } else { "ip6tables-restore" };
                    place.script(program, &[], &iptables::rules(view))?;
                }
                Dnat::Nftables => {
                    let (text, chains) = nftables::rules(view, known);
                    place.script("nft", &["-f", "-"], &text)?;
                    *known = chains;
                }
            }
        }
        self.forget_datagrams(place, views)
    }

    /// A UDP exchange goes on as conntrack knows it; kube-proxy deletes the entries of endpoints that are gone.
    fn forget_datagrams(&mut self, place: &Place, views: &[View]) -> Result<()> {
        let ports = views.iter().flat_map(|view| &view.ports).filter(|port| port.protocol == Protocol::Udp);
        let now: BTreeSet<_> = ports
            .flat_map(|port| port.backends.iter().map(|backend| (port.address, port.port, backend.address)))
            .collect();
        for (service, port, endpoint) in self.datagrams.difference(&now) {
            let mut command = Command::new("conntrack");
            command.args(["-D", "-p", "udp", "--orig-dst", &service.to_string(), "--reply-src", &endpoint.to_string()]);
            command.args(["--orig-port-dst", &port.to_string()]);
            if service.is_ipv6() {
                command.args(["-f", "ipv6"]);
            }
            // It ends with 1 where there was no entry.
            place.run(command)?;
        }
        self.datagrams = now;
        Ok(())
    }
}

/// FNV-1a (64 bits) in base 32, upper case.
fn hash(text: &str) -> String {
    let mut value = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut letters = String::new();
    for _ in 0..13 {
        letters.push(char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[(value & 31) as usize]));
        value >>= 5;
    }
    letters
}

#[cfg(test)]
mod tests;
