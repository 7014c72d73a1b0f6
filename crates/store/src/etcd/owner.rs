//! Who may write: the key `owner`, held by a lease. Its creation revision is the fencing token that every write compares, so
//! that a process that slept through its lease cannot write, whatever it believes.
//!
//! The key `epoch` is written by every process that becomes the owner and has no lease: a process whose lease ran out, while
//! etcd could not be reached, becomes the owner again only if nobody was it in between.

use super::client::Client;
use super::messages::{
    KeyValue, LeaseGrantRequest, LeaseRequest, LeaseResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
    changed_at, created_at, get, put,
};
use crate::error::StoreError;
use std::time::Duration;
use tokio::sync::Mutex;

const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
/// How often a process that waits for a dead owner's lease looks.
const LOOK: Duration = Duration::from_millis(500);
/// How long after its end etcd may still have a lease: it looks twice a second, and revokes through its log.
const EXPIRY: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    lease: i64,
    /// The fencing token.
    pub(super) token: i64,
    epoch: i64,
}

#[derive(Debug)]
enum State {
    Held(Held),
    Lost(String),
}

#[derive(Debug)]
pub(super) struct Ownership {
    owner: Vec<u8>,
    epoch: Vec<u8>,
    /// What is written: who it is, and a number that tells it from a namesake.
    value: Vec<u8>,
    ttl: i64,
    state: Mutex<State>,
}

impl Ownership {
    /// Becomes the owner. Waits for the lease of an owner that no longer renews it.
    ///
    /// # Errors
    /// [`StoreError::Owned`] when the owner lives.
    pub(super) async fn take(client: &Client, prefix: &str, holder: &str, lease: Duration) -> Result<Self, StoreError> {
        let number = getrandom::u64().map_err(|error| StoreError::Remote {
            action: "own",
            place: client.place().to_owned(),
            text: error.to_string(),
        })?;
        let value = serde_json::json!({ "holder": holder, "number": number.to_string() }).to_string().into_bytes();
        let mut ownership = Self {
            owner: format!("{prefix}/owner").into_bytes(),
            epoch: format!("{prefix}/epoch").into_bytes(),
            value,
            ttl: lease.as_secs().max(1) as i64,
            state: Mutex::new(State::Lost(String::new())),
        };
        let mut before: Option<(i64, i64)> = None;
        let mut looked = Duration::ZERO;
        loop {
            let Some(other) = ownership.current(client).await? else {
                if let Some(held) = ownership.create(client, None).await? {
                    ownership.state = Mutex::new(State::Held(held));
                    return Ok(ownership);
                }
                continue;
            };
            let lease = ownership.time_to_live(client, other.lease).await?;
            let left = lease.ttl;
            // A lease that is renewed or should long have ended, or another owner than a moment ago: it lives.
            let renewed = looked > Duration::from_secs(lease.granted.max(0) as u64) + EXPIRY;
            if before.is_some_and(|(created, least)| created != other.create_revision || left > least || renewed) {
                return Err(StoreError::Owned { place: client.place().to_owned(), holder: holder_of(&other) });
            }
            if before.is_none() {
                tracing::info!(holder = holder_of(&other), seconds = left, "waiting for the lease of the last owner");
            }
            before = Some((other.create_revision, left));
            tokio::time::sleep(LOOK).await;
            looked += LOOK;
        }
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.owner
    }

    /// The fencing token.
    ///
    /// # Errors
    /// [`StoreError::Lost`].
    pub(super) async fn token(&self, client: &Client) -> Result<i64, StoreError> {
        match &*self.state.lock().await {
            State::Held(held) => Ok(held.token),
            State::Lost(holder) => Err(lost(client, holder)),
        }
    }

    /// Renews the lease, and becomes the owner again where it ran out and nobody else was it.
    ///
    /// # Errors
    /// [`StoreError::Lost`], or etcd does not answer.
    pub(super) async fn renew(&self, client: &Client) -> Result<(), StoreError> {
        let lease = match &*self.state.lock().await {
            State::Held(held) => held.lease,
            State::Lost(holder) => return Err(lost(client, holder)),
        };
        let action = "renew the lease at";
        let answer: LeaseResponse =
            client.call(action, KEEP_ALIVE, &LeaseRequest { id: lease }).await.map_err(client.unhandled(action))?;
        if answer.ttl > 0 { Ok(()) } else { self.settle(client).await.map(|_| ()) }
    }

