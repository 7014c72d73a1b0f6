//! One edge in two spans: what is different, and whether chance explains it. Pure.

use super::earlier::Part;
use crate::query::completeness::Watched;
use crate::query::edges::{EndName, Row, end_name};
use crate::query::health::asked::Asked;
use crate::query::health::judge::{self, Against, Bounds, Evidence, Within};
use crate::query::naming::is_unnamed;
use crate::query::params::Span;
use crate::statistics::{Prior, Share, centre, dispersion, mean_and_variance, student_tail, surprise};
use std::collections::BTreeSet;
use weir_model::UnixNanos;
use weir_model::fact::kind;
use weir_store::Step;
use weir_wire::api::{Change, Edge, Symptom};

/// One answer in a hundred may have a change that is none, over all of its edges.
const WRONG: f64 = 0.01;
/// Tests of an edge: new, gone, more, less.
const TESTS: f64 = 4.0;
/// A rate without anything believed before.
const OPEN: Prior = Prior { hits: 1.0, misses: 1.0 };
/// Less than so many steps of presence is a visit, no edge that came or went.
const THERE_MIN: u64 = 2;
/// Traffic that is less than so many times as much or as little is not told.
const TIMES_MIN: f64 = 1.5;
/// Nor is less than so many bytes a second of difference.
const MORE_MIN: f64 = 100.0;
/// Blocks that a span falls into at most when its rate is measured, and at least.
const BLOCKS_MAX: usize = 10;
const BLOCKS_MIN: usize = 3;
/// The means of blocks differ at least so much by chance (of the natural logarithm), however alike they were.
const SPREAD_MIN: f64 = 0.1;

/// Both spans.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spans {
    pub(crate) before: Span,
    pub(crate) after: Span,
    pub(crate) step: Step,
    /// Edges that are compared.
    pub(crate) edges: usize,
}

/// An edge in one span.
pub(crate) struct Side<'a> {
    pub(crate) row: Option<&'a Row>,
    pub(crate) asked: Option<Asked>,
    pub(crate) watched: &'a Watched,
}

/// An edge in both spans and before.
pub(crate) struct Seen<'a> {
    pub(crate) was: Side<'a>,
    pub(crate) is: Side<'a>,
    pub(crate) earlier: Vec<Part>,
}

/// A watched step: its start, whether the edge was there, and its payload bytes.
type At = (UnixNanos, bool, u64);

impl Side<'_> {
    fn edge(&self) -> Option<Edge> {
        self.row.map(|row| row.edge.clone())
    }

    /// Since when the edge is there, and in how many steps from then on: of the `watched` ones that are whole, and all in which
    /// it was there. One in which it was there is one that was watched, also if the span cuts it off or it is not over; from such a
    /// one without it nothing follows.
    fn since_it_came(&self, watched: &[At]) -> Option<(UnixNanos, Share)> {
        let steps = self.row.map(Row::quality)?;
        let there: Vec<UnixNanos> = steps.iter().filter(|(_, step)| step.active > 0).map(|(at, _)| *at).collect();
        let first = *there.first()?;
        let missed = watched.iter().filter(|(at, there, _)| *at > first && !there).count();
        Some((first, Share::of(there.len() as u64, (there.len() + missed) as u64)))
    }

    /// The watched steps, by the nodes that `of` is seen on.
    fn steps(&self, of: &Edge) -> Vec<At> {
        let quality = self.row.map(Row::quality);
        let step = |at: UnixNanos| {
            let quality = quality.and_then(|steps| steps.get(&at));
            (at, quality.is_some_and(|quality| quality.active > 0), quality.map_or(0, |quality| quality.bytes))
        };
        let nodes = [of.client.node.as_deref(), of.server.node.as_deref()];
        self.watched.on(nodes).map(step).collect()
    }
}

