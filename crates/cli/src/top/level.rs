//! How near a view looks: groupings of the API, and connections below them. And how an edge is asked for one step nearer.

use weir_wire::api::{Edge, EdgeEnd};

/// What a row of a view stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// An edge between two groups, by a word of the API's `by`.
    Edges(&'static str),
    /// A connection.
    Connections,
}

/// The groupings that `b` goes through.
pub const GROUPINGS: [&str; 6] = ["workload", "pod", "service", "namespace", "process", "node"];

impl Level {
    /// In the heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Edges("workload") => "workloads",
            Self::Edges("pod") => "pods",
            Self::Edges("service") => "services",
            Self::Edges("namespace") => "namespaces",
            Self::Edges("process") => "processes",
            Self::Edges("node") => "nodes",
            Self::Edges(_) => "edges",
            Self::Connections => "connections",
        }
    }

    /// The command that answers it, the last part of the API's path.
    pub fn command(self) -> &'static str {
        match self {
            Self::Edges(_) => "edges",
            Self::Connections => "connections",
        }
    }

    /// One step nearer; `None`: there is none.
    pub fn nearer(self) -> Option<Self> {
        match self {
            Self::Edges("namespace" | "node") => Some(Self::Edges("workload")),
            Self::Edges("workload" | "service") => Some(Self::Edges("pod")),
            Self::Edges(_) => Some(Self::Connections),
            Self::Connections => None,
        }
    }

    /// The next grouping of the round.
    #[must_use]
    pub fn next_grouping(self) -> Self {
        let Self::Edges(by) = self else { return self };
        let place = GROUPINGS.iter().position(|grouping| *grouping == by).map_or(0, |place| place + 1);
        Self::Edges(GROUPINGS[place % GROUPINGS.len()])
    }
}

/// The filter that lets through what `edge` sums up.
pub fn only(edge: &Edge) -> String {
    let mut parts = Vec::new();
    pin("client", &edge.client, &mut parts);
    pin("server", &edge.server, &mut parts);
    parts.push(format!("server.port={}", edge.port));
    parts.push(format!("protocol={}", quoted(&edge.protocol)));
    if let Some(service) = &edge.service {
        parts.push(format!("service={}", quoted(service)));
    }
    parts.join(" and ")
}

fn pin(place: &str, end: &EdgeEnd, parts: &mut Vec<String>) {
    let full = match &end.namespace {
        Some(namespace) => format!("{namespace}/{}", end.name),
        None => end.name.clone(),
    };
    let (field, value) = match end.kind.as_str() {
        "pod" => ("pod", full),
        "namespace" => ("namespace", end.name.clone()),
        "node" => ("node", end.name.clone()),
        "zone" => ("zone", end.name.clone()),
        "process" => ("process", end.name.clone()),
        "service" => ("service", full),
        "container" | "address" | "external" | "unknown" | "attribute" | "" => {
            match (&end.address, end.name.is_empty()) {
                (Some(address), _) => ("address", address.clone()),
                (None, false) => ("name", end.name.clone()),
                (None, true) => return,
            }
        }
        _ => ("workload", full),
    };
    // A Service is between the ends, not one's own.
    let place = if field == "service" { String::new() } else { format!("{place}.") };
    parts.push(format!("{place}{field}={}", quoted(&value)));
    if field == "process"
        && let Some(node) = &end.node
    {
        parts.push(format!("{place}node={}", quoted(node)));
    }
}

/// A value of the filter language that means just this text.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_wire::filter::{Filter, Scope};

    fn end(kind: &str, namespace: Option<&str>, name: &str, address: Option<&str>) -> EdgeEnd {
        EdgeEnd {
            kind: kind.into(),
            namespace: namespace.map(Into::into),
            name: name.into(),
            node: Some("n1".into()),
            address: address.map(Into::into),
            ..EdgeEnd::default()
        }
    }

    #[test]
    fn an_edge_is_pinned_in_words_that_the_server_reads_for_edges_and_for_connections() {
        let ends = [
            end("deployment", Some("shop"), "cart", None),
            end("pod", Some("shop"), "cart-1", None),
            end("process", None, "a \"b\\", None),
            end("namespace", None, "shop", None),
            end("service", Some("shop"), "cart", None),
            end("external", None, "example.org", Some("192.0.2.1")),
            end("unknown", None, "", Some("2001:db8::1")),
            end("unknown", None, "", None),
            end("node", None, "n1", None),
            end("zone", None, "a", None),
            end("container", Some("shop"), "app", None),
        ];
        for client in &ends {
            for server in &ends {
                let edge = Edge {
                    client: client.clone(),
                    server: server.clone(),
                    service: Some("shop/cart".into()),
                    port: 443,
                    protocol: "tcp".into(),
                    ..Edge::default()
                };
                let text = only(&edge);
                for scope in [Scope::Edges, Scope::Connections] {
                    assert!(Filter::parse(scope, &text).is_ok(), "{text}: {:?}", Filter::parse(scope, &text));
                }
            }
        }
        let edge = Edge {
            client: ends[0].clone(),
            server: ends[5].clone(),
            port: 53,
            protocol: "udp".into(),
            ..Edge::default()
        };
        assert_eq!(
            only(&edge),
            "client.workload=\"shop/cart\" and server.address=\"192.0.2.1\" and server.port=53 and protocol=\"udp\""
        );
    }

    #[test]
    fn every_level_ends_at_connections_and_the_round_comes_back() {
        for grouping in GROUPINGS {
            let mut level = Level::Edges(grouping);
            for _ in 0..4 {
                level = level.nearer().unwrap_or(level);
            }
            assert_eq!(level, Level::Connections);
            let mut round = Level::Edges(grouping);
            for _ in GROUPINGS {
                round = round.next_grouping();
            }
            assert_eq!(round, Level::Edges(grouping));
        }
    }
}
