//! The promise: what a container runtime says of its pods and containers is taken as it says it. The runtimes'
//! answers were recorded from containerd 1.6 and 2.3 under Kubernetes; a stand-in serves them over the real protocol.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod runtime;

use runtime::{Answers, Runtime, answers, events, recording};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use weir_discovery::collect::Collect;
use weir_discovery::cri::Cri;
use weir_discovery::cri::runtime::{ContainerEventType, ContainerState, PodIp, PodSandboxState};
use weir_discovery::said::Said;
use weir_discovery::source::{Reading, Source as _, Trouble};
use weir_model::UnixNanos;

const PATIENCE: Duration = Duration::from_secs(20);

fn cri(socket: &Path, proc: impl Into<PathBuf>) -> Cri {
    Cri::new(socket, proc, Arc::new(Collect::default()))
}

async fn read(source: &mut Cri) -> Vec<Said> {
    let Reading::Whole { things, missing } = source.read().await.unwrap() else { panic!("CRI is read whole") };
    assert_eq!(missing, "");
    things
}

fn attribute<'a>(said: &'a Said, name: &str) -> &'a str {
    said.attributes.get(name).map_or("", String::as_str)
}

fn of_kind<'a>(said: &'a [Said], kind: &str) -> Vec<&'a Said> {
    said.iter().filter(|said| said.kind == kind).collect()
}

fn one<'a>(said: &'a [Said], kind: &str, name: &str) -> &'a Said {
    let found: Vec<&Said> = said.iter().filter(|said| said.kind == kind && said.name == name).collect();
    assert_eq!(found.len(), 1, "{kind} {name}: {found:?}");
    found[0]
}

/// `pod/container` of every container that is no sandbox, with its pid and image.
fn containers(said: &[Said]) -> BTreeMap<String, (String, String)> {
    let pods: BTreeMap<&str, &str> =
        of_kind(said, "pod").iter().map(|pod| (pod.id.as_str(), pod.name.as_str())).collect();
    of_kind(said, "container")
        .iter()
        .filter(|container| attribute(container, "container_type") != "sandbox")
        .filter(|container| attribute(container, "state") == "running")
        .map(|container| {
            let pod = pods.get(container.parent.as_str()).unwrap_or(&"?");
            let told = (attribute(container, "pids").to_owned(), attribute(container, "image").to_owned());
            (format!("{pod}/{}", container.name), told)
        })
        .collect()
}

#[tokio::test]
async fn pods_containers_pids_and_images_of_containerd_1_6_are_right() {
    let runtime = Runtime::start(answers(&recording("containerd-1.6.json")));
    let mut source = cri(&runtime.socket, "/nowhere");
    let said = read(&mut source).await;
    let image = "registry.local/busybox:1";
    let expected = [
        ("client/c1", "31666"),
        ("client/c2", "31906"),
        ("echo-0/nc", "4058"),
        ("hostnet-h8pm8/h", "31907"),
        ("static-web-node1/s", "30527"),
        ("web-6675746f8b-dgxhf/httpd", "32052"),
        ("web-6675746f8b-dgxhf/side", "32154"),
        ("web-6675746f8b-nkhqs/httpd", "32019"),
        ("web-6675746f8b-nkhqs/side", "32110"),
    ];
    let expected: BTreeMap<String, (String, String)> =
        expected.map(|(name, pid)| (name.to_owned(), (pid.to_owned(), image.to_owned()))).into();
    assert_eq!(containers(&said), expected);

    let web = one(&said, "pod", "web-6675746f8b-dgxhf");
    assert_eq!(web.id.len(), 36);
    assert_eq!((web.namespace.as_str(), web.addresses.clone()), ("demo", vec!["10.244.0.9".parse().unwrap()]));
    assert_eq!(attribute(web, "pod_template_hash"), "6675746f8b");
    assert!(web.from.is_some() && web.to.is_none());
    let httpd = of_kind(&said, "container").into_iter().find(|one| attribute(one, "pids") == "32052").unwrap();
    assert_eq!((httpd.parent.as_str(), httpd.namespace.as_str()), (web.id.as_str(), "demo"));
    assert_eq!(attribute(httpd, "ports"), "http:8080/tcp");
    let nc = one(&said, "container", "nc");
    assert_eq!(attribute(nc, "ports"), "7777/tcp");
    assert!(source.note().starts_with("stand-in 1"), "{}", source.note());
}

