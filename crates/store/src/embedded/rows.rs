//! Transactions and facts as rows of SQLite, both ways. The columns' meaning is in `schema`.

use crate::error::StoreError;
use crate::report::{Coverage, MetadataState, SourceState, StreamId, StreamSummary};
use crate::transaction::{Before, Claim, Condition, Owner, Rtt, Transaction};
use crate::translation::Translation;
use rusqlite::types::Type;
use rusqlite::{Row, Statement};
use std::net::SocketAddr;
use weir_model::connection::{address_bytes, address_from_bytes};
use weir_model::{
    Bytes, Certainty, ConnectionKey, Direction, Fact, Generation, Instance, NodeName, Protocol, Totals, Tuple,
    UnixNanos,
};

/// Every column of `transactions`, in the order that [`transaction`] reads and [`bind_transaction`] writes.
pub(super) const TRANSACTION_COLUMNS: &str = "id, node, boot, instance, cookie, instance_netns, instance_pid, \
    generation, generation_run, protocol, local_ip, local_port, remote_ip, remote_port, translated_local_ip, \
    translated_local_port, translated_remote_ip, translated_remote_port, netns, link, sent, recv, retransmits, \
    sent_before, recv_before, started, first, seen, last, closed, condition_at, state, close_reason, errno, \
    claim_certainty, claim_at, claim_direction, owner_at, pid, process_start, process, cgroup_id, cgroup_path, \
    container_id, rtt_at, rtt_us, connect_latency_us, other_peer";
/// How many those are.
pub(super) const TRANSACTION_COLUMN_COUNT: usize = 48;
/// Those of them that an index has, or that are the key and never change.
pub(super) const INDEXED_TRANSACTION_COLUMNS: [&str; 20] = [
    "id",
    "node",
    "boot",
    "instance",
    "cookie",
    "instance_netns",
    "instance_pid",
    "generation",
    "generation_run",
    "protocol",
    "local_ip",
    "local_port",
    "remote_ip",
    "remote_port",
    "translated_local_ip",
    "translated_local_port",
    "translated_remote_ip",
    "translated_remote_port",
    "link",
    "closed",
];

/// Every column of `metadata`.
pub(super) const FACT_COLUMNS: &str = "node, source, kind, id, valid_from, valid_to, said, name, namespace, parent, \
    netns, addresses, attributes";

/// Every column of `translations`.
pub(super) const TRANSLATION_COLUMNS: &str = "node, protocol, original_source_ip, original_source_port, \
    original_dest_ip, original_dest_port, translated_source_ip, translated_source_port, translated_dest_ip, \
    translated_dest_port, seen, began, original_link, translated_link";
/// How many those are.
pub(super) const TRANSLATION_COLUMN_COUNT: usize = 14;

/// Every column of `streams`.
pub(super) const STREAM_COLUMNS: &str = "stream, node, boot, agent_run, version, applied_sequence, received, \
    first_covered, newest_from, newest_to, newest_covered, newest_reason, clock_offset_ns, source_kind, source_state, \
    source_detail, source_version, counts, metadata";

pub(super) fn stream_summary(row: &Row<'_>) -> rusqlite::Result<StreamSummary> {
    let node: String = row.get(1)?;
    let counts: String = row.get(17)?;
    Ok(StreamSummary {
        stream: StreamId(row.get(0)?),
        boot: row.get(2)?,
        agent_run: row.get(3)?,
        version: row.get(4)?,
        applied_sequence: row.get::<_, i64>(5)? as u64,
        received: UnixNanos(row.get(6)?),
        first_covered: UnixNanos(row.get(7)?),
        newest: Coverage {
            node: node.clone(),
            from: UnixNanos(row.get(8)?),
            to: UnixNanos(row.get(9)?),
            covered: row.get(10)?,
            gap_reason: row.get(11)?,
        },
        node: NodeName(node),
        clock_offset_ns: row.get(12)?,
        source: SourceState { kind: row.get(13)?, state: row.get(14)?, detail: row.get(15)?, version: row.get(16)? },
        metadata: metadata_states(&row.get::<_, String>(18)?).map_err(|error| wrong(18, &error.to_string()))?,
        counts: serde_json::from_str(&counts).map_err(|error| wrong(17, &error.to_string()))?,
    })
}

/// A source of metadata as it is stored.
type StoredState = (String, String, String, u64, Option<i64>);

fn metadata_states(text: &str) -> Result<Vec<MetadataState>, serde_json::Error> {
    let stored: Vec<StoredState> = serde_json::from_str(text)?;
    let states = stored.into_iter().map(|(source, state, detail, things, read)| MetadataState {
        source,
        state,
        detail,
        things,
        read: read.map(UnixNanos),
    });
    Ok(states.collect())
}

/// The JSON that [`metadata_states`] reads.
pub(super) fn metadata_text(states: &[MetadataState]) -> Result<String, serde_json::Error> {
    let stored: Vec<_> = states
        .iter()
        .map(|one| (&one.source, &one.state, &one.detail, one.things, one.read.map(|read| read.0)))
        .collect();
    serde_json::to_string(&stored)
}

