//! The checks: from facts and answers to `ok`, `degraded` or `failed` and how to mend it. Pure.

use super::facts::Facts;
use crate::show::units;
use serde::Serialize;
use std::collections::HashMap;
use weir_wire::api::{Answer, StatusRow, Transaction};
use weir_wire::feed;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Works, and lacks something.
    Degraded,
    /// Does not work.
    Failed,
}

impl State {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }
}

/// A check's outcome: an item of `weir doctor -o json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub check: &'static str,
    /// How it went.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// How to mend it; empty when there is nothing to mend.
    pub fix: String,
}

impl Check {
    /// As it should be.
    pub fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, state: State::Ok, detail: detail.into(), fix: String::new() }
    }

    /// Works, and lacks something.
    pub fn degraded(check: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, state: State::Degraded, detail: detail.into(), fix: fix.into() }
    }

    /// Does not work.
    pub fn failed(check: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, state: State::Failed, detail: detail.into(), fix: fix.into() }
    }
}

/// Programs that read kernel memory by type (`tp_btf`) and socket iterators came with 5.8 and 5.9; `bpf_get_socket_cookie`
/// in them, and memory accounting by cgroup instead of `RLIMIT_MEMLOCK`, with 5.11 and 5.12.
const KERNEL_LEAST: (u32, u32) = (5, 12);

/// Memory accounting by cgroup: since then `RLIMIT_MEMLOCK` does not bind maps.
const KERNEL_WITHOUT_MEMLOCK: (u32, u32) = (5, 11);

/// The maps of a busy node.
const MEMLOCK_LEAST: u64 = 256 << 20;

/// What a tracer without eBPF does not see, in a word.
const FALLBACK: &str = "the fallback runs: TCP only, see cannot_see in the tracer's /status";

/// What the kernel allows.
pub fn kernel(facts: &Facts) -> Vec<Check> {
    vec![version(facts), btf(facts), lockdown(facts), cgroup(facts), memlock(facts), unprivileged(facts), jit(facts)]
}

fn version(facts: &Facts) -> Check {
    let (major, minor) = KERNEL_LEAST;
    let fix = format!("boot a kernel {major}.{minor} or newer");
    match (&facts.kernel, facts.version) {
        (Some(kernel), Some(version)) if version >= KERNEL_LEAST => Check::ok("kernel", kernel),
        (Some(kernel), Some(_)) => {
            Check::degraded("kernel", format!("{kernel} lacks what the probes need; {FALLBACK}"), fix)
        }
        (kernel, _) => {
            let kernel = kernel.as_deref().unwrap_or("unknown");
            Check::degraded("kernel", format!("version {kernel} is not understood"), fix)
        }
    }
}

fn btf(facts: &Facts) -> Check {
    match facts.btf_bytes {
        Some(bytes) if bytes > 0 => Check::ok("btf", format!("/sys/kernel/btf/vmlinux, {}", units::bytes(bytes))),
        _ => Check::degraded(
            "btf",
            format!("/sys/kernel/btf/vmlinux is missing: probes cannot be fitted to this kernel; {FALLBACK}"),
            "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y (every current distribution's is)",
        ),
    }
}

fn lockdown(facts: &Facts) -> Check {
    match facts.lockdown.as_deref() {
        Some("confidentiality") => Check::degraded(
            "lockdown",
            format!("confidentiality: no program may read kernel memory; {FALLBACK}"),
            "boot with lockdown=integrity or without it",
        ),
        Some(level) => Check::ok("lockdown", level),
        None => Check::ok("lockdown", "not in this kernel"),
    }
}

fn cgroup(facts: &Facts) -> Check {
    match &facts.cgroup2 {
        Some(path) => Check::ok("cgroup2", path),
        None => Check::degraded(
            "cgroup2",
            "not mounted: ends cannot be named by cgroup, UDP cannot be counted",
            "mount -t cgroup2 none /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1",
        ),
    }
}

