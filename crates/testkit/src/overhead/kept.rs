//! Which of the connections made at a given rate reach the answers, and what watching them costs.
//!
//! `weir up` with its usual settings watches; `weir-load` opens connections over a veth pair at the rate and counts them
//! at both ends; then the answers are asked until they have as many, or no more come.

use super::machine::Interrupt;
use crate::load::{Made, Order, Place, Player, VETH_SERVER};
use crate::process::until;
use crate::weir::Weir;
use anyhow::Result;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use weir_wire::api::{Answer, Edge};

/// Two polls (10 s each), and what the server takes for so many records.
const ARRIVAL: Duration = Duration::from_secs(60);
/// Some large answers, each of which may take half a minute.
const ANSWER_PATIENCE: Duration = Duration::from_secs(100);

/// The parts whose cost is told.
const PARTS: [&str; 3] = ["tracer", "agent", "server"];

/// What a process has used.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Used {
    /// Processor time, milliseconds.
    pub processor_ms: u64,
    /// The most that was resident so far, bytes.
    pub resident_max: u64,
}

impl Used {
    /// Of a living process.
    ///
    /// # Errors
    /// When it is gone.
    pub fn by(pid: i32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
        // utime and stime, proc(5); a tick is 10 ms (USER_HZ).
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap_or(0);
        Ok(Self { processor_ms: (ticks(11) + ticks(12)) * 10, resident_max: kilobytes << 10 })
    }
}

/// What a run found.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Kept {
    /// Connections a second that were asked for.
    pub rate: u32,
    /// Connections a second that were made.
    pub rate_made: f64,
    /// What the load's two ends counted.
    pub made: Made,
    /// Records that the server took meanwhile: at least one for either end of every connection, others' traffic too.
    pub records: u64,
    /// What the edges to the load's server say, or why there was no answer.
    pub edges: Result<Sum, String>,
    /// Processor time of each part while the load ran, in per cent of one processor.
    pub processor_percent: BTreeMap<&'static str, f64>,
    /// The most that each part had resident until the load ended, bytes.
    pub resident_max: BTreeMap<&'static str, u64>,
    /// Every loss that the answer names, by reason.
    pub losses: BTreeMap<String, u64>,
}

impl Kept {
    /// For people.
    pub fn markdown(&self) -> String {
        let parts = PARTS.map(|part| {
            let processor = self.processor_percent.get(part).copied().unwrap_or(0.0);
            let resident = self.resident_max.get(part).copied().unwrap_or(0) >> 20;
            format!("{part} {processor:.1} % of a core, at most {resident} MiB")
        });
        let edges = match &self.edges {
            Ok(sum) => format!(
                "in the edges {} ({:.3} %), bytes there {} of {}, back {} of {}",
                sum.connections,
                100.0 * sum.connections as f64 / self.made.connected.max(1) as f64,
                sum.sent_bytes,
                self.made.client_sent,
                sum.recv_bytes,
                self.made.server_sent,
            ),
            Err(error) => format!("no answer about edges: {error}"),
        };
        let losses = if self.losses.is_empty() { "none".to_owned() } else { format!("{:?}", self.losses) };
        format!(
            "{} connects/s ({:.0} reached): made {}, accepted {}; records {} of at least {}; {edges}; {}; losses told: {losses}",
            self.rate,
            self.rate_made,
            self.made.connected,
            self.made.accepted,
            self.records,
            self.made.connected + self.made.accepted,
            parts.join("; "),
        )
    }

    /// Whether every connection and every byte is in the answer, and no more.
    pub fn is_exact(&self) -> bool {
        let made = Sum {
            connections: self.made.connected,
            sent_bytes: self.made.client_sent,
            recv_bytes: self.made.server_sent,
        };
        self.edges.as_ref() == Ok(&made)
    }
}

/// Makes `rate` connections a second for `seconds` seconds on processor `cpu` and compares.
///
/// # Errors
/// When weir does not come up, the load fails, or `interrupt` has come.
pub fn measure(rate: u32, seconds: u32, cpu: usize, folder: &Path, interrupt: &Interrupt) -> Result<Kept> {
    let data = folder.join(format!("up-{rate}"));
    std::fs::create_dir_all(&data)?;
    let weir = Weir::up(&data, "10s", &[])?;
    let mut player = Player::start(Place::Veth, &["--cpu", &cpu.to_string(), "--nice=-20"])?;
    let used = || -> Result<BTreeMap<&'static str, Used>> {
        PARTS.into_iter().map(|part| Ok((part, Used::by(weir.pid(part)?.as_raw())?))).collect()
    };
    let records = || -> Result<u64> { Ok(weir.node()?.counters.get("records").copied().unwrap_or(0)) };
    let (before, records_before) = (used()?, records()?);
    let told = player.order(&Order::Pace { rate, seconds }, &mut || interrupt.check())?;
    let after = used()?;
    drop(player);
    // Every look may be an expensive one, so the edges are asked once all that is to come has come, or nothing does.
    let views = told.made.connected + told.made.accepted;
    let mut records_after = 0;
    let _fewer_are_told = until(ARRIVAL, || {
        if interrupt.check().is_err() {
            return Ok(true);
        }
        records_after = records()?;
        Ok(records_after - records_before >= views)
    });
    interrupt.check()?;
    let mut sum = Sum::default();
    let mut losses = BTreeMap::new();
    let outcome = until(ANSWER_PATIENCE, || {
        if interrupt.check().is_err() {
            return Ok(true);
        }
        let answer = edges(&weir)?;
        sum = Sum::of(&answer);
        losses.clear();
        for loss in &answer.completeness.losses {
            *losses.entry(format!("{}: {}", loss.place, loss.reason)).or_default() += loss.count;
        }
        Ok(sum.connections >= told.made.connected)
    });
    interrupt.check()?;
    // Edges that lack something are what this is here to tell.
    let edges =
        if sum.connections == 0 { outcome.map(|()| sum).map_err(|error| format!("{error:#}")) } else { Ok(sum) };
    let seconds_taken = told.took_ms.max(1) as f64 / 1000.0;
    let spent = |part: &&'static str| after[part].processor_ms.saturating_sub(before[part].processor_ms) as f64;
    Ok(Kept {
        rate,
        rate_made: told.made.connected as f64 / seconds_taken,
        made: told.made,
        records: records_after.saturating_sub(records_before),
        edges,
        processor_percent: PARTS.iter().map(|part| (*part, spent(part) / 10.0 / seconds_taken)).collect(),
        resident_max: after.iter().map(|(part, used)| (*part, used.resident_max)).collect(),
        losses,
    })
}

fn edges(weir: &Weir) -> Result<Answer<Edge>> {
    weir.answer(&["edges", "--by", "address", "--since", "1h", "--limit", "1000000"])
}

/// The edges to the load's server, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Sum {
    /// Connections.
    pub connections: u64,
    /// What the client sent, bytes.
    pub sent_bytes: u64,
    /// What the server sent, bytes.
    pub recv_bytes: u64,
}

impl Sum {
    /// Over the edges to the load's server.
    fn of(answer: &Answer<Edge>) -> Self {
        let server = VETH_SERVER.to_string();
        let mut sum = Self::default();
        for edge in answer.items.iter().filter(|edge| edge.server.address.as_deref() == Some(server.as_str())) {
            sum.connections += edge.connections;
            sum.sent_bytes += edge.sent_bytes;
            sum.recv_bytes += edge.recv_bytes;
        }
        sum
    }
}
