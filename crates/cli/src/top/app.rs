//! What `weir top` shows and how keys change it. Pure: no terminal, no server, no clock.

use super::input::Input;
use super::level::{self, Level};
use super::rows::{Rows, Sort};
use crate::read::query::Query;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use weir_wire::api::{Answer, Completeness, ConnectionRow, Edge};
use weir_wire::filter::{Filter, Scope};

/// Spans to look back over.
pub const SPANS: [&str; 6] = ["30s", "1m", "5m", "15m", "1h", "24h"];

/// The longest of them in which edges are judged, an hour: what is usual comes from the hour before.
const JUDGED: usize = 4;

/// Rows that are asked for: enough to scroll through, some hundred kilobytes.
const LIMIT: u32 = 1000;

/// One question and what came of it.
#[derive(Clone, Debug)]
pub struct View {
    /// How near.
    pub level: Level,
    /// What it was entered with, in the filter language; empty: everything.
    pub within: String,
    /// What is typed on top.
    pub filter: String,
    /// Whether only unhealthy edges are asked for.
    pub is_unhealthy_only: bool,
    /// Into [`SPANS`].
    span: usize,
    /// By what it is sorted.
    pub sort: Sort,
    /// Whether from the other end.
    pub reversed: bool,
    /// The rows, sorted.
    pub rows: Rows,
    /// What the last answer says of itself; `None`: none came yet.
    pub completeness: Option<Completeness>,
    /// The selected row.
    pub selected: usize,
}

impl View {
    fn new(level: Level, span: usize) -> Self {
        Self {
            level,
            within: String::new(),
            filter: String::new(),
            is_unhealthy_only: false,
            span,
            sort: Sort::Bytes,
            reversed: false,
            rows: Rows::none(level),
            completeness: None,
            selected: 0,
        }
    }

    /// How far it looks back.
    pub fn span(&self) -> &'static str {
        SPANS[self.span]
    }

    /// Both filters as one.
    pub fn whole_filter(&self) -> String {
        both(&self.within, &self.filter)
    }

    /// The API's parameters.
    pub fn query(&self) -> Query {
        let filter = Some(self.whole_filter()).filter(|filter| !filter.is_empty());
        let by = match self.level {
            Level::Edges(by) => Some(by),
            Level::Connections => None,
        };
        let is_judged = by.is_some() && self.span <= JUDGED;
        Query::new()
            .with("by", by)
            .with("since", Some(self.span()))
            .with("filter", filter)
            .with("health", (is_judged && !self.is_unhealthy_only).then_some(true))
            .with("unhealthy", (is_judged && self.is_unhealthy_only).then_some(true))
            .with("sort", self.sort.word(self.level))
            .with("limit", Some(LIMIT))
    }

    /// What was asked does not fit what is there any more.
    fn start_anew(&mut self) {
        self.rows = Rows::none(self.level);
        self.completeness = None;
        self.selected = 0;
    }

    fn resort(&mut self) {
        let key = self.rows.key(self.selected);
        self.rows.sort(self.sort, self.reversed);
        self.follow(key.as_deref());
    }

    fn follow(&mut self, key: Option<&str>) {
        let place = key.and_then(|key| (0..self.rows.len()).find(|row| self.rows.key(*row).as_deref() == Some(key)));
        self.selected = place.unwrap_or(self.selected).min(self.rows.len().saturating_sub(1));
    }

    fn scope(&self) -> Scope {
        match self.level {
            Level::Edges(_) => Scope::Edges,
            Level::Connections => Scope::Connections,
        }
    }
}

fn both(one: &str, two: &str) -> String {
    match (one.is_empty(), two.is_empty()) {
        (false, false) => format!("({one}) and ({two})"),
        (true, _) => two.to_owned(),
        (false, true) => one.to_owned(),
    }
}

/// What keys mean.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Mode {
    /// They move and choose.
    #[default]
    Browse,
    /// They type a filter.
    Type(Input),
    /// The keys are explained; the next one ends that.
    Help,
}

/// What a key asks of whoever runs the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing but to be drawn again.
    Draw,
    /// The question is another one: ask at once.
    Ask,
    /// To end.
    Quit,
}

