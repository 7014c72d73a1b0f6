//! The fallback: the same rows where eBPF is not to be had, from what the kernel tells anybody who asks.
//!
//! ```text
//! sock_diag dump, each namespace ──walk──▶ Sockets ──▶ living rows
//! sock_diag destroy multicast ──▶ Hearing ──drain──▶ Closing ──▶ ended rows
//! /proc/PID/fd ──▶ owners        /proc/PID/ns/net, /run/netns ──▶ Namespaces
//! ```
//! It loads nothing into the kernel and keeps no counts of its own: TCP's are the kernel's, so that they outlive this
//! process. What it cannot see is in [`blind`]. Traps: the destroy group tells the state CLOSE whatever it was before
//! ([`infer`]); a socket in a namespace keeps that namespace alive ([`namespaces`]).

pub mod blind;
pub mod closing;
pub mod diag;
pub mod ends;
pub mod infer;
pub mod namespaces;
pub mod netlink;
pub mod owners;
pub mod sockets;

use crate::engine::{EngineError, kernel};
use crate::losses::Loss;
use crate::source::{Drained, Source, Walk, Write};
use closing::Closing;
use diag::{BEFORE_PEERS_FIN, CONNECTIONS, Counters, Detail, Ends, Message, state};
use ends::Hearing;
use infer::Opener;
use namespaces::{Looked, Namespace, Namespaces};
use netlink::Diag;
use nix::libc;
use owners::Owner;
use sockets::{SOCKETS_MAX, Sockets, Which, give, living};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use weir_daemon::clock::{Clock, SystemClock};
use weir_wire::feed::{Degraded, Probe};
use weir_wire::losses::{
    BACKFILLS_FAILED, ENDS_DROPPED, ENDS_LAST_SEEN, ENDS_OVERRUN, ENDS_RECV_ONE_SHORT, NAMESPACES_CAPPED, Reason,
    SOCKETS_CAPPED, WALKS_FAILED,
};

/// A namespace that nobody else has is kept alive by us at most so long.
const LOOK_INTERVAL_NS: u64 = 2_000_000_000;
/// Looking for owners reads every descriptor of every process: it may take a twentieth of a core.
const OWNERS_PAUSE: u64 = 20;
/// Sockets of one namespace that one walk takes.
const SOCKETS_PER_NAMESPACE_MAX: usize = 131_072;
/// Ends in one write, and writes in one drain.
const DRAIN_BATCH: usize = 4_096;
const DRAIN_BATCHES: usize = 16;

const FAMILIES: [i32; 2] = [libc::AF_INET, libc::AF_INET6];

/// The fallback as a source of rows.
#[derive(Debug)]
pub struct Fallback {
    reason: String,
    proc: PathBuf,
    namespaces: Namespaces,
    hearing: Hearing,
    sockets: Sockets,
    closing: Closing,
    /// The process that alone holds a listener, by the listener's inode.
    listeners: HashMap<u32, Owner>,
    owners_hidden: bool,
    looked_ns: u64,
    /// Owners of new sockets are looked for again from then on.
    owned_next_ns: u64,
    clock: SystemClock,
    /// When ends were lost last.
    lost_ns: Option<u64>,
    losses: BTreeMap<&'static str, u64>,
}

/// One namespace's sockets, read.
struct Read {
    sockets: Vec<(Message, Counters)>,
    /// Those whose state was before the peer's FIN after their counters had been read.
    confirmed: HashSet<u64>,
    listeners: Vec<u32>,
    capped: u64,
}

impl Fallback {
    /// Enters the namespaces. `reason` says why it is not eBPF.
    ///
    /// # Errors
    /// When not even this process' own namespace can be asked.
    pub fn new(reason: String, now_ns: u64) -> Result<Self, EngineError> {
        if let Err(error) = netlink::raise_descriptor_limit() {
            tracing::warn!(%error, "failed to raise the limit on open files: it may be too low for many namespaces");
        }
        let proc = PathBuf::from("/proc");
        let mut fallback = Self {
            reason,
            namespaces: Namespaces::new(proc.clone(), "/run/netns".into()),
            proc,
            hearing: Hearing::start().map_err(kernel("start the thread that hears of destroyed sockets"))?,
            sockets: Sockets::default(),
            closing: Closing::default(),
            listeners: HashMap::new(),
            owners_hidden: false,
            looked_ns: now_ns,
            owned_next_ns: 0,
            clock: SystemClock::new(),
            lost_ns: None,
            losses: BTreeMap::new(),
        };
        fallback.look(now_ns).map_err(kernel("enter the network namespaces"))?;
        Ok(fallback)
    }

