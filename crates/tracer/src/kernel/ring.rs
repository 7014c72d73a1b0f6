//! A ring buffer's consumer. libbpf's own advances record by record; this one reads a whole batch, lets the caller make
//! it safe, and only then advances, so that a process killed in between finds the batch again.
//!
//! The layout is the kernel's contract with user space (`kernel/bpf/ringbuf.c`): a page with the consumer's position, a
//! page with the producer's, then the data. The data could be mapped twice in a row, so that a record never wraps; here
//! it is mapped once, because every mapped page counts as this process' memory, and the one record in a round that
//! wraps is copied.

#![expect(unsafe_code, reason = "the ring is memory shared with the kernel")]

use super::sys;
use nix::libc;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
const HEADER: usize = 8;

/// One ring, mapped. Only one of them may consume a ring.
#[derive(Debug)]
pub struct Ring {
    consumer: Mapping,
    producer: Mapping,
    page: usize,
    size: usize,
}

/// How far a read came; hand it to [`Ring::advance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position(u64);

#[derive(Debug)]
struct Mapping {
    start: NonNull<libc::c_void>,
    length: usize,
}

// SAFETY: the mapping is owned, and what is shared with the kernel is only touched through atomics.
unsafe impl Send for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what mmap returned; nothing borrows it any more.
        unsafe { libc::munmap(self.start.as_ptr(), self.length) };
    }
}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, protection: i32, offset: usize, length: usize) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Self { start, length }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Ring {
    /// Maps the ring behind a map's descriptor.
    pub fn map(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let size = sys::max_entries(fd)?;
        // SAFETY: sysconf has no memory of ours in it.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        Ok(Self {
            consumer: Mapping::new(fd, libc::PROT_READ | libc::PROT_WRITE, 0, page)?,
            producer: Mapping::new(fd, libc::PROT_READ, page, page + size)?,
            page,
            size,
        })
    }

    /// Hands the finished records to `each`, oldest first, at most about `limit_bytes` of them. Nothing is consumed
    /// before [`Ring::advance`].
    pub fn read(&self, limit_bytes: usize, mut each: impl FnMut(&[u8])) -> Position {
        self.read_while(limit_bytes, |record| {
            each(record);
            true
        })
    }

    /// As [`Ring::read`], but stops before the record that `each` answers `false` to.
    pub fn read_while(&self, limit_bytes: usize, mut each: impl FnMut(&[u8]) -> bool) -> Position {
        let begin = self.consumer_position().load(Ordering::Acquire);
        let end = self.producer_position().load(Ordering::Acquire);
        let mut at = begin;
        let mut wrapped = Vec::new();
        while at < end && (at - begin) < limit_bytes as u64 {
            let offset = at as usize & (self.size - 1);
            // SAFETY: `offset` lies within the mapped data, and the kernel aligns records to 8 bytes.
            let header = unsafe { AtomicU32::from_ptr(self.data(offset).cast_mut().cast()) };
            let header = header.load(Ordering::Acquire);
            if header & BUSY != 0 {
                break;
            }
            let length = (header & !DISCARDED) as usize;
            if length > self.size - HEADER {
                // Not a record that the kernel can have written: leave it to whoever looks at the ring's fullness.
                break;
            }
            if header & DISCARDED == 0 {
                // The data is a multiple of 8 bytes, so the header never wraps, only what follows it.
                let start = (offset + HEADER) & (self.size - 1);
                let until_end = length.min(self.size - start);
                // SAFETY: the record is finished (not busy) and `until_end` of it lie before the data's end; the kernel
                // does not write it again before the consumer's position has passed it.
                let record = unsafe { std::slice::from_raw_parts(self.data(start), until_end) };
                let goes_on = if until_end == length {
                    each(record)
                } else {
                    wrapped.clear();
                    wrapped.extend_from_slice(record);
                    // SAFETY: as above; the rest lies at the data's beginning.
                    wrapped.extend_from_slice(unsafe { std::slice::from_raw_parts(self.data(0), length - until_end) });
                    each(&wrapped)
                };
                if !goes_on {
                    break;
                }
            }
            at += (HEADER + length).next_multiple_of(8) as u64;
        }
        Position(at)
    }

    /// Gives everything before `position` back to the kernel.
    pub fn advance(&mut self, position: Position) {
        self.consumer_position().store(position.0, Ordering::Release);
    }

    /// Bytes that wait in the ring.
    pub fn waiting_bytes(&self) -> u64 {
        let consumed = self.consumer_position().load(Ordering::Acquire);
        self.producer_position().load(Ordering::Acquire).saturating_sub(consumed)
    }

    /// Where the data at `offset` is mapped; `offset` must be below the ring's size.
    fn data(&self, offset: usize) -> *const u8 {
        // SAFETY: the producer's page and the data were mapped in a row.
        unsafe { self.producer.start.as_ptr().byte_add(self.page + offset).cast::<u8>().cast_const() }
    }

    fn consumer_position(&self) -> &AtomicU64 {
        // SAFETY: the mapping's first word, page aligned, lives as long as `self`.
        unsafe { AtomicU64::from_ptr(self.consumer.start.as_ptr().cast()) }
    }

    fn producer_position(&self) -> &AtomicU64 {
        // SAFETY: as above. The kernel writes it, we only load; loads of an aligned word need no write access.
        unsafe { AtomicU64::from_ptr(self.producer.start.as_ptr().cast()) }
    }
}
