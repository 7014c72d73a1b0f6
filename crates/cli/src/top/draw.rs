//! The picture: four lines above the rows, two below.

use super::app::{App, Mode, View};
use super::input::Input;
use super::level::Level;
use super::rows::{Rows, is_unhealthy};
use crate::read::table;
use crate::show::rows::Style as Numbers;
use crate::show::table::{Table, shorten};
use crate::show::terminal::{Paint, Surface};
use crate::show::text::{escape, escape_lines};
use crate::show::{complete, units};
use jiff::tz::TimeZone;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Clear, Paragraph, Wrap};
use unicode_width::UnicodeWidthStr;
use weir_wire::api::{Edge, Health};

/// How it is drawn.
#[derive(Clone, Debug)]
pub struct Look {
    /// Whether to colour.
    pub colour: bool,
    /// Bytes as integers.
    pub exact: bool,
    /// The zone of times.
    pub zone: TimeZone,
}

const KEYS: &str = "? help  Enter nearer  Esc back  / filter  ←→ sort  u unhealthy  p pause  q quit";
/// Before an unhealthy row, and before the others where there is one.
const MARKS: [&str; 2] = ["! ", "  "];

/// Names are shortened to a quarter of the screen before a column goes.
const NAME_SHARE: u16 = 4;

const HELP: &str = "\
Up Down PgUp PgDn Home End   choose a row (also k j g G)
Enter                        nearer: its workloads, pods, connections
Esc, Backspace               back
/                            filter, for example namespace=shop and failures>0
                             docs/queries.md has the fields, Ctrl-U empties it
Left Right                   sort by another column (also < >)
r                            the other way round
u                            only unhealthy edges, and all again
b                            group by the next: workload, pod, service,
                             namespace, process, node
+ -                          look back further, or less far
p, Space                     pause, and go on
q, Ctrl-C                    end

Bytes are what moved in the span, each counted once; SENT is by the client.
A row with a ! does worse than usual; below the rows stands in which way,
and how complete they are, in a warning colour if they are not.

Any key goes back.";

/// Draws; tells the application how many rows it had room for.
pub fn frame(frame: &mut Frame<'_>, app: &mut App, look: &Look) {
    let area = frame.area();
    let said = said(app, look, usize::from(area.width));
    // What is said may take what it needs, up to a third of the screen.
    let lines = said.len().clamp(1, usize::from(area.height / 3).max(1)) as u16;
    let rooms = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(if matches!(app.mode, Mode::Type(_)) { 3 } else { 1 }),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(lines),
        Constraint::Length(1),
    ]);
    let [title, filter, heading, rows, words, keys] = rooms.areas(area);
    frame.render_widget(Paragraph::new(head(app, look, title.width)), title);
    filter_line(frame, app, look, filter);
    app.room = usize::from(rows.height);
    content(frame, app, look, heading, rows);
    frame.render_widget(Paragraph::new(Text::from(said)), words);
    frame.render_widget(Paragraph::new(Span::styled(KEYS, paint(Paint::Dim, look))), keys);
    if app.mode == Mode::Help {
        let [_, below] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
        frame.render_widget(Clear, below);
        frame.render_widget(Paragraph::new(HELP).wrap(Wrap { trim: false }), below);
    }
}

fn paint(paint: Paint, look: &Look) -> Style {
    let style = Style::new();
    match paint {
        Paint::Plain => style,
        Paint::Bold => style.add_modifier(Modifier::BOLD),
        Paint::Dim => style.add_modifier(Modifier::DIM),
        _ if !look.colour => style,
        Paint::Good => style.fg(Color::Green),
        Paint::Warn => style.fg(Color::Yellow),
        Paint::Bad => style.fg(Color::Red),
    }
}

fn head(app: &App, look: &Look, width: u16) -> Line<'static> {
    let view = app.view();
    let until = view.completeness.as_ref().map_or_else(String::new, |completeness| {
        format!(" until {}", units::instant(&completeness.to, &completeness.to, &look.zone))
    });
    let order = if view.reversed { " reversed" } else { "" };
    let (level, sort) = (view.level.title(), view.sort.title(view.level));
    let text = format!("{}  {level}  {}{until}  by {sort}{order}", app.target, view.span());
    let mark = if app.paused { " PAUSED " } else { "" };
    let room = usize::from(width).saturating_sub(mark.width() + usize::from(!mark.is_empty()));
    let text = shorten(&escape(&text), room);
    let gap = " ".repeat(usize::from(width).saturating_sub(text.width() + mark.width()));
    let marked = paint(Paint::Warn, look).add_modifier(Modifier::REVERSED);
    Line::from(vec![Span::styled(text, paint(Paint::Bold, look)), Span::raw(gap), Span::styled(mark, marked)])
}

