//! The cluster in Kubernetes' own words: what the API server and the kubelet would say of it, as plain values.
//!
//! The forms are those of the recorded lists; what nobody could want to know of a cluster without containers
//! (volumes, probes, managed fields) is left out.

use crate::cluster::addresses::{self, Addresses};
use crate::cluster::plan::{Backends, Kind, Network, Owner, Quality, TrafficPolicy};
use crate::cluster::{Node, Pod, Service};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

/// A kind of object, and where its API lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Resource {
    /// `Pod`.
    pub(crate) kind: &'static str,
    /// `v1`, `apps/v1`.
    pub(crate) version: &'static str,
    /// `pods`.
    pub(crate) plural: &'static str,
}

const fn resource(kind: &'static str, version: &'static str, plural: &'static str) -> Resource {
    Resource { kind, version, plural }
}

pub(crate) const POD: Resource = resource("Pod", "v1", "pods");
const SERVICE: Resource = resource("Service", "v1", "services");
const SLICE: Resource = resource("EndpointSlice", "discovery.k8s.io/v1", "endpointslices");
const NODE: Resource = resource("Node", "v1", "nodes");
pub(crate) const NAMESPACE: Resource = resource("Namespace", "v1", "namespaces");
const REPLICA_SET: Resource = resource("ReplicaSet", "apps/v1", "replicasets");
const JOB: Resource = resource("Job", "batch/v1", "jobs");
pub(crate) const CONFIG_MAP: Resource = resource("ConfigMap", "v1", "configmaps");

/// All that are served.
pub(crate) const RESOURCES: [Resource; 8] = [POD, SERVICE, SLICE, NODE, NAMESPACE, REPLICA_SET, JOB, CONFIG_MAP];

/// Every object of a cluster, without its resource version.
pub(crate) fn all(nodes: &[Node], pods: &[Pod], services: &[Service]) -> Vec<(Resource, Value)> {
    let mut objects: Vec<(Resource, Value)> = nodes.iter().map(|one| (NODE, node(one))).collect();
    let namespaces: BTreeSet<&str> = pods
        .iter()
        .map(|pod| pod.plan.namespace.as_str())
        .chain(services.iter().map(|service| service.plan.namespace.as_str()))
        .chain(["default", "kube-system"])
        .collect();
    let born = nodes.first().map_or(SystemTime::UNIX_EPOCH, |node| node.created);
    objects.extend(namespaces.into_iter().map(|name| (NAMESPACE, namespace(name, born))));
    let mut owners: BTreeMap<(&str, &str), (Resource, Value)> = BTreeMap::new();
    for one in pods {
        let Some(home) = nodes.iter().find(|node| node.plan.name == one.plan.node) else { continue };
        objects.push((POD, pod(one, home)));
        if let Some(owner) = &one.plan.owner {
            let made_by = match owner.kind.as_str() {
                "ReplicaSet" => (REPLICA_SET, "apps/v1", "Deployment"),
                "Job" => (JOB, "batch/v1", "CronJob"),
                _ => continue,
            };
            owners.insert((&one.plan.namespace, &owner.name), (made_by.0, middle(one, owner, made_by)));
        }
    }
    objects.extend(owners.into_values());
    for one in services {
        objects.push((SERVICE, service(one)));
        for family in 0..nodes.first().map_or(0, |node| node.addresses.iter().count()) {
            objects.push((SLICE, slice(one, family, pods)));
        }
    }
    objects
}

