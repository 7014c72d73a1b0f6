//! What is summed up of connections between two ends, over a span and step by step: of views that count, and of those that
//! do not what their end sent again.

use super::naming::Via;
use super::quality::Quality;
use super::rfc3339;
use super::selection::{Moved, Stepped};
use std::collections::BTreeMap;
use weir_model::{Certainty, Deltas, Side, UnixNanos};
use weir_store::EdgeTotal;
use weir_store::rollup::Sums;
use weir_wire::api::{Edge, EdgeEnd, Point};

/// What is summed up of connections.
#[derive(Clone, Debug)]
pub(crate) struct Sum {
    pub(super) sent: u64,
    pub(super) recv: u64,
    pub(super) retransmits: u64,
    pub(super) connections: u64,
    pub(super) failures: u64,
    pub(super) rtt_total: u64,
    pub(super) rtt_views: u64,
    pub(super) certainty: Certainty,
    /// Something was added.
    pub(super) is_there: bool,
    /// What of it is of which step, by the step's start; empty but for a series.
    pub(super) points: BTreeMap<UnixNanos, Moment>,
    /// How well it did in each step; empty where nobody asks for health.
    pub(super) quality: BTreeMap<UnixNanos, Quality>,
}

/// What is summed up of one step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    pub(super) sent: u64,
    pub(super) recv: u64,
    pub(super) opened: u64,
    pub(super) retransmits: u64,
    pub(super) failures: u64,
    pub(super) rtt_sum_us: u64,
    pub(super) rtt_rows: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            sent: 0,
            recv: 0,
            retransmits: 0,
            connections: 0,
            failures: 0,
            rtt_total: 0,
            rtt_views: 0,
            certainty: Certainty::Known,
            is_there: false,
            points: BTreeMap::new(),
            quality: BTreeMap::new(),
        }
    }
}

impl Moment {
    pub(super) fn of(sums: &Sums) -> Self {
        Self {
            sent: sums.sent,
            recv: sums.recv,
            opened: sums.opened,
            retransmits: sums.retransmits,
            failures: sums.failures,
            rtt_sum_us: sums.rtt_sum_us,
            rtt_rows: sums.rtt_rows,
        }
    }

    /// Adds what a view tells of a step.
    pub(super) fn add(&mut self, side: Side, moved: Deltas, stepped: &Stepped) {
        let (sent, recv) = from_client(side, moved);
        self.merge(Self {
            sent,
            recv,
            opened: u64::from(stepped.opened),
            retransmits: moved.retransmits,
            failures: 0,
            rtt_sum_us: stepped.rtt.0,
            rtt_rows: stepped.rtt.1,
        });
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.sent = self.sent.saturating_add(other.sent);
        self.recv = self.recv.saturating_add(other.recv);
        self.opened = self.opened.saturating_add(other.opened);
        self.retransmits = self.retransmits.saturating_add(other.retransmits);
        self.failures = self.failures.saturating_add(other.failures);
        self.rtt_sum_us = self.rtt_sum_us.saturating_add(other.rtt_sum_us);
        self.rtt_rows = self.rtt_rows.saturating_add(other.rtt_rows);
    }
}

/// What the client sent and received.
pub(super) fn from_client(side: Side, moved: Deltas) -> (u64, u64) {
    match side {
        Side::Client => (moved.sent.0, moved.recv.0),
        Side::Server => (moved.recv.0, moved.sent.0),
    }
}

impl Sum {
    /// `rtt`: the sum of round-trip times, microseconds, and how many they are.
    pub(super) fn add(&mut self, side: Side, moved: Deltas, rtt: (u64, u64), counts: bool, failed: bool) {
        let (sent, recv) = from_client(side, moved);
        self.merge(Self {
            sent,
            recv,
            retransmits: moved.retransmits,
            connections: u64::from(counts),
            failures: u64::from(failed),
            rtt_total: rtt.0,
            rtt_views: rtt.1,
            certainty: self.certainty,
            is_there: true,
            points: BTreeMap::new(),
            quality: BTreeMap::new(),
        });
    }

