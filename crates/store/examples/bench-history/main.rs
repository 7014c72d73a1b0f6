//! Makes a data folder with many rows of history, as a server's writer and compaction make it, and makes it coarser.
//! `make bench-store` asks a server about it, and other engines about the same rows.
//!
//! ```text
//! cargo run --release -p weir-store --example bench-history -- fill DIR ROWS DAYS
//! cargo run --release -p weir-store --example bench-history -- coarser DIR MINUTES_AFTER_HOURS HOURS_AFTER_HOURS
//! ```
//!
//! `fill` writes the rows into a new folder and settles them; the last one's time, a whole hour some hours ago, is in
//! `DIR/until`. `coarser` makes minutes and hours of what is older than so many hours before that.

mod history;

use history::{Cluster, Shape};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use weir_model::UnixNanos;
use weir_store::embedded::Embedded;
use weir_store::{Due, HistoryStore as _};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const HOUR_NS: i64 = 3_600_000_000_000;
const NEVER: UnixNanos = UnixNanos(i64::MIN);
/// So long ago the last row is at least, so that a server takes all of it for settled.
const AGO_NS: i64 = 3 * HOUR_NS;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["fill", folder, rows, days] => fill(Path::new(folder), rows, days),
        ["coarser", folder, minutes, hours] => coarser(Path::new(folder), minutes, hours),
        _ => Err("give fill DIR ROWS DAYS, or coarser DIR MINUTES_AFTER_HOURS HOURS_AFTER_HOURS".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-history: {error}");
            ExitCode::FAILURE
        }
    }
}

fn fill(folder: &Path, rows: &str, days: &str) -> Outcome<()> {
    let until = UnixNanos((wall_ns()? - AGO_NS) / HOUR_NS * HOUR_NS);
    let shape = Shape { rows: rows.parse()?, span_ns: days.parse::<i64>()? * 24 * HOUR_NS, until };
    let store = Embedded::open(folder)?;
    let mut cluster = Cluster::new();
    let began = begin();
    let (written, _) = history::fill(&store, &cluster, shape)?;
    let wrote_s = began.elapsed().as_secs_f64();
    tell(&store, "received", written)?;
    println!("written: {written} rows, {:.0} rows/s", written as f64 / wrote_s);
    let began = begin();
    let settled = UnixNanos(until.0 + HOUR_NS);
    let read = history::compact(
        &store,
        &mut cluster,
        Due { settled_before: settled, minutes_before: NEVER, hours_before: NEVER },
    )?;
    println!("settled: {read} rows read, {:.0} rows/s", read as f64 / began.elapsed().as_secs_f64());
    tell(&store, "settled", written)?;
    std::fs::write(folder.join("until"), format!("{} {written}\n", until.0))?;
    Ok(())
}

fn coarser(folder: &Path, minutes: &str, hours: &str) -> Outcome<()> {
    let text = std::fs::read_to_string(folder.join("until"))?;
    let (until, written) = text.trim().split_once(' ').ok_or("DIR/until has not two numbers")?;
    let (until, written) = (until.parse::<i64>()?, written.parse()?);
    let before = |hours: &str| Outcome::Ok(UnixNanos(until - hours.parse::<i64>()? * HOUR_NS));
    let due = Due { settled_before: UnixNanos(until), minutes_before: before(minutes)?, hours_before: before(hours)? };
    let store = Embedded::open(folder)?;
    let began = begin();
    let read = history::compact(&store, &mut Cluster::new(), due)?;
    println!("coarser: {read} rows read, {:.0} rows/s", read as f64 / began.elapsed().as_secs_f64());
    tell(&store, &format!("minutes after {minutes} h, hours after {hours} h"), written)
}

/// Rows and bytes by tier, and what a row of 10 s as received takes of all.
fn tell(store: &Embedded, what: &str, written: u64) -> Outcome<()> {
    let summary = store.summary()?;
    let tiers: Vec<String> = ["10 s", "1 min", "1 h"]
        .iter()
        .zip(summary.tiers)
        .filter(|(_, tier)| tier.rows > 0)
        .map(|(name, tier)| {
            format!("{name}: {} rows, {:.1} MB, {} files", tier.rows, tier.bytes as f64 / 1e6, tier.segments)
        })
        .collect();
    println!("{what}: {:.2} B a raw row ({})", summary.bytes as f64 / written as f64, tiers.join("; "));
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "rows are of today")]
fn wall_ns() -> Outcome<i64> {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(i64::try_from(since_1970.as_nanos())?)
}

#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn begin() -> Instant {
    Instant::now()
}
