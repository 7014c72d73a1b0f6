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
/// What two faults at once are held against, and how long it was quiet before.
const GROUPS: [([&str; 2], u64); 2] = [(["refused", "loss"], 60), (["dns", "rollout"], 30)];

#[test]
fn what_is_broken_is_named_and_nothing_else_is() -> Result<()> {
    if !is_root_or_skip("what_is_broken_is_named_and_nothing_else_is") {
        return Ok(());
    }
    let demo = Demo::start()?;
    let unhealthy = || Seen::unhealthy(&demo);
    for (faults, quiet) in GROUPS {
        let rest = watch(Duration::from_secs(quiet), &Expected::default(), unhealthy)?;
        ensure!(rest.looks > 2 && rest.wrong.is_empty(), "before {faults:?}: {rest:?}");
        let stops = || STOPS.iter().filter(|stop| faults.contains(&stop.fault.name()));
        let alarms: Vec<Alarm> = stops().flat_map(|stop| stop.unhealthy).copied().collect();
        let (health, changes) = (Expected::of(&alarms), Expected::of(stops().flat_map(|stop| stop.changes)));
        let before = span_until(now(), Duration::from_secs(30));
        for fault in faults {
            demo.tell(&["fault", fault])?;
        }
        let began = now();
        let named = awaited(NAMED, &health, unhealthy)?;
        ensure!(named.wrong.is_empty(), "{faults:?}: {named:?}");
        let rest = watch(Duration::from_secs(20), &health, unhealthy)?;
        ensure!(rest.wrong.is_empty(), "{faults:?}: {rest:?}");
        // What is new is judged by how long it was not there.
        let changed = awaited(LONG, &changes, || Seen::changes(&demo, &before, &span_until(now(), began.elapsed())))?;
        ensure!(changed.wrong.is_empty(), "{faults:?}, diff: {changed:?}");
        for fault in faults {
            demo.tell(&["fault", fault, "off"])?;
        }
        until(LONG, || {
            let seen = unhealthy()?;
            ensure!(seen.is_empty(), "after {faults:?}: {}", Expected::default().too_much(&seen));
            Ok(true)
        })?;
    }
    demo.stop()
}
