//! The feed's server: HTTP/1.1 on a unix socket, for readers of this machine.
//!
//! A reply to `GET /connections` is streamed in chunks as the client reads it: the rows lie in memory once, as the
//! kernel gave them, and their JSON only a chunk at a time.

use crate::clients::{Fetch, ID_LENGTH_MAX, Wants};
use crate::dns::queue::Told;
use crate::engine::{Command, Open, Snapshot, take_last};
use crate::journal::Record;
use crate::places::Place;
use crate::rows::{Last, Life, to_feed};
use crate::scope::Scope;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weir_wire::feed::Processes;

/// One agent, `weir up`, and people with curl; each connection costs some kilobytes.
const CONNECTIONS_MAX: usize = 32;
/// Each snapshot holds its rows (170 bytes a connection) until its reader has them.
const SNAPSHOTS_MAX: usize = 4;
/// A reader that takes nothing for so long has its connection closed.
const WRITE_STALL: Duration = Duration::from_secs(30);
/// From accept, or from the last reply, to a complete request head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
const CHUNK: usize = 64 << 10;
/// Chunks that wait for the reader: two keep the socket's buffer full.
const CHUNKS: usize = 2;

/// What the handlers need.
#[derive(Clone, Debug)]
pub struct Feed {
    engine: SyncSender<Command>,
    snapshots: Arc<Semaphore>,
    boot_id: Arc<str>,
    scope: Option<Arc<Scope>>,
}

impl Feed {
    /// Answers through `engine`; processes are those of `scope`.
    pub fn new(engine: SyncSender<Command>, boot_id: &str, scope: Option<Scope>) -> Self {
        let snapshots = Arc::new(Semaphore::new(SNAPSHOTS_MAX));
        Self { engine, snapshots, boot_id: boot_id.into(), scope: scope.map(Arc::new) }
    }
}

/// Serves until `shutdown`, then lets replies under way end for a second.
pub async fn serve(listener: UnixListener, feed: Feed, shutdown: CancellationToken) -> anyhow::Result<()> {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = Arc::clone(&permits).acquire_owned() => permit?,
            Some(_) = connections.join_next() => continue,
        };
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Too many open files, mostly: it passes when a connection ends.
                    tracing::warn!(%error, "failed to accept a reader of the feed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (feed, shutdown) = (feed.clone(), shutdown.clone());
        connections.spawn(async move {
            let _permit = permit;
            let stalled = CancellationToken::new();
            let service = service_fn(|request| answer(feed.clone(), stalled.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                outcome = connection.as_mut() => log(outcome),
                () = stalled.cancelled() => tracing::warn!("a reader of the feed took nothing for {WRITE_STALL:?}"),
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    if let Ok(outcome) = tokio::time::timeout(Duration::from_secs(1), connection).await {
                        log(outcome);
                    }
                }
            }
        });
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

fn log(outcome: hyper::Result<()>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "a reader of the feed went away");
    }
}

async fn answer(
    feed: Feed,
    stalled: CancellationToken,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Infallible> {
    let route = request.uri().path();
    if !matches!(route, "/connections" | "/processes" | "/status") {
        return Ok(failure(
            StatusCode::NOT_FOUND,
            &format!("no {route} here; there are /connections, /processes and /status"),
        ));
    }
    if request.method() != Method::GET {
        let mut response = failure(StatusCode::METHOD_NOT_ALLOWED, &format!("{route} answers GET only"));
        response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET"));
        return Ok(response);
    }
    let outcome = match route {
        "/connections" => connections(&feed, stalled, request.uri().query()).await,
        "/processes" => processes(&feed).await,
        _ => status(&feed).await,
    };
    Ok(outcome.unwrap_or_else(|refusal| failure(refusal.status, &refusal.reason)))
}

struct Refusal {
    status: StatusCode,
    reason: String,
}

impl Refusal {
    fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    fn internal(reason: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}"))
    }
}

async fn connections(
    feed: &Feed,
    stalled: CancellationToken,
    query: Option<&str>,
) -> Result<Response<ReplyBody>, Refusal> {
    let fetch =
        parse_query(query.unwrap_or_default()).map_err(|reason| Refusal::new(StatusCode::BAD_REQUEST, reason))?;
    let permit = Arc::clone(&feed.snapshots).acquire_owned().await.map_err(Refusal::internal)?;
    let snapshot = ask(feed, |reply| Command::Snapshot { fetch, reply }).await?;
    let (chunks, body) = mpsc::channel(CHUNKS);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let mut out =
            Chunked { chunks: &chunks, runtime: &runtime, stalled: &stalled, buffer: Vec::with_capacity(CHUNK + 4096) };
        if let Err(error) = write_snapshot(snapshot, &mut out) {
            // An error frame cuts the reply short, so that the reader does not take it for whole.
            tracing::warn!(%error, "a reply was cut short");
            let _ = chunks.try_send(Err(error));
        }
    });
    Ok(json(StatusCode::OK, ReplyBody(Source::Stream(body))))
}

