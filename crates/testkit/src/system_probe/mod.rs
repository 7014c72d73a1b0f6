//! A stand-in for Datadog's system-probe: connections that the test moves, told to each client as deltas on a unix socket.
//!
//! It keeps what the real one keeps: for each client what that client was told, closed connections only for clients that
//! it knows, nothing of what was told once. The first fetch of a client tells all that was counted. [`encode`] writes the
//! two forms by hand, sharing nothing with the decoders that are tested with it.

pub mod encode;

use anyhow::Result;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One connection, with what was counted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The owner.
    pub pid: u32,
    /// The network namespace's inode.
    pub netns: u32,
    /// UDP, not TCP.
    pub is_udp: bool,
    /// The socket's own end.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// 1 incoming, 2 outgoing.
    pub direction: u8,
    /// The real backend and the translated source, where it is translated.
    pub translation: Option<(SocketAddr, SocketAddr)>,
    /// The container that the owner is in.
    pub container: String,
    /// errno to how many connections failed with it.
    pub failures: BTreeMap<u32, u32>,
    /// Sent, received, segments sent again, established, closed.
    pub counts: [u64; 5],
}

impl Connection {
    /// An established outgoing TCP connection, nothing sent yet.
    ///
    /// # Panics
    /// When an end is no address with a port.
    pub fn tcp(local: &str, remote: &str) -> Self {
        let end = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text} is no end"));
        Self {
            pid: 1000,
            netns: 4_026_532_201,
            is_udp: false,
            local: end(local),
            remote: end(remote),
            direction: 2,
            translation: None,
            container: String::new(),
            failures: BTreeMap::new(),
            counts: [0, 0, 0, 1, 0],
        }
    }
}

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// As it should.
    Serve,
    /// It tells what it has, and hangs up within.
    BreakOff,
    /// `network_config.direct_send`: the endpoint is not there, the rest is.
    DirectSend,
    /// 429.
    Busy,
}

/// Which version it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Of today.
    Today,
    /// Of 2020: at the root, JSON alone, no `/register`, zeros to a new client.
    Of2020,
}

#[derive(Debug, Default)]
struct Client {
    told: BTreeMap<u64, [u64; 5]>,
    /// Ended connections that it was not told of.
    ended: Vec<(u64, Connection)>,
    telemetry: BTreeMap<String, i64>,
}

#[derive(Debug)]
struct State {
    version: Version,
    behaviour: Behaviour,
    connections: BTreeMap<u64, Connection>,
    clients: BTreeMap<String, Client>,
    telemetry: BTreeMap<String, i64>,
    /// Fetches that were answered in protobuf.
    in_protobuf: u64,
}

/// A running stand-in; stops when dropped.
#[derive(Debug)]
pub struct StandIn {
    path: PathBuf,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl StandIn {
    /// Listens on `path`.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn listen(path: &Path, version: Version) -> Result<Self> {
        let state = Arc::new(Mutex::new(State {
            version,
            behaviour: Behaviour::Serve,
            connections: BTreeMap::new(),
            clients: BTreeMap::new(),
            telemetry: BTreeMap::new(),
            in_protobuf: 0,
        }));
        let mut probe = Self { path: path.to_owned(), state, stop: Arc::new(AtomicBool::new(false)), thread: None };
        probe.start()?;
        Ok(probe)
    }

    fn start(&mut self) -> Result<()> {
        // As the real one: an old socket is removed, not used again.
        let _ = std::fs::remove_file(&self.path);
        let listener = UnixListener::bind(&self.path)?;
        listener.set_nonblocking(true)?;
        self.stop = Arc::new(AtomicBool::new(false));
        let (state, stop) = (Arc::clone(&self.state), Arc::clone(&self.stop));
        self.thread = Some(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    // A client that hangs up early is part of what is tested.
                    Ok((stream, _)) => drop(answer(stream, &state)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => pause(),
                    Err(_) => return,
                }
            }
        }));
        Ok(())
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the next request on it answers so.
    pub fn behave(&self, behaviour: Behaviour) {
        self.state().behaviour = behaviour;
    }

    /// It starts again: it knows no client, and counts every open connection from 0.
    ///
    /// # Errors
    /// When the socket cannot be bound again.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        {
            let mut state = self.state();
            state.clients.clear();
            state.telemetry.clear();
            for connection in state.connections.values_mut() {
                connection.counts = [0; 5];
            }
        }
        self.start()
    }

    /// A connection opens; `cookie` names it.
    pub fn open(&self, cookie: u64, connection: Connection) {
        self.state().connections.insert(cookie, connection);
    }

    /// Bytes are sent and received on it.
    ///
    /// # Panics
    /// When it is not open.
    pub fn moved(&self, cookie: u64, sent: u64, recv: u64) {
        let mut state = self.state();
        let connection = state.connections.get_mut(&cookie).unwrap_or_else(|| panic!("{cookie} is not open"));
        connection.counts[0] += sent;
        connection.counts[1] += recv;
    }

    /// It closes: told to every client that is known now.
    ///
    /// # Panics
    /// When it is not open.
    pub fn close(&self, cookie: u64) {
        let mut state = self.state();
        let mut connection = state.connections.remove(&cookie).unwrap_or_else(|| panic!("{cookie} is not open"));
        connection.counts[4] += 1;
        for client in state.clients.values_mut() {
            client.ended.push((cookie, connection.clone()));
        }
    }

    /// Raises a count of `connTelemetryMap`.
    pub fn lose(&self, name: &str, count: i64) {
        *self.state().telemetry.entry(name.to_owned()).or_default() += count;
    }

    /// How many clients it knows.
    pub fn clients(&self) -> usize {
        self.state().clients.len()
    }

    /// How many fetches were answered in protobuf.
    pub fn in_protobuf(&self) -> u64 {
        self.state().in_protobuf
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_file(&self.path);
    }
}

