//! The paths through a cluster: one node and two, pods and the host's network, Services by every translation, trouble
//! on the way, and connections older than weir.

use super::kinds::{BASIC_PORTS, Case, Family, KINDS, TCP_BASICS, UDP_BASICS, case, nobody};
use super::run::{Path, Run, Sight, Spot, Watching};
use super::{Extent, Mode};
use crate::checker::End;
use crate::checker::table::Report;
use crate::cluster::{
    Cluster, Dnat, Families, Kind, Place, Plan, PodPlan, Protocol, ServicePlan, Settings, TrafficPolicy,
};
use crate::played::{Playing, Server, start};
use crate::traffic::{Manner, Word};
use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const NAMESPACE: &str = "play";

/// A path through a Service of its own.
struct Offer {
    /// The Service's name.
    name: &'static str,
    /// The scenario's name.
    scenario: &'static str,
    kind: Kind,
    /// Who calls it.
    client: Caller,
    /// The node whose port is called; the Service's own address otherwise.
    node: Option<&'static str>,
    /// The pods that serve it.
    pods: &'static [&'static str],
    /// How long a client stays with one of them.
    affinity: Option<Duration>,
}

#[derive(Clone, Copy)]
enum Caller {
    Pod(&'static str),
    Outside,
    /// Somebody who was there before weir.
    Older,
}

const fn virtual_ip(
    name: &'static str,
    scenario: &'static str,
    client: Caller,
    pods: &'static [&'static str],
) -> Offer {
    Offer { name, scenario, kind: Kind::ClusterIp, client, node: None, pods, affinity: None }
}

const fn node_port(
    name: &'static str,
    scenario: &'static str,
    policy: TrafficPolicy,
    client: Caller,
    node: &'static str,
) -> Offer {
    Offer { name, scenario, kind: Kind::NodePort(policy), client, node: Some(node), pods: &["server2"], affinity: None }
}

/// The Services; every port of theirs and of their backends follows from their place in this list.
const OFFERS: [Offer; 12] = [
    virtual_ip("near", "ClusterIP, backend on the same node", Caller::Pod("client1"), &["server1"]),
    virtual_ip("far", "ClusterIP, backend on the other node", Caller::Pod("client1"), &["server2"]),
    virtual_ip("both", "ClusterIP, a backend on each node", Caller::Pod("client1"), &["server1", "server2"]),
    virtual_ip("host", "ClusterIP from the host network", Caller::Pod("host1"), &["server2"]),
    Offer {
        affinity: Some(Duration::from_secs(600)),
        ..virtual_ip("loyal", "ClusterIP, session affinity", Caller::Pod("client1"), &["server1", "server2"])
    },
    virtual_ip("itself", "ClusterIP, hairpin", Caller::Pod("client1"), &["client1"]),
    node_port(
        "own",
        "NodePort of the own node, backend on the other",
        TrafficPolicy::Cluster,
        Caller::Pod("client1"),
        "node1",
    ),
    node_port("other", "NodePort of the other node, SNAT", TrafficPolicy::Cluster, Caller::Pod("client1"), "node2"),
    node_port("outside", "NodePort from outside, SNAT", TrafficPolicy::Cluster, Caller::Outside, "node1"),
    node_port("local", "NodePort from outside, no SNAT", TrafficPolicy::Local, Caller::Outside, "node2"),
    virtual_ip("old4", "older than weir, ClusterIP", Caller::Older, &["server2"]),
    virtual_ip("old6", "older than weir, ClusterIP", Caller::Older, &["server2"]),
];

impl Offer {
    fn index(&self) -> u16 {
        OFFERS.iter().position(|offer| offer.name == self.name).unwrap_or_default() as u16
    }

    fn first_port(&self) -> u16 {
        20_000 + 20 * self.index()
    }

    fn service_port(&self) -> u16 {
        7_000 + 20 * self.index()
    }

    fn node_port(&self) -> u16 {
        30_100 + 20 * self.index()
    }

    fn plan(&self) -> ServicePlan {
        let mut plan = ServicePlan::new(NAMESPACE, self.name, self.kind).pods(self.pods);
        plan.affinity = self.affinity;
        for manner in BASIC_PORTS {
            let protocol = if manner == Manner::Answer { Protocol::Udp } else { Protocol::Tcp };
            plan = plan.port(protocol, self.service_port() + manner.offset(), self.first_port() + manner.offset());
            if matches!(self.kind, Kind::NodePort(_)) {
                plan = plan.node_port(self.node_port() + manner.offset());
            }
        }
        plan
    }
}

