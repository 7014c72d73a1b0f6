//! Which of the connections made at a given rate reach the answers, and what watching them costs.
//!
//! `weir up` with its usual settings watches; `weir-load` opens connections over a veth pair at the rate and counts them
//! at both ends; then the answers are asked until they have as many, or no more come.

use super::machine::Interrupt;
use crate::load::{Made, Order, Place, Player, VETH_SERVER};
use crate::process::until;
use crate::weir::Weir;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use weir_wire::api::{Answer, Edge};

/// A poll (10 s), its batch's way, and some large answers, each of which may take half a minute.
const ANSWER_PATIENCE: Duration = Duration::from_secs(180);

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
    /// Connections in the edges to the load's server.
    pub connections: u64,
    /// What the client sent, in the same edges, bytes.
    pub sent_bytes: u64,
    /// What the server sent, in the same edges, bytes.
    pub recv_bytes: u64,
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
        let percent = 100.0 * self.connections as f64 / self.made.connected.max(1) as f64;
        let both = |name: &str, values: String| format!("{name} {values}");
        let parts = PARTS.map(|part| {
            let processor = self.processor_percent.get(part).copied().unwrap_or(0.0);
            let resident = self.resident_max.get(part).copied().unwrap_or(0) >> 20;
            both(part, format!("{processor:.1} % of a core, at most {resident} MiB"))
        });
        let losses = if self.losses.is_empty() { "none".to_owned() } else { format!("{:?}", self.losses) };
        format!(
            "{} connects/s ({:.0} reached): made {}, accepted {}, in the answer {} ({percent:.3} %); bytes there {} of {}, \
             back {} of {}; {}; losses told: {losses}",
            self.rate,
            self.rate_made,
            self.made.connected,
            self.made.accepted,
            self.connections,
            self.sent_bytes,
            self.made.client_sent,
            self.recv_bytes,
            self.made.server_sent,
            parts.join("; "),
        )
    }

    /// Whether every connection and every byte is in the answer, and no more.
    pub fn is_exact(&self) -> bool {
        (self.connections, self.sent_bytes, self.recv_bytes)
            == (self.made.connected, self.made.client_sent, self.made.server_sent)
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
    let mut player = Player::start(Place::Veth, &["--cpu", &cpu.to_string()])?;
    let used = || -> Result<BTreeMap<&'static str, Used>> {
        PARTS.into_iter().map(|part| Ok((part, Used::by(weir.pid(part)?.as_raw())?))).collect()
    };
    let before = used()?;
    let told = player.order(&Order::Pace { rate, seconds }, &mut || interrupt.check())?;
    let after = used()?;
    drop(player);
    let (mut sum, mut losses) = (Sum::default(), BTreeMap::new());
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
    // An answer that lacks something is what this is here to tell; no answer at all is a failure.
    if sum.connections == 0 {
        outcome.context("no answer had a connection of the load")?;
    }
    let seconds_taken = told.took_ms.max(1) as f64 / 1000.0;
    let spent = |part: &&'static str| after[part].processor_ms.saturating_sub(before[part].processor_ms) as f64;
    Ok(Kept {
        rate,
        rate_made: told.made.connected as f64 / seconds_taken,
        made: told.made,
        connections: sum.connections,
        sent_bytes: sum.sent_bytes,
        recv_bytes: sum.recv_bytes,
        processor_percent: PARTS.iter().map(|part| (*part, spent(part) / 10.0 / seconds_taken)).collect(),
        resident_max: after.iter().map(|(part, used)| (*part, used.resident_max)).collect(),
        losses,
    })
}

fn edges(weir: &Weir) -> Result<Answer<Edge>> {
    weir.answer(&["edges", "--by", "address", "--since", "1h", "--limit", "1000000"])
}

#[derive(Debug, Default)]
struct Sum {
    connections: u64,
    sent_bytes: u64,
    recv_bytes: u64,
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
