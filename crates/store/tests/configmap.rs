//! ConfigMaps keep the contract of a shared state, are written only over what was read, by one owner, whatever the API
//! server answers, and refuse to be outgrown.

#![cfg(test)]

#[allow(dead_code, reason = "the parts that the folder alone promises are used by its own tests")]
mod contract;

use contract::shared::{All, Place, all};
use contract::{fact, transaction};
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use weir_discovery::kubernetes::client::Access;
use weir_discovery::kubernetes::pace::Pace;
use weir_model::{Bytes, Fact, NodeName, Tuple, UnixNanos};
use weir_store::configmap::{BYTES_MAX, ConfigMapState, LEASE_MIN, Options, ROW_BYTES_MAX};
use weir_store::shared::{Forgotten, SharedChanges, SharedState};
use weir_store::{StoreError, Transaction};
use weir_testkit::cluster::kubernetes::faults::Fault;
use weir_testkit::cluster::kubernetes::{ApiServer, Tls};

/// A namespace of a stand-in's.
struct Namespace {
    api: Arc<ApiServer>,
    folder: tempfile::TempDir,
    name: String,
}

impl Namespace {
    fn of(api: &Arc<ApiServer>, name: &str) -> Self {
        api.put("namespaces", json!({"metadata": {"name": name}})).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), api.token()).unwrap();
        if let Some(ca) = api.ca() {
            std::fs::write(folder.path().join("ca.pem"), ca).unwrap();
        }
        Self { api: Arc::clone(api), folder, name: name.to_owned() }
    }

    fn new() -> Self {
        Self::of(&Arc::new(ApiServer::start(Tls::Off).unwrap()), "weir")
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder.path().join(name)).filter(|path| path.exists())
    }

    fn options(&self) -> Options {
        Options {
            access: Access { url: self.api.url(), token_file: self.file("token"), ca_file: self.file("ca.pem") },
            pace: Pace::new(|| UnixNanos(1)),
            namespace: self.name.clone(),
            prefix: "weir".into(),
            bytes_max: BYTES_MAX,
            lease: Duration::from_secs(60),
            holder: format!("process {} of the test", std::process::id()),
        }
    }

    fn open(&self) -> ConfigMapState {
        ConfigMapState::open(&self.options()).unwrap()
    }

    fn object(&self, name: &str) -> Option<Value> {
        self.api.object("configmaps", &self.name, name)
    }

    /// As somebody writes who looks at no version.
    fn overwrite(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.object(name).unwrap();
        change(&mut object);
        object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        self.api.put("configmaps", object).unwrap();
    }

    /// In which ConfigMaps each row of a kind lies.
    fn lying(&self, kind: &str) -> BTreeMap<String, Vec<String>> {
        let mut lying: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for object in self.api.objects("configmaps").unwrap() {
            let name = object["metadata"]["name"].as_str().unwrap();
            if object["metadata"]["namespace"] != *self.name || !name.starts_with(&format!("weir-{kind}-")) {
                continue;
            }
            for key in object["data"].as_object().into_iter().flat_map(|data| data.keys()) {
                lying.entry(key.clone()).or_default().push(name.to_owned());
            }
        }
        lying
    }

    /// Lets the next `times` calls of a kind go wrong after `skip` good ones.
    fn fault(&self, verb: &str, fault: Fault, skip: usize, times: usize) {
        self.api.fault(&format!("configmaps/{verb}"), false, fault, skip, times);
    }
}

impl Place for Namespace {
    fn open(&self) -> Result<Arc<dyn SharedState>, StoreError> {
        Ok(Arc::new(ConfigMapState::open(&self.options())?))
    }

    fn raise_format(&self) {
        self.overwrite("weir-owner", |owner| owner["metadata"]["annotations"]["weir/format"] = json!("2"));
    }

    fn open_with_wrong_credentials(&self) -> Option<Result<Arc<dyn SharedState>, StoreError>> {
        let guessed = self.folder.path().join("guessed");
        std::fs::write(&guessed, "guessed").unwrap();
        let access = Access { token_file: Some(guessed), ..self.options().access };
        let opened = ConfigMapState::open(&Options { access, ..self.options() });
        Some(opened.map(|store| Arc::new(store) as Arc<dyn SharedState>))
    }

    fn row_bytes_max(&self) -> Option<usize> {
        Some(ROW_BYTES_MAX)
    }

