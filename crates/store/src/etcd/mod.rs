//! The shared state in etcd: one key a row, compare-and-swap on the revision that was seen last, one owner by lease.
//!
//! ```text
//! PREFIX/schema                                          the rows' format
//! PREFIX/owner, PREFIX/epoch                             who may write                     (see `owner`)
//! PREFIX/transactions/IP-IP-PORT-PORT/ID                 JSON                              (see `shared::rows`)
//! PREFIX/metadata/IP/NODE/SOURCE/KIND/THING/FROM         JSON; `-` where there is no address
//! PREFIX/counters/NAME                                   a number
//! ```
//!
//! A write is one transaction of at most `BATCH_ROWS` keys: it compares the fencing token and each key's revision, puts
//! the merged rows, and where a comparison fails reads what is there instead, which is merged and tried again. A read goes
//! page by page at one revision, and begins anew where that is compacted meanwhile.

mod client;
mod messages;
mod owner;
mod value;

use crate::error::StoreError;
use crate::shared::rows::FORMAT;
use crate::shared::{Forgotten, SharedChanges, SharedRow, SharedState, Value};
use client::{Client, Failure, pause};
use messages::{
    CompactionRequest, Nothing, RangeRequest, RangeResponse, TxnRequest, TxnResponse, changed_at, created_at, delete,
    get, put,
};
use owner::Ownership;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use value::Row;

/// Keys of one transaction: etcd takes 128 operations unless told otherwise, and the owner's key is one of them.
const BATCH_ROWS: usize = 100;
/// Bytes of one transaction: etcd takes 1.5 MiB unless told otherwise; keys are named up to three times.
const BATCH_BYTES: usize = 1 << 20;
/// The largest row: a batch of these, read back after a conflict, is an answer that the client takes.
pub const ROW_BYTES_MAX: usize = 256 << 10;
/// Rows of a page: about 1 MB. Where they are larger than an answer may be, fewer are asked for.
const PAGE_ROWS: i64 = 1_000;
/// Conflicts in a row after which a write fails. Writers are threads of one process, so that each conflict is another's
/// success.
const CONFLICTS_MAX: u64 = 64;
/// Rows whose revision and value are kept, so that a row that changes again needs no read: about 30 MB.
const KNOWN_ROWS: usize = 30_000;
/// Readings begun anew because their revision was compacted.
const READINGS_MAX: u32 = 5;
/// Revisions older than so many calls of `tidy` (once a minute) are compacted; Kubernetes' API server keeps as much.
const TIDIES_KEPT: usize = 5;
/// What letting go may take, as part of a server's stop.
const RELEASE: Duration = Duration::from_secs(2);

/// The shortest lease: below it a busy machine loses it by itself.
pub const LEASE_MIN: Duration = Duration::from_secs(2);

/// How etcd is reached.
#[derive(Clone)]
pub struct Options {
    /// `https://HOST:PORT` or, on this machine, `http://`.
    pub endpoints: Vec<String>,
    /// What every key begins with: `/weir`. Without a slash at its end.
    pub prefix: String,
    /// Name and password.
    pub user: Option<(String, String)>,
    /// The certificates that vouch for etcd, PEM.
    pub ca: Option<Vec<u8>>,
    /// This client's certificate and key, PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// `http://` to other machines is allowed.
    pub insecure: bool,
    /// How long the owner may be silent; at least [`LEASE_MIN`], whole seconds.
    pub lease: Duration,
    /// Who this process is, for the one that is refused: `process 7 on node-a`.
    pub holder: String,
}

impl Options {
    fn place(&self) -> String {
        format!("etcd at {}, prefix {}", self.endpoints.join(","), self.prefix)
    }
}

/// Rows as this process saw them last: revision and value.
type Known = HashMap<Vec<u8>, (i64, Value)>;

struct Inner {
    client: Client,
    ownership: Ownership,
    prefix: String,
    known: Mutex<Known>,
    revisions: Mutex<VecDeque<i64>>,
    conflicts: AtomicU64,
    compactions: AtomicU64,
    renewals_failed: AtomicU64,
}

