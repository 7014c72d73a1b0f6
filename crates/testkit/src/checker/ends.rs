//! The truth as the checker uses it: every end with its scenario and what of it lies before weir.

use crate::traffic::{Outcome, Protocol, Role, Truth, Word};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// What it did.
    pub truth: Truth,
    /// The scenario's number.
    pub scenario: usize,
    /// What it had moved before weir saw it first.
    pub before: Word,
    /// Whether a tracer is where it is.
    pub is_seen: bool,
}

impl End {
    /// The whole truth of an end in a scenario.
    pub fn new(truth: Truth, scenario: usize) -> Self {
        Self { truth, scenario, before: Word::default(), is_seen: true }
    }

    /// What weir has to say of its totals.
    pub fn moved(&self) -> Word {
        self.truth.moved()
    }

    /// What it moved since weir saw it first: an edge's part.
    pub fn since(&self) -> Word {
        let moved = self.moved();
        Word { sent: moved.sent - self.before.sent, recv: moved.recv - self.before.recv }
    }

    /// The server's end, as this end's socket sees it.
    pub fn server(&self) -> SocketAddr {
        if self.truth.role == Role::Server { self.truth.local } else { self.truth.remote }
    }
}

/// Ends of one scenario.
pub fn of(truth: &[Truth]) -> Vec<End> {
    truth.iter().map(|truth| End::new(truth.clone(), 0)).collect()
}

/// How sure it is that two ends belong together, best first.
#[derive(Clone, Copy)]
enum Match {
    /// Each is the other's remote end.
    Tuple,
    /// The server sees the client's address; the client called another address than the server's.
    Client,
    /// Both addresses were translated: the bytes are mirrored, and a script makes them different for each connection.
    Bytes,
}

/// For each client's end the end of its server, where there is one.
pub fn counterparts(ends: &[End]) -> BTreeMap<usize, usize> {
    let mut found = BTreeMap::new();
    let mut free: BTreeSet<usize> = (0..ends.len()).filter(|&index| ends[index].truth.role == Role::Server).collect();
    let is_client = |end: &End| end.truth.role == Role::Client && end.truth.outcome.was_established();
    let clients: Vec<usize> = (0..ends.len()).filter(|&index| is_client(&ends[index])).collect();
    let meets = |client: &End, server: &End, by: Match| {
        let (here, there) = (&client.truth, &server.truth);
        let mirrored = (here.sent, here.recv) == (there.recv, there.sent);
        here.protocol == there.protocol
            && client.scenario == server.scenario
            && match by {
                Match::Tuple => there.remote == here.local && there.local == here.remote,
                // A masqueraded port may by chance be another client's: the bytes have to fit, too.
                Match::Client => there.remote == here.local && mirrored,
                Match::Bytes => mirrored,
            }
    };
    for by in [Match::Tuple, Match::Client, Match::Bytes] {
        for &client in &clients {
            if found.contains_key(&client) {
                continue;
            }
            // The same four-tuple may be used again: the nearest in time.
            let fitting = free.iter().copied().filter(|&server| meets(&ends[client], &ends[server], by));
            let nearest =
                fitting.min_by_key(|&server| ends[server].truth.ended_ns.abs_diff(ends[client].truth.ended_ns));
            if let Some(server) = nearest {
                free.remove(&server);
                found.insert(client, server);
            }
        }
    }
    found
}

/// What belongs to the traffic: a row there that the truth does not know is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Namespaces in which nothing but the traffic runs.
    namespaces: BTreeSet<u32>,
    /// The servers' ports by family, and their scenarios.
    ports: BTreeMap<(Protocol, bool, u16), usize>,
    addresses: BTreeSet<IpAddr>,
}

impl Watch {
    /// The ports and addresses of `ends`.
    pub fn of(ends: &[End]) -> Self {
        let mut watch = Self::default();
        for end in ends {
            let server = end.server();
            watch.ports.insert((end.truth.protocol, server.is_ipv6(), server.port()), end.scenario);
            // Of a client beyond the cluster no row may tell, but an edge has to.
            watch.addresses.extend([end.truth.local.ip(), end.truth.remote.ip()]);
        }
        watch
    }

    /// And everything in this network namespace.
    #[must_use]
    pub fn and_all_of(mut self, net_ns: u32) -> Self {
        self.namespaces.insert(net_ns);
        self
    }

    /// Whether a row between these ends belongs to the traffic.
    pub fn covers(&self, protocol: Protocol, net_ns: u32, local: SocketAddr, remote: SocketAddr) -> bool {
        let is_port = |end: SocketAddr| self.ports.contains_key(&(protocol, end.is_ipv6(), end.port()));
        let is_address = |end: SocketAddr| self.addresses.contains(&end.ip());
        self.namespaces.contains(&net_ns)
            || is_port(local) && (is_address(local) || is_address(remote))
            || is_port(remote) && is_address(remote)
    }

    /// Whether an edge between these ends belongs to the traffic; an end without an address counts as one of its.
    pub fn covers_edge(&self, protocol: Protocol, client: Option<IpAddr>, server: Option<IpAddr>, port: u16) -> bool {
        let is_ours = |address: Option<IpAddr>| address.is_none_or(|address| self.addresses.contains(&address));
        self.scenario_of(protocol, server.or(client), port).is_some() && (is_ours(client) || is_ours(server))
    }

    /// The scenario of a server's port; of either family where the address is not known.
    pub fn scenario_of(&self, protocol: Protocol, address: Option<IpAddr>, port: u16) -> Option<usize> {
        let of = |is_ipv6| self.ports.get(&(protocol, is_ipv6, port)).copied();
        address.map_or_else(|| of(false).or_else(|| of(true)), |address| of(address.is_ipv6()))
    }
}

/// How an end that ended so is told by weir's close reason; `None` where several are right.
pub fn close_reason(truth: &Truth) -> Option<&'static str> {
    if truth.protocol == Protocol::Udp {
        return None;
    }
    match truth.outcome {
        Outcome::Closed | Outcome::Killed => Some("closed"),
        Outcome::Reset => Some("reset"),
        Outcome::Aborted => Some("aborted"),
        Outcome::Disconnected => Some("disconnected"),
        Outcome::Refused => Some("refused"),
        Outcome::TimedOut => Some("timed_out"),
        Outcome::Broken => None,
    }
}
