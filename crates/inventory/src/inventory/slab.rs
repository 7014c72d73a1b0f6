//! A vector whose freed places are used again, so that indexes stay the same.

/// The values, by a dense number.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<T>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Values that are kept.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Places, the freed ones included.
    pub(crate) fn capacity(&self) -> u32 {
        self.places.len() as u32
    }

    pub(crate) fn get(&self, place: u32) -> Option<&T> {
        self.places.get(place as usize)
    }

    pub(crate) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        self.places.get_mut(place as usize)
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(place) = self.free.pop() {
            self.places[place as usize] = value;
            return place;
        }
        self.places.push(value);
        (self.places.len() - 1) as u32
    }

    /// Frees a place; the value stays until the place is used again.
    pub(crate) fn free(&mut self, place: u32) {
        self.free.push(place);
    }

    /// A mark per place: whether it is free.
    pub(crate) fn free_marks(&self) -> Vec<bool> {
        let mut marks = vec![false; self.places.len()];
        self.free.iter().for_each(|place| marks[*place as usize] = true);
        marks
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, place: u32) -> &T {
        &self.places[place as usize]
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, place: u32) -> &mut T {
        &mut self.places[place as usize]
    }
}
