//! The promise: every edge of a cluster by pod, workload, Service, namespace, node and zone, as kubelets and API server
//! say who is who, with a Service's traffic once and how sure each name is.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use weir_testkit::cluster::{Cluster, Kind, Metadata, Plan, PodPlan, Protocol, ServicePlan, Settings, TrafficPolicy};
use weir_testkit::is_root_or_skip;
use weir_testkit::played::{Server, play};
use weir_testkit::process::until;
use weir_wire::api::{Edge, EdgeEnd};

const PATIENCE: Duration = Duration::from_secs(90);

fn plan() -> Plan {
    let pod = |name: &str, node| PodPlan::new("shop", name, node).containers(&["app", "side"]);
    Plan::of_nodes(3)
        .pod(pod("web-6675746f8b-aaaaa", "node1").label("app", "web").owned_by("ReplicaSet", "web-6675746f8b"))
        .pod(pod("front-7d9c5b6f4d-bbbbb", "node2").owned_by("ReplicaSet", "front-7d9c5b6f4d"))
        .pod(pod("report-28", "node3").owned_by("Job", "report"))
        .pod(pod("hostnet-x", "node3").on_host_network().owned_by("DaemonSet", "hostnet"))
        .service(ServicePlan::new("shop", "web", Kind::ClusterIp).pods(&["web-6675746f8b-aaaaa"]).port(
            Protocol::Tcp,
            80,
            8080,
        ))
        .service(
            ServicePlan::new("shop", "np", Kind::NodePort(TrafficPolicy::Cluster))
                .pods(&["web-6675746f8b-aaaaa"])
                .port(Protocol::Tcp, 80, 8080)
                .node_port(30080),
        )
}

fn text(end: &EdgeEnd) -> String {
    format!("{} {}/{} {}", end.kind, end.namespace.as_deref().unwrap_or_default(), end.name, end.certainty)
}

/// Client, server, Service with its certainty or candidates, sent bytes.
fn told(edge: &Edge) -> (String, String, String, u64) {
    let service = match (&edge.service, &edge.service_certainty) {
        (Some(service), Some(certainty)) => format!("{service} {certainty}"),
        _ => edge.service_candidates.join("|"),
    };
    (text(&edge.client), text(&edge.server), service, edge.sent_bytes)
}

#[test]
fn every_edge_has_the_names_that_kubernetes_gives_and_a_service_is_counted_once() -> Result<()> {
    if !is_root_or_skip("every_edge_has_the_names_that_kubernetes_gives_and_a_service_is_counted_once") {
        return Ok(());
    }
    let cluster = Cluster::build(&plan())?;
    let weir = cluster.start_weir(Settings { metadata: Metadata::Kubernetes, ..Settings::quick()? })?;
    let web = cluster.pod("shop", "web-6675746f8b-aaaaa")?;
    let place = web.container("app")?.place();
    let server = Server::open(&["--first-port", "8080"], &|command| place.prepare(command))?;
    let virtual_address = cluster.service("shop", "web")?.at(80)?[0];
    let node_port = SocketAddr::new(cluster.node("node2")?.addresses.iter().next().context("an address")?, 30080);
    let direct = SocketAddr::new(web.addresses.iter().next().context("an address")?, 8080);
    let ways = [
        ("front-7d9c5b6f4d-bbbbb", virtual_address, 1_001),
        ("report-28", virtual_address, 2_002),
        ("hostnet-x", virtual_address, 3_003),
        ("front-7d9c5b6f4d-bbbbb", node_port, 10_010),
        ("report-28", direct, 20_020),
    ];
    for (name, to, bytes) in ways {
        let from = cluster.pod("shop", name)?.container("app")?.place();
        play(&["echo", "--bytes", &bytes.to_string()], &[to], &|command| from.prepare(command))
            .with_context(|| format!("{name} to {to}"))?;
    }
    server.close()?;
    // The direct one may have been meant for either Service.
    let routes = ["shop/web known", "shop/web known", "shop/web known", "shop/np known", "shop/np|shop/web"];
    let pods = ["front-7d9c5b6f4d-bbbbb", "report-28", "hostnet-x", "front-7d9c5b6f4d-bbbbb", "report-28"];
    let workloads = [
        "deployment shop/front",
        "job shop/report",
        "daemon_set shop/hostnet",
        "deployment shop/front",
        "job shop/report",
    ];
    let nodes = ["node2", "node3", "node3", "node2", "node3"];
    let expected = |client: &dyn Fn(usize) -> String, server: &str| -> BTreeSet<(String, String, String, u64)> {
        (0..ways.len()).map(|way| (client(way), server.to_owned(), routes[way].to_owned(), ways[way].2)).collect()
    };
    for (by, wanted) in [
        ("pod", expected(&|way| format!("pod shop/{} known", pods[way]), "pod shop/web-6675746f8b-aaaaa known")),
        ("workload", expected(&|way| format!("{} known", workloads[way]), "deployment shop/web known")),
    ] {
        until(PATIENCE, || {
            let edges = weir.edges_by(by)?;
            let found: BTreeSet<_> = edges.iter().filter(|edge| edge.port == 8080).map(told).collect();
            ensure!(found == wanted, "{by}: found {found:#?}, expected {wanted:#?}");
            Ok(true)
        })?;
    }
    for by in ["namespace", "node", "zone", "service"] {
        let edges = weir.edges_by(by)?;
        let here: Vec<&Edge> = edges.iter().filter(|edge| edge.port == 8080).collect();
        let sent: u64 = here.iter().map(|edge| edge.sent_bytes).sum();
        ensure!(sent == ways.iter().map(|way| way.2).sum::<u64>(), "{by}: {here:#?}");
        for edge in here {
            let client = &edge.client;
            let is_right = match by {
                "namespace" => client.kind == "namespace" && client.name == "shop",
                "node" => nodes.contains(&client.name.as_str()) && edge.server.name == "node1",
                "zone" => {
                    client.kind == "zone"
                        && ["zone-a", "zone-b"].contains(&client.name.as_str())
                        && (edge.server.kind.as_str(), edge.server.name.as_str()) == ("zone", "zone-a")
                }
                _ => edge.service.is_none() || edge.server.kind == "service",
            };
            ensure!(is_right && edge.certainty == "known", "{by}: {edge:#?}");
        }
    }
    weir.stop()
}
