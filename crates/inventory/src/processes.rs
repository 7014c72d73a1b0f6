//! Processes over time, and the local end of a socket by them.
//!
//! Each snapshot of the node's processes is compared with the one before: what is new begins an interval, what is gone
//! ends one and stays as a tombstone for a while, since rows of closed connections come later than their owner's end.

use crate::cgroup::{self, ContainerId};
use std::collections::{HashMap, VecDeque};
use weir_model::connection::ProcessId;
use weir_model::{Certainty, MonotonicNanos};

/// What is known of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessFact {
    /// Pid and start, which together are never used again within a boot.
    pub id: ProcessId,
    /// `comm`.
    pub name: Box<str>,
    /// Its cgroup's path, empty when unknown.
    pub cgroup_path: Box<str>,
    /// The container in that path.
    pub container: Option<ContainerId>,
    /// Its network namespace's inode, 0 unknown.
    pub netns: u32,
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Living processes: `kernel.pid_max` is 32,768 on small machines and 4,194,304 at most; a node with more than
    /// this many is none that weir knows.
    pub processes: usize,
    /// Processes that ended.
    pub tombstones: usize,
    /// How long an ended process is kept, nanoseconds: the rows of its connections come within a few polls.
    pub retention: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { processes: 131_072, tombstones: 65_536, retention: 300_000_000_000 }
    }
}

/// What a snapshot changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Processes that are new, or known before with another name, cgroup or namespace.
    pub new: Vec<ProcessFact>,
    /// Processes that are gone.
    pub gone: Vec<ProcessFact>,
    /// Processes of the snapshot that were beyond the limit and are not known.
    pub refused: u64,
}

/// How a local end was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The cgroup that the socket was created in.
    Cgroup,
    /// The only container in the socket's network namespace.
    Netns,
    /// The owner, by pid and start.
    Process,
    /// Nothing.
    Unknown,
}

/// What a feed's row says about its own end.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketView<'a> {
    /// The owner, 0 unknown.
    pub pid: u32,
    /// When the owner started, nanoseconds since boot, 0 unknown.
    pub process_start: u64,
    /// The network namespace's inode, 0 unknown.
    pub netns: u32,
    /// The path of the cgroup that the socket was created in.
    pub cgroup_path: Option<&'a str>,
    /// The container id, as the tracer read it from the path.
    pub container_id: Option<&'a str>,
    /// When the owner was seen to hold the socket: the row's last change, or the connection's start.
    pub at: MonotonicNanos,
}

/// Who a local end is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalIdentity {
    /// The owner.
    pub process: Option<ProcessFact>,
    /// The container.
    pub container: Option<ContainerId>,
    /// How the container was found, or the process where there is no container.
    pub basis: Basis,
    /// How sure the naming is.
    pub certainty: Certainty,
}

#[derive(Clone, Debug)]
struct Held {
    fact: ProcessFact,
    /// The last snapshot that it was in.
    last_seen: MonotonicNanos,
    /// The first snapshot that it was not in.
    gone: Option<MonotonicNanos>,
}

#[derive(Clone, Debug)]
struct Holder {
    /// The only container in the namespace; `None` when there are several, or processes outside any.
    only: Option<ContainerId>,
    /// When its oldest process started.
    since: MonotonicNanos,
}

/// Everything known about the node's processes. One writer.
#[derive(Debug)]
pub struct Processes {
    limits: Limits,
    /// By pid, oldest first; all but the last are gone.
    by_pid: HashMap<u32, Vec<Held>>,
    living: usize,
    /// Ended processes in the order of their end.
    tombstones: VecDeque<(MonotonicNanos, ProcessId)>,
    namespaces: HashMap<u32, Holder>,
    /// The last snapshot.
    newest: MonotonicNanos,
}

