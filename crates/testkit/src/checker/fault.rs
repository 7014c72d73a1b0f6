//! What weir can get wrong, named.

use std::fmt::{self, Write as _};

/// Which of weir's answers is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// The tracer's rows.
    Feed,
    /// The stored counters.
    Transactions,
    /// Who talks to whom.
    Edges,
}

impl View {
    /// `feed`, `transactions` or `edges`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Feed => "feed",
            Self::Transactions => "transactions",
            Self::Edges => "edges",
        }
    }
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A connection that was is not there.
    Missing,
    /// Something is there that was not.
    Extra,
    /// The bytes differ.
    Bytes,
    /// One received byte is missing, and nothing else differs in the bytes.
    OneShort,
    /// The number of connections differs.
    Connections,
    /// The roles are exchanged.
    Direction,
    /// The roles are unknown.
    Undirected,
    /// The process is another's.
    Owner,
    /// The process is unknown.
    Ownerless,
    /// The reason of the end.
    Ending,
}

/// One thing that weir gets wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// In which answer.
    pub view: View,
    /// What.
    pub kind: Kind,
    /// The scenario that it happened in, where that can be told.
    pub scenario: Option<usize>,
    /// Which connection or edge, what was expected and what was found.
    pub detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}: {}", self.view.as_str(), self.kind, self.detail)
    }
}

/// Faults that are written out; the others are counted.
const WRITTEN: usize = 20;

/// A line for each fault.
pub fn told(faults: &[Fault]) -> String {
    let mut text = String::new();
    for fault in faults.iter().take(WRITTEN) {
        let _ = writeln!(text, "{fault}");
    }
    if faults.len() > WRITTEN {
        let _ = writeln!(text, "and {} more", faults.len() - WRITTEN);
    }
    text
}
