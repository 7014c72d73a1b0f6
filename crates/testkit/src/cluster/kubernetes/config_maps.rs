//! ConfigMaps with their writes: versions, preconditions, validation and limits as the API server has them.
//!
//! | asked | answer |
//! |---|---|
//! | POST of a name that is taken | 409 `AlreadyExists` |
//! | PUT or DELETE with a version or UID that is not the current one | 409 `Conflict` |
//! | PUT without a version | written whatever was there, as for every resource that allows unconditional updates |
//! | PUT that changes nothing | 200, the version stays |
//! | a bad key, values beyond 1 MiB, a change to an immutable one | 422 `Invalid` |
//! | a body beyond 3 MiB | 413 `RequestEntityTooLarge` |
//! | an object beyond etcd's 1.5 MiB | 500, in etcd's words |
//! | a namespace or an object that is not there | 404 `NotFound` |
//!
//! Faults are planned for `configmaps` (lists), `configmaps/get`, `configmaps/create`, `configmaps/update` and
//! `configmaps/delete`. A write that meets [`Fault::Break`] is done, and its answer breaks off; one that meets
//! [`Fault::Close`] is not done, and looks the same to its client.

use super::api::{Shared, failure};
use super::faults::{Fault, Seen};
use super::objects::{CONFIG_MAP, NAMESPACE};
use super::registry::Registry;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// `MaxSecretSize` of the API's validation, which holds for ConfigMaps too: the sum of their values.
const VALUES_BYTES_MAX: usize = 1 << 20;
/// The API server's `MaxRequestBodyBytes`.
const BODY_BYTES_MAX: usize = 3 << 20;
/// etcd's `--max-request-bytes`.
const ETCD_BYTES_MAX: usize = 3 << 19;
/// A data key's length (`IsConfigMapKey`).
const KEY_BYTES_MAX: usize = 253;

/// Who does what.
const USER: &str = "system:serviceaccount:weir:weir-server";

pub(super) async fn create(
    State(shared): State<Shared>,
    Path(namespace): Path<String>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    let fault = see(&shared, "configmaps/create");
    if let Some(response) = refused(fault.as_ref(), "create", &namespace, None) {
        return response;
    }
    let mut object = match read(body, &namespace, None) {
        Ok(object) => object,
        Err(response) => return *response,
    };
    let name = name_of(&object);
    let made = shared.change(|registry| {
        if registry.get(NAMESPACE, "", &namespace).is_none() {
            return Err(Box::new(not_found("namespaces", &namespace)));
        }
        if object["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
            let text = "resourceVersion should not be set on objects to be created";
            return Err(Box::new(failure(StatusCode::BAD_REQUEST, "BadRequest", text, &Value::Null)));
        }
        if registry.get(CONFIG_MAP, &namespace, &name).is_some() {
            let text = format!("configmaps \"{name}\" already exists");
            return Err(Box::new(failure(StatusCode::CONFLICT, "AlreadyExists", &text, &details("configmaps", &name))));
        }
        validate(&object, &name)?;
        if is_lost(fault.as_ref()) {
            return Ok(None);
        }
        let number = registry.version() + 1;
        object["metadata"]["uid"] = json!(format!("c0f1{number:04x}-0000-4000-8000-{number:012x}"));
        object["metadata"]["creationTimestamp"] = json!("2026-11-23T16:44:38Z");
        registry.put(CONFIG_MAP, object.clone());
        Ok(registry.get(CONFIG_MAP, &namespace, &name).cloned())
    });
    finish(fault.as_ref(), StatusCode::CREATED, made)
}

pub(super) async fn get(State(shared): State<Shared>, Path((namespace, name)): Path<(String, String)>) -> Response {
    let fault = see(&shared, "configmaps/get");
    if let Some(response) = refused(fault.as_ref(), "get", &namespace, Some(&name)) {
        return response;
    }
    let found = shared.registry().get(CONFIG_MAP, &namespace, &name).cloned();
    let found = found.ok_or_else(|| Box::new(not_found("configmaps", &name)));
    finish(fault.as_ref(), StatusCode::OK, found.map(Some))
}

