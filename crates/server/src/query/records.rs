//! The stored records: transactions, connections (transactions with what moved in the span), and metadata.

use super::ends::{EndTable, Ends};
use super::naming::{ATTRIBUTED, Naming};
use super::params::Question;
use super::selection::{Depth, Selection, Subject};
use super::{Sources, completeness, cut, rfc3339};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use weir_model::fact::{attribute, kind};
use weir_model::{Certainty, Direction, Fact, Instance, NodeName, Side, UnixNanos};
use weir_store::{HistoryStore as _, Loss, StateView, StoreError};
use weir_wire::api::{Answer, ConnectionRow, MetadataRow, Transaction};
use weir_wire::filter::{Comparison, Field, Glob, Level, Place};
use weir_wire::losses::{DNS_NAMES_EVICTED, FACTS_EVICTED, Reason, TRANSACTIONS_EVICTED};

/// Answers `/api/v1/transactions`.
pub(crate) fn transactions(sources: &Sources, question: &Question) -> Result<Answer<Transaction>, StoreError> {
    let (view, pending) = sources.live.read(&*sources.store)?;
    let selection = Selection::load(sources, &*view, &pending, question, Depth::State)?;
    let mut found = matching(sources, &selection, question);
    found.sort_unstable_by_key(|subject| (std::cmp::Reverse(subject.last), subject.id));
    let omitted = cut(&mut found, question.limit);
    let items = found.into_iter().filter_map(|subject| transaction(&selection, subject)).collect();
    let mut completeness =
        completeness::of(&*view, question, sources.clock.wall(), evicted(&*view, TRANSACTIONS_EVICTED)?)?;
    completeness.omitted = omitted;
    Ok(Answer { items, completeness })
}

/// Answers `/api/v1/connections`.
pub(crate) fn connections(sources: &Sources, question: &Question) -> Result<Answer<ConnectionRow>, StoreError> {
    let (view, pending) = sources.live.read(&*sources.store)?;
    let selection = Selection::load(sources, &*view, &pending, question, Depth::StoredHistory)?;
    let mut found = matching(sources, &selection, question);
    let moved = |subject: &Subject| selection.moved.get(&subject.id).copied().unwrap_or_default().all;
    found.sort_by_cached_key(|subject| {
        let moved = moved(subject);
        let number = match question.sort {
            Some(Field::SentBytes) => Some(moved.sent.0),
            Some(Field::RecvBytes) => Some(moved.recv.0),
            Some(Field::Retransmits) => Some(moved.retransmits),
            Some(Field::RttUs) => subject.rtt_us.map(u64::from),
            _ => Some(moved.sent.0.saturating_add(moved.recv.0)),
        };
        (std::cmp::Reverse(number), std::cmp::Reverse(subject.last), subject.id)
    });
    let omitted = cut(&mut found, question.limit);
    let items = found
        .into_iter()
        .filter_map(|subject| {
            let moved = moved(subject);
            Some(ConnectionRow {
                transaction: transaction(&selection, subject)?,
                sent_bytes: moved.sent.0,
                recv_bytes: moved.recv.0,
                retransmits: moved.retransmits,
            })
        })
        .collect();
    let mut completeness =
        completeness::of(&*view, question, sources.clock.wall(), evicted(&*view, TRANSACTIONS_EVICTED)?)?;
    completeness.omitted = omitted;
    // What moved in a connection is not known where rows are summed up.
    let history = sources.store.history(pending.watermark)?;
    completeness.resolution = completeness::resolution(&*history, question, sources.clock.wall());
    Ok(Answer { items, completeness })
}

