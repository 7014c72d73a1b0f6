//! One `GET` to a kubelet or an API server: over TLS, with a ServiceAccount's token that is read anew for every
//! request (the kubelet of the agent's pod rotates it), its answer bounded.

use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::{Client, Config};
use std::path::PathBuf;
use std::time::Duration;

/// A node has at most some hundreds of pods of at most some 50 KB of JSON each.
pub const BODY_BYTES_MAX: usize = 64 << 20;
/// Bytes of an error's body that are shown.
const SHOWN: usize = 300;
/// The node's own kubelet, or the API server: neither is far.
const CONNECT: Duration = Duration::from_secs(3);
/// Until the next bytes come.
const READ: Duration = Duration::from_secs(6);

/// Who is asked, and how one knows whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// `https://ADDRESS:PORT`, or `http://` for the kubelet's read-only port.
    pub url: String,
    /// The token; re-read for every request. Never sent without TLS.
    pub token_file: Option<PathBuf>,
    /// The certificates that the server's must be signed by.
    pub ca_file: Option<PathBuf>,
    /// Whoever answers is trusted.
    pub trusts_anyone: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// The URL, the certificates or the token's file.
    #[error("{0}")]
    Setting(String),
    /// Nobody listens.
    #[error("nobody listens on {url}: {reason}")]
    Closed {
        /// Whom.
        url: String,
        /// How the connection ended.
        reason: String,
    },
    /// It is not who it should be.
    #[error("{url} shows a certificate that is not trusted: {reason}")]
    Certificate {
        /// Whom.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The exchange broke, or took too long.
    #[error("the exchange with {url} broke: {reason}")]
    Broken {
        /// Whom.
        url: String,
        /// How.
        reason: String,
    },
    /// An answer that is not 200.
    #[error("{url} answered {status}: {body}")]
    Status {
        /// Whom.
        url: String,
        /// The answer.
        status: StatusCode,
        /// Its first bytes.
        body: String,
    },
    /// Too long an answer.
    #[error("{url} answered more than {BODY_BYTES_MAX} bytes")]
    TooLarge {
        /// Whom.
        url: String,
    },
}

/// The client, made with the first request.
#[derive(Default)]
pub struct Getter {
    client: Option<Client>,
}

impl std::fmt::Debug for Getter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Getter").field("connected", &self.client.is_some()).finish()
    }
}

impl Getter {
    /// The body of what `access` answers to `GET target`. Answered 401, it asks once more if the token's file has
    /// another token by then.
    ///
    /// # Errors
    /// [`GetError`].
    pub async fn get(&mut self, access: &Access, target: &str) -> Result<Vec<u8>, GetError> {
        let token = access.token()?;
        let answer = self.ask(access, target, token.as_deref()).await;
        let Err(GetError::Status { status: StatusCode::UNAUTHORIZED, .. }) = &answer else { return answer };
        let rotated = access.token()?;
        if rotated == token { answer } else { self.ask(access, target, rotated.as_deref()).await }
    }

    async fn ask(&mut self, access: &Access, target: &str, token: Option<&str>) -> Result<Vec<u8>, GetError> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(access.client()?).clone(),
        };
        let mut request = Request::get(target);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .body(Body::empty())
            .map_err(|error| GetError::Setting(format!("{}{target} cannot be asked for: {error}", access.url)))?;
        let answer = client.send(request).await.map_err(|error| access.broken(&error))?;
        let status = answer.status();
        let mut body = answer.into_body();
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| access.broken(&error))?;
            let Ok(chunk) = frame.into_data() else { continue };
            if whole.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(GetError::TooLarge { url: access.url.clone() });
            }
            whole.extend_from_slice(&chunk);
            if status != StatusCode::OK && whole.len() > SHOWN {
                break;
            }
        }
        if status == StatusCode::OK {
            return Ok(whole);
        }
        whole.truncate(SHOWN);
        let body = String::from_utf8_lossy(&whole).trim().to_owned();
        Err(GetError::Status { url: access.url.clone(), status, body })
    }
}

impl Access {
    fn is_plain(&self) -> bool {
        self.url.starts_with("http://")
    }

    /// The token of now.
    fn token(&self) -> Result<Option<String>, GetError> {
        let Some(path) = self.token_file.as_ref().filter(|_| !self.is_plain()) else { return Ok(None) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| GetError::Setting(format!("failed to read the token in {}: {error}", path.display())))?;
        let token = text.trim();
        // What may stand in a header: RFC 6750's token.
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(GetError::Setting(format!("{} holds no token", path.display())));
        }
        Ok(Some(token.to_owned()))
    }

    fn client(&self) -> Result<Client, GetError> {
        let url = self.url.parse().map_err(|error| {
            GetError::Setting(format!("`{}` is no URL: write for example https://10.0.0.1:10250: {error}", self.url))
        })?;
        if let Some(path) = &self.ca_file {
            std::fs::metadata(path).map_err(|error| {
                GetError::Setting(format!("failed to read the certificates in {}: {error}", path.display()))
            })?;
        }
        let mut config = Config::new(url);
        config.root_cert_file = self.ca_file.clone().filter(|_| !self.trusts_anyone);
        config.accept_invalid_certs = self.trusts_anyone;
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(READ);
        config.write_timeout = Some(READ);
        config.reset_reader_on_write = true;
        // Who asks every 10 s need not ask twice.
        config.default_retry = false;
        Client::try_from(config)
            .map_err(|error| GetError::Setting(format!("failed to prepare asking {}: {}", self.url, words(&error))))
    }

    fn broken(&self, error: &kube::Error) -> GetError {
        let (url, reason) = (self.url.clone(), words(error));
        let lower = reason.to_ascii_lowercase();
        if lower.contains("certificate") || lower.contains("unknownissuer") {
            GetError::Certificate { url, reason }
        } else if lower.contains("connection refused") || lower.contains("no route to host") {
            GetError::Closed { url, reason }
        } else {
            GetError::Broken { url, reason }
        }
    }
}

/// The innermost cause: those around it only say that something failed.
fn words(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