    fn many(&self) -> u64 {
        2_500
    }
}

fn put(store: &dyn SharedState, transactions: Vec<Transaction>) -> Result<u64, StoreError> {
    store.merge(&SharedChanges { transactions, ..SharedChanges::default() })
}

fn say(store: &dyn SharedState, facts: Vec<Fact>) -> Result<u64, StoreError> {
    store.merge(&SharedChanges { facts, ..SharedChanges::default() })
}

/// A row of another node.
fn of_node(node: &str, cookie: u64) -> Transaction {
    let mut row = transaction(cookie, 100);
    row.key.node = NodeName(node.into());
    row
}

fn sent(cookie: u64, bytes: u64) -> Transaction {
    let mut row = transaction(cookie, 100);
    row.totals.sent = Bytes(bytes);
    row
}

fn sent_of(all: &All) -> Vec<u64> {
    all.transactions.values().map(|row| row.totals.sent.0).collect()
}

#[test]
fn it_keeps_the_contract_of_shared_state() {
    let api = Arc::new(ApiServer::start(Tls::On).unwrap());
    let made = Cell::new(0);
    contract::shared::shared(|| {
        made.set(made.get() + 1);
        Namespace::of(&api, &format!("weir-{}", made.get()))
    });
}

#[test]
fn rows_lie_where_a_person_looks_for_them_those_of_ipv6_too() {
    let place = Namespace::new();
    let store = place.open();
    let six = Transaction {
        tuple: Tuple::new("fd00::1".parse().unwrap(), 40000, "fd00::2".parse().unwrap(), 80),
        ..transaction(2, 100)
    };
    let odd = Fact { node: NodeName("Node_B".into()), ..fact("c/1", 5, "front", None) };
    store
        .merge(&SharedChanges {
            transactions: vec![transaction(1, 100), six.clone()],
            facts: vec![fact("c/1", 5, "front", None), odd],
            counters: BTreeMap::from([("facts_evicted".to_owned(), 3)]),
        })
        .unwrap();
    let rows = place.object("weir-transactions-a-0").unwrap();
    let key = format!("fd00__1-fd00__2-40000-80.{}", six.id().to_hex());
    let row: Value = serde_json::from_str(rows["data"][&key].as_str().unwrap()).unwrap();
    assert_eq!(row["ends"]["local"], "[fd00::1]:40000");
    assert_eq!(all(&store).transactions[&six.id()], six);
    let key = format!("10.0.0.1-10.0.0.2-1001-80.{}", transaction(1, 100).id().to_hex());
    assert!(rows["data"][&key].is_string());
    assert_eq!(rows["metadata"]["annotations"]["weir/node"], "a");
    assert_eq!(place.object("weir-counters--0").unwrap()["data"]["facts_evicted"], "3");
    let facts = place.lying("metadata");
    assert_eq!(facts.len(), 2);
    assert!(facts.keys().all(|key| key.starts_with("10.0.0.1.container.cri.")), "{facts:?}");
    assert!(facts.values().flatten().any(|name| name.starts_with("weir-metadata-node-b-")), "{facts:?}");
    // The owner is a ConfigMap of its own, and nobody else's are touched.
    place.api.put("configmaps", json!({"metadata": {"name": "weir-stranger", "namespace": "weir"}})).unwrap();
    drop(store);
    assert_eq!(all(&place.open()).transactions.len(), 2);
}

#[test]
fn what_leaves_takes_its_configmap_along() {
    let place = Namespace::new();
    let store = place.open();
    put(&store, vec![transaction(1, 100), of_node("b", 2)]).unwrap();
    let transactions = vec![(&of_node("b", 2)).into()];
    store.forget(&Forgotten { transactions, facts: Vec::new() }).unwrap();
    assert_eq!(place.object("weir-transactions-b-0"), None);
    assert_eq!(all(&store).transactions.len(), 1);
    put(&store, vec![of_node("b", 2)]).unwrap();
    assert_eq!(all(&store).transactions.len(), 2);
}