pub(super) fn transaction(row: &Row<'_>) -> rusqlite::Result<Transaction> {
    let protocol = protocol(row, 9)?;
    let tuple = Tuple { local: end(row, 10)?, remote: end(row, 12)? };
    let cookie = row.get::<_, i64>(4)? as u64;
    let instance = match row.get::<_, i64>(3)? {
        1 => Instance::Socket { cookie },
        2 => Instance::Peer { cookie, tuple },
        3 => Instance::Tuple { protocol, netns: row.get(5)?, pid: row.get(6)?, tuple },
        other => return Err(wrong(3, &format!("instance {other}"))),
    };
    let translated = match row.get::<_, Option<[u8; 16]>>(14)? {
        Some(_) => Some(Tuple { local: end(row, 14)?, remote: end(row, 16)? }),
        None => None,
    };
    let claim = match row.get::<_, Option<i64>>(34)? {
        Some(certainty) => Some(Claim {
            certainty: certainty_of(certainty).ok_or_else(|| wrong(34, "certainty"))?,
            at: UnixNanos(row.get(35)?),
            direction: match row.get::<_, i64>(36)? {
                1 => Direction::Incoming,
                2 => Direction::Outgoing,
                other => return Err(wrong(36, &format!("direction {other}"))),
            },
        }),
        None => None,
    };
    let owner = match row.get::<_, Option<i64>>(37)? {
        Some(at) => Some(Owner {
            at: UnixNanos(at),
            pid: row.get(38)?,
            process_start_ns: row.get::<_, i64>(39)? as u64,
            process: row.get(40)?,
            cgroup_id: row.get::<_, i64>(41)? as u64,
            cgroup_path: row.get(42)?,
            container_id: row.get(43)?,
        }),
        None => None,
    };
    let rtt = match row.get::<_, Option<i64>>(44)? {
        Some(at) => Some(Rtt { at: UnixNanos(at), us: row.get(45)? }),
        None => None,
    };
    Ok(Transaction {
        key: ConnectionKey {
            node: NodeName(row.get(1)?),
            boot: row.get(2)?,
            instance,
            generation: Generation { count: row.get(7)?, run: row.get::<_, i64>(8)? as u64 },
        },
        protocol,
        tuple,
        translated,
        netns: row.get(18)?,
        totals: Totals {
            sent: Bytes(row.get::<_, i64>(20)? as u64),
            recv: Bytes(row.get::<_, i64>(21)? as u64),
            retransmits: row.get::<_, i64>(22)? as u64,
        },
        before: Before { sent: Bytes(row.get::<_, i64>(23)? as u64), recv: Bytes(row.get::<_, i64>(24)? as u64) },
        started: row.get::<_, Option<i64>>(25)?.map(UnixNanos),
        first: UnixNanos(row.get(26)?),
        seen: UnixNanos(row.get(27)?),
        last: UnixNanos(row.get(28)?),
        condition: Condition {
            closed: row.get::<_, Option<i64>>(29)?.map(UnixNanos),
            at: UnixNanos(row.get(30)?),
            state: row.get(31)?,
            close_reason: row.get(32)?,
            errno: row.get(33)?,
        },
        claim,
        owner,
        rtt,
        connect_latency_us: row.get(46)?,
        other_peer: row.get(47)?,
    })
}

pub(super) fn bind_transaction(statement: &mut Statement<'_>, row: &Transaction) -> rusqlite::Result<()> {
    let (kind, cookie, netns, pid) = match row.key.instance {
        Instance::Socket { cookie } => (1, cookie, 0, 0),
        Instance::Peer { cookie, .. } => (2, cookie, 0, 0),
        Instance::Tuple { netns, pid, .. } => (3, 0, netns, pid),
    };
    let mut column = 0;
    let mut bind = |value: &dyn rusqlite::ToSql| {
        column += 1;
        statement.raw_bind_parameter(column, value)
    };
    bind(&row.id().0)?;
    bind(&row.key.node.0)?;
    bind(&row.key.boot)?;
    bind(&kind)?;
    bind(&(cookie as i64))?;
    bind(&netns)?;
    bind(&pid)?;
    bind(&row.key.generation.count)?;
    bind(&(row.key.generation.run as i64))?;
    bind(&(row.protocol as i64))?;
    for end in [
        Some(row.tuple.local),
        Some(row.tuple.remote),
        row.translated.map(|t| t.local),
        row.translated.map(|t| t.remote),
    ] {
        bind(&end.map(|end| address_bytes(end.ip())))?;
        bind(&end.map(|end| end.port()))?;
    }
    bind(&row.netns)?;
    bind(&row.link())?;
    for count in [row.totals.sent.0, row.totals.recv.0, row.totals.retransmits, row.before.sent.0, row.before.recv.0] {
        bind(&(count as i64))?;
    }
    bind(&row.started.map(|at| at.0))?;
    bind(&row.first.0)?;
    bind(&row.seen.0)?;
    bind(&row.last.0)?;
    bind(&row.condition.closed.map(|at| at.0))?;
    bind(&row.condition.at.0)?;
    bind(&row.condition.state)?;
    bind(&row.condition.close_reason)?;
    bind(&row.condition.errno)?;
    bind(&row.claim.map(|claim| claim.certainty as i64))?;
    bind(&row.claim.map(|claim| claim.at.0))?;
    bind(&row.claim.map(|claim| claim.direction as i64))?;
    let owner = row.owner.as_ref();
    bind(&owner.map(|owner| owner.at.0))?;
    bind(&owner.map(|owner| owner.pid))?;
    bind(&owner.map(|owner| owner.process_start_ns as i64))?;
    bind(&owner.map(|owner| &owner.process))?;
    bind(&owner.map(|owner| owner.cgroup_id as i64))?;
    bind(&owner.map(|owner| &owner.cgroup_path))?;
    bind(&owner.map(|owner| &owner.container_id))?;
    bind(&row.rtt.map(|rtt| rtt.at.0))?;
    bind(&row.rtt.map(|rtt| rtt.us))?;
    bind(&row.connect_latency_us)?;
    bind(&row.other_peer)
}

