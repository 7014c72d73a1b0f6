//! The ends of connections: each different one once, what filters look at, and how every grouping calls it.
//!
//! Where a grouping has no value for an end, it falls back: `service`, `attribute` and `container` to the workload, that to
//! pod, container, process; `process` to the workload; `namespace` to the node, `zone` to the node; an end outside every
//! known node stays `external` under every grouping.

use super::expand::Expand;
use super::naming::{BEHIND, Naming, UNKNOWN, Via};
use super::params::{Grouping, Question};
use super::selection::{Selection, Subject};
use super::settled;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use weir_model::{Certainty, Endpoint, Side};
use weir_store::{EdgeTotal, SettledEnd};
use weir_wire::api::EdgeEnd;
use weir_wire::filter::{Comparison, Field, Glob, Place};

/// One end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct End {
    /// Pod, container, process, node, Service, `external` or `unknown`.
    pub(crate) endpoint: Endpoint,
    /// What its pod belongs to.
    pub(crate) workload: Option<Owned>,
    /// Its pod's UID.
    pub(crate) pod: Option<String>,
    /// Its container, `POD/NAME`.
    pub(crate) container: Option<String>,
    /// The attribute that is grouped by.
    pub(crate) attribute: Option<String>,
    /// All that was collected about it, by `KIND.NAME`; empty but where it is settled.
    pub(crate) attributes: BTreeMap<String, String>,
    /// An attribute of it matches the question's label.
    pub(crate) is_labelled: bool,
    /// Which comparisons of the question's filter fit this end: a bit each, in their order.
    pub(crate) fits: u64,
    pub(crate) process: String,
    pub(crate) container_id: String,
    pub(crate) node: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) address: IpAddr,
    /// Of the endpoint's name.
    pub(crate) certainty: Certainty,
    /// A view is of it, so that its node, process and address are known, whoever it is.
    pub(crate) is_seen: bool,
}

/// The end of an owner chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owned {
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
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

/// What an own end's name follows from, without copying it. Where no container is told, the socket's owner and its
/// namespace are asked, for their time.
type Own<'a> = (&'a str, &'a str, &'a str, &'a str, IpAddr, (u32, u64, u32, i64));

/// Every different end of a selection, named once: a hundred thousand connections have few.
pub(crate) struct EndTable<'a> {
    selection: &'a Selection,
    naming: Naming<'a>,
    ends: Vec<End>,
    by_content: HashMap<End, EndId>,
    own: HashMap<Own<'a>, EndId>,
    /// By where they lie: an end is kept once for all of its edges.
    settled: HashMap<*const SettledEnd, EndId>,
}

impl<'a> EndTable<'a> {
    pub(crate) fn new(selection: &'a Selection, naming: Naming<'a>) -> Self {
        let (by_content, own, settled) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { selection, naming, ends: Vec::new(), by_content, own, settled }
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
                let end = self.naming.other(self.selection, subject);
                self.add(end)
            }
        };
        let tuple = verdict.map_or(subject.flow, |verdict| verdict.tuple);
        match verdict.map_or(Side::Client, |verdict| verdict.side) {
            Side::Client => (own, other, tuple.remote.port()),
            Side::Server => (other, own, tuple.local.port()),
        }
    }

    /// The Service that a subject's connection went through.
    pub(crate) fn via(&self, subject: &Subject, server: EndId) -> Via {
        self.naming.via(self.selection, subject, self.get(server))
    }

    fn own(&mut self, subject: &'a Subject, address: IpAddr) -> EndId {
        let Subject { node, process, container_id, cgroup_path, pid, process_start_ns, netns, last, .. } = subject;
        let asked = if container_id.is_empty() { (*pid, *process_start_ns, *netns, last.0) } else { (0, 0, 0, 0) };
        let key = (&**node, process.as_str(), container_id.as_str(), cgroup_path.as_str(), address, asked);
        if let Some(id) = self.own.get(&key) {
            return *id;
        }
        let end = self.naming.own(subject, address);
        let id = self.add(end);
        self.own.insert(key, id);
        id
    }

    /// Both ends of a settled edge.
    pub(crate) fn settled(&mut self, total: &'a EdgeTotal) -> (EndId, EndId) {
        let question = self.naming.question;
        match &total.settled {
            Some(edge) => (self.settled_end(&edge.client), self.settled_end(&edge.server)),
            None => {
                (self.add(settled::bare(&total.client, question)), self.add(settled::bare(&total.server, question)))
            }
        }
    }

    /// `'a`: nothing else comes to lie there while this table is used.
    fn settled_end(&mut self, end: &'a SettledEnd) -> EndId {
        if let Some(id) = self.settled.get(&std::ptr::from_ref(end)) {
            return *id;
        }
        let id = self.add(settled::end(end, self.naming.question));
        self.settled.insert(end, id);
        id
    }

    fn add(&mut self, mut end: End) -> EndId {
        end.decide(self.naming.question);
        if let Some(id) = self.by_content.get(&end) {
            return *id;
        }
        let id = EndId(self.ends.len());
        self.ends.push(end.clone());
        self.by_content.insert(end, id);
        id
    }
}