    fn look(&mut self, now_ns: u64) -> io::Result<()> {
        self.looked_ns = now_ns;
        let looked = self.namespaces.look()?;
        if looked == Looked::Changed {
            self.hearing.watch(self.namespaces.all().cloned().collect());
        }
        let capped = self.namespaces.take_capped();
        self.lose(NAMESPACES_CAPPED, capped);
        Ok(())
    }

    fn lose(&mut self, reason: &Reason, count: u64) {
        if count > 0 {
            *self.losses.entry(reason.word).or_default() += count;
        }
    }

    fn take_ends(&mut self, now_ns: u64) -> Drained {
        let (overruns, dropped) = (self.hearing.take_overruns(), self.hearing.take_dropped());
        if overruns + dropped > 0 {
            self.lost_ns = Some(now_ns);
        }
        self.lose(ENDS_OVERRUN, overruns);
        self.lose(ENDS_DROPPED, dropped);
        let heard = self.hearing.take(DRAIN_BATCH);
        let drained = if heard.len() < DRAIN_BATCH { Drained::Wholly } else { Drained::InPart };
        for heard in heard {
            let before = self.closing.ready.len();
            self.closing.take(&heard, &mut self.sockets, now_ns);
            // Nobody holds a destroyed socket: who accepted a short connection is who listens.
            let owner = heard.listener.and_then(|listener| self.listeners.get(&listener.inode));
            if let Some(owner) = owner {
                let new = self.closing.ready.iter_mut().skip(before);
                for row in new.filter(|row| row.cookie == heard.message.cookie && row.direction == 1) {
                    if row.origin.pid == 0 {
                        give(row, owner);
                    }
                }
            }
        }
        self.closing.turn(now_ns);
        drained
    }

    fn write_ready(&mut self, write: Write<'_>) -> Result<(), EngineError> {
        if !self.closing.ready.is_empty() {
            write(self.closing.ready.clone())?;
            self.closing.ready.clear();
        }
        let (last_seen, one_short) = self.closing.take_inexact();
        self.lose(ENDS_LAST_SEEN, last_seen);
        self.lose(ENDS_RECV_ONE_SHORT, one_short);
        Ok(())
    }

    fn read(&self, namespace: &Namespace) -> io::Result<Read> {
        let mut ask = namespace.ask.lock().unwrap_or_else(PoisonError::into_inner);
        let mut read = Read { sockets: Vec::new(), confirmed: HashSet::new(), listeners: Vec::new(), capped: 0 };
        let mut doubtful = false;
        for family in FAMILIES {
            ask.dump(family, CONNECTIONS, Detail::Counters, |message| {
                // What is left of a connection after its socket has no counters.
                let Some(counters) = message.counters else { return };
                if message.ends.local_port == 0 || message.ends.remote_port == 0 {
                    return;
                }
                if read.sockets.len() >= SOCKETS_PER_NAMESPACE_MAX {
                    read.capped += 1;
                    return;
                }
                doubtful |= self.sockets.is_doubtful(&message, &counters);
                read.sockets.push((message, counters));
            })?;
        }
        for family in FAMILIES {
            if doubtful {
                ask.dump(family, BEFORE_PEERS_FIN, Detail::States, |message| {
                    read.confirmed.insert(message.cookie);
                })?;
            }
            ask.dump(family, 1 << state::LISTEN, Detail::States, |message| {
                if read.listeners.len() < SOCKETS_PER_NAMESPACE_MAX {
                    read.listeners.push(message.inode);
                }
            })?;
        }
        for (message, counters) in &read.sockets {
            if !self.sockets.is_doubtful(message, counters) {
                read.confirmed.insert(message.cookie);
            }
        }
        Ok(read)
    }