#[test]
fn what_somebody_else_wrote_is_merged_and_what_somebody_overwrote_is_written_again() {
    let place = Namespace::new();
    let store = place.open();
    put(&store, vec![sent(1, 10), sent(2, 10)]).unwrap();
    let name = "weir-transactions-a-0";
    // Another's reading of the first row, and the second one gone, as the first system overwrote it.
    let mut other = sent(1, 5);
    other.totals.recv = Bytes(77_777);
    let text = String::from_utf8(weir_store::shared::rows::encode_transaction(&other).unwrap()).unwrap();
    let key = format!("10.0.0.1-10.0.0.2-1001-80.{}", other.id().to_hex());
    place.overwrite(name, |object| object["data"] = json!({key: text}));
    assert_eq!(sent_of(&all(&store)), [5], "the overwriting lost two updates");
    put(&store, vec![sent(3, 10)]).unwrap();
    let found = all(&store);
    assert_eq!(sent_of(&found), [10, 10, 10]);
    assert_eq!(found.transactions[&other.id()].totals.recv, Bytes(77_777));
    assert_eq!(store.counts()["configmap_conflicts"], 1);
    // Deleted by hand, and by hand made anew.
    place.api.delete("configmaps", "weir", name).unwrap();
    put(&store, vec![sent(3, 11)]).unwrap();
    assert_eq!(sent_of(&all(&store)).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([10, 11]));
    place.overwrite(name, |object| {
        object["metadata"]["uid"] = json!("another");
        object["data"] = json!({});
    });
    let transactions = vec![(&sent(1, 0)).into()];
    store.forget(&Forgotten { transactions, facts: Vec::new() }).unwrap();
    assert_eq!(all(&store).transactions.len(), 2, "what left stays away, the others are there again");
}

#[test]
fn whatever_becomes_of_a_write_nothing_is_lost_and_nothing_comes_back() {
    for fault in [
        Fault::Break,
        Fault::Close,
        Fault::FailAfter(504),
        Fault::Fail(500),
        Fault::Fail(503),
        Fault::Busy { retry_after: 0 },
    ] {
        let place = Namespace::new();
        let store = place.open();
        place.fault("create", fault.clone(), 0, 1);
        put(&store, vec![sent(1, 10), sent(2, 10)]).unwrap();
        assert_eq!(sent_of(&all(&store)), [10, 10], "{fault:?} of a create");
        place.fault("update", fault.clone(), 0, 2);
        put(&store, vec![sent(1, 20), of_node("b", 3)]).unwrap();
        assert_eq!(all(&store).transactions.len(), 3, "{fault:?} of an update");
        assert_eq!(all(&store).transactions[&sent(1, 0).id()].totals.sent, Bytes(20));
        place.fault("delete", fault.clone(), 0, 1);
        place.fault("update", fault.clone(), 0, 1);
        let transactions = vec![(&sent(2, 0)).into(), (&of_node("b", 3)).into()];
        store.forget(&Forgotten { transactions, facts: Vec::new() }).unwrap();
        assert_eq!(sent_of(&all(&store)), [20], "{fault:?} of a delete");
        assert_eq!(place.object("weir-transactions-b-0"), None, "{fault:?}");
        assert!(store.counts()["configmap_retries"] >= 5, "{fault:?}: {:?}", store.counts());
        // What is there already is not written again.
        let writes = store.counts()["configmap_writes"];
        put(&store, vec![sent(1, 20)]).unwrap();
        assert_eq!(store.counts()["configmap_writes"], writes);
    }
}

#[test]
fn half_a_list_is_asked_for_again_and_one_whose_moment_is_gone_begins_anew() {
    let place = Namespace::new();
    let store = place.open();
    let nodes = ["a", "b", "c", "d", "e", "f"];
    put(&store, nodes.iter().zip(1..).map(|(node, cookie)| of_node(node, cookie)).collect()).unwrap();
    place.api.fault("configmaps", false, Fault::Break, 1, 1);
    assert_eq!(all(&store).transactions.len(), 6);
    let mut rows = 0;
    store
        .read(&mut |_| {
            rows += 1;
            if rows == 1 {
                put(&store, vec![of_node("a", 9)])?;
                place.api.compact();
            }
            Ok(())
        })
        .unwrap();
    assert!(rows >= 7 + 3, "a page, and everything: {rows}");
    // A page that never comes to its end is an error, and not an empty state.
    place.api.fault("configmaps", false, Fault::Fail(500), 0, 100);
    let error = store.read(&mut |_| Ok(())).unwrap_err();
    assert!(matches!(error, StoreError::Remote { action: "read", .. }), "{error}");
}

