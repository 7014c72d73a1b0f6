//! Datagrams that the node itself translates on their way from and to its own sockets: each exchange is one row, with the
//! ends that its socket has, and the translation beside it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "support/network.rs"]
mod network;
mod support;

use network::{Node, can_translate, told};
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use support::{Agent, Tracer, bytes, can_trace, until};
use weir_wire::feed::{Connection, Reply};

/// Services at 10.96.0.9 and fd00:96::9 that pod 1 is behind, and at 10.96.0.10 and fd00:96::10 that the node itself is
/// behind; what the node translates it masquerades.
const RULES: &str = "table inet services {
    chain services {
        ip daddr 10.96.0.9 udp dport 53 dnat ip to 10.244.1.8:5353
        ip6 daddr fd00:96::9 udp dport 53 dnat ip6 to [fd00:1::8]:5353
        ip daddr 10.96.0.10 udp dport 53 dnat ip to 10.244.0.1:5454
        ip6 daddr fd00:96::10 udp dport 53 dnat ip6 to [fd00:0::1]:5454
    }
    chain pre { type nat hook prerouting priority -100; jump services; }
    chain out { type nat hook output priority -100; jump services; }
    chain post { type nat hook postrouting priority 100; ct status dnat masquerade; }
}";

/// The node, with rules and with a way to its Services by another link than the one to their backend.
fn node(test: &str) -> Option<Node> {
    if !can_trace(test) || !can_translate(test) {
        return None;
    }
    let node = Node::with_pods(2);
    node.rules(RULES);
    node.netns.run("ip route add 10.96.0.0/24 dev pod0");
    node.netns.run("ip route add fd00:96::/64 dev pod0");
    Some(node)
}

