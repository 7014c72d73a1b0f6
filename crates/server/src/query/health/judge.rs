//! One edge's verdict: every signal of now held against the same of the past. Pure.

use super::asked::{Answers, Asked};
use super::held::{Larger, Longer, Past, ShareRule, TimeRule, larger, longer};
use super::words;
use crate::query::quality::{Quality, REASONS, Sending};
use crate::query::rfc3339;
use crate::statistics::Share;
use std::collections::BTreeMap;
use weir_model::UnixNanos;
use weir_wire::api::{Health, Symptom};

pub(crate) const HEALTHY: &str = "healthy";
pub(crate) const UNHEALTHY: &str = "unhealthy";
pub(crate) const UNKNOWN: &str = "unknown";

/// How often the windows of a month are looked at, if each is once: 30 days in steps of 10 s.
const LOOKS_IN_A_MONTH: f64 = 259_200.0;
/// Tests of one look at one edge beside those of each name: five reasons, two ends that send again, round trips, all
/// names together, and their latency.
const TESTS: usize = 10;
/// The last parts of a span that are looked at on their own, seconds, beside all of it: what began just now is not thinned
/// out by what was before.
const LOOKS_S: [i64; 2] = [20, 60];
const SECOND_NS: i64 = 1_000_000_000;
pub(crate) const WINDOW_NS: i64 = 10 * SECOND_NS;

/// Less of an edge says nothing: so many connections, segments, or queries.
const CONNECTIONS_MIN: u64 = 3;
const SEGMENTS_MIN: u64 = 20;
const QUERIES_MIN: u64 = 3;

const FAILURES: ShareRule =
    ShareRule { hits_min: 3, rate_min: 0.01, rate_min_without_past: 0.9, times_min: 2.0, burst: 1.0 };
/// A search path of five makes five of six queries fail.
const DNS_FAILURES: ShareRule = ShareRule { rate_min_without_past: 0.95, ..FAILURES };
/// A stall sends a flight again: segments come in bursts. Below half a per cent TCP hardly notices.
const RESENT: ShareRule =
    ShareRule { hits_min: 6, rate_min: 0.005, rate_min_without_past: f64::INFINITY, times_min: 3.0, burst: 2.0 };
/// Round trips within a machine are tens of microseconds, and a thousand times that for a moment when it is busy.
const RTT: TimeRule = TimeRule { times_min: 2.0, more_min_us: 10_000.0 };
/// A resolver that asks others takes tens of milliseconds for what it has not in its cache.
const DNS_LATENCY: TimeRule = TimeRule { times_min: 3.0, more_min_us: 50_000.0 };

/// What an edge did, by the start of the step that it is of.
pub(crate) type Steps = BTreeMap<UnixNanos, Quality>;

/// Of an edge's steps those that count.
#[derive(Clone, Copy)]
pub(crate) struct Within<'a> {
    steps: &'a Steps,
    span: (UnixNanos, UnixNanos),
}

impl<'a> Within<'a> {
    /// Those of `[since, until)`; `None`: there are none.
    pub(crate) fn of(steps: &'a Steps, (since, until): (UnixNanos, UnixNanos)) -> Option<Self> {
        let within = Self { steps, span: (since, until) };
        within.values().next().is_some().then_some(within)
    }

    /// All of them.
    pub(crate) fn all(steps: &'a Steps) -> Self {
        Self { steps, span: (UnixNanos(i64::MIN), UnixNanos(i64::MAX)) }
    }

    fn values(self) -> impl Iterator<Item = &'a Quality> {
        self.steps.range(self.span.0..self.span.1).map(|(_, quality)| quality)
    }
}

/// What is held against what.
#[derive(Clone, Copy)]
pub(crate) struct Evidence<'a> {
    pub(crate) now: &'a Steps,
    pub(crate) past: Option<Within<'a>>,
    pub(crate) asked: Option<&'a Asked>,
    pub(crate) asked_past: Option<&'a Asked>,
}

/// What every edge of an answer is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The span of now.
    pub(crate) since: UnixNanos,
    pub(crate) until: UnixNanos,
    /// Edges that are looked at.
    pub(crate) edges: usize,
    pub(crate) against: Against,
}

/// What now is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    /// What was before it: parts of the span are looked at on their own, and trouble that goes on is not what is usual.
    Past,
    /// Another span, as it is.
    Span,
}

/// A signal's value in one step.
type Told<T> = Vec<(UnixNanos, T)>;

/// What was found, and how bad it is.
struct Found {
    symptom: Symptom,
    since: UnixNanos,
    /// The smaller, the worse: the signal's class, then less and less of the share.
    rank: (u8, f64),
}

/// The verdict. `past_from`: where the past begins.
pub(crate) fn judge(evidence: Evidence<'_>, bounds: Bounds, past_from: UnixNanos) -> Health {
    let has_past = evidence.past.is_some() || evidence.asked_past.is_some();
    let mut found = symptoms(evidence, bounds);
    found.sort_by(|a, b| a.rank.0.cmp(&b.rank.0).then(a.rank.1.total_cmp(&b.rank.1)));
    let since = found.iter().map(|found| found.since).min();
    let verdict = if found.is_empty() { quiet(evidence) } else { UNHEALTHY };
    Health {
        verdict: verdict.to_owned(),
        symptoms: found.into_iter().map(|found| found.symptom).collect(),
        since: since.map(rfc3339),
        past_from: has_past.then(|| rfc3339(past_from)),
    }
}

