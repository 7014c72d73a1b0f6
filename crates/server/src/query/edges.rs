//! Who talks to whom: every counted connection's moved bytes, summed by its ends, port and protocol.
//!
//! Each byte is counted once: from the client's view; from the server's only where no client's view pairs with it and
//! the client's node did not cover the row (R5). What a covered client's node should have told but did not is a told
//! loss, `unpaired`, so that edges plus losses equal the connections.

use super::params::Question;
use super::selection::{Depth, Moved, Selection, Subject};
use super::{Sources, completeness, cut};
use crate::ingest::convert::is_failure;
use std::collections::BTreeMap;
use weir_model::{Certainty, Deltas, Side, UnixNanos};
use weir_store::{Loss, StoreError};
use weir_wire::api::{Answer, Edge, EdgeEnd};

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    client: EdgeEnd,
    server: EdgeEnd,
    port: u16,
    protocol: &'static str,
}

struct Sum {
    client: EdgeEnd,
    server: EdgeEnd,
    sent: u64,
    recv: u64,
    retransmits: u64,
    connections: u64,
    failures: u64,
    rtt_total: u64,
    rtt_views: u64,
    certainty: Certainty,
}

/// Answers `/api/v1/edges`.
pub(crate) fn answer(sources: &Sources, question: &Question) -> Result<Answer<Edge>, StoreError> {
    let now = sources.clock.wall();
    let (view, pending) = sources.live.read(&*sources.store)?;
    let selection = Selection::load(sources, &*view, &pending, question, Depth::History)?;
    let mut sums: BTreeMap<Key, Sum> = BTreeMap::new();
    let mut unpaired: BTreeMap<String, Loss> = BTreeMap::new();
    for subject in selection.subjects.values() {
        let moved = selection.moved.get(&subject.id).copied().unwrap_or_default();
        if (!subject.in_span && moved.rows == 0) || !subject.passes(question) {
            continue;
        }
        let Some(verdict) = selection.verdicts.get(&subject.id) else { continue };
        if verdict.is_counted_by_client() {
            continue;
        }
        let ends = selection.ends(subject);
        let at_node = question.node.as_ref().is_none_or(|glob| {
            [&ends.client, &ends.server].iter().any(|end| end.node.as_ref().is_some_and(|node| glob.matches(node)))
        });
        let at_port = question.port.is_none_or(|port| port == ends.server_port);
        if !at_node || !at_port || !selection.ends_pass(&ends, question) {
            continue;
        }
        let mut counted = moved.all;
        if verdict.is_unpaired_server() {
            let told = told_elsewhere(&selection, subject, &moved);
            if let Some(told) = told {
                let loss = unpaired.entry(subject.node.to_string()).or_default();
                loss.count += 1;
                loss.connections += 1;
                loss.bytes += told.sent.0 + told.recv.0;
                counted = minus(counted, told);
                if counted.is_zero() {
                    continue;
                }
            }
        }
        let (client, server) = (ends.client.grouped(question.by), ends.server.grouped(question.by));
        let anonymous = |end: &EdgeEnd| EdgeEnd { node: None, zone: None, address: None, ..end.clone() };
        let key = Key {
            client: anonymous(&client),
            server: anonymous(&server),
            port: ends.server_port,
            protocol: subject.protocol.as_str(),
        };
        let certainty = verdict.certainty.min(ends.client.certainty).min(ends.server.certainty);
        let sum = sums.entry(key).or_insert_with(|| Sum::new(client.clone(), server.clone(), certainty));
        sum.add(verdict.side, counted, subject, failed_within(subject, question));
        sum.certainty = sum.certainty.min(certainty);
        keep_shared(&mut sum.client, &client);
        keep_shared(&mut sum.server, &server);
    }
    let span = (question.since.unwrap_or(now), question.until.unwrap_or(now));
    let losses = unpaired
        .into_iter()
        .map(|(node, loss)| Loss {
            node,
            from: span.0,
            to: span.1,
            place: "server".into(),
            reason: "unpaired".into(),
            ..loss
        })
        .collect();
    let mut items: Vec<Edge> = sums.into_iter().map(|(key, sum)| sum.into_edge(&key)).collect();
    // Stable: edges of the same size stay in the order of their names.
    items.sort_by_key(|edge| std::cmp::Reverse(edge.sent_bytes.saturating_add(edge.recv_bytes)));
    let mut completeness = completeness::of(&*view, question, now, losses)?;
    completeness.omitted = cut(&mut items, question.limit);
    Ok(Answer { items, completeness })
}

/// What of an unpaired server's view lies within the client node's coverage: the client's view should be there and is
/// not. `None`: nothing of it.
fn told_elsewhere(selection: &Selection, subject: &Subject, moved: &Moved) -> Option<Deltas> {
    if moved.rows == 0 {
        return selection.is_client_covered(subject).then(Deltas::default);
    }
    let covered = moved.while_client_covered;
    (!covered.is_zero() || (moved.all.is_zero() && selection.is_client_covered(subject))).then_some(covered)
}

fn minus(all: Deltas, part: Deltas) -> Deltas {
    let mut rest = all;
    rest.sent.0 -= part.sent.0;
    rest.recv.0 -= part.recv.0;
    rest.retransmits -= part.retransmits;
    rest
}

fn failed_within(subject: &Subject, question: &Question) -> bool {
    let since = question.since.unwrap_or(UnixNanos(i64::MIN));
    let until = question.until.unwrap_or(UnixNanos(i64::MAX));
    is_failure(&subject.close_reason) && subject.last >= since && subject.last < until
}

/// A value that not all connections of an edge share is left out.
fn keep_shared(end: &mut EdgeEnd, other: &EdgeEnd) {
    for (mine, theirs) in
        [(&mut end.node, &other.node), (&mut end.zone, &other.zone), (&mut end.address, &other.address)]
    {
        if mine != theirs {
            *mine = None;
        }
    }
}

impl Sum {
    fn new(client: EdgeEnd, server: EdgeEnd, certainty: Certainty) -> Self {
        Self {
            client,
            server,
            sent: 0,
            recv: 0,
            retransmits: 0,
            connections: 0,
            failures: 0,
            rtt_total: 0,
            rtt_views: 0,
            certainty,
        }
    }

    fn add(&mut self, side: Side, moved: Deltas, subject: &Subject, failed: bool) {
        let (sent, recv) = match side {
            Side::Client => (moved.sent.0, moved.recv.0),
            Side::Server => (moved.recv.0, moved.sent.0),
        };
        self.sent = self.sent.saturating_add(sent);
        self.recv = self.recv.saturating_add(recv);
        self.retransmits = self.retransmits.saturating_add(moved.retransmits);
        self.connections += 1;
        self.failures += u64::from(failed);
        if let Some(rtt) = subject.rtt_us {
            self.rtt_total += u64::from(rtt);
            self.rtt_views += 1;
        }
    }

    fn into_edge(self, key: &Key) -> Edge {
        Edge {
            client: self.client,
            server: self.server,
            service: None,
            port: key.port,
            protocol: key.protocol.to_owned(),
            sent_bytes: self.sent,
            recv_bytes: self.recv,
            connections: self.connections,
            retransmits: self.retransmits,
            rtt_us: self.rtt_total.checked_div(self.rtt_views),
            failures: self.failures,
            certainty: self.certainty.as_str().to_owned(),
        }
    }
}
