//! Care of a data folder for the command line: checking, exporting, copying, and compacting while no server runs.

use crate::compact;
use crate::counts::Counts;
use crate::server::{Opened, open};
use crate::state::Place;
use crate::tiers::Tiers;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use weir_daemon::clock::SystemClock;
use weir_store::embedded::{self, Folder};

pub use crate::args::NamedNetwork;
pub use crate::compact::Total;
pub use weir_model::UnixNanos;
pub use weir_store::embedded::{BackedUp, Checked, Exported, Finding, Form};

#[expect(clippy::needless_pass_by_value, reason = "map_err gives it away")]
fn failed(error: weir_store::StoreError) -> anyhow::Error {
    anyhow::anyhow!("failed to {error}")
}

/// See [`weir_store::embedded::check`].
///
/// # Errors
/// When a server holds the folder, or it is none.
pub fn check(data: &Path) -> anyhow::Result<Checked> {
    embedded::check(data).map_err(failed)
}

/// See [`weir_store::embedded::export`].
///
/// # Errors
/// When a server holds the folder, or something cannot be read or written.
pub fn export(
    data: &Path,
    which: Exported,
    since: UnixNanos,
    until: UnixNanos,
    form: Form,
    out: &mut (dyn std::io::Write + Send),
) -> anyhow::Result<u64> {
    embedded::export(data, which, since, until, form, out).map_err(failed)
}

/// See [`weir_store::embedded::backup`].
///
/// # Errors
/// When `to` exists, or something cannot be read or written.
pub fn backup(data: &Path, to: &Path) -> anyhow::Result<BackedUp> {
    embedded::backup(data, to).map_err(failed)
}

/// Replays the log as a start does, settles what is older than the lateness horizon, and, where durations are given,
/// sums up what is older than those. What is settled keeps the names that it has then, those of `networks` too.
///
/// # Errors
/// When a server holds the folder, or something cannot be read or written.
pub fn compact(
    data: &Path,
    networks: &[NamedNetwork],
    minutes: Option<Duration>,
    hours: Option<Duration>,
) -> anyhow::Result<Total> {
    drop(Folder::open_existing(data).map_err(failed)?);
    let tiers = Tiers { minutes_after: minutes, hours_after: hours, retain: Duration::MAX, bytes_max: [u64::MAX; 3] };
    let (clock, counts) = (Arc::new(SystemClock::new()), Arc::new(Counts::default()));
    let Opened { applier, sources } = open(data, networks, &Place::Folder, tiers, clock, counts)?;
    applier.flush.write().map_err(failed)?;
    let due = tiers.due(sources.clock.wall());
    compact::steps(&sources, &due, &|| false).map_err(failed)
}
