//! Where a socket's owner lives: the cgroup's path and the container id in it.
//!
//! The kernel gives a cgroup directory's inode, version 2's and, on hosts that still run containers under version 1 (where
//! the version 2 path is `/` for everybody), the one in the memory or pids hierarchy. Its path is told by the kernel when
//! the directory is made ([`Cgroups`]), and found by walking the hierarchies where it is older; it stays known when the
//! directory is gone. What even that does not name, `/proc/PID/cgroup` may, as long as the process lives. Everything is
//! bounded; what cannot be found is unknown.

use crate::probes::cgroups::{Cgroups, Made};
use crate::probes::layout::Origin;
use std::collections::HashMap;
use std::hash::Hash;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Below the cgroup root, `/` for the root itself.
    pub path: String,
    /// The 64 hexadecimal digits of a container in that path, the innermost one.
    pub container_id: Option<String>,
}

impl Place {
    /// Finds the container in a path.
    pub fn new(path: String) -> Self {
        let container_id = container_id(&path).map(str::to_owned);
        Self { path, container_id }
    }
}

/// The caches, and where they read.
#[derive(Debug)]
pub struct Places {
    hierarchies: Vec<Hierarchy>,
    made: Option<Cgroups>,
    proc: PathBuf,
    paths: TwoGenerations<u64, Arc<Place>>,
    walked_ns: Option<u64>,
    processes: TwoGenerations<(u32, u64), Option<Arc<Place>>>,
}

/// At most one walk of the hierarchy a second: new cgroups are rare, unknown ids of deleted ones are not.
const WALK_PAUSE_NS: u64 = 1_000_000_000;
/// A node has at most some thousands of cgroups; past this those that nobody asked for are forgotten. Those of the dead
/// stay until as many others were made.
const PATHS_MAX: usize = 65_536;
/// Processes remembered per generation.
const PROCESSES_MAX: usize = 8_192;
/// Longer paths are cut off from the journal's records; the kernel's limit is 4,096.
pub const PATH_LENGTH_MAX: usize = 1_024;

impl Places {
    /// Reads below the roots of `hierarchies` and `proc`, and what `made` tells.
    pub fn new(hierarchies: Vec<Hierarchy>, made: Option<Cgroups>, proc: PathBuf) -> Self {
        let mut places = Self {
            hierarchies,
            made,
            proc,
            paths: TwoGenerations::new(PATHS_MAX),
            walked_ns: None,
            processes: TwoGenerations::new(PROCESSES_MAX),
        };
        // What is there already may be gone when it is asked for.
        places.walk();
        places
    }

    /// Takes note of the cgroups that were made since the last call.
    pub fn learn(&mut self) {
        let Some(made) = &mut self.made else { return };
        for Made { id, mut path } in made.take() {
            path.truncate(path.floor_char_boundary(PATH_LENGTH_MAX));
            self.paths.insert(id, Arc::new(Place::new(path)));
        }
    }

    /// Where `origin` lives, as far as it can be told now.
    pub fn find(&mut self, origin: &Origin, now_ns: u64) -> Option<Arc<Place>> {
        let place = self.by_cgroup(origin.cgroup_id, now_ns);
        match place {
            Some(place) if place.path != "/" => Some(place),
            root => self.by_cgroup(origin.v1_cgroup, now_ns).or_else(|| self.by_process(origin)).or(root),
        }
    }

    fn by_cgroup(&mut self, id: u64, now_ns: u64) -> Option<Arc<Place>> {
        if id == 0 {
            return None;
        }
        if let Some(place) = self.paths.get(&id) {
            return Some(place);
        }
        self.learn();
        if let Some(place) = self.paths.get(&id) {
            return Some(place);
        }
        if self.walked_ns.is_some_and(|walked| now_ns.saturating_sub(walked) < WALK_PAUSE_NS) {
            return None;
        }
        self.walked_ns = Some(now_ns);
        self.walk();
        self.paths.get(&id)
    }

