//! A connection belongs to the process that holds it, and to the cgroup it was made in.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use support::cgroup::{self, Cgroup};
use support::player::Player;
use support::{Agent, Tracer, bytes, can_trace, until};

/// A child that goes with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_connection_that_was_handed_over_belongs_to_who_holds_it() {
    if !can_trace("a_connection_that_was_handed_over_belongs_to_who_holds_it") {
        return;
    }
    let tracer = Tracer::start(&["--backfill-interval", "100ms"]);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let client_port = client.local_addr().unwrap().port();
    let (server, _) = listener.accept().unwrap();
    let owner = || {
        let reply = tracer.reply("");
        let row = reply.connections.iter().find(|row| (row.sport, row.dport) == (port, client_port)).unwrap();
        (row.pid, row.process_name.clone().unwrap())
    };
    assert_eq!(owner().0, std::process::id(), "whoever accepted");
    let stdin = Stdio::from(OwnedFd::from(server));
    let child = Running(Command::new("cat").stdin(stdin).stdout(Stdio::null()).spawn().unwrap());
    assert_eq!(until("the owner to change", || Some(owner()).filter(|owner| owner.0 == child.0.id())).1, "cat");
    client.write_all(b"x").unwrap();
}

#[test]
fn who_closes_a_short_connection_is_its_owner() {
    if !can_trace("who_closes_a_short_connection_is_its_owner") {
        return;
    }
    // No back-fill in between: only the closing tells.
    let tracer = Tracer::start(&["--backfill-interval", "1h"]);
    let mut agent = Agent::new(&tracer);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let stdin = Stdio::from(OwnedFd::from(listener.accept().unwrap().0));
    let mut child = Command::new("cat").stdin(stdin).stdout(Stdio::null()).spawn().unwrap();
    client.write_all(b"hello").unwrap();
    drop(client);
    child.wait().unwrap();
    let row = until("the end", || {
        agent.fetch(&tracer).connections.into_iter().find(|row| row.sport == port && row.close_epoch.is_some())
    });
    assert_eq!((row.pid, row.process_name.as_deref(), bytes(&row)), (child.id(), Some("cat"), (0, 5)));
}

#[test]
fn the_cgroup_names_the_container_also_after_the_process_is_gone() {
    if !can_trace("the_cgroup_names_the_container_also_after_the_process_is_gone") {
        return;
    }
    let id = format!("{:064x}", std::process::id());
    let cgroup = Cgroup::new("named");
    let path = format!("{}/cri-containerd-{id}.scope", cgroup.path());
    let folder = cgroup.folder().join(format!("cri-containerd-{id}.scope"));
    std::fs::create_dir(&folder).unwrap();

    let tracer = Tracer::start(&[]);
    let mut agent = Agent::new(&tracer);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "echo $$ > {}/cgroup.procs; echo -n hi > /dev/udp/127.0.0.1/{port}; exec 3<>/dev/tcp/127.0.0.1/{port}; \
         echo -n hello >&3; read -u 3",
        folder.display()
    );
    let child = Running(Command::new("bash").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap());
    let (mut server, _) = listener.accept().unwrap();
    server.read_exact(&mut [0; 5]).unwrap();
    let reply = tracer.reply("");
    let row = reply.connections.iter().find(|row| row.kind == 0 && row.dport == port).unwrap();
    assert_eq!(row.cgroup_path.as_deref(), Some(path.as_str()));
    assert_eq!(row.container_id.as_deref(), Some(id.as_str()));
    assert_eq!((row.pid, row.process_name.as_deref()), (child.0.id(), Some("bash")));
    drop(server);
    drop(child);
    let mut ended = Vec::new();
    until("TCP and UDP to end", || {
        ended.extend(
            agent.fetch(&tracer).connections.into_iter().filter(|row| row.dport == port && row.close_epoch.is_some()),
        );
        (ended.len() >= 2).then_some(())
    });
    for row in &ended {
        assert_eq!(row.cgroup_path.as_deref(), Some(path.as_str()), "{row:?}");
        assert_eq!(row.container_id.as_deref(), Some(id.as_str()));
    }
}

