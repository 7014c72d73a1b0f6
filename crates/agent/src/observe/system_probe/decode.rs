//! Reads the body of `/connections` as it comes in, connection by connection, in whichever form it is.
//!
//! The form follows from the reply's content type, else from the first byte: a JSON object begins with `{` (or a space),
//! which no protobuf message of this kind does; a line feed is the tag of `conns`. Neither form is held as a whole; what is not used is skipped without being kept.

use super::json;
use super::message::Connection;
use super::protobuf;
use std::collections::BTreeMap;

/// Bytes of one connection; it may carry aggregated requests of its own. One that is longer is refused and skipped.
pub const ROW_MAX: usize = 1 << 20;
/// Entries of `connTelemetryMap`; system-probe has about a dozen.
pub const TELEMETRY_MAX: usize = 256;

/// Why a body is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is not what system-probe answers.
    #[error("the reply is not system-probe's: {what} at byte {at}")]
    Odd {
        /// What is wrong.
        what: &'static str,
        /// Where, counted from 0.
        at: u64,
    },
    /// It stops before its end.
    #[error("the reply breaks off at byte {at}")]
    Truncated {
        /// Its length.
        at: u64,
    },
    /// It is too long.
    #[error("the reply is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: u64,
    },
}

/// What a body had beside its connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// `connTelemetryMap`.
    pub telemetry: BTreeMap<String, i64>,
    /// Connections that were refused.
    pub refused: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Reads one reply.
#[derive(Debug)]
pub struct Decoder {
    form: Option<Form>,
    limit: u64,
    bytes: u64,
}

#[derive(Debug)]
enum Form {
    Json(json::Decoder),
    Protobuf(protobuf::Decoder),
}

impl Decoder {
    /// A decoder for a reply with this content type and at most `limit` bytes.
    pub fn new(content_type: Option<&str>, limit: u64) -> Self {
        let form = content_type.and_then(|text| {
            if text.contains("protobuf") {
                Some(Form::Protobuf(protobuf::Decoder::default()))
            } else if text.contains("json") {
                Some(Form::Json(json::Decoder::default()))
            } else {
                None
            }
        });
        Self { form, limit, bytes: 0 }
    }

    /// Bytes taken so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the next chunk and hands every connection that ends in it to `each`.
    ///
    /// # Errors
    /// [`DecodeError`]; the decoder is of no use after it.
    pub fn push(&mut self, chunk: &[u8], each: impl FnMut(&Connection)) -> Result<(), DecodeError> {
        self.bytes += chunk.len() as u64;
        if self.bytes > self.limit {
            return Err(DecodeError::TooLong { limit: self.limit });
        }
        let Some(first) = chunk.first() else { return Ok(()) };
        let form = self.form.get_or_insert_with(|| {
            if matches!(*first, b'{' | b' ') {
                Form::Json(json::Decoder::default())
            } else {
                Form::Protobuf(protobuf::Decoder::default())
            }
        });
        match form {
            Form::Json(decoder) => decoder.push(chunk, each),
            Form::Protobuf(decoder) => decoder.push(chunk, each),
        }
    }

    /// What stood beside the connections, once the body is over.
    ///
    /// # Errors
    /// [`DecodeError`] when it was not whole.
    pub fn finish(self) -> Result<Told, DecodeError> {
        let told = match self.form {
            Some(Form::Json(decoder)) => decoder.finish()?,
            Some(Form::Protobuf(decoder)) => decoder.finish()?,
            // Protobuf writes nothing where there is nothing.
            None => Told::default(),
        };
        Ok(Told { bytes: self.bytes, ..told })
    }
}
