//! The promise: a cluster of namespaces in one call, whose Services lead where Kubernetes would lead.

use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;
use weir_testkit::cluster::plan::Quality;
use weir_testkit::cluster::{
    Cluster, Dnat, Families, Kind, Links, Place, Plan, PodPlan, Protocol, ServicePlan, TrafficPolicy,
};
use weir_testkit::is_root_or_skip;
use weir_testkit::process::{Process, binary};
use weir_testkit::shop::{self, Customer, Reply};

const PATIENCE: Duration = Duration::from_secs(20);

/// Two web pods on two nodes, a client on each of three nodes, one on the host network, and Services of each kind.
fn plan(dnat: Dnat, families: Families, links: Links) -> Plan {
    let web = |name, node| PodPlan::new("demo", name, node).label("app", "web").containers(&["httpd", "side"]);
    let service = |name: &str, kind| ServicePlan::new("demo", name, kind).select("app", "web");
    let local = Kind::NodePort(TrafficPolicy::Local);
    Plan::of_nodes(3)
        .dnat(dnat)
        .families(families)
        .links(links)
        .pod(web("web-1", "node1"))
        .pod(web("web-2", "node2").quality(Quality::Burstable))
        .pod(PodPlan::new("demo", "client", "node1").quality(Quality::Guaranteed))
        .pod(PodPlan::new("demo", "far", "node3"))
        .pod(PodPlan::new("demo", "hostnet", "node2").on_host_network())
        .service(service("web", Kind::ClusterIp).port(Protocol::Tcp, 80, 8080).port(Protocol::Udp, 80, 8080))
        .service(service("sticky", Kind::ClusterIp).port(Protocol::Tcp, 80, 8080).affinity(Duration::from_secs(60)))
        .service(service("np", Kind::NodePort(TrafficPolicy::Cluster)).port(Protocol::Tcp, 80, 8080).node_port(30080))
        .service(service("np-local", local).port(Protocol::Tcp, 80, 8080).node_port(30081))
        .service(service("nobody", Kind::ClusterIp).select("app", "nobody").port(Protocol::Tcp, 80, 8080))
}

/// Opens a part of the shop in every web pod.
fn open(cluster: &Cluster, pod: &str) -> Result<Process> {
    let mut command = Command::new(binary("weir-shop")?);
    command.args(["--name", pod, "--tcp", "8080", "--udp", "8080"]);
    let part = cluster.pod("demo", pod)?.spawn("httpd", command)?;
    ensure!(part.line(PATIENCE)?.ends_with("is open"));
    Ok(part)
}

fn ask(from: &Place, server: SocketAddr) -> Result<Reply> {
    from.enter(|| shop::ask(server, 1000))
}

/// Who answers 24 new connections, and how often. By chance one of two is missing in one of 2^23 runs.
fn answers(from: &Place, server: SocketAddr) -> Result<BTreeMap<String, BTreeSet<IpAddr>>> {
    let mut answers: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
    for _ in 0..24 {
        let reply = ask(from, server)?;
        answers.entry(reply.name).or_default().insert(reply.seen);
    }
    Ok(answers)
}

