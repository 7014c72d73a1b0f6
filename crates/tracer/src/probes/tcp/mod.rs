//! The TCP probe: what it needs from the kernel and how its maps are read. See `probe.bpf.c` for what it traces.

use super::layout::Row;
use super::setup::Setup;
use super::{Attach, Descriptors, Loaded, ProbeError, ProbeReport, ProbeState};
use crate::kernel::ring::Ring;
use crate::kernel::sys;
use crate::source::Walk;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use zerocopy::{FromBytes, IntoBytes};

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

/// The ring takes 55,188 rows, and a walk yields about one a microsecond.
const EMPTY_INTERVAL: Duration = Duration::from_millis(2);

/// A second walk helps where the first was only unlucky; a machine that never gets through would not with a tenth.
const WALKS_MAX: usize = 3;

/// The probe's maps, read.
#[derive(Debug)]
pub struct Tcp {
    closed: Ring,
    live: Ring,
}

impl Tcp {
    /// Maps the rings.
    pub fn open(descriptors: &Descriptors) -> io::Result<Self> {
        Ok(Self {
            closed: Ring::map(descriptor(descriptors, "tcp_closed")?)?,
            live: Ring::map(descriptor(descriptors, "tcp_live")?)?,
        })
    }

    /// The ring of ended connections.
    pub fn closed(&mut self) -> &mut Ring {
        &mut self.closed
    }

    /// Walks every open connection of every network namespace.
    ///
    /// One read of the iterator is one walk in the kernel; meanwhile this thread empties the ring that it fills, so that
    /// it need not pause. A walk that pauses goes on by position, and a socket that closed before that position shifts
    /// the others: one of them may be missed. Then the walk is made anew, and if that does not help, `complete` says so.
    pub fn walk(&mut self, descriptors: &Descriptors) -> io::Result<Walk> {
        let mut walk = self.walk_once(descriptors)?;
        for _ in 1..WALKS_MAX {
            if walk.complete {
                break;
            }
            walk = self.walk_once(descriptors)?;
        }
        Ok(walk)
    }

    fn walk_once(&mut self, descriptors: &Descriptors) -> io::Result<Walk> {
        let mut iterator = sys::open_iterator(descriptor(descriptors, WALK)?)?;
        let mut walk = Walk { rows: Vec::new(), complete: true };
        // What a walk that was cut short by the end of its process left behind.
        let stale = self.live.read(usize::MAX, |_| {});
        self.live.advance(stale);
        loop {
            let before = walk.rows.len();
            let outcome = std::thread::scope(|scope| {
                let (tell, told) = std::sync::mpsc::sync_channel(1);
                let iterator = &mut iterator;
                scope.spawn(move || {
                    let _ = tell.send(iterator.read(&mut [0_u8; 512]));
                });
                loop {
                    match told.recv_timeout(EMPTY_INTERVAL) {
                        Ok(outcome) => break outcome,
                        Err(RecvTimeoutError::Timeout) => self.empty_into(&mut walk.rows),
                        Err(RecvTimeoutError::Disconnected) => break Err(io::Error::other("the walking thread ended")),
                    }
                }
            });
            self.empty_into(&mut walk.rows);
            match outcome {
                Ok(0) => break,
                Ok(_) => {}
                // The ring was full (or a million sockets were skipped in a row): go on behind the last one. A pause
                // that brought nothing would repeat itself for ever.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && walk.rows.len() > before => {
                    walk.complete = false;
                }
                Err(error) => return Err(error),
            }
        }
        if !walk.complete {
            walk.rows.sort_unstable_by_key(|row| (row.cookie, row.generation));
            walk.rows.dedup_by_key(|row| (row.cookie, row.generation));
        }
        Ok(walk)
    }

    fn empty_into(&mut self, rows: &mut Vec<Row>) {
        let end = self.live.read(usize::MAX, |record| {
            if let Ok((row, _)) = Row::read_from_prefix(record) {
                rows.push(row);
            }
        });
        self.live.advance(end);
    }

    /// Gives sockets older than the probe their storage, and sockets that changed hands their owner.
    pub fn backfill(&self, descriptors: &Descriptors) -> io::Result<()> {
        super::backfill(descriptors, "tcp_numbers", BACKFILL_PASS, FILL)
    }

    /// What the kernel side lost, by reason.
    pub fn losses(&self, descriptors: &Descriptors) -> io::Result<[(&'static str, u64); 2]> {
        let numbers = descriptor(descriptors, "tcp_numbers")?;
        Ok([
            ("tcp_closed_ring_full", read_number(numbers, LOST_RING_FULL)?),
            ("tcp_no_socket_storage", read_number(numbers, LOST_NO_STORAGE)?),
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