async fn processes(feed: &Feed) -> Result<Response<ReplyBody>, Refusal> {
    let scope = feed.scope.clone();
    let read = tokio::task::spawn_blocking(move || crate::processes::read(Path::new("/proc"), scope.as_deref())).await;
    let processes = read
        .map_err(Refusal::internal)?
        .map_err(|error| Refusal::internal(format!("failed to read /proc: {error}")))?;
    whole(&Processes { boot_id: feed.boot_id.to_string(), processes })
}

async fn status(feed: &Feed) -> Result<Response<ReplyBody>, Refusal> {
    whole(&ask(feed, |reply| Command::Status { reply }).await?)
}

async fn ask<T, E: std::fmt::Display>(
    feed: &Feed,
    command: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Command,
) -> Result<T, Refusal> {
    let (reply, answer) = oneshot::channel();
    feed.engine.try_send(command(reply)).map_err(|_full| {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests wait for the tracer's engine; try again")
    })?;
    answer
        .await
        .map_err(|_stopped| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the tracer is stopping"))?
        .map_err(Refusal::internal)
}

/// `client_id`, `ack`, `run`, `dns_ack`, `page` and `last`; other parameters are somebody else's and ignored.
fn parse_query(query: &str) -> Result<Option<Fetch>, String> {
    let (mut id, mut ack, mut run, mut dns_ack, mut page, mut last) = (None, None, None, None, None, Wants::Last);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key {
            "client_id" => id = Some(decode(value).ok_or("client_id is not percent-encoded UTF-8")?),
            "ack" => ack = Some(cursor(key, value)?),
            "dns_ack" => dns_ack = Some(cursor(key, value)?),
            // Another tracer's run is no mistake, only not this one.
            "run" => run = u64::from_str_radix(value, 16).ok(),
            "page" => page = Some(rows(value)?),
            "last" if value == "no" => last = Wants::TotalsOnly,
            _ => {}
        }
    }
    match (id, ack.or(dns_ack)) {
        (Some(id), _) if id.is_empty() || id.len() > ID_LENGTH_MAX => {
            Err(format!("client_id must have 1 to {ID_LENGTH_MAX} bytes"))
        }
        (Some(id), _) => Ok(Some(Fetch { id, ack, run, last, dns_ack, page })),
        (None, Some(_)) => Err("ack and dns_ack need client_id".to_owned()),
        (None, None) => Ok(None),
    }
}

fn cursor(name: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_not_a_number| {
        format!("{name} must be the cursor of an earlier reply, an integer of 0 or more, not `{value}`")
    })
}

fn rows(value: &str) -> Result<u64, String> {
    let rows = value.parse().ok().filter(|rows| *rows > 0);
    rows.ok_or_else(|| format!("page must be the number of closed rows to take at once, 1 or more, not `{value}`"))
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                (digit(rest.next())? * 16 + digit(rest.next())?) as u8
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Collects bytes and sends them in chunks, as fast as the reader takes them.
struct Chunked<'a> {
    chunks: &'a mpsc::Sender<io::Result<Bytes>>,
    runtime: &'a tokio::runtime::Handle,
    stalled: &'a CancellationToken,
    buffer: Vec<u8>,
}

impl Chunked<'_> {
    fn send_full(&mut self) -> io::Result<()> {
        if self.buffer.len() < CHUNK { Ok(()) } else { self.send() }
    }

    fn send(&mut self) -> io::Result<()> {
        let chunk = Bytes::copy_from_slice(&self.buffer);
        self.buffer.clear();
        let sent =
            self.runtime.block_on(async { tokio::time::timeout(WRITE_STALL, self.chunks.send(Ok(chunk))).await });
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the reader went away")),
            Err(_elapsed) => {
                self.stalled.cancel();
                Err(io::Error::new(io::ErrorKind::TimedOut, "the reader takes nothing"))
            }
        }
    }
}

