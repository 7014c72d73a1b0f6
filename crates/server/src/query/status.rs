//! How the parts do: the server, its store, and each node with its agent and source.

use super::params::{Asked, Question, parse};
use super::{Sources, completeness, rfc3339};
use std::collections::BTreeMap;
use std::sync::PoisonError;
use weir_inventory::Inventory;
use weir_inventory::inventory::Disagreement;
use weir_model::UnixNanos;
use weir_store::{HistoryStore as _, StoreError, StreamSummary};
use weir_wire::api::{Answer, StatusRow};

/// A clock that is further off than this makes a node's newest rows fall into another window.
const OFFSET_NS_MAX: i64 = 5_000_000_000;

/// Disagreements that are told in words; all are counted.
const EXAMPLES: usize = 3;

/// Answers `/api/v1/status`.
pub(crate) fn answer(sources: &Sources) -> Result<Answer<StatusRow>, StoreError> {
    let now = sources.clock.wall();
    let (view, pending) = sources.live.read(&*sources.store)?;
    let mut store_counters = view.counters()?;
    let history = sources.store.summary()?;
    let (log_bytes, log_next) = {
        let log = sources.log.lock().unwrap_or_else(PoisonError::into_inner);
        (log.bytes(), log.next())
    };
    for (tier, name) in history.tiers.iter().zip(["10s", "1m", "1h"]) {
        store_counters.extend([
            (format!("segments_{name}"), tier.segments),
            (format!("history_rows_{name}"), tier.rows),
            (format!("segment_bytes_{name}"), tier.bytes),
        ]);
    }
    store_counters.extend([
        ("log_bytes".to_owned(), log_bytes),
        ("log_entries".to_owned(), log_next.0 - 1),
        ("watermark".to_owned(), history.watermark.0),
        ("segments".to_owned(), history.segments),
        ("segment_bytes".to_owned(), history.bytes),
        ("history_rows".to_owned(), history.rows),
        ("pending_rows".to_owned(), pending.rows as u64),
    ]);
    if let Some(shared) = sources.shared.as_ref().and_then(std::sync::Weak::upgrade) {
        store_counters.extend(shared.counts());
    }
    let mut server_counters = sources.counts.all();
    server_counters.insert("agents_connected".to_owned(), sources.streams.held() as u64);
    let mut items = vec![
        StatusRow {
            kind: "server".into(),
            name: "server".into(),
            health: "healthy".into(),
            detail: String::new(),
            version: env!("CARGO_PKG_VERSION").into(),
            last_seen: Some(rfc3339(now)),
            counters: server_counters,
        },
        store_row(&store_counters, &sources.counts.all(), now),
        inventory_row(&sources.names.read(), now),
    ];
    items.extend(sources.cluster.rows());
    let streams = view.streams()?;
    let mut nodes: BTreeMap<&str, Vec<&StreamSummary>> = BTreeMap::new();
    for stream in &streams {
        nodes.entry(&stream.node.0).or_default().push(stream);
    }
    for (node, streams) in nodes {
        items.extend(node_row(node, &streams, now));
        items.extend(metadata_rows(node, &streams));
    }
    let question = everything(now);
    let completeness = completeness::of(&*view, &question, now, Vec::new())?;
    Ok(Answer { items, completeness })
}

/// The last five minutes, as edges have them: what the status says of losses should be of now.
fn everything(now: UnixNanos) -> Question {
    parse(Asked::Edges, &[], now).unwrap_or_else(|_| unreachable!("no parameter is wrong"))
}

/// Who is who. Sources that disagree are told, but nothing is wrong with weir for that: the better one stands.
fn inventory_row(inventory: &Inventory, now: UnixNanos) -> StatusRow {
    let refused = inventory.refused();
    let (disagreements, examples) = inventory.disagreements(EXAMPLES);
    let mut wrong = Vec::new();
    if inventory.is_full() {
        wrong.push(
            "it is full: what is new stays unnamed; collect fewer attributes, or run fewer nodes on one server".into(),
        );
    }
    if disagreements > 0 {
        let some: Vec<String> = examples.iter().map(disagreement).collect();
        wrong.push(format!("sources disagree {disagreements} times, the first named stands: {}", some.join("; ")));
    }
    StatusRow {
        kind: "inventory".into(),
        name: "inventory".into(),
        health: if inventory.is_full() { "degraded" } else { "healthy" }.into(),
        detail: wrong.join("; "),
        version: env!("CARGO_PKG_VERSION").into(),
        last_seen: Some(rfc3339(now)),
        counters: BTreeMap::from([
            ("facts".to_owned(), inventory.facts() as u64),
            ("disagreements".to_owned(), disagreements),
            ("refused_full".to_owned(), refused.full),
            ("refused_unreadable".to_owned(), refused.unreadable),
            ("refused_addresses".to_owned(), refused.addresses),
            ("refused_attributes".to_owned(), refused.attributes),
        ]),
    }
}

