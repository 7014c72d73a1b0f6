//! The processes of the polls, and what they tell as metadata: themselves, their containers and pods.
//!
//! What a cgroup path says of containers and pods is compared like every other source's reading
//! ([`crate::metadata::told`]); processes are compared by the inventory that names sockets' owners.

use crate::metadata::unknown::Unknown;
use crate::metadata::{Shared, Told};
use std::collections::{BTreeMap, HashMap, HashSet};
use weir_daemon::clock::Clock;
use weir_discovery::said::{Health, Said};
use weir_discovery::source::Reading;
use weir_inventory::{Limits, ProcessFact, Processes, cgroup};
use weir_model::fact::{attribute, kind, source};
use weir_model::{MonotonicNanos, UnixNanos};

/// What a reading of processes lists whole. Processes themselves are told one by one.
const KINDS: &[&str] = &[kind::CONTAINER, kind::POD];
/// Who reads processes: at one time one of them.
const READERS: &[&str] = &[source::TRACER, source::PROC];

/// The processes, and what of everything the server has not been told.
#[derive(Debug)]
pub struct Facts {
    processes: Processes,
    shared: Shared,
    unknown: Unknown,
    /// Network namespaces of the last snapshot.
    namespaces: HashSet<u32>,
    /// Containers and pods of the last snapshot.
    places: Vec<(&'static str, Box<str>)>,
    /// Who has been read in this run.
    begun: HashSet<&'static str>,
}

/// A local end that a poll showed: a container, a pod's cgroup, a network namespace.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The container's id, empty none.
    pub container: &'a str,
    /// The cgroup's path, empty unknown.
    pub cgroup_path: &'a str,
    /// The network namespace's inode, 0 unknown.
    pub netns: u32,
}

impl Facts {
    /// No processes yet; what is told goes to `shared`.
    pub fn new(shared: Shared) -> Self {
        Self {
            processes: Processes::new(Limits::default()),
            shared,
            unknown: Unknown::default(),
            namespaces: HashSet::new(),
            places: Vec::new(),
            begun: HashSet::new(),
        }
    }

    /// Who is who.
    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    /// Everything that was told.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Takes a snapshot of the processes, made at `at` by `reader` (`tracer` or `proc`). Answers how many processes
    /// were beyond the bound.
    pub fn observe(
        &mut self,
        at: MonotonicNanos,
        snapshot: Vec<ProcessFact>,
        reader: &'static str,
        clock: &dyn Clock,
    ) -> u64 {
        let now = clock.to_wall(at).0;
        self.namespaces = snapshot.iter().map(|fact| fact.netns).collect();
        let things = containers_and_pods(&snapshot, clock);
        self.places = things.iter().map(|said| (said.kind, said.id.as_str().into())).collect();
        let count = snapshot.len() as u64;
        let mut told = self.shared.lock();
        if self.begun.insert(reader) {
            let living = snapshot.iter().map(process_id).collect();
            told.end_left(reader, kind::PROCESS, &living);
        }
        let changes = self.processes.observe(at, snapshot);
        let seen = READERS.iter().map(|reader| told.seen(reader)).max().unwrap_or(0);
        for fact in &changes.gone {
            told.end_one(READERS, kind::PROCESS, &process_id(fact), seen);
        }
        for fact in &changes.new {
            told.take_one(reader, reader, now, process(fact, clock));
        }
        let reading = Reading::Whole { things, missing: String::new() };
        told.take(reader, reader, KINDS, (now, now), Ok(reading));
        told.note(reader, Health { source: reader, state: "ok", detail: String::new(), things: count }, None);
        changes.refused
    }

    /// Has the sources read at once when a poll shows something that none of them has told of: among the processes, or
    /// among the local ends of its rows.
    pub fn look_for_unknown<'a>(&mut self, ends: impl IntoIterator<Item = Shown<'a>>) {
        let told = self.shared.lock();
        if !told.anybody_names() {
            return;
        }
        let mut found: HashSet<Box<str>> = HashSet::new();
        for shown in ends {
            note_unknown(&told, &self.namespaces, shown, &mut found);
        }
        let unnamed = self.places.iter().filter(|(kind, id)| match *kind {
            kind::POD => !told.names_pod(id),
            _ => !told.names_container(id),
        });
        found.extend(unnamed.map(|(_, id)| id.clone()));
        drop(told);
        if self.unknown.note(found) {
            self.shared.wake();
        }
    }
}

