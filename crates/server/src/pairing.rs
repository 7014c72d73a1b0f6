//! Which views are of one exchange, who is the client in it, and which view counts (R5).
//!
//! A pure function of the *set* of views: order, repetition and the way in which they were collected change nothing.
//! Views come from transactions (and, for connections that have left the state, from history rows); verdicts go to the
//! answers. The pairing is of connections, not of rows: the client's row may lie in another window than the server's.
//!
//! Views are led on through what nodes between them translate first ([`crate::translations`]). Two views pair when their
//! tuples after translation mirror each other (between loopback addresses also in the same
//! network namespace) and their lifetimes overlap; what then has no other end pairs with the nearest such view of the other
//! end, up to an hour away: the clocks of the two nodes are apart. A socket that does not tell its own address (an unconnected UDP
//! socket) takes the one address under which a peer knows it, if there is exactly one. A server-side view counts only
//! if no client-side view pairs with it.

use crate::translations;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use weir_model::{Certainty, ConnectionId, Protocol, Side, Tuple, UnixNanos};
use weir_store::Translation;
use weir_store::transaction::is_wildcard;

/// How far two lifetimes may miss each other: what clocks of two synchronised nodes differ at most in practice, and far
/// below TCP's 60 s of TIME_WAIT, after which a tuple is used again.
pub(crate) const SLACK_NS: i64 = 1_000_000_000;

/// How far the clocks of nodes that are not synchronised may be apart: the lateness horizon.
const SKEW_NS: i64 = 3600 * 1_000_000_000;

/// One view of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) id: ConnectionId,
    pub(crate) protocol: Protocol,
    /// Matters between loopback addresses only.
    pub(crate) netns: u32,
    /// After translation.
    pub(crate) tuple: Tuple,
    /// The role that it claims, and how sure it is.
    pub(crate) claim: Option<(Side, Certainty)>,
    /// Its lifetime: from its start or the first record.
    pub(crate) from: UnixNanos,
    /// To its close; the end of time while it is open.
    pub(crate) to: UnixNanos,
    /// `from` is its start; otherwise it may be older.
    pub(crate) opened: bool,
}

/// What pairing says of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Its role.
    pub(crate) side: Side,
    /// How sure that is.
    pub(crate) certainty: Certainty,
    /// The other end's view that fits best.
    pub(crate) counterpart: Option<ConnectionId>,
    /// The tuple behind every translation that is known, with its own address where it did not tell it.
    pub(crate) tuple: Tuple,
    /// Where a server's view stayed alone and translations lead back to another connection than it sees: its opener, and
    /// what that asked for.
    pub(crate) origin: Option<Tuple>,
}

impl Verdict {
    /// Whether the other end's records count instead of this view's.
    pub(crate) fn is_counted_by_client(&self) -> bool {
        self.side == Side::Server && self.counterpart.is_some()
    }

    /// A server-side view whose client has no view: its records count only outside the client node's coverage.
    pub(crate) fn is_unpaired_server(&self) -> bool {
        self.side == Side::Server && self.counterpart.is_none()
    }
}

/// Decides every view.
pub(crate) fn pair(
    views: impl IntoIterator<Item = View>,
    translations: &BTreeSet<Translation>,
) -> HashMap<ConnectionId, Verdict> {
    // By id: repetition falls away, and every later step goes in one order.
    let mut by_id: BTreeMap<ConnectionId, View> = BTreeMap::new();
    for view in views {
        by_id.entry(view.id).and_modify(|held| *held = join(held, &view)).or_insert(view);
    }
    let mut views: Vec<View> = by_id.into_values().collect();
    translations::carry(&mut views, translations);
    find_own_addresses(&mut views);
    let mut flows: HashMap<FlowKey, Vec<usize>> = HashMap::new();
    for (index, view) in views.iter().enumerate() {
        flows.entry(FlowKey::of(view)).or_default().push(index);
    }
    let mut verdicts = HashMap::with_capacity(views.len());
    for (key, members) in &flows {
        decide(&views, key, members, &mut verdicts);
    }
    let lonely = views.iter().filter(|view| verdicts[&view.id].is_unpaired_server());
    for (id, origin) in translations::origins(lonely, translations) {
        if let Some(verdict) = verdicts.get_mut(&id) {
            verdict.origin = Some(origin);
        }
    }
    verdicts
}

