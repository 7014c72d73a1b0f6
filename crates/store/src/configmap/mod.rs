//! The shared state in ConfigMaps: a node's rows in ConfigMaps of its own, each written only over what was read, by one
//! owner (see `owner`). Of the forms of keys and objects tells `keys`, of where rows lie `shards`.
//!
//! ```text
//! merge, forget ─▶ what this process knows of the group ─▶ plan ─▶ create, PUT, DELETE, each with version and UID
//!                        ▲ read again, and what is known merged into it ◀── 409, 404, 5xx, no answer ┘
//! ```
//!
//! The owner knows every row (`--configmap-bytes` at most), so that a write needs no read before it. What somebody else
//! wrote meanwhile is merged, and what somebody removed or overwrote is written again. A read lists everything at one
//! moment, and begins anew where that is compacted meanwhile.

mod calls;
mod keys;
mod owner;
mod shards;

use crate::error::StoreError;
use crate::shared::{Forgotten, Kind, SharedChanges, SharedRow, SharedState, Value};
use calls::{Calls, pause};
use keys::{Change, GroupKey};
use owner::Ownership;
use shards::{Group, NoPlan, Plan, Room, SHARDS_MAX, Shard, Step, bytes_of};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use weir_discovery::kubernetes::client::Access;
use weir_discovery::kubernetes::config_maps::{ConfigMap, Failure, FailureKind};
use weir_discovery::kubernetes::pace::Pace;

/// Up to so many bytes a ConfigMap takes new rows; at a fifth more (960 KiB) rows move. The API server takes 1 MiB of
/// values, and etcd 1.5 MiB with keys, quotes and managed fields.
const SHARD_BYTES: usize = 800 << 10;
/// Where the API server takes less than it should, shards become smaller, down to this: two of the largest rows.
const SHARD_BYTES_MIN: usize = 128 << 10;
/// The largest row.
pub const ROW_BYTES_MAX: usize = 60 << 10;
/// Conflicts in a row after which a write fails. One owner writes: each is something else's success.
const CONFLICTS_MAX: u32 = 32;
/// Readings begun anew because their moment was compacted.
const READINGS_MAX: u32 = 5;
/// What letting go may take, as part of a server's stop.
const RELEASE: Duration = Duration::from_secs(2);

/// The shortest lease: below it a busy API server lets it run out.
pub const LEASE_MIN: Duration = Duration::from_secs(2);
/// What all ConfigMaps may have unless told otherwise. Written every 10 s, and kept for the 5 to 10 minutes until the API
/// server compacts, they are 360 to 720 MiB of etcd, whose quota is 2 GiB.
pub const BYTES_MAX: u64 = 12 << 20;

/// How the API server is reached, and what lies there.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it is, and how to prove oneself there.
    pub access: Access,
    /// How fast requests may follow each other.
    pub pace: Arc<Pace>,
    /// Where the ConfigMaps are.
    pub namespace: String,
    /// What their names begin with: a DNS label of at most 40 bytes.
    pub prefix: String,
    /// What all rows may take, bytes: keys twice, values once.
    pub bytes_max: u64,
    /// How long the owner may be silent; at least [`LEASE_MIN`], whole seconds.
    pub lease: Duration,
    /// Who this process is, for the one that is refused: `process 7 on node-a`.
    pub holder: String,
}

impl Options {
    fn place(&self) -> String {
        format!("ConfigMaps {}-* of namespace {} at {}", self.prefix, self.namespace, self.access.url)
    }
}

/// Every shard as this process knows it.
type Known = BTreeMap<GroupKey, Group>;

struct Inner {
    calls: Calls,
    ownership: Ownership,
    prefix: String,
    labels: BTreeMap<String, String>,
    bytes_max: usize,
    shard_bytes: AtomicUsize,
    renewals_failed: AtomicU64,
    /// For [`SharedState::counts`]: bytes and shards.
    size: (AtomicUsize, AtomicUsize),
}

/// The open store. Its calls block and must not be made on an asynchronous task.
pub struct ConfigMapState {
    inner: Arc<Inner>,
    known: Mutex<Known>,
    runtime: Option<Runtime>,
    renewal: JoinHandle<()>,
}

