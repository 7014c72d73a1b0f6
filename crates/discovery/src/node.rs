//! What the node itself is: its name, addresses, kernel and boot.

use crate::said::Said;
use crate::source::{Answer, Reading, Source, Trouble};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use weir_model::fact::{kind, source};

/// Why a fact of the node is missing.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A file of `/proc/sys/kernel` cannot be read.
    #[error("failed to read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The boot id is not a UUID.
    #[error("{path} holds no boot id: {text:?}")]
    BootId {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
}

/// The node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// The host name.
    pub name: String,
    /// The kernel's release (`uname -r`).
    pub kernel: String,
    /// The boot id.
    pub boot_id: [u8; 16],
    /// The addresses of every interface that is up, loopback and link-local ones left out.
    pub addresses: Vec<IpAddr>,
}

impl NodeFacts {
    /// Reads them from `root` (`/proc`) and from the interfaces of this process's network namespace.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn read(root: &Path) -> Result<Self, NodeError> {
        Ok(Self {
            name: kernel_file(root, "hostname")?,
            kernel: kernel_file(root, "osrelease")?,
            boot_id: boot_id(root)?,
            addresses: addresses(),
        })
    }
}

/// The node as a source of metadata: told again when its addresses change.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where `/proc` is.
    pub root: PathBuf,
    /// Its name in every answer.
    pub name: String,
    /// Its addresses as the settings give them; empty where they do not.
    pub addresses: Vec<IpAddr>,
    /// Whether this process is in a pod, whose network is mostly not the node's.
    pub is_in_pod: bool,
}

impl Node {
    /// What the node says of itself. The addresses of this process's interfaces are the node's where it is on the
    /// node's network: not in a pod, or in one that has an address which the settings call the node's.
    pub fn say(&self, facts: &NodeFacts) -> (Said, String) {
        let shares = facts.addresses.iter().any(|address| self.addresses.contains(address));
        let is_own = shares || self.addresses.is_empty() && !self.is_in_pod;
        let mut addresses = self.addresses.clone();
        if is_own {
            addresses.extend(&facts.addresses);
        }
        let missing = if addresses.is_empty() {
            "the node's addresses are not known: give WEIR_NODE_IP the field status.hostIPs in the agent's manifest"
        } else {
            ""
        };
        let netns = if is_own { crate::proc::netns(&self.root.join("self")) } else { 0 };
        let boot = format!("{:032x}", u128::from_be_bytes(facts.boot_id));
        let said = Said {
            kind: kind::NODE,
            id: self.name.clone(),
            name: self.name.clone(),
            netns,
            addresses,
            attributes: [
                ("host_name".to_owned(), facts.name.clone()),
                ("kernel".to_owned(), facts.kernel.clone()),
                ("boot_id".to_owned(), boot),
            ]
            .into(),
            ..Said::default()
        };
        (said, missing.to_owned())
    }
}

impl Source for Node {
    fn name(&self) -> &'static str {
        source::PROC
    }

    fn kinds(&self) -> &'static [&'static str] {
        &[kind::NODE]
    }

    fn read(&mut self) -> Answer<'_, Result<Reading, Trouble>> {
        // Three small files and a call: nothing that waits.
        let reading = NodeFacts::read(&self.root).map(|facts| {
            let (said, missing) = self.say(&facts);
            Reading::Whole { things: vec![said], missing }
        });
        Box::pin(std::future::ready(reading.map_err(|error| Trouble::Failed(error.to_string()))))
    }
}

/// The boot id under `root` (`/proc`).
///
/// # Errors
/// [`NodeError`].
pub fn boot_id(root: &Path) -> Result<[u8; 16], NodeError> {
    let text = kernel_file(root, "random/boot_id")?;
    parse_boot_id(&text).ok_or(NodeError::BootId { path: root.join("sys/kernel/random/boot_id"), text })
}

/// The 16 bytes of a UUID, with or without dashes.
pub fn parse_boot_id(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|letter| *letter != '-').collect();
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    let mut bytes = [0; 16];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

fn kernel_file(root: &Path, name: &str) -> Result<String, NodeError> {
    let path = root.join("sys/kernel").join(name);
    let text = std::fs::read_to_string(&path).map_err(|source| NodeError::Read { path, source })?;
    Ok(text.trim().to_owned())
}

/// The interfaces' addresses, sorted. Empty when the kernel does not tell.
fn addresses() -> Vec<IpAddr> {
    use nix::net::if_::InterfaceFlags;
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let found: BTreeSet<IpAddr> = interfaces
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .filter(|address| !address.is_loopback() && !is_link_local(*address))
        .collect();
    found.into_iter().collect()
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_interfaces_are_not_taken_for_the_nodes() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let facts = NodeFacts {
            name: "host".into(),
            kernel: "6".into(),
            boot_id: [1; 16],
            addresses: vec![address("10.88.0.1"), address("10.88.0.2")],
        };
        let said = |own: &[&str], is_in_pod| {
            let addresses = own.iter().map(|text| address(text)).collect();
            Node { root: "/nowhere".into(), name: "n".into(), addresses, is_in_pod }.say(&facts)
        };
        let addresses = |own: &[&str], is_in_pod| {
            let told: std::collections::BTreeSet<String> =
                said(own, is_in_pod).0.addresses.iter().map(ToString::to_string).collect();
            told.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(addresses(&[], false), ["10.88.0.1", "10.88.0.2"]);
        assert_eq!(addresses(&["10.0.0.9"], true), ["10.0.0.9"], "the agent's pod has a network of its own");
        assert_eq!(addresses(&["10.88.0.1"], true), ["10.88.0.1", "10.88.0.2"], "it is on the node's network");
        assert!(addresses(&[], true).is_empty());
        assert!(said(&[], true).1.contains("WEIR_NODE_IP"));
    }

    #[test]
    fn the_nodes_facts_are_read_from_its_tree() {
        let root = tempfile::tempdir().unwrap();
        let kernel = root.path().join("sys/kernel");
        std::fs::create_dir_all(kernel.join("random")).unwrap();
        std::fs::write(kernel.join("hostname"), "node1\n").unwrap();
        std::fs::write(kernel.join("osrelease"), "6.18.0\n").unwrap();
        std::fs::write(kernel.join("random/boot_id"), "00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        let facts = NodeFacts::read(root.path()).unwrap();
        assert_eq!((facts.name.as_str(), facts.kernel.as_str()), ("node1", "6.18.0"));
        assert_eq!(facts.boot_id[..3], [0, 0x11, 0x22]);
        std::fs::write(kernel.join("random/boot_id"), "nonsense").unwrap();
        assert!(matches!(NodeFacts::read(root.path()), Err(NodeError::BootId { .. })));
    }
}
