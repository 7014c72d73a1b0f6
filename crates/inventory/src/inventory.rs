//! Who an end is (R6): the one place that answers it, from every source's facts.
//!
//! ```text
//! Fact ─▶ learn ─▶ things (one saying per source and time) ─▶ precedence ─▶ claims to addresses, namespaces, pids, ports
//!                                                                               │
//!                          local, remote, service_at, services_of ◀─────────────┘
//! ```
//!
//! Laws, each held by a test (`tests/laws.rs`):
//! - An answer is a function of the set of facts: order and repetition change nothing.
//! - Nobody is named who did not hold the address, namespace or pid at that instant, as far as facts tell; where two may
//!   have, nobody is.
//! - A late fact names what was unknown and never gives another name to what was named: as long as sources do not
//!   contradict each other and a node is vouched for ([`Inventory::vouch`]). What contradicts what was said before (a
//!   second holder of one address at one time) turns a name into `unknown`, never into another one; where sources call
//!   one thing by different names the better source's name stands from the moment it speaks, and the disagreement is
//!   counted ([`Inventory::disagreements`]).

mod attributes;
mod claims;
mod ends;
mod expiry;
mod index;
mod networks;
mod owners;
mod ports;
mod precedence;
mod resolve;
mod services;
mod slab;
mod strings;
mod things;
mod vouches;
mod who;

pub use claims::UNCERTAINTY_NS;
pub use ends::{LocalEnd, RemoteEnd};
pub use expiry::{Expiry, Sweep};
pub use resolve::Disagreement;
pub use services::ServiceRef;
pub use who::{Basis, Named, Who, Workload};

use claims::{ClaimsByAddress, ClaimsByKey, OPEN};
use ipnet::IpNet;
use networks::Networks;
use precedence::{Reader, Source};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use strings::{Strings, Symbol};
use things::{Kind, NONE, Saying, Things};
use vouches::Vouches;
use weir_model::{
    Fact, Protocol, UnixNanos,
    fact::{attribute, kind},
};

/// How much is kept. What is beyond is refused and counted.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Facts. A cluster of 5,000 nodes with 150,000 pods has about 1,000,000.
    pub facts: usize,
    /// Facts of what is over: at 1,000 pods a second, four facts each, two minutes; at 10 a second the lateness horizon
    /// of an hour and more. Beyond it the oldest are forgotten.
    pub tombstones: usize,
    /// Bytes of names, ids and attributes, each text counted once.
    pub text_bytes: usize,
    /// Addresses of one fact: a node with a bridge, an overlay and a few hundred virtual addresses stays below.
    pub addresses: usize,
    /// Attributes of one fact.
    pub attributes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { facts: 2_000_000, tombstones: 500_000, text_bytes: 1 << 30, addresses: 1_024, attributes: 256 }
    }
}

/// Facts, or parts of facts, that were not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Facts beyond [`Limits::facts`] or [`Limits::text_bytes`].
    pub full: u64,
    /// Facts of what is over that were forgotten before [`Inventory::expire`] asked for it.
    pub early: u64,
    /// Facts of a kind that weir does not know, or without an id.
    pub unreadable: u64,
    /// Addresses beyond [`Limits::addresses`].
    pub addresses: u64,
    /// Attributes beyond [`Limits::attributes`].
    pub attributes: u64,
}

