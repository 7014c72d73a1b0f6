//! Queries that wait for their answer, and what came of those that do not any more.
//!
//! A query is known by its socket, its id, its question and its server. A datagram that says the same again while the
//! query waits is the same query; its time counts from the first one, as its application waits from then on. An answer
//! whose server differs from the query's is taken if only one query fits: the host translates addresses between where
//! the query and where the answer is seen.

use super::message::{Message, Question};
use crate::losses::Loss;
use crate::places::Place;
use crate::probes::layout::Origin;
use crate::probes::udp::dns::Head;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// Resolvers give up after 5 to 15 s; a later answer finds nobody.
pub const TIMEOUT_NS: u64 = 15_000_000_000;
/// 1,000 unanswered queries a second over the whole timeout; about 200 B each, 3 MB.
pub const WAITING_MAX: usize = 16_384;
/// Rows with names of their own, until they are acknowledged: about 400 B each, 3.5 MB.
pub const ROWS_MAX: usize = 8_192;
/// Rows beyond, for the names that found no room: a client and server each.
pub const OTHERS_MAX: usize = 512;

/// What became of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// An answer with this code.
    Answered(u8),
    /// None in time.
    Timeout,
}

/// What a row is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Who asked.
    pub origin: (u32, u64, u32, u64),
    /// Who was asked.
    pub server: IpAddr,
    /// What; `None` stands for every name beyond the cap.
    pub question: Option<Arc<Question>>,
    /// What became of it.
    pub outcome: Outcome,
}

/// A row's numbers.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// The owner, for its name.
    pub origin: Origin,
    /// Where it lives.
    pub place: Option<Arc<Place>>,
    /// Queries.
    pub count: u64,
    /// Microseconds.
    pub latency_sum_us: u64,
    /// Microseconds.
    pub latency_max_us: u64,
    /// Datagrams that asked again.
    pub retransmits: u64,
    /// Answers with TC.
    pub truncated: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub first_ns: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub last_ns: u64,
    /// Of the last answer.
    pub answers: Vec<(IpAddr, u32)>,
    /// Of the last answer.
    pub aliases: Vec<String>,
}

#[derive(Debug)]
struct Waiting {
    origin: Origin,
    place: Option<Arc<Place>>,
    server: IpAddr,
    question: Arc<Question>,
    at_ns: u64,
    again: u64,
}

type Asked = (u64, u16);

/// The table.
#[derive(Debug, Default)]
pub struct Table {
    waiting: HashMap<Asked, Vec<Waiting>>,
    waiting_len: usize,
    /// In the order of their times.
    deadlines: VecDeque<(u64, Asked)>,
    rows: HashMap<Key, Counts>,
    counted: u64,
    losses: BTreeMap<Loss, u64>,
    /// Answers that nobody waited for.
    pub unmatched: u64,
    /// Answers with more addresses or aliases than are kept.
    pub capped: u64,
}

impl Table {
    /// Takes a message. `place` finds where an owner lives; `held` rows are elsewhere and count against the cap.
    pub fn take(
        &mut self,
        head: &Head,
        message: Message,
        held: usize,
        place: impl FnOnce(&Origin) -> Option<Arc<Place>>,
    ) {
        let asked = (head.cookie, message.id);
        match (head.outgoing != 0, message.is_answer) {
            (true, false) => self.ask(head, asked, message, place),
            (false, true) => self.answer(head, asked, message, held),
            // A question on its way in from port 53: another server's business.
            _ => {}
        }
    }

    fn ask(&mut self, head: &Head, asked: Asked, message: Message, place: impl FnOnce(&Origin) -> Option<Arc<Place>>) {
        let Some(question) = message.question else { return };
        let server = head.server();
        let list = self.waiting.entry(asked).or_default();
        if let Some(same) = list.iter_mut().find(|waiting| waiting.server == server && *waiting.question == question) {
            same.again += 1;
            return;
        }
        if self.waiting_len >= WAITING_MAX {
            if list.is_empty() {
                self.waiting.remove(&asked);
            }
            self.lose(Loss::DnsQueriesCapped, 1);
            return;
        }
        list.push(Waiting {
            origin: head.origin,
            place: place(&head.origin),
            server,
            question: Arc::new(question),
            at_ns: head.at_ns,
            again: 0,
        });
        self.waiting_len += 1;
        self.deadlines.push_back((head.at_ns, asked));
    }

