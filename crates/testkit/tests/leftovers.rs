//! The promise: a cluster leaves nothing behind, whether it is dropped or its process is killed.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use weir_testkit::cluster::{Cluster, Kind, Plan, PodPlan, Protocol, ServicePlan};
use weir_testkit::is_root_or_skip;
use weir_testkit::process::{binary, until};

const PATIENCE: Duration = Duration::from_secs(30);

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
