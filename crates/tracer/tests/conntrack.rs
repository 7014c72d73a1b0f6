//! What a Service's rules do to a connection is told: at both its ends, and where it only passes through.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "support/network.rs"]
mod network;
mod support;

use network::{Node, can_translate, told};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use support::tcp::Pair;
use support::{Agent, Tracer, can_trace, until};
use weir_wire::feed::{Connection, Reply, Translation};

fn can(test: &str) -> bool {
    can_trace(test) && can_translate(test)
}

/// The node's tracer.
fn tracer(node: &Node, args: &[&str]) -> Tracer {
    node.netns.inside(|| Tracer::start(args))
}

/// A Service at 10.96.0.9 and fd00:96::9, port 80, that pod 1's port 8080 is behind, and every pod masqueraded as the
/// node where it asks for itself.
fn nft_rules(backend_port: u16) -> String {
    format!(
        "table inet services {{
            chain pre {{ type nat hook prerouting priority -100
                ip daddr 10.96.0.9 tcp dport 80 dnat ip to 10.244.1.8:{backend_port}
                ip daddr 10.96.0.9 udp dport 53 dnat ip to 10.244.1.8:{backend_port}
                ip6 daddr fd00:96::9 tcp dport 80 dnat ip6 to [fd00:1::8]:{backend_port}
                ip daddr 10.244.0.1 tcp dport 30080 dnat ip to 10.244.1.8:{backend_port}
            }}
            chain post {{ type nat hook postrouting priority 100
                ip saddr 10.244.1.8 ip daddr 10.244.1.8 masquerade
                meta l4proto tcp ct original proto-dst 30080 masquerade
            }}
        }}"
    )
}

