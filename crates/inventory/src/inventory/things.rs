//! Things and what is said of them: one saying per (node, source, id, from), the newest of a key standing.
//!
//! A thing that something refers to before anybody spoke of it has a place already, without sayings; a static pod's UIDs
//! lead to one thing.

use super::precedence::Source;
use super::slab::Slab;
use super::strings::{Strings, Symbol};
use super::vouches::Voucher;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::cmp::Ordering;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::IpAddr;
use weir_model::{Fact, fact};

/// No thing, or no saying.
pub(crate) const NONE: u32 = u32::MAX;

/// The kinds of things, [`weir_model::fact::kind`] parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Node,
    Namespace,
    Pod,
    Container,
    Process,
    ReplicaSet,
    Job,
    Service,
    Endpoint,
}

impl Kind {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            fact::kind::NODE => Self::Node,
            fact::kind::NAMESPACE => Self::Namespace,
            fact::kind::POD => Self::Pod,
            fact::kind::CONTAINER => Self::Container,
            fact::kind::PROCESS => Self::Process,
            fact::kind::REPLICA_SET => Self::ReplicaSet,
            fact::kind::JOB => Self::Job,
            fact::kind::SERVICE => Self::Service,
            fact::kind::ENDPOINT => Self::Endpoint,
            _ => return None,
        })
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Node => fact::kind::NODE,
            Self::Namespace => fact::kind::NAMESPACE,
            Self::Pod => fact::kind::POD,
            Self::Container => fact::kind::CONTAINER,
            Self::Process => fact::kind::PROCESS,
            Self::ReplicaSet => fact::kind::REPLICA_SET,
            Self::Job => fact::kind::JOB,
            Self::Service => fact::kind::SERVICE,
            Self::Endpoint => fact::kind::ENDPOINT,
        }
    }
}

/// One fact.
#[derive(Clone, Debug)]
pub(crate) struct Saying {
    pub(crate) next: u32,
    pub(crate) source: Source,
    pub(crate) node: Symbol,
    pub(crate) id: Symbol,
    pub(crate) name: Symbol,
    pub(crate) namespace: Symbol,
    pub(crate) parent: Symbol,
    pub(crate) netns: u32,
    pub(crate) from: i64,
    /// `i64::MAX` while it is.
    pub(crate) to: i64,
    pub(crate) said: i64,
    /// A digest of all that the fact says beside its key and `said` ([`digest`]).
    pub(crate) digest: u64,
    pub(crate) addresses: Box<[IpAddr]>,
    pub(crate) attributes: Box<[(Symbol, Symbol)]>,
}

impl Saying {
    /// Whether it speaks of what is over.
    pub(crate) fn has_ended(&self) -> bool {
        self.to != i64::MAX
    }
}

/// A thing, with what its sayings come to by precedence. One line of the processor's cache.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Thing {
    pub(crate) kind: Kind,
    /// The thing that this one turned out to be, or `NONE`.
    pub(crate) forward: u32,
    /// Its first saying.
    pub(crate) first: u32,
    /// What it is found by.
    pub(crate) id: Symbol,
    /// What the best source calls it by: of a static pod's UIDs one.
    pub(crate) uid: Symbol,
    /// The node of a process: its id is unique there only.
    pub(crate) scope: Symbol,
    pub(crate) name: Symbol,
    pub(crate) namespace: Symbol,
    pub(crate) node: Symbol,
    /// A container's pod, a process's container.
    pub(crate) parent: u32,
    /// A pod's ReplicaSet or Job.
    pub(crate) owner: u32,
    /// The owner's kind, in snake_case.
    pub(crate) owner_kind: Symbol,
    pub(crate) owner_name: Symbol,
    /// Who speaks of it as what has not ended: readers of one node, if there are any.
    pub(crate) voucher: Voucher,
    /// When the last of them to say so said so.
    pub(crate) said: i64,
    /// A pod on its node's network.
    pub(crate) is_host_network: bool,
    /// A source that knows owners spoke of it.
    pub(crate) has_owner_told: bool,
    /// Sources disagree about its name, namespace or parent: a bit each.
    pub(crate) disputed: u8,
}

/// A container's id as a number of 256 bits, packed in whatever order is quick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HexId([u32; 8]);

