//! What the table of capabilities says (`weir_daemon::capabilities`, `docs/operations.md`), found by running the tracer
//! as an ordinary user with each of them missing.
//!
//! Not looked at here: what a program costs (`CAP_SYS_ADMIN`), as the kernel counts that only when the whole machine is
//! told to, and the receive buffer of the fallback (`CAP_NET_ADMIN`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use support::netns::Netns;
use support::tcp::{Pair, listener};
use support::user::start_as_nobody;
use support::{Agent, Tracer, bytes, can_trace, rows_of, until};
use weir_daemon::capabilities::{ALL, BPF, Capability, DAC_READ_SEARCH, NET_ADMIN, PERFMON, SYS_ADMIN, SYS_PTRACE};
use weir_wire::feed::Processes;

/// What a tracer sees of this test's process, which is root's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    mode: String,
    /// A datagram.
    udp: bool,
    /// Who holds a connection that is older than the tracer.
    owner: bool,
    /// A connection in another network namespace.
    namespace: bool,
    /// Another user's process' network namespace.
    processes: bool,
}

/// As setpriv(1) names it.
fn word(capability: &Capability) -> String {
    capability.name.strip_prefix("CAP_").unwrap().to_lowercase()
}

struct Traffic {
    listener: TcpListener,
    older: Pair,
}

impl Traffic {
    fn new() -> Self {
        let listener = listener();
        let older = Pair::new(&listener);
        older.exchange(33, 0);
        Self { listener, older }
    }

    /// TCP is exact whatever is missing: older than the tracer, alive, ended, and all between two fetches.
    fn look(&self, tracer: &Tracer, elsewhere: &Elsewhere) -> Seen {
        let mut agent = Agent::new(tracer);
        let (local, remote) = self.older.ports();
        let row = until("the older connection", || {
            rows_of(&tracer.reply(""), local, remote).first().map(|row| (*row).clone())
        });
        assert_eq!((bytes(&row), row.direction), ((33, 0), 2));

        let pair = Pair::new(&self.listener);
        pair.exchange(44, 0);
        let short = pair.ports();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        drop(pair);
        let ended = until("the short connection", || {
            let reply = agent.fetch(tracer);
            rows_of(&reply, short.0, short.1).into_iter().find(|row| row.close_epoch.is_some()).cloned()
        });
        assert_eq!((bytes(&ended), ended.direction), ((44, 0), 2));

        let reply = tracer.reply("");
        let processes: Processes = serde_json::from_slice(&tracer.try_get("/processes").unwrap()).unwrap();
        let own = processes.processes.iter().find(|process| process.pid == std::process::id()).unwrap();
        Seen {
            mode: tracer.status().mode,
            udp: reply.connections.iter().any(|row| row.kind == 1 && row.sport == port),
            owner: row.pid == std::process::id(),
            namespace: reply.connections.iter().any(|row| row.net_ns == elsewhere.inode && bytes(row) == (55, 0)),
            processes: own.net_ns != 0,
        }
    }
}

/// A connection in a network namespace of its own.
struct Elsewhere {
    inode: u32,
    _connection: Pair,
    _netns: Netns,
}

impl Elsewhere {
    fn new() -> Self {
        let netns = Netns::new("capabilities");
        let (inode, connection) = netns.enter(|inode| {
            let pair = Pair::new(&listener());
            pair.exchange(55, 0);
            (inode, pair)
        });
        Self { inode, _connection: connection, _netns: netns }
    }
}

fn all_but(without: &[Capability]) -> Vec<String> {
    ALL.iter().filter(|capability| !without.contains(capability)).map(word).collect()
}

fn look(traffic: &Traffic, elsewhere: &Elsewhere, held: &[String], mode: &str) -> Seen {
    let held: Vec<&str> = held.iter().map(String::as_str).collect();
    let tracer = start_as_nobody(&held, &["--mode", mode]);
    let lacks: Vec<String> = tracer.status().lacks.into_iter().map(|lack| lack.what).collect();
    for capability in ALL {
        let stood_for = matches!(capability, BPF | PERFMON) && held.contains(&"sys_admin");
        let has = held.contains(&word(&capability).as_str()) || stood_for;
        assert_eq!(lacks.iter().any(|lack| lack == capability.name), !has, "{} with {held:?}", capability.name);
    }
    traffic.look(&tracer, elsewhere)
}

