//! Where a thing is found again: by address, name, port, network namespace and pid. Kept as facts come and go.

use super::claims::{self, Claim, Said};
use super::strings::Symbol;
use super::things::Kind;
use super::{Inventory, Words, ports};
use std::net::IpAddr;
use weir_model::Protocol;

/// A place in one of the indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Address(IpAddr),
    Virtual(IpAddr),
    NodePort(u16, Protocol),
    ExternalName(Symbol),
    Name(Kind, Symbol, Symbol),
    Endpoint(IpAddr),
    Namespace(Symbol, u32),
    Pid(Symbol, u32),
}

impl Inventory {
    /// Takes a thing out of every index, as its sayings stand.
    pub(super) fn unindex(&mut self, thing: u32) {
        let mut places = std::mem::take(&mut self.scratch);
        self.places(thing, &mut |place, said| places.push((place, said)));
        for (place, _) in places.drain(..) {
            match place {
                Place::Address(address) => self.addresses.remove(address, thing),
                Place::Virtual(address) => self.virtuals.remove(address, thing),
                Place::NodePort(port, protocol) => self.node_ports.remove((port, protocol), thing),
                Place::ExternalName(name) => self.external_names.remove(name, thing),
                Place::Name(kind, namespace, name) => self.names.remove((kind, namespace, name), thing),
                Place::Endpoint(address) => self.endpoints.remove(address, thing),
                Place::Namespace(node, inode) => self.namespaces.remove((node, inode), thing),
                Place::Pid(node, pid) => self.pids.remove((node, pid), thing),
            }
        }
        self.scratch = places;
    }

    /// Puts a thing into every index, as its sayings stand.
    pub(super) fn index(&mut self, thing: u32) {
        let mut places = std::mem::take(&mut self.scratch);
        self.places(thing, &mut |place, said| places.push((place, said)));
        places.sort_unstable();
        let mut all_said = Vec::new();
        for of_place in places.chunk_by(|(one, _), (other, _)| one == other) {
            let (place, said) = of_place[0];
            if of_place.len() == 1 {
                let (from, to) = (said.from, said.to);
                self.insert(place, Claim { thing, from, to, early: from, late: to });
                continue;
            }
            all_said.clear();
            all_said.extend(of_place.iter().map(|(_, said)| *said));
            claims::merge(thing, &mut all_said, &mut |claim| self.insert(place, claim));
        }
        places.clear();
        self.scratch = places;
    }

    fn insert(&mut self, place: Place, claim: Claim) {
        match place {
            Place::Address(address) => self.addresses.insert(address, claim),
            Place::Virtual(address) => self.virtuals.insert(address, claim),
            Place::NodePort(port, protocol) => self.node_ports.insert((port, protocol), claim),
            Place::ExternalName(name) => self.external_names.insert(name, claim),
            Place::Name(kind, namespace, name) => self.names.insert((kind, namespace, name), claim),
            Place::Endpoint(address) => self.endpoints.insert(address, claim),
            Place::Namespace(node, inode) => self.namespaces.insert((node, inode), claim),
            Place::Pid(node, pid) => self.pids.insert((node, pid), claim),
        }
    }

    /// Every place that a thing's sayings lead to, with what they say.
    fn places(&self, thing: u32, take: &mut impl FnMut(Place, Said)) {
        let Words { pids, ports, external_name, .. } = self.words;
        let kind = self.things.get(thing).kind;
        for saying in self.things.sayings(thing) {
            let said = Said { rank: saying.source as u8, from: saying.from, to: saying.to };
            if matches!(kind, Kind::Node | Kind::Pod | Kind::Container) {
                saying.addresses.iter().for_each(|address| take(Place::Address(*address), said));
            }
            let has_netns = matches!(kind, Kind::Node | Kind::Pod | Kind::Container | Kind::Process);
            if has_netns && saying.netns != 0 {
                take(Place::Namespace(saying.node, saying.netns), said);
            }
            match kind {
                Kind::Container => {
                    if let Some(list) = saying.attribute(pids) {
                        let listed = self.strings.text(list).split(',').filter_map(|pid| pid.parse().ok());
                        listed.for_each(|pid| take(Place::Pid(saying.node, pid), said));
                    }
                }
                Kind::Process => {
                    if let Some((pid, _)) = process_id(self.strings.text(saying.id)) {
                        take(Place::Pid(saying.node, pid), said);
                    }
                }
                Kind::Service => {
                    saying.addresses.iter().for_each(|address| take(Place::Virtual(*address), said));
                    take(Place::Name(kind, saying.namespace, saying.name), said);
                    if let Some(list) = saying.attribute(ports) {
                        for port in ports::ports(self.strings.text(list)).filter(|port| port.on_nodes != 0) {
                            take(Place::NodePort(port.on_nodes, port.protocol), said);
                        }
                    }
                    if let Some(name) = saying.attribute(external_name) {
                        take(Place::ExternalName(name), said);
                    }
                }
                Kind::Endpoint => saying.addresses.iter().for_each(|address| take(Place::Endpoint(*address), said)),
                Kind::Namespace => take(Place::Name(kind, Symbol::EMPTY, saying.name), said),
                Kind::Node | Kind::Pod | Kind::ReplicaSet | Kind::Job => {}
            }
        }
    }
}

/// The pid and start (nanoseconds since boot) in a process's id, `pid@start`.
pub(super) fn process_id(id: &str) -> Option<(u32, u64)> {
    let (pid, start) = id.split_once('@')?;
    Some((pid.parse().ok()?, start.parse().ok()?))
}
