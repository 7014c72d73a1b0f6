//! A server that takes batches and remembers them, and can be told to misbehave.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use weir_wire::agent::agent_message::Message as In;
use weir_wire::agent::ingest_server::IngestServer;
use weir_wire::agent::refusal::Reason;
use weir_wire::agent::server_message::Message as Out;
use weir_wire::agent::{Ack, AgentMessage, Batch, Hello, PROTOCOL, Record, Refusal, ServerMessage, Welcome};

/// What the server has and how it behaves.
#[derive(Debug, Default)]
pub struct Held {
    /// Batches by sequence.
    pub batches: BTreeMap<u64, Batch>,
    /// Their bytes, to see that a resend is the same.
    pub bytes: BTreeMap<u64, Vec<u8>>,
    /// Greetings.
    pub hellos: Vec<Hello>,
    /// The `authorization` of each call.
    pub tokens: Vec<Option<String>>,
    /// Refuse the next so many calls for this reason.
    pub refuse: Option<(Reason, u32)>,
    /// Take frames but acknowledge none.
    pub silent: bool,
    /// What to say in Welcome instead of the truth.
    pub want: Option<u64>,
    /// The next call is welcomed when this says so.
    pub late_welcome: Option<Arc<Notify>>,
    /// Sequences that came a second time with other bytes.
    pub changed: Vec<u64>,
}

impl Held {
    /// Every record, in sequence.
    pub fn records(&self) -> Vec<Record> {
        self.batches.values().flat_map(|batch| batch.records.clone()).collect()
    }

    fn next(&self) -> u64 {
        self.batches.keys().next_back().map_or(0, |last| last + 1)
    }
}

/// A running server; ends when dropped.
pub struct Ingest {
    /// What it has.
    pub held: Arc<Mutex<Held>>,
    /// Where it is.
    pub url: String,
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Clone)]
struct Service {
    held: Arc<Mutex<Held>>,
}

impl Ingest {
    /// A new one on a free port.
    pub fn start() -> Self {
        Self::with(Arc::default(), 0)
    }

    /// One that goes on with what another held, on its port.
    pub fn with(held: Arc<Mutex<Held>>, port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", port))).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = IngestServer::new(Service { held: Arc::clone(&held) }).max_decoding_message_size(64 << 20);
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Self { held, url, runtime: Some(runtime) }
    }

    /// What it has now.
    pub fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.url.rsplit_once(':').unwrap().1.parse().unwrap()
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        }
    }
}

#[tonic::async_trait]
impl weir_wire::agent::ingest_server::Ingest for Service {
    type DeliverStream = Pin<Box<dyn Stream<Item = Result<ServerMessage, Status>> + Send>>;

    async fn deliver(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let held = Arc::clone(&self.held);
        held.lock().unwrap().tokens.push(token);
        let mut frames = request.into_inner();
        let (out, answers) = tokio::sync::mpsc::channel(64);
        #[expect(clippy::disallowed_methods, reason = "ends with the call")]
        tokio::spawn(async move {
            while let Some(Ok(AgentMessage { message: Some(next) })) = frames.next().await {
                let answer = take(&held, next);
                let late = held.lock().unwrap().late_welcome.take();
                if let Some(late) = late {
                    late.notified().await;
                }
                if let Some(answer) = answer
                    && out.send(Ok(ServerMessage { message: Some(answer) })).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

fn take(held: &Mutex<Held>, next: In) -> Option<Out> {
    let mut held = held.lock().unwrap();
    match next {
        In::Hello(hello) => {
            held.hellos.push(hello);
            if let Some((reason, times)) = held.refuse.take() {
                held.refuse = (times > 1).then_some((reason, times - 1));
                return Some(Out::Refusal(Refusal { reason: reason.into(), text: "as told".into(), next_sequence: 0 }));
            }
            let next_sequence = held.want.take().unwrap_or_else(|| held.next());
            Some(Out::Welcome(Welcome { protocol: PROTOCOL, next_sequence, server_unix_ns: 0, max_batch_bytes: 0 }))
        }
        In::Frame(frame) => {
            let batch = frame.open(1 << 30).unwrap();
            assert_eq!(batch.sequence, frame.sequence);
            let expected = held.next();
            if expected != 0 && frame.sequence > expected {
                let text = format!("{} came, {expected} is next", frame.sequence);
                return Some(Out::Refusal(Refusal {
                    reason: Reason::OutOfSequence.into(),
                    text,
                    next_sequence: expected,
                }));
            }
            let bytes = frame.batch.to_vec();
            if held.bytes.get(&frame.sequence).is_some_and(|before| *before != bytes) {
                held.changed.push(frame.sequence);
            }
            held.bytes.insert(frame.sequence, bytes);
            held.batches.insert(frame.sequence, batch);
            (!held.silent).then_some(Out::Ack(Ack { sequence: frame.sequence }))
        }
    }
}
