//! Reads the body of `GET /connections` as it comes in, row by row, without ever holding the body.
//!
//! A [`Decoder`] is given the body's chunks, however they are cut, and hands each acceptable row to a closure;
//! [`Decoder::finish`] gives what stood around the rows. Where a row lies whole in a chunk it is parsed in place
//! ([`row`]); otherwise its bytes are carried over until a small state machine (strings, escapes, depth) has seen its
//! end. Nothing here is remembered between replies, and a reply is good only as a whole: who stages the rows commits
//! them after `finish`.
//!
//! The list `translations` is read in the same way, and kept.
//!
//! A row that is JSON but not a connection (an address that is none, a wrong type) is refused, counted and skipped. A
//! body that is not the feed is an error that says what is wrong and at which byte.

pub mod row;

use super::{Dns, Reply};
pub use row::{ReplyTuple, Row, Translated};
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

/// How much of a body is taken.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one row. weir's rows have at most about 1.5 kB, of which a cgroup path (`PATH_MAX`) may add 4 KiB.
    pub row: usize,
    /// Bytes of everything but the rows.
    pub envelope: usize,
    /// Bytes of the whole body.
    pub body: u64,
    /// Translations; more are refused.
    pub translations: usize,
    /// Bytes of the rows of `dns`; what is beyond is refused. weir's tracer has at most 8,704 of them.
    pub dns: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { row: 64 << 10, envelope: 1 << 20, body: 160 << 20, translations: 65_536, dns: 16 << 20 }
    }
}

/// Why a body is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is not JSON, or not the feed's JSON.
    #[error("the reply is not the feed: {what} at byte {at}")]
    NotTheFeed {
        /// What is wrong.
        what: String,
        /// Where, counted from 0.
        at: u64,
    },
    /// It is the list `conns` of Datadog's system-probe.
    #[error("the reply is system-probe's: it has `conns` at byte {at}")]
    SystemProbe {
        /// Where, counted from 0.
        at: u64,
    },
    /// It stops before its end.
    #[error("the reply breaks off at byte {at}, {within}")]
    Truncated {
        /// Its length.
        at: u64,
        /// Where in the structure it stops.
        within: &'static str,
    },
    /// A row is too long.
    #[error("the row that begins at byte {at} is longer than {limit} bytes")]
    RowTooLong {
        /// Where it begins.
        at: u64,
        /// The limit.
        limit: usize,
    },
    /// What stands around the rows is too long.
    #[error("the reply has more than {limit} bytes around its rows")]
    EnvelopeTooLong {
        /// The limit.
        limit: usize,
    },
    /// The body is too long.
    #[error("the reply is longer than {limit} bytes")]
    BodyTooLong {
        /// The limit.
        limit: u64,
    },
}

/// A reply without its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// As in [`Reply`].
    pub run_id: Option<String>,
    /// As in [`Reply`].
    pub boot_id: Option<String>,
    /// As in [`Reply`].
    pub monotonic_ns: Option<u64>,
    /// As in [`Reply`].
    pub cursor: Option<u64>,
    /// As in [`Reply`].
    pub complete: Option<bool>,
    /// As in [`Reply`].
    pub more: bool,
    /// As in [`Reply`].
    pub losses: BTreeMap<String, u64>,
    /// Connections that the node translates at both ends.
    pub translations: Vec<Translated>,
    /// As in [`Reply`].
    pub dns: Vec<Dns>,
    /// As in [`Reply`].
    pub dns_cursor: Option<u64>,
    /// Rows that were handed on.
    pub rows: u64,
    /// Rows, translations and rows of `dns` that were refused.
    pub refused: u64,
    /// Length of the body in bytes.
    pub bytes: u64,
}

/// Where in the reply's structure the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the opening brace.
    Start,
    /// Before a key, or the closing brace.
    Key,
    /// In a key.
    InKey { escaped: bool },
    /// Between key and value.
    Colon,
    /// Before a value.
    Value,
    /// In a value that is not the rows.
    Other,
    /// In the `null` that a tracer without connections writes; so many of its letters are seen.
    Null { seen: usize },
    /// In the rows: before the first one, or the closing bracket.
    FirstRow,
    /// In the rows, after a comma.
    NextRow,
    /// In a row that began in an earlier chunk, or that [`row::parse`] did not take.
    InRow,
    /// In the rows, after one.
    AfterRow,
    /// After a value.
    AfterValue,
    /// After the closing brace.
    End,
}

