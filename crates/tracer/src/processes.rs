//! The processes of this machine for `GET /processes`: an ordinary user may not read the network namespaces of others.

use crate::places::{TICK_NS, cgroup_path, container_id};
use crate::scope::Scope;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use weir_wire::feed::Process;

/// Every thread group below `proc`, or those in the scope. One that ends while it is read is left out.
pub fn read(proc: &Path, scope: Option<&Scope>) -> std::io::Result<Vec<Process>> {
    if let Some(scope) = scope {
        return Ok(scope.pids().into_iter().filter_map(|pid| read_one(&proc.join(pid.to_string()), pid)).collect());
    }
    let mut processes: Vec<Process> = std::fs::read_dir(proc)?
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            read_one(&entry.path(), pid)
        })
        .collect();
    processes.sort_unstable_by_key(|process| process.pid);
    Ok(processes)
}

fn read_one(folder: &Path, pid: u32) -> Option<Process> {
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    let cgroup_path = std::fs::read_to_string(folder.join("cgroup")).ok().and_then(|text| cgroup_path(&text));
    let cgroup_path = cgroup_path.unwrap_or_default();
    Some(Process {
        pid,
        start_ns: start_ns(&stat)?,
        net_ns: std::fs::metadata(folder.join("ns/net")).map_or(0, |metadata| metadata.ino() as u32),
        name: name(&stat)?.to_owned(),
        container_id: container_id(&cgroup_path).map(str::to_owned),
        cgroup_path,
    })
}

/// Field 22 of `/proc/PID/stat`, in nanoseconds since boot, exact to a hundredth of a second.
pub fn start_ns(stat: &str) -> Option<u64> {
    // The name may hold blanks and parentheses; the fields after its last parenthesis begin with the third.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(22 - 3)?.parse().ok()?;
    Some(ticks * TICK_NS)
}

/// The name in `/proc/PID/stat`.
pub(crate) fn name(stat: &str) -> Option<&str> {
    Some(stat.rsplit_once(')')?.0.split_once('(')?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_start() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 9 9";
        assert_eq!(start_ns(stat), Some(123_450_000_000));
        assert_eq!(name(stat), Some("a) b (c)"));
        assert_eq!(start_ns("42 (x) S 1"), None);
    }

    #[test]
    fn this_process_is_among_them() {
        let all = read(Path::new("/proc"), None).unwrap();
        let own = all.iter().find(|process| process.pid == std::process::id()).unwrap();
        assert!(own.start_ns > 0 && own.net_ns > 0 && !own.name.is_empty());
    }
}
