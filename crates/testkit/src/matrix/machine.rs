//! Every kind of traffic on this machine's loopback, IPv4 and IPv6, watched by `weir up` as a person starts it.

use super::kinds::{Family, KINDS};
use super::run::{Run, Spot, Watching};
use super::{Extent, Mode};
use crate::checker::table::Report;
use crate::process::binary;
use crate::weir::Weir;
use anyhow::Result;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

/// Plays every kind and compares.
///
/// # Errors
/// When something cannot be played; what weir gets wrong is in the report.
pub fn check(extent: Extent, mode: &Mode) -> Result<Report> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(binary("weir")?);
    command.envs(mode.environment.iter().copied());
    let weir = Weir::up_by(command, &folder.path().join("data"), "500ms", &[])?;
    let watching = Watching::up(&weir);
    let mut run = Run::begin(&watching)?;
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let kinds = KINDS.iter().filter(|kind| kind.extent == Extent::Short || extent == Extent::Full);
        for kind in kinds.filter(|kind| kind.family == Family::Both || ip.is_ipv4()) {
            let spot = Spot { place: None, ip };
            let name = format!("{}, IPv{}", kind.name, if ip.is_ipv4() { 4 } else { 6 });
            run.play(&name, kind, spot, spot)?;
        }
    }
    for expectation in mode.expectations(run.names(), &watching.cannot_see()?)? {
        run.expect(expectation);
    }
    run.finish(&watching)
}
