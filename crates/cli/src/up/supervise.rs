//! The supervisor as a pure step machine: events in, actions out. It starts nothing and reads no clock; `up`'s loop does
//! what it says. Times are durations since `weir up` began.
//!
//! Start: tracer and server at once, the agent when both answer (or after `SETTLE`), so that its first poll finds
//! what it needs. Restart: whatever dies, after a pause that doubles from `PAUSE` to `PAUSE_MAX` and begins anew
//! after `HEALTHY`. Stop: in the data's direction, agent, server, tracer: the agent polls the tracer a last time and
//! delivers to the server, the server writes what it has.

use std::time::Duration;

/// The first pause before a restart.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause before a restart.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A part that ran so long is healthy again.
const HEALTHY: Duration = Duration::from_secs(30);

/// How long the agent waits for the others to answer; loading the probes takes one to three seconds on a slow machine.
const SETTLE: Duration = Duration::from_secs(8);

/// Until when each part may take to stop, from the first Ctrl-C; all within the promised 5 s. The agent gives its last
/// poll and its last delivery 0.9 s each; the server ends what it is asked and writes; the tracer only unloads.
const STOPPED_BY: [(Part, Duration); 3] = [
    (Part::Agent, Duration::from_millis(2400)),
    (Part::Server, Duration::from_millis(4300)),
    (Part::Tracer, Duration::from_millis(4800)),
];

/// A supervised process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// `weir-tracer`.
    Tracer,
    /// `weir server`.
    Server,
    /// `weir-agent`.
    Agent,
}

impl Part {
    /// Every part, in the order of starting.
    pub const ALL: [Self; 3] = [Self::Tracer, Self::Server, Self::Agent];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tracer => "tracer",
            Self::Server => "server",
            Self::Agent => "agent",
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passed.
    Tick,
    /// A part answers.
    Ready(Part),
    /// A part's process ended by itself; `hopeless` when another try would end the same way (wrong usage, no binary).
    Exited {
        /// The part.
        part: Part,
        /// Whether another try would end the same way.
        hopeless: bool,
    },
    /// The first Ctrl-C.
    Stop,
    /// The second Ctrl-C.
    Kill,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start its process.
    Start(Part),
    /// Send SIGTERM.
    Terminate(Part),
    /// Send SIGKILL.
    Kill(Part),
    /// All have ended.
    Finished,
}

/// How a part does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Has not been started yet.
    Waiting,
    /// Its process runs since then.
    Running {
        /// Since when.
        since: Duration,
    },
    /// Died; is started again then.
    Pausing {
        /// Until when.
        until: Duration,
    },
    /// Is not started again.
    Failed,
    /// Ended because we stop.
    Stopped,
}

/// A part and its history.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Which part.
    pub part: Part,
    /// How it does.
    pub state: State,
    /// How often it was started again.
    pub restarts: u64,
    ready: bool,
    pause: Duration,
    in_a_row: u32,
}

impl Slot {
    /// Whether it answers.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// How often it has died in a row without having been healthy; what it is doing now counts as health when it has
    /// lasted.
    pub fn deaths_in_a_row(&self, now: Duration) -> u32 {
        if self.is_healthy(now) { 0 } else { self.in_a_row }
    }

    fn is_healthy(&self, now: Duration) -> bool {
        matches!(self.state, State::Running { since } if now.saturating_sub(since) >= HEALTHY)
    }
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Running,
    /// The index in [`STOPPED_BY`] that is awaited, since when we stop, and whether it was killed.
    Stopping {
        stage: usize,
        began: Duration,
        asked: bool,
        killed: bool,
    },
    Killing,
    Finished,
}

/// The step machine.
#[derive(Clone, Debug)]
pub struct Supervisor {
    slots: Vec<Slot>,
    phase: Phase,
    needs_server_address: bool,
}

impl Supervisor {
    /// A machine for `parts`. With `needs_server_address` the agent cannot be started before the server answers,
    /// because only then its port is known.
    pub fn new(parts: &[Part], needs_server_address: bool) -> Self {
        let slot = |part: &Part| Slot {
            part: *part,
            state: State::Waiting,
            restarts: 0,
            ready: false,
            pause: PAUSE,
            in_a_row: 0,
        };
        Self { slots: parts.iter().map(slot).collect(), phase: Phase::Running, needs_server_address }
    }

    /// The parts and how they do.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Whether the part's process runs.
    pub fn runs(&self, part: Part) -> bool {
        self.running().any(|running| running == part)
    }

    /// Whether Ctrl-C has been seen.
    pub fn is_stopping(&self) -> bool {
        !matches!(self.phase, Phase::Running)
    }

