//! The paths under `/api/v1`: parameters in, `{"items": [...], "completeness": {...}}` or a problem out.

use super::subscription::{Ask, subscribe};
use super::{App, problem};
use crate::query::params::{Asked, parse};
use crate::query::{Unanswered, diff, dns, edges, records, status};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::IntoParams;
use weir_wire::api::{
    Answer, Change, ConnectionRow, DnsRow, Edge, MetadataRow, Problem, Series, StatusRow, Transaction,
};

/// The span, and names.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters; `query::params` reads them")]
pub(crate) struct CommonParameters {
    /// The span's start: a duration back from now (`5m`, `2h`, `7d`) or an RFC 3339 time. Default: 5m for edges,
    /// connections and dns, 1h for series, everything kept for transactions and metadata.
    since: Option<String>,
    /// The span's end, which it does not contain; same forms. Default: now.
    until: Option<String>,
    /// A name of either end, `*` for any characters: pod, workload, container, process, container id, or address; of dns
    /// also the name that was asked for.
    name: Option<String>,
    /// The Kubernetes namespace of either end; `*` allowed.
    namespace: Option<String>,
    /// `key=value`: an attribute of either end: `process`, `container_id`, `cgroup_path`, or what was collected about its
    /// container, pod, owner, Service, namespace or node (`KIND.NAME=value` for one kind alone); `*` allowed in the value.
    label: Option<String>,
    /// A network or an address that holds either end (of dns: the server), for example `10.0.0.0/8`. Of edges an end's own
    /// address, behind a Service its pod's; of connections what the socket was told, which may be the Service's.
    cidr: Option<String>,
    /// The node; `*` allowed.
    node: Option<String>,
    /// In the filter language, for example `namespace=shop and (port=443 or server.workload~"pay*")`: see
    /// `docs/queries.md`. It is joined with the other filters by `and`.
    filter: Option<String>,
    /// Rows at most, 1 to 1000000; default 1000 (series: 10). `completeness.omitted` counts the rest; where rows are sums
    /// (edges, series, dns), one more row, `other`, sums it up.
    limit: Option<u32>,
}

/// An instant that is gone.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters; `query::params` reads them")]
pub(crate) struct InstantParameters {
    /// The instant that the answer is about, in the forms of `since`: the span ends there instead of now, and durations lead
    /// back from there. Of metadata: what was so at that instant.
    at: Option<String>,
}

/// Which rows come first.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters; `query::params` reads them")]
pub(crate) struct SortParameters {
    /// The number whose largest come first. Edges and series: `bytes` (default), `sent_bytes`, `recv_bytes`, `connections`,
    /// `retransmits`, `rtt_us`, `failures`. Connections: `bytes` (default), `sent_bytes`, `recv_bytes`, `retransmits`,
    /// `rtt_us`. Dns: `queries` (default), `failures`, `retransmits`, `latency_us`.
    sort: Option<String>,
}

/// How edges do.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters; `query::params` reads them")]
pub(crate) struct HealthParameters {
    /// `true`: every edge has its `health`, against its own past: the hour before the span. See `docs/health.md`.
    health: Option<bool>,
    /// `true`: only edges that are unhealthy, with their `health`; the default span is then a minute.
    unhealthy: Option<bool>,
}

/// What is compared.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters; `query::params` reads them")]
pub(crate) struct ComparedParameters {
    /// The earlier span: an instant (a duration back from now or an RFC 3339 time), of which the `window` before it is meant,
    /// or `FROM..UNTIL`. Needed, but for `rollout`.
    before: Option<String>,
    /// The later span, in the same forms. Default: now. Named by its end, it begins no earlier than `before` ends.
    after: Option<String>,
    /// How long a span is that is named by its end, 10s to 7d; default 10m.
    window: Option<String>,
    /// `NAMESPACE/DEPLOYMENT` instead of both: the windows before and after its newest ReplicaSet was made.
    rollout: Option<String>,
}

/// Which edges.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters; `query::params` reads them")]
pub(crate) struct ChoiceParameters {
    /// A name of either end, `*` for any characters.
    name: Option<String>,
    /// The Kubernetes namespace of either end; `*` allowed.
    namespace: Option<String>,
    /// `key=value`: an attribute of either end, as of edges.
    label: Option<String>,
    /// A network or an address that holds either end.
    cidr: Option<String>,
    /// The node; `*` allowed.
    node: Option<String>,
    /// In the filter language, as of edges; what is summed up must fit in one of the spans.
    filter: Option<String>,
    /// Changes at most, 1 to 1000000; default 1000. `completeness.omitted` counts the rest.
    limit: Option<u32>,
}

/// How long steps are.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters; `query::params` reads them")]
pub(crate) struct StepParameters {
    /// A multiple of 10s up to 7d. Default: what fits the span, at most 120 steps. It is made longer where old history is
    /// coarser; `completeness.steps` says what it is.
    step: Option<String>,
}

