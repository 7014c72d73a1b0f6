//! A batch turned into what is stored: readings, facts, a report, and history rows. Pure.
//!
//! A record that cannot be what it says (no address, an index out of range, an unknown protocol) is left out and
//! counted; the rest of its batch stands.

use crate::compact::HORIZON;
use crate::names::Names;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use weir_inventory::{Inventory, RemoteEnd};
use weir_model::{
    Bytes, Certainty, ConnectionKey, Deltas, Direction, Endpoint, Fact, Generation, Instance, NodeName, Protocol, Side,
    Totals, Tuple, UnixNanos,
};
use weir_store::{
    BatchReport, Before, Claim, Condition, Coverage, DnsCount, HistoryRow, Loss, MetadataState, Owner, Rtt,
    SourceState, StreamId, Transaction, Translation,
};
use weir_wire::agent::record::InstanceKind;
use weir_wire::agent::{Address, Batch, LocalEnd, Record};
use weir_wire::losses::{FURTHER_REASONS, RECORD_REFUSED, SPOOL_DROPPED};

/// More losses in one batch are summed under the last of them: a batch comes every few seconds.
const LOSSES_MAX: usize = 256;
/// Sources of metadata of one node: there are seven.
const SOURCES_MAX: usize = 16;
/// A cap for every text that an agent gives: names and paths are shorter, and one row must not fill a page.
const TEXT_BYTES_MAX: usize = 4096;

/// What a batch holds.
#[derive(Debug)]
pub(crate) struct Converted {
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) facts: Vec<Fact>,
    pub(crate) translations: Vec<Translation>,
    pub(crate) report: BatchReport,
    pub(crate) rows: Vec<HistoryRow>,
    pub(crate) records_refused: u64,
    /// Rows that came when their time was settled already.
    pub(crate) rows_late: u64,
    pub(crate) dns: Vec<DnsCount>,
}

/// Converts a batch of `stream`. `names` learns its facts, and says who an end is.
pub(crate) fn convert(
    stream: StreamId,
    batch: &Batch,
    received: UnixNanos,
    clock_offset_ns: Option<i64>,
    names: &Names,
) -> Converted {
    let node = NodeName(clip(&batch.node));
    let boot = sixteen(&batch.boot_id);
    let facts: Vec<Fact> = batch.metadata.iter().map(|fact| to_fact(fact, &node, batch.covers_to_unix_ns)).collect();
    names.learn(&facts);
    let mut transactions = Vec::with_capacity(batch.records.len());
    let mut rows = Vec::with_capacity(batch.records.len());
    let (mut refused, mut late) = (0, 0);
    let mut shared = Shared::new(&node);
    let nothing = LocalEnd::default();
    let inventory = names.read();
    for record in &batch.records {
        // An index beyond the list with an empty list means that the agent knows nothing of any owner.
        let end = match batch.local_ends.get(record.local_end as usize) {
            Some(end) => end,
            None if batch.local_ends.is_empty() => &nothing,
            None => {
                refused += 1;
                continue;
            }
        };
        let Some(reading) = to_transaction(record, end, &node, boot) else {
            refused += 1;
            continue;
        };
        if let Some(mut row) = to_row(record, &reading, &mut shared, &inventory) {
            // By the server's clock, as settling goes; the log has when it came, so that a replay says the same.
            row.late = received.since(row.to) > HORIZON.as_nanos() as i64;
            late += u64::from(row.late);
            rows.push(row);
        }
        transactions.push(reading);
    }
    name_remote_ends(&transactions, &mut rows, &mut shared, &inventory);
    drop(inventory);
    let told = batch.translations.len();
    let translations: Vec<Translation> =
        batch.translations.iter().filter_map(|told| to_translation(told, &node)).collect();
    refused += (told - translations.len()) as u64;
    let (dns, dns_refused) = super::dns::convert(stream, batch, &node);
    refused += dns_refused;
    let mut report = to_report(stream, batch, &node, boot, received, clock_offset_ns, refused);
    if late > 0 {
        report.counts.insert("rows_late".to_owned(), late);
    }
    Converted { transactions, facts, translations, report, rows, records_refused: refused, rows_late: late, dns }
}

