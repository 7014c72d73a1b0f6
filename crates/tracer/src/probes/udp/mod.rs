//! The UDP probe: what it needs from the kernel and how its maps are read and emptied. See `probe.bpf.c` for what it
//! traces.

use super::layout::{IDLE, Origin, Row, UDP};
use super::setup::Setup;
use super::tcp::{descriptor, read_number};
use super::{Attach, Descriptors, Loaded, ProbeError, ProbeReport, ProbeState};
use crate::kernel::ring::{Position, Ring};
use crate::kernel::sys::{self, BatchPosition};
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The folder's name.
pub const NAME: &str = "udp";

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/udp.bpf.o"));
const OUT: &str = "weir_udp_out";
const IN: &str = "weir_udp_in";
const OPEN: &str = "weir_udp_open";
const GONE: &str = "weir_udp_gone";
const FULL: &str = "weir_udp_full";
const FILL: &str = "weir_udp_fill";
/// Without these there is nothing to count.
const NEEDED: [&str; 3] = [OUT, IN, FILL];
/// What is missing without each of the others.
const OPTIONAL: [(&str, &str); 3] = [
    (OPEN, "owners of new sockets come with the next back-fill"),
    (GONE, "flows of closed sockets end by expiry"),
    (FULL, "datagrams that a full receive queue dropped count as received"),
];

/// `enum udp_number`: the indices of `udp_numbers`.
const PEERS_CAPPED: u32 = 0;
const LOST_DATAGRAMS: u32 = 1;
const LOST_BYTES: u32 = 2;
const GONE_RING_FULL: u32 = 3;
const NO_STORAGE: u32 = 4;
const QUEUE_FULL: u32 = 5;
const FLOWS_MADE: u32 = 6;
const FLOWS_DELETED: u32 = 7;
const BACKFILL_PASS: u32 = 8;

/// A socket's end is dealt with once it is this old: a program that found the flow just before runs microseconds, and
/// must not add to memory that belongs to another flow by then.
const SETTLE_NS: u64 = 1_000_000;

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
    flows: u64,
}

const _: () = assert!(size_of::<Key>() == 48 && size_of::<Flow>() == 80 && size_of::<Gone>() == 64);

/// Loads what this kernel takes and attaches it to the scope's cgroup, else to the root of cgroup v2.
pub fn load(descriptors: &mut Descriptors, setup: &Setup, cgroup_root: Option<&Path>) -> ProbeReport {
    let report = |state| ProbeReport { name: NAME.to_owned(), state, links: Vec::new() };
    let Some(root) = setup.scope.as_ref().map(|scope| scope.folder.as_path()).or(cgroup_root) else {
        return report(ProbeState::Unsupported(
            "no cgroup v2 is mounted; mount it (mount -t cgroup2 none /sys/fs/cgroup/unified) and start again"
                .to_owned(),
        ));
    };
    let cgroup = match std::fs::File::open(root) {
        Ok(cgroup) => cgroup,
        Err(error) => {
            return report(ProbeState::Unsupported(format!(
                "the cgroup {} cannot be opened ({error}); in a container mount the host's there",
                root.display()
            )));
        }
    };
    let mut programs = NEEDED.to_vec();
    programs.extend(OPTIONAL.map(|(name, _)| name));
    let mut without = Vec::new();
    let mut outcome = Loaded::load(NAME, OBJECT, &programs, setup);
    if outcome.is_err() {
        // Something is not welcome on this kernel: which?
        programs = NEEDED.to_vec();
        for (name, consequence) in OPTIONAL {
            match Loaded::load(NAME, OBJECT, &[name], setup) {
                Ok(_) => programs.push(name),
                Err(error) => without.push(format!("{name} ({consequence}): {error}")),
            }
        }
        outcome = Loaded::load(NAME, OBJECT, &programs, setup);
    }
    let loaded = match outcome {
        Ok(loaded) => loaded,
        Err(error) => return report(ProbeState::Unsupported(error.to_string())),
    };
    let mut own = Descriptors::new();
    let mut attach = || -> Result<(), ProbeError> {
        loaded.keep_maps(&mut own)?;
        // Owners first, so that the first datagrams of old sockets find them.
        loaded.attach(FILL, Attach::Iterator, &mut own)?;
        let first = Udp::backfill(&own);
        if let Err(error) = first {
            tracing::warn!(%error, "failed to look up the owners of UDP sockets");
        }
        for name in programs.iter().filter(|name| **name != FILL) {
            let how = if *name == FULL { Attach::Trace } else { Attach::Cgroup(cgroup.as_fd()) };
            match loaded.attach(name, how, &mut own) {
                Err(error) if !NEEDED.contains(name) => without.push(error.to_string()),
                outcome => outcome?,
            }
        }
        Ok(())
    };
    if let Err(error) = attach() {
        return report(ProbeState::Failed(error.to_string()));
    }
    let links = programs.iter().filter(|name| own.contains_key(**name)).map(|name| (*name).to_owned()).collect();
    descriptors.append(&mut own);
    let state = if without.is_empty() { ProbeState::Running } else { ProbeState::Partly(without.join("; ")) };
    ProbeReport { name: NAME.to_owned(), state, links }
}

