//! What stands between the agents and the server: it drops, repeats, reorders, delays and damages messages, cuts calls,
//! keeps nodes apart from the server, and sends old batches again. And it writes down what the server acknowledged.
//!
//! It speaks the agent protocol on both sides, so that a fault hits a whole message; everything below is TCP's own.

use super::check::{Counter, Totals};
use super::random::Random;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use weir_wire::agent::agent_message::Message as FromAgent;
use weir_wire::agent::ingest_client::IngestClient;
use weir_wire::agent::ingest_server::{Ingest, IngestServer};
use weir_wire::agent::server_message::Message as ToAgent;
use weir_wire::agent::{AgentMessage, Frame, Hello, Record, ServerMessage, record::InstanceKind};

/// The longest that one message is held up.
const DELAY_MAX_MS: u64 = 250;
/// Frames of a stream that are kept to be sent again later.
const KEPT: usize = 64;
/// Far above what a batch of a run decompresses to.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// Messages on their way in one direction.
const QUEUE: usize = 64;

/// How often what happens, of a thousand messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// A message does not arrive.
    pub drop: u64,
    /// It arrives twice.
    pub repeat: u64,
    /// The next one overtakes it.
    pub reorder: u64,
    /// It is late.
    pub delay: u64,
    /// A byte of it is another one.
    pub damage: u64,
    /// An old batch of the stream comes before it.
    pub old: u64,
    /// The call ends instead.
    pub cut: u64,
}

/// What happened to messages and calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// Frames that came from agents.
    pub frames: u64,
    /// Acknowledgements that came from the server.
    pub acknowledgements: u64,
    /// Messages that were dropped.
    pub dropped: u64,
    /// Messages sent twice.
    pub repeated: u64,
    /// Frames that were overtaken.
    pub reordered: u64,
    /// Messages held up.
    pub delayed: u64,
    /// Frames damaged.
    pub damaged: u64,
    /// Old batches sent again.
    pub old: u64,
    /// Calls cut.
    pub cut: u64,
    /// Calls in which somebody else sent a stream's old batches in any order.
    pub ghosts: u64,
}

impl Happened {
    /// Everything that went wrong on purpose.
    pub fn faults(&self) -> u64 {
        self.dropped + self.repeated + self.reordered + self.delayed + self.damaged + self.old + self.cut + self.ghosts
    }
}

/// A batch that an agent sent.
#[derive(Debug)]
struct Sent {
    frame: Frame,
    records: Vec<(Counter, Totals)>,
    /// When its agent polled, nanoseconds of `CLOCK_MONOTONIC`; 0 where it is of no poll.
    polled: u64,
    /// What it stands for, as a tombstone.
    dropped: Option<RangeInclusive<u64>>,
}

#[derive(Debug, Default)]
struct Stream {
    hello: Option<Hello>,
    batches: BTreeMap<u64, Sent>,
    acknowledged: u64,
    /// The last poll of which a batch is acknowledged.
    told_to: u64,
    /// What the server said last that it has.
    welcomed: u64,
    /// Sequences that the agent went on without: an acknowledgement of a later one says nothing of them.
    skipped: BTreeSet<u64>,
    /// Bytes of each batch that went on to the server, those that it tells as lost included; whether it arrived is another
    /// question.
    under_way: BTreeMap<u64, u64>,
    /// Those that a tombstone stands for.
    dropped: BTreeSet<u64>,
}

impl Stream {
    fn skip(&mut self, from: u64, to: u64) {
        self.skipped.extend(from..to);
    }
}

#[derive(Debug)]
struct Shared {
    server: Option<SocketAddr>,
    apart: BTreeSet<String>,
    streams: BTreeMap<Vec<u8>, Stream>,
    acknowledged: BTreeMap<Counter, Totals>,
    happened: Happened,
    rates: Rates,
    random: Random,
}

/// A running relay; ends when dropped.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Mutex<Shared>>,
    runtime: Option<tokio::runtime::Runtime>,
    /// Where agents deliver.
    pub address: SocketAddr,
}

