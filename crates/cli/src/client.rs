//! A small HTTP/1.1 client: `GET` over TCP to the server's API or over a unix socket to a tracer.
//!
//! Bounded in time and size, so that a server that never answers, or never stops, is an error that says so.

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use weir_wire::api::{Position, Problem};

/// A server on the same machine or network accepts within milliseconds, or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// From request to the body's last byte, where nobody says otherwise.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);

/// About 500,000 transactions of 500 bytes; beyond it `--limit` or a filter is the right tool.
const BODY_MAX: usize = 256 << 20;

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("`{url}` is no server address: {reason}; write for example http://127.0.0.1:7780")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The token file cannot be used.
    #[error("failed to read the token file {path}: {reason}")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Nobody listens.
    #[error("no answer from {target}: {reason}")]
    Unreachable {
        /// Where.
        target: String,
        /// Why.
        reason: String,
    },
    /// It takes too long.
    #[error("no answer from {target} within {}", humantime::format_duration(*.after))]
    Timeout {
        /// Where.
        target: String,
        /// The limit.
        after: Duration,
    },
    /// The connection broke, or it was no HTTP.
    #[error("the answer of {target} broke off or is no HTTP: {reason}")]
    Broken {
        /// Where.
        target: String,
        /// How.
        reason: String,
    },
    /// The answer is too large.
    #[error("the answer of {target} is larger than {} MB: ask for less, for example with --limit or a filter", BODY_MAX >> 20)]
    TooLarge {
        /// Where.
        target: String,
    },
    /// The server refused.
    #[error("{target} answered {status}: {message}")]
    Refused {
        /// Where.
        target: String,
        /// The HTTP status.
        status: u16,
        /// Its words.
        message: String,
        /// Where in a parameter it went wrong.
        position: Option<Position>,
    },
}

#[derive(Clone, Debug)]
enum Target {
    Tcp { authority: String },
    Unix { path: PathBuf },
}

/// Who is asked.
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
    token: Option<String>,
    connect_timeout: Duration,
    total_timeout: Duration,
}

impl Client {
    /// A client of the server at `url` (`http://HOST[:PORT]`, port 80 where none is written).
    ///
    /// # Errors
    /// [`ClientError::Url`].
    pub fn to_url(url: &str) -> Result<Self, ClientError> {
        let wrong = |reason| ClientError::Url { url: url.to_owned(), reason };
        let uri: http::Uri = url.parse().map_err(|_error: http::uri::InvalidUri| wrong("it is no URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(wrong("https is not spoken here: put a tunnel before it")),
            _ => return Err(wrong("it has to begin with http://")),
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("it has to end after the host and port"));
        }
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("a user does not belong in it: use --token-file"));
        }
        let authority = match authority.port_u16() {
            Some(_) => authority.to_string(),
            None => format!("{}:80", authority.host()),
        };
        Ok(Self::to(Target::Tcp { authority }))
    }

    /// A client of whoever listens on the unix socket `path`.
    pub fn to_socket(path: &Path) -> Self {
        Self::to(Target::Unix { path: path.to_owned() })
    }

    fn to(target: Target) -> Self {
        Self { target, token: None, connect_timeout: CONNECT_TIMEOUT, total_timeout: TOTAL_TIMEOUT }
    }

    /// The same client, sending the token in `file`.
    ///
    /// # Errors
    /// [`ClientError::Token`].
    pub fn with_token_file(mut self, file: Option<&Path>) -> Result<Self, ClientError> {
        let Some(path) = file else { return Ok(self) };
        let wrong = |reason: String| ClientError::Token { path: path.into(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let token = text.trim();
        if token.is_empty() || token.bytes().any(|byte| !(0x21..0x7f).contains(&byte)) {
            return Err(wrong("it has to hold one line of printable characters".to_owned()));
        }
        self.token = Some(token.to_owned());
        Ok(self)
    }

    /// The same client with another patience, from request to the body's last byte.
    #[must_use]
    pub fn within(mut self, total: Duration) -> Self {
        self.total_timeout = total;
        self.connect_timeout = self.connect_timeout.min(total);
        self
    }

    /// Whom it asks, for messages.
    pub fn target(&self) -> String {
        match &self.target {
            Target::Tcp { authority } => format!("http://{authority}"),
            Target::Unix { path } => format!("unix:{}", path.display()),
        }
    }

    /// `GET path`, with `query` encoded behind it. The body of a 2xx.
    ///
    /// # Errors
    /// Every [`ClientError`] but `Url` and `Token`.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Bytes, ClientError> {
        self.get_on(&mut None, path, query).await
    }

    /// As [`Client::get`], over the connection in `kept` while that lasts, so that asking every second does not open
    /// one every second.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_on(
        &self,
        kept: &mut Option<Connection>,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Bytes, ClientError> {
        let path = format!("{path}{}", encode(query));
        let exchange = async {
            let old = kept.take().filter(|connection| !connection.sender.is_closed());
            let was_kept = old.is_some();
            let mut connection = match old {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let mut answer = self.ask(&mut connection, &path).await;
            if was_kept && matches!(answer, Err(ClientError::Broken { .. })) {
                // The server has closed it meanwhile: a restart, or its patience with idle connections.
                connection = self.connect().await?;
                answer = self.ask(&mut connection, &path).await;
            }
            // Put back only when the answer was read to its end.
            if matches!(answer, Ok(_) | Err(ClientError::Refused { .. })) {
                *kept = Some(connection);
            }
            answer
        };
        let answer = tokio::time::timeout(self.total_timeout, exchange).await;
        answer.unwrap_or_else(|_elapsed| Err(self.timeout(self.total_timeout)))
    }

    fn timeout(&self, after: Duration) -> ClientError {
        ClientError::Timeout { target: self.target(), after }
    }

    fn broken(&self, error: &dyn std::error::Error) -> ClientError {
        ClientError::Broken { target: self.target(), reason: chain(error) }
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        match &self.target {
            Target::Tcp { authority } => {
                self.handshake(self.connected(TcpStream::connect(authority.as_str())).await?).await
            }
            Target::Unix { path } => self.handshake(self.connected(UnixStream::connect(path)).await?).await,
        }
    }

    async fn connected<S>(&self, connecting: impl Future<Output = std::io::Result<S>>) -> Result<S, ClientError> {
        match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(ClientError::Unreachable { target: self.target(), reason: plain(&error) }),
            Err(_elapsed) => Err(self.timeout(self.connect_timeout)),
        }
    }

    async fn handshake<S>(&self, stream: S) -> Result<Connection, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, driver) = shaken.map_err(|error| self.broken(&error))?;
        Ok(Connection { sender, driver: Some(Box::pin(driver)) })
    }

    async fn ask(&self, connection: &mut Connection, path: &str) -> Result<Bytes, ClientError> {
        let host = match &self.target {
            Target::Tcp { authority } => authority,
            Target::Unix { .. } => "localhost",
        };
        let mut request = http::Request::get(path)
            .header(http::header::HOST, host)
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| self.broken(&error))?;
        let Connection { sender, driver } = connection;
        let exchange = async {
            sender.ready().await.map_err(|error| self.broken(&error))?;
            let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), BODY_MAX).collect().await.map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    ClientError::TooLarge { target: self.target() }
                } else {
                    self.broken(error.as_ref())
                }
            })?;
            Ok((status, body.to_bytes()))
        };
        // The connection moves only while somebody drives it; its own end says nothing that the exchange does not.
        tokio::pin!(exchange);
        let (status, body) = loop {
            let Some(driving) = driver else { break exchange.await? };
            tokio::select! {
                done = &mut exchange => break done?,
                _end = driving => *driver = None,
            }
        };
        if status.is_success() {
            return Ok(body);
        }
        let problem: Option<Problem> = serde_json::from_slice(&body).ok();
        let position = problem.as_ref().and_then(|problem| problem.position.clone());
        let (target, message) = (self.target(), message(status, problem));
        Err(ClientError::Refused { target, status: status.as_u16(), message, position })
    }
}

