//! Who talks to whom: every counted connection's moved bytes, summed by its ends, port and protocol.
//!
//! Each byte is counted once: from the client's view; from the server's only where no client's view pairs with it and
//! the client's node did not cover the row (R5). What a covered client's node should have told but did not is a told
//! loss, `unpaired`, so that edges plus losses equal the connections.
//!
//! A row is either settled or not. What is settled is read as sums by edge, with the names and the verdict that it was
//! settled with, whatever its resolution; the rest (the last hour or so) is paired and named anew.

use super::ends::{End, EndId, EndTable, Ends};
use super::naming::{Naming, Via};
use super::params::{Grouping, HealthAsked, Question};
use super::quality::Quality;
use super::records::evicted;
use super::selection::{Depth, Moved, Selection, Subject};
use super::sums::{Moment, Sum};
use super::{Sources, Unanswered, completeness, health, other, settled, steps};
use crate::ingest::convert::is_failure;
use crate::live::Pending;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use weir_model::{Certainty, Deltas, Protocol, Side, UnixNanos};
use weir_store::rollup::Sums;
use weir_store::{EdgeTotal, EdgeTotals, Fate, HistoryStore as _, HistoryView, Loss, StoreError};
use weir_wire::api::{Answer, Completeness, Edge, EdgeEnd, Series};
use weir_wire::filter::{Comparison, Field, Glob, Level, Place};
use weir_wire::losses::{LATE, Reason, TRANSLATIONS_EVICTED, UNPAIRED};

/// Connections with the same ends, Service, port and protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Between {
    via: Via,
    client: EndId,
    server: EndId,
    port: u16,
    protocol: Protocol,
}

impl Between {
    /// Whether a comparison of the filter fits it.
    fn fits(&self, ends: Ends<'_>, place: usize, comparison: &Comparison) -> bool {
        match comparison.field {
            Field::Service => comparison.is_text(self.via.names()),
            Field::Port => comparison.is_number(Some(self.port.into())),
            Field::Protocol => comparison.is_text([self.protocol.as_str()]),
            _ => ends.fit(place, comparison),
        }
    }
}

/// Whether a comparison of the filter with what is summed up fits an edge.
fn sums_fit(edge: &Edge, comparison: &Comparison) -> bool {
    if comparison.field == Field::Certainty {
        let whose = match comparison.place {
            Place::Any => &edge.certainty,
            Place::Client => &edge.client.certainty,
            Place::Server => &edge.server.certainty,
        };
        return comparison.is_text([whose.as_str()]);
    }
    comparison.is_number(number(edge, &comparison.field))
}

/// Whether the filter's comparisons with what is summed up let an edge through.
pub(crate) fn lets(question: &Question, edge: &Edge) -> bool {
    question.lets(Level::Row, |_, comparison| sums_fit(edge, comparison))
}

/// A number of an edge; `None`: not known.
fn number(edge: &Edge, field: &Field) -> Option<u64> {
    match field {
        Field::SentBytes => Some(edge.sent_bytes),
        Field::RecvBytes => Some(edge.recv_bytes),
        Field::Bytes => Some(edge.sent_bytes.saturating_add(edge.recv_bytes)),
        Field::Connections => Some(edge.connections),
        Field::Retransmits => Some(edge.retransmits),
        Field::RttUs => edge.rtt_us,
        Field::Failures => Some(edge.failures),
        _ => None,
    }
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

/// A row of the answer, with the sum that it was made from.
pub(crate) struct Row {
    pub(crate) edge: Edge,
    sum: Sum,
}

impl Row {
    /// How well it did, by step, where the question is about health and has a step.
    pub(crate) fn quality(&self) -> &BTreeMap<UnixNanos, Quality> {
        &self.sum.quality
    }

    pub(crate) fn into_quality(self) -> BTreeMap<UnixNanos, Quality> {
        self.sum.quality
    }
}

/// An end without where it is: kind, namespace, name.
pub(crate) type EndName = (String, Option<String>, String);

pub(crate) fn end_name(end: &EdgeEnd) -> EndName {
    (end.kind.clone(), end.namespace.clone(), end.name.clone())
}

/// An edge as it is found again in another span.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EdgeName {
    client: EndName,
    server: EndName,
    service: Option<String>,
    port: u16,
    protocol: String,
}

