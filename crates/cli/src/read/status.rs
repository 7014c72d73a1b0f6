//! `weir status`: the parts, the nodes' sources, every loss and counter, and the verdict.
//!
//! The verdict is unhealthy (exit code 3) when a part says so, a node is silent, or a node's source does not answer.
//! Degraded (a probe is missing, a node is late) counts as healthy and is told: numbers still come, and the answer says
//! what they lack.

use super::query::Query;
use super::{Question, ask, client, parse, print_item, print_json, table, tell};
use crate::args::{Output, ReadArgs, StatusArgs};
use crate::exit::{Failure, Verdict};
use crate::show::rows::{Row, Style, health};
use crate::show::table::{Cell, Column, Table};
use crate::show::terminal::{Paint, Surface};
use crate::show::{complete, csv, units};
use jiff::tz::TimeZone;
use serde_json::value::RawValue;
use std::io::Write;
use weir_wire::api::{Answer, NodeCoverage, StatusRow};

/// Counters of one part side by side, where the terminal has no width.
const PLAIN_WIDTH: usize = 120;

/// Asks, prints and judges.
///
/// # Errors
/// As [`super::run`].
pub async fn run(args: &StatusArgs) -> Result<Verdict, Failure> {
    let ReadArgs { server, print: how } = &args.read;
    let client = client(server)?;
    let body = ask(&client, &Question { command: "status", query: Query::new() }).await?;
    let answer: Answer<StatusRow> = parse(&body, &client)?;
    let surface = Surface::stdout(how.color);
    let zone = TimeZone::system();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match how.output {
        Output::Json => print_json(&body, &surface, &mut out)?,
        Output::Jsonl => {
            let raw: Answer<&RawValue> = parse(&body, &client)?;
            for item in raw.items {
                print_item(item, &surface, &mut out)?;
            }
        }
        Output::Csv => {
            out.write_all(csv::header(&StatusRow::names()).as_bytes())?;
            for row in &answer.items {
                out.write_all(csv::line(&row.fields()).as_bytes())?;
            }
        }
        Output::Table => {
            let style =
                Style { exact: how.exact, reference: answer.completeness.to.clone(), zone: zone.clone(), steps: None };
            out.write_all(text(&answer, &style, &surface).as_bytes())?;
        }
    }
    out.flush()?;
    if matches!(how.output, Output::Jsonl | Output::Csv) {
        tell(&answer.completeness, how, &zone);
    }
    Ok(verdict(&answer))
}

/// Whether something is unhealthy.
pub fn verdict(answer: &Answer<StatusRow>) -> Verdict {
    let part = answer.items.iter().any(|row| row.health == "unhealthy");
    let node = answer.completeness.nodes.iter().any(|node| node.state == "silent" || !source_answers(node));
    if part || node { Verdict::Unhealthy } else { Verdict::Done }
}

/// A source that is `starting` or tells nothing has not failed yet.
fn source_answers(node: &NodeCoverage) -> bool {
    matches!(node.source_state.as_str(), "" | "ok" | "degraded" | "starting")
}

fn text(answer: &Answer<StatusRow>, style: &Style, surface: &Surface) -> String {
    let mut text = table(&answer.items, style).render(surface);
    if !answer.completeness.nodes.is_empty() {
        text.push('\n');
        text.push_str(&nodes(&answer.completeness.nodes, style).render(surface));
    }
    for row in answer.items.iter().filter(|row| !row.counters.is_empty()) {
        text.push('\n');
        text.push_str(&counters(row, style, surface));
    }
    if !answer.completeness.losses.is_empty() {
        text.push('\n');
        for loss in &answer.completeness.losses {
            let paint = if loss.intended { Paint::Dim } else { Paint::Warn };
            let line = crate::show::text::escape(&complete::loss(loss)).into_owned();
            text.push_str(&surface.paint(paint, &line));
            text.push('\n');
        }
    }
    text.push('\n');
    text.push_str(&complete::painted(&answer.completeness, &style.zone, surface));
    text.push('\n');
    let (word, paint) = match verdict(answer) {
        Verdict::Unhealthy => ("unhealthy", Paint::Bad),
        _ if answer.items.iter().any(|row| row.health == "degraded") => {
            ("degraded: it works, with what the details say missing", Paint::Warn)
        }
        _ => ("healthy", Paint::Good),
    };
    text.push_str(&surface.paint(paint, word));
    text.push('\n');
    text
}