impl HexId {
    /// Of 64 hexadecimal digits in lower case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        /// The byte in each of eight bytes.
        const fn each(byte: u64) -> u64 {
            byte * 0x0101_0101_0101_0101
        }
        let (chunks, []) = text.as_bytes().as_chunks::<8>() else { return None };
        let chunks: &[[u8; 8]; 8] = chunks.try_into().ok()?;
        let mut packed = [0; 8];
        for (chunk, packed) in chunks.iter().zip(&mut packed) {
            // Eight digits at once: a letter is its low bits and nine more.
            let digits = u64::from_le_bytes(*chunk);
            let letters = digits >> 6 & each(1);
            let values = (digits & each(0x0f)).wrapping_add(letters * 9);
            let is_letter = (values & each(0x0f)).wrapping_add(each(6)) >> 4 & each(1);
            // What these values are written as has to be the text.
            if values & each(0xf0) != 0 || values + each(u64::from(b'0')) + is_letter * 39 != digits {
                return None;
            }
            let pairs = (values << 4 | values >> 8) & 0x00ff_00ff_00ff_00ff;
            let quads = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
            *packed = (quads | quads >> 16) as u32;
        }
        Some(Self(packed))
    }

    fn hash(&self, hasher: &DefaultHashBuilder) -> u64 {
        let mut state = hasher.build_hasher();
        for [low, high] in self.0.as_chunks().0 {
            state.write_u64(u64::from(*low) | u64::from(*high) << 32);
        }
        state.finish()
    }
}

#[derive(Clone, Copy, Debug)]
struct ContainerPlace {
    id: HexId,
    thing: u32,
    /// [`Thing::parent`] of it.
    pod: u32,
}

/// Every thing and saying.
#[derive(Debug, Default)]
pub(crate) struct Things {
    all: Slab<Thing>,
    sayings: Slab<Saying>,
    /// Sayings with an end.
    ended: usize,
    keys: HashTable<u32>,
    /// Containers by the number that their id is, with their pods: a lookup takes no text.
    containers: HashTable<ContainerPlace>,
    pub(crate) hasher: DefaultHashBuilder,
}

fn hash(hasher: &DefaultHashBuilder, kind: Kind, scope: Symbol, id: Symbol) -> u64 {
    hasher.hash_one((kind, scope, id))
}

impl Things {
    pub(crate) fn get(&self, thing: u32) -> &Thing {
        &self.all[thing]
    }

    pub(crate) fn get_mut(&mut self, thing: u32) -> &mut Thing {
        &mut self.all[thing]
    }

    /// The thing itself, where it turned out to be another one.
    pub(crate) fn resolve(&self, mut thing: u32) -> u32 {
        while let Some(next) = self.all.get(thing).map(|thing| thing.forward).filter(|next| *next != NONE) {
            thing = next;
        }
        thing
    }

    /// Facts that are kept.
    pub(crate) fn sayings_len(&self) -> usize {
        self.sayings.len()
    }

    pub(crate) fn find(&self, kind: Kind, scope: Symbol, id: Symbol) -> Option<u32> {
        let hash = hash(&self.hasher, kind, scope, id);
        let is_wanted = |thing: &Thing| thing.kind == kind && thing.scope == scope && thing.id == id;
        let thing = self.keys.find(hash, |thing| is_wanted(&self.all[*thing]))?;
        Some(self.resolve(*thing))
    }

    /// The container of an id, and its pod's place or `NONE`.
    pub(crate) fn container(&self, id: &HexId) -> Option<(u32, u32)> {
        let place = self.containers.find(id.hash(&self.hasher), |place| place.id == *id)?;
        Some((place.thing, place.pod))
    }

    /// Lets a container be found by its id's number.
    pub(crate) fn put_container(&mut self, id: HexId, thing: u32, pod: u32) {
        let hash = id.hash(&self.hasher);
        if let Some(place) = self.containers.find_mut(hash, |place| place.id == id) {
            (place.thing, place.pod) = (thing, pod);
            return;
        }
        let hasher = &self.hasher;
        self.containers.insert_unique(hash, ContainerPlace { id, thing, pod }, |other| other.id.hash(hasher));
    }

