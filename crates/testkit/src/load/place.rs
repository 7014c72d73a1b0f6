//! Where the load's packets go: loopback, or a veth pair between two network namespaces.
//!
//! The namespaces have no name and no process but this one, so that they end with it, however it ends. They are its own
//! also for loopback: no rule of the host's is in the way, and nobody else's ports.

use crate::thread_netns::{self, ip};
use anyhow::{Context, Result};
use std::fs::File;
use std::net::Ipv4Addr;

/// The way between the two ends.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Both ends in one namespace.
    Loopback,
    /// An end in each of two namespaces, a veth pair between them.
    Veth,
}

impl Place {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 2] = [Self::Loopback, Self::Veth];

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Veth => "veth",
        }
    }
}

/// The client's end of the veth pair, in 198.18.0.0/15, which is for benchmarks (RFC 2544).
pub const VETH_CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 1);
/// The server's end.
pub const VETH_SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 2);

/// The namespaces, made and connected. The thread that made them is in the client's.
#[derive(Debug)]
pub struct Ground {
    client: File,
    server: File,
    address: Ipv4Addr,
}

impl Ground {
    /// Makes them; the calling thread leaves the namespace that it was in for good.
    ///
    /// # Errors
    /// When not root, or without the `ip` command.
    pub fn open(place: Place) -> Result<Self> {
        let server = thread_netns::fresh()?;
        ip("link set lo up\n")?;
        let ground = match place {
            Place::Loopback => Self { client: server.try_clone()?, server, address: Ipv4Addr::LOCALHOST },
            Place::Veth => {
                let client = thread_netns::fresh()?;
                let handle = thread_netns::handle(&server);
                ip(&format!(
                    "link set lo up\n\
                     link add weir-load0 type veth peer name weir-load1 netns {handle}\n\
                     address add {VETH_CLIENT}/30 dev weir-load0\n\
                     link set weir-load0 up\n"
                ))?;
                let ground = Self { client, server, address: VETH_SERVER };
                ground.at_server(|| {
                    ip(&format!("address add {VETH_SERVER}/30 dev weir-load1\nlink set weir-load1 up\n"))
                })?;
                ground
            }
        };
        // Ended connections keep their port for a minute: at 10,000 a second the usual 28,000 ports are not enough.
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535")
            .context("failed to widen the range of ports")?;
        Ok(ground)
    }

    /// Where the server is reached.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Runs `make` in the server's namespace: what it opens belongs there.
    ///
    /// # Errors
    /// What `make` failed with, or that the namespace cannot be entered.
    pub fn at_server<T>(&self, make: impl FnOnce() -> Result<T>) -> Result<T> {
        thread_netns::enter(&self.server).context("the server's")?;
        let made = make();
        thread_netns::enter(&self.client).context("the client's")?;
        made
    }
}
