//! The promise: what `make bench-store` and `make bench-growth` measure is delivered as agents deliver it, and all of it is
//! in the answers, each byte once.

use anyhow::{Result, ensure};
use std::time::Duration;
use weir_testkit::crowd::delivery::Pace;
use weir_testkit::crowd::{Order, Outcome, play};

fn is_exact(order: &Order) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let outcome: Outcome = play(order, folder.path(), &[])?;
    ensure!(outcome.wrong.is_empty(), "{:?}", outcome.wrong);
    ensure!(outcome.records == (order.members * order.connections) as u64 * order.polls, "{} records", outcome.records);
    ensure!(outcome.acknowledged_p50_ms <= outcome.acknowledged_p99_ms, "{}", outcome.row());
    ensure!(Outcome::HEAD.lines().all(|line| line.matches('|').count() == outcome.row().matches('|').count()));
    Ok(())
}

#[test]
fn a_crowd_that_delivers_as_fast_as_it_goes_is_counted_to_the_byte() -> Result<()> {
    is_exact(&Order { members: 3, connections: 40, polls: 25, pace: Pace::Flat })
}

#[test]
fn a_crowd_that_delivers_at_a_pace_is_counted_to_the_byte() -> Result<()> {
    is_exact(&Order { members: 2, connections: 20, polls: 12, pace: Pace::Every(Duration::from_millis(50)) })
}
