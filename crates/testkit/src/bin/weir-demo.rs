//! A small shop on a three-node cluster in network namespaces, watched by weir, until Ctrl-C; and the faults in it.

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use weir_testkit::cluster::{Cluster, ClusterWeir, Dnat, Families, Metadata, Settings};
use weir_testkit::shop::control::{self, Order};
use weir_testkit::shop::faults::{Fault, Faults};
use weir_testkit::shop::town::{self, Town};

/// Builds a three-node cluster of network namespaces on this machine, lets a small shop run in it, and shows with weir
/// who talks to whom. Needs root; leaves nothing behind, however it ends.
///
/// While it runs, faults are switched on and off from another terminal: `weir-demo faults`, `weir-demo fault refused`.
#[derive(Debug, Parser)]
#[command(name = "weir-demo", args_conflicts_with_subcommands = false)]
struct Args {
    #[command(subcommand)]
    command: Option<Tell>,
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
    #[arg(long, global = true, default_value = "127.0.0.1:7780")]
    listen: SocketAddr,
}

/// What a running demo is told; `--listen` says which.
#[derive(Clone, Copy, Debug, Subcommand)]
enum Tell {
    /// Shows which faults there are, and which are on
    Faults,
    /// Switches a fault on, or off
    Fault {
        /// Which
        fault: Fault,
        /// Which way
        #[arg(default_value = "on")]
        to: To,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum To {
    On,
    Off,
}

/// An order and where its answer goes.
type Told = (Order, oneshot::Sender<Result<String>>);

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(tell) = args.command {
        let order = match tell {
            Tell::Faults => Order::Faults,
            Tell::Fault { fault, to } => Order::Switch(fault, matches!(to, To::On)),
        };
        print!("{}", control::tell(args.listen.port(), order)?);
        return Ok(());
    }
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
    let port = listener.local_addr()?.port();
    // One at a time: a demo has one command line beside it.
    let (orders, told) = mpsc::channel::<Told>(1);
    control::listen(port, move |order| {
        let (reply, answer) = oneshot::channel();
        orders.blocking_send((order, reply)).context("the demo is ending")?;
        answer.blocking_recv().context("the demo is ending")?
    })?;
    let begin = now();
    let mut cluster = Cluster::build(&town::plan(args.dnat, families))?;
    let built = begin.elapsed();
    let mut town = Town::open(&cluster)?;
    let settings = Settings { interval: "2s".into(), listener, metadata: Metadata::Kubernetes, ..Settings::quick()? };
    let mut weir = cluster.start_weir(settings)?;
    let up = begin.elapsed();
    println!("The cluster was built in {} ms, weir was up after {} ms.\n", built.as_millis(), up.as_millis());
    print!("{}", introduction(&cluster, &weir, town.len(), port)?);

    let ended = wait(&mut weir, &mut town, &mut cluster, told, args.seconds.map(Duration::from_secs))?;
    drop(town);
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

/// Until a signal, the time is over, or a part of weir has ended, whose name is answered.
fn wait(
    weir: &mut ClusterWeir,
    town: &mut Town,
    cluster: &mut Cluster,
    mut told: mpsc::Receiver<Told>,
    time: Option<Duration>,
) -> Result<Option<String>> {
    let mut faults = Faults::default();
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
                _ = terminate.recv() => return Ok(None),
                _ = hang_up.recv() => return Ok(None),
                _ = interrupt.recv() => return Ok(None),
                () = &mut over => return Ok(None),
                _ = look.tick() => if let Some(part) = weir.ended() {
                    return Ok(Some(part));
                },
                // Nothing else happens here meanwhile: a fault takes a second or two.
                Some((order, reply)) = told.recv() => {
                    let _ = reply.send(carry_out(order, &mut faults, town, cluster));
                }
            }
        }
    })
}

fn carry_out(order: Order, faults: &mut Faults, town: &mut Town, cluster: &mut Cluster) -> Result<String> {
    match order {
        Order::Faults => {
            let on: Vec<Fault> = faults.on().collect();
            let line = |fault: Fault| {
                let state = if on.contains(&fault) { "on" } else { "off" };
                format!("{:8} {state:3}  {}\n", fault.name(), fault.words())
            };
            Ok(Fault::ALL.into_iter().map(line).collect())
        }
        Order::Switch(fault, on) => {
            faults.switch(fault, on, town, cluster)?;
            println!("{} is {}: {}", fault.name(), if on { "on" } else { "off" }, fault.words());
            let undo = if on { format!(" (off again: `weir-demo fault {} off`)", fault.name()) } else { String::new() };
            Ok(format!("{} is {}: {}{undo}\n", fault.name(), if on { "on" } else { "off" }, fault.words()))
        }
    }
}

fn introduction(cluster: &Cluster, weir: &ClusterWeir, processes: usize, port: u16) -> Result<String> {
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
    let program = program.display();
    writeln!(text, "        {program} edges --server {}", weir.url())?;
    writeln!(text, "        {program} top --server {}\n", weir.url())?;
    let demo = std::env::current_exe()?;
    let demo = format!("{} --listen 127.0.0.1:{port}", demo.display());
    writeln!(text, "Break:  {demo} fault NAME, then fault NAME off; as root")?;
    for fault in Fault::ALL {
        writeln!(text, "        {:8} {}", fault.name(), fault.words())?;
    }
    writeln!(text, "See:    {program} edges --unhealthy --server {}", weir.url())?;
    writeln!(text, "        {program} diff --before 5m --server {}\n", weir.url())?;
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
