//! A small shop on a three-node cluster in network namespaces, watched by weir, until Ctrl-C.

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use weir_testkit::cluster::{Cluster, ClusterWeir, Dnat, Families, Metadata, Settings};
use weir_testkit::shop::town;

/// Builds a three-node cluster of network namespaces on this machine, lets a small shop run in it, and shows with weir
/// who talks to whom. Needs root; leaves nothing behind, however it ends.
#[derive(Debug, Parser)]
#[command(name = "weir-demo")]
struct Args {
    /// Ends after this many seconds, rather than at Ctrl-C
    #[arg(long)]
    seconds: Option<u64>,
    /// Gives everything an IPv6 address too
    #[arg(long)]
    dual_stack: bool,
    /// What makes the Services' rules
    #[arg(long, value_enum, default_value_t = Dnat::Nftables)]
    dnat: Dnat,
    /// Where the page and the API are reached, on loopback
    #[arg(long, default_value = "127.0.0.1:7780")]
    listen: SocketAddr,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(nix::unistd::geteuid().is_root(), "the demo makes namespaces, cgroups and kernel programs: run it as root");
    ensure!(args.listen.ip().is_loopback(), "--listen {} is not on loopback", args.listen);
    let listener = match TcpListener::bind(args.listen) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "{} is in use (by a `weir up` or another demo?): stop that, or choose another with --listen 127.0.0.1:PORT",
            args.listen
        ),
        listener => listener.with_context(|| format!("failed to listen on {}", args.listen))?,
    };
    let families = if args.dual_stack { Families::Dual } else { Families::V4 };
    let begin = now();
    let cluster = Cluster::build(&town::plan(args.dnat, families))?;
    let built = begin.elapsed();
    let processes = town::open(&cluster)?;
    let settings = Settings { interval: "2s".into(), listener, metadata: Metadata::Kubernetes, ..Settings::quick()? };
    let weir = cluster.start_weir(settings)?;
    let up = begin.elapsed();
    println!("The cluster was built in {} ms, weir was up after {} ms.\n", built.as_millis(), up.as_millis());
    print!("{}", introduction(&cluster, &weir, processes.len())?);

    let (weir, ended) = wait(weir, args.seconds.map(Duration::from_secs))?;
    drop(processes);
    if let Some(part) = ended {
        bail!("{part} has ended by itself; the logs say:\n{}", weir.last_log_lines());
    }
    let edges = weir.edges()?.len();
    weir.stop()?;
    drop(cluster);
    println!("stopped: {edges} edges by address were seen; nothing is left");
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "how long a real cluster takes to build is told")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Until a signal, the time is over, or a part of weir has ended.
fn wait(mut weir: ClusterWeir, time: Option<Duration>) -> Result<(ClusterWeir, Option<String>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let over = async {
            match time {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        let mut look = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = hang_up.recv() => break,
                _ = interrupt.recv() => break,
                () = &mut over => break,
                _ = look.tick() => if let Some(part) = weir.ended() {
                    return Ok((weir, Some(part)));
                }
            }
        }
        Ok((weir, None))
    })
}

fn introduction(cluster: &Cluster, weir: &ClusterWeir, processes: usize) -> Result<String> {
    let mut text = String::new();
    writeln!(
        text,
        "A cluster of {} nodes with {} pods and {} Services; {processes} processes of a shop talk in it.\n",
        cluster.nodes().len(),
        cluster.pods().len(),
        cluster.services().len()
    )?;
    writeln!(text, "Look:   {}", weir.url())?;
    let program = weir_testkit::process::binary("weir")?;
    writeln!(text, "        {} edges --by address --server {}\n", program.display(), weir.url())?;
    writeln!(text, "Enter:")?;
    let addresses = |addresses: &mut dyn Iterator<Item = std::net::IpAddr>| {
        addresses.map(|address| address.to_string()).collect::<Vec<_>>().join(" ")
    };
    let mut known: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
    known.insert("outside".into(), addresses(&mut cluster.outside_addresses().iter()));
    known.extend(cluster.nodes().iter().map(|node| (node.plan.name.clone(), addresses(&mut node.addresses.iter()))));
    for pod in cluster.pods() {
        let name = format!("{}/{}", pod.plan.namespace, pod.plan.name);
        known.insert(name, format!("{} on {}", addresses(&mut pod.addresses.iter()), pod.plan.node));
    }
    for (name, command) in cluster.how_to_enter() {
        let at = known.remove(&name).unwrap_or_default();
        writeln!(text, "  {command}   # {name} {at}")?;
    }
    writeln!(text, "\nCtrl-C ends it and leaves nothing.")?;
    Ok(text)
}
