//! The promise: what weir says of every kind of traffic is the truth, to the byte, to the connection, to the direction.

use anyhow::{Result, ensure};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weir_testkit::is_root_or_skip;
use weir_testkit::matrix::Extent;
use weir_testkit::matrix::kinds::{Family, KINDS};
use weir_testkit::matrix::run::{Place, Run};
use weir_testkit::played::here;
use weir_testkit::weir::Weir;

#[test]
fn every_kind_of_traffic_on_one_machine_is_exact() -> Result<()> {
    if !is_root_or_skip("every_kind_of_traffic_on_one_machine_is_exact") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let weir = Weir::up(&folder.path().join("data"), "500ms", &[])?;
    let mut run = Run::begin(&weir)?;
    for case in KINDS.iter().filter(|case| case.extent == Extent::Short) {
        for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            if ip.is_ipv6() && case.family == Family::V4 {
                continue;
            }
            let place = Place { prepare: &here, ip };
            let name = format!("{}, IPv{}", case.name, if ip.is_ipv4() { 4 } else { 6 });
            run.play(&name, case, place, place)?;
        }
    }
    let report = run.finish(&weir)?;
    println!("{}", report.markdown());
    let unexplained = report.unexplained();
    ensure!(unexplained.is_empty(), "{} differences:\n{}", unexplained.len(), unexplained.join("\n"));
    assert!(weir.stop(std::time::Duration::from_secs(5))?.success());
    Ok(())
}