/// The verdict where nothing is found.
fn quiet(evidence: Evidence<'_>) -> &'static str {
    let all = evidence.now.values().fold(Quality::default(), |mut all, step| {
        all.merge(step);
        all
    });
    let queries = evidence.asked.map_or(0, |asked| asked.all.values().map(|step| step.queries).sum());
    // Datagrams that are no DNS tell of nothing that goes wrong.
    let is_told =
        all.rtt.1 > 0 || all.client.resent + all.server.resent > 0 || all.failed.iter().any(|count| *count > 0);
    let is_enough =
        is_told && (all.opened >= CONNECTIONS_MIN || all.client.segments + all.server.segments >= SEGMENTS_MIN);
    if is_enough || queries >= QUERIES_MIN { HEALTHY } else { UNKNOWN }
}

fn symptoms(evidence: Evidence<'_>, bounds: Bounds) -> Vec<Found> {
    let names = evidence.asked.map_or(0, |asked| asked.names.len());
    let looks = bounds.looks_from();
    let tests = (looks.len() * (TESTS + names) * bounds.edges.max(1)) as f64;
    let bound = 1.0 / (LOOKS_IN_A_MONTH * tests);
    let hold = Hold { evidence, looks: &looks, until: bounds.until, against: bounds.against, bound };
    let mut found: Vec<Found> = (0..REASONS.len()).filter_map(|reason| hold.failures(reason)).collect();
    found.extend(hold.resent());
    found.extend(hold.rtt());
    if let Some(asked) = evidence.asked {
        found.extend(hold.dns_failures(asked));
        found.extend(hold.dns_latency(asked));
    }
    found
}

impl Bounds {
    /// Where what is looked at begins, the shortest first.
    fn looks_from(&self) -> Vec<UnixNanos> {
        let end = self.until.0.div_euclid(WINDOW_NS) * WINDOW_NS;
        let last = LOOKS_S.into_iter().map(|seconds| UnixNanos(end - seconds * SECOND_NS));
        let last = last.filter(|from| self.against == Against::Past && from.0 >= self.since.0);
        last.chain([UnixNanos(self.since.0.div_euclid(WINDOW_NS) * WINDOW_NS)]).collect()
    }
}

/// All that a signal's test needs.
struct Hold<'a> {
    evidence: Evidence<'a>,
    looks: &'a [UnixNanos],
    until: UnixNanos,
    against: Against,
    bound: f64,
}

