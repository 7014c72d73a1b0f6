//! Makes the data folder that `docs/history.md` is shown on: half a day of a small shop, rows of every length.
//!
//! `cargo run -p weir-store --example history-folder -- DIR`

use std::path::Path;
use std::sync::Arc;
use weir_model::{Bytes, ConnectionId, Deltas, Endpoint, Protocol, Side, UnixNanos};
use weir_store::embedded::Embedded;
use weir_store::{Due, Fate, HistoryRow, HistoryStore as _, Judge, Judgement, Lsn, SegmentId, StoreError};

const SECOND: i64 = 1_000_000_000;
/// 2026-01-01T00:00:00Z.
const START: i64 = 1_767_225_600 * SECOND;
const HOURS: i64 = 12;

/// Both ends' nodes tell of everything: the client's view counts.
struct Clients;

impl Judge for Clients {
    fn prepare(&mut self, _: Option<(UnixNanos, UnixNanos)>, _: &[&HistoryRow]) -> Result<(), StoreError> {
        Ok(())
    }

    fn judge(&mut self, row: &HistoryRow) -> Judgement {
        let side = row.view.unwrap_or(Side::Client);
        let fate = if side == Side::Client { Fate::Counted } else { Fate::OtherView };
        Judgement { side, fate, edge: None }
    }
}

/// Client, server, port, bytes sent and received in 10 s.
const EDGES: [(&str, &str, u16, u64, u64); 4] = [
    ("front", "cart", 8080, 2_000, 9_000),
    ("cart", "db", 5432, 1_500, 20_000),
    ("front", "search", 9200, 800, 45_000),
    ("backup", "db", 5432, 100, 600_000),
];

fn pod(name: &str) -> Arc<Endpoint> {
    Arc::new(Endpoint { kind: "pod".into(), namespace: "shop".into(), name: name.into() })
}

fn rows(poll: i64) -> Vec<HistoryRow> {
    let to = START + poll * 10 * SECOND;
    let mut rows = Vec::new();
    for (number, (client, server, port, sent, recv)) in EDGES.into_iter().enumerate() {
        // The backup runs ten minutes an hour.
        if client == "backup" && poll % 360 >= 60 {
            continue;
        }
        for view in [Side::Client, Side::Server] {
            let mut connection = [0; 16];
            connection[..3].copy_from_slice(&[number as u8, view as u8, (poll / 360) as u8]);
            let wave = 1 + (poll / 6).unsigned_abs() % 5;
            rows.push(HistoryRow {
                from: UnixNanos(to - 10 * SECOND),
                to: UnixNanos(to),
                connection: ConnectionId(connection),
                view: Some(view),
                node: if view == Side::Client { "node-1".into() } else { "node-2".into() },
                protocol: Protocol::Tcp,
                netns: 4_026_532_000,
                client: ([10, 0, 1, 10 + number as u8], 40_000 + (poll / 360) as u16).into(),
                server: ([10, 0, 2, 10 + number as u8], port).into(),
                client_endpoint: pod(client),
                server_endpoint: pod(server),
                process: if view == Side::Client { client.into() } else { server.into() },
                container_id: "".into(),
                deltas: Deltas {
                    sent: Bytes(sent * wave),
                    recv: Bytes(recv * wave),
                    retransmits: u64::from(poll % 90 == 0),
                },
                opened: poll % 360 == 0,
                closed: poll % 360 == 359,
                failure: "".into(),
                rtt_us: Some(200 + 10 * number as u32),
                started: Some(UnixNanos(START + (poll / 360) * 3600 * SECOND)),
                late: false,
            });
        }
    }
    rows
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).ok_or("name a folder that does not exist yet")?;
    let store = Embedded::open(Path::new(&folder))?;
    // A segment for ten minutes: each waits several times for the disk.
    for (ten, lsn) in (0..HOURS * 6).zip(1..) {
        let ten_minutes: Vec<HistoryRow> = (ten * 60..ten * 60 + 60).flat_map(rows).collect();
        let received = UnixNanos(START + (ten + 1) * 600 * SECOND);
        store.put_segment(SegmentId { first: Lsn(lsn), last: Lsn(lsn) }, received, &[&ten_minutes])?;
    }
    let hour = |hours: i64| UnixNanos(START + hours * 3600 * SECOND);
    let due = Due { settled_before: hour(HOURS - 1), minutes_before: hour(HOURS - 2), hours_before: hour(HOURS / 2) };
    while store.compact(&due, &mut Clients)?.is_some() {}
    Ok(())
}
