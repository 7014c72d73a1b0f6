//! The promise: whatever is killed, no byte of a TCP connection is missing and none is counted twice.

use anyhow::{Result, ensure};
use std::time::Duration;
use weir_testkit::is_root_or_skip;
use weir_testkit::played::Stage;
use weir_testkit::process::until;
use weir_testkit::traffic::Manner;
use weir_testkit::truth::{edges_differ, transactions_differ};
use weir_testkit::weir::Weir;

/// How often each part is killed.
const KILLS: usize = 10;

/// A small generator (xorshift, Marsaglia 2003): the order and the pauses of the kills, reproducible by the seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[test]
fn killing_any_part_at_any_time_loses_no_byte_and_counts_none_twice() -> Result<()> {
    if !is_root_or_skip("killing_any_part_at_any_time_loses_no_byte_and_counts_none_twice") {
        return Ok(());
    }
    let seed = std::env::var("WEIR_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()) + 1);
    println!("seed {seed}: run again with WEIR_SEED={seed}");
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::open()?;
    let server = stage.at("127.0.0.1", Manner::Echo)?;
    let weir = Weir::up(&folder.path().join("data"), "500ms", &[])?;
    let churn = stage.start(&["churn"], server)?;

    let mut kills: Vec<&str> = ["tracer", "agent", "server"].repeat(KILLS);
    while !kills.is_empty() {
        let part = kills.swap_remove(random.below(kills.len() as u64) as usize);
        pause(Duration::from_millis(random.below(900)));
        weir.kill(part)?;
    }
    stage.end(churn)?;

    until(Duration::from_secs(60), || {
        let differ = transactions_differ(stage.truth(), &weir.transactions()?);
        ensure!(differ.is_empty(), "seed {seed}: transactions differ from the truth:\n{differ}");
        let differ = edges_differ(stage.truth(), &weir.edges()?);
        ensure!(differ.is_empty(), "seed {seed}: edges differ from the truth:\n{differ}");
        Ok(true)
    })?;
    ensure!(stage.truth().len() > 500, "only {} ends of traffic were played", stage.truth().len());
    let restarts: u64 = weir.up_file()?.parts.iter().map(|part| part.restarts).sum();
    ensure!(restarts >= 3 * KILLS as u64, "{restarts} restarts were counted");
    assert!(weir.stop(Duration::from_secs(5))?.success());
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the kills come at random times; nothing is assumed after the pause")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
