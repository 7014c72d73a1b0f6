//! A simulated network between agents and the relay: the processes are real, and what is between them is turmoil's, whose
//! links are cut, held and let go, and whose messages take as long as its seed says.
//!
//! ```text
//! agent ─TCP─▶ entry of its node ══ simulated ══▶ hub ─TCP─▶ relay
//! ```
//!
//! A cut link loses what is sent over it. The connections that it had do not survive that: both of their ends are closed
//! when it is mended, as whoever gets a segment of a connection that he does not know resets it. Until then nobody is told.
//! A held link delivers later. A millisecond there takes one here, at least: both sides are real.

use super::random::Random;
use anyhow::{Context, Result, anyhow, ensure};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::sync::watch;
use tokio::task::JoinSet;

const TICK: Duration = Duration::from_millis(1);
const LATENCY_MAX: Duration = Duration::from_millis(20);
/// Longer than any run.
const LASTS: Duration = Duration::from_secs(24 * 3600);
/// Segments under way between two hosts: some batches of every agent.
const SEGMENTS_MAX: usize = 65_536;
/// Orders that wait for the next millisecond.
const ORDERS_MAX: usize = 64;
/// The hub's port of the first node.
const PORT: u16 = 1_000;
const HUB: &str = "hub";

enum Order {
    Cut(usize),
    Hold(usize),
    Mend(usize),
}

/// The network, while this is there.
#[derive(Debug)]
pub struct Simulated {
    entries: Vec<SocketAddr>,
    is_broken: Vec<bool>,
    random: Random,
    /// `None`: it is told to end.
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Simulated {
    /// Starts one of so many nodes.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(nodes: usize, relay: SocketAddr, mut random: Random) -> Result<Self> {
        let listen = || -> Result<(SocketAddr, Arc<TcpListener>)> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, Arc::new(listener)))
        };
        let (entries, listeners): (Vec<_>, Vec<_>) =
            (0..nodes).map(|_| listen()).collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let (orders, ordered) = sync_channel(ORDERS_MAX);
        let seed = random.below(u64::MAX);
        let run = move || network(&listeners, relay, &ordered, seed);
        let thread = std::thread::Builder::new().name("simulated-network".to_owned()).spawn(run)?;
        Ok(Self { entries, is_broken: vec![false; nodes], random, orders: Some(orders), thread: Some(thread) })
    }

    /// Where a node's agent finds the relay.
    pub fn entry(&self, node: usize) -> Option<SocketAddr> {
        self.entries.get(node).copied()
    }

    /// Cuts or holds a node's link, or mends it; whether that changed anything.
    ///
    /// # Errors
    /// When the network is gone.
    pub fn pull(&mut self, node: usize, pull: bool) -> Result<bool> {
        let Some(is_broken) = self.is_broken.get_mut(node).filter(|is_broken| **is_broken != pull) else {
            return Ok(false);
        };
        *is_broken = pull;
        let order = match pull {
            true if self.random.permille(500) => Order::Cut(node),
            true => Order::Hold(node),
            false => Order::Mend(node),
        };
        let sent = self.orders.as_ref().is_some_and(|orders| orders.send(order).is_ok());
        ensure!(sent, "the simulated network is gone: {:?}", self.thread.take().map(JoinHandle::join));
        Ok(true)
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // What went wrong in it was seen by whoever waited for what it carries.
            let _ = thread.join();
        }
    }
}

fn host(node: usize) -> String {
    format!("node-{node}")
}

/// Until nobody gives orders any more.
fn network(listeners: &[Arc<TcpListener>], relay: SocketAddr, orders: &Receiver<Order>, seed: u64) -> Result<()> {
    let mut network = turmoil::Builder::new()
        .enable_tokio_io()
        .rng_seed(seed)
        .tick_duration(TICK)
        .min_message_latency(Duration::ZERO)
        .max_message_latency(LATENCY_MAX)
        .tcp_capacity(SEGMENTS_MAX)
        .simulation_duration(LASTS)
        .build();
    // How often a node's link was mended after it had been cut: connections of before are no more.
    let (mended, mends): (Vec<_>, Vec<_>) = listeners.iter().map(|_| watch::channel(0_u64)).unzip();
    let of_hub = mends.clone();
    network.host(HUB, move || hub(relay, of_hub.clone()));
    for (node, (listener, mends)) in listeners.iter().zip(mends).enumerate() {
        let listener = Arc::clone(listener);
        network.host(host(node), move || entry(node, Arc::clone(&listener), mends.clone()));
    }
    let mut is_cut = vec![false; listeners.len()];
    loop {
        match orders.try_recv() {
            Ok(Order::Cut(node)) => {
                is_cut[node] = true;
                network.partition(host(node), HUB);
            }
            Ok(Order::Hold(node)) => network.hold(host(node), HUB),
            Ok(Order::Mend(node)) => {
                if std::mem::take(&mut is_cut[node]) {
                    network.repair(host(node), HUB);
                    mended[node].send_modify(|mends| *mends += 1);
                } else {
                    network.release(host(node), HUB);
                }
            }
            Err(TryRecvError::Empty) => {
                network.step().map_err(|error| anyhow!("the simulated network: {error}"))?;
                pause();
            }
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "real processes talk through it in real time")]
fn pause() {
    std::thread::sleep(TICK);
}

/// Takes what comes for each node at a port of its own, and brings it to the relay.
async fn hub(relay: SocketAddr, mends: Vec<watch::Receiver<u64>>) -> turmoil::Result {
    let mut serving = JoinSet::new();
    for (node, mends) in mends.into_iter().enumerate() {
        let listener = turmoil::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT + node as u16)).await?;
        serving.spawn_local(async move {
            let mut pipes = JoinSet::new();
            loop {
                let (far, _) = listener.accept().await?;
                while pipes.try_join_next().is_some() {}
                pipes.spawn_local(until_mended(mends.clone(), async move {
                    pipe(far, tokio::net::TcpStream::connect(relay).await?).await
                }));
            }
        });
    }
    ended(serving).await
}

/// Takes what a real agent sends, and brings it to the hub.
async fn entry(node: usize, listener: Arc<TcpListener>, mends: watch::Receiver<u64>) -> turmoil::Result {
    let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
    let mut pipes = JoinSet::new();
    loop {
        let (near, _) = listener.accept().await?;
        while pipes.try_join_next().is_some() {}
        pipes.spawn_local(until_mended(mends.clone(), async move {
            pipe(turmoil::net::TcpStream::connect((HUB, PORT + node as u16)).await?, near).await
        }));
    }
}

/// An accepting task ends only when it fails.
async fn ended(mut serving: JoinSet<std::io::Result<()>>) -> turmoil::Result {
    serving.join_next().await.context("nobody is served")???;
    Ok(())
}

/// A connection that was there while its link was cut is closed when that is mended.
async fn until_mended(mut mends: watch::Receiver<u64>, connection: impl Future<Output = std::io::Result<()>>) {
    mends.mark_unchanged();
    tokio::select! {
        // Whoever closed it, both sides see it.
        _ = connection => {}
        _ = mends.changed() => {}
    }
}

async fn pipe(
    mut far: impl AsyncRead + AsyncWrite + Unpin,
    mut near: impl AsyncRead + AsyncWrite + Unpin,
) -> std::io::Result<()> {
    copy_bidirectional(&mut far, &mut near).await.map(|_| ())
}
