//! The agent protocol's server side: one session a connection, as `agent.proto` describes it.
//!
//! Every refusal ends the session; the agent comes back with Hello and learns where the stream stands.

use super::frame::{self, FRAME_BYTES_MAX, FrameError};
use super::streams::{Hold, Streams};
use super::writer::Append;
use crate::auth::agents::{Admitted, Gate};
use crate::counts::Counts;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use weir_daemon::clock::Clock;
use weir_model::UnixNanos;
use weir_store::StreamId;
use weir_store::embedded::log::{EntryKind, NewEntry};
use weir_wire::agent::agent_message::Message as FromAgent;
use weir_wire::agent::ingest_server::Ingest;
use weir_wire::agent::refusal::Reason;
use weir_wire::agent::server_message::Message as ToAgent;
use weir_wire::agent::{Ack, AgentMessage, Frame, Hello, PROTOCOL, Refusal, ServerMessage, Welcome};

/// Answers that wait for a slow agent: one a frame, and an agent has few frames in flight.
const ANSWERS_MAX: usize = 16;

/// The service; cheap to clone.
#[derive(Clone)]
pub(crate) struct IngestService {
    inner: Arc<Inner>,
}

struct Inner {
    streams: Arc<Streams>,
    appends: mpsc::Sender<Append>,
    clock: Arc<dyn Clock>,
    counts: Arc<Counts>,
    sessions: TaskTracker,
    session_numbers: AtomicU64,
    shutdown: CancellationToken,
    gate: Gate,
}

type Answers = mpsc::Sender<Result<ServerMessage, Status>>;

/// The session is over: the agent is gone, or was told why.
struct Over;

impl IngestService {
    pub(crate) fn new(
        streams: Arc<Streams>,
        appends: mpsc::Sender<Append>,
        clock: Arc<dyn Clock>,
        counts: Arc<Counts>,
        sessions: TaskTracker,
        shutdown: CancellationToken,
        gate: Gate,
    ) -> Self {
        let session_numbers = AtomicU64::new(1);
        Self { inner: Arc::new(Inner { streams, appends, clock, counts, sessions, session_numbers, shutdown, gate }) }
    }
}

#[tonic::async_trait]
impl Ingest for IngestService {
    type DeliverStream = ReceiverStream<Result<ServerMessage, Status>>;

