//! One row of the feed, parsed where it lies.
//!
//! [`parse`] reads the JSON object at the beginning of a slice in one pass; text stays borrowed unless it holds an
//! escape. It takes only what it fully understands: anything else, and a row that is not over, is left to the caller,
//! who knows where the row ends and whether it is JSON at all.

use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use weir_model::{MonotonicNanos, Protocol, Tuple};

/// One connection as its local end sees it: [`super::super::Connection`] with its addresses parsed and its text
/// borrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Its two ends.
    pub tuple: Tuple,
    /// The network namespace's inode, 0 unknown.
    pub netns: u32,
    /// The owner, 0 unknown.
    pub pid: u32,
    /// As the feed has it: 1 incoming, 2 outgoing, 3 local; anything else is unknown.
    pub direction: u8,
    /// Payload bytes sent since the counter began, where the feed has totals.
    pub sent_total: Option<u64>,
    /// Payload bytes received since the counter began, where the feed has totals.
    pub recv_total: Option<u64>,
    /// Segments sent again since the counter began.
    pub retransmits_total: Option<u64>,
    /// Payload bytes sent since the last fetch.
    pub sent_last: u64,
    /// Payload bytes received since the last fetch.
    pub recv_last: u64,
    /// Segments sent again since the last fetch.
    pub retransmits_last: u64,
    /// When the row last changed, 0 unknown.
    pub last_update: MonotonicNanos,
    /// The socket cookie, never 0.
    pub cookie: Option<u64>,
    /// How often the tracer saw the socket disconnected and used again.
    pub generation: Option<u32>,
    /// When the connection, or its counter, began.
    pub start: Option<MonotonicNanos>,
    /// When it closed.
    pub close: Option<MonotonicNanos>,
    /// The TCP state in lower case, `active` or `closed`.
    pub state: Option<Cow<'a, str>>,
    /// Why it closed.
    pub close_reason: Option<Cow<'a, str>>,
    /// The errno behind it, 0 none.
    pub errno: u32,
    /// The cgroup that the socket was created in, 0 unknown.
    pub cgroup_id: u64,
    /// That cgroup's path.
    pub cgroup_path: Option<Cow<'a, str>>,
    /// The container id in it.
    pub container_id: Option<Cow<'a, str>>,
    /// How the node translates it.
    pub reply: Option<ReplyTuple>,
    /// Smoothed round-trip time in microseconds, 0 unknown.
    pub rtt_us: u32,
    /// From SYN to established in microseconds, 0 unknown.
    pub connect_latency_us: u32,
    /// `known` or `inferred`.
    pub direction_certainty: Option<Cow<'a, str>>,
    /// The owner's name.
    pub process_name: Option<Cow<'a, str>>,
    /// When the owner started, nanoseconds since boot, 0 unknown.
    pub process_start: u64,
    /// The row stands for every peer beyond the cap (R9).
    pub other_peer: bool,
}

/// How the answer's packets look where a connection is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTuple {
    /// Where they come from: the real backend.
    pub source: SocketAddr,
    /// Where they go: the translated source.
    pub dest: SocketAddr,
    /// The opener's own tuple (it is `local`), where the feed tells it. Without it the row is taken for the opener's.
    pub original: Option<Tuple>,
}

/// A connection that the node translates at both ends: [`super::super::Translation`] with its addresses parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translated {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// As the opener knows it (the opener is `local`).
    pub original: Tuple,
    /// As it leaves the node, in the same direction.
    pub translated: Tuple,
    /// When it was seen first.
    pub seen: MonotonicNanos,
    /// It was seen as it began.
    pub began: bool,
}

impl Translated {
    /// Reads one, `None` when its fields do not make one.
    pub(super) fn of(told: &super::super::Translation) -> Option<Self> {
        let reply = ReplyTuple::of(&told.conntrack)?;
        Some(Self {
            protocol: match told.kind {
                0 => Protocol::Tcp,
                1 => Protocol::Udp,
                _ => return None,
            },
            original: reply.original?,
            translated: Tuple { local: reply.dest, remote: reply.source },
            seen: MonotonicNanos(told.seen_epoch),
            began: told.began,
        })
    }
}