impl Ends<'_> {
    /// Whether one of them, or the one that is meant, fits a comparison about ends.
    pub(crate) fn fit(self, place: usize, comparison: &Comparison) -> bool {
        let fits = match comparison.place {
            Place::Any => self.client.fits | self.server.fits,
            Place::Client => self.client.fits,
            Place::Server => self.server.fits,
        };
        fits & (1 << place) != 0
    }

    /// Whether the question's filters on names let a connection with these ends through. A name filter looks at every
    /// name of an end: pod, workload, container, process, container id, address.
    pub(crate) fn pass(self, question: &Question) -> bool {
        let both = [self.client, self.server];
        let named = |end: &End, glob: &Glob| end.texts().iter().any(|text| glob.matches(text));
        question.from.as_ref().is_none_or(|glob| named(self.client, glob))
            && question.to.as_ref().is_none_or(|glob| named(self.server, glob))
            && question.name.as_ref().is_none_or(|glob| both.iter().any(|end| named(end, glob)))
            && question.namespace.as_ref().is_none_or(|glob| {
                both.iter().any(|end| !end.endpoint.namespace.is_empty() && glob.matches(&end.endpoint.namespace))
            })
            && (question.label.is_none() || both.iter().any(|end| end.is_labelled))
    }
}

impl End {
    /// Says whether the filter's comparison at `place` fits it.
    pub(crate) fn note(&mut self, place: usize, fits: bool) {
        self.fits |= u64::from(fits) << place;
    }

    /// Decides every comparison that looks at an end's names: what was collected about it is decided where it is known.
    pub(crate) fn decide(&mut self, question: &Question) {
        for (place, comparison) in question.comparisons() {
            let known = |text: &Option<String>| comparison.is_text(text.as_deref());
            let full = |namespace: &str, name: &str| {
                let full = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
                comparison.is_text([name, &full])
            };
            let Endpoint { kind, namespace, name } = &self.endpoint;
            let filled = |text: &'_ str| comparison.is_text(Some(text).filter(|text| !text.is_empty()));
            let fits = match &comparison.field {
                Field::Name => comparison.is_text(self.texts().iter().map(String::as_str)),
                Field::Kind => {
                    let workload = self.workload.iter().map(|owned| owned.kind.as_str());
                    comparison.is_text(std::iter::once(kind.as_str()).chain(workload))
                }
                Field::Namespace => filled(namespace),
                Field::Workload => match &self.workload {
                    Some(owned) => full(&owned.namespace, &owned.name),
                    None => comparison.is_text(None),
                },
                Field::Pod if kind == "pod" => full(namespace, name),
                Field::Pod => comparison.is_text(None),
                Field::Container => {
                    let short = self.container.iter().filter_map(|container| Some(container.split_once('/')?.1));
                    comparison.is_text(self.container.as_deref().into_iter().chain(short))
                }
                Field::ContainerId => filled(&self.container_id),
                Field::Process => filled(&self.process),
                Field::Node => known(&self.node),
                Field::Zone => known(&self.zone),
                Field::Address => comparison.is_text([self.address.to_string().as_str()]),
                _ => continue,
            };
            self.note(place, fits);
        }
    }