/// Two nodes, on each a client and a server, and one on the host's network.
pub fn plan(dnat: Dnat) -> Plan {
    let mut plan = Plan::of_nodes(2).dnat(dnat).families(Families::Dual);
    for (name, node) in [("client1", "node1"), ("server1", "node1"), ("server2", "node2")] {
        plan = plan.pod(PodPlan::new(NAMESPACE, name, node));
    }
    for (name, node) in [("host1", "node1"), ("host2", "node2")] {
        plan = plan.pod(PodPlan::new(NAMESPACE, name, node).on_host_network());
    }
    OFFERS.iter().fold(plan, |plan, offer| plan.service(offer.plan()))
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Four,
    Six,
}

impl Version {
    const BOTH: [Self; 2] = [Self::Four, Self::Six];

    fn name(self) -> &'static str {
        if self == Self::Four { "IPv4" } else { "IPv6" }
    }

    fn of(self, mut addresses: impl Iterator<Item = IpAddr>) -> Result<IpAddr> {
        addresses.find(|ip| ip.is_ipv4() == (self == Self::Four)).context("an address of each family")
    }
}

/// Names of places in the cluster.
struct Map<'a> {
    cluster: &'a Cluster,
    version: Version,
}

impl<'a> Map<'a> {
    fn pod(&self, name: &str) -> Result<Spot<'a>> {
        let pod = self.cluster.pod(NAMESPACE, name)?;
        Ok(Spot { place: Some(pod.container("main")?.place()), ip: self.version.of(pod.addresses.iter())? })
    }

    fn outside(&self) -> Result<Spot<'a>> {
        let ip = self.version.of(self.cluster.outside_addresses().iter())?;
        Ok(Spot { place: Some(self.cluster.outside()), ip })
    }

    fn node(&self, name: &str) -> Result<IpAddr> {
        self.version.of(self.cluster.node(name)?.addresses.iter())
    }

    fn service(&self, offer: &Offer) -> Result<IpAddr> {
        let service = self.cluster.service(NAMESPACE, offer.name)?;
        self.version.of(service.addresses.context("a Service has an address")?.iter())
    }
}

/// Builds a cluster, starts weir in it, plays everything, checks.
///
/// # Errors
/// When something cannot be built or played; what weir gets wrong is in the report.
pub fn check(dnat: Dnat, extent: Extent, mode: &Mode) -> Result<Report> {
    let mut cluster = Cluster::build(&plan(dnat))?;
    let mut run = Run::default();
    for pod in ["client1", "server1", "server2"] {
        run.own(u32::try_from(cluster.pod(NAMESPACE, pod)?.sandbox().net_ns()?)?);
    }
    let mut older = Vec::new();
    ensure_links_have_one_index(&cluster)?;
    for version in Version::BOTH {
        older.extend(begin_older(&Map { cluster: &cluster, version }, &mut run)?);
    }
    let weir = cluster.start_weir(Settings::quick()?)?;
    let watching = Watching { answers: &weir, tracers: weir.feeds() };
    run.watch(&watching)?;
    for one in &mut older {
        one.playing.step()?;
        one.playing.step()?;
    }
    for version in Version::BOTH {
        let map = Map { cluster: &cluster, version };
        play_direct(&map, &mut run)?;
        play_services(&map, &mut run)?;
        play_trouble(&map, &mut run)?;
    }
    // Before they have been idle for longer than the programs wait.
    for one in older {
        one.end(&mut run)?;
    }
    // Each kind across two nodes once: how Services are translated changes nothing of it.
    if extent == Extent::Full && dnat == Dnat::Nftables {
        for version in Version::BOTH {
            let map = Map { cluster: &cluster, version };
            let (client, server) = (map.pod("client1")?, map.pod("server2")?);
            for kind in KINDS.iter().filter(|kind| kind.family == Family::Both || version == Version::Four) {
                run.play(&format!("{}, two nodes, {}", kind.name, version.name()), kind, client, server)?;
            }
        }
    }
    play_again_at_the_same_address(&mut cluster, &mut run)?;
    for expectation in mode.expectations(run.names(), &watching.cannot_see()?)? {
        run.expect(expectation);
    }
    run.finish(&watching)
}