fn end(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The one row of a socket with these ends.
fn row(reply: &Reply, local: SocketAddr, remote: SocketAddr) -> Option<&Connection> {
    let is_it = |row: &&Connection| {
        (&row.source, row.sport, &row.dest, row.dport)
            == (&local.ip().to_string(), local.port(), &remote.ip().to_string(), remote.port())
    };
    let mut rows = reply.connections.iter().filter(is_it);
    let first = rows.next();
    assert!(rows.next().is_none(), "{reply:#?}");
    first
}

/// A connection from a pod to a service, with ten bytes sent.
fn open(node: &Node, from: usize, service: SocketAddr, listener: &TcpListener) -> Pair {
    let pair = Pair::accepted(node.pods[from].inside(|| TcpStream::connect(service).unwrap()), listener);
    pair.exchange(10, 0);
    pair
}

/// What conntrack did not tell, of this test's connections and of the machine's others.
fn unresolved(tracer: &Tracer) -> u64 {
    let is_own = |name: &str| name.starts_with("conntrack") || name.starts_with("translations");
    tracer.status().losses.iter().filter(|(name, _)| is_own(name)).map(|(_, count)| *count).sum()
}

fn listen(node: &Node, pod: usize, at: &str) -> TcpListener {
    node.pods[pod].inside(|| TcpListener::bind(at).unwrap())
}

/// Both ends' rows say the same, living and ended.
fn both_ends_tell(node: &Node, from: usize, service: &str, backend: &str) {
    let tracer = tracer(node, &[]);
    let mut agent = Agent::new(&tracer);
    let listener = listen(node, 1, backend);
    let pair = open(node, from, end(service), &listener);
    let [client, server] = pair.ends();
    let expected = told(client, server);
    let living = tracer.reply("");
    for (local, remote) in [client, server] {
        assert_eq!(row(&living, local, remote).unwrap().conntrack.as_ref(), Some(&expected));
    }
    // A connection that lives through no poll is asked about at its end.
    let short = open(node, from, end(service), &listener);
    let [short_client, short_server] = short.ends();
    drop((pair, short));
    let expected_short = told(short_client, short_server);
    let mut ended = Vec::new();
    until("four ends", || {
        ended.extend(agent.fetch(&tracer).connections.into_iter().filter(|row| row.close_epoch.is_some()));
        let ended = Reply { connections: ended.clone(), ..Reply::default() };
        let find = |(local, remote)| row(&ended, local, remote).map(|row| row.conntrack.clone());
        let found: Option<Vec<_>> = [client, server, short_client, short_server].into_iter().map(find).collect();
        found.map(|found| {
            assert_eq!(found[..2], [Some(expected.clone()), Some(expected.clone())]);
            assert_eq!(found[2..], [Some(expected_short.clone()), Some(expected_short.clone())]);
        })
    });
}

#[test]
fn a_services_connection_is_told_with_both_tuples_at_both_ends() {
    if !can("a_services_connection_is_told_with_both_tuples_at_both_ends") {
        return;
    }
    let node = Node::with_pods(2);
    node.rules(&nft_rules(8080));
    both_ends_tell(&node, 0, "10.96.0.9:80", "10.244.1.8:8080");
}

#[test]
fn what_conntrack_is_not_asked_for_is_counted_and_told_without_a_translation() {
    if !can("what_conntrack_is_not_asked_for_is_counted_and_told_without_a_translation") {
        return;
    }
    let node = Node::with_pods(2);
    node.rules(&nft_rules(8080));
    let tracer = tracer(&node, &["--conntrack-asks-max", "0"]);
    let mut agent = Agent::new(&tracer);
    let listener = listen(&node, 1, "10.244.1.8:8080");
    let pairs: Vec<Pair> = (0..5).map(|_| open(&node, 0, end("10.96.0.9:80"), &listener)).collect();
    let ends: Vec<_> = pairs.iter().flat_map(Pair::ends).collect();
    drop(pairs);
    let mut ended = Vec::new();
    until("ten ends", || {
        ended.extend(agent.fetch(&tracer).connections.into_iter().filter(|row| row.close_epoch.is_some()));
        let ended = Reply { connections: ended.clone(), ..Reply::default() };
        let found: Option<Vec<_>> =
            ends.iter().map(|&(local, remote)| Some(row(&ended, local, remote)?.conntrack.clone())).collect();
        found.map(|found| assert_eq!(found, vec![None; 10]))
    });
    // The machine's other connections may be among them.
    let lost = tracer.status().losses.get("conntrack_unresolved_over_budget").copied();
    assert!(lost >= Some(10), "{lost:?}");
}

#[test]
fn a_services_connection_over_ipv6_is_told_with_both_tuples() {
    if !can("a_services_connection_over_ipv6_is_told_with_both_tuples") {
        return;
    }
    let node = Node::with_pods(2);
    node.rules(&nft_rules(8080));
    both_ends_tell(&node, 0, "[fd00:96::9]:80", "[fd00:1::8]:8080");
}

#[test]
fn a_pod_that_reaches_itself_through_its_service_is_told() {
    if !can("a_pod_that_reaches_itself_through_its_service_is_told") {
        return;
    }
    let node = Node::with_pods(2);
    node.rules(&nft_rules(8080));
    both_ends_tell(&node, 1, "10.96.0.9:80", "10.244.1.8:8080");
}

#[test]
fn rules_of_iptables_are_told_too() {
    if !can("rules_of_iptables_are_told_too") {
        return;
    }
    let node = Node::with_pods(2);
    node.netns
        .run("iptables -t nat -A PREROUTING -d 10.96.0.9 -p tcp --dport 80 -j DNAT --to-destination 10.244.1.8:8080");
    node.netns.run("iptables -t nat -A POSTROUTING -s 10.244.0.0/24 -j MASQUERADE");
    both_ends_tell(&node, 0, "10.96.0.9:80", "10.244.1.8:8080");
}

#[test]
fn datagrams_to_a_service_are_told_with_both_tuples() {
    if !can("datagrams_to_a_service_are_told_with_both_tuples") {
        return;
    }
    let node = Node::with_pods(2);
    node.rules(&nft_rules(5353));
    let tracer = tracer(&node, &[]);
    let server = node.pods[1].inside(|| UdpSocket::bind("10.244.1.8:5353").unwrap());
    let client = node.pods[0].inside(|| UdpSocket::bind("10.244.0.8:0").unwrap());
    client.send_to(&[1; 20], "10.96.0.9:53").unwrap();
    let mut buffer = [0; 100];
    let (_, from) = server.recv_from(&mut buffer).unwrap();
    server.send_to(&[2; 30], from).unwrap();
    client.recv_from(&mut buffer).unwrap();
    let [client, server] = [(client.local_addr().unwrap(), end("10.96.0.9:53")), (server.local_addr().unwrap(), from)];
    let living = tracer.reply("");
    for (local, remote) in [client, server] {
        assert_eq!(row(&living, local, remote).unwrap().conntrack, Some(told(client, server)), "{living:#?}");
    }
}

#[test]
fn what_is_not_translated_has_no_tuples() {
    if !can("what_is_not_translated_has_no_tuples") {
        return;
    }
    let node = Node::with_pods(2);
    node.rules(&nft_rules(8080));
    let tracer = tracer(&node, &[]);
    let listener = listen(&node, 1, "10.244.1.8:8080");
    let direct = open(&node, 0, end("10.244.1.8:8080"), &listener);
    let by_service = open(&node, 0, end("10.96.0.9:80"), &listener);
    let reply = tracer.reply("");
    for (local, remote) in direct.ends() {
        assert_eq!(row(&reply, local, remote).unwrap().conntrack, None);
    }
    let [(local, remote), _] = by_service.ends();
    assert!(row(&reply, local, remote).unwrap().conntrack.is_some());
    let probe = tracer.status().probes.into_iter().find(|probe| probe.name == "conntrack").unwrap();
    assert_eq!((probe.state.as_str(), probe.reason), ("running", None));
    assert!(probe.runs.unwrap() >= 4 && probe.nanoseconds.unwrap() > 0);
}

#[test]
fn switched_off_it_asks_nothing_and_says_so() {
    if !can("switched_off_it_asks_nothing_and_says_so") {
        return;
    }
    let node = Node::with_pods(2);
    node.rules(&nft_rules(8080));
    let tracer = tracer(&node, &["--no-conntrack"]);
    let listener = listen(&node, 1, "10.244.1.8:8080");
    let pair = open(&node, 0, end("10.96.0.9:80"), &listener);
    let reply = tracer.reply("");
    let [(local, remote), _] = pair.ends();
    assert_eq!(row(&reply, local, remote).unwrap().conntrack, None);
    let status = tracer.status();
    let probe = status.probes.iter().find(|probe| probe.name == "conntrack").unwrap();
    assert_eq!((probe.state.as_str(), probe.runs), ("disabled", Some(0)));
    assert_eq!(status.state, "running");
}

/// A client at a port of its own choice, so that it can have the same one again.
fn connect_from(local: &str, remote: &str) -> TcpStream {
    let address = |text: &str| {
        let SocketAddr::V4(v4) = end(text) else { panic!("{text} is not IPv4") };
        SockaddrIn::from(v4)
    };
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&fd, sockopt::ReuseAddr, &true).unwrap();
    bind(fd.as_raw_fd(), &address(local)).unwrap();
    connect(fd.as_raw_fd(), &address(remote)).unwrap();
    TcpStream::from(fd)
}

