//! The laws of the inventory, over made-up histories of pods, containers and processes that use addresses, network
//! namespaces and pids again and again, told in any order, late and repeatedly.

mod told;

use proptest::prelude::*;
use std::collections::HashMap;
use told::{Told as _, address, container_id, fact, watched};
use weir_inventory::inventory::UNCERTAINTY_NS;
use weir_inventory::{Inventory, LocalEnd, RemoteEnd, Who};
use weir_model::{Fact, UnixNanos};

const SECOND: i64 = 1_000_000_000;
const NODES: [&str; 3] = ["a", "b", "c"];
const ADDRESSES: [&str; 3] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
const NODE_ADDRESSES: [&str; 3] = ["192.168.0.1", "192.168.0.2", "192.168.0.3"];
const HOST_NETNS: u32 = 1;
/// Times are drawn in quarters of a second, so that changes fall together and close by.
const QUARTER: i64 = SECOND / 4;
const END: i64 = 100;

/// A pod as it really was.
#[derive(Clone, Debug)]
struct Pod {
    uid: String,
    node: usize,
    is_host_network: bool,
    address: usize,
    netns: u32,
    from: i64,
    /// `None`: it still is.
    to: Option<i64>,
    /// Container and pid; each process starts with its pod.
    processes: Vec<(String, u32)>,
}

impl Pod {
    fn held(&self, at: i64) -> bool {
        self.from <= at && self.to.is_none_or(|to| at < to)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.from < other.to.unwrap_or(i64::MAX) && other.from < self.to.unwrap_or(i64::MAX)
    }

    fn conflicts(&self, other: &Self) -> bool {
        let same_pid = self.processes.iter().any(|(_, pid)| other.processes.iter().any(|(_, held)| held == pid));
        let same_network = !self.is_host_network
            && !other.is_host_network
            && (self.address == other.address || self.node == other.node && self.netns == other.netns);
        self.overlaps(other) && (same_network || self.node == other.node && same_pid)
    }
}

type Drawn = (usize, bool, usize, u32, i64, i64, bool, Vec<u32>);

fn history() -> impl Strategy<Value = Vec<Pod>> {
    let pod = (
        0..NODES.len(),
        prop::bool::weighted(0.15),
        0..ADDRESSES.len(),
        2..4_u32,
        0..END,
        1..30_i64,
        prop::bool::weighted(0.1),
        prop::collection::vec(10..14_u32, 1..3),
    );
    prop::collection::vec(pod, 1..12).prop_map(accepted)
}

/// Those that can have been: no two pods hold an address, a namespace or a pid at once.
fn accepted(drawn: Vec<Drawn>) -> Vec<Pod> {
    let mut pods: Vec<Pod> = Vec::new();
    for (place, (node, is_host_network, address, netns, from, long, is_open, mut pids)) in drawn.into_iter().enumerate()
    {
        pids.dedup();
        let letter = char::from(b'a' + place as u8);
        let id = |place: usize| format!("{}{place}", &container_id(letter)[1..]);
        let pod = Pod {
            uid: format!("pod-{letter}"),
            node,
            is_host_network,
            address,
            netns: if is_host_network { HOST_NETNS } else { netns },
            from: from * QUARTER,
            to: (!is_open).then_some((from + long) * QUARTER),
            processes: pids.into_iter().enumerate().map(|(place, pid)| (id(place), pid)).collect(),
        };
        if pods.iter().all(|other| !pod.conflicts(other)) {
            pods.push(pod);
        }
    }
    pods
}

/// A fact, and the time of the change that it tells of.
type Change = (Fact, i64);

