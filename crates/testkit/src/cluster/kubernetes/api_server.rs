//! The API server by itself: on loopback, with the objects that a test gives it, and every fault on demand.

use super::api::{Shared, router};
use super::faults::{Fault, Seen};
use super::objects::{RESOURCES, Resource};
use crate::cluster::serving::Serving;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio_rustls::rustls;

/// Whether it speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Plain HTTP.
    Off,
    /// With a certificate for 127.0.0.1 that [`ApiServer::ca`] vouches for.
    On,
}

/// Who a token belongs to, and what for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub username: String,
    /// For whom it was made.
    pub audiences: Vec<String>,
    /// The node of its pod, where the cluster tells it.
    pub node: Option<String>,
    /// Whether its time is over.
    pub expired: bool,
}

impl Identity {
    /// The token of an agent on `node`, as the kubelet projects it for the audience `weir`.
    pub fn of_agent(node: &str) -> Self {
        Self {
            username: "system:serviceaccount:weir:weir-agent".into(),
            audiences: vec!["weir".into()],
            node: Some(node.into()),
            expired: false,
        }
    }

    pub(super) fn user(&self) -> Value {
        let mut user = json!({
            "username": self.username, "uid": "7f2a1c7e-0000-4000-8000-000000000001",
            "groups": ["system:serviceaccounts", "system:authenticated"],
        });
        if let Some(node) = &self.node {
            user["extra"] = json!({"authentication.kubernetes.io/node-name": [node]});
        }
        user
    }
}

/// A running API server.
#[derive(Debug)]
pub struct ApiServer {
    shared: Shared,
    address: SocketAddr,
    ca: Option<String>,
    serving: Option<Serving>,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl ApiServer {
    /// Starts one without objects.
    ///
    /// # Errors
    /// When it cannot listen, or a certificate cannot be made.
    pub fn start(tls: Tls) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("failed to listen on loopback")?;
        let address = listener.local_addr()?;
        let shared = Shared::new("the-token-of-weir-server");
        let (config, ca) = match tls {
            Tls::Off => (None, None),
            Tls::On => {
                let (config, ca) = certificate()?;
                (Some(config), Some(ca))
            }
        };
        let serving = Serving::start_with(listener, None, router(&shared), config.clone())?;
        Ok(Self { shared, address, ca, serving: Some(serving), tls: config })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// What a client must show.
    pub fn token(&self) -> &str {
        self.shared.token()
    }

    /// The certificate that vouches for it, as PEM.
    pub fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// Stops listening and breaks every connection; the objects stay.
    pub fn stop(&mut self) {
        self.serving = None;
    }

    /// Listens again, at the same address.
    ///
    /// # Errors
    /// When it cannot.
    pub fn start_again(&mut self) -> Result<()> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&self.address.into())?;
        socket.listen(128)?;
        self.serving = Some(Serving::start_with(socket.into(), None, router(&self.shared), self.tls.clone())?);
        Ok(())
    }

    /// Makes an object of `plural` (`services`, ...) be so.
    ///
    /// # Errors
    /// When no such resource is served.
    pub fn put(&self, plural: &str, mut object: Value) -> Result<()> {
        let resource = resource(plural)?;
        object["kind"] = json!(resource.kind);
        object["apiVersion"] = json!(resource.version);
        self.shared.change(|registry| registry.put(resource, object));
        Ok(())
    }

    /// Makes all objects of a recorded list be so.
    ///
    /// # Errors
    /// When it is no list, or no such resource is served.
    pub fn put_list(&self, plural: &str, list: &str) -> Result<()> {
        let list: Value = serde_json::from_str(list)?;
        for object in list["items"].as_array().context("a list has items")? {
            self.put(plural, object.clone())?;
        }
        Ok(())
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// When no such resource is served.
    pub fn delete(&self, plural: &str, namespace: &str, name: &str) -> Result<()> {
        let resource = resource(plural)?;
        self.shared.change(|registry| registry.remove(resource, namespace, name));
        Ok(())
    }

    /// Somebody writes an annotation into an object, which gets another version by that; nothing where it is not there.
    ///
    /// # Errors
    /// When no such resource is served.
    pub fn annotate(&self, plural: &str, namespace: &str, name: &str, (key, text): (&str, &str)) -> Result<()> {
        let resource = resource(plural)?;
        self.shared.change(|registry| {
            if let Some(mut object) = registry.get(resource, namespace, name).cloned() {
                object["metadata"]["annotations"][key] = json!(text);
                registry.put(resource, object);
            }
        });
        Ok(())
    }

    /// Forgets what was before now: older versions and continue tokens are expired.
    pub fn compact(&self) {
        self.shared.registry().compact();
    }

    /// An object as it is now.
    pub fn object(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.shared.registry().get(resource(plural).ok()?, namespace, name).cloned()
    }

    /// Every object of `plural` as it is now.
    ///
    /// # Errors
    /// When no such resource is served.
    pub fn objects(&self, plural: &str) -> Result<Vec<Value>> {
        let resource = resource(plural)?;
        Ok(self.shared.registry().list(resource).cloned().collect())
    }

    /// Lets the next `times` lists (or watches) of `plural` go wrong after `skip` good ones. Reviews of tokens are lists
    /// of `tokenreviews`.
    pub fn fault(&self, plural: &str, watches: bool, fault: Fault, skip: usize, times: usize) {
        self.shared.faults.plan(plural, watches, fault, skip, times);
    }

    /// Lets everything go well again.
    pub fn heal(&self) {
        self.shared.faults.clear();
    }

    /// Breaks every open watch.
    pub fn break_watches(&self) {
        self.shared.faults.breaks.send_modify(|count| *count += 1);
    }

    /// Open watches stay open and say nothing, until [`Self::heal`].
    pub fn stall_watches(&self) {
        self.shared.faults.stalled.store(true, Ordering::SeqCst);
    }

    /// Refuses streamed lists from now on, as API servers on etcd 3.4 do.
    pub fn refuse_streamed_lists(&self) {
        self.shared.faults.refuses_streamed_lists.store(true, Ordering::SeqCst);
    }

    /// Lets a token be known.
    pub fn admit(&self, token: &str, identity: Identity) {
        self.shared.identities().insert(token.to_owned(), identity);
    }

    /// Requests that went wrong as planned.
    pub fn struck(&self) -> u64 {
        self.shared.faults.struck()
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.faults.seen()
    }
}

fn resource(plural: &str) -> Result<Resource> {
    RESOURCES.into_iter().find(|resource| resource.plural == plural).with_context(|| format!("{plural} are not served"))
}

/// A certificate for loopback that vouches for itself, and its PEM.
fn certificate() -> Result<(Arc<rustls::ServerConfig>, String)> {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .map_err(|error| anyhow::anyhow!("failed to read the key just made: {error}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok((Arc::new(config), made.cert.pem()))
}