#[derive(Clone, Debug)]
struct Service {
    shared: Arc<Mutex<Shared>>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    /// Listens on a free port of `ip`.
    ///
    /// # Errors
    /// When there is none.
    pub fn start(ip: IpAddr, random: Random, rates: Rates) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind((ip, 0)))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Mutex::new(Shared {
            server: None,
            apart: BTreeSet::new(),
            streams: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            happened: Happened::default(),
            rates,
            random,
        }));
        let service = Service { shared: Arc::clone(&shared) };
        let ingest = IngestServer::new(service).max_decoding_message_size(BATCH_BYTES_MAX);
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(ingest)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Ok(Self { shared, runtime: Some(runtime), address })
    }

    /// Where the server listens now; `None` while it does not.
    pub fn server(&self, address: Option<SocketAddr>) {
        lock(&self.shared).server = address;
    }

    /// Keeps a node from the server, or lets it through again; whether that changed anything. Calls that are under way
    /// stand still.
    pub fn apart(&self, node: &str, apart: bool) -> bool {
        let mut shared = lock(&self.shared);
        if apart { shared.apart.insert(node.to_owned()) } else { shared.apart.remove(node) }
    }

    /// From now on nothing goes wrong any more.
    pub fn behave(&self) {
        let mut shared = lock(&self.shared);
        shared.rates = Rates::default();
        shared.apart.clear();
    }

    /// What the server has acknowledged so far: each counter with the largest totals.
    pub fn acknowledged(&self) -> BTreeMap<Counter, Totals> {
        lock(&self.shared).acknowledged.clone()
    }

    /// Bytes by node of batches that went on to the server, and that a tombstone stands for: their agent may have had to
    /// drop them before it could learn that they had arrived.
    pub fn dropped_under_way(&self) -> BTreeMap<String, u64> {
        let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
        for stream in lock(&self.shared).streams.values() {
            let Some(hello) = &stream.hello else { continue };
            let dropped = stream.under_way.iter().filter(|(sequence, _)| stream.dropped.contains(sequence));
            *bytes.entry(hello.node.clone()).or_default() += dropped.map(|(_, bytes)| bytes).sum::<u64>();
        }
        bytes
    }

    /// Up to which poll (`CLOCK_MONOTONIC`, nanoseconds) a node's agent has told all: a batch of it is acknowledged, and
    /// with that everything before.
    pub fn told_to(&self, node: &str) -> u64 {
        let shared = lock(&self.shared);
        let of_node = |stream: &&Stream| stream.hello.as_ref().is_some_and(|hello| hello.node == node);
        shared.streams.values().filter(of_node).map(|stream| stream.told_to).max().unwrap_or(0)
    }

    /// How many batches of a node came so far and are still kept.
    pub fn batches(&self, node: &str) -> usize {
        let shared = lock(&self.shared);
        let of_node = |stream: &&Stream| stream.hello.as_ref().is_some_and(|hello| hello.node == node);
        shared.streams.values().filter(of_node).map(|stream| stream.batches.len()).sum()
    }

    /// See [`Happened`].
    pub fn happened(&self) -> Happened {
        lock(&self.shared).happened
    }

    /// Somebody sends a node's old batches in any order, as the agent would with this greeting; to be called while the
    /// agent is dead.
    pub fn ghost(&self, node: &str) {
        let (hello, frames, server) = {
            let mut shared = lock(&self.shared);
            let Some(server) = shared.server else { return };
            let mut random = shared.random.fork();
            let of_node = |stream: &&Stream| stream.hello.as_ref().is_some_and(|hello| hello.node == node);
            let Some(stream) = shared.streams.values().find(of_node) else { return };
            let Some(hello) = stream.hello.clone() else { return };
            let all: Vec<Frame> = stream.batches.values().map(|sent| sent.frame.clone()).collect();
            let frames: Vec<Frame> = (0..6).filter_map(|_| random.pick(&all).cloned()).collect();
            shared.happened.ghosts += 1;
            for frame in &frames {
                shared.note_under_way(&hello.stream_id, frame);
            }
            (hello, frames, server)
        };
        let Some(runtime) = &self.runtime else { return };
        let call = async move {
            let mut client = client(server).await.ok()?;
            let (sender, receiver) = mpsc::channel(QUEUE);
            sender.send(AgentMessage { message: Some(FromAgent::Hello(hello)) }).await.ok()?;
            let mut answers = client.deliver(ReceiverStream::new(receiver)).await.ok()?.into_inner();
            answers.message().await.ok()?;
            for frame in frames {
                sender.send(AgentMessage { message: Some(FromAgent::Frame(frame)) }).await.ok()?;
                answers.message().await.ok()??;
            }
            Some(())
        };
        // What the server says to it is the server's business: it must not count any of it twice.
        let _ = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(2), call).await });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

async fn client(server: SocketAddr) -> Result<IngestClient<Channel>, tonic::transport::Error> {
    Ok(IngestClient::new(Endpoint::from_shared(format!("http://{server}"))?.connect().await?))
}

