//! UDP at its edges: several peers, full rings, overflowing queues, corked, peeked, empty and multicast datagrams. Not
//! one byte is off, and each is its peer's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, recv, send};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use support::netns::{in_new_netns, outside, run};
use support::{Agent, Tracer, bytes, can_trace, pause, rows_of, until};
use weir_wire::feed::Connection;

fn socket() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

fn port(socket: &UdpSocket) -> u16 {
    socket.local_addr().unwrap().port()
}

/// Ended rows of one local port, once there are so many.
fn ended(tracer: &Tracer, agent: &mut Agent, count: usize, of: impl Fn(&Connection) -> bool) -> Vec<Connection> {
    let mut rows = Vec::new();
    until("the flows to end", || {
        let fetched = agent.fetch(tracer).connections.into_iter();
        rows.extend(fetched.filter(|row| row.kind == 1 && row.close_epoch.is_some() && of(row)));
        (rows.len() >= count).then_some(())
    });
    rows
}

#[test]
fn the_first_peer_and_the_others_end_with_their_socket() {
    if !can_trace("the_first_peer_and_the_others_end_with_their_socket") {
        return;
    }
    let tracer = Tracer::start(&[]);
    let mut agent = Agent::new(&tracer);
    let (server, clients) = (socket(), [socket(), socket(), socket()]);
    let own = port(&server);
    let mut expected = BTreeMap::new();
    for round in 1..4 {
        for (number, client) in clients.iter().enumerate() {
            let size = round * 10 + number;
            client.send_to(&vec![0; size], server.local_addr().unwrap()).unwrap();
            assert_eq!(server.recv(&mut [0; 100]).unwrap(), size);
            server.send_to(&[0; 1], client.local_addr().unwrap()).unwrap();
            let sums: &mut (u64, u64) = expected.entry(port(client)).or_default();
            *sums = (sums.0 + 1, sums.1 + size as u64);
        }
    }
    let told = |rows: &[Connection]| -> BTreeMap<u16, (u64, u64)> {
        rows.iter().filter(|row| row.sport == own).map(|row| (row.dport, bytes(row))).collect()
    };
    assert_eq!(told(&tracer.reply("").connections), expected);
    drop(server);
    let rows = ended(&tracer, &mut agent, 3, |row| row.sport == own);
    assert_eq!((rows.len(), told(&rows)), (3, expected));
    assert!(rows.iter().all(|row| row.close_reason.as_deref() == Some("closed") && row.pid == std::process::id()));
    let left = tracer.reply("").connections;
    assert!(!left.iter().any(|row| row.kind == 1 && row.sport == own), "no flow ends twice");
}

#[test]
fn ends_that_find_no_room_come_later_and_are_told() {
    if !can_trace("ends_that_find_no_room_come_later_and_are_told") {
        return;
    }
    let tracer = Tracer::start(&["--udp-closed-ring-bytes", "4096", "--udp-idle", "400ms"]);
    let mut agent = Agent::new(&tracer);
    let server = socket();
    let own = port(&server);
    tracer.signal(Signal::SIGSTOP);
    for _ in 0..100 {
        let client = socket();
        client.send_to(&[0; 7], server.local_addr().unwrap()).unwrap();
    }
    tracer.signal(Signal::SIGCONT);
    let rows = ended(&tracer, &mut agent, 100, |row| row.dport == own);
    assert_eq!((rows.len(), rows.iter().map(|row| bytes(row).0).sum::<u64>()), (100, 700));
    // 24 rows of 168 bytes; other sockets of this machine may have had some of it.
    assert!(agent.fetch(&tracer).losses["udp_gone_ring_full"] >= 76);
}

#[test]
fn what_overflows_a_queue_is_taken_from_the_peer_that_sent_it() {
    if !can_trace("what_overflows_a_queue_is_taken_from_the_peer_that_sent_it") {
        return;
    }
    let tracer = Tracer::start(&[]);
    let (slow, senders) = (socket(), [socket(), socket(), socket()]);
    nix::sys::socket::setsockopt(&slow, nix::sys::socket::sockopt::RcvBuf, &20_000).unwrap();
    for _ in 0..60 {
        for (number, sender) in senders.iter().enumerate() {
            sender.send_to(&vec![0; 300 + number], slow.local_addr().unwrap()).unwrap();
        }
    }
    slow.set_nonblocking(true).unwrap();
    let mut received = BTreeMap::new();
    while let Ok((count, from)) = slow.recv_from(&mut [0; 1_000]) {
        *received.entry(from.port()).or_default() += count as u64;
    }
    let reply = tracer.reply("");
    for (number, sender) in senders.iter().enumerate() {
        let sent = 60 * (300 + number as u64);
        let got = received.get(&port(sender)).copied().unwrap_or(0_u64);
        assert!(got < sent);
        assert_eq!(bytes(rows_of(&reply, port(sender), port(&slow))[0]), (sent, 0));
        assert_eq!(bytes(rows_of(&reply, port(&slow), port(sender))[0]), (0, got));
    }
}

