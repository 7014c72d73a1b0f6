//! A frame's payload: checked, decompressed within a bound, decoded.

use prost::Message as _;
use std::io::Read;
use weir_wire::agent::{BATCH_FORMAT, Batch, Frame};

/// A larger `Frame.batch` is refused; told in Welcome. 100,000 records are about 6 MB compressed.
pub(crate) const FRAME_BYTES_MAX: usize = 64 << 20;
/// A batch that decompresses to more is refused: a frame of 64 MiB could hold 64 GB of zeros.
const BATCH_BYTES_MAX: u64 = 512 << 20;
/// The only encoding so far: a zstd frame around an encoded Batch.
const ENCODING_ZSTD: u32 = 1;

/// Why a frame cannot be taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the frame's batch has {0} bytes, at most {FRAME_BYTES_MAX} are taken")]
    TooLarge(usize),
    #[error("the batch has more than {BATCH_BYTES_MAX} bytes decompressed")]
    Bomb,
    #[error("the frame's checksum is wrong")]
    Checksum,
    #[error("encoding {0} is not known here, only {ENCODING_ZSTD} (zstd) is")]
    Encoding(u32),
    #[error("the batch does not decompress: {0}")]
    Compression(String),
    #[error("the batch does not decode: {0}")]
    Message(String),
    #[error("the batch's format is {0}, this server knows {BATCH_FORMAT}")]
    Format(u32),
    #[error("the frame says sequence {frame}, its batch says {batch}")]
    Sequence { frame: u64, batch: u64 },
}

/// Opens a frame.
pub(crate) fn open(frame: &Frame) -> Result<Batch, FrameError> {
    if frame.batch.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge(frame.batch.len()));
    }
    if crc32c::crc32c(&frame.batch) != frame.crc32c {
        return Err(FrameError::Checksum);
    }
    let batch = decode(frame.encoding, &frame.batch)?;
    // A tombstone stands for a range that ends with its own sequence.
    if batch.sequence != frame.sequence {
        return Err(FrameError::Sequence { frame: frame.sequence, batch: batch.sequence });
    }
    Ok(batch)
}

/// Decodes a payload, from a frame or from the log.
pub(crate) fn decode(encoding: u32, payload: &[u8]) -> Result<Batch, FrameError> {
    if encoding != ENCODING_ZSTD {
        return Err(FrameError::Encoding(encoding));
    }
    let compression = |error: std::io::Error| FrameError::Compression(error.to_string());
    let mut encoded = Vec::new();
    let decoder = zstd::Decoder::new(payload).map_err(compression)?;
    decoder.take(BATCH_BYTES_MAX + 1).read_to_end(&mut encoded).map_err(compression)?;
    if encoded.len() as u64 > BATCH_BYTES_MAX {
        return Err(FrameError::Bomb);
    }
    let batch = Batch::decode(encoded.as_slice()).map_err(|error| FrameError::Message(error.to_string()))?;
    if batch.format != BATCH_FORMAT {
        return Err(FrameError::Format(batch.format));
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(batch: &Batch) -> Frame {
        let payload = zstd::encode_all(batch.encode_to_vec().as_slice(), 1).unwrap();
        Frame {
            sequence: batch.sequence,
            crc32c: crc32c::crc32c(&payload),
            encoding: 1,
            batch: payload.into(),
            sent_at_unix_ns: 0,
        }
    }

    fn batch() -> Batch {
        Batch { format: BATCH_FORMAT, sequence: 3, node: "a".into(), ..Batch::default() }
    }

    #[test]
    fn a_whole_frame_opens() {
        assert_eq!(open(&frame(&batch())), Ok(batch()));
    }

    #[test]
    fn a_damaged_frame_is_refused_with_what_is_wrong() {
        let whole = frame(&batch());
        assert_eq!(open(&Frame { crc32c: 0, ..whole.clone() }), Err(FrameError::Checksum));
        assert_eq!(open(&Frame { encoding: 2, ..whole.clone() }), Err(FrameError::Encoding(2)));
        assert_eq!(open(&Frame { sequence: 4, ..whole }), Err(FrameError::Sequence { frame: 4, batch: 3 }));
        assert_eq!(open(&frame(&Batch { format: 2, ..batch() })), Err(FrameError::Format(2)));
        let rubbish: prost::bytes::Bytes = vec![1, 2, 3].into();
        let frame = Frame { crc32c: crc32c::crc32c(&rubbish), batch: rubbish, encoding: 1, ..Frame::default() };
        assert!(matches!(open(&frame), Err(FrameError::Compression(_))));
    }

    #[test]
    fn a_bomb_does_not_explode() {
        let zeros = std::io::Read::take(std::io::repeat(0), BATCH_BYTES_MAX + 2);
        let payload = zstd::encode_all(zeros, 1).unwrap();
        assert!(payload.len() < 1 << 20);
        assert_eq!(decode(1, &payload), Err(FrameError::Bomb));
    }
}
