//! The negative control: the system that weir replaces kept everything in a record that each agent read, changed and
//! wrote back, whatever had been written meanwhile. Played under the same world and held against the same checks, it must
//! be caught; the same writers with a comparison before they write must not.

use super::check::{self, Totals};
use super::random::Random;
use super::world::{Kinds, World, name};
use crate::feed::Behaviour;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use weir_wire::api::Transaction;
use weir_wire::feed::{Connection, Reply};

/// Polls of each writer while things happen.
const POLLS: u64 = 60;
/// The longest way between a writer and the record, milliseconds.
const WAY_MAX_MS: u64 = 8;

/// How a writer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Whatever was written meanwhile is overwritten.
    Blind,
    /// What was written meanwhile is read again first.
    Compared,
}

/// What the checks say.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// [`check::transactions`].
    pub transactions: String,
    /// [`check::acknowledged`].
    pub acknowledged: String,
    /// [`check::never_back`], from one write to the next.
    pub went_back: String,
}

#[derive(Debug, Default)]
struct Record {
    version: u64,
    rows: BTreeMap<check::Counter, Transaction>,
    acknowledged: BTreeMap<check::Counter, Totals>,
    went_back: String,
}

/// Plays so many writers against one record.
pub fn play(seed: u64, writers: usize, manner: Manner) -> Verdict {
    let mut random = Random::new(seed);
    let world = Arc::new(World::new(writers, Kinds::default(), random.fork()));
    world.begin();
    let record = Arc::new(Mutex::new(Record::default()));
    // At last nothing moves any more, and every writer sees and writes once more what still lives.
    let mut cursors = vec![0; writers];
    for polls in [POLLS, 2] {
        std::thread::scope(|scope| {
            for (node, cursor) in cursors.iter_mut().enumerate() {
                let (world, record, random) = (Arc::clone(&world), Arc::clone(&record), random.fork());
                scope.spawn(move || write((node, cursor), polls, &world, &record, manner, random));
            }
        });
        world.freeze();
    }
    let record = record.lock().unwrap_or_else(PoisonError::into_inner);
    let rows: Vec<Transaction> = record.rows.values().cloned().collect();
    Verdict {
        transactions: check::transactions(&world.flows(), &rows, &BTreeMap::new()),
        acknowledged: check::acknowledged(&record.acknowledged, &rows),
        went_back: record.went_back.clone(),
    }
}

fn write(
    (node, cursor): (usize, &mut u64),
    polls: u64,
    world: &World,
    record: &Mutex<Record>,
    manner: Manner,
    mut random: Random,
) {
    let lock = || record.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..polls {
        let Behaviour::Body(body) = world.answer(node, &format!("/connections?client_id=blind&ack={cursor}")) else {
            continue;
        };
        let Ok(reply) = serde_json::from_slice::<Reply>(&body) else { continue };
        loop {
            let (version, mut rows) = {
                let record = lock();
                (record.version, record.rows.clone())
            };
            wait(&mut random);
            for row in reply.connections.iter().map(|connection| transaction(node, connection)) {
                rows.insert(check::counter(&row), row);
            }
            let mut record = lock();
            if manner == Manner::Compared && record.version != version {
                continue;
            }
            let all = |rows: &BTreeMap<_, Transaction>| check::totals(&rows.values().cloned().collect::<Vec<_>>());
            let faults = check::never_back(&all(&record.rows), &all(&rows));
            if record.went_back.is_empty() {
                record.went_back = faults;
            }
            record.rows = rows;
            record.version += 1;
            for row in reply.connections.iter().map(|connection| transaction(node, connection)) {
                record.acknowledged.insert(check::counter(&row), (row.monotonic_sent_bytes, row.monotonic_recv_bytes));
            }
            break;
        }
        *cursor = reply.cursor.unwrap_or(*cursor);
        wait(&mut random);
    }
}

fn transaction(node: usize, connection: &Connection) -> Transaction {
    let (source, dest) = (connection.source.clone(), connection.dest.clone());
    Transaction {
        key: format!("{source}-{dest}-{}-{}", connection.sport, connection.dport),
        protocol: if connection.kind == 0 { "tcp" } else { "udp" }.into(),
        node: name(node),
        instance: format!(
            "{}:{}",
            if connection.kind == 0 { "socket" } else { "peer" },
            connection.cookie.unwrap_or(0)
        ),
        source,
        dest,
        source_port: connection.sport,
        dest_port: connection.dport,
        monotonic_sent_bytes: connection.monotonic_sent_bytes.unwrap_or(0),
        monotonic_recv_bytes: connection.monotonic_recv_bytes.unwrap_or(0),
        ..Transaction::default()
    }
}

#[expect(clippy::disallowed_methods, reason = "the way to the record takes its time; nothing is assumed after it")]
fn wait(random: &mut Random) {
    std::thread::sleep(Duration::from_millis(random.below(WAY_MAX_MS)));
}