fn every_service_leads_where_it_should(dnat: Dnat, families: Families, links: Links) -> Result<()> {
    let cluster = Cluster::build(&plan(dnat, families, links))?;
    let _parts = [open(&cluster, "web-1")?, open(&cluster, "web-2")?];
    let place = |pod: &str| Ok::<_, anyhow::Error>(cluster.pod("demo", pod)?.sandbox());
    let both = BTreeSet::from(["web-1".to_owned(), "web-2".to_owned()]);
    let count = if families == Families::Dual { 2 } else { 1 };
    let own = |pod: &str, family: usize| {
        cluster.pod("demo", pod)?.addresses.iter().nth(family).context("an address of each family")
    };
    for family in 0..count {
        // ClusterIP: any endpoint, the client's own address, from one node, from another, and from the host network.
        let web = cluster.service("demo", "web")?.at(80)?[family];
        for client in ["client", "far", "hostnet"] {
            let answers = answers(place(client)?, web).with_context(|| format!("{client} to {web}"))?;
            ensure!(answers.keys().cloned().collect::<BTreeSet<_>>() == both, "{client} to {web}: {answers:?}");
            let seen: BTreeSet<_> = answers.values().flatten().copied().collect();
            if client != "hostnet" {
                ensure!(seen == BTreeSet::from([own(client, family)?]), "{client} was seen as {seen:?}");
            }
        }
        // By datagram.
        let any: IpAddr = if web.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
        let reply = place("client")?.enter(|| shop::ask_by_datagram(&UdpSocket::bind((any, 0))?, web))?;
        ensure!(both.contains(&reply.name) && reply.seen == own("client", family)?, "{reply:?}");

        // Hairpin: the pod that is its own endpoint sees its node as the client.
        let answers_to_self = answers(place("web-1")?, web)?;
        let seen = answers_to_self.get("web-1").context("web-1 reaches itself")?;
        ensure!(!seen.contains(&own("web-1", family)?), "hairpin without masquerade: {answers_to_self:?}");

        // Session affinity: one endpoint for each client, and it lasts.
        let sticky = cluster.service("demo", "sticky")?.at(80)?[family];
        for client in ["client", "far"] {
            let answers = answers(place(client)?, sticky)?;
            ensure!(answers.len() == 1, "{client} was led to {answers:?}");
        }

        // NodePort, externalTrafficPolicy Cluster: every node leads to every endpoint, masqueraded.
        let outside = cluster.outside_addresses().iter().nth(family).context("an address")?;
        for node in cluster.nodes() {
            let node = node.addresses.iter().nth(family).context("an address")?;
            let answers = answers(cluster.outside(), (node, 30080).into())?;
            ensure!(answers.keys().cloned().collect::<BTreeSet<_>>() == both, "{node}:30080: {answers:?}");
            ensure!(!answers.values().flatten().any(|seen| *seen == outside), "{node}:30080: {answers:?}");
        }
        // Local: the node's own endpoint, who sees the client; nothing where there is none.
        for (node, pod) in [("node1", "web-1"), ("node2", "web-2")] {
            let node = cluster.node(node)?.addresses.iter().nth(family).context("an address")?;
            let answers = answers(cluster.outside(), (node, 30081).into())?;
            let expected = BTreeMap::from([(pod.to_owned(), BTreeSet::from([outside]))]);
            ensure!(answers == expected, "{node}:30081: {answers:?}");
        }
        // A pod of a node without an endpoint is led to the others' all the same.
        let node3 = cluster.node("node3")?.addresses.iter().nth(family).context("an address")?;
        ensure!(ask(place("far")?, (node3, 30081).into()).is_ok(), "a pod uses a Local node port of its node");

        // A Service without endpoints refuses.
        let nobody = cluster.service("demo", "nobody")?.at(80)?[family];
        let refusal = place("client")?.enter(|| Ok(TcpStream::connect(nobody)))?;
        ensure!(
            refusal.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused),
            "{nobody}: {refusal:?}"
        );
    }
    // The translation is in the node's conntrack.
    let mut command = Command::new("conntrack");
    command.args(["-L", "-p", "tcp", "--dport", "30080"]);
    let listed = cluster.node("node3")?.run(command)?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    ensure!(text.contains("dport=30080") && text.contains("sport=8080"), "conntrack of node3: {text}");
    Ok(())
}

#[test]
fn services_by_nftables_on_bridges() -> Result<()> {
    if !is_root_or_skip("services_by_nftables_on_bridges") {
        return Ok(());
    }
    every_service_leads_where_it_should(Dnat::Nftables, Families::V4, Links::Bridge)
}

#[test]
fn services_by_iptables_on_bridges_dual_stack() -> Result<()> {
    if !is_root_or_skip("services_by_iptables_on_bridges_dual_stack") {
        return Ok(());
    }
    every_service_leads_where_it_should(Dnat::Iptables, Families::Dual, Links::Bridge)
}