fn memlock(facts: &Facts) -> Check {
    if facts.version.is_some_and(|version| version >= KERNEL_WITHOUT_MEMLOCK) {
        return Check::ok("memlock", "the kernel accounts maps by cgroup");
    }
    match facts.memlock_bytes {
        Some(u64::MAX) => Check::ok("memlock", "unlimited"),
        Some(bytes) if bytes >= MEMLOCK_LEAST => Check::ok("memlock", units::bytes(bytes)),
        Some(bytes) => Check::degraded(
            "memlock",
            format!("{} may be too little for the maps", units::bytes(bytes)),
            "ulimit -l unlimited before starting, or LimitMEMLOCK=infinity in the unit",
        ),
        None => Check::degraded("memlock", "unknown", "ulimit -l unlimited before starting"),
    }
}

fn unprivileged(facts: &Facts) -> Check {
    match facts.unprivileged_bpf_disabled {
        Some(0) => Check::degraded(
            "unprivileged_bpf",
            "any user may load BPF programs; weir does not need that",
            "sysctl kernel.unprivileged_bpf_disabled=2",
        ),
        Some(level) => Check::ok("unprivileged_bpf", format!("disabled ({level}), as it should be")),
        None => Check::ok("unprivileged_bpf", "not in this kernel"),
    }
}

fn jit(facts: &Facts) -> Check {
    match facts.jit {
        Some(0) => Check::degraded(
            "bpf_jit",
            "off: probes are interpreted and cost several times more",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        Some(_) => Check::ok("bpf_jit", "on"),
        None => Check::ok("bpf_jit", "always on"),
    }
}

/// What a tracer said on its socket.
pub fn tracer(target: &str, status: Result<&feed::Status, &str>) -> Vec<Check> {
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            let fix = "start one with `sudo weir up`, or name another's socket with --feed unix:PATH; an ordinary user has \
                       to be in the socket's group";
            return vec![Check::failed("tracer", error, fix)];
        }
    };
    let broken: Vec<String> = status
        .probes
        .iter()
        .filter(|probe| !matches!(probe.state.as_str(), "running" | "disabled"))
        .map(|probe| {
            format!("{} {} ({})", probe.name, probe.state, probe.reason.as_deref().unwrap_or("no reason given"))
        })
        .collect();
    let running = status.probes.iter().filter(|probe| probe.state == "running").count();
    let version = if status.version.is_empty() { "of unknown version" } else { &status.version };
    let found = format!("{version} at {target}, {running} probes run");
    let mut checks = vec![if let Some(degraded) = &status.degraded {
        let blind: Vec<&str> = degraded.cannot_see.iter().map(|blind| blind.what.as_str()).collect();
        let found =
            format!("{found}; {} instead of eBPF: {}; not seen: {}", degraded.mode, degraded.reason, blind.join(", "));
        Check::degraded("tracer", found, "mend what is said of kernel, btf and capabilities, then start it again")
    } else if !broken.is_empty() {
        let fix = "what those probes would see is missing; the reasons say what this kernel lacks";
        Check::degraded("tracer", format!("{found}; {}", broken.join(", ")), fix)
    } else if matches!(status.state.as_str(), "running" | "") {
        Check::ok("tracer", found)
    } else {
        Check::degraded("tracer", format!("{found}; it says it is {}", status.state), "see the tracer's log")
    }];
    let lost: Vec<String> = status
        .losses
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{} {}", units::count(*count), reason.replace('_', " ")))
        .collect();
    checks.push(if lost.is_empty() {
        Check::ok("tracer_losses", "none in this run")
    } else {
        Check::degraded("tracer_losses", lost.join(", "), "every answer tells them; `weir status` sums them up")
    });
    checks
}

