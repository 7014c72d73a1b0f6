//! As much of DNS (RFC 1035) as the shop needs: one question for an address, one answer.

use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// The length of a message's header.
const HEADER: usize = 12;
/// The type A and the class IN.
const ADDRESS: [u8; 4] = [0, 1, 0, 1];

/// Asks `server` for the IPv4 address of `name`.
///
/// # Errors
/// When no answer comes in time or there is no such name.
pub fn resolve(server: SocketAddr, name: &str) -> Result<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(super::PATIENCE))?;
    socket.connect(server)?;
    // Recursion is desired; the id needs no secrecy within the demo.
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        ensure!((1..=63).contains(&label.len()), "{name} is no name");
        question.push(label.len() as u8);
        question.extend(label.as_bytes());
    }
    question.push(0);
    question.extend(ADDRESS);
    socket.send(&question)?;
    let mut answer = [0_u8; 512];
    let length = socket.recv(&mut answer).with_context(|| format!("no answer from {server} for {name}"))?;
    let answer = &answer[..length];
    ensure!(answer.len() > HEADER && answer[..2] == question[..2], "{server} answered something else");
    if answer[3] & 0x0f != 0 || answer[7] == 0 {
        bail!("{name} is not known (rcode {})", answer[3] & 0x0f);
    }
    let address: [u8; 4] = answer[answer.len() - 4..].try_into()?;
    Ok(address.into())
}

/// Answers a question from `records`, and for the names that are `failing` that the server failed; `None` when it is no
/// question.
pub fn answer(question: &[u8], records: &BTreeMap<String, IpAddr>, failing: &BTreeSet<String>) -> Option<Vec<u8>> {
    let (name, length) = name(question.get(HEADER..)?)?;
    let end = HEADER + length + ADDRESS.len();
    let mut answer = question.get(..end)?.to_vec();
    let is_failing = failing.contains(&name);
    let found = records.get(&name).filter(|_| !is_failing).and_then(|address| match address {
        IpAddr::V4(address) if answer.ends_with(&ADDRESS) => Some(address.octets()),
        _ => None,
    });
    // A response, authoritative, recursion available; SERVFAIL (2), or NXDOMAIN (3) for an unknown name.
    answer[2] = 0x85;
    answer[3] = match is_failing {
        true => 0x82,
        false if found.is_some() || records.contains_key(&name) => 0x80,
        false => 0x83,
    };
    answer[4..HEADER].copy_from_slice(&[0, 1, 0, found.is_some().into(), 0, 0, 0, 0]);
    if let Some(address) = found {
        // The name is the question's (a pointer to it), valid for 5 s, 4 bytes long.
        answer.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
        answer.extend(address);
    }
    Some(answer)
}

/// A name in labels, and how many bytes it took.
fn name(bytes: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 0;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(std::str::from_utf8(bytes.get(at..at + length)?).ok()?.to_owned());
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_resolved_and_an_unknown_or_failing_one_is_not() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let records = BTreeMap::from([("cart.shop.svc.cluster.local".to_owned(), "10.96.0.21".parse().unwrap())]);
        let serving = std::thread::spawn(move || {
            for failing in [None, None, Some("cart.shop.svc.cluster.local".to_owned())] {
                let mut block = [0_u8; 512];
                let (length, peer) = server.recv_from(&mut block).unwrap();
                let failing = failing.into_iter().collect();
                server.send_to(&answer(&block[..length], &records, &failing).unwrap(), peer).unwrap();
            }
        });
        let found = resolve(address, "cart.shop.svc.cluster.local").unwrap();
        assert_eq!(found, Ipv4Addr::new(10, 96, 0, 21));
        let missing = resolve(address, "gone.shop.svc.cluster.local").unwrap_err();
        assert!(missing.to_string().contains("rcode 3"), "{missing}");
        let failed = resolve(address, "cart.shop.svc.cluster.local").unwrap_err();
        assert!(failed.to_string().contains("rcode 2"), "{failed}");
        serving.join().unwrap();
        assert_eq!(answer(b"short", &BTreeMap::new(), &BTreeSet::new()), None);
    }
}
