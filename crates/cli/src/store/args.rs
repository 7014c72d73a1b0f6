//! The command line of `weir store`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;
use weir_server::care::NamedNetwork;

/// Care of a data folder.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// What can be done with a data folder.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Checks state, catalogue, every segment and the log of a stopped server's folder; changes nothing.
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Settles and sums up history of a stopped server's folder.
    #[command(after_help = COMPACT_HELP)]
    Compact(CompactArgs),
    /// Writes the rows of a span as Parquet, CSV or lines of JSON, from a stopped server's folder or a backup.
    #[command(after_help = EXPORT_HELP)]
    Export(ExportArgs),
    /// Copies a data folder as it is at one moment, while its server runs.
    #[command(after_help = BACKUP_HELP)]
    Backup(BackupArgs),
}

pub(crate) const STORE_HELP: &str = "Examples:\n  weir store backup --data /var/lib/weir/server /srv/weir-backup\n  \
    weir store check --data /srv/weir-backup\n\n\
    Exit codes: 0 done, 1 failed (a server holds the folder), 2 wrong usage, 3 check has found something.";
const CHECK_HELP: &str = "Examples:\n  weir store check --data /var/lib/weir/server\n  weir store check --data ./copy -o json\n\n\
    Exit codes: 0 all is well, 1 failed (a server holds the folder), 2 wrong usage, 3 something is damaged or missing.";
const COMPACT_HELP: &str = "Examples:\n  weir store compact --data ./server\n  \
    weir store compact --data ./server --minutes-after 24h --hours-after 7d\n\n\
    A running server does so by itself; this is for a folder that none runs on. What is settled keeps the names that it\n\
    has then, so name networks as the server does (--network).\n\n\
    Exit codes: 0 done, 1 failed (a server holds the folder), 2 wrong usage.";
const EXPORT_HELP: &str = "Examples:\n  weir store export --data ./copy --since 24h --file day.parquet\n  \
    weir store export --data ./copy --rows 1h --form csv > hours.csv\n\n\
    In csv, a text that a spreadsheet would take for a formula begins with '.\n\n\
    Exit codes: 0 done, 1 failed (a server holds the folder: export from a backup), 2 wrong usage.";
const BACKUP_HELP: &str = "Examples:\n  weir store backup --data /var/lib/weir/server /srv/weir-backup\n\n\
    The copy is a data folder: to restore, stop the server, put the copy in the folder's place and start the server.\n\
    On one file system segments are links and take no room of their own.\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// The folder.
#[derive(Clone, Debug, Args)]
pub struct FolderArgs {
    /// The server's data folder; below `weir up`'s it is called `server`.
    #[arg(long, env = "WEIR_DATA", value_name = "DIR")]
    pub data: PathBuf,
}

/// `weir store check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Where.
    #[command(flatten)]
    pub folder: FolderArgs,
    /// The form of the answer.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: CheckOutput,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CheckOutput {
    /// For people.
    #[default]
    Text,
    /// One object.
    Json,
}

/// `weir store compact`.
#[derive(Debug, Args)]
pub struct CompactArgs {
    /// Where.
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Settled rows so old become rows of a minute (at least 1h). Without it rows of 10 s stay.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub minutes_after: Option<Duration>,
    /// Rows of a minute so old become rows of an hour (not less than --minutes-after).
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, requires = "minutes_after")]
    pub hours_after: Option<Duration>,
    /// A name for a network beyond the cluster, as the server was given it: what is settled keeps the names that it has
    /// then.
    #[arg(long, env = "WEIR_NETWORK", value_name = "NAME=CIDR", value_delimiter = ',')]
    pub network: Vec<NamedNetwork>,
}

/// `weir store export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Where.
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Which rows: of 10 s, of a minute, of an hour.
    #[arg(long, value_enum, default_value_t, value_name = "LENGTH")]
    pub rows: Rows,
    /// From when: a duration back from now, or RFC 3339.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Until when.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// The form.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub form: ExportForm,
    /// The file. Default: standard output.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// How much time a row holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Rows {
    /// 10 s.
    #[default]
    #[value(name = "10s")]
    TenSeconds,
    /// A minute.
    #[value(name = "1m")]
    Minute,
    /// An hour.
    #[value(name = "1h")]
    Hour,
}

/// The form of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ExportForm {
    /// One Parquet file.
    #[default]
    Parquet,
    /// RFC 4180 with a header.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// `weir store backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Where.
    #[command(flatten)]
    pub folder: FolderArgs,
    /// The copy's folder, which must not exist yet.
    #[arg(value_name = "TO")]
    pub to: PathBuf,
}
