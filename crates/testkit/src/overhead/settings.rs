//! The settings that are compared. This list is the only place that knows the tracer's switches.

use anyhow::{Context, Result};
use std::process::Command;

/// Whether an agent polls the tracer meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// None runs.
    Absent,
    /// One polls every second, ten times as often as it does by default.
    Polling,
}

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// For people.
    pub name: &'static str,
    /// The tracer's switches; `None` runs without one.
    pub tracer: Option<&'static [&'static str]>,
    /// Whether an agent runs too.
    pub agent: Agent,
}

/// What everything is compared with.
pub const NONE: Setting = Setting { name: "none", tracer: None, agent: Agent::Absent };

/// All of them. The first is what the others are compared with, the second the control.
pub const SETTINGS: &[Setting] = &[
    NONE,
    Setting { name: "none again (control)", ..NONE },
    Setting { name: "TCP only", tracer: Some(&["--no-udp", "--no-dns", "--no-conntrack"]), agent: Agent::Absent },
    Setting { name: "without DNS", tracer: Some(&["--no-dns"]), agent: Agent::Absent },
    Setting { name: "without conntrack", tracer: Some(&["--no-conntrack"]), agent: Agent::Absent },
    Setting { name: "default", tracer: Some(&[]), agent: Agent::Absent },
    Setting { name: "default, probes' costs counted", tracer: Some(&["--probe-costs"]), agent: Agent::Absent },
    Setting { name: "default, agent polls every second", tracer: Some(&[]), agent: Agent::Polling },
];

/// What a tracer can be switched to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switches(Vec<String>);

impl Switches {
    /// Asks the tracer that lies beside this program.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ask() -> Result<Self> {
        Ok(Self::read(&help()?))
    }

    /// Out of `--help`: flags without a value, because those with one do not switch anything.
    fn read(help: &str) -> Self {
        let flags = help.lines().map(str::trim_start).filter_map(|line| {
            // `-h, --help`, `--no-udp`; a value would be written `--socket <SOCKET>`.
            let flag = line.split_ascii_whitespace().find(|word| word.starts_with("--"))?;
            let is_flag = line.starts_with('-') && !line.contains('<') && !matches!(flag, "--help" | "--version");
            is_flag.then(|| flag.to_owned())
        });
        Self(flags.collect())
    }

    /// Those of a setting that this tracer knows.
    pub fn of(&self, setting: &Setting) -> Vec<&'static str> {
        let words = setting.tracer.unwrap_or_default();
        words.iter().copied().filter(|word| self.0.iter().any(|known| known == word)).collect()
    }

    /// The settings that this tracer can be measured under, with their index in [`SETTINGS`]: not those all of whose
    /// switches it lacks, which would be the default again.
    pub fn settings(&self) -> Vec<(usize, &'static Setting)> {
        let is_possible = |(_, setting): &(usize, &Setting)| {
            setting.tracer.is_none_or(|words| words.is_empty() || !self.of(setting).is_empty())
        };
        SETTINGS.iter().enumerate().filter(is_possible).collect()
    }

    /// Switches that no setting uses, so that a new one is not forgotten.
    pub fn unused(&self) -> Vec<String> {
        let is_used = |flag: &String| SETTINGS.iter().any(|setting| self.of(setting).contains(&flag.as_str()));
        self.0.iter().filter(|flag| !is_used(flag)).cloned().collect()
    }
}

fn help() -> Result<String> {
    let output = Command::new(crate::process::binary("weir-tracer")?).arg("--help").output();
    let output = output.context("failed to ask weir-tracer for its switches")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "Options:\n      --socket <SOCKET>\n          The unix socket\n\n      --no-udp\n          Leave UDP \
                        out, see --socket\n\n      --brand-new\n          A switch\n\n  -h, --help\n          Print help\n";

    #[test]
    fn a_switch_that_no_setting_uses_is_named() {
        assert_eq!(Switches::read(HELP).unused(), ["--brand-new"]);
    }

    #[test]
    fn a_tracer_without_a_switch_is_measured_without_the_settings_that_are_nothing_but_it() {
        let switches = Switches::read(HELP);
        let names: Vec<&str> = switches.settings().iter().map(|(_, setting)| setting.name).collect();
        assert_eq!(names[..3], ["none", "none again (control)", "TCP only"]);
        assert!(names.contains(&"default") && !names.contains(&"without DNS"), "{names:?}");
        assert_eq!(switches.of(&SETTINGS[2]), ["--no-udp"]);
    }

    #[test]
    fn the_first_setting_is_none_and_names_differ() {
        assert_eq!(SETTINGS[0], NONE);
        for (index, setting) in SETTINGS.iter().enumerate() {
            assert!(SETTINGS[..index].iter().all(|other| other.name != setting.name), "{}", setting.name);
        }
    }
}
