use super::super::life::Previous;
use super::super::stage::Reading;
use super::super::words::Word;
use super::*;
use crate::attribute::PackedTuple;
use proptest::prelude::*;
use weir_model::{Certainty, Protocol, Tuple};

pub(super) const SECOND: u64 = 1_000_000_000;

fn tuple(port: u16) -> PackedTuple {
    PackedTuple::of(Tuple::new([10, 0, 0, 1].into(), port, [10, 0, 0, 2].into(), 80))
}

/// An open TCP row with a cookie.
pub(super) fn row(cookie: u64, start: u64, sent: u64) -> StagedRow {
    StagedRow {
        tuple: tuple(1000),
        cookie,
        reading: Reading::Totals([sent, 0, 0]),
        start,
        close: 0,
        last_update: 0,
        last: [0; 2],
        tracer_generation: None,
        errno: 0,
        rtt_us: 0,
        connect_latency_us: 0,
        end: 0,
        reply: 0,
        protocol: Protocol::Tcp,
        direction: None,
        certainty: Certainty::Unknown,
        state: Word::UNKNOWN,
        close_reason: Word::UNKNOWN,
        other_peer: false,
        begins: false,
    }
}

fn closed(cookie: u64, start: u64, sent: u64, close: u64) -> StagedRow {
    StagedRow { close, ..row(cookie, start, sent) }
}

/// An agent that polls: every reply is one call of `poll`.
pub(super) struct Agent {
    pub(super) table: Table,
    polls: u32,
    pub(super) run: u64,
    run_since: u32,
    previous: Option<Previous>,
    complete: bool,
    stream_began: Option<u64>,
}

impl Agent {
    pub(super) fn new() -> Self {
        Self {
            table: Table::new(1000),
            polls: 0,
            run: 7,
            run_since: 1,
            previous: None,
            complete: true,
            stream_began: Some(50 * SECOND),
        }
    }

    /// Answers the changes of one reply whose snapshot was made at `at` seconds.
    pub(super) fn poll(&mut self, at: u64, rows: &[StagedRow]) -> Vec<Outcome> {
        self.polls += 1;
        let poll = Poll {
            number: self.polls,
            at: at * SECOND,
            run: self.run,
            run_since: self.run_since,
            same_run: self.previous.is_some(),
            previous: self.previous,
            stream_began: self.stream_began,
        };
        let mut rows = rows.to_vec();
        rows.sort_by_key(|row| if row.close == 0 { u64::MAX } else { row.close });
        let outcomes = rows.iter().map(|row| self.table.apply(key(row), row, true, &poll)).collect();
        self.table.finish(&poll);
        self.previous = Some(Previous { at: at * SECOND, unix: 0, complete: self.complete });
        outcomes
    }

    /// The only change of one reply.
    pub(super) fn change(&mut self, at: u64, rows: &[StagedRow]) -> Change {
        let outcomes = self.poll(at, rows);
        let changes: Vec<Change> = outcomes
            .iter()
            .filter_map(|outcome| if let Outcome::Changed(change) = outcome { Some(change.clone()) } else { None })
            .collect();
        assert_eq!(changes.len(), 1, "{outcomes:?}");
        changes[0].clone()
    }
}

fn key(row: &StagedRow) -> Key {
    Key::of(row.protocol, (row.cookie != 0).then_some(row.cookie), 1, 2, row.tuple)
}

#[test]
fn the_first_poll_ever_puts_what_it_finds_before_the_first_sight() {
    let mut agent = Agent::new();
    let first = agent.change(100, &[row(1, 0, 500)]);
    assert_eq!((first.delta[0], first.life.before[0], first.opened), (0, 500, true));
    let then = agent.change(110, &[row(1, 0, 700)]);
    assert_eq!((then.delta[0], then.life.before[0], then.life.totals[0], then.opened), (200, 500, 700, false));
}

#[test]
fn a_connection_that_began_after_the_stream_is_counted_from_zero_even_at_the_first_poll() {
    let mut agent = Agent::new();
    assert_eq!(agent.change(100, &[row(1, 60 * SECOND, 500)]).delta[0], 500);
    let mut agent = Agent::new();
    assert_eq!(agent.change(100, &[row(1, 40 * SECOND, 500)]).delta[0], 0);
    let mut agent = Agent::new();
    agent.stream_began = None;
    assert_eq!(agent.change(100, &[row(1, 60 * SECOND, 500)]).delta[0], 0, "the stream began in another boot");
}

