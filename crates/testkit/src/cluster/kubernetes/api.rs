//! The API server's answers: lists whole or in pages, as objects or as their metadata, and reviews of tokens.

use super::api_server::Identity;
use super::config_maps;
use super::faults::{Fault, Faults, Seen};
use super::objects::{self, CONFIG_MAP, POD, RESOURCES, Resource};
use super::registry::Registry;
use super::watching::watch_from;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What all handlers share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    registry: Arc<Mutex<Registry>>,
    /// The registry's version, for whoever waits for a change.
    pub(super) version: watch::Sender<u64>,
    token: Arc<str>,
    pub(super) faults: Arc<Faults>,
    identities: Arc<Mutex<BTreeMap<String, Identity>>>,
}

impl Shared {
    pub(super) fn new(token: &str) -> Self {
        Self {
            registry: Arc::default(),
            version: watch::Sender::new(0),
            token: token.into(),
            faults: Arc::default(),
            identities: Arc::default(),
        }
    }

    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes objects and tells it to whoever watches.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Registry) -> T) -> T {
        let mut registry = self.registry();
        let outcome = change(&mut registry);
        self.version.send_replace(registry.version());
        outcome
    }

    /// Who holds which token.
    pub(super) fn identities(&self) -> MutexGuard<'_, BTreeMap<String, Identity>> {
        self.identities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }
}

pub(super) fn router(shared: &Shared) -> Router {
    let mut router = Router::new()
        .route("/readyz", get(|| async { "ok" }))
        .route("/version", get(|| async { axum::Json(json!({"gitVersion": objects::VERSION})) }))
        .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review));
    for resource in RESOURCES {
        let root = if resource.version == "v1" { "/api/v1".into() } else { format!("/apis/{}", resource.version) };
        let everywhere = move |State(shared): State<Shared>, Query(query): Query<Asked>, headers: HeaderMap| async move {
            answer(&shared, resource, None, &query, &headers)
        };
        let within = move |State(shared): State<Shared>,
                           Path(namespace): Path<String>,
                           Query(query): Query<Asked>,
                           headers: HeaderMap| async move {
            answer(&shared, resource, Some(namespace), &query, &headers)
        };
        router = router.route(&format!("{root}/{}", resource.plural), get(everywhere));
        let mut collection = get(within);
        if resource == CONFIG_MAP {
            collection = collection.post(config_maps::create);
            let item = get(config_maps::get).put(config_maps::update).delete(config_maps::delete);
            router = router.route(&format!("{root}/namespaces/{{namespace}}/{}/{{name}}", resource.plural), item);
        }
        router = router.route(&format!("{root}/namespaces/{{namespace}}/{}", resource.plural), collection);
    }
    // A body's limit is the handler's own, with the API server's words.
    let router = router.layer(axum::extract::DefaultBodyLimit::disable());
    let refuse = |State(shared): State<Shared>, request: Request, next: Next| async move {
        if is_known(&shared, &request) {
            return next.run(request).await;
        }
        failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized", &Value::Null)
    };
    router.layer(from_fn_with_state(shared.clone(), refuse)).with_state(shared.clone())
}

pub(super) fn is_known(shared: &Shared, request: &Request) -> bool {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    given.and_then(|given| given.strip_prefix("Bearer ")) == Some(shared.token())
}

/// Whose token is it?
async fn review(State(shared): State<Shared>, axum::Json(asked): axum::Json<Value>) -> Response {
    let seen = Seen { resource: "tokenreviews", ..Seen::default() };
    if let Some(fault) = shared.faults.see(seen)
        && let Some(response) = fault.answer("tokenreviews")
    {
        return response;
    }
    let token = asked["spec"]["token"].as_str().unwrap_or_default();
    let audiences = asked["spec"]["audiences"].as_array().cloned().unwrap_or_default();
    let status = match shared.identities().get(token) {
        None => json!({"user": {}, "error": "[invalid bearer token, token lookup failed]"}),
        Some(identity) if identity.expired => {
            json!({"user": {}, "error": "[invalid bearer token, service account token has expired]"})
        }
        Some(identity) => {
            let good: Vec<&Value> =
                audiences.iter().filter(|one| identity.audiences.iter().any(|known| *one == known)).collect();
            if good.is_empty() {
                let message = format!(
                    "[invalid bearer token, token audiences {:?} is invalid for the target audiences {:?}]",
                    identity.audiences, audiences
                );
                json!({"user": {}, "error": message})
            } else {
                json!({"authenticated": true, "audiences": good, "user": identity.user()})
            }
        }
    };
    let answer = json!({
        "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {}, "spec": asked["spec"], "status": status,
    });
    (StatusCode::CREATED, axum::Json(answer)).into_response()
}

/// The query parameters that are understood; a selector that is not is refused, the others change nothing of a whole
/// list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Asked {
    watch: Option<String>,
    resource_version: Option<String>,
    pub(super) allow_watch_bookmarks: Option<String>,
    pub(super) send_initial_events: Option<String>,
    pub(super) timeout_seconds: Option<u64>,
    field_selector: Option<String>,
    label_selector: Option<String>,
    limit: Option<usize>,
    #[serde(rename = "continue")]
    go_on: Option<String>,
}

/// Which objects were asked for, and how much of each.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    namespace: Option<String>,
    node: Option<String>,
    /// Every label with its value: `a=b,c=d`.
    labels: Vec<(String, String)>,
    pub(super) metadata_only: bool,
}

