//! What a thing's sayings come to: each field from the best source that gives it, and where sources disagree.

use super::precedence::Reader;
use super::strings::Symbol;
use super::things::{HexId, Kind, NONE, Saying};
use super::vouches::Voucher;
use super::{Inventory, Words, owners};
use std::cmp::Reverse;

/// Two sources that say different things of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// One of [`weir_model::fact::kind`].
    pub kind: &'static str,
    /// The thing's id.
    pub id: String,
    /// `name`, `namespace` or `parent`.
    pub field: &'static str,
    /// Each source's newest word, the one that stands first.
    pub says: Vec<(&'static str, String)>,
}

const FIELDS: [&str; 3] = ["name", "namespace", "parent"];

impl Inventory {
    /// How many (thing, field) sources disagree about now, and some examples of them.
    pub fn disagreements(&self, examples: usize) -> (u64, Vec<Disagreement>) {
        let bits = |thing: &u32| self.things.get(*thing).disputed;
        let count = self.disputed.iter().map(|thing| u64::from(bits(thing).count_ones())).sum();
        let fields = self.disputed.iter().flat_map(|thing| {
            (0..FIELDS.len()).filter(move |field| bits(thing) & (1 << field) != 0).map(move |field| (*thing, field))
        });
        (count, fields.take(examples).map(|(thing, field)| self.disagreement(thing, field)).collect())
    }

    /// What its sayings come to, written into the thing.
    pub(super) fn resolve(&mut self, thing: u32) {
        let sayings = self.ordered(thing);
        let sayings = sayings.as_slice();
        let kind = self.things.get(thing).kind;
        let Words { host_network, owner_kind, owner_name, owner_uid, yes, .. } = self.words;
        let first = |field: fn(&Saying) -> Symbol| {
            sayings.iter().map(|saying| field(saying)).find(|symbol| !symbol.is_empty()).unwrap_or_default()
        };
        let attribute = |name: Symbol| sayings.iter().find_map(|saying| saying.attribute(name)).unwrap_or_default();
        let (name, namespace, parent) =
            (first(|saying| saying.name), first(|saying| saying.namespace), first(|saying| saying.parent));
        let node = if kind == Kind::Node { first(|saying| saying.id) } else { first(|saying| saying.node) };
        let uid = first(|saying| saying.id);
        // The owner's parts belong together: they are one source's.
        let owner = sayings.iter().find(|saying| saying.attribute(owner_kind).is_some());
        let of_owner = |name: Symbol| owner.and_then(|saying| saying.attribute(name)).unwrap_or_default();
        let (owner_kind, owner_name, owner_uid) = (of_owner(owner_kind), of_owner(owner_name), of_owner(owner_uid));
        let is_host_network = attribute(host_network) == yes && !yes.is_empty();
        let has_owner_told = sayings.iter().any(|saying| saying.source.tells_owners());
        let disputed = self.disputes(kind, sayings);

        let parent_thing = match kind {
            Kind::Container if !parent.is_empty() => self.things.entry(Kind::Pod, Symbol::EMPTY, parent),
            Kind::Process if !parent.is_empty() => self.things.entry(Kind::Container, Symbol::EMPTY, parent),
            _ => NONE,
        };
        let owner_of = owners::kind_between(self.strings.text(owner_kind)).filter(|_| !owner_uid.is_empty());
        let owner_thing = owner_of.map_or(NONE, |kind| self.things.entry(kind, Symbol::EMPTY, owner_uid));
        let owner_kind = match self.strings.text(owner_kind) {
            "" => Symbol::EMPTY,
            text => {
                let text = owners::snake_case(text);
                self.strings.intern(&text)
            }
        };
        let resolved = self.things.get_mut(thing);
        (resolved.name, resolved.namespace, resolved.node) = (name, namespace, node);
        resolved.uid = uid.or(resolved.id);
        (resolved.parent, resolved.owner) = (parent_thing, owner_thing);
        (resolved.owner_kind, resolved.owner_name) = (owner_kind, owner_name);
        (resolved.is_host_network, resolved.has_owner_told) = (is_host_network, has_owner_told);
        resolved.disputed = disputed;
        if let (Kind::Container, Some(id)) = (kind, HexId::parse(self.strings.text(resolved.id))) {
            self.things.put_container(id, thing, parent_thing);
        }
        self.believe(thing);
        if disputed == 0 {
            self.disputed.remove(&thing);
        } else {
            self.disputed.insert(thing);
        }
    }