    /// Who the owner is now that a write was fenced off: this process again, with its token, or another.
    ///
    /// # Errors
    /// As [`Ownership::renew`].
    pub(super) async fn settle(&self, client: &Client) -> Result<i64, StoreError> {
        let mut state = self.state.lock().await;
        let held = match &*state {
            State::Held(held) => *held,
            State::Lost(holder) => return Err(lost(client, holder)),
        };
        let holder = match self.current(client).await? {
            Some(current) if current.value == self.value => {
                *state = State::Held(Held { lease: current.lease, token: current.create_revision, ..held });
                return Ok(current.create_revision);
            }
            Some(other) => holder_of(&other),
            None => match self.create(client, Some(held.epoch)).await? {
                Some(held) => {
                    tracing::warn!(place = client.place(), "the lease had run out; nobody else took it");
                    *state = State::Held(held);
                    return Ok(held.token);
                }
                None => {
                    self.current(client).await?.map_or_else(|| "another server".to_owned(), |other| holder_of(&other))
                }
            },
        };
        tracing::error!(place = client.place(), holder, "another server owns the shared state");
        let error = lost(client, &holder);
        *state = State::Lost(holder);
        Err(error)
    }

    /// Lets go.
    pub(super) async fn release(&self, client: &Client) {
        let mut state = self.state.lock().await;
        if let State::Held(held) = &*state {
            let revoked: Result<LeaseResponse, _> =
                client.call("release", REVOKE, &LeaseRequest { id: held.lease }).await;
            if revoked.is_err() {
                tracing::warn!(place = client.place(), "could not revoke the lease; it runs out by itself");
            }
            *state = State::Lost("nobody (this server let go)".into());
        }
    }

    async fn current(&self, client: &Client) -> Result<Option<KeyValue>, StoreError> {
        let action = "read the owner of";
        let request = RangeRequest { key: self.owner.clone(), ..RangeRequest::default() };
        let found: RangeResponse = client.call(action, RANGE, &request).await.map_err(client.unhandled(action))?;
        Ok(found.kvs.into_iter().next())
    }

    /// Creates the key if nobody has; with `epoch`, if also nobody had since then.
    async fn create(&self, client: &Client, epoch: Option<i64>) -> Result<Option<Held>, StoreError> {
        let action = "own";
        let granted: LeaseResponse =
            client.call(action, GRANT, &LeaseGrantRequest { ttl: self.ttl }).await.map_err(client.unhandled(action))?;
        let mut compare = vec![created_at(&self.owner, 0)];
        compare.extend(epoch.map(|epoch| changed_at(&self.epoch, epoch)));
        let request = TxnRequest {
            compare,
            success: vec![put(&self.owner, self.value.clone(), granted.id), put(&self.epoch, self.value.clone(), 0)],
            failure: vec![get(&self.owner), get(&self.epoch)],
        };
        let answer: TxnResponse = client.call(action, TXN, &request).await.map_err(client.unhandled(action))?;
        if answer.succeeded {
            let revision = answer.revision();
            return Ok(Some(Held { lease: granted.id, token: revision, epoch: revision }));
        }
        let mut found = answer.found();
        // A first try may have been carried out without its answer.
        let own = found.next().flatten().filter(|owner| owner.value == self.value);
        let epoch = found.next().flatten().map_or(0, |epoch| epoch.mod_revision);
        let held = own.map(|owner| Held { lease: owner.lease, token: owner.create_revision, epoch });
        if held.is_none_or(|held| held.lease != granted.id) {
            let _: Result<LeaseResponse, _> = client.call(action, REVOKE, &LeaseRequest { id: granted.id }).await;
        }
        Ok(held)
    }

    async fn time_to_live(&self, client: &Client, lease: i64) -> Result<LeaseResponse, StoreError> {
        let action = "read the owner's lease of";
        client.call(action, TIME_TO_LIVE, &LeaseRequest { id: lease }).await.map_err(client.unhandled(action))
    }
}

fn lost(client: &Client, holder: &str) -> StoreError {
    StoreError::Lost { place: client.place().to_owned(), holder: holder.to_owned() }
}

fn holder_of(owner: &KeyValue) -> String {
    let value: Option<serde_json::Value> = serde_json::from_slice(&owner.value).ok();
    value
        .and_then(|value| value.get("holder").and_then(serde_json::Value::as_str).map(str::to_owned))
        .unwrap_or_else(|| "something that is not weir".to_owned())
}
