//! Until when each reader of a node has told everything, and since when it tells it.
//!
//! A row a node, made when the node first speaks: a thing refers to its node's row, so that whether a claim is believed is
//! asked without a search.

use super::claims::OPEN;
use super::precedence::{READERS, Reader};
use super::slab::Slab;
use super::strings::Symbol;
use super::things::NONE;
use hashbrown::HashMap;

/// A reader has told, since `since`, everything that changed before `until`. One that nobody ever vouched for is believed
/// without end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vouched {
    pub(crate) since: i64,
    pub(crate) until: i64,
}

const NEVER: Vouched = Vouched { since: i64::MIN, until: OPEN };

#[derive(Debug)]
struct Row {
    readers: [Vouched; READERS],
    /// Which of them somebody vouched for, a bit each.
    vouched: u8,
}

/// A node's row and some of its readers: whose word a thing without an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Voucher(u32);

impl Voucher {
    pub(crate) const NOBODY: Self = Self(NONE);
    /// Bits of the readers; what is left numbers 16 million nodes.
    const READER_BITS: u32 = READERS as u32;

    pub(crate) fn new(row: u32, readers: u8) -> Self {
        if row >= NONE >> Self::READER_BITS {
            Self::NOBODY
        } else {
            Self(row << Self::READER_BITS | u32::from(readers))
        }
    }
}

/// What is vouched for.
#[derive(Debug, Default)]
pub(crate) struct Vouches {
    rows: Slab<Row>,
    by_node: HashMap<Symbol, u32>,
}

impl Vouches {
    /// The row of a node, made where there is none.
    pub(crate) fn row(&mut self, node: Symbol) -> u32 {
        let rows = &mut self.rows;
        *self.by_node.entry(node).or_insert_with(|| rows.insert(Row { readers: [NEVER; READERS], vouched: 0 }))
    }

    pub(crate) fn vouch(&mut self, node: Symbol, reader: Reader, since: i64, until: i64) {
        let row = self.row(node);
        let row = &mut self.rows[row];
        let (held, bit) = (&mut row.readers[reader.index()], 1 << reader.index());
        if row.vouched & bit == 0 {
            row.vouched |= bit;
            *held = Vouched { since, until };
        }
        held.since = held.since.max(since);
        held.until = held.until.max(until);
    }

    /// What a reader of a node told; `None` where nobody ever vouched for it.
    pub(crate) fn get(&self, node: Symbol, reader: Reader) -> Option<Vouched> {
        let row = self.rows.get(*self.by_node.get(&node)?)?;
        (row.vouched & 1 << reader.index() != 0).then(|| row.readers[reader.index()])
    }

    /// Whether one of the voucher's readers, who all said so at `said` or later, has told what was at `at`. False says
    /// nothing: the sayings have to be looked at.
    pub(crate) fn have_told(&self, Voucher(voucher): Voucher, said: i64, at: i64) -> bool {
        let Some(row) = self.rows.get(voucher >> Voucher::READER_BITS) else { return false };
        let mut readers = voucher as u8;
        while readers != 0 {
            let vouched = row.readers[readers.trailing_zeros() as usize];
            if at < vouched.until && vouched.since <= said {
                return true;
            }
            readers &= readers - 1;
        }
        false
    }

    /// Until when any node was vouched for.
    pub(crate) fn latest(&self) -> i64 {
        self.by_node.values().map(|row| self.rows[*row].latest()).max().unwrap_or(i64::MIN)
    }

    /// The nodes that were vouched for since `before`.
    pub(crate) fn recent(&self, before: i64) -> impl Iterator<Item = Symbol> + '_ {
        let is_recent = move |row: u32| self.rows[row].vouched != 0 && self.rows[row].latest() >= before;
        self.by_node.iter().filter(move |(_, row)| is_recent(**row)).map(|(node, _)| *node)
    }

    /// Forgets rows of nodes that `stays` refuses: nothing is said of them any more.
    pub(crate) fn retain(&mut self, stays: impl Fn(Symbol) -> bool) {
        let rows = &mut self.rows;
        self.by_node.retain(|node, row| {
            let stays = stays(*node);
            if !stays {
                rows.free(*row);
            }
            stays
        });
    }
}

impl Row {
    /// Until when somebody vouched for anything.
    fn latest(&self) -> i64 {
        let vouched = (0..READERS).filter(|reader| self.vouched & 1 << reader != 0);
        vouched.map(|reader| self.readers[reader].until).max().unwrap_or(i64::MIN)
    }
}