/// Both ends and what is between them.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters; `query::params` reads them")]
pub(crate) struct TrafficParameters {
    /// The client's name, as `name`.
    from: Option<String>,
    /// The server's name, as `name`.
    to: Option<String>,
    /// The server's port; of connections and transactions, either port.
    port: Option<u16>,
    /// `tcp` or `udp`.
    protocol: Option<String>,
    /// The Service that was gone through, or one of those that it could be: `name` or `namespace/name`; `*` allowed.
    service: Option<String>,
}

/// Which things.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters; `query::params` reads them")]
pub(crate) struct ThingParameters {
    /// The thing's kind, for example `pod`; `*` allowed.
    kind: Option<String>,
}

/// Who asked whom.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters; `query::params` reads them")]
pub(crate) struct DnsParameters {
    /// The client's name, as `name`.
    from: Option<String>,
    /// The server's name, as `name`.
    to: Option<String>,
}

/// How edges are grouped.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters; `query::params` reads them")]
pub(crate) struct GroupingParameters {
    /// `workload` (default), `pod`, `container`, `service`, `namespace`, `node`, `zone`, `process`, `address`, or
    /// `attribute:NAME` with an attribute that is collected (`attribute:KIND.NAME` for one kind alone). Under `service` a
    /// server is the Service that was gone through, a client its workload. Where an end has no value under a grouping: service, attribute and
    /// process fall back to the workload, that and container to pod, container, process; zone and namespace to the node;
    /// an end beyond the cluster stays `external`, with the name that its client was told for its address by DNS, else
    /// the name of a configured network, else its address.
    by: Option<String>,
}

/// What of a grouping by namespace is opened.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters; `query::params` reads them")]
pub(crate) struct ExpandParameters {
    /// With `by=namespace`, any number of times: a namespace (`shop`), whose ends are named by their workload; a workload
    /// (`shop/cart`), whose ends are named by their pod; or `node:NAME`: what runs on that node beside pods is named by
    /// container or process.
    expand: Option<Vec<String>>,
}

/// Which connections by their condition.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters; `query::params` reads them")]
pub(crate) struct ConditionParameters {
    /// `open`, `closed` or `all` (default).
    state: Option<String>,
}

/// How the server, its store and every node do.
#[utoipa::path(get, path = "/api/v1/status", tag = "api", responses(
    (status = 200, description = "One row a part", body = Answer<StatusRow>),
    (status = 400, description = "A parameter is wrong", body = Problem),
    (status = 401, description = "The token is missing or wrong", body = Problem),
    (status = 500, description = "The store failed", body = Problem),
))]
pub(crate) async fn status(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    answer(app, Asked::Status, query, |sources, _| status::answer(sources)).await
}

/// Who talks to whom. With `Accept: text/event-stream`, as server-sent events: an event `answer`, whose data is the same
/// JSON, at once and again when the answer has changed, at most once in 2 s; a comment at least every 10 s where it has not;
/// an event `problem` before the end where it can no longer be answered.
#[utoipa::path(get, path = "/api/v1/edges", tag = "api",
    params(
        CommonParameters, InstantParameters, TrafficParameters, GroupingParameters, ExpandParameters, SortParameters,
        HealthParameters
    ), responses(
    (status = 200, description = "One row an edge, the largest first", content(
        (Answer<Edge> = "application/json"), (String = "text/event-stream"),
    )),
    (status = 400, description = "A parameter is wrong", body = Problem),
    (status = 401, description = "The token is missing or wrong", body = Problem),
    (status = 500, description = "The store failed", body = Problem),
    (status = 503, description = "Too many subscriptions, or the server is shutting down", body = Problem),
))]
pub(crate) async fn edges(State(app): State<App>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accepts.split(',').any(|form| form.split(';').next().is_some_and(|form| form.trim() == "text/event-stream")) {
        return subscribe(app, Asked::Edges, query, edges::answer).await;
    }
    answer(app, Asked::Edges, query, edges::answer).await
}

/// Who talks to whom, step by step.
#[utoipa::path(get, path = "/api/v1/series", tag = "api",
    params(
        CommonParameters, InstantParameters, StepParameters, TrafficParameters, GroupingParameters, ExpandParameters, SortParameters
    ), responses(
    (status = 200, description = "One row an edge with its steps, the largest first", body = Answer<Series>),
    (status = 400, description = "A parameter is wrong, or the span has too many steps", body = Problem),
    (status = 401, description = "The token is missing or wrong", body = Problem),
    (status = 500, description = "The store failed", body = Problem),
))]
pub(crate) async fn series(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    answer(app, Asked::Series, query, edges::series).await
}

/// What is different between two spans: edges new, gone, shifted, sicker, better.
#[utoipa::path(get, path = "/api/v1/diff", tag = "api",
    params(ComparedParameters, ChoiceParameters, TrafficParameters, GroupingParameters, ExpandParameters), responses(
    (status = 200, description = "One row a change, the weightiest first; `completeness` is of the later span, its `before` of the \
                                  earlier", body = Answer<Change>),
    (status = 400, description = "A parameter is wrong, or the rollout is not known", body = Problem),
    (status = 401, description = "The token is missing or wrong", body = Problem),
    (status = 500, description = "The store failed", body = Problem),
))]
pub(crate) async fn diff(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    answer(app, Asked::Diff, query, diff::answer).await
}

