//! A tracer may be killed at any time: nothing is missing, nothing comes twice. And nothing stays behind for long.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{Agent, Tracer, bytes, can_trace, is_alive, pause, until};

#[test]
fn ten_kills_under_traffic_lose_no_byte_and_double_none() {
    if !can_trace("ten_kills_under_traffic_lose_no_byte_and_double_none") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut tracer = Tracer::start_in(folder.path(), &[]);
    let mut agent = Agent::new(&tracer);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let udp = (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), std::net::UdpSocket::bind("127.0.0.1:0").unwrap());

    // One connection lives through it all.
    let mut long = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut long_end, _) = listener.accept().unwrap();
    let long_port = long.local_addr().unwrap().port();
    let mut long_bytes = 0;
    let mut datagrams = 0;

    let stop = AtomicBool::new(false);
    let mut ended = HashMap::new();
    let mut lived = HashMap::<_, (u64, u64)>::new();
    let (made, sent) = std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                if all == b"stop" {
                    return;
                }
                stream.write_all(&[0; 7]).unwrap();
            }
        });
        let client = scope.spawn(|| {
            let (mut made, mut sent) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                let size = [1, 10, 1_000, 50_000][made % 4];
                let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                stream.write_all(&vec![0; size]).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                stream.read_to_end(&mut Vec::new()).unwrap();
                made += 1;
                sent += size as u64;
                // About a thousand a second, so that a slow machine has no more to do than a fast one.
                pause(Duration::from_millis(1));
            }
            (made, sent)
        });
        for round in 0_u64..10 {
            long.write_all(&vec![0; 1_000]).unwrap();
            long_end.read_exact(&mut vec![0; 1_000]).unwrap();
            long_bytes += 1_000;
            udp.0.send_to(&[0; 100], udp.1.local_addr().unwrap()).unwrap();
            datagrams += 1;
            for row in agent.fetch(&tracer).connections.iter().filter(|row| row.kind == 0 && row.dport == port) {
                let key = (row.cookie.unwrap(), row.generation.unwrap());
                if row.close_epoch.is_some() {
                    assert!(ended.insert(key, bytes(row)).is_none(), "a row came twice: {row:?}");
                } else {
                    let before = lived.insert(key, bytes(row)).unwrap_or_default();
                    assert!(bytes(row).0 >= before.0 && bytes(row).1 >= before.1, "a total fell");
                }
            }
            // Anywhere between two drains.
            pause(Duration::from_millis(20 + round * 13));
            tracer.kill();
            pause(Duration::from_millis(round * 11));
            tracer = Tracer::start_in(folder.path(), &[]);
        }
        stop.store(true, Ordering::Relaxed);
        let totals = client.join().unwrap();
        TcpStream::connect(("127.0.0.1", port)).unwrap().write_all(b"stop").unwrap();
        server.join().unwrap();
        totals
    });

    let mut stopper = 0;
    until("every ended row", || {
        for row in agent.fetch(&tracer).connections.iter().filter(|row| row.kind == 0 && row.dport == port) {
            let key = (row.cookie.unwrap(), row.generation.unwrap());
            if row.close_epoch.is_some() {
                stopper += usize::from(bytes(row).0 == 4);
                assert!(ended.insert(key, bytes(row)).is_none(), "a row came twice: {row:?}");
            }
        }
        (stopper == 1).then_some(())
    });
    assert_eq!(ended.len(), made + 1);
    assert_eq!(ended.values().map(|bytes| bytes.0).sum::<u64>(), sent + 4);
    assert_eq!(ended.values().map(|bytes| bytes.1).sum::<u64>(), made as u64 * 7);

    let reply = agent.fetch(&tracer);
    let long_row = reply.connections.iter().find(|row| row.sport == long_port).unwrap();
    assert_eq!(bytes(long_row), (long_bytes, 0));
    assert_eq!(
        long_row.direction_certainty.as_deref(),
        Some("known"),
        "what was seen before the kills is not forgotten"
    );
    let flow = reply.connections.iter().find(|row| row.kind == 1 && row.sport == udp.0.local_addr().unwrap().port());
    assert_eq!(flow.map(bytes), Some((datagrams * 100, 0)), "UDP counted on while no tracer was there");
    assert_eq!(tracer.status().takeovers, 10);
    assert_eq!(support::lost_bytes(&reply), []);
    tracer.stop();
}

