use super::*;

const SECOND: u64 = 1_000_000_000;

fn head(cookie: u64, server: [u8; 4], outgoing: u8, at_ns: u64) -> Head {
    let origin = Origin { pid: cookie as u32, netns: 9, ..Origin::default() };
    let mut remote = [0; 16];
    remote[..4].copy_from_slice(&server);
    Head { origin, cookie, at_ns, outgoing, remote, family: 2, ..Head::default() }
}

fn message(id: u16, name: &str, is_answer: bool) -> Message {
    Message { id, is_answer, question: Some(Question { name: name.into(), kind: 1 }), ..Message::default() }
}

const ONE: [u8; 4] = [10, 0, 0, 1];
const TWO: [u8; 4] = [10, 0, 0, 2];

fn ask(table: &mut Table, cookie: u64, id: u16, name: &str, server: [u8; 4], at_ns: u64) {
    table.take(&head(cookie, server, 1, at_ns), message(id, name, false), 0, |_| None);
}

fn answer(table: &mut Table, cookie: u64, id: u16, name: &str, server: [u8; 4], at_ns: u64) {
    table.take(&head(cookie, server, 0, at_ns), message(id, name, true), 0, |_| None);
}

/// Server, name, outcome, count, latency, retransmits; sorted.
fn rows(table: &Table) -> Vec<(String, String, Outcome, u64, u64, u64)> {
    let mut rows: Vec<_> = table
        .rows()
        .iter()
        .map(|(key, counts)| {
            let name = key.question.as_ref().map(|question| question.name.clone()).unwrap_or_default();
            let server = key.server.to_string();
            (server, name, key.outcome, counts.count, counts.latency_sum_us, counts.retransmits)
        })
        .collect();
    rows.sort();
    rows
}

const NOERROR: Outcome = Outcome::Answered(0);

#[test]
fn an_answer_is_of_the_query_with_its_socket_id_and_question() {
    let mut table = Table::default();
    ask(&mut table, 1, 7, "a", ONE, 1_000);
    ask(&mut table, 1, 7, "b", ONE, 2_000);
    ask(&mut table, 2, 7, "a", ONE, 3_000);
    for (cookie, id, name) in [(3, 7, "a"), (1, 8, "a"), (1, 7, "c")] {
        answer(&mut table, cookie, id, name, ONE, 9_000);
    }
    assert_eq!((table.unmatched, table.waiting()), (3, 3));
    answer(&mut table, 1, 7, "b", ONE, 5_000_000);
    answer(&mut table, 1, 7, "b", ONE, 6_000_000);
    assert_eq!((table.unmatched, table.waiting(), table.counted()), (4, 2, 1), "a second answer is nobody's");
    assert_eq!(rows(&table), [("10.0.0.1".into(), "b".into(), NOERROR, 1, 4_998, 0)]);
}

#[test]
fn a_query_said_again_is_one_query_whose_time_counts_from_the_first() {
    let mut table = Table::default();
    ask(&mut table, 1, 7, "a", ONE, 0);
    ask(&mut table, 1, 7, "a", ONE, SECOND);
    ask(&mut table, 1, 7, "a", TWO, SECOND);
    answer(&mut table, 1, 7, "a", ONE, 2 * SECOND);
    assert_eq!(rows(&table), [("10.0.0.1".into(), "a".into(), NOERROR, 1, 2_000_000, 1)]);
    table.expire(SECOND + TIMEOUT_NS, 0);
    assert_eq!(rows(&table)[1], ("10.0.0.2".into(), "a".into(), Outcome::Timeout, 1, 0, 0), "asked of another");
}

#[test]
fn a_query_times_out_once_and_a_late_answer_finds_nobody() {
    let mut table = Table::default();
    ask(&mut table, 1, 7, "a", ONE, 5);
    table.expire(TIMEOUT_NS, 0);
    assert_eq!(table.waiting(), 1);
    table.expire(TIMEOUT_NS + 5, 0);
    table.expire(3 * TIMEOUT_NS, 0);
    answer(&mut table, 1, 7, "a", ONE, 3 * TIMEOUT_NS);
    assert_eq!((table.waiting(), table.unmatched), (0, 1));
    assert_eq!(rows(&table), [("10.0.0.1".into(), "a".into(), Outcome::Timeout, 1, 0, 0)]);
}

#[test]
fn an_answer_from_another_address_is_taken_if_only_one_query_fits() {
    let mut table = Table::default();
    ask(&mut table, 1, 7, "a", ONE, 0);
    answer(&mut table, 1, 7, "a", TWO, 1_000);
    assert_eq!(rows(&table)[0].0, "10.0.0.2", "the client knows the address that answered");
    ask(&mut table, 1, 8, "a", ONE, 0);
    ask(&mut table, 1, 8, "a", TWO, 0);
    answer(&mut table, 1, 8, "a", [10, 0, 0, 3], 1_000);
    assert_eq!((table.waiting(), table.unmatched), (2, 1));
}

#[test]
fn an_error_without_a_question_answers_the_only_query_of_its_id() {
    let mut table = Table::default();
    ask(&mut table, 1, 7, "a", ONE, 0);
    let refused = Message { id: 7, is_answer: true, rcode: 1, ..Message::default() };
    table.take(&head(1, ONE, 0, 1_000), refused, 0, |_| None);
    assert_eq!(rows(&table), [("10.0.0.1".into(), "a".into(), Outcome::Answered(1), 1, 1, 0)]);
}

#[test]
fn every_bound_holds_and_is_counted() {
    let mut table = Table::default();
    for number in 0..=WAITING_MAX as u64 {
        ask(&mut table, number, 7, "a", ONE, number);
    }
    assert_eq!(table.waiting(), WAITING_MAX);
    assert_eq!(table.take_losses(), [(Loss::DnsQueriesCapped, 1)].into());
    // Names beyond the cap go to no name; beyond that nothing more is counted.
    table.expire(TIMEOUT_NS * 2, ROWS_MAX);
    assert_eq!(table.rows().len(), OTHERS_MAX);
    let dropped = (WAITING_MAX - OTHERS_MAX) as u64;
    let expected = [(Loss::DnsNamesCapped, WAITING_MAX as u64), (Loss::DnsRowsDropped, dropped)];
    assert_eq!(table.take_losses(), expected.into());
    assert!(table.rows().keys().all(|key| key.question.is_none()));
    assert_eq!((table.counted(), table.waiting()), (OTHERS_MAX as u64, 0));
    assert_eq!(table.take_rows().len(), OTHERS_MAX);
    assert_eq!(table.counted(), 0);
}
