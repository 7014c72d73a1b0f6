//! Stand-ins for the API server and the kubelets: they serve exactly what belongs to the cluster and follow its changes.
//!
//! Plain HTTP with a bearer token: the API server on the control namespace's port 6443 (in the cluster the Service
//! `default/kubernetes`), a kubelet on each node's port 10250. Not there: TLS, writes, protobuf, discovery, paging
//! (a list comes whole), label selectors.

pub(crate) mod objects;
pub(crate) mod registry;

use super::place::Place;
use super::serving::{Serving, listen};
use super::{Node, Pod, Service};
use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use objects::{POD, RESOURCES, Resource};
use registry::Registry;
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{IntervalStream, WatchStream};

/// The API server's port in the control namespace.
pub const API_PORT: u16 = 6443;
/// A kubelet's port.
pub const KUBELET_PORT: u16 = 10_250;

/// How long a watch lasts that does not say it: the API server's own least default (`--min-request-timeout`).
const WATCH: Duration = Duration::from_secs(1800);

/// The running stand-ins.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    shared: Shared,
    _servers: Vec<Serving>,
}

#[derive(Clone, Debug)]
struct Shared {
    registry: Arc<Mutex<Registry>>,
    /// The registry's version, for whoever waits for a change.
    version: watch::Sender<u64>,
    token: Arc<str>,
}

impl Shared {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose pods a kubelet serves.
#[derive(Clone)]
struct Kubelet {
    shared: Shared,
    node: Arc<str>,
}

impl Kubernetes {
    /// Starts an API server in `control` and a kubelet on every node.
    pub(crate) fn start(control: &Place, nodes: &[Node], token: &str) -> Result<Self> {
        let version = watch::Sender::new(0);
        let shared = Shared { registry: Arc::default(), version, token: token.into() };
        let any = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let mut servers = vec![Serving::start(listen(control, any(API_PORT))?, None, api_server(&shared))?];
        for node in nodes {
            let kubelet = kubelet(&shared, &node.plan.name);
            servers.push(Serving::start(listen(node.place(), any(KUBELET_PORT))?, None, kubelet)?);
        }
        Ok(Self { shared, _servers: servers })
    }

    /// Serves what is now.
    pub(crate) fn follow(&self, nodes: &[Node], pods: &[Pod], services: &[Service]) {
        let mut registry = self.shared.registry();
        registry.replace(objects::all(nodes, pods, services));
        self.shared.version.send_replace(registry.version());
    }

    /// Forgets what was before now.
    pub(crate) fn compact(&self) {
        self.shared.registry().compact();
    }

    /// What a client must show.
    pub(crate) fn token(&self) -> &str {
        &self.shared.token
    }
}

fn api_server(shared: &Shared) -> Router {
    let mut router = Router::new()
        .route("/readyz", get(|| async { "ok" }))
        .route("/version", get(|| async { axum::Json(json!({"gitVersion": objects::VERSION})) }));
    for resource in RESOURCES {
        let root = if resource.version == "v1" { "/api/v1".into() } else { format!("/apis/{}", resource.version) };
        let everywhere = move |State(shared): State<Shared>, Query(query): Query<Asked>| async move {
            answer(&shared, resource, None, &query)
        };
        let within = move |State(shared): State<Shared>, Path(namespace): Path<String>, Query(query): Query<Asked>| async move {
            answer(&shared, resource, Some(namespace), &query)
        };
        router = router.route(&format!("{root}/{}", resource.plural), get(everywhere));
        router = router.route(&format!("{root}/namespaces/{{namespace}}/{}", resource.plural), get(within));
    }
    let refuse = |State(shared): State<Shared>, request: Request, next: Next| async move {
        if is_known(&shared, &request) {
            return next.run(request).await;
        }
        failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized", &Value::Null)
    };
    router.layer(from_fn_with_state(shared.clone(), refuse)).with_state(shared.clone())
}

fn kubelet(shared: &Shared, node: &str) -> Router {
    let kubelet = Kubelet { shared: shared.clone(), node: node.into() };
    let pods = |State(kubelet): State<Kubelet>| async move {
        let registry = kubelet.shared.registry();
        let own = registry.list(POD).filter(|pod| pod["spec"]["nodeName"] == *kubelet.node);
        axum::Json(list(POD, &json!({}), own))
    };
    let refuse = |State(kubelet): State<Kubelet>, request: Request, next: Next| async move {
        if is_known(&kubelet.shared, &request) {
            return next.run(request).await;
        }
        (StatusCode::UNAUTHORIZED, "Unauthorized").into_response()
    };
    Router::new()
        .route("/pods", get(pods))
        .route("/healthz", get(|| async { "ok" }))
        .layer(from_fn_with_state(kubelet.clone(), refuse))
        .with_state(kubelet)
}

fn is_known(shared: &Shared, request: &Request) -> bool {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    given.and_then(|given| given.strip_prefix("Bearer ")) == Some(&shared.token)
}

/// The query parameters that are understood; a selector that is not is refused, the others change nothing of a whole
/// list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Asked {
    watch: Option<String>,
    resource_version: Option<String>,
    allow_watch_bookmarks: Option<String>,
    send_initial_events: Option<String>,
    timeout_seconds: Option<u64>,
    field_selector: Option<String>,
    label_selector: Option<String>,
}

/// Which objects were asked for.
#[derive(Clone, Debug)]
struct Selection {
    namespace: Option<String>,
    node: Option<String>,
}

impl Selection {
    fn takes(&self, object: &Value) -> bool {
        let is = |wanted: &Option<String>, value: &Value| wanted.as_ref().is_none_or(|wanted| value == wanted);
        is(&self.namespace, &object["metadata"]["namespace"]) && is(&self.node, &object["spec"]["nodeName"])
    }
}

