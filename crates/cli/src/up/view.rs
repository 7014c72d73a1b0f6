//! What `weir up` shows: the live table on a terminal, a line every window elsewhere. Pure: from what is known to text.

use super::folder::RunningPart;
use super::supervise::{Slot, State};
use crate::show::complete;
use crate::show::rows::{Row, Style, end_name};
use crate::show::table::{Table, shorten};
use crate::show::terminal::{Paint, Surface};
use crate::show::text::escape;
use crate::show::units;
use jiff::tz::TimeZone;
use weir_wire::api::{Answer, Edge};

/// Sums over the edges since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// What clients sent.
    pub sent: u64,
    /// What clients received.
    pub recv: u64,
    /// Connections.
    pub connections: u64,
    /// Edges.
    pub edges: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Failed connections.
    pub failures: u64,
}

impl Sums {
    /// The sums of an answer.
    pub fn of(answer: &Answer<Edge>) -> Self {
        // Those beyond the limit are one row.
        let shown = answer.items.iter().filter(|edge| !edge.client.is_other()).count() as u64;
        let mut sums = Self { edges: shown + answer.completeness.omitted, ..Self::default() };
        for edge in &answer.items {
            sums.sent = sums.sent.saturating_add(edge.sent_bytes);
            sums.recv = sums.recv.saturating_add(edge.recv_bytes);
            sums.connections = sums.connections.saturating_add(edge.connections);
            sums.retransmits = sums.retransmits.saturating_add(edge.retransmits);
            sums.failures = sums.failures.saturating_add(edge.failures);
        }
        sums
    }

    fn in_words(&self, bytes: impl Fn(u64) -> String) -> String {
        let mut words = format!(
            "sent {}, received {}, {}, {}",
            bytes(self.sent),
            bytes(self.recv),
            units::of(self.connections, "connection"),
            units::of(self.edges, "edge")
        );
        for (number, what) in [(self.retransmits, "retransmit"), (self.failures, "failure")] {
            if number > 0 {
                words.extend([", ", &units::of(number, what)]);
            }
        }
        words
    }
}

/// Everything that a frame shows.
#[derive(Debug)]
pub struct Scene<'a> {
    /// Seconds since start.
    pub up_seconds: u64,
    /// The page.
    pub page: Option<&'a str>,
    /// The data folder.
    pub data: &'a str,
    /// The parts as the supervisor knows them.
    pub slots: &'a [Slot],
    /// The parts with their process ids.
    pub parts: &'a [RunningPart],
    /// The newest answer: edges since start, the largest first.
    pub answer: Option<&'a Answer<Edge>>,
    /// Why there is none, or none newer.
    pub trouble: Option<&'a str>,
    /// The newest messages, the oldest first.
    pub messages: &'a [String],
    /// Bytes as integers.
    pub exact: bool,
    /// Where times are.
    pub zone: &'a TimeZone,
}

/// What a screen of unknown height is taken to have.
const HEIGHT: usize = 24;

/// Messages at the screen's foot.
const MESSAGES_MAX: usize = 4;

