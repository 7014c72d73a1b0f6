//! The reading commands of the real binary against a stand-in server: forms, exit codes, and what people are told.

mod stand_in;

use insta::assert_snapshot;
use stand_in::{
    StandIn, body, command, complete, connection, dns, edges, lossy, metadata, series, status, stderr, stdout, stepped,
    transaction, weir,
};
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;
use weir_wire::api::{Change, Completeness, Edge, Health, Symptom};

#[test]
fn tables_show_rows_and_completeness() {
    let edges = StandIn::answering(200, body(edges(), lossy())).weir(&["edges"]);
    assert_eq!(edges.status.code(), Some(0));
    assert_snapshot!("edges", stdout(&edges));
    let transactions = StandIn::answering(200, body(vec![transaction()], complete())).weir(&["transactions"]);
    assert_snapshot!("transactions", stdout(&transactions));
    let connections = StandIn::answering(200, body(vec![connection("resolver")], complete())).weir(&["connections"]);
    assert_snapshot!("connections", stdout(&connections));
    let metadata = StandIn::answering(200, body(vec![metadata()], complete())).weir(&["metadata"]);
    assert_snapshot!("metadata", stdout(&metadata));
    let series = StandIn::answering(200, body(series(), stepped())).weir(&["series"]);
    assert_eq!(series.status.code(), Some(0));
    assert_snapshot!("series", stdout(&series));
    let dns = StandIn::answering(200, body(vec![dns()], complete())).weir(&["dns"]);
    assert_snapshot!("dns", stdout(&dns));
}

#[test]
fn an_unhealthy_edge_is_exit_code_3_where_health_is_asked_for() {
    let judged = |verdict: &str, texts: &[&str]| {
        let symptom = |text: &&str| Symptom { signal: "refused".into(), text: (*text).into(), ..Symptom::default() };
        let health = Health {
            verdict: verdict.into(),
            symptoms: texts.iter().map(symptom).collect(),
            since: Some("2026-01-31T10:04:00Z".into()),
            past_from: None,
        };
        let mut edge = edges().remove(1);
        edge.health = Some(health);
        edge
    };
    let refused = "20 of 20 connections refused in 30 s, usually none";
    let rows = vec![judged("unhealthy", &[refused, "and more"]), judged("healthy", &[]), judged("unknown", &[])];
    for flag in ["--health", "--unhealthy"] {
        let sick = StandIn::answering(200, body(rows.clone(), complete())).weir(&["edges", flag]);
        assert_eq!(sick.status.code(), Some(3));
        assert!(stdout(&sick).contains(&format!("unhealthy: {refused}; and 1 more")), "{}", stdout(&sick));
    }
    let csv = StandIn::answering(200, body(rows.clone(), complete())).weir(&["edges", "--health", "-o", "csv"]);
    assert_eq!(csv.status.code(), Some(3));
    assert!(
        stdout(&csv).contains(&format!("unhealthy,\"refused: {refused}; refused: and more\",2026-01-31T10:04:00Z,"))
    );
    let well = StandIn::answering(200, body(rows[1..].to_vec(), complete())).weir(&["edges", "--health"]);
    assert_eq!(well.status.code(), Some(0));
    let none = StandIn::answering(200, body(Vec::<Edge>::new(), complete())).weir(&["edges", "--unhealthy"]);
    assert_eq!((none.status.code(), stdout(&none).lines().next()), (Some(0), Some("(no rows) no edge is unhealthy")));
}

#[test]
fn a_change_is_exit_code_3_and_says_what_both_spans_were() {
    let [before, after] = [edges().remove(1), edges().remove(1)];
    let change = |change: &str, text: &str| Change {
        change: change.into(),
        text: text.into(),
        before: (change != "new").then(|| before.clone()),
        after: (change != "gone").then(|| after.clone()),
        ..Change::default()
    };
    let changes = vec![
        change("sicker", "20 of 20 connections refused in 600 s, usually none"),
        change("new", "new since 2026-01-31T10:00:00Z: 3 connections and 900 bytes"),
        change("gone", "gone: it was there in 60 of 60 steps, now in none of 60"),
    ];
    let both = Completeness { before: Some(Box::new(complete())), ..complete() };
    let changed = StandIn::answering(200, body(changes.clone(), both.clone())).weir(&["diff", "--before", "1h"]);
    assert_eq!(changed.status.code(), Some(3), "{}", stderr(&changed));
    assert_snapshot!("diff", stdout(&changed));
    let csv = StandIn::answering(200, body(changes, both.clone())).weir(&["diff", "--before", "1h", "-o", "csv"]);
    assert_snapshot!("diff_csv", stdout(&csv));
    let same = StandIn::answering(200, body(Vec::<Change>::new(), both)).weir(&["diff", "--before", "1h"]);
    assert_eq!(same.status.code(), Some(0));
    assert!(stdout(&same).starts_with("(no rows) nothing changed"), "{}", stdout(&same));
}

