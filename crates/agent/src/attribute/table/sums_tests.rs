use super::super::key::Key;
use super::super::saved::SavedCounter;
use super::super::stage::{Reading, StagedRow};
use super::tests::{Agent, SECOND, row};
use super::{Outcome, Table};
use proptest::prelude::*;
use weir_model::Protocol;

/// A row of system-probe.
fn told(reading: Reading) -> StagedRow {
    StagedRow { reading, ..row(0, 0, 0) }
}

fn deltas(sent: u64) -> StagedRow {
    told(Reading::Deltas([sent, 0, 0]))
}

fn established(sent: u64) -> StagedRow {
    StagedRow { begins: true, ..deltas(sent) }
}

fn closing(sent: u64, at: u64) -> StagedRow {
    StagedRow { close: at * SECOND, ..deltas(sent) }
}

fn baseline(sent: u64) -> StagedRow {
    told(Reading::Baseline([sent, 0, 0]))
}

fn restarted(sent: u64) -> StagedRow {
    told(Reading::FirstDeltas([sent, 0, 0]))
}

#[test]
fn the_first_fetch_is_before_the_first_sight_and_deltas_are_summed_onto_it() {
    let mut agent = Agent::new();
    let first = agent.change(100, &[baseline(500)]);
    assert_eq!((first.delta[0], first.life.before[0], first.life.totals[0]), (0, 500, 500));
    let then = agent.change(110, &[deltas(7)]);
    assert_eq!((then.delta[0], then.life.before[0], then.life.totals[0], then.opened), (7, 500, 507, false));
}

#[test]
fn a_connection_that_is_told_for_the_first_time_is_new_as_a_whole_however_old_it_is() {
    let mut agent = Agent::new();
    agent.poll(100, &[]);
    // Idle since before the first fetch of a version that tells a new client zeros: only what came since is told.
    let change = agent.change(110, &[deltas(40)]);
    assert_eq!((change.delta[0], change.life.before[0], change.opened), (40, 0, true));
}

#[test]
fn a_row_that_is_left_out_is_not_closed_and_one_with_a_close_is() {
    let mut agent = Agent::new();
    agent.poll(90, &[]);
    let first = agent.change(100, &[established(10)]);
    for poll in 11..20 {
        agent.poll(poll * 10, &[]);
    }
    let then = agent.change(200, &[deltas(5)]);
    assert_eq!((then.life.generation, then.life.totals[0]), (first.life.generation, 15));
    let last = agent.change(210, &[closing(1, 210)]);
    assert_eq!((last.life.totals[0], last.delta[0]), (16, 1));
    assert_eq!(agent.table.closed(), 1);
    let next = agent.change(220, &[established(30)]);
    assert_eq!((next.life.totals[0], next.delta[0], next.opened), (30, 30, true));
    assert!(next.life.generation > first.life.generation, "the tuple is used again");
}

#[test]
fn every_row_of_a_tuple_in_one_reply_counts() {
    // One closed and another one opened on the same tuple: two rows, told apart by a cookie that is not in the reply.
    let mut agent = Agent::new();
    agent.poll(90, &[]);
    agent.poll(100, &[established(10)]);
    let outcomes = agent.poll(110, &[closing(3, 110), established(40), StagedRow { begins: true, ..closing(7, 110) }]);
    let counted: Vec<(u64, bool)> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Changed(change) => (change.delta[0], change.opened),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(counted.iter().map(|(delta, _)| delta).sum::<u64>(), 50);
    assert_eq!(counted.iter().filter(|(_, opened)| *opened).count(), 2);
}

#[test]
fn a_connection_whose_predecessors_close_was_lost_is_another_one() {
    let mut agent = Agent::new();
    agent.poll(90, &[]);
    let first = agent.change(100, &[established(10)]);
    let next = agent.change(110, &[established(20)]);
    assert_eq!((next.opened, next.life.totals[0]), (true, 20));
    assert_eq!(next.life.generation, first.life.generation + 1);
    // One that was only retransmitting its SYN when it was told first is the same.
    let mut agent = Agent::new();
    agent.poll(90, &[]);
    let syn = agent.change(100, &[told(Reading::Deltas([0, 0, 2]))]);
    let open = agent.change(110, &[established(20)]);
    assert_eq!((open.opened, open.life.generation), (false, syn.life.generation));
}

#[test]
fn another_clients_first_fetch_bridges_what_a_lost_reply_told() {
    let mut agent = Agent::new();
    agent.poll(100, &[baseline(500)]);
    agent.poll(110, &[deltas(20)]);
    // A reply with 30 more got lost; the new client is told all that was counted.
    let bridged = agent.change(130, &[baseline(560)]);
    assert_eq!((bridged.delta[0], bridged.life.totals[0], bridged.life.generation), (40, 560, 0));
    assert_eq!(agent.change(140, &[deltas(1)]).life.totals[0], 561);
    assert_eq!(agent.poll(150, &[baseline(561)]), [Outcome::Unchanged]);
}

#[test]
fn what_an_old_system_probe_tells_a_new_client_as_zero_adds_and_takes_nothing() {
    let mut agent = Agent::new();
    agent.poll(100, &[baseline(0)]);
    agent.poll(110, &[deltas(20)]);
    assert_eq!(agent.poll(130, &[baseline(0)]), [Outcome::Unchanged]);
    let then = agent.change(140, &[deltas(3)]);
    assert_eq!((then.delta[0], then.life.totals[0]), (3, 23));
}