#[tokio::test]
async fn pods_containers_pids_and_images_of_containerd_2_3_are_those_that_proc_had() {
    let recorded = recording("containerd-2.3.json");
    let runtime = Runtime::start(answers(&recorded));
    let said = read(&mut cri(&runtime.socket, "/nowhere")).await;
    let image = "registry.local/busybox:1".to_owned();
    let name = |process: &serde_json::Value| {
        format!("{}/{}", process["pod"].as_str().unwrap(), process["container"].as_str().unwrap())
    };
    let processes = recorded["proc"].as_array().unwrap().iter();
    let expected: BTreeMap<String, (String, String)> =
        processes.map(|process| (name(process), (process["pid"].to_string(), image.clone()))).collect();
    assert_eq!(expected.len(), 9);
    assert_eq!(containers(&said), expected);
}

#[tokio::test]
async fn a_static_pod_has_its_manifests_uid_and_a_host_network_pod_no_address() {
    for (name, file) in [("hostnet-h8pm8", "containerd-1.6.json"), ("hostnet-bkj7h", "containerd-2.3.json")] {
        let runtime = Runtime::start(answers(&recording(file)));
        let said = read(&mut cri(&runtime.socket, "/nowhere")).await;
        let hostnet = one(&said, "pod", name);
        assert_eq!(attribute(hostnet, "host_network"), "true");
        assert_eq!((hostnet.addresses.len(), hostnet.netns), (0, 0));
        let fixed = one(&said, "pod", "static-web-node1");
        assert_eq!(fixed.id, "cd24ea17f0a18698d722008e4f953339");
        assert_eq!(fixed.namespace, "kube-system");
        assert_eq!(attribute(fixed, "host_network"), "");
        assert_eq!(fixed.addresses.len(), 1);
    }
}

#[tokio::test]
async fn a_sandboxs_id_leads_to_its_pod() {
    let recorded = recording("containerd-2.3.json");
    let runtime = Runtime::start(answers(&recorded));
    let said = read(&mut cri(&runtime.socket, "/nowhere")).await;
    for sandbox in answers(&recorded).sandboxes {
        let pod = sandbox.metadata.unwrap();
        let found: Vec<&Said> = said.iter().filter(|said| said.id == sandbox.id).collect();
        assert_eq!(found.len(), 1, "{}", pod.name);
        assert_eq!((found[0].kind, found[0].parent.as_str()), ("container", pod.uid.as_str()));
        assert_eq!((attribute(found[0], "container_type"), found[0].name.as_str()), ("sandbox", ""));
    }
}

/// A `/proc` with the recorded processes of containers; sandboxes' own are missing, as on CRI-O without them.
fn proc_tree(recorded: &serde_json::Value) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for process in recorded["proc"].as_array().unwrap() {
        let folder = root.path().join(process["pid"].to_string());
        std::fs::create_dir_all(folder.join("ns")).unwrap();
        let rest = "S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1";
        std::fs::write(folder.join("stat"), format!("{} (x) {rest}", process["pid"])).unwrap();
        let id = process["id"].as_str().unwrap();
        std::fs::write(folder.join("cgroup"), format!("0::/kubepods/podx/{id}\n")).unwrap();
        let netns = format!("net:[{}]", process["netns"]);
        std::os::unix::fs::symlink(netns, folder.join("ns/net")).unwrap();
    }
    root
}