    fn texts(&self) -> Vec<String> {
        let mut texts = vec![self.address.to_string()];
        let workload = self.workload.as_ref().map(|workload| (&workload.namespace, &workload.name));
        let container = self.container.as_ref().map(|container| (&self.endpoint.namespace, container));
        let named = [Some((&self.endpoint.namespace, &self.endpoint.name)), workload, container];
        for (namespace, name) in named.into_iter().flatten() {
            texts.push(name.clone());
            if !namespace.is_empty() {
                texts.push(format!("{namespace}/{name}"));
            }
        }
        if let Some((_, name)) = self.container.as_ref().and_then(|container| container.split_once('/')) {
            texts.push(name.to_owned());
        }
        texts.extend([&self.process, &self.container_id].into_iter().filter(|text| !text.is_empty()).cloned());
        texts
    }

    /// The end as an edge under this grouping names it.
    pub(crate) fn grouped(&self, by: &Grouping) -> EdgeEnd {
        let end = |kind: &str, namespace: &str, name: &str, certainty: Certainty| EdgeEnd {
            kind: kind.to_owned(),
            namespace: Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty()),
            name: name.to_owned(),
            node: self.node.clone(),
            zone: self.zone.clone(),
            address: Some(self.address.to_string()),
            workload: None,
            certainty: certainty.as_str().to_owned(),
        };
        let Endpoint { kind, namespace, name } = &self.endpoint;
        let owner = || self.workload.as_ref().map(|owned| owned.name.clone());
        let itself = || EdgeEnd { workload: owner(), ..end(kind, namespace, name, self.certainty) };
        // Where a view is, is known even of an end whose name is not.
        let seen = if self.is_seen { Certainty::Known } else { self.certainty };
        let workload = || match &self.workload {
            Some(owned) => end(&owned.kind, &owned.namespace, &owned.name, owned.certainty.min(self.certainty)),
            None => itself(),
        };
        let node = || match &self.node {
            Some(node) => end("node", "", node, seen),
            None => itself(),
        };
        match by {
            Grouping::Workload | Grouping::Service => workload(),
            Grouping::Pod => itself(),
            Grouping::Container => match &self.container {
                Some(container) => {
                    EdgeEnd { workload: owner(), ..end("container", namespace, container, self.certainty) }
                }
                None => itself(),
            },
            Grouping::Attribute(_) => match &self.attribute {
                Some(value) => end("attribute", "", value, self.certainty),
                None => workload(),
            },
            Grouping::Process if self.process.is_empty() => workload(),
            Grouping::Process => EdgeEnd { workload: owner(), ..end("process", namespace, &self.process, seen) },
            Grouping::Namespace(expand) if self.is_beside_pods(expand) => itself(),
            Grouping::Namespace(_) if namespace.is_empty() => node(),
            Grouping::Namespace(expand) => match &self.workload {
                Some(owned) if expand.has_workload(&owned.namespace, &owned.name) => itself(),
                _ if expand.has_namespace(namespace) => workload(),
                _ => end("namespace", namespace, namespace, self.certainty),
            },
            Grouping::Node => node(),
            Grouping::Zone => match &self.zone {
                Some(zone) => end("zone", "", zone, seen),
                None => node(),
            },
            Grouping::Address => end("address", "", &self.address.to_string(), self.address_certainty()),
        }
    }

    /// Whether it is what runs, beside pods, on a node that is opened. Equal names on two nodes are not one end.
    pub(crate) fn is_beside_pods(&self, expand: &Expand) -> bool {
        self.endpoint.namespace.is_empty() && expand.has_node(self.node.as_deref())
    }

    /// An address is known, but for that of a node which stands before somebody.
    fn address_certainty(&self) -> Certainty {
        let is_before_somebody = self.endpoint.kind == UNKNOWN && self.endpoint.name.starts_with(BEHIND);
        if is_before_somebody { Certainty::Unknown } else { Certainty::Known }
    }
}
