//! Writing what is pending as segments, beside the applier: encoding 100,000 rows takes as long as merging 20,000 records,
//! and nothing of it waits for the state.
//!
//! ```text
//! applier ─"write"─▶ flusher: pending rows ─▶ segment, watermark ─▶ log cut behind it
//!         ◀─outcome─
//! ```

use crate::counts::Counts;
use crate::live::Live;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use weir_daemon::clock::Clock;
use weir_store::embedded::Embedded;
use weir_store::embedded::log::Log;
use weir_store::{HistoryRow, HistoryStore as _, Lsn, SegmentId, StoreError};

/// All that writing needs.
#[derive(Clone)]
pub(crate) struct Flush {
    pub(crate) store: Arc<Embedded>,
    pub(crate) live: Arc<Live>,
    /// `None` while the log is replayed.
    pub(crate) log: Option<Arc<Mutex<Log>>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) counts: Arc<Counts>,
}

impl Flush {
    /// Writes every pending row as one segment and cuts the log behind it.
    ///
    /// # Errors
    /// When the segment cannot be stored; everything stays as it was.
    pub(crate) fn write(&self) -> Result<(), StoreError> {
        let pending = self.live.pending();
        if pending.last <= pending.watermark {
            return Ok(());
        }
        let id = SegmentId { first: Lsn(pending.watermark.0 + 1), last: pending.last };
        let groups: Vec<&[HistoryRow]> = pending.groups.iter().map(|group| group.as_slice()).collect();
        self.store.put_segment(id, self.clock.wall(), &groups)?;
        self.live.flushed(&pending);
        if pending.rows > 0 {
            self.counts.segments_written.fetch_add(1, Ordering::Relaxed);
        }
        match &self.log {
            Some(log) => log.lock().unwrap_or_else(PoisonError::into_inner).truncate(id.last),
            None => Ok(()),
        }
    }

    /// Tells how it went, and counts and notes a failure: the rows stay pending.
    pub(crate) fn write_and_tell(&self) -> bool {
        match self.write() {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "failed to write a segment; trying again");
                self.counts.flush_failures.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }
}

/// The applier's end of the thread that writes.
pub(crate) struct Flusher {
    wanted: SyncSender<()>,
    outcomes: Receiver<bool>,
    is_writing: bool,
}

/// The thread's end.
pub(crate) struct Work {
    wanted: Receiver<()>,
    outcomes: SyncSender<bool>,
}

impl Flusher {
    /// Both ends. One segment is written at a time.
    pub(crate) fn new() -> (Self, Work) {
        let (wanted, work_wanted) = sync_channel(1);
        let (work_outcomes, outcomes) = sync_channel(1);
        (Self { wanted, outcomes, is_writing: false }, Work { wanted: work_wanted, outcomes: work_outcomes })
    }

    /// Has everything written that is pending now.
    ///
    /// # Errors
    /// When the thread is gone, as for all that is asked of it.
    pub(crate) fn start(&mut self) -> Result<(), StoreError> {
        self.wanted.send(()).ok().ok_or_else(gone)?;
        self.is_writing = true;
        Ok(())
    }

    pub(crate) fn is_writing(&self) -> bool {
        self.is_writing
    }

    /// How the segment went that was being written, if it is over; false: its rows stay pending. Waits for it where the
    /// caller must.
    ///
    /// # Errors
    /// When the thread is gone.
    pub(crate) fn outcome(&mut self, must_wait: bool) -> Result<Option<bool>, StoreError> {
        if !self.is_writing {
            return Ok(None);
        }
        let went = match self.outcomes.try_recv() {
            Ok(went) => went,
            Err(TryRecvError::Empty) if !must_wait => return Ok(None),
            Err(TryRecvError::Empty) => self.outcomes.recv().ok().ok_or_else(gone)?,
            Err(TryRecvError::Disconnected) => return Err(gone()),
        };
        self.is_writing = false;
        Ok(Some(went))
    }
}

/// It only ever ends before the applier by a panic, which the scope of both passes on.
fn gone() -> StoreError {
    StoreError::Corrupt { what: "history", text: "the thread that writes segments is gone".into() }
}

impl Work {
    /// Writes whenever the applier wants it, until its end is gone.
    pub(crate) fn run(&self, flush: &Flush) {
        while self.wanted.recv().is_ok() {
            if self.outcomes.send(flush.write_and_tell()).is_err() {
                return;
            }
        }
    }
}
