//! The promise: a watch loses no change and makes no storm, whatever the API server does.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use weir_discovery::kubernetes::client::Access;
use weir_discovery::kubernetes::objects::{Thing, WATCHED, Watched};
use weir_discovery::kubernetes::pace::Pace;
use weir_discovery::kubernetes::watch::{Failure, FailureKind, Heard, Watch};
use weir_model::UnixNanos;
use weir_testkit::cluster::kubernetes::faults::Fault;
use weir_testkit::cluster::kubernetes::{ApiServer, Tls};

const PATIENCE: Duration = Duration::from_secs(60);

/// Follows one kind as the server does.
struct Follower {
    watch: Watch,
    pace: Arc<Pace>,
    things: BTreeMap<String, Thing>,
    seen: Vec<String>,
    lists: u32,
    failures: Vec<Failure>,
    _token: tempfile::TempDir,
}

fn watched(resource: &str) -> &'static Watched {
    WATCHED.iter().find(|watched| watched.call.resource == resource).unwrap()
}

impl Follower {
    fn new(server: &ApiServer, resource: &str) -> Self {
        Self::lasting(server, resource, 60)
    }

    fn lasting(server: &ApiServer, resource: &str, seconds: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        std::fs::write(&token_file, server.token()).unwrap();
        let ca_file = server.ca().map(|pem| {
            let path = folder.path().join("ca.crt");
            std::fs::write(&path, pem).unwrap();
            path
        });
        let access = Access { url: server.url(), token_file: Some(token_file), ca_file };
        access.check().unwrap();
        let start = tokio::time::Instant::now();
        let pace = Pace::new(move || UnixNanos(1 + start.elapsed().as_nanos() as i64));
        let watch = Watch::lasting(access.client(&pace).unwrap(), watched(resource), Arc::default(), seconds);
        let (things, seen, failures) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { watch, pace, things, seen, lists: 0, failures, _token: folder }
    }

    async fn step(&mut self) {
        match self.watch.next().await {
            Heard::Listing => self.seen.clear(),
            Heard::Listed(thing) => {
                self.seen.push(thing.key.clone());
                self.things.insert(thing.key.clone(), thing);
            }
            Heard::Complete => {
                let seen = std::mem::take(&mut self.seen);
                self.things.retain(|key, _| seen.contains(key));
                self.lists += 1;
            }
            Heard::Changed(thing) => {
                self.things.insert(thing.key.clone(), thing);
            }
            Heard::Gone(key) => {
                self.things.remove(&key);
            }
            Heard::Strange { name, why } => panic!("{name}: {why}"),
            Heard::Failed(failure) => self.failures.push(failure),
        }
    }

    async fn until(&mut self, what: &str, is: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !is(self) {
            let step = tokio::time::timeout_at(deadline, self.step()).await;
            assert!(step.is_ok(), "not {what}: {:?} {:?}", self.names(), self.failures);
        }
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.things.values().map(|thing| thing.said[0].name.as_str()).collect();
        names.sort_unstable();
        names
    }
}

fn service(number: usize, address: &str) -> serde_json::Value {
    serde_json::json!({
        "metadata": {
            "name": format!("s{number}"), "namespace": "shop", "uid": format!("uid-{number}"),
            "creationTimestamp": "2026-11-23T16:44:38Z",
        },
        "spec": {"type": "ClusterIP", "clusterIP": address, "selector": {"a": "b"}, "ports": [{"port": 80}]},
        "status": {"loadBalancer": {}},
    })
}

fn put(server: &ApiServer, numbers: std::ops::Range<usize>) {
    for number in numbers {
        server.put("services", service(number, &format!("10.96.{}.{}", number / 250, number % 250 + 1))).unwrap();
    }
}

