//! The UDP probe's maps, read and emptied. `flows.bpf.h` says what lies where.

use super::{FILL, WALK};
use crate::kernel::ring::{Position, Ring};
use crate::kernel::sys::{self, BatchPosition};
use crate::losses::Lost;
use crate::probes::layout::{IDLE, Origin, Row, UDP};
use crate::probes::tcp::{descriptor, read_number};
use crate::probes::walk::Walker;
use crate::probes::{self, Descriptors};
use crate::source::Walk;
use std::collections::HashMap;
use std::io;
use std::time::Duration;
use weir_wire::losses as reasons;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `enum udp_number`: the indices of `udp_numbers`.
const PEERS_CAPPED: u32 = 0;
const LOST_DATAGRAMS: u32 = 1;
const LOST_BYTES: u32 = 2;
const GONE_RING_FULL: u32 = 3;
const NO_STORAGE: u32 = 4;
const QUEUE_FULL: u32 = 5;
const FLOWS_MADE: u32 = 6;
const MAINS_ENDED: u32 = 7;
const FLOWS_DELETED: u32 = 8;
const BACKFILL_PASS: u32 = 9;
const IDLE_SINCE: u32 = 10;
const NO_STORAGE_BYTES: u32 = 11;

/// A socket's end is dealt with once it is this old: a program that found the flow just before runs microseconds, and
/// must not add to memory that belongs to another flow by then.
const SETTLE_NS: u64 = 1_000_000;

/// A further flow that lived less than this was one question and its answer, no stream: it is idle after the
/// [`BRIEF_PART`] of the time, as conntrack has it (30 s of 120 s). Each query to a DNS server comes from a port of its
/// own: they must not hold its room.
const BRIEF_NS: u64 = 2_000_000_000;
/// The part of the idle time that a brief flow lives on.
const BRIEF_PART: u64 = 4;

/// `struct udp_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Key {
    cookie: u64,
    local: [u8; 16],
    remote: [u8; 16],
    local_port: u16,
    remote_port: u16,
    family: u16,
    pad: u16,
}

/// `struct udp_flow`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Flow {
    origin: Origin,
    start_ns: u64,
    last_ns: u64,
    sent: u64,
    recv: u64,
    dropped: u64,
    direction: u8,
    certainty: u8,
    flags: u8,
    pad: [u8; 5],
}

/// `struct udp_gone`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Gone {
    key: Key,
    at_ns: u64,
    hashed: u64,
}

impl Flow {
    /// Whether its last datagram is too long ago by `now_ns`.
    fn is_idle(&self, now_ns: u64, idle_ns: u64) -> bool {
        let is_brief = self.last_ns.saturating_sub(self.start_ns) < BRIEF_NS;
        let idle_ns = if is_brief { idle_ns / BRIEF_PART } else { idle_ns };
        self.last_ns.saturating_add(idle_ns) < now_ns
    }
}

const _: () = assert!(size_of::<Key>() == 48 && size_of::<Flow>() == 96 && size_of::<Gone>() == 64);

/// The probe's maps, read.
#[derive(Debug)]
pub struct Udp {
    closed: Ring,
    gone: Ring,
    walker: Walker,
    flows_max: usize,
    /// What was told as received of flows that dropped some: a datagram that finds no room is counted before it is taken
    /// back, and a total that was told never falls.
    told: HashMap<Key, u64>,
    keys: Vec<u8>,
    values: Vec<u8>,
}

/// Flows that ended, and how to take them from the kernel once they are safe.
#[derive(Debug)]
pub struct Endings {
    /// Their last rows.
    pub rows: Vec<Row>,
    keys: Vec<Key>,
    cookies: Vec<u64>,
    position: Position,
}

impl Udp {
    /// Maps the rings; `None` when nothing is counted.
    pub fn open(descriptors: &Descriptors, counted: bool) -> io::Result<Option<Self>> {
        if !counted || !descriptors.contains_key("udp_flows") {
            return Ok(None);
        }
        let closed = Ring::map(descriptor(descriptors, "udp_closed")?)?;
        let gone = Ring::map(descriptor(descriptors, "udp_gone")?)?;
        let walker = Walker::open(descriptors, "udp_live", WALK)?;
        let flows_max = sys::max_entries(descriptor(descriptors, "udp_flows")?)?;
        Ok(Some(Self { closed, gone, walker, flows_max, told: HashMap::new(), keys: Vec::new(), values: Vec::new() }))
    }

    /// The ring of main flows that ended with their socket.
    pub fn closed(&mut self) -> &mut Ring {
        &mut self.closed
    }

    /// Every socket's main flow that lives.
    pub fn walk(&mut self, descriptors: &Descriptors) -> io::Result<Walk> {
        // A tracer that was killed may have left another value.
        write_number(descriptors, IDLE_SINCE, 0)?;
        self.walker.walk(descriptors)
    }

