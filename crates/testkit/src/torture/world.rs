//! What really happens in a run: streams and datagrams between nodes and to the outside, drawn from the seed, and each
//! node's tracer.
//!
//! A node's tracer answers as `weir-tracer` does (R3): totals of what lives, ended connections again and again until
//! their cursor is acknowledged, sometimes in pages. Each answer moves the node's flows on first, so that no two replies
//! are alike. The flows are the truth that [`super::check`] holds weir's answers against.

use super::random::Random;
use crate::feed::Behaviour;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use weir_wire::feed::{Connection, Processes, Reply, Status};

/// Of a thousand new flows so many are datagrams.
const DATAGRAMS: u64 = 200;
/// Of a thousand new flows of datagrams so many come from a socket that has other peers.
const SOCKET_AGAIN: u64 = 400;
/// Of a thousand new flows so many go to another node, whose tracer then has a view of its own.
const BETWEEN_NODES: u64 = 500;
/// So many take the four-tuple of one that has ended.
const TUPLE_AGAIN: u64 = 80;
/// So many take the socket of one that was disconnected (AF_UNSPEC keeps the cookie).
const COOKIE_AGAIN: u64 = 150;

/// The transport protocol, as the feed numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp = 0,
    /// UDP: a socket has many peers, each with a counter of its own.
    Udp = 1,
}

impl Protocol {
    /// As answers name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// One exchange. Node `client` opened it.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Its protocol.
    pub protocol: Protocol,
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

