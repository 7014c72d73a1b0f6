//! What of one kind is held, and since when: events and lists become facts with their validity. Pure.
//!
//! An object's fact begins with the object (`creationTimestamp`). When what matters of it changes, the fact ends and
//! another begins under the same id, so that what was so stays known. Where the watch tells a change as it happens both
//! instants are now. Where it may have missed something (a list after a 410 or a restart, a watch taken up after a
//! silence) the old ends when it was **last known** to be so and the new begins **now**: between them nobody knows, and
//! an answer says so. An endpoint's beginning no object tells:
//!
//! | seen | it begins |
//! |---|---|
//! | in a watch, as it happens | now |
//! | in the very first list | with its slice; of no pod: when the slice was last written |
//! | in a later list, or in a watch behind a silence | of a pod: after what was last known, for the pod bounds it; else now |
//!
//! `docs/decisions/` tells why, and what was refused.

use super::held::Held;
use std::collections::{HashMap, HashSet};
use weir_discovery::kubernetes::objects::Thing;
use weir_discovery::kubernetes::watch::Heard;
use weir_discovery::said::Said;
use weir_model::fact::{attribute, kind, source};
use weir_model::{Fact, NodeName, UnixNanos};

/// Facts that are held of one kind: 5,000 nodes with 200,000 endpoints and some air, 125 MB at most.
const FACTS_MAX: usize = 500_000;

/// One kind's state.
#[derive(Debug)]
pub(super) struct Tracker {
    kind: &'static str,
    held: HashMap<String, Held>,
    facts: usize,
    facts_max: usize,
    refused: u64,
    /// Until when what is held is known to be so; `None`: nothing was ever known.
    known: Option<UnixNanos>,
    /// While something may have been missed `known` stands still: since when.
    broken: Option<UnixNanos>,
    /// Whether this run has seen a complete list.
    listed: bool,
    listing: Option<Listing>,
    /// The last instant used: every saying is newer than the one before, whatever the clock does.
    last: UnixNanos,
}

#[derive(Debug)]
struct Listing {
    began: UnixNanos,
    keys: HashSet<String>,
}

/// The instants of one change.
#[derive(Clone, Copy, Debug)]
struct Times {
    now: UnixNanos,
    /// When the old was last known to be so; now when the change is told as it happens; `None` in the very first list.
    known: Option<UnixNanos>,
}

impl Times {
    /// Whether the change is told as it happens.
    fn is_live(self) -> bool {
        self.known == Some(self.now)
    }

    fn end(self) -> UnixNanos {
        self.known.unwrap_or(self.now)
    }
}

impl Tracker {
    /// Goes on with what the state still holds open, known until `confirmed`.
    pub(super) fn new(kind: &'static str, standing: Vec<Fact>, confirmed: Option<UnixNanos>) -> Self {
        // A state without a word on it: then what was said last is known since its saying.
        let known = confirmed.or_else(|| standing.iter().map(|fact| fact.said).max());
        let last = standing.iter().map(|fact| fact.said).chain(confirmed).max().unwrap_or(UnixNanos(0));
        let mut objects: HashMap<String, Vec<Fact>> = HashMap::new();
        let facts = standing.len();
        for fact in standing {
            objects.entry(key(&fact.id).to_owned()).or_default().push(fact);
        }
        let held = objects.into_iter().map(|(key, facts)| (key, Held::of(&facts))).collect();
        Self {
            kind,
            held,
            facts,
            facts_max: FACTS_MAX,
            refused: 0,
            known,
            broken: Some(last),
            listed: false,
            listing: None,
            last,
        }
    }

    /// Objects that are held.
    pub(super) fn objects(&self) -> usize {
        self.held.len()
    }

    /// Facts without an end.
    pub(super) fn facts(&self) -> usize {
        self.facts
    }

