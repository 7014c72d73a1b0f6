//! What `weir up` shows comes from the same HTTP API as everybody's answers: asked here, again and again.

use crate::client::{Client, ClientError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use weir_wire::api::{Answer, Edge};

/// How often the live table asks; a slow server is asked less.
const LOOK: Duration = Duration::from_secs(1);

/// Edges that are asked for: more than any screen shows, so that the totals are whole on most machines.
const LOOK_LIMIT: u32 = 1000;

/// Asks for the edges since start again and again, as soon as the page's address is known.
pub async fn look(
    mut page: watch::Receiver<Option<SocketAddr>>,
    token_file: Option<PathBuf>,
    since: String,
    answers: mpsc::Sender<Result<Answer<Edge>, String>>,
) {
    let query = [("since", since), ("limit", LOOK_LIMIT.to_string())];
    // Our own questions are traffic too: one connection for all of them keeps them out of the way.
    let mut kept = None;
    loop {
        let Ok(address) = page.wait_for(Option::is_some).await.map(|address| *address) else { return };
        let Some(address) = address else { continue };
        let began = Instant::now();
        let answer = async {
            let client = Client::to_url(&format!("http://{address}"))?.with_token_file(token_file.as_deref())?;
            let body = client.get_on(&mut kept, "/api/v1/edges", &query).await?;
            serde_json::from_slice(&body)
                .map_err(|error| ClientError::Broken { target: client.target(), reason: error.to_string() })
        };
        let answer: Result<Answer<Edge>, ClientError> = answer.await;
        if answers.send(answer.map_err(|error| error.to_string())).await.is_err() {
            return;
        }
        // A tenth of the server's time at most.
        tokio::time::sleep(LOOK.max(began.elapsed() * 10)).await;
    }
}