/// Two readings of one view, in any order.
fn join(a: &View, b: &View) -> View {
    View {
        id: a.id,
        protocol: a.protocol,
        netns: a.netns.max(b.netns),
        tuple: a.tuple.max(b.tuple),
        claim: match (a.claim, b.claim) {
            (Some(a), Some(b)) => Some(if (a.1, a.0) >= (b.1, b.0) { a } else { b }),
            (a, b) => a.or(b),
        },
        from: a.from.min(b.from),
        to: a.to.max(b.to),
        opened: a.opened || b.opened,
    }
}

/// The unordered pair of ends that both views of a flow share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FlowKey {
    protocol: Protocol,
    netns: u32,
    low: SocketAddr,
    high: SocketAddr,
}

impl FlowKey {
    fn of(view: &View) -> Self {
        let Tuple { local, remote } = view.tuple;
        Self {
            protocol: view.protocol,
            netns: if view.tuple.is_loopback() { view.netns } else { 0 },
            low: local.min(remote),
            high: local.max(remote),
        }
    }
}

fn find_own_addresses(views: &mut [View]) {
    type Peer = (Protocol, SocketAddr, u16);
    let mut known_as: HashMap<Peer, Vec<(u32, SocketAddr)>> = HashMap::new();
    for view in views.iter().filter(|view| !is_wildcard(view.tuple.local.ip())) {
        let Tuple { local, remote } = view.tuple;
        known_as.entry((view.protocol, local, remote.port())).or_default().push((view.netns, remote));
    }
    for view in views.iter_mut().filter(|view| is_wildcard(view.tuple.local.ip())) {
        let Tuple { local, remote } = view.tuple;
        let Some(candidates) = known_as.get(&(view.protocol, remote, local.port())) else { continue };
        let mut fitting = candidates
            .iter()
            .filter(|(netns, _)| !remote.ip().is_loopback() || *netns == view.netns)
            .map(|(_, end)| *end);
        if let Some(end) = fitting.next()
            && fitting.all(|other| other == end)
        {
            view.tuple.local = end;
        }
    }
}

fn overlap(a: &View, b: &View) -> bool {
    a.from.0 <= b.to.0.saturating_add(SLACK_NS) && b.from.0 <= a.to.0.saturating_add(SLACK_NS)
}

/// Views of both ends that have no partner although somebody else's clock says that they must: the nearest first, each
/// with one partner at most.
fn apart(
    views: &[View],
    (low, high): (&[usize], &[usize]),
    partners: &HashMap<usize, Vec<usize>>,
) -> Vec<(usize, usize)> {
    let lonely = |members: &[usize]| -> Vec<usize> {
        members.iter().copied().filter(|index| !partners.contains_key(index)).collect()
    };
    let (low, high) = (lonely(low), lonely(high));
    let mut near: Vec<(i64, usize, usize)> = Vec::new();
    for &a in &low {
        for &b in &high {
            let distance = views[a].from.since(views[b].from).saturating_abs();
            if distance <= SKEW_NS {
                near.push((distance, a, b));
            }
        }
    }
    near.sort_unstable_by_key(|&(distance, a, b)| (distance, views[a].id, views[b].id));
    let mut taken: HashSet<usize> = HashSet::new();
    near.retain(|&(_, a, b)| {
        let is_free = !taken.contains(&a) && !taken.contains(&b);
        if is_free {
            taken.extend([a, b]);
        }
        is_free
    });
    near.into_iter().map(|(_, a, b)| (a, b)).collect()
}

