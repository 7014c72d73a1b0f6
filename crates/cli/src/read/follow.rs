//! `weir connections -f`: asks again and again, and prints what is new or changed until Ctrl-C.
//!
//! What was printed is remembered for the rows of the last answer only, so memory is bounded by one answer.

use super::{Question, ask_on, client, parse, print_item, tell};
use crate::args::{Output, ReadArgs};
use crate::client::Client;
use crate::exit::{Failure, Verdict};
use crate::show::csv;
use crate::show::rows::{Row, Style};
use crate::show::table::{Layout, Table};
use crate::show::terminal::Surface;
use jiff::tz::TimeZone;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;
use weir_wire::api::{Completeness, ConnectionRow};

/// Agents deliver a poll at a time, every 10 s by default: a second's delay on top is not felt.
const PAUSE: Duration = Duration::from_secs(1);

/// A server that restarts is back within seconds; asking it more often helps nobody.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Which counter a row is about (R1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    node: String,
    boot_id: String,
    instance: String,
    generation: u32,
}

/// What makes a row worth printing again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    sent: u64,
    recv: u64,
    retransmits: u64,
    state: String,
    close_reason: Option<String>,
}

/// The rows of the last answer.
#[derive(Debug, Default)]
struct Memory(HashMap<Key, Seen>);

impl Memory {
    /// Takes an answer; tells for each of its rows whether it is new or changed.
    fn step(&mut self, rows: &[ConnectionRow]) -> Vec<bool> {
        let mut now = HashMap::with_capacity(rows.len());
        let changed = rows.iter().map(|row| {
            let row = &row.transaction;
            let key = Key {
                node: row.node.clone(),
                boot_id: row.boot_id.clone(),
                instance: row.instance.clone(),
                generation: row.generation,
            };
            let seen = Seen {
                sent: row.monotonic_sent_bytes,
                recv: row.monotonic_recv_bytes,
                retransmits: row.monotonic_retransmits,
                state: row.state.clone(),
                close_reason: row.close_reason.clone(),
            };
            let changed = self.0.get(&key) != Some(&seen);
            now.insert(key, seen);
            changed
        });
        let changed = changed.collect();
        self.0 = now;
        changed
    }
}

/// Prints until Ctrl-C.
///
/// # Errors
/// [`Failure`]: wrong usage; the first answer does not come; the output cannot be written. A later answer that does not
/// come is told, and asked for again.
pub async fn run(read: &ReadArgs, question: &Question) -> Result<Verdict, Failure> {
    if read.print.output == Output::Json {
        return Err(Failure::Usage("-f prints rows without end, which is no JSON document: use -o jsonl".to_owned()));
    }
    let client = client(&read.server)?;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    tokio::select! {
        outcome = poll(read, question, &client) => outcome,
        _ = &mut interrupted => Ok(Verdict::Done),
    }
}

async fn poll(read: &ReadArgs, question: &Question, client: &Client) -> Result<Verdict, Failure> {
    let mut printer = Printer::new(read);
    let mut memory = Memory::default();
    let mut pause = PAUSE;
    let mut first = true;
    let mut kept = None;
    loop {
        match ask_on(&mut kept, client, question).await {
            Ok(body) => {
                let raw: weir_wire::api::Answer<&RawValue> = parse(&body, client)?;
                let rows: weir_wire::api::Answer<ConnectionRow> = parse(&body, client)?;
                let changed = memory.step(&rows.items);
                let fresh: Vec<(&ConnectionRow, &RawValue)> = rows
                    .items
                    .iter()
                    .zip(raw.items)
                    .zip(changed)
                    .filter_map(|(pair, changed)| changed.then_some(pair))
                    .collect();
                printer.print(&fresh, &rows.completeness)?;
                pause = PAUSE;
                first = false;
            }
            Err(failure) if first || matches!(failure, Failure::Usage(_)) => return Err(failure),
            Err(failure) => {
                if pause == PAUSE {
                    let _ = writeln!(std::io::stderr(), "weir: {failure}; trying again");
                }
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        tokio::time::sleep(pause).await;
        if reader_gone() {
            return Err(Failure::ReaderGone);
        }
    }
}

/// Whether the pipe that standard output may be has lost its reader: without rows no write would tell.
fn reader_gone() -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout};
    use std::os::fd::AsFd;
    let stdout = std::io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    nix::poll::poll(&mut fds, PollTimeout::ZERO).is_ok()
        && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}

