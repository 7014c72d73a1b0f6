//! One call to the server: Hello, Welcome, frames out, acknowledgements in.

use super::{Exporter, MAX_MESSAGE, Stop, WINDOW};
use crate::commit::{VERSION, lock};
use crate::spool::SpoolError;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Streaming};
use weir_daemon::failpoint;
use weir_wire::agent::agent_message::Message as Out;
use weir_wire::agent::ingest_client::IngestClient;
use weir_wire::agent::refusal::Reason;
use weir_wire::agent::server_message::Message as In;
use weir_wire::agent::{AgentMessage, BATCH_FORMAT, Batch, Frame, Hello, PROTOCOL, Refusal, ServerMessage, Tombstone};
use weir_wire::losses::BATCH_MISSING;

/// How long the server may take to welcome.
const WELCOME: Duration = Duration::from_secs(10);
/// How long it may take to acknowledge: it fsyncs a group of batches, which a busy disk holds up for seconds.
const ACKNOWLEDGE: Duration = Duration::from_secs(60);

/// Why a call ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The server cannot be reached.
    #[error("failed to connect: {}", cause(.0))]
    Connect(#[source] tonic::transport::Error),
    /// The call failed.
    #[error("the call failed: {}: {}", .0.code(), .0.message())]
    Call(Box<tonic::Status>),
    /// The server ended the call.
    #[error("the server ended the call")]
    Ended,
    /// No welcome in time.
    #[error("the server did not welcome this agent within {WELCOME:?}")]
    NoWelcome,
    /// No acknowledgement in time.
    #[error("the server acknowledged nothing for {ACKNOWLEDGE:?}")]
    Stuck,
    /// Something else than a welcome first.
    #[error("the server's first message is no welcome")]
    Unexpected,
    /// A protocol that this build does not speak.
    #[error("the server speaks protocol {0}, this agent {PROTOCOL}: upgrade the older of the two")]
    Protocol(u32),
    /// The server refused.
    #[error("the server refused ({}): {text}", reason.as_str_name().to_ascii_lowercase())]
    Refused {
        /// Why.
        reason: Reason,
        /// In the server's words.
        text: String,
    },
    /// The token cannot be read or sent.
    #[error("failed to use token file {}: {why}", path.display())]
    Token {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The spool cannot be read.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl SessionError {
    /// A fixed word for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            // The server does not accept the token, or not for this node: its words say which and how to mend it.
            Self::Call(status) if status.code() == tonic::Code::Unauthenticated => "unauthenticated",
            Self::Call(status) if status.code() == tonic::Code::PermissionDenied => "not_allowed",
            Self::Call(_) => "call",
            Self::Ended => "ended",
            Self::NoWelcome => "no_welcome",
            Self::Stuck => "stuck",
            Self::Unexpected => "unexpected",
            Self::Protocol(_) | Self::Refused { reason: Reason::Protocol, .. } => "protocol",
            Self::Refused { reason: Reason::SecondWriter, .. } => "second_writer",
            Self::Refused { reason: Reason::Corrupt, .. } => "corrupt",
            Self::Refused { reason: Reason::OutOfSequence, .. } => "out_of_sequence",
            Self::Refused { reason: Reason::Unavailable, .. } => "unavailable",
            Self::Refused { reason: Reason::TooLarge, .. } => "too_large",
            Self::Refused { reason: Reason::Unspecified, .. } => "refused",
            Self::Token { .. } => "token",
            Self::Spool(_) => "spool",
        }
    }
}

/// The innermost cause: tonic's own words are only "transport error".
fn cause(error: &tonic::transport::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A call that was welcomed.
pub(super) struct Session<'a> {
    exporter: &'a Exporter,
    out: mpsc::Sender<AgentMessage>,
    answers: Streaming<ServerMessage>,
    /// The next sequence to send.
    next: u64,
    /// Sent and not acknowledged.
    in_flight: BTreeSet<u64>,
    max_batch: usize,
}