fn note_unknown(told: &Told, namespaces: &HashSet<u32>, shown: Shown<'_>, found: &mut HashSet<Box<str>>) {
    if !shown.container.is_empty() && !told.names_container(shown.container) {
        found.insert(shown.container.into());
    }
    if let Some(pod) = cgroup::pod(shown.cgroup_path)
        && !told.names_pod(pod.as_str())
    {
        found.insert(pod.as_str().into());
    }
    if shown.netns != 0 && shown.container.is_empty() && !namespaces.contains(&shown.netns) {
        found.insert(format!("net:[{}]", shown.netns).into());
    }
}

/// What the cgroup paths say: of a container its pod, of both when they began at the latest and which network
/// namespace the oldest process in them has. A process that made a namespace of its own came later.
fn containers_and_pods<'a>(snapshot: &'a [ProcessFact], clock: &dyn Clock) -> Vec<Said> {
    let mut containers: HashMap<&'a str, &'a ProcessFact> = HashMap::new();
    let mut pods: HashMap<String, &'a ProcessFact> = HashMap::new();
    for fact in snapshot {
        let older = |held: &mut &'a ProcessFact| {
            if (fact.id.start, fact.id.pid) < (held.id.start, held.id.pid) {
                *held = fact;
            }
        };
        if let Some(id) = &fact.container {
            containers.entry(id.as_str()).and_modify(older).or_insert(fact);
        }
        // Only by a container's process: a runtime's monitor lies in the pod's cgroup and in the node's namespace.
        if fact.container.is_some()
            && let Some(pod) = cgroup::pod(&fact.cgroup_path)
        {
            pods.entry(pod.to_string()).and_modify(older).or_insert(fact);
        }
    }
    let said = |kind, id: String, parent, oldest: &ProcessFact| Said {
        kind,
        id,
        parent,
        netns: oldest.netns,
        from: Some(UnixNanos(clock.to_wall(oldest.id.start).0)),
        ..Said::default()
    };
    let parent = |fact: &ProcessFact| cgroup::pod(&fact.cgroup_path).map(|pod| pod.to_string()).unwrap_or_default();
    let of_containers =
        containers.into_iter().map(|(id, oldest)| said(kind::CONTAINER, id.to_owned(), parent(oldest), oldest));
    let of_pods = pods.into_iter().map(|(uid, oldest)| said(kind::POD, uid, String::new(), oldest));
    of_containers.chain(of_pods).collect()
}

fn process_id(fact: &ProcessFact) -> String {
    format!("{}@{}", fact.id.pid, fact.id.start.0)
}

