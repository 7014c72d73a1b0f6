//! The promise: the load counts at both ends what it did, and the bench's own way to measure works. Its figures are the
//! bench's business: nothing here is compared with a clock.

use anyhow::{Result, ensure};
use weir_testkit::is_root_or_skip;
use weir_testkit::load::{Made, Order, Place, Player, Workload};
use weir_testkit::overhead::settings::Switches;
use weir_testkit::overhead::watch::{Watch, folder};

/// What both ends must have counted after `operations`, on connections of the order's own.
fn expected(workload: Workload, operations: u64) -> Made {
    let (request, answer, connections) = match workload {
        Workload::Exchange64 => (64, 64, 1),
        Workload::Answer64k => (64, 65_536, 1),
        Workload::ConnectClose => (0, 0, operations),
        Workload::Datagram64 => (64, 64, 0),
    };
    Made {
        connected: connections,
        accepted: connections,
        failed: 0,
        client_sent: request * operations,
        client_recv: answer * operations,
        server_sent: answer * operations,
        server_recv: request * operations,
    }
}

#[test]
fn both_ends_count_the_same_over_loopback_and_over_veth() -> Result<()> {
    if !is_root_or_skip("both_ends_count_the_same_over_loopback_and_over_veth") {
        return Ok(());
    }
    for place in Place::ALL {
        let mut player = Player::start(place, &[])?;
        for workload in Workload::ALL {
            let told = player.order(&Order::Rounds { workload, rounds: 3 }, &mut || Ok(()))?;
            let operations = 3 * u64::from(workload.operations());
            ensure!(told.operations == operations && told.rounds == 3, "{place:?} {workload:?}: {told:?}");
            ensure!(told.made == expected(workload, operations), "{place:?} {workload:?}: {told:?}");
            let timed = player.order(&Order::Time { workload, millis: 1 }, &mut || Ok(()))?;
            ensure!(timed.rounds > 0 && timed.processor.median > 0.0, "{place:?} {workload:?}: {timed:?}");
            ensure!(timed.made == expected(workload, timed.operations), "{place:?} {workload:?}: {timed:?}");
        }
        let told = player.order(&Order::Pace { rate: 500, seconds: 1 }, &mut || Ok(()))?;
        let made = Made { connected: 500, accepted: 500, ..expected(Workload::Exchange64, 500) };
        ensure!(told.made == made, "{place:?}: {told:?}");
    }
    Ok(())
}

#[test]
fn every_setting_comes_to_work_and_its_programs_are_found() -> Result<()> {
    if !is_root_or_skip("every_setting_comes_to_work_and_its_programs_are_found") {
        return Ok(());
    }
    let folder = folder()?;
    let switches = Switches::ask()?;
    for (_, setting) in switches.settings() {
        let watch = Watch::start(setting, &switches, folder.path())?;
        if setting.tracer.is_none() {
            continue;
        }
        let programs = watch.programs()?;
        ensure!(programs.iter().any(|program| program.name == "weir_tcp_state"), "{}: {programs:?}", setting.name);
    }
    Ok(())
}
