//! The contract of a [`SharedState`]: what every backend promises, whatever it is made of.

use super::{FACTS_MAX, fact, transaction, unusual};
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_model::{Bytes, ConnectionId, Fact, UnixNanos};
use weir_store::embedded::Embedded;
use weir_store::shared::{FactRow, Forgotten, Joined, SharedChanges, SharedRow, SharedState, TransactionRow};
use weir_store::{Retention, StateChanges, StateStore as _, StoreError, Transaction};

/// How a backend is made for the suite. Dropping the place removes all that was started for it.
pub(crate) trait Place {
    /// Opens it: at first empty, then what was left.
    fn open(&self) -> Result<Arc<dyn SharedState>, StoreError>;
    /// Writes into it what a newer build would have: its next format.
    fn raise_format(&self);
    /// Opens it with a wrong password or token; `None` where it has no credentials.
    fn open_with_wrong_credentials(&self) -> Option<Result<Arc<dyn SharedState>, StoreError>>;
    /// The largest row that it takes, bytes; `None` where only the disk limits it.
    fn row_bytes_max(&self) -> Option<usize>;
    /// How many rows the suite writes where it wants many.
    fn many(&self) -> u64;
}

/// Everything in it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct All {
    pub(crate) transactions: BTreeMap<ConnectionId, Transaction>,
    pub(crate) facts: BTreeMap<FactRow, Fact>,
    pub(crate) counters: BTreeMap<String, u64>,
}

/// As a reader reads: rows that come more than once are merged.
pub(crate) fn all(shared: &dyn SharedState) -> All {
    let mut all = All::default();
    shared
        .read(&mut |row| {
            match row {
                SharedRow::Transaction(row) => {
                    let merged = match all.transactions.remove(&row.id()) {
                        Some(earlier) => row.merge(earlier),
                        None => *row,
                    };
                    all.transactions.insert(merged.id(), merged);
                }
                SharedRow::Fact(fact) => {
                    all.facts.insert(FactRow::from(&*fact), *fact);
                }
                SharedRow::Counter(name, value) => {
                    all.counters.insert(name, value);
                }
            }
            Ok(())
        })
        .unwrap();
    all
}

fn merge(shared: &dyn SharedState, transactions: Vec<Transaction>, facts: Vec<Fact>) {
    let changes = SharedChanges { transactions, facts, ..SharedChanges::default() };
    assert_eq!(shared.merge(&changes).unwrap(), 0, "no row is too large");
}

/// The whole suite; `fresh` makes a new, empty place.
pub(crate) fn shared<P: Place>(fresh: impl Fn() -> P) {
    rows_come_back_as_they_were_and_survive_a_restart(&fresh());
    any_order_repetition_and_split_gives_one_state(&fresh);
    many_rows_are_read_page_by_page(&fresh());
    of_two_writers_nothing_is_lost(&fresh());
    what_is_forgotten_is_gone_and_may_be_forgotten_again(&fresh());
    a_row_that_is_too_large_is_told_and_holds_nothing_up(&fresh());
    a_failing_visitor_ends_the_reading(&fresh());
    a_newer_format_is_refused(&fresh());
    wrong_credentials_are_refused(&fresh());
    a_new_folder_takes_over_what_is_shared(&fresh());
    the_joined_store_keeps_the_contract_of_state(&fresh());
}

