//! Answers that are shared: who asks what is being answered anyway, or was a moment ago, gets that answer.
//!
//! A page that many have open asks the same again and again, and an answer about a large cluster takes its time. Whoever
//! asks with `Cache-Control: max-age=SECONDS` takes an answer that is so old (RFC 9111, 5.2.1.1), with `max-stale=SECONDS`
//! one that is older by so much rather than to wait (5.2.1.2), and the header `Age` says how old it is; without either
//! every request is answered anew. Every answer says itself as of when it is (`completeness.to`).
//!
//! | the last answer | is given to those who take it so old |
//! |---|---|
//! | took less than [`QUICK_NS`] | never: it is made anew |
//! | was begun at most [`FRESH_NS`] ago | as it is |
//! | was begun at most [`AGE_MAX_NS`] ago, with `max-stale` [`STALE_MAX_NS`] | as it is, and the next one is begun |
//!
//! One that is being made is waited for instead of made twice.
//!
//! Bounded: bodies of [`BYTES_MAX`] in all, the oldest leave first; [`MAKING_MAX`] that are being made whether who asked is
//! still there or not. Each waits for its turn like every question.

use super::problem;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;
use weir_daemon::clock::Clock;

const SECOND_NS: u64 = 1_000_000_000;
/// What is made faster than a person notices needs no sharing.
const QUICK_NS: u64 = 50_000_000;
/// A fifth of a window: agents tell of what moved every 10 s.
const FRESH_NS: u64 = 2 * SECOND_NS;
/// A window: what moved since may not have been told yet.
const AGE_MAX_NS: u64 = 10 * SECOND_NS;
/// A minute: the longest that many different questions are behind where each takes a second.
const STALE_MAX_NS: u64 = 60 * SECOND_NS;
/// Answers that are being made at the same time for whoever asks for them: more are made for who waits alone.
const MAKING_MAX: usize = 32;
/// Some dozens of answers with a thousand edges (400 bytes each).
const BYTES_MAX: usize = 16 << 20;

/// An answer that somebody gets.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Given {
    body: Bytes,
    /// How long before the request it was begun, whole seconds.
    age_s: u64,
}

/// An answer that was made: its body, when it was begun, and what it took.
#[derive(Clone, Debug)]
struct Made {
    body: Bytes,
    began: u64,
    took: u64,
}

/// What is known of a question.
#[derive(Debug, Default)]
struct Held {
    last: Option<Made>,
    /// When the next one was begun, and where it comes out.
    next: Option<(u64, Coming)>,
}

/// Where an answer comes out; nothing does where making it failed.
type Coming = watch::Receiver<Option<Made>>;

/// Shared answers by question.
pub(crate) struct SharedAnswers<K> {
    held: Mutex<HashMap<K, Held>>,
    clock: Arc<dyn Clock>,
    /// Answers that are being made: whoever asked for one may be gone by then.
    making: TaskTracker,
}

enum Found {
    Given(Given),
    Coming(u64, Coming),
    Nothing,
    /// Nothing, and as many answers are being made as may outlive who asked for them.
    Full,
}

