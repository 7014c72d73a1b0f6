//! The cluster's address plan. All of it lies in namespaces of its own, so clusters do not collide.
//!
//! | what | IPv4 | IPv6 |
//! |---|---|---|
//! | nodes | 10.88.0.0/24, the first is .11 | fd00:10:88::/64 |
//! | the outside client, weir's server | 10.88.0.200, 10.88.0.250 | fd00:10:88::c8, ::fa |
//! | pods | 10.244.0.0/16, a /24 for each node | fd00:10:244::/48, a /64 for each node |
//! | Services | 10.96.0.0/16 | fd00:10:96::/112 |

use super::plan::Families;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Every pod's subnet lies in it.
pub(crate) const PODS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];
/// Every Service's address lies in it.
pub(crate) const SERVICES: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];
/// The number of the nodes' default gateway, which forwards nothing.
pub(crate) const GATEWAY: u8 = 1;
/// The number of the outside client.
pub(crate) const OUTSIDE: u8 = 200;
/// The number of weir's server and the API server.
pub(crate) const CONTROL: u8 = 250;
/// A pod's next hop over a routed veth (Calico's link-local address).
pub(crate) const POD_HOP: [&str; 2] = ["169.254.1.1", "fe80::1"];
/// A host's. Another one: a node is its pods' hop itself, and nobody answers to a question from its own address.
pub(crate) const WIRE_HOP: [&str; 2] = ["169.254.2.1", "fe80::1"];

/// An IPv4 address and, in a dual-stack cluster, an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Addresses {
    /// The IPv4 address.
    pub v4: Ipv4Addr,
    /// The IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl Addresses {
    fn new(families: Families, v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        Self { v4, v6: (families == Families::Dual).then_some(v6) }
    }

    /// Both, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        std::iter::once(IpAddr::V4(self.v4)).chain(self.v6.map(IpAddr::V6))
    }
}

/// Of a node, the outside client or the server, on the nodes' network.
pub(crate) fn host(families: Families, number: u8) -> Addresses {
    let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x88, 0, 0, 0, 0, number.into());
    Addresses::new(families, Ipv4Addr::new(10, 88, 0, number), v6)
}

/// The number of the `index`-th node (from 0).
pub(crate) fn node_number(index: u8) -> u8 {
    index + 11
}

/// Of a pod on the `index`-th node; the number 1 is the node's end of a bridge.
pub(crate) fn pod(families: Families, index: u8, number: u8) -> Addresses {
    let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, u16::from(index) + 1, 0, 0, 0, number.into());
    Addresses::new(families, Ipv4Addr::new(10, 244, index + 1, number), v6)
}

/// The subnets of the `index`-th node's pods.
pub(crate) fn pod_subnets(index: u8) -> [String; 2] {
    [format!("10.244.{}.0/24", index + 1), format!("fd00:10:244:{:x}::/64", u16::from(index) + 1)]
}

/// Of a Service with the last two numbers of its IPv4 address.
pub(crate) fn service(families: Families, number: u16) -> Addresses {
    let [high, low] = number.to_be_bytes();
    let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, number);
    Addresses::new(families, Ipv4Addr::new(10, 96, high, low), v6)
}
