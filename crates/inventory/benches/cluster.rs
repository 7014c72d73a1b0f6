//! The server's inventory at the size of a large cluster: memory, the time to take a full list in and to take it in
//! again, lookups, and churn. Times are processor time of its one thread.
//!
//! `cargo bench -p weir-inventory --bench cluster [-- --nodes 5000 --pods 150000 --services 10000 --endpoints 200000
//! --sources 2 --churn-s 600]`. `sources`: 1, every thing once, by the kubelet; 2, containers, the pause containers too, by
//! the tracer besides; 3, all that a tracer tells: pods, containers and a process of each, with their network namespaces.
//! Every node is vouched for, as the server does with each batch.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use weir_inventory::inventory::Limits;
use weir_inventory::{Inventory, LocalEnd, RemoteEnd, Who};
use weir_model::{Fact, NodeName, Protocol, UnixNanos};

const SECOND: i64 = 1_000_000_000;
/// Pods that begin and end in a second of churn.
const CHURN: u64 = 1_000;
/// How often the server forgets.
const EXPIRE_EVERY_S: u64 = 60;
/// How long tombstones are kept: the lateness horizon.
const KEEP_S: i64 = 3_600;
/// Who reads a node: each is vouched for when it was read.
const READERS: [&str; 3] = ["node", "kubelet", "tracer"];
/// How often a node's sources are read.
const READ_EVERY_S: u64 = 10;

struct Cluster {
    nodes: u64,
    pods: u64,
    services: u64,
    endpoints: u64,
    sources: u64,
}

