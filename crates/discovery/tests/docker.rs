//! The promise: what a Docker engine says of its containers is taken as it says it. The engine's answers were recorded
//! from Debian's 20.10; a stand-in serves them over HTTP on a unix socket.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod engine;

use engine::{Answers, Engine, answers, recording};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use weir_discovery::collect::Collect;
use weir_discovery::docker::Docker;
use weir_discovery::said::Said;
use weir_discovery::source::{Reading, Source as _, Trouble};
use weir_model::UnixNanos;

const PATIENCE: Duration = Duration::from_secs(20);

fn docker(engine: &Engine, proc: impl Into<PathBuf>) -> Docker {
    Docker::new(&engine.socket, proc, Arc::new(Collect::default()))
}

async fn read(source: &mut Docker) -> Vec<Said> {
    let Reading::Whole { things, missing } = source.read().await.unwrap() else { panic!("Docker is read whole") };
    assert_eq!(missing, "");
    assert!(things.iter().all(|said| said.to.is_none_or(|to| to >= said.from.unwrap())));
    things
}

/// Reads until the stream of events is open and what it opened with is read: from now on only events tell changes.
async fn settle(engine: &Engine, source: &mut Docker) -> Vec<Said> {
    read(source).await;
    timeout(PATIENCE, source.changed()).await.expect("an opened stream wakes the reader");
    let said = read(source).await;
    engine.take_inspected();
    said
}

fn attribute<'a>(said: &'a Said, name: &str) -> &'a str {
    said.attributes.get(name).map_or("", String::as_str)
}

