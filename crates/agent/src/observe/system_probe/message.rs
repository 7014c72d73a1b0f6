//! The part of system-probe's `Connections` that is used, in protobuf and in the JSON that protobuf makes of it.
//!
//! Numbers and names are those of `proto/process/connections.proto` (package `datadog.process_agent`). Everything else of
//! the message is skipped: DNS (weir has its own), tags, routes and protocols name no end and count no byte. The JSON has
//! names in lowerCamelCase, 64-bit numbers as strings and enums as names; numbers are taken in either form.

use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, de};
use std::collections::HashMap;
use std::fmt;

/// One connection, as it changed since this client's last fetch.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Connection {
    /// The owner in the initial pid namespace, 0 unknown.
    #[prost(int32, tag = "1")]
    #[serde(deserialize_with = "number")]
    pub pid: i32,
    /// The socket's own end.
    #[prost(message, optional, tag = "5")]
    pub laddr: Option<Addr>,
    /// The peer's.
    #[prost(message, optional, tag = "6")]
    pub raddr: Option<Addr>,
    /// 0 TCP, 1 UDP.
    #[prost(int32, tag = "11")]
    #[serde(rename = "type", deserialize_with = "kind")]
    pub kind: i32,
    /// Payload bytes sent.
    #[prost(uint64, tag = "16")]
    #[serde(deserialize_with = "number")]
    pub last_bytes_sent: u64,
    /// Payload bytes received.
    #[prost(uint64, tag = "17")]
    #[serde(deserialize_with = "number")]
    pub last_bytes_received: u64,
    /// Segments sent again.
    #[prost(uint32, tag = "18")]
    #[serde(deserialize_with = "number")]
    pub last_retransmits: u32,
    /// 0 unspecified, 1 incoming, 2 outgoing, 3 local, 4 none.
    #[prost(int32, tag = "19")]
    #[serde(deserialize_with = "direction")]
    pub direction: i32,
    /// The network namespace's inode.
    #[prost(uint32, tag = "20")]
    #[serde(rename = "netNS", deserialize_with = "number")]
    pub net_ns: u32,
    /// How the node translates it.
    #[prost(message, optional, tag = "21")]
    pub ip_translation: Option<IpTranslation>,
    /// Smoothed round-trip time, microseconds.
    #[prost(uint32, tag = "22")]
    #[serde(deserialize_with = "number")]
    pub rtt: u32,
    /// How often it was established.
    #[prost(uint32, tag = "30")]
    #[serde(deserialize_with = "number")]
    pub last_tcp_established: u32,
    /// How often it was closed.
    #[prost(uint32, tag = "31")]
    #[serde(deserialize_with = "number")]
    pub last_tcp_closed: u32,
    /// errno to how many connections failed with it.
    #[prost(map = "uint32, uint32", tag = "52")]
    #[serde(deserialize_with = "numbers")]
    pub tcp_failures_by_err_code: HashMap<u32, u32>,
}

/// One end.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Addr {
    /// The address in text.
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "text")]
    pub ip: String,
    /// The port.
    #[prost(int32, tag = "3")]
    #[serde(deserialize_with = "number")]
    pub port: i32,
    /// The container that it is in, empty unknown.
    #[prost(string, tag = "5")]
    #[serde(deserialize_with = "text")]
    pub container_id: String,
}

/// The answer's tuple: its source is the real backend, its destination the translated source.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct IpTranslation {
    /// The answer's source address.
    #[prost(string, tag = "1")]
    #[serde(rename = "replSrcIP", deserialize_with = "text")]
    pub repl_src_ip: String,
    /// The answer's destination address.
    #[prost(string, tag = "2")]
    #[serde(rename = "replDstIP", deserialize_with = "text")]
    pub repl_dst_ip: String,
    /// The answer's source port.
    #[prost(int32, tag = "3")]
    #[serde(rename = "replSrcPort", deserialize_with = "number")]
    pub repl_src_port: i32,
    /// The answer's destination port.
    #[prost(int32, tag = "4")]
    #[serde(rename = "replDstPort", deserialize_with = "number")]
    pub repl_dst_port: i32,
}

/// An entry of `connTelemetryMap`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Telemetry {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(int64, tag = "2")]
    pub value: i64,
}

/// A number, also in a string, or null for 0.
pub fn number<'de, D: Deserializer<'de>, T: TryFrom<i128>>(from: D) -> Result<T, D::Error> {
    let number = from.deserialize_any(Number)?;
    T::try_from(number).map_err(|_range| D::Error::custom(format_args!("{number} is out of range")))
}

struct Number;

impl Visitor<'_> for Number {
    type Value = i128;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_u64<E>(self, value: u64) -> Result<i128, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<i128, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<i128, E> {
        Ok(0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<i128, E> {
        text.parse().map_err(|_error| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// An enum's value by its name or its number.
struct Named(&'static [&'static str]);

impl Visitor<'_> for Named {
    type Value = i32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one of {:?} or a number", self.0)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<i32, E> {
        i32::try_from(value).map_err(|_error| E::invalid_value(Unexpected::Unsigned(value), &self))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<i32, E> {
        i32::try_from(value).map_err(|_error| E::invalid_value(Unexpected::Signed(value), &self))
    }

    fn visit_unit<E>(self) -> Result<i32, E> {
        Ok(0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<i32, E> {
        let position = self.0.iter().position(|name| *name == text);
        position.map(|at| at as i32).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

fn kind<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    from.deserialize_any(Named(&["tcp", "udp"]))
}

fn direction<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    from.deserialize_any(Named(&["unspecified", "incoming", "outgoing", "local", "none"]))
}

fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A map of numbers; JSON's keys are strings.
fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<HashMap<u32, u32>, D::Error> {
    struct Value(u32);
    impl<'de> Deserialize<'de> for Value {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            number(from).map(Self)
        }
    }
    let map: Option<HashMap<String, Value>> = Option::deserialize(from)?;
    let pair = |(key, Value(value)): (String, Value)| {
        let key = key.parse().map_err(|_error| D::Error::custom("an errno is a number"))?;
        Ok((key, value))
    };
    map.unwrap_or_default().into_iter().map(pair).collect()
}