fn nodes(nodes: &[NodeCoverage], style: &Style) -> Table {
    let mut table = Table::new(&[
        Column::text("NODE", 8),
        Column::word("STATE"),
        Column::word("LAST SEEN").goes(2),
        Column::number("COVERED"),
        Column::number("MISSING"),
        Column::number("CLOCK").goes(1),
        Column::word("SOURCE"),
        Column::text("SOURCE SAYS", 12).goes(3),
    ]);
    for node in nodes {
        let missing = Cell::new(units::span_ms(node.missing_ms));
        table.push(vec![
            Cell::new(&node.node),
            health(&node.state),
            node.last_seen.as_deref().map_or_else(|| Cell::new(""), |seen| style.instant(seen)),
            Cell::new(units::span_ms(node.covered_ms)),
            if node.missing_ms == 0 { missing } else { missing.painted(Paint::Warn) },
            Cell::new(node.clock_offset_ms.map(|offset| format!("{offset:+} ms")).unwrap_or_default()),
            if node.source_state.is_empty() { Cell::new("unknown") } else { health(&node.source_state) },
            Cell::new(&node.source_detail),
        ]);
    }
    table.without_empty_columns()
}

/// A part's counters in as many columns as fit.
fn counters(row: &StatusRow, style: &Style, surface: &Surface) -> String {
    let title = crate::show::text::escape(&format!("{} {}", row.kind, row.name)).into_owned();
    let pairs: Vec<String> = row
        .counters
        .iter()
        .map(|(name, number)| {
            let name = crate::show::text::escape(name);
            let number = if style.exact { number.to_string() } else { units::count(*number) };
            format!("{name} {number}")
        })
        .collect();
    let cell = pairs.iter().map(String::len).max().unwrap_or(0) + 2;
    let per_line = (surface.width.unwrap_or(PLAIN_WIDTH).saturating_sub(2) / cell).max(1);
    let mut text = format!("{}\n", surface.paint(Paint::Bold, &title));
    for line in pairs.chunks(per_line) {
        let padded: Vec<String> = line.iter().map(|pair| format!("{pair:cell$}")).collect();
        text.extend(["  ", padded.concat().trim_end(), "\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_wire::api::Completeness;

    fn answer(health: &str, state: &str, source: &str) -> Answer<StatusRow> {
        Answer {
            items: vec![StatusRow { health: health.into(), ..StatusRow::default() }],
            completeness: Completeness {
                nodes: vec![NodeCoverage {
                    state: state.into(),
                    source_state: source.into(),
                    ..NodeCoverage::default()
                }],
                ..Completeness::default()
            },
        }
    }

    #[test]
    fn a_silent_node_or_a_missing_source_is_unhealthy_and_a_degraded_part_is_not() {
        for (health, state, source, expected) in [
            ("healthy", "reporting", "ok", Verdict::Done),
            ("degraded", "late", "degraded", Verdict::Done),
            ("unhealthy", "reporting", "ok", Verdict::Unhealthy),
            ("healthy", "silent", "ok", Verdict::Unhealthy),
            ("healthy", "reporting", "missing", Verdict::Unhealthy),
            ("healthy", "reporting", "timeout", Verdict::Unhealthy),
        ] {
            assert_eq!(verdict(&answer(health, state, source)), expected, "{health} {state} {source}");
        }
    }
}
