//! What clients asked of DNS servers, summed by client, server, name and type.

use super::ends::Ends;
use super::naming::Naming;
use super::params::{Grouping, Question};
use super::{Sources, completeness, other, records, rfc3339};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use weir_model::{Certainty, Fact, NodeName, UnixNanos};
use weir_store::{DnsClient, DnsCount, StateView, StoreError};
use weir_wire::api::{Answer, DnsRow, EdgeEnd};
use weir_wire::filter::{Comparison, Field, Level, Place};
use weir_wire::losses::DNS_EVICTED;

/// What a row is about.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    client: EdgeEnd,
    server: EdgeEnd,
    name: String,
    query_type: String,
}

#[derive(Debug, Default)]
struct Sum {
    queries: u64,
    rcodes: BTreeMap<String, u64>,
    latency_sum_us: u64,
    latency_max_us: u64,
    retransmits: u64,
    truncated: u64,
    addresses: (UnixNanos, Vec<IpAddr>),
    last: UnixNanos,
}

/// The ends of a count under the question's grouping.
pub(crate) type Named = (EdgeEnd, EdgeEnd);

/// Answers `/api/v1/dns`.
pub(crate) fn answer(sources: &Sources, question: &Question) -> Result<Answer<DnsRow>, StoreError> {
    let (view, _) = sources.live.read(&*sources.store)?;
    let since = question.since.unwrap_or(UnixNanos(i64::MIN));
    let until = question.until.unwrap_or(UnixNanos(i64::MAX));
    let mut sums: BTreeMap<Key, Sum> = BTreeMap::new();
    // `None`: the question's filters do not let these ends through.
    let mut known: HashMap<(NodeName, DnsClient, IpAddr, String, String), Option<Named>> = HashMap::new();
    view.dns(since, until, &mut |count| {
        let (node, client, name, kind) =
            (count.node.clone(), count.client.clone(), count.name.clone(), count.query_type.clone());
        let ends = known.entry((node, client, count.server, name, kind)).or_insert_with(|| {
            name_ends(Naming { inventory: &sources.names.read(), question, settles: false }, &count)
        });
        let Some((client, server)) = ends else { return };
        let key = Key {
            client: client.clone(),
            server: server.clone(),
            name: count.name.clone(),
            query_type: count.query_type.clone(),
        };
        sums.entry(key).or_default().add(&count);
    })?;
    let mut rows: Vec<(DnsRow, Sum)> = sums.into_iter().map(|(key, sum)| (sum.row(key), sum)).collect();
    rows.retain(|(row, _)| question.lets(Level::Row, |_, comparison| sums_fit(row, comparison)));
    // Stable: rows of as many queries stay in the order of their names. What is not known is the smallest.
    let sort = question.sort.as_ref().unwrap_or(&Field::Queries);
    rows.sort_by_key(|(row, _)| std::cmp::Reverse(number(row, sort)));
    let mut completeness =
        completeness::of(&*view, question, sources.clock.wall(), records::evicted(&*view, DNS_EVICTED)?)?;
    completeness.omitted = fold(&mut rows, question.limit);
    Ok(Answer { items: rows.into_iter().map(|(row, _)| row).collect(), completeness })
}

/// Makes one row of those beyond the limit, so that the sum over all rows stays what it was. Says how many those were.
fn fold(rows: &mut Vec<(DnsRow, Sum)>, limit: usize) -> u64 {
    if rows.len() <= limit {
        return 0;
    }
    let others = rows.split_off(limit);
    let count = others.len() as u64;
    let (mut client, mut server) = (Certainty::Known, Certainty::Known);
    let mut sum = Sum::default();
    for (row, one) in others {
        client = client.min(Certainty::parse(&row.client.certainty));
        server = server.min(Certainty::parse(&row.server.certainty));
        sum.merge(one);
    }
    let key = Key { client: other(client), server: other(server), name: String::new(), query_type: String::new() };
    let mut row = sum.row(key);
    row.addresses.clear();
    rows.push((row, sum));
    count
}

/// The ends of a count under the question's grouping, if its filters let them through.
pub(crate) fn name_ends(naming: Naming<'_>, count: &DnsCount) -> Option<Named> {
    let question = naming.question;
    let (mut client, mut server) = (naming.dns_client(count), naming.dns_server(count));
    client.decide(question);
    server.decide(question);
    let ends = Ends { client: &client, server: &server };
    // `name` is the queried name's or an end's; the other filters are about the ends.
    let named = question.name.as_ref().is_some_and(|glob| glob.matches(&count.name));
    let filters = &Question { name: question.name.clone().filter(|_| !named), ..question.clone() };
    let passes = question.node.as_ref().is_none_or(|glob| glob.matches(&count.node.0))
        && question.cidr.is_none_or(|network| network.contains(&count.server))
        && ends.pass(filters)
        && question.lets(Level::Part, |place, comparison| match comparison.field {
            Field::QueryName => comparison.is_text([count.name.as_str()]),
            Field::QueryType => comparison.is_text([count.query_type.as_str()]),
            Field::Name if comparison.place == Place::Any => {
                comparison.is_text([count.name.as_str()]) || ends.fit(place, comparison)
            }
            _ => ends.fit(place, comparison),
        });
    passes.then(|| {
        let mut client = client.grouped(&question.by);
        // A socket that asks has no address worth a word.
        client.address = None;
        let by = if question.by == Grouping::Process { &Grouping::Workload } else { &question.by };
        (client, server.grouped(by))
    })
}