/// `container 0f3a...: name is web by kubelet, k8s_web by docker`.
fn disagreement(one: &Disagreement) -> String {
    let says: Vec<String> = one.says.iter().map(|(source, word)| format!("{word} by {source}")).collect();
    format!("{} {}: {} is {}", one.kind, one.id, one.field, says.join(", "))
}

fn store_row(counters: &BTreeMap<String, u64>, counts: &BTreeMap<String, u64>, now: UnixNanos) -> StatusRow {
    let failing: Vec<&str> = ["append_failures", "apply_failures", "flush_failures", "compaction_failures"]
        .into_iter()
        .filter(|name| counts.get(*name).is_some_and(|count| *count > 0))
        .collect();
    let (health, detail) = if failing.is_empty() {
        ("healthy", String::new())
    } else {
        let detail = format!(
            "writing failed since the start ({}); look at the server's log and at the data folder's free space",
            failing.join(", ")
        );
        ("degraded", detail)
    };
    StatusRow {
        kind: "store".into(),
        name: "embedded".into(),
        health: health.into(),
        detail,
        version: env!("CARGO_PKG_VERSION").into(),
        last_seen: Some(rfc3339(now)),
        counters: counters.clone(),
    }
}

/// A row for each of a node's sources of metadata. One that nobody asked for, or that is not there, is missed by nobody.
fn metadata_rows(node: &str, streams: &[&StreamSummary]) -> Vec<StatusRow> {
    let Some(stream) = completeness::newest(streams) else { return Vec::new() };
    let rows = stream.metadata.iter().map(|source| StatusRow {
        kind: "metadata".into(),
        name: format!("{node}/{}", source.source),
        health: if matches!(source.state.as_str(), "ok" | "off") { "healthy" } else { "degraded" }.into(),
        detail: match (source.state.as_str(), source.detail.as_str()) {
            ("ok", detail) => detail.to_owned(),
            (state, "") => state.to_owned(),
            (state, detail) => format!("{state}: {detail}"),
        },
        version: String::new(),
        last_seen: source.read.map(rfc3339),
        counters: BTreeMap::from([("things".to_owned(), source.things)]),
    });
    rows.collect()
}

fn node_row(node: &str, streams: &[&StreamSummary], now: UnixNanos) -> Option<StatusRow> {
    let stream = completeness::newest(streams)?;
    let state = completeness::node_state(stream, now);
    let source = &stream.source;
    let offset = stream.clock_offset_ns.unwrap_or(0);
    let mut wrong = Vec::new();
    let mut health = "healthy";
    if state != "reporting" {
        health = if state == "late" { "degraded" } else { "unhealthy" };
        wrong.push(format!(
            "the agent is {state}, heard last at {}; look whether weir-agent runs on {node}",
            rfc3339(stream.received)
        ));
    }
    if !matches!(source.state.as_str(), "ok" | "") {
        if source.state == "degraded" && health == "healthy" {
            health = "degraded";
        } else if source.state != "degraded" {
            health = "unhealthy";
        }
        let reason = if source.detail.is_empty() { &stream.newest.gap_reason } else { &source.detail };
        wrong.push(format!("its source ({}) is {}: {reason}", source.kind, source.state));
    }
    if offset.abs() > OFFSET_NS_MAX {
        if health == "healthy" {
            health = "degraded";
        }
        wrong.push(format!("its clock is {} ms off the server's; synchronise both", offset / 1_000_000));
    }
    let mut counters = BTreeMap::new();
    for stream in streams {
        for (name, count) in &stream.counts {
            *counters.entry(name.clone()).or_default() += count;
        }
    }
    counters.insert("streams".to_owned(), streams.len() as u64);
    counters.insert("last_sequence".to_owned(), stream.applied_sequence);
    counters.insert("clock_offset_ms".to_owned(), offset.unsigned_abs() / 1_000_000);
    Some(StatusRow {
        kind: "node".into(),
        name: node.to_owned(),
        health: health.into(),
        detail: wrong.join("; "),
        version: stream.version.clone(),
        last_seen: Some(rfc3339(stream.received)),
        counters,
    })
}
