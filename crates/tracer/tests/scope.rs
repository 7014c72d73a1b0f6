//! A tracer with a scope sees exactly what its processes do, beside other tracers on the same kernel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::collections::BTreeSet;
use support::cgroup::Cgroup;
use support::player::Player;
use support::{Agent, Tracer, bytes, can_trace, until};
use weir_wire::feed::{Connection, Processes};

#[test]
fn player() {
    support::player::play_if_asked();
}

fn can_scope(test: &str) -> bool {
    can_trace(test) && support::cgroup::exists()
}

/// A tracer of one scope, and all that it told of it.
struct Side {
    cgroup: Cgroup,
    tracer: Tracer,
    agent: Agent,
    rows: Vec<Connection>,
}

impl Side {
    fn new(name: &str, old: impl FnOnce(&Cgroup)) -> Self {
        let cgroup = Cgroup::new(name);
        old(&cgroup);
        let tracer = Tracer::start(&["--cgroup", cgroup.folder().to_str().unwrap()]);
        let agent = Agent::new(&tracer);
        Self { cgroup, tracer, agent, rows: Vec::new() }
    }

    /// Waits until `count` rows of ended connections are there.
    fn ended(&mut self, count: usize) {
        until("the connections to end", || {
            let rows = self.agent.fetch(&self.tracer).connections.into_iter();
            self.rows.extend(rows.filter(|row| row.close_epoch.is_some()));
            (self.rows.len() >= count).then_some(())
        });
    }
}

/// Kind, local port, remote port, sent, received.
fn facts(row: &Connection) -> (u8, u16, u16, u64, u64) {
    let (sent, recv) = bytes(row);
    (row.kind, row.sport, row.dport, sent, recv)
}

#[test]
fn two_tracers_with_scopes_of_their_own_see_each_its_own_and_nothing_else() {
    if !can_scope("two_tracers_with_scopes_of_their_own_see_each_its_own_and_nothing_else") {
        return;
    }
    let mut server = None;
    let mut listening = 0;
    // The server's listener and one of its connections are older than the tracers.
    let mut outside = Player::start(None);
    let mut left = Side::new("left", |cgroup| {
        // Below the scope counts as in it.
        std::fs::create_dir(cgroup.folder().join("pod")).unwrap();
        let mut player = Player::start(Some(&cgroup.folder().join("pod")));
        listening = player.tell("listen");
        outside.tell(&format!("connect {listening}"));
        player.tell("accept");
        server = Some(player);
    });
    let mut server = server.unwrap();
    let mut right = Side::new("right", |_| {});
    let mut client = Player::start(Some(right.cgroup.folder()));
    let outside_port = outside.tell("listen");

    // The older one: only the server's end is in a scope.
    outside.tell("send 100");
    server.tell("read 100");
    let old = left.tracer.reply("").connections;
    let old: Vec<_> = old.iter().filter(|row| row.sport == listening).collect();
    assert_eq!((old.len(), bytes(old[0])), (1, (0, 100)));
    assert_eq!((old[0].pid, old[0].direction), (server.pid(), 1));
    assert!(right.tracer.reply("").connections.is_empty());
    let old_port = old[0].dport;
    outside.tell("close");
    server.tell("close");

    let mut expected = (BTreeSet::from([(0, listening, old_port, 0, 100)]), BTreeSet::new());
    // From scope to scope: each end in its own.
    let one = client.tell(&format!("connect {listening}"));
    server.tell("accept");
    client.tell("send 11");
    server.tell("read 11");
    server.tell("send 22");
    client.tell("read 22");
    client.tell("close");
    server.tell("close");
    expected.0.insert((0, listening, one, 22, 11));
    expected.1.insert((0, one, listening, 11, 22));
    // Short ones.
    for count in 1_u16..20 {
        let port = client.tell(&format!("connect {listening}"));
        client.tell(&format!("send {count}"));
        client.tell("close");
        server.tell("accept");
        server.tell(&format!("read {count}"));
        server.tell("close");
        expected.0.insert((0, listening, port, 0, u64::from(count)));
        expected.1.insert((0, port, listening, u64::from(count), 0));
    }
    // To the outside, and outside alone.
    let out = client.tell(&format!("connect {outside_port}"));
    outside.tell("accept");
    client.tell("send 5");
    outside.tell("read 5");
    client.tell("close");
    outside.tell("close");
    expected.1.insert((0, out, outside_port, 5, 0));
    outside.tell(&format!("connect {outside_port}"));
    outside.tell("send 6");
    outside.tell("close");
    outside.tell("accept");
    outside.tell("close");

    left.ended(expected.0.len());
    right.ended(expected.1.len());
    assert_eq!(left.rows.iter().map(facts).collect::<BTreeSet<_>>(), expected.0);
    assert_eq!(right.rows.iter().map(facts).collect::<BTreeSet<_>>(), expected.1);
    assert_eq!((left.rows.len(), right.rows.len()), (expected.0.len(), expected.1.len()));
    assert!(left.rows.iter().all(|row| row.pid == server.pid()));
    assert!(right.rows.iter().all(|row| row.pid == client.pid()));
    for side in [&left, &right] {
        let reply = side.tracer.reply("");
        assert!(reply.connections.is_empty(), "{:?}", reply.connections);
        assert!(reply.losses.is_empty(), "{:?}", reply.losses);
        assert_eq!(side.tracer.status().scope.as_deref(), side.cgroup.folder().to_str());
    }
    let processes = |side: &Side| -> Vec<u32> {
        let body = side.tracer.try_get("/processes").unwrap();
        let processes: Processes = serde_json::from_slice(&body).unwrap();
        processes.processes.iter().map(|process| process.pid).collect()
    };
    assert_eq!((processes(&left), processes(&right)), (vec![server.pid()], vec![client.pid()]));
}

