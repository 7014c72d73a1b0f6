//! The reasons of losses: the one list of what can be lost, where, and what that means for an answer.
//!
//! Whoever counts a loss names it by a [`Reason`] of this list, so none reaches an answer that is not described in
//! `docs/losses.md` (a test of this file holds the two against each other). A reason's word is fixed for ever: it is in
//! the feed, in stored history and in people's alerts.

/// What a loss does to the numbers of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Touches {
    /// Bytes, connections or rows are missing.
    Bytes,
    /// All is counted; whose it was, or with whom, is not known.
    Names,
    /// All is counted, or will be by the next poll; when, or in which detail, is known less exactly.
    Detail,
}

/// One reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reason {
    /// `tracer` (its kernel programs included), `agent`, `server` or `store`.
    pub place: &'static str,
    /// The fixed word.
    pub word: &'static str,
    /// What is missing because of it.
    pub touches: Touches,
    /// A switch or a documented cap decided so.
    pub intended: bool,
}

/// A reason of which the feed tells the bytes, too, tells them under its word with this behind it.
pub const BYTES: &str = "_bytes";

impl Reason {
    /// The reason with this word at this place.
    pub fn find(place: &str, word: &str) -> Option<&'static Self> {
        ALL.iter().copied().find(|reason| reason.place == place && reason.word == word)
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $place:literal $word:literal $touches:ident $($intended:ident)?;)*) => {
        $($(#[$doc])*
        pub const $name: &Reason = &Reason {
            place: $place,
            word: $word,
            touches: Touches::$touches,
            intended: reasons!(@ $($intended)?),
        };)*
        /// Every reason.
        pub const ALL: &[&Reason] = &[$($name),*];
    };
    (@ intended) => { true };
    (@) => { false };
}

