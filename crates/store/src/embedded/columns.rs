//! Columns of a segment's file: texts, times and numbers of many rows, built from rows and read back by name.

use arrow_array::builder::{
    BooleanBuilder, StringDictionaryBuilder, TimestampNanosecondBuilder, UInt16Builder, UInt32Builder, UInt64Builder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, PrimitiveArray, RecordBatch};
use std::sync::Arc;
use weir_model::{Endpoint, Side, UnixNanos};

pub(super) fn time<T>(rows: &[T], pick: impl Fn(&T) -> Option<UnixNanos>) -> ArrayRef {
    let mut builder = TimestampNanosecondBuilder::with_capacity(rows.len()).with_timezone("UTC");
    for row in rows {
        builder.append_option(pick(row).map(|at| at.0));
    }
    Arc::new(builder.finish())
}

/// Dictionary-encoded.
pub(super) fn text<T, S: AsRef<str>>(rows: &[T], pick: impl for<'a> Fn(&'a T) -> S) -> ArrayRef {
    let mut builder = StringDictionaryBuilder::<Int32Type>::new();
    for row in rows {
        builder.append_value(pick(row));
    }
    Arc::new(builder.finish())
}

/// Dictionary-encoded, of texts that the rows hold themselves.
pub(super) fn shared<T>(rows: &[T], pick: impl for<'a> Fn(&'a T) -> &'a str) -> ArrayRef {
    let mut builder = StringDictionaryBuilder::<Int32Type>::new();
    for row in rows {
        builder.append_value(pick(row));
    }
    Arc::new(builder.finish())
}

pub(super) fn number<T>(rows: &[T], pick: impl Fn(&T) -> u64) -> ArrayRef {
    let mut builder = UInt64Builder::with_capacity(rows.len());
    for row in rows {
        builder.append_value(pick(row));
    }
    Arc::new(builder.finish())
}

pub(super) fn small<T>(rows: &[T], pick: impl Fn(&T) -> Option<u32>) -> ArrayRef {
    let mut builder = UInt32Builder::with_capacity(rows.len());
    for row in rows {
        builder.append_option(pick(row));
    }
    Arc::new(builder.finish())
}

pub(super) fn port<T>(rows: &[T], pick: impl Fn(&T) -> u16) -> ArrayRef {
    let mut builder = UInt16Builder::with_capacity(rows.len());
    for row in rows {
        builder.append_value(pick(row));
    }
    Arc::new(builder.finish())
}

pub(super) fn flag<T>(rows: &[T], pick: impl Fn(&T) -> Option<bool>) -> ArrayRef {
    let mut builder = BooleanBuilder::with_capacity(rows.len());
    for row in rows {
        builder.append_option(pick(row));
    }
    Arc::new(builder.finish())
}

pub(super) fn view_name(view: Option<Side>) -> &'static str {
    view.map_or("unknown", Side::as_str)
}

/// Also a text that no build writes is a role that is not known.
pub(super) fn view_of(text: &str) -> Option<Side> {
    match text {
        "client" => Some(Side::Client),
        "server" => Some(Side::Server),
        _ => None,
    }
}

/// A text column with its values already turned into `T`, so that a text is read once a batch, not once a row.
pub(super) struct Column<'a, T> {
    keys: &'a PrimitiveArray<Int32Type>,
    values: Vec<T>,
    /// Of a row without a value.
    empty: Option<T>,
}

impl<'a, T: Clone> Column<'a, T> {
    pub(super) fn of(batch: &'a RecordBatch, name: &str, read: impl Fn(&str) -> Option<T>) -> Option<Self> {
        let texts = batch.column_by_name(name)?.as_dictionary_opt::<Int32Type>()?;
        let values = texts.values().as_string_opt::<i32>()?;
        let values = values.iter().map(|text| read(text.unwrap_or_default())).collect::<Option<Vec<T>>>()?;
        Some(Self { keys: texts.keys(), values, empty: read("") })
    }

    pub(super) fn get(&self, row: usize) -> Option<T> {
        if self.keys.is_null(row) {
            return self.empty.clone();
        }
        self.values.get(usize::try_from(self.keys.value(row)).ok()?).cloned()
    }
}

/// The three columns of an end's name.
pub(super) struct Ends<'a> {
    columns: [Column<'a, Arc<str>>; 3],
    /// Rows are sorted by edge: the ends of a row are mostly those of the row before.
    last: Arc<Endpoint>,
}

impl<'a> Ends<'a> {
    pub(super) fn of(batch: &'a RecordBatch, names: [&str; 3]) -> Option<Self> {
        let [kind, namespace, name] = names.map(|name| shared_column(batch, name));
        Some(Self { columns: [kind?, namespace?, name?], last: Arc::default() })
    }

    pub(super) fn get(&mut self, row: usize) -> Option<Arc<Endpoint>> {
        let [kind, namespace, name] = [self.columns[0].get(row)?, self.columns[1].get(row)?, self.columns[2].get(row)?];
        if self.last.kind != *kind || self.last.namespace != *namespace || self.last.name != *name {
            self.last =
                Arc::new(Endpoint { kind: kind.to_string(), namespace: namespace.to_string(), name: name.to_string() });
        }
        Some(Arc::clone(&self.last))
    }
}

pub(super) const CLIENT: [&str; 3] = ["client_kind", "client_namespace", "client_name"];
pub(super) const SERVER: [&str; 3] = ["server_kind", "server_namespace", "server_name"];

pub(super) fn shared_column<'a>(batch: &'a RecordBatch, name: &str) -> Option<Column<'a, Arc<str>>> {
    Column::of(batch, name, |text| Some(Arc::from(text)))
}

pub(super) fn address_column<'a>(batch: &'a RecordBatch, name: &str) -> Option<Column<'a, std::net::IpAddr>> {
    Column::of(batch, name, |text| text.parse().ok())
}
