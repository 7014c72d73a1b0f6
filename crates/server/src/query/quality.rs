//! How well an edge did in one step of time: what its verdict and its comparisons are made from.
//!
//! From connections that are not settled, and from the sums of those that are: of either end, what its view told.

use super::selection::Stepped;
use weir_model::Side;
use weir_store::rollup::Sums;

/// Why connections fail to open or break, in the words of the feed.
pub(crate) const REASONS: [&str; 5] = ["refused", "reset", "timed_out", "unreachable", "aborted"];

/// What a segment holds: an Ethernet frame's payload less the headers of IP and TCP with timestamps (1,448), a little
/// less where packets go through a tunnel.
const SEGMENT_BYTES: u64 = 1_400;

/// What one end sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sending {
    /// Segments, estimated: as many as its bytes fill, two for every connection that was opened, and one for each
    /// connection and window of 10 s.
    pub(crate) segments: u64,
    /// Those that were sent again, counted.
    pub(crate) resent: u64,
}

/// What is of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quality {
    /// Connections of which anything was told, each in as many windows of 10 s as it was.
    pub(crate) active: u64,
    /// Connections whose first record is of the step.
    pub(crate) opened: u64,
    /// Those that failed to open or broke, by [`REASONS`].
    pub(crate) failed: [u64; REASONS.len()],
    pub(crate) client: Sending,
    pub(crate) server: Sending,
    /// The smoothed round-trip times that were told, summed, microseconds; and how many were.
    pub(crate) rtt: (u64, u64),
    /// Payload bytes in both directions.
    pub(crate) bytes: u64,
}

impl Sending {
    fn of(bytes: u64, opened: u64, active: u64, resent: u64) -> Self {
        let filled = bytes.div_ceil(SEGMENT_BYTES);
        Self { segments: filled.saturating_add(opened.saturating_mul(2)).saturating_add(active), resent }
    }

    fn merge(&mut self, other: Self) {
        self.segments = self.segments.saturating_add(other.segments);
        self.resent = self.resent.saturating_add(other.resent);
    }
}

impl Quality {
    /// Of one connection in a step, by the view that counts.
    pub(crate) fn counted(side: Side, stepped: &Stepped) -> Self {
        let bytes = stepped.all.sent.0.saturating_add(stepped.all.recv.0);
        let counted = Self {
            active: stepped.windows,
            opened: u64::from(stepped.opened),
            rtt: stepped.rtt,
            bytes,
            ..Self::default()
        };
        counted.with(side, stepped)
    }

    /// What the view that does not count adds: what its end sent again.
    pub(crate) fn uncounted(side: Side, stepped: &Stepped) -> Self {
        Self::default().with(side, stepped)
    }

    fn with(mut self, side: Side, stepped: &Stepped) -> Self {
        let sending =
            Sending::of(stepped.all.sent.0, u64::from(stepped.opened), stepped.windows, stepped.all.retransmits);
        match side {
            Side::Client => self.client = sending,
            Side::Server => self.server = sending,
        }
        self
    }

    /// Of a step's settled sums; `side`: whose view counted.
    pub(crate) fn settled(side: Side, sums: &Sums) -> Self {
        Self {
            active: sums.rows,
            opened: sums.opened,
            rtt: (sums.rtt_sum_us, sums.rtt_rows),
            bytes: sums.sent.saturating_add(sums.recv),
            ..Self::settled_uncounted(side, sums)
        }
    }

    /// As [`Quality::uncounted`], of a step's settled sums, which are oriented from the client.
    pub(crate) fn settled_uncounted(side: Side, sums: &Sums) -> Self {
        let of = |bytes| Sending::of(bytes, sums.opened, sums.rows, sums.retransmits);
        match side {
            Side::Client => Self { client: of(sums.sent), ..Self::default() },
            Side::Server => Self { server: of(sums.recv), ..Self::default() },
        }
    }

    /// Counts connections that failed.
    pub(crate) fn fail(&mut self, reason: &str, count: u64) {
        for (failed, _) in self.failed.iter_mut().zip(REASONS).filter(|(_, word)| *word == reason) {
            *failed = failed.saturating_add(count);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.active = self.active.saturating_add(other.active);
        self.opened = self.opened.saturating_add(other.opened);
        for (failed, more) in self.failed.iter_mut().zip(other.failed) {
            *failed = failed.saturating_add(more);
        }
        self.client.merge(other.client);
        self.server.merge(other.server);
        self.rtt.0 = self.rtt.0.saturating_add(other.rtt.0);
        self.rtt.1 = self.rtt.1.saturating_add(other.rtt.1);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::{Bytes, Deltas};

    #[test]
    fn a_kept_connection_is_the_same_settled_or_not() {
        let all = Deltas { sent: Bytes(6), recv: Bytes(12), retransmits: 1 };
        let stepped = Stepped { all, windows: 6, rtt: (300, 3), ..Stepped::default() };
        let sums = Sums { sent: 6, recv: 12, retransmits: 1, rows: 6, rtt_sum_us: 300, rtt_rows: 3, ..Sums::default() };
        assert_eq!(Quality::counted(Side::Client, &stepped), Quality::settled(Side::Client, &sums));
        assert_eq!(Quality::counted(Side::Client, &stepped).client, Sending { segments: 7, resent: 1 });
        let from_server = Sums { sent: 12, recv: 6, ..sums };
        assert_eq!(Quality::uncounted(Side::Server, &stepped), Quality::settled_uncounted(Side::Server, &from_server));
    }
}
