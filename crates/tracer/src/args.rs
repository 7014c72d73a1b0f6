//! The tracer's settings.

use crate::probes::setup::{Setup, Sizes};
use crate::scope::{Scope, ScopeError};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::time::Duration;
use weir_daemon::logging::LogFormat;

/// Traces this machine's TCP and UDP connections in the kernel and serves them on a unix socket.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "weir-tracer",
    version,
    after_help = "Examples:
  weir-tracer --socket-group weir
  curl --unix-socket /run/weir/tracer.sock http://weir/connections
  curl --unix-socket /run/weir/tracer.sock 'http://weir/connections?client_id=me'"
)]
pub struct Args {
    /// The unix socket to serve; its folder is made if it is missing.
    #[arg(long, env = "WEIR_SOCKET", default_value_os_t = default_socket())]
    pub socket: PathBuf,

    /// Where the rows come from.
    #[arg(long, env = "WEIR_TRACER_MODE", default_value = "auto")]
    pub mode: Mode,

    /// The group (name or number) that may read the socket [default: the tracer's own].
    #[arg(long, env = "WEIR_SOCKET_GROUP")]
    pub socket_group: Option<String>,

    /// Where the keeper's socket and the journal of ended connections live [default: `tracer-state` beside the socket].
    #[arg(long, env = "WEIR_STATE_DIR")]
    pub state_dir: Option<PathBuf>,

    /// Trace only processes in this cgroup v2 directory or below: its path, or its path below the mount of cgroup v2.
    /// Several tracers with scopes of their own share one kernel.
    #[arg(long = "cgroup", env = "WEIR_TRACER_CGROUP", value_name = "PATH")]
    pub scope: Option<PathBuf>,

    /// Leave UDP out (its programs run for every datagram and every TCP segment: 4 to 7 % of a small exchange; they stay
    /// for DNS, with `--no-dns` they are not there at all).
    #[arg(long, env = "WEIR_NO_UDP")]
    pub no_udp: bool,

    /// Do not ask the kernel's conntrack how connections are translated (Services are then told by their own addresses).
    #[arg(long, env = "WEIR_NO_CONNTRACK")]
    pub no_conntrack: bool,

    /// Leave DNS out: no names, outcomes and latencies of queries to port 53 over UDP.
    #[arg(long, env = "WEIR_NO_DNS")]
    pub no_dns: bool,

    /// How often owners of sockets are looked up anew.
    #[arg(long, env = "WEIR_BACKFILL_INTERVAL", default_value = "30s", value_parser = humantime::parse_duration)]
    pub backfill_interval: Duration,

    /// How long an UDP flow lives without a datagram; a quarter of it where a socket's further peer was there for less
    /// than 2 s (a question and its answer).
    #[arg(long, env = "WEIR_UDP_IDLE", default_value = "120s", value_parser = humantime::parse_duration)]
    pub udp_idle: Duration,

    /// How long the keeper holds the programs when the tracer died and none came back.
    // A minute is ten times a supervisor's longest usual restart delay, and short enough that a node from which weir was
    // removed by force is clean soon.
    #[arg(long, env = "WEIR_KEEPER_GRACE", default_value = "60s", value_parser = humantime::parse_duration, hide = true)]
    pub keeper_grace: Duration,

    /// The sizes of maps and tables.
    #[command(flatten)]
    pub sizes: SizeArgs,

    /// Count what each kernel program costs, for `/status`; the counting costs every program of the machine about 20 ns a
    /// run as long as this tracer lives.
    #[arg(long, env = "WEIR_PROBE_COSTS")]
    pub probe_costs: bool,

    /// What to log (`info`, `weir_tracer=debug,warn`).
    #[arg(long, env = "WEIR_LOG", default_value = "info")]
    pub log: String,

    /// How log lines look.
    #[arg(long, env = "WEIR_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Settings from a TOML file, table `[tracer]`.
    #[arg(long, env = "WEIR_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Where the rows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// eBPF where kernel and capabilities allow it, else the fallback.
    Auto,
    /// eBPF, or nothing.
    Ebpf,
    /// What the kernel tells without eBPF: TCP only, see `cannot_see` in /status.
    Fallback,
}

/// Beside the system's tracer, or an ordinary user's own.
fn default_socket() -> PathBuf {
    let system = PathBuf::from("/run/weir/tracer.sock");
    if nix::unistd::Uid::effective().is_root() {
        return system;
    }
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    own.map_or(system, |folder| folder.join("weir/tracer.sock"))
}

