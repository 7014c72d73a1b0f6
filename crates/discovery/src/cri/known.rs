//! What is known of each sandbox and container, and what is still to be asked. Pure.
//!
//! Lists say what is there; verbose answers, which cost the runtime a look into its own store, are asked for once a
//! sandbox and once a state of a container. Events tell beginnings and ends to the nanosecond, also of what came and
//! went between two lists.

use super::info;
use super::runtime::{
    self, ContainerEventResponse, ContainerEventType, ContainerState, ContainerStatus, ContainerStatusResponse,
    ImageSpec, NamespaceMode, PodSandboxMetadata, PodSandboxState, PodSandboxStatus, PodSandboxStatusResponse,
};
use super::say;
use crate::collect::Collect;
use crate::said::Said;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use weir_model::fact::kind;

/// Sandboxes and containers that are known by events alone, at most; the next list tells the rest.
const BY_EVENTS: usize = 10_000;

/// A pod's sandbox: its network namespace, and on most runtimes a process that holds it.
#[derive(Clone, Debug, Default)]
pub(super) struct Sandbox {
    pub(super) id: String,
    pub(super) pod: PodSandboxMetadata,
    pub(super) labels: HashMap<String, String>,
    /// Unix nanoseconds.
    pub(super) created_at: i64,
    pub(super) is_ready: bool,
    pub(super) is_host_network: bool,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) pid: Option<u32>,
    /// The network namespace's inode, 0 unknown.
    pub(super) netns: u32,
    /// When it stopped, where an event told.
    pub(super) stopped_at: Option<i64>,
    /// What the configuration collects.
    pub(super) collected: BTreeMap<String, String>,
    /// Its pod has another sandbox since, and the end of this one was said.
    is_end_said: bool,
    is_asked: bool,
}

/// A container.
#[derive(Clone, Debug, Default)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) sandbox: String,
    pub(super) name: String,
    pub(super) labels: HashMap<String, String>,
    pub(super) annotations: HashMap<String, String>,
    pub(super) image: String,
    pub(super) state: ContainerState,
    pub(super) created_at: i64,
    /// 0 not yet, or not told.
    pub(super) finished_at: i64,
    pub(super) pid: Option<u32>,
    /// What the configuration collects.
    pub(super) collected: BTreeMap<String, String>,
    asked: Option<ContainerState>,
}

/// Everything that one runtime has told.
#[derive(Debug)]
pub struct Known {
    collect: Arc<Collect>,
    sandboxes: HashMap<String, Sandbox>,
    containers: HashMap<String, Container>,
    /// What was said of things that are gone, with their ends; said once more.
    gone: Vec<Said>,
}

impl Known {
    /// Nothing yet; `collect` is taken from what will be told.
    pub fn new(collect: Arc<Collect>) -> Self {
        Self { collect, sandboxes: HashMap::new(), containers: HashMap::new(), gone: Vec::new() }
    }

    /// Takes the lists of what is there now.
    pub fn list(&mut self, sandboxes: Vec<runtime::PodSandbox>, containers: Vec<runtime::Container>) {
        let listed: HashSet<String> = sandboxes.iter().map(|sandbox| sandbox.id.clone()).collect();
        let listed_containers: HashSet<String> = containers.iter().map(|container| container.id.clone()).collect();
        self.forget(|id| !listed.contains(id), |id| !listed_containers.contains(id));
        // Without an id there is nothing to ask about.
        for told in sandboxes.into_iter().filter(|told| !told.id.is_empty()) {
            let is_ready = told.state() == PodSandboxState::SandboxReady;
            let sandbox = self.sandboxes.entry(told.id.clone()).or_default();
            if is_ready && !sandbox.is_ready {
                sandbox.is_asked = false;
                sandbox.stopped_at = None;
            }
            sandbox.id = told.id;
            sandbox.is_ready = is_ready;
            sandbox.pod = told.metadata.unwrap_or_default();
            sandbox.labels = told.labels;
            sandbox.created_at = told.created_at;
        }
        for told in containers.into_iter().filter(|told| !told.id.is_empty()) {
            let state = told.state();
            let container = self.containers.entry(told.id.clone()).or_default();
            container.id = told.id;
            container.sandbox = told.pod_sandbox_id;
            container.state = state;
            container.created_at = told.created_at;
            container.name = told.metadata.unwrap_or_default().name;
            container.labels = told.labels;
            container.annotations = told.annotations;
            container.name_image(told.image);
        }
    }

    /// The sandboxes that are to be asked about.
    pub fn unknown_sandboxes(&self) -> impl Iterator<Item = String> {
        self.sandboxes.values().filter(|sandbox| !sandbox.is_asked).map(|sandbox| sandbox.id.clone())
    }

