//! How fast requests to the API server may follow each other, and when it was heard last.
//!
//! kube's watcher makes a watch anew at once when it ends; where something between ends every watch at once that would
//! be a storm. Here two watches of a kind begin at least a second apart, further when they keep ending early, and a
//! `Retry-After` is kept for every request. Every byte of an answer is a sign of life: from them follows since when
//! something may have been missed.

use super::client::TokenFile;
use http::{Request, Response, StatusCode, header};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use kube::client::Body;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;
use tower::{BoxError, Service};
use weir_model::UnixNanos;

/// Two watches begin at least so far apart.
const SPACING_MIN: Duration = Duration::from_secs(1);
/// And at most, however often they end early.
const SPACING_MAX: Duration = Duration::from_secs(30);
/// A watch that ends sooner ended early: the API server closes one after minutes, weir asks for one.
const EARLY: Duration = Duration::from_secs(10);
/// A `Retry-After` beyond this is not believed: API servers say one second.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// An answer's head may take so long: a list of the largest page from a busy API server takes seconds.
const ANSWER: Duration = Duration::from_secs(30);
/// The body of an answer that is not a watch may be silent for so long.
const SILENCE: Duration = Duration::from_secs(30);

/// A silence beyond this may hide a change: the API server tells changes within milliseconds.
const GAP_NS: i64 = 2_000_000_000;
/// What a resumed watch has to tell of the gap comes in one go; what comes later is new.
const CATCHING_UP_NS: i64 = 5_000_000_000;

/// One client's requests and signs of life.
pub struct Pace {
    now: Box<dyn Fn() -> UnixNanos + Send + Sync>,
    heard: AtomicI64,
    lists: AtomicU64,
    watches: AtomicU64,
    others: AtomicU64,
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    not_before: Option<Instant>,
    /// When the last watch began, and how many in a row ended early.
    watch: Option<Instant>,
    early: u32,
    /// The last silence in which something may have been missed, and when it ended.
    gap: Option<(UnixNanos, UnixNanos)>,
}

/// How many requests were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Pages of lists.
    pub lists: u64,
    /// Watches.
    pub watches: u64,
    /// All others.
    pub others: u64,
}

impl std::fmt::Debug for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pace").field("requests", &self.requests()).field("heard", &self.heard()).finish_non_exhaustive()
    }
}

impl Pace {
    /// Nothing was asked yet. `now` is the wall clock.
    pub fn new(now: impl Fn() -> UnixNanos + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            now: Box::new(now),
            heard: AtomicI64::new(0),
            lists: AtomicU64::new(0),
            watches: AtomicU64::new(0),
            others: AtomicU64::new(0),
            times: Mutex::default(),
        })
    }

    /// When the last byte of a good answer came; `None`: never.
    pub fn heard(&self) -> Option<UnixNanos> {
        Some(UnixNanos(self.heard.load(Ordering::Relaxed))).filter(|at| at.0 != 0)
    }

    /// How many requests were made.
    pub fn requests(&self) -> Requests {
        Requests {
            lists: self.lists.load(Ordering::Relaxed),
            watches: self.watches.load(Ordering::Relaxed),
            others: self.others.load(Ordering::Relaxed),
        }
    }

    /// Since when what a watch tells at `now` may be true already: the beginning of a silence that it catches up with.
    /// `None`: it was told as it happened.
    pub fn behind_since(&self, now: UnixNanos) -> Option<UnixNanos> {
        let gap = self.times().gap?;
        (now.0 - gap.1.0 < CATCHING_UP_NS).then_some(gap.0)
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self) {
        self.heard.store((self.now)().0, Ordering::Relaxed);
    }

    /// Notes a request and says when it may be made.
    fn admit(&self, asks: Asks, now: Instant) -> Instant {
        let counter = match asks {
            Asks::List => &self.lists,
            Asks::Watch => &self.watches,
            Asks::Other => &self.others,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut times = self.times();
        let mut at = times.not_before.map_or(now, |not_before| now.max(not_before));
        if asks == Asks::Watch {
            if let Some(last) = times.watch {
                times.early = if now.duration_since(last) < EARLY { times.early.saturating_add(1) } else { 0 };
                at = at.max(last + spacing(times.early));
            }
            times.watch = Some(at);
        }
        at
    }

    /// Notes the head of an answer.
    fn answered(&self, asks: Asks, status: StatusCode, retry_after: Option<Duration>, now: Instant) {
        if let Some(wait) = retry_after {
            self.times().not_before = Some(now + wait.min(RETRY_AFTER_MAX));
        }
        if !status.is_success() {
            return;
        }
        let at = (self.now)();
        if asks == Asks::Watch
            && let Some(heard) = self.heard()
            && at.0 - heard.0 > GAP_NS
        {
            self.times().gap = Some((heard, at));
        }
        self.hear();
    }
}

/// How far the next watch begins from the last after `early` ones in a row that ended early.
fn spacing(early: u32) -> Duration {
    SPACING_MIN.saturating_mul(1_u32.checked_shl(early.saturating_sub(1)).unwrap_or(u32::MAX)).min(SPACING_MAX)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    List,
    Watch,
    Other,
}

impl Asks {
    fn of(request: &Request<Body>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        if request.method() != http::Method::GET {
            Self::Other
        } else if query.split('&').any(|part| matches!(part, "watch=true" | "watch=1")) {
            Self::Watch
        } else {
            Self::List
        }
    }
}

