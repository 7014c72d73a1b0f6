//! `weir up` with the real server and an agent that only says how it was started: what is published, restarted, refused
//! and stopped. With the real tracer and agent it is tested end to end elsewhere.

#![allow(clippy::unwrap_used, reason = "a panic is the test's failure")]

mod stand_in;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stand_in::{command, stderr};
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use weir_cli::up::folder::Running;
use weir_daemon::clock::{Clock, SystemClock};

/// An agent that writes down its arguments and variables and ends orderly when asked to. It is ready once it knows what to
/// do then: a signal that comes before ends any shell.
const PATIENT: &str = "#!/bin/sh\ntrap 'exit 0' TERM\ncd \"$(dirname \"$0\")\"\nenv > environment\necho \"$@\" > asked\n\
    : > ready-$$\nwhile :; do sleep 0.02; done\n";

/// One that does not end when asked to.
const STUBBORN: &str =
    "#!/bin/sh\ntrap '' TERM\ncd \"$(dirname \"$0\")\"\n: > ready-$$\nwhile :; do sleep 0.02; done\n";

/// A folder with `weir` and a stand-in `weir-agent` beside it.
struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    fn new(agent: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let weir = folder.path().join("weir");
        let built = Path::new(env!("CARGO_BIN_EXE_weir"));
        if std::fs::hard_link(built, &weir).is_err() {
            std::fs::copy(built, &weir).unwrap();
        }
        let script = folder.path().join("weir-agent");
        std::fs::write(&script, agent).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.folder.path().join("weir"));
        let feed = format!("unix:{}", self.folder.path().join("feed.sock").display());
        let any = "127.0.0.1:0";
        command
            .args(["up", "--feed", &feed, "--listen", any, "--agents-listen", any, "--metrics-listen", any, "--data"])
            .arg(self.data())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        command
    }

    fn start(&self) -> Up<'_> {
        let child = self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Up { stage: self, child: Some(child) }
    }

    fn agent(&self) -> Option<(u32, u64)> {
        let running = Running::read(&self.data())?;
        let agent = running.parts.iter().find(|part| part.name == "agent")?;
        Some((agent.pid?, agent.restarts))
    }
}

/// A `weir up` that does not outlive its test.
struct Up<'a> {
    stage: &'a Stage,
    child: Option<Child>,
}

impl Up<'_> {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().unwrap().id() as i32)
    }

    fn running(&self) -> Running {
        until("the agent runs and is ready, and the addresses are known", || {
            let running =
                Running::read(&self.stage.data()).filter(|running| running.pid as i32 == self.pid().as_raw())?;
            let all = running.parts.iter().all(|part| part.pid.is_some()) && running.http.is_some();
            let (agent, _) = self.stage.agent()?;
            let is_ready = self.stage.folder.path().join(format!("ready-{agent}")).exists();
            (all && is_ready).then_some(running)
        })
    }

    fn end(mut self) -> Output {
        self.child.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let mut said = String::new();
            let _ = child.stderr.take().map(|mut errors| errors.read_to_string(&mut said));
            let _ = child.wait();
            eprintln!("weir up said: {said}");
        }
    }
}

/// Looks until there is something, ten seconds at most.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let clock = SystemClock::new();
    let deadline = clock.monotonic().0 + 10_000_000_000;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(clock.monotonic().0 < deadline, "never happened: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn lives(pid: u32) -> bool {
    kill(Pid::from_raw(pid as i32), None).is_ok()
}

#[test]
fn up_publishes_restarts_refuses_a_twin_and_stops_in_order() {
    let stage = Stage::new(PATIENT);
    let up = stage.start();
    let running = up.running();
    let (http, agents) = (running.http.unwrap(), running.agents.unwrap());
    assert_ne!((http.port(), agents.port()), (0, 0));
    assert_eq!(running.pid as i32, up.pid().as_raw());
    TcpStream::connect(http).unwrap();
    let asked = std::fs::read_to_string(stage.folder.path().join("asked")).unwrap();
    assert!(asked.contains(&format!("--server http://{agents}")), "{asked}");
    assert!(asked.contains("--interval 10s"), "{asked}");

    let (first, _) = stage.agent().unwrap();
    kill(Pid::from_raw(first as i32), Signal::SIGKILL).unwrap();
    let second =
        until("the agent is started again", || stage.agent().filter(|(pid, restarts)| *pid != first && *restarts == 1));

    let twin = stage.command().output().unwrap();
    assert_eq!(twin.status.code(), Some(1));
    let words = stderr(&twin);
    assert!(words.contains(&format!("another weir up (pid {})", running.pid)) && words.contains("--data"), "{words}");

    let clock = SystemClock::new();
    let began = clock.monotonic().0;
    kill(up.pid(), Signal::SIGINT).unwrap();
    let output = up.end();
    assert!(clock.monotonic().0 - began < 5_000_000_000);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!lives(second.0));
    assert!(Running::read(&stage.data()).is_none());
    assert!(stderr(&output).contains("agent ended with SIGKILL, starts again"), "{}", stderr(&output));
}

