//! The promise: every edge of a cluster by pod, workload, Service, namespace, node and zone, as kubelets and API server
//! say who is who, with a Service's traffic once and how sure each name is; also of pods that are gone, and of two that
//! had one address after each other.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use weir_testkit::cluster::{
    Cluster, ClusterWeir, Kind, Metadata, Plan, PodPlan, Protocol, ServicePlan, Settings, TrafficPolicy,
};
use weir_testkit::is_root_or_skip;
use weir_testkit::played::{Server, play};
use weir_testkit::process::until;
use weir_testkit::traffic::{Manner, Role};
use weir_wire::api::{Answer, Edge, EdgeEnd, MetadataRow};

const PATIENCE: Duration = Duration::from_secs(90);

/// The servers' first port, that of echoes; the others lie above it in the order of [`Manner`].
const ECHO: u16 = 8080;

const WEB: &str = "web-6675746f8b-aaaaa";
const FRONT: &str = "front-7d9c5b6f4d-bbbbb";
const REPORT: &str = "report-29071234-ccccc";
const OLD: &str = "old-5c6d7f8b9d-ddddd";
const YOUNG: &str = "young-5f4d7c9b8d-eeeee";

/// Every pod with its workload, node and zone.
const PODS: [(&str, &str, &str, &str); 7] = [
    (WEB, "deployment shop/web", "node1", "zone-a"),
    (FRONT, "deployment shop/front", "node2", "zone-b"),
    (REPORT, "cron_job shop/report", "node3", "zone-a"),
    ("hostnet-x", "daemon_set shop/hostnet", "node3", "zone-a"),
    ("db-0", "stateful_set shop/db", "node1", "zone-a"),
    (OLD, "deployment shop/old", "node2", "zone-b"),
    (YOUNG, "deployment shop/young", "node2", "zone-b"),
];

fn udp_port() -> u16 {
    ECHO + Manner::Answer.offset()
}

fn plan() -> Plan {
    let pod = |name: &str, node| PodPlan::new("shop", name, node).containers(&["app", "side"]);
    Plan::of_nodes(3)
        .pod(pod(WEB, "node1").label("app", "web").owned_by("ReplicaSet", "web-6675746f8b"))
        .pod(pod(FRONT, "node2").owned_by("ReplicaSet", "front-7d9c5b6f4d"))
        .pod(pod(REPORT, "node3").owned_by("Job", "report-29071234"))
        .pod(pod("hostnet-x", "node3").on_host_network().owned_by("DaemonSet", "hostnet"))
        .pod(pod("db-0", "node1").owned_by("StatefulSet", "db"))
        .pod(pod(OLD, "node2").owned_by("ReplicaSet", "old-5c6d7f8b9d"))
        .service(ServicePlan::new("shop", "web", Kind::ClusterIp).pods(&[WEB]).port(Protocol::Tcp, 80, ECHO))
        .service(
            ServicePlan::new("shop", "np", Kind::NodePort(TrafficPolicy::Cluster))
                .pods(&[WEB])
                .port(Protocol::Tcp, 80, ECHO)
                .node_port(30080),
        )
        .service(ServicePlan::new("shop", "clock", Kind::ClusterIp).pods(&[WEB]).port(Protocol::Udp, 123, udp_port()))
        .service(ServicePlan::new("shop", "db", Kind::Headless).pods(&["db-0"]).port(Protocol::Tcp, ECHO, ECHO).port(
            Protocol::Udp,
            udp_port(),
            udp_port(),
        ))
}

/// What one client did, and what every answer must say of it.
struct Way {
    client: &'static str,
    server: &'static str,
    /// The Service with its certainty, or the candidates.
    service: &'static str,
    port: u16,
    sent: u64,
}

/// Client, server, Service with its certainty or candidates, port, the edge's certainty.
type Told = (String, String, String, u16, String);

impl Way {
    fn told(&self, by: &str) -> Told {
        let certainty = if by == "service" && self.service.ends_with("inferred") { "inferred" } else { "known" };
        let server = match self.service.split_once(' ') {
            Some((service, certainty)) if by == "service" => format!("service {service} {certainty}"),
            _ => end(by, self.server),
        };
        (end(by, self.client), server, self.service.to_owned(), self.port, certainty.to_owned())
    }
}

fn end(by: &str, pod: &str) -> String {
    let (_, workload, node, zone) = PODS.into_iter().find(|known| known.0 == pod).unwrap_or_default();
    match by {
        "pod" => format!("pod shop/{pod} known"),
        "namespace" => "namespace shop/shop known".to_owned(),
        "node" => format!("node /{node} known"),
        "zone" => format!("zone /{zone} known"),
        _ => format!("{workload} known"),
    }
}

fn told(edge: &Edge) -> Told {
    let text = |end: &EdgeEnd| {
        format!("{} {}/{} {}", end.kind, end.namespace.as_deref().unwrap_or_default(), end.name, end.certainty)
    };
    let service = match (&edge.service, &edge.service_certainty) {
        (Some(service), Some(certainty)) => format!("{service} {certainty}"),
        _ => edge.service_candidates.join("|"),
    };
    (text(&edge.client), text(&edge.server), service, edge.port, edge.certainty.clone())
}