fn pod(pod: &Pod, node: &Node) -> Value {
    let plan = &pod.plan;
    let started = time(pod.created);
    let mut metadata = json!({
        "name": plan.name, "namespace": plan.namespace, "uid": pod.uid, "creationTimestamp": started,
        "labels": plan.labels, "annotations": {"kubernetes.io/config.source": "api"},
    });
    if let Some(owner) = &plan.owner {
        let version = match owner.kind.as_str() {
            "Job" => "batch/v1",
            _ => "apps/v1",
        };
        metadata["ownerReferences"] = json!([reference(version, &owner.kind, &plan.namespace, &owner.name)]);
    }
    let containers: Vec<Value> = pod
        .containers
        .iter()
        .map(|one| json!({"name": one.name, "image": IMAGE, "resources": resources(plan.quality)}))
        .collect();
    let statuses: Vec<Value> = pod
        .containers
        .iter()
        .map(|one| {
            json!({
                "name": one.name, "state": {"running": {"startedAt": started}}, "lastState": {}, "ready": true,
                "restartCount": 0, "image": IMAGE, "imageID": format!("sha256:{}", "7".repeat(64)),
                "containerID": format!("containerd://{}", one.id), "started": true,
            })
        })
        .collect();
    let mut spec = json!({
        "containers": containers, "restartPolicy": "Always", "nodeName": plan.node,
        "serviceAccountName": "default", "schedulerName": "default-scheduler",
    });
    if plan.network == Network::Host {
        spec["hostNetwork"] = json!(true);
    }
    let class = match plan.quality {
        Quality::BestEffort => "BestEffort",
        Quality::Burstable => "Burstable",
        Quality::Guaranteed => "Guaranteed",
    };
    let conditions: Vec<Value> = ["Initialized", "Ready", "ContainersReady", "PodScheduled"]
        .iter()
        .map(|kind| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": started}))
        .collect();
    let status = json!({
        "phase": "Running", "conditions": conditions, "hostIP": node.addresses.v4, "hostIPs": ips(node.addresses),
        "podIP": pod.addresses.v4, "podIPs": ips(pod.addresses), "startTime": started,
        "containerStatuses": statuses, "qosClass": class,
    });
    object(POD, &metadata, &[("spec", spec), ("status", status)])
}

/// No image is ever run; the name is only told.
const IMAGE: &str = "registry.local/shop:1";

fn resources(quality: Quality) -> Value {
    let amounts = json!({"cpu": "100m", "memory": "64Mi"});
    match quality {
        Quality::BestEffort => json!({}),
        Quality::Burstable => json!({"requests": amounts}),
        Quality::Guaranteed => json!({"requests": amounts, "limits": amounts}),
    }
}

fn ips(addresses: Addresses) -> Value {
    addresses.iter().map(|address| json!({"ip": address})).collect()
}

/// A ReplicaSet or Job between a pod and what a person wrote: its name less the last word.
fn middle(pod: &Pod, owner: &Owner, (resource, version, kind): (Resource, &str, &str)) -> Value {
    let namespace = &pod.plan.namespace;
    let mut metadata = json!({
        "name": owner.name, "namespace": namespace, "uid": uid(&owner.kind, namespace, &owner.name),
        "creationTimestamp": time(pod.created), "labels": pod.plan.labels,
    });
    if let Some((above, _)) = owner.name.rsplit_once('-') {
        metadata["ownerReferences"] = json!([reference(version, kind, namespace, above)]);
    }
    object(resource, &metadata, &[("spec", json!({})), ("status", json!({}))])
}

fn service(service: &Service) -> Value {
    let plan = &service.plan;
    let metadata = json!({
        "name": plan.name, "namespace": plan.namespace, "uid": service.uid,
        "creationTimestamp": time(service.created),
    });
    let ports: Vec<Value> = plan
        .ports
        .iter()
        .map(|port| {
            let protocol = port.protocol.as_str().to_uppercase();
            let mut one =
                json!({"name": port.name, "protocol": protocol, "port": port.port, "targetPort": port.target});
            if let Some(number) = port.node_port {
                one["nodePort"] = json!(number);
            }
            one
        })
        .collect();
    let ips: Vec<String> = match service.addresses {
        Some(addresses) => addresses.iter().map(|address| address.to_string()).collect(),
        None => vec!["None".into()],
    };
    let families: Vec<&str> = match service.addresses {
        Some(addresses) => addresses.iter().map(family_name).collect(),
        None => vec!["IPv4"],
    };
    let mut spec = json!({
        "ports": ports, "clusterIP": ips[0], "clusterIPs": ips, "ipFamilies": families,
        "ipFamilyPolicy": if families.len() > 1 { "RequireDualStack" } else { "SingleStack" },
        "type": "ClusterIP", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
    });
    if let Backends::Selector(labels) = &plan.backends {
        spec["selector"] = json!(labels);
    }
    if let Kind::NodePort(policy) = plan.kind {
        spec["type"] = json!("NodePort");
        let policy = if policy == TrafficPolicy::Local { "Local" } else { "Cluster" };
        spec["externalTrafficPolicy"] = json!(policy);
    }
    if let Some(affinity) = plan.affinity {
        spec["sessionAffinity"] = json!("ClientIP");
        spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": affinity.as_secs()}});
    }
    object(SERVICE, &metadata, &[("spec", spec), ("status", json!({"loadBalancer": {}}))])
}

fn slice(service: &Service, family: usize, pods: &[Pod]) -> Value {
    let plan = &service.plan;
    let name = format!("{}-{}", plan.name, ["ipv4", "ipv6"][family]);
    let metadata = json!({
        "name": name, "namespace": plan.namespace, "uid": uid("EndpointSlice", &plan.namespace, &name),
        "creationTimestamp": time(service.created),
        "labels": {
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            "kubernetes.io/service-name": plan.name,
        },
        "ownerReferences": [{
            "apiVersion": "v1", "kind": "Service", "name": plan.name, "uid": service.uid, "controller": true,
            "blockOwnerDeletion": true,
        }],
    });
    let mut endpoints: Vec<Value> = pods
        .iter()
        .filter(|pod| service.is_served_by(pod))
        .filter_map(|pod| {
            let address = pod.addresses.iter().nth(family)?;
            Some(json!({
                "addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": pod.plan.node,
                "targetRef": {
                    "kind": "Pod", "namespace": pod.plan.namespace, "name": pod.plan.name, "uid": pod.uid,
                },
            }))
        })
        .collect();
    endpoints.extend(
        service.control_backend(family).map(|address| json!({"addresses": [address], "conditions": {"ready": true}})),
    );
    let ports: Vec<Value> = plan
        .ports
        .iter()
        .map(|port| json!({"name": port.name, "protocol": port.protocol.as_str().to_uppercase(), "port": port.target}))
        .collect();
    let address_type = json!(["IPv4", "IPv6"][family]);
    object(SLICE, &metadata, &[("addressType", address_type), ("endpoints", json!(endpoints)), ("ports", json!(ports))])
}

fn node(node: &Node) -> Value {
    let name = &node.plan.name;
    let metadata = json!({
        "name": name, "uid": node.uid, "creationTimestamp": time(node.created),
        "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": node.plan.zone,
        },
    });
    let count = node.addresses.iter().count();
    let subnets = &addresses::pod_subnets(node.index)[..count];
    let mut at: Vec<Value> =
        node.addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    at.push(json!({"type": "Hostname", "address": name}));
    let status = json!({
        "addresses": at, "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": super::KUBELET_PORT}},
        "nodeInfo": {"operatingSystem": "linux", "containerRuntimeVersion": "containerd://1.6.20", "kubeletVersion": VERSION},
    });
    object(NODE, &metadata, &[("spec", json!({"podCIDR": subnets[0], "podCIDRs": subnets})), ("status", status)])
}