impl std::fmt::Debug for ConfigMapState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigMapState").field("place", &self.inner.calls.place()).finish_non_exhaustive()
    }
}

impl ConfigMapState {
    /// Becomes the owner of what lies under the prefix.
    ///
    /// # Errors
    /// [`StoreError::Owned`] when another process is it, [`StoreError::TooNew`] when a newer build wrote it,
    /// [`StoreError::Remote`] when a ConfigMap is none of weir's, or the API server cannot be reached or lets this process
    /// not in.
    pub fn open(options: &Options) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("configmaps")
            .enable_all()
            .build()
            .map_err(StoreError::io("start a thread for", options.place()))?;
        let (inner, known) = runtime.block_on(Inner::open(options))?;
        let inner = Arc::new(inner);
        let renewing = Arc::clone(&inner);
        let every = options.lease / 3;
        let renewal = runtime.spawn(async move { renewing.keep_renewing(every).await });
        Ok(Self { inner, known: Mutex::new(known), runtime: Some(runtime), renewal })
    }

    fn block<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        match &self.runtime {
            Some(runtime) => runtime.block_on(work),
            None => Err(StoreError::Lost { place: self.place(), holder: "nobody (this store is closed)".into() }),
        }
    }

    /// Writes the changes of each group; those of the first that fails, and of all after it, may be written in part.
    fn write(&self, changes: BTreeMap<GroupKey, Change>) -> Result<(), StoreError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = changes
            .into_iter()
            .try_for_each(|(key, change)| self.block(self.inner.write_group(&mut known, &key, change)));
        let bytes = known.values().map(bytes_of).sum();
        self.inner.size.0.store(bytes, Ordering::Relaxed);
        self.inner.size.1.store(known.values().map(BTreeMap::len).sum(), Ordering::Relaxed);
        outcome
    }
}

impl Drop for ConfigMapState {
    /// Lets go, so that the next owner need not watch for a whole lease.
    fn drop(&mut self) {
        self.renewal.abort();
        let Some(runtime) = self.runtime.take() else { return };
        let inner = Arc::clone(&self.inner);
        // On a thread of its own: a runtime may not be waited for on another's task.
        let letting_go = std::thread::spawn(move || {
            let released = async { tokio::time::timeout(RELEASE, inner.ownership.release(&inner.calls)).await };
            if runtime.block_on(released).is_err() {
                tracing::warn!(place = inner.calls.place(), "the API server does not answer; the next owner watches");
            }
            runtime.shutdown_background();
        });
        if letting_go.join().is_err() {
            tracing::warn!("letting go of the ConfigMaps failed");
        }
    }
}

impl SharedState for ConfigMapState {
    fn place(&self) -> String {
        self.inner.calls.place().to_owned()
    }

    fn merge(&self, changes: &SharedChanges) -> Result<u64, StoreError> {
        let (changes, too_large) = keys::changes(changes, ROW_BYTES_MAX)?;
        self.write(changes)?;
        Ok(too_large)
    }

    fn forget(&self, rows: &Forgotten) -> Result<(), StoreError> {
        let mut changes: BTreeMap<GroupKey, Change> = BTreeMap::new();
        for row in &rows.transactions {
            let group = changes.entry((Kind::Transactions, row.node.0.clone())).or_default();
            group.gone.insert(keys::transaction_key(row));
        }
        for row in &rows.facts {
            let group = changes.entry((Kind::Metadata, row.node.0.clone())).or_default();
            group.gone.insert(keys::fact_key(row));
        }
        self.write(changes)
    }

