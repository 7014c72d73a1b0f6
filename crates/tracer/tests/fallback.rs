//! The fallback tells the same as eBPF, and says what it cannot see: real sockets, as root and as an ordinary user.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use nix::sys::socket::{setsockopt, sockopt};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use support::netns::Netns;
use support::tcp::{Pair, ended, listener, read_to_the_end, transfer};
use support::user::{NOBODY, start_as_nobody, start_as_nobody_in};
use support::{Agent, Tracer, bytes, rows_of, until};
use weir_wire::feed::{Connection, Reply};

const FALLBACK: [&str; 2] = ["--mode", "fallback"];

/// False, and says so, where this test's user cannot do its part.
fn is_root(test: &str) -> bool {
    let is_root = nix::unistd::Uid::effective().is_root();
    assert!(
        is_root || std::env::var("WEIR_FORBID_SKIPS").as_deref() != Ok("1"),
        "{test} must not be skipped here: not root"
    );
    if !is_root {
        println!("SKIP {test}: not root");
    }
    is_root
}

/// Every tracer that must count the same: ours, and, where we may become somebody else, an ordinary user's.
fn tracers() -> Vec<Tracer> {
    let mut tracers = vec![Tracer::start(&FALLBACK)];
    if nix::unistd::Uid::effective().is_root() {
        tracers.push(start_as_nobody(&[], &["--mode", "auto"]));
    }
    tracers
}

fn is_ended(row: &Connection) -> bool {
    row.close_epoch.is_some()
}

/// How two sides end a connection.
const WAYS: [&str; 6] =
    ["client first", "server first", "client half", "server half", "both at once", "client half, server unread"];

fn end(way: &str, pair: Pair) {
    let Pair { client, server } = pair;
    match way {
        "client first" => {
            drop(client);
            read_to_the_end(&server);
        }
        "server first" => {
            drop(server);
            read_to_the_end(&client);
        }
        "client half" => {
            client.shutdown(Shutdown::Write).unwrap();
            read_to_the_end(&server);
            transfer(&server, &client, 9);
            drop(server);
            read_to_the_end(&client);
        }
        "server half" => {
            server.shutdown(Shutdown::Write).unwrap();
            read_to_the_end(&client);
            transfer(&client, &server, 9);
            drop(client);
            read_to_the_end(&server);
        }
        "both at once" => drop((client, server)),
        _ => {
            client.shutdown(Shutdown::Write).unwrap();
            drop(server);
            read_to_the_end(&client);
        }
    }
}

/// What came on top of the transfers in [`end`]: the client's, then the server's.
fn extra(way: &str) -> (u64, u64) {
    match way {
        "client half" => (0, 9),
        "server half" => (9, 0),
        _ => (0, 0),
    }
}

#[test]
fn every_byte_is_counted_once_alive_and_ended_however_it_ends() {
    for tracer in tracers() {
        let mut agent = Agent::new(&tracer);
        let listener = listener();
        for (there, back) in [(0, 0), (1, 0), (0, 1), (65_536, 1), (8 << 20, 65_536)] {
            for way in WAYS {
                let pair = Pair::new(&listener);
                let ports = pair.ports();
                transfer(&pair.client, &pair.server, there);
                transfer(&pair.server, &pair.client, back);
                let live = tracer.reply("");
                let (client, server) = (rows_of(&live, ports.0, ports.1)[0], rows_of(&live, ports.1, ports.0)[0]);
                let expected = (there as u64, back as u64);
                assert_eq!((bytes(client), bytes(server)), (expected, (expected.1, expected.0)), "{way}");
                assert_eq!((client.direction, server.direction), (2, 1), "{way}");
                assert_eq!(client.direction_certainty.as_deref(), Some("inferred"));
                assert_eq!(client.state.as_deref(), Some("established"));
                end(way, pair);
                let expected = (expected.0 + extra(way).0, expected.1 + extra(way).1);
                let (client, server) = ended(&tracer, &mut agent, ports);
                assert_eq!((bytes(&client), bytes(&server)), (expected, (expected.1, expected.0)), "{way}");
                for row in [client, server] {
                    assert_eq!((row.close_reason.as_deref(), row.totals_certainty), (Some("closed"), None), "{way}");
                }
            }
        }
        // Others on this machine may end theirs as they like; of ours nothing was missed.
        let losses = agent.fetch(&tracer).losses;
        assert!(!losses.contains_key("ends_overrun") && !losses.contains_key("ends_dropped"), "{losses:?}");
    }
}