fn end(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn open(at: &str) -> UdpSocket {
    UdpSocket::bind(at).unwrap()
}

/// Sends 20 bytes three times, which the server answers with 30; the client as the server saw it.
fn exchange(send: impl Fn(&[u8]) -> std::io::Result<usize>, client: &UdpSocket, server: &UdpSocket) -> SocketAddr {
    let mut buffer = [0; 100];
    let mut seen = None;
    for _ in 0..3 {
        assert_eq!(send(&[1; 20]).unwrap(), 20);
        let (count, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((count, seen.unwrap_or(from)), (20, from));
        server.send_to(&[2; 30], from).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 30);
        seen = Some(from);
    }
    seen.unwrap()
}

/// Every row that has one of these ports at an end.
fn rows(reply: &Reply, one: u16, other: u16) -> Vec<&Connection> {
    let has = |row: &&Connection, port| row.sport == port || row.dport == port;
    reply.connections.iter().filter(|row| row.kind == 1 && (has(row, one) || has(row, other))).collect()
}

fn ends(row: &Connection) -> (SocketAddr, SocketAddr) {
    let address = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
    (address(&row.source, row.sport), address(&row.dest, row.dport))
}

const INCOMING: u8 = 1;
const OUTGOING: u8 = 2;

/// Exactly one row for the client's end and one for the server's.
fn assert_two_rows(rows: &[&Connection], client: (SocketAddr, SocketAddr), server: (SocketAddr, SocketAddr)) {
    let found: Vec<_> = rows.iter().map(|row| (ends(row), bytes(row), row.direction)).collect();
    let mut expected = vec![(client, (60, 90), OUTGOING), (server, (90, 60), INCOMING)];
    expected.sort_by_key(|row| found.iter().position(|one| one == row));
    assert_eq!(found, expected);
    assert!(rows.iter().all(|row| row.conntrack == Some(told(client, server))), "{rows:#?}");
}

#[test]
fn what_a_process_on_the_nodes_network_asks_a_service_is_one_row_at_each_end() {
    let Some(node) = node("what_a_process_on_the_nodes_network_asks_a_service_is_one_row_at_each_end") else { return };
    let tracer = node.netns.inside(|| Tracer::start(&[]));
    let mut agent = Agent::new(&tracer);
    let mut played = Vec::new();
    let mut servers = Vec::new();
    for (service, backend, any) in
        [("10.96.0.9:53", "10.244.1.8:5353", "0.0.0.0:0"), ("[fd00:96::9]:53", "[fd00:1::8]:5353", "[::]:0")]
    {
        let server = node.pods[1].inside(|| open(backend));
        let [connected, named] = [(); 2].map(|()| node.netns.inside(|| open(any)));
        connected.connect(end(service)).unwrap();
        let own = connected.local_addr().unwrap();
        let by_connected = exchange(|bytes| connected.send(bytes), &connected, &server);
        let by_name = exchange(|bytes| named.send_to(bytes, end(service)), &named, &server);
        assert_ne!(by_connected.ip(), own.ip(), "masqueraded as another of the node's addresses");
        for (client, seen) in [(&connected, by_connected), (&named, by_name)] {
            let own = SocketAddr::new(own.ip(), client.local_addr().unwrap().port());
            played.push(((own, end(service)), (end(backend), seen)));
        }
        servers.push((connected, named, server));
    }
    let check = |reply: &Reply| {
        for (client, server) in &played {
            assert_two_rows(&rows(reply, client.0.port(), server.1.port()), *client, *server);
        }
    };
    check(&tracer.reply(""));
    drop(servers);
    let mut ended = Vec::new();
    until("eight ends", || {
        // Others' datagrams end, too.
        let ours = |row: &Connection| {
            row.kind == 1 && played.iter().any(|(client, server)| ends(row) == *client || ends(row) == *server)
        };
        let fetched = agent.fetch(&tracer).connections.into_iter().filter(ours);
        ended.extend(fetched.filter(|row| row.close_epoch.is_some()));
        (ended.len() >= 8).then_some(())
    });
    check(&Reply { connections: ended, ..Reply::default() });
}

#[test]
fn what_a_server_on_the_nodes_network_answers_is_in_the_row_of_what_it_was_asked() {
    let Some(node) = node("what_a_server_on_the_nodes_network_answers_is_in_the_row_of_what_it_was_asked") else {
        return;
    };
    let tracer = node.netns.inside(|| Tracer::start(&[]));
    for (service, backend, any) in
        [("10.96.0.10:53", "10.244.0.1:5454", "0.0.0.0:0"), ("[fd00:96::10]:53", "[fd00::1]:5454", "[::]:0")]
    {
        let server = node.netns.inside(|| open(backend));
        // In a pod, and on the node itself.
        for netns in [&node.pods[0], &node.netns] {
            let client = netns.inside(|| open(any));
            client.connect(end(service)).unwrap();
            let own = client.local_addr().unwrap();
            let seen = exchange(|bytes| client.send(bytes), &client, &server);
            let reply = tracer.reply("");
            assert_two_rows(&rows(&reply, own.port(), seen.port()), (own, end(service)), (end(backend), seen));
        }
    }
}

#[test]
fn one_socket_may_ask_a_service_and_its_backend() {
    let Some(node) = node("one_socket_may_ask_a_service_and_its_backend") else { return };
    let tracer = node.netns.inside(|| Tracer::start(&[]));
    let (service, backend) = (end("10.96.0.9:53"), end("10.244.1.8:5353"));
    let server = node.pods[1].inside(|| open("10.244.1.8:5353"));
    for first in [backend, service] {
        let client = node.netns.inside(|| open("0.0.0.0:0"));
        // Connected to the one: a datagram may still be for the other.
        client.connect(first).unwrap();
        let mut seen = Vec::new();
        for to in [first, if first == backend { service } else { backend }, first] {
            seen.push(ask(&client, to, &server));
        }
        let port = client.local_addr().unwrap().port();
        let reply = tracer.reply("");
        let told: BTreeMap<_, _> =
            reply.connections.iter().filter(|row| row.sport == port).map(|row| (ends(row).1, bytes(row).0)).collect();
        let other = if first == backend { service } else { backend };
        assert_eq!(told, BTreeMap::from([(first, 40), (other, 20)]));
        assert_ne!(seen[0], seen[1], "conntrack tells the two apart");
    }
}

/// Sends 20 bytes, which the server sees; from where.
fn ask(client: &UdpSocket, to: SocketAddr, server: &UdpSocket) -> SocketAddr {
    assert_eq!(client.send_to(&[1; 20], to).unwrap(), 20);
    server.recv_from(&mut [0; 100]).unwrap().1
}
