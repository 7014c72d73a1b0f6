use super::decode::{DecodeError, Decoder, Told};
use super::message::Connection;
use super::rows;
use super::session::Meaning;
use crate::attribute::Stage;
use crate::attribute::stage::Reading;
use proptest::prelude::*;
use weir_model::{Certainty, Direction, Protocol};

const JSON: &[u8] = include_bytes!("../../../tests/data/system-probe/connections.json");
const PROTOBUF: &[u8] = include_bytes!("../../../tests/data/system-probe/connections.pb");

/// Everything in a body that comes in chunks of these sizes, again and again.
fn read(body: &[u8], sizes: &[usize]) -> Result<(Vec<Connection>, Told), DecodeError> {
    let mut decoder = Decoder::new(None, 1 << 20);
    let (mut connections, mut rest, mut turn) = (Vec::new(), body, 0);
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(sizes[turn % sizes.len()].clamp(1, rest.len()));
        decoder.push(chunk, |connection| connections.push(connection.clone()))?;
        (rest, turn) = (after, turn + 1);
    }
    Ok((connections, decoder.finish()?))
}

fn staged(body: &[u8], meaning: Meaning) -> (Stage, u64) {
    let (connections, told) = read(body, &[body.len()]).unwrap();
    let mut stage = Stage::default();
    let refused = connections.iter().filter(|connection| !rows::stage(connection, meaning, 77, &mut stage)).count();
    (stage, told.refused + refused as u64)
}

#[test]
fn both_forms_say_the_same() {
    let (json, told_json) = read(JSON, &[JSON.len()]).unwrap();
    let (protobuf, told_protobuf) = read(PROTOBUF, &[PROTOBUF.len()]).unwrap();
    assert_eq!(json.len(), 8);
    assert_eq!(json, protobuf);
    assert_eq!(told_json.telemetry, told_protobuf.telemetry);
    assert_eq!(told_json.telemetry["closed_conn_dropped"], 4);
    assert_eq!((told_json.refused, told_protobuf.refused), (0, 0));
}

#[test]
fn a_connection_becomes_a_row_with_all_that_names_it() {
    for body in [JSON, PROTOBUF] {
        let (stage, refused) = staged(body, Meaning::Deltas);
        assert_eq!((stage.open.len(), stage.closed.len(), refused), (3, 3, 2));
        let client = &stage.open[0];
        assert_eq!(client.tuple.local.end(), "10.244.0.7:40000".parse().unwrap());
        assert_eq!(client.reading, Reading::Deltas([1 << 40, 7, 2]));
        assert_eq!((client.direction, client.certainty), (Some(Direction::Outgoing), Certainty::Inferred));
        assert_eq!((client.rtt_us, client.begins, client.cookie, client.close), (350, true, 0, 0));
        let end = &stage.ends[client.end as usize];
        assert_eq!((end.pid, end.netns, end.container_id.len()), (101, 4_026_532_201, 64));
        let reply = stage.replies[client.reply as usize - 1];
        assert_eq!((reply.source, reply.dest), ("10.244.0.8:8080".parse().unwrap(), client.tuple.local.end()));
        let server = &stage.closed[0];
        assert_eq!(
            (server.direction, server.close, server.close_reason.as_str()),
            (Some(Direction::Incoming), 77, "closed")
        );
        let udp = &stage.open[1];
        assert_eq!((udp.protocol, udp.direction), (Protocol::Udp, None), "neither its word nor its ports tell");
        assert_eq!(stage.open[2].tuple.remote.end(), "10.0.0.2:443".parse().unwrap(), "mapped IPv4 is IPv4");
    }
}

#[test]
fn a_failed_connect_ends_with_its_errno_and_what_was_merged_into_it_is_told() {
    let (stage, _) = staged(PROTOBUF, Meaning::Deltas);
    let failed = &stage.closed[1];
    assert_eq!((failed.errno, failed.close_reason.as_str(), stage.failures_merged), (111, "refused", 3));
    let untranslated = &stage.closed[2];
    assert_eq!((untranslated.reply, untranslated.errno), (0, 0), "a translation that is none is left out");
}

