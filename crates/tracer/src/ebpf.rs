//! eBPF as the source of rows: programs in the kernel count, their maps are read here.
//!
//! ```text
//! tcp_closed, udp_closed, udp_gone rings ──drain──▶ written
//! tcp_sockets, udp_sockets, udp_flows ───────walk──▶ rows
//! ```
//! A walk comes first and the ring after it: a connection that ends in between is then an ended row.

use crate::engine::{EngineError, kernel};
use crate::kernel::costs::Costs;
use crate::kernel::ring::Ring;
use crate::kernel::sys;
use crate::losses::{self, Loss};
use crate::probes::cgroups;
use crate::probes::layout::{OWNER_UNSURE, Row};
use crate::probes::tcp::Tcp;
use crate::probes::udp::dns::{self, Dns};
use crate::probes::udp::{self, Udp};
use crate::probes::{Descriptors, ProbeReport, ProbeState};
use crate::source::{Drained, Source, Walk, Write};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use weir_wire::feed::{Probe, Program};
use zerocopy::FromBytes;

/// One batch of the ring: an eighth of it, so that a drain's memory stays small.
const DRAIN_BYTES: usize = 1 << 20;
/// Twice what the ring holds: all that was there when a drain began, but no race with a producer that never rests.
const DRAIN_BATCHES: usize = 16;

/// A look for the owners of sockets takes some milliseconds, so readers cannot cause more than one in this time.
const OWNERS_PAUSE: Duration = Duration::from_secs(2);

/// The kernel's programs and maps.
#[derive(Debug)]
pub struct Ebpf {
    descriptors: Arc<Descriptors>,
    reports: Vec<ProbeReport>,
    tcp: Tcp,
    udp: Option<Udp>,
    dns: Option<Dns>,
    costs: Costs,
    owners_asked_ns: u64,
}

impl Ebpf {
    /// Takes the maps over. Nothing is read yet but their memory.
    ///
    /// # Errors
    /// When a ring cannot be mapped.
    pub fn new(descriptors: Arc<Descriptors>, reports: Vec<ProbeReport>, costs: Costs) -> Result<Self, EngineError> {
        let tcp = Tcp::open(&descriptors).map_err(kernel("map the rings of probe tcp"))?;
        let runs = |name: &str| {
            reports.iter().any(|report| {
                report.name == name && matches!(report.state, ProbeState::Running | ProbeState::Partly(_))
            })
        };
        let udp = Udp::open(&descriptors, runs(udp::NAME)).map_err(kernel("map the ring of probe udp"))?;
        let dns = Dns::open(&descriptors, runs(dns::NAME)).map_err(kernel("map the ring of probe dns"))?;
        if dns.is_some() {
            // A tracer that stops in the usual way ends the run: these were a killed one's.
            let held = Dns::held(&descriptors).map_err(kernel("read the numbers of probe dns"))?;
            losses::add(&descriptors, Loss::DnsLostInRestart, held);
        }
        Ok(Self { descriptors, reports, tcp, udp, dns, costs, owners_asked_ns: 0 })
    }

    fn drain_udp(&mut self, now_ns: u64, write: Write<'_>) -> Result<Drained, EngineError> {
        let Some(udp) = &mut self.udp else { return Ok(Drained::Wholly) };
        let drained = drain_ring(udp.closed(), write)?;
        let endings = udp.endings(&self.descriptors, now_ns).map_err(kernel("read the UDP flows that ended"))?;
        write(endings.rows.clone())?;
        udp.take(&self.descriptors, &endings).map_err(kernel("take the UDP flows that ended"))?;
        Ok(drained)
    }

    fn probe(&self, report: &ProbeReport, counted: bool) -> Probe {
        let (state, reason) = match &report.state {
            ProbeState::Running => ("running", None),
            ProbeState::Partly(reason) => ("running", Some(reason)),
            ProbeState::Disabled(reason) => ("disabled", Some(reason)),
            ProbeState::Unsupported(reason) => ("unsupported", Some(reason)),
            ProbeState::Failed(reason) => ("failed", Some(reason)),
        };
        let mut probe =
            Probe { name: report.name.clone(), state: state.to_owned(), reason: reason.cloned(), ..Probe::default() };
        if counted && !report.links.is_empty() {
            probe.programs = report.links.iter().filter_map(|name| self.program(name)).collect();
            probe.runs = Some(probe.programs.iter().map(|program| program.runs).sum());
            probe.nanoseconds = Some(probe.programs.iter().map(|program| program.nanoseconds).sum());
        }
        probe
    }
}

fn drain_ring(ring: &mut Ring, write: Write<'_>) -> Result<Drained, EngineError> {
    for _ in 0..DRAIN_BATCHES {
        let mut rows = Vec::new();
        let position = ring.read(DRAIN_BYTES, |record| {
            if let Ok((row, _)) = Row::read_from_prefix(record) {
                rows.push(row);
            }
        });
        if rows.is_empty() {
            ring.advance(position);
            return Ok(Drained::Wholly);
        }
        write(rows)?;
        ring.advance(position);
    }
    Ok(Drained::InPart)
}

impl Ebpf {
    fn walk_tcp(&mut self) -> Result<Walk, EngineError> {
        self.tcp.walk(&self.descriptors).map_err(|source| {
            losses::add(&self.descriptors, Loss::WalksFailed, 1);
            EngineError::Kernel { step: "walk the open connections", source }
        })
    }

