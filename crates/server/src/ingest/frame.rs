//! A frame's batch: bounded, checked, and the one that the frame says it is.

use weir_wire::agent::{Batch, Frame, FrameError as WireError};

/// A larger `Frame.batch` is refused; told in Welcome. 100,000 records are about 6 MB compressed.
pub(crate) const FRAME_BYTES_MAX: usize = 64 << 20;
/// A batch that decompresses to more is refused: a frame of 64 MiB could hold 64 GB of zeros.
const BATCH_BYTES_MAX: usize = 512 << 20;

/// Why a frame cannot be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the frame's batch has {0} bytes, at most {FRAME_BYTES_MAX} are taken")]
    TooLarge(usize),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the frame says sequence {frame}, its batch says {batch}")]
    Sequence { frame: u64, batch: u64 },
}

/// Opens a frame.
pub(crate) fn open(frame: &Frame) -> Result<Batch, FrameError> {
    if frame.batch.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge(frame.batch.len()));
    }
    let batch = frame.open(BATCH_BYTES_MAX)?;
    if batch.sequence != frame.sequence {
        return Err(FrameError::Sequence { frame: frame.sequence, batch: batch.sequence });
    }
    Ok(batch)
}

/// Decodes a payload of the log.
pub(crate) fn decode(encoding: u8, payload: &[u8]) -> Result<Batch, WireError> {
    let encoding = u32::from(encoding);
    if encoding != weir_wire::agent::ENCODING_ZSTD {
        return Err(WireError::Encoding(encoding));
    }
    Batch::from_bytes(payload, BATCH_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_wire::agent::BATCH_FORMAT;

    fn frame(batch: &Batch) -> Frame {
        Frame::new(batch.sequence, batch.to_bytes().unwrap().into(), 0)
    }

    fn batch() -> Batch {
        Batch { format: BATCH_FORMAT, sequence: 3, node: "a".into(), ..Batch::default() }
    }

    #[test]
    fn a_whole_frame_opens_and_a_damaged_one_is_refused() {
        let whole = frame(&batch());
        assert_eq!(open(&whole).unwrap(), batch());
        assert!(matches!(
            open(&Frame { crc32c: 0, ..whole.clone() }),
            Err(FrameError::Wire(WireError::Checksum { .. }))
        ));
        assert!(matches!(open(&Frame { sequence: 4, ..whole }), Err(FrameError::Sequence { frame: 4, batch: 3 })));
        let huge = Frame { batch: vec![0; FRAME_BYTES_MAX + 1].into(), ..Frame::default() };
        assert!(matches!(open(&huge), Err(FrameError::TooLarge(_))));
    }

    #[test]
    fn a_bomb_does_not_explode() {
        let zeros = std::io::Read::take(std::io::repeat(0), BATCH_BYTES_MAX as u64 + 2);
        let payload = zstd::encode_all(zeros, 1).unwrap();
        assert!(payload.len() < 1 << 20);
        assert!(matches!(decode(1, &payload), Err(WireError::Compression(_))));
    }
}
