//! The demo's cluster and who runs in it: a shop on three nodes, its customers outside, and what a cluster has beside.
//!
//! ```text
//! customers (outside) ─▶ NodePort ─▶ frontend ─▶ catalog ─▶ database
//!                                       ├─▶ cart ─▶ database        cart's own watcher ─▶ cart (hairpin)
//!                                       └─▶ checkout ─▶ payments    report (a job) ─▶ database
//!                                                 └──▶ mail
//! scraper ─▶ exporter (host network, every node)                    everybody ─▶ dns (UDP)
//! ```

use super::PATIENCE;
use crate::cluster::{Cluster, Dnat, Families, Kind, Plan, Pod, PodPlan, Protocol, ServicePlan, TrafficPolicy};
use crate::process::{Process, binary};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

/// The port of every part, and of every Service in front of it.
const PORT: u16 = 8080;
const SERVICE_PORT: u16 = 80;

/// The frontend's port on every node, and the one that keeps the customers' addresses.
pub const NODE_PORT: u16 = 30_080;
const NODE_PORT_LOCAL: u16 = 30_081;

/// The DNS Service's address.
const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// A part of the shop in a container.
#[derive(Clone, Copy, Debug)]
pub(super) struct Role {
    pub(super) pod: &'static str,
    pub(super) node: &'static str,
    /// `kind/name` of what made the pod.
    pub(super) owner: &'static str,
    /// Calls for each request; `@SERVICE` stands for the Service's address rather than its name.
    pub(super) calls: &'static [&'static str],
    /// Calls by itself, this often in milliseconds.
    pub(super) every_ms: Option<u64>,
}

/// The namespace `shop`. A pod is of the app that its owner is named by.
#[rustfmt::skip]
const ROLES: &[Role] = &[
    Role { pod: "frontend-7d4b9c6f5d-k2xqp", node: "node1", owner: "ReplicaSet/frontend-7d4b9c6f5d",
           calls: &["catalog:80/12000", "cart:80/600/keep"], every_ms: None },
    Role { pod: "frontend-7d4b9c6f5d-w8m4t", node: "node2", owner: "ReplicaSet/frontend-7d4b9c6f5d",
           calls: &["catalog:80/12000", "cart:80/600/keep", "checkout:80/300"], every_ms: None },
    Role { pod: "catalog-66c9f8d7b4-9hzrd", node: "node2", owner: "ReplicaSet/catalog-66c9f8d7b4",
           calls: &["database:80/30000/keep"], every_ms: None },
    Role { pod: "catalog-66c9f8d7b4-tn5vl", node: "node3", owner: "ReplicaSet/catalog-66c9f8d7b4",
           calls: &["database:80/30000/keep"], every_ms: None },
    Role { pod: "cart-5f8d6b7c99-x7kfn", node: "node3", owner: "ReplicaSet/cart-5f8d6b7c99",
           calls: &["database:80/900"], every_ms: None },
    Role { pod: "checkout-84b5c7d6f8-p4s2g", node: "node1", owner: "ReplicaSet/checkout-84b5c7d6f8",
           calls: &["payments:80/200", "mail:80/100"], every_ms: None },
    Role { pod: "mail-6b7d9f5c84-q8z2n", node: "node3", owner: "ReplicaSet/mail-6b7d9f5c84", calls: &[], every_ms: None },
    Role { pod: "payments-79fc5b8d64-r6q9j", node: "node2", owner: "ReplicaSet/payments-79fc5b8d64",
           calls: &["database:80/400"], every_ms: None },
    Role { pod: "database-0", node: "node3", owner: "StatefulSet/database", calls: &[], every_ms: None },
    Role { pod: "report-29401320-c5mzb", node: "node2", owner: "Job/report-29401320",
           calls: &["database:80/400000"], every_ms: Some(2000) },
];

impl Role {
    /// The role of an app of the shop.
    pub(super) fn of(app: &str) -> Result<&'static Self> {
        ROLES.iter().find(|role| role.app() == app).with_context(|| format!("there is no {app} in the shop"))
    }

    pub(super) fn app(&self) -> &'static str {
        self.pod.split('-').next().unwrap_or(self.pod)
    }

    pub(super) fn plan(&self) -> PodPlan {
        let plan = PodPlan::new("shop", self.pod, self.node).label("app", self.app()).containers(&["main", "watcher"]);
        match self.owner.split_once('/') {
            Some((kind, name)) => plan.owned_by(kind, name),
            None => plan,
        }
    }
}