    fn program(&self, name: &str) -> Option<Program> {
        let cost = sys::program_cost(self.descriptors.get(name)?.as_fd()).ok()?;
        Some(Program { name: name.to_owned(), runs: cost.runs, nanoseconds: cost.nanoseconds })
    }
}

impl Source for Ebpf {
    fn drain(&mut self, now_ns: u64, write: Write<'_>) -> Result<Drained, EngineError> {
        let of_tcp = drain_ring(self.tcp.closed(), write)?;
        let of_udp = self.drain_udp(now_ns, write)?;
        Ok(if of_tcp == Drained::Wholly { of_udp } else { of_tcp })
    }

    fn walk(&mut self, now_ns: u64, write: Write<'_>) -> Result<Walk, EngineError> {
        let mut walk = self.walk_tcp()?;
        let is_unsure = walk.rows.iter().any(|row| row.flags & OWNER_UNSURE != 0);
        if is_unsure && now_ns.saturating_sub(self.owners_asked_ns) >= OWNERS_PAUSE.as_nanos() as u64 {
            self.owners_asked_ns = now_ns;
            if self.tcp.backfill(&self.descriptors).is_ok() {
                walk = self.walk_tcp()?;
            }
        }
        if let Some(udp) = &mut self.udp {
            let mut mains = udp.walk(&self.descriptors).map_err(kernel("walk the UDP sockets"))?;
            walk.rows.append(&mut mains.rows);
            walk.complete &= mains.complete;
        }
        losses::add(&self.descriptors, Loss::WalksIncomplete, u64::from(!walk.complete));
        self.drain(now_ns, write)?;
        if let Some(udp) = &mut self.udp {
            let mut further = udp.further(&self.descriptors).map_err(kernel("read the UDP flows"))?;
            walk.rows.append(&mut further);
        }
        Ok(walk)
    }

    fn backfill(&mut self) -> std::io::Result<()> {
        let of_udp = if self.udp.is_some() || self.dns.is_some() { Udp::backfill(&self.descriptors) } else { Ok(()) };
        self.tcp.backfill(&self.descriptors).and(of_udp)
    }

    /// Flows leave the kernel before they are written: a datagram in between begins a new flow, and what a kill in
    /// between would lose has been told as a living row.
    fn expire(&mut self, now_ns: u64, idle: Duration, write: Write<'_>) -> Result<(), EngineError> {
        let Some(udp) = &mut self.udp else { return Ok(()) };
        let rows = udp.expire(&self.descriptors, now_ns, idle).map_err(kernel("take the UDP flows that are idle"))?;
        write(rows)
    }

    fn watches_dns(&self) -> bool {
        self.dns.is_some()
    }

    fn read_dns(&mut self, each: &mut dyn FnMut(&dns::Head, &[u8])) {
        if let Some(dns) = &mut self.dns {
            dns.read(each);
        }
    }

    fn taken_dns(&mut self, held: u64) -> std::io::Result<()> {
        self.dns.as_mut().map_or(Ok(()), |dns| dns.taken(&self.descriptors, held))
    }

    fn count(&mut self, loss: Loss, count: u64) {
        losses::add(&self.descriptors, loss, count);
    }

    fn losses(&self) -> Result<BTreeMap<String, u64>, EngineError> {
        let mut all = BTreeMap::new();
        let of_tcp = self.tcp.losses(&self.descriptors).map_err(kernel("read what was lost"))?;
        for lost in of_tcp {
            lost.tell(&mut all);
        }
        if let Some(udp) = &self.udp {
            let of_udp = udp.losses(&self.descriptors).map_err(kernel("read what was lost"))?;
            for lost in of_udp {
                lost.tell(&mut all);
            }
        }
        if self.dns.is_some() {
            let of_dns = Dns::losses(&self.descriptors).map_err(kernel("read what was lost"))?;
            all.extend(
                of_dns.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)),
            );
        }
        losses::read(&self.descriptors, &mut all).map_err(kernel("read what was lost"))?;
        Ok(all)
    }

    fn probes(&self) -> Vec<Probe> {
        let counted = self.costs.are_counted();
        self.reports.iter().map(|report| self.probe(report, counted)).collect()
    }

    fn costs_refused(&self) -> Option<String> {
        self.costs.refusal().map(str::to_owned)
    }

    fn gauges(&mut self) -> Result<BTreeMap<String, u64>, EngineError> {
        let walk = self.tcp.walk(&self.descriptors).map_err(kernel("walk the open connections"))?;
        let of_tcp = [
            ("tcp_open_connections", walk.rows.len() as u64),
            ("tcp_closed_ring_waiting_bytes", self.tcp.closed().waiting_bytes()),
        ];
        let mut gauges: BTreeMap<String, u64> =
            of_tcp.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        if let Some(udp) = &self.udp {
            let of_udp = udp.gauges(&self.descriptors).map_err(kernel("read the numbers of probe udp"))?;
            gauges.extend(of_udp.map(|(name, value)| (name.to_owned(), value)));
        }
        let missed = cgroups::missed(&self.descriptors).map_err(kernel("read the numbers of probe cgroups"))?;
        gauges.extend(missed.map(|missed| ("cgroups_missed".to_owned(), missed)));
        if let Some(dns) = &self.dns {
            gauges.insert("dns_ring_waiting_bytes".to_owned(), dns.waiting_bytes());
        }
        Ok(gauges)
    }

    fn is_degraded(&self) -> bool {
        self.reports.iter().any(|report| !matches!(report.state, ProbeState::Running | ProbeState::Disabled(_)))
    }
}
