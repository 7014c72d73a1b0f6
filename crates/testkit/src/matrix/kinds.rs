//! Every kind of traffic: what the client plays and which of the server's ports it plays against.

use super::Extent;
use crate::traffic::Manner;

/// Over which families a kind is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Both,
    /// IPv4 only.
    V4,
}

/// Against what it is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// These ports of the server.
    Ports(&'static [Manner]),
    /// A port that nobody has.
    Nobody,
}

/// One kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its name in the table.
    pub name: &'static str,
    /// The client's arguments.
    pub args: &'static [&'static str],
    /// Against what.
    pub against: Against,
    /// Over which families.
    pub family: Family,
    /// From which extent on.
    pub extent: Extent,
}

pub(super) const fn case(name: &'static str, args: &'static [&'static str], manners: &'static [Manner]) -> Case {
    Case { name, args, against: Against::Ports(manners), family: Family::Both, extent: Extent::Short }
}

const fn full(case: Case) -> Case {
    Case { extent: Extent::Full, ..case }
}

const fn v4(case: Case) -> Case {
    Case { family: Family::V4, ..case }
}

pub(super) const fn nobody(name: &'static str, args: &'static [&'static str]) -> Case {
    Case { name, args, against: Against::Nobody, family: Family::Both, extent: Extent::Short }
}

/// Every kind that needs no more than two places and a way between them.
pub const KINDS: &[Case] = &[
    case("TCP, no byte", &["echo", "--bytes", "0"], &[Manner::Echo]),
    case("TCP, 1 byte", &["echo", "--bytes", "1"], &[Manner::Echo]),
    case("TCP, 64 KiB", &["echo", "--bytes", "65536"], &[Manner::Echo]),
    full(case("TCP, 100 MB", &["echo", "--bytes", "100000000"], &[Manner::Echo])),
    case("TCP, 200 short connections", &["short", "--connections", "200"], &[Manner::Echo]),
    case("TCP at 200 kB/s", &["paced", "--bytes", "100000", "--rate", "200000"], &[Manner::Echo]),
    case("TCP, the client is done first", &["upload", "--bytes", "3000000"], &[Manner::Sink]),
    case("TCP, the server is done first", &["download", "--bytes", "3000000"], &[Manner::Source]),
    v4(case("TCP from an IPv6 socket", &["echo", "--bytes", "4444", "--over", "mapped"], &[Manner::Echo])),
    case("TCP by sendfile", &["upload", "--bytes", "2000000", "--by", "sendfile"], &[Manner::Sink]),
    case("TCP by splice, sent", &["upload", "--bytes", "2000000", "--by", "splice"], &[Manner::Sink]),
    case("TCP by splice, received", &["download", "--bytes", "2000000", "--by", "splice"], &[Manner::Source]),
    case("TCP by io_uring, sent", &["upload", "--bytes", "2000000", "--by", "uring"], &[Manner::Sink]),
    case("TCP by io_uring, zero copy", &["upload", "--bytes", "2000000", "--by", "uring-zero-copy"], &[Manner::Sink]),
    case("TCP by io_uring, received", &["download", "--bytes", "2000000", "--by", "uring"], &[Manner::Source]),
    case("TCP, peeked before it is read", &["download", "--bytes", "500000", "--by", "peek"], &[Manner::Source]),
    case("TCP fast open", &["echo", "--bytes", "5000", "--over", "fast-open"], &[Manner::Echo]),
    case("TCP, one socket used for three", &["reuse"], &[Manner::Echo]),
    case("TCP, one tuple used for ten", &["same-tuple", "--connections", "10"], &[Manner::Echo]),
    case("TCP, reset by the server", &["reset"], &[Manner::Reset]),
    case("TCP, reset by the client", &["abort", "--bytes", "70000"], &[Manner::Echo]),
    case("TCP, reset with megabytes queued", &["abort-queued"], &[Manner::Deaf]),
    case("TCP, reset by unread data", &["unread"], &[Manner::Unread]),
    case("TCP, process killed", &["killed", "--bytes", "7777", "--answer", "read"], &[Manner::Echo]),
    case("TCP, process killed, data unread", &["killed", "--bytes", "7777", "--answer", "unread"], &[Manner::Echo]),
    nobody("TCP, refused", &["refused"]),
    case("TCP, inherited, the child closes", &["forked", "--bytes", "5000", "--closer", "child"], &[Manner::Echo]),
    case("TCP, inherited, the parent closes", &["forked", "--bytes", "5000", "--closer", "parent"], &[Manner::Echo]),
    case("TCP, prefork server", &["short", "--connections", "30"], &[Manner::Prefork]),
    case("UDP, one socket, two peers", &["datagrams", "--count", "50"], &[Manner::Answer, Manner::AnswerToo]),
    case("UDP, connected", &["connected", "--count", "50"], &[Manner::Answer, Manner::AnswerToo]),
    case("UDP, empty datagrams", &["empty", "--count", "5"], &[Manner::Answer]),
    case("UDP, one call for 11 datagrams", &["segments"], &[Manner::Answer]),
    case("UDP, 300 peers of a server", &["peers", "--count", "300"], &[Manner::Answer]),
    case("UDP, a server that does not read", &["flood", "--count", "200"], &[Manner::Slow]),
    nobody("UDP, nobody there", &["nobody"]),
    case(
        "DNS",
        &["dns", "--name", "cart.shop.test", "--name", "gone.nx.test", "--name", "late.slow.test"],
        &[Manner::Dns],
    ),
];

/// What is played on every path through a cluster. No two connections of it move the same bytes, so that both ends of one
/// are found together also where both addresses were translated.
pub const TCP_BASICS: &[Case] = &[
    case("TCP, 5 kB", &["echo", "--bytes", "5000"], &[Manner::Echo]),
    case("TCP, 3 MB up", &["upload", "--bytes", "3000000"], &[Manner::Sink]),
    case("TCP, 100 short connections", &["short", "--connections", "100"], &[Manner::Echo]),
];

/// The same for UDP.
pub const UDP_BASICS: &[Case] = &[
    case("UDP, unconnected", &["datagrams", "--count", "50"], &[Manner::Answer]),
    case("UDP, connected", &["connected", "--count", "20"], &[Manner::Answer]),
];

/// The server's ports that [`TCP_BASICS`] and [`UDP_BASICS`] are played against.
pub const BASIC_PORTS: [Manner; 3] = [Manner::Echo, Manner::Sink, Manner::Answer];