#[test]
fn an_api_server_that_only_fails_is_told_and_the_same_call_completes_it_later() {
    let place = Namespace::new();
    let store = place.open();
    put(&store, vec![sent(1, 10)]).unwrap();
    place.fault("update", Fault::Fail(500), 0, 100);
    let error = put(&store, vec![sent(1, 20)]).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("answers 500") && text.contains(&place.api.url()), "{text}");
    assert_eq!(sent_of(&all(&store)), [10]);
    place.api.heal();
    put(&store, vec![sent(1, 20)]).unwrap();
    assert_eq!(sent_of(&all(&store)), [20]);
}

#[test]
fn a_busy_api_server_is_left_in_peace_for_as_long_as_it_asks() {
    let place = Namespace::new();
    let store = place.open();
    put(&store, vec![sent(1, 10)]).unwrap();
    place.fault("update", Fault::Busy { retry_after: 1 }, 0, 1);
    put(&store, vec![sent(1, 20)]).unwrap();
    assert_eq!(sent_of(&all(&store)), [20]);
    let seen = place.api.seen();
    let updates: Vec<Duration> =
        seen.iter().filter(|seen| seen.resource == "configmaps/update").filter_map(|seen| seen.at).collect();
    let [.., refused, done] = updates[..] else { panic!("{seen:?}") };
    assert!(done >= refused + Duration::from_millis(950), "{refused:?} {done:?}");
}

/// A fact of about so many bytes.
fn large(id: u64, said: i64, bytes: usize) -> Fact {
    fact(&id.to_string(), said, &"n".repeat(bytes), None)
}

#[test]
fn a_limit_below_what_kubernetes_promises_makes_smaller_configmaps() {
    let place = Namespace::new();
    let store = place.open();
    // Something between that takes no bodies of 600 KiB.
    say(&store, (0..100).map(|id| large(id, 1, 5_000)).collect()).unwrap();
    assert_eq!(place.lying("metadata").values().flatten().collect::<BTreeSet<_>>().len(), 1);
    place.fault("update", Fault::Fail(413), 0, 1);
    say(&store, (100..120).map(|id| large(id, 1, 5_000)).collect()).unwrap();
    let lying = place.lying("metadata");
    assert_eq!(lying.len(), 120);
    assert!(lying.values().all(|names| names.len() == 1), "{lying:?}");
    assert_eq!(lying.values().flatten().collect::<BTreeSet<_>>().len(), 2);
    assert_eq!(all(&store).facts.len(), 120);
    // Where nothing at all is taken, that is said.
    place.fault("update", Fault::Fail(413), 0, 100);
    let error = say(&store, vec![large(1, 2, 5_000)]).unwrap_err().to_string();
    assert!(error.contains("answers 413"), "{error}");
}

#[test]
fn rows_of_a_configmap_that_grows_too_large_move_and_a_move_that_was_cut_short_is_ended() {
    let place = Namespace::new();
    let expected = {
        let store = place.open();
        say(&store, (0..230).map(|id| large(id, 1, 3_000)).collect()).unwrap();
        assert_eq!(place.lying("metadata").values().flatten().collect::<BTreeSet<_>>().len(), 1);
        // Its own rows, then those that move to the new one, and when they shall leave their old place nobody answers.
        place.fault("update", Fault::Fail(500), 2, 4);
        say(&store, (0..230).map(|id| large(id, 2, 4_000)).collect()).unwrap_err();
        let lying = place.lying("metadata");
        assert!(lying.values().filter(|names| names.len() == 2).count() > 10, "{lying:?}");
        all(&store)
    };
    assert_eq!(expected.facts.len(), 230);
    let store = place.open();
    let lying = place.lying("metadata");
    assert_eq!(lying.len(), 230);
    assert!(lying.values().all(|names| names.len() == 1), "each lies in one place: {lying:?}");
    assert_eq!(lying.values().flatten().collect::<BTreeSet<_>>().len(), 2);
    say(&store, (0..230).map(|id| large(id, 2, 4_000)).collect()).unwrap();
    assert!(all(&store).facts.values().all(|fact| fact.said == UnixNanos(2)));
    // The same without a failure.
    say(&store, (0..230).map(|id| large(id, 3, 5_000)).collect()).unwrap();
    assert!(store.counts()["configmap_rows_moved"] > 10, "{:?}", store.counts());
    assert!(all(&store).facts.values().all(|fact| fact.said == UnixNanos(3)));
    assert!(place.lying("metadata").values().all(|names| names.len() == 1));
}

