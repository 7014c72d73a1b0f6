//! Which columns each kind of row has: in tables for people, in CSV every field.

use super::csv::Field;
use super::table::{Cell, Column};
use super::terminal::Paint;
use super::units;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use weir_wire::api::{
    Change, ConnectionRow, DnsRow, Edge, EdgeEnd, Health, MetadataRow, Point, Series, StatusRow, Steps, Transaction,
};

/// How numbers and times are written in a table.
#[derive(Clone, Debug)]
pub struct Style {
    /// Bytes as integers.
    pub exact: bool,
    /// The instant that times of day are near to, RFC 3339.
    pub reference: String,
    /// The zone of times.
    pub zone: TimeZone,
    /// The steps of a series.
    pub steps: Option<Steps>,
}

impl Style {
    /// Bytes.
    pub fn bytes(&self, bytes: u64) -> Cell {
        Cell::new(if self.exact { bytes.to_string() } else { units::bytes(bytes) })
    }

    /// A count.
    pub fn count(&self, number: u64) -> Cell {
        Cell::new(if self.exact { number.to_string() } else { units::count(number) })
    }

    /// A count of something bad.
    fn faults(&self, number: u64) -> Cell {
        let cell = self.count(number);
        if number == 0 { cell } else { cell.painted(Paint::Warn) }
    }

    /// An instant.
    pub fn instant(&self, instant: &str) -> Cell {
        Cell::new(units::instant(instant, &self.reference, &self.zone))
    }
}

/// A kind of row.
pub trait Row: serde::de::DeserializeOwned {
    /// The table's columns.
    const COLUMNS: &'static [Column];

    /// CSV's columns: the API's names, those of an edge's ends joined with `_`.
    fn names() -> Vec<&'static str>;

    /// A cell for each column.
    fn cells(&self, style: &Style) -> Vec<Cell>;

    /// A field for each of [`Row::names`].
    fn fields(&self) -> Vec<Field>;

    /// CSV's lines: one, but where a row has several of something.
    fn lines(&self) -> Vec<Vec<Field>> {
        vec![self.fields()]
    }
}

