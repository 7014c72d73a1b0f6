//! Load: the same exchange again and again, by one thread that is both ends, and what one operation takes.
//!
//! The program `weir-load` reads one [`Order`] a line from standard input and answers each with one [`Told`] line. One
//! thread at both ends never waits for another one, so that what is timed is the kernel's own way from socket to socket:
//! on a machine that has nothing else to do, the thread's processor time is the time on the wall. Rounds are short
//! (about half a millisecond), so that what disturbs one of them leaves the median alone.
//!
//! Both ends count what they did ([`Made`]), so that the load is also a truth to compare a tracer's feed with.

mod ends;
mod pace;
mod place;
mod player;

pub use place::{Ground, Place, VETH_CLIENT, VETH_SERVER};
pub use player::Player;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};

/// What one operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// 64 bytes there, 64 bytes back, on one TCP connection.
    Exchange64,
    /// 64 bytes there, 65,536 bytes back, on one TCP connection.
    Answer64k,
    /// A TCP connection opened, accepted and closed by both ends, the client first.
    ConnectClose,
    /// A datagram of 64 bytes there, one of 64 bytes back.
    Datagram64,
}

impl Workload {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Exchange64, Self::Answer64k, Self::ConnectClose, Self::Datagram64];

    /// Operations in one round: about half a millisecond's worth.
    pub fn operations(self) -> u32 {
        match self {
            Self::Exchange64 => 50,
            Self::Answer64k => 40,
            Self::ConnectClose => 15,
            Self::Datagram64 => 100,
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Exchange64 => "TCP 64 B and back",
            Self::Answer64k => "TCP 64 KB answer",
            Self::ConnectClose => "connect+close",
            Self::Datagram64 => "UDP 64 B and back",
        }
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "order")]
pub enum Order {
    /// Opens fresh sockets, warms up, and times rounds for so long.
    Time {
        /// What one operation is.
        workload: Workload,
        /// For how long, milliseconds; at least one round is timed.
        millis: u32,
    },
    /// Plays so many rounds, timed or not.
    Rounds {
        /// What one operation is.
        workload: Workload,
        /// How many.
        rounds: u32,
    },
    /// Opens connections at a given rate, on each 64 bytes there and back, and closes them.
    Pace {
        /// Connections a second.
        rate: u32,
        /// For how long.
        seconds: u32,
    },
}

/// What both ends did, counted by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// TCP connections that the client opened.
    pub connected: u64,
    /// TCP connections that the server accepted.
    pub accepted: u64,
    /// Attempts to connect that failed.
    pub failed: u64,
    /// What the client's writes took, bytes.
    pub client_sent: u64,
    /// What the client's reads gave, bytes.
    pub client_recv: u64,
    /// What the server's writes took, bytes.
    pub server_sent: u64,
    /// What the server's reads gave, bytes.
    pub server_recv: u64,
}

/// The first quartile, the median and the third quartile of what one operation took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quartiles {
    /// A quarter of the rounds were faster.
    pub low: f64,
    /// Half of the rounds were faster.
    pub median: f64,
    /// Three quarters of the rounds were faster.
    pub high: f64,
}

impl Quartiles {
    /// Of `values`, in any order; zero of none.
    pub fn of(values: &mut [f64]) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        Self { low: quantile(values, 0.25), median: quantile(values, 0.5), high: quantile(values, 0.75) }
    }
}

/// The value below which `share` (0 to 1) of `sorted` lies, between two neighbours by their distance; zero of none.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    let (low, high) = (sorted[below.min(last)], sorted[above]);
    low + (high - low) * (place - place.floor())
}

/// The answer to an order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// What was done, warm-up included.
    pub made: Made,
    /// Operations, warm-up included.
    pub operations: u64,
    /// Rounds that were timed.
    pub rounds: u64,
    /// Microseconds of this thread's processor time an operation, over the rounds.
    pub processor: Quartiles,
    /// Microseconds on the wall an operation, over the rounds.
    pub wall: Quartiles,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// Of [`Order::Pace`]: the most that a connection came too late, microseconds.
    pub late_us_max: u64,
}

/// Answers the orders of `input`, one JSON line each, until it ends.
///
/// # Errors
/// When an order is not understood, or an exchange fails.
pub fn obey(ground: &Ground, input: impl BufRead, mut output: impl Write) -> Result<()> {
    let mut ends = ends::Ends::open(ground)?;
    for line in input.lines() {
        let told = match serde_json::from_str(&line?)? {
            Order::Time { workload, millis } => ends.time(workload, millis)?,
            Order::Rounds { workload, rounds } => ends.rounds(workload, rounds)?,
            Order::Pace { rate, seconds } => pace::pace(&mut ends, rate, seconds)?,
        };
        serde_json::to_writer(&mut output, &told)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_between_neighbours() {
        assert_eq!(Quartiles::of(&mut []), Quartiles::default());
        assert_eq!(Quartiles::of(&mut [7.0]), Quartiles { low: 7.0, median: 7.0, high: 7.0 });
        assert_eq!(Quartiles::of(&mut [4.0, 1.0, 3.0, 2.0]), Quartiles { low: 1.75, median: 2.5, high: 3.25 });
    }
}
