//! Metadata facts: what the node, its processes and its containers are, told once and again when they change.
//!
//! Two snapshots say what is new and what is gone; facts wait here, bounded, until a batch with them is durable. A new
//! run of the agent tells everything again: a fact repeated is the same fact.

use std::collections::{HashMap, HashSet, VecDeque};
use weir_daemon::clock::Clock;
use weir_discovery::node::NodeFacts;
use weir_inventory::{ContainerId, Limits, ProcessFact, Processes, cgroup};
use weir_model::MonotonicNanos;
use weir_wire::agent::MetadataFact;

/// Facts of one batch: about 200 B each, so 1 MB.
const MAX_FACTS: usize = 5_000;
/// Facts that wait: a node's whole process table some times over.
const MAX_WAITING: usize = 100_000;

/// The processes, and what of everything the server has not been told.
#[derive(Debug)]
pub struct Facts {
    processes: Processes,
    waiting: VecDeque<MetadataFact>,
    /// Containers with living processes: their first fact.
    containers: HashMap<ContainerId, MetadataFact>,
    dropped: u64,
    boot_id: [u8; 16],
}

impl Facts {
    /// Facts that begin with the node's own.
    pub fn new(node: &NodeFacts, name: &str, at: i64) -> Self {
        let mut facts = Self {
            processes: Processes::new(Limits::default()),
            waiting: VecDeque::new(),
            containers: HashMap::new(),
            dropped: 0,
            boot_id: node.boot_id,
        };
        facts.wait(MetadataFact {
            kind: "node".into(),
            source: "proc".into(),
            id: name.into(),
            addresses: node.addresses.iter().map(ToString::to_string).collect(),
            name: name.into(),
            from_unix_ns: at,
            attributes: [
                ("host_name".to_owned(), node.name.clone()),
                ("kernel".to_owned(), node.kernel.clone()),
                ("boot_id".to_owned(), crate::spool::folder::hex(&facts.boot_id)),
            ]
            .into(),
            ..MetadataFact::default()
        });
        facts
    }

    /// Who is who.
    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    /// Takes a snapshot of the processes, made at `at` by `source` (`tracer` or `proc`).
    pub fn observe(&mut self, at: MonotonicNanos, snapshot: Vec<ProcessFact>, source: &str, clock: &dyn Clock) {
        let now = clock.to_wall(at).0;
        let living: HashSet<ContainerId> = snapshot.iter().filter_map(|fact| fact.container.clone()).collect();
        let changes = self.processes.observe(at, snapshot);
        self.dropped += changes.refused;
        for fact in &changes.gone {
            self.wait(process(fact, source, clock, now));
        }
        for fact in &changes.new {
            self.wait(process(fact, source, clock, 0));
            if let Some(id) = &fact.container
                && !self.containers.contains_key(id)
            {
                let fact = container(id, &fact.cgroup_path, source, now);
                self.containers.insert(id.clone(), fact.clone());
                self.wait(fact);
            }
        }
        let gone: Vec<ContainerId> = self.containers.keys().filter(|id| !living.contains(*id)).cloned().collect();
        for fact in gone.into_iter().filter_map(|id| self.containers.remove(&id)).collect::<Vec<_>>() {
            self.wait(MetadataFact { to_unix_ns: now, ..fact });
        }
    }

    /// The facts for the next batch.
    pub fn untold(&mut self) -> &[MetadataFact] {
        let count = self.waiting.len().min(MAX_FACTS);
        &self.waiting.make_contiguous()[..count]
    }

    /// The first `count` facts are durable.
    pub fn told(&mut self, count: usize) {
        self.waiting.drain(..count.min(self.waiting.len()));
    }

    /// Facts dropped since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    fn wait(&mut self, fact: MetadataFact) {
        if self.waiting.len() >= MAX_WAITING {
            self.dropped += 1;
            return;
        }
        self.waiting.push_back(fact);
    }
}

fn process(fact: &ProcessFact, source: &str, clock: &dyn Clock, to: i64) -> MetadataFact {
    let mut attributes = HashMap::new();
    if !fact.cgroup_path.is_empty() {
        attributes.insert("cgroup_path".to_owned(), fact.cgroup_path.to_string());
    }
    MetadataFact {
        kind: "process".into(),
        source: source.into(),
        id: format!("{}@{}", fact.id.pid, fact.id.start.0),
        name: fact.name.to_string(),
        parent: fact.container.as_ref().map(ToString::to_string).unwrap_or_default(),
        netns: fact.netns,
        from_unix_ns: clock.to_wall(fact.id.start).0,
        to_unix_ns: to,
        attributes,
        ..MetadataFact::default()
    }
}

fn container(id: &ContainerId, cgroup_path: &str, source: &str, from: i64) -> MetadataFact {
    MetadataFact {
        kind: "container".into(),
        source: source.into(),
        id: id.to_string(),
        parent: cgroup::pod(cgroup_path).map(|pod| pod.to_string()).unwrap_or_default(),
        from_unix_ns: from,
        ..MetadataFact::default()
    }
}
