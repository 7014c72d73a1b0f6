//! Where the API server is, how to prove oneself there, and a client for it.
//!
//! The token's file is read anew for every request (a projected token is replaced hourly and a request is rare), the
//! CA's file about once a minute. Answers come as JSON over HTTP/1.1, a connection a client.

use super::pace::{Pace, Paced};
use crate::permissions::Call;
use http::{HeaderValue, Request, header};
use kube::client::{Body, ClientBuilder};
use kube::core::ApiResource;
use kube::{Client, Config};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Where a pod finds its ServiceAccount's token and the cluster's CA.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("use {url} as the API server: {why}; write for example https://10.96.0.1:443")]
    Url {
        /// As given.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// A token would go over the network in the clear.
    #[error(
        "use {0} as the API server: the token would cross the network in the clear; give an https address, or one on \
         loopback"
    )]
    Plain(String),
    /// A file that must be there cannot be read.
    #[error("read {path}: {why}; --{flag} names it, in a pod the kubelet provides it")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: std::io::Error,
        /// The flag that names it.
        flag: &'static str,
    },
    /// The CA file holds no usable certificate.
    #[error("make a client for the API server {url}: {why}")]
    Client {
        /// Where it is.
        url: String,
        /// Why not.
        why: Box<kube::Error>,
    },
}

/// Where the API server is and how to prove oneself there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// `https://HOST:PORT`; plain HTTP only on loopback.
    pub url: String,
    /// Holds the bearer token.
    pub token_file: Option<PathBuf>,
    /// Holds the certificates that vouch for the API server, as PEM; without it the machine's own.
    pub ca_file: Option<PathBuf>,
}

impl Access {
    /// What a pod is given. `variable` reads the environment. `None` outside of a cluster.
    pub fn in_cluster(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let host = variable("KUBERNETES_SERVICE_HOST").filter(|host| !host.is_empty())?;
        let port = variable("KUBERNETES_SERVICE_PORT").filter(|port| !port.is_empty());
        let host = if host.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{host}]") } else { host };
        let folder = Path::new(SERVICE_ACCOUNT);
        Some(Self {
            url: format!("https://{host}:{}", port.as_deref().unwrap_or("443")),
            token_file: Some(folder.join("token")),
            ca_file: Some(folder.join("ca.crt")),
        })
    }

    /// Whether everything is there that a client needs, so that what can be said at start is said at start.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn check(&self) -> Result<(), ClientError> {
        let url = self.uri()?;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if url.scheme_str() == Some("http") && !is_loopback {
            return Err(ClientError::Plain(self.url.clone()));
        }
        let files = [(&self.token_file, "kubernetes-token-file"), (&self.ca_file, "kubernetes-ca")];
        for (path, flag) in files {
            if let Some(path) = path {
                std::fs::read(path).map_err(|why| ClientError::File { path: path.clone(), why, flag })?;
            }
        }
        Ok(())
    }

    fn uri(&self) -> Result<http::Uri, ClientError> {
        let refuse = |why: &str| ClientError::Url { url: self.url.clone(), why: why.to_owned() };
        let url: http::Uri = self.url.parse().map_err(|error: http::uri::InvalidUri| refuse(&error.to_string()))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none_or(str::is_empty) {
            return Err(refuse("it is no http or https address"));
        }
        Ok(url)
    }

    /// A client whose requests `pace` holds back and counts. It needs a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn client(&self, pace: &Arc<Pace>) -> Result<Client, ClientError> {
        let mut config = Config::new(self.uri()?);
        config.root_cert_file.clone_from(&self.ca_file);
        // Its own retries would be invisible here, and two patiences would multiply.
        config.default_retry = false;
        let builder = ClientBuilder::try_from(config)
            .map_err(|why| ClientError::Client { url: self.url.clone(), why: Box::new(why) })?;
        let token = self.token_file.clone().map(TokenFile::new);
        Ok(builder.with_layer(&Layer { pace: Arc::clone(pace), token: token.map(Arc::new) }).build())
    }
}

