//! The server: ingest, log, identify, pair, query, HTTP, web.
//!
//! ```text
//! agents ─gRPC─▶ ingest ─▶ store's log (group fsync) ─▶ acknowledge
//!                                   └─▶ applier ─▶ state, history ─▶ query ─▶ HTTP API, page
//! ```

pub mod args;

pub use args::Args;

use tokio_util::sync::CancellationToken;

/// Runs the server until `shutdown` is cancelled.
///
/// # Errors
/// When it cannot start (the data folder is held by another server, a port is taken, a listener that is not on loopback
/// has neither a token nor `--insecure`), or when a critical task fails.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    tracing::info!(data = %args.data.display(), "server starts");
    shutdown.cancelled().await;
    Ok(())
}

/// The HTTP API's description, as `/openapi.json` serves it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    utoipa::openapi::OpenApiBuilder::new().build()
}
