//! The promise: a ConfigMap is written only over what was read, and a failure says whether it can have been written.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use weir_discovery::kubernetes::client::Access;
use weir_discovery::kubernetes::config_maps::{ConfigMap, ConfigMaps, Failure, FailureKind};
use weir_discovery::kubernetes::pace::Pace;
use weir_model::UnixNanos;
use weir_testkit::cluster::kubernetes::faults::Fault;
use weir_testkit::cluster::kubernetes::{ApiServer, Tls};

fn start() -> (ApiServer, ConfigMaps, tempfile::TempDir) {
    let server = ApiServer::start(Tls::Off).unwrap();
    server.put("namespaces", json!({"metadata": {"name": "weir"}})).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), server.token()).unwrap();
    let maps = at(&server, &folder, "weir");
    (server, maps, folder)
}

fn at(server: &ApiServer, folder: &tempfile::TempDir, namespace: &str) -> ConfigMaps {
    let access = Access { url: server.url(), token_file: Some(folder.path().join("token")), ca_file: None };
    ConfigMaps::new(access.client(&Pace::new(|| UnixNanos(1))).unwrap(), namespace)
}

fn map(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    ConfigMap {
        name: name.into(),
        labels: BTreeMap::from([("owner".to_owned(), "weir".to_owned())]),
        data: data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..ConfigMap::default()
    }
}

fn kind<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> FailureKind {
    outcome.unwrap_err().kind
}

#[tokio::test]
async fn only_what_was_read_last_is_written_over_or_deleted() {
    let (_server, maps, _token) = start();
    assert_eq!(maps.get("a").await.unwrap(), None);
    let first = maps.create(&map("a", &[("k", "1")])).await.unwrap();
    assert_eq!(kind(maps.create(&map("a", &[])).await), FailureKind::Exists);
    let second = maps.replace(&ConfigMap { data: map("", &[("k", "2")]).data, ..first.clone() }).await.unwrap();
    assert_ne!(first.version, second.version);
    assert_eq!(kind(maps.replace(&first).await), FailureKind::Conflict);
    assert_eq!(kind(maps.delete(&first).await), FailureKind::Conflict);
    // One that was deleted and made anew is another, even if it were the same version.
    let other = ConfigMap { uid: "another".into(), ..second.clone() };
    assert_eq!(kind(maps.replace(&other).await), FailureKind::Conflict);
    // The API server would write this over whatever is there.
    let unseen = ConfigMap { version: String::new(), ..second.clone() };
    assert_eq!(kind(maps.replace(&unseen).await), FailureKind::Invalid);
    assert_eq!(kind(maps.delete(&unseen).await), FailureKind::Invalid);
    assert_eq!(maps.get("a").await.unwrap().unwrap().data["k"], "2");
    assert_eq!(maps.replace(&second).await.unwrap(), second, "what changes nothing keeps its version");
    maps.delete(&second).await.unwrap();
    assert_eq!(kind(maps.delete(&second).await), FailureKind::Missing);
    assert_eq!(kind(maps.replace(&second).await), FailureKind::Missing);
}

