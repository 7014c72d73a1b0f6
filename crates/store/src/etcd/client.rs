//! Calls of etcd's API: the endpoint that answers, the token, deadlines, and errors that say what to do.

use super::Options;
use super::messages::{AuthenticateRequest, AuthenticateResponse};
use crate::error::StoreError;
use prost::Message;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tonic::client::Grpc;
use tonic::codegen::http::uri::{PathAndQuery, Uri};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

/// One try: etcd's own deadline for a write without a majority is 7 s; another member may answer sooner.
const TRY: Duration = Duration::from_secs(3);
/// Making a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// So often every endpoint is tried before a call fails; at least [`TRIES_MIN`] tries.
const ROUNDS: usize = 2;
const TRIES_MIN: usize = 3;
/// Between two tries at most.
const PAUSE_MS_MAX: u64 = 200;
/// An answer: a page of rows, or the current versions of a batch of the largest rows.
pub(super) const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Why a call failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The revision that was asked for is compacted.
    Compacted,
    /// The answer is larger than [`ANSWER_BYTES_MAX`].
    AnswerTooLarge,
    /// Everything else, told.
    Other(StoreError),
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Tries that failed and were made again.
    pub(super) retries: AtomicU64,
    /// Tokens asked for.
    pub(super) tokens: AtomicU64,
}

pub(super) struct Client {
    endpoints: Vec<(String, Channel)>,
    current: AtomicUsize,
    user: Option<(String, String)>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
    place: String,
    pub(super) counts: Counts,
}

