//! DNS over UDP is seen at the client: who asked whom for what, what came of it, and how long it took.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use support::dns::{A, AAAA, ALIASED, Server, ask, query};
use support::{Tracer, can_trace, until};
use weir_wire::feed::{Dns, Reply};

/// Held by a test while it sends: a tracer sees the whole host, so its gauges tell of the other tests' queries, too.
/// Released before a long wait that only rows of the test's own namespace end.
static SENDING: Mutex<()> = Mutex::new(());

fn sending() -> MutexGuard<'static, ()> {
    SENDING.lock().unwrap_or_else(PoisonError::into_inner)
}

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 3, 5, 7)), 53);

/// Runs `inside` in a network namespace of its own, where nobody else listens on port 53.
fn in_new_netns<T: Send>(inside: impl FnOnce(u32) -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
            inside(std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino() as u32)
        });
        thread.join().unwrap()
    })
}

/// A tracer whose DNS probe runs, or a told skip.
fn tracer(test: &str, args: &[&str]) -> Option<Tracer> {
    if !can_trace(test) {
        return None;
    }
    let tracer = Tracer::start(args);
    let probe = tracer.status().probes.into_iter().find(|probe| probe.name == "dns").unwrap();
    if probe.state != "running" {
        assert!(std::env::var("WEIR_FORBID_SKIPS").as_deref() != Ok("1"), "{probe:?}");
        println!("SKIP {test}: {:?}", probe.reason);
        return None;
    }
    Some(tracer)
}

fn client(server: SocketAddr) -> UdpSocket {
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(server).unwrap();
    socket
}

fn row<'a>(reply: &'a Reply, netns: u32, name: &str, rcode: &str) -> Option<&'a Dns> {
    let mut found = reply.dns.iter().filter(|row| row.net_ns == netns && row.name == name && row.rcode == rcode);
    let row = found.next();
    assert!(found.next().is_none(), "{:?}", reply.dns);
    row
}

#[test]
fn every_outcome_is_told_with_who_asked_whom_and_what_was_answered() {
    let _sending = sending();
    let Some(tracer) = tracer("every_outcome_is_told_with_who_asked_whom_and_what_was_answered", &[]) else { return };
    let (netns, reply) = in_new_netns(|netns| {
        let _servers = [Server::start(SERVER), Server::start((Ipv6Addr::LOCALHOST, 53).into())];
        let connected = client(SERVER);
        for (id, name, kind) in [
            (1, "A.test", A),
            (2, "a.test", A),
            (3, "six.test", AAAA),
            (4, "alias.test", A),
            (5, "nx.test", A),
            (6, "fail.test", A),
            (7, "cut.test", A),
            (8, "long.test", A),
        ] {
            ask(&connected, id, name, kind);
        }
        // The query is said twice before it is answered.
        connected.send(&query(9, "second.test", A)).unwrap();
        ask(&connected, 9, "second.test", A);
        // Not connected, and IPv6.
        let loose = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        loose.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        loose.send_to(&query(1, "loose.test", A), (Ipv6Addr::LOCALHOST, 53)).unwrap();
        loose.recv(&mut [0; 1500]).unwrap();
        // What is no DNS is nobody's query.
        connected.send(&[7; 40]).unwrap();
        (netns, tracer.reply(""))
    });
    let get =
        |name: &str, rcode: &str| row(&reply, netns, name, rcode).unwrap_or_else(|| panic!("{name}: {:?}", reply.dns));
    let a = get("a.test", "noerror");
    assert_eq!((a.count, a.query_type.as_str(), a.server.as_str()), (2, "A", "127.3.5.7"), "a name has no case");
    let addresses: Vec<(&str, u32)> = a.answers.iter().map(|answer| (answer.address.as_str(), answer.ttl)).collect();
    assert_eq!(addresses, [("192.0.2.1", 60), ("192.0.2.2", 60)]);
    assert!(a.latency_max_us > 0 && a.latency_sum_us >= a.latency_max_us && a.latency_sum_us < 20_000_000, "{a:?}");
    assert!(a.last_epoch >= a.first_epoch && a.first_epoch > 0);
    assert_eq!((a.pid, a.retransmits, a.truncated), (std::process::id(), 0, 0));
    assert!(a.process_name.is_some() && a.process_start.is_some());
    let six = get("six.test", "noerror");
    assert_eq!((six.query_type.as_str(), six.answers[0].address.as_str()), ("AAAA", "2001:db8::1"));
    let alias = get("alias.test", "noerror");
    assert_eq!((alias.answers[0].address.as_str(), alias.answers[0].ttl), (ALIASED.to_string().as_str(), 30));
    assert_eq!(alias.aliases, ["real.test"]);
    assert!(get("nx.test", "nxdomain").answers.is_empty());
    assert_eq!(get("fail.test", "servfail").count, 1);
    assert_eq!(get("cut.test", "noerror").truncated, 1);
    assert_eq!(get("long.test", "noerror").answers.len(), 16);
    let second = get("second.test", "noerror");
    assert_eq!((second.count, second.retransmits), (1, 1));
    assert_eq!(get("loose.test", "noerror").server, "::1");
    let status = tracer.status();
    assert_eq!(status.gauges["dns_port_other_datagrams"], 1);
    assert_eq!(status.gauges["dns_queries_waiting"], 0);
    assert!(!status.losses.keys().any(|loss| loss.starts_with("dns")), "{:?}", status.losses);
}

