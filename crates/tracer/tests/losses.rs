//! Each loss, forced in the real kernel with the real tracer, is counted exactly: what was kept and what was lost is all
//! there was. `crates/testkit/tests/losses.rs` follows them to the answers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use support::cgroup::Cgroup;
use support::player::Player;
use support::{Agent, Tracer, bytes, can_trace, until};
use weir_wire::feed::Connection;
use weir_wire::losses::Reason;

#[test]
fn player() {
    support::player::play_if_asked();
}

fn can(test: &str) -> bool {
    can_trace(test) && support::cgroup::exists()
}

/// A tracer of one cgroup, and a process in it that has a network namespace of its own.
struct Scene {
    player: Player,
    tracer: Tracer,
    cgroup: Cgroup,
}

impl Scene {
    fn new(name: &str, args: &[&str]) -> Self {
        let cgroup = Cgroup::new(name);
        let mut all = vec!["--cgroup", cgroup.folder().to_str().unwrap()];
        all.extend(args);
        let tracer = Tracer::start(&all);
        Self { player: Self::player(&cgroup), tracer, cgroup }
    }

    fn player(cgroup: &Cgroup) -> Player {
        let mut player = Player::start(Some(cgroup.folder()));
        player.tell("netns");
        player.tell("listen");
        player
    }

    fn losses(&self) -> BTreeMap<String, u64> {
        let losses = self.tracer.status().losses;
        for word in losses.keys() {
            let word = word.strip_suffix(weir_wire::losses::BYTES).unwrap_or(word);
            assert!(Reason::find("tracer", word).is_some(), "{word} is no reason");
        }
        losses
    }

    fn lost(&self, word: &str) -> u64 {
        self.losses().get(word).copied().unwrap_or(0)
    }
}

/// Fetches and acknowledges until `done`.
fn ended(tracer: &Tracer, agent: &mut Agent, mut done: impl FnMut(&[Connection]) -> bool) -> Vec<Connection> {
    let mut ended = Vec::new();
    until("the connections to end", || {
        let rows = agent.fetch(tracer).connections.into_iter();
        ended.extend(rows.filter(|row| row.close_epoch.is_some()));
        done(&ended).then_some(())
    });
    ended
}

#[test]
fn of_ten_thousand_closes_into_a_ring_of_fifty_each_is_kept_or_counted() {
    if !can("of_ten_thousand_closes_into_a_ring_of_fifty_each_is_kept_or_counted") {
        return;
    }
    let mut scene = Scene::new("ring", &["--closed-ring-bytes", "8192"]);
    let mut agent = Agent::new(&scene.tracer);
    // Nobody drains, then somebody does: both ends of 5,000 connections are 10,000 closes.
    scene.tracer.signal(Signal::SIGSTOP);
    scene.player.tell("churn 2500");
    scene.tracer.signal(Signal::SIGCONT);
    scene.player.tell("churn 2500");
    let (tracer, losses) = (&scene.tracer, || scene.lost("tcp_closed_ring_full"));
    let kept = ended(tracer, &mut agent, |rows| rows.len() as u64 + losses() >= 10_000).len() as u64;
    assert_eq!(kept + losses(), 10_000);
    assert!(losses() >= 4_900, "{}", losses());
    // Not counted again by whoever takes the run over.
    let lost = losses();
    scene.tracer.kill();
    scene.tracer.restart();
    assert_eq!((scene.lost("tcp_closed_ring_full"), scene.tracer.status().takeovers), (lost, 1));
}

#[test]
fn datagrams_beyond_the_table_are_counted_with_their_bytes() {
    if !can("datagrams_beyond_the_table_are_counted_with_their_bytes") {
        return;
    }
    let mut scene = Scene::new("flows", &["--udp-flows-max", "8", "--udp-others-max", "1"]);
    scene.player.tell("udp-hold 20 10");
    let rows = scene.tracer.reply("").connections;
    // Eight flows, and room for nine `other` peers: the table has one more element than there may be flows.
    assert_eq!(rows.iter().filter(|row| row.other_peer == Some(true)).count(), 9, "{rows:?}");
    assert_eq!((rows.len(), rows.iter().map(|row| bytes(row).0).sum::<u64>()), (17, 170));
    let losses = scene.losses();
    assert_eq!((losses["udp_flows_full"], losses["udp_flows_full_bytes"], losses["udp_peers_capped"]), (3, 30, 9));
}