pub(super) async fn update(
    State(shared): State<Shared>,
    Path((namespace, name)): Path<(String, String)>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    let fault = see(&shared, "configmaps/update");
    if let Some(response) = refused(fault.as_ref(), "update", &namespace, Some(&name)) {
        return response;
    }
    let mut object = match read(body, &namespace, Some(&name)) {
        Ok(object) => object,
        Err(response) => return *response,
    };
    let made = shared.change(|registry| {
        let current = existing(registry, &namespace, &name)?;
        meets(&object["metadata"], &current, &name)?;
        if current["immutable"] == true
            && (object["data"] != current["data"] || object["immutable"] != current["immutable"])
        {
            return Err(Box::new(invalid(&name, "data: Forbidden: field is immutable when `immutable` is set")));
        }
        validate(&object, &name)?;
        if is_lost(fault.as_ref()) {
            return Ok(None);
        }
        for field in ["uid", "creationTimestamp"] {
            object["metadata"][field] = current["metadata"][field].clone();
        }
        // What differs in its version only is the same.
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        registry.put(CONFIG_MAP, object.clone());
        Ok(registry.get(CONFIG_MAP, &namespace, &name).cloned())
    });
    finish(fault.as_ref(), StatusCode::OK, made)
}

pub(super) async fn delete(
    State(shared): State<Shared>,
    Path((namespace, name)): Path<(String, String)>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    let fault = see(&shared, "configmaps/delete");
    if let Some(response) = refused(fault.as_ref(), "delete", &namespace, Some(&name)) {
        return response;
    }
    let options: Value =
        match body.map(|body| if body.is_empty() { Ok(json!({})) } else { serde_json::from_slice(&body) }) {
            Ok(Ok(options)) => options,
            Ok(Err(error)) => return failure(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string(), &Value::Null),
            Err(rejection) => return rejection.into_response(),
        };
    let made = shared.change(|registry| {
        let current = existing(registry, &namespace, &name)?;
        meets(&options["preconditions"], &current, &name)?;
        if is_lost(fault.as_ref()) {
            return Ok(None);
        }
        registry.remove(CONFIG_MAP, &namespace, &name);
        let mut details = details("configmaps", &name);
        details["uid"] = current["metadata"]["uid"].clone();
        Ok(Some(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
        })))
    });
    finish(fault.as_ref(), StatusCode::OK, made)
}

fn see(shared: &Shared, resource: &'static str) -> Option<Fault> {
    shared.faults.see(Seen { resource, ..Seen::default() })
}

/// The answer of the faults that come before anything is done.
fn refused(fault: Option<&Fault>, verb: &str, namespace: &str, name: Option<&str>) -> Option<Response> {
    let fault = fault?;
    if *fault == Fault::Refuse {
        let named = name.map_or(String::new(), |name| format!(" \"{name}\""));
        let text = format!(
            "configmaps{named} is forbidden: User \"{USER}\" cannot {verb} resource \"configmaps\" in API group \"\" in \
             the namespace \"{namespace}\""
        );
        return Some(failure(StatusCode::FORBIDDEN, "Forbidden", &text, &Value::Null));
    }
    fault.answer("configmaps")
}

/// Whether the connection is gone before the write is done.
fn is_lost(fault: Option<&Fault>) -> bool {
    matches!(fault, Some(Fault::Close))
}

type Made = Result<Option<Value>, Box<Response>>;

fn finish(fault: Option<&Fault>, code: StatusCode, made: Made) -> Response {
    let object = match made {
        Ok(object) => object,
        Err(response) => return *response,
    };
    match fault {
        Some(Fault::FailAfter(code)) => {
            let code = StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            failure(
                code,
                "Timeout",
                "etcdserver: request timed out, possibly due to previous leader failure",
                &Value::Null,
            )
        }
        Some(Fault::Break | Fault::Close) => {
            let text = object.unwrap_or_else(|| json!({"kind": "ConfigMap"})).to_string();
            let half = text.as_bytes()[..text.len() / 2].to_vec();
            let parts = [Ok(Bytes::from(half)), Err(std::io::Error::other("broken off on purpose"))];
            (code, Body::from_stream(tokio_stream::iter(parts))).into_response()
        }
        _ => (code, axum::Json(object)).into_response(),
    }
}

