//! `weir top` in a real pseudo-terminal, its screen read by a terminal emulator.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod stand_in;

use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;
use stand_in::{StandIn, body, complete, connection, edges, stderr, weir};
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Long enough for a debug build on a busy machine; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

fn cells(number: u16) -> NonZero<u16> {
    NonZero::new(number).unwrap()
}

/// A terminal with `weir top` on it.
struct Terminal {
    child: Child,
    master: File,
    screen: Arc<(Mutex<(vt100::Parser, bool)>, Condvar)>,
}

impl Terminal {
    fn start(words: &[&str], columns: u16, rows: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let slave = File::from(pty.slave);
        // A session of its own, whose terminal this is: as a login has it, so that changes of size are told.
        let child = Command::new("setsid")
            .args(["--ctty", env!("CARGO_BIN_EXE_weir"), "top"])
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("TERM", "xterm-256color")
            .env("TZ", "UTC")
            .stdin(Stdio::from(slave.try_clone().unwrap()))
            .stdout(Stdio::from(slave.try_clone().unwrap()))
            .stderr(Stdio::from(slave))
            .spawn()
            .unwrap();
        let master = File::from(pty.master);
        let screen =
            Arc::new((Mutex::new((vt100::Parser::new(cells(rows), cells(columns), 0), false)), Condvar::new()));
        let (mut reader, seen) = (master.try_clone().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // EIO: nobody has the other end any more.
            while let Ok(count) = reader.read(&mut bytes) {
                seen.0.lock().unwrap().0.process(&bytes[..count]);
                seen.1.notify_all();
            }
            seen.0.lock().unwrap().1 = true;
            seen.1.notify_all();
        });
        Self { child, master, screen }
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    fn resize(&mut self, columns: u16, rows: u16) {
        self.screen.0.lock().unwrap().0.screen_mut().set_size(cells(rows), cells(columns));
        let status = Command::new("stty")
            .args(["cols", &columns.to_string(), "rows", &rows.to_string()])
            .stdin(Stdio::from(self.master.try_clone().unwrap()))
            .status();
        assert!(status.unwrap().success());
    }

    /// Waits for a screen that is as wanted, and returns it.
    fn until(&self, what: &str, wanted: impl Fn(&vt100::Screen) -> bool) -> String {
        let seen = self.screen.0.lock().unwrap();
        let waited = self.screen.1.wait_timeout_while(seen, PATIENCE, |seen| !wanted(seen.0.screen()));
        let (seen, waited) = waited.unwrap();
        assert!(!waited.timed_out(), "{what} did not come:\n{}", seen.0.screen().contents());
        seen.0.screen().contents()
    }

    fn shows(&self, text: &str) -> String {
        self.until(text, |screen| screen.contents().contains(text))
    }

