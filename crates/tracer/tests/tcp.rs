//! TCP byte counts are exact, live and ended, each direction, however a connection opens and ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use nix::sys::socket::{setsockopt, sockopt};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use support::tcp::{Pair, ended, listener, transfer};
use support::{Agent, Tracer, bytes, can_trace, rows_of, until};

#[test]
fn every_byte_is_counted_once_in_each_direction() {
    if !can_trace("every_byte_is_counted_once_in_each_direction") {
        return;
    }
    let tracer = Tracer::start(&[]);
    let mut agent = Agent::new(&tracer);
    let listener = listener();
    for (there, back) in [(1, 0), (65_536, 1), (100 << 20, 65_536)] {
        let pair = Pair::new(&listener);
        let ports = pair.ports();
        transfer(&pair.client, &pair.server, there);
        transfer(&pair.server, &pair.client, back);
        let expected = (there as u64, back as u64);
        let live = tracer.reply("");
        let (client, server) = (rows_of(&live, ports.0, ports.1)[0], rows_of(&live, ports.1, ports.0)[0]);
        assert_eq!((bytes(client), bytes(server)), (expected, (expected.1, expected.0)));
        assert_eq!((client.direction, server.direction), (2, 1));
        assert_eq!(client.state.as_deref(), Some("established"));
        assert_eq!(client.pid, std::process::id());
        assert_eq!(client.direction_certainty.as_deref(), Some("known"));
        assert!(client.start_epoch.is_some() && client.connect_latency_us.is_some() && client.rtt_us.is_some());
        drop(pair);
        let (client, server) = ended(&tracer, &mut agent, ports);
        assert_eq!((bytes(&client), bytes(&server)), (expected, (expected.1, expected.0)));
        for row in [&client, &server] {
            assert_eq!(row.close_reason.as_deref(), Some("closed"));
            assert_eq!((row.pid, row.state.as_deref()), (std::process::id(), Some("closed")));
            assert!(row.close_epoch >= row.start_epoch);
        }
    }
    assert_eq!(support::lost_bytes(&agent.fetch(&tracer)), []);
}

#[test]
fn a_fin_is_no_byte_while_the_other_half_goes_on() {
    if !can_trace("a_fin_is_no_byte_while_the_other_half_goes_on") {
        return;
    }
    let tracer = Tracer::start(&["--no-udp"]);
    let mut agent = Agent::new(&tracer);
    let listener = listener();
    let pair = Pair::new(&listener);
    let (client, server) = pair.ports();
    transfer(&pair.client, &pair.server, 1_000);
    pair.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!((&pair.server).read(&mut [0; 8]).unwrap(), 0);
    transfer(&pair.server, &pair.client, 777);
    let reply = tracer.reply("");
    let row = |local, remote| rows_of(&reply, local, remote)[0].clone();
    assert_eq!(bytes(&row(client, server)), (1_000, 777));
    assert_eq!(bytes(&row(server, client)), (777, 1_000));
    assert_eq!(row(client, server).state.as_deref(), Some("fin_wait2"));
    assert_eq!(row(server, client).state.as_deref(), Some("close_wait"));
    drop(pair);
    let (client, server) = ended(&tracer, &mut agent, (client, server));
    assert_eq!((bytes(&client), bytes(&server)), ((1_000, 777), (777, 1_000)));
}

