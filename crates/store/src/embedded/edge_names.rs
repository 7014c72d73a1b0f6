//! What edges are called, by their dense ids: kept from question to question. An id is never given twice, and what it stands
//! for never changes, so that nothing of it grows old.

use super::catalogue::SettledEdges;
use crate::error::StoreError;
use crate::settled::{Fate, SettledEdge};
use rusqlite::Connection;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use weir_model::{Endpoint, Protocol};

/// Edges that are kept: some 30 MB.
const KEPT_MAX: usize = 50_000;

/// What an id stands for.
#[derive(Debug)]
pub(super) struct EdgeName {
    pub(super) client: Arc<Endpoint>,
    pub(super) server: Arc<Endpoint>,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    /// `None`: settled by a build that kept no more than the above.
    pub(super) settled: Option<(Arc<SettledEdge>, Fate)>,
}

/// The edges that were asked for last.
#[derive(Debug, Default)]
pub(super) struct EdgeNames {
    kept: Mutex<HashMap<u64, Arc<EdgeName>>>,
}

impl EdgeNames {
    /// What `edges` are called, in their order: what is not kept is read.
    pub(super) fn of(&self, connection: &Connection, edges: &[u64]) -> Result<Vec<Arc<EdgeName>>, StoreError> {
        let mut names: Vec<Option<Arc<EdgeName>>> = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            edges.iter().map(|edge| kept.get(edge).cloned()).collect()
        };
        let mut settled = SettledEdges::default();
        let mut read = Vec::new();
        for (edge, name) in edges.iter().zip(&mut names).filter(|(_, name)| name.is_none()) {
            let found = Arc::new(find(connection, *edge, &mut settled)?);
            read.push((*edge, Arc::clone(&found)));
            *name = Some(found);
        }
        if !read.is_empty() {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() + read.len() > KEPT_MAX {
                kept.clear();
            }
            kept.extend(read.into_iter().take(KEPT_MAX));
        }
        Ok(names.into_iter().flatten().collect())
    }
}

fn find(connection: &Connection, edge: u64, settled: &mut SettledEdges) -> Result<EdgeName, StoreError> {
    let sql = || StoreError::sql("name the edges");
    let mut statement = connection
        .prepare_cached(
            "SELECT c.kind, c.namespace, c.name, s.kind, s.namespace, s.name, e.protocol, e.port, e.settled FROM edges e
             JOIN endpoints c ON c.id = e.client JOIN endpoints s ON s.id = e.server WHERE e.id = ?1",
        )
        .map_err(sql())?;
    let (name, text) = statement
        .query_row([edge as i64], |row| {
            let end = |at: usize| -> rusqlite::Result<Endpoint> {
                Ok(Endpoint { kind: row.get(at)?, namespace: row.get(at + 1)?, name: row.get(at + 2)? })
            };
            let protocol = if row.get::<_, i64>(6)? == 0 { Protocol::Tcp } else { Protocol::Udp };
            let name =
                EdgeName { client: end(0)?.into(), server: end(3)?.into(), protocol, port: row.get(7)?, settled: None };
            Ok((name, row.get::<_, String>(8)?))
        })
        .map_err(sql())?;
    Ok(EdgeName { settled: settled.read(connection, &text, name.port)?, ..name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::schema;

    #[test]
    fn no_more_are_kept_than_the_cap_and_all_have_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let mut connection = schema::connect(&path).unwrap();
        schema::migrate(&mut connection, &path).unwrap();
        let edges = KEPT_MAX as u64 + 10;
        let step = connection.transaction().unwrap();
        step.execute_batch(
            "INSERT INTO endpoints (id, kind, namespace, name) VALUES (1, 'pod', 'shop', 'a'), (2, 'pod', 'shop', 'b')",
        )
        .unwrap();
        let insert = "INSERT INTO edges (id, client, server, protocol, port, used) VALUES (?1, 1, 2, 0, ?1, 0)";
        for edge in 1..=edges {
            step.prepare_cached(insert).unwrap().execute([edge as i64]).unwrap();
        }
        step.commit().unwrap();
        let names = EdgeNames::default();
        let kept = || names.kept.lock().unwrap().len();
        let all: Vec<u64> = (1..=edges).collect();
        for asked in [&all[..3], &all[..], &all[2..5]] {
            let found = names.of(&connection, asked).unwrap();
            let ports: Vec<u64> = found.iter().map(|name| name.port.into()).collect();
            assert_eq!(ports, asked);
            assert!(found.iter().all(|name| name.server.name == "b"));
            assert!((1..=KEPT_MAX).contains(&kept()), "{}", kept());
        }
    }
}