/// The demo's plan.
pub fn plan(dnat: Dnat, families: Families) -> Plan {
    let mut plan = Plan::of_nodes(3).dnat(dnat).families(families);
    for role in ROLES {
        plan = plan.pod(role.plan());
    }
    let inner = |name| ServicePlan::new("shop", name, Kind::ClusterIp).port(Protocol::Tcp, SERVICE_PORT, PORT);
    for name in ["catalog", "cart", "checkout", "payments", "mail", "database"] {
        plan = plan.service(inner(name));
    }
    let outer = |name, policy, number| {
        let service = ServicePlan::new("shop", name, Kind::NodePort(policy)).select("app", "frontend");
        service.port(Protocol::Tcp, SERVICE_PORT, PORT).node_port(number)
    };
    plan = plan
        .service(outer("frontend", TrafficPolicy::Cluster, NODE_PORT))
        .service(outer("frontend-local", TrafficPolicy::Local, NODE_PORT_LOCAL).affinity(Duration::from_secs(600)))
        .pod(PodPlan::new("kube-system", DNS_POD, "node1").label("app", "dns").owned_by("ReplicaSet", "dns-6d8c4cb4d"))
        .service(ServicePlan::new("kube-system", "dns", Kind::ClusterIp).port(Protocol::Udp, 53, 53).at(DNS))
        .pod(PodPlan::new("monitoring", "scraper-0", "node1").owned_by("StatefulSet", "scraper"));
    for (node, name) in [("node1", "exporter-b8xk4"), ("node2", "exporter-m2q7z"), ("node3", "exporter-v9d6c")] {
        let pod = PodPlan::new("monitoring", name, node).on_host_network().owned_by("DaemonSet", "exporter");
        plan = plan.pod(pod.label("app", "exporter"));
    }
    plan
}

/// Everybody who runs.
#[derive(Debug)]
pub struct Town {
    /// By pod and container.
    parts: BTreeMap<(String, String), Process>,
    customers: Vec<Process>,
    /// What the DNS part is told.
    dns: ChildStdin,
}

/// The DNS part's pod.
const DNS_POD: &str = "dns-6d8c4cb4d-h5v8s";

impl Town {
    /// Starts everybody, those who are called before those who call.
    ///
    /// # Errors
    /// When a process does not start.
    pub fn open(cluster: &Cluster) -> Result<Self> {
        let mut parts = BTreeMap::new();
        let mut dns = dns(cluster)?;
        let orders = dns.take_input().context("the DNS part takes orders")?;
        parts.insert((DNS_POD.to_owned(), "main".to_owned()), dns);
        let mut town = Self { parts, customers: Vec::new(), dns: orders };
        let is_exporter = |pod: &&Pod| pod.plan.labels.get("app").is_some_and(|app| app == "exporter");
        for exporter in cluster.pods().iter().filter(is_exporter) {
            let part =
                spawn(cluster, ("monitoring", &exporter.plan.name, "main"), &["--name", "exporter", "--tcp", "9100"])?;
            town.keep(&exporter.plan.name, "main", part);
        }
        for role in ROLES {
            town.start(cluster, role, role.pod)?;
        }
        let mut scraper = vec!["--name".to_owned(), "scraper".into(), "--every-ms".into(), "1500".into()];
        for node in cluster.nodes() {
            scraper.extend(["--call".to_owned(), call(node.addresses.v4.into(), 9100, 5000)]);
        }
        let scraper: Vec<&str> = scraper.iter().map(String::as_str).collect();
        town.keep("scraper-0", "main", spawn(cluster, ("monitoring", "scraper-0", "main"), &scraper)?);
        town.customers = customers(cluster)?;
        Ok(town)
    }