#[tokio::test]
async fn a_list_comes_in_pages_and_only_metadata_where_no_more_is_needed() {
    let server = ApiServer::start(Tls::Off).unwrap();
    server.refuse_streamed_lists();
    put(&server, 0..1201);
    let mut services = Follower::new(&server, "services");
    services.until("listed", |it| it.lists == 1).await;
    assert_eq!(services.things.len(), 1201);
    put(&server, 1201..1202);
    services.until("followed", |it| it.things.len() == 1202).await;
    assert_eq!(services.failures, [], "an etcd that cannot stream lists is not asked to");
    let pages: Vec<_> = server.seen().into_iter().filter(|seen| !seen.watches).collect();
    assert_eq!(pages.len(), 3, "{pages:?}");
    assert!(pages.iter().all(|page| page.limit == Some(500) && page.version.is_none()), "{pages:?}");

    let sets = include_str!("data/kubernetes/replicasets.list.json");
    server.put_list("replicasets", sets).unwrap();
    let mut sets = Follower::new(&server, "replicasets");
    sets.until("listed", |it| it.lists == 1).await;
    assert_eq!(sets.things.values().next().unwrap().said[0].attributes["owner_name"], "web");
    let mut changed: serde_json::Value =
        serde_json::from_str(include_str!("data/kubernetes/replicasets.list.json")).unwrap();
    let mut set = changed["items"][0].take();
    (set["metadata"]["name"], set["metadata"]["uid"]) = ("web-2".into(), "uid-2".into());
    server.put("replicasets", set).unwrap();
    sets.until("followed", |it| it.things.len() == 2).await;
    assert!(server.seen().iter().filter(|seen| seen.resource == "replicasets").all(|seen| seen.metadata_only));
}

#[tokio::test]
async fn a_410_during_a_watch_and_an_expired_continue_token_lose_nothing_and_cost_one_more_list_each() {
    let server = ApiServer::start(Tls::Off).unwrap();
    put(&server, 0..700);
    // The second page is too old: the list begins anew.
    server.fault("services", false, Fault::Gone, 1, 1);
    let mut services = Follower::new(&server, "services");
    services.until("listed", |it| it.lists == 1).await;
    assert_eq!(services.things.len(), 700);
    assert_eq!(services.failures[0].kind, FailureKind::Expired);

    // While the watch is broken a change happens, and everything older is forgotten.
    server.fault("services", true, Fault::Gone, 0, 1);
    server.break_watches();
    server.delete("services", "shop", "s0").unwrap();
    put(&server, 700..701);
    server.compact();
    services.until("listed again", |it| it.lists == 2).await;
    assert!(services.things.len() == 700 && !services.names().contains(&"s0") && services.names().contains(&"s700"));
    put(&server, 701..702);
    services.until("watching again", |it| it.things.len() == 701).await;
    let lists = server.seen().iter().filter(|seen| !seen.watches && seen.first_page).count();
    assert_eq!(lists, 3, "{:?}", server.seen());
    assert!(services.pace.requests().watches <= 4, "{:?}", services.pace);
}

#[tokio::test]
async fn broken_watches_lists_and_a_restarted_api_server_lose_nothing_and_no_list_is_repeated() {
    let mut server = ApiServer::start(Tls::Off).unwrap();
    put(&server, 0..3);
    server.fault("services", false, Fault::Break, 0, 1);
    let mut services = Follower::new(&server, "services");
    services.until("listed", |it| it.lists == 1).await;
    assert_eq!(services.failures[0].kind, FailureKind::Unreachable, "{:?}", services.failures);
    assert_eq!(services.things.len(), 3);
    // In the middle of an event.
    server.break_watches();
    put(&server, 3..4);
    services.until("resumed", |it| it.things.len() == 4).await;
    server.stop();
    server.delete("services", "shop", "s1").unwrap();
    let failed = services.failures.len();
    services.until("told", |it| it.failures.len() > failed).await;
    server.start_again().unwrap();
    services.until("resumed", |it| it.names() == ["s0", "s2", "s3"]).await;
    assert_eq!(services.lists, 1, "a resumed watch needs no list");
}

#[tokio::test]
async fn a_stalled_watch_is_noticed_and_loses_nothing() {
    let server = ApiServer::start(Tls::Off).unwrap();
    put(&server, 0..1);
    server.fault("services", true, Fault::Stall, 0, 1);
    let mut services = Follower::lasting(&server, "services", 1);
    services.until("listed", |it| it.lists == 1).await;
    put(&server, 1..2);
    services.until("followed", |it| it.things.len() == 2).await;
    assert_eq!(services.lists, 1);
    let now = UnixNanos(services.pace.heard().unwrap().0);
    assert!(services.pace.behind_since(now).is_some(), "what it tells happened in the silence: {:?}", services.pace);
}

