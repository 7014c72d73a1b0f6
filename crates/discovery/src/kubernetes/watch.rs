//! One kind, listed and watched without end, by kube's watcher.
//!
//! It lists in pages, from the newest state (never from an API server's older cache: names must not go back in time), and
//! watches from there with bookmarks; a watch that ends is taken up where it stood, one that is too old (410) begins
//! anew with a list. It never asks for a streamed list, which API servers on etcd 3.4 refuse. Failures make it wait,
//! longer each time, with jitter.

use super::client::api_resource;
use super::objects::{Thing, Watched};
use crate::collect::Collect;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde_json::Value;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long one watch is asked to last, in seconds. One that is silent five seconds longer is dead, and taken up anew:
/// a connection that broke without a word costs so much lateness at most. Six requests a minute cost an API server nothing.
const WATCH_S: u32 = 60;
/// The first wait after a failure.
const WAIT_MIN: Duration = Duration::from_millis(500);
/// The longest.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// So long without a failure, and the next wait is short again. Longer than the longest wait with its list behind it.
const FORGIVEN: Duration = Duration::from_secs(120);

/// What happens in a watch.
#[derive(Debug)]
pub enum Heard {
    /// A list begins.
    Listing,
    /// An object in it.
    Listed(Thing),
    /// The list is complete: what was not in it is gone.
    Complete,
    /// An object came, or changed.
    Changed(Thing),
    /// The object with this [`Thing::key`] is gone.
    Gone(String),
    /// An object whose fields are not of Kubernetes' types. It is as if it was not there.
    Strange {
        /// Its namespace and name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// It does not work; it is tried again.
    Failed(Failure),
}

/// Why a list or a watch failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How.
    pub kind: FailureKind,
    /// What failed and how to mend it.
    pub detail: String,
}

/// How a list or a watch failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The version is too old: a list follows. It happens; nothing is to be mended.
    Expired,
    /// We are not let in: 401 or 403.
    Refused,
    /// The API server asks for patience (429).
    Busy,
    /// It cannot be reached, or breaks off.
    Unreachable,
    /// It failed itself (5xx), or says what cannot be understood.
    Failed,
}

/// The watch of one kind.
pub struct Watch {
    watched: &'static Watched,
    collect: Arc<Collect>,
    events: BoxStream<'static, watcher::Result<Event<(ObjectMeta, Value)>>>,
    patience: Patience,
    resume_at: Option<Instant>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("kind", &self.watched.kind).finish_non_exhaustive()
    }
}

impl Watch {
    /// Asks nothing yet.
    pub fn new(client: Client, watched: &'static Watched, collect: Arc<Collect>) -> Self {
        Self::lasting(client, watched, collect, WATCH_S)
    }

    /// One whose watches are asked to last so many seconds.
    pub fn lasting(client: Client, watched: &'static Watched, collect: Arc<Collect>, seconds: u32) -> Self {
        let resource = api_resource(watched.call, watched.object);
        let config = watcher::Config::default().timeout(seconds).page_size(watched.page);
        let events = if watched.metadata_only {
            let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &resource);
            split(watcher::watcher(api, config), |object| (object.metadata, Value::Null))
        } else {
            let api: Api<DynamicObject> = Api::all_with(client, &resource);
            split(watcher::watcher(api, config), |object: DynamicObject| (object.metadata, object.data))
        };
        Self { watched, collect, events, patience: Patience::default(), resume_at: None }
    }

    /// What happens next; after a failure not at once. It never ends. Cancelling a call loses nothing.
    pub async fn next(&mut self) -> Heard {
        if let Some(at) = self.resume_at {
            tokio::time::sleep_until(at).await;
            self.resume_at = None;
        }
        let Some(event) = self.events.next().await else {
            // kube's watcher has no end.
            return std::future::pending().await;
        };
        let read = |(metadata, rest): (ObjectMeta, Value), heard: fn(Thing) -> Heard| match self.watched.read(
            &metadata,
            &rest,
            &self.collect,
        ) {
            Ok(thing) => heard(thing),
            Err(why) => Heard::Strange {
                name: format!(
                    "{}/{}",
                    metadata.namespace.as_deref().unwrap_or_default(),
                    metadata.name.as_deref().unwrap_or_default()
                ),
                why: why.to_string(),
            },
        };
        match event {
            Ok(Event::Init) => Heard::Listing,
            Ok(Event::InitApply(object)) => read(object, Heard::Listed),
            Ok(Event::InitDone) => Heard::Complete,
            Ok(Event::Apply(object)) => read(object, Heard::Changed),
            Ok(Event::Delete((metadata, _))) => Heard::Gone(self.watched.key(&metadata)),
            Err(error) => {
                let now = Instant::now();
                self.resume_at = Some(now + jittered(self.patience.after_failure(now)));
                Heard::Failed(failure(self.watched, &error))
            }
        }
    }
}

