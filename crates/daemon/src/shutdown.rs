//! One cancellation tree: the first SIGINT or SIGTERM cancels it, a second one ends the process.

use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The token that the first SIGINT or SIGTERM cancels. A second signal exits with code 130 at once.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // A parent that blocks them hands its mask down, and then nothing but kill -9 would end this process. One thread
    // that takes them is enough.
    let mut ours = SigSet::empty();
    ours.add(Signal::SIGINT);
    ours.add(Signal::SIGTERM);
    ours.thread_unblock()?;
    let cancelled = token.clone();
    #[expect(
        clippy::disallowed_methods,
        reason = "it waits for signals as long as the process lives and owns nothing"
    )]
    tokio::spawn(async move {
        for attempt in 0.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if attempt > 0 {
                std::process::exit(130);
            }
            cancelled.cancel();
        }
    });
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn signals_that_the_parent_had_blocked_end_the_process_all_the_same() {
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTERM);
        blocked.thread_block().unwrap();
        let token = on_signals().unwrap();
        assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM));
        // To this thread: the test runner's others may block it, and must not die of it.
        nix::sys::signal::raise(Signal::SIGTERM).unwrap();
        token.cancelled().await;
    }
}