fn to_transaction(record: &Record, end: &LocalEnd, node: &NodeName, boot: [u8; 16]) -> Option<Transaction> {
    let protocol = match record.protocol {
        0 => Protocol::Tcp,
        1 => Protocol::Udp,
        _ => return None,
    };
    let tuple = tuple(record.local.as_ref()?, record.remote.as_ref()?)?;
    let instance = match record.instance_kind() {
        InstanceKind::Socket if record.cookie != 0 => Instance::Socket { cookie: record.cookie },
        InstanceKind::Peer if record.cookie != 0 => Instance::Peer { cookie: record.cookie, tuple },
        InstanceKind::Tuple => Instance::Tuple { protocol, netns: end.netns, pid: end.pid, tuple },
        _ => return None,
    };
    let at = UnixNanos(record.to_unix_ns);
    let closed = known(record.closed_unix_ns);
    let started = known(record.start_unix_ns);
    let from = from(record);
    let owner = Owner {
        at,
        pid: end.pid,
        process_start_ns: end.process_start_ns,
        process: clip(&end.process_name),
        cgroup_id: end.cgroup_id,
        cgroup_path: clip(&end.cgroup_path),
        container_id: clip(&end.container_id),
    };
    let owned = owner != Owner { at, ..Owner::default() };
    Some(Transaction {
        key: ConnectionKey {
            node: node.clone(),
            boot,
            instance,
            generation: Generation { count: record.generation, run: record.generation_run },
        },
        protocol,
        tuple,
        translated: translated(record, tuple),
        netns: end.netns,
        totals: Totals {
            sent: Bytes(record.sent_total),
            recv: Bytes(record.recv_total),
            retransmits: record.retransmits_total,
        },
        before: Before { sent: Bytes(record.sent_before), recv: Bytes(record.recv_before) },
        started,
        first: started.map_or(from, |started| started.min(at)),
        seen: at,
        last: at,
        condition: Condition {
            closed,
            at,
            state: if closed.is_some() { "closed".to_owned() } else { clip(&record.state) },
            close_reason: closed.map(|_| clip(&record.close_reason)).filter(|reason| !reason.is_empty()),
            errno: record.error,
        },
        claim: match record.direction {
            1 => Some(Direction::Incoming),
            2 => Some(Direction::Outgoing),
            _ => None,
        }
        .map(|direction| Claim {
            certainty: match record.direction_certainty {
                2 => Certainty::Known,
                1 => Certainty::Inferred,
                _ => Certainty::Unknown,
            },
            at,
            direction,
        }),
        owner: owned.then_some(owner),
        rtt: (record.rtt_us != 0).then_some(Rtt { at, us: record.rtt_us }),
        connect_latency_us: (record.connect_latency_us != 0).then_some(record.connect_latency_us),
        other_peer: record.other_peer,
    })
}

/// `None` when it is not one: no addresses, or nothing translated.
fn to_translation(told: &weir_wire::agent::Translation, node: &NodeName) -> Option<Translation> {
    let protocol = match told.protocol {
        0 => Protocol::Tcp,
        1 => Protocol::Udp,
        _ => return None,
    };
    let original = tuple(told.original_source.as_ref()?, told.original_dest.as_ref()?)?;
    let translated = tuple(told.translated_source.as_ref()?, told.translated_dest.as_ref()?)?;
    (original != translated).then(|| Translation {
        node: node.clone(),
        protocol,
        original,
        translated,
        seen: UnixNanos(told.seen_unix_ns),
        began: told.began,
    })
}

/// The start of the polls' span; without a previous poll it is its end.
fn from(record: &Record) -> UnixNanos {
    let known = record.from_unix_ns > 0 && record.from_unix_ns < record.to_unix_ns;
    UnixNanos(if known { record.from_unix_ns } else { record.to_unix_ns })
}

