//! What becomes of a fact when its thing is said again. Pure.

use weir_discovery::said::Said;
use weir_model::fact::kind;
use weir_wire::agent::MetadataFact;

/// What to tell.
#[derive(Debug, PartialEq)]
pub(super) struct Settled {
    /// The former fact's end, where another one takes its place.
    pub(super) ended: Option<MetadataFact>,
    /// The present fact.
    pub(super) fact: MetadataFact,
}

/// Compares what is said at `at` with what was said before, at `seen` at the latest (wall nanoseconds).
///
/// A fact's name, addresses, namespace and owner hold for its whole interval, so one that changes begins a fact of its
/// own, and only one that was not known yet is filled in. A start after `seen` is another life under the same id.
pub(super) fn settle(former: Option<&MetadataFact>, said: Said, source: &str, seen: i64, at: i64) -> Settled {
    let start = said.from.map(|from| from.0).filter(|from| *from > 0);
    let mut fact = fact(said, source);
    let Some(former) = former else {
        fact.from_unix_ns = bound(start.unwrap_or(at), fact.to_unix_ns);
        return Settled { ended: None, fact };
    };
    let is_over = fact.to_unix_ns != 0;
    keep_what_it_held(&mut fact, former);
    let later_start = start.filter(|start| *start > former.from_unix_ns);
    let was_over = former.to_unix_ns != 0;
    let another_life =
        later_start.is_some_and(|start| start > seen) || was_over && !is_over && start != Some(former.from_unix_ns);
    if another_life || contradicts(former, &fact) {
        let ended = (!was_over).then(|| ended(former.clone(), seen));
        let after = ended.as_ref().unwrap_or(former).to_unix_ns;
        // For sure since now; earlier only where the source itself says so.
        fact.from_unix_ns = bound(later_start.filter(|start| *start >= after).unwrap_or(at), fact.to_unix_ns);
        return Settled { ended, fact };
    }
    if fact.addresses.len() > former.addresses.len() && !was_over {
        // It holds more than before, and what it held it holds still: one fact follows the other without a gap.
        let is_filled_in = former.addresses.is_empty() && start.is_some() && later_start.is_none();
        if !is_filled_in {
            let from = later_start.unwrap_or(at).min(at);
            fact.from_unix_ns = bound(from, fact.to_unix_ns);
            return Settled { ended: Some(ended(former.clone(), from)), fact };
        }
    }
    fact.from_unix_ns = former.from_unix_ns;
    if is_over {
        fact.to_unix_ns = fact.to_unix_ns.max(fact.from_unix_ns);
    }
    Settled { ended: None, fact }
}

/// The fact's end, where nobody says when that was: it held until it was seen last.
pub(super) fn ended(fact: MetadataFact, seen: i64) -> MetadataFact {
    let to_unix_ns = seen.max(fact.from_unix_ns);
    MetadataFact { to_unix_ns, ..fact }
}

/// A start is not after the end.
fn bound(from: i64, to: i64) -> i64 {
    if to == 0 { from } else { from.min(to) }
}

/// What a source does not say any more, and what cannot have changed: a namespace that may not be read just now; the
/// address of a pod that is over, which its status has often lost.
fn keep_what_it_held(fact: &mut MetadataFact, former: &MetadataFact) {
    if fact.netns == 0 {
        fact.netns = former.netns;
    }
    if fact.addresses.is_empty() && fact.to_unix_ns != 0 {
        fact.addresses.clone_from(&former.addresses);
    }
    for (now, before) in
        [(&mut fact.name, &former.name), (&mut fact.namespace, &former.namespace), (&mut fact.parent, &former.parent)]
    {
        if now.is_empty() {
            now.clone_from(before);
        }
    }
}

fn contradicts(former: &MetadataFact, fact: &MetadataFact) -> bool {
    let differ = |before: &str, now: &str| !before.is_empty() && before != now;
    // A process takes another name as it executes another program, and stays the same process.
    let renamed = fact.kind != kind::PROCESS && differ(&former.name, &fact.name);
    renamed
        || differ(&former.namespace, &fact.namespace)
        || differ(&former.parent, &fact.parent)
        || former.netns != 0 && former.netns != fact.netns
        || former.addresses.iter().any(|held| !fact.addresses.contains(held))
}

fn fact(said: Said, source: &str) -> MetadataFact {
    let mut addresses: Vec<String> = said.addresses.iter().map(|ip| ip.to_canonical().to_string()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    MetadataFact {
        kind: said.kind.into(),
        source: source.into(),
        id: said.id,
        addresses,
        name: said.name,
        namespace: said.namespace,
        parent: said.parent,
        netns: said.netns,
        from_unix_ns: 0,
        to_unix_ns: said.to.map_or(0, |to| to.0.max(1)),
        attributes: said.attributes.into_iter().collect(),
    }
}
