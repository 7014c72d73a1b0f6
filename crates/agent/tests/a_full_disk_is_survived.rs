//! A disk without room: the agent lives, the tracer is not acknowledged, and once there is room it goes on.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod support;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use support::agent::Agent;
use support::feed::{Answer, Feed};
use support::ingest::Ingest;
use support::until;

/// A file system of 6 MiB; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path) -> Self {
        std::fs::create_dir(path).unwrap();
        mount(Some("weir-test"), path, Some("tmpfs"), MsFlags::empty(), Some("size=6m")).unwrap();
        Self(path.into())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_poll_that_does_not_fit_is_not_acknowledged_and_comes_again_when_there_is_room() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("WEIR_FORBID_SKIPS").is_none_or(|value| value != "1"), "needs root to mount a tmpfs");
        println!(
            "SKIP a_poll_that_does_not_fit_is_not_acknowledged_and_comes_again_when_there_is_room: needs root to mount a tmpfs"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(&folder.path().join("spool"));
    let sent = Arc::new(Mutex::new(0u64));
    let (asked, acks) = (Arc::clone(&sent), Arc::new(Mutex::new(Vec::new())));
    let noted = Arc::clone(&acks);
    let _feed = Feed::serve(&folder.path().join("feed.sock"), move |target| {
        if !target.starts_with("/connections") {
            return Answer::Status(404);
        }
        noted.lock().unwrap().push(target.split("&ack=").nth(1).map(str::to_owned));
        let mut sent = asked.lock().unwrap();
        *sent += 10;
        let row = format!(
            r#"{{"type":0,"source":"10.0.0.1","dest":"10.0.0.2","sport":1,"dport":2,"cookie":5,"monotonic_sent_bytes":{sent}}}"#
        );
        Answer::Body(format!(r#"{{"run_id":"00000000000000aa","connections":[{row}],"cursor":{sent}}}"#).into())
    });
    let ingest = Ingest::start();
    let mut agent = Agent::start(folder.path(), &ingest.url, &["--interval", "10ms"]);
    until("some batches are there", || (ingest.held().batches.len() > 3).then_some(()));
    let ballast = disk.0.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    // A tmpfs has no room when its pages are used up.
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    let full = "weir_agent_spool_errors_total{reason=\"disk_full\"}";
    until("the full disk is counted", || (agent.counter(full) > 0).then_some(()));
    let before = ingest.held().batches.len();
    until("it goes on with what the server has acknowledged", || {
        (ingest.held().batches.len() > before + 20).then_some(())
    });
    let (held, port) = (Arc::clone(&ingest.held), ingest.port());
    drop(ingest);
    let before = agent.counter(full);
    until("nothing fits any more", || (agent.counter(full) > before + 20).then_some(()));
    assert!(agent.lives());
    let last_acks: Vec<_> = acks.lock().unwrap().iter().rev().take(3).cloned().collect();
    assert!(last_acks.iter().all(|ack| *ack == last_acks[0]), "what is not on disk is not acknowledged: {last_acks:?}");
    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    let ingest = Ingest::with(held, port);
    let before = ingest.held().batches.len();
    until("it goes on", || (ingest.held().batches.len() > before + 3).then_some(()));
    assert!(agent.stop().success());
    let records = ingest.held().records();
    let last = records.last().unwrap();
    assert_eq!(records.iter().map(|record| record.sent_delta).sum::<u64>() + last.sent_before, last.sent_total);
    assert_eq!(records.iter().filter(|record| record.opened).count(), 1);
}

#[test]
fn an_agent_whose_log_has_no_room_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let _feed = Feed::serve(&folder.path().join("feed.sock"), |_target| Answer::Status(500));
    let metrics = std::net::SocketAddr::from(([127, 0, 0, 1], support::agent::free_port()));
    // A feed that fails and a server that is not there are told, again and again.
    let mut command = Agent::command(folder.path(), "http://127.0.0.1:9", metrics, &["--interval", "10ms"]);
    command.stderr(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let mut agent = Agent::spawn(command, metrics);
    until("batches of failed polls are in the spool", || {
        assert!(agent.lives(), "it ended of what it could not say");
        (agent.counter("weir_agent_batches_total") > 20).then_some(())
    });
    assert!(agent.stop().success());
}
