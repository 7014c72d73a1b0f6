//! Where a run's shared state is: a real etcd of one or three members on loopback, from Debian's `etcd-server`.

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

/// Where a member listens: for clients, and for the other members.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// For clients.
    pub clients: SocketAddr,
    /// For the other members.
    members: SocketAddr,
}

/// So many members, each with a free pair of ports on an address that no other process of tests has.
pub fn members(count: usize) -> Vec<Member> {
    let process = std::process::id();
    let ip = Ipv4Addr::new(127, 128 + (process >> 16 & 63) as u8, (process >> 8) as u8, process as u8);
    let member = |_| {
        let port = 2379 + 2 * STARTED.fetch_add(1, Ordering::Relaxed);
        Member { clients: SocketAddr::from((ip, port)), members: SocketAddr::from((ip, port + 1)) }
    };
    (0..count).map(member).collect()
}

/// How the member with this number is started, with its data below `folder`.
pub fn command(folder: &Path, all: &[Member], number: usize, member: Member) -> PartCommand {
    let name = name(number);
    let data = folder.join(&name).to_string_lossy().into_owned();
    let (clients, members) = (format!("http://{}", member.clients), format!("http://{}", member.members));
    let cluster: Vec<String> = all
        .iter()
        .enumerate()
        .map(|(number, other)| format!("{}=http://{}", self::name(number), other.members))
        .collect();
    let cluster = cluster.join(",");
    let arguments = [
        "--name",
        &name,
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

/// What a member is called.
pub fn name(number: usize) -> String {
    format!("etcd-{number}")
}

/// What a server is told of them.
pub fn arguments(all: &[Member]) -> Vec<String> {
    let urls: Vec<String> = all.iter().map(|member| format!("http://{}", member.clients)).collect();
    ["--state", "etcd", "--etcd-endpoints", &urls.join(","), "--etcd-lease", LEASE].map(str::to_owned).into()
}

/// Waits until it listens.
///
/// # Errors
/// When it does not.
pub fn wait(clients: SocketAddr) -> Result<()> {
    until(PATIENCE, || Ok(TcpStream::connect(clients).is_ok()))
}