#[test]
fn a_cluster_that_outgrows_them_is_refused_with_advice_until_there_is_room_again() {
    let place = Namespace::new();
    let store = ConfigMapState::open(&Options { bytes_max: 64 << 10, ..place.options() }).unwrap();
    put(&store, (0..60).map(|cookie| transaction(cookie, 100)).collect()).unwrap();
    let more: Vec<Transaction> = (60..120).map(|cookie| transaction(cookie, 100)).collect();
    for _ in 0..2 {
        let error = put(&store, more.clone()).unwrap_err().to_string();
        for word in ["64 KiB", "--configmap-bytes", "--state etcd", "--state embedded", "nothing acknowledged is lost"]
        {
            assert!(error.contains(word), "{error}");
        }
    }
    assert_eq!(all(&store).transactions.len(), 60);
    // What grows a little goes on as long as it does not grow, and what leaves makes room.
    put(&store, vec![transaction(0, 101)]).unwrap();
    let transactions = (0..60).map(|cookie| (&transaction(cookie, 100)).into()).collect();
    store.forget(&Forgotten { transactions, facts: Vec::new() }).unwrap();
    put(&store, more).unwrap();
    assert_eq!(all(&store).transactions.len(), 60);
}

#[test]
fn a_node_that_outgrows_its_configmaps_is_named() {
    let place = Namespace::new();
    let store = place.open();
    let error = say(&store, (0..140).map(|id| large(id, 1, 50_000)).collect()).unwrap_err().to_string();
    assert!(error.contains("the metadata of node a outgrow 8 ConfigMaps of 800 KiB"), "{error}");
    assert!(error.contains("--state etcd"), "{error}");
}

#[test]
fn who_is_not_let_in_is_told_which_rule_or_token_is_missing() {
    let place = Namespace::new();
    let store = place.open();
    put(&store, vec![transaction(1, 100)]).unwrap();
    place.fault("update", Fault::Refuse, 0, 1);
    let refused = put(&store, vec![transaction(1, 101)]).unwrap_err().to_string();
    let rule = r#"in namespace weir, a Role with {apiGroups: [""], resources: ["configmaps"], verbs: ["get", "list", "create", "update", "delete"]}"#;
    assert!(refused.contains(rule), "{refused}");
    place.fault("update", Fault::Unauthorized, 0, 1);
    let unknown = put(&store, vec![transaction(1, 101)]).unwrap_err().to_string();
    assert!(unknown.contains("--kubernetes-token-file"), "{unknown}");
    drop(store);
    place.fault("get", Fault::Refuse, 0, 1);
    let refused = ConfigMapState::open(&place.options()).unwrap_err().to_string();
    assert!(refused.contains(rule), "{refused}");
    let nowhere = ConfigMapState::open(&Options { namespace: "nowhere".into(), ..place.options() }).unwrap_err();
    assert!(nowhere.to_string().contains("is there a namespace nowhere?"), "{nowhere}");
    let plain = Access { url: "http://192.0.2.1:6443".into(), ..place.options().access };
    let plain = ConfigMapState::open(&Options { access: plain, ..place.options() }).unwrap_err();
    assert!(plain.to_string().contains("in the clear"), "{plain}");
}

#[test]
fn what_is_not_weirs_or_no_row_is_named_and_left_alone() {
    let place = Namespace::new();
    let store = place.open();
    put(&store, vec![transaction(1, 100)]).unwrap();
    drop(store);
    let name = "weir-transactions-a-0";
    let good = place.object(name).unwrap();
    let first = good["data"].as_object().unwrap().values().next().unwrap().clone();
    for (data, annotation, text) in [
        (json!({"10.0.0.1-10.0.0.2-1001-80.00": first}), "a", "its value belongs under 10.0.0.1-10.0.0.2-1001-80."),
        (json!({"garbage": "{"}), "a", "ConfigMap weir-transactions-a-0: key garbage: "),
        (good["data"].clone(), "b", "ConfigMap weir-transactions-a-0: it is not what its annotations say"),
    ] {
        place.overwrite(name, |object| {
            object["data"] = data;
            object["metadata"]["annotations"]["weir/node"] = json!(annotation);
        });
        let before = place.object(name).unwrap();
        let error = ConfigMapState::open(&place.options()).unwrap_err().to_string();
        assert!(error.contains(text) && error.contains("delete"), "{error}");
        assert_eq!(place.object(name).unwrap(), before);
    }
    // The name of a shard that is to be made is taken by somebody else's.
    place.overwrite(name, |object| *object = good);
    place.api.put("configmaps", json!({"metadata": {"name": "weir-transactions-b-0", "namespace": "weir"}})).unwrap();
    let store = place.open();
    let error = put(&store, vec![of_node("b", 1)]).unwrap_err().to_string();
    assert!(error.contains("ConfigMap weir-transactions-b-0: it is not what its annotations say"), "{error}");
}

