//! Stand-ins for the API server and the kubelets: they serve exactly what belongs to the cluster and follow its changes.
//!
//! HTTP with a bearer token: the API server on the control namespace's port 6443 (in the cluster the Service
//! `default/kubernetes`), a kubelet on each node's port 10250, and on its read-only port 10255 without a token.
//! [`ApiServer`] is the same API server by itself, on loopback and with TLS where it is wanted, with the faults of real
//! ones ([`faults`]). Of writes there are TokenReviews and ConfigMaps. Not there: protobuf, discovery, label selectors
//! beyond equality.

mod api;
mod api_server;
mod config_maps;
pub mod faults;
pub(crate) mod objects;
pub(crate) mod registry;
mod watching;

pub use api_server::{ApiServer, Identity, Tls};

use super::place::Place;
use super::serving::{Serving, listen};
use super::{Node, Pod, Service};
use anyhow::Result;
use api::{Shared, is_known, list};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use objects::POD;
use serde_json::json;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// The API server's port in the control namespace.
pub const API_PORT: u16 = 6443;
/// A kubelet's port.
pub const KUBELET_PORT: u16 = 10_250;
/// A kubelet's read-only port, which asks nobody who they are.
pub const KUBELET_READ_ONLY_PORT: u16 = 10_255;

/// The running stand-ins.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    shared: Shared,
    _servers: Vec<Serving>,
}

/// Whose pods a kubelet serves.
#[derive(Clone)]
struct Kubelet {
    shared: Shared,
    node: Arc<str>,
}

impl Kubernetes {
    /// Starts an API server in `control` and a kubelet on every node.
    pub(crate) fn start(control: &Place, nodes: &[Node], token: &str) -> Result<Self> {
        let shared = Shared::new(token);
        let any = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let mut servers = vec![Serving::start(listen(control, any(API_PORT))?, None, api::router(&shared))?];
        for node in nodes {
            let open = kubelet(&shared, &node.plan.name);
            let closed = open.clone().layer(from_fn_with_state(shared.clone(), refuse));
            servers.push(Serving::start(listen(node.place(), any(KUBELET_PORT))?, None, closed)?);
            servers.push(Serving::start(listen(node.place(), any(KUBELET_READ_ONLY_PORT))?, None, open)?);
        }
        Ok(Self { shared, _servers: servers })
    }

    /// Serves what is now.
    pub(crate) fn follow(&self, nodes: &[Node], pods: &[Pod], services: &[Service]) {
        self.shared.change(|registry| registry.replace(objects::all(nodes, pods, services)));
    }

    /// Forgets what was before now.
    pub(crate) fn compact(&self) {
        self.shared.registry().compact();
    }

    /// What a client must show.
    pub(crate) fn token(&self) -> &str {
        self.shared.token()
    }
}

fn kubelet(shared: &Shared, node: &str) -> Router {
    let kubelet = Kubelet { shared: shared.clone(), node: node.into() };
    let pods = |State(kubelet): State<Kubelet>| async move {
        let registry = kubelet.shared.registry();
        let own = registry.list(POD).filter(|pod| pod["spec"]["nodeName"] == *kubelet.node);
        axum::Json(list(POD, &json!({}), own))
    };
    Router::new().route("/pods", get(pods)).route("/healthz", get(|| async { "ok" })).with_state(kubelet)
}

/// Lets only those through who show the token.
async fn refuse(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if is_known(&shared, &request) {
        return next.run(request).await;
    }
    (StatusCode::UNAUTHORIZED, "Unauthorized").into_response()
}
