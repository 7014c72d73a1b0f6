//! What is known of each container, what is to be inspected, and what is said. Pure.

use super::answer::{Event, Inspected, Listed, time};
use crate::collect::Collect;
use crate::said::Said;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use weir_model::UnixNanos;
use weir_model::fact::{attribute, kind};

/// Containers that are known by events alone, at most; the next list tells the rest.
const BY_EVENTS: usize = 10_000;

/// Written by kubelets that run their pods on this engine (cri-dockerd).
const POD_UID: &str = "io.kubernetes.pod.uid";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
const DOCKER_TYPE: &str = "io.kubernetes.docker.type";

/// A container in one of its lives: from a start to its end, cut where its addresses changed.
#[derive(Clone, Debug, Default)]
struct Container {
    id: String,
    name: String,
    namespace: String,
    pod: String,
    is_sandbox: bool,
    image: String,
    /// The list's word for its state when it was inspected.
    listed: String,
    /// `created`, `running` or `exited`.
    state: &'static str,
    /// Unix nanoseconds of this life's start, of its creation before the first; 0 unknown.
    started_at: i64,
    /// From when what is known is so: the start, or a later change of its addresses.
    from: i64,
    /// 0 while it runs.
    finished_at: i64,
    pid: Option<u32>,
    /// The network namespace's inode, 0 unknown.
    netns: u32,
    network: Network,
    addresses: Vec<IpAddr>,
    /// Another container had part in its network during this life.
    was_shared: bool,
    ports: String,
    collected: BTreeMap<String, String>,
    /// When one of its networks changed last, as an event told; 0 never.
    network_changed_at: i64,
    is_to_inspect: bool,
    is_inspected: bool,
    /// Lists that lack it although no event has told its end.
    missed: u8,
}

/// Whose network a container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Network {
    #[default]
    Own,
    Host,
    None,
    Of(String),
}

/// Everything that one engine has told.
#[derive(Debug)]
pub struct Known {
    collect: Arc<Collect>,
    containers: HashMap<String, Container>,
    /// What was said of lives that are over; said once more.
    gone: Vec<Said>,
    /// No stream of events is open: nothing known can be trusted for long.
    is_blind: bool,
}

impl Known {
    /// Nothing yet; `collect` is taken from what will be told.
    pub fn new(collect: Arc<Collect>) -> Self {
        Self { collect, containers: HashMap::new(), gone: Vec::new(), is_blind: true }
    }

    /// The stream of events is open; what happened before may have been missed.
    pub fn see(&mut self) {
        self.is_blind = false;
        for container in self.containers.values_mut() {
            container.is_to_inspect = true;
        }
    }

    /// The stream of events is broken.
    pub fn be_blind(&mut self) {
        self.is_blind = true;
    }

    /// Takes the list of what is there now.
    pub fn list(&mut self, listed: Vec<Listed>) {
        let there: HashSet<&str> = listed.iter().map(|listed| listed.id.as_str()).collect();
        let missing: Vec<String> = self.containers.keys().filter(|id| !there.contains(id.as_str())).cloned().collect();
        for id in missing {
            let Some(container) = self.containers.get_mut(&id) else { continue };
            container.missed += 1;
            // The event that tells its end may still be on its way.
            if self.is_blind || container.finished_at != 0 || container.missed > 1 {
                self.remove(&id);
            }
        }
        // Without an id there is nothing to inspect.
        for listed in listed.into_iter().filter(|listed| !listed.id.is_empty()) {
            let is_new = !self.containers.contains_key(&listed.id);
            let container = self.containers.entry(listed.id.clone()).or_default();
            container.id = listed.id;
            container.missed = 0;
            container.is_to_inspect |= is_new || self.is_blind || container.listed != listed.state;
            container.listed = listed.state;
        }
    }

    /// The containers that are to be inspected.
    pub fn unknown(&self) -> Vec<String> {
        let unknown = self.containers.values().filter(|container| container.is_to_inspect);
        unknown.map(|container| container.id.clone()).collect()
    }

