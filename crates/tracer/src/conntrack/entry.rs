//! What conntrack's table holds, and what weir keeps of it.

use std::net::{IpAddr, SocketAddr};
use weir_wire::feed::Conntrack as Told;

/// One direction's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Where they come from.
    pub source: SocketAddr,
    /// Where they go.
    pub dest: SocketAddr,
}

impl Ends {
    /// The packets that answer.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { source: self.dest, dest: self.source }
    }
}

/// An entry of the kernel's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// 6 TCP, 17 UDP.
    pub protocol: u8,
    /// The opener's packets.
    pub original: Ends,
    /// The answer's packets behind the translation.
    pub reply: Ends,
    /// `enum ip_conntrack_status`.
    pub status: u32,
    /// `enum tcp_conntrack`.
    pub tcp_state: Option<u8>,
    /// When it began, where `nf_conntrack_timestamp` is on.
    pub started_unix_ns: Option<u64>,
}

/// A translated connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Translation {
    /// The opener's packets.
    pub original: Ends,
    /// The answer's packets behind the translation.
    pub reply: Ends,
}

impl Translation {
    /// Length of [`Translation::to_bytes`].
    pub const LENGTH: usize = 72;

    /// For the journal: the four ends, 16 bytes of address (IPv4 as mapped) and 2 of port, little endian. The inverse is
    /// [`Translation::from_bytes`].
    pub fn to_bytes(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        let ends = [self.original.source, self.original.dest, self.reply.source, self.reply.dest];
        for (end, slot) in ends.into_iter().zip(bytes.chunks_exact_mut(18)) {
            let ip = match end.ip() {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            slot[..16].copy_from_slice(&ip);
            slot[16..].copy_from_slice(&end.port().to_le_bytes());
        }
        bytes
    }

    /// The translation in `bytes`, `None` unless there are 72 of them.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LENGTH] = bytes.try_into().ok()?;
        let end = |index: usize| {
            let slot = &bytes[index * 18..][..18];
            let ip = IpAddr::from(<[u8; 16]>::try_from(&slot[..16]).ok()?).to_canonical();
            Some(SocketAddr::new(ip, u16::from_le_bytes([slot[16], slot[17]])))
        };
        Some(Self { original: Ends { source: end(0)?, dest: end(1)? }, reply: Ends { source: end(2)?, dest: end(3)? } })
    }

    /// As the feed tells it.
    pub fn to_feed(&self) -> Told {
        Told {
            repl_src_ip: self.reply.source.ip().to_string(),
            repl_dst_ip: self.reply.dest.ip().to_string(),
            repl_src_port: self.reply.source.port(),
            repl_dst_port: self.reply.dest.port(),
            orig_src_ip: Some(self.original.source.ip().to_string()),
            orig_dst_ip: Some(self.original.dest.ip().to_string()),
            orig_src_port: Some(self.original.source.port()),
            orig_dst_port: Some(self.original.dest.port()),
        }
    }
}
