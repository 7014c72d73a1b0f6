//! What the node's sources of metadata said last, and what of it the server has not been told.
//!
//! Every source is compared with its own former reading. What is new or changed is told; what a whole reading does not
//! name any more is ended at the last time that it was seen, since the next holder of its address may have started
//! before anybody looked (R6). A reading that fails ends nothing: silence is not a deletion. A source that is off
//! claims nothing any longer: what it said is ended where it was read last.
//!
//! A new run of the agent tells everything again, under the same keys: what is open lies in the spool with each batch
//! and each checkpoint, with the time of every source's last reading, so that what vanished while no agent ran is
//! ended, too (`docs/decisions/0014-metadata-in-the-spool.md`).

use super::change::{self, Settled};
use std::collections::{BTreeMap, HashMap, HashSet};
use weir_discovery::said::{Health, Said};
use weir_discovery::source::{Reading, Trouble};
use weir_model::fact::{attribute, kind, source};
use weir_wire::agent::{MetadataFact, MetadataSource};

/// Facts of one batch: about 200 B each, so 1 MB.
const MAX_FACTS: usize = 5_000;
/// Facts that wait: a node's whole process table some times over.
const MAX_WAITING: usize = 100_000;
/// Facts of one record of a checkpoint.
const CHECKPOINT_PART: usize = 4096;

/// The reader of the node's own name and addresses; its facts are of the source `proc`.
pub const NODE_READER: &str = "node";

/// One thing of one source.
type Key = (Box<str>, Box<str>);

/// A fact's place in what waits: source, kind, id, from.
type Place = (Box<str>, Box<str>, Box<str>, i64);

/// What is known of one source.
#[derive(Debug, Default)]
struct Reader {
    held: HashMap<Key, Held>,
    /// When its last whole reading began, wall nanoseconds; 0 never.
    seen: i64,
    health: Health,
    /// The UIDs that its pods have beside their ids.
    aliases: HashSet<Box<str>>,
}

#[derive(Debug)]
struct Held {
    fact: MetadataFact,
    /// Told in this run of the agent.
    told: bool,
}

/// A batch's share of what waits.
#[derive(Debug, Default)]
pub struct Share {
    /// The facts.
    pub facts: Vec<MetadataFact>,
    /// What [`Told::durable`] takes once they are.
    pub mark: u64,
}

/// What was said, and what of it waits.
#[derive(Debug, Default)]
pub struct Told {
    readers: BTreeMap<&'static str, Reader>,
    /// By the order in which they came: facts wait here, bounded, until a batch with them is durable.
    waiting: BTreeMap<u64, MetadataFact>,
    places: HashMap<Place, u64>,
    next: u64,
    dropped: u64,
}