    /// Takes what an inspection said.
    pub fn tell(&mut self, told: &Value) {
        let Ok(inspected) = serde_json::from_value::<Inspected>(told.clone()) else { return };
        let Some(old) = self.containers.get(&inspected.id) else { return };
        let mut new = Container::of(&inspected);
        self.collect.add(kind::CONTAINER, told, &mut new.collected);
        new.listed.clone_from(&old.listed);
        new.network_changed_at = old.network_changed_at;
        if !old.is_inspected {
            // Nothing but an event told of it, if that.
        } else if old.started_at == new.started_at {
            new.go_on_from(old);
            if new.from > old.from {
                self.gone.extend(old.say(Some(new.from)));
            }
        } else {
            self.gone.extend(old.say(Some(new.started_at)));
        }
        self.containers.insert(inspected.id, new);
        self.gone.truncate(BY_EVENTS);
    }

    /// It could not be inspected: it is gone, or going.
    pub fn miss(&mut self, id: &str) {
        if let Some(container) = self.containers.get_mut(id) {
            container.is_to_inspect = false;
        }
    }

    fn remove(&mut self, id: &str) {
        if let Some(old) = self.containers.remove(id) {
            self.gone.extend(old.say(None).filter(|said| said.to.is_some()));
            self.gone.truncate(BY_EVENTS);
        }
    }

    /// Takes an event. Whether it is worth to read at once: most events are about what runs inside of containers.
    pub fn happen(&mut self, event: &Event) -> bool {
        let attributes = &event.actor.attributes;
        let id = match event.kind.as_str() {
            "container" => &event.actor.id,
            "network" => match attributes.get("container") {
                Some(id) => id,
                None => return false,
            },
            _ => return false,
        };
        if id.is_empty() {
            return false;
        }
        let action = event.action.as_str();
        if event.kind == "network" {
            if let Some(container) = self.containers.get_mut(id) {
                container.network_changed_at = event.at;
                container.is_to_inspect = true;
            }
            return matches!(action, "connect" | "disconnect");
        }
        match action {
            "create" | "start" | "restart" | "rename" | "pause" | "unpause" | "update" => {
                if !self.containers.contains_key(id) && self.containers.len() >= BY_EVENTS {
                    return true;
                }
                let container = self.containers.entry(id.clone()).or_default();
                container.is_to_inspect = true;
                if container.id.is_empty() {
                    container.id.clone_from(id);
                    container.name = attributes.get("name").cloned().unwrap_or_default();
                    container.image = attributes.get("image").cloned().unwrap_or_default();
                    container.started_at = event.at;
                    container.from = event.at;
                    container.state = if action == "create" { "created" } else { "running" };
                } else if action == "start" && container.state == "created" && container.pid.is_none() {
                    container.state = "running";
                }
                true
            }
            "die" | "destroy" => {
                if let Some(container) = self.containers.get_mut(id) {
                    container.is_to_inspect = true;
                    container.state = "exited";
                    if container.finished_at == 0 {
                        container.finished_at = event.at;
                    }
                }
                if action == "destroy" {
                    self.remove(id);
                }
                true
            }
            _ => false,
        }
    }

    /// Looks the network namespaces up that are not known yet. `netns` gives 0 for what may not be read.
    pub fn find_namespaces(&mut self, netns: impl Fn(&str, u32) -> u32) {
        for container in self.containers.values_mut() {
            if let (true, Some(pid)) = (container.netns == 0 && container.network != Network::Host, container.pid) {
                container.netns = netns(&container.id, pid);
            }
        }
    }

    /// What is said: everything that is there, and the ends of what is over since the last time.
    pub fn say(&mut self) -> Vec<Said> {
        let mut shared = Vec::new();
        for container in self.containers.values() {
            if let Network::Of(owner) = &container.network {
                shared.push((owner.clone(), container.started_at, container.finished_at));
            }
        }
        for (owner, from, to) in shared {
            // By id; by name where whoever made it gave that and the engine kept it.
            let id = match self.containers.get(&owner) {
                Some(_) => Some(owner),
                None => self.containers.values().find(|other| other.name == owner).map(|other| other.id.clone()),
            };
            if let Some(owner) = id.and_then(|id| self.containers.get_mut(&id)) {
                let was_there = owner.finished_at == 0 || from < owner.finished_at;
                owner.was_shared |= was_there && (to == 0 || to > owner.started_at);
            }
        }
        let mut said = std::mem::take(&mut self.gone);
        said.extend(self.containers.values().filter_map(|container| container.say(None)));
        said.sort_by(|a, b| (&a.id, a.from).cmp(&(&b.id, b.from)));
        said
    }
}