/// Everything that sources say of a history: that something is, and later that it has been. `skew`: each node's clock.
fn facts(pods: &[Pod], skew: [i64; 3]) -> Vec<Change> {
    let mut facts = Vec::new();
    for (place, name) in NODES.iter().enumerate() {
        let node = watched("node", name, "", name).at_addresses(&[NODE_ADDRESSES[place]]);
        facts.push((Fact { from: UnixNanos(-1_000 * SECOND), ..node }, -1_000 * SECOND));
        let init = fact("tracer", "process", "1@0").called("", "init").in_netns(HOST_NETNS).on(name);
        facts.push((Fact { from: UnixNanos(-1_000 * SECOND), ..init }, -1_000 * SECOND));
    }
    for pod in pods {
        let address = if pod.is_host_network { NODE_ADDRESSES[pod.node] } else { ADDRESSES[pod.address] };
        let mut said = Vec::new();
        let told = |source| fact(source, "pod", &pod.uid).called("shop", &pod.uid).at_addresses(&[address]);
        let host = |fact: Fact| if pod.is_host_network { fact.with("host_network", "true") } else { fact };
        said.push(host(told("kubelet")));
        said.push(host(told("cri").in_netns(pod.netns)));
        for (place, (id, pid)) in pod.processes.iter().enumerate() {
            let container = fact("cri", "container", id).called("shop", &format!("c{place}")).of(&pod.uid);
            said.push(container.with("pids", &pid.to_string()));
            said.push(fact("tracer", "container", id).of(&pod.uid));
            let start = pod.from + 1_000_000 * SECOND;
            said.push(
                fact("tracer", "process", &format!("{pid}@{start}")).called("", "app").of(id).in_netns(pod.netns),
            );
        }
        let skewed = |time: i64| UnixNanos(time + skew[pod.node]);
        for fact in said {
            let is = Fact { from: skewed(pod.from), said: skewed(pod.from), ..fact.on(NODES[pod.node]) };
            if let Some(to) = pod.to {
                facts.push((Fact { to: Some(skewed(to)), said: skewed(to), ..is.clone() }, to));
            }
            facts.push((is, pod.from));
        }
    }
    facts
}

/// A question about an end at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Question {
    Remote(usize),
    OfNode(usize),
    Netns(usize, u32),
    Pid(usize, u32),
    Local(usize, usize),
}

fn questions() -> Vec<Question> {
    let mut questions: Vec<Question> =
        (0..3).flat_map(|place| [Question::Remote(place), Question::OfNode(place)]).collect();
    for node in 0..NODES.len() {
        questions.extend((HOST_NETNS..4).map(|netns| Question::Netns(node, netns)));
        questions.extend((10..14).map(|pid| Question::Pid(node, pid)));
        questions.extend((0..ADDRESSES.len()).map(|address| Question::Local(node, address)));
    }
    questions
}

fn ask(inventory: &Inventory, question: Question, at: i64) -> Who<'_> {
    let at = UnixNanos(at);
    let remote = |held: &str| {
        inventory.remote(&RemoteEnd { seen_on: "c", address: address(held), began: Some(at), first_seen: at })
    };
    let end = |node: usize| LocalEnd { node: NODES[node], ..told::socket("127.0.0.1") };
    match question {
        Question::Remote(place) => remote(ADDRESSES[place]),
        Question::OfNode(place) => remote(NODE_ADDRESSES[place]),
        Question::Netns(node, netns) => inventory.local(&LocalEnd { netns, ..end(node) }, at),
        Question::Pid(node, pid) => inventory.local(&LocalEnd { pid, ..end(node) }, at),
        Question::Local(node, place) => {
            inventory.local(&LocalEnd { address: address(ADDRESSES[place]), ..end(node) }, at)
        }
    }
}

/// Who it really was.
fn truth(pods: &[Pod], question: Question, at: i64) -> Option<&Pod> {
    pods.iter().filter(|pod| pod.held(at)).find(|pod| match question {
        Question::Remote(place) => !pod.is_host_network && pod.address == place,
        Question::OfNode(_) => false,
        Question::Netns(node, netns) => pod.node == node && !pod.is_host_network && pod.netns == netns,
        Question::Pid(node, pid) => pod.node == node && pod.processes.iter().any(|(_, held)| *held == pid),
        Question::Local(node, place) => pod.node == node && !pod.is_host_network && pod.address == place,
    })
}

/// The UID of the pod that an answer names, by itself or by one of its containers.
fn named<'a>(pods: &'a [Pod], who: &Who<'_>) -> Option<&'a str> {
    let container = who.container();
    let of_container =
        |pod: &&Pod| container.is_some_and(|container| pod.processes.iter().any(|(id, _)| *id == container.id));
    let of_pod = |pod: &&Pod| who.pod().is_some_and(|named| named.id == pod.uid);
    pods.iter().find(of_pod).or_else(|| pods.iter().find(of_container)).map(|pod| pod.uid.as_str())
}

/// Everything that may read what a node says.
const READERS: [&str; 7] = ["node", "tracer", "proc", "kubelet", "cri", "docker", "api"];

