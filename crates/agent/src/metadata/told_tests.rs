//! What is told of readings: news once, ends as late as known and no later, and nothing for want of an answer.

use super::*;
use weir_model::UnixNanos;

const S: i64 = 1_000_000_000;
const KINDS: &[&str] = &[kind::POD, kind::CONTAINER];

fn pod(id: &str, addresses: &[&str]) -> Said {
    Said {
        kind: kind::POD,
        id: id.into(),
        name: format!("{id}-name"),
        namespace: "shop".into(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        ..Said::default()
    }
}

fn started(said: Said, from: i64) -> Said {
    Said { from: Some(UnixNanos(from * S)), ..said }
}

fn finished(said: Said, to: i64) -> Said {
    Said { to: Some(UnixNanos(to * S)), ..said }
}

fn fresh() -> Told {
    Told::restored(&["kubelet"], Vec::new(), &BTreeMap::new())
}

/// A reading that began at `second` and took 100 ms.
fn read(told: &mut Told, second: i64, things: &[Said]) {
    let reading = Reading::Whole { things: things.to_vec(), missing: String::new() };
    told.take("kubelet", "kubelet", KINDS, (second * S, second * S + S / 10), Ok(reading));
}

/// What waits, as `id addresses from..to` in tenths of a second.
fn news(told: &mut Told) -> Vec<String> {
    let share = told.untold();
    told.durable(share.mark);
    share
        .facts
        .iter()
        .map(|fact| {
            let tenth = |nanos: i64| if nanos == 0 { String::new() } else { (nanos * 10 / S).to_string() };
            let addresses = fact.addresses.join("+");
            format!("{} {addresses} {}..{}", fact.id, tenth(fact.from_unix_ns), tenth(fact.to_unix_ns))
        })
        .collect()
}

#[test]
fn a_thing_is_told_once_and_again_when_it_changes() {
    let mut told = fresh();
    let mut a = started(pod("a", &["10.0.0.1"]), 5);
    read(&mut told, 10, &[a.clone()]);
    assert_eq!(news(&mut told), ["a 10.0.0.1 50.."]);
    read(&mut told, 20, &[a.clone()]);
    assert!(news(&mut told).is_empty());
    a.attributes.insert("phase".into(), "Running".into());
    read(&mut told, 30, &[a]);
    assert_eq!(news(&mut told), ["a 10.0.0.1 50.."], "under the same key");
}

#[test]
fn what_vanished_held_until_it_was_seen_last_and_not_until_it_was_missed() {
    let mut told = fresh();
    read(&mut told, 10, &[pod("a", &["10.0.0.1"])]);
    assert_eq!(news(&mut told), ["a 10.0.0.1 101.."], "known since it was there, not since it was asked for");
    read(&mut told, 20, &[pod("a", &["10.0.0.1"])]);
    read(&mut told, 30, &[started(pod("b", &["10.0.0.1"]), 25)]);
    assert_eq!(news(&mut told), ["b 10.0.0.1 250..", "a 10.0.0.1 101..200"]);
}

#[test]
fn an_end_that_the_source_tells_stands() {
    let mut told = fresh();
    read(&mut told, 10, &[started(pod("a", &["10.0.0.1"]), 5)]);
    news(&mut told);
    read(&mut told, 20, &[finished(started(pod("a", &[]), 5), 14)]);
    assert_eq!(news(&mut told), ["a 10.0.0.1 50..140"], "it had its address although its status lost it");
    read(&mut told, 30, &[]);
    assert!(news(&mut told).is_empty(), "its end is told already");
}

#[test]
fn a_source_that_fails_ends_nothing_and_one_that_is_off_claims_nothing() {
    let mut told = fresh();
    read(&mut told, 10, &[pod("a", &["10.0.0.1"])]);
    news(&mut told);
    for trouble in [Trouble::Failed("timeout".into()), Trouble::Refused("403".into())] {
        told.take("kubelet", "kubelet", KINDS, (20 * S, 21 * S), Err(trouble));
        assert!(news(&mut told).is_empty());
    }
    let health = told.health();
    assert_eq!((health[0].state.as_str(), health[0].detail.as_str()), ("refused", "403"));
    assert_eq!(health[0].read_unix_ns, 10 * S);
    told.take("kubelet", "kubelet", KINDS, (30 * S, 31 * S), Err(Trouble::Off("not asked".into())));
    assert_eq!(news(&mut told), ["a 10.0.0.1 101..101"], "until it was seen last, which is when it was seen first");
}

#[test]
fn another_address_is_another_fact_and_never_holds_for_the_time_before() {
    let mut told = fresh();
    read(&mut told, 10, &[started(pod("a", &["10.0.0.1"]), 5)]);
    read(&mut told, 20, &[started(pod("a", &["10.0.0.1"]), 5)]);
    news(&mut told);
    read(&mut told, 30, &[started(pod("a", &["10.0.0.2"]), 5)]);
    assert_eq!(news(&mut told), ["a 10.0.0.1 50..200", "a 10.0.0.2 301.."]);
    read(&mut told, 40, &[started(pod("a", &["10.0.0.2", "fd00::2"]), 5)]);
    assert_eq!(news(&mut told), ["a 10.0.0.2 301..401", "a 10.0.0.2+fd00::2 401.."], "without a gap for the first");
    read(&mut told, 50, &[started(pod("a", &["10.0.0.2", "fd00::2"]), 5)]);
    assert!(news(&mut told).is_empty());
}

#[test]
fn an_address_that_comes_later_than_its_pod_holds_since_the_source_says_so() {
    let mut told = fresh();
    read(&mut told, 10, &[started(pod("a", &[]), 9), started(pod("b", &[]), 9)]);
    news(&mut told);
    read(&mut told, 20, &[started(pod("a", &["10.0.0.1"]), 9), started(pod("b", &["10.0.0.2"]), 12)]);
    assert_eq!(news(&mut told), ["a 10.0.0.1 90..", "b  90..100", "b 10.0.0.2 120.."]);
}

#[test]
fn a_thing_that_starts_again_under_its_id_begins_anew() {
    let mut told = fresh();
    read(&mut told, 10, &[started(pod("a", &["10.0.0.1"]), 5)]);
    news(&mut told);
    read(&mut told, 20, &[started(pod("a", &["10.0.0.1"]), 15)]);
    assert_eq!(news(&mut told), ["a 10.0.0.1 50..100", "a 10.0.0.1 150.."]);
    read(&mut told, 30, &[finished(started(pod("a", &["10.0.0.1"]), 15), 25)]);
    assert_eq!(news(&mut told), ["a 10.0.0.1 150..250"]);
    read(&mut told, 40, &[started(pod("a", &["10.0.0.1"]), 35)]);
    assert_eq!(news(&mut told), ["a 10.0.0.1 350.."]);
}

#[test]
fn a_new_run_tells_everything_again_and_ends_what_vanished_in_between() {
    let mut first = fresh();
    read(&mut first, 10, &[pod("stays", &["10.0.0.1"]), pod("goes", &["10.0.0.2"])]);
    news(&mut first);
    read(&mut first, 20, &[pod("stays", &["10.0.0.1"]), pod("goes", &["10.0.0.2"])]);
    let (open, seen) = (first.open().concat(), first.read_times());

    let mut second = Told::restored(&["kubelet"], open.clone(), &seen);
    assert!(news(&mut second).is_empty(), "nothing is known before the first reading");
    read(&mut second, 90, &[pod("stays", &["10.0.0.1"]), pod("comes", &["10.0.0.2"])]);
    let mut told = news(&mut second);
    told.sort();
    assert_eq!(told, ["comes 10.0.0.2 901..", "goes 10.0.0.2 101..200", "stays 10.0.0.1 101.."]);

    let mut without = Told::restored(&[], open, &seen);
    let mut told = news(&mut without);
    told.sort();
    assert_eq!(
        told,
        ["goes 10.0.0.2 101..200", "stays 10.0.0.1 101..200"],
        "a source that is asked no more claims nothing"
    );
}

#[test]
fn what_ended_and_is_not_durable_is_ended_again_by_the_next_run() {
    let mut first = fresh();
    read(&mut first, 10, &[pod("a", &["10.0.0.1"])]);
    news(&mut first);
    read(&mut first, 20, &[]);
    let (open, seen) = (first.open().concat(), first.read_times());
    let mut second = Told::restored(&["kubelet"], open, &seen);
    read(&mut second, 30, &[]);
    assert_eq!(news(&mut second).len(), 1);
    read(&mut second, 40, &[]);
    assert!(second.open().concat().is_empty());
}

#[test]
fn a_newer_saying_takes_the_place_of_one_that_still_waits() {
    let mut told = fresh();
    read(&mut told, 10, &[started(pod("a", &["10.0.0.1"]), 5)]);
    let share = told.untold();
    let mut changed = started(pod("a", &["10.0.0.1"]), 5);
    changed.attributes.insert("phase".into(), "Running".into());
    read(&mut told, 11, &[changed]);
    told.durable(share.mark);
    let left = told.untold().facts;
    assert_eq!(left.len(), 1, "the newer one is not taken for durable");
    assert_eq!(left[0].attributes["phase"], "Running");
    read(&mut told, 12, &[started(pod("a", &["10.0.0.1"]), 5)]);
    assert_eq!(news(&mut told).len(), 1);
}

#[test]
fn what_waits_is_bounded_counted_and_told_at_the_next_reading() {
    let mut told = fresh();
    let things: Vec<Said> = (0..=MAX_WAITING).map(|index| pod(&index.to_string(), &[])).collect();
    read(&mut told, 10, &things);
    assert_eq!(told.take_dropped(), 1);
    let mut batches = 0;
    while !news(&mut told).is_empty() {
        batches += 1;
    }
    assert_eq!(batches, MAX_WAITING / MAX_FACTS);
    read(&mut told, 20, &things);
    assert_eq!(news(&mut told).len(), 1);
}

#[test]
fn a_reading_that_is_the_same_moves_the_time_of_the_last_sight() {
    let mut told = fresh();
    read(&mut told, 10, &[pod("a", &["10.0.0.1"])]);
    told.take("kubelet", "kubelet", KINDS, (20 * S, 21 * S), Ok(Reading::Same));
    news(&mut told);
    read(&mut told, 30, &[]);
    assert_eq!(news(&mut told), ["a 10.0.0.1 101..200"]);
}

#[test]
fn a_reading_is_not_vouched_for_while_some_of_what_it_said_waits_for_a_later_batch() {
    let mut told = Told::default();
    let things = |count: usize| -> Vec<Said> {
        (0..count).map(|number| Said { kind: kind::POD, id: format!("pod-{number}"), ..Said::default() }).collect()
    };
    let whole = |count| Ok(Reading::Whole { things: things(count), missing: String::new() });
    told.take(source::KUBELET, source::KUBELET, &[kind::POD], (10, 11), whole(MAX_FACTS + 1));
    let read = |told: &Told| told.health().first().map(|source| source.read_unix_ns);
    assert_eq!(read(&told), Some(0));
    let share = told.untold();
    told.durable(share.mark);
    assert_eq!(read(&told), Some(10));
}
