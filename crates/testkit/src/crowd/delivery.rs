//! Delivery by every member of a crowd over a connection of its own, as the agent's export does it: at most so many
//! batches unacknowledged, the rest waits. What a batch took is counted from when it was due, not from when its turn
//! came, so that a server that falls behind shows it.

use super::member::Crowd;
use anyhow::{Context, Result, bail};
use prost::bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Barrier, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;
use weir_wire::agent::agent_message::Message as FromAgent;
use weir_wire::agent::ingest_client::IngestClient;
use weir_wire::agent::server_message::Message as ToAgent;
use weir_wire::agent::{AgentMessage, Frame, Hello, PROTOCOL, ServerMessage};

/// As `weir-agent`: frames sent and not yet acknowledged.
const WINDOW: usize = 16;
/// As `weir-agent`: without an acknowledgement for so long an agent gives the call up.
const PATIENCE: Duration = Duration::from_secs(60);

/// After so many lost calls a member gives up.
const CALLS_LOST_MAX: u64 = 20;
/// As `weir-agent`: before it tries to reach a server again; every member a little later than the one before it.
const PAUSE: Duration = Duration::from_secs(1);

/// Batches as they go over the wire, by member and poll.
pub type Frames = Vec<Vec<Bytes>>;

/// How fast.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// The next batch as soon as the window lets it.
    Flat,
    /// A batch of each member every so long; the members one after the other.
    Every(Duration),
    /// The same, and so many batches before at once: an agent's that comes back.
    Late(Duration, u64),
}

impl Pace {
    /// Batches of a member that are due at once.
    pub fn backlog(self) -> u64 {
        if let Self::Late(_, backlog) = self { backlog } else { 0 }
    }
}

/// What delivering came to.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// From the first batch that was due to the last acknowledgement.
    pub took: Duration,
    /// Of each batch, from when it was due to its acknowledgement, in ascending order.
    pub acknowledged_after: Vec<Duration>,
    /// From when the last batch was due to the last acknowledgement.
    pub behind_at_the_end: Duration,
    /// Calls that ended before everything was delivered, and were made anew.
    pub calls_lost: u64,
}

/// Makes every batch, on as many threads as there are processors.
///
/// # Errors
/// When compression fails.
pub fn prepare(crowd: &Crowd) -> Result<Frames> {
    let threads = std::thread::available_parallelism()?.get();
    let share = crowd.members.div_ceil(threads);
    let made = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let members = (thread * share).min(crowd.members)..((thread + 1) * share).min(crowd.members);
                scope.spawn(move || {
                    let of = |member: usize| {
                        (0..crowd.polls).map(move |poll| Ok(crowd.batch(member as u64, poll).to_bytes()?.into()))
                    };
                    members.map(|member| of(member).collect()).collect::<Result<Frames>>()
                })
            })
            .collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut frames = Vec::with_capacity(crowd.members);
    for some in made {
        let Ok(some) = some else { bail!("a thread that made batches panicked") };
        frames.extend(some?);
    }
    Ok(frames)
}

/// Delivers all of `frames` to the server's `address`.
///
/// # Errors
/// When the server cannot be reached, or calls end again and again.
pub async fn deliver(address: SocketAddr, frames: Frames, pace: Pace) -> Result<Delivered> {
    let members = frames.len();
    let ready = Arc::new(Barrier::new(members));
    let mut tasks = JoinSet::new();
    for (member, frames) in frames.into_iter().enumerate() {
        let ready = Arc::clone(&ready);
        tasks.spawn(async move {
            let member = member as u64;
            let (session, calls_lost) = reach(address, member, frames.len() as u64).await?;
            ready.wait().await;
            let mut delivery = Delivery::new(frames, pace, member as f64 / members as f64);
            delivery.calls_lost = calls_lost;
            delivery.run(session, address, member).await?;
            Ok::<_, anyhow::Error>(delivery)
        });
    }
    let mut batches = Vec::new();
    let mut calls_lost = 0;
    while let Some(done) = tasks.join_next().await {
        let done = done??;
        calls_lost += done.calls_lost;
        batches.extend(done.due.into_iter().flatten().zip(done.acknowledged));
    }
    let due = |pick: fn(Instant, Instant) -> Instant| batches.iter().map(|(due, _)| *due).reduce(pick);
    let (Some(first), Some(last_due)) = (due(Instant::min), due(Instant::max)) else { bail!("there was no batch") };
    let last = batches.iter().map(|(_, acknowledged)| *acknowledged).max().unwrap_or(first);
    let mut acknowledged_after: Vec<Duration> =
        batches.iter().map(|(due, acknowledged)| acknowledged.saturating_duration_since(*due)).collect();
    acknowledged_after.sort_unstable();
    let behind_at_the_end = last.saturating_duration_since(last_due);
    Ok(Delivered { took: last - first, acknowledged_after, behind_at_the_end, calls_lost })
}

