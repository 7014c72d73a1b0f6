//! Recorded on Linux 6.18: a pod at 10.244.1.7:40000 asks for a Service at 10.96.0.9:80, the node sends it to
//! 10.244.2.8:8080 in the name of 10.244.2.1.

use super::*;
use proptest::prelude::*;

const EVENT: &str = "c4000000000100060000000000000000020000003400018014000180080001000af40107080002000a6000091c0002800500010006000000060002009c40000006000300005000003400028014000180080001000af40208080002000af402011c0002800500010006000000060002001f900000060003009c40000008000c004ba0bb6508000300000001b80800070000000078300004802c0001800500010001000000050002000a000000050003000000000006000400030000000600050000000000";
const ANSWER: &str = "d4000000000102000700000002200000020000003400018014000180080001000af40107080002000a6000091c0002800500010006000000060002009c40000006000300005000003400028014000180080001000af40208080002000af402011c0002800500010006000000060002001f900000060003009c40000008000300000001be080008000000000008000c004ba0bb6508000b00000000020800070000000077300004802c0001800500010007000000050002000a000000050003000a00000006000400230000000600050027000000";
const MISSING: &str = "5c000000020000000700000002200000feffffff48000000010101000700000000000000020000003400018014000180080001000af40107080002000a6000091c0002800500010006000000060002009c4100000600030000500000";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn ends(source: &str, dest: &str) -> Ends {
    Ends { source: source.parse().unwrap(), dest: dest.parse().unwrap() }
}

fn only(hex: &str) -> Message {
    let bytes = bytes(hex);
    let mut rest = &bytes[..];
    let message = next(&mut rest).unwrap();
    assert_eq!((rest.len(), next(&mut rest)), (0, None));
    message
}

#[test]
fn an_answer_an_event_and_a_missing_entry_are_read() {
    let entry = |status, tcp_state| Entry {
        protocol: 6,
        original: ends("10.244.1.7:40000", "10.96.0.9:80"),
        reply: ends("10.244.2.8:8080", "10.244.2.1:40000"),
        status,
        tcp_state: Some(tcp_state),
        started_unix_ns: None,
    };
    assert_eq!(only(ANSWER), Message::Entry { sequence: 7, entry: entry(0x1be, 7) });
    assert_eq!(only(EVENT), Message::Entry { sequence: 0, entry: entry(0x1b8, 1) });
    assert_eq!(only(MISSING), Message::Failed { sequence: 7, errno: libc::ENOENT });
}

/// The error repeats the request, so the recording has it: written here, it is the same.
#[test]
fn a_question_is_the_one_that_was_recorded() {
    let mut asked = Vec::new();
    ask(&mut asked, 7, 6, ends("10.244.1.7:40001", "10.96.0.9:80"));
    assert_eq!(asked, bytes(MISSING)[20..]);
}

#[test]
fn a_question_about_ipv6_is_read_as_what_it_asks() {
    let wanted = ends("[fd00::1]:5", "[fd00::2]:53");
    let mut asked = Vec::new();
    ask(&mut asked, 1, 17, wanted);
    assert_eq!(asked[16], libc::AF_INET6 as u8);
    let original = find(&asked[ATTRIBUTES_AT..], TUPLE_ORIGINAL).unwrap();
    assert_eq!(tuple(original), Some((wanted, 17)));
}

#[test]
fn several_messages_follow_each_other() {
    let both = [bytes(ANSWER), bytes(MISSING)].concat();
    let mut rest = &both[..];
    assert!(matches!(next(&mut rest), Some(Message::Entry { .. })));
    assert!(matches!(next(&mut rest), Some(Message::Failed { .. })));
    assert_eq!(next(&mut rest), None);
}

#[test]
fn a_start_is_read_where_the_kernel_keeps_it() {
    let plain = bytes(ANSWER);
    let mut inner = Vec::new();
    nested(&mut inner, TIMESTAMP, |into| {
        attribute(into, TIMESTAMP_START, &1_700_000_000_000_000_001_u64.to_be_bytes());
    });
    let mut with = [plain, inner].concat();
    finish(&mut with, 0);
    let Some(Message::Entry { entry, .. }) = next(&mut &with[..]) else { panic!() };
    assert_eq!(entry.started_unix_ns, Some(1_700_000_000_000_000_001));
}

proptest! {
    #[test]
    fn damaged_bytes_end_the_reading_and_nothing_else(
        noise in proptest::collection::vec(any::<u8>(), 0..300), at in 0_usize..200, byte in any::<u8>(), cut in 0_usize..220,
    ) {
        let mut damaged = bytes(ANSWER);
        damaged[at] = byte;
        damaged.truncate(cut);
        for bytes in [&noise[..], &damaged[..]] {
            let mut rest = bytes;
            while next(&mut rest).is_some() {}
        }
    }
}
