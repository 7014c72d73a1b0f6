//! The server: ingest, log, identify, pair, query, HTTP, web.
//!
//! ```text
//! agents ─gRPC─▶ ingest ─▶ store's log (group fsync) ─▶ acknowledge
//!                                   └─▶ apply ─▶ state, history ─▶ query (pair, name, sum) ─▶ HTTP API, page
//! ```

mod apply;
mod args;
mod auth;
pub mod care;
mod cluster;
mod compact;
mod counts;
mod facts;
mod flush;
mod http;
mod ingest;
mod live;
mod names;
mod pairing;
mod query;
mod server;
mod state;
mod statistics;
mod tiers;
mod told;
mod translations;

pub use args::{Args, WrongSetting};
pub use server::Server;

use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use weir_daemon::clock::SystemClock;

/// Runs the server until `shutdown` is cancelled.
///
/// # Errors
/// When it cannot start (the data folder is held by another server, a port is taken, a listener that is not on loopback
/// has neither a token nor `--insecure`), or when a critical task fails.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    Server::start(args, Arc::new(SystemClock::new()), shutdown).await?.run().await
}

/// The HTTP API's description, as `/openapi.json` serves it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    http::openapi::openapi()
}
