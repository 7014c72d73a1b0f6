//! What is said of a sandbox and of a container. Pure.
//!
//! A sandbox is said twice: as its pod, with the pod's addresses and network namespace, and as a container under its own
//! id, which some cgroup paths have in place of a container's. What ended at an unknown time is not said at all: that it
//! is no longer said ends it.

use super::known::{Container, Sandbox};
use super::runtime::{ContainerState, ContainerStatus};
use crate::said::Said;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use weir_model::UnixNanos;
use weir_model::fact::{attribute, kind};

/// Which pod a container is of, where its sandbox is not known; written by every kubelet.
const POD_UID: &str = "io.kubernetes.pod.uid";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The container's ports as the pod's specification has them, as JSON; written by every kubelet.
const PORTS: &str = "io.kubernetes.container.ports";

/// A pod and its sandbox's own container.
pub(super) fn sandbox<'a>(sandbox: &Sandbox, containers: impl Iterator<Item = &'a Container>) -> Vec<Said> {
    let mut last_end = sandbox.stopped_at.unwrap_or(0);
    let mut is_alive = sandbox.is_ready;
    for container in containers {
        // A sandbox that is not ready lost its process, or its address; containers may go on in it.
        is_alive |= container.state == ContainerState::ContainerRunning;
        last_end = last_end.max(container.finished_at);
    }
    let from = UnixNanos(sandbox.created_at);
    let to = (!is_alive).then(|| UnixNanos(last_end.max(sandbox.created_at)));
    if sandbox.pod.uid.is_empty() || !is_alive && last_end == 0 {
        return Vec::new();
    }
    let mut attributes = sandbox.collected.clone();
    if sandbox.is_host_network {
        attributes.insert(attribute::HOST_NETWORK.to_owned(), "true".to_owned());
    }
    if let Some(hash) = sandbox.labels.get("pod-template-hash") {
        attributes.insert(attribute::POD_TEMPLATE_HASH.to_owned(), hash.clone());
    }
    let pod = Said {
        kind: kind::POD,
        id: sandbox.pod.uid.clone(),
        name: sandbox.pod.name.clone(),
        namespace: sandbox.pod.namespace.clone(),
        // The node's network is nobody's alone.
        netns: if sandbox.is_host_network { 0 } else { sandbox.netns },
        addresses: if sandbox.is_host_network { Vec::new() } else { sandbox.addresses.clone() },
        from: Some(from),
        to,
        attributes,
        ..Said::default()
    };
    let state = if is_alive { "running" } else { "exited" };
    let mut attributes = BTreeMap::from([
        (attribute::CONTAINER_TYPE.to_owned(), attribute::SANDBOX.to_owned()),
        (attribute::STATE.to_owned(), state.to_owned()),
    ]);
    if let Some(pid) = sandbox.pid.filter(|_| sandbox.is_ready) {
        attributes.insert(attribute::PIDS.to_owned(), pid.to_string());
    }
    let own = Said {
        kind: kind::CONTAINER,
        id: sandbox.id.clone(),
        namespace: pod.namespace.clone(),
        parent: pod.id.clone(),
        from: Some(from),
        to,
        attributes,
        ..Said::default()
    };
    vec![pod, own]
}

/// A container. It holds no address and no network namespace alone: those are its pod's.
///
/// Its span begins with its creation, not with the start that the runtime reports: that is noted once the process runs,
/// at times after it has ended.
pub(super) fn container(container: &Container, sandbox: Option<&Sandbox>) -> Option<Said> {
    let state = match container.state {
        ContainerState::ContainerCreated => Some("created"),
        ContainerState::ContainerRunning => Some("running"),
        ContainerState::ContainerExited => Some("exited"),
        ContainerState::ContainerUnknown => None,
    };
    let is_over = container.state == ContainerState::ContainerExited;
    if is_over && container.finished_at == 0 {
        return None;
    }
    let label = |name: &str| container.labels.get(name).cloned().unwrap_or_default();
    let mut attributes = container.collected.clone();
    let mut attribute = |name: &str, value: String| {
        if !value.is_empty() {
            attributes.insert(name.to_owned(), value);
        }
    };
    attribute(attribute::IMAGE, container.image.clone());
    attribute(attribute::STATE, state.unwrap_or_default().to_owned());
    attribute(attribute::PORTS, container.annotations.get(PORTS).map(|json| ports(json)).unwrap_or_default());
    let is_running = container.state == ContainerState::ContainerRunning;
    let pid = container.pid.filter(|_| is_running).map(|pid| pid.to_string());
    attribute(attribute::PIDS, pid.unwrap_or_default());
    Some(Said {
        kind: kind::CONTAINER,
        id: container.id.clone(),
        name: container.name.clone(),
        namespace: sandbox.map_or_else(|| label(POD_NAMESPACE), |sandbox| sandbox.pod.namespace.clone()),
        parent: sandbox.map_or_else(|| label(POD_UID), |sandbox| sandbox.pod.uid.clone()),
        from: Some(UnixNanos(container.created_at)),
        to: is_over.then(|| UnixNanos(container.finished_at.max(container.created_at))),
        attributes,
        ..Said::default()
    })
}

/// The part of a pod's object in the Kubernetes API that its sandbox knows: what paths of the configuration select from.
pub(super) fn pod_object(sandbox: &Sandbox, annotations: &HashMap<String, String>) -> Value {
    let pod = &sandbox.pod;
    let mut labels = sandbox.labels.clone();
    labels.retain(|name, _| !name.starts_with("io.kubernetes."));
    json!({"metadata": {
        "name": pod.name, "namespace": pod.namespace, "uid": pod.uid, "labels": labels, "annotations": annotations,
    }})
}

/// A container's verbose status as JSON, `status` and `info`, as runtimes' own command lines print it.
pub(super) fn container_object(status: &ContainerStatus, info: &HashMap<String, String>) -> Value {
    let name = status.metadata.as_ref().map(|metadata| metadata.name.clone());
    let image = status.image.as_ref().map(|image| image.image.clone());
    let info: Value = info.get("info").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    json!({
        "status": {
            "id": status.id,
            "metadata": {"name": name},
            "state": status.state().as_str_name(),
            "image": {"image": image},
            "labels": status.labels,
            "annotations": status.annotations,
        },
        "info": info,
    })
}

#[derive(Deserialize)]
struct Port {
    #[serde(default)]
    name: String,
    #[serde(rename = "containerPort")]
    number: u16,
    #[serde(default)]
    protocol: String,
}

/// `[NAME:]PORT/PROTOCOL`, comma-separated; empty for what is no list of ports.
fn ports(json: &str) -> String {
    let ports: Vec<Port> = serde_json::from_str(json).unwrap_or_default();
    let text = ports.into_iter().map(|port| {
        let name = if port.name.is_empty() { String::new() } else { format!("{}:", port.name) };
        let protocol = if port.protocol.is_empty() { "tcp".to_owned() } else { port.protocol.to_lowercase() };
        format!("{name}{}/{protocol}", port.number)
    });
    text.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_with_name_and_protocol() {
        let json = r#"[{"name":"http","containerPort":8080,"protocol":"TCP"},{"containerPort":53,"protocol":"UDP","hostPort":1}]"#;
        assert_eq!(ports(json), "http:8080/tcp,53/udp");
        assert_eq!(ports("nonsense"), "");
    }
}
