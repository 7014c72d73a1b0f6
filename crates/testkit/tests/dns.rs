//! The promise: what a process asks of DNS is counted once and told with its outcome and its time, the end that it then
//! connects to has the name that it asked for, and switched off there is nothing of it.

#[path = "../../tracer/tests/support/dns.rs"]
mod dns;

use anyhow::{Context, Result, ensure};
use dns::{A, ALIASED, Server, ask, query};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;
use weir_testkit::is_root_or_skip;
use weir_testkit::process::until;
use weir_testkit::weir::Weir;
use weir_wire::api::{Answer, DnsRow, Edge, MetadataRow};

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 3, 5, 7)), 53);
/// What every other name leads to.
const PLAIN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Where nobody listens.
const PORT: u16 = 8443;

/// In a network namespace of its own, where port 53 is free, and from where the names' addresses are reached through a
/// link behind which nobody is. All of it goes with the thread.
fn in_new_netns<T: Send>(inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
            for words in [
                "link set lo up",
                "link add out type veth peer name nowhere",
                "link set nowhere up",
                "link set out up",
                "address add 10.255.0.1/24 dev out",
                "route add default dev out",
                &format!("neighbour add {ALIASED} lladdr 02:00:00:00:00:01 dev out"),
                &format!("neighbour add {PLAIN} lladdr 02:00:00:00:00:01 dev out"),
            ] {
                let status = Command::new("ip").args(words.split(' ')).status()?;
                ensure!(status.success(), "ip {words}");
            }
            inside()
        });
        thread.join().map_err(|_panic| anyhow::anyhow!("the thread of the namespace panicked"))?
    })
}

fn client() -> Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(SERVER)?;
    Ok(socket)
}

/// Something for an address that never answers: over UDP it counts all the same.
fn visit(address: Ipv4Addr) -> Result<()> {
    UdpSocket::bind("0.0.0.0:0")?.send_to(&[1; 1000], (address, PORT))?;
    Ok(())
}

/// A domain of this test's own: weir sees what every other test asks, too.
fn domain(test: &str) -> String {
    format!("{test}{}.test", std::process::id())
}

fn asked(weir: &Weir, domain: &str) -> Result<Vec<DnsRow>> {
    let name = format!("*.{domain}");
    let answer: Answer<DnsRow> = weir.answer(&["dns", "--by", "process", "--since", "1h", "--name", &name])?;
    Ok(answer.items)
}

fn edge(weir: &Weir, address: Ipv4Addr) -> Result<Edge> {
    let (address, port) = (address.to_string(), PORT.to_string());
    let words = ["edges", "--by", "process", "--since", "1h", "--port", &port, "--cidr", &address];
    let answer: Answer<Edge> = weir.answer(&words)?;
    answer.items.into_iter().find(|edge| edge.sent_bytes >= 1000).context("the visit's edge")
}

#[test]
fn an_external_end_has_its_name_and_outcomes_and_times_are_right() -> Result<()> {
    if !is_root_or_skip("an_external_end_has_its_name_and_outcomes_and_times_are_right") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let domain = &domain("names");
    let weir = Weir::up(&folder.path().join("data"), "1s", &[])?;
    in_new_netns(|| {
        let _server = Server::start(SERVER);
        let socket = client()?;
        for (id, name) in [(1, "alias"), (2, "nx"), (3, "fail")] {
            ask(&socket, id, &format!("{name}.{domain}"), A);
        }
        socket.send(&query(4, &format!("silent.{domain}"), A))?;
        visit(ALIASED)
    })?;
    until(Duration::from_secs(60), || {
        let rows = asked(&weir, domain)?;
        ensure!(rows.len() == 4, "{} names: {rows:?}", rows.len());
        Ok(true)
    })?;
    let rows = asked(&weir, domain)?;
    let row = |name: &str| {
        let full = format!("{name}.{domain}");
        rows.iter().find(|row| row.name == full).with_context(|| format!("no row of {full}"))
    };
    let alias = row("alias")?;
    assert_eq!((alias.queries, alias.failures, alias.query_type.as_str()), (1, 0, "A"));
    assert_eq!(alias.addresses, [ALIASED.to_string()]);
    assert_eq!((alias.client.kind.as_str(), alias.server.name.as_str()), ("process", "127.3.5.7"));
    assert!(alias.latency_us.is_some_and(|us| us > 0 && us < 10_000_000) && alias.latency_us == alias.latency_max_us);
    assert_eq!((row("nx")?.failures, row("nx")?.rcodes["nxdomain"]), (1, 1));
    assert_eq!(row("fail")?.rcodes["servfail"], 1);
    let silent = row("silent")?;
    assert_eq!((silent.failures, silent.rcodes["timeout"], silent.latency_us), (1, 1, None));

    let visited = edge(&weir, ALIASED)?;
    assert_eq!((visited.server.kind.as_str(), visited.server.name.as_str()), ("external", alias.name.as_str()));
    assert_eq!((visited.server.address.as_deref(), visited.certainty.as_str()), (Some("198.51.100.7"), "inferred"));
    let known: Answer<MetadataRow> = weir.answer(&["metadata", "--name", &alias.name])?;
    let told = known.items.first().context("the name is no metadata")?;
    assert_eq!((told.kind.as_str(), told.source.as_str(), told.key.as_str()), ("name", "dns", "198.51.100.7"));
    assert!(weir.stop(Duration::from_secs(5))?.success());
    Ok(())
}

#[test]
fn every_query_counts_once_whatever_is_killed_but_the_tracer() -> Result<()> {
    if !is_root_or_skip("every_query_counts_once_whatever_is_killed_but_the_tracer") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let domain = &domain("kills");
    let weir = Weir::up(&folder.path().join("data"), "200ms", &[])?;
    let weir = in_new_netns(move || {
        let _server = Server::start(SERVER);
        let socket = client()?;
        for round in 0..4 {
            for id in 0..10 {
                ask(&socket, id, &format!("round{round}.{domain}"), A);
            }
            // The new one goes on where the dead one's spool or log ends.
            weir.kill(if round % 2 == 0 { "agent" } else { "server" })?;
        }
        Ok(weir)
    })?;
    let counts = || -> Result<Vec<(String, u64)>> {
        let mut counts: Vec<_> = asked(&weir, domain)?.into_iter().map(|row| (row.name, row.queries)).collect();
        counts.sort();
        Ok(counts)
    };
    until(Duration::from_secs(60), || Ok(counts()?.iter().map(|(_, queries)| queries).sum::<u64>() >= 40))?;
    let expected: Vec<_> = (0..4).map(|round| (format!("round{round}.{domain}"), 10)).collect();
    assert_eq!(counts()?, expected);
    assert!(weir.stop(Duration::from_secs(5))?.success());
    Ok(())
}

#[test]
fn switched_off_nothing_of_dns_is_recorded() -> Result<()> {
    if !is_root_or_skip("switched_off_nothing_of_dns_is_recorded") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let domain = &domain("off");
    let weir = Weir::up(&folder.path().join("data"), "1s", &["--no-dns"])?;
    in_new_netns(|| {
        let _server = Server::start(SERVER);
        ask(&client()?, 1, &format!("a.{domain}"), A);
        visit(PLAIN)
    })?;
    until(Duration::from_secs(60), || Ok(edge(&weir, PLAIN).is_ok()))?;
    assert_eq!(edge(&weir, PLAIN)?.server.name, PLAIN.to_string());
    assert!(asked(&weir, domain)?.is_empty());
    assert!(weir.stop(Duration::from_secs(5))?.success());
    Ok(())
}