impl ReplyTuple {
    fn of(told: &super::super::Conntrack) -> Option<Self> {
        let end = |text: &str, port| address(text.as_bytes()).map(|ip| SocketAddr::new(ip.to_canonical(), port));
        let original = match (&told.orig_src_ip, told.orig_src_port, &told.orig_dst_ip, told.orig_dst_port) {
            (Some(source), Some(source_port), Some(dest), Some(dest_port)) => {
                Some(Tuple { local: end(source, source_port)?, remote: end(dest, dest_port)? })
            }
            _ => None,
        };
        Some(Self {
            source: end(&told.repl_src_ip, told.repl_src_port)?,
            dest: end(&told.repl_dst_ip, told.repl_dst_port)?,
            original,
        })
    }
}

/// Why [`parse`] did not take a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The slice ends within it.
    Incomplete,
    /// It is not JSON, or not a connection.
    Odd,
}

/// The row at the beginning of `bytes`, which begin with `{`, and its length.
///
/// # Errors
/// [`Stop`]; the same row may then be complete in a longer slice.
pub fn parse(bytes: &[u8]) -> Result<(Row<'_>, usize), Stop> {
    let mut cursor = Cursor { bytes, at: 0 };
    let fields = Fields::read(&mut cursor)?;
    Ok((fields.into_row().ok_or(Stop::Odd)?, cursor.at))
}

#[derive(Default)]
struct Fields<'a> {
    kind: Option<u64>,
    source: Option<IpAddr>,
    dest: Option<IpAddr>,
    source_port: Option<u16>,
    dest_port: Option<u16>,
    netns: u32,
    pid: u32,
    direction: u8,
    sent_total: Option<u64>,
    recv_total: Option<u64>,
    retransmits_total: Option<u64>,
    sent_last: u64,
    recv_last: u64,
    retransmits_last: u64,
    last_update: u64,
    cookie: Option<u64>,
    generation: Option<u32>,
    start: Option<u64>,
    close: Option<u64>,
    state: Option<Cow<'a, str>>,
    close_reason: Option<Cow<'a, str>>,
    errno: u32,
    cgroup_id: u64,
    cgroup_path: Option<Cow<'a, str>>,
    container_id: Option<Cow<'a, str>>,
    reply: Option<ReplyTuple>,
    rtt_us: u32,
    connect_latency_us: u32,
    direction_certainty: Option<Cow<'a, str>>,
    process_name: Option<Cow<'a, str>>,
    process_start: u64,
    other_peer: bool,
}

