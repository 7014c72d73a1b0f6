//! What is decided before the probes are loaded: whether UDP is counted and DNS watched, the scope, the maps' sizes. Two tracers that
//! differ in any of it have different runs.

use crate::scope::Scope;
use serde::{Deserialize, Serialize};
use zerocopy::{Immutable, IntoBytes};

/// How the probes are to be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Whether UDP is counted.
    pub udp: bool,
    /// Whether DNS is watched.
    pub dns: bool,
    /// Where to trace; `None` is everywhere.
    pub scope: Option<Scope>,
    /// How large the maps are.
    pub sizes: Sizes,
}

/// The sizes of the kernel's maps. Only tests choose others, to see what happens when one is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Bytes of the ring of ended TCP connections.
    pub closed_ring_bytes: u32,
    /// Bytes of the ring that a walk over the living fills.
    pub live_ring_bytes: u32,
    /// UDP flows at once.
    pub udp_flows_max: u32,
    /// UDP peers of one socket.
    pub udp_peers_max: u32,
    /// Entries kept beyond `udp_flows_max`, so that the `other` peer of a socket always finds room.
    pub udp_others_max: u32,
    /// Bytes of the ring of ended UDP main flows.
    pub udp_closed_ring_bytes: u32,
    /// Bytes of the ring that a walk over the living main flows fills.
    pub udp_live_ring_bytes: u32,
    /// Bytes of the ring of ended UDP sockets with further flows.
    pub udp_gone_ring_bytes: u32,
    /// Bytes of the ring of new cgroups.
    pub cgroups_ring_bytes: u32,
    /// Bytes of the ring of DNS messages.
    pub dns_ring_bytes: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            // 8 MiB / (160 + 8) B = 49,932 ends between two drains (100 ms): 499,000 connections a second.
            closed_ring_bytes: 8 << 20,
            // A walk that fills it pauses until user space has emptied it, every 2 ms.
            live_ring_bytes: 8 << 20,
            // About 270 B each, 18 MB in all: twice what a busy DNS server or QUIC proxy shows in two minutes.
            udp_flows_max: 65_536,
            // An eighth of the table: a DNS server has a peer for each query (every one comes from a port of its own) for
            // half a minute, 270 of them a second, and eight such servers fit.
            udp_peers_max: 8_192,
            udp_others_max: 4_096,
            // 4 MiB / (160 + 8) B = 24,966 ends between two drains: 249,000 a second.
            udp_closed_ring_bytes: 4 << 20,
            udp_live_ring_bytes: 1 << 20,
            // 1 MiB / (64 + 8) B = 14,563 sockets between two drains.
            udp_gone_ring_bytes: 1 << 20,
            // 256 KiB / about 200 B = 1,300 cgroups between two drains.
            cgroups_ring_bytes: 256 << 10,
            // 1 MiB / (112 + 128 + 8) B = 4,228 short messages between two drains: 21,000 queries a second.
            dns_ring_bytes: 1 << 20,
        }
    }
}

impl Setup {
    /// The size of the map called `name`, where it is not the object's own. What is switched off takes next to nothing.
    pub(crate) fn size_of_map(&self, name: &str) -> Option<u32> {
        match name {
            "udp_flows" if !self.udp => Some(1),
            "udp_closed" | "udp_live" | "udp_gone" if !self.udp => Some(RING_BYTES_MIN),
            "dns_messages" if !self.dns => Some(RING_BYTES_MIN),
            _ => self.sizes.of_map(name),
        }
    }
}

/// The smallest ring: a page, on any machine.
const RING_BYTES_MIN: u32 = 64 << 10;

impl Sizes {
    /// The size of the map called `name`, where it is not the object's own.
    fn of_map(&self, name: &str) -> Option<u32> {
        Some(match name {
            "tcp_closed" => self.closed_ring_bytes,
            "tcp_live" => self.live_ring_bytes,
            "udp_flows" => self.udp_flows_max + self.udp_others_max,
            "udp_closed" => self.udp_closed_ring_bytes,
            "udp_live" => self.udp_live_ring_bytes,
            "cgroups_made" => self.cgroups_ring_bytes,
            "udp_gone" => self.udp_gone_ring_bytes,
            "dns_messages" => self.dns_ring_bytes,
            _ => return None,
        })
    }
}

/// The map that holds [`Settings`].
pub(crate) const SETTINGS: &str = ".rodata.settings";

/// `struct settings` of `settings.bpf.h`.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Settings {
    scope_id: u64,
    scope_level: u32,
    udp_flows_max: u32,
    udp_peers_max: u32,
    udp: u8,
    dns: u8,
    pad: [u8; 2],
}

const _: () = assert!(size_of::<Settings>() == 24);

impl From<&Setup> for Settings {
    fn from(setup: &Setup) -> Self {
        let (scope_id, scope_level) = setup.scope.as_ref().map_or((0, 0), |scope| (scope.id, scope.level));
        Self {
            scope_id,
            scope_level,
            udp_flows_max: setup.sizes.udp_flows_max,
            udp_peers_max: setup.sizes.udp_peers_max,
            udp: u8::from(setup.udp),
            dns: u8::from(setup.dns),
            pad: [0; 2],
        }
    }
}
