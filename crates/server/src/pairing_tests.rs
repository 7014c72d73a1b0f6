//! Pairing's promises.

use super::*;
use proptest::prelude::*;

/// Where nothing is translated between the nodes.
fn pair(views: impl IntoIterator<Item = View>) -> HashMap<ConnectionId, Verdict> {
    super::pair(views, &BTreeSet::new())
}

fn tuple(local: &str, remote: &str) -> Tuple {
    Tuple { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
}

fn view(id: u8, local: &str, remote: &str, claim: Option<Side>, life: (i64, i64)) -> View {
    View {
        id: ConnectionId([id; 16]),
        protocol: Protocol::Tcp,
        netns: 1,
        tuple: tuple(local, remote),
        claim: claim.map(|side| (side, Certainty::Known)),
        from: UnixNanos(life.0 * 1_000_000_000),
        to: UnixNanos(life.1.saturating_mul(1_000_000_000)),
        opened: true,
    }
}

const A: &str = "10.0.0.1:40000";
const B: &str = "10.0.0.2:80";
const SERVER: Option<Side> = Some(Side::Server);
const CLIENT: Option<Side> = Some(Side::Client);

fn counted(views: &[View]) -> Vec<u8> {
    let verdicts = pair(views.iter().cloned());
    let mut ids: Vec<u8> =
        views.iter().filter(|view| !verdicts[&view.id].is_counted_by_client()).map(|view| view.id.0[0]).collect();
    ids.dedup();
    ids
}

#[test]
fn of_two_views_the_client_counts() {
    let views = [view(1, B, A, SERVER, (0, 10)), view(2, A, B, CLIENT, (0, 10))];
    assert_eq!(counted(&views), [2]);
    let verdicts = pair(views);
    assert_eq!(verdicts[&ConnectionId([1; 16])].counterpart, Some(ConnectionId([2; 16])));
    assert_eq!(verdicts[&ConnectionId([2; 16])].certainty, Certainty::Known);
}

#[test]
fn a_server_view_alone_stays_unpaired() {
    let verdicts = pair([view(1, B, A, SERVER, (0, 10))]);
    assert!(verdicts[&ConnectionId([1; 16])].is_unpaired_server());
}

#[test]
fn a_tuple_used_again_later_is_another_connection() {
    let views = [view(1, A, B, CLIENT, (0, 10)), view(2, B, A, SERVER, (0, 10)), view(3, B, A, SERVER, (100, 110))];
    assert_eq!(counted(&views), [1, 3]);
}

#[test]
fn clocks_that_are_apart_count_nothing_twice() {
    let views = [view(1, A, B, CLIENT, (0, 10)), view(2, B, A, SERVER, (1500, 1510))];
    assert_eq!(counted(&views), [1]);
    // Each finds its own, whatever the clocks say.
    let views = [
        view(1, A, B, CLIENT, (0, 10)),
        view(2, A, B, CLIENT, (100, 110)),
        view(3, B, A, SERVER, (900, 910)),
        view(4, B, A, SERVER, (1000, 1010)),
    ];
    assert_eq!(counted(&views), [1, 2]);
    let views = [view(1, A, B, CLIENT, (0, 10)), view(2, B, A, SERVER, (4000, 4010))];
    assert_eq!(counted(&views), [1, 2], "beyond an hour it is another connection");
}

#[test]
fn if_both_claim_to_be_the_client_the_smaller_tuple_is() {
    let verdicts = pair([view(1, B, A, CLIENT, (0, 10)), view(2, A, B, CLIENT, (0, 10))]);
    assert_eq!(verdicts[&ConnectionId([2; 16])].side, Side::Client);
    assert_eq!(verdicts[&ConnectionId([1; 16])].side, Side::Server);
    assert_eq!(verdicts[&ConnectionId([1; 16])].certainty, Certainty::Inferred);
    let verdicts = pair([view(1, B, A, SERVER, (0, 10)), view(2, A, B, SERVER, (0, 10))]);
    assert_eq!(verdicts[&ConnectionId([2; 16])].side, Side::Client);
}

#[test]
fn a_surer_claim_beats_the_rule_of_the_smaller_tuple() {
    let mut guess = view(2, A, B, CLIENT, (0, 10));
    guess.claim = Some((Side::Client, Certainty::Inferred));
    let verdicts = pair([view(1, B, A, CLIENT, (0, 10)), guess]);
    assert_eq!(verdicts[&ConnectionId([1; 16])].side, Side::Client);
}

#[test]
fn without_a_claim_a_lone_view_stands_on_the_clients_side_and_is_unknown() {
    for (local, remote) in [(A, B), (B, A)] {
        let verdict = pair([view(1, local, remote, None, (0, 10))])[&ConnectionId([1; 16])];
        assert_eq!((verdict.side, verdict.certainty), (Side::Client, Certainty::Unknown));
    }
}

#[test]
fn loopback_views_pair_only_within_a_namespace() {
    let client = view(1, "127.0.0.1:40000", "127.0.0.1:80", CLIENT, (0, 10));
    let mut server = view(2, "127.0.0.1:80", "127.0.0.1:40000", SERVER, (0, 10));
    assert_eq!(counted(&[client.clone(), server.clone()]), [1]);
    server.netns = 2;
    assert_eq!(counted(&[client, server]), [1, 2]);
}

#[test]
fn a_socket_that_does_not_tell_its_address_takes_the_one_its_peer_knows() {
    let mut client = view(1, "10.0.0.1:5000", "10.0.0.2:53", CLIENT, (0, 10));
    let mut server = view(2, "0.0.0.0:53", "10.0.0.1:5000", SERVER, (0, 10));
    client.protocol = Protocol::Udp;
    server.protocol = Protocol::Udp;
    let verdicts = pair([client.clone(), server.clone()]);
    assert!(verdicts[&server.id].is_counted_by_client());
    assert_eq!(verdicts[&server.id].tuple.local, "10.0.0.2:53".parse().unwrap());
    let elsewhere = View { id: ConnectionId([3; 16]), tuple: tuple("10.0.0.1:5000", "10.0.0.3:53"), ..client.clone() };
    assert!(pair([client, server.clone(), elsewhere])[&server.id].is_unpaired_server());
}

#[test]
fn a_socket_connected_to_itself_has_no_other_end() {
    let verdict = pair([view(1, A, A, SERVER, (0, 1))])[&ConnectionId([1; 16])];
    assert_eq!(verdict.counterpart, None);
}

prop_compose! {
    fn any_view()(
        id in 0u8..12, ends in 0usize..6, claim in proptest::option::of((any::<bool>(), 0usize..3)),
        from in 0i64..20, length in 0i64..8, netns in 0u32..2, udp in any::<bool>(),
    ) -> View {
        let all = ["10.0.0.1:1", "10.0.0.2:2", "127.0.0.1:3", "127.0.0.1:4", "0.0.0.0:2", "10.0.0.1:1"];
        View {
            id: ConnectionId([id; 16]),
            protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
            netns,
            tuple: tuple(all[ends], all[(ends + 1 + usize::from(id % 2)) % 6]),
            claim: claim.map(|(client, certainty)| (
                if client { Side::Client } else { Side::Server },
                [Certainty::Unknown, Certainty::Inferred, Certainty::Known][certainty],
            )),
            from: UnixNanos(from * 500_000_000),
            to: UnixNanos((from + length) * 500_000_000),
            opened: udp,
        }
    }
}

proptest! {
    #[test]
    fn any_order_and_repetition_gives_the_same_answer(
        views in proptest::collection::vec(any_view(), 0..24), seed in any::<u64>(), again in 0usize..24,
    ) {
        // One view an id, as the state has it; repetition and order are the test's.
        let unique: BTreeMap<ConnectionId, View> = views.into_iter().map(|view| (view.id, view)).collect();
        let views: Vec<View> = unique.into_values().collect();
        let expected = pair(views.clone());
        let mut shuffled = views.clone();
        shuffled.extend(views.iter().take(again).cloned());
        let length = shuffled.len().max(1) as u64;
        for index in 0..shuffled.len() {
            shuffled.swap(index, (seed.rotate_left(index as u32) % length) as usize);
        }
        prop_assert_eq!(pair(shuffled), expected);
    }

    #[test]
    fn a_lifetime_told_in_parts_gives_the_same_answer(view in any_view(), other in any_view(), cut in 0i64..8) {
        prop_assume!(view.id != other.id);
        let middle = UnixNanos((view.from.0 + cut * 500_000_000).min(view.to.0));
        let parts = [View { to: middle, ..view.clone() }, View { from: middle, ..view.clone() }, other.clone()];
        prop_assert_eq!(pair(parts), pair([view, other]));
    }

    #[test]
    fn every_flow_is_counted_from_exactly_one_side(views in proptest::collection::vec(any_view(), 0..24)) {
        let unique: BTreeMap<ConnectionId, View> = views.into_iter().map(|view| (view.id, view)).collect();
        let verdicts = pair(unique.values().cloned());
        prop_assert_eq!(verdicts.len(), unique.len());
        for verdict in verdicts.values() {
            if let Some(counterpart) = verdict.counterpart {
                prop_assert_ne!(verdicts[&counterpart].side, verdict.side);
                prop_assert!(verdicts[&counterpart].counterpart.is_some());
            }
        }
    }
}