#[test]
fn what_opens_and_ends_between_two_fetches_is_exact_too() {
    for tracer in tracers() {
        let mut agent = Agent::new(&tracer);
        let listener = listener();
        let port = listener.local_addr().unwrap().port();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    let (mut server, _) = listener.accept().unwrap();
                    server.read_exact(&mut [0; 17]).unwrap();
                    server.write_all(&[0; 34]).unwrap();
                }
            });
            for number in 0..1_000 {
                let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
                client.write_all(&[0; 17]).unwrap();
                if number % 2 == 0 {
                    client.read_to_end(&mut Vec::new()).unwrap();
                } else {
                    // The client closes first, every other time.
                    client.read_exact(&mut [0; 34]).unwrap();
                }
            }
        });
        let mut rows = Vec::new();
        until("all of them", || {
            let new = agent.fetch(&tracer).connections.into_iter();
            rows.extend(new.filter(|row| is_ended(row) && (row.dport == port || row.sport == port)));
            (rows.len() >= 2_000).then_some(())
        });
        for row in &rows {
            let expected = if row.dport == port { ((17, 34), 2) } else { ((34, 17), 1) };
            assert_eq!((bytes(row), row.direction), expected, "{row:?}");
            assert_eq!((row.close_reason.as_deref(), row.totals_certainty.as_deref()), (Some("closed"), None));
        }
        let cookies: HashSet<_> = rows.iter().map(|row| row.cookie).collect();
        assert_eq!((rows.len(), cookies.len()), (2_000, 2_000));
    }
}

/// Waits until the end at `local` waits for its peer's FIN, as `/proc/net/tcp` tells: to ask the kernel's sock_diag, as the
/// tracer does, would give the socket the cookie that it must not have here.
fn until_fin_wait_2(local: u16, remote: u16) {
    let (local, remote) = (format!(":{local:04X} "), format!(":{remote:04X} 05 "));
    until("FIN_WAIT2", || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().any(|line| line.contains(&local) && line.contains(&remote)).then_some(())
    });
}

#[test]
fn the_fin_of_a_peer_that_answers_late_is_no_byte_and_is_not_taken_off_though_no_fetch_met_the_connection() {
    for tracer in tracers() {
        let mut agent = Agent::new(&tracer);
        let listener = listener();
        for server_first in [true, false] {
            let pair = Pair::new(&listener);
            let (client, server) = pair.ports();
            transfer(&pair.client, &pair.server, 17);
            transfer(&pair.server, &pair.client, 34);
            let (first, second, ports) = if server_first {
                (pair.server, pair.client, (server, client))
            } else {
                (pair.client, pair.server, (client, server))
            };
            drop(first);
            until_fin_wait_2(ports.0, ports.1);
            drop(second);
            let (client, server) = ended(&tracer, &mut agent, (client, server));
            assert_eq!((bytes(&client), bytes(&server)), ((17, 34), (34, 17)), "{server_first}");
            assert_eq!((client.direction, server.direction), (2, 1), "{server_first}");
            assert_eq!((client.totals_certainty, server.totals_certainty), (None, None), "{server_first}");
        }
    }
}

#[test]
fn a_fin_is_no_byte_while_the_other_half_goes_on() {
    for tracer in tracers() {
        let pair = Pair::new(&listener());
        let (client, server) = pair.ports();
        transfer(&pair.client, &pair.server, 1_000);
        pair.client.shutdown(Shutdown::Write).unwrap();
        read_to_the_end(&pair.server);
        transfer(&pair.server, &pair.client, 777);
        let reply = tracer.reply("");
        let row = |local, remote| rows_of(&reply, local, remote)[0].clone();
        assert_eq!((bytes(&row(client, server)), bytes(&row(server, client))), ((1_000, 777), (777, 1_000)));
        assert_eq!(row(client, server).state.as_deref(), Some("fin_wait2"));
        assert_eq!(row(server, client).state.as_deref(), Some("close_wait"));
        assert_eq!((row(client, server).direction, row(server, client).direction), (2, 1));
    }
}

