//! The loop of `weir up`: signals, exits, readiness and time go into the [`Supervisor`]; processes, `up.json` and the
//! screen come out.

use super::account::Rights;
use super::folder::{Running, RunningPart};
use super::logs::Log;
use super::look::look;
use super::parts::{self, Addresses, Recipe, reachable};
use super::process::{Process, in_words, next_exit};
use super::screen::Screen;
use super::supervise::{self, Action, Event, Part, Supervisor};
use super::view::{Scene, Sums};
use super::{Source, ports};
use crate::exit::{Failure, Verdict};
use crate::show::terminal::Surface;
use jiff::tz::TimeZone;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use weir_daemon::clock::{Clock, SystemClock};
use weir_wire::api::{Answer, Edge};

/// How often readiness and deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);

/// How often the live table is drawn anew, at least.
const FRAME: Duration = Duration::from_secs(1);

/// A window: how often a plain line is printed, and the logs' sizes are looked at.
const WINDOW: Duration = Duration::from_secs(10);

/// Messages that are kept for the screen's foot and the end.
const MESSAGES_MAX: usize = 20;

/// What ends us.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Waits for them from now on.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// How the loop ended.
#[derive(Debug)]
pub enum Ended {
    /// On request.
    Stopped {
        /// Which parts had to be killed.
        killed: Vec<Part>,
        /// From the request to the last part's end.
        took: Duration,
    },
    /// By the second Ctrl-C.
    Interrupted,
    /// A part without which nothing works cannot be run.
    Hopeless(String),
}

/// A running `weir up`.
pub struct Up<'a> {
    recipe: Recipe<'a>,
    supervisor: Supervisor,
    processes: Vec<Process>,
    logs: Vec<(Part, Log, u64)>,
    addresses: Addresses,
    http_known: bool,
    tracer_ready: bool,
    published: Running,
    page: watch::Sender<Option<SocketAddr>>,
    screen: Screen,
    live: bool,
    surface: Surface,
    messages: Vec<String>,
    answer: Option<Answer<Edge>>,
    trouble: Option<String>,
    sums: Sums,
    started: Instant,
    since: String,
    zone: TimeZone,
    hopeless: Option<String>,
    killed: Vec<Part>,
}

impl<'a> Up<'a> {
    /// Nothing runs yet.
    ///
    /// # Errors
    /// When there is no thread for the screen.
    pub fn new(recipe: Recipe<'a>, source: &Source) -> anyhow::Result<Self> {
        let args = recipe.args;
        let parts: Vec<Part> = Part::ALL.into_iter().filter(|part| source.ours || *part != Part::Tracer).collect();
        let surface = Surface::stdout(args.color);
        let logs = parts.iter().map(|part| (*part, Log::new(&recipe.folder.log(), part.as_str()), 0)).collect();
        let wall = SystemClock::new().wall();
        let since = jiff::Timestamp::from_nanosecond(wall.0.into())?.to_string();
        Ok(Self {
            supervisor: Supervisor::new(&parts, args.agents_listen.port() == 0),
            processes: Vec::new(),
            logs,
            addresses: Addresses { http: args.listen, agents: args.agents_listen, metrics: args.metrics_listen },
            http_known: false,
            tracer_ready: false,
            published: Running::default(),
            page: watch::channel(None).0,
            screen: Screen::start()?,
            live: surface.is_terminal && !args.no_table,
            surface,
            messages: Vec::new(),
            answer: None,
            trouble: None,
            sums: Sums::default(),
            started: Instant::now(),
            since,
            zone: TimeZone::system(),
            hopeless: None,
            killed: Vec::new(),
            recipe,
        })
    }

    /// What is known at once: page, data, parts, rights.
    pub fn introduce(&mut self, source: &Source) {
        let folder = self.recipe.folder.data().display();
        let page = match self.addresses.http.port() {
            0 => "page: told when the server has found a free port".to_owned(),
            _ => format!("page: {}", page_url(self.addresses.http)),
        };
        let parts: Vec<&str> = self.supervisor.slots().iter().map(|slot| slot.part.as_str()).collect();
        let user = match self.recipe.rights {
            Rights::Dropped(account) => {
                let groups = self.recipe.groups(Part::Agent).into_iter().map(super::account::group_name);
                let groups: Vec<String> = groups.collect();
                let more = match groups.as_slice() {
                    [] => String::new(),
                    groups => format!(", the agent with the group {} (which means root)", groups.join(" and ")),
                };
                format!("; agent and server run as {}{more}", account.name)
            }
            Rights::Root => "; agent and server run as root: no user is behind sudo, name one with --user".to_owned(),
            Rights::Ordinary => String::new(),
        };
        let lines = [
            page,
            format!("data: {folder} (logs in {folder}/log)"),
            format!("parts: {}{user}; feed: unix:{}", parts.join(", "), source.socket.display()),
        ];
        self.screen.print(lines.map(|line| crate::show::text::escape(&line).into_owned()).join("\n"));
        if let Some(note) = &source.note {
            self.tell(note);
        }
    }