/// What the server said about itself and its nodes.
pub fn server(target: &str, answer: Result<&Answer<StatusRow>, &str>) -> Check {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            return Check::failed("server", error, "start one with `weir up`, or name another with --server URL");
        }
    };
    let reporting = answer.completeness.nodes.iter().filter(|node| node.state == "reporting").count();
    let found = format!("{target}, {reporting} of {} nodes report", answer.completeness.nodes.len());
    let troubles: Vec<String> = answer
        .items
        .iter()
        .filter(|row| row.health != "healthy")
        .map(|row| format!("{} {} is {}: {}", row.kind, row.name, row.health, row.detail))
        .collect();
    if crate::read::status::verdict(answer) == crate::exit::Verdict::Unhealthy {
        Check::failed("server", format!("{found}; {}", troubles.join("; ")), "`weir status` has the details")
    } else if !troubles.is_empty() {
        Check::degraded("server", format!("{found}; {}", troubles.join("; ")), "`weir status` has the details")
    } else if reporting == 0 {
        Check::degraded("server", found, "no agent delivers: start one with `weir up` or weir-agent")
    } else {
        Check::ok("server", found)
    }
}

/// Room that the data folder's file system has left.
pub fn space(folder: &str, available: u64, total: u64) -> Check {
    /// A day of a busy node's records and the compaction's copies.
    const PLENTY: u64 = 1 << 30;
    /// Below this, SQLite and the log soon cannot write.
    const LEAST: u64 = 100 << 20;
    let found = format!("{folder}: {} of {} free", units::bytes(available), units::bytes(total));
    let fix = "free some, name another folder with --data, or keep less with --retain-history and --retain-bytes-10s";
    match available {
        ..LEAST => Check::failed("space", found, fix),
        LEAST..PLENTY => Check::degraded("space", found, fix),
        _ => Check::ok("space", found),
    }
}

/// How far the two views of connections within the watched nodes agree. Views of connections that leave them have no
/// second one and say nothing.
pub fn views(answer: &Answer<Transaction>) -> Check {
    let rows = &answer.items;
    let paired = rows.iter().filter(|row| row.paired).count();
    let mut ends: HashMap<(&str, &str, &str, u16, u16, u32), &Transaction> = HashMap::new();
    for row in rows.iter().filter(|row| row.paired) {
        ends.insert(end(row), row);
    }
    let (mut compared, mut unequal) = (0u64, 0u64);
    for row in rows.iter().filter(|row| row.paired && orderly(row) && row.direction == "outgoing") {
        let loopback = row.source.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
        let netns = if loopback { row.net_ns } else { 0 };
        let other =
            (row.protocol.as_str(), row.dest.as_str(), row.source.as_str(), row.dest_port, row.source_port, netns);
        let Some(other) = ends.get(&other).filter(|other| orderly(other)) else { continue };
        compared += 1;
        let equal = row.monotonic_sent_bytes == other.monotonic_recv_bytes
            && row.monotonic_recv_bytes == other.monotonic_sent_bytes;
        unequal += u64::from(!equal);
    }
    let found = format!(
        "{} of {} stored views have their other end's too; {} pairs that closed in order were compared",
        units::count(paired as u64),
        units::count(rows.len() as u64),
        units::count(compared)
    );
    if unequal == 0 {
        Check::ok("views", if compared == 0 { found } else { format!("{found}, all equal") })
    } else {
        Check::degraded(
            "views",
            format!("{found}, {} differ", units::count(unequal)),
            "a loss explains it (see `weir status`), or it is a bug worth reporting",
        )
    }
}

fn end(row: &Transaction) -> (&str, &str, &str, u16, u16, u32) {
    let loopback = row.source.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    let netns = if loopback { row.net_ns } else { 0 };
    (&row.protocol, &row.source, &row.dest, row.source_port, row.dest_port, netns)
}

