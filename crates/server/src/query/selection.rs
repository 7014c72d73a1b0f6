//! What a question is about: connections, what moved in them within the span, and how their views pair.
//!
//! Connections come from the state; those that have left it (two hours after their close) from the history rows of the
//! span. Views that pair with one of them are found by their bucket, whether they lie in the span or not.

use super::Sources;
use super::completeness::{Covered, SILENT_NS};
use super::params::{OpenOrClosed, Question};
use crate::names::Names;
use crate::pairing::{self, Verdict, View};
use crate::told::Told;
use crate::translations::HOPS_MAX;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use weir_inventory::{Inventory, RemoteEnd};
use weir_model::{Certainty, ConnectionId, Deltas, Protocol, Side, Tuple, UnixNanos};
use weir_store::{
    HistoryRow, HistoryStore as _, HistoryView, StateView, Step, StoreError, Transaction, TransactionSpan, Translation,
    client_key, transaction,
};

/// A connection's view without its stored form: from the state or, if it has left that, from history.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) id: ConnectionId,
    pub(crate) node: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) netns: u32,
    pub(crate) tuple: Tuple,
    pub(crate) flow: Tuple,
    pub(crate) claim: Option<(Side, Certainty)>,
    /// Its start, or its first record.
    pub(crate) from: UnixNanos,
    /// `from` is its start.
    pub(crate) opened: bool,
    /// The end of its newest record.
    pub(crate) last: UnixNanos,
    /// It has ended: closed, or its node has booted since.
    pub(crate) ended: bool,
    pub(crate) close_reason: String,
    pub(crate) process: String,
    /// The owner's pid and start, nanoseconds since boot; 0 unknown, as of connections that have left the state.
    pub(crate) pid: u32,
    pub(crate) process_start_ns: u64,
    pub(crate) container_id: String,
    /// The owner as the one that DNS answers were told to ([`weir_store::client_key`]).
    pub(crate) client_key: Option<String>,
    pub(crate) cgroup_path: String,
    pub(crate) rtt_us: Option<u32>,
    /// It is in the state.
    pub(crate) is_stored: bool,
    /// It is in the state, where no end of it was told.
    pub(crate) is_end_untold: bool,
    /// The stored form, where the question is about it.
    pub(crate) transaction: Option<Box<Transaction>>,
    /// It overlaps the span. The others are here only to pair with.
    pub(crate) in_span: bool,
}

/// What moved in a connection within the span, as its own end sees it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moved {
    pub(crate) all: Deltas,
    /// The part whose rows lie within the client node's coverage, if this is the server's view.
    pub(crate) while_client_covered: Deltas,
    pub(crate) rows: u64,
    /// The smoothed round-trip times of the rows that have one, summed, microseconds; and how many have.
    pub(crate) rtt: (u64, u64),
    /// The connection's last record is among them.
    pub(crate) closed: bool,
    /// What came too late, and in how many rows: part of nothing above.
    pub(crate) late: Deltas,
    pub(crate) late_rows: u64,
}

/// What moved in a connection within one step of a series.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stepped {
    pub(crate) all: Deltas,
    /// As [`Moved::while_client_covered`].
    pub(crate) while_client_covered: Deltas,
    /// The connection's first record is among the rows.
    pub(crate) opened: bool,
    /// In how many of the step's windows of 10 s anything was told.
    pub(crate) windows: u64,
    /// The smoothed round-trip times of the rows that have one, summed, microseconds; and how many have.
    pub(crate) rtt: (u64, u64),
}

/// Everything that a question needs.
pub(crate) struct Selection {
    pub(crate) subjects: HashMap<ConnectionId, Subject>,
    pub(crate) moved: HashMap<ConnectionId, Moved>,
    /// The same by the start of the step that holds the rows, where the question is about steps; what came late left out.
    pub(crate) steps: HashMap<ConnectionId, Vec<(UnixNanos, Stepped)>>,
    step: Option<Step>,
    /// Of servers' views, with the instant as of which the client was looked up: mostly the same in all rows of one.
    coverers: HashMap<ConnectionId, (UnixNanos, Coverer)>,
    pub(crate) verdicts: HashMap<ConnectionId, Verdict>,
    translations: BTreeSet<Translation>,
    names: Arc<Names>,
    pub(crate) told: Told,
    pub(crate) covered: Covered,
}