#[test]
fn at_first_sight_the_baseline_is_zero_if_the_start_lies_after_the_last_poll() {
    let mut agent = Agent::new();
    agent.poll(100, &[]);
    assert_eq!(agent.change(110, &[row(1, 105 * SECOND, 500)]).delta[0], 500);
    assert_eq!(agent.change(120, &[row(2, 105 * SECOND, 500)]).life.before[0], 500);
}

#[test]
fn without_a_start_the_baseline_is_zero_only_if_the_last_reply_was_complete_and_lacked_the_row() {
    let mut agent = Agent::new();
    agent.poll(100, &[]);
    assert_eq!(agent.change(110, &[row(1, 0, 500)]).delta[0], 500);
    agent.complete = false;
    agent.poll(120, &[]);
    assert_eq!(agent.change(130, &[row(2, 0, 500)]).life.before[0], 500);
}

#[test]
fn an_unchanged_connection_yields_no_record() {
    let mut agent = Agent::new();
    agent.poll(100, &[row(1, 0, 500)]);
    assert_eq!(agent.poll(110, &[row(1, 0, 500)]), [Outcome::Unchanged]);
    let state = StagedRow { state: Word::of("close_wait"), ..row(1, 0, 500) };
    assert_eq!(agent.change(120, &[state]).life.state.as_str(), "close_wait");
}

#[test]
fn a_total_that_falls_begins_a_generation_that_is_counted_from_zero() {
    let mut agent = Agent::new();
    agent.poll(100, &[row(1, 0, 500)]);
    let change = agent.change(110, &[row(1, 0, 30)]);
    assert_eq!((change.life.generation, change.delta[0], change.life.before[0], change.opened), (1, 30, 0, true));
    assert_eq!(agent.change(120, &[row(1, 0, 40)]).delta[0], 10);
    assert_eq!(agent.table.counts().fallen, 1);
}

#[test]
fn a_fall_within_one_start_is_a_torn_read_and_keeps_the_larger_total() {
    let mut agent = Agent::new();
    agent.poll(100, &[row(1, 60 * SECOND, 500)]);
    assert_eq!(agent.poll(110, &[row(1, 60 * SECOND, 300)]), [Outcome::Unchanged]);
    let change = agent.change(120, &[row(1, 60 * SECOND, 600)]);
    assert_eq!((change.life.generation, change.delta[0]), (0, 100));
}

#[test]
fn a_second_row_of_one_reply_is_no_fall() {
    let mut agent = Agent::new();
    let outcomes = agent.poll(100, &[row(1, 60 * SECOND, 500), row(1, 60 * SECOND, 500), row(1, 0, 20)]);
    assert!(matches!(outcomes[0], Outcome::Changed(_)));
    assert_eq!(outcomes[1..], [Outcome::Unchanged, Outcome::Unchanged]);
}

#[test]
fn a_socket_used_again_begins_a_generation_by_its_tuple_or_its_start() {
    let mut agent = Agent::new();
    agent.poll(100, &[row(1, 60 * SECOND, 500)]);
    let other = StagedRow { tuple: tuple(2000), ..row(1, 105 * SECOND, 900) };
    let change = agent.change(110, &[other]);
    assert_eq!((change.life.generation, change.delta[0]), (1, 900));
    let same_tuple = StagedRow { tuple: tuple(2000), ..row(1, 115 * SECOND, 950) };
    let change = agent.change(120, &[same_tuple]);
    assert_eq!((change.life.generation, change.delta[0]), (2, 950));
}

#[test]
fn a_superseded_life_gets_its_last_bytes_when_its_closed_row_comes() {
    let mut agent = Agent::new();
    agent.poll(100, &[row(1, 60 * SECOND, 500)]);
    let next = StagedRow { tuple: tuple(2000), ..row(1, 105 * SECOND, 900) };
    agent.change(110, &[next]);
    let last = agent.change(120, &[closed(1, 60 * SECOND, 520, 104 * SECOND), next]);
    assert_eq!((last.life.generation, last.delta[0], last.life.totals[0]), (0, 20, 520));
    assert_eq!(agent.poll(130, &[closed(1, 60 * SECOND, 520, 104 * SECOND)]), [Outcome::Repeated]);
    assert_eq!(agent.change(140, &[StagedRow { reading: Reading::Totals([901, 0, 0]), ..next }]).delta[0], 1);
}

