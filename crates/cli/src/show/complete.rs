//! An answer's completeness in one line of plain words: which nodes, what was lost, which span.

use super::terminal::{Paint, Surface};
use super::text::escape;
use super::units;
use jiff::tz::TimeZone;
use weir_wire::api::{Completeness, LossTotal, NodeCoverage};

/// Longer lists hide what matters; `weir status` has them all.
const LISTED_MAX: usize = 4;

/// The line, escaped, without its end.
pub fn in_words(completeness: &Completeness, zone: &TimeZone) -> String {
    let mut words = sentence(completeness, zone);
    if let Some(resolution) = &completeness.resolution {
        let instant = |at: &str| units::instant(at, &completeness.to, zone);
        let step = if resolution.seconds < 3600 { "1 min" } else { "1 h" };
        let since =
            if resolution.from.is_empty() { String::new() } else { format!(" from {}", instant(&resolution.from)) };
        words.extend(["; old history in steps of ", step, ", counted", &since, " until ", &instant(&resolution.to)]);
    }
    if let Some(steps) = &completeness.steps {
        let step = units::span_ms(steps.seconds.saturating_mul(1000));
        words.extend(["; in steps of ", &step]);
        if !steps.incomplete.is_empty() {
            words.extend([", something missing in ", &units::of(steps.incomplete.len() as u64, "step")]);
        }
    }
    if let Some(before) = &completeness.before {
        words.extend(["; compared with: ", &sentence(before, zone)]);
    }
    if completeness.omitted > 0 {
        words.extend(["; ", &units::of(completeness.omitted, "more row"), " beyond the limit"]);
    }
    escape(&words).into_owned()
}

/// As [`in_words`], coloured by what it says.
pub fn painted(completeness: &Completeness, zone: &TimeZone, surface: &Surface) -> String {
    let paint = if completeness.complete { Paint::Dim } else { Paint::Warn };
    surface.paint(paint, &in_words(completeness, zone))
}

fn sentence(completeness: &Completeness, zone: &TimeZone) -> String {
    if completeness.nodes.is_empty() {
        return "incomplete: no node has reported in this span".to_owned();
    }
    let (names, span) = (names(&completeness.nodes), span(completeness, zone));
    if completeness.complete {
        let part = young(completeness)
            .map_or_else(String::new, |covered| format!("{} of ", units::span_ms(covered / 1000 * 1000)));
        let since = if part.is_empty() { "" } else { ", from the first report on" };
        return format!("complete: {names} covered {part}{span}{since}, nothing lost");
    }
    let mut faults: Vec<String> =
        completeness.nodes.iter().flat_map(|node| faults(node, &completeness.to, zone)).collect();
    faults.extend(completeness.losses.iter().map(loss));
    if faults.is_empty() {
        return format!("incomplete: {names} did not cover all of {span}");
    }
    let more = faults.len().saturating_sub(LISTED_MAX);
    faults.truncate(LISTED_MAX);
    let rest = if more == 0 { String::new() } else { format!("; and {more} more, see weir status") };
    format!("incomplete: of {span} from {names}, {}{rest}", faults.join("; "))
}

/// The shortest covered time, milliseconds, where a node first reported within the span: nothing is missing then, but the
/// numbers are of less time than was asked for. The poll under way (at most 30 s) is not worth a word.
fn young(completeness: &Completeness) -> Option<u64> {
    const POLL_MS: u64 = 30_000;
    let asked = units::between_ms(&completeness.from, &completeness.to)?;
    let covered = completeness.nodes.iter().map(|node| node.covered_ms).min()?;
    (covered.saturating_add(POLL_MS) < asked).then_some(covered)
}

fn names(nodes: &[NodeCoverage]) -> String {
    let reporting: Vec<&str> = nodes.iter().map(|node| node.node.as_str()).collect();
    match reporting.as_slice() {
        [one] => format!("node {one}"),
        few if few.len() <= LISTED_MAX => format!("{} nodes ({})", few.len(), few.join(", ")),
        many => format!("{} nodes", many.len()),
    }
}

fn span(completeness: &Completeness, zone: &TimeZone) -> String {
    let until = units::instant(&completeness.to, &completeness.to, zone);
    match units::between_ms(&completeness.from, &completeness.to) {
        // Below a second the span's length is noise.
        Some(ms) if ms >= 1000 => format!("the {} until {until}", units::span_ms(ms / 1000 * 1000)),
        Some(ms) => format!("the {} until {until}", units::span_ms(ms)),
        None => format!("{} to {}", completeness.from, completeness.to),
    }
}

fn faults(node: &NodeCoverage, now: &str, zone: &TimeZone) -> Vec<String> {
    let mut faults = Vec::new();
    let name = &node.node;
    if node.state != "reporting" {
        let since = node
            .last_seen
            .as_deref()
            .map_or_else(String::new, |seen| format!(" since {}", units::instant(seen, now, zone)));
        faults.push(format!("{name} is {}{since}", node.state));
    }
    if node.missing_ms > 0 {
        faults.push(format!("{name} was not watched for {}", units::span_ms(node.missing_ms)));
    }
    if !node.source_state.is_empty() && node.source_state != "ok" {
        let detail = if node.source_detail.is_empty() { String::new() } else { format!(" ({})", node.source_detail) };
        faults.push(format!("the source of {name} is {}{detail}", node.source_state.replace('_', " ")));
    }
    faults
}

