//! The feed's manners: who consumes what, cursors, wrong requests, the socket itself, a clean stop.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use support::{Tracer, can_trace, is_alive, until};
use weir_wire::feed::{Processes, Reply};

/// One connection that has ended; its client's port.
fn ended_connection(count: usize) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let port = client.local_addr().unwrap().port();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(&vec![0; count]).unwrap();
    drop(client);
    server.read_to_end(&mut Vec::new()).unwrap();
    drop(server);
    port
}

fn has(reply: &Reply, port: u16) -> bool {
    reply.connections.iter().any(|row| row.sport == port && row.close_epoch.is_some())
}

fn count(reply: &Reply) -> usize {
    reply.connections.iter().filter(|row| row.close_epoch.is_some()).count()
}

#[test]
fn who_asks_decides_which_ended_rows_come_and_how_often() {
    if !can_trace("who_asks_decides_which_ended_rows_come_and_how_often") {
        return;
    }
    let tracer = Tracer::start(&["--no-udp"]);
    let early = ended_connection(1);

    // Without an id nothing is told of the ended, and nothing is consumed.
    let anonymous = tracer.reply("");
    assert_eq!((count(&anonymous), anonymous.cursor, anonymous.complete), (0, None, Some(true)));
    assert!(anonymous.connections.iter().all(|row| row.last_sent_bytes == 0));

    // A new client gets none either, as in 2019; then each once.
    let first = tracer.reply("?client_id=old");
    assert_eq!(count(&first), 0);
    let mut keen = tracer.reply("?client_id=keen").cursor.unwrap();
    let later = ended_connection(5);
    assert!(
        until("the ended row", || Some(tracer.reply("?client_id=old")).filter(|reply| has(reply, later))).cursor
            > first.cursor
    );
    tracer.reply("");
    assert!(!has(&tracer.reply("?client_id=old"), later));

    // With ack: again and again until it is acknowledged.
    let mut last_bytes = Vec::new();
    for _ in 0..3 {
        let reply = tracer.reply(&format!("?client_id=keen&ack={keen}"));
        assert!(has(&reply, later) && !has(&reply, early));
        last_bytes.push(reply.connections.iter().find(|row| row.sport == later).unwrap().last_sent_bytes);
    }
    assert_eq!(last_bytes, [5, 0, 0], "what came since the last fetch comes once");
    keen = tracer.reply(&format!("?client_id=keen&ack={keen}")).cursor.unwrap();
    let reply = tracer.reply(&format!("?client_id=keen&ack={keen}"));
    assert!(!has(&reply, later));

    // A cursor of another run: everything of this run that is still there, once more.
    let third = ended_connection(1);
    assert!(has(&tracer.reply("?client_id=stranger&ack=0"), third));
    assert!(has(&tracer.reply("?client_id=stranger&ack=99999999999999999"), third));
}

#[test]
fn wrong_requests_are_answered_with_what_is_wrong() {
    if !can_trace("wrong_requests_are_answered_with_what_is_wrong") {
        return;
    }
    let tracer = Tracer::start(&["--no-udp"]);
    for (method, target, code) in [
        ("GET", "/", 404),
        ("GET", "/connections/", 404),
        ("POST", "/connections", 405),
        ("DELETE", "/status", 405),
        ("GET", "/connections?ack=1", 400),
        ("GET", "/connections?client_id=a&ack=x", 400),
        ("GET", "/connections?client_id=", 400),
    ] {
        let (answered, body) = tracer.request(method, target).unwrap();
        assert_eq!(answered, code, "{method} {target}");
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(!body["error"].as_str().unwrap().is_empty());
    }
}

#[test]
fn the_replys_head_comes_before_its_rows_and_the_processes_are_there() {
    if !can_trace("the_replys_head_comes_before_its_rows_and_the_processes_are_there") {
        return;
    }
    let tracer = Tracer::start(&["--no-udp"]);
    let body = String::from_utf8(tracer.try_get("/connections?client_id=a").unwrap()).unwrap();
    let keys = ["run_id", "boot_id", "monotonic_ns", "connections", "cursor", "complete", "losses"];
    let places: Vec<_> = keys.iter().map(|key| body.find(&format!("\"{key}\":")).unwrap()).collect();
    assert!(places.is_sorted(), "{places:?}");
    let reply: Reply = serde_json::from_str(&body).unwrap();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(reply.boot_id.as_deref(), Some(boot_id.trim()));

    let processes: Processes = serde_json::from_slice(&tracer.try_get("/processes").unwrap()).unwrap();
    let own = processes.processes.iter().find(|process| process.pid == std::process::id()).unwrap();
    let netns = std::fs::metadata("/proc/self/ns/net").unwrap().ino() as u32;
    assert_eq!((own.net_ns, processes.boot_id.as_str()), (netns, boot_id.trim()));
    // The same process in both: the kernel's start is finer than /proc's hundredths of a second.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let port = client.local_addr().unwrap().port();
    let reply = tracer.reply("");
    let row = reply.connections.iter().find(|row| row.sport == port).unwrap();
    assert_eq!(row.process_start.unwrap() / 10_000_000, own.start_ns / 10_000_000);
    assert_eq!(row.process_name.as_deref(), Some(own.name.as_str()));
}

