//! `/openapi.json`: the API's description, made from the handlers and the wire's types.

use axum::Json;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "weir",
        description = "Who talks to whom, how much, how well. Every answer says how complete it is.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        super::api::status,
        super::api::edges,
        super::api::series,
        super::api::diff,
        super::api::connections,
        super::api::transactions,
        super::api::metadata,
        super::api::dns,
        super::metrics::metrics,
        super::healthz,
        super::readyz,
        description,
    ),
    tags(
        (name = "api", description = "Answers as `{\"items\": [...], \"completeness\": {...}}`"),
        (name = "health", description = "For supervisors and scrapers"),
    )
)]
struct Description;

/// The description.
pub(crate) fn openapi() -> utoipa::openapi::OpenApi {
    let mut description = Description::openapi();
    env!("CARGO_PKG_VERSION").clone_into(&mut description.info.version);
    description
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "health", responses((status = 200, description = "OpenAPI 3.1")))]
pub(crate) async fn description() -> Json<utoipa::openapi::OpenApi> {
    Json(openapi())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_described_with_its_schemas_and_errors() {
        let text = serde_json::to_value(openapi()).unwrap();
        for path in ["status", "edges", "series", "diff", "connections", "transactions", "metadata", "dns"] {
            let responses = &text["paths"][format!("/api/v1/{path}")]["get"]["responses"];
            for status in ["200", "400", "401", "500"] {
                let schema = &responses[status]["content"]["application/json"]["schema"];
                assert!(schema.is_object(), "{path} {status}: {responses}");
            }
        }
        for schema in [
            "Edge",
            "EdgeEnd",
            "Completeness",
            "NodeCoverage",
            "LossTotal",
            "Problem",
            "Transaction",
            "DnsRow",
            "Point",
        ] {
            assert!(text["components"]["schemas"][schema].is_object(), "{schema}");
        }
    }

    #[test]
    fn the_described_parameters_are_those_that_are_read() {
        use crate::query::params::{Asked, parse};
        let text = serde_json::to_value(openapi()).unwrap();
        for (path, asked) in [
            ("edges", Asked::Edges),
            ("series", Asked::Series),
            ("diff", Asked::Diff),
            ("connections", Asked::Connections),
            ("transactions", Asked::Transactions),
            ("metadata", Asked::Metadata),
            ("dns", Asked::Dns),
        ] {
            let described = text["paths"][format!("/api/v1/{path}")]["get"]["parameters"].as_array().unwrap();
            let mut names: Vec<&str> = described.iter().map(|one| one["name"].as_str().unwrap()).collect();
            names.sort_unstable();
            let unknown = [("no_such".to_owned(), String::new())];
            let problem = parse(asked, &unknown, weir_model::UnixNanos(0)).unwrap_err().0.error;
            let mut known: Vec<&str> = problem.split("known are ").nth(1).unwrap().split(", ").collect();
            known.sort_unstable();
            assert_eq!(names, known, "{path}");
        }
    }
}