/// The counter of a record, as answers name it.
fn counter(node: &str, record: &Record) -> Option<(Counter, Totals)> {
    let kind = match record.instance_kind() {
        InstanceKind::Socket => "socket",
        InstanceKind::Peer => "peer",
        _ => return None,
    };
    let (local, remote) = (record.local.as_ref()?.end()?, record.remote.as_ref()?.end()?);
    let key = format!("{}-{}-{}-{}", local.ip(), remote.ip(), local.port(), remote.port());
    let counter = (node.to_owned(), format!("{kind}:{}", record.cookie), record.generation, key);
    Some((counter, (record.sent_total, record.recv_total)))
}

impl Shared {
    fn note_hello(&mut self, hello: &Hello) {
        let entry = self.streams.entry(hello.stream_id.to_vec()).or_default();
        entry.skip(entry.acknowledged + 1, hello.oldest_sequence);
        entry.hello = Some(hello.clone());
    }

    /// `last` is the sequence before it in this call.
    fn note_frame(&mut self, stream: &[u8], frame: &Frame, last: &mut Option<u64>) {
        self.happened.frames += 1;
        let Ok(batch) = frame.open(BATCH_BYTES_MAX) else { return };
        let records = batch.records.iter().filter_map(|record| counter(&batch.node, record)).collect();
        let entry = self.streams.entry(stream.to_vec()).or_default();
        let oldest = entry.hello.as_ref().map_or(0, |hello| hello.oldest_sequence);
        let before = last.unwrap_or_else(|| entry.welcomed.max(oldest.saturating_sub(1)));
        entry.skip(before + 1, frame.sequence);
        *last = Some(frame.sequence.max(before));
        let dropped = batch.tombstone.map(|tombstone| tombstone.first_sequence..=tombstone.last_sequence);
        entry.dropped.extend(dropped.iter().cloned().flatten());
        let sent = Sent { frame: frame.clone(), records, polled: batch.monotonic_ns, dropped };
        entry.batches.insert(frame.sequence, sent);
    }

    fn note_under_way(&mut self, stream: &[u8], frame: &Frame) {
        let Ok(batch) = frame.open(BATCH_BYTES_MAX) else { return };
        let moved: u64 = batch.records.iter().map(|record| record.sent_delta + record.recv_delta).sum();
        let bytes = moved + batch.losses.iter().map(|loss| loss.bytes).sum::<u64>();
        self.streams.entry(stream.to_vec()).or_default().under_way.insert(frame.sequence, bytes);
    }

    fn note_acknowledged(&mut self, stream: &[u8], sequence: u64) {
        self.happened.acknowledgements += 1;
        let Some(entry) = self.streams.get_mut(stream) else { return };
        if sequence <= entry.acknowledged {
            return;
        }
        let covered = || entry.batches.range(entry.acknowledged + 1..=sequence);
        // A tombstone closes the hole before it: where one is among them, it may have come instead of what it stands for.
        let dropped: Vec<_> = covered().filter_map(|(_, sent)| sent.dropped.clone()).collect();
        for (number, sent) in covered() {
            if entry.skipped.contains(number) || dropped.iter().any(|dropped| dropped.contains(number)) {
                continue;
            }
            entry.told_to = entry.told_to.max(sent.polled);
            for (counter, totals) in &sent.records {
                let held = self.acknowledged.entry(counter.clone()).or_default();
                *held = (held.0.max(totals.0), held.1.max(totals.1));
            }
        }
        entry.acknowledged = sequence;
        while entry.batches.len() > KEPT && entry.batches.first_key_value().is_some_and(|(first, _)| *first <= sequence)
        {
            entry.batches.pop_first();
        }
    }

    /// What becomes of a frame: the messages that go on, in order, and whether the call ends.
    fn mangle(&mut self, stream: &[u8], frame: Frame, held: &mut Option<Frame>) -> (Vec<Frame>, bool) {
        let rates = self.rates;
        let mut out = Vec::new();
        if self.random.permille(rates.cut) {
            self.happened.cut += 1;
            return (out, true);
        }
        if self.random.permille(rates.old) {
            let old: Vec<&Sent> =
                self.streams.get(stream).into_iter().flat_map(|stream| stream.batches.values()).collect();
            if let Some(sent) = self.random.pick(&old) {
                out.push(sent.frame.clone());
                self.happened.old += 1;
            }
        }
        if self.random.permille(rates.drop) {
            self.happened.dropped += 1;
        } else if held.is_none() && self.random.permille(rates.reorder) {
            self.happened.reordered += 1;
            *held = Some(frame);
            return (out, false);
        } else if self.random.permille(rates.damage) {
            self.happened.damaged += 1;
            let mut damaged = frame;
            let mut bytes = damaged.batch.to_vec();
            let at = self.random.below(bytes.len() as u64) as usize;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << self.random.below(8);
            }
            damaged.batch = bytes.into();
            out.push(damaged);
        } else {
            if self.random.permille(rates.repeat) {
                self.happened.repeated += 1;
                out.push(frame.clone());
            }
            out.push(frame);
        }
        out.extend(held.take());
        (out, false)
    }

    fn delay(&mut self) -> Duration {
        if !self.random.permille(self.rates.delay) {
            return Duration::ZERO;
        }
        self.happened.delayed += 1;
        Duration::from_millis(self.random.below(DELAY_MAX_MS))
    }
}

