//! What can be asked for: every field, what its values are, and which answers have it.

use std::fmt;

/// Which answer a filter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `/api/v1/edges`.
    Edges,
    /// `/api/v1/connections`.
    Connections,
    /// `/api/v1/transactions`.
    Transactions,
    /// `/api/v1/metadata`.
    Metadata,
    /// `/api/v1/dns`.
    Dns,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Edges, Self::Connections, Self::Transactions, Self::Metadata, Self::Dns];

    /// Its word: the last part of the API's path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Edges => "edges",
            Self::Connections => "connections",
            Self::Transactions => "transactions",
            Self::Metadata => "metadata",
            Self::Dns => "dns",
        }
    }
}

/// Which end a comparison is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Either end, or what is between them.
    Any,
    /// The end that opened the connection (`client.`, also `src.`).
    Client,
    /// The end that accepted it (`server.`, also `dst.`).
    Server,
}

/// What a comparison looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// Any name of an end: pod, workload, container, process, container id, address; of dns also the name that was asked
    /// for; of metadata also the id.
    Name,
    /// The kind of an end or of its workload; of metadata the thing's.
    Kind,
    /// The Kubernetes namespace.
    Namespace,
    /// The workload, `NAME` or `NAMESPACE/NAME`.
    Workload,
    /// The pod, `NAME` or `NAMESPACE/NAME`.
    Pod,
    /// The container, `NAME` or `POD/NAME`.
    Container,
    /// The container's id.
    ContainerId,
    /// The process' name.
    Process,
    /// The cgroup's path.
    CgroupPath,
    /// The node.
    Node,
    /// The node's zone.
    Zone,
    /// The address.
    Address,
    /// Something that is collected: `NAME`, or `KIND.NAME` for one kind of thing alone.
    Attribute(String),
    /// The Service that was gone through, or one that it could be: `NAME` or `NAMESPACE/NAME`.
    Service,
    /// The port.
    Port,
    /// `tcp` or `udp`.
    Protocol,
    /// How sure a row's names and roles are, or one end's name.
    Certainty,
    /// Bytes that the client sent; of connections, the row's own end.
    SentBytes,
    /// Bytes that came back.
    RecvBytes,
    /// Both.
    Bytes,
    /// Connections.
    Connections,
    /// Segments, of dns datagrams, that were sent again.
    Retransmits,
    /// The round-trip time, microseconds.
    RttUs,
    /// Connections, of dns queries, that failed.
    Failures,
    /// A connection's state.
    State,
    /// Why it ended.
    CloseReason,
    /// The name that was asked for.
    QueryName,
    /// The type that was asked for.
    QueryType,
    /// Queries.
    Queries,
    /// The mean time to an answer, microseconds.
    LatencyUs,
    /// Who said it.
    Source,
    /// The thing's id.
    Id,
}

/// What the values of a field are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Any text, case ignored.
    Text,
    /// One of a few words.
    Words(&'static [&'static str]),
    /// Text, and networks.
    Address,
    /// A plain number up to the largest.
    Number {
        /// The largest.
        max: u64,
    },
    /// Bytes, with a unit or without.
    Bytes,
    /// A time in microseconds, with a unit or without.
    Micros,
}

impl Values {
    /// Whether values have an order.
    pub fn are_ordered(self) -> bool {
        matches!(self, Self::Number { .. } | Self::Bytes | Self::Micros)
    }
}

/// Which ends a field may be asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// Of either, or of one.
    Both,
    /// Of the server: with or without the word for it.
    Server,
    /// Of none: it is between them.
    None,
}

/// When a comparison can be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Of each connection (of dns, each query): before rows are summed.
    Part,
    /// Of a row of the answer: after its parts are summed.
    Row,
}

/// A field in one scope.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) word: &'static str,
    pub(super) field: Field,
    pub(super) values: Values,
    pub(super) ends: Ends,
    pub(super) level: Level,
}

/// Before the name of an attribute; also the word of the API's `by`.
pub(super) const ATTRIBUTE: &str = "attribute:";

const CERTAINTIES: &[&str] = &["known", "inferred", "unknown"];

const fn known(word: &'static str, field: Field, values: Values, ends: Ends, level: Level) -> Known {
    Known { word, field, values, ends, level }
}