impl<'a> Session<'a> {
    /// Says Hello and waits for the Welcome.
    pub(super) async fn open(exporter: &'a Exporter, channel: Channel) -> Result<Self, SessionError> {
        // Hello, and one window of frames.
        let (out, messages) = mpsc::channel(WINDOW + 1);
        let hello = hello(exporter);
        let oldest = hello.oldest_sequence;
        let _ = out.try_send(AgentMessage { message: Some(Out::Hello(hello)) });
        let mut request = Request::new(ReceiverStream::new(messages));
        if let Some(path) = &exporter.token_file {
            request.metadata_mut().insert("authorization", bearer(path)?);
        }
        let mut client =
            IngestClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        let welcome = async {
            let mut answers = client.deliver(request).await.map_err(call)?.into_inner();
            let first = answers.message().await.map_err(call)?.ok_or(SessionError::Ended)?;
            Ok((answers, first))
        };
        let (answers, first) = tokio::time::timeout(WELCOME, welcome).await.unwrap_or(Err(SessionError::NoWelcome))?;
        let welcome = match first.message {
            Some(In::Welcome(welcome)) => welcome,
            Some(In::Refusal(refusal)) => return Err(refused(refusal)),
            _ => return Err(SessionError::Unexpected),
        };
        if welcome.protocol != PROTOCOL {
            return Err(SessionError::Protocol(welcome.protocol));
        }
        exporter.metrics.server_connected.set(1);
        let next = {
            let mut spool = lock(&exporter.spool);
            if welcome.next_sequence > spool.next_sequence() {
                tracing::warn!(
                    server = welcome.next_sequence,
                    spool = spool.next_sequence(),
                    "the server has batches of this stream that the spool has not: the spool is older than what was sent"
                );
                spool.skip_to(welcome.next_sequence);
            }
            if welcome.next_sequence > 0 {
                spool.acknowledge(welcome.next_sequence - 1)?;
                welcome.next_sequence
            } else {
                // As Hello said, for there a new stream begins: what the spool has dropped since then is told as holes.
                oldest
            }
        };
        let max_batch = if welcome.max_batch_bytes == 0 { MAX_MESSAGE } else { welcome.max_batch_bytes as usize };
        tracing::info!(server = %exporter.server.uri(), next, "the server takes batches");
        Ok(Self { exporter, out, answers, next, in_flight: BTreeSet::new(), max_batch })
    }

    /// Sends what is in the spool and what comes, until all is acknowledged after the stop, or the call ends.
    pub(super) async fn deliver(mut self, mut durable: watch::Receiver<u64>, stop: &Stop) -> Result<(), SessionError> {
        loop {
            self.send_waiting()?;
            if stop.drained.is_cancelled() && self.in_flight.is_empty() {
                return Ok(());
            }
            tokio::select! {
                answer = self.answers.message() => self.take(answer.map_err(call)?.ok_or(SessionError::Ended)?)?,
                changed = durable.changed(), if self.in_flight.len() < WINDOW => {
                    if changed.is_err() && self.in_flight.is_empty() {
                        // The observer is gone: nothing new will come.
                        stop.drained.cancelled().await;
                    }
                }
                () = stop.drained.cancelled(), if !stop.drained.is_cancelled() => {}
                () = tokio::time::sleep(ACKNOWLEDGE), if !self.in_flight.is_empty() => return Err(SessionError::Stuck),
            }
        }
    }

    /// Sends as far as the window allows.
    fn send_waiting(&mut self) -> Result<(), SessionError> {
        while self.in_flight.len() < WINDOW {
            let newest = lock(&self.exporter.spool).next_sequence();
            if self.next >= newest {
                return Ok(());
            }
            let frame = self.frame(self.next)?;
            if self.out.try_send(AgentMessage { message: Some(Out::Frame(frame)) }).is_err() {
                // The channel holds a whole window: it is full only when the transport has stopped reading.
                return Ok(());
            }
            failpoint::reach("frame-sent");
            self.exporter.metrics.frames.inc();
            self.in_flight.insert(self.next);
            self.next += 1;
        }
        Ok(())
    }

