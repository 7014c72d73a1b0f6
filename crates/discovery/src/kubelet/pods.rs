//! A `v1 PodList` as the kubelet's `/pods` and the API server give it, made into pods and containers. Pure.
//!
//! Fields: `staging/src/k8s.io/api/core/v1/types.go` of Kubernetes. What is not there is unknown; times have whole
//! seconds.

use crate::collect::Collect;
use crate::said::Said;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use weir_model::UnixNanos;
use weir_model::fact::{attribute, kind};

/// The condition that the pod's sandbox and network are there (`PodReadyToStartContainers`, Kubernetes 1.29).
const NETWORK_READY: &str = "PodReadyToStartContainers";

type Text<'a> = Option<Cow<'a, str>>;

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    kind: Text<'a>,
    #[serde(borrow)]
    items: Option<Vec<Pod<'a>>>,
}

#[derive(Deserialize)]
struct Pod<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow, default)]
    spec: Spec<'a>,
    #[serde(borrow, default)]
    status: Status<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    namespace: Text<'a>,
    #[serde(borrow)]
    uid: Text<'a>,
    #[serde(borrow)]
    labels: Option<Labels<'a>>,
    #[serde(borrow)]
    annotations: Option<Annotations<'a>>,
    #[serde(borrow)]
    owner_references: Option<Vec<Owner<'a>>>,
}

#[derive(Deserialize)]
struct Labels<'a> {
    /// By which a Deployment tells its ReplicaSets' pods apart.
    #[serde(borrow, rename = "pod-template-hash")]
    template_hash: Text<'a>,
}

#[derive(Deserialize)]
struct Annotations<'a> {
    /// A static pod's manifest hash: the kubelet's own UID of it, which its cgroups and the runtime have; the API
    /// server's mirror of the pod has a UID of its own (`pkg/kubelet/types/pod_update.go`).
    #[serde(borrow, rename = "kubernetes.io/config.hash")]
    config_hash: Text<'a>,
}

#[derive(Deserialize)]
struct Owner<'a> {
    #[serde(borrow)]
    kind: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    uid: Text<'a>,
    controller: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    host_network: Option<bool>,
    #[serde(borrow)]
    containers: Option<Vec<Container<'a>>>,
    #[serde(borrow)]
    init_containers: Option<Vec<Container<'a>>>,
    #[serde(borrow)]
    ephemeral_containers: Option<Vec<Container<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    image: Text<'a>,
    #[serde(borrow)]
    restart_policy: Text<'a>,
    #[serde(borrow)]
    ports: Option<Vec<Port<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(rename = "containerPort")]
    number: u16,
    #[serde(borrow)]
    protocol: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
    #[serde(borrow)]
    start_time: Text<'a>,
    #[serde(borrow, rename = "podIP")]
    pod_ip: Text<'a>,
    #[serde(borrow, rename = "podIPs")]
    pod_ips: Option<Vec<PodIp<'a>>>,
    #[serde(borrow)]
    conditions: Option<Vec<Condition<'a>>>,
    #[serde(borrow)]
    container_statuses: Option<Vec<ContainerStatus<'a>>>,
    #[serde(borrow)]
    init_container_statuses: Option<Vec<ContainerStatus<'a>>>,
    #[serde(borrow)]
    ephemeral_container_statuses: Option<Vec<ContainerStatus<'a>>>,
}

#[derive(Deserialize)]
struct PodIp<'a> {
    #[serde(borrow)]
    ip: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition<'a> {
    #[serde(borrow, rename = "type")]
    name: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow)]
    last_transition_time: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStatus<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, rename = "containerID")]
    container_id: Text<'a>,
    #[serde(borrow)]
    image: Text<'a>,
    #[serde(borrow)]
    state: Option<State<'a>>,
    #[serde(borrow)]
    last_state: Option<State<'a>>,
}

#[derive(Deserialize)]
struct State<'a> {
    #[serde(borrow)]
    running: Option<Running<'a>>,
    #[serde(borrow)]
    terminated: Option<Terminated<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Running<'a> {
    #[serde(borrow)]
    started_at: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Terminated<'a> {
    #[serde(borrow)]
    started_at: Text<'a>,
    #[serde(borrow)]
    finished_at: Text<'a>,
    #[serde(borrow, rename = "containerID")]
    container_id: Text<'a>,
}

