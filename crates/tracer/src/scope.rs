//! The scope: the cgroup v2 directory below which a tracer traces. Several tracers with scopes that do not overlap share
//! one kernel as if each had its own: nodes that are containers, the test cluster's nodes.
//!
//! The kernel decides by the directory's inode and depth (`is_task_in_scope` in settings.bpf.h); here both are found
//! out, and which processes live below.

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The directory.
    pub folder: PathBuf,
    /// Its inode, which is the cgroup's id.
    pub id: u64,
    /// Its depth below the hierarchy's root; the root's own is 0.
    pub level: u32,
}

/// Why there is no such scope.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    /// No such directory, or not one of cgroup v2.
    #[error(
        "failed to trace below {given}: it is no cgroup v2 directory, neither as it is nor below {root}; \
         name an existing one, as the line of /proc/PID/cgroup that begins with 0:: does"
    )]
    NoCgroup {
        /// As the user wrote it.
        given: String,
        /// Where cgroup v2 is mounted.
        root: String,
    },
    /// The hierarchy's root cannot be seen from here.
    #[error(
        "failed to trace below {folder}: the root of its hierarchy is not mounted here, so its depth is unknown; \
         in a container mount the host's cgroup v2 there"
    )]
    NoRoot {
        /// The directory.
        folder: String,
    },
}

/// The root of cgroup v2 has this inode on every kernel.
const ROOT_INODE: u64 = 1;

impl Scope {
    /// Finds the directory `given`: as it is, else below `root`, the mount point of cgroup v2.
    pub fn find(given: &Path, root: Option<&Path>) -> Result<Self, ScopeError> {
        let below = root.map(|root| root.join(given.strip_prefix("/").unwrap_or(given)));
        let folder = [Some(given.to_owned()).filter(|given| given.is_absolute()), below]
            .into_iter()
            .flatten()
            .find(|folder| is_cgroup2_folder(folder))
            .and_then(|folder| folder.canonicalize().ok())
            .ok_or_else(|| ScopeError::NoCgroup {
                given: given.display().to_string(),
                root: root.map_or_else(|| "any mount of cgroup v2".to_owned(), |root| root.display().to_string()),
            })?;
        let no_root = || ScopeError::NoRoot { folder: folder.display().to_string() };
        let id = inode(&folder).ok_or_else(no_root)?;
        for (level, ancestor) in folder.ancestors().take_while(|ancestor| is_cgroup2_folder(ancestor)).enumerate() {
            if inode(ancestor) == Some(ROOT_INODE) {
                return Ok(Self { id, level: level as u32, folder });
            }
        }
        Err(no_root())
    }

    /// The thread groups that live in the scope now, by pid.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        read_pids(&self.folder, &mut pids);
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

/// A cgroup that goes while it is read has no processes any more.
fn read_pids(folder: &Path, into: &mut Vec<u32>) {
    let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    // 0 is a process that this one's pid namespace does not show.
    into.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        read_pids(&entry.path(), into);
    }
}

fn is_cgroup2_folder(path: &Path) -> bool {
    path.is_dir() && statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_cgroup_is_refused_with_the_way_to_name_one() {
        let folder = tempfile::tempdir().unwrap();
        for given in [folder.path(), Path::new("/nonexistent/cgroup"), Path::new("relative")] {
            let error = Scope::find(given, Some(folder.path())).unwrap_err().to_string();
            assert!(error.contains("no cgroup v2 directory") && error.contains("/proc/PID/cgroup"), "{error}");
        }
    }
}
