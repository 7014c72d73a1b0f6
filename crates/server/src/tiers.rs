//! How long history stays at which resolution, and how much room each may take.
//!
//! ```text
//! 10 s rows ──horizon: settled──▶ ──minutes_after──▶ 1 min rows ──hours_after──▶ 1 h rows ──retain──▶ gone
//! ```
//!
//! A tier's rows leave it for the coarser one by age; beyond a tier's bytes its oldest segments are deleted. Rows older
//! than all that is kept are deleted from every tier, so that a compaction that cannot run keeps nothing for ever.

use crate::args::{Args, WrongSetting};
use crate::compact::HORIZON;
use std::time::Duration;
use weir_model::UnixNanos;
use weir_store::{Due, TierLimit};

/// Settled history becomes coarser no earlier: a span of 10 min is settled as one, an hour after its end.
pub(crate) const COARSER_AFTER_MIN: Duration = Duration::from_secs(HORIZON.as_secs() + 600);

/// The tiers' settings, which fit each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tiers {
    /// Rows of 10 s so old become rows of a minute. `None`: they stay.
    pub(crate) minutes_after: Option<Duration>,
    /// Rows of a minute so old become rows of an hour. `None`: they stay.
    pub(crate) hours_after: Option<Duration>,
    /// What is older is deleted.
    pub(crate) retain: Duration,
    /// Of rows of 10 s, a minute, an hour: the segments' bytes on disk.
    pub(crate) bytes_max: [u64; 3],
}

impl Tiers {
    /// As the settings say.
    ///
    /// # Errors
    /// Which setting does not fit which other, and how to mend it.
    pub(crate) fn of(args: &Args) -> Result<Self, WrongSetting> {
        let shown = humantime::format_duration;
        let wrong = |text: String| Err(WrongSetting(text));
        let (minutes, hours, retain) = (args.minutes_after, args.hours_after, args.retain_history);
        if minutes < COARSER_AFTER_MIN {
            return wrong(format!(
                "--minutes-after is {}, less than {}: until then late records settle anew; give {} or more",
                shown(minutes),
                shown(COARSER_AFTER_MIN),
                shown(COARSER_AFTER_MIN),
            ));
        }
        if hours < minutes {
            return wrong(format!(
                "--hours-after is {}, less than --minutes-after, {}: rows become minutes before they become hours; raise \
                 --hours-after or lower --minutes-after",
                shown(hours),
                shown(minutes),
            ));
        }
        if retain < COARSER_AFTER_MIN {
            return wrong(format!(
                "--retain-history is {}, less than {}: rows would be deleted before they are settled; give {} or more",
                shown(retain),
                shown(COARSER_AFTER_MIN),
                shown(COARSER_AFTER_MIN),
            ));
        }
        Ok(Self {
            minutes_after: Some(minutes),
            hours_after: Some(hours),
            retain,
            bytes_max: [args.retain_bytes_10s, args.retain_bytes_1m, args.retain_bytes_1h],
        })
    }

    /// What compaction has to do at `now`.
    pub(crate) fn due(&self, now: UnixNanos) -> Due {
        let before = |age: Option<Duration>| age.map_or(UnixNanos(i64::MIN), |age| back(now, age));
        Due {
            settled_before: back(now, HORIZON),
            minutes_before: before(self.minutes_after),
            hours_before: before(self.hours_after),
        }
    }

    /// What retention leaves at `now`.
    pub(crate) fn limits(&self, now: UnixNanos) -> [TierLimit; 3] {
        let keep_from = back(now, self.retain);
        self.bytes_max.map(|bytes_max| TierLimit { keep_from, bytes_max })
    }

    /// `retain` in nanoseconds.
    pub(crate) fn retain_ns(&self) -> i64 {
        nanos(self.retain)
    }
}

fn nanos(age: Duration) -> i64 {
    i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)
}

fn back(now: UnixNanos, age: Duration) -> UnixNanos {
    now.plus(nanos(age).saturating_neg())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn tiers(more: &[&str]) -> Result<Tiers, String> {
        let args = Args::try_parse_from(["weir-server"].iter().chain(more)).map_err(|error| error.to_string())?;
        Tiers::of(&args).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_that_do_not_fit_are_refused_with_the_place_and_the_reason() {
        tiers(&[]).unwrap();
        for (flags, place, reason) in [
            (&["--minutes-after", "1h"][..], "--minutes-after is 1h", "less than 1h 10m"),
            (&["--hours-after", "2h"], "--hours-after is 2h", "less than --minutes-after, 1day"),
            (&["--retain-history", "5m"], "--retain-history is 5m", "before they are settled"),
            (&["--retain-bytes-10s", "many"], "--retain-bytes-10s", "`many` is no number of bytes"),
            (&["--retain-bytes-1m", "0"], "--retain-bytes-1m", "out of range"),
            (&["--minutes-after", "soon"], "--minutes-after", "soon"),
        ] {
            let error = tiers(flags).unwrap_err();
            assert!(error.contains(place) && error.contains(reason), "{flags:?}: {error}");
        }
    }

    #[test]
    fn what_is_due_and_what_is_kept_follow_the_clock() {
        let tiers = tiers(&["--minutes-after", "2h", "--hours-after", "4h", "--retain-bytes-1h", "1MiB"]).unwrap();
        let hour = 3_600_000_000_000_i64;
        let due = tiers.due(UnixNanos(10 * hour));
        assert_eq!((due.settled_before, due.minutes_before), (UnixNanos(9 * hour), UnixNanos(8 * hour)));
        assert_eq!(due.hours_before, UnixNanos(6 * hour));
        let limits = tiers.limits(UnixNanos(1000 * hour));
        assert_eq!(limits.map(|limit| limit.keep_from), [UnixNanos((1000 - 30 * 24) * hour); 3]);
        assert_eq!(limits[2].bytes_max, 1 << 20);
    }
}
