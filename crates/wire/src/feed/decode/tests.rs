use super::*;
use crate::feed::Connection;
use proptest::prelude::*;
use weir_model::{Protocol, Tuple};

const SAMPLE: &str = r#"{
  "connections": [
    {
      "pid": 14931, "type": 1, "family": 0, "net_ns": 4026532528,
      "source": "172.17.0.2", "dest": "172.17.0.5", "sport": 41515, "dport": 53, "direction": 2,
      "monotonic_sent_bytes": 3079, "last_sent_bytes": 0, "monotonic_recv_bytes": 5849, "last_recv_bytes": 0,
      "monotonic_retransmits": 0, "last_retransmits": 0, "last_update_epoch": 11457291007926789
    }
  ]
}"#;

type Taken = (Vec<String>, Result<Envelope, DecodeError>);

fn decode(body: &[u8], sizes: &[usize]) -> Taken {
    decode_within(body, sizes, Limits::default())
}

fn decode_within(body: &[u8], sizes: &[usize], limits: Limits) -> Taken {
    let mut decoder = Decoder::new(limits);
    let mut rows = Vec::new();
    let mut rest = body;
    let mut turn = 0;
    while !rest.is_empty() {
        let size = sizes.get(turn % sizes.len().max(1)).copied().unwrap_or(rest.len()).clamp(1, rest.len());
        turn += 1;
        if let Err(error) = decoder.push(&rest[..size], |row| rows.push(format!("{row:?}"))) {
            return (rows, Err(error));
        }
        rest = &rest[size..];
    }
    (rows, decoder.finish())
}

#[test]
fn the_sample_gives_its_row() {
    let mut decoder = Decoder::new(Limits::default());
    let mut seen = 0;
    decoder
        .push(SAMPLE.as_bytes(), |row| {
            seen += 1;
            assert_eq!(row.protocol, Protocol::Udp);
            assert_eq!(row.tuple, Tuple::new([172, 17, 0, 2].into(), 41515, [172, 17, 0, 5].into(), 53));
            assert_eq!((row.sent_total, row.recv_total), (Some(3079), Some(5849)));
            assert_eq!((row.pid, row.netns, row.direction), (14931, 4_026_532_528, 2));
            assert_eq!(row.cookie, None);
        })
        .unwrap();
    let envelope = decoder.finish().unwrap();
    assert_eq!((seen, envelope.rows, envelope.refused, envelope.bytes), (1, 1, 0, SAMPLE.len() as u64));
}

#[test]
fn a_brace_too_many_is_an_error_that_names_its_byte() {
    let body = format!("{SAMPLE}\n}}\n");
    let (_, outcome) = decode(body.as_bytes(), &[]);
    let at = SAMPLE.len() as u64 + 1;
    assert_eq!(outcome.unwrap_err(), DecodeError::NotTheFeed { what: "nothing may follow the closing `}`".into(), at });
}

#[test]
fn the_published_sample_with_a_brace_in_its_list_is_an_error() {
    let body = br#"{"connections": [{"type":1,"source":"1.2.3.4","dest":"1.2.3.5","sport":1,"dport":2} } ]}"#;
    let (_, outcome) = decode(body, &[]);
    assert_eq!(
        outcome.unwrap_err(),
        DecodeError::NotTheFeed { what: "`,` or `]` is expected after a row".into(), at: 84 }
    );
}

