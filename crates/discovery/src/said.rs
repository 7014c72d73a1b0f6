//! What a source says of one thing at one time: a fact of metadata without its writer, and how the source does.

use std::collections::BTreeMap;
use std::net::IpAddr;
use weir_model::UnixNanos;

/// What one source says of one thing ([`weir_model::Fact`] has the kinds, names and attributes).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// One of [`weir_model::fact::kind`].
    pub kind: &'static str,
    /// Unique within its kind.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its Kubernetes namespace, empty none.
    pub namespace: String,
    /// The id of the thing that it belongs to, empty none.
    pub parent: String,
    /// The network namespace's inode, 0 unknown.
    pub netns: u32,
    /// Every address that it holds, IPv4-mapped ones unmapped.
    pub addresses: Vec<IpAddr>,
    /// From when it is so, as the source itself says; `None`: the source does not tell, so from when it was first said.
    pub from: Option<UnixNanos>,
    /// Until when it was so, as the source itself says; `None` while it is.
    pub to: Option<UnixNanos>,
    /// Everything else.
    pub attributes: BTreeMap<String, String>,
}

/// How a source of metadata does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// One of [`weir_model::fact::source`].
    pub source: &'static str,
    /// `ok`, `off` (switched off, or not there and not asked for), `refused` (it is there and does not let us), or
    /// `failed`.
    pub state: &'static str,
    /// What is wrong, where, and how to mend it; empty when nothing is.
    pub detail: String,
    /// Things that it told of when it was read last.
    pub things: u64,
}