    /// Every further flow that lives. These end in the caller's thread only, main flows also in the kernel.
    pub fn further(&mut self, descriptors: &Descriptors) -> io::Result<Vec<Row>> {
        let mut rows = Vec::new();
        let mut told = std::mem::take(&mut self.told);
        let outcome = self.scan(descriptors, |key, flow| {
            let mut row = row(key, flow, flow.last_ns);
            if flow.dropped > 0 {
                let most = told.entry(*key).or_default();
                *most = row.recv.max(*most);
                row.recv = *most;
            }
            rows.push(row);
        });
        self.told = told;
        outcome.map(|()| rows)
    }

    /// The flows of sockets that are gone by `now_ns`. They stay in the kernel until [`Udp::take`].
    pub fn endings(&mut self, descriptors: &Descriptors, now_ns: u64) -> io::Result<Endings> {
        let (mut single, mut many) = (Vec::new(), HashMap::new());
        let mut cookies = Vec::new();
        let position = self.gone.read_while(usize::MAX, |record| {
            let Ok((gone, _)) = Gone::read_from_prefix(record) else { return true };
            if gone.at_ns + SETTLE_NS > now_ns {
                return false;
            }
            cookies.push(gone.key.cookie);
            if gone.hashed == 1 {
                single.push((gone.key, gone.at_ns));
            } else {
                many.insert(gone.key.cookie, gone.at_ns);
            }
            true
        });
        let mut endings = Endings { rows: Vec::new(), keys: Vec::new(), cookies, position };
        let mut ended = Vec::new();
        let flows = descriptor(descriptors, "udp_flows")?;
        for (key, at_ns) in single {
            let mut flow = Flow::default();
            if sys::lookup(flows, key.as_bytes(), flow.as_mut_bytes())? {
                ended.push((key, flow, at_ns));
            }
        }
        if !many.is_empty() {
            self.scan(descriptors, |key, flow| {
                if let Some(at_ns) = many.get(&key.cookie) {
                    ended.push((*key, *flow, *at_ns));
                }
            })?;
        }
        for (key, flow, at_ns) in ended {
            endings.rows.push(self.last_row(&key, &flow, at_ns));
            endings.keys.push(key);
        }
        Ok(endings)
    }

    /// Takes ended flows from the kernel, after their rows were made safe.
    pub fn take(&mut self, descriptors: &Descriptors, endings: &Endings) -> io::Result<()> {
        let flows = descriptor(descriptors, "udp_flows")?;
        let mut deleted = 0;
        for key in &endings.keys {
            deleted += u64::from(sys::delete(flows, key.as_bytes())?);
            self.told.remove(key);
        }
        add_number(descriptors, FLOWS_DELETED, deleted)?;
        let expired = descriptor(descriptors, "udp_expired")?;
        for cookie in &endings.cookies {
            sys::delete(expired, cookie.as_bytes())?;
        }
        self.gone.advance(endings.position);
        Ok(())
    }

    /// Takes the flows without a datagram for `idle`, brief further ones for a quarter of it. All their bytes were told as living rows already or are in the
    /// rows returned.
    pub fn expire(&mut self, descriptors: &Descriptors, now_ns: u64, idle: Duration) -> io::Result<Vec<Row>> {
        let idle_ns = idle.as_nanos() as u64;
        write_number(descriptors, IDLE_SINCE, now_ns.saturating_sub(idle_ns))?;
        // Those that it did not come to are ended by the next pass.
        let mains = self.walker.walk_once(descriptors);
        write_number(descriptors, IDLE_SINCE, 0)?;
        let mut rows = mains?.rows;
        for row in &mut rows {
            row.at_ns = now_ns;
            row.flags |= IDLE;
        }
        let mut old = Vec::new();
        self.scan(descriptors, |key, flow| {
            if flow.is_idle(now_ns, idle_ns) {
                old.push(*key);
            }
        })?;
        let flows = descriptor(descriptors, "udp_flows")?;
        let expired = descriptor(descriptors, "udp_expired")?;
        let mains = rows.len();
        for key in old {
            let mut flow = Flow::default();
            if !sys::take(flows, key.as_bytes(), flow.as_mut_bytes())? {
                continue;
            }
            let mut ended = self.last_row(&key, &flow, now_ns);
            self.told.remove(&key);
            ended.flags |= IDLE;
            rows.push(ended);
            let mut count = 0_u64;
            sys::lookup(expired, key.cookie.as_bytes(), count.as_mut_bytes())?;
            sys::update(expired, key.cookie.as_bytes(), (count + 1).as_bytes())?;
        }
        add_number(descriptors, FLOWS_DELETED, (rows.len() - mains) as u64)?;
        Ok(rows)
    }

    /// Gives sockets their owners.
    pub fn backfill(descriptors: &Descriptors) -> io::Result<()> {
        probes::backfill(descriptors, "udp_numbers", BACKFILL_PASS, FILL)
    }

