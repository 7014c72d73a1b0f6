//! History at one moment: the catalogue's list as it was when the view began, and a pin that keeps its files.

use super::catalogue::{self, Entry};
use super::pins::Pin;
use super::raw::RawRow;
use super::rolled::RolledRow;
use super::segment::SegmentKind;
use super::segment::{self, FileRow, file_name};
use super::{Embedded, totals};
use crate::error::StoreError;
use crate::history::{EdgeTotals, Grain, HistoryRow, HistoryView, Step};
use crate::report::Lsn;
use crate::rollup::{Resolution, RollupRow};
use std::path::PathBuf;
use weir_model::UnixNanos;

pub(super) struct View<'a> {
    store: &'a Embedded,
    entries: Vec<Entry>,
    _pin: Pin<'a>,
}

impl<'a> View<'a> {
    pub(super) fn begin(store: &'a Embedded, as_of: Lsn) -> Result<Self, StoreError> {
        let pin = store.pins.pin();
        let reader = store.reader()?;
        let entries = catalogue::entries(&reader, Some((Lsn(0), as_of)));
        store.give_back(reader);
        Ok(Self { store, entries: entries?, _pin: pin })
    }

    fn between(&self, since: UnixNanos, until: UnixNanos) -> impl Iterator<Item = (&Entry, PathBuf)> {
        let folder = self.store.folder.segments();
        self.entries
            .iter()
            .filter(move |entry| entry.newest >= since && entry.oldest < until)
            .map(move |entry| (entry, folder.join(file_name(entry.id, entry.kind))))
    }

    fn read<R: FileRow>(
        &self,
        rolled: bool,
        since: UnixNanos,
        until: UnixNanos,
        visit: &mut dyn FnMut(R),
    ) -> Result<(), StoreError> {
        for (_, path) in self.between(since, until).filter(|(entry, _)| (entry.kind.tier() > 0) == rolled) {
            segment::read(&path, since, until, visit)?;
        }
        Ok(())
    }
}

impl HistoryView for View<'_> {
    fn rows(
        &self,
        since: UnixNanos,
        until: UnixNanos,
        visit: &mut dyn FnMut(HistoryRow, Option<bool>),
    ) -> Result<(), StoreError> {
        self.read(false, since, until, &mut |raw: RawRow| visit(raw.row, raw.counted))
    }

    fn rollups(&self, since: UnixNanos, until: UnixNanos, visit: &mut dyn FnMut(RollupRow)) -> Result<(), StoreError> {
        self.read(true, since, until, &mut |rolled: RolledRow| visit(rolled.row))
    }

    fn unsettled(
        &self,
        since: UnixNanos,
        until: UnixNanos,
        visit: &mut dyn FnMut(HistoryRow),
    ) -> Result<(), StoreError> {
        for (_, path) in self.between(since, until).filter(|(entry, _)| entry.kind == SegmentKind::Received) {
            segment::read(&path, since, until, &mut |raw: RawRow| visit(raw.row))?;
        }
        Ok(())
    }

    fn grain(&self, since: UnixNanos, until: UnixNanos) -> Option<Grain> {
        let mut grain: Option<Grain> = None;
        for entry in &self.entries {
            let resolution = match entry.kind {
                SegmentKind::Received | SegmentKind::Settled => continue,
                SegmentKind::Minute => Resolution::Minute,
                SegmentKind::Hour => Resolution::Hour,
            };
            let held = |window: UnixNanos| (entry.oldest..=entry.newest).contains(&window);
            // A window that only its end reaches into the span is not of the span, and cuts it all the same.
            let end = entry.newest.0.saturating_add(resolution.nanos());
            if end <= since.0 || entry.oldest >= until {
                continue;
            }
            let next = grain.get_or_insert(Grain { resolution, from: since, to: until });
            next.resolution = next.resolution.max(resolution);
            let first = resolution.floor(since);
            if first != since && held(first) {
                next.from = next.from.max(first.plus(resolution.nanos()));
            }
            let last = resolution.floor(UnixNanos(until.0.saturating_sub(1)));
            if held(last) {
                next.to = next.to.max(last.plus(resolution.nanos()));
            }
        }
        grain
    }

    fn edge_totals(&self, since: UnixNanos, until: UnixNanos, step: Option<Step>) -> Result<EdgeTotals, StoreError> {
        let files: Vec<(&Entry, PathBuf)> = self.between(since, until).collect();
        let sums = totals::Totals::of(&files, since, until, step)?;
        let reader = self.store.reader()?;
        let named = sums.named(&self.store.edge_names, &reader);
        self.store.give_back(reader);
        named
    }
}
