//! Shards as this process knows them, and what has to be written so that rows are merged or gone. Pure.
//!
//! A group is one kind of rows of one node, in [`SHARDS_MAX`] ConfigMaps at most. A row that is there already stays where
//! it is, a new one goes where there is room. Of a shard that has become too large rows move: they are written to another
//! one first, and taken from this one after, so that a reader meets a row twice rather than not at all, and merges.

use super::keys::{Change, GroupKey, key_of, kind, object_name, word};
use crate::error::StoreError;
use crate::shared::rows::FORMAT;
use crate::shared::{Kind, Value};
use std::collections::{BTreeMap, BTreeSet};
use weir_discovery::kubernetes::config_maps::ConfigMap;

/// Shards of one kind of one node.
pub(super) const SHARDS_MAX: u32 = 8;

/// The annotation with the rows' format.
pub(super) const FORMAT_KEY: &str = "weir/format";
const KIND_KEY: &str = "weir/kind";
const NODE_KEY: &str = "weir/node";
const SHARD_KEY: &str = "weir/shard";
/// The annotation with the number of the owner that wrote it last.
pub(super) const OWNER_KEY: &str = "weir/owner";

/// A ConfigMap as it was read or written last.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    pub(super) map: ConfigMap,
    bytes: usize,
    /// Created by this process, and nothing written to it yet: see `owner`.
    pub(super) is_new: bool,
}

/// The shards of a group by their number.
pub(super) type Group = BTreeMap<u32, Shard>;

/// What a row takes: its key is also in the list of managed fields that the API server keeps beside it.
pub(super) fn row_bytes(key: &str, text: &str) -> usize {
    2 * key.len() + text.len()
}

impl Shard {
    pub(super) fn new(map: ConfigMap, is_new: bool) -> Self {
        let bytes = map.data.iter().map(|(key, text)| row_bytes(key, text)).sum();
        Self { map, bytes, is_new }
    }
}

/// All rows of a group.
pub(super) fn bytes_of(group: &Group) -> usize {
    group.values().map(|shard| shard.bytes).sum()
}

/// An empty shard, not created yet.
pub(super) fn empty(
    prefix: &str,
    key: &GroupKey,
    number: u32,
    labels: &BTreeMap<String, String>,
    owner: &str,
) -> ConfigMap {
    let annotations = [
        (FORMAT_KEY, FORMAT.to_string()),
        (KIND_KEY, word(key.0).to_owned()),
        (NODE_KEY, key.1.clone()),
        (SHARD_KEY, number.to_string()),
        (OWNER_KEY, owner.to_owned()),
    ];
    ConfigMap {
        name: object_name(prefix, key, number),
        labels: labels.clone(),
        annotations: annotations.map(|(key, value)| (key.to_owned(), value)).into(),
        ..ConfigMap::default()
    }
}

/// Refuses what a newer build wrote.
///
/// # Errors
/// [`StoreError::TooNew`].
pub(super) fn format_of(map: &ConfigMap) -> Result<(), StoreError> {
    match map.annotations.get(FORMAT_KEY) {
        Some(found) if *found != FORMAT.to_string() => {
            Err(StoreError::TooNew { path: map.name.clone().into(), found: found.clone(), known: FORMAT })
        }
        _ => Ok(()),
    }
}

/// Which shard of which group a ConfigMap is.
///
/// # Errors
/// [`StoreError::TooNew`], or why it is none, and what to do.
pub(super) fn place_of(prefix: &str, map: &ConfigMap) -> Result<(GroupKey, u32), StoreError> {
    format_of(map)?;
    let said = |key: &str| map.annotations.get(key).map(String::as_str);
    let place =
        said(KIND_KEY).and_then(kind).zip(said(NODE_KEY)).zip(said(SHARD_KEY).and_then(|text| text.parse().ok()));
    let place = place.map(|((kind, node), shard)| ((kind, node.to_owned()), shard));
    place.filter(|(key, shard)| object_name(prefix, key, *shard) == map.name).ok_or_else(|| {
        wrong(map, "it is not what its annotations say, or has none of weir's; delete it, or give weir another prefix")
    })
}

