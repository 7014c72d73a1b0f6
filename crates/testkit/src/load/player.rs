//! A `weir-load` in a process of its own, and the orders that it is given.

use super::{Order, Place, Told};
use crate::process::{Process, binary};
use anyhow::{Context, Result, bail};
use std::io::Write as _;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

/// How often a waiting caller may look whether it should go on.
const LOOK: Duration = Duration::from_millis(100);

/// A running `weir-load`; ends when dropped.
#[derive(Debug)]
pub struct Player {
    process: Process,
    orders: Option<ChildStdin>,
}

impl Player {
    /// Starts one, with more arguments of `weir-load` if need be.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(place: Place, more: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary("weir-load")?);
        let place = match place {
            Place::Loopback => "loopback",
            Place::Veth => "veth",
        };
        command.args(["--place", place]).args(more).stdin(Stdio::piped());
        let mut process = Process::spawn(command)?;
        let orders = process.take_input();
        Ok(Self { process, orders })
    }

    /// Gives an order and waits for the answer; `check` is asked every 100 ms whether to go on.
    ///
    /// # Errors
    /// When the load ended, or `check` failed.
    pub fn order(&mut self, order: &Order, check: &mut dyn FnMut() -> Result<()>) -> Result<Told> {
        let orders = self.orders.as_mut().context("standard input was piped")?;
        writeln!(orders, "{}", serde_json::to_string(order)?).context("weir-load takes no orders")?;
        loop {
            if let Ok(line) = self.process.line(LOOK) {
                return serde_json::from_str(&line).with_context(|| format!("weir-load told {line}"));
            }
            check()?;
            if let Ok(status) = self.process.wait(Duration::ZERO) {
                bail!("weir-load ended ({status}) instead of answering {order:?}");
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.process.pid().as_raw()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // The end of its input is the end of its work.
        drop(self.orders.take());
    }
}
