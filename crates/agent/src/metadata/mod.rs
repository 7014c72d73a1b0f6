//! The Node Metadata Controller: who is on this node, from every source that knows something of it.
//!
//! ```text
//!  kubelet ─▶ reader ─┐                         ┌─▶ batch ─▶ spool (facts with the batch, or none of both)
//!  API     ─▶ reader ─┤   take     ┌──────┐ untold
//!  CRI     ─▶ reader ─┼──────────▶ │ Told │ ─────┘
//!  Docker  ─▶ reader ─┤            └──────┘ ◀──── processes of the poll (crate::facts)
//!  node    ─▶ reader ─┘   ▲           │ a container, pod or namespace that nobody told of
//!                         └── wake ◀──┘
//! ```
//!
//! - [`reader`]: one task a source. It reads every 10 s, and at once (at most once a second) when the source notices a
//!   change or the polls show something unknown; each reading has a deadline, so that one that hangs delays neither
//!   the other sources nor the polls.
//! - [`told`]: compares readings, and keeps what the server has not been told.
//! - [`settings`]: which sources there are, from the flags.
//! - [`unknown`]: what the polls show and no source has told of.
//!
//! A source is added in three steps: implement [`Source`] in `crates/discovery`, with a name of
//! `weir_model::fact::source`; give it a setting in
//! [`Settings`]; list it in [`settings::sources`]. Where it need not be there, wrap it in `auto::Auto`.

mod auto;
mod change;
pub mod reader;
pub mod settings;
pub mod told;
pub mod unknown;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use weir_discovery::source::Source;

pub use settings::Settings;
pub use told::Told;

/// What the readers and the commit share, behind a mutex that is held for one comparison or one batch's share.
#[derive(Clone, Debug)]
pub struct Shared {
    told: Arc<Mutex<Told>>,
    wake: Arc<watch::Sender<u64>>,
}

impl Shared {
    /// Begins with what was told before.
    pub fn new(told: Told) -> Self {
        Self { told: Arc::new(Mutex::new(told)), wake: Arc::new(watch::Sender::new(0)) }
    }

    /// What was told. A panic while the lock is held ends the process, so a poisoned lock is never used on.
    pub fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has every source read at once.
    pub fn wake(&self) {
        self.wake.send_modify(|count| *count += 1);
    }

    /// Sees every [`Shared::wake`].
    pub(crate) fn woken(&self) -> watch::Receiver<u64> {
        self.wake.subscribe()
    }
}

/// A source, and what its reader is called: the source's name, but `node` for the node's own facts, which are of the
/// source `proc` as its processes are.
pub struct Listed {
    /// In health and logs; unique.
    pub reader: &'static str,
    /// What it reads.
    pub source: Box<dyn Source>,
}
