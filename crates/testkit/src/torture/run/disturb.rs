//! What a run does to its processes, one thing at a time, at random.

use super::{CLOCK_MAX_S, Role, Run, now};
use crate::torture::world::name;
use anyhow::Result;

impl Run {
    /// Does one thing at random, or none.
    pub(super) fn disturb(&mut self, silent: Option<usize>) -> Result<()> {
        let agents = self.plan.writers + usize::from(self.plan.tracer);
        let node = self.random.below(agents as u64) as usize;
        match self.random.below(240) {
            0..=3 => self.kill(Role::Server)?,
            4..=11 => self.kill(Role::Agent(node))?,
            12..=14 => {
                self.kill(Role::Agent(node))?;
                self.relay.ghost(&name(node));
            }
            15..=17 => self.freeze(Role::Agent(node), true)?,
            18..=23 => self.freeze(Role::Agent(node), false)?,
            24 => self.freeze(Role::Server, true)?,
            25..=32 => self.freeze(Role::Server, false)?,
            33..=35 if silent != Some(node) => {
                self.done.apart += u64::from(self.relay.apart(&name(node), true));
            }
            36..=45 if silent != Some(node) => {
                self.relay.apart(&name(node), false);
            }
            46..=48 if self.plan.clocks => {
                let seconds = self.random.below(2 * CLOCK_MAX_S) as i64 - CLOCK_MAX_S as i64;
                self.part(Role::Agent(node))?.set_clock(seconds)?;
                self.done.clocks += 1;
            }
            49..=52 => self.fill_disk(true)?,
            53..=57 => self.fill_disk(false)?,
            58..=62 => self.pull(node, true)?,
            63..=76 => self.pull(node, false)?,
            what @ 77..=90 => self.disturb_shared(what - 77)?,
            91..=95 => self.kill(Role::Tracer)?,
            _ => {}
        }
        Ok(())
    }

    /// One of fourteen things is done to the shared state.
    fn disturb_shared(&mut self, what: u64) -> Result<()> {
        if let Some(api) = &mut self.config_maps {
            match what {
                0..=2 => api.leave(&mut self.random, now()),
                3..=8 => api.fail(&mut self.random),
                _ => api.touch(&mut self.random)?,
            }
            return Ok(());
        }
        if self.etcd.is_empty() {
            return Ok(());
        }
        let number = self.random.below(self.etcd.len() as u64) as usize;
        let mut others = self.parts.iter().filter(|(role, _)| matches!(role, Role::Etcd(other) if *other != number));
        // One at a time: the others are a majority.
        let may_fall = others.all(|(_, part)| part.pid() != 0 && !part.is_stopped());
        match what {
            0..=2 if may_fall => self.kill(Role::Etcd(number)),
            3 if may_fall => self.freeze(Role::Etcd(number), true),
            4.. => (0..self.etcd.len()).try_for_each(|number| self.freeze(Role::Etcd(number), false)),
            _ => Ok(()),
        }
    }

    pub(super) fn pull(&mut self, node: usize, pull: bool) -> Result<()> {
        if let Some(cables) = &mut self.cables {
            let changed = cables.pull(node, pull)?;
            self.done.pulled += u64::from(changed && pull);
        }
        if let Some(network) = &mut self.simulated {
            let changed = network.pull(node, pull)?;
            self.done.cut += u64::from(changed && pull);
        }
        Ok(())
    }

    pub(super) fn fill_disk(&mut self, full: bool) -> Result<()> {
        if let Some(disk) = &self.disk {
            let but = self.random.below(200_000);
            disk.fill(full.then_some(but))?;
            self.done.filled += u64::from(full);
        }
        Ok(())
    }
}
