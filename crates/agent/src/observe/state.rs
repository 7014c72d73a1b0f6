//! How the source does, in the words that travel with every batch.

use weir_discovery::unix_http::FetchError;
use weir_wire::feed::decode::DecodeError;

/// The source's state, `Source.state` in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// A whole reply, every probe runs.
    Ok,
    /// A whole reply, but something is missing from it.
    Degraded,
    /// Nobody listens on the socket, or this user may not.
    Missing,
    /// A step took too long.
    Timeout,
    /// An answer that is not 200.
    HttpError,
    /// A body that is not the source's, in JSON or in protobuf.
    BadJson,
    /// A body that breaks off.
    Truncated,
    /// A body beyond its bounds.
    TooLarge,
}

impl SourceState {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
            Self::Timeout => "timeout",
            Self::HttpError => "http_error",
            Self::BadJson => "bad_json",
            Self::Truncated => "truncated",
            Self::TooLarge => "too_large",
        }
    }
}

/// Why a poll gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Failure {
    /// The state that the source is in.
    pub state: SourceState,
    /// What happened, in words for people.
    pub detail: String,
}

impl Failure {
    /// A failure.
    pub fn new(state: SourceState, detail: impl Into<String>) -> Self {
        Self { state, detail: detail.into() }
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        let state = match &error {
            FetchError::Missing { .. } | FetchError::Denied { .. } => SourceState::Missing,
            FetchError::Timeout { .. } => SourceState::Timeout,
            FetchError::Broken { .. } => SourceState::Truncated,
            FetchError::TooLarge { .. } => SourceState::TooLarge,
            FetchError::Target(_) | FetchError::Status { .. } => SourceState::HttpError,
        };
        let detail = match &error {
            FetchError::Denied { path } => weir_discovery::access::denied(path),
            _ => error.to_string(),
        };
        Self::new(state, detail)
    }
}

impl From<super::system_probe::decode::DecodeError> for Failure {
    fn from(error: super::system_probe::decode::DecodeError) -> Self {
        use super::system_probe::decode::DecodeError;
        let state = match &error {
            DecodeError::Odd { .. } => SourceState::BadJson,
            DecodeError::Truncated { .. } => SourceState::Truncated,
            DecodeError::TooLong { .. } => SourceState::TooLarge,
        };
        Self::new(state, error.to_string())
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        let state = match &error {
            DecodeError::NotTheFeed { .. } | DecodeError::SystemProbe { .. } => SourceState::BadJson,
            DecodeError::Truncated { .. } => SourceState::Truncated,
            DecodeError::RowTooLong { .. } | DecodeError::EnvelopeTooLong { .. } | DecodeError::BodyTooLong { .. } => {
                SourceState::TooLarge
            }
        };
        Self::new(state, error.to_string())
    }
}
