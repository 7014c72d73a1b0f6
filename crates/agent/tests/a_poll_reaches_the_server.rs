//! The sample of the project's first page, through the whole agent.

mod support;

use support::agent::Agent;
use support::feed::{Answer, Feed};
use support::ingest::Ingest;
use support::until;
use weir_wire::agent::record::InstanceKind;

const SAMPLE: &str = include_str!("data/sample.json");

#[test]
fn what_was_counted_before_the_first_sight_is_told_apart_and_then_deltas_come() {
    let folder = tempfile::tempdir().unwrap();
    let feed = Feed::constant(&folder.path().join("feed.sock"), Answer::Body(SAMPLE.into()));
    let ingest = Ingest::start();
    let agent = Agent::start(folder.path(), &ingest.url, &["--interval", "20ms"]);
    let first = until("the first record is there", || ingest.held().records().first().cloned());
    assert_eq!(first.instance_kind(), InstanceKind::Tuple);
    assert_eq!(first.local.as_ref().unwrap().end(), Some("172.17.0.2:41515".parse().unwrap()));
    assert_eq!(first.remote.as_ref().unwrap().end(), Some("172.17.0.5:53".parse().unwrap()));
    assert_eq!((first.protocol, first.direction, first.direction_certainty), (1, 2, 1));
    assert_eq!((first.sent_total, first.recv_total), (3079, 5849));
    assert_eq!((first.sent_before, first.recv_before), (3079, 5849));
    assert_eq!((first.sent_delta, first.recv_delta, first.opened), (0, 0, true));
    assert_eq!(first.from_unix_ns, first.to_unix_ns, "nothing of it lies in a window");

    feed.behave(Answer::Body(SAMPLE.replace("3079", "4000").replace("5849", "6000").into()));
    let second = until("the totals have risen", || ingest.held().records().get(1).cloned());
    assert_eq!((second.sent_delta, second.recv_delta), (921, 151));
    assert_eq!((second.sent_total, second.sent_before, second.opened), (4000, 3079, false));
    assert!(second.from_unix_ns >= first.to_unix_ns && second.to_unix_ns > second.from_unix_ns);

    let batches = ingest.held().batches.clone();
    let first = &batches[&1];
    assert_eq!((first.covers_from_unix_ns, first.covered, first.node.as_str()), (0, true, "test-node"));
    let source = first.source.as_ref().unwrap();
    assert_eq!((source.kind.as_str(), source.state.as_str(), source.rows), ("legacy", "ok", 1));
    assert!(first.metadata.iter().any(|fact| fact.kind == "node" && fact.id == "test-node"));
    let own = format!("{}@", std::process::id());
    assert!(first.metadata.iter().any(|fact| fact.kind == "process" && fact.id.starts_with(&own)));
    for (one, next) in batches.values().zip(batches.values().skip(1)) {
        assert_eq!(one.covers_to_unix_ns, next.covers_from_unix_ns, "the spans leave no hole");
    }
    assert!(agent.page("/readyz").starts_with("HTTP/1.1 200"));
    assert!(agent.counter("weir_agent_records_total") >= 2);
    assert!(agent.stop().success());
    assert!(ingest.held().changed.is_empty());
}

#[test]
fn the_local_end_is_named_by_the_tracers_word_and_its_processes() {
    let folder = tempfile::tempdir().unwrap();
    let id = "eae2780ca50271940c642eb532ec85cc6898c7a9a9512f7a41a0dcdcd2708860";
    let path = format!("/kubepods/besteffort/pod94d6947c-3d7f-461d-9e06-17ecd60d40a4/{id}");
    let connections = format!(
        r#"{{"run_id":"00000000000000aa","cursor":1,"connections":[
        {{"pid":77,"type":0,"net_ns":9,"source":"10.0.0.1","dest":"10.0.0.2","sport":1,"dport":2,"cookie":1,
          "process_start":5012345678,"process_name":"curl","cgroup_id":4,"cgroup_path":"{path}"}},
        {{"pid":78,"type":0,"net_ns":9,"source":"10.0.0.1","dest":"10.0.0.2","sport":3,"dport":2,"cookie":2,
          "process_start":6000000000}},
        {{"pid":79,"type":0,"net_ns":10,"source":"10.0.0.1","dest":"10.0.0.2","sport":4,"dport":2,"cookie":3,
          "process_start":7000000000}}]}}"#
    );
    let processes = format!(
        r#"{{"boot_id":"x","processes":[
        {{"pid":77,"start_ns":5010000000,"net_ns":9,"cgroup_path":"{path}","name":"curl"}},
        {{"pid":78,"start_ns":6000000000,"net_ns":9,"cgroup_path":"{path}","name":"nginx"}},
        {{"pid":79,"start_ns":8000000000,"net_ns":10,"cgroup_path":"/","name":"somebody else"}}]}}"#
    );
    let _feed = Feed::serve(&folder.path().join("feed.sock"), move |target| match target.split('?').next() {
        Some("/connections") => Answer::Body(connections.clone().into()),
        Some("/processes") => Answer::Body(processes.clone().into()),
        Some("/status") => Answer::Body(
            br#"{"version":"9.9","state":"degraded","probes":[{"name":"udp","state":"failed","reason":"no BTF"}]}"#
                .to_vec(),
        ),
        _ => Answer::Status(404),
    });
    let ingest = Ingest::start();
    let agent = Agent::start(folder.path(), &ingest.url, &["--interval", "20ms"]);
    let batch = until("the records are there", || {
        ingest.held().batches.values().find(|batch| batch.records.len() == 3).cloned()
    });
    let end = |port: u32| {
        let record = batch.records.iter().find(|record| record.local.as_ref().unwrap().port == port).unwrap();
        &batch.local_ends[record.local_end as usize]
    };
    let named = |port| (end(port).process_name.as_str(), end(port).container_id.as_str());
    assert_eq!(named(1), ("curl", id));
    assert_eq!(named(3), ("nginx", id), "by its namespace, which only one container holds");
    assert_eq!(named(4), ("", ""), "the pid belongs to a younger process now");
    let source = batch.source.as_ref().unwrap();
    assert_eq!((source.kind.as_str(), source.state.as_str(), source.version.as_str()), ("weir", "degraded", "9.9"));
    assert_eq!(source.detail, "probe udp failed: no BTF");
    let container = batch.metadata.iter().find(|fact| fact.kind == "container").unwrap();
    assert_eq!((container.id.as_str(), container.parent.as_str()), (id, "94d6947c-3d7f-461d-9e06-17ecd60d40a4"));
    assert!(agent.stop().success());
}

