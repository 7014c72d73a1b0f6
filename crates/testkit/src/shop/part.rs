//! One process of the shop: what it serves, and whom it calls.

use super::{Customer, dns};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The length of one write of an answer.
const BLOCK: usize = 16_384;

/// The longest answer that is given: a demo shall be moderate.
const ANSWER_MAX: u64 = 16 << 20;

/// A request to another part: `HOST:PORT/BYTES` on a connection of its own, `HOST:PORT/BYTES/keep` on a kept one. HOST is
/// an address or a name that the DNS part knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    host: String,
    port: u16,
    bytes: u64,
    is_kept: bool,
}

impl FromStr for Call {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || format!("`{text}` is no call: write HOST:PORT/BYTES or HOST:PORT/BYTES/keep");
        let mut words = text.split('/');
        let (host, port) = words.next().and_then(|target| target.rsplit_once(':')).with_context(wrong)?;
        let bytes = words.next().with_context(wrong)?.parse().with_context(wrong)?;
        let is_kept = match words.next() {
            None => false,
            Some("keep") => true,
            Some(_) => anyhow::bail!(wrong()),
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Self { host, port: port.parse().with_context(wrong)?, bytes, is_kept })
    }
}

/// A part and its settings.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "weir-shop", about = "One process of the demo's shop")]
pub struct Part {
    /// Its name, which it answers with.
    #[arg(long)]
    pub name: String,
    /// A TCP port to serve, on every address.
    #[arg(long)]
    pub tcp: Vec<u16>,
    /// An UDP port to serve, on every address.
    #[arg(long)]
    pub udp: Vec<u16>,
    /// The UDP port to answer DNS questions on.
    #[arg(long)]
    pub dns: Option<u16>,
    /// What DNS questions are answered with: NAME=ADDRESS.
    #[arg(long, value_parser = record)]
    pub record: Vec<(String, IpAddr)>,
    /// Whom to ask for names.
    #[arg(long)]
    pub resolver: Option<SocketAddr>,
    /// A call for every request, or for every beat.
    #[arg(long)]
    pub call: Vec<Call>,
    /// Makes the calls by itself, this often.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub every_ms: Option<u64>,
    /// How often it makes them before it ends; for ever without.
    #[arg(long)]
    pub times: Option<u64>,
    /// Takes orders on its standard input: `fail NAME` and `answer NAME`, for what DNS questions are answered with.
    #[arg(long)]
    pub control: bool,
    /// Names that DNS questions fail for.
    #[arg(skip)]
    failing: Arc<Mutex<BTreeSet<String>>>,
    /// Where names led last: a name that cannot be resolved any more is still used, as by many a runtime.
    #[arg(skip)]
    resolved: Arc<Mutex<BTreeMap<String, Ipv4Addr>>>,
}

fn record(text: &str) -> Result<(String, IpAddr)> {
    let (name, address) = text.split_once('=').with_context(|| format!("`{text}` is not NAME=ADDRESS"))?;
    Ok((name.to_owned(), address.parse()?))
}

