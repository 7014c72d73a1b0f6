//! A DNS message (RFC 1035 4.1), as much of it as counts: the question, the outcome, the addresses of an answer and the
//! names on the way to them.
//!
//! The bytes come from whoever sent a datagram to or from port 53, and only their beginning may be here. So every step
//! is bounded by them: a name's pointers only ever go back, records are cut off where the bytes are, and what cannot be
//! read ends the reading without an error. Nothing here allocates more than a few names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses kept of an answer.
pub const ANSWERS_MAX: usize = 16;
/// Names kept on the way to them. Resolvers give up at about as many.
pub const ALIASES_MAX: usize = 8;
/// Records looked at: an answer of 512 bytes has at most 31.
const RECORDS_MAX: u16 = 64;
/// A name's bytes on the wire, without the root's zero (RFC 1035 3.1).
const NAME_BYTES_MAX: usize = 254;

const HEADER: usize = 12;
const CLASS_IN: u16 = 1;
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// What a query asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// In lower case without the final dot; `.` for the root.
    pub name: String,
    /// The type's number.
    pub kind: u16,
}

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Chosen by who asks.
    pub id: u16,
    /// QR.
    pub is_answer: bool,
    /// TC: the server had more to say than fitted.
    pub is_truncated: bool,
    /// The outcome's number, without EDNS' extension of it.
    pub rcode: u8,
    /// Absent from some servers' errors.
    pub question: Option<Question>,
    /// Addresses that the question's name leads to, each with the smallest time to live on the way, seconds.
    pub answers: Vec<(IpAddr, u32)>,
    /// The names on that way.
    pub aliases: Vec<String>,
    /// There were more than are kept.
    pub is_capped: bool,
}

/// Reads the beginning of a message. `None`: it is no standard query or its answer.
pub fn decode(bytes: &[u8]) -> Option<Message> {
    if bytes.len() < HEADER {
        return None;
    }
    let field = |index: usize| u16::from_be_bytes([bytes[2 * index], bytes[2 * index + 1]]);
    let (id, flags, questions, answers) = (field(0), field(1), field(2), field(3));
    let mut message = Message {
        id,
        is_answer: flags & 0x8000 != 0,
        is_truncated: flags & 0x0200 != 0,
        rcode: (flags & 15) as u8,
        ..Message::default()
    };
    let opcode = flags >> 11 & 15;
    if opcode != 0 {
        return None;
    }
    match questions {
        1 => {
            let (name, at) = name(bytes, HEADER)?;
            let kind = short(bytes, at)?;
            short(bytes, at + 2)?;
            if message.is_answer {
                read_answers(&mut message, &name, bytes, at + 4, answers.min(RECORDS_MAX));
            }
            message.question = Some(Question { name, kind });
        }
        // An error about a question that the server did not understand.
        0 if message.is_answer && message.rcode != 0 => {}
        _ => return None,
    }
    Some(message)
}

/// Follows the records from `asked` on, in the order in which servers give them: each alias before what it leads to.
fn read_answers(message: &mut Message, asked: &str, bytes: &[u8], mut at: usize, records: u16) {
    let mut current = asked.to_owned();
    let mut alias_ttl = u32::MAX;
    for _ in 0..records {
        let Some(record) = record(bytes, at) else { return };
        at = record.next;
        if record.class != CLASS_IN || record.owner != current {
            continue;
        }
        let ttl = record.ttl.min(alias_ttl);
        let address = match (record.kind, record.data.len()) {
            (CNAME, _) => {
                let Some((target, _)) = name(bytes, record.data_at) else { return };
                if message.aliases.len() >= ALIASES_MAX {
                    message.is_capped = true;
                    return;
                }
                alias_ttl = ttl;
                current.clone_from(&target);
                message.aliases.push(target);
                continue;
            }
            (A, 4) => <[u8; 4]>::try_from(record.data).ok().map(|octets| IpAddr::V4(Ipv4Addr::from(octets))),
            (AAAA, 16) => <[u8; 16]>::try_from(record.data).ok().map(|octets| IpAddr::V6(Ipv6Addr::from(octets))),
            _ => None,
        };
        let Some(address) = address else { continue };
        if message.answers.len() >= ANSWERS_MAX {
            message.is_capped = true;
            return;
        }
        message.answers.push((address.to_canonical(), ttl));
    }
}

struct Record<'a> {
    owner: String,
    kind: u16,
    class: u16,
    ttl: u32,
    data: &'a [u8],
    data_at: usize,
    next: usize,
}

fn record(bytes: &[u8], at: usize) -> Option<Record<'_>> {
    let (owner, at) = name(bytes, at)?;
    let ttl = u32::from(short(bytes, at + 4)?) << 16 | u32::from(short(bytes, at + 6)?);
    let (data_at, length) = (at + 10, usize::from(short(bytes, at + 8)?));
    Some(Record {
        owner,
        kind: short(bytes, at)?,
        class: short(bytes, at + 2)?,
        // The highest bit set is as zero (RFC 2181 8).
        ttl: if ttl >> 31 == 1 { 0 } else { ttl },
        data: bytes.get(data_at..data_at + length)?,
        data_at,
        next: data_at + length,
    })
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The name at `at`, and where what follows it begins.
fn name(bytes: &[u8], at: usize) -> Option<(String, usize)> {
    let mut text = String::new();
    let (mut from, mut at, mut next, mut length) = (at, at, None, 0);
    loop {
        let head = usize::from(*bytes.get(at)?);
        match head >> 6 {
            0 if head == 0 => {
                next.get_or_insert(at + 1);
                break;
            }
            0 => {
                let label = bytes.get(at + 1..at + 1 + head)?;
                length += head + 1;
                if length > NAME_BYTES_MAX {
                    return None;
                }
                push_label(&mut text, label);
                at += 1 + head;
            }
            3 => {
                let target = (head & 63) << 8 | usize::from(*bytes.get(at + 1)?);
                // Before everything that was read so far: no way leads round.
                if target >= from {
                    return None;
                }
                next.get_or_insert(at + 2);
                (from, at) = (target, target);
            }
            _ => return None,
        }
    }
    if text.is_empty() {
        text.push('.');
    }
    next.map(|next| (text, next))
}

fn push_label(text: &mut String, label: &[u8]) {
    use std::fmt::Write as _;
    if !text.is_empty() {
        text.push('.');
    }
    for byte in label {
        if matches!(byte, b'!'..=b'~') && !matches!(byte, b'.' | b'\\') {
            text.push(char::from(byte.to_ascii_lowercase()));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\{byte:03}");
        }
    }
}

/// A type's name.
pub fn kind_name(kind: u16) -> String {
    let known = match kind {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        35 => "NAPTR",
        43 => "DS",
        48 => "DNSKEY",
        64 => "SVCB",
        65 => "HTTPS",
        255 => "ANY",
        _ => return format!("TYPE{kind}"),
    };
    known.to_owned()
}

/// An outcome's name.
pub fn rcode_name(rcode: u8) -> String {
    let known = match rcode {
        0 => "noerror",
        1 => "formerr",
        2 => "servfail",
        3 => "nxdomain",
        4 => "notimp",
        5 => "refused",
        _ => return format!("rcode{rcode}"),
    };
    known.to_owned()
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
