//! The two tests that verdicts are made of: of shares (so many of so many) and of times, now against the past. Pure.

use crate::statistics::{Prior, Share, centre, dispersion, quantile, student_tail, surprise};

/// Of a rate whose past is known: nothing else is believed of it.
const OPEN: Prior = Prior { hits: 1.0, misses: 1.0 };
/// Of a rate without a past: one in twenty is usual, so that a few that fail prove nothing and a dozen in a row do.
const MILD: Prior = Prior { hits: 1.0, misses: 19.0 };
/// Less of a past is none.
const PAST_TRIALS_MIN: u64 = 20;
/// An edge that did as badly for so many steps (minutes) has always done so, as far as anybody knows.
const CHRONIC_STEPS: usize = 30;

/// What is taken for different, and how much of it must be there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShareRule {
    /// Hits of now at least.
    pub(crate) hits_min: u64,
    /// The share of now at least.
    pub(crate) rate_min: f64,
    /// The same where there is no past: nearly all.
    pub(crate) rate_min_without_past: f64,
    /// How many times the past's share it is at least.
    pub(crate) times_min: f64,
    /// How many of them come in one burst at least.
    pub(crate) burst: f64,
}

/// What now is held against: the values of its steps, the oldest first.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Past<'a, T> {
    /// Right before now: its last steps may be of the same trouble.
    Before(&'a [T]),
    /// Another span, as it is.
    Apart(&'a [T]),
}

/// A share that is larger than its past explains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Larger {
    pub(crate) now: Share,
    /// The rate of the past; `None`: it has none.
    pub(crate) usual: Option<f64>,
    pub(crate) chance: f64,
}

/// Whether the share of now is larger than its past explains, with a chance of at most `bound` that it is not.
///
/// The steps right before now that are as bad as now are of the same trouble and tell nothing of what is usual, unless they
/// are half an hour.
pub(crate) fn larger(now: Share, past: Past<'_, Share>, rule: &ShareRule, bound: f64) -> Option<Larger> {
    if now.hits < rule.hits_min || now.rate() < rule.rate_min {
        return None;
    }
    let is_as_bad = |step: &Share| step.hits > 0 && step.rate() >= now.rate() / 2.0;
    let (Past::Before(steps) | Past::Apart(steps)) = past;
    let told: Vec<Share> = steps.iter().copied().filter(|step| step.trials > 0).collect();
    let good = match past {
        Past::Before(_) => told.iter().rposition(|step| !is_as_bad(step)).map_or(0, |at| at + 1),
        Past::Apart(_) => told.len(),
    };
    let (usual, bad) = told.split_at(good);
    let all = usual.iter().fold(Share::default(), |all, step| all.plus(*step));
    if all.trials < PAST_TRIALS_MIN {
        if bad.len() >= CHRONIC_STEPS || now.rate() < rule.rate_min_without_past {
            return None;
        }
        let chance = surprise(now, all, MILD, rule.burst);
        return (chance <= bound).then_some(Larger { now, usual: None, chance });
    }
    if now.rate() < all.rate() * rule.times_min {
        return None;
    }
    let chance = surprise(now, all, OPEN, dispersion(usual).max(rule.burst));
    (chance <= bound).then_some(Larger { now, usual: Some(all.rate()), chance })
}

/// What is taken for slower.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeRule {
    /// How many times the usual time it is at least.
    pub(crate) times_min: f64,
    /// How much more it is at least, microseconds.
    pub(crate) more_min_us: f64,
}

/// Steps of now, and of the past, that a comparison of times takes at least.
const NOW_STEPS_MIN: usize = 2;
const PAST_STEPS_MIN: usize = 5;
/// Times spread at least so much by chance (of the natural logarithm: by two thirds), however alike those of the past were;
/// and as how many minutes of a past that counts. The means of 10 s spread as those of minutes do: round trips are smoothed
/// by the kernel, and what slows a machine down lasts.
const SPREAD_MIN: f64 = 0.5;
const SPREAD_STEPS: f64 = 20.0;