impl Container {
    fn of(told: &Inspected) -> Self {
        let labels = &told.config.labels;
        let label = |name: &str| labels.get(name).cloned();
        let (started, finished) = (time(&told.state.started_at), time(&told.state.finished_at));
        let is_running = told.state.running && !told.state.restarting && told.state.pid != 0;
        let state = match () {
            () if is_running => "running",
            () if started == 0 => "created",
            () => "exited",
        };
        let started_at = if started == 0 { time(&told.created) } else { started };
        let mode = told.host_config.network_mode.as_str();
        let network = match mode {
            "host" => Network::Host,
            "none" => Network::None,
            _ => mode.strip_prefix("container:").map_or(Network::Own, |id| Network::Of(id.to_owned())),
        };
        Self {
            id: told.id.clone(),
            name: label(CONTAINER_NAME).unwrap_or_else(|| told.name.trim_start_matches('/').to_owned()),
            namespace: label(POD_NAMESPACE).unwrap_or_default(),
            pod: label(POD_UID).unwrap_or_default(),
            is_sandbox: labels.get(DOCKER_TYPE).is_some_and(|kind| kind == "podsandbox"),
            image: told.config.image.clone(),
            state,
            started_at,
            from: started_at,
            // While it runs again, the engine still tells the end of the life before.
            finished_at: if state == "exited" { finished.max(started) } else { 0 },
            pid: Some(told.state.pid).filter(|_| is_running),
            addresses: if network == Network::Own { told.addresses() } else { Vec::new() },
            network,
            ports: told.ports(),
            is_inspected: true,
            ..Self::default()
        }
    }

    /// The same life, told anew.
    fn go_on_from(&mut self, old: &Self) {
        self.netns = old.netns;
        self.was_shared = old.was_shared;
        self.from = old.from;
        if self.finished_at == 0 && old.state == "exited" {
            // The event of its end was faster than the engine's own notes.
            self.finished_at = old.finished_at;
            self.state = "exited";
            self.pid = None;
        }
        if self.state == "exited" {
            // A stopped container has no address any more; those that it had are still true of the time before.
            if self.addresses.is_empty() {
                self.addresses.clone_from(&old.addresses);
            }
        } else if self.addresses != old.addresses && old.network_changed_at > old.from {
            self.from = old.network_changed_at;
        }
    }

    /// What is said of it; `end` ends it where it has no end of its own. Nothing while nothing but its id is known.
    fn say(&self, end: Option<i64>) -> Option<Said> {
        if self.from == 0 {
            return None;
        }
        let mut attributes = self.collected.clone();
        let mut attribute = |name: &str, value: &str| {
            if !value.is_empty() {
                attributes.insert(name.to_owned(), value.to_owned());
            }
        };
        attribute(attribute::IMAGE, &self.image);
        attribute(attribute::STATE, self.state);
        attribute(attribute::PORTS, &self.ports);
        attribute(attribute::PIDS, &self.pid.map(|pid| pid.to_string()).unwrap_or_default());
        match &self.network {
            Network::Own => {}
            Network::Host => attribute(attribute::NETWORK_MODE, "host"),
            Network::None => attribute(attribute::NETWORK_MODE, "none"),
            Network::Of(id) => attribute(attribute::NETWORK_MODE, &format!("container:{id}")),
        }
        if self.is_sandbox {
            attribute(attribute::CONTAINER_TYPE, attribute::SANDBOX);
        }
        let finished = Some(self.finished_at).filter(|at| *at != 0);
        let to = finished.into_iter().chain(end).min();
        Some(Said {
            kind: kind::CONTAINER,
            id: self.id.clone(),
            name: if self.is_sandbox { String::new() } else { self.name.clone() },
            namespace: self.namespace.clone(),
            parent: self.pod.clone(),
            netns: self.netns,
            // An address that two containers use is nobody's alone.
            addresses: if self.was_shared { Vec::new() } else { self.addresses.clone() },
            from: Some(UnixNanos(self.from)),
            to: to.map(|to| UnixNanos(to.max(self.from))),
            attributes,
        })
    }
}
