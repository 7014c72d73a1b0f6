//! system-probe's two forms of a reply, written by hand.

use super::{Connection, Reply};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;

/// `Connections` as protobuf's JSON.
pub fn json(reply: &Reply) -> String {
    let connections: Vec<Value> = reply.connections.iter().map(connection_json).collect();
    let telemetry: Map<String, Value> =
        reply.telemetry.iter().map(|(name, count)| (name.clone(), json!(count.to_string()))).collect();
    json!({"conns": connections, "dns": {}, "domains": [], "tags": ["x"], "connTelemetryMap": telemetry}).to_string()
}

fn connection_json(connection: &Connection) -> Value {
    let [sent, recv, retransmits, established, closed] = connection.counts;
    let direction = ["unspecified", "incoming", "outgoing", "local", "none"][usize::from(connection.direction)];
    let failures: Map<String, Value> =
        connection.failures.iter().map(|(errno, count)| (errno.to_string(), json!(count))).collect();
    json!({
        "pid": connection.pid,
        "laddr": {"ip": connection.local.ip().to_string(), "port": connection.local.port(), "containerId": connection.container},
        "raddr": {"ip": connection.remote.ip().to_string(), "port": connection.remote.port(), "containerId": ""},
        "family": if connection.local.is_ipv4() { "v4" } else { "v6" },
        "type": if connection.is_udp { "udp" } else { "tcp" },
        "lastBytesSent": sent.to_string(),
        "lastBytesReceived": recv.to_string(),
        "lastRetransmits": retransmits,
        "direction": direction,
        "netNS": connection.netns,
        "ipTranslation": connection.translation.map(|(source, dest)| json!({
            "replSrcIP": source.ip().to_string(), "replDstIP": dest.ip().to_string(),
            "replSrcPort": source.port(), "replDstPort": dest.port(),
        })),
        "rtt": 350,
        "lastTcpEstablished": established,
        "lastTcpClosed": closed,
        "tcpFailuresByErrCode": failures,
        "tags": [0],
    })
}

/// `Connections` in protobuf.
pub fn protobuf(reply: &Reply) -> Vec<u8> {
    let mut body = Vec::new();
    for connection in &reply.connections {
        bytes(&mut body, 1, &connection_protobuf(connection));
    }
    bytes(&mut body, 8, b"x");
    for (name, count) in &reply.telemetry {
        let mut entry = Vec::new();
        bytes(&mut entry, 1, name.as_bytes());
        number(&mut entry, 2, *count as u64);
        bytes(&mut body, 9, &entry);
    }
    body
}

fn connection_protobuf(connection: &Connection) -> Vec<u8> {
    let [sent, recv, retransmits, established, closed] = connection.counts;
    let mut body = Vec::new();
    number(&mut body, 1, connection.pid.into());
    bytes(&mut body, 5, &end(connection.local, &connection.container));
    bytes(&mut body, 6, &end(connection.remote, ""));
    number(&mut body, 10, u64::from(connection.local.is_ipv6()));
    number(&mut body, 11, u64::from(connection.is_udp));
    number(&mut body, 16, sent);
    number(&mut body, 17, recv);
    number(&mut body, 18, retransmits);
    number(&mut body, 19, connection.direction.into());
    number(&mut body, 20, connection.netns.into());
    if let Some((source, dest)) = connection.translation {
        let mut translation = Vec::new();
        bytes(&mut translation, 1, source.ip().to_string().as_bytes());
        bytes(&mut translation, 2, dest.ip().to_string().as_bytes());
        number(&mut translation, 3, source.port().into());
        number(&mut translation, 4, dest.port().into());
        bytes(&mut body, 21, &translation);
    }
    number(&mut body, 22, 350);
    number(&mut body, 30, established);
    number(&mut body, 31, closed);
    number(&mut body, 44, 0);
    for (errno, count) in &connection.failures {
        let mut entry = Vec::new();
        number(&mut entry, 1, (*errno).into());
        number(&mut entry, 2, (*count).into());
        bytes(&mut body, 52, &entry);
    }
    body
}

fn end(end: SocketAddr, container: &str) -> Vec<u8> {
    let mut body = Vec::new();
    bytes(&mut body, 2, end.ip().to_string().as_bytes());
    number(&mut body, 3, end.port().into());
    bytes(&mut body, 5, container.as_bytes());
    body
}

/// proto3 leaves out what is 0 or empty.
fn number(into: &mut Vec<u8>, field: u64, value: u64) {
    if value != 0 {
        varint(into, field << 3);
        varint(into, value);
    }
}

fn bytes(into: &mut Vec<u8>, field: u64, content: &[u8]) {
    if !content.is_empty() {
        varint(into, field << 3 | 2);
        varint(into, content.len() as u64);
        into.extend_from_slice(content);
    }
}

fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value > 127 {
        into.push((value & 127) as u8 | 128);
        value >>= 7;
    }
    into.push(value as u8);
}
