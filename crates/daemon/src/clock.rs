//! Time, injected. Wall time is monotonic time plus an offset that is fixed when the clock is made (R7), so that a
//! stepped system clock moves no window.

use std::sync::atomic::{AtomicU64, Ordering};
use weir_model::{MonotonicNanos, UnixNanos};

/// A source of both times.
pub trait Clock: Send + Sync + 'static {
    /// `CLOCK_MONOTONIC`.
    fn monotonic(&self) -> MonotonicNanos;

    /// Wall time at `monotonic == 0`, as fixed when the clock was made.
    fn wall_offset(&self) -> i64;

    /// The wall time of a monotonic instant of this boot.
    fn to_wall(&self, monotonic: MonotonicNanos) -> UnixNanos {
        UnixNanos(self.wall_offset().saturating_add(monotonic.0 as i64))
    }

    /// The wall time now.
    fn wall(&self) -> UnixNanos {
        self.to_wall(self.monotonic())
    }
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    wall_offset: i64,
}

impl SystemClock {
    /// Reads both clocks once and fixes the offset between them.
    pub fn new() -> Self {
        Self { wall_offset: read(nix::time::ClockId::CLOCK_REALTIME) - read(nix::time::ClockId::CLOCK_MONOTONIC) }
    }

    /// How far the system's wall clock has moved away from this clock's since it was made, in nanoseconds.
    pub fn drift(&self) -> i64 {
        read(nix::time::ClockId::CLOCK_REALTIME) - self.wall().0
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> MonotonicNanos {
        MonotonicNanos(read(nix::time::ClockId::CLOCK_MONOTONIC) as u64)
    }

    fn wall_offset(&self) -> i64 {
        self.wall_offset
    }
}

/// Both clocks are always readable on Linux (`clock_gettime(2)`: the only errors are a bad id or a bad pointer).
fn read(id: nix::time::ClockId) -> i64 {
    id.now().map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

/// A clock that a test moves by hand.
#[derive(Debug)]
pub struct ManualClock {
    monotonic: AtomicU64,
    wall_offset: i64,
}

impl ManualClock {
    /// A clock that stands at `monotonic`, with wall time `wall_offset` nanoseconds ahead of it.
    pub fn new(monotonic: MonotonicNanos, wall_offset: i64) -> Self {
        Self { monotonic: AtomicU64::new(monotonic.0), wall_offset }
    }

    /// Moves the clock on.
    pub fn advance(&self, nanos: u64) {
        self.monotonic.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> MonotonicNanos {
        MonotonicNanos(self.monotonic.load(Ordering::Relaxed))
    }

    fn wall_offset(&self) -> i64 {
        self.wall_offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_follows_the_monotonic_clock() {
        let clock = ManualClock::new(MonotonicNanos(5), 100);
        assert_eq!(clock.wall(), UnixNanos(105));
        clock.advance(10);
        assert_eq!(clock.wall(), UnixNanos(115));
        assert_eq!(clock.to_wall(MonotonicNanos(1)), UnixNanos(101));
    }
}
