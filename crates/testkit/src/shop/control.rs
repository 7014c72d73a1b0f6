//! How a running demo is told to switch a fault: a line over a socket in the abstract namespace, which leaves no file.
//!
//! The question is `faults`, or `FAULT on` or `FAULT off`; the answer is lines, the first of them `ok` or `failed`. Only root
//! is listened to, since a demo runs as root.

use super::faults::Fault;
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum as _;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

/// How long the other side may take: a fault takes a second or two on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A question is a few words.
const QUESTION_BYTES: u64 = 200;

/// A question to the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Which faults there are, and which are on.
    Faults,
    /// Switches one.
    Switch(Fault, bool),
}

impl Order {
    fn line(self) -> String {
        match self {
            Self::Faults => "faults\n".to_owned(),
            Self::Switch(fault, on) => format!("{} {}\n", fault.name(), if on { "on" } else { "off" }),
        }
    }

    fn parse(line: &str) -> Result<Self> {
        let on = match line.trim_end().split_once(' ') {
            None if line.trim_end() == "faults" => return Ok(Self::Faults),
            Some((_, "on")) => true,
            Some((_, "off")) => false,
            _ => bail!("{line:?} is no order"),
        };
        let name = line.split(' ').next().unwrap_or_default();
        let fault = Fault::from_str(name, false).map_err(|_text| anyhow::anyhow!("there is no fault {name}"))?;
        Ok(Self::Switch(fault, on))
    }
}

/// The address of the demo whose page is at this port.
fn address(port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::from_abstract_name(format!("weir-demo-{port}"))?)
}

/// Listens to orders on a thread of its own and lets `carry_out` answer each, until the process ends.
///
/// # Errors
/// When another demo listens there.
pub fn listen(port: u16, carry_out: impl Fn(Order) -> Result<String> + Send + 'static) -> Result<()> {
    let listener =
        UnixListener::bind_addr(&address(port)?).with_context(|| format!("another demo listens for port {port}"))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(std::result::Result::ok) {
            // Who breaks off in the middle ends its own question only.
            let _ = answer(stream, &carry_out);
        }
    });
    Ok(())
}

fn answer(mut stream: UnixStream, carry_out: &impl Fn(Order) -> Result<String>) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?.take(QUESTION_BYTES)).read_line(&mut line)?;
    let is_root = getsockopt(&stream, PeerCredentials)?.uid() == 0;
    let outcome = if is_root { Order::parse(&line).and_then(carry_out) } else { Err(anyhow::anyhow!("only root may")) };
    match outcome {
        Ok(text) => write!(stream, "ok\n{text}")?,
        Err(error) => write!(stream, "failed\n{error:#}")?,
    }
    Ok(())
}

/// Tells the demo whose page is at this port.
///
/// # Errors
/// When there is none, or it cannot do what it was told.
pub fn tell(port: u16, order: Order) -> Result<String> {
    let mut stream = UnixStream::connect_addr(&address(port)?).with_context(|| {
        format!("no demo has its page at port {port}: start one (`sudo make demo`), or name its --listen")
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(order.line().as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (outcome, text) = text.split_once('\n').context("the demo ended before it answered")?;
    ensure!(outcome == "ok", "{text}");
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_is_heard() {
        let orders = Fault::ALL.into_iter().flat_map(|fault| [Order::Switch(fault, true), Order::Switch(fault, false)]);
        for order in orders.chain([Order::Faults]) {
            assert_eq!(Order::parse(&order.line()).unwrap(), order);
        }
        for wrong in ["", "refused", "refused maybe\n", "thirst on\n", "faults on\n"] {
            assert!(Order::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
