//! From nothing to a run: taken over from the keeper if a tracer died, loaded afresh otherwise.

use crate::Args;
use crate::args::Mode;
use crate::ebpf::Ebpf;
use crate::engine::Run;
use crate::fallback::Fallback;
use crate::keeper::Manifest;
use crate::keeper::custody::{Custody, Estate, claim};
use crate::kernel::costs::Costs;
use crate::preflight;
use crate::probes::cgroups::Cgroups;
use crate::probes::setup::Setup;
use crate::probes::{self, ABI, Descriptors, ProbeError, ProbeReport, ProbeState};
use crate::source::Source;
use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use weir_daemon::capabilities::{Held, NET_ADMIN};

/// What a tracer works on.
pub struct Begun {
    /// Which run.
    pub run: Run,
    /// Where its rows come from.
    pub source: Box<dyn Source>,
    /// What tells of new cgroups, where something does.
    pub made: Option<Cgroups>,
    /// Its life insurance, where there is something to insure.
    pub custody: Option<Custody>,
}

/// The state folder, held against a second tracer as long as this lives.
#[derive(Debug)]
pub struct State {
    _lock: Flock<File>,
}

/// Makes the state folder and takes its lock.
pub fn hold_state(folder: &Path) -> anyhow::Result<State> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("failed to make the state folder {}", folder.display()))?;
    let path = folder.join("tracer.lock");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("failed to open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(State { _lock: lock }),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => anyhow::bail!(
            "failed to use the state folder {}: another tracer uses it; stop it, or choose another --state-dir",
            folder.display()
        ),
        Err((_, error)) => Err(error).with_context(|| format!("failed to lock {}", path.display())),
    }
}

/// Chooses where the rows come from, and takes over or begins anew.
pub fn begin(
    args: &Args,
    setup: Setup,
    folder: &Path,
    boot_id: &str,
    cgroup_root: Option<&Path>,
    now_ns: u64,
) -> anyhow::Result<Begun> {
    let scoped = setup.scope.is_some();
    let reason = match args.mode {
        Mode::Fallback => "asked for with --mode fallback".to_owned(),
        Mode::Ebpf => {
            if let Err(missing) = preflight::check() {
                anyhow::bail!("failed to start with --mode ebpf: {missing}; {}", missing.remedy());
            }
            return begin_ebpf(args, setup, folder, boot_id, cgroup_root);
        }
        Mode::Auto => match preflight::check() {
            Err(missing) => {
                tracing::warn!("for eBPF: {}", missing.remedy());
                missing.to_string()
            }
            Ok(()) => match begin_ebpf(args, setup, folder, boot_id, cgroup_root) {
                Err(error) if error.is::<ProbeError>() => format!("{error:#}"),
                outcome => return outcome,
            },
        },
    };
    anyhow::ensure!(!scoped, "failed to trace one cgroup only: that takes eBPF ({reason})");
    begin_fallback(folder, boot_id, reason, now_ns)
}

fn begin_ebpf(
    args: &Args,
    setup: Setup,
    folder: &Path,
    boot_id: &str,
    cgroup_root: Option<&Path>,
) -> anyhow::Result<Begun> {
    let estate = match claim(folder, |manifest| manifest.abi == ABI && manifest.setup == setup) {
        Ok(estate) => estate,
        Err(error) => {
            // Its grace ends it; what it holds cannot be had.
            tracing::error!(%error, "a keeper is there but cannot be used; beginning a new run");
            None
        }
    };
    let (manifest, descriptors, line) = if let Some(Estate { manifest, descriptors, line }) = estate {
        (Manifest { takeovers: manifest.takeovers + 1, ..manifest }, descriptors, Some(line))
    } else {
        let (manifest, descriptors) = load(setup, cgroup_root)?;
        (manifest, descriptors, None)
    };
    let descriptors = Arc::new(descriptors);
    let run = Run {
        id: manifest.run_id,
        journal: manifest.run_id,
        boot_id: boot_id.to_owned(),
        takeovers: manifest.takeovers,
    };
    let probes = manifest.probes.clone();
    report(&probes, &run);
    let custody = Custody::begin(folder, args.keeper_grace, manifest, Arc::clone(&descriptors), line)?;
    let made = Cgroups::open(&descriptors).context("failed to map the ring of probe cgroups")?;
    let costs = if args.probe_costs { Costs::count() } else { Costs::Unasked };
    let source = Box::new(Ebpf::new(descriptors, probes, costs)?);
    Ok(Begun { run, source, made, custody: Some(custody) })
}

/// The kernel's own counts outlive a tracer, but what ends while there is none is not seen: every process is a run of
/// its own. What had ended before and was not acknowledged is in the journal, which is the boot's.
fn begin_fallback(folder: &Path, boot_id: &str, reason: String, now_ns: u64) -> anyhow::Result<Begun> {
    if let Err(error) = claim(folder, |_| false) {
        // Its grace ends it.
        tracing::warn!(%error, "a keeper of programs that are not wanted any more is there");
    }
    tracing::warn!(%reason, "without eBPF: TCP only, as the kernel tells it; /status says what cannot be seen");
    let source = Box::new(Fallback::new(reason, now_ns)?);
    let run = Run { id: draw_run_id()?, journal: journal_of(boot_id), boot_id: boot_id.to_owned(), takeovers: 0 };
    Ok(Begun { run, source, made: None, custody: None })
}

/// FNV-1a.
fn journal_of(boot_id: &str) -> u64 {
    boot_id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn draw_run_id() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("failed to draw a run id: {error}"))?;
    Ok(u64::from_le_bytes(bytes))
}

fn load(setup: Setup, cgroup_root: Option<&Path>) -> anyhow::Result<(Manifest, Descriptors)> {
    probes::log_libbpf();
    let mut descriptors = Descriptors::new();
    let tcp = probes::tcp::load(&mut descriptors, &setup).context(
        "the kernel refused the TCP probe (Linux 5.11 or newer with BTF is needed, no lockdown in mode \
         confidentiality, and in a container a seccomp profile that lets bpf(2) through); --log \
         weir_tracer=debug shows its words",
    )?;
    let [udp, dns] = if Held::effective().has(NET_ADMIN) {
        probes::udp::load(&mut descriptors, &setup, cgroup_root)
    } else {
        probes::udp::unsupported(&setup, &format!("the process lacks {}", NET_ADMIN.name))
    };
    let run_id = draw_run_id()?;
    let cgroups = probes::cgroups::load(&mut descriptors, &setup);
    let probes = vec![tcp, udp, dns, cgroups];
    let manifest = Manifest { abi: ABI.to_owned(), run_id, setup, takeovers: 0, probes, names: Vec::new() };
    Ok((manifest, descriptors))
}

fn report(probes: &[ProbeReport], run: &Run) {
    for ProbeReport { name, state, .. } in probes {
        match state {
            ProbeState::Running => tracing::info!(probe = %name, "running"),
            ProbeState::Partly(reason) => tracing::warn!(probe = %name, %reason, "running in part"),
            ProbeState::Disabled(reason) => tracing::info!(probe = %name, %reason, "disabled"),
            ProbeState::Unsupported(reason) => tracing::warn!(probe = %name, %reason, "unsupported"),
            ProbeState::Failed(reason) => tracing::error!(probe = %name, %reason, "failed"),
        }
    }
    if run.takeovers > 0 {
        tracing::info!(
            run = format_args!("{:016x}", run.id),
            takeovers = run.takeovers,
            "took over a run that goes on"
        );
    } else {
        tracing::info!(run = format_args!("{:016x}", run.id), "began a run");
    }
}