#[test]
fn lives_that_came_and_went_between_two_polls_are_each_counted_once() {
    let mut agent = Agent::new();
    agent.poll(100, &[]);
    let rows = [
        closed(1, 101 * SECOND, 10, 102 * SECOND),
        closed(1, 103 * SECOND, 20, 104 * SECOND),
        row(1, 105 * SECOND, 30),
    ];
    let sum = |outcomes: &[Outcome]| -> (u64, Vec<u32>) {
        let changes = outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Changed(change) => Some((change.delta[0], change.life.generation)),
            _ => None,
        });
        let (deltas, generations): (Vec<u64>, Vec<u32>) = changes.unzip();
        (deltas.iter().sum(), generations)
    };
    assert_eq!(sum(&agent.poll(110, &rows)), (60, vec![0, 1, 2]));
    assert_eq!(sum(&agent.poll(120, &rows)), (0, vec![]));
}

#[test]
fn a_closed_row_is_counted_once_however_often_it_comes() {
    let mut agent = Agent::new();
    agent.poll(100, &[row(1, 60 * SECOND, 500)]);
    let last = closed(1, 60 * SECOND, 550, 105 * SECOND);
    assert_eq!(agent.change(110, &[last]).delta[0], 50);
    assert_eq!(agent.poll(120, &[last, last]), [Outcome::Repeated, Outcome::Repeated]);
}

#[test]
fn an_open_and_a_closed_row_of_one_connection_in_one_reply_are_one_key() {
    let mut agent = Agent::new();
    agent.poll(100, &[]);
    let outcomes = agent.poll(110, &[row(1, 105 * SECOND, 40), closed(1, 105 * SECOND, 50, 106 * SECOND)]);
    assert!(matches!(&outcomes[0], Outcome::Changed(change) if change.delta[0] == 50));
    assert_eq!(outcomes[1], Outcome::Stale);
}

#[test]
fn after_a_disconnect_the_socket_lives_on_in_the_next_generation() {
    let mut agent = Agent::new();
    agent.poll(100, &[row(1, 60 * SECOND, 500)]);
    let gone = StagedRow { close_reason: Word::DISCONNECTED, ..closed(1, 60 * SECOND, 500, 105 * SECOND) };
    agent.poll(110, &[gone]);
    let change = agent.change(120, &[row(1, 0, 600)]);
    assert_eq!((change.life.generation, change.delta[0]), (1, 600));
}

#[test]
fn udp_counters_of_another_run_are_other_counters() {
    let udp = |sent| StagedRow { protocol: Protocol::Udp, ..row(1, 0, sent) };
    let mut agent = Agent::new();
    agent.poll(100, &[udp(500)]);
    agent.run = 8;
    agent.run_since = 2;
    let change = agent.change(110, &[udp(600)]);
    assert_eq!((change.life.run, change.delta[0]), (8, 600));
    let tcp = agent.change(120, &[row(2, 0, 1)]);
    assert_eq!(tcp.life.run, 0, "the kernel's counters know no run");
}

#[test]
fn the_2019_tracers_counters_that_restart_at_zero_are_counted_on() {
    let mut agent = Agent::new();
    agent.poll(100, &[legacy(500, 0)]);
    agent.poll(230, &[]);
    let change = agent.change(240, &[legacy(20, 0)]);
    assert_eq!((change.life.generation, change.delta[0]), (1, 20));
}

/// A row of the 2019 feed: its total and its `last_sent_bytes`.
fn legacy(total: u64, last: u64) -> StagedRow {
    StagedRow { cookie: 0, last: [last, 0], ..row(0, 0, total) }
}

