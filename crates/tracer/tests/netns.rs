//! Every network namespace is seen, and told apart.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use support::netns::{in_new_netns, outside};
use support::{Agent, Tracer, bytes, can_trace, until};

#[test]
fn the_same_tuple_in_two_namespaces_is_two_connections() {
    if !can_trace("the_same_tuple_in_two_namespaces_is_two_connections") {
        return;
    }
    let tracer = Tracer::start(&[]);
    let mut agent = Agent::new(&tracer);
    let mut seen = Vec::new();
    for count in [100_u64, 200] {
        let netns = in_new_netns(|netns| {
            let listener = TcpListener::bind("127.0.0.1:7000").unwrap();
            let mut client = TcpStream::connect("127.0.0.1:7000").unwrap();
            let mut server = listener.accept().unwrap().0;
            client.write_all(&vec![0; count as usize]).unwrap();
            server.read_exact(&mut vec![0; count as usize]).unwrap();
            let live = tracer.reply("");
            let row = live.connections.iter().find(|row| row.dport == 7_000 && row.net_ns == netns).unwrap();
            assert_eq!(bytes(row), (count, 0));

            let udp = UdpSocket::bind("127.0.0.1:7001").unwrap();
            udp.send_to(&vec![0; count as usize], "127.0.0.1:7001").unwrap();
            let live = tracer.reply("");
            let row = live.connections.iter().find(|row| row.kind == 1 && row.net_ns == netns).unwrap();
            assert_eq!((bytes(row), row.pid), ((count, count), std::process::id()));
            netns
        });
        seen.push((netns, count));
    }
    let mut ended = Vec::new();
    until("both to end", || {
        ended.extend(
            agent
                .fetch(&tracer)
                .connections
                .into_iter()
                .filter(|row| row.close_epoch.is_some() && row.kind == 0 && row.dport == 7_000),
        );
        (ended.len() >= 2).then_some(())
    });
    assert_eq!(ended.iter().map(|row| (row.net_ns, bytes(row).0)).collect::<Vec<_>>(), seen);
}

#[test]
fn a_connection_in_another_namespace_that_is_older_than_the_tracer_is_found() {
    if !can_trace("a_connection_in_another_namespace_that_is_older_than_the_tracer_is_found") {
        return;
    }
    in_new_netns(|netns| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _server = listener.accept().unwrap();
        client.write_all(&[0; 33]).unwrap();
        let tracer = outside(|| Tracer::start(&["--no-udp"]));
        let reply = tracer.reply("");
        let row = reply.connections.iter().find(|row| row.net_ns == netns && row.direction == 2).unwrap();
        assert_eq!((bytes(row), row.start_epoch), ((33, 0), None));
    });
}
