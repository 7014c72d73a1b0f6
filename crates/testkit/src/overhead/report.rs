//! The figures as Markdown for `bench/README.md`, and as JSON.

use super::blocks::{Block, Blocks, Key, Plan};
use super::costs::Cost;
use super::machine::Machine;
use super::settings::SETTINGS;
use super::spread::{Random, Ratio, median, ratio};
use crate::load::{Place, Quartiles, Told, Workload, quantile};
use serde::Serialize;
use std::fmt::Write as _;

/// Which time of a round is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The load's processor time: another process on its processor is not in it.
    Processor,
    /// The wall, where this kernel leaves interrupts out of a thread's processor time.
    Wall,
}

/// Undisturbed rounds take as long on the wall as on the processor; where they do not, processor time leaves something out.
const APART: f64 = 1.05;

impl Clock {
    fn of(self, told: &Told) -> Quartiles {
        match self {
            Self::Processor => told.processor,
            Self::Wall => told.wall,
        }
    }
}

/// One cell of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// The setting's name.
    pub setting: &'static str,
    /// Where.
    pub place: Place,
    /// What.
    pub workload: Workload,
    /// The median of the blocks' medians, microseconds an operation.
    pub median_us: f64,
    /// The quartiles of the blocks' medians, microseconds.
    pub blocks_us: Quartiles,
    /// The median over the blocks of the distance between their rounds' quartiles, microseconds.
    pub rounds_spread_us: f64,
    /// The ratio of the medians to `none`.
    pub ratio: Option<Ratio>,
    /// The blocks' medians, microseconds, by cycle.
    pub medians_us: Vec<f64>,
    /// Cycles that are not in the ratio because another tracer's programs were loaded in one of the two blocks.
    pub cycles_left_out: usize,
}

/// Everything that a run found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// On what.
    pub machine: Machine,
    /// How much was measured.
    pub plan: Plan,
    /// Which clock is compared.
    pub clock: Clock,
    /// Wall over processor time of a round, in the middle: 1 where nobody else wanted the processor.
    pub disturbed: f64,
    /// The cells.
    pub figures: Vec<Figure>,
    /// What the programs cost.
    pub costs: Vec<Cost>,
    /// Switches of the tracer that no setting uses.
    pub unused_switches: Vec<String>,
}

impl Report {
    /// Computes the figures.
    pub fn new(machine: Machine, plan: Plan, blocks: &Blocks, costs: Vec<Cost>, unused_switches: Vec<String>) -> Self {
        let mut apart: Vec<f64> = blocks
            .values()
            .flatten()
            .map(|block| &block.told)
            .filter(|told| told.processor.low > 0.0)
            .map(|told| told.wall.low / told.processor.low)
            .collect();
        apart.sort_unstable_by(f64::total_cmp);
        let clock = if quantile(&apart, 0.1) > APART { Clock::Wall } else { Clock::Processor };
        let mut random = Random::new(plan.seed);
        let figures = blocks.iter().map(|(key, own)| {
            let none = blocks.get(&Key { setting: 0, ..*key }).map_or(&[][..], Vec::as_slice);
            figure(*key, none, own, clock, &mut random)
        });
        let figures = figures.collect();
        Self { machine, plan, clock, disturbed: quantile(&apart, 0.5), figures, costs, unused_switches }
    }

    /// For people.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        self.head(&mut out);
        self.ratios(&mut out);
        self.times(&mut out);
        out.push_str(&costs(&self.costs));
        out
    }

    fn head(&self, out: &mut String) {
        let machine = &self.machine;
        let _ = writeln!(
            out,
            "commit {}; {} processors, {}; Linux {}; {} cycles, blocks of {} ms, seed {}; load average at the start {}\n",
            machine.commit,
            machine.processors,
            machine.processor,
            machine.kernel,
            self.plan.cycles,
            self.plan.block_ms,
            self.plan.seed,
            machine.load,
        );
        let clock = match self.clock {
            Clock::Processor => "the load's processor time",
            Clock::Wall => "time on the wall (this kernel leaves something out of processor time)",
        };
        let _ = writeln!(out, "Compared: {clock}. Wall over processor time in the middle: {:.3}.", self.disturbed);
        let left_out = self.figures.iter().map(|figure| figure.cycles_left_out).max().unwrap_or(0);
        if machine.foreign_programs > 0 || left_out > 0 {
            let _ = writeln!(
                out,
                "WARNING: programs of other tracers were loaded ({} at the start): `none` was not none. The ratios leave out up \
                 to {left_out} of {} cycles for that; the times do not.",
                machine.foreign_programs, self.plan.cycles,
            );
        }
        if machine.stats_enabled {
            out.push_str("WARNING: kernel.bpf_stats_enabled was on: every program is dearer than it need be.\n");
        }
        if !self.unused_switches.is_empty() {
            let _ = writeln!(out, "Not measured: the tracer's {}.", self.unused_switches.join(", "));
        }
    }

    fn figure(&self, setting: &str, place: Place, workload: Workload) -> Option<&Figure> {
        self.figures
            .iter()
            .find(|figure| figure.setting == setting && figure.place == place && figure.workload == workload)
    }

    fn ratios(&self, out: &mut String) {
        table(out, "Ratio of medians to `none` (95 % interval):", |setting, place, workload| {
            let ratio = self.figure(setting, place, workload)?.ratio?;
            Some(format!("{:.3} ({:.3} to {:.3})", ratio.ratio, ratio.low, ratio.high))
        });
    }

    fn times(&self, out: &mut String) {
        let title = "Microseconds an operation: median of the blocks (their quartiles; distance between the quartiles of \
                     the rounds within a block):";
        table(out, title, |setting, place, workload| {
            let figure = self.figure(setting, place, workload)?;
            Some(format!(
                "{:.2} ({:.2} to {:.2}; {:.2})",
                figure.median_us, figure.blocks_us.low, figure.blocks_us.high, figure.rounds_spread_us
            ))
        });
    }
}

