//! Room on the data folder's file system. What grows stops before the file system is full: the log refuses, so that
//! agents keep their batches in their spools, and compaction begins nothing. What is acknowledged is still merged and
//! written into segments, behind which the log is cut.

use crate::error::StoreError;
use std::path::Path;

/// What is kept for that: SQLite's WAL grows to 64 MB, the segments of what is acknowledged need some MB.
pub const RESERVE_BYTES: u64 = 96 << 20;

/// Bytes that an ordinary user can still write.
pub(super) fn free_bytes(folder: &Path) -> Result<u64, StoreError> {
    let room =
        nix::sys::statvfs::statvfs(folder).map_err(|errno| StoreError::io("look for room in", folder)(errno.into()))?;
    Ok(room.blocks_available().saturating_mul(room.fragment_size()))
}

/// Fails where less than the reserve would be left after `wanted` more bytes.
pub(super) fn check(folder: &Path, wanted: u64) -> Result<(), StoreError> {
    let (free_bytes, wanted_bytes) = (free_bytes(folder)?, RESERVE_BYTES.saturating_add(wanted));
    if free_bytes < wanted_bytes {
        return Err(StoreError::Full { path: folder.to_path_buf(), free_bytes, wanted_bytes });
    }
    Ok(())
}
