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
    Setting { name: "TCP only (`--no-udp`)", tracer: Some(&["--no-udp"]), agent: Agent::Absent },
    Setting { name: "default", tracer: Some(&[]), agent: Agent::Absent },
    Setting { name: "default, agent polls every second", tracer: Some(&[]), agent: Agent::Polling },
];

/// Switches that the tracer has and that no setting uses, so that a new one is not forgotten. Those without an effect
/// on traffic do not count: only flags without a value are looked at.
///
/// # Errors
/// When the tracer does not tell its switches.
pub fn unused(help: &str) -> Vec<String> {
    let used = |flag: &str| SETTINGS.iter().filter_map(|setting| setting.tracer).any(|words| words.contains(&flag));
    let flags = help.lines().map(str::trim_start).filter_map(|line| {
        // `-h, --help`, `--no-udp`; a value would be written `--socket <SOCKET>`.
        let flag = line.split_ascii_whitespace().find(|word| word.starts_with("--"))?;
        let is_first = line.starts_with('-');
        (is_first && !line.contains('<') && !matches!(flag, "--help" | "--version")).then(|| flag.to_owned())
    });
    flags.filter(|flag| !used(flag)).collect()
}

/// The tracer's own `--help`.
///
/// # Errors
/// When it cannot be asked.
pub fn help() -> Result<String> {
    let output = Command::new(crate::process::binary("weir-tracer")?).arg("--help").output();
    let output = output.context("failed to ask weir-tracer for its switches")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_that_no_setting_uses_is_named() {
        let help = "Options:\n      --socket <SOCKET>\n          The unix socket\n\n      --no-udp\n          Leave UDP out, \
                    see --socket\n\n      --brand-new\n          A switch\n\n  -h, --help\n          Print help\n";
        assert_eq!(unused(help), ["--brand-new"]);
    }

    #[test]
    fn the_first_setting_is_none_and_names_differ() {
        assert_eq!(SETTINGS[0], NONE);
        for (index, setting) in SETTINGS.iter().enumerate() {
            assert!(SETTINGS[..index].iter().all(|other| other.name != setting.name), "{}", setting.name);
        }
    }
}