    async fn deliver(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let given = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let admitted = self.inner.gate.admit(given, &self.inner.counts).await?;
        let (answers, stream) = mpsc::channel(ANSWERS_MAX);
        let inner = Arc::clone(&self.inner);
        self.inner.sessions.spawn(async move {
            let shutdown = inner.shutdown.clone();
            tokio::select! {
                Over = inner.session(request.into_inner(), &admitted, &answers) => {}
                () = shutdown.cancelled() => {
                    let _ = answers.try_send(Ok(refusal(Reason::Unavailable, "the server is shutting down", 0)));
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Inner {
    async fn session(&self, mut messages: Streaming<AgentMessage>, admitted: &Admitted, answers: &Answers) -> Over {
        let Ok(Some(AgentMessage { message: Some(FromAgent::Hello(hello)) })) = messages.message().await else {
            let _ = answers.send(Err(Status::invalid_argument("the first message must be Hello"))).await;
            return Over;
        };
        if let Err(text) = admitted.may_speak_for(&hello.node) {
            self.counts.unauthorized.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(node = hello.node, text, "refused an agent");
            let _ = answers.send(Err(Status::permission_denied(text))).await;
            return Over;
        }
        let hold = match self.greet(&hello, answers).await {
            Ok(hold) => hold,
            Err(over) => return over,
        };
        let stream = StreamId(super::convert::sixteen(&hello.stream_id));
        let oldest = hello.oldest_sequence;
        loop {
            let message = tokio::select! {
                message = messages.message() => message,
                () = hold.replaced.cancelled() => return Over,
            };
            let Ok(Some(message)) = message else { return Over };
            let Some(FromAgent::Frame(frame)) = message.message else {
                let _ = answers.send(Err(Status::invalid_argument("only frames may follow Hello"))).await;
                return Over;
            };
            if let Err(over) = self.take((stream, oldest), &hold, admitted, frame, answers).await {
                return over;
            }
        }
    }

    async fn greet(&self, hello: &Hello, answers: &Answers) -> Result<Hold, Over> {
        if hello.protocol != PROTOCOL {
            self.counts.protocol_refusals.fetch_add(1, Ordering::Relaxed);
            let mend =
                if hello.protocol > PROTOCOL { "update the server first, then agents" } else { "update the agent" };
            let text = format!("protocol {} is not spoken here, only {PROTOCOL} is; {mend}", hello.protocol);
            return Err(refuse(answers, Reason::Protocol, &text, 0).await);
        }
        let (Ok(stream), Ok(agent_run)) =
            (<[u8; 16]>::try_from(hello.stream_id.as_ref()), <[u8; 16]>::try_from(hello.agent_run.as_ref()))
        else {
            return Err(refuse(answers, Reason::Protocol, "stream_id and agent_run must have 16 bytes", 0).await);
        };
        let session = self.session_numbers.fetch_add(1, Ordering::Relaxed);
        let Ok(hold) = self.streams.hold(StreamId(stream), agent_run, session) else {
            self.counts.second_writers.fetch_add(1, Ordering::Relaxed);
            let text = "another agent delivers this stream now; give each agent its own spool folder";
            return Err(refuse(answers, Reason::SecondWriter, text, 0).await);
        };
        let mut durable = hold.slot.durable.lock().await;
        if *durable > 0 && hello.oldest_sequence > *durable + 1 {
            // The batches between are gone for good: say so in the record, and go on with what the agent still has.
            let last = hello.oldest_sequence - 1;
            let first = Bytes::copy_from_slice(&(*durable + 1).to_le_bytes());
            let gap = self.entry(EntryKind::Gap, StreamId(stream), last, 0, first);
            tracing::warn!(node = hello.node, from = *durable + 1, to = last, "the agent no longer has these batches");
            let appended = async { Self::append(self.place().await?, gap, None, None).await };
            if let Err(text) = appended.await {
                return Err(refuse(answers, Reason::Unavailable, &text, *durable + 1).await);
            }
            *durable = last;
        }
        let welcome = Welcome {
            protocol: PROTOCOL,
            next_sequence: if *durable == 0 { 0 } else { *durable + 1 },
            server_unix_ns: self.clock.wall().0,
            max_batch_bytes: FRAME_BYTES_MAX as u64,
        };
        drop(durable);
        tracing::info!(node = hello.node, version = hello.version, next = welcome.next_sequence, "an agent connects");
        answer(answers, ToAgent::Welcome(welcome)).await?;
        Ok(hold)
    }

    async fn take(
        &self,
        (stream, oldest): (StreamId, u64),
        hold: &Hold,
        admitted: &Admitted,
        frame: Frame,
        answers: &Answers,
    ) -> Result<(), Over> {
        let received = self.clock.wall();
        let clock_offset_ns = (frame.sent_at_unix_ns != 0).then(|| frame.sent_at_unix_ns - received.0);
        self.counts.frame_bytes.fetch_add(frame.batch.len() as u64, Ordering::Relaxed);
        let mut durable = hold.slot.durable.lock().await;
        // A new stream begins no later than with the oldest batch that its agent has: an acknowledgement covers all before
        // it, too.
        let expected = if *durable == 0 { oldest.min(frame.sequence) } else { *durable + 1 };
        if frame.sequence <= *durable {
            self.counts.duplicates.fetch_add(1, Ordering::Relaxed);
            return answer(answers, ToAgent::Ack(Ack { sequence: *durable })).await;
        }
        let sequence = frame.sequence;
        // Before the batch is opened: what thousands of agents' batches wait as is what came, not the many times larger
        // records in it.
        let place = match self.place().await {
            Ok(place) => place,
            Err(text) => return Err(refuse(answers, Reason::Unavailable, &text, expected).await),
        };
        let batch = match frame::open(&frame) {
            Ok(batch) => batch,
            Err(error @ FrameError::TooLarge(_)) => {
                self.counts.too_large_frames.fetch_add(1, Ordering::Relaxed);
                return Err(refuse(answers, Reason::TooLarge, &error.to_string(), expected).await);
            }
            Err(error) => {
                self.counts.corrupt_frames.fetch_add(1, Ordering::Relaxed);
                return Err(refuse(answers, Reason::Corrupt, &error.to_string(), expected).await);
            }
        };
        // A tombstone whose range reaches up to it closes the hole before it.
        let closes_hole = batch
            .tombstone
            .as_ref()
            .is_some_and(|tombstone| tombstone.first_sequence <= expected && tombstone.last_sequence + 1 >= sequence);
        if expected > 0 && sequence != expected && !closes_hole {
            self.counts.out_of_sequence.fetch_add(1, Ordering::Relaxed);
            let text = format!("sequence {sequence} came, {expected} is next");
            return Err(refuse(answers, Reason::OutOfSequence, &text, expected).await);
        }
        if batch.stream_id.as_ref() != stream.0.as_slice() {
            self.counts.corrupt_frames.fetch_add(1, Ordering::Relaxed);
            return Err(refuse(answers, Reason::Corrupt, "the batch is of another stream", expected).await);
        }
        if let Err(text) = admitted.may_speak_for(&batch.node) {
            self.counts.unauthorized.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(node = batch.node, text, "refused a batch");
            let _ = answers.send(Err(Status::permission_denied(text))).await;
            return Err(Over);
        }
        let records = batch.records.len() as u64;
        let entry =
            NewEntry { received, ..self.entry(EntryKind::Batch, stream, sequence, frame.encoding as u8, frame.batch) };
        if let Err(text) = Self::append(place, entry, Some(batch), clock_offset_ns).await {
            return Err(refuse(answers, Reason::Unavailable, &text, expected).await);
        }
        *durable = sequence;
        drop(durable);
        self.counts.batches.fetch_add(1, Ordering::Relaxed);
        self.counts.records.fetch_add(records, Ordering::Relaxed);
        answer(answers, ToAgent::Ack(Ack { sequence })).await
    }

    fn entry(&self, kind: EntryKind, stream: StreamId, sequence: u64, encoding: u8, payload: Bytes) -> NewEntry {
        NewEntry { kind, encoding, stream, sequence, received: self.now(), payload }
    }

    fn now(&self) -> UnixNanos {
        self.clock.wall()
    }

    /// A place in the writer's queue.
    async fn place(&self) -> Result<mpsc::Permit<'_, Append>, String> {
        self.appends.reserve().await.map_err(|_closed| stopped())
    }

    /// Until it is durable.
    async fn append(
        place: mpsc::Permit<'_, Append>,
        entry: NewEntry,
        batch: Option<weir_wire::agent::Batch>,
        clock_offset_ns: Option<i64>,
    ) -> Result<(), String> {
        let (reply, durable) = oneshot::channel();
        place.send(Append { entry, batch, clock_offset_ns, reply });
        durable.await.map_err(|_dropped| stopped())?
    }
}

fn stopped() -> String {
    "the server is shutting down".to_owned()
}

async fn answer(answers: &Answers, message: ToAgent) -> Result<(), Over> {
    answers.send(Ok(ServerMessage { message: Some(message) })).await.map_err(|_gone| Over)
}

async fn refuse(answers: &Answers, reason: Reason, text: &str, next_sequence: u64) -> Over {
    tracing::warn!(reason = reason.as_str_name(), text, "refused an agent");
    let _ = answers.send(Ok(refusal(reason, text, next_sequence))).await;
    Over
}

fn refusal(reason: Reason, text: &str, next_sequence: u64) -> ServerMessage {
    let refusal = Refusal { reason: reason.into(), text: text.to_owned(), next_sequence };
    ServerMessage { message: Some(ToAgent::Refusal(refusal)) }
}
