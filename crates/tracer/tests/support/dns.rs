//! A little DNS server over UDP, and queries: enough for every outcome that the tracer tells apart.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of it")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on says where")]

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub const A: u16 = 1;
pub const AAAA: u16 = 28;
/// What `alias.*` leads to.
pub const ALIASED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// Answers by the name's first label: `nx`, `fail`, `silent` (never), `second` (the second datagram of an id), `cut` (TC),
/// `alias` (a CNAME), `long` (more than 512 bytes); everything else has two addresses.
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub fn start(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = HashMap::new();
            let mut bytes = [0; 1500];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
                let times = seen.entry((from, bytes[0], bytes[1])).or_insert(0);
                *times += 1;
                if let Some(answer) = answer(&bytes[..length], *times) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A query.
pub fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(labels(name));
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// Asks over a connected socket and waits for the answer.
pub fn ask(socket: &UdpSocket, id: u16, name: &str, kind: u16) -> Vec<u8> {
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.send(&query(id, name, kind)).unwrap();
    let mut bytes = [0; 1500];
    let length = socket.recv(&mut bytes).unwrap();
    bytes[..length].to_vec()
}

fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn answer(question: &[u8], times: u32) -> Option<Vec<u8>> {
    let first = usize::from(*question.get(12)?);
    let label = String::from_utf8(question.get(13..13 + first)?.to_vec()).ok()?;
    let kind = u16::from_be_bytes(question.get(question.len() - 4..question.len() - 2)?.try_into().ok()?);
    let (mut rcode, mut truncated, mut records) = (0, 0, Vec::new());
    match label.to_lowercase().as_str() {
        "silent" => return None,
        "second" if times < 2 => return None,
        "nx" => rcode = 3,
        "fail" => rcode = 2,
        "cut" => truncated = 2,
        "alias" => {
            let target = labels("real.test");
            records.push(record(&[0xc0, 12], 5, 300, &target));
            records.push(record(&target, A, 30, &ALIASED.octets()));
        }
        "long" => records.extend((0..40).map(|last| record(&[0xc0, 12], A, 60, &[203, 0, 113, last]))),
        _ if kind == AAAA => {
            records.push(record(&[0xc0, 12], AAAA, 60, &Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets()));
        }
        _ => records.extend([1, 2].map(|last| record(&[0xc0, 12], A, 60, &[192, 0, 2, last]))),
    }
    let mut message = question[..2].to_vec();
    message.extend([0x81 | truncated, 0x80 | rcode, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    message.extend(&question[12..]);
    message.extend(records.concat());
    Some(message)
}

fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = owner.to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(ttl.to_be_bytes());
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}
