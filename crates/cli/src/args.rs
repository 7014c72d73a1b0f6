//! The command line of `weir`. Each flag has a `WEIR_*` variable and a key in the config file (tables `[server]`,
//! `[up]`, and `[cli]` for what all reading commands share).

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;
use std::time::Duration;

/// Who talks to whom on this machine or cluster, how much, how well, and what changed.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    propagate_version = true,
    after_help = "Start here:\n  sudo weir up                 watch this machine's traffic, page at http://127.0.0.1:7780\n  \
                  weir edges --since 5m        who talks to whom\n  weir edges --unhealthy       what is wrong now\n  weir diff --before 1h        what changed\n  weir doctor                  what is missing and how to mend it\n\n\
                  Exit codes: 0 done, 1 failed, 2 wrong usage, 3 unhealthy, or something changed."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs tracer, agent and server on this machine and shows its traffic.
    #[command(after_help = UP_HELP)]
    Up(Box<UpArgs>),
    /// Runs the server alone: receives from agents, stores, answers.
    #[command(after_help = SERVER_HELP)]
    Server(Box<weir_server::Args>),
    /// Shows nodes, sources, losses, versions and how complete the record is.
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// Shows who talks to whom.
    #[command(after_help = EDGES_HELP)]
    Edges(EdgesCommandArgs),
    /// Shows who talks to whom as it goes on: sort, filter, go nearer, pause.
    #[command(after_help = TOP_HELP)]
    Top(TopArgs),
    /// Shows who talks to whom, step by step.
    #[command(after_help = SERIES_HELP)]
    Series(SeriesArgs),
    /// Shows what is different between two spans, or since a rollout: edges new, gone, shifted, sicker, better.
    #[command(after_help = DIFF_HELP)]
    Diff(DiffArgs),
    /// Shows connections and what moved on them.
    #[command(after_help = CONNECTIONS_HELP)]
    Connections(ConnectionsArgs),
    /// Shows the stored counters under `ip_source-ip_dest-port_src-port_dest`.
    #[command(after_help = TRANSACTIONS_HELP)]
    Transactions(RowsArgs),
    /// Shows who is who: nodes, pods, containers, processes, owners, Services.
    #[command(after_help = METADATA_HELP)]
    Metadata(MetadataArgs),
    /// Shows what was asked of DNS servers, by whom, how often it failed and how long it took.
    #[command(after_help = DNS_HELP)]
    Dns(DnsArgs),
    /// Checks what this machine allows, which parts run, and says how to mend the rest.
    #[command(after_help = DOCTOR_HELP)]
    Doctor(DoctorArgs),
    /// Takes care of a data folder: check, compact, export, backup.
    #[command(after_help = crate::store::args::STORE_HELP)]
    Store(crate::store::args::StoreArgs),
    /// Prints the completion script of a shell.
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

const UP_HELP: &str = "Examples:\n  sudo weir up                                   everything, data in /var/lib/weir\n  \
    sudo weir up --data ./data --interval 5s       another folder, quicker polls\n  \
    weir up --feed unix:/run/other/tracer.sock     somebody else's tracer, no root needed\n  \
    sudo weir up --docker unix:/run/docker.sock    containers by name; the agent may do what root may\n\n\
    The first Ctrl-C stops the parts in order within 5 s and loses nothing, the second ends them at once.\n\
    Standard output that is not a terminal gets one plain line per 10 s window.\n\n\
    Exit codes: 0 stopped on request, 1 failed (another weir up holds the folder, a port is taken), 2 wrong usage,\n\
    130 ended by the second Ctrl-C.";
const SERVER_HELP: &str = "Examples:\n  weir server --data ./server\n  \
    weir server --listen 0.0.0.0:7780 --agents-listen 0.0.0.0:7781 --token-file token\n\n\
    Exit codes: 0 stopped on request, 1 failed, 2 wrong usage.";
const STATUS_HELP: &str = "Examples:\n  weir status\n  weir status -o json | jq '.items[] | select(.health != \"healthy\")'\n\n\
    Exit codes: 0 healthy (degraded counts as healthy and is told), 1 failed, 2 wrong usage, 3 unhealthy: a part is\n\
    unhealthy, a node is silent, or a node's source does not answer.";
