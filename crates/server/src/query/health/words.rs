//! Symptoms in words: what is so, and what was usual. Short: they are read in a table at night.

use super::held::{Larger, Longer};

/// Names in one text at most.
const NAMES_MAX: usize = 3;

/// A name and the outcome of most of its queries that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailingName<'a> {
    pub(crate) name: &'a str,
    pub(crate) rcode: &'a str,
}

/// `seconds`: of which time this is.
pub(crate) fn failures(reason: &str, larger: &Larger, seconds: u64) -> String {
    let (of, how) = (format!("{} of {}", larger.now.hits, larger.now.trials), usual(larger));
    let what = match reason {
        "refused" => "connections refused",
        "reset" => "connections reset",
        "timed_out" => "connections timed out",
        "unreachable" => "connections found no way (unreachable)",
        _ => "connections aborted",
    };
    format!("{of} {what} in {seconds} s, {how}")
}

pub(crate) fn resent(whose: &str, larger: &Larger, seconds: u64) -> String {
    let (hits, trials) = (larger.now.hits, larger.now.trials);
    let share = percent(larger.now.rate());
    format!("{hits} of about {trials} segments ({share}) sent again by the {whose} in {seconds} s, {}", usual(larger))
}

pub(crate) fn slow(what: &str, longer: &Longer) -> String {
    format!("{what} take {}, usually {}", time(longer.now_us), time(longer.usual_us))
}

pub(crate) fn dns_failures(names: &[FailingName<'_>], larger: &Larger, seconds: u64) -> String {
    let shown = names.iter().take(NAMES_MAX).map(|FailingName { name, rcode }| {
        let name = if name.is_empty() { "(other names)" } else { name };
        format!("{name} {rcode}")
    });
    let mut shown: Vec<String> = shown.collect();
    if names.len() > NAMES_MAX {
        shown.push(format!("{} more names", names.len() - NAMES_MAX));
    }
    let of = format!("{} of {} queries", larger.now.hits, larger.now.trials);
    format!("DNS: {}: {of} failed in {seconds} s, {}", shown.join(", "), usual(larger))
}

fn usual(larger: &Larger) -> String {
    match larger.usual {
        Some(0.0) => "usually none".to_owned(),
        Some(rate) => format!("usually {}", percent(rate)),
        None => "and nothing is known of before".to_owned(),
    }
}

/// From 0 to 1 as a person reads it.
pub(crate) fn percent(rate: f64) -> String {
    let percent = rate * 100.0;
    if percent >= 10.0 {
        format!("{percent:.0} %")
    } else if percent >= 0.1 {
        format!("{percent:.1} %")
    } else {
        "under 0.1 %".to_owned()
    }
}

/// Microseconds as a person reads them.
pub(crate) fn time(us: f64) -> String {
    if us >= 1_000_000.0 {
        format!("{:.1} s", us / 1_000_000.0)
    } else if us >= 10_000.0 {
        format!("{:.0} ms", us / 1_000.0)
    } else if us >= 1_000.0 {
        format!("{:.1} ms", us / 1_000.0)
    } else {
        format!("{us:.0} µs")
    }
}