const fn text(word: &'static str, field: Field) -> Known {
    known(word, field, Values::Text, Ends::Both, Level::Part)
}

const fn sum(word: &'static str, field: Field, values: Values) -> Known {
    known(word, field, values, Ends::None, Level::Row)
}

const COUNT: Values = Values::Number { max: u64::MAX };

/// What every end has.
const OF_ENDS: [Known; 12] = [
    text("name", Field::Name),
    text("kind", Field::Kind),
    text("namespace", Field::Namespace),
    text("workload", Field::Workload),
    text("pod", Field::Pod),
    text("container", Field::Container),
    text("container_id", Field::ContainerId),
    text("process", Field::Process),
    text("cgroup_path", Field::CgroupPath),
    text("node", Field::Node),
    text("zone", Field::Zone),
    known("address", Field::Address, Values::Address, Ends::Both, Level::Part),
];

const SERVICE: Known = known("service", Field::Service, Values::Text, Ends::Server, Level::Part);
const PROTOCOL: Known = known("protocol", Field::Protocol, Values::Words(&["tcp", "udp"]), Ends::None, Level::Part);
const CERTAINTY: Known = known("certainty", Field::Certainty, Values::Words(CERTAINTIES), Ends::Both, Level::Row);

const fn port(ends: Ends) -> Known {
    known("port", Field::Port, Values::Number { max: 65_535 }, ends, Level::Part)
}

/// Every field of a scope, but for attributes.
pub(super) fn fields(scope: Scope) -> Vec<Known> {
    let mut fields = OF_ENDS.to_vec();
    let of_row = |word, field, values| known(word, field, values, Ends::None, Level::Part);
    match scope {
        Scope::Edges => fields.extend([
            SERVICE,
            port(Ends::Server),
            PROTOCOL,
            CERTAINTY,
            sum("sent_bytes", Field::SentBytes, Values::Bytes),
            sum("recv_bytes", Field::RecvBytes, Values::Bytes),
            sum("bytes", Field::Bytes, Values::Bytes),
            sum("connections", Field::Connections, COUNT),
            sum("retransmits", Field::Retransmits, COUNT),
            sum("rtt_us", Field::RttUs, Values::Micros),
            sum("failures", Field::Failures, COUNT),
        ]),
        Scope::Connections => fields.extend([
            SERVICE,
            port(Ends::Both),
            PROTOCOL,
            of_row("state", Field::State, Values::Text),
            of_row("close_reason", Field::CloseReason, Values::Text),
            of_row("sent_bytes", Field::SentBytes, Values::Bytes),
            of_row("recv_bytes", Field::RecvBytes, Values::Bytes),
            of_row("bytes", Field::Bytes, Values::Bytes),
            of_row("retransmits", Field::Retransmits, COUNT),
            of_row("rtt_us", Field::RttUs, Values::Micros),
        ]),
        Scope::Transactions => fields.extend([
            SERVICE,
            port(Ends::Both),
            PROTOCOL,
            of_row("state", Field::State, Values::Text),
            of_row("close_reason", Field::CloseReason, Values::Text),
            of_row("rtt_us", Field::RttUs, Values::Micros),
        ]),
        Scope::Dns => fields.extend([
            of_row("query_name", Field::QueryName, Values::Text),
            of_row("query_type", Field::QueryType, Values::Text),
            CERTAINTY,
            sum("queries", Field::Queries, COUNT),
            sum("failures", Field::Failures, COUNT),
            sum("retransmits", Field::Retransmits, COUNT),
            sum("latency_us", Field::LatencyUs, Values::Micros),
        ]),
        Scope::Metadata => {
            let of_thing = [Field::Name, Field::Kind, Field::Namespace, Field::Node, Field::Address];
            fields.retain(|known| of_thing.contains(&known.field));
            for known in &mut fields {
                known.ends = Ends::None;
            }
            fields.extend([of_row("source", Field::Source, Values::Text), of_row("id", Field::Id, Values::Text)]);
        }
    }
    fields
}

/// An attribute in a scope.
pub(super) fn attribute(scope: Scope, name: &str) -> Known {
    let ends = if scope == Scope::Metadata { Ends::None } else { Ends::Both };
    known("attribute", Field::Attribute(name.to_owned()), Values::Text, ends, Level::Part)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "",
            Self::Client => "client.",
            Self::Server => "server.",
        })
    }
}
