//! The node's kubelet as a source: its `/pods`, everything that is bound to this node with its status.
//!
//! - [`client`]: one request, with TLS and the ServiceAccount's token.
//! - [`pods`]: the answer made into pods and containers.
//!
//! A kubelet that refuses says here which rule is missing. What it serves is the API server's word of a pod's status,
//! so a new container's id comes a second or two after its start.

pub mod client;
pub mod pods;

use crate::collect::Collect;
use crate::source::{Answer, Reading, Source, Trouble};
use client::{Access, GetError, Getter};
use http::StatusCode;
use std::sync::Arc;
use tokio::sync::watch;
use weir_model::fact::{kind, source};

/// What a kubelet's or an API server's list of pods names.
pub(crate) const KINDS: &[&str] = &[kind::POD, kind::CONTAINER];

/// Whether the kubelet lets us read its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Door {
    /// It has not been asked yet, or has not answered.
    #[default]
    Unknown,
    /// It does.
    Open,
    /// It does not, or nobody is there: why.
    Closed(String),
}

/// The kubelet.
#[derive(Debug)]
pub struct Kubelet {
    access: Access,
    getter: Getter,
    collect: Arc<Collect>,
    door: watch::Sender<Door>,
}

impl Kubelet {
    /// The kubelet behind `access`.
    pub fn new(access: Access, collect: Arc<Collect>) -> Self {
        Self { access, getter: Getter::default(), collect, door: watch::Sender::default() }
    }

    /// Whether it lets us in, as it was found last.
    pub fn door(&self) -> watch::Receiver<Door> {
        self.door.subscribe()
    }

    fn found(&self, door: Door) {
        self.door.send_if_modified(|held| {
            let is_news = *held != door;
            *held = door;
            is_news
        });
    }

    async fn read_once(&mut self) -> Result<Reading, Trouble> {
        let body = match self.getter.get(&self.access, "/pods").await {
            Ok(body) => body,
            Err(error) => {
                let trouble = self.access.explain(&error);
                // One that is slow once is as open or closed as it was.
                if matches!(error, GetError::Closed { .. }) || matches!(trouble, Trouble::Refused(_)) {
                    self.found(Door::Closed(trouble.to_string()));
                }
                return Err(trouble);
            }
        };
        let things = parse(body, &self.collect, &self.access.url).await?;
        self.found(Door::Open);
        Ok(Reading::Whole { things, missing: String::new() })
    }
}

impl Source for Kubelet {
    fn name(&self) -> &'static str {
        source::KUBELET
    }

    fn kinds(&self) -> &'static [&'static str] {
        KINDS
    }

    fn read(&mut self) -> Answer<'_, Result<Reading, Trouble>> {
        Box::pin(self.read_once())
    }
}

/// Parses on a blocking thread: a full node's list has some megabytes.
pub(crate) async fn parse(body: Vec<u8>, collect: &Arc<Collect>, url: &str) -> Result<Vec<crate::said::Said>, Trouble> {
    let collect = Arc::clone(collect);
    let parsed = tokio::task::spawn_blocking(move || pods::parse(&body, &collect)).await;
    let parsed = parsed.map_err(|error| Trouble::Failed(format!("parsing the pods broke off: {error}")))?;
    parsed.map_err(|error| Trouble::Failed(format!("{url} answered something else: {error}")))
}

impl Access {
    /// A kubelet's refusal in words that say how to mend it.
    fn explain(&self, error: &GetError) -> Trouble {
        match error {
            GetError::Status { status: StatusCode::UNAUTHORIZED, .. } => {
                let who = match &self.token_file {
                    Some(path) => format!(
                        "it does not take the token in {}: a kubelet asks the API server about tokens only with \
                         authentication.webhook.enabled",
                        path.display()
                    ),
                    None => "it wants to know who asks: give --kubelet-token-file".to_owned(),
                };
                Trouble::Refused(format!("the kubelet at {} answered 401: {who}", self.url))
            }
            GetError::Status { status: StatusCode::FORBIDDEN, body, .. } => {
                Trouble::Refused(format!("the kubelet at {} answered 403 ({body}): {}", self.url, missing_rule(body)))
            }
            GetError::Certificate { .. } => Trouble::Refused(format!(
                "{error}; give --kubelet-ca the certificates that sign the kubelets' (a kubelet signs its own unless \
                 serverTLSBootstrap is on), or --kubelet-insecure-tls to trust whoever answers there"
            )),
            GetError::Closed { .. } => {
                Trouble::Failed(format!("{error}; --kubelet says where the kubelet listens, or off"))
            }
            _ => Trouble::Failed(error.to_string()),
        }
    }
}

/// Which rule a kubelet misses. One that authorizes finely (Kubernetes 1.33, or 1.32 with the feature gate
/// `KubeletFineGrainedAuthz`) names `pods` among the subresources that it tried; an older one knows only `proxy`.
fn missing_rule(body: &str) -> &'static str {
    let is_old = body.contains("proxy") && !body.contains("pods");
    if is_old {
        "this kubelet knows no `nodes/pods`: the ClusterRole of the agent's ServiceAccount would need the verb `get` \
         on `nodes/proxy`, which also opens running commands in every pod of the node; --api-pods on reads the pods \
         from the API server instead"
    } else {
        "the ClusterRole of the agent's ServiceAccount lacks the verb `get` on the resource `nodes/pods`"
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