#[test]
fn resets_refusals_and_reuse_say_what_they_were() {
    if !can_trace("resets_refusals_and_reuse_say_what_they_were") {
        return;
    }
    let tracer = Tracer::start(&["--no-udp"]);
    let mut agent = Agent::new(&tracer);
    let listener = listener();
    let address = listener.local_addr().unwrap();

    let pair = Pair::new(&listener);
    let ports = pair.ports();
    transfer(&pair.client, &pair.server, 55);
    setsockopt(&pair.client, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(pair.client);
    let (client, server) = ended(&tracer, &mut agent, ports);
    assert_eq!((bytes(&client), bytes(&server)), ((55, 0), (0, 55)));
    assert_eq!(client.close_reason.as_deref(), Some("aborted"));
    assert_eq!((server.close_reason.as_deref(), server.errno), (Some("reset"), Some(104)));

    let closed_port = {
        let closed = self::listener();
        closed.local_addr().unwrap()
    };
    TcpStream::connect(closed_port).unwrap_err();
    let refused = until("the refused connect", || {
        agent.fetch(&tracer).connections.into_iter().find(|row| row.dport == closed_port.port())
    });
    assert_eq!((refused.close_reason.as_deref(), refused.errno), (Some("refused"), Some(111)));
    assert_eq!((refused.direction, refused.pid), (2, std::process::id()));
    assert_ne!(refused.sport, 0);

    // One socket, three connections: the cookie stays, the generation tells them apart.
    let pair = Pair::new(&listener);
    let mut cookie = None;
    for generation in 0..3 {
        if generation > 0 {
            reconnect(&pair.client, address);
        }
        let server = if generation > 0 { listener.accept().unwrap().0 } else { pair.server.try_clone().unwrap() };
        let count = 100 + generation as usize;
        transfer(&pair.client, &server, count);
        let port = pair.client.local_addr().unwrap().port();
        disconnect(&pair.client);
        let (client, server) = ended(&tracer, &mut agent, (port, address.port()));
        assert_eq!((bytes(&client), bytes(&server)), ((count as u64, 0), (0, count as u64)));
        assert_eq!(client.generation, Some(generation));
        assert_eq!(client.close_reason.as_deref(), Some("disconnected"));
        assert_eq!(*cookie.get_or_insert(client.cookie), client.cookie);
    }
}

#[expect(unsafe_code, reason = "connect(2) to AF_UNSPEC has no safe wrapper")]
fn disconnect(stream: &TcpStream) {
    let address = nix::libc::sockaddr { sa_family: nix::libc::AF_UNSPEC as u16, sa_data: [0; 14] };
    // SAFETY: a valid address of its own size.
    let outcome = unsafe { nix::libc::connect(stream.as_raw_fd(), &raw const address, size_of_val(&address) as u32) };
    assert_eq!(outcome, 0);
}

fn reconnect(stream: &TcpStream, address: SocketAddr) {
    let address = nix::sys::socket::SockaddrStorage::from(address);
    nix::sys::socket::connect(stream.as_raw_fd(), &address).unwrap();
}

#[test]
fn ipv6_is_told_apart_and_mapped_ipv4_is_ipv4() {
    if !can_trace("ipv6_is_told_apart_and_mapped_ipv4_is_ipv4") {
        return;
    }
    let tracer = Tracer::start(&["--no-udp"]);
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
    }
}

#[test]
fn a_thousand_short_connections_in_a_second_are_all_there() {
    if !can_trace("a_thousand_short_connections_in_a_second_are_all_there") {
        return;
    }
    let tracer = Tracer::start(&["--no-udp"]);
    let mut agent = Agent::new(&tracer);
    let listener = listener();
    let port = listener.local_addr().unwrap().port();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..1_000 {
                let (mut server, _) = listener.accept().unwrap();
                let mut request = [0; 17];
                server.read_exact(&mut request).unwrap();
                server.write_all(&[0; 34]).unwrap();
            }
        });
        for _ in 0..1_000 {
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            client.write_all(&[0; 17]).unwrap();
            client.read_to_end(&mut Vec::new()).unwrap();
        }
    });
    let mut ended = Vec::new();
    until("all of them", || {
        ended.extend(
            agent
                .fetch(&tracer)
                .connections
                .into_iter()
                .filter(|row| row.close_epoch.is_some() && (row.dport == port || row.sport == port)),
        );
        (ended.len() >= 2_000).then_some(())
    });
    for row in &ended {
        let expected = if row.dport == port { (17, 34, 2) } else { (34, 17, 1) };
        assert_eq!((row.monotonic_sent_bytes.unwrap(), row.monotonic_recv_bytes.unwrap(), row.direction), expected);
    }
    let mut cookies: Vec<_> = ended.iter().map(|row| row.cookie).collect();
    cookies.sort_unstable();
    cookies.dedup();
    assert_eq!((ended.len(), cookies.len()), (2_000, 2_000));
}