#[tokio::test]
async fn a_list_has_what_is_labelled_page_by_page_and_begins_anew_when_its_moment_is_gone() {
    let (server, maps, _token) = start();
    for number in 0..9 {
        maps.create(&map(&format!("m{number}"), &[("k", &number.to_string())])).await.unwrap();
    }
    let stranger = ConfigMap { labels: BTreeMap::new(), ..map("stranger", &[]) };
    maps.create(&stranger).await.unwrap();
    let (mut found, mut next) = (Vec::new(), None);
    loop {
        let page = maps.list("owner=weir", next.as_deref()).await.unwrap();
        found.extend(page.items.into_iter().map(|map| map.name));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(found, (0..9).map(|number| format!("m{number}")).collect::<Vec<_>>());
    let page = maps.list("owner=weir", None).await.unwrap();
    server.compact();
    assert_eq!(kind(maps.list("owner=weir", page.next.as_deref()).await), FailureKind::Expired);
}

#[tokio::test]
async fn what_the_api_server_does_not_take_is_told_apart() {
    let (server, maps, token) = start();
    assert_eq!(kind(maps.create(&map("a", &[("10.0.0.1:80", "x")])).await), FailureKind::Invalid);
    assert_eq!(kind(maps.create(&map("Upper", &[])).await), FailureKind::Invalid);
    let (fits, beyond) = ("v".repeat(1 << 20), "v".repeat((1 << 20) + 1));
    assert_eq!(kind(maps.create(&map("a", &[("k", &beyond)])).await), FailureKind::TooLarge);
    assert_eq!(kind(maps.create(&map("a", &[("k", &"v".repeat(4 << 20))])).await), FailureKind::TooLarge, "413");
    // What the values hold fits, what quoting makes of it does not fit into etcd.
    assert_eq!(kind(maps.create(&map("a", &[("k", &"\"".repeat(1 << 20))])).await), FailureKind::TooLarge, "etcd");
    maps.create(&map("a", &[("k", &fits)])).await.unwrap();
    let elsewhere = at(&server, &token, "nowhere").create(&map("a", &[])).await.unwrap_err();
    assert_eq!(elsewhere.kind, FailureKind::Missing);
    assert!(elsewhere.detail.contains("is there a namespace nowhere?"), "{elsewhere}");
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_unknown_and_reading_tells_what_became_of_it() {
    let (server, maps, _token) = start();
    let mut seen = maps.create(&map("a", &[("k", "0")])).await.unwrap();
    for (number, (fault, is_done)) in
        [(Fault::Break, true), (Fault::Close, false), (Fault::FailAfter(504), true), (Fault::Fail(500), false)]
            .into_iter()
            .enumerate()
    {
        let value = (number + 1).to_string();
        server.fault("configmaps/update", false, fault.clone(), 0, 1);
        let wanted = ConfigMap { data: map("", &[("k", &value)]).data, ..seen.clone() };
        assert_eq!(kind(maps.replace(&wanted).await), FailureKind::Unknown, "{fault:?}");
        let now = maps.get("a").await.unwrap().unwrap();
        assert_eq!(now.data["k"] == value, is_done, "{fault:?}");
        seen = now;
    }
    server.fault("configmaps/create", false, Fault::Break, 0, 1);
    assert_eq!(kind(maps.create(&map("b", &[])).await), FailureKind::Unknown);
    assert_eq!(kind(maps.create(&map("b", &[])).await), FailureKind::Exists);
    server.fault("configmaps/delete", false, Fault::Break, 0, 1);
    assert_eq!(kind(maps.delete(&seen).await), FailureKind::Unknown);
    assert_eq!(maps.get("a").await.unwrap(), None);
}

#[tokio::test]
async fn refusals_name_what_to_mend_and_a_busy_api_server_is_left_in_peace() {
    let (server, maps, token) = start();
    let seen = maps.create(&map("a", &[])).await.unwrap();
    server.fault("configmaps/update", false, Fault::Refuse, 0, 1);
    let refused = maps.replace(&seen).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Refused);
    let rule = r#"in namespace weir, a Role with {apiGroups: [""], resources: ["configmaps"], verbs: ["get", "list", "create", "update", "delete"]}"#;
    assert!(refused.detail.contains(rule), "{refused}");
    std::fs::write(token.path().join("token"), "wrong").unwrap();
    let unknown = maps.get("a").await.unwrap_err();
    assert_eq!(unknown.kind, FailureKind::Refused);
    assert!(unknown.detail.contains("--kubernetes-token-file"), "{unknown}");
    std::fs::write(token.path().join("token"), server.token()).unwrap();
    server.fault("configmaps/update", false, Fault::Busy { retry_after: 1 }, 0, 1);
    assert_eq!(kind(maps.replace(&seen).await), FailureKind::Busy);
    let before = tokio::time::Instant::now();
    maps.replace(&seen).await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(900), "Retry-After is kept");
}