/// The same JSON as `weir_wire::feed::Reply`, a row at a time.
fn write_snapshot(snapshot: Snapshot, out: &mut Chunked<'_>) -> io::Result<()> {
    let Snapshot {
        run_id,
        boot_id,
        monotonic_ns,
        mut open,
        ended,
        withdrawn,
        translations,
        cursor,
        complete,
        until,
        losses,
        degraded,
        dns,
    } = snapshot;
    let head = format!(
        "{{\"run_id\":\"{run_id}\",\"boot_id\":\"{boot_id}\",\"monotonic_ns\":{monotonic_ns},\"connections\":["
    );
    out.buffer.extend_from_slice(head.as_bytes());
    let mut first = true;
    while let Some(Open { row, place, translation, last }) = take_last(&mut open) {
        let last = last.map_or_else(Last::default, |last| *last);
        separate(&mut out.buffer, &mut first);
        serde_json::to_writer(
            &mut out.buffer,
            &to_feed(&row, place.as_deref(), translation.as_deref(), last, Life::Open),
        )?;
        out.send_full()?;
    }
    if let Some((mut reader, lasts)) = ended {
        while let Some(Record { sequence, row, path, translation }) = reader.read()? {
            if until.is_some_and(|until| sequence > until) {
                break;
            }
            let place = path.map(Place::new);
            let last = lasts.get(&sequence).copied().unwrap_or_default();
            let translation = translation.filter(|_| !withdrawn.contains(&sequence));
            separate(&mut out.buffer, &mut first);
            serde_json::to_writer(
                &mut out.buffer,
                &to_feed(&row, place.as_ref(), translation.as_ref(), last, Life::Ended),
            )?;
            out.send_full()?;
        }
    }
    out.buffer.push(b']');
    if !translations.is_empty() {
        out.buffer.extend_from_slice(b",\"translations\":[");
        let mut first = true;
        for seen in translations {
            separate(&mut out.buffer, &mut first);
            serde_json::to_writer(&mut out.buffer, &seen.to_feed())?;
            out.send_full()?;
        }
        out.buffer.push(b']');
    }
    if let Some(cursor) = cursor {
        out.buffer.extend_from_slice(format!(",\"cursor\":{cursor}").as_bytes());
    }
    if until.is_some() {
        out.buffer.extend_from_slice(b",\"more\":true");
    }
    out.buffer.extend_from_slice(format!(",\"complete\":{complete},\"losses\":").as_bytes());
    serde_json::to_writer(&mut out.buffer, &losses)?;
    if let Some(mut degraded) = degraded {
        // The reasons are in /status; here they would be most of a small reply.
        degraded.cannot_see.iter_mut().for_each(|blind| blind.why.clear());
        out.buffer.extend_from_slice(b",\"degraded\":");
        serde_json::to_writer(&mut out.buffer, &degraded)?;
    }
    if let Some(Told { parts, cursor }) = dns {
        out.buffer.extend_from_slice(b",\"dns\":[");
        let mut first = true;
        for row in parts.iter().flat_map(|part| part.iter()) {
            separate(&mut out.buffer, &mut first);
            serde_json::to_writer(&mut out.buffer, row)?;
            out.send_full()?;
        }
        out.buffer.push(b']');
        if let Some(cursor) = cursor {
            out.buffer.extend_from_slice(format!(",\"dns_cursor\":{cursor}").as_bytes());
        }
    }
    out.buffer.extend_from_slice(b"}\n");
    out.send()
}

fn separate(buffer: &mut Vec<u8>, first: &mut bool) {
    if !std::mem::take(first) {
        buffer.push(b',');
    }
}

fn whole(value: &impl serde::Serialize) -> Result<Response<ReplyBody>, Refusal> {
    let mut bytes = serde_json::to_vec(value).map_err(Refusal::internal)?;
    bytes.push(b'\n');
    Ok(json(StatusCode::OK, ReplyBody(Source::Whole(Some(bytes.into())))))
}

fn failure(status: StatusCode, reason: &str) -> Response<ReplyBody> {
    let bytes = format!("{}\n", serde_json::json!({ "error": reason }));
    json(status, ReplyBody(Source::Whole(Some(bytes.into()))))
}

fn json(status: StatusCode, body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// A reply's body: whole, or chunk by chunk.
#[derive(Debug)]
pub struct ReplyBody(Source);

#[derive(Debug)]
enum Source {
    Whole(Option<Bytes>),
    Stream(mpsc::Receiver<io::Result<Bytes>>),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Source::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Stream(chunks) => chunks.poll_recv(context).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_who_and_up_to_where() {
        let whole =
            |id: &str, ack, run, last| Ok(Some(Fetch { id: id.to_owned(), ack, run, last, dns_ack: None, page: None }));
        let fetch = |id: &str, ack| whole(id, ack, None, Wants::Last);
        assert_eq!(parse_query(""), Ok(None));
        assert_eq!(parse_query("client_id=a%2Fb+c&x=1"), fetch("a/b c", None));
        assert_eq!(parse_query("ack=0&client_id=a"), fetch("a", Some(0)));
        let lean = whole("a", Some(7), Some(0xab), Wants::TotalsOnly);
        assert_eq!(parse_query("client_id=a&ack=7&run=00000000000000ab&last=no"), lean);
        assert_eq!(parse_query("client_id=a&run=other&last=yes"), fetch("a", None));
        let both = parse_query("dns_ack=2&client_id=a&ack=1").unwrap().unwrap();
        assert_eq!((both.ack, both.dns_ack), (Some(1), Some(2)));
        let wrong = ["client_id=", "ack=5", "client_id=a&ack=-1", "client_id=a&ack=", "client_id=%zz", "client_id=%"];
        for wrong in wrong.into_iter().chain(["client_id=a&dns_ack=x", "dns_ack=5"]) {
            assert!(parse_query(wrong).is_err(), "{wrong}");
        }
    }
}