fn wrong(map: &ConfigMap, text: impl Into<String>) -> StoreError {
    StoreError::Remote { action: "read", place: format!("ConfigMap {}", map.name), text: text.into() }
}

/// The values of a shard.
///
/// # Errors
/// Which one is no row, and what to do.
pub(super) fn values(kind: Kind, map: &ConfigMap) -> impl Iterator<Item = Result<(&str, Value), StoreError>> {
    map.data.iter().map(move |(key, text)| {
        let value = Value::decode(kind, text.as_bytes()).map_err(|error| {
            let why = match error {
                StoreError::Corrupt { text, .. } => text,
                other => other.to_string(),
            };
            wrong(map, format!("key {key}: {why}; delete that key"))
        })?;
        match key_of(&value).filter(|expected| expected != key) {
            Some(expected) => {
                Err(wrong(map, format!("key {key}: its value belongs under {expected}; delete that key")))
            }
            None => Ok((key.as_str(), value)),
        }
    })
}

/// What is written to one shard at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) shard: u32,
    pub(super) puts: BTreeMap<String, String>,
    pub(super) gone: BTreeSet<String>,
}

impl Step {
    /// What the shard has after it.
    pub(super) fn data(&self, map: &ConfigMap) -> BTreeMap<String, String> {
        let mut data = map.data.clone();
        data.retain(|key, _| !self.gone.contains(key));
        data.extend(self.puts.clone());
        data
    }
}

/// What is to be written, in this order.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// Rows that move from one shard to another.
    pub(super) moved: u64,
}

/// How much room there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Up to so many bytes a shard takes new rows; beyond a fifth more rows move.
    pub(super) shard: usize,
    /// So many the group may have.
    pub(super) group: usize,
}

/// Why there is no plan.
#[derive(Debug)]
pub(super) enum NoPlan {
    /// All ConfigMaps of this node are full.
    NodeFull,
    /// All of them together would be larger than they may.
    Full,
    /// A row cannot be read or written.
    Broken(StoreError),
}

struct Draft<'a> {
    shard: Option<&'a Shard>,
    puts: BTreeMap<String, String>,
    gone: BTreeSet<String>,
    moved: BTreeSet<String>,
    bytes: usize,
}

impl<'a> Draft<'a> {
    fn of(shard: Option<&'a Shard>) -> Self {
        let bytes = shard.map_or(0, |shard| shard.bytes);
        Self { shard, puts: BTreeMap::new(), gone: BTreeSet::new(), moved: BTreeSet::new(), bytes }
    }

    fn stored(&self, key: &str) -> Option<&'a String> {
        self.shard.and_then(|shard| shard.map.data.get(key))
    }

    fn get(&self, key: &str) -> Option<&str> {
        if let Some(text) = self.puts.get(key) {
            return Some(text);
        }
        let is_there = !self.gone.contains(key) && !self.moved.contains(key);
        self.stored(key).filter(|_| is_there).map(String::as_str)
    }

    fn put(&mut self, key: &str, text: String) {
        self.bytes -= self.get(key).map_or(0, |text| row_bytes(key, text));
        self.bytes += row_bytes(key, &text);
        self.moved.remove(key);
        if self.stored(key) == Some(&text) {
            self.puts.remove(key);
        } else {
            self.puts.insert(key.to_owned(), text);
        }
    }

    /// Takes a row off, and says what it was.
    fn take(&mut self, key: &str) -> Option<String> {
        let text = self.get(key)?.to_owned();
        self.bytes -= row_bytes(key, &text);
        self.puts.remove(key);
        Some(text)
    }

    fn forget(&mut self, key: &str) {
        if self.take(key).is_some() && self.stored(key).is_some() {
            self.gone.insert(key.to_owned());
        }
    }

    fn move_out(&mut self, key: &str) -> Option<String> {
        let text = self.take(key)?;
        if self.stored(key).is_some() {
            self.moved.insert(key.to_owned());
        }
        Some(text)
    }

    fn keys(&self) -> BTreeSet<String> {
        let stored = self.shard.into_iter().flat_map(|shard| shard.map.data.keys());
        stored.chain(self.puts.keys()).filter(|key| self.get(key).is_some()).cloned().collect()
    }
}