impl<'a> Fields<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Result<Self, Stop> {
        let mut fields = Self::default();
        cursor.expect(b'{')?;
        if cursor.next_after_space()? == b'}' {
            cursor.at += 1;
            return Ok(fields);
        }
        loop {
            let key = cursor.text()?;
            if cursor.next_after_space()? != b':' {
                return Err(Stop::Odd);
            }
            cursor.at += 1;
            cursor.next_after_space()?;
            fields.read_value(&key, cursor)?;
            let byte = cursor.next_after_space()?;
            cursor.at += 1;
            match byte {
                b',' => {
                    cursor.next_after_space()?;
                }
                b'}' => return Ok(fields),
                _ => return Err(Stop::Odd),
            }
        }
    }

    fn read_value(&mut self, key: &str, cursor: &mut Cursor<'a>) -> Result<(), Stop> {
        match key {
            "pid" => self.pid = cursor.number()?.unwrap_or(0),
            "type" => self.kind = cursor.number()?,
            "family" => drop(cursor.number::<u64>()?),
            "net_ns" => self.netns = cursor.number()?.unwrap_or(0),
            "source" => self.source = cursor.address()?,
            "dest" => self.dest = cursor.address()?,
            "sport" => self.source_port = cursor.number()?,
            "dport" => self.dest_port = cursor.number()?,
            "direction" => {
                self.direction = cursor.number::<u64>()?.and_then(|value| u8::try_from(value).ok()).unwrap_or(0);
            }
            "monotonic_sent_bytes" => self.sent_total = cursor.number()?,
            "monotonic_recv_bytes" => self.recv_total = cursor.number()?,
            "monotonic_retransmits" => self.retransmits_total = cursor.number()?,
            "last_sent_bytes" => self.sent_last = cursor.number()?.unwrap_or(0),
            "last_recv_bytes" => self.recv_last = cursor.number()?.unwrap_or(0),
            "last_retransmits" => self.retransmits_last = cursor.number()?.unwrap_or(0),
            "last_update_epoch" => self.last_update = cursor.number()?.unwrap_or(0),
            "cookie" => self.cookie = cursor.number()?.filter(|cookie| *cookie != 0),
            "generation" => self.generation = cursor.number()?,
            "start_epoch" => self.start = cursor.number()?.filter(|start| *start != 0),
            "close_epoch" => self.close = cursor.number()?,
            "state" => self.state = cursor.text_or_null()?,
            "close_reason" => self.close_reason = cursor.text_or_null()?,
            "errno" => self.errno = cursor.number()?.unwrap_or(0),
            "cgroup_id" => self.cgroup_id = cursor.number()?.unwrap_or(0),
            "cgroup_path" => self.cgroup_path = cursor.text_or_null()?,
            "container_id" => self.container_id = cursor.text_or_null()?,
            "conntrack" => self.reply = cursor.reply()?,
            "rtt_us" => self.rtt_us = cursor.number()?.unwrap_or(0),
            "connect_latency_us" => self.connect_latency_us = cursor.number()?.unwrap_or(0),
            "direction_certainty" => self.direction_certainty = cursor.text_or_null()?,
            "process_name" => self.process_name = cursor.text_or_null()?,
            "process_start" => self.process_start = cursor.number()?.unwrap_or(0),
            "other_peer" => self.other_peer = cursor.truth()?,
            _ => cursor.skip()?,
        }
        Ok(())
    }

    fn into_row(self) -> Option<Row<'a>> {
        let protocol = match self.kind? {
            0 => Protocol::Tcp,
            1 => Protocol::Udp,
            _ => return None,
        };
        Some(Row {
            protocol,
            tuple: Tuple::new(self.source?, self.source_port?, self.dest?, self.dest_port?),
            netns: self.netns,
            pid: self.pid,
            direction: self.direction,
            sent_total: self.sent_total,
            recv_total: self.recv_total,
            retransmits_total: self.retransmits_total,
            sent_last: self.sent_last,
            recv_last: self.recv_last,
            retransmits_last: self.retransmits_last,
            last_update: MonotonicNanos(self.last_update),
            cookie: self.cookie,
            generation: self.generation,
            start: self.start.map(MonotonicNanos),
            close: self.close.map(MonotonicNanos),
            state: self.state,
            close_reason: self.close_reason,
            errno: self.errno,
            cgroup_id: self.cgroup_id,
            cgroup_path: self.cgroup_path,
            container_id: self.container_id,
            reply: self.reply,
            rtt_us: self.rtt_us,
            connect_latency_us: self.connect_latency_us,
            direction_certainty: self.direction_certainty,
            process_name: self.process_name,
            process_start: self.process_start,
            other_peer: self.other_peer,
        })
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Result<u8, Stop> {
        self.bytes.get(self.at).copied().ok_or(Stop::Incomplete)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Stop> {
        if self.peek()? != byte {
            return Err(Stop::Odd);
        }
        self.at += 1;
        Ok(())
    }

    /// The next byte that is not white space, not yet taken.
    fn next_after_space(&mut self) -> Result<u8, Stop> {
        loop {
            let byte = self.peek()?;
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Ok(byte);
            }
            self.at += 1;
        }
    }

    /// A whole number that fits, or `null`.
    fn number<T: TryFrom<u64>>(&mut self) -> Result<Option<T>, Stop> {
        let first = self.peek()?;
        if first == b'n' {
            return self.word(b"null").map(|()| None);
        }
        if !first.is_ascii_digit() {
            return Err(Stop::Odd);
        }
        let begin = self.at;
        let mut value = 0u64;
        loop {
            let byte = self.peek()?;
            if !byte.is_ascii_digit() {
                if matches!(byte, b'.' | b'e' | b'E') {
                    return Err(Stop::Odd);
                }
                break;
            }
            value =
                value.checked_mul(10).and_then(|value| value.checked_add(u64::from(byte - b'0'))).ok_or(Stop::Odd)?;
            self.at += 1;
        }
        if first == b'0' && self.at - begin > 1 {
            return Err(Stop::Odd);
        }
        T::try_from(value).map(Some).or(Err(Stop::Odd))
    }

    fn truth(&mut self) -> Result<bool, Stop> {
        match self.peek()? {
            b't' => self.word(b"true").map(|()| true),
            b'f' => self.word(b"false").map(|()| false),
            _ => self.word(b"null").map(|()| false),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Stop> {
        let rest = &self.bytes[self.at..];
        if rest.len() < word.len() {
            return Err(Stop::Incomplete);
        }
        if !rest.starts_with(word) {
            return Err(Stop::Odd);
        }
        self.at += word.len();
        Ok(())
    }

    /// What stands between the quotes, as it stands, and whether it holds an escape.
    fn raw_text(&mut self) -> Result<(&'a [u8], bool), Stop> {
        self.expect(b'"')?;
        let begin = self.at;
        let mut escaped = false;
        loop {
            self.at = special(self.bytes, self.at).ok_or(Stop::Incomplete)?;
            match self.bytes[self.at] {
                b'"' => {
                    let raw = &self.bytes[begin..self.at];
                    self.at += 1;
                    return Ok((raw, escaped));
                }
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                _ => return Err(Stop::Odd),
            }
        }
    }

    fn text(&mut self) -> Result<Cow<'a, str>, Stop> {
        let begin = self.at;
        let (raw, escaped) = self.raw_text()?;
        if escaped {
            return serde_json::from_slice(&self.bytes[begin..self.at]).map(Cow::Owned).or(Err(Stop::Odd));
        }
        std::str::from_utf8(raw).map(Cow::Borrowed).or(Err(Stop::Odd))
    }

    fn text_or_null(&mut self) -> Result<Option<Cow<'a, str>>, Stop> {
        if self.peek()? == b'n' {
            return self.word(b"null").map(|()| None);
        }
        self.text().map(Some)
    }

    fn address(&mut self) -> Result<Option<IpAddr>, Stop> {
        let (raw, _) = self.raw_text()?;
        address(raw).map(Some).ok_or(Stop::Odd)
    }

    /// The slice of a value of any form.
    fn value(&mut self) -> Result<&'a [u8], Stop> {
        let begin = self.at;
        match self.peek()? {
            b'"' => drop(self.raw_text()?),
            b'{' | b'[' => {
                let length = super::Splitter::default().scan(&self.bytes[begin..]).ok_or(Stop::Incomplete)?;
                self.at += length;
            }
            _ => {
                while !matches!(self.peek()?, b',' | b'}' | b']' | b' ' | b'\n' | b'\t' | b'\r') {
                    self.at += 1;
                }
            }
        }
        Ok(&self.bytes[begin..self.at])
    }

    fn skip(&mut self) -> Result<(), Stop> {
        let value = self.value()?;
        serde_json::from_slice::<IgnoredAny>(value).map(drop).or(Err(Stop::Odd))
    }

    fn reply(&mut self) -> Result<Option<ReplyTuple>, Stop> {
        let value = self.value()?;
        let reply: Option<super::super::Conntrack> = serde_json::from_slice(value).or(Err(Stop::Odd))?;
        reply.map(|reply| ReplyTuple::of(&reply).ok_or(Stop::Odd)).transpose()
    }
}