    /// Takes what a namespace has. Returns whether all of it was read.
    fn meet(&mut self, namespace: &Arc<Namespace>, listeners: &mut BTreeMap<u32, u32>, now_ns: u64) -> Met {
        let read = match self.read(namespace) {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(netns = namespace.inode, %error, "failed to read the sockets of a network namespace");
                self.lose(WALKS_FAILED, 1);
                return Met::InPart;
            }
        };
        listeners.extend(read.listeners.iter().map(|inode| (*inode, 0)));
        for (message, counters) in &read.sockets {
            let opener = self.sockets.opener(message).or_else(|| opener(message, counters, &namespace.ask));
            let recv = living(message, counters, read.confirmed.contains(&message.cookie));
            let told = (infer::sent(message, counters, opener), recv);
            let before = self.sockets.see(message, counters, told, opener, namespace.inode, now_ns);
            self.closing.give_up(before.into_iter().collect());
        }
        self.lose(SOCKETS_CAPPED, read.capped);
        if read.capped > 0 { Met::InPart } else { Met::Wholly }
    }

    fn own(&mut self, which: Which, listeners: &BTreeMap<u32, u32>) -> io::Result<()> {
        let mut wanted = self.sockets.inodes(which);
        let new_listener = listeners.keys().any(|inode| !self.listeners.contains_key(inode));
        if wanted.is_empty() && !new_listener {
            return Ok(());
        }
        let begun_ns = self.clock.monotonic().0;
        if begun_ns < self.owned_next_ns && which == Which::New {
            return Ok(());
        }
        wanted.extend(listeners);
        let found = owners::find(&self.proc, &wanted);
        let ended_ns = self.clock.monotonic().0;
        self.owned_next_ns = ended_ns + OWNERS_PAUSE * (ended_ns - begun_ns);
        let found = found?;
        self.owners_hidden = found.hidden;
        self.sockets.own(&found.owners);
        if !listeners.is_empty() {
            let alone = found.owners.iter().filter(|(inode, _)| listeners.contains_key(*inode));
            self.listeners = alone.filter(|(inode, _)| !found.shared.contains(*inode)).map(|(i, o)| (*i, *o)).collect();
        }
        Ok(())
    }

    fn is_deaf(&self, netns: u32) -> bool {
        self.namespaces.all().find(|namespace| namespace.inode == netns).is_none_or(|namespace| !namespace.hears())
    }
}

/// Whether all was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    Wholly,
    InPart,
}

/// Who opened a living connection. Where its counters move, they and the listener must say the same.
fn opener(message: &Message, counters: &Counters, ask: &std::sync::Mutex<Diag>) -> Option<Opener> {
    if let Some(opener) = infer::opener(message, counters) {
        let before_our_fin = |state| matches!(state, state::ESTABLISHED | state::CLOSE_WAIT);
        if opener == Opener::Peer || !before_our_fin(message.state) {
            return Some(opener);
        }
        // The state was read before the counters: what they have beyond the payload may be a FIN that went in between.
        // Where the socket still has not sent one, it is the SYN.
        let now = ask.lock().unwrap_or_else(PoisonError::into_inner).find(&message.ends).ok()?;
        return now.is_some_and(|now| before_our_fin(now.state)).then_some(opener);
    }
    let anybody = Ends { remote: [0; 16], remote_port: 0, ..message.ends };
    let found = ask.lock().unwrap_or_else(PoisonError::into_inner).find(&anybody).ok()?;
    let by_listener =
        if found.is_some_and(|found| found.state == state::LISTEN) { Opener::Peer } else { Opener::Self_ };
    if counters.unacked == 0 {
        // The host's own firewall refused some: the counters will not say it later either.
        return Some(by_listener);
    }
    infer::moving(message, counters).filter(|moving| *moving == by_listener)
}

impl Source for Fallback {
    fn drain(&mut self, now_ns: u64, write: Write<'_>) -> Result<Drained, EngineError> {
        if now_ns.saturating_sub(self.looked_ns) >= LOOK_INTERVAL_NS {
            self.look(now_ns).map_err(kernel("enter the network namespaces"))?;
        }
        for _ in 0..DRAIN_BATCHES {
            // What could not be written stays, and nothing is taken on top of it.
            self.write_ready(write)?;
            let drained = self.take_ends(now_ns);
            self.write_ready(write)?;
            if drained == Drained::Wholly {
                return Ok(Drained::Wholly);
            }
        }
        Ok(Drained::InPart)
    }

