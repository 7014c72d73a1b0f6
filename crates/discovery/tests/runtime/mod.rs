//! A stand-in for a container runtime: answers the calls of the interface, over a real unix socket, with what a real
//! runtime was recorded to say.

use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};
use weir_discovery::cri::runtime::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use weir_discovery::cri::runtime::*;

/// What a runtime says now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    pub sandboxes: Vec<PodSandbox>,
    pub containers: Vec<Container>,
    pub sandbox_statuses: HashMap<String, PodSandboxStatusResponse>,
    pub container_statuses: HashMap<String, ContainerStatusResponse>,
    /// Whether it tells events.
    pub has_events: bool,
    /// What every call but `Version` is answered with instead.
    pub failure: Option<Status>,
}

/// A running stand-in.
pub(crate) struct Runtime {
    pub answers: Arc<Mutex<Answers>>,
    /// The ids that verbose answers were asked for.
    pub asked: Arc<Mutex<Vec<String>>>,
    pub events: broadcast::Sender<ContainerEventResponse>,
    pub socket: PathBuf,
    _tasks: JoinSet<()>,
    _folder: tempfile::TempDir,
}

impl Runtime {
    pub(crate) fn start(answers: Answers) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("runtime.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let answers = Arc::new(Mutex::new(answers));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (events, _) = broadcast::channel(1_024);
        let service = Service { answers: Arc::clone(&answers), asked: Arc::clone(&asked), events: events.clone() };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let server = tonic::transport::Server::builder().add_service(RuntimeServiceServer::new(service));
            server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
        });
        Self { answers, asked, events, socket, _tasks: tasks, _folder: folder }
    }

    pub(crate) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

struct Service {
    answers: Arc<Mutex<Answers>>,
    asked: Arc<Mutex<Vec<String>>>,
    events: broadcast::Sender<ContainerEventResponse>,
}

impl Service {
    fn now(&self) -> Result<Answers, Status> {
        let answers = self.answers.lock().unwrap().clone();
        answers.failure.clone().map_or(Ok(answers), Err)
    }
}

#[tonic::async_trait]
impl RuntimeService for Service {
    type GetContainerEventsStream = Pin<Box<dyn Stream<Item = Result<ContainerEventResponse, Status>> + Send>>;

    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        let (runtime_name, runtime_version) = ("stand-in".to_owned(), "1".to_owned());
        Ok(Response::new(VersionResponse { runtime_name, runtime_version, ..VersionResponse::default() }))
    }

    async fn list_pod_sandbox(
        &self,
        _: Request<ListPodSandboxRequest>,
    ) -> Result<Response<ListPodSandboxResponse>, Status> {
        Ok(Response::new(ListPodSandboxResponse { items: self.now()?.sandboxes }))
    }

    async fn list_containers(
        &self,
        _: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        Ok(Response::new(ListContainersResponse { containers: self.now()?.containers }))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Result<Response<PodSandboxStatusResponse>, Status> {
        let PodSandboxStatusRequest { pod_sandbox_id: id, verbose } = request.into_inner();
        assert!(verbose);
        self.asked.lock().unwrap().push(id.clone());
        let told = self.now()?.sandbox_statuses.get(&id).cloned();
        told.map(Response::new).ok_or_else(|| Status::not_found(id))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Result<Response<ContainerStatusResponse>, Status> {
        let ContainerStatusRequest { container_id: id, verbose } = request.into_inner();
        assert!(verbose);
        self.asked.lock().unwrap().push(id.clone());
        let told = self.now()?.container_statuses.get(&id).cloned();
        told.map(Response::new).ok_or_else(|| Status::not_found(id))
    }

    async fn get_container_events(
        &self,
        _: Request<GetEventsRequest>,
    ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
        if !self.now()?.has_events {
            return Err(Status::unimplemented("unknown method GetContainerEvents"));
        }
        let events = BroadcastStream::new(self.events.subscribe());
        Ok(Response::new(Box::pin(events.map(|event| event.map_err(|_late| Status::internal("too slow"))))))
    }
}

/// A recording in `tests/data/cri`.
pub(crate) fn recording(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cri").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// What the recorded runtime said when it was recorded.
pub(crate) fn answers(recorded: &Value) -> Answers {
    let all = |key: &str| recorded[key].as_array().cloned().unwrap_or_default();
    let with_info = |value: &Value| HashMap::from([("info".to_owned(), value["info"].to_string())]);
    Answers {
        sandboxes: all("sandboxes").iter().map(sandbox).collect(),
        containers: all("containers").iter().map(container).collect(),
        sandbox_statuses: all("sandboxStatus")
            .iter()
            .map(|value| {
                let status = sandbox_status(&value["status"]);
                (status.id.clone(), PodSandboxStatusResponse { status: Some(status), info: with_info(value) })
            })
            .collect(),
        container_statuses: all("containerStatus")
            .iter()
            .map(|value| {
                let status = container_status(&value["status"]);
                (status.id.clone(), ContainerStatusResponse { status: Some(status), info: with_info(value) })
            })
            .collect(),
        has_events: !recorded["events"].is_null(),
        failure: None,
    }
}

/// The recorded events.
pub(crate) fn events(recorded: &Value) -> Vec<ContainerEventResponse> {
    let event = |value: &Value| ContainerEventResponse {
        container_id: text(&value["containerId"]),
        container_event_type: ContainerEventType::from_str_name(&text(&value["containerEventType"])).unwrap().into(),
        created_at: time(&value["createdAt"]),
        pod_sandbox_status: value["podSandboxStatus"].is_object().then(|| sandbox_status(&value["podSandboxStatus"])),
        containers_statuses: value["containersStatuses"].as_array().unwrap().iter().map(container_status).collect(),
    };
    recorded["events"].as_array().unwrap().iter().map(event).collect()
}

fn sandbox(value: &Value) -> PodSandbox {
    PodSandbox {
        id: text(&value["id"]),
        metadata: Some(pod(&value["metadata"])),
        state: PodSandboxState::from_str_name(&text(&value["state"])).unwrap().into(),
        created_at: time(&value["createdAt"]),
        labels: map(&value["labels"]),
        annotations: map(&value["annotations"]),
    }
}

fn sandbox_status(value: &Value) -> PodSandboxStatus {
    let network = &value["network"];
    let more = network["additionalIps"].as_array().cloned().unwrap_or_default();
    let mode = &value["linux"]["namespaces"]["options"]["network"];
    let options = NamespaceOption { network: NamespaceMode::from_str_name(&text(mode)).unwrap().into() };
    PodSandboxStatus {
        id: text(&value["id"]),
        metadata: Some(pod(&value["metadata"])),
        state: PodSandboxState::from_str_name(&text(&value["state"])).unwrap().into(),
        created_at: time(&value["createdAt"]),
        network: Some(PodSandboxNetworkStatus {
            ip: text(&network["ip"]),
            additional_ips: more.iter().map(|more| PodIp { ip: text(&more["ip"]) }).collect(),
        }),
        linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options: Some(options) }) }),
        labels: map(&value["labels"]),
        annotations: map(&value["annotations"]),
    }
}

