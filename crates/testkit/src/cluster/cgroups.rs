//! Where cgroups lie and how the kubelet names them.

use super::plan::{Driver, Quality};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The mount point of cgroup v2, from the text of `/proc/self/mountinfo` (proc(5): field 5 is the mount point, the type
/// follows a lone hyphen).
pub fn mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        let point = fields.split(' ').nth(4)?;
        (kind.split(' ').next() == Some("cgroup2")).then(|| PathBuf::from(point))
    })
}

/// This machine's cgroup v2.
///
/// # Errors
/// When it has none.
pub(crate) fn mounted() -> Result<PathBuf> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").context("failed to read /proc/self/mountinfo")?;
    mount(&mountinfo).context("this machine has no cgroup v2 mounted")
}

/// The folder of a pod below its node's folder.
pub(crate) fn pod(node: &Path, driver: Driver, quality: Quality, uid: &str) -> PathBuf {
    let class = match quality {
        Quality::BestEffort => Some("besteffort"),
        Quality::Burstable => Some("burstable"),
        Quality::Guaranteed => None,
    };
    match (driver, class) {
        (Driver::Cgroupfs, Some(class)) => node.join("kubepods").join(class).join(format!("pod{uid}")),
        (Driver::Cgroupfs, None) => node.join("kubepods").join(format!("pod{uid}")),
        (Driver::Systemd, Some(class)) => node
            .join("kubepods.slice")
            .join(format!("kubepods-{class}.slice"))
            .join(format!("kubepods-{class}-pod{}.slice", uid.replace('-', "_"))),
        (Driver::Systemd, None) => {
            node.join("kubepods.slice").join(format!("kubepods-pod{}.slice", uid.replace('-', "_")))
        }
    }
}

/// The folder of a container below its pod's.
pub(crate) fn container(pod: &Path, driver: Driver, id: &str) -> PathBuf {
    match driver {
        Driver::Cgroupfs => pod.join(id),
        Driver::Systemd => pod.join(format!("cri-containerd-{id}.scope")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_v2_is_found_on_hybrid_and_on_pure_hosts() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw shared:1 - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(mount(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let pure = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(mount(pure), Some("/sys/fs/cgroup".into()));
        assert_eq!(mount("1 1 0:1 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
