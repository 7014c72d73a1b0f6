//! A line of text that is typed.

use weir_wire::filter::FilterError;

/// The line in which a filter is typed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Input {
    /// The text.
    pub text: String,
    /// Characters before the cursor.
    pub cursor: usize,
    /// Why the text is none, since it was last tried.
    pub error: Option<FilterError>,
}

impl Input {
    fn place(&self) -> usize {
        self.text.char_indices().nth(self.cursor).map_or(self.text.len(), |(place, _)| place)
    }

    pub(super) fn insert(&mut self, character: char) {
        if self.text.chars().count() < weir_wire::filter::TEXT_MAX {
            self.text.insert(self.place(), character);
            self.cursor += 1;
        }
    }

    pub(super) fn remove_before(&mut self) {
        if self.cursor > 0 {
            self.cursor -= 1;
            self.text.remove(self.place());
        }
    }

    pub(super) fn remove_at(&mut self) {
        let place = self.place();
        if place < self.text.len() {
            self.text.remove(place);
        }
    }
}
