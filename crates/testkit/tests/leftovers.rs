//! The promise: a cluster leaves nothing behind, whether it is dropped or its process is killed.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use weir_testkit::cluster::cgroups::mount;
use weir_testkit::cluster::{Cluster, Kind, Plan, PodPlan, Protocol, ServicePlan};
use weir_testkit::is_root_or_skip;
use weir_testkit::process::{Process, binary, until};

const PATIENCE: Duration = Duration::from_secs(30);

/// A demo with weir on three nodes, on a busy machine.
const COMING_UP: Duration = Duration::from_secs(120);

/// What a cluster is made of, seen from outside.
struct Traces {
    cgroup: PathBuf,
    folder: PathBuf,
    namespaces: BTreeSet<u64>,
}

impl Traces {
    /// Nothing is there any more. Links, routes, rules and conntrack entries are in the namespaces and go with them.
    fn are_gone(&self) -> Result<()> {
        ensure!(!self.cgroup.exists(), "{} is left", self.cgroup.display());
        ensure!(!self.folder.exists(), "{} is left", self.folder.display());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        for inode in &self.namespaces {
            let name = format!("net:[{inode}]");
            ensure!(!mounts.contains(&name), "{name} is mounted");
            for process in std::fs::read_dir("/proc")?.filter_map(std::result::Result::ok) {
                let path = process.path();
                let is_held = |link: &Path| std::fs::read_link(link).is_ok_and(|target| target == Path::new(&name));
                ensure!(!is_held(&path.join("ns/net")), "{} is in {name}", path.display());
                let files =
                    std::fs::read_dir(path.join("fd")).into_iter().flatten().filter_map(std::result::Result::ok);
                for file in files {
                    ensure!(!is_held(&file.path()), "{} is {name}", file.path().display());
                }
            }
        }
        Ok(())
    }
}

/// Every process below a cgroup.
fn processes(cgroup: &Path) -> Result<BTreeSet<i32>> {
    let mut found: BTreeSet<i32> = BTreeSet::new();
    for entry in std::fs::read_dir(cgroup)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(processes(&path)?);
        }
    }
    for line in std::fs::read_to_string(cgroup.join("cgroup.procs"))?.lines() {
        found.insert(line.parse()?);
    }
    Ok(found)
}

#[test]
fn a_demo_that_is_killed_with_everything_running_leaves_nothing() -> Result<()> {
    if !is_root_or_skip("a_demo_that_is_killed_with_everything_running_leaves_nothing") {
        return Ok(());
    }
    let mut command = Command::new(binary("weir-demo")?);
    command.args(["--listen", "127.0.0.1:0", "--dual-stack", "--dnat", "iptables"]);
    let mut demo = Process::spawn(command)?;
    while !demo.line(COMING_UP)?.starts_with("Ctrl-C") {}
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
    let name = format!("weir-testkit-{}-0", demo.pid());
    let cgroup = mount(&mountinfo).context("cgroup v2")?.join(&name);
    let pids = processes(&cgroup)?;
    let mut namespaces = BTreeSet::new();
    let mut names = BTreeSet::new();
    for pid in &pids {
        namespaces.insert(std::fs::metadata(format!("/proc/{pid}/ns/net"))?.ino());
        names.insert(std::fs::read_to_string(format!("/proc/{pid}/comm"))?.trim().to_owned());
    }
    for part in ["pause", "weir", "weir-agent", "weir-tracer", "weir-keeper", "frontend", "customer"] {
        ensure!(names.contains(part), "{part} is not below {}: {names:?}", cgroup.display());
    }
    ensure!(!namespaces.contains(&std::fs::metadata("/proc/self/ns/net")?.ino()), "nothing runs in our namespace");
    let traces = Traces { cgroup, folder: std::env::temp_dir().join(name), namespaces };
    demo.signal(Signal::SIGKILL)?;
    demo.wait(PATIENCE)?;
    until(PATIENCE, || {
        traces.are_gone()?;
        let alive: Vec<&i32> = pids.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect();
        ensure!(alive.is_empty(), "{alive:?} are left");
        Ok(true)
    })
}

#[test]
fn a_demo_that_is_killed_while_it_builds_leaves_nothing() -> Result<()> {
    if !is_root_or_skip("a_demo_that_is_killed_while_it_builds_leaves_nothing") {
        return Ok(());
    }
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
    let root = mount(&mountinfo).context("cgroup v2")?;
    // At once, with some nodes, with pods.
    for stage in ["", "node2", "node1/kubepods.slice"] {
        let mut command = Command::new(binary("weir-demo")?);
        command.args(["--listen", "127.0.0.1:0"]);
        let mut demo = Process::spawn(command)?;
        let name = format!("weir-testkit-{}-0", demo.pid());
        let (cgroup, folder) = (root.join(&name), std::env::temp_dir().join(&name));
        until(COMING_UP, || Ok(cgroup.join(stage).exists()))?;
        demo.signal(Signal::SIGKILL)?;
        demo.wait(PATIENCE)?;
        let traces = Traces { cgroup, folder, namespaces: BTreeSet::new() };
        until(PATIENCE, || traces.are_gone().map(|()| true)).with_context(|| format!("killed at {stage:?}"))?;
    }
    Ok(())
}

#[test]
fn a_dropped_cluster_is_gone_with_all_that_ran_in_it() -> Result<()> {
    if !is_root_or_skip("a_dropped_cluster_is_gone_with_all_that_ran_in_it") {
        return Ok(());
    }
    let plan = Plan::of_nodes(2)
        .pod(PodPlan::new("demo", "web", "node1"))
        .service(ServicePlan::new("demo", "web", Kind::ClusterIp).port(Protocol::Tcp, 80, 8080));
    let cluster = Cluster::build(&plan)?;
    // A process of its own session whose parent is gone, which only the cgroup still knows.
    let mut daemon = Command::new("setsid");
    daemon.args(["--fork", binary("weir-shop")?.to_str().context("a path in UTF-8")?, "--name", "orphan"]);
    daemon.args(["--tcp", "8080"]).stdout(std::process::Stdio::null());
    let pod = cluster.pod("demo", "web")?;
    ensure!(pod.container("main")?.place().prepare(daemon)?.status()?.success());
    let procs = pod.container("main")?.place().cgroup().join("cgroup.procs");
    until(PATIENCE, || Ok(!std::fs::read_to_string(&procs)?.is_empty()))?;

    let mut namespaces = BTreeSet::from([
        cluster.outside().net_ns()?,
        cluster.control().net_ns()?,
        cluster.wire().net_ns()?,
        pod.sandbox().net_ns()?,
    ]);
    for node in cluster.nodes() {
        namespaces.insert(node.place().net_ns()?);
    }
    ensure!(namespaces.len() == 6, "each has one of its own");
    let traces = Traces { cgroup: cluster.cgroup().into(), folder: cluster.folder().into(), namespaces };
    drop(cluster);
    until(PATIENCE, || traces.are_gone().map(|()| true))
}