/// The sizes of the kernel's maps and of the tables, hidden: only tests choose others, to see what happens when one is full.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct SizeArgs {
    /// Bytes of the ring of ended TCP connections, a power of two of at least a page.
    #[arg(long, env = "WEIR_CLOSED_RING_BYTES", hide = true)]
    pub closed_ring_bytes: Option<u32>,

    /// Bytes of the ring that a walk over the living fills, a power of two of at least a page.
    #[arg(long, env = "WEIR_LIVE_RING_BYTES", hide = true)]
    pub live_ring_bytes: Option<u32>,

    /// UDP flows at once.
    #[arg(long, env = "WEIR_UDP_FLOWS_MAX", hide = true)]
    pub udp_flows_max: Option<u32>,

    /// UDP peers of one socket.
    #[arg(long, env = "WEIR_UDP_PEERS_MAX", hide = true)]
    pub udp_peers_max: Option<u32>,

    /// Room for `other` peers beyond the flows.
    #[arg(long, env = "WEIR_UDP_OTHERS_MAX", hide = true)]
    pub udp_others_max: Option<u32>,

    /// Bytes of the ring of ended UDP main flows, a power of two of at least a page.
    #[arg(long, env = "WEIR_UDP_CLOSED_RING_BYTES", hide = true)]
    pub udp_closed_ring_bytes: Option<u32>,

    /// Bytes of the ring that a walk over UDP main flows fills, a power of two of at least a page.
    #[arg(long, env = "WEIR_UDP_LIVE_RING_BYTES", hide = true)]
    pub udp_live_ring_bytes: Option<u32>,

    /// Bytes of the ring of ended UDP sockets with further flows, a power of two of at least a page.
    #[arg(long, env = "WEIR_UDP_GONE_RING_BYTES", hide = true)]
    pub udp_gone_ring_bytes: Option<u32>,

    /// Bytes of the ring of new cgroups, a power of two of at least a page.
    #[arg(long, env = "WEIR_CGROUPS_RING_BYTES", hide = true)]
    pub cgroups_ring_bytes: Option<u32>,

    /// Rows of the journal of ended connections.
    #[arg(long, env = "WEIR_JOURNAL_ROWS_MAX", hide = true)]
    pub journal_rows_max: Option<usize>,

    /// Baselines of all clients together.
    #[arg(long, env = "WEIR_CLIENT_BASELINES_MAX", hide = true)]
    pub client_baselines_max: Option<usize>,

    /// Entries that conntrack is asked for in one poll and in one drain.
    #[arg(long, env = "WEIR_CONNTRACK_ASKS_MAX", hide = true)]
    pub conntrack_asks_max: Option<usize>,

    /// Bytes of the ring of DNS messages, a power of two of at least a page.
    #[arg(long, env = "WEIR_DNS_RING_BYTES", hide = true)]
    pub dns_ring_bytes: Option<u32>,
}

impl SizeArgs {
    fn sizes(&self) -> Sizes {
        let usual = Sizes::default();
        Sizes {
            closed_ring_bytes: self.closed_ring_bytes.unwrap_or(usual.closed_ring_bytes),
            live_ring_bytes: self.live_ring_bytes.unwrap_or(usual.live_ring_bytes),
            udp_flows_max: self.udp_flows_max.unwrap_or(usual.udp_flows_max),
            udp_peers_max: self.udp_peers_max.unwrap_or(usual.udp_peers_max),
            udp_others_max: self.udp_others_max.unwrap_or(usual.udp_others_max),
            udp_closed_ring_bytes: self.udp_closed_ring_bytes.unwrap_or(usual.udp_closed_ring_bytes),
            udp_live_ring_bytes: self.udp_live_ring_bytes.unwrap_or(usual.udp_live_ring_bytes),
            cgroups_ring_bytes: self.cgroups_ring_bytes.unwrap_or(usual.cgroups_ring_bytes),
            udp_gone_ring_bytes: self.udp_gone_ring_bytes.unwrap_or(usual.udp_gone_ring_bytes),
            dns_ring_bytes: self.dns_ring_bytes.unwrap_or(usual.dns_ring_bytes),
        }
    }
}

impl Args {
    /// What the probes are loaded with. `cgroup_root` is where cgroup v2 is mounted.
    ///
    /// # Errors
    /// When the scope is no cgroup.
    pub fn setup(&self, cgroup_root: Option<&Path>) -> Result<Setup, ScopeError> {
        let scope = self.scope.as_deref().map(|given| Scope::find(given, cgroup_root)).transpose()?;
        Ok(Setup { udp: !self.no_udp, dns: !self.no_dns, scope, sizes: self.sizes.sizes() })
    }

    /// The state folder.
    pub fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| {
            self.socket.parent().map_or_else(|| PathBuf::from("tracer-state"), |parent| parent.join("tracer-state"))
        })
    }
}