impl EdgeName {
    pub(crate) fn of(edge: &Edge) -> Self {
        Self {
            client: end_name(&edge.client),
            server: end_name(&edge.server),
            service: edge.service.clone(),
            port: edge.port,
            protocol: edge.protocol.clone(),
        }
    }
}

/// Answers `/api/v1/edges`: what is settled by its sums as they were settled, what is not by pairing anew.
pub(crate) fn answer(sources: &Sources, question: &Question) -> Result<Answer<Edge>, StoreError> {
    let (rows, completeness) = rows(sources, question)?;
    Ok(Answer { items: rows.into_iter().map(|row| row.edge).collect(), completeness })
}

/// Answers `/api/v1/series`: the same edges, and what of their sums is of which step.
pub(crate) fn series(sources: &Sources, question: &Question) -> Result<Answer<Series>, Unanswered> {
    let now = sources.clock.wall();
    let step = {
        let (_, pending) = sources.live.read(&*sources.store)?;
        let history = sources.store.history(pending.watermark)?;
        steps::choose(&*history, question, now).map_err(Unanswered::Question)?
    };
    let question = Question { step: Some(step), ..question.clone() };
    let (rows, completeness) = rows(sources, &question)?;
    let items = rows.into_iter().map(|Row { edge, sum }| Series { edge, points: sum.points() }).collect();
    Ok(Answer { items, completeness })
}

/// The edges of a question, the largest first, at most as many as its limit and one that sums up all others.
fn rows(sources: &Sources, question: &Question) -> Result<(Vec<Row>, Completeness), StoreError> {
    let (mut rows, mut completeness) =
        if question.health == HealthAsked::No { all(sources, question)? } else { health::rows(sources, question)? };
    rows.retain(|row| lets(question, &row.edge));
    // Stable: edges of the same size stay in the order of their names. What is not known is the smallest. Edges that are
    // unhealthy are not left out for being small: who refuses moves nothing.
    let sort = question.sort.as_ref().unwrap_or(&Field::Bytes);
    let is_unhealthy = |row: &Row| row.edge.health.as_ref().is_some_and(health::is_unhealthy);
    rows.sort_by_key(|row| std::cmp::Reverse((is_unhealthy(row), number(&row.edge, sort))));
    completeness.omitted = fold(&mut rows, question.limit);
    Ok((rows, completeness))
}

