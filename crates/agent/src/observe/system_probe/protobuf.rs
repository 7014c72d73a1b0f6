//! `Connections` in protobuf, field by field as the bytes come in: connections and telemetry are decoded, the rest is
//! skipped by its length.

use super::decode::{DecodeError, ROW_MAX, TELEMETRY_MAX, Told};
use super::message::{Connection, Telemetry};
use prost::Message;

const CONNS: u64 = 1;
const TELEMETRY: u64 = 9;

/// Reads one message.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a field that is not over yet.
    held: Vec<u8>,
    /// Bytes of a field that are still to be skipped.
    skip: u64,
    offset: u64,
    told: Told,
}

/// What stands at the beginning of some bytes.
enum Field {
    /// Not enough to know.
    Incomplete,
    /// A field to skip: so many bytes.
    Skip(u64),
    /// A field to decode: its number, and where its content lies.
    Content(u64, std::ops::Range<usize>),
}

impl Decoder {
    /// Takes the next chunk.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn push(&mut self, mut chunk: &[u8], mut each: impl FnMut(&Connection)) -> Result<(), DecodeError> {
        if !self.held.is_empty() {
            self.held.extend_from_slice(chunk);
            let held = std::mem::take(&mut self.held);
            let taken = self.take(&held, &mut each)?;
            self.held = held;
            self.held.drain(..taken);
            return Ok(());
        }
        let taken = self.take(chunk, &mut each)?;
        chunk = &chunk[taken..];
        self.held.extend_from_slice(chunk);
        Ok(())
    }

    /// What stood beside the connections.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn finish(self) -> Result<Told, DecodeError> {
        if self.skip > 0 || !self.held.is_empty() {
            return Err(DecodeError::Truncated { at: self.offset + self.held.len() as u64 });
        }
        Ok(self.told)
    }

    /// Takes every whole field; answers how many bytes those are.
    fn take(&mut self, bytes: &[u8], each: &mut impl FnMut(&Connection)) -> Result<usize, DecodeError> {
        let mut at = 0;
        loop {
            let skipped = self.skip.min((bytes.len() - at) as u64);
            self.skip -= skipped;
            self.offset += skipped;
            at += skipped as usize;
            if at == bytes.len() {
                return Ok(at);
            }
            match self.field(&bytes[at..])? {
                Field::Incomplete => return Ok(at),
                Field::Skip(length) => self.skip = length,
                Field::Content(number, range) => {
                    let content = &bytes[at + range.start..at + range.end];
                    if number == CONNS {
                        match Connection::decode(content) {
                            Ok(connection) => each(&connection),
                            Err(_) => self.told.refused += 1,
                        }
                    } else if let Ok(entry) = Telemetry::decode(content)
                        && self.told.telemetry.len() < TELEMETRY_MAX
                    {
                        self.told.telemetry.insert(entry.key, entry.value);
                    }
                    at += range.end;
                    self.offset += range.end as u64;
                }
            }
        }
    }

    fn field(&mut self, bytes: &[u8]) -> Result<Field, DecodeError> {
        let odd = |what| DecodeError::Odd { what, at: self.offset };
        let Some((tag, tag_length)) = varint(bytes).map_err(odd)? else { return Ok(Field::Incomplete) };
        if tag >> 3 == 0 {
            return Err(odd("a field has the number 0"));
        }
        let rest = &bytes[tag_length..];
        match tag & 7 {
            0 => Ok(match varint(rest).map_err(odd)? {
                Some((_, length)) => Field::Skip((tag_length + length) as u64),
                None => Field::Incomplete,
            }),
            1 => Ok(Field::Skip(tag_length as u64 + 8)),
            5 => Ok(Field::Skip(tag_length as u64 + 4)),
            2 => {
                let Some((length, length_length)) = varint(rest).map_err(odd)? else { return Ok(Field::Incomplete) };
                let head = tag_length + length_length;
                let number = tag >> 3;
                let is_wanted = matches!(number, CONNS | TELEMETRY);
                if !is_wanted || length > ROW_MAX as u64 {
                    self.told.refused += u64::from(number == CONNS);
                    return Ok(Field::Skip(length.saturating_add(head as u64)));
                }
                let end = head + length as usize;
                Ok(if bytes.len() < end { Field::Incomplete } else { Field::Content(number, head..end) })
            }
            _ => Err(odd("a field has a wire type that is not used")),
        }
    }
}

/// The number at the beginning and its length; `None` when it is not over.
fn varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, &'static str> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 10 { Ok(None) } else { Err("a number is longer than ten bytes") }
}