/// Connections open in the span, with what moved in it; both views of a connection are rows.
#[utoipa::path(get, path = "/api/v1/connections", tag = "api",
    params(CommonParameters, InstantParameters, TrafficParameters, ConditionParameters, SortParameters), responses(
    (status = 200, description = "One row a view, the largest first", body = Answer<ConnectionRow>),
    (status = 400, description = "A parameter is wrong", body = Problem),
    (status = 401, description = "The token is missing or wrong", body = Problem),
    (status = 500, description = "The store failed", body = Problem),
))]
pub(crate) async fn connections(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    answer(app, Asked::Connections, query, records::connections).await
}

/// The stored counters: totals, newest change first.
#[utoipa::path(get, path = "/api/v1/transactions", tag = "api",
    params(CommonParameters, TrafficParameters, ConditionParameters), responses(
    (status = 200, description = "One row a counter", body = Answer<Transaction>),
    (status = 400, description = "A parameter is wrong", body = Problem),
    (status = 401, description = "The token is missing or wrong", body = Problem),
    (status = 500, description = "The store failed", body = Problem),
))]
pub(crate) async fn transactions(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    answer(app, Asked::Transactions, query, records::transactions).await
}

/// Who is who: what each source said, and from when to when it was so.
#[utoipa::path(get, path = "/api/v1/metadata", tag = "api",
    params(CommonParameters, InstantParameters, ThingParameters), responses(
    (status = 200, description = "One row a fact", body = Answer<MetadataRow>),
    (status = 400, description = "A parameter is wrong", body = Problem),
    (status = 401, description = "The token is missing or wrong", body = Problem),
    (status = 500, description = "The store failed", body = Problem),
))]
pub(crate) async fn metadata(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    answer(app, Asked::Metadata, query, records::metadata).await
}

/// What clients asked of DNS servers over UDP: queries, failures, latency. Over TCP, TLS and HTTPS nothing is seen.
#[utoipa::path(get, path = "/api/v1/dns", tag = "api",
    params(CommonParameters, InstantParameters, DnsParameters, GroupingParameters, SortParameters), responses(
    (status = 200, description = "One row a client, server, name and type, the largest first", body = Answer<DnsRow>),
    (status = 400, description = "A parameter is wrong", body = Problem),
    (status = 401, description = "The token is missing or wrong", body = Problem),
    (status = 500, description = "The store failed", body = Problem),
))]
pub(crate) async fn dns(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    answer(app, Asked::Dns, query, dns::answer).await
}

async fn answer<T: Serialize + 'static, E: Into<Unanswered> + 'static>(
    app: App,
    asked: Asked,
    query: Option<String>,
    ask_for: Ask<T, E>,
) -> Response {
    let pairs = match pairs_of(query.as_deref()) {
        Ok(pairs) => pairs,
        Err(refused) => return *refused,
    };
    match ask(&app, asked, &pairs, ask_for, serde_json::to_vec).await {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(refused) => refused,
    }
}

/// A request's parameters.
pub(super) fn pairs_of(query: Option<&str>) -> Result<Vec<(String, String)>, Box<Response>> {
    serde_urlencoded::from_str(query.unwrap_or_default()).map_err(|error| {
        Box::new(problem(StatusCode::BAD_REQUEST, format!("the query is not name=value&...: {error}")))
    })
}

/// Asks as of now and writes the answer, on a blocking thread, when it is this question's turn.
pub(super) async fn ask<T, E, W>(
    app: &App,
    asked: Asked,
    pairs: &[(String, String)],
    answer: Ask<T, E>,
    write: fn(&Answer<T>) -> serde_json::Result<W>,
) -> Result<W, Response>
where
    T: Serialize + 'static,
    E: Into<Unanswered> + 'static,
    W: Send + 'static,
{
    let question = parse(asked, pairs, app.sources.clock.wall())
        .map_err(|wrong| (StatusCode::BAD_REQUEST, axum::Json(wrong.0)).into_response())?;
    // Closed only when the server is gone.
    let Ok(turn) = std::sync::Arc::clone(&app.questions).acquire_owned().await else {
        return Err(problem(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down".to_owned()));
    };
    let sources = std::sync::Arc::clone(&app.sources);
    let answered = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let failed = |text: String| (StatusCode::INTERNAL_SERVER_ERROR, text);
        let answer = answer(&sources, &question).map_err(|error| match error.into() {
            Unanswered::Question(text) => (StatusCode::BAD_REQUEST, text),
            Unanswered::Store(error) => failed(format!("failed to {error}")),
        })?;
        write(&answer).map_err(|error| failed(format!("failed to write the answer: {error}")))
    })
    .await;
    match answered {
        Ok(Ok(written)) => Ok(written),
        Ok(Err((status, text))) => {
            if status.is_server_error() {
                tracing::error!(error = text, "failed to answer");
            }
            Err(problem(status, text))
        }
        Err(error) => {
            tracing::error!(%error, "failed to answer");
            Err(problem(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to answer: {error}")))
        }
    }
}