#[test]
fn a_tuple_used_again_at_once_never_has_the_other_ones_backend() {
    if !can("a_tuple_used_again_at_once_never_has_the_other_ones_backend") {
        return;
    }
    let node = Node::with_pods(2);
    let tracer = tracer(&node, &[]);
    let mut agent = Agent::new(&tracer);
    let listeners = [listen(&node, 1, "10.244.1.8:8080"), listen(&node, 1, "10.244.1.8:8081")];
    let rounds = 12_u16;
    for round in 0..rounds {
        let backend = usize::from(round % 2);
        node.rules(&nft_rules(8080 + round % 2));
        let mut client = node.pods[0].inside(|| connect_from("10.244.0.8:40000", "10.96.0.9:80"));
        let (mut server, _) = listeners[backend].accept().unwrap();
        // Each connection sends its own number of bytes: by it the row is known.
        client.write_all(&vec![0; usize::from(round) + 1]).unwrap();
        server.read_exact(&mut vec![0; usize::from(round) + 1]).unwrap();
        // The server closes first, so that the client's port is free at once.
        drop(server);
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    }
    let mut ended: Vec<Connection> = Vec::new();
    until("every end", || {
        let reply = agent.fetch(&tracer);
        ended.extend(reply.connections.into_iter().filter(|row| row.close_epoch.is_some() && row.sport == 40_000));
        (ended.len() >= usize::from(rounds)).then_some(())
    });
    let mut known = 0;
    for row in &ended {
        let Some(conntrack) = &row.conntrack else { continue };
        let round = row.monotonic_sent_bytes.unwrap() as u16 - 1;
        assert_eq!(conntrack.repl_src_port, 8080 + round % 2, "{row:#?}");
        known += 1;
    }
    let unresolved = unresolved(&tracer);
    assert!(known >= 1, "the last one at least");
    // Each of the client's ends is known or told as unresolved; of the servers' some may be unresolved too.
    assert!(known + unresolved >= u64::from(rounds), "{known} known, {unresolved} unresolved");
}