/// What is different, if chance does not explain it.
pub(crate) fn compare(seen: &Seen<'_>, spans: &Spans) -> Option<Change> {
    let bound = WRONG / (TESTS * spans.edges.max(1) as f64);
    let edge = seen.is.edge().or_else(|| seen.was.edge())?;
    // What is without a name yet is told under its name, in some seconds.
    if [&edge.client, &edge.server].into_iter().any(is_unnamed) {
        return None;
    }
    let (was, is) = (seen.was.steps(&edge), seen.is.steps(&edge));
    match (seen.was.row, seen.is.row) {
        (None, Some(_)) => {
            sick_from_the_start(seen, &was, &is, spans, bound).or_else(|| new(seen, &was, &is, spans, bound))
        }
        (Some(_), None) => gone(seen, &was, &is, spans, bound),
        (Some(_), Some(_)) => health(seen, spans).or_else(|| shifted(seen, &was, &is, spans, bound)),
        (None, None) => None,
    }
}

/// Leaves out what is the other half of another change. A connect that is refused behind a Service is an edge to that
/// Service, since the kernel forgets with the refusal where it had led: the edge to who was behind it is gone by that, and new
/// when it is over.
pub(crate) fn without_halves(changes: &mut Vec<Change>) {
    let whole: BTreeSet<(&'static str, Half)> = changes
        .iter()
        .filter_map(|change| match (change.change.as_str(), &change.before, &change.after) {
            ("sicker", None, Some(edge)) => Some(("gone", to_service(edge)?)),
            ("better", Some(edge), None) => Some(("new", to_service(edge)?)),
            _ => None,
        })
        .collect();
    changes.retain(|change| {
        let edge = change.after.as_ref().or(change.before.as_ref());
        let half = edge.and_then(|edge| Some(half(edge, edge.service.clone()?)));
        half.is_none_or(|half| !whole.iter().any(|(of, one)| *of == change.change && *one == half))
    });
}

/// A client's edges through one Service: who, `namespace/name`, protocol.
type Half = (EndName, String, String);

fn half(edge: &Edge, service: String) -> Half {
    (end_name(&edge.client), service, edge.protocol.clone())
}

fn to_service(edge: &Edge) -> Option<Half> {
    let server = &edge.server;
    let namespace = server.namespace.as_deref().filter(|_| server.kind == kind::SERVICE)?;
    Some(half(edge, format!("{namespace}/{}", server.name)))
}

/// The weightiest first.
pub(crate) fn weight(change: &Change) -> u8 {
    match change.change.as_str() {
        "sicker" => 0,
        "new" => 1,
        "gone" => 2,
        "shifted" => 3,
        _ => 4,
    }
}

/// What it moves in the span in which it moves more.
pub(crate) fn bytes(change: &Change) -> u64 {
    let edges = [&change.before, &change.after].into_iter().flatten();
    edges.map(|edge| edge.sent_bytes.saturating_add(edge.recv_bytes)).max().unwrap_or(0)
}

fn there(steps: &[At]) -> Share {
    Share::of(steps.iter().filter(|(_, there, _)| *there).count() as u64, steps.len() as u64)
}

/// How likely it is to be absent from all of `absent` steps by chance.
fn absence(absent: u64, parts: &[Share]) -> f64 {
    let all = parts.iter().fold(Share::default(), |all, part| all.plus(*part));
    let missed = Share::of(all.trials - all.hits, all.trials);
    surprise(Share::of(absent, absent), missed, OPEN, dispersion(parts))
}

/// It was not there in the earlier span, nor in the hour before it: as often as it is there since it came, it would have been.
fn new(seen: &Seen<'_>, was: &[At], is: &[At], spans: &Spans, bound: f64) -> Option<Change> {
    let earlier = seen.earlier.iter().fold(Share::default(), |all, part| all.plus(part.there));
    let (first, since) = seen.is.since_it_came(is)?;
    if was.is_empty() || earlier.hits > 0 || since.hits < THERE_MIN {
        return None;
    }
    let absent = earlier.trials + was.len() as u64;
    if absence(absent, &[since]) > bound {
        return None;
    }
    let edge = seen.is.edge()?;
    let text = format!(
        "new since {}: {} and {} bytes",
        crate::query::rfc3339(first.max(spans.after.0)),
        of(edge.connections, "connection"),
        edge.sent_bytes.saturating_add(edge.recv_bytes)
    );
    Some(Change { change: "new".to_owned(), text, before: None, after: Some(edge), symptoms: Vec::new() })
}

/// It came and nearly all of it fails: worse than an edge that is new.
fn sick_from_the_start(seen: &Seen<'_>, was: &[At], is: &[At], spans: &Spans, bound: f64) -> Option<Change> {
    let edge = seen.is.edge()?;
    let parts: Vec<Share> = seen.earlier.iter().map(|part| part.there).chain([there(was)]).collect();
    let all = parts.iter().fold(Share::default(), |all, part| all.plus(*part));
    // It may have been there an hour ago, as trouble that came and went; not as often as now.
    if was.is_empty() || (all.hits > 0 && surprise(there(is), all, OPEN, dispersion(&parts)) > bound) {
        return None;
    }
    let symptoms = sick(&seen.is, None, spans.after, spans);
    let text = format!("not there before; {}", symptoms.first()?.text);
    Some(Change { change: "sicker".to_owned(), text, before: None, after: Some(edge), symptoms })
}

/// It is in no step of the later span: as often as it was there before, it would be. Better so, if nearly all of it failed.
fn gone(seen: &Seen<'_>, was: &[At], is: &[At], spans: &Spans, bound: f64) -> Option<Change> {
    let before = there(was);
    if is.is_empty() || before.hits < THERE_MIN {
        return None;
    }
    let parts: Vec<Share> = seen.earlier.iter().map(|part| part.there).chain([before]).collect();
    if absence(is.len() as u64, &parts) > bound {
        return None;
    }
    let symptoms: Vec<Symptom> = sick(&seen.was, None, spans.before, spans).iter().map(turned).collect();
    let (change, text) = if let Some(worst) = symptoms.first() {
        ("better", format!("not there any more; before: {}", worst.text))
    } else {
        let Share { hits, trials } = before;
        ("gone", format!("gone: it was there in {hits} of {trials} steps, now in none of {}", is.len()))
    };
    Some(Change { change: change.to_owned(), text, before: seen.was.edge(), after: None, symptoms })
}

/// In which ways an edge does worse than in the other span; `None`: than where nothing is known of it.
fn sick(side: &Side<'_>, other: Option<&Side<'_>>, span: Span, spans: &Spans) -> Vec<Symptom> {
    let Some(row) = side.row else { return Vec::new() };
    let evidence = Evidence {
        now: row.quality(),
        past: other.and_then(|other| other.row).map(|row| Within::all(row.quality())),
        asked: side.asked.as_ref(),
        asked_past: other.and_then(|other| other.asked.as_ref()),
    };
    let bounds = Bounds { since: span.0, until: span.1, edges: spans.edges, against: Against::Span };
    judge::judge(evidence, bounds, span.0).symptoms
}

/// As the later span has it: the earlier one's is what was usual.
fn turned(symptom: &Symptom) -> Symptom {
    let text = symptom.text.replace("usually", "now");
    Symptom { text, now: symptom.usual.unwrap_or_default(), usual: Some(symptom.now), signal: symptom.signal.clone() }
}

/// It does worse or better than in the other span.
fn health(seen: &Seen<'_>, spans: &Spans) -> Option<Change> {
    let (before, after) = (seen.was.edge(), seen.is.edge());
    let mut symptoms = sick(&seen.is, Some(&seen.was), spans.after, spans);
    for symptom in &mut symptoms {
        symptom.text = symptom.text.replace("usually", "before");
    }
    if let Some(worst) = symptoms.first() {
        return Some(Change { change: "sicker".to_owned(), text: worst.text.clone(), before, after, symptoms });
    }
    let symptoms: Vec<Symptom> = sick(&seen.was, Some(&seen.is), spans.before, spans).iter().map(turned).collect();
    let text = format!("no longer: {}", symptoms.first()?.text);
    Some(Change { change: "better".to_owned(), text, before, after, symptoms })
}

/// It moves more or less than its own ups and downs explain.
fn shifted(seen: &Seen<'_>, was: &[At], is: &[At], spans: &Spans, bound: f64) -> Option<Change> {
    let seconds = spans.step.0 as f64 / 1e9;
    let rates = |steps: &[At]| -> Vec<f64> { steps.iter().map(|(_, _, bytes)| *bytes as f64 / seconds).collect() };
    let (was, is) = (rates(was), rates(is));
    let chunks: Vec<f64> = seen.earlier.iter().map(|part| part.rate).collect();
    let (before, after) = shift(&was, &is, &chunks, bound)?;
    let times = if after > before { after / before.max(1.0) } else { before / after.max(1.0) };
    let how = if after > before { "as much" } else { "less" };
    let text = format!("{times:.1} times {how}: {after:.0} bytes a second, before {before:.0}");
    Some(Change {
        change: "shifted".to_owned(),
        text,
        before: seen.was.edge(),
        after: seen.is.edge(),
        symptoms: Vec::new(),
    })
}

/// The mean rates, if they differ by more than their steps and the parts of the hour before differ among themselves:
/// Welch's t test on the logarithms of the means of blocks of steps.
fn shift(was: &[f64], is: &[f64], earlier: &[f64], bound: f64) -> Option<(f64, f64)> {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let (before, after) = (mean(was), mean(is));
    let (low, high) = (before.min(after), before.max(after));
    if high < low * TIMES_MIN || high - low < MORE_MIN {
        return None;
    }
    let blocks = |values: &[f64]| -> Vec<f64> {
        let length = values.len().div_ceil(BLOCKS_MAX).max(1);
        values.chunks_exact(length).map(|block| (mean(block) + 1.0).ln()).collect()
    };
    let (was, is) = (blocks(was), blocks(is));
    if was.len() < BLOCKS_MIN || is.len() < BLOCKS_MIN {
        return None;
    }
    let of_mean = |values: &[f64]| {
        let (mean, variance) = mean_and_variance(values);
        (mean, variance.max(SPREAD_MIN * SPREAD_MIN) / values.len() as f64)
    };
    let ((mean_was, error_was), (mean_is, error_is)) = (of_mean(&was), of_mean(&is));
    // What differs from ten minutes to ten minutes anyway.
    let logs: Vec<f64> = earlier.iter().map(|rate| (rate + 1.0).ln()).collect();
    let tides = if logs.len() < BLOCKS_MIN { 0.0 } else { centre(&logs).map_or(0.0, |(_, spread)| spread * spread) };
    let error = error_was + error_is;
    let part = |error: f64, count: usize| error * error / (count as f64 - 1.0);
    let freedom = error * error / (part(error_was, was.len()) + part(error_is, is.len()));
    let chance = 2.0 * student_tail((mean_is - mean_was).abs() / (error + 2.0 * tides).sqrt(), freedom);
    (chance <= bound).then_some((before, after))
}

fn of(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_wire::api::EdgeEnd;

    const BOUND: f64 = 1e-4;

    #[test]
    fn absence_surprises_only_of_what_is_seen_often() {
        let hour = |hits: u64| vec![Share::of(hits, 60); 6];
        assert!(absence(60, &hour(60)) < BOUND, "always there");
        assert!(absence(60, &hour(30)) < BOUND, "every second window");
        assert!(absence(1, &hour(30)) > BOUND, "one window lacks it");
        assert!(absence(60, &hour(1)) > BOUND, "seen once in ten minutes");
        let burst = [Share::of(20, 60), Share::of(0, 60), Share::of(0, 60), Share::of(20, 60), Share::of(0, 60)];
        assert!(absence(60, &burst) > BOUND, "an edge of a job that runs twice an hour");
        // Two windows after an hour without.
        assert!(absence(420, &[Share::of(2, 2)]) < BOUND);
        assert!(absence(6, &[Share::of(2, 2)]) > BOUND);
    }

    #[test]
    fn false_alarms_are_no_more_than_the_bound_promises() {
        const ROUNDS: u32 = 2_000;
        let mut state = 0x5EED_u64;
        let mut unit = move || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
        };
        for bound in [0.01, 0.001] {
            let expected = f64::from(ROUNDS) * bound;
            let most = expected + 3.0 * expected.sqrt();
            // Exponential bytes: as large a spread as their mean.
            let mut rates = |count: usize| -> Vec<f64> { (0..count).map(|_| -1e4 * (1.0 - unit()).ln()).collect() };
            let shifts = (0..ROUNDS).filter(|_| shift(&rates(60), &rates(60), &[], bound).is_some()).count();
            assert!(shifts as f64 <= most, "{shifts} shifts of {expected}");
            for often in [0.9, 0.5, 0.1, 0.02] {
                let mut there = |count: u64| (0..count).filter(|_| unit() < often).count() as u64;
                let gone = (0..ROUNDS).filter(|_| {
                    let parts: Vec<Share> = (0..7).map(|_| Share::of(there(60), 60)).collect();
                    there(30) == 0 && absence(30, &parts) <= bound
                });
                let gone = gone.count();
                assert!(gone as f64 <= most, "{gone} gone of {expected}, at {often}");
            }
        }
    }

    #[test]
    fn a_service_that_refuses_and_who_was_behind_it_are_one_change() {
        let end = |kind: &str, name: &str| EdgeEnd {
            kind: kind.to_owned(),
            namespace: Some("shop".to_owned()),
            name: name.to_owned(),
            ..EdgeEnd::default()
        };
        let edge = |client: &str, kind: &str, service: Option<&str>| Edge {
            client: end("workload", client),
            server: end(kind, "payments"),
            service: service.map(str::to_owned),
            protocol: "tcp".to_owned(),
            ..Edge::default()
        };
        let refused = |client| edge(client, "service", None);
        let served = |client| edge(client, "workload", Some("shop/payments"));
        let change = |change: &str, before: Option<Edge>, after: Option<Edge>| Change {
            change: change.to_owned(),
            before,
            after,
            ..Change::default()
        };
        let left = |mut changes: Vec<Change>| {
            without_halves(&mut changes);
            changes.into_iter().map(|change| change.change).collect::<Vec<_>>()
        };
        let sicker = change("sicker", None, Some(refused("cart")));
        assert_eq!(left(vec![sicker.clone(), change("gone", Some(served("cart")), None)]), ["sicker"]);
        assert_eq!(left(vec![sicker.clone(), change("gone", Some(served("web")), None)]), ["sicker", "gone"]);
        let direct = edge("cart", "workload", None);
        assert_eq!(left(vec![sicker, change("gone", Some(direct), None)]), ["sicker", "gone"]);
        let better = change("better", Some(refused("cart")), None);
        assert_eq!(left(vec![change("new", None, Some(served("cart"))), better]), ["better"]);
    }

    #[test]
    fn traffic_shifts_only_beyond_its_own_ups_and_downs() {
        let steady = |rate: f64| -> Vec<f64> { (0..60).map(|at| rate + f64::from(at % 5)).collect() };
        let (before, after) = shift(&steady(1000.0), &steady(3000.0), &[1000.0; 6], BOUND).unwrap();
        assert!((before - 1002.0).abs() < 1.0 && (after - 3002.0).abs() < 1.0);
        assert_eq!(shift(&steady(1000.0), &steady(1200.0), &[1000.0; 6], BOUND), None, "too little");
        assert_eq!(shift(&steady(10.0), &steady(50.0), &[10.0; 6], BOUND), None, "too few bytes");
        let bursty = |rate: f64, every: usize| -> Vec<f64> {
            (0..60).map(|at| if at % every == 0 { rate } else { 0.0 }).collect()
        };
        assert_eq!(shift(&bursty(90_000.0, 29), &bursty(90_000.0, 17), &[], BOUND), None, "bursts");
        let tides = [500.0, 4000.0, 900.0, 9000.0, 700.0, 5000.0];
        assert_eq!(shift(&steady(1000.0), &steady(3000.0), &tides, BOUND), None, "an edge that comes and goes");
        // Unequal lengths are rates.
        assert_eq!(shift(&steady(1000.0)[..12], &steady(1000.0), &[], BOUND), None);
        assert!(shift(&steady(1000.0)[..12], &steady(3000.0), &[], BOUND).is_some());
    }
}
