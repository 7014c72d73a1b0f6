//! What a reply of system-probe means: totals, deltas, or what came since its restart.
//!
//! system-probe tells each client what changed since that client's last fetch and forgets it with the telling. A fetch
//! that did not become durable here is therefore lost, unless the next one is the first of another client: that one
//! tells what system-probe has counted at all. So an agent is a new client, a *session*, whenever it is not certain that
//! everything up to the last fetch is durable, and well before system-probe would forget it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Longer without a fetch, and the client may be forgotten (system-probe's own bound is two minutes).
pub const SESSION_MAX_PAUSE: Duration = Duration::from_secs(100);

/// How far a file's time may lie behind the clock: the kernel stamps it with one that ticks (`CONFIG_HZ`, 10 ms at most).
/// It makes no restart of what is none: the old socket was in place until the last durable poll was over.
const STAMP_NS: i64 = 20_000_000;

/// The upper half of a run of this kind: tells it from the runs of other sources.
const MARK: u64 = 0x6464_5350;

/// One life of a system-probe, known by its listening socket: a new one binds a new socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Never 0; the same as long as the socket is.
    pub id: u64,
    /// When the socket was made, wall time in nanoseconds: all that this life has counted came after.
    pub began: i64,
}

impl Run {
    /// The life that listens at `path`.
    ///
    /// # Errors
    /// When nothing is there.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let socket = std::fs::metadata(path)?;
        // Not ctime: system-probe changes owner and mode after it listens.
        let began = socket.mtime().saturating_mul(1_000_000_000).saturating_add(socket.mtime_nsec());
        Ok(Self::from_parts(socket.dev(), socket.ino(), began))
    }

    fn from_parts(device: u64, inode: u64, began: i64) -> Self {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&device.to_le_bytes());
        bytes[8..16].copy_from_slice(&inode.to_le_bytes());
        bytes[16..].copy_from_slice(&began.to_le_bytes());
        Self { id: MARK << 32 | u64::from(crc32c::crc32c(&bytes)), began }
    }
}

/// What the numbers of a reply are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// What came since the last fetch, which is durable.
    Deltas,
    /// What a system-probe that began after the last durable poll has counted at all: all of it is new.
    Restarted,
    /// What system-probe has counted at all: a baseline.
    Baseline,
}

/// The client that the agent is to system-probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub client_id: String,
    /// The life of system-probe that knows it.
    pub run: u64,
    /// Its last fetch, `CLOCK_MONOTONIC` nanoseconds.
    pub fetched: u64,
}

/// The last poll that is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// Its source's run, 0 unknown.
    pub run: u64,
    /// When it was, wall time in nanoseconds, 0 never in this boot.
    pub unix: i64,
}

/// Whether the session may go on at `now`, and what its next reply means.
pub fn meaning(session: Option<&Session>, run: Run, durable: Durable, now: u64) -> Meaning {
    let goes_on = session.is_some_and(|session| {
        session.run == run.id && now.saturating_sub(session.fetched) < SESSION_MAX_PAUSE.as_nanos() as u64
    });
    if goes_on {
        return Meaning::Deltas;
    }
    let was_system_probe = durable.run >> 32 == MARK;
    if was_system_probe
        && durable.run != run.id
        && durable.unix != 0
        && run.began.saturating_add(STAMP_NS) > durable.unix
    {
        return Meaning::Restarted;
    }
    Meaning::Baseline
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn session(run: Run, fetched: u64) -> Session {
        Session { client_id: "a".into(), run: run.id, fetched }
    }

    #[test]
    fn a_session_goes_on_while_it_is_known_for_sure() {
        let run = Run::from_parts(1, 2, 50);
        let durable = Durable { run: run.id, unix: 60 };
        let of = |session: Option<&Session>, now| meaning(session, run, durable, now);
        assert_eq!(of(None, 0), Meaning::Baseline);
        assert_eq!(of(Some(&session(run, 10 * SECOND)), 109 * SECOND), Meaning::Deltas);
        assert_eq!(of(Some(&session(run, 10 * SECOND)), 110 * SECOND), Meaning::Baseline, "it may be forgotten");
    }

    #[test]
    fn only_a_system_probe_that_began_after_the_last_durable_poll_is_a_restart() {
        let (old, new) = (Run::from_parts(1, 2, 50), Run::from_parts(1, 3, 100 - STAMP_NS));
        let after = |durable| meaning(Some(&session(old, 0)), new, durable, SECOND);
        assert_eq!(after(Durable { run: old.id, unix: 60 }), Meaning::Restarted);
        assert_eq!(after(Durable { run: old.id, unix: 101 }), Meaning::Baseline, "it ran before: another socket");
        assert_eq!(after(Durable { run: 7, unix: 60 }), Meaning::Baseline, "another kind of source");
        assert_eq!(after(Durable::default()), Meaning::Baseline, "the first poll ever");
    }

    #[test]
    fn a_socket_bound_anew_is_another_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let first = Run::of(&path).unwrap();
        assert_eq!(Run::of(&path).unwrap(), first);
        // Another one beside it, so that the inode is surely another.
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        let _second = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_ne!(Run::of(&path).unwrap().id, first.id);
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        assert!(Run::of(&path).is_err());
    }
}