    fn walk(&mut self) {
        for hierarchy in &self.hierarchies {
            let mut found = HashMap::new();
            if let Ok(metadata) = std::fs::metadata(&hierarchy.root) {
                found.insert(metadata.ino(), Arc::new(Place::new("/".to_owned())));
            }
            walk(&hierarchy.root, &hierarchy.root, &mut found);
            for (inode, place) in found {
                let id = inode | u64::from(hierarchy.number) << 56;
                // A version 2 path is as the mount shows it, so it wins over what the kernel told.
                self.paths.insert(id, place);
            }
        }
    }

    fn by_process(&mut self, origin: &Origin) -> Option<Arc<Place>> {
        if origin.pid == 0 {
            return None;
        }
        let key = (origin.pid, origin.process_start);
        if let Some(place) = self.processes.get(&key) {
            return place;
        }
        let place = read_process(&self.proc, origin).map(|path| Arc::new(Place::new(path)));
        self.processes.insert(key, place.clone());
        place
    }
}

/// The path of a living process, if it still is the same process.
fn read_process(proc: &Path, origin: &Origin) -> Option<String> {
    let folder = proc.join(origin.pid.to_string());
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    // Both come from the same field, but /proc tells it in hundredths of a second.
    if crate::processes::start_ns(&stat)? / TICK_NS != origin.process_start / TICK_NS {
        return None;
    }
    cgroup_path(&std::fs::read_to_string(folder.join("cgroup")).ok()?)
}

/// `USER_HZ` is 100 on every architecture that weir runs on.
pub(crate) const TICK_NS: u64 = 10_000_000;

/// The most telling path of `/proc/PID/cgroup`: version 2's, else memory's, pids' or systemd's.
pub fn cgroup_path(text: &str) -> Option<String> {
    let mut best: Option<(u8, &str)> = None;
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let rank = match controllers {
            "" => 4,
            _ if controllers.split(',').any(|name| name == "memory") => 3,
            _ if controllers.split(',').any(|name| name == "pids") => 2,
            "name=systemd" => 1,
            _ => continue,
        };
        let rank = if path == "/" { 0 } else { rank };
        if best.is_none_or(|(other, _)| rank > other) {
            best = Some((rank, path));
        }
    }
    best.map(|(_, path)| path.to_owned())
}

fn walk(root: &Path, folder: &Path, into: &mut HashMap<u64, Arc<Place>>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if into.len() >= PATHS_MAX || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        if let Ok(below) = path.strip_prefix(root) {
            let mut text = format!("/{}", below.display());
            text.truncate(text.floor_char_boundary(PATH_LENGTH_MAX));
            into.insert(entry.ino(), Arc::new(Place::new(text)));
        }
        walk(root, &path, into);
    }
}

/// The last run of exactly 64 lower-case hexadecimal digits.
pub fn container_id(path: &str) -> Option<&str> {
    path.split(|letter: char| !matches!(letter, '0'..='9' | 'a'..='f')).rfind(|run| run.len() == 64)
}

/// A hierarchy of cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The kernel's number for it; 0 is version 2.
    pub number: u8,
    /// Where it is mounted.
    pub root: PathBuf,
}

/// The hierarchies that tell containers apart: version 2, and version 1's memory and pids. From `/proc/self/mountinfo`
/// and `/proc/cgroups`.
pub fn hierarchies(mountinfo: &str, cgroups: &str) -> Vec<Hierarchy> {
    let v2 = cgroup2_root(mountinfo).map(|root| Hierarchy { number: 0, root });
    let v1 = ["memory", "pids"].into_iter().filter_map(|controller| {
        let number = cgroups.lines().find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next() == Some(controller)).then(|| words.next()?.parse().ok()).flatten()
        })?;
        let root = mount_point(mountinfo, "cgroup", Some(controller))?;
        Some(Hierarchy { number, root })
    });
    let mut all: Vec<Hierarchy> = v2.into_iter().chain(v1).collect();
    all.dedup_by_key(|hierarchy| hierarchy.number);
    all
}

/// The mount point of cgroup v2, from `/proc/self/mountinfo`.
pub fn cgroup2_root(mountinfo: &str) -> Option<PathBuf> {
    mount_point(mountinfo, "cgroup2", None)
}

