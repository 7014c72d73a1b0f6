//! How fast the feed is decoded and attributed: `cargo bench -p weir-agent --bench speed`.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use std::sync::Arc;
use weir_agent::attribute::{Outcome, Poll, Previous, Stage, Table};
use weir_agent::window::{Part, Span, Window};
use weir_daemon::clock::{Clock, ManualClock};
use weir_inventory::{Limits as ProcessLimits, Processes};
use weir_model::MonotonicNanos;
use weir_wire::feed::decode::{Decoder, Limits};
use weir_wire::feed::{Connection, Reply};

/// Connections in the feed: what the benchmarks' aims are about.
const CONNECTIONS: u64 = 100_000;
/// As hyper hands them over.
const CHUNK: usize = 64 << 10;

fn main() {
    divan::main();
}

/// A reply as weir's tracer writes it, every field filled.
fn body(sent: u64) -> Vec<u8> {
    let connections = (0..CONNECTIONS)
        .map(|number| Connection {
            pid: 1000 + (number % 200) as u32,
            net_ns: 4_026_531_840 + (number % 50) as u32,
            source: format!("10.244.{}.{}", number % 50, number % 250),
            dest: format!("10.96.{}.{}", number >> 8 & 255, number & 255),
            sport: 1024 + (number % 60_000) as u16,
            dport: 443,
            direction: 2,
            monotonic_sent_bytes: Some(sent + number),
            last_sent_bytes: sent,
            monotonic_recv_bytes: Some(sent * 3 + number),
            last_recv_bytes: sent * 3,
            last_update_epoch: 11_457_291_007_926_789,
            cookie: Some(number + 1),
            generation: Some(0),
            start_epoch: Some(11_457_000_000_000_000 + number),
            state: Some("established".into()),
            cgroup_id: Some(9000 + number % 200),
            cgroup_path: Some(format!(
                "/kubepods/burstable/pod94d6947c-3d7f-461d-9e06-17ecd60d40a4/{:064x}",
                number % 200
            )),
            container_id: Some(format!("{:064x}", number % 200)),
            rtt_us: Some(120),
            connect_latency_us: Some(300),
            direction_certainty: Some("known".into()),
            process_name: Some("server".into()),
            process_start: Some(11_400_000_000_000_000 + number % 200),
            ..Connection::default()
        })
        .collect();
    let reply = Reply { run_id: Some("00000000000000aa".into()), cursor: Some(1), connections, ..Reply::default() };
    serde_json::to_vec(&reply).expect("it has no map with odd keys")
}

fn stage(body: &[u8]) -> Stage {
    let mut stage = Stage::default();
    let mut decoder = Decoder::new(Limits::default());
    for chunk in body.chunks(CHUNK) {
        decoder.push(chunk, |row| stage.push(row)).expect("it is the feed");
    }
    stage
}

#[divan::bench]
fn decode(bencher: Bencher) {
    let body = body(1);
    bencher.counter(BytesCount::of_slice(&body)).bench(|| {
        let mut decoder = Decoder::new(Limits::default());
        for chunk in body.chunks(CHUNK) {
            decoder.push(chunk, |row| _ = black_box(row)).expect("it is the feed");
        }
        decoder.finish()
    });
}

#[divan::bench]
fn decode_and_stage(bencher: Bencher) {
    let body = body(1);
    bencher.counter(BytesCount::of_slice(&body)).bench(|| stage(&body));
}

/// Every connection has moved: the most work that a poll can be.
#[divan::bench]
fn attribute_and_window(bencher: Bencher) {
    let stages = [stage(&body(1)), stage(&body(2))];
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(MonotonicNanos(12_000_000_000_000_000), 0));
    let processes = Processes::new(ProcessLimits::default());
    bencher
        .counter(ItemsCount::new(CONNECTIONS))
        .with_inputs(|| {
            let mut table = Table::new(1_000_000);
            apply(&mut table, &stages[0], 1, &clock, &processes);
            table
        })
        .bench_local_values(|mut table| {
            apply(&mut table, &stages[1], 2, &clock, &processes);
            table
        });
}

fn apply(table: &mut Table, stage: &Stage, number: u32, clock: &Arc<dyn Clock>, processes: &Processes) {
    let at = 11_999_000_000_000_000 + u64::from(number) * 10_000_000_000;
    let previous = (number > 1).then(|| Previous { at: at - 10_000_000_000, unix: 1, complete: true });
    let poll = Poll { number, at, run: 1, run_since: 1, same_run: number > 1, previous, stream_began: None };
    let mut part = Part::default();
    for row in &stage.open {
        let key = stage.key(row);
        if let Outcome::Changed(change) = table.apply(key, row, stage.carries_retransmits(row), &poll) {
            let span = Span { from: 1, to: at as i64 };
            let window = Window { clock: &**clock, processes, stage, span, at: MonotonicNanos(at) };
            window.add(&mut part, key, row, &change);
        }
        if part.is_full() {
            black_box(std::mem::take(&mut part));
        }
    }
    table.finish(&poll);
    black_box(part);
}