#[test]
fn exact_bytes_are_integers() {
    let output = StandIn::answering(200, body(edges(), complete())).weir(&["edges", "--exact"]);
    assert!(stdout(&output).contains("18446744073709551615") && stdout(&output).contains("104857600"));
}

#[test]
fn json_is_the_body_as_it_came() {
    let body = body(edges(), complete()).replace("\"items\"", "\"later\": 1,\n \"items\"");
    let output = StandIn::answering(200, body.clone()).weir(&["edges", "-o", "json"]);
    assert_eq!(stdout(&output), body + "\n");
    assert_eq!(stderr(&output), "");
}

#[test]
fn jsonl_is_an_item_a_line_with_completeness_beside_it() {
    let pretty = serde_json::to_string_pretty(&serde_json::json!({
        "items": [{"key": "a\nb", "unknown_field": [1, 2]}, {"key": "c"}], "completeness": complete(),
    }));
    let output = StandIn::answering(200, pretty.unwrap()).weir(&["transactions", "-o", "jsonl"]);
    let lines: Vec<serde_json::Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, [serde_json::json!({"key": "a\nb", "unknown_field": [1, 2]}), serde_json::json!({"key": "c"})]);
    assert_eq!(stderr(&output), "complete: node alpha covered the 5 min until 10:05:00, nothing lost\n");
}

#[test]
fn csv_has_a_header_and_exact_numbers() {
    let output = StandIn::answering(200, body(edges(), complete())).weir(&["edges", "-o", "csv"]);
    assert_snapshot!("edges_csv", stdout(&output).replace("\r\n", "<CRLF>\n"));
    assert!(stderr(&output).starts_with("complete: "));
    let series = StandIn::answering(200, body(series(), stepped())).weir(&["series", "-o", "csv"]);
    assert_snapshot!("series_csv", stdout(&series).replace("\r\n", "<CRLF>\n"));
    let empty = StandIn::answering(200, body(Vec::<Edge>::new(), complete())).weir(&["edges", "-o", "csv"]);
    assert!(stdout(&empty).starts_with("client_kind,") && stdout(&empty).lines().count() == 1);
}

#[test]
fn names_from_the_network_cannot_steer_a_terminal_or_a_spreadsheet() {
    let row = connection("=cmd|'/c calc'\u{1b}[2J\u{202e}\n");
    let server = StandIn::answering(200, body(vec![row], complete()));
    for form in ["table", "jsonl", "csv", "json"] {
        let text = stdout(&server.weir(&["connections", "-o", form, "--color", "never"]));
        assert!(!text.contains('\u{1b}'), "{form}: {text:?}");
    }
    let table = stdout(&server.weir(&["connections"]));
    assert!(table.contains("=cmd|'/c calc'\\x1b[2J\\u{202e}\\n[123]"), "{table}");
    let csv = stdout(&server.weir(&["connections", "-o", "csv"]));
    assert!(csv.contains(",'=cmd|'/c calc'\\x1b[2J\\u{202e}\\n,"), "{csv}");
}

#[test]
fn no_rows_come_with_a_hint() {
    let none = || Vec::<Edge>::new();
    let quiet = stdout(&StandIn::answering(200, body(none(), complete())).weir(&["edges"]));
    assert!(quiet.starts_with("(no rows) nothing moved in this span"), "{quiet}");
    let narrow = stdout(&StandIn::answering(200, body(none(), complete())).weir(&["edges", "--port", "1"]));
    assert!(narrow.starts_with("(no rows) nothing matches; try fewer filters"), "{narrow}");
    let nobody = stdout(&StandIn::answering(200, body(none(), Completeness::default())).weir(&["edges"]));
    assert!(nobody.starts_with("(no rows) no agent has delivered anything yet"), "{nobody}");
}

