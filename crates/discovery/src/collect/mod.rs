//! What is collected beside the attributes that every source tells: a list of the configuration, not code.
//!
//! An entry `KIND.NAME=JSONPATH` gives things of KIND an attribute NAME with what the path selects in the JSON object
//! by which a source describes such a thing: a field, a label, an annotation. Paths are RFC 9535's, or kubectl's
//! (`{.metadata.labels.team}`, see `kubectl`). A wrong entry is refused at start, with the place and the reason;
//! a path that selects nothing in one object gives that thing no such attribute.
//!
//! The object of a kind is the one of the Kubernetes API where there is one (pod, service, node, ...). A container's
//! is, from the kubelet and the API server, its entry in `spec.containers` (or `initContainers`,
//! `ephemeralContainers`) with its status under the added member `status`; from Docker what `inspect` prints; from
//! the CRI the container's verbose status. Sources differ: a path that only one of them has is only told by that one.

mod kubectl;

use serde_json::Value;
use serde_json_path::JsonPath;
use std::collections::BTreeMap;
use weir_model::fact::attribute;

/// Entries of one list: each is evaluated for every thing of its kind, in every reading.
pub const ENTRIES_MAX: usize = 64;
/// Bytes of a collected value: labels have at most 63, annotations can have 256 KiB each.
pub const VALUE_BYTES_MAX: usize = 1024;
/// Values that one path may select in one object; further ones are left out.
pub const VALUES_MAX: usize = 32;
/// Bytes of an attribute's name, as of a label's.
const NAME_BYTES_MAX: usize = 63;

/// What stands behind a value that was cut off.
pub const CUT: &str = "…";

/// Names that mean something else already, in a fact or in an answer that shows it.
const TAKEN: &[&str] = &[
    "name",
    "namespace",
    "kind",
    "id",
    "source",
    "from",
    "to",
    "said",
    "parent",
    "netns",
    "net_ns",
    "address",
    "addresses",
    "host_name",
    "kernel",
    "boot_id",
    attribute::PHASE,
    attribute::HOST_NETWORK,
    attribute::ALIASES,
    attribute::OWNER_KIND,
    attribute::OWNER_NAME,
    attribute::OWNER_UID,
    attribute::POD_TEMPLATE_HASH,
    attribute::CONTAINER_TYPE,
    attribute::NETWORK_MODE,
    attribute::IMAGE,
    attribute::PIDS,
    attribute::STATE,
    attribute::PORTS,
    attribute::CGROUP_PATH,
    attribute::ZONE,
    attribute::REGION,
    attribute::INSTANCE_TYPE,
    attribute::SERVICE_TYPE,
    attribute::HEADLESS,
    attribute::EXTERNAL_NAME,
    attribute::SELECTORLESS,
    attribute::TARGET_POD,
    attribute::NODE,
    attribute::CONDITIONS,
];

/// Why an entry is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectError {
    /// It has no `=`, or no `.` before it.
    #[error("`{entry}` is not KIND.NAME=JSONPATH: write for example pod.team=$.metadata.labels.team")]
    Form {
        /// The entry.
        entry: String,
    },
    /// Nothing of that kind is collected here.
    #[error("`{entry}`: character {character}: `{kind}` is no kind that is collected here; there are: {known}")]
    Kind {
        /// The entry.
        entry: String,
        /// Where the kind stands, counted from 1.
        character: usize,
        /// The kind.
        kind: String,
        /// Those that there are.
        known: String,
    },
    /// The name is none.
    #[error("`{entry}`: character {character}: {reason}")]
    Name {
        /// The entry.
        entry: String,
        /// Where, counted from 1.
        character: usize,
        /// Why.
        reason: String,
    },
    /// The path is none.
    #[error("`{entry}`: character {character}: {reason}")]
    Path {
        /// The entry.
        entry: String,
        /// Where, counted from 1.
        character: usize,
        /// Why.
        reason: String,
    },
    /// There are too many.
    #[error("{count} entries, at most {ENTRIES_MAX} are collected")]
    Many {
        /// How many.
        count: usize,
    },
}

/// The list.
#[derive(Clone, Debug, Default)]
pub struct Collect {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    kind: &'static str,
    name: String,
    path: JsonPath,
}