/// The application.
#[derive(Clone, Debug)]
pub struct App {
    /// Whom it asks.
    pub target: String,
    /// What was entered, one after the other; the last is shown. Never empty.
    views: Vec<View>,
    /// What keys mean.
    pub mode: Mode,
    /// Whether answers are not asked for.
    pub paused: bool,
    /// Why the last answer did not come.
    pub failure: Option<String>,
    /// Rows that the last drawing had room for.
    pub room: usize,
}

impl App {
    /// At `level`, with a filter (which has been read) and a span.
    pub fn new(target: String, level: Level, filter: String, span: usize) -> Self {
        let view = View { filter, ..View::new(level, span) };
        Self { target, views: vec![view], mode: Mode::Browse, paused: false, failure: None, room: 1 }
    }

    /// What is shown.
    pub fn view(&self) -> &View {
        &self.views[self.views.len() - 1]
    }

    fn view_mut(&mut self) -> &mut View {
        let last = self.views.len() - 1;
        &mut self.views[last]
    }

    /// How many views lie below the one that is shown.
    pub fn depth(&self) -> usize {
        self.views.len() - 1
    }

    /// Takes an answer to the question of [`App::view`].
    pub fn take_edges(&mut self, answer: Answer<Edge>) {
        self.take(Rows::Edges(answer.items), answer.completeness);
    }

    /// As [`App::take_edges`].
    pub fn take_connections(&mut self, answer: Answer<ConnectionRow>) {
        self.take(Rows::Connections(answer.items), answer.completeness);
    }