    /// Takes an event at `now`; says what to do.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Tick => {}
            Event::Ready(part) => self.with(part, |slot| slot.ready = true),
            Event::Exited { part, hopeless } => self.exited(now, part, hopeless),
            Event::Stop => self.begin_to_stop(now),
            Event::Kill => {
                self.begin_to_stop(now);
                if !matches!(self.phase, Phase::Finished) {
                    self.phase = Phase::Killing;
                    actions.extend(self.running().map(Action::Kill));
                }
            }
        }
        match self.phase {
            Phase::Running => self.start_what_is_due(now, &mut actions),
            Phase::Stopping { .. } => self.go_on_stopping(now, &mut actions),
            Phase::Killing if self.running().next().is_none() => self.finish(&mut actions),
            Phase::Killing | Phase::Finished => {}
        }
        actions
    }

    fn exited(&mut self, now: Duration, part: Part, hopeless: bool) {
        let stopping = self.is_stopping();
        self.with(part, |slot| {
            let healthy = slot.is_healthy(now);
            slot.ready = false;
            if stopping {
                slot.state = State::Stopped;
            } else if hopeless {
                slot.state = State::Failed;
            } else {
                if healthy {
                    slot.pause = PAUSE;
                    slot.in_a_row = 0;
                }
                slot.in_a_row += 1;
                slot.state = State::Pausing { until: now + slot.pause };
                slot.pause = (slot.pause * 2).min(PAUSE_MAX);
            }
        });
    }

    fn start_what_is_due(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let agent_may_start = self.agent_may_start(now);
        for slot in &mut self.slots {
            let due = match slot.state {
                State::Waiting => slot.part != Part::Agent || agent_may_start,
                State::Pausing { until } => now >= until,
                State::Running { .. } | State::Failed | State::Stopped => false,
            };
            if due {
                if matches!(slot.state, State::Pausing { .. }) {
                    slot.restarts += 1;
                }
                slot.state = State::Running { since: now };
                actions.push(Action::Start(slot.part));
            }
        }
    }

    fn agent_may_start(&self, now: Duration) -> bool {
        let settled = now >= SETTLE;
        let answers = |part| {
            let slot = self.slots.iter().find(|slot| slot.part == part);
            slot.is_none_or(|slot| slot.ready || slot.state == State::Failed)
        };
        let server = answers(Part::Server) || (settled && !self.needs_server_address);
        server && (answers(Part::Tracer) || settled)
    }

    fn begin_to_stop(&mut self, now: Duration) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        for slot in &mut self.slots {
            if !matches!(slot.state, State::Running { .. } | State::Failed) {
                slot.state = State::Stopped;
            }
        }
        self.phase = Phase::Stopping { stage: 0, began: now, asked: false, killed: false };
    }

    fn go_on_stopping(&mut self, now: Duration, actions: &mut Vec<Action>) {
        while let Phase::Stopping { stage, began, asked, killed } = self.phase {
            let Some((part, by)) = STOPPED_BY.get(stage).copied() else { return self.finish(actions) };
            if !self.running().any(|running| running == part) {
                self.phase = Phase::Stopping { stage: stage + 1, began, asked: false, killed: false };
                continue;
            }
            if !asked {
                actions.push(Action::Terminate(part));
            }
            let late = now.saturating_sub(began) >= by;
            if late && !killed {
                actions.push(Action::Kill(part));
            }
            self.phase = Phase::Stopping { stage, began, asked: true, killed: killed || late };
            return;
        }
    }

    fn finish(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Finished;
        actions.push(Action::Finished);
    }

    fn running(&self) -> impl Iterator<Item = Part> + '_ {
        self.slots.iter().filter(|slot| matches!(slot.state, State::Running { .. })).map(|slot| slot.part)
    }

    fn with(&mut self, part: Part, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.part == part) {
            change(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Part; 3] = Part::ALL;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn started() -> Supervisor {
        let mut supervisor = Supervisor::new(&ALL, false);
        supervisor.step(ms(0), Event::Tick);
        supervisor.step(ms(10), Event::Ready(Part::Server));
        assert_eq!(supervisor.step(ms(20), Event::Ready(Part::Tracer)), [Action::Start(Part::Agent)]);
        supervisor
    }

    fn server(supervisor: &Supervisor) -> Slot {
        *supervisor.slots().iter().find(|slot| slot.part == Part::Server).unwrap()
    }

    fn exited(part: Part) -> Event {
        Event::Exited { part, hopeless: false }
    }

    #[test]
    fn the_agent_starts_when_tracer_and_server_answer() {
        let mut supervisor = Supervisor::new(&ALL, true);
        assert_eq!(supervisor.step(ms(0), Event::Tick), [Action::Start(Part::Tracer), Action::Start(Part::Server)]);
        assert_eq!(supervisor.step(ms(100), Event::Ready(Part::Tracer)), []);
        assert_eq!(supervisor.step(ms(200), Event::Ready(Part::Server)), [Action::Start(Part::Agent)]);
    }

    #[test]
    fn a_tracer_that_never_answers_does_not_hold_the_agent_for_ever() {
        let mut supervisor = Supervisor::new(&ALL, true);
        supervisor.step(ms(0), Event::Tick);
        supervisor.step(ms(100), Event::Ready(Part::Server));
        assert_eq!(supervisor.step(SETTLE.saturating_sub(ms(1)), Event::Tick), []);
        assert_eq!(supervisor.step(SETTLE, Event::Tick), [Action::Start(Part::Agent)]);
    }

    #[test]
    fn the_agent_is_not_started_without_the_address_that_it_needs() {
        let mut supervisor = Supervisor::new(&[Part::Server, Part::Agent], true);
        supervisor.step(ms(0), Event::Tick);
        assert_eq!(supervisor.step(SETTLE * 10, Event::Tick), []);
        assert_eq!(supervisor.step(SETTLE * 11, Event::Ready(Part::Server)), [Action::Start(Part::Agent)]);
    }

    #[test]
    fn pauses_double_up_to_five_seconds_and_begin_anew_after_health() {
        let mut supervisor = started();
        let mut now = ms(1000);
        let mut pauses = Vec::new();
        for deaths in 0..8 {
            assert_eq!(server(&supervisor).deaths_in_a_row(now), deaths);
            assert_eq!(supervisor.step(now, exited(Part::Server)), []);
            let State::Pausing { until } = server(&supervisor).state else { panic!("{supervisor:?}") };
            assert_eq!(supervisor.step(until.saturating_sub(ms(1)), Event::Tick), []);
            assert_eq!(supervisor.step(until, Event::Tick), [Action::Start(Part::Server)]);
            pauses.push(until.saturating_sub(now).as_millis());
            now = until + ms(50);
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        let now = now + HEALTHY;
        assert_eq!(server(&supervisor).deaths_in_a_row(now), 0);
        supervisor.step(now, exited(Part::Server));
        assert_eq!(server(&supervisor).state, State::Pausing { until: now + PAUSE });
        assert_eq!(server(&supervisor).restarts, 8);
    }

    #[test]
    fn a_hopeless_part_is_not_started_again() {
        let mut supervisor = started();
        let hopeless = Event::Exited { part: Part::Tracer, hopeless: true };
        assert_eq!(supervisor.step(ms(100), hopeless), []);
        assert_eq!(supervisor.step(ms(100_000), Event::Tick), []);
    }

    #[test]
    fn parts_stop_in_the_direction_of_the_data() {
        let mut supervisor = started();
        assert_eq!(supervisor.step(ms(100), Event::Stop), [Action::Terminate(Part::Agent)]);
        assert_eq!(supervisor.step(ms(110), Event::Tick), []);
        assert_eq!(supervisor.step(ms(200), exited(Part::Agent)), [Action::Terminate(Part::Server)]);
        assert_eq!(supervisor.step(ms(300), exited(Part::Server)), [Action::Terminate(Part::Tracer)]);
        assert_eq!(supervisor.step(ms(400), exited(Part::Tracer)), [Action::Finished]);
        assert_eq!(supervisor.step(ms(500), Event::Tick), []);
    }

    #[test]
    fn parts_that_do_not_stop_are_killed_within_five_seconds() {
        let mut supervisor = started();
        let begin = ms(1000);
        supervisor.step(begin, Event::Stop);
        let mut killed = Vec::new();
        for tick in 0..50 {
            let now = begin + ms(tick * 100);
            for action in supervisor.step(now, Event::Tick) {
                if let Action::Kill(part) = action {
                    killed.push(part);
                    supervisor.step(now, exited(part));
                }
            }
        }
        assert_eq!(killed, [Part::Agent, Part::Server, Part::Tracer]);
        assert!(STOPPED_BY.iter().all(|(_, by)| *by < Duration::from_secs(5)));
    }

    #[test]
    fn the_second_interrupt_kills_all_at_once() {
        let mut supervisor = started();
        supervisor.step(ms(100), Event::Stop);
        let actions = supervisor.step(ms(150), Event::Kill);
        assert_eq!(actions, ALL.map(Action::Kill));
        supervisor.step(ms(160), exited(Part::Agent));
        supervisor.step(ms(160), exited(Part::Server));
        assert_eq!(supervisor.step(ms(161), exited(Part::Tracer)), [Action::Finished]);
    }

    #[test]
    fn what_dies_while_stopping_is_not_started_again() {
        let mut supervisor = started();
        supervisor.step(ms(50), exited(Part::Tracer));
        supervisor.step(ms(60), Event::Stop);
        assert_eq!(supervisor.step(ms(300), Event::Tick), []);
        assert_eq!(supervisor.step(ms(310), exited(Part::Server)), []);
        assert_eq!(supervisor.step(ms(320), exited(Part::Agent)), [Action::Finished]);
    }
}
