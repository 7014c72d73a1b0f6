//! A stand-in for a Docker engine: answers HTTP over a real unix socket with what a real engine was recorded to say.

use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

/// What an engine says now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    pub(crate) containers: Vec<Value>,
    pub(crate) inspections: HashMap<String, Value>,
    /// The status of every answer, where it is not 200.
    pub(crate) failure: Option<u16>,
}

/// A running stand-in.
pub(crate) struct Engine {
    pub(crate) answers: Arc<Mutex<Answers>>,
    /// The targets that were asked for.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    pub(crate) events: broadcast::Sender<Option<Value>>,
    pub(crate) socket: PathBuf,
    _tasks: JoinSet<()>,
    _folder: tempfile::TempDir,
}

impl Engine {
    pub(crate) fn start(answers: Answers) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let answers = Arc::new(Mutex::new(answers));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (events, _) = broadcast::channel(1_024);
        let mut tasks = JoinSet::new();
        let (said, noted, told) = (Arc::clone(&answers), Arc::clone(&asked), events.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&said), Arc::clone(&noted), told.clone()));
            }
        });
        Self { answers, asked, events, socket, _tasks: tasks, _folder: folder }
    }

    /// The ids of the containers that were inspected since the last call.
    pub(crate) fn take_inspected(&self) -> Vec<String> {
        let asked = std::mem::take(&mut *self.asked.lock().unwrap());
        let id = |target: &String| {
            Some(target.strip_prefix("/containers/")?.strip_suffix("/json")?.to_owned()).filter(|id| !id.is_empty())
        };
        asked.iter().filter_map(id).collect()
    }

    /// The streams of events that were asked for.
    pub(crate) fn streams(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().filter(|target| target.starts_with("/events")).cloned().collect()
    }
}

async fn serve(
    mut stream: UnixStream,
    answers: Arc<Mutex<Answers>>,
    asked: Arc<Mutex<Vec<String>>>,
    events: broadcast::Sender<Option<Value>>,
) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        request.push(byte);
    }
    let request = String::from_utf8(request).unwrap();
    let target = request.split(' ').nth(1).unwrap().to_owned();
    let mut events = events.subscribe();
    asked.lock().unwrap().push(target.clone());
    let (path, _) = target.split_once('?').unwrap_or((&target, ""));
    let (status, body) = {
        let answers = answers.lock().unwrap();
        let id = path.trim_start_matches("/containers/").trim_end_matches("/json");
        match (answers.failure, path) {
            (Some(status), _) => (status, Value::Null),
            (None, "/events") => (200, Value::Null),
            (None, "/containers/json") => (200, Value::Array(answers.containers.clone())),
            (None, _) => answers.inspections.get(id).map_or((404, Value::Null), |told| (200, told.clone())),
        }
    };
    if status == 200 && path == "/events" {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        // `None` ends the stream.
        while let Ok(Some(event)) = events.recv().await {
            let line = format!("{event}\n");
            // In two chunks: a line does not have to come in one.
            let (first, second) = line.split_at(line.len() / 2);
            for part in [first, second] {
                if stream.write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).await.is_err() {
                    return;
                }
            }
        }
        let _ = stream.write_all(b"0\r\n\r\n").await;
        return;
    }
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

/// The recording in `tests/data/docker`.
pub(crate) fn recording() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/docker/engine-20.10.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// What the recorded engine said when it was recorded.
pub(crate) fn answers(recorded: &Value) -> Answers {
    let id = |value: &Value| value["Id"].as_str().unwrap().to_owned();
    Answers {
        containers: recorded["containers"].as_array().unwrap().clone(),
        inspections: recorded["inspections"].as_array().unwrap().iter().map(|one| (id(one), one.clone())).collect(),
        failure: None,
    }
}