fn filter_line(frame: &mut Frame<'_>, app: &App, look: &Look, area: Rect) {
    let view = app.view();
    let width = usize::from(area.width);
    match &app.mode {
        Mode::Type(input) => typed(frame, input, look, area),
        _ if view.is_unhealthy_only => {
            let filter = view.whole_filter();
            let of = if filter.is_empty() { String::new() } else { format!(" of {filter}") };
            let text = shorten(&escape(&format!("only unhealthy{of}")), width);
            frame.render_widget(Paragraph::new(text), area);
        }
        _ if view.within.is_empty() && view.filter.is_empty() => {
            frame.render_widget(Paragraph::new(Span::styled("everything", paint(Paint::Dim, look))), area);
        }
        _ => {
            let text = shorten(&escape(&format!("only {}", view.whole_filter())), width);
            frame.render_widget(Paragraph::new(text), area);
        }
    }
}

/// The line that is typed, with its cursor; below it what is wrong, with a caret.
fn typed(frame: &mut Frame<'_>, input: &Input, look: &Look, area: Rect) {
    const PROMPT: &str = "filter: ";
    let width = usize::from(area.width).saturating_sub(PROMPT.len() + 1).max(1);
    // Scrolled so that the place of the mistake, else the cursor, can be seen.
    let focus = input.error.as_ref().map_or(input.cursor, |error| error.column.saturating_sub(1));
    let before: Vec<usize> = input.text.chars().map(|one| escape(one.encode_utf8(&mut [0; 4])).width()).collect();
    let mut skipped = 0;
    while before.get(skipped..=focus).is_some_and(|seen| seen.iter().sum::<usize>() > width)
        || skipped < focus
            && before.get(skipped..focus.min(before.len())).is_some_and(|seen| seen.iter().sum::<usize>() >= width)
    {
        skipped += 1;
    }
    let shown = |characters: usize| -> String { input.text.chars().skip(skipped).take(characters).collect() };
    let column = |character: usize| escape(&shown(character.saturating_sub(skipped))).width().min(width);
    let mut lines = vec![Line::from(format!("{PROMPT}{}", shorten(&escape(&shown(width)), width + 1)))];
    match &input.error {
        Some(error) => {
            lines.push(Line::from(format!("{}^", " ".repeat(PROMPT.len() + column(error.column.saturating_sub(1))))));
            let mut reason = error.to_string();
            if !error.expected.is_empty() {
                reason = format!("{reason}; expected: {}", error.expected.join(", "));
            }
            let reason = shorten(&escape(&reason), usize::from(area.width));
            lines.push(Line::from(Span::styled(reason, paint(Paint::Bad, look))));
        }
        None => lines.push(Line::from(Span::styled("Enter applies, Esc leaves it as it was", paint(Paint::Dim, look)))),
    }
    frame.render_widget(Paragraph::new(Text::from(lines)), area);
    let x = area.x + (PROMPT.len() + column(input.cursor)) as u16;
    frame.set_cursor_position(Position::new(x.min(area.right().saturating_sub(1)), area.y));
}

