//! Somebody who reads: asks the server again and again while everything else goes wrong, and notes whether a total
//! that was read once is ever less or gone.

use super::check::{self, Counter, Totals};
use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use weir_wire::api::{Answer, Edge, Transaction};

/// How long an answer may take; machines are busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(150);

/// Asks a server over HTTP.
///
/// # Errors
/// When it does not answer, or with something else than 200 and an answer.
pub fn ask<T: DeserializeOwned>(server: SocketAddr, path: &str) -> Result<Answer<T>> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no whole head came")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    ensure!(head.starts_with("HTTP/1.1 200"), "{path} answered {head}");
    Ok(serde_json::from_slice(&answer[end + 4..])?)
}

/// Every stored counter.
///
/// # Errors
/// See [`ask`].
pub fn transactions(server: SocketAddr) -> Result<Vec<Transaction>> {
    Ok(ask(server, "/api/v1/transactions?limit=1000000")?.items)
}

/// Every edge by address, whenever it was.
///
/// # Errors
/// See [`ask`].
pub fn edges(server: SocketAddr) -> Result<Answer<Edge>> {
    ask(server, "/api/v1/edges?by=address&since=30d&limit=1000000")
}

#[derive(Debug, Default)]
struct Noted {
    server: Option<SocketAddr>,
    last: BTreeMap<Counter, Totals>,
    faults: String,
    reads: u64,
}

/// A thread that reads until it is dropped.
#[derive(Debug)]
pub struct Reader {
    read: Arc<Mutex<Noted>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn lock(read: &Mutex<Noted>) -> MutexGuard<'_, Noted> {
    read.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reader {
    /// Begins.
    pub fn start() -> Self {
        let (read, stop) = (Arc::new(Mutex::new(Noted::default())), Arc::new(AtomicBool::new(false)));
        let (noted, stopped) = (Arc::clone(&read), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let server = lock(&noted).server;
                // A server that dies in the middle of an answer has not answered.
                if let Some(rows) = server.and_then(|server| transactions(server).ok()) {
                    lock(&noted).note(&rows);
                }
                pause();
            }
        });
        Self { read, stop, thread: Some(thread) }
    }

    /// Where the server listens now.
    pub fn server(&self, address: Option<SocketAddr>) {
        lock(&self.read).server = address;
    }

    /// What was read last. A read that begins after this call must not be less.
    pub fn last(&self) -> BTreeMap<Counter, Totals> {
        lock(&self.read).last.clone()
    }

    /// How often it was answered.
    pub fn reads(&self) -> u64 {
        lock(&self.read).reads
    }

    /// What went back; empty when nothing did.
    pub fn faults(&self) -> String {
        lock(&self.read).faults.clone()
    }
}

impl Noted {
    fn note(&mut self, rows: &[Transaction]) {
        let now = check::totals(rows);
        if self.faults.is_empty() {
            self.faults = check::never_back(&self.last, &now);
        }
        self.last = now;
        self.reads += 1;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a reader asks now and then; nothing is assumed after the pause")]
fn pause() {
    std::thread::sleep(PAUSE);
}
