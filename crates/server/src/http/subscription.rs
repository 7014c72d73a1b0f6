//! Answers that go on: a question asked once, answered at once and again whenever the answer has changed, as server-sent
//! events. An `answer` holds the very JSON that the same question gets without; a comment says that nothing changed; a
//! `problem` is the last.
//!
//! An event is made only when the reader has taken the one before, so a slow reader costs one answer and misses what lay
//! between. Subscriptions are bounded; they wait for their turn among all questions.

use super::api::{ask, pairs_of};
use super::{App, problem};
use crate::query::params::{Asked, Question};
use crate::query::{Sources, Unanswered};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Serialize;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};
use weir_wire::api::{Answer, Completeness, LossTotal, NodeCoverage};

/// Subscriptions at the same time. At the largest pace, with answers of 50 ms, they take 1.6 of the questions' 2 to 4 turns.
pub(crate) const SUBSCRIPTIONS_MAX: usize = 64;
/// Between two answers: a person does not read faster, and agents tell once in 10 s.
const PACE: Duration = Duration::from_secs(2);
/// Without a change, after this the question is asked again: time goes on, nodes fall silent. Below the patience of proxies.
const QUIET: Duration = Duration::from_secs(10);

/// A question, as it is answered.
pub(crate) type Ask<T, E> = fn(&Sources, &Question) -> Result<Answer<T>, E>;

/// An answer as it is sent, and a mark that differs where it differs in more than the time that has gone by.
struct Told {
    body: String,
    mark: u64,
}

