//! UDP byte counts are exact by socket and peer.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use support::{Agent, Tracer, bytes, can_trace, rows_of, until};
use weir_wire::feed::{Connection, Reply};

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    socket
}

fn port(socket: &UdpSocket) -> u16 {
    socket.local_addr().unwrap().port()
}

fn is_supported(tracer: &Tracer) -> bool {
    let status = tracer.status();
    let probe = status.probes.iter().find(|probe| probe.name == "udp").unwrap();
    if probe.state != "running" {
        assert!(std::env::var("WEIR_FORBID_SKIPS").as_deref() != Ok("1"), "{probe:?}");
        println!("SKIP udp: {:?}", probe.reason);
    }
    probe.state == "running"
}

fn only(reply: &Reply, local: u16, remote: u16) -> &Connection {
    let rows = rows_of(reply, local, remote);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows[0]
}

#[test]
fn each_peer_has_its_own_exact_count_connected_or_not() {
    if !can_trace("each_peer_has_its_own_exact_count_connected_or_not") {
        return;
    }
    let tracer = Tracer::start(&[]);
    if !is_supported(&tracer) {
        return;
    }
    let server = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port(&server)));
    let clients: Vec<UdpSocket> = (0..6).map(|_| socket()).collect();
    let mut buffer = vec![0; 65_536];
    for (number, client) in clients.iter().enumerate() {
        let payload = vec![1; 100 + number];
        if number % 2 == 0 {
            client.connect(address).unwrap();
            client.send(&payload).unwrap();
            client.send(&payload).unwrap();
        } else {
            client.send_to(&payload, address).unwrap();
            client.send_to(&payload, address).unwrap();
        }
        for _ in 0..2 {
            let (count, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..count / 2], from).unwrap();
        }
        client.recv(&mut buffer).unwrap();
        client.recv(&mut buffer).unwrap();
    }
    let reply = tracer.reply("");
    for (number, client) in clients.iter().enumerate() {
        let size = 100 + number as u64;
        let expected = (2 * size, 2 * (size / 2));
        let (out, back) = (only(&reply, port(client), port(&server)), only(&reply, port(&server), port(client)));
        assert_eq!((bytes(out), bytes(back)), (expected, (expected.1, expected.0)));
        for row in [out, back] {
            assert_eq!((row.kind, row.family, row.pid), (1, 0, std::process::id()), "IPv4 on an IPv6 socket is IPv4");
            assert_eq!((row.source.as_str(), row.dest.as_str()), ("127.0.0.1", "127.0.0.1"));
            assert_eq!(row.state.as_deref(), Some("active"));
            assert_eq!(row.net_ns, own_netns());
            assert_eq!(row.direction_certainty.as_deref(), Some("known"));
        }
        assert_eq!((out.direction, back.direction), (2, 1));
    }
}

fn own_netns() -> u32 {
    std::os::unix::fs::MetadataExt::ino(&std::fs::metadata("/proc/thread-self/ns/net").unwrap()) as u32
}

#[test]
fn datagrams_that_are_cut_and_joined_count_their_payload() {
    if !can_trace("datagrams_that_are_cut_and_joined_count_their_payload") {
        return;
    }
    let tracer = Tracer::start(&[]);
    if !is_supported(&tracer) {
        return;
    }
    let server = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let client = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let mut buffer = vec![0; 65_536];
    for size in [0, 1, 1_472, 60_000] {
        client.send_to(&vec![0; size], server.local_addr().unwrap()).unwrap();
        assert_eq!(server.recv(&mut buffer).unwrap(), size);
    }
    let reply = tracer.reply("");
    let row = only(&reply, port(&client), port(&server));
    assert_eq!((bytes(row), row.family, row.source.as_str()), ((61_473, 0), 1, "::1"));
    assert_eq!(bytes(only(&reply, port(&server), port(&client))), (0, 61_473));

    // One send call, eleven datagrams (UDP_SEGMENT).
    let (sender, receiver) = (socket(), socket());
    nix::sys::socket::setsockopt(&sender, nix::sys::socket::sockopt::UdpGsoSegment, &1_000).unwrap();
    sender.send_to(&[0; 10_500], receiver.local_addr().unwrap()).unwrap();
    let mut received = 0;
    while received < 10_500 {
        received += receiver.recv(&mut buffer).unwrap();
    }
    let reply = tracer.reply("");
    assert_eq!(bytes(only(&reply, port(&sender), port(&receiver))), (10_500, 0));
    assert_eq!(bytes(only(&reply, port(&receiver), port(&sender))), (0, 10_500));
}

