//! The promise: the server knows the cluster's Services, endpoints, nodes, namespaces and owners, and since when, whatever
//! becomes of the API server and of itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use serde_json::{Value, json};
use std::sync::Arc;
use support::{SECOND, TestServer, at, clock};
use weir_testkit::cluster::kubernetes::faults::Fault;
use weir_testkit::cluster::kubernetes::{ApiServer, Tls};

/// Every kind of which the server holds the cluster's facts.
const ALL: &str = "/api/v1/metadata?limit=100000";

fn flags(api: &ApiServer, folder: &std::path::Path) -> Vec<String> {
    let token = folder.join("api-token");
    std::fs::write(&token, api.token()).unwrap();
    let token = token.to_str().unwrap().to_owned();
    vec!["--kubernetes".to_owned(), api.url(), "--kubernetes-token-file".to_owned(), token]
}

async fn start(api: &ApiServer, more: &[&str]) -> TestServer {
    start_in(api, Arc::new(tempfile::tempdir().unwrap()), clock(), more).await
}

async fn start_in(
    api: &ApiServer,
    folder: Arc<tempfile::TempDir>,
    clock: Arc<weir_daemon::clock::ManualClock>,
    more: &[&str],
) -> TestServer {
    let flags = flags(api, folder.path());
    let all: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    TestServer::start_in(folder, clock, &all).await
}

fn rows<'a>(body: &'a Value, kind: &str) -> Vec<&'a Value> {
    let items = body["items"].as_array().unwrap().iter();
    items.filter(|row| row["kind"] == kind && row["source"] == "api" && row["node"] == "").collect()
}

fn service(name: &str, uid: &str, address: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": uid, "creationTimestamp": "2025-12-01T00:00:00Z",
            "labels": {"team": "blue"},
        },
        "spec": {"type": "ClusterIP", "clusterIP": address, "selector": {"a": "b"}, "ports": [{"port": 80}]},
        "status": {"loadBalancer": {}},
    })
}

fn watch_row<'a>(body: &'a Value, resource: &str) -> &'a Value {
    let items = body["items"].as_array().unwrap();
    items.iter().find(|row| row["kind"] == "watch" && row["name"] == resource).unwrap()
}