impl Processes {
    /// Processes of which nothing is known yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            by_pid: HashMap::new(),
            living: 0,
            tombstones: VecDeque::new(),
            namespaces: HashMap::new(),
            newest: MonotonicNanos(0),
        }
    }

    /// Living processes that are known.
    pub fn living(&self) -> usize {
        self.living
    }

    /// Ended processes that are still known.
    pub fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    /// Takes a snapshot of every process, made at `at`.
    pub fn observe(&mut self, at: MonotonicNanos, snapshot: Vec<ProcessFact>) -> Changes {
        let mut changes = Changes::default();
        self.newest = at;
        self.namespaces.clear();
        for fact in snapshot {
            self.note_namespace(&fact);
            self.take(at, fact, &mut changes);
        }
        for held in self.by_pid.values_mut().filter_map(|holders| holders.last_mut()) {
            if held.gone.is_none() && held.last_seen < at {
                held.gone = Some(at);
                self.living -= 1;
                self.tombstones.push_back((at, held.fact.id));
                changes.gone.push(held.fact.clone());
            }
        }
        self.forget(at);
        changes
    }

    /// Who holds a socket that looks like `view` (R6): its cgroup at creation, else the only container in its network
    /// namespace, else its process.
    pub fn local_end(&self, view: &SocketView<'_>) -> LocalIdentity {
        let process = self.process(view).cloned();
        let told =
            view.container_id.and_then(ContainerId::parse).or_else(|| view.cgroup_path.and_then(cgroup::container));
        if let Some(container) = told {
            return LocalIdentity {
                process,
                container: Some(container),
                basis: Basis::Cgroup,
                certainty: Certainty::Known,
            };
        }
        // A path that names something but no container says that the socket is in none.
        if view.cgroup_path.is_some_and(|path| !matches!(path, "" | "/")) {
            return LocalIdentity { process, container: None, basis: Basis::Cgroup, certainty: Certainty::Known };
        }
        // What holds the inode now may be another namespace than what held it before, or will hold it later.
        let held = |holder: &&Holder| view.netns != 0 && holder.since <= view.at && view.at <= self.newest;
        let holder = self.namespaces.get(&view.netns).filter(held);
        if let Some(container) = holder.and_then(|holder| holder.only.clone()) {
            return LocalIdentity {
                process,
                container: Some(container),
                basis: Basis::Netns,
                certainty: Certainty::Inferred,
            };
        }
        let (basis, certainty) = match process {
            Some(_) => (Basis::Process, Certainty::Known),
            None => (Basis::Unknown, Certainty::Unknown),
        };
        LocalIdentity { container: process.as_ref().and_then(|fact| fact.container.clone()), process, basis, certainty }
    }

    /// The process that `view` names: the one with its start time where the row has it; else the one that held the pid
    /// at that instant for sure.
    fn process(&self, view: &SocketView<'_>) -> Option<&ProcessFact> {
        let holders = self.by_pid.get(&view.pid).filter(|_| view.pid != 0)?;
        if view.process_start != 0 {
            let wanted = ProcessId { pid: view.pid, start: MonotonicNanos(view.process_start) };
            return holders.iter().map(|held| &held.fact).find(|fact| same_process(fact.id, wanted));
        }
        // A feed of another machine, or of another boot, has times that this one has not reached.
        let held =
            holders.iter().rev().find(|held| held.fact.id.start <= view.at).filter(|_| view.at <= self.newest)?;
        // The pid of a socket in another namespace is another's: a pid of a foreign pid namespace, or one used again.
        let elsewhere = held.fact.netns != 0 && view.netns != 0 && held.fact.netns != view.netns;
        let held_then = held.gone.is_none() || view.at <= held.last_seen;
        (held_then && !elsewhere).then_some(&held.fact)
    }

    fn take(&mut self, at: MonotonicNanos, fact: ProcessFact, changes: &mut Changes) {
        let full = self.living >= self.limits.processes;
        let holders = self.by_pid.entry(fact.id.pid).or_default();
        if let Some(held) = holders.last_mut() {
            if held.gone.is_none() && same_process(held.fact.id, fact.id) {
                held.last_seen = at;
                if held.fact != fact {
                    held.fact = fact.clone();
                    changes.new.push(fact);
                }
                return;
            }
            if held.gone.is_none() {
                held.gone = Some(at);
                self.living -= 1;
                self.tombstones.push_back((at, held.fact.id));
                changes.gone.push(held.fact.clone());
            }
        }
        if full {
            changes.refused += 1;
            if holders.is_empty() {
                self.by_pid.remove(&fact.id.pid);
            }
            return;
        }
        holders.push(Held { fact: fact.clone(), last_seen: at, gone: None });
        self.living += 1;
        changes.new.push(fact);
    }

    fn note_namespace(&mut self, fact: &ProcessFact) {
        if fact.netns == 0 {
            return;
        }
        let new = || Holder { only: fact.container.clone(), since: fact.id.start };
        let holder = self.namespaces.entry(fact.netns).or_insert_with(new);
        holder.since = holder.since.min(fact.id.start);
        if holder.only != fact.container {
            holder.only = None;
        }
    }

    fn forget(&mut self, at: MonotonicNanos) {
        while let Some((gone, id)) = self.tombstones.front().copied() {
            let young = at.0.saturating_sub(gone.0) < self.limits.retention;
            if young && self.tombstones.len() <= self.limits.tombstones {
                break;
            }
            self.tombstones.pop_front();
            if let Some(holders) = self.by_pid.get_mut(&id.pid) {
                holders.retain(|held| held.gone.is_none() || held.fact.id != id);
                if holders.is_empty() {
                    self.by_pid.remove(&id.pid);
                }
            }
        }
    }
}

/// Whether two readings are of one process: `/proc` gives the start in ticks of 10 ms (`USER_HZ` is 100 on every
/// architecture that Linux supports), the kernel's structures in nanoseconds.
fn same_process(a: ProcessId, b: ProcessId) -> bool {
    a.pid == b.pid && same_start(a.start.0, b.start.0)
}

/// The same for the starts alone, nanoseconds since boot.
pub(crate) fn same_start(a: u64, b: u64) -> bool {
    const TICK: u64 = 10_000_000;
    a / TICK == b / TICK
}

#[cfg(test)]
mod tests;
