//! Which columns each kind of row has: in tables for people, in CSV every field.

mod connections;
mod edges;

use super::csv::Field;
use super::table::{Cell, Column};
use super::terminal::Paint;
use super::units;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use weir_wire::api::{DnsRow, EdgeEnd, MetadataRow, StatusRow, Steps};

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
    use weir_wire::api::{Change, ConnectionRow, Edge, Health, Transaction};

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
