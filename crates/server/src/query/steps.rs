//! How long the steps of a series are: what was asked, or what fits the span; never finer than the history of the span is.

use super::params::Question;
use std::time::Duration;
use weir_model::UnixNanos;
use weir_store::{HistoryView, Step};

const SECOND_NS: i64 = 1_000_000_000;
/// What is chosen from: each a multiple of those before it but for 15 min, so that pictures of the same span agree.
const CHOICES: [i64; 9] = [10, 30, 60, 300, 900, 3_600, 21_600, 86_400, 604_800];
/// Steps in a span where they are chosen: a terminal's width, and enough for a picture.
const CHOSEN_MAX: i64 = 120;
/// Steps in a span at most: with 1,000 edges some 100 MB of JSON.
const STEPS_MAX: i64 = 1_500;

/// The step of a question's series.
///
/// # Errors
/// In words, when what is asked for are more steps than an answer holds.
pub(crate) fn choose(history: &dyn HistoryView, question: &Question, now: UnixNanos) -> Result<Step, String> {
    let until = question.until.unwrap_or(now).min(now);
    let since = question.since.unwrap_or(until);
    let grain = history.grain(since, until).map_or(0, |grain| grain.resolution.nanos());
    fitting(until.since(since), grain, question.step)
}

/// `span` and `grain` in nanoseconds; the grain is a minute, an hour, or 0 for less.
fn fitting(span: i64, grain: i64, asked: Option<Step>) -> Result<Step, String> {
    let Some(Step(asked)) = asked else {
        let fits = |step: &i64| *step >= grain && span / *step <= CHOSEN_MAX;
        let week = CHOICES[CHOICES.len() - 1] * SECOND_NS;
        let weeks = || (span / CHOSEN_MAX / week + 1) * week;
        return Ok(Step(CHOICES.into_iter().map(|seconds| seconds * SECOND_NS).find(fits).unwrap_or_else(weeks)));
    };
    // Sums of old history are of one step whole: a step holds a whole number of them.
    let step = if grain == 0 { asked } else { asked.div_euclid(grain).max(1) * grain };
    let step = if step < asked { step + grain } else { step };
    if span / step > STEPS_MAX {
        let shown = |ns: i64| humantime::format_duration(Duration::from_secs((ns / SECOND_NS) as u64));
        let window = 10 * SECOND_NS;
        let least = (span / STEPS_MAX / window + 1) * window;
        return Err(format!(
            "parameter `step` is {}: the span has {} of them, at most {STEPS_MAX} are answered; write a step of {} or more, or a \
             shorter span",
            shown(step),
            span / step,
            shown(least),
        ));
    }
    Ok(Step(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60 * SECOND_NS;
    const HOUR: i64 = 60 * MINUTE;

    fn seconds(span: i64, grain: i64, asked: Option<i64>) -> Result<i64, String> {
        fitting(span, grain, asked.map(|seconds| Step(seconds * SECOND_NS))).map(|step| step.0 / SECOND_NS)
    }

    #[test]
    fn a_chosen_step_fits_the_span_and_is_never_finer_than_history() {
        for (span, grain, expected) in [
            (5 * MINUTE, 0, 10),
            (HOUR, 0, 30),
            (24 * HOUR, 0, 900),
            (24 * HOUR, MINUTE, 900),
            (MINUTE, MINUTE, 60),
            (MINUTE, HOUR, 3_600),
            (30 * 24 * HOUR, HOUR, 21_600),
            (100 * 365 * 24 * HOUR, HOUR, 44 * 604_800),
        ] {
            assert_eq!(seconds(span, grain, None), Ok(expected), "{span} {grain}");
        }
    }

    #[test]
    fn an_asked_step_holds_whole_sums_and_not_too_many_fit_the_span() {
        for (grain, asked, expected) in
            [(0, 10, 10), (0, 90, 90), (MINUTE, 10, 60), (MINUTE, 90, 120), (MINUTE, 60, 60), (HOUR, 5_400, 7_200)]
        {
            assert_eq!(seconds(HOUR, grain, Some(asked)), Ok(expected), "{grain} {asked}");
        }
        let problem = seconds(24 * HOUR, 0, Some(10)).unwrap_err();
        assert!(problem.contains("the span has 8640 of them") && problem.contains("a step of 1m or more"), "{problem}");
        assert_eq!(seconds(24 * HOUR, 0, Some(60)), Ok(60));
    }
}
