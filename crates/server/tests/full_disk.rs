//! Promise: a full disk refuses batches, which stay with their agents, and is over when there is room again.

#[cfg(test)]
mod support;

use std::path::PathBuf;
use std::sync::Arc;
use support::*;
use weir_wire::agent::refusal::Reason;
use weir_wire::agent::server_message::Message as ToAgent;

/// A small file system, unmounted when it is dropped.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn mount(folder: &std::path::Path) -> Option<Mount> {
    let skip = |reason: &str| {
        assert!(std::env::var_os("WEIR_FORBID_SKIPS").is_none(), "{reason}");
        println!("SKIP a_full_disk_refuses_batches_until_there_is_room: {reason}");
    };
    if !nix::unistd::geteuid().is_root() {
        skip("mounting a small file system needs root");
        return None;
    }
    let mounted =
        nix::mount::mount(Some("weir"), folder, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=108m"));
    if let Err(errno) = mounted {
        skip(&format!("mounting a small file system failed: {errno}"));
        return None;
    }
    Some(Mount(folder.to_path_buf()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_batches_until_there_is_room() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let Some(_mount) = mount(folder.path()) else { return };
    let server = TestServer::start_in(Arc::clone(&folder), clock(), &[]).await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    session.deliver(&agent.batch(both_views(1, 40000, 100, 10, START + POLL))).await;
    server.applied(1).await;
    let filler = folder.path().join("filler");
    std::fs::write(&filler, vec![1_u8; 20 << 20]).unwrap();
    let second = agent.batch(both_views(3, 40001, 100, 10, START + 2 * POLL));
    match session.send(&second).await {
        ToAgent::Refusal(refusal) => {
            assert_eq!((refusal.reason(), refusal.next_sequence), (Reason::Unavailable, 2));
            assert!(refusal.text.contains("free some space"), "{}", refusal.text);
        }
        other => panic!("{other:?}"),
    }
    // It lives, answers, and says what is wrong.
    let status = server.items("/api/v1/status").await;
    let store = status.iter().find(|row| row["kind"] == "store").unwrap();
    assert_eq!(store["health"], "degraded");
    std::fs::remove_file(filler).unwrap();
    let mut again = Session::open(&server, weir_wire::agent::Hello { oldest_sequence: 2, ..agent.hello() }).await;
    again.deliver(&second).await;
    server.applied(2).await;
    assert_eq!(sum(&server.items("/api/v1/edges").await, "sent_bytes"), 200);
    server.stop().await;
}
