//! What the polls show and no source has told of: it calls for a reading at once.
//!
//! Something that no source ever names (a sandbox, another engine's container) calls a few times and then waits for
//! the regular readings.

use std::collections::HashMap;

/// How often one unknown thing calls: a kubelet knows a new container's id a second or two after the kernel does.
const CALLS_MAX: u8 = 3;
/// Things that are unknown at once; further ones do not call.
const THINGS_MAX: usize = 4_096;

/// How often each unknown thing has called.
#[derive(Debug, Default)]
pub struct Unknown {
    calls: HashMap<Box<str>, u8>,
}

impl Unknown {
    /// Takes what is unknown now; answers whether it calls for a reading. What is not in it any more is forgotten.
    pub fn note(&mut self, things: impl IntoIterator<Item = Box<str>>) -> bool {
        let mut now: HashMap<Box<str>, u8> = HashMap::new();
        let mut calls = false;
        for thing in things {
            if now.len() >= THINGS_MAX {
                break;
            }
            let called = self.calls.get(&thing).copied().unwrap_or(0);
            calls |= called < CALLS_MAX;
            now.insert(thing, called.saturating_add(1).min(CALLS_MAX));
        }
        self.calls = now;
        calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_thing_calls_a_few_times_and_a_new_one_calls_again() {
        let mut unknown = Unknown::default();
        let calls: Vec<bool> = (0..5).map(|_| unknown.note(["a".into()])).collect();
        assert_eq!(calls, [true, true, true, false, false]);
        assert!(unknown.note(["a".into(), "b".into()]));
        assert!(!unknown.note([]));
        assert!(unknown.note(["a".into()]), "it was known in between");
    }
}
