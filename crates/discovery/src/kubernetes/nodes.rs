//! What a Node says: its addresses, and where it stands. Pure.

use super::objects::named;
use super::services::addresses;
use crate::said::Said;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;
use weir_model::fact::{attribute, kind};

/// The well-known labels, each with the one that it replaced.
const LABELS: [(&str, [&str; 2]); 3] = [
    (attribute::ZONE, ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]),
    (attribute::REGION, ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]),
    (attribute::INSTANCE_TYPE, ["node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type"]),
];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    addresses: Option<Vec<Address>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

/// Reads a Node. Its id is its name.
pub(super) fn read(metadata: &ObjectMeta, rest: &Value) -> Result<Said, serde_json::Error> {
    let status = Option::<Status>::deserialize(&rest["status"])?.unwrap_or_default();
    let mut said = named(kind::NODE, metadata);
    said.id.clone_from(&said.name);
    let told = status.addresses.unwrap_or_default();
    said.addresses = addresses(
        told.iter().filter(|one| matches!(one.kind.as_str(), "InternalIP" | "ExternalIP")).map(|one| &one.address),
    );
    let labels = metadata.labels.as_ref();
    for (name, candidates) in LABELS {
        let value = candidates.iter().find_map(|label| labels?.get(*label)).filter(|value| !value.is_empty());
        if let Some(value) = value {
            said.attributes.insert(name.to_owned(), value.clone());
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labelled(labels: &[(&str, &str)]) -> Said {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let metadata = ObjectMeta {
            name: Some("node1".into()),
            uid: Some("uid".into()),
            labels: Some(labels),
            ..ObjectMeta::default()
        };
        let addresses = json!([
            {"type": "InternalIP", "address": "10.88.0.1"}, {"type": "InternalIP", "address": "fd00::1"},
            {"type": "ExternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "10.0.0.1"},
        ]);
        read(&metadata, &json!({"spec": {}, "status": {"addresses": addresses}})).unwrap()
    }

    #[test]
    fn a_node_has_its_name_for_an_id_and_only_its_own_addresses() {
        let said = labelled(&[]);
        assert_eq!((said.id.as_str(), said.name.as_str()), ("node1", "node1"));
        let texts: Vec<String> = said.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.88.0.1", "fd00::1", "192.0.2.1"]);
        assert!(said.attributes.is_empty());
    }

    #[test]
    fn zone_region_and_type_come_from_the_new_labels_else_from_the_old() {
        let new = labelled(&[
            ("topology.kubernetes.io/zone", "a"),
            ("failure-domain.beta.kubernetes.io/zone", "old"),
            ("topology.kubernetes.io/region", "eu"),
            ("node.kubernetes.io/instance-type", "large"),
        ]);
        let expected = [("instance_type", "large"), ("region", "eu"), ("zone", "a")];
        assert_eq!(new.attributes, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        let old = labelled(&[
            ("failure-domain.beta.kubernetes.io/zone", "b"),
            ("failure-domain.beta.kubernetes.io/region", "us"),
            ("beta.kubernetes.io/instance-type", "small"),
        ]);
        let expected = [("instance_type", "small"), ("region", "us"), ("zone", "b")];
        assert_eq!(old.attributes, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }
}
