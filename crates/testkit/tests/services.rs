//! The promise: however a connection reaches a pod through a Service, it is one edge from the client to that pod, to the
//! byte, and counted once.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use weir_testkit::cluster::{
    Cluster, Dnat, Kind, Place, Plan, PodPlan, Protocol, ServicePlan, Settings, TrafficPolicy,
};
use weir_testkit::is_root_or_skip;
use weir_testkit::played::{Server, play};
use weir_testkit::process::until;

const PATIENCE: Duration = Duration::from_secs(60);

/// A backend on node1 alone, so that it is known where each connection leads; clients on every node.
fn plan(dnat: Dnat) -> Plan {
    let pod = |name: &str, node| PodPlan::new("demo", name, node).containers(&["app"]);
    // 8080 is the traffic server's echo, 8088 answers datagrams.
    let service = |name: &str, kind| {
        let plan = ServicePlan::new("demo", name, kind).pods(&["web"]);
        plan.port(Protocol::Tcp, 80, 8080)
    };
    let datagrams = |name: &str, kind| {
        let plan = ServicePlan::new("demo", name, kind).pods(&["web"]);
        plan.port(Protocol::Udp, 53, 8088)
    };
    Plan::of_nodes(3)
        .dnat(dnat)
        .pod(pod("web", "node1"))
        .pod(pod("near", "node1"))
        .pod(pod("far", "node3"))
        .pod(pod("hostnet", "node2").on_host_network())
        .service(service("web", Kind::ClusterIp))
        .service(service("np", Kind::NodePort(TrafficPolicy::Cluster)).node_port(30080))
        .service(service("local", Kind::NodePort(TrafficPolicy::Local)).node_port(30081))
        .service(datagrams("dns", Kind::ClusterIp))
        .service(datagrams("dns-np", Kind::NodePort(TrafficPolicy::Cluster)).node_port(30053))
}

/// Client and server by address, the server's port, the protocol.
type Ends = (String, String, u16, String);

fn every_way_is_one_edge(dnat: Dnat) -> Result<()> {
    let cluster = Cluster::build(&plan(dnat))?;
    let weir = cluster.start_weir(Settings::quick()?)?;
    let pod = |name: &str| cluster.pod("demo", name);
    let own = |name: &str| pod(name)?.addresses.iter().next().context("an address");
    let place = |name: &str| Ok::<_, anyhow::Error>(pod(name)?.container("app")?.place());
    let web = place("web")?;
    let server = Server::open(&["--first-port", "8080"], &|command| web.prepare(command))?;
    let service = cluster.service("demo", "web")?.at(80)?[0];
    let node = |name: &str, port: u16| {
        let address = cluster.node(name)?.addresses.iter().next().context("an address")?;
        Ok::<_, anyhow::Error>(SocketAddr::new(address, port))
    };
    let outside = cluster.outside_addresses().iter().next().context("an address")?;
    let ways: Vec<(&Place, IpAddr, SocketAddr, u64)> = vec![
        // ClusterIP: on one node, from another, from the pod itself, from a host's network.
        (place("near")?, own("near")?, service, 1_001),
        (place("far")?, own("far")?, service, 2_002),
        (web, own("web")?, service, 3_003),
        (place("hostnet")?, own("hostnet")?, service, 4_004),
        // NodePort through the client's own node, through one in the middle, and through the backend's.
        (place("far")?, own("far")?, node("node3", 30080)?, 10_010),
        (place("far")?, own("far")?, node("node2", 30080)?, 20_020),
        (place("near")?, own("near")?, node("node1", 30080)?, 30_030),
        (place("near")?, own("near")?, node("node2", 30080)?, 40_040),
        // From outside, where nobody watches: masqueraded by a node in the middle, by the backend's, and not at all.
        (cluster.outside(), outside, node("node3", 30080)?, 100_100),
        (cluster.outside(), outside, node("node1", 30080)?, 200_200),
        (cluster.outside(), outside, node("node1", 30081)?, 300_300),
    ];
    let mut expected: BTreeMap<Ends, (u64, u64, u64)> = BTreeMap::new();
    let mut expect = |client: IpAddr, port: u16, protocol: &str, sent: u64, recv: u64| {
        let ends = (client.to_string(), own("web")?.to_string(), port, protocol.to_owned());
        let sum = expected.entry(ends).or_default();
        *sum = (sum.0 + sent, sum.1 + recv, sum.2 + 1);
        Ok::<_, anyhow::Error>(())
    };
    for (place, client, to, bytes) in &ways {
        let (bytes, to) = (*bytes, *to);
        play(&["echo", "--bytes", &bytes.to_string()], &[to], &|command| place.prepare(command))
            .with_context(|| format!("{client} to {to}"))?;
        expect(*client, 8080, "tcp", bytes, bytes)?;
    }
    let dns = cluster.service("demo", "dns")?.at(53)?[0];
    for (from, to) in [("near", dns), ("far", dns), ("web", dns), ("far", node("node2", 30053)?)] {
        let place = place(from)?;
        let told = play(&["connected", "--count", "5"], &[to], &|command| place.prepare(command))
            .with_context(|| format!("{from} to {to}"))?;
        let [end] = &told.truth[..] else { bail!("{from} to {to}: {told:?}") };
        expect(own(from)?, 8088, "udp", end.sent, end.recv)?;
    }
    server.close()?;
    until(PATIENCE, || {
        let mut found: BTreeMap<Ends, (u64, u64, u64)> = BTreeMap::new();
        for edge in
            weir.edges()?.iter().filter(|edge| matches!(edge.port, 53 | 80 | 8080 | 8088 | 30053 | 30080 | 30081))
        {
            let name = |end: &weir_wire::api::EdgeEnd| end.address.clone().unwrap_or_else(|| end.name.clone());
            let ends = (name(&edge.client), name(&edge.server), edge.port, edge.protocol.clone());
            ensure!(edge.service.is_none(), "{edge:?}");
            found.insert(ends, (edge.sent_bytes, edge.recv_bytes, edge.connections));
        }
        ensure!(found == expected, "found {found:#?}, expected {expected:#?}");
        Ok(true)
    })?;
    weir.stop()
}

#[test]
fn every_way_through_nftables_is_one_edge() -> Result<()> {
    if !is_root_or_skip("every_way_through_nftables_is_one_edge") {
        return Ok(());
    }
    every_way_is_one_edge(Dnat::Nftables)
}

#[test]
fn every_way_through_iptables_is_one_edge() -> Result<()> {
    if !is_root_or_skip("every_way_through_iptables_is_one_edge") {
        return Ok(());
    }
    every_way_is_one_edge(Dnat::Iptables)
}
