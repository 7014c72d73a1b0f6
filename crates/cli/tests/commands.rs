//! Help, completions, the doctor, and `weir up`'s refusals, with the real binary.

mod stand_in;

use insta::assert_snapshot;
use stand_in::{StandIn, body, command, complete, status, stderr, stdout, weir};

#[test]
fn help_says_what_each_command_does_with_examples_and_exit_codes() {
    assert_snapshot!("help", stdout(&weir(&["--help"])));
    for name in [
        "up",
        "server",
        "status",
        "edges",
        "top",
        "series",
        "diff",
        "connections",
        "transactions",
        "metadata",
        "dns",
        "doctor",
        "store",
        "completions",
    ] {
        let output = weir(&[name, "--help"]);
        assert_eq!(output.status.code(), Some(0));
        let text = stdout(&output);
        assert!(text.contains("Examples:") && text.contains("Exit codes:"), "{name}: {text}");
    }
    assert_snapshot!("help_edges", stdout(&weir(&["edges", "--help"])));
    assert_snapshot!("help_up", stdout(&weir(&["up", "--help"])));
}

#[test]
fn the_version_is_the_package_s() {
    assert_eq!(stdout(&weir(&["--version"])), format!("weir {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = weir(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("transactions"), "{shell}");
    }
    assert_eq!(weir(&["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
fn the_config_file_names_the_server() {
    let server = StandIn::answering(200, body(status("healthy"), complete()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weir.toml");
    std::fs::write(&file, format!("[cli]\nserver = '{}'\noutput = 'jsonl'\n", server.url())).unwrap();
    let output = command(&["status"]).env("WEIR_CONFIG", &file).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 2);
    std::fs::write(&file, "[cli]\nserve = 'x'\n").unwrap();
    let output = command(&["status"]).env("WEIR_CONFIG", &file).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_doctor_names_what_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let server = format!("http://{closed}");
    let feed = format!("unix:{data}/none.sock");
    let words = ["doctor", "--data", data, "--feed", &feed, "--metrics-listen", &closed, "--server", &server];
    let output = weir(&[&words[..], &["-o", "json"]].concat());
    assert_eq!(output.status.code(), Some(3));
    let answer: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let check =
        |name: &str| answer["items"].as_array().unwrap().iter().find(|item| item["check"] == name).unwrap().clone();
    for name in ["tracer", "agent", "server"] {
        assert_eq!(check(name)["state"], "failed", "{name}");
        assert_ne!(check(name)["fix"], "", "{name}");
    }
    assert!(check("tracer")["detail"].as_str().unwrap().contains("no such file"), "{}", check("tracer"));
    let table = weir(&words);
    assert_eq!(table.status.code(), Some(3));
    assert!(stdout(&table).contains("mend: start one with"), "{}", stdout(&table));
    assert!(stdout(&weir(&[&words[..], &["-o", "csv"]].concat())).starts_with("check,state,detail,fix\r\n"));
}

#[test]
fn up_refuses_exposure_a_taken_port_and_a_feed_that_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let exposed = weir(&["up", "--data", data, "--listen", "0.0.0.0:0"]);
    assert_eq!(exposed.status.code(), Some(2));
    assert!(stderr(&exposed).contains("--token-file"), "{}", stderr(&exposed));
    let token = folder.path().join("token");
    std::fs::write(&token, "short").unwrap();
    let weak = weir(&["up", "--data", data, "--token-file", token.to_str().unwrap()]);
    assert_eq!(weak.status.code(), Some(2));
    assert!(stderr(&weak).contains("at least 16 printable characters"), "{}", stderr(&weak));
    let feed = weir(&["up", "--data", data, "--feed", "/run/x.sock"]);
    assert_eq!(feed.status.code(), Some(2));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let busy = weir(&["up", "--data", data, "--user", "0", "--listen", &address]);
    assert_eq!(busy.status.code(), Some(1));
    assert!(stderr(&busy).contains(&format!("{address} is taken by")), "{}", stderr(&busy));
    let nobody = weir(&["up", "--data", data, "--user", "no-such-user-here"]);
    assert_eq!(nobody.status.code(), Some(2));
}

#[test]
fn a_server_refuses_settings_of_a_state_that_is_not_asked_for_as_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for (words, fix) in [
        (&["--etcd-endpoints", "http://127.0.0.1:1"][..], "without --state etcd does nothing; give both or neither"),
        (&["--configmap-namespace", "weir"], "without --state configmap does nothing; give both or neither"),
        (&["--state", "etcd"], "give --etcd-endpoints"),
        (&["--state", "configmap", "--configmap-namespace", "weir"], "give --kubernetes URL"),
    ] {
        let start = ["server", "--data", data.to_str().unwrap(), "--kubernetes", "off"];
        let refused = weir(&[&start[..], words].concat());
        assert_eq!(refused.status.code(), Some(2), "{words:?}: {}", stderr(&refused));
        assert!(stderr(&refused).contains(fix), "{}", stderr(&refused));
        assert!(!data.exists(), "it is refused before the folder is made");
    }
}

#[test]
fn a_data_folder_is_compacted_whatever_the_environment_sets_for_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let any = "127.0.0.1:0";
    let mut server =
        command(&["server", "--data", data, "--listen", any, "--agents-listen", any]).spawn().map(Running).unwrap();
    let came_up = (0..600).any(|_| {
        std::thread::park_timeout(std::time::Duration::from_millis(100));
        folder.path().join("server.json").exists()
    });
    server.0.kill().unwrap();
    server.0.wait().unwrap();
    assert!(came_up, "the server did not come up within a minute");
    let wrong =
        [("WEIR_LISTEN", "nowhere"), ("WEIR_RETAIN_HISTORY", "for ever"), ("WEIR_AGENTS_SERVICE_ACCOUNT", "none")];
    let output = command(&["store", "compact", "--data", data]).envs(wrong).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "0 steps: 0 rows and 0 bytes read, 0 bytes written\n");
}

/// A process that does not outlive the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already where the test did.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
