//! The promise: what is broken in the demo is named within two windows, rightly, and nothing else is. A short form of
//! `make tour`, with several faults at once.

use anyhow::{Result, ensure};
use std::sync::{Condvar, Mutex};
use std::time::Duration;
use weir_testkit::is_root_or_skip;
use weir_testkit::process::until;
use weir_testkit::tour::{Alarm, Demo, Expected, STOPS, Seen};

/// What is asked about at each look.
const SINCE: &str = "30s";
/// The past that faults are held against: an edge's own.
const QUIET: Duration = Duration::from_secs(60);
/// Two windows, the poll after them, and what a machine takes that builds and tests beside it.
const NAMED: Duration = Duration::from_secs(60);
/// As much again for what takes more than two windows to tell.
const CHANGED: Duration = Duration::from_secs(120);
/// The span, two windows and as much again.
const FORGOTTEN: Duration = Duration::from_secs(120);

/// Looks again and again for a time, and says what is too much.
fn watch(demo: &Demo, time: Duration, expected: &Expected) -> Result<String> {
    let (mut looks, mut text) = (0, String::new());
    let begin = now_text();
    let (never, condition) = (Mutex::new(()), Condvar::new());
    let guard = never.lock().map_err(|_poisoned| anyhow::anyhow!("poisoned"))?;
    let mut guard = Some(guard);
    while looks < time.as_secs() / 3 {
        text.push_str(&expected.too_much(&Seen::unhealthy(demo, SINCE)?));
        let held = guard.take().ok_or_else(|| anyhow::anyhow!("held"))?;
        let waited = condition.wait_timeout(held, Duration::from_secs(3));
        guard = Some(waited.map_err(|_poisoned| anyhow::anyhow!("poisoned"))?.0);
        looks += 1;
    }
    if !text.is_empty() {
        text = format!("from {begin} on: {text}");
    }
    Ok(text)
}

#[test]
fn what_is_broken_is_named_and_nothing_else_is() -> Result<()> {
    if !is_root_or_skip("what_is_broken_is_named_and_nothing_else_is") {
        return Ok(());
    }
    let demo = Demo::start()?;
    let calm = Expected::default();
    let wrong = watch(&demo, QUIET, &calm)?;
    ensure!(wrong.is_empty(), "at rest: {wrong}");
    for faults in [["refused", "loss"], ["dns", "rollout"]] {
        let stops = || STOPS.iter().filter(|stop| faults.contains(&stop.fault.name()));
        let alarms: Vec<Alarm> = stops().flat_map(|stop| stop.unhealthy).copied().collect();
        let (health, changes) = (Expected::of(&alarms), Expected::of(stops().flat_map(|stop| stop.changes)));
        let before = span(QUIET / 2);
        for fault in faults {
            demo.tell(&["fault", fault])?;
        }
        let began = now_text();
        let mut wrong = String::new();
        until(NAMED, || {
            let seen = Seen::unhealthy(&demo, SINCE)?;
            wrong.push_str(&health.too_much(&seen));
            let differs = health.differs(&seen);
            ensure!(differs.is_empty(), "{faults:?}: {differs}");
            Ok(true)
        })?;
        ensure!(wrong.is_empty(), "{faults:?}: {wrong}");
        let wrong = watch(&demo, Duration::from_secs(20), &health)?;
        ensure!(wrong.is_empty(), "{faults:?}: {wrong}");
        // What is new is judged by how long it was not there.
        let mut wrong = String::new();
        until(CHANGED, || {
            let seen = Seen::changes(&demo, &before, &format!("{began}..{}", now_text()))?;
            wrong.push_str(&changes.too_much(&seen));
            let differs = changes.differs(&seen);
            ensure!(differs.is_empty(), "{faults:?}, diff: {differs}");
            Ok(true)
        })?;
        ensure!(wrong.is_empty(), "{faults:?}, diff: {wrong}");
        for fault in faults {
            demo.tell(&["fault", fault, "off"])?;
        }
        until(FORGOTTEN, || {
            let seen = Seen::unhealthy(&demo, SINCE)?;
            ensure!(seen.is_empty(), "after {faults:?}: {}", calm.too_much(&seen));
            Ok(true)
        })?;
        watch(&demo, Duration::from_secs(30), &calm)?;
    }
    demo.stop()
}

/// The span of this length that ends now.
fn span(length: Duration) -> String {
    let now = now();
    format!("{}..{}", humantime::format_rfc3339_seconds(now - length), humantime::format_rfc3339_seconds(now))
}

fn now_text() -> String {
    humantime::format_rfc3339_seconds(now()).to_string()
}

#[expect(clippy::disallowed_methods, reason = "the demo takes place in real time")]
fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
