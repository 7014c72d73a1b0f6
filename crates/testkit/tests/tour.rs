//! The promise: what is broken in the demo is named within two windows, rightly, and nothing else is. A short form of
//! `make tour`, with several faults at once.

use anyhow::{Result, ensure};
use std::time::Duration;
use weir_testkit::is_root_or_skip;
use weir_testkit::process::until;
use weir_testkit::tour::watch::{awaited, now, span_until, watch};
use weir_testkit::tour::{Alarm, Demo, Expected, STOPS, Seen};

/// Two windows, the poll after them, and what a machine takes that builds and tests beside it.
const NAMED: Duration = Duration::from_secs(60);
/// As much again for what takes more than two windows to tell, and for what is over to be forgotten.
const LONG: Duration = Duration::from_secs(120);
/// What is broken one after the other: what was before is mended as the next breaks.
const GROUPS: [[&str; 2]; 2] = [["refused", "loss"], ["dns", "rollout"]];

#[test]
fn what_is_broken_is_named_and_nothing_else_is() -> Result<()> {
    if !is_root_or_skip("what_is_broken_is_named_and_nothing_else_is") {
        return Ok(());
    }
    let demo = Demo::start()?;
    let unhealthy = || Seen::unhealthy(&demo);
    let rest = watch(Duration::from_secs(60), &Expected::default(), unhealthy)?;
    ensure!(rest.looks > 2 && rest.wrong.is_empty(), "at rest: {rest:?}");
    let mut last: ([&str; 2], Expected, Expected) = <_>::default();
    for faults in GROUPS {
        let stops = || STOPS.iter().filter(|stop| faults.contains(&stop.fault.name()));
        let alarms: Vec<Alarm> = stops().flat_map(|stop| stop.unhealthy).copied().collect();
        let of_health = Expected::of(&alarms).beside(&last.1);
        let of_changes = Expected::of(stops().flat_map(|stop| stop.changes)).beside(&last.2);
        let before = span_until(now(), Duration::from_secs(30));
        for over in last.0.iter().filter(|over| !over.is_empty()) {
            demo.tell(&["fault", over, "off"])?;
        }
        for fault in faults {
            demo.tell(&["fault", fault])?;
        }
        let began = now();
        let named = awaited(NAMED, &of_health, unhealthy)?;
        ensure!(named.wrong.is_empty(), "{faults:?}: {named:?}");
        // What is new is judged by how long it was not there.
        let changed =
            awaited(LONG, &of_changes, || Seen::changes(&demo, &before, &span_until(now(), began.elapsed())))?;
        ensure!(changed.wrong.is_empty(), "{faults:?}, diff: {changed:?}");
        // What is named stays all that is, after it has been there for a while, too.
        let after = watch(Duration::from_secs(10), &of_health, unhealthy)?;
        ensure!(after.wrong.is_empty(), "{faults:?}: {after:?}");
        last = (faults, of_health, of_changes);
    }
    for fault in last.0 {
        demo.tell(&["fault", fault, "off"])?;
    }
    until(LONG, || {
        let seen = unhealthy()?;
        ensure!(seen.is_empty(), "after all: {}", Expected::default().too_much(&seen));
        Ok(true)
    })?;
    demo.stop()
}
