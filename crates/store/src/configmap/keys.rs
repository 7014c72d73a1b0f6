//! What ConfigMaps and their keys are called. Pure.
//!
//! ```text
//! PREFIX-owner                                    who may write
//! PREFIX-transactions-NODE-SHARD                  IP-IP-PORT-PORT.ID           `_` for the colons of IPv6
//! PREFIX-metadata-NODE-SHARD                      IP.KIND.SOURCE.DIGEST        `-` where there is no address
//! PREFIX-counters--0                              NAME
//! ```
//!
//! A data key may hold `[-._a-zA-Z0-9]` and 253 bytes. An address holds no `_`, ports and ids hold no dot, so that a
//! transaction's key says which row it is. A fact's id may be longer than a key: its key has a digest of the whole, and
//! the value has it in full. A node's name is part of an object's where such a name may hold it, and else shortened, with
//! a digest.

use crate::shared::{FactRow, Kind, SharedChanges, TransactionRow, Value};
use siphasher::sip128::{Hasher128 as _, SipHasher24};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::Hasher as _;

/// Of a node's name in an object's, which may have 253 bytes.
const NODE_BYTES_MAX: usize = 150;
/// Of each part of a fact's key.
const PART_BYTES_MAX: usize = 60;
/// The digest's key is part of the stored format: changing it orphans every fact.
const DIGEST_KEY: [u8; 16] = *b"weir/configmaps1";

/// Whose ConfigMaps: of one kind, of one node.
pub(super) type GroupKey = (Kind, String);

/// What is done to the rows of one group.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    /// Rows that are merged into what is there.
    pub(super) puts: BTreeMap<String, Value>,
    /// Rows that leave.
    pub(super) gone: BTreeSet<String>,
}

impl Change {
    /// Adds a row; of two with one key, their join.
    pub(super) fn put(&mut self, key: String, value: Value) {
        let value = match self.puts.remove(&key) {
            Some(earlier) => value.merge(earlier),
            None => value,
        };
        self.puts.insert(key, value);
    }
}

/// A kind as objects are called by it.
pub(super) fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Transactions => "transactions",
        Kind::Metadata => "metadata",
        Kind::Counters => "counters",
    }
}

/// A kind by its word.
pub(super) fn kind(text: &str) -> Option<Kind> {
    [Kind::Transactions, Kind::Metadata, Kind::Counters].into_iter().find(|kind| word(*kind) == text)
}

/// What a shard's ConfigMap is called.
pub(super) fn object_name(prefix: &str, (kind, node): &GroupKey, shard: u32) -> String {
    format!("{prefix}-{}-{}-{shard}", word(*kind), node_part(node))
}

fn node_part(node: &str) -> String {
    let is_edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        label.bytes().next().is_some_and(is_edge)
            && label.bytes().last().is_some_and(is_edge)
            && label.bytes().all(|byte| is_edge(byte) || byte == b'-')
    };
    if node.is_empty() || (node.len() <= NODE_BYTES_MAX && node.split('.').all(is_label)) {
        return node.to_owned();
    }
    let lower = node.to_ascii_lowercase();
    let plain: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let short = plain.get(..PART_BYTES_MAX).unwrap_or(&plain).trim_matches('-');
    let digest = digest(&[node.as_bytes()]);
    if short.is_empty() { digest } else { format!("{short}-{digest}") }
}

/// The changes of every group, and how many rows are left out because one alone is larger than `row_bytes_max`.
///
/// # Errors
/// When a row cannot be encoded.
pub(super) fn changes(
    changes: &SharedChanges,
    row_bytes_max: usize,
) -> Result<(BTreeMap<GroupKey, Change>, u64), crate::error::StoreError> {
    let mut groups: BTreeMap<GroupKey, Change> = BTreeMap::new();
    let rows = changes.transactions.iter().map(|row| {
        let key = transaction_key(&TransactionRow::from(row));
        ((Kind::Transactions, row.key.node.0.clone()), key, Value::Transaction(Box::new(row.clone())))
    });
    let facts = changes.facts.iter().map(|fact| {
        let key = fact_key(&FactRow::from(fact));
        ((Kind::Metadata, fact.node.0.clone()), key, Value::Fact(Box::new(fact.clone())))
    });
    let counters = changes
        .counters
        .iter()
        .map(|(name, value)| ((Kind::Counters, String::new()), name.clone(), Value::Counter(*value)));
    let mut too_large = 0;
    for (group, key, value) in rows.chain(facts).chain(counters) {
        if value.encode()?.len() + key.len() > row_bytes_max {
            too_large += 1;
        } else {
            groups.entry(group).or_default().put(key, value);
        }
    }
    Ok((groups, too_large))
}

/// The key under which a value lies; `None` of a counter, which has only its key.
pub(super) fn key_of(value: &Value) -> Option<String> {
    match value {
        Value::Transaction(row) => Some(transaction_key(&TransactionRow::from(&**row))),
        Value::Fact(fact) => Some(fact_key(&FactRow::from(&**fact))),
        Value::Counter(_) => None,
    }
}

pub(super) fn transaction_key(row: &TransactionRow) -> String {
    format!("{}.{}", row.tuple.transaction_key().replace(':', "_"), row.id.to_hex())
}

