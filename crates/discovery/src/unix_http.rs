//! One HTTP/1.1 request over a unix socket. The caller takes the body chunk by chunk and bounds it; every step here
//! has a deadline, since the other side may be stopped, stuck or lying.

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long each step may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until the socket is connected.
    pub connect: Duration,
    /// Until the reply's head is there.
    pub header: Duration,
}

impl Default for Timeouts {
    /// A local socket connects at once; a tracer that walks 100,000 sockets answers within a second.
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), header: Duration::from_secs(5) }
    }
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody listens there.
    #[error("nobody listens on {path}: {source}")]
    Missing {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The socket may not be used.
    #[error("not allowed to use {path}: run as its owner or join its group")]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// A step took too long.
    #[error("{path} did not {step} within {limit:?}")]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// Which step.
        step: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// The exchange broke.
    #[error("the exchange with {path} broke: {source}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// How.
        source: hyper::Error,
    },
    /// The request cannot be made.
    #[error("not a request target: {0}")]
    Target(#[from] http::Error),
    /// An answer that is not 200.
    #[error("{path} answered {status}")]
    Status {
        /// The socket.
        path: PathBuf,
        /// The answer.
        status: StatusCode,
    },
    /// A body longer than the caller's limit.
    #[error("{path} answered more than {limit} bytes")]
    TooLarge {
        /// The socket.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
}

/// A reply whose body is still coming.
#[derive(Debug)]
pub struct Reply {
    path: PathBuf,
    status: StatusCode,
    content_type: Option<String>,
    body: Incoming,
    /// Drives the connection; ends with the reply.
    _connection: JoinSet<()>,
}

impl Reply {
    /// Whether it is 200; other answers are errors.
    ///
    /// # Errors
    /// [`FetchError::Status`].
    pub fn ok(self) -> Result<Self, FetchError> {
        if self.status == StatusCode::OK {
            return Ok(self);
        }
        Err(FetchError::Status { path: self.path, status: self.status })
    }

    /// The `Content-Type` that the reply's head names.
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// The body's length, where the reply's head announces it.
    pub fn announced(&self) -> Option<u64> {
        hyper::body::Body::size_hint(&self.body).exact()
    }

    /// The body's next chunk, `None` at its end. No deadline: wrap the whole reading in one.
    ///
    /// # Errors
    /// [`FetchError::Broken`] when the body ends before its announced length.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, FetchError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|source| FetchError::Broken { path: self.path.clone(), source })?;
            if let Ok(chunk) = frame.into_data() {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    /// The whole body, at most `limit` bytes, within `time`.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn bytes(mut self, limit: usize, time: Duration) -> Result<Vec<u8>, FetchError> {
        let path = self.path.clone();
        let read = async {
            let mut whole = Vec::new();
            while let Some(chunk) = self.chunk().await? {
                if whole.len() + chunk.len() > limit {
                    return Err(FetchError::TooLarge { path: self.path.clone(), limit });
                }
                whole.extend_from_slice(&chunk);
            }
            Ok(whole)
        };
        timeout(time, read).await.unwrap_or(Err(FetchError::Timeout { path, step: "send its body", limit: time }))
    }
}

/// Sends `GET target` to the server on `path` and waits for the reply's head.
///
/// # Errors
/// [`FetchError`]; a status other than 200 is not one yet, see [`Reply::ok`].
pub async fn get(path: &Path, target: &str, timeouts: Timeouts) -> Result<Reply, FetchError> {
    get_as(path, target, None, timeouts).await
}

/// The same, with an `Accept` header.
///
/// # Errors
/// As [`get`].
pub async fn get_as(
    path: &Path,
    target: &str,
    accept: Option<&'static str>,
    timeouts: Timeouts,
) -> Result<Reply, FetchError> {
    let late = |step, limit| FetchError::Timeout { path: path.into(), step, limit };
    let stream = timeout(timeouts.connect, UnixStream::connect(path))
        .await
        .map_err(|_elapsed| late("accept the connection", timeouts.connect))?
        .map_err(|source| match source.kind() {
            ErrorKind::PermissionDenied => FetchError::Denied { path: path.into() },
            _ => FetchError::Missing { path: path.into(), source },
        })?;
    let mut request = http::Request::get(target).header(http::header::HOST, "weir");
    if let Some(accept) = accept {
        request = request.header(http::header::ACCEPT, accept);
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let broken = |source| FetchError::Broken { path: path.into(), source };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // An error of the connection reaches the caller through the request or the body.
        let _ = connection.await;
    });
    let reply = timeout(timeouts.header, sender.send_request(request))
        .await
        .map_err(|_elapsed| late("answer", timeouts.header))?
        .map_err(broken)?;
    let content_type = reply.headers().get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    Ok(Reply {
        path: path.into(),
        status: reply.status(),
        content_type: content_type.map(str::to_owned),
        body: reply.into_body(),
        _connection: driver,
    })
}
