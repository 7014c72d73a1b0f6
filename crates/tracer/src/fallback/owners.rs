//! Which process holds a socket: the links in `/proc/PID/fd`, by the socket's inode.
//!
//! Of several holders the one that was told before stays the owner, so that a child that inherits a socket does not
//! take it over; else it is the smallest pid. Processes whose descriptors may not be read are hidden: their sockets
//! have no owner.

use crate::processes::{name, start_ns};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;

/// A process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Its pid, 0 unknown.
    pub pid: u32,
    /// When it started, nanoseconds since boot.
    pub start_ns: u64,
    /// Its name, zero-terminated.
    pub name: [u8; 16],
}

/// What a look yielded.
#[derive(Debug, Default)]
pub struct Found {
    /// By the socket's inode.
    pub owners: BTreeMap<u32, Owner>,
    /// Sockets that more than one process holds.
    pub shared: HashSet<u32>,
    /// Whether some process' descriptors may not be read.
    pub hidden: bool,
}

/// Looks for the holders of the sockets in `wanted`, each with the pid that was told last (0: none).
pub fn find(proc: &Path, wanted: &BTreeMap<u32, u32>) -> io::Result<Found> {
    let mut found = Found::default();
    if wanted.is_empty() {
        return Ok(found);
    }
    let mut pids: Vec<u32> =
        std::fs::read_dir(proc)?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    for pid in pids {
        let folder = proc.join(pid.to_string());
        let descriptors = match std::fs::read_dir(folder.join("fd")) {
            Ok(descriptors) => descriptors,
            Err(error) => {
                found.hidden |= error.kind() == io::ErrorKind::PermissionDenied;
                continue;
            }
        };
        let mut owner = None;
        for descriptor in descriptors.flatten() {
            let link = std::fs::read_link(descriptor.path());
            // The folder may be read with one capability, its links take another.
            found.hidden |= link.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
            let Some(inode) = link.ok().and_then(|link| inode(&link)) else { continue };
            let Some(told) = wanted.get(&inode) else { continue };
            if let Some(other) = found.owners.get(&inode) {
                if other.pid != pid {
                    found.shared.insert(inode);
                }
                if *told != pid {
                    continue;
                }
            }
            if let Some(owner) = *owner.get_or_insert_with(|| read(&folder, pid)) {
                found.owners.insert(inode, owner);
            }
        }
    }
    Ok(found)
}

/// `socket:[12345]`.
fn inode(link: &Path) -> Option<u32> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn read(folder: &Path, pid: u32) -> Option<Owner> {
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    let mut owner = Owner { pid, start_ns: start_ns(&stat)?, name: [0; 16] };
    for (to, from) in owner.name.iter_mut().zip(name(&stat)?.bytes().take(15)) {
        *to = from;
    }
    Some(owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(proc: &Path, pid: u32, sockets: &[u32]) {
        let folder = proc.join(pid.to_string());
        std::fs::create_dir_all(folder.join("fd")).unwrap();
        let fields = "S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 500 0 0";
        std::fs::write(folder.join("stat"), format!("{pid} (p{pid}) {fields}")).unwrap();
        for (number, inode) in sockets.iter().enumerate() {
            std::os::unix::fs::symlink(format!("socket:[{inode}]"), folder.join(format!("fd/{number}"))).unwrap();
        }
    }

    #[test]
    fn the_owner_that_was_told_stays_as_long_as_it_holds_the_socket() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), 10, &[1, 2, 4]);
        process(proc.path(), 20, &[1, 2, 3]);
        let wanted = BTreeMap::from([(1, 0), (2, 20), (3, 10), (9, 0)]);
        let found = find(proc.path(), &wanted).unwrap();
        let pid = |inode| found.owners.get(&inode).map(|owner| owner.pid);
        assert_eq!((pid(1), pid(2), pid(3), pid(4), pid(9)), (Some(10), Some(20), Some(20), None, None));
        assert_eq!(found.owners[&1].start_ns, 5_000_000_000);
        assert_eq!(&found.owners[&1].name[..4], b"p10\0");
        assert_eq!(found.shared, HashSet::from([1, 2]));
        assert!(!found.hidden);
    }
}
