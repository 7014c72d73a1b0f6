//! Who is behind a connection, by the live inventory: its two ends, and the Service that it went through (R6).
//!
//! An end that a view is of is named by what its socket says; one that nobody has a view of by its address when the
//! connection began. A client that only a node's address tells of is `unknown`, `behind NODE`: the node speaks for
//! whomever it masquerades. A pod whose node has not been heard of since the connection began is `unknown`, `unnamed on NODE`,
//! until that node's next word. An end beyond the cluster has the name that its client was told for its address by DNS, else
//! a configured network's, else its address. An address that the cluster holds or has held is never `external`.
//!
//! A Service is `known` where the client asked for one of its addresses; else those whose EndpointSlices hold the
//! server's address and port are candidates, and what its client asked DNS for chooses between them. A server beyond the
//! cluster was reached through the Service whose DNS name its client asked for, or which stands for that name
//! (ExternalName): `inferred`, since whoever asked may have used another address of its own.

use super::ends::{End, Owned};
use super::params::Question;
use super::selection::{Selection, Subject};
use std::net::{IpAddr, SocketAddr};
use weir_inventory::inventory::ServiceRef;
use weir_inventory::{Inventory, LocalEnd, RemoteEnd, Who};
use weir_model::fact::kind;
use weir_model::{Certainty, Endpoint, Protocol, Side, UnixNanos};
use weir_store::{DnsClient, DnsCount};
use weir_wire::api::EdgeEnd;
use weir_wire::filter::Field;

/// Whose attributes are an end's own, in the order in which they are looked at.
pub(crate) const ATTRIBUTED: [&str; 7] =
    [kind::CONTAINER, kind::POD, kind::REPLICA_SET, kind::JOB, kind::SERVICE, kind::NAMESPACE, kind::NODE];

/// So long after a node's last word its next one is waited for: two of its words may be late.
const LAST_WORD_NS: i64 = 30_000_000_000;
/// The kind of an end that nobody names.
pub(crate) const UNKNOWN: &str = "unknown";
/// Before the node that speaks for whomever it masquerades.
pub(crate) const BEHIND: &str = "behind ";
/// Before the node whose next word is going to name an end.
const UNNAMED_ON: &str = "unnamed on ";

/// Whether it is going to have a name within seconds.
pub(crate) fn is_unnamed(end: &EdgeEnd) -> bool {
    end.kind == UNKNOWN && end.name.starts_with(UNNAMED_ON)
}

/// Names ends for as long as the live inventory is held still.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Naming<'a> {
    pub(crate) inventory: &'a Inventory,
    pub(crate) question: &'a Question,
    /// Ends keep all that was collected about them: they are settled.
    pub(crate) settles: bool,
}

/// The Service that a connection went through.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Via {
    /// `namespace/name`.
    pub(crate) service: Option<String>,
    /// `None`: through none, as far as anything tells.
    pub(crate) certainty: Option<Certainty>,
    /// Everything that it could be, where that is not known.
    pub(crate) candidates: Vec<String>,
}

impl Via {
    /// Its Services, or all that it could be, by `namespace/name` and by name alone.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let full = self.service.iter().chain(&self.candidates).map(String::as_str);
        full.flat_map(|full| [Some(full), full.split_once('/').map(|(_, name)| name)]).flatten()
    }

    /// Whether the question's filter lets it through.
    pub(crate) fn passes(&self, question: &Question) -> bool {
        question.service.as_ref().is_none_or(|glob| self.names().any(|name| glob.matches(name)))
    }
}

impl<'a> Naming<'a> {
    /// The end that a view is of. `address`: where its peer found it.
    pub(crate) fn own(self, subject: &'a Subject, address: IpAddr) -> End {
        let local = LocalEnd {
            node: &subject.node,
            process: &subject.process,
            pid: subject.pid,
            process_start: subject.process_start_ns,
            container_id: &subject.container_id,
            cgroup_path: &subject.cgroup_path,
            netns: subject.netns,
            address: subject.tuple.local.ip(),
        };
        self.local(&local, subject.last, address)
    }

    fn local(self, local: &LocalEnd<'_>, at: UnixNanos, address: IpAddr) -> End {
        let who = self.inventory.local(local, at);
        let mut end = self.end(&who, address, local.cgroup_path);
        local.process.clone_into(&mut end.process);
        local.container_id.clone_into(&mut end.container_id);
        end.is_seen = true;
        if self.settles && !local.cgroup_path.is_empty() {
            end.attributes.insert("cgroup_path".to_owned(), local.cgroup_path.to_owned());
        }
        let own = |key: &str| match key {
            "process" => local.process,
            "container_id" => local.container_id,
            "cgroup_path" => local.cgroup_path,
            _ => "",
        };
        if let Some((key, pattern)) = &self.question.label {
            end.is_labelled |= !own(key).is_empty() && pattern.matches(own(key));
        }
        end
    }

