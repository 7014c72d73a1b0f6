//! Connections at a given rate: so many a second, each at its own instant, whatever the ones before it took.

use super::Told;
use super::ends::{Ends, nanos};
use anyhow::{Result, ensure};
use nix::sys::time::{TimeSpec, TimeValLike as _};
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};

/// Opens `rate * seconds` connections, each `1 / rate` seconds after the one before; one that comes too late is made
/// at once, so that the number is always met and the lateness told.
///
/// # Errors
/// When a connection fails.
pub(super) fn pace(ends: &mut Ends<'_>, rate: u32, seconds: u32) -> Result<Told> {
    ensure!(rate > 0, "a rate is at least one connection a second");
    ends.begin();
    let start = nanos(ClockId::CLOCK_MONOTONIC)?;
    let mut late = 0;
    for number in 0..u64::from(rate) * u64::from(seconds) {
        let due = start + number * 1_000_000_000 / u64::from(rate);
        let now = nanos(ClockId::CLOCK_MONOTONIC)?;
        if now < due {
            let due = TimeSpec::nanoseconds(due as i64);
            // A signal only makes it early; nothing here takes one and goes on.
            clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &due)?;
        }
        late = late.max(now.saturating_sub(due));
        let (client, server) = ends.connection()?;
        ends.exchange(&client, &server)?;
        ends.operation();
        drop((client, server));
    }
    let mut told = ends.told(start, &mut [], &mut [])?;
    told.late_us_max = late / 1000;
    Ok(told)
}