impl Collect {
    /// Reads a list of entries. `kinds` are those that may be asked for here.
    ///
    /// # Errors
    /// [`CollectError`] for the first wrong entry.
    pub fn parse<T: AsRef<str>>(entries: &[T], kinds: &[&'static str]) -> Result<Self, CollectError> {
        if entries.len() > ENTRIES_MAX {
            return Err(CollectError::Many { count: entries.len() });
        }
        let mut read: Vec<Entry> = Vec::with_capacity(entries.len());
        for text in entries.iter().map(AsRef::as_ref) {
            let entry = parse(text, kinds)?;
            if read.iter().any(|other| (other.kind, &other.name) == (entry.kind, &entry.name)) {
                let reason = format!("{}.{} is collected already", entry.kind, entry.name);
                return Err(name_error(text, entry.kind.len() + 1, reason));
            }
            read.push(entry);
        }
        Ok(Self { entries: read })
    }

    /// Whether anything of things of `kind` is collected: else nobody needs to parse their objects for it.
    pub fn wants(&self, kind: &str) -> bool {
        self.entries.iter().any(|entry| entry.kind == kind)
    }

    /// Adds to `attributes` what is collected of a thing of `kind` that `object` describes. A text is told as it is,
    /// a number or boolean as JSON writes it, an object or list as compact JSON; several values are separated by
    /// commas. A value of more than [`VALUE_BYTES_MAX`] bytes is cut off and ends in [`CUT`].
    pub fn add(&self, kind: &str, object: &Value, attributes: &mut BTreeMap<String, String>) {
        for entry in self.entries.iter().filter(|entry| entry.kind == kind) {
            if let Some(value) = entry.value(object) {
                attributes.insert(entry.name.clone(), value);
            }
        }
    }
}

impl Entry {
    fn value(&self, object: &Value) -> Option<String> {
        let mut whole: Option<String> = None;
        for node in self.path.query(object).iter().take(VALUES_MAX) {
            if node.is_null() {
                continue;
            }
            let text = whole.get_or_insert_default();
            if !text.is_empty() {
                text.push(',');
            }
            match node {
                Value::String(value) => text.push_str(value),
                other => text.push_str(&other.to_string()),
            }
            if text.len() > VALUE_BYTES_MAX {
                let mut end = VALUE_BYTES_MAX - CUT.len();
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                text.truncate(end);
                text.push_str(CUT);
                break;
            }
        }
        whole
    }
}

fn parse(text: &str, kinds: &[&'static str]) -> Result<Entry, CollectError> {
    let form = || CollectError::Form { entry: text.into() };
    let (left, path) = text.split_once('=').ok_or_else(form)?;
    let (kind, name) = left.split_once('.').ok_or_else(form)?;
    let Some(kind) = kinds.iter().copied().find(|known| *known == kind) else {
        return Err(CollectError::Kind {
            entry: text.into(),
            character: 1,
            kind: kind.into(),
            known: kinds.join(", "),
        });
    };
    if let Some((offset, reason)) = wrong_name(name) {
        return Err(name_error(text, kind.len() + 1 + offset, reason));
    }
    let before = left.len() + 1;
    let path = kubectl::to_standard(path)
        .and_then(|standard| standard.parse(path))
        .map_err(|(offset, reason)| path_error(text, before + offset, reason))?;
    Ok(Entry { kind, name: name.into(), path })
}

/// What is wrong with a name, and at which byte of it.
fn wrong_name(name: &str) -> Option<(usize, String)> {
    let rule = "a name begins with a letter and has lower-case letters, digits and _";
    if name.is_empty() {
        return Some((0, format!("there is no name; {rule}")));
    }
    if let Some((offset, letter)) = name.char_indices().find(|(offset, letter)| {
        !(letter.is_ascii_lowercase() || *offset > 0 && (letter.is_ascii_digit() || *letter == '_'))
    }) {
        return Some((offset, format!("`{letter}` may not stand here: {rule}")));
    }
    if name.len() > NAME_BYTES_MAX {
        return Some((NAME_BYTES_MAX, format!("a name has at most {NAME_BYTES_MAX} characters")));
    }
    TAKEN
        .contains(&name)
        .then(|| (0, format!("`{name}` has a meaning of its own in every answer; choose another name")))
}

fn name_error(entry: &str, byte: usize, reason: String) -> CollectError {
    CollectError::Name { entry: entry.into(), character: character(entry, byte), reason }
}

fn path_error(entry: &str, byte: usize, reason: String) -> CollectError {
    CollectError::Path { entry: entry.into(), character: character(entry, byte), reason }
}

/// The character at a byte, counted from 1.
fn character(text: &str, byte: usize) -> usize {
    1 + text.char_indices().take_while(|(offset, _)| *offset < byte).count()
}

#[cfg(test)]
mod tests;
