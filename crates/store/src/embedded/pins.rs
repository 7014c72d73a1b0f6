//! Which files readers still need: a replaced or forgotten segment's file is removed when the last reader that may have
//! listed it is done. What a crash leaves behind is removed at the next start, as the catalogue does not name it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Readers by when they began.
    readers: BTreeSet<u64>,
    /// Files, with the first reader that can no longer have listed them.
    doomed: Vec<(u64, PathBuf)>,
}

#[derive(Debug, Default)]
pub(super) struct Pins {
    state: Mutex<State>,
}

/// While it lives, no file that is in the catalogue now is removed.
#[derive(Debug)]
pub(super) struct Pin<'a> {
    pins: &'a Pins,
    began: u64,
}

impl Pins {
    /// Begin before listing the catalogue.
    pub(super) fn pin(&self) -> Pin<'_> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let began = state.next;
        state.next += 1;
        state.readers.insert(began);
        Pin { pins: self, began }
    }

    /// Whether no reader can have listed a file that the catalogue does not name any more.
    pub(super) fn have_no_doomed(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).doomed.is_empty()
    }

    /// Removes the files now or when the readers of this moment are done. The catalogue no longer names them.
    pub(super) fn doom(&self, paths: impl IntoIterator<Item = PathBuf>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = state.next;
        state.doomed.extend(paths.into_iter().map(|path| (next, path)));
        state.sweep();
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut state = self.pins.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.readers.remove(&self.began);
        state.sweep();
    }
}

impl State {
    fn sweep(&mut self) {
        let oldest = self.readers.first().copied().unwrap_or(u64::MAX);
        self.doomed.retain(|(next, path)| {
            // A reader that began before the file left the catalogue may have listed it.
            if oldest < *next {
                return true;
            }
            if let Err(error) = std::fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "a segment's file stays until the next start");
            }
            weir_daemon::failpoint::reach("compaction-one-removed");
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stays_until_the_last_reader_that_may_have_listed_it_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "a").unwrap();
        let pins = Pins::default();
        let (first, second) = (pins.pin(), pins.pin());
        pins.doom([path.clone()]);
        let late = pins.pin();
        drop(first);
        assert!(path.exists() && !pins.have_no_doomed());
        drop(second);
        assert!(!path.exists() && pins.have_no_doomed(), "the late reader cannot have listed it");
        drop(late);
    }
}
