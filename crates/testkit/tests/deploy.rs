//! The promise: `deploy/kubernetes` is what Kubernetes takes, asks for what the code uses and for nothing else, and starts
//! the programs with settings that they have. Every test looks at the base, at every overlay, and at components together,
//! as `kubectl kustomize` renders them.

#[path = "deploy/access.rs"]
mod access;
#[path = "deploy/references.rs"]
mod references;
#[path = "deploy/rendered.rs"]
mod rendered;
#[path = "deploy/schema.rs"]
mod schema;
#[path = "deploy/security.rs"]
mod security;
#[path = "deploy/settings.rs"]
mod settings;
