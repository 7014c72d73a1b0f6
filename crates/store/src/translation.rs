//! A translation: what a node did to the ends of a connection whose bytes others tell of. It comes with an agent's
//! batch, and goes to pairing: by it the client's view finds the server's (R5).
//!
//! Translations are a set. The same one told twice is one; so no order and no repetition changes anything.

use weir_model::{NodeName, Protocol, Tuple, UnixNanos};

/// One translation. Ordered by content, so that every choice among several has one answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Translation {
    /// The node that translates.
    pub node: NodeName,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// As the opener knows the connection: the opener is `local`.
    pub original: Tuple,
    /// As it leaves the node, in the same direction.
    pub translated: Tuple,
    /// When it was seen.
    pub seen: UnixNanos,
    /// It was seen as it began: `seen` is the connection's start. Otherwise it was there already.
    pub began: bool,
}

impl Translation {
    /// The bucket of views before the translation, and of those behind it (see [`crate::transaction::link`]).
    pub fn links(&self) -> [i64; 2] {
        [self.original, self.translated].map(|tuple| crate::transaction::link(self.protocol, tuple))
    }
}
