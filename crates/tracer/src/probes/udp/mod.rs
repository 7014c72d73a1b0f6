//! The UDP probe: what it needs from the kernel. See `probe.bpf.c` for what it traces; [`flows`] reads and empties its
//! maps.

pub mod dns;
pub mod flows;

pub use flows::Udp;

use super::setup::Setup;
use super::{Attach, Descriptors, Loaded, ProbeError, ProbeReport, ProbeState};
use std::os::fd::AsFd;
use std::path::Path;

/// The folder's name.
pub const NAME: &str = "udp";

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/udp.bpf.o"));
const OUT: &str = "weir_udp_out";
const IN: &str = "weir_udp_in";
const OPEN: &str = "weir_udp_open";
const GONE: &str = "weir_udp_gone";
const FULL: &str = "weir_udp_full";
const FILL: &str = "weir_udp_fill";
const WALK: &str = "weir_udp_walk";
/// Without these there is nothing to count. In the order in which they are attached: owners first, so that the first
/// datagrams of old sockets find them, and ends before beginnings, so that no flow's end is missed.
const NEEDED: [&str; 6] = [FILL, WALK, GONE, OPEN, OUT, IN];
/// And without these, where only DNS is watched, nobody could be named.
const NEEDED_FOR_DNS: [&str; 4] = [FILL, OPEN, OUT, IN];
/// What is missing without each of the others.
const OPTIONAL: [(&str, &str); 1] = [(FULL, "datagrams that a full receive queue dropped count as received")];

/// Loads the programs for what is asked for: counting, DNS, or both. Answers how each of the two does.
pub fn load(descriptors: &mut Descriptors, setup: &Setup, cgroup_root: Option<&Path>) -> [ProbeReport; 2] {
    let report = if setup.udp || setup.dns {
        load_programs(descriptors, setup, cgroup_root)
    } else {
        ProbeReport { name: NAME.to_owned(), state: ProbeState::Running, links: Vec::new() }
    };
    split(setup, report)
}

/// What was asked for cannot be, for this reason.
pub fn unsupported(setup: &Setup, reason: &str) -> [ProbeReport; 2] {
    let state = ProbeState::Unsupported(reason.to_owned());
    split(setup, ProbeReport { name: NAME.to_owned(), state, links: Vec::new() })
}

/// How counting and DNS do, which are the same programs: their cost is told once.
fn split(setup: &Setup, report: ProbeReport) -> [ProbeReport; 2] {
    let of = |name: &str, flag: &str, is_on: Option<ProbeReport>| {
        let off =
            || ProbeReport { name: name.to_owned(), state: ProbeState::Disabled(flag.to_owned()), links: Vec::new() };
        is_on.map_or_else(off, |report| ProbeReport { name: name.to_owned(), ..report })
    };
    let links = if setup.udp { Vec::new() } else { report.links.clone() };
    let of_dns = ProbeReport { links, ..report.clone() };
    [of(NAME, "--no-udp", setup.udp.then_some(report)), of(dns::NAME, "--no-dns", setup.dns.then_some(of_dns))]
}

/// Loads what this kernel takes and attaches it to the scope's cgroup, else to the root of cgroup v2.
fn load_programs(descriptors: &mut Descriptors, setup: &Setup, cgroup_root: Option<&Path>) -> ProbeReport {
    let report = |state| ProbeReport { name: NAME.to_owned(), state, links: Vec::new() };
    let Some(root) = setup.scope.as_ref().map(|scope| scope.folder.as_path()).or(cgroup_root) else {
        return report(ProbeState::Unsupported(
            "no cgroup v2 is mounted; mount it (mount -t cgroup2 none /sys/fs/cgroup/unified) and start again"
                .to_owned(),
        ));
    };
    let cgroup = match std::fs::File::open(root) {
        Ok(cgroup) => cgroup,
        Err(error) => {
            return report(ProbeState::Unsupported(format!(
                "the cgroup {} cannot be opened ({error}); in a container mount the host's there",
                root.display()
            )));
        }
    };
    let (needed, optional) = if setup.udp { (&NEEDED[..], &OPTIONAL[..]) } else { (&NEEDED_FOR_DNS[..], &[][..]) };
    let mut programs = needed.to_vec();
    programs.extend(optional.iter().map(|(name, _)| name));
    let mut without = Vec::new();
    let mut outcome = Loaded::load(NAME, OBJECT, &programs, setup);
    if outcome.is_err() {
        // Something is not welcome on this kernel: which?
        programs = needed.to_vec();
        for (name, consequence) in optional {
            match Loaded::load(NAME, OBJECT, &[name], setup) {
                Ok(_) => programs.push(name),
                Err(error) => without.push(format!("{name} ({consequence}): {error}")),
            }
        }
        outcome = Loaded::load(NAME, OBJECT, &programs, setup);
    }
    let loaded = match outcome {
        Ok(loaded) => loaded,
        Err(error) => return report(ProbeState::Unsupported(error.to_string())),
    };
    let mut own = Descriptors::new();
    let mut attach = || -> Result<(), ProbeError> {
        loaded.keep_maps(&mut own)?;
        for name in &programs {
            let how = match *name {
                FULL => Attach::Trace,
                WALK => Attach::MapIterator("udp_sockets"),
                FILL => Attach::Iterator,
                _ => Attach::Cgroup(cgroup.as_fd()),
            };
            match loaded.attach(name, how, &mut own) {
                Err(error) if !needed.contains(name) => without.push(error.to_string()),
                outcome => outcome?,
            }
            if *name == FILL
                && let Err(error) = Udp::backfill(&own)
            {
                tracing::warn!(%error, "failed to look up the owners of UDP sockets");
            }
        }
        Ok(())
    };
    if let Err(error) = attach() {
        return report(ProbeState::Failed(error.to_string()));
    }
    let links = programs.iter().filter(|name| own.contains_key(**name)).map(|name| (*name).to_owned()).collect();
    descriptors.append(&mut own);
    let state = if without.is_empty() { ProbeState::Running } else { ProbeState::Partly(without.join("; ")) };
    ProbeReport { name: NAME.to_owned(), state, links }
}

#[cfg(test)]
mod tests {
    use super::super::setup::Sizes;
    use super::*;

    #[test]
    fn without_cgroup_version_2_the_probe_says_how_to_get_it() {
        let setup = Setup { udp: true, dns: false, scope: None, sizes: Sizes::default() };
        let mut descriptors = Descriptors::new();
        let [none, _] = load(&mut descriptors, &setup, None);
        let ProbeState::Unsupported(reason) = &none.state else { panic!("{none:?}") };
        assert!(reason.contains("mount -t cgroup2"), "{reason}");
        let [closed, _] = load(&mut descriptors, &setup, Some(Path::new("/nonexistent/cgroup")));
        let ProbeState::Unsupported(reason) = &closed.state else { panic!("{closed:?}") };
        assert!(reason.contains("/nonexistent/cgroup"), "{reason}");
        assert!(descriptors.is_empty());
    }
}
