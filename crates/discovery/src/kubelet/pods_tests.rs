//! Recorded lists, and what a hostile or broken one does.

use super::*;

const CONTAINERD1: &str = include_str!("../../tests/data/pods/containerd1.json");
const CONTAINERD2: &str = include_str!("../../tests/data/pods/containerd2.json");
const API: &str = include_str!("../../tests/data/pods/api.json");

fn read(body: &str) -> Vec<Said> {
    parse(body.as_bytes(), &Collect::default()).unwrap()
}

fn pod<'a>(said: &'a [Said], name: &str) -> &'a Said {
    said.iter().find(|said| said.kind == kind::POD && said.name.starts_with(name)).unwrap()
}

/// The containers of a pod as `name type state ports from..to`, seconds within the recording's hour.
fn containers(said: &[Said], pod: &Said) -> Vec<String> {
    let second = |at: Option<UnixNanos>| at.map_or(String::new(), |at| (at.0 / 1_000_000_000 % 3600).to_string());
    let of_pod = said.iter().filter(|said| said.kind == kind::CONTAINER && said.parent == pod.id);
    of_pod
        .map(|said| {
            assert!(said.id.len() == 64 && said.id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{}", said.id);
            assert_eq!(said.attributes["image"], "registry.local/busybox:1");
            assert_eq!(said.namespace, pod.namespace);
            let attribute = |name: &str| said.attributes.get(name).map_or("", String::as_str);
            format!(
                "{} {} {} {} {}..{}",
                said.name,
                attribute("container_type"),
                attribute("state"),
                attribute("ports"),
                second(said.from),
                second(said.to)
            )
        })
        .collect()
}

fn owner(said: &Said) -> (String, String) {
    let attribute = |name: &str| said.attributes.get(name).cloned().unwrap_or_default();
    (attribute("owner_kind"), attribute("owner_name"))
}

#[test]
fn a_deployments_pod_has_its_owner_hash_address_and_both_containers_apart() {
    for (body, base) in [(CONTAINERD1, "10.244.0."), (CONTAINERD2, "10.244.0.")] {
        let said = read(body);
        let web = pod(&said, "web-");
        assert_eq!(owner(web), ("ReplicaSet".into(), "web-6675746f8b".into()));
        assert_eq!(web.attributes["pod_template_hash"], "6675746f8b");
        assert_eq!((web.namespace.as_str(), web.attributes["phase"].as_str()), ("demo", "Running"));
        assert!(web.addresses.len() == 1 && web.addresses[0].to_string().starts_with(base));
        assert!(web.from.is_some() && web.to.is_none());
        let names: Vec<String> =
            containers(&said, web).iter().map(|text| text.split("..").next().unwrap().to_owned()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names[0].starts_with("httpd container running http:8080/tcp"), "{names:?}");
        assert!(names[1].starts_with("side container running "), "{names:?}");
        assert!(names[2].starts_with("init init exited "), "{names:?}");
    }
}

#[test]
fn a_pod_holds_its_address_since_its_network_and_until_its_last_container_ended() {
    let said = read(CONTAINERD1);
    let at = |text: &str| Some(UnixNanos(text.parse::<Timestamp>().unwrap().as_nanosecond() as i64));
    // Its sandbox came 41 s after the kubelet took it on.
    let fixed = pod(&said, "static-web");
    assert_eq!(fixed.from, at("2026-11-23T16:45:21Z"));
    let job = pod(&said, "tick-29924208");
    assert_eq!((job.from, job.to), (at("2026-11-23T16:48:14Z"), at("2026-11-23T16:48:15Z")));
    assert_eq!(owner(job), ("Job".into(), "tick-29924208".into()));
    assert_eq!(containers(&said, job), ["t container exited  2895..2895"]);
    let waiting = pod(&said, "tick-29924210");
    assert!(waiting.addresses.is_empty() && containers(&said, waiting).is_empty());
    assert_eq!(waiting.attributes["phase"], "Pending");
}

#[test]
fn a_restarted_container_is_told_with_the_one_before_it() {
    let said = read(CONTAINERD1);
    let crash = pod(&said, "crash");
    assert_eq!(containers(&said, crash), ["c container exited  2941..2944", "c container exited  2856..2859"]);
    assert!(crash.to.is_none(), "the pod lives on");
}

#[test]
fn a_host_network_pod_says_so_and_has_its_nodes_address() {
    for body in [CONTAINERD1, CONTAINERD2] {
        let said = read(body);
        let hostnet = pod(&said, "hostnet");
        assert_eq!(hostnet.attributes["host_network"], "true");
        assert_eq!(hostnet.addresses[0].to_string(), "10.88.0.1");
        assert_eq!(owner(hostnet).0, "DaemonSet");
        assert!(!pod(&said, "client").attributes.contains_key("host_network"));
    }
}

#[test]
fn a_static_pod_is_found_under_both_uids() {
    const HASH: &str = "cd24ea17f0a18698d722008e4f953339";
    for body in [CONTAINERD1, CONTAINERD2] {
        let own = read(body);
        let own = pod(&own, "static-web");
        assert_eq!((own.id.as_str(), own.attributes.get("aliases")), (HASH, None));
    }
    let mirror = read(API);
    let mirror = pod(&mirror, "static-web");
    assert_eq!(mirror.id, "ae11203c-ca28-4a2e-b3dc-c596c63138dd");
    assert_eq!(mirror.attributes["aliases"], HASH);
}

/// Hand-made: what the recorded cluster had none of.
const KINDS: &str = r#"{"kind":"PodList","items":[
  {"metadata":{"name":"p\u0061","namespace":"n","uid":"u-1","ownerReferences":[
      {"kind":"Thing","name":"not","uid":"x"},{"kind":"StatefulSet","name":"s","uid":"y","controller":true}],
    "labels":{"team":"shop"}},
   "spec":{"containers":[{"name":"c","image":"i:1","ports":[{"containerPort":53,"protocol":"UDP"},{"name":"m","containerPort":9}]}],
    "initContainers":[{"name":"proxy","image":"i:2","restartPolicy":"Always"},{"name":"init","image":"i:3"}],
    "ephemeralContainers":[{"name":"debug","image":"i:4"}]},
   "status":{"phase":"Running","startTime":"2026-01-01T00:00:00Z","podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"},{"ip":"fd00::1"},{"ip":"::ffff:10.0.0.1"}],
    "containerStatuses":[{"name":"c","containerID":"cri-o://aa","state":{"running":{"startedAt":"2026-01-01T00:00:05Z"}}}],
    "initContainerStatuses":[{"name":"proxy","containerID":"docker://bb","state":{"running":{"startedAt":"2026-01-01T00:00:02Z"}}},
      {"name":"init","containerID":"docker://cc","state":{"waiting":{}},"lastState":{"terminated":{"containerID":"docker://cc","startedAt":null,"finishedAt":"2026-01-01T00:00:03Z"}}}],
    "ephemeralContainerStatuses":[{"name":"debug","containerID":"containerd://dd","state":{"running":{}}}]}},
  {"metadata":{"name":"nameless"},"status":{}},
  {"metadata":{"name":"bare","uid":"u-2"}}]}"#;