impl Scene<'_> {
    fn style(&self) -> Style {
        let reference = self.answer.map(|answer| answer.completeness.to.clone()).unwrap_or_default();
        Style { exact: self.exact, reference, zone: self.zone.clone(), steps: None }
    }

    fn bytes(&self, bytes: u64) -> String {
        if self.exact { format!("{bytes} B") } else { units::bytes(bytes) }
    }

    /// The screen's lines, none wider or more than the surface has.
    pub fn frame(&self, surface: &Surface) -> Vec<String> {
        let width = surface.width.unwrap_or(usize::MAX);
        let height = surface.height.unwrap_or(HEIGHT).max(1);
        let fit = |paint: Paint, text: &str| surface.paint(paint, &shorten(&escape(text), width));
        let page = self.page.unwrap_or("not there yet");
        let mut head = vec![
            fit(
                Paint::Bold,
                &format!("weir  page {page}  data {}  up {}", self.data, units::span_ms(self.up_seconds * 1000)),
            ),
            fit(self.parts_paint(), &self.parts_line()),
        ];
        let mut foot = Vec::new();
        if let Some(answer) = self.answer {
            head.push(fit(Paint::Plain, &Sums::of(answer).in_words(|bytes| self.bytes(bytes))));
            let paint = if answer.completeness.complete { Paint::Dim } else { Paint::Warn };
            foot.push(fit(paint, &complete::in_words(&answer.completeness, self.zone)));
        }
        if let Some(trouble) = self.trouble {
            foot.push(fit(Paint::Warn, trouble));
        }
        let newest = &self.messages[self.messages.len().saturating_sub(MESSAGES_MAX)..];
        foot.extend(newest.iter().map(|message| fit(Paint::Warn, message)));
        foot.push(fit(Paint::Dim, "Ctrl-C stops"));
        head.push(String::new());
        let room = height.saturating_sub(head.len() + foot.len() + 2);
        let mut lines = head;
        lines.extend(self.edges(surface, room));
        lines.push(String::new());
        lines.extend(foot);
        lines.truncate(height);
        lines
    }

    fn edges(&self, surface: &Surface, room: usize) -> Vec<String> {
        let Some(answer) = self.answer.filter(|answer| !answer.items.is_empty()) else {
            return vec![
                surface
                    .paint(Paint::Dim, "waiting for the first edges: the second poll shows what moved since the first"),
            ];
        };
        let style = self.style();
        let mut table = Table::new(Edge::COLUMNS);
        for edge in answer.items.iter().take(room.saturating_sub(1).max(1)) {
            table.push(edge.cells(&style));
        }
        let table = table.without_empty_columns();
        let layout = table.layout(surface);
        let mut lines = vec![table.heading(&layout, surface)];
        lines.extend(table.lines(&layout, surface));
        lines.truncate(room.max(1));
        lines
    }

    fn parts_paint(&self) -> Paint {
        let trouble = |slot: &Slot| matches!(slot.state, State::Failed | State::Pausing { .. });
        if self.slots.iter().any(trouble) { Paint::Warn } else { Paint::Plain }
    }

    /// `tracer pid 12 | server pid 13 | agent starts, restarted 2 times`.
    pub fn parts_line(&self) -> String {
        let part = |slot: &Slot| {
            let name = slot.part.as_str();
            let pid = self.parts.iter().find(|part| part.name == name).and_then(|part| part.pid);
            let state = match (slot.state, pid) {
                (State::Running { .. }, Some(pid)) => format!("pid {pid}"),
                (State::Running { .. } | State::Waiting, _) => "starts".to_owned(),
                (State::Pausing { .. }, _) => "died, starts again".to_owned(),
                (State::Failed, _) => "failed".to_owned(),
                (State::Stopped, _) => "stopped".to_owned(),
            };
            let restarts = match slot.restarts {
                0 => String::new(),
                1 => ", restarted once".to_owned(),
                times => format!(", restarted {times} times"),
            };
            format!("{name} {state}{restarts}")
        };
        self.slots.iter().map(part).collect::<Vec<_>>().join(" | ")
    }

    /// The lines for a window where there is no screen: totals since start, what came since the line before, and the
    /// top edges.
    pub fn plain(&self, before: Sums) -> (Vec<String>, Sums) {
        let restarts: u64 = self.slots.iter().map(|slot| slot.restarts).sum();
        let restarts = if restarts == 0 { String::new() } else { format!("; {}", units::of(restarts, "restart")) };
        let Some(answer) = self.answer else {
            let trouble = self.trouble.unwrap_or("no answer yet");
            return (vec![format!("up {}: {trouble}{restarts}", units::span_ms(self.up_seconds * 1000))], before);
        };
        let sums = Sums::of(answer);
        let (sent, recv) = (sums.sent.saturating_sub(before.sent), sums.recv.saturating_sub(before.recv));
        let trouble = self.trouble.map_or_else(String::new, |trouble| format!("; {trouble}"));
        let mut lines = vec![format!(
            "{}: {} (new: sent {}, received {}); {}{restarts}{trouble}",
            units::instant(&answer.completeness.to, &answer.completeness.to, self.zone),
            sums.in_words(|bytes| self.bytes(bytes)),
            self.bytes(sent),
            self.bytes(recv),
            complete::in_words(&answer.completeness, self.zone)
        )];
        lines.extend(answer.items.iter().filter(|edge| !edge.client.is_other()).take(PLAIN_EDGES).map(|edge| {
            format!(
                "  {} -> {} {}/{}: sent {}, received {}, {}",
                end_name(&edge.client),
                end_name(&edge.server),
                edge.port,
                edge.protocol,
                self.bytes(edge.sent_bytes),
                self.bytes(edge.recv_bytes),
                units::of(edge.connections, "connection")
            )
        }));
        (lines.iter().map(|line| escape(line).into_owned()).collect(), sums)
    }
}

