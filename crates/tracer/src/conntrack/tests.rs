//! What an entry says of a connection, and what it does not.

use super::asker::Answer;
use super::judge::{CLOSE, ESTABLISHED, TIME_WAIT};
use super::*;
use crate::probes::layout::TCP;
use crate::probes::layout::UDP;
use nix::libc;
use std::net::{IpAddr, SocketAddr};
use weir_daemon::clock::SystemClock;

const WALL: i64 = 1_700_000_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

fn end(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn row(local: &str, remote: &str, state: u8) -> Row {
    let put = |address: SocketAddr| {
        let mut bytes = [0; 16];
        match address.ip() {
            IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => bytes.copy_from_slice(&v6.octets()),
        }
        bytes
    };
    let (local, remote) = (end(local), end(remote));
    Row {
        cookie: 1,
        at_ns: 100 * SECOND,
        local: put(local),
        remote: put(remote),
        local_port: local.port(),
        remote_port: remote.port(),
        family: if local.is_ipv4() { 2 } else { 10 },
        protocol: TCP,
        direction: 2,
        state,
        ..Row::default()
    }
}

const CLIENT: &str = "10.244.1.7:40000";
const SERVICE: &str = "10.96.0.9:80";
const BACKEND: &str = "10.244.2.8:8080";

fn entry(tcp_state: u8) -> Entry {
    Entry {
        protocol: TCP,
        original: Ends { source: end(CLIENT), dest: end(SERVICE) },
        reply: Ends { source: end(BACKEND), dest: end(CLIENT) },
        status: 0x1a8,
        tcp_state: Some(tcp_state),
        started_unix_ns: None,
    }
}

fn said(row: &Row, life: Life, entry: Entry) -> Verdict {
    judge(row, life, &Answer::Found(entry), WALL)
}

const OPEN: u8 = 1;
const FIN_WAIT2: u8 = 5;
const LAST_ACK: u8 = 9;

#[test]
fn both_ends_learn_both_tuples() {
    let translation =
        Translation { original: entry(ESTABLISHED).original, reply: Ends { source: end(BACKEND), dest: end(CLIENT) } };
    for row in [row(CLIENT, SERVICE, OPEN), row(BACKEND, CLIENT, OPEN)] {
        assert_eq!(said(&row, Life::Open, entry(ESTABLISHED)), Verdict::Translated(translation));
    }
}

#[test]
fn a_tracked_connection_that_is_not_translated_is_plain() {
    let mut plain = entry(ESTABLISHED);
    plain.original = plain.reply.reversed();
    assert_eq!(said(&row(CLIENT, BACKEND, OPEN), Life::Open, plain), Verdict::Plain);
}

#[test]
fn an_entry_of_another_tuple_or_protocol_says_nothing() {
    assert_eq!(said(&row(CLIENT, "10.96.0.9:81", OPEN), Life::Open, entry(ESTABLISHED)), Verdict::Failed);
    let datagrams = Row { protocol: UDP, ..row(CLIENT, SERVICE, OPEN) };
    assert_eq!(said(&datagrams, Life::Open, entry(ESTABLISHED)), Verdict::Failed);
}

#[test]
fn a_tuple_used_again_gets_neither_the_entry_before_nor_the_one_after() {
    // The entry before: the new connection's SYN has not come by.
    assert_eq!(said(&row(CLIENT, SERVICE, SYN_SENT), Life::Open, entry(TIME_WAIT)), Verdict::Other);
    assert!(matches!(said(&row(CLIENT, SERVICE, SYN_SENT), Life::Open, entry(1)), Verdict::Translated(_)));
    // The entry after: this connection has ended, the entry lives.
    for state in [1, 2, ESTABLISHED] {
        assert_eq!(said(&row(CLIENT, SERVICE, FIN_WAIT2), Life::Ended, entry(state)), Verdict::Other);
    }
    for state in [4, 5, 6, TIME_WAIT, CLOSE] {
        assert!(matches!(said(&row(CLIENT, SERVICE, LAST_ACK), Life::Ended, entry(state)), Verdict::Translated(_)));
    }
}

#[test]
fn a_connection_that_ended_without_a_packet_may_leave_a_living_entry() {
    let mut lost = row(CLIENT, SERVICE, OPEN);
    assert_eq!(said(&lost, Life::Ended, entry(ESTABLISHED)), Verdict::Other);
    lost.error = libc::ETIMEDOUT as u16;
    assert!(matches!(said(&lost, Life::Ended, entry(ESTABLISHED)), Verdict::Translated(_)));
    assert!(matches!(said(&row(CLIENT, SERVICE, SYN_SENT), Life::Ended, entry(1)), Verdict::Translated(_)));
}

#[test]
fn an_entry_that_began_after_the_end_is_another_connections() {
    let ended = row(CLIENT, SERVICE, LAST_ACK);
    let began = |at: u64| Entry { started_unix_ns: Some(WALL as u64 + at), ..entry(TIME_WAIT) };
    assert!(matches!(said(&ended, Life::Ended, began(99 * SECOND)), Verdict::Translated(_)));
    assert_eq!(said(&ended, Life::Ended, began(101 * SECOND)), Verdict::Other);
}

#[test]
fn a_translation_survives_the_journal() {
    for (client, backend) in [(CLIENT, BACKEND), ("[fd00::7]:40000", "[fd00::8]:8080")] {
        let translation = Translation {
            original: Ends { source: end(client), dest: end(SERVICE) },
            reply: Ends { source: end(backend), dest: end(client) },
        };
        assert_eq!(Translation::from_bytes(&translation.to_bytes()), Some(translation));
    }
    assert_eq!(Translation::from_bytes(&[0; 71]), None);
}

fn conntrack() -> Conntrack {
    let mut conntrack = Conntrack::new(Switch::On, Arc::new(SystemClock::new()));
    conntrack.own_netns = 1;
    conntrack
}

#[test]
fn only_what_can_be_translated_is_asked_for() {
    let mut conntrack = conntrack();
    let now = 100 * SECOND;
    let client = row(CLIENT, SERVICE, OPEN);
    assert!(conntrack.is_possible(&client, now));
    assert!(!conntrack.is_possible(&Row { flags: OTHER_PEER, ..client }, now));
    assert!(!conntrack.is_possible(&row("0.0.0.0:5", SERVICE, OPEN), now));
    // Another namespace's loopback is not the node's.
    let mut loopback = row("127.0.0.1:5", "127.0.0.1:30080", OPEN);
    assert!(!conntrack.is_possible(&loopback, now));
    loopback.origin.netns = 1;
    assert!(conntrack.is_possible(&loopback, now));

    conntrack.note_plain(&client, Life::Open, now);
    assert!(!conntrack.is_possible(&client, now + PLAIN_NS - 1));
    assert!(conntrack.is_possible(&client, now + PLAIN_NS), "rules change");
    assert!(conntrack.is_possible(&row(CLIENT, "10.96.0.9:81", OPEN), now), "a rule is about a port");
    let mut elsewhere = client;
    elsewhere.origin.netns = 2;
    assert!(conntrack.is_possible(&elsewhere, now), "a rule may be about who asks");
    let accepted = Row { direction: 1, ..row(BACKEND, "10.244.2.1:5", OPEN) };
    conntrack.note_plain(&accepted, Life::Open, now);
    assert!(conntrack.is_possible(&accepted, now), "what comes in may come by any rule");
}

#[test]
fn a_connection_that_did_not_open_says_nothing_of_its_destination() {
    let mut conntrack = conntrack();
    let now = 100 * SECOND;
    let waiting = row(CLIENT, SERVICE, SYN_SENT);
    conntrack.note_plain(&waiting, Life::Open, now);
    conntrack.note_plain(&Row { error: libc::ECONNREFUSED as u16, ..waiting }, Life::Ended, now);
    assert!(conntrack.is_possible(&waiting, now));
}

#[test]
fn untranslated_destinations_are_bounded() {
    let mut conntrack = conntrack();
    for port in 0..=PLAIN_MAX as u16 {
        conntrack.note_plain(&Row { remote_port: port, ..row(CLIENT, SERVICE, OPEN) }, Life::Open, 100 * SECOND);
    }
    assert!(conntrack.plain.len() <= PLAIN_MAX);
}

#[test]
fn of_connections_that_ended_with_one_tuple_only_the_last_is_asked_for() {
    let first = row(CLIENT, SERVICE, LAST_ACK);
    let mut elsewhere = first;
    elsewhere.origin.netns = 9;
    let rows = [first, elsewhere, row(CLIENT, BACKEND, LAST_ACK), Row { cookie: 2, ..first }];
    let mut wanted = vec![0, 1, 2, 3];
    leave_last_of_each_tuple(&mut wanted, &rows);
    assert_eq!(wanted, [1, 2, 3]);
}

#[test]
fn what_was_asked_while_it_lived_is_known_at_its_end() {
    let mut conntrack = conntrack();
    conntrack.count_file = "/nonexistent".into();
    let known = Translation { original: entry(7).original, reply: entry(7).reply };
    let ended = row(CLIENT, SERVICE, LAST_ACK);
    let asked = |asked_ns| Known { round: 0, asked_ns, asked: Asked::Translated(Arc::new(known)) };
    conntrack.asked.insert(Key::of(&ended), asked(ended.at_ns - 1));
    assert_eq!(conntrack.of_ended(&[ended, Row { cookie: 2, ..ended }]), [Some((known, None)), None]);
    assert_eq!(conntrack.of_ended(&[ended]), [None], "it is forgotten with its end");
    conntrack.asked.insert(Key::of(&ended), asked(ended.at_ns + 1));
    let late = Some((known, Some(ended.at_ns + 1)));
    assert_eq!(conntrack.of_ended(&[ended]), [late], "asked for as it had ended already");
}

#[test]
fn without_the_kernels_file_nothing_is_tracked_and_nothing_asked() {
    let mut conntrack = conntrack();
    conntrack.count_file = "/nonexistent".into();
    conntrack.ask_living(&[row(CLIENT, SERVICE, OPEN)]);
    assert_eq!((conntrack.state(), conntrack.probe().state.as_str()), (&State::Unused, "running"));
    assert_eq!(conntrack.of(&row(CLIENT, SERVICE, OPEN)), None);
    let off = Conntrack::new(Switch::Off, Arc::new(SystemClock::new()));
    assert_eq!((off.probe().state.as_str(), off.probe().reason.as_deref()), ("disabled", Some("--no-conntrack")));
}