const EDGES_HELP: &str = "Examples:\n  weir edges --unhealthy                         what is wrong now, between whom, and why\n  weir edges --since 5m\n  weir edges --by process --from 'curl*'\n  \
    weir edges --by pod --namespace shop --service redis\n  weir edges --by attribute:team --label team=payments\n  \
    weir edges --filter 'server.namespace=shop and not client.namespace=shop and failures>0'\n  \
    weir edges --since 2026-01-31T10:00:00Z --until 2026-01-31T11:00:00Z --port 443 -o csv\n\n\
    SENT is what the client sent. SERVICE is what the client asked for; with ? it is inferred from the\n\
    endpoints that hold the server's address. In csv, a text that a spreadsheet would take for a formula begins with '.\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 an edge is unhealthy (with --health or --unhealthy).";
const TOP_HELP: &str = "Examples:\n  weir top\n  weir top --by pod --span 5m\n  \
    weir top --filter 'namespace=shop and failures>0'\n\n\
    Keys: Enter goes nearer (workloads, pods, connections), Esc back, / filters, Left and Right sort, b groups, + and -\n\
    look further or less far back, p pauses, ? explains, q ends.\n\n\
    Exit codes: 0 ended by a key or a signal, 1 the terminal failed, 2 wrong usage (no terminal, too).";
const SERIES_HELP: &str = "Examples:\n  weir series --since 6h\n  weir series --since 1d --step 1h --by namespace -o csv\n  \
    weir series --at 2026-01-31T03:00:00Z --since 30m --filter 'server.workload=payments'\n\n\
    A line of the graph has a column for each step, or for some where there are more than 48, from nothing to the row's own\n\
    largest; a dot is a step in which something is missing. In csv, a line is a step of an edge.\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage.";
const DIFF_HELP: &str = "Examples:\n  weir diff --before 1h                              the ten minutes until an hour ago, and the last ten\n  \
    weir diff --before 30m --window 5m --namespace shop\n  \
    weir diff --before 2026-01-31T02:00:00Z..2026-01-31T03:00:00Z --after 2026-01-31T04:00:00Z..2026-01-31T05:00:00Z\n  \
    weir diff --rollout shop/checkout || echo 'something changed'\n\n\
    Only what chance does not explain is a change (docs/diff.md). Spans of unequal length are compared by what is of a second.\n\n\
    Exit codes: 0 nothing changed, 1 failed, 2 wrong usage, 3 something changed.";
const CONNECTIONS_HELP: &str = "Examples:\n  weir connections --port 443\n  weir connections -f -o jsonl | jq .key\n\n\
    SENT and RECV are what moved in the span; `weir transactions` shows totals.\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage.";
const TRANSACTIONS_HELP: &str = "Examples:\n  weir transactions --cidr 10.0.0.0/8 --exact\n  \
    weir transactions -o jsonl | jq 'select(.paired | not) | .key'\n\n\
    BEFORE is the part that lies before weir's first sight; it belongs to no edge.\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage.";
const METADATA_HELP: &str = "Examples:\n  weir metadata --name 'nginx*'\n  weir metadata --kind container --namespace shop\n  \
    weir metadata --kind pod --cidr 10.244.1.7 --since 2h     who held an address\n  weir metadata -o json\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage.";
const DNS_HELP: &str = "Examples:\n  weir dns --since 1h\n  weir dns --from 'cart*' --name '*.svc.cluster.local'\n  \
    weir dns -o jsonl | jq 'select(.failures > 0)'\n\n\
    FAIL counts every outcome but noerror; a query without an answer for 15 s is a timeout. DNS over UDP port 53 is seen,\n\
    over TCP, TLS and HTTPS it is not.\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage.";
const DOCTOR_HELP: &str = "Examples:\n  sudo weir doctor\n  weir doctor --data ./data -o json\n\n\
    Exit codes: 0 nothing failed (degraded is told), 1 the doctor itself failed, 2 wrong usage, 3 a check failed.";