/// The translations of a reply that concern the NodePort.
fn forwarded(reply: &Reply) -> Vec<&Translation> {
    reply.translations.iter().filter(|told| told.conntrack.orig_dst_port == Some(30_080)).collect()
}

#[test]
fn a_masqueraded_connection_that_passes_through_is_told_without_bytes_and_then_no_more() {
    if !can("a_masqueraded_connection_that_passes_through_is_told_without_bytes_and_then_no_more") {
        return;
    }
    let node = Node::with_pods(2);
    node.rules(&nft_rules(8080));
    let listener = listen(&node, 1, "10.244.1.8:8080");
    let before = open(&node, 0, end("10.244.0.1:30080"), &listener);
    let tracer = tracer(&node, &[]);
    let mut agent = Agent::new(&tracer);
    let after = open(&node, 0, end("10.244.0.1:30080"), &listener);
    let mut seen: Vec<Translation> = Vec::new();
    until("both", || {
        seen.extend(forwarded(&agent.fetch(&tracer)).into_iter().cloned());
        (seen.len() >= 2).then_some(())
    });
    for (pair, began) in [(&before, false), (&after, true)] {
        let [client, server] = pair.ends();
        assert_eq!(server.1.ip(), end("10.244.1.1:0").ip(), "masqueraded");
        let told: Vec<_> = seen.iter().filter(|told| told.conntrack == network::told(client, server)).collect();
        assert!(!told.is_empty() && told.iter().all(|told| told.began == began && told.kind == 0), "{told:?}");
    }
    // Each is told in two replies that came through, then not again.
    until("silence", || forwarded(&agent.fetch(&tracer)).is_empty().then_some(()));
    // One who was not there before is told of what lives.
    let late = until("a dump for the newcomer", || {
        let reply = tracer.reply("?client_id=late");
        (forwarded(&reply).len() >= 2).then_some(reply)
    });
    assert!(forwarded(&late).iter().all(|told| !told.began));
}

#[test]
fn where_events_are_switched_off_the_table_is_read_at_every_poll() {
    if !can("where_events_are_switched_off_the_table_is_read_at_every_poll") {
        return;
    }
    let node = Node::with_pods(2);
    node.netns.run("sysctl -qw net.netfilter.nf_conntrack_events=0");
    node.rules(&nft_rules(8080));
    let listener = listen(&node, 1, "10.244.1.8:8080");
    let tracer = tracer(&node, &[]);
    let mut agent = Agent::new(&tracer);
    let pair = open(&node, 0, end("10.244.0.1:30080"), &listener);
    let [client, server] = pair.ends();
    drop(pair);
    let found = until("the connection in the table", || {
        let reply = agent.fetch(&tracer);
        forwarded(&reply).first().map(|told| told.conntrack.clone())
    });
    assert_eq!(found, told(client, server));
    let probe = tracer.status().probes.into_iter().find(|probe| probe.name == "conntrack").unwrap();
    assert!(probe.reason.as_ref().is_some_and(|reason| reason.contains("nf_conntrack_events")), "{probe:?}");
}
