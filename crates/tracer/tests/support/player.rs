//! A process of its own that opens, sends and closes as it is told, line by line: in a cgroup, younger or older than the
//! tracer. It is this same test binary, started again with nothing but the test `player`, which every file that uses it
//! has. It ends with its input, so it cannot outlive its test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::FromRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const ASKED: &str = "WEIR_TEST_PLAYER";

/// The test's side.
pub struct Player {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Player {
    /// Starts one, in a cgroup from its first instruction on.
    pub fn start(cgroup: Option<&Path>) -> Self {
        let mut child = Command::new("bash")
            .args([
                "-c",
                r#"ulimit -n $(ulimit -Hn); [ -z "$1" ] || echo $$ >"$1/cgroup.procs" || exit 1; exec "$2" --exact player --nocapture"#,
            ])
            .arg("player")
            .arg(cgroup.unwrap_or(Path::new("")))
            .arg(std::env::current_exe().unwrap())
            .env(ASKED, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it done; the answer is a number, mostly a port.
    pub fn tell(&mut self, line: &str) -> u16 {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
        let mut answer = String::new();
        loop {
            answer.clear();
            assert_ne!(self.output.read_line(&mut answer).unwrap(), 0, "the player ended at {line}");
            if let Some(number) = answer.strip_prefix("> ") {
                return number.trim().parse().unwrap();
            }
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// The player's side: returns at once unless this process is one.
pub fn play_if_asked() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let mut stage = Stage::default();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        let verb = words.next().unwrap();
        let numbers: Vec<u16> = words.map(|word| word.parse().unwrap()).collect();
        println!("\n> {}", stage.act(verb, &numbers));
    }
}

#[derive(Default)]
struct Stage {
    listener: Option<TcpListener>,
    streams: Vec<TcpStream>,
    udp: Option<UdpSocket>,
    udps: Vec<UdpSocket>,
}

impl Stage {
    fn act(&mut self, verb: &str, numbers: &[u16]) -> u16 {
        let last = self.streams.last_mut();
        match (verb, numbers) {
            ("listen", []) => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                self.listener.insert(listener).local_addr().unwrap().port()
            }
            // A listener that came with the process, as a prefork server's worker has it.
            ("inherit", [number]) => {
                #[expect(unsafe_code, reason = "an inherited descriptor is known by its number only")]
                // SAFETY: the test left it open for this process, and nobody else here knows it.
                let listener = unsafe { TcpListener::from_raw_fd(i32::from(*number)) };
                self.listener.insert(listener).local_addr().unwrap().port()
            }
            ("accept", []) => {
                let (stream, peer) = self.listener.as_ref().unwrap().accept().unwrap();
                self.streams.push(stream);
                peer.port()
            }
            ("connect", [port]) => {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).unwrap();
                let own = stream.local_addr().unwrap().port();
                self.streams.push(stream);
                own
            }
            ("send", [count]) => {
                last.unwrap().write_all(&vec![0; usize::from(*count)]).unwrap();
                *count
            }
            ("read", [count]) => {
                last.unwrap().read_exact(&mut vec![0; usize::from(*count)]).unwrap();
                *count
            }
            // Closes with a reset instead of a FIN.
            ("abort", []) => {
                let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                nix::sys::socket::setsockopt(last.unwrap(), nix::sys::socket::sockopt::Linger, &linger).unwrap();
                self.streams.pop().map_or(0, |_| 1)
            }
            ("close", []) => self.streams.pop().map_or(0, |_| 1),
            // A network namespace of its own, so that its ports and its limits are nobody else's.
            ("netns", []) => {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
                // An inode is more than 16 bits: what it has above the first, which every namespace's has.
                (std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino() - 0xf000_0000) as u16
            }
            // How much memory a socket may have beside its queues; 1 when the namespace has no such limit of its own.
            ("optmem", [bytes]) => {
                u16::from(std::fs::write("/proc/sys/net/core/optmem_max", bytes.to_string()).is_err())
            }
            ("churn", [count]) => {
                let listener = self.listener.as_ref().unwrap();
                for _ in 0..*count {
                    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                    drop(stream);
                    let (mut accepted, _) = listener.accept().unwrap();
                    assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
                }
                *count
            }
            // So many connections that stay; the n-th sends n modulo 7 bytes.
            ("hold", [count]) => {
                for number in 0..*count {
                    let listener = self.listener.as_ref().unwrap();
                    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                    client.write_all(&vec![0; usize::from(number % 7)]).unwrap();
                    self.streams.push(client);
                    self.streams.push(listener.accept().unwrap().0);
                }
                *count
            }
            // So many sockets that send one datagram each to nobody.
            ("udp-hold", [sockets, bytes]) => {
                for _ in 0..*sockets {
                    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                    socket.send_to(&vec![0; usize::from(*bytes)], (Ipv4Addr::LOCALHOST, 9)).unwrap();
                    self.udps.push(socket);
                }
                *sockets
            }
            ("udp-drop", []) => self.udps.drain(..).count() as u16,
            ("udp", []) => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                self.udp.insert(socket).local_addr().unwrap().port()
            }
            ("udp-send", [port, count]) => {
                let socket = self.udp.as_ref().unwrap();
                socket.send_to(&vec![0; usize::from(*count)], (Ipv4Addr::LOCALHOST, *port)).unwrap() as u16
            }
            ("udp-read", []) => self.udp.as_ref().unwrap().recv(&mut vec![0; 65_536]).unwrap() as u16,
            _ => panic!("a player cannot {verb} {numbers:?}"),
        }
    }
}
