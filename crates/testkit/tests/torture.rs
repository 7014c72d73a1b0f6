//! The promise: whatever dies, repeats, overtakes or is cut off, what was acknowledged is there, and is counted once.
//! `make torture` plays 200 runs; here a few random ones are.

use anyhow::{Result, ensure};
use weir_testkit::torture::blind::{self, Manner};
use weir_testkit::torture::parts::can_set_clocks;
use weir_testkit::torture::plan::Plan;
use weir_testkit::torture::run::play;

/// Runs; 10 to 30 s each.
const RUNS: u64 = 2;

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_counted_twice() -> Result<()> {
    ensure!(can_set_clocks(), "Debian's package libfaketime is missing: `make test-packages` installs it");
    let first: u64 = match std::env::var("WEIR_SEED") {
        Ok(text) => text.parse()?,
        Err(_) => u64::from(std::process::id()),
    };
    for seed in first..first + RUNS {
        println!("seed {seed}: play it again with `weir-torture --seed {seed}`");
        let outcome = play(&Plan::of(seed))?;
        ensure!(outcome.killed() > 0 && outcome.flows > 50 && outcome.reads > 0, "a run without a fault: {outcome:?}");
    }
    Ok(())
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
