//! Metadata: what one source said about one thing, and from when to when it was so (R6).

use crate::{NodeName, UnixNanos};
use std::collections::BTreeMap;

/// One source's fact. Its key is (node, source, kind, id, from).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    /// The node whose agent said it; empty for what the server itself watches.
    pub node: NodeName,
    /// One of [`source`].
    pub source: String,
    /// One of [`kind`].
    pub kind: String,
    /// Unique within node, source and kind.
    pub id: String,
    /// From when it was so.
    pub from: UnixNanos,
    /// When it was said: the end of the batch's span. The newest saying of a key stands.
    pub said: UnixNanos,
    /// Until when; `None` while it is.
    pub to: Option<UnixNanos>,
    /// Its name.
    pub name: String,
    /// Its Kubernetes namespace, empty none.
    pub namespace: String,
    /// The id of the thing that it belongs to, empty none.
    pub parent: String,
    /// The network namespace's inode, 0 unknown.
    pub netns: u32,
    /// Every address that it holds, as text.
    pub addresses: Vec<String>,
    /// Everything else that was collected.
    pub attributes: BTreeMap<String, String>,
}

impl Fact {
    /// Two sayings under one key, in any order: the newer one, by content on a tie.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        self.max(other)
    }
}

/// The kinds of things ([`Fact::kind`]).
///
/// | kind | id | name, namespace | parent | addresses |
/// |---|---|---|---|---|
/// | `node` | its name | its name | | all of its own |
/// | `namespace` | UID | its name | | |
/// | `pod` | UID | its own | | all of its own; a host-network pod's are its node's |
/// | `container` | container id | its name in the pod, the pod's namespace | the pod's UID | those that it holds alone (Docker) |
/// | `process` | `pid@start` | `comm` | the container's id | |
/// | `replica_set`, `job` | UID | its own | | |
/// | `service` | UID | its own | | cluster, external and load-balancer addresses |
/// | `endpoint` | `slice UID/address` | the Service's | the Service's `namespace/name` | its one address |
/// | `watch` | a kind | the same | | |
pub mod kind {
    /// A machine with an agent, or one that the API server knows.
    pub const NODE: &str = "node";
    /// A Kubernetes namespace.
    pub const NAMESPACE: &str = "namespace";
    /// A pod.
    pub const POD: &str = "pod";
    /// A container.
    pub const CONTAINER: &str = "container";
    /// A process.
    pub const PROCESS: &str = "process";
    /// A ReplicaSet: between a pod and its Deployment.
    pub const REPLICA_SET: &str = "replica_set";
    /// A Job: between a pod and its CronJob.
    pub const JOB: &str = "job";
    /// A Service.
    pub const SERVICE: &str = "service";
    /// One address of an EndpointSlice.
    pub const ENDPOINT: &str = "endpoint";
    /// The server's watch of a kind: when it said so last, it knew everything of that kind.
    pub const WATCH: &str = "watch";
}

/// Who says so ([`Fact::source`]).
pub mod source {
    /// The kubelet's `/pods`.
    pub const KUBELET: &str = "kubelet";
    /// The container runtime's CRI.
    pub const CRI: &str = "cri";
    /// The Docker engine.
    pub const DOCKER: &str = "docker";
    /// The API server, asked by an agent for its node's pods or watched by the server.
    pub const API: &str = "api";
    /// weir-tracer's `/processes`.
    pub const TRACER: &str = "tracer";
    /// The node's `/proc`.
    pub const PROC: &str = "proc";
}

/// The names of attributes with a meaning ([`Fact::attributes`]). All others are what the configuration collects.
///
/// Lists are separated by commas without blanks. An attribute that does not apply is absent.
pub mod attribute {
    /// Of a pod: `Pending`, `Running`, `Succeeded`, `Failed`.
    pub const PHASE: &str = "phase";
    /// Of a pod on its node's network: `true`.
    pub const HOST_NETWORK: &str = "host_network";
    /// Of a static pod: the UIDs that it has beside its id (mirror pod and manifest hash).
    pub const ALIASES: &str = "aliases";
    /// Of a pod, ReplicaSet or Job: its controller's kind as Kubernetes writes it (`ReplicaSet`, `Deployment`, ...).
    pub const OWNER_KIND: &str = "owner_kind";
    /// Its controller's name.
    pub const OWNER_NAME: &str = "owner_name";
    /// Its controller's UID.
    pub const OWNER_UID: &str = "owner_uid";
    /// Of a pod: the label `pod-template-hash`, by which a ReplicaSet's name begins with its Deployment's.
    pub const POD_TEMPLATE_HASH: &str = "pod_template_hash";
    /// Of a container: `container`, `init`, `sidecar`, `ephemeral`, or [`SANDBOX`].
    pub const CONTAINER_TYPE: &str = "container_type";
    /// The [`CONTAINER_TYPE`] of what only holds a pod's namespaces (`pause`); it has no name.
    pub const SANDBOX: &str = "sandbox";
    /// Of a container without a network of its own: `host`, `none`, or `container:ID` of the one whose it shares.
    pub const NETWORK_MODE: &str = "network_mode";
    /// Of a container: the image's name as it was asked for.
    pub const IMAGE: &str = "image";
    /// Of a container: the pids of the initial namespace that the source knows.
    pub const PIDS: &str = "pids";
    /// Of a container: `running`, `created` or `exited`.
    pub const STATE: &str = "state";
    /// Ports. Of a container: `[NAME:]PORT/PROTOCOL`; of an endpoint the same; of a Service:
    /// `[NAME:]PORT/PROTOCOL[@NODEPORT]`. Protocols are `tcp`, `udp` and `sctp`.
    pub const PORTS: &str = "ports";
    /// Of a process: its cgroup's path.
    pub const CGROUP_PATH: &str = "cgroup_path";
    /// Of a node: its zone.
    pub const ZONE: &str = "zone";
    /// Of a node: its region.
    pub const REGION: &str = "region";
    /// Of a node: its instance type.
    pub const INSTANCE_TYPE: &str = "instance_type";
    /// Of a Service: `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    pub const SERVICE_TYPE: &str = "service_type";
    /// Of a Service without an address of its own: `true`.
    pub const HEADLESS: &str = "headless";
    /// Of a Service that is a DNS name: that name.
    pub const EXTERNAL_NAME: &str = "external_name";
    /// Of a Service without a selector: `true`.
    pub const SELECTORLESS: &str = "selectorless";
    /// Of an endpoint: the UID of the pod that it is.
    pub const TARGET_POD: &str = "target_pod";
    /// Of an endpoint: its node.
    pub const NODE: &str = "node";
    /// Of an endpoint: which of `ready`, `serving` and `terminating` it is.
    pub const CONDITIONS: &str = "conditions";
}