#[derive(Debug)]
struct Printer<'a> {
    read: &'a ReadArgs,
    surface: Surface,
    zone: TimeZone,
    layout: Option<(Layout, Option<usize>)>,
    told: Option<String>,
    headed: bool,
}

impl<'a> Printer<'a> {
    fn new(read: &'a ReadArgs) -> Self {
        Self {
            read,
            surface: Surface::stdout(read.print.color),
            zone: TimeZone::system(),
            layout: None,
            told: None,
            headed: false,
        }
    }

    fn print(&mut self, rows: &[(&ConnectionRow, &RawValue)], completeness: &Completeness) -> Result<(), Failure> {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        match self.read.print.output {
            Output::Csv => {
                if !std::mem::replace(&mut self.headed, true) {
                    out.write_all(csv::header(&ConnectionRow::names()).as_bytes())?;
                }
                for (row, _) in rows {
                    out.write_all(csv::line(&row.fields()).as_bytes())?;
                }
            }
            Output::Table => {
                if !rows.is_empty() {
                    self.print_table(rows, completeness, &mut out)?;
                }
            }
            Output::Json | Output::Jsonl => {
                for (_, raw) in rows {
                    print_item(raw, &self.surface, &mut out)?;
                }
            }
        }
        out.flush()?;
        self.tell_changes(completeness);
        Ok(())
    }

    fn print_table(
        &mut self,
        rows: &[(&ConnectionRow, &RawValue)],
        completeness: &Completeness,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        let (reference, zone) = (completeness.to.clone(), self.zone.clone());
        let style = Style { exact: self.read.print.exact, reference, zone, steps: None };
        let mut table = Table::new(ConnectionRow::COLUMNS);
        for (row, _) in rows {
            table.push(row.cells(&style));
        }
        self.surface = Surface::stdout(self.read.print.color);
        let layout = match self.layout.take() {
            // The columns stay where they are as long as the terminal does.
            Some((layout, width)) if width == self.surface.width && table.fits(&layout) => layout,
            _ => {
                let layout = table.layout(&self.surface);
                writeln!(out, "{}", table.heading(&layout, &self.surface))?;
                layout
            }
        };
        for line in table.lines(&layout, &self.surface) {
            writeln!(out, "{line}")?;
        }
        self.layout = Some((layout, self.surface.width));
        Ok(())
    }

    /// Says how complete the rows are when that has changed.
    fn tell_changes(&mut self, completeness: &Completeness) {
        let state = format!("{} {:?} {:?}", completeness.complete, completeness.losses, completeness.omitted > 0);
        if self.told.as_ref() != Some(&state) {
            tell(completeness, &self.read.print, &self.zone);
            self.told = Some(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_wire::api::Transaction;

    fn row(instance: &str, sent: u64) -> ConnectionRow {
        ConnectionRow {
            transaction: Transaction {
                instance: instance.into(),
                monotonic_sent_bytes: sent,
                state: "established".into(),
                ..Transaction::default()
            },
            ..ConnectionRow::default()
        }
    }

    #[test]
    fn a_row_is_printed_when_it_is_new_or_changed() {
        let mut memory = Memory::default();
        assert_eq!(memory.step(&[row("a", 1), row("b", 1)]), [true, true]);
        assert_eq!(memory.step(&[row("a", 1), row("b", 2)]), [false, true]);
        let mut closed = row("a", 1);
        closed.transaction.state = "closed".into();
        assert_eq!(memory.step(&[closed]), [true]);
    }

    #[test]
    fn only_the_last_answer_is_remembered() {
        let mut memory = Memory::default();
        memory.step(&[row("a", 1), row("b", 1)]);
        memory.step(&[row("c", 1)]);
        assert_eq!(memory.0.len(), 1);
    }
}
