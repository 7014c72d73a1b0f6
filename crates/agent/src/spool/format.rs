//! What lies in a spool's segment files. Meant to last: version 1.
//!
//! A segment is a row of records, each
//!
//! ```text
//! magic    4 bytes  "WSR1", where a reader looks for the next record behind damage
//! length   u32 le   of the payload
//! checksum u32 le   CRC-32C of kind and payload
//! kind     u8       1 header, 2 counters, 3 checkpoint end, 4 batch
//! payload  protobuf messages of this file; fields are only ever added
//! ```
//!
//! A segment begins with its header, then the baselines of every counter ([`CountersRecord`], any number of them), then
//! [`CheckpointEnd`]; only then come batches ([`BatchRecord`]). A batch's record holds the batch exactly as it goes to
//! the server and the baselines that it moved: both are durable or neither is (R2). The state after a segment's last
//! record is its checkpoint, with the batches' counters laid over it in order; older segments are needed only until
//! their batches are acknowledged.

use prost::Message;
use prost::bytes::Bytes;
use std::collections::BTreeMap;

/// The first bytes of every record.
pub const MAGIC: [u8; 4] = *b"WSR1";
/// Length of what precedes a payload.
pub const HEAD: usize = 13;
/// A longer payload is damage: a batch has at most about 4 MiB, its counters about as much.
pub const MAX_PAYLOAD: usize = 64 << 20;
/// The version in [`HeaderRecord::format`].
pub const FORMAT: u32 = 1;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`HeaderRecord`].
    Header = 1,
    /// [`CountersRecord`].
    Counters = 2,
    /// [`CheckpointEnd`].
    CheckpointEnd = 3,
    /// [`BatchRecord`].
    Batch = 4,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Header),
            2 => Some(Self::Counters),
            3 => Some(Self::CheckpointEnd),
            4 => Some(Self::Batch),
            _ => None,
        }
    }
}

/// The first record of a segment.
#[derive(Clone, PartialEq, Message)]
pub struct HeaderRecord {
    /// [`FORMAT`].
    #[prost(uint32, tag = "1")]
    pub format: u32,
    /// The stream that the spool belongs to.
    #[prost(bytes = "bytes", tag = "2")]
    pub stream_id: Bytes,
    /// The segment's number, also its file's name.
    #[prost(uint64, tag = "3")]
    pub number: u64,
}

/// Some of a checkpoint's counters.
#[derive(Clone, PartialEq, Message)]
pub struct CountersRecord {
    /// A zstd frame around a [`crate::attribute::saved::SavedPart`].
    #[prost(bytes = "bytes", tag = "1")]
    pub counters: Bytes,
}

/// The last record of a checkpoint.
#[derive(Clone, PartialEq, Message)]
pub struct CheckpointEnd {
    /// How many [`CountersRecord`]s there are before it.
    #[prost(uint64, tag = "1")]
    pub parts: u64,
    /// The sequence that the next batch gets.
    #[prost(uint64, tag = "2")]
    pub next_sequence: u64,
    /// The state beside the counters.
    #[prost(message, optional, tag = "3")]
    pub position: Option<Position>,
}

/// A batch and what it changed.
#[derive(Clone, PartialEq, Message)]
pub struct BatchRecord {
    /// Its place in the stream.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// `Frame.batch`, byte for byte.
    #[prost(bytes = "bytes", tag = "2")]
    pub batch: Bytes,
    /// A zstd frame around a [`crate::attribute::saved::SavedPart`]: the counters that it moved, as they are after it.
    #[prost(bytes = "bytes", tag = "3")]
    pub counters: Bytes,
    /// The state beside the counters, after it.
    #[prost(message, optional, tag = "4")]
    pub position: Option<Position>,
    /// What it holds, for a tombstone.
    #[prost(message, optional, tag = "5")]
    pub summary: Option<Summary>,
    /// It stands for every batch up to this sequence that was not acknowledged; 0 for an ordinary batch.
    #[prost(uint64, tag = "6")]
    pub dropped_to: u64,
}

/// What a batch holds.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Summary {
    /// Start of its span.
    #[prost(int64, tag = "1")]
    pub from_unix_ns: i64,
    /// End of its span.
    #[prost(int64, tag = "2")]
    pub to_unix_ns: i64,
    /// Sum of its deltas.
    #[prost(uint64, tag = "3")]
    pub sent_bytes: u64,
    /// Sum of its deltas.
    #[prost(uint64, tag = "4")]
    pub recv_bytes: u64,
    /// Connections that it opens.
    #[prost(uint64, tag = "5")]
    pub connections: u64,
    /// Its records.
    #[prost(uint64, tag = "6")]
    pub records: u64,
}