/// Whether a comparison of the filter with what is summed up fits a row.
fn sums_fit(row: &DnsRow, comparison: &Comparison) -> bool {
    if comparison.field == Field::Certainty {
        let sure = [&row.client, &row.server].map(|end| Certainty::parse(&end.certainty));
        let sure = match comparison.place {
            Place::Any => sure[0].min(sure[1]),
            Place::Client => sure[0],
            Place::Server => sure[1],
        };
        return comparison.is_text([sure.as_str()]);
    }
    comparison.is_number(number(row, &comparison.field))
}

/// A number of a row; `None`: not known.
fn number(row: &DnsRow, field: &Field) -> Option<u64> {
    match field {
        Field::Queries => Some(row.queries),
        Field::Failures => Some(row.failures),
        Field::Retransmits => Some(row.retransmits),
        Field::LatencyUs => row.latency_us,
        _ => None,
    }
}

/// The names that clients were told, as metadata: one fact a client and name, with every address.
pub(crate) fn facts(view: &dyn StateView, mut each: impl FnMut(Fact)) -> Result<(), StoreError> {
    let mut facts: BTreeMap<(NodeName, String, String), Fact> = BTreeMap::new();
    view.dns_names(UnixNanos(i64::MIN), UnixNanos(i64::MAX), &mut |told| {
        let key = (told.node.clone(), told.client.clone(), told.name.clone());
        let fact = facts.entry(key).or_insert_with(|| Fact {
            node: told.node,
            source: "dns".into(),
            kind: "name".into(),
            id: told.name.clone(),
            from: told.from,
            said: told.last,
            to: Some(told.until),
            name: told.name,
            namespace: String::new(),
            parent: told.client,
            netns: told.netns,
            addresses: Vec::new(),
            attributes: BTreeMap::new(),
        });
        fact.from = fact.from.min(told.from);
        fact.said = fact.said.max(told.last);
        fact.to = fact.to.max(Some(told.until));
        let address = told.address.to_string();
        if let Err(place) = fact.addresses.binary_search(&address) {
            fact.addresses.insert(place, address);
        }
    })?;
    facts.into_values().for_each(&mut each);
    Ok(())
}

impl Sum {
    fn add(&mut self, count: &DnsCount) {
        let add = |to: &mut u64, by: u64| *to = to.saturating_add(by);
        add(&mut self.queries, count.count);
        add(self.rcodes.entry(count.rcode.clone()).or_default(), count.count);
        add(&mut self.latency_sum_us, count.latency_sum_us);
        add(&mut self.retransmits, count.retransmits);
        add(&mut self.truncated, count.truncated);
        self.latency_max_us = self.latency_max_us.max(count.latency_max_us);
        self.last = self.last.max(count.last);
        if !count.answers.is_empty() {
            let addresses = (count.last, count.answers.iter().map(|(address, _)| *address).collect());
            self.addresses = std::mem::take(&mut self.addresses).max(addresses);
        }
    }

    fn merge(&mut self, other: Self) {
        let add = |to: &mut u64, by: u64| *to = to.saturating_add(by);
        add(&mut self.queries, other.queries);
        for (rcode, count) in other.rcodes {
            add(self.rcodes.entry(rcode).or_default(), count);
        }
        add(&mut self.latency_sum_us, other.latency_sum_us);
        add(&mut self.retransmits, other.retransmits);
        add(&mut self.truncated, other.truncated);
        self.latency_max_us = self.latency_max_us.max(other.latency_max_us);
        self.last = self.last.max(other.last);
    }

    fn row(&self, key: Key) -> DnsRow {
        let of = |rcode: &str| self.rcodes.get(rcode).copied().unwrap_or(0);
        let answered = self.queries - of("timeout");
        DnsRow {
            client: key.client,
            server: key.server,
            name: key.name,
            query_type: key.query_type,
            queries: self.queries,
            failures: self.queries - of("noerror"),
            latency_us: self.latency_sum_us.checked_div(answered),
            latency_max_us: (answered > 0).then_some(self.latency_max_us),
            retransmits: self.retransmits,
            truncated: self.truncated,
            addresses: self.addresses.1.iter().map(ToString::to_string).collect(),
            last_seen: rfc3339(self.last),
            rcodes: self.rcodes.clone(),
        }
    }
}
