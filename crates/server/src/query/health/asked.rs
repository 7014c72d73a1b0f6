//! What the clients of edges asked of their DNS servers, by edge, name and step.
//!
//! A count says which address was asked: it is of the edge from its client to port 53 of what answers there, or of the
//! Service that has the address.

use crate::query::Sources;
use crate::query::dns::name_ends;
use crate::query::edges::{EndName, end_name};
use crate::query::naming::Naming;
use crate::query::params::Question;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use weir_model::{NodeName, UnixNanos};
use weir_store::{DnsClient, Step, StoreError};
use weir_wire::api::{Edge, EdgeEnd};

/// The port of DNS servers.
const PORT: u16 = 53;

/// What became of queries in one step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answers {
    pub(crate) queries: u64,
    /// Those whose outcome was not `noerror`.
    pub(crate) failures: u64,
    /// Those that were answered, and the time that took, summed, microseconds.
    pub(crate) answered: u64,
    pub(crate) latency_us: u64,
}

/// Queries for one name.
#[derive(Clone, Debug, Default)]
pub(crate) struct AskedName {
    pub(crate) steps: BTreeMap<UnixNanos, Answers>,
    /// Those that failed, by outcome.
    rcodes: BTreeMap<String, u64>,
}

/// One client's queries to one server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) all: BTreeMap<UnixNanos, Answers>,
    pub(crate) names: BTreeMap<String, AskedName>,
}

/// Who asked whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pair {
    client: EdgeEnd,
    server: EdgeEnd,
}

/// Every client's queries within a span.
#[derive(Debug, Default)]
pub(crate) struct AllAsked {
    /// By the client's name.
    by_client: HashMap<EndName, Vec<(EdgeEnd, Asked)>>,
}

impl Answers {
    fn add(&mut self, other: Self) {
        self.queries = self.queries.saturating_add(other.queries);
        self.failures = self.failures.saturating_add(other.failures);
        self.answered = self.answered.saturating_add(other.answered);
        self.latency_us = self.latency_us.saturating_add(other.latency_us);
    }
}

impl AskedName {
    /// The outcome of most of those that failed.
    pub(crate) fn worst(&self) -> Option<&str> {
        self.rcodes.iter().max_by_key(|(_, count)| **count).map(|(rcode, _)| rcode.as_str())
    }

    fn failures(&self) -> u64 {
        self.rcodes.values().sum()
    }
}

impl Asked {
    /// The names that failed most often, each with its outcome.
    pub(crate) fn worst_names(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut names: Vec<(&String, &AskedName)> = self.names.iter().filter(|(_, name)| name.failures() > 0).collect();
        names.sort_by_key(|(_, name)| std::cmp::Reverse(name.failures()));
        names.into_iter().filter_map(|(name, asked)| Some((name.as_str(), asked.worst()?)))
    }

    fn merge(&mut self, other: Self) {
        for (at, answers) in other.all {
            self.all.entry(at).or_default().add(answers);
        }
        for (name, asked) in other.names {
            let held = self.names.entry(name).or_default();
            for (at, answers) in asked.steps {
                held.steps.entry(at).or_default().add(answers);
            }
            for (rcode, count) in asked.rcodes {
                *held.rcodes.entry(rcode).or_default() += count;
            }
        }
    }
}

impl AllAsked {
    /// Everything within the span, by the question's grouping.
    pub(crate) fn load(
        sources: &Sources,
        by: &Question,
        (since, until): (UnixNanos, UnixNanos),
        step: Step,
    ) -> Result<Self, StoreError> {
        // Its filters are about edges: they have chosen already.
        let question = &Question { by: by.by.clone(), ..Question::default() };
        let (view, _) = sources.live.read(&*sources.store)?;
        let mut pairs: HashMap<Pair, Asked> = HashMap::new();
        let mut known: HashMap<(NodeName, DnsClient, IpAddr), Option<Pair>> = HashMap::new();
        view.dns(since, until, &mut |count| {
            let who = (count.node.clone(), count.client.clone(), count.server);
            let pair = known.entry(who).or_insert_with(|| {
                let naming = Naming { inventory: &sources.names.read(), question, settles: false };
                name_ends(naming, &count).map(|(client, server)| Pair { client, server })
            });
            let Some(pair) = pair else { return };
            let is_answered = count.rcode != "timeout";
            let answers = Answers {
                queries: count.count,
                failures: if count.rcode == "noerror" { 0 } else { count.count },
                answered: if is_answered { count.count } else { 0 },
                latency_us: count.latency_sum_us,
            };
            let at = step.floor(count.last);
            let asked = pairs.entry(pair.clone()).or_default();
            asked.all.entry(at).or_default().add(answers);
            let name = asked.names.entry(count.name).or_default();
            name.steps.entry(at).or_default().add(answers);
            if answers.failures > 0 {
                *name.rcodes.entry(count.rcode).or_default() += answers.failures;
            }
        })?;
        let mut by_client: HashMap<EndName, Vec<(EdgeEnd, Asked)>> = HashMap::new();
        for (Pair { client, server }, asked) in pairs {
            by_client.entry(end_name(&client)).or_default().push((server, asked));
        }
        Ok(Self { by_client })
    }

    /// What was asked on this edge; `None`: nothing.
    pub(crate) fn of(&self, edge: &Edge) -> Option<Asked> {
        if edge.port != PORT || edge.protocol != "udp" {
            return None;
        }
        let servers = self.by_client.get(&end_name(&edge.client))?;
        let of_edge = servers.iter().filter(|(server, _)| is_behind(edge, server));
        of_edge.map(|(_, asked)| asked.clone()).reduce(|mut all, asked| {
            all.merge(asked);
            all
        })
    }
}

/// Whether who was asked, by an address, is the server of the edge, or the Service that it goes through.
fn is_behind(edge: &Edge, asked: &EdgeEnd) -> bool {
    let service = || match &asked.namespace {
        Some(namespace) => format!("{namespace}/{}", asked.name),
        None => asked.name.clone(),
    };
    if asked.kind == "service" && (edge.service.is_some() || !edge.service_candidates.is_empty()) {
        let service = service();
        return edge.service.as_ref() == Some(&service) || edge.service_candidates.contains(&service);
    }
    end_name(&edge.server) == end_name(asked) || (asked.address.is_some() && asked.address == edge.server.address)
}
