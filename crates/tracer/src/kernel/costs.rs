//! What kernel programs cost. The kernel counts their runs and time only while somebody asks it to: the sysctl
//! `kernel.bpf_stats_enabled`, or a descriptor that is held open. Counting itself costs every program of the machine
//! about 20 ns a run, so it is off unless a person switches it on.

use super::sys;
use std::os::fd::OwnedFd;

/// Whether costs are counted while this lives.
#[derive(Debug)]
pub enum Costs {
    /// Nobody asked this tracer; the sysctl decides.
    Unasked,
    /// By this descriptor.
    Held(OwnedFd),
    /// Asked for, but not allowed: why.
    Refused(String),
}

const SYSCTL: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Costs {
    /// Asks the kernel to count until this is dropped.
    pub fn count() -> Self {
        match sys::enable_stats() {
            Ok(fd) => Self::Held(fd),
            Err(error) => {
                let reason = format!(
                    "the kernel does not let this process count costs ({error}); give it CAP_SYS_ADMIN, or set \
                     kernel.bpf_stats_enabled=1 as root"
                );
                tracing::warn!("{reason}");
                Self::Refused(reason)
            }
        }
    }

    /// Whether the kernel counts now.
    pub fn are_counted(&self) -> bool {
        matches!(self, Self::Held(_)) || std::fs::read_to_string(SYSCTL).is_ok_and(|text| text.trim() == "1")
    }

    /// Why it does not, though it was asked to.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Refused(reason) if !self.are_counted() => Some(reason),
            _ => None,
        }
    }
}
