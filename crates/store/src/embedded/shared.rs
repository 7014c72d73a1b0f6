//! The folder as the copy of a shared state, and as one itself: what is new to it, what left it, and every row of it.

use super::folder::{sync_folder, write_durably};
use super::rows::{FACT_COLUMNS, TRANSACTION_COLUMNS, fact, transaction};
use super::{Embedded, writing};
use crate::error::StoreError;
use crate::shared::{FactRow, Forgotten, SharedChanges, SharedRow, SharedState, TransactionRow};
use crate::state::{Removed, Retention, StateChanges, StateStore as _, TransactionSpan};
use crate::transaction::Transaction;
use rusqlite::{OptionalExtension as _, params};
use std::collections::{BTreeMap, HashMap};
use weir_model::{ConnectionId, Fact};

impl Embedded {
    /// What `changes` would change of transactions and metadata, merged with what is stored, and the rows under which
    /// any of it lies or lay that are not the merged one's.
    pub(crate) fn news(&self, changes: &StateChanges) -> Result<(SharedChanges, Forgotten), StoreError> {
        let (mut news, mut old) = (SharedChanges::default(), Forgotten::default());
        let reader = self.reader()?;
        let sql = || StoreError::sql("read the state");
        {
            let mut find = reader
                .prepare_cached(&format!("SELECT {TRANSACTION_COLUMNS} FROM transactions WHERE id = ?1"))
                .map_err(sql())?;
            let mut readings: HashMap<ConnectionId, Transaction> = HashMap::new();
            for reading in &changes.transactions {
                let merged = match readings.remove(&reading.id()) {
                    Some(earlier) => both(earlier, reading.clone(), Transaction::merge, &mut old.transactions),
                    None => reading.clone(),
                };
                readings.insert(reading.id(), merged);
            }
            for (id, reading) in readings {
                match find.query_row(params![id.0], transaction).optional().map_err(sql())? {
                    Some(stored) => {
                        let merged = both(stored.clone(), reading, Transaction::merge, &mut old.transactions);
                        if merged != stored {
                            news.transactions.push(merged);
                        }
                    }
                    None => news.transactions.push(reading),
                }
            }
            let mut find = reader
                .prepare_cached(&format!(
                    "SELECT {FACT_COLUMNS} FROM metadata
                     WHERE node = ?1 AND source = ?2 AND kind = ?3 AND id = ?4 AND valid_from = ?5"
                ))
                .map_err(sql())?;
            let mut sayings: BTreeMap<FactRow, Fact> = BTreeMap::new();
            for said in &changes.facts {
                let key = FactRow { address: String::new(), ..FactRow::from(said) };
                let merged = match sayings.remove(&key) {
                    Some(earlier) => both(earlier, said.clone(), Fact::merge, &mut old.facts),
                    None => said.clone(),
                };
                sayings.insert(key, merged);
            }
            for (key, said) in sayings {
                let stored = find
                    .query_row(params![key.node.0, key.source, key.kind, key.id, key.from.0], fact)
                    .optional()
                    .map_err(sql())?;
                match stored {
                    Some(stored) => {
                        let merged = both(stored.clone(), said, Fact::merge, &mut old.facts);
                        if merged != stored {
                            news.facts.push(merged);
                        }
                    }
                    None => news.facts.push(said),
                }
            }
        }
        self.give_back(reader);
        Ok((news, old))
    }