pub(super) fn fact_key(row: &FactRow) -> String {
    let address = if row.address.is_empty() { "-".to_owned() } else { part(&row.address) };
    let from = row.from.0.to_le_bytes();
    let whole = [&row.address, &row.node.0, &row.source, &row.kind, &row.id].map(String::as_bytes);
    let digest = digest(&[whole[0], whole[1], whole[2], whole[3], whole[4], &from]);
    format!("{address}.{}.{}.{digest}", part(&row.kind), part(&row.source))
}

/// What of a text a key may hold.
fn part(text: &str) -> String {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    // The first may be no dot: a key may not begin with two.
    let plain: String = text.chars().map(|c| if is_good(c) { c } else { '_' }).take(PART_BYTES_MAX).collect();
    if plain.starts_with('.') { format!("_{}", plain.get(1..).unwrap_or_default()) } else { plain }
}

/// SipHash-2-4-128 of the parts, each preceded by its length, in hexadecimal: two of a billion facts share one with a
/// chance of about 10^-21.
fn digest(parts: &[&[u8]]) -> String {
    let mut hasher = SipHasher24::new_with_key(&DIGEST_KEY);
    for part in parts {
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part);
    }
    hasher.finish128().as_bytes().iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;
    use weir_model::{ConnectionId, NodeName, Tuple, UnixNanos};

    fn is_key(key: &str) -> bool {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        (1..=253).contains(&key.len()) && key.bytes().all(is_good) && key != "." && !key.starts_with("..")
    }

    fn row(tuple: Tuple, id: [u8; 16]) -> TransactionRow {
        TransactionRow { tuple, id: ConnectionId(id), node: NodeName("a".into()) }
    }

    /// What a person, or a script, does with a key.
    fn read_back(key: &str) -> (IpAddr, IpAddr, u16, u16, String) {
        let (tuple, id) = key.rsplit_once('.').unwrap();
        let parts: Vec<&str> = tuple.split('-').collect();
        let [local, remote, local_port, remote_port] = parts[..] else { panic!("{key}") };
        let address = |text: &str| text.replace('_', ":").parse().unwrap();
        (address(local), address(remote), local_port.parse().unwrap(), remote_port.parse().unwrap(), id.to_owned())
    }

    #[test]
    fn the_keys_of_ipv6_are_the_first_systems_with_underscores() {
        let tuple = Tuple::new("fd00::1".parse().unwrap(), 40000, "fd00::2".parse().unwrap(), 80);
        let key = transaction_key(&row(tuple, [0xab; 16]));
        assert_eq!(key, "fd00__1-fd00__2-40000-80.abababababababababababababababab");
        let tuple = Tuple::new("172.17.0.2".parse().unwrap(), 41515, "172.17.0.5".parse().unwrap(), 53);
        assert!(transaction_key(&row(tuple, [0; 16])).starts_with("172.17.0.2-172.17.0.5-41515-53.0"));
    }

    #[test]
    fn names_of_nodes_that_no_object_may_have_are_shortened_and_still_tell_nodes_apart() {
        let name = |node: &str| object_name("weir", &(Kind::Transactions, node.to_owned()), 3);
        assert_eq!(name("node-a.example.com"), "weir-transactions-node-a.example.com-3");
        assert_eq!(object_name("weir", &(Kind::Counters, String::new()), 0), "weir-counters--0");
        let odd = ["Node_A", "node_a", "node_a.", "-", "…", &"n".repeat(300), &"n".repeat(301)];
        let names: BTreeSet<String> = odd.iter().map(|node| name(node)).collect();
        assert_eq!(names.len(), odd.len(), "{names:?}");
        for name in names {
            assert!(name.len() <= 253, "{name}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'),
                "{name}"
            );
        }
    }

    /// The key and the digest are part of the stored format: this value may never change.
    #[test]
    fn a_facts_key_is_part_of_the_stored_format() {
        let row = FactRow {
            address: "fd00::1".into(),
            node: NodeName("a".into()),
            source: "cri".into(),
            kind: "container".into(),
            id: "x".into(),
            from: UnixNanos(1),
        };
        assert_eq!(fact_key(&row), "fd00__1.container.cri.93580d783dc57f12120ad0b9521a7d80");
        assert!(is_key(&fact_key(&FactRow { address: "..".into(), ..row.clone() })));
        assert!(fact_key(&FactRow { address: String::new(), ..row }).starts_with("-.container"));
    }

    proptest! {
        #[test]
        fn every_transactions_key_is_allowed_and_read_back(
            local: IpAddr, remote: IpAddr, ports: (u16, u16), id: [u8; 16],
        ) {
            let tuple = Tuple::new(local, ports.0, remote, ports.1);
            let row = row(tuple, id);
            let key = transaction_key(&row);
            prop_assert!(is_key(&key), "{key}");
            let expected = (tuple.local.ip(), tuple.remote.ip(), ports.0, ports.1, row.id.to_hex());
            prop_assert_eq!(read_back(&key), expected);
        }

        #[test]
        fn every_facts_key_is_allowed_and_tells_facts_apart(
            texts: [String; 5], others: [String; 5], from: i64,
        ) {
            let row = |texts: &[String; 5]| {
                let [address, node, source, kind, id] = texts.clone();
                FactRow { address, node: NodeName(node), source, kind, id, from: UnixNanos(from) }
            };
            let key = fact_key(&row(&texts));
            prop_assert!(is_key(&key), "{key}");
            prop_assert_eq!(key == fact_key(&row(&others)), texts == others);
        }
    }
}
