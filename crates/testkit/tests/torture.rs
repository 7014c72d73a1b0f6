//! The promise: whatever dies, repeats, overtakes or is cut off, what was acknowledged is there, and is counted once.
//! `make torture` plays 200 runs; here a few random ones are.

use anyhow::{Result, ensure};
use weir_testkit::torture::blind::{self, Manner};
use weir_testkit::torture::parts::can_set_clocks;
use weir_testkit::torture::plan::{Plan, State};
use weir_testkit::torture::run::play;

/// Runs; 10 to 30 s each.
const RUNS: u64 = 2;

fn first_seed() -> Result<u64> {
    Ok(match std::env::var("WEIR_SEED") {
        Ok(text) => text.parse()?,
        Err(_) => u64::from(std::process::id()),
    })
}

/// Plays a run of the seed, its state where the seed says or where it is told.
fn torture(seed: u64, state: Option<(State, &str)>) -> Result<()> {
    ensure!(can_set_clocks(), "Debian's package libfaketime is missing: `make test-packages` installs it");
    let flag = state.map_or(String::new(), |(_, word)| format!(" --state {word}"));
    println!("seed {seed}: play it again with `weir-torture --seed {seed}{flag}`");
    let plan = Plan::of(seed);
    let outcome = play(&state.map_or(plan.clone(), |(state, _)| plan.with_state(state)))?;
    ensure!(outcome.killed() > 0 && outcome.flows > 50 && outcome.reads > 0, "a run without a fault: {outcome:?}");
    Ok(())
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_counted_twice() -> Result<()> {
    let first = first_seed()?;
    (first..first + RUNS).try_for_each(|seed| torture(seed, None))
}

#[test]
fn the_same_with_state_in_etcd() -> Result<()> {
    torture(first_seed()?, Some((State::Etcd, "etcd")))
}

#[test]
fn the_same_with_state_in_three_members_of_etcd() -> Result<()> {
    torture(first_seed()?, Some((State::EtcdMembers, "etcd-members")))
}

#[test]
fn the_same_with_state_in_configmaps() -> Result<()> {
    torture(first_seed()?, Some((State::ConfigMap, "configmap")))
}

#[test]
fn the_blind_overwrite_of_the_old_system_is_caught_by_the_same_checks() {
    let seed = u64::from(std::process::id());
    let caught = blind::play(seed, 5, Manner::Blind);
    assert!(!caught.transactions.is_empty(), "seed {seed}: the answers were the truth");
    assert!(!caught.acknowledged.is_empty(), "seed {seed}: nothing acknowledged was lost");
    assert!(!caught.went_back.is_empty(), "seed {seed}: no read went back");
    let compared = blind::play(seed, 5, Manner::Compared);
    assert_eq!((compared.transactions, compared.acknowledged, compared.went_back), Default::default(), "seed {seed}");
}