/// Which parts a question needs.
#[derive(Clone, Copy)]
pub(crate) enum Depth<'a> {
    /// Connections and pairing.
    State,
    /// And what moved within the span, in rows of 10 s, and these rows, wherever in time they lie: of their connections,
    /// nothing else is read.
    Settling(&'a [&'a HistoryRow]),
    /// And what moved within the span, of connections that are in the state alone.
    StoredHistory,
    /// And what moved within the span and is not settled, of a span that began so much earlier.
    Unsettled(&'a dyn HistoryView, UnixNanos),
}

/// What becomes of a connection's stored form once it is read: of many connections it is most of what they take.
#[derive(Clone, Copy)]
enum Stored {
    Kept,
    Dropped,
}

impl Selection {
    pub(crate) fn load(
        sources: &Sources,
        view: &dyn StateView,
        pending: &crate::live::Pending,
        question: &Question,
        depth: Depth<'_>,
    ) -> Result<Self, StoreError> {
        let since = question.since.unwrap_or(UnixNanos(i64::MIN));
        let until = question.until.unwrap_or(UnixNanos(i64::MAX));
        // Names and coverage are told by the clock that the rows have: where that is ahead, they lie beyond the span, too.
        let apart = if let Depth::Settling(apart) = depth { apart } else { &[] };
        let told_until = apart.iter().map(|row| row.to.plus(1)).fold(until, UnixNanos::max);
        let mut told = Told::default();
        // A connection that is open in the span may have begun long before it.
        view.dns_names(UnixNanos(i64::MIN), told_until, &mut |name| told.learn(name))?;
        let nodes = newest_of_nodes(view)?;
        let began = if let Depth::Unsettled(_, began) = depth { began } else { since };
        let is_dropped = matches!(depth, Depth::Unsettled(..) | Depth::Settling(_));
        let stored = if is_dropped { Stored::Dropped } else { Stored::Kept };
        let mut subjects = HashMap::new();
        view.transactions(TransactionSpan { since: question.since, until: question.until }, &mut |transaction| {
            let mut subject = Subject::of(transaction, &nodes, stored);
            // What was open when its node was heard of last is not open for ever.
            let is_heard = || nodes.get(&*subject.node).is_none_or(|node| node.told.plus(SILENT_NS) >= began);
            subject.in_span = subject.from < until && (subject.last >= since || (!subject.ended && is_heard()));
            subjects.insert(subject.id, subject);
        })?;
        let mut selection = Self {
            subjects,
            moved: HashMap::new(),
            steps: HashMap::new(),
            step: question.step,
            coverers: HashMap::new(),
            verdicts: HashMap::new(),
            translations: BTreeSet::new(),
            names: Arc::clone(&sources.names),
            told,
            covered: Covered::of(&view.coverage(since, told_until)?),
        };
        match depth {
            Depth::State => {}
            Depth::StoredHistory => {
                sources.store.scan(since, until, pending.watermark, &mut |row| selection.add_stored_row(&row))?;
                within(pending, since, until).for_each(|row| selection.add_stored_row(row));
            }
            Depth::Unsettled(history, _) => {
                history.unsettled(since, until, &mut |row| selection.add_row(&row))?;
                within(pending, since, until).for_each(|row| selection.add_row(row));
            }
            Depth::Settling(apart) => {
                sources.store.scan(since, until, pending.watermark, &mut |row| selection.add_row(&row))?;
                within(pending, since, until).for_each(|row| selection.add_row(row));
                let apart: Vec<&HistoryRow> =
                    apart.iter().copied().filter(|row| row.to < since || row.to >= until).collect();
                selection.add_apart(view, &apart, &nodes, stored)?;
            }
        }
        selection.find_counterparts(view, &nodes, stored)?;
        Ok(selection)
    }

    /// Of nothing: for what is settled as a whole.
    pub(crate) fn empty(sources: &Sources) -> Self {
        Self {
            subjects: HashMap::new(),
            moved: HashMap::new(),
            steps: HashMap::new(),
            step: None,
            coverers: HashMap::new(),
            verdicts: HashMap::new(),
            translations: BTreeSet::new(),
            names: Arc::clone(&sources.names),
            told: Told::default(),
            covered: Covered::default(),
        }
    }

    /// However far back rows go, no more is held than the state has.
    fn add_stored_row(&mut self, row: &HistoryRow) {
        if self.subjects.contains_key(&row.connection) {
            self.add_row(row);
        }
    }