/// Answers `/api/v1/metadata`.
pub(crate) fn metadata(sources: &Sources, question: &Question) -> Result<Answer<MetadataRow>, StoreError> {
    let (view, _) = sources.live.read(&*sources.store)?;
    let mut found: Vec<Fact> = Vec::new();
    let mut take = |fact: Fact| {
        if fact_passes(&fact, question) {
            found.push(fact);
        }
    };
    let kinds: Vec<&str> = question.kind.as_ref().and_then(Glob::exact).into_iter().collect();
    view.facts(&kinds, &mut take)?;
    super::dns::facts(&*view, &mut take)?;
    join_pids(&*view, &mut found)?;
    found.sort_unstable_by(|a, b| {
        (&a.node, &a.kind, &a.name, &a.id, &a.source, a.from)
            .cmp(&(&b.node, &b.kind, &b.name, &b.id, &b.source, b.from))
    });
    let mut losses = evicted(&*view, FACTS_EVICTED)?;
    losses.extend(evicted(&*view, DNS_NAMES_EVICTED)?);
    let mut completeness = completeness::of(&*view, question, sources.clock.wall(), losses)?;
    completeness.omitted = cut(&mut found, question.limit);
    Ok(Answer { items: found.into_iter().map(metadata_row).collect(), completeness })
}

/// Containers get the pids of every process that is told to be in them: a runtime tells the first process alone.
fn join_pids(view: &dyn StateView, found: &mut [Fact]) -> Result<(), StoreError> {
    if !found.iter().any(|fact| fact.kind == kind::CONTAINER) {
        return Ok(());
    }
    let mut pids: HashMap<(NodeName, String), BTreeSet<u32>> = HashMap::new();
    view.facts(&[kind::PROCESS], &mut |process| {
        let pid = process.id.split('@').next().and_then(|pid| pid.parse().ok());
        if let Some(pid) = pid.filter(|_| process.to.is_none() && !process.parent.is_empty()) {
            pids.entry((process.node, process.parent)).or_default().insert(pid);
        }
    })?;
    for container in found.iter_mut().filter(|fact| fact.kind == kind::CONTAINER && fact.to.is_none()) {
        let Some(more) = pids.get(&(container.node.clone(), container.id.clone())) else { continue };
        let told = container.attributes.get(attribute::PIDS).map(String::as_str).unwrap_or_default();
        let mut all: BTreeSet<u32> = told.split(',').filter_map(|pid| pid.parse().ok()).collect();
        all.extend(more);
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        container.attributes.insert(attribute::PIDS.to_owned(), all.join(","));
    }
    Ok(())
}

fn matching<'a>(sources: &Sources, selection: &'a Selection, question: &Question) -> Vec<&'a Subject> {
    let by_names = question.from.is_some()
        || question.to.is_some()
        || question.name.is_some()
        || question.namespace.is_some()
        || question.label.is_some()
        || question.service.is_some()
        || question.filter.is_some();
    let inventory = sources.names.read();
    let naming = Naming { inventory: &inventory, question, settles: false };
    let mut table = EndTable::new(selection, naming);
    let mut passes = |subject: &'a Subject| {
        subject.in_span
            && subject.transaction.is_some()
            && subject.passes(question)
            && subject.is_in(question)
            && question.node.as_ref().is_none_or(|glob| glob.matches(&subject.node))
            && question
                .port
                .is_none_or(|port| subject.tuple.local.port() == port || subject.tuple.remote.port() == port)
            && (!by_names || {
                let (client, server, _) = table.of(subject);
                Ends { client: table.get(client), server: table.get(server) }.pass(question)
                    && (question.service.is_none() || table.via(subject, server).passes(question))
                    && question.lets(Level::Part, |place, one| {
                        let ends = Ends { client: table.get(client), server: table.get(server) };
                        match one.field {
                            Field::Service => one.is_text(table.via(subject, server).names()),
                            _ => subject_fits(selection, subject, one).unwrap_or_else(|| ends.fit(place, one)),
                        }
                    })
            })
    };
    selection.subjects.values().filter(|subject| passes(subject)).collect()
}

