//! Which sequence each stream is at, and which session holds it (R4).
//!
//! Filled at start from the state and the log, then moved by sessions. A slot's lock is held across its batch's append,
//! so a stream has one batch in flight whichever of its sessions sends it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;
use weir_store::StreamId;

/// Every known stream.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    slots: Mutex<HashMap<StreamId, Arc<Slot>>>,
}

/// One stream.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// The last durable sequence; 0: the stream is new.
    pub(crate) durable: tokio::sync::Mutex<u64>,
    holder: Mutex<Option<Holder>>,
}

#[derive(Clone, Debug)]
struct Holder {
    agent_run: [u8; 16],
    replaced: CancellationToken,
    session: u64,
}

/// A session's hold of its stream; dropping it frees the stream at once.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) slot: Arc<Slot>,
    session: u64,
    /// Cancelled when the same agent comes back on another connection.
    pub(crate) replaced: CancellationToken,
}

/// Another agent run holds the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SecondWriter;

impl Streams {
    /// Notes that everything up to `sequence` is durable: what the state or the log says at start.
    pub(crate) fn recover(&self, stream: StreamId, sequence: u64) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(stream).or_default();
        if let Some(slot) = Arc::get_mut(slot) {
            let durable = slot.durable.get_mut();
            *durable = (*durable).max(sequence);
        }
    }

    /// Takes the stream for an agent run. The same run may come back before its old connection is known to be dead: it
    /// takes over.
    pub(crate) fn hold(&self, stream: StreamId, agent_run: [u8; 16], session: u64) -> Result<Hold, SecondWriter> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(stream).or_default())
        };
        let replaced = CancellationToken::new();
        {
            let mut holder = slot.holder.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(held) = &*holder {
                if held.agent_run != agent_run {
                    return Err(SecondWriter);
                }
                held.replaced.cancel();
            }
            *holder = Some(Holder { agent_run, replaced: replaced.clone(), session });
        }
        Ok(Hold { slot, session, replaced })
    }

    /// How many streams a session holds now.
    pub(crate) fn held(&self) -> usize {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.values().filter(|slot| slot.holder.lock().unwrap_or_else(PoisonError::into_inner).is_some()).count()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holder = self.slot.holder.lock().unwrap_or_else(PoisonError::into_inner);
        if holder.as_ref().is_some_and(|holder| holder.session == self.session) {
            *holder = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId([1; 16]);

    #[test]
    fn a_second_agent_run_is_refused_until_the_first_is_gone() {
        let streams = Streams::default();
        let first = streams.hold(STREAM, [1; 16], 1).unwrap();
        assert_eq!(streams.hold(STREAM, [2; 16], 2).unwrap_err(), SecondWriter);
        drop(first);
        streams.hold(STREAM, [2; 16], 3).unwrap();
    }

    #[test]
    fn the_same_agent_run_takes_over_and_its_old_session_frees_nothing() {
        let streams = Streams::default();
        let first = streams.hold(STREAM, [1; 16], 1).unwrap();
        let second = streams.hold(STREAM, [1; 16], 2).unwrap();
        assert!(first.replaced.is_cancelled() && !second.replaced.is_cancelled());
        drop(first);
        assert_eq!(streams.hold(STREAM, [2; 16], 3).unwrap_err(), SecondWriter);
    }
}
