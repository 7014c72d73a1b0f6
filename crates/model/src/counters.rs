//! Byte and packet counters. Bytes are transport payload (invariant 6).
//!
//! A [`Totals`] is absolute and has one writer; within one connection key totals merge by per-field maximum, which is
//! idempotent, commutative and associative (R1). A [`Deltas`] is what came between two polls; deltas of disjoint
//! intervals add.

use std::fmt;
use std::ops::AddAssign;

/// A number of payload bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B", self.0)
    }
}

/// What a connection's local end has sent and received since its counters were at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Totals {
    /// Payload that left at least once (retransmits not counted again).
    pub sent: Bytes,
    /// Payload that was accepted in order.
    pub recv: Bytes,
    /// Segments sent again (TCP only).
    pub retransmits: u64,
}

/// What a connection's local end sent and received between two polls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Deltas {
    /// Payload that left at least once.
    pub sent: Bytes,
    /// Payload that was accepted in order.
    pub recv: Bytes,
    /// Segments sent again.
    pub retransmits: u64,
}

impl Totals {
    /// Two readings of the same counter, in any order: the larger of each field (R1).
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self {
            sent: self.sent.max(other.sent),
            recv: self.recv.max(other.recv),
            retransmits: self.retransmits.max(other.retransmits),
        }
    }

    /// Whether a byte counter of `self`, read later than `before`, is smaller: the counter began anew (R1).
    /// Retransmits do not count: the 2019 feed shows them on several rows and resets them apart from the bytes.
    pub fn fell_below(self, before: Self) -> bool {
        self.sent < before.sent || self.recv < before.recv
    }

    /// What came since `baseline`; a field that fell counts as nothing.
    pub fn since(self, baseline: Self) -> Deltas {
        Deltas {
            sent: Bytes(self.sent.0.saturating_sub(baseline.sent.0)),
            recv: Bytes(self.recv.0.saturating_sub(baseline.recv.0)),
            retransmits: self.retransmits.saturating_sub(baseline.retransmits),
        }
    }
}

impl Deltas {
    /// Whether nothing came.
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }
}

impl AddAssign for Deltas {
    fn add_assign(&mut self, other: Self) {
        self.sent.0 = self.sent.0.saturating_add(other.sent.0);
        self.recv.0 = self.recv.0.saturating_add(other.recv.0);
        self.retransmits = self.retransmits.saturating_add(other.retransmits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn totals() -> impl Strategy<Value = Totals> {
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(sent, recv, retransmits)| Totals {
            sent: Bytes(sent),
            recv: Bytes(recv),
            retransmits,
        })
    }

    proptest! {
        #[test]
        fn merging_totals_is_idempotent_commutative_and_associative(a in totals(), b in totals(), c in totals()) {
            prop_assert_eq!(a.merge(a), a);
            prop_assert_eq!(a.merge(b), b.merge(a));
            prop_assert_eq!(a.merge(b).merge(c), a.merge(b.merge(c)));
            prop_assert!(!a.merge(b).fell_below(a));
        }

        #[test]
        fn deltas_of_consecutive_readings_add_up_to_the_total(mut readings in proptest::collection::vec(0u64..1 << 50, 1..20)) {
            readings.sort_unstable();
            let mut before = Totals::default();
            let mut sum = Deltas::default();
            for reading in &readings {
                let now = Totals { sent: Bytes(*reading), ..Totals::default() };
                sum += now.since(before);
                before = now;
            }
            prop_assert_eq!(sum.sent, before.sent);
        }
    }
}
