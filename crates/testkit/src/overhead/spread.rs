//! Ratios and how sure they are. Pure.

use crate::load::quantile;

/// Resamples of a bootstrap: the ends of a 95 % interval are then the 50th from either side.
const RESAMPLES: usize = 2_000;

/// With fewer cycles a resample is too often the same one again, and the interval looks narrow.
const CYCLES_MIN: usize = 3;

/// A small generator of random numbers (SplitMix64), so that a seed gives the same run everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, 0 for 0. The bias of the remainder is below one in 2^50 for what is shuffled here.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.number() % bound as u64) as usize }
    }

    /// `values` in random order.
    pub fn shuffled<T: Copy>(&mut self, values: &[T]) -> Vec<T> {
        let mut values = values.to_vec();
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last + 1));
        }
        values
    }
}

/// A ratio of medians with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Ratio {
    /// The ratio of the medians.
    pub ratio: f64,
    /// 2.5 % of the resamples were lower.
    pub low: f64,
    /// 2.5 % of the resamples were higher.
    pub high: f64,
}

/// The ratio of the median of `values` to that of `base`, element by element from the same cycle. A resample takes
/// whole cycles, so that what a cycle has in common (another process, a warmer processor) stays in common. `None` when
/// there are fewer than three.
pub fn ratio(base: &[f64], values: &[f64], random: &mut Random) -> Option<Ratio> {
    let cycles = base.len().min(values.len());
    if cycles < CYCLES_MIN {
        return None;
    }
    let of = |pick: &mut dyn FnMut(usize) -> usize| {
        let picked: Vec<usize> = (0..cycles).map(pick).collect();
        median(picked.iter().map(|cycle| values[*cycle])) / median(picked.iter().map(|cycle| base[*cycle]))
    };
    let mut resampled: Vec<f64> = (0..RESAMPLES).map(|_| of(&mut |_| random.below(cycles))).collect();
    resampled.sort_unstable_by(f64::total_cmp);
    Some(Ratio { ratio: of(&mut |cycle| cycle), low: quantile(&resampled, 0.025), high: quantile(&resampled, 0.975) })
}

/// The median; zero of nothing.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    quantile(&values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_beyond_the_noise_is_seen_and_none_within_it() {
        let mut random = Random::new(1);
        let noise: Vec<f64> = (0..40).map(|_| 10.0 + random.below(100) as f64 / 100.0).collect();
        let again: Vec<f64> = (0..40).map(|_| 10.0 + random.below(100) as f64 / 100.0).collect();
        let dearer: Vec<f64> = again.iter().map(|value| value * 1.2).collect();
        let control = ratio(&noise, &again, &mut random).unwrap();
        assert!(control.low <= 1.0 && control.high >= 1.0, "{control:?}");
        let real = ratio(&noise, &dearer, &mut random).unwrap();
        assert!(real.low > 1.1 && real.high < 1.3, "{real:?}");
        assert_eq!(ratio(&[], &noise, &mut random), None);
    }

    #[test]
    fn a_shuffle_keeps_every_element() {
        let mut shuffled = Random::new(7).shuffled(&[1, 2, 3, 4, 5]);
        shuffled.sort_unstable();
        assert_eq!(shuffled, [1, 2, 3, 4, 5]);
    }
}
