//! What weir's tracer tells beside its connections: `GET /processes` and `GET /status`.

use crate::unix_http::{self, FetchError, Timeouts};
use std::path::{Path, PathBuf};
use std::time::Duration;
use weir_inventory::{ContainerId, ProcessFact, cgroup};
use weir_model::MonotonicNanos;
use weir_model::connection::ProcessId;
use weir_wire::feed::{Processes, Status};

/// Bytes of `/processes`: 131,072 processes at 500 B.
const MAX_PROCESSES: usize = 64 << 20;
/// Bytes of `/status`: some dozens of probes, losses and gauges.
const MAX_STATUS: usize = 1 << 20;
/// Both are secondary: they may not hold up the next poll.
const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_secs(1), header: Duration::from_secs(2) };
const BODY: Duration = Duration::from_secs(2);

/// Why the tracer did not tell.
#[derive(Debug, thiserror::Error)]
pub enum TracerError {
    /// No reply.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A reply that is not what it should be.
    #[error("{path} answered {target} with something else: {source}")]
    Parse {
        /// The socket.
        path: PathBuf,
        /// What was asked for.
        target: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// Every process that the tracer can read.
///
/// # Errors
/// [`TracerError`]; a feed that is not weir's answers 404.
pub async fn processes(socket: &Path) -> Result<Vec<ProcessFact>, TracerError> {
    let reply: Processes = get(socket, "/processes", MAX_PROCESSES).await?;
    Ok(reply.processes.into_iter().map(fact).collect())
}

/// The tracer's health.
///
/// # Errors
/// [`TracerError`]; the 2019 tracer answers an empty body.
pub async fn status(socket: &Path) -> Result<Status, TracerError> {
    get(socket, "/status", MAX_STATUS).await
}

async fn get<T: serde::de::DeserializeOwned>(
    socket: &Path,
    target: &'static str,
    limit: usize,
) -> Result<T, TracerError> {
    let body = unix_http::get(socket, target, TIMEOUTS).await?.ok()?.bytes(limit, BODY).await?;
    serde_json::from_slice(&body).map_err(|source| TracerError::Parse { path: socket.into(), target, source })
}

fn fact(process: weir_wire::feed::Process) -> ProcessFact {
    let container = process
        .container_id
        .as_deref()
        .and_then(ContainerId::parse)
        .or_else(|| cgroup::container(&process.cgroup_path));
    ProcessFact {
        id: ProcessId { pid: process.pid, start: MonotonicNanos(process.start_ns) },
        name: process.name.into(),
        cgroup_path: process.cgroup_path.into(),
        container,
        netns: process.net_ns,
    }
}