    /// The frame for a sequence. One that the spool does not have any more is told as a tombstone in its place, so that
    /// the server's sequence has no hole; what it held is in the tombstone that the spool wrote when it dropped it.
    fn frame(&self, sequence: u64) -> Result<Frame, SessionError> {
        let sent_at = self.exporter.clock.wall().0;
        let bytes = lock(&self.exporter.spool).read(sequence)?;
        if let Some(bytes) = bytes.filter(|bytes| bytes.len() <= self.max_batch) {
            return Ok(Frame::new(sequence, bytes, sent_at));
        }
        self.exporter.metrics.lose(BATCH_MISSING.place, BATCH_MISSING.word, 1);
        let bytes = self.hole(sequence).to_bytes().map_err(SpoolError::Compress)?;
        Ok(Frame::new(sequence, bytes.into(), sent_at))
    }

    fn hole(&self, sequence: u64) -> Batch {
        let stream_id = lock(&self.exporter.spool).stream().id;
        Batch {
            format: BATCH_FORMAT,
            stream_id: stream_id.to_vec().into(),
            sequence,
            node: self.exporter.identity.node.clone(),
            boot_id: self.exporter.identity.boot_id.to_vec().into(),
            covered: false,
            gap_reason: BATCH_MISSING.word.into(),
            tombstone: Some(Tombstone { first_sequence: sequence, last_sequence: sequence, ..Tombstone::default() }),
            ..Batch::default()
        }
    }

    fn take(&mut self, message: ServerMessage) -> Result<(), SessionError> {
        match message.message {
            Some(In::Ack(ack)) => {
                let waiting = self.in_flight.split_off(&(ack.sequence + 1));
                let done = std::mem::replace(&mut self.in_flight, waiting);
                self.exporter.metrics.acknowledged.inc_by(done.len() as u64);
                let mut spool = lock(&self.exporter.spool);
                spool.acknowledge(ack.sequence)?;
                failpoint::reach("acknowledgement-taken");
                if self.in_flight.is_empty() {
                    spool.write_acknowledged()?;
                }
                self.exporter.metrics.spool_bytes.set(spool.bytes() as i64);
                self.exporter.metrics.spool_waiting.set(spool.waiting() as i64);
                Ok(())
            }
            Some(In::Refusal(refusal)) => Err(refused(refusal)),
            // Messages of a later version are not for this one.
            Some(In::Welcome(_)) | None => Ok(()),
        }
    }
}

/// The token as it is now.
fn bearer(path: &Path) -> Result<MetadataValue<Ascii>, SessionError> {
    let failed = |why: String| SessionError::Token { path: path.to_owned(), why };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    match text.trim() {
        "" => Err(failed("it is empty".into())),
        token => MetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_text| failed("it holds something else than visible ASCII".into())),
    }
}

fn hello(exporter: &Exporter) -> Hello {
    let spool = lock(&exporter.spool);
    Hello {
        protocol: PROTOCOL,
        stream_id: spool.stream().id.to_vec().into(),
        agent_run: exporter.identity.agent_run.to_vec().into(),
        node: exporter.identity.node.clone(),
        boot_id: exporter.identity.boot_id.to_vec().into(),
        oldest_sequence: spool.oldest_sequence(),
        next_sequence: spool.next_sequence(),
        version: VERSION.into(),
        sent_at_unix_ns: exporter.clock.wall().0,
    }
}

fn refused(refusal: Refusal) -> SessionError {
    SessionError::Refused { reason: refusal.reason(), text: refusal.text }
}

fn call(status: tonic::Status) -> SessionError {
    SessionError::Call(Box::new(status))
}
