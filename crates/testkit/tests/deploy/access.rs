//! The promise: RBAC grants what the code calls, and nothing else. The calls are `weir_discovery::permissions::CALLS`, from
//! which the clients take their paths.

use crate::rendered::{Variant, containers, list, text, variants};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use weir_discovery::permissions::{CALLS, Call, Caller, NODES_PODS, Need};

/// (the namespace or `` for the whole cluster, group, resource, verb).
type Grant = (String, String, String, String);

/// Where weir is installed.
const NAMESPACE: &str = "weir";

fn wanted(caller: Caller, variant: &Variant) -> Result<BTreeSet<Grant>> {
    let has = |component: &str| variant.components.contains(component);
    let asks_kubelet = !is_off(variant.pod("weir-node")?, "WEIR_KUBELET");
    let is_made = |call: &&Call| {
        call.caller == caller
            && match call.need {
                Need::Base => asks_kubelet || **call != NODES_PODS,
                Need::ApiPods => has("api-pods"),
                Need::NodesProxy => has("kubelet-proxy"),
                Need::ConfigMapState => has("state-configmap"),
            }
    };
    let grants = |call: &Call| {
        let namespace = if call.need == Need::ConfigMapState { NAMESPACE } else { "" };
        let (group, resource) = (call.group, call.resource);
        let grant = move |verb: &&str| (namespace.into(), group.into(), resource.into(), (*verb).into());
        call.verbs.iter().map(grant).collect::<Vec<Grant>>()
    };
    Ok(CALLS.iter().filter(is_made).flat_map(grants).collect())
}

fn is_off(pod: &Value, variable: &str) -> bool {
    containers(pod)
        .flat_map(|container| list(&container["env"]))
        .any(|entry| entry["name"] == variable && entry["value"] == "off")
}

fn granted(account: &str, variant: &Variant) -> Result<BTreeSet<Grant>> {
    let mut grants = BTreeSet::new();
    for kind in ["ClusterRole", "Role"] {
        for binding in variant.of_kind(&format!("{kind}Binding")) {
            let is_meant = list(&binding["subjects"]).iter().any(|subject| {
                subject["kind"] == "ServiceAccount" && subject["name"] == account && subject["namespace"] == NAMESPACE
            });
            if !is_meant {
                continue;
            }
            ensure!(binding["roleRef"]["kind"] == kind);
            let role = variant.get(kind, text(&binding["roleRef"]["name"])?)?;
            // Of a ClusterRole both are null.
            ensure!(role["metadata"]["namespace"] == binding["metadata"]["namespace"], "{role}");
            let namespace = role["metadata"]["namespace"].as_str().unwrap_or_default();
            for rule in list(&role["rules"]) {
                let narrow = rule.as_object().context("a rule")?.keys().all(|key| {
                    // A rule with names, or about URLs, would need its own thought.
                    matches!(key.as_str(), "apiGroups" | "resources" | "verbs")
                });
                ensure!(narrow, "{rule}");
                for group in list(&rule["apiGroups"]) {
                    for resource in list(&rule["resources"]) {
                        for verb in list(&rule["verbs"]) {
                            let (group, resource, verb) = (text(group)?, text(resource)?, text(verb)?);
                            let grant = (namespace.into(), group.into(), resource.into(), verb.into());
                            ensure!(grants.insert(grant), "granted twice: {rule}");
                        }
                    }
                }
            }
        }
    }
    Ok(grants)
}

#[test]
fn rbac_grants_what_the_code_calls_and_nothing_else_in_every_overlay() -> Result<()> {
    for variant in variants()? {
        for (account, caller) in [("weir-agent", Caller::Agent), ("weir-server", Caller::Server)] {
            let (granted, wanted) = (granted(account, variant)?, wanted(caller, variant)?);
            let missing: Vec<_> = wanted.difference(&granted).collect();
            let needless: Vec<_> = granted.difference(&wanted).collect();
            ensure!(
                missing.is_empty() && needless.is_empty(),
                "{}: {account} lacks {missing:?}, and has {needless:?} that the code never uses",
                variant.name
            );
        }
        // No right without a holder, and no holder of nothing.
        for kind in ["ClusterRole", "Role"] {
            let names = |kind: &str, name: fn(&Value) -> &Value| -> BTreeSet<String> {
                variant.of_kind(kind).map(|object| name(object).to_string()).collect()
            };
            let bound = names(&format!("{kind}Binding"), |binding| &binding["roleRef"]["name"]);
            let roles = names(kind, |role| &role["metadata"]["name"]);
            ensure!(bound == roles, "{}: {bound:?}, {roles:?}", variant.name);
        }
    }
    Ok(())
}

#[test]
fn only_the_overlay_that_says_so_opens_nodes_proxy_and_it_says_what_that_means() -> Result<()> {
    for variant in variants()? {
        let opens = variant.of_kind("ClusterRole").any(|role| role["rules"].to_string().contains("nodes/proxy"));
        ensure!(opens == variant.components.contains("kubelet-proxy"), "{}", variant.name);
    }
    let folder = crate::rendered::root().join("deploy/kubernetes/components");
    let said = |name: &str| std::fs::read_to_string(folder.join(name).join("kustomization.yaml"));
    ensure!(said("kubelet-proxy")?.contains("running commands in\n# any pod"));
    ensure!(said("state-configmap")?.contains("read, write and delete every ConfigMap of the namespace weir"));
    for runtime in ["containerd", "crio", "docker"] {
        ensure!(said(&format!("runtime-sockets-{runtime}"))?.contains("MEANS ROOT ON THE NODE"), "{runtime}");
    }
    Ok(())
}
