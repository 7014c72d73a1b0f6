//! The objects that the API server and the kubelets serve, with their versions and the last changes.
//!
//! One counter gives every change its version, as etcd's revision does. A watcher is told what came after its version;
//! what is older than the kept changes is expired (410).

use super::objects::Resource;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Changes that are kept: a burst of a test makes some thousand.
const CHANGES: usize = 8192;
/// Lists in pages that can be gone on with.
const SNAPSHOTS: usize = 64;

/// Namespace and name.
type Name = (String, String);

/// A change as a watcher is told it.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) resource: Resource,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub(crate) kind: &'static str,
    pub(crate) object: Value,
}

/// A version that cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Changes since then are not kept any more.
    Expired,
    /// It is of the future.
    TooLarge,
}

/// All objects and the last changes.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    version: u64,
    objects: BTreeMap<(Resource, Name), Value>,
    changes: VecDeque<Change>,
    /// The version of the last change that is not kept.
    forgotten: u64,
    /// What lists in pages go on with, by their version: the newest last.
    snapshots: VecDeque<(u64, Resource, Arc<Vec<Value>>)>,
}

impl Registry {
    /// Makes the objects be these; what differs becomes changes.
    pub(crate) fn replace(&mut self, objects: Vec<(Resource, Value)>) {
        let mut wanted: BTreeMap<(Resource, Name), Value> =
            objects.into_iter().map(|(resource, object)| ((resource, name_of(&object)), object)).collect();
        let known: Vec<(Resource, Name)> = self.objects.keys().cloned().collect();
        for key in known {
            match wanted.remove(&key) {
                Some(object) if is_same(&self.objects[&key], &object) => {}
                Some(object) => self.change("MODIFIED", key, object),
                None => {
                    let object = self.objects[&key].clone();
                    self.change("DELETED", key, object);
                }
            }
        }
        for (key, object) in wanted {
            self.change("ADDED", key, object);
        }
    }

    /// Makes one object be so.
    pub(crate) fn put(&mut self, resource: Resource, object: Value) {
        let key = (resource, name_of(&object));
        match self.objects.get(&key) {
            Some(known) if is_same(known, &object) => {}
            Some(_) => self.change("MODIFIED", key, object),
            None => self.change("ADDED", key, object),
        }
    }

    /// Removes one object; what is not there stays away.
    pub(crate) fn remove(&mut self, resource: Resource, namespace: &str, name: &str) {
        let key = (resource, (namespace.to_owned(), name.to_owned()));
        if let Some(object) = self.objects.get(&key).cloned() {
            self.change("DELETED", key, object);
        }
    }

    /// One object.
    pub(crate) fn get(&self, resource: Resource, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(resource, (namespace.to_owned(), name.to_owned())))
    }

    /// Every object of a resource as it is now, kept for the pages that follow.
    pub(crate) fn snapshot(&mut self, resource: Resource) -> (u64, Arc<Vec<Value>>) {
        let objects = Arc::new(self.list(resource).cloned().collect());
        self.snapshots.push_back((self.version, resource, Arc::clone(&objects)));
        while self.snapshots.len() > SNAPSHOTS {
            self.snapshots.pop_front();
        }
        (self.version, objects)
    }

    /// The snapshot of a version.
    ///
    /// # Errors
    /// When it is not kept any more.
    pub(crate) fn at(&self, resource: Resource, version: u64) -> Result<Arc<Vec<Value>>, Gone> {
        let kept = self.snapshots.iter().find(|(at, of, _)| (*at, *of) == (version, resource));
        kept.map(|(_, _, objects)| Arc::clone(objects)).ok_or(Gone::Expired)
    }

    fn change(&mut self, kind: &'static str, key: (Resource, Name), mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.changes.push_back(Change { version: self.version, resource: key.0, kind, object: object.clone() });
        if kind == "DELETED" {
            self.objects.remove(&key);
        } else {
            self.objects.insert(key, object);
        }
        while self.changes.len() > CHANGES {
            self.forget_one();
        }
    }

    fn forget_one(&mut self) {
        if let Some(change) = self.changes.pop_front() {
            self.forgotten = change.version;
        }
    }

    /// Forgets all changes: every version but the current one is expired.
    pub(crate) fn compact(&mut self) {
        while !self.changes.is_empty() {
            self.forget_one();
        }
        self.snapshots.clear();
    }

    /// The version of the last change.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The objects of a resource.
    pub(crate) fn list(&self, resource: Resource) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |((one, _), _)| *one == resource).map(|(_, object)| object)
    }

    /// The changes of a resource after `version`.
    ///
    /// # Errors
    /// [`Gone`].
    pub(crate) fn since(&self, resource: Resource, version: u64) -> Result<Vec<Change>, Gone> {
        if version > self.version {
            return Err(Gone::TooLarge);
        }
        if version < self.forgotten {
            return Err(Gone::Expired);
        }
        let first = self.changes.partition_point(|change| change.version <= version);
        Ok(self.changes.range(first..).filter(|change| change.resource == resource).cloned().collect())
    }
}

fn name_of(object: &Value) -> Name {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

/// Whether two states differ in their version only.
fn is_same(stored: &Value, wanted: &Value) -> bool {
    let mut stored = stored.clone();
    if let Some(metadata) = stored["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
    }
    stored == *wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::kubernetes::objects::POD;

    fn pod(name: &str, phase: &str) -> (Resource, Value) {
        (POD, json!({"metadata": {"name": name, "namespace": "demo"}, "status": {"phase": phase}}))
    }

    #[test]
    fn what_differs_becomes_changes_and_what_does_not_keeps_its_version() {
        let mut registry = Registry::default();
        registry.replace(vec![pod("a", "Pending"), pod("b", "Running")]);
        assert_eq!(registry.version(), 2);
        registry.replace(vec![pod("a", "Running"), pod("c", "Running")]);
        let kinds: Vec<&str> = registry.since(POD, 2).unwrap().iter().map(|change| change.kind).collect();
        assert_eq!(kinds, ["MODIFIED", "DELETED", "ADDED"]);
        registry.replace(vec![pod("a", "Running"), pod("c", "Running")]);
        assert_eq!(registry.version(), 5);
        let versions: Vec<_> = registry.list(POD).map(|object| object["metadata"]["resourceVersion"].clone()).collect();
        assert_eq!(versions, ["3", "5"]);
    }

    #[test]
    fn old_and_future_versions_are_refused() {
        let mut registry = Registry::default();
        registry.replace(vec![pod("a", "Running"), pod("b", "Running")]);
        assert_eq!(registry.since(POD, 3).unwrap_err(), Gone::TooLarge);
        registry.compact();
        assert_eq!(registry.since(POD, 1).unwrap_err(), Gone::Expired);
        assert!(registry.since(POD, 2).unwrap().is_empty());
        for number in 0..=CHANGES {
            registry.replace(vec![pod("a", &number.to_string())]);
        }
        assert!(registry.changes.len() <= CHANGES);
        assert_eq!(registry.since(POD, 2).unwrap_err(), Gone::Expired);
    }
}
