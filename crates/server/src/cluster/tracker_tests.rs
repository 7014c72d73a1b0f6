use super::tracker::Tracker;
use std::collections::BTreeMap;
use weir_discovery::kubernetes::objects::Thing;
use weir_discovery::kubernetes::watch::{Failure, FailureKind, Heard};
use weir_discovery::said::Said;
use weir_model::fact::{attribute, kind};
use weir_model::{Fact, UnixNanos};

const SECOND: i64 = 1_000_000_000;

fn at(seconds: i64) -> UnixNanos {
    UnixNanos(seconds * SECOND)
}

/// Whole seconds: a saying moves the clock by a nanosecond where it stands still.
fn seconds(at: UnixNanos) -> i64 {
    at.0 / SECOND
}

fn service(uid: &str, name: &str, address: &str, created: i64) -> Thing {
    let said = Said {
        kind: kind::SERVICE,
        id: uid.into(),
        name: name.into(),
        namespace: "shop".into(),
        addresses: vec![address.parse().unwrap()],
        from: Some(at(created)),
        ..Said::default()
    };
    Thing { key: uid.into(), created: Some(at(created)), written: None, said: vec![said] }
}

/// `(address, pod, conditions)` each.
fn slice(uid: &str, created: i64, endpoints: &[(&str, &str, &str)]) -> Thing {
    let said = endpoints.iter().map(|(address, pod, conditions)| {
        let texts = [(attribute::TARGET_POD, *pod), (attribute::CONDITIONS, *conditions)];
        let attributes = texts.iter().filter(|(_, text)| !text.is_empty());
        Said {
            kind: kind::ENDPOINT,
            id: format!("{uid}/{address}"),
            name: "web".into(),
            namespace: "shop".into(),
            parent: "shop/web".into(),
            addresses: vec![address.parse().unwrap()],
            attributes: attributes.map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
            ..Said::default()
        }
    });
    Thing { key: uid.into(), created: Some(at(created)), written: Some(at(created + 50)), said: said.collect() }
}

/// A tracker with the state that its facts make.
struct Play {
    tracker: Tracker,
    state: BTreeMap<(String, UnixNanos), Fact>,
    alive: Option<UnixNanos>,
    behind: Option<UnixNanos>,
}

impl Play {
    fn new(kind: &'static str) -> Self {
        let tracker = Tracker::new(kind, Vec::new(), None);
        Self { tracker, state: BTreeMap::new(), alive: None, behind: None }
    }

    fn hear(&mut self, now: i64, heard: Heard) {
        let mut facts = Vec::new();
        self.tracker.hear(heard, at(now), self.alive, self.behind, &mut facts);
        self.merge(facts);
        self.alive = Some(at(now));
    }

    fn merge(&mut self, facts: Vec<Fact>) {
        for fact in facts {
            let key = (fact.id.clone(), fact.from);
            let merged = match self.state.remove(&key) {
                Some(known) => known.merge(fact),
                None => fact,
            };
            self.state.insert(key, merged);
        }
    }

    fn list(&mut self, now: i64, things: &[Thing]) {
        self.hear(now, Heard::Listing);
        for thing in things {
            self.hear(now, Heard::Listed(thing.clone()));
        }
        self.hear(now, Heard::Complete);
    }

    fn fail(&mut self, now: i64, kind: FailureKind) {
        let alive = self.alive;
        self.hear(now, Heard::Failed(Failure { kind, detail: String::new() }));
        self.alive = alive;
    }

    /// `id name from..to` each.
    fn told(&self) -> Vec<String> {
        let text = |fact: &Fact| {
            let to = fact.to.map(|to| seconds(to).to_string()).unwrap_or_default();
            format!("{} {} {}..{to}", fact.id, fact.addresses.join(","), seconds(fact.from))
        };
        self.state.values().map(text).collect()
    }

    /// The server ends without a word, and begins anew.
    fn restart(&mut self, kind: &'static str) {
        let standing = self.state.values().filter(|fact| fact.to.is_none() && fact.kind == kind).cloned().collect();
        let confirmed = self.state.values().find(|fact| fact.kind == kind::WATCH).map(|fact| fact.said);
        self.tracker = Tracker::new(kind, standing, confirmed);
        self.alive = None;
    }

    fn confirm(&mut self) {
        let facts = self.tracker.confirm(self.alive, self.behind);
        self.merge(facts.into_iter().collect());
    }
}

