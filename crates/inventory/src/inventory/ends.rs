//! Both ends of a connection: the local one by what its socket says, the remote one by its address at that time (R6).

use super::Inventory;
use super::claims::{Claim, OPEN, UNCERTAINTY_NS};
use super::index::process_id;
use super::precedence::{Reader, Source};
use super::strings::Symbol;
use super::things::{HexId, Kind, NONE, Saying};
use super::who::{Basis, Name, Who};
use crate::cgroup;
use crate::processes::same_start;
use std::net::IpAddr;
use weir_model::{Certainty, UnixNanos};

/// What a record says about its own end. Empty and 0 mean unknown.
#[derive(Clone, Copy, Debug)]
pub struct LocalEnd<'a> {
    /// The node that it was seen on.
    pub node: &'a str,
    /// The owner's name.
    pub process: &'a str,
    /// The owner's pid.
    pub pid: u32,
    /// When the owner started, nanoseconds since boot.
    pub process_start: u64,
    /// The container, as the agent found it.
    pub container_id: &'a str,
    /// The cgroup that the socket was created in.
    pub cgroup_path: &'a str,
    /// The network namespace's inode.
    pub netns: u32,
    /// The socket's own address.
    pub address: IpAddr,
}

/// What is known of the other end where it has no view of its own.
#[derive(Clone, Copy, Debug)]
pub struct RemoteEnd<'a> {
    /// The node that the connection was seen on: addresses of Docker's bridges are unique there only.
    pub seen_on: &'a str,
    /// The end's address.
    pub address: IpAddr,
    /// When the connection began, if that is known.
    pub began: Option<UnixNanos>,
    /// When it was first seen.
    pub first_seen: UnixNanos,
}

/// Who holds a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// Nobody ever claimed it.
    Never,
    /// Somebody has held it, but for that instant nobody is sure, or more than one may have.
    Unclear,
    /// More than one node: an address that every node has, a Service's with IPVS.
    Nodes,
    /// A node, or pods on its network.
    Node(Symbol),
    Pod(u32),
    Container(u32),
    /// A network namespace: the host's, or one where processes outside of containers are.
    Outside,
}

impl Inventory {
    /// Who a socket's own end is: its cgroup at creation; else its network namespace, if exactly one pod holds it; else
    /// its owner by pid and start; its address last, and never in the host's network namespace.
    ///
    /// `at`: when the socket was seen to be so, best the connection's last change.
    pub fn local<'a>(&'a self, end: &LocalEnd<'a>, at: UnixNanos) -> Who<'a> {
        let who = Who { node: Name::Text(end.node), ..Who::unknown(self, end.address, at) };
        if let Some(who) = self.by_cgroup(end, who) {
            return who;
        }
        let node = self.strings.find(end.node);
        // That nobody else holds a namespace is known only as far as everything was told.
        let netns = match node.filter(|node| end.netns != 0 && at.0 < self.processes_until(*node)) {
            Some(node) => self.held(self.namespaces.claims(&(node, end.netns)).as_slice(), at.0, end.node),
            None => Held::Never,
        };
        let inferred = |basis| Who { basis, certainty: Certainty::Inferred, ..who };
        match netns {
            Held::Pod(pod) => return inferred(Basis::Netns).call(pod, NONE, ""),
            Held::Container(container) => return inferred(Basis::Netns).call(NONE, container, ""),
            _ => {}
        }
        if let Some(who) = node.and_then(|node| self.by_process(end, node, at.0, who)) {
            return who;
        }
        let is_hosts = matches!(netns, Held::Outside | Held::Node(_) | Held::Nodes);
        if !is_hosts && let Some(node) = node {
            let is_here = |thing: u32| self.things.get(thing).node == node;
            match self.held(self.addresses.claims(&end.address.to_canonical()).as_slice(), at.0, end.node) {
                Held::Pod(pod) if is_here(pod) => return inferred(Basis::Address).call(pod, NONE, ""),
                Held::Container(container) if is_here(container) => {
                    return inferred(Basis::Address).call(NONE, container, "");
                }
                _ => {}
            }
        }
        if end.process.is_empty() {
            return who;
        }
        process(who, Name::Text(end.process))
    }