fn main() {
    let setting = |name: &str, default: u64| {
        let mut args = std::env::args().skip_while(|arg| *arg != format!("--{name}"));
        args.nth(1).and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let cluster = Cluster {
        nodes: setting("nodes", 5_000),
        pods: setting("pods", 150_000),
        services: setting("services", 10_000),
        endpoints: setting("endpoints", 200_000),
        sources: setting("sources", 2),
    };
    let empty = resident();
    let mut inventory = Inventory::new(Limits::default(), []);
    let first = cluster.list(&mut inventory, 1);
    cluster.vouch(&mut inventory, 0..cluster.nodes, 60);
    let full = resident();
    println!(
        "{} nodes, {} pods, {} services, {} endpoints, {} source(s): {} facts",
        cluster.nodes,
        cluster.pods,
        cluster.services,
        cluster.endpoints,
        cluster.sources,
        inventory.facts()
    );
    println!(
        "memory: {:.0} MB resident beyond the empty process ({:.0} B a fact), of them {:.0} MB text",
        (full - empty) as f64 / 1e6,
        (full - empty) as f64 / inventory.facts() as f64,
        inventory.text_bytes() as f64 / 1e6
    );
    println!("first list: {:.2} s, {:.2} us a fact", first.as_secs_f64(), micros(first, inventory.facts()));
    let again = cluster.list(&mut inventory, 2);
    println!("the same list again: {:.2} s, {:.2} us a fact", again.as_secs_f64(), micros(again, inventory.facts()));
    cluster.look_up(&inventory);
    cluster.churn(&mut inventory, setting("churn-s", 600), full);
}

fn micros(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}

impl Cluster {
    /// Takes a list of everything in, and says how long the inventory took; making the facts is not counted.
    fn list(&self, inventory: &mut Inventory, said: i64) -> Duration {
        let mut took = Duration::ZERO;
        let mut take = |facts: Vec<Fact>| {
            took += time(|| facts.iter().for_each(|fact| inventory.learn(fact)));
        };
        for chunk in 0..=self.pods / 1_000 {
            let pods = chunk * 1_000..(chunk * 1_000 + 1_000).min(self.pods);
            take(pods.flat_map(|pod| self.pod(pod, said, 0, None)).collect());
        }
        take(
            (0..self.nodes)
                .map(|node| watched("node", &node_name(node), "", &node_name(node), said))
                .map(zoned)
                .collect(),
        );
        take(
            (0..self.pods / 5)
                .map(|set| {
                    let name = format!("app-{set}-5d4f8b9c7");
                    let fact = watched("replica_set", &uid(2, set), &namespace(set), &name, said);
                    owned(fact, "Deployment", &format!("app-{set}"), &uid(3, set))
                })
                .collect(),
        );
        take((0..self.services).map(|service| Self::service(service, said)).collect());
        for chunk in 0..=self.endpoints / 1_000 {
            let endpoints = chunk * 1_000..(chunk * 1_000 + 1_000).min(self.endpoints);
            take(endpoints.map(|endpoint| self.endpoint(endpoint, said)).collect());
        }
        took
    }

    /// Vouches for nodes until `until`, seconds.
    fn vouch(&self, inventory: &mut Inventory, nodes: std::ops::Range<u64>, until: i64) {
        for node in nodes.map(|node| node_name(node % self.nodes)) {
            for reader in READERS {
                inventory.vouch(&node, reader, UnixNanos(0), UnixNanos(until * SECOND));
            }
        }
    }

    /// The facts of a pod's `life`: itself, one or two containers and the pause container.
    fn pod(&self, pod: u64, said: i64, life: u64, to: Option<i64>) -> Vec<Fact> {
        let set = pod / 5;
        let name = format!("app-{set}-5d4f8b9c7-{pod:05x}{life}");
        let number = pod + life * self.pods;
        let told = |source: &str, kind: &str, id: &str| Fact {
            node: NodeName(node_name(pod % self.nodes)),
            source: source.into(),
            kind: kind.into(),
            id: id.into(),
            from: UnixNanos(life as i64 * 10 * SECOND),
            said: UnixNanos(to.unwrap_or(said * SECOND)),
            to: to.map(UnixNanos),
            name: String::new(),
            namespace: namespace(set),
            parent: String::new(),
            netns: 0,
            addresses: Vec::new(),
            attributes: std::collections::BTreeMap::new(),
        };
        let pod_uid = uid(1, number);
        let mut itself = told("kubelet", "pod", &pod_uid);
        itself.name.clone_from(&name);
        itself.addresses = vec![pod_address(pod).to_string()];
        itself.attributes = [("phase", "Running"), ("pod_template_hash", "5d4f8b9c7"), ("app", "app")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let mut facts = vec![owned(itself, "ReplicaSet", &format!("app-{set}-5d4f8b9c7"), &uid(2, set))];
        for container in 0..=pod % 2 {
            let mut fact = told("kubelet", "container", &container_id(number * 3 + container));
            fact.name = format!("container-{container}");
            fact.parent.clone_from(&pod_uid);
            fact.attributes = [
                ("image", format!("registry.example.com/team/app-{}:1.2.3", set % 2_000)),
                ("ports", "http:8080/tcp".to_owned()),
                ("state", "running".to_owned()),
                ("container_type", "container".to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
            facts.push(fact);
        }
        let tells_all = self.sources > 2;
        if tells_all {
            let mut fact = told("tracer", "pod", &pod_uid);
            fact.namespace.clear();
            fact.netns = netns(pod);
            facts.push(fact);
        }
        if self.sources > 1 {
            for container in (0..=pod % 2).chain([2]) {
                let id = container_id(number * 3 + container);
                let mut fact = told("tracer", "container", &id);
                fact.namespace.clear();
                fact.parent.clone_from(&pod_uid);
                fact.netns = if tells_all { netns(pod) } else { 0 };
                facts.push(fact);
                if tells_all {
                    let process = format!("{}@{}", pid(number * 3 + container), PROCESS_START);
                    let mut fact = told("tracer", "process", &process);
                    fact.namespace.clear();
                    "nginx".clone_into(&mut fact.name);
                    fact.parent = id;
                    fact.netns = netns(pod);
                    facts.push(fact);
                }
            }
        }
        facts
    }

    fn service(service: u64, said: i64) -> Fact {
        let mut fact = watched("service", &uid(4, service), &namespace(service), &format!("service-{service}"), said);
        fact.addresses = vec![service_address(service).to_string()];
        let ports = format!("http:80/tcp@{},metrics:9090/tcp", 30_000 + service % 2_000);
        fact.attributes.insert("ports".into(), ports);
        fact.attributes.insert("service_type".into(), "ClusterIP".into());
        fact
    }

    fn endpoint(&self, endpoint: u64, said: i64) -> Fact {
        let service = endpoint % self.services;
        let pod = endpoint % self.pods;
        let address = pod_address(pod).to_string();
        let id = format!("{}/{address}", uid(5, endpoint / 50));
        let mut fact = watched("endpoint", &id, &namespace(service), &format!("service-{service}"), said);
        fact.parent = format!("{}/service-{service}", namespace(service));
        fact.attributes = [
            ("ports", "http:8080/tcp,metrics:9091/tcp".to_owned()),
            ("target_pod", uid(1, pod)),
            ("node", node_name(pod % self.nodes)),
            ("conditions", "ready,serving".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        fact.addresses = vec![address];
        fact
    }

    fn look_up(&self, inventory: &Inventory) {
        const LOOKUPS: usize = 1_000_000;
        let at = UnixNanos(30 * SECOND);
        // Pods at random (Knuth's multiplier), as text where a record has text.
        let pods: Vec<u64> = (0..LOOKUPS as u64).map(|step| (step * 2_654_435_761) % self.pods).collect();
        let ids: Vec<String> = pods.iter().map(|pod| container_id(pod * 3)).collect();
        let nodes: Vec<String> = (0..self.nodes).map(node_name).collect();
        let cgroups: Vec<String> = ids.iter().map(|id| format!("/kubepods/burstable/{id}")).collect();
        let no_end = |place: usize| {
            let pod = pods[place];
            let (node, address) = (nodes[(pod % self.nodes) as usize].as_str(), pod_address(pod));
            let (process, pid, process_start) = ("nginx", 0, 0);
            LocalEnd { node, process, pid, process_start, container_id: "", cgroup_path: "", netns: 0, address }
        };
        let local = |place: usize| {
            let seen = LocalEnd { pid: pid(pods[place] * 3), process_start: PROCESS_START, ..no_end(place) };
            inventory.local(&LocalEnd { container_id: &ids[place], netns: netns(pods[place]), ..seen }, at)
        };
        let by_cgroup = |place: usize| inventory.local(&LocalEnd { cgroup_path: &cgroups[place], ..no_end(place) }, at);
        let by_netns = |place: usize| inventory.local(&LocalEnd { netns: netns(pods[place]), ..no_end(place) }, at);
        let by_pid = |place: usize| {
            let pid = pid(pods[place] * 3);
            inventory.local(&LocalEnd { pid, process_start: PROCESS_START, ..no_end(place) }, at)
        };
        let remote = |place: usize| {
            let address = pod_address(pods[place]);
            inventory.remote(&RemoteEnd { seen_on: "node-00001", address, began: Some(at), first_seen: at })
        };
        assert_eq!((local(7).kind(), remote(7).kind()), ("pod", "pod"), "the bench asks what it means to ask");
        let rate = |what: &str, lookup: &dyn Fn(usize)| {
            let best = (0..5).map(|_| time(|| (0..LOOKUPS).for_each(lookup))).min().unwrap_or_default();
            println!("{what}: {:.2} million/s on one core", LOOKUPS as f64 / best.as_secs_f64() / 1e6);
        };
        let everything = |who: Who<'_>| {
            black_box((who.kind(), who.namespace(), who.name(), who.node(), who.zone(), who.workload()));
        };
        rate("lookups, a remote end: who", &|place| {
            black_box(remote(place));
        });
        rate("lookups, a local end by its container's id: who", &|place| {
            black_box(local(place));
        });
        assert_eq!(by_cgroup(7).kind(), "pod");
        rate("lookups, a local end by its cgroup's path: who", &|place| {
            black_box(by_cgroup(place));
        });
        if self.sources > 2 {
            assert_eq!((by_netns(7).kind(), by_pid(7).kind()), ("pod", "pod"));
            rate("lookups, a local end by its network namespace: who", &|place| {
                black_box(by_netns(place));
            });
            rate("lookups, a local end by its owner's pid and start: who", &|place| {
                black_box(by_pid(place));
            });
        }
        rate("lookups, a remote end with names, node, zone and workload", &|place| everything(remote(place)));
        rate("lookups, a local end with names, node, zone and workload", &|place| everything(local(place)));
        rate("lookups, a Service by address and port", &|place| {
            let service = service_address(pods[place] % self.services);
            black_box(inventory.service_at(service, 80, Protocol::Tcp, at));
        });
        rate("lookups, the Services of a pod's address and port", &|place| {
            black_box(inventory.services_of(pod_address(pods[place]), None, 8080, Protocol::Tcp, at));
        });
    }

    /// `seconds` of 1,000 pods a second that end and are made anew under the same addresses.
    fn churn(&self, inventory: &mut Inventory, seconds: u64, full: u64) {
        let mut busy = Duration::ZERO;
        let mut worst = Duration::ZERO;
        for second in 0..seconds {
            let now = (100 + second as i64) * SECOND;
            let facts: Vec<Fact> = (0..CHURN)
                .flat_map(|step| {
                    let change = second * CHURN + step;
                    let (pod, life) = (change % self.pods, change / self.pods);
                    let mut facts = self.pod(pod, 0, life, Some(now));
                    facts.extend(self.pod(pod, 100 + second as i64, life + 1, None));
                    facts
                })
                .collect();
            let turn = self.nodes / READ_EVERY_S * (second % READ_EVERY_S);
            let mut took = time(|| {
                for fact in &facts {
                    inventory.learn(fact);
                }
                self.vouch(inventory, turn..turn + self.nodes / READ_EVERY_S, 100 + second as i64);
            });
            if second % EXPIRE_EVERY_S == 0 {
                took += time(|| {
                    inventory.expire(UnixNanos(now - KEEP_S * SECOND));
                });
            }
            busy += took;
            worst = worst.max(took);
            if second % 120 == 119 || second + 1 == seconds {
                println!(
                    "churn of {CHURN} pods/s, after {} s: {:.1} % of a core, the worst second {:.0} ms, {} facts, {:.0} MB more than before, {:?}",
                    second + 1,
                    busy.as_secs_f64() / (second + 1) as f64 * 100.0,
                    worst.as_secs_f64() * 1e3,
                    inventory.facts(),
                    (resident() as f64 - full as f64) / 1e6,
                    inventory.refused(),
                );
            }
        }
    }
}

fn watched(kind: &str, id: &str, namespace: &str, name: &str, said: i64) -> Fact {
    Fact {
        node: NodeName(String::new()),
        source: "api".into(),
        kind: kind.into(),
        id: id.into(),
        from: UnixNanos(0),
        said: UnixNanos(said * SECOND),
        to: None,
        name: name.into(),
        namespace: namespace.into(),
        parent: String::new(),
        netns: 0,
        addresses: Vec::new(),
        attributes: std::collections::BTreeMap::new(),
    }
}

fn zoned(mut fact: Fact) -> Fact {
    let number: u64 = fact.name.trim_start_matches("node-").parse().unwrap_or(0);
    fact.addresses = vec![Ipv4Addr::from(0xC0A8_0000 + number as u32).to_string()];
    fact.attributes = [("zone", format!("zone-{}", number % 3)), ("instance_type", "m5.large".to_owned())]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
    fact
}

fn owned(mut fact: Fact, kind: &str, name: &str, uid: &str) -> Fact {
    fact.attributes.insert("owner_kind".into(), kind.into());
    fact.attributes.insert("owner_name".into(), name.into());
    fact.attributes.insert("owner_uid".into(), uid.into());
    fact
}

fn node_name(node: u64) -> String {
    format!("node-{node:05}")
}

fn namespace(of: u64) -> String {
    format!("namespace-{}", of % 500)
}

fn uid(kind: u64, number: u64) -> String {
    format!("{kind:08x}-0000-4000-8000-{:012x}", number.wrapping_mul(0x9E37_79B9_7F4A) & 0xFFFF_FFFF_FFFF)
}

fn container_id(number: u64) -> String {
    format!("{:016x}{:048x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15), number)
}

/// When processes began, nanoseconds since boot.
const PROCESS_START: u64 = 5_000_000_000;

fn pid(container: u64) -> u32 {
    1_000 + (container % 4_000_000) as u32
}

/// The inode of a pod's network namespace.
fn netns(pod: u64) -> u32 {
    4_026_531_840 + pod as u32
}

fn pod_address(pod: u64) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0A00_0000 + pod as u32))
}

fn service_address(service: u64) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0xAC10_0000 + service as u32))
}

/// Processor time that some work took: other programs on the machine do not count.
fn time(work: impl FnOnce()) -> Duration {
    let begin = processor();
    work();
    processor().saturating_sub(begin)
}

/// Processor time of this process, which has one thread (proc(5), `schedstat`: nanoseconds on a processor).
fn processor() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

/// Bytes of memory that the process holds.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}
