//! What the agent's tests stand on: the real `weir-agent` as a process, a feed that answers as told, and a server that
//! takes batches and remembers them.

#![allow(dead_code, reason = "every test file uses its own part of it")]
#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]
#![allow(unreachable_pub, reason = "a module of tests is no library")]

pub mod agent;
pub mod feed;
pub mod ingest;

use std::time::Duration;

/// How long a test waits for what it knows must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives something.
///
/// # Panics
/// When it does not within [`PATIENCE`].
#[expect(clippy::disallowed_methods, reason = "polls a condition under a deadline")]
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = std::time::Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lets time pass between two kills.
#[expect(clippy::disallowed_methods, reason = "a random moment is what is wanted")]
pub fn after(time: Duration) {
    std::thread::sleep(time);
}

/// `CLOCK_MONOTONIC` now, nanoseconds.
pub fn monotonic() -> u64 {
    let time = nix::time::ClockId::CLOCK_MONOTONIC.now().unwrap();
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}
