//! Who holds a key (an address, a network namespace, a pid, a port) and when: claims with their validity.
//!
//! A claim is *sure* within `[from, to)` and *possible* within `[early, late)`. Its sure part is what the best source
//! (see `precedence`) says, cut where any other source says that it ended; its possible part is whatever any source says.
//! A holder is named only where exactly one is sure and nobody else is possible, the uncertainty of clocks included.

use super::slab::Slab;
use hashbrown::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};

/// How far apart the clocks of two nodes may be, nanoseconds: NTP keeps machines within some 10 ms, kubelets write
/// times in whole seconds, so that a time may be a second off and more would be a broken clock, which R7 tells of. So
/// close to a change of holders nobody is named.
pub const UNCERTAINTY_NS: i64 = 1_000_000_000;
/// The end of what has not ended.
pub(crate) const OPEN: i64 = i64::MAX;

/// One holder's claim for one span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim {
    pub(crate) thing: u32,
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) early: i64,
    pub(crate) late: i64,
}

impl Claim {
    pub(crate) fn is_sure(&self, at: i64) -> bool {
        self.from <= at && at < self.to
    }

    /// Whether it may have held at `at`, the clocks' uncertainty included.
    pub(crate) fn is_possible(&self, at: i64) -> bool {
        self.early.saturating_sub(UNCERTAINTY_NS) <= at && at < self.late.saturating_add(UNCERTAINTY_NS)
    }
}

/// The claims for a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Claims<'a> {
    One(Claim),
    Many(&'a [Claim]),
}

impl Claims<'_> {
    pub(crate) fn as_slice(&self) -> &[Claim] {
        match self {
            Self::One(claim) => std::slice::from_ref(claim),
            Self::Many(claims) => claims,
        }
    }
}

/// The claims for a key as they are kept: most keys have one, sure for as long as it is possible.
#[derive(Clone, Copy, Debug)]
struct Slot {
    thing: u32,
    /// Where the claims are if there are more, else `NONE`.
    many: u32,
    from: i64,
    to: i64,
}

const NONE: u32 = u32::MAX;

/// Every claim by key.
#[derive(Debug)]
pub(crate) struct ClaimsByKey<K> {
    table: HashMap<K, Slot>,
    many: Slab<Vec<Claim>>,
}

impl<K> Default for ClaimsByKey<K> {
    fn default() -> Self {
        Self { table: HashMap::new(), many: Slab::default() }
    }
}

impl<K: Eq + Hash> ClaimsByKey<K> {
    /// Every claim for a key; none when nobody ever claimed it.
    pub(crate) fn claims(&self, key: &K) -> Claims<'_> {
        match self.table.get(key) {
            None => Claims::Many(&[]),
            Some(slot) if slot.many == NONE => Claims::One(slot.claim()),
            Some(slot) => Claims::Many(&self.many[slot.many]),
        }
    }

    pub(crate) fn insert(&mut self, key: K, claim: Claim) {
        let is_plain = claim.from == claim.early && claim.to == claim.late;
        match self.table.entry(key) {
            hashbrown::hash_map::Entry::Vacant(place) => {
                let many = if is_plain { NONE } else { self.many.insert(vec![claim]) };
                place.insert(Slot { thing: claim.thing, many, from: claim.from, to: claim.to });
            }
            hashbrown::hash_map::Entry::Occupied(mut place) => {
                let slot = place.get_mut();
                if slot.many == NONE {
                    slot.many = self.many.insert(vec![slot.claim()]);
                }
                self.many[slot.many].push(claim);
            }
        }
    }

    /// Removes every claim of a thing for a key.
    pub(crate) fn remove(&mut self, key: K, thing: u32) {
        let hashbrown::hash_map::Entry::Occupied(mut place) = self.table.entry(key) else { return };
        let slot = *place.get();
        if slot.many == NONE {
            if slot.thing == thing {
                place.remove();
            }
            return;
        }
        let claims = &mut self.many[slot.many];
        claims.retain(|claim| claim.thing != thing);
        match claims.as_slice() {
            [] => {
                place.remove();
            }
            [only] if only.from == only.early && only.to == only.late => {
                place.insert(Slot { thing: only.thing, many: NONE, from: only.from, to: only.to });
            }
            _ => return,
        }
        self.many[slot.many] = Vec::new();
        self.many.free(slot.many);
    }
}

/// Every claim by address: IPv4 apart, where two places share a line of the processor's cache.
#[derive(Debug, Default)]
pub(crate) struct ClaimsByAddress {
    v4: ClaimsByKey<u32>,
    v6: ClaimsByKey<Ipv6Addr>,
}