#[test]
fn closed_sockets_beyond_their_ring_end_when_they_are_idle_and_lose_no_byte() {
    if !can("closed_sockets_beyond_their_ring_end_when_they_are_idle_and_lose_no_byte") {
        return;
    }
    let mut scene = Scene::new("gone", &["--udp-closed-ring-bytes", "4096", "--udp-idle", "2s"]);
    let mut agent = Agent::new(&scene.tracer);
    scene.tracer.signal(Signal::SIGSTOP);
    scene.player.tell("udp-hold 200 10");
    scene.player.tell("udp-drop");
    scene.tracer.signal(Signal::SIGCONT);
    let rows = ended(&scene.tracer, &mut agent, |rows| rows.len() >= 200);
    let closed = rows.iter().filter(|row| row.close_reason.as_deref() == Some("closed")).count() as u64;
    assert_eq!((rows.len(), rows.iter().map(|row| bytes(row).0).sum::<u64>()), (200, 2_000));
    // A record is a row and a header of 8 bytes.
    let room = 4_096 / (size_of::<weir_tracer::probes::layout::Row>() as u64 + 8);
    assert_eq!((closed, scene.lost("udp_gone_ring_full")), (room, 200 - room));
}

#[test]
fn sockets_without_storage_are_counted_tcp_by_its_ends_udp_as_lost() {
    if !can("sockets_without_storage_are_counted_tcp_by_its_ends_udp_as_lost") {
        return;
    }
    // Without storage a socket's scope is not known: this tracer looks everywhere, in a namespace of its own making.
    let cgroup = Cgroup::new("storage");
    let tracer = Tracer::start(&["--backfill-interval", "1h"]);
    let mut agent = Agent::new(&tracer);
    let before = tracer.status().losses;
    let mut player = Player::start(Some(cgroup.folder()));
    let netns = 0xf000_0000 + u32::from(player.tell("netns"));
    if player.tell("optmem 0") == 1 {
        println!("SKIP sockets without storage: this kernel has no limit per network namespace");
        return;
    }
    player.tell("listen");
    player.tell("churn 50");
    player.tell("udp-hold 7 10");
    let mut rows = Vec::new();
    until("both ends of each", || {
        rows.extend(agent.fetch(&tracer).connections.into_iter().filter(|row| row.net_ns == netns));
        (rows.len() >= 100).then_some(())
    });
    assert!(rows.iter().all(|row| row.close_epoch.is_some() && row.kind == 0), "{rows:?}");
    let after = tracer.status().losses;
    let lost = |word: &str| after.get(word).copied().unwrap_or(0) - before.get(word).copied().unwrap_or(0);
    assert_eq!(lost("tcp_no_socket_storage"), 100);
    assert_eq!((lost("udp_no_socket_storage"), lost("udp_no_socket_storage_bytes")), (7, 70));
    // Other connections of this machine may have had no owner, too.
    let ownerless = rows.iter().filter(|row| row.pid == 0).count() as u64;
    assert!(lost("owner_unknown") >= ownerless && ownerless > 0, "{after:?}");
}

#[test]
fn a_full_journal_counts_what_nobody_had_acknowledged() {
    if !can("a_full_journal_counts_what_nobody_had_acknowledged") {
        return;
    }
    let mut scene = Scene::new("journal", &["--journal-rows-max", "100"]);
    let mut agent = Agent::new(&scene.tracer);
    scene.player.tell("churn 200");
    until("what ended to be kept or counted", || {
        let status = scene.tracer.status();
        let lost = status.losses.get("closed_rows_dropped").copied().unwrap_or(0);
        (status.gauges["journal_rows"] + lost == 400).then_some(())
    });
    let lost = scene.lost("closed_rows_dropped");
    let kept = agent.fetch(&scene.tracer).connections.len() as u64;
    assert_eq!(kept + lost, 400);
    assert!((300..400).contains(&lost), "{lost}");
    // What has been acknowledged makes room without a loss.
    agent.fetch(&scene.tracer);
    for _ in 0..5 {
        let acknowledged = agent.cursor;
        scene.player.tell("churn 20");
        ended(&scene.tracer, &mut agent, |rows| rows.len() >= 40);
        assert!(agent.cursor >= acknowledged + 40);
    }
    assert_eq!(scene.lost("closed_rows_dropped"), lost);
}

#[test]
fn what_was_let_go_while_a_client_was_forgotten_is_counted_when_it_is_back() {
    if !can("what_was_let_go_while_a_client_was_forgotten_is_counted_when_it_is_back") {
        return;
    }
    let mut scene = Scene::new("away", &[]);
    let agent = Agent::new(&scene.tracer);
    scene.player.tell("churn 10");
    until("the ends to be in the journal", || (scene.tracer.status().gauges["journal_rows"] == 20).then_some(()));
    // Too many others ask: the agent is forgotten, and nobody needs the rows.
    for number in 0..70 {
        scene.tracer.reply(&format!("?client_id=other-{number}"));
    }
    let evicted = scene.lost("clients_evicted");
    assert_eq!((evicted, scene.tracer.status().gauges["journal_rows"]), (7, 0));
    let back = format!("?client_id=agent&ack={}&run={}", agent.cursor, agent.run_id);
    let reply = scene.tracer.reply(&back);
    assert_eq!((reply.connections.len(), reply.losses["closed_rows_let_go"]), (0, 20));
    let next = format!("?client_id=agent&ack={}&run={}", reply.cursor.unwrap(), agent.run_id);
    assert_eq!(scene.tracer.reply(&next).losses["closed_rows_let_go"], 20, "once");
    // A cursor of another run is not this run's loss.
    let other = format!("?client_id=third&ack={}&run=00000000000000aa", agent.cursor);
    assert_eq!(scene.tracer.reply(&other).losses["closed_rows_let_go"], 20);
}