    /// Rows outside of the span. The state may know more of their connections than they tell, and is asked first.
    fn add_apart(
        &mut self,
        view: &dyn StateView,
        rows: &[&HistoryRow],
        nodes: &Nodes,
        stored: Stored,
    ) -> Result<(), StoreError> {
        let link = |row: &&HistoryRow| transaction::link(row.protocol, Tuple { local: row.client, remote: row.server });
        let links: BTreeSet<i64> = rows.iter().map(link).collect();
        let links: Vec<i64> = links.into_iter().collect();
        let told: HashSet<ConnectionId> = rows.iter().map(|row| row.connection).collect();
        view.linked(&links, &mut |transaction| {
            if told.contains(&transaction.id()) {
                self.subjects.insert_if_new(Subject::of(transaction, nodes, stored));
            }
        })?;
        for row in rows {
            self.add_row(row);
        }
        Ok(())
    }

    fn add_row(&mut self, row: &HistoryRow) {
        // Rows are oriented from the client; sums are kept as the view's own end sees them, since pairing may turn it.
        let mut own = row.deltas;
        if row.view == Some(Side::Server) {
            std::mem::swap(&mut own.sent, &mut own.recv);
        }
        let moved = self.moved.entry(row.connection).or_default();
        if row.late {
            moved.late += own;
            moved.late_rows += 1;
        } else {
            moved.all += own;
            moved.rows += 1;
            moved.closed |= row.closed;
            moved.rtt.0 += row.rtt_us.map_or(0, u64::from);
            moved.rtt.1 += u64::from(row.rtt_us.is_some());
        }
        let is_client_covered = !row.late && row.view == Some(Side::Server) && {
            let began = row.started.unwrap_or(row.from);
            let who = || {
                let ends = (row.client.ip(), row.server.ip());
                (began, Coverer::of(&self.names.read(), &row.node, ends, began))
            };
            let known = self.coverers.entry(row.connection).or_insert_with(who);
            if known.0 != began {
                *known = who();
            }
            known.1.covers(&self.covered, row.to)
        };
        if is_client_covered {
            moved.while_client_covered += own;
        }
        if let Some(step) = self.step.filter(|_| !row.late) {
            let steps = self.steps.entry(row.connection).or_insert_with(|| Vec::with_capacity(1));
            let stepped = step_at(steps, step.floor(row.to));
            stepped.all += own;
            if is_client_covered {
                stepped.while_client_covered += own;
            }
            stepped.opened |= row.opened;
            // A connection has a row in a window; where agents poll more often, not more of them count.
            stepped.windows = (stepped.windows + 1).min(step.windows());
            stepped.rtt.0 += row.rtt_us.map_or(0, u64::from);
            stepped.rtt.1 += u64::from(row.rtt_us.is_some());
        }
        match self.subjects.get_mut(&row.connection) {
            Some(subject) if !subject.is_stored => subject.add_row(row),
            Some(_) => {}
            None => {
                self.subjects.insert(row.connection, Subject::of_row(row));
            }
        }
    }

    /// Pairs what is here; looks up the buckets of what found no other end, also behind translations, and pairs again.
    fn find_counterparts(&mut self, view: &dyn StateView, nodes: &Nodes, stored: Stored) -> Result<(), StoreError> {
        let mut asked: HashSet<i64> = HashSet::new();
        // Each hop has its translation and, behind it, its views.
        for _ in 0..=HOPS_MAX {
            self.verdicts = pairing::pair(self.subjects.values().map(Subject::view), &self.translations);
            let links = self.lonely_links(&mut asked);
            let mut added = false;
            let mut found = Vec::new();
            view.translations(&links, &mut |translation| found.push(translation))?;
            let mut links: HashSet<i64> = links.into_iter().collect();
            for translation in found {
                links.extend(translation.links().into_iter().filter(|link| asked.insert(*link)));
                added |= self.translations.insert(translation);
            }
            let mut links: Vec<i64> = links.into_iter().collect();
            links.sort_unstable();
            let mut found = Vec::new();
            view.linked(&links, &mut |transaction| found.push(transaction))?;
            for transaction in found {
                added |= self.subjects.insert_if_new(Subject::of(transaction, nodes, stored));
            }
            if !added {
                return Ok(());
            }
        }
        self.verdicts = pairing::pair(self.subjects.values().map(Subject::view), &self.translations);
        Ok(())
    }