const COMPLETIONS_HELP: &str = "Examples:\n  weir completions bash > /etc/bash_completion.d/weir\n  \
    weir completions zsh > ~/.zfunc/_weir\n  weir completions fish > ~/.config/fish/completions/weir.fish\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// How rows are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Aligned columns for people, with how complete the answer is below.
    #[default]
    Table,
    /// The API's body: `{"items": [...], "completeness": {...}}`.
    Json,
    /// One item a line; completeness on standard error.
    Jsonl,
    /// RFC 4180 with a header; completeness on standard error.
    Csv,
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How every command that prints rows prints them.
#[derive(Clone, Debug, Args)]
pub struct PrintArgs {
    /// The form of the answer.
    #[arg(short, long, value_enum, default_value_t, env = "WEIR_OUTPUT", value_name = "FORM")]
    pub output: Output,
    /// When to colour.
    #[arg(long, value_enum, default_value_t, env = "WEIR_COLOR", value_name = "WHEN")]
    pub color: Colour,
    /// Prints bytes as exact integers in tables too.
    #[arg(long, env = "WEIR_EXACT")]
    pub exact: bool,
    /// A TOML file with settings (table `[cli]`).
    #[arg(long, env = "WEIR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Which server is asked.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// The server's HTTP address.
    #[arg(long, env = "WEIR_SERVER", default_value = "http://127.0.0.1:7780", value_name = "URL")]
    pub server: String,
    /// A file with the server's token, sent as `Authorization: Bearer`.
    #[arg(long, env = "WEIR_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// How long to wait for an answer: one over weeks, or of a million rows, takes a while.
    #[arg(long, env = "WEIR_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// What every reading command takes; the keys of the config file's `[cli]` table.
#[derive(Clone, Debug, Args)]
pub struct ReadArgs {
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// In which form.
    #[command(flatten)]
    pub print: PrintArgs,
}

/// [`ReadArgs`] as a command of its own, to check the config file's `[cli]` table against.
#[derive(Debug, Parser)]
pub(crate) struct CliTable {
    /// The shared settings.
    #[command(flatten)]
    pub(crate) _shared: ReadArgs,
}

/// Which rows. Sent to the server as they are; what it does not understand ends with exit code 2.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// Start of the span: how long ago (`5m`, `2h`) or RFC 3339.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// End of the span, as `--since`.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only what has this name; `*` stands for anything.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Only this Kubernetes namespace; `*` stands for anything.
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Only what has this label or another attribute that is collected; `*` stands for anything in the value.
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Option<String>,
    /// Only this address, or those in this range.
    #[arg(long, value_name = "CIDR")]
    pub cidr: Option<String>,
    /// Only what this node saw; `*` stands for anything.
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Only what this filter lets through, for example `namespace=shop and (port=443 or server.workload~"pay*")`; the
    /// fields are in docs/queries.md, and a wrong one is answered with those that there are.
    #[arg(long, value_name = "FILTER")]
    pub filter: Option<String>,
    /// At most so many rows. What lies beyond is counted, and where rows are sums one more row sums it up: `other`.
    #[arg(long, value_name = "ROWS")]
    pub limit: Option<u32>,
}

/// The instant that is asked about.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct InstantArgs {
    /// As it was at this instant: the span ends there, and durations lead back from there. How long ago (`2d`) or RFC 3339.
    #[arg(long, value_name = "TIME", conflicts_with = "until")]
    pub at: Option<String>,
}

/// Which rows come first.
#[derive(Clone, Debug, Default, Args)]
pub struct SortArgs {
    /// The number whose largest come first: `bytes`, `sent_bytes`, `recv_bytes`, `retransmits`, `rtt_us`, of edges also
    /// `connections`, `failures`; of dns `queries`, `failures`, `retransmits`, `latency_us`.
    #[arg(long, value_name = "NUMBER")]
    pub sort: Option<String>,
}

/// Which rows of traffic.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct TrafficArgs {
    /// Only what this client opened, by name or address; `*` stands for anything.
    #[arg(long, value_name = "NAME")]
    pub from: Option<String>,
    /// Only what this server accepted, by name or address; `*` stands for anything.
    #[arg(long, value_name = "NAME")]
    pub to: Option<String>,
    /// Only this port.
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
    /// Only this protocol: tcp or udp.
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<String>,
    /// Only what went through this Service, as NAME or NAMESPACE/NAME; `*` stands for anything.
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// What applies to every row.
    #[command(flatten)]
    pub filters: FilterArgs,
}

/// `weir status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Server and form.
    #[command(flatten)]
    pub read: ReadArgs,
}

