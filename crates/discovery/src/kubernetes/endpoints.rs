//! What an EndpointSlice says: one endpoint an address. Pure.
//!
//! A Service may have several slices, and while an endpoint moves from one to another both may have it: then two facts of
//! one endpoint overlap, which say the same of the same Service. Slices of no Service, and those of host names, say
//! nothing.

use super::objects::named;
use super::services::{Port, ports};
use crate::said::Said;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;
use std::net::IpAddr;
use weir_model::fact::{attribute, kind};

/// The label that names a slice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Slice {
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Endpoint {
    addresses: Vec<String>,
    conditions: Option<Conditions>,
    target_ref: Option<TargetRef>,
    node_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TargetRef {
    kind: Option<String>,
    uid: Option<String>,
}

/// Reads an EndpointSlice. From when an address is an endpoint it does not say.
pub(super) fn read(metadata: &ObjectMeta, rest: &Value) -> Result<Vec<Said>, serde_json::Error> {
    let slice = Slice::deserialize(rest)?;
    let Some(service) = metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)) else {
        return Ok(Vec::new());
    };
    let slice_said = named(kind::ENDPOINT, metadata);
    let ports = ports(slice.ports.as_deref().unwrap_or_default());
    let mut said: Vec<Said> = Vec::new();
    let mut endpoints = slice.endpoints.unwrap_or_default();
    // An address that is there twice is one endpoint: what serves says more of it than what does not.
    endpoints.sort_by_key(|endpoint| !is_ready(endpoint));
    for endpoint in &endpoints {
        for text in &endpoint.addresses {
            let Ok(address) = text.parse::<IpAddr>() else { continue };
            let address = address.to_canonical();
            let id = format!("{}/{address}", slice_said.id);
            if said.iter().any(|known| known.id == id) {
                continue;
            }
            let mut one = Said {
                id,
                name: service.clone(),
                parent: format!("{}/{service}", slice_said.namespace),
                addresses: vec![address],
                from: None,
                ..slice_said.clone()
            };
            let mut tell = |name: &str, value: &str| {
                if !value.is_empty() {
                    one.attributes.insert(name.to_owned(), value.to_owned());
                }
            };
            tell(attribute::PORTS, &ports);
            tell(attribute::NODE, endpoint.node_name.as_deref().unwrap_or_default());
            tell(attribute::CONDITIONS, &conditions(endpoint));
            if let Some(target) = &endpoint.target_ref
                && target.kind.as_deref() == Some("Pod")
            {
                tell(attribute::TARGET_POD, target.uid.as_deref().unwrap_or_default());
            }
            said.push(one);
        }
    }
    Ok(said)
}

/// An unknown readiness counts as ready (`EndpointConditions` in discovery/v1).
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn conditions(endpoint: &Endpoint) -> String {
    let told = endpoint.conditions.as_ref();
    let ready = is_ready(endpoint);
    let serving = told.and_then(|told| told.serving).unwrap_or(ready);
    let terminating = told.and_then(|told| told.terminating).unwrap_or(false);
    let words = [("ready", ready), ("serving", serving), ("terminating", terminating)];
    words.iter().filter(|(_, is)| *is).map(|(word, _)| *word).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata(labels: &[(&str, &str)]) -> ObjectMeta {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ObjectMeta {
            uid: Some("slice-uid".into()),
            namespace: Some("shop".into()),
            labels: Some(labels),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn an_address_that_a_slice_has_twice_is_one_endpoint() {
        let rest = json!({
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": false}, "targetRef": {"kind": "Pod", "uid": "old"}},
                {"addresses": ["10.0.0.1"], "conditions": {}, "targetRef": {"kind": "Pod", "uid": "new"}, "nodeName": "n1"},
            ],
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}, {"name": "any", "port": null}],
        });
        let said = read(&metadata(&[(SERVICE_NAME, "web")]), &rest).unwrap();
        assert_eq!(said.len(), 1);
        assert_eq!((said[0].id.as_str(), said[0].parent.as_str()), ("slice-uid/10.0.0.1", "shop/web"));
        let expected = [("conditions", "ready,serving"), ("node", "n1"), ("ports", "8080/tcp"), ("target_pod", "new")];
        assert_eq!(said[0].attributes, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn a_draining_endpoint_still_serves() {
        let rest = json!({"endpoints": [
            {"addresses": ["fd00::1"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        ], "ports": null});
        let said = read(&metadata(&[(SERVICE_NAME, "web")]), &rest).unwrap();
        assert_eq!(said[0].attributes["conditions"], "serving,terminating");
        assert!(!said[0].attributes.contains_key("target_pod"), "nobody said which pod it is");
    }

    #[test]
    fn slices_of_no_service_and_of_host_names_say_nothing() {
        let named = json!({"addressType": "FQDN", "endpoints": [{"addresses": ["db.example.com"]}]});
        assert_eq!(read(&metadata(&[(SERVICE_NAME, "web")]), &named).unwrap(), []);
        let address = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]});
        assert_eq!(read(&metadata(&[("app", "web")]), &address).unwrap(), []);
        assert_eq!(read(&metadata(&[(SERVICE_NAME, "web")]), &json!({"endpoints": null, "ports": null})).unwrap(), []);
    }
}
