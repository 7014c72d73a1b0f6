//! The promise: every object is one that the API server of Kubernetes 1.35 knows, to the last field.
//!
//! The types are k8s-openapi's, generated from Kubernetes' own description. They ignore a field that they do not know, and
//! fill in one that is missing; so an object is read and written again, and must come out as it went in.

use crate::rendered::{Variant, variants};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1 as apps, core::v1 as core, networking::v1 as net, rbac::v1 as rbac, scheduling::v1};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

fn again<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value> {
    let typed: T = serde_json::from_value(object.clone())?;
    Ok(serde_json::to_value(typed)?)
}

fn as_kubernetes_has_it(object: &Value) -> Result<Value> {
    let kind = (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default());
    match kind {
        ("v1", "Namespace") => again::<core::Namespace>(object),
        ("v1", "ServiceAccount") => again::<core::ServiceAccount>(object),
        ("v1", "Service") => again::<core::Service>(object),
        ("v1", "PersistentVolumeClaim") => again::<core::PersistentVolumeClaim>(object),
        ("apps/v1", "DaemonSet") => again::<apps::DaemonSet>(object),
        ("apps/v1", "Deployment") => again::<apps::Deployment>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => again::<rbac::ClusterRole>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => again::<rbac::ClusterRoleBinding>(object),
        ("rbac.authorization.k8s.io/v1", "Role") => again::<rbac::Role>(object),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => again::<rbac::RoleBinding>(object),
        ("networking.k8s.io/v1", "NetworkPolicy") => again::<net::NetworkPolicy>(object),
        ("scheduling.k8s.io/v1", "PriorityClass") => again::<v1::PriorityClass>(object),
        ("monitoring.coreos.com/v1", "PodMonitor" | "ServiceMonitor") => again::<Monitor>(object),
        other => anyhow::bail!("{other:?} is not a kind that this test knows: add it"),
    }
}

/// What of the Prometheus operator's kinds is used here (its API reference, `monitoring.coreos.com/v1`).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Monitor {
    api_version: String,
    kind: String,
    metadata: Value,
    spec: MonitorSpec,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct MonitorSpec {
    selector: k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
    /// Of a PodMonitor.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pod_metrics_endpoints: Vec<Scraped>,
    /// Of a ServiceMonitor.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    endpoints: Vec<Scraped>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scraped {
    port: String,
    path: String,
    interval: String,
    authorization: Authorization,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Authorization {
    #[serde(rename = "type")]
    kind: String,
    credentials: core::SecretKeySelector,
}

/// Where two values differ first.
fn difference(given: &Value, known: &Value, at: &str) -> Option<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            let unknown = given.keys().find(|key| !known.contains_key(*key));
            if let Some(key) = unknown {
                return Some(format!("{at}.{key} is not a field of Kubernetes"));
            }
            if let Some(key) = known.keys().find(|key| !given.contains_key(*key)) {
                return Some(format!("{at}.{key} is missing"));
            }
            given.iter().find_map(|(key, value)| difference(value, &known[key], &format!("{at}.{key}")))
        }
        (Value::Array(given), Value::Array(known)) if given.len() == known.len() => given
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(index, (given, known))| difference(given, known, &format!("{at}[{index}]"))),
        _ => (given != known).then(|| format!("{at}: {given} is read as {known}")),
    }
}

fn check(object: &Value) -> Result<()> {
    let known = as_kubernetes_has_it(object)?;
    if let Some(difference) = difference(object, &known, "") {
        anyhow::bail!("{difference}");
    }
    words(object, "")
}

/// Fields whose values are words of a list, which the types do not hold.
const WORDS: &[(&str, &[&str])] = &[
    (".spec.strategy.type", &["Recreate", "RollingUpdate"]),
    (".spec.updateStrategy.type", &["OnDelete", "RollingUpdate"]),
    (".spec.policyTypes[]", &["Ingress", "Egress"]),
    (".spec.accessModes[]", &["ReadWriteOnce", "ReadWriteOncePod"]),
    (".dnsPolicy", &["ClusterFirst", "ClusterFirstWithHostNet", "Default"]),
    (".imagePullPolicy", &["Always", "IfNotPresent", "Never"]),
    (".seccompProfile.type", &["RuntimeDefault", "Unconfined"]),
    (".appArmorProfile.type", &["RuntimeDefault", "Unconfined"]),
    (".hostPath.type", &["", "Directory", "DirectoryOrCreate", "Socket", "File"]),
    (".recursiveReadOnly", &["Disabled", "IfPossible", "Enabled"]),
    (".protocol", &["TCP", "UDP", "SCTP"]),
    (".fsGroupChangePolicy", &["OnRootMismatch", "Always"]),
    (".fieldPath", &["spec.nodeName", "status.hostIPs", "metadata.namespace"]),
    (".tolerations[].operator", &["Exists", "Equal"]),
    (".verbs[]", &["get", "list", "watch", "create", "update", "delete"]),
];

fn words(value: &Value, at: &str) -> Result<()> {
    match value {
        Value::Object(map) => map.iter().try_for_each(|(key, value)| words(value, &format!("{at}.{key}"))),
        Value::Array(list) => list.iter().try_for_each(|value| words(value, &format!("{at}[]"))),
        Value::String(word) => {
            for (_, known) in WORDS.iter().filter(|(end, _)| at.ends_with(end)) {
                ensure!(known.contains(&word.as_str()), "{at}: `{word}` is none of {known:?}");
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

#[test]
fn every_object_of_every_overlay_is_one_that_kubernetes_knows_to_the_last_field() -> Result<()> {
    for Variant { name, objects, .. } in variants()? {
        ensure!(objects.len() > 10, "{name} has {} objects", objects.len());
        for object in objects {
            check(object).with_context(|| format!("{name}: {} {}", object["kind"], object["metadata"]["name"]))?;
        }
    }
    Ok(())
}

#[test]
fn a_misspelt_field_a_missing_one_and_a_wrong_type_are_refused() -> Result<()> {
    let variants = variants()?;
    let good = variants[0].get("DaemonSet", "weir-node")?;
    check(good)?;
    let spoilt = |pointer: &str, key: &str, value: Option<Value>| -> Result<String> {
        let mut object = good.clone();
        let place = object.pointer_mut(pointer).and_then(Value::as_object_mut).context("a place")?;
        match value {
            Some(value) => place.insert(key.into(), value),
            None => place.remove(key),
        };
        Ok(check(&object).err().map(|error| error.to_string()).unwrap_or_default())
    };
    let container = "/spec/template/spec/containers/0";
    ensure!(spoilt(container, "comand", Some("x".into()))?.contains("comand is not a field"));
    ensure!(spoilt("/spec", "selector", None)?.contains("selector is missing"));
    ensure!(spoilt(container, "args", Some("x".into()))?.contains("invalid type"));
    ensure!(spoilt("/spec/updateStrategy", "type", Some("Roling".into()))?.contains("`Roling` is none of"));
    Ok(())
}