/// A time that is longer than its past explains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Longer {
    /// Of now: three quarters of its steps are at least as long, microseconds.
    pub(crate) now_us: f64,
    pub(crate) usual_us: f64,
    pub(crate) chance: f64,
}

/// Whether times are longer than their past explains. `now` and `past`: the means of their steps, microseconds, the
/// oldest first; those of now of 10 s, those of the past of a minute. A robust t test on logarithms.
pub(crate) fn longer(now: &[f64], past: Past<'_, f64>, rule: TimeRule, bound: f64) -> Option<Longer> {
    if now.len() < NOW_STEPS_MIN {
        return None;
    }
    let mut sorted = now.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let now_us = quantile(&sorted, 0.25)?;
    let usual = match past {
        Past::Before(steps) => &steps[..=steps.iter().rposition(|step| *step < now_us / 2.0)?],
        Past::Apart(steps) => steps,
    };
    let usual: Vec<f64> = usual.iter().map(|step| step.max(1.0).ln()).collect();
    let (median, spread) = centre(&usual).filter(|_| usual.len() >= PAST_STEPS_MIN)?;
    let usual_us = median.exp();
    if now_us < usual_us * rule.times_min || now_us < usual_us + rule.more_min_us {
        return None;
    }
    let steps = usual.len() as f64;
    // A median of normal values varies by pi / 2 more than their mean.
    let error = spread.max(SPREAD_MIN) * (1.0 + std::f64::consts::FRAC_PI_2 / steps).sqrt();
    let chance = student_tail((now_us.ln() - median) / error, steps - 1.0 + SPREAD_STEPS);
    (chance <= bound).then_some(Longer { now_us, usual_us, chance })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: ShareRule =
        ShareRule { hits_min: 3, rate_min: 0.01, rate_min_without_past: 0.9, times_min: 2.0, burst: 1.0 };
    const SLOW: TimeRule = TimeRule { times_min: 2.0, more_min_us: 10_000.0 };
    const BOUND: f64 = 1e-9;

    fn larger(now: Share, past: &[Share], rule: &ShareRule, bound: f64) -> Option<Larger> {
        super::larger(now, Past::Before(past), rule, bound)
    }

    fn longer(now: &[f64], past: &[f64], rule: TimeRule, bound: f64) -> Option<Longer> {
        super::longer(now, Past::Before(past), rule, bound)
    }

    #[test]
    fn another_span_is_taken_as_it_is() {
        let (bad, good) = (steps(6, 60, 60), steps(6, 0, 60));
        assert_eq!(super::larger(Share::of(60, 60), Past::Apart(&bad), &RULE, BOUND), None);
        assert!(super::larger(Share::of(60, 60), Past::Apart(&good), &RULE, BOUND).is_some());
        assert_eq!(super::longer(&[30_000.0; 6], Past::Apart(&[30_000.0; 6]), SLOW, BOUND), None);
    }

    fn steps(count: usize, hits: u64, trials: u64) -> Vec<Share> {
        vec![Share::of(hits, trials); count]
    }

    #[test]
    fn what_fails_now_and_never_did_is_found_and_what_always_fails_is_not() {
        // A connection a second, refused for twenty.
        let found = larger(Share::of(20, 20), &steps(60, 0, 60), &RULE, BOUND).unwrap();
        assert_eq!((found.now, found.usual), (Share::of(20, 20), Some(0.0)));
        assert!(larger(Share::of(4, 20), &steps(60, 0, 60), &RULE, BOUND).is_some(), "a fifth of them");
        assert_eq!(larger(Share::of(2, 2), &steps(60, 0, 60), &RULE, BOUND), None, "too few");
        assert_eq!(larger(Share::of(16, 20), &steps(60, 48, 60), &RULE, BOUND), None, "a search path");
        assert!(larger(Share::of(20, 20), &steps(60, 6, 60), &RULE, BOUND).is_some(), "a tenth is usual");
        // Bursts every fifth minute.
        let bursts: Vec<Share> = (0..60).map(|at| Share::of(if at % 5 == 0 { 30 } else { 0 }, 60)).collect();
        assert_eq!(larger(Share::of(12, 20), &bursts, &RULE, BOUND), None);
    }

    #[test]
    fn trouble_that_goes_on_stays_trouble_until_it_is_all_that_is_known() {
        let now = Share::of(20, 20);
        let since = |minutes: usize| [steps(60 - minutes, 0, 60), steps(minutes, 60, 60)].concat();
        for minutes in [1, 10, 30, 50] {
            assert!(larger(now, &since(minutes), &RULE, BOUND).is_some(), "{minutes}");
        }
        assert_eq!(larger(now, &since(60), &RULE, BOUND), None);
        // A past that is short and as bad is none.
        let found = larger(now, &steps(5, 60, 60), &RULE, BOUND).unwrap();
        assert_eq!(found.usual, None);
    }

    #[test]
    fn without_a_past_nearly_all_must_fail() {
        assert_eq!(larger(Share::of(20, 20), &[], &RULE, BOUND).unwrap().usual, None);
        assert_eq!(larger(Share::of(10, 20), &[], &RULE, BOUND), None);
        assert_eq!(larger(Share::of(5, 5), &[], &RULE, BOUND), None);
    }

    #[test]
    fn what_comes_in_bursts_tells_less() {
        let bursty = ShareRule { hits_min: 6, burst: 3.0, ..RULE };
        let past = steps(60, 0, 200);
        assert!(larger(Share::of(30, 100), &past, &bursty, BOUND).is_some());
        assert_eq!(larger(Share::of(6, 100), &past, &bursty, BOUND), None);
    }

    #[test]
    fn times_are_longer_only_beyond_what_they_spread_and_by_milliseconds() {
        let past: Vec<f64> = (0..60).map(|at| 50.0 + f64::from(at % 7) * 20.0).collect();
        let found = longer(&[30_000.0, 28_000.0], &past, SLOW, BOUND).unwrap();
        assert!((found.now_us - 28_000.0).abs() < 1.0 && (found.usual_us - 110.0).abs() < 1.0, "{found:?}");
        assert_eq!(longer(&[30_000.0], &past, SLOW, BOUND), None, "one step is none");
        assert_eq!(longer(&[30_000.0, 90.0], &past, SLOW, BOUND), None, "both must be");
        assert_eq!(longer(&[2_000.0, 3_000.0], &past, SLOW, BOUND), None, "a loaded machine");
        assert_eq!(longer(&[30_000.0, 28_000.0], &past[..3], SLOW, BOUND), None, "too short a past");
        let wide: Vec<f64> = (0..60).map(|at| 10.0_f64.powi(2 + at % 4)).collect();
        assert_eq!(longer(&[60_000.0, 60_000.0], &wide, SLOW, BOUND), None);
        let already = [past.clone(), vec![29_000.0; 20]].concat();
        assert!(longer(&[30_000.0, 28_000.0], &already, SLOW, BOUND).is_some(), "it goes on");
    }

    #[test]
    fn faults_of_the_usual_size_show_at_the_bound_of_thirty_edges() {
        // What docs/decisions/0023-health.md says.
        let bound = 4e-9;
        let is_found = |now: Share, past: &[Share]| larger(now, past, &RULE, bound).is_some();
        assert!(is_found(Share::of(4, 20), &steps(60, 0, 60)), "an hour of a connection a second");
        assert!(is_found(Share::of(7, 7), &steps(1, 0, 60)), "a minute of it");
        assert!(is_found(Share::of(13, 13), &[]), "no past");
        let resent = ShareRule {
            hits_min: 6,
            rate_min: 0.005,
            rate_min_without_past: f64::INFINITY,
            times_min: 3.0,
            burst: 2.0,
        };
        // Twenty requests of 12 kB a second: about 250 segments.
        assert!(larger(Share::of(30, 5_000), &steps(5, 0, 15_000), &resent, bound).is_some(), "five per cent are lost");
        let past: Vec<f64> = (0..10).map(|at| 300.0 + f64::from(at % 3)).collect();
        assert!(longer(&[40_000.0, 40_000.0], &past, SLOW, bound).is_some(), "40 ms instead of 0.3");
    }
}