#[tokio::test]
async fn each_pod_has_its_network_namespace_and_none_the_nodes() {
    let recorded = recording("containerd-2.3.json");
    let root = proc_tree(&recorded);
    let runtime = Runtime::start(answers(&recorded));
    let said = read(&mut cri(&runtime.socket, root.path())).await;
    let mut seen = BTreeSet::new();
    for process in recorded["proc"].as_array().unwrap() {
        let pod = one(&said, "pod", process["pod"].as_str().unwrap());
        let is_host = pod.name.starts_with("hostnet");
        let expected = if is_host { 0 } else { process["netns"].as_u64().unwrap() as u32 };
        assert_eq!(pod.netns, expected, "{}", pod.name);
        seen.insert(pod.netns);
    }
    assert_eq!(seen.len(), 6);
    // A pid that is another container's by now tells nothing.
    let client = recorded["proc"].as_array().unwrap().iter().find(|process| process["pod"] == "echo-0").unwrap();
    let cgroup = format!("0::/kubepods/podx/{}\n", "f".repeat(64));
    std::fs::write(root.path().join(client["pid"].to_string()).join("cgroup"), cgroup).unwrap();
    let said = read(&mut cri(&runtime.socket, root.path())).await;
    assert_eq!(one(&said, "pod", "echo-0").netns, 0);
}

#[tokio::test]
async fn what_has_ended_is_said_with_its_end_and_never_an_end_before_its_beginning() {
    let recorded = recording("containerd-2.3.json");
    let runtime = Runtime::start(answers(&recorded));
    let said = read(&mut cri(&runtime.socket, "/nowhere")).await;
    let job = one(&said, "container", "t");
    assert_eq!(attribute(job, "state"), "exited");
    assert_eq!(attribute(job, "pids"), "");
    assert_eq!(job.to, Some(UnixNanos(1_795_454_160_697_734_181)));
    let pod = one(&said, "pod", "tick-29924236-jrwdm");
    assert_eq!(pod.to, job.to, "without events its pod's end is its last container's");
    // containerd notes the start of a container that lives for a few milliseconds after its end.
    for init in said.iter().filter(|said| said.name == "init") {
        assert!(init.from.unwrap() < init.to.unwrap());
    }
    assert_eq!(said.iter().filter(|said| said.name == "init").count(), 2);
    assert!(said.iter().all(|said| said.to.is_none_or(|to| to >= said.from.unwrap())));
}