impl<K: Clone + Eq + Hash + Send + 'static> SharedAnswers<K> {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { held: Mutex::default(), clock, making: TaskTracker::new() }
    }

    /// The answer to `question`: one that is there or coming, begun at most `age_max_ns` before now, else what `make` makes.
    ///
    /// # Errors
    /// That of `make`, which is shared with nobody; `None` if it came to no end.
    async fn get<E: Send + 'static>(
        self: &Arc<Self>,
        question: K,
        age_max_ns: u64,
        make: impl Future<Output = Result<Bytes, E>> + Send + 'static,
    ) -> Result<Given, Option<E>> {
        let asked = self.now();
        loop {
            let (found, out) = self.find(&question, asked, age_max_ns);
            match (found, out) {
                (Found::Given(given), None) => return Ok(given),
                (Found::Given(given), Some(out)) => {
                    drop(self.begin(question, out, make));
                    return Ok(given);
                }
                (Found::Coming(began, mut coming), _) => {
                    let made = coming.wait_for(Option::is_some).await.ok().and_then(|made| made.clone());
                    if let Some(Made { body, .. }) = made {
                        return Ok(Given { body, age_s: asked.saturating_sub(began) / SECOND_NS });
                    }
                }
                (Found::Nothing, Some(out)) => {
                    return match self.begin(question, out, make).await {
                        Ok(made) => made.map(|body| Given { body, age_s: 0 }).map_err(Some),
                        Err(_panicked) => Err(None),
                    };
                }
                (Found::Nothing, None) => {}
                // Whoever goes away leaves nothing behind that others would wait for.
                (Found::Full, _) => return make.await.map(|body| Given { body, age_s: 0 }).map_err(Some),
            }
        }
    }

    /// What there is, and where the next one is to come out if whoever asks shall begin it.
    fn find(&self, question: &K, asked: u64, age_max_ns: u64) -> (Found, Option<Out>) {
        let is_full = self.making.len() >= MAKING_MAX;
        let mut held = self.held();
        let known = held.entry(question.clone()).or_default();
        let age = |began: u64| asked.saturating_sub(began);
        // It failed.
        drop(known.next.take_if(|(_, coming)| coming.has_changed().is_err()));
        let last = known.last.as_ref().filter(|last| age(last.began) <= age_max_ns.min(STALE_MAX_NS));
        if let Some(Made { body, began, .. }) = last {
            let given = Found::Given(Given { body: body.clone(), age_s: age(*began) / SECOND_NS });
            let is_due = age(*began) > FRESH_NS && known.next.is_none() && !is_full;
            return (given, is_due.then(|| self.out(known)));
        }
        match &known.next {
            Some((began, coming)) if age(*began) <= age_max_ns => (Found::Coming(*began, coming.clone()), None),
            _ if is_full => {
                if known.last.is_none() && known.next.is_none() {
                    held.remove(question);
                }
                (Found::Full, None)
            }
            _ => (Found::Nothing, Some(self.out(known))),
        }
    }

    fn out(&self, known: &mut Held) -> Out {
        let (sender, coming) = watch::channel(None);
        let began = self.now();
        known.next = Some((began, coming));
        Out { began, sender }
    }

    /// Makes an answer, which goes to whoever waits for it and to who listens to what is returned.
    fn begin<E: Send + 'static>(
        self: &Arc<Self>,
        question: K,
        out: Out,
        make: impl Future<Output = Result<Bytes, E>> + Send + 'static,
    ) -> oneshot::Receiver<Result<Bytes, E>> {
        let (mine, made) = oneshot::channel();
        let shared = Arc::clone(self);
        self.making.spawn(async move {
            let Out { began, sender } = out;
            let made = make.await;
            match &made {
                Ok(body) => {
                    let made = Made { body: body.clone(), began, took: shared.now().saturating_sub(began) };
                    shared.keep(&question, &made);
                    // Nobody may be waiting.
                    let _ = sender.send(Some(made));
                }
                Err(_) => shared.give_up(&question, began),
            }
            let _ = mine.send(made);
        });
        made
    }

    fn keep(&self, question: &K, made: &Made) {
        let now = self.now();
        let mut held = self.held();
        let known = held.entry(question.clone()).or_default();
        // One that was begun later may be there already.
        if known.last.as_ref().is_none_or(|last| last.began <= made.began) {
            known.last = (made.took >= QUICK_NS).then(|| made.clone());
        }
        drop(known.next.take_if(|(began, _)| *began == made.began));
        held.retain(|_, known| {
            drop(known.last.take_if(|last| now.saturating_sub(last.began) > STALE_MAX_NS));
            known.last.is_some() || known.next.as_ref().is_some_and(|(_, coming)| coming.has_changed().is_ok())
        });
        let mut bodies: Vec<(u64, usize, K)> = held
            .iter()
            .filter_map(|(question, known)| known.last.as_ref().map(|last| (question, last)))
            .map(|(question, last)| (last.began, last.body.len(), question.clone()))
            .collect();
        bodies.sort_unstable_by_key(|(began, ..)| *began);
        let mut bytes: usize = bodies.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, length, question) in bodies {
            if bytes <= BYTES_MAX {
                break;
            }
            bytes -= length;
            if let Some(known) = held.get_mut(&question) {
                known.last = None;
            }
        }
    }

    /// Of what could not be answered nothing stays: whoever asks nonsense, each time another, takes no room.
    fn give_up(&self, question: &K, began: u64) {
        let mut held = self.held();
        let Some(known) = held.get_mut(question) else { return };
        drop(known.next.take_if(|(of, _)| *of == began));
        if known.last.is_none() && known.next.is_none() {
            held.remove(question);
        }
    }

    fn now(&self) -> u64 {
        self.clock.monotonic().0
    }

    fn held(&self) -> MutexGuard<'_, HashMap<K, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where an answer that is begun now comes out.
struct Out {
    began: u64,
    sender: watch::Sender<Option<Made>>,
}