/// What has to be written so that `group` is as `change` wants it; nothing where it is already.
///
/// # Errors
/// [`NoPlan`].
pub(super) fn plan(kind: Kind, group: &Group, change: &Change, room: Room) -> Result<Plan, NoPlan> {
    let before = bytes_of(group);
    let mut drafts: BTreeMap<u32, Draft<'_>> =
        group.iter().map(|(number, shard)| (*number, Draft::of(Some(shard)))).collect();
    for key in &change.gone {
        for draft in drafts.values_mut() {
            draft.forget(key);
        }
    }
    let mut homeless: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in change.puts.iter().filter(|(key, _)| !change.gone.contains(*key)) {
        let mut merged = value.clone();
        let mut home = None;
        for (number, draft) in &drafts {
            if let Some(text) = draft.get(key) {
                merged = merged.merge(Value::decode(kind, text.as_bytes()).map_err(NoPlan::Broken)?);
                home.get_or_insert(*number);
            }
        }
        let text = merged.encode().map_err(NoPlan::Broken)?;
        let text = String::from_utf8(text).map_err(|error| {
            NoPlan::Broken(StoreError::Corrupt { what: "a row of the shared state", text: error.to_string() })
        })?;
        if home.is_none() {
            homeless.insert(key.clone(), text);
            continue;
        }
        for (number, draft) in &mut drafts {
            if home == Some(*number) {
                draft.put(key, text.clone());
            } else {
                draft.move_out(key);
            }
        }
    }
    let mut moved = 0;
    for draft in drafts.values_mut().filter(|draft| draft.bytes > room.shard + room.shard / 5) {
        for key in draft.keys().into_iter().rev() {
            if draft.bytes <= room.shard {
                break;
            }
            moved += 1;
            homeless.extend(draft.move_out(&key).map(|text| (key, text)));
        }
    }
    for (key, text) in homeless {
        let takes = |draft: &Draft<'_>| draft.bytes + row_bytes(&key, &text) <= room.shard;
        let home = match drafts.iter().find(|(_, draft)| takes(draft)) {
            Some((number, _)) => *number,
            None => (0..SHARDS_MAX).find(|number| !drafts.contains_key(number)).ok_or(NoPlan::NodeFull)?,
        };
        drafts.entry(home).or_insert_with(|| Draft::of(None)).put(&key, text);
    }
    let after: usize = drafts.values().map(|draft| draft.bytes).sum();
    if after > before && after > room.group {
        return Err(NoPlan::Full);
    }
    let mut steps: Vec<Step> = Vec::new();
    let mut last: Vec<Step> = Vec::new();
    for (shard, draft) in drafts {
        if !draft.puts.is_empty() || !draft.gone.is_empty() {
            steps.push(Step { shard, puts: draft.puts, gone: draft.gone });
        }
        if !draft.moved.is_empty() {
            last.push(Step { shard, puts: BTreeMap::new(), gone: draft.moved });
        }
    }
    steps.append(&mut last);
    Ok(Plan { steps, moved })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    fn name(number: u64) -> String {
        format!("n{number:03}")
    }

    /// A shard of counters: the simplest rows that merge.
    fn shard(rows: &[(u64, u64)]) -> Shard {
        let data = rows.iter().map(|(key, value)| (name(*key), value.to_string())).collect();
        Shard::new(ConfigMap { data, ..ConfigMap::default() }, false)
    }

    fn group(shards: &[&[(u64, u64)]]) -> Group {
        (0..).zip(shards.iter().map(|rows| shard(rows))).collect()
    }

    fn change(puts: &[(u64, u64)], gone: &[u64]) -> Change {
        Change {
            puts: puts.iter().map(|(key, value)| (name(*key), Value::Counter(*value))).collect(),
            gone: gone.iter().map(|key| name(*key)).collect(),
        }
    }

    /// Each row has 9 bytes while it has one digit.
    const ROOM: Room = Room { shard: 50, group: 1_000 };

    fn planned(group: &Group, change: &Change) -> Plan {
        plan(Kind::Counters, group, change, ROOM).unwrap()
    }

    /// `shard: key=value ... -key ...`, a line a step.
    fn shown(plan: &Plan) -> String {
        plan.steps.iter().fold(String::new(), |mut text, step| {
            let _ = write!(text, "{}:", step.shard);
            for (key, value) in &step.puts {
                write!(text, " {key}={value}").unwrap();
            }
            for key in &step.gone {
                write!(text, " -{key}").unwrap();
            }
            text + "\n"
        })
    }

    fn applied(group: &Group, steps: &[Step]) -> Group {
        let mut group = group.clone();
        for step in steps {
            let shard = group.entry(step.shard).or_insert_with(|| Shard::new(ConfigMap::default(), true));
            let data = step.data(&shard.map);
            *shard = Shard::new(ConfigMap { data, ..ConfigMap::default() }, false);
        }
        group
    }

    /// What a reader who merges sees.
    fn read(group: &Group) -> BTreeMap<String, u64> {
        let mut rows = BTreeMap::new();
        for (key, text) in group.values().flat_map(|shard| &shard.map.data) {
            let value: u64 = text.parse().unwrap();
            let row = rows.entry(key.clone()).or_insert(value);
            *row = value.max(*row);
        }
        rows
    }

    #[test]
    fn rows_stay_where_they_are_and_new_ones_go_where_there_is_room() {
        let group = group(&[&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)], &[(6, 1)]]);
        let plan = planned(&group, &change(&[(1, 5), (2, 1), (7, 1), (6, 0)], &[5, 9]));
        assert_eq!(shown(&plan), "0: n001=5 n007=1 -n005\n");
        assert_eq!(shown(&planned(&group, &change(&[(7, 1), (8, 1)], &[]))), "1: n007=1 n008=1\n");
        assert_eq!(shown(&planned(&group, &change(&[(1, 1)], &[]))), "", "what is there is not written again");
    }

    #[test]
    fn where_there_is_no_room_a_new_shard_is_made_until_there_may_be_no_more() {
        let rows: Vec<(u64, u64)> = (0..5).map(|key| (key, 1)).collect();
        let mut full = group(&[&rows]);
        let plan_of = |group: &Group, room| plan(Kind::Counters, group, &change(&[(90, 1)], &[]), room);
        assert_eq!(shown(&plan_of(&full, ROOM).unwrap()), "1: n090=1\n");
        for number in 0..u64::from(SHARDS_MAX) {
            let rows: Vec<(u64, u64)> = (0..5).map(|key| (10 * number + key, 1)).collect();
            full.insert(number as u32, shard(&rows));
        }
        assert!(matches!(plan_of(&full, ROOM), Err(NoPlan::NodeFull)));
        let room = Room { group: bytes_of(&full), shard: 60 };
        assert!(matches!(plan_of(&full, room), Err(NoPlan::Full)));
        // What leaves is always taken, whatever there is.
        let leaves = plan(Kind::Counters, &full, &change(&[], &[1]), Room { group: 1, ..room }).unwrap();
        assert_eq!(shown(&leaves), "0: -n001\n");
    }

    #[test]
    fn of_a_shard_that_became_too_large_rows_are_written_elsewhere_before_they_are_taken_from_it() {
        let long = 10_u64.pow(9);
        let group = group(&[&[(1, long), (2, 1), (3, long), (4, 1)], &[(5, 1)]]);
        // Each of 2 and 4 takes nine bytes more.
        let plan = planned(&group, &change(&[(2, long), (4, long)], &[]));
        assert_eq!(shown(&plan), format!("0: n002={long}\n1: n003={long} n004={long}\n0: -n003 -n004\n"));
        assert_eq!(plan.moved, 2);
        let expected = read(&applied(&group, &plan.steps));
        for stopped in 0..=plan.steps.len() {
            let seen = read(&applied(&group, &plan.steps[..stopped]));
            assert_eq!(seen.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{stopped} steps");
        }
    }

    #[test]
    fn a_row_that_a_crash_left_twice_is_merged_and_left_once() {
        let group = group(&[&[(1, 7), (2, 1)], &[(1, 9)]]);
        let plan = planned(&group, &change(&[(1, 8)], &[]));
        assert_eq!(shown(&plan), "0: n001=9\n1: -n001\n");
        assert_eq!(shown(&planned(&group, &change(&[], &[1]))), "0: -n001\n1: -n001\n");
    }
}