#[tokio::test]
async fn watches_that_are_closed_at_once_make_no_storm() {
    let server = ApiServer::start(Tls::Off).unwrap();
    put(&server, 0..1);
    server.fault("services", true, Fault::Close, 0, 3);
    let mut services = Follower::new(&server, "services");
    services.until("listed", |it| it.lists == 1).await;
    put(&server, 1..2);
    services.until("followed", |it| it.things.len() == 2).await;
    let watches: Vec<_> = server.seen().into_iter().filter(|seen| seen.watches).collect();
    assert_eq!(watches.len(), 4, "{watches:?}");
    for pair in watches.windows(2) {
        assert!(pair[1].at.unwrap() >= pair[0].at.unwrap() + Duration::from_millis(900), "{watches:?}");
    }
}

#[tokio::test]
async fn a_busy_api_server_is_left_in_peace_for_as_long_as_it_asks() {
    let server = ApiServer::start(Tls::Off).unwrap();
    put(&server, 0..1);
    server.fault("services", false, Fault::Busy { retry_after: 3 }, 0, 1);
    server.fault("services", false, Fault::Fail(503), 0, 1);
    let mut services = Follower::new(&server, "services");
    services.until("listed", |it| it.lists == 1).await;
    let kinds: Vec<FailureKind> = services.failures.iter().map(|failure| failure.kind).collect();
    assert_eq!(kinds, [FailureKind::Busy, FailureKind::Failed]);
    let lists: Vec<_> = server.seen().into_iter().filter(|seen| !seen.watches).collect();
    assert_eq!(lists.len(), 3, "{lists:?}");
    assert!(lists[1].at.unwrap() >= lists[0].at.unwrap() + Duration::from_millis(2900), "{lists:?}");
}

#[tokio::test]
async fn a_refusal_says_which_rule_is_missing_and_is_mended_without_a_restart() {
    let server = ApiServer::start(Tls::Off).unwrap();
    put(&server, 0..1);
    server.fault("services", false, Fault::Refuse, 0, 1);
    server.fault("services", false, Fault::Unauthorized, 0, 1);
    let mut services = Follower::new(&server, "services");
    services.until("listed", |it| it.lists == 1).await;
    assert_eq!(services.failures.len(), 2);
    assert!(services.failures.iter().all(|failure| failure.kind == FailureKind::Refused));
    assert!(services.failures[0].detail.contains(r#"resources: ["services"]"#), "{:?}", services.failures);
    assert!(services.failures[1].detail.contains("--kubernetes-token-file"), "{:?}", services.failures);
}

#[tokio::test]
async fn the_api_server_is_believed_by_its_certificate_only() {
    let server = ApiServer::start(Tls::On).unwrap();
    put(&server, 0..2);
    let mut services = Follower::new(&server, "services");
    services.until("listed", |it| it.lists == 1).await;
    assert_eq!(services.things.len(), 2);
    let other = ApiServer::start(Tls::On).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.crt");
    std::fs::write(&ca, other.ca().unwrap()).unwrap();
    let access = Access { url: server.url(), token_file: None, ca_file: Some(ca) };
    let mut watch =
        Watch::new(access.client(&Pace::new(|| UnixNanos(1))).unwrap(), watched("services"), Arc::default());
    assert!(matches!(watch.next().await, Heard::Listing));
    let Heard::Failed(failure) = watch.next().await else { panic!("somebody else's certificate is believed") };
    assert!(failure.kind == FailureKind::Unreachable && failure.detail.contains("certificate"), "{failure:?}");
}

#[tokio::test]
async fn a_burst_of_thousands_of_changes_is_absorbed() {
    let server = ApiServer::start(Tls::Off).unwrap();
    let mut services = Follower::new(&server, "services");
    services.until("listed", |it| it.lists == 1).await;
    put(&server, 0..3000);
    services.until("absorbed", |it| it.things.len() == 3000).await;
    assert_eq!((services.lists, services.failures.len()), (1, 0), "{:?}", services.failures);
}
