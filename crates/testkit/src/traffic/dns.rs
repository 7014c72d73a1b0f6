//! DNS over UDP: a small server and a client, enough for names, codes, and answers that never come (RFC 1035 4.1).

use super::counted::BLOCK;
use super::datagrams::{self, Peers};
use super::tell::{Teller, now_ns};
use super::truth::{Outcome, Role};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// Names below it do not exist.
const NOT_THERE: &str = "nx.test";
/// Questions for names below it get no answer.
const SLOW: &str = "slow.test";
/// How long a client waits for an answer.
const WAIT: Duration = Duration::from_millis(500);
/// NXDOMAIN (RFC 1035 4.1.1).
const NAME_ERROR: u8 = 3;

/// What a client asked and was told: a line beside the truth of the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The name, without the dot at its end.
    pub dns: String,
    /// The client's end.
    pub local: SocketAddr,
    /// The server's.
    pub remote: SocketAddr,
    /// The response code; absent where no answer came in time.
    pub rcode: Option<u8>,
    /// From the question's send(2) to the answer's recv(2), nanoseconds; absent without an answer.
    pub latency_ns: Option<u64>,
    /// The process that asked.
    pub pid: u32,
}

fn is_below(name: &str, zone: &str) -> bool {
    name == zone || name.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'))
}

/// A question for an A record.
fn question(id: u16, name: &str) -> Result<Vec<u8>> {
    let mut message = Vec::new();
    message.extend(id.to_be_bytes());
    // Recursion desired; one question.
    message.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        ensure!(!label.is_empty() && label.len() < 64, "{name} is no name");
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    Ok(message)
}

/// The name asked for, and where the question ends.
fn name_of(message: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(std::str::from_utf8(message.get(at..at + length)?).ok()?.to_ascii_lowercase());
        at += length;
    }
    (message.len() >= at + 4).then(|| (labels.join("."), at + 4))
}

/// The answer to a question: 192.0.2.1 (RFC 5737), or that there is no such name.
fn answer_to(message: &[u8], name: &str, end: usize) -> Vec<u8> {
    let mut answer = message[..end].to_vec();
    answer[2] = 0x81;
    answer[3] = 0x80;
    answer[6..12].fill(0);
    if is_below(name, NOT_THERE) {
        answer[3] |= NAME_ERROR;
    } else {
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    }
    answer
}

/// Answers until stopped.
pub(super) fn serve(socket: &UdpSocket, teller: &Teller) -> Result<()> {
    let mut block = [0_u8; BLOCK];
    let mut peers = Peers::default();
    while let Some((length, local, peer)) = datagrams::receive(socket, &mut block)? {
        let message = &block[..length];
        let mut sent = 0;
        if let Some((name, end)) = name_of(message)
            && !is_below(&name, SLOW)
        {
            sent = datagrams::reply(socket, &answer_to(message, &name, end), local, peer)?;
        }
        peers.add(local, peer, sent, length);
    }
    peers.tell(Role::Server, Outcome::Closed, teller);
    Ok(())
}

pub(super) fn ask(server: SocketAddr, names: &[String], teller: &Teller) -> Result<()> {
    let mut peers = Peers::default();
    for (number, name) in names.iter().enumerate() {
        let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(WAIT))?;
        let id = number as u16 + 1;
        let mut block = [0; BLOCK];
        let asked = now_ns();
        let sent = socket.send(&question(id, name)?)?;
        let (got, latency_ns) = match socket.recv(&mut block) {
            Ok(got) => (got, Some(now_ns() - asked)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => (0, None),
            Err(error) => return Err(error).context("the answer"),
        };
        if got > 0 && block[..2] != id.to_be_bytes() {
            bail!("the answer to another question");
        }
        let local = socket.local_addr()?;
        peers.add(local, server, sent, got);
        teller.line(&Question {
            dns: name.clone(),
            local,
            remote: server,
            rcode: (got > 0).then_some(block[3] & 0x0f),
            latency_ns,
            pid: std::process::id(),
        });
    }
    peers.tell(Role::Client, Outcome::Closed, teller);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_with_its_own_name() {
        let message = question(7, "a.shop.test").unwrap();
        let (name, end) = name_of(&message).unwrap();
        assert_eq!((name.as_str(), end), ("a.shop.test", message.len()));
        let answer = answer_to(&message, &name, end);
        assert_eq!((answer[0], answer[1], answer[3] & 15, answer[7]), (0, 7, 0, 1));
        let unknown = question(8, "a.nx.test").unwrap();
        let (name, end) = name_of(&unknown).unwrap();
        assert_eq!(answer_to(&unknown, &name, end)[3] & 15, NAME_ERROR);
        assert!(!is_below("anx.test", NOT_THERE) && is_below("nx.test", NOT_THERE));
        assert!(name_of(&message[..20]).is_none());
    }
}
