//! The API server as a source of this node's pods, where the kubelet is closed: one list with
//! `fieldSelector=spec.nodeName=NODE`, from the API server's cache.
//!
//! Pods of every node come through the agents, so that no watch of every pod exists; this list is the second choice,
//! since each of its readings is the API server's work, on every node.

use crate::collect::Collect;
use crate::kubelet::client::{Access, GetError, Getter};
use crate::kubelet::{Door, KINDS, parse};
use crate::permissions::PODS;
use crate::source::{Answer, Reading, Source, Trouble};
use http::StatusCode;
use std::sync::Arc;
use tokio::sync::watch;
use weir_model::fact::source;

/// The node's pods from the API server.
#[derive(Debug)]
pub struct ApiPods {
    access: Access,
    target: String,
    getter: Getter,
    collect: Arc<Collect>,
    /// Only while the kubelet's door is closed.
    instead_of: Option<watch::Receiver<Door>>,
}

impl ApiPods {
    /// The pods of `node` from behind `access`; with `instead_of` only while that door is closed.
    pub fn new(access: Access, node: &str, collect: Arc<Collect>, instead_of: Option<watch::Receiver<Door>>) -> Self {
        // 0 is any version: the API server answers from its watch cache and does not ask etcd.
        let target = format!(
            "/api/{}/{}?fieldSelector=spec.nodeName%3D{}&resourceVersion=0",
            PODS.version,
            PODS.resource,
            escape(node)
        );
        Self { access, target, getter: Getter::default(), collect, instead_of }
    }

    async fn read_once(&mut self) -> Result<Reading, Trouble> {
        let mut missing = String::new();
        if let Some(door) = &mut self.instead_of {
            match &*door.borrow_and_update() {
                Door::Closed(why) => missing = format!("read instead of the kubelet: {why}"),
                Door::Open => return Err(Trouble::Off("the kubelet is read".into())),
                Door::Unknown => return Err(Trouble::Off("the kubelet is not known to refuse".into())),
            }
        }
        let body = self.getter.get(&self.access, &self.target).await.map_err(|error| explain(&error))?;
        let things = parse(body, &self.collect, &self.access.url).await?;
        Ok(Reading::Whole { things, missing })
    }
}

impl Source for ApiPods {
    fn name(&self) -> &'static str {
        source::API
    }

    fn kinds(&self) -> &'static [&'static str] {
        KINDS
    }

    fn read(&mut self) -> Answer<'_, Result<Reading, Trouble>> {
        Box::pin(self.read_once())
    }

    /// The kubelet's door opened or closed.
    fn changed(&mut self) -> Answer<'_, ()> {
        Box::pin(async {
            let Some(door) = &mut self.instead_of else { return std::future::pending().await };
            if door.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

fn explain(error: &GetError) -> Trouble {
    match error {
        GetError::Status { status: StatusCode::UNAUTHORIZED, .. } => {
            Trouble::Refused(format!("{error}; the API server does not take the agent's ServiceAccount token"))
        }
        GetError::Status { status: StatusCode::FORBIDDEN, .. } => Trouble::Refused(format!(
            "{error}; the ClusterRole of the agent's ServiceAccount lacks the verb `list` on the resource `pods` \
             (it is in the overlay for closed kubelets)"
        )),
        _ => Trouble::Failed(error.to_string()),
    }
}

/// A node's name in a query: RFC 1123 subdomains need nothing, but a setting may be anything.
fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_') {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}