impl Service {
    async fn gate(&self, node: &str) {
        while lock(&self.shared).apart.contains(node) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn carry_frames(
        self,
        hello: Hello,
        mut from: Streaming<AgentMessage>,
        to: mpsc::Sender<AgentMessage>,
    ) -> Option<()> {
        let stream = hello.stream_id.to_vec();
        let (mut held, mut last) = (None, None);
        while let Ok(Some(AgentMessage { message: Some(FromAgent::Frame(frame)) })) = from.message().await {
            lock(&self.shared).note_frame(&stream, &frame, &mut last);
            self.gate(&hello.node).await;
            let (frames, is_cut) = lock(&self.shared).mangle(&stream, frame, &mut held);
            for frame in frames {
                let delay = lock(&self.shared).delay();
                tokio::time::sleep(delay).await;
                lock(&self.shared).note_under_way(&stream, &frame);
                to.send(AgentMessage { message: Some(FromAgent::Frame(frame)) }).await.ok()?;
            }
            if is_cut {
                return None;
            }
        }
        None
    }

    async fn carry_answers(
        self,
        hello: Hello,
        mut from: Streaming<ServerMessage>,
        to: mpsc::Sender<Result<ServerMessage, Status>>,
    ) -> Option<()> {
        let stream = hello.stream_id.to_vec();
        while let Ok(Some(message)) = from.message().await {
            let mut times = 1;
            if let Some(ToAgent::Ack(ack)) = &message.message {
                let mut shared = lock(&self.shared);
                shared.note_acknowledged(&stream, ack.sequence);
                let rates = shared.rates;
                if shared.random.permille(rates.drop) {
                    shared.happened.dropped += 1;
                    times = 0;
                } else if shared.random.permille(rates.repeat) {
                    shared.happened.repeated += 1;
                    times = 2;
                }
            }
            self.gate(&hello.node).await;
            let delay = lock(&self.shared).delay();
            tokio::time::sleep(delay).await;
            if let Some(ToAgent::Welcome(welcome)) = &message.message {
                let mut shared = lock(&self.shared);
                shared.streams.entry(stream.clone()).or_default().welcomed = welcome.next_sequence.saturating_sub(1);
            }
            for _ in 0..times {
                to.send(Ok(message.clone())).await.ok()?;
            }
        }
        None
    }
}

#[tonic::async_trait]
impl Ingest for Service {
    type DeliverStream = ReceiverStream<Result<ServerMessage, Status>>;

    async fn deliver(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let mut from_agent = request.into_inner();
        let Some(AgentMessage { message: Some(FromAgent::Hello(hello)) }) = from_agent.message().await? else {
            return Err(Status::invalid_argument("the first message must be Hello"));
        };
        self.gate(&hello.node).await;
        let server = lock(&self.shared).server.ok_or_else(|| Status::unavailable("there is no server"))?;
        let mut client = client(server).await.map_err(|error| Status::unavailable(error.to_string()))?;
        let (to_server, frames) = mpsc::channel(QUEUE);
        let greeting = AgentMessage { message: Some(FromAgent::Hello(hello.clone())) };
        // Before it is sent: as soon as the server has it, an earlier call's acknowledgement may cover what this one skips.
        lock(&self.shared).note_hello(&hello);
        to_server.send(greeting).await.map_err(|_closed| Status::unavailable("the call is over"))?;
        let from_server = client.deliver(ReceiverStream::new(frames)).await?.into_inner();
        let (to_agent, answers) = mpsc::channel(QUEUE);
        let (up, down) = (self.clone(), self.clone());
        #[expect(clippy::disallowed_methods, reason = "ends with the call, or with the relay's runtime")]
        tokio::spawn(async move {
            // Whichever ends first ends the call in both directions.
            tokio::select! {
                _ = up.carry_frames(hello.clone(), from_agent, to_server) => {}
                _ = down.carry_answers(hello.clone(), from_server, to_agent) => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
