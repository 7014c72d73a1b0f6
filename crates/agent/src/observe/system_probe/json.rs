//! `Connections` as protobuf's JSON, value by value as the bytes come in: the items of `conns` and the object
//! `connTelemetryMap` are read, everything else is skipped by its quotes and depth.

use super::decode::{DecodeError, ROW_MAX, TELEMETRY_MAX, Told};
use super::message::{Connection, number};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Where in the message the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    /// Before a key, or the closing brace.
    Key,
    InKey {
        escaped: bool,
    },
    Colon,
    /// Before a key's value.
    Value,
    /// In a value, kept if it is wanted.
    InValue,
    /// In `conns`, between items.
    Items,
    /// In an item of `conns`.
    InItem,
    /// Behind a value.
    After,
    End,
}

/// Reads one message.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    key: Vec<u8>,
    held: Vec<u8>,
    /// The held value is longer than what is kept.
    too_long: bool,
    in_text: bool,
    escaped: bool,
    depth: u32,
    offset: u64,
    seen_conns: bool,
    told: Told,
}

#[derive(Deserialize)]
struct Value(#[serde(deserialize_with = "number")] i64);

impl Decoder {
    /// Takes the next chunk.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn push(&mut self, chunk: &[u8], mut each: impl FnMut(&Connection)) -> Result<(), DecodeError> {
        for &byte in chunk {
            self.step(byte, &mut each)?;
            self.offset += 1;
        }
        Ok(())
    }

    /// What stood beside the connections.
    ///
    /// # Errors
    /// [`DecodeError`] when the message is not over, or has no `conns`.
    pub fn finish(self) -> Result<Told, DecodeError> {
        if self.state != State::End {
            return Err(DecodeError::Truncated { at: self.offset });
        }
        if !self.seen_conns {
            return Err(DecodeError::Odd { what: "it has no `conns`", at: self.offset });
        }
        Ok(self.told)
    }

    fn step(&mut self, byte: u8, each: &mut impl FnMut(&Connection)) -> Result<(), DecodeError> {
        let is_within = matches!(self.state, State::InKey { .. } | State::InValue | State::InItem);
        if byte.is_ascii_whitespace() && !is_within {
            return Ok(());
        }
        match (self.state, byte) {
            (State::Start, b'{') | (State::After, b',') => self.state = State::Key,
            (State::Key, b'"') => {
                self.key.clear();
                self.state = State::InKey { escaped: false };
            }
            (State::Key | State::After, b'}') => self.state = State::End,
            (State::InKey { escaped: false }, b'"') => self.state = State::Colon,
            (State::InKey { escaped }, _) => {
                // Longer than every key that is looked for.
                if self.key.len() < 64 {
                    self.key.push(byte);
                }
                self.state = State::InKey { escaped: byte == b'\\' && !escaped };
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::Value, b'[') if self.key == b"conns" => {
                self.seen_conns = true;
                self.state = State::Items;
            }
            (State::Value, _) => {
                // `null` is what an empty list may be.
                self.seen_conns |= self.key == b"conns";
                self.begin();
                self.state = State::InValue;
                self.in_value(byte);
            }
            (State::InValue, b',' | b'}') if self.depth == 0 && !self.in_text => {
                self.take_value();
                self.state = if byte == b',' { State::Key } else { State::End };
            }
            (State::InValue, _) => self.in_value(byte),
            (State::Items, b',') => {}
            (State::Items, b']') => self.state = State::After,
            (State::Items, b'{') => {
                self.begin();
                self.state = State::InItem;
                self.in_value(byte);
            }
            (State::InItem, _) => {
                self.in_value(byte);
                if self.depth == 0 && !self.in_text {
                    self.take_item(each);
                    self.state = State::Items;
                }
            }
            _ => return Err(DecodeError::Odd { what: "it is not JSON of this kind", at: self.offset }),
        }
        Ok(())
    }

    fn begin(&mut self) {
        self.held.clear();
        (self.too_long, self.in_text, self.escaped, self.depth) = (false, false, false, 0);
    }

    fn in_value(&mut self, byte: u8) {
        if self.in_text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => self.in_text = true,
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        let is_kept = self.state == State::InItem || self.key == b"connTelemetryMap";
        if !is_kept || self.held.len() >= ROW_MAX {
            self.too_long |= is_kept;
        } else {
            self.held.push(byte);
        }
    }

    fn take_item(&mut self, each: &mut impl FnMut(&Connection)) {
        match serde_json::from_slice::<Connection>(&self.held) {
            Ok(connection) if !self.too_long => each(&connection),
            _ => self.told.refused += 1,
        }
    }

    fn take_value(&mut self) {
        if self.key != b"connTelemetryMap" || self.too_long {
            return;
        }
        let map: Option<BTreeMap<String, Value>> = serde_json::from_slice(&self.held).unwrap_or_default();
        self.told.telemetry =
            map.unwrap_or_default().into_iter().take(TELEMETRY_MAX).map(|(key, Value(value))| (key, value)).collect();
    }
}
