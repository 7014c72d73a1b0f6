//! The rows of a view, what each is about, and their order.

use super::level::Level;
use std::cmp::Ordering;
use weir_wire::api::{ConnectionRow, Edge, Health};

/// The rows of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Rows {
    /// Of [`Level::Edges`].
    Edges(Vec<Edge>),
    /// Of [`Level::Connections`].
    Connections(Vec<ConnectionRow>),
}

impl Rows {
    /// None yet.
    pub(super) fn none(level: Level) -> Self {
        match level {
            Level::Edges(_) => Self::Edges(Vec::new()),
            Level::Connections => Self::Connections(Vec::new()),
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Edges(rows) => rows.len(),
            Self::Connections(rows) => rows.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How a row does against its own past, where that was asked and there is enough to say.
    pub(super) fn health(&self, index: usize) -> Option<&Health> {
        match self {
            Self::Edges(rows) => rows.get(index).and_then(|row| row.health.as_ref()),
            Self::Connections(_) => None,
        }
    }

    /// How many are unhealthy.
    pub(super) fn unhealthy(&self) -> usize {
        (0..self.len()).filter(|row| self.health(*row).is_some_and(is_unhealthy)).count()
    }

    /// What a row is about, the same in every answer.
    pub(super) fn key(&self, index: usize) -> Option<String> {
        match self {
            Self::Edges(rows) => rows.get(index).map(|row| {
                let end = |end: &weir_wire::api::EdgeEnd| {
                    format!("{}\0{:?}\0{}\0{:?}\0{:?}", end.kind, end.namespace, end.name, end.node, end.address)
                };
                format!("{}\0{}\0{:?}\0{}\0{}", end(&row.client), end(&row.server), row.service, row.port, row.protocol)
            }),
            Self::Connections(rows) => rows.get(index).map(|row| {
                let row = &row.transaction;
                format!("{}\0{}\0{}\0{}", row.node, row.boot_id, row.instance, row.generation)
            }),
        }
    }

    pub(super) fn sort(&mut self, sort: Sort, reversed: bool) {
        let turn = |ordering: Ordering| if reversed { ordering.reverse() } else { ordering };
        match self {
            // The row that sums up all others is none of them.
            Self::Edges(rows) => {
                rows.sort_by(|a, b| a.client.is_other().cmp(&b.client.is_other()).then(turn(edges(sort, a, b))));
            }
            Self::Connections(rows) => rows.sort_by(|a, b| turn(connections(sort, a, b))),
        }
    }
}

/// Whether the verdict is that it is.
pub(super) fn is_unhealthy(health: &Health) -> bool {
    health.verdict == "unhealthy"
}

/// By what rows are sorted: numbers from the largest, names from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Sent and received.
    Bytes,
    /// Sent.
    Sent,
    /// Received.
    Recv,
    /// Connections; a connection by its state.
    Connections,
    /// Segments sent again.
    Retransmits,
    /// The round-trip time.
    Rtt,
    /// Failures; a connection by why it closed.
    Failures,
    /// The client's name; a connection by its key.
    Client,
    /// The server's name; a connection by its node.
    Server,
}

impl Sort {
    /// In the order of the keys.
    pub const ALL: [Self; 9] = [
        Self::Bytes,
        Self::Sent,
        Self::Recv,
        Self::Connections,
        Self::Retransmits,
        Self::Rtt,
        Self::Failures,
        Self::Client,
        Self::Server,
    ];

    /// In the heading.
    pub fn title(self, level: Level) -> &'static str {
        let is_edge = matches!(level, Level::Edges(_));
        match self {
            Self::Bytes => "bytes",
            Self::Sent => "bytes sent",
            Self::Recv => "bytes received",
            Self::Connections if is_edge => "connections",
            Self::Connections => "state",
            Self::Retransmits => "retransmits",
            Self::Rtt => "round-trip time",
            Self::Failures if is_edge => "failures",
            Self::Failures => "close reason",
            Self::Client if is_edge => "client",
            Self::Client => "key",
            Self::Server if is_edge => "server",
            Self::Server => "node",
        }
    }

    /// The word of the API's `sort`: of more rows than are asked for, those come that lead by it. Names have none.
    pub(super) fn word(self, level: Level) -> Option<&'static str> {
        let is_edge = matches!(level, Level::Edges(_));
        match self {
            Self::Bytes => Some("bytes"),
            Self::Sent => Some("sent_bytes"),
            Self::Recv => Some("recv_bytes"),
            Self::Retransmits => Some("retransmits"),
            Self::Rtt => Some("rtt_us"),
            Self::Connections if is_edge => Some("connections"),
            Self::Failures if is_edge => Some("failures"),
            _ => None,
        }
    }

    pub(super) fn step(self, forward: bool) -> Self {
        let place = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Self::ALL[(place + if forward { 1 } else { Self::ALL.len() - 1 }) % Self::ALL.len()]
    }
}

fn edges(sort: Sort, a: &Edge, b: &Edge) -> Ordering {
    let bytes = |edge: &Edge| edge.sent_bytes.saturating_add(edge.recv_bytes);
    let name = |end: &weir_wire::api::EdgeEnd| (end.namespace.clone(), end.name.clone(), end.address.clone());
    let by = match sort {
        Sort::Bytes => Ordering::Equal,
        Sort::Sent => b.sent_bytes.cmp(&a.sent_bytes),
        Sort::Recv => b.recv_bytes.cmp(&a.recv_bytes),
        Sort::Connections => b.connections.cmp(&a.connections),
        Sort::Retransmits => b.retransmits.cmp(&a.retransmits),
        // What is not known is last.
        Sort::Rtt => b.rtt_us.cmp(&a.rtt_us),
        Sort::Failures => b.failures.cmp(&a.failures),
        Sort::Client => name(&a.client).cmp(&name(&b.client)),
        Sort::Server => name(&a.server).cmp(&name(&b.server)),
    };
    by.then_with(|| bytes(b).cmp(&bytes(a)))
        .then_with(|| (&a.client, &a.server, a.port, &a.service).cmp(&(&b.client, &b.server, b.port, &b.service)))
}

fn connections(sort: Sort, a: &ConnectionRow, b: &ConnectionRow) -> Ordering {
    let bytes = |row: &ConnectionRow| row.sent_bytes.saturating_add(row.recv_bytes);
    let (one, two) = (&a.transaction, &b.transaction);
    let by = match sort {
        Sort::Bytes => Ordering::Equal,
        Sort::Sent => b.sent_bytes.cmp(&a.sent_bytes),
        Sort::Recv => b.recv_bytes.cmp(&a.recv_bytes),
        Sort::Connections => one.state.cmp(&two.state),
        Sort::Retransmits => b.retransmits.cmp(&a.retransmits),
        Sort::Rtt => two.rtt_us.cmp(&one.rtt_us),
        Sort::Failures => two.close_reason.cmp(&one.close_reason),
        Sort::Client => one.key.cmp(&two.key),
        Sort::Server => one.node.cmp(&two.node),
    };
    by.then_with(|| bytes(b).cmp(&bytes(a)))
        .then_with(|| (&one.key, &one.node, &one.instance).cmp(&(&two.key, &two.node, &two.instance)))
}