/// The open store. Its calls block and must not be made on an asynchronous task.
pub struct Etcd {
    inner: Arc<Inner>,
    runtime: Option<Runtime>,
    renewal: JoinHandle<()>,
}

impl std::fmt::Debug for Etcd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Etcd").field("place", &self.inner.client.place()).finish_non_exhaustive()
    }
}

impl Etcd {
    /// Becomes the owner of what lies under the prefix.
    ///
    /// # Errors
    /// [`StoreError::Owned`] when another process is it, [`StoreError::TooNew`] when a newer build wrote it,
    /// [`StoreError::Remote`] when etcd cannot be reached or lets this user not in.
    pub fn open(options: &Options) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("etcd")
            .enable_all()
            .build()
            .map_err(StoreError::io("start a thread for", options.place()))?;
        let inner = Arc::new(runtime.block_on(Inner::open(options))?);
        let renewing = Arc::clone(&inner);
        let every = options.lease / 3;
        let renewal = runtime.spawn(async move { renewing.keep_renewing(every).await });
        Ok(Self { inner, runtime: Some(runtime), renewal })
    }

    fn block<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        match &self.runtime {
            Some(runtime) => runtime.block_on(work),
            None => Err(StoreError::Lost { place: self.place(), holder: "nobody (this store is closed)".into() }),
        }
    }
}

impl Drop for Etcd {
    /// Lets go of the lease, so that the next owner need not wait for its end.
    fn drop(&mut self) {
        self.renewal.abort();
        let Some(runtime) = self.runtime.take() else { return };
        let inner = Arc::clone(&self.inner);
        // On a thread of its own: a runtime may not be waited for on another's task.
        let letting_go = std::thread::spawn(move || {
            let released = async { tokio::time::timeout(RELEASE, inner.ownership.release(&inner.client)).await };
            if runtime.block_on(released).is_err() {
                tracing::warn!(place = inner.client.place(), "etcd does not answer; the lease runs out by itself");
            }
            runtime.shutdown_background();
        });
        if letting_go.join().is_err() {
            tracing::warn!("letting go of etcd failed");
        }
    }
}

impl SharedState for Etcd {
    fn place(&self) -> String {
        self.inner.client.place().to_owned()
    }

    fn merge(&self, changes: &SharedChanges) -> Result<u64, StoreError> {
        self.block(self.inner.merge(changes))
    }

    fn forget(&self, rows: &Forgotten) -> Result<(), StoreError> {
        self.block(self.inner.forget(rows))
    }

    fn read(&self, visit: &mut dyn FnMut(SharedRow) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut at = Reading::default();
        loop {
            // Visitors may block: they are called between the pages, on the caller's thread.
            let (rows, more) = self.block(self.inner.page(&mut at))?;
            for row in rows {
                visit(row)?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn tidy(&self) -> Result<(), StoreError> {
        self.block(self.inner.tidy())
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        let inner = &self.inner;
        [
            ("etcd_conflicts", &inner.conflicts),
            ("etcd_retries", &inner.client.counts.retries),
            ("etcd_tokens", &inner.client.counts.tokens),
            ("etcd_compactions", &inner.compactions),
            ("etcd_renewals_failed", &inner.renewals_failed),
        ]
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count.load(Ordering::Relaxed)))
        .collect()
    }
}

const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";

/// Where a reading is.
#[derive(Default)]
struct Reading {
    /// 0: not begun.
    revision: i64,
    after: Vec<u8>,
    rows: Option<i64>,
    begun: u32,
}

impl Inner {
    async fn open(options: &Options) -> Result<Self, StoreError> {
        let client = Client::new(options)?;
        let prefix = options.prefix.trim_end_matches('/').to_owned();
        let schema = format!("{prefix}/schema").into_bytes();
        let action = "open";
        let request = RangeRequest { key: schema.clone(), ..RangeRequest::default() };
        let found: RangeResponse = client.call(action, RANGE, &request).await.map_err(client.unhandled(action))?;
        let written = format!("weir-state {FORMAT}");
        if let Some(found) = found.kvs.first()
            && found.value != written.as_bytes()
        {
            let path = String::from_utf8_lossy(&schema).into_owned().into();
            let found = String::from_utf8_lossy(&found.value).into_owned();
            return Err(StoreError::TooNew { path, found, known: FORMAT });
        }
        let ownership = Ownership::take(&client, &prefix, &options.holder, options.lease).await?;
        let inner = Self {
            client,
            ownership,
            prefix,
            known: Mutex::default(),
            revisions: Mutex::default(),
            conflicts: AtomicU64::new(0),
            compactions: AtomicU64::new(0),
            renewals_failed: AtomicU64::new(0),
        };
        if found.kvs.is_empty() {
            inner.guarded(vec![put(&schema, written.into_bytes(), 0)]).await?;
        }
        Ok(inner)
    }