fn content(frame: &mut Frame<'_>, app: &App, look: &Look, heading: Rect, area: Rect) {
    let view = app.view();
    if view.rows.is_empty() {
        let (text, colour) = nothing(app, view);
        frame.render_widget(Paragraph::new(Span::styled(text, paint(colour, look))).wrap(Wrap { trim: true }), area);
        return;
    }
    let room = usize::from(area.height).max(1);
    let first = view.selected.saturating_sub(room.saturating_sub(1));
    let reference = view.completeness.as_ref().map(|completeness| completeness.to.clone()).unwrap_or_default();
    let numbers = Numbers { exact: look.exact, reference, zone: look.zone.clone(), steps: None };
    let table =
        on_screen(&view.rows, first, room, &numbers).with_texts_of_at_least(usize::from(area.width / NAME_SHARE));
    let margin = if view.rows.unhealthy() > 0 { MARKS[0].len() } else { 0 };
    let surface = Surface { width: Some(usize::from(area.width).saturating_sub(margin)), ..Surface::plain() };
    let layout = table.layout(&surface);
    let line = |pieces: Vec<(String, Paint)>| -> Line<'static> {
        pieces.into_iter().map(|(text, colour)| Span::styled(text, paint(colour, look))).collect()
    };
    let mut head = line(table.heading_pieces(&layout));
    head.spans.insert(0, Span::raw(&MARKS[1][..margin]));
    frame.render_widget(Paragraph::new(head), heading);
    let shown = view.rows.len().saturating_sub(first).min(room);
    let lines = (0..shown).map(|row| {
        let is_unhealthy = view.rows.health(first + row).is_some_and(is_unhealthy);
        let mark = if is_unhealthy { MARKS[0] } else { &MARKS[1][..margin] };
        let mut line = line(table.row_pieces(row, &layout));
        line.spans.insert(0, Span::styled(mark, paint(Paint::Bad, look)));
        if first + row == view.selected {
            let gap = usize::from(area.width).saturating_sub(line.width());
            line.push_span(Span::raw(" ".repeat(gap)));
            line.patch_style(Style::new().add_modifier(Modifier::REVERSED))
        } else {
            line
        }
    });
    frame.render_widget(Paragraph::new(lines.collect::<Text<'_>>()), area);
}

/// The rows that can be seen; columns are as wide as those need.
fn on_screen(rows: &Rows, first: usize, room: usize, numbers: &Numbers) -> Table {
    fn part<T>(rows: &[T], first: usize, room: usize) -> &[T] {
        &rows[first.min(rows.len())..(first + room).min(rows.len())]
    }
    match rows {
        // How they do is said below, of the one that is selected: in a column there is no room for it.
        Rows::Edges(rows) => {
            let shown = part(rows, first, room).iter();
            table(&shown.map(|edge| Edge { health: None, ..edge.clone() }).collect::<Vec<_>>(), numbers)
        }
        Rows::Connections(rows) => table(part(rows, first, room), numbers),
    }
}

fn nothing(app: &App, view: &View) -> (String, Paint) {
    match &view.completeness {
        None if app.failure.is_some() => (String::new(), Paint::Plain),
        None => (format!("asking {} ...", app.target), Paint::Dim),
        Some(completeness) if completeness.nodes.is_empty() => {
            ("no agent has delivered anything yet; `weir doctor` says what is missing".into(), Paint::Warn)
        }
        Some(_) if view.is_unhealthy_only => ("no edge is unhealthy; u shows all".into(), Paint::Good),
        Some(_) if !view.whole_filter().is_empty() => {
            ("nothing matches; / changes the filter, + looks back further, Esc goes back".into(), Paint::Dim)
        }
        Some(_) => ("nothing moved in this span; + looks back further".into(), Paint::Dim),
    }
}

/// How complete the answer is, or why there is none.
fn said(app: &App, look: &Look, width: usize) -> Vec<Line<'static>> {
    let view = app.view();
    if let Some(failure) = &app.failure {
        let since = if view.completeness.is_some() { "; what is shown is older" } else { "" };
        return wrapped(&escape_lines(&format!("{failure}{since}")), width, paint(Paint::Bad, look));
    }
    let Some(completeness) = &view.completeness else { return vec![Line::default()] };
    let colour = if completeness.complete { Paint::Dim } else { Paint::Warn };
    let place = if view.rows.is_empty() {
        String::new()
    } else {
        let row = if view.level == Level::Connections { "connection" } else { "edge" };
        let unhealthy = match view.rows.unhealthy() {
            0 => String::new(),
            count => format!(", {count} unhealthy"),
        };
        format!("{} of {}{unhealthy}. ", view.selected + 1, units::of(view.rows.len() as u64, row))
    };
    let mut lines = match view.rows.health(view.selected).filter(|health| is_unhealthy(health)) {
        Some(health) => wrapped(&escape(&sick(health, &completeness.to, &look.zone)), width, paint(Paint::Bad, look)),
        None => Vec::new(),
    };
    lines.extend(wrapped(
        &format!("{place}{}", complete::in_words(completeness, &look.zone)),
        width,
        paint(colour, look),
    ));
    lines
}