#[test]
fn player() {
    support::player::play_if_asked();
}

/// TCP and UDP of a process in a container that is gone before the tracer looks again.
fn a_short_life_in(cgroup: &Cgroup) {
    let tracer = Tracer::start(&[]);
    let mut agent = Agent::new(&tracer);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let id = format!("{:064x}", std::process::id());
    let folder = cgroup.folder().join("pod").join(&id);

    // It looks at nothing while the container lives.
    tracer.signal(nix::sys::signal::Signal::SIGSTOP);
    std::fs::create_dir_all(&folder).unwrap();
    let mut short = Player::start(Some(&folder));
    let pid = short.pid();
    short.tell(&format!("connect {port}"));
    short.tell("close");
    short.tell("udp");
    short.tell(&format!("udp-send {port} 3"));
    drop(short);
    until("the cgroup to be empty", || std::fs::remove_dir(&folder).ok());
    tracer.signal(nix::sys::signal::Signal::SIGCONT);

    let mut ended = Vec::new();
    until("both to end", || {
        let rows = agent.fetch(&tracer).connections.into_iter();
        ended.extend(rows.filter(|row| row.pid == pid && row.dport == port));
        (ended.iter().filter(|row| row.close_epoch.is_some()).count() >= 2).then_some(())
    });
    for row in ended {
        assert_eq!(row.container_id.as_deref(), Some(id.as_str()), "{row:?}");
        assert!(row.cgroup_path.unwrap().ends_with(&format!("/pod/{id}")));
    }
    assert!(!tracer.status().losses.contains_key("cgroup_unresolved"));
}

#[test]
fn a_container_that_is_gone_before_anybody_looks_is_still_named() {
    if !can_trace("a_container_that_is_gone_before_anybody_looks_is_still_named") || !cgroup::exists() {
        return;
    }
    a_short_life_in(&Cgroup::new("short"));
}

#[test]
fn so_is_one_under_cgroup_version_1() {
    let Some(root) = cgroup::v1_root() else {
        println!("SKIP so_is_one_under_cgroup_version_1: this machine has no cgroup version 1");
        return;
    };
    if !can_trace("so_is_one_under_cgroup_version_1") {
        return;
    }
    a_short_life_in(&Cgroup::below(&root, "short-v1"));
}

#[test]
fn what_a_worker_of_a_prefork_server_accepts_is_the_workers() {
    if !can_trace("what_a_worker_of_a_prefork_server_accepts_is_the_workers") {
        return;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // A copy without close-on-exec.
    let inherited = nix::unistd::dup(&listener).unwrap();
    let mut worker = Player::start(None);
    assert_eq!(worker.tell(&format!("inherit {}", inherited.as_raw_fd())), port);
    drop(inherited);
    let tracer = Tracer::start(&["--no-udp", "--backfill-interval", "1h"]);
    let mut agent = Agent::new(&tracer);

    // It neither closes nor lives long.
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    worker.tell("accept");
    let own = client.local_addr().unwrap().port();
    let row = tracer.reply("").connections.into_iter().find(|row| (row.sport, row.dport) == (port, own)).unwrap();
    assert_eq!((row.pid, row.direction), (worker.pid(), 1));

    // Neither a look nor a FIN tells, but the reset is its own.
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let own = client.local_addr().unwrap().port();
    worker.tell("accept");
    worker.tell("abort");
    let row = until("the end", || {
        let rows = agent.fetch(&tracer).connections.into_iter();
        rows.filter(|row| row.close_epoch.is_some()).find(|row| (row.sport, row.dport) == (port, own))
    });
    assert_eq!((row.pid, row.close_reason.as_deref()), (worker.pid(), Some("aborted")));
}