    fn read(&self, visit: &mut dyn FnMut(SharedRow) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut at = Reading::default();
        loop {
            // Visitors may block: they are called between the pages, on the caller's thread.
            let (maps, more) = self.block(self.inner.page(&mut at))?;
            for map in maps {
                let ((kind, _), _) = shards::place_of(&self.inner.prefix, &map)?;
                for value in shards::values(kind, &map) {
                    let (key, value) = value?;
                    visit(value.into_row(key))?;
                }
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Nothing has to be given back: what left is gone, and its ConfigMap with it. But a server that hardly writes learns
    /// here that it is no longer the owner.
    fn tidy(&self) -> Result<(), StoreError> {
        self.block(self.inner.ownership.confirm(&self.inner.calls))
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        let counts = &self.inner.calls.counts;
        let size = |size: &AtomicUsize| size.load(Ordering::Relaxed) as u64;
        [
            ("configmap_writes", counts.writes.load(Ordering::Relaxed)),
            ("configmap_conflicts", counts.conflicts.load(Ordering::Relaxed)),
            ("configmap_retries", counts.retries.load(Ordering::Relaxed)),
            ("configmap_rows_moved", counts.moved.load(Ordering::Relaxed)),
            ("configmap_renewals_failed", self.inner.renewals_failed.load(Ordering::Relaxed)),
            ("configmap_bytes", size(&self.inner.size.0)),
            ("configmap_shards", size(&self.inner.size.1)),
        ]
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
    }
}

/// Where a reading is.
#[derive(Default)]
struct Reading {
    next: Option<String>,
    begun: u32,
}

impl Inner {
    async fn open(options: &Options) -> Result<(Self, Known), StoreError> {
        let calls = Calls::new(options)?;
        let prefix = options.prefix.clone();
        let labels: BTreeMap<String, String> =
            [("app.kubernetes.io/managed-by", "weir"), (STATE_LABEL, prefix.as_str())]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        let name = owner_name(&prefix);
        let ownership = Ownership::take(&calls, &name, &labels, &options.holder, options.lease).await?;
        let inner = Self {
            calls,
            ownership,
            prefix,
            labels,
            bytes_max: usize::try_from(options.bytes_max).unwrap_or(usize::MAX),
            shard_bytes: AtomicUsize::new(SHARD_BYTES),
            renewals_failed: AtomicU64::new(0),
            size: <(AtomicUsize, AtomicUsize)>::default(),
        };
        match inner.take_over().await {
            Ok(known) => Ok((inner, known)),
            Err(error) => {
                // Whoever tries next need not watch.
                inner.ownership.release(&inner.calls).await;
                Err(error)
            }
        }
    }

    /// Reads every shard and writes over it, so that whoever owned it before cannot.
    async fn take_over(&self) -> Result<Known, StoreError> {
        let mut known = Known::new();
        let mut at = Reading::default();
        loop {
            let (maps, more) = self.page(&mut at).await?;
            for map in maps {
                let (key, number) = shards::place_of(&self.prefix, &map)?;
                if let Some(shard) = self.claim(&key, map).await? {
                    known.entry(key).or_default().insert(number, shard);
                }
            }
            if !more {
                break;
            }
        }
        // What a crash in the middle of a move left twice.
        let twice: Vec<(GroupKey, Change)> = known
            .iter()
            .map(|(key, group)| Ok((key.clone(), twice(key.0, group)?)))
            .collect::<Result<_, StoreError>>()?;
        for (key, change) in twice {
            self.write_group(&mut known, &key, change).await?;
        }
        Ok(known)
    }

    /// Writes over a shard of a former owner; `None`: it was empty, or is gone.
    async fn claim(&self, key: &GroupKey, mut map: ConfigMap) -> Result<Option<Shard>, StoreError> {
        let action = "take over";
        let (mut failures, mut conflicts) = (0, 0);
        loop {
            shards::values(key.0, &map).try_for_each(|value| value.map(drop))?;
            let outcome = if map.data.is_empty() {
                self.calls.delete(&map).await.map(|()| None)
            } else {
                map.annotations.insert(shards::OWNER_KEY.to_owned(), self.ownership.number().to_owned());
                self.calls.replace(&map).await.map(Some)
            };
            match outcome {
                Ok(written) => return Ok(written.map(|map| Shard::new(map, false))),
                Err(failure) => self.weigh(action, failure, &mut failures, &mut conflicts).await?,
            }
            let Some(again) = self.calls.read(action, &map.name).await? else { return Ok(None) };
            self.ownership.confirm(&self.calls).await?;
            map = again;
        }
    }

    /// After a failed write: a pause, or the error where trying again does not help, or not any more.
    async fn weigh(
        &self,
        action: &'static str,
        failure: Failure,
        failures: &mut u32,
        conflicts: &mut u32,
    ) -> Result<(), StoreError> {
        if !matches!(failure.kind, FailureKind::Conflict | FailureKind::Exists | FailureKind::Missing) {
            *failures += 1;
            return self.calls.bear(action, *failures, failure).await;
        }
        *conflicts += 1;
        if *conflicts >= CONFLICTS_MAX {
            let text =
                format!("{CONFLICTS_MAX} conflicts in a row, at last: {}; what else writes there?", failure.detail);
            return Err(self.calls.error(action, text));
        }
        pause(*conflicts).await;
        Ok(())
    }

    async fn keep_renewing(&self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            match self.ownership.renew(&self.calls).await {
                Ok(()) => {}
                // The next write says so to whoever can end the process.
                Err(StoreError::Lost { .. }) => return,
                Err(error) => {
                    self.renewals_failed.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "the ownership is not renewed; trying again");
                }
            }
        }
    }

    async fn write_group(&self, known: &mut Known, key: &GroupKey, mut change: Change) -> Result<(), StoreError> {
        let (mut failures, mut conflicts) = (0, 0);
        let others: usize = known.iter().filter(|(other, _)| *other != key).map(|(_, group)| bytes_of(group)).sum();
        let group = known.entry(key.clone()).or_default();
        let outcome = loop {
            if let Err(error) = self.ownership.check(&self.calls) {
                break Err(error);
            }
            let room =
                Room { shard: self.shard_bytes.load(Ordering::Relaxed), group: self.bytes_max.saturating_sub(others) };
            let Plan { steps, moved } = match shards::plan(key.0, group, &change, room) {
                Ok(plan) => plan,
                Err(no_plan) => break Err(self.refusal(key, no_plan, others + bytes_of(group))),
            };
            let Some((number, failure)) = self.take_steps(group, key, steps).await else {
                self.calls.counts.moved.fetch_add(moved, Ordering::Relaxed);
                break Ok(());
            };
            if let Err(error) =
                self.mend(group, key, number, &mut change, failure, (&mut failures, &mut conflicts)).await
            {
                break Err(error);
            }
        };
        if group.is_empty() {
            known.remove(key);
        }
        outcome
    }

    /// Writes step by step; the shard and the reason where one fails.
    async fn take_steps(&self, group: &mut Group, key: &GroupKey, steps: Vec<Step>) -> Option<(u32, Failure)> {
        for step in steps {
            let number = step.shard;
            if let Err(failure) = self.take_step(group, key, step).await {
                return Some((number, failure));
            }
        }
        None
    }

    async fn take_step(&self, group: &mut Group, key: &GroupKey, step: Step) -> Result<(), Failure> {
        let number = step.shard;
        let shard = match group.entry(number) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(none) => {
                let wanted = shards::empty(&self.prefix, key, number, &self.labels, self.ownership.number());
                none.insert(Shard::new(self.calls.create(&wanted).await?, true))
            }
        };
        if shard.is_new {
            // Without an answer nothing is written; whether it is lost, the next try says first.
            self.ownership
                .confirm(&self.calls)
                .await
                .map_err(|error| Failure { kind: FailureKind::Unknown, detail: error.to_string() })?;
        }
        let data = step.data(&shard.map);
        if data.is_empty() {
            self.calls.delete(&shard.map).await?;
            group.remove(&number);
            return Ok(());
        }
        let mut wanted = ConfigMap { data, ..shard.map.clone() };
        wanted.annotations.insert(shards::OWNER_KEY.to_owned(), self.ownership.number().to_owned());
        let written = self.calls.replace(&wanted).await?;
        *shard = Shard::new(written, false);
        Ok(())
    }