/// Every edge of a question in the order of their names, before anything is chosen by what they sum up.
pub(crate) fn all(sources: &Sources, question: &Question) -> Result<(Vec<Row>, Completeness), StoreError> {
    let now = sources.clock.wall();
    let (view, pending) = sources.live.read(&*sources.store)?;
    let history = sources.store.history(pending.watermark)?;
    let part = Part::of(&*history, &pending, question, now)?;
    let live = Question { since: part.live_from.or(question.since), ..question.clone() };
    let began = question.since.unwrap_or(UnixNanos(i64::MIN));
    let selection = if part.needs_state {
        Selection::load(sources, &*view, &pending, &live, Depth::Unsettled(&*history, began))?
    } else {
        Selection::empty(sources)
    };
    let asks_health = question.health != HealthAsked::No;
    let inventory = sources.names.read();
    let naming = Naming { inventory: &inventory, question, settles: false };
    let mut table = EndTable::new(&selection, naming);
    // `None`: the question's filters do not let these ends through.
    let mut sums: HashMap<Between, Option<Sum>> = HashMap::new();
    let mut told = Told::default();
    for subject in selection.subjects.values() {
        let moved = selection.moved.get(&subject.id).copied().unwrap_or_default();
        if (!subject.in_span && moved.rows == 0 && moved.late_rows == 0) || !subject.passes(question) {
            continue;
        }
        let Some(verdict) = selection.verdicts.get(&subject.id) else { continue };
        if verdict.is_counted_by_client() {
            // Its bytes count at the client's end already; what it sent again is told nowhere else.
            if moved.all.retransmits == 0 && !(asks_health && selection.steps.contains_key(&subject.id)) {
                continue;
            }
            let client = verdict.counterpart.and_then(|id| selection.subjects.get(&id));
            let client = client.filter(|client| client.passes(question));
            if let Some(sum) = client.and_then(|client| sum_of(&mut sums, &mut table, client, question)) {
                sum.add_uncounted(verdict.side, &moved, selection.steps.get(&subject.id), asks_health);
            }
            continue;
        }
        let counts = part.counts(subject, &moved, question);
        if !counts && moved.rows == 0 && moved.late_rows == 0 {
            continue;
        }
        let Some(sum) = sum_of(&mut sums, &mut table, subject, question) else { continue };
        if moved.late_rows > 0 {
            told.late(&subject.node, moved.late_rows, moved.late.sent.0.saturating_add(moved.late.recv.0), 1);
            if moved.rows == 0 {
                continue;
            }
        }
        let mut counted = moved.all;
        let mut is_elsewhere = false;
        if part.has_settled
            && verdict.is_unpaired_server()
            && moved.rows == 0
            && selection.is_client_covered(&inventory, subject)
        {
            // What it moved is told by its settled rows.
            continue;
        }
        if verdict.is_unpaired_server()
            && let Some(elsewhere) = told_elsewhere(&selection, naming, subject, &moved)
        {
            told.unpaired(&subject.node, elsewhere.sent.0.saturating_add(elsewhere.recv.0), 1);
            is_elsewhere = true;
            counted = minus(counted, elsewhere);
            if counted.is_zero() {
                continue;
            }
        }
        sum.certainty = sum.certainty.min(verdict.certainty);
        let failed = failed_within(subject, &live) && (!part.has_settled || moved.closed);
        // As settled sums have it: of what was told in the span. Of who told nothing, what was told last.
        let last = || (subject.rtt_us.map_or(0, u64::from), u64::from(subject.rtt_us.is_some()));
        let rtt = if moved.rows > 0 || part.has_settled { moved.rtt } else { last() };
        sum.add(verdict.side, counted, rtt, counts, failed);
        if let Some(step) = question.step {
            let stepped = selection.steps.get(&subject.id).into_iter().flatten();
            for (at, stepped) in stepped {
                let all = if is_elsewhere { minus(stepped.all, stepped.while_client_covered) } else { stepped.all };
                sum.points.entry(*at).or_default().add(verdict.side, all, stepped);
            }
            if failed {
                sum.points.entry(step.floor(subject.last)).or_default().failures += 1;
            }
            if asks_health {
                sum.note_quality(verdict.side, selection.steps.get(&subject.id));
                if failed {
                    sum.quality.entry(step.floor(subject.last)).or_default().fail(&subject.close_reason, 1);
                }
            }
        }
    }
    for total in &part.settled.edges {
        add_settled(&mut sums, &mut table, &mut told, &part, total, question);
    }
    let rows = by_grouping(&table, sums, question);
    drop(inventory);
    let losses = told.losses(question.since.unwrap_or(now), question.until.unwrap_or(now));
    let losses = losses.chain(evicted(&*view, TRANSLATIONS_EVICTED)?).collect();
    let mut completeness = completeness::of(&*view, question, now, losses)?;
    completeness.resolution = completeness::resolution(&*history, question, now);
    // Of a verdict nobody is told the steps.
    if let Some(step) = question.step.filter(|_| !asks_health) {
        completeness.steps = Some(completeness::steps(&*view, question, step, now)?);
    }
    Ok((rows, completeness))
}

/// Makes one row of those beyond the limit, so that the sum over all rows stays what it was. Says how many those were.
fn fold(rows: &mut Vec<Row>, limit: usize) -> u64 {
    if rows.len() <= limit {
        return 0;
    }
    let others = rows.split_off(limit);
    let count = others.len() as u64;
    let mut sum = Sum::default();
    let (mut client, mut server) = (Certainty::Known, Certainty::Known);
    for Row { edge, sum: one } in others {
        client = client.min(Certainty::parse(&edge.client.certainty));
        server = server.min(Certainty::parse(&edge.server.certainty));
        sum.merge(one);
    }
    let edge = sum.edge((0, ""), other(client), other(server), Via::default());
    rows.push(Row { edge, sum });
    count
}

/// How a span falls into what is settled and what is not.
struct Part {
    settled: EdgeTotals,
    has_settled: bool,
    /// Where what is not settled begins; `None`: nothing is settled.
    live_from: Option<UnixNanos>,
    /// Whether the state has anything to say of the span that the settled sums do not.
    needs_state: bool,
}

/// The state keeps connections for two hours after their close: of a span that ended earlier, it does not know all of
/// those that were open at its end.
const STATE_NS: i64 = 2 * 3600 * 1_000_000_000;