    /// Who a remote end is. Whose node has not told yet has no name: not even that of who was there at its last word, since
    /// another may be there by now. What is kept for good waits for all words.
    fn remote(self, remote: &RemoteEnd<'a>) -> (Who<'a>, End) {
        let who = self.inventory.remote(remote);
        let mut end = self.end(&who, remote.address, "");
        if who.kind() == UNKNOWN
            && !self.settles
            && let Some(node) = self.inventory.awaited_of(remote, LAST_WORD_NS)
        {
            end.endpoint.name = format!("{UNNAMED_ON}{node}");
        }
        (who, end)
    }

    /// The other end of a view, where it has no view of its own.
    pub(crate) fn other(self, selection: &Selection, subject: &Subject) -> End {
        let verdict = selection.verdicts.get(&subject.id);
        let is_server = verdict.is_some_and(|verdict| verdict.side == Side::Server);
        let remote = verdict.map_or(subject.flow, |verdict| verdict.tuple).remote;
        let address = if is_server { selection.opener(subject) } else { remote.ip() };
        let remote_end = RemoteEnd {
            seen_on: &subject.node,
            address,
            began: subject.opened.then_some(subject.from),
            first_seen: subject.from,
        };
        let (who, mut end) = self.remote(&remote_end);
        if is_server && who.kind() == "node" {
            let name = format!("{BEHIND}{}", who.node());
            end.endpoint = Endpoint { kind: UNKNOWN.to_owned(), namespace: String::new(), name };
            (end.node, end.zone, end.certainty) = (None, None, Certainty::Unknown);
            return end;
        }
        if address.is_unspecified() {
            // A UDP socket's peers beyond the cap (R9).
            "other".clone_into(&mut end.endpoint.name);
        }
        if address.is_loopback() {
            end.node = Some(subject.node.to_string());
            end.zone = self.inventory.zone(&subject.node).map(ToOwned::to_owned);
        }
        if !is_server {
            // What answers on a node's port that belongs to a Service is not the node.
            let service = self.inventory.service_at(address, remote.port(), subject.protocol, subject.from);
            if let Some(service) = service.filter(|_| who.kind() == "node") {
                let (namespace, name) = (service.namespace.to_owned(), service.name.to_owned());
                end.endpoint = Endpoint { kind: "service".to_owned(), namespace, name };
                (end.node, end.zone, end.certainty) = (None, None, Certainty::Known);
            }
            Self::name_by_dns(selection, subject, &mut end);
        }
        end
    }

    /// A server beyond the cluster by the name that its client had last been told for its address when it connected.
    fn name_by_dns(selection: &Selection, subject: &Subject, end: &mut End) {
        if end.endpoint.kind == "external"
            && let Some(name) = told_name(selection, subject, end.address)
        {
            name.clone_into(&mut end.endpoint.name);
            end.certainty = Certainty::Inferred;
        }
    }

    /// The Service that a counted view's connection went through. `server`: its server's end.
    pub(crate) fn via(self, selection: &Selection, subject: &Subject, server: &End) -> Via {
        let verdict = selection.verdicts.get(&subject.id);
        let behind = verdict.map_or(subject.flow, |verdict| verdict.tuple);
        let (asked, reached) = match verdict.map_or(Side::Client, |verdict| verdict.side) {
            Side::Client => (Some(subject.tuple.remote), behind.remote),
            Side::Server => (verdict.and_then(|verdict| verdict.origin).map(|origin| origin.remote), behind.local),
        };
        let known = asked.and_then(|asked| self.service_at(asked, subject.protocol, subject.from));
        if let Some(service) = known {
            return Via { service: Some(service), certainty: Some(Certainty::Known), candidates: Vec::new() };
        }
        let pod = server.pod.as_deref();
        let reached_ip = if reached.ip().is_unspecified() { server.address } else { reached.ip() };
        let found = self.inventory.services_of(reached_ip, pod, reached.port(), subject.protocol, subject.from);
        let mut candidates: Vec<String> = found.into_iter().map(full_name).collect();
        let asked_for = || {
            let name = told_name(selection, subject, asked?.ip())?;
            let found = self.inventory.services_by_dns_name(name, subject.from);
            Some(found.into_iter().map(full_name).collect::<Vec<_>>())
        };
        let mut service = None;
        if candidates.len() != 1
            && let Some(asked_for) = asked_for()
        {
            if candidates.is_empty() && server.endpoint.kind == "external" {
                candidates = asked_for;
            } else if let [only] = &asked_for[..] {
                service = candidates.contains(only).then(|| only.clone());
            }
        }
        match (service, &candidates[..]) {
            (_, []) => Via::default(),
            (Some(service), _) => Via { service: Some(service), certainty: Some(Certainty::Inferred), candidates },
            (None, [only]) => Via { service: Some(only.clone()), certainty: Some(Certainty::Inferred), candidates },
            (None, _) => Via { service: None, certainty: Some(Certainty::Unknown), candidates },
        }
    }