#[test]
fn with_exactly_three_capabilities_an_ordinary_user_sees_all_but_other_processes_namespaces() {
    if !can_trace("with_exactly_three_capabilities_an_ordinary_user_sees_all_but_other_processes_namespaces") {
        return;
    }
    let (traffic, elsewhere) = (Traffic::new(), Elsewhere::new());
    let held = [BPF, PERFMON, NET_ADMIN].map(|capability| word(&capability));
    let seen = look(&traffic, &elsewhere, &held, "ebpf");
    let expected = Seen { mode: "ebpf".into(), udp: true, owner: true, namespace: true, processes: false };
    assert_eq!(seen, expected);
}

#[test]
fn without_each_capability_is_lost_what_the_table_says() {
    if !can_trace("without_each_capability_is_lost_what_the_table_says") {
        return;
    }
    let (traffic, elsewhere) = (Traffic::new(), Elsewhere::new());
    let whole = Seen { mode: "ebpf".into(), udp: true, owner: true, namespace: true, processes: true };
    assert_eq!(look(&traffic, &elsewhere, &all_but(&[]), "auto"), whole);
    for (without, expected) in [
        (NET_ADMIN, Seen { udp: false, ..whole.clone() }),
        (SYS_PTRACE, Seen { processes: false, ..whole.clone() }),
        (DAC_READ_SEARCH, whole.clone()),
        (SYS_ADMIN, whole.clone()),
    ] {
        assert_eq!(look(&traffic, &elsewhere, &all_but(&[without]), "auto"), expected, "without {}", without.name);
    }
    // CAP_SYS_ADMIN would stand for these two.
    for without in [BPF, PERFMON] {
        let seen = look(&traffic, &elsewhere, &all_but(&[without, SYS_ADMIN]), "auto");
        let expected = Seen { mode: "fallback".into(), udp: false, namespace: false, ..whole.clone() };
        assert_eq!(seen, expected, "without {}", without.name);
    }
}

#[test]
fn without_each_capability_the_fallback_loses_what_the_table_says() {
    if !can_trace("without_each_capability_the_fallback_loses_what_the_table_says") {
        return;
    }
    let (traffic, elsewhere) = (Traffic::new(), Elsewhere::new());
    let whole = Seen { mode: "fallback".into(), udp: false, owner: true, namespace: true, processes: true };
    assert_eq!(look(&traffic, &elsewhere, &all_but(&[]), "fallback"), whole);
    for (without, expected) in [
        (BPF, whole.clone()),
        (PERFMON, whole.clone()),
        (NET_ADMIN, whole.clone()),
        // The namespace here has a name, so that it is found all the same.
        (SYS_PTRACE, Seen { owner: false, processes: false, ..whole.clone() }),
        (DAC_READ_SEARCH, Seen { owner: false, ..whole.clone() }),
        (SYS_ADMIN, Seen { namespace: false, ..whole.clone() }),
    ] {
        let seen = look(&traffic, &elsewhere, &all_but(&[without]), "fallback");
        assert_eq!(seen, expected, "without {}", without.name);
    }
    let none = Seen { owner: false, namespace: false, processes: false, ..whole };
    assert_eq!(look(&traffic, &elsewhere, &[], "fallback"), none);
}

#[test]
fn ebpf_that_was_asked_for_and_may_not_be_had_is_refused_with_the_remedy() {
    if !can_trace("ebpf_that_was_asked_for_and_may_not_be_had_is_refused_with_the_remedy") {
        return;
    }
    let id = support::user::NOBODY.to_string();
    let folder = tempfile::tempdir().unwrap();
    let run = Tracer::command(folder.path(), &["--mode", "ebpf"]);
    let mut command = std::process::Command::new("setpriv");
    // Root's files, nobody's capabilities.
    command
        .args(["--inh-caps=-all", "--bounding-set=-all", "--groups", &id])
        .arg(run.get_program())
        .args(run.get_args());
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("lacks CAP_BPF, CAP_PERFMON") && text.contains("AmbientCapabilities=CAP_BPF CAP_PERFMON"),
        "{text}"
    );
}
