//! Who talks to whom: every counted connection's moved bytes, summed by its ends, port and protocol.
//!
//! Each byte is counted once: from the client's view; from the server's only where no client's view pairs with it and
//! the client's node did not cover the row (R5). What a covered client's node should have told but did not is a told
//! loss, `unpaired`, so that edges plus losses equal the connections.

use super::ends::{EndId, EndTable, Ends};
use super::naming::{Naming, Via};
use super::params::{Grouping, Question};
use super::records::evicted;
use super::selection::{Depth, Moved, Selection, Subject};
use super::{Sources, completeness, cut};
use crate::ingest::convert::is_failure;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use weir_model::{Certainty, Deltas, Protocol, Side, UnixNanos};
use weir_store::{Loss, StoreError};
use weir_wire::api::{Answer, Edge, EdgeEnd};
use weir_wire::losses::{TRANSLATIONS_EVICTED, UNPAIRED};

/// Connections with the same ends, Service, port and protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Between {
    via: Via,
    client: EndId,
    server: EndId,
    port: u16,
    protocol: Protocol,
}

/// An edge's name: its ends under the asked grouping, without what its connections need not share.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    client: EdgeEnd,
    server: EdgeEnd,
    /// The Service or, where that is not one, all that it could be.
    services: Vec<String>,
    has_service: bool,
    port: u16,
    protocol: &'static str,
}

#[derive(Clone, Copy, Debug)]
struct Sum {
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
    let inventory = sources.names.read();
    let naming = Naming { inventory: &inventory, question };
    let mut table = EndTable::new(&selection, naming);
    // `None`: the question's filters do not let these ends through.
    let mut sums: HashMap<Between, Option<Sum>> = HashMap::new();
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
        let (client, server, port) = table.of(subject);
        let via = table.via(subject, server);
        let between = Between { via, client, server, port, protocol: subject.protocol };
        let sum = sums.entry(between).or_insert_with_key(|between| {
            let ends = Ends { client: table.get(client), server: table.get(server) };
            (between.via.passes(question) && passes(ends, port, question)).then(Sum::default)
        });
        let Some(sum) = sum else { continue };
        let mut counted = moved.all;
        if verdict.is_unpaired_server()
            && let Some(told) = told_elsewhere(&selection, naming, subject, &moved)
        {
            let loss = unpaired.entry(subject.node.to_string()).or_default();
            loss.count += 1;
            loss.connections += 1;
            loss.bytes += told.sent.0 + told.recv.0;
            counted = minus(counted, told);
            if counted.is_zero() {
                continue;
            }
        }
        sum.certainty = sum.certainty.min(verdict.certainty);
        sum.add(verdict.side, counted, subject, failed_within(subject, question));
    }
    let mut items = by_grouping(&table, sums, question);
    drop(inventory);
    // Stable: edges of the same size stay in the order of their names.
    items.sort_by_key(|edge| std::cmp::Reverse(edge.sent_bytes.saturating_add(edge.recv_bytes)));
    let losses = unpaired.into_iter().map(|(node, loss)| Loss {
        node,
        from: question.since.unwrap_or(now),
        to: question.until.unwrap_or(now),
        place: UNPAIRED.place.into(),
        reason: UNPAIRED.word.into(),
        intended: UNPAIRED.intended,
        ..loss
    });
    let losses = losses.chain(evicted(&*view, TRANSLATIONS_EVICTED)?).collect();
    let mut completeness = completeness::of(&*view, question, now, losses)?;
    completeness.omitted = cut(&mut items, question.limit);
    Ok(Answer { items, completeness })
}

fn passes(ends: Ends<'_>, port: u16, question: &Question) -> bool {
    let on_node = |glob: &super::params::Glob| {
        [ends.client, ends.server].iter().any(|end| end.node.as_ref().is_some_and(|node| glob.matches(node)))
    };
    question.node.as_ref().is_none_or(on_node) && question.port.is_none_or(|asked| asked == port) && ends.pass(question)
}