#[test]
fn a_restarted_server_is_where_it_was() {
    let stage = Stage::new(PATIENT);
    let up = stage.start();
    let running = up.running();
    let server = running.parts.iter().find(|part| part.name == "server").and_then(|part| part.pid).unwrap();
    kill(Pid::from_raw(server as i32), Signal::SIGKILL).unwrap();
    until("the server is started again", || {
        let running = Running::read(&stage.data())?;
        running.parts.iter().find(|part| part.name == "server" && part.restarts == 1 && part.pid.is_some()).cloned()
    });
    until("it listens", || TcpStream::connect(running.http.unwrap()).ok());
    assert_eq!(Running::read(&stage.data()).unwrap().http, running.http);
    kill(up.pid(), Signal::SIGTERM).unwrap();
    assert_eq!(up.end().status.code(), Some(0));
}

#[test]
fn the_parts_end_when_up_is_killed_and_the_next_up_can_start() {
    let stage = Stage::new(PATIENT);
    let up = stage.start();
    let parts: Vec<u32> = up.running().parts.iter().filter_map(|part| part.pid).collect();
    kill(up.pid(), Signal::SIGKILL).unwrap();
    drop(up);
    let next = stage.start();
    next.running();
    until("the old parts have ended", || (!parts.iter().any(|pid| lives(*pid))).then_some(()));
    kill(next.pid(), Signal::SIGINT).unwrap();
    assert_eq!(next.end().status.code(), Some(0));
}

#[test]
fn an_agent_that_is_started_wrongly_is_told_once_and_ends_it() {
    let stage = Stage::new("#!/bin/sh\necho 'error: unexpected argument --nonsense' >&2\nexit 2\n");
    let output = stage.start().end();
    assert_eq!(output.status.code(), Some(1));
    let words = stderr(&output);
    assert!(
        words.contains("agent cannot run: it ended with exit code 2: error: unexpected argument --nonsense"),
        "{words}"
    );
}

#[test]
fn a_setting_reaches_the_part_that_takes_it_as_flag_as_variable_and_from_the_file() {
    let stage = Stage::new(PATIENT);
    let config = stage.folder.path().join("weir.toml");
    std::fs::write(&config, "[up]\nkubelet = 'http://127.0.0.1:10255'\nnetwork = ['office=192.0.2.0/24']\n").unwrap();
    let mut command = stage.command();
    command
        .args(["--cri", "off", "--network", "lab=198.51.100.0/24", "--config"])
        .arg(&config)
        .env("WEIR_DOCKER", "unix:/nowhere/docker.sock")
        .env("WEIR_COLLECT", "pod.team=$.metadata.labels.team\nservice.tier=$.metadata.labels.tier")
        // `weir up` has no flag for this one, nor for that of the server.
        .env("WEIR_SPOOL_MAX_AGE", "3h")
        .env("WEIR_AGENTS_AUDIENCE", "river");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let up = Up { stage: &stage, child: Some(child) };
    let running = up.running();
    let of_agent = |name: &str| std::fs::read_to_string(stage.folder.path().join(name)).unwrap();
    let asked = of_agent("asked");
    let words = "--docker unix:/nowhere/docker.sock --cri off --kubelet http://127.0.0.1:10255 \
                 --collect pod.team=$.metadata.labels.team --";
    assert!(asked.contains(words) && !asked.contains("service.tier") && !asked.contains("--network"), "{asked}");
    let environment = of_agent("environment");
    let has = |line: &str| environment.lines().any(|one| one == line);
    assert!(has("WEIR_SPOOL_MAX_AGE=3h") && !environment.contains("WEIR_COLLECT"), "{environment}");

    let server = running.parts.iter().find(|part| part.name == "server").and_then(|part| part.pid).unwrap();
    let of_server = |name: &str| {
        let bytes = std::fs::read(format!("/proc/{server}/{name}")).unwrap();
        String::from_utf8(bytes).unwrap().replace('\0', " ")
    };
    let words = "--collect service.tier=$.metadata.labels.tier --network lab=198.51.100.0/24 --";
    let asked = of_server("cmdline");
    assert!(asked.contains(words) && !asked.contains("pod.team") && !asked.contains("docker"), "{asked}");
    let environment = of_server("environ");
    assert!(
        environment.contains("WEIR_AGENTS_AUDIENCE=river") && !environment.contains("WEIR_COLLECT"),
        "{environment}"
    );
    kill(up.pid(), Signal::SIGINT).unwrap();
    assert_eq!(up.end().status.code(), Some(0));
}