reasons! {
    /// Ended TCP connections that found the ring full.
    TCP_CLOSED_RING_FULL = "tracer" "tcp_closed_ring_full" Bytes;
    /// TCP connections whose socket could not be given storage: unseen while open, counted when they end.
    TCP_NO_SOCKET_STORAGE = "tracer" "tcp_no_socket_storage" Detail;
    /// Datagrams of peers beyond a cap, counted under the socket's `other` peer (R9).
    UDP_PEERS_CAPPED = "tracer" "udp_peers_capped" Names intended;
    /// Datagrams that the full table of flows had no room for; their bytes are told.
    UDP_FLOWS_FULL = "tracer" "udp_flows_full" Bytes;
    /// Sockets whose end found the ring full: their flows end when they have been idle instead.
    UDP_GONE_RING_FULL = "tracer" "udp_gone_ring_full" Detail;
    /// Datagrams of sockets that could not be given storage; their bytes are told.
    UDP_NO_SOCKET_STORAGE = "tracer" "udp_no_socket_storage" Bytes;
    /// Ended connections that no client had acknowledged when the journal was full.
    CLOSED_ROWS_DROPPED = "tracer" "closed_rows_dropped" Bytes;
    /// Ended connections that a client came back for after it had been away too long.
    CLOSED_ROWS_LET_GO = "tracer" "closed_rows_let_go" Bytes;
    /// Rows whose `last_*` could not be told because there were too many baselines; totals are right.
    CLIENT_BASELINES_CAPPED = "tracer" "client_baselines_capped" Detail intended;
    /// Clients that were forgotten because too many asked.
    CLIENTS_EVICTED = "tracer" "clients_evicted" Detail intended;
    /// Walks over the open connections that failed: the poll is a gap, totals bridge it.
    WALKS_FAILED = "tracer" "walks_failed" Detail;
    /// Replies that an open connection may be missing from, because the walk had to pause.
    WALKS_INCOMPLETE = "tracer" "walks_incomplete" Detail;
    /// Looks for the owners of sockets that failed.
    BACKFILLS_FAILED = "tracer" "backfills_failed" Names;
    /// Ended connections that conntrack was not asked about, since too many ended at once: their Service or their backend
    /// is not known.
    CONNTRACK_UNRESOLVED_OVER_BUDGET = "tracer" "conntrack_unresolved_over_budget" Names intended;
    /// Questions that conntrack did not answer.
    CONNTRACK_UNRESOLVED_FAILED = "tracer" "conntrack_unresolved_failed" Names;
    /// Ended connections whose conntrack entry may have been a later connection's with the same tuple.
    CONNTRACK_UNRESOLVED_REUSED = "tracer" "conntrack_unresolved_reused" Names;
    /// Ended connections that were asked about so late that their conntrack entry may have been gone.
    CONNTRACK_UNRESOLVED_LATE = "tracer" "conntrack_unresolved_late" Names;
    /// Forwarded translations that had to go before every client had them.
    TRANSLATIONS_DROPPED = "tracer" "translations_dropped" Names intended;
    /// Ended connections whose process was never known.
    OWNER_UNKNOWN = "tracer" "owner_unknown" Names;
    /// Ended connections whose cgroup had no path any more.
    CGROUP_UNRESOLVED = "tracer" "cgroup_unresolved" Names;
    /// Network namespaces beyond the fallback's bound.
    NAMESPACES_CAPPED = "tracer" "namespaces_capped" Bytes intended;
    /// Connections beyond the fallback's bound, in each walk.
    SOCKETS_CAPPED = "tracer" "sockets_capped" Bytes intended;
    /// Times that the kernel had no room to tell of destroyed sockets; how many they were it does not say.
    ENDS_OVERRUN = "tracer" "ends_overrun" Bytes;
    /// Destroyed sockets that the fallback's engine was too slow for.
    ENDS_DROPPED = "tracer" "ends_dropped" Bytes;
    /// Ended connections whose last totals the kernel had cleared, or whose end it did not tell.
    ENDS_LAST_SEEN = "tracer" "ends_last_seen" Bytes;
    /// Ended connections that may have received one byte more.
    ENDS_RECV_ONE_SHORT = "tracer" "ends_recv_one_short" Detail;
    /// DNS messages that found the ring full.
    DNS_RING_FULL = "tracer" "dns_ring_full" Names;
    /// DNS messages behind the first one of a buffer with many.
    DNS_SEGMENTED = "tracer" "dns_segmented" Names;
    /// DNS queries whose name found no room: counted under no name.
    DNS_NAMES_CAPPED = "tracer" "dns_names_capped" Names intended;
    /// DNS queries that found no room under any name.
    DNS_ROWS_DROPPED = "tracer" "dns_rows_dropped" Names intended;
    /// DNS queries beyond those that can be waited for.
    DNS_QUERIES_CAPPED = "tracer" "dns_queries_capped" Names intended;
    /// DNS queries that a killed tracer held and had not handed on.
    DNS_LOST_IN_RESTART = "tracer" "dns_lost_in_restart" Names;
    /// Open connections that vanished without their last row.
    CLOSED_UNSEEN = "tracer" "closed_unseen" Bytes;
    /// The tracer's counters began anew: UDP since the last poll, and connections that ended, are lost.
    TRACER_RESTARTED = "tracer" "tracer_restarted" Bytes;
    /// A tracer that keeps ended connections only for clients that it knows did not know this one.
    CLOSED_ROWS_NOT_KEPT = "tracer" "closed_rows_not_kept" Bytes;
    /// Failed connects that a tracer told as one row.
    FAILURES_MERGED = "tracer" "failures_merged" Detail;
    /// system-probe's own: ended connections beyond its bound.
    CLOSED_CONN_DROPPED = "tracer" "closed_conn_dropped" Bytes;
    /// system-probe's own: connections beyond its bound of baselines a client.
    CONN_DROPPED = "tracer" "conn_dropped" Bytes;
    /// system-probe's own: ended connections lost between kernel and system-probe.
    PERF_LOST = "tracer" "perf_lost" Bytes;
    /// system-probe's own: runs of its kernel programs that the kernel skipped.
    KPROBES_MISSED = "tracer" "kprobes_missed" Bytes;
    /// system-probe's own: datagrams whose sending it could not count.
    UDP_SENDS_MISSED = "tracer" "udp_sends_missed" Bytes;
    /// Connections that the agent's table had no room for.
    CONNECTION_TABLE_FULL = "agent" "connection_table_full" Bytes intended;
    /// Lives of a socket that was used again more often within a poll than the agent follows.
    LIVES_SUPERSEDED = "agent" "lives_superseded" Bytes;
    /// Facts about processes and containers beyond the agent's bound.
    METADATA_FULL = "agent" "metadata_full" Names intended;
    /// Rows of the feed that are not readable as connections.
    ROWS_REFUSED = "agent" "rows_refused" Bytes;
    /// The node started again: what came between its last poll and its end is lost.
    NODE_RESTARTED = "agent" "node_restarted" Bytes;
    /// Batches that the full spool had to drop.
    SPOOL_FULL = "agent" "spool_full" Bytes intended;
    /// Batches that became too old in the spool.
    SPOOL_OLD = "agent" "spool_old" Bytes intended;
    /// Batches that the spool dropped, from an agent that does not say why.
    SPOOL_DROPPED = "agent" "spool_dropped" Bytes intended;
    /// A batch that could not be read back from the spool.
    BATCH_MISSING = "agent" "batch_missing" Bytes intended;
    /// Batches that the server saw missing and the agent has not told of yet.
    BATCHES_LOST = "agent" "batches_lost" Bytes;
    /// Words of a feed beyond the agent's bound, summed.
    AGENT_FURTHER_REASONS = "agent" "further_reasons" Bytes;
    /// Reasons of one batch beyond the server's bound, summed.
    FURTHER_REASONS = "server" "further_reasons" Bytes;
    /// Records that are not readable.
    RECORD_REFUSED = "server" "record_refused" Bytes;
    /// Bytes of server-side views that the client's node may have told: counted in no edge.
    UNPAIRED = "server" "unpaired" Bytes;
    /// Records that came when their time was settled already: kept apart, counted in no edge.
    LATE = "server" "late" Bytes;
    /// Transactions beyond the cap.
    TRANSACTIONS_EVICTED = "store" "transactions_evicted" Bytes intended;
    /// Facts beyond the cap.
    FACTS_EVICTED = "store" "facts_evicted" Names intended;
    /// Translations beyond the cap: clients behind nodes that are not found any more.
    TRANSLATIONS_EVICTED = "store" "translations_evicted" Names intended;
    /// Counts of DNS queries beyond the cap.
    DNS_EVICTED = "store" "dns_evicted" Names intended;
    /// Names of DNS answers beyond the cap.
    DNS_NAMES_EVICTED = "store" "dns_names_evicted" Names intended;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_is_described_once_and_nothing_else_is() {
        let text = include_str!("../../../docs/losses.md");
        let mut described = Vec::new();
        for line in text.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            described.push((cells[2], cells[1].trim_matches('`'), cells[3] == "yes"));
        }
        let listed: Vec<_> = ALL.iter().map(|reason| (reason.place, reason.word, reason.intended)).collect();
        assert_eq!(described.iter().collect::<BTreeSet<_>>(), listed.iter().collect());
        assert_eq!(described.len(), listed.len());
    }
}
