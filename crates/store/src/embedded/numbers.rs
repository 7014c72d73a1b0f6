//! Under which number a connection's row lies, as far as it is remembered: a batch tells of connections that the batch
//! before it told of, and a number finds its row in one step among neighbours, an id somewhere in a large index.
//!
//! A number is where to look first, and nothing more: whoever looks there compares the id.

use std::collections::HashMap;
use weir_model::ConnectionId;

/// About 15 MB. Beyond, all are forgotten: what goes on is soon remembered again.
const NUMBERS_MAX: usize = 250_000;

#[derive(Debug, Default)]
pub(super) struct Numbers(HashMap<ConnectionId, i64>);

impl Numbers {
    pub(super) fn get(&self, id: ConnectionId) -> Option<i64> {
        self.0.get(&id).copied()
    }

    pub(super) fn put(&mut self, id: ConnectionId, number: i64) {
        if self.0.len() >= NUMBERS_MAX && !self.0.contains_key(&id) {
            self.0.clear();
        }
        self.0.insert(id, number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_stays_bounded_and_what_comes_again_is_remembered_again() {
        let mut numbers = Numbers::default();
        for number in 0..=NUMBERS_MAX as i64 {
            numbers.put(ConnectionId((number as u128).to_be_bytes()), number);
        }
        assert!(numbers.0.len() <= NUMBERS_MAX);
        let first = ConnectionId([0; 16]);
        assert_eq!(numbers.get(first), None);
        numbers.put(first, 7);
        numbers.put(first, 9);
        assert_eq!(numbers.get(first), Some(9));
    }
}