impl Client {
    /// Connects with the first call. Must be called within a runtime.
    ///
    /// # Errors
    /// When an endpoint is no address, or one beyond this machine without TLS.
    pub(super) fn new(options: &Options) -> Result<Self, StoreError> {
        let place = options.place();
        let wrong = |text: String| StoreError::Remote { action: "use", place: place.clone(), text };
        if options.endpoints.is_empty() {
            return Err(wrong("no endpoint is named; give --etcd-endpoints http://127.0.0.1:2379".into()));
        }
        let identity = options.identity.as_ref();
        for (content, flag, begin) in [
            (options.ca.as_ref(), "--etcd-ca", "-----BEGIN CERTIFICATE-----"),
            (identity.map(|(certificate, _)| certificate), "--etcd-cert", "-----BEGIN CERTIFICATE-----"),
            (identity.map(|(_, key)| key), "--etcd-key", "PRIVATE KEY-----"),
        ] {
            if content.is_some_and(|content| !String::from_utf8_lossy(content).contains(begin)) {
                return Err(wrong(format!("the file of {flag} has no line `{begin}`; give it as PEM")));
            }
        }
        let mut endpoints = Vec::new();
        for text in &options.endpoints {
            let uri: Uri = text
                .parse()
                .map_err(|error| wrong(format!("`{text}` is no address ({error}); write https://HOST:2379")))?;
            let mut endpoint = Endpoint::from(uri.clone())
                .connect_timeout(CONNECT)
                .http2_keep_alive_interval(Duration::from_secs(10))
                .keep_alive_timeout(TRY)
                .keep_alive_while_idle(true);
            match uri.scheme_str() {
                Some("https") => {
                    let Some(ca) = &options.ca else {
                        return Err(wrong(format!(
                            "{text} needs the certificates that vouch for it: give --etcd-ca FILE"
                        )));
                    };
                    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
                    if let Some((certificate, key)) = &options.identity {
                        tls = tls.identity(Identity::from_pem(certificate, key));
                    }
                    endpoint = endpoint.tls_config(tls).map_err(|error| {
                        wrong(format!("{error:?}; are --etcd-ca, --etcd-cert and --etcd-key PEM files?"))
                    })?;
                }
                Some("http") if is_loopback(&uri) || options.insecure => {}
                Some("http") => {
                    return Err(wrong(format!(
                        "{text} is another machine and not encrypted; use https:// and --etcd-ca FILE, or allow it with --etcd-insecure"
                    )));
                }
                _ => return Err(wrong(format!("`{text}` is no http or https address; write https://HOST:2379"))),
            }
            endpoints.push((text.clone(), endpoint.connect_lazy()));
        }
        Ok(Self {
            endpoints,
            current: AtomicUsize::new(0),
            user: options.user.clone(),
            token: Mutex::new(None),
            place,
            counts: Counts::default(),
        })
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// One answer to one request. A try without an answer may have been carried out: callers repeat only what may be.
    pub(super) async fn call<Q, R>(&self, action: &'static str, path: &'static str, request: &Q) -> Result<R, Failure>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + 'static,
    {
        let tries = (ROUNDS * self.endpoints.len()).max(TRIES_MIN);
        let mut refreshed = false;
        let mut last = String::new();
        for attempt in 0..tries {
            if attempt > 0 {
                self.counts.retries.fetch_add(1, Ordering::Relaxed);
                pause(PAUSE_MS_MAX).await;
            }
            let index = self.current.load(Ordering::Relaxed) % self.endpoints.len();
            let (name, channel) = &self.endpoints[index];
            let status = match self.attempt(channel, path, request).await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            match self.judge(action, &status) {
                Judged::Final(failure) => return Err(failure),
                Judged::Token if !refreshed => {
                    refreshed = true;
                    *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
                Judged::Token => {
                    return Err(
                        self.other(action, "the user's token is refused again and again; is --etcd-user allowed?")
                    );
                }
                Judged::Elsewhere => {
                    last = format!("{name}: {}", plain(&status));
                    // Another caller may have moved on already.
                    let next = (index + 1) % self.endpoints.len();
                    let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
                }
            }
        }
        Err(self.other(
            action,
            &format!("no endpoint answered ({last}); does etcd run, has it a majority, and is --etcd-endpoints right?"),
        ))
    }

    async fn attempt<Q, R>(&self, channel: &Channel, path: &'static str, request: &Q) -> Result<R, Status>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + 'static,
    {
        let token = self.token(channel).await?;
        send(channel, path, request, token).await
    }

    async fn token(&self, channel: &Channel) -> Result<Option<MetadataValue<Ascii>>, Status> {
        let Some((name, password)) = &self.user else { return Ok(None) };
        if let Some(token) = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(Some(token));
        }
        let request = AuthenticateRequest { name: name.clone(), password: password.clone() };
        let answer: AuthenticateResponse = send(channel, "/etcdserverpb.Auth/Authenticate", &request, None).await?;
        let token = MetadataValue::try_from(answer.token)
            .map_err(|_not_ascii| Status::internal("etcd answered with a token that is no text"))?;
        self.counts.tokens.fetch_add(1, Ordering::Relaxed);
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Ok(Some(token))
    }

    fn judge(&self, action: &'static str, status: &Status) -> Judged {
        let message = status.message();
        let told = |text: &str| Judged::Final(self.other(action, text));
        if message.contains("required revision has been compacted") {
            return Judged::Final(Failure::Compacted);
        }
        if message.contains("message length too large") {
            return Judged::Final(Failure::AnswerTooLarge);
        }
        if message.contains("invalid auth token") || message.contains("revision of auth store is old") {
            return Judged::Token;
        }
        for (part, mend) in [
            ("authentication failed", "wrong user or password; mend --etcd-user or --etcd-password-file"),
            (
                "user name is empty",
                "it wants to know who asks; give --etcd-user NAME and --etcd-password-file FILE, a password's",
            ),
            (
                "authentication is not enabled",
                "it knows no users; leave --etcd-user and its password out, or run `etcdctl auth enable`",
            ),
            (
                "permission denied",
                "the user's role may not; grant it readwrite on the prefix: etcdctl role grant-permission ROLE --prefix=true readwrite PREFIX/",
            ),
            (
                "database space exceeded",
                "its disk quota is used up; compact and defragment it, disarm the alarm, or raise --quota-backend-bytes",
            ),
            (
                "too many operations",
                "it takes fewer than 128 operations in a transaction; raise its --max-txn-ops to 128",
            ),
            (
                "request is too large",
                "it takes less than 1.5 MB in a request; raise its --max-request-bytes to 1572864",
            ),
        ] {
            if message.contains(part) {
                return told(&format!("{mend} ({})", plain(status)));
            }
        }
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => {
                Judged::Elsewhere
            }
            _ => told(&plain(status)),
        }
    }

    fn other(&self, action: &'static str, text: &str) -> Failure {
        Failure::Other(StoreError::Remote { action, place: self.place.clone(), text: text.to_owned() })
    }

    /// A failure that nobody handles.
    pub(super) fn unhandled(&self, action: &'static str) -> impl FnOnce(Failure) -> StoreError {
        let place = self.place.clone();
        move |failure| match failure {
            Failure::Other(error) => error,
            Failure::Compacted => StoreError::Remote {
                action,
                place,
                text: "its revisions are compacted faster than they are read".into(),
            },
            Failure::AnswerTooLarge => {
                StoreError::Remote { action, place, text: "a row is larger than any that weir writes".into() }
            }
        }
    }
}

enum Judged {
    Final(Failure),
    Token,
    Elsewhere,
}

/// One request; also for streams of one request and one answer, which look the same on the wire.
async fn send<Q, R>(
    channel: &Channel,
    path: &'static str,
    request: &Q,
    token: Option<MetadataValue<Ascii>>,
) -> Result<R, Status>
where
    Q: Message + Clone + 'static,
    R: Message + Default + 'static,
{
    let one = async {
        let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        grpc.ready().await.map_err(|error| Status::unavailable(chain(&error)))?;
        let mut request = Request::new(request.clone());
        // A member that is cut off from the others says so instead of waiting for them.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = token {
            request.metadata_mut().insert("token", token);
        }
        let path = PathAndQuery::from_static(path);
        let mut answers = grpc.server_streaming(request, path, ProstCodec::<Q, R>::default()).await?.into_inner();
        answers.message().await?.ok_or_else(|| Status::unavailable("it closed the connection without an answer"))
    };
    match tokio::time::timeout(TRY, one).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(Status::deadline_exceeded(format!("no answer within {} s", TRY.as_secs()))),
    }
}

/// Waits between nothing and `ms_max` milliseconds, so that those who met do not meet again.
pub(super) async fn pause(ms_max: u64) {
    let random = getrandom::u64().unwrap_or(ms_max / 2);
    tokio::time::sleep(Duration::from_millis(random % (ms_max + 1))).await;
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn plain(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => format!("{}: {}", status.message(), chain(source)),
        None => status.message().to_owned(),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}