    /// Of which shared state this folder's transactions and metadata are a copy.
    pub(crate) fn copy_of(&self) -> Result<Option<String>, StoreError> {
        let path = self.folder().copy_of();
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { action: "read", path, source }),
        }
    }

    /// Notes that they are, or are not.
    pub(crate) fn be_copy_of(&self, place: Option<&str>) -> Result<(), StoreError> {
        let path = self.folder().copy_of();
        match place {
            Some(place) => write_durably(&path, format!("{place}\n").as_bytes()),
            None => match std::fs::remove_file(&path) {
                Ok(()) => sync_folder(self.folder().path()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                Err(source) => Err(StoreError::Io { action: "remove", path, source }),
            },
        }
    }

    /// Removes every transaction and fact: the shared state is read anew.
    pub(crate) fn forget_shared(&self) -> Result<(), StoreError> {
        self.writer()
            .execute_batch("BEGIN IMMEDIATE; DELETE FROM transactions; DELETE FROM metadata; COMMIT")
            .map_err(StoreError::sql("forget the copy of a shared state"))
    }

    /// As `retain`, and calls `tell` with the transactions and facts that leave, before they have.
    pub(crate) fn retain_telling(
        &self,
        retention: &Retention,
        tell: &mut dyn FnMut(&Forgotten) -> Result<(), StoreError>,
    ) -> Result<Removed, StoreError> {
        writing::retain(&mut self.writer(), retention, Some(tell))
    }

    pub(crate) fn add_to_counter(&self, name: &str, count: u64) -> Result<(), StoreError> {
        writing::count(&mut self.writer(), name, count)
    }

    /// The counters that are kept, without the sizes.
    pub(crate) fn own_counters(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let sql = || StoreError::sql("read the counters");
        let reader = self.reader()?;
        let counters = {
            let mut find = reader.prepare_cached("SELECT name, value FROM counters").map_err(sql())?;
            let rows = find.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))).map_err(sql())?;
            rows.collect::<Result<_, _>>().map_err(sql())?
        };
        self.give_back(reader);
        Ok(counters)
    }
}

impl SharedState for Embedded {
    fn place(&self) -> String {
        format!("data folder {}", self.folder().path().display())
    }

    fn merge(&self, changes: &SharedChanges) -> Result<u64, StoreError> {
        let state = StateChanges {
            transactions: changes.transactions.clone(),
            facts: changes.facts.clone(),
            ..StateChanges::default()
        };
        self.apply(&state)?;
        writing::raise_counters(&mut self.writer(), &changes.counters)?;
        Ok(0)
    }

    fn forget(&self, rows: &Forgotten) -> Result<(), StoreError> {
        writing::forget(&mut self.writer(), rows)
    }

    fn read(&self, visit: &mut dyn FnMut(SharedRow) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let view = self.view()?;
        let mut outcome = Ok(());
        let mut give = |row: SharedRow| {
            if outcome.is_ok() {
                outcome = visit(row);
            }
        };
        view.transactions(TransactionSpan::default(), &mut |row| give(SharedRow::Transaction(Box::new(row))))?;
        view.facts(&[], &mut |fact| give(SharedRow::Fact(Box::new(fact))))?;
        for (name, value) in self.own_counters()? {
            give(SharedRow::Counter(name, value));
        }
        outcome
    }

    fn tidy(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }
}

/// Two versions of one row merged; the rows under which they lie go to `old` where the merged one lies elsewhere: a fact's
/// first address changes when a pod gets its own.
fn both<T: Clone, R: PartialEq + for<'a> From<&'a T>>(a: T, b: T, merge: impl Fn(T, T) -> T, old: &mut Vec<R>) -> T {
    let merged = merge(a.clone(), b.clone());
    let row = R::from(&merged);
    old.extend([R::from(&a), R::from(&b)].into_iter().filter(|other| *other != row));
    merged
}

/// The columns that [`transaction_row`] reads.
pub(super) const TRANSACTION_ROW: &str = "id, node, local_ip, local_port, remote_ip, remote_port";

pub(super) fn transaction_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<TransactionRow> {
    let tuple = weir_model::Tuple { local: super::rows::end(row, 2)?, remote: super::rows::end(row, 4)? };
    Ok(TransactionRow { id: ConnectionId(row.get(0)?), node: weir_model::NodeName(row.get(1)?), tuple })
}

pub(super) fn fact_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<FactRow> {
    fact(row).map(|fact| FactRow::from(&fact))
}