#[test]
fn what_the_numbers_mean_follows_from_the_session() {
    for (meaning, reading) in [
        (Meaning::Deltas, Reading::Deltas([1 << 40, 7, 2])),
        (Meaning::Restarted, Reading::FirstDeltas([1 << 40, 7, 2])),
        (Meaning::Baseline, Reading::Baseline([1 << 40, 7, 2])),
    ] {
        assert_eq!(staged(JSON, meaning).0.open[0].reading, reading);
    }
}

#[test]
fn an_empty_reply_is_a_reply() {
    assert_eq!(read(b"", &[1]).unwrap().0, []);
    assert_eq!(read(br#"{"conns":[]}"#, &[1]).unwrap().0, []);
    assert_eq!(read(br#" {"conns":null, "tags":[ ]} "#, &[1]).unwrap().0, []);
}

#[test]
fn what_is_not_system_probes_is_an_error_that_says_where() {
    let odd = |body: &[u8]| read(body, &[body.len()]).unwrap_err().to_string();
    assert!(odd(b"{}").contains("no `conns`"));
    assert!(odd(br#"{"connections":[]}"#).contains("no `conns`"));
    assert!(odd(br#"{"conns":[]}x"#).contains("at byte 12"));
    assert!(odd(b"{]").contains("at byte 1"));
    assert!(odd(b"<html>").contains("wire type"), "{}", odd(b"<html>"));
    assert!(odd(&[0xff; 12]).contains("longer than ten bytes"));
    let long = vec![b' '; 2 << 20];
    assert_eq!(read(&long, &[1 << 16]).unwrap_err(), DecodeError::TooLong { limit: 1 << 20 });
}

#[test]
fn a_connection_beyond_the_bound_is_refused_and_skipped_and_the_next_one_is_read() {
    let filler = "x".repeat(super::decode::ROW_MAX);
    let good = r#"{"laddr":{"ip":"10.0.0.1","port":1},"raddr":{"ip":"10.0.0.2","port":2}}"#;
    let json = format!(r#"{{"conns":[{{"httpAggregations":"{filler}"}},{good}]}}"#);
    let mut protobuf = vec![0x0a];
    let mut length = super::decode::ROW_MAX + 1;
    while length > 127 {
        protobuf.push((length & 127) as u8 | 128);
        length >>= 7;
    }
    protobuf.push(length as u8);
    protobuf.extend(std::iter::repeat_n(b'x', super::decode::ROW_MAX + 1));
    protobuf.extend([0x0a, 2, 0x08, 9]);
    for body in [json.as_bytes(), &protobuf] {
        let mut decoder = Decoder::new(None, 8 << 20);
        let mut count = 0;
        for chunk in body.chunks(1000) {
            decoder.push(chunk, |_| count += 1).unwrap();
        }
        assert_eq!((count, decoder.finish().unwrap().refused), (1, 1));
    }
}

proptest! {
    #[test]
    fn however_a_body_is_cut_it_says_the_same(sizes in proptest::collection::vec(1usize..400, 1..20)) {
        for body in [JSON, PROTOBUF] {
            let whole = read(body, &[body.len()]).unwrap();
            prop_assert_eq!(read(body, &sizes).unwrap(), whole);
        }
    }

    #[test]
    fn a_body_that_breaks_off_is_no_whole_reply(cut in 1usize..100_000) {
        for body in [JSON.trim_ascii_end(), PROTOBUF] {
            // Of nothing at all protobuf says that there is nothing.
            let cut = 1 + cut % (body.len() - 1);
            let part = read(&body[..cut], &[cut]);
            // Between two fields protobuf has no end of its own: the length in the reply's head guards that.
            prop_assert!(part.is_err() || body == PROTOBUF);
        }
    }
}
