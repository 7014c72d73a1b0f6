//! The tracer's side of the keeper: asks it for what a dead tracer left, gives it what this one has, and starts another
//! one when it dies.

use super::{ANSWER_TIMEOUT, Kind, Manifest, PROCESS_NAME, SOCKET, connect, listen, receive, send};
use crate::probes::Descriptors;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Why the keeper could not be used.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step} the keeper ({PROCESS_NAME}) in {folder}: {source}")]
pub struct KeeperError {
    step: &'static str,
    folder: PathBuf,
    source: io::Error,
}

/// A keeper that could not be started is tried again after this long.
const RETRY: Duration = Duration::from_secs(1);

/// What a dead tracer left: its manifest and descriptors, and the line to their keeper.
#[derive(Debug)]
pub struct Estate {
    /// What it is.
    pub manifest: Manifest,
    /// The maps and links.
    pub descriptors: Descriptors,
    /// The line to the keeper, for [`Custody::begin`].
    pub line: UnixStream,
}

/// Asks the keeper in `folder`, if there is one. An estate that `fits` not is let go.
pub fn claim(folder: &Path, fits: impl FnOnce(&Manifest) -> bool) -> Result<Option<Estate>, KeeperError> {
    let failed = |step| move |source| KeeperError { step, folder: folder.into(), source };
    let line = match connect(folder) {
        Ok(line) => line,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(failed("reach")(error)),
    };
    line.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(failed("reach"))?;
    send(&line, Kind::Take, &[], &[]).map_err(failed("ask"))?;
    let (kind, payload, descriptors) = receive(&line).map_err(failed("ask"))?;
    let manifest = serde_json::from_slice::<Manifest>(&payload).ok();
    let estate = match (kind, manifest) {
        (Kind::Held, Some(manifest)) if manifest.names.len() == descriptors.len() && fits(&manifest) => manifest,
        _ => {
            quit(&line).map_err(failed("dismiss"))?;
            return Ok(None);
        }
    };
    let descriptors = estate.names.iter().cloned().zip(descriptors).collect();
    Ok(Some(Estate { manifest: estate, descriptors, line }))
}

/// Waits until the keeper is gone, so that its programs are too.
fn quit(line: &UnixStream) -> io::Result<()> {
    line.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    send(line, Kind::Quit, &[], &[])?;
    match receive(line) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        Err(error) => return Err(error),
    }
    match receive(line) {
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// This tracer's descriptors in the keeper's custody, as long as both live.
#[derive(Debug)]
pub struct Custody {
    shared: Arc<Shared>,
    stop: SyncSender<()>,
    watch: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    grace: Duration,
    manifest: Manifest,
    descriptors: Arc<Descriptors>,
    line: Mutex<Option<UnixStream>>,
    restarts: Arc<AtomicU64>,
}

impl Custody {
    /// Gives everything to the keeper on `line`, or to a new one.
    pub fn begin(
        folder: &Path,
        grace: Duration,
        mut manifest: Manifest,
        descriptors: Arc<Descriptors>,
        line: Option<UnixStream>,
    ) -> Result<Self, KeeperError> {
        manifest.names = descriptors.keys().cloned().collect();
        let restarts = Arc::new(AtomicU64::new(0));
        let shared = Shared { folder: folder.into(), grace, manifest, descriptors, line: Mutex::new(None), restarts };
        let failed = |source| KeeperError { step: "start", folder: folder.into(), source };
        let (line, child) = match line {
            Some(line) => {
                shared.hand_over(&line).map_err(failed)?;
                (line, None)
            }
            None => shared.start_keeper().map(|(line, child)| (line, Some(child))).map_err(failed)?,
        };
        shared.keep_line(Some(line.try_clone().map_err(failed)?));
        let shared = Arc::new(shared);
        let (stop, stopped) = sync_channel(1);
        let watched = Arc::clone(&shared);
        let watch = std::thread::Builder::new()
            .name("keeper-watch".to_owned())
            .spawn(move || watched.watch(line, child, &stopped))
            .map_err(failed)?;
        Ok(Self { shared, stop, watch })
    }

    /// How often a keeper died and another one was started.
    pub fn restarts(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.restarts)
    }

    /// Sends the keeper away: with it and this process the programs are gone.
    pub fn end(self) {
        let _ = self.stop.try_send(());
        if let Some(line) = self.shared.line.lock().unwrap_or_else(PoisonError::into_inner).take() {
            if let Err(error) = send(&line, Kind::Quit, &[], &[]) {
                tracing::debug!(%error, "the keeper was gone already");
            }
            // Wakes the watch even if the keeper does not answer.
            let _ = line.set_read_timeout(Some(ANSWER_TIMEOUT));
        }
        if self.watch.join().is_err() {
            tracing::error!("the watch over the keeper panicked");
        }
        let _ = std::fs::remove_file(self.shared.folder.join(SOCKET));
    }
}

impl Shared {
    fn watch(&self, mut line: UnixStream, mut child: Option<Child>, stopped: &Receiver<()>) {
        loop {
            // Blocks until the keeper dies: it says nothing unasked. After a stop it says that it is done.
            let gone = loop {
                if let Err(error) = receive(&line) {
                    break error;
                }
            };
            if let Some(child) = &mut child {
                let _ = child.wait();
            }
            if !matches!(stopped.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
                return;
            }
            tracing::warn!(error = %gone, "the keeper died; starting another one");
            (line, child) = loop {
                match self.start_keeper().and_then(|(line, child)| Ok((line.try_clone()?, line, child))) {
                    Ok((kept, line, child)) => {
                        self.keep_line(Some(kept));
                        self.restarts.fetch_add(1, Ordering::Relaxed);
                        break (line, Some(child));
                    }
                    Err(error) => {
                        tracing::error!(%error, "failed to start a keeper; a kill of this process would lose counts");
                    }
                }
                match stopped.recv_timeout(RETRY) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
            };
        }
    }

    fn keep_line(&self, line: Option<UnixStream>) {
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }

    /// Starts this same program under the keeper's name.
    fn start_keeper(&self) -> io::Result<(UnixStream, Child)> {
        let listener = listen(&self.folder)?;
        let child = Command::new("/proc/self/exe")
            .arg0(PROCESS_NAME)
            .arg(self.grace.as_millis().to_string())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let line = connect(&self.folder)?;
        self.hand_over(&line)?;
        Ok((line, child))
    }

    fn hand_over(&self, line: &UnixStream) -> io::Result<()> {
        let descriptors: Vec<BorrowedFd<'_>> = self.descriptors.values().map(AsFd::as_fd).collect();
        let manifest = serde_json::to_vec(&self.manifest)?;
        line.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        send(line, Kind::Hold, &manifest, &descriptors)?;
        let (kind, ..) = receive(line)?;
        line.set_read_timeout(None)?;
        if kind == Kind::Done { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}
