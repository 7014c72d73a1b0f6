//! What was made for the questions that were asked last.

use std::sync::{Arc, Mutex, PoisonError};

/// Questions that are remembered: a few people's, who each look at something else.
const KEPT: usize = 4;

/// A place for each of the last questions, the newest last. Whoever asks the same waits for who works in it.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    places: Mutex<Vec<(K, Arc<Mutex<V>>)>>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { places: Mutex::default() }
    }
}

impl<K: PartialEq, V: Default> Recent<K, V> {
    /// The place of a question; the one that was asked for longest ago leaves.
    pub(crate) fn place(&self, key: K) -> Arc<Mutex<V>> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match places.iter().position(|(of, _)| *of == key) {
            Some(at) => places.remove(at).1,
            None => Arc::default(),
        };
        if places.len() >= KEPT {
            places.remove(0);
        }
        places.push((key, Arc::clone(&place)));
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_four_have_a_place_each() {
        let recent = Recent::<u32, u32>::default();
        let first = recent.place(1);
        assert!(Arc::ptr_eq(&first, &recent.place(1)));
        for key in 2..=4 {
            assert!(!Arc::ptr_eq(&first, &recent.place(key)));
        }
        assert!(Arc::ptr_eq(&first, &recent.place(1)), "asked for again, it is the newest");
        for key in 5..=8 {
            recent.place(key);
        }
        assert!(!Arc::ptr_eq(&first, &recent.place(1)), "the oldest has left");
    }
}
