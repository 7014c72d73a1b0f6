//! A source of metadata, as whoever runs it sees it: something that can be read, again and again, within a deadline.
//!
//! A reading is the source's whole word: what it does not name any more is over. A reading that fails says nothing of
//! what there is. The agent runs every source beside the others (`crates/agent/src/metadata`), compares each reading
//! with the former one and tells the difference.

use crate::said::Said;
use std::future::Future;
use std::pin::Pin;

/// What a method of [`Source`] answers.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One source of metadata on a node.
pub trait Source: Send {
    /// One of [`weir_model::fact::source`].
    fn name(&self) -> &'static str;

    /// The kinds of things that a reading lists whole: a thing of such a kind that is not in it is gone.
    fn kinds(&self) -> &'static [&'static str];

    /// Reads everything. The caller gives it up at its deadline: whatever is kept between readings (a connection, a
    /// token, a cache) must stand that.
    fn read(&mut self) -> Answer<'_, Result<Reading, Trouble>>;

    /// Ends when the source has noticed by itself that something changed, so that it is read at once; never, where it
    /// has no way to notice. It is given up and asked anew whenever the source is read for another reason.
    fn changed(&mut self) -> Answer<'_, ()> {
        Box::pin(std::future::pending())
    }
}

/// What a source told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// All that it knows.
    Whole {
        /// The things, in any order. One that is over may stay in the list, with its end.
        things: Vec<Said>,
        /// What is missing from them, and how to mend it; empty nothing.
        missing: String,
    },
    /// The same as last time.
    Same,
}

/// Why a source told nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It is not there, and nobody asked for it by name: not to be complained about.
    #[error("{0}")]
    Off(String),
    /// It is there and does not let us: which right is missing, and where to give it.
    #[error("{0}")]
    Refused(String),
    /// It does not answer, or answers something else.
    #[error("{0}")]
    Failed(String),
}

impl Trouble {
    /// The state's word in [`crate::said::Health`].
    pub fn state(&self) -> &'static str {
        match self {
            Self::Off(_) => "off",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
        }
    }
}
