//! What must be there before eBPF is loaded, said in words that help.

use std::path::Path;
use weir_daemon::capabilities::{BPF, Capability, Held, PERFMON, how_to_give, names};

/// What is missing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Capabilities.
    #[error("the process lacks {}", names(.0))]
    Capabilities(Vec<Capability>),
    /// The kernel's type information.
    #[error("this kernel has no BTF ({0} is missing)")]
    Btf(String),
}

impl Missing {
    /// How to mend it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Capabilities(missing) => {
                format!("run weir-tracer as root, or give it what it lacks: {}", how_to_give(missing))
            }
            Self::Btf(_) => "boot Linux 5.12 or newer built with CONFIG_DEBUG_INFO_BTF=y, as every current \
                             distribution's kernel is"
                .to_owned(),
        }
    }
}

/// Looks at this process and this kernel. Without `CAP_NET_ADMIN` some of eBPF runs; without these, none of it.
///
/// # Errors
/// What is missing.
pub fn check() -> Result<(), Missing> {
    capabilities(Held::effective())?;
    btf(Path::new("/sys/kernel/btf/vmlinux"))
}

fn capabilities(held: Held) -> Result<(), Missing> {
    let missing = held.missing(&[BPF, PERFMON]);
    if missing.is_empty() { Ok(()) } else { Err(Missing::Capabilities(missing)) }
}

fn btf(path: &Path) -> Result<(), Missing> {
    if path.exists() { Ok(()) } else { Err(Missing::Btf(path.display().to_string())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named_with_the_remedy() {
        assert_eq!(capabilities(Held(u64::MAX)), Ok(()));
        let none = capabilities(Held(0)).unwrap_err();
        assert!(none.to_string().ends_with("CAP_BPF, CAP_PERFMON"), "{none}");
        assert!(none.remedy().contains("AmbientCapabilities=CAP_BPF CAP_PERFMON"), "{}", none.remedy());
    }

    #[test]
    fn a_kernel_without_type_information_is_told() {
        let error = btf(Path::new("/nonexistent/vmlinux")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/vmlinux") && error.remedy().contains("CONFIG_DEBUG_INFO_BTF"));
    }
}
