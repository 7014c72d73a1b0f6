//! Views through translations that lie between them (R5).
//!
//! A client's view whose tuple a node translates gets the tuple behind it, node by node; then pairing finds the server's
//! view. Back the other way, a server's view finds the opener's own address where the opener has no view. Both are pure
//! functions of the sets of views and translations.
//!
//! A tuple is used again, so a translation goes to one view: of several that had its tuple, to the one that began
//! nearest to it. Where two had it at once, or where a translation was not seen to begin and two could have had it,
//! nobody knows, and nobody gets it.

use crate::pairing::{SLACK_NS, View};
use std::collections::{BTreeSet, HashMap};
use weir_model::{ConnectionId, Protocol, Tuple, UnixNanos};
use weir_store::Translation;

/// Nodes that a connection passes: the client's, the one that was asked for, and a balancer before it.
pub(crate) const HOPS_MAX: usize = 3;
/// A view whose start is not known may be that much older than its first record. What lives is told again every 30
/// minutes.
const OLDER_NS: i64 = 31 * 60 * 1_000_000_000;

/// The start of an interval in which a translation of this view can have been seen, and its end.
fn reach(view: &View) -> (i64, i64) {
    let from = view.from.plus(if view.opened { -SLACK_NS } else { -OLDER_NS });
    (from.0, view.to.plus(SLACK_NS).0)
}

fn could_have(view: &View, translation: &Translation) -> bool {
    let (from, to) = reach(view);
    (from..=to).contains(&translation.seen.0)
}

fn distance(from: UnixNanos, translation: &Translation) -> i64 {
    translation.seen.since(from).saturating_abs()
}

/// Gives every view that translations lead on the tuple behind them.
pub(crate) fn carry(views: &mut [View], translations: &BTreeSet<Translation>) {
    if translations.is_empty() {
        return;
    }
    let mut by_original: HashMap<(Protocol, Tuple), Vec<&Translation>> = HashMap::new();
    for translation in translations {
        by_original.entry((translation.protocol, translation.original)).or_default().push(translation);
    }
    let mut moving: Vec<usize> = (0..views.len()).collect();
    for _ in 0..HOPS_MAX {
        let mut with: HashMap<(Protocol, Tuple), Vec<usize>> = HashMap::new();
        for &index in &moving {
            let key = (views[index].protocol, views[index].tuple);
            if by_original.contains_key(&key) {
                with.entry(key).or_default().push(index);
            }
        }
        let mut chosen: HashMap<usize, &Translation> = HashMap::new();
        for (key, candidates) in &with {
            for translation in &by_original[key] {
                let Some(index) = owner(views, candidates, translation) else { continue };
                let from = views[index].from;
                let better =
                    |held: &&Translation| (distance(from, held), *held) <= (distance(from, translation), translation);
                if !chosen.get(&index).is_some_and(better) {
                    chosen.insert(index, translation);
                }
            }
        }
        if chosen.is_empty() {
            return;
        }
        moving = chosen.keys().copied().collect();
        for (index, translation) in chosen {
            views[index].tuple = translation.translated;
        }
    }
}

/// The one of `candidates`, which all had the translation's tuple, that it is of.
fn owner(views: &[View], candidates: &[usize], translation: &Translation) -> Option<usize> {
    let could: Vec<usize> =
        candidates.iter().copied().filter(|&index| could_have(&views[index], translation)).collect();
    let alive = |index: &&usize| {
        let view = &views[**index];
        view.from <= translation.seen && translation.seen <= view.to
    };
    if could.iter().filter(alive).count() > 1 || (!translation.began && could.len() > 1) {
        return None;
    }
    could.into_iter().min_by_key(|&index| (distance(views[index].from, translation), views[index].id))
}

/// The connection that reached a server's view as its opener knows it, as far as translations tell: the opener's own end
/// is its local one, what it asked for the remote one.
pub(crate) fn origin(view: &View, by_translated: &ByTranslated<'_>) -> Option<Tuple> {
    let mut tuple = view.tuple.reversed();
    for _ in 0..HOPS_MAX {
        let Some(translation) = by_translated.find(view, tuple) else { break };
        tuple = translation.original;
    }
    (tuple != view.tuple.reversed()).then_some(tuple)
}

/// Translations by what lies behind them.
#[derive(Debug, Default)]
pub(crate) struct ByTranslated<'a> {
    found: HashMap<(Protocol, Tuple), Vec<&'a Translation>>,
}

impl<'a> ByTranslated<'a> {
    pub(crate) fn of(translations: &'a BTreeSet<Translation>) -> Self {
        let mut found: HashMap<(Protocol, Tuple), Vec<&Translation>> = HashMap::new();
        for translation in translations {
            found.entry((translation.protocol, translation.translated)).or_default().push(translation);
        }
        Self { found }
    }

    /// The translation of `view`'s connection that leads to `tuple`. Several that could be it must agree on the opener,
    /// unless one of them was seen to begin as the view did.
    fn find(&self, view: &View, tuple: Tuple) -> Option<&'a Translation> {
        let could: Vec<&Translation> = self
            .found
            .get(&(view.protocol, tuple))?
            .iter()
            .copied()
            .filter(|translation| could_have(view, translation))
            .collect();
        let nearest = could
            .iter()
            .copied()
            .filter(|translation| translation.began && distance(view.from, translation) <= SLACK_NS)
            .min_by_key(|translation| (distance(view.from, translation), *translation));
        let first = could.first()?;
        let agree = could.iter().all(|translation| translation.original == first.original);
        nearest.or(agree.then_some(*first))
    }
}

/// Every server's view that stayed alone, with who opened it.
pub(crate) fn origins<'a>(
    lonely: impl Iterator<Item = &'a View>,
    translations: &BTreeSet<Translation>,
) -> HashMap<ConnectionId, Tuple> {
    if translations.is_empty() {
        return HashMap::new();
    }
    let by_translated = ByTranslated::of(translations);
    lonely.filter_map(|view| Some((view.id, origin(view, &by_translated)?))).collect()
}

#[cfg(test)]
#[path = "translations_tests.rs"]
mod tests;
