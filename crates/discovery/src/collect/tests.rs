//! What the list promises: every wrong entry is refused with its place, and what is right selects what it says.

use super::*;
use serde_json::json;

const KINDS: &[&str] = &["pod", "container"];

fn one(entry: &str) -> Collect {
    Collect::parse(&[entry], KINDS).unwrap()
}

fn value(path: &str, object: &Value) -> Option<String> {
    let mut attributes = BTreeMap::new();
    one(&format!("pod.it={path}")).add("pod", object, &mut attributes);
    attributes.remove("it")
}

fn refusal(entries: &[&str]) -> String {
    Collect::parse(entries, KINDS).unwrap_err().to_string()
}

fn pod() -> Value {
    json!({
        "metadata": {
            "labels": {"team": "shop", "app.kubernetes.io/name": "web", "it's": "odd"},
            "annotations": {"empty": "", "none": null},
        },
        "spec": {"containers": [{"name": "a", "port": 80}, {"name": "b", "port": 90}], "priority": 5, "on": true},
    })
}

#[test]
fn a_field_a_label_and_an_annotation_are_selected() {
    let pod = pod();
    for (path, expected) in [
        ("$.metadata.labels.team", "shop"),
        ("$.metadata.labels['app.kubernetes.io/name']", "web"),
        (r#"$["metadata"]["labels"]["team"]"#, "shop"),
        ("{.metadata.labels.team}", "shop"),
        ("{$.metadata.labels.team}", "shop"),
        (r"{.metadata.labels.app\.kubernetes\.io/name}", "web"),
        ("{.metadata.labels['app.kubernetes.io/name']}", "web"),
        ("{.metadata.labels.it's}", "odd"),
        ("{.spec.containers[*].name}", "a,b"),
        (r#"{.spec.containers[?(@.name=="b")].port}"#, "90"),
        ("$.spec.containers[?@.port > 85].name", "b"),
        ("{..team}", "shop"),
        ("{.metadata.annotations.empty}", ""),
        ("$.spec.priority", "5"),
        ("$.spec.on", "true"),
        ("$.spec.containers[0]", r#"{"name":"a","port":80}"#),
    ] {
        assert_eq!(value(path, &pod).as_deref(), Some(expected), "{path}");
    }
    for path in ["$.metadata.labels.nobody", "$.metadata.annotations.none", "$.spec.priority.x", "{.spec[7]}"] {
        assert_eq!(value(path, &pod), None, "{path}");
    }
}

#[test]
fn a_wrong_path_is_refused_with_the_character_and_the_reason() {
    for (entry, character, words) in [
        ("pod.team=metadata.labels.team", 10, "begins with $"),
        ("pod.team=$.metadata.[labels", 21, "in these brackets"),
        ("pod.team=$.metadata.labels['team'", 34, "breaks off"),
        ("pod.hash=$.metadata.labels.pod-template-hash", 31, "stands in brackets"),
        ("pod.team=", 10, "breaks off"),
        ("pod.team={.metadata", 20, "ends with }"),
        ("pod.team={}", 11, "no path"),
        ("pod.team={.metadata..}", 22, "a name is missing"),
        ("pod.team={metadata}", 11, "begins with . or ["),
        ("pod.team={.items[0}", 17, "not closed"),
        ("pod.team={.items[x]}", 17, "in these brackets"),
    ] {
        let told = refusal(&[entry]);
        assert!(told.contains(&format!("`{entry}`: character {character}: ")) && told.contains(words), "{told}");
    }
}

#[test]
fn a_wrong_kind_or_name_is_refused_with_the_choice() {
    assert!(refusal(&["team"]).contains("KIND.NAME=JSONPATH"));
    assert!(refusal(&["team=$.a"]).contains("KIND.NAME=JSONPATH"));
    assert!(
        refusal(&["pods.team=$.a"]).contains("character 1: `pods` is no kind that is collected here; there are: pod")
    );
    for (entry, character) in
        [("pod.Team=$.a", 5), ("pod.te am=$.a", 7), ("pod.=$.a", 5), ("pod.1a=$.a", 5), ("pod.a.b=$.a", 6)]
    {
        let told = refusal(&[entry]);
        assert!(told.contains(&format!("character {character}: ")), "{told}");
    }
    assert!(refusal(&[&format!("pod.{}=$.a", "a".repeat(64))]).contains("at most 63"));
    assert!(refusal(&["pod.a=$.a", "container.a=$.a", "pod.a=$.b"]).contains("pod.a is collected already"));
}

#[test]
fn a_name_that_has_a_meaning_already_is_refused() {
    for name in ["image", "owner_kind", "namespace", "phase", "zone", "pids"] {
        let told = refusal(&[&format!("pod.{name}=$.a")]);
        assert!(told.contains("a meaning of its own"), "{told}");
    }
}

#[test]
fn values_and_entries_are_bounded() {
    let long = json!({"a": "ä".repeat(VALUE_BYTES_MAX), "list": vec!["x"; 100]});
    let told = value("$.a", &long).unwrap();
    assert!(told.len() <= VALUE_BYTES_MAX && told.ends_with(CUT), "{}", told.len());
    assert_eq!(value("$.list[*]", &long).unwrap().split(',').count(), VALUES_MAX);
    let many: Vec<String> = (0..=ENTRIES_MAX).map(|index| format!("pod.n{index}=$.a")).collect();
    assert!(matches!(Collect::parse(&many, KINDS), Err(CollectError::Many { count: 65 })));
}

#[test]
fn only_things_of_the_kind_get_the_attribute() {
    let collect = one("pod.team=$.metadata.labels.team");
    let mut attributes = BTreeMap::new();
    collect.add("container", &pod(), &mut attributes);
    assert!(attributes.is_empty() && collect.wants("pod") && !collect.wants("container"));
}

proptest::proptest! {
    #[test]
    fn no_entry_makes_it_panic(entry in "\\PC*", path in "[\\[\\]{}().$@'\"\\\\a-z*?=0-9äß ]{0,24}") {
        let _ = Collect::parse(&[entry], KINDS);
        let _ = Collect::parse(&[format!("pod.x={path}"), format!("pod.y={{{path}}}")], KINDS);
    }
}
