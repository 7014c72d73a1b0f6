//! Who reads the feed, and what each has seen: which ended connections, and every counter's value at its last fetch.
//!
//! Two kinds share one table. A client that passes `ack` gets ended rows again until it has acknowledged them (R3); it
//! is identified by the cursor alone, so one that the tracer does not know goes on where it was. A client without `ack`
//! works as in 2019: unknown, it is registered and gets no ended rows; later each ended row comes once.

use crate::probes::layout::{Row, UDP};
use crate::rows::Last;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// A node has one agent; the rest are people who look.
pub const CLIENTS_MAX: usize = 64;
/// As long as an agent may be away before the rows it has not acknowledged may be let go.
pub const EXPIRY_NS: u64 = 600_000_000_000;
/// Of all clients together, about 20 MB: two that read a node of 200,000 connections. Beyond, `last_*` is 0 and counted;
/// the totals stay right. A client that does not want `last_*`, as weir's agent, has none.
pub const BASELINES_MAX: usize = 458_752;
/// Longer ids are refused.
pub const ID_LENGTH_MAX: usize = 256;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// `client_id`.
    pub id: String,
    /// `ack`.
    pub ack: Option<u64>,
    /// `run`: the run that `ack` is of.
    pub run: Option<u64>,
    /// `last`.
    pub last: Wants,
    /// `dns_ack`.
    pub dns_ack: Option<u64>,
    /// `page`: at most so many ended rows at once.
    pub page: Option<u64>,
}

/// Whether a client wants `last_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wants {
    /// As in 2019.
    #[default]
    Last,
    /// Totals are enough (`last=no`): `last_*` is 0, and nothing is remembered for it.
    TotalsOnly,
}

/// What the journal has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// The run.
    pub run: u64,
    /// The sequence before the first row.
    pub floor: u64,
    /// The last row's.
    pub head: u64,
    /// The last row's that had to go because the journal was full, and was counted then.
    pub forced: u64,
}

/// The table.
#[derive(Debug)]
pub struct Clients {
    known: HashMap<String, Client>,
    evicted: u64,
    baselines_max: usize,
}

#[derive(Debug)]
struct Client {
    fetched_ns: u64,
    /// Ended rows up to here may go.
    settled: u64,
    /// Ended rows up to here were told at least once.
    told: u64,
    acknowledges: bool,
    /// None until the first fetch has set them: nothing can be told since the last fetch then.
    baselines: Option<HashMap<Key, Last>>,
    /// Translations up to here were in the last reply but one, and up to there in the last one.
    translations: [u64; 2],
    /// The last reply's cursor.
    cursor: u64,
}

/// What a restarted tracer must know of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    id: String,
    fetched_ns: u64,
    settled: u64,
}

/// A counter: the socket and its generation, for UDP the socket, the peer and the counter's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(u64, u64);

impl Key {
    pub(crate) fn of(row: &Row) -> Self {
        if row.protocol != UDP {
            return Self(row.cookie, u64::from(row.generation));
        }
        let mut hasher = DefaultHasher::new();
        (row.local, row.remote, row.local_port, row.remote_port, row.start_ns).hash(&mut hasher);
        Self(row.cookie, hasher.finish())
    }
}

/// One fetch being answered.
#[derive(Debug)]
pub struct Answer {
    id: String,
    /// Ended rows after this sequence are told.
    pub after: u64,
    /// Ended rows after this one are told for the first time.
    told: u64,
    before: Option<HashMap<Key, Last>>,
    baselines: HashMap<Key, Last>,
    /// Rows whose `last_*` could not be told.
    pub capped: u64,
    /// Translations after this number are told: each is, in two replies that came through at least.
    pub translations_after: u64,
    /// The client was not known.
    pub is_new: bool,
    /// The reply before came through, as far as `ack` tells.
    came_through: bool,
    /// Ended rows that were let go while the client was forgotten, and not counted yet.
    pub let_go: u64,
    last: Wants,
    baselines_max: usize,
}