#[test]
fn ipv6_is_told_apart_and_mapped_ipv4_is_ipv4() {
    for tracer in tracers() {
        let mut agent = Agent::new(&tracer);
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        for (address, family, text) in [
            (SocketAddr::from((Ipv6Addr::LOCALHOST, port)), 1, "::1"),
            (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), 0, "127.0.0.1"),
            (SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port)), 0, "127.0.0.1"),
        ] {
            let pair = Pair::at(&listener, address);
            let ports = pair.ports();
            transfer(&pair.client, &pair.server, 60);
            drop(pair);
            let (client, server) = ended(&tracer, &mut agent, ports);
            for row in [&client, &server] {
                assert_eq!((row.family, row.source.as_str(), row.dest.as_str()), (family, text, text));
            }
            assert_eq!((bytes(&client), bytes(&server)), ((60, 0), (0, 60)));
            assert_eq!((client.direction, server.direction), (2, 1));
        }
    }
}

#[test]
fn an_older_connection_has_its_lifetime_totals_its_direction_and_its_owner() {
    let listener = listener();
    let pair = Pair::new(&listener);
    transfer(&pair.client, &pair.server, 4_321);
    transfer(&pair.server, &pair.client, 99);
    let ports = pair.ports();
    let tracer = Tracer::start(&FALLBACK);
    let mut agent = Agent::new(&tracer);
    let reply = tracer.reply("");
    let (client, server) = (rows_of(&reply, ports.0, ports.1)[0], rows_of(&reply, ports.1, ports.0)[0]);
    assert_eq!((bytes(client), bytes(server)), ((4_321, 99), (99, 4_321)));
    assert_eq!((client.direction, server.direction), (2, 1));
    let netns = std::fs::metadata("/proc/self/ns/net").unwrap().ino() as u32;
    for row in [client, server] {
        assert_eq!((row.pid, row.net_ns, row.start_epoch), (std::process::id(), netns, None));
        assert!(row.process_name.is_some() && row.process_start.is_some());
    }
    transfer(&pair.client, &pair.server, 1);
    drop(pair);
    let (client, server) = ended(&tracer, &mut agent, ports);
    assert_eq!((bytes(&client), bytes(&server)), ((4_322, 99), (99, 4_322)));
    assert_eq!((client.pid, server.pid), (std::process::id(), std::process::id()));
}

/// A child that ends with its test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_connection_that_was_handed_over_belongs_to_who_holds_it() {
    let tracer = Tracer::start(&["--mode", "fallback", "--backfill-interval", "100ms"]);
    let pair = Pair::new(&listener());
    let (client_port, port) = pair.ports();
    let owner = || rows_of(&tracer.reply(""), port, client_port).first().map(|row| row.pid).filter(|pid| *pid != 0);
    assert_eq!(until("an owner", owner), std::process::id());
    let stdin = Stdio::from(OwnedFd::from(pair.server));
    let child = Running(Command::new("cat").stdin(stdin).stdout(Stdio::null()).spawn().unwrap());
    until("the owner to change", || owner().filter(|pid| *pid == child.0.id()));
}

