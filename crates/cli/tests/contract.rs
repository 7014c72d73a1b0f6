//! The reading commands against the real server: what the one sends, the other understands.

#![allow(clippy::unwrap_used, reason = "a panic is the test's failure")]

mod stand_in;

use stand_in::{command, stderr, stdout, weir};
use std::process::{Child, Stdio};
use std::time::Duration;
use weir_cli::up::folder::Bound;
use weir_daemon::clock::{Clock, SystemClock};

struct Server {
    child: Child,
    url: String,
    _data: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let any = "127.0.0.1:0";
        let child = command(&["server", "--listen", any, "--agents-listen", any, "--data"])
            .arg(data.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let clock = SystemClock::new();
        let deadline = clock.monotonic().0 + 10_000_000_000;
        let bound: Bound = loop {
            let said = std::fs::read(data.path().join("server.json")).ok();
            if let Some(bound) = said.and_then(|said| serde_json::from_slice(&said).ok()) {
                break bound;
            }
            assert!(clock.monotonic().0 < deadline, "the server never said where it listens");
            std::thread::park_timeout(Duration::from_millis(20));
        };
        Self { child, url: format!("http://{}", bound.http), _data: data }
    }

    fn ask(&self, words: &[&str]) -> std::process::Output {
        weir(&[words, &["--server", &self.url]].concat())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_server_understands_every_flag_and_says_what_it_does_not() {
    let server = Server::start();
    let every = [
        "--since",
        "5m",
        "--until",
        "2099-01-01T00:00:00+01:00",
        "--name",
        "n*",
        "--namespace",
        "s",
        "--label",
        "k=v",
        "--cidr",
        "10.0.0.0/8",
        "--node",
        "alpha",
        "--filter",
        "name~n* and not address=10.0.0.0/8",
        "--limit",
        "7",
    ];
    let traffic = ["--from", "a b", "--to", "c", "--port", "443", "--protocol", "tcp"];
    for (command, more) in [
        ("edges", [&every[..], &traffic, &["--by", "process", "--sort", "failures"]].concat()),
        ("series", [&every[..], &traffic, &["--by", "pod", "--sort", "bytes", "--step", "7d"]].concat()),
        (
            "diff",
            [
                &every[4..],
                &traffic,
                &["--before", "2h", "--after", "1h", "--window", "30m", "--by", "namespace", "--expand", "shop"],
            ]
            .concat(),
        ),
        ("connections", [&every[..], &traffic, &["--state", "open", "--sort", "rtt_us"]].concat()),
        ("transactions", [&every[..], &traffic, &["--state", "closed"]].concat()),
        ("metadata", every.to_vec()),
        ("dns", [&every[..], &["--from", "a b", "--to", "c", "--by", "process", "--sort", "queries"]].concat()),
        ("status", Vec::new()),
    ] {
        for form in ["table", "json", "jsonl", "csv"] {
            let output = server.ask(&[&[command, "-o", form][..], &more].concat());
            assert_eq!(output.status.code(), Some(0), "{command} {form}: {}", stderr(&output));
        }
    }
    for health in ["--health", "--unhealthy"] {
        assert_eq!(server.ask(&["edges", health]).status.code(), Some(0), "{health}");
    }
    for by in ["workload", "service", "namespace", "node", "zone", "process", "address"] {
        assert_eq!(server.ask(&["edges", "--by", by]).status.code(), Some(0), "{by}");
    }
    for wrong in [["--since", "soon"], ["--cidr", "everywhere"], ["--port", "http"], ["--protocol", "icmp"]] {
        let output = server.ask(&[&["edges"][..], &wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(stderr(&output).contains(wrong[1]), "{}", stderr(&output));
    }
    for command in ["edges", "series", "connections", "metadata", "dns"] {
        let output = server.ask(&[command, "--at", "1h"]);
        assert_eq!(output.status.code(), Some(0), "{command}: {}", stderr(&output));
        assert_eq!(server.ask(&[command, "--at", "1h", "--until", "2h"]).status.code(), Some(2), "{command}");
    }
    assert_eq!(server.ask(&["diff"]).status.code(), Some(2));
    let unknown = server.ask(&["diff", "--rollout", "shop/cart"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("of which no ReplicaSet is known"), "{}", stderr(&unknown));
    let narrow = server.ask(&["edges", "--filter", "failures>0 and attribute:team=\"a b\""]);
    assert!(stdout(&narrow).starts_with("(no rows)"), "{}", stdout(&narrow));
    let body = stdout(&server.ask(&["edges", "-o", "json"]));
    assert!(serde_json::from_str::<serde_json::Value>(&body).unwrap()["completeness"].is_object(), "{body}");
}
