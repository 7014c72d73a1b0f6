//! Real cables: each agent in a network namespace of its own, a veth pair from there to the relay's, and the pair's end
//! taken down and up.
//!
//! ```text
//! agent 0 ── veth ──┐
//!   192.0.2.2       ├── relay, server (the hub, 192.0.2.1, .5, ...)
//! agent 1 ── veth ──┘
//!   192.0.2.6
//! ```
//!
//! The namespaces have no name and no process that only holds them: nothing of them outlives the run's processes.

use crate::thread_netns::{current, enter, fresh, handle, ip};
use anyhow::{Context, Result};
use std::fs::File;
use std::net::Ipv4Addr;

/// The namespaces of a run; the thread that made them is in the hub until they are dropped.
#[derive(Debug)]
pub struct Cables {
    /// Where the thread came from.
    home: File,
    hub: File,
    inside: Vec<File>,
    is_pulled: Vec<bool>,
}

/// The hub's end of an agent's cable, in 192.0.2.0/24, which is for examples (RFC 5737).
pub fn hub_address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 4 * node as u8 + 1)
}

fn agent_address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 4 * node as u8 + 2)
}

impl Cables {
    /// Lays so many. Threads and processes that the calling thread starts from now on are in the hub.
    ///
    /// # Errors
    /// When not root, or without the `ip` command.
    pub fn lay(count: usize) -> Result<Self> {
        let home = current()?;
        let mut cables = Self { home, hub: fresh()?, inside: Vec::new(), is_pulled: vec![false; count] };
        ip("link set lo up\n")?;
        for node in 0..count {
            let inside = fresh()?;
            ip("link set lo up\n")?;
            let handle = handle(&inside);
            cables.inside.push(inside);
            enter(&cables.hub)?;
            ip(&format!(
                "link add cable{node} type veth peer name cable netns {handle}\n\
                 address add {}/30 dev cable{node}\n\
                 link set cable{node} up\n",
                hub_address(node)
            ))?;
            let at_agent = format!("address add {}/30 dev cable\nlink set cable up\n", agent_address(node));
            cables.inside(node, || ip(&at_agent))?;
        }
        Ok(cables)
    }

    /// Runs `work` in an agent's namespace: what it starts is there.
    ///
    /// # Errors
    /// What `work` failed with, or that a namespace cannot be entered.
    pub fn inside<T>(&self, node: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
        enter(self.inside.get(node).context("an agent without a cable")?)?;
        let done = work();
        enter(&self.hub)?;
        done
    }

    /// Pulls an agent's cable, or plugs it in again; whether that changed anything.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn pull(&mut self, node: usize, pull: bool) -> Result<bool> {
        let Some(is_pulled) = self.is_pulled.get_mut(node).filter(|is_pulled| **is_pulled != pull) else {
            return Ok(false);
        };
        *is_pulled = pull;
        ip(&format!("link set cable{node} {}\n", if pull { "down" } else { "up" }))?;
        Ok(true)
    }
}

impl Drop for Cables {
    fn drop(&mut self) {
        let _ = enter(&self.home);
    }
}