/// Why a body is no list of pods.
#[derive(Debug, thiserror::Error)]
pub enum PodsError {
    /// It is not the JSON of one.
    #[error("not a list of pods: {0}")]
    Json(#[from] serde_json::Error),
    /// It is something else.
    #[error("not a list of pods but `{0}`")]
    Kind(String),
}

/// Every pod of a `PodList`, and every container that has an id: those that run and those that ran last.
///
/// # Errors
/// [`PodsError`].
pub fn parse(body: &[u8], collect: &Collect) -> Result<Vec<Said>, PodsError> {
    let list: List<'_> = serde_json::from_slice(body)?;
    if let Some(kind) = list.kind.as_deref().filter(|kind| *kind != "PodList") {
        return Err(PodsError::Kind(kind.into()));
    }
    let collects = collect.wants(kind::POD) || collect.wants(kind::CONTAINER);
    let whole: Value = if collects { serde_json::from_slice(body)? } else { Value::Null };
    let mut said = Vec::new();
    for (index, pod) in list.items.unwrap_or_default().iter().enumerate() {
        // Without a UID it cannot be told from another pod of its name.
        if pod.metadata.uid.as_deref().is_none_or(str::is_empty) {
            continue;
        }
        let object = whole.get("items").and_then(|items| items.get(index)).unwrap_or(&Value::Null);
        said.push(say_pod(pod, object, collect));
        for (group, status_field, containers, statuses) in pod.groups() {
            for container in containers.iter().flatten() {
                let status = statuses.iter().flatten().find(|status| status.name == container.name);
                let Some(status) = status else { continue };
                let collected = if collect.wants(kind::CONTAINER) {
                    collected(object, group, status_field, &container.name, collect)
                } else {
                    BTreeMap::new()
                };
                say_container(pod, group, container, status, &collected, &mut said);
            }
        }
    }
    Ok(said)
}

type Group<'b, 'a> = (&'static str, &'static str, &'b Option<Vec<Container<'a>>>, &'b Option<Vec<ContainerStatus<'a>>>);

impl<'a> Pod<'a> {
    /// The containers by their list in the spec, with their statuses.
    fn groups(&self) -> [Group<'_, 'a>; 3] {
        let (spec, status) = (&self.spec, &self.status);
        [
            ("containers", "containerStatuses", &spec.containers, &status.container_statuses),
            ("initContainers", "initContainerStatuses", &spec.init_containers, &status.init_container_statuses),
            (
                "ephemeralContainers",
                "ephemeralContainerStatuses",
                &spec.ephemeral_containers,
                &status.ephemeral_container_statuses,
            ),
        ]
    }

    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn states(&self) -> impl Iterator<Item = &State<'a>> {
        self.groups()
            .into_iter()
            .flat_map(|(_, _, _, statuses)| statuses.iter().flatten())
            .flat_map(|status| [&status.state, &status.last_state])
            .flatten()
    }

    /// Since when it holds its address: since its sandbox has a network, which may be long after the kubelet took it
    /// on; the first container tells that more exactly than the condition, which is written a moment later.
    fn from(&self) -> Option<UnixNanos> {
        let start = time(&self.status.start_time);
        let conditions = self.status.conditions.iter().flatten();
        let ready = conditions
            .filter(|condition| condition.name.as_deref() == Some(NETWORK_READY))
            .filter(|condition| condition.status.as_deref() == Some("True"))
            .find_map(|condition| time(&condition.last_transition_time));
        let Some(ready) = ready else { return start };
        let first = self.states().filter_map(State::started).min();
        start.max(Some(first.map_or(ready, |first| first.min(ready))))
    }

    /// When it was over: its last container's end.
    fn to(&self) -> Option<UnixNanos> {
        let is_over = matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let ends = || self.states().filter_map(|state| time(&state.terminated.as_ref()?.finished_at)).max();
        // One that never had a container held nothing for any time.
        is_over.then(|| ends().or_else(|| time(&self.status.start_time))).flatten()
    }
}

impl State<'_> {
    fn started(&self) -> Option<UnixNanos> {
        let running = self.running.as_ref().and_then(|running| time(&running.started_at));
        running.or_else(|| time(&self.terminated.as_ref()?.started_at))
    }
}

fn say_pod(pod: &Pod<'_>, object: &Value, collect: &Collect) -> Said {
    let metadata = &pod.metadata;
    let mut attributes = BTreeMap::new();
    let mut set = |name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            attributes.insert(name.to_owned(), value.to_owned());
        }
    };
    set(attribute::PHASE, pod.status.phase.as_deref());
    set(attribute::HOST_NETWORK, (pod.spec.host_network == Some(true)).then_some("true"));
    let hash = metadata.annotations.as_ref().and_then(|annotations| annotations.config_hash.as_deref());
    set(attribute::ALIASES, hash.filter(|hash| *hash != pod.uid()));
    let owners = metadata.owner_references.iter().flatten();
    if let Some(owner) = owners.into_iter().find(|owner| owner.controller == Some(true)) {
        set(attribute::OWNER_KIND, owner.kind.as_deref());
        set(attribute::OWNER_NAME, owner.name.as_deref());
        set(attribute::OWNER_UID, owner.uid.as_deref());
    }
    set(attribute::POD_TEMPLATE_HASH, metadata.labels.as_ref().and_then(|labels| labels.template_hash.as_deref()));
    collect.add(kind::POD, object, &mut attributes);
    Said {
        kind: kind::POD,
        id: pod.uid().to_owned(),
        name: text(&metadata.name),
        namespace: text(&metadata.namespace),
        addresses: addresses(&pod.status),
        from: pod.from(),
        to: no_earlier(pod.to(), pod.from()),
        attributes,
        ..Said::default()
    }
}

