//! What a Service says. Pure.
//!
//! Its addresses are those under which it can be reached as itself: cluster addresses of both families, external ones,
//! and those that a load balancer has given it. A node's address with a node port is no address of it; its ports tell it.

use super::objects::named;
use crate::said::Said;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use weir_model::fact::{attribute, kind};

/// What a headless Service has for a cluster address.
const NONE: &str = "None";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    external_name: Option<String>,
    selector: Option<BTreeMap<String, String>>,
    ports: Option<Vec<Port>>,
}

/// A port of a Service or of an EndpointSlice.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Port {
    pub(super) name: Option<String>,
    pub(super) protocol: Option<String>,
    #[serde(rename = "port")]
    pub(super) number: Option<u16>,
    #[serde(rename = "nodePort")]
    pub(super) on_nodes: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    load_balancer: Option<LoadBalancer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LoadBalancer {
    ingress: Option<Vec<Ingress>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ingress {
    ip: Option<String>,
}

/// Reads a Service.
pub(super) fn read(metadata: &ObjectMeta, rest: &Value) -> Result<Said, serde_json::Error> {
    let spec = Option::<Spec>::deserialize(&rest["spec"])?.unwrap_or_default();
    let status = Option::<Status>::deserialize(&rest["status"])?.unwrap_or_default();
    let service_type = spec.kind.unwrap_or_else(|| "ClusterIP".to_owned());
    let is_name = service_type == "ExternalName";
    let cluster = match (spec.cluster_ips, spec.cluster_ip) {
        (Some(all), _) if !all.is_empty() => all,
        (_, one) => one.into_iter().collect(),
    };
    let ingress = status.load_balancer.and_then(|balancer| balancer.ingress).unwrap_or_default();
    let texts = cluster
        .iter()
        .chain(spec.external_ips.iter().flatten())
        .chain(ingress.iter().filter_map(|ingress| ingress.ip.as_ref()));
    let mut said = named(kind::SERVICE, metadata);
    said.addresses = addresses(texts);
    let mut tell = |name: &str, value: String| said.attributes.insert(name.to_owned(), value);
    let ports = ports(spec.ports.as_deref().unwrap_or_default());
    if !ports.is_empty() {
        tell(attribute::PORTS, ports);
    }
    if cluster.iter().any(|text| text == NONE) {
        tell(attribute::HEADLESS, "true".to_owned());
    }
    if let Some(name) = spec.external_name.filter(|name| is_name && !name.is_empty()) {
        tell(attribute::EXTERNAL_NAME, name.trim_end_matches('.').to_ascii_lowercase());
    }
    if !is_name && spec.selector.is_none_or(|selector| selector.is_empty()) {
        tell(attribute::SELECTORLESS, "true".to_owned());
    }
    tell(attribute::SERVICE_TYPE, service_type);
    Ok(said)
}

/// Addresses in their order, each once, IPv4-mapped ones unmapped; what is none (`None`, a host name) left out.
pub(super) fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for text in texts {
        if let Ok(address) = text.parse::<IpAddr>()
            && !addresses.contains(&address.to_canonical())
        {
            addresses.push(address.to_canonical());
        }
    }
    addresses
}

/// `[NAME:]PORT/PROTOCOL[@NODEPORT]`, separated by commas.
pub(super) fn ports(ports: &[Port]) -> String {
    let texts = ports.iter().filter_map(|port| {
        let name = port.name.as_deref().filter(|name| !name.is_empty()).map(|name| format!("{name}:"));
        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase();
        let node = port.on_nodes.filter(|number| *number != 0).map(|number| format!("@{number}"));
        Some(format!("{}{}/{protocol}{}", name.unwrap_or_default(), port.number?, node.unwrap_or_default()))
    });
    texts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_spec(spec: &Value, status: &Value) -> Said {
        read(&ObjectMeta::default(), &json!({"spec": spec, "status": status})).unwrap()
    }

    fn addresses_of(said: &Said) -> Vec<String> {
        said.addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_service_has_its_cluster_external_and_load_balancer_addresses_of_both_families() {
        let said = read_spec(
            &json!({
                "type": "LoadBalancer", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:96::7"],
                "externalIPs": ["192.0.2.1", "10.96.0.7"], "selector": {"app": "web"},
                "ports": [
                    {"name": "http", "protocol": "TCP", "port": 80, "targetPort": "http", "nodePort": 30080},
                    {"name": "dns", "protocol": "UDP", "port": 53, "nodePort": 30053},
                    {"protocol": "SCTP", "port": 9},
                ],
            }),
            &json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.9", "ipMode": "VIP"}, {"hostname": "lb.example"}]}}),
        );
        assert_eq!(addresses_of(&said), ["10.96.0.7", "fd00:96::7", "192.0.2.1", "203.0.113.9"]);
        let expected = [("ports", "http:80/tcp@30080,dns:53/udp@30053,9/sctp"), ("service_type", "LoadBalancer")];
        assert_eq!(said.attributes, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn headless_external_name_and_selectorless_services_say_so() {
        let headless = read_spec(
            &json!({"clusterIP": "None", "clusterIPs": ["None"], "type": "ClusterIP", "selector": {"a": "b"}}),
            &Value::Null,
        );
        assert!(headless.addresses.is_empty() && headless.attributes["headless"] == "true");
        assert!(!headless.attributes.contains_key("selectorless") && !headless.attributes.contains_key("ports"));
        let name = read_spec(&json!({"type": "ExternalName", "externalName": "DB.example.com."}), &json!({}));
        assert_eq!((name.addresses.len(), name.attributes["external_name"].as_str()), (0, "db.example.com"));
        assert!(!name.attributes.contains_key("selectorless") && !name.attributes.contains_key("headless"));
        let manual = read_spec(&json!({"clusterIP": "10.96.0.9", "ports": [{"port": 5432}]}), &json!({}));
        assert_eq!(
            (addresses_of(&manual), manual.attributes["selectorless"].as_str()),
            (vec!["10.96.0.9".into()], "true")
        );
        assert_eq!(manual.attributes["ports"], "5432/tcp");
    }

    #[test]
    fn a_service_that_is_not_one_is_an_error_and_no_guess() {
        assert!(read(&ObjectMeta::default(), &json!({"spec": {"ports": "80"}})).is_err());
        assert!(read(&ObjectMeta::default(), &json!({"spec": {"ports": [{"port": 70000}]}})).is_err());
    }
}
