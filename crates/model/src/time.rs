//! Instants and windows. Kernel time is [`MonotonicNanos`]; everything that leaves the node is [`UnixNanos`].

use std::fmt;

/// The length of a window in nanoseconds: 10 s (R7). It is not the poll's interval.
pub const WINDOW: i64 = 10_000_000_000;

/// `CLOCK_MONOTONIC`, nanoseconds since boot. Comparable only within one boot of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonotonicNanos(pub u64);

/// Nanoseconds since 1970-01-01T00:00:00Z, without leap seconds. Range: years 1677 to 2262.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixNanos(pub i64);

impl UnixNanos {
    /// The instant `nanos` later (earlier when negative), saturating at the range's ends.
    #[must_use]
    pub fn plus(self, nanos: i64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// How far `self` lies after `earlier`, in nanoseconds; negative when it lies before.
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// An aligned window of [`WINDOW`] nanoseconds, named by its start: `[start, start + WINDOW)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    start: UnixNanos,
}

impl Window {
    /// The window that a record whose polls span `[from, to)` belongs to: the one that holds `to` (R2).
    pub fn of(to: UnixNanos) -> Self {
        Self { start: UnixNanos(to.0.div_euclid(WINDOW).saturating_mul(WINDOW)) }
    }

    /// The window's first instant.
    pub fn start(self) -> UnixNanos {
        self.start
    }

    /// The first instant after the window.
    pub fn end(self) -> UnixNanos {
        self.start.plus(WINDOW)
    }
}

impl fmt::Display for MonotonicNanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09} s since boot", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_belongs_to_the_window_that_holds_its_end() {
        assert_eq!(Window::of(UnixNanos(19_999_999_999)).start(), UnixNanos(10_000_000_000));
        assert_eq!(Window::of(UnixNanos(20_000_000_000)).start(), UnixNanos(20_000_000_000));
    }

    #[test]
    fn windows_before_the_epoch_are_aligned_too() {
        assert_eq!(Window::of(UnixNanos(-1)).start(), UnixNanos(-WINDOW));
        assert_eq!(Window::of(UnixNanos(-1)).end(), UnixNanos(0));
    }
}