#[test]
fn a_service_holds_from_its_creation_until_its_deletion_is_seen() {
    let mut play = Play::new(kind::SERVICE);
    play.list(100, &[service("a", "web", "10.96.0.1", 10)]);
    play.hear(200, Heard::Changed(service("b", "db", "10.96.0.2", 199)));
    play.hear(300, Heard::Gone("a".into()));
    assert_eq!(play.told(), ["a 10.96.0.1 10..300", "b 10.96.0.2 199.."]);
    // Heard again, nothing new: nothing is said.
    let mut facts = Vec::new();
    let again = Heard::Changed(service("b", "db", "10.96.0.2", 199));
    play.tracker.hear(again, at(301), Some(at(301)), None, &mut facts);
    assert_eq!(facts, []);
}

#[test]
fn a_service_deleted_and_made_anew_and_a_renamed_one_are_two_things() {
    let mut play = Play::new(kind::SERVICE);
    play.list(100, &[service("a", "web", "10.96.0.1", 10)]);
    play.hear(200, Heard::Gone("a".into()));
    play.hear(205, Heard::Changed(service("b", "web", "10.96.0.1", 204)));
    play.hear(300, Heard::Gone("b".into()));
    play.hear(300, Heard::Changed(service("c", "shop-web", "10.96.0.1", 300)));
    assert_eq!(play.told(), ["a 10.96.0.1 10..200", "b 10.96.0.1 204..300", "c 10.96.0.1 300.."]);
    let names: Vec<&str> = play.state.values().map(|fact| fact.name.as_str()).collect();
    assert_eq!(names, ["web", "web", "shop-web"]);
}

#[test]
fn what_changes_begins_anew_and_what_was_stays_known() {
    let mut play = Play::new(kind::SERVICE);
    play.list(100, &[service("a", "web", "10.96.0.1", 10)]);
    play.hear(200, Heard::Changed(service("a", "web", "10.96.0.9", 10)));
    play.hear(200, Heard::Changed(service("a", "web", "10.96.0.8", 10)));
    assert_eq!(play.told(), ["a 10.96.0.1 10..200", "a 10.96.0.9 200..200", "a 10.96.0.8 200.."]);
}

#[test]
fn what_a_list_after_a_410_lacks_ended_when_it_was_last_known() {
    let mut play = Play::new(kind::SERVICE);
    play.list(100, &[service("a", "web", "10.96.0.1", 10), service("b", "db", "10.96.0.2", 10)]);
    play.hear(150, Heard::Changed(service("c", "mq", "10.96.0.3", 149)));
    play.fail(290, FailureKind::Unreachable);
    play.fail(300, FailureKind::Expired);
    // Its first try breaks off, and must not make anything known.
    play.hear(310, Heard::Listing);
    play.hear(310, Heard::Listed(service("b", "db", "10.96.0.7", 10)));
    play.fail(311, FailureKind::Unreachable);
    play.list(320, &[service("b", "db", "10.96.0.7", 10), service("d", "web", "10.96.0.1", 250)]);
    let expected = [
        "a 10.96.0.1 10..150",
        "b 10.96.0.2 10..150",
        "b 10.96.0.7 310..",
        "c 10.96.0.3 149..150",
        "d 10.96.0.1 250..",
    ];
    assert_eq!(play.told(), expected);
}

#[test]
fn what_happened_in_a_silence_that_a_watch_bridges_ended_before_it() {
    let mut play = Play::new(kind::SERVICE);
    play.list(100, &[service("a", "web", "10.96.0.1", 10), service("b", "db", "10.96.0.2", 10)]);
    play.fail(160, FailureKind::Unreachable);
    play.behind = Some(at(155));
    play.hear(200, Heard::Gone("a".into()));
    play.hear(200, Heard::Changed(service("b", "db", "10.96.0.9", 10)));
    play.behind = None;
    play.hear(300, Heard::Gone("b".into()));
    assert_eq!(play.told(), ["a 10.96.0.1 10..155", "b 10.96.0.2 10..155", "b 10.96.0.9 200..300"]);
}

#[test]
fn after_a_restart_what_is_gone_ended_when_the_watch_last_knew_it() {
    let mut play = Play::new(kind::SERVICE);
    play.list(100, &[service("a", "web", "10.96.0.1", 10), service("b", "db", "10.96.0.2", 10)]);
    play.alive = Some(at(180));
    play.confirm();
    play.restart(kind::SERVICE);
    play.confirm();
    play.list(500, &[service("b", "db", "10.96.0.2", 10)]);
    let services: Vec<String> = play.told().into_iter().filter(|text| !text.starts_with("service ")).collect();
    assert_eq!(services, ["a 10.96.0.1 10..180", "b 10.96.0.2 10.."]);
    play.alive = Some(at(510));
    play.confirm();
    let watch = play.state.values().find(|fact| fact.kind == kind::WATCH).unwrap();
    assert_eq!((watch.id.as_str(), watch.said), (kind::SERVICE, at(510)));
}

