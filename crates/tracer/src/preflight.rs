//! What must be there before anything is loaded, said in words that help.

use std::path::Path;

/// What is missing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Capabilities.
    #[error(
        "the process lacks {0}; run weir-tracer as root, or give it the capabilities \
         (systemd: AmbientCapabilities=, containers: securityContext.capabilities.add)"
    )]
    Capabilities(String),
    /// The kernel's type information.
    #[error(
        "this kernel has no BTF ({0} is missing); weir-tracer needs Linux 5.11 or newer built with \
         CONFIG_DEBUG_INFO_BTF=y, as every current distribution's kernel is"
    )]
    Btf(String),
}

/// `linux/capability.h`.
const NEEDED: [(u32, &str); 3] = [(39, "CAP_BPF"), (38, "CAP_PERFMON"), (12, "CAP_NET_ADMIN")];
/// Older container runtimes know only this one; it stands for the first two.
const SYS_ADMIN: u32 = 21;

/// Looks at this process and this kernel.
pub fn check() -> Result<(), Missing> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    capabilities(&status)?;
    btf(Path::new("/sys/kernel/btf/vmlinux"))
}

fn capabilities(status: &str) -> Result<(), Missing> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        // Where it cannot be read, the kernel itself will say no.
        .unwrap_or(u64::MAX);
    let has = |capability: u32| effective >> capability & 1 == 1;
    let missing: Vec<&str> = NEEDED
        .into_iter()
        .filter(|(number, _)| !(has(*number) || *number >= 38 && has(SYS_ADMIN)))
        .map(|(_, name)| name)
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(Missing::Capabilities(missing.join(", "))) }
}

fn btf(path: &Path) -> Result<(), Missing> {
    if path.exists() { Ok(()) } else { Err(Missing::Btf(path.display().to_string())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(capabilities("CapEff:\t000001ffffffffff\n"), Ok(()));
        let none = capabilities("Name:\tx\nCapEff:\t0000000000000000\n").unwrap_err().to_string();
        assert!(none.contains("CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN"), "{none}");
        assert_eq!(capabilities("CapEff:\t0000000000201000\n"), Ok(()), "CAP_SYS_ADMIN and CAP_NET_ADMIN");
    }

    #[test]
    fn a_kernel_without_type_information_is_told() {
        assert!(btf(Path::new("/nonexistent/vmlinux")).unwrap_err().to_string().contains("CONFIG_DEBUG_INFO_BTF"));
    }
}
