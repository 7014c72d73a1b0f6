use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> Filter {
    Filter::parse(Scope::Edges, text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> FilterError {
    Filter::parse(Scope::Edges, text).expect_err(text)
}

#[test]
fn the_longer_example_is_read_as_it_is_meant() {
    let filter = parse(r#"namespace=shop and (port=443 or dst.workload~"pay*") and not certainty=unknown"#);
    assert_eq!(filter.to_string(), "namespace=shop and (port=443 or server.workload~pay*) and not certainty=unknown");
    let words: Vec<_> = filter.comparisons().iter().map(|one| (one.place, one.level)).collect();
    assert_eq!(
        words,
        [(Place::Any, Level::Part), (Place::Any, Level::Part), (Place::Server, Level::Part), (Place::Any, Level::Row)]
    );
}

#[test]
fn what_is_written_differently_and_means_the_same_is_the_same() {
    for (one, other) in [
        ("port=1 and port=2 and port=3", "port=1 AND (port=2 and port=3)"),
        ("port=1 or port=2 or port=3", "((port=1)or(port=2))  or\tport=3"),
        ("port=1 or port=2 and port=3", "port=1 or (port=2 and port=3)"),
        ("not port=1 and port=2", "(not port=1) and port=2"),
        ("src.name=a", "client.name = \"A\""),
        ("server.port=1", "port=1"),
        ("bytes>1kB", "bytes>1000"),
        ("rtt_us>=2ms", "rtt_us >= 2000us"),
        ("address=10.0.0.1", "address=10.0.0.1/32"),
        ("attribute:team=x", "attribute:\"team\"=x"),
        ("name=\"a\\\"b\\\\\"", " name = \"a\\\"b\\\\\" "),
    ] {
        assert_eq!(parse(one), parse(other), "{one} {other}");
        assert_eq!(parse(&parse(one).to_string()), parse(one), "{one}");
    }
    assert_ne!(parse("(port=1 or port=2) and port=3"), parse("port=1 or port=2 and port=3"));
}

#[test]
fn an_error_points_at_the_character_and_says_what_could_stand_there() {
    for (text, column, reason, expected) in [
        ("", 1, "it ends where a field was expected", "namespace"),
        ("namespace=shop and )", 20, "`)` stands where a field was expected", "port"),
        ("namespace=shop and", 19, "it ends where a field was expected", "port"),
        ("namespac=shop", 1, "edges have no field `namespac`", "namespace"),
        ("client.colour=red", 8, "edges have no field `colour`", "workload"),
        ("namespace shop", 11, "`shop` stands after `namespace`", "!~"),
        ("namespace>shop", 10, "`>` does not compare `namespace`, which is a text", "~"),
        ("port~44*", 5, "`~` does not compare `port`, which is a number", "<="),
        ("protocol~t*", 9, "`~` does not compare `protocol`, which is a word", "!="),
        ("port=http", 6, "`http` is not what `port` is compared with", "a number from 0 to 65535"),
        ("port=65536", 6, "`65536` is not what", "a number from 0 to 65535"),
        ("port=+1", 6, "`+1` is not what", "a number from 0 to 65535"),
        ("bytes>1parsec", 7, "`1parsec` is not what", "a number of bytes, for example 1500, 10kB or 1MiB"),
        ("bytes>18446744073709551616", 7, "`18446744073709551616` is not what", ""),
        ("protocol=icmp", 10, "`icmp` is not what `protocol`", "udp"),
        (
            "address=10.0.0.0/40",
            9,
            "`10.0.0.0/40` is not what",
            "an address or a network, for example 10.0.0.7 or fd00::/8",
        ),
        ("name=", 6, "it ends after `=`", "a value, for example shop or \"a b\""),
        ("name=and", 6, "`and` joins comparisons", ""),
        ("and name=a", 1, "`and` stands where a field was expected", "not"),
        ("name='a'", 6, "`\\'` stands after `=`", ""),
        ("name=\"a", 6, "this quote is never closed", "\""),
        ("name=\"a\\n\"", 8, "within quotes, \\ stands only before", "\\\\"),
        ("name=a name=b", 8, "`name` stands after a comparison", "and"),
        ("(name=a", 8, "it ends in parentheses", ")"),
        ("client.port=1", 1, "`port` is the server's here", "port"),
        ("src.protocol=tcp", 1, "`protocol` is of neither end here", "protocol"),
        ("attribute:=x", 11, "`=` stands where an attribute's name was expected", ""),
        ("ü=1 and ö=2", 1, "edges have no field `ü`", ""),
        ("name=ü and ö=2", 12, "edges have no field `ö`", ""),
    ] {
        let error = refused(text);
        assert_eq!(error.column, column, "{text}: {error}");
        assert!(error.reason.starts_with(reason), "{text}: {error}");
        let is_expected = expected.is_empty() || error.expected.iter().any(|one| one == expected);
        assert!(is_expected, "{text}: {:?}", error.expected);
    }
}

#[test]
fn sums_are_not_mixed_with_what_they_sum_up_but_by_and() {
    parse("bytes>1 and namespace=a and (failures>0 or certainty=unknown) and not port=1");
    parse("(bytes>1 and namespace=a) and port=1");
    for (text, column) in [
        ("namespace=a or bytes>1", 16),
        ("bytes>1 or namespace=a", 1),
        ("not (namespace=a and bytes>1)", 22),
        ("port=1 and (namespace=a or (port=2 and failures>0))", 40),
    ] {
        let error = refused(text);
        assert!(error.reason.contains("join the two with `and`"), "{error}");
        assert_eq!(error.column, column, "{text}: {error}");
    }
    // A connection is its own row.
    Filter::parse(Scope::Connections, "namespace=a or bytes>1 or client.port=7").unwrap();
}

#[test]
fn each_answer_has_its_own_fields() {
    for (scope, text) in [
        (Scope::Metadata, "kind=pod and source=kubelet and attribute:team=x and address=10.0.0.0/8"),
        (Scope::Dns, "query_name~*.local and failures>0 and latency_us>20ms"),
        (Scope::Transactions, "state=closed and close_reason!=closed"),
    ] {
        Filter::parse(scope, text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(Filter::parse(Scope::Edges, text).is_err(), "{text}");
    }
    assert!(Filter::parse(Scope::Metadata, "client.name=a").is_err());
}

#[test]
fn it_is_bounded() {
    let many = |count: usize| vec!["port=1"; count].join(" or ");
    assert_eq!(parse(&many(PARTS_MAX)).comparisons().len(), PARTS_MAX);
    assert!(refused(&many(PARTS_MAX + 1)).reason.starts_with("more than 64 comparisons"));
    assert!(refused(&format!("name={}", "x".repeat(TEXT_MAX))).reason.contains("at most 4000"));
    for deep in [format!("{}port=1", "not ".repeat(900)), format!("{}port=1", "(".repeat(3_900))] {
        assert!(refused(&deep).reason.contains("more than 32 deep"), "{deep}");
    }
    parse(&format!("{}port=1{}", "(".repeat(32), ")".repeat(32)));
}

#[test]
fn comparisons_are_decided_as_they_say() {
    let text =
        |filter: &str, texts: &[&str]| parse(filter).passes(Level::Part, |_, one| one.is_text(texts.iter().copied()));
    for (filter, texts, expected) in [
        ("name=A", &["b", "a"][..], true),
        ("name=a*", &["ab"], false),
        ("name~a*", &["b", "AB"], true),
        ("name!=a", &["b", "a"], false),
        ("name!=a", &[], true),
        ("name=\"\"", &[], true),
        ("name=\"\"", &["a"], false),
        ("name~*", &[], true),
        ("name!~a*", &["b"], true),
        ("address=10.0.0.0/8", &["10.1.2.3"], true),
        ("address!=10.0.0.0/8", &["192.0.2.1"], true),
        ("address=fd00::/8", &["10.1.2.3"], false),
        ("address~10.*", &["10.1.2.3"], true),
    ] {
        assert_eq!(text(filter, texts), expected, "{filter} {texts:?}");
    }
    let number = |filter: &str, number: Option<u64>| parse(filter).passes(Level::Row, |_, one| one.is_number(number));
    for (filter, of, expected) in [
        ("bytes>1kB", Some(1_001), true),
        ("bytes>1kB", Some(1_000), false),
        ("bytes>=1kB", Some(1_000), true),
        ("bytes<1kB", Some(999), true),
        ("bytes<=1kB", Some(1_001), false),
        ("bytes!=7", Some(7), false),
        ("rtt_us<5", None, false),
        ("rtt_us>=0", None, false),
        ("not rtt_us>=0", None, true),
    ] {
        assert_eq!(number(filter, of), expected, "{filter} {of:?}");
    }
}

#[test]
fn and_or_and_not_join_as_they_say() {
    for (filter, truth) in [
        ("port=1 and port=2", [false, false, false, true]),
        ("port=1 or port=2", [false, true, true, true]),
        ("not port=1 and port=2", [false, false, true, false]),
        ("not (port=1 or port=2)", [true, false, false, false]),
        ("port!=1 or port!=2", [true, true, true, false]),
    ] {
        for (bits, expected) in truth.into_iter().enumerate() {
            let decided = parse(filter).passes(Level::Part, |place, _| bits & (1 << place) != 0);
            assert_eq!(decided, expected, "{filter} {bits:02b}");
            // There is nothing of whole rows in it.
            assert!(parse(filter).passes(Level::Row, |_, _| false));
        }
    }
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9*./:@ _-]{0,12}".prop_map(|text| format!("{text:?}")),
        "[a-z][a-z0-9*./:-]{0,8}x",
        any::<String>().prop_map(|text| {
            let escaped: String = text
                .chars()
                .flat_map(|one| if matches!(one, '"' | '\\') { vec!['\\', one] } else { vec![one] })
                .collect();
            format!("\"{escaped}\"")
        }),
    ]
}

fn comparison() -> impl Strategy<Value = String> {
    let place = prop_oneof![Just(""), Just("client."), Just("server."), Just("src."), Just("dst.")];
    let field =
        prop_oneof![Just("name"), Just("workload"), Just("attribute:team"), Just("attribute:\"a b\""), Just("zone")];
    let operator = prop_oneof![Just("="), Just("!="), Just("~"), Just(" !~ ")];
    prop_oneof![
        4 => (place, field, operator, value()).prop_map(|(place, field, operator, value)| format!("{place}{field}{operator}{value}")),
        1 => any::<u16>().prop_map(|port| format!("port<={port}")),
        1 => any::<[u8; 4]>().prop_map(|bytes| format!("address={}", std::net::Ipv4Addr::from(bytes))),
        1 => (any::<[u8; 16]>(), 0..=128u8).prop_map(|(bytes, bits)| format!("address!={}/{bits}", std::net::Ipv6Addr::from(bytes))),
    ]
}

fn filter() -> impl Strategy<Value = String> {
    comparison().prop_recursive(5, 24, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(|parts| format!("({})", parts.join(" and "))),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(|parts| format!("({})", parts.join(" OR "))),
            inner.prop_map(|part| format!("not {part}")),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_printed_is_read_as_the_same(text in filter()) {
        let filter = parse(&text);
        let printed = filter.to_string();
        prop_assert_eq!(&parse(&printed), &filter, "{}", printed);
        prop_assert_eq!(parse(&printed).to_string(), printed);
    }

    #[test]
    fn no_text_makes_it_panic_and_every_error_points_into_it(text in "\\PC{0,80}|[a-z=~!<>()\" .:*0-9]{0,60}") {
        for scope in Scope::ALL {
            match Filter::parse(scope, &text) {
                Ok(filter) => prop_assert_eq!(&Filter::parse(scope, &filter.to_string()).unwrap(), &filter),
                Err(error) => prop_assert!((1..=text.chars().count() + 1).contains(&error.column), "{}", error),
            }
        }
    }
}
