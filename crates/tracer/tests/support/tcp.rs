//! TCP connections with both ends in this process.

use super::{Agent, Tracer, rows_of, until};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use weir_wire::feed::{Connection, Reply};

/// How much is written or read at once.
const BLOCK: usize = 1 << 20;

/// Both ends of a connection that is open.
pub struct Pair {
    pub client: TcpStream,
    pub server: TcpStream,
}

impl Pair {
    pub fn new(listener: &TcpListener) -> Self {
        Self::at(listener, listener.local_addr().unwrap())
    }

    /// The listener is reached at `address`.
    pub fn at(listener: &TcpListener, address: SocketAddr) -> Self {
        Self::accepted(TcpStream::connect(address).unwrap(), listener)
    }

    /// `client` is the next that `listener` gets.
    pub fn accepted(client: TcpStream, listener: &TcpListener) -> Self {
        Self { client, server: listener.accept().unwrap().0 }
    }

    /// The client's port, then the server's.
    pub fn ports(&self) -> (u16, u16) {
        (self.client.local_addr().unwrap().port(), self.server.local_addr().unwrap().port())
    }

    /// Local and remote, as the client and as the server has them.
    pub fn ends(&self) -> [(SocketAddr, SocketAddr); 2] {
        [&self.client, &self.server].map(|socket| (socket.local_addr().unwrap(), socket.peer_addr().unwrap()))
    }

    /// Sends so many bytes to the server, then so many back.
    pub fn exchange(&self, there: usize, back: usize) {
        transfer(&self.client, &self.server, there);
        transfer(&self.server, &self.client, back);
    }
}

pub fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// Sends `count` bytes one way, and reads them.
pub fn transfer(mut from: &TcpStream, mut to: &TcpStream, count: usize) {
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let block = vec![7; BLOCK.min(count)];
            let mut left = count;
            while left > 0 {
                let now = left.min(block.len());
                from.write_all(&block[..now]).unwrap();
                left -= now;
            }
        });
        let mut block = vec![0; BLOCK.min(count)];
        let mut left = count;
        while left > 0 {
            let now = left.min(block.len());
            to.read_exact(&mut block[..now]).unwrap();
            left -= now;
        }
    });
}

/// The other end has closed its half, and nothing is unread.
pub fn read_to_the_end(mut stream: &TcpStream) {
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
}

/// The ended rows of client and server, once both are there.
pub fn ended(tracer: &Tracer, agent: &mut Agent, (client, server): (u16, u16)) -> (Connection, Connection) {
    let mut seen = Reply::default();
    until("both ends to end", || {
        seen.connections.extend(agent.fetch(tracer).connections.into_iter().filter(|row| row.close_epoch.is_some()));
        let one = |local, remote| rows_of(&seen, local, remote).first().map(|row| (*row).clone());
        Some((one(client, server)?, one(server, client)?))
    })
}