#[test]
fn rows_that_were_not_acknowledged_come_again_after_a_kill() {
    if !can_trace("rows_that_were_not_acknowledged_come_again_after_a_kill") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut tracer = Tracer::start_in(folder.path(), &["--no-udp"]);
    let agent = Agent::new(&tracer);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    TcpStream::connect(("127.0.0.1", port)).unwrap().write_all(&[0; 9]).unwrap();
    listener.accept().unwrap().0.read_to_end(&mut Vec::new()).unwrap();
    for _ in 0..2 {
        // Not acknowledged: the cursor stays.
        let query = format!("?client_id=agent&ack={}", agent.cursor);
        let row = until("the ended row", || {
            tracer.reply(&query).connections.into_iter().find(|row| row.dport == port && row.close_epoch.is_some())
        });
        assert_eq!(bytes(&row), (9, 0));
        // Somebody who only looks does not consume what the agent has not acknowledged.
        tracer.reply("?client_id=looks");
        tracer.reply("?client_id=looks");
        tracer.kill();
        tracer = Tracer::start_in(folder.path(), &["--no-udp"]);
        tracer.reply("?client_id=looks");
        tracer.reply("?client_id=looks");
    }
    tracer.stop();
}

#[test]
fn a_killed_keeper_is_replaced_and_the_run_goes_on() {
    if !can_trace("a_killed_keeper_is_replaced_and_the_run_goes_on") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut tracer = Tracer::start_in(folder.path(), &["--no-udp"]);
    let run_id = tracer.status().run_id;
    let first = tracer.keeper().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    until("another keeper", || (tracer.status().gauges["keeper_restarts"] == 1).then_some(()));
    tracer.kill();
    tracer = Tracer::start_in(folder.path(), &["--no-udp"]);
    assert_eq!((tracer.status().run_id, tracer.status().takeovers), (run_id, 1));
    tracer.stop();
}

#[test]
fn when_both_die_the_next_run_says_so() {
    if !can_trace("when_both_die_the_next_run_says_so") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut tracer = Tracer::start_in(folder.path(), &["--no-udp"]);
    let before = tracer.reply("?client_id=agent");
    let keeper = tracer.keeper().unwrap();
    // Stopped first, so that it cannot start another keeper.
    tracer.signal(nix::sys::signal::Signal::SIGSTOP);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(keeper as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    tracer.kill();
    tracer = Tracer::start_in(folder.path(), &["--no-udp"]);
    let after = tracer.reply("?client_id=agent");
    assert_ne!(before.run_id, after.run_id);
    assert!(before.cursor < after.cursor, "a cursor is never used twice within a boot");
    tracer.stop();
}

#[test]
fn another_set_of_probes_begins_another_run() {
    if !can_trace("another_set_of_probes_begins_another_run") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut tracer = Tracer::start_in(folder.path(), &["--no-udp"]);
    let run_id = tracer.status().run_id;
    let keeper = tracer.keeper().unwrap();
    tracer.kill();
    tracer = Tracer::start_in(folder.path(), &[]);
    assert_ne!(tracer.status().run_id, run_id);
    assert!(!is_alive(keeper));
    tracer.stop();
}

#[test]
fn a_keeper_without_a_tracer_goes_after_its_grace() {
    if !can_trace("a_keeper_without_a_tracer_goes_after_its_grace") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut tracer = Tracer::start_in(folder.path(), &["--no-udp", "--keeper-grace", "300ms"]);
    let keeper = tracer.keeper().unwrap();
    tracer.kill();
    until("the keeper to go", || (!is_alive(keeper)).then_some(()));
}

#[test]
fn whoever_waits_for_the_end_of_the_tracers_output_does_not_wait_for_the_keeper() {
    if !can_trace("whoever_waits_for_the_end_of_the_tracers_output_does_not_wait_for_the_keeper") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = Tracer::command(folder.path(), &["--no-udp", "--keeper-grace", "8s"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    until("the keeper", || folder.path().join("tracer-state/keeper.sock").exists().then_some(()));
    let clock = weir_daemon::clock::SystemClock::new();
    let begin = weir_daemon::clock::Clock::monotonic(&clock).0;
    child.kill().unwrap();
    child.wait_with_output().unwrap();
    assert!(weir_daemon::clock::Clock::monotonic(&clock).0 - begin < 4_000_000_000);
}