/// The probe's maps, read.
#[derive(Debug)]
pub struct Udp {
    gone: Ring,
    flows_max: usize,
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
    /// Maps the ring; `None` when the probe does not run.
    pub fn open(descriptors: &Descriptors) -> io::Result<Option<Self>> {
        if !descriptors.contains_key("udp_flows") {
            return Ok(None);
        }
        let gone = Ring::map(descriptor(descriptors, "udp_gone")?)?;
        let flows_max = sys::max_entries(descriptor(descriptors, "udp_flows")?)?;
        Ok(Some(Self { gone, flows_max, keys: Vec::new(), values: Vec::new() }))
    }

    /// Every flow that lives.
    pub fn walk(&mut self, descriptors: &Descriptors) -> io::Result<Vec<Row>> {
        let mut rows = Vec::new();
        self.scan(descriptors, |key, flow| rows.push(row(key, flow, flow.last_ns)))?;
        Ok(rows)
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
            if gone.flows == 1 {
                single.push((gone.key, gone.at_ns));
            } else {
                many.insert(gone.key.cookie, gone.at_ns);
            }
            true
        });
        let mut endings = Endings { rows: Vec::new(), keys: Vec::new(), cookies, position };
        let flows = descriptor(descriptors, "udp_flows")?;
        for (key, at_ns) in single {
            let mut flow = Flow::default();
            if sys::lookup(flows, key.as_bytes(), flow.as_mut_bytes())? {
                endings.rows.push(row(&key, &flow, at_ns));
                endings.keys.push(key);
            }
        }
        if !many.is_empty() {
            self.scan(descriptors, |key, flow| {
                if let Some(at_ns) = many.get(&key.cookie) {
                    endings.rows.push(row(key, flow, *at_ns));
                    endings.keys.push(*key);
                }
            })?;
        }
        Ok(endings)
    }

    /// Takes ended flows from the kernel, after their rows were made safe.
    pub fn take(&mut self, descriptors: &Descriptors, endings: &Endings) -> io::Result<()> {
        let flows = descriptor(descriptors, "udp_flows")?;
        let mut deleted = 0;
        for key in &endings.keys {
            deleted += u64::from(sys::delete(flows, key.as_bytes())?);
        }
        add_number(descriptors, FLOWS_DELETED, deleted)?;
        let expired = descriptor(descriptors, "udp_expired")?;
        for cookie in &endings.cookies {
            sys::delete(expired, cookie.as_bytes())?;
        }
        self.gone.advance(endings.position);
        Ok(())
    }

    /// Takes the flows without a datagram for `idle`. All their bytes were told as living rows already or are in the
    /// rows returned.
    pub fn expire(&mut self, descriptors: &Descriptors, now_ns: u64, idle: Duration) -> io::Result<Vec<Row>> {
        let idle_ns = idle.as_nanos() as u64;
        let mut old = Vec::new();
        self.scan(descriptors, |key, flow| {
            if flow.last_ns + idle_ns < now_ns {
                old.push(*key);
            }
        })?;
        let flows = descriptor(descriptors, "udp_flows")?;
        let expired = descriptor(descriptors, "udp_expired")?;
        let mut rows = Vec::new();
        for key in old {
            let mut flow = Flow::default();
            if !sys::take(flows, key.as_bytes(), flow.as_mut_bytes())? {
                continue;
            }
            let mut ended = row(&key, &flow, now_ns);
            ended.flags |= IDLE;
            rows.push(ended);
            let mut count = 0_u64;
            sys::lookup(expired, key.cookie.as_bytes(), count.as_mut_bytes())?;
            sys::update(expired, key.cookie.as_bytes(), (count + 1).as_bytes())?;
        }
        add_number(descriptors, FLOWS_DELETED, rows.len() as u64)?;
        Ok(rows)
    }

    /// Gives sockets their owners.
    pub fn backfill(descriptors: &Descriptors) -> io::Result<()> {
        super::backfill(descriptors, "udp_numbers", BACKFILL_PASS, FILL)
    }

    /// What the kernel side lost, by reason. `udp_peers_capped` is meant: those bytes are counted, their peer is not
    /// known (R9).
    pub fn losses(&self, descriptors: &Descriptors) -> io::Result<[(&'static str, u64); 5]> {
        let numbers = descriptor(descriptors, "udp_numbers")?;
        Ok([
            ("udp_peers_capped", read_number(numbers, PEERS_CAPPED)?),
            ("udp_flows_full_datagrams", read_number(numbers, LOST_DATAGRAMS)?),
            ("udp_flows_full_bytes", read_number(numbers, LOST_BYTES)?),
            ("udp_gone_ring_full", read_number(numbers, GONE_RING_FULL)?),
            ("udp_no_socket_storage", read_number(numbers, NO_STORAGE)?),
        ])
    }

    /// Numbers that are no losses.
    pub fn gauges(&self, descriptors: &Descriptors) -> io::Result<[(&'static str, u64); 4]> {
        let numbers = descriptor(descriptors, "udp_numbers")?;
        let live = read_number(numbers, FLOWS_MADE)?.saturating_sub(read_number(numbers, FLOWS_DELETED)?);
        Ok([
            ("udp_flows", live),
            ("udp_flows_max", self.flows_max as u64),
            // Datagrams that an application was too slow for; not received, and not counted as received.
            ("udp_receive_queue_full", read_number(numbers, QUEUE_FULL)?),
            ("udp_gone_ring_waiting_bytes", self.gone.waiting_bytes()),
        ])
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
        recv: flow.recv,
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
    let numbers = descriptor(descriptors, "udp_numbers")?;
    let value = read_number(numbers, index)? + by;
    sys::update(numbers, index.as_bytes(), value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::setup::Sizes;
    use super::*;

    #[test]
    fn without_cgroup_version_2_the_probe_says_how_to_get_it() {
        let setup = Setup { udp: true, scope: None, sizes: Sizes::default() };
        let mut descriptors = Descriptors::new();
        let none = load(&mut descriptors, &setup, None);
        let ProbeState::Unsupported(reason) = &none.state else { panic!("{none:?}") };
        assert!(reason.contains("mount -t cgroup2"), "{reason}");
        let closed = load(&mut descriptors, &setup, Some(Path::new("/nonexistent/cgroup")));
        let ProbeState::Unsupported(reason) = &closed.state else { panic!("{closed:?}") };
        assert!(reason.contains("/nonexistent/cgroup"), "{reason}");
        assert!(descriptors.is_empty());
    }
}
