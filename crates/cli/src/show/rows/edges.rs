//! Edges, what changed about them, and their series.

use super::{Row, Style, end_cell, end_fields};
use crate::show::csv::Field;
use crate::show::table::{Cell, Column};
use crate::show::terminal::Paint;
use crate::show::units;
use weir_wire::api::{Change, Edge, Health, Point, Series, Steps};

impl Row for Edge {
    const COLUMNS: &'static [Column] = &[
        Column::text("CLIENT", 7),
        Column::text("SERVER", 7),
        Column::number("PORT"),
        Column::number("SENT"),
        Column::number("RECV"),
        Column::number("CONNS").goes(2),
        Column::number("RETR").goes(4),
        Column::number("RTT").goes(5),
        Column::number("FAIL").goes(3),
        Column::text("SERVICE", 8).goes(7),
        Column::word("CERTAINTY").goes(6),
        Column::text("HEALTH", 48).goes(1),
    ];

    fn names() -> Vec<&'static str> {
        "client_kind client_namespace client_name client_node client_zone client_address client_workload client_certainty \
             server_kind server_namespace server_name server_node server_zone server_address server_workload server_certainty \
             service service_certainty service_candidates port protocol sent_bytes recv_bytes connections retransmits rtt_us failures certainty \
             health_verdict health_symptoms health_since health_past_from"
            .split(' ')
            .collect()
    }

    fn cells(&self, style: &Style) -> Vec<Cell> {
        let certainty = Cell::new(if self.certainty == "known" { "" } else { &self.certainty }).painted(Paint::Dim);
        vec![
            end_cell(&self.client),
            end_cell(&self.server),
            port(self),
            style.bytes(self.sent_bytes),
            style.bytes(self.recv_bytes),
            style.count(self.connections),
            style.faults(self.retransmits),
            Cell::new(self.rtt_us.map(units::micros).unwrap_or_default()),
            style.faults(self.failures),
            service(self),
            certainty,
            edge_health(self),
        ]
    }

    fn fields(&self) -> Vec<Field> {
        let mut fields: Vec<Field> = end_fields(&self.client).into_iter().chain(end_fields(&self.server)).collect();
        fields.extend([
            Field::from(&self.service),
            Field::from(&self.service_certainty),
            Field::Text(self.service_candidates.join(" ")),
            self.port.into(),
            Field::from(&self.protocol),
            self.sent_bytes.into(),
            self.recv_bytes.into(),
            self.connections.into(),
            self.retransmits.into(),
            Field::from(&self.rtt_us),
            self.failures.into(),
            Field::from(&self.certainty),
        ]);
        fields.extend(health_fields(self.health.as_ref()));
        fields
    }
}

/// The verdict, and the worst symptom's text; nothing where that was not asked for.
fn edge_health(edge: &Edge) -> Cell {
    let Some(told) = &edge.health else { return Cell::new("") };
    let paint = match told.verdict.as_str() {
        "healthy" => Paint::Good,
        "unknown" => Paint::Dim,
        _ => Paint::Bad,
    };
    let more = told.symptoms.len().saturating_sub(1);
    let text = match told.symptoms.first() {
        Some(worst) if more == 0 => format!("{}: {}", told.verdict, worst.text),
        Some(worst) => format!("{}: {}; and {more} more", told.verdict, worst.text),
        None => told.verdict.clone(),
    };
    Cell::new(text).painted(paint)
}

fn health_fields(told: Option<&Health>) -> [Field; 4] {
    let symptoms = told.into_iter().flat_map(|told| &told.symptoms);
    let texts: Vec<String> = symptoms.map(|symptom| format!("{}: {}", symptom.signal, symptom.text)).collect();
    [
        Field::from(&told.map(|told| told.verdict.clone())),
        Field::Text(texts.join("; ")),
        Field::from(&told.and_then(|told| told.since.clone())),
        Field::from(&told.and_then(|told| told.past_from.clone())),
    ]
}

/// An edge of a change: as it is, else as it was.
fn changed(change: &Change) -> Edge {
    change.after.as_ref().or(change.before.as_ref()).cloned().unwrap_or_default()
}

impl Row for Change {
    const COLUMNS: &'static [Column] = &[
        Column::word("CHANGE"),
        Column::text("CLIENT", 7),
        Column::text("SERVER", 7),
        Column::number("PORT").goes(2),
        Column::text("SERVICE", 8).goes(1),
        Column::text("WHAT", 44),
    ];

    fn names() -> Vec<&'static str> {
        "change text client_kind client_namespace client_name client_node client_zone client_address client_workload client_certainty \
             server_kind server_namespace server_name server_node server_zone server_address server_workload server_certainty \
             service port protocol before_sent_bytes before_recv_bytes before_connections before_failures \
             after_sent_bytes after_recv_bytes after_connections after_failures symptoms"
            .split_whitespace()
            .collect()
    }

    fn cells(&self, _style: &Style) -> Vec<Cell> {
        let edge = changed(self);
        let paint = match self.change.as_str() {
            "sicker" | "gone" => Paint::Bad,
            "better" => Paint::Good,
            _ => Paint::Warn,
        };
        vec![
            Cell::new(&self.change).painted(paint),
            end_cell(&edge.client),
            end_cell(&edge.server),
            port(&edge),
            service(&edge),
            Cell::new(&self.text),
        ]
    }

    fn fields(&self) -> Vec<Field> {
        let edge = changed(self);
        let mut fields = vec![Field::from(&self.change), Field::from(&self.text)];
        fields.extend(end_fields(&edge.client).into_iter().chain(end_fields(&edge.server)));
        fields.extend([Field::from(&edge.service), edge.port.into(), Field::from(&edge.protocol)]);
        for span in [&self.before, &self.after] {
            let of = |number: fn(&Edge) -> u64| Field::from(&span.as_ref().map(number));
            fields.extend([
                of(|edge| edge.sent_bytes),
                of(|edge| edge.recv_bytes),
                of(|edge| edge.connections),
                of(|edge| edge.failures),
            ]);
        }
        let symptoms = self.symptoms.iter().map(|symptom| format!("{}: {}", symptom.signal, symptom.text));
        fields.push(Field::Text(symptoms.collect::<Vec<_>>().join("; ")));
        fields
    }
}