#[test]
fn a_second_owner_is_refused_and_told_who_the_first_is_until_that_lets_go() {
    let place = Namespace::new();
    let options = Options { lease: LEASE_MIN, ..place.options() };
    let first =
        ConfigMapState::open(&Options { holder: "process 7 on the first node".into(), ..options.clone() }).unwrap();
    let error = ConfigMapState::open(&options).unwrap_err();
    assert!(matches!(error, StoreError::Owned { .. }), "{error}");
    assert!(error.to_string().contains("process 7 on the first node owns it"), "{error}");
    put(&first, vec![transaction(1, 100)]).unwrap();
    drop(first);
    // Nobody is watched for any more.
    let second = ConfigMapState::open(&Options { lease: Duration::from_secs(60), ..options }).unwrap();
    assert_eq!(all(&second).transactions.len(), 1);
    assert_eq!(place.object("weir-owner").unwrap()["data"]["holder"], second_holder(&place));
}

fn second_holder(place: &Namespace) -> String {
    place.options().holder
}

/// As a server that took over writes it.
fn usurp(place: &Namespace, holder: &str) {
    place.overwrite("weir-owner", |owner| {
        owner["data"]["number"] = json!("another");
        owner["data"]["holder"] = json!(holder);
        owner["data"]["lease_seconds"] = json!("2");
    });
}

#[test]
fn an_owner_that_writes_no_more_is_replaced_after_its_lease() {
    let place = Namespace::new();
    let store = place.open();
    put(&store, vec![transaction(1, 100)]).unwrap();
    drop(store);
    // As one that was killed leaves it.
    usurp(&place, "process 8 that was killed");
    let store = place.open();
    assert_eq!(all(&store).transactions.len(), 1);
    assert_eq!(place.object("weir-owner").unwrap()["data"]["holder"], place.options().holder);
    put(&store, vec![transaction(2, 100)]).unwrap();
    assert_eq!(all(&store).transactions.len(), 2);
}

fn is_lost<T: std::fmt::Debug>(outcome: Result<T, StoreError>) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, StoreError::Lost { .. }), "{error}");
    assert!(error.to_string().contains("process 8 on another node owns it now"), "{error}");
}

#[test]
fn a_former_owner_cannot_write_a_row_whichever_way_it_tries() {
    for way in ["over what its successor wrote over", "into a ConfigMap of its own", "nothing", "away what is there"] {
        let place = Namespace::new();
        let store = place.open();
        put(&store, vec![sent(1, 10)]).unwrap();
        usurp(&place, "process 8 on another node");
        let name = "weir-transactions-a-0";
        place.overwrite(name, |shard| shard["metadata"]["annotations"]["weir/owner"] = json!("another"));
        let before = place.object(name).unwrap();
        match way {
            "over what its successor wrote over" => is_lost(put(&store, vec![sent(1, 20)])),
            "into a ConfigMap of its own" => is_lost(put(&store, vec![of_node("b", 2)])),
            "nothing" => is_lost(store.tidy()),
            _ => is_lost(store.forget(&Forgotten { transactions: vec![(&sent(1, 0)).into()], facts: Vec::new() })),
        }
        // And it knows from then on.
        is_lost(put(&store, vec![of_node("c", 3)]));
        assert_eq!(place.object(name).unwrap(), before, "{way}");
        assert_eq!(place.lying("transactions").len(), 1, "{way}");
        drop(store);
        assert_eq!(place.object("weir-owner").unwrap()["data"]["number"], "another", "{way}: it lets go of nothing");
    }
}

#[test]
fn a_record_of_the_owner_that_somebody_deleted_is_made_again_by_the_owner() {
    let place = Namespace::new();
    let store = place.open();
    place.api.delete("configmaps", "weir", "weir-owner").unwrap();
    store.tidy().unwrap();
    assert_eq!(place.object("weir-owner").unwrap()["data"]["holder"], place.options().holder);
    put(&store, vec![transaction(1, 100)]).unwrap();
}
