//! The calls and their failures in words.

use super::answer::{Event, Listed};
use crate::access::denied_runtime;
use crate::events::{Ending, Sink};
use crate::source::Trouble;
use crate::unix_http::{FetchError, Timeouts, get};
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// How long a call may take; an engine under pressure takes seconds for a list.
const CALL: Timeouts = Timeouts { connect: Duration::from_secs(2), header: Duration::from_secs(5) };
const BODY: Duration = Duration::from_secs(5);
/// The longest list: 2 KiB a container, 8,000 of them.
const LIST: usize = 16 << 20;
/// The longest inspection: labels and environment may be large.
const INSPECTION: usize = 4 << 20;
/// The longest event: the container's labels are in it.
const EVENT: usize = 1 << 20;

/// Every container, also those that do not run.
pub(super) async fn list(socket: &Path) -> Result<Vec<Listed>, Trouble> {
    let answer = ask(socket, "/containers/json?all=true", LIST).await?;
    answer.ok_or_else(|| Trouble::Off(format!("what listens on {} is no Docker engine", socket.display())))
}

/// One container; `None` when it is gone since.
pub(super) async fn inspect(socket: &Path, id: &str) -> Result<Option<Value>, Trouble> {
    ask(socket, &format!("/containers/{id}/json"), INSPECTION).await
}

async fn ask<T: DeserializeOwned>(socket: &Path, target: &str, limit: usize) -> Result<Option<T>, Trouble> {
    let trouble = |error: &FetchError| words(socket, error);
    let reply = match get(socket, target, CALL).await.map_err(|error| trouble(&error))?.ok() {
        Err(FetchError::Status { status: StatusCode::NOT_FOUND, .. }) => return Ok(None),
        reply => reply.map_err(|error| trouble(&error))?,
    };
    let body = reply.bytes(limit, BODY).await.map_err(|error| trouble(&error))?;
    let answer = serde_json::from_slice(&body);
    answer.map(Some).map_err(|error| {
        Trouble::Failed(format!(
            "the Docker engine on {}: its answer to {target} is not as expected: {error}",
            socket.display()
        ))
    })
}

/// Hands every event from `since` (Unix nanoseconds, 0: from now) to `sink` until the stream ends, and each one's time
/// to `seen`.
pub(super) async fn events(socket: &Path, since: i64, sink: &Sink<Event>, seen: impl Fn(i64)) -> Ending {
    // {"type":["container","network"]}
    let mut target = "/events?filters=%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%7D".to_owned();
    if since > 0 {
        let _ = write!(target, "&since={}.{:09}", since / 1_000_000_000, since % 1_000_000_000);
    }
    let opened = async { get(socket, &target, CALL).await?.ok() }.await;
    let mut reply = match opened {
        Ok(reply) => reply,
        Err(error) => return Ending::Broken(error.to_string()),
    };
    sink.opened().await;
    let mut waiting: Vec<u8> = Vec::new();
    loop {
        match reply.chunk().await {
            Ok(Some(chunk)) => waiting.extend_from_slice(&chunk),
            Ok(None) => return Ending::Broken("the engine ended the stream".into()),
            Err(error) => return Ending::Broken(error.to_string()),
        }
        while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = waiting.drain(..=end).collect();
            // One that cannot be read is of a kind that is not asked for.
            if let Ok(event) = serde_json::from_slice::<Event>(&line) {
                let at = event.at;
                sink.event(event).await;
                seen(at);
            }
        }
        if waiting.len() > EVENT {
            return Ending::Broken(format!("an event of more than {EVENT} bytes"));
        }
    }
}

fn words(socket: &Path, error: &FetchError) -> Trouble {
    let path = socket.display();
    match error {
        FetchError::Missing { source, .. } => Trouble::Off(format!("no Docker engine on {path}: {source}")),
        FetchError::Denied { .. } => Trouble::Refused(denied_runtime(socket, "docker")),
        FetchError::Status { status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, .. } => {
            Trouble::Refused(format!(
                "the Docker engine on {path} refuses: {error}; an authorization plugin or a proxy \
                 before it must allow GET /containers/json, /containers/ID/json and /events"
            ))
        }
        error => Trouble::Failed(format!("the Docker engine on {path}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_socket_is_no_engine() {
        let folder = tempfile::tempdir().unwrap();
        let error = list(&folder.path().join("docker.sock")).await.unwrap_err();
        assert_eq!(error.state(), "off");
        assert!(error.to_string().contains("docker.sock"), "{error}");
    }
}