/// `weir edges`, and what `weir series` shares with it.
#[derive(Clone, Debug, Args)]
pub struct EdgesArgs {
    /// Server and form.
    #[command(flatten)]
    pub read: ReadArgs,
    /// What an end is summed to: pod, workload, service (a server to the Service that was gone through, a client to its
    /// workload), namespace, node, zone, process, container, address, or attribute:NAME (an attribute that is collected,
    /// for example attribute:team).
    #[arg(long, value_name = "WHAT", value_parser = grouping)]
    pub by: Option<String>,
    /// With --by namespace: what is opened, any number of times: a namespace (shop) to its workloads, a workload (shop/cart)
    /// to its pods, node:NAME to what runs on that node beside pods.
    #[arg(long, value_name = "WHAT")]
    pub expand: Vec<String>,
    /// Which come first.
    #[command(flatten)]
    pub sort: SortArgs,
    /// Which instant.
    #[command(flatten)]
    pub instant: InstantArgs,
    /// Which rows.
    #[command(flatten)]
    pub traffic: TrafficArgs,
}

/// `weir top`.
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// What an end is summed to at first.
    #[arg(long, value_name = "WHAT", default_value = "workload", value_parser = crate::top::level::GROUPINGS)]
    pub by: String,
    /// How far it looks back at first.
    #[arg(long, value_name = "SPAN", default_value = "1m", value_parser = crate::top::app::SPANS)]
    pub span: String,
    /// What it shows at first, in the filter language (docs/queries.md).
    #[arg(long, value_name = "FILTER")]
    pub filter: Option<String>,
    /// When to colour.
    #[arg(long, value_enum, default_value_t, env = "WEIR_COLOR", value_name = "WHEN")]
    pub color: Colour,
    /// Shows bytes as exact integers.
    #[arg(long, env = "WEIR_EXACT")]
    pub exact: bool,
    /// A TOML file with settings (table `[cli]`).
    #[arg(long, env = "WEIR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `weir edges`.
#[derive(Clone, Debug, Args)]
pub struct EdgesCommandArgs {
    /// The edges.
    #[command(flatten)]
    pub edges: EdgesArgs,
    /// Says of every edge how it does against its own past, the hour before the span (docs/health.md): healthy,
    /// unhealthy with the reason, or unknown where too little happened.
    #[arg(long)]
    pub health: bool,
    /// Only edges that are unhealthy, with the reason. The default span is then a minute: what is so now.
    #[arg(long, help_heading = "Filters")]
    pub unhealthy: bool,
}

/// `weir series`.
#[derive(Clone, Debug, Args)]
pub struct SeriesArgs {
    /// How long a step is: a multiple of 10s. Default: what fits the span; old history makes it longer.
    #[arg(long, value_name = "DURATION")]
    pub step: Option<String>,
    /// The edges.
    #[command(flatten)]
    pub edges: EdgesArgs,
}

/// `weir diff`.
#[derive(Clone, Debug, Args)]
pub struct DiffArgs {
    /// Server and form.
    #[command(flatten)]
    pub read: ReadArgs,
    /// The earlier span: its end (how long ago, or RFC 3339), or FROM..UNTIL.
    #[arg(long, value_name = "TIME", required_unless_present = "rollout")]
    pub before: Option<String>,
    /// The later span, as `--before`. Default: now. Named by its end, it begins no earlier than the earlier one ends.
    #[arg(long, value_name = "TIME")]
    pub after: Option<String>,
    /// How long a span is that is named by its end, 10s to 7d. Default: 10m.
    #[arg(long, value_name = "DURATION")]
    pub window: Option<String>,
    /// Instead of both: the windows before and after the newest rollout of this Deployment.
    #[arg(long, value_name = "NAMESPACE/DEPLOYMENT", conflicts_with_all = ["before", "after"])]
    pub rollout: Option<String>,
    /// What an end is summed to, as `weir edges --by`.
    #[arg(long, value_name = "WHAT", value_parser = grouping)]
    pub by: Option<String>,
    /// With --by namespace: what is opened, as `weir edges --expand`.
    #[arg(long, value_name = "WHAT")]
    pub expand: Vec<String>,
    /// Which edges.
    #[command(flatten)]
    pub which: ChoiceArgs,
}