#[test]
fn a_setting_that_means_nothing_ends_it_with_the_reason() {
    let stage = Stage::new(PATIENT);
    for (flag, value, reason) in [
        ("--network", "office", "write NAME=CIDR"),
        ("--kubernetes", "on", "neither auto, off nor an http or https address"),
        ("--collect", "service.tier=metadata", "character 14"),
        ("--retain-history", "long", "--retain-history"),
    ] {
        let output = stage.command().args([flag, value]).output().unwrap();
        let words = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(words.contains("server cannot run") && words.contains(flag) && words.contains(reason), "{words}");
    }
}

#[test]
fn an_agent_that_is_missing_is_named() {
    let stage = Stage::new(PATIENT);
    std::fs::remove_file(stage.folder.path().join("weir-agent")).unwrap();
    let output = stage.start().end();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("weir-agent is neither beside"), "{}", stderr(&output));
}

#[test]
fn a_stubborn_agent_is_killed_in_time_and_told() {
    let stage = Stage::new(STUBBORN);
    let up = stage.start();
    up.running();
    kill(up.pid(), Signal::SIGINT).unwrap();
    let output = up.end();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("agent did not stop in time"), "{}", stderr(&output));
}

#[test]
fn the_second_interrupt_ends_it_at_once() {
    let stage = Stage::new(STUBBORN);
    let up = stage.start();
    let (agent, _) = {
        up.running();
        stage.agent().unwrap()
    };
    kill(up.pid(), Signal::SIGINT).unwrap();
    let clock = SystemClock::new();
    let began = clock.monotonic().0;
    // The first has to be seen before the second is a second.
    let mut up = up;
    let mut errors = up.child.as_mut().unwrap().stdout.take().unwrap();
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("stopping") {
        let mut byte = [0];
        errors.read_exact(&mut byte).unwrap();
        said.push(byte[0]);
    }
    kill(up.pid(), Signal::SIGINT).unwrap();
    assert_eq!(up.end().status.code(), Some(130));
    assert!(clock.monotonic().0 - began < 2_000_000_000);
    assert!(!lives(agent));
}

#[test]
fn the_live_table_leaves_the_terminal_as_it_was() {
    let stage = Stage::new(PATIENT);
    let size = nix::pty::Winsize { ws_row: 20, ws_col: 70, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(Some(&size), None).unwrap();
    let child = stage.command().env("TERM", "xterm").stdout(pty.slave).stderr(Stdio::piped()).spawn().unwrap();
    let up = Up { stage: &stage, child: Some(child) };
    let mut terminal = std::fs::File::from(pty.master);
    let reader = std::thread::spawn(move || {
        let mut shown = Vec::new();
        // Ends with an error when the last writer has gone.
        let _ = terminal.read_to_end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    });
    let running = up.running();
    // One frame a second at least: the second is one with an answer.
    let http = running.http.unwrap();
    until("the server answers", || TcpStream::connect(http).ok());
    kill(up.pid(), Signal::SIGINT).unwrap();
    let output = up.end();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let shown = reader.join().unwrap();
    let (enter, leave) = (shown.find("\x1b[?1049h").unwrap(), shown.find("\x1b[?1049l").unwrap());
    assert!(enter < leave, "{shown}");
    assert!(shown[enter..leave].contains("\x1b[1mweir  page "), "{shown}");
    assert!(!shown[leave..].contains("\x1b[H") && shown[leave..].contains("stopped in"), "{shown}");
}

#[test]
fn up_without_the_right_to_a_folder_says_so() {
    let output = command(&["up", "--data", "/proc/nowhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("choose another with --data"), "{}", stderr(&output));
}
