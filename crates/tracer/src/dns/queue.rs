//! Rows of DNS on their way to the feed's clients (R3): told until acknowledged to those who acknowledge, once to the
//! others.
//!
//! At each fetch what was counted since the last one becomes a part with a sequence number, and the number is the cursor.
//! A part is let go when every client has it. Clients that have not asked for long are forgotten, as with ended
//! connections.

use crate::clients::{CLIENTS_MAX, EXPIRY_NS, Fetch};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use weir_wire::feed::Dns;

/// One fetch's rows.
#[derive(Clone, Debug)]
struct Part {
    sequence: u64,
    rows: Arc<Vec<Dns>>,
}

#[derive(Clone, Copy, Debug)]
struct Reader {
    fetched_ns: u64,
    /// Parts up to here were told.
    told: u64,
    /// Parts up to here may go.
    settled: u64,
}

/// What a client is told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Its rows.
    pub parts: Vec<Arc<Vec<Dns>>>,
    /// What to pass as `dns_ack`; `None` to those without a name.
    pub cursor: Option<u64>,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    parts: VecDeque<Part>,
    /// The last part's sequence, or of the last one there was.
    head: u64,
    /// What is at or before it is gone.
    floor: u64,
    readers: HashMap<String, Reader>,
}

impl Queue {
    /// Sequences after `first`: higher than any of an earlier tracer of this boot, so that a client's old cursor is not
    /// taken for one of these.
    pub fn new(first: u64) -> Self {
        Self { parts: VecDeque::new(), head: first, floor: first, readers: HashMap::new() }
    }

    /// Answers a fetch; `fresh` is what was counted since the last one.
    pub fn fetch(&mut self, fetch: &Fetch, fresh: Vec<Dns>, now_ns: u64) -> Told {
        if !fresh.is_empty() {
            self.head += 1;
            self.parts.push_back(Part { sequence: self.head, rows: Arc::new(fresh) });
        }
        self.expire(now_ns);
        if !self.readers.contains_key(&fetch.id) && self.readers.len() >= CLIENTS_MAX {
            let oldest = self.readers.iter().min_by_key(|(_, reader)| reader.fetched_ns).map(|(id, _)| id.clone());
            oldest.and_then(|oldest| self.readers.remove(&oldest));
        }
        let known = self.readers.get(&fetch.id);
        let after = match fetch.dns_ack {
            Some(ack) if (self.floor..=self.head).contains(&ack) => ack,
            // Of another tracer: all that this one has is new.
            Some(_) => self.floor,
            None => known.map_or(self.head, |reader| reader.told.clamp(self.floor, self.head)),
        };
        let settled = if fetch.dns_ack.is_some() { after } else { self.head };
        self.readers.insert(fetch.id.clone(), Reader { fetched_ns: now_ns, told: self.head, settled });
        let parts = self.parts.iter().filter(|part| part.sequence > after).map(|part| Arc::clone(&part.rows)).collect();
        self.settle();
        Told { parts, cursor: Some(self.head) }
    }

    /// Everything that is kept, for who has no name; nothing is consumed.
    pub fn all(&self) -> Vec<Arc<Vec<Dns>>> {
        self.parts.iter().map(|part| Arc::clone(&part.rows)).collect()
    }

    /// Forgets who has not asked for long.
    pub fn expire(&mut self, now_ns: u64) {
        let before = self.readers.len();
        self.readers.retain(|_, reader| now_ns.saturating_sub(reader.fetched_ns) < EXPIRY_NS);
        if self.readers.len() < before {
            self.settle();
        }
    }

    fn settle(&mut self) {
        let settled = self.readers.values().map(|reader| reader.settled).min().unwrap_or(self.head);
        while self.parts.front().is_some_and(|part| part.sequence <= settled) {
            self.parts.pop_front();
        }
        self.floor = self.floor.max(settled);
    }

    /// Rows that are kept.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows.len()).sum()
    }

    /// Queries in them.
    pub fn queries(&self) -> u64 {
        self.parts.iter().flat_map(|part| part.rows.iter()).map(|row| row.count).sum()
    }

    /// Whether nobody waits for anything.
    pub fn has_readers(&self) -> bool {
        !self.readers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::Wants;

    fn fetch(id: &str, dns_ack: Option<u64>) -> Fetch {
        Fetch { id: id.into(), ack: None, run: None, last: Wants::TotalsOnly, dns_ack, page: None }
    }

    fn rows(name: &str) -> Vec<Dns> {
        vec![Dns { name: name.into(), count: 2, ..Dns::default() }]
    }

    fn names(told: &Told) -> Vec<String> {
        told.parts.iter().flat_map(|part| part.iter()).map(|row| row.name.clone()).collect()
    }

    #[test]
    fn rows_come_until_they_are_acknowledged() {
        let mut queue = Queue::new(100);
        let first = queue.fetch(&fetch("a", None), rows("before"), 0);
        assert_eq!((names(&first).len(), first.cursor), (0, Some(101)), "what was there before it asked is not its");
        for _ in 0..2 {
            let again = queue.fetch(&fetch("a", Some(101)), Vec::new(), 1);
            assert!(names(&again).is_empty());
        }
        assert_eq!(names(&queue.fetch(&fetch("a", Some(101)), rows("x"), 1)), ["x"]);
        let both = queue.fetch(&fetch("a", Some(101)), rows("y"), 2);
        assert_eq!((names(&both), both.cursor, queue.rows()), (vec!["x".into(), "y".into()], Some(103), 2));
        assert_eq!(queue.queries(), 4);
        assert_eq!(names(&queue.fetch(&fetch("a", Some(102)), Vec::new(), 3)), ["y"]);
        assert!(names(&queue.fetch(&fetch("a", Some(103)), Vec::new(), 4)).is_empty());
        assert_eq!(queue.rows(), 0);
    }

    #[test]
    fn who_does_not_acknowledge_is_told_once_and_who_has_no_name_takes_nothing() {
        let mut queue = Queue::new(100);
        queue.fetch(&fetch("once", None), Vec::new(), 0);
        queue.fetch(&fetch("slow", Some(100)), Vec::new(), 0);
        assert_eq!(names(&queue.fetch(&fetch("once", None), rows("x"), 1)), ["x"]);
        assert!(names(&queue.fetch(&fetch("once", None), Vec::new(), 2)).is_empty());
        assert_eq!(queue.all().len(), 1);
        assert_eq!(names(&queue.fetch(&fetch("slow", Some(100)), Vec::new(), 3)), ["x"]);
        queue.expire(EXPIRY_NS + 3);
        assert!(!queue.has_readers());
        assert_eq!(queue.rows(), 0, "nobody waits for it any more");
    }

    #[test]
    fn a_cursor_of_another_tracer_gets_all_that_this_one_has() {
        let mut queue = Queue::new(100);
        assert_eq!(names(&queue.fetch(&fetch("a", Some(7)), rows("x"), 0)), ["x"]);
        assert_eq!(names(&queue.fetch(&fetch("b", Some(5_000)), Vec::new(), 0)), ["x"]);
    }

    #[test]
    fn readers_are_bounded() {
        let mut queue = Queue::new(100);
        for number in 0..=CLIENTS_MAX as u64 {
            queue.fetch(&fetch(&number.to_string(), None), Vec::new(), number);
        }
        assert_eq!(queue.readers.len(), CLIENTS_MAX);
        assert!(!queue.readers.contains_key("0"));
    }
}
