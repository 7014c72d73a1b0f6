//! One cancellation tree: the first SIGINT or SIGTERM cancels it, a second one ends the process.

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