#[test]
fn a_restart_counts_all_that_the_new_system_probe_has_counted_once() {
    let mut agent = Agent::new();
    agent.poll(100, &[baseline(500)]);
    agent.poll(110, &[deltas(20)]);
    agent.run = 8;
    let after = agent.change(120, &[restarted(15)]);
    assert_eq!((after.delta[0], after.life.totals[0], after.opened, after.life.generation), (15, 535, false, 0));
    assert_eq!(agent.change(130, &[deltas(5)]).life.totals[0], 540);
    // The sum is anchored in the new run: another client's first fetch bridges.
    let bridged = agent.change(150, &[baseline(27)]);
    assert_eq!((bridged.delta[0], bridged.life.totals[0]), (7, 547));
}

#[test]
fn a_sum_without_an_anchor_of_the_run_is_not_compared_with_its_count() {
    let mut agent = Agent::new();
    agent.poll(100, &[baseline(500)]);
    agent.run = 8;
    // The agent was away while system-probe started again, and the restart was not seen.
    assert_eq!(agent.poll(120, &[baseline(900)]), [Outcome::Unchanged]);
    assert_eq!(agent.change(130, &[deltas(5)]).life.totals[0], 505);
    assert_eq!(agent.change(150, &[baseline(915)]).delta[0], 10, "anchored since");
}

#[test]
fn a_count_that_fell_within_a_run_is_another_connections_and_adds_nothing_before_it_is_anchored() {
    let mut agent = Agent::new();
    agent.poll(100, &[baseline(500)]);
    assert_eq!(agent.poll(120, &[baseline(30)]), [Outcome::Unchanged]);
    assert_eq!(agent.change(140, &[baseline(45)]).delta[0], 15);
}

#[test]
fn udp_of_another_run_is_another_counter() {
    let udp = |row: StagedRow| StagedRow { protocol: Protocol::Udp, ..row };
    let mut agent = Agent::new();
    agent.poll(90, &[]);
    let first = agent.change(100, &[udp(deltas(10))]);
    agent.run = 8;
    let next = agent.change(110, &[udp(restarted(4))]);
    assert_eq!((next.delta[0], next.life.totals[0], next.opened), (4, 4, true));
    assert_ne!(next.life.run, first.life.run);
}

#[test]
fn an_anchor_survives_in_the_spool() {
    let mut agent = Agent::new();
    agent.poll(100, &[baseline(500)]);
    agent.poll(110, &[deltas(20)]);
    let key = Key::of(Protocol::Tcp, None, 1, 2, baseline(0).tuple);
    let saved = SavedCounter::of(&key, agent.table.get(&key).unwrap());
    let (restored, entry) = saved.counter().unwrap();
    agent.table = Table::new(10);
    agent.table.restore(restored, entry, 110 * SECOND);
    assert_eq!(agent.change(130, &[baseline(560)]).delta[0], 40);
}

/// What a system-probe and its wire do between two polls.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// So many bytes, and a reply that arrives.
    Told(u64),
    /// So many bytes, and a reply that is lost: the next one is another client's first.
    Lost(u64),
    /// It starts again, and counts so many bytes before it is asked.
    Restart(u64),
}

proptest! {
    /// Bytes are never counted twice, and none is lost but while nobody counts.
    #[test]
    fn of_one_open_connection_all_that_is_counted_is_counted_once(
        before in 1u64..1 << 40,
        events in proptest::collection::vec(
            (0u64..1 << 40, 0..8u8).prop_map(|(bytes, kind)| match kind {
                0 => Event::Restart(bytes),
                1 | 2 => Event::Lost(bytes),
                _ => Event::Told(bytes),
            }),
            0..40,
        ),
    ) {
        let mut agent = Agent::new();
        let mut at = 100;
        agent.poll(at, &[baseline(before)]);
        let (mut truth, mut counted, mut own, mut is_lost, mut is_restarted) = (0, 0, before, false, false);
        // What no reply that arrived has told yet.
        let mut untold = 0;
        for event in events {
            at += 10;
            let (Event::Told(bytes) | Event::Lost(bytes) | Event::Restart(bytes)) = event;
            if let Event::Restart(_) = event {
                // What it had counted and nobody was told is gone.
                truth -= untold;
                (own, untold) = (0, 0);
                is_restarted = true;
                agent.run += 1;
            }
            (own, truth, untold) = (own + bytes, truth + bytes, untold + bytes);
            if let Event::Lost(_) = event {
                is_lost = true;
                continue;
            }
            let row = if is_restarted {
                restarted(own)
            } else if is_lost {
                baseline(own)
            } else {
                deltas(bytes)
            };
            (is_lost, is_restarted, untold) = (false, false, 0);
            if let [Outcome::Changed(change)] = &agent.poll(at, &[row])[..] {
                counted += change.delta[0];
                prop_assert_eq!(change.life.totals[0], change.life.before[0] + counted);
                prop_assert_eq!(counted, truth);
            }
        }
        prop_assert!(counted <= truth);
    }
}
