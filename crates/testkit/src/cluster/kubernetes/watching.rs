//! Watches: a stream of changes, a JSON object a line.

use super::api::{Asked, Selection, Shared, is_true, partial, status, too_large};
use super::faults::Fault;
use super::objects::Resource;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{IntervalStream, WatchStream};

/// How long a watch lasts that does not say it: the API server's own least default (`--min-request-timeout`).
const WATCH: Duration = Duration::from_secs(1800);

/// What comes next in a stream.
enum Next {
    Lines(Vec<u8>),
    /// An orderly end.
    End,
    /// The connection breaks.
    Break,
}

/// Without a version the objects that are there come first.
pub(super) fn watch_from(
    shared: &Shared,
    resource: Resource,
    selection: Selection,
    version: u64,
    asked: &Asked,
    fault: Option<&Fault>,
) -> Response {
    let mut told = version;
    let mut first = Vec::new();
    let streams_a_list = is_true(asked.send_initial_events.as_ref());
    let bookmarks = is_true(asked.allow_watch_bookmarks.as_ref());
    {
        let registry = shared.registry();
        if version > registry.version() {
            return too_large(version, registry.version());
        }
        let refuses = shared.faults.refuses_streamed_lists.load(Ordering::SeqCst);
        if refuses && (streams_a_list || (version == 0 && bookmarks)) {
            let message = "a watch stream was requested by the client but the required storage feature \
                           RequestWatchProgress is disabled";
            let status = status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message, &Value::Null);
            event(&mut first, "ERROR", &status);
            return ([(header::CONTENT_TYPE, "application/json")], first).into_response();
        }
        let expired = version != 0 && !streams_a_list && registry.since(resource, version).is_err();
        if expired || fault == Some(&Fault::Gone) {
            let message = format!("too old resource version: {version} ({})", registry.version());
            let status = status(StatusCode::GONE, "Expired", &message, &Value::Null);
            event(&mut first, "ERROR", &status);
            return ([(header::CONTENT_TYPE, "application/json")], first).into_response();
        }
        if version == 0 || streams_a_list {
            told = registry.version();
            for object in registry.list(resource).filter(|object| selection.takes(object)) {
                event(&mut first, "ADDED", &told_of(object, &selection));
            }
            if streams_a_list {
                bookmark(&mut first, resource, told, &json!({"k8s.io/initial-events-end": "true"}));
            }
        }
    }
    match fault {
        Some(Fault::Close) => return ([(header::CONTENT_TYPE, "application/json")], first).into_response(),
        Some(Fault::Stall) => return super::api::silence(),
        _ => {}
    }
    let breaks_at_once = fault == Some(&Fault::Break);
    let shared_then = shared.clone();
    let changes = WatchStream::new(shared.version.subscribe()).map(move |_| {
        if shared_then.faults.stalled.load(Ordering::SeqCst) {
            return Next::Lines(Vec::new());
        }
        let registry = shared_then.registry();
        // One that has fallen behind ends, and is told 410 when it comes again.
        let Ok(changes) = registry.since(resource, told) else { return Next::End };
        let mut lines = std::mem::take(&mut first);
        let own: Vec<_> = changes.iter().filter(|change| selection.takes(&change.object)).collect();
        for change in &own {
            event(&mut lines, change.kind, &told_of(&change.object, &selection));
        }
        // The real one sends a bookmark about every minute; here whenever only others have changed.
        if own.is_empty() && bookmarks && registry.version() > told {
            bookmark(&mut lines, resource, registry.version(), &json!({}));
        }
        told = registry.version();
        if breaks_at_once && !lines.is_empty() { Next::Break } else { Next::Lines(lines) }
    });
    let timeout = asked.timeout_seconds.map_or(WATCH, Duration::from_secs);
    let end = tokio::time::interval_at(tokio::time::Instant::now() + timeout, timeout.max(Duration::from_secs(1)));
    let breaks = WatchStream::from_changes(shared.faults.breaks.subscribe()).map(|_| Next::Break);
    let lines = changes.merge(IntervalStream::new(end).map(|_| Next::End)).merge(breaks);
    let body = lines.map_while(|next| match next {
        Next::Lines(lines) => Some(Ok(Bytes::from(lines))),
        Next::End => None,
        Next::Break => Some(Err(std::io::Error::other("broken off on purpose"))),
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response()
}

fn told_of(object: &Value, selection: &Selection) -> Value {
    if selection.metadata_only { partial(object) } else { object.clone() }
}

fn event(lines: &mut Vec<u8>, kind: &str, object: &Value) {
    lines.extend(json!({"type": kind, "object": object}).to_string().into_bytes());
    lines.push(b'\n');
}

fn bookmark(lines: &mut Vec<u8>, resource: Resource, version: u64, annotations: &Value) {
    let metadata = json!({"resourceVersion": version.to_string(), "annotations": annotations});
    event(lines, "BOOKMARK", &json!({"kind": resource.kind, "apiVersion": resource.version, "metadata": metadata}));
}