/// Top edges below a plain line.
const PLAIN_EDGES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::supervise::{Event, Part, Supervisor};
    use std::time::Duration;
    use unicode_width::UnicodeWidthStr;
    use weir_wire::api::{Completeness, EdgeEnd, NodeCoverage};

    fn answer(edges: u64) -> Answer<Edge> {
        let end = |name: &str| EdgeEnd { kind: "process".into(), name: name.into(), ..EdgeEnd::default() };
        let edge = |index: u64| Edge {
            client: end(&format!("client-{index}\u{1b}")),
            server: end("server"),
            port: 443,
            protocol: "tcp".into(),
            sent_bytes: 1000 * index,
            recv_bytes: 10,
            connections: 1,
            certainty: "known".into(),
            ..Edge::default()
        };
        Answer {
            items: (0..edges).rev().map(edge).collect(),
            completeness: Completeness {
                complete: true,
                from: "2026-01-31T10:00:00Z".into(),
                to: "2026-01-31T10:00:30Z".into(),
                nodes: vec![NodeCoverage {
                    node: "alpha".into(),
                    state: "reporting".into(),
                    ..NodeCoverage::default()
                }],
                ..Completeness::default()
            },
        }
    }

    fn slots() -> Supervisor {
        let mut supervisor = Supervisor::new(&Part::ALL, false);
        let ms = Duration::from_millis;
        supervisor.step(ms(0), Event::Tick);
        supervisor.step(ms(1), Event::Exited { part: Part::Tracer, hopeless: false });
        supervisor.step(ms(500), Event::Ready(Part::Server));
        supervisor
    }

    fn with_scene<T>(answer: Option<&Answer<Edge>>, look: impl FnOnce(&Scene<'_>) -> T) -> T {
        let supervisor = slots();
        let parts = [
            RunningPart { name: "tracer".into(), pid: Some(7), restarts: 1 },
            RunningPart { name: "server".into(), pid: Some(8), restarts: 0 },
        ];
        look(&Scene {
            up_seconds: 30,
            page: Some("http://127.0.0.1:7780"),
            data: "/var/lib/weir",
            slots: supervisor.slots(),
            parts: &parts,
            answer,
            trouble: None,
            messages: &["tracer ended (signal 9), starts again in 100 ms".to_owned()],
            exact: false,
            zone: &TimeZone::UTC,
        })
    }

    #[test]
    fn a_frame_fits_every_screen() {
        let answer = answer(100);
        for (width, height) in [(200, 60), (80, 24), (60, 10), (45, 5), (40, 1)] {
            let surface = Surface { is_terminal: true, width: Some(width), height: Some(height), colour: false };
            with_scene(Some(&answer), |scene| {
                let frame = scene.frame(&surface);
                assert!(frame.len() <= height, "{height}: {}", frame.len());
                for line in frame {
                    assert!(line.width() <= width, "{width}: {line:?}");
                }
            });
        }
    }

    #[test]
    fn a_frame_shows_parts_totals_edges_and_completeness() {
        let surface = Surface { is_terminal: true, width: Some(80), height: Some(24), colour: false };
        let answer = answer(3);
        let frame = with_scene(Some(&answer), |scene| scene.frame(&surface).join("\n"));
        insta::assert_snapshot!(frame);
    }

    #[test]
    fn edges_beyond_the_limit_are_counted_once_and_summed() {
        let mut answer = answer(3);
        answer.completeness.omitted = 40;
        let other = || EdgeEnd { kind: "other".into(), ..EdgeEnd::default() };
        answer.items.push(Edge { client: other(), server: other(), sent_bytes: 7, ..Edge::default() });
        let sums = Sums::of(&answer);
        assert_eq!((sums.edges, sums.sent), (43, 3007));
    }

    #[test]
    fn a_plain_line_says_what_is_new() {
        let answer = answer(3);
        let before = Sums { sent: 1000, ..Sums::default() };
        let (lines, sums) = with_scene(Some(&answer), |scene| scene.plain(before));
        assert_eq!(sums.sent, 3000);
        insta::assert_snapshot!(lines.join("\n"));
        let (lines, _) = with_scene(None, |scene| scene.plain(before));
        insta::assert_snapshot!(lines.join("\n"));
    }
}
