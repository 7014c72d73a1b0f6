//! The tracer's settings.

use clap::Parser;
use std::path::PathBuf;
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
    #[arg(long, env = "WEIR_SOCKET", default_value = "/run/weir/tracer.sock")]
    pub socket: PathBuf,

    /// The group (name or number) that may read the socket; without one, only root.
    #[arg(long, env = "WEIR_SOCKET_GROUP")]
    pub socket_group: Option<String>,

    /// Where the keeper's socket and the journal of ended connections live [default: `tracer-state` beside the socket].
    #[arg(long, env = "WEIR_STATE_DIR")]
    pub state_dir: Option<PathBuf>,

    /// Leave UDP out (it costs about 0.3 microseconds a datagram).
    #[arg(long, env = "WEIR_NO_UDP")]
    pub no_udp: bool,

    /// How often owners of sockets are looked up anew.
    #[arg(long, env = "WEIR_BACKFILL_INTERVAL", default_value = "30s", value_parser = humantime::parse_duration)]
    pub backfill_interval: Duration,

    /// How long an UDP flow lives without a datagram.
    #[arg(long, env = "WEIR_UDP_IDLE", default_value = "120s", value_parser = humantime::parse_duration)]
    pub udp_idle: Duration,

    /// How long the keeper holds the programs when the tracer died and none came back.
    // A minute is ten times a supervisor's longest usual restart delay, and short enough that a node from which weir was
    // removed by force is clean soon.
    #[arg(long, env = "WEIR_KEEPER_GRACE", default_value = "60s", value_parser = humantime::parse_duration, hide = true)]
    pub keeper_grace: Duration,

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

impl Args {
    /// The state folder.
    pub fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| {
            self.socket.parent().map_or_else(|| PathBuf::from("tracer-state"), |parent| parent.join("tracer-state"))
        })
    }
}