    /// Facts that were not taken because too many are held.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Takes what the watch heard at `now` and adds the facts that follow. `alive` is the last sign of life; `behind`
    /// since when what is heard may be true already.
    pub(super) fn hear(
        &mut self,
        heard: Heard,
        now: UnixNanos,
        alive: Option<UnixNanos>,
        behind: Option<UnixNanos>,
        facts: &mut Vec<Fact>,
    ) {
        let now = self.later(now);
        match heard {
            Heard::Failed(_) => self.break_off(now, alive, behind),
            Heard::Listing => {
                self.break_off(now, alive, behind);
                self.listing = Some(Listing { began: now, keys: HashSet::new() });
            }
            Heard::Listed(thing) => {
                if let Some(listing) = &mut self.listing {
                    listing.keys.insert(thing.key.clone());
                }
                let times = Times { now, known: self.known };
                self.replace(&thing.key, Some(&thing), times, facts);
            }
            Heard::Complete => {
                let Some(listing) = self.listing.take() else { return };
                let gone: Vec<String> = self.held.keys().filter(|key| !listing.keys.contains(*key)).cloned().collect();
                for key in gone {
                    self.replace(&key, None, Times { now, known: self.known }, facts);
                }
                self.known = self.known.max(Some(listing.began));
                (self.broken, self.listed) = (None, true);
            }
            Heard::Changed(thing) => {
                let times = self.watched_at(now, behind);
                self.replace(&thing.key, Some(&thing), times, facts);
            }
            Heard::Gone(key) => {
                let times = self.watched_at(now, behind);
                self.replace(&key, None, times, facts);
            }
            Heard::Strange { name, why } => {
                tracing::warn!(kind = self.kind, name, why, "left out an object that is not what Kubernetes says");
            }
        }
    }

    /// The fact that says until when this kind is known; `None` while it is not. `alive` is the last sign of life: after a
    /// failure and without a list it can only be a watch's that was taken up, and `behind` while it catches up.
    pub(super) fn confirm(&mut self, alive: Option<UnixNanos>, behind: Option<UnixNanos>) -> Option<Fact> {
        if !self.listed || self.listing.is_some() || behind.is_some() {
            return None;
        }
        if self.broken.is_some_and(|broken| alive <= Some(broken)) {
            return None;
        }
        self.broken = None;
        self.known = self.known.max(alive);
        let said = self.known?;
        Some(Fact {
            kind: kind::WATCH.to_owned(),
            id: self.kind.to_owned(),
            name: self.kind.to_owned(),
            said,
            ..empty()
        })
    }

    /// Ends everything when it was last known.
    pub(super) fn let_go(&mut self, now: UnixNanos) -> Vec<Fact> {
        let now = self.later(now);
        let mut facts = Vec::new();
        for key in self.held.keys().cloned().collect::<Vec<_>>() {
            self.replace(&key, None, Times { now, known: self.known }, &mut facts);
        }
        facts
    }

    fn later(&mut self, now: UnixNanos) -> UnixNanos {
        self.last = now.max(self.last.plus(1));
        self.last
    }

    /// From now on something may be missed: what is held is known until the last sign of life.
    fn break_off(&mut self, now: UnixNanos, alive: Option<UnixNanos>, behind: Option<UnixNanos>) {
        if self.broken.is_none() {
            self.known = self.known.max(behind.or(alive));
        }
        self.broken = Some(now);
    }

    fn watched_at(&mut self, now: UnixNanos, behind: Option<UnixNanos>) -> Times {
        self.broken = None;
        let Some(behind) = behind else {
            self.known = self.known.max(Some(now));
            return Times { now, known: Some(now) };
        };
        Times { now, known: Some(self.known.map_or(behind, |known| known.max(behind)).min(now)) }
    }