/// The first quote, backslash or control byte at or after `at`: eight bytes a step, since most of a feed is text.
fn special(bytes: &[u8], mut at: usize) -> Option<usize> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // Sets a byte's top bit where it is zero; bits above the first hit may be false, so only the lowest one counts.
    let zero = |word: u64| word.wrapping_sub(LOW) & !word & HIGH;
    while let Some(word) = bytes.get(at..at + 8).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok()) {
        let word = u64::from_le_bytes(word);
        let quote = zero(word ^ (LOW * u64::from(b'"')));
        let backslash = zero(word ^ (LOW * u64::from(b'\\')));
        let control = word.wrapping_sub(LOW * 0x20) & !word & HIGH;
        let hits = quote | backslash | control;
        if hits != 0 {
            return Some(at + hits.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = bytes.get(at..)?;
    rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).map(|index| at + index)
}

/// An address in text; an IPv6 zone (`%eth0`) is left out.
fn address(text: &[u8]) -> Option<IpAddr> {
    if let Some(v4) = dotted(text) {
        return Some(IpAddr::V4(v4));
    }
    let text = std::str::from_utf8(text).ok()?;
    text.split_once('%').map_or(text, |(address, _)| address).parse().ok()
}

/// `a.b.c.d` without leading zeros, several times as fast as `str::parse`: two of them are in every row.
fn dotted(text: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut octet = 0usize;
    let mut value = 0u16;
    let mut digits = 0;
    for byte in text {
        match byte {
            b'0'..=b'9' => {
                if digits > 0 && value == 0 {
                    return None;
                }
                value = value * 10 + u16::from(byte - b'0');
                digits += 1;
                if digits > 3 || value > 255 {
                    return None;
                }
            }
            b'.' if digits > 0 && octet < 3 => {
                octets[octet] = value as u8;
                octet += 1;
                value = 0;
                digits = 0;
            }
            _ => return None,
        }
    }
    if octet != 3 || digits == 0 {
        return None;
    }
    octets[3] = value as u8;
    Some(Ipv4Addr::from(octets))
}
