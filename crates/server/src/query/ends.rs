//! The ends of a connection by name, under every grouping, and what the filters look at.
//!
//! Where a grouping has no value for an end, it falls back: `service` and `workload` to pod, container, process;
//! `process` to the workload; `namespace` to the node's name, `zone` to the node's; an end outside every known node
//! stays `external` under every grouping, with the name that its client was told for its address by DNS, else with its
//! address. A client that only a node's address tells of is `unknown`, `behind NODE`: the node speaks for whomever it
//! masquerades.

use super::params::{Grouping, Question};
use super::selection::{Selection, Subject};
use std::collections::HashMap;
use std::net::IpAddr;
use weir_inventory::Inventory;
use weir_model::{Certainty, Endpoint, Side};
use weir_wire::api::EdgeEnd;

/// Attribute of a node's fact that names its zone.
const ZONE: &str = "zone";

/// One end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

/// A connection's two ends in their roles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends<'a> {
    pub(crate) client: &'a End,
    pub(crate) server: &'a End,
}

/// An end in an [`EndTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EndId(usize);

/// What an own end's name follows from, without copying it.
type Own<'a> = (&'a str, &'a str, &'a str, &'a str, IpAddr);

/// Who is who, for as long as some ends are named: the live inventory, held still.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Naming<'a> {
    pub(crate) inventory: &'a Inventory,
}

/// Every different end of a selection, named once: a hundred thousand connections have few.
pub(crate) struct EndTable<'a> {
    selection: &'a Selection,
    naming: Naming<'a>,
    ends: Vec<End>,
    by_content: HashMap<End, EndId>,
    own: HashMap<Own<'a>, EndId>,
}

impl<'a> EndTable<'a> {
    pub(crate) fn new(selection: &'a Selection, naming: Naming<'a>) -> Self {
        Self { selection, naming, ends: Vec::new(), by_content: HashMap::new(), own: HashMap::new() }
    }

    pub(crate) fn get(&self, id: EndId) -> &End {
        &self.ends[id.0]
    }

    /// The ends of a subject: client, server, and the server's port.
    pub(crate) fn of(&mut self, subject: &'a Subject) -> (EndId, EndId, u16) {
        let verdict = self.selection.verdicts.get(&subject.id);
        let own = self.own(subject, subject.tuple.local.ip());
        let counterpart =
            verdict.and_then(|verdict| verdict.counterpart).and_then(|id| self.selection.subjects.get(&id));
        let other = match counterpart {
            Some(counterpart) => {
                let told = counterpart.tuple.local.ip();
                // A socket that does not tell its own address is where its peer found it.
                let address = if told.is_unspecified() { subject.flow.remote.ip() } else { told };
                self.own(counterpart, address)
            }
            // A socket that is connected to itself.
            None if subject.flow.local == subject.flow.remote => own,
            None => {
                let is_client = verdict.is_none_or(|verdict| verdict.side == Side::Client);
                let mut end = self.naming.end_by_address(self.selection, subject);
                if is_client {
                    self.naming.name_by_dns(self.selection, subject, &mut end);
                }
                self.add(end)
            }
        };
        let tuple = verdict.map_or(subject.flow, |verdict| verdict.tuple);
        match verdict.map_or(Side::Client, |verdict| verdict.side) {
            Side::Client => (own, other, tuple.remote.port()),
            Side::Server => (other, own, tuple.local.port()),
        }
    }

    fn own(&mut self, subject: &'a Subject, address: IpAddr) -> EndId {
        let Subject { node, process, container_id, cgroup_path, .. } = subject;
        let key = (&**node, process.as_str(), container_id.as_str(), cgroup_path.as_str(), address);
        if let Some(id) = self.own.get(&key) {
            return *id;
        }
        let end = End { address, ..self.naming.own_end(subject) };
        let id = self.add(end);
        self.own.insert(key, id);
        id
    }

    fn add(&mut self, end: End) -> EndId {
        if let Some(id) = self.by_content.get(&end) {
            return *id;
        }
        let id = EndId(self.ends.len());
        self.ends.push(end.clone());
        self.by_content.insert(end, id);
        id
    }
}

impl Naming<'_> {
    fn own_end(self, subject: &Subject) -> End {
        let endpoint = self.inventory.own(&subject.process, &subject.container_id, subject.tuple.local.ip());
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

    fn end_by_address(self, selection: &Selection, subject: &Subject) -> End {
        let verdict = selection.verdicts.get(&subject.id);
        let is_server = verdict.is_some_and(|verdict| verdict.side == Side::Server);
        let address = if is_server {
            selection.opener(subject)
        } else {
            verdict.map_or(subject.flow, |verdict| verdict.tuple).remote.ip()
        };
        if is_server
            && let Some(holder) = self.inventory.holder(address, subject.last)
            && holder.kind == "node"
        {
            return End {
                endpoint: Endpoint {
                    kind: "unknown".to_owned(),
                    namespace: String::new(),
                    name: format!("behind {}", holder.node),
                },
                process: String::new(),
                container_id: String::new(),
                cgroup_path: String::new(),
                node: None,
                zone: None,
                address,
                certainty: Certainty::Unknown,
            };
        }
        let (mut endpoint, certainty) = self.inventory.by_address(address, subject.last);
        if address.is_unspecified() {
            // A UDP socket's peers beyond the cap (R9).
            "other".clone_into(&mut endpoint.name);
        }
        let node = if address.is_loopback() {
            Some(subject.node.to_string())
        } else {
            self.inventory.node_of(address, subject.last).map(str::to_owned)
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

    /// A server beyond every known node by the name that its client had last been told for its address when it connected.
    /// Never one whose address is the cluster's own, whoever holds it now.
    fn name_by_dns(self, selection: &Selection, subject: &Subject, end: &mut End) {
        if selection.told.is_empty() || end.endpoint.kind != "external" || self.inventory.is_held(end.address) {
            return;
        }
        let Some(client) = &subject.client_key else { return };
        if let Some(name) = selection.told.name(&subject.node, client, end.address, subject.from) {
            name.clone_into(&mut end.endpoint.name);
            end.certainty = Certainty::Inferred;
        }
    }

    pub(crate) fn zone(self, node: &str) -> Option<String> {
        self.inventory.node(node)?.attributes.get(ZONE).cloned()
    }

    /// Whether any attribute `key` that was collected about the end matches.
    fn has_label(self, end: &End, key: &str, pattern: &super::params::Glob) -> bool {
        let own = match key {
            "process" => Some(&end.process),
            "container_id" => Some(&end.container_id),
            "cgroup_path" => Some(&end.cgroup_path),
            _ => None,
        };
        if own.is_some_and(|value| !value.is_empty() && pattern.matches(value)) {
            return true;
        }
        let (container, pod) = self.inventory.container(&end.container_id);
        [container, pod]
            .into_iter()
            .flatten()
            .any(|thing| thing.attributes.get(key).is_some_and(|value| pattern.matches(value)))
    }

    /// Whether the question's filters on names let a connection with these ends through. A name filter looks at every
    /// name of an end: pod, container, process, container id, address.
    pub(crate) fn ends_pass(self, ends: Ends<'_>, question: &Question) -> bool {
        let both = [ends.client, ends.server];
        let named = |end: &End, glob: &super::params::Glob| end.texts().iter().any(|text| glob.matches(text));
        question.from.as_ref().is_none_or(|glob| named(ends.client, glob))
            && question.to.as_ref().is_none_or(|glob| named(ends.server, glob))
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
