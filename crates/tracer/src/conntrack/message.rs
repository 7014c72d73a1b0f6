//! ctnetlink's messages as bytes: requests written, entries read. Pure.
//!
//! `linux/netfilter/nfnetlink_conntrack.h` has the numbers. A message is a header of 16 bytes, 4 bytes of netfilter's
//! own, then attributes: length and type in 2 bytes each, the value, padded to 4. Lengths and types are the machine's,
//! values are big endian.

use super::{Ends, Entry};
use crate::kernel::netlink::Instruction;
use nix::libc;
use std::net::{IpAddr, SocketAddr};

const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;
const ATTRIBUTES_AT: usize = HEADER + FAMILY_HEADER;

const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const ERROR: u16 = libc::NLMSG_ERROR as u16;
const DONE: u16 = libc::NLMSG_DONE as u16;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const DUMP: u16 = libc::NLM_F_DUMP as u16;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOCOL_INFO: u16 = 4;
const TIMESTAMP: u16 = 20;
const STATUS_MASK: u16 = 26;
/// Within a tuple.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
/// Within a tuple's addresses: the sources, each followed by its destination.
const V4_SOURCE: u16 = 1;
const V4_DEST: u16 = 2;
const V6_SOURCE: u16 = 3;
const V6_DEST: u16 = 4;
/// Within a tuple's protocol.
const NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DEST_PORT: u16 = 3;
/// Within the protocol's own attributes: TCP's, and in them the state.
const TCP_INFO: u16 = 1;
const TCP_STATE: u16 = 1;
/// Within the time stamps.
const TIMESTAMP_START: u16 = 1;

const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// `IPS_SRC_NAT | IPS_DST_NAT`: source and destination are both translated.
pub const BOTH_TRANSLATED: u32 = 0x30;

/// Adds the question for the entry of a connection whose packets go from `ends.source` to `ends.dest`, whichever way the
/// entry's own direction is.
pub fn ask(into: &mut Vec<u8>, sequence: u32, protocol: u8, ends: Ends) {
    let family = if ends.source.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u8;
    let begin = header(into, GET, REQUEST, sequence, family);
    nested(into, TUPLE_ORIGINAL, |into| {
        nested(into, TUPLE_IP, |into| match (ends.source.ip(), ends.dest.ip()) {
            (IpAddr::V4(source), IpAddr::V4(dest)) => {
                attribute(into, V4_SOURCE, &source.octets());
                attribute(into, V4_DEST, &dest.octets());
            }
            (source, dest) => {
                attribute(into, V6_SOURCE, &sixteen(source));
                attribute(into, V6_DEST, &sixteen(dest));
            }
        });
        nested(into, TUPLE_PROTOCOL, |into| {
            attribute(into, NUMBER, &[protocol]);
            attribute(into, SOURCE_PORT, &ends.source.port().to_be_bytes());
            attribute(into, DEST_PORT, &ends.dest.port().to_be_bytes());
        });
    });
    finish(into, begin);
}

/// Adds the question for every entry that is translated at both ends. A kernel that does not know the mask tells all.
pub fn ask_for_both_translated(into: &mut Vec<u8>, sequence: u32) {
    let begin = header(into, GET, REQUEST | DUMP, sequence, libc::AF_UNSPEC as u8);
    attribute(into, STATUS, &BOTH_TRANSLATED.to_be_bytes());
    attribute(into, STATUS_MASK, &BOTH_TRANSLATED.to_be_bytes());
    finish(into, begin);
}

/// A filter for events: only entries that are translated at both ends wake the reader. The kernel finds the attribute
/// (`SKF_AD_NLATTR`); an event without one goes through and is judged here.
pub fn both_translated_only() -> [Instruction; 10] {
    let step = |code: u32, jt: u8, jf: u8, k: u32| Instruction { code: code as u16, jt, jf, k };
    let (ld, ldx, ret, jmp) = (libc::BPF_LD, libc::BPF_LDX, libc::BPF_RET, libc::BPF_JMP);
    [
        step(ld | libc::BPF_IMM, 0, 0, ATTRIBUTES_AT as u32),
        step(ldx | libc::BPF_IMM, 0, 0, u32::from(STATUS)),
        step(ld | libc::BPF_B | libc::BPF_ABS, 0, 0, (libc::SKF_AD_OFF + libc::SKF_AD_NLATTR) as u32),
        step(jmp | libc::BPF_JEQ | libc::BPF_K, 4, 0, 0),
        step(libc::BPF_MISC | libc::BPF_TAX, 0, 0, 0),
        step(ld | libc::BPF_W | libc::BPF_IND, 0, 0, 4),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, BOTH_TRANSLATED),
        step(jmp | libc::BPF_JEQ | libc::BPF_K, 0, 1, BOTH_TRANSLATED),
        step(ret | libc::BPF_K, 0, 0, u32::MAX),
        step(ret | libc::BPF_K, 0, 0, 0),
    ]
}