#[test]
fn services_by_nftables_on_routed_links_dual_stack() -> Result<()> {
    if !is_root_or_skip("services_by_nftables_on_routed_links_dual_stack") {
        return Ok(());
    }
    every_service_leads_where_it_should(Dnat::Nftables, Families::Dual, Links::Routed)
}

#[test]
fn services_by_iptables_on_routed_links() -> Result<()> {
    if !is_root_or_skip("services_by_iptables_on_routed_links") {
        return Ok(());
    }
    every_service_leads_where_it_should(Dnat::Iptables, Families::V4, Links::Routed)
}

#[test]
fn cgroup_paths_name_pod_and_container_for_both_drivers() -> Result<()> {
    if !is_root_or_skip("cgroup_paths_name_pod_and_container_for_both_drivers") {
        return Ok(());
    }
    let cluster = Cluster::build(&plan(Dnat::Nftables, Families::V4, Links::Bridge))?;
    let mut namespaces = BTreeSet::new();
    for pod in cluster.pods() {
        for container in &pod.containers {
            let mut command = Command::new("cat");
            command.arg("/proc/self/cgroup");
            let output = container.place().run(command)?;
            let file = String::from_utf8(output.stdout)?;
            let path = weir_inventory::cgroup::best_path(&file);
            let found = weir_inventory::cgroup::container(path).map(|id| id.to_string());
            ensure!(found.as_deref() == Some(&container.id), "{path} of {}", pod.plan.name);
            let found = weir_inventory::cgroup::pod(path).map(|uid| uid.to_string());
            ensure!(found.as_deref() == Some(&pod.uid), "{path} of {}", pod.plan.name);
        }
        namespaces.insert(pod.sandbox().net_ns()?);
        // The same interface index in every pod.
        if pod.plan.name != "hostnet" {
            let mut command = Command::new("ip");
            command.args(["-o", "link", "show", "eth0"]);
            let output = pod.run(&pod.containers[0].name, command)?;
            ensure!(output.stdout.starts_with(b"2: eth0@"), "{}", String::from_utf8_lossy(&output.stdout));
        }
    }
    ensure!(namespaces.len() == cluster.pods().len(), "every pod here has a namespace, hostnet its node's");
    ensure!(cluster.pod("demo", "hostnet")?.sandbox().net_ns()? == cluster.node("node2")?.place().net_ns()?);
    Ok(())
}

#[test]
fn an_address_is_used_again_and_services_follow() -> Result<()> {
    if !is_root_or_skip("an_address_is_used_again_and_services_follow") {
        return Ok(());
    }
    for dnat in [Dnat::Nftables, Dnat::Iptables] {
        let mut cluster = Cluster::build(&plan(dnat, Families::V4, Links::Bridge))?;
        let first = open(&cluster, "web-1")?;
        let _second = open(&cluster, "web-2")?;
        let web = cluster.service("demo", "web")?.at(80)?[0];
        let (address, old_uid) = {
            let pod = cluster.pod("demo", "web-1")?;
            (pod.addresses.v4, pod.uid.clone())
        };
        cluster.delete_pod("demo", "web-1")?;
        drop(first);
        let left = answers(cluster.pod("demo", "far")?.sandbox(), web)?;
        ensure!(left.keys().eq(["web-2"]), "{left:?}");

        let plan = PodPlan::new("demo", "web-3", "node1").label("app", "web").containers(&["httpd"]).at(address);
        let pod = cluster.add_pod(&plan)?;
        ensure!(pod.addresses.v4 == address && pod.uid != old_uid);
        ensure!(cluster.add_pod(&PodPlan::new("demo", "other", "node1").at(address)).is_err(), "it is in use");
        let _third = open(&cluster, "web-3")?;
        let far = |cluster: &Cluster| answers(cluster.pod("demo", "far")?.sandbox(), web);
        ensure!(far(&cluster)?.keys().eq(["web-2", "web-3"]));

        cluster.set_endpoints("demo", "web", &["web-3"])?;
        ensure!(far(&cluster)?.keys().eq(["web-3"]));
        cluster.remove_service("demo", "web")?;
        let moment = Duration::from_secs(2);
        let nowhere = cluster.pod("demo", "far")?.sandbox().enter(|| Ok(TcpStream::connect_timeout(&web, moment)))?;
        ensure!(nowhere.is_err(), "a removed Service leads nowhere");
        let again = ServicePlan::new("demo", "web", Kind::ClusterIp).pods(&["web-3"]).at([10, 96, 7, 7].into());
        cluster.add_service(&again.port(Protocol::Tcp, 8000, 8080))?;
        let node_port = (cluster.node("node1")?.addresses.v4, 30080).into();
        ensure!(answers(cluster.outside(), node_port)?.keys().eq(["web-2", "web-3"]));
        let at = cluster.service("demo", "web")?.at(8000)?[0];
        ensure!(ask(cluster.pod("demo", "far")?.sandbox(), at)?.name == "web-3");
    }
    Ok(())
}