#[test]
fn a_flow_that_was_about_to_end_as_idle_goes_on() {
    if !can_trace("a_flow_that_was_about_to_end_as_idle_goes_on") {
        return;
    }
    let tracer = Tracer::start(&["--udp-idle", "200ms"]);
    let mut agent = Agent::new(&tracer);
    let (client, server) = (socket(), socket());
    let mut rows = Vec::new();
    let mut fetch = || {
        let fetched = agent.fetch(&tracer).connections.into_iter();
        rows.extend(fetched.filter(|row| row.sport == port(&client) && row.close_epoch.is_some()));
        rows.iter().map(|row| bytes(row).0).sum::<u64>()
    };
    // A pass comes every 50 ms; the pauses are such that a datagram meets a flow in each of its states.
    for round in 0..20 {
        client.send_to(&[0; 3], server.local_addr().unwrap()).unwrap();
        pause(std::time::Duration::from_millis(190 + 3 * (round % 20)));
        fetch();
    }
    until("the last flow to end", || (fetch() == 60).then_some(()));
    assert!(rows.iter().all(|row| row.close_reason.as_deref() == Some("idle")));
}

#[test]
fn corked_peeked_and_empty_datagrams_count_what_they_carry() {
    if !can_trace("corked_peeked_and_empty_datagrams_count_what_they_carry") {
        return;
    }
    let tracer = Tracer::start(&[]);
    let (client, server) = (socket(), socket());
    client.connect(server.local_addr().unwrap()).unwrap();
    send(client.as_raw_fd(), &[0; 10], MsgFlags::from_bits_retain(nix::libc::MSG_MORE)).unwrap();
    send(client.as_raw_fd(), &[0; 20], MsgFlags::empty()).unwrap();
    client.send(&[]).unwrap();
    let mut buffer = [0; 100];
    for _ in 0..2 {
        assert_eq!(recv(server.as_raw_fd(), &mut buffer, MsgFlags::MSG_PEEK).unwrap(), 30);
    }
    // Cut short for the application, but received.
    assert_eq!(recv(server.as_raw_fd(), &mut buffer[..5], MsgFlags::empty()).unwrap(), 5);
    assert_eq!(server.recv(&mut buffer).unwrap(), 0);
    let empty = socket();
    empty.send_to(&[], server.local_addr().unwrap()).unwrap();
    assert_eq!(server.recv(&mut buffer).unwrap(), 0);
    let reply = tracer.reply("");
    assert_eq!(bytes(rows_of(&reply, port(&client), port(&server))[0]), (30, 0));
    assert_eq!(bytes(rows_of(&reply, port(&server), port(&client))[0]), (0, 30));
    assert_eq!(bytes(rows_of(&reply, port(&empty), port(&server))[0]), (0, 0), "a datagram all the same");
}

#[test]
fn multicast_is_sent_once_and_received_by_each() {
    if !can_trace("multicast_is_sent_once_and_received_by_each") {
        return;
    }
    in_new_netns(|netns| {
        let tracer = outside(|| Tracer::start(&[]));
        run("ip", &["route", "add", "239.0.0.0/8", "dev", "lo"]);
        let group = Ipv4Addr::new(239, 1, 2, 3);
        let members: Vec<UdpSocket> = (0..2)
            .map(|number| {
                let member = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7_100 + number)).unwrap();
                member.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap();
                member
            })
            .collect();
        let sender = socket();
        for member in &members {
            sender.send_to(&[0; 50], (group, port(member))).unwrap();
            assert_eq!(member.recv(&mut [0; 100]).unwrap(), 50);
        }
        let reply = tracer.reply("");
        for member in &members {
            let own: Vec<_> = reply.connections.iter().filter(|row| row.net_ns == netns && row.kind == 1).collect();
            let sent = own.iter().find(|row| row.dport == port(member)).unwrap();
            assert_eq!((sent.dest.as_str(), bytes(sent)), ("239.1.2.3", (50, 0)), "its loop to this host is no byte");
            let got = own.iter().find(|row| row.sport == port(member)).unwrap();
            assert_eq!((got.source.as_str(), bytes(got)), ("239.1.2.3", (0, 50)));
        }
    });
}