/// One message of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// An entry: an answer, a part of a dump, or an event.
    Entry {
        /// The request's.
        sequence: u32,
        /// The entry.
        entry: Entry,
    },
    /// A request failed.
    Failed {
        /// The request's.
        sequence: u32,
        /// `ENOENT`: there is no such entry.
        errno: i32,
    },
    /// A dump is over.
    Done {
        /// The request's.
        sequence: u32,
    },
    /// Something else, or an entry of a protocol without ports.
    Other,
}

/// Takes the next message off `bytes`; `None` at the end, or where they are no message.
pub fn next(bytes: &mut &[u8]) -> Option<Message> {
    let (header, _) = bytes.split_at_checked(HEADER)?;
    let length = u32::from_ne_bytes(header[..4].try_into().ok()?) as usize;
    if length < HEADER {
        return None;
    }
    let message = bytes.get(..length)?;
    *bytes = bytes.get(padded(length)..).unwrap_or_default();
    let kind = u16::from_ne_bytes([header[4], header[5]]);
    let sequence = u32::from_ne_bytes(header[8..12].try_into().ok()?);
    Some(match kind {
        ERROR => {
            let errno = message.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
            errno.map_or(Message::Other, |errno| Message::Failed { sequence, errno: -errno })
        }
        DONE => Message::Done { sequence },
        NEW => {
            let entry = message.get(ATTRIBUTES_AT..).and_then(entry);
            entry.map_or(Message::Other, |entry| Message::Entry { sequence, entry })
        }
        _ => Message::Other,
    })
}

fn entry(bytes: &[u8]) -> Option<Entry> {
    let (mut original, mut reply, mut protocol) = (None, None, 0);
    let (mut status, mut tcp_state, mut started_unix_ns) = (0, None, None);
    for (kind, value) in Attributes(bytes) {
        match kind {
            TUPLE_ORIGINAL => {
                let (ends, number) = tuple(value)?;
                (original, protocol) = (Some(ends), number);
            }
            TUPLE_REPLY => reply = Some(tuple(value)?.0),
            STATUS => status = u32::from_be_bytes(value.try_into().ok()?),
            PROTOCOL_INFO => {
                tcp_state = find(value, TCP_INFO)
                    .and_then(|info| find(info, TCP_STATE))
                    .and_then(|state| state.first().copied());
            }
            TIMESTAMP => {
                let start =
                    find(value, TIMESTAMP_START).and_then(|start| start.try_into().ok()).map(u64::from_be_bytes);
                started_unix_ns = start.filter(|start| *start != 0);
            }
            _ => {}
        }
    }
    Some(Entry { protocol, original: original?, reply: reply?, status, tcp_state, started_unix_ns })
}

fn tuple(bytes: &[u8]) -> Option<(Ends, u8)> {
    let (addresses, protocol) = (find(bytes, TUPLE_IP)?, find(bytes, TUPLE_PROTOCOL)?);
    let address = |v4, v6| -> Option<IpAddr> {
        if let Some(octets) = find(addresses, v4) {
            return Some(IpAddr::from(<[u8; 4]>::try_from(octets).ok()?));
        }
        Some(IpAddr::from(<[u8; 16]>::try_from(find(addresses, v6)?).ok()?))
    };
    let port = |kind| Some(u16::from_be_bytes(find(protocol, kind)?.try_into().ok()?));
    let ends = Ends {
        source: SocketAddr::new(address(V4_SOURCE, V6_SOURCE)?, port(SOURCE_PORT)?),
        dest: SocketAddr::new(address(V4_DEST, V6_DEST)?, port(DEST_PORT)?),
    };
    Some((ends, *find(protocol, NUMBER)?.first()?))
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    Attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// Attributes one after another, until the bytes end or are none.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, _) = self.0.split_at_checked(4)?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(padded(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn header(into: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, family: u8) -> usize {
    let begin = into.len();
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&kind.to_ne_bytes());
    into.extend_from_slice(&flags.to_ne_bytes());
    into.extend_from_slice(&sequence.to_ne_bytes());
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&[family, 0, 0, 0]);
    begin
}

fn finish(into: &mut [u8], begin: usize) {
    let length = (into.len() - begin) as u32;
    into[begin..begin + 4].copy_from_slice(&length.to_ne_bytes());
}

fn attribute(into: &mut Vec<u8>, kind: u16, value: &[u8]) {
    into.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
    into.extend_from_slice(&kind.to_ne_bytes());
    into.extend_from_slice(value);
    into.resize(padded(into.len()), 0);
}

fn nested(into: &mut Vec<u8>, kind: u16, inner: impl FnOnce(&mut Vec<u8>)) {
    let begin = into.len();
    attribute(into, kind | NESTED, &[]);
    inner(into);
    let length = (into.len() - begin) as u16;
    into[begin..begin + 2].copy_from_slice(&length.to_ne_bytes());
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
