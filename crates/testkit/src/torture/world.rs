//! What really happens in a run: flows between nodes and to the outside, drawn from the seed, and each node's tracer.
//!
//! A node's tracer answers as `weir-tracer` does (R3): totals of what lives, ended connections again and again until
//! their cursor is acknowledged, sometimes in pages. Each answer moves the node's flows on first, so that no two replies
//! are alike. The flows are the truth that [`super::check`] holds weir's answers against.

use super::random::Random;
use crate::feed::Behaviour;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use weir_wire::feed::{Connection, Processes, Reply, Status};

/// Flows that one node has open at most.
const OPEN_MAX: usize = 24;
/// Of a thousand new flows so many go to another node, whose tracer then has a view of its own.
const BETWEEN_NODES: u64 = 500;
/// So many take the four-tuple of one that has ended.
const TUPLE_AGAIN: u64 = 80;
/// So many take the socket of one that was disconnected (AF_UNSPEC keeps the cookie).
const COOKIE_AGAIN: u64 = 150;

/// One exchange. Node `client` opened it.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The node of the client.
    pub client: usize,
    /// The node of the server; `None` beyond the watched nodes.
    pub server: Option<usize>,
    /// The client's end.
    pub client_end: SocketAddr,
    /// The server's end.
    pub server_end: SocketAddr,
    /// The socket cookies of both.
    pub cookies: [u64; 2],
    /// What the client sent, bytes.
    pub sent: u64,
    /// What the client received, bytes.
    pub recv: u64,
    /// It began before any agent did: what it had moved then belongs to no edge.
    pub is_old: bool,
    start: u64,
    /// 0 while it is open.
    close: u64,
    disconnected: bool,
}

/// One of the two ends of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Who opened it.
    Client,
    /// Who accepted it.
    Server,
}

impl Flow {
    /// The end's node.
    pub fn node(&self, end: End) -> Option<usize> {
        match end {
            End::Client => Some(self.client),
            End::Server => self.server,
        }
    }

    /// The end's cookie.
    pub fn cookie(&self, end: End) -> u64 {
        self.cookies[end as usize]
    }

    /// Local and remote address of an end.
    pub fn tuple(&self, end: End) -> (SocketAddr, SocketAddr) {
        match end {
            End::Client => (self.client_end, self.server_end),
            End::Server => (self.server_end, self.client_end),
        }
    }

    /// What an end sent and received.
    pub fn moved(&self, end: End) -> (u64, u64) {
        match end {
            End::Client => (self.sent, self.recv),
            End::Server => (self.recv, self.sent),
        }
    }

    fn row(&self, end: End) -> Connection {
        let (local, remote) = self.tuple(end);
        let (sent, recv) = self.moved(end);
        let is_closed = self.close != 0;
        Connection {
            pid: 1000,
            source: local.ip().to_string(),
            dest: remote.ip().to_string(),
            sport: local.port(),
            dport: remote.port(),
            net_ns: 4_026_531_840,
            direction: if end == End::Client { 2 } else { 1 },
            direction_certainty: Some("known".into()),
            monotonic_sent_bytes: Some(sent),
            monotonic_recv_bytes: Some(recv),
            cookie: Some(self.cookie(end)),
            start_epoch: Some(self.start),
            state: Some(if is_closed { "closed" } else { "established" }.into()),
            close_epoch: is_closed.then_some(self.close),
            close_reason: is_closed.then(|| if self.disconnected { "disconnected" } else { "closed" }.into()),
            last_update_epoch: monotonic(),
            ..Connection::default()
        }
    }
}

#[derive(Debug, Default)]
struct Node {
    /// Ended connections that were not acknowledged, each with its cursor.
    journal: Vec<(u64, Connection)>,
    cursor: u64,
    /// Sockets that were disconnected and may be used again.
    reusable: Vec<u64>,
    answers: u64,
}

#[derive(Debug)]
struct Inner {
    random: Random,
    flows: Vec<Flow>,
    nodes: Vec<Node>,
    next_cookie: u64,
    next_port: u16,
    began: bool,
    frozen: bool,
    /// See [`World::new`].
    reuses_tuples: bool,
}

/// Everything that happens.
#[derive(Debug)]
pub struct World {
    inner: Mutex<Inner>,
}