#[test]
fn a_poll_of_many_connections_comes_in_parts_and_is_covered_by_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<String> = (1..=45_000)
        .map(|number| {
            format!(
                r#"{{"type":0,"source":"10.0.0.1","dest":"10.0.0.2","sport":1,"dport":2,"cookie":{number},"monotonic_sent_bytes":{number}}}"#
            )
        })
        .collect();
    let body = format!(r#"{{"run_id":"00000000000000aa","connections":[{}],"cursor":1}}"#, rows.join(","));
    let _feed = Feed::constant(&folder.path().join("feed.sock"), Answer::Body(body.into()));
    let ingest = Ingest::start();
    let agent = Agent::start(folder.path(), &ingest.url, &["--interval", "60s"]);
    until("every record is there", || (ingest.held().records().len() == 45_000).then_some(()));
    assert!(agent.stop().success());
    let held = ingest.held();
    let sizes: Vec<usize> = held.batches.values().take(3).map(|batch| batch.records.len()).collect();
    assert_eq!(sizes, [20_000, 20_000, 5_000]);
    let spans: Vec<bool> =
        held.batches.values().take(3).map(|batch| batch.covers_from_unix_ns == batch.covers_to_unix_ns).collect();
    assert_eq!(spans, [true, true, false]);
    assert_eq!(held.records().iter().map(|record| record.sent_before).sum::<u64>(), (1..=45_000u64).sum::<u64>());
}

#[test]
fn after_another_boot_the_baselines_begin_anew() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = folder.path().join("proc/sys/kernel");
    std::fs::create_dir_all(kernel.join("random")).unwrap();
    std::fs::write(kernel.join("hostname"), "a-node\n").unwrap();
    std::fs::write(kernel.join("osrelease"), "6.18\n").unwrap();
    let row =
        r#"{"type":0,"source":"10.0.0.1","dest":"10.0.0.2","sport":1,"dport":2,"cookie":5,"monotonic_sent_bytes":70}"#;
    let body = format!(r#"{{"run_id":"00000000000000aa","connections":[{row}],"cursor":1}}"#);
    let _feed = Feed::constant(&folder.path().join("feed.sock"), Answer::Body(body.into()));
    let ingest = Ingest::start();
    let proc = folder.path().join("proc");
    for (boot, records) in [("11", 1), ("11", 1), ("22", 2)] {
        std::fs::write(kernel.join("random/boot_id"), boot.repeat(16)).unwrap();
        let greeted = ingest.held().hellos.len();
        let agent = Agent::start(folder.path(), &ingest.url, &["--interval", "20ms", "--proc", proc.to_str().unwrap()]);
        until("the agent has polled", || {
            let held = ingest.held();
            let run = &held.hellos.get(greeted)?.agent_run;
            held.batches.values().any(|batch| batch.agent_run == *run).then_some(())
        });
        assert!(agent.stop().success());
        assert_eq!(ingest.held().records().len(), records, "boot {boot}");
    }
    let held = ingest.held();
    let last = held.records().pop().unwrap();
    assert_eq!((last.opened, last.sent_before, last.sent_delta, last.generation), (true, 70, 0, 0));
    let boots: std::collections::BTreeSet<_> = held.batches.values().map(|batch| batch.boot_id.clone()).collect();
    assert_eq!(boots.len(), 2);
}

#[test]
fn a_stopped_agent_leaves_nothing_behind_that_the_server_could_have_had() {
    let folder = tempfile::tempdir().unwrap();
    let feed = Feed::constant(&folder.path().join("feed.sock"), Answer::Body(SAMPLE.into()));
    let ingest = Ingest::start();
    let agent = Agent::start(folder.path(), &ingest.url, &["--interval", "60s"]);
    until("the first record is there", || ingest.held().records().first().cloned());
    feed.behave(Answer::Body(SAMPLE.replace("3079", "4000").into()));
    assert!(agent.stop().success());
    let records = ingest.held().records();
    assert_eq!(records.last().unwrap().sent_delta, 921, "the last poll comes at the end");
}
