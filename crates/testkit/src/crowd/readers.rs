//! Readers: many who ask one server at the same time, each over a connection of its own, and how long they wait.

use anyhow::{Context, Result, ensure};
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// An answer is at most so long.
const BODY_BYTES_MAX: usize = 64 << 20;

/// What readers ask, most often what people and the page do: its name, how many of [`QUESTIONS`]' turns it has, and the
/// path.
pub const QUESTIONS: &[(&str, usize, &str)] = &[
    ("edges of 5 min by workload", 5, "/api/v1/edges?since=5m"),
    ("edges of 5 min by namespace", 4, "/api/v1/edges?since=5m&by=namespace"),
    ("edges of 5 min, one port", 3, "/api/v1/edges?since=5m&filter=port%3D443"),
    ("edges of 5 min by pod, one workload", 3, "/api/v1/edges?since=5m&by=pod&filter=workload~%22app-3-*%22"),
    ("edges of 1 h by workload", 2, "/api/v1/edges?since=1h"),
    ("edges of 1 h by namespace", 2, "/api/v1/edges?since=1h&by=namespace"),
    ("edges of 24 h by namespace", 1, "/api/v1/edges?since=24h&by=namespace"),
    ("series of 1 h by namespace", 2, "/api/v1/series?since=1h&by=namespace"),
    ("series of 5 min, 10 largest workloads", 2, "/api/v1/series?since=5m"),
];

/// Who reads.
#[derive(Clone, Copy, Debug)]
pub struct Readers {
    /// How many at the same time.
    pub count: usize,
    /// For how long they go on.
    pub lasts: Duration,
    /// What is asked before so much of it has passed is told apart: nothing has been asked of the server before.
    pub first: Duration,
    /// Between an answer and the next question.
    pub pause: Duration,
    /// How old an answer they take, seconds, as the page does; `None`: each is made for who asks.
    pub age_max_s: Option<u64>,
    /// How much older an answer they take rather than to wait, seconds.
    pub stale_max_s: Option<u64>,
    /// Each has a filter of its own, so that no two ask the same.
    pub are_all_different: bool,
}

/// How long the answers to one question took, in ascending order.
#[derive(Clone, Debug)]
pub struct Waited {
    /// The question's name.
    pub question: &'static str,
    /// From the request to the last byte of its answer.
    pub times: Vec<Duration>,
    /// How old the answers were, seconds, as they say, in ascending order.
    pub ages_s: Vec<u64>,
}

impl Waited {
    /// So many of 1 were faster. Zero without answers.
    pub fn quantile(&self, quantile: f64) -> Duration {
        at(&self.times, quantile)
    }

    /// So many of 1 were younger, seconds. Zero without answers.
    pub fn age_s(&self, quantile: f64) -> u64 {
        at(&self.ages_s, quantile)
    }
}

fn at<T: Copy + Default>(sorted: &[T], quantile: f64) -> T {
    let index = (sorted.len() as f64 * quantile) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// An answer that was waited for.
struct Got {
    question: usize,
    asked: Instant,
    took: Duration,
    age_s: u64,
}

/// Asks, and goes on until the time is over. Gives what was asked first, then the waits of all other questions together,
/// then each.
///
/// # Errors
/// When the server cannot be reached, or answers with anything but 200.
pub async fn read(server: SocketAddr, readers: Readers) -> Result<Vec<Waited>> {
    let began = Instant::now();
    let (until, first) = (began + readers.lasts, began + readers.first);
    let mut tasks = JoinSet::new();
    for reader in 0..readers.count {
        tasks.spawn(one(server, readers, reader, until));
    }
    let mut waited: Vec<Waited> = ["asked first", "all others"]
        .into_iter()
        .chain(QUESTIONS.iter().map(|(name, ..)| *name))
        .map(|question| Waited { question, times: Vec::new(), ages_s: Vec::new() })
        .collect();
    while let Some(done) = tasks.join_next().await {
        for got in done?? {
            let at: &[usize] = if got.asked < first { &[0] } else { &[1, got.question + 2] };
            for at in at {
                waited[*at].times.push(got.took);
                waited[*at].ages_s.push(got.age_s);
            }
        }
    }
    for one in &mut waited {
        one.times.sort_unstable();
        one.ages_s.sort_unstable();
    }
    Ok(waited)
}

/// The turns of the questions, spread so that the same one is not asked twice in a row.
fn turns() -> Vec<usize> {
    let most = QUESTIONS.iter().map(|(_, turns, _)| *turns).max().unwrap_or_default();
    let mut order = Vec::new();
    for round in 0..most {
        order.extend((0..QUESTIONS.len()).filter(|question| QUESTIONS[*question].1 > round));
    }
    order
}

async fn one(server: SocketAddr, readers: Readers, reader: usize, until: Instant) -> Result<Vec<Got>> {
    let mut connection = JoinSet::new();
    let mut sender = open(server, &mut connection).await?;
    let order = turns();
    let mut waited = Vec::new();
    // Each begins at another question.
    for turn in reader * 7.. {
        let question = order[turn % order.len()];
        let mut path = QUESTIONS[question].2.to_owned();
        if readers.are_all_different {
            // A filter that lets everything through takes as long as any other.
            path = format!("{path}&cidr=10.0.0.0/{}&limit={}", 8 - reader % 3, 500 + reader);
        }
        let began = Instant::now();
        if began >= until {
            break;
        }
        let mut request = Request::get(&path).header(header::HOST, "weir");
        for (directive, seconds) in [("max-age", readers.age_max_s), ("max-stale", readers.stale_max_s)] {
            if let Some(seconds) = seconds {
                request = request.header(header::CACHE_CONTROL, format!("{directive}={seconds}"));
            }
        }
        let request = request.body(Body::empty())?;
        sender.ready().await.context("the server closed the connection")?;
        let answer = sender.send_request(request).await.with_context(|| format!("failed to ask {path}"))?;
        let status = answer.status();
        let age_s =
            answer.headers().get(header::AGE).and_then(|age| age.to_str().ok()?.parse().ok()).unwrap_or_default();
        let body = to_bytes(Body::new(answer.into_body()), BODY_BYTES_MAX).await?;
        ensure!(status.is_success(), "{path} answered {status}: {}", String::from_utf8_lossy(&body));
        waited.push(Got { question, asked: began, took: began.elapsed(), age_s });
        if !readers.pause.is_zero() {
            sleep(readers.pause).await;
        }
    }
    Ok(waited)
}

async fn open(server: SocketAddr, driver: &mut JoinSet<()>) -> Result<SendRequest<Body>> {
    let stream = TcpStream::connect(server).await.context("failed to connect")?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    driver.spawn(async move {
        // What ends it is seen by who sends the next request.
        let _ended = connection.await;
    });
    Ok(sender)
}