/// Which edges are compared.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct ChoiceArgs {
    /// Only what this client opened, by name or address; `*` stands for anything.
    #[arg(long, value_name = "NAME")]
    pub from: Option<String>,
    /// Only what this server accepted, by name or address; `*` stands for anything.
    #[arg(long, value_name = "NAME")]
    pub to: Option<String>,
    /// Only this port.
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
    /// Only this protocol: tcp or udp.
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<String>,
    /// Only what went through this Service, as NAME or NAMESPACE/NAME; `*` stands for anything.
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Only what has this name; `*` stands for anything.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Only this Kubernetes namespace; `*` stands for anything.
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Only what has this label or another attribute that is collected; `*` stands for anything in the value.
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Option<String>,
    /// Only this address, or those in this range.
    #[arg(long, value_name = "CIDR")]
    pub cidr: Option<String>,
    /// Only what this node saw; `*` stands for anything.
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Only what this filter lets through in one of the spans (docs/queries.md).
    #[arg(long, value_name = "FILTER")]
    pub filter: Option<String>,
    /// At most so many changes, the weightiest.
    #[arg(long, value_name = "ROWS")]
    pub limit: Option<u32>,
}

/// `weir metadata`.
#[derive(Clone, Debug, Args)]
pub struct MetadataArgs {
    /// Server and form.
    #[command(flatten)]
    pub read: ReadArgs,
    /// Only things of this kind: node, namespace, pod, container, process, `replica_set`, job, service, endpoint or name;
    /// `*` stands for anything.
    #[arg(long, value_name = "KIND", help_heading = "Filters")]
    pub kind: Option<String>,
    /// Which instant.
    #[command(flatten)]
    pub instant: InstantArgs,
    /// Which rows.
    #[command(flatten)]
    pub filters: FilterArgs,
}

/// `weir dns`.
#[derive(Clone, Debug, Args)]
pub struct DnsArgs {
    /// Server and form.
    #[command(flatten)]
    pub read: ReadArgs,
    /// What an end is summed to: pod, workload, service, namespace, node, zone, process, container, address, or
    /// attribute:NAME (an attribute that is collected, for example attribute:team).
    #[arg(long, value_name = "WHAT", value_parser = grouping)]
    pub by: Option<String>,
    /// Which come first.
    #[command(flatten)]
    pub sort: SortArgs,
    /// Which instant.
    #[command(flatten)]
    pub instant: InstantArgs,
    /// Only what this client asked, by name; `*` stands for anything.
    #[arg(long, value_name = "NAME", help_heading = "Filters")]
    pub from: Option<String>,
    /// Only what this server was asked, by name or address; `*` stands for anything.
    #[arg(long, value_name = "NAME", help_heading = "Filters")]
    pub to: Option<String>,
    /// Which rows; `--name` is the name that was asked for, or an end's.
    #[command(flatten)]
    pub filters: FilterArgs,
}

/// The words of the API's `by`.
const GROUPINGS: [&str; 9] =
    ["pod", "workload", "container", "service", "namespace", "node", "zone", "process", "address"];

fn grouping(word: &str) -> Result<String, String> {
    let is_attribute = word.strip_prefix("attribute:").is_some_and(|name| !name.is_empty());
    if is_attribute || GROUPINGS.contains(&word) {
        return Ok(word.to_owned());
    }
    Err(format!("write one of {}, or attribute:NAME", GROUPINGS.join(", ")))
}

/// `weir connections`.
#[derive(Clone, Debug, Args)]
pub struct ConnectionsArgs {
    /// What `transactions` takes too.
    #[command(flatten)]
    pub rows: RowsArgs,
    /// Which come first.
    #[command(flatten)]
    pub sort: SortArgs,
    /// Which instant.
    #[command(flatten)]
    pub instant: InstantArgs,
    /// Goes on: prints rows that are new or changed until Ctrl-C.
    #[arg(short, long, conflicts_with = "at")]
    pub follow: bool,
}

/// `weir transactions`, and what `weir connections` shares with it.
#[derive(Clone, Debug, Args)]
pub struct RowsArgs {
    /// Server and form.
    #[command(flatten)]
    pub read: ReadArgs,
    /// Which rows.
    #[command(flatten)]
    pub traffic: TrafficArgs,
    /// Which states.
    #[arg(long, value_enum, value_name = "STATE", help_heading = "Filters")]
    pub state: Option<RowState>,
}

