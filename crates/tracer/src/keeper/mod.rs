//! The keeper: a tiny process that holds the kernel's maps and programs while the tracer is dead, so that a tracer that
//! is killed at any time loses nothing. No pins, no mounts: descriptors only, so nothing can be left behind.
//!
//! ```text
//! tracer ──hold(manifest, descriptors)──▶ keeper     at start, and after a takeover
//! tracer ◀─────────── EOF ──────────────  keeper     the keeper died: the tracer starts another
//! tracer ─────────── EOF ───────────────▶ keeper     the tracer died: the keeper waits its grace, then exits
//! next tracer ──take──▶ keeper ──manifest, descriptors──▶ next tracer
//! tracer ──quit──▶ keeper                            a clean stop: the programs are gone
//! ```
//! Both sides check the other's user. [`custody`] is the tracer's side, [`process`] the keeper's. Only if both die is a
//! run over, and the next one says so by its run id.

pub mod custody;
pub mod process;

use crate::kernel::rights;
use crate::probes::ProbeReport;
use crate::probes::setup::Setup;
use nix::sys::socket::{getsockopt, sockopt};
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// How the keeper's process is called. It must not look like the tracer: who kills that by name must not hit this.
pub const PROCESS_NAME: &str = "weir-keeper";

/// What the next tracer must know beside the descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the maps' layout and the programs ([`crate::probes::ABI`]).
    pub abi: String,
    /// The run.
    pub run_id: u64,
    /// What the probes were loaded with; a tracer that wants it otherwise begins another run.
    pub setup: Setup,
    /// How often a tracer took it over.
    pub takeovers: u64,
    /// How the probes do.
    pub probes: Vec<ProbeReport>,
    /// What each descriptor is, in order.
    pub names: Vec<String>,
}

/// A message's kind, its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Hold = b'H' as isize,
    Take = b'T' as isize,
    Quit = b'Q' as isize,
    Held = b'M' as isize,
    Empty = b'E' as isize,
    Done = b'D' as isize,
}

const KINDS: [Kind; 6] = [Kind::Hold, Kind::Take, Kind::Quit, Kind::Held, Kind::Empty, Kind::Done];
/// A manifest has about 2 kB.
const PAYLOAD_MAX: usize = 1 << 20;
/// Both sides answer at once; a side that does not is broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

fn send(stream: &UnixStream, kind: Kind, payload: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut bytes = vec![kind as u8];
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(payload);
    rights::send(stream, &bytes, descriptors)
}

fn receive(stream: &UnixStream) -> io::Result<(Kind, Vec<u8>, Vec<OwnedFd>)> {
    let mut header = [0; 5];
    let descriptors = rights::receive(stream, &mut header)?;
    let [kind, length @ ..] = header;
    let length = u32::from_le_bytes(length) as usize;
    let kind = KINDS.into_iter().find(|known| *known as u8 == kind);
    let (Some(kind), true) = (kind, length <= PAYLOAD_MAX) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a message between tracer and keeper"));
    };
    let mut payload = vec![0; length];
    let mut rest = stream;
    rest.read_exact(&mut payload)?;
    Ok((kind, payload, descriptors))
}

/// Refuses a peer that runs as somebody else.
fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let peer = getsockopt(stream, sockopt::PeerCredentials)?;
    if peer.uid() == nix::unistd::Uid::effective().as_raw() {
        return Ok(());
    }
    let text = format!("user {} speaks on the keeper's socket", peer.uid());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

const SOCKET: &str = "keeper.sock";

/// Through the folder's descriptor, because a socket's path has at most 107 bytes.
fn with_short_path<T>(folder: &Path, each: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let folder = std::fs::File::open(folder)?;
    each(Path::new(&format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd())))
}

fn connect(folder: &Path) -> io::Result<UnixStream> {
    let stream = with_short_path(folder, |path| UnixStream::connect(path))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    check_peer(&stream)?;
    Ok(stream)
}

fn listen(folder: &Path) -> io::Result<UnixListener> {
    with_short_path(folder, |path| {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(listener)
    })
}