    /// After a failed step: what there is to know before the next try.
    async fn mend(
        &self,
        group: &mut Group,
        key: &GroupKey,
        number: u32,
        change: &mut Change,
        failure: Failure,
        (failures, conflicts): (&mut u32, &mut u32),
    ) -> Result<(), StoreError> {
        let action = "write to";
        self.ownership.check(&self.calls)?;
        match failure.kind {
            FailureKind::TooLarge => return self.make_smaller(failure),
            // Nothing was done.
            FailureKind::Busy => return self.weigh(action, failure, failures, conflicts).await,
            // It is the namespace that is missing.
            FailureKind::Missing if !group.contains_key(&number) => {
                return Err(self.calls.error(action, failure.detail));
            }
            _ => self.weigh(action, failure, failures, conflicts).await?,
        }
        let name = keys::object_name(&self.prefix, key, number);
        let found = self.calls.read(action, &name).await?;
        // Only whoever is the owner after it was read may write over it.
        self.ownership.confirm(&self.calls).await?;
        let found = match found {
            Some(map) => {
                let place = shards::place_of(&self.prefix, &map)?;
                if place != (key.clone(), number) {
                    return Err(self.calls.error(action, format!("{name} is another node's; delete it")));
                }
                shards::values(key.0, &map).try_for_each(|value| value.map(drop))?;
                Some(Shard::new(map, false))
            }
            None => None,
        };
        // What this process knows is merged into what is there now: somebody may have overwritten or deleted it.
        if let Some(before) = group.remove(&number) {
            let now = found.as_ref().map(|shard| &shard.map.data);
            for (row, text) in &before.map.data {
                if now.and_then(|now| now.get(row)) != Some(text) && !change.gone.contains(row) {
                    change.put(row.clone(), Value::decode(key.0, text.as_bytes())?);
                }
            }
        }
        group.extend(found.map(|shard| (number, shard)));
        Ok(())
    }

