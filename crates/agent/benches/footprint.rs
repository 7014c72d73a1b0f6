//! What the agent costs with 100,000 connections in the feed: memory and processor time over some polls, of the real
//! `weir-agent` against a stand-in feed and no server.
//!
//! `cargo bench -p weir-agent --bench footprint [-- --connections 100000 --polls 3 --interval 10 --changing 10]`,
//! where `changing` is the share of connections that move between two polls, in percent.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

struct Settings {
    connections: u64,
    polls: u64,
    interval: u64,
    changing: u64,
}

fn main() {
    let setting = |name: &str, default: u64| {
        let mut args = std::env::args().skip_while(|arg| *arg != format!("--{name}"));
        args.nth(1).and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let settings = Settings {
        connections: setting("connections", 100_000),
        polls: setting("polls", 3),
        interval: setting("interval", 10),
        changing: setting("changing", 10),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let replies = Arc::new(AtomicU64::new(0));
    serve(&folder.path().join("feed.sock"), &settings, &replies);
    let mut agent = start(folder.path(), &settings);
    let mut before = cost(&agent);
    println!(
        "{} connections, {} % of them move, a poll every {} s",
        settings.connections, settings.changing, settings.interval
    );
    for poll in 1..=settings.polls {
        wait(Duration::from_secs(settings.interval));
        let now = cost(&agent);
        let busy = now.ticks - before.ticks;
        // A tick is 10 ms (USER_HZ).
        println!(
            "poll {poll}: {} ms of processor ({:.1} % of a core), resident {} MB, at most {} MB",
            busy * 10,
            busy as f64 / settings.interval as f64,
            now.resident >> 20,
            now.peak >> 20,
        );
        before = now;
    }
    println!("{} replies were asked for", replies.load(Ordering::Relaxed));
    end(&mut agent);
    let mut agent = start(folder.path(), &settings);
    let before = replies.load(Ordering::Relaxed);
    while replies.load(Ordering::Relaxed) == before {
        wait(Duration::from_millis(10));
    }
    wait(Duration::from_secs(3));
    let now = cost(&agent);
    println!(
        "killed and started again: {} ms of processor until after its first poll, resident {} MB, at most {} MB",
        now.ticks * 10,
        now.resident >> 20,
        now.peak >> 20,
    );
    end(&mut agent);
}

fn end(agent: &mut Child) {
    let _ = agent.kill();
    let _ = agent.wait();
}

fn start(folder: &Path, settings: &Settings) -> Child {
    Command::new(env!("CARGO_BIN_EXE_weir-agent"))
        .arg("--feed")
        .arg(format!("unix:{}", folder.join("feed.sock").display()))
        .arg("--spool")
        .arg(folder.join("spool"))
        .args(["--server", "http://127.0.0.1:1", "--metrics-listen", "127.0.0.1:0", "--log", "error"])
        .args(["--interval", &format!("{}s", settings.interval)])
        .stdout(Stdio::null())
        .spawn()
        .expect("weir-agent starts")
}

struct Cost {
    ticks: u64,
    resident: u64,
    peak: u64,
}

fn cost(agent: &Child) -> Cost {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", agent.id())).expect("it runs");
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
    let field = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.id())).expect("it runs");
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) << 10
    };
    Cost { ticks: field(11) + field(12), resident: line("VmRSS:"), peak: line("VmHWM:") }
}

fn serve(path: &Path, settings: &Settings, replies: &Arc<AtomicU64>) {
    let listener = UnixListener::bind(path).expect("a socket");
    let (connections, changing, replies) = (settings.connections, settings.changing, Arc::clone(replies));
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = [0; 4096];
            let Ok(length) = stream.read(&mut request) else { continue };
            if !request[..length].starts_with(b"GET /connections") {
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                continue;
            }
            let reply = replies.fetch_add(1, Ordering::Relaxed);
            let body = body(connections, changing, reply);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        }
    });
}

fn body(connections: u64, changing: u64, reply: u64) -> String {
    use std::fmt::Write as _;
    let mut body = String::from("{\"run_id\":\"00000000000000aa\",\"connections\":[");
    for number in 0..connections {
        let moved = if number % 100 < changing { reply * 1000 } else { 0 };
        let comma = if number == 0 { "" } else { "," };
        let _ = write!(
            body,
            "{comma}{{\"pid\":{},\"type\":0,\"family\":0,\"net_ns\":{},\"source\":\"10.244.{}.{}\",\"dest\":\"10.96.{}.{}\",\
             \"sport\":{},\"dport\":443,\"direction\":2,\"monotonic_sent_bytes\":{},\"last_sent_bytes\":0,\
             \"monotonic_recv_bytes\":{},\"last_recv_bytes\":0,\"monotonic_retransmits\":0,\"last_retransmits\":0,\
             \"last_update_epoch\":11457291007926789,\"cookie\":{},\"generation\":0,\"state\":\"established\",\"cgroup_id\":{},\
             \"cgroup_path\":\"/kubepods/burstable/pod94d6947c-3d7f-461d-9e06-17ecd60d40a4/{:064x}\",\"container_id\":\"{:064x}\",\
             \"rtt_us\":120,\"direction_certainty\":\"known\",\"process_name\":\"server\",\"process_start\":{}}}",
            1000 + number % 200,
            4_026_531_840 + number % 50,
            number % 50,
            number % 250,
            number >> 8 & 255,
            number & 255,
            1024 + number % 60_000,
            number + moved,
            number * 3 + moved,
            number + 1,
            9000 + number % 200,
            number % 200,
            number % 200,
            11_400_000_000_000_000 + number % 200,
        );
    }
    let _ = write!(body, "],\"cursor\":{reply},\"complete\":true}}");
    body
}

#[expect(clippy::disallowed_methods, reason = "it measures what happens in that time")]
fn wait(time: Duration) {
    let until = Instant::now() + time;
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
}