/// Waits until what is watched is complete.
async fn complete(server: &TestServer) {
    server
        .until("/api/v1/status", |body| {
            let watches = body["items"].as_array().unwrap().iter().filter(|row| row["kind"] == "watch");
            watches.filter(|row| row["health"] == "healthy").count() == 6
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_cluster_becomes_facts_of_every_kind() {
    let api = ApiServer::start(Tls::Off).unwrap();
    for (plural, text) in [
        ("services", include_str!("../../discovery/tests/data/kubernetes/services.list.json")),
        ("endpointslices", include_str!("../../discovery/tests/data/kubernetes/endpointslices.list.json")),
        ("nodes", include_str!("../../discovery/tests/data/kubernetes/nodes.list.json")),
        ("namespaces", include_str!("../../discovery/tests/data/kubernetes/namespaces.list.json")),
        ("replicasets", include_str!("../../discovery/tests/data/kubernetes/replicasets.list.json")),
        ("jobs", include_str!("../../discovery/tests/data/kubernetes/jobs.list.json")),
    ] {
        api.put_list(plural, text).unwrap();
    }
    let server = start(&api, &["--collect", "service.app=$.spec.selector.app"]).await;
    complete(&server).await;
    let counts = [("service", 5), ("node", 1), ("namespace", 5), ("replica_set", 1), ("job", 3)];
    let body = server.until(ALL, |body| counts.iter().all(|(kind, count)| rows(body, kind).len() == *count)).await;
    let web = rows(&body, "service").into_iter().find(|row| row["name"] == "web").unwrap();
    assert!(web["attributes"]["app"] == "web" && web["addresses"] == json!(["10.96.88.48"]), "{web}");
    let endpoints = rows(&body, "endpoint");
    assert!(endpoints.iter().any(|row| row["parent"] == "demo/echo" && row["addresses"] == json!(["10.244.0.14"])));
    let sets = rows(&body, "replica_set");
    assert_eq!(sets[0]["attributes"]["owner_name"], "web");
    let (_, _, metrics) = server.get_raw("/metrics", "").await;
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains("weir_watch_objects{resource=\"services\"} 5\n"), "{metrics}");
    assert!(metrics.contains("weir_watch_lists_total{resource=\"jobs\"} 1\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_renamed_and_one_made_anew_are_other_services_each_in_its_time() {
    let api = ApiServer::start(Tls::Off).unwrap();
    api.put("services", service("web", "uid-1", "10.96.0.1")).unwrap();
    let server = start(&api, &[]).await;
    complete(&server).await;
    server.clock.advance(100 * SECOND as u64);
    api.delete("services", "shop", "web").unwrap();
    let ended = |uid: &'static str| {
        move |body: &Value| rows(body, "service").iter().any(|row| row["id"] == uid && !row["valid_to"].is_null())
    };
    server.until(ALL, ended("uid-1")).await;
    server.clock.advance(10 * SECOND as u64);
    api.put("services", service("web", "uid-2", "10.96.0.1")).unwrap();
    server.until(ALL, |body| rows(body, "service").len() == 2).await;
    server.clock.advance(10 * SECOND as u64);
    api.delete("services", "shop", "web").unwrap();
    api.put("services", service("shop-web", "uid-3", "10.96.0.1")).unwrap();
    let body = server.until(ALL, |body| rows(body, "service").len() == 3 && ended("uid-2")(body)).await;
    let row = |uid: &str| rows(&body, "service").into_iter().find(|row| row["id"] == uid).unwrap().clone();
    assert_eq!((row("uid-1")["name"].clone(), row("uid-1")["valid_to"].clone()), (json!("web"), json!(at(100))));
    assert_eq!((row("uid-2")["name"].clone(), row("uid-2")["valid_to"].clone()), (json!("web"), json!(at(120))));
    assert!(row("uid-3")["name"] == "shop-web" && row("uid-3")["valid_to"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_what_is_gone_ended_when_it_was_last_known() {
    let api = ApiServer::start(Tls::Off).unwrap();
    api.put("services", service("stays", "uid-1", "10.96.0.1")).unwrap();
    api.put("services", service("goes", "uid-2", "10.96.0.2")).unwrap();
    let server = start(&api, &[]).await;
    complete(&server).await;
    server.until(ALL, |body| rows(body, "service").len() == 2).await;
    let (folder, clock) = server.stop().await;
    clock.advance(1000 * SECOND as u64);
    api.delete("services", "shop", "goes").unwrap();
    api.put("services", service("came", "uid-3", "10.96.0.3")).unwrap();
    let server = start_in(&api, folder, clock, &[]).await;
    let body = server.until(ALL, |body| rows(body, "service").iter().any(|row| !row["valid_to"].is_null())).await;
    let gone = rows(&body, "service").into_iter().find(|row| !row["valid_to"].is_null()).unwrap();
    assert_eq!((gone["id"].clone(), gone["valid_to"].clone()), (json!("uid-2"), json!(at(0))), "{gone}");
    assert!(rows(&body, "service").iter().filter(|row| row["valid_to"].is_null()).count() == 2, "{body:#}");
    // Nobody watches any more: what was known ends, too.
    complete(&server).await;
    let (folder, clock) = server.stop().await;
    clock.advance(500 * SECOND as u64);
    let server = TestServer::start_in(folder, clock, &["--kubernetes", "off"]).await;
    let body = server.until(ALL, |body| rows(body, "service").iter().all(|row| !row["valid_to"].is_null())).await;
    let came = rows(&body, "service").into_iter().find(|row| row["id"] == "uid-3").unwrap();
    assert_eq!(came["valid_to"], json!(at(1000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_kind_is_told_with_the_missing_rule_and_holds_up_no_other() {
    let api = ApiServer::start(Tls::Off).unwrap();
    api.put("services", service("web", "uid-1", "10.96.0.1")).unwrap();
    api.fault("jobs", false, Fault::Refuse, 0, usize::MAX);
    let server = start(&api, &[]).await;
    let body = server
        .until("/api/v1/status", |body| {
            watch_row(body, "services")["health"] == "healthy" && watch_row(body, "jobs")["counters"]["failures"] != 0
        })
        .await;
    let jobs = watch_row(&body, "jobs");
    assert_eq!(jobs["health"], "degraded");
    let detail = jobs["detail"].as_str().unwrap();
    assert!(detail.contains(r#"apiGroups: ["batch"]"#) && detail.contains("nothing is known of it"), "{detail}");
    server.until(ALL, |body| rows(body, "service").len() == 1).await;
    // Once the rule is there it needs no restart.
    api.heal();
    complete(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_changes_is_absorbed_and_every_one_is_kept() {
    let api = ApiServer::start(Tls::Off).unwrap();
    let server = start(&api, &[]).await;
    complete(&server).await;
    let slice = |number: usize, address: &str| {
        json!({
            "metadata": {
                "name": format!("web-{number}"), "namespace": "shop", "uid": format!("slice-{number}"),
                "creationTimestamp": "2025-12-01T00:00:00Z", "labels": {"kubernetes.io/service-name": "web"},
            },
            "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        })
    };
    for change in 0..3000 {
        let address = format!("10.0.{}.{}", change / 250, change % 250 + 1);
        api.put("endpointslices", slice(change % 50, &address)).unwrap();
    }
    let last = "10.0.11.250";
    let body =
        server.until(ALL, |body| rows(body, "endpoint").iter().any(|row| row["addresses"] == json!([last]))).await;
    let open = rows(&body, "endpoint").into_iter().filter(|row| row["valid_to"].is_null()).count();
    assert_eq!(open, 50);
    let (_, status) = server.get("/api/v1/status").await;
    let row = watch_row(&status, "endpointslices");
    assert_eq!((row["counters"]["objects"].clone(), row["counters"]["lists"].clone()), (json!(50), json!(1)), "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_path_is_refused_at_start_with_its_place() {
    let api = ApiServer::start(Tls::Off).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut all = flags(&api, folder.path());
    all.extend(["--collect".to_owned(), "service.team=$.metadata[".to_owned()]);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let args = support::args(folder.path(), &all);
    let refused = weir_server::Server::start(args, clock(), tokio_util::sync::CancellationToken::new()).await;
    let Err(error) = refused else { panic!("it starts") };
    assert!(format!("{error:#}").contains("service.team=$.metadata["), "{error:#}");
}