/// How far the agent has come with its feed.
#[derive(Clone, PartialEq, Message)]
pub struct Position {
    /// The boot that every monotonic time below belongs to.
    #[prost(bytes = "vec", tag = "1")]
    pub boot_id: Vec<u8>,
    /// The cursor to acknowledge to the tracer.
    #[prost(uint64, optional, tag = "2")]
    pub cursor: Option<u64>,
    /// The run of the tracer's maps, 0 unknown.
    #[prost(fixed64, tag = "3")]
    pub run: u64,
    /// When the last successful poll's snapshot began, `CLOCK_MONOTONIC` nanoseconds; absent before the first.
    #[prost(uint64, optional, tag = "4")]
    pub previous_at: Option<u64>,
    /// The same as wall time.
    #[prost(int64, tag = "5")]
    pub previous_unix: i64,
    /// Whether that reply had every live connection.
    #[prost(bool, tag = "6")]
    pub previous_complete: bool,
    /// The end of the last batch's span, successful or not; 0 before the first.
    #[prost(int64, tag = "7")]
    pub covered_to: i64,
    /// The tracer's losses as last told, of run `run`.
    #[prost(btree_map = "string, uint64", tag = "8")]
    pub losses: BTreeMap<String, u64>,
    /// The cursor of DNS rows to acknowledge to the tracer.
    #[prost(uint64, optional, tag = "9")]
    pub dns_cursor: Option<u64>,
    /// When each source of metadata was read last, wall nanoseconds.
    #[prost(btree_map = "string, int64", tag = "10")]
    pub metadata_read: BTreeMap<String, i64>,
}

/// A record's bytes.
pub fn encode(kind: Kind, message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(HEAD + length);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&(length as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.push(kind as u8);
    // A Vec grows as needed: encoding into one cannot fail.
    let _ = message.encode(&mut bytes);
    let checksum = crc32c::crc32c(&bytes[HEAD - 1..]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A record and its whole length.
    Record(Kind, Bytes, usize),
    /// The beginning of a record whose rest is missing.
    Short,
    /// No record.
    Damaged,
}

/// The record at the beginning of `bytes`.
pub fn parse(bytes: &Bytes) -> Parsed {
    if bytes.len() < HEAD {
        return if MAGIC.starts_with(&bytes[..bytes.len().min(4)]) || bytes.starts_with(&MAGIC) {
            Parsed::Short
        } else {
            Parsed::Damaged
        };
    }
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let length = number(4) as usize;
    let Some(kind) = Kind::of(bytes[12]).filter(|_| bytes.starts_with(&MAGIC) && length <= MAX_PAYLOAD) else {
        return Parsed::Damaged;
    };
    if bytes.len() < HEAD + length {
        return Parsed::Short;
    }
    if crc32c::crc32c(&bytes[HEAD - 1..HEAD + length]) != number(8) {
        return Parsed::Damaged;
    }
    Parsed::Record(kind, bytes.slice(HEAD..HEAD + length), HEAD + length)
}

/// Where the next record begins after `at`, if one does.
pub fn resync(bytes: &Bytes, at: usize) -> Option<usize> {
    let mut from = at + 1;
    while let Some(found) = bytes.get(from..)?.windows(MAGIC.len()).position(|window| window == MAGIC) {
        if matches!(parse(&bytes.slice(from + found..)), Parsed::Record(..)) {
            return Some(from + found);
        }
        from += found + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_any_damaged_byte_is_seen() {
        let header = HeaderRecord { format: FORMAT, stream_id: Bytes::from_static(b"0123456789abcdef"), number: 3 };
        let bytes = encode(Kind::Header, &header);
        let Parsed::Record(Kind::Header, payload, length) = parse(&Bytes::from(bytes.clone())) else { panic!() };
        assert_eq!(length, bytes.len());
        assert_eq!(HeaderRecord::decode(payload).unwrap(), header);
        for index in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[index] ^= 0x10;
            assert!(!matches!(parse(&Bytes::from(damaged)), Parsed::Record(..)), "byte {index}");
            assert_eq!(parse(&Bytes::from(bytes[..index].to_vec())), Parsed::Short, "{index} bytes");
        }
    }

    #[test]
    fn the_next_record_is_found_behind_damage() {
        let record = encode(Kind::Header, &HeaderRecord::default());
        let mut bytes = b"rubbish WSR1 rubbish".to_vec();
        let at = bytes.len();
        bytes.extend_from_slice(&record);
        assert_eq!(resync(&Bytes::from(bytes), 0), Some(at));
        assert_eq!(resync(&Bytes::from_static(b"nothing here"), 0), None);
    }
}
