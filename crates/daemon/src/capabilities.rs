//! The capabilities that weir-tracer uses: what is lost without each, with eBPF and with the fallback, and how to give
//! it. The one list for the tracer's start, `weir doctor`, and `docs/operations.md`; that it is true is held by a test
//! that runs the tracer without each of them (`crates/tracer/tests/capabilities.rs`).

use std::fmt::Write as _;

/// One capability (`capabilities(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its number in `include/uapi/linux/capability.h`.
    pub number: u32,
    /// `CAP_BPF`.
    pub name: &'static str,
    /// What the tracer's eBPF mode lacks without it; empty: nothing.
    pub ebpf: &'static str,
    /// What the fallback lacks without it; empty: nothing.
    pub fallback: &'static str,
}

/// Loads programs and maps.
pub const BPF: Capability =
    Capability { number: 39, name: "CAP_BPF", ebpf: "eBPF as a whole: the fallback runs instead", fallback: "" };
/// Lets programs read the kernel's memory by type.
pub const PERFMON: Capability =
    Capability { number: 38, name: "CAP_PERFMON", ebpf: "eBPF as a whole: the fallback runs instead", fallback: "" };
/// Loads programs that see packets, and asks conntrack.
pub const NET_ADMIN: Capability = Capability {
    number: 12,
    name: "CAP_NET_ADMIN",
    ebpf: "UDP, DNS and translated (NAT) tuples; TCP stays exact",
    fallback: "a large receive buffer: many ends at once may be lost, and are counted",
};
/// Looks at other users' processes.
pub const SYS_PTRACE: Capability = Capability {
    number: 19,
    name: "CAP_SYS_PTRACE",
    ebpf: "the network namespaces of other users' processes in GET /processes",
    fallback: "other users' processes: no pid, and their network namespaces are not found",
};
/// Reads other users' folders in `/proc`.
pub const DAC_READ_SEARCH: Capability =
    Capability { number: 2, name: "CAP_DAC_READ_SEARCH", ebpf: "", fallback: "other users' processes: no pid" };
/// Enters network namespaces, and asks what a program has cost.
pub const SYS_ADMIN: Capability = Capability {
    number: 21,
    name: "CAP_SYS_ADMIN",
    ebpf: "what each program costs (`runs`, `nanoseconds`) in GET /status",
    fallback: "every network namespace but the tracer's own",
};

/// All of them, the most important first.
pub const ALL: [Capability; 6] = [BPF, PERFMON, NET_ADMIN, SYS_PTRACE, DAC_READ_SEARCH, SYS_ADMIN];

/// What eBPF runs with in full.
pub const FOR_EBPF: [Capability; 3] = [BPF, PERFMON, NET_ADMIN];

/// A set of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held(pub u64);

impl Held {
    /// This process' effective set; all where it cannot be read: then the kernel itself says no.
    pub fn effective() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self::parse(&status, "CapEff").unwrap_or(Self(u64::MAX))
    }

    /// The set with that name in the text of `/proc/PID/status`.
    pub fn parse(status: &str, set: &str) -> Option<Self> {
        let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(':'))?;
        u64::from_str_radix(line.trim(), 16).ok().map(Self)
    }

    /// Whether it has one. `CAP_SYS_ADMIN` stands for `CAP_BPF` and `CAP_PERFMON` (`include/linux/capability.h`,
    /// `bpf_capable`, `perfmon_capable`): older container runtimes know only that.
    pub fn has(self, capability: Capability) -> bool {
        let Self(held) = self;
        let has = |number: u32| held >> number & 1 == 1;
        has(capability.number) || matches!(capability, BPF | PERFMON) && has(SYS_ADMIN.number)
    }

    /// Those of `wanted` that it lacks.
    pub fn missing(self, wanted: &[Capability]) -> Vec<Capability> {
        wanted.iter().copied().filter(|capability| !self.has(*capability)).collect()
    }
}

/// Their names, for a sentence.
pub fn names(capabilities: &[Capability]) -> String {
    capabilities.iter().map(|capability| capability.name).collect::<Vec<_>>().join(", ")
}

/// How to give them, in one sentence.
pub fn how_to_give(capabilities: &[Capability]) -> String {
    let names: Vec<&str> = capabilities.iter().map(|capability| capability.name).collect();
    let short: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("CAP_")).collect();
    format!(
        "in a systemd unit AmbientCapabilities={}, in a container securityContext.capabilities.add [{}], on a laptop \
         sudo setcap {}=ep PATH-OF-WEIR-TRACER",
        names.join(" "),
        short.join(", "),
        names.join(",").to_lowercase()
    )
}

/// The table of `docs/operations.md`, in Markdown.
pub fn table() -> String {
    let mut text = String::from(
        "| capability | lost without it: eBPF | lost without it: fallback | systemd unit | container |\n|---|---|---|---|---|\n",
    );
    for Capability { name, ebpf, fallback, .. } in ALL {
        let lost = |text: &'static str| if text.is_empty() { "nothing" } else { text };
        let short = name.strip_prefix("CAP_").unwrap_or(name);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| `{name}` | {} | {} | `AmbientCapabilities={name}` | `capabilities.add: [{short}]` |",
            lost(ebpf),
            lost(fallback)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_found_and_sys_admin_stands_for_the_newer_ones() {
        let held = |text: &str| Held::parse(&format!("Name:\tx\nCapEff:\t{text}\nCapAmb:\t0\n"), "CapEff").unwrap();
        assert!(held("000001ffffffffff").missing(&ALL).is_empty());
        assert_eq!(names(&held("0").missing(&FOR_EBPF)), "CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN");
        assert!(held("0000000000201000").missing(&FOR_EBPF).is_empty());
        assert_eq!(Held::parse("Name:\tx\n", "CapEff"), None);
    }

    #[test]
    fn the_table_in_the_documentation_is_this_one() {
        let text = include_str!("../../../docs/operations.md");
        assert!(text.contains(&table()), "docs/operations.md must contain:\n{}", table());
    }
}