/// The namespace of the pod that this process runs in; `None` outside of one.
pub fn own_namespace() -> Option<String> {
    let text = std::fs::read_to_string(Path::new(SERVICE_ACCOUNT).join("namespace")).ok()?;
    Some(text.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Where a call's resource lies.
pub fn path(call: &Call) -> String {
    let Call { group, version, resource, .. } = call;
    if group.is_empty() { format!("/api/{version}/{resource}") } else { format!("/apis/{group}/{version}/{resource}") }
}

/// A call's resource in kube's words; `kind` is what one object of it is called.
pub fn api_resource(call: &Call, kind: &str) -> ApiResource {
    let api_version =
        if call.group.is_empty() { call.version.to_owned() } else { format!("{}/{}", call.group, call.version) };
    ApiResource {
        group: call.group.to_owned(),
        version: call.version.to_owned(),
        api_version,
        kind: kind.to_owned(),
        plural: call.resource.to_owned(),
    }
}

/// A token that somebody else replaces.
#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
    /// The last one read: a file that is just being replaced changes nothing.
    last: Mutex<Option<HeaderValue>>,
}

impl TokenFile {
    fn new(path: PathBuf) -> Self {
        Self { path, last: Mutex::default() }
    }

    /// The header's value now; `None` when there never was a token.
    fn header(&self) -> Option<HeaderValue> {
        let read = std::fs::read_to_string(&self.path).map_err(|error| error.to_string()).and_then(|text| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", text.trim()))
                .map_err(|_invalid| "it holds something else than visible ASCII".to_owned())?;
            value.set_sensitive(true);
            Ok(value)
        });
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(value) => *last = Some(value),
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "failed to read the token; the last one is used");
            }
        }
        last.clone()
    }

    /// Adds it to a request.
    pub(crate) fn sign(&self, request: &mut Request<Body>) {
        if let Some(value) = self.header() {
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
    }
}

struct Layer {
    pace: Arc<Pace>,
    token: Option<Arc<TokenFile>>,
}

impl<S> tower::Layer<S> for Layer {
    type Service = Paced<S>;

    fn layer(&self, inner: S) -> Paced<S> {
        Paced::new(inner, Arc::clone(&self.pace), self.token.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permissions;

    #[test]
    fn a_pod_finds_its_api_server_and_a_bare_machine_finds_none() {
        let v6 = |name: &str| match name {
            "KUBERNETES_SERVICE_HOST" => Some("fd00::1".to_owned()),
            "KUBERNETES_SERVICE_PORT" => Some("6443".to_owned()),
            _ => None,
        };
        let access = Access::in_cluster(v6).unwrap();
        assert_eq!(access.url, "https://[fd00::1]:6443");
        assert_eq!(access.token_file.unwrap(), Path::new(SERVICE_ACCOUNT).join("token"));
        assert_eq!(Access::in_cluster(|_| None), None);
    }

    #[test]
    fn a_token_never_crosses_the_network_in_the_clear() {
        let at = |url: &str| Access { url: url.into(), token_file: None, ca_file: None }.check();
        assert!(matches!(at("http://10.0.0.1:6443"), Err(ClientError::Plain(_))));
        for good in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1", "https://10.0.0.1"] {
            at(good).unwrap();
        }
        assert!(matches!(at("10.0.0.1:6443"), Err(ClientError::Url { .. })), "{:?}", at("10.0.0.1:6443"));
        let missing = Access { url: "http://127.0.0.1:1".into(), token_file: Some("/nowhere".into()), ca_file: None };
        assert!(missing.check().unwrap_err().to_string().contains("--kubernetes-token-file"));
    }

    #[test]
    fn paths_are_those_of_the_permissions() {
        assert_eq!(path(&permissions::SERVICES), "/api/v1/services");
        assert_eq!(path(&permissions::ENDPOINT_SLICES), "/apis/discovery.k8s.io/v1/endpointslices");
        assert_eq!(api_resource(&permissions::JOBS, "Job").api_version, "batch/v1");
    }

    #[test]
    fn a_replaced_token_is_used_at_once_and_a_missing_one_leaves_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "one\n").unwrap();
        let token = TokenFile::new(path.clone());
        assert_eq!(token.header().unwrap(), "Bearer one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(token.header().unwrap(), "Bearer two");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(token.header().unwrap(), "Bearer two");
    }
}
