//! The database's schema and how it is raised. A migration is never changed once released, only followed by another.

use crate::error::StoreError;
use rusqlite::{Connection, params};
use std::path::Path;
use std::time::Duration;

/// The schema that this build writes: the number of its migrations.
pub const SCHEMA_VERSION: u32 = MIGRATIONS.len() as u32;

/// How long a statement waits for another's lock. Writers are one and readers never block in WAL mode; only a
/// checkpoint can make one wait.
const BUSY: Duration = Duration::from_secs(10);

const MIGRATIONS: &[&str] = &[SCHEMA_1, SCHEMA_2, SCHEMA_3, SCHEMA_4, SCHEMA_5, SCHEMA_6, SCHEMA_7, SCHEMA_8, SCHEMA_9];

/// Integers are SQLite's signed 64 bits: unsigned ones are stored as the same bits. Times are nanoseconds since 1970.
/// Addresses are 16 bytes (IPv4 as mapped) and compare as such.
const SCHEMA_1: &str = "
-- The merged state of every counter (R1).
CREATE TABLE transactions (
    id BLOB PRIMARY KEY,               -- 16 bytes, ConnectionKey::id
    node TEXT NOT NULL,
    boot BLOB NOT NULL,                -- 16 bytes
    instance INTEGER NOT NULL,         -- 1 socket, 2 peer, 3 tuple
    cookie INTEGER NOT NULL,           -- 0 for a tuple
    instance_netns INTEGER NOT NULL,   -- of a tuple's key, else 0
    instance_pid INTEGER NOT NULL,     -- of a tuple's key, else 0
    generation INTEGER NOT NULL,
    generation_run INTEGER NOT NULL,
    protocol INTEGER NOT NULL,         -- 0 TCP, 1 UDP
    local_ip BLOB NOT NULL, local_port INTEGER NOT NULL,
    remote_ip BLOB NOT NULL, remote_port INTEGER NOT NULL,
    translated_local_ip BLOB, translated_local_port INTEGER,
    translated_remote_ip BLOB, translated_remote_port INTEGER,
    netns INTEGER NOT NULL,
    link INTEGER NOT NULL,             -- the bucket of both views of a flow
    sent INTEGER NOT NULL, recv INTEGER NOT NULL, retransmits INTEGER NOT NULL,
    sent_before INTEGER NOT NULL, recv_before INTEGER NOT NULL,
    started INTEGER,
    first INTEGER NOT NULL, seen INTEGER NOT NULL, last INTEGER NOT NULL,
    closed INTEGER, condition_at INTEGER NOT NULL, state TEXT NOT NULL, close_reason TEXT, errno INTEGER NOT NULL,
    claim_certainty INTEGER, claim_at INTEGER, claim_direction INTEGER,
    owner_at INTEGER, pid INTEGER, process_start INTEGER, process TEXT, cgroup_id INTEGER, cgroup_path TEXT,
    container_id TEXT,
    rtt_at INTEGER, rtt_us INTEGER,
    connect_latency_us INTEGER,
    other_peer INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX transactions_closed ON transactions (closed, last);
CREATE INDEX transactions_end ON transactions (max(closed, last));   -- NULL while open
CREATE INDEX transactions_link ON transactions (link);

-- Metadata: what one source said about one thing, with its validity.
CREATE TABLE metadata (
    node TEXT NOT NULL, source TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL,
    valid_from INTEGER NOT NULL, valid_to INTEGER,
    said INTEGER NOT NULL,
    name TEXT NOT NULL, namespace TEXT NOT NULL, parent TEXT NOT NULL,
    netns INTEGER NOT NULL,
    addresses TEXT NOT NULL,           -- JSON list
    attributes TEXT NOT NULL,          -- JSON object
    PRIMARY KEY (node, source, kind, id, valid_from)
) WITHOUT ROWID;
CREATE INDEX metadata_ended ON metadata (valid_to);

-- One row a stream of an agent: its newest report and its counters.
CREATE TABLE streams (
    stream BLOB PRIMARY KEY,
    node TEXT NOT NULL, boot BLOB NOT NULL, agent_run BLOB NOT NULL, version TEXT NOT NULL,
    applied_sequence INTEGER NOT NULL,
    received INTEGER NOT NULL,
    first_covered INTEGER NOT NULL,
    newest_from INTEGER NOT NULL, newest_to INTEGER NOT NULL, newest_covered INTEGER NOT NULL, newest_reason TEXT NOT NULL,
    clock_offset_ns INTEGER,
    source_kind TEXT NOT NULL, source_state TEXT NOT NULL, source_detail TEXT NOT NULL, source_version TEXT NOT NULL,
    counts TEXT NOT NULL               -- JSON object
) WITHOUT ROWID;

-- Which spans each stream's polls covered, and which not.
CREATE TABLE coverage (
    stream BLOB NOT NULL, sequence INTEGER NOT NULL,
    node TEXT NOT NULL,
    from_ns INTEGER NOT NULL, to_ns INTEGER NOT NULL,
    covered INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (stream, sequence)
) WITHOUT ROWID;
CREATE INDEX coverage_to ON coverage (to_ns);

CREATE TABLE losses (
    stream BLOB NOT NULL, sequence INTEGER NOT NULL, number INTEGER NOT NULL,
    node TEXT NOT NULL, from_ns INTEGER NOT NULL, to_ns INTEGER NOT NULL,
    place TEXT NOT NULL, reason TEXT NOT NULL,
    count INTEGER NOT NULL, bytes INTEGER NOT NULL, connections INTEGER NOT NULL, intended INTEGER NOT NULL,
    PRIMARY KEY (stream, sequence, number)
) WITHOUT ROWID;
CREATE INDEX losses_to ON losses (to_ns);

-- The store's own counters.
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

-- The catalogue. Facts hold the dense ids, names are here.
CREATE TABLE endpoints (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    UNIQUE (kind, namespace, name)
);
CREATE TABLE edges (
    id INTEGER PRIMARY KEY,
    client INTEGER NOT NULL REFERENCES endpoints, server INTEGER NOT NULL REFERENCES endpoints,
    protocol INTEGER NOT NULL, port INTEGER NOT NULL,
    UNIQUE (client, server, protocol, port)
);
CREATE TABLE segments (
    first_lsn INTEGER PRIMARY KEY, last_lsn INTEGER NOT NULL,
    tier INTEGER NOT NULL,             -- 0 as received; later 1: one minute, 2: one hour
    oldest INTEGER NOT NULL, newest INTEGER NOT NULL,   -- the rows' smallest and largest `to`
    rows INTEGER NOT NULL, bytes INTEGER NOT NULL
);
CREATE INDEX segments_newest ON segments (newest);
CREATE TABLE watermark (only INTEGER PRIMARY KEY CHECK (only = 1), lsn INTEGER NOT NULL);
INSERT INTO watermark VALUES (1, 0);
";

/// What nodes do to the ends of connections, by the buckets of the views before and behind it.
const SCHEMA_2: &str = "
CREATE TABLE translations (
    node TEXT NOT NULL,
    protocol INTEGER NOT NULL,
    original_source_ip BLOB NOT NULL, original_source_port INTEGER NOT NULL,
    original_dest_ip BLOB NOT NULL, original_dest_port INTEGER NOT NULL,
    translated_source_ip BLOB NOT NULL, translated_source_port INTEGER NOT NULL,
    translated_dest_ip BLOB NOT NULL, translated_dest_port INTEGER NOT NULL,
    seen INTEGER NOT NULL,
    began INTEGER NOT NULL,
    original_link INTEGER NOT NULL, translated_link INTEGER NOT NULL,
    PRIMARY KEY (original_link, translated_link, node, protocol, seen, original_source_ip, original_source_port,
        original_dest_ip, original_dest_port, translated_source_ip, translated_source_port, translated_dest_ip,
        translated_dest_port)
) WITHOUT ROWID;
CREATE INDEX translations_link ON translations (translated_link);
CREATE INDEX translations_seen ON translations (seen);
";

/// DNS.
const SCHEMA_3: &str = "
-- What clients asked of DNS servers, as each batch told it.
CREATE TABLE dns (
    stream BLOB NOT NULL, sequence INTEGER NOT NULL, number INTEGER NOT NULL,
    node TEXT NOT NULL,
    pid INTEGER NOT NULL, process_start INTEGER NOT NULL, process TEXT NOT NULL, cgroup_path TEXT NOT NULL,
    container_id TEXT NOT NULL, netns INTEGER NOT NULL,
    server BLOB NOT NULL,
    name TEXT NOT NULL, query_type TEXT NOT NULL, rcode TEXT NOT NULL,
    count INTEGER NOT NULL, latency_sum_us INTEGER NOT NULL, latency_max_us INTEGER NOT NULL,
    retransmits INTEGER NOT NULL, truncated INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL,
    answers TEXT NOT NULL,             -- JSON list of [address, seconds]
    PRIMARY KEY (stream, sequence, number)
) WITHOUT ROWID;
CREATE INDEX dns_last ON dns (last);

-- Which name each client was told for an address, from its first answer to its last, and how long that may be kept.
CREATE TABLE dns_names (
    stream BLOB NOT NULL, client TEXT NOT NULL, address BLOB NOT NULL, from_ns INTEGER NOT NULL, name TEXT NOT NULL,
    node TEXT NOT NULL, netns INTEGER NOT NULL,
    last INTEGER NOT NULL, until_ns INTEGER NOT NULL,
    PRIMARY KEY (stream, client, address, from_ns, name)
) WITHOUT ROWID;
CREATE INDEX dns_names_until ON dns_names (until_ns);
";

/// Compaction: what is settled, and what a file's checksum is. Files of older builds have none.
const SCHEMA_4: &str = "
ALTER TABLE segments ADD COLUMN settled INTEGER NOT NULL DEFAULT 0;   -- 1: rows say whether they count
ALTER TABLE segments ADD COLUMN checksum INTEGER;                     -- CRC-32C of the file
";

const SCHEMA_5: &str = "
ALTER TABLE streams ADD COLUMN metadata TEXT NOT NULL DEFAULT '[]';   -- JSON list: source, state, detail, things, read
";

/// What an edge's ends were called when its rows were settled.
const SCHEMA_6: &str = "
CREATE TABLE ends (id INTEGER PRIMARY KEY, content TEXT NOT NULL UNIQUE);   -- JSON: SettledEnd
CREATE TABLE edges_6 (
    id INTEGER PRIMARY KEY,
    client INTEGER NOT NULL REFERENCES endpoints, server INTEGER NOT NULL REFERENCES endpoints,
    protocol INTEGER NOT NULL, port INTEGER NOT NULL,
    settled TEXT NOT NULL DEFAULT '',  -- JSON: both rows of `ends`, the Service, why it does not count; '' not settled
    UNIQUE (client, server, protocol, port, settled)
);
INSERT INTO edges_6 (id, client, server, protocol, port) SELECT id, client, server, protocol, port FROM edges;
DROP TABLE edges;
ALTER TABLE edges_6 RENAME TO edges;
";

/// Readings lie where they came first, not where the hash of their key falls: what one batch told stands together, and
/// the next batch of the same node writes a few neighbouring pages instead of one for each connection. Of an open
/// connection that moves, no index changes.
const SCHEMA_7: &str = "
CREATE TABLE transactions_7 (
    number INTEGER PRIMARY KEY,        -- in the order in which they came
    id BLOB NOT NULL UNIQUE,           -- 16 bytes, ConnectionKey::id
    node TEXT NOT NULL,
    boot BLOB NOT NULL,
    instance INTEGER NOT NULL,
    cookie INTEGER NOT NULL,
    instance_netns INTEGER NOT NULL,
    instance_pid INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    generation_run INTEGER NOT NULL,
    protocol INTEGER NOT NULL,
    local_ip BLOB NOT NULL, local_port INTEGER NOT NULL,
    remote_ip BLOB NOT NULL, remote_port INTEGER NOT NULL,
    translated_local_ip BLOB, translated_local_port INTEGER,
    translated_remote_ip BLOB, translated_remote_port INTEGER,
    netns INTEGER NOT NULL,
    link INTEGER NOT NULL,
    sent INTEGER NOT NULL, recv INTEGER NOT NULL, retransmits INTEGER NOT NULL,
    sent_before INTEGER NOT NULL, recv_before INTEGER NOT NULL,
    started INTEGER,
    first INTEGER NOT NULL, seen INTEGER NOT NULL, last INTEGER NOT NULL,
    closed INTEGER, condition_at INTEGER NOT NULL, state TEXT NOT NULL, close_reason TEXT, errno INTEGER NOT NULL,
    claim_certainty INTEGER, claim_at INTEGER, claim_direction INTEGER,
    owner_at INTEGER, pid INTEGER, process_start INTEGER, process TEXT, cgroup_id INTEGER, cgroup_path TEXT,
    container_id TEXT,
    rtt_at INTEGER, rtt_us INTEGER,
    connect_latency_us INTEGER,
    other_peer INTEGER NOT NULL
);
INSERT INTO transactions_7 SELECT NULL, id, node, boot, instance, cookie, instance_netns, instance_pid, generation,
    generation_run, protocol, local_ip, local_port, remote_ip, remote_port, translated_local_ip, translated_local_port,
    translated_remote_ip, translated_remote_port, netns, link, sent, recv, retransmits, sent_before, recv_before, started,
    first, seen, last, closed, condition_at, state, close_reason, errno, claim_certainty, claim_at, claim_direction,
    owner_at, pid, process_start, process, cgroup_id, cgroup_path, container_id, rtt_at, rtt_us, connect_latency_us,
    other_peer
    FROM transactions ORDER BY node, first;
DROP TABLE transactions;
ALTER TABLE transactions_7 RENAME TO transactions;
CREATE INDEX transactions_closed ON transactions (closed);
CREATE INDEX transactions_end ON transactions (max(closed, last)) WHERE closed IS NOT NULL;
CREATE INDEX transactions_link ON transactions (link);
";

/// By when a segment's rows were received. Of those that are there, it is known that none came after the newest batch.
const SCHEMA_8: &str = "
ALTER TABLE segments ADD COLUMN received INTEGER NOT NULL DEFAULT 9223372036854775807;
UPDATE segments SET received = coalesce((SELECT max(received) FROM streams), received);
";

/// Names are forgotten with the segments that have them: `used` is the entry of the log for which a name was last used (see
/// `catalogue`). Of those that are there, it is known that none was used for an entry that came later. An edge's number
/// stands in files that others may have copied: it is never given again.
const SCHEMA_9: &str = "
CREATE TABLE edges_9 (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    client INTEGER NOT NULL REFERENCES endpoints, server INTEGER NOT NULL REFERENCES endpoints,
    protocol INTEGER NOT NULL, port INTEGER NOT NULL,
    settled TEXT NOT NULL DEFAULT '',
    used INTEGER NOT NULL,
    UNIQUE (client, server, protocol, port, settled)
);
INSERT INTO edges_9 (id, client, server, protocol, port, settled, used)
    SELECT id, client, server, protocol, port, settled, (SELECT lsn FROM watermark) FROM edges;
DROP TABLE edges;
ALTER TABLE edges_9 RENAME TO edges;
CREATE INDEX edges_server ON edges (server);   -- whether an endpoint that leaves has an edge; the client's is the key's
ALTER TABLE endpoints ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
UPDATE endpoints SET used = (SELECT lsn FROM watermark);
ALTER TABLE ends ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
UPDATE ends SET used = (SELECT lsn FROM watermark);
";

/// Opens the database as every connection of this backend has it.
pub(super) fn connect(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path).map_err(StoreError::sql("open the state"))?;
    connection.busy_timeout(BUSY).map_err(StoreError::sql("open the state"))?;
    // The last connection's close would move the whole WAL into the database: a stop must not wait for that.
    connection
        .set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(StoreError::sql("open the state"))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 8192; PRAGMA journal_size_limit = 67108864;",
        )
        .map_err(StoreError::sql("open the state"))?;
    Ok(connection)
}

