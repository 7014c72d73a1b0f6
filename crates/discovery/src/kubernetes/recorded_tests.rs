//! What a real API server said, as this crate reads it: `tests/data/kubernetes/README.md`.

use super::objects::{Thing, WATCHED, Watched};
use crate::collect::Collect;
use crate::said::Said;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use weir_model::UnixNanos;
use weir_model::fact::kind;

fn watched(kind: &str) -> &'static Watched {
    WATCHED.iter().find(|watched| watched.kind == kind).unwrap()
}

fn read(kind: &str, object: &Value) -> Thing {
    let metadata: ObjectMeta = serde_json::from_value(object["metadata"].clone()).unwrap();
    watched(kind).read(&metadata, object, &Collect::default()).unwrap()
}

fn list(kind: &str, text: &str) -> Vec<Thing> {
    let list: Value = serde_json::from_str(text).unwrap();
    list["items"].as_array().unwrap().iter().map(|object| read(kind, object)).collect()
}

fn at(text: &str) -> Option<UnixNanos> {
    let time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time =
        serde_json::from_value(Value::String(text.into())).unwrap();
    super::objects::nanos(&time)
}

fn attributes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn recorded_services_say_their_addresses_ports_and_kinds() {
    let things = list(kind::SERVICE, include_str!("../../tests/data/kubernetes/services.list.json"));
    let by_name: BTreeMap<&str, &Said> =
        things.iter().map(|thing| (thing.said[0].name.as_str(), &thing.said[0])).collect();
    assert_eq!(by_name.keys().copied().collect::<Vec<_>>(), ["echo", "kubernetes", "web", "web-headless", "web-np"]);
    let kubernetes = Said {
        kind: kind::SERVICE,
        id: "14d40cdc-3779-4f8f-82c2-f138d147c832".into(),
        name: "kubernetes".into(),
        namespace: "default".into(),
        addresses: vec![ip("10.96.0.1")],
        from: at("2026-11-23T16:44:38Z"),
        attributes: attributes(&[("ports", "https:443/tcp"), ("selectorless", "true"), ("service_type", "ClusterIP")]),
        ..Said::default()
    };
    assert_eq!(*by_name["kubernetes"], kubernetes);
    assert_eq!(
        by_name["echo"].attributes,
        attributes(&[("ports", "tcp:7000/tcp,udp:7000/udp"), ("service_type", "ClusterIP")])
    );
    let headless = by_name["web-headless"];
    assert!(headless.addresses.is_empty() && headless.attributes["headless"] == "true");
    let node_port = &by_name["web-np"].attributes;
    assert!(node_port["service_type"] == "NodePort" && node_port["ports"].contains('@'), "{node_port:?}");
}

#[test]
fn recorded_endpoints_name_service_pod_node_and_ports() {
    let things = list(kind::ENDPOINT, include_str!("../../tests/data/kubernetes/endpointslices.list.json"));
    let echo = things.iter().find(|thing| thing.said.iter().any(|said| said.name == "echo")).unwrap();
    assert_eq!(echo.key, "cf6780c8-5f17-44bc-95b1-48e252dc69be");
    assert_eq!(echo.created, at("2026-11-23T16:45:41Z"));
    let expected = Said {
        kind: kind::ENDPOINT,
        id: format!("{}/10.244.0.14", echo.key),
        name: "echo".into(),
        namespace: "demo".into(),
        parent: "demo/echo".into(),
        addresses: vec![ip("10.244.0.14")],
        attributes: attributes(&[
            ("conditions", "ready,serving"),
            ("node", "node1"),
            ("ports", &echo.said[0].attributes["ports"]),
            ("target_pod", "c6007fa7-ea88-4a14-ba06-d008960e74ab"),
        ]),
        ..Said::default()
    };
    assert_eq!(echo.said, [expected]);
    assert!(echo.said[0].attributes["ports"].contains("tcp:7777/tcp"), "{:?}", echo.said[0].attributes);
    // The API server's own: no pod, no node, and no condition but its readiness.
    let own = things.iter().find(|thing| thing.said.iter().any(|said| said.name == "kubernetes")).unwrap();
    assert_eq!(own.said[0].attributes, attributes(&[("conditions", "ready,serving"), ("ports", "https:6443/tcp")]));
}

