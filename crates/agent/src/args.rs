//! The agent's settings: flags, `WEIR_*` variables, and keys of `[agent]` in the config file.

use clap::Parser;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use weir_daemon::logging::LogFormat;

/// Reads a tracer's feed and the node's processes, computes what changed, keeps it on disk until the server has it.
#[derive(Clone, Debug, Parser)]
#[command(name = "weir-agent", version, about)]
pub struct Args {
    /// Where the tracer serves its feed: unix:PATH
    #[arg(long, env = "WEIR_FEED", default_value = "unix:/run/weir/tracer.sock", value_name = "unix:PATH")]
    pub feed: String,
    /// How often the feed is polled
    #[arg(long, env = "WEIR_INTERVAL", default_value = "10s", value_parser = interval, value_name = "DURATION")]
    pub interval: Duration,
    /// The longest reply that is taken
    #[arg(long, env = "WEIR_MAX_BODY", default_value = "160MiB", value_parser = weir_daemon::size::bytes, value_name = "BYTES")]
    pub max_body: u64,
    /// The most connections that are known at once
    #[arg(long, env = "WEIR_MAX_CONNECTIONS", default_value_t = 1_000_000, value_parser = connections, value_name = "COUNT")]
    pub max_connections: usize,
    /// The folder that keeps batches until the server has them; one agent a folder
    /// [default: /var/lib/weir/agent for root, else weir/agent in the user's state folder]
    #[arg(long, visible_alias = "data", env = "WEIR_SPOOL", value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// The most bytes of batches that are kept; beyond it the oldest are dropped, counted and told
    #[arg(long, env = "WEIR_SPOOL_MAX_BYTES", default_value = "512MiB", value_parser = spool_bytes, value_name = "BYTES")]
    pub spool_max_bytes: u64,
    /// Only make the spool's folder, open it to this group (a number), and exit: for a folder that root must make and
    /// an ordinary user's agent fills, as on a Kubernetes node
    #[arg(long, env = "WEIR_PREPARE_SPOOL", value_name = "GROUP")]
    pub prepare_spool: Option<u32>,
    /// The longest that a batch is kept
    #[arg(long, env = "WEIR_SPOOL_MAX_AGE", default_value = "24h", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub spool_max_age: Duration,
    /// The server that takes the batches
    #[arg(long, env = "WEIR_SERVER", default_value = "http://127.0.0.1:7781", value_name = "URL")]
    pub server: String,
    /// A file that holds the token for the server
    #[arg(long, env = "WEIR_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, env = "WEIR_METRICS_LISTEN", default_value = "127.0.0.1:7782", value_name = "ADDR")]
    pub metrics_listen: SocketAddr,
    /// A file that holds the token for /metrics [default: that of --token-file where it is not on loopback]
    #[arg(long, env = "WEIR_METRICS_TOKEN_FILE", value_name = "FILE")]
    pub metrics_token_file: Option<PathBuf>,
    /// The node's name [default: the host name]
    #[arg(long, env = "WEIR_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// The node's own addresses, separated by commas: needed where the agent runs in a pod
    /// [default: those of the interfaces that are up, outside a pod]
    #[arg(long, env = "WEIR_NODE_IP", value_delimiter = ',', value_name = "ADDRESS")]
    pub node_ip: Vec<IpAddr>,
    /// The sources of metadata.
    #[command(flatten)]
    pub metadata: crate::metadata::Settings,
    /// Where the node's /proc is
    #[arg(long, env = "WEIR_PROC", default_value = "/proc", value_name = "DIR")]
    pub proc: PathBuf,
    /// Serve metrics beyond loopback without a token
    #[arg(long, env = "WEIR_INSECURE")]
    pub insecure: bool,
    /// What is logged, in the form of RUST_LOG
    #[arg(long, env = "WEIR_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// How log lines look
    #[arg(long, env = "WEIR_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// A config file; its table `agent` holds these settings
    #[arg(long, env = "WEIR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Args {
    /// The spool's folder.
    pub fn spool_folder(&self) -> PathBuf {
        if let Some(folder) = &self.spool {
            return folder.clone();
        }
        if nix::unistd::geteuid().is_root() {
            return "/var/lib/weir/agent".into();
        }
        let state = std::env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        state.or_else(home).unwrap_or_else(std::env::temp_dir).join("weir/agent")
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_millis(10) || interval > Duration::from_secs(60) {
        // The 2019 tracer forgets a client after two minutes.
        return Err("it must lie between 10ms and 60s".into());
    }
    Ok(interval)
}

fn connections(text: &str) -> Result<usize, String> {
    match text.replace('_', "").parse() {
        Ok(0) => Err("it must be at least 1".into()),
        Ok(count) => Ok(count),
        Err(error) => Err(format!("{error}")),
    }
}

fn spool_bytes(text: &str) -> Result<u64, String> {
    let bytes = weir_daemon::size::bytes(text)?;
    if bytes < 1 << 20 { Err("it must be at least 1MiB".into()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_spool_of_a_few_bytes_and_an_interval_of_a_minute_are_refused() {
        assert_eq!(spool_bytes("160MiB"), Ok(160 << 20));
        assert!(spool_bytes("4096").is_err());
        assert!(interval("61s").is_err());
        assert!(interval("10s").is_ok());
    }
}
