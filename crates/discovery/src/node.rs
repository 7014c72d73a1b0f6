//! What the node itself is: its name, addresses, kernel and boot.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

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