/// What many rows of a batch have in common, once: they wait in memory until a segment is written.
struct Shared {
    node: Arc<str>,
    nothing: Arc<str>,
    texts: HashSet<Arc<str>>,
    endpoints: HashSet<Arc<Endpoint>>,
}

impl Shared {
    fn new(node: &NodeName) -> Self {
        let (texts, endpoints) = (HashSet::new(), HashSet::new());
        Self { node: node.0.as_str().into(), nothing: "".into(), texts, endpoints }
    }

    fn text(&mut self, text: &str) -> Arc<str> {
        if text.is_empty() {
            return Arc::clone(&self.nothing);
        }
        if let Some(held) = self.texts.get(text) {
            return Arc::clone(held);
        }
        let new: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&new));
        new
    }

    fn endpoint(&mut self, endpoint: Endpoint) -> Arc<Endpoint> {
        if let Some(held) = self.endpoints.get(&endpoint) {
            return Arc::clone(held);
        }
        let new = Arc::new(endpoint);
        self.endpoints.insert(Arc::clone(&new));
        new
    }
}

/// `None` when the record only describes: nothing moved, nothing opened or closed.
fn to_row(record: &Record, reading: &Transaction, shared: &mut Shared, inventory: &Inventory) -> Option<HistoryRow> {
    let closed = reading.closed().is_some();
    let moved = record.sent_delta != 0 || record.recv_delta != 0 || record.retransmits_delta != 0;
    if !(moved || record.opened || closed) {
        return None;
    }
    let view = reading.side();
    let tuple = reading.flow_tuple();
    let own = shared.endpoint(own_endpoint(inventory, reading));
    let other = shared.endpoint(remote_endpoint(inventory, reading, tuple.remote.ip()));
    let at_server = view == Some(Side::Server);
    let (client, server) = if at_server { (tuple.remote, tuple.local) } else { (tuple.local, tuple.remote) };
    let (client_endpoint, server_endpoint) = if at_server { (other, own) } else { (own, other) };
    let (sent, recv) =
        if at_server { (record.recv_delta, record.sent_delta) } else { (record.sent_delta, record.recv_delta) };
    let owner = reading.owner.as_ref();
    Some(HistoryRow {
        from: from(record),
        to: reading.last,
        connection: reading.id(),
        view,
        node: Arc::clone(&shared.node),
        protocol: reading.protocol,
        netns: reading.netns,
        client,
        server,
        client_endpoint,
        server_endpoint,
        process: shared.text(owner.map_or("", |owner| &owner.process)),
        container_id: shared.text(owner.map_or("", |owner| &owner.container_id)),
        deltas: Deltas { sent: Bytes(sent), recv: Bytes(recv), retransmits: record.retransmits_delta },
        opened: record.opened,
        closed,
        failure: shared
            .text(reading.condition.close_reason.as_deref().filter(|reason| is_failure(reason)).unwrap_or("")),
        rtt_us: reading.rtt.map(|rtt| rtt.us),
        started: reading.started,
        late: false,
    })
}

/// A transaction's own end, as well as it is known now. Answers name it anew.
fn own_endpoint(inventory: &Inventory, transaction: &Transaction) -> Endpoint {
    let nobody = Owner::default();
    let owner = transaction.owner.as_ref().unwrap_or(&nobody);
    let local = weir_inventory::LocalEnd {
        node: &transaction.key.node.0,
        process: &owner.process,
        pid: owner.pid,
        process_start: owner.process_start_ns,
        container_id: &owner.container_id,
        cgroup_path: &owner.cgroup_path,
        netns: transaction.netns,
        address: transaction.tuple.local.ip(),
    };
    inventory.local(&local, transaction.last).endpoint()
}

/// Who held the other end's address when the connection began.
fn remote_endpoint(inventory: &Inventory, transaction: &Transaction, address: IpAddr) -> Endpoint {
    let remote = RemoteEnd {
        seen_on: &transaction.key.node.0,
        address,
        began: transaction.started,
        first_seen: transaction.first,
    };
    inventory.remote(&remote).endpoint()
}

