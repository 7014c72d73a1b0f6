//! Compaction: history that no late record can change any more is settled, once a minute.
//!
//! The store merges and sums; which of two views counts is said here, by the same pairing that answers questions (R5).
//! It is asked when a row is at least the lateness horizon old and at most some minutes older than that: the state keeps
//! connections for two hours after their close, so it still knows all of them.

use crate::query::completeness::Covered;
use crate::query::ends::{EndId, EndTable};
use crate::query::naming::Naming;
use crate::query::params::Question;
use crate::query::selection::{Depth, Selection, client_covered};
use crate::query::{Sources, settled};
use crate::tiers::Tiers;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use weir_model::{ConnectionId, Side, UnixNanos};
use weir_store::{
    Compacted, Due, Fate, HistoryRow, HistoryStore as _, Judge, Judgement, SettledEdge, SettledEnd, StoreError,
};

/// The lateness horizon: what is older is frozen (R5).
pub(crate) const HORIZON: Duration = Duration::from_secs(3600);
/// How often something is done about what is due, by the server's clock. A span of 10 min becomes due at once.
const EVERY_NS: u64 = 60_000_000_000;
/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(500);

/// A connection's other end may have told of it a poll earlier or later, and the row that closed it with the next one.
const MARGIN_NS: i64 = 120 * 1_000_000_000;

/// Runs until shutdown. A failure is told and tried again: everything is as it was.
pub(crate) async fn run(sources: Arc<Sources>, tiers: Tiers, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut done_at = sources.clock.monotonic().0;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(TICK) => {}
        }
        let now = sources.clock.monotonic().0;
        if now.saturating_sub(done_at) < EVERY_NS {
            continue;
        }
        done_at = now;
        let (sources, shutdown) = (Arc::clone(&sources), shutdown.clone());
        tokio::task::spawn_blocking(move || {
            let due = tiers.due(sources.clock.wall());
            match steps(&sources, &due, &|| shutdown.is_cancelled()) {
                Ok(Total { steps: 0, .. }) => {}
                Ok(Total { steps, rows_in, bytes_in, bytes_out }) => {
                    sources.counts.compactions.fetch_add(steps, Ordering::Relaxed);
                    tracing::debug!(steps, rows = rows_in, bytes_in, bytes_out, "settled history");
                }
                Err(error) => {
                    sources.counts.compaction_failures.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%error, "failed to settle history; trying again");
                }
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
            sources.store.compact(due, &mut Pairing { sources, judged: HashMap::new(), covered: Covered::default() })?
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
    judged: HashMap<ConnectionId, Judged>,
    covered: Covered,
}

/// What is so of a connection's view.
struct Judged {
    side: Side,
    is_counted_by_client: bool,
    is_unpaired_server: bool,
    edge: Arc<SettledEdge>,
}

impl Judge for Pairing<'_> {
    fn prepare(&mut self, span: Option<(UnixNanos, UnixNanos)>, apart: &[&HistoryRow]) -> Result<(), StoreError> {
        let (view, pending) = self.sources.live.read(&*self.sources.store)?;
        // Without a span, nothing moved in it; names are those that were told until the newest row.
        let nothing = || apart.iter().map(|row| row.to).max().map(|newest| (newest, newest));
        let (since, until) = span
            .map(|(oldest, newest)| (oldest.plus(-MARGIN_NS), newest.plus(MARGIN_NS)))
            .or_else(nothing)
            .unwrap_or_default();
        let question = Question { since: Some(since), until: Some(until), ..Question::default() };
        let selection = Selection::load(self.sources, &*view, &pending, &question, Depth::Settling(apart))?;
        self.judged = judge_all(self.sources, &selection, &question);
        self.covered = selection.covered;
        Ok(())
    }

    fn judge(&mut self, row: &HistoryRow) -> Judgement {
        let Some(judged) = self.judged.get(&row.connection) else {
            let fate = if row.late { Fate::Late } else { Fate::Counted };
            return Judgement { side: row.view.unwrap_or(Side::Client), fate, edge: None };
        };
        let fate = if judged.is_counted_by_client {
            Fate::OtherView
        } else if row.late {
            Fate::Late
        } else if judged.is_unpaired_server && row.view == Some(Side::Server) && self.is_client_covered(row) {
            // The client's node covered it and tells of no such connection: a told loss, not this edge's.
            Fate::Unpaired
        } else {
            Fate::Counted
        };
        Judgement { side: judged.side, fate, edge: Some(Arc::clone(&judged.edge)) }
    }
}

impl Pairing<'_> {
    fn is_client_covered(&self, row: &HistoryRow) -> bool {
        let ends = (row.client.ip(), row.server.ip());
        let began = row.started.unwrap_or(row.from);
        client_covered(&self.sources.names.read(), &self.covered, &row.node, ends, began, row.to)
    }
}

/// The names that every connection's ends keep from now on.
fn judge_all(sources: &Sources, selection: &Selection, question: &Question) -> HashMap<ConnectionId, Judged> {
    let inventory = sources.names.read();
    let naming = Naming { inventory: &inventory, question, settles: true };
    let mut table = EndTable::new(selection, naming);
    let mut ends: HashMap<EndId, Arc<SettledEnd>> = HashMap::new();
    let mut edges: HashMap<_, Arc<SettledEdge>> = HashMap::new();
    let mut judged: HashMap<ConnectionId, Judged> = HashMap::with_capacity(selection.subjects.len());
    for subject in selection.subjects.values() {
        let Some(verdict) = selection.verdicts.get(&subject.id) else { continue };
        let (client, server, port) = table.of(subject);
        let via = table.via(subject, server);
        let [client_end, server_end] = [client, server]
            .map(|id| Arc::clone(ends.entry(id).or_insert_with(|| Arc::new(settled::settle(table.get(id))))));
        let edge = edges.entry((client, server, port, via.clone(), verdict.certainty)).or_insert_with(|| {
            Arc::new(SettledEdge {
                client: client_end,
                server: server_end,
                port,
                service: via.service,
                service_certainty: via.certainty.map(|certainty| certainty.as_str().to_owned()),
                service_candidates: via.candidates,
                certainty: verdict.certainty.as_str().to_owned(),
            })
        });
        judged.insert(
            subject.id,
            Judged {
                side: verdict.side,
                is_counted_by_client: verdict.is_counted_by_client(),
                is_unpaired_server: verdict.is_unpaired_server(),
                edge: Arc::clone(edge),
            },
        );
    }
    // What the server's end sent again is of the edge that its client's view counts in.
    let other_views = selection.verdicts.iter().filter(|(_, verdict)| verdict.is_counted_by_client());
    for (id, verdict) in other_views {
        let edge = verdict.counterpart.and_then(|id| judged.get(&id)).map(|client| Arc::clone(&client.edge));
        if let (Some(edge), Some(server)) = (edge, judged.get_mut(id)) {
            server.edge = edge;
        }
    }
    judged
}