    /// Starts the parts and keeps them until they have all ended.
    pub async fn watch(&mut self, signals: &mut Signals) -> Ended {
        // One answer waits at most: a newer one replaces it.
        let (answers, mut looked) = mpsc::channel(1);
        let mut looking = tokio::task::JoinSet::new();
        looking.spawn(look(self.page.subscribe(), self.recipe.args.token_file.clone(), self.since.clone(), answers));
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut drawn, mut plain) = (None::<Instant>, self.started);
        let mut logs_bounded = self.started;
        let mut stop_began = None;
        let mut interrupts = 0u32;
        loop {
            let event = tokio::select! {
                () = signals.next() => {
                    interrupts += 1;
                    if interrupts == 1 {
                        stop_began = Some(Instant::now());
                        self.say("stopping: agent, server, tracer (Ctrl-C again ends them at once)");
                        Event::Stop
                    } else {
                        Event::Kill
                    }
                }
                (index, status) = next_exit(&mut self.processes) => self.exited(index, status),
                Some(answer) = looked.recv() => {
                    self.take(answer);
                    drawn = None;
                    Event::Tick
                }
                _ = ticks.tick() => self.look_for_readiness().await,
            };
            let mut events = VecDeque::from([event]);
            while let Some(event) = events.pop_front() {
                for action in self.supervisor.step(self.started.elapsed(), event) {
                    if action == Action::Finished {
                        self.publish();
                        return self.ended(interrupts, stop_began);
                    }
                    events.extend(self.act(action));
                }
            }
            if self.hopeless.is_some() && !self.supervisor.is_stopping() {
                stop_began = Some(Instant::now());
                for action in self.supervisor.step(self.started.elapsed(), Event::Stop) {
                    if action == Action::Finished {
                        return self.ended(interrupts, stop_began);
                    }
                    self.act(action);
                }
            }
            self.publish();
            let now = Instant::now();
            if now >= logs_bounded + WINDOW {
                logs_bounded = now;
                self.bound_logs();
            }
            if self.live {
                let surface = Surface::stdout(self.recipe.args.color);
                if drawn.is_none_or(|drawn| now >= drawn + FRAME) || surface != self.surface {
                    self.surface = surface;
                    drawn = Some(now);
                    let frame = self.scene().frame(&self.surface);
                    self.screen.show(frame);
                }
            } else if now >= plain + WINDOW || (self.sums.edges == 0 && self.has_edges()) {
                plain = now;
                self.print_plain();
            }
        }
    }

    fn has_edges(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| !answer.items.is_empty())
    }

    fn print_plain(&mut self) {
        let (lines, sums) = self.scene().plain(self.sums);
        self.sums = sums;
        self.screen.print(lines.join("\n"));
    }

    fn ended(&mut self, interrupts: u32, stop_began: Option<Instant>) -> Ended {
        if let Some(hopeless) = self.hopeless.take() {
            return Ended::Hopeless(hopeless);
        }
        if interrupts > 1 {
            return Ended::Interrupted;
        }
        let took = stop_began.map_or(Duration::ZERO, |began| began.elapsed());
        Ended::Stopped { killed: std::mem::take(&mut self.killed), took }
    }

    /// The last words, on the terminal as it was.
    pub fn conclude(mut self, ended: Ended) -> Result<Verdict, Failure> {
        self.screen.leave();
        if self.live {
            for message in std::mem::take(&mut self.messages) {
                self.screen.print(message);
            }
            self.print_plain();
        }
        match ended {
            Ended::Stopped { killed, took } if killed.is_empty() => {
                let words = format!(
                    "stopped in {}; the record stays in {}",
                    crate::show::units::span_ms(took.as_millis() as u64),
                    self.recipe.folder.data().display()
                );
                self.screen.print(crate::show::text::escape(&words).into_owned());
                Ok(Verdict::Done)
            }
            Ended::Stopped { killed, .. } => {
                let names: Vec<&str> = killed.iter().map(|part| part.as_str()).collect();
                Err(Failure::Failed(anyhow::anyhow!(
                    "{} did not stop in time and had to be killed; what it had acknowledged is safe, see {}",
                    names.join(" and "),
                    self.recipe.folder.log().display()
                )))
            }
            Ended::Interrupted => Ok(Verdict::Interrupted),
            Ended::Hopeless(why) => Err(Failure::Failed(anyhow::anyhow!(why))),
        }
    }

    /// Does what the supervisor says; what comes of it at once.
    fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Start(part) => return self.start(part).err().map(|why| self.not_started(part, &why)),
            Action::Terminate(part) => self.signal(part, nix::sys::signal::Signal::SIGTERM),
            Action::Kill(part) => {
                self.killed.push(part);
                self.signal(part, nix::sys::signal::Signal::SIGKILL);
            }
            Action::Finished => {}
        }
        None
    }

    fn start(&mut self, part: Part) -> Result<(), parts::NotStarted> {
        let Some((_, log, mark)) = self.logs.iter_mut().find(|(of, _, _)| *of == part) else { return Ok(()) };
        let file = log.open()?;
        *mark = log.length();
        match part {
            Part::Server => self.recipe.folder.forget_bound(),
            // It tells nobody which free port it found, so we find one for it; another for each start, so that one
            // that was taken meanwhile is no obstacle for long.
            Part::Agent if self.recipe.args.metrics_listen.port() == 0 => {
                self.addresses.metrics =
                    ports::free(self.recipe.args.metrics_listen.ip()).map_err(anyhow::Error::new)?;
            }
            Part::Agent => {}
            Part::Tracer => self.tracer_ready = false,
        }
        let child = self.recipe.start(part, self.addresses, file)?;
        self.processes.push(Process { part, child });
        Ok(())
    }

    fn not_started(&mut self, part: Part, why: &parts::NotStarted) -> Event {
        self.give_up(part, &why.to_string());
        Event::Exited { part, hopeless: true }
    }

    /// Without server or agent there is nothing to supervise; without a tracer the others go on.
    fn give_up(&mut self, part: Part, why: &str) {
        let words = format!("{} cannot run: {why}", part.as_str());
        if part == Part::Tracer {
            self.tell(&format!("{words}; agent and server go on without it"));
        } else {
            self.hopeless.get_or_insert(words);
        }
    }

    fn signal(&self, part: Part, signal: nix::sys::signal::Signal) {
        let process = self.processes.iter().find(|process| process.part == part);
        if let Some(pid) = process.and_then(|process| process.child.id()) {
            // The only failure is that it has just ended, which is what was wanted.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal);
        }
    }

    fn exited(&mut self, index: usize, status: std::io::Result<ExitStatus>) -> Event {
        let part = self.processes.swap_remove(index).part;
        let how = status.as_ref().map_or_else(ToString::to_string, |status| in_words(*status));
        let hopeless = status.is_ok_and(|status| status.code() == Some(2));
        let event = Event::Exited { part, hopeless };
        if self.supervisor.is_stopping() {
            return event;
        }
        let last = self.logs.iter().find(|(of, _, _)| *of == part).map(|(_, log, mark)| log.last_lines(*mark));
        let last = last.unwrap_or_default();
        let said = if last.is_empty() { String::new() } else { format!(": {}", last.join(" / ")) };
        if hopeless {
            self.give_up(part, &format!("it ended with {how}{said}"));
        } else if self.in_a_row(part) == 0 {
            self.tell(&format!("{} ended with {how}, starts again{said}", part.as_str()));
        } else if self.in_a_row(part) == 5 {
            let log = self.recipe.folder.log().join(format!("{}.log", part.as_str()));
            self.tell(&format!("{} keeps ending with {how}{said} (see {})", part.as_str(), log.display()));
        }
        event
    }

    /// How often the part has died in a row until now, without having been healthy between.
    fn in_a_row(&self, part: Part) -> u32 {
        let now = self.started.elapsed();
        let slot = self.supervisor.slots().iter().find(|slot| slot.part == part);
        slot.map_or(0, |slot| slot.deaths_in_a_row(now))
    }

    async fn look_for_readiness(&mut self) -> Event {
        if self.supervisor.runs(Part::Server)
            && let Some(bound) = self.recipe.folder.bound()
        {
            if !self.http_known {
                // From now on these stay, so that page and agents find a restarted server where it was.
                self.http_known = true;
                self.addresses.http = bound.http;
                self.addresses.agents = bound.agents;
                if self.recipe.args.listen.port() == 0 {
                    self.say(&format!("page: {}", page_url(bound.http)));
                }
                self.page.send_replace(Some(reachable(bound.http)));
            }
            if self.supervisor.slots().iter().any(|slot| slot.part == Part::Server && !slot.is_ready()) {
                return Event::Ready(Part::Server);
            }
        }
        if self.supervisor.runs(Part::Tracer) && !self.tracer_ready {
            let connecting = tokio::net::UnixStream::connect(&self.recipe.feed);
            if matches!(tokio::time::timeout(TICK, connecting).await, Ok(Ok(_))) {
                self.tracer_ready = true;
                return Event::Ready(Part::Tracer);
            }
        }
        Event::Tick
    }

    fn take(&mut self, looked: Result<Answer<Edge>, String>) {
        match looked {
            Ok(answer) => {
                self.answer = Some(answer);
                self.trouble = None;
            }
            Err(_) if self.supervisor.is_stopping() => {}
            Err(trouble) => self.trouble = Some(trouble),
        }
    }

    fn running(&self) -> Running {
        let part = |slot: &supervise::Slot| RunningPart {
            name: slot.part.as_str().to_owned(),
            pid: self.processes.iter().find(|process| process.part == slot.part).and_then(|process| process.child.id()),
            restarts: slot.restarts,
        };
        Running {
            pid: std::process::id(),
            http: self.http_known.then_some(self.addresses.http),
            agents: self.http_known.then_some(self.addresses.agents),
            metrics: Some(self.addresses.metrics).filter(|metrics| metrics.port() != 0),
            feed: self.recipe.feed.clone(),
            parts: self.supervisor.slots().iter().map(part).collect(),
        }
    }

    fn publish(&mut self) {
        let running = self.running();
        if running == self.published {
            return;
        }
        match self.recipe.folder.publish(&running) {
            Ok(()) => self.published = running,
            Err(error) => {
                // Tried again with the next change, so that a full disk is not told ten times a second.
                self.published = running;
                self.tell(&format!("{error:#}"));
            }
        }
    }

    fn bound_logs(&mut self) {
        let failures: Vec<String> = self
            .logs
            .iter()
            .filter_map(|(_, log, _)| log.bound().err().map(|error| (log, error)))
            .map(|(log, error)| format!("failed to shorten {}: {error}", log.path().display()))
            .collect();
        for failure in failures {
            self.tell(&failure);
        }
    }

    /// Something went well and is worth knowing.
    fn say(&mut self, message: &str) {
        if self.live {
            self.tell(message);
        } else {
            self.screen.print(crate::show::text::escape(message).into_owned());
        }
    }

    /// Something needs attention.
    fn tell(&mut self, message: &str) {
        let message = crate::show::text::escape(message).into_owned();
        if !self.live {
            self.screen.complain(message);
            return;
        }
        if self.messages.len() == MESSAGES_MAX {
            self.messages.remove(0);
        }
        self.messages.push(message);
    }

    fn scene(&self) -> SceneParts<'_> {
        SceneParts { up: self, page: self.http_known.then(|| page_url(self.addresses.http)), running: self.running() }
    }
}

/// What a [`Scene`] borrows from.
struct SceneParts<'a> {
    up: &'a Up<'a>,
    page: Option<String>,
    running: Running,
}

impl SceneParts<'_> {
    fn with<T>(&self, look: impl FnOnce(&Scene<'_>) -> T) -> T {
        let up = self.up;
        look(&Scene {
            up_seconds: up.started.elapsed().as_secs(),
            page: self.page.as_deref(),
            data: &up.recipe.folder.data().display().to_string(),
            slots: up.supervisor.slots(),
            parts: &self.running.parts,
            answer: up.answer.as_ref(),
            trouble: up.trouble.as_deref(),
            messages: &up.messages,
            exact: up.recipe.args.exact,
            zone: &up.zone,
        })
    }

    fn frame(&self, surface: &Surface) -> Vec<String> {
        self.with(|scene| scene.frame(surface))
    }

    fn plain(&self, before: Sums) -> (Vec<String>, Sums) {
        self.with(|scene| scene.plain(before))
    }
}

fn page_url(address: SocketAddr) -> String {
    format!("http://{}", reachable(address))
}