#[test]
fn a_connection_older_than_the_tracer_has_its_lifetime_totals_and_its_direction() {
    if !can_trace("a_connection_older_than_the_tracer_has_its_lifetime_totals_and_its_direction") {
        return;
    }
    let listener = listener();
    let pair = Pair::new(&listener);
    let ports = pair.ports();
    transfer(&pair.client, &pair.server, 4_321);
    transfer(&pair.server, &pair.client, 99);
    let tracer = Tracer::start(&["--no-udp"]);
    let mut agent = Agent::new(&tracer);
    let reply = tracer.reply("");
    let (client, server) = (rows_of(&reply, ports.0, ports.1)[0], rows_of(&reply, ports.1, ports.0)[0]);
    assert_eq!((bytes(client), bytes(server)), ((4_321, 99), (99, 4_321)));
    assert_eq!((client.direction, server.direction), (2, 1));
    for row in [client, server] {
        assert_eq!((row.pid, row.start_epoch), (std::process::id(), None));
        assert_eq!(row.direction_certainty.as_deref(), Some("inferred"));
    }
    // A child of the old listener has an owner too.
    let young = Pair::new(&listener);
    let ports = young.ports();
    transfer(&young.client, &young.server, 5);
    drop(young);
    let (_, server) = ended(&tracer, &mut agent, ports);
    assert_eq!((server.pid, server.direction, bytes(&server)), (std::process::id(), 1, (0, 5)));
    transfer(&pair.client, &pair.server, 1);
    let ports = pair.ports();
    drop(pair);
    let (client, server) = ended(&tracer, &mut agent, ports);
    assert_eq!((bytes(&client), bytes(&server)), ((4_322, 99), (99, 4_322)));
}

#[test]
fn a_total_never_falls_and_never_exceeds_the_last_one() {
    if !can_trace("a_total_never_falls_and_never_exceeds_the_last_one") {
        return;
    }
    let tracer = Tracer::start(&["--no-udp"]);
    let mut agent = Agent::new(&tracer);
    let listener = listener();
    let port = listener.local_addr().unwrap().port();
    let mut told: std::collections::HashMap<_, (u64, u64)> = std::collections::HashMap::new();
    let mut ended = 0;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..150 {
                    let pair = Pair::new(&listener);
                    transfer(&pair.client, &pair.server, 300_000);
                    pair.client.shutdown(Shutdown::Write).unwrap();
                    transfer(&pair.server, &pair.client, 3_000);
                }
            });
        }
        // Two threads accept from one listener, so an accepted end need not be its thread's own; both ends are looked
        // at all the same. 600 ends in all.
        while ended < 600 {
            let reply = agent.fetch(&tracer);
            for row in reply.connections.iter().filter(|row| row.sport == port || row.dport == port) {
                let key = (row.cookie, row.generation);
                let now = bytes(row);
                let before = told.insert(key, now).unwrap_or_default();
                assert!(now.0 >= before.0 && now.1 >= before.1, "{before:?} then {now:?}");
                let most = if row.dport == port { (300_000, 3_000) } else { (3_000, 300_000) };
                assert!(now.0 <= most.0 && now.1 <= most.1, "{now:?} is more than {most:?}");
                if row.close_epoch.is_some() {
                    ended += 1;
                }
            }
        }
    });
}

#[test]
fn each_program_says_what_it_cost_when_asked() {
    if !can_trace("each_program_says_what_it_cost_when_asked") {
        return;
    }
    let tracer = Tracer::start(&["--probe-costs"]);
    let listener = listener();
    for _ in 0..10 {
        drop(Pair::new(&listener));
    }
    let status = tracer.status();
    assert_eq!(status.probe_costs_refused, None);
    let tcp = status.probes.iter().find(|probe| probe.name == "tcp").unwrap();
    let state = tcp.programs.iter().find(|program| program.name == "weir_tcp_state").unwrap();
    assert!(state.runs >= 60 && state.nanoseconds > 0, "{state:?}");
    assert_eq!(tcp.runs, Some(tcp.programs.iter().map(|program| program.runs).sum()));
}