/// Where a file system of this type, with this among its own options, is mounted.
fn mount_point(mountinfo: &str, kind: &str, option: Option<&str>) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut words = after.split(' ');
        if words.next() != Some(kind) {
            return None;
        }
        let mut options = words.nth(1).unwrap_or_default().split(',');
        if option.is_some_and(|wanted| !options.any(|option| option == wanted)) {
            return None;
        }
        before.split(' ').nth(4).map(|path| PathBuf::from(path.replace("\\040", " ")))
    })
}

/// A bounded cache: when the young generation is full it becomes the old one, and the old one is forgotten.
#[derive(Debug)]
struct TwoGenerations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    limit: usize,
}

impl<K: Hash + Eq, V: Clone> TwoGenerations<K, V> {
    fn new(limit: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), limit }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.limit {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_found_anywhere_in_the_path_and_the_innermost_one_wins() {
        let (outer, inner) = ("a".repeat(64), "0b".repeat(32));
        let systemd = format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{inner}.scope");
        let nested = format!("/docker/{outer}/kubelet/kubepods/besteffort/pod2/{inner}/kube-proxy");
        assert_eq!(container_id(&systemd), Some(inner.as_str()));
        assert_eq!(container_id(&nested), Some(inner.as_str()));
        assert_eq!(container_id(&format!("/x/{outer}{inner}")), None);
        assert_eq!(container_id("/user.slice"), None);
    }

    #[test]
    fn version_2_wins_where_it_says_something() {
        assert_eq!(cgroup_path("0::/system.slice/a.service\n").as_deref(), Some("/system.slice/a.service"));
        assert_eq!(cgroup_path("4:memory:/m\n1:name=systemd:/s\n0::/\n").as_deref(), Some("/m"));
        assert_eq!(cgroup_path("8:pids:/p\n1:name=systemd:/s\n0::/\n").as_deref(), Some("/p"));
        assert_eq!(cgroup_path("3:cpuset:/x\n0::/\n").as_deref(), Some("/"));
        assert_eq!(cgroup_path("rubbish"), None);
    }

    #[test]
    fn the_version_2_mount_is_found_beside_version_1() {
        let text = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_root(text), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup2_root("1 2 0:1 / / rw - ext4 /dev/root rw\n"), None);
        let text = format!("{text}33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup none rw,memory\n");
        let cgroups = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\nmemory\t4\t9\t1\npids\t8\t1\t1\n";
        let hierarchy = |number, root: &str| Hierarchy { number, root: root.into() };
        assert_eq!(
            hierarchies(&text, cgroups),
            [hierarchy(0, "/sys/fs/cgroup/unified"), hierarchy(4, "/sys/fs/cgroup/memory")]
        );
    }

    #[test]
    fn a_cgroup_is_found_by_its_inode_and_a_new_one_after_a_walk() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        let id = |path: &str| std::fs::metadata(root.path().join(path)).unwrap().ino();
        let origin = |id| Origin { cgroup_id: id, ..Origin::default() };
        let hierarchy = Hierarchy { number: 0, root: root.path().into() };
        let mut places = Places::new(vec![hierarchy], None, root.path().into());
        assert_eq!(places.find(&origin(id("a/b")), 1).unwrap().path, "/a/b");
        std::fs::create_dir(root.path().join("c")).unwrap();
        let c = origin(id("c"));
        assert_eq!(places.find(&c, 2).unwrap().path, "/c");
        std::fs::create_dir(root.path().join("d")).unwrap();
        assert_eq!(places.find(&origin(id("d")), 3), None, "one walk a second");
        assert_eq!(places.find(&origin(id("d")), 2 + WALK_PAUSE_NS).unwrap().path, "/d");
        std::fs::remove_dir(root.path().join("c")).unwrap();
        assert_eq!(places.find(&c, 3 + 2 * WALK_PAUSE_NS).unwrap().path, "/c", "it is gone, but was known");
    }

    #[test]
    fn the_cache_of_processes_stays_bounded_and_keeps_what_is_used() {
        let mut cache = TwoGenerations::new(2);
        for key in 0..5 {
            cache.insert(key, key);
            assert_eq!(cache.get(&0), Some(0));
            assert!(cache.young.len() + cache.old.len() <= 4);
        }
        assert_eq!(cache.get(&1), None);
    }
}