#[test]
fn init_sidecar_and_ephemeral_containers_are_told_apart_whatever_the_runtime() {
    let said = read(KINDS);
    let told: Vec<(&str, &str, &str)> = said
        .iter()
        .filter(|said| said.kind == kind::CONTAINER)
        .map(|said| (said.name.as_str(), said.id.as_str(), said.attributes["container_type"].as_str()))
        .collect();
    assert_eq!(
        told,
        [("c", "aa", "container"), ("proxy", "bb", "sidecar"), ("init", "cc", "init"), ("debug", "dd", "ephemeral")]
    );
    assert_eq!(said[1].attributes["ports"], "53/udp,m:9/tcp");
    let pod = pod(&said, "pa");
    assert_eq!(pod.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.1", "fd00::1"]);
    assert_eq!(owner(pod), ("StatefulSet".into(), "s".into()), "the controller, and not just any owner");
    assert_eq!(said.iter().filter(|said| said.kind == kind::POD).count(), 2, "without a UID there is no pod");
}

#[test]
fn what_the_configuration_asks_for_is_collected_of_pods_and_containers() {
    let entries = [
        "pod.team={.metadata.labels.team}",
        "pod.tier=$.metadata.labels.tier",
        "container.policy=$.restartPolicy",
        "container.restarts=$.status.restartCount",
    ];
    let collect = Collect::parse(&entries, KINDS_COLLECTED).unwrap();
    let said = parse(KINDS.as_bytes(), &collect).unwrap();
    assert_eq!(pod(&said, "pa").attributes["team"], "shop");
    assert!(!pod(&said, "pa").attributes.contains_key("tier"));
    assert_eq!(said.iter().find(|said| said.name == "proxy").unwrap().attributes["policy"], "Always");
    let recorded = parse(CONTAINERD1.as_bytes(), &collect).unwrap();
    assert_eq!(pod(&recorded, "web-").attributes["tier"], "front");
    assert_eq!(recorded.iter().find(|said| said.name == "c").unwrap().attributes["restarts"], "5");
}

const KINDS_COLLECTED: &[&str] = &[kind::POD, kind::CONTAINER];

#[test]
fn what_is_no_list_of_pods_is_refused_with_the_place() {
    for (body, words) in [
        ("Unauthorized", "line 1 column 1"),
        ("", "EOF"),
        ("[1,2]", "not a list of pods"),
        (r#"{"kind":"Status","status":"Failure"}"#, "`Status`"),
        (r#"{"kind":"PodList","items":[{"metadata":{"uid":5}}]}"#, "column"),
        (&CONTAINERD1[..CONTAINERD1.len() / 2], "EOF"),
        (&"[".repeat(100_000), "line 1"),
    ] {
        let error = parse(body.as_bytes(), &Collect::default()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(read(r#"{"kind":"PodList","items":null}"#).is_empty());
}

proptest::proptest! {
    #[test]
    fn a_list_cut_or_changed_anywhere_never_panics(at in 0..CONTAINERD1.len(), byte in 0_u8..=255) {
        let mut body = CONTAINERD1.as_bytes().to_vec();
        body[at] = byte;
        let _ = parse(&body, &Collect::default());
        let _ = parse(&body[..at], &Collect::default());
    }
}
