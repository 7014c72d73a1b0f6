//! Looking again and again: for a time, or until exactly what is expected is seen.

use super::{Expected, Seen};
use anyhow::Result;
use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);

/// What came of many looks.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// How long it took.
    pub took: Duration,
    /// How often it was looked.
    pub looks: u64,
    /// How often something was there that is too much.
    pub wrong_looks: u64,
    /// What was too much at any look, and what is missing after the last; empty: all is right.
    pub wrong: String,
}

impl Watched {
    fn look(&mut self, expected: &Expected, seen: &Seen) {
        self.looks += 1;
        let wrong = expected.too_much(seen);
        if !wrong.is_empty() {
            self.wrong_looks += 1;
            let _ = write!(self.wrong, "{}: {wrong}", humantime::format_rfc3339_seconds(system_time()));
        }
    }
}

/// Looks for `time`, in which nothing but what is expected may be there.
///
/// # Errors
/// When a look fails.
pub fn watch(time: Duration, expected: &Expected, mut look: impl FnMut() -> Result<Seen>) -> Result<Watched> {
    let (began, mut watched) = (now(), Watched::default());
    while began.elapsed() < time {
        watched.look(expected, &look()?);
        pause();
    }
    Ok(Watched { took: began.elapsed(), ..watched })
}

/// Looks until exactly what is expected is there, `patience` at most.
///
/// # Errors
/// When a look fails.
pub fn awaited(patience: Duration, expected: &Expected, mut look: impl FnMut() -> Result<Seen>) -> Result<Watched> {
    let (began, mut watched) = (now(), Watched::default());
    loop {
        let seen = look()?;
        watched.look(expected, &seen);
        let missing = expected.missing(&seen);
        watched.took = began.elapsed();
        if missing.is_empty() && expected.too_much(&seen).is_empty() {
            return Ok(watched);
        }
        if watched.took >= patience {
            watched.wrong.push_str(&missing);
            return Ok(watched);
        }
        pause();
    }
}

/// The span of a length that ends at an instant of this process, as `weir diff` takes it.
pub fn span_until(end: Instant, length: Duration) -> String {
    format!("{}..{}", wall(end.elapsed() + length), wall(end.elapsed()))
}

/// So long ago, in RFC 3339.
pub fn wall(ago: Duration) -> String {
    humantime::format_rfc3339_seconds(system_time() - ago).to_string()
}

/// Now.
#[expect(clippy::disallowed_methods, reason = "the tour takes place in real time")]
pub fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the tour takes place in real time")]
fn system_time() -> SystemTime {
    SystemTime::now()
}

#[expect(clippy::disallowed_methods, reason = "faults take time to be seen; how long is what is measured")]
fn pause() {
    std::thread::sleep(LOOK);
}