/// An end's name for people: `namespace/name`, the kind where the name alone would be nothing.
pub fn end_name(end: &EdgeEnd) -> String {
    let name = match (end.name.as_str(), end.address.as_deref()) {
        ("", Some(address)) => address,
        ("", None) => end.kind.as_str(),
        (name, _) => name,
    };
    match end.namespace.as_deref().filter(|namespace| *namespace != name) {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

fn end_cell(end: &EdgeEnd) -> Cell {
    let cell = Cell::new(end_name(end));
    if end.kind == "unknown" || end.is_other() { cell.painted(Paint::Dim) } else { cell }
}

/// An end's fields, in the order of its names.
fn end_fields(end: &EdgeEnd) -> [Field; 8] {
    [
        Field::from(&end.kind),
        Field::from(&end.namespace),
        Field::from(&end.name),
        Field::from(&end.node),
        Field::from(&end.zone),
        Field::from(&end.address),
        Field::from(&end.workload),
        Field::from(&end.certainty),
    ]
}

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

/// `name[pid]`, as much of it as is known.
fn process(row: &Transaction) -> String {
    match (row.process.as_deref().unwrap_or_default(), row.pid) {
        ("", 0) => String::new(),
        ("", pid) => format!("[{pid}]"),
        (name, 0) => name.to_owned(),
        (name, pid) => format!("{name}[{pid}]"),
    }
}

/// The TCP state, or why it ended.
fn state(row: &Transaction) -> Cell {
    match row.close_reason.as_deref() {
        None => Cell::new(&row.state),
        Some("closed" | "disconnected") => Cell::new("closed").painted(Paint::Dim),
        Some(reason) => Cell::new(reason).painted(Paint::Warn),
    }
}

fn socket_address(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

fn remote(row: &Transaction) -> Cell {
    if row.other_peer {
        return Cell::new("(other peers)");
    }
    Cell::new(socket_address(&row.dest, row.dest_port))
}

impl Row for Transaction {
    const COLUMNS: &'static [Column] = &[
        Column::text("KEY", 20),
        Column::word("PROTO"),
        Column::text("NODE", 6).goes(7),
        Column::word("DIRECTION").goes(4),
        Column::number("SENT"),
        Column::number("RECV"),
        Column::number("BEFORE").goes(3),
        Column::number("RETR").goes(5),
        Column::word("STATE").goes(1),
        Column::text("PROCESS", 8).goes(2),
        Column::word("FIRST SEEN").goes(8),
        Column::word("LAST SEEN").goes(6),
    ];

    fn names() -> Vec<&'static str> {
        "key protocol node boot_id instance generation source dest source_port dest_port direction \
             direction_certainty monotonic_sent_bytes monotonic_recv_bytes monotonic_retransmits \
             bytes_before sent_bytes_before recv_bytes_before state close_reason errno pid process \
             container_id cgroup_path net_ns rtt_us connect_latency_us first_seen last_seen paired \
             other_peer translated_source translated_dest translated_source_port translated_dest_port"
            .split(' ')
            .collect()
    }

    fn cells(&self, style: &Style) -> Vec<Cell> {
        vec![
            Cell::new(&self.key),
            Cell::new(&self.protocol),
            Cell::new(&self.node),
            Cell::new(&self.direction),
            style.bytes(self.monotonic_sent_bytes),
            style.bytes(self.monotonic_recv_bytes),
            style.bytes(self.bytes_before),
            style.faults(self.monotonic_retransmits),
            state(self),
            Cell::new(process(self)),
            style.instant(&self.first_seen),
            style.instant(&self.last_seen),
        ]
    }

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::from(&self.key),
            Field::from(&self.protocol),
            Field::from(&self.node),
            Field::from(&self.boot_id),
            Field::from(&self.instance),
            self.generation.into(),
            Field::from(&self.source),
            Field::from(&self.dest),
            self.source_port.into(),
            self.dest_port.into(),
            Field::from(&self.direction),
            Field::from(&self.direction_certainty),
            self.monotonic_sent_bytes.into(),
            self.monotonic_recv_bytes.into(),
            self.monotonic_retransmits.into(),
            self.bytes_before.into(),
            self.sent_bytes_before.into(),
            self.recv_bytes_before.into(),
            Field::from(&self.state),
            Field::from(&self.close_reason),
            Field::from(&self.errno),
            self.pid.into(),
            Field::from(&self.process),
            Field::from(&self.container_id),
            Field::from(&self.cgroup_path),
            self.net_ns.into(),
            Field::from(&self.rtt_us),
            Field::from(&self.connect_latency_us),
            Field::from(&self.first_seen),
            Field::from(&self.last_seen),
            self.paired.into(),
            self.other_peer.into(),
            Field::from(&self.translated_source),
            Field::from(&self.translated_dest),
            Field::from(&self.translated_source_port),
            Field::from(&self.translated_dest_port),
        ]
    }
}

impl Row for ConnectionRow {
    const COLUMNS: &'static [Column] = &[
        Column::word("PROTO"),
        Column::text("LOCAL", 15),
        Column::word("").goes(5),
        Column::text("REMOTE", 15),
        Column::number("SENT"),
        Column::number("RECV"),
        Column::number("RETR").goes(4),
        Column::number("RTT").goes(6),
        Column::word("STATE").goes(2),
        Column::text("PROCESS", 8).goes(1),
        Column::text("NODE", 6).goes(7),
        Column::word("LAST SEEN").goes(3),
    ];

    fn names() -> Vec<&'static str> {
        let mut names = Transaction::names();
        names.extend(["sent_bytes", "recv_bytes", "retransmits"]);
        names
    }

    fn cells(&self, style: &Style) -> Vec<Cell> {
        let row = &self.transaction;
        let arrow = match row.direction.as_str() {
            "outgoing" => "->",
            "incoming" => "<-",
            _ => "--",
        };
        vec![
            Cell::new(&row.protocol),
            Cell::new(socket_address(&row.source, row.source_port)),
            Cell::new(arrow),
            remote(row),
            style.bytes(self.sent_bytes),
            style.bytes(self.recv_bytes),
            style.faults(self.retransmits),
            Cell::new(row.rtt_us.map(|rtt| units::micros(rtt.into())).unwrap_or_default()),
            state(row),
            Cell::new(process(row)),
            Cell::new(&row.node),
            style.instant(&row.last_seen),
        ]
    }

    fn fields(&self) -> Vec<Field> {
        let mut fields = self.transaction.fields();
        fields.extend([self.sent_bytes.into(), self.recv_bytes.into(), self.retransmits.into()]);
        fields
    }
}