/// The inventory. One writer.
#[derive(Debug, Default)]
pub struct Inventory {
    limits: Limits,
    refused: Refused,
    strings: Strings,
    things: Things,
    words: Words,
    networks: Networks,
    /// Nodes, pods and containers by address.
    addresses: ClaimsByAddress,
    /// Services by address.
    virtuals: ClaimsByAddress,
    /// Services by node port.
    node_ports: ClaimsByKey<(u16, Protocol)>,
    /// Services by the DNS name that they stand for.
    external_names: ClaimsByKey<Symbol>,
    /// Services and namespaces by (namespace, name).
    names: ClaimsByKey<(Kind, Symbol, Symbol)>,
    /// Endpoints by address.
    endpoints: ClaimsByAddress,
    /// Pods, containers and processes by (node, network namespace).
    namespaces: ClaimsByKey<(Symbol, u32)>,
    /// Processes and containers by (node, pid).
    pids: ClaimsByKey<(Symbol, u32)>,
    vouches: Vouches,
    disputed: BTreeSet<u32>,
    /// Reused while a thing is indexed.
    scratch: Vec<(index::Place, claims::Said)>,
    /// Goes up with each change: a plan that was made before one is void.
    changes: u64,
}

/// The symbols of attributes with a meaning.
#[derive(Debug, Default)]
struct Words {
    host_network: Symbol,
    aliases: Symbol,
    owner_kind: Symbol,
    owner_name: Symbol,
    owner_uid: Symbol,
    pod_template_hash: Symbol,
    pids: Symbol,
    ports: Symbol,
    zone: Symbol,
    external_name: Symbol,
    target_pod: Symbol,
    yes: Symbol,
}

impl Words {
    fn all(&self) -> [Symbol; 12] {
        [
            self.host_network,
            self.aliases,
            self.owner_kind,
            self.owner_name,
            self.owner_uid,
            self.pod_template_hash,
            self.pids,
            self.ports,
            self.zone,
            self.external_name,
            self.target_pod,
            self.yes,
        ]
    }
}

impl Inventory {
    /// An inventory that knows nothing, with the names of networks beyond the cluster.
    pub fn new(limits: Limits, networks: impl IntoIterator<Item = (IpNet, String)>) -> Self {
        Self { limits, networks: Networks::new(networks), ..Self::default() }
    }

    /// Facts that are kept.
    pub fn facts(&self) -> usize {
        self.things.sayings_len()
    }

    /// Bytes of names, ids and attributes, each text counted once.
    pub fn text_bytes(&self) -> usize {
        self.strings.bytes()
    }

    /// What was not taken.
    pub fn refused(&self) -> Refused {
        self.refused
    }

    /// Whether it takes nothing new.
    pub fn is_full(&self) -> bool {
        self.facts() >= self.limits.facts || self.strings.bytes() >= self.limits.text_bytes
    }

    /// Takes a fact in. The newest saying of a key stands, by content where two were said at once.
    pub fn learn(&mut self, fact: &Fact) {
        // How far the server's own watch knows names nobody.
        if fact.kind == kind::WATCH {
            return;
        }
        let Some(kind) = Kind::parse(&fact.kind).filter(|_| !fact.id.is_empty()) else {
            self.refused.unreadable += 1;
            return;
        };
        self.changes += 1;
        self.learn_words();
        let source = Source::parse(&fact.source);
        let digest = things::digest(&self.things.hasher, fact);
        let held = self.find_held(kind, source, fact);
        if let Some((thing, saying)) = held {
            let stored = self.things.saying(saying);
            if things::compare(fact, digest, stored, &self.strings) == Ordering::Less {
                return;
            }
            if digest == stored.digest {
                self.things.saying_mut(saying).said = fact.said.0;
                self.believe(thing);
                return;
            }
        } else if !self.has_room() {
            self.refused.full += 1;
            return;
        }
        let node = self.strings.intern(&fact.node.0);
        let id = self.strings.intern(&fact.id);
        let scope = if kind == Kind::Process { node } else { Symbol::EMPTY };
        let thing = self.things.entry(kind, scope, id);
        self.unindex(thing);
        let new = Saying { digest, ..self.saying_of(source, node, id, fact) };
        match held {
            Some((_, saying)) => self.things.replace_saying(saying, new),
            None => self.things.add_saying(thing, new),
        }
        let aliases = fact.attributes.get(attribute::ALIASES).filter(|_| kind == Kind::Pod);
        let united = aliases.is_some_and(|aliases| self.unite(thing, aliases));
        self.resolve(thing);
        self.index(thing);
        if united {
            // What was two parents may be one now.
            for disputed in self.disputed.iter().copied().collect::<Vec<_>>() {
                self.resolve(disputed);
            }
        }
    }

