//! The probes: a folder each, with the C program and what loads it. This file is the list of them, and what they share:
//! loading an object whose programs may not all be welcome on this kernel.
//!
//! A probe that loads answers with its maps and links by name; from there on only descriptors matter, so that a tracer
//! that took them over from the keeper works exactly as one that loaded them itself.

pub mod cgroups;
pub mod layout;
pub mod setup;
pub mod tcp;
pub mod udp;
pub(crate) mod walk;

use crate::kernel::sys;
use libbpf_rs::{MapCore, Object, ObjectBuilder};
use serde::{Deserialize, Serialize};
use setup::{SETTINGS, Settings, Setup};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use zerocopy::IntoBytes;

/// The version of the probes' maps and programs: a hash of their sources.
pub const ABI: &str = env!("WEIR_PROBES_ABI");

/// Maps and links by name.
pub type Descriptors = BTreeMap<String, OwnedFd>;

/// Why a probe could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The kernel (or libbpf on its behalf) refused.
    #[error("failed to {step} of probe {probe}: {source}")]
    Refused {
        /// The probe.
        probe: &'static str,
        /// What was being done.
        step: String,
        /// The answer.
        source: libbpf_rs::Error,
    },
    /// The object is not the one this program was built with.
    #[error("failed to find {name} in probe {probe}")]
    Missing {
        /// The probe.
        probe: &'static str,
        /// The program or map.
        name: String,
    },
    /// A descriptor could not be copied.
    #[error("failed to keep {name} of probe {probe}: {source}")]
    Keep {
        /// The probe.
        probe: &'static str,
        /// The program or map.
        name: String,
        /// Why.
        source: std::io::Error,
    },
}

/// How a probe does; travels with the descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The folder's name.
    pub name: String,
    /// Running, or why not.
    pub state: ProbeState,
    /// The links of its programs, by name, to ask what they cost.
    pub links: Vec<String>,
}

/// Whether a probe runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeState {
    /// All of it.
    Running,
    /// It runs without some of its programs: which, and why.
    Partly(String),
    /// Switched off by the user.
    Disabled(String),
    /// This kernel or host has not what it needs.
    Unsupported(String),
    /// It should have worked.
    Failed(String),
}

/// Runs a pair of back-fill passes: even, then odd (see the TCP probe). `number` is the pass' index in the map `numbers`.
pub(crate) fn backfill(descriptors: &Descriptors, numbers: &str, number: u32, iterator: &str) -> std::io::Result<()> {
    let numbers = tcp::descriptor(descriptors, numbers)?;
    let last = tcp::read_number(numbers, number)?;
    // The first pass ever is 2, because 0 says "never confirmed".
    let even = (last + 1).next_multiple_of(2).max(2);
    for pass in [even, even + 1] {
        sys::update(numbers, number.as_bytes(), pass.as_bytes())?;
        let mut iterator = sys::open_iterator(tcp::descriptor(descriptors, iterator)?)?;
        std::io::copy(&mut iterator, &mut std::io::sink())?;
    }
    Ok(())
}

/// libbpf's own words, for whoever debugs.
pub fn log_libbpf() {
    libbpf_rs::set_print(Some((libbpf_rs::PrintLevel::Debug, |_, text| tracing::debug!("{}", text.trim_end()))));
}

/// How a program is attached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attach<'a> {
    /// A tracepoint, as its section says.
    Trace,
    /// An iterator over all there is.
    Iterator,
    /// An iterator over a map.
    MapIterator(&'static str),
    /// A cgroup and all below it.
    Cgroup(std::os::fd::BorrowedFd<'a>),
}

/// One object being loaded.
pub(crate) struct Loaded {
    probe: &'static str,
    object: Object,
}

impl Loaded {
    /// Loads `bytes` with the programs named in `programs`, set up as `setup` says.
    pub(crate) fn load(
        probe: &'static str,
        bytes: &[u8],
        programs: &[&str],
        setup: &Setup,
    ) -> Result<Self, ProbeError> {
        let refused = |step: &str| {
            let step = step.to_owned();
            move |source| ProbeError::Refused { probe, step, source }
        };
        let mut open = ObjectBuilder::default().open_memory(bytes).map_err(refused("open the object"))?;
        for mut program in open.progs_mut() {
            let wanted = programs.iter().any(|name| program.name().to_str() == Some(name));
            program.set_autoload(wanted);
        }
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if name == SETTINGS {
                map.set_initial_value(Settings::from(setup).as_bytes()).map_err(refused("set up the programs"))?;
            } else if let Some(size) = setup.size_of_map(&name) {
                map.set_max_entries(size).map_err(refused("size the maps"))?;
            }
        }
        let object = open.load().map_err(refused("load the programs"))?;
        Ok(Self { probe, object })
    }

    /// Copies every map's descriptor, but for the settings', which nobody reads again.
    pub(crate) fn keep_maps(&self, into: &mut Descriptors) -> Result<(), ProbeError> {
        for map in self.object.maps() {
            let name = map.name().to_string_lossy().into_owned();
            if name == SETTINGS {
                continue;
            }
            let fd = map.as_fd().try_clone_to_owned().map_err(|source| ProbeError::Keep {
                probe: self.probe,
                name: name.clone(),
                source,
            })?;
            into.insert(name, fd);
        }
        Ok(())
    }

    /// Attaches one program and keeps its link under the program's name.
    pub(crate) fn attach(&self, name: &str, how: Attach<'_>, into: &mut Descriptors) -> Result<(), ProbeError> {
        let probe = self.probe;
        let missing = |name: &str| ProbeError::Missing { probe, name: name.to_owned() };
        let program = self
            .object
            .progs_mut()
            .find(|program| program.name().to_str() == Some(name))
            .ok_or_else(|| missing(name))?;
        let link = match how {
            Attach::Trace => program.attach(),
            Attach::Iterator => program.attach_iter_with_opts(libbpf_rs::IterOpts::None),
            Attach::MapIterator(map) => {
                let map = self
                    .object
                    .maps()
                    .find(|candidate| candidate.name().to_str() == Some(map))
                    .ok_or_else(|| missing(map))?;
                program.attach_iter(map.as_fd())
            }
            Attach::Cgroup(cgroup) => program.attach_cgroup(std::os::fd::AsRawFd::as_raw_fd(&cgroup)),
        }
        .map_err(|source| ProbeError::Refused { probe, step: format!("attach {name}"), source })?;
        let fd = link.as_fd().try_clone_to_owned().map_err(|source| ProbeError::Keep {
            probe,
            name: name.to_owned(),
            source,
        })?;
        into.insert(name.to_owned(), fd);
        Ok(())
    }
}