#[test]
fn a_reset_and_a_used_again_socket_say_what_is_not_known() {
    let tracer = Tracer::start(&FALLBACK);
    let mut agent = Agent::new(&tracer);
    let pair = Pair::new(&listener());
    let (client, server) = pair.ports();
    transfer(&pair.client, &pair.server, 55);
    agent.fetch(&tracer);
    // The kernel clears the counters of the side that resets.
    setsockopt(&pair.client, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(pair.client);
    let mut server_side = pair.server;
    assert_eq!(server_side.read(&mut [0; 8]).unwrap_err().raw_os_error(), Some(nix::libc::ECONNRESET));
    drop(server_side);
    let (client, server) = ended(&tracer, &mut agent, (client, server));
    assert_eq!((bytes(&client), client.totals_certainty.as_deref()), ((55, 0), Some("last_seen")));
    assert_eq!(server.monotonic_sent_bytes, Some(0));
    let received = server.monotonic_recv_bytes.unwrap();
    assert!(received == 55 || server.totals_certainty.is_some() && received == 54, "{server:?}");
    assert_eq!((client.close_reason.as_deref(), server.close_reason.as_deref()), (None, None));
    assert!(agent.fetch(&tracer).losses.get("ends_last_seen") >= Some(&1));
}

#[test]
fn a_total_never_falls_and_never_exceeds_the_last_one() {
    let tracer = Tracer::start(&FALLBACK);
    let mut agent = Agent::new(&tracer);
    let listener = listener();
    let port = listener.local_addr().unwrap().port();
    let mut told: std::collections::HashMap<_, (u64, u64)> = std::collections::HashMap::new();
    let mut ended = 0;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let pair = Pair::new(&listener);
                    transfer(&pair.client, &pair.server, 300_000);
                    pair.client.shutdown(Shutdown::Write).unwrap();
                    transfer(&pair.server, &pair.client, 3_000);
                }
            });
        }
        while ended < 400 {
            let reply = agent.fetch(&tracer);
            for row in reply.connections.iter().filter(|row| row.sport == port || row.dport == port) {
                let now = bytes(row);
                let before = told.insert((row.cookie, row.generation), now).unwrap_or_default();
                assert!(now.0 >= before.0 && now.1 >= before.1, "{before:?} then {now:?}");
                let most = if row.dport == port { (300_000, 3_000) } else { (3_000, 300_000) };
                assert!(now.0 <= most.0 && now.1 <= most.1, "{now:?} is more than {most:?}");
                let expected = if row.dport == port { 2 } else { 1 };
                assert!(row.direction == expected || row.direction == 0 && !is_ended(row), "{row:?}");
                ended += usize::from(is_ended(row));
            }
        }
    });
}

#[test]
fn the_same_tuple_in_two_namespaces_is_two_connections_and_a_namespace_is_let_go() {
    if !is_root("the_same_tuple_in_two_namespaces_is_two_connections_and_a_namespace_is_let_go") {
        return;
    }
    let tracer = Tracer::start(&FALLBACK);
    let mut agent = Agent::new(&tracer);
    let namespaces = [Netns::new("a"), Netns::new("b")];
    let mut seen = Vec::new();
    for (netns, count) in namespaces.iter().zip([100_usize, 200]) {
        let inode = netns.enter(|inode| {
            let listener = TcpListener::bind("127.0.0.1:7000").unwrap();
            let pair = Pair::new(&listener);
            transfer(&pair.client, &pair.server, count);
            // Owners are looked for at a pace.
            let row = until("the owner", || {
                let live = tracer.reply("").connections.into_iter();
                live.filter(|row| row.dport == 7_000 && row.net_ns == inode).find(|row| row.pid != 0)
            });
            assert_eq!((bytes(&row), row.pid), ((count as u64, 0), std::process::id()));
            // Opened and ended between two fetches, in a namespace that is known by now.
            let short = Pair::new(&listener);
            transfer(&short.client, &short.server, count + 1);
            inode
        });
        seen.extend([(inode, count as u64), (inode, count as u64 + 1)]);
    }
    let mut rows = Vec::new();
    until("all to end", || {
        rows.extend(agent.fetch(&tracer).connections.into_iter().filter(|row| is_ended(row) && row.dport == 7_000));
        (rows.len() >= 4).then_some(())
    });
    let mut told: Vec<_> = rows.iter().map(|row| (row.net_ns, bytes(row).0)).collect();
    told.sort_unstable();
    seen.sort_unstable();
    assert_eq!(told, seen);
    // What only we hold is let go: a namespace must not outlive its owner.
    let watched = || tracer.status().gauges["fallback_namespaces"];
    let before = watched();
    drop(namespaces);
    until("the namespaces to be let go", || (watched() + 2 <= before).then_some(()));
}

