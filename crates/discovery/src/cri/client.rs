//! The calls, each with a deadline, and their failures in words.

use super::runtime::runtime_service_client::RuntimeServiceClient;
use super::runtime::{
    Container, ContainerEventResponse, ContainerStatusRequest, ContainerStatusResponse, GetEventsRequest,
    ListContainersRequest, ListPodSandboxRequest, PodSandbox, PodSandboxStatusRequest, PodSandboxStatusResponse,
    VersionRequest,
};
use crate::access::denied_runtime;
use crate::events::{Ending, Sink};
use crate::source::Trouble;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// How long a call may take: a list on a node under pressure takes a second or two.
const CALL: Duration = Duration::from_secs(5);
/// The longest answer, as kubelets allow it: 16 MiB.
const ANSWER: usize = 16 << 20;

/// A connection to a runtime.
#[derive(Clone, Debug)]
pub(super) struct Client {
    socket: PathBuf,
    calls: RuntimeServiceClient<Channel>,
    runtime: String,
}

impl Client {
    /// Connects, and asks who answers.
    pub(super) async fn connect(socket: &Path) -> Result<Self, Trouble> {
        let calls = open(socket).await?;
        let mut client = Self { socket: socket.into(), calls, runtime: String::new() };
        let mut calls = client.calls.clone();
        let version = client.within("Version", calls.version(VersionRequest::default())).await?;
        client.runtime = format!("{} {}", version.runtime_name, version.runtime_version);
        Ok(client)
    }

    /// Its name and version.
    pub(super) fn runtime(&self) -> &str {
        &self.runtime
    }

    pub(super) async fn sandboxes(&self) -> Result<Vec<PodSandbox>, Trouble> {
        let mut calls = self.calls.clone();
        Ok(self.within("ListPodSandbox", calls.list_pod_sandbox(ListPodSandboxRequest {})).await?.items)
    }

    pub(super) async fn containers(&self) -> Result<Vec<Container>, Trouble> {
        let mut calls = self.calls.clone();
        Ok(self.within("ListContainers", calls.list_containers(ListContainersRequest {})).await?.containers)
    }

    /// One sandbox; `None` when it is gone since.
    pub(super) async fn sandbox(&self, id: &str) -> Result<Option<PodSandboxStatusResponse>, Trouble> {
        let mut calls = self.calls.clone();
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        self.found("PodSandboxStatus", calls.pod_sandbox_status(request)).await
    }

    /// One container; `None` when it is gone since.
    pub(super) async fn container(&self, id: &str) -> Result<Option<ContainerStatusResponse>, Trouble> {
        let mut calls = self.calls.clone();
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        self.found("ContainerStatus", calls.container_status(request)).await
    }

    async fn found<T>(
        &self,
        name: &str,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<Option<T>, Trouble> {
        match timeout(CALL, call).await {
            Ok(Err(status)) if is_gone(&status) => Ok(None),
            Ok(Ok(answer)) => Ok(Some(answer.into_inner())),
            Ok(Err(status)) => Err(refused_or_failed(&self.socket, name, &status)),
            Err(_elapsed) => Err(late(&self.socket, name)),
        }
    }

    async fn within<T>(
        &self,
        name: &str,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Trouble> {
        match timeout(CALL, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(refused_or_failed(&self.socket, name, &status)),
            Err(_elapsed) => Err(late(&self.socket, name)),
        }
    }
}

/// Whether the thing asked about is gone. CRI-O 1.20 and older say so only in the text.
fn is_gone(status: &Status) -> bool {
    status.code() == Code::NotFound || status.message().contains("not found") || status.message().contains("not exist")
}

/// Hands every event of the runtime to `sink` until the stream ends. The call waits for the first event: runtimes send
/// nothing before.
pub(super) async fn events(socket: PathBuf, sink: Sink<ContainerEventResponse>) -> Ending {
    let broken = |error: &dyn std::fmt::Display| Ending::Broken(error.to_string());
    let mut calls = match open(&socket).await {
        Ok(calls) => calls,
        Err(error) => return broken(&error),
    };
    let ended = |status: &Status| match status.code() {
        Code::Unimplemented => Ending::Unsupported(format!("GetContainerEvents: {}", status.message())),
        _ => Ending::Broken(format!("GetContainerEvents: {}", words(status))),
    };
    let mut stream = match calls.get_container_events(GetEventsRequest {}).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return ended(&status),
    };
    loop {
        match stream.message().await {
            Ok(Some(event)) => sink.event(event).await,
            Ok(None) => return Ending::Broken("the runtime ended the stream".into()),
            Err(status) => return ended(&status),
        }
    }
}

async fn open(socket: &Path) -> Result<RuntimeServiceClient<Channel>, Trouble> {
    let path = socket.display();
    // The transport tells no reasons: whether the socket may be used at all is tried first.
    match timeout(CALL, UnixStream::connect(socket)).await {
        Ok(Ok(_stream)) => {}
        Ok(Err(error)) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(Trouble::Refused(denied_runtime(socket, "cri")));
        }
        Ok(Err(error)) => return Err(Trouble::Off(format!("no container runtime on {path}: {error}"))),
        Err(_elapsed) => return Err(late(socket, "the connection")),
    }
    let endpoint = Endpoint::from_shared(format!("unix://{path}"))
        .map_err(|error| Trouble::Failed(format!("{path} cannot be the path of a socket: {error}")))?;
    let channel = timeout(CALL, endpoint.connect())
        .await
        .map_err(|_elapsed| late(socket, "the connection"))?
        .map_err(|error| Trouble::Failed(format!("the container runtime on {path} takes no calls: {error}")))?;
    Ok(RuntimeServiceClient::new(channel).max_decoding_message_size(ANSWER))
}

fn late(socket: &Path, what: &str) -> Trouble {
    Trouble::Failed(format!("the container runtime on {}: {what} took longer than {CALL:?}", socket.display()))
}

fn refused_or_failed(socket: &Path, name: &str, status: &Status) -> Trouble {
    let path = socket.display();
    match status.code() {
        // Docker's own packages ship containerd so.
        Code::Unimplemented if name == "Version" => Trouble::Off(format!(
            "what listens on {path} does not speak CRI v1: containerd with `disabled_plugins = [\"cri\"]`, or a \
             runtime before containerd 1.6 or CRI-O 1.23"
        )),
        Code::PermissionDenied | Code::Unauthenticated => {
            Trouble::Refused(format!("the container runtime on {path} refuses {name}: {}", words(status)))
        }
        _ => Trouble::Failed(format!("the container runtime on {path} failed at {name}: {}", words(status))),
    }
}

fn words(status: &Status) -> String {
    format!("{} ({:?})", status.message(), status.code())
}