    /// A node's agent says that what `reader` (`node` for the node's own name and addresses, else a source of facts) told
    /// and did not end was so until its last reading, `until`; and that whatever it did not repeat after `since`, the
    /// beginning of the agent's present stream, it knows no more.
    ///
    /// Beyond `until` an address, namespace or pid names nobody, until the reader has caught up: so no fact, however late,
    /// can take a name back. A reader that nobody ever vouched for is believed without end. Later calls only extend.
    pub fn vouch(&mut self, node: &str, reader: &str, since: UnixNanos, until: UnixNanos) {
        self.changes += 1;
        let node = self.strings.intern(node);
        self.vouches.vouch(node, Reader::parse(reader), since.0, until.0);
    }

    fn learn_words(&mut self) {
        if !self.words.yes.is_empty() {
            return;
        }
        let mut word = |text| self.strings.intern(text);
        self.words = Words {
            host_network: word(attribute::HOST_NETWORK),
            aliases: word(attribute::ALIASES),
            owner_kind: word(attribute::OWNER_KIND),
            owner_name: word(attribute::OWNER_NAME),
            owner_uid: word(attribute::OWNER_UID),
            pod_template_hash: word(attribute::POD_TEMPLATE_HASH),
            pids: word(attribute::PIDS),
            ports: word(attribute::PORTS),
            zone: word(attribute::ZONE),
            external_name: word(attribute::EXTERNAL_NAME),
            target_pod: word(attribute::TARGET_POD),
            yes: word("true"),
        };
    }

    /// The thing and saying of a fact's key, if it is known.
    fn find_held(&self, kind: Kind, source: Source, fact: &Fact) -> Option<(u32, u32)> {
        let node = self.strings.find(&fact.node.0)?;
        let id = self.strings.find(&fact.id)?;
        let scope = if kind == Kind::Process { node } else { Symbol::EMPTY };
        let thing = self.things.find(kind, scope, id)?;
        Some((thing, self.things.find_saying(thing, node, source, id, fact.from.0)?))
    }

    fn saying_of(&mut self, source: Source, node: Symbol, id: Symbol, fact: &Fact) -> Saying {
        let Limits { addresses, attributes, .. } = self.limits;
        self.refused.addresses += fact.addresses.len().saturating_sub(addresses) as u64;
        self.refused.attributes += fact.attributes.len().saturating_sub(attributes) as u64;
        Saying {
            next: NONE,
            source,
            node,
            id,
            name: self.strings.intern(&fact.name),
            namespace: self.strings.intern(&fact.namespace),
            parent: self.strings.intern(&fact.parent),
            netns: fact.netns,
            from: fact.from.0,
            to: fact.to.map_or(OPEN, |to| to.0),
            said: fact.said.0,
            digest: 0,
            addresses: things::addresses(fact).take(addresses).collect(),
            attributes: fact
                .attributes
                .iter()
                .take(attributes)
                .map(|(name, value)| (self.strings.intern(name), self.strings.intern(value)))
                .collect(),
        }
    }

    /// A static pod has two UIDs: all of them lead to one thing. Says whether they were more than one.
    fn unite(&mut self, thing: u32, aliases: &str) -> bool {
        let mut united = false;
        for alias in aliases.split(',').filter(|alias| !alias.is_empty()) {
            let alias = self.strings.intern(alias);
            let other = self.things.entry(Kind::Pod, Symbol::EMPTY, alias);
            if other != thing {
                self.unindex(other);
                united |= self.things.unite(thing, other);
                self.disputed.remove(&other);
            }
        }
        united
    }
}
