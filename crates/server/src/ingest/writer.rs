//! The one thread that writes the log: everything that arrives while it syncs shares the next sync.

use crate::apply::Input;
use crate::counts::Counts;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};
use weir_daemon::failpoint;
use weir_store::Lsn;
use weir_store::embedded::log::{Log, NewEntry};
use weir_wire::agent::Batch;

/// Appends that wait for the writer: one a stream is in flight, so this many agents can be in one group.
pub(crate) const APPENDS_MAX: usize = 256;
/// Durable batches that wait for the applier. When it falls behind, the writer waits, and with it the agents, whose
/// spools hold more than any queue here could.
pub(crate) const DURABLE_MAX: usize = 64;
/// A group ends at so many payload bytes, so that its block stays small in memory.
const GROUP_BYTES: usize = 16 << 20;

/// A batch on its way into the log.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) entry: NewEntry,
    /// The payload decoded, so that it is decoded once.
    pub(crate) batch: Option<Batch>,
    pub(crate) clock_offset_ns: Option<i64>,
    pub(crate) reply: oneshot::Sender<Result<(), String>>,
}

/// A batch in the log, on its way to the applier.
#[derive(Debug)]
pub(crate) struct Durable {
    pub(crate) lsn: Lsn,
    pub(crate) entry: NewEntry,
    pub(crate) batch: Option<Batch>,
    pub(crate) clock_offset_ns: Option<i64>,
}

/// Writes until every sender of `appends` is gone, or the applier is.
pub(crate) fn write(
    log: &Mutex<Log>,
    mut appends: mpsc::Receiver<Append>,
    applier: &SyncSender<Input>,
    counts: &Arc<Counts>,
) -> anyhow::Result<()> {
    while let Some(first) = appends.blocking_recv() {
        let mut bytes = first.entry.payload.len();
        let mut group = vec![first];
        while bytes < GROUP_BYTES
            && let Ok(next) = appends.try_recv()
        {
            bytes += next.entry.payload.len();
            group.push(next);
        }
        let entries: Vec<NewEntry> = group.iter().map(|append| append.entry.clone()).collect();
        let appended = log.lock().unwrap_or_else(PoisonError::into_inner).append(&entries);
        counts.groups.fetch_add(1, Ordering::Relaxed);
        match appended {
            Ok(first) => {
                failpoint::reach("log-appended");
                for (append, lsn) in group.into_iter().zip(first.0..) {
                    // The session may be gone: the batch is durable all the same, and acknowledged as a duplicate later.
                    let _ = append.reply.send(Ok(()));
                    failpoint::reach("batch-acknowledged");
                    let durable = Durable {
                        lsn: Lsn(lsn),
                        entry: append.entry,
                        batch: append.batch,
                        clock_offset_ns: append.clock_offset_ns,
                    };
                    if applier.send(Input::Batch(Box::new(durable))).is_err() {
                        anyhow::bail!("the applier is gone; the batch is in the log and is applied at the next start");
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, batches = group.len(), "failed to append; the agents keep the batches");
                counts.append_failures.fetch_add(1, Ordering::Relaxed);
                let text = format!("failed to {error}");
                for append in group {
                    let _ = append.reply.send(Err(text.clone()));
                }
            }
        }
    }
    Ok(())
}