/// TCP, closed in order, seen from its start: then both ends must have counted the same (invariant 6).
fn orderly(row: &Transaction) -> bool {
    row.protocol == "tcp" && row.close_reason.as_deref() == Some("closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Facts {
        Facts {
            kernel: Some("6.1.0".into()),
            version: Some((6, 1)),
            btf_bytes: Some(5_000_000),
            capabilities: Some(u64::MAX),
            uid: Some(0),
            cgroup2: Some("/sys/fs/cgroup".into()),
            unprivileged_bpf_disabled: Some(2),
            lockdown: Some("none".into()),
            jit: Some(1),
            memlock_bytes: Some(u64::MAX),
        }
    }

    fn worst(checks: &[Check]) -> Vec<(&str, State)> {
        checks.iter().filter(|check| check.state != State::Ok).map(|check| (check.check, check.state)).collect()
    }

    #[test]
    fn a_current_kernel_with_root_is_ok() {
        assert!(worst(&kernel(&all())).is_empty());
    }

    #[test]
    fn what_is_missing_is_named_with_its_fix() {
        let facts = Facts { version: Some((4, 19)), memlock_bytes: Some(65536), jit: Some(0), ..Facts::default() };
        let facts = Facts { kernel: Some("4.19.0".into()), lockdown: Some("confidentiality".into()), ..facts };
        let checks = kernel(&facts);
        let expected = [
            ("kernel", State::Degraded),
            ("btf", State::Degraded),
            ("lockdown", State::Degraded),
            ("cgroup2", State::Degraded),
            ("memlock", State::Degraded),
            ("bpf_jit", State::Degraded),
        ];
        assert_eq!(worst(&checks), expected);
        assert!(checks.iter().all(|check| (check.state == State::Ok) == check.fix.is_empty()));
    }

    #[test]
    fn a_probe_that_does_not_run_and_a_loss_are_told() {
        let mut status = feed::Status { version: "0.1.0".into(), state: "running".into(), ..feed::Status::default() };
        status.probes.push(feed::Probe { name: "tcp".into(), state: "running".into(), ..feed::Probe::default() });
        assert!(worst(&tracer("unix:/t", Ok(&status))).is_empty());
        status.probes.push(feed::Probe {
            name: "udp".into(),
            state: "unsupported".into(),
            reason: Some("no cgroup2".into()),
            ..feed::Probe::default()
        });
        status.losses.insert("closed_rows".into(), 3);
        let checks = tracer("unix:/t", Ok(&status));
        assert_eq!(worst(&checks), [("tracer", State::Degraded), ("tracer_losses", State::Degraded)]);
        assert!(checks[0].detail.contains("udp unsupported (no cgroup2)"), "{checks:?}");
    }

    #[test]
    fn views_that_differ_are_told() {
        let row = |key: (&str, &str, u16, u16), direction: &str, sent: u64, recv: u64| Transaction {
            protocol: "tcp".into(),
            source: key.0.into(),
            dest: key.1.into(),
            source_port: key.2,
            dest_port: key.3,
            direction: direction.into(),
            monotonic_sent_bytes: sent,
            monotonic_recv_bytes: recv,
            close_reason: Some("closed".into()),
            paired: true,
            net_ns: 1,
            ..Transaction::default()
        };
        let mut answer = Answer::default();
        answer.items.push(row(("127.0.0.1", "127.0.0.1", 40000, 80), "outgoing", 10, 20));
        answer.items.push(row(("127.0.0.1", "127.0.0.1", 80, 40000), "incoming", 20, 10));
        let check = views(&answer);
        assert_eq!(
            (check.state, check.detail.ends_with("1 pairs that closed in order were compared, all equal")),
            (State::Ok, true)
        );
        answer.items[1].monotonic_recv_bytes = 9;
        assert_eq!(views(&answer).state, State::Degraded);
    }

    #[test]
    fn little_room_is_degraded_and_none_is_failed() {
        assert_eq!(space("/x", 50 << 30, 100 << 30).state, State::Ok);
        assert_eq!(space("/x", 500 << 20, 100 << 30).state, State::Degraded);
        assert_eq!(space("/x", 1 << 20, 100 << 30).state, State::Failed);
    }
}
