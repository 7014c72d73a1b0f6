//! Blocks: every setting in every cycle, in random order, each workload timed for a moment.

use super::machine::Interrupt;
use super::settings::Switches;
use super::spread::Random;
use super::watch::Watch;
use crate::load::{Order, Place, Player, Told, Workload};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Plan {
    /// How often every setting has its turn.
    pub cycles: u32,
    /// How long a block lasts, milliseconds.
    pub block_ms: u32,
    /// The beginning of the random order.
    pub seed: u64,
}

/// Whose block it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The setting's index in the list of settings.
    pub setting: usize,
    /// Where.
    pub place: Place,
    /// What.
    pub workload: Workload,
}

/// One block.
#[derive(Clone, Debug)]
pub struct Block {
    /// The load's answer.
    pub told: Told,
    /// Whether programs of another tracer were loaded: whatever ran in it ran through those too.
    pub is_disturbed: bool,
}

/// Every block, in the order of the cycles.
pub type Blocks = BTreeMap<Key, Vec<Block>>;

/// Every place with every workload.
pub fn pairs() -> Vec<(Place, Workload)> {
    Place::ALL.iter().flat_map(|place| Workload::ALL.map(|workload| (*place, workload))).collect()
}

/// The loads that are asked, one a place.
#[derive(Debug)]
pub struct Players(BTreeMap<Place, Player>);

impl Players {
    /// Starts them on processor `cpu`, before everything else that wants it.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start(cpu: usize) -> Result<Self> {
        let cpu = cpu.to_string();
        let start = |place| Ok((place, Player::start(place, &["--cpu", &cpu, "--nice=-20"])?));
        Ok(Self(Place::ALL.into_iter().map(start).collect::<Result<_>>()?))
    }

    /// Has one block measured.
    ///
    /// # Errors
    /// When the load fails or `interrupt` has come.
    pub fn time(&mut self, place: Place, workload: Workload, millis: u32, interrupt: &Interrupt) -> Result<Told> {
        let player = self.0.get_mut(&place).context("every place has a load")?;
        player.order(&Order::Time { workload, millis }, &mut || interrupt.check())
    }
}

/// Measures all blocks of `plan`; `said` hears of every cycle.
///
/// # Errors
/// When a setting does not come to work, a load fails, or `interrupt` has come.
pub fn measure(
    plan: &Plan,
    switches: &Switches,
    players: &mut Players,
    folder: &Path,
    interrupt: &Interrupt,
    said: &mut dyn FnMut(u32),
) -> Result<Blocks> {
    let mut random = Random::new(plan.seed);
    let mut blocks = Blocks::new();
    for cycle in 0..plan.cycles {
        said(cycle);
        for (index, setting) in random.shuffled(&switches.settings()) {
            interrupt.check()?;
            let watch = Watch::start(setting, switches, folder)?;
            for (place, workload) in random.shuffled(&pairs()) {
                let disturbed_before = watch.has_company()?;
                let told = players.time(place, workload, plan.block_ms, interrupt)?;
                let is_disturbed = disturbed_before || watch.has_company()?;
                blocks.entry(Key { setting: index, place, workload }).or_default().push(Block { told, is_disturbed });
            }
            drop(watch);
        }
    }
    Ok(blocks)
}
