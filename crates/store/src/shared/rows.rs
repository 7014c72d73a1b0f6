//! The form in which shared backends write rows: JSON objects, so that any tool reads them.
//!
//! Format 1. Times are nanoseconds since 1970, ends are `address:port`, absent is unknown. A change of any name or
//! meaning raises [`FORMAT`], and an older build then refuses the store.

use crate::error::StoreError;
use crate::transaction::{Before, Claim, Condition, Owner, Rtt, Transaction};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use weir_model::{
    Bytes, Certainty, ConnectionKey, Direction, Fact, Generation, Instance, NodeName, Protocol, Totals, Tuple,
    UnixNanos,
};

/// The form's version, written beside the rows.
pub const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Ends {
    local: SocketAddr,
    remote: SocketAddr,
}

impl From<Tuple> for Ends {
    fn from(tuple: Tuple) -> Self {
        Self { local: tuple.local, remote: tuple.remote }
    }
}

impl From<Ends> for Tuple {
    fn from(ends: Ends) -> Self {
        Self { local: ends.local, remote: ends.remote }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum InstanceForm {
    Socket { cookie: u64 },
    Peer { cookie: u64, ends: Ends },
    Tuple { netns: u32, pid: u32, ends: Ends },
}

#[derive(Serialize, Deserialize)]
struct ClaimForm {
    certainty: String,
    at: i64,
    direction: String,
}

#[derive(Serialize, Deserialize)]
struct OwnerForm {
    at: i64,
    pid: u32,
    process_start_ns: u64,
    process: String,
    cgroup_id: u64,
    cgroup_path: String,
    container_id: String,
}

#[derive(Serialize, Deserialize)]
struct TransactionForm {
    protocol: String,
    node: String,
    boot: String,
    instance: InstanceForm,
    generation: u32,
    run: u64,
    ends: Ends,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    translated: Option<Ends>,
    netns: u32,
    sent: u64,
    recv: u64,
    retransmits: u64,
    sent_before: u64,
    recv_before: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started: Option<i64>,
    first: i64,
    seen: i64,
    last: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closed: Option<i64>,
    condition_at: i64,
    state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    close_reason: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    errno: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claim: Option<ClaimForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<OwnerForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rtt: Option<(i64, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connect_latency_us: Option<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    other_peer: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[derive(Serialize, Deserialize)]
struct FactForm {
    node: String,
    source: String,
    kind: String,
    id: String,
    valid_from: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    valid_to: Option<i64>,
    said: i64,
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    parent: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    netns: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<String, String>,
}

const TRANSACTION: &str = "a transaction of the shared state";
const FACT: &str = "a fact of the shared state";

fn corrupt(what: &'static str, text: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { what, text: text.to_string() }
}

/// A transaction as JSON; 600 to 850 bytes.
///
/// # Errors
/// Never for a value that can be; JSON's writer says so.
pub fn encode_transaction(row: &Transaction) -> Result<Vec<u8>, StoreError> {
    let form = TransactionForm {
        protocol: row.protocol.as_str().to_owned(),
        node: row.key.node.0.clone(),
        boot: hex(&row.key.boot),
        instance: match row.key.instance {
            Instance::Socket { cookie } => InstanceForm::Socket { cookie },
            Instance::Peer { cookie, tuple } => InstanceForm::Peer { cookie, ends: tuple.into() },
            Instance::Tuple { netns, pid, tuple, protocol: _ } => {
                InstanceForm::Tuple { netns, pid, ends: tuple.into() }
            }
        },
        generation: row.key.generation.count,
        run: row.key.generation.run,
        ends: row.tuple.into(),
        translated: row.translated.map(Ends::from),
        netns: row.netns,
        sent: row.totals.sent.0,
        recv: row.totals.recv.0,
        retransmits: row.totals.retransmits,
        sent_before: row.before.sent.0,
        recv_before: row.before.recv.0,
        started: row.started.map(|at| at.0),
        first: row.first.0,
        seen: row.seen.0,
        last: row.last.0,
        closed: row.condition.closed.map(|at| at.0),
        condition_at: row.condition.at.0,
        state: row.condition.state.clone(),
        close_reason: row.condition.close_reason.clone(),
        errno: row.condition.errno,
        claim: row.claim.map(|claim| ClaimForm {
            certainty: claim.certainty.as_str().to_owned(),
            at: claim.at.0,
            direction: match claim.direction {
                Direction::Incoming => "incoming",
                Direction::Outgoing => "outgoing",
            }
            .to_owned(),
        }),
        owner: row.owner.as_ref().map(|owner| OwnerForm {
            at: owner.at.0,
            pid: owner.pid,
            process_start_ns: owner.process_start_ns,
            process: owner.process.clone(),
            cgroup_id: owner.cgroup_id,
            cgroup_path: owner.cgroup_path.clone(),
            container_id: owner.container_id.clone(),
        }),
        rtt: row.rtt.map(|rtt| (rtt.at.0, rtt.us)),
        connect_latency_us: row.connect_latency_us,
        other_peer: row.other_peer,
    };
    serde_json::to_vec(&form).map_err(|error| corrupt(TRANSACTION, error))
}

/// The transaction in `bytes`.
///
/// # Errors
/// [`StoreError::Corrupt`] when they are not what [`encode_transaction`] writes.
pub fn decode_transaction(bytes: &[u8]) -> Result<Transaction, StoreError> {
    let form: TransactionForm = serde_json::from_slice(bytes).map_err(|error| corrupt(TRANSACTION, error))?;
    let protocol = Protocol::parse(&form.protocol)
        .ok_or_else(|| corrupt(TRANSACTION, format_args!("the protocol `{}`", form.protocol)))?;
    let instance = match form.instance {
        InstanceForm::Socket { cookie } => Instance::Socket { cookie },
        InstanceForm::Peer { cookie, ends } => Instance::Peer { cookie, tuple: ends.into() },
        InstanceForm::Tuple { netns, pid, ends } => Instance::Tuple { protocol, netns, pid, tuple: ends.into() },
    };
    let claim = form.claim.as_ref().map(claim).transpose()?;
    Ok(Transaction {
        key: ConnectionKey {
            node: NodeName(form.node),
            boot: unhex(&form.boot).ok_or_else(|| corrupt(TRANSACTION, format_args!("the boot `{}`", form.boot)))?,
            instance,
            generation: Generation { count: form.generation, run: form.run },
        },
        protocol,
        tuple: form.ends.into(),
        translated: form.translated.map(Tuple::from),
        netns: form.netns,
        totals: Totals { sent: Bytes(form.sent), recv: Bytes(form.recv), retransmits: form.retransmits },
        before: Before { sent: Bytes(form.sent_before), recv: Bytes(form.recv_before) },
        started: form.started.map(UnixNanos),
        first: UnixNanos(form.first),
        seen: UnixNanos(form.seen),
        last: UnixNanos(form.last),
        condition: Condition {
            closed: form.closed.map(UnixNanos),
            at: UnixNanos(form.condition_at),
            state: form.state,
            close_reason: form.close_reason,
            errno: form.errno,
        },
        claim,
        owner: form.owner.map(|owner| Owner {
            at: UnixNanos(owner.at),
            pid: owner.pid,
            process_start_ns: owner.process_start_ns,
            process: owner.process,
            cgroup_id: owner.cgroup_id,
            cgroup_path: owner.cgroup_path,
            container_id: owner.container_id,
        }),
        rtt: form.rtt.map(|(at, us)| Rtt { at: UnixNanos(at), us }),
        connect_latency_us: form.connect_latency_us,
        other_peer: form.other_peer,
    })
}

fn claim(form: &ClaimForm) -> Result<Claim, StoreError> {
    let certainty = [Certainty::Unknown, Certainty::Inferred, Certainty::Known]
        .into_iter()
        .find(|certainty| certainty.as_str() == form.certainty)
        .ok_or_else(|| corrupt(TRANSACTION, format_args!("the certainty `{}`", form.certainty)))?;
    let direction = match form.direction.as_str() {
        "incoming" => Direction::Incoming,
        "outgoing" => Direction::Outgoing,
        other => return Err(corrupt(TRANSACTION, format_args!("the direction `{other}`"))),
    };
    Ok(Claim { certainty, at: UnixNanos(form.at), direction })
}

/// A fact as JSON.
///
/// # Errors
/// As [`encode_transaction`].
pub fn encode_fact(fact: &Fact) -> Result<Vec<u8>, StoreError> {
    let fact = fact.clone();
    let form = FactForm {
        node: fact.node.0,
        source: fact.source,
        kind: fact.kind,
        id: fact.id,
        valid_from: fact.from.0,
        valid_to: fact.to.map(|at| at.0),
        said: fact.said.0,
        name: fact.name,
        namespace: fact.namespace,
        parent: fact.parent,
        netns: fact.netns,
        addresses: fact.addresses,
        attributes: fact.attributes,
    };
    serde_json::to_vec(&form).map_err(|error| corrupt(FACT, error))
}

/// The fact in `bytes`.
///
/// # Errors
/// [`StoreError::Corrupt`] when they are not what [`encode_fact`] writes.
pub fn decode_fact(bytes: &[u8]) -> Result<Fact, StoreError> {
    let form: FactForm = serde_json::from_slice(bytes).map_err(|error| corrupt(FACT, error))?;
    Ok(Fact {
        node: NodeName(form.node),
        source: form.source,
        kind: form.kind,
        id: form.id,
        from: UnixNanos(form.valid_from),
        to: form.valid_to.map(UnixNanos),
        said: UnixNanos(form.said),
        name: form.name,
        namespace: form.namespace,
        parent: form.parent,
        netns: form.netns,
        addresses: form.addresses,
        attributes: form.attributes,
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_row_is_refused_with_what_is_wrong() {
        let row = r#"{"protocol":"sctp","node":"a","boot":"","instance":{"socket":{"cookie":1}},"generation":0,"run":0,
            "ends":{"local":"10.0.0.1:1","remote":"[::1]:2"},"netns":0,"sent":0,"recv":0,"retransmits":0,"sent_before":0,
            "recv_before":0,"first":0,"seen":0,"last":0,"condition_at":0,"state":""}"#;
        for (bytes, text) in [
            ("{", "EOF"),
            (row, "the protocol `sctp`"),
            (&row.replace("sctp", "tcp"), "the boot ``"),
            (&row.replace("10.0.0.1:1", "10.0.0.1"), "invalid socket address"),
        ] {
            let error = decode_transaction(bytes.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        assert!(decode_fact(b"[]").is_err());
    }
}