impl Part {
    fn of(
        history: &dyn HistoryView,
        pending: &Pending,
        question: &Question,
        now: UnixNanos,
    ) -> Result<Self, StoreError> {
        let since = question.since.unwrap_or(UnixNanos(i64::MIN));
        let until = question.until.unwrap_or(UnixNanos(i64::MAX));
        let settled = history.edge_totals(since, until, question.step)?;
        let waiting = pending.groups.iter().flat_map(|group| group.iter()).map(|row| row.to);
        let waiting = waiting.filter(|to| (since..until).contains(to)).min();
        let unsettled = settled.unsettled_from.into_iter().chain(waiting).min();
        let has_settled = !settled.edges.is_empty();
        let live_from = has_settled.then(|| unsettled.unwrap_or(question.until.unwrap_or(now)).max(since));
        let is_old = question.until.is_some_and(|until| until.since(now) < -STATE_NS);
        Ok(Self { settled, has_settled, live_from, needs_state: !has_settled || unsettled.is_some() || !is_old })
    }

    /// Whether a connection is counted here: the settled sums count those whose last record they hold.
    fn counts(&self, subject: &Subject, moved: &Moved, question: &Question) -> bool {
        let until = question.until.unwrap_or(UnixNanos(i64::MAX));
        let is_open = !subject.ended || subject.last >= until;
        !self.has_settled || is_open || moved.closed || subject.is_end_untold
    }

    /// The connections of settled sums that no subject stands for.
    fn connections(&self, sums: &Sums) -> u64 {
        if self.needs_state { sums.closed } else { sums.opened.max(sums.closed).max(1) }
    }
}

/// The sum of what is between two ends, if the question's filters let it through.
fn entry<'s>(
    sums: &'s mut HashMap<Between, Option<Sum>>,
    between: Between,
    table: &EndTable<'_>,
    question: &Question,
) -> Option<&'s mut Sum> {
    let sum = sums.entry(between).or_insert_with_key(|between| {
        let ends = Ends { client: table.get(between.client), server: table.get(between.server) };
        (between.via.passes(question)
            && passes(ends, between.port, question)
            && question.lets(Level::Part, |place, one| between.fits(ends, place, one)))
        .then(Sum::default)
    });
    sum.as_mut()
}

/// The sum of what a subject's connection is a part of, if the question's filters let it through.
fn sum_of<'s, 'a>(
    sums: &'s mut HashMap<Between, Option<Sum>>,
    table: &mut EndTable<'a>,
    subject: &'a Subject,
    question: &Question,
) -> Option<&'s mut Sum> {
    let (client, server, port) = table.of(subject);
    let via = table.via(subject, server);
    let between = Between { via, client, server, port, protocol: subject.protocol };
    entry(sums, between, table, question)
}

fn add_settled<'a>(
    sums: &mut HashMap<Between, Option<Sum>>,
    table: &mut EndTable<'a>,
    told: &mut Told,
    part: &Part,
    total: &'a EdgeTotal,
    question: &Question,
) {
    if question.protocol.is_some_and(|protocol| protocol != total.protocol) {
        return;
    }
    let (client, server) = table.settled(total);
    let (via, certainty) = settled::via(total);
    let is_clients = table.get(client).is_seen;
    let counted_by = if is_clients { Side::Client } else { Side::Server };
    let seen_on = table.get(if is_clients { client } else { server }).node.clone().unwrap_or_default();
    let between = Between { via, client, server, port: total.port, protocol: total.protocol };
    let Some(sum) = entry(sums, between, table, question) else { return };
    let asks_health = question.health != HealthAsked::No;
    let Sums { sent, recv, rows, closed, opened, .. } = total.sums;
    let (bytes, connections) = (sent.saturating_add(recv), opened.max(closed).max(1));
    match total.fate {
        Fate::Late => told.late(&seen_on, rows, bytes, connections),
        Fate::Unpaired => told.unpaired(&seen_on, bytes, connections),
        // A view that does not count is the server's: the client's does.
        Fate::OtherView => sum.add_settled_uncounted(Side::Server, total, asks_health),
        Fate::Counted => {
            if asks_health {
                sum.note_settled_quality(counted_by, total);
            }
            sum.merge(Sum {
                sent,
                recv,
                retransmits: total.sums.retransmits,
                connections: part.connections(&total.sums),
                failures: total.sums.failures,
                rtt_total: total.sums.rtt_sum_us,
                rtt_views: total.sums.rtt_rows,
                certainty,
                is_there: true,
                points: total.steps.iter().map(|(at, sums)| (*at, Moment::of(sums))).collect(),
                quality: BTreeMap::new(),
            });
        }
    }
}