fn rows_come_back_as_they_were_and_survive_a_restart<P: Place>(place: &P) {
    let mut rows = unusual();
    rows.push(transaction(1, 100));
    rows.push(super::closed(2, 100, 99));
    let facts = vec![
        fact("x", 5, "a name / with: \"everything\" ünd ☂", None),
        Fact {
            addresses: Vec::new(),
            namespace: String::new(),
            attributes: BTreeMap::new(),
            ..fact("y", 6, "", Some(9))
        },
        Fact { addresses: vec!["fd00::1".into(), "10.0.0.9".into()], ..fact("z", i64::MAX, "z", Some(i64::MAX)) },
    ];
    let counters = BTreeMap::from([("transactions_evicted".to_owned(), 7)]);
    let changes = SharedChanges { transactions: rows.clone(), facts: facts.clone(), counters };
    let expected = {
        let shared = place.open().unwrap();
        assert_eq!(all(&*shared), All::default());
        shared.merge(&changes).unwrap();
        all(&*shared)
    };
    assert_eq!(expected.transactions.into_values().collect::<Vec<_>>(), {
        rows.sort_by_key(Transaction::id);
        rows
    });
    assert_eq!(expected.facts.into_values().collect::<std::collections::BTreeSet<_>>(), facts.into_iter().collect());
    let again = place.open().unwrap();
    assert_eq!(all(&*again).counters["transactions_evicted"], 7);
    assert_eq!(all(&*again).transactions.len(), 4);
    // An older counter and an older reading change nothing.
    let before = all(&*again);
    let counters = BTreeMap::from([("transactions_evicted".to_owned(), 3)]);
    again.merge(&SharedChanges { counters, ..changes }).unwrap();
    assert_eq!(all(&*again), before);
}

fn any_order_repetition_and_split_gives_one_state<P: Place>(fresh: &impl Fn() -> P) {
    let reading = |cookie: u64, step: u64| {
        let mut row = transaction(cookie, 100 + step as i64);
        row.totals.sent = Bytes(step * 10);
        row.totals.recv = Bytes(1000 - step);
        row.before.sent = Bytes(5 + step % 3);
        row
    };
    let readings: Vec<Transaction> = (0..4).flat_map(|step| (0..6).map(move |cookie| reading(cookie, step))).collect();
    let sayings: Vec<Fact> =
        (0..4).flat_map(|said| (0..3).map(move |id| fact(&id.to_string(), said, &format!("n{said}"), None))).collect();
    let mut states = Vec::new();
    for (seed, split) in [(1_usize, 24), (7, 5), (11, 1)] {
        let place = fresh();
        let shared = place.open().unwrap();
        // Coprime to 24 and 12: a permutation; the first third comes twice.
        let rows: Vec<Transaction> = (0..32).map(|index| readings[index * seed % 24].clone()).collect();
        let facts: Vec<Fact> = (0..16).map(|index| sayings[index * seed % 12].clone()).collect();
        for part in rows.chunks(split) {
            merge(&*shared, part.to_vec(), Vec::new());
        }
        for part in facts.chunks(split) {
            merge(&*shared, Vec::new(), part.to_vec());
        }
        states.push(all(&*shared));
    }
    assert_eq!(states[0].transactions.len(), 6);
    let row = states[0].transactions.values().next().unwrap();
    assert_eq!((row.totals.sent, row.totals.recv, row.before.sent), (Bytes(30), Bytes(1000), Bytes(5)));
    assert!(states[0].facts.values().all(|fact| fact.name == "n3"));
    assert_eq!(states[0], states[1]);
    assert_eq!(states[0], states[2]);
}

fn many_rows_are_read_page_by_page<P: Place>(place: &P) {
    let shared = place.open().unwrap();
    let rows: Vec<Transaction> = (0..place.many()).map(|cookie| transaction(cookie, 100)).collect();
    merge(&*shared, rows.clone(), Vec::new());
    let found = all(&*shared);
    assert_eq!(found.transactions.len() as u64, place.many());
    assert_eq!(found.transactions[&rows[0].id()], rows[0]);
}

