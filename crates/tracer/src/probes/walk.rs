//! Walks over the connections that live: an iterator in the kernel puts a row for each into a ring, which is emptied here
//! meanwhile. Shared by the probes.

use super::Descriptors;
use super::layout::Row;
use super::tcp::descriptor;
use crate::kernel::ring::Ring;
use crate::kernel::sys;
use crate::source::Walk;
use std::io::{self, Read};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use zerocopy::FromBytes;

/// A walk yields about one row a microsecond, and the smaller of the rings takes 6,200.
const EMPTY_INTERVAL: Duration = Duration::from_millis(2);

/// A second walk helps where the first was only unlucky; a machine that never gets through would not with a tenth.
const WALKS_MAX: usize = 3;

/// An iterator's link, and the ring that it fills.
#[derive(Debug)]
pub(crate) struct Walker {
    live: Ring,
    link: &'static str,
}

impl Walker {
    /// Maps the ring.
    pub(crate) fn open(descriptors: &Descriptors, ring: &str, link: &'static str) -> io::Result<Self> {
        Ok(Self { live: Ring::map(descriptor(descriptors, ring)?)?, link })
    }

    /// Walks every open connection of every network namespace.
    ///
    /// One read of the iterator is one walk in the kernel; meanwhile this thread empties the ring that it fills, so that
    /// it need not pause. A walk that pauses goes on by position, and a socket that closed before that position shifts
    /// the others: one of them may be missed. Then the walk is made anew, and if that does not help, `complete` says so.
    pub(crate) fn walk(&mut self, descriptors: &Descriptors) -> io::Result<Walk> {
        let mut walk = self.walk_once(descriptors)?;
        for _ in 1..WALKS_MAX {
            if walk.complete {
                break;
            }
            // 200,000 rows are 30 MB: not twice.
            walk.rows = Vec::new();
            walk = self.walk_once(descriptors)?;
        }
        Ok(walk)
    }

    /// One walk, whether it had to pause or not: for walks that change what they meet.
    pub(crate) fn walk_once(&mut self, descriptors: &Descriptors) -> io::Result<Walk> {
        let mut iterator = sys::open_iterator(descriptor(descriptors, self.link)?)?;
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
}