/// Some of the ended rows, where too many wait for one reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The sequence before the first row.
    pub after: u64,
    /// The last row's.
    pub until: u64,
    /// As in [`Answer`].
    pub let_go: u64,
}

impl Clients {
    /// No clients, and room for so many baselines of all that will come.
    pub fn new(baselines_max: usize) -> Self {
        Self { known: HashMap::new(), evicted: 0, baselines_max }
    }

    /// Begins to answer.
    pub fn begin(&mut self, fetch: &Fetch, stock: Stock, now_ns: u64) -> Answer {
        self.expire(now_ns);
        let Stock { run, floor, head, forced } = stock;
        if !self.known.contains_key(&fetch.id) && self.known.len() >= CLIENTS_MAX {
            let oldest = self.known.iter().min_by_key(|(_, client)| client.fetched_ns).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                self.known.remove(&oldest);
                self.evicted += 1;
            }
        }
        let is_new = !self.known.contains_key(&fetch.id);
        let client = self.known.entry(fetch.id.clone()).or_insert(Client {
            fetched_ns: now_ns,
            settled: head,
            told: head,
            acknowledges: false,
            baselines: None,
            translations: [0; 2],
            cursor: 0,
        });
        client.fetched_ns = now_ns;
        let mut let_go = 0;
        let after = match fetch.ack {
            // Of this run: go on there. Of another run (cursors of a later run are higher, of an earlier boot any): all
            // that this run has is new to it.
            Some(ack) if (floor..=head).contains(&ack) => ack,
            // Its rows were let go while it was forgotten.
            Some(ack) if fetch.run == Some(run) && ack < floor => {
                let_go = floor.saturating_sub(ack.max(forced));
                floor
            }
            Some(_) => floor,
            None => client.told.clamp(floor, head),
        };
        client.acknowledges = fetch.ack.is_some();
        client.settled = if client.acknowledges { after } else { head };
        let (told, before) = (client.told.max(after), client.baselines.take());
        let translations_after = client.translations[0];
        let came_through = fetch.ack.is_none_or(|ack| ack >= client.cursor);
        let others: usize = self.known.values().flat_map(|client| &client.baselines).map(HashMap::len).sum();
        Answer {
            id: fetch.id.clone(),
            after,
            told,
            before,
            baselines: HashMap::new(),
            capped: 0,
            translations_after,
            is_new,
            came_through,
            let_go,
            last: fetch.last,
            baselines_max: self.baselines_max.saturating_sub(others),
        }
    }

    /// The answer is complete: what it told is the new baseline. It told translations up to the number `translations`.
    pub fn finish(&mut self, answer: Answer, head: u64, translations: u64) {
        if let Some(client) = self.known.get_mut(&answer.id) {
            client.told = head;
            client.cursor = head;
            if answer.came_through {
                client.translations[0] = client.translations[1];
            }
            client.translations[1] = translations;
            client.baselines = (answer.last == Wants::Last).then_some(answer.baselines);
        }
    }

    /// Begins to answer with a page, if that is what `fetch` is for: after what it acknowledges of this run lie more ended
    /// rows than it takes at once.
    pub fn page(&mut self, fetch: &Fetch, stock: Stock, now_ns: u64) -> Option<Page> {
        let (ack, page) = (fetch.ack?, fetch.page?.max(1));
        let Stock { run, floor, head, forced } = stock;
        // Rows before the floor were let go while the client was away.
        let after = ack.max(floor);
        if fetch.run != Some(run) || after > head || head - after <= page {
            return None;
        }
        let client = self.known.get_mut(&fetch.id)?;
        client.fetched_ns = now_ns;
        client.acknowledges = true;
        client.settled = after;
        client.told = client.told.max(after + page);
        // The last reply with translations did not come through, however far the pages take the cursor.
        if ack < client.cursor {
            client.cursor = u64::MAX;
        }
        Some(Page { after, until: after + page, let_go: after.saturating_sub(ack.max(forced)) })
    }

    /// Every ended row up to here has been acknowledged (or told once, to those who do not acknowledge) by all; `None`
    /// without clients.
    pub fn settled(&self) -> Option<u64> {
        self.known.values().map(|client| client.settled).min()
    }

    /// Every translation up to this number has been told twice to all; `None` without clients.
    pub fn translations_settled(&self) -> Option<u64> {
        self.known.values().map(|client| client.translations[0]).min()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// How many were forgotten because too many asked, since this was last called.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// The clients that acknowledge, for the tracer after this one: their rows must not go before they are back.
    pub fn keep(&self) -> Vec<Kept> {
        let acknowledging = self.known.iter().filter(|(_, client)| client.acknowledges);
        acknowledging
            .map(|(id, client)| Kept { id: id.clone(), fetched_ns: client.fetched_ns, settled: client.settled })
            .collect()
    }

    /// Takes over what the tracer before this one kept.
    pub fn restore(&mut self, kept: Vec<Kept>) {
        for Kept { id, fetched_ns, settled } in kept.into_iter().take(CLIENTS_MAX) {
            let client = Client {
                fetched_ns,
                settled,
                told: settled,
                acknowledges: true,
                baselines: None,
                translations: [0; 2],
                cursor: 0,
            };
            self.known.insert(id, client);
        }
    }

    /// Forgets who has not asked for long.
    pub fn expire(&mut self, now_ns: u64) {
        self.known.retain(|_, client| now_ns.saturating_sub(client.fetched_ns) < EXPIRY_NS);
    }
}

