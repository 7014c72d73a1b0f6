//! Who may write: one process at a time, by one ConfigMap that its owner renews.
//!
//! The API server has no leases: nothing runs out by itself. An owner writes `PREFIX-owner` three times in its lease; who
//! wants to be the next watches it for a whole lease by its own clock, and takes it over, by compare-and-swap, where
//! nothing was written meanwhile. Then it writes over every ConfigMap, so that the version which the former owner read is
//! no longer the current one.
//!
//! What makes a former owner unable to write, however long it slept:
//!
//! - Over a ConfigMap that was there when its successor came it writes with a version that is old: 409. After every
//!   failure it reads again, looks who the owner is, and only then writes.
//! - A new ConfigMap is created empty, then it looks who the owner is, then rows are written. Where its successor came
//!   before the look, it sees that; where it came after it, the successor found the empty one and wrote over it.

use super::calls::{Calls, FAILURES_MAX, pause};
use super::shards::{FORMAT_KEY, format_of};
use crate::error::StoreError;
use crate::shared::rows::FORMAT;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::sync::Mutex;
use weir_discovery::kubernetes::config_maps::{ConfigMap, FailureKind};

/// How often a process that waits for a silent owner looks.
const LOOK: Duration = Duration::from_millis(500);
/// What a renewal may take on its way, beyond the lease.
const MARGIN: Duration = Duration::from_secs(1);
/// What a lease is taken for that cannot be read.
const LEASE_ELSE: Duration = Duration::from_secs(15);
const LEASE_MAX: Duration = Duration::from_secs(300);

const HOLDER: &str = "holder";
const NUMBER: &str = "number";
const LEASE: &str = "lease_seconds";
const RENEWED: &str = "renewed";

pub(super) struct Ownership {
    /// The object as it shall be while this process is the owner; only [`RENEWED`] changes.
    wanted: ConfigMap,
    number: String,
    /// The object as it was written or read last.
    seen: Mutex<ConfigMap>,
    lost: OnceLock<String>,
}

impl Ownership {
    /// Becomes the owner. Waits for an owner that renews no longer.
    ///
    /// # Errors
    /// [`StoreError::Owned`] when the owner lives, [`StoreError::TooNew`] when a newer build wrote it.
    pub(super) async fn take(
        calls: &Calls,
        name: &str,
        labels: &BTreeMap<String, String>,
        holder: &str,
        lease: Duration,
    ) -> Result<Self, StoreError> {
        let action = "own";
        let number = getrandom::u64().map_err(|error| calls.error(action, error))?;
        let number = format!("{number:016x}");
        let data = [
            (HOLDER, holder.to_owned()),
            (NUMBER, number.clone()),
            (LEASE, lease.as_secs().max(1).to_string()),
            (RENEWED, "0".to_owned()),
        ];
        let wanted = ConfigMap {
            name: name.to_owned(),
            labels: labels.clone(),
            annotations: BTreeMap::from([(FORMAT_KEY.to_owned(), FORMAT.to_string())]),
            data: data.map(|(key, value)| (key.to_owned(), value)).into(),
            ..ConfigMap::default()
        };
        let held = |seen: ConfigMap| Self {
            wanted: wanted.clone(),
            number: number.clone(),
            seen: Mutex::new(seen),
            lost: OnceLock::new(),
        };
        let mut before: Option<String> = None;
        let mut looked = Duration::ZERO;
        let mut failures = 0;
        loop {
            let found = calls.read(action, name).await?;
            let outcome = match found {
                None => calls.create(&wanted).await,
                Some(current) => {
                    format_of(&current)?;
                    // An earlier try went through without its answer.
                    if field(&current, NUMBER) == number {
                        return Ok(held(current));
                    }
                    let is_silent = before.is_some() && looked > lease_of(&current) + MARGIN;
                    let version = format!("{} {}", current.uid, current.version);
                    if before.as_ref().is_some_and(|before| *before != version) && !is_free(&current) {
                        let holder = holder_of(&current);
                        return Err(StoreError::Owned { place: calls.place().to_owned(), holder });
                    }
                    if !is_free(&current) && !is_silent {
                        if before.is_none() {
                            tracing::info!(
                                holder = holder_of(&current),
                                "watching whether the last owner still writes"
                            );
                        }
                        before = Some(version);
                        tokio::time::sleep(LOOK).await;
                        looked += LOOK;
                        continue;
                    }
                    calls.replace(&ConfigMap { uid: current.uid, version: current.version, ..wanted.clone() }).await
                }
            };
            match outcome {
                Ok(seen) => return Ok(held(seen)),
                // Another was faster, or this try was: the next look tells.
                Err(failure) if matches!(failure.kind, FailureKind::Conflict | FailureKind::Exists) => {}
                Err(failure) => {
                    failures += 1;
                    calls.bear(action, failures, failure).await?;
                }
            }
        }
    }

