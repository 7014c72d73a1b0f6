//! `/metrics`: the server's, the store's and every node's counters as Prometheus text.

use super::{App, problem};
use crate::query::status;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::fmt::Write as _;
use weir_wire::api::{Answer, Problem, StatusRow};

/// Names that can fall: gauges. All others are counters.
const GAUGES: [&str; 27] = [
    "disagreements",
    "transactions",
    "facts",
    "log_bytes",
    "segments",
    "segments_10s",
    "segments_1m",
    "segments_1h",
    "segment_bytes",
    "segment_bytes_10s",
    "segment_bytes_1m",
    "segment_bytes_1h",
    "history_rows",
    "history_rows_10s",
    "history_rows_1m",
    "history_rows_1h",
    "translations",
    "dns",
    "dns_names",
    "pending_rows",
    "watermark",
    "agents_connected",
    "streams",
    "last_sequence",
    "clock_offset_ms",
    "objects",
    "facts_open",
];

/// Counters and gauges in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "health", responses(
    (status = 200, description = "Prometheus' text format", body = String, content_type = "text/plain"),
    (status = 401, description = "The token is missing or wrong", body = Problem),
    (status = 500, description = "The store failed", body = Problem),
))]
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    let answered = tokio::task::spawn_blocking(move || status::answer(&app.sources)).await;
    match answered {
        Ok(Ok(answer)) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text(&answer)).into_response()
        }
        Ok(Err(error)) => problem(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to {error}")),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn text(answer: &Answer<StatusRow>) -> String {
    let mut families: std::collections::BTreeMap<String, (&str, Vec<String>)> = std::collections::BTreeMap::new();
    let mut add = |name: String, kind: &'static str, labels: String, value: u64| {
        let family = families.entry(name).or_insert((kind, Vec::new()));
        family.1.push(format!("{labels} {value}"));
    };
    for row in &answer.items {
        let labels = match row.kind.as_str() {
            "node" => format!("{{node=\"{}\"}}", escape(&row.name)),
            "watch" => format!("{{resource=\"{}\"}}", escape(&row.name)),
            _ => String::new(),
        };
        add(format!("weir_{}_healthy", row.kind), "gauge", labels.clone(), u64::from(row.health == "healthy"));
        for (counter, value) in &row.counters {
            let counter: String =
                counter.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
            if GAUGES.contains(&counter.as_str()) {
                add(format!("weir_{}_{counter}", row.kind), "gauge", labels.clone(), *value);
            } else {
                add(format!("weir_{}_{counter}_total", row.kind), "counter", labels.clone(), *value);
            }
        }
    }
    for loss in &answer.completeness.losses {
        let labels = format!(
            "{{node=\"{}\",place=\"{}\",reason=\"{}\",intended=\"{}\"}}",
            escape(&loss.node),
            escape(&loss.place),
            escape(&loss.reason),
            loss.intended
        );
        add("weir_lost_recently".to_owned(), "gauge", labels, loss.count);
    }
    let mut text = String::new();
    for (name, (kind, samples)) in families {
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for sample in samples {
            let _ = writeln!(text, "{name}{sample}");
        }
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_gauges_are_told_apart_and_names_are_escaped() {
        let row = StatusRow {
            kind: "node".into(),
            name: "a\"b".into(),
            health: "healthy".into(),
            counters: [("batches".to_owned(), 3), ("clock_offset_ms".to_owned(), 1), ("polls_http-x".to_owned(), 2)]
                .into(),
            ..StatusRow::default()
        };
        let text = text(&Answer { items: vec![row], ..Answer::default() });
        assert!(text.contains("# TYPE weir_node_batches_total counter\nweir_node_batches_total{node=\"a\\\"b\"} 3\n"));
        assert!(text.contains("# TYPE weir_node_clock_offset_ms gauge\n"));
        assert!(text.contains("weir_node_polls_http_x_total{"));
    }
}