/// Port and protocol; nothing where a row sums up several.
fn port(edge: &Edge) -> Cell {
    if edge.protocol.is_empty() { Cell::new("") } else { Cell::new(format!("{}/{}", edge.port, edge.protocol)) }
}

/// Columns of a graph at most: what a terminal of 120 columns has left.
const GRAPH_MAX: usize = 48;
/// A column's height by eighths of the largest.
const HEIGHTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Nothing is counted, and something is missing.
const GAP: char = '·';

/// Bytes by step, from nothing to the row's own largest.
fn graph(series: &Series, steps: &Steps) -> String {
    let starts = |at: &str| Some(units::between_ms(&steps.from, at)? / 1000 / steps.seconds.max(1));
    let count = starts(&steps.to).map_or(0, |count| count as usize);
    // Some steps a column where there are many.
    let each = count.div_ceil(GRAPH_MAX).max(1);
    let columns = count.div_ceil(each);
    let column = |at: &str| Some(starts(at)? as usize / each).filter(|column| *column < columns);
    let mut bytes = vec![0_u64; columns];
    for point in &series.points {
        if let Some(column) = column(&point.at) {
            let moved = point.sent_bytes.saturating_add(point.recv_bytes);
            bytes[column] = bytes[column].saturating_add(moved);
        }
    }
    let mut is_missing = vec![false; columns];
    for column in steps.incomplete.iter().filter_map(|at| column(at)) {
        is_missing[column] = true;
    }
    let largest = bytes.iter().copied().max().unwrap_or(0);
    let drawn = bytes.iter().zip(is_missing).map(|(bytes, is_missing)| match bytes {
        0 if is_missing => GAP,
        0 => HEIGHTS[0],
        // Up to the largest, so at most 8; whatever moved is seen.
        bytes => HEIGHTS[(u128::from(*bytes) * 8).div_ceil(u128::from(largest)) as usize],
    });
    drawn.collect()
}

impl Row for Series {
    const COLUMNS: &'static [Column] = &[
        Column::text("CLIENT", 7),
        Column::text("SERVER", 7),
        Column::number("PORT"),
        Column::number("SENT"),
        Column::number("RECV"),
        Column::number("PEAK").goes(1),
        Column::number("FAIL").goes(2),
        Column::word("BYTES BY STEP"),
    ];

    fn names() -> Vec<&'static str> {
        let ends = "client_kind client_namespace client_name client_node client_zone client_address client_workload client_certainty \
             server_kind server_namespace server_name server_node server_zone server_address server_workload server_certainty \
             service port protocol at sent_bytes recv_bytes opened retransmits failures rtt_us";
        ends.split_whitespace().collect()
    }

    fn cells(&self, style: &Style) -> Vec<Cell> {
        let edge = &self.edge;
        let peak = self.points.iter().map(|point| point.sent_bytes.saturating_add(point.recv_bytes)).max();
        vec![
            end_cell(&edge.client),
            end_cell(&edge.server),
            port(edge),
            style.bytes(edge.sent_bytes),
            style.bytes(edge.recv_bytes),
            style.bytes(peak.unwrap_or(0)),
            style.faults(edge.failures),
            Cell::new(style.steps.as_ref().map(|steps| graph(self, steps)).unwrap_or_default()),
        ]
    }

    fn fields(&self) -> Vec<Field> {
        self.lines().into_iter().next().unwrap_or_default()
    }

    fn lines(&self) -> Vec<Vec<Field>> {
        let edge = &self.edge;
        let line = |point: &Point| {
            let mut fields: Vec<Field> = end_fields(&edge.client).into_iter().chain(end_fields(&edge.server)).collect();
            fields.extend([
                Field::from(&edge.service),
                edge.port.into(),
                Field::from(&edge.protocol),
                Field::from(&point.at),
                point.sent_bytes.into(),
                point.recv_bytes.into(),
                point.opened.into(),
                point.retransmits.into(),
                point.failures.into(),
                Field::from(&point.rtt_us),
            ]);
            fields
        };
        self.points.iter().map(line).collect()
    }
}

/// The Service; those that it could be, dimmed.
fn service(edge: &Edge) -> Cell {
    match (edge.service.as_deref(), edge.service_certainty.as_deref()) {
        (Some(service), Some("known") | None) => Cell::new(service),
        (Some(service), Some(_)) => Cell::new(format!("{service}?")).painted(Paint::Dim),
        (None, _) if edge.service_candidates.is_empty() => Cell::new(""),
        (None, _) => Cell::new(format!("{}?", edge.service_candidates.join("|"))).painted(Paint::Dim),
    }
}
