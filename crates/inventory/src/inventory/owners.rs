//! Owner chains: from a pod to what a person deployed.
//!
//! Pod → ReplicaSet → Deployment, pod → Job → CronJob; StatefulSets, DaemonSets and controllers that weir does not know
//! own their pods themselves. A bare pod and a static one (owned by its node) are their own workloads. Where the
//! ReplicaSet is not known, its name less the pod template's hash is its Deployment's.

use super::Inventory;
use super::strings::Symbol;
use super::things::{Kind, NONE};
use super::who::Workload;
use weir_model::Certainty;

/// The kind of an owner that has an owner of its own.
pub(super) fn kind_between(kind: &str) -> Option<Kind> {
    match kind {
        "ReplicaSet" => Some(Kind::ReplicaSet),
        "Job" => Some(Kind::Job),
        _ => None,
    }
}

/// `StatefulSet` as `stateful_set`.
pub(super) fn snake_case(kind: &str) -> String {
    let mut text = String::with_capacity(kind.len() + 2);
    let mut was_lower = false;
    for letter in kind.chars() {
        if letter.is_uppercase() && was_lower {
            text.push('_');
        }
        was_lower = letter.is_lowercase() || letter.is_ascii_digit();
        text.extend(letter.to_lowercase());
    }
    text
}

impl Inventory {
    /// What a pod belongs to.
    pub(super) fn workload(&self, pod: u32) -> Workload<'_> {
        let thing = self.things.get(pod);
        let text = |symbol: Symbol| self.strings.text(symbol);
        let named = |kind, name, certainty| Workload { kind, namespace: text(thing.namespace), name, certainty };
        let owner_kind = text(thing.owner_kind);
        if owner_kind.is_empty() || owner_kind == "node" {
            // A source that does not tell owners leaves it open.
            let certainty = if thing.has_owner_told { Certainty::Known } else { Certainty::Unknown };
            return named("pod", text(thing.name), certainty);
        }
        if thing.owner == NONE {
            let has_more = matches!(owner_kind, "replica_set" | "job");
            let certainty = if has_more { Certainty::Unknown } else { Certainty::Known };
            return named(owner_kind, text(thing.owner_name), certainty);
        }
        let owner = self.things.get(self.things.resolve(thing.owner));
        if owner.first != NONE {
            return if owner.owner_kind.is_empty() {
                named(owner_kind, text(thing.owner_name), Certainty::Known)
            } else {
                named(text(owner.owner_kind), text(owner.owner_name), Certainty::Known)
            };
        }
        if owner.kind == Kind::ReplicaSet
            && let Some(name) = self.deployment_by_hash(pod, text(thing.owner_name))
        {
            return named("deployment", name, Certainty::Inferred);
        }
        named(owner_kind, text(thing.owner_name), Certainty::Unknown)
    }

    fn deployment_by_hash<'a>(&'a self, pod: u32, replica_set: &'a str) -> Option<&'a str> {
        let hash = self.attribute_of(pod, self.words.pod_template_hash)?;
        replica_set.strip_suffix(hash)?.strip_suffix('-').filter(|name| !name.is_empty() && !hash.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_written_in_snake_case() {
        for (kind, text) in [
            ("Deployment", "deployment"),
            ("StatefulSet", "stateful_set"),
            ("CronJob", "cron_job"),
            ("RayCluster", "ray_cluster"),
            ("VM", "vm"),
        ] {
            assert_eq!(snake_case(kind), text);
        }
    }
}