    /// What tells this owner from every other.
    pub(super) fn number(&self) -> &str {
        &self.number
    }

    /// Whether it is known already that another owns it.
    ///
    /// # Errors
    /// [`StoreError::Lost`].
    pub(super) fn check(&self, calls: &Calls) -> Result<(), StoreError> {
        match self.lost.get() {
            Some(holder) => Err(lost(calls, holder)),
            None => Ok(()),
        }
    }

    /// Looks who the owner is.
    ///
    /// # Errors
    /// [`StoreError::Lost`] when it is another, [`StoreError::Remote`] when nobody says.
    pub(super) async fn confirm(&self, calls: &Calls) -> Result<(), StoreError> {
        self.check(calls)?;
        let mut seen = self.seen.lock().await;
        self.look(calls, &mut seen).await
    }

    /// Writes that this process lives.
    ///
    /// # Errors
    /// As [`Ownership::confirm`].
    pub(super) async fn renew(&self, calls: &Calls) -> Result<(), StoreError> {
        self.check(calls)?;
        let mut seen = self.seen.lock().await;
        let renewed: u64 = field(&seen, RENEWED).parse().unwrap_or_default();
        let mut wanted = ConfigMap { uid: seen.uid.clone(), version: seen.version.clone(), ..self.wanted.clone() };
        wanted.data.insert(RENEWED.to_owned(), renewed.wrapping_add(1).to_string());
        match calls.replace(&wanted).await {
            Ok(written) => {
                *seen = written;
                Ok(())
            }
            Err(failure) if matches!(failure.kind, FailureKind::Conflict | FailureKind::Missing) => {
                self.look(calls, &mut seen).await
            }
            Err(failure) => Err(calls.error("renew the ownership of", failure.detail)),
        }
    }

    async fn look(&self, calls: &Calls, seen: &mut ConfigMap) -> Result<(), StoreError> {
        let action = "read the owner of";
        for failures in 1.. {
            match calls.read(action, &self.wanted.name).await? {
                Some(current) if field(&current, NUMBER) == self.number => {
                    *seen = current;
                    return Ok(());
                }
                Some(other) => {
                    let holder = holder_of(&other);
                    tracing::error!(place = calls.place(), holder, "another server owns the shared state");
                    let error = lost(calls, &holder);
                    let _ = self.lost.set(holder);
                    return Err(error);
                }
                // Somebody removed it: whoever creates it first is the owner.
                None => match calls.create(&self.wanted).await {
                    Ok(made) => {
                        *seen = made;
                        return Ok(());
                    }
                    Err(failure) if failure.kind == FailureKind::Exists && failures < FAILURES_MAX => {
                        pause(failures).await;
                    }
                    Err(failure) => calls.bear(action, failures, failure).await?,
                },
            }
        }
        Ok(())
    }

    /// Lets go, so that the next owner need not watch.
    pub(super) async fn release(&self, calls: &Calls) {
        let mut seen = self.seen.lock().await;
        for _ in 0..2 {
            if self.lost.get().is_some() {
                return;
            }
            let mut wanted = ConfigMap { uid: seen.uid.clone(), version: seen.version.clone(), ..self.wanted.clone() };
            wanted.data.insert(HOLDER.to_owned(), String::new());
            if calls.replace(&wanted).await.is_ok() {
                return;
            }
            // A renewal that was cut short may have been written.
            if let Err(error) = self.look(calls, &mut seen).await {
                tracing::debug!(%error, "could not look who the owner is");
            }
        }
        tracing::warn!(
            place = calls.place(),
            "could not let go of the shared state; the next owner watches for a lease"
        );
    }
}

fn lost(calls: &Calls, holder: &str) -> StoreError {
    StoreError::Lost { place: calls.place().to_owned(), holder: holder.to_owned() }
}

fn field<'a>(owner: &'a ConfigMap, name: &str) -> &'a str {
    owner.data.get(name).map_or("", String::as_str)
}

/// Whether its last owner let go.
fn is_free(owner: &ConfigMap) -> bool {
    owner.data.get(HOLDER).is_some_and(String::is_empty)
}

fn holder_of(owner: &ConfigMap) -> String {
    match field(owner, HOLDER) {
        "" if is_free(owner) => "a server that has let go since".to_owned(),
        "" => "something that is not weir".to_owned(),
        holder => holder.to_owned(),
    }
}

fn lease_of(owner: &ConfigMap) -> Duration {
    field(owner, LEASE).parse().map_or(LEASE_ELSE, Duration::from_secs).min(LEASE_MAX)
}