/// What keys by the interface's index would take one pod's link for another's.
fn ensure_links_have_one_index(cluster: &Cluster) -> Result<()> {
    let index = |pod: &str| -> Result<String> {
        let links = cluster.pod(NAMESPACE, pod)?.sandbox().script("ip", &["-o", "link"], "")?;
        let link = links.lines().find(|line| !line.contains("LOOPBACK")).context("a pod has a link")?;
        Ok(link.split(':').next().unwrap_or_default().to_owned())
    };
    let (one, other) = (index("client1")?, index("server2")?);
    ensure!(one == other, "the pods' links have the indices {one} and {other}, not the same");
    Ok(())
}

/// TCP and UDP on one path, a scenario each.
fn play_basics(run: &mut Run, name: &str, version: Version, path: &Path<'_>) -> Result<()> {
    run.play_on(&format!("{name}, TCP, {}", version.name()), TCP_BASICS, path)?;
    run.play_on(&format!("{name}, UDP, {}", version.name()), UDP_BASICS, path)
}

fn play_direct(map: &Map<'_>, run: &mut Run) -> Result<()> {
    let ways = [
        ("pod to pod, one node", "client1", "server1"),
        ("pod to pod, two nodes", "client1", "server2"),
        ("host network to pod, one node", "host1", "server1"),
        ("host network to pod, two nodes", "host1", "server2"),
        ("pod to host network, one node", "client1", "host1"),
        ("pod to host network, two nodes", "client1", "host2"),
        ("host network to host network, two nodes", "host1", "host2"),
    ];
    for (name, client, server) in ways {
        let (client, server) = (map.pod(client)?, map.pod(server)?);
        let called = |port| SocketAddr::new(server.ip, port);
        let path = Path { client, servers: &[server], first_port: None, called: &called, sight: Sight::Both };
        play_basics(run, name, map.version, &path)?;
    }
    let loopback: IpAddr =
        if map.version == Version::Four { [127, 0, 0, 1].into() } else { IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16]) };
    for pod in ["client1", "server1"] {
        let spot = Spot { ip: loopback, ..map.pod(pod)? };
        let called = |port| SocketAddr::new(loopback, port);
        // The same ports in both.
        let path =
            Path { client: spot, servers: &[spot], first_port: Some(9_000), called: &called, sight: Sight::Both };
        play_basics(run, "loopback, one tuple in two pods", map.version, &path)?;
    }
    Ok(())
}

fn play_services(map: &Map<'_>, run: &mut Run) -> Result<()> {
    for offer in &OFFERS {
        let (client, sight) = match offer.client {
            Caller::Pod(name) => (map.pod(name)?, Sight::Both),
            Caller::Outside => (map.outside()?, Sight::Servers),
            Caller::Older => continue,
        };
        let (address, first) = match offer.node {
            Some(node) => (map.node(node)?, offer.node_port()),
            None => (map.service(offer)?, offer.service_port()),
        };
        let called = move |port: u16| SocketAddr::new(address, first + port - offer.first_port());
        let servers: Vec<_> = offer.pods.iter().map(|pod| map.pod(pod)).collect::<Result<_>>()?;
        let first_port = Some(offer.first_port());
        let path = Path { client, servers: &servers, first_port, called: &called, sight };
        play_basics(run, offer.scenario, map.version, &path)?;
        if offer.affinity.is_some() {
            let backends = run.backends(&format!("{}, TCP, {}", offer.scenario, map.version.name()));
            // Each port of a Service chooses for itself.
            ensure!(backends.values().all(|one| one.len() == 1), "a client that stays was led to {backends:?}");
        }
    }
    Ok(())
}

const LOSSY: &[Case] = &[
    case("TCP, 1 MB up", &["upload", "--bytes", "1000000"], &[Manner::Sink]),
    case("UDP, unanswered", &["flood", "--count", "50"], &[Manner::Slow]),
];
const REFUSED: &[Case] = &[nobody("TCP, refused", &["refused"]), nobody("UDP, nobody there", &["nobody"])];
const TIMED_OUT: &[Case] = &[nobody("TCP, timed out", &["timed-out"])];

/// Rules of the test's own in one namespace; gone with it or when dropped.
struct Rules<'a>(&'a Place);