impl ClaimsByAddress {
    pub(crate) fn claims(&self, address: &IpAddr) -> Claims<'_> {
        match address {
            IpAddr::V4(v4) => self.v4.claims(&v4.to_bits()),
            IpAddr::V6(v6) => self.v6.claims(v6),
        }
    }

    pub(crate) fn insert(&mut self, address: IpAddr, claim: Claim) {
        match address {
            IpAddr::V4(v4) => self.v4.insert(v4.to_bits(), claim),
            IpAddr::V6(v6) => self.v6.insert(v6, claim),
        }
    }

    pub(crate) fn remove(&mut self, address: IpAddr, thing: u32) {
        match address {
            IpAddr::V4(v4) => self.v4.remove(v4.to_bits(), thing),
            IpAddr::V6(v6) => self.v6.remove(v6, thing),
        }
    }
}

impl Slot {
    fn claim(&self) -> Claim {
        Claim { thing: self.thing, from: self.from, to: self.to, early: self.from, late: self.to }
    }
}

/// One source's saying that a key was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Said {
    /// The source's place in the order of precedence; lower is better.
    pub(crate) rank: u8,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// A thing's claims for one key from everything that sources say about it; `said` is sorted in place.
pub(crate) fn merge(thing: u32, said: &mut [Said], take: &mut impl FnMut(Claim)) {
    said.sort_unstable();
    let Some(best) = said.first().map(|said| said.rank) else { return };
    // A source that says nothing but ended spans says that it is over.
    let mut over = OPEN;
    for of_source in said.chunk_by(|a, b| a.rank == b.rank) {
        over = over.min(of_source.iter().map(|said| said.to).max().unwrap_or(OPEN));
    }
    let of_best = said.iter().take_while(|said| said.rank == best).map(|said| (said.from, said.to.min(over)));
    let sure = joined(of_best.filter(|(from, to)| from < to).collect());
    let possible = joined(said.iter().map(|said| (said.from, said.to)).collect());
    for (early, late) in possible {
        let mut any = false;
        for (from, to) in sure.iter().copied().filter(|(from, _)| early <= *from && *from < late) {
            take(Claim { thing, from, to, early, late });
            any = true;
        }
        if !any {
            take(Claim { thing, from: early, to: early, early, late });
        }
    }
}

/// Spans with those that touch made one.
fn joined(mut spans: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    spans.sort_unstable();
    let mut joined: Vec<(i64, i64)> = Vec::with_capacity(spans.len());
    for (from, to) in spans {
        match joined.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => joined.push((from, to)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(said: &[(u8, i64, i64)]) -> Vec<(i64, i64, i64, i64)> {
        let mut said: Vec<Said> = said.iter().map(|&(rank, from, to)| Said { rank, from, to }).collect();
        let mut claims = Vec::new();
        merge(0, &mut said, &mut |claim| claims.push((claim.from, claim.to, claim.early, claim.late)));
        claims
    }

    #[test]
    fn the_best_source_says_from_when_and_the_first_end_is_the_end() {
        assert_eq!(merged(&[(2, 12, OPEN), (0, 10, OPEN)]), [(10, OPEN, 10, OPEN)]);
        assert_eq!(merged(&[(2, 12, 20), (0, 10, OPEN)]), [(10, 20, 10, OPEN)]);
        assert_eq!(merged(&[(2, 12, OPEN), (0, 10, 30)]), [(10, 30, 10, OPEN)]);
        assert_eq!(merged(&[(2, 5, 8), (0, 10, 30)]), [(5, 5, 5, 8), (10, 10, 10, 30)], "contradiction: never sure");
    }

    #[test]
    fn a_source_that_speaks_anew_goes_on_with_what_it_said() {
        assert_eq!(merged(&[(0, 10, OPEN), (0, 50, OPEN)]), [(10, OPEN, 10, OPEN)]);
        assert_eq!(merged(&[(0, 10, 20), (0, 30, OPEN)]), [(10, 20, 10, 20), (30, OPEN, 30, OPEN)]);
    }

    #[test]
    fn removing_a_holder_leaves_the_others() {
        let mut claims = ClaimsByKey::default();
        for thing in 0..3 {
            claims.insert(7, Claim { thing, from: 0, to: 1, early: 0, late: 1 });
        }
        claims.remove(7, 1);
        assert_eq!(claims.claims(&7).as_slice().iter().map(|claim| claim.thing).collect::<Vec<_>>(), [0, 2]);
        claims.remove(7, 0);
        claims.remove(7, 2);
        assert_eq!((claims.claims(&7).as_slice().len(), claims.table.len()), (0, 0));
    }
}
