//! The ends of a connection by name, under every grouping, and what the filters look at.
//!
//! Where a grouping has no value for an end, it falls back: `service` and `workload` to pod, container, process;
//! `process` to the workload; `namespace` to the node's name, `zone` to the node's; an end outside every known node
//! stays `external` with its address under every grouping.

use super::params::{Grouping, Question};
use super::selection::{Selection, Subject};
use std::net::IpAddr;
use weir_model::{Certainty, Side};
use weir_store::Endpoint;
use weir_wire::api::EdgeEnd;

/// Attribute of a node's fact that names its zone.
const ZONE: &str = "zone";

/// One end.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) endpoint: Endpoint,
    pub(crate) process: String,
    pub(crate) container_id: String,
    pub(crate) cgroup_path: String,
    pub(crate) node: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) address: IpAddr,
    pub(crate) certainty: Certainty,
}

/// A connection's two ends.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    pub(crate) client: End,
    pub(crate) server: End,
    pub(crate) server_port: u16,
}

impl Selection {
    /// The ends of a subject, in their roles.
    pub(crate) fn ends(&self, subject: &Subject) -> Ends {
        let verdict = self.verdicts.get(&subject.id);
        let own = self.own_end(subject);
        let counterpart = verdict.and_then(|verdict| verdict.counterpart).and_then(|id| self.subjects.get(&id));
        let other = match counterpart {
            Some(counterpart) => End { address: subject.tuple.remote.ip(), ..self.own_end(counterpart) },
            None => self.end_by_address(subject),
        };
        let tuple = verdict.map_or(subject.flow, |verdict| verdict.tuple);
        match verdict.map_or(Side::Client, |verdict| verdict.side) {
            Side::Client => Ends { client: own, server: other, server_port: tuple.remote.port() },
            Side::Server => Ends { client: other, server: own, server_port: tuple.local.port() },
        }
    }

    fn own_end(&self, subject: &Subject) -> End {
        let endpoint = self.names.own(&subject.process, &subject.container_id, subject.tuple.local.ip());
        let certainty = if endpoint.kind == "unknown" { Certainty::Unknown } else { Certainty::Known };
        End {
            endpoint,
            process: subject.process.clone(),
            container_id: subject.container_id.clone(),
            cgroup_path: subject.cgroup_path.clone(),
            node: Some(subject.node.to_string()),
            zone: self.zone(&subject.node),
            address: subject.tuple.local.ip(),
            certainty,
        }
    }

    fn end_by_address(&self, subject: &Subject) -> End {
        let address = subject.tuple.remote.ip();
        let (mut endpoint, certainty) = self.names.by_address(address, subject.last);
        if address.is_unspecified() {
            // A UDP socket's peers beyond the cap (R9).
            "other".clone_into(&mut endpoint.name);
        }
        let node = if address.is_loopback() {
            Some(subject.node.to_string())
        } else {
            self.names.node_of(address, subject.last).map(str::to_owned)
        };
        End {
            endpoint,
            process: String::new(),
            container_id: String::new(),
            cgroup_path: String::new(),
            zone: node.as_deref().and_then(|node| self.zone(node)),
            node,
            address,
            certainty,
        }
    }

    fn zone(&self, node: &str) -> Option<String> {
        self.names.node(node)?.attributes.get(ZONE).cloned()
    }

    /// Whether any attribute `key` that was collected about the end matches.
    fn has_label(&self, end: &End, key: &str, pattern: &super::params::Glob) -> bool {
        let own = match key {
            "process" => Some(&end.process),
            "container_id" => Some(&end.container_id),
            "cgroup_path" => Some(&end.cgroup_path),
            _ => None,
        };
        if own.is_some_and(|value| !value.is_empty() && pattern.matches(value)) {
            return true;
        }
        let (container, pod) = self.names.container(&end.container_id);
        [container, pod]
            .into_iter()
            .flatten()
            .any(|thing| thing.attributes.get(key).is_some_and(|value| pattern.matches(value)))
    }

    /// Whether the question's filters on names let a connection with these ends through. A name filter looks at every
    /// name of an end: pod, container, process, container id, address.
    pub(crate) fn ends_pass(&self, ends: &Ends, question: &Question) -> bool {
        let both = [&ends.client, &ends.server];
        let named = |end: &End, glob: &super::params::Glob| end.texts().iter().any(|text| glob.matches(text));
        question.from.as_ref().is_none_or(|glob| named(&ends.client, glob))
            && question.to.as_ref().is_none_or(|glob| named(&ends.server, glob))
            && question.name.as_ref().is_none_or(|glob| both.iter().any(|end| named(end, glob)))
            && question.namespace.as_ref().is_none_or(|glob| {
                both.iter().any(|end| !end.endpoint.namespace.is_empty() && glob.matches(&end.endpoint.namespace))
            })
            && question
                .label
                .as_ref()
                .is_none_or(|(key, pattern)| both.iter().any(|end| self.has_label(end, key, pattern)))
    }
}

impl End {
    fn texts(&self) -> Vec<String> {
        let mut texts = vec![self.endpoint.name.clone(), self.address.to_string()];
        if !self.endpoint.namespace.is_empty() {
            texts.push(format!("{}/{}", self.endpoint.namespace, self.endpoint.name));
        }
        texts.extend([&self.process, &self.container_id].into_iter().filter(|text| !text.is_empty()).cloned());
        texts
    }

    /// The end as an edge under this grouping names it.
    pub(crate) fn grouped(&self, by: Grouping) -> EdgeEnd {
        let namespace = Some(self.endpoint.namespace.clone()).filter(|namespace| !namespace.is_empty());
        let end = |kind: &str, namespace: Option<String>, name: &str| EdgeEnd {
            kind: kind.to_owned(),
            namespace,
            name: name.to_owned(),
            node: self.node.clone(),
            zone: self.zone.clone(),
            address: Some(self.address.to_string()),
        };
        let workload = || end(&self.endpoint.kind, namespace.clone(), &self.endpoint.name);
        let node = || match &self.node {
            Some(node) => end("node", None, node),
            None => workload(),
        };
        match by {
            Grouping::Workload | Grouping::Service => workload(),
            Grouping::Process if self.process.is_empty() => workload(),
            Grouping::Process => end("process", namespace.clone(), &self.process),
            Grouping::Namespace => match &namespace {
                Some(namespace) => end("namespace", Some(namespace.clone()), namespace),
                None => node(),
            },
            Grouping::Node => node(),
            Grouping::Zone => match &self.zone {
                Some(zone) => end("zone", None, zone),
                None => node(),
            },
            Grouping::Address => end("address", None, &self.address.to_string()),
        }
    }
}
