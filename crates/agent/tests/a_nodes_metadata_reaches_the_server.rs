//! What a kubelet says of the node reaches the server with the polls, and nothing of it holds the polls up.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use support::agent::Agent;
use support::feed::{Answer, Feed};
use support::ingest::Ingest;
use support::until;
use weir_wire::agent::{MetadataFact, MetadataSource};

/// A kubelet's read-only port, as recorded.
const PODS: &str = include_str!("../../discovery/tests/data/pods/containerd1.json");
const CONTAINER: &str = "eae2780ca50271940c642eb532ec85cc6898c7a9a9512f7a41a0dcdcd2708860";
const POD: &str = "94d6947c-3d7f-461d-9e06-17ecd60d40a4";

/// What a kubelet does with a request.
#[derive(Clone)]
enum Does {
    Answers(&'static str, String),
    /// It takes the request and never answers.
    Hangs,
}

struct Kubelet {
    address: SocketAddr,
    does: Arc<Mutex<Does>>,
}

impl Kubelet {
    fn start(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let does = Arc::new(Mutex::new(does));
        let present = Arc::clone(&does);
        // Ends with the test's process.
        std::thread::spawn(move || {
            let mut hanging = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read_exact(&mut byte).is_err() {
                        break;
                    }
                    head.push(byte[0]);
                }
                match present.lock().unwrap().clone() {
                    Does::Hangs => hanging.push(stream),
                    Does::Answers(status, body) => {
                        let length = body.len();
                        let _ = write!(
                            stream,
                            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                        );
                    }
                }
            }
        });
        Self { address, does }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn does(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }
}

/// A tracer with one connection, of a process in [`CONTAINER`].
fn tracer(folder: &std::path::Path) -> Feed {
    let path = format!("/kubepods/besteffort/pod{POD}/{CONTAINER}");
    let connections = format!(
        r#"{{"run_id":"00000000000000aa","cursor":1,"connections":[{{"pid":77,"type":0,"net_ns":9,"source":"10.0.0.1",
        "dest":"10.0.0.2","sport":1,"dport":2,"cookie":1,"cgroup_path":"{path}","container_id":"{CONTAINER}"}}]}}"#
    );
    let processes = format!(
        r#"{{"boot_id":"x","processes":[{{"pid":77,"start_ns":5010000000,"net_ns":9,"cgroup_path":"{path}","name":"c"}}]}}"#
    );
    Feed::serve(&folder.join("feed.sock"), move |target| match target.split('?').next() {
        Some("/connections") => Answer::Body(connections.clone().into()),
        Some("/processes") => Answer::Body(processes.clone().into()),
        Some("/status") => Answer::Body(br#"{"version":"9.9","state":"ok","probes":[]}"#.to_vec()),
        _ => Answer::Status(404),
    })
}

fn start(folder: &std::path::Path, ingest: &Ingest, kubelet: &Kubelet, more: &[&str]) -> Agent {
    let url = kubelet.url();
    let mut flags = vec!["--interval", "50ms", "--cri", "off", "--docker", "off", "--kubelet", &url];
    flags.extend(more);
    Agent::start(folder, &ingest.url, &flags)
}

fn facts(ingest: &Ingest) -> Vec<MetadataFact> {
    ingest.held().batches.values().flat_map(|batch| batch.metadata.clone()).collect()
}

fn health(ingest: &Ingest, source: &str) -> Option<MetadataSource> {
    let held = ingest.held();
    let newest = held.batches.values().next_back()?;
    newest.metadata_sources.iter().find(|health| health.source == source).cloned()
}