#[test]
fn recorded_nodes_namespaces_replica_sets_and_jobs_say_who_they_are() {
    let nodes = list(kind::NODE, include_str!("../../tests/data/kubernetes/nodes.list.json"));
    assert_eq!((nodes[0].key.as_str(), nodes[0].said[0].id.as_str()), ("node1", "node1"));
    assert!(nodes[0].said[0].addresses.contains(&ip("10.88.0.1")), "{:?}", nodes[0]);
    let namespaces = list(kind::NAMESPACE, include_str!("../../tests/data/kubernetes/namespaces.list.json"));
    let names: Vec<&str> = namespaces.iter().map(|thing| thing.said[0].name.as_str()).collect();
    assert_eq!(names, ["default", "demo", "kube-node-lease", "kube-public", "kube-system"]);
    let sets = list(kind::REPLICA_SET, include_str!("../../tests/data/kubernetes/replicasets.list.json"));
    let owner = |said: &Said| (said.attributes["owner_kind"].clone(), said.attributes["owner_name"].clone());
    assert_eq!(sets[0].said[0].name, "web-6675746f8b");
    assert_eq!(owner(&sets[0].said[0]), ("Deployment".into(), "web".into()));
    assert_eq!(sets[0].said[0].attributes["owner_uid"].len(), 36);
    let jobs = list(kind::JOB, include_str!("../../tests/data/kubernetes/jobs.list.json"));
    assert_eq!(jobs.len(), 3);
    assert!(jobs.iter().all(|job| owner(&job.said[0]) == ("CronJob".into(), "tick".into())));
}

#[test]
fn labels_annotations_and_fields_are_collected_by_configuration() {
    let text = include_str!("../../tests/data/kubernetes/services.list.json");
    let list: Value = serde_json::from_str(text).unwrap();
    let entries =
        ["service.provider=$.metadata.labels.provider", "service.affinity={.spec.sessionAffinity}", "node.x=$.spec.x"];
    let collect = Collect::parse(&entries, &[kind::SERVICE, kind::NODE]).unwrap();
    let metadata = serde_json::from_value(list["items"][0]["metadata"].clone()).unwrap();
    let thing = watched(kind::SERVICE).read(&metadata, &list["items"][0], &collect).unwrap();
    let said = &thing.said[0].attributes;
    assert_eq!((said["provider"].as_str(), said["affinity"].as_str()), ("kubernetes", "None"));
    assert!(!said.contains_key("x"));
}

#[test]
fn a_recorded_watch_ends_with_the_endpoints_that_are_there() {
    let mut current: BTreeMap<String, Thing> =
        list(kind::ENDPOINT, include_str!("../../tests/data/kubernetes/endpointslices.before-watch.json"))
            .into_iter()
            .map(|thing| (thing.key.clone(), thing))
            .collect();
    let mut seen = Vec::new();
    for line in include_str!("../../tests/data/kubernetes/endpointslices.watch.jsonl").lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        match event["type"].as_str().unwrap() {
            "BOOKMARK" => {
                // kube's watcher keeps it to itself; its empty lists must not confuse anybody who reads it.
                assert_eq!(read(kind::ENDPOINT, &event["object"]).said, []);
            }
            "DELETED" => {
                current.remove(&read(kind::ENDPOINT, &event["object"]).key);
            }
            _ => {
                let thing = read(kind::ENDPOINT, &event["object"]);
                assert!(thing.written >= thing.created, "{thing:?}");
                seen.extend(
                    thing.said.iter().map(|said| said.attributes.get("conditions").cloned().unwrap_or_default()),
                );
                current.insert(thing.key.clone(), thing);
            }
        }
    }
    let addresses = |service: &str| -> Vec<String> {
        let all = current.values().flat_map(|thing| &thing.said).filter(|said| said.name == service);
        all.flat_map(|said| said.addresses.iter().map(ToString::to_string)).collect()
    };
    assert_eq!(addresses("web"), ["10.244.0.22", "10.244.0.23"]);
    assert_eq!(addresses("echo"), ["10.244.0.26"]);
    assert!(addresses("tmpsvc").is_empty(), "its slice was deleted");
    for conditions in ["", "ready,serving", "serving,terminating"] {
        assert!(seen.iter().any(|seen| seen == conditions), "no endpoint was `{conditions}`");
    }
}
