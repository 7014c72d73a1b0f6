//! Interned texts: every name, id and attribute of the inventory once, as a number.
//!
//! A symbol stays the same for as long as something refers to it; [`Strings::swept`] frees what nothing refers to any
//! more, so that years of pods that came and went leave nothing behind.

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher as _;

/// An interned text. The default is the empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Symbol(u32);

impl Symbol {
    /// The empty text.
    pub(crate) const EMPTY: Self = Self(0);

    pub(crate) fn is_empty(self) -> bool {
        self == Self::EMPTY
    }

    /// `self`, unless it is the empty text.
    pub(crate) fn or(self, other: Self) -> Self {
        if self.is_empty() { other } else { self }
    }

    /// A dense number.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    offset: u32,
    length: u32,
}

/// The texts.
#[derive(Debug)]
pub(crate) struct Strings {
    places: Vec<Place>,
    text: String,
    table: HashTable<u32>,
    free: Vec<u32>,
    hasher: DefaultHashBuilder,
    /// Symbols made since the last sweep.
    new: usize,
}

impl Default for Strings {
    fn default() -> Self {
        Self {
            places: vec![Place::default()],
            text: String::new(),
            table: HashTable::new(),
            free: Vec::new(),
            hasher: DefaultHashBuilder::default(),
            new: 0,
        }
    }
}

impl Strings {
    /// Bytes of all texts together.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The text of a symbol.
    pub(crate) fn text(&self, symbol: Symbol) -> &str {
        text(&self.places, &self.text, symbol.0)
    }

    /// The symbol of a text that is there already.
    pub(crate) fn find(&self, wanted: &str) -> Option<Symbol> {
        if wanted.is_empty() {
            return Some(Symbol::EMPTY);
        }
        let hash = self.hasher.hash_one(wanted);
        self.table.find(hash, |symbol| text(&self.places, &self.text, *symbol) == wanted).map(|symbol| Symbol(*symbol))
    }

    /// The symbol of a text; [`Symbol::EMPTY`] where the texts would outgrow 4 GiB, which their cap is far below.
    pub(crate) fn intern(&mut self, wanted: &str) -> Symbol {
        if let Some(symbol) = self.find(wanted) {
            return symbol;
        }
        let (Ok(offset), Ok(length)) = (u32::try_from(self.text.len()), u32::try_from(wanted.len())) else {
            return Symbol::EMPTY;
        };
        self.text.push_str(wanted);
        let place = Place { offset, length };
        let symbol = self.free.pop().unwrap_or(self.places.len() as u32);
        if symbol as usize == self.places.len() {
            self.places.push(Place::default());
        }
        self.places[symbol as usize] = place;
        let Self { places, text: all, table, hasher, .. } = self;
        table.insert_unique(hasher.hash_one(wanted), symbol, |other| hasher.hash_one(text(places, all, *other)));
        self.new += 1;
        Symbol(symbol)
    }

    /// Whether so much is new since the last sweep that another one pays.
    pub(crate) fn is_due(&self) -> bool {
        /// A sweep walks everything; below this it would free next to nothing.
        const NEW_MIN: usize = 65_536;
        self.new >= NEW_MIN.max(self.table.len() / 2)
    }

    /// The texts without all but those of `live`, a mark per symbol.
    pub(crate) fn swept(&self, live: &[bool]) -> Self {
        let mut swept = Self {
            places: vec![Place::default(); self.places.len()],
            text: String::with_capacity(self.text.len()),
            table: HashTable::with_capacity(self.table.len()),
            free: Vec::new(),
            hasher: self.hasher.clone(),
            new: 0,
        };
        let Self { places, text: kept, table, hasher, free, .. } = &mut swept;
        for symbol in 1..self.places.len() as u32 {
            let length = self.places[symbol as usize].length;
            if !live.get(symbol as usize).copied().unwrap_or(false) || length == 0 {
                free.push(symbol);
                continue;
            }
            places[symbol as usize] = Place { offset: kept.len() as u32, length };
            let own = self.text(Symbol(symbol));
            kept.push_str(own);
            table.insert_unique(hasher.hash_one(own), symbol, |other| hasher.hash_one(text(places, kept, *other)));
        }
        kept.shrink_to_fit();
        table.shrink_to_fit(|other| hasher.hash_one(text(places, kept, *other)));
        swept
    }

    /// How many symbols there may be: marks are as many.
    pub(crate) fn capacity(&self) -> usize {
        self.places.len()
    }
}

fn text<'a>(places: &[Place], all: &'a str, symbol: u32) -> &'a str {
    let place = places[symbol as usize];
    &all[place.offset as usize..][..place.length as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_survives_a_sweep_that_frees_the_others() {
        let mut strings = Strings::default();
        let (one, two) = (strings.intern("one"), strings.intern("two"));
        assert_eq!((strings.intern("one"), strings.bytes()), (one, 6));
        let mut live = vec![false; strings.capacity()];
        live[two.index()] = true;
        let mut strings = strings.swept(&live);
        assert_eq!((strings.text(two), strings.find("one"), strings.find("two")), ("two", None, Some(two)));
        let three = strings.intern("three");
        assert_eq!((three, strings.text(three), strings.bytes()), (one, "three", 8));
        assert_eq!(strings.intern(""), Symbol::EMPTY);
    }
}
