//! A stopped server's folder: settled and summed up by a `weir store compact` that is ended again and again, and what
//! each tier then says.

use super::check::EdgeKey;
use super::parts::{name_of, store};
use super::random::Random;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use weir_daemon::failpoint::COMPACTION;

/// Beyond the lateness horizon (1 h) of all that was sent by a clock that is 25 min ahead, and within the two hours after
/// which a closed connection that a clock 25 min behind has told leaves the state.
const BEYOND_HORIZON_S: i64 = 5500;
/// Hours are made of six of them at a time.
const HOURS_S: i64 = 8 * 3600;
/// How often a compaction is ended before it is let through.
const ENDS_MAX: u64 = 4;

#[derive(Debug, Deserialize)]
struct Row {
    counted: Option<bool>,
    client_address: String,
    server_address: String,
    server_port: u16,
    sent_bytes: u64,
    recv_bytes: u64,
}

/// Sent and received, by edge.
pub type Sums = BTreeMap<EdgeKey, (u64, u64)>;

/// Which fail points ended a compaction, and how often.
pub type Steps = BTreeMap<String, u64>;

/// Settles everything, then sums up minutes, then hours, and compares the tiers with each other and with what the edges
/// were, which is the truth less what was told as lost.
///
/// # Errors
/// With what differs.
pub fn check(data: &Path, folder: &Path, edges: &Sums, random: &mut Random) -> Result<Steps> {
    let mut steps = Steps::new();
    compact(data, folder, 2 * BEYOND_HORIZON_S, &[], random, &mut steps)?;
    let rows = sums(data, folder, "10s")?;
    ensure!(rows == *edges, "counted rows of 10 s differ from the edges:\n{}", differ(edges, &rows));
    compact(data, folder, 2 * BEYOND_HORIZON_S, &["--minutes-after", "1h"], random, &mut steps)?;
    let minutes = sums(data, folder, "1m")?;
    ensure!(minutes == rows, "minutes are not the sum of the counted rows of 10 s:\n{}", differ(&rows, &minutes));
    ensure!(sums(data, folder, "10s")?.is_empty(), "rows of 10 s are left beside their minutes");
    let all = ["--minutes-after", "1h", "--hours-after", "1h"];
    compact(data, folder, 2 * BEYOND_HORIZON_S + HOURS_S, &all, random, &mut steps)?;
    let hours = sums(data, folder, "1h")?;
    ensure!(hours == minutes, "hours are not the sum of the minutes:\n{}", differ(&minutes, &hours));
    let path = data.to_string_lossy();
    let found = store(&["check", "--data", &path], 0, None, &folder.join("store.clock"))?;
    ensure!(found.status.success(), "weir store check: {}", String::from_utf8_lossy(&found.stdout));
    Ok(steps)
}

fn compact(
    data: &Path,
    folder: &Path,
    seconds: i64,
    more: &[&str],
    random: &mut Random,
    steps: &mut Steps,
) -> Result<()> {
    let path = data.to_string_lossy();
    let mut arguments = vec!["compact", "--data", &path];
    arguments.extend(more);
    for _ in 0..random.below(ENDS_MAX) {
        let Some(step) = random.pick(COMPACTION) else { break };
        let fail_point = format!("{step}:{}", 1 + random.below(3));
        let output = store(&arguments, seconds, Some(&fail_point), &folder.join("store.clock"))?;
        let is_aborted = output.status.signal() == Some(nix::sys::signal::Signal::SIGABRT as i32);
        ensure!(is_aborted || output.status.success(), "weir store: {}", String::from_utf8_lossy(&output.stderr));
        if is_aborted {
            *steps.entry(name_of(&fail_point)).or_default() += 1;
        }
    }
    let output = store(&arguments, seconds, None, &folder.join("store.clock"))?;
    ensure!(output.status.success(), "weir store compact: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What a tier counts, by edge.
fn sums(data: &Path, folder: &Path, tier: &str) -> Result<Sums> {
    let path = data.to_string_lossy();
    let arguments = ["export", "--data", &path, "--rows", tier, "--form", "jsonl"];
    let output = store(&arguments, 0, None, &folder.join("store.clock"))?;
    ensure!(output.status.success(), "weir store export: {}", String::from_utf8_lossy(&output.stderr));
    let mut sums = Sums::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let row: Row = serde_json::from_str(line).with_context(|| format!("an exported row: {line}"))?;
        ensure!(row.counted.is_some(), "a row that is not settled: {line}");
        if row.counted == Some(true) {
            let sum = sums.entry((row.client_address, row.server_address, row.server_port)).or_default();
            sum.0 += row.sent_bytes;
            sum.1 += row.recv_bytes;
        }
    }
    sums.retain(|_, sum| *sum != (0, 0));
    Ok(sums)
}

fn differ(truth: &Sums, found: &Sums) -> String {
    let keys: std::collections::BTreeSet<_> = truth.keys().chain(found.keys()).collect();
    let lines = keys.into_iter().filter(|key| truth.get(*key) != found.get(*key)).take(12);
    let lines = lines.map(|key| format!("{key:?}: {:?} and {:?}", truth.get(key), found.get(key)));
    lines.collect::<Vec<String>>().join("\n")
}