#[test]
fn it_says_what_it_is_in_every_reply_and_udp_is_left_out() {
    let tracer = Tracer::start(&FALLBACK);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
    let reply = tracer.reply("?client_id=a");
    assert!(reply.connections.iter().all(|row| row.kind == 0) && reply.complete == Some(true));
    let degraded = reply.degraded.unwrap();
    assert_eq!((degraded.mode.as_str(), degraded.reason.as_str()), ("fallback", "asked for with --mode fallback"));
    let blind: Vec<_> = degraded.cannot_see.iter().map(|blind| blind.what.as_str()).collect();
    for (what, _) in weir_tracer::fallback::blind::ALWAYS {
        assert!(blind.contains(&what), "{what} is not in {blind:?}");
    }
    let status = tracer.status();
    assert_eq!((status.mode.as_str(), status.state.as_str()), ("fallback", "degraded"));
    assert!(status.degraded.unwrap().cannot_see.iter().all(|blind| !blind.why.is_empty()));
    let udp = status.probes.iter().find(|probe| probe.name == "udp").unwrap();
    assert_eq!(udp.state, "unsupported");
}

#[test]
fn what_ended_is_repeated_until_it_is_acknowledged_also_by_the_next_tracer() {
    let folder = tempfile::tempdir().unwrap();
    let mut tracer = Tracer::start_in(folder.path(), &FALLBACK);
    let mut agent = Agent::new(&tracer);
    let pair = Pair::new(&listener());
    let (client, server) = pair.ports();
    transfer(&pair.client, &pair.server, 5);
    drop(pair);
    let has = |reply: &Reply| rows_of(reply, client, server).iter().any(|row| is_ended(row));
    until("the ended row", || has(&tracer.reply(&format!("?client_id=agent&ack={}", agent.cursor))).then_some(()));
    // Killed before anybody acknowledged it.
    tracer.kill();
    drop(tracer);
    let next = Tracer::start_in(folder.path(), &FALLBACK);
    let reply = next.reply(&format!("?client_id=agent&ack={}", agent.cursor));
    assert!(has(&reply));
    assert_ne!(reply.run_id.as_ref(), Some(&agent.run_id), "what ended between the two was not seen");
    agent.run_id = reply.run_id.unwrap();
    agent.cursor = reply.cursor.unwrap();
    assert!(!has(&agent.fetch(&next)));
}

#[test]
fn an_ordinary_user_sees_its_namespace_and_the_pids_of_its_own() {
    if !is_root("an_ordinary_user_sees_its_namespace_and_the_pids_of_its_own") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let tracer = start_as_nobody_in(folder.path(), &[], &[]);
    let status = tracer.status();
    let reason = status.degraded.clone().unwrap().reason;
    assert!(reason.contains("lacks CAP_BPF, CAP_PERFMON"), "{reason}");
    let socket = std::fs::metadata(tracer.socket()).unwrap();
    assert_eq!((socket.uid(), socket.mode() & 0o777), (NOBODY, 0o660));
    let listener = listener();
    let mine = Pair::new(&listener);
    let (client, server) = mine.ports();
    let theirs = {
        let stdin = Stdio::from(OwnedFd::from(mine.server));
        let id = NOBODY.to_string();
        let args = ["--reuid", &id, "--regid", &id, "--clear-groups", "--inh-caps=-all", "sleep", "600"];
        Running(Command::new("setpriv").args(args).stdin(stdin).spawn().unwrap())
    };
    // A socket is looked for once soon, and then every half minute: not before its holder is nobody's.
    let comm = format!("/proc/{}/comm", theirs.0.id());
    until("an ordinary process", || std::fs::read_to_string(&comm).ok().filter(|name| name == "sleep\n"));
    let pid = |local, remote| rows_of(&tracer.reply(""), local, remote).first().map(|row| row.pid);
    until("the pid of its own", || pid(server, client).filter(|pid| *pid == theirs.0.id()));
    assert_eq!(pid(client, server), Some(0), "root's processes are not its business");
    let blind = tracer.status().degraded.unwrap().cannot_see;
    for what in ["other_namespaces", "other_owners"] {
        assert!(blind.iter().any(|blind| blind.what == what), "{what} is not told");
    }
}