fn answer(shared: &Shared, resource: Resource, namespace: Option<String>, asked: &Asked) -> Response {
    let node = match asked.field_selector.as_deref().filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => match text.strip_prefix("spec.nodeName=") {
            Some(node) if resource == POD => Some(node.to_owned()),
            _ => return failure(StatusCode::BAD_REQUEST, "BadRequest", "no such field selector here", &Value::Null),
        },
    };
    if asked.label_selector.is_some() {
        return failure(StatusCode::BAD_REQUEST, "BadRequest", "no label selectors here", &Value::Null);
    }
    let version = match asked.resource_version.as_deref().map(str::parse::<u64>) {
        None => 0,
        Some(Ok(version)) => version,
        Some(Err(_)) => return failure(StatusCode::BAD_REQUEST, "BadRequest", "no resource version", &Value::Null),
    };
    let selection = Selection { namespace, node };
    if is_true(asked.watch.as_ref()) {
        return watch_from(shared, resource, selection, version, asked);
    }
    let registry = shared.registry();
    if version > registry.version() {
        return too_large(version, registry.version());
    }
    let metadata = json!({"resourceVersion": registry.version().to_string()});
    axum::Json(list(resource, &metadata, registry.list(resource).filter(|object| selection.takes(object))))
        .into_response()
}

fn is_true(text: Option<&String>) -> bool {
    text.is_some_and(|text| matches!(text.as_str(), "1" | "true"))
}

/// A list; its items do not say what they are.
fn list<'a>(resource: Resource, metadata: &Value, objects: impl Iterator<Item = &'a Value>) -> Value {
    let items: Vec<Value> = objects
        .map(|object| {
            let mut object = object.clone();
            if let Some(fields) = object.as_object_mut() {
                fields.remove("kind");
                fields.remove("apiVersion");
            }
            object
        })
        .collect();
    json!({
        "kind": format!("{}List", resource.kind), "apiVersion": resource.version, "metadata": metadata, "items": items,
    })
}

/// A stream of changes, a JSON object a line. Without a version the objects that are there come first.
fn watch_from(shared: &Shared, resource: Resource, selection: Selection, version: u64, asked: &Asked) -> Response {
    let mut told = version;
    let mut first = Vec::new();
    {
        let registry = shared.registry();
        if version > registry.version() {
            return too_large(version, registry.version());
        }
        if version == 0 || is_true(asked.send_initial_events.as_ref()) {
            told = registry.version();
            for object in registry.list(resource).filter(|object| selection.takes(object)) {
                event(&mut first, "ADDED", object);
            }
            if is_true(asked.send_initial_events.as_ref()) {
                bookmark(&mut first, resource, told, &json!({"k8s.io/initial-events-end": "true"}));
            }
        } else if registry.since(resource, version).is_err() {
            let message = format!("too old resource version: {version} ({})", registry.version());
            let status = status(StatusCode::GONE, "Expired", &message, &Value::Null);
            event(&mut first, "ERROR", &status);
            return ([(header::CONTENT_TYPE, "application/json")], first).into_response();
        }
    }
    let bookmarks = is_true(asked.allow_watch_bookmarks.as_ref());
    let shared_then = shared.clone();
    let changes = WatchStream::new(shared.version.subscribe()).map(move |_| {
        let registry = shared_then.registry();
        // One that has fallen behind ends, and is told 410 when it comes again.
        let changes = registry.since(resource, told).ok()?;
        let mut lines = std::mem::take(&mut first);
        let own: Vec<_> = changes.iter().filter(|change| selection.takes(&change.object)).collect();
        for change in &own {
            event(&mut lines, change.kind, &change.object);
        }
        // The real one sends a bookmark about every minute; here whenever only others have changed.
        if own.is_empty() && bookmarks && registry.version() > told {
            bookmark(&mut lines, resource, registry.version(), &json!({}));
        }
        told = registry.version();
        Some(lines)
    });
    let timeout = asked.timeout_seconds.map_or(WATCH, Duration::from_secs);
    let end = tokio::time::interval_at(tokio::time::Instant::now() + timeout, timeout.max(Duration::from_secs(1)));
    let lines = changes.merge(IntervalStream::new(end).map(|_| None));
    let body = lines.map_while(|lines| lines.map(|lines| Ok::<_, Infallible>(Bytes::from(lines))));
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response()
}

fn event(lines: &mut Vec<u8>, kind: &str, object: &Value) {
    lines.extend(json!({"type": kind, "object": object}).to_string().into_bytes());
    lines.push(b'\n');
}

fn bookmark(lines: &mut Vec<u8>, resource: Resource, version: u64, annotations: &Value) {
    let metadata = json!({"resourceVersion": version.to_string(), "annotations": annotations});
    event(lines, "BOOKMARK", &json!({"kind": resource.kind, "apiVersion": resource.version, "metadata": metadata}));
}

fn too_large(version: u64, current: u64) -> Response {
    let message = format!("Timeout: Too large resource version: {version}, current: {current}");
    let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
    failure(StatusCode::GATEWAY_TIMEOUT, "Timeout", &message, &json!({"causes": [cause], "retryAfterSeconds": 1}))
}

fn failure(code: StatusCode, reason: &str, message: &str, details: &Value) -> Response {
    (code, axum::Json(status(code, reason, message, details))).into_response()
}

fn status(code: StatusCode, reason: &str, message: &str, details: &Value) -> Value {
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code.as_u16(),
    });
    if !details.is_null() {
        status["details"] = details.clone();
    }
    status
}
