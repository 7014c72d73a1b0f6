//! The server's settings: flags, `WEIR_*` variables, and keys of the config file's `[server]` table.

use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Receives what agents send, stores it, and answers who talks to whom.
#[derive(Clone, Debug, Parser)]
#[command(name = "weir-server", version)]
pub struct Args {
    /// The data folder. One server per folder.
    #[arg(long, env = "WEIR_DATA", value_name = "DIR", default_value = "/var/lib/weir")]
    pub data: PathBuf,

    /// Where the HTTP API and the page listen.
    #[arg(long, env = "WEIR_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:7780")]
    pub listen: SocketAddr,

    /// Where agents deliver (gRPC).
    #[arg(long, env = "WEIR_AGENTS_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:7781")]
    pub agents_listen: SocketAddr,

    /// A file whose content readers and agents must send as `Authorization: Bearer CONTENT`.
    #[arg(long, env = "WEIR_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Allows listeners beyond loopback without a token: anyone who reaches them may read and write.
    #[arg(long, env = "WEIR_INSECURE")]
    pub insecure: bool,

    /// How long history is kept; older segments are deleted whole.
    #[arg(long, env = "WEIR_RETAIN_HISTORY", value_name = "DURATION", default_value = "7d", value_parser = humantime::parse_duration)]
    pub retain_history: Duration,

    /// Log filter, for example `info` or `weir_server=debug,warn`.
    #[arg(long, env = "WEIR_LOG", default_value = "info")]
    pub log: String,

    /// How log lines look.
    #[arg(long, env = "WEIR_LOG_FORMAT", value_enum, default_value_t = weir_daemon::logging::LogFormat::Text)]
    pub log_format: weir_daemon::logging::LogFormat,

    /// A TOML file with settings (table `[server]`).
    #[arg(long, env = "WEIR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}