#[test]
fn a_key_closed_and_opened_anew_within_an_interval_of_the_2019_tracer_is_counted_once() {
    // 500 of the old connection, then 40 more and 70 of the next one in one row, then the next one alone.
    let mut agent = Agent::new();
    agent.poll(100, &[legacy(500, 0)]);
    assert_eq!(agent.change(110, &[legacy(610, 110)]).delta[0], 110);
    let alone = agent.change(120, &[legacy(100, 30)]);
    assert_eq!((alone.delta[0], alone.life.generation, alone.life.before[0]), (30, 1, 70));
    assert_eq!(agent.change(130, &[legacy(150, 50)]).delta[0], 50);
    // The next one has overtaken the sum: no total falls.
    let mut agent = Agent::new();
    agent.poll(100, &[legacy(500, 0)]);
    agent.poll(110, &[legacy(610, 110)]);
    let alone = agent.change(120, &[legacy(670, 600)]);
    assert_eq!((alone.delta[0], alone.life.generation, alone.life.before[0]), (600, 1, 70));
    // Nothing came since: the row changed before the last poll.
    let mut agent = Agent::new();
    agent.poll(100, &[legacy(500, 0)]);
    agent.poll(110, &[legacy(610, 110)]);
    let idle = StagedRow { last_update: 109 * SECOND, ..legacy(70, 0) };
    assert_eq!(agent.change(120, &[idle]).delta[0], 0);
}

#[test]
fn a_restart_of_the_2019_tracer_counts_from_zero_once() {
    let mut agent = Agent::new();
    agent.poll(100, &[legacy(500, 0)]);
    // The first reply to a client that it does not know: no `last_*`, what it counts began after the last poll.
    let restarted = StagedRow { last_update: 108 * SECOND, ..legacy(30, 0) };
    assert_eq!(agent.change(110, &[restarted]).delta[0], 30);
    assert_eq!(agent.change(120, &[legacy(45, 15)]).delta[0], 15);
}

#[test]
fn what_the_2019_tracer_repeats_as_last_beyond_its_bound_is_not_counted_again() {
    let mut agent = Agent::new();
    agent.poll(90, &[]);
    let deltas: Vec<u64> =
        (1..5).map(|poll| agent.change(90 + 10 * poll, &[legacy(500 + poll, 500 + poll)]).delta[0]).collect();
    assert_eq!(deltas, [501, 1, 1, 1], "last_* is the total each time");
}

#[test]
fn a_client_that_the_2019_tracer_forgot_goes_on_from_its_totals() {
    let mut agent = Agent::new();
    agent.poll(100, &[legacy(500, 0)]);
    // Three minutes without a poll: the reply is a first one again, its `last_*` are 0, closed rows are not in it.
    assert_eq!(agent.change(280, &[legacy(900, 0)]).delta[0], 400);
}

#[test]
fn a_closed_row_of_the_2019_tracer_comes_once_and_is_counted_once() {
    let mut agent = Agent::new();
    agent.poll(90, &[]);
    agent.poll(100, &[legacy(500, 500)]);
    assert_eq!(agent.change(110, &[legacy(520, 20)]).delta[0], 20);
    assert!(agent.poll(120, &[]).is_empty());
}

#[test]
fn a_tuple_that_was_forgotten_is_another_counter_when_it_is_used_again() {
    let mut agent = Agent::new();
    agent.poll(90, &[]);
    let first = agent.change(100, &[legacy(500, 500)]);
    for poll in 11..200 {
        agent.poll(poll * 10, &[]);
    }
    assert_eq!(agent.table.len(), 0);
    let again = agent.change(2000, &[legacy(300, 300)]);
    assert_eq!(again.delta[0], 300);
    assert!(again.life.generation > first.life.generation, "its totals are not merged with the former ones");
}

#[test]
fn a_feed_that_has_only_deltas_is_summed() {
    let delta = |sent| StagedRow { reading: Reading::Deltas([sent, 0, 0]), ..row(0, 0, 0) };
    let mut agent = Agent::new();
    agent.poll(90, &[]);
    let first = agent.change(100, &[delta(5)]);
    assert_eq!(first.life.totals[0], 5);
    let change = agent.change(110, &[delta(7)]);
    assert_eq!((change.life.totals[0], change.delta[0], change.life.generation), (12, 7, first.life.generation));
    assert_eq!(agent.change(120, &[delta(u64::MAX)]).life.totals[0], u64::MAX, "sums do not wrap");
}

#[test]
fn a_row_that_vanished_is_known_for_half_an_hour() {
    let mut agent = Agent::new();
    agent.poll(100, &[row(1, 60 * SECOND, 500)]);
    agent.poll(1800, &[]);
    assert_eq!(agent.change(1810, &[row(1, 60 * SECOND, 510)]).delta[0], 10);
    for poll in 182..400 {
        agent.poll(poll * 10, &[]);
    }
    assert_eq!((agent.table.len(), agent.table.counts().vanished), (0, 1));
}