#[test]
fn a_query_without_an_answer_is_a_timeout_after_fifteen_seconds() {
    let sending = sending();
    let Some(tracer) = tracer("a_query_without_an_answer_is_a_timeout_after_fifteen_seconds", &[]) else { return };
    let netns = in_new_netns(|netns| {
        let _server = Server::start(SERVER);
        let socket = client(SERVER);
        socket.send(&query(1, "silent.test", A)).unwrap();
        socket.send(&query(1, "silent.test", A)).unwrap();
        drop(socket);
        let reply = tracer.reply("");
        assert!(row(&reply, netns, "silent.test", "timeout").is_none(), "it still waits");
        assert_eq!(tracer.status().gauges["dns_queries_waiting"], 1);
        netns
    });
    drop(sending);
    let reply = until("the query to time out", || {
        let reply = tracer.reply("");
        row(&reply, netns, "silent.test", "timeout").is_some().then_some(reply)
    });
    let row = row(&reply, netns, "silent.test", "timeout").unwrap();
    assert_eq!((row.count, row.retransmits, row.latency_sum_us, row.latency_max_us), (1, 1, 0, 0));
    assert_eq!(row.pid, std::process::id());
}

#[test]
fn two_processes_that_ask_the_same_are_two_rows() {
    let _sending = sending();
    let Some(tracer) = tracer("two_processes_that_ask_the_same_are_two_rows", &[]) else { return };
    in_new_netns(|netns| {
        let _server = Server::start(SERVER);
        ask(&client(SERVER), 1, "same.test", A);
        // bash sends what printf makes through its own socket, and reads the answer's first byte.
        let script = "exec 3<>/dev/udp/127.3.5.7/53
            printf '\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\4same\\4test\\0\\0\\1\\0\\1' >&3; head -c 1 <&3 >/dev/null";
        let mut other = Command::new("bash").args(["-c", script]).spawn().unwrap();
        let pid = other.id();
        assert!(other.wait().unwrap().success());
        let reply = tracer.reply("");
        let mut rows: Vec<(u32, u64)> = reply
            .dns
            .iter()
            .filter(|row| row.net_ns == netns && row.name == "same.test")
            .map(|row| (row.pid, row.count))
            .collect();
        rows.sort_unstable();
        let mut expected = [(std::process::id(), 1), (pid, 1)];
        expected.sort_unstable();
        assert_eq!(rows, expected);
    });
}

#[test]
fn rows_are_told_until_they_are_acknowledged_and_nothing_is_consumed_without_a_name() {
    let _sending = sending();
    let test = "rows_are_told_until_they_are_acknowledged_and_nothing_is_consumed_without_a_name";
    let Some(tracer) = tracer(test, &[]) else { return };
    in_new_netns(|netns| {
        let _server = Server::start(SERVER);
        let socket = client(SERVER);
        let count = |reply: &Reply, name: &str| {
            reply.dns.iter().filter(|row| row.net_ns == netns && row.name == name).map(|row| row.count).sum::<u64>()
        };
        let first = tracer.reply("?client_id=agent");
        let cursor = first.dns_cursor.unwrap();
        ask(&socket, 1, "one.test", A);
        for _ in 0..2 {
            assert_eq!(count(&tracer.reply(""), "one.test"), 1);
            assert_eq!(tracer.reply("").dns_cursor, None);
        }
        let reply = tracer.reply(&format!("?client_id=agent&ack=0&dns_ack={cursor}"));
        assert_eq!(count(&reply, "one.test"), 1);
        ask(&socket, 2, "one.test", A);
        // The reply was lost: all of it comes again, with what is new.
        let again = tracer.reply(&format!("?client_id=agent&ack=0&dns_ack={cursor}"));
        assert_eq!(count(&again, "one.test"), 2);
        let after = tracer.reply(&format!("?client_id=agent&ack=0&dns_ack={}", again.dns_cursor.unwrap()));
        assert_eq!(count(&after, "one.test"), 0);
        assert_eq!(count(&tracer.reply(""), "one.test"), 0, "everybody has it");
    });
}

