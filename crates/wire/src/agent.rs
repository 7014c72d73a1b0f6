//! The agent protocol: generated types and the one way to make a frame of a batch and to read it back.

#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/weir/agent/v1/agent.proto, where the documentation is"
)]
mod generated {
    tonic::include_proto!("weir.agent.v1");
}

pub use generated::*;

/// The protocol version that this build speaks.
pub const PROTOCOL: u32 = 1;

/// The version of [`Batch`] that this build writes.
pub const BATCH_FORMAT: u32 = 1;

/// [`Frame::encoding`]: a zstd frame around an encoded [`Batch`].
pub const ENCODING_ZSTD: u32 = 1;

/// The level at which batches are compressed: 1 takes a third of level 3's time and gives up a tenth of its size.
const ZSTD_LEVEL: i32 = 1;

/// Why a frame's bytes are not a batch.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The checksum is wrong.
    #[error("the frame's checksum is {told:08x}, its bytes have {found:08x}")]
    Checksum {
        /// What the frame says.
        told: u32,
        /// What its bytes have.
        found: u32,
    },
    /// An encoding that this build does not know.
    #[error("encoding {0} is not known here")]
    Encoding(u32),
    /// The compressed bytes are damaged, or give more than the limit.
    #[error("failed to decompress the batch: {0}")]
    Compression(#[source] std::io::Error),
    /// The bytes are not a batch.
    #[error("failed to decode the batch: {0}")]
    Batch(#[from] prost::DecodeError),
    /// A format that this build does not know.
    #[error("batch format {0} is not known here")]
    Format(u32),
}

impl Batch {
    /// The batch as it stays: in the spool, on the wire, in the server's log.
    ///
    /// # Errors
    /// When compression fails (out of memory).
    pub fn to_bytes(&self) -> std::io::Result<Vec<u8>> {
        zstd::bulk::compress(&prost::Message::encode_to_vec(self), ZSTD_LEVEL)
    }

    /// The inverse of [`Batch::to_bytes`]. At most `limit` bytes are decompressed.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn from_bytes(bytes: &[u8], limit: usize) -> Result<Self, FrameError> {
        use std::io::Read as _;
        let mut plain = Vec::new();
        let reader = zstd::Decoder::with_buffer(bytes).map_err(FrameError::Compression)?;
        reader.take(limit as u64 + 1).read_to_end(&mut plain).map_err(FrameError::Compression)?;
        if plain.len() > limit {
            return Err(FrameError::Compression(std::io::Error::other(format!("it has more than {limit} bytes"))));
        }
        let batch = <Self as prost::Message>::decode(plain.as_slice())?;
        if batch.format != BATCH_FORMAT {
            return Err(FrameError::Format(batch.format));
        }
        Ok(batch)
    }
}

impl Frame {
    /// A frame around a batch's bytes.
    pub fn new(sequence: u64, batch: prost::bytes::Bytes, sent_at_unix_ns: i64) -> Self {
        Self { sequence, crc32c: crc32c::crc32c(&batch), encoding: ENCODING_ZSTD, batch, sent_at_unix_ns }
    }

    /// The batch within, checked. At most `limit` bytes are decompressed.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn open(&self, limit: usize) -> Result<Batch, FrameError> {
        let found = crc32c::crc32c(&self.batch);
        if found != self.crc32c {
            return Err(FrameError::Checksum { told: self.crc32c, found });
        }
        if self.encoding != ENCODING_ZSTD {
            return Err(FrameError::Encoding(self.encoding));
        }
        Batch::from_bytes(&self.batch, limit)
    }
}

impl Address {
    /// The wire form of an end.
    pub fn of(end: std::net::SocketAddr) -> Self {
        let ip = match end.ip() {
            std::net::IpAddr::V4(v4) => prost::bytes::Bytes::copy_from_slice(&v4.octets()),
            std::net::IpAddr::V6(v6) => prost::bytes::Bytes::copy_from_slice(&v6.octets()),
        };
        Self { ip, port: u32::from(end.port()) }
    }

    /// The end, `None` when the bytes are no address.
    pub fn end(&self) -> Option<std::net::SocketAddr> {
        let ip = match self.ip.len() {
            4 => <[u8; 4]>::try_from(&self.ip[..]).ok().map(std::net::IpAddr::from)?,
            16 => <[u8; 16]>::try_from(&self.ip[..]).ok().map(std::net::IpAddr::from)?,
            _ => return None,
        };
        Some(std::net::SocketAddr::new(ip.to_canonical(), u16::try_from(self.port).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_opens_to_the_batch_it_was_made_of_and_damage_is_seen() {
        let batch = Batch { format: BATCH_FORMAT, node: "a".into(), sequence: 7, ..Batch::default() };
        let bytes = prost::bytes::Bytes::from(batch.to_bytes().unwrap());
        let mut frame = Frame::new(7, bytes, 0);
        assert_eq!(frame.open(1 << 20).unwrap(), batch);
        assert!(matches!(frame.open(1), Err(FrameError::Compression(_))));
        frame.crc32c ^= 1;
        assert!(matches!(frame.open(1 << 20), Err(FrameError::Checksum { .. })));
    }

    #[test]
    fn an_address_survives_the_wire() {
        for text in ["10.0.0.1:80", "[2001:db8::1]:443"] {
            let end = text.parse().unwrap();
            assert_eq!(Address::of(end).end(), Some(end));
        }
        assert_eq!(Address::default().end(), None);
    }
}
