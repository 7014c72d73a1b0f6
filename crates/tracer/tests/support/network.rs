//! A node and its pods as network namespaces of this process: nothing has a name, so nothing outlives it, however it
//! ends.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of it")]

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use weir_wire::feed::Conntrack;

/// A network namespace; it goes when the last socket in it and this are gone.
pub struct Netns {
    file: File,
}

impl Netns {
    /// A new one, with loopback up.
    pub fn new() -> Self {
        let netns = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                Self { file: File::open("/proc/thread-self/ns/net").unwrap() }
            });
            thread.join().unwrap()
        });
        netns.run("ip link set lo up");
        netns
    }

    /// Its inode.
    pub fn inode(&self) -> u32 {
        self.file.metadata().unwrap().ino() as u32
    }

    /// Runs `inside` in it. Sockets that it makes stay there, whoever uses them.
    pub fn inside<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).unwrap();
                inside()
            });
            thread.join().unwrap()
        })
    }

    /// Runs a command in it that must succeed.
    pub fn run(&self, command: &str) {
        self.run_with(command, "");
    }

    /// The same with something on its standard input.
    pub fn run_with(&self, command: &str, input: &str) {
        let mut words = command.split(' ');
        let output = self.inside(|| {
            let mut child = Command::new(words.next().unwrap())
                .args(words)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        });
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

/// A node that forwards, with a pod at each of its links.
pub struct Node {
    pub netns: Netns,
    pub pods: Vec<Netns>,
}

impl Node {
    /// A node with so many pods: pod N is 10.244.N.8 and fd00:N::8 behind 10.244.N.1 and fd00:N::1.
    pub fn with_pods(count: usize) -> Self {
        let node = Self { netns: Netns::new(), pods: (0..count).map(|_| Netns::new()).collect() };
        node.netns.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        for (index, pod) in node.pods.iter().enumerate() {
            let path = pod.path();
            node.netns.run(&format!("ip link add pod{index} type veth peer name eth0 netns {path}"));
            for (netns, link, last) in [(&node.netns, format!("pod{index}"), 1), (pod, "eth0".to_owned(), 8)] {
                netns.run(&format!("ip addr add 10.244.{index}.{last}/24 dev {link}"));
                netns.run(&format!("ip addr add fd00:{index}::{last}/64 dev {link} nodad"));
                netns.run(&format!("ip link set {link} up"));
            }
            pod.run(&format!("ip route add default via 10.244.{index}.1"));
            pod.run(&format!("ip route add default via fd00:{index}::1"));
        }
        node
    }

    /// Sets nftables rules in place of those that there were.
    pub fn rules(&self, rules: &str) {
        self.netns.run_with("nft -f -", &format!("flush ruleset\n{rules}\n"));
    }
}

/// A connection's translation: the tuples of what its client and of what its server sends.
pub fn told(original: (SocketAddr, SocketAddr), reply: (SocketAddr, SocketAddr)) -> Conntrack {
    Conntrack {
        repl_src_ip: reply.0.ip().to_string(),
        repl_dst_ip: reply.1.ip().to_string(),
        repl_src_port: reply.0.port(),
        repl_dst_port: reply.1.port(),
        orig_src_ip: Some(original.0.ip().to_string()),
        orig_dst_ip: Some(original.1.ip().to_string()),
        orig_src_port: Some(original.0.port()),
        orig_dst_port: Some(original.1.port()),
    }
}

/// Whether the programs are there that set the rules.
pub fn can_translate(test: &str) -> bool {
    let missing = ["nft", "iptables", "sysctl"].into_iter().find(|program| {
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    });
    let Some(missing) = missing else { return true };
    assert!(std::env::var("WEIR_FORBID_SKIPS").as_deref() != Ok("1"), "{test} must not be skipped here: no {missing}");
    println!("SKIP {test}: no {missing}");
    false
}