/// The present container, and the one before it where that had another id.
fn say_container(
    pod: &Pod<'_>,
    group: &str,
    container: &Container<'_>,
    status: &ContainerStatus<'_>,
    collected: &BTreeMap<String, String>,
    said: &mut Vec<Said>,
) {
    let present = id(&status.container_id);
    let ended = |state: &Option<State<'_>>| {
        let terminated = state.as_ref()?.terminated.as_ref()?;
        let own = id(&terminated.container_id).or_else(|| present.clone())?;
        Some((own, time(&terminated.started_at), time(&terminated.finished_at), "exited"))
    };
    let running = status.state.as_ref().and_then(|state| state.running.as_ref());
    let now = match running {
        Some(running) => present.clone().map(|id| (id, time(&running.started_at), None, "running")),
        None => ended(&status.state),
    };
    let before = ended(&status.last_state);
    // It waits to be started, under an id that it has already.
    let waiting = (now.is_none() && before.as_ref().map(|(id, ..)| id) != present.as_ref())
        .then(|| present.clone().map(|id| (id, None, None, "created")))
        .flatten();
    let before = before.filter(|(id, ..)| now.as_ref().is_none_or(|(other, ..)| other != id));
    for (id, from, to, state) in now.into_iter().chain(waiting).chain(before) {
        let mut attributes = collected.clone();
        let image = container.image.as_deref().or(status.image.as_deref()).unwrap_or_default();
        for (name, value) in [
            (attribute::CONTAINER_TYPE, container_type(group, container)),
            (attribute::IMAGE, image),
            (attribute::STATE, state),
            (attribute::PORTS, &ports(container)),
        ] {
            if !value.is_empty() {
                attributes.insert(name.to_owned(), value.to_owned());
            }
        }
        said.push(Said {
            kind: kind::CONTAINER,
            id,
            name: container.name.clone().into_owned(),
            namespace: text(&pod.metadata.namespace),
            parent: pod.uid().to_owned(),
            from,
            to: no_earlier(to, from),
            attributes,
            ..Said::default()
        });
    }
}

/// The end, or the beginning where a broken status has the end before it.
fn no_earlier(to: Option<UnixNanos>, from: Option<UnixNanos>) -> Option<UnixNanos> {
    to.map(|to| from.map_or(to, |from| to.max(from)))
}

fn container_type(group: &str, container: &Container<'_>) -> &'static str {
    match group {
        // KEP-753: an init container that runs on beside the others.
        "initContainers" if container.restart_policy.as_deref() == Some("Always") => "sidecar",
        "initContainers" => "init",
        "ephemeralContainers" => "ephemeral",
        _ => "container",
    }
}

fn ports(container: &Container<'_>) -> String {
    let ports = container.ports.iter().flatten().map(|port| {
        let name = port.name.as_deref().filter(|name| !name.is_empty());
        let name = name.map(|name| format!("{name}:")).unwrap_or_default();
        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase();
        format!("{name}{}/{protocol}", port.number)
    });
    ports.collect::<Vec<_>>().join(",")
}

/// What the configuration collects of a container: from its entry in the spec, its status under `status`.
fn collected(pod: &Value, group: &str, status_field: &str, name: &str, collect: &Collect) -> BTreeMap<String, String> {
    let named = |list: &Value| {
        list.as_array()?.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some(name)).cloned()
    };
    let mut attributes = BTreeMap::new();
    let Some(mut entry) = pod.pointer(&format!("/spec/{group}")).and_then(named) else { return attributes };
    if let (Value::Object(entry), Some(status)) =
        (&mut entry, pod.pointer(&format!("/status/{status_field}")).and_then(named))
    {
        entry.insert("status".to_owned(), status);
    }
    collect.add(kind::CONTAINER, &entry, &mut attributes);
    attributes
}

fn addresses(status: &Status<'_>) -> Vec<IpAddr> {
    let all = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.as_deref());
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in all.chain(status.pod_ip.as_deref()) {
        if let Ok(address) = text.parse::<IpAddr>().map(|address| address.to_canonical())
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

/// An id without its runtime: `containerd://eae2...`.
fn id(text: &Text<'_>) -> Option<String> {
    let text = text.as_deref()?;
    let id = text.split_once("://").map_or(text, |(_, id)| id);
    (!id.is_empty()).then(|| id.to_owned())
}

fn text(text: &Text<'_>) -> String {
    text.as_deref().unwrap_or_default().to_owned()
}

/// RFC 3339; `None` for what is none, and for the zero time (`0001-01-01`).
fn time(text: &Text<'_>) -> Option<UnixNanos> {
    let at: Timestamp = text.as_deref()?.parse().ok()?;
    i64::try_from(at.as_nanosecond()).ok().filter(|nanos| *nanos > 0).map(UnixNanos)
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
