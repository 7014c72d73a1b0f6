//! What each program costs an operation, by the kernel's own counters. They are nearly free of noise: a program that is
//! interrupted is rare beside the thousands of runs of a block. Not in them is what calling a program costs.

use super::blocks::{Players, pairs};
use super::machine::Interrupt;
use super::programs::{self, Program};
use super::settings::Switches;
use super::watch::Watch;
use crate::load::{Place, Workload};
use anyhow::Result;
use std::path::Path;

/// How long each workload runs, milliseconds.
const BLOCK_MS: u32 = 250;

/// What the programs of one setting did during one workload.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Cost {
    /// The setting's name.
    pub setting: &'static str,
    /// Where.
    pub place: Place,
    /// What.
    pub workload: Workload,
    /// Operations meanwhile.
    pub operations: u64,
    /// Runs and nanoseconds meanwhile, of the programs that ran. Traffic of others on this machine is in them.
    pub programs: Vec<Program>,
}

impl Cost {
    /// Nanoseconds an operation, all programs together.
    pub fn nanoseconds(&self) -> f64 {
        self.programs.iter().map(|program| program.nanoseconds).sum::<u64>() as f64 / self.operations.max(1) as f64
    }
}

/// Measures every setting that has a tracer, once.
///
/// # Errors
/// When a setting does not come to work, a load fails, or `interrupt` has come.
pub fn measure(switches: &Switches, players: &mut Players, folder: &Path, interrupt: &Interrupt) -> Result<Vec<Cost>> {
    let _counting = programs::count()?;
    let mut costs = Vec::new();
    for (_, setting) in switches.settings().into_iter().filter(|(_, setting)| setting.tracer.is_some()) {
        let watch = Watch::start(setting, switches, folder)?;
        for (place, workload) in pairs() {
            let before = watch.programs()?;
            let told = players.time(place, workload, BLOCK_MS, interrupt)?;
            let programs = watch.programs()?.into_iter().filter_map(|after| since(&before, after)).collect();
            costs.push(Cost { setting: setting.name, place, workload, operations: told.operations, programs });
        }
    }
    Ok(costs)
}

/// What a program did since `before`; `None` when it did not run.
fn since(before: &[Program], mut after: Program) -> Option<Program> {
    if let Some(before) = before.iter().find(|before| before.id == after.id) {
        after.runs = after.runs.saturating_sub(before.runs);
        after.nanoseconds = after.nanoseconds.saturating_sub(before.nanoseconds);
    }
    (after.runs > 0).then_some(after)
}
