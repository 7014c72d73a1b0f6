//! Compaction: history that no late record can change any more is settled, once a minute.
//!
//! The store merges and sums; which of two views counts is said here, by the same pairing that answers questions (R5).
//! It is asked when a row is at least the lateness horizon old and at most some minutes older than that: the state keeps
//! connections for two hours after their close, so it still knows all of them.

use crate::query::Sources;
use crate::query::params::{Grouping, OpenOrClosed, Question};
use crate::query::selection::{Depth, Selection, client_covered};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use weir_model::{Side, UnixNanos};
use weir_store::{Compacted, Due, HistoryRow, HistoryStore as _, Judge, Judgement, StoreError};

/// The lateness horizon: what is older is frozen (R5).
pub(crate) const HORIZON: Duration = Duration::from_secs(3600);
/// How often it is looked whether something is due. A span of 10 min becomes due at once.
const EVERY: Duration = Duration::from_secs(60);

/// A connection's other end may have told of it a poll earlier or later, and the row that closed it with the next one.
const MARGIN_NS: i64 = 120 * 1_000_000_000;

/// What is due at `now`: rows of 10 s stay until they are forgotten, since answers are made of them.
fn due(now: UnixNanos) -> Due {
    let never = UnixNanos(i64::MIN);
    Due { settled_before: now.plus(-(HORIZON.as_nanos() as i64)), minutes_before: never, hours_before: never }
}

/// Runs until shutdown. A failure is told and tried again: everything is as it was.
pub(crate) async fn run(sources: Arc<Sources>, shutdown: CancellationToken) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(EVERY) => {}
        }
        let (sources, shutdown) = (Arc::clone(&sources), shutdown.clone());
        tokio::task::spawn_blocking(move || {
            let due = due(sources.clock.wall());
            match steps(&sources, &due, &|| shutdown.is_cancelled()) {
                Ok(Total { steps: 0, .. }) => {}
                Ok(Total { steps, rows_in, bytes_in, bytes_out }) => {
                    tracing::debug!(steps, rows = rows_in, bytes_in, bytes_out, "settled history");
                }
                Err(error) => tracing::error!(%error, "failed to settle history; trying again"),
            }
        })
        .await?;
    }
}

/// What steps of compaction did together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Steps.
    pub steps: u64,
    /// Rows that went in; rows that went through several steps count as often.
    pub rows_in: u64,
    /// Bytes that went in.
    pub bytes_in: u64,
    /// Bytes that came out.
    pub bytes_out: u64,
}

/// Compacts until nothing is due.
pub(crate) fn steps(sources: &Sources, due: &Due, is_over: &dyn Fn() -> bool) -> Result<Total, StoreError> {
    let mut total = Total::default();
    while !is_over()
        && let Some(Compacted { rows_in, bytes_in, bytes_out, .. }) =
            sources.store.compact(due, &mut Pairing { sources, selection: None })?
    {
        total.steps += 1;
        total.rows_in += rows_in;
        total.bytes_in += bytes_in;
        total.bytes_out += bytes_out;
    }
    Ok(total)
}

/// Judges by the pairing of all connections that moved something in a span.
struct Pairing<'a> {
    sources: &'a Sources,
    selection: Option<Selection>,
}

impl Judge for Pairing<'_> {
    fn prepare(&mut self, oldest: UnixNanos, newest: UnixNanos) -> Result<(), StoreError> {
        let (view, pending) = self.sources.live.read(&*self.sources.store)?;
        let question = Question {
            since: Some(oldest.plus(-MARGIN_NS)),
            until: Some(newest.plus(MARGIN_NS)),
            by: Grouping::default(),
            from: None,
            to: None,
            name: None,
            namespace: None,
            label: None,
            cidr: None,
            port: None,
            protocol: None,
            service: None,
            kind: None,
            node: None,
            state: OpenOrClosed::All,
            limit: 0,
        };
        self.selection = Some(Selection::load(self.sources, &*view, &pending, &question, Depth::History)?);
        Ok(())
    }

    fn judge(&mut self, row: &HistoryRow) -> Judgement {
        let claimed = Judgement { side: row.view.unwrap_or(Side::Client), counted: true };
        let Some(selection) = &self.selection else { return claimed };
        let Some(verdict) = selection.verdicts.get(&row.connection) else { return claimed };
        // The client's node covered it and tells of no such connection: a told loss, not this edge's.
        let is_told_elsewhere = verdict.is_unpaired_server()
            && row.view == Some(Side::Server)
            && client_covered(
                &self.sources.names.read(),
                &selection.covered,
                &row.node,
                (row.client.ip(), row.server.ip()),
                row.started.unwrap_or(row.from),
                row.to,
            );
        let counted = !verdict.is_counted_by_client() && !is_told_elsewhere;
        Judgement { side: verdict.side, counted }
    }
}
