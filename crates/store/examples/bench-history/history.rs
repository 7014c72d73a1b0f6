//! Rows of a small cluster, made for as many as are wanted: half of them the clients' views, half the servers'.
//!
//! A hundred nodes with ten pods each, of 250 workloads; ten thousand edges, few of which carry most; connections of a minute
//! to an hour that move in every poll of both ends' nodes. Nodes poll at instants of their own, some milliseconds early or late; bytes
//! and round-trip times scatter around what is usual on the edge. So a row has about as much in it that cannot be
//! foreseen as a real one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use weir_model::{Bytes, ConnectionId, Deltas, Endpoint, Protocol, Side, UnixNanos};
use weir_store::embedded::Embedded;
use weir_store::{
    Due, Fate, HistoryRow, HistoryStore as _, Judge, Judgement, Lsn, SegmentId, SettledEdge, SettledEnd, SettledName,
    StoreError,
};

const NODES: u64 = 100;
const PODS_OF_A_NODE: u64 = 10;
const WORKLOADS: u64 = 250;
const EDGES: u64 = 10_000;
const WINDOW_NS: i64 = 10_000_000_000;
/// Windows of a segment: what compaction puts into one file, so that its work is what a larger server's would be.
const WINDOWS_OF_A_SEGMENT: i64 = 60;
/// A connection lives for so many windows.
const WINDOWS_MIN: u64 = 6;
const WINDOWS_MAX: u64 = 360;

/// How much is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Rows of 10 s, both views.
    pub(crate) rows: u64,
    /// Spread over so much time.
    pub(crate) span_ns: i64,
    /// Which ends here.
    pub(crate) until: UnixNanos,
}

