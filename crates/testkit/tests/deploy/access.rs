//! The promise: RBAC grants what the code calls, and nothing else. The calls are `weir_discovery::permissions::CALLS`, from
//! which the clients take their paths.

use crate::rendered::{Variant, containers, list, text, variants};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use weir_discovery::permissions::{CALLS, Call, Caller, NODES_PODS, Need};

/// (group, resource, verb).
type Grant = (String, String, String);

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
    Ok(CALLS
        .iter()
        .filter(is_made)
        .flat_map(|call| call.verbs.iter().map(|verb| (call.group.into(), call.resource.into(), (*verb).into())))
        .collect())
}

fn is_off(pod: &Value, variable: &str) -> bool {
    containers(pod)
        .flat_map(|container| list(&container["env"]))
        .any(|entry| entry["name"] == variable && entry["value"] == "off")
}

fn granted(account: &str, variant: &Variant) -> Result<BTreeSet<Grant>> {
    let mut grants = BTreeSet::new();
    for binding in variant.of_kind("ClusterRoleBinding") {
        let is_meant = list(&binding["subjects"]).iter().any(|subject| {
            subject["kind"] == "ServiceAccount" && subject["name"] == account && subject["namespace"] == "weir"
        });
        if !is_meant {
            continue;
        }
        ensure!(binding["roleRef"]["kind"] == "ClusterRole");
        let role = variant.get("ClusterRole", text(&binding["roleRef"]["name"])?)?;
        for rule in list(&role["rules"]) {
            let narrow = rule.as_object().context("a rule")?.keys().all(|key| {
                // A rule with names, or about URLs, would need its own thought.
                matches!(key.as_str(), "apiGroups" | "resources" | "verbs")
            });
            ensure!(narrow, "{rule}");
            for group in list(&rule["apiGroups"]) {
                for resource in list(&rule["resources"]) {
                    for verb in list(&rule["verbs"]) {
                        let grant = (text(group)?.into(), text(resource)?.into(), text(verb)?.into());
                        ensure!(grants.insert(grant), "granted twice: {rule}");
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
        // No other way to a right, and none without a holder.
        for kind in ["Role", "RoleBinding"] {
            ensure!(variant.of_kind(kind).next().is_none(), "{}: a {kind} is not looked at here", variant.name);
        }
        let bound: BTreeSet<_> =
            variant.of_kind("ClusterRoleBinding").map(|binding| binding["roleRef"]["name"].to_string()).collect();
        let roles: BTreeSet<_> =
            variant.of_kind("ClusterRole").map(|role| role["metadata"]["name"].to_string()).collect();
        ensure!(bound == roles, "{}: {bound:?}, {roles:?}", variant.name);
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
    for runtime in ["containerd", "crio", "docker"] {
        ensure!(said(&format!("runtime-sockets-{runtime}"))?.contains("MEANS ROOT ON THE NODE"), "{runtime}");
    }
    Ok(())
}
