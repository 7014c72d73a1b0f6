//! The promises of pairing through nodes that translate.

use crate::pairing::{Verdict, View, pair};
use proptest::prelude::*;
use std::collections::HashMap;
use weir_model::{Certainty, ConnectionId, NodeName, Protocol, Side, Tuple, UnixNanos};
use weir_store::Translation;

const SECOND: i64 = 1_000_000_000;

fn tuple(local: &str, remote: &str) -> Tuple {
    Tuple { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
}

fn view(id: u8, local: &str, remote: &str, side: Side, life: (f64, f64)) -> View {
    let at = |seconds: f64| UnixNanos((seconds * SECOND as f64) as i64);
    View {
        id: ConnectionId([id; 16]),
        protocol: Protocol::Tcp,
        netns: 1,
        tuple: tuple(local, remote),
        claim: Some((side, Certainty::Known)),
        from: at(life.0),
        to: at(life.1),
        opened: true,
    }
}

fn translation(original: (&str, &str), translated: (&str, &str), seen: f64, began: bool) -> Translation {
    Translation {
        node: NodeName("b".into()),
        protocol: Protocol::Tcp,
        original: tuple(original.0, original.1),
        translated: tuple(translated.0, translated.1),
        seen: UnixNanos((seen * SECOND as f64) as i64),
        began,
    }
}

fn decide(views: &[View], translations: &[Translation]) -> HashMap<ConnectionId, Verdict> {
    pair(views.iter().cloned(), &translations.iter().cloned().collect())
}

fn partner(verdicts: &HashMap<ConnectionId, Verdict>, id: u8) -> Option<u8> {
    verdicts[&ConnectionId([id; 16])].counterpart.map(|other| other.0[0])
}

/// A client on node a asks node b, which sends it on in its own name to a backend on node c.
const CLIENT: &str = "10.0.0.1:40000";
const OTHER: &str = "10.0.0.9:40000";
const ASKED: &str = "10.0.0.2:30080";
const NODE: &str = "10.244.2.1:61000";
const BACKEND: &str = "10.244.3.8:8080";

#[test]
fn a_client_behind_a_node_is_found() {
    let views = [view(1, CLIENT, ASKED, Side::Client, (0.0, 5.0)), view(2, BACKEND, NODE, Side::Server, (0.0, 5.0))];
    let alone = decide(&views, &[]);
    assert!(alone[&views[1].id].is_unpaired_server() && partner(&alone, 1).is_none());
    for began in [true, false] {
        let verdicts = decide(&views, &[translation((CLIENT, ASKED), (NODE, BACKEND), 0.1, began)]);
        assert_eq!((partner(&verdicts, 1), partner(&verdicts, 2)), (Some(2), Some(1)));
        assert_eq!(verdicts[&views[0].id].tuple, tuple(NODE, BACKEND));
        assert!(verdicts[&views[1].id].is_counted_by_client());
    }
}

#[test]
fn a_chain_of_three_nodes_leads_on_and_a_fourth_does_not() {
    let hops = ["10.1.0.1:1", "10.1.0.2:2", "10.1.0.3:3", "10.1.0.4:4"];
    let asked = ["10.2.0.1:80", "10.2.0.2:80", "10.2.0.3:80", BACKEND];
    let mut translations = vec![translation((CLIENT, ASKED), (hops[0], asked[0]), 0.0, true)];
    for step in 1..4 {
        translations.push(translation((hops[step - 1], asked[step - 1]), (hops[step], asked[step]), 0.0, true));
    }
    let client = view(1, CLIENT, ASKED, Side::Client, (0.0, 5.0));
    for (step, found) in [(2, true), (3, false)] {
        let server = view(2, asked[step], hops[step], Side::Server, (0.0, 5.0));
        let verdicts = decide(&[client.clone(), server.clone()], &translations);
        assert_eq!(verdicts[&server.id].counterpart.is_some(), found, "{step}");
    }
}

#[test]
fn a_port_of_the_node_that_is_used_again_goes_to_the_right_client_by_time() {
    let views = [
        view(1, CLIENT, ASKED, Side::Client, (0.0, 5.0)),
        view(2, BACKEND, NODE, Side::Server, (0.0, 5.0)),
        view(3, OTHER, ASKED, Side::Client, (5.2, 9.0)),
        view(4, BACKEND, NODE, Side::Server, (5.2, 9.0)),
    ];
    let translations = [
        translation((CLIENT, ASKED), (NODE, BACKEND), 0.05, true),
        translation((OTHER, ASKED), (NODE, BACKEND), 5.25, true),
    ];
    let verdicts = decide(&views, &translations);
    assert_eq!([1, 2, 3, 4].map(|id| partner(&verdicts, id)), [Some(2), Some(1), Some(4), Some(3)]);
}

#[test]
fn a_clients_port_that_is_used_again_at_once_leads_to_its_own_backend() {
    let views = [
        view(1, CLIENT, ASKED, Side::Client, (0.0, 0.4)),
        view(2, CLIENT, ASKED, Side::Client, (0.5, 0.9)),
        view(3, BACKEND, NODE, Side::Server, (0.0, 0.4)),
        view(4, "10.244.3.9:8080", NODE, Side::Server, (0.5, 0.9)),
    ];
    let translations = [
        translation((CLIENT, ASKED), (NODE, BACKEND), 0.02, true),
        translation((CLIENT, ASKED), (NODE, "10.244.3.9:8080"), 0.52, true),
    ];
    let verdicts = decide(&views, &translations);
    assert_eq!([1, 2].map(|id| partner(&verdicts, id)), [Some(3), Some(4)]);
}

#[test]
fn where_nobody_can_tell_nobody_gets_the_translation() {
    // It was there already, and two could have had it.
    let views = [
        view(1, CLIENT, ASKED, Side::Client, (0.0, 9.8)),
        view(2, CLIENT, ASKED, Side::Client, (9.9, 20.0)),
        view(3, BACKEND, NODE, Side::Server, (0.0, 20.0)),
    ];
    let verdicts = decide(&views, &[translation((CLIENT, ASKED), (NODE, BACKEND), 10.0, false)]);
    assert!([1, 2, 3].iter().all(|id| partner(&verdicts, *id).is_none()));
    // Two had the tuple at once, in different networks.
    let twins = [
        view(1, CLIENT, ASKED, Side::Client, (0.0, 9.0)),
        view(2, CLIENT, ASKED, Side::Client, (0.0, 9.0)),
        view(3, BACKEND, NODE, Side::Server, (0.0, 9.0)),
    ];
    let verdicts = decide(&twins, &[translation((CLIENT, ASKED), (NODE, BACKEND), 0.1, true)]);
    assert!([1, 2, 3].iter().all(|id| partner(&verdicts, *id).is_none()));
}

#[test]
fn a_view_older_than_its_first_record_takes_a_translation_from_before_it() {
    let mut client = view(1, CLIENT, ASKED, Side::Client, (100.0, 200.0));
    let server = view(2, BACKEND, NODE, Side::Server, (100.0, 200.0));
    let translations = [translation((CLIENT, ASKED), (NODE, BACKEND), 10.0, false)];
    assert_eq!(partner(&decide(&[client.clone(), server.clone()], &translations), 1), None);
    client.opened = false;
    assert_eq!(partner(&decide(&[client, server], &translations), 1), Some(2));
}

#[test]
fn an_opener_without_a_view_is_known_by_its_own_address() {
    let server = view(2, BACKEND, NODE, Side::Server, (0.0, 5.0));
    let origin = |translations: &[Translation]| {
        let verdicts = decide(std::slice::from_ref(&server), translations);
        verdicts[&server.id].origin.map(|origin| (origin.local.to_string(), origin.remote.to_string()))
    };
    let some = |opener: &str, asked: &str| Some((opener.to_owned(), asked.to_owned()));
    assert_eq!(origin(&[]), None);
    let last = translation((CLIENT, ASKED), (NODE, BACKEND), 0.1, false);
    assert_eq!(origin(std::slice::from_ref(&last)), some(CLIENT, ASKED));
    let first = translation(("192.0.2.7:5", "192.0.2.1:443"), (CLIENT, ASKED), 0.1, true);
    assert_eq!(origin(&[last.clone(), first]), some("192.0.2.7:5", "192.0.2.1:443"), "through both");
    let other = translation((OTHER, ASKED), (NODE, BACKEND), 3.0, false);
    assert_eq!(origin(&[last, other]), None, "two openers, and nobody saw either begin");
}

/// Clients behind one node, each with its own connection through it.
fn scene() -> impl Strategy<Value = (Vec<View>, Vec<Translation>)> {
    proptest::collection::vec((0_u8..3, 0_u16..3, 0_u16..3, 0_i64..40, 1_i64..12, any::<bool>()), 1..8).prop_map(
        |calls| {
            let (mut views, mut translations) = (Vec::new(), Vec::new());
            for (number, (client, port, node_port, start, length, began)) in calls.into_iter().enumerate() {
                let number = number as u8;
                let (from, to) = (start as f64 / 2.0, (start + length) as f64 / 2.0);
                let (opener, node) =
                    (format!("10.0.0.{client}:{}", 40000 + port), format!("10.244.2.1:{}", 61000 + node_port));
                views.push(view(2 * number, &opener, ASKED, Side::Client, (from, to)));
                views.push(view(2 * number + 1, BACKEND, &node, Side::Server, (from, to)));
                translations.push(translation((&opener, ASKED), (&node, BACKEND), from + 0.05, began));
            }
            (views, translations)
        },
    )
}

proptest! {
    #[test]
    fn order_and_repetition_of_views_and_translations_change_nothing(
        (views, translations) in scene(), seed in any::<u64>(), again in 0_usize..8,
    ) {
        let expected = decide(&views, &translations);
        let (mut views, mut translations) = (views, translations);
        views.extend(views.clone().into_iter().take(again));
        translations.extend(translations.clone().into_iter().take(again));
        for index in 0..views.len() {
            let other = (seed.rotate_left(index as u32) % views.len() as u64) as usize;
            views.swap(index, other);
            let length = translations.len();
            translations.swap(index % length, other % length);
        }
        prop_assert_eq!(decide(&views, &translations), expected);
    }

    #[test]
    fn a_view_told_in_parts_gives_the_same_answer((views, translations) in scene(), cut in 0_i64..12) {
        let parts: Vec<View> = views.iter().flat_map(|view| {
            let middle = UnixNanos((view.from.0 + cut * SECOND / 2).min(view.to.0));
            [View { to: middle, ..view.clone() }, View { from: middle, ..view.clone() }]
        }).collect();
        prop_assert_eq!(decide(&parts, &translations), decide(&views, &translations));
    }

    /// Ports of clients and of the node are used again after two seconds; any translation may not be told. Whoever pairs
    /// is of one connection.
    #[test]
    fn two_clients_behind_one_node_never_merge((views, translations) in scene(), keep in any::<u8>()) {
        let clash = |a: &View, b: &View| {
            a.tuple == b.tuple && a.from.0 <= b.to.0 + 2 * SECOND && b.from.0 <= a.to.0 + 2 * SECOND
        };
        let (mut kept, mut told): (Vec<View>, Vec<Translation>) = (Vec::new(), Vec::new());
        for (index, (ends, translation)) in views.chunks(2).zip(translations).enumerate() {
            if ends.iter().any(|view| kept.iter().any(|held| clash(held, view))) {
                continue;
            }
            kept.extend_from_slice(ends);
            if keep >> (index % 8) & 1 == 1 {
                told.push(translation);
            }
        }
        let verdicts = decide(&kept, &told);
        for ends in kept.chunks(2) {
            let [client, server] = [ends[0].id, ends[1].id].map(|id| verdicts[&id].counterpart);
            prop_assert!(client.is_none_or(|other| other == ends[1].id), "{client:?}");
            prop_assert!(server.is_none_or(|other| other == ends[0].id), "{server:?}");
            let is_told = told.iter().any(|told| {
                told.began && told.original == ends[0].tuple && told.seen.0 == ends[0].from.0 + SECOND / 20
            });
            prop_assert!(!is_told || client.is_some());
        }
    }
}