/// Whether a comparison of the filter with what a row itself has fits it; `None`: it is about an end's names.
fn subject_fits(selection: &Selection, subject: &Subject, comparison: &Comparison) -> Option<bool> {
    let stored = subject.transaction.as_ref();
    let moved = || selection.moved.get(&subject.id).copied().unwrap_or_default().all;
    let number = match comparison.field {
        Field::Port => {
            let verdict = selection.verdicts.get(&subject.id);
            let tuple = verdict.map_or(subject.flow, |verdict| verdict.tuple);
            let (own, other) = (tuple.local.port(), tuple.remote.port());
            let is_server = verdict.is_some_and(|verdict| verdict.side == Side::Server);
            let (client, server) = if is_server { (other, own) } else { (own, other) };
            let any = [subject.tuple.local.port(), subject.tuple.remote.port()];
            let fits = |port: u16| comparison.is_number(Some(port.into()));
            return Some(match comparison.place {
                Place::Any => any.into_iter().any(fits),
                Place::Client => fits(client),
                Place::Server => fits(server),
            });
        }
        Field::Protocol => return Some(comparison.is_text([subject.protocol.as_str()])),
        Field::State => return Some(comparison.is_text(stored.map(|stored| stored.condition.state.as_str()))),
        Field::CloseReason => {
            return Some(comparison.is_text(stored.and_then(|stored| stored.condition.close_reason.as_deref())));
        }
        Field::SentBytes => Some(moved().sent.0),
        Field::RecvBytes => Some(moved().recv.0),
        Field::Bytes => Some(moved().sent.0.saturating_add(moved().recv.0)),
        Field::Retransmits => Some(moved().retransmits),
        Field::RttUs => subject.rtt_us.map(u64::from),
        _ => return None,
    };
    Some(comparison.is_number(number))
}