impl<'a> Rules<'a> {
    fn add(place: &'a Place, rules: &str) -> Result<Self> {
        let text = format!("table inet weir_trouble {{\n{rules}\n}}\n");
        place.script("nft", &["-f", "-"], &text)?;
        Ok(Self(place))
    }
}

impl Drop for Rules<'_> {
    fn drop(&mut self) {
        let _ = self.0.script("nft", &["delete", "table", "inet", "weir_trouble"], "");
    }
}

fn play_trouble(map: &Map<'_>, run: &mut Run) -> Result<()> {
    let (client, server) = (map.pod("client1")?, map.pod("server2")?);
    let called = |port| SocketAddr::new(server.ip, port);
    let path = Path { client, servers: &[server], first_port: None, called: &called, sight: Sight::Both };
    let version = map.version.name();
    let lossy = Rules::add(
        map.cluster.node("node1")?.place(),
        "chain forward { type filter hook forward priority -300; meta l4proto { tcp, udp } numgen inc mod 25 == 7 drop; }",
    )?;
    run.play_on(&format!("one packet in 25 lost on the way, {version}"), LOSSY, &path)?;
    drop(lossy);
    run.play_on(&format!("nobody listens, {version}"), REFUSED, &path)?;
    let deaf = Rules::add(
        server.place.context("a pod has a place")?,
        "chain input { type filter hook input priority 0; meta l4proto tcp drop; }",
    )?;
    run.play_on(&format!("nobody answers, {version}"), TIMED_OUT, &path)?;
    drop(deaf);
    Ok(())
}

/// Bytes for each step of a connection that is older than weir.
const STEP: u64 = 10_000;
/// Steps before weir.
const STEPS_BEFORE: u64 = 3;

/// A connection older than weir.
struct Older {
    playing: Playing,
    server: Server,
    scenario: usize,
}

impl Older {
    fn end(self, run: &mut Run) -> Result<()> {
        let mut truth = self.playing.end()?.truth;
        truth.extend(self.server.close()?.truth);
        let moved = STEP * STEPS_BEFORE;
        for truth in truth {
            run.take_end(End { before: Word { sent: moved, recv: moved }, ..End::new(truth, self.scenario) });
        }
        Ok(())
    }
}

fn begin_older(map: &Map<'_>, run: &mut Run) -> Result<Vec<Older>> {
    let (client, server) = (map.pod("client1")?, map.pod("server2")?);
    let name = if map.version == Version::Four { "old4" } else { "old6" };
    let old = OFFERS.iter().find(|offer| offer.name == name).context("a Service for what is older")?;
    let direct = run.scenario(&format!("older than weir, pod to pod, {}", map.version.name()));
    let through = run.scenario(&format!("{}, {}", old.scenario, map.version.name()));
    let echo = Manner::Echo.offset();
    let ways = [
        (direct, Run::ports(direct), SocketAddr::new(server.ip, Run::ports(direct) + echo)),
        (through, old.first_port(), SocketAddr::new(map.service(old)?, old.service_port() + echo)),
    ];
    let mut older = Vec::new();
    for (scenario, first, called) in ways {
        let server = Server::open(&["--first-port", &first.to_string()], &|command| server.prepare(command))?;
        let args = ["hold", "--bytes", &STEP.to_string()];
        let mut playing = start(&args, called, &|command| client.prepare(command))?;
        playing.line()?;
        for _ in 0..STEPS_BEFORE {
            playing.step()?;
        }
        older.push(Older { playing, server, scenario });
    }
    Ok(older)
}

/// A pod is deleted and another one gets its address.
fn play_again_at_the_same_address(cluster: &mut Cluster, run: &mut Run) -> Result<()> {
    let address = std::net::Ipv4Addr::new(10, 244, 1, 77);
    for name in ["first", "second"] {
        cluster.add_pod(&PodPlan::new(NAMESPACE, name, "node1").at(address))?;
        let map = Map { cluster, version: Version::Four };
        let (client, server) = (map.pod(name)?, map.pod("server2")?);
        ensure!(client.ip == IpAddr::V4(address), "{name} has {}", client.ip);
        let called = |port| SocketAddr::new(server.ip, port);
        let path = Path { client, servers: &[server], first_port: None, called: &called, sight: Sight::Both };
        play_basics(run, &format!("the {name} pod with one address"), Version::Four, &path)?;
        cluster.delete_pod(NAMESPACE, name)?;
    }
    Ok(())
}
