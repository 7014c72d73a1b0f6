//! The gate: a listener on this machine's loopback that leads to the server in the cluster's control namespace, and
//! shows the server's token for whoever comes, so that a browser can be pointed at it.

use super::place::Place;
use super::serving::Serving;
use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use std::net::{SocketAddr, TcpListener};

/// A running gate.
#[derive(Debug)]
pub(crate) struct Gate {
    _serving: Serving,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Gate {
    /// Opens one on `listener` to `server` as it is reached from `inside`.
    pub(crate) fn open(listener: TcpListener, inside: &Place, server: SocketAddr, token: &str) -> Result<Self> {
        let address = listener.local_addr()?;
        let bearer = HeaderValue::try_from(format!("Bearer {token}")).context("the token is no header value")?;
        let forward = move |request: Request| {
            let bearer = bearer.clone();
            async move { forward(server, bearer, request).await }
        };
        let serving = Serving::start(listener, Some(inside.clone()), Router::new().fallback(forward))?;
        Ok(Self { _serving: serving, address })
    }
}

async fn forward(server: SocketAddr, bearer: HeaderValue, mut request: Request) -> Response {
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    match exchange(server, request).await {
        Ok(response) => response,
        Err(error) => {
            (StatusCode::BAD_GATEWAY, format!("the server at {server} does not answer: {error:#}\n")).into_response()
        }
    }
}

/// One request on a connection of its own, which lives as long as the answer's body.
async fn exchange(server: SocketAddr, request: Request) -> Result<Response> {
    let stream = tokio::net::TcpStream::connect(server).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let (response, driver) = {
        let mut connection = Box::pin(connection);
        let answer = sender.send_request(request);
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => (answer?, connection),
            ended = &mut connection => {
                ended?;
                (answer.await?, connection)
            }
        }
    };
    Ok(response.map(|body| Body::new(Driven { body, driver: Some(driver), _sender: sender })))
}

/// A body that drives its own connection: no task of its own is needed.
struct Driven<C> {
    body: hyper::body::Incoming,
    driver: Option<C>,
    _sender: hyper::client::conn::http1::SendRequest<Body>,
}

impl<C: Future<Output = hyper::Result<()>> + Unpin> hyper::body::Body for Driven<C> {
    type Data = hyper::body::Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<hyper::Result<hyper::body::Frame<Self::Data>>>> {
        let this = &mut *self;
        if let Some(driver) = &mut this.driver
            && std::pin::Pin::new(driver).poll(context).is_ready()
        {
            // The body says itself whether it is whole.
            this.driver = None;
        }
        std::pin::Pin::new(&mut this.body).poll_frame(context)
    }
}