/// Which rows by their state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RowState {
    /// Still there.
    Open,
    /// Gone.
    Closed,
    /// Both.
    All,
}

impl RowState {
    /// The word in the API's `state`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::All => "all",
        }
    }
}

/// `weir doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Server and form.
    #[command(flatten)]
    pub read: ReadArgs,
    /// The data folder of `weir up`; tells where its parts listen. Default: as `weir up`.
    #[arg(long, env = "WEIR_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The tracer's socket. Default: that of `weir up` where there is one, else `unix:/run/weir/tracer.sock`.
    #[arg(long, env = "WEIR_FEED", value_name = "unix:PATH")]
    pub feed: Option<Feed>,
    /// The agent's metrics. Default: those of `weir up` where there are some, else 127.0.0.1:7782.
    #[arg(long, env = "WEIR_METRICS_LISTEN", value_name = "ADDR")]
    pub metrics_listen: Option<std::net::SocketAddr>,
}

/// A tracer's socket, written `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed(pub PathBuf);

impl std::str::FromStr for Feed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Ok(Self(path.into())),
            _ => Err("write unix:PATH, for example unix:/run/weir/tracer.sock".to_owned()),
        }
    }
}

/// `weir up`.
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    /// The data folder. Default: /var/lib/weir for root, else $XDG_DATA_HOME/weir or ~/.local/share/weir.
    #[arg(long, env = "WEIR_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Leaves DNS out: no names, outcomes and latencies of queries are recorded.
    #[arg(long, env = "WEIR_NO_DNS")]
    pub no_dns: bool,
    /// Reads this tracer instead of starting our own.
    #[arg(long, env = "WEIR_FEED", value_name = "unix:PATH")]
    pub feed: Option<Feed>,
    /// How often the tracer is polled.
    #[arg(long, env = "WEIR_INTERVAL", default_value = "10s", value_name = "DURATION", value_parser = interval)]
    pub interval: Duration,
    /// Where the HTTP API and the page listen; port 0 takes a free one.
    #[arg(long, env = "WEIR_LISTEN", default_value = "127.0.0.1:7780", value_name = "ADDR")]
    pub listen: std::net::SocketAddr,
    /// Where agents deliver (gRPC); port 0 takes a free one.
    #[arg(long, env = "WEIR_AGENTS_LISTEN", default_value = "127.0.0.1:7781", value_name = "ADDR")]
    pub agents_listen: std::net::SocketAddr,
    /// Where the agent's metrics are; port 0 takes a free one.
    #[arg(long, env = "WEIR_METRICS_LISTEN", default_value = "127.0.0.1:7782", value_name = "ADDR")]
    pub metrics_listen: std::net::SocketAddr,
    /// Started as root: the user that agent and server run as. Default: the one behind sudo.
    #[arg(long, env = "WEIR_USER", value_name = "NAME")]
    pub user: Option<String>,
    /// Who is who.
    #[command(flatten)]
    pub names: crate::up::names::NameArgs,
    /// Prints plain lines on a terminal too.
    #[arg(long, env = "WEIR_NO_TABLE")]
    pub no_table: bool,
    /// Allows listeners beyond loopback without a token: anyone who reaches them may read and write.
    #[arg(long, env = "WEIR_INSECURE")]
    pub insecure: bool,
    /// A file with the token that readers and agents must send.
    #[arg(long, env = "WEIR_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// When to colour.
    #[arg(long, value_enum, default_value_t, env = "WEIR_COLOR", value_name = "WHEN")]
    pub color: Colour,
    /// Prints bytes as exact integers.
    #[arg(long, env = "WEIR_EXACT")]
    pub exact: bool,
    /// The parts' log filter, for example `info` or `weir_agent=debug,warn`.
    #[arg(long, env = "WEIR_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// A TOML file with settings (table `[up]`; the parts read theirs).
    #[arg(long, env = "WEIR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| format!("{error}; write for example 10s"))?;
    // As the agent has it: a tracer forgets a client after two minutes.
    if interval < Duration::from_millis(10) || interval > Duration::from_secs(60) {
        return Err("it must lie between 10ms and 60s".to_owned());
    }
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_and_exit_codes() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{}", command.get_name());
        }
    }
}