    /// The buckets of views without another end that were not asked for yet.
    fn lonely_links(&self, asked: &mut HashSet<i64>) -> Vec<i64> {
        let lonely = self.verdicts.iter().filter(|(_, verdict)| verdict.counterpart.is_none());
        let mut links: Vec<i64> = lonely
            .filter_map(|(id, verdict)| Some((self.subjects.get(id)?, verdict)))
            .flat_map(|(subject, verdict)| {
                // A socket that does not tell its address stays in the bucket of what it tells.
                [subject.flow, verdict.tuple].map(|tuple| transaction::link(subject.protocol, tuple))
            })
            .filter(|link| asked.insert(*link))
            .collect();
        links.sort_unstable();
        links
    }

    /// The address of a server's client: as translations lead back, else as the server sees it.
    pub(crate) fn opener(&self, subject: &Subject) -> IpAddr {
        let origin = self.verdicts.get(&subject.id).and_then(|verdict| verdict.origin);
        origin.map_or(subject.flow.remote, |origin| origin.local).ip()
    }

    /// Whether the client's node would have told of a view of this connection, had it one.
    pub(crate) fn is_client_covered(&self, inventory: &Inventory, subject: &Subject) -> bool {
        let (own, other) = (subject.flow.local.ip(), self.opener(subject));
        client_covered(inventory, &self.covered, &subject.node, (other, own), subject.from, subject.last)
    }
}

/// The pending rows of a span.
fn within(pending: &crate::live::Pending, since: UnixNanos, until: UnixNanos) -> impl Iterator<Item = &HistoryRow> {
    pending.groups.iter().flat_map(|group| group.iter()).filter(move |row| row.to >= since && row.to < until)
}

/// The step that begins `at`, in its place. Most connections have one; a tree for each takes ten times the room.
fn step_at(steps: &mut Vec<(UnixNanos, Stepped)>, at: UnixNanos) -> &mut Stepped {
    let place = match steps.binary_search_by_key(&at, |(at, _)| *at) {
        Ok(place) => place,
        Err(place) => {
            steps.insert(place, (at, Stepped::default()));
            place
        }
    };
    &mut steps[place].1
}

trait InsertIfNew {
    fn insert_if_new(&mut self, subject: Subject) -> bool;
}

impl InsertIfNew for HashMap<ConnectionId, Subject> {
    fn insert_if_new(&mut self, subject: Subject) -> bool {
        match self.entry(subject.id) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(subject);
                true
            }
        }
    }
}

/// Whose polls would have told of a client's view.
#[derive(Clone, Debug)]
enum Coverer {
    /// The very poll that tells of the server's.
    Same,
    /// Those of another node.
    Node(Box<str>),
    /// Nobody's: who the client is, is not known, or nobody watches it.
    Nobody,
}

impl Coverer {
    /// A client on the server's own node is covered by the very poll that tells of the server's view. A node's own address
    /// proves nothing: whoever the node masquerades has it too, and the node would have told of a socket of its own.
    fn of(inventory: &Inventory, node: &str, (client, server): (IpAddr, IpAddr), began: UnixNanos) -> Self {
        if client.is_loopback() || client == server {
            return Self::Same;
        }
        let who =
            inventory.remote(&RemoteEnd { seen_on: node, address: client, began: Some(began), first_seen: began });
        match who.kind() {
            "pod" | "container" if who.node() == node => Self::Same,
            "pod" | "container" => Self::Node(who.node().into()),
            _ => Self::Nobody,
        }
    }

    /// Whether they have told of what ended `at`.
    fn covers(&self, covered: &Covered, at: UnixNanos) -> bool {
        match self {
            Self::Same => true,
            Self::Node(node) => covered.covers(node, at),
            Self::Nobody => false,
        }
    }
}

/// Whether a client's view would have been told of.
///
/// `ends`: the client's address and the server's; `began`: when the client's address was whose it was; `at`: the end of
/// the record.
pub(crate) fn client_covered(
    inventory: &Inventory,
    covered: &Covered,
    node: &str,
    ends: (IpAddr, IpAddr),
    began: UnixNanos,
    at: UnixNanos,
) -> bool {
    Coverer::of(inventory, node, ends, began).covers(covered, at)
}

/// What a node's newest batch says.
#[derive(Clone, Copy)]
struct Newest {
    received: UnixNanos,
    /// Sockets of an earlier boot have ended.
    boot: [u8; 16],
    /// The end of what it has told, of any stream.
    told: UnixNanos,
}

type Nodes = BTreeMap<String, Newest>;

