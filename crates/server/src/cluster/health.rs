//! How the watches do: for `weir status` and `/metrics`.

use crate::query::rfc3339;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use weir_discovery::kubernetes::objects::Watched;
use weir_discovery::kubernetes::pace::Pace;
use weir_discovery::kubernetes::watch::{Failure, FailureKind, Heard};
use weir_model::UnixNanos;
use weir_wire::api::StatusRow;

/// Every watch; empty where no cluster is watched.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    kinds: RwLock<Vec<Arc<KindHealth>>>,
}

impl Cluster {
    /// Adds a watch.
    pub(super) fn watch(&self, watched: &'static Watched, pace: Arc<Pace>) -> Arc<KindHealth> {
        let kind = Arc::new(KindHealth { watched, pace, ..KindHealth::of(watched) });
        self.kinds.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&kind));
        kind
    }

    /// A row a watch.
    pub(crate) fn rows(&self) -> Vec<StatusRow> {
        self.kinds.read().unwrap_or_else(PoisonError::into_inner).iter().map(|kind| kind.row()).collect()
    }
}

/// One watch.
#[derive(Debug)]
pub(crate) struct KindHealth {
    watched: &'static Watched,
    pace: Arc<Pace>,
    objects: AtomicU64,
    facts: AtomicU64,
    refused: AtomicU64,
    events: AtomicU64,
    lists: AtomicU64,
    expired: AtomicU64,
    failures: AtomicU64,
    strange: AtomicU64,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    last_event: Option<UnixNanos>,
    complete: bool,
    /// What is wrong since when.
    failing: Option<(UnixNanos, Failure)>,
}

impl KindHealth {
    fn of(watched: &'static Watched) -> Self {
        Self {
            watched,
            pace: Pace::new(|| UnixNanos(0)),
            objects: AtomicU64::new(0),
            facts: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            events: AtomicU64::new(0),
            lists: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            strange: AtomicU64::new(0),
            now: Mutex::default(),
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hear(&self, heard: &Heard, at: UnixNanos) {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        let mut now = self.now();
        match heard {
            Heard::Failed(failure) if failure.kind == FailureKind::Expired => {
                count(&self.expired);
            }
            Heard::Failed(failure) => {
                count(&self.failures);
                let since = now.failing.as_ref().map(|(since, _)| *since).filter(|since| !self.is_well_since(*since));
                let since = since.unwrap_or(at);
                if now.failing.as_ref().is_none_or(|(_, known)| known.kind != failure.kind) {
                    tracing::warn!(kind = self.watched.kind, "{}", failure.detail);
                }
                now.failing = Some((since, failure.clone()));
            }
            Heard::Listing => {}
            Heard::Listed(_) => {
                count(&self.events);
            }
            Heard::Complete => {
                count(&self.lists);
                (now.complete, now.failing, now.last_event) = (true, None, Some(at));
            }
            Heard::Changed(_) | Heard::Gone(_) => {
                count(&self.events);
                (now.failing, now.last_event) = (None, Some(at));
            }
            Heard::Strange { .. } => {
                count(&self.strange);
            }
        }
    }

    pub(super) fn holds(&self, objects: usize, facts: usize, refused: u64) {
        self.objects.store(objects as u64, Ordering::Relaxed);
        self.facts.store(facts as u64, Ordering::Relaxed);
        self.refused.store(refused, Ordering::Relaxed);
    }

    /// Whether something good was heard after a failure: a watch that was taken up and has nothing to tell is well.
    fn is_well_since(&self, failure: UnixNanos) -> bool {
        self.pace.heard().is_some_and(|heard| heard > failure)
    }

    fn row(&self) -> StatusRow {
        let now = self.now();
        let heard = self.pace.heard();
        let failing = now.failing.as_ref().filter(|(since, _)| !self.is_well_since(*since));
        let refused = self.refused.load(Ordering::Relaxed);
        let (health, detail) = if let Some((since, failure)) = failing {
            let known = if now.complete { "what is known of it grows old" } else { "nothing is known of it" };
            ("degraded", format!("{} (since {}); {known}", failure.detail, rfc3339(*since)))
        } else if !now.complete {
            ("degraded", format!("the first list of {} is not complete yet", self.watched.call.resource))
        } else if refused > 0 {
            ("degraded", format!("{refused} facts are beyond what one server holds and are not known"))
        } else {
            ("healthy", String::new())
        };
        let requests = self.pace.requests();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = [
            ("objects", read(&self.objects)),
            ("facts_open", read(&self.facts)),
            ("facts_refused", refused),
            ("events", read(&self.events)),
            ("lists", read(&self.lists)),
            ("expired", read(&self.expired)),
            ("failures", read(&self.failures)),
            ("strange_objects", read(&self.strange)),
            ("list_requests", requests.lists),
            ("watch_requests", requests.watches),
        ];
        StatusRow {
            kind: "watch".into(),
            name: self.watched.call.resource.into(),
            health: health.into(),
            detail,
            version: String::new(),
            last_seen: heard.or(now.last_event).map(rfc3339),
            counters: counters.map(|(name, value)| (name.to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>(),
        }
    }
}
