//! Who opened a connection is known of every one, in every state, also of those older than the tracer; and so is every
//! byte.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, listen, sendto, socket,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use support::netns::{in_new_netns, outside, run};
use support::tcp::{Pair, listener, read_to_the_end};
use support::{Agent, Tracer, bytes, can_trace, pause, until};
use weir_wire::feed::Connection;

/// One connection, what it must look like from both ends: local port, remote port, state, sent, received.
struct Expected {
    what: &'static str,
    client: (u16, u16, &'static str, u64, u64),
    server: (u16, u16, &'static str, u64, u64),
}

/// What a connection must look like now.
fn expect(pair: &Pair, what: &'static str, states: (&'static str, &'static str), bytes: (u64, u64)) -> Expected {
    let (client, server) = pair.ports();
    Expected {
        what,
        client: (client, server, states.0, bytes.0, bytes.1),
        server: (server, client, states.1, bytes.1, bytes.0),
    }
}

fn facts(row: &Connection) -> (u16, u16, &str, u64, u64) {
    let (sent, recv) = bytes(row);
    (row.sport, row.dport, row.state.as_deref().unwrap(), sent, recv)
}

/// Has the namespace's firewall refuse what matches; `-A` to begin, `-D` to end.
fn firewall(verb: &str, chain: &str, port: u16, side: &str) {
    run("iptables", &["-w", verb, chain, "-p", "tcp", side, &port.to_string(), "-j", "DROP"]);
}

#[test]
fn it_is_known_in_every_state_of_connections_older_than_the_tracer() {
    if !can_trace("it_is_known_in_every_state_of_connections_older_than_the_tracer") {
        return;
    }
    in_new_netns(|netns| {
        std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1543").unwrap();
        let mut expected = Vec::new();
        let mut kept = Vec::new();
        let mut keep = |pair: Pair, what, states, bytes| {
            expected.push(expect(&pair, what, states, bytes));
            kept.push(pair);
        };

        let silent = Pair::new(&listener());
        keep(silent, "nothing was sent, and the listener is closed", ("established", "established"), (0, 0));
        let both = Pair::new(&listener());
        both.exchange(1, 1);
        both.exchange(70_000, 3);
        keep(both, "both sent", ("established", "established"), (70_001, 4));
        let any = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let port = any.local_addr().unwrap().port();
        for address in
            [IpAddr::from(Ipv6Addr::LOCALHOST), Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()]
        {
            let pair = Pair::at(&any, (address, port).into());
            pair.exchange(9, 1);
            keep(pair, "IPv6, IPv4 on an IPv6 listener, mapped", ("established", "established"), (9, 1));
        }
        for sizes in [(0, 0), (1, 0), (0, 1), (20, 30)] {
            let half = Pair::new(&listener());
            half.exchange(sizes.0, sizes.1);
            half.client.shutdown(Shutdown::Write).unwrap();
            read_to_the_end(&half.server);
            let sizes = (sizes.0 as u64, sizes.1 as u64);
            keep(half, "the client's half is closed", ("fin_wait2", "close_wait"), sizes);
            let half = Pair::new(&listener());
            half.exchange(2, 5);
            half.server.shutdown(Shutdown::Write).unwrap();
            read_to_the_end(&half.client);
            keep(half, "the server's half is closed", ("close_wait", "fin_wait2"), (2, 5));
        }

        // A window of zero: some of what was written has not left. With a FIN behind it, too.
        for close in [None, Some(("fin_wait1", "established"))] {
            let full = Pair::new(&listener());
            full.client.set_nonblocking(true).unwrap();
            let (mut idle, mut written) = (0, 0);
            let block = vec![0; 65_536];
            while idle < 20 {
                match (&full.client).write(&block) {
                    Ok(count) => (idle, written) = (0, written + count),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        idle += 1;
                        pause(std::time::Duration::from_millis(5));
                    }
                }
            }
            assert!(written > 65_536);
            if close.is_some() {
                full.client.shutdown(Shutdown::Write).unwrap();
            }
            keep(full, "the window is zero", close.unwrap_or(("established", "established")), (u64::MAX, 0));
        }

        // FINs that left and are not acknowledged.
        let unheard = listener();
        let port = unheard.local_addr().unwrap().port();
        let first = Pair::new(&unheard);
        first.exchange(6, 7);
        let last = Pair::new(&unheard);
        last.exchange(8, 9);
        last.server.shutdown(Shutdown::Write).unwrap();
        read_to_the_end(&last.client);
        // 05 is FIN_WAIT2: that FIN was acknowledged.
        let local = format!(":{port:04X}");
        until("the acknowledgement", || {
            let sockets = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
            let mut lines = sockets.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
            lines.any(|words| words[1].ends_with(&local) && words[3] == "05").then_some(())
        });
        firewall("-A", "INPUT", port, "--dport");
        first.client.shutdown(Shutdown::Write).unwrap();
        last.client.shutdown(Shutdown::Write).unwrap();
        keep(first, "a FIN is on its way", ("fin_wait1", "established"), (6, 7));
        keep(last, "the last FIN is on its way", ("last_ack", "fin_wait2"), (8, 9));

        // Data in the SYN.
        let quick = listener();
        let address = SockaddrStorage::from(quick.local_addr().unwrap());
        let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let flags = MsgFlags::from_bits_retain(nix::libc::MSG_FASTOPEN);
        assert_eq!(sendto(client.as_raw_fd(), &[0; 11], &address, flags).unwrap(), 11);
        let pair = Pair::accepted(TcpStream::from(client), &quick);
        (&pair.server).read_exact(&mut [0; 11]).unwrap();
        until("the handshake", || pair.client.peer_addr().ok());
        keep(pair, "data in the SYN", ("established", "established"), (11, 0));

        // What the host's own firewall refuses never left, however often it was tried.
        let refused = Pair::new(&listener());
        refused.exchange(100, 0);
        let port = refused.server.local_addr().unwrap().port();
        firewall("-A", "OUTPUT", port, "--dport");
        (&refused.client).write_all(&[0; 1_000]).unwrap();
        pause(std::time::Duration::from_millis(700));
        keep(refused, "refused by the host's own firewall", ("established", "established"), (100, 0));

        let refused = Pair::new(&listener());
        refused.exchange(100, 0);
        firewall("-A", "OUTPUT", refused.server.local_addr().unwrap().port(), "--sport");
        (&refused.server).write_all(&[0; 1_000]).unwrap();
        pause(std::time::Duration::from_millis(700));
        keep(refused, "the accepting side's were refused", ("established", "established"), (100, 0));

        // A listener without a backlog.
        let (no_backlog, address) = listener_without_backlog();
        keep(Pair::at(&no_backlog, address), "no backlog", ("established", "established"), (0, 0));

        // Both opened: a socket connected to itself.
        let alone = alone();
        let port = alone.local_addr().unwrap().port();
        (&alone).write_all(&[0; 13]).unwrap();
        (&alone).read_exact(&mut [0; 13]).unwrap();

        let tracer = outside(|| Tracer::start(&["--no-udp"]));
        let mut agent = Agent::new(&tracer);
        let reply = tracer.reply("");
        let rows: Vec<_> = reply.connections.into_iter().filter(|row| row.net_ns == netns).collect();
        let mut full = Vec::new();
        for Expected { what, client, server } in &expected {
            for (direction, wanted) in [(2, client), (1, server)] {
                let row = rows.iter().find(|row| (row.sport, row.dport) == (wanted.0, wanted.1)).expect(what);
                assert_eq!(row.direction, direction, "{what}: {row:?}");
                assert_eq!(row.direction_certainty.as_deref(), Some("inferred"));
                if [wanted.3, wanted.4].contains(&u64::MAX) {
                    assert_eq!(row.state.as_deref(), Some(wanted.2), "{what}");
                    full.push(bytes(row));
                } else {
                    assert_eq!(facts(row), *wanted, "{what}");
                }
            }
        }
        // What has left with a zero window has arrived.
        for pair in full.chunks(2) {
            assert_eq!(pair[0], (pair[1].1, pair[1].0));
            assert!(pair[0].0 > 65_536);
        }
        let own = rows.iter().find(|row| (row.sport, row.dport) == (port, port)).unwrap();
        assert_eq!((own.direction, bytes(own)), (2, (13, 13)));
        assert_eq!(rows.len(), expected.len() * 2 + 1);

        // The firewall gives in: what was refused leaves once, and once is what is counted.
        run("iptables", &["-w", "-F", "OUTPUT"]);
        let refused = kept.iter().position(|pair| pair.server.local_addr().unwrap().port() == port_of(&expected));
        let refused = &kept[refused.unwrap()];
        (&refused.server).read_exact(&mut [0; 1_000]).unwrap();
        let ports = refused.ports();
        let row = until("the acknowledgement", || {
            tracer.reply("").connections.into_iter().find(|row| (row.sport, row.dport) == ports && bytes(row).0 > 100)
        });
        assert_eq!((row.direction, bytes(&row)), (2, (1_100, 0)));
        drop(kept);
        let mut ended = Vec::new();
        until("its end", || {
            ended.extend(agent.fetch(&tracer).connections.into_iter().filter(|row| row.close_epoch.is_some()));
            ended.iter().any(|row| (row.sport, row.dport) == ports).then_some(())
        });
        let row = ended.iter().find(|row| (row.sport, row.dport) == ports).unwrap();
        assert_eq!((row.direction, bytes(row)), (2, (1_100, 0)));
    });
}

fn port_of(expected: &[Expected]) -> u16 {
    expected.iter().find(|one| one.what.starts_with("refused")).unwrap().server.0
}

fn stream_socket() -> OwnedFd {
    socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

fn listener_without_backlog() -> (TcpListener, SocketAddr) {
    let fd = stream_socket();
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).unwrap();
    listen(&fd, Backlog::new(0).unwrap()).unwrap();
    let listener = TcpListener::from(fd);
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn alone() -> TcpStream {
    let fd = stream_socket();
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).unwrap();
    let stream = TcpStream::from(fd);
    connect(stream.as_raw_fd(), &SockaddrStorage::from(stream.local_addr().unwrap())).unwrap();
    stream
}