fn process(fact: &ProcessFact, clock: &dyn Clock) -> Said {
    let mut attributes = BTreeMap::new();
    if !fact.cgroup_path.is_empty() {
        attributes.insert(attribute::CGROUP_PATH.to_owned(), fact.cgroup_path.to_string());
    }
    Said {
        kind: kind::PROCESS,
        id: process_id(fact),
        name: fact.name.to_string(),
        parent: fact.container.as_ref().map(ToString::to_string).unwrap_or_default(),
        netns: fact.netns,
        from: Some(clock.to_wall(fact.id.start)),
        attributes,
        ..Said::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_daemon::clock::ManualClock;
    use weir_discovery::said::Said;
    use weir_inventory::ContainerId;
    use weir_model::connection::ProcessId;

    const UID: &str = "94d6947c-3d7f-461d-9e06-17ecd60d40a4";

    fn id(letter: &str) -> String {
        letter.repeat(64)
    }

    fn process(pid: u32, start: u64, container: &str, netns: u32) -> ProcessFact {
        let id = id(container);
        ProcessFact {
            id: ProcessId { pid, start: MonotonicNanos(start) },
            name: "x".into(),
            cgroup_path: format!("/kubepods/pod{UID}/{id}").into(),
            container: ContainerId::parse(&id),
            netns,
        }
    }

    fn facts() -> Facts {
        let readers = ["kubelet", "tracer", "proc"];
        Facts::new(Shared::new(Told::restored(&readers, Vec::new(), &BTreeMap::new())))
    }

    fn told(facts: &Facts) -> Vec<String> {
        let mut told = facts.shared().lock();
        let share = told.untold();
        told.durable(share.mark);
        let mut all: Vec<String> = share
            .facts
            .iter()
            .map(|fact| {
                let id = fact.id.get(..8).unwrap_or(&fact.id);
                let over = if fact.to_unix_ns == 0 { "" } else { " over" };
                format!("{} {} {id} {}{over}", fact.source, fact.kind, fact.netns)
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_pods_namespace_is_its_oldest_containers_and_no_monitors() {
        let (mut facts, clock) = (facts(), ManualClock::new(MonotonicNanos(100), 1_000));
        let monitor = ProcessFact {
            cgroup_path: format!("/kubepods/pod{UID}/crio-conmon-{}.scope", id("b")).into(),
            container: None,
            ..process(5, 1, "b", 1)
        };
        let snapshot = vec![monitor, process(6, 2, "a", 9), process(7, 3, "b", 9), process(8, 4, "b", 77)];
        facts.observe(MonotonicNanos(50), snapshot, "tracer", &clock);
        let containers: Vec<String> = told(&facts).into_iter().filter(|fact| !fact.contains("process")).collect();
        assert_eq!(containers, ["tracer container aaaaaaaa 9", "tracer container bbbbbbbb 9", "tracer pod 94d6947c 9"]);
    }

    #[test]
    fn what_is_gone_is_ended_whoever_reads_the_processes_then() {
        let (mut facts, clock) = (facts(), ManualClock::new(MonotonicNanos(100), 1_000));
        facts.observe(MonotonicNanos(50), vec![process(6, 2, "a", 9)], "tracer", &clock);
        told(&facts);
        facts.observe(MonotonicNanos(60), vec![process(7, 55, "b", 9)], "proc", &clock);
        let news = told(&facts);
        assert!(news.contains(&"tracer process 6@2 9 over".to_owned()), "{news:?}");
        assert!(
            !news.iter().any(|fact| fact.starts_with("tracer container")),
            "the tracer said nothing of it: {news:?}"
        );
    }

    #[test]
    fn something_that_no_source_has_told_of_has_them_read_at_once() {
        let (mut facts, clock) = (facts(), ManualClock::new(MonotonicNanos(100), 1_000));
        let shared = facts.shared().clone();
        let mut woken = shared.woken();
        let mut calls = |facts: &mut Facts, ends: &[Shown<'_>]| {
            facts.look_for_unknown(ends.iter().copied());
            let called = woken.has_changed().unwrap();
            woken.mark_unchanged();
            called
        };
        facts.observe(MonotonicNanos(50), vec![process(6, 2, "a", 9)], "tracer", &clock);
        assert!(!calls(&mut facts, &[]), "nobody is there who could tell more");
        let said = |kind, id: &str| Said { kind, id: id.into(), ..Said::default() };
        let things = vec![said(kind::CONTAINER, &id("a")), said(kind::POD, UID)];
        let reading = Reading::Whole { things, missing: String::new() };
        shared.lock().take("kubelet", "kubelet", KINDS, (1, 2), Ok(reading));
        assert!(!calls(&mut facts, &[]), "all is known");
        let path = format!("/kubepods/pod{}/{}", UID.replace('9', "8"), id("c"));
        let container = id("c");
        let shown = |container, cgroup_path, netns| Shown { container, cgroup_path, netns };
        assert!(calls(&mut facts, &[shown(container.as_str(), path.as_str(), 9)]), "a container of a row");
        assert!(!calls(&mut facts, &[shown("", "", 9)]));
        assert!(calls(&mut facts, &[shown("", path.as_str(), 9)]), "a pod of a row");
        assert!(calls(&mut facts, &[shown("", "", 10)]), "a namespace of a row");
        facts.observe(MonotonicNanos(60), vec![process(6, 2, "a", 9), process(9, 55, "d", 9)], "tracer", &clock);
        assert!(calls(&mut facts, &[]), "a container of a process");
    }
}
