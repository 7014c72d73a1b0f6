//! Asks the kernel for entries of its table by their tuple, many in one system call.

use super::entry::{Ends, Entry};
use super::forwarded::{Forwarded, Occasion};
use super::judge::ends;
use super::message::{self, Message};
use crate::kernel::netlink::{Netlink, Received};
use crate::probes::layout::{Row, TCP};
use nix::libc;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use weir_daemon::clock::Clock;

/// Answers wait in the socket: 32 of at most 4.5 kB (a page and its bookkeeping, before the kernel trims it) are under
/// the 208 kB that every socket may have.
const ASKED_AT_ONCE: usize = 32;
/// The socket's buffer; a dump's parts are up to 32 KiB each.
const BUFFER: usize = 1 << 20;

/// What it has cost: entries asked for and dumps, and the time in them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub(super) runs: u64,
    pub(super) nanoseconds: u64,
}

/// What the kernel said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Found(Entry),
    Missing,
    Failed,
}

/// The socket, once it is open, and what asking has cost.
pub(super) struct Asker {
    socket: Option<Netlink>,
    sequence: u32,
    cost: Cost,
    buffer: Vec<u8>,
}

impl Default for Asker {
    fn default() -> Self {
        Self { socket: None, sequence: 0, cost: Cost::default(), buffer: vec![0; 64 << 10] }
    }
}

impl Asker {
    /// Opens the socket, and asks once: the kernel says whether it may be asked.
    pub(super) fn open(&mut self, clock: &dyn Clock) -> io::Result<()> {
        let socket = Netlink::open(BUFFER)?;
        socket.bind(0)?;
        self.socket = Some(socket);
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        let answer = self.ask_all(&[(TCP, Ends { source: nobody, dest: nobody })], clock);
        if answer.is_err() {
            self.socket = None;
        }
        answer.map(|_| ())
    }

    pub(super) fn close(&mut self) {
        self.socket = None;
    }

    pub(super) fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    pub(super) fn cost(&self) -> Cost {
        self.cost
    }

    /// Room for messages of other sockets.
    pub(super) fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Asks for every row's entry; openers first, since their entries answer for the accepting ends of this node, too.
    pub(super) fn ask<'a>(&mut self, rows: impl Iterator<Item = &'a Row>, clock: &dyn Clock) -> Vec<Answer> {
        let questions: Vec<(bool, (u8, Ends))> =
            rows.map(|row| (row.direction == 2, (row.protocol, ends(row)))).collect();
        let mut answers = vec![Answer::Failed; questions.len()];
        let mut known: HashMap<(u8, Ends), usize> = HashMap::new();
        for openers in [true, false] {
            let mut open: Vec<usize> = Vec::new();
            for (index, (is_opener, question)) in questions.iter().enumerate() {
                if *is_opener != openers {
                    continue;
                }
                match known.get(question) {
                    Some(&same) => answers[index] = answers[same].clone(),
                    None => open.push(index),
                }
            }
            let asked: Vec<(u8, Ends)> = open.iter().map(|&index| questions[index].1).collect();
            let found = self.ask_all(&asked, clock).unwrap_or_else(|error| {
                tracing::warn!(%error, "failed to ask conntrack");
                // Opened anew at the next look.
                self.socket = None;
                vec![Answer::Failed; asked.len()]
            });
            for (index, answer) in open.into_iter().zip(found) {
                if let Answer::Found(entry) = &answer {
                    known.insert((entry.protocol, entry.reply), index);
                }
                answers[index] = answer;
            }
        }
        answers
    }

    /// Asks in groups, and takes each group's answers: they are there when the group is sent.
    fn ask_all(&mut self, questions: &[(u8, Ends)], clock: &dyn Clock) -> io::Result<Vec<Answer>> {
        let mut answers = vec![Answer::Failed; questions.len()];
        let Some(socket) = self.socket.as_ref().filter(|_| !questions.is_empty()) else { return Ok(answers) };
        let begin = clock.monotonic().0;
        let mut request = Vec::with_capacity(ASKED_AT_ONCE * 96);
        for (group, answers) in questions.chunks(ASKED_AT_ONCE).zip(answers.chunks_mut(ASKED_AT_ONCE)) {
            request.clear();
            // Sequence numbers tell answers apart, also from late ones of an earlier group.
            let first = self.sequence.wrapping_add(1);
            for (protocol, ends) in group {
                self.sequence = self.sequence.wrapping_add(1);
                message::ask(&mut request, self.sequence, *protocol, *ends);
            }
            socket.send(&request)?;
            let mut missing = group.len();
            while missing > 0 {
                let mut messages = match socket.receive(&mut self.buffer)? {
                    Received::Messages(messages) => messages,
                    // What was dropped stays unanswered; what came before it is still to be read.
                    Received::Overflow => continue,
                    Received::Nothing => break,
                };
                while let Some(message) = message::next(&mut messages) {
                    let (sequence, answer) = match message {
                        Message::Entry { sequence, entry } => (sequence, Answer::Found(entry)),
                        Message::Failed { sequence, errno: libc::ENOENT } => (sequence, Answer::Missing),
                        Message::Failed { errno: errno @ (libc::EPERM | libc::EINVAL | libc::EOPNOTSUPP), .. } => {
                            return Err(io::Error::from_raw_os_error(errno));
                        }
                        Message::Failed { sequence, .. } => (sequence, Answer::Failed),
                        Message::Done { .. } | Message::Other => continue,
                    };
                    if let Some(slot) = answers.get_mut(sequence.wrapping_sub(first) as usize) {
                        *slot = answer;
                        missing -= 1;
                    }
                }
            }
        }
        self.cost.runs += questions.len() as u64;
        self.cost.nanoseconds += clock.monotonic().0.saturating_sub(begin);
        Ok(answers)
    }

    /// Reads the whole table into `forwarded`, if that is due. False: it could not be read.
    pub(super) fn dump_if_due(&mut self, forwarded: &mut Forwarded, occasion: Occasion, clock: &dyn Clock) -> bool {
        let begin = clock.monotonic().0;
        let Some(socket) = self.socket.as_ref().filter(|_| forwarded.is_dump_due(occasion, begin)) else { return true };
        self.sequence = self.sequence.wrapping_add(1);
        let read = forwarded.dump(socket, self.sequence, &mut self.buffer, begin);
        if let Err(error) = &read {
            tracing::warn!(%error, "failed to read conntrack's table");
            self.socket = None;
        }
        self.cost.runs += 1;
        self.cost.nanoseconds += clock.monotonic().0.saturating_sub(begin);
        read.is_ok()
    }
}