    async fn keep_renewing(&self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            match self.ownership.renew(&self.client).await {
                Ok(()) => {}
                // The next write says so to whoever can end the process.
                Err(StoreError::Lost { .. }) => return,
                Err(error) => {
                    self.renewals_failed.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "the lease is not renewed; trying again");
                }
            }
        }
    }

    async fn merge(&self, changes: &SharedChanges) -> Result<u64, StoreError> {
        let (rows, too_large) = value::rows(&self.prefix, changes)?;
        // Sorted: two writers meet in the same order.
        let mut batch: BTreeMap<Vec<u8>, Value> = BTreeMap::new();
        let mut bytes = 0;
        for Row { key, value, bytes: size } in rows {
            let size = size + 3 * key.len();
            if batch.len() == BATCH_ROWS || (bytes + size > BATCH_BYTES && !batch.is_empty()) {
                self.write(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
            bytes += size;
            batch.insert(key, value);
        }
        if !batch.is_empty() {
            self.write(batch).await?;
        }
        Ok(too_large)
    }

    /// Merges rows into what is there.
    async fn write(&self, readings: BTreeMap<Vec<u8>, Value>) -> Result<(), StoreError> {
        let action = "write to";
        // Each row as it is believed to be: the revision seen last, what was there, what shall be there.
        let mut rows: BTreeMap<Vec<u8>, (i64, Value)> = {
            let known = self.known();
            readings
                .into_iter()
                .filter_map(|(key, reading)| match known.get(&key) {
                    Some((revision, stored)) => {
                        let merged = reading.merge(stored.clone());
                        (merged != *stored).then_some((key, (*revision, merged)))
                    }
                    None => Some((key, (0, reading))),
                })
                .collect()
        };
        for conflicts in 0..CONFLICTS_MAX {
            if rows.is_empty() {
                return Ok(());
            }
            let token = self.ownership.token(&self.client).await?;
            let mut request = TxnRequest {
                compare: vec![created_at(self.ownership.key(), token)],
                success: Vec::with_capacity(rows.len()),
                failure: vec![get(self.ownership.key())],
            };
            for (key, (revision, value)) in &rows {
                request.compare.push(changed_at(key, *revision));
                request.success.push(put(key, value.encode()?, 0));
                request.failure.push(get(key));
            }
            let answer: TxnResponse =
                self.client.call(action, TXN, &request).await.map_err(self.client.unhandled(action))?;
            if answer.succeeded {
                let revision = answer.revision();
                let mut known = self.known();
                if known.len() + rows.len() > KNOWN_ROWS {
                    known.clear();
                }
                known.extend(rows.into_iter().map(|(key, (_, value))| (key, (revision, value))));
                return Ok(());
            }
            let mut found = answer.found();
            if found.next().flatten().is_none_or(|owner| owner.create_revision != token) {
                self.ownership.settle(&self.client).await?;
                // Another may have owned it for a while only if this process lost it.
                continue;
            }
            let mut current = BTreeMap::new();
            for ((key, (_, value)), stored) in rows.into_iter().zip(found) {
                let Some(stored) = stored else {
                    current.insert(key, (0, value));
                    continue;
                };
                let there = value::decode(&self.prefix, &stored)?;
                let merged = value.merge(there.clone());
                if merged == there {
                    self.known().insert(key, (stored.mod_revision, there));
                } else {
                    current.insert(key, (stored.mod_revision, merged));
                }
            }
            rows = current;
            if conflicts > 0 {
                self.conflicts.fetch_add(1, Ordering::Relaxed);
                pause(2 * conflicts.min(20)).await;
            }
        }
        Err(StoreError::Remote {
            action,
            place: self.client.place().to_owned(),
            text: format!("{CONFLICTS_MAX} conflicts in a row; does something else write under this prefix?"),
        })
    }

    async fn forget(&self, rows: &Forgotten) -> Result<(), StoreError> {
        let mut keys: Vec<Vec<u8>> = value::keys(&self.prefix, rows).collect();
        keys.sort_unstable();
        for batch in keys.chunks(BATCH_ROWS) {
            self.guarded(batch.iter().map(|key| delete(key)).collect()).await?;
            let mut known = self.known();
            for key in batch {
                known.remove(key);
            }
        }
        Ok(())
    }

    /// Does these, if this process is the owner.
    async fn guarded(&self, operations: Vec<messages::RequestOp>) -> Result<(), StoreError> {
        let action = "write to";
        loop {
            let token = self.ownership.token(&self.client).await?;
            let request = TxnRequest {
                compare: vec![created_at(self.ownership.key(), token)],
                success: operations.clone(),
                failure: Vec::new(),
            };
            let answer: TxnResponse =
                self.client.call(action, TXN, &request).await.map_err(self.client.unhandled(action))?;
            if answer.succeeded {
                return Ok(());
            }
            self.ownership.settle(&self.client).await?;
        }
    }

    /// The next page, and whether there are more.
    async fn page(&self, at: &mut Reading) -> Result<(Vec<SharedRow>, bool), StoreError> {
        let action = "read";
        let first = format!("{}/", self.prefix).into_bytes();
        // The byte after the slash ends the range of all that begins with it.
        let range_end = format!("{}0", self.prefix).into_bytes();
        loop {
            if at.after.is_empty() {
                at.after.clone_from(&first);
                at.begun += 1;
            }
            let limit = at.rows.unwrap_or(PAGE_ROWS);
            let request =
                RangeRequest { key: at.after.clone(), range_end: range_end.clone(), limit, revision: at.revision };
            let page: RangeResponse = match self.client.call(action, RANGE, &request).await {
                Ok(page) => page,
                Err(Failure::Compacted) if at.begun < READINGS_MAX => {
                    (at.revision, at.after) = (0, Vec::new());
                    continue;
                }
                Err(Failure::AnswerTooLarge) if limit > 1 => {
                    at.rows = Some(limit / 2);
                    continue;
                }
                Err(failure) => return Err(self.client.unhandled(action)(failure)),
            };
            if at.revision == 0 {
                at.revision = page.header.as_ref().map_or(0, |header| header.revision);
            }
            if let Some(last) = page.kvs.last() {
                // The smallest key above it.
                at.after.clone_from(&last.key);
                at.after.push(0);
            }
            let mut rows = Vec::with_capacity(page.kvs.len());
            for stored in &page.kvs {
                if value::is_row(&self.prefix, &stored.key) {
                    rows.push(value::row(&self.prefix, stored)?);
                }
            }
            return Ok((rows, page.more));
        }
    }

    async fn tidy(&self) -> Result<(), StoreError> {
        let action = "compact";
        let request = RangeRequest { key: self.ownership.key().to_vec(), ..RangeRequest::default() };
        let now: RangeResponse =
            self.client.call(action, RANGE, &request).await.map_err(self.client.unhandled(action))?;
        let revision = {
            let mut revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
            revisions.push_back(now.header.as_ref().map_or(0, |header| header.revision));
            if revisions.len() <= TIDIES_KEPT {
                return Ok(());
            }
            revisions.pop_front().unwrap_or_default()
        };
        match self.client.call::<_, Nothing>(action, COMPACT, &CompactionRequest { revision }).await {
            Ok(_) => {
                self.compactions.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            // Someone else did.
            Err(Failure::Compacted) => Ok(()),
            Err(failure) => Err(self.client.unhandled(action)(failure)),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
