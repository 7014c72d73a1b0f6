//! The server's settings: flags, `WEIR_*` variables, and keys of the config file's `[server]` table.

use clap::Parser;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// `NAME=CIDR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedNetwork {
    /// Its name.
    pub name: String,
    /// The network, without host bits.
    pub network: IpNet,
}

impl NamedNetwork {
    /// As the inventory takes it.
    pub(crate) fn pair(&self) -> (IpNet, String) {
        (self.network, self.name.clone())
    }
}

impl FromStr for NamedNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, network)) = text.split_once('=').filter(|(name, _)| !name.trim().is_empty()) else {
            return Err("write NAME=CIDR, for example office=192.0.2.0/24".to_owned());
        };
        let network: IpNet = network.trim().parse().or_else(|_| network.trim().parse::<IpAddr>().map(IpNet::from)).map_err(
            |_not_a_network| {
                format!("`{network}` is no network; write an address and a prefix length, for example 192.0.2.0/24 or 2001:db8::/32")
            },
        )?;
        if network.trunc() != network {
            return Err(format!("{network} has bits beyond its prefix; write {}", network.trunc()));
        }
        Ok(Self { name: name.trim().to_owned(), network })
    }
}

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

    /// A name for a network beyond the cluster: what its addresses are called where no DNS answer named them. The
    /// smallest network that holds an address names it. Several times, or separated by commas; a list in the config file.
    #[arg(long, env = "WEIR_NETWORK", value_name = "NAME=CIDR", value_delimiter = ',')]
    pub network: Vec<NamedNetwork>,

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_network_is_read_and_a_wrong_one_is_refused_with_the_place_and_the_reason() {
        let parse = |networks: &[&str]| {
            let flags = networks.iter().flat_map(|network| ["--network", network]);
            Args::try_parse_from(["weir-server"].into_iter().chain(flags)).map(|args| args.network)
        };
        let found = parse(&["office=192.0.2.0/24,lab = 2001:db8::/32", "db=10.0.0.7"]).unwrap();
        let names: Vec<String> = found.iter().map(|named| format!("{} {}", named.name, named.network)).collect();
        assert_eq!(names, ["office 192.0.2.0/24", "lab 2001:db8::/32", "db 10.0.0.7/32"]);
        for (wrong, reason) in [
            ("office", "write NAME=CIDR"),
            ("=192.0.2.0/24", "write NAME=CIDR"),
            ("office=192.0.2.0/33", "`192.0.2.0/33` is no network"),
            ("office=192.0.2.7/24", "192.0.2.7/24 has bits beyond its prefix; write 192.0.2.0/24"),
        ] {
            let error = parse(&["ok=192.0.2.0/24", wrong]).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains(reason) && error.contains("--network"), "{error}");
        }
    }
}
