//! What the fallback cannot see of the kinds of traffic, by its own words (`cannot_see` in the tracer's `/status`).
//!
//! Nothing else may differ: neither one byte, nor a row too many, nor the wrong process instead of none.

use super::{Difference, Holds};
use crate::checker::{Kind, View};

const ENDS: &[View] = &[View::Feed, View::Transactions];
const ALL: &[View] = &[View::Feed, View::Transactions, View::Edges];

/// What differs in a scenario of this name.
pub fn differs(scenario: &str) -> Vec<Difference> {
    let kind = scenario.rsplit_once(", IPv").map_or(scenario, |(kind, _)| kind);
    if kind.starts_with("UDP") || kind == "DNS" {
        return of(ALL, "udp", &[Kind::Missing], Holds::InEach);
    }
    if kind == "TCP, refused" {
        return of(ALL, "failed_connects", &[Kind::Missing], Holds::InEach);
    }
    // A fetch that falls into the life of a connection sees more of it: that is chance.
    let mut known = of(ENDS, "owner_of_short_lived", &[Kind::Ownerless], Holds::InSome);
    let discarded = || of(ENDS, "discarded_totals", &[Kind::Missing, Kind::Bytes, Kind::OneShort], Holds::InSome);
    match kind {
        "TCP, reset by the server" => {
            known.extend(discarded());
            known.extend(of(ENDS, "opener_of_reset", &[Kind::Undirected], Holds::ByChance));
        }
        "TCP, one socket used for three"
        | "TCP, one tuple used for ten"
        | "TCP, reset by the client"
        | "TCP, reset with megabytes queued" => {
            known.extend(discarded());
            known.extend(of(ENDS, "last_byte", &[Kind::OneShort], Holds::ByChance));
            // It is the client's end that is not told.
            let kinds = &[Kind::Missing, Kind::Connections, Kind::Bytes];
            known.extend(of(&[View::Edges], "discarded_totals", kinds, Holds::InSome));
        }
        _ => (),
    }
    known
}

fn of(views: &'static [View], what: &'static str, kinds: &'static [Kind], holds: Holds) -> Vec<Difference> {
    views.chunks(1).map(|views| Difference { what, views, kinds, holds }).collect()
}
