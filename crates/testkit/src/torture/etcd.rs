//! Where a run's shared state is: one real etcd on loopback, from Debian's `etcd-server`.

use super::parts::PartCommand;
use crate::process::until;
use anyhow::Result;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// How long a server may be silent before another may take over: the least that weir takes, so that a killed server's
/// successor does not wait for long.
pub const LEASE: &str = "2s";
/// How long etcd may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Those that this process has started: each has ports of its own.
static STARTED: AtomicU16 = AtomicU16::new(0);

/// A free pair of ports, for clients and members, on an address that no other process of tests has.
pub fn addresses() -> (SocketAddr, SocketAddr) {
    let process = std::process::id();
    let ip = Ipv4Addr::new(127, 128 + (process >> 16 & 63) as u8, (process >> 8) as u8, process as u8);
    let port = 2379 + 2 * STARTED.fetch_add(1, Ordering::Relaxed);
    (SocketAddr::from((ip, port)), SocketAddr::from((ip, port + 1)))
}

/// How it is started, with its data below `folder`.
pub fn command(folder: &Path, (clients, members): (SocketAddr, SocketAddr)) -> PartCommand {
    let data = folder.join("etcd").to_string_lossy().into_owned();
    let (clients, members) = (format!("http://{clients}"), format!("http://{members}"));
    let cluster = format!("torture={members}");
    let arguments = [
        "--name",
        "torture",
        "--data-dir",
        &data,
        "--listen-client-urls",
        &clients,
        "--advertise-client-urls",
        &clients,
        "--listen-peer-urls",
        &members,
        "--initial-advertise-peer-urls",
        &members,
        "--initial-cluster",
        &cluster,
    ];
    PartCommand { program: "etcd".into(), arguments: arguments.map(str::to_owned).into() }
}

/// Waits until it listens.
///
/// # Errors
/// When it does not.
pub fn wait(clients: SocketAddr) -> Result<()> {
    until(PATIENCE, || Ok(TcpStream::connect(clients).is_ok()))
}