/// Reads one reply. See the module's documentation.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    state: State,
    /// Bytes of the body in earlier chunks.
    offset: u64,
    /// Everything but the rows.
    envelope: Vec<u8>,
    key: Vec<u8>,
    /// The beginning of the row that is not over yet.
    carry: Vec<u8>,
    carry_at: u64,
    splitter: Splitter,
    seen_rows: bool,
    /// The list that is being read.
    list: List,
    /// For each list that was read: length of `envelope` where it stands in it as `[]`, and where it begins and ends in
    /// the body.
    lists_at: Vec<(usize, u64, u64)>,
    translations: Vec<Translated>,
    dns: Vec<Dns>,
    dns_bytes: usize,
    rows: u64,
    refused: u64,
}

/// A list that is read item by item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Connections,
    Translations,
    Dns,
}

impl List {
    /// The list under `key` whose value begins with `byte`. Another tracer's `dns` may be something else.
    fn named(key: &[u8], byte: u8) -> Option<Self> {
        match key {
            b"connections" => Some(Self::Connections),
            b"translations" => Some(Self::Translations),
            b"dns" if byte == b'[' => Some(Self::Dns),
            _ => None,
        }
    }

    fn is_none(self) -> &'static str {
        match self {
            Self::Connections => "`connections` is not a list",
            Self::Translations => "`translations` is not a list",
            Self::Dns => "`dns` is not a list",
        }
    }
}