fn figure(key: Key, none: &[Block], own: &[Block], clock: Clock, random: &mut Random) -> Figure {
    let medians_of =
        |blocks: &[&Block]| -> Vec<f64> { blocks.iter().map(|block| clock.of(&block.told).median).collect() };
    let pairs: Vec<_> = none.iter().zip(own).filter(|(none, own)| !none.is_disturbed && !own.is_disturbed).collect();
    let base = medians_of(&pairs.iter().map(|pair| pair.0).collect::<Vec<_>>());
    let compared = medians_of(&pairs.iter().map(|pair| pair.1).collect::<Vec<_>>());
    let medians_us = medians_of(&own.iter().collect::<Vec<_>>());
    Figure {
        setting: SETTINGS[key.setting].name,
        place: key.place,
        workload: key.workload,
        median_us: median(medians_us.iter().copied()),
        blocks_us: Quartiles::of(&mut medians_us.clone()),
        rounds_spread_us: median(own.iter().map(|block| clock.of(&block.told)).map(|told| told.high - told.low)),
        ratio: (key.setting > 0).then(|| ratio(&base, &compared, random)).flatten(),
        medians_us,
        cycles_left_out: own.len() - pairs.len(),
    }
}

/// What the programs cost, for people.
pub fn costs(costs: &[Cost]) -> String {
    let mut out = String::new();
    per_operation(costs, &mut out);
    per_program(costs, &mut out);
    out
}

fn per_operation(costs: &[Cost], out: &mut String) {
    let title = "Nanoseconds in weir's programs an operation, by the kernel's counters:";
    table(out, title, |setting, place, workload| {
        let is_it = |cost: &&Cost| cost.setting == setting && cost.place == place && cost.workload == workload;
        Some(format!("{:.0}", costs.iter().find(is_it)?.nanoseconds()))
    });
}

/// Program by program, on loopback, of each setting that has a program that the ones before it had not.
fn per_program(costs: &[Cost], out: &mut String) {
    let mut known = std::collections::BTreeSet::new();
    let mut lines = String::new();
    for cost in costs.iter().filter(|cost| cost.place == Place::Loopback) {
        for program in &cost.programs {
            if !known.insert((program.name.clone(), cost.workload)) {
                continue;
            }
            let _ = writeln!(
                lines,
                "| {} | {} | {} | {:.2} | {:.0} |",
                program.name,
                cost.setting,
                cost.workload.title(),
                program.runs as f64 / cost.operations.max(1) as f64,
                program.nanoseconds as f64 / program.runs.max(1) as f64,
            );
        }
    }
    let _ = writeln!(
        out,
        "\nPrograms on loopback, with the first setting that had them:\n\n\
         | program | setting | workload | runs an operation | ns a run |\n|---|---|---|---|---|\n{lines}"
    );
}

fn table(out: &mut String, title: &str, mut cell: impl FnMut(&'static str, Place, Workload) -> Option<String>) {
    let _ = writeln!(out, "\n{title}\n");
    let titles = Workload::ALL.map(Workload::title).join(" | ");
    let _ = writeln!(out, "| setting | place | {titles} |\n|---|---|{}", "---|".repeat(Workload::ALL.len()));
    for setting in SETTINGS {
        for place in Place::ALL {
            let cells = Workload::ALL.map(|workload| cell(setting.name, place, workload));
            if cells.iter().all(Option::is_none) {
                continue;
            }
            let cells = cells.map(|cell| cell.unwrap_or_else(|| "-".to_owned())).join(" | ");
            let _ = writeln!(out, "| {} | {} | {cells} |", setting.name, place.title());
        }
    }
}
