//! Services: by their own addresses and node ports, by the DNS name that they stand for, and, through EndpointSlices,
//! all that an end may have been reached as.

use super::Inventory;
use super::claims::Claim;
use super::ports::ports;
use super::strings::Symbol;
use super::things::{Kind, NONE, Saying};
use std::net::IpAddr;
use weir_model::{Protocol, UnixNanos};

/// A Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceRef<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name, as it was at that time.
    pub name: &'a str,
    /// Its UID; empty where only its EndpointSlice is known.
    pub id: &'a str,
}

impl Inventory {
    /// The Service that an address and port belong to: a cluster, external or load-balancer address, or a node port on
    /// any node's address. `None` where there is none, and where two may have been meant.
    pub fn service_at(&self, address: IpAddr, port: u16, protocol: Protocol, at: UnixNanos) -> Option<ServiceRef<'_>> {
        let address = address.to_canonical();
        let has_port = |thing: u32| self.has_port(thing, port, protocol, at.0);
        if let Some(service) = self.only(self.virtuals.claims(&address).as_slice(), at.0, has_port) {
            return Some(self.service_ref(service, at.0));
        }
        let by_port = self.node_ports.claims(&(port, protocol));
        let by_port = by_port.as_slice();
        if by_port.is_empty() || !self.is_a_nodes(address, at.0) {
            return None;
        }
        let service = self.only(by_port, at.0, |_| true)?;
        Some(self.service_ref(service, at.0))
    }

    /// The Services that a DNS name leads to: the one whose name in the cluster it is (`NAME.NAMESPACE.svc.DOMAIN`, with
    /// or without one of its ends' names before it), else every one of type ExternalName that stands for it, sorted. A
    /// final dot and case do not matter.
    pub fn services_by_dns_name(&self, name: &str, at: UnixNanos) -> Vec<ServiceRef<'_>> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(service) = self.service_by_cluster_name(&name, at) {
            return vec![service];
        }
        let Some(name) = self.strings.find(&name) else { return Vec::new() };
        let claims = self.external_names.claims(&name);
        let sure = claims.as_slice().iter().filter(|claim| self.is_sure(claim, at.0));
        let mut found: Vec<ServiceRef<'_>> = sure.map(|claim| self.service_ref(claim.thing, at.0)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The cluster's domain is not known here, and a name beyond it has a label `svc` only by chance: it is the cluster's
    /// where such a Service is.
    fn service_by_cluster_name(&self, name: &str, at: UnixNanos) -> Option<ServiceRef<'_>> {
        let labels: Vec<&str> = name.split('.').collect();
        let place = labels.iter().skip(2).position(|label| *label == "svc")?;
        let (service, namespace) = (self.strings.find(labels[place])?, self.strings.find(labels[place + 1])?);
        let found = self.only(self.names.claims(&(Kind::Service, namespace, service)).as_slice(), at.0, |_| true)?;
        Some(self.service_ref(found, at.0))
    }

    /// Every Service that has an end among its endpoints on a port: where nothing tells by which an end was reached,
    /// all candidates, sorted. `pod`: the UID of the end's pod, if it is known; an endpoint that is another pod is none.
    pub fn services_of(
        &self,
        address: IpAddr,
        pod: Option<&str>,
        port: u16,
        protocol: Protocol,
        at: UnixNanos,
    ) -> Vec<ServiceRef<'_>> {
        let pod =
            pod.and_then(|uid| self.strings.find(uid)).and_then(|uid| self.things.find(Kind::Pod, Symbol::EMPTY, uid));
        let mut found = Vec::new();
        for claim in self.endpoints.claims(&address.to_canonical()).as_slice() {
            if self.is_sure(claim, at.0) && self.leads_here(claim, pod, port, protocol, at.0) {
                found.extend(self.service_of_endpoint(claim.thing, at.0));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The same for a pod of which only the UID is known, by all of its addresses.
    pub fn services_of_pod(&self, uid: &str, port: u16, protocol: Protocol, at: UnixNanos) -> Vec<ServiceRef<'_>> {
        let thing = self.strings.find(uid).and_then(|uid| self.things.find(Kind::Pod, Symbol::EMPTY, uid));
        let Some(thing) = thing else { return Vec::new() };
        let mut found: Vec<ServiceRef<'_>> = self
            .things
            .sayings(thing)
            .flat_map(|saying| saying.addresses.iter())
            .flat_map(|address| self.services_of(*address, Some(uid), port, protocol, at))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// A Service's namespace and name at an instant.
    pub(super) fn service_name(&self, service: u32, at: i64) -> (Symbol, Symbol) {
        let then = self.saying_at(service, at);
        let thing = self.things.get(service);
        then.map_or((thing.namespace, thing.name), |saying| (saying.namespace, saying.name))
    }

    /// Whether an EndpointSlice says that a pod has this address: then it is the cluster's, whatever else is known.
    pub(super) fn is_endpoint_of_a_pod(&self, address: IpAddr) -> bool {
        let is_pod = |claim: &Claim| self.attribute_of(claim.thing, self.words.target_pod).is_some();
        self.endpoints.claims(&address).as_slice().iter().any(is_pod)
    }

    /// The best source's newest saying that held at an instant.
    fn saying_at(&self, thing: u32, at: i64) -> Option<&Saying> {
        let then = self.things.sayings(thing).filter(|saying| saying.from <= at && at < saying.to);
        then.min_by(|a, b| (a.source, b.from, b.said).cmp(&(b.source, a.from, a.said)))
    }

    fn service_ref(&self, service: u32, at: i64) -> ServiceRef<'_> {
        let (namespace, name) = self.service_name(service, at);
        let text = |symbol| self.strings.text(symbol);
        ServiceRef { namespace: text(namespace), name: text(name), id: text(self.things.get(service).uid) }
    }

    fn has_port(&self, thing: u32, port: u16, protocol: Protocol, at: i64) -> bool {
        let list = self.saying_at(thing, at).and_then(|saying| saying.attribute(self.words.ports));
        list.is_some_and(|list| {
            ports(self.strings.text(list)).any(|other| other.number == port && other.protocol == protocol)
        })
    }

    fn is_a_nodes(&self, address: IpAddr, at: i64) -> bool {
        let claims = self.addresses.claims(&address);
        claims.as_slice().iter().any(|claim| {
            let thing = self.things.get(claim.thing);
            (thing.kind == Kind::Node || thing.is_host_network) && self.is_sure(claim, at)
        })
    }

    fn leads_here(&self, claim: &Claim, pod: Option<u32>, port: u16, protocol: Protocol, at: i64) -> bool {
        if !self.has_port(claim.thing, port, protocol, at) {
            return false;
        }
        let Some(target) = self.attribute_of(claim.thing, self.words.target_pod) else { return true };
        let target = self.strings.find(target).and_then(|uid| self.things.find(Kind::Pod, Symbol::EMPTY, uid));
        pod.is_none_or(|pod| target == Some(pod))
    }

    fn service_of_endpoint(&self, endpoint: u32, at: i64) -> Option<ServiceRef<'_>> {
        let saying = self.saying_at(endpoint, at)?;
        let (namespace, name) = self.strings.text(saying.parent).split_once('/')?;
        let found = self.strings.find(namespace).zip(self.strings.find(name)).and_then(|(namespace, name)| {
            self.only(self.names.claims(&(Kind::Service, namespace, name)).as_slice(), at, |_| true)
        });
        let id = found.map_or("", |service| self.strings.text(self.things.get(service).uid));
        debug_assert_ne!(found, Some(NONE));
        Some(ServiceRef { namespace, name, id })
    }
}