fn transaction(selection: &Selection, subject: &Subject) -> Option<Transaction> {
    let stored = subject.transaction.as_ref()?;
    let owner = stored.owner.as_ref();
    let verdict = selection.verdicts.get(&subject.id);
    // A socket that does not tell its own address is not translated for that.
    let behind = verdict.map_or(subject.flow, |verdict| verdict.tuple);
    let translated = (behind != stored.tuple && !stored.tuple.local.ip().is_unspecified()).then_some(behind);
    let text = |value: &str| Some(value.to_owned()).filter(|value| !value.is_empty());
    let instance = match stored.key.instance {
        Instance::Socket { cookie } => format!("socket:{cookie}"),
        Instance::Peer { cookie, .. } => format!("peer:{cookie}"),
        Instance::Tuple { netns, pid, .. } => format!("tuple:{netns}:{pid}"),
    };
    Some(Transaction {
        key: stored.tuple.transaction_key(),
        protocol: stored.protocol.as_str().to_owned(),
        node: stored.key.node.0.clone(),
        boot_id: hex(&stored.key.boot),
        instance,
        generation: stored.key.generation.count,
        source: stored.tuple.local.ip().to_string(),
        dest: stored.tuple.remote.ip().to_string(),
        source_port: stored.tuple.local.port(),
        dest_port: stored.tuple.remote.port(),
        direction: match stored.claim.map(|claim| claim.direction) {
            Some(Direction::Incoming) => "incoming",
            Some(Direction::Outgoing) => "outgoing",
            None => "unknown",
        }
        .to_owned(),
        direction_certainty: stored.claim.map_or(Certainty::Unknown, |claim| claim.certainty).as_str().to_owned(),
        monotonic_sent_bytes: stored.totals.sent.0,
        monotonic_recv_bytes: stored.totals.recv.0,
        monotonic_retransmits: stored.totals.retransmits,
        bytes_before: stored.before.sent.0.saturating_add(stored.before.recv.0),
        sent_bytes_before: stored.before.sent.0,
        recv_bytes_before: stored.before.recv.0,
        state: stored.condition.state.clone(),
        close_reason: stored.condition.close_reason.clone(),
        errno: (stored.condition.errno != 0).then_some(stored.condition.errno),
        pid: owner.map_or(0, |owner| owner.pid),
        process: owner.and_then(|owner| text(&owner.process)),
        container_id: owner.and_then(|owner| text(&owner.container_id)),
        cgroup_path: owner.and_then(|owner| text(&owner.cgroup_path)),
        net_ns: stored.netns,
        rtt_us: stored.rtt.map(|rtt| rtt.us),
        connect_latency_us: stored.connect_latency_us,
        first_seen: rfc3339(stored.started.unwrap_or(stored.seen)),
        last_seen: rfc3339(stored.closed().unwrap_or(stored.last)),
        paired: verdict.is_some_and(|verdict| verdict.counterpart.is_some()),
        other_peer: stored.other_peer,
        translated_source: translated.map(|tuple| tuple.local.ip().to_string()),
        translated_dest: translated.map(|tuple| tuple.remote.ip().to_string()),
        translated_source_port: translated.map(|tuple| tuple.local.port()),
        translated_dest_port: translated.map(|tuple| tuple.remote.port()),
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Rows beyond a cap are missing from these answers, whatever their span was.
pub(super) fn evicted(view: &dyn StateView, reason: &Reason) -> Result<Vec<Loss>, StoreError> {
    let count = view.counters()?.get(reason.word).copied().unwrap_or(0);
    Ok((count > 0)
        .then(|| Loss {
            place: reason.place.into(),
            reason: reason.word.into(),
            count,
            connections: if *reason == *TRANSACTIONS_EVICTED { count } else { 0 },
            intended: reason.intended,
            ..Loss::default()
        })
        .into_iter()
        .collect())
}

fn fact_passes(fact: &Fact, question: &Question) -> bool {
    let valid = question.until.is_none_or(|until| fact.from < until)
        && question.since.is_none_or(|since| fact.to.is_none_or(|to| to > since));
    let label = |(key, pattern): &(String, Glob)| {
        let own = match key.as_str() {
            "process" if fact.kind == "process" => Some(&fact.name),
            "container_id" if fact.kind == "container" => Some(&fact.id),
            "container_id" if fact.kind == "process" => Some(&fact.parent),
            _ => None,
        };
        own.or_else(|| fact.attributes.get(key)).is_some_and(|value| pattern.matches(value))
    };
    let inside = |network: &ipnet::IpNet| {
        fact.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok()).any(|address| network.contains(&address))
    };
    valid
        && question.kind.as_ref().is_none_or(|glob| glob.matches(&fact.kind))
        && question.node.as_ref().is_none_or(|glob| glob.matches(&fact.node.0))
        && question.name.as_ref().is_none_or(|glob| {
            glob.matches(&fact.name) || glob.matches(&fact.id) || fact.addresses.iter().any(|text| glob.matches(text))
        })
        && question.namespace.as_ref().is_none_or(|glob| !fact.namespace.is_empty() && glob.matches(&fact.namespace))
        && question.label.as_ref().is_none_or(label)
        && question.cidr.as_ref().is_none_or(inside)
        && question.lets(Level::Part, |_, comparison| fact_fits(fact, comparison))
}

/// Whether a comparison of the filter fits a fact.
fn fact_fits(fact: &Fact, comparison: &Comparison) -> bool {
    let addresses = || fact.addresses.iter().map(String::as_str);
    let filled = |text: &str| comparison.is_text(Some(text).filter(|text| !text.is_empty()));
    match &comparison.field {
        Field::Name => comparison.is_text([fact.name.as_str(), fact.id.as_str()].into_iter().chain(addresses())),
        Field::Kind => comparison.is_text([fact.kind.as_str()]),
        Field::Namespace => filled(&fact.namespace),
        Field::Node => filled(&fact.node.0),
        Field::Address => comparison.is_text(addresses()),
        Field::Source => comparison.is_text([fact.source.as_str()]),
        Field::Id => comparison.is_text([fact.id.as_str()]),
        Field::Attribute(name) => {
            let value = match name.split_once('.') {
                Some((kind, name)) if ATTRIBUTED.contains(&kind) => {
                    fact.attributes.get(name).filter(|_| kind == fact.kind)
                }
                _ => fact.attributes.get(name),
            };
            comparison.is_text(value.map(String::as_str))
        }
        _ => false,
    }
}

fn metadata_row(fact: Fact) -> MetadataRow {
    let text = |value: String| Some(value).filter(|value| !value.is_empty());
    let valid = |at: UnixNanos| rfc3339(at);
    MetadataRow {
        key: fact.addresses.first().cloned().unwrap_or_default(),
        kind: fact.kind,
        source: fact.source,
        node: fact.node.0,
        id: fact.id,
        name: fact.name,
        namespace: text(fact.namespace),
        parent: text(fact.parent),
        net_ns: (fact.netns != 0).then_some(fact.netns),
        addresses: fact.addresses,
        valid_from: valid(fact.from),
        valid_to: fact.to.map(valid),
        attributes: fact.attributes,
    }
}