/// Two threads raise different fields of the same rows: read-merge-write without a lock would lose some.
fn of_two_writers_nothing_is_lost<P: Place>(place: &P) {
    const ROWS: u64 = 20;
    const STEPS: u64 = 10;
    let shared = place.open().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..2_u64 {
            let shared = &shared;
            scope.spawn(move || {
                for step in 1..=STEPS {
                    let raised = |cookie| {
                        let mut row = transaction(cookie, 100);
                        row.totals.sent = Bytes(if writer == 0 { step } else { 0 });
                        row.totals.recv = Bytes(if writer == 1 { step } else { 0 });
                        row
                    };
                    merge(&**shared, (0..ROWS).map(raised).collect(), Vec::new());
                }
            });
        }
    });
    let found = all(&*shared);
    assert_eq!(found.transactions.len() as u64, ROWS);
    for row in found.transactions.values() {
        assert_eq!((row.totals.sent, row.totals.recv), (Bytes(STEPS), Bytes(STEPS)));
    }
}

fn what_is_forgotten_is_gone_and_may_be_forgotten_again<P: Place>(place: &P) {
    let shared = place.open().unwrap();
    let rows: Vec<Transaction> = (0..300).map(|cookie| transaction(cookie, 100)).collect();
    let facts: Vec<Fact> = (0..3).map(|id| fact(&id.to_string(), 5, "n", None)).collect();
    merge(&*shared, rows.clone(), facts.clone());
    let gone = Forgotten {
        transactions: rows[..299].iter().map(TransactionRow::from).collect(),
        facts: facts[..2].iter().map(FactRow::from).collect(),
    };
    for _ in 0..2 {
        shared.forget(&gone).unwrap();
        let left = all(&*shared);
        assert_eq!(left.transactions.into_values().collect::<Vec<_>>(), rows[299..]);
        assert_eq!(left.facts.into_values().collect::<Vec<_>>(), facts[2..]);
    }
    // What comes again after it was forgotten is there again.
    merge(&*shared, rows[..1].to_vec(), Vec::new());
    assert_eq!(all(&*shared).transactions.len(), 2);
    shared.tidy().unwrap();
    assert_eq!(all(&*shared).transactions.len(), 2);
}

fn a_row_that_is_too_large_is_told_and_holds_nothing_up<P: Place>(place: &P) {
    let Some(max) = place.row_bytes_max() else { return };
    let shared = place.open().unwrap();
    let large = Fact { name: "n".repeat(max + 1), ..fact("large", 5, "", None) };
    let rows = vec![transaction(1, 100)];
    let changes = SharedChanges {
        transactions: rows,
        facts: vec![large, fact("small", 5, "n", None)],
        ..SharedChanges::default()
    };
    assert_eq!(shared.merge(&changes).unwrap(), 1);
    let found = all(&*shared);
    assert_eq!((found.transactions.len(), found.facts.len()), (1, 1));
}

fn a_failing_visitor_ends_the_reading<P: Place>(place: &P) {
    let shared = place.open().unwrap();
    merge(&*shared, (0..5).map(|cookie| transaction(cookie, 100)).collect(), Vec::new());
    let mut rows = 0;
    let outcome = shared.read(&mut |_| {
        rows += 1;
        Err(StoreError::Corrupt { what: "the test", text: "enough".into() })
    });
    assert!(matches!(outcome, Err(StoreError::Corrupt { what: "the test", .. })), "{outcome:?}");
    assert_eq!(rows, 1);
}

fn a_newer_format_is_refused<P: Place>(place: &P) {
    let shared = place.open().unwrap();
    merge(&*shared, vec![transaction(1, 100)], Vec::new());
    drop(shared);
    place.raise_format();
    let error = place.open().map(drop).unwrap_err();
    assert!(matches!(error, StoreError::TooNew { .. }), "{error}");
}

fn wrong_credentials_are_refused<P: Place>(place: &P) {
    drop(place.open().unwrap());
    let Some(outcome) = place.open_with_wrong_credentials() else { return };
    let error = outcome.map(drop).unwrap_err();
    let StoreError::Remote { text, .. } = &error else { panic!("{error}") };
    assert!(text.contains("password") || text.contains("token"), "it says what to mend: {text}");
}

