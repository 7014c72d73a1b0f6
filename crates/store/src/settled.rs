//! What is known of a row when it is settled, and is kept of it for good: whether it counts, and everything that answers
//! call its ends by. Names that come later do not change it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_model::Endpoint;

/// Whether a settled row counts and, if not, why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It counts.
    #[default]
    Counted,
    /// The other end's row counts in its place (R5).
    OtherView,
    /// The client's node should have told of the client's view and did not: a told loss.
    Unpaired,
    /// It came when its time was settled already: a told loss.
    Late,
}

/// A name with how sure it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SettledName {
    /// The thing's kind.
    pub kind: String,
    /// Its namespace, empty none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `known`, `inferred` or `unknown`.
    pub certainty: String,
}

impl SettledName {
    /// Without how sure it is.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { kind: self.kind.clone(), namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// One end of an edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct SettledEnd {
    /// Pod, container, process, node, Service, `external` or `unknown`.
    pub endpoint: SettledName,
    /// What its pod belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<SettledName>,
    /// Its pod's UID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Its container, `POD/NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The process, empty unknown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub process: String,
    /// The container's id, empty none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// The node that it ran on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// That node's zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its address.
    pub address: String,
    /// A view was of it.
    pub is_seen: bool,
    /// What was collected about it, by `KIND.NAME`, and its cgroup's path under `cgroup_path`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// An edge as it was called when its rows were settled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SettledEdge {
    /// The end that opened the connections.
    pub client: Arc<SettledEnd>,
    /// The end that accepted them.
    pub server: Arc<SettledEnd>,
    /// The server's port behind every known translation.
    pub port: u16,
    /// The Service that they went through, `namespace/name`.
    pub service: Option<String>,
    /// How sure that is; `None`: through none.
    pub service_certainty: Option<String>,
    /// The Services that it could be.
    pub service_candidates: Vec<String>,
    /// How sure the roles are.
    pub certainty: String,
}