    /// The end, once everything that was written has been read.
    fn ended(&mut self) -> (ExitStatus, vt100::Screen) {
        let status = self.child.wait().unwrap();
        let mut seen = self.screen.0.lock().unwrap();
        while !seen.1 {
            seen = self.screen.1.wait_timeout(seen, PATIENCE).unwrap().0;
        }
        (status, seen.0.screen().clone())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Hangs up: whoever still runs on it ends.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn server() -> StandIn {
    StandIn::by_path(vec![
        ("/api/v1/edges", body(edges(), complete())),
        ("/api/v1/connections", body(vec![connection("curl")], complete())),
    ])
}

#[test]
fn edges_are_shown_sorted_filtered_entered_and_left_at_80_by_24() {
    let server = server();
    let mut terminal = Terminal::start(&["--server", &server.url()], 80, 24);
    let screen = terminal.shows("complete: ");
    let lines: Vec<&str> = screen.lines().collect();
    assert!(lines[0].starts_with(&format!("{}  workloads  1m until ", server.url())), "{screen}");
    assert!(lines[2].starts_with("CLIENT") && lines[2].contains("SENT") && lines[2].contains("FAIL"), "{screen}");
    assert!(lines[23].starts_with("? help"), "{screen}");
    assert!(lines.len() == 24 && lines.iter().all(|line| line.chars().count() <= 80), "{screen}");
    // The cursor's keys, as a terminal sends them.
    terminal.press("\x1b[C");
    terminal.shows("by bytes sent");
    terminal.press("r");
    terminal.shows("by bytes sent reversed");
    terminal.press("/prt=80\r");
    let screen = terminal.shows("edges have no field `prt`");
    assert_eq!(screen.lines().map(str::trim_end).skip(1).take(2).collect::<Vec<_>>(), ["filter: prt=80", "        ^"]);
    terminal.press("\x15port=80\r");
    terminal.until("rows under the filter", |screen| {
        let text = screen.contents();
        text.contains("only port=80") && text.contains("of 2 edges")
    });
    assert!(server.asked().iter().any(|asked| asked.contains("filter=port%3D80")), "{:?}", server.asked());
    terminal.press("u");
    let answered = |words: &'static str| {
        move |screen: &vt100::Screen| screen.contents().contains(words) && screen.contents().contains("of 2 edges")
    };
    terminal.until("what is unhealthy", answered("only unhealthy of port=80"));
    terminal.press("u");
    terminal.until("all of them again", answered("only port=80"));
    let asked = server.asked();
    assert!(asked.iter().any(|asked| asked.contains("unhealthy=true")), "{asked:?}");
    assert!(asked.iter().any(|asked| asked.contains("health=true")), "{asked:?}");
    terminal.press("\r");
    terminal.until("its pods", |screen| {
        screen.contents().contains("  pods  1m") && screen.contents().contains("of 2 edges")
    });
    terminal.press("\r");
    terminal.shows("  connections  1m");
    terminal.shows("of 1 connection");
    assert!(server.asked().iter().any(|asked| asked.starts_with("GET /api/v1/connections?since=1m&filter=")));
    terminal.press("\x7f");
    terminal.shows("  pods  1m");
    terminal.press("p");
    terminal.shows("PAUSED");
    terminal.press("?");
    terminal.shows("Any key goes back.");
    terminal.press("x");
    terminal.resize(50, 10);
    let narrow = terminal.until("a narrow screen", |screen| {
        let text = screen.contents();
        text.lines().nth(9).is_some_and(|line| line.starts_with("? help")) && text.contains("CLIENT")
    });
    assert!(!narrow.contains("RTT"), "the least important columns go: {narrow}");
    terminal.press("q");
    let (status, screen) = terminal.ended();
    assert_eq!(status.code(), Some(0));
    assert!(!screen.alternate_screen() && !screen.hide_cursor(), "the terminal is as it was");
}

#[test]
fn a_server_that_is_away_is_told_and_asked_again_and_a_signal_puts_the_terminal_back() {
    let server = StandIn::sequence(vec![
        (503, "{\"error\":\"the store is being opened\"}".into()),
        (200, body(edges(), complete())),
    ]);
    let mut terminal = Terminal::start(&["--server", &server.url(), "--by", "pod"], 80, 24);
    terminal.shows("the store is being opened");
    terminal.shows("complete: ");
    // setsid has become weir: it leads no group, so that it need not fork.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(terminal.child.id() as i32), Signal::SIGTERM).unwrap();
    let (status, screen) = terminal.ended();
    assert_eq!(status.code(), Some(0));
    assert!(!screen.alternate_screen() && !screen.hide_cursor());
}

#[test]
fn without_a_terminal_or_with_a_wrong_filter_it_says_so_and_ends() {
    let output = weir(&["top"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("weir top needs a terminal"), "{}", stderr(&output));
    let mut terminal = Terminal::start(&["--filter", "name=", "--server", "http://127.0.0.1:1"], 80, 24);
    let (status, screen) = terminal.ended();
    assert_eq!(status.code(), Some(2));
    assert!(screen.contents().contains("filter, column 6"), "{}", screen.contents());
}