impl Part {
    /// Serves and calls until it is killed, or until its calls are made. Prints a line once all of its ports are open.
    ///
    /// # Errors
    /// When a port cannot be bound, or the last of its own calls failed.
    pub fn run(self) -> Result<()> {
        let part = Arc::new(self);
        let mut serving = Vec::new();
        for port in &part.tcp {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port))
                .with_context(|| format!("failed to listen on TCP port {port}"))?;
            let part = Arc::clone(&part);
            serving.push(std::thread::spawn(move || part.accept(&listener)));
        }
        for port in part.udp.iter().chain(&part.dns) {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, *port))
                .with_context(|| format!("failed to listen on UDP port {port}"))?;
            let part = Arc::clone(&part);
            let is_dns = part.dns == socket.local_addr().ok().map(|address| address.port());
            serving.push(std::thread::spawn(move || part.answer_datagrams(&socket, is_dns)));
        }
        if part.control {
            let part = Arc::clone(&part);
            std::thread::spawn(move || part.take_orders());
        }
        println!("{} is open", part.name);
        if let Some(every) = part.every_ms {
            part.beat(Duration::from_millis(every))?;
        }
        for thread in serving {
            let _ = thread.join();
        }
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "a beat is real time between requests, nothing waits for it")]
    fn beat(&self, every: Duration) -> Result<()> {
        let mut kept = BTreeMap::new();
        let mut last = Ok(());
        let mut left = self.times;
        while left != Some(0) {
            last = self.make_calls(&mut kept);
            if let Err(error) = &last {
                eprintln!("{}: {error:#}", self.name);
            }
            left = left.map(|left| left - 1);
            std::thread::sleep(every);
        }
        last
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming().filter_map(std::result::Result::ok) {
            let part = Arc::clone(self);
            std::thread::spawn(move || {
                // A client that goes away in the middle ends its own connection only.
                let _ = part.answer(stream);
            });
        }
    }

    fn answer(&self, mut stream: TcpStream) -> Result<()> {
        let seen = stream.peer_addr()?.ip().to_canonical();
        stream.set_nodelay(true)?;
        let mut requests = BufReader::new(stream.try_clone()?);
        let mut kept = BTreeMap::new();
        let mut line = String::new();
        while requests.read_line(&mut line)? > 0 {
            let mut left = line.trim().parse::<u64>()?.min(ANSWER_MAX);
            line.clear();
            if let Err(error) = self.make_calls(&mut kept) {
                eprintln!("{}: {error:#}", self.name);
            }
            stream.write_all(format!("{} {seen}\n", self.name).as_bytes())?;
            let block = [0x77_u8; BLOCK];
            while left > 0 {
                let length = left.min(block.len() as u64);
                stream.write_all(&block[..length as usize])?;
                left -= length;
            }
        }
        Ok(())
    }

    fn make_calls(&self, kept: &mut BTreeMap<usize, Customer>) -> Result<()> {
        for (index, call) in self.call.iter().enumerate() {
            let mut customer = match kept.remove(&index) {
                Some(customer) => customer,
                None => Customer::connect(self.find(call)?)?,
            };
            customer.ask(call.bytes)?;
            if call.is_kept {
                kept.insert(index, customer);
            }
        }
        Ok(())
    }

    fn find(&self, call: &Call) -> Result<SocketAddr> {
        if let Ok(address) = call.host.parse::<IpAddr>() {
            return Ok((address, call.port).into());
        }
        let resolver = self.resolver.with_context(|| format!("nobody to ask for {}", call.host))?;
        let found = dns::resolve(resolver, &call.host);
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        let address = match (found, resolved.get(&call.host)) {
            (Ok(address), _) => address,
            (Err(_), Some(before)) => *before,
            (Err(error), None) => return Err(error),
        };
        resolved.insert(call.host.clone(), address);
        Ok((address, call.port).into())
    }

    fn take_orders(&self) {
        for line in std::io::stdin().lines().map_while(std::result::Result::ok) {
            let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
            match line.split_once(' ') {
                Some(("fail", name)) => {
                    failing.insert(name.to_owned());
                }
                Some(("answer", name)) => {
                    failing.remove(name);
                }
                _ => eprintln!("{}: `{line}` is no order", self.name),
            }
        }
    }

    fn answer_datagrams(&self, socket: &UdpSocket, is_dns: bool) {
        let records: BTreeMap<String, IpAddr> = self.record.iter().cloned().collect();
        let mut block = [0_u8; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut block) {
            let answer = if is_dns {
                let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
                dns::answer(&block[..length], &records, &failing)
            } else {
                Some(format!("{} {}\n", self.name, peer.ip().to_canonical()).into_bytes())
            };
            if let Some(answer) = answer {
                let _ = socket.send_to(&answer, peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read() {
        let call: Call = "cart.shop:80/100/keep".parse().unwrap();
        assert_eq!(call, Call { host: "cart.shop".into(), port: 80, bytes: 100, is_kept: true });
        let call: Call = "[fd00::1]:80/7".parse().unwrap();
        assert_eq!(call, Call { host: "fd00::1".into(), port: 80, bytes: 7, is_kept: false });
        for wrong in ["", "cart", "cart:80", "cart:80/x", "cart:80/1/never"] {
            assert!(wrong.parse::<Call>().is_err(), "{wrong}");
        }
    }
}