    fn answer(&mut self, head: &Head, asked: Asked, message: Message, held: usize) {
        let server = head.server();
        let found = self.waiting.get(&asked).and_then(|list| {
            let fits = |waiting: &&Waiting| message.question.as_ref().is_none_or(|asked| *asked == *waiting.question);
            let exact = list.iter().position(|waiting| waiting.server == server && fits(&waiting));
            let alone = || (list.iter().filter(fits).count() == 1).then(|| list.iter().position(|one| fits(&one)))?;
            exact.or_else(alone)
        });
        let Some(mut waiting) = found.and_then(|index| self.remove(asked, index)) else {
            self.unmatched += 1;
            return;
        };
        self.capped += u64::from(message.is_capped);
        // What the client sees is the answer's.
        waiting.server = server;
        self.count(waiting, Outcome::Answered(message.rcode), head.at_ns, message, held);
    }

    /// Counts those that have waited too long by `now_ns`.
    pub fn expire(&mut self, now_ns: u64, held: usize) {
        while let Some((at_ns, asked)) = self.deadlines.front().copied()
            && at_ns.saturating_add(TIMEOUT_NS) <= now_ns
        {
            self.deadlines.pop_front();
            let index = self.waiting.get(&asked).and_then(|list| list.iter().position(|one| one.at_ns == at_ns));
            if let Some(waiting) = index.and_then(|index| self.remove(asked, index)) {
                self.count(waiting, Outcome::Timeout, at_ns + TIMEOUT_NS, Message::default(), held);
            }
        }
    }

    fn remove(&mut self, asked: Asked, index: usize) -> Option<Waiting> {
        let list = self.waiting.get_mut(&asked)?;
        let waiting = list.swap_remove(index);
        self.waiting_len -= 1;
        if list.is_empty() {
            self.waiting.remove(&asked);
        }
        Some(waiting)
    }

    fn count(&mut self, waiting: Waiting, outcome: Outcome, at_ns: u64, message: Message, held: usize) {
        let Origin { pid, process_start, netns, cgroup_id, .. } = waiting.origin;
        let question = Some(waiting.question);
        let mut key = Key { origin: (pid, process_start, netns, cgroup_id), server: waiting.server, question, outcome };
        let rows = self.rows.len() + held;
        if rows >= ROWS_MAX && !self.rows.contains_key(&key) {
            key.question = None;
            self.lose(Loss::DnsNamesCapped, 1);
            if rows >= ROWS_MAX + OTHERS_MAX && !self.rows.contains_key(&key) {
                self.lose(Loss::DnsRowsDropped, 1);
                return;
            }
        }
        let is_named = key.question.is_some();
        let counts = self.rows.entry(key).or_insert_with(|| Counts { first_ns: at_ns, ..Counts::default() });
        if counts.count == 0 {
            (counts.origin, counts.place) = (waiting.origin, waiting.place);
        }
        counts.count += 1;
        counts.retransmits += waiting.again;
        counts.truncated += u64::from(message.is_truncated);
        if outcome != Outcome::Timeout {
            let latency_us = at_ns.saturating_sub(waiting.at_ns) / 1_000;
            counts.latency_sum_us = counts.latency_sum_us.saturating_add(latency_us);
            counts.latency_max_us = counts.latency_max_us.max(latency_us);
        }
        counts.last_ns = counts.last_ns.max(at_ns);
        if is_named {
            (counts.answers, counts.aliases) = (message.answers, message.aliases);
        }
        self.counted += 1;
    }

    fn lose(&mut self, loss: Loss, count: u64) {
        *self.losses.entry(loss).or_default() += count;
    }

    /// What was lost since the last call.
    pub fn take_losses(&mut self) -> BTreeMap<Loss, u64> {
        std::mem::take(&mut self.losses)
    }

    /// The rows so far; their numbers begin anew.
    pub fn take_rows(&mut self) -> HashMap<Key, Counts> {
        self.counted = 0;
        std::mem::take(&mut self.rows)
    }

    /// The rows so far.
    pub fn rows(&self) -> &HashMap<Key, Counts> {
        &self.rows
    }

    /// Queries that wait.
    pub fn waiting(&self) -> usize {
        self.waiting_len
    }

    /// Queries in the rows.
    pub fn counted(&self) -> u64 {
        self.counted
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
