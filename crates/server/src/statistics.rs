//! The statistics behind verdicts: tails of distributions, and robust numbers. Pure.
//!
//! What is built of them, and why so, is in `docs/health.md`.

use statrs::distribution::{ContinuousCDF as _, StudentsT};
use statrs::function::gamma::ln_gamma;

/// What makes a median absolute deviation a standard deviation where values are normal: 1 / 0.6745 (the normal
/// distribution's upper quartile).
const MAD_TO_DEVIATION: f64 = 1.4826;

/// The share of parts that is left out at the far end when a dispersion is measured: single bad moments of the past
/// shall not widen what is taken for usual.
const TRIMMED: f64 = 0.1;

/// So many of so many: `hits` of `trials`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) hits: u64,
    /// At least `hits`.
    pub(crate) trials: u64,
}

impl Share {
    pub(crate) fn of(hits: u64, trials: u64) -> Self {
        Self { hits, trials: trials.max(hits) }
    }

    /// From 0 to 1; 0 of nothing.
    pub(crate) fn rate(self) -> f64 {
        if self.trials == 0 { 0.0 } else { self.hits as f64 / self.trials as f64 }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { hits: self.hits.saturating_add(other.hits), trials: self.trials.saturating_add(other.trials) }
    }

    /// As if only one of so many had been seen: what comes in bursts of `by` tells no more than that.
    fn thinned(self, by: f64) -> Self {
        Self { hits: (self.hits as f64 / by) as u64, trials: (self.trials as f64 / by).ceil() as u64 }
    }
}

/// What is believed of a rate before anything was seen of it: the Beta distribution with these parameters, more than 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prior {
    pub(crate) hits: f64,
    pub(crate) misses: f64,
}

/// How likely at least so many hits as `now` has are, if its rate is that of `past`: the upper tail of the predictive
/// (beta-binomial) distribution. Both are thinned by `dispersion`, 1 or more.
pub(crate) fn surprise(now: Share, past: Share, prior: Prior, dispersion: f64) -> f64 {
    let (now, past) = (now.thinned(dispersion), past.thinned(dispersion));
    let misses = past.trials.saturating_sub(past.hits);
    beta_binomial_tail(now.hits, now.trials, prior.hits + past.hits as f64, prior.misses + misses as f64)
}

/// `P(X >= k)` for X of a beta-binomial distribution. 1 where `k` is not above the mean: nobody asks for more there.
fn beta_binomial_tail(k: u64, n: u64, alpha: f64, beta: f64) -> f64 {
    let (hits, trials) = (k as f64, n as f64);
    if k == 0 || k > n || hits <= trials * alpha / (alpha + beta) {
        return 1.0;
    }
    let ln_beta = |a: f64, b: f64| ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b);
    let ln_choose = ln_gamma(trials + 1.0) - ln_gamma(hits + 1.0) - ln_gamma(trials - hits + 1.0);
    let mut term = (ln_choose + ln_beta(hits + alpha, trials - hits + beta) - ln_beta(alpha, beta)).exp();
    let mut tail = 0.0;
    let mut x = hits;
    // Above the mean the terms of a prior with `alpha` of 1 or more fall, in the end faster than geometrically.
    while x <= trials {
        tail += term;
        if term <= tail * 1e-9 {
            break;
        }
        term *= (trials - x) * (x + alpha) / ((x + 1.0) * (trials - x - 1.0 + beta));
        x += 1.0;
    }
    tail.min(1.0)
}

/// How much more the parts of a whole differ than chance alone makes them: the mean of Pearson's squared residuals
/// without the largest tenth, 1 or more.
pub(crate) fn dispersion(parts: &[Share]) -> f64 {
    let all = parts.iter().fold(Share::default(), |all, part| all.plus(*part));
    let rate = all.rate();
    let variance = rate * (1.0 - rate);
    let mut residuals: Vec<f64> = parts
        .iter()
        .filter(|part| part.trials > 0 && variance > 0.0)
        .map(|part| {
            let (hits, trials) = (part.hits as f64, part.trials as f64);
            (hits - trials * rate).powi(2) / (trials * variance)
        })
        .collect();
    residuals.sort_unstable_by(f64::total_cmp);
    residuals.truncate(residuals.len() - (residuals.len() as f64 * TRIMMED).ceil() as usize);
    if residuals.len() < 3 {
        return 1.0;
    }
    (residuals.iter().sum::<f64>() / residuals.len() as f64).max(1.0)
}

/// `P(T >= t)` for T of Student's distribution.
pub(crate) fn student_tail(t: f64, freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, freedom).map_or(1.0, |student| student.sf(t))
}

/// The value at `quantile` (0 to 1) of sorted values, the lower of two; `None` of none.
pub(crate) fn quantile(sorted: &[f64], quantile: f64) -> Option<f64> {
    let place = (sorted.len().saturating_sub(1)) as f64 * quantile;
    sorted.get(place as usize).copied()
}

/// The mean, and the variance of the values; 0 of fewer than two.
pub(crate) fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, squares / (count - 1.0).max(1.0))
}