fn newest_of_nodes(view: &dyn StateView) -> Result<Nodes, StoreError> {
    let mut nodes = Nodes::new();
    for stream in view.streams()? {
        let newest = Newest { received: stream.received, boot: stream.boot, told: stream.newest.to };
        let node = nodes.entry(stream.node.0).or_insert(newest);
        let told = node.told.max(newest.told);
        if newest.received >= node.received {
            *node = newest;
        }
        node.told = told;
    }
    Ok(nodes)
}

impl Subject {
    fn of(mut transaction: Transaction, nodes: &Nodes, stored: Stored) -> Self {
        let owner = match stored {
            Stored::Kept => transaction.owner.clone(),
            Stored::Dropped => transaction.owner.take(),
        };
        let owner = owner.unwrap_or_default();
        let same_boot = nodes.get(&transaction.key.node.0).is_none_or(|node| node.boot == transaction.key.boot);
        Self {
            id: transaction.id(),
            node: transaction.key.node.0.as_str().into(),
            protocol: transaction.protocol,
            netns: transaction.netns,
            tuple: transaction.tuple,
            flow: transaction.flow_tuple(),
            claim: transaction.claim.map(|claim| (claim.direction.into(), claim.certainty)),
            from: transaction.started.unwrap_or(transaction.first).min(transaction.first),
            opened: transaction.started.is_some(),
            last: transaction.last,
            ended: transaction.closed().is_some() || !same_boot,
            close_reason: transaction.condition.close_reason.clone().unwrap_or_default(),
            client_key: client_key(&owner.container_id, owner.pid, owner.process_start_ns),
            pid: owner.pid,
            process_start_ns: owner.process_start_ns,
            process: owner.process,
            container_id: owner.container_id,
            cgroup_path: owner.cgroup_path,
            rtt_us: transaction.rtt.map(|rtt| rtt.us),
            in_span: false,
            is_stored: true,
            is_end_untold: transaction.closed().is_none(),
            transaction: matches!(stored, Stored::Kept).then(|| Box::new(transaction)),
        }
    }

    fn of_row(row: &HistoryRow) -> Self {
        let (local, remote) =
            if row.view == Some(Side::Server) { (row.server, row.client) } else { (row.client, row.server) };
        let tuple = Tuple { local, remote };
        Self {
            id: row.connection,
            node: Arc::clone(&row.node),
            protocol: row.protocol,
            netns: row.netns,
            tuple,
            flow: tuple,
            claim: row.view.map(|side| (side, Certainty::Inferred)),
            from: row.started.unwrap_or(row.from).min(row.from),
            opened: row.started.is_some(),
            last: row.to,
            ended: true,
            close_reason: row.failure.to_string(),
            process: row.process.to_string(),
            pid: 0,
            process_start_ns: 0,
            container_id: row.container_id.to_string(),
            // Without a container it would take the process' start, which history has not.
            client_key: client_key(&row.container_id, 0, 0),
            cgroup_path: String::new(),
            rtt_us: row.rtt_us,
            is_stored: false,
            is_end_untold: false,
            transaction: None,
            in_span: true,
        }
    }

    /// Another row of a connection that has left the state.
    fn add_row(&mut self, row: &HistoryRow) {
        self.from = self.from.min(row.started.unwrap_or(row.from)).min(row.from);
        if row.to >= self.last {
            self.rtt_us = row.rtt_us.or(self.rtt_us);
        }
        self.last = self.last.max(row.to);
        if !row.failure.is_empty() {
            self.close_reason = row.failure.to_string();
        }
    }

    fn view(&self) -> View {
        View {
            id: self.id,
            protocol: self.protocol,
            netns: self.netns,
            tuple: self.flow,
            claim: self.claim,
            from: self.from,
            to: if self.ended { self.last } else { UnixNanos(i64::MAX) },
            opened: self.opened,
        }
    }

    /// Whether it is open now.
    pub(crate) fn is_open(&self) -> bool {
        !self.ended
    }

    /// Whether a socket's own addresses are in the network that is asked for.
    pub(crate) fn is_in(&self, question: &Question) -> bool {
        let ends = [self.tuple.local.ip(), self.tuple.remote.ip()];
        question.cidr.is_none_or(|network| ends.iter().any(|end| network.contains(end)))
    }

    /// Whether the question's filters that need no names and no addresses let it through.
    pub(crate) fn passes(&self, question: &Question) -> bool {
        let state = match question.state {
            OpenOrClosed::All => true,
            OpenOrClosed::Open => self.is_open(),
            OpenOrClosed::Closed => !self.is_open(),
        };
        state && question.protocol.is_none_or(|protocol| protocol == self.protocol)
    }
}