/// Where both ends' views are in one batch, each names the other's end in the history's readable columns. Answers do
/// not depend on it: they pair anew (R5, R6).
fn name_remote_ends(transactions: &[Transaction], rows: &mut [HistoryRow], shared: &mut Shared, inventory: &Inventory) {
    let by_tuple: HashMap<_, _> = transactions
        .iter()
        .map(|reading| {
            let tuple = reading.flow_tuple();
            ((reading.protocol, if tuple.is_loopback() { reading.netns } else { 0 }, tuple), reading)
        })
        .collect();
    for row in rows {
        let at_server = row.view == Some(Side::Server);
        let (own, remote) = if at_server { (row.server, row.client) } else { (row.client, row.server) };
        let tuple = Tuple { local: remote, remote: own };
        let netns = if tuple.is_loopback() { row.netns } else { 0 };
        if let Some(other) = by_tuple.get(&(row.protocol, netns, tuple)) {
            let endpoint = shared.endpoint(own_endpoint(inventory, other));
            if at_server {
                row.client_endpoint = endpoint;
            } else {
                row.server_endpoint = endpoint;
            }
        }
    }
}

/// Whether a close reason means that the connection failed to open or broke. `closed` and `disconnected` do not.
pub(crate) fn is_failure(reason: &str) -> bool {
    matches!(reason, "refused" | "timed_out" | "reset" | "unreachable" | "aborted")
}

fn to_report(
    stream: StreamId,
    batch: &Batch,
    node: &NodeName,
    boot: [u8; 16],
    received: UnixNanos,
    clock_offset_ns: Option<i64>,
    refused: u64,
) -> BatchReport {
    let (mut from, mut to) = (batch.covers_from_unix_ns, batch.covers_to_unix_ns);
    let mut covered = batch.covered;
    let mut gap_reason = clip(&batch.gap_reason);
    let mut counts = BTreeMap::from([
        ("batches".to_owned(), 1),
        ("records".to_owned(), batch.records.len() as u64),
        ("records_refused".to_owned(), refused),
    ]);
    if !batch.dns.is_empty() {
        counts.insert("dns_queries".to_owned(), batch.dns.iter().fold(0, |sum, row| row.count.saturating_add(sum)));
    }
    if let Some(source) = &batch.source {
        counts.insert("rows".to_owned(), source.rows);
        counts.insert("rows_refused".to_owned(), source.rows_refused);
        counts.insert(format!("polls_{}", clip(&source.state)), 1);
    }
    let mut losses: Vec<Loss> = Vec::new();
    if let Some(tombstone) = &batch.tombstone {
        (from, to, covered) = (tombstone.from_unix_ns, tombstone.to_unix_ns, false);
        if gap_reason.is_empty() {
            SPOOL_DROPPED.word.clone_into(&mut gap_reason);
        }
        let dropped = 1 + tombstone.last_sequence.saturating_sub(tombstone.first_sequence);
        counts.insert("batches_dropped".to_owned(), dropped);
        // An agent that says itself why it dropped them says how much it was, too.
        if batch.losses.is_empty() {
            losses.push(Loss {
                place: SPOOL_DROPPED.place.into(),
                reason: gap_reason.clone(),
                count: dropped,
                bytes: tombstone.sent_bytes.saturating_add(tombstone.recv_bytes),
                connections: tombstone.connections,
                intended: true,
                ..Loss::default()
            });
        }
    }
    // No previous poll: nothing before this one is covered.
    if from == 0 || from > to {
        from = to;
    }
    for loss in &batch.losses {
        if loss.count == 0 && loss.bytes == 0 && loss.connections == 0 {
            continue;
        }
        let next = Loss {
            place: clip(&loss.place),
            reason: clip(&loss.reason),
            count: loss.count,
            bytes: loss.bytes,
            connections: loss.connections,
            intended: loss.intended,
            ..Loss::default()
        };
        let is_full = losses.len() == LOSSES_MAX;
        match losses.last_mut() {
            Some(last) if is_full => {
                last.place = FURTHER_REASONS.place.into();
                last.reason = FURTHER_REASONS.word.into();
                last.intended &= next.intended;
                last.count = last.count.saturating_add(next.count);
                last.bytes = last.bytes.saturating_add(next.bytes);
                last.connections = last.connections.saturating_add(next.connections);
            }
            _ => losses.push(next),
        }
    }
    if refused > 0 {
        losses.push(Loss {
            place: RECORD_REFUSED.place.into(),
            reason: RECORD_REFUSED.word.into(),
            count: refused,
            ..Loss::default()
        });
    }
    for loss in &mut losses {
        loss.node.clone_from(&node.0);
        (loss.from, loss.to) = (UnixNanos(from), UnixNanos(to));
        // One whose bytes alone are known counts as one.
        *counts.entry(format!("lost_{}_{}", loss.place, loss.reason)).or_default() += loss.count.max(1);
    }
    BatchReport {
        stream,
        sequence: batch.sequence,
        dropped: batch.tombstone.as_ref().map(|tombstone| (tombstone.first_sequence, tombstone.last_sequence)),
        node: node.clone(),
        boot,
        agent_run: sixteen(&batch.agent_run),
        version: clip(&batch.agent_version),
        received,
        clock_offset_ns,
        coverage: (to != 0).then(|| Coverage {
            node: node.0.clone(),
            from: UnixNanos(from),
            to: UnixNanos(to),
            covered,
            gap_reason,
        }),
        source: batch.source.as_ref().map(|source| SourceState {
            kind: clip(&source.kind),
            state: clip(&source.state),
            detail: clip(&source.detail),
            version: clip(&source.version),
        }),
        metadata: batch.metadata_sources.iter().take(SOURCES_MAX).map(to_metadata_state).collect(),
        losses,
        counts,
    }
}