struct Subscription<T, E> {
    app: App,
    asked: Asked,
    pairs: Vec<(String, String)>,
    answer: Ask<T, E>,
    changes: watch::Receiver<u64>,
    mark: u64,
    /// The first answer, until it is sent.
    first: Option<String>,
    /// When the question was asked last, and when something was sent last.
    asked_at: Instant,
    sent_at: Instant,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

/// Answers now and from now on. What is wrong with the question is answered as without.
pub(crate) async fn subscribe<T, E>(app: App, asked: Asked, query: Option<String>, answer: Ask<T, E>) -> Response
where
    T: Serialize + 'static,
    E: Into<Unanswered> + 'static,
{
    let Ok(place) = Arc::clone(&app.subscriptions).try_acquire_owned() else {
        app.sources.counts.subscriptions_refused.fetch_add(1, Ordering::Relaxed);
        let text =
            format!("this server has {SUBSCRIPTIONS_MAX} subscriptions already; ask without them, again and again");
        return problem(StatusCode::SERVICE_UNAVAILABLE, text);
    };
    let pairs = match pairs_of(query.as_deref()) {
        Ok(pairs) => pairs,
        Err(refused) => return *refused,
    };
    let mut changes = app.sources.live.changes();
    changes.mark_unchanged();
    let told = match ask(&app, asked, &pairs, answer, tell).await {
        Ok(told) => told,
        Err(refused) => return refused,
    };
    app.sources.counts.subscriptions.fetch_add(1, Ordering::Relaxed);
    let now = Instant::now();
    let subscription = Subscription {
        app,
        asked,
        pairs,
        answer,
        changes,
        mark: told.mark,
        first: Some(told.body),
        asked_at: now,
        sent_at: now,
        is_over: false,
        _place: place,
    };
    let mut response = Sse::new(events(subscription)).into_response();
    // A proxy that collects an answer before it passes it on would never pass this one.
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

fn events<T, E>(subscription: Subscription<T, E>) -> impl Stream<Item = Result<Event, Infallible>>
where
    T: Serialize + 'static,
    E: Into<Unanswered> + 'static,
{
    unfold(subscription, |mut subscription| async move {
        let event = subscription.next().await?;
        Some((Ok(event), subscription))
    })
}

impl<T: Serialize + 'static, E: Into<Unanswered> + 'static> Subscription<T, E> {
    /// What is sent next; `None`: no more.
    async fn next(&mut self) -> Option<Event> {
        if self.is_over {
            return None;
        }
        if let Some(first) = self.first.take() {
            return Some(Event::default().event("answer").data(first));
        }
        let shutdown = self.app.shutdown.clone();
        loop {
            let (earliest, latest) = (self.asked_at + PACE, (self.sent_at + QUIET).max(self.asked_at + PACE));
            tokio::select! {
                () = shutdown.cancelled() => return None,
                changed = async {
                    sleep_until(earliest).await;
                    self.changes.changed().await
                } => changed.ok()?,
                () = sleep_until(latest) => {}
            }
            self.changes.mark_unchanged();
            let told = ask(&self.app, self.asked, &self.pairs, self.answer, tell).await;
            self.asked_at = Instant::now();
            match told {
                Ok(told) if told.mark != self.mark => {
                    (self.mark, self.sent_at) = (told.mark, self.asked_at);
                    return Some(Event::default().event("answer").data(told.body));
                }
                Ok(_) if self.asked_at >= self.sent_at + QUIET => {
                    self.sent_at = self.asked_at;
                    return Some(Event::default().comment("nothing changed"));
                }
                Ok(_) => {}
                Err(refused) => {
                    self.is_over = true;
                    let status = refused.status().as_u16();
                    return Some(Event::default().event("problem").data(format!("{{\"status\":{status}}}")));
                }
            }
        }
    }
}

fn tell<T: Serialize>(answer: &Answer<T>) -> serde_json::Result<Told> {
    let items = serde_json::to_string(&answer.items)?;
    let completeness = serde_json::to_string(&answer.completeness)?;
    let mut hasher = DefaultHasher::new();
    items.hash(&mut hasher);
    serde_json::to_string(&timeless(&answer.completeness))?.hash(&mut hasher);
    let body = format!("{{\"items\":{items},\"completeness\":{completeness}}}");
    Ok(Told { body, mark: hasher.finish() })
}

/// The same without what changes by the mere course of time.
fn timeless(completeness: &Completeness) -> Completeness {
    let node = |node: &NodeCoverage| NodeCoverage {
        last_seen: None,
        covered_ms: 0,
        missing_ms: u64::from(node.missing_ms > 0),
        clock_offset_ms: None,
        ..node.clone()
    };
    // Some are told of the whole span, whose start moves.
    let loss = |loss: &LossTotal| LossTotal { from: None, to: None, ..loss.clone() };
    Completeness {
        from: String::new(),
        to: String::new(),
        nodes: completeness.nodes.iter().map(node).collect(),
        losses: completeness.losses.iter().map(loss).collect(),
        ..completeness.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_wire::api::Edge;

    #[test]
    fn an_event_holds_the_answer_and_its_mark_does_not_follow_the_clock() {
        let node =
            NodeCoverage { node: "a".into(), state: "reporting".into(), covered_ms: 7, ..NodeCoverage::default() };
        let loss = LossTotal { reason: "unpaired".into(), count: 1, from: Some("1".into()), ..LossTotal::default() };
        let completeness =
            Completeness { from: "1".into(), nodes: vec![node], losses: vec![loss], ..Completeness::default() };
        let answer = Answer { items: vec![Edge { sent_bytes: 5, ..Edge::default() }], completeness };
        let told = tell(&answer).unwrap();
        assert_eq!(told.body, serde_json::to_string(&answer).unwrap());
        let mut later = answer.clone();
        later.completeness.from = "2".into();
        later.completeness.nodes[0].covered_ms = 8;
        later.completeness.losses[0].from = Some("2".into());
        assert_eq!(tell(&later).unwrap().mark, told.mark);
        later.completeness.nodes[0].state = "silent".into();
        assert_ne!(tell(&later).unwrap().mark, told.mark);
        later = answer.clone();
        later.completeness.losses[0].count = 2;
        assert_ne!(tell(&later).unwrap().mark, told.mark);
        later = answer.clone();
        later.items[0].sent_bytes = 6;
        assert_ne!(tell(&later).unwrap().mark, told.mark);
    }
}
