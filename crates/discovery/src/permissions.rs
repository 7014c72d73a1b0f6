//! Every call to a kubelet or an API server that weir makes, as Kubernetes' authorization (RBAC) sees it.
//!
//! The list is what the clients take their paths from and what `deploy/kubernetes` grants: a test derives one from the
//! other. A call that is not in it is not made.

/// Who makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// The agent on every node.
    Agent,
    /// The server.
    Server,
}

/// When a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// With the settings of `deploy/kubernetes` as they are.
    Base,
    /// Only where the kubelet is closed and the API server is asked for the node's pods.
    ApiPods,
    /// Only on clusters whose kubelets do not authorize `nodes/pods` (before Kubernetes 1.33): it also opens running
    /// commands in every pod of the node, so nobody gets it unasked.
    NodesProxy,
    /// Only where the server keeps its state in ConfigMaps, in the one namespace that it is given.
    ConfigMapState,
}

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// Who makes it.
    pub caller: Caller,
    /// When.
    pub need: Need,
    /// The API group, empty for the core group.
    pub group: &'static str,
    /// The API version.
    pub version: &'static str,
    /// The resource in plural, with its subresource behind a slash.
    pub resource: &'static str,
    /// `get`, `list`, `watch`, `create`, `update`, `delete`.
    pub verbs: &'static [&'static str],
}

impl Call {
    /// What to do about a 403: the rule that is missing, as it stands in a ClusterRole.
    pub fn missing_rule(&self) -> String {
        format!("its ServiceAccount lacks a rule: bind {}'s a ClusterRole with {}", self.whom(), self.rule())
    }

    /// The same for a call within one namespace.
    pub fn missing_rule_in(&self, namespace: &str) -> String {
        format!(
            "its ServiceAccount lacks a rule: bind {}'s, in namespace {namespace}, a Role with {}",
            self.whom(),
            self.rule()
        )
    }

    fn whom(&self) -> &'static str {
        match self.caller {
            Caller::Agent => "weir-agent",
            Caller::Server => "weir server",
        }
    }

    fn rule(&self) -> String {
        let quoted: Vec<String> = self.verbs.iter().map(|verb| format!("\"{verb}\"")).collect();
        let (group, resource, verbs) = (self.group, self.resource, quoted.join(", "));
        format!("{{apiGroups: [\"{group}\"], resources: [\"{resource}\"], verbs: [{verbs}]}}")
    }
}

const fn call(
    caller: Caller,
    need: Need,
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
) -> Call {
    Call { caller, need, group, version: "v1", resource, verbs }
}

/// The kubelet's `/pods`.
pub const NODES_PODS: Call = call(Caller::Agent, Need::Base, "", "nodes/pods", &["get"]);
/// The same where the kubelet knows no `nodes/pods`.
pub const NODES_PROXY: Call = call(Caller::Agent, Need::NodesProxy, "", "nodes/proxy", &["get"]);
/// The node's pods from the API server.
pub const PODS: Call = call(Caller::Agent, Need::ApiPods, "", "pods", &["list"]);
/// Services.
pub const SERVICES: Call = call(Caller::Server, Need::Base, "", "services", &["list", "watch"]);
/// EndpointSlices.
pub const ENDPOINT_SLICES: Call =
    call(Caller::Server, Need::Base, "discovery.k8s.io", "endpointslices", &["list", "watch"]);
/// Nodes.
pub const NODES: Call = call(Caller::Server, Need::Base, "", "nodes", &["list", "watch"]);
/// Namespaces.
pub const NAMESPACES: Call = call(Caller::Server, Need::Base, "", "namespaces", &["list", "watch"]);
/// ReplicaSets, metadata only.
pub const REPLICA_SETS: Call = call(Caller::Server, Need::Base, "apps", "replicasets", &["list", "watch"]);
/// Jobs, metadata only.
pub const JOBS: Call = call(Caller::Server, Need::Base, "batch", "jobs", &["list", "watch"]);
/// Whose token an agent shows.
pub const TOKEN_REVIEWS: Call = call(Caller::Server, Need::Base, "authentication.k8s.io", "tokenreviews", &["create"]);
/// The state in ConfigMaps (docs/decisions/0017-configmaps.md), in the namespace that it is kept in.
pub const CONFIG_MAPS: Call =
    call(Caller::Server, Need::ConfigMapState, "", "configmaps", &["get", "list", "create", "update", "delete"]);

/// Every call.
pub const CALLS: &[Call] = &[
    NODES_PODS,
    NODES_PROXY,
    PODS,
    SERVICES,
    ENDPOINT_SLICES,
    NODES,
    NAMESPACES,
    REPLICA_SETS,
    JOBS,
    TOKEN_REVIEWS,
    CONFIG_MAPS,
];
