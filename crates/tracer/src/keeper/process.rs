//! The keeper's process: one thread, no runtime, no log (its standard streams lead nowhere, so that nobody waits for
//! their end). It waits for a tracer, holds what it is given, and exits when none has been there for its grace.

use super::{ANSWER_TIMEOUT, Kind, PROCESS_NAME, check_peer, receive, send};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::time::Duration;
use weir_daemon::clock::{Clock, SystemClock};

/// Whether this process was started as the keeper.
pub fn is_meant(name: Option<&OsString>) -> bool {
    name.is_some_and(|name| name == PROCESS_NAME)
}

/// Keeps. `grace_ms` is the only argument; the listener is standard input.
pub fn run(grace_ms: Option<&OsString>) -> ExitCode {
    let grace = grace_ms.and_then(|text| text.to_str()).and_then(|text| text.parse().ok()).map(Duration::from_millis);
    let Some(grace) = grace else { return ExitCode::from(2) };
    // A session of its own: Ctrl-C in the tracer's terminal is not for the keeper.
    let _ = nix::unistd::setsid();
    let _ = nix::sys::prctl::set_name(c"weir-keeper");
    close_inherited();
    let outcome = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .and_then(|listener| Keeper::new(UnixListener::from(listener), grace).keep());
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the tracer's parent left open without close-on-exec: pipes whose readers would wait for us.
fn close_inherited() {
    let Ok(folder) = std::fs::read_dir("/proc/self/fd") else { return };
    // Collected first: the folder's own descriptor is among them, and closed by then.
    let numbers: Vec<i32> = folder
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in numbers {
        let _ = nix::unistd::close(number);
    }
}

struct Keeper {
    listener: UnixListener,
    grace: Duration,
    clock: SystemClock,
    tracer: Option<UnixStream>,
    held: Option<(Vec<u8>, Vec<OwnedFd>)>,
    alone_since_ns: u64,
}

impl Keeper {
    fn new(listener: UnixListener, grace: Duration) -> Self {
        let clock = SystemClock::new();
        let alone_since_ns = clock.monotonic().0;
        Self { listener, grace, clock, tracer: None, held: None, alone_since_ns }
    }

    /// Until a tracer says quit, or none is there for the grace.
    fn keep(mut self) -> io::Result<()> {
        self.listener.set_nonblocking(true)?;
        loop {
            let timeout = if self.tracer.is_some() {
                PollTimeout::NONE
            } else {
                let alone = Duration::from_nanos(self.clock.monotonic().0.saturating_sub(self.alone_since_ns));
                let Some(left) = self.grace.checked_sub(alone).filter(|left| !left.is_zero()) else { return Ok(()) };
                // Rounded up, so that the last wait does not become many short ones.
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            };
            let (calls, speaks) = {
                let mut waited = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
                if let Some(tracer) = &self.tracer {
                    waited.push(PollFd::new(tracer.as_fd(), PollFlags::POLLIN));
                }
                match poll(&mut waited, timeout) {
                    Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
                let ready = |index: usize| waited.get(index).is_some_and(|fd| fd.any().unwrap_or(false));
                (ready(0), ready(1))
            };
            if speaks && self.answer() == Next::Quit {
                return Ok(());
            }
            if calls {
                self.accept();
            }
        }
    }

    /// The tracer's lock on its state folder allows only one: a new caller means that the old one is dead.
    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        let ready = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(ANSWER_TIMEOUT)))
            .and_then(|()| stream.set_write_timeout(Some(ANSWER_TIMEOUT)))
            .and_then(|()| check_peer(&stream));
        if ready.is_ok() {
            self.tracer = Some(stream);
        }
    }

    fn answer(&mut self) -> Next {
        let Some(tracer) = &self.tracer else { return Next::Wait };
        let answered = match receive(tracer) {
            Ok((Kind::Hold, manifest, descriptors)) => {
                self.held = Some((manifest, descriptors));
                send(tracer, Kind::Done, &[], &[])
            }
            Ok((Kind::Take, ..)) => match &self.held {
                Some((manifest, descriptors)) => {
                    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                    send(tracer, Kind::Held, manifest, &descriptors)
                }
                None => send(tracer, Kind::Empty, &[], &[]),
            },
            Ok((Kind::Quit, ..)) => {
                let _ = send(tracer, Kind::Done, &[], &[]);
                return Next::Quit;
            }
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(error) => Err(error),
        };
        if answered.is_err() {
            // It died, or it is not one of ours.
            self.tracer = None;
            self.alone_since_ns = self.clock.monotonic().0;
        }
        Next::Wait
    }
}

#[derive(PartialEq, Eq)]
enum Next {
    Wait,
    Quit,
}
