//! The promise: the server's pod passes Pod Security's level `restricted`; the node's pod departs from it in a few named
//! points and in no other, and the tracer has exactly the capabilities that it uses.
//!
//! The rules are those of the Pod Security Standards as their documentation lists them (Kubernetes 1.35).

use crate::rendered::{Variant, containers, list, text, variants};
use anyhow::{Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use weir_daemon::capabilities::{FOR_EBPF, SYS_PTRACE};

/// Volumes that `restricted` takes.
const VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];

/// In what a pod departs from `restricted`.
fn departures(pod: &Value) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod[field] == true {
            found.insert(field.to_owned());
        }
    }
    for volume in list(&pod["volumes"]) {
        for kind in volume.as_object().into_iter().flat_map(|volume| volume.keys()) {
            if kind != "name" && !VOLUMES.contains(&kind.as_str()) {
                found.insert(format!("volume {}: {kind}", text(&volume["name"])?));
            }
        }
    }
    let general = &pod["securityContext"];
    for field in ["sysctls", "seLinuxOptions", "windowsOptions"] {
        if !general[field].is_null() {
            found.insert(field.to_owned());
        }
    }
    for container in containers(pod) {
        let name = text(&container["name"])?;
        let own = &container["securityContext"];
        let mut depart = |what: &str| found.insert(format!("{name}: {what}"));
        // A container's own word goes before the pod's.
        let said = |field: &str| if own[field].is_null() { &general[field] } else { &own[field] };
        if own["privileged"] == true {
            depart("privileged");
        }
        if own["allowPrivilegeEscalation"] != false {
            depart("allowPrivilegeEscalation");
        }
        if said("runAsNonRoot") != true || said("runAsUser") == 0 {
            depart("root");
        }
        if !matches!(said("seccompProfile")["type"].as_str(), Some("RuntimeDefault" | "Localhost")) {
            depart("seccomp");
        }
        if !matches!(said("appArmorProfile")["type"].as_str(), None | Some("RuntimeDefault" | "Localhost")) {
            depart("AppArmor");
        }
        if !list(&own["capabilities"]["drop"]).contains(&Value::from("ALL")) {
            depart("keeps capabilities");
        }
        for added in list(&own["capabilities"]["add"]).iter().filter(|added| **added != "NET_BIND_SERVICE") {
            depart(&format!("capability {}", text(added)?));
        }
        if !own["procMount"].is_null() || !own["seLinuxOptions"].is_null() {
            depart("procMount or SELinux");
        }
        if list(&container["ports"]).iter().any(|port| !matches!(port["hostPort"].as_u64(), None | Some(0))) {
            depart("a port of the host");
        }
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            if container[probe]["httpGet"]["host"].is_string() {
                depart("a probe of the host");
            }
        }
        // Not Pod Security's, but ours: nothing writes into its image.
        if own["readOnlyRootFilesystem"] != true {
            depart("writes into its image");
        }
    }
    Ok(found)
}

#[test]
fn the_server_passes_restricted_in_every_overlay() -> Result<()> {
    for variant in variants()? {
        let found = departures(variant.pod("weir-server")?)?;
        ensure!(found.is_empty(), "{}: {found:?}", variant.name);
    }
    Ok(())
}

/// Why each is there stands beside it in `deploy/kubernetes/base/node.yaml`.
const NODE: [&str; 14] = [
    "hostPID",
    "hostNetwork",
    "volume spool: hostPath",
    "volume cgroup: hostPath",
    "tracer: root",
    "tracer: AppArmor",
    "tracer: capability BPF",
    "tracer: capability PERFMON",
    "tracer: capability NET_ADMIN",
    "tracer: capability SYS_PTRACE",
    "agent: a port of the host",
    "agent: a probe of the host",
    "spool: root",
    // Where a runtime's own profile refuses bpf(2).
    "tracer: seccomp",
];

#[test]
fn the_nodes_pod_departs_from_restricted_in_named_points_and_in_no_other() -> Result<()> {
    for variant in variants()? {
        let Variant { name, components, .. } = variant;
        let mut expected: BTreeSet<String> = NODE.iter().map(ToString::to_string).collect();
        if !components.contains("unconfined-seccomp") {
            expected.remove("tracer: seccomp");
        }
        for component in components {
            if let Some(runtime) = component.strip_prefix("runtime-sockets-") {
                expected.insert(format!("volume {runtime}: hostPath"));
            }
        }
        let found = departures(variant.pod("weir-node")?)?;
        ensure!(found == expected, "{name}: {:?}", found.symmetric_difference(&expected));
    }
    Ok(())
}

#[test]
fn the_tracer_has_exactly_the_capabilities_that_it_uses_and_the_agent_none() -> Result<()> {
    let used: BTreeSet<&str> =
        FOR_EBPF.iter().chain([&SYS_PTRACE]).filter_map(|capability| capability.name.strip_prefix("CAP_")).collect();
    for variant in variants()? {
        for container in containers(variant.pod("weir-node")?) {
            let capabilities = &container["securityContext"]["capabilities"];
            ensure!(capabilities["drop"] == serde_json::json!(["ALL"]), "{}: {container}", variant.name);
            let added: BTreeSet<&str> = list(&capabilities["add"]).iter().filter_map(Value::as_str).collect();
            let expected = if container["name"] == "tracer" { used.clone() } else { BTreeSet::new() };
            ensure!(added == expected, "{}: {} has {added:?}", variant.name, container["name"]);
        }
    }
    Ok(())
}

#[test]
fn nothing_that_is_a_secret_is_in_the_manifests_and_the_tracer_has_no_token() -> Result<()> {
    for variant in variants()? {
        ensure!(variant.of_kind("Secret").next().is_none(), "{}", variant.name);
        let node = variant.pod("weir-node")?;
        ensure!(node["automountServiceAccountToken"] == false);
        for container in containers(node).filter(|container| container["name"] != "agent") {
            let mounts = list(&container["volumeMounts"]);
            let reads = mounts.iter().any(|mount| mount["name"].as_str().is_some_and(|name| name.contains("token")));
            ensure!(!reads, "{}: {}", variant.name, container["name"]);
        }
    }
    Ok(())
}
