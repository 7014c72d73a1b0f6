//! A connect that fails says why, and a connection over a bad way says how bad it was.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt::TcpUserTimeout,
};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use support::netns::{in_new_netns, outside, run};
use support::{Agent, Tracer, bytes, can_trace, until};
use weir_wire::feed::Connection;

/// The ended row towards this port.
fn ended(tracer: &Tracer, agent: &mut Agent, netns: u32, port: u16) -> Connection {
    until("the end", || {
        let rows = agent.fetch(tracer).connections.into_iter();
        rows.filter(|row| row.close_epoch.is_some()).find(|row| (row.net_ns, row.dport) == (netns, port))
    })
}

#[test]
fn a_connect_that_fails_says_why() {
    if !can_trace("a_connect_that_fails_says_why") {
        return;
    }
    in_new_netns(|netns| {
        let tracer = outside(|| Tracer::start(&["--no-udp"]));
        let mut agent = Agent::new(&tracer);
        for (port, reply, reason, errno) in [
            (81, vec!["DROP"], "timed_out", 110),
            (82, vec!["REJECT", "--reject-with", "icmp-host-unreachable"], "unreachable", 113),
            (83, vec!["REJECT", "--reject-with", "icmp-net-unreachable"], "unreachable", 101),
            (84, vec!["REJECT", "--reject-with", "tcp-reset"], "refused", 111),
        ] {
            let text = port.to_string();
            let mut rule = vec!["-w", "-A", "INPUT", "-p", "tcp", "--dport", &text, "-j"];
            rule.extend(reply);
            run("iptables", &rule);
            let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
            setsockopt(&fd, TcpUserTimeout, &500).unwrap();
            let address = SockaddrStorage::from(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            assert_eq!(connect(fd.as_raw_fd(), &address).unwrap_err() as u32, errno);
            let row = ended(&tracer, &mut agent, netns, port);
            assert_eq!((row.close_reason.as_deref(), row.errno), (Some(reason), Some(errno)));
            assert_eq!((row.direction, bytes(&row), row.pid), (2, (0, 0), std::process::id()));
            assert_eq!((row.connect_latency_us, row.rtt_us, row.rtt_var_us), (None, None, None));
        }
    });
}

#[test]
fn segments_that_were_lost_and_sent_again_are_no_bytes_but_are_told() {
    if !can_trace("segments_that_were_lost_and_sent_again_are_no_bytes_but_are_told") {
        return;
    }
    in_new_netns(|netns| {
        let tracer = outside(|| Tracer::start(&["--no-udp"]));
        let mut agent = Agent::new(&tracer);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut server = listener.accept().unwrap().0;
        client.write_all(&[0; 10]).unwrap();
        server.read_exact(&mut [0; 10]).unwrap();
        let text = port.to_string();
        run("iptables", &["-w", "-A", "INPUT", "-p", "tcp", "--dport", &text, "-j", "DROP"]);
        client.write_all(&[0; 1_000]).unwrap();
        let own = client.local_addr().unwrap().port();
        let live = until("segments to be lost", || {
            let rows = tracer.reply("").connections.into_iter();
            rows.filter(|row| (row.net_ns, row.sport) == (netns, own)).find(|row| row.lost.is_some())
        });
        assert_eq!(bytes(&live), (1_010, 0), "what is on its way has left");
        assert!(live.monotonic_retransmits > 0 && live.rtt_us.is_some() && live.rtt_var_us.is_some());
        run("iptables", &["-w", "-F", "INPUT"]);
        server.read_exact(&mut [0; 1_000]).unwrap();
        drop((client, server));
        let row = ended(&tracer, &mut agent, netns, port);
        assert_eq!(bytes(&row), (1_010, 0));
        assert!(row.monotonic_retransmits >= live.monotonic_retransmits && row.lost >= live.lost);
    });
}