#[test]
fn a_socket_that_vanished_without_a_closed_row_is_told_once_after_its_second_absence() {
    let mut agent = Agent::new();
    let mut told = Vec::new();
    for rows in [vec![row(1, 0, 1), row(2, 0, 1)], vec![row(2, 0, 1)], vec![row(2, 0, 1)], vec![row(2, 0, 1)]] {
        agent.poll(100 + 10 * told.len() as u64, &rows);
        let poll = Poll {
            number: agent.polls,
            at: 0,
            run: 7,
            run_since: 1,
            same_run: true,
            previous: agent.previous,
            stream_began: None,
        };
        told.push(agent.table.ended_unseen(&poll));
    }
    assert_eq!(told, [0, 0, 1, 0]);
}

#[test]
fn a_full_table_refuses_new_connections_and_then_proves_nothing_by_absence() {
    let mut agent = Agent::new();
    agent.table = Table::new(2);
    agent.poll(100, &[row(1, 0, 1), row(2, 0, 1)]);
    assert_eq!(agent.poll(110, &[row(3, 0, 500)]), [Outcome::Full]);
    assert_eq!(agent.table.counts().full, 1);
    agent.poll(120, &[closed(1, 0, 1, 115 * SECOND)]);
    assert_eq!(agent.change(130, &[row(3, 0, 500)]).life.before[0], 500);
}

proptest! {
    /// Whatever a tracer tells, nothing panics or wraps, and a key's deltas and its part before add up to its total.
    #[test]
    fn of_every_key_before_and_deltas_add_up_to_the_total(
        polls in proptest::collection::vec(
            (proptest::collection::vec(
                (1u64..4, 0u64..4, 0u64..4, proptest::sample::select(vec![0, 1, 5, 1000, u64::MAX]), 0u16..2, any::<bool>(), 0u8..3),
                0..6,
            ), any::<bool>()),
            1..12,
        ),
    ) {
        let mut agent = Agent::new();
        let mut sums = std::collections::HashMap::new();
        for (index, (rows, complete)) in polls.iter().enumerate() {
            agent.complete = *complete;
            let rows: Vec<StagedRow> = rows.iter().map(|(cookie, start, close, sent, port, udp, gone)| StagedRow {
                cookie: cookie - 1,
                tuple: tuple(*port),
                start: start * 60 * SECOND,
                close: close * 70 * SECOND,
                protocol: if *udp { Protocol::Udp } else { Protocol::Tcp },
                close_reason: if *gone == 0 { Word::DISCONNECTED } else { Word::CLOSED },
                reading: Reading::Totals([*sent, sent / 2, 0]),
                ..row(0, 0, 0)
            }).collect();
            let mut sorted = rows.clone();
            sorted.sort_by_key(|row| if row.close == 0 { u64::MAX } else { row.close });
            for (row, outcome) in sorted.iter().zip(agent.poll(100 + index as u64 * 10, &rows)) {
                let Outcome::Changed(change) = outcome else { continue };
                let sum = sums.entry((key(row), change.life.generation, change.life.run)).or_insert((0u64, change.life.before[0]));
                sum.0 = sum.0.checked_add(change.delta[0]).unwrap();
                prop_assert_eq!(sum.1, change.life.before[0], "the part before never changes");
                prop_assert_eq!(sum.0 + sum.1, change.life.totals[0]);
            }
        }
    }
}

#[test]
fn what_is_acknowledged_is_forgotten_unless_its_generation_would_be_taken_again() {
    let mut agent = Agent::new();
    let counted = |generation, start, sent, close| StagedRow {
        tracer_generation: Some(generation),
        ..closed(1, start * SECOND, sent, close * SECOND)
    };
    // The second is not told by the tracer: its next life could get the same number.
    agent.poll(10, &[counted(0, 1, 5, 2), closed(2, SECOND, 5, 2 * SECOND)]);
    assert_eq!((agent.table.len(), agent.table.closed()), (2, 2));
    agent.table.acknowledged();
    assert_eq!((agent.table.len(), agent.table.closed()), (1, 1));
    assert!(agent.table.get(&Key::Socket { cookie: 2 }).is_some());
    // The socket is used again: its life goes on where the tracer's count is.
    let outcomes = agent.poll(20, &[counted(1, 15, 7, 16)]);
    let Outcome::Changed(change) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!((change.life.generation, change.delta), (1, [7, 0, 0]));
}