/// Whether a four-tuple is used again after its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuples {
    /// Now and then.
    Again,
    /// Never.
    Once,
}

/// Where a node's own sockets are.
pub fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 90, node as u8 + 1, 1)
}

/// A node's name.
pub fn name(node: usize) -> String {
    format!("torture-{node}")
}

/// `CLOCK_MONOTONIC`, nanoseconds.
pub fn monotonic() -> u64 {
    nix::time::ClockId::CLOCK_MONOTONIC
        .now()
        .map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

impl World {
    /// So many nodes, each with some connections that are older than weir. Where the nodes' clocks are apart, nobody can
    /// tell which two views of a four-tuple that is soon used again belong together: then it is not.
    pub fn new(nodes: usize, tuples: Tuples, random: Random) -> Self {
        let mut inner = Inner {
            random,
            flows: Vec::new(),
            nodes: std::iter::repeat_with(Node::default).take(nodes).collect(),
            next_cookie: 1,
            next_port: 1024,
            began: false,
            frozen: false,
            reuses_tuples: tuples == Tuples::Again,
        };
        for node in 0..nodes {
            for _ in 0..inner.random.below(4) {
                inner.open(node, true);
            }
        }
        Self { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on connections begin: every agent has seen its node once, so all of their bytes are weir's to count.
    pub fn begin(&self) {
        self.lock().began = true;
    }

    /// Nothing moves any more.
    pub fn freeze(&self) {
        self.lock().frozen = true;
    }

    /// Every flow so far.
    pub fn flows(&self) -> Vec<Flow> {
        self.lock().flows.clone()
    }

    /// How often a node's tracer has told its open connections.
    pub fn answers(&self, node: usize) -> u64 {
        self.lock().nodes[node].answers
    }

    /// Whether every ended connection of a node has been acknowledged.
    pub fn is_drained(&self, node: usize) -> bool {
        self.lock().nodes[node].journal.is_empty()
    }

    /// What a node's tracer says to a request.
    pub fn answer(&self, node: usize, target: &str) -> Behaviour {
        let body = if target.starts_with("/connections") {
            serde_json::to_vec(&self.lock().reply(node, target))
        } else if target.starts_with("/processes") {
            serde_json::to_vec(&Processes::default())
        } else if target.starts_with("/status") {
            let status = Status { state: "running".into(), mode: "ebpf".into(), ..Status::default() };
            serde_json::to_vec(&status)
        } else {
            return Behaviour::Status(404);
        };
        body.map_or(Behaviour::Status(500), Behaviour::Body)
    }
}

impl Inner {
    fn reply(&mut self, node: usize, target: &str) -> Reply {
        let asked = |name: &str| {
            let value = target.split(['?', '&']).find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            value.and_then(|value| value.parse::<u64>().ok())
        };
        let acknowledged = asked("ack");
        if let Some(acknowledged) = acknowledged {
            self.nodes[node].journal.retain(|(cursor, _)| *cursor > acknowledged);
        }
        let snapshot = monotonic();
        if !self.frozen {
            self.step(node);
        }
        let rows_max = 1 + self.random.below(8) as usize;
        let can_page = acknowledged.is_some() && asked("page").is_some();
        let is_page = can_page && self.random.permille(200) && self.nodes[node].journal.len() > rows_max;
        let entry = &mut self.nodes[node];
        let closed = &entry.journal[..if is_page { rows_max } else { entry.journal.len() }];
        let cursor = if is_page { closed.last().map_or(0, |(cursor, _)| *cursor) } else { entry.cursor };
        let mut connections: Vec<Connection> = closed.iter().map(|(_, row)| row.clone()).collect();
        if !is_page {
            entry.answers += 1;
            for flow in self.flows.iter().filter(|flow| flow.close == 0) {
                for end in [End::Client, End::Server] {
                    if flow.node(end) == Some(node) {
                        connections.push(flow.row(end));
                    }
                }
            }
        }
        Reply {
            run_id: Some(format!("{:016x}", 0xaa00 + node)),
            monotonic_ns: Some(snapshot),
            connections,
            cursor: Some(cursor),
            more: is_page.then_some(true),
            complete: Some(true),
            ..Reply::default()
        }
    }

    /// Moves the flows that this node opened.
    fn step(&mut self, node: usize) {
        if self.began {
            for _ in 0..self.random.below(4) {
                if self.open_of(node).len() < OPEN_MAX {
                    self.open(node, false);
                }
            }
        }
        for index in self.open_of(node) {
            if self.random.permille(650) {
                self.flows[index].sent += self.random.below(10_000);
                self.flows[index].recv += self.random.below(40_000);
            }
        }
        if self.began {
            for _ in 0..self.random.below(4) {
                let open = self.open_of(node);
                if open.len() > 4
                    && let Some(&index) = self.random.pick(&open)
                {
                    self.close(index);
                }
            }
        }
    }

    fn open_of(&self, node: usize) -> Vec<usize> {
        let is_open = |flow: &Flow| flow.client == node && flow.close == 0;
        self.flows.iter().enumerate().filter(|(_, flow)| is_open(flow)).map(|(index, _)| index).collect()
    }

    fn cookie(&mut self) -> u64 {
        self.next_cookie += 1;
        self.next_cookie
    }

    fn open(&mut self, client: usize, is_old: bool) {
        let others = self.nodes.len() as u64 - 1;
        let server = (!is_old && others > 0 && self.random.permille(BETWEEN_NODES))
            .then(|| (client + 1 + self.random.below(others) as usize) % self.nodes.len());
        let port = [80, 443, 5432, 8080][self.random.below(4) as usize];
        let remote = match server {
            Some(server) => address(server),
            None => Ipv4Addr::new(198, 51, 100, 1 + self.random.below(6) as u8),
        };
        self.next_port = if self.next_port >= 64_000 { 1024 } else { self.next_port + 1 };
        let mut client_end = SocketAddr::from((address(client), self.next_port));
        let mut server_end = SocketAddr::from((remote, port));
        if self.reuses_tuples && !is_old && self.random.permille(TUPLE_AGAIN) {
            let ended = |flow: &&Flow| flow.client == client && flow.server == server && flow.close != 0;
            let is_open =
                |ends| self.flows.iter().any(|flow| (flow.client_end, flow.server_end) == ends && flow.close == 0);
            let again = self.flows.iter().rfind(ended).map(|flow| (flow.client_end, flow.server_end));
            if let Some(ends) = again.filter(|ends| !is_open(*ends)) {
                (client_end, server_end) = ends;
            }
        }
        let mut cookie = self.cookie();
        if !is_old && self.random.permille(COOKIE_AGAIN) {
            // The socket that was disconnected last: the tuple has to be another, or nothing could tell them apart.
            let reused = self.nodes[client].reusable.pop();
            let is_same = |cookie: u64, flow: &Flow| flow.cookies[0] == cookie && flow.client_end == client_end;
            if let Some(reused) = reused.filter(|&cookie| !self.flows.iter().any(|flow| is_same(cookie, flow))) {
                cookie = reused;
            }
        }
        let accepted = self.cookie();
        let start = if is_old { monotonic().saturating_sub(3_600_000_000_000) } else { monotonic() };
        let (sent, recv) = (self.random.below(3000), self.random.below(9000));
        self.flows.push(Flow {
            client,
            server,
            client_end,
            server_end,
            cookies: [cookie, accepted],
            sent,
            recv,
            is_old,
            start,
            close: 0,
            disconnected: false,
        });
    }

    fn close(&mut self, index: usize) {
        let disconnected = self.random.permille(200);
        let flow = &mut self.flows[index];
        flow.close = monotonic();
        flow.disconnected = disconnected;
        let flow = self.flows[index].clone();
        if disconnected {
            self.nodes[flow.client].reusable.push(flow.cookies[0]);
        }
        for end in [End::Client, End::Server] {
            let Some(node) = flow.node(end) else { continue };
            let entry = &mut self.nodes[node];
            entry.cursor += 1;
            let row = Connection {
                // Only the end that called connect(AF_UNSPEC) is disconnected.
                close_reason: Some(
                    if flow.disconnected && end == End::Client { "disconnected" } else { "closed" }.into(),
                ),
                ..flow.row(end)
            };
            entry.journal.push((entry.cursor, row));
        }
    }
}