#[test]
fn a_killed_tracer_tells_how_many_queries_it_had_not_handed_on() {
    let _sending = sending();
    let test = "a_killed_tracer_tells_how_many_queries_it_had_not_handed_on";
    if !can_trace(test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut first = Tracer::start_in(folder.path(), &[]);
    in_new_netns(|netns| {
        let _server = Server::start(SERVER);
        let socket = client(SERVER);
        let cursor = first.reply("?client_id=agent").dns_cursor.unwrap();
        for id in 0..3 {
            ask(&socket, id, "lost.test", A);
        }
        let held = first.reply(&format!("?client_id=agent&ack=0&dns_ack={cursor}"));
        assert_eq!(row(&held, netns, "lost.test", "noerror").unwrap().count, 3);
        until("the tracer to say that it holds them", || (first.status().gauges["dns_rows"] > 0).then_some(()));
        first.kill();
        let second = Tracer::start_in(folder.path(), &[]);
        let reply = second.reply(&format!("?client_id=agent&ack=0&dns_ack={cursor}"));
        assert_eq!(reply.run_id, held.run_id, "the run goes on");
        assert!(reply.losses["dns_lost_in_restart"] >= 3, "{:?}", reply.losses);
        ask(&socket, 9, "kept.test", A);
        let reply = second.reply(&format!("?client_id=agent&ack=0&dns_ack={}", reply.dns_cursor.unwrap()));
        assert_eq!(row(&reply, netns, "kept.test", "noerror").unwrap().count, 1);
    });
}

#[test]
fn what_finds_the_ring_full_is_counted() {
    let sending = sending();
    let test = "what_finds_the_ring_full_is_counted";
    let Some(tracer) = tracer(test, &["--dns-ring-bytes", "4096"]) else { return };
    let (netns, lost) = in_new_netns(|netns| {
        let server = UdpSocket::bind(SERVER).unwrap();
        let socket = client(SERVER);
        // 4,096 bytes hold 16 short messages between two drains.
        for id in 0..200 {
            socket.send(&query(id, "flood.test", A)).unwrap();
        }
        drop(server);
        (netns, until("the loss to be told", || tracer.reply("").losses.get("dns_ring_full").copied()))
    });
    drop(sending);
    // What is not lost waits, and times out.
    let reply = until("the others to time out", || {
        let reply = tracer.reply("");
        row(&reply, netns, "flood.test", "timeout").is_some_and(|row| row.count + lost == 200).then_some(reply)
    });
    assert!(reply.losses["dns_ring_full"] == lost && lost > 0);
}

#[test]
fn switched_off_nothing_is_seen_and_alone_it_counts_no_datagram() {
    let _sending = sending();
    let test = "switched_off_nothing_is_seen_and_alone_it_counts_no_datagram";
    let Some(alone) = tracer(test, &["--no-udp"]) else { return };
    let off = Tracer::start(&["--no-dns"]);
    in_new_netns(|netns| {
        let _server = Server::start(SERVER);
        ask(&client(SERVER), 1, "a.test", A);
        let reply = alone.reply("?client_id=a");
        assert!(reply.connections.iter().all(|row| row.kind == 0), "UDP is not counted");
        let reply = alone.reply("");
        assert!(reply.dns_cursor.is_none());
        ask(&client(SERVER), 2, "b.test", A);
        assert_eq!(row(&alone.reply(""), netns, "b.test", "noerror").unwrap().pid, std::process::id());
        let reply = off.reply("?client_id=a");
        assert!(reply.dns.is_empty() && reply.dns_cursor.is_none());
        assert!(reply.connections.iter().any(|row| row.kind == 1 && row.net_ns == netns), "UDP is counted");
        let state = |tracer: &Tracer, name: &str| {
            let probes = tracer.status().probes;
            probes
                .into_iter()
                .find(|probe| probe.name == name)
                .map(|probe| (probe.state, probe.reason.unwrap_or_default()))
        };
        assert_eq!(state(&off, "dns"), Some(("disabled".into(), "--no-dns".into())));
        assert_eq!(state(&alone, "udp"), Some(("disabled".into(), "--no-udp".into())));
        let _neither = Tracer::start(&["--no-dns", "--no-udp"]);
    });
}
