//! A sign of life on standard error for whatever takes longer than a second.

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// A person begins to wonder after about a second.
const PATIENCE: Duration = Duration::from_secs(1);

/// Slow enough to cost nothing, quick enough to look alive.
const FRAME: Duration = Duration::from_millis(120);

/// Waits for `work`; beyond a second it says `what` and for how long on standard error, where that is a terminal.
pub async fn while_waiting<T>(what: &str, work: impl Future<Output = T>) -> T {
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    let mut drawn = false;
    let outcome = {
        tokio::pin!(work);
        let started = tokio::time::Instant::now();
        let mut frames = tokio::time::interval_at(started + PATIENCE, FRAME);
        let mut signs = ['|', '/', '-', '\\'].into_iter().cycle();
        loop {
            tokio::select! {
                outcome = &mut work => break outcome,
                _ = frames.tick() => {
                    drawn = true;
                    let sign = signs.next().unwrap_or('|');
                    // A sign of life that cannot be shown is none.
                    let _ = write!(std::io::stderr(), "\r\x1b[K{sign} {what} ({} s)", started.elapsed().as_secs());
                }
            }
        }
    };
    if drawn {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    outcome
}