/// The version that the forms were recorded from.
pub(crate) const VERSION: &str = "v1.36.2";

fn namespace(name: &str, born: SystemTime) -> Value {
    let metadata = json!({
        "name": name, "uid": uid("Namespace", "", name), "creationTimestamp": time(born),
        "labels": {"kubernetes.io/metadata.name": name},
    });
    object(
        NAMESPACE,
        &metadata,
        &[("spec", json!({"finalizers": ["kubernetes"]})), ("status", json!({"phase": "Active"}))],
    )
}

fn object(resource: Resource, metadata: &Value, rest: &[(&str, Value)]) -> Value {
    let mut object = json!({"kind": resource.kind, "apiVersion": resource.version, "metadata": metadata});
    for (name, value) in rest {
        object[*name] = value.clone();
    }
    object
}

fn reference(version: &str, kind: &str, namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": version, "kind": kind, "name": name, "uid": uid(kind, namespace, name), "controller": true,
        "blockOwnerDeletion": true,
    })
}

fn family_name(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The UID of what has none of its own here: always the same for the same name.
fn uid(kind: &str, namespace: &str, name: &str) -> String {
    let half = |salt: u64| {
        let text = format!("{kind}/{namespace}/{name}");
        // FNV-1a, 64 bits.
        let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325 ^ salt, fold))
    };
    let digits = format!("{}{}", half(0), half(1));
    format!("{}-{}-4{}-8{}-{}", &digits[..8], &digits[8..12], &digits[13..16], &digits[17..20], &digits[20..])
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}