    /// The containers that are to be asked about.
    pub fn unknown_containers(&self) -> impl Iterator<Item = String> {
        let is_unknown = |container: &&Container| container.asked != Some(container.state);
        self.containers.values().filter(is_unknown).map(|container| container.id.clone())
    }

    /// Takes the answer about a sandbox.
    pub fn tell_sandbox(&mut self, told: PodSandboxStatusResponse) {
        let Some(status) = told.status else { return };
        let Some(sandbox) = self.sandboxes.get_mut(&status.id) else { return };
        let is_ready = status.state() == PodSandboxState::SandboxReady;
        let annotations = status.annotations.clone();
        sandbox.take_status(status);
        if self.collect.wants(kind::POD) {
            self.collect.add(kind::POD, &say::pod_object(sandbox, &annotations), &mut sandbox.collected);
        }
        sandbox.pid = info::pid(&told.info);
        // A network that is still being made has no address yet: asked again.
        sandbox.is_asked = !is_ready || sandbox.is_host_network || !sandbox.addresses.is_empty();
    }

    /// Takes the answer about a container.
    pub fn tell_container(&mut self, told: ContainerStatusResponse) {
        let Some(status) = told.status else { return };
        let Some(container) = self.containers.get_mut(&status.id) else { return };
        let state = status.state();
        if self.collect.wants(kind::CONTAINER) {
            self.collect.add(kind::CONTAINER, &say::container_object(&status, &told.info), &mut container.collected);
        }
        container.take_status(status);
        container.asked = Some(state);
        container.pid = info::pid(&told.info);
    }

    /// Takes an event.
    pub fn happen(&mut self, event: ContainerEventResponse) {
        let kind = event.container_event_type();
        let sandbox_id = event.pod_sandbox_status.as_ref().map(|status| status.id.clone());
        if let Some(status) = event.pod_sandbox_status.filter(|status| !status.id.is_empty()) {
            let is_new = !self.sandboxes.contains_key(&status.id);
            if !is_new || self.sandboxes.len() < BY_EVENTS {
                let sandbox = self.sandboxes.entry(status.id.clone()).or_default();
                // An event is older than a list that already says it is over.
                sandbox.is_ready = status.state() == PodSandboxState::SandboxReady && (is_new || sandbox.is_ready);
                sandbox.take_status(status);
            }
        }
        for status in event.containers_statuses.into_iter().filter(|status| !status.id.is_empty()) {
            let is_new = !self.containers.contains_key(&status.id);
            if !is_new || self.containers.len() < BY_EVENTS {
                let container = self.containers.entry(status.id.clone()).or_default();
                if let Some(id) = &sandbox_id {
                    container.sandbox.clone_from(id);
                }
                container.take_status(status);
            }
        }
        let id = event.container_id;
        match kind {
            ContainerEventType::ContainerStoppedEvent => {
                if let Some(sandbox) = self.sandboxes.get_mut(&id) {
                    sandbox.is_ready = false;
                    sandbox.stopped_at = Some(event.created_at);
                } else if let Some(container) = self.containers.get_mut(&id) {
                    container.exit_by(event.created_at);
                }
            }
            ContainerEventType::ContainerDeletedEvent => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.exit_by(event.created_at);
                }
                self.forget(|other| *other == id, |other| *other == id);
            }
            ContainerEventType::ContainerCreatedEvent | ContainerEventType::ContainerStartedEvent => {}
        }
    }

    /// Looks the network namespaces up that are not known yet, by a process of the pod: its sandbox's, else one of its
    /// containers'. `netns` gives 0 for what may not be read.
    pub fn find_namespaces(&mut self, netns: impl Fn(&str, u32) -> u32) {
        let mut inside: HashMap<&str, (&str, u32)> = HashMap::new();
        for container in self.containers.values() {
            if let (ContainerState::ContainerRunning, Some(pid)) = (container.state, container.pid) {
                inside.insert(&container.sandbox, (&container.id, pid));
            }
        }
        for sandbox in self.sandboxes.values_mut() {
            if !sandbox.is_ready || sandbox.is_host_network || sandbox.netns != 0 {
                continue;
            }
            let own = sandbox.pid.map(|pid| (sandbox.id.as_str(), pid));
            let candidates = own.into_iter().chain(inside.get(sandbox.id.as_str()).copied());
            sandbox.netns = candidates.map(|(id, pid)| netns(id, pid)).find(|netns| *netns != 0).unwrap_or(0);
        }
    }

    /// What is said: everything that is there, and the ends of what is gone since the last time.
    pub fn say(&mut self) -> Vec<Said> {
        let mut said = std::mem::take(&mut self.gone);
        let mut newest: HashMap<&str, (i64, &str)> = HashMap::new();
        for sandbox in self.sandboxes.values() {
            let own = (sandbox.created_at, sandbox.id.as_str());
            newest.entry(&sandbox.pod.uid).and_modify(|other| *other = own.max(*other)).or_insert(own);
        }
        let mut ended = Vec::new();
        for sandbox in self.sandboxes.values() {
            let mut of_sandbox = say::sandbox(sandbox, self.containers_of(&sandbox.id));
            if newest.get(sandbox.pod.uid.as_str()).is_some_and(|(_, id)| *id != sandbox.id) {
                // The pod goes on in a newer sandbox: the end of its time in this one is said once.
                of_sandbox.retain(|said| said.kind != kind::POD || said.to.is_some() && !sandbox.is_end_said);
                ended.push(sandbox.id.clone());
            }
            said.append(&mut of_sandbox);
        }
        for id in ended {
            if let Some(sandbox) = self.sandboxes.get_mut(&id) {
                sandbox.is_end_said |= !sandbox.is_ready;
            }
        }
        for container in self.containers.values() {
            said.extend(say::container(container, self.sandboxes.get(&container.sandbox)));
        }
        said.sort_by(|a, b| (a.kind, &a.id, a.from).cmp(&(b.kind, &b.id, b.from)));
        said
    }

    fn containers_of(&self, sandbox: &str) -> impl Iterator<Item = &Container> {
        self.containers.values().filter(move |container| container.sandbox == sandbox)
    }

    /// Forgets what is gone; what is known to have ended is said once more.
    fn forget(&mut self, sandbox_is_gone: impl Fn(&String) -> bool, container_is_gone: impl Fn(&String) -> bool) {
        let mut ends = Vec::new();
        for sandbox in self.sandboxes.values().filter(|sandbox| sandbox_is_gone(&sandbox.id)) {
            let of_sandbox = say::sandbox(sandbox, self.containers_of(&sandbox.id));
            ends.extend(of_sandbox.into_iter().filter(|said| said.kind != kind::POD || !sandbox.is_end_said));
        }
        for container in self.containers.values().filter(|container| container_is_gone(&container.id)) {
            ends.extend(say::container(container, self.sandboxes.get(&container.sandbox)));
        }
        self.gone.extend(ends.into_iter().filter(|said| said.to.is_some()));
        self.gone.truncate(BY_EVENTS);
        self.sandboxes.retain(|id, _| !sandbox_is_gone(id));
        self.containers.retain(|id, _| !container_is_gone(id));
    }
}

