//! What the kernel says about itself. Every reader takes the root that `/proc` and `/sys` lie under, so that tests give
//! it a tree of their own; what cannot be read is `None`.

use std::path::Path;
use weir_daemon::capabilities::Held;

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `6.1.0-18-amd64`.
    pub kernel: Option<String>,
    /// Its first two numbers.
    pub version: Option<(u32, u32)>,
    /// The size of `/sys/kernel/btf/vmlinux`.
    pub btf_bytes: Option<u64>,
    /// Effective capabilities of this process.
    pub capabilities: Option<u64>,
    /// Effective user id.
    pub uid: Option<u32>,
    /// Where cgroup version 2 is mounted.
    pub cgroup2: Option<String>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<u32>,
    /// `none`, `integrity` or `confidentiality`.
    pub lockdown: Option<String>,
    /// `net.core.bpf_jit_enable`.
    pub jit: Option<u32>,
    /// The soft limit on locked memory, bytes; `u64::MAX` for none.
    pub memlock_bytes: Option<u64>,
}

impl Facts {
    /// Reads them below `root` (`/`).
    pub fn read(root: &Path) -> Self {
        let text = |path: &str| std::fs::read_to_string(root.join(path)).ok();
        let number = |path: &str| text(path)?.trim().parse().ok();
        let kernel = text("proc/sys/kernel/osrelease").map(|text| text.trim().to_owned());
        let status = text("proc/self/status");
        Self {
            version: kernel.as_deref().and_then(version),
            kernel,
            btf_bytes: root.join("sys/kernel/btf/vmlinux").metadata().ok().map(|meta| meta.len()),
            capabilities: status.as_deref().and_then(|status| Held::parse(status, "CapEff")).map(|held| held.0),
            uid: status.as_deref().and_then(effective_uid),
            cgroup2: text("proc/self/mountinfo").as_deref().and_then(cgroup2),
            unprivileged_bpf_disabled: number("proc/sys/kernel/unprivileged_bpf_disabled"),
            lockdown: text("sys/kernel/security/lockdown").as_deref().and_then(chosen),
            jit: number("proc/sys/net/core/bpf_jit_enable"),
            memlock_bytes: text("proc/self/limits").as_deref().and_then(memlock),
        }
    }
}

/// `Uid: real effective saved filesystem`.
fn effective_uid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The mount point of the first file system of type `cgroup2` (`proc_pid_mountinfo(5)`: the type follows ` - `).
fn cgroup2(mountinfo: &str) -> Option<String> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4).map(str::to_owned))?
    })
}

/// The word in brackets: `none [integrity] confidentiality`.
fn chosen(text: &str) -> Option<String> {
    text.split_once('[')?.1.split_once(']').map(|(word, _)| word.to_owned())
}

/// The soft limit in `Max locked memory  8388608  8388608  bytes`.
fn memlock(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        bytes => bytes.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_from_the_tree_that_is_named() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n"),
            ("proc/self/status", "Name:\tweir\nUid:\t1000\t1000\t1000\t1000\nCapEff:\t000000c000001000\nCapAmb:\t0\n"),
            (
                "proc/self/mountinfo",
                "25 1 0:22 / /sys rw - sysfs sysfs rw\n35 25 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n",
            ),
            ("proc/self/limits", "Max locked memory         8388608              8388608              bytes     \n"),
            ("proc/sys/kernel/unprivileged_bpf_disabled", "2\n"),
            ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
            ("sys/kernel/btf/vmlinux", "btf"),
            ("proc/sys/net/core/bpf_jit_enable", "1\n"),
        ] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let facts = Facts::read(root.path());
        let expected = Facts {
            kernel: Some("6.1.0-18-amd64".into()),
            version: Some((6, 1)),
            btf_bytes: Some(3),
            capabilities: Some(0xc0_0000_1000),
            uid: Some(1000),
            cgroup2: Some("/sys/fs/cgroup".into()),
            unprivileged_bpf_disabled: Some(2),
            lockdown: Some("integrity".into()),
            jit: Some(1),
            memlock_bytes: Some(8_388_608),
        };
        assert_eq!(facts, expected);
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Facts::read(root.path()), Facts::default());
    }
}
