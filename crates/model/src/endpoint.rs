//! What an end is called.

/// What an end is, under the default grouping, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// `process`, `container`, `pod`, `external` or `unknown`.
    pub kind: String,
    /// The Kubernetes namespace, empty none.
    pub namespace: String,
    /// Its name; the address of an end that is not known otherwise.
    pub name: String,
}