fn to_metadata_state(told: &weir_wire::agent::MetadataSource) -> MetadataState {
    MetadataState {
        source: clip(&told.source),
        state: clip(&told.state),
        detail: clip(&told.detail),
        things: told.things,
        read: known(told.read_unix_ns),
    }
}

fn to_fact(fact: &weir_wire::agent::MetadataFact, node: &NodeName, said: i64) -> Fact {
    Fact {
        node: node.clone(),
        source: clip(&fact.source),
        kind: clip(&fact.kind),
        id: clip(&fact.id),
        from: UnixNanos(fact.from_unix_ns),
        said: UnixNanos(said),
        to: known(fact.to_unix_ns),
        name: clip(&fact.name),
        namespace: clip(&fact.namespace),
        parent: clip(&fact.parent),
        netns: fact.netns,
        addresses: fact.addresses.iter().map(|address| clip(address)).collect(),
        attributes: fact.attributes.iter().map(|(name, value)| (clip(name), clip(value))).collect(),
    }
}

fn translated(record: &Record, tuple: Tuple) -> Option<Tuple> {
    if record.translated_local.is_none() && record.translated_remote.is_none() {
        return None;
    }
    let local = record.translated_local.as_ref().map_or(Some(tuple.local), Address::end)?;
    let remote = record.translated_remote.as_ref().map_or(Some(tuple.remote), Address::end)?;
    Some(Tuple { local, remote }).filter(|translated| *translated != tuple)
}

fn tuple(local: &Address, remote: &Address) -> Option<Tuple> {
    Some(Tuple { local: local.end()?, remote: remote.end()? })
}

fn known(nanos: i64) -> Option<UnixNanos> {
    (nanos != 0).then_some(UnixNanos(nanos))
}

/// An id of another length is an agent's mistake that harms only itself: zeros.
pub(crate) fn sixteen(bytes: &[u8]) -> [u8; 16] {
    bytes.try_into().unwrap_or_default()
}

pub(super) fn clip(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
