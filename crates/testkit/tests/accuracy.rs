//! The promise: what weir says of every kind of traffic on every path is the truth, to the byte, to the connection, to the
//! direction. The short form of `make accuracy`.

use anyhow::{Result, ensure};
use std::sync::{Mutex, PoisonError};
use weir_testkit::is_root_or_skip;
use weir_testkit::matrix::{Extent, Mode, Section, check};

#[test]
fn every_kind_of_traffic_on_one_machine_is_exact() -> Result<()> {
    checked("every_kind_of_traffic_on_one_machine_is_exact", "eBPF: one machine")
}

#[test]
fn without_ebpf_nothing_differs_but_what_the_tracer_says_that_it_cannot_see() -> Result<()> {
    checked("without_ebpf_nothing_differs_but_what_the_tracer_says_that_it_cannot_see", "fallback: one machine")
}

#[test]
fn every_path_through_a_cluster_is_exact_with_nftables() -> Result<()> {
    checked("every_path_through_a_cluster_is_exact_with_nftables", "nftables")
}

#[test]
fn every_path_through_a_cluster_is_exact_with_iptables() -> Result<()> {
    checked("every_path_through_a_cluster_is_exact_with_iptables", "iptables")
}

/// What one section plays on this machine would be somebody else's traffic to another.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn checked(test: &str, part: &str) -> Result<()> {
    if !is_root_or_skip(test) {
        return Ok(());
    }
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for section in Section::all(&[Mode::full(), Mode::fallback()]).iter().filter(|section| section.title.contains(part))
    {
        let report = check(section, Extent::Short)?;
        println!("{}", report.markdown());
        let unexplained = report.unexplained();
        ensure!(unexplained.is_empty(), "{} differences:\n{}", unexplained.len(), unexplained.join("\n"));
    }
    Ok(())
}