pub(super) fn fact(row: &Row<'_>) -> rusqlite::Result<Fact> {
    let json = |column: usize, error: &serde_json::Error| wrong(column, &error.to_string());
    Ok(Fact {
        node: NodeName(row.get(0)?),
        source: row.get(1)?,
        kind: row.get(2)?,
        id: row.get(3)?,
        from: UnixNanos(row.get(4)?),
        to: row.get::<_, Option<i64>>(5)?.map(UnixNanos),
        said: UnixNanos(row.get(6)?),
        name: row.get(7)?,
        namespace: row.get(8)?,
        parent: row.get(9)?,
        netns: row.get(10)?,
        addresses: serde_json::from_str(&row.get::<_, String>(11)?).map_err(|error| json(11, &error))?,
        attributes: serde_json::from_str(&row.get::<_, String>(12)?).map_err(|error| json(12, &error))?,
    })
}

pub(super) fn bind_fact(statement: &mut Statement<'_>, fact: &Fact) -> Result<(), StoreError> {
    let corrupt = |error: serde_json::Error| StoreError::Corrupt { what: "metadata", text: error.to_string() };
    let addresses = serde_json::to_string(&fact.addresses).map_err(corrupt)?;
    let attributes = serde_json::to_string(&fact.attributes).map_err(corrupt)?;
    let values: [&dyn rusqlite::ToSql; 13] = [
        &fact.node.0,
        &fact.source,
        &fact.kind,
        &fact.id,
        &fact.from.0,
        &fact.to.map(|to| to.0),
        &fact.said.0,
        &fact.name,
        &fact.namespace,
        &fact.parent,
        &fact.netns,
        &addresses,
        &attributes,
    ];
    for (index, value) in values.into_iter().enumerate() {
        statement.raw_bind_parameter(index + 1, value).map_err(StoreError::sql("store a metadata fact"))?;
    }
    Ok(())
}

pub(super) fn translation(row: &Row<'_>) -> rusqlite::Result<Translation> {
    Ok(Translation {
        node: NodeName(row.get(0)?),
        protocol: protocol(row, 1)?,
        original: Tuple { local: end(row, 2)?, remote: end(row, 4)? },
        translated: Tuple { local: end(row, 6)?, remote: end(row, 8)? },
        seen: UnixNanos(row.get(10)?),
        began: row.get(11)?,
    })
}

pub(super) fn bind_translation(statement: &mut Statement<'_>, row: &Translation) -> rusqlite::Result<()> {
    let mut column = 0;
    let mut bind = |value: &dyn rusqlite::ToSql| {
        column += 1;
        statement.raw_bind_parameter(column, value)
    };
    bind(&row.node.0)?;
    bind(&(row.protocol as i64))?;
    for end in [row.original.local, row.original.remote, row.translated.local, row.translated.remote] {
        bind(&address_bytes(end.ip()))?;
        bind(&end.port())?;
    }
    bind(&row.seen.0)?;
    bind(&row.began)?;
    row.links().iter().try_for_each(|link| bind(link))
}

pub(super) fn protocol(row: &Row<'_>, column: usize) -> rusqlite::Result<Protocol> {
    match row.get::<_, i64>(column)? {
        0 => Ok(Protocol::Tcp),
        1 => Ok(Protocol::Udp),
        other => Err(wrong(column, &format!("protocol {other}"))),
    }
}

fn certainty_of(number: i64) -> Option<Certainty> {
    [Certainty::Unknown, Certainty::Inferred, Certainty::Known]
        .into_iter()
        .find(|certainty| *certainty as i64 == number)
}

pub(super) fn end(row: &Row<'_>, column: usize) -> rusqlite::Result<SocketAddr> {
    Ok(SocketAddr::new(address_from_bytes(row.get(column)?), row.get(column + 1)?))
}

fn wrong(column: usize, text: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, text.to_owned().into())
}