/// An open connection, for the next question.
pub struct Connection {
    sender: hyper::client::conn::http1::SendRequest<Empty<Bytes>>,
    driver: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
}

/// The server's words in the body of an error, else what its status means.
fn message(status: http::StatusCode, problem: Option<Problem>) -> String {
    let said = problem.map(|problem| problem.error).filter(|error| !error.is_empty());
    let said = said.unwrap_or_else(|| status.canonical_reason().unwrap_or("an unknown status").to_owned());
    if status == http::StatusCode::UNAUTHORIZED { format!("{said} (pass --token-file FILE)") } else { said }
}

/// An I/O error without the operating system's number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    text.to_lowercase()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// `?key=value&...` with every byte beyond RFC 3986's unreserved ones encoded; empty without parameters.
fn encode(query: &[(&str, String)]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for (index, (key, value)) in query.iter().enumerate() {
        text.push(if index == 0 { '?' } else { '&' });
        text.push_str(key);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_encoded_byte_by_byte() {
        assert_eq!(encode(&[]), "");
        assert_eq!(
            encode(&[("since", "2026-01-01T00:00:00+01:00".into()), ("name", "ä &x".into())]),
            "?since=2026-01-01T00%3A00%3A00%2B01%3A00&name=%C3%A4%20%26x"
        );
    }

    #[test]
    fn addresses_that_are_none_are_refused_with_the_reason() {
        for (url, reason) in [
            ("127.0.0.1:7780", "http://"),
            ("https://host", "https"),
            ("http://host/api", "end after"),
            ("http://user:pass@host", "--token-file"),
            ("ftp://host", "http://"),
        ] {
            let error = Client::to_url(url).unwrap_err().to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
        assert_eq!(Client::to_url("http://[::1]:7780/").unwrap().target(), "http://[::1]:7780");
        assert_eq!(Client::to_url("http://host").unwrap().target(), "http://host:80");
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_a_timeout() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::to_url(&url).unwrap().within(Duration::from_millis(50));
        assert!(matches!(client.get("/", &[]).await, Err(ClientError::Timeout { .. })));
    }

    #[tokio::test]
    async fn a_connection_is_kept_and_renewed() {
        use std::io::{BufRead, BufReader, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let accepted = std::thread::spawn(move || {
            // The first connection answers twice and is closed, the second answers once.
            for answers in [2, 1] {
                let (mut stream, _) = listener.accept().unwrap();
                for _ in 0..answers {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut head = String::new();
                    while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
                }
            }
        });
        let client = Client::to_url(&url).unwrap();
        let mut kept = None;
        for _ in 0..3 {
            assert_eq!(client.get_on(&mut kept, "/", &[]).await.unwrap(), "ok");
        }
        accepted.join().unwrap();
    }

    #[tokio::test]
    async fn nobody_listening_is_said_so() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = Client::to_url(&url).unwrap().get("/", &[]).await.unwrap_err();
        assert_eq!(error.to_string(), format!("no answer from {url}: connection refused"));
    }
}