    /// What the kernel side lost, by reason. `udp_peers_capped` is meant: those bytes are counted, their peer is not
    /// known (R9).
    pub fn losses(&self, descriptors: &Descriptors) -> io::Result<[Lost; 4]> {
        let numbers = descriptor(descriptors, "udp_numbers")?;
        let with_bytes = |reason, count, bytes| -> io::Result<Lost> {
            Ok(Lost { reason, count: read_number(numbers, count)?, bytes: read_number(numbers, bytes)? })
        };
        Ok([
            Lost::of(reasons::UDP_PEERS_CAPPED, read_number(numbers, PEERS_CAPPED)?),
            with_bytes(reasons::UDP_FLOWS_FULL, LOST_DATAGRAMS, LOST_BYTES)?,
            Lost::of(reasons::UDP_GONE_RING_FULL, read_number(numbers, GONE_RING_FULL)?),
            with_bytes(reasons::UDP_NO_SOCKET_STORAGE, NO_STORAGE, NO_STORAGE_BYTES)?,
        ])
    }

    /// Numbers that are no losses.
    pub fn gauges(&self, descriptors: &Descriptors) -> io::Result<[(&'static str, u64); 5]> {
        let numbers = descriptor(descriptors, "udp_numbers")?;
        let ended = read_number(numbers, FLOWS_DELETED)? + read_number(numbers, MAINS_ENDED)?;
        let live = read_number(numbers, FLOWS_MADE)?.saturating_sub(ended);
        Ok([
            ("udp_flows", live),
            ("udp_flows_max", self.flows_max as u64),
            // Datagrams that an application was too slow for; not received, and not counted as received.
            ("udp_receive_queue_full", read_number(numbers, QUEUE_FULL)?),
            ("udp_closed_ring_waiting_bytes", self.closed.waiting_bytes()),
            ("udp_gone_ring_waiting_bytes", self.gone.waiting_bytes()),
        ])
    }

    fn last_row(&self, key: &Key, flow: &Flow, at_ns: u64) -> Row {
        let mut row = row(key, flow, at_ns);
        row.recv = row.recv.max(self.told.get(key).copied().unwrap_or_default());
        row
    }

    fn scan(&mut self, descriptors: &Descriptors, mut each: impl FnMut(&Key, &Flow)) -> io::Result<()> {
        let flows = descriptor(descriptors, "udp_flows")?;
        let mut batch = BATCH.max(self.keys.len() / size_of::<Key>());
        let mut position = Some(BatchPosition::default());
        while let Some(from) = position {
            self.keys.resize(batch * size_of::<Key>(), 0);
            self.values.resize(batch * size_of::<Flow>(), 0);
            let (count, next) = match sys::lookup_batch(flows, from, &mut self.keys, &mut self.values) {
                // One bucket holds more than there is room for.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOSPC) && batch < self.flows_max => {
                    batch *= 2;
                    continue;
                }
                outcome => outcome?,
            };
            let keys = self.keys.chunks_exact(size_of::<Key>());
            let values = self.values.chunks_exact(size_of::<Flow>());
            for (key, flow) in keys.zip(values).take(count) {
                if let (Ok(key), Ok(flow)) = (Key::read_from_bytes(key), Flow::read_from_bytes(flow)) {
                    each(&key, &flow);
                }
            }
            position = next;
        }
        Ok(())
    }
}

/// Elements a call: 0.5 MB.
const BATCH: usize = 4_096;

fn row(key: &Key, flow: &Flow, at_ns: u64) -> Row {
    Row {
        origin: flow.origin,
        cookie: key.cookie,
        start_ns: flow.start_ns,
        at_ns,
        sent: flow.sent,
        recv: flow.recv.saturating_sub(flow.dropped),
        local: key.local,
        remote: key.remote,
        local_port: key.local_port,
        remote_port: key.remote_port,
        family: key.family,
        direction: flow.direction,
        certainty: flow.certainty,
        protocol: UDP,
        flags: flow.flags,
        ..Row::default()
    }
}

fn add_number(descriptors: &Descriptors, index: u32, by: u64) -> io::Result<()> {
    let value = read_number(descriptor(descriptors, "udp_numbers")?, index)? + by;
    write_number(descriptors, index, value)
}

fn write_number(descriptors: &Descriptors, index: u32, value: u64) -> io::Result<()> {
    sys::update(descriptor(descriptors, "udp_numbers")?, index.as_bytes(), value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_question_and_its_answer_are_idle_sooner_than_a_stream() {
        const SECOND: u64 = 1_000_000_000;
        let idle = |lived_ns: u64, since_ns: u64| {
            let flow = Flow { start_ns: SECOND, last_ns: SECOND + lived_ns, ..Flow::default() };
            flow.is_idle(SECOND + lived_ns + since_ns, 120 * SECOND)
        };
        assert!(!idle(0, 30 * SECOND) && idle(0, 30 * SECOND + 1));
        assert!(!idle(BRIEF_NS - 1, 30 * SECOND) && idle(BRIEF_NS - 1, 30 * SECOND + 1));
        assert!(!idle(BRIEF_NS, 120 * SECOND) && idle(BRIEF_NS, 120 * SECOND + 1));
    }
}