#[tokio::test]
async fn verbose_answers_are_asked_for_once_and_again_when_a_container_changed() {
    let runtime = Runtime::start(answers(&recording("containerd-1.6.json")));
    let mut source = cri(&runtime.socket, "/nowhere");
    let first = read(&mut source).await;
    let listed = {
        let answers = runtime.answers.lock().unwrap();
        answers.sandboxes.len() + answers.containers.len()
    };
    assert_eq!(runtime.take_asked().len(), listed);
    assert_eq!(read(&mut source).await, first);
    assert_eq!(runtime.take_asked(), Vec::<String>::new());

    let id = one(&first, "container", "nc").id.clone();
    {
        let mut answers = runtime.answers.lock().unwrap();
        answers.containers.iter_mut().find(|one| one.id == id).unwrap().set_state(ContainerState::ContainerExited);
        let told = answers.container_statuses.get_mut(&id).unwrap();
        let status = told.status.as_mut().unwrap();
        status.set_state(ContainerState::ContainerExited);
        status.finished_at = status.started_at + 5;
        told.info.insert("info".into(), r#"{"pid":0}"#.into());
    }
    let said = read(&mut source).await;
    assert_eq!(runtime.take_asked(), vec![id]);
    let nc = one(&said, "container", "nc");
    assert!(nc.to.is_some());
    assert_eq!((attribute(nc, "pids"), attribute(nc, "state")), ("", "exited"));
}

#[tokio::test]
async fn a_second_sandbox_of_a_pod_ends_the_first() {
    let mut told = answers(&recording("containerd-1.6.json"));
    let first = told.sandboxes.iter_mut().find(|one| one.metadata.as_ref().unwrap().name == "echo-0").unwrap();
    let mut second = first.clone();
    first.set_state(PodSandboxState::SandboxNotready);
    let first = first.clone();
    second.id = "e".repeat(64);
    second.created_at += 1_000_000_000;
    let mut status = told.sandbox_statuses[&first.id].clone();
    let inner = status.status.as_mut().unwrap();
    inner.id.clone_from(&second.id);
    inner.created_at = second.created_at;
    let network = inner.network.as_mut().unwrap();
    network.ip = "10.244.0.99".into();
    network.additional_ips = vec![PodIp { ip: "fd00::99".into() }, PodIp { ip: "::ffff:10.1.2.3".into() }];
    told.sandbox_statuses.insert(second.id.clone(), status);
    let container = told.containers.iter_mut().find(|one| one.pod_sandbox_id == first.id).unwrap();
    container.set_state(ContainerState::ContainerExited);
    let ended = told.container_statuses.get_mut(&container.id).unwrap().status.as_mut().unwrap();
    ended.set_state(ContainerState::ContainerExited);
    ended.finished_at = first.created_at + 7;
    told.sandboxes.push(second.clone());
    let runtime = Runtime::start(told);
    let mut source = cri(&runtime.socket, "/nowhere");
    let said = read(&mut source).await;
    let pods: Vec<&Said> = said.iter().filter(|said| said.kind == "pod" && said.name == "echo-0").collect();
    assert_eq!(pods.len(), 2);
    assert_eq!(pods[0].id, pods[1].id);
    assert_eq!((pods[0].from, pods[0].to), (Some(UnixNanos(first.created_at)), Some(UnixNanos(first.created_at + 7))));
    assert_eq!((pods[1].from, pods[1].to), (Some(UnixNanos(second.created_at)), None));
    let all: Vec<String> = pods[1].addresses.iter().map(ToString::to_string).collect();
    assert_eq!(all, ["10.244.0.99", "fd00::99", "10.1.2.3"]);
    let again = read(&mut source).await;
    assert_eq!(one(&again, "pod", "echo-0"), pods[1], "the end is said once");
}

#[tokio::test]
async fn recorded_events_wake_the_reader_and_tell_exact_ends() {
    let recorded = recording("containerd-2.3.json");
    let runtime = Runtime::start(Answers { has_events: true, ..Answers::default() });
    let mut source = cri(&runtime.socket, "/nowhere");
    assert_eq!(read(&mut source).await, []);
    let told = events(&recorded);
    assert_eq!(told.len(), 60);
    while runtime.events.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    for event in told.clone() {
        runtime.events.send(event).unwrap();
    }
    timeout(PATIENCE, source.changed()).await.expect("an event wakes the reader");
    // All is over and gone from the lists: what came and went between two readings is known by events alone.
    let mut said = read(&mut source).await;
    while said.iter().filter(|said| said.kind == "pod" && said.to.is_some()).count() < 2 {
        timeout(PATIENCE, source.changed()).await.expect("an event wakes the reader");
        said.extend(read(&mut source).await);
    }
    let stopped = |name: &str| {
        let sandbox = |event: &&weir_discovery::cri::runtime::ContainerEventResponse| {
            let status = event.pod_sandbox_status.as_ref().unwrap();
            status.id == event.container_id && status.metadata.as_ref().unwrap().name == name
        };
        let ends = told.iter().filter(sandbox);
        ends.filter(|event| event.container_event_type() == ContainerEventType::ContainerStoppedEvent)
            .map(|event| UnixNanos(event.created_at))
            .next()
    };
    for name in ["client", "tick-29924236-jrwdm"] {
        let pod = said.iter().rfind(|said| said.kind == "pod" && said.name == name && said.to.is_some()).unwrap();
        assert_eq!(pod.to, stopped(name), "{name}");
        assert_eq!(pod.addresses.len(), 1, "{name} keeps the address that it had");
    }
    let c2 = said.iter().rfind(|said| said.name == "c2").unwrap();
    assert_eq!(c2.to, Some(UnixNanos(1_795_454_183_260_138_170)));
    assert_eq!(attribute(c2, "image"), "registry.local/busybox:1");
    let crashes: BTreeSet<&str> =
        said.iter().filter(|said| said.name == "c" && said.to.is_some()).map(|said| said.id.as_str()).collect();
    assert_eq!(crashes.len(), 3, "each start of a crashing container is one");
}

#[tokio::test]
async fn a_runtime_without_events_is_read_all_the_same_and_says_so() {
    let runtime = Runtime::start(answers(&recording("containerd-1.6.json")));
    let mut source = cri(&runtime.socket, "/nowhere");
    read(&mut source).await;
    while !source.note().contains("tells no events") {
        tokio::task::yield_now().await;
    }
    timeout(Duration::from_millis(50), source.changed()).await.expect_err("nothing wakes the reader");
    assert!(!read(&mut source).await.is_empty());
}

#[tokio::test]
async fn failures_say_what_where_and_how_to_mend_it() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = folder.path().join("nobody.sock");
    let Err(Trouble::Off(text)) = cri(&nobody, "/nowhere").read().await else { panic!() };
    assert!(text.contains("nobody.sock"), "{text}");

    let runtime = Runtime::start(Answers::default());
    let mut source = cri(&runtime.socket, "/nowhere");
    assert_eq!(read(&mut source).await, []);
    runtime.answers.lock().unwrap().failure = Some(tonic::Status::permission_denied("no"));
    let Err(error) = source.read().await else { panic!() };
    assert_eq!(error.state(), "refused");
    runtime.answers.lock().unwrap().failure = Some(tonic::Status::internal("broken"));
    let Err(error) = source.read().await else { panic!() };
    assert_eq!(error.state(), "failed");
    assert!(error.to_string().contains("ListPodSandbox") || error.to_string().contains("ListContainers"), "{error}");
    runtime.answers.lock().unwrap().failure = None;
    assert_eq!(read(&mut source).await, [], "the next reading tries again");
}