/// In which way an edge is unhealthy, and since when.
fn sick(health: &Health, reference: &str, zone: &TimeZone) -> String {
    let since = health
        .since
        .as_deref()
        .map_or_else(String::new, |since| format!("since {}: ", units::instant(since, reference, zone)));
    let symptoms: Vec<&str> = health.symptoms.iter().map(|symptom| symptom.text.as_str()).collect();
    format!("! {since}{}", symptoms.join("; "))
}

/// The text in lines of at most `width` columns, broken between words where there are some.
fn wrapped(text: &str, width: usize, style: Style) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for part in text.lines() {
        let mut line = String::new();
        for word in part.split(' ') {
            if !line.is_empty() && line.width() + 1 + word.width() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.into_iter().map(|line| Line::from(Span::styled(line, style))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use weir_wire::api::{Answer, Completeness, ConnectionRow, LossTotal, NodeCoverage, Symptom, Transaction};

    fn completeness(complete: bool) -> Completeness {
        let node = NodeCoverage {
            node: "n1".into(),
            state: "reporting".into(),
            covered_ms: 60_000,
            source_state: "ok".into(),
            ..NodeCoverage::default()
        };
        let loss = LossTotal {
            node: "n1".into(),
            place: "tracer".into(),
            reason: "ring_full".into(),
            count: 3,
            ..LossTotal::default()
        };
        Completeness {
            complete,
            from: "2026-01-31T10:00:00Z".into(),
            to: "2026-01-31T10:01:00Z".into(),
            nodes: vec![node],
            losses: if complete { vec![] } else { vec![loss] },
            ..Completeness::default()
        }
    }

    fn edge(client: &str, server: &str, sent: u64, failures: u64) -> Edge {
        Edge {
            service: Some(format!("shop/{server}")),
            service_certainty: Some("known".into()),
            port: 8080,
            recv_bytes: sent / 3,
            rtt_us: Some(250),
            retransmits: failures * 2,
            connections: 7,
            ..super::super::app::tests::edge(client, server, sent, failures)
        }
    }

    fn app(complete: bool) -> App {
        let mut app = App::new("http://127.0.0.1:7780".into(), Level::Edges("workload"), String::new(), 1);
        let items = vec![
            edge("frontend", "cart-with-a-rather-long-name-of-its-own", 123_456_789, 0),
            edge("cart\u{1b}[2J", "redis", 1_234, 4),
            edge("checkout", "payment", 999, 0),
        ];
        app.take_edges(Answer { items, completeness: completeness(complete) });
        app
    }

    fn press(app: &mut App, codes: &[KeyCode]) {
        for code in codes {
            app.key(KeyEvent::new(*code, KeyModifiers::NONE));
        }
    }

    fn typed(app: &mut App, text: &str) {
        press(app, &text.chars().map(KeyCode::Char).collect::<Vec<_>>());
    }

    fn drawn(app: &mut App, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let look = Look { colour: true, exact: false, zone: TimeZone::UTC };
        terminal.draw(|area| frame(area, app, &look)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn eighty_by_twenty_four() {
        insta::assert_snapshot!(drawn(&mut app(true), 80, 24));
    }

    #[test]
    fn what_does_worse_is_marked_and_the_selected_row_says_in_which_way() {
        let mut app = app(true);
        let symptom =
            |signal: &str, text: &str| Symptom { signal: signal.into(), text: text.into(), now: 1.0, usual: None };
        let health = Health {
            verdict: "unhealthy".into(),
            symptoms: vec![
                symptom("refused", "41 of 137 connections refused, usually none"),
                symptom("rtt", "round trips of 40 ms, usually 0.3 ms"),
            ],
            since: Some("2026-01-31T10:00:20Z".into()),
            past_from: None,
        };
        let sick = Edge { health: Some(health), ..edge("checkout", "payment", 999, 4) };
        let well = Edge {
            health: Some(Health { verdict: "healthy".into(), ..Health::default() }),
            ..edge("frontend", "cart", 5_000, 0)
        };
        app.take_edges(Answer { items: vec![well, sick], completeness: completeness(true) });
        press(&mut app, &[KeyCode::Down]);
        insta::assert_snapshot!("unhealthy", drawn(&mut app, 80, 10));
        press(&mut app, &[KeyCode::Char('u')]);
        app.take_edges(Answer { items: vec![], completeness: completeness(true) });
        let text = drawn(&mut app, 80, 10);
        assert!(text.contains("only unhealthy") && text.contains("no edge is unhealthy; u shows all"), "{text}");
    }

    #[test]
    fn what_is_missing_is_said_and_a_wrong_filter_is_pointed_at() {
        let mut app = app(false);
        press(&mut app, &[KeyCode::Char('/')]);
        typed(&mut app, "namespace=shop and prt=80");
        press(&mut app, &[KeyCode::Enter]);
        insta::assert_snapshot!(drawn(&mut app, 80, 14));
    }

    #[test]
    fn a_long_filter_is_scrolled_to_its_mistake() {
        let mut app = app(true);
        press(&mut app, &[KeyCode::Char('/')]);
        typed(&mut app, &format!("name=\"{}\" and nme=1 and name=日本", "日".repeat(60)));
        press(&mut app, &[KeyCode::Enter]);
        insta::assert_snapshot!(drawn(&mut app, 60, 10));
    }

    #[test]
    fn connections_of_an_edge_paused_and_help() {
        let mut app = app(true);
        press(&mut app, &[KeyCode::Enter, KeyCode::Char('p')]);
        app.take_edges(Answer { items: vec![edge("a", "b", 5, 0)], completeness: completeness(true) });
        press(&mut app, &[KeyCode::Enter]);
        let transaction = Transaction {
            key: "10.0.0.1-10.0.0.2-40000-80".into(),
            protocol: "tcp".into(),
            node: "n1".into(),
            source: "10.0.0.1".into(),
            dest: "10.0.0.2".into(),
            source_port: 40_000,
            dest_port: 80,
            direction: "outgoing".into(),
            state: "established".into(),
            ..Transaction::default()
        };
        let row = ConnectionRow { transaction, sent_bytes: 5, ..ConnectionRow::default() };
        app.take_connections(Answer { items: vec![row], completeness: completeness(true) });
        insta::assert_snapshot!("connections", drawn(&mut app, 80, 10));
        press(&mut app, &[KeyCode::Char('?')]);
        insta::assert_snapshot!("help", drawn(&mut app, 80, 24));
    }

    #[test]
    fn no_answer_no_rows_and_no_room_have_their_words() {
        let mut app = App::new("http://127.0.0.1:7780".into(), Level::Edges("workload"), String::new(), 1);
        assert!(drawn(&mut app, 60, 8).contains("asking http://127.0.0.1:7780 ..."));
        app.failure = Some("no answer from http://127.0.0.1:7780: connection refused".into());
        let text = drawn(&mut app, 60, 8);
        assert!(text.contains("connection refused") && !text.contains("older") && !text.contains("asking"), "{text}");
        app.take_edges(Answer { items: vec![], completeness: completeness(true) });
        assert!(drawn(&mut app, 60, 8).contains("nothing moved in this span"));
        app.take_edges(Answer::default());
        assert!(drawn(&mut app, 80, 8).contains("no agent has delivered anything yet"));
        app.failure = Some("gone".into());
        assert!(drawn(&mut app, 60, 8).contains("gone; what is shown is older"));
        for (width, height) in [(1, 1), (5, 2), (20, 4), (300, 3)] {
            for mode in [Mode::Browse, Mode::Help, Mode::Type(Input { text: "日x".into(), cursor: 2, error: None })] {
                let mut app = self::app(true);
                app.mode = mode;
                drawn(&mut app, width, height);
            }
        }
    }

    #[test]
    fn the_selected_row_is_on_the_screen_however_many_there_are() {
        let mut app = app(true);
        let items = (0..100).map(|number| edge(&format!("client-{number:03}"), "x", 1_000 - number, 0)).collect();
        app.take_edges(Answer { items, completeness: completeness(true) });
        press(&mut app, &[KeyCode::End]);
        let text = drawn(&mut app, 80, 12);
        assert!(
            text.contains("client-099") && text.contains("client-094") && text.contains("100 of 100 edges"),
            "{text}"
        );
        press(&mut app, &[KeyCode::PageUp]);
        assert_eq!((app.room, app.view().selected), (6, 93), "a screenful");
    }
}