    /// What a view that does not count adds: what its end sent again. `steps`: nothing where none were asked for.
    pub(super) fn add_uncounted(
        &mut self,
        side: Side,
        moved: &Moved,
        steps: Option<&Vec<(UnixNanos, Stepped)>>,
        asks_health: bool,
    ) {
        self.retransmits = self.retransmits.saturating_add(moved.all.retransmits);
        for (at, stepped) in steps.into_iter().flatten() {
            if stepped.all.retransmits > 0 {
                self.points.entry(*at).or_default().retransmits += stepped.all.retransmits;
            }
            if asks_health {
                self.quality.entry(*at).or_default().merge(&Quality::uncounted(side, stepped));
            }
        }
    }

    /// How well a connection did, by step, as the view that counts tells it.
    pub(super) fn note_quality(&mut self, side: Side, steps: Option<&Vec<(UnixNanos, Stepped)>>) {
        for (at, stepped) in steps.into_iter().flatten() {
            self.quality.entry(*at).or_default().merge(&Quality::counted(side, stepped));
        }
    }

    pub(super) fn note_settled_quality(&mut self, counted_by: Side, total: &EdgeTotal) {
        for (at, sums) in &total.steps {
            self.quality.entry(*at).or_default().merge(&Quality::settled(counted_by, sums));
        }
        for (at, reason, count) in &total.failed {
            self.quality.entry(*at).or_default().fail(reason, *count);
        }
    }

    /// As [`Sum::add_uncounted`], of settled sums.
    pub(super) fn add_settled_uncounted(&mut self, side: Side, total: &EdgeTotal, asks_health: bool) {
        self.retransmits = self.retransmits.saturating_add(total.sums.retransmits);
        for (at, sums) in &total.steps {
            if sums.retransmits > 0 {
                self.points.entry(*at).or_default().retransmits += sums.retransmits;
            }
            if asks_health {
                self.quality.entry(*at).or_default().merge(&Quality::settled_uncounted(side, sums));
            }
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.sent = self.sent.saturating_add(other.sent);
        self.recv = self.recv.saturating_add(other.recv);
        self.retransmits = self.retransmits.saturating_add(other.retransmits);
        self.connections += other.connections;
        self.failures += other.failures;
        self.rtt_total += other.rtt_total;
        self.rtt_views += other.rtt_views;
        self.certainty = self.certainty.min(other.certainty);
        self.is_there |= other.is_there;
        for (at, moment) in other.points {
            self.points.entry(at).or_default().merge(moment);
        }
        for (at, quality) in other.quality {
            self.quality.entry(at).or_default().merge(&quality);
        }
    }

    pub(super) fn points(&self) -> Vec<Point> {
        let point = |(at, moment): (&UnixNanos, &Moment)| Point {
            at: rfc3339(*at),
            sent_bytes: moment.sent,
            recv_bytes: moment.recv,
            opened: moment.opened,
            retransmits: moment.retransmits,
            failures: moment.failures,
            rtt_us: moment.rtt_sum_us.checked_div(moment.rtt_rows),
        };
        self.points.iter().map(point).collect()
    }

    pub(super) fn edge(&self, (port, protocol): (u16, &str), client: EdgeEnd, server: EdgeEnd, via: Via) -> Edge {
        Edge {
            client,
            server,
            service: via.service,
            service_certainty: via.certainty.map(|certainty| certainty.as_str().to_owned()),
            service_candidates: via.candidates,
            port,
            protocol: protocol.to_owned(),
            sent_bytes: self.sent,
            recv_bytes: self.recv,
            connections: self.connections,
            retransmits: self.retransmits,
            rtt_us: self.rtt_total.checked_div(self.rtt_views),
            failures: self.failures,
            certainty: self.certainty.as_str().to_owned(),
            health: None,
        }
    }
}