#[test]
fn an_affinity_outlives_a_change_of_other_endpoints() -> Result<()> {
    if !is_root_or_skip("an_affinity_outlives_a_change_of_other_endpoints") {
        return Ok(());
    }
    for dnat in [Dnat::Nftables, Dnat::Iptables] {
        let mut cluster = Cluster::build(&plan(dnat, Families::V4, Links::Bridge))?;
        let _parts = [open(&cluster, "web-1")?, open(&cluster, "web-2")?];
        let sticky = cluster.service("demo", "sticky")?.at(80)?[0];
        let first = ask(cluster.pod("demo", "client")?.sandbox(), sticky)?;
        for number in 0..6 {
            let name = format!("extra-{number}");
            cluster.add_pod(&PodPlan::new("demo", &name, "node3").label("app", "web").containers(&["httpd"]))?;
            let reply = ask(cluster.pod("demo", "client")?.sandbox(), sticky)?;
            ensure!(reply == first, "{dnat:?}: {reply:?} after {first:?}");
        }
    }
    Ok(())
}

#[test]
fn datagrams_of_one_socket_follow_the_endpoints() -> Result<()> {
    if !is_root_or_skip("datagrams_of_one_socket_follow_the_endpoints") {
        return Ok(());
    }
    for dnat in [Dnat::Nftables, Dnat::Iptables] {
        let mut cluster = Cluster::build(&plan(dnat, Families::Dual, Links::Bridge))?;
        let _parts = [open(&cluster, "web-1")?, open(&cluster, "web-2")?];
        let far = cluster.pod("demo", "far")?.sandbox().clone();
        for (family, any) in [IpAddr::from([0_u8; 4]), IpAddr::from([0_u16; 8])].into_iter().enumerate() {
            let web = cluster.service("demo", "web")?.at(80)?[family];
            // One local port, so one conntrack entry, which outlives the endpoint that it leads to.
            let socket = far.enter(|| Ok(UdpSocket::bind((any, 0))?))?;
            for pod in ["web-1", "web-2", "web-1"] {
                cluster.set_endpoints("demo", "web", &[pod])?;
                let reply = shop::ask_by_datagram(&socket, web)?;
                ensure!(reply.name == pod, "{dnat:?}: {reply:?} for {pod}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_kept_connection_goes_through_a_service() -> Result<()> {
    if !is_root_or_skip("a_kept_connection_goes_through_a_service") {
        return Ok(());
    }
    let cluster = Cluster::build(&plan(Dnat::Nftables, Families::V4, Links::Routed))?;
    let _parts = [open(&cluster, "web-1")?, open(&cluster, "web-2")?];
    let web = cluster.service("demo", "web")?.at(80)?[0];
    let names = cluster.pod("demo", "far")?.sandbox().enter(|| {
        let mut customer = Customer::connect(web)?;
        (0..3).map(|number| Ok(customer.ask(number * 100_000)?.name)).collect::<Result<BTreeSet<_>>>()
    })?;
    ensure!(names.len() == 1, "{names:?}");
    Ok(())
}