    fn walk(&mut self, now_ns: u64, write: Write<'_>) -> Result<Walk, EngineError> {
        self.look(now_ns).map_err(kernel("enter the network namespaces"))?;
        self.drain(now_ns, write)?;
        self.sockets.begin_walk();
        let namespaces: Vec<_> = self.namespaces.all().cloned().collect();
        let mut listeners = BTreeMap::new();
        let mut whole = true;
        for namespace in &namespaces {
            whole &= self.meet(namespace, &mut listeners, now_ns) == Met::Wholly;
        }
        if let Err(error) = self.own(Which::New, &listeners) {
            tracing::warn!(%error, "failed to look for the owners of sockets");
            self.lose(BACKFILLS_FAILED, 1);
        }
        self.drain(now_ns, write)?;
        if whole {
            let deaf: HashSet<u32> = self
                .sockets
                .rows()
                .map(|row| row.origin.netns)
                .collect::<HashSet<_>>()
                .into_iter()
                .filter(|netns| self.is_deaf(*netns))
                .collect();
            let rows = self.sockets.give_up(|netns| deaf.contains(&netns), self.lost_ns, now_ns);
            self.closing.give_up(rows);
            self.write_ready(write)?;
        }
        let capped = self.sockets.capped();
        self.lose(SOCKETS_CAPPED, capped);
        let rows = self.sockets.rows().copied().chain(self.closing.rows()).collect();
        Ok(Walk { rows, complete: whole && capped == 0 })
    }

    fn backfill(&mut self) -> io::Result<()> {
        let listeners = self.listeners.keys().map(|inode| (*inode, 0)).collect();
        self.own(Which::All, &listeners)
    }

    fn expire(&mut self, _now_ns: u64, _idle: Duration, _write: Write<'_>) -> Result<(), EngineError> {
        Ok(())
    }

    fn count(&mut self, loss: Loss, count: u64) {
        if count > 0 {
            *self.losses.entry(loss.reason().word).or_default() += count;
        }
    }

    fn losses(&self) -> Result<BTreeMap<String, u64>, EngineError> {
        Ok(self.losses.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect())
    }

    fn probes(&self) -> Vec<Probe> {
        let udp = blind::ALWAYS.iter().find(|(what, _)| *what == crate::probes::udp::NAME).map(|(_, why)| *why);
        vec![
            Probe { name: "tcp".to_owned(), state: "running".to_owned(), ..Probe::default() },
            Probe {
                name: "udp".to_owned(),
                state: "unsupported".to_owned(),
                reason: udp.map(str::to_owned),
                ..Probe::default()
            },
        ]
    }

    fn gauges(&mut self) -> Result<BTreeMap<String, u64>, EngineError> {
        let gauges = [
            ("tcp_open_connections", self.sockets.len() as u64),
            ("fallback_sockets_max", SOCKETS_MAX as u64),
            ("fallback_namespaces", self.namespaces.len() as u64),
            ("fallback_namespaces_max", namespaces::NAMESPACES_MAX as u64),
            ("fallback_namespaces_refused", self.namespaces.refused() as u64),
            ("fallback_ends_waiting", self.hearing.waiting() as u64),
            ("fallback_ends_waiting_max", ends::WAITING_MAX as u64),
            ("fallback_ends_unsettled", self.closing.waiting() as u64),
        ];
        Ok(gauges.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn degraded(&self) -> Option<Degraded> {
        let mut cannot_see: Vec<_> = blind::ALWAYS.into_iter().map(blind::tell).collect();
        let now = [
            (blind::OTHER_NAMESPACES, self.namespaces.refused() > 0 || self.namespaces.are_hidden()),
            (blind::OTHER_OWNERS, self.owners_hidden),
            (blind::SHORT_LIVED, self.namespaces.all().any(|namespace| !namespace.hears())),
        ];
        cannot_see.extend(now.into_iter().filter(|(_, is_so)| *is_so).map(|(words, _)| blind::tell(words)));
        Some(Degraded { mode: "fallback".to_owned(), reason: self.reason.clone(), cannot_see })
    }

    fn is_degraded(&self) -> bool {
        true
    }
}
