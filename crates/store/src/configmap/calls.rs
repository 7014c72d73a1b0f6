//! Calls of the API server with a deadline, patience, and errors that say what to do.

use super::Options;
use crate::error::StoreError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use weir_discovery::kubernetes::config_maps::{ConfigMap, ConfigMaps, Failure, FailureKind, Page};

/// One call, the wait that a `Retry-After` asks for included. A page of 4 MB takes a second or two.
const CALL: Duration = Duration::from_secs(15);
/// Calls in a row without an answer after which whoever asked is told: a minute at most.
pub(super) const FAILURES_MAX: u32 = 4;
/// The first pause after a failure, at most; each next one may be twice as long, up to [`PAUSE_MS_MAX`].
const PAUSE_MS: u64 = 50;
const PAUSE_MS_MAX: u64 = 2_000;

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Writes that were done.
    pub(super) writes: AtomicU64,
    /// Writes that met another version than the one that was read.
    pub(super) conflicts: AtomicU64,
    /// Calls that were not answered, or refused for now, and made again.
    pub(super) retries: AtomicU64,
    /// Rows moved from a ConfigMap that had become too large.
    pub(super) moved: AtomicU64,
}

/// The ConfigMaps of one namespace.
pub(super) struct Calls {
    maps: ConfigMaps,
    place: String,
    pub(super) counts: Counts,
}

impl Calls {
    /// Must be called within a runtime.
    ///
    /// # Errors
    /// When there can be no client: a wrong address, an unreadable CA.
    pub(super) fn new(options: &Options) -> Result<Self, StoreError> {
        let place = options.place();
        let wrong = |error: &dyn std::fmt::Display| StoreError::Remote {
            action: "use",
            place: place.clone(),
            text: error.to_string(),
        };
        options.access.check().map_err(|error| wrong(&error))?;
        let client = options.access.client(&options.pace).map_err(|error| wrong(&error))?;
        let maps = ConfigMaps::new(client, &options.namespace);
        Ok(Self { maps, place, counts: Counts::default() })
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn error(&self, action: &'static str, text: impl std::fmt::Display) -> StoreError {
        StoreError::Remote { action, place: self.place.clone(), text: text.to_string() }
    }

    /// One, read with patience.
    ///
    /// # Errors
    /// [`StoreError::Remote`].
    pub(super) async fn read(&self, action: &'static str, name: &str) -> Result<Option<ConfigMap>, StoreError> {
        for failures in 1.. {
            match self.bounded(self.maps.get(name)).await {
                Ok(found) => return Ok(found),
                Err(failure) => self.bear(action, failures, failure).await?,
            }
        }
        Ok(None)
    }

    /// A page of those with `labels`, read with patience; `None`: its moment is gone.
    ///
    /// # Errors
    /// [`StoreError::Remote`].
    pub(super) async fn page(&self, labels: &str, page: Option<&str>) -> Result<Option<Page>, StoreError> {
        for failures in 1.. {
            match self.bounded(self.maps.list(labels, page)).await {
                Ok(found) => return Ok(Some(found)),
                Err(failure) if failure.kind == FailureKind::Expired => return Ok(None),
                Err(failure) => self.bear("read", failures, failure).await?,
            }
        }
        Ok(None)
    }

    /// Makes a new one.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn create(&self, wanted: &ConfigMap) -> Result<ConfigMap, Failure> {
        self.written(self.bounded(self.maps.create(wanted)).await)
    }

    /// Writes over what was read.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn replace(&self, wanted: &ConfigMap) -> Result<ConfigMap, Failure> {
        self.written(self.bounded(self.maps.replace(wanted)).await)
    }

    /// Deletes what was read.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn delete(&self, seen: &ConfigMap) -> Result<(), Failure> {
        self.written(self.bounded(self.maps.delete(seen)).await)
    }

    /// After the `failures`th failure in a row: a pause, or the error where trying again helps nobody, or not any more.
    ///
    /// # Errors
    /// [`StoreError::Remote`].
    pub(super) async fn bear(&self, action: &'static str, failures: u32, failure: Failure) -> Result<(), StoreError> {
        let helps = matches!(failure.kind, FailureKind::Unknown | FailureKind::Busy);
        if !helps || failures >= FAILURES_MAX {
            return Err(self.error(action, failure.detail));
        }
        self.counts.retries.fetch_add(1, Ordering::Relaxed);
        pause(failures).await;
        Ok(())
    }

    fn written<T>(&self, outcome: Result<T, Failure>) -> Result<T, Failure> {
        match &outcome {
            Ok(_) => self.counts.writes.fetch_add(1, Ordering::Relaxed),
            Err(failure) if matches!(failure.kind, FailureKind::Conflict | FailureKind::Exists) => {
                self.counts.conflicts.fetch_add(1, Ordering::Relaxed)
            }
            Err(_) => 0,
        };
        outcome
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::time::timeout(CALL, call).await.unwrap_or_else(|_elapsed| {
            let detail = format!("call the API server: it did not answer within {} s", CALL.as_secs());
            Err(Failure { kind: FailureKind::Unknown, detail })
        })
    }
}

/// A random pause after the `tries`th try, so that two writers do not meet again.
pub(super) async fn pause(tries: u32) {
    let most = (PAUSE_MS << tries.saturating_sub(1).min(10)).min(PAUSE_MS_MAX);
    let random = getrandom::u64().unwrap_or(most / 2);
    tokio::time::sleep(Duration::from_millis(random % (most + 1))).await;
}