#[test]
fn a_watch_that_was_taken_up_is_known_again_though_nothing_changes() {
    let mut play = Play::new(kind::SERVICE);
    play.list(100, &[service("a", "web", "10.96.0.1", 10)]);
    play.fail(160, FailureKind::Unreachable);
    let said = |play: &mut Play| play.tracker.confirm(play.alive, play.behind).map(|fact| seconds(fact.said));
    assert_eq!(said(&mut play), None, "nothing was heard since");
    (play.alive, play.behind) = (Some(at(200)), Some(at(150)));
    assert_eq!(said(&mut play), None, "it catches up");
    play.behind = None;
    play.alive = Some(at(260));
    assert_eq!(said(&mut play), Some(260));
}

#[test]
fn endpoints_begin_when_they_are_seen_or_with_what_bounds_them() {
    let mut play = Play::new(kind::ENDPOINT);
    play.list(100, &[slice("s", 10, &[("10.0.0.1", "p1", "ready"), ("10.0.0.2", "", "ready")])]);
    // Of a pod: since the slice, the pod bounds it. Of no pod: since somebody last wrote the slice.
    assert_eq!(play.told(), ["s/10.0.0.1 10.0.0.1 10..", "s/10.0.0.2 10.0.0.2 60.."]);
    play.hear(200, Heard::Changed(slice("s", 10, &[("10.0.0.1", "p1", "ready"), ("10.0.0.3", "p3", "")])));
    assert_eq!(play.told(), ["s/10.0.0.1 10.0.0.1 10..", "s/10.0.0.2 10.0.0.2 60..200", "s/10.0.0.3 10.0.0.3 200.."]);
    play.fail(300, FailureKind::Expired);
    play.list(400, &[slice("t", 5, &[("10.0.0.4", "p4", ""), ("10.0.0.5", "", "")])]);
    assert_eq!(play.told()[3..], ["t/10.0.0.4 10.0.0.4 200..", "t/10.0.0.5 10.0.0.5 400.."]);
}

#[test]
fn an_endpoint_that_becomes_ready_or_drains_is_the_same_endpoint() {
    let mut play = Play::new(kind::ENDPOINT);
    play.list(100, &[]);
    for (now, conditions) in [(110, ""), (120, "ready,serving"), (130, "serving,terminating")] {
        play.hear(now, Heard::Changed(slice("s", 105, &[("10.0.0.1", "p1", conditions)])));
    }
    assert_eq!(play.told(), ["s/10.0.0.1 10.0.0.1 110.."]);
    let fact = play.state.values().next().unwrap();
    assert_eq!(fact.attributes[attribute::CONDITIONS], "serving,terminating");
    // The same address for another pod is another endpoint.
    play.hear(140, Heard::Changed(slice("s", 105, &[("10.0.0.1", "p2", "ready")])));
    assert_eq!(play.told(), ["s/10.0.0.1 10.0.0.1 110..140", "s/10.0.0.1 10.0.0.1 140.."]);
}

#[test]
fn a_node_made_anew_under_its_name_is_another_one() {
    let node = |created: i64| {
        let said = Said {
            kind: kind::NODE,
            id: "n1".into(),
            name: "n1".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            from: Some(at(created)),
            ..Said::default()
        };
        Thing { key: "n1".into(), created: Some(at(created)), written: None, said: vec![said] }
    };
    let mut play = Play::new(kind::NODE);
    play.list(100, &[node(10)]);
    play.fail(200, FailureKind::Expired);
    play.list(300, &[node(250)]);
    assert_eq!(play.told(), ["n1 10.0.0.1 10..100", "n1 10.0.0.1 250.."]);
}

#[test]
fn a_thousand_changes_leave_one_open_fact_each_and_nothing_is_lost() {
    let mut play = Play::new(kind::ENDPOINT);
    play.list(100, &[]);
    for round in 0..50_u8 {
        let endpoints: Vec<(String, String)> =
            (0..20).map(|number| (format!("10.0.{round}.{number}"), format!("p{round}-{number}"))).collect();
        let endpoints: Vec<(&str, &str, &str)> =
            endpoints.iter().map(|(address, pod)| (address.as_str(), pod.as_str(), "ready")).collect();
        play.hear(101 + i64::from(round), Heard::Changed(slice("s", 90, &endpoints)));
    }
    assert_eq!((play.tracker.objects(), play.tracker.facts()), (1, 20));
    assert_eq!(play.state.len(), 1000);
    assert_eq!(play.state.values().filter(|fact| fact.to.is_none()).count(), 20);
}