    fn take(&mut self, rows: Rows, completeness: Completeness) {
        self.failure = None;
        let view = self.view_mut();
        // Whoever has moved from the top follows the row, whoever has not wants the top.
        let key = (view.selected > 0).then(|| view.rows.key(view.selected)).flatten();
        view.rows = rows;
        view.completeness = Some(completeness);
        view.rows.sort(view.sort, view.reversed);
        view.follow(key.as_deref());
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent) -> Wish {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Wish::Quit;
        }
        match std::mem::take(&mut self.mode) {
            Mode::Help => Wish::Draw,
            Mode::Type(input) => self.type_key(input, key),
            Mode::Browse => self.browse_key(key),
        }
    }

    fn type_key(&mut self, mut input: Input, key: KeyEvent) -> Wish {
        let characters = input.text.chars().count();
        match key.code {
            KeyCode::Esc => return Wish::Draw,
            KeyCode::Enter => {
                let text = input.text.trim().to_owned();
                let view = self.view_mut();
                let read = if text.is_empty() { Ok(()) } else { Filter::parse(view.scope(), &input.text).map(drop) };
                match read {
                    Ok(()) => {
                        if view.filter == text {
                            return Wish::Draw;
                        }
                        view.filter = text;
                        view.start_anew();
                        return Wish::Ask;
                    }
                    Err(error) => input.error = Some(error),
                }
            }
            KeyCode::Backspace => input.remove_before(),
            KeyCode::Delete => input.remove_at(),
            KeyCode::Left => input.cursor = input.cursor.saturating_sub(1),
            KeyCode::Right => input.cursor = (input.cursor + 1).min(characters),
            KeyCode::Home => input.cursor = 0,
            KeyCode::End => input.cursor = characters,
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => input = Input::default(),
            KeyCode::Char(character) if !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => {
                input.insert(character);
            }
            _ => {}
        }
        if key.code != KeyCode::Enter {
            input.error = None;
        }
        self.mode = Mode::Type(input);
        Wish::Draw
    }

    fn browse_key(&mut self, key: KeyEvent) -> Wish {
        let (room, rows) = (self.room.max(1), self.view().rows.len());
        let last = rows.saturating_sub(1);
        let selected = self.view().selected;
        let mut select = |to: usize| {
            self.view_mut().selected = to.min(last);
            Wish::Draw
        };
        match key.code {
            KeyCode::Up | KeyCode::Char('k') => select(selected.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => select(selected + 1),
            KeyCode::PageUp => select(selected.saturating_sub(room)),
            KeyCode::PageDown => select(selected + room),
            KeyCode::Home | KeyCode::Char('g') => select(0),
            KeyCode::End | KeyCode::Char('G') => select(last),
            KeyCode::Char('q') => Wish::Quit,
            KeyCode::Char('?' | 'h') => {
                self.mode = Mode::Help;
                Wish::Draw
            }
            KeyCode::Char('p' | ' ') => {
                self.paused = !self.paused;
                if self.paused { Wish::Draw } else { Wish::Ask }
            }
            KeyCode::Char('/') => {
                let text = self.view().filter.clone();
                let cursor = text.chars().count();
                self.mode = Mode::Type(Input { text, cursor, error: None });
                Wish::Draw
            }
            KeyCode::Left | KeyCode::Char('<') => self.sorted(|view| view.sort = view.sort.step(false)),
            KeyCode::Right | KeyCode::Char('>') => self.sorted(|view| view.sort = view.sort.step(true)),
            KeyCode::Char('r') => self.sorted(|view| view.reversed = !view.reversed),
            KeyCode::Char('+' | '=') => self.look_back(true),
            KeyCode::Char('-') => self.look_back(false),
            KeyCode::Char('u') => {
                let view = self.view_mut();
                if view.level == Level::Connections {
                    return Wish::Draw;
                }
                view.is_unhealthy_only = !view.is_unhealthy_only;
                if view.is_unhealthy_only {
                    view.span = view.span.min(JUDGED);
                }
                view.start_anew();
                Wish::Ask
            }
            KeyCode::Char('b') => {
                let view = self.view_mut();
                let next = view.level.next_grouping();
                if next == view.level {
                    return Wish::Draw;
                }
                view.level = next;
                view.start_anew();
                Wish::Ask
            }
            KeyCode::Enter => self.enter(),
            KeyCode::Esc | KeyCode::Backspace if self.views.len() > 1 => {
                self.views.pop();
                Wish::Ask
            }
            _ => Wish::Draw,
        }
    }

    fn sorted(&mut self, change: impl FnOnce(&mut View)) -> Wish {
        let view = self.view_mut();
        let asked = view.query();
        change(view);
        view.resort();
        // Other rows may lead by that, where not all are here.
        let leaves_out = view.completeness.as_ref().is_none_or(|completeness| completeness.omitted > 0);
        if leaves_out && view.query() != asked { Wish::Ask } else { Wish::Draw }
    }

    fn look_back(&mut self, further: bool) -> Wish {
        let view = self.view_mut();
        let longest = if view.is_unhealthy_only { JUDGED } else { SPANS.len() - 1 };
        let span = if further { (view.span + 1).min(longest) } else { view.span.saturating_sub(1) };
        if span == view.span {
            return Wish::Draw;
        }
        view.span = span;
        Wish::Ask
    }

    fn enter(&mut self) -> Wish {
        let view = self.view();
        let (Some(nearer), Rows::Edges(rows)) = (view.level.nearer(), &view.rows) else { return Wish::Draw };
        let Some(edge) = rows.get(view.selected).filter(|edge| !edge.client.is_other()) else { return Wish::Draw };
        let mut next = View { sort: view.sort, reversed: view.reversed, ..View::new(nearer, view.span) };
        // What asks of sums may mean nothing of what they are made of.
        let kept = if Filter::parse(next.scope(), &view.filter).is_ok() { view.filter.as_str() } else { "" };
        next.within = both(&both(&view.within, kept), &level::only(edge));
        self.views.push(next);
        Wish::Ask
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use weir_wire::api::EdgeEnd;

    pub(in crate::top) fn edge(client: &str, server: &str, sent: u64, failures: u64) -> Edge {
        let end = |name: &str| EdgeEnd {
            kind: "deployment".into(),
            namespace: Some("shop".into()),
            name: name.into(),
            certainty: "known".into(),
            ..EdgeEnd::default()
        };
        Edge {
            client: end(client),
            server: end(server),
            port: 80,
            protocol: "tcp".into(),
            sent_bytes: sent,
            failures,
            connections: 1,
            certainty: "known".into(),
            ..Edge::default()
        }
    }

    fn app(edges: Vec<Edge>) -> App {
        let mut app = App::new("http://x".into(), Level::Edges("workload"), String::new(), 1);
        app.take_edges(Answer { items: edges, completeness: Completeness::default() });
        app
    }

    fn press(app: &mut App, code: KeyCode) -> Wish {
        app.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn typed(app: &mut App, text: &str) {
        for character in text.chars() {
            press(app, KeyCode::Char(character));
        }
    }

    fn clients(app: &App) -> Vec<String> {
        let Rows::Edges(rows) = &app.view().rows else { panic!() };
        rows.iter().map(|row| row.client.name.clone()).collect()
    }

    #[test]
    fn rows_are_sorted_as_asked_and_the_selection_stays_with_its_row() {
        let mut app = app(vec![edge("a", "x", 10, 0), edge("b", "x", 30, 0), edge("c", "x", 20, 5)]);
        assert_eq!(clients(&app), ["b", "c", "a"]);
        press(&mut app, KeyCode::Down);
        for _ in 0..6 {
            press(&mut app, KeyCode::Right);
        }
        assert_eq!((app.view().sort, app.view().selected), (Sort::Failures, 0));
        assert_eq!(clients(&app), ["c", "b", "a"]);
        press(&mut app, KeyCode::Char('r'));
        assert_eq!((clients(&app), app.view().selected), (vec!["a".into(), "b".into(), "c".into()], 2));
        // The next answer has it elsewhere.
        let answer = vec![edge("c", "x", 1, 0), edge("z", "x", 2, 7), edge("a", "x", 2, 9)];
        app.take_edges(Answer { items: answer, completeness: Completeness::default() });
        assert_eq!((clients(&app), app.view().selected), (vec!["c".into(), "z".into(), "a".into()], 0));
        // It is gone: the place stays, within the rows.
        press(&mut app, KeyCode::End);
        app.take_edges(Answer { items: vec![edge("q", "x", 1, 0)], completeness: Completeness::default() });
        assert_eq!(app.view().selected, 0);
        app.take_edges(Answer::default());
        assert_eq!((press(&mut app, KeyCode::Down), app.view().selected), (Wish::Draw, 0));
        assert_eq!(press(&mut app, KeyCode::Enter), Wish::Draw);
    }

    #[test]
    fn edges_are_judged_in_spans_of_up_to_an_hour() {
        let mut app = app(vec![]);
        let asks = |app: &App, name: &str| app.view().query().value(name).is_some();
        assert!(asks(&app, "health") && !asks(&app, "unhealthy"));
        assert_eq!(press(&mut app, KeyCode::Char('u')), Wish::Ask);
        assert!(!asks(&app, "health") && asks(&app, "unhealthy"));
        for _ in SPANS {
            press(&mut app, KeyCode::Char('+'));
        }
        assert_eq!((app.view().span(), asks(&app, "unhealthy")), ("1h", true));
        press(&mut app, KeyCode::Char('u'));
        press(&mut app, KeyCode::Char('+'));
        assert_eq!((app.view().span(), asks(&app, "health")), ("24h", false));
        press(&mut app, KeyCode::Char('u'));
        assert_eq!((app.view().span(), asks(&app, "unhealthy")), ("1h", true));
    }

    #[test]
    fn the_row_of_all_others_is_last_and_has_nothing_nearer_and_another_order_asks_for_other_rows() {
        let other = || EdgeEnd { kind: "other".into(), name: "other".into(), ..EdgeEnd::default() };
        let rest = Edge { client: other(), server: other(), sent_bytes: 1_000, ..Edge::default() };
        let mut app = app(vec![]);
        assert_eq!(press(&mut app, KeyCode::Right), Wish::Draw, "all rows are here");
        let completeness = Completeness { omitted: 5, ..Completeness::default() };
        app.take_edges(Answer { items: vec![rest, edge("a", "x", 10, 0)], completeness });
        assert_eq!(press(&mut app, KeyCode::Right), Wish::Ask);
        assert!(app.view().query().pairs().contains(&("sort", "recv_bytes".to_owned())));
        assert_eq!(press(&mut app, KeyCode::Char('r')), Wish::Draw);
        assert_eq!(clients(&app), ["a", "other"]);
        press(&mut app, KeyCode::End);
        assert_eq!((press(&mut app, KeyCode::Enter), app.depth()), (Wish::Draw, 0));
    }

    #[test]
    fn a_filter_is_read_before_it_is_asked_and_a_wrong_one_stays_in_the_line_with_its_place() {
        let mut app = app(vec![edge("a", "x", 10, 0)]);
        press(&mut app, KeyCode::Char('/'));
        typed(&mut app, "prt=80");
        assert_eq!(press(&mut app, KeyCode::Enter), Wish::Draw);
        let Mode::Type(input) = &app.mode else { panic!() };
        assert_eq!(input.error.as_ref().map(|error| error.column), Some(1));
        press(&mut app, KeyCode::Home);
        press(&mut app, KeyCode::Right);
        typed(&mut app, "o");
        assert_eq!(press(&mut app, KeyCode::Enter), Wish::Ask);
        assert_eq!((app.view().filter.as_str(), app.view().rows.len()), ("port=80", 0));
        assert!(app.view().query().pairs().contains(&("filter", "port=80".to_owned())));
        // Escape leaves it as it was.
        press(&mut app, KeyCode::Char('/'));
        typed(&mut app, " and");
        assert_eq!((press(&mut app, KeyCode::Esc), app.view().filter.as_str()), (Wish::Draw, "port=80"));
        // Emptied.
        press(&mut app, KeyCode::Char('/'));
        app.key(KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL));
        assert_eq!(press(&mut app, KeyCode::Enter), Wish::Ask);
        assert!(!app.view().query().pairs().iter().any(|(key, _)| *key == "filter"));
    }

    #[test]
    fn text_is_edited_by_characters_not_by_bytes() {
        let mut app = app(vec![]);
        press(&mut app, KeyCode::Char('/'));
        typed(&mut app, "name=ä日b");
        press(&mut app, KeyCode::Left);
        press(&mut app, KeyCode::Backspace);
        press(&mut app, KeyCode::Left);
        press(&mut app, KeyCode::Delete);
        let Mode::Type(input) = &app.mode else { panic!() };
        assert_eq!((input.text.as_str(), input.cursor), ("name=b", 5));
    }

    #[test]
    fn an_edge_is_entered_step_by_step_and_left_again() {
        let mut app = app(vec![edge("a", "x", 10, 1), edge("b", "x", 3, 0)]);
        press(&mut app, KeyCode::Char('/'));
        typed(&mut app, "failures>0");
        press(&mut app, KeyCode::Enter);
        app.take_edges(Answer { items: vec![edge("a", "x", 10, 1)], completeness: Completeness::default() });
        assert_eq!(press(&mut app, KeyCode::Enter), Wish::Ask);
        assert_eq!((app.view().level, app.depth()), (Level::Edges("pod"), 1));
        let within = app.view().within.clone();
        assert!(within.starts_with("(failures>0) and (client.workload=\"shop/a\" and server.workload"), "{within}");
        app.take_edges(Answer { items: vec![edge("a", "x", 10, 1)], completeness: Completeness::default() });
        press(&mut app, KeyCode::Enter);
        assert_eq!((app.view().level, app.depth()), (Level::Connections, 2));
        app.take_connections(Answer { items: vec![ConnectionRow::default()], completeness: Completeness::default() });
        assert_eq!(press(&mut app, KeyCode::Enter), Wish::Draw, "nothing is nearer");
        assert_eq!((press(&mut app, KeyCode::Esc), press(&mut app, KeyCode::Esc)), (Wish::Ask, Wish::Ask));
        assert_eq!((app.view().level, app.view().filter.as_str()), (Level::Edges("workload"), "failures>0"));
        assert_eq!((press(&mut app, KeyCode::Esc), app.depth()), (Wish::Draw, 0), "the first is not left");
    }

    #[test]
    fn spans_pause_grouping_and_the_end() {
        let mut app = app(vec![]);
        assert_eq!(app.view().span(), "1m");
        assert_eq!((press(&mut app, KeyCode::Char('+')), app.view().span()), (Wish::Ask, "5m"));
        for _ in 0..9 {
            press(&mut app, KeyCode::Char('-'));
        }
        assert_eq!((press(&mut app, KeyCode::Char('-')), app.view().span()), (Wish::Draw, "30s"));
        assert_eq!((press(&mut app, KeyCode::Char(' ')), app.paused), (Wish::Draw, true));
        assert_eq!((press(&mut app, KeyCode::Char('p')), app.paused), (Wish::Ask, false));
        assert_eq!((press(&mut app, KeyCode::Char('b')), app.view().level), (Wish::Ask, Level::Edges("pod")));
        press(&mut app, KeyCode::Char('?'));
        assert_eq!(
            (app.mode.clone(), press(&mut app, KeyCode::Char('q')), app.mode.clone()),
            (Mode::Help, Wish::Draw, Mode::Browse)
        );
        assert_eq!(press(&mut app, KeyCode::Char('q')), Wish::Quit);
        press(&mut app, KeyCode::Char('/'));
        assert_eq!(app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Wish::Quit);
    }
}