/// A map in one field: `key=value;key=value`, with `%`, `=` and `;` in either part percent-encoded.
fn map<V: ToString>(map: &BTreeMap<String, V>) -> Field {
    let encoded = |text: &str| text.replace('%', "%25").replace('=', "%3D").replace(';', "%3B");
    let pairs: Vec<String> =
        map.iter().map(|(key, value)| format!("{}={}", encoded(key), encoded(&value.to_string()))).collect();
    Field::Text(pairs.join(";"))
}

impl Row for MetadataRow {
    const COLUMNS: &'static [Column] = &[
        Column::word("KIND"),
        Column::text("NAME", 10),
        Column::text("NAMESPACE", 9).goes(1),
        Column::text("ADDRESSES", 15).goes(2),
        Column::text("ID", 8).goes(4),
        Column::text("PARENT", 8).goes(8),
        Column::word("SOURCE").goes(5),
        Column::text("NODE", 6).goes(6),
        Column::word("FROM").goes(3),
        Column::word("UNTIL").goes(7),
    ];

    fn names() -> Vec<&'static str> {
        "key kind source node id name namespace parent net_ns addresses valid_from valid_to attributes"
            .split(' ')
            .collect()
    }

    fn cells(&self, style: &Style) -> Vec<Cell> {
        vec![
            Cell::new(&self.kind),
            Cell::new(&self.name),
            Cell::new(self.namespace.as_deref().unwrap_or_default()),
            Cell::new(self.addresses.join(" ")),
            Cell::new(&self.id),
            Cell::new(self.parent.as_deref().unwrap_or_default()),
            Cell::new(&self.source),
            Cell::new(&self.node),
            style.instant(&self.valid_from),
            self.valid_to.as_deref().map_or_else(|| Cell::new(""), |to| style.instant(to)),
        ]
    }

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::from(&self.key),
            Field::from(&self.kind),
            Field::from(&self.source),
            Field::from(&self.node),
            Field::from(&self.id),
            Field::from(&self.name),
            Field::from(&self.namespace),
            Field::from(&self.parent),
            Field::from(&self.net_ns),
            Field::Text(self.addresses.join(" ")),
            Field::from(&self.valid_from),
            Field::from(&self.valid_to),
            map(&self.attributes),
        ]
    }
}

/// Outcomes other than `noerror`: `nxdomain 3, timeout 1`.
fn outcomes(row: &DnsRow) -> Cell {
    let bad = row.rcodes.iter().filter(|(rcode, _)| *rcode != "noerror");
    let words: Vec<String> = bad.map(|(rcode, count)| format!("{rcode} {count}")).collect();
    Cell::new(words.join(", ")).painted(Paint::Warn)
}

impl Row for DnsRow {
    const COLUMNS: &'static [Column] = &[
        Column::text("CLIENT", 7),
        Column::text("NAME", 12),
        Column::word("TYPE").goes(3),
        Column::number("QUERIES"),
        Column::number("FAIL"),
        Column::text("OUTCOMES", 8).goes(2),
        Column::number("LATENCY"),
        Column::number("MAX").goes(4),
        Column::number("AGAIN").goes(5),
        Column::number("CUT").goes(7),
        Column::text("SERVER", 7).goes(1),
        Column::text("ADDRESSES", 9).goes(6),
    ];

    fn names() -> Vec<&'static str> {
        "client_kind client_namespace client_name client_node client_zone client_address client_workload client_certainty \
             server_kind server_namespace server_name server_node server_zone server_address server_workload server_certainty name query_type queries failures \
             rcodes latency_us latency_max_us retransmits truncated addresses last_seen"
            .split(' ')
            .collect()
    }

    fn cells(&self, style: &Style) -> Vec<Cell> {
        let micros = |value: Option<u64>| Cell::new(value.map(units::micros).unwrap_or_default());
        let name = if self.name.is_empty() { "(other names)" } else { &self.name };
        vec![
            end_cell(&self.client),
            Cell::new(name),
            Cell::new(&self.query_type),
            style.count(self.queries),
            style.faults(self.failures),
            outcomes(self),
            micros(self.latency_us),
            micros(self.latency_max_us),
            style.faults(self.retransmits),
            style.faults(self.truncated),
            end_cell(&self.server),
            Cell::new(self.addresses.join(" ")),
        ]
    }

    fn fields(&self) -> Vec<Field> {
        let mut fields: Vec<Field> = end_fields(&self.client).into_iter().chain(end_fields(&self.server)).collect();
        fields.extend([
            Field::from(&self.name),
            Field::from(&self.query_type),
            self.queries.into(),
            self.failures.into(),
            map(&self.rcodes),
            Field::from(&self.latency_us),
            Field::from(&self.latency_max_us),
            self.retransmits.into(),
            self.truncated.into(),
            Field::Text(self.addresses.join(" ")),
            Field::from(&self.last_seen),
        ]);
        fields
    }
}