fn pod(value: &Value) -> PodSandboxMetadata {
    PodSandboxMetadata {
        name: text(&value["name"]),
        uid: text(&value["uid"]),
        namespace: text(&value["namespace"]),
        attempt: value["attempt"].as_u64().unwrap_or(0) as u32,
    }
}

fn container(value: &Value) -> Container {
    Container {
        id: text(&value["id"]),
        pod_sandbox_id: text(&value["podSandboxId"]),
        metadata: Some(metadata(&value["metadata"])),
        image: Some(image(&value["image"])),
        state: ContainerState::from_str_name(&text(&value["state"])).unwrap().into(),
        created_at: time(&value["createdAt"]),
        labels: map(&value["labels"]),
        annotations: map(&value["annotations"]),
    }
}

fn container_status(value: &Value) -> ContainerStatus {
    ContainerStatus {
        id: text(&value["id"]),
        metadata: Some(metadata(&value["metadata"])),
        state: ContainerState::from_str_name(&text(&value["state"])).unwrap().into(),
        created_at: time(&value["createdAt"]),
        started_at: time(&value["startedAt"]),
        finished_at: time(&value["finishedAt"]),
        image: Some(image(&value["image"])),
        labels: map(&value["labels"]),
        annotations: map(&value["annotations"]),
    }
}

fn metadata(value: &Value) -> ContainerMetadata {
    ContainerMetadata { name: text(&value["name"]), attempt: value["attempt"].as_u64().unwrap_or(0) as u32 }
}

fn image(value: &Value) -> ImageSpec {
    ImageSpec { image: text(&value["image"]), user_specified_image: text(&value["userSpecifiedImage"]) }
}

fn map(value: &Value) -> HashMap<String, String> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), text(value))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Lists and events write nanoseconds, single answers RFC 3339, and year 1 for never.
fn time(value: &Value) -> i64 {
    let text = text(value);
    if text.is_empty() || text.starts_with("0001-") {
        return 0;
    }
    text.parse().unwrap_or_else(|_| text.parse::<jiff::Timestamp>().unwrap().as_nanosecond() as i64)
}