#[test]
fn filters_reach_the_server() {
    let server = StandIn::answering(200, body(Vec::<Edge>::new(), complete()));
    server.weir(&[
        "edges",
        "--by",
        "process",
        "--from",
        "a b",
        "--to",
        "c",
        "--since",
        "5m",
        "--until",
        "2026-01-31T10:00:00+01:00",
        "--name",
        "n",
        "--namespace",
        "s",
        "--label",
        "k=v",
        "--cidr",
        "10.0.0.0/8",
        "--port",
        "443",
        "--protocol",
        "tcp",
        "--node",
        "alpha",
        "--filter",
        "port=443 or name=a",
        "--limit",
        "7",
    ]);
    let asked = server.asked();
    assert_eq!(
        asked[0].lines().next(),
        Some(
            "GET /api/v1/edges?by=process&from=a%20b&to=c&port=443&protocol=tcp&since=5m&until=2026-01-31T10%3A00%3A00%2B01%3A00\
             &name=n&namespace=s&label=k%3Dv&cidr=10.0.0.0%2F8&node=alpha&filter=port%3D443%20or%20name%3Da&limit=7 HTTP/1.1"
        )
    );
}

#[test]
fn the_token_is_sent_and_its_absence_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "secret\n").unwrap();
    let server = StandIn::answering(200, body(edges(), complete()));
    server.weir(&["edges", "--token-file", file.to_str().unwrap()]);
    assert!(server.asked()[0].to_lowercase().contains("authorization: bearer secret\r\n"), "{:?}", server.asked());
    let refused = StandIn::answering(401, r#"{"error": "a token is needed"}"#).weir(&["edges"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("a token is needed (pass --token-file FILE)"), "{}", stderr(&refused));
    let missing = weir(&["edges", "--token-file", "/nonexistent/token"]);
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for words in
        [&["edges", "--by", "colour"][..], &["nonsense"], &["edges", "-o", "xml"], &["edges", "--limit", "x"], &[]]
    {
        assert_eq!(weir(words).status.code(), Some(2), "{words:?}");
    }
    let judged = StandIn::answering(400, r#"{"error": "since: `soon` is neither a duration nor a time"}"#)
        .weir(&["edges", "--since", "soon"]);
    assert_eq!(judged.status.code(), Some(2));
    assert_eq!(stderr(&judged), "weir: since: `soon` is neither a duration nor a time\n");
    let url = weir(&["edges", "--server", "localhost:7780"]);
    assert_eq!(url.status.code(), Some(2));
    let endless = weir(&["connections", "-f", "-o", "json"]);
    assert_eq!(endless.status.code(), Some(2));
    assert!(stderr(&endless).contains("-o jsonl"), "{}", stderr(&endless));
}

#[test]
fn a_wrong_filter_is_exit_code_2_with_a_caret_under_its_character() {
    // No server is asked.
    let wrong = weir(&["edges", "--filter", "namespace=shop and prt=443", "--server", "http://127.0.0.1:1"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert_snapshot!("wrong_filter", stderr(&wrong));
    let other = weir(&["metadata", "--filter", "port=443"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).starts_with("weir: filter, column 1: metadata have no field `port`\n  port=443\n  ^\n"));
    // What only the server does not understand is shown in the same way.
    let refusal = r#"{"error": "filter, column 6: too old", "position": {"parameter": "filter", "column": 6, "expected": ["b"]}}"#;
    let judged = StandIn::answering(400, refusal).weir(&["edges", "--filter", "name=a"]);
    assert_eq!(judged.status.code(), Some(2));
    assert_eq!(stderr(&judged), "weir: filter, column 6: too old\n  name=a\n       ^\n  expected: b\n");
}

#[test]
fn a_server_that_is_down_is_exit_code_1_with_the_fix() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    let output = weir(&["edges", "--server", &url]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        format!(
            "weir: no answer from {url}: connection refused; start a server here with `sudo weir up`, or name another with \
             --server URL (`weir doctor` looks further)\n"
        )
    );
}

#[test]
fn an_answer_of_something_else_is_exit_code_1() {
    let page = StandIn::answering(200, "<html>").weir(&["edges"]);
    assert_eq!(page.status.code(), Some(1));
    assert!(stderr(&page).contains("is not what a weir server says"), "{}", stderr(&page));
    let gone = StandIn::answering(404, "").weir(&["edges"]);
    assert_eq!(gone.status.code(), Some(1));
    let broken = StandIn::answering(500, r#"{"error": "the store is full\u001b[2J"}"#).weir(&["edges"]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(stderr(&broken).contains("500: the store is full\\x1b[2J"), "{}", stderr(&broken));
}

#[test]
fn status_judges_by_its_exit_code() {
    let healthy = StandIn::answering(200, body(status("healthy"), complete())).weir(&["status"]);
    assert_eq!(healthy.status.code(), Some(0));
    assert_snapshot!("status_healthy", stdout(&healthy));
    let degraded = StandIn::answering(200, body(status("degraded"), lossy())).weir(&["status"]);
    assert_eq!(degraded.status.code(), Some(0));
    assert_snapshot!("status_degraded", stdout(&degraded));
    let unhealthy = StandIn::answering(200, body(status("unhealthy"), complete())).weir(&["status", "-o", "json"]);
    assert_eq!(unhealthy.status.code(), Some(3));
    let mut silent = complete();
    silent.nodes[0].state = "silent".into();
    let silent = StandIn::answering(200, body(status("healthy"), silent)).weir(&["status", "-o", "csv"]);
    assert_eq!(silent.status.code(), Some(3));
    let mut missing = complete();
    missing.nodes[0].source_state = "missing".into();
    let missing = StandIn::answering(200, body(status("healthy"), missing)).weir(&["status", "-o", "jsonl"]);
    assert_eq!(missing.status.code(), Some(3));
}

#[test]
fn colour_is_for_terminals_unless_asked_for() {
    let server = StandIn::answering(200, body(status("healthy"), complete()));
    let coloured = |words: &[&str], no_color: &str| {
        let url = server.url();
        let words = [words, &["--server", &url]].concat();
        stdout(&command(&words).env("NO_COLOR", no_color).output().unwrap()).contains('\u{1b}')
    };
    assert!(!coloured(&["status"], ""));
    assert!(coloured(&["status", "--color", "always"], ""));
    assert!(coloured(&["status", "--color", "always"], "1"));
    assert!(!coloured(&["status", "--color", "never"], ""));
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let server = StandIn::answering(200, body(vec![transaction(); 20_000], complete()));
    let mut child = command(&["transactions", "-o", "jsonl", "--server", &server.url()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut first).unwrap();
    drop(reader);
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(errors, "");
}

#[test]
fn following_prints_what_is_new_or_changed_until_interrupted() {
    let old = connection("one");
    let mut moved = old.clone();
    moved.transaction.monotonic_sent_bytes += 1;
    let mut other = connection("two");
    other.transaction.instance = "tuple:2".into();
    let server = StandIn::sequence(vec![
        (200, body(vec![old.clone()], complete())),
        (200, body(vec![old], complete())),
        (503, r#"{"error": "restarting"}"#.into()),
        (200, body(vec![moved, other], complete())),
    ]);
    let mut child = command(&["connections", "-f", "-o", "jsonl", "--server", &server.url()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["process"], "one");
    assert_eq!(next()["monotonic_sent_bytes"], 3080);
    assert_eq!(next()["process"], "two");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(server.asked()[0].starts_with("GET /api/v1/connections "));
}

#[test]
fn following_ends_when_its_reader_does() {
    let server = StandIn::answering(200, body(vec![connection("one")], complete()));
    let mut child = command(&["connections", "-f", "-o", "csv", "--server", &server.url()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut first).unwrap();
    drop(reader);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn waiting_for_more_than_a_second_is_shown_on_a_terminal_and_cleared() {
    let server = StandIn::answering_after(Duration::from_millis(1500), body(edges(), complete()));
    let pty = nix::pty::openpty(None, None).unwrap();
    let child =
        command(&["edges", "--server", &server.url()]).stdout(Stdio::piped()).stderr(pty.slave).spawn().unwrap();
    let mut shown = Vec::new();
    // Ends with an error when the last writer has gone.
    let _ = std::fs::File::from(pty.master).read_to_end(&mut shown);
    let output = child.wait_with_output().unwrap();
    assert!(stdout(&output).starts_with("CLIENT"));
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains(&format!("asking {} for edges (1 s)", server.url())), "{shown:?}");
    assert!(shown.ends_with("\r\u{1b}[K"), "{shown:?}");
    let quick = StandIn::answering(200, body(edges(), complete())).weir(&["edges"]);
    assert_eq!(stderr(&quick), "");
}

#[test]
fn following_as_a_table_keeps_its_columns() {
    let rows = |sent: u64| {
        let mut row = connection("resolver");
        row.transaction.monotonic_sent_bytes += sent;
        row.sent_bytes += sent;
        body(vec![row], complete())
    };
    let server = StandIn::sequence(vec![(200, rows(0)), (200, rows(1)), (200, rows(2))]);
    let mut child = command(&["connections", "-f", "--server", &server.url()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines: Vec<String> = BufReader::new(child.stdout.take().unwrap()).lines().take(4).map(Result::unwrap).collect();
    assert!(lines[0].starts_with("PROTO  LOCAL"), "{lines:?}");
    let column = |line: &str| line.find("172.17.0.5:53");
    assert!(column(&lines[1]).is_some());
    assert!(lines[1..].iter().all(|line| column(line) == column(&lines[1])), "{lines:?}");
    assert!(lines[3].contains("102 B"), "{lines:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}