impl Answer {
    /// What came on a living connection since the last fetch; 0 on the client's first.
    pub fn open(&mut self, row: &Row) -> Last {
        if self.last == Wants::TotalsOnly {
            return Last::default();
        }
        let key = Key::of(row);
        let now = Last { sent: row.sent, recv: row.recv, retransmits: u64::from(row.retransmits) };
        let known = self.before.as_ref().map(|before| before.get(&key).copied());
        if self.baselines.len() >= self.baselines_max {
            self.capped += 1;
            return Last::default();
        }
        self.baselines.insert(key, now);
        match known {
            None => Last::default(),
            Some(before) => since(now, before.unwrap_or_default()),
        }
    }

    /// What came on an ended connection since the last fetch; 0 when it is only repeated.
    pub fn ended(&mut self, sequence: u64, row: &Row) -> Last {
        let (Some(before), true) = (&self.before, sequence > self.told) else { return Last::default() };
        let now = Last { sent: row.sent, recv: row.recv, retransmits: u64::from(row.retransmits) };
        let key = Key::of(row);
        // It may be among this answer's living rows too, when it ended while they were read.
        let before = self.baselines.remove(&key).or_else(|| before.get(&key).copied());
        since(now, before.unwrap_or_default())
    }
}

fn since(now: Last, before: Last) -> Last {
    Last {
        sent: now.sent.saturating_sub(before.sent),
        recv: now.recv.saturating_sub(before.recv),
        retransmits: now.retransmits.saturating_sub(before.retransmits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cookie: u64, sent: u64) -> Row {
        Row { cookie, sent, protocol: crate::probes::layout::TCP, ..Row::default() }
    }

    fn fetch(ack: Option<u64>) -> Fetch {
        Fetch { id: "a".to_owned(), ack, run: None, last: Wants::Last, dns_ack: None, page: None }
    }

    fn stock(floor: u64, head: u64) -> Stock {
        Stock { run: 1, floor, head, forced: 0 }
    }

    #[test]
    fn without_ack_each_ended_row_comes_once_and_never_the_ones_before_registration() {
        let mut clients = Clients::new(BASELINES_MAX);
        let first = clients.begin(&fetch(None), stock(99, 105), 0);
        assert_eq!(first.after, 105);
        clients.finish(first, 105, 0);
        let second = clients.begin(&fetch(None), stock(99, 110), 1);
        assert_eq!(second.after, 105);
        clients.finish(second, 110, 0);
        assert_eq!(clients.begin(&fetch(None), stock(99, 110), 2).after, 110);
        assert_eq!(clients.settled(), Some(110));
    }

    #[test]
    fn with_ack_ended_rows_come_until_they_are_acknowledged() {
        let mut clients = Clients::new(BASELINES_MAX);
        let first = clients.begin(&fetch(None), stock(99, 105), 0);
        clients.finish(first, 105, 0);
        for _ in 0..3 {
            let again = clients.begin(&fetch(Some(105)), stock(99, 110), 1);
            assert_eq!(again.after, 105);
            clients.finish(again, 110, 0);
            assert_eq!(clients.settled(), Some(105));
        }
        assert_eq!(clients.begin(&fetch(Some(110)), stock(99, 110), 1).after, 110);
        assert_eq!(clients.settled(), Some(110));
    }

    #[test]
    fn more_ended_rows_than_a_page_come_in_pages_to_who_acknowledges_them_in_this_run() {
        let mut clients = Clients::new(BASELINES_MAX);
        let ask = |ack, run| Fetch { run: Some(run), page: Some(10), ..fetch(Some(ack)) };
        assert_eq!(clients.page(&ask(100, 1), stock(99, 130), 0), None, "it is not known yet");
        let first = clients.begin(&fetch(Some(100)), stock(99, 100), 0);
        clients.finish(first, 100, 0);
        assert_eq!(clients.page(&ask(100, 1), stock(99, 130), 1), Some(Page { after: 100, until: 110, let_go: 0 }));
        assert_eq!(
            clients.page(&ask(100, 1), stock(99, 130), 1),
            Some(Page { after: 100, until: 110, let_go: 0 }),
            "not acknowledged: again"
        );
        assert_eq!(clients.settled(), Some(100));
        assert_eq!(clients.page(&ask(110, 1), stock(99, 130), 2), Some(Page { after: 110, until: 120, let_go: 0 }));
        assert_eq!(clients.settled(), Some(110));
        assert_eq!(clients.page(&ask(120, 1), stock(99, 130), 3), None, "the rest is a reply with what lives");
        assert_eq!(clients.page(&ask(100, 2), stock(99, 130), 3), None, "another run's cursor");
        assert_eq!(clients.page(&Fetch { page: None, ..ask(100, 1) }, stock(99, 130), 3), None);
        assert_eq!(clients.begin(&ask(120, 1), stock(99, 130), 4).after, 120);
        let behind = clients.page(&ask(120, 1), stock(125, 140), 5);
        assert_eq!(behind, Some(Page { after: 125, until: 135, let_go: 5 }), "let go meanwhile");
    }

    #[test]
    fn an_unknown_client_goes_on_at_its_cursor_and_one_of_another_run_gets_all() {
        let mut clients = Clients::new(BASELINES_MAX);
        assert_eq!(clients.begin(&fetch(Some(103)), stock(99, 105), 0).after, 103);
        assert_eq!(clients.begin(&fetch(Some(7)), stock(99, 105), 0).after, 99);
        assert_eq!(clients.begin(&fetch(Some(1_000)), stock(99, 105), 0).after, 99);
    }

    #[test]
    fn last_is_zero_at_first_then_what_came_since() {
        let mut clients = Clients::new(BASELINES_MAX);
        let mut answer = clients.begin(&fetch(None), stock(99, 99), 0);
        assert_eq!(answer.open(&row(1, 10)).sent, 0);
        clients.finish(answer, 99, 0);
        let mut answer = clients.begin(&fetch(None), stock(99, 102), 0);
        assert_eq!(answer.open(&row(1, 15)).sent, 5);
        assert_eq!(answer.open(&row(2, 4)).sent, 4);
        // It ended after it was read alive; and one that opened and ended in between.
        assert_eq!(answer.ended(100, &row(2, 9)).sent, 5);
        assert_eq!(answer.ended(101, &row(3, 8)).sent, 8);
        clients.finish(answer, 102, 0);
    }

    #[test]
    fn a_repeated_ended_row_has_nothing_new() {
        let mut clients = Clients::new(BASELINES_MAX);
        let answer = clients.begin(&fetch(Some(99)), stock(99, 99), 0);
        clients.finish(answer, 99, 0);
        let mut answer = clients.begin(&fetch(Some(99)), stock(99, 100), 0);
        assert_eq!(answer.ended(100, &row(3, 8)).sent, 8);
        clients.finish(answer, 100, 0);
        let mut answer = clients.begin(&fetch(Some(99)), stock(99, 100), 0);
        assert_eq!(answer.ended(100, &row(3, 8)).sent, 0);
    }

    #[test]
    fn a_translation_is_told_in_two_replies_that_came_through() {
        let mut clients = Clients::new(BASELINES_MAX);
        // Cursor acknowledged, ended rows so far, translations so far; what is told, and what all have.
        for (ack, head, translations, after, settled) in [
            (99, 100, 5, 0, 0),
            (100, 101, 7, 0, 5),
            (101, 102, 8, 5, 7),
            // The reply before was lost.
            (101, 102, 9, 7, 7),
            (102, 102, 9, 7, 9),
            (102, 102, 9, 9, 9),
        ] {
            let answer = clients.begin(&fetch(Some(ack)), stock(99, head), 0);
            assert_eq!(answer.translations_after, after);
            clients.finish(answer, head, translations);
            assert_eq!(clients.translations_settled(), Some(settled));
        }
    }

    #[test]
    fn clients_are_bounded_and_expire() {
        let mut clients = Clients::new(BASELINES_MAX);
        for number in 0..=CLIENTS_MAX as u64 {
            clients.begin(&Fetch { id: number.to_string(), ..fetch(None) }, stock(99, 99), number);
        }
        assert_eq!((clients.len(), clients.take_evicted()), (CLIENTS_MAX, 1));
        clients.expire(EXPIRY_NS + 2);
        assert_eq!(clients.len(), CLIENTS_MAX - 2);
    }

    #[test]
    fn who_acknowledges_is_kept_across_a_restart() {
        let mut clients = Clients::new(BASELINES_MAX);
        clients.begin(&fetch(Some(100)), stock(99, 105), 5);
        clients.begin(&Fetch { id: "looks".to_owned(), ..fetch(None) }, stock(99, 105), 5);
        let mut next = Clients::new(BASELINES_MAX);
        next.restore(clients.keep());
        assert_eq!((next.len(), next.settled()), (1, Some(100)));
        let mut answer = next.begin(&fetch(Some(100)), stock(99, 105), 6);
        assert_eq!(answer.open(&row(1, 10)).sent, 0, "what was told before the restart is not known");
    }

    #[test]
    fn what_was_let_go_is_counted_once_and_only_for_a_cursor_of_this_run() {
        let mut clients = Clients::new(BASELINES_MAX);
        let mut let_go = |run, ack, forced| {
            let fetch = Fetch { run, ..fetch(Some(ack)) };
            clients.begin(&fetch, Stock { forced, ..stock(50, 90) }, 0).let_go
        };
        assert_eq!(let_go(Some(1), 30, 0), 20);
        // Those up to 45 were counted when the journal was full.
        assert_eq!(let_go(Some(1), 30, 45), 5);
        assert_eq!(let_go(Some(1), 50, 0), 0);
        assert_eq!((let_go(Some(2), 30, 0), let_go(None, 30, 0)), (0, 0));
    }

    #[test]
    fn baselines_are_bounded_over_all_clients_and_none_are_kept_for_who_wants_totals_only() {
        let mut clients = Clients::new(3);
        let mut ask = |id: &str, last| {
            let fetch = Fetch { id: id.to_owned(), last, ..fetch(None) };
            let mut answer = clients.begin(&fetch, stock(99, 99), 0);
            for cookie in 0..2 {
                answer.open(&row(cookie, 1));
            }
            let capped = answer.capped;
            clients.finish(answer, 99, 0);
            capped
        };
        assert_eq!(ask("lean", Wants::TotalsOnly), 0);
        assert_eq!((ask("a", Wants::Last), ask("b", Wants::Last), ask("a", Wants::Last)), (0, 1, 0));
        assert_eq!(ask("lean", Wants::TotalsOnly), 0);
    }
}