    /// Makes `key` be what `thing` says.
    fn replace(&mut self, key: &str, thing: Option<&Thing>, times: Times, facts: &mut Vec<Fact>) {
        let old = self.held.remove(key).map(|held| held.facts()).unwrap_or_default();
        self.facts -= old.len();
        let mut old: HashMap<String, Fact> = old.into_iter().map(|fact| (fact.id.clone(), fact)).collect();
        let mut open = Vec::new();
        for (thing, said) in thing.iter().flat_map(|thing| thing.said.iter().map(move |said| (*thing, said))) {
            let known = old.remove(&said.id);
            if known.is_none() && self.facts + open.len() >= self.facts_max {
                self.refused += 1;
                continue;
            }
            let fact = to_fact(said, times.now);
            if let Some(known) = known {
                open.push(follow(known, fact, said.from, times, facts));
            } else {
                let fact = Fact { from: beginning(thing, said, times), ..fact };
                facts.push(fact.clone());
                open.push(fact);
            }
        }
        facts.extend(old.into_values().map(|fact| ended(fact, times.end(), times.now)));
        self.facts += open.len();
        if thing.is_some() {
            self.held.insert(key.to_owned(), Held::of(&open));
        }
    }
}

/// The fact that holds after `known` was followed by `next`; what must be said of both is added.
fn follow(known: Fact, next: Fact, created: Option<UnixNanos>, times: Times, facts: &mut Vec<Fact>) -> Fact {
    if let Some(created) = created.filter(|created| *created > known.from && known.kind == kind::NODE) {
        // Deleted and made anew under the same id, which only a node's can be.
        let next = Fact { from: created.min(times.now), ..next };
        facts.push(ended(known, times.end().min(next.from), times.now));
        facts.push(next.clone());
        return next;
    }
    let same = Fact { from: known.from, said: known.said, ..next.clone() };
    if same == known {
        return known;
    }
    if stable(&known) == stable(&same) {
        // Its readiness alone: it is the same endpoint all the time.
        let next = Fact { from: known.from, ..next };
        facts.push(next.clone());
        return next;
    }
    let next = Fact { from: times.now, ..next };
    facts.push(ended(known, times.end(), times.now));
    facts.push(next.clone());
    next
}

/// What of a fact is one state of affairs: everything but an endpoint's readiness.
fn stable(fact: &Fact) -> Fact {
    let mut fact = fact.clone();
    fact.attributes.remove(attribute::CONDITIONS);
    fact
}

fn beginning(thing: &Thing, said: &Said, times: Times) -> UnixNanos {
    let Times { now, known } = times;
    if let Some(created) = said.from {
        // An API server's clock may be ahead of this one: what is seen is there.
        return created.min(now);
    }
    let is_pod = said.attributes.contains_key(attribute::TARGET_POD);
    let created = thing.created.unwrap_or(now);
    let begun = match known {
        Some(_) if times.is_live() => now,
        Some(known) if is_pod => created.max(known),
        Some(_) => now,
        None if is_pod => created,
        None => thing.written.unwrap_or(created),
    };
    begun.min(now)
}

fn ended(fact: Fact, at: UnixNanos, said: UnixNanos) -> Fact {
    Fact { to: Some(at.max(fact.from)), said, ..fact }
}

fn to_fact(said: &Said, now: UnixNanos) -> Fact {
    Fact {
        kind: said.kind.to_owned(),
        id: said.id.clone(),
        said: now,
        name: said.name.clone(),
        namespace: said.namespace.clone(),
        parent: said.parent.clone(),
        addresses: said.addresses.iter().map(ToString::to_string).collect(),
        attributes: said.attributes.clone(),
        ..empty()
    }
}

fn empty() -> Fact {
    Fact {
        node: NodeName(String::new()),
        source: source::API.to_owned(),
        kind: String::new(),
        id: String::new(),
        from: UnixNanos(0),
        said: UnixNanos(0),
        to: None,
        name: String::new(),
        namespace: String::new(),
        parent: String::new(),
        netns: 0,
        addresses: Vec::new(),
        attributes: std::collections::BTreeMap::new(),
    }
}

/// The object that a fact's id belongs to.
fn key(id: &str) -> &str {
    id.split('/').next().unwrap_or(id)
}
