//! `weir store`: care of a data folder, without a server. The work is the store's; here it is asked for and told.

pub mod args;

use crate::exit::{Failure, Verdict};
use crate::show::text::escape_lines;
use anyhow::Context as _;
use args::{BackupArgs, CheckArgs, CheckOutput, CompactArgs, ExportArgs, ExportForm, Rows, StoreArgs, StoreCommand};
use std::io::Write;
use std::path::Path;
use weir_daemon::clock::{Clock as _, SystemClock};
use weir_server::care::{self, Checked, Exported, Finding, Form, UnixNanos};

/// What compaction must leave alone (R5).
const HORIZON: std::time::Duration = std::time::Duration::from_secs(3600);

/// Runs `weir store`.
///
/// # Errors
/// When the folder is none, a server holds it, or it cannot be read or written.
pub fn run(args: &StoreArgs) -> Result<Verdict, Failure> {
    match &args.command {
        StoreCommand::Check(args) => check(args),
        StoreCommand::Compact(args) => compact(args),
        StoreCommand::Export(args) => export(args),
        StoreCommand::Backup(args) => backup(args),
    }
}

fn check(args: &CheckArgs) -> Result<Verdict, Failure> {
    be_the_owner(&args.folder.data)?;
    let checked = care::check(&args.folder.data)?;
    let mut out = std::io::stdout().lock();
    match args.output {
        CheckOutput::Json => writeln!(out, "{}", to_json(&checked))?,
        CheckOutput::Text => {
            for (word, findings) in [("BAD", &checked.findings), ("note", &checked.notes)] {
                for Finding { path, what, mend } in findings {
                    let text = format!("{}: {what}", path.display());
                    writeln!(out, "{word}  {}\n     {}", escape_lines(&text), escape_lines(mend))?;
                }
            }
            writeln!(
                out,
                "{} segments, {} rows, {} bytes; {} entries in the log; {}",
                checked.segments,
                checked.rows,
                checked.bytes,
                checked.log_entries,
                match checked.findings.len() {
                    0 => "all is well".to_owned(),
                    count => format!("{count} found"),
                }
            )?;
        }
    }
    Ok(if checked.findings.is_empty() { Verdict::Done } else { Verdict::Unhealthy })
}

fn to_json(checked: &Checked) -> serde_json::Value {
    let list = |findings: &[Finding]| -> Vec<serde_json::Value> {
        findings
            .iter()
            .map(|Finding { path, what, mend }| {
                serde_json::json!({ "path": path.to_string_lossy(), "what": what, "mend": mend })
            })
            .collect()
    };
    serde_json::json!({
        "segments": checked.segments,
        "rows": checked.rows,
        "bytes": checked.bytes,
        "log_entries": checked.log_entries,
        "findings": list(&checked.findings),
        "notes": list(&checked.notes),
    })
}

fn compact(args: &CompactArgs) -> Result<Verdict, Failure> {
    let minutes = args.minutes_after;
    if minutes.is_some_and(|after| after < HORIZON) {
        return Err(Failure::Usage("--minutes-after is at least 1h: until then late records settle anew".into()));
    }
    if args.hours_after.zip(minutes).is_some_and(|(hours, minutes)| hours < minutes) {
        return Err(Failure::Usage("--hours-after must not be less than --minutes-after".into()));
    }
    be_the_owner(&args.folder.data)?;
    let total = care::compact(&args.folder.data, &args.network, minutes, args.hours_after)?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{} steps: {} rows and {} bytes read, {} bytes written",
        total.steps, total.rows_in, total.bytes_in, total.bytes_out
    )?;
    Ok(Verdict::Done)
}

fn export(args: &ExportArgs) -> Result<Verdict, Failure> {
    let since = args.since.as_deref().map(instant).transpose()?.unwrap_or(UnixNanos(i64::MIN));
    let until = args.until.as_deref().map(instant).transpose()?.unwrap_or(UnixNanos(i64::MAX));
    let which = match args.rows {
        Rows::TenSeconds => Exported::Rows,
        Rows::Minute => Exported::Minutes,
        Rows::Hour => Exported::Hours,
    };
    let form = match args.form {
        ExportForm::Parquet => Form::Parquet,
        ExportForm::Csv => Form::Csv,
        ExportForm::Jsonl => Form::Jsonl,
    };
    // Opened before anything is given up: it belongs to whoever asked.
    let mut out: Box<dyn Write + Send> = match &args.file {
        Some(path) => Box::new(std::io::BufWriter::new(
            std::fs::File::create(path).with_context(|| format!("failed to create {}", path.display()))?,
        )),
        None => Box::new(std::io::stdout()),
    };
    be_the_owner(&args.folder.data)?;
    let rows = care::export(&args.folder.data, which, since, until, form, &mut *out)?;
    out.flush()?;
    writeln!(std::io::stderr(), "{rows} rows")?;
    Ok(Verdict::Done)
}

/// A duration back from now, or RFC 3339.
fn instant(text: &str) -> Result<UnixNanos, Failure> {
    if let Ok(back) = humantime::parse_duration(text) {
        return Ok(SystemClock::new().wall().plus(-i64::try_from(back.as_nanos()).unwrap_or(i64::MAX)));
    }
    let at: Option<jiff::Timestamp> = text.parse().ok();
    at.and_then(|at| i64::try_from(at.as_nanosecond()).ok()).map(UnixNanos).ok_or_else(|| {
        Failure::Usage(format!("{text:?} is no time; write a duration (24h) or RFC 3339 (2026-01-31T10:00:00Z)"))
    })
}

fn backup(args: &BackupArgs) -> Result<Verdict, Failure> {
    // As whoever asks: the owner may not write where the copy goes. Nothing is created in a folder without a server.
    let copied = care::backup(&args.folder.data, &args.to)?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{}: {} segments of {} bytes, state of {} bytes, log of {} bytes",
        args.to.display(),
        copied.segments,
        copied.segment_bytes,
        copied.state_bytes,
        copied.log_bytes
    )?;
    Ok(Verdict::Done)
}

/// Root becomes the folder's owner: a file that SQLite makes must not lock the server out.
fn be_the_owner(folder: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(folder).with_context(|| format!("failed to look at {}", folder.display()))?;
    if nix::unistd::Uid::effective().is_root() && metadata.uid() != 0 {
        nix::unistd::setgroups(&[])
            .and_then(|()| nix::unistd::setgid(metadata.gid().into()))
            .and_then(|()| nix::unistd::setuid(metadata.uid().into()))
            .with_context(|| format!("failed to become the owner of {}", folder.display()))?;
    }
    Ok(())
}
