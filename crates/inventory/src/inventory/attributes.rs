//! Attributes by name: what an end can be grouped and filtered by.

use super::Inventory;
use super::strings::Symbol;
use super::things::{Kind, Saying};
use std::collections::BTreeMap;

impl Saying {
    /// An attribute's value; absent where it is empty.
    pub(crate) fn attribute(&self, name: Symbol) -> Option<Symbol> {
        let (_, value) = self.attributes.iter().find(|(other, _)| *other == name)?;
        (!value.is_empty()).then_some(*value)
    }
}

impl Inventory {
    /// A thing's attribute, from the best source that has it.
    pub(super) fn attribute_of(&self, thing: u32, name: Symbol) -> Option<&str> {
        let by_pids = name == self.words.pids && !name.is_empty();
        let rank = |saying: &Saying| if by_pids { saying.source.for_pids() } else { saying.source as u8 };
        let best = self.things.sayings(thing).filter_map(|saying| Some((saying, saying.attribute(name)?))).min_by(
            |(a, a_value), (b, b_value)| {
                let order = (rank(a), b.from, b.said).cmp(&(rank(b), a.from, a.said));
                order.then_with(|| self.strings.text(*a_value).cmp(self.strings.text(*b_value)))
            },
        );
        best.map(|(_, value)| self.strings.text(value))
    }

    /// All of a thing's attributes but the pids, which change with every process.
    pub(super) fn attributes_of(&self, thing: u32) -> BTreeMap<&str, &str> {
        let names = self.things.sayings(thing).flat_map(|saying| saying.attributes.iter().map(|(name, _)| *name));
        names
            .filter(|name| *name != self.words.pids)
            .filter_map(|name| Some((self.strings.text(name), self.attribute_of(thing, name)?)))
            .collect()
    }

    /// The attribute of the thing of a kind with that name in the namespace, as it was at an instant.
    pub(super) fn thing_by_name(&self, kind: Kind, namespace: Symbol, name: Symbol, at: i64) -> Option<u32> {
        let claims = self.names.claims(&(kind, namespace, name));
        let claims = claims.as_slice();
        claims.iter().find(|claim| claim.is_sure(at)).map(|claim| claim.thing)
    }
}