    /// Who holds a remote end's address, when the connection began; else when it was first seen.
    pub fn remote<'a>(&'a self, end: &RemoteEnd<'a>) -> Who<'a> {
        let at = end.began.unwrap_or(end.first_seen);
        let address = end.address.to_canonical();
        let who = Who::unknown(self, address, at);
        if address.is_loopback() || address.is_unspecified() {
            return who;
        }
        let inferred = Who { basis: Basis::Address, certainty: Certainty::Inferred, ..who };
        let held = self.held(self.addresses.claims(&address).as_slice(), at.0, end.seen_on);
        match held {
            Held::Node(node) => {
                let name = Name::Symbol(node);
                return Who { kind: "node", name, node: name, ..inferred };
            }
            Held::Pod(pod) => {
                return Who { node: Name::Symbol(self.things.get(pod).node), ..inferred }.call(pod, NONE, "");
            }
            Held::Container(container) => {
                let node = Name::Symbol(self.things.get(container).node);
                return Who { node, ..inferred }.call(NONE, container, "");
            }
            Held::Never | Held::Unclear | Held::Nodes | Held::Outside => {}
        }
        if matches!(held, Held::Never | Held::Nodes) {
            let virtuals = self.virtuals.claims(&address);
            let virtuals = virtuals.as_slice();
            if let Some(service) = self.only(virtuals, at.0, |_| true) {
                let (namespace, name) = self.service_name(service, at.0);
                let named = Who { kind: "service", namespace, name: Name::Symbol(name), service, ..inferred };
                return Who { certainty: Certainty::Known, ..named };
            }
            if virtuals.is_empty() && !self.is_endpoint_of_a_pod(address) && held == Held::Never {
                return self.external(address, who);
            }
        }
        who
    }

    /// The node whose next word is going to tell who a remote end is: that of who held the address when the node was last
    /// heard of, less than `within_ns` before. `None` also where the end has a name, or nobody held the address then.
    pub fn awaited_of<'a>(&'a self, end: &RemoteEnd<'a>, within_ns: i64) -> Option<&'a str> {
        let at = end.began.unwrap_or(end.first_seen).0;
        let claims = self.addresses.claims(&end.address.to_canonical());
        let open = claims.as_slice().iter().filter(|claim| claim.to == OPEN);
        let told = open.map(|claim| self.told_until(claim.thing)).max()?;
        if told > at || at.saturating_sub(told) >= within_ns {
            return None;
        }
        let last = UnixNanos(told.saturating_sub(1));
        let holder = self.remote(&RemoteEnd { began: Some(last), first_seen: last, ..*end });
        Some(holder.node()).filter(|node| !node.is_empty())
    }

    /// Whether an address is the cluster's own: a node, pod, container or Service holds it, or has held it.
    pub fn is_held(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        !self.addresses.claims(&address).as_slice().is_empty()
            || !self.virtuals.claims(&address).as_slice().is_empty()
            || self.is_endpoint_of_a_pod(address)
    }

    fn external<'a>(&'a self, address: IpAddr, who: Who<'a>) -> Who<'a> {
        if let Some(name) = self.networks.name(address) {
            let basis = Basis::Network;
            return Who { kind: "external", name: Name::Text(name), basis, certainty: Certainty::Known, ..who };
        }
        // A pod whose metadata is late may have a private address; hardly one has a public one.
        let certainty = if is_public(address) { Certainty::Known } else { Certainty::Inferred };
        Who { kind: "external", certainty, ..who }
    }