#[expect(clippy::disallowed_methods, reason = "a stand-in polls its stop flag; no test waits for it")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// What one fetch tells: connections with their counts since the last one, and the telemetry.
#[derive(Debug, Default)]
pub struct Reply {
    /// Connections, with deltas in the place of their counts.
    pub connections: Vec<Connection>,
    /// `connTelemetryMap`.
    pub telemetry: BTreeMap<String, i64>,
}

impl State {
    fn fetch(&mut self, id: &str) -> Reply {
        let is_new =
            !self.clients.get(id).is_some_and(|client| !client.told.is_empty() || !client.telemetry.is_empty());
        let is_zero = is_new && self.version == Version::Of2020 && !self.clients.contains_key(id);
        let client = self.clients.entry(id.to_owned()).or_default();
        let mut reply = Reply::default();
        let ended = std::mem::take(&mut client.ended);
        let open = self.connections.iter().map(|(cookie, connection)| (*cookie, connection.clone()));
        for (cookie, mut connection) in open.chain(ended) {
            let counts = connection.counts;
            let told = client.told.insert(cookie, counts).unwrap_or_default();
            for (count, told) in connection.counts.iter_mut().zip(told) {
                *count = if is_zero { 0 } else { *count - told };
            }
            // Today's leaves out what has not changed.
            if self.version == Version::Of2020 || connection.counts != [0; 5] || !connection.failures.is_empty() {
                reply.connections.push(connection);
            }
        }
        for (name, count) in &self.telemetry {
            let told = client.telemetry.insert(name.clone(), *count).unwrap_or(0);
            reply.telemetry.insert(name.clone(), count - told);
        }
        reply
    }
}

fn answer(mut stream: UnixStream, state: &Mutex<State>) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    let mut byte = [0_u8; 1];
    while !request.ends_with(b"\r\n\r\n") && request.len() < 8192 && stream.read(&mut byte)? == 1 {
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let target = request.split(' ').nth(1).unwrap_or("");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let id = query.split('&').find_map(|pair| pair.strip_prefix("client_id=")).unwrap_or("-1");
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let (connections, register) = match state.version {
        Version::Today => ("/network_tracer/connections", "/network_tracer/register"),
        Version::Of2020 => ("/connections", "/none"),
    };
    let is_there = state.behaviour != Behaviour::DirectSend;
    let mut head = |status: &str, kind: &str, length: usize| {
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        )
    };
    if path == "/debug/stats" {
        head("200 OK", "application/json", 2)?;
        return Ok(stream.write_all(b"{}")?);
    }
    if path == register && is_there {
        state.clients.entry(id.to_owned()).or_default();
        return Ok(head("200 OK", "text/plain", 0)?);
    }
    if path != connections || !is_there {
        return Ok(head("404 Not Found", "text/plain", 0)?);
    }
    if state.behaviour == Behaviour::Busy {
        return Ok(head("429 Too Many Requests", "text/plain", 0)?);
    }
    let reply = state.fetch(id);
    let takes_protobuf = request.to_ascii_lowercase().contains("accept: application/protobuf");
    let (kind, body) = if takes_protobuf && state.version == Version::Today {
        state.in_protobuf += 1;
        ("application/protobuf", encode::protobuf(&reply))
    } else {
        ("application/json", encode::json(&reply).into_bytes())
    };
    head("200 OK", kind, body.len())?;
    let part = if state.behaviour == Behaviour::BreakOff { body.len() / 2 } else { body.len() };
    Ok(stream.write_all(&body[..part])?)
}