    /// The API server, or something before it, takes less than 800 KiB.
    fn make_smaller(&self, failure: Failure) -> Result<(), StoreError> {
        let now = self.shard_bytes.load(Ordering::Relaxed);
        if now <= SHARD_BYTES_MIN {
            return Err(self.calls.error("write to", failure.detail));
        }
        let bytes = (now / 2).max(SHARD_BYTES_MIN);
        tracing::warn!(
            bytes,
            reason = failure.detail,
            "a ConfigMap was too large; smaller ones are written from now on"
        );
        self.shard_bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn refusal(&self, (kind, node): &GroupKey, no_plan: NoPlan, bytes: usize) -> StoreError {
        let advice = "nothing acknowledged is lost, it waits in the log; keep the state in etcd (--state etcd), or in the \
                      data folder alone (--state embedded)";
        let kib = |bytes: usize| bytes.div_ceil(1024);
        match no_plan {
            NoPlan::Broken(error) => error,
            NoPlan::Full => self.calls.error(
                "write to",
                format!(
                    "with these rows they would outgrow the {} KiB that they may have (--configmap-bytes; they have {} KiB): \
                     {advice}",
                    kib(self.bytes_max),
                    kib(bytes)
                ),
            ),
            NoPlan::NodeFull => self.calls.error(
                "write to",
                format!(
                    "the {} of node {node} outgrow {SHARDS_MAX} ConfigMaps of {} KiB: {advice}",
                    keys::word(*kind),
                    kib(self.shard_bytes.load(Ordering::Relaxed))
                ),
            ),
        }
    }

    /// The next page of shards, and whether there are more.
    async fn page(&self, at: &mut Reading) -> Result<(Vec<ConfigMap>, bool), StoreError> {
        let labels = format!("{STATE_LABEL}={}", self.prefix);
        loop {
            if at.next.is_none() {
                at.begun += 1;
            }
            let Some(page) = self.calls.page(&labels, at.next.as_deref()).await? else {
                if at.begun >= READINGS_MAX {
                    return Err(self
                        .calls
                        .error("read", format!("{READINGS_MAX} lists in a row were too old to go on")));
                }
                at.next = None;
                continue;
            };
            let owner = owner_name(&self.prefix);
            at.next = page.next;
            return Ok((page.items.into_iter().filter(|map| map.name != owner).collect(), at.next.is_some()));
        }
    }
}

/// The label by which the ConfigMaps of a prefix are found.
const STATE_LABEL: &str = "weir/state";

fn owner_name(prefix: &str) -> String {
    format!("{prefix}-owner")
}

/// The rows that lie in more than one shard, each as one of them has it.
fn twice(kind: Kind, group: &Group) -> Result<Change, StoreError> {
    let mut change = Change::default();
    for (number, shard) in group {
        let others = |key: &str| group.iter().any(|(other, shard)| other > number && shard.map.data.contains_key(key));
        for (key, text) in shard.map.data.iter().filter(|(key, _)| others(key)) {
            change.put(key.clone(), Value::decode(kind, text.as_bytes())?);
        }
    }
    Ok(change)
}
