//! The parts' logs: files that the parts write to directly, so that neither our stopping (Ctrl-Z) nor our death holds
//! or breaks them. Bounded: a file beyond `LOG_MAX` is moved to `NAME.log.1` and begins anew.

use anyhow::Context;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Two files of this size a part: days of `info`, an hour of `debug`.
const LOG_MAX: u64 = 8 << 20;

/// Enough for an error and its causes.
const LAST_LINES: usize = 3;

/// The last lines are looked for in so much of the file's end.
const TAIL: u64 = 16 << 10;

/// One part's log.
#[derive(Clone, Debug)]
pub struct Log {
    path: PathBuf,
}

impl Log {
    /// The log of `part` in `folder`.
    pub fn new(folder: &Path, part: &str) -> Self {
        Self { path: folder.join(format!("{part}.log")) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file to write to. Appending, so that it can be emptied under its writer.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self) -> anyhow::Result<File> {
        OpenOptions::new()
            .append(true)
            .create(true)
            // The folder lets in its owner and the parts' group alone.
            .mode(0o644)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&self.path)
            .with_context(|| format!("failed to open the log {}", self.path.display()))
    }

    /// How long it is now: a mark for [`Log::last_lines`].
    pub fn length(&self) -> u64 {
        self.path.metadata().map_or(0, |meta| meta.len())
    }

    /// The last lines that were written after `mark` and may say why it ended: without their times, and without those
    /// that say that all is well.
    pub fn last_lines(&self, mark: u64) -> Vec<String> {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            let length = file.metadata()?.len();
            let from = if mark > length { 0 } else { mark }.max(length.saturating_sub(TAIL));
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.take(TAIL).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        // A log that cannot be read has no last lines; the death is told without them.
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().map(without_time).filter(|line| tells(line)).collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(ToString::to_string).collect()
    }

    /// Moves the file away when it is too long. Lines written between copying and emptying are lost: at most some
    /// milliseconds' worth.
    ///
    /// # Errors
    /// When it cannot be copied or emptied.
    pub fn bound(&self) -> std::io::Result<()> {
        if self.length() <= LOG_MAX {
            return Ok(());
        }
        let old = self.path.with_extension("log.1");
        let new = self.path.with_extension("log.new");
        std::fs::copy(&self.path, &new)?;
        OpenOptions::new().write(true).open(&self.path)?.set_len(0)?;
        std::fs::rename(new, old)
    }
}

/// Whether a line may say why a part ended.
fn tells(line: &str) -> bool {
    !line.trim().is_empty() && !["INFO ", "DEBUG ", "TRACE "].iter().any(|level| line.starts_with(level))
}

/// The line without the RFC 3339 time that `tracing` puts before it: whoever reads it sees it now.
fn without_time(line: &str) -> &str {
    match line.split_once(' ') {
        Some((time, rest)) if time.parse::<jiff::Timestamp>().is_ok() => rest.trim_start(),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_last_lines_are_those_of_this_run() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::new(folder.path(), "agent");
        writeln!(log.open().unwrap(), "old").unwrap();
        let mark = log.length();
        assert!(log.last_lines(mark).is_empty());
        write!(log.open().unwrap(), "2026-01-31T10:00:00.1Z  INFO starts\n\nError: no\n\nCaused by: x\nc\n").unwrap();
        assert_eq!(log.last_lines(mark), ["Error: no", "Caused by: x", "c"]);
        assert_eq!(without_time("2026-01-31T10:00:00.1Z  INFO starts"), "INFO starts");
    }

    #[test]
    fn a_long_log_begins_anew_under_its_writer() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::new(folder.path(), "agent");
        let mut writer = log.open().unwrap();
        writer.write_all(&vec![b'x'; LOG_MAX as usize + 1]).unwrap();
        log.bound().unwrap();
        writer.write_all(b"after\n").unwrap();
        assert_eq!(std::fs::read(log.path()).unwrap(), b"after\n");
        assert_eq!(folder.path().join("agent.log.1").metadata().unwrap().len(), LOG_MAX + 1);
    }
}
