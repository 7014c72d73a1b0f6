//! The cgroup probe: paths of cgroups at the moment they are made. See `probe.bpf.c` for what it traces; `places.rs`
//! remembers what it tells.

use super::setup::Setup;
use super::tcp::{descriptor, read_number};
use super::{Attach, Descriptors, Loaded, ProbeError, ProbeReport, ProbeState};
use crate::kernel::ring::Ring;
use std::io;

/// The folder's name.
pub const NAME: &str = "cgroups";

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cgroups.bpf.o"));
const MADE: &str = "weir_cgroup_made";
const RING: &str = "cgroups_made";

/// Loads and attaches it; a kernel that refuses only costs the names of the shortest-lived.
pub fn load(descriptors: &mut Descriptors, setup: &Setup) -> ProbeReport {
    let mut own = Descriptors::new();
    let mut attach = || -> Result<(), ProbeError> {
        let loaded = Loaded::load(NAME, OBJECT, &[MADE], setup)?;
        loaded.keep_maps(&mut own)?;
        loaded.attach(MADE, Attach::Trace, &mut own)
    };
    if let Err(error) = attach() {
        let reason = format!("{error}; processes in containers that are gone within a second may stay unnamed");
        return ProbeReport { name: NAME.to_owned(), state: ProbeState::Unsupported(reason), links: Vec::new() };
    }
    descriptors.append(&mut own);
    ProbeReport { name: NAME.to_owned(), state: ProbeState::Running, links: vec![MADE.to_owned()] }
}

/// A cgroup that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// As [`Origin::cgroup_id`](super::layout::Origin), or [`Origin::v1_cgroup`](super::layout::Origin).
    pub id: u64,
    /// Its path below its hierarchy's root.
    pub path: String,
}

/// The probe's ring, read.
#[derive(Debug)]
pub struct Cgroups {
    made: Ring,
}

impl Cgroups {
    /// Maps the ring; `None` when the probe does not run.
    pub fn open(descriptors: &Descriptors) -> io::Result<Option<Self>> {
        if !descriptors.contains_key(RING) {
            return Ok(None);
        }
        Ok(Some(Self { made: Ring::map(descriptor(descriptors, RING)?)? }))
    }

    /// What was made since the last call.
    pub fn take(&mut self) -> Vec<Made> {
        let mut made = Vec::new();
        let position = self.made.read(usize::MAX, |record| made.extend(parse(record)));
        self.made.advance(position);
        made
    }
}

/// How many cgroups found the ring full; `None` when the probe does not run.
pub fn missed(descriptors: &Descriptors) -> io::Result<Option<u64>> {
    if !descriptors.contains_key("cgroup_numbers") {
        return Ok(None);
    }
    read_number(descriptor(descriptors, "cgroup_numbers")?, 0).map(Some)
}

/// `struct cgroup_made`.
fn parse(record: &[u8]) -> Option<Made> {
    let id = u64::from_ne_bytes(record.get(..8)?.try_into().ok()?);
    let length = u32::from_ne_bytes(record.get(8..12)?.try_into().ok()?) as usize;
    let path = String::from_utf8_lossy(record.get(12..12 + length)?).into_owned();
    Some(Made { id, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_and_one_that_is_cut_short_is_not() {
        let mut record = 7_u64.to_ne_bytes().to_vec();
        record.extend(4_u32.to_ne_bytes());
        record.extend(b"/a/b\0\0\0\0");
        assert_eq!(parse(&record), Some(Made { id: 7, path: "/a/b".to_owned() }));
        assert_eq!(parse(&record[..15]), None);
    }
}
