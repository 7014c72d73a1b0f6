//! Logs on standard error: text for people (colour only on a terminal, `NO_COLOR` honoured), JSON for collectors.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

/// Starts logging. `filter` is `RUST_LOG`'s syntax (`info`, `weir_agent=debug,warn`). Call once.
///
/// # Errors
/// When `filter` does not parse; the text says where.
pub fn init(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        anyhow::anyhow!("log filter `{filter}`: {error}; write for example `info` or `weir_agent=debug,warn`")
    })?;
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // A line that cannot be written (standard error is a file on a full disk) is lost. That this failed is told nowhere: its own
    // words would go to the same place, and end the process there.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .log_internal_errors(false);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