    /// The thing of an id, made where there is none.
    pub(crate) fn entry(&mut self, kind: Kind, scope: Symbol, id: Symbol) -> u32 {
        if let Some(thing) = self.find(kind, scope, id) {
            return thing;
        }
        let new = Thing {
            kind,
            forward: NONE,
            first: NONE,
            id,
            uid: id,
            scope,
            name: Symbol::EMPTY,
            namespace: Symbol::EMPTY,
            node: Symbol::EMPTY,
            parent: NONE,
            owner: NONE,
            owner_kind: Symbol::EMPTY,
            owner_name: Symbol::EMPTY,
            voucher: Voucher::NOBODY,
            said: i64::MIN,
            is_host_network: false,
            has_owner_told: false,
            disputed: 0,
        };
        let thing = self.all.insert(new);
        let Self { keys, hasher, all, .. } = self;
        keys.insert_unique(hash(hasher, kind, scope, id), thing, |other| {
            let other = &all[*other];
            hash(hasher, other.kind, other.scope, other.id)
        });
        thing
    }

    /// Makes `other` lead to `thing`; its sayings become `thing`'s. Says whether they were two.
    pub(crate) fn unite(&mut self, thing: u32, other: u32) -> bool {
        if thing == other {
            return false;
        }
        let mut last = self.all[other].first;
        if last != NONE {
            while self.sayings[last].next != NONE {
                last = self.sayings[last].next;
            }
            self.sayings[last].next = self.all[thing].first;
            self.all[thing].first = self.all[other].first;
        }
        let other = &mut self.all[other];
        (other.first, other.forward, other.voucher) = (NONE, thing, Voucher::NOBODY);
        true
    }

    /// What is said of a thing, in no order.
    pub(crate) fn sayings(&self, thing: u32) -> impl Iterator<Item = &Saying> + Clone + '_ {
        let mut next = self.all[thing].first;
        std::iter::from_fn(move || {
            let saying = self.sayings.get(next)?;
            next = saying.next;
            Some(saying)
        })
    }

    /// Where the saying of a key is.
    pub(crate) fn find_saying(&self, thing: u32, node: Symbol, source: Source, id: Symbol, from: i64) -> Option<u32> {
        let mut next = self.all[thing].first;
        while let Some(saying) = self.sayings.get(next) {
            if saying.node == node && saying.source == source && saying.id == id && saying.from == from {
                return Some(next);
            }
            next = saying.next;
        }
        None
    }

    pub(crate) fn saying_mut(&mut self, saying: u32) -> &mut Saying {
        &mut self.sayings[saying]
    }

    pub(crate) fn saying(&self, saying: u32) -> &Saying {
        &self.sayings[saying]
    }

    /// Sayings with an end: tombstones.
    pub(crate) fn ended(&self) -> usize {
        self.ended
    }

    /// The ends of all tombstones.
    pub(crate) fn ends(&self) -> Vec<i64> {
        let sayings = self.told().flat_map(|thing| self.sayings(thing));
        sayings.filter(|saying| saying.has_ended()).map(|saying| saying.to).collect()
    }

    /// Puts a saying in another's place.
    pub(crate) fn replace_saying(&mut self, place: u32, saying: Saying) {
        let old = &mut self.sayings[place];
        self.ended = self.ended + usize::from(saying.has_ended()) - usize::from(old.has_ended());
        *old = Saying { next: old.next, ..saying };
    }

    pub(crate) fn add_saying(&mut self, thing: u32, saying: Saying) {
        self.ended += usize::from(saying.has_ended());
        let next = self.all[thing].first;
        self.all[thing].first = self.sayings.insert(Saying { next, ..saying });
    }

    /// Removes a thing's sayings that `keep` refuses, and says how many.
    pub(crate) fn retain_sayings(&mut self, thing: u32, keep: impl Fn(&Saying) -> bool) -> usize {
        let mut removed = 0;
        let mut next = std::mem::replace(&mut self.all[thing].first, NONE);
        while let Some(saying) = self.sayings.get_mut(next) {
            let place = std::mem::replace(&mut next, saying.next);
            if keep(saying) {
                saying.next = self.all[thing].first;
                self.all[thing].first = place;
            } else {
                (saying.addresses, saying.attributes) = (Box::default(), Box::default());
                saying.next = NONE;
                self.ended -= usize::from(saying.has_ended());
                self.sayings.free(place);
                removed += 1;
            }
        }
        removed
    }

    /// Every thing that something is said of.
    pub(crate) fn told(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.all.capacity()).filter(|thing| self.all[*thing].first != NONE)
    }

    /// The things that nothing is said of and nothing refers to; marks the symbols that the others use.
    pub(crate) fn dead(&self, live_symbols: &mut [bool]) -> Vec<u32> {
        let mut live = vec![false; self.all.capacity() as usize];
        for place in 0..self.all.capacity() {
            if self.all[place].first == NONE {
                continue;
            }
            // What it refers to, and what that turned out to be.
            for start in [place, self.all[place].parent, self.all[place].owner] {
                let mut next = start;
                while let Some(thing) = self.all.get(next) {
                    live[next as usize] = true;
                    next = thing.forward;
                }
            }
        }
        // A UID that turned out to be another's leads there for as long as that is.
        for place in 0..self.all.capacity() {
            if self.all[place].forward != NONE {
                live[place as usize] = live[self.resolve(place) as usize];
            }
        }
        let mut mark = |symbol: Symbol| live_symbols[symbol.index()] = true;
        for thing in live.iter().enumerate().filter(|(_, live)| **live).map(|(place, _)| &self.all[place as u32]) {
            let Thing { id, uid, scope, name, namespace, node, owner_kind, owner_name, .. } = *thing;
            [id, uid, scope, name, namespace, node, owner_kind, owner_name].into_iter().for_each(&mut mark);
            let mut next = thing.first;
            while let Some(saying) = self.sayings.get(next) {
                let Saying { node, id, name, namespace, parent, .. } = *saying;
                [node, id, name, namespace, parent].into_iter().for_each(&mut mark);
                saying.attributes.iter().for_each(|(name, value)| {
                    mark(*name);
                    mark(*value);
                });
                next = saying.next;
            }
        }
        let free = self.all.free_marks();
        (0..self.all.capacity()).filter(|place| !live[*place as usize] && !free[*place as usize]).collect()
    }

    /// Frees a thing that is dead.
    pub(crate) fn free(&mut self, thing: u32, strings: &Strings) {
        let Thing { kind, scope, id, .. } = self.all[thing];
        if let Ok(place) = self.keys.find_entry(hash(&self.hasher, kind, scope, id), |other| *other == thing) {
            place.remove();
        }
        if let (Kind::Container, Some(id)) = (kind, HexId::parse(strings.text(id)))
            && let Ok(place) = self.containers.find_entry(id.hash(&self.hasher), |place| place.thing == thing)
        {
            place.remove();
        }
        self.all[thing].forward = NONE;
        self.all.free(thing);
    }
}

