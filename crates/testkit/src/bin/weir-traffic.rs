//! Real traffic by a process of its own; prints the truth about it as JSON lines. See `weir_testkit::traffic`.

use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use weir_testkit::traffic::{Script, run, serve};

/// Scripted exchanges over real sockets; every connection's truth is a JSON line on standard output.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Listens on one port for each manner, for ever.
    Serve,
    /// Sends bytes and reads them back.
    Echo {
        /// How many bytes.
        #[arg(long)]
        bytes: u64,
        /// The server.
        server: SocketAddr,
    },
    /// Sends bytes, closes its half, reads the answer.
    Upload {
        /// How many bytes.
        #[arg(long)]
        bytes: u64,
        /// The server.
        server: SocketAddr,
    },
    /// Sends 1,000 bytes and is reset.
    Reset {
        /// The server.
        server: SocketAddr,
    },
    /// Is refused.
    Refused {
        /// Where nobody listens.
        server: SocketAddr,
    },
    /// Uses one socket for three connections.
    Reuse {
        /// The server.
        server: SocketAddr,
    },
    /// Opens and closes connections as fast as it can.
    Short {
        /// How many connections.
        #[arg(long)]
        connections: u64,
        /// The server.
        server: SocketAddr,
    },
    /// Sends datagrams to several peers from one socket.
    Datagrams {
        /// How many to each.
        #[arg(long)]
        count: u64,
        /// The peers.
        servers: Vec<SocketAddr>,
    },
    /// Keeps one connection and echoes for each line on standard input.
    Hold {
        /// How many bytes for each line.
        #[arg(long)]
        bytes: u64,
        /// The server.
        server: SocketAddr,
    },
    /// Mixed traffic until standard input ends.
    Churn {
        /// The server.
        server: SocketAddr,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().part {
        Part::Serve => serve(),
        Part::Echo { bytes, server } => run(&Script::Echo { bytes }, &[server]),
        Part::Upload { bytes, server } => run(&Script::Upload { bytes }, &[server]),
        Part::Reset { server } => run(&Script::Reset, &[server]),
        Part::Refused { server } => run(&Script::Refused, &[server]),
        Part::Reuse { server } => run(&Script::Reuse, &[server]),
        Part::Short { connections, server } => run(&Script::Short { connections }, &[server]),
        Part::Datagrams { count, servers } => run(&Script::Datagrams { count }, &servers),
        Part::Hold { bytes, server } => run(&Script::Hold { bytes }, &[server]),
        Part::Churn { server } => run(&Script::Churn, &[server]),
    }
}