fn one<'a>(said: &'a [Said], name: &str) -> &'a Said {
    let found: Vec<&Said> = said.iter().filter(|said| said.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {found:#?}");
    found[0]
}

fn addresses(said: &Said) -> Vec<String> {
    said.addresses.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn containers_pids_ports_images_and_addresses_are_right() {
    let engine = Engine::start(answers(&recording()));
    let said = read(&mut docker(&engine, "/nowhere")).await;
    let told: Vec<(&str, &str, &str, Vec<String>)> = said
        .iter()
        .map(|one| (one.name.as_str(), attribute(one, "pids"), attribute(one, "ports"), addresses(one)))
        .collect();
    let mut expected = vec![
        ("dtmp", "21811", "", vec!["172.17.0.3".to_owned()]),
        ("dshare", "21304", "", vec![]),
        ("dhost", "21242", "", vec![]),
        // Shared with dshare: an address of two is nobody's alone.
        ("dbridge", "21172", "", vec![]),
        ("dcli", "21066", "", vec!["172.30.0.3".to_owned()]),
        ("dweb", "20973", "8080/tcp", vec!["172.30.0.2".to_owned()]),
    ];
    let mut told = told;
    told.sort();
    expected.sort();
    assert_eq!(told, expected);
    for one in &said {
        assert_eq!((one.kind, attribute(one, "state")), ("container", "running"));
        assert_eq!(attribute(one, "image"), "registry.local/busybox:1");
        assert!(one.from.is_some() && one.to.is_none() && one.id.len() == 64);
        assert!(!one.attributes.keys().any(|name| name.contains("compose")), "labels only where they are asked for");
    }
    assert_eq!(one(&said, "dtmp").from, Some(UnixNanos(1_795_452_746_636_354_690)));
}

#[tokio::test]
async fn whose_network_a_container_uses_is_told() {
    let engine = Engine::start(answers(&recording()));
    let said = read(&mut docker(&engine, "/nowhere")).await;
    assert_eq!(attribute(one(&said, "dhost"), "network_mode"), "host");
    let of_bridge = format!("container:{}", one(&said, "dbridge").id);
    assert_eq!(attribute(one(&said, "dshare"), "network_mode"), of_bridge);
    assert_eq!(attribute(one(&said, "dbridge"), "network_mode"), "");
}

#[tokio::test]
async fn network_namespaces_are_proc_s_and_the_hosts_is_nobodys() {
    let recorded = recording();
    let root = tempfile::tempdir().unwrap();
    let engine = Engine::start(answers(&recorded));
    let said = read(&mut docker(&engine, root.path())).await;
    for process in recorded["proc"].as_array().unwrap() {
        let told = one(&said, process["name"].as_str().unwrap());
        let folder = root.path().join(attribute(told, "pids"));
        std::fs::create_dir_all(folder.join("ns")).unwrap();
        let rest = "S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1";
        std::fs::write(folder.join("stat"), format!("1 (x) {rest}")).unwrap();
        std::fs::write(folder.join("cgroup"), format!("0::/docker/{}\n", told.id)).unwrap();
        std::os::unix::fs::symlink(format!("net:[{}]", process["netns"]), folder.join("ns/net")).unwrap();
    }
    let said = read(&mut docker(&engine, root.path())).await;
    for process in recorded["proc"].as_array().unwrap() {
        let name = process["name"].as_str().unwrap();
        let expected = if name == "dhost" { 0 } else { process["netns"].as_u64().unwrap() as u32 };
        assert_eq!(one(&said, name).netns, expected, "{name}");
    }
    assert_eq!(one(&said, "dshare").netns, one(&said, "dbridge").netns);
}

#[tokio::test]
async fn a_container_is_inspected_once_and_again_when_an_event_tells_of_it() {
    let engine = Engine::start(answers(&recording()));
    let mut source = docker(&engine, "/nowhere");
    let first = settle(&engine, &mut source).await;
    assert_eq!(read(&mut source).await, first);
    assert_eq!(engine.take_inspected(), Vec::<String>::new());
    let web = one(&first, "dweb").id.clone();
    let exec = json!({"Type": "container", "Action": "exec_create: true ", "Actor": {"ID": web}, "timeNano": 5});
    let update = json!({"Type": "container", "Action": "update", "Actor": {"ID": web}, "timeNano": 6});
    engine.events.send(Some(exec)).unwrap();
    engine.events.send(Some(update)).unwrap();
    timeout(PATIENCE, source.changed()).await.expect("an event wakes the reader");
    read(&mut source).await;
    assert_eq!(engine.take_inspected(), vec![web]);
}

#[tokio::test]
async fn recorded_events_tell_the_exact_end_of_a_container_that_came_and_went() {
    let recorded = recording();
    let mut now = answers(&recorded);
    now.containers.retain(|one| !one["Id"].as_str().unwrap().starts_with("dd82d1e8"));
    now.inspections.retain(|id, _| !id.starts_with("dd82d1e8"));
    let engine = Engine::start(now);
    let mut source = docker(&engine, "/nowhere");
    settle(&engine, &mut source).await;
    for event in recorded["events"].as_array().unwrap() {
        engine.events.send(Some(event.clone())).unwrap();
    }
    timeout(PATIENCE, source.changed()).await.expect("an event wakes the reader");
    let said = read(&mut source).await;
    let gone = one(&said, "dtmp");
    assert_eq!(gone.from, Some(UnixNanos(1_795_452_746_190_738_655)));
    assert_eq!(gone.to, Some(UnixNanos(1_795_452_748_679_414_981)));
    assert_eq!((attribute(gone, "state"), attribute(gone, "image")), ("exited", "registry.local/busybox:1"));
    assert!(addresses(gone).is_empty(), "what was never inspected has no known address");
}

/// The recorded container `dweb` and its id.
fn web(answers: &Answers) -> (String, Value) {
    let found = answers.inspections.iter().find(|(_, told)| told["Name"] == "/dweb").unwrap();
    (found.0.clone(), found.1.clone())
}

#[tokio::test]
async fn a_stopped_container_ends_keeps_its_address_for_the_time_before_and_begins_anew_when_started() {
    let engine = Engine::start(answers(&recording()));
    let mut source = docker(&engine, "/nowhere");
    let first = settle(&engine, &mut source).await;
    let (id, mut told) = web(&engine.answers.lock().unwrap());
    let started = told["State"]["StartedAt"].clone();
    told["State"] = json!({"Status": "exited", "Running": false, "Pid": 0, "StartedAt": started,
        "FinishedAt": "2026-11-23T16:53:00.5Z"});
    told["NetworkSettings"]["Networks"]["appnet"]["IPAddress"] = json!("");
    {
        let mut answers = engine.answers.lock().unwrap();
        answers.inspections.insert(id.clone(), told.clone());
        answers.containers.iter_mut().find(|one| one["Id"] == id.as_str()).unwrap()["State"] = json!("exited");
    }
    let said = read(&mut source).await;
    let web = one(&said, "dweb");
    assert_eq!((web.from, web.to), (one(&first, "dweb").from, Some(UnixNanos(1_795_452_780_500_000_000))));
    assert_eq!(addresses(web), ["172.30.0.2"]);
    assert_eq!((attribute(web, "pids"), attribute(web, "state")), ("", "exited"));

    told["State"] = json!({"Status": "running", "Running": true, "Pid": 4711,
        "StartedAt": "2026-11-23T16:54:00Z", "FinishedAt": "2026-11-23T16:53:00.5Z"});
    told["NetworkSettings"]["Networks"]["appnet"]["IPAddress"] = json!("172.30.0.9");
    {
        let mut answers = engine.answers.lock().unwrap();
        answers.inspections.insert(id.clone(), told);
        answers.containers.iter_mut().find(|one| one["Id"] == id.as_str()).unwrap()["State"] = json!("running");
    }
    let said = read(&mut source).await;
    let lives: Vec<&Said> = said.iter().filter(|said| said.name == "dweb").collect();
    assert_eq!(lives.len(), 2);
    assert_eq!((lives[0].to, addresses(lives[0])), (web.to, addresses(web)));
    assert_eq!((lives[1].from, lives[1].to), (Some(UnixNanos(1_795_452_840_000_000_000)), None));
    assert_eq!(addresses(lives[1]), ["172.30.0.9"]);
    assert_eq!(read(&mut source).await.iter().filter(|said| said.name == "dweb").count(), 1, "the end is said once");
}

#[tokio::test]
async fn an_address_that_changes_while_a_container_runs_is_not_claimed_for_the_time_before() {
    let engine = Engine::start(answers(&recording()));
    let mut source = docker(&engine, "/nowhere");
    settle(&engine, &mut source).await;
    let (id, mut told) = web(&engine.answers.lock().unwrap());
    told["NetworkSettings"]["Networks"]["appnet"]["IPAddress"] = json!("172.30.0.77");
    engine.answers.lock().unwrap().inspections.insert(id.clone(), told);
    let at = 1_795_452_999_000_000_000_i64;
    let event = json!({"Type": "network", "Action": "connect", "timeNano": at,
        "Actor": {"ID": "cca1", "Attributes": {"container": id, "name": "appnet", "type": "bridge"}}});
    engine.events.send(Some(event)).unwrap();
    timeout(PATIENCE, source.changed()).await.expect("an event wakes the reader");
    let said = read(&mut source).await;
    let spans: Vec<&Said> = said.iter().filter(|said| said.name == "dweb").collect();
    assert_eq!(spans.len(), 2);
    assert_eq!((addresses(spans[0]), spans[0].to), (vec!["172.30.0.2".to_owned()], Some(UnixNanos(at))));
    assert_eq!((addresses(spans[1]), spans[1].from), (vec!["172.30.0.77".to_owned()], Some(UnixNanos(at))));
    assert_eq!(spans[1].to, None);
}

#[tokio::test]
async fn an_address_once_shared_stays_nobodys_when_the_other_is_removed() {
    let engine = Engine::start(answers(&recording()));
    let mut source = docker(&engine, "/nowhere");
    settle(&engine, &mut source).await;
    {
        let mut answers = engine.answers.lock().unwrap();
        answers.containers.retain(|one| one["Names"][0] != "/dshare");
        answers.inspections.retain(|_, told| told["Name"] != "/dshare");
    }
    read(&mut source).await;
    let said = read(&mut source).await;
    assert!(said.iter().all(|said| said.name != "dshare"));
    assert!(addresses(one(&said, "dbridge")).is_empty());
    let anew = read(&mut docker(&engine, "/nowhere")).await;
    assert_eq!(addresses(one(&anew, "dbridge")), ["172.17.0.2"], "one that never saw the other cannot know");
}

#[tokio::test]
async fn after_a_break_everything_is_inspected_and_events_go_on_where_they_broke_off() {
    let recorded = recording();
    let engine = Engine::start(answers(&recorded));
    let mut source = docker(&engine, "/nowhere");
    settle(&engine, &mut source).await;
    engine.asked.lock().unwrap().clear();
    engine.events.send(Some(recorded["events"][9].clone())).unwrap();
    timeout(PATIENCE, source.changed()).await.expect("an event wakes the reader");
    engine.events.send(None).unwrap();
    timeout(PATIENCE, source.changed()).await.expect("the stream opened again wakes the reader");
    assert_eq!(engine.streams().len(), 1);
    assert!(engine.streams()[0].contains("&since=1795452747.005659958"), "{:?}", engine.streams());
    engine.take_inspected();
    read(&mut source).await;
    assert_eq!(engine.take_inspected().len(), 6);
}

#[tokio::test]
async fn a_pods_container_on_docker_belongs_to_its_pod() {
    let mut now = answers(&recording());
    let (id, mut told) = web(&now);
    told["Name"] = json!("/k8s_httpd_web-1_demo_uid_0");
    told["Config"]["Labels"] = json!({"io.kubernetes.container.name": "httpd", "io.kubernetes.pod.namespace": "demo",
        "io.kubernetes.pod.uid": "72ed8967-adb6-4a50-b247-584e26b2fcce", "io.kubernetes.docker.type": "container"});
    now.inspections.insert(id, told);
    let engine = Engine::start(now);
    let said = read(&mut docker(&engine, "/nowhere")).await;
    let httpd = one(&said, "httpd");
    assert_eq!((httpd.namespace.as_str(), httpd.parent.as_str()), ("demo", "72ed8967-adb6-4a50-b247-584e26b2fcce"));
}

#[tokio::test]
async fn composes_labels_are_collected_where_the_configuration_asks() {
    let engine = Engine::start(answers(&recording()));
    let entries = ["container.service=$.Config.Labels['com.docker.compose.service']"];
    let collect = Collect::parse(&entries, &["container"]).unwrap();
    let mut source = Docker::new(&engine.socket, "/nowhere", Arc::new(collect));
    let said = read(&mut source).await;
    assert_eq!(attribute(one(&said, "dweb"), "service"), "web");
    assert_eq!(attribute(one(&said, "dcli"), "service"), "");
}

#[tokio::test]
async fn failures_say_what_where_and_how_to_mend_it() {
    let engine = Engine::start(Answers { failure: Some(403), ..Answers::default() });
    let mut source = docker(&engine, "/nowhere");
    let Err(Trouble::Refused(text)) = source.read().await else { panic!() };
    assert!(text.contains("docker.sock") && text.contains("/events"), "{text}");
    engine.answers.lock().unwrap().failure = Some(500);
    let Err(Trouble::Failed(text)) = source.read().await else { panic!() };
    assert!(text.contains("500"), "{text}");
    engine.answers.lock().unwrap().failure = Some(404);
    let Err(Trouble::Off(text)) = source.read().await else { panic!() };
    assert!(text.contains("no Docker engine"), "{text}");
    engine.answers.lock().unwrap().failure = None;
    assert_eq!(read(&mut source).await, [], "the next reading tries again");
}
