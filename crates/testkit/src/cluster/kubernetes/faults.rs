//! What goes wrong with real API servers, on demand, and what they were asked.

use super::api::{failure, silence};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Requests that are remembered.
const SEEN: usize = 100_000;

/// What an answer is instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The version, or the continue token, is too old: a list is answered 410, a watch with an ERROR event.
    Gone,
    /// 429 with `Retry-After`.
    Busy {
        /// Seconds.
        retry_after: u64,
    },
    /// Another status: 500, 503.
    Fail(u16),
    /// 403 in the authorizer's words.
    Refuse,
    /// 401.
    Unauthorized,
    /// The same of a write that is done all the same: etcd answered too late.
    FailAfter(u16),
    /// A watch ends in order as soon as it has begun; a write is not done, and its answer breaks off.
    Close,
    /// The connection breaks in the middle of a list, of a watch's next event, or of the answer to a write that is done.
    Break,
    /// The head comes, and then nothing.
    Stall,
}

impl Fault {
    /// The whole answer, for the faults that are one.
    pub(super) fn answer(&self, resource: &str) -> Option<Response> {
        Some(match self {
            Self::Gone => failure(
                StatusCode::GONE,
                "Expired",
                "The resourceVersion for the provided list is too old.",
                &Value::Null,
            ),
            Self::Busy { retry_after } => {
                let text = "Too many requests, please try again later.";
                let mut response = failure(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", text, &Value::Null);
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*retry_after));
                response
            }
            Self::Fail(code) => {
                let code = StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                failure(code, "InternalError", "etcdserver: request timed out", &Value::Null)
            }
            Self::Refuse => {
                let text = format!(
                    "{resource} is forbidden: User \"system:serviceaccount:weir:weir-server\" cannot list resource \
                     \"{resource}\" in API group \"\" at the cluster scope"
                );
                failure(StatusCode::FORBIDDEN, "Forbidden", &text, &Value::Null)
            }
            Self::Unauthorized => failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized", &Value::Null),
            Self::Stall => silence(),
            Self::Close | Self::Break | Self::FailAfter(_) => return None,
        })
    }

    /// Whether a watch begins as always and this comes later.
    pub(super) fn is_within_a_watch(&self) -> bool {
        matches!(self, Self::Gone | Self::Close | Self::Break | Self::Stall)
    }
}

/// A request as it was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// `services`, ..., `tokenreviews`; `configmaps/get`, `configmaps/update`, ... beside the lists of `configmaps`.
    pub resource: &'static str,
    /// Whether it was a watch.
    pub watches: bool,
    /// Whether it began a list.
    pub first_page: bool,
    /// The page's size.
    pub limit: Option<usize>,
    /// The version that was asked for.
    pub version: Option<String>,
    /// Whether only metadata was asked for.
    pub metadata_only: bool,
    /// When, since the first one.
    pub at: Option<Duration>,
}

#[derive(Debug)]
struct Planned {
    resource: String,
    watches: bool,
    fault: Fault,
    times: usize,
    skip: usize,
}

/// The faults that will come.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    planned: Mutex<Vec<Planned>>,
    struck: AtomicU64,
    seen: Mutex<(Option<tokio::time::Instant>, Vec<Seen>)>,
    /// Rises to break every open watch.
    pub(super) breaks: watch::Sender<u64>,
    /// While true open watches say nothing.
    pub(super) stalled: AtomicBool,
    /// Whether streamed lists are refused as on etcd 3.4.
    pub(super) refuses_streamed_lists: AtomicBool,
}

impl Faults {
    /// Plans a fault for the `times` requests after the next `skip` of this kind.
    pub(super) fn plan(&self, resource: &str, watches: bool, fault: Fault, skip: usize, times: usize) {
        let planned = Planned { resource: resource.to_owned(), watches, fault, times, skip };
        lock(&self.planned).push(planned);
    }

    /// Forgets what was planned.
    pub(super) fn clear(&self) {
        lock(&self.planned).clear();
        self.stalled.store(false, Ordering::SeqCst);
    }

    /// Notes a request; says what goes wrong with it.
    pub(super) fn see(&self, mut seen: Seen) -> Option<Fault> {
        let mut planned = lock(&self.planned);
        let mut fault = None;
        for one in planned.iter_mut() {
            if one.resource != seen.resource || one.watches != seen.watches || one.times == 0 {
                continue;
            }
            if one.skip > 0 {
                one.skip -= 1;
                continue;
            }
            one.times -= 1;
            fault = Some(one.fault.clone());
            self.struck.fetch_add(1, Ordering::Relaxed);
            break;
        }
        planned.retain(|one| one.times > 0);
        drop(planned);
        let mut all = lock(&self.seen);
        let now = tokio::time::Instant::now();
        let first = *all.0.get_or_insert(now);
        seen.at = Some(now - first);
        if all.1.len() < SEEN {
            all.1.push(seen);
        }
        fault
    }

    /// Requests that went wrong so far.
    pub(super) fn struck(&self) -> u64 {
        self.struck.load(Ordering::Relaxed)
    }

    /// Every request so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).1.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
