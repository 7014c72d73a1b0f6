//! Processes as `/proc` shows them. An ordinary user sees every name and cgroup, but only its own processes' network
//! namespaces: what may not be read is unknown.

use std::path::{Path, PathBuf};
use weir_inventory::{ProcessFact, cgroup};
use weir_model::MonotonicNanos;
use weir_model::connection::ProcessId;

/// Nanoseconds of a tick in `/proc/PID/stat`: `USER_HZ` is 100.
const TICK: u64 = 10_000_000;

/// Why `/proc` cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[error("failed to list {root}: {source}")]
pub struct ProcError {
    /// The root.
    pub root: PathBuf,
    /// Why.
    pub source: std::io::Error,
}

/// Every process under `root` (`/proc`). Processes that end while they are read are left out.
///
/// # Errors
/// [`ProcError`] when `root` cannot be listed.
pub fn processes(root: &Path) -> Result<Vec<ProcessFact>, ProcError> {
    let entries = std::fs::read_dir(root).map_err(|source| ProcError { root: root.into(), source })?;
    Ok(entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| process(root, pid))
        .collect())
}

/// One process; `None` when it is gone.
pub fn process(root: &Path, pid: u32) -> Option<ProcessFact> {
    let folder = root.join(pid.to_string());
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    let (name, start) = parse_stat(&stat)?;
    let cgroups = std::fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
    let path = if cgroups.is_empty() { "" } else { cgroup::best_path(&cgroups) };
    Some(ProcessFact {
        id: ProcessId { pid, start: MonotonicNanos(start) },
        name: name.into(),
        cgroup_path: path.into(),
        container: cgroup::container(path),
        netns: netns(&folder),
    })
}

/// The inode of a process's network namespace, by its folder; 0 where it may not be read.
pub(crate) fn netns(folder: &Path) -> u32 {
    let link = std::fs::read_link(folder.join("ns/net")).ok();
    link.and_then(|link| inode(link.to_str()?)).unwrap_or(0)
}

/// The name and the start in nanoseconds since boot of a `/proc/PID/stat`. The name stands in parentheses and may
/// itself hold parentheses and spaces.
fn parse_stat(stat: &str) -> Option<(&str, u64)> {
    let (_, rest) = stat.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    // After the name come fields 3 and on; the start is field 22.
    let ticks: u64 = rest.split_ascii_whitespace().nth(19)?.parse().ok()?;
    Some((name, ticks.saturating_mul(TICK)))
}

/// The number in `net:[4026531840]`.
fn inode(link: &str) -> Option<u32> {
    link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("42");
        std::fs::create_dir_all(folder.join("ns")).unwrap();
        let rest = "S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1";
        std::fs::write(folder.join("stat"), format!("42 (a) (b c)) {rest}")).unwrap();
        let id = "a".repeat(64);
        std::fs::write(folder.join("cgroup"), format!("5:memory:/docker/{id}\n0::/\n")).unwrap();
        std::os::unix::fs::symlink("net:[4026532000]", folder.join("ns/net")).unwrap();
        std::fs::create_dir_all(root.path().join("43")).unwrap();
        std::fs::create_dir_all(root.path().join("self")).unwrap();
        root
    }

    #[test]
    fn a_process_is_read_with_its_start_container_and_namespace() {
        let root = tree();
        let facts = processes(root.path()).unwrap();
        assert_eq!(facts.len(), 1, "a process without a stat file is gone");
        let fact = &facts[0];
        assert_eq!((fact.id.pid, fact.id.start.0), (42, 123_450_000_000));
        assert_eq!((fact.name.as_ref(), fact.netns), ("a) (b c)", 4_026_532_000));
        assert_eq!(fact.container.as_ref().unwrap().as_str(), "a".repeat(64));
    }

    #[test]
    fn what_may_not_be_read_is_unknown() {
        let root = tree();
        std::fs::remove_file(root.path().join("42/ns/net")).unwrap();
        std::fs::remove_file(root.path().join("42/cgroup")).unwrap();
        let fact = process(root.path(), 42).unwrap();
        assert_eq!((fact.netns, fact.cgroup_path.as_ref(), fact.container), (0, "", None));
    }

    #[test]
    fn this_process_is_among_those_of_this_machine() {
        let own = std::process::id();
        assert!(processes(Path::new("/proc")).unwrap().iter().any(|fact| fact.id.pid == own && fact.id.start.0 > 0));
    }
}