#[test]
fn what_is_not_the_feed_is_told_with_what_and_where() {
    for (body, what) in [
        ("", "breaks off at byte 0, before it began"),
        ("<html>", "it does not begin with `{` at byte 0"),
        ("{}", "it has no `connections` at byte 2"),
        (r#"{"conns":[]}"#, "the reply is system-probe's: it has `conns`"),
        (r#"{"connections":{}}"#, "`connections` is not a list at byte 15"),
        (r#"{"connections":[5]}"#, "a row is expected at byte 16"),
        (r#"{"connections":[{}"#, "breaks off at byte 18, between two rows"),
        (r#"{"connections":[{"pid":"#, "breaks off at byte 23, within a row"),
        (r#"{"connections":[{"pid":x}]}"#, "expected value at byte 23"),
        (r#"{"connections":[{},]}"#, "a row is expected at byte 19"),
        (r#"{"connections":[],"cursor":"x"}"#, "invalid type"),
        (r#"{"connections":[],"cursor":1x}"#, "expected `,` or `}` at byte 28"),
        (r#"{"connections":[]"#, "breaks off"),
    ] {
        let (_, outcome) = decode(body.as_bytes(), &[]);
        let text = outcome.unwrap_err().to_string();
        assert!(text.contains(what), "{body}: {text}");
    }
}

#[test]
fn rows_that_are_no_connections_are_refused_and_the_others_taken() {
    let good = r#"{"type":0,"source":"10.0.0.1","dest":"fe80::1%eth0","sport":1,"dport":2}"#;
    for bad in [
        "{}",
        r#"{"type":2,"source":"10.0.0.1","dest":"10.0.0.2","sport":1,"dport":2}"#,
        r#"{"type":0,"source":"10.0.0.256","dest":"10.0.0.2","sport":1,"dport":2}"#,
        r#"{"type":0,"source":"10.0.0.1","dest":"10.0.0.2","sport":65536,"dport":2}"#,
        r#"{"type":0,"source":"10.0.0.1","dest":"10.0.0.2","sport":-1,"dport":2}"#,
        r#"{"type":0,"source":"10.0.0.1","dest":"10.0.0.2","sport":1.5,"dport":2}"#,
        r#"{"type":0,"source":7,"dest":"10.0.0.2","sport":1,"dport":2}"#,
        r#"{"type":"tcp","source":"10.0.0.1","dest":"10.0.0.2","sport":1,"dport":2}"#,
        r#"{"type":0,"source":"10.0.0.1","dest":"10.0.0.2","sport":1,"dport":2,"monotonic_sent_bytes":99999999999999999999}"#,
    ] {
        let (rows, outcome) = decode(format!(r#"{{"connections":[{bad},{good}]}}"#).as_bytes(), &[]);
        assert_eq!((rows.len(), outcome.unwrap().refused), (1, 1), "{bad}");
    }
}

#[test]
fn unknown_fields_nulls_and_escapes_are_no_hindrance() {
    let body = r#"{"x":{"connections":[1,"]}"]},"connections":[{"a":[{"b":"\"}"}],"type":0,"source":"10.0.0.1",
        "dest":"10.0.0.2","sport":1,"dport":2,"conntrack":null,"process_name":"a\u0041\"","cookie":null,"start_epoch":0},
        {"type":0,"source":"10.0.0.1","dest":"10.96.0.1","sport":1,"dport":80,"monotonic_sent_bytes":1,
        "conntrack":{"repl_src_ip":"10.0.0.9","repl_dst_ip":"10.0.0.1","repl_src_port":8080,"repl_dst_port":1}}],
        "cursor":7,"run_id":"00000000000000ff","losses":{"a":1},"complete":false,"monotonic_ns":5,"later":[{}]}"#;
    let mut decoder = Decoder::new(Limits::default());
    let mut names = Vec::new();
    decoder
        .push(body.as_bytes(), |row| {
            names.push(row.process_name.as_deref().map(str::to_owned));
            assert_eq!((row.cookie, row.start), (None, None));
            if let Some(reply) = row.reply {
                assert_eq!(reply.source, "10.0.0.9:8080".parse().unwrap());
            }
        })
        .unwrap();
    let envelope = decoder.finish().unwrap();
    assert_eq!(names, [Some("aA\"".to_owned()), None]);
    assert_eq!((envelope.cursor, envelope.complete, envelope.monotonic_ns), (Some(7), Some(false), Some(5)));
    assert_eq!(envelope.losses["a"], 1);
}

#[test]
fn a_tracer_without_connections_may_say_null() {
    let (rows, outcome) = decode(br#"{"connections": null}"#, &[3]);
    assert!(rows.is_empty());
    assert_eq!(outcome.unwrap().rows, 0);
}

#[test]
fn every_bound_holds() {
    let limits = Limits { row: 100, envelope: 50, body: 1000, translations: 0, ..Limits::default() };
    let long_row = format!(r#"{{"connections":[{{"x":"{}"}}]}}"#, "y".repeat(100));
    let long_envelope = format!(r#"{{"x":"{}","connections":[]}}"#, "y".repeat(100));
    let long_body = format!(r#"{{"connections":[{}]}}"#, " ".repeat(1000));
    for size in [1, 7, 5000] {
        let outcome = |body: &str| decode_within(body.as_bytes(), &[size], limits).1.unwrap_err();
        assert_eq!(outcome(&long_row), DecodeError::RowTooLong { at: 16, limit: 100 });
        assert_eq!(outcome(&long_envelope), DecodeError::EnvelopeTooLong { limit: 50 });
        assert_eq!(outcome(&long_body), DecodeError::BodyTooLong { limit: 1000 });
    }
}

fn dns(name: &str) -> Dns {
    let answers = vec![crate::feed::DnsAnswer { address: "192.0.2.7".into(), ttl: 30 }];
    Dns {
        pid: 7,
        server: "10.0.0.10".into(),
        name: name.into(),
        query_type: "A".into(),
        rcode: "noerror".into(),
        count: 1,
        answers,
        ..Dns::default()
    }
}

#[test]
fn dns_rows_are_taken_beside_the_connections_however_they_are_cut() {
    let rows = vec![dns("one.example"), dns("two.example")];
    let list = serde_json::to_string(&rows).unwrap();
    let connection = r#"{"type":1,"source":"1.2.3.4","dest":"1.2.3.5","sport":1,"dport":2}"#;
    for body in [
        format!(r#"{{"connections":[{connection}],"cursor":5,"dns":{list},"dns_cursor":9}}"#),
        format!(r#"{{"dns": {list} ,"dns_cursor":9,"connections":[{connection}],"cursor":5}}"#),
    ] {
        for sizes in [&[][..], &[1], &[7, 30]] {
            let (seen, outcome) = decode(body.as_bytes(), sizes);
            let envelope = outcome.unwrap();
            assert_eq!((seen.len(), &envelope.dns), (1, &rows));
            assert_eq!((envelope.cursor, envelope.dns_cursor, envelope.refused), (Some(5), Some(9), 0));
        }
    }
}

#[test]
fn dns_rows_that_are_none_or_too_many_are_refused_and_counted() {
    let row = serde_json::to_string(&dns("one.example")).unwrap();
    let body = format!(r#"{{"connections":[],"dns":[{{"server":5}},{row},{row}]}}"#);
    let limits = Limits { dns: row.len() + 1, ..Limits::default() };
    let envelope = decode_within(body.as_bytes(), &[], limits).1.unwrap();
    assert_eq!((envelope.dns.len(), envelope.refused), (1, 2));
    let torn = format!(r#"{{"connections":[],"dns":[{row},{{"server":}}]}}"#);
    let at = torn.find(":}").unwrap() as u64 + 1;
    assert!(matches!(decode(torn.as_bytes(), &[]).1, Err(DecodeError::NotTheFeed { at: told, .. }) if told == at));
    let after = format!(r#"{{"connections":[],"dns":[{row}],"cursor":"x"}}"#);
    let at = after.find("\"x\"").unwrap() as u64;
    let told = decode(after.as_bytes(), &[]).1.unwrap_err();
    assert!(matches!(told, DecodeError::NotTheFeed { at: told, .. } if told.abs_diff(at) <= 3), "{told:?} {at}");
}

#[test]
fn another_tracers_dns_of_another_shape_is_no_hindrance() {
    for other in [r#"{"10.0.0.1":{"names":["a"]}}"#, "null", "5"] {
        let body = format!(r#"{{"connections":[],"dns":{other}}}"#);
        assert_eq!(decode(body.as_bytes(), &[]).1.unwrap().dns, Vec::new(), "{other}");
    }
}

fn connection() -> impl Strategy<Value = Connection> {
    let text = proptest::option::of("[ -~]{0,12}|\\PC{0,4}|[\"\\\\{}\\[\\],:]{0,6}");
    (any::<(u32, u16, u16, u64, Option<u64>)>(), 0..3u8, any::<bool>(), text.clone(), text).prop_map(
        |((pid, sport, dport, number, optional), kind, v6, name, path)| Connection {
            pid,
            kind,
            source: if v6 { "2001:db8::1".into() } else { "10.1.2.3".into() },
            dest: "192.0.2.1".into(),
            sport,
            dport,
            monotonic_sent_bytes: Some(number),
            cookie: optional,
            process_name: name,
            cgroup_path: path,
            ..Connection::default()
        },
    )
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_rows(
        rows in proptest::collection::vec(connection(), 0..8),
        sizes in proptest::collection::vec(1usize..200, 1..20),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 20),
        pretty: bool,
    ) {
        let reply = Reply { connections: rows.clone(), cursor: Some(3), ..Reply::default() };
        let body = if pretty { serde_json::to_vec_pretty(&reply) } else { serde_json::to_vec(&reply) }.unwrap();
        let whole = decode(&body, &[]);
        prop_assert_eq!(&whole, &decode(&body, &sizes));
        let envelope = whole.1.unwrap();
        let good = rows.iter().filter(|row| row.kind < 2).count() as u64;
        prop_assert_eq!((envelope.rows, envelope.refused), (good, rows.len() as u64 - good));
        for cut in cuts {
            prop_assert!(decode(&body[..cut.index(body.len())], &[]).1.is_err());
        }
    }

    #[test]
    fn damaged_bodies_give_the_same_outcome_however_they_are_cut_and_never_panic(
        rows in proptest::collection::vec(connection(), 0..4),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        sizes in proptest::collection::vec(1usize..40, 1..10),
    ) {
        let mut body = serde_json::to_vec(&Reply { connections: rows, ..Reply::default() }).unwrap();
        for (index, byte) in damage {
            let index = index.index(body.len());
            body[index] = byte;
        }
        prop_assert_eq!(decode(&body, &[]), decode(&body, &sizes));
    }

    #[test]
    fn random_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300), sizes in proptest::collection::vec(1usize..40, 1..10)) {
        prop_assert_eq!(decode(&body, &[]), decode(&body, &sizes));
    }
}

#[test]
fn translations_are_read_wherever_they_stand_and_however_they_are_cut() {
    let one = |port: u16| {
        format!(
            r#"{{"type":0,"family":0,"conntrack":{{"orig_src_ip":"10.88.0.1","orig_dst_ip":"10.88.0.2","orig_src_port":{port},
            "orig_dst_port":30080,"repl_src_ip":"10.244.0.9","repl_dst_ip":"10.244.0.1","repl_src_port":8080,
            "repl_dst_port":64384}},"seen_epoch":7,"began":true,"later":{{}}}}"#
        )
    };
    let body = format!(
        r#"{{"translations":[{},{{"type":0}},{}],"connections":[],"cursor":3}}"#,
        one(35006),
        one(35007).replace("\"type\":0", "\"type\":1")
    );
    for sizes in [&[][..], &[1], &[7, 100]] {
        let (_, outcome) = decode(body.as_bytes(), sizes);
        let envelope = outcome.unwrap();
        assert_eq!((envelope.cursor, envelope.rows, envelope.refused), (Some(3), 0, 1));
        let [first, second] = envelope.translations[..] else { panic!("{:?}", envelope.translations) };
        let ip = |last: [u8; 4]| std::net::IpAddr::from(last);
        assert_eq!(
            first,
            Translated {
                protocol: Protocol::Tcp,
                original: Tuple::new(ip([10, 88, 0, 1]), 35006, ip([10, 88, 0, 2]), 30080),
                translated: Tuple::new(ip([10, 244, 0, 1]), 64384, ip([10, 244, 0, 9]), 8080),
                seen: weir_model::MonotonicNanos(7),
                began: true,
            }
        );
        assert_eq!((second.protocol, second.original.local.port()), (Protocol::Udp, 35007));
    }
    let limits = Limits { translations: 1, ..Limits::default() };
    let envelope = decode_within(body.as_bytes(), &[], limits).1.unwrap();
    assert_eq!((envelope.translations.len(), envelope.refused), (1, 2));
    for (body, what) in [
        (r#"{"translations":{},"connections":[]}"#, "`translations` is not a list at byte 16"),
        (r#"{"translations":[{"type":x}],"connections":[]}"#, "expected value at byte 25"),
        (r#"{"translations":[{}],"connections":[{}],"cursor":"x"}"#, "at byte 51"),
        (r#"{"translations":[]}"#, "it has no `connections`"),
    ] {
        let text = decode(body.as_bytes(), &[]).1.unwrap_err().to_string();
        assert!(text.contains(what), "{body}: {text}");
    }
}
