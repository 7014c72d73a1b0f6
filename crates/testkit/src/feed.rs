//! A stand-in for somebody else's tracer: answers `GET /connections` on a unix socket as it is told to.

use anyhow::Result;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How the stand-in answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// 200 with this body.
    Body(Vec<u8>),
    /// 200, announces this body, sends half of it and hangs up.
    Half(Vec<u8>),
    /// 200 with this many bytes of rows.
    Endless(u64),
    /// This status code.
    Status(u16),
    /// Takes the request and never answers.
    Never,
}

/// Answers a request by its target, `/connections?client_id=...`.
type Handler = Box<dyn FnMut(&str) -> Behaviour + Send>;

/// A running stand-in; stops when dropped.
pub struct StandIn {
    path: PathBuf,
    handler: Arc<Mutex<Handler>>,
    requests: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl std::fmt::Debug for StandIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StandIn").field("path", &self.path).finish_non_exhaustive()
    }
}

/// `behaviour` for every `/connections`, 404 for the rest.
fn always(behaviour: Behaviour) -> Handler {
    Box::new(move |target| if target.starts_with("/connections") { behaviour.clone() } else { Behaviour::Status(404) })
}

impl StandIn {
    /// Listens on `path` and answers every `/connections` so.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn listen(path: &Path, behaviour: Behaviour) -> Result<Self> {
        Self::serve(path, always(behaviour))
    }

    /// Listens on `path`; `handler` is given every request's target.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn serve(path: &Path, handler: impl FnMut(&str) -> Behaviour + Send + 'static) -> Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let handler: Arc<Mutex<Handler>> = Arc::new(Mutex::new(Box::new(handler)));
        let (requests, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (told, counted, stopped) = (Arc::clone(&handler), Arc::clone(&requests), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let (told, counted, stopped) = (Arc::clone(&told), Arc::clone(&counted), Arc::clone(&stopped));
                        std::thread::spawn(move || {
                            // A client that hangs up early is part of what is tested.
                            let _ = answer(stream, &told, &counted, &stopped);
                        });
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => pause(),
                    Err(_) => return,
                }
            }
        });
        Ok(Self { path: path.to_owned(), handler, requests, stop, thread: Some(thread) })
    }

    /// From the next request on it answers so.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.handler.lock().unwrap_or_else(PoisonError::into_inner) = always(behaviour);
    }

    /// How many requests for `/connections` it has had.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

#[expect(clippy::disallowed_methods, reason = "a stand-in polls its stop flag; no test waits for it")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

fn answer(mut stream: UnixStream, handler: &Mutex<Handler>, requests: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    let mut request = Vec::new();
    let mut byte = [0_u8; 1];
    while !request.ends_with(b"\r\n\r\n") && request.len() < 8192 && stream.read(&mut byte)? == 1 {
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request);
    let Some(target) = request.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()) else { return Ok(()) };
    let behaviour = (handler.lock().unwrap_or_else(PoisonError::into_inner))(target);
    if target.starts_with("/connections") {
        requests.fetch_add(1, Ordering::Relaxed);
    }
    let head = |length: u64| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    match behaviour {
        Behaviour::Body(body) => {
            stream.write_all(head(body.len() as u64).as_bytes())?;
            stream.write_all(&body)?;
        }
        Behaviour::Half(body) => {
            stream.write_all(head(body.len() as u64).as_bytes())?;
            stream.write_all(&body[..body.len() / 2])?;
        }
        Behaviour::Endless(bytes) => endless(&mut stream, bytes)?,
        Behaviour::Status(code) => {
            write!(stream, "HTTP/1.1 {code} Told To\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
        }
        Behaviour::Never => {
            while !stop.load(Ordering::Relaxed) {
                pause();
            }
        }
    }
    Ok(())
}

/// One feed body of about `bytes` bytes: rows of different connections, well-formed.
fn endless(stream: &mut UnixStream, bytes: u64) -> Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"connections\":[")?;
    let mut sent = 0;
    let mut number = 0_u64;
    while sent < bytes {
        let mut block = String::new();
        for _ in 0..200 {
            if number > 0 {
                block.push(',');
            }
            block.push_str(&row(number));
            number += 1;
        }
        stream.write_all(block.as_bytes())?;
        sent += block.len() as u64;
    }
    stream.write_all(b"]}")?;
    Ok(())
}

/// One row of the 2019 form; every number is another connection.
pub fn row(number: u64) -> String {
    let (high, low) = (number / 60_000 % 250, number % 60_000);
    format!(
        "{{\"pid\":{},\"type\":0,\"family\":0,\"net_ns\":4026531840,\"source\":\"10.0.{high}.1\",\"dest\":\"10.1.{high}.2\",\
         \"sport\":{},\"dport\":443,\"direction\":2,\"monotonic_sent_bytes\":{number},\"last_sent_bytes\":0,\
         \"monotonic_recv_bytes\":{number},\"last_recv_bytes\":0,\"monotonic_retransmits\":0,\"last_retransmits\":0,\
         \"last_update_epoch\":11457291007926789}}",
        1000 + low % 100,
        1024 + low,
    )
}