/// A loss in words.
pub fn loss(loss: &LossTotal) -> String {
    let place = if loss.node.is_empty() {
        format!("the {}", loss.place)
    } else {
        format!("the {} of {}", loss.place, loss.node)
    };
    let mut of = Vec::new();
    if loss.bytes > 0 {
        of.push(units::bytes(loss.bytes));
    }
    if loss.connections > 0 {
        of.push(units::of(loss.connections, "connection"));
    }
    let of = if of.is_empty() { String::new() } else { format!(", {}", of.join(" of ")) };
    let verb = if loss.intended { "left out" } else { "lost" };
    format!("{place} {verb} {} ({}{of})", units::count(loss.count), loss.reason.replace('_', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeCoverage {
        NodeCoverage {
            node: name.into(),
            state: "reporting".into(),
            covered_ms: 300_000,
            source_state: "ok".into(),
            ..NodeCoverage::default()
        }
    }

    fn five_minutes() -> Completeness {
        Completeness {
            complete: true,
            from: "2026-01-31T10:00:00Z".into(),
            to: "2026-01-31T10:05:00.250Z".into(),
            nodes: vec![node("alpha")],
            ..Completeness::default()
        }
    }

    #[test]
    fn a_complete_answer_says_so_in_one_line() {
        assert_eq!(
            in_words(&five_minutes(), &TimeZone::UTC),
            "complete: node alpha covered the 5 min until 10:05:00, nothing lost"
        );
    }

    #[test]
    fn a_node_that_first_reported_within_the_span_did_not_cover_all_of_it() {
        let mut completeness = five_minutes();
        completeness.nodes[0].covered_ms = 16_700;
        assert_eq!(
            in_words(&completeness, &TimeZone::UTC),
            "complete: node alpha covered 16 s of the 5 min until 10:05:00, from the first report on, nothing lost"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut completeness = five_minutes();
        completeness.complete = false;
        completeness.omitted = 1200;
        completeness.nodes[0].missing_ms = 12_300;
        completeness.nodes.push(NodeCoverage {
            state: "silent".into(),
            last_seen: Some("2026-01-31T10:01:00Z".into()),
            source_state: "missing".into(),
            source_detail: "no socket".into(),
            ..node("beta\u{1b}")
        });
        completeness.losses.push(LossTotal {
            node: "alpha".into(),
            place: "tracer".into(),
            reason: "closed_rows".into(),
            count: 3,
            bytes: 1500,
            connections: 1,
            ..LossTotal::default()
        });
        assert_eq!(
            in_words(&completeness, &TimeZone::UTC),
            "incomplete: of the 5 min until 10:05:00 from 2 nodes (alpha, beta\\x1b), alpha was not watched for 12.3 s; \
             beta\\x1b is silent since 10:01:00; the source of beta\\x1b is missing (no socket); \
             the tracer of alpha lost 3 (closed rows, 1.50 kB of 1 connection); 1,200 more rows beyond the limit"
        );
    }

    #[test]
    fn old_history_says_its_steps_and_where_they_begin_and_end() {
        let mut completeness = five_minutes();
        completeness.resolution = Some(weir_wire::api::Resolution {
            seconds: 3600,
            from: "2026-01-31T09:00:00Z".into(),
            to: "2026-01-31T11:00:00Z".into(),
        });
        assert!(
            in_words(&completeness, &TimeZone::UTC)
                .ends_with("; old history in steps of 1 h, counted from 09:00:00 until 11:00:00"),
            "{}",
            in_words(&completeness, &TimeZone::UTC)
        );
    }

    #[test]
    fn a_series_says_its_steps_and_how_many_are_not_whole() {
        let mut completeness = five_minutes();
        let incomplete = vec!["2026-01-31T10:01:00Z".to_owned(), "2026-01-31T10:02:00Z".to_owned()];
        completeness.steps =
            Some(weir_wire::api::Steps { seconds: 60, incomplete, ..weir_wire::api::Steps::default() });
        let words = in_words(&completeness, &TimeZone::UTC);
        assert!(words.ends_with("; in steps of 1 min, something missing in 2 steps"), "{words}");
    }

    #[test]
    fn a_comparison_says_what_it_is_with_and_how_complete_that_is() {
        let mut completeness = five_minutes();
        completeness.before = Some(Box::new(Completeness {
            from: "2026-01-31T09:00:00Z".into(),
            to: "2026-01-31T09:05:00Z".into(),
            ..five_minutes()
        }));
        let words = in_words(&completeness, &TimeZone::UTC);
        assert!(
            words.ends_with("; compared with: complete: node alpha covered the 5 min until 09:05:00, nothing lost"),
            "{words}"
        );
    }

    #[test]
    fn no_node_is_not_complete() {
        let completeness = Completeness { nodes: Vec::new(), ..five_minutes() };
        assert_eq!(in_words(&completeness, &TimeZone::UTC), "incomplete: no node has reported in this span");
    }
}
