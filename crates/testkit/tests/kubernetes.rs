//! The promise: the stand-ins for the API server and the kubelets say what the cluster is, in the recorded forms, and
//! follow its changes.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use weir_testkit::cluster::kubernetes::KUBELET_PORT;
use weir_testkit::cluster::{Cluster, Families, Kind, Place, Plan, PodPlan, Protocol, ServicePlan, TrafficPolicy};
use weir_testkit::is_root_or_skip;

const PATIENCE: Duration = Duration::from_secs(20);

fn plan() -> Plan {
    let pod =
        |name, node| PodPlan::new("demo", name, node).label("app", "web").owned_by("ReplicaSet", "web-6675746f8b");
    Plan::of_nodes(2)
        .families(Families::Dual)
        .pod(pod("web-6675746f8b-aaaaa", "node1").containers(&["httpd", "side"]))
        .pod(pod("web-6675746f8b-bbbbb", "node2"))
        .pod(PodPlan::new("demo", "hostnet", "node2").on_host_network().owned_by("DaemonSet", "hostnet"))
        .service(
            ServicePlan::new("demo", "web", Kind::NodePort(TrafficPolicy::Local))
                .port(Protocol::Tcp, 80, 8080)
                .affinity(Duration::from_secs(60)),
        )
}

/// An HTTP/1.0 exchange, whose answer ends with the connection: its status and the rest.
fn get(from: &Place, server: SocketAddr, path: &str, token: Option<&str>) -> Result<(u16, BufReader<TcpStream>)> {
    let mut stream = from.enter(|| Ok(TcpStream::connect_timeout(&server, PATIENCE)?))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n{token}\r\n")?;
    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    answer.read_line(&mut line)?;
    let status = line.split(' ').nth(1).context("a status")?.parse()?;
    while line != "\r\n" {
        line.clear();
        ensure!(answer.read_line(&mut line)? > 0, "the head ends");
    }
    Ok((status, answer))
}

struct Api<'a> {
    cluster: &'a Cluster,
    from: &'a Place,
}

impl Api<'_> {
    fn get(&self, path: &str) -> Result<(u16, Value)> {
        let token = Some(self.cluster.kubernetes_token());
        let (status, mut answer) = get(self.from, self.cluster.api_server(), path, token)?;
        let mut text = String::new();
        answer.read_to_string(&mut text)?;
        Ok((status, serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))?))
    }

    fn items(&self, path: &str) -> Result<Vec<Value>> {
        let (status, list) = self.get(path)?;
        ensure!(status == 200, "{path}: {list}");
        Ok(list["items"].as_array().context("items")?.clone())
    }
}

fn names(items: &[Value]) -> BTreeSet<String> {
    items.iter().filter_map(|item| item["metadata"]["name"].as_str().map(ToOwned::to_owned)).collect()
}

/// The names of all fields below, lists being of one form.
fn fields(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                // Keys of free choice.
                let free = ["labels", "annotations", "selector"].iter().any(|name| at.ends_with(name));
                if !free {
                    found.insert(format!("{at}.{name}"));
                    fields(value, &format!("{at}.{name}"), found);
                }
            }
        }
        Value::Array(list) => {
            for value in list {
                fields(value, at, found);
            }
        }
        _ => {}
    }
}

/// Recorded from a real cluster, shortened: see `tests/data/README.md`.
fn recorded(kind: &str) -> Result<BTreeSet<String>> {
    let all: Value = serde_json::from_str(include_str!("data/kubernetes-fields.json"))?;
    let names = all[kind].as_array().with_context(|| format!("no recorded fields of {kind}"))?;
    Ok(names.iter().filter_map(|name| name.as_str().map(ToOwned::to_owned)).collect())
}

