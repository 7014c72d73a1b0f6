//! What is forgotten: facts of what ended long ago, facts of nodes that are gone for good, and the texts that only those
//! referred to.
//!
//! Everything is walked to find it, which takes half a second at the size of a large cluster. So it is planned while others
//! read, and done in steps between which they read on: [`Inventory::plan_expiry`], [`Inventory::expire_next`],
//! [`Inventory::plan_sweep`], [`Inventory::sweep_next`]. [`Inventory::expire`] does all of it at once.

use super::Inventory;
use super::strings::{Strings, Symbol};
use super::things::Saying;
use weir_model::UnixNanos;

/// How long it is kept that a node of which nothing is said any more was vouched for: a day, as facts that ended.
const REMEMBERED_NS: i64 = 24 * 3600 * 1_000_000_000;

/// Facts to be forgotten: [`Inventory::plan_expiry`].
#[derive(Debug)]
pub struct Expiry {
    things: Vec<u32>,
    done: usize,
    before: i64,
    /// Nodes of which also what has no end is forgotten.
    gone: Vec<Symbol>,
}

/// Texts and things to be freed: [`Inventory::plan_sweep`].
#[derive(Debug)]
pub struct Sweep {
    changes: u64,
    things: Vec<u32>,
    done: usize,
    strings: Strings,
    live: Vec<bool>,
}

impl Inventory {
    /// Forgets what ended before an instant, and frees what only that referred to. Says how many facts it were.
    pub fn expire(&mut self, before: UnixNanos) -> usize {
        let expiry = self.plan_expiry(before, &[]);
        self.expire_at_once(expiry)
    }

    /// What ended before an instant; and of `gone`, nodes whose agents are gone for good, everything that was said before
    /// it: what nobody ended was over, as far as anybody knows, when its node was last vouched for.
    pub fn plan_expiry(&self, before: UnixNanos, gone: &[&str]) -> Expiry {
        self.plan(before.0, gone.iter().filter_map(|node| self.strings.find(node)).collect())
    }

    /// The oldest of what is over, where that is so much that there is hardly room for more. Without it, what is learned
    /// makes room by itself, at once.
    pub fn plan_room(&self) -> Option<Expiry> {
        let limit = self.limits.tombstones - self.limits.tombstones / 8;
        (self.things.ended() > limit).then(|| self.plan_oldest())
    }

    /// Forgets what a plan says of up to `things` things. Says how many facts it were; `None` when everything is done.
    pub fn expire_next(&mut self, expiry: &mut Expiry, things: usize) -> Option<usize> {
        let Expiry { things: all, done, before, gone } = expiry;
        let next = all.get(*done..).filter(|left| !left.is_empty())?;
        let next = &next[..things.min(next.len())];
        *done += next.len();
        self.changes += 1;
        let mut forgotten = 0;
        for thing in next.iter().copied() {
            self.unindex(thing);
            let stays = |saying: &Saying| !is_over(saying, *before, gone);
            forgotten += self.things.retain_sayings(thing, stays);
            self.resolve(thing);
            self.index(thing);
        }
        Some(forgotten)
    }

    /// What can be freed, if so much is new that it pays; `forgotten` facts since the last time.
    pub fn plan_sweep(&self, forgotten: usize) -> Option<Sweep> {
        let is_due = self.strings.is_due() || forgotten > 0 && forgotten >= self.things.sayings_len() / 2;
        is_due.then(|| self.plan_whole_sweep())
    }

    /// Frees up to `things` things of a plan; the texts with the last ones. True while there is more to do. A plan from
    /// before another change is void: nothing of it is done any more.
    pub fn sweep_next(&mut self, sweep: &mut Sweep, things: usize) -> bool {
        if sweep.changes != self.changes {
            return false;
        }
        let left = sweep.things.len() - sweep.done;
        let next = &sweep.things[sweep.done..][..things.min(left)];
        for thing in next {
            self.things.free(*thing, &self.strings);
        }
        sweep.done += next.len();
        if sweep.done < sweep.things.len() {
            return true;
        }
        // The old texts are freed with the plan, by whoever holds it.
        std::mem::swap(&mut self.strings, &mut sweep.strings);
        self.vouches.retain(|node| sweep.live[node.index()]);
        self.changes += 1;
        false
    }

    /// Whether there is room for one more fact, made where tombstones take it.
    pub(super) fn has_room(&mut self) -> bool {
        let ended = self.things.ended();
        if self.is_full() && ended > 0 || ended > self.limits.tombstones {
            let expiry = self.plan_oldest();
            self.refused.early += self.expire_at_once(expiry) as u64;
            if self.is_full() {
                let sweep = self.plan_whole_sweep();
                self.sweep(sweep);
            }
        }
        !self.is_full()
    }

    /// A quarter of what is over, so that it is not to be done again soon.
    fn plan_oldest(&self) -> Expiry {
        let mut ends = self.things.ends();
        let place = ends.len() / 4;
        let last = if ends.is_empty() { i64::MIN } else { *ends.select_nth_unstable(place).1 };
        self.plan(last.saturating_add(1), Vec::new())
    }

    fn expire_at_once(&mut self, mut expiry: Expiry) -> usize {
        let mut forgotten = 0;
        while let Some(more) = self.expire_next(&mut expiry, usize::MAX) {
            forgotten += more;
        }
        if let Some(sweep) = self.plan_sweep(forgotten) {
            self.sweep(sweep);
        }
        forgotten
    }

    fn sweep(&mut self, mut sweep: Sweep) {
        while self.sweep_next(&mut sweep, usize::MAX) {}
    }

    fn plan(&self, before: i64, mut gone: Vec<Symbol>) -> Expiry {
        gone.sort_unstable();
        let things = &self.things;
        let over = things.told().filter(|thing| things.sayings(*thing).any(|saying| is_over(saying, before, &gone)));
        Expiry { things: over.collect(), done: 0, before, gone }
    }

    fn plan_whole_sweep(&self) -> Sweep {
        let mut live = vec![false; self.strings.capacity()];
        let things = self.things.dead(&mut live);
        // Of a node that is gone not even that it was vouched for is kept.
        let recently = self.vouches.latest().saturating_sub(REMEMBERED_NS);
        for symbol in self.words.all().into_iter().chain(self.vouches.recent(recently)) {
            live[symbol.index()] = true;
        }
        Sweep { changes: self.changes, things, done: 0, strings: self.strings.swept(&live), live }
    }
}

/// Whether a saying is of what ended before `before`, or was said before it by one of the nodes in `gone`, which are sorted.
fn is_over(saying: &Saying, before: i64, gone: &[Symbol]) -> bool {
    if saying.has_ended() {
        return saying.to < before;
    }
    !gone.is_empty() && saying.said < before && gone.binary_search(&saying.node).is_ok()
}