    fn service_at(self, asked: SocketAddr, protocol: Protocol, at: UnixNanos) -> Option<String> {
        self.inventory.service_at(asked.ip(), asked.port(), protocol, at).map(full_name)
    }

    /// Who asked a DNS server.
    pub(crate) fn dns_client(self, count: &DnsCount) -> End {
        let DnsClient { pid, process_start_ns, process, cgroup_path, container_id, netns } = &count.client;
        let nowhere = IpAddr::from([0; 4]);
        let local = LocalEnd {
            node: &count.node.0,
            process,
            pid: *pid,
            process_start: *process_start_ns,
            container_id,
            cgroup_path,
            netns: *netns,
            address: nowhere,
        };
        let mut end = self.local(&local, count.last, nowhere);
        if end.certainty == Certainty::Unknown {
            "unknown".clone_into(&mut end.endpoint.name);
        }
        end
    }

    /// The DNS server that was asked.
    pub(crate) fn dns_server(self, count: &'a DnsCount) -> End {
        let remote_end = RemoteEnd {
            seen_on: &count.node.0,
            address: count.server,
            began: Some(count.last),
            first_seen: count.last,
        };
        let (_, mut end) = self.remote(&remote_end);
        if count.server.is_loopback() {
            end.node = Some(count.node.0.clone());
            end.zone = self.inventory.zone(&count.node.0).map(ToOwned::to_owned);
        }
        end
    }

    fn end(self, who: &Who<'_>, address: IpAddr, cgroup_path: &str) -> End {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let pod = who.pod();
        let container = who.container().filter(|container| !container.name.is_empty()).map(|container| {
            match pod.filter(|pod| !pod.name.is_empty()) {
                Some(pod) => format!("{}/{}", pod.name, container.name),
                None => container.name.to_owned(),
            }
        });
        let workload = who.workload().map(|workload| Owned {
            kind: workload.kind.to_owned(),
            namespace: workload.namespace.to_owned(),
            name: workload.name.to_owned(),
            certainty: workload.certainty,
        });
        let attribute = match &self.question.by {
            super::params::Grouping::Attribute(name) => attributes(who, name).next().map(ToOwned::to_owned),
            _ => None,
        };
        let is_labelled = self
            .question
            .label
            .as_ref()
            .is_some_and(|(name, pattern)| attributes(who, name).any(|value| pattern.matches(value)));
        let collected = |kind: &'static str| {
            let named = move |(name, value): (&str, &str)| (format!("{kind}.{name}"), value.to_owned());
            who.attributes(kind).into_iter().map(named)
        };
        let mut end = End {
            endpoint: who.endpoint(),
            attributes: ATTRIBUTED.into_iter().filter(|_| self.settles).flat_map(collected).collect(),
            workload,
            pod: pod.map(|pod| pod.id.to_owned()),
            container,
            attribute,
            is_labelled,
            fits: 0,
            process: String::new(),
            container_id: String::new(),
            node: text(who.node()),
            zone: who.zone().map(ToOwned::to_owned),
            address,
            certainty: who.certainty,
            is_seen: false,
        };
        for (place, comparison) in self.question.comparisons() {
            match &comparison.field {
                Field::Attribute(name) => end.note(place, comparison.is_text(attributes(who, name).next())),
                Field::CgroupPath => {
                    end.note(place, comparison.is_text(Some(cgroup_path).filter(|path| !path.is_empty())));
                }
                _ => {}
            }
        }
        end
    }
}

/// The name that a client's socket had last been told for an address when it connected.
fn told_name<'s>(selection: &'s Selection, subject: &Subject, address: IpAddr) -> Option<&'s str> {
    if selection.told.is_empty() {
        return None;
    }
    selection.told.name(&subject.node, subject.client_key.as_ref()?, address, subject.from)
}

/// `namespace/name`.
fn full_name(service: ServiceRef<'_>) -> String {
    format!("{}/{}", service.namespace, service.name)
}

/// What was collected about an end under a name, `NAME` or `KIND.NAME`, the nearest thing first.
fn attributes<'w>(who: &'w Who<'_>, name: &'w str) -> impl Iterator<Item = &'w str> {
    let (of, name) = match name.split_once('.') {
        Some((of, name)) if ATTRIBUTED.contains(&of) => (Some(of), name),
        _ => (None, name),
    };
    ATTRIBUTED
        .into_iter()
        .filter(move |kind| of.is_none_or(|of| of == *kind))
        .filter_map(|kind| who.attribute(kind, name))
}