/// The seconds of a `Retry-After`; the API server never sends a date.
fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// A client's stack with its pace kept.
pub(crate) struct Paced<S> {
    inner: Arc<tokio::sync::Mutex<S>>,
    pace: Arc<Pace>,
    token: Option<Arc<TokenFile>>,
}

impl<S> Paced<S> {
    pub(crate) fn new(inner: S, pace: Arc<Pace>, token: Option<Arc<TokenFile>>) -> Self {
        Self { inner: Arc::new(tokio::sync::Mutex::new(inner)), pace, token }
    }
}

/// An answer's head did not come, or its body has stopped.
#[derive(Debug, thiserror::Error)]
#[error("the API server said nothing for {0:?}")]
struct Silent(Duration);

impl<S, B> Service<Request<Body>> for Paced<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: HttpBody<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Listened<B>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The wait depends on the request, so the stack below is asked in the call.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (inner, pace, token) = (Arc::clone(&self.inner), Arc::clone(&self.pace), self.token.clone());
        Box::pin(async move {
            let asks = Asks::of(&request);
            tokio::time::sleep_until(pace.admit(asks, Instant::now())).await;
            if let Some(token) = token {
                token.sign(&mut request);
            }
            let answering = {
                let mut inner = inner.lock().await;
                poll_fn(|context| inner.poll_ready(context)).await.map_err(Into::into)?;
                inner.call(request)
            };
            let response = tokio::time::timeout(ANSWER, answering).await.map_err(|_elapsed| Silent(ANSWER))?;
            let response = response.map_err(Into::into)?;
            pace.answered(asks, response.status(), retry_after(response.headers()), Instant::now());
            let is_good = response.status().is_success();
            let patience = (asks != Asks::Watch).then(|| Box::pin(tokio::time::sleep(SILENCE)));
            Ok(response.map(|body| Listened { inner: body, pace: is_good.then_some(pace), patience }))
        })
    }
}

/// A body whose bytes are signs of life.
pub(crate) struct Listened<B> {
    inner: B,
    pace: Option<Arc<Pace>>,
    /// Until when the next byte must come. A watch's is kube's watcher's own affair.
    patience: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<B> HttpBody for Listened<B>
where
    B: HttpBody<Data = bytes::Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = bytes::Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) else {
            if let Some(patience) = &mut this.patience {
                ready!(patience.as_mut().poll(context));
                return Poll::Ready(Some(Err(Silent(SILENCE).into())));
            }
            return Poll::Pending;
        };
        // An orderly end is a sign of life, a broken connection is none.
        if !matches!(frame, Some(Err(_)))
            && let Some(pace) = &this.pace
        {
            pace.hear();
        }
        if let Some(patience) = &mut this.patience {
            patience.as_mut().reset(Instant::now() + SILENCE);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace_at(now: &Arc<AtomicI64>) -> Arc<Pace> {
        let now = Arc::clone(now);
        Pace::new(move || UnixNanos(now.load(Ordering::Relaxed)))
    }

    #[tokio::test(start_paused = true)]
    async fn watches_that_end_at_once_begin_further_and_further_apart() {
        let pace = pace_at(&Arc::new(AtomicI64::new(1)));
        let (start, mut began) = (Instant::now(), Vec::new());
        for _ in 0..10 {
            let at = pace.admit(Asks::Watch, Instant::now());
            tokio::time::sleep_until(at).await;
            began.push((at - start).as_secs());
        }
        assert_eq!(began, [0, 1, 3, 7, 15, 31, 61, 91, 121, 151].map(|at: u64| at.min(at)));
        assert_eq!(pace.admit(Asks::List, Instant::now()), Instant::now(), "a list does not wait for watches");
        assert_eq!(pace.requests(), Requests { lists: 1, watches: 10, others: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_holds_back_every_request_but_not_for_ever() {
        let pace = pace_at(&Arc::new(AtomicI64::new(1)));
        let now = Instant::now();
        pace.answered(Asks::List, StatusCode::TOO_MANY_REQUESTS, Some(Duration::from_secs(7)), now);
        assert_eq!(pace.admit(Asks::List, now), now + Duration::from_secs(7));
        assert_eq!(pace.heard(), None, "a refusal is no sign of life");
        pace.answered(Asks::List, StatusCode::SERVICE_UNAVAILABLE, Some(Duration::from_secs(9999)), now);
        assert_eq!(pace.admit(Asks::Watch, now), now + RETRY_AFTER_MAX);
    }

    #[test]
    fn what_a_resumed_watch_tells_first_may_be_as_old_as_the_silence() {
        const SECOND: i64 = 1_000_000_000;
        let now = Arc::new(AtomicI64::new(100 * SECOND));
        let pace = pace_at(&now);
        let answered = |at: i64| {
            now.store(at * SECOND, Ordering::Relaxed);
            pace.answered(Asks::Watch, StatusCode::OK, None, Instant::now());
        };
        answered(100);
        answered(101);
        assert_eq!(pace.behind_since(UnixNanos(101 * SECOND)), None, "an orderly end leaves no gap");
        answered(160);
        assert_eq!(pace.behind_since(UnixNanos(161 * SECOND)), Some(UnixNanos(101 * SECOND)));
        assert_eq!(pace.behind_since(UnixNanos(165 * SECOND)), None);
    }
}