    /// How many processes run.
    pub fn len(&self) -> usize {
        self.parts.len() + self.customers.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts what runs in a pod of this role.
    pub(super) fn start(&mut self, cluster: &Cluster, role: &Role, pod: &str) -> Result<()> {
        let calls: Vec<String> = role.calls.iter().map(|call| addressed(cluster, call)).collect::<Result<_>>()?;
        let mut args = vec!["--name", role.app()];
        if role.every_ms.is_none() {
            args.extend(["--tcp", "8080"]);
        }
        for call in &calls {
            args.extend(["--call", call]);
        }
        let every = role.every_ms.map(|ms| ms.to_string());
        if let Some(every) = &every {
            args.extend(["--every-ms", every]);
        }
        self.keep(pod, "main", spawn(cluster, ("shop", pod, "main"), &args)?);
        if role.app() == "cart" {
            // The cart has one endpoint: its watcher comes back to its own pod through the Service.
            let watched = named("cart:80/100");
            let watcher = ["--name", "watcher", "--every-ms", "1000", "--call", &watched];
            self.keep(pod, "watcher", spawn(cluster, ("shop", pod, "watcher"), &watcher)?);
        }
        Ok(())
    }

    /// Ends all that runs in a pod.
    pub(super) fn stop(&mut self, pod: &str) {
        self.parts.retain(|(of, _), _| of != pod);
    }

    /// Tells the DNS part something.
    pub(super) fn tell_dns(&mut self, order: &str) -> Result<()> {
        writeln!(self.dns, "{order}").context("the DNS part takes no orders any more")
    }

    fn keep(&mut self, pod: &str, container: &str, process: Process) {
        self.parts.insert((pod.to_owned(), container.to_owned()), process);
    }
}

fn dns(cluster: &Cluster) -> Result<Process> {
    let mut args = ["--name", "dns", "--dns", "53", "--control"].map(str::to_owned).to_vec();
    for service in cluster.services().iter().filter(|service| service.plan.namespace == "shop") {
        let address = service.addresses.context("every Service of the shop has an address")?.v4;
        args.push(format!("--record={}={address}", name_of(&service.plan.name)));
    }
    let mut command = part(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
    command.stdin(Stdio::piped());
    opened(cluster.pod("kube-system", DNS_POD)?.spawn("main", command)?, DNS_POD)
}

fn spawn(cluster: &Cluster, (namespace, pod, container): (&str, &str, &str), args: &[&str]) -> Result<Process> {
    opened(cluster.pod(namespace, pod)?.spawn(container, part(args)?)?, pod)
}

fn part(args: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary("weir-shop")?);
    // What a part cannot reach for a moment, while others start or stop, is nothing to tell.
    command.args(args).args(["--resolver", &format!("{DNS}:53")]).stderr(Stdio::null());
    Ok(command)
}

fn opened(process: Process, name: &str) -> Result<Process> {
    let line = process.line(PATIENCE).with_context(|| format!("{name} did not open"))?;
    ensure!(line.ends_with("is open"), "{name} said {line}");
    Ok(process)
}

/// One on each node's port, and of each family, from outside the cluster.
fn customers(cluster: &Cluster) -> Result<Vec<Process>> {
    let mut targets = Vec::new();
    for node in cluster.nodes() {
        for address in node.addresses.iter() {
            targets.push(call(address, NODE_PORT, 2500));
        }
    }
    // Of those two nodes that have a frontend.
    for name in ["node1", "node2"] {
        targets.push(call(cluster.node(name)?.addresses.v4.into(), NODE_PORT_LOCAL, 2500));
    }
    let pauses_ms = [150, 220, 310, 400, 530];
    let mut customers = Vec::new();
    for (target, pause) in targets.into_iter().zip(pauses_ms.into_iter().cycle()) {
        let mut command = Command::new(binary("weir-shop")?);
        command.args(["--name", "customer", "--every-ms", &pause.to_string(), "--call", &target]);
        command.stderr(Stdio::null());
        customers.push(opened(cluster.outside().spawn(command)?, "a customer")?);
    }
    Ok(customers)
}

fn call(address: IpAddr, port: u16, bytes: u64) -> String {
    format!("{}/{bytes}", SocketAddr::new(address, port))
}

/// The full name of a Service of the shop.
pub(super) fn name_of(service: &str) -> String {
    format!("{service}.shop.svc.cluster.local")
}

/// A call with the Service's full name.
fn named(call: &str) -> String {
    call.split_once(':').map_or_else(|| call.to_owned(), |(service, rest)| format!("{}:{rest}", name_of(service)))
}

/// The same, or with the Service's address where that is wanted.
fn addressed(cluster: &Cluster, call: &str) -> Result<String> {
    let Some(wanted) = call.strip_prefix('@') else { return Ok(named(call)) };
    let (service, rest) = wanted.split_once(':').with_context(|| format!("`{call}` has no port"))?;
    let address = cluster.service("shop", service)?.addresses.context("every Service of the shop has an address")?.v4;
    Ok(format!("{address}:{rest}"))
}
