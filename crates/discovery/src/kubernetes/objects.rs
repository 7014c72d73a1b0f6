//! What is watched, and what one object says. Pure.
//!
//! A kind is a row of [`WATCHED`]: the call that lists and watches it, how much of each object is asked for, and the
//! function that reads one. An object yields one [`Said`] each, an EndpointSlice one an address.

use super::{endpoints, nodes, services};
use crate::collect::Collect;
use crate::permissions::{self, Call};
use crate::said::Said;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};
use weir_model::UnixNanos;
use weir_model::fact::{attribute, kind};

/// What one object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thing {
    /// What its facts' ids are, or begin with before a `/`: the object's UID; a node's name.
    pub key: String,
    /// When it was made, by the API server's clock.
    pub created: Option<UnixNanos>,
    /// When somebody last wrote it, as far as the object says: since then it says what it says now.
    pub written: Option<UnixNanos>,
    /// One a fact.
    pub said: Vec<Said>,
}

/// A kind of object that is watched.
#[derive(Debug)]
pub struct Watched {
    /// How it is listed and watched.
    pub call: &'static Call,
    /// What one is called in Kubernetes.
    pub object: &'static str,
    /// The kind of its facts.
    pub kind: &'static str,
    /// Whether only the objects' metadata is asked for.
    pub metadata_only: bool,
    /// Objects a page of a list: about 5 MB of JSON at the sizes seen (an EndpointSlice holds up to 100 endpoints of
    /// some 350 B, a Node some 10 KB, the others 2 KB).
    pub page: u32,
    decode: fn(&ObjectMeta, &Value) -> Result<Vec<Said>, serde_json::Error>,
}

/// Everything that the server watches.
pub static WATCHED: [Watched; 6] = [
    Watched {
        call: &permissions::SERVICES,
        object: "Service",
        kind: kind::SERVICE,
        metadata_only: false,
        page: 500,
        decode: |metadata, rest| services::read(metadata, rest).map(one),
    },
    Watched {
        call: &permissions::ENDPOINT_SLICES,
        object: "EndpointSlice",
        kind: kind::ENDPOINT,
        metadata_only: false,
        page: 150,
        decode: endpoints::read,
    },
    Watched {
        call: &permissions::NODES,
        object: "Node",
        kind: kind::NODE,
        metadata_only: false,
        page: 500,
        decode: |metadata, rest| nodes::read(metadata, rest).map(one),
    },
    Watched {
        call: &permissions::NAMESPACES,
        object: "Namespace",
        kind: kind::NAMESPACE,
        metadata_only: false,
        page: 500,
        decode: |metadata, _| Ok(one(named(kind::NAMESPACE, metadata))),
    },
    Watched {
        call: &permissions::REPLICA_SETS,
        object: "ReplicaSet",
        kind: kind::REPLICA_SET,
        metadata_only: true,
        page: 500,
        decode: |metadata, _| Ok(one(owned(kind::REPLICA_SET, metadata))),
    },
    Watched {
        call: &permissions::JOBS,
        object: "Job",
        kind: kind::JOB,
        metadata_only: true,
        page: 500,
        decode: |metadata, _| Ok(one(owned(kind::JOB, metadata))),
    },
];

fn one(said: Said) -> Vec<Said> {
    vec![said]
}

impl Watched {
    /// What an object of this kind says, with what is collected of it. `rest` is everything beside its metadata.
    ///
    /// # Errors
    /// When a field is not of Kubernetes' type.
    pub fn read(&self, metadata: &ObjectMeta, rest: &Value, collect: &Collect) -> Result<Thing, serde_json::Error> {
        let mut said = (self.decode)(metadata, rest)?;
        if collect.wants(self.kind) {
            let mut object = if rest.is_object() { rest.clone() } else { json!({}) };
            object["metadata"] = serde_json::to_value(metadata)?;
            for one in &mut said {
                collect.add(self.kind, &object, &mut one.attributes);
            }
        }
        Ok(Thing {
            key: self.key(metadata),
            created: metadata.creation_timestamp.as_ref().and_then(nanos),
            written: metadata.managed_fields.iter().flatten().filter_map(|entry| nanos(entry.time.as_ref()?)).max(),
            said,
        })
    }

    /// [`Thing::key`] of an object.
    pub fn key(&self, metadata: &ObjectMeta) -> String {
        let key = if self.kind == kind::NODE { &metadata.name } else { &metadata.uid };
        key.clone().unwrap_or_default()
    }
}

/// A time of the API server; it has whole seconds.
pub(super) fn nanos(time: &Time) -> Option<UnixNanos> {
    i64::try_from(time.0.as_nanosecond()).ok().map(UnixNanos)
}

/// An object's name, namespace and beginning.
pub(super) fn named(kind: &'static str, metadata: &ObjectMeta) -> Said {
    Said {
        kind,
        id: metadata.uid.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        namespace: metadata.namespace.clone().unwrap_or_default(),
        from: metadata.creation_timestamp.as_ref().and_then(nanos),
        ..Said::default()
    }
}

/// The same with its controller.
fn owned(kind: &'static str, metadata: &ObjectMeta) -> Said {
    let mut said = named(kind, metadata);
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    if let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) {
        for (name, value) in [
            (attribute::OWNER_KIND, &owner.kind),
            (attribute::OWNER_NAME, &owner.name),
            (attribute::OWNER_UID, &owner.uid),
        ] {
            said.attributes.insert(name.to_owned(), value.clone());
        }
    }
    said
}
