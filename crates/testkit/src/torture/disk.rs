//! A small file system that is full for a while, in a mount namespace of the run's own thread: it goes with the process.

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::path::{Path, PathBuf};

/// A data folder's file system: what a server keeps free, and some room.
const SIZE: &str = "size=140m";

/// The file system; gone when dropped.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounts it on `folder`, for this thread and for the processes that it starts.
    ///
    /// # Errors
    /// When it cannot be mounted, which needs root.
    pub fn mount(folder: &Path) -> Result<Self> {
        let failed = || format!("failed to mount a small file system on {}", folder.display());
        unshare(CloneFlags::CLONE_NEWNS).with_context(failed)?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).with_context(failed)?;
        mount(Some("weir"), folder, Some("tmpfs"), MsFlags::empty(), Some(SIZE)).with_context(failed)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Fills it but for so many bytes, or makes room again.
    ///
    /// # Errors
    /// When the file system cannot be asked, or written to.
    pub fn fill(&self, but: Option<u64>) -> Result<()> {
        let filler = self.folder.join("filler");
        let Some(but) = but else {
            return if filler.exists() { Ok(std::fs::remove_file(filler)?) } else { Ok(()) };
        };
        let room = nix::sys::statvfs::statvfs(&self.folder)?;
        let free = room.blocks_available() * room.fragment_size();
        let file = std::fs::File::options().create(true).append(true).open(filler)?;
        let length = file.metadata()?.len() + free.saturating_sub(but);
        match nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, i64::try_from(length)?) {
            // The server took some of it meanwhile: it is as full as it gets.
            Ok(()) | Err(nix::errno::Errno::ENOSPC) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.folder, MntFlags::MNT_DETACH);
    }
}