#[test]
fn udp_too_belongs_to_the_scope_of_its_socket() {
    if !can_scope("udp_too_belongs_to_the_scope_of_its_socket") {
        return;
    }
    let (left, right) = (Side::new("udp-left", |_| {}), Side::new("udp-right", |_| {}));
    let mut server = Player::start(Some(left.cgroup.folder()));
    let mut client = Player::start(Some(right.cgroup.folder()));
    let mut outside = Player::start(None);
    let (server_port, client_port, outside_port) = (server.tell("udp"), client.tell("udp"), outside.tell("udp"));
    client.tell(&format!("udp-send {server_port} 70"));
    server.tell("udp-read");
    server.tell(&format!("udp-send {client_port} 7"));
    client.tell("udp-read");
    outside.tell(&format!("udp-send {outside_port} 9"));
    outside.tell("udp-read");
    outside.tell(&format!("udp-send {server_port} 8"));
    server.tell("udp-read");
    let told = |side: &Side| side.tracer.reply("").connections.iter().map(facts).collect::<BTreeSet<_>>();
    assert_eq!(
        told(&left),
        BTreeSet::from([(1, server_port, client_port, 7, 70), (1, server_port, outside_port, 0, 8)])
    );
    assert_eq!(told(&right), BTreeSet::from([(1, client_port, server_port, 70, 7)]));
}

#[test]
fn another_scope_begins_another_run() {
    if !can_scope("another_scope_begins_another_run") {
        return;
    }
    let (one, two) = (Cgroup::new("one"), Cgroup::new("two"));
    let folder = tempfile::tempdir().unwrap();
    // Also as a path below the mount of cgroup v2.
    let mut tracer = Tracer::start_in(folder.path(), &["--no-udp", "--cgroup", &one.path()]);
    let run_id = tracer.status().run_id;
    tracer.kill();
    tracer = Tracer::start_in(folder.path(), &["--no-udp", "--cgroup", &one.path()]);
    assert_eq!(tracer.status().run_id, run_id);
    tracer.kill();
    tracer = Tracer::start_in(folder.path(), &["--no-udp", "--cgroup", &two.path()]);
    assert_ne!(tracer.status().run_id, run_id);
    tracer.stop();
}

#[test]
fn a_scope_that_is_no_cgroup_is_refused() {
    if !can_scope("a_scope_that_is_no_cgroup_is_refused") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for given in ["/etc", "/nonexistent"] {
        let output =
            Tracer::command(folder.path(), &["--cgroup", given]).stderr(std::process::Stdio::piped()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(given) && text.contains("no cgroup v2 directory"), "{text}");
    }
}
