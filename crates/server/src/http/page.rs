//! The page: files built by `make ui`, embedded by the build script.

use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

include!(concat!(env!("OUT_DIR"), "/page_files.rs"));

/// Vite names everything below `assets/` by its content: it never changes under its name.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// The others are asked for again each time, and answered with 304 when they are the same.
const REVALIDATE: &str = "no-cache";

/// Serves a file, `index.html` for `/`.
pub(crate) async fn file(uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    let path = if path.is_empty() { "index.html" } else { path };
    let Some((name, content)) = FILES.iter().find(|(name, _)| *name == path) else {
        let known = "paths are /, /api/v1/{status,edges,connections,transactions,metadata}, /metrics, /healthz, \
                     /readyz, /openapi.json";
        return super::problem(StatusCode::NOT_FOUND, format!("no path `{}` here; {known}", uri.path()));
    };
    let tag = format!("\"{:08x}-{:x}\"", crc32c::crc32c(content), content.len());
    let cache = if name.starts_with("assets/") { IMMUTABLE } else { REVALIDATE };
    let given = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if given.is_some_and(|given| given.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag), (header::CACHE_CONTROL, cache.to_owned())])
            .into_response();
    }
    let headers = [
        (header::CONTENT_TYPE, content_type(name).to_owned()),
        (header::ETAG, tag),
        (header::CACHE_CONTROL, cache.to_owned()),
    ];
    (headers, *content).into_response()
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
