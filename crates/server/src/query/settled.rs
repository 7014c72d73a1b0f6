//! Ends and edges as they are settled, and back: what they are called then is what they are called from then on.

use super::ends::{End, Owned};
use super::naming::{ATTRIBUTED, Via};
use super::params::{Grouping, Question};
use std::net::{IpAddr, Ipv4Addr};
use weir_model::{Certainty, Endpoint};
use weir_store::{EdgeTotal, SettledEnd, SettledName};
use weir_wire::filter::Field;

/// An end as it is kept.
pub(crate) fn settle(end: &End) -> SettledEnd {
    let name = |kind: &str, namespace: &str, name: &str, certainty: Certainty| SettledName {
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        certainty: certainty.as_str().to_owned(),
    };
    let Endpoint { kind, namespace, name: called } = &end.endpoint;
    let workload = end.workload.as_ref();
    SettledEnd {
        endpoint: name(kind, namespace, called, end.certainty),
        workload: workload.map(|owned| name(&owned.kind, &owned.namespace, &owned.name, owned.certainty)),
        pod: end.pod.clone(),
        container: end.container.clone(),
        process: end.process.clone(),
        container_id: end.container_id.clone(),
        node: end.node.clone(),
        zone: end.zone.clone(),
        address: end.address.to_string(),
        is_seen: end.is_seen,
        attributes: end.attributes.clone(),
    }
}

/// The Service between a settled edge's ends, and how sure it is.
pub(crate) fn via(total: &EdgeTotal) -> (Via, Certainty) {
    let Some(settled) = &total.settled else {
        // Settled by a build that kept no more than the ends' names.
        return (Via::default(), Certainty::Inferred);
    };
    let via = Via {
        service: settled.service.clone(),
        certainty: settled.service_certainty.as_deref().map(Certainty::parse),
        candidates: settled.service_candidates.clone(),
    };
    (via, Certainty::parse(&settled.certainty))
}

/// A settled end as the question looks at it.
pub(crate) fn end(settled: &SettledEnd, question: &Question) -> End {
    let workload = settled.workload.as_ref().map(|owned| Owned {
        kind: owned.kind.clone(),
        namespace: owned.namespace.clone(),
        name: owned.name.clone(),
        certainty: Certainty::parse(&owned.certainty),
    });
    let attribute = match &question.by {
        Grouping::Attribute(name) => attributes(settled, name).next().map(ToOwned::to_owned),
        _ => None,
    };
    let is_labelled = question.label.as_ref().is_some_and(|(name, pattern)| {
        let own = match name.as_str() {
            "process" => settled.process.as_str(),
            "container_id" => settled.container_id.as_str(),
            "cgroup_path" => settled.attributes.get(name).map_or("", String::as_str),
            _ => "",
        };
        (!own.is_empty() && pattern.matches(own)) || attributes(settled, name).any(|value| pattern.matches(value))
    });
    let mut end = End {
        endpoint: settled.endpoint.endpoint(),
        workload,
        pod: settled.pod.clone(),
        container: settled.container.clone(),
        attribute,
        attributes: std::collections::BTreeMap::new(),
        is_labelled,
        fits: 0,
        process: settled.process.clone(),
        container_id: settled.container_id.clone(),
        node: settled.node.clone(),
        zone: settled.zone.clone(),
        address: settled.address.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        certainty: Certainty::parse(&settled.endpoint.certainty),
        is_seen: settled.is_seen,
    };
    for (place, comparison) in question.comparisons() {
        match &comparison.field {
            Field::Attribute(name) => end.note(place, comparison.is_text(attributes(settled, name).next())),
            Field::CgroupPath => {
                let path = settled.attributes.get("cgroup_path").map(String::as_str);
                end.note(place, comparison.is_text(path));
            }
            _ => {}
        }
    }
    end
}

/// What was collected under `NAME` or `KIND.NAME`, the nearest thing first.
fn attributes<'s>(settled: &'s SettledEnd, name: &str) -> impl Iterator<Item = &'s str> {
    let (of, name) = match name.split_once('.') {
        Some((of, name)) if ATTRIBUTED.contains(&of) => (Some(of), name),
        _ => (None, name),
    };
    let keys: Vec<String> = ATTRIBUTED
        .into_iter()
        .filter(|kind| of.is_none_or(|of| of == *kind))
        .map(|kind| format!("{kind}.{name}"))
        .collect();
    keys.into_iter().filter_map(|key| settled.attributes.get(&key).map(String::as_str))
}

/// One that was settled with no more than a name.
pub(crate) fn bare(endpoint: &Endpoint, question: &Question) -> End {
    let settled = SettledEnd {
        endpoint: SettledName {
            kind: endpoint.kind.clone(),
            namespace: endpoint.namespace.clone(),
            name: endpoint.name.clone(),
            certainty: Certainty::Known.as_str().to_owned(),
        },
        address: endpoint.name.clone(),
        ..SettledEnd::default()
    };
    end(&settled, question)
}