impl Hold<'_> {
    fn shares(&self, of: impl Fn(&Quality) -> Share) -> (Told<Share>, Vec<Share>) {
        let now = self.evidence.now.iter().map(|(at, step)| (*at, of(step))).collect();
        (now, self.evidence.past.into_iter().flat_map(Within::values).map(of).collect())
    }

    /// The look with the least chance, with its start and the first step in which it shows.
    fn larger(&self, now: &Told<Share>, past: &[Share], rule: &ShareRule) -> Option<(Larger, UnixNanos, UnixNanos)> {
        let of = |from: UnixNanos| {
            let within = now.iter().filter(|(at, _)| *at >= from);
            let share = within.fold(Share::default(), |all, (_, step)| all.plus(*step));
            Some((larger(share, self.past(past), rule, self.bound)?, from))
        };
        let found = self.looks.iter().filter_map(|from| of(*from));
        let (larger, from) = found.min_by(|a, b| a.0.chance.total_cmp(&b.0.chance))?;
        let shows = now.iter().find(|(_, step)| step.hits > 0 && step.rate() >= larger.now.rate() / 2.0);
        Some((larger, from, shows.map_or(from, |(at, _)| *at)))
    }

    fn longer(&self, now: &Told<f64>, past: &[f64], rule: TimeRule) -> Option<(Longer, UnixNanos)> {
        let of = |from: UnixNanos| {
            let within: Vec<f64> = now.iter().filter(|(at, _)| *at >= from).map(|(_, value)| *value).collect();
            longer(&within, self.past(past), rule, self.bound)
        };
        let found = self.looks.iter().filter_map(|from| of(*from));
        let longer = found.min_by(|a, b| a.chance.total_cmp(&b.chance))?;
        let shows = now.iter().find(|(_, value)| *value >= longer.now_us / 2.0);
        Some((longer, shows.map_or(self.until, |(at, _)| *at)))
    }

    fn past<'p, T>(&self, steps: &'p [T]) -> Past<'p, T> {
        match self.against {
            Against::Past => Past::Before(steps),
            Against::Span => Past::Apart(steps),
        }
    }

    fn within(&self, from: UnixNanos) -> u64 {
        (self.until.since(from).max(0) / SECOND_NS) as u64
    }

    /// Connections that failed to open are held against those that were tried, those that broke against all.
    fn failures(&self, reason: usize) -> Option<Found> {
        let word = REASONS.get(reason)?;
        let breaks = matches!(*word, "reset" | "aborted");
        let (now, past) = self.shares(|step| {
            let failed = step.failed.get(reason).copied().unwrap_or_default();
            Share::of(failed, if breaks { step.active } else { step.opened })
        });
        let (larger, from, since) = self.larger(&now, &past, &FAILURES)?;
        let text = words::failures(word, &larger, self.within(from));
        Some(found(0, word, text, &larger, since))
    }

    /// What either end sent again; the worse of both.
    fn resent(&self) -> Option<Found> {
        let of = |whose: &str, sending: fn(&Quality) -> Sending| {
            let (now, past) = self.shares(|step| Share::of(sending(step).resent, sending(step).segments));
            let (larger, from, since) = self.larger(&now, &past, &RESENT)?;
            let text = words::resent(whose, &larger, self.within(from));
            Some((larger.chance, found(1, "retransmits", text, &larger, since)))
        };
        let ends = [of("client", |step| step.client), of("server", |step| step.server)];
        ends.into_iter().flatten().min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, found)| found)
    }

    fn rtt(&self) -> Option<Found> {
        let mean = |step: &Quality| (step.rtt.1 > 0).then(|| step.rtt.0 as f64 / step.rtt.1 as f64);
        let now = self.evidence.now.iter().filter_map(|(at, step)| Some((*at, mean(step)?))).collect();
        let past: Vec<f64> = self.evidence.past.into_iter().flat_map(Within::values).filter_map(mean).collect();
        let (longer, since) = self.longer(&now, &past, RTT)?;
        Some(slow("rtt", words::slow("round trips", &longer), &longer, since))
    }

    /// One name's queries, or all of them, whichever is told first.
    fn dns_failures(&self, asked: &Asked) -> Option<Found> {
        let share = |step: &Answers| Share::of(step.failures, step.queries);
        let told = |steps: &BTreeMap<UnixNanos, Answers>| -> Told<Share> {
            steps.iter().map(|(at, step)| (*at, share(step))).collect()
        };
        let past_of = |steps: Option<&BTreeMap<UnixNanos, Answers>>| -> Vec<Share> {
            steps.into_iter().flat_map(BTreeMap::values).map(share).collect()
        };
        let past = self.evidence.asked_past;
        let mut failing: Vec<(Larger, UnixNanos, UnixNanos, words::FailingName<'_>)> = Vec::new();
        for (name, now) in &asked.names {
            let own = past.and_then(|past| past.names.get(name));
            let has_past = own.is_some();
            let past = past_of(own.map(|own| &own.steps));
            let Some((larger, from, since)) = self.larger(&told(&now.steps), &past, &DNS_FAILURES) else { continue };
            let rcode = now.worst().unwrap_or_default();
            // A name that is new to the client and does not exist is most likely one of a search path.
            if (has_past && larger.usual.is_some()) || rcode != "nxdomain" {
                failing.push((larger, from, since, words::FailingName { name, rcode }));
            }
        }
        let all = self.larger(&told(&asked.all), &past_of(past.map(|past| &past.all)), &DNS_FAILURES);
        failing.sort_by(|a, b| a.0.chance.total_cmp(&b.0.chance));
        let since = failing.iter().map(|(_, _, since, _)| *since).chain(all.iter().map(|all| all.2)).min()?;
        let (larger, from) = match (failing.first(), &all) {
            (Some((larger, from, ..)), _) | (None, Some((larger, from, _))) => (*larger, *from),
            (None, None) => return None,
        };
        let names: Vec<words::FailingName<'_>> = if failing.is_empty() {
            asked.worst_names().map(|(name, rcode)| words::FailingName { name, rcode }).collect()
        } else {
            failing.into_iter().map(|(.., name)| name).collect()
        };
        let text = words::dns_failures(&names, &larger, self.within(from));
        Some(found(0, "dns_failures", text, &larger, since))
    }

    fn dns_latency(&self, asked: &Asked) -> Option<Found> {
        let mean = |step: &Answers| (step.answered > 0).then(|| step.latency_us as f64 / step.answered as f64);
        let now = asked.all.iter().filter_map(|(at, step)| Some((*at, mean(step)?))).collect();
        let past = self.evidence.asked_past.into_iter().flat_map(|past| past.all.values());
        let past: Vec<f64> = past.filter_map(mean).collect();
        let (longer, since) = self.longer(&now, &past, DNS_LATENCY)?;
        Some(slow("dns_latency", words::slow("DNS answers", &longer), &longer, since))
    }
}

fn found(class: u8, signal: &str, text: String, larger: &Larger, since: UnixNanos) -> Found {
    let now = larger.now.rate();
    Found { symptom: Symptom { signal: signal.to_owned(), text, now, usual: larger.usual }, since, rank: (class, -now) }
}

fn slow(signal: &str, text: String, longer: &Longer, since: UnixNanos) -> Found {
    let symptom = Symptom { signal: signal.to_owned(), text, now: longer.now_us, usual: Some(longer.usual_us) };
    Found { symptom, since, rank: (2, -longer.now_us / longer.usual_us) }
}
