//! Hears of destroyed sockets: a thread of its own, so that the question what a connection left behind is put while the
//! answer still tells something ([`super::infer::After`]).
//!
//! ```text
//! kernel ──multicast──▶ each namespace's socket ──poll──▶ this thread ──Heard (65,536)──▶ engine's drain
//!                                                         │ ▲
//!                                                         └─┴─ whoever a segment would be given to now
//! ```

use super::diag::{Ends, Message, state};
use super::infer::After;
use super::namespaces::Namespace;
use super::netlink::{Diag, Heard as Outcome};
use nix::poll::{PollFd, PollFlags, poll};
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Ends that wait for the engine: 0.6 s at 100,000 a second, 16 MB.
pub const WAITING_MAX: usize = 65_536;
/// A namespace that is new is heard after this long; its socket keeps what comes before.
const LOOK_MS: u16 = 50;

/// One destroyed socket.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// In which namespace.
    pub netns: u32,
    /// What the kernel told.
    pub message: Message,
    /// What is left of the connection.
    pub after: After,
    /// What is left has another cookie than the socket. A socket gets its cookie when somebody first asks about it; one
    /// that nobody had asked about when it was turned into its remainder left that without one, to get its own. Or it
    /// is another connection's, which used the tuple again.
    pub other_cookie: bool,
    /// The listener at the local end, where there is one.
    pub listener: Option<Message>,
}

/// What thread and engine share.
#[derive(Debug, Default)]
struct Shared {
    namespaces: Mutex<Vec<Arc<Namespace>>>,
    waiting: Mutex<VecDeque<Heard>>,
    stop: AtomicBool,
    overruns: AtomicU64,
    dropped: AtomicU64,
}

/// The thread, as long as this lives.
#[derive(Debug)]
pub struct Hearing {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Hearing {
    /// Starts it.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let hearing = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("ends".to_owned()).spawn(move || hear(&hearing))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Says which namespaces there are.
    pub fn watch(&self, namespaces: Vec<Arc<Namespace>>) {
        *lock(&self.shared.namespaces) = namespaces;
    }

    /// Takes at most `count` ends, oldest first.
    pub fn take(&self, count: usize) -> Vec<Heard> {
        let mut waiting = lock(&self.shared.waiting);
        let count = count.min(waiting.len());
        waiting.drain(..count).collect()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        lock(&self.shared.waiting).len()
    }

    /// How often a socket's buffer had no room, since this was last called.
    pub fn take_overruns(&self) -> u64 {
        self.shared.overruns.swap(0, Ordering::Relaxed)
    }

    /// Ends for which there was no room, since this was last called.
    pub fn take_dropped(&self) -> u64 {
        self.shared.dropped.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that hears of destroyed sockets panicked");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hear(shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        let namespaces = lock(&shared.namespaces).clone();
        let mut ready = Vec::new();
        {
            // Only this thread uses these sockets, so that nobody waits for the locks.
            let held: Vec<_> = namespaces.iter().map(|namespace| lock(&namespace.hear)).collect();
            let mut indices = Vec::new();
            let mut polled: Vec<PollFd<'_>> = Vec::new();
            for (index, held) in held.iter().enumerate() {
                if let Some((hear, _)) = &**held {
                    indices.push(index);
                    polled.push(PollFd::new(hear.as_fd(), PollFlags::POLLIN));
                }
            }
            match poll(&mut polled, LOOK_MS) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => tracing::warn!(%error, "failed to wait for destroyed sockets"),
            }
            ready.extend(
                indices.iter().zip(&polled).filter(|(_, fd)| fd.any().unwrap_or(false)).map(|(index, _)| *index),
            );
        }
        for index in ready {
            let namespace = &namespaces[index];
            if let Some((hear, ask)) = &mut *lock(&namespace.hear) {
                listen(shared, namespace.inode, hear, ask);
            }
        }
    }
}

fn listen(shared: &Shared, netns: u32, hear: &mut Diag, ask: &mut Diag) {
    let outcome = hear.hear(|message| {
        // Listeners, sockets that never were connected, and those that were disconnected: nothing of a connection is
        // left in them, but who was watched has ended.
        let mut heard = Heard { netns, message, after: After::Nobody, other_cookie: false, listener: None };
        if message.ends.remote_port != 0 {
            ask_after(ask, &mut heard);
        }
        let mut waiting = lock(&shared.waiting);
        if waiting.len() >= WAITING_MAX {
            shared.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            waiting.push_back(heard);
        }
    });
    match outcome {
        Ok(Outcome::All) => {}
        Ok(Outcome::AfterOverrun) => {
            shared.overruns.fetch_add(1, Ordering::Relaxed);
        }
        Err(error) => tracing::warn!(netns, %error, "failed to hear of destroyed sockets"),
    }
}

fn ask_after(ask: &mut Diag, heard: &mut Heard) {
    let ends = heard.message.ends;
    heard.after = match ask.find(&ends) {
        Ok(Some(found)) => {
            heard.other_cookie = found.cookie != heard.message.cookie;
            match found.state {
                state::LISTEN => {
                    (heard.other_cookie, heard.listener) = (false, Some(found));
                    After::Nobody
                }
                state::FIN_WAIT2 => After::FinWait2,
                state::TIME_WAIT => After::TimeWait,
                _ => After::Unclear,
            }
        }
        Ok(None) => After::Nobody,
        Err(_) => After::Unclear,
    };
    if heard.listener.is_none() {
        let anybody = Ends { remote: [0; 16], remote_port: 0, ..ends };
        // Not answered is not known.
        heard.listener = ask.find(&anybody).unwrap_or(None).filter(|found| found.state == state::LISTEN);
    }
}