/// Waits until the edges of the played ports are exactly these, with every byte once, under every grouping.
fn agrees(weir: &ClusterWeir, ways: &[Way]) -> Result<()> {
    for by in ["pod", "workload", "service", "namespace", "node", "zone"] {
        let mut wanted: BTreeMap<Told, u64> = BTreeMap::new();
        for way in ways {
            *wanted.entry(way.told(by)).or_default() += way.sent;
        }
        until(PATIENCE, || {
            let edges = weir.edges_by(by)?;
            let mut found: BTreeMap<Told, u64> = BTreeMap::new();
            for edge in edges.iter().filter(|edge| [ECHO, udp_port()].contains(&edge.port)) {
                *found.entry(told(edge)).or_default() += edge.sent_bytes;
            }
            ensure!(found == wanted, "{by}: found {found:#?}, expected {wanted:#?}");
            Ok(true)
        })?;
    }
    Ok(())
}

/// Plays a script in a pod; says what it sent.
fn sent(cluster: &Cluster, pod: &str, script: &[&str], to: SocketAddr) -> Result<u64> {
    let from = cluster.pod("shop", pod)?.container("app")?.place();
    let told = play(script, &[to], &|command| from.prepare(command)).with_context(|| format!("{pod} to {to}"))?;
    Ok(told.truth.iter().filter(|truth| truth.role == Role::Client).map(|truth| truth.sent).sum())
}

fn serve(cluster: &Cluster, pod: &str) -> Result<Server> {
    let place = cluster.pod("shop", pod)?.container("app")?.place();
    Server::open(&["--first-port", &ECHO.to_string()], &|command| place.prepare(command))
}

/// Whether the kubelets have been read since a pod is gone.
fn is_over(weir: &ClusterWeir, pod: &str) -> Result<bool> {
    let answer: Answer<MetadataRow> = weir.answer(&["metadata", "--kind", "pod", "--name", pod])?;
    Ok(!answer.items.is_empty() && answer.items.iter().all(|row| row.valid_to.is_some()))
}

#[test]
fn every_edge_has_the_names_that_kubernetes_gives_and_a_service_is_counted_once() -> Result<()> {
    if !is_root_or_skip("every_edge_has_the_names_that_kubernetes_gives_and_a_service_is_counted_once") {
        return Ok(());
    }
    let mut cluster = Cluster::build(&plan())?;
    let weir = cluster.start_weir(Settings { metadata: Metadata::Kubernetes, ..Settings::quick()? })?;
    let servers = [serve(&cluster, WEB)?, serve(&cluster, "db-0")?];
    let at_pod =
        |pod: &str, port: u16| -> Result<SocketAddr> { Ok((cluster.pod("shop", pod)?.addresses.v4, port).into()) };
    let web = cluster.service("shop", "web")?.at(80)?[0];
    let clock = cluster.service("shop", "clock")?.at(123)?[0];
    let node_port = SocketAddr::from((cluster.node("node2")?.addresses.v4, 30080));
    let direct = at_pod(WEB, ECHO)?;
    let (db, db_udp) = (at_pod("db-0", ECHO)?, at_pod("db-0", udp_port())?);
    let old = at_pod(OLD, ECHO)?;
    let echo = |bytes: &'static str| vec!["echo", "--bytes", bytes];
    let datagrams = || vec!["connected", "--count", "5"];

    let mut ways = Vec::new();
    let old_server = serve(&cluster, OLD)?;
    for (client, server, service, script, to) in [
        (FRONT, WEB, "shop/web known", echo("1001"), web),
        (REPORT, WEB, "shop/web known", echo("2002"), web),
        ("hostnet-x", WEB, "shop/web known", echo("3003"), web),
        (FRONT, WEB, "shop/np known", echo("10010"), node_port),
        // It may have been meant for either Service.
        (REPORT, WEB, "shop/np|shop/web", echo("20020"), direct),
        (FRONT, WEB, "shop/clock known", datagrams(), clock),
        (REPORT, "db-0", "shop/db inferred", echo("4004"), db),
        (FRONT, "db-0", "shop/db inferred", datagrams(), db_udp),
        (OLD, WEB, "shop/web known", echo("5005"), web),
        (FRONT, OLD, "", echo("6006"), old),
    ] {
        let port = if script[0] == "echo" { ECHO } else { udp_port() };
        ways.push(Way { client, server, service, port, sent: sent(&cluster, client, &script, to)? });
    }
    old_server.close()?;
    agrees(&weir, &ways).context("while all of them run")?;

    let address = cluster.pod("shop", OLD)?.addresses.v4;
    cluster.delete_pod("shop", REPORT)?;
    cluster.delete_pod("shop", OLD)?;
    for gone in [REPORT, OLD] {
        until(PATIENCE, || is_over(&weir, gone)).with_context(|| format!("the end of {gone} is never told"))?;
    }
    let young = PodPlan::new("shop", YOUNG, "node2").containers(&["app"]).owned_by("ReplicaSet", "young-5f4d7c9b8d");
    cluster.add_pod(&young.at(address))?;
    let young_server = serve(&cluster, YOUNG)?;
    for (client, server, service, bytes, to) in
        [(YOUNG, WEB, "shop/web known", "7007", web), (FRONT, YOUNG, "", "8008", old)]
    {
        let sent = sent(&cluster, client, &echo(bytes), to)?;
        ways.push(Way { client, server, service, port: ECHO, sent });
    }
    young_server.close()?;
    for server in servers {
        server.close()?;
    }
    agrees(&weir, &ways).context("after a Job's pod is gone and an address has another holder")?;
    weir.stop()
}
