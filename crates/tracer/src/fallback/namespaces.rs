//! The network namespaces that this process may enter, and a socket in each.
//!
//! Found through `/proc/PID/ns/net` and through the files in `/run/netns`; a namespace that only a thread or an open
//! descriptor holds is not found. A socket holds its namespace alive, so one that nobody else has is let go at the next
//! look. Entering is done by a thread that does nothing else and ends.

use super::netlink::Diag;
use nix::sched::{CloneFlags, setns};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A node runs at most some hundred pods; three descriptors each.
pub const NAMESPACES_MAX: usize = 1_024;

/// One namespace.
#[derive(Debug)]
pub struct Namespace {
    /// Its inode.
    pub inode: u32,
    /// For the engine's questions.
    pub ask: Mutex<Diag>,
    /// What hears of destroyed sockets, and what it asks with; `None` when this kernel does not tell.
    pub hear: Mutex<Option<(Diag, Diag)>>,
    told: bool,
}

/// Every namespace that is watched.
#[derive(Debug)]
pub struct Namespaces {
    proc: PathBuf,
    named: PathBuf,
    known: HashMap<u32, Arc<Namespace>>,
    /// Those that could not be entered, so that it is not tried again at every look.
    refused: HashSet<u32>,
    /// Whether some process' namespace may not be looked at.
    hidden: bool,
    capped: u64,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// As before.
    Same,
    /// Some came or went.
    Changed,
}

impl Namespaces {
    /// Looks below `proc` and `named`. Nothing is entered yet.
    pub fn new(proc: PathBuf, named: PathBuf) -> Self {
        Self { proc, named, known: HashMap::new(), refused: HashSet::new(), hidden: false, capped: 0 }
    }

    /// Those that are watched.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Namespace>> {
        self.known.values()
    }

    /// How many are watched.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// How many may not be entered.
    pub fn refused(&self) -> usize {
        self.refused.len()
    }

    /// Whether there are processes whose namespace may not be looked at.
    pub fn are_hidden(&self) -> bool {
        self.hidden
    }

    /// Namespaces beyond the bound, since this was last called.
    pub fn take_capped(&mut self) -> u64 {
        std::mem::take(&mut self.capped)
    }

    /// Enters what is new and lets go what is gone. This process' own namespace is always watched.
    ///
    /// # Errors
    /// When its own namespace cannot be watched; another one that cannot is refused and told.
    pub fn look(&mut self) -> io::Result<Looked> {
        let own = File::open("/proc/self/ns/net")?;
        let own_inode = own.metadata()?.ino() as u32;
        let mut found = HashMap::from([(own_inode, PathBuf::from("/proc/self/ns/net"))]);
        self.hidden = false;
        for folder in std::fs::read_dir(&self.proc)?.flatten() {
            let is_process = folder.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
            if is_process {
                self.meet(&folder.path().join("ns/net"), &mut found);
            }
        }
        for file in std::fs::read_dir(&self.named).into_iter().flatten().flatten() {
            self.meet(&file.path(), &mut found);
        }
        let before = self.known.len();
        self.known.retain(|inode, _| found.contains_key(inode));
        self.refused.retain(|inode| found.contains_key(inode));
        let mut changed = self.known.len() != before;
        found.retain(|inode, _| !self.known.contains_key(inode) && !self.refused.contains(inode));
        let room = NAMESPACES_MAX.saturating_sub(self.known.len());
        self.capped += found.len().saturating_sub(room) as u64;
        let mut new: Vec<(u32, PathBuf)> = found.into_iter().collect();
        // Its own first, whatever the bound.
        new.sort_by_key(|(inode, _)| *inode != own_inode);
        for (inode, entered) in enter(new.into_iter().take(room.max(1)).collect(), own_inode)? {
            match entered {
                Ok(namespace) => {
                    changed = true;
                    self.known.insert(inode, Arc::new(namespace));
                }
                Err(error) if inode == own_inode => return Err(error),
                // Gone while it was looked at.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::debug!(inode, %error, "a network namespace may not be entered");
                    self.refused.insert(inode);
                }
            }
        }
        Ok(if changed { Looked::Changed } else { Looked::Same })
    }

    fn meet(&mut self, path: &Path, found: &mut HashMap<u32, PathBuf>) {
        match std::fs::metadata(path) {
            Ok(metadata) => {
                found.entry(metadata.ino() as u32).or_insert_with(|| path.into());
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.hidden = true,
            // It ended.
            Err(_) => {}
        }
    }
}

type Entered = Vec<(u32, io::Result<Namespace>)>;

fn enter(new: Vec<(u32, PathBuf)>, own: u32) -> io::Result<Entered> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let thread = std::thread::Builder::new().name("namespaces".to_owned()).spawn(move || {
        new.into_iter()
            .map(|(inode, path)| {
                let entered = if inode == own { Ok(()) } else { go(inode, &path) };
                (inode, entered.and_then(|()| Namespace::here(inode)))
            })
            .collect()
    })?;
    thread.join().map_err(|_panic| io::Error::other("the thread that enters namespaces panicked"))
}

/// Takes the calling thread into the namespace at `path`.
fn go(inode: u32, path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // The path may be another process' by now.
    if file.metadata()?.ino() as u32 != inode {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(setns(file, CloneFlags::CLONE_NEWNET)?)
}

impl Namespace {
    /// Whether the kernel tells of its destroyed sockets.
    pub fn hears(&self) -> bool {
        self.told
    }

    /// The one that the calling thread is in.
    fn here(inode: u32) -> io::Result<Self> {
        let hear = match Diag::to_hear() {
            Ok(hear) => Some((hear, Diag::to_ask()?)),
            Err(error) => {
                tracing::warn!(inode, %error, "the kernel does not tell of destroyed sockets");
                None
            }
        };
        let told = hear.is_some();
        Ok(Self { inode, ask: Mutex::new(Diag::to_ask()?), hear: Mutex::new(hear), told })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_is_always_watched_and_gone_ones_are_let_go() {
        let proc = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(proc.path().join("7/ns")).unwrap();
        // Not a namespace: it cannot be entered, and that is remembered until it is gone.
        std::fs::write(proc.path().join("7/ns/net"), "").unwrap();
        let mut namespaces = Namespaces::new(proc.path().into(), proc.path().join("none"));
        assert_eq!(namespaces.look().unwrap(), Looked::Changed);
        let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino() as u32;
        assert_eq!(namespaces.all().map(|namespace| namespace.inode).collect::<Vec<_>>(), [own]);
        assert_eq!(namespaces.refused(), 1);
        assert_eq!(namespaces.look().unwrap(), Looked::Same);
        std::fs::remove_dir_all(proc.path().join("7")).unwrap();
        assert_eq!((namespaces.look().unwrap(), namespaces.refused()), (Looked::Same, 0));
    }
}