/// What the span has and no edge counts, by node.
#[derive(Default)]
struct Told {
    unpaired: BTreeMap<String, Loss>,
    late: BTreeMap<String, Loss>,
}

impl Told {
    fn unpaired(&mut self, node: &str, bytes: u64, connections: u64) {
        add_loss(&mut self.unpaired, node, (connections, bytes, connections));
    }

    fn late(&mut self, node: &str, rows: u64, bytes: u64, connections: u64) {
        add_loss(&mut self.late, node, (rows, bytes, connections));
    }

    fn losses(self, from: UnixNanos, to: UnixNanos) -> impl Iterator<Item = Loss> {
        let of = move |reason: &Reason, losses: BTreeMap<String, Loss>| {
            let (place, reason, intended) = (reason.place, reason.word, reason.intended);
            losses.into_iter().map(move |(node, loss)| Loss {
                node,
                from,
                to,
                place: place.into(),
                reason: reason.into(),
                intended,
                ..loss
            })
        };
        of(UNPAIRED, self.unpaired).chain(of(LATE, self.late))
    }
}

fn add_loss(losses: &mut BTreeMap<String, Loss>, node: &str, (count, bytes, connections): (u64, u64, u64)) {
    let loss = losses.entry(node.to_owned()).or_default();
    loss.count = loss.count.saturating_add(count);
    loss.bytes = loss.bytes.saturating_add(bytes);
    loss.connections = loss.connections.saturating_add(connections);
}

fn passes(ends: Ends<'_>, port: u16, question: &Question) -> bool {
    let on_node = |glob: &Glob| {
        [ends.client, ends.server].iter().any(|end| end.node.as_ref().is_some_and(|node| glob.matches(node)))
    };
    let is_in = |end: &End| question.cidr.is_none_or(|network| network.contains(&end.address));
    question.node.as_ref().is_none_or(on_node)
        && question.port.is_none_or(|asked| asked == port)
        && (is_in(ends.client) || is_in(ends.server))
        && ends.pass(question)
}

/// The sums under the asked grouping, in the order of their names.
fn by_grouping(table: &EndTable<'_>, sums: HashMap<Between, Option<Sum>>, question: &Question) -> Vec<Row> {
    let mut edges: BTreeMap<Key, (EdgeEnd, EdgeEnd, Via, Sum)> = BTreeMap::new();
    let anonymous = |of: &End, end: &EdgeEnd| EdgeEnd {
        kind: end.kind.clone(),
        namespace: end.namespace.clone(),
        name: end.name.clone(),
        node: match &question.by {
            Grouping::Namespace(expand) if of.is_beside_pods(expand) => end.node.clone(),
            _ => None,
        },
        ..EdgeEnd::default()
    };
    for (between, sum) in sums {
        let Some(mut sum) = sum.filter(|sum| sum.is_there) else { continue };
        let (client_end, server_end) = (table.get(between.client), table.get(between.server));
        let client = client_end.grouped(&question.by);
        let server = match &between.via {
            Via { service: Some(service), certainty, .. } if question.by == Grouping::Service => {
                service_end(service, certainty.unwrap_or_default())
            }
            _ => server_end.grouped(&question.by),
        };
        for end in [&client, &server] {
            sum.certainty = sum.certainty.min(Certainty::parse(&end.certainty));
        }
        let via = between.via;
        let key = Key {
            client: anonymous(client_end, &client),
            server: anonymous(server_end, &server),
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
    let row = |(key, (client, server, via, sum)): (Key, (EdgeEnd, EdgeEnd, Via, Sum))| Row {
        edge: sum.edge((key.port, key.protocol), client, server, via),
        sum,
    };
    edges.into_iter().map(row).collect()
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
    for (mine, theirs) in [
        (&mut end.node, &other.node),
        (&mut end.zone, &other.zone),
        (&mut end.address, &other.address),
        (&mut end.workload, &other.workload),
    ] {
        if mine != theirs {
            *mine = None;
        }
    }
    let certainty = Certainty::parse(&end.certainty).min(Certainty::parse(&other.certainty));
    certainty.as_str().clone_into(&mut end.certainty);
}