/// A session, and how many calls came to none before: when thousands come at once, a server's queue of connections is full.
async fn reach(address: SocketAddr, member: u64, batches: u64) -> Result<(Session, u64)> {
    let mut lost = 0;
    loop {
        match Session::open(address, member, batches).await {
            Ok(session) => return Ok((session, lost)),
            Err(error) if lost == CALLS_LOST_MAX => return Err(error),
            Err(_) => lost += 1,
        }
        sleep(PAUSE + Duration::from_millis(member % 1_000)).await;
    }
}

/// A call that was welcomed.
struct Session {
    out: mpsc::Sender<AgentMessage>,
    answers: Streaming<ServerMessage>,
    /// How many batches the server has.
    has: usize,
}

impl Session {
    async fn open(address: SocketAddr, member: u64, batches: u64) -> Result<Self> {
        let channel =
            Endpoint::from_shared(format!("http://{address}"))?.connect().await.context("failed to connect")?;
        let (out, messages) = mpsc::channel(WINDOW + 1);
        let hello = Hello {
            protocol: PROTOCOL,
            stream_id: Crowd::stream_id(member),
            agent_run: Crowd::stream_id(member),
            node: Crowd::node(member),
            boot_id: vec![7; 16].into(),
            oldest_sequence: 1,
            next_sequence: batches + 1,
            version: env!("CARGO_PKG_VERSION").into(),
            ..Hello::default()
        };
        out.try_send(AgentMessage { message: Some(FromAgent::Hello(hello)) })?;
        let mut answers = IngestClient::new(channel).deliver(ReceiverStream::new(messages)).await?.into_inner();
        match timeout(PATIENCE, answers.message()).await??.and_then(|answer| answer.message) {
            Some(ToAgent::Welcome(welcome)) => {
                Ok(Self { out, answers, has: welcome.next_sequence.saturating_sub(1) as usize })
            }
            other => bail!("the server did not welcome: {other:?}"),
        }
    }
}

/// One member's batches and how far they are.
struct Delivery {
    frames: Vec<Bytes>,
    /// When each is due; where nothing paces them, when it was sent first.
    due: Vec<Option<Instant>>,
    acknowledged: Vec<Instant>,
    sent: usize,
    calls_lost: u64,
}

impl Delivery {
    fn new(frames: Vec<Bytes>, pace: Pace, place: f64) -> Self {
        let began = Instant::now();
        let due = (0..frames.len())
            .map(|poll| match pace {
                Pace::Flat => None,
                Pace::Every(every) | Pace::Late(every, _) => {
                    Some(began + every.mul_f64((place + poll as f64 - pace.backlog() as f64).max(0.0)))
                }
            })
            .collect();
        Self { frames, due, acknowledged: Vec::new(), sent: 0, calls_lost: 0 }
    }

    /// Delivers everything. A call that ends, or in which nothing is acknowledged for too long, is made anew, and the
    /// server says from where on to send, as to an agent.
    async fn run(&mut self, mut session: Session, address: SocketAddr, member: u64) -> Result<()> {
        while let Err(error) = self.over(&mut session).await {
            self.calls_lost += 1;
            if self.calls_lost > CALLS_LOST_MAX {
                return Err(error);
            }
            let (anew, calls_lost) = reach(address, member, self.frames.len() as u64).await?;
            self.calls_lost += calls_lost;
            session = anew;
            self.has(session.has);
            self.sent = session.has;
        }
        Ok(())
    }

    /// The server has so many.
    fn has(&mut self, batches: usize) {
        self.acknowledged.resize(batches.max(self.acknowledged.len()), Instant::now());
    }

    async fn over(&mut self, session: &mut Session) -> Result<()> {
        while self.acknowledged.len() < self.frames.len() {
            let in_flight = self.sent - self.acknowledged.len();
            let may_send = in_flight < WINDOW && self.sent < self.frames.len();
            let due = self.due.get(self.sent).copied().flatten().unwrap_or_else(Instant::now);
            tokio::select! {
                () = sleep_until(due), if may_send => {
                    let frame = Frame::new(self.sent as u64 + 1, self.frames[self.sent].clone(), 0);
                    self.due[self.sent].get_or_insert(due);
                    session.out.send(AgentMessage { message: Some(FromAgent::Frame(frame)) }).await?;
                    self.sent += 1;
                }
                answer = timeout(PATIENCE, session.answers.message()), if in_flight > 0 => {
                    let answer = answer.context("the server acknowledged nothing for a minute")??;
                    match answer.and_then(|answer| answer.message) {
                        Some(ToAgent::Ack(ack)) => self.has(ack.sequence as usize),
                        other => bail!("the server does not take batches: {other:?}"),
                    }
                }
            }
        }
        Ok(())
    }
}
