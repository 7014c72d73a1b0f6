//! DNS messages as they leave the kernel. See `dns.bpf.h` for what is seen.
//!
//! The ring is read in two steps, as every ring here: what was read stays in it until [`Dns::taken`].

use crate::kernel::ring::{Position, Ring};
use crate::kernel::sys;
use crate::probes::Descriptors;
use crate::probes::layout::{Origin, address};
use crate::probes::tcp::{descriptor, read_number};
use std::io;
use std::net::IpAddr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Its name among the probes.
pub const NAME: &str = "dns";

/// `enum dns_number`.
const RING_FULL: u32 = 0;
const SEGMENTED: u32 = 1;
const HELD: u32 = 2;

/// `struct dns_message`: what stands before a message's bytes.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Head {
    /// Whose the socket is.
    pub origin: Origin,
    /// The socket's cookie.
    pub cookie: u64,
    /// When it passed, `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
    /// The client's address.
    pub local: [u8; 16],
    /// The server's address; IPv4 in the first four bytes.
    pub remote: [u8; 16],
    /// The client's port, in host order.
    pub local_port: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// The message's bytes.
    pub length: u16,
    /// How many of them are here.
    pub captured: u16,
    /// 1 a query on its way out, 0 an answer on its way in.
    pub outgoing: u8,
    /// Zero.
    pub pad: [u8; 7],
}

const _: () = assert!(size_of::<Head>() == 112);

impl Head {
    /// The server's address.
    pub fn server(&self) -> IpAddr {
        address(self.family, self.remote)
    }
}

/// The ring and its numbers.
#[derive(Debug)]
pub struct Dns {
    ring: Ring,
    position: Option<Position>,
}

impl Dns {
    /// Maps the ring; `None` when DNS is not watched.
    pub fn open(descriptors: &Descriptors, watched: bool) -> io::Result<Option<Self>> {
        if !watched || !descriptors.contains_key("dns_messages") {
            return Ok(None);
        }
        Ok(Some(Self { ring: Ring::map(descriptor(descriptors, "dns_messages")?)?, position: None }))
    }

    /// Hands every message in the ring to `each`, oldest first.
    pub fn read(&mut self, each: &mut dyn FnMut(&Head, &[u8])) {
        let position = self.ring.read(usize::MAX, |record| {
            let Ok((head, bytes)) = Head::read_from_prefix(record) else { return };
            each(&head, bytes.get(..usize::from(head.captured)).unwrap_or_default());
        });
        self.position = Some(position);
    }

    /// Gives the room of what was read back, once the kernel's map says that user space holds `held` queries.
    pub fn taken(&mut self, descriptors: &Descriptors, held: u64) -> io::Result<()> {
        let numbers = descriptor(descriptors, "dns_numbers")?;
        if read_number(numbers, HELD)? != held {
            sys::update(numbers, HELD.as_bytes(), held.as_bytes())?;
        }
        if let Some(position) = self.position.take() {
            self.ring.advance(position);
        }
        Ok(())
    }

    /// Queries that the tracer before this one held when it died.
    pub fn held(descriptors: &Descriptors) -> io::Result<u64> {
        read_number(descriptor(descriptors, "dns_numbers")?, HELD)
    }

    /// What the kernel side lost, by reason.
    pub fn losses(descriptors: &Descriptors) -> io::Result<[(&'static str, u64); 2]> {
        let numbers = descriptor(descriptors, "dns_numbers")?;
        Ok([("dns_ring_full", read_number(numbers, RING_FULL)?), ("dns_segmented", read_number(numbers, SEGMENTED)?)])
    }

    /// Bytes that wait in the ring.
    pub fn waiting_bytes(&self) -> u64 {
        self.ring.waiting_bytes()
    }
}