fn read(
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
    namespace: &str,
    name: Option<&str>,
) -> Result<Value, Box<Response>> {
    let bad = |text: &str| Box::new(failure(StatusCode::BAD_REQUEST, "BadRequest", text, &Value::Null));
    let body = body.map_err(|rejection| Box::new(rejection.into_response()))?;
    if body.len() > BODY_BYTES_MAX {
        let text = format!("Request entity too large: limit is {BODY_BYTES_MAX}");
        let code = StatusCode::PAYLOAD_TOO_LARGE;
        return Err(Box::new(failure(code, "RequestEntityTooLarge", &text, &Value::Null)));
    }
    let mut object: Value = serde_json::from_slice(&body).map_err(|error| bad(&error.to_string()))?;
    if !object["metadata"].is_object() {
        return Err(bad("an object has metadata"));
    }
    let given = object["metadata"]["namespace"].as_str().unwrap_or(namespace);
    if given != namespace {
        return Err(bad("the namespace of the provided object does not match the namespace sent on the request"));
    }
    if name.is_some_and(|name| name != name_of(&object)) {
        return Err(bad("the name of the object does not match the name on the URL"));
    }
    object["kind"] = json!(CONFIG_MAP.kind);
    object["apiVersion"] = json!(CONFIG_MAP.version);
    object["metadata"]["namespace"] = json!(namespace);
    Ok(object)
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn existing(registry: &Registry, namespace: &str, name: &str) -> Result<Value, Box<Response>> {
    registry.get(CONFIG_MAP, namespace, name).cloned().ok_or_else(|| Box::new(not_found("configmaps", name)))
}

/// Whether what the writer saw is what is there.
fn meets(wanted: &Value, current: &Value, name: &str) -> Result<(), Box<Response>> {
    for field in ["uid", "resourceVersion"] {
        let is_given = wanted[field].as_str().is_some_and(|text| !text.is_empty());
        if is_given && wanted[field] != current["metadata"][field] {
            let text = format!(
                "Operation cannot be fulfilled on configmaps \"{name}\": the object has been modified; please apply your \
                 changes to the latest version and try again"
            );
            return Err(Box::new(failure(StatusCode::CONFLICT, "Conflict", &text, &details("configmaps", name))));
        }
    }
    Ok(())
}

fn validate(object: &Value, name: &str) -> Result<(), Box<Response>> {
    if !is_subdomain(name) {
        return Err(Box::new(invalid(name, "metadata.name: Invalid value: a lowercase RFC 1123 subdomain is wanted")));
    }
    for (key, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        if !is_label_value(value) {
            return Err(Box::new(invalid(name, &format!("metadata.labels: Invalid value: \"{value}\" of {key}"))));
        }
    }
    let mut values = 0;
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        if !is_key(key) {
            let text = format!(
                "data[{key}]: Invalid value: \"{key}\": a valid config key must consist of alphanumeric characters, '-', \
                 '_' or '.' (e.g. 'key.name', or 'KEY_NAME', or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
            );
            return Err(Box::new(invalid(name, &text)));
        }
        let Some(value) = value.as_str() else {
            let text = format!("json: cannot unmarshal {value} into Go struct field ConfigMap.data of type string");
            return Err(Box::new(failure(StatusCode::BAD_REQUEST, "BadRequest", &text, &Value::Null)));
        };
        values += value.len();
    }
    if values > VALUES_BYTES_MAX {
        let text = format!("[]: Too long: must have at most {VALUES_BYTES_MAX} bytes");
        return Err(Box::new(invalid(name, &text)));
    }
    if object.to_string().len() > ETCD_BYTES_MAX {
        let (code, text) = (StatusCode::INTERNAL_SERVER_ERROR, "etcdserver: request is too large");
        return Err(Box::new(failure(code, "InternalError", text, &Value::Null)));
    }
    Ok(())
}

fn is_key(key: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(is_good) && key != "." && !key.starts_with("..")
}

fn is_subdomain(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(|byte| is_good(*byte))
            && bytes.last().is_some_and(|byte| is_good(*byte))
            && bytes.iter().all(|byte| is_good(*byte) || *byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let is_good = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    bytes.is_empty()
        || bytes.len() <= 63
            && bytes.iter().all(is_good)
            && bytes[0].is_ascii_alphanumeric()
            && bytes[bytes.len() - 1].is_ascii_alphanumeric()
}

fn invalid(name: &str, text: &str) -> Response {
    let text = format!("ConfigMap \"{name}\" is invalid: {text}");
    failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", &text, &details("ConfigMap", name))
}

fn not_found(plural: &str, name: &str) -> Response {
    failure(StatusCode::NOT_FOUND, "NotFound", &format!("{plural} \"{name}\" not found"), &details(plural, name))
}

fn details(kind: &str, name: &str) -> Value {
    json!({"name": name, "kind": kind})
}
