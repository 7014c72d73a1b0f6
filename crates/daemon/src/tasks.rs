//! Named tasks, every one awaited. A critical task's unexpected end cancels the others and is the error.

use std::future::Future;
use std::time::Duration;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// The tasks of one daemon.
#[derive(Debug)]
pub struct Tasks {
    set: JoinSet<anyhow::Result<()>>,
    names: std::collections::HashMap<Id, &'static str>,
    shutdown: CancellationToken,
}

impl Tasks {
    /// No tasks yet; `shutdown` is what ends them.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { set: JoinSet::new(), names: std::collections::HashMap::new(), shutdown }
    }

    /// Starts a task that is expected to run until shutdown.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Waits until shutdown, or until a task ends early; then gives the rest `grace` to end, and aborts what is left.
    ///
    /// # Errors
    /// The first task that failed, panicked, ended before shutdown, or had to be aborted, with its name.
    pub async fn run(mut self, grace: Duration) -> anyhow::Result<()> {
        let mut first_error = None;
        let shutdown = self.shutdown.clone();
        let mut deadline = None;
        while !self.set.is_empty() {
            let joined = tokio::select! {
                joined = self.set.join_next_with_id() => joined,
                () = shutdown.cancelled(), if deadline.is_none() => {
                    deadline = Some(tokio::time::Instant::now() + grace);
                    continue;
                }
                () = sleep_until(deadline) => {
                    let late: Vec<_> = self.names.values().copied().collect();
                    self.set.shutdown().await;
                    return Err(anyhow::anyhow!("tasks did not stop within {grace:?}: {}", late.join(", ")));
                }
            };
            let Some(joined) = joined else { break };
            let (id, outcome) = match joined {
                Ok((id, outcome)) => (id, outcome),
                Err(error) => (error.id(), Err(anyhow::Error::new(error))),
            };
            let name = self.names.remove(&id).unwrap_or("unnamed");
            let error = match outcome {
                Ok(()) if shutdown.is_cancelled() => None,
                Ok(()) => Some(anyhow::anyhow!("task {name} ended before shutdown")),
                Err(error) => Some(error.context(format!("task {name} failed"))),
            };
            if let Some(error) = error {
                first_error.get_or_insert(error);
                shutdown.cancel();
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_early_end_of_one_task_stops_the_others_and_is_named() {
        let token = CancellationToken::new();
        let mut tasks = Tasks::new(token.clone());
        let waits = token.clone();
        tasks.spawn("waits", async move {
            waits.cancelled().await;
            Ok(())
        });
        tasks.spawn("ends", async { Ok(()) });
        let error = tasks.run(Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.to_string(), "task ends ended before shutdown");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_aborted_and_named() {
        let token = CancellationToken::new();
        let mut tasks = Tasks::new(token.clone());
        tasks.spawn("stuck", std::future::pending());
        token.cancel();
        let error = tasks.run(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error.to_string(), "tasks did not stop within 1s: stuck");
    }
}