/// A state's colour.
pub fn health(word: &str) -> Cell {
    Cell::new(word).painted(match word {
        "healthy" | "ok" | "reporting" => Paint::Good,
        "degraded" | "late" => Paint::Warn,
        _ => Paint::Bad,
    })
}

impl Row for StatusRow {
    const COLUMNS: &'static [Column] = &[
        Column::word("PART"),
        Column::text("NAME", 8),
        Column::word("HEALTH"),
        Column::word("VERSION").goes(1),
        Column::word("LAST SEEN").goes(2),
        Column::text("DETAIL", 20),
    ];

    fn names() -> Vec<&'static str> {
        "kind name health detail version last_seen counters".split(' ').collect()
    }

    fn cells(&self, style: &Style) -> Vec<Cell> {
        vec![
            Cell::new(&self.kind),
            Cell::new(&self.name),
            health(&self.health),
            Cell::new(&self.version),
            self.last_seen.as_deref().map_or_else(|| Cell::new(""), |seen| style.instant(seen)),
            Cell::new(&self.detail),
        ]
    }

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::from(&self.kind),
            Field::from(&self.name),
            Field::from(&self.health),
            Field::from(&self.detail),
            Field::from(&self.version),
            Field::from(&self.last_seen),
            map(&self.counters),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The JSON names of a row, nested ones joined by `_`, sorted.
    fn names(row: &impl serde::Serialize) -> Vec<String> {
        let serde_json::Value::Object(object) = serde_json::to_value(row).unwrap() else { panic!("no object") };
        let mut names = Vec::new();
        for (name, value) in object {
            match value {
                serde_json::Value::Object(inner) if matches!(name.as_str(), "client" | "server" | "health") => {
                    names.extend(inner.keys().map(|key| format!("{name}_{key}")));
                }
                _ => names.push(name),
            }
        }
        names.sort();
        names
    }

    fn holds<R: Row + serde::Serialize + Default>() {
        holds_of(&R::default());
    }

    fn holds_of<R: Row + serde::Serialize>(row: &R) {
        let mut fields: Vec<String> = R::names().iter().map(ToString::to_string).collect();
        assert_eq!(row.fields().len(), fields.len());
        let style = Style { exact: false, reference: String::new(), zone: TimeZone::UTC, steps: None };
        assert_eq!(row.cells(&style).len(), R::COLUMNS.len());
        fields.sort();
        assert_eq!(fields, names(row));
    }

    #[test]
    fn csv_has_every_field_of_the_api() {
        holds_of(&Edge { health: Some(Health::default()), ..Edge::default() });
        holds::<Transaction>();
        holds::<ConnectionRow>();
        holds::<MetadataRow>();
        holds::<DnsRow>();
        holds::<StatusRow>();
    }

    #[test]
    fn a_change_has_a_field_for_each_column_whichever_span_it_lacks() {
        let style = Style { exact: false, reference: String::new(), zone: TimeZone::UTC, steps: None };
        for (before, after) in [(None, Some(Edge::default())), (Some(Edge::default()), None), (None, None)] {
            let change = Change { before, after, ..Change::default() };
            assert_eq!(change.fields().len(), Change::names().len());
            assert_eq!(change.cells(&style).len(), Change::COLUMNS.len());
        }
    }

    #[test]
    fn a_map_in_one_field_can_be_taken_apart_again() {
        let labels = BTreeMap::from([("a=b".to_owned(), "1;2%".to_owned())]);
        assert_eq!(map(&labels), Field::Text("a%3Db=1%3B2%25".into()));
    }
}