impl Decoder {
    /// A decoder for one reply.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Start,
            offset: 0,
            envelope: Vec::new(),
            key: Vec::new(),
            carry: Vec::new(),
            carry_at: 0,
            splitter: Splitter::default(),
            seen_rows: false,
            list: List::Connections,
            lists_at: Vec::new(),
            translations: Vec::new(),
            dns: Vec::new(),
            dns_bytes: 0,
            rows: 0,
            refused: 0,
        }
    }

    /// Rows refused so far.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Bytes taken so far.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Takes the next chunk and hands every row that ends in it to `each`.
    ///
    /// # Errors
    /// [`DecodeError`]; the decoder is of no use after it.
    pub fn push(&mut self, chunk: &[u8], mut each: impl FnMut(&Row<'_>)) -> Result<(), DecodeError> {
        if self.offset + chunk.len() as u64 > self.limits.body {
            return Err(DecodeError::BodyTooLong { limit: self.limits.body });
        }
        let mut at = 0;
        while at < chunk.len() {
            at = match self.state {
                State::FirstRow | State::NextRow | State::AfterRow => self.between_rows(chunk, at, &mut each)?,
                State::InRow => self.in_row(chunk, at, &mut each)?,
                _ => self.outside(chunk, at)?,
            };
        }
        self.offset += chunk.len() as u64;
        Ok(())
    }

    /// What stood around the rows, once the body is over.
    ///
    /// # Errors
    /// [`DecodeError`] when the body was not a whole feed.
    pub fn finish(self) -> Result<Envelope, DecodeError> {
        let within = match self.state {
            State::End => None,
            State::Start => Some("before it began"),
            State::FirstRow | State::NextRow | State::AfterRow => Some("between two rows"),
            State::InRow => Some("within a row"),
            _ => Some("outside its rows"),
        };
        if let Some(within) = within {
            return Err(DecodeError::Truncated { at: self.offset, within });
        }
        if !self.seen_rows {
            return Err(DecodeError::NotTheFeed { what: "it has no `connections`".into(), at: self.offset });
        }
        let reply: Reply = serde_json::from_slice(&self.envelope)
            .map_err(|error| DecodeError::NotTheFeed { what: plain(&error), at: self.body_offset(&error) })?;
        Ok(Envelope {
            run_id: reply.run_id,
            boot_id: reply.boot_id,
            monotonic_ns: reply.monotonic_ns,
            cursor: reply.cursor,
            complete: reply.complete,
            more: reply.more == Some(true),
            losses: reply.losses,
            translations: self.translations,
            dns: self.dns,
            dns_cursor: reply.dns_cursor,
            rows: self.rows,
            refused: self.refused,
            bytes: self.offset,
        })
    }

    /// One step outside the rows: takes what it can of `chunk[at..]` and answers how far it came.
    fn outside(&mut self, chunk: &[u8], at: usize) -> Result<usize, DecodeError> {
        let byte = chunk[at];
        if byte.is_ascii_whitespace() && !matches!(self.state, State::InKey { .. } | State::Other) {
            self.keep(byte)?;
            return Ok(at + 1);
        }
        match self.state {
            State::Start => match byte {
                b'{' => self.state = State::Key,
                _ => return Err(self.wrong("it does not begin with `{`", at)),
            },
            State::Key => match byte {
                b'"' => {
                    self.key.clear();
                    self.state = State::InKey { escaped: false };
                }
                b'}' => self.state = State::End,
                _ => return Err(self.wrong("a name is expected", at)),
            },
            State::InKey { escaped } => {
                if byte == b'"' && !escaped {
                    self.state = State::Colon;
                } else {
                    self.key.push(byte);
                    self.state = State::InKey { escaped: byte == b'\\' && !escaped };
                }
            }
            State::Colon => match byte {
                b':' => self.state = State::Value,
                _ => return Err(self.wrong("`:` is expected", at)),
            },
            State::Value => {
                if self.key == b"conns" && !self.seen_rows {
                    return Err(DecodeError::SystemProbe { at: self.offset + at as u64 });
                }
                if let Some(list) = List::named(&self.key, byte) {
                    return self.begin_list(list, byte, at);
                }
                self.splitter = Splitter::default();
                self.state = State::Other;
                return Ok(at);
            }
            State::Other => match byte {
                b',' if self.splitter.is_outside() => self.state = State::Key,
                b'}' if self.splitter.is_outside() => self.state = State::End,
                _ => self.splitter.step(byte),
            },
            State::AfterValue => match byte {
                b',' => self.state = State::Key,
                b'}' => self.state = State::End,
                _ => return Err(self.wrong("`,` or `}` is expected", at)),
            },
            State::Null { seen } => {
                if byte != b"null"[seen] {
                    return Err(self.wrong(self.list.is_none(), at));
                }
                self.state = if seen == 3 { State::AfterValue } else { State::Null { seen: seen + 1 } };
                return Ok(at + 1);
            }
            _ => return Err(self.wrong("nothing may follow the closing `}`", at)),
        }
        self.keep(byte)?;
        Ok(at + 1)
    }

    /// At the value of `connections`: a list, or the `null` that Go writes for an empty one.
    fn begin_list(&mut self, list: List, byte: u8, at: usize) -> Result<usize, DecodeError> {
        self.list = list;
        self.state = match byte {
            b'[' => State::FirstRow,
            b'n' => State::Null { seen: 1 },
            _ => return Err(self.wrong(list.is_none(), at)),
        };
        let begins = self.offset + at as u64;
        self.keep(b'[')?;
        self.keep(b']')?;
        self.lists_at.push((self.envelope.len(), begins, begins + 4));
        self.seen_rows |= list == List::Connections;
        Ok(at + 1)
    }

    /// Between rows: takes white space, commas, the list's end, and every row that lies whole in the chunk.
    fn between_rows(
        &mut self,
        chunk: &[u8],
        mut at: usize,
        each: &mut impl FnMut(&Row<'_>),
    ) -> Result<usize, DecodeError> {
        while let Some(&byte) = chunk.get(at) {
            if byte.is_ascii_whitespace() {
                at += 1;
                continue;
            }
            match (self.state, byte) {
                (State::FirstRow | State::NextRow, b'{') => {
                    if self.list == List::Connections
                        && let Ok((row, length)) = row::parse(&chunk[at..])
                        && length <= self.limits.row
                    {
                        each(&row);
                        self.rows += 1;
                        self.state = State::AfterRow;
                        at += length;
                        continue;
                    }
                    self.carry.clear();
                    self.carry_at = self.offset + at as u64;
                    self.splitter = Splitter::default();
                    self.state = State::InRow;
                    return Ok(at);
                }
                (State::AfterRow, b',') => {
                    self.state = State::NextRow;
                    at += 1;
                }
                (State::FirstRow | State::AfterRow, b']') => {
                    at += 1;
                    if let Some((_, _, end)) = self.lists_at.last_mut() {
                        *end = self.offset + at as u64;
                    }
                    self.state = State::AfterValue;
                    return Ok(at);
                }
                (State::AfterRow, _) => return Err(self.wrong("`,` or `]` is expected after a row", at)),
                _ => return Err(self.wrong("a row is expected", at)),
            }
        }
        Ok(at)
    }

    /// In a row that is not whole in one chunk, or that is odd: finds its end, then judges it.
    fn in_row(&mut self, chunk: &[u8], at: usize, each: &mut impl FnMut(&Row<'_>)) -> Result<usize, DecodeError> {
        let end = self.splitter.scan(&chunk[at..]);
        let length = end.unwrap_or(chunk.len() - at);
        if self.carry.len() + length > self.limits.row {
            return Err(DecodeError::RowTooLong { at: self.carry_at, limit: self.limits.row });
        }
        self.carry.extend_from_slice(&chunk[at..at + length]);
        if end.is_some() {
            let taken = match self.list {
                List::Connections => self.take_row(each),
                List::Translations => self.take_translation(),
                List::Dns => self.take_dns(),
            };
            if !taken {
                if let Err(error) = serde_json::from_slice::<IgnoredAny>(&self.carry) {
                    let at = self.carry_at + byte_of(&self.carry, &error);
                    return Err(DecodeError::NotTheFeed { what: plain(&error), at });
                }
                self.refused += 1;
            }
            self.carry.clear();
            self.state = State::AfterRow;
        }
        Ok(at + length)
    }

    fn take_row(&mut self, each: &mut impl FnMut(&Row<'_>)) -> bool {
        let Ok((row, length)) = row::parse(&self.carry) else { return false };
        if length != self.carry.len() {
            return false;
        }
        each(&row);
        self.rows += 1;
        true
    }

    fn take_translation(&mut self) -> bool {
        if self.translations.len() >= self.limits.translations {
            return false;
        }
        let told = serde_json::from_slice::<super::Translation>(&self.carry).ok();
        let translated = told.as_ref().and_then(Translated::of);
        self.translations.extend(translated);
        translated.is_some()
    }

    fn take_dns(&mut self) -> bool {
        let bytes = self.dns_bytes + self.carry.len();
        if bytes > self.limits.dns {
            return false;
        }
        let Ok(row) = serde_json::from_slice::<Dns>(&self.carry) else { return false };
        self.dns_bytes = bytes;
        self.dns.push(row);
        true
    }

    fn keep(&mut self, byte: u8) -> Result<(), DecodeError> {
        if self.envelope.len() >= self.limits.envelope {
            return Err(DecodeError::EnvelopeTooLong { limit: self.limits.envelope });
        }
        self.envelope.push(byte);
        Ok(())
    }

    fn wrong(&self, what: &str, at: usize) -> DecodeError {
        DecodeError::NotTheFeed { what: what.into(), at: self.offset + at as u64 }
    }

    /// Where in the body an error in the envelope lies: the lists stand in it as `[]`.
    fn body_offset(&self, error: &serde_json::Error) -> u64 {
        let at = byte_of(&self.envelope, error);
        for &(length, begins, end) in self.lists_at.iter().rev() {
            if at >= length as u64 {
                return at - length as u64 + end;
            }
            if at + 2 >= length as u64 {
                return begins;
            }
        }
        at
    }
}

/// The byte that an error of `serde_json` names by line and column.
fn byte_of(text: &[u8], error: &serde_json::Error) -> u64 {
    let line_start: usize =
        text.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
    (line_start + error.column().saturating_sub(1)) as u64
}

/// The error's words without its place, which is told apart.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(what, _)| what.to_owned())
}

/// Finds the end of a JSON value by its strings, escapes and depth alone.
#[derive(Clone, Copy, Debug, Default)]
struct Splitter {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Splitter {
    fn is_outside(self) -> bool {
        self.depth == 0 && !self.in_string
    }

    fn step(&mut self, byte: u8) {
        if self.in_string {
            if self.escaped {
                self.escaped = false;
            } else if byte == b'\\' {
                self.escaped = true;
            } else if byte == b'"' {
                self.in_string = false;
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    /// How many of `bytes` belong to the value that is being read, if it ends in them.
    fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        for (index, byte) in bytes.iter().enumerate() {
            self.step(*byte);
            if self.is_outside() {
                return Some(index + 1);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