impl Sandbox {
    fn take_status(&mut self, status: PodSandboxStatus) {
        let network = status.linux.and_then(|linux| linux.namespaces?.options).map(|options| options.network());
        self.is_host_network = network == Some(NamespaceMode::Node);
        let told = status.network.unwrap_or_default();
        let addresses = std::iter::once(told.ip).chain(told.additional_ips.into_iter().map(|more| more.ip));
        let addresses: Vec<IpAddr> =
            addresses.filter_map(|text| Some(text.parse::<IpAddr>().ok()?.to_canonical())).collect();
        // A stopped sandbox has none any more; those that it had are still true of the time before.
        if !addresses.is_empty() {
            self.addresses = addresses;
        }
        self.id = status.id;
        self.pod = status.metadata.unwrap_or_default();
        self.labels = status.labels;
        self.created_at = status.created_at;
    }
}

impl Container {
    fn take_status(&mut self, status: ContainerStatus) {
        // States only go forward: created, running, exited, unknown.
        self.state = self.state.max(status.state());
        self.finished_at = self.finished_at.max(status.finished_at);
        self.id = status.id;
        self.created_at = status.created_at;
        self.name = status.metadata.unwrap_or_default().name;
        self.labels = status.labels;
        self.annotations = status.annotations;
        self.name_image(status.image);
    }

    /// Keeps the best name of the image: as it was asked for, else one that is not the digest of its configuration.
    fn name_image(&mut self, told: Option<ImageSpec>) {
        let told = told.unwrap_or_default();
        let asked_for = !told.user_specified_image.is_empty();
        let name = if asked_for { told.user_specified_image } else { told.image };
        if asked_for || self.image.is_empty() || is_digest(&self.image) {
            self.image = name;
        }
    }

    /// It has ended at `at`, or before where that is known.
    fn exit_by(&mut self, at: i64) {
        self.state = ContainerState::ContainerExited;
        if self.finished_at == 0 {
            self.finished_at = at;
        }
    }
}

fn is_digest(name: &str) -> bool {
    name.starts_with("sha256:")
}