/// Lets a connection keep so much of the database in memory.
pub(super) fn keep_pages(connection: &Connection, kib: u32) -> Result<(), StoreError> {
    connection.pragma_update(None, "cache_size", -i64::from(kib)).map_err(StoreError::sql("open the state"))
}

/// As [`connect`], where the database must be there.
pub(super) fn connect_existing(path: &Path) -> Result<Connection, StoreError> {
    std::fs::metadata(path).map_err(StoreError::io("find the state of a data folder:", path))?;
    let connection = connect(path)?;
    let found = version(&connection)?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::TooNew { path: path.into(), found: found.to_string(), known: SCHEMA_VERSION });
    }
    if found < SCHEMA_VERSION {
        return Err(StoreError::Corrupt {
            what: "the state",
            text: format!("its schema is {found}; start `weir server` of this build on it once, which raises it"),
        });
    }
    Ok(connection)
}

/// The schema that a database has.
pub(super) fn version(connection: &Connection) -> Result<u32, StoreError> {
    connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(StoreError::sql("read the schema's version"))
}

/// Raises the schema to [`SCHEMA_VERSION`], each step in one transaction.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let sql = StoreError::sql;
    let found = version(connection)?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::TooNew { path: path.into(), found: found.to_string(), known: SCHEMA_VERSION });
    }
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(found as usize) {
        let version = index as u32 + 1;
        let step = connection.transaction().map_err(sql("raise the schema"))?;
        step.execute_batch(
            "CREATE TABLE IF NOT EXISTS migrations
             (version INTEGER PRIMARY KEY, build TEXT NOT NULL, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)",
        )
        .map_err(sql("raise the schema"))?;
        step.execute_batch(migration).map_err(sql("raise the schema"))?;
        step.execute(
            "INSERT INTO migrations (version, build) VALUES (?1, ?2)",
            params![version, env!("CARGO_PKG_VERSION")],
        )
        .map_err(sql("raise the schema"))?;
        step.pragma_update(None, "user_version", version).map_err(sql("raise the schema"))?;
        step.commit().map_err(sql("raise the schema"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_a_newer_build_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let mut connection = connect(&path).unwrap();
        connection.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
        assert!(matches!(migrate(&mut connection, &path), Err(StoreError::TooNew { .. })));
    }

    #[test]
    fn what_a_catalogue_holds_keeps_its_numbers_and_is_taken_as_just_received_and_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let mut connection = connect(&path).unwrap();
        connection.execute_batch(&MIGRATIONS[..7].concat()).unwrap();
        connection.pragma_update(None, "user_version", 7).unwrap();
        connection
            .execute_batch(
                "INSERT INTO endpoints VALUES (3, 'pod', 'shop', 'front'), (5, 'pod', 'shop', 'back');
                 INSERT INTO ends VALUES (2, '{}');
                 INSERT INTO edges VALUES (7, 3, 5, 0, 80, ''), (9, 3, 5, 0, 80, 'as settled');
                 INSERT INTO segments VALUES (1, 4, 0, 100, 9000, 2, 10, 0, NULL);
                 UPDATE watermark SET lsn = 4;
                 INSERT INTO streams VALUES
                     (x'01', 'a', x'', x'', '', 1, 777, 0, 0, 0, 1, '', NULL, '', '', '', '', '{}', '[]');",
            )
            .unwrap();
        migrate(&mut connection, &path).unwrap();
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("SELECT received FROM segments"), 777);
        assert_eq!(number("SELECT id FROM edges WHERE settled = '' AND used = 4"), 7);
        assert_eq!(number("SELECT id FROM edges WHERE settled = 'as settled' AND used = 4"), 9);
        assert_eq!(number("SELECT count(*) FROM endpoints JOIN ends USING (used) WHERE used = 4"), 2);
        connection.execute("DELETE FROM edges", []).unwrap();
        let sql = "INSERT INTO edges (client, server, protocol, port, used) VALUES (3, 5, 0, 80, 5) RETURNING id";
        assert_eq!(number(sql), 10, "the next number, whatever has left");
    }

    #[test]
    fn migrating_twice_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let mut connection = connect(&path).unwrap();
        migrate(&mut connection, &path).unwrap();
        migrate(&mut connection, &path).unwrap();
        let steps: u32 = connection.query_row("SELECT count(*) FROM migrations", [], |row| row.get(0)).unwrap();
        assert_eq!(steps, SCHEMA_VERSION);
    }
}