#[test]
fn lists_say_what_the_cluster_is_in_the_recorded_forms() -> Result<()> {
    if !is_root_or_skip("lists_say_what_the_cluster_is_in_the_recorded_forms") {
        return Ok(());
    }
    let cluster = Cluster::build(&plan())?;
    let api = Api { cluster: &cluster, from: cluster.node("node1")?.place() };
    for (kind, path) in [
        ("pods", "/api/v1/pods"),
        ("services", "/api/v1/services"),
        ("nodes", "/api/v1/nodes"),
        ("namespaces", "/api/v1/namespaces"),
        ("endpointslices", "/apis/discovery.k8s.io/v1/endpointslices"),
        ("replicasets", "/apis/apps/v1/replicasets"),
    ] {
        let items = api.items(path)?;
        ensure!(!items.is_empty(), "no {kind}");
        let mut found = BTreeSet::new();
        for item in &items {
            fields(item, "", &mut found);
        }
        let known = recorded(kind)?;
        let strange: Vec<_> = found.difference(&known).collect();
        ensure!(strange.is_empty(), "{kind} have fields that the real ones have not: {strange:?}");
    }

    let pods = api.items("/api/v1/namespaces/demo/pods?fieldSelector=spec.nodeName%3Dnode2")?;
    ensure!(names(&pods) == BTreeSet::from(["hostnet".into(), "web-6675746f8b-bbbbb".into()]), "{pods:?}");
    for pod in &pods {
        let own = cluster.pod("demo", pod["metadata"]["name"].as_str().context("a name")?)?;
        let addresses: Vec<String> = own.addresses.iter().map(|address| address.to_string()).collect();
        let told: Vec<&str> =
            pod["status"]["podIPs"].as_array().context("podIPs")?.iter().filter_map(|ip| ip["ip"].as_str()).collect();
        ensure!(told == addresses && pod["metadata"]["uid"] == *own.uid, "{pod}");
        let id = format!("containerd://{}", own.containers[0].id);
        ensure!(pod["status"]["containerStatuses"][0]["containerID"] == *id, "{pod}");
    }
    let sets = api.items("/apis/apps/v1/replicasets")?;
    ensure!(sets[0]["metadata"]["ownerReferences"][0]["name"] == "web", "{sets:?}");
    ensure!(pods[1]["metadata"]["ownerReferences"][0]["uid"] == sets[0]["metadata"]["uid"]);

    let slices = api.items("/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices")?;
    ensure!(names(&slices) == BTreeSet::from(["web-ipv4".into(), "web-ipv6".into()]));
    ensure!(slices.iter().all(|slice| slice["endpoints"].as_array().is_some_and(|all| all.len() == 2)), "{slices:?}");

    // The kubelet's own pods only; nobody without the token.
    let node = cluster.node("node1")?;
    for at in node.addresses.iter() {
        let at = SocketAddr::new(at, KUBELET_PORT);
        let (status, _) = get(node.place(), at, "/pods", None)?;
        ensure!(status == 401);
        let (status, mut answer) = get(node.place(), at, "/pods", Some(cluster.kubernetes_token()))?;
        let mut text = String::new();
        answer.read_to_string(&mut text)?;
        let list: Value = serde_json::from_str(&text)?;
        ensure!(status == 200 && list["kind"] == "PodList" && list["metadata"] == serde_json::json!({}));
        let items = list["items"].as_array().context("items")?;
        ensure!(names(items) == BTreeSet::from(["web-6675746f8b-aaaaa".into()]), "{items:?}");
    }
    // Pods reach the API server by its Service.
    let pod = cluster.pod("demo", "web-6675746f8b-bbbbb")?;
    let service = cluster.service("default", "kubernetes")?.at(443)?;
    ensure!(get(pod.sandbox(), service[0], "/readyz", Some(cluster.kubernetes_token()))?.0 == 200);
    ensure!(get(pod.sandbox(), service[0], "/readyz", Some("wrong"))?.0 == 401);
    Ok(())
}

fn next(watch: &mut BufReader<TcpStream>) -> Result<(String, Value)> {
    let mut line = String::new();
    ensure!(watch.read_line(&mut line)? > 0, "the watch has ended");
    let mut event: Value = serde_json::from_str(&line)?;
    Ok((event["type"].as_str().context("a type")?.to_owned(), event["object"].take()))
}

#[test]
fn watches_follow_the_cluster_and_old_versions_are_gone() -> Result<()> {
    if !is_root_or_skip("watches_follow_the_cluster_and_old_versions_are_gone") {
        return Ok(());
    }
    let mut cluster = Cluster::build(&plan())?;
    let (server, token, from) =
        (cluster.api_server(), cluster.kubernetes_token().to_owned(), cluster.control().clone());
    let open = |path: &str| get(&from, server, path, Some(&token));
    let list = Api { cluster: &cluster, from: cluster.control() }.get("/api/v1/pods")?.1;
    let version = list["metadata"]["resourceVersion"].as_str().context("a version")?.to_owned();
    let (_, mut pods) = open(&format!("/api/v1/pods?watch=1&resourceVersion={version}&allowWatchBookmarks=true"))?;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices";
    let (_, mut slices) = open(&format!("{slices}?watch=true&sendInitialEvents=true"))?;
    for expected in ["ADDED", "ADDED", "BOOKMARK"] {
        let (kind, object) = next(&mut slices)?;
        ensure!(kind == expected && object["kind"] == "EndpointSlice", "{kind} {object}");
        if kind == "BOOKMARK" {
            ensure!(object["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true", "{object}");
        }
    }

    let more = PodPlan::new("demo", "more", "node1").label("app", "web");
    let uid = cluster.add_pod(&more)?.uid.clone();
    let (kind, object) = next(&mut pods)?;
    ensure!(kind == "ADDED" && object["metadata"]["uid"] == *uid && object["kind"] == "Pod", "{kind} {object}");
    for _family in 0..2 {
        let (kind, object) = next(&mut slices)?;
        ensure!(kind == "MODIFIED" && object["endpoints"].as_array().is_some_and(|all| all.len() == 3), "{object}");
    }
    cluster.delete_pod("demo", "more")?;
    let (kind, object) = next(&mut pods)?;
    ensure!(kind == "DELETED" && object["metadata"]["uid"] == *uid, "{kind} {object}");
    cluster.set_endpoints("demo", "web", &[])?;
    let (kind, object) = next(&mut pods)?;
    ensure!(kind == "BOOKMARK", "only others changed: {kind} {object}");

    // From the version of the list again: the same changes. After a compaction: 410, as an event of HTTP 200.
    let again = format!("/api/v1/pods?watch=1&resourceVersion={version}");
    let (_, mut repeated) = open(&again)?;
    ensure!(next(&mut repeated)?.0 == "ADDED" && next(&mut repeated)?.0 == "DELETED");
    cluster.compact_versions();
    let (status, mut gone) = open(&again)?;
    let (kind, object) = next(&mut gone)?;
    ensure!(status == 200 && kind == "ERROR" && object["code"] == 410 && object["reason"] == "Expired", "{object}");
    ensure!(next(&mut gone).is_err(), "it ends");
    ensure!(open("/api/v1/pods?resourceVersion=999999999")?.0 == 504);
    let (_, mut short) = open("/api/v1/pods?watch=1&timeoutSeconds=1")?;
    while next(&mut short).is_ok() {}
    Ok(())
}