impl Told {
    /// Begins with what earlier runs of the agent told and did not end, and with when each of `readers` was read last.
    /// What was told by a source that is none of them any more is ended.
    pub fn restored(readers: &[&'static str], open: Vec<MetadataFact>, seen: &BTreeMap<String, i64>) -> Self {
        let mut told = Self::default();
        for name in readers {
            let last = seen.get(*name).copied().unwrap_or(0);
            told.readers.insert(name, Reader { seen: last, ..Reader::default() });
        }
        for fact in open {
            let reader = reader_of(&fact);
            if let Some(reader) = told.readers.get_mut(reader) {
                reader.held.insert(key(&fact.kind, &fact.id), Held { fact, told: false });
            } else {
                let last = seen.get(reader).copied().unwrap_or(0);
                told.wait(change::ended(fact, last));
            }
        }
        told
    }

    /// Takes what reading `reader` gave. The reading began at `began` and was there at `at`, wall nanoseconds; it lists
    /// the things of `kinds` whole, as facts of `source`.
    pub fn take(
        &mut self,
        reader: &'static str,
        source: &str,
        kinds: &[&str],
        (began, at): (i64, i64),
        outcome: Result<Reading, Trouble>,
    ) {
        match outcome {
            Ok(Reading::Same) => {
                let known = self.readers.entry(reader).or_default();
                known.seen = known.seen.max(began);
                known.health.state = "ok";
            }
            Ok(Reading::Whole { things, missing }) => {
                let count = things.len() as u64;
                self.take_things(reader, source, kinds, (began, at), things);
                self.readers.entry(reader).or_default().health =
                    Health { source: reader, state: "ok", detail: missing, things: count };
            }
            Err(trouble) => {
                let known = self.readers.entry(reader).or_default();
                known.health =
                    Health { source: reader, state: trouble.state(), detail: trouble.to_string(), things: 0 };
                if matches!(trouble, Trouble::Off(_)) {
                    let (held, seen) = (std::mem::take(&mut known.held), known.seen);
                    known.aliases.clear();
                    for held in held.into_values().filter(|held| held.fact.to_unix_ns == 0) {
                        self.wait(change::ended(held.fact, seen));
                    }
                }
            }
        }
    }

    fn take_things(
        &mut self,
        reader: &'static str,
        source: &str,
        kinds: &[&str],
        (began, at): (i64, i64),
        things: Vec<Said>,
    ) {
        let mut known = self.readers.remove(reader).unwrap_or_default();
        let mut missing: HashSet<Key> =
            known.held.keys().filter(|(kind, _)| kinds.contains(&kind.as_ref())).cloned().collect();
        known.aliases.clear();
        for said in things {
            if let Some(aliases) = said.attributes.get(attribute::ALIASES) {
                known.aliases.extend(aliases.split(',').map(Box::from));
            }
            let key = key(said.kind, &said.id);
            missing.remove(&key);
            let held = known.held.get(&key);
            let former = held.map(|held| &held.fact);
            let Settled { ended, fact } = change::settle(former, said, source, known.seen, at);
            if let Some(ended) = ended {
                self.wait(ended);
            } else if held.is_some_and(|held| held.told && held.fact == fact) {
                continue;
            }
            let told = self.wait(fact.clone());
            known.held.insert(key, Held { fact, told });
        }
        for key in missing {
            if let Some(held) = known.held.remove(&key)
                && held.fact.to_unix_ns == 0
            {
                self.wait(change::ended(held.fact, known.seen));
            }
        }
        known.seen = known.seen.max(began);
        self.readers.insert(reader, known);
    }

    /// Takes one thing of a source whose readings are compared elsewhere.
    pub fn take_one(&mut self, reader: &'static str, source: &str, at: i64, said: Said) {
        let known = self.readers.entry(reader).or_default();
        let key = key(said.kind, &said.id);
        let held = known.held.get(&key);
        let Settled { ended, fact } = change::settle(held.map(|held| &held.fact), said, source, known.seen, at);
        if held.is_some_and(|held| held.told && held.fact == fact) && ended.is_none() {
            return;
        }
        if let Some(ended) = ended {
            self.wait(ended);
        }
        let told = self.wait(fact.clone());
        if let Some(known) = self.readers.get_mut(reader) {
            known.held.insert(key, Held { fact, told });
        }
    }

    /// Ends one thing in every source among `readers` that told of it, at the last time that it was seen.
    pub fn end_one(&mut self, readers: &[&'static str], kind: &str, id: &str, seen: i64) {
        for reader in readers {
            let held = self.readers.get_mut(reader).and_then(|known| known.held.remove(&key(kind, id)));
            if let Some(held) = held.filter(|held| held.fact.to_unix_ns == 0) {
                self.wait(change::ended(held.fact, seen));
            }
        }
    }

    /// Ends what an earlier run of the agent told of `kind` under `reader` and `living` does not hold.
    pub fn end_left(&mut self, reader: &'static str, kind: &str, living: &HashSet<String>) {
        let Some(known) = self.readers.get_mut(reader) else { return };
        let seen = known.seen;
        let left: Vec<Key> = known
            .held
            .iter()
            .filter(|((held_kind, id), held)| !held.told && held_kind.as_ref() == kind && !living.contains(id.as_ref()))
            .map(|(key, _)| key.clone())
            .collect();
        for key in left {
            let held = self.readers.get_mut(reader).and_then(|known| known.held.remove(&key));
            if let Some(held) = held {
                self.wait(change::ended(held.fact, seen));
            }
        }
    }

    /// When `reader` was read last, wall nanoseconds; 0 never.
    pub fn seen(&self, reader: &str) -> i64 {
        self.readers.get(reader).map_or(0, |known| known.seen)
    }

    /// Whether any source that names containers and pods is read.
    pub fn anybody_names(&self) -> bool {
        self.namers().any(|reader| reader.health.state == "ok")
    }

    /// Whether a source that names containers has told of this one.
    pub fn names_container(&self, id: &str) -> bool {
        let key = key(kind::CONTAINER, id);
        self.namers().any(|reader| reader.held.contains_key(&key))
    }

    /// Whether a source that names pods has told of this one, under any of its UIDs.
    pub fn names_pod(&self, uid: &str) -> bool {
        let key = key(kind::POD, uid);
        self.namers().any(|reader| reader.held.contains_key(&key) || reader.aliases.contains(uid))
    }

    fn namers(&self) -> impl Iterator<Item = &Reader> {
        let is_namer = |name: &str| !matches!(name, NODE_READER | source::TRACER | source::PROC);
        self.readers.iter().filter(move |(name, _)| is_namer(name)).map(|(_, reader)| reader)
    }

    /// The facts for the next batch.
    pub fn untold(&self) -> Share {
        let mut share = Share::default();
        for (order, fact) in self.waiting.iter().take(MAX_FACTS) {
            share.facts.push(fact.clone());
            share.mark = order + 1;
        }
        share
    }

    /// The facts before `mark` are durable.
    pub fn durable(&mut self, mark: u64) {
        let later = self.waiting.split_off(&mark);
        for fact in std::mem::replace(&mut self.waiting, later).into_values() {
            self.places.remove(&place(&fact));
        }
    }

    /// Everything that a later run needs to know, in parts: what is open, and what has ended and is not durable yet.
    pub fn open(&self) -> Vec<Vec<MetadataFact>> {
        let held = self.readers.values().flat_map(|reader| reader.held.values()).map(|held| &held.fact);
        let open = held.filter(|fact| fact.to_unix_ns == 0).cloned();
        let ending = self.waiting.values().filter(|fact| fact.to_unix_ns != 0);
        let all: Vec<MetadataFact> =
            open.chain(ending.map(|fact| MetadataFact { to_unix_ns: 0, ..fact.clone() })).collect();
        all.chunks(CHECKPOINT_PART).map(<[MetadataFact]>::to_vec).collect()
    }

    /// When each source was read last.
    pub fn read_times(&self) -> BTreeMap<String, i64> {
        let read = self.readers.iter().filter(|(_, reader)| reader.seen != 0);
        read.map(|(name, reader)| ((*name).to_owned(), reader.seen)).collect()
    }

    /// How every source does that has been read, or tried, in this run.
    pub fn health(&self) -> Vec<MetadataSource> {
        let all = self.readers.iter().filter(|(_, reader)| !reader.health.state.is_empty());
        all.map(|(name, reader)| MetadataSource {
            source: (*name).to_owned(),
            state: reader.health.state.to_owned(),
            detail: reader.health.detail.clone(),
            things: reader.health.things,
            // The server believes what is open until then: what waits for a later batch may say otherwise.
            read_unix_ns: if self.waiting.len() <= MAX_FACTS { reader.seen } else { 0 },
        })
        .collect()
    }

    /// Sets the health of a source whose readings are compared elsewhere, and, where it was read, when.
    pub fn note(&mut self, reader: &'static str, health: Health, read: Option<i64>) {
        let known = self.readers.entry(reader).or_default();
        known.health = health;
        known.seen = known.seen.max(read.unwrap_or(0));
    }

    /// Facts dropped since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Whether there was room. A newer saying of what waits already takes its place.
    fn wait(&mut self, fact: MetadataFact) -> bool {
        let place = place(&fact);
        if let Some(order) = self.places.remove(&place) {
            self.waiting.remove(&order);
        }
        if self.waiting.len() >= MAX_WAITING {
            self.dropped += 1;
            return false;
        }
        self.places.insert(place, self.next);
        self.waiting.insert(self.next, fact);
        self.next += 1;
        true
    }
}

/// Which reader told a fact.
fn reader_of(fact: &MetadataFact) -> &str {
    if fact.kind == kind::NODE { NODE_READER } else { &fact.source }
}

fn key(kind: &str, id: &str) -> Key {
    (kind.into(), id.into())
}

fn place(fact: &MetadataFact) -> Place {
    (fact.source.as_str().into(), fact.kind.as_str().into(), fact.id.as_str().into(), fact.from_unix_ns)
}

#[cfg(test)]
#[path = "told_tests.rs"]
mod tests;