#[test]
fn a_stale_socket_is_replaced_a_live_one_refused_and_a_used_state_folder_too() {
    if !can_trace("a_stale_socket_is_replaced_a_live_one_refused_and_a_used_state_folder_too") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(folder.path().join("tracer.sock")).unwrap());
    let mut tracer = Tracer::start_in(folder.path(), &["--no-udp"]);
    assert_eq!(std::fs::metadata(tracer.socket()).unwrap().permissions().mode() & 0o777, 0o660);
    let refused = |args: &[&str]| {
        let output = Tracer::command(folder.path(), args).stderr(std::process::Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let text = refused(&[]);
    assert!(text.contains("another tracer answers there") && text.contains("tracer.sock"), "{text}");
    let state = tracer.state();
    let other = folder.path().join("other.sock");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_weir-tracer"))
        .arg("--socket")
        .arg(&other)
        .arg("--state-dir")
        .arg(&state)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("another tracer uses it") && text.contains("--state-dir"), "{text}");
    assert!(!other.exists());
    assert!(tracer.try_get("/status").is_some(), "the first one was not disturbed");
    tracer.stop();
    assert!(!tracer.socket().exists());
}

#[test]
fn the_socket_belongs_to_the_group_that_was_named() {
    if !can_trace("the_socket_belongs_to_the_group_that_was_named") {
        return;
    }
    let tracer = Tracer::start(&["--no-udp", "--socket-group", "12345"]);
    assert_eq!(std::fs::metadata(tracer.socket()).unwrap().gid(), 12_345);
}

#[test]
fn readers_that_take_nothing_do_not_hold_up_the_others_nor_the_stop() {
    if !can_trace("readers_that_take_nothing_do_not_hold_up_the_others_nor_the_stop") {
        return;
    }
    let mut tracer = Tracer::start(&["--no-udp"]);
    let cursor = tracer.reply("?client_id=a").cursor.unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    // About a megabyte of reply: more than the sockets' buffers take.
    for _ in 0..1_000 {
        let client = TcpStream::connect(address).unwrap();
        drop(listener.accept().unwrap());
        drop(client);
    }
    let stalled: Vec<UnixStream> = (0..3)
        .map(|_| {
            let mut stream = UnixStream::connect(tracer.socket()).unwrap();
            write!(stream, "GET /connections?client_id=a&ack={cursor} HTTP/1.1\r\nHost: weir\r\n\r\n").unwrap();
            stream
        })
        .collect();
    until("all rows", || {
        let reply = tracer.reply(&format!("?client_id=a&ack={cursor}"));
        (reply.connections.iter().filter(|row| row.dport == address.port()).count() >= 1_000).then_some(())
    });
    // Half a request is nobody's business either.
    let mut half = UnixStream::connect(tracer.socket()).unwrap();
    half.write_all(b"GET /conn").unwrap();
    tracer.stop();
    drop((stalled, half));
}

#[test]
fn a_clean_stop_leaves_no_program_and_no_process() {
    if !can_trace("a_clean_stop_leaves_no_program_and_no_process") {
        return;
    }
    let mut tracer = Tracer::start(&[]);
    let programs = programs_of(tracer.pid());
    assert!(programs.len() >= 3 && programs.iter().all(|id| exists(*id)));
    let keeper = tracer.keeper().unwrap();
    let command = std::fs::read_to_string(format!("/proc/{keeper}/cmdline")).unwrap();
    assert!(command.starts_with("weir-keeper\0") && !command.contains("tracer"), "{command:?}");
    assert_eq!(std::fs::read_to_string(format!("/proc/{keeper}/comm")).unwrap(), "weir-keeper\n");
    tracer.stop();
    assert!(!is_alive(keeper));
    until("the programs to be gone", || (!programs.iter().any(|id| exists(*id))).then_some(()));
    assert!(!tracer.state().join("keeper.sock").exists());
}

/// The programs behind a process' links.
fn programs_of(pid: u32) -> Vec<u32> {
    let infos = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    infos
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
        .filter(|text| text.contains("link_id"))
        .filter_map(|text| text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok()))
        .collect()
}

fn exists(program: u32) -> bool {
    libbpf_rs::query::ProgInfoIter::default().any(|info| info.id == program)
}