impl Selection {
    pub(super) fn takes(&self, object: &Value) -> bool {
        let is = |wanted: &Option<String>, value: &Value| wanted.as_ref().is_none_or(|wanted| value == wanted);
        is(&self.namespace, &object["metadata"]["namespace"])
            && is(&self.node, &object["spec"]["nodeName"])
            && self.labels.iter().all(|(name, value)| object["metadata"]["labels"][name] == *value)
    }
}

/// An object's metadata by itself.
pub(super) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn answer(
    shared: &Shared,
    resource: Resource,
    namespace: Option<String>,
    asked: &Asked,
    headers: &HeaderMap,
) -> Response {
    let watches = is_true(asked.watch.as_ref());
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let metadata_only = accept.contains("as=PartialObjectMetadata");
    let fault = shared.faults.see(Seen {
        resource: resource.plural,
        watches,
        first_page: asked.go_on.is_none(),
        limit: asked.limit,
        version: asked.resource_version.clone(),
        metadata_only,
        at: None,
    });
    if let Some(response) = fault
        .as_ref()
        .filter(|fault| !(watches && fault.is_within_a_watch()))
        .and_then(|fault| fault.answer(resource.plural))
    {
        return response;
    }
    let node = match asked.field_selector.as_deref().filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => match text.strip_prefix("spec.nodeName=") {
            Some(node) if resource == POD => Some(node.to_owned()),
            _ => return failure(StatusCode::BAD_REQUEST, "BadRequest", "no such field selector here", &Value::Null),
        },
    };
    let pair = |part: &str| part.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let selector = asked.label_selector.as_deref().filter(|text| !text.is_empty());
    let Some(labels) = selector.map_or(Some(Vec::new()), |text| text.split(',').map(pair).collect()) else {
        return failure(StatusCode::BAD_REQUEST, "BadRequest", "no such label selector here", &Value::Null);
    };
    let version = match asked.resource_version.as_deref().filter(|text| !text.is_empty()).map(str::parse::<u64>) {
        None => 0,
        Some(Ok(version)) => version,
        Some(Err(_)) => return failure(StatusCode::BAD_REQUEST, "BadRequest", "no resource version", &Value::Null),
    };
    let selection = Selection { namespace, node, labels, metadata_only };
    if watches {
        return watch_from(shared, resource, selection, version, asked, fault.as_ref());
    }
    let current = shared.registry().version();
    if version > current {
        return too_large(version, current);
    }
    let (version, objects, from) = match asked.go_on.as_deref().map(|token| token.split_once('.')) {
        None => {
            let (version, objects) = shared.registry().snapshot(resource);
            (version, objects, 0)
        }
        Some(token) => {
            let parts = token.and_then(|(version, from)| Some((version.parse().ok()?, from.parse().ok()?)));
            let Some((version, from)) = parts else {
                return failure(StatusCode::BAD_REQUEST, "BadRequest", "continue key is not valid", &Value::Null);
            };
            let Ok(objects) = shared.registry().at(resource, version) else {
                let text = "The provided continue parameter is too old to display a consistent list result. You can start \
                            a new list without the continue parameter.";
                return failure(StatusCode::GONE, "Expired", text, &Value::Null);
            };
            (version, objects, from)
        }
    };
    let own: Vec<&Value> = objects.iter().filter(|object| selection.takes(object)).collect();
    let end = asked.limit.filter(|limit| *limit > 0).map_or(own.len(), |limit| (from + limit).min(own.len()));
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if end < own.len() {
        metadata["continue"] = json!(format!("{version}.{end}"));
        metadata["remainingItemCount"] = json!(own.len() - end);
    }
    let page = own.get(from.min(end)..end).unwrap_or_default().iter().copied();
    let list = if metadata_only {
        let items: Vec<Value> = page.map(partial).collect();
        json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
    } else {
        list(resource, &metadata, page)
    };
    if matches!(fault, Some(Fault::Break)) {
        // Half of it, and then the connection is gone.
        let text = list.to_string();
        let half = text.as_bytes()[..text.len() / 2].to_vec();
        let parts = [Ok(axum::body::Bytes::from(half)), Err(std::io::Error::other("broken off on purpose"))];
        return Body::from_stream(tokio_stream::iter(parts)).into_response();
    }
    axum::Json(list).into_response()
}

pub(super) fn is_true(text: Option<&String>) -> bool {
    text.is_some_and(|text| matches!(text.as_str(), "1" | "true"))
}

/// A list; its items do not say what they are.
pub(super) fn list<'a>(resource: Resource, metadata: &Value, objects: impl Iterator<Item = &'a Value>) -> Value {
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

pub(super) fn too_large(version: u64, current: u64) -> Response {
    let message = format!("Timeout: Too large resource version: {version}, current: {current}");
    let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
    failure(StatusCode::GATEWAY_TIMEOUT, "Timeout", &message, &json!({"causes": [cause], "retryAfterSeconds": 1}))
}

pub(super) fn failure(code: StatusCode, reason: &str, message: &str, details: &Value) -> Response {
    (code, axum::Json(status(code, reason, message, details))).into_response()
}

pub(super) fn status(code: StatusCode, reason: &str, message: &str, details: &Value) -> Value {
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code.as_u16(),
    });
    if !details.is_null() {
        status["details"] = details.clone();
    }
    status
}

/// A body that never comes: the head is sent, and then nothing.
pub(super) fn silence() -> Response {
    let nothing = tokio_stream::pending::<Result<axum::body::Bytes, Infallible>>();
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(nothing)).into_response()
}