/// What a request asks, in which form, and how old an answer to that it takes; `None`: only its own.
fn shared_question(request: &Request) -> Option<(String, u64)> {
    // Lines of the same name are one list.
    let header = |name: HeaderName| {
        let lines = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
        lines.collect::<Vec<_>>().join(",")
    };
    let age_max_ns = Some(age_max_ns(&header(header::CACHE_CONTROL))).filter(|age_max_ns| *age_max_ns > 0)?;
    // What goes on is each reader's own.
    let accepts = Some(header(header::ACCEPT)).filter(|accepts| !accepts.contains("event-stream"))?;
    Some((format!("{accepts} {}", request.uri().path_and_query()?), age_max_ns))
}

/// Gives an answer that is there, or lets the question through.
pub(super) async fn share(State(shared): State<Arc<SharedAnswers<String>>>, request: Request, next: Next) -> Response {
    let Some((question, age_max_ns)) = shared_question(&request) else {
        return next.run(request).await;
    };
    let make = async move {
        let answer = next.run(request).await;
        if answer.status() != StatusCode::OK || !is_json(&answer) {
            return Err(answer);
        }
        to_bytes(answer.into_body(), usize::MAX)
            .await
            .map_err(|error| problem(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to read the answer: {error}")))
    };
    match shared.get(question, age_max_ns, make).await {
        Ok(Given { body, age_s }) => {
            ([(header::CONTENT_TYPE, HeaderValue::from_static(JSON)), (header::AGE, age_s.into())], body)
                .into_response()
        }
        Err(Some(answer)) => answer,
        Err(None) => problem(StatusCode::INTERNAL_SERVER_ERROR, "failed to answer: it came to no end".to_owned()),
    }
}

const JSON: &str = "application/json";

fn is_json(answer: &Response) -> bool {
    answer.headers().get(header::CONTENT_TYPE).is_some_and(|form| form == JSON)
}

/// How old an answer a request takes, by its header `Cache-Control`, nanoseconds. What cannot be read takes none.
fn age_max_ns(cache_control: &str) -> u64 {
    let (mut fresh, mut stale) = (None, None);
    for directive in cache_control.split(',').map(|word| word.trim().to_ascii_lowercase()) {
        match directive.split_once('=') {
            None if directive == "no-cache" || directive == "no-store" => return 0,
            // However old.
            None if directive == "max-stale" => stale = Some(u64::MAX),
            Some(("max-age", seconds)) => fresh = seconds.parse::<u64>().ok(),
            Some(("max-stale", seconds)) => stale = seconds.parse::<u64>().ok(),
            _ => {}
        }
    }
    let ns = |seconds: Option<u64>| seconds.unwrap_or_default().saturating_mul(SECOND_NS);
    ns(fresh).min(AGE_MAX_NS).saturating_add(ns(stale)).min(STALE_MAX_NS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use weir_daemon::clock::ManualClock;
    use weir_model::MonotonicNanos;

    /// Answers are the number of answers made before; each takes so long, and waits for `go` where there is one.
    struct Around {
        clock: Arc<ManualClock>,
        shared: Arc<SharedAnswers<&'static str>>,
        made: Arc<AtomicU64>,
    }

    impl Around {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::new(MonotonicNanos(SECOND_NS), 0));
            Self { shared: Arc::new(SharedAnswers::new(Arc::clone(&clock) as _)), clock, made: Arc::default() }
        }

        fn make(
            &self,
            takes: u64,
            go: Option<oneshot::Receiver<()>>,
        ) -> impl Future<Output = Result<Bytes, ()>> + use<> {
            let (clock, made) = (Arc::clone(&self.clock), Arc::clone(&self.made));
            async move {
                if let Some(go) = go {
                    go.await.unwrap();
                }
                clock.advance(takes);
                Ok(Bytes::from((made.fetch_add(1, Ordering::Relaxed) + 1).to_string()))
            }
        }

        async fn ask(&self, takes: u64, age_max_ns: u64) -> (String, u64) {
            let given = self.shared.get("edges", age_max_ns, self.make(takes, None)).await.unwrap();
            (String::from_utf8(given.body.to_vec()).unwrap(), given.age_s)
        }

        /// Until nothing is being made.
        async fn rest(&self) {
            self.shared.making.close();
            self.shared.making.wait().await;
            self.shared.making.reopen();
        }
    }

    #[tokio::test]
    async fn what_took_long_is_given_again_and_says_how_old_it_is() {
        let around = Around::new();
        assert_eq!(around.ask(SECOND_NS, AGE_MAX_NS).await, ("1".into(), 0));
        assert_eq!(around.ask(SECOND_NS, AGE_MAX_NS).await, ("1".into(), 1));
        around.clock.advance(SECOND_NS / 2);
        // A second and a half is older than a second.
        assert_eq!(around.ask(SECOND_NS, SECOND_NS).await, ("2".into(), 0));
        // Beyond two seconds it is given for the last time, and the next one is begun.
        around.clock.advance(2 * SECOND_NS);
        assert_eq!(around.ask(SECOND_NS, AGE_MAX_NS).await, ("2".into(), 3));
        around.rest().await;
        assert_eq!(around.ask(SECOND_NS, AGE_MAX_NS).await, ("3".into(), 1));
        around.clock.advance(AGE_MAX_NS);
        assert_eq!(around.ask(SECOND_NS, AGE_MAX_NS).await, ("4".into(), 0));
        // Who takes it stale waits for nothing, and makes the next one begin.
        around.clock.advance(AGE_MAX_NS * 2);
        assert_eq!(around.ask(SECOND_NS, AGE_MAX_NS * 3).await, ("4".into(), 21));
        around.rest().await;
        assert_eq!(around.ask(SECOND_NS, AGE_MAX_NS * 3).await, ("5".into(), 1));
    }

    #[tokio::test]
    async fn what_is_made_quickly_is_made_anew() {
        let around = Around::new();
        for expected in ["1", "2", "3"] {
            assert_eq!(around.ask(QUICK_NS - 1, AGE_MAX_NS).await, (expected.into(), 0));
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_coming_is_waited_for_by_all_and_outlives_who_asked_first() {
        let around = Around::new();
        let (go, gone) = oneshot::channel();
        let first = around.shared.get("edges", AGE_MAX_NS, around.make(QUICK_NS, Some(gone)));
        assert!(tokio::time::timeout(std::time::Duration::ZERO, first).await.is_err());
        let (second, third, ()) = tokio::join!(around.ask(0, AGE_MAX_NS), around.ask(0, AGE_MAX_NS), async {
            go.send(()).unwrap();
        });
        assert_eq!((second.0.as_str(), third.0.as_str()), ("1", "1"));
    }

    #[tokio::test]
    async fn beyond_a_bound_answers_are_made_for_who_waits_alone() {
        let around = Around::new();
        let names: Vec<&'static str> = (0..MAKING_MAX).map(|name| &*name.to_string().leak()).collect();
        let (wait, waits): (Vec<_>, Vec<_>) = names.iter().map(|_| oneshot::channel()).unzip();
        for (name, wait) in names.iter().zip(waits) {
            // Whoever asks goes away at once.
            let asked = around.shared.get(*name, AGE_MAX_NS, around.make(QUICK_NS, Some(wait)));
            assert!(tokio::time::timeout(std::time::Duration::ZERO, asked).await.is_err());
        }
        assert_eq!(around.shared.making.len(), MAKING_MAX);
        assert_eq!(around.ask(QUICK_NS, AGE_MAX_NS).await, ("1".into(), 0));
        assert_eq!(around.shared.held().len(), MAKING_MAX, "it is shared with nobody");
        drop(wait);
    }

    #[tokio::test]
    async fn a_failure_is_nobody_elses() {
        let around = Around::new();
        let failed = around.shared.get("edges", AGE_MAX_NS, async { Err("no disk") }).await;
        assert_eq!(failed.unwrap_err(), Some("no disk"));
        assert!(around.shared.held().is_empty(), "it takes no room");
        assert_eq!(around.ask(QUICK_NS, AGE_MAX_NS).await, ("1".into(), 0));
    }

    #[tokio::test]
    async fn bodies_are_bounded_and_the_oldest_leave_first() {
        let around = Around::new();
        for question in ["a", "b", "c"] {
            let clock = Arc::clone(&around.clock);
            let make = async move {
                clock.advance(QUICK_NS);
                Ok::<_, ()>(Bytes::from(vec![b' '; BYTES_MAX / 2]))
            };
            around.shared.get(question, AGE_MAX_NS, make).await.unwrap();
        }
        let held = around.shared.held();
        let kept = |question: &str| held.get(question).is_some_and(|known| known.last.is_some());
        assert_eq!((kept("a"), kept("b"), kept("c")), (false, true, true));
    }

    #[test]
    fn only_who_says_so_takes_an_answer_that_is_old() {
        for (header, seconds) in [
            ("", 0),
            ("no-cache", 0),
            ("max-age=5", 5),
            ("Max-Age=3, no-transform", 3),
            ("max-age=10, no-cache", 0),
            ("max-age=3600", 10),
            ("max-age=soon", 0),
            ("max-age=10, max-stale=20", 30),
            ("max-stale=20, max-age=3600", 30),
            ("max-age=1, max-stale", 60),
            ("max-stale=3600", 60),
            ("max-stale=20, no-store", 0),
        ] {
            assert_eq!(age_max_ns(header), seconds * SECOND_NS, "{header}");
        }
    }
}
