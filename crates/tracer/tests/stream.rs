//! A reply is streamed: whole and exact with many connections, and nobody who stops reading costs the others anything.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use support::cgroup::Cgroup;
use support::player::Player;
use support::{Tracer, bytes, can_trace};

#[test]
fn player() {
    support::player::play_if_asked();
}

/// As many as one process may have open where the limit is 20,000; a reply of both ends is about 12 MB.
const CONNECTIONS: u16 = 9_000;

/// Resident now, and the most so far, in bytes.
fn memory(tracer: &Tracer) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", tracer.pid())).unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
    };
    (of("VmRSS:"), of("VmHWM:"))
}

#[test]
fn eighteen_thousand_ends_are_told_whole_and_exact_also_beside_a_reader_that_stopped() {
    if !can_trace("eighteen_thousand_ends_are_told_whole_and_exact_also_beside_a_reader_that_stopped")
        || !support::cgroup::exists()
    {
        return;
    }
    let cgroup = Cgroup::new("stream");
    let tracer = Tracer::start(&["--cgroup", cgroup.folder().to_str().unwrap()]);
    let mut player = Player::start(Some(cgroup.folder()));
    player.tell("netns");
    let port = player.tell("listen");
    player.tell(&format!("hold {CONNECTIONS}"));

    let check = |query: &str| {
        let reply = tracer.reply(query);
        assert_eq!((reply.complete, reply.connections.len()), (Some(true), 2 * usize::from(CONNECTIONS)));
        let (clients, servers): (Vec<_>, Vec<_>) = reply.connections.iter().partition(|row| row.dport == port);
        assert!(servers.iter().all(|row| row.sport == port && row.direction == 1));
        let received: HashMap<u16, u64> = servers.iter().map(|row| (row.dport, bytes(row).1)).collect();
        let cookies: HashSet<_> = reply.connections.iter().map(|row| row.cookie).collect();
        assert_eq!((clients.len(), received.len(), cookies.len()), (servers.len(), clients.len(), 2 * clients.len()));
        assert!(clients.iter().all(|row| row.direction == 2 && received[&row.sport] == bytes(row).0));
        let sent: u64 = clients.iter().map(|row| bytes(row).0).sum();
        assert_eq!(sent, (0..u64::from(CONNECTIONS)).map(|number| number % 7).sum::<u64>());
        reply
    };
    check("?client_id=lean&last=no");
    let (before, _) = memory(&tracer);

    // One who takes the head of a reply and nothing more, at the same time as ten who take all.
    let mut stopped = UnixStream::connect(tracer.socket()).unwrap();
    stopped.write_all(b"GET /connections?client_id=stopped HTTP/1.1\r\nHost: weir\r\n\r\n").unwrap();
    stopped.read_exact(&mut [0; 64]).unwrap();
    for _ in 0..10 {
        check("?client_id=lean&last=no");
    }
    // Its rows wait for it (170 B each), and one other reply's at a time: no more, however often the others ask.
    let (_, most) = memory(&tracer);
    assert!(most < before + (24 << 20), "{before} bytes grew to {most}");
    drop(stopped);
    // With `last=no` nothing is told since the last fetch; who wants it gets it, exact, too.
    let rows = check("?client_id=exact").connections;
    assert!(rows.iter().all(|row| row.last_sent_bytes == 0 && row.last_recv_bytes == 0));
    player.tell("send 5");
    let rows = check_moved(&tracer);
    assert_eq!(rows, (5, 1));
}

/// What came since the last fetch, and on how many rows something did.
fn check_moved(tracer: &Tracer) -> (u64, usize) {
    let rows = tracer.reply("?client_id=exact").connections;
    let moved = rows.iter().filter(|row| row.last_sent_bytes > 0);
    (moved.clone().map(|row| row.last_sent_bytes).sum(), moved.count())
}