#[test]
fn baselines_beyond_the_cap_are_counted_and_who_does_not_want_them_costs_none() {
    if !can("baselines_beyond_the_cap_are_counted_and_who_does_not_want_them_costs_none") {
        return;
    }
    let mut scene = Scene::new("baselines", &["--client-baselines-max", "6"]);
    scene.player.tell("udp-hold 10 10");
    let capped = |query: &str| scene.tracer.reply(query).losses.get("client_baselines_capped").copied();
    assert_eq!(capped("?client_id=lean&last=no"), None);
    assert_eq!(capped("?client_id=a"), Some(4));
    assert_eq!(capped("?client_id=a"), Some(8));
    // The room is one for all clients.
    assert_eq!(capped("?client_id=b"), Some(18));
    assert_eq!(capped("?client_id=lean&last=no"), Some(18));
}

#[test]
fn a_walk_that_had_to_pause_is_told() {
    if !can("a_walk_that_had_to_pause_is_told") {
        return;
    }
    let mut scene = Scene::new("walk", &["--live-ring-bytes", "4096"]);
    scene.player.tell("hold 150");
    let reply = scene.tracer.reply("");
    assert_eq!((reply.complete, reply.losses["walks_incomplete"]), (Some(false), 1));
    assert_eq!(reply.connections.len(), 300, "nothing closed meanwhile, so nothing was missed");
}

#[test]
fn a_cgroup_that_is_gone_before_its_path_was_read_is_told() {
    if !can("a_cgroup_that_is_gone_before_its_path_was_read_is_told") {
        return;
    }
    let scene = Scene::new("gone-cgroup", &["--cgroups-ring-bytes", "4096"]);
    let mut agent = Agent::new(&scene.tracer);
    scene.tracer.signal(Signal::SIGSTOP);
    // So many others before it that the kernel has no room to tell its path.
    for number in 0..200 {
        std::fs::create_dir(scene.cgroup.folder().join(number.to_string())).unwrap();
    }
    let pod = scene.cgroup.folder().join("pod");
    std::fs::create_dir(&pod).unwrap();
    let mut short = Player::start(Some(&pod));
    short.tell("netns");
    short.tell("listen");
    short.tell("churn 10");
    drop(short);
    until("the cgroup to be empty", || std::fs::remove_dir(&pod).ok());
    scene.tracer.signal(Signal::SIGCONT);
    let rows = ended(&scene.tracer, &mut agent, |rows| rows.len() >= 20);
    assert!(rows.iter().all(|row| row.cgroup_id.is_some() && row.cgroup_path.is_none()), "{rows:?}");
    assert_eq!(scene.lost("cgroup_unresolved"), 20);
}

#[test]
fn walks_and_passes_that_fail_are_told() {
    if !can("walks_and_passes_that_fail_are_told") {
        return;
    }
    let scene = Scene::new("failing", &["--backfill-interval", "100ms"]);
    let mut stream = BufReader::new(UnixStream::connect(scene.tracer.socket()).unwrap());
    assert_eq!(ask(&mut stream, "/status"), 200);
    let limit = |soft: u32| {
        let limit = format!("--nofile={soft}:");
        let pid = scene.tracer.pid().to_string();
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    };
    // No descriptor more: no iterator can be opened, on the connection that is open already.
    limit(3);
    let failed = ask(&mut stream, "/connections");
    until("a pass to fail", || scene.tracer.log().contains("failed to look up the owners").then_some(()));
    limit(1_024);
    assert_eq!(failed, 500);
    let losses = scene.losses();
    assert_eq!(losses["walks_failed"], 1);
    assert!(losses["backfills_failed"] >= 1);
    assert_eq!(ask(&mut stream, "/connections"), 200);
}

/// A request on a connection that stays open; its answer's status.
fn ask(stream: &mut BufReader<UnixStream>, target: &str) -> u16 {
    write!(stream.get_mut(), "GET {target} HTTP/1.1\r\nHost: weir\r\n\r\n").unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
    }
    let head = head.to_lowercase();
    if let Some((_, length)) = head.split_once("content-length: ") {
        let length: usize = length.lines().next().unwrap().trim().parse().unwrap();
        stream.read_exact(&mut vec![0; length]).unwrap();
    } else {
        let mut chunk = String::new();
        while chunk != "0\r\n" {
            chunk.clear();
            stream.read_line(&mut chunk).unwrap();
            let length = usize::from_str_radix(chunk.trim(), 16).unwrap();
            stream.read_exact(&mut vec![0; length + 2]).unwrap();
        }
    }
    head.split(' ').nth(1).unwrap().parse().unwrap()
}