    /// Writes into the thing who speaks of it as what has not ended.
    pub(super) fn believe(&mut self, thing: u32) {
        let kind = self.things.get(thing).kind;
        let mut node = None;
        let (mut readers, mut said) = (0, i64::MAX);
        for saying in self.things.sayings(thing).filter(|saying| !saying.has_ended()) {
            if *node.get_or_insert(saying.node) == saying.node {
                readers |= 1 << Reader::of(kind, saying.source).index();
                said = said.min(saying.said);
            }
        }
        let voucher = node.map_or(Voucher::NOBODY, |node| Voucher::new(self.vouches.row(node), readers));
        let believed = self.things.get_mut(thing);
        (believed.voucher, believed.said) = (voucher, said);
    }

    /// What is said of a thing, the best source first.
    fn ordered(&self, thing: u32) -> Vec<&Saying> {
        let mut sayings: Vec<&Saying> = self.things.sayings(thing).collect();
        if sayings.len() > 1 {
            sayings.sort_by(|a, b| self.order(a).cmp(&self.order(b)));
        }
        sayings
    }

    /// By precedence, then the newest first, then by content.
    fn order<'a>(&'a self, saying: &'a Saying) -> impl Ord + 'a {
        let text = |symbol| self.strings.text(symbol);
        (
            saying.source,
            Reverse(saying.from),
            Reverse(saying.said),
            text(saying.node),
            text(saying.id),
            text(saying.name),
            text(saying.namespace),
            text(saying.parent),
        )
    }

    /// Which fields different sources give differently, a bit each. `sayings` are in the order of precedence; only the
    /// newest of each source counts, and what it leaves empty it does not deny.
    fn disputes(&self, kind: Kind, sayings: &[&Saying]) -> u8 {
        if sayings.len() < 2 {
            return 0;
        }
        (0..FIELDS.len()).fold(0, |bits, field| {
            let mut words =
                newest(sayings).map(|saying| self.field(kind, saying, field)).filter(|word| !word.is_empty());
            let first = words.next();
            if first.is_some_and(|first| words.any(|word| word != first)) { bits | 1 << field } else { bits }
        })
    }

    /// A field as it is compared: a pod by any of its UIDs is the same pod.
    fn field(&self, kind: Kind, saying: &Saying, field: usize) -> Symbol {
        let word = [saying.name, saying.namespace, saying.parent][field];
        if field != 2 || kind != Kind::Container {
            return word;
        }
        self.things.find(Kind::Pod, Symbol::EMPTY, word).map_or(word, |pod| self.things.get(pod).uid)
    }

    fn disagreement(&self, thing: u32, field: usize) -> Disagreement {
        let sayings = self.ordered(thing);
        let thing = self.things.get(thing);
        Disagreement {
            kind: thing.kind.as_str(),
            id: self.strings.text(thing.uid).to_owned(),
            field: FIELDS[field],
            says: newest(&sayings)
                .map(|saying| (saying.source.as_str(), self.field(thing.kind, saying, field)))
                .filter(|(_, word)| !word.is_empty())
                .map(|(source, word)| (source, self.strings.text(word).to_owned()))
                .collect(),
        }
    }
}

/// The first saying of each source, of sayings in the order of precedence.
fn newest<'a>(sayings: &'a [&'a Saying]) -> impl Iterator<Item = &'a Saying> + Clone {
    sayings.chunk_by(|a, b| a.source == b.source).filter_map(|of_source| of_source.first().copied())
}