    /// The end's instance, as answers name it.
    pub fn instance(&self, end: End) -> String {
        let kind = match self.protocol {
            Protocol::Tcp => "socket",
            Protocol::Udp => "peer",
        };
        format!("{kind}:{}", self.cookies[end as usize])
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
        let open = match self.protocol {
            Protocol::Tcp => "established",
            Protocol::Udp => "active",
        };
        Connection {
            pid: 1000,
            kind: self.protocol as u8,
            source: local.ip().to_string(),
            dest: remote.ip().to_string(),
            sport: local.port(),
            dport: remote.port(),
            net_ns: 4_026_531_840,
            direction: if end == End::Client { 2 } else { 1 },
            direction_certainty: Some("known".into()),
            monotonic_sent_bytes: Some(sent),
            monotonic_recv_bytes: Some(recv),
            cookie: Some(self.cookies[end as usize]),
            start_epoch: Some(self.start),
            state: Some(if is_closed { "closed" } else { open }.into()),
            close_epoch: is_closed.then_some(self.close),
            close_reason: (is_closed && self.protocol == Protocol::Tcp)
                .then(|| if self.disconnected { "disconnected" } else { "closed" }.into()),
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
    kinds: Kinds,
}

/// Everything that happens.
#[derive(Debug)]
pub struct World {
    inner: Mutex<Inner>,
}

/// Which flows there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds {
    /// Whether a four-tuple is used again after its end. Where the nodes' clocks are apart, nobody can tell which two
    /// views of one that is soon used again belong together.
    pub tuples_again: bool,
    /// Whether flows have a view on two nodes, and some are older than weir. Without either, each byte is in an edge or
    /// in a told loss, and in one of them only.
    pub two_views: bool,
    /// Flows that one node has open at most.
    pub open_max: usize,
    /// New flows with each reply at most.
    pub opened_max: u64,
}

impl Default for Kinds {
    fn default() -> Self {
        Self { tuples_again: true, two_views: true, open_max: 24, opened_max: 3 }
    }
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
    /// So many nodes.
    pub fn new(nodes: usize, kinds: Kinds, random: Random) -> Self {
        let mut inner = Inner {
            random,
            flows: Vec::new(),
            nodes: std::iter::repeat_with(Node::default).take(nodes).collect(),
            next_cookie: 1,
            next_port: 1024,
            began: false,
            frozen: false,
            kinds,
        };
        for node in 0..nodes {
            for _ in 0..if kinds.two_views { inner.random.below(4) } else { 0 } {
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
            let room = self.kinds.open_max.saturating_sub(self.open_of(node).len());
            for _ in 0..self.random.below(self.kinds.opened_max + 1).min(room as u64) {
                self.open(node, false);
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
        let may_meet = self.kinds.two_views && !is_old && others > 0;
        let server = (may_meet && self.random.permille(BETWEEN_NODES))
            .then(|| (client + 1 + self.random.below(others) as usize) % self.nodes.len());
        let port = [80, 443, 5432, 8080][self.random.below(4) as usize];
        let remote = match server {
            Some(server) => address(server),
            None => Ipv4Addr::new(198, 51, 100, 1 + self.random.below(6) as u8),
        };
        let protocol = if !is_old && self.random.permille(DATAGRAMS) { Protocol::Udp } else { Protocol::Tcp };
        self.next_port = if self.next_port >= 64_000 { 1024 } else { self.next_port + 1 };
        let mut client_end = SocketAddr::from((address(client), self.next_port));
        let mut server_end = SocketAddr::from((remote, port));
        let mut cookies = [self.cookie(), self.cookie()];
        match protocol {
            Protocol::Tcp if !is_old => {
                if self.kinds.tuples_again && self.random.permille(TUPLE_AGAIN) {
                    (client_end, server_end) = self.ended_tuple(client, server).unwrap_or((client_end, server_end));
                }
                if self.random.permille(COOKIE_AGAIN) {
                    cookies[0] = self.disconnected_socket(client, client_end).unwrap_or(cookies[0]);
                }
            }
            Protocol::Tcp => {}
            Protocol::Udp => {
                if self.random.permille(SOCKET_AGAIN) {
                    (client_end, cookies[0]) = self.open_socket(client, server_end).unwrap_or((client_end, cookies[0]));
                }
                // All who send to a port send to one socket.
                let known = self.flows.iter().find(|flow| flow.protocol == protocol && flow.server_end == server_end);
                cookies[1] = known.map_or(cookies[1], |flow| flow.cookies[1]);
            }
        }
        let start = if is_old { monotonic().saturating_sub(3_600_000_000_000) } else { monotonic() };
        let (sent, recv) = (self.random.below(3000), self.random.below(9000));
        self.flows.push(Flow {
            protocol,
            client,
            server,
            client_end,
            server_end,
            cookies,
            sent,
            recv,
            is_old,
            start,
            close: 0,
            disconnected: false,
        });
    }

    /// The ends of a stream that is over.
    fn ended_tuple(&self, client: usize, server: Option<usize>) -> Option<(SocketAddr, SocketAddr)> {
        let ended = |flow: &&Flow| {
            (flow.protocol, flow.client, flow.server) == (Protocol::Tcp, client, server) && flow.close != 0
        };
        let is_open =
            |ends| self.flows.iter().any(|flow| (flow.client_end, flow.server_end) == ends && flow.close == 0);
        let again = self.flows.iter().rfind(ended).map(|flow| (flow.client_end, flow.server_end));
        again.filter(|ends| !is_open(*ends))
    }

    /// The socket that was disconnected last: the tuple has to be another, or nothing could tell them apart.
    fn disconnected_socket(&mut self, client: usize, client_end: SocketAddr) -> Option<u64> {
        let reused = self.nodes[client].reusable.pop()?;
        let is_same = |flow: &Flow| flow.cookies[0] == reused && flow.client_end == client_end;
        (!self.flows.iter().any(is_same)).then_some(reused)
    }

    /// A socket with datagrams under way that has never had this peer.
    fn open_socket(&self, client: usize, server_end: SocketAddr) -> Option<(SocketAddr, u64)> {
        let is_datagram = |flow: &&Flow| flow.protocol == Protocol::Udp && flow.client == client;
        let open = self.flows.iter().rfind(|flow| is_datagram(flow) && flow.close == 0)?;
        let is_peer = |flow: &Flow| flow.cookies[0] == open.cookies[0] && flow.server_end == server_end;
        (!self.flows.iter().any(is_peer)).then_some((open.client_end, open.cookies[0]))
    }

    fn close(&mut self, index: usize) {
        let disconnected = self.random.permille(200) && self.flows[index].protocol == Protocol::Tcp;
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
            // Only the end that called connect(AF_UNSPEC) is disconnected.
            let is_disconnected = flow.disconnected && end == End::Client;
            let row = Flow { disconnected: is_disconnected, ..flow.clone() }.row(end);
            entry.journal.push((entry.cursor, row));
        }
    }
}
