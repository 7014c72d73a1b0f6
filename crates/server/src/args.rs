//! The server's settings: flags, `WEIR_*` variables, and keys of the config file's `[server]` table.

use crate::state::StateArgs;
use clap::Parser;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A setting that means nothing, and what may stand there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongSetting(pub(crate) String);

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

    /// A file whose content readers (and agents, with --agents-auth token) must send as `Authorization: Bearer CONTENT`.
    #[arg(long, env = "WEIR_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// How agents prove themselves: by the content of --token-file, or by their ServiceAccount's token, which the API
    /// server reviews and which binds each to its node.
    #[arg(long, env = "WEIR_AGENTS_AUTH", value_enum, default_value_t = AgentsAuth::Token, value_name = "HOW")]
    pub agents_auth: AgentsAuth,

    /// The audience that agents' ServiceAccount tokens must be projected for.
    #[arg(long, env = "WEIR_AGENTS_AUDIENCE", value_name = "NAME", default_value = "weir")]
    pub agents_audience: String,

    /// A ServiceAccount whose pods may deliver; may be repeated.
    #[arg(
        long, env = "WEIR_AGENTS_SERVICE_ACCOUNT", value_name = "NAMESPACE/NAME", default_value = "weir/weir-agent",
        value_delimiter = ',', value_parser = service_account,
    )]
    pub agents_service_account: Vec<String>,

    /// Lets agents in whose token does not say its node, as on clusters before Kubernetes 1.30: one node can then speak
    /// for another.
    #[arg(long, env = "WEIR_AGENTS_ANY_NODE")]
    pub agents_any_node: bool,

    /// The API server that is watched for Services, endpoints, nodes, namespaces and owners: `auto` (the cluster's own in
    /// a pod, else none), `off`, or its https address.
    #[arg(long, env = "WEIR_KUBERNETES", value_name = "auto|off|URL", default_value = "auto")]
    pub kubernetes: Kubernetes,

    /// A file that holds the token for the API server [default in a pod: its ServiceAccount's]
    #[arg(long, env = "WEIR_KUBERNETES_TOKEN_FILE", value_name = "FILE")]
    pub kubernetes_token_file: Option<PathBuf>,

    /// A file that holds the certificates that vouch for the API server, as PEM [default in a pod: the cluster's]
    #[arg(long, env = "WEIR_KUBERNETES_CA", value_name = "FILE")]
    pub kubernetes_ca: Option<PathBuf>,

    /// Collects from what is watched also this, for example `service.team=$.metadata.labels.team`: a kind (service,
    /// endpoint, node, namespace, replica_set, job; of the last two only the metadata is there), a name, a JSONPath; may
    /// be repeated.
    #[arg(long, env = "WEIR_COLLECT", value_name = "KIND.NAME=JSONPATH", value_delimiter = '\n')]
    pub collect: Vec<String>,

    /// Allows listeners beyond loopback without authentication: anyone who reaches them may read and write.
    #[arg(long, env = "WEIR_INSECURE")]
    pub insecure: bool,

    /// A name for a network beyond the cluster: what its addresses are called where no DNS answer named them. The
    /// smallest network that holds an address names it. Several times, or separated by commas; a list in the config file.
    #[arg(long, env = "WEIR_NETWORK", value_name = "NAME=CIDR", value_delimiter = ',')]
    pub network: Vec<NamedNetwork>,

    /// History so old becomes sums of a minute, in which connections are no longer told apart; at least 1h 10m.
    #[arg(long, env = "WEIR_MINUTES_AFTER", value_name = "DURATION", default_value = "1d", value_parser = humantime::parse_duration)]
    pub minutes_after: Duration,

    /// History so old becomes sums of an hour; not less than --minutes-after.
    #[arg(long, env = "WEIR_HOURS_AFTER", value_name = "DURATION", default_value = "7d", value_parser = humantime::parse_duration)]
    pub hours_after: Duration,

    /// How long history is kept; older segments are deleted whole. At least 1h 10m.
    #[arg(long, env = "WEIR_RETAIN_HISTORY", value_name = "DURATION", default_value = "30d", value_parser = humantime::parse_duration)]
    pub retain_history: Duration,

    /// How many bytes rows of 10 s may take on disk; beyond that the oldest are deleted.
    #[arg(long = "retain-bytes-10s", env = "WEIR_RETAIN_BYTES_10S", value_name = "BYTES", default_value = "16GiB", value_parser = weir_daemon::size::bytes)]
    pub retain_bytes_10s: u64,

    /// How many bytes rows of a minute may take on disk; beyond that the oldest are deleted.
    #[arg(long = "retain-bytes-1m", env = "WEIR_RETAIN_BYTES_1M", value_name = "BYTES", default_value = "16GiB", value_parser = weir_daemon::size::bytes)]
    pub retain_bytes_1m: u64,

    /// How many bytes rows of an hour may take on disk; beyond that the oldest are deleted.
    #[arg(long = "retain-bytes-1h", env = "WEIR_RETAIN_BYTES_1H", value_name = "BYTES", default_value = "16GiB", value_parser = weir_daemon::size::bytes)]
    pub retain_bytes_1h: u64,

    /// Where current state is kept.
    #[command(flatten)]
    pub state: StateArgs,

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

/// How agents prove themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AgentsAuth {
    /// By the content of `--token-file`.
    Token,
    /// By their ServiceAccount's token.
    ServiceAccount,
}

/// Where the API server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kubernetes {
    /// The cluster's own in a pod, else none.
    Auto,
    /// Nothing is watched.
    Off,
    /// There.
    Url(String),
}

impl std::str::FromStr for Kubernetes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            url if url.starts_with("https://") || url.starts_with("http://") => Ok(Self::Url(url.to_owned())),
            _ => Err("it is neither auto, off nor an http or https address".into()),
        }
    }
}

impl std::fmt::Display for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Url(url) => url,
        })
    }
}

fn service_account(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(text.to_owned())
        }
        _ => Err("write NAMESPACE/NAME, for example weir/weir-agent".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

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

    #[test]
    fn the_flags_are_consistent_and_wrong_words_are_refused() {
        Args::command().debug_assert();
        let parse = |more: &[&str]| Args::try_parse_from(["weir-server"].iter().chain(more));
        assert_eq!(parse(&[]).unwrap().kubernetes, Kubernetes::Auto);
        assert_eq!(parse(&["--kubernetes", "https://h:1"]).unwrap().kubernetes, Kubernetes::Url("https://h:1".into()));
        for wrong in [["--kubernetes", "on"], ["--agents-service-account", "weir-agent"], ["--agents-auth", "none"]] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
        let accounts = ["--agents-service-account", "a/b", "--agents-service-account", "c/d"];
        assert_eq!(parse(&accounts).unwrap().agents_service_account, ["a/b", "c/d"]);
    }
}
