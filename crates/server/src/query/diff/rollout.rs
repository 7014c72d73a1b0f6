//! When a workload was rolled out last: its newest ReplicaSet was made then.

use crate::query::params::Span;
use crate::query::{Sources, Unanswered, rfc3339};
use std::collections::{BTreeMap, BTreeSet};
use weir_model::UnixNanos;
use weir_model::fact::{attribute, kind};

/// Names in a text at most.
const NAMED_MAX: usize = 10;

/// The spans before and after the newest rollout of `NAMESPACE/DEPLOYMENT`, `window` nanoseconds each; the later one is
/// shorter while less has passed.
pub(crate) fn spans(
    sources: &Sources,
    workload: &str,
    window: i64,
    now: UnixNanos,
) -> Result<(Span, Span), Unanswered> {
    let (view, _) = sources.live.read(&*sources.store)?;
    let mut made: BTreeMap<String, UnixNanos> = BTreeMap::new();
    let mut known = BTreeSet::new();
    view.facts(&[kind::REPLICA_SET], &mut |fact| {
        let owner = fact.attributes.get(attribute::OWNER_NAME).map_or("", String::as_str);
        let name = format!("{}/{owner}", fact.namespace);
        if name == workload {
            // A ReplicaSet has a fact for each state that it was in.
            let at = made.entry(fact.id).or_insert(fact.from);
            *at = (*at).min(fact.from);
        }
        if !owner.is_empty() {
            known.insert(name);
        }
    })?;
    let Some(at) = made.into_values().max() else {
        let names: Vec<String> = known.iter().take(NAMED_MAX).cloned().collect();
        let known = match names.as_slice() {
            [] => "none is known: the server watches them in a cluster (`weir doctor` says whether it may)".to_owned(),
            names => format!("known are those of {}", names.join(", ")),
        };
        return Err(Unanswered::Question(format!(
            "parameter `rollout` is `{workload}`, of which no ReplicaSet is known; {known}; write NAMESPACE/DEPLOYMENT"
        )));
    };
    if at >= now {
        return Err(Unanswered::Question(format!(
            "parameter `rollout`: the newest ReplicaSet of `{workload}` was made at {}, which is not over yet by the \
             server's clock",
            rfc3339(at)
        )));
    }
    Ok(((at.plus(-window), at), (at, at.plus(window).min(now))))
}
