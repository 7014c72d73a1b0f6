use super::*;
use proptest::prelude::*;

fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn message(flags: u16, questions: u16, answers: u16, rest: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [0x1234, flags, questions, answers, 0, 0] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend(rest.concat());
    bytes
}

fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = labels(name);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = owner.to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(ttl.to_be_bytes());
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}

const NOERROR: u16 = 0x8180;

#[test]
fn a_query_and_its_answer_are_read() {
    let query = decode(&message(0x0100, 1, 0, &[&question("Shop.EXAMPLE", A)])).unwrap();
    let asked = Question { name: "shop.example".into(), kind: A };
    assert_eq!((query.id, query.is_answer, query.question), (0x1234, false, Some(asked.clone())));
    let own = record(&[0xc0, 12], A, 60, &[192, 0, 2, 1]);
    let six = record(&[0xc0, 12], AAAA, 1 << 31, &[0; 16]);
    let answer = decode(&message(NOERROR, 1, 2, &[&question("shop.example", A), &own, &six])).unwrap();
    assert_eq!((answer.is_answer, answer.rcode, answer.question), (true, 0, Some(asked)));
    assert_eq!(answer.answers, [([192, 0, 2, 1].into(), 60), (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0)]);
    let failed = decode(&message(NOERROR | 0x0200 | 2, 0, 0, &[])).unwrap();
    assert_eq!((failed.rcode, failed.is_truncated, failed.question), (2, true, None));
}

#[test]
fn only_what_the_name_leads_to_is_its_answer() {
    let records = [
        record(&[0xc0, 12], CNAME, 20, &labels("cdn.example")),
        record(&labels("other.example"), A, 60, &[203, 0, 113, 1]),
        record(&labels("cdn.example"), CNAME, 300, &labels("edge.example")),
        record(&labels("edge.example"), A, 60, &[192, 0, 2, 1]),
        record(&[0xc0, 12], A, 60, &[203, 0, 113, 2]),
    ];
    let answer = decode(&message(NOERROR, 1, 5, &[&question("shop.example", A), &records.concat()])).unwrap();
    assert_eq!(answer.answers, [([192, 0, 2, 1].into(), 20)], "the smallest time to live on the way");
    assert_eq!(answer.aliases, ["cdn.example", "edge.example"]);
}

#[test]
fn aliases_that_lead_round_and_too_many_addresses_end() {
    let round = [
        record(&[0xc0, 12], CNAME, 20, &labels("b.example")),
        record(&labels("b.example"), CNAME, 20, &labels("a.example")),
    ];
    let answer = decode(&message(NOERROR, 1, 20, &[&question("a.example", A), &round.concat().repeat(10)])).unwrap();
    assert_eq!((answer.aliases.len(), answer.is_capped), (ALIASES_MAX, true));
    let many = record(&[0xc0, 12], A, 60, &[192, 0, 2, 1]).repeat(40);
    let answer = decode(&message(NOERROR, 1, 40, &[&question("a.example", A), &many])).unwrap();
    assert_eq!((answer.answers.len(), answer.is_capped), (ANSWERS_MAX, true));
}

#[test]
fn names_that_point_forward_or_to_themselves_or_are_too_long_are_none() {
    let itself = message(0x0100, 1, 0, &[&[0xc0, 12, 0, 1, 0, 1]]);
    let forward = message(0x0100, 1, 0, &[&[0xc0, 18, 0, 1, 0, 1], &labels("a")]);
    let each_other = message(0x0100, 1, 0, &[&[0xc0, 14, 0xc0, 12, 0, 1, 0, 1]]);
    let long = message(0x0100, 1, 0, &[&question(&["a".repeat(63).as_str(); 4].join("."), A)]);
    let kind_of_label = message(0x0100, 1, 0, &[&[0x41, b'a', 0, 0, 1, 0, 1]]);
    for bytes in [itself, forward, each_other, long, kind_of_label] {
        assert_eq!(decode(&bytes), None);
    }
    let root = decode(&message(0x0100, 1, 0, &[&question("", 2)])).unwrap();
    assert_eq!(root.question.unwrap().name, ".");
    let odd = decode(&message(0x0100, 1, 0, &[&[4, b'a', b'.', 0, 0xff, 0, 0, 1, 0, 1]])).unwrap();
    assert_eq!(odd.question.unwrap().name, "a\\046\\000\\255");
}

#[test]
fn what_is_no_standard_query_is_none() {
    let asked = question("a.example", A);
    for (flags, questions) in [(0x0100 | 4 << 11, 1), (0x0100, 0), (NOERROR, 0), (0x0100, 2)] {
        assert_eq!(decode(&message(flags, questions, 0, &[&asked])), None, "{flags:x} {questions}");
    }
}

#[test]
fn an_answer_of_which_only_the_beginning_is_here_gives_that() {
    let two = record(&[0xc0, 12], A, 60, &[192, 0, 2, 1]).repeat(2);
    let whole = message(NOERROR, 1, 2, &[&question("a.example", A), &two]);
    for length in 0..whole.len() {
        let read = decode(&whole[..length]);
        let header_and_question = 12 + 11 + 4;
        assert_eq!(read.is_some(), length >= header_and_question, "{length}");
        assert!(read.is_none_or(|read| read.answers.len() == (length - header_and_question) / 16));
    }
}

proptest! {
    #[test]
    fn no_bytes_whatever_make_it_panic_or_grow(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Some(message) = decode(&bytes) {
            prop_assert!(message.answers.len() <= ANSWERS_MAX && message.aliases.len() <= ALIASES_MAX);
            prop_assert!(message.question.is_none_or(|question| question.name.len() <= 4 * 255));
        }
    }

    #[test]
    fn damage_to_an_answer_never_panics(
        damage in proptest::collection::vec((0usize..200, any::<u8>()), 0..12),
        cut in 0usize..200,
    ) {
        let records = [
            record(&[0xc0, 12], CNAME, 20, &[3, b'c', b'd', b'n', 0xc0, 17]),
            record(&[0xc0, 42], A, 60, &[192, 0, 2, 1]),
            record(&[0xc0, 42], AAAA, 60, &[7; 16]),
        ];
        let mut bytes = message(NOERROR, 1, 3, &[&question("shop.example", A), &records.concat()]);
        for (at, byte) in damage {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        decode(&bytes);
    }

    #[test]
    fn a_name_survives_the_wire(names in proptest::collection::vec("[a-z0-9-]{1,20}", 1..6)) {
        let name = names.join(".");
        let query = decode(&message(0x0100, 1, 0, &[&question(&name, 65)])).unwrap();
        prop_assert_eq!(query.question, Some(Question { name, kind: 65 }));
    }
}