#[test]
fn pods_and_containers_that_a_kubelet_knows_reach_the_server_with_what_is_collected() {
    let folder = tempfile::tempdir().unwrap();
    let (_feed, ingest) = (tracer(folder.path()), Ingest::start());
    let kubelet = Kubelet::start(Does::Answers("200 OK", PODS.into()));
    let agent = start(folder.path(), &ingest, &kubelet, &["--collect", "pod.app={.metadata.labels.app}"]);
    let pod =
        until("the pod is told", || facts(&ingest).into_iter().find(|fact| fact.source == "kubelet" && fact.id == POD));
    assert_eq!((pod.kind.as_str(), pod.name.as_str(), pod.namespace.as_str()), ("pod", "client", "demo"));
    assert_eq!((pod.addresses.as_slice(), pod.to_unix_ns), (["10.244.0.7".to_owned()].as_slice(), 0));
    assert_eq!(pod.attributes["app"], "client");
    let all = facts(&ingest);
    let container = all.iter().find(|fact| fact.source == "kubelet" && fact.id == CONTAINER).unwrap();
    assert_eq!((container.name.as_str(), container.parent.as_str()), ("c1", POD));
    let by_cgroup = all.iter().find(|fact| fact.source == "tracer" && fact.id == POD).unwrap();
    assert_eq!((by_cgroup.kind.as_str(), by_cgroup.netns), ("pod", 9), "the tracer tells its namespace");
    let told = health(&ingest, "kubelet").unwrap();
    assert_eq!((told.state.as_str(), told.things), ("ok", 25));
    assert!(told.read_unix_ns > 0);
    assert_eq!(health(&ingest, "node").unwrap().state, "ok");
    assert!(agent.stop().success());
}

#[test]
fn a_kubelet_that_hangs_holds_up_no_poll() {
    let folder = tempfile::tempdir().unwrap();
    let (_feed, ingest) = (tracer(folder.path()), Ingest::start());
    let kubelet = Kubelet::start(Does::Hangs);
    let agent = start(folder.path(), &ingest, &kubelet, &[]);
    until("thirty polls are there", || (ingest.held().batches.len() >= 30).then_some(()));
    assert_eq!(health(&ingest, "kubelet"), None, "not one reading was over");
    assert!(facts(&ingest).iter().any(|fact| fact.source == "tracer" && fact.id == CONTAINER));
    assert!(ingest.held().batches.values().all(|batch| batch.covered));
    kubelet.does(Does::Answers("200 OK", PODS.into()));
    until("it is read once it answers", || health(&ingest, "kubelet").filter(|health| health.state == "ok"));
    assert!(agent.stop().success());
}

#[test]
fn a_kubelet_that_refuses_is_told_with_the_missing_rule() {
    let folder = tempfile::tempdir().unwrap();
    let (_feed, ingest) = (tracer(folder.path()), Ingest::start());
    let body =
        "Forbidden (user=system:serviceaccount:demo:default, verb=get, resource=nodes, subresource(s)=[pods proxy])";
    let kubelet = Kubelet::start(Does::Answers("403 Forbidden", body.into()));
    let agent = start(folder.path(), &ingest, &kubelet, &[]);
    let told = until("the refusal is told", || health(&ingest, "kubelet").filter(|health| health.state == "refused"));
    assert!(told.detail.contains("`get` on the resource `nodes/pods`"), "{}", told.detail);
    assert!(agent.stop().success());
}

#[test]
fn what_vanished_while_no_agent_ran_is_ended_when_it_was_seen_last() {
    let folder = tempfile::tempdir().unwrap();
    let (_feed, ingest) = (tracer(folder.path()), Ingest::start());
    let kubelet = Kubelet::start(Does::Answers("200 OK", PODS.into()));
    let agent = start(folder.path(), &ingest, &kubelet, &[]);
    until("the pod is told", || facts(&ingest).into_iter().find(|fact| fact.source == "kubelet" && fact.id == POD));
    let seen = until("when it was read is told", || {
        health(&ingest, "kubelet").map(|health| health.read_unix_ns).filter(|read| *read > 0)
    });
    assert!(agent.stop().success());
    let before = ingest.held().batches.len();
    kubelet.does(Does::Answers("200 OK", r#"{"kind":"PodList","items":[]}"#.into()));
    let agent = start(folder.path(), &ingest, &kubelet, &[]);
    let ended = until("the pod is ended", || {
        let held = ingest.held();
        let mut later = held.batches.values().skip(before).flat_map(|batch| batch.metadata.iter());
        later.rfind(|fact| fact.source == "kubelet" && fact.id == POD && fact.to_unix_ns != 0).cloned()
    });
    assert!(ended.to_unix_ns >= seen, "it was seen then");
    assert_eq!((ended.name.as_str(), ended.addresses.len()), ("client", 1), "under the key that it was told by");
    assert!(agent.stop().success());
}

#[test]
fn a_wrong_setting_ends_the_agent_at_once_with_the_place_and_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_weir-agent"))
        .args(["--collect", "pod.team=$.metadata.[labels", "--metrics-listen", "127.0.0.1:0", "--spool"])
        .arg(folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("character 21: "), "{told}");
}