/// Vouches for every node as far as all of its changes have been told.
fn vouch(inventory: &mut Inventory, untold: &[Change]) {
    for node in NODES {
        let of_node = untold.iter().filter(|(fact, _)| fact.node.0 == node);
        let until = of_node.map(|(_, changed)| *changed).min().unwrap_or(i64::MAX / 2);
        for reader in READERS {
            inventory.vouch(node, reader, UnixNanos(i64::MIN), UnixNanos(until));
        }
    }
}

fn describe(inventory: &Inventory) -> Vec<String> {
    let mut answers = Vec::new();
    for question in questions() {
        for at in -4..END + 40 {
            let who = ask(inventory, question, at * QUARTER);
            answers.push(format!("{question:?} {at}: {who:?} {:?} {:?} {}", who.pod(), who.container(), who.node()));
        }
    }
    answers.push(format!("{:?}", inventory.disagreements(100)));
    answers
}

/// A way to tell facts: an order, with repetitions.
fn telling(pods: Vec<Pod>) -> impl Strategy<Value = (Vec<Pod>, Vec<usize>)> {
    let count = facts(&pods, [0; 3]).len();
    let order = Just((0..count).collect::<Vec<_>>()).prop_shuffle();
    let again = prop::collection::vec(0..count, 0..8);
    (Just(pods), order, again).prop_map(|(pods, order, again)| (pods, order.into_iter().chain(again).collect()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// At every moment, with any part of the facts still to come: who is named held it then, and whoever was named once
    /// is never called otherwise.
    #[test]
    fn no_end_is_ever_attributed_to_a_pod_that_did_not_hold_it_then(
        (pods, order) in history().prop_flat_map(telling)
    ) {
        let all = facts(&pods, [0; 3]);
        let mut inventory = Inventory::default();
        let mut once: HashMap<(Question, i64), String> = HashMap::new();
        vouch(&mut inventory, &all);
        let asked = questions();
        for (step, place) in order.iter().enumerate() {
            inventory.learn(&all[*place].0);
            let untold: Vec<Change> = (0..all.len()).filter(|place| !order[..=step].contains(place)).map(|place| all[place].clone()).collect();
            vouch(&mut inventory, &untold);
            // Every question at every time would take minutes: each step asks another part, the last one everything.
            let is_last = step + 1 == order.len();
            for (number, question) in asked.iter().enumerate() {
                for at in -4..END + 40 {
                    if !is_last && (number as i64 + at + step as i64).rem_euclid(7) != 0 {
                        continue;
                    }
                    let who = ask(&inventory, *question, at * QUARTER);
                    let Some(uid) = named(&pods, &who) else { continue };
                    let really = truth(&pods, *question, at * QUARTER).map(|pod| pod.uid.as_str());
                    prop_assert_eq!(Some(uid), really, "{:?} at {}: {:?}", question, at, who);
                    let before = once.entry((*question, at)).or_insert_with(|| uid.to_owned());
                    prop_assert_eq!(before.as_str(), uid);
                }
            }
        }
    }

    /// Order and repetition of facts change nothing.
    #[test]
    fn an_answer_is_a_function_of_the_set_of_facts((pods, order) in history().prop_flat_map(telling)) {
        let all = facts(&pods, [0; 3]);
        let mut in_order = Inventory::default();
        let mut otherwise = Inventory::default();
        for (fact, _) in &all {
            in_order.learn(fact);
        }
        for place in order {
            otherwise.learn(&all[place].0);
        }
        for (one, other) in describe(&in_order).into_iter().zip(describe(&otherwise)) {
            prop_assert_eq!(one, other);
        }
    }

    /// With every fact told, by clocks that differ by less than the uncertainty, nobody is named for what another held.
    #[test]
    fn clocks_that_differ_do_not_move_a_connection_to_the_next_holder(
        pods in history(),
        skew in prop::array::uniform3(-4..5_i64),
        viewer in -4..5_i64,
    ) {
        const STEP: i64 = UNCERTAINTY_NS / 9;
        let mut inventory = Inventory::default();
        for (fact, _) in facts(&pods, skew.map(|steps| steps * STEP)) {
            inventory.learn(&fact);
        }
        for question in questions().into_iter().filter(|question| matches!(question, Question::Remote(_))) {
            for at in (-4..END + 40).map(|quarters| quarters * QUARTER) {
                let who = ask(&inventory, question, at + viewer * STEP);
                let (Some(uid), Some(really)) = (named(&pods, &who), truth(&pods, question, at)) else { continue };
                prop_assert_eq!(uid, really.uid.as_str());
            }
        }
    }

    /// Nearly everything that can be known is named, once every fact is told: the laws are not kept by silence.
    #[test]
    fn what_nobody_else_held_close_by_is_named(pods in history()) {
        let mut inventory = Inventory::default();
        for (fact, _) in facts(&pods, [0; 3]) {
            inventory.learn(&fact);
        }
        for question in questions() {
            for at in (-4..END + 40).map(|quarters| quarters * QUARTER) {
                let Some(really) = truth(&pods, question, at) else { continue };
                if really.is_host_network {
                    continue;
                }
                let close = [-UNCERTAINTY_NS, UNCERTAINTY_NS].map(|by| truth(&pods, question, at + by));
                let others = pods.iter().filter(|pod| pod.uid != really.uid);
                let is_alone = others.into_iter().all(|other| {
                    let near = |time: i64| (time - at).abs() <= UNCERTAINTY_NS;
                    !(near(other.from) || other.to.is_some_and(near))
                });
                if is_alone && close.iter().all(|pod| pod.is_none_or(|pod| pod.uid == really.uid)) {
                    let who = ask(&inventory, question, at);
                    prop_assert_eq!(named(&pods, &who), Some(really.uid.as_str()), "{:?} at {}: {:?}", question, at, who);
                }
            }
        }
    }
}

#[test]
fn what_a_node_did_not_vouch_for_yet_names_nobody_and_is_named_later() {
    let mut known = told::inventory(&[told::pod("web").at_addresses(&["10.0.0.1"]).in_netns(7)]);
    known.vouch("a", "kubelet", told::at(90), told::at(200));
    let named = |known: &Inventory, tenths| told::text(told::remote(known, "10.0.0.1", tenths));
    assert_eq!(named(&known, 190), "pod shop/web");
    assert_eq!(named(&known, 250), "unknown /10.0.0.1", "it may have ended, and the fact be on its way");
    known.vouch("a", "kubelet", told::at(90), told::at(300));
    assert_eq!(named(&known, 250), "pod shop/web");
    // A new run of the agent tells everything anew: what it does not tell has ended unseen.
    known.vouch("a", "kubelet", told::at(310), told::at(400));
    assert_eq!(named(&known, 350), "unknown /10.0.0.1");
    let again = told::pod("web").at_addresses(&["10.0.0.1"]).in_netns(7);
    known.learn(&Fact { said: told::at(320), ..again });
    assert_eq!(named(&known, 350), "pod shop/web");
}

#[test]
fn whose_next_word_tells_who_an_end_is_is_known_for_as_long_as_it_may_come() {
    let one = || told::pod("one").at_addresses(&["10.0.0.1"]);
    let end = |tenths: i64| {
        let at = told::at(tenths);
        RemoteEnd { seen_on: "b", address: address("10.0.0.1"), began: Some(at), first_seen: at }
    };
    let awaited = |known: &Inventory, tenths| known.awaited_of(&end(tenths), 10 * SECOND).map(str::to_owned);
    let from_a = Some("a".to_owned());
    let mut known = told::inventory(&[one()]);
    known.vouch("a", "kubelet", told::at(90), told::at(200));
    assert_eq!(awaited(&known, 190), None, "it has told");
    assert_eq!((awaited(&known, 200), awaited(&known, 299)), (from_a.clone(), from_a.clone()));
    assert_eq!(awaited(&known, 300), None, "ten seconds without a word");
    let mut moved = told::inventory(&[one(), told::pod("two").from(220).at_addresses(&["10.0.0.1"]).on("b")]);
    moved.vouch("a", "kubelet", told::at(90), told::at(200));
    moved.vouch("b", "kubelet", told::at(90), told::at(230));
    assert_eq!(awaited(&moved, 225), None, "another holds it");
    assert_eq!(awaited(&moved, 250), Some("b".to_owned()), "the newest word counts");
    let mut ended = told::inventory(&[one(), one().to(230)]);
    ended.vouch("a", "kubelet", told::at(90), told::at(300));
    assert_eq!(awaited(&ended, 250), None, "it has ended");
}

#[test]
fn a_late_second_holder_turns_a_name_into_unknown_and_never_into_another() {
    let mut known = told::inventory(&[told::pod("one").at_addresses(&["10.0.0.1"])]);
    let named = |known: &Inventory| told::text(told::remote(known, "10.0.0.1", 250));
    assert_eq!(named(&known), "pod shop/one");
    known.learn(&told::pod("two").from(200).at_addresses(&["10.0.0.1"]).on("b"));
    assert_eq!(named(&known), "unknown /10.0.0.1");
}
