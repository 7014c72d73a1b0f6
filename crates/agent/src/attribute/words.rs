//! The feed's few fixed texts (`state`, `close_reason`) in one byte.

/// Every text that weir's tracer writes (`include/net/tcp_states.h` in lower case, and the reasons of a close). The
/// positions are part of the spool's format: append only.
const WORDS: [&str; 23] = [
    "",
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    "new_syn_recv",
    "active",
    "closed",
    "refused",
    "reset",
    "timed_out",
    "unreachable",
    "aborted",
    "disconnected",
    "idle",
    "bound_inactive",
];

/// One of them; what a foreign feed writes beyond them is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word(u8);

impl Word {
    /// Not told, or not known here.
    pub const UNKNOWN: Self = Self(0);
    /// `closed`.
    pub const CLOSED: Self = Self(14);
    /// `disconnected`.
    pub const DISCONNECTED: Self = Self(20);

    /// The word for a text.
    pub fn of(text: &str) -> Self {
        WORDS.iter().position(|word| *word == text).map_or(Self::UNKNOWN, |index| Self(index as u8))
    }

    /// The text.
    pub fn as_str(self) -> &'static str {
        WORDS.get(usize::from(self.0)).copied().unwrap_or("")
    }

    /// The word at a stored position.
    pub fn from_index(index: u32) -> Self {
        u8::try_from(index).ok().filter(|index| usize::from(*index) < WORDS.len()).map_or(Self::UNKNOWN, Self)
    }

    /// Its stored position.
    pub fn index(self) -> u32 {
        u32::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_survives_storing_and_an_unknown_one_is_unknown() {
        for word in WORDS {
            assert_eq!(Word::from_index(Word::of(word).index()).as_str(), word);
        }
        assert_eq!((Word::CLOSED.as_str(), Word::DISCONNECTED.as_str()), ("closed", "disconnected"));
        assert_eq!(Word::of("brewing"), Word::UNKNOWN);
        assert_eq!(Word::from_index(200), Word::UNKNOWN);
    }
}