fn decide(views: &[View], key: &FlowKey, members: &[usize], verdicts: &mut HashMap<ConnectionId, Verdict>) {
    // A socket that is connected to itself has one view, and no other end.
    let (mut low, mut high): (Vec<usize>, Vec<usize>) = if key.low == key.high {
        (members.to_vec(), Vec::new())
    } else {
        members.iter().partition(|&&index| views[index].tuple.local == key.low)
    };
    low.sort_unstable_by_key(|&index| (views[index].from, views[index].id));
    high.sort_unstable_by_key(|&index| (views[index].from, views[index].id));
    let mut partners: HashMap<usize, Vec<usize>> = HashMap::new();
    for &a in &low {
        for &b in &high {
            if views[b].from.0 > views[a].to.0.saturating_add(SLACK_NS) {
                break;
            }
            if overlap(&views[a], &views[b]) {
                partners.entry(a).or_default().push(b);
                partners.entry(b).or_default().push(a);
            }
        }
    }
    for (a, b) in apart(views, (&low, &high), &partners) {
        partners.entry(a).or_default().push(b);
        partners.entry(b).or_default().push(a);
    }
    let mut done: HashSet<usize> = HashSet::new();
    for &start in low.iter().chain(&high) {
        if done.contains(&start) {
            continue;
        }
        // Everything that overlaps, directly or through another, has one answer to who the client is.
        let mut together = vec![start];
        done.insert(start);
        let mut next = 0;
        while next < together.len() {
            for &partner in partners.get(&together[next]).into_iter().flatten() {
                if done.insert(partner) {
                    together.push(partner);
                }
            }
            next += 1;
        }
        let (low_is_client, certainty) = roles(views, key, &together);
        for &index in &together {
            let view = &views[index];
            let is_low = view.tuple.local == key.low;
            let counterpart = partners.get(&index).and_then(|partners| {
                partners
                    .iter()
                    .copied()
                    .min_by_key(|&other| (views[other].from.since(view.from).saturating_abs(), views[other].id))
            });
            let verdict = Verdict {
                side: if is_low == low_is_client { Side::Client } else { Side::Server },
                certainty,
                counterpart: counterpart.map(|other| views[other].id),
                tuple: view.tuple,
                origin: None,
            };
            verdicts.insert(view.id, verdict);
        }
    }
}

/// Whether the smaller end is the client, and how sure that is. The surest claims decide; if they contradict each other
/// between both ends, the smaller tuple is the client; without a claim nobody knows, and one end has to be.
fn roles(views: &[View], key: &FlowKey, together: &[usize]) -> (bool, Certainty) {
    let (mut low_is_client, mut high_is_client) = (None, None);
    for &index in together {
        let view = &views[index];
        let Some((side, certainty)) = view.claim else { continue };
        let is_low = view.tuple.local == key.low;
        let claimed = if is_low == (side == Side::Client) { &mut low_is_client } else { &mut high_is_client };
        *claimed = (*claimed).max(Some(certainty));
    }
    // Both kinds of claim are as sure: the smaller tuple, which begins with the smaller end, is the client's.
    match (low_is_client, high_is_client) {
        (None, None) => {
            // One view and no claim: its own end stands on the client's side.
            let both_ends = together.iter().any(|&index| views[index].tuple.local == key.low)
                && together.iter().any(|&index| views[index].tuple.local == key.high);
            let only_high = !both_ends && together.iter().all(|&index| views[index].tuple.local == key.high);
            (!only_high || key.low == key.high, Certainty::Unknown)
        }
        (low, high) if low == high => (true, Certainty::Inferred.min(low.unwrap_or_default())),
        (low, high) if low > high => (true, sure(low, high)),
        (low, high) => (false, sure(high, low)),
    }
}

/// A claim that another one contradicts is not known any more.
fn sure(claim: Option<Certainty>, contradiction: Option<Certainty>) -> Certainty {
    let claim = claim.unwrap_or_default();
    if contradiction.is_some() { claim.min(Certainty::Inferred) } else { claim }
}

#[cfg(test)]
#[path = "pairing_tests.rs"]
mod tests;