#[tokio::test]
async fn what_speaks_no_cri_is_not_taken_for_a_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("containerd.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    // A gRPC server without the service: containerd with its CRI plugin switched off.
    tasks.spawn(async move {
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        let routes = tonic::service::Routes::default();
        tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming).await.unwrap();
    });
    let Err(Trouble::Off(text)) = cri(&socket, "/nowhere").read().await else { panic!() };
    assert!(text.contains("disabled_plugins"), "{text}");
}

#[tokio::test]
async fn the_known_sockets_are_looked_for_in_order() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(Cri::find(root.path()), None);
    let crio = root.path().join("run/crio/crio.sock");
    std::fs::create_dir_all(crio.parent().unwrap()).unwrap();
    std::fs::write(&crio, "").unwrap();
    assert_eq!(Cri::find(root.path()), Some(crio));
    let containerd = root.path().join("run/containerd/containerd.sock");
    std::fs::create_dir_all(containerd.parent().unwrap()).unwrap();
    std::fs::write(&containerd, "").unwrap();
    assert_eq!(Cri::find(root.path()), Some(containerd));
    assert_eq!(cri(Path::new("/x"), "/proc").socket(), Path::new("/x"));
}

#[tokio::test]
async fn what_the_configuration_collects_is_taken_from_labels_and_from_what_the_runtime_says_beyond() {
    let runtime = Runtime::start(answers(&recording("containerd-2.3.json")));
    let entries = [
        "pod.app=$.metadata.labels.app",
        "pod.internal=$.metadata.labels['io.kubernetes.pod.name']",
        "container.runtime=$.info.runtimeType",
        "container.restarts={.status.annotations.io\\.kubernetes\\.container\\.restartCount}",
    ];
    let collect = Collect::parse(&entries, &["pod", "container"]).unwrap();
    let mut source = Cri::new(&runtime.socket, "/nowhere", Arc::new(collect));
    let said = read(&mut source).await;
    let echo = one(&said, "pod", "echo-0");
    assert_eq!((attribute(echo, "app"), attribute(echo, "internal")), ("echo", ""));
    let crash = one(&said, "container", "c");
    assert_eq!((attribute(crash, "runtime"), attribute(crash, "restarts")), ("io.containerd.runc.v2", "2"));
    assert_eq!(read(&mut source).await, said, "and kept");
}
