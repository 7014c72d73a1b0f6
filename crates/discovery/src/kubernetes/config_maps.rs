//! ConfigMaps of one namespace: read in pages, and written only over the version that was read.
//!
//! There is no way here to write without a version or to delete without having seen what is deleted. A [`Failure`] says
//! whether a write can have been done: after [`FailureKind::Unknown`] only reading again tells.

use super::watch::causes;
use crate::permissions::CONFIG_MAPS;
use k8s_openapi::api::core::v1::ConfigMap as Object;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, Client};
use std::collections::BTreeMap;

/// ConfigMaps that a page of a list has: 4 MB at most.
const PAGE: u32 = 4;

/// One ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigMap {
    /// Its name, a DNS subdomain of at most 253 bytes.
    pub name: String,
    /// Its UID; empty before it is created.
    pub uid: String,
    /// Its resourceVersion; empty before it is created.
    pub version: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its data: keys of `[-._a-zA-Z0-9]` and at most 253 bytes, values of together at most 1 MiB.
    pub data: BTreeMap<String, String>,
}

/// Some of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// What is in it.
    pub items: Vec<ConfigMap>,
    /// What the next page is asked for with; `None` on the last.
    pub next: Option<String>,
}

/// Why a call failed. Completes "failed to ...".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Failure {
    /// How.
    pub kind: FailureKind,
    /// What failed and how to mend it.
    pub detail: String,
}

/// How a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// It is not the version that was read (409 Conflict).
    Conflict,
    /// Its name is taken (409 AlreadyExists).
    Exists,
    /// It is not there (404); a namespace that is not there too.
    Missing,
    /// The list has to begin anew (410).
    Expired,
    /// It is too large for the API server or its etcd.
    TooLarge,
    /// The API server does not take it as it is (400, 422).
    Invalid,
    /// We are not let in (401, 403).
    Refused,
    /// The API server asks for patience (429); nothing was done.
    Busy,
    /// It was done or it was not: no answer, half of one, or a 5xx.
    Unknown,
}

/// The ConfigMaps of a namespace.
#[derive(Clone)]
pub struct ConfigMaps {
    api: Api<Object>,
    namespace: String,
}

impl std::fmt::Debug for ConfigMaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigMaps").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl ConfigMaps {
    /// Those of `namespace`.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned() }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A page of those that have all of `labels` (`NAME=VALUE,...`); all pages are of one moment.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn list(&self, labels: &str, page: Option<&str>) -> Result<Page, Failure> {
        let mut params = ListParams::default().labels(labels).limit(PAGE);
        params.continue_token = page.map(str::to_owned);
        let list = self.api.list(&params).await.map_err(|error| self.failure("list ConfigMaps", &error))?;
        let next = list.metadata.continue_.filter(|token| !token.is_empty());
        Ok(Page { items: list.items.into_iter().map(from_object).collect(), next })
    }

    /// One; `None`: it is not there.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn get(&self, name: &str) -> Result<Option<ConfigMap>, Failure> {
        let found = self.api.get_opt(name).await;
        Ok(found.map_err(|error| self.failure(&format!("read ConfigMap {name}"), &error))?.map(from_object))
    }

    /// Makes a new one; UID and version of `wanted` are not looked at.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn create(&self, wanted: &ConfigMap) -> Result<ConfigMap, Failure> {
        let object = object(ConfigMap { uid: String::new(), version: String::new(), ..wanted.clone() });
        let made = self.api.create(&PostParams::default(), &object).await;
        made.map(from_object).map_err(|error| self.failure(&format!("create ConfigMap {}", wanted.name), &error))
    }

    /// Writes over the version and UID that `wanted` has.
    ///
    /// # Errors
    /// [`Failure`]; a `wanted` without a version is [`FailureKind::Invalid`] before anybody is asked, for the API server
    /// would take it over whatever is there.
    pub async fn replace(&self, wanted: &ConfigMap) -> Result<ConfigMap, Failure> {
        self.is_seen(wanted)?;
        let made = self.api.replace(&wanted.name, &PostParams::default(), &object(wanted.clone())).await;
        made.map(from_object).map_err(|error| self.failure(&format!("write ConfigMap {}", wanted.name), &error))
    }

    /// Deletes the version that `seen` is.
    ///
    /// # Errors
    /// As [`ConfigMaps::replace`].
    pub async fn delete(&self, seen: &ConfigMap) -> Result<(), Failure> {
        self.is_seen(seen)?;
        let preconditions = Preconditions { uid: Some(seen.uid.clone()), resource_version: Some(seen.version.clone()) };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let done = self.api.delete(&seen.name, &params).await;
        done.map(drop).map_err(|error| self.failure(&format!("delete ConfigMap {}", seen.name), &error))
    }

    fn is_seen(&self, wanted: &ConfigMap) -> Result<(), Failure> {
        if wanted.version.is_empty() || wanted.uid.is_empty() {
            let (name, namespace) = (&wanted.name, &self.namespace);
            let detail =
                format!("write ConfigMap {name} of namespace {namespace}: it was never read, or never created");
            return Err(Failure { kind: FailureKind::Invalid, detail });
        }
        Ok(())
    }

    fn failure(&self, doing: &str, error: &kube::Error) -> Failure {
        let doing = format!("{doing} of namespace {}", self.namespace);
        let kube::Error::Api(status) = error else {
            return Failure { kind: FailureKind::Unknown, detail: format!("{doing}: {}", causes(error)) };
        };
        let said = if status.message.is_empty() { &status.reason } else { &status.message };
        let (kind, mend) = match (status.code, status.reason.as_str()) {
            (409, "AlreadyExists") => (FailureKind::Exists, String::new()),
            (409, _) => (FailureKind::Conflict, String::new()),
            (404, _) => (FailureKind::Missing, format!("; is there a namespace {}?", self.namespace)),
            (410, _) => (FailureKind::Expired, String::new()),
            (413, _) => (FailureKind::TooLarge, String::new()),
            (422, _) if said.contains("Too long") => (FailureKind::TooLarge, String::new()),
            // etcd's own limit, which no check of the API server comes before.
            (500, _) if said.contains("request is too large") => (FailureKind::TooLarge, String::new()),
            (401, _) => (
                FailureKind::Refused,
                "; its token is missing, wrong or expired: look at --kubernetes-token-file".to_owned(),
            ),
            (403, _) => (FailureKind::Refused, format!("; {}", CONFIG_MAPS.missing_rule_in(&self.namespace))),
            (429, _) => (FailureKind::Busy, String::new()),
            (500.., _) => (FailureKind::Unknown, String::new()),
            _ => (FailureKind::Invalid, String::new()),
        };
        Failure { kind, detail: format!("{doing}: the API server answers {}: {said}{mend}", status.code) }
    }
}

fn object(config_map: ConfigMap) -> Object {
    let ConfigMap { name, uid, version, labels, annotations, data } = config_map;
    let some = |text: String| (!text.is_empty()).then_some(text);
    let metadata = ObjectMeta {
        name: some(name),
        uid: some(uid),
        resource_version: some(version),
        labels: Some(labels),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    };
    Object { metadata, data: Some(data), ..Object::default() }
}

fn from_object(object: Object) -> ConfigMap {
    let Object { metadata, data, .. } = object;
    ConfigMap {
        name: metadata.name.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
        version: metadata.resource_version.unwrap_or_default(),
        labels: metadata.labels.unwrap_or_default(),
        annotations: metadata.annotations.unwrap_or_default(),
        data: data.unwrap_or_default(),
    }
}
