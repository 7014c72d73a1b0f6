//! The promise: what an object names is there: accounts, roles, volumes, claims, labels, ports, priorities. The secrets that
//! a user makes are those that `docs/operations.md` says how to make.

use crate::rendered::{Variant, containers, list, root, text, variants};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;

/// What a pod template's labels are, by its owner.
fn labels(variant: &Variant) -> Vec<&Value> {
    variant
        .objects
        .iter()
        .map(|object| &object["spec"]["template"]["metadata"]["labels"])
        .filter(|it| it.is_object())
        .collect()
}

fn selects_something(selector: &Value, variant: &Variant) -> bool {
    let Some(wanted) = selector.as_object() else { return false };
    !wanted.is_empty() && labels(variant).iter().any(|labels| wanted.iter().all(|(key, value)| labels[key] == *value))
}

fn secrets(pod: &Value) -> impl Iterator<Item = &str> {
    list(&pod["volumes"]).iter().filter_map(|volume| volume["secret"]["secretName"].as_str())
}

#[test]
fn what_an_object_names_is_there() -> Result<()> {
    for variant in variants()? {
        let about = |object: &Value| format!("{}: {} {}", variant.name, object["kind"], object["metadata"]["name"]);
        let mut seen = BTreeSet::new();
        for object in &variant.objects {
            ensure!(
                seen.insert(format!("{}/{}", object["kind"], object["metadata"]["name"])),
                "{} twice",
                about(object)
            );
            let is_of_the_cluster = matches!(
                object["kind"].as_str(),
                Some("Namespace" | "ClusterRole" | "ClusterRoleBinding" | "PriorityClass")
            );
            ensure!(is_of_the_cluster || object["metadata"]["namespace"] == "weir", "{}", about(object));
            ensure!(object["metadata"]["labels"]["app.kubernetes.io/part-of"] == "weir", "{}", about(object));
            let spec = &object["spec"];
            match object["kind"].as_str() {
                Some("DaemonSet" | "Deployment" | "ServiceMonitor" | "PodMonitor") => {
                    ensure!(selects_something(&spec["selector"]["matchLabels"], variant), "{}", about(object));
                }
                Some("Service") => ensure!(selects_something(&spec["selector"], variant), "{}", about(object)),
                Some("NetworkPolicy") if object["metadata"]["name"] != "nobody" => {
                    ensure!(selects_something(&spec["podSelector"]["matchLabels"], variant), "{}", about(object));
                }
                Some("ClusterRoleBinding" | "RoleBinding") => {
                    variant.get(text(&object["roleRef"]["kind"])?, text(&object["roleRef"]["name"])?)?;
                    for subject in list(&object["subjects"]) {
                        variant.get("ServiceAccount", text(&subject["name"])?)?;
                    }
                }
                _ => {}
            }
        }
        let ports: BTreeSet<&str> = variant
            .pods()
            .flat_map(|(_, pod)| containers(pod))
            .flat_map(|container| list(&container["ports"]))
            .filter_map(|port| port["name"].as_str())
            .collect();
        let services = variant.of_kind("Service").flat_map(|service| list(&service["spec"]["ports"]));
        let scraped = variant.of_kind("PodMonitor").flat_map(|monitor| list(&monitor["spec"]["podMetricsEndpoints"]));
        for port in services.map(|port| &port["targetPort"]).chain(scraped.map(|endpoint| &endpoint["port"])) {
            ensure!(ports.contains(text(port)?), "{}: no container has the port {port}", variant.name);
        }
    }
    Ok(())
}

#[test]
fn every_pod_has_the_account_the_volumes_and_the_limits_that_it_needs() -> Result<()> {
    for variant in variants()? {
        for (owner, pod) in variant.pods() {
            let about = || format!("{}: {owner}", variant.name);
            variant.get("ServiceAccount", text(&pod["serviceAccountName"])?)?;
            variant.get("PriorityClass", text(&pod["priorityClassName"])?)?;
            let volumes: BTreeSet<&str> = list(&pod["volumes"]).iter().filter_map(|it| it["name"].as_str()).collect();
            let mut used = BTreeSet::new();
            for container in containers(pod) {
                let mut places = BTreeSet::new();
                for mount in list(&container["volumeMounts"]) {
                    used.insert(text(&mount["name"])?);
                    ensure!(places.insert(text(&mount["mountPath"])?), "{}: {mount} twice", about());
                }
                let resources = &container["resources"];
                for figure in
                    [&resources["requests"]["cpu"], &resources["requests"]["memory"], &resources["limits"]["memory"]]
                {
                    ensure!(figure.is_string(), "{}: {resources}", about());
                }
                ensure!(container["image"].as_str().is_some_and(|image| image.starts_with("weir:")), "{}", about());
            }
            ensure!(used == volumes, "{}: volumes {volumes:?}, mounted {used:?}", about());
            for volume in list(&pod["volumes"]) {
                if let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() {
                    variant.get("PersistentVolumeClaim", claim)?;
                }
            }
        }
        // Two servers on one volume would fight.
        let server = variant.get("Deployment", "weir-server")?;
        ensure!(server["spec"]["strategy"]["type"] == "Recreate" && server["spec"]["replicas"] == 1);
        // Longer than the agent's last poll and delivery (`weir_agent::pipeline`, 3 s), shorter than the kubelet's patience.
        let node = variant.pod("weir-node")?;
        let tracer = containers(node).find(|container| container["name"] == "tracer").context("a tracer")?;
        let pause = tracer["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().context("a pause")?;
        let patience = node["terminationGracePeriodSeconds"].as_u64().context("a grace period")?;
        ensure!(pause > 3 && pause + 5 < patience, "{}: {pause} of {patience}", variant.name);
        // Every node.
        ensure!(node["tolerations"] == serde_json::json!([{"operator": "Exists"}]), "{}", variant.name);
    }
    Ok(())
}

#[test]
fn the_documentation_says_how_to_make_each_secret_and_names_each_overlay() -> Result<()> {
    let page = std::fs::read_to_string(root().join("docs/operations.md")).context("docs/operations.md")?;
    for variant in variants()? {
        for (_, pod) in variant.pods() {
            for secret in secrets(pod) {
                ensure!(page.contains(&format!("create secret generic {secret} ")), "{}: {secret}", variant.name);
            }
        }
        for component in &variant.components {
            ensure!(page.contains(&format!("`{component}`")), "docs/operations.md does not name {component}");
        }
    }
    Ok(())
}
