//! The checks of capabilities: one each, with what is lost without it and how to give it. A tracer that runs says itself
//! what it lacks; where none does, what this user would start is judged. Pure.

use super::checks::Check;
use super::facts::Facts;
use weir_daemon::capabilities::{ALL, BPF, Capability, Held, PERFMON, how_to_give};
use weir_wire::feed::Status;

/// One check a capability.
pub fn capabilities(facts: &Facts, tracer: Option<&Status>) -> Vec<Check> {
    ALL.iter().map(|capability| check(*capability, facts, tracer)).collect()
}

fn check(capability: Capability, facts: &Facts, tracer: Option<&Status>) -> Check {
    let name = check_name(capability);
    let (who, held, fallback) = if let Some(status) = tracer {
        let lacks = status.lacks.iter().any(|lack| lack.what == capability.name);
        ("the tracer that runs".to_owned(), !lacks, status.mode == "fallback")
    } else {
        let held = Held(facts.capabilities.unwrap_or(0));
        let who = facts.uid.map_or_else(|| "this user".to_owned(), |uid| format!("uid {uid}"));
        (who, held.has(capability), !held.missing(&[BPF, PERFMON]).is_empty())
    };
    if held {
        return Check::ok(name, format!("{who} has it"));
    }
    // Whoever runs without eBPF for lack of this one must hear of it all the same.
    let lost = if fallback && !matches!(capability, BPF | PERFMON) { capability.fallback } else { capability.ebpf };
    if lost.is_empty() {
        return Check::ok(name, format!("{who} does not have it, and does not need it"));
    }
    let fix = if tracer.is_none() && facts.uid == Some(0) {
        format!("root is held short of it, as in a container: {}", how_to_give(&[capability]))
    } else {
        format!("run `sudo weir up`, or give it to weir-tracer: {}", how_to_give(&[capability]))
    };
    Check::degraded(name, format!("{who} lacks it; not seen: {lost}"), fix)
}

/// As the table of checks names it.
fn check_name(capability: Capability) -> &'static str {
    match capability.name {
        "CAP_BPF" => "cap_bpf",
        "CAP_PERFMON" => "cap_perfmon",
        "CAP_NET_ADMIN" => "cap_net_admin",
        "CAP_SYS_PTRACE" => "cap_sys_ptrace",
        "CAP_DAC_READ_SEARCH" => "cap_dac_read_search",
        _ => "cap_sys_admin",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::checks::State;
    use weir_wire::feed::Blind;

    fn wrong(checks: &[Check]) -> Vec<&str> {
        checks.iter().filter(|check| check.state != State::Ok).map(|check| check.check).collect()
    }

    #[test]
    fn every_capability_has_a_check_of_its_own_name() {
        let root = Facts { capabilities: Some(u64::MAX), uid: Some(0), ..Facts::default() };
        let checks = capabilities(&root, None);
        assert!(wrong(&checks).is_empty());
        let names: Vec<String> = checks.iter().map(|check| check.check.to_uppercase()).collect();
        assert_eq!(names, ALL.map(|capability| capability.name));
    }

    #[test]
    fn an_ordinary_user_hears_what_each_would_give_and_how() {
        let user = Facts { capabilities: Some(0), uid: Some(1000), ..Facts::default() };
        let checks = capabilities(&user, None);
        assert_eq!(wrong(&checks).len(), ALL.len());
        assert!(checks[0].fix.contains("sudo weir up") && checks[0].fix.contains("AmbientCapabilities=CAP_BPF"));
        assert!(checks[4].detail.contains("other users' processes: no pid"), "{checks:?}");
    }

    #[test]
    fn a_tracer_that_runs_speaks_for_itself() {
        let user = Facts { capabilities: Some(0), uid: Some(1000), ..Facts::default() };
        let mut status = Status { mode: "ebpf".into(), ..Status::default() };
        assert!(wrong(&capabilities(&user, Some(&status))).is_empty());
        for what in ["CAP_NET_ADMIN", "CAP_DAC_READ_SEARCH"] {
            status.lacks.push(Blind { what: what.into(), why: String::new() });
        }
        // With eBPF nothing is lost without the second.
        assert_eq!(wrong(&capabilities(&user, Some(&status))), ["cap_net_admin"]);
    }
}