    /// By the container or pod that the socket's cgroup names; or, where it names neither, the process.
    fn by_cgroup<'a>(&'a self, end: &LocalEnd<'a>, who: Who<'a>) -> Option<Who<'a>> {
        let known = Who { basis: Basis::Cgroup, certainty: Certainty::Known, ..who };
        let id = Some(end.container_id).filter(|id| !id.is_empty()).or_else(|| cgroup::container_id(end.cgroup_path));
        let found = id.and_then(HexId::parse).and_then(|id| self.things.container(&id));
        let found = found.or_else(|| {
            let container = self.find(Kind::Container, id?)?;
            Some((container, self.things.get(container).parent))
        });
        let (container, of_container) = found.unzip();
        let of_container = of_container.filter(|pod| *pod != NONE);
        let pod = match of_container {
            Some(pod) => Some(self.things.resolve(pod)),
            None => cgroup::pod(end.cgroup_path).and_then(|uid| self.find(Kind::Pod, uid.as_str())),
        };
        if id.is_some() || pod.is_some() {
            return Some(known.call(pod.unwrap_or(NONE), container.unwrap_or(NONE), id.unwrap_or("")));
        }
        if cgroup::pod(end.cgroup_path).is_some() {
            // A pod that no source told of yet.
            return Some(who);
        }
        let says_nothing = end.cgroup_path.split('/').all(|part| matches!(part, "" | ".."));
        // A path that names something but no container says that the socket is in none.
        (!says_nothing && !end.process.is_empty()).then(|| process(known, Name::Text(end.process)))
    }

    fn by_process<'a>(&'a self, end: &LocalEnd<'a>, node: Symbol, at: i64, who: Who<'a>) -> Option<Who<'a>> {
        if end.pid == 0 {
            return None;
        }
        let claims = self.pids.claims(&(node, end.pid));
        let claims = claims.as_slice();
        let is_process = |thing: u32| self.things.get(thing).kind == Kind::Process;
        let (found, certainty) = if end.process_start == 0 {
            let elsewhere = |thing: u32| {
                let other = |netns: u32| netns != 0 && end.netns != 0 && netns != end.netns;
                self.things.sayings(thing).any(|saying| other(saying.netns))
            };
            let found = self.only(claims, at, is_process).filter(|thing| !elsewhere(*thing));
            (found.or_else(|| self.only(claims, at, |_| true)), Certainty::Inferred)
        } else {
            let started = |thing: u32| {
                let id = process_id(self.strings.text(self.things.get(thing).id));
                id.is_some_and(|(_, start)| same_start(start, end.process_start))
            };
            let mut found =
                claims.iter().map(|claim| claim.thing).filter(|thing| is_process(*thing) && started(*thing));
            let first = found.next();
            // The same pid and start twice: two boots.
            let is_alone = found.all(|other| Some(other) == first);
            (first.filter(|_| is_alone), Certainty::Known)
        };
        let found = found?;
        let who = Who { basis: Basis::Process, certainty, ..who };
        if !is_process(found) {
            let pod = self.things.get(found).parent;
            return Some(who.call(self.things.resolve(pod), found, ""));
        }
        let thing = self.things.get(found);
        if thing.parent == NONE {
            let name = if end.process.is_empty() { Name::Symbol(thing.name) } else { Name::Text(end.process) };
            return Some(process(who, name));
        }
        let container = self.things.resolve(thing.parent);
        Some(who.call(self.things.resolve(self.things.get(container).parent), container, ""))
    }

    fn find(&self, kind: Kind, id: &str) -> Option<u32> {
        self.things.find(kind, Symbol::EMPTY, self.strings.find(id)?)
    }

    /// The node, pod or container that alone claims a key at an instant, seen from a node.
    fn held(&self, claims: &[Claim], at: i64, viewer: &str) -> Held {
        let [first, others @ ..] = claims else {
            return match claims {
                [] => Held::Never,
                _ => Held::Unclear,
            };
        };
        if others.is_empty() {
            return if self.is_sure(first, at) { self.identity(first.thing) } else { Held::Unclear };
        }
        let viewer = self.strings.find(viewer);
        let mut sure = Held::Never;
        let mut here = Held::Never;
        for claim in claims.iter().filter(|claim| self.is_sure(claim, at)) {
            let identity = self.identity(claim.thing);
            sure = both(sure, identity);
            if viewer == Some(self.things.get(claim.thing).node) {
                here = both(here, identity);
            }
        }
        if sure == Held::Never {
            return Held::Unclear;
        }
        let is_alone = |held: Held| {
            let mut possible = claims.iter().filter(|claim| self.is_possible(claim, at));
            possible.all(|claim| both(held, self.identity(claim.thing)) == held)
        };
        match sure {
            // Bridges of two nodes may give out the same addresses: the viewer's own is meant.
            Held::Unclear if matches!(here, Held::Container(_)) && self.are_containers(claims) => here,
            Held::Unclear | Held::Nodes => sure,
            _ if is_alone(sure) => sure,
            _ => Held::Unclear,
        }
    }

    fn are_containers(&self, claims: &[Claim]) -> bool {
        claims.iter().all(|claim| matches!(self.identity(claim.thing), Held::Container(_)))
    }

    /// Whom a claim is for: a container's pod, a process's container.
    fn identity(&self, thing: u32) -> Held {
        let held = self.things.get(thing);
        match held.kind {
            Kind::Node => Held::Node(held.node),
            Kind::Pod if held.is_host_network => Held::Node(held.node),
            Kind::Pod => Held::Pod(thing),
            Kind::Container if held.parent == NONE => Held::Container(thing),
            Kind::Process if held.parent == NONE => Held::Outside,
            Kind::Container | Kind::Process => self.identity(self.things.resolve(held.parent)),
            Kind::Namespace | Kind::ReplicaSet | Kind::Job | Kind::Service | Kind::Endpoint => Held::Unclear,
        }
    }

    /// The one thing of those that `wanted` takes that surely holds a key, if no other may.
    pub(super) fn only(&self, claims: &[Claim], at: i64, wanted: impl Fn(u32) -> bool) -> Option<u32> {
        let mut wanted = claims.iter().filter(|claim| wanted(claim.thing));
        let found = wanted.clone().find(|claim| self.is_sure(claim, at))?.thing;
        wanted.all(|claim| claim.thing == found || !self.is_possible(claim, at)).then_some(found)
    }

    /// Whether a claim holds at `at` as far as its node's agent has told.
    pub(super) fn is_sure(&self, claim: &Claim, at: i64) -> bool {
        claim.is_sure(at) && (claim.to != OPEN || self.is_told(claim.thing, at))
    }

    /// Whether a claim may hold at `at`. One whose end nobody told is possible as far as it is believed.
    pub(super) fn is_possible(&self, claim: &Claim, at: i64) -> bool {
        claim.is_possible(at) && (claim.late != OPEN || self.is_told(claim.thing, at.saturating_sub(UNCERTAINTY_NS)))
    }

    /// Until when the processes of a node, and their namespaces, have been told.
    fn processes_until(&self, node: Symbol) -> i64 {
        let told = [Source::Tracer, Source::Proc].map(|source| self.vouches.get(node, Reader::Of(source)));
        told.into_iter().flatten().map(|vouched| vouched.until).max().unwrap_or(OPEN)
    }

    /// Until when a saying without an end is believed.
    fn said_until(&self, kind: Kind, saying: &Saying) -> i64 {
        match self.vouches.get(saying.node, Reader::of(kind, saying.source)) {
            None => OPEN,
            Some(vouched) if saying.said < vouched.since => saying.said,
            Some(vouched) => vouched.until.max(saying.said),
        }
    }

    /// Whether what was said of a thing without an end is believed at `at`.
    fn is_told(&self, thing: u32, at: i64) -> bool {
        let held = self.things.get(thing);
        self.vouches.have_told(held.voucher, held.said, at) || at < self.told_until(thing)
    }

    /// Until when what was said of a thing without an end is believed: as far as any source that says so has been read.
    fn told_until(&self, thing: u32) -> i64 {
        let kind = self.things.get(thing).kind;
        let open = self.things.sayings(thing).filter(|saying| saying.to == OPEN);
        open.map(|saying| self.said_until(kind, saying)).max().unwrap_or(OPEN)
    }
}

/// Two claims at once. Processes outside of containers make a namespace nobody's; a node's address says the node alone,
/// whoever shares it.
fn both(one: Held, other: Held) -> Held {
    match (one, other) {
        (Held::Never, held) | (held, Held::Never) => held,
        (one, other) if one == other => one,
        (Held::Outside, _) | (_, Held::Outside) => Held::Outside,
        (Held::Nodes, _) | (_, Held::Nodes) | (Held::Node(_), Held::Node(_)) => Held::Nodes,
        (node @ Held::Node(_), _) | (_, node @ Held::Node(_)) => node,
        _ => Held::Unclear,
    }
}

fn process<'a>(who: Who<'a>, name: Name<'a>) -> Who<'a> {
    let certainty = if who.basis == Basis::Nothing { Certainty::Known } else { who.certainty };
    Who { kind: "process", name, certainty, ..who }
}

/// Whether an address is routed on the internet, as far as its form tells (RFC 1918, 4193, 6598).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            !(v4.is_private() || v4.is_link_local() || a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => !(v6.is_unique_local() || v6.is_unicast_link_local()),
    }
}