/// The median, and the standard deviation by the median absolute deviation. `None` of none.
pub(crate) fn centre(values: &[f64]) -> Option<(f64, f64)> {
    let sorted = |mut values: Vec<f64>| {
        values.sort_unstable_by(f64::total_cmp);
        values
    };
    let median = quantile(&sorted(values.to_vec()), 0.5)?;
    let far = sorted(values.iter().map(|value| (value - median).abs()).collect());
    Some((median, quantile(&far, 0.5)? * MAD_TO_DEVIATION))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-6 * b.abs().max(1e-300)
    }

    #[test]
    fn tails_have_the_values_of_tables() {
        // With alpha = beta = 1 every count is as likely: P(X >= k) = (n - k + 1) / (n + 1).
        assert!(close(beta_binomial_tail(8, 9, 1.0, 1.0), 0.2));
        // All of n with Beta(1, b): b / ((b) (b+1) ... ) = n! Γ(b + 1) / Γ(b + n + 1) = 1 / C(n + b, n).
        assert!(close(beta_binomial_tail(3, 3, 1.0, 19.0), 1.0 / 1540.0));
        // 2 of 4 or more with Beta(2, 5), summed by hand: (6*B(4,7) + 4*B(5,6) + B(6,5)) / B(2,5) = 1/30 * ...
        let by_hand = (6.0 / 840.0 + 4.0 / 1260.0 + 1.0 / 1260.0) / (1.0 / 30.0);
        assert!(close(beta_binomial_tail(2, 4, 2.0, 5.0), by_hand), "{by_hand}");
        assert!(close(beta_binomial_tail(0, 5, 1.0, 9.0), 1.0));
        // Student's table: t(0.975; 10) = 2.228139, t(0.999; 5) = 5.893430.
        assert!((student_tail(2.228_139, 10.0) - 0.025).abs() < 1e-7);
        assert!((student_tail(5.893_430, 5.0) - 0.001).abs() < 1e-8);
    }

    #[test]
    fn a_median_does_not_follow_the_few() {
        let (median, deviation) = centre(&[1.0, 2.0, 3.0, 4.0, 1000.0]).unwrap();
        assert!(close(median, 3.0) && close(deviation, 1.4826), "{median} {deviation}");
        assert_eq!(centre(&[]), None);
        assert_eq!(mean_and_variance(&[1.0, 2.0, 6.0]), (3.0, 7.0));
        assert_eq!(mean_and_variance(&[]), (0.0, 0.0));
        assert_eq!(quantile(&[1.0, 2.0], 0.25), Some(1.0));
    }

    #[test]
    fn a_dispersion_is_of_the_many_and_not_of_the_few() {
        let steady = vec![Share::of(1, 100); 60];
        assert!(close(dispersion(&steady), 1.0));
        let mut once = steady.clone();
        once[10] = Share::of(100, 100);
        assert!(dispersion(&once) < 2.0, "{}", dispersion(&once));
        let bursts: Vec<Share> = (0..60).map(|at| Share::of(if at % 5 == 0 { 50 } else { 0 }, 100)).collect();
        assert!(dispersion(&bursts) > 5.0, "{}", dispersion(&bursts));
    }

    /// A small generator (xorshift64*): the same numbers in every run.
    struct Numbers(u64);

    impl Numbers {
        fn unit(&mut self) -> f64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
        }

        fn hits(&mut self, trials: u64, rate: f64) -> u64 {
            (0..trials).filter(|_| self.unit() < rate).count() as u64
        }
    }

    #[test]
    fn false_alarms_are_no_more_than_the_bound_promises() {
        const PRIOR: Prior = Prior { hits: 1.0, misses: 1.0 };
        let mut numbers = Numbers(0x5EED);
        for (rate, now, past) in [(0.01, 20, 600), (0.2, 20, 1200), (0.001, 300, 3000), (0.5, 60, 60)] {
            for bound in [0.01, 0.001] {
                let rounds = 6000;
                let alarms = (0..rounds)
                    .filter(|_| {
                        let past = Share::of(numbers.hits(past, rate), past);
                        let now = Share::of(numbers.hits(now, rate), now);
                        surprise(now, past, PRIOR, 1.0) < bound
                    })
                    .count();
                // Three standard deviations above what the bound lets expect.
                let expected = f64::from(rounds) * bound;
                assert!((alarms as f64) <= expected + 3.0 * expected.sqrt(), "{rate}: {alarms} of {expected}");
            }
        }
    }

    proptest! {
        #[test]
        fn more_hits_surprise_more_and_a_worse_past_less(k in 1_u64..200, more in 0_u64..200, past in 0_u64..500, worse in 0_u64..500) {
            let prior = Prior { hits: 1.0, misses: 1.0 };
            let of = |hits: u64, past: u64| surprise(Share::of(hits, 400), Share::of(past, 2000), prior, 1.0);
            let (few, many) = (of(k, past), of(k + more, past));
            prop_assert!((0.0..=1.0).contains(&few) && many <= few * (1.0 + 1e-6));
            prop_assert!(of(k, past + worse) >= few * (1.0 - 1e-6));
        }
    }
}