#[test]
fn a_datagram_that_found_no_room_is_not_received() {
    if !can_trace("a_datagram_that_found_no_room_is_not_received") {
        return;
    }
    let tracer = Tracer::start(&[]);
    if !is_supported(&tracer) {
        return;
    }
    let (sender, slow) = (socket(), socket());
    nix::sys::socket::setsockopt(&slow, nix::sys::socket::sockopt::RcvBuf, &5_000).unwrap();
    for _ in 0..100 {
        sender.send_to(&[0; 500], slow.local_addr().unwrap()).unwrap();
    }
    slow.set_nonblocking(true).unwrap();
    let mut received = 0;
    while let Ok(count) = slow.recv(&mut [0; 1_000]) {
        received += count as u64;
    }
    assert!(received < 50_000);
    let reply = tracer.reply("");
    assert_eq!(bytes(only(&reply, port(&sender), port(&slow))), (50_000, 0));
    assert_eq!(bytes(only(&reply, port(&slow), port(&sender))), (0, received));
    assert!(tracer.status().gauges["udp_receive_queue_full"] > 0);
}

#[test]
fn beyond_the_cap_bytes_stay_exact_under_the_other_peer() {
    if !can_trace("beyond_the_cap_bytes_stay_exact_under_the_other_peer") {
        return;
    }
    let tracer = Tracer::start(&["--udp-peers-max", "1024"]);
    if !is_supported(&tracer) {
        return;
    }
    let mut agent = Agent::new(&tracer);
    let scanner = socket();
    let own = port(&scanner);
    for number in 0..1_500_u32 {
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + number);
        scanner.send_to(&[0; 10], (address, 9)).unwrap();
    }
    let reply = tracer.reply("");
    let mine: Vec<_> = reply.connections.iter().filter(|row| row.kind == 1 && row.sport == own).collect();
    assert_eq!(mine.len(), 1_024 + 1);
    assert_eq!(mine.iter().map(|row| row.monotonic_sent_bytes.unwrap()).sum::<u64>(), 15_000);
    let other: Vec<_> = mine.iter().filter(|row| row.other_peer == Some(true)).collect();
    assert_eq!(other.len(), 1);
    assert_eq!((other[0].dest.as_str(), other[0].dport, other[0].monotonic_sent_bytes), ("0.0.0.0", 0, Some(4_760)));
    assert!(reply.losses["udp_peers_capped"] >= 476);
    // Its end ends them all.
    drop(scanner);
    let mut ended = Vec::new();
    until("every flow to end", || {
        let rows = agent.fetch(&tracer).connections.into_iter();
        ended.extend(rows.filter(|row| row.sport == own && row.close_epoch.is_some()));
        (ended.len() >= 1_025).then_some(())
    });
    assert_eq!(ended.iter().map(|row| row.monotonic_sent_bytes.unwrap()).sum::<u64>(), 15_000);
    assert!(ended.iter().all(|row| row.close_reason.as_deref() == Some("closed")));
}

#[test]
fn an_idle_flow_ends_and_a_later_datagram_begins_another() {
    if !can_trace("an_idle_flow_ends_and_a_later_datagram_begins_another") {
        return;
    }
    let tracer = Tracer::start(&["--udp-idle", "400ms"]);
    if !is_supported(&tracer) {
        return;
    }
    let mut agent = Agent::new(&tracer);
    let (client, server) = (socket(), socket());
    let mut starts = Vec::new();
    for count in [11, 22] {
        client.send_to(&vec![0; count], server.local_addr().unwrap()).unwrap();
        let row = until("the flow to end", || {
            let mut rows = agent.fetch(&tracer).connections.into_iter();
            rows.find(|row| row.sport == port(&client) && row.close_epoch.is_some())
        });
        assert_eq!(bytes(&row), (count as u64, 0));
        assert_eq!(row.close_reason.as_deref(), Some("idle"));
        starts.push(row.start_epoch.unwrap());
    }
    assert!(starts[0] < starts[1]);
    assert_eq!(
        tracer.status().gauges["udp_flows"],
        tracer.reply("").connections.iter().filter(|row| row.kind == 1).count() as u64
    );
}

#[test]
fn a_socket_older_than_the_tracer_has_its_owner() {
    if !can_trace("a_socket_older_than_the_tracer_has_its_owner") {
        return;
    }
    let (client, server) = (socket(), socket());
    let tracer = Tracer::start(&[]);
    if !is_supported(&tracer) {
        return;
    }
    client.send_to(&[0; 5], server.local_addr().unwrap()).unwrap();
    let reply = tracer.reply("");
    let row = only(&reply, port(&client), port(&server));
    assert_eq!((row.pid, row.net_ns, bytes(row)), (std::process::id(), own_netns(), (5, 0)));
    assert_eq!(row.direction_certainty.as_deref(), Some("inferred"));
}
