//! What the agent costs with 100,000 connections in the feed: memory and processor time over some polls, of the real
//! `weir-agent` against a stand-in feed and no server.
//!
//! `cargo bench -p weir-agent --bench footprint [-- --connections 100000 --polls 3 --interval 10 --changing 10]`,
//! where `changing` is the share of connections that move between two polls, in percent. With `--pods 250` a stand-in
//! kubelet lists that many pods of 3 containers, every tenth with something new in every reading, and the feed tells
//! their processes; `--connections 0 --pods 250 --polls 6` is what metadata costs alone.

use std::io::{Read, Write};
use std::net::TcpListener;
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
    pods: u64,
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
        pods: setting("pods", 0),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let replies = Arc::new(AtomicU64::new(0));
    serve(&folder.path().join("feed.sock"), &settings, &replies);
    let kubelet = kubelet(settings.pods);
    let mut agent = start(folder.path(), &settings, &kubelet);
    let mut before = cost(&agent);
    println!(
        "{} connections, {} % of them move, {} pods, a poll every {} s",
        settings.connections, settings.changing, settings.pods, settings.interval
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
    let mut agent = start(folder.path(), &settings, &kubelet);
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

fn start(folder: &Path, settings: &Settings, kubelet: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_weir-agent"))
        .arg("--feed")
        .arg(format!("unix:{}", folder.join("feed.sock").display()))
        .arg("--spool")
        .arg(folder.join("spool"))
        .args(["--server", "http://127.0.0.1:1", "--metrics-listen", "127.0.0.1:0", "--log", "error"])
        .args(["--kubelet", kubelet, "--cri", "off", "--docker", "off"])
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
    let processes = processes(settings.pods);
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = [0; 4096];
            let Ok(length) = stream.read(&mut request) else { continue };
            if request[..length].starts_with(b"GET /processes") && !processes.is_empty() {
                answer(&mut stream, &processes);
                continue;
            }
            if !request[..length].starts_with(b"GET /connections") {
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                continue;
            }
            let reply = replies.fetch_add(1, Ordering::Relaxed);
            answer(&mut stream, &body(connections, changing, reply));
        }
    });
}

fn answer(stream: &mut impl Write, body: &str) {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

/// The setting for a stand-in kubelet with `pods` pods.
fn kubelet(pods: u64) -> String {
    if pods == 0 {
        return "off".to_owned();
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        let mut readings = 0;
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = [0; 4096];
            let Ok(_) = stream.read(&mut request) else { continue };
            readings += 1;
            answer(&mut stream, &list(pods, readings));
        }
    });
    format!("http://{address}")
}

/// A pod with an init container and two others as a kubelet 1.36 lists it, under its own names, ids and address, with
/// as many bytes more as `managedFields`, volumes and tolerations had.
fn list(pods: u64, reading: u64) -> String {
    const RECORDED: &str = include_str!("../../discovery/tests/data/pods/containerd1.json");
    let whole: serde_json::Value = serde_json::from_str(RECORDED).expect("JSON");
    let items = whole["items"].as_array().expect("a list");
    let is_web = |pod: &&serde_json::Value| pod["metadata"]["name"].as_str() == Some("web-6675746f8b-dgxhf");
    let template = items.iter().find(is_web).expect("the pod").to_string();
    let filler = "f".repeat(4_000);
    let pods: Vec<String> = (0..pods)
        .map(|number| {
            let news = if number % 10 == 0 { reading } else { 0 };
            template
                .replace("c053e244-913c-43ac-a247-a7e73a4c3dac", &uid(number))
                .replace("web-6675746f8b-dgxhf", &format!("web-6675746f8b-{number:05}"))
                .replace("10.244.0.9", &format!("10.244.1.{}", number % 250))
                .replace("d40fa5d199c89ff4fcc6168ca57176885297c0ea585f0741541173588ffdb49f", &container(number, 0))
                .replace("b3ca1a298929f21a405d0393a302879f21abb16ffb695c4587145bd09f4ddc79", &container(number, 1))
                .replace("0af5c566e5f6abfbb34e4f94bd04996fc535a3d21cf139c89c04fd58865e3f3f", &container(number, 2))
                .replace("\"pod-template-hash\":\"", &format!("\"pod-template-hash\":\"{news}-"))
                .replace("\"example.com/note\":\"hi\"", &format!("\"example.com/note\":\"{filler}\""))
        })
        .collect();
    format!("{{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{{}},\"items\":[{}]}}", pods.join(","))
}

fn uid(pod: u64) -> String {
    format!("c053e244-913c-43ac-a247-{pod:012x}")
}

fn container(pod: u64, which: u64) -> String {
    format!("{:064x}", pod * 10 + which + 1)
}

/// Two containers with two processes each and a sandbox with one, for every pod; empty without pods.
fn processes(pods: u64) -> String {
    let of_pod = |pod: u64| {
        (0..5_u64).map(move |number| {
            let id = if number == 4 { format!("{:064x}", 0xffff_0000 + pod) } else { container(pod, number / 2) };
            let pid = 1_000 + pod * 5 + number;
            format!(
                "{{\"pid\":{pid},\"start_ns\":{},\"net_ns\":{},\"name\":\"server\",\
                 \"cgroup_path\":\"/kubepods/burstable/pod{}/{id}\"}}",
                pid * 1_000_000_000,
                4_026_540_000 + pod,
                uid(pod)
            )
        })
    };
    if pods == 0 {
        return String::new();
    }
    let all: Vec<String> = (0..pods).flat_map(of_pod).collect();
    format!("{{\"boot_id\":\"x\",\"processes\":[{}]}}", all.join(","))
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
