//! bpf(2) on raw descriptors: iterators, map elements, and what a program costs.

#![expect(unsafe_code, reason = "libbpf's calls on raw descriptors are foreign functions")]

use libbpf_rs::libbpf_sys;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Opens a fresh walk of an iterator's link.
pub fn open_iterator(link: BorrowedFd<'_>) -> io::Result<File> {
    // SAFETY: takes and returns plain descriptors.
    let fd = checked(unsafe { libbpf_sys::bpf_iter_create(link.as_raw_fd()) })?;
    // SAFETY: the kernel just made it for us and nobody else knows it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Reads one element; `false` when there is none.
pub fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    debug_assert_eq!(sizes(map).ok(), Some((key.len(), value.len())));
    // SAFETY: key and value have the map's sizes, so the kernel reads and writes within them.
    found(unsafe { libbpf_sys::bpf_map_lookup_elem(map.as_raw_fd(), key.as_ptr().cast(), value.as_mut_ptr().cast()) })
}

/// Reads and deletes one element; `false` when there is none.
pub fn take(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    debug_assert_eq!(sizes(map).ok(), Some((key.len(), value.len())));
    // SAFETY: as in `lookup`.
    found(unsafe {
        libbpf_sys::bpf_map_lookup_and_delete_elem(map.as_raw_fd(), key.as_ptr().cast(), value.as_mut_ptr().cast())
    })
}

/// Writes one element.
pub fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    debug_assert_eq!(sizes(map).ok(), Some((key.len(), value.len())));
    // SAFETY: as in `lookup`; the kernel only reads.
    checked(unsafe { libbpf_sys::bpf_map_update_elem(map.as_raw_fd(), key.as_ptr().cast(), value.as_ptr().cast(), 0) })
        .map(drop)
}

/// Deletes one element; `false` when there was none.
pub fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    // SAFETY: the key has the map's size; the kernel only reads.
    found(unsafe { libbpf_sys::bpf_map_delete_elem(map.as_raw_fd(), key.as_ptr().cast()) })
}

/// The first key, or the one after `key`; `None` at the end. A key that is gone begins again.
pub fn next_key(map: BorrowedFd<'_>, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    let from = key.map_or(std::ptr::null(), |key| key.as_ptr().cast());
    // SAFETY: both keys have the map's size; null asks for the first.
    found(unsafe { libbpf_sys::bpf_map_get_next_key(map.as_raw_fd(), from, next.as_mut_ptr().cast()) })
}

/// Where a batched read of a hash map stands: the kernel's bucket number.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchPosition(Option<u32>);

/// Reads the next `keys.len() / key_size` elements of a hash map. Returns how many came, and where to go on; `None` at
/// the end. `ENOSPC` (a bucket is longer than the room) is the caller's to answer with more room.
pub fn lookup_batch(
    map: BorrowedFd<'_>,
    position: BatchPosition,
    keys: &mut [u8],
    values: &mut [u8],
) -> io::Result<(usize, Option<BatchPosition>)> {
    let (key_size, value_size) = sizes(map)?;
    let mut count = (keys.len() / key_size).min(values.len() / value_size) as u32;
    let mut from = position.0.unwrap_or(0);
    let mut to = 0_u32;
    let from_pointer = if position.0.is_some() { (&raw mut from).cast() } else { std::ptr::null_mut() };
    // SAFETY: `keys` and `values` hold `count` elements of the map's sizes; a hash map's position is a u32.
    let outcome = unsafe {
        libbpf_sys::bpf_map_lookup_batch(
            map.as_raw_fd(),
            from_pointer,
            (&raw mut to).cast(),
            keys.as_mut_ptr().cast(),
            values.as_mut_ptr().cast(),
            &raw mut count,
            std::ptr::null(),
        )
    };
    match checked(outcome) {
        Ok(_) => Ok((count as usize, Some(BatchPosition(Some(to))))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((count as usize, None)),
        Err(error) => Err(error),
    }
}

/// The map's key and value sizes in bytes.
pub fn sizes(map: BorrowedFd<'_>) -> io::Result<(usize, usize)> {
    let info: libbpf_sys::bpf_map_info = info(map)?;
    Ok((info.key_size as usize, info.value_size as usize))
}

/// The map's `max_entries`; a ring buffer's size in bytes.
pub fn max_entries(map: BorrowedFd<'_>) -> io::Result<usize> {
    let info: libbpf_sys::bpf_map_info = info(map)?;
    Ok(info.max_entries as usize)
}

/// What a program has cost so far; the kernel counts only while `kernel.bpf_stats_enabled` is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramCost {
    /// The program's id.
    pub id: u32,
    /// How often it ran.
    pub runs: u64,
    /// How long, in nanoseconds.
    pub nanoseconds: u64,
}

/// Has the kernel count what programs cost, as long as the descriptor is open. Needs CAP_SYS_ADMIN.
pub fn enable_stats() -> io::Result<OwnedFd> {
    // SAFETY: takes a number, returns a descriptor.
    let fd = checked(unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) })?;
    // SAFETY: the kernel just made it for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The cost of the program behind a link.
pub fn program_cost(link: BorrowedFd<'_>) -> io::Result<ProgramCost> {
    let link: libbpf_sys::bpf_link_info = info(link)?;
    // SAFETY: takes a number, returns a descriptor.
    let fd = checked(unsafe { libbpf_sys::bpf_prog_get_fd_by_id(link.prog_id) })?;
    // SAFETY: the kernel just made it for us and nobody else knows it.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let program: libbpf_sys::bpf_prog_info = info(std::os::fd::AsFd::as_fd(&program))?;
    Ok(ProgramCost { id: program.id, runs: program.run_cnt, nanoseconds: program.run_time_ns })
}

fn info<T: Copy>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut size = size_of::<T>() as u32;
    // SAFETY: the kernel writes at most `size` bytes; every T used here is a plain C struct that zeroes fill validly.
    checked(unsafe { libbpf_sys::bpf_obj_get_info_by_fd(fd.as_raw_fd(), value.as_mut_ptr().cast(), &raw mut size) })?;
    // SAFETY: zeroed above, then filled by the kernel.
    Ok(unsafe { value.assume_init() })
}

fn checked(outcome: i32) -> io::Result<i32> {
    if outcome < 0 { Err(io::Error::from_raw_os_error(-outcome)) } else { Ok(outcome) }
}

fn found(outcome: i32) -> io::Result<bool> {
    match checked(outcome) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
