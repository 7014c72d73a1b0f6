//! The promise: whatever dies, repeats, overtakes or is cut off, what was acknowledged is there, and is counted once.
//! `make torture` plays 200 runs; here a few random ones are.

use anyhow::{Result, ensure};
use weir_testkit::torture::blind::{self, Manner};
use weir_testkit::torture::parts::can_set_clocks;
use weir_testkit::torture::plan::{Network, Plan, State};
use weir_testkit::torture::run::play;

fn first_seed() -> Result<u64> {
    Ok(match std::env::var("WEIR_SEED") {
        Ok(text) => text.parse()?,
        Err(_) => u64::from(std::process::id()),
    })
}

/// Plays a run of the seed, changed as the flags of the program that are told would.
fn torture(seed: u64, flags: &str, change: impl FnOnce(Plan) -> Plan) -> Result<()> {
    ensure!(can_set_clocks(), "Debian's package libfaketime is missing: `make test-packages` installs it");
    println!("seed {seed}: play it again with `weir-torture --seed {seed} {flags}`");
    let outcome = play(&change(Plan::of(seed)))?;
    ensure!(outcome.killed() > 0 && outcome.flows > 50 && outcome.reads > 0, "a run without a fault: {outcome:?}");
    Ok(())
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_counted_twice() -> Result<()> {
    torture(first_seed()?, "", |plan| plan)
}

#[test]
fn the_same_over_a_simulated_network() -> Result<()> {
    torture(first_seed()? + 1, "--network simulated", |plan| plan.with_network(Network::Simulated))
}

#[test]
fn the_same_with_state_in_etcd() -> Result<()> {
    torture(first_seed()?, "--state etcd", |plan| plan.with_state(State::Etcd))
}

#[test]
fn the_same_with_state_in_three_members_of_etcd() -> Result<()> {
    torture(first_seed()?, "--state etcd-members", |plan| plan.with_state(State::EtcdMembers))
}

#[test]
fn the_same_with_state_in_configmaps() -> Result<()> {
    torture(first_seed()?, "--state configmap", |plan| plan.with_state(State::ConfigMap))
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