fn split<K: Send + 'static>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    split: fn(K) -> (ObjectMeta, Value),
) -> BoxStream<'static, watcher::Result<Event<(ObjectMeta, Value)>>> {
    let events = events.map(move |event| {
        Ok(match event? {
            Event::Init => Event::Init,
            Event::InitDone => Event::InitDone,
            Event::InitApply(object) => Event::InitApply(split(object)),
            Event::Apply(object) => Event::Apply(split(object)),
            Event::Delete(object) => Event::Delete(split(object)),
        })
    });
    events.boxed()
}

/// How long to wait after a failure.
#[derive(Debug, Default)]
struct Patience {
    failures: u32,
    last: Option<Instant>,
}

impl Patience {
    fn after_failure(&mut self, now: Instant) -> Duration {
        if self.last.is_none_or(|last| now.duration_since(last) > FORGIVEN) {
            self.failures = 0;
        }
        self.last = Some(now);
        let wait = WAIT_MIN.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(WAIT_MAX);
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

/// Between half of `wait` and `wait`, so that the six watches do not come back in step.
fn jittered(wait: Duration) -> Duration {
    let random = std::hash::RandomState::new().build_hasher().finish();
    wait / 2 + (wait / 2).mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}

fn failure(watched: &Watched, error: &watcher::Error) -> Failure {
    let what = watched.call.resource;
    match error {
        watcher::Error::InitialListFailed(error) => of_client(watched, &format!("list {what}"), error),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            of_client(watched, &format!("watch {what}"), error)
        }
        watcher::Error::WatchError(status) => of_status(watched, &format!("watch {what}"), status),
        watcher::Error::NoResourceVersion => Failure {
            kind: FailureKind::Failed,
            detail: format!("failed to list {what}: the answer has no version to watch from; is it an API server?"),
        },
    }
}

fn of_client(watched: &Watched, doing: &str, error: &kube::Error) -> Failure {
    if let kube::Error::Api(status) = error {
        return of_status(watched, doing, status);
    }
    let kind = match error {
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => FailureKind::Failed,
        _ => FailureKind::Unreachable,
    };
    Failure { kind, detail: format!("failed to {doing}: {}", causes(error)) }
}

/// An error with all that it is caused by, nothing said twice.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn of_status(watched: &Watched, doing: &str, status: &kube::core::Status) -> Failure {
    let said = if status.message.is_empty() { &status.reason } else { &status.message };
    let (kind, mend) = match status.code {
        410 => (FailureKind::Expired, String::new()),
        401 => (
            FailureKind::Refused,
            "; its token is missing, wrong or expired: look at --kubernetes-token-file".to_owned(),
        ),
        403 => (FailureKind::Refused, format!("; {}", watched.call.missing_rule())),
        429 => (FailureKind::Busy, String::new()),
        404 => (FailureKind::Failed, "; is this API server older than Kubernetes 1.21?".to_owned()),
        _ => (FailureKind::Failed, String::new()),
    };
    Failure { kind, detail: format!("failed to {doing}: the API server answers {}: {said}{mend}", status.code) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::objects::WATCHED;

    #[test]
    fn waits_double_up_to_half_a_minute_and_are_short_again_after_two_minutes_of_peace() {
        let mut patience = Patience::default();
        let start = Instant::now();
        let waits: Vec<u128> = (0..9).map(|_| patience.after_failure(start).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        assert_eq!(patience.after_failure(start + FORGIVEN), WAIT_MAX, "a failure within the time is no peace");
        assert_eq!(patience.after_failure(start + FORGIVEN * 3), WAIT_MIN);
        for _ in 0..100 {
            let wait = jittered(WAIT_MAX);
            assert!(wait >= WAIT_MAX / 2 && wait <= WAIT_MAX, "{wait:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_missing_rule() {
        let status = kube::core::Status::failure("services is forbidden", "Forbidden").with_code(403);
        let failure = of_status(&WATCHED[1], "list endpointslices", &status);
        assert_eq!(failure.kind, FailureKind::Refused);
        assert!(failure.detail.contains(r#"apiGroups: ["discovery.k8s.io"]"#), "{}", failure.detail);
        assert!(failure.detail.contains(r#"verbs: ["list", "watch"]"#), "{}", failure.detail);
    }
}