/// A digest of all that a fact says beside its key and when it was said.
pub(crate) fn digest(hasher: &DefaultHashBuilder, fact: &Fact) -> u64 {
    let Fact { to, name, namespace, parent, netns, addresses, attributes, .. } = fact;
    hasher.hash_one((to, name, namespace, parent, netns, addresses, attributes))
}

/// How a fact compares with the saying under its key: [`Fact::merge`]'s order, by content only where two were said at
/// once.
pub(crate) fn compare(fact: &Fact, digest: u64, saying: &Saying, strings: &Strings) -> Ordering {
    let ended = saying.has_ended().then_some(saying.to);
    fact.said.0.cmp(&saying.said).then_with(|| {
        if digest == saying.digest {
            return Ordering::Equal;
        }
        fact.to.map(|to| to.0).cmp(&ended).then_with(|| content(fact, saying, &|symbol| strings.text(symbol)))
    })
}

fn content<'a>(fact: &Fact, saying: &Saying, text: &impl Fn(Symbol) -> &'a str) -> Ordering {
    fact.name
        .as_str()
        .cmp(text(saying.name))
        .then_with(|| fact.namespace.as_str().cmp(text(saying.namespace)))
        .then_with(|| fact.parent.as_str().cmp(text(saying.parent)))
        .then_with(|| fact.netns.cmp(&saying.netns))
        .then_with(|| fact.addresses.iter().cloned().cmp(saying.addresses.iter().map(ToString::to_string)))
        .then_with(|| {
            let told = fact.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            told.cmp(saying.attributes.iter().map(|(name, value)| (text(*name), text(*value))))
        })
}

/// A fact's addresses that can name somebody: loopback, link-local, multicast and unspecified ones mean another end in
/// every place.
pub(crate) fn addresses(fact: &Fact) -> impl Iterator<Item = IpAddr> + '_ {
    fact.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok()).map(|address| address.to_canonical()).filter(
        |address| {
            let is_link_local = match address {
                IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
                IpAddr::V6(v6) => v6.is_unicast_link_local(),
            };
            !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || is_link_local)
        },
    )
}

const _: () = assert!(size_of::<Thing>() == 64, "a thing is one cache line");