/// The sums under the asked grouping, in the order of their names.
fn by_grouping(table: &EndTable<'_>, sums: HashMap<Between, Option<Sum>>, question: &Question) -> Vec<Edge> {
    let mut edges: BTreeMap<Key, (EdgeEnd, EdgeEnd, Via, Sum)> = BTreeMap::new();
    let anonymous = |end: &EdgeEnd| EdgeEnd {
        kind: end.kind.clone(),
        namespace: end.namespace.clone(),
        name: end.name.clone(),
        ..EdgeEnd::default()
    };
    for (between, sum) in sums {
        let Some(mut sum) = sum.filter(|sum| sum.connections > 0) else { continue };
        let (client, server) = (table.get(between.client), table.get(between.server));
        let client = client.grouped(&question.by);
        let server = match &between.via {
            Via { service: Some(service), certainty, .. } if question.by == Grouping::Service => {
                service_end(service, certainty.unwrap_or_default())
            }
            _ => server.grouped(&question.by),
        };
        for end in [&client, &server] {
            sum.certainty = sum.certainty.min(Certainty::parse(&end.certainty));
        }
        let via = between.via;
        let key = Key {
            client: anonymous(&client),
            server: anonymous(&server),
            services: via.service.as_ref().map_or_else(|| via.candidates.clone(), |service| vec![service.clone()]),
            has_service: via.service.is_some(),
            port: between.port,
            protocol: between.protocol.as_str(),
        };
        match edges.entry(key) {
            Entry::Vacant(place) => {
                place.insert((client, server, via, sum));
            }
            Entry::Occupied(mut held) => {
                let (held_client, held_server, held_via, held_sum) = held.get_mut();
                keep_shared(held_client, &client);
                keep_shared(held_server, &server);
                held_via.certainty = held_via.certainty.min(via.certainty);
                held_via.candidates.extend(via.candidates);
                held_via.candidates.sort_unstable();
                held_via.candidates.dedup();
                held_sum.merge(sum);
            }
        }
    }
    edges.into_iter().map(|(key, (client, server, via, sum))| sum.into_edge(&key, client, server, via)).collect()
}

/// What of an unpaired server's view lies within the client node's coverage: the client's view should be there and is
/// not. `None`: nothing of it.
fn told_elsewhere(selection: &Selection, naming: Naming<'_>, subject: &Subject, moved: &Moved) -> Option<Deltas> {
    let is_covered = || selection.is_client_covered(naming.inventory, subject);
    if moved.rows == 0 {
        return is_covered().then(Deltas::default);
    }
    let covered = moved.while_client_covered;
    (!covered.is_zero() || (moved.all.is_zero() && is_covered())).then_some(covered)
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

/// A server under the Service that it was reached through.
fn service_end(service: &str, certainty: Certainty) -> EdgeEnd {
    let (namespace, name) = service.split_once('/').unwrap_or(("", service));
    EdgeEnd {
        kind: "service".to_owned(),
        namespace: Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty()),
        name: name.to_owned(),
        certainty: certainty.as_str().to_owned(),
        ..EdgeEnd::default()
    }
}

/// A value that not all connections of an edge share is left out; the least sure of their names is the edge's.
fn keep_shared(end: &mut EdgeEnd, other: &EdgeEnd) {
    for (mine, theirs) in
        [(&mut end.node, &other.node), (&mut end.zone, &other.zone), (&mut end.address, &other.address)]
    {
        if mine != theirs {
            *mine = None;
        }
    }
    let certainty = Certainty::parse(&end.certainty).min(Certainty::parse(&other.certainty));
    certainty.as_str().clone_into(&mut end.certainty);
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
        }
    }
}

impl Sum {
    fn add(&mut self, side: Side, moved: Deltas, subject: &Subject, failed: bool) {
        let (sent, recv) = match side {
            Side::Client => (moved.sent.0, moved.recv.0),
            Side::Server => (moved.recv.0, moved.sent.0),
        };
        self.merge(Self {
            sent,
            recv,
            retransmits: moved.retransmits,
            connections: 1,
            failures: u64::from(failed),
            rtt_total: subject.rtt_us.map_or(0, u64::from),
            rtt_views: u64::from(subject.rtt_us.is_some()),
            certainty: self.certainty,
        });
    }

    fn merge(&mut self, other: Self) {
        self.sent = self.sent.saturating_add(other.sent);
        self.recv = self.recv.saturating_add(other.recv);
        self.retransmits = self.retransmits.saturating_add(other.retransmits);
        self.connections += other.connections;
        self.failures += other.failures;
        self.rtt_total += other.rtt_total;
        self.rtt_views += other.rtt_views;
        self.certainty = self.certainty.min(other.certainty);
    }

    fn into_edge(self, key: &Key, client: EdgeEnd, server: EdgeEnd, via: Via) -> Edge {
        Edge {
            client,
            server,
            service: via.service,
            service_certainty: via.certainty.map(|certainty| certainty.as_str().to_owned()),
            service_candidates: via.candidates,
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
