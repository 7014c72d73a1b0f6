//! The parts' processes: awaiting whichever ends next, and how it ended in words.

use super::supervise::Part;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use tokio::process::Child;

/// A part's process.
#[derive(Debug)]
pub struct Process {
    /// Which part.
    pub part: Part,
    /// Its process.
    pub child: Child,
}

/// `exit code 1`, `SIGKILL`.
pub fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => match nix::sys::signal::Signal::try_from(number) {
            Ok(signal) => signal.as_str().to_owned(),
            Err(_) => format!("signal {number}"),
        },
        (None, None) => "an unknown status".to_owned(),
    }
}

/// The next process that ends; never without processes.
pub async fn next_exit(processes: &mut [Process]) -> (usize, std::io::Result<ExitStatus>) {
    std::future::poll_fn(|context| {
        for (index, process) in processes.iter_mut().enumerate() {
            let waiting = std::pin::pin!(process.child.wait());
            if let std::task::Poll::Ready(status) = waiting.poll(context) {
                return std::task::Poll::Ready((index, status));
            }
        }
        std::task::Poll::Pending
    })
    .await
}
