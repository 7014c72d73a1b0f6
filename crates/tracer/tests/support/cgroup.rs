//! A cgroup v2 directory that goes with the test, also with one that is killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A directory of its own, below the root of cgroup v2.
pub struct Cgroup {
    folder: PathBuf,
    guard: Child,
}

/// Removes the directory, its children first, once the test's end of the pipe is closed: by its drop or by its death.
const GUARD: &str = r#"cat >/dev/null; for try in $(seq 200); do
    find "$1" -depth -type d -exec rmdir {} + 2>/dev/null; [ -d "$1" ] || exit 0; sleep 0.05; done"#;

impl Cgroup {
    /// Makes it. `name` is unique within this test's process.
    pub fn new(name: &str) -> Self {
        Self::below(&root(), name)
    }

    /// Makes it in the hierarchy that is mounted there.
    pub fn below(root: &Path, name: &str) -> Self {
        let folder = root.join(format!("weir-test-{}-{name}", std::process::id()));
        let guard = Command::new("bash")
            .args(["-c", GUARD, "guard"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder, guard }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its path below the root of cgroup v2.
    pub fn path(&self) -> String {
        format!("/{}", self.folder.strip_prefix(root()).unwrap().display())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn root() -> PathBuf {
    weir_tracer::places::cgroup2_root(&std::fs::read_to_string("/proc/self/mountinfo").unwrap()).unwrap()
}

/// Where version 1's memory hierarchy is mounted, on a machine that still has it.
pub fn v1_root() -> Option<PathBuf> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let cgroups = std::fs::read_to_string("/proc/cgroups").unwrap();
    let all = weir_tracer::places::hierarchies(&mountinfo, &cgroups);
    all.into_iter().find(|hierarchy| hierarchy.number != 0).map(|hierarchy| hierarchy.root)
}

/// Whether this machine has cgroup v2.
pub fn exists() -> bool {
    weir_tracer::places::cgroup2_root(&std::fs::read_to_string("/proc/self/mountinfo").unwrap()).is_some()
}
