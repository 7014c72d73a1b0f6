use super::*;
use std::collections::BTreeMap;
use weir_model::{Certainty, NodeName};

const SECOND: i64 = 1_000_000_000;

fn fact(kind: &str, id: &str, address: &str, from: i64, to: Option<i64>) -> Fact {
    Fact {
        node: NodeName("a".into()),
        source: "cri".into(),
        kind: kind.into(),
        id: id.into(),
        from: UnixNanos(from * SECOND),
        said: UnixNanos(from * SECOND),
        to: to.map(|to| UnixNanos(to * SECOND)),
        name: format!("{id}-name"),
        namespace: "shop".into(),
        parent: String::new(),
        netns: 0,
        addresses: vec![address.to_owned()],
        attributes: BTreeMap::new(),
    }
}

fn inventory(facts: &[Fact]) -> Inventory {
    let mut inventory = Inventory::default();
    for fact in facts {
        inventory.learn(fact);
    }
    inventory
}

#[test]
fn a_reused_address_is_not_attributed_to_the_old_pod() {
    let names = inventory(&[fact("pod", "old", "10.0.0.1", 10, Some(20)), fact("pod", "new", "10.0.0.1", 30, None)]);
    let name = |at: i64| {
        let (endpoint, certainty) = names.by_address("10.0.0.1".parse().unwrap(), UnixNanos(at * SECOND / 10));
        (endpoint.kind, endpoint.name, certainty)
    };
    assert_eq!(name(150), ("pod".into(), "old-name".into(), Certainty::Inferred));
    assert_eq!(name(250), ("unknown".into(), "10.0.0.1".into(), Certainty::Unknown), "between two holders");
    assert_eq!(name(400), ("pod".into(), "new-name".into(), Certainty::Inferred));
}

#[test]
fn within_clock_uncertainty_of_a_change_and_between_two_claims_nobody_is_named() {
    let names = inventory(&[
        fact("pod", "old", "10.0.0.1", 10, Some(20)),
        fact("pod", "new", "10.0.0.1", 20, None),
        fact("pod", "one", "10.0.0.2", 10, None),
        fact("pod", "two", "10.0.0.2", 10, None),
    ]);
    let holder = |address: &str, tenths: i64| {
        names.holder(address.parse().unwrap(), UnixNanos(tenths * SECOND / 10)).map(|thing| thing.id)
    };
    assert_eq!(holder("10.0.0.1", 185), Some("old".into()));
    assert_eq!(holder("10.0.0.1", 195), None);
    assert_eq!(holder("10.0.0.1", 205), None);
    assert_eq!(holder("10.0.0.1", 215), Some("new".into()));
    assert_eq!(holder("10.0.0.2", 150), None);
}

#[test]
fn an_own_end_is_its_pod_else_its_container_else_its_process() {
    let mut container = fact("container", "c0ffee00c0ffee00", "10.0.0.1", 1, None);
    let own = |names: &Inventory| {
        let end = names.own("nginx", "c0ffee00c0ffee00", "10.0.0.1".parse().unwrap());
        format!("{} {}/{}", end.kind, end.namespace, end.name)
    };
    assert_eq!(own(&inventory(&[])), "container /c0ffee00c0ff");
    assert_eq!(own(&inventory(&[container.clone()])), "container shop/c0ffee00c0ffee00-name");
    container.parent = "uid".into();
    assert_eq!(own(&inventory(&[container, fact("pod", "uid", "10.0.0.1", 1, None)])), "pod shop/uid-name");
    let process = inventory(&[]).own("nginx", "", "10.0.0.1".parse().unwrap());
    assert_eq!((process.kind.as_str(), process.name.as_str()), ("process", "nginx"));
}

#[test]
fn a_source_that_knows_the_name_beats_a_newer_one_that_does_not() {
    let named = fact("container", "c", "10.0.0.1", 1, None);
    let nameless = Fact { name: String::new(), source: "proc".into(), ..fact("container", "c", "10.0.0.1", 5, None) };
    for facts in [[named.clone(), nameless.clone()], [nameless, named]] {
        assert_eq!(inventory(&facts).container("c").0.unwrap().name, "c-name");
    }
}

#[test]
fn loopback_names_nobody() {
    let names = inventory(&[fact("node", "a", "127.0.0.1", 1, None)]);
    let (endpoint, certainty) = names.by_address("127.0.0.1".parse().unwrap(), UnixNanos(5 * SECOND));
    assert_eq!((endpoint.kind.as_str(), certainty), ("unknown", Certainty::Unknown));
}
