//! The HTTP side: the API, the page, metrics, health.
//!
//! [`api`] has the paths under `/api/v1`, [`subscription`] answers that go on, [`page`] the embedded files, [`metrics`] Prometheus' text, [`openapi`] the
//! description of it all. Questions are answered on blocking threads, a few at a time.

pub(crate) mod api;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod page;
pub(crate) mod shared_answers;
pub(crate) mod subscription;

use crate::auth::Token;
use crate::query::Sources;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use shared_answers::{SharedAnswers, share};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use subscription::SUBSCRIPTIONS_MAX;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use weir_wire::api::Problem;

/// Questions answered at the same time, one a processor within these bounds; the others wait. One about 100,000
/// connections holds some 300 MB.
const QUESTIONS: std::ops::RangeInclusive<usize> = 2..=4;

/// Only what this server serves itself, nothing inline.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) sources: Arc<Sources>,
    pub(crate) token: Option<Arc<Token>>,
    pub(crate) questions: Arc<Semaphore>,
    pub(crate) subscriptions: Arc<Semaphore>,
    /// Ends subscriptions, which the listener waits for.
    pub(crate) shutdown: CancellationToken,
}

impl App {
    pub(crate) fn new(sources: Arc<Sources>, token: Option<Arc<Token>>, shutdown: CancellationToken) -> Self {
        let questions = Arc::new(Semaphore::new(questions_max()));
        let subscriptions = Arc::new(Semaphore::new(SUBSCRIPTIONS_MAX));
        Self { sources, token, questions, subscriptions, shutdown }
    }
}

fn questions_max() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from).clamp(*QUESTIONS.start(), *QUESTIONS.end())
}

/// Every path.
pub(crate) fn router(app: App) -> Router {
    let shared = Arc::new(SharedAnswers::new(Arc::clone(&app.sources.clock)));
    let shared = Router::new()
        .route("/api/v1/edges", get(api::edges))
        .route("/api/v1/series", get(api::series))
        .route("/api/v1/diff", get(api::diff))
        .route("/api/v1/connections", get(api::connections))
        .route("/api/v1/dns", get(api::dns))
        .layer(middleware::from_fn_with_state(shared, share));
    let guarded = shared
        .route("/api/v1/status", get(api::status))
        .route("/api/v1/transactions", get(api::transactions))
        .route("/api/v1/metadata", get(api::metadata))
        .route("/metrics", get(metrics::metrics))
        .layer(middleware::from_fn_with_state(app.clone(), authorize));
    Router::new()
        .merge(guarded)
        .route("/openapi.json", get(openapi::description))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(get(page::file))
        .layer(middleware::from_fn_with_state(app.clone(), finish))
        .with_state(app)
}

/// The process lives and answers.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "`ok`", body = String)))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// The log is replayed and the state answers.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "`ready`", body = String),
    (status = 503, description = "The state does not answer", body = Problem),
))]
pub(crate) async fn readyz(State(app): State<App>) -> Response {
    let answered = tokio::task::spawn_blocking(move || {
        use weir_store::StateStore as _;
        app.sources.store.view().map(drop).map_err(|error| error.to_string())
    })
    .await;
    match answered {
        Ok(Ok(())) => "ready\n".into_response(),
        Ok(Err(error)) => problem(StatusCode::SERVICE_UNAVAILABLE, format!("failed to {error}")),
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

/// An error's body.
pub(crate) fn problem(status: StatusCode, error: String) -> Response {
    (status, axum::Json(Problem { error, position: None })).into_response()
}

async fn authorize(State(app): State<App>, request: Request, next: Next) -> Response {
    if let Some(token) = &app.token {
        let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if !token.accepts(given) {
            app.sources.counts.unauthorized.fetch_add(1, Ordering::Relaxed);
            let text = "this server wants `Authorization: Bearer TOKEN` with the content of its token file";
            let mut response = problem(StatusCode::UNAUTHORIZED, text.to_owned());
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return response;
        }
    }
    next.run(request).await
}

/// Headers that every answer has, and its count.
async fn finish(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let counts = &app.sources.counts;
    counts.http_requests.fetch_add(1, Ordering::Relaxed);
    if response.status().is_client_error() {
        counts.http_bad_requests.fetch_add(1, Ordering::Relaxed);
    } else if response.status().is_server_error() {
        counts.http_failures.fetch_add(1, Ordering::Relaxed);
    }
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
