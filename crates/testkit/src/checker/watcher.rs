//! Reads a tracer's feed as an agent does: a client of its own that acknowledges, living and closed rows.

use super::fault::{Fault, Kind, View};
use super::rows::Row;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use weir_wire::feed::{Connection, Reply};

/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What tells one counter's life from every other: cookie, generation, tuple, and for UDP, whose flows can expire and
/// begin again, the start.
type Identity = (Option<u64>, Option<u32>, (String, u16, String, u16), Option<u64>);

/// A reader of one tracer's feed.
#[derive(Debug)]
pub struct Watcher {
    socket: PathBuf,
    client: String,
    cursor: Option<u64>,
    rows: BTreeMap<Identity, Connection>,
    faults: Vec<Fault>,
}

impl Watcher {
    /// Begins to read; what closes from now on is not missed.
    ///
    /// # Errors
    /// When the tracer does not answer.
    pub fn begin(socket: &Path) -> Result<Self> {
        let client = format!("checker-{}", std::process::id());
        let mut watcher =
            Self { socket: socket.to_owned(), client, cursor: None, rows: BTreeMap::new(), faults: Vec::new() };
        watcher.fetch()?;
        Ok(watcher)
    }

    /// Reads once and acknowledges what was read before.
    ///
    /// # Errors
    /// When the tracer does not answer properly.
    pub fn fetch(&mut self) -> Result<()> {
        let ack = self.cursor.map(|cursor| format!("&ack={cursor}")).unwrap_or_default();
        let body = get(&self.socket, &format!("/connections?client_id={}{ack}", self.client))?;
        let reply: Reply = serde_json::from_slice(&body).context("the feed's reply")?;
        self.cursor = reply.cursor;
        for row in reply.connections {
            self.take(row);
        }
        Ok(())
    }

    fn take(&mut self, row: Connection) {
        let tuple = (row.source.clone(), row.sport, row.dest.clone(), row.dport);
        let identity = (row.cookie, row.generation, tuple, row.start_epoch.filter(|_| row.kind == 1));
        let mut wrong = |kind, what: &str| {
            let detail = format!("{what}: {row:?}");
            self.faults.push(Fault { view: View::Feed, kind, scenario: None, detail });
        };
        if let Some(before) = self.rows.get(&identity) {
            if before.close_epoch.is_some() {
                wrong(Kind::Extra, "a row of a connection whose closed row was acknowledged");
                return;
            }
            let fell = row.monotonic_sent_bytes < before.monotonic_sent_bytes
                || row.monotonic_recv_bytes < before.monotonic_recv_bytes;
            if fell {
                wrong(Kind::Bytes, "a total fell");
            }
        }
        self.rows.insert(identity, row);
    }

    /// The last row of each connection.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.rows.values().map(Row::from)
    }

    /// What was wrong with the way in which rows came.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

/// The body of `GET target`.
///
/// # Errors
/// When there is no answer, or another than 200.
pub fn get(socket: &Path, target: &str) -> Result<Vec<u8>> {
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("failed to reach the tracer at {}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n").context("no head in the answer")?;
    let head = String::from_utf8_lossy(&bytes[..split]).to_lowercase();
    ensure!(head.split(' ').nth(1) == Some("200"), "GET {target}: {}", head.lines().next().unwrap_or_default());
    let body = &bytes[split + 4..];
    if head.contains("transfer-encoding: chunked") { unchunk(body) } else { Ok(body.to_vec()) }
}

fn unchunk(mut body: &[u8]) -> Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|window| window == b"\r\n").context("a chunk without a length")?;
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end])?, 16)?;
        if length == 0 {
            return Ok(whole);
        }
        whole.extend_from_slice(body.get(end + 2..end + 2 + length).context("the answer was cut off")?);
        body = body.get(end + 2 + length + 2..).context("the answer was cut off")?;
    }
}