fn joined<P: Place>(place: &P, folder: &std::path::Path) -> Joined {
    Joined::open(Arc::new(Embedded::open(folder).unwrap()), place.open().unwrap()).unwrap()
}

fn a_new_folder_takes_over_what_is_shared<P: Place>(place: &P) {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let moving = |said: i64, address: &str| Fact { addresses: vec![address.into()], ..fact("pod", said, "n", None) };
    {
        // What a folder had before it was joined comes along.
        let alone = Embedded::open(folders[0].path()).unwrap();
        alone.apply(&StateChanges { transactions: vec![transaction(1, 100)], ..StateChanges::default() }).unwrap();
    }
    {
        let store = joined(place, folders[0].path());
        let changes = StateChanges { transactions: vec![super::closed(2, 100, 90)], ..StateChanges::default() };
        store.apply(&changes).unwrap();
        for fact in [moving(1, "10.0.0.1"), moving(2, "10.0.0.2"), moving(1, "10.0.0.1")] {
            store.apply(&StateChanges { facts: vec![fact], ..StateChanges::default() }).unwrap();
        }
        let found = all(&**store.shared().unwrap());
        assert_eq!(found.transactions.len(), 2);
        assert_eq!(found.facts.into_values().collect::<Vec<_>>(), [moving(2, "10.0.0.2")], "the row moved");
    }
    {
        // As a crash between the two leaves it.
        let shared = place.open().unwrap();
        merge(&*shared, Vec::new(), vec![moving(1, "10.0.0.1")]);
    }
    let store = joined(place, folders[1].path());
    let view = store.view().unwrap();
    let counters = view.counters().unwrap();
    assert_eq!((counters["transactions"], counters["facts"]), (2, 1));
    let mut facts = Vec::new();
    view.facts(&[], &mut |fact| facts.push(fact)).unwrap();
    assert_eq!(facts, [moving(2, "10.0.0.2")]);
    assert_eq!(all(&**store.shared().unwrap()).facts.len(), 1, "the row that the crash left is gone");
    drop(view);
    // What leaves one leaves the other.
    let retention = Retention {
        now: UnixNanos(1_000),
        closed_ns: 500,
        transactions_max: u64::MAX,
        facts_ns: i64::MAX,
        facts_max: FACTS_MAX,
        translations_ns: i64::MAX,
        translations_max: u64::MAX,
        reports_ns: 1_000,
        join_coverage_ns: 0,
        dns_max: 1,
        dns_names_max: 1,
    };
    assert_eq!(store.retain(&retention).unwrap().transactions_expired, 1);
    assert_eq!(store.retain(&Retention { transactions_max: 0, ..retention }).unwrap().transactions_evicted, 1);
    drop(store);
    // The first folder still has both: they are not brought back, and what was evicted is still counted.
    let store = joined(place, folders[0].path());
    let counters = store.view().unwrap().counters().unwrap();
    assert_eq!((counters["transactions"], counters["transactions_evicted"]), (0, 1));
    let found = all(&**store.shared().unwrap());
    assert_eq!((found.transactions.len(), found.counters["transactions_evicted"]), (0, 1));
    drop(store);
    // What it learns while it is alone is its own, and comes along when it is joined again.
    {
        let alone = Joined::alone(Arc::new(Embedded::open(folders[0].path()).unwrap())).unwrap();
        alone.apply(&StateChanges { transactions: vec![transaction(3, 100)], ..StateChanges::default() }).unwrap();
    }
    let store = joined(place, folders[0].path());
    assert_eq!(all(&**store.shared().unwrap()).transactions.len(), 1);
    assert_eq!(store.view().unwrap().counters().unwrap()["transactions"], 1);
}

fn the_joined_store_keeps_the_contract_of_state<P: Place>(place: &P) {
    let folder = tempfile::tempdir().unwrap();
    super::state(|| joined(place, folder.path()));
}
