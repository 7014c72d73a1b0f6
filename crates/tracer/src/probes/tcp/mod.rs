//! The TCP probe: what it needs from the kernel and how its maps are read. See `probe.bpf.c` for what it traces.

use super::setup::Setup;
use super::walk::Walker;
use super::{Attach, Descriptors, Loaded, ProbeError, ProbeReport, ProbeState};
use crate::kernel::ring::Ring;
use crate::kernel::sys;
use crate::losses::Lost;
use crate::source::Walk;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use weir_wire::losses as reasons;
use zerocopy::IntoBytes;

/// The folder's name.
pub const NAME: &str = "tcp";

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tcp.bpf.o"));
const STATE: &str = "weir_tcp_state";
const WALK: &str = "weir_tcp_walk";
const FILL: &str = "weir_tcp_fill";

/// `enum tcp_number`: the indices of `tcp_numbers`.
const LOST_RING_FULL: u32 = 0;
const LOST_NO_STORAGE: u32 = 1;
const BACKFILL_PASS: u32 = 2;

/// Loads and attaches everything, tracepoint first: a connection that opens during the back-fill is traced.
pub fn load(descriptors: &mut Descriptors, setup: &Setup) -> Result<ProbeReport, ProbeError> {
    let loaded = Loaded::load(NAME, OBJECT, &[STATE, WALK, FILL], setup)?;
    loaded.keep_maps(descriptors)?;
    loaded.attach(STATE, Attach::Trace, descriptors)?;
    loaded.attach(WALK, Attach::MapIterator("tcp_sockets"), descriptors)?;
    loaded.attach(FILL, Attach::Iterator, descriptors)?;
    let links = [STATE, WALK, FILL].map(str::to_owned).to_vec();
    Ok(ProbeReport { name: NAME.to_owned(), state: ProbeState::Running, links })
}

/// The probe's maps, read.
#[derive(Debug)]
pub struct Tcp {
    closed: Ring,
    walker: Walker,
}

impl Tcp {
    /// Maps the rings.
    pub fn open(descriptors: &Descriptors) -> io::Result<Self> {
        Ok(Self {
            closed: Ring::map(descriptor(descriptors, "tcp_closed")?)?,
            walker: Walker::open(descriptors, "tcp_live", WALK)?,
        })
    }

    /// The ring of ended connections.
    pub fn closed(&mut self) -> &mut Ring {
        &mut self.closed
    }

    /// Walks every open connection of every network namespace.
    pub fn walk(&mut self, descriptors: &Descriptors) -> io::Result<Walk> {
        self.walker.walk(descriptors)
    }

    /// Gives sockets older than the probe their storage, and sockets that changed hands their owner.
    pub fn backfill(&self, descriptors: &Descriptors) -> io::Result<()> {
        super::backfill(descriptors, "tcp_numbers", BACKFILL_PASS, FILL)
    }

    /// What the kernel side lost, by reason.
    pub fn losses(&self, descriptors: &Descriptors) -> io::Result<[Lost; 2]> {
        let numbers = descriptor(descriptors, "tcp_numbers")?;
        Ok([
            Lost::of(reasons::TCP_CLOSED_RING_FULL, read_number(numbers, LOST_RING_FULL)?),
            Lost::of(reasons::TCP_NO_SOCKET_STORAGE, read_number(numbers, LOST_NO_STORAGE)?),
        ])
    }
}

/// The descriptor called `name`.
pub(crate) fn descriptor<'a>(descriptors: &'a Descriptors, name: &str) -> io::Result<BorrowedFd<'a>> {
    descriptors.get(name).map(AsFd::as_fd).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("no descriptor of {name} among those taken over"))
    })
}

/// One element of an array of u64.
pub(crate) fn read_number(map: BorrowedFd<'_>, index: u32) -> io::Result<u64> {
    let mut value = 0_u64;
    sys::lookup(map, index.as_bytes(), value.as_mut_bytes())?;
    Ok(value)
}
