//! `/proc/PID/cgroup` of every recorded container, and of made-up nodes with other versions and drivers: the container, the
//! pod and the network namespace that are read from it.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use serde::Deserialize;
use std::path::Path;
use weir_discovery::proc;
use weir_inventory::cgroup;

#[derive(Deserialize)]
struct Recorded {
    runtime: String,
    name: String,
    id: String,
    /// The UID, empty for Docker.
    pod: String,
    netns: u32,
    cgroup: String,
}

/// `/proc` with one process.
fn tree(root: &Path, pid: u32, cgroup: &str, netns: u32) {
    let folder = root.join(pid.to_string());
    std::fs::create_dir_all(folder.join("ns")).unwrap();
    let rest = "S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1";
    std::fs::write(folder.join("stat"), format!("{pid} (x) {rest}")).unwrap();
    std::fs::write(folder.join("cgroup"), cgroup).unwrap();
    std::os::unix::fs::symlink(format!("net:[{netns}]"), folder.join("ns/net")).unwrap();
}

fn read(cgroup: &str, netns: u32) -> (Option<String>, Option<String>, u32) {
    let root = tempfile::tempdir().unwrap();
    tree(root.path(), 42, cgroup, netns);
    let fact = proc::process(root.path(), 42).unwrap();
    let pod = cgroup::pod(&fact.cgroup_path).map(|pod| pod.to_string());
    (fact.container.map(|id| id.to_string()), pod, fact.netns)
}

#[test]
fn every_recorded_container_is_found_with_its_pod_and_namespace() {
    let recorded: Vec<Recorded> = serde_json::from_str(include_str!("data/pods/cgroups.json")).unwrap();
    assert!(recorded.len() > 20);
    for told in &recorded {
        let pod = Some(told.pod.clone()).filter(|pod| !pod.is_empty());
        let expected = (Some(told.id.clone()), pod, told.netns);
        assert_eq!(read(&told.cgroup, told.netns), expected, "{} {}", told.runtime, told.name);
    }
    // Two containers of one pod are told apart although they share its namespace.
    let web: Vec<&Recorded> = recorded.iter().filter(|told| told.name.starts_with("client/")).collect();
    assert!(web.len() == 4 && web[0].netns == web[1].netns && web[0].id != web[1].id);
}

#[test]
fn versions_and_drivers_of_other_nodes_are_read_the_same() {
    const ID: &str = "eae2780ca50271940c642eb532ec85cc6898c7a9a9512f7a41a0dcdcd2708860";
    const UID: &str = "94d6947c-3d7f-461d-9e06-17ecd60d40a4";
    const UNDERSCORED: &str = "94d6947c_3d7f_461d_9e06_17ecd60d40a4";
    let slice = format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDERSCORED}.slice");
    for cgroup in [
        // Version 2 alone, both drivers; guaranteed pods have no class.
        format!("0::/kubepods/burstable/pod{UID}/{ID}\n"),
        format!("0::/kubepods/pod{UID}/{ID}\n"),
        format!("0::{slice}/cri-containerd-{ID}.scope\n"),
        format!("0::{slice}/crio-{ID}.scope/container\n"),
        // Version 1 alone, where every controller has its own line.
        format!("2:cpu,cpuacct:{slice}/docker-{ID}.scope\n1:name=systemd:{slice}/docker-{ID}.scope\n"),
        // Both at once, version 2 with nothing but systemd's own tree.
        format!("5:memory:/kubepods/burstable/pod{UID}/{ID}\n1:name=systemd:/kubepods/burstable/pod{UID}/{ID}\n0::/\n"),
        format!("5:memory:{slice}/cri-containerd-{ID}.scope\n0::/system.slice/containerd.service\n"),
        // The kubelet in a container of its own (kind), and a service within the container.
        format!("0::/docker/{}/kubelet{slice}/cri-containerd-{ID}.scope\n", "a".repeat(64)),
        format!("0::{slice}/cri-containerd-{ID}.scope/init.scope\n"),
        // Seen from a cgroup namespace beside it.
        format!("0::/../../kubepods-burstable-pod{UNDERSCORED}.slice/cri-containerd-{ID}.scope\n"),
    ] {
        assert_eq!(read(&cgroup, 7), (Some(ID.into()), Some(UID.into()), 7), "{cgroup}");
    }
    for cgroup in ["0::/\n", "0::/system.slice/ssh.service\n", "", "rubbish", "0::/user.slice/user-0.slice\n"] {
        assert_eq!(read(cgroup, 7), (None, None, 7), "{cgroup}");
    }
}