/// SplitMix64 of some numbers: the same everywhere.
fn mixed(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0x9e37_79b9_7f4a_7c15_u64, |state, number| {
        let mut mixed = state ^ number.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

struct Pod {
    endpoint: Arc<Endpoint>,
    end: Arc<SettledEnd>,
    node: Arc<str>,
    node_number: u64,
    address: [u8; 4],
    process: Arc<str>,
    container_id: Arc<str>,
    netns: u32,
}

impl Pod {
    fn of(number: u64) -> Self {
        let (node_number, pod) = (number / PODS_OF_A_NODE, number % PODS_OF_A_NODE);
        let (namespace, app) = (format!("team-{}", pod % 5), format!("app-{}", number % WORKLOADS));
        let endpoint = Endpoint {
            kind: "pod".into(),
            namespace: namespace.clone(),
            name: format!("{app}-{:05x}", mixed(&[number]) >> 44),
        };
        let address = [10, 1, node_number as u8, 10 + pod as u8];
        let node: Arc<str> = format!("node-{node_number}").into();
        let container_id: Arc<str> =
            format!("{:064x}", u128::from(mixed(&[number, 1])) << 64 | u128::from(number)).into();
        let name = |kind: &str, name: &str| SettledName {
            kind: kind.into(),
            namespace: namespace.clone(),
            name: name.into(),
            certainty: "known".into(),
        };
        let end = SettledEnd {
            endpoint: name("pod", &endpoint.name),
            workload: Some(name("deployment", &app)),
            pod: Some(format!("uid-{number}")),
            process: app.clone(),
            container_id: container_id.to_string(),
            node: Some(node.to_string()),
            address: std::net::Ipv4Addr::from(address).to_string(),
            is_seen: true,
            ..SettledEnd::default()
        };
        Self {
            endpoint: Arc::new(endpoint),
            end: Arc::new(end),
            node,
            node_number,
            address,
            process: app.into(),
            container_id,
            netns: 4_026_532_000 + pod as u32,
        }
    }
}

struct Edge {
    client: usize,
    server: usize,
    port: u16,
    sent: u64,
    recv: u64,
    rtt_us: u64,
    settled: Arc<SettledEdge>,
}

/// The cluster that is told of.
pub(crate) struct Cluster {
    pods: Vec<Pod>,
    edges: Vec<Edge>,
    nothing: Arc<str>,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let pods: Vec<Pod> = (0..NODES * PODS_OF_A_NODE).map(Pod::of).collect();
        let edges = (0..EDGES)
            .map(|edge| {
                let at = |salt: u64| (mixed(&[edge, salt]) % (NODES * PODS_OF_A_NODE)) as usize;
                let (client, server) = (at(2), at(3));
                let port = [80, 443, 5432, 6379, 8080, 9000][(mixed(&[server as u64, 4]) % 6) as usize];
                let settled = SettledEdge {
                    client: Arc::clone(&pods[client].end),
                    server: Arc::clone(&pods[server].end),
                    port,
                    certainty: "known".into(),
                    ..SettledEdge::default()
                };
                Edge {
                    client,
                    server,
                    port,
                    sent: 200 + mixed(&[edge, 5]) % 5_000,
                    recv: 1_000 + mixed(&[edge, 6]) % 200_000,
                    rtt_us: 80 + mixed(&[edge, 7]) % 2_000,
                    settled: Arc::new(settled),
                }
            })
            .collect();
        Self { pods, edges, nothing: "".into() }
    }

    /// When a node's poll of a window ends.
    fn poll(node: u64, window: i64) -> i64 {
        let phase = (mixed(&[node, 8]) % (WINDOW_NS as u64 - 20_000_000)) as i64;
        window * WINDOW_NS + phase + (mixed(&[node, window as u64, 9]) % 5_000_000) as i64
    }

    /// Both views of what moves in one place for a connection, in one window.
    fn add(&self, place: &mut Place, window: i64, rows: &mut Vec<HistoryRow>) {
        let edge = &self.edges[place.edge as usize];
        let (client, server) = (&self.pods[edge.client], &self.pods[edge.server]);
        let random = mixed(&[place.number, place.life, window as u64]);
        let scatter = |usual: u64, bits: u32| usual / 2 + usual * ((random >> bits) & 0x3ff) / 0x3ff;
        let (sent, recv) = (scatter(edge.sent, 0), scatter(edge.recv, 10));
        let opened = place.age == 0;
        place.age += 1;
        let closed = place.age == place.length;
        for (side, pod) in [(Side::Client, client), (Side::Server, server)] {
            let to = Self::poll(pod.node_number, window);
            let mut connection = [0; 16];
            connection[..8].copy_from_slice(&mixed(&[place.number, place.life, side as u64]).to_le_bytes());
            connection[8..14].copy_from_slice(&place.number.to_le_bytes()[..6]);
            // By this the judge knows the edge again.
            connection[14..].copy_from_slice(&place.edge.to_le_bytes());
            rows.push(HistoryRow {
                from: UnixNanos(Self::poll(pod.node_number, window - 1)),
                to: UnixNanos(to),
                connection: ConnectionId(connection),
                view: Some(side),
                node: Arc::clone(&pod.node),
                protocol: Protocol::Tcp,
                netns: pod.netns,
                client: SocketAddr::from((client.address, place.port)),
                server: SocketAddr::from((server.address, edge.port)),
                client_endpoint: Arc::clone(&client.endpoint),
                server_endpoint: Arc::clone(&server.endpoint),
                process: Arc::clone(&pod.process),
                container_id: Arc::clone(&pod.container_id),
                deltas: Deltas { sent: Bytes(sent), recv: Bytes(recv), retransmits: u64::from(random >> 56 == 0) },
                opened,
                closed,
                failure: Arc::clone(&self.nothing),
                rtt_us: Some(edge.rtt_us as u32 + ((random >> 20) & 0x3f) as u32 + side as u32),
                started: Some(UnixNanos(place.started)),
                late: false,
            });
        }
        if closed {
            place.next(window + 1);
        }
    }
}

/// Where one connection follows another.
struct Place {
    number: u64,
    life: u64,
    edge: u16,
    age: u64,
    length: u64,
    port: u16,
    started: i64,
}

impl Place {
    fn new(number: u64, window: i64) -> Self {
        let mut place = Self { number, life: 0, edge: 0, age: 0, length: 0, port: 0, started: 0 };
        place.next(window);
        place
    }

    fn next(&mut self, window: i64) {
        self.life += 1;
        let random = mixed(&[self.number, self.life, 10]);
        // Squared: a tenth of the edges has a third of the connections.
        let part = random % EDGES;
        self.edge = (part * part / EDGES) as u16;
        self.age = 0;
        self.length = WINDOWS_MIN + (random >> 32) % (WINDOWS_MAX - WINDOWS_MIN);
        self.port = 32_768 + (random >> 48) as u16 % 28_000;
        self.started = window * WINDOW_NS - (random >> 20) as i64 % WINDOW_NS;
    }
}

/// Says that the client's view counts, and what the ends are called from then on.
impl Judge for Cluster {
    fn prepare(&mut self, _: Option<(UnixNanos, UnixNanos)>, _: &[&HistoryRow]) -> Result<(), StoreError> {
        Ok(())
    }

    fn judge(&mut self, row: &HistoryRow) -> Judgement {
        let side = row.view.unwrap_or(Side::Client);
        let edge = usize::from(u16::from_le_bytes([row.connection.0[14], row.connection.0[15]]));
        let fate = if side == Side::Server { Fate::OtherView } else { Fate::Counted };
        Judgement { side, fate, edge: Some(Arc::clone(&self.edges[edge].settled)) }
    }
}

/// Bytes by client, server and port, each once: what any engine must find.
pub(crate) type Sums = HashMap<(String, String, u16), u64>;

/// Writes the rows. Says how many, and what they sum up to.
pub(crate) fn fill(store: &Embedded, cluster: &Cluster, shape: Shape) -> Result<(u64, Sums), StoreError> {
    let windows = shape.span_ns / WINDOW_NS;
    let first = shape.until.0 / WINDOW_NS - windows;
    let places = (shape.rows / 2).div_ceil(windows.unsigned_abs()).max(1);
    let mut places: Vec<Place> = (0..places).map(|number| Place::new(number, first)).collect();
    let mut edges = vec![0_u64; cluster.edges.len()];
    let mut written = 0;
    let mut rows = Vec::new();
    for (segment, lsn) in (0..(windows + WINDOWS_OF_A_SEGMENT - 1) / WINDOWS_OF_A_SEGMENT).zip(1..) {
        rows.clear();
        let begin = first + segment * WINDOWS_OF_A_SEGMENT;
        for window in begin..(begin + WINDOWS_OF_A_SEGMENT).min(first + windows) {
            for place in &mut places {
                let edge = usize::from(place.edge);
                cluster.add(place, window, &mut rows);
                let deltas = rows.last().map_or(Deltas::default(), |row| row.deltas);
                edges[edge] += deltas.sent.0 + deltas.recv.0;
            }
        }
        let received = rows.iter().map(|row| row.to).max().unwrap_or_default();
        store.put_segment(SegmentId { first: Lsn(lsn), last: Lsn(lsn) }, received, &[&rows])?;
        written += rows.len() as u64;
    }
    let mut sums = Sums::new();
    for (edge, bytes) in cluster.edges.iter().zip(edges).filter(|(_, bytes)| *bytes > 0) {
        let name = |pod: usize| cluster.pods[pod].endpoint.name.clone();
        *sums.entry((name(edge.client), name(edge.server), edge.port)).or_default() += bytes;
    }
    Ok((written, sums))
}

/// Compacts until nothing is due. Says how many rows went in, each as often as it was read.
pub(crate) fn compact(store: &Embedded, cluster: &mut Cluster, due: Due) -> Result<u64, StoreError> {
    let mut rows = 0;
    while let Some(step) = store.compact(&due, cluster)? {
        rows += step.rows_in;
    }
    Ok(rows)
}
