//! Plays the tour and writes it down: each command as it is typed, and what it printed.

use super::watch::{Watched, awaited, now, span_until, wall, watch};
use super::{Demo, Expected, STOPS, Seen, Stop, screen};
use crate::process::until;
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// A window of the record.
const WINDOW: Duration = Duration::from_secs(10);
/// How long is waited for a fault that was not said by then, or for a comparison that takes more steps.
const LONG: Duration = Duration::from_secs(120);
/// How long after a fault is over until nothing is said of it any more: the span, two windows, and the machine's own time.
const OVER: Duration = Duration::from_secs(90);

/// Sizes of pictures.
const WIDE: [&str; 2] = ["1360", "1000"];
const NARROW: [&str; 2] = ["390", "1700"];

/// How the tour is played.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long nothing is done at first, and nothing may be said.
    pub quiet: Duration,
    /// How the program that makes screenshots is called, and where they go; without it there are none.
    pub screenshots: Option<(PathBuf, PathBuf)>,
}

struct Tour<'a> {
    demo: &'a Demo,
    settings: &'a Settings,
    text: String,
    wrong: String,
    /// When the first fault had been named, for a look back.
    trouble: Option<Instant>,
}

/// Plays the tour on a running demo. Answers the page, and what was not as it has to be, in words.
///
/// # Errors
/// When a command fails.
pub fn write(demo: &Demo, settings: &Settings) -> Result<(String, String)> {
    let mut tour = Tour { demo, settings, text: String::new(), wrong: String::new(), trouble: None };
    tour.at_rest()?;
    for stop in &STOPS {
        tour.visit(stop)?;
    }
    tour.look_back()?;
    Ok((tour.text, tour.wrong))
}

impl Tour<'_> {
    fn say(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// A command of `weir`, and what it printed.
    fn weir(&mut self, args: &[&str]) -> Result<()> {
        let (said, code) = self.demo.weir(args)?;
        let exit = if code == 0 { String::new() } else { format!("(exit code {code})\n") };
        let _ = write!(self.text, "\n```console\n$ weir {}\n{}\n{exit}```\n", quoted(args), said.trim_end());
        Ok(())
    }

    /// What `weir top` shows after some keys.
    fn top(&mut self, shown: &str, keys: &str, wanted: &[&str]) -> Result<()> {
        let address = format!("http://{}", self.demo.address());
        let screen = screen::top(&address, shown, keys, wanted)?;
        let lines: Vec<&str> = screen.lines().map(str::trim_end).collect();
        let _ = write!(self.text, "\n```console\n$ weir top\n{}\n```\n", lines.join("\n").trim_end());
        Ok(())
    }

    /// Notes what was wrong until a stop was told as it has to be, and that it took too long.
    fn note(&mut self, stop: &Stop, watched: &Watched, took: Duration) {
        self.wrong.push_str(&watched.wrong);
        if took > stop.within {
            let _ = writeln!(self.wrong, "{} was told after {:.0} s", stop.fault.name(), took.as_secs_f64());
        }
    }

    fn tell(&mut self, args: &[&str]) -> Result<()> {
        let said = self.demo.tell(args)?;
        let _ = write!(self.text, "\n```console\n# weir-demo {}\n{}\n```\n", args.join(" "), said.trim_end());
        Ok(())
    }

    fn picture(&mut self, name: &str, query: &str, size: [&str; 2], words: &str) -> Result<()> {
        let Some((program, folder)) = &self.settings.screenshots else { return Ok(()) };
        let url = format!("http://{}/{query}", self.demo.address());
        let file = folder.join(format!("{name}.png"));
        let output = Command::new("node")
            .arg(program)
            .arg(&url)
            .arg(&file)
            .args(size)
            .output()
            .context("failed to start node")?;
        ensure!(output.status.success(), "no picture of {url}: {}", String::from_utf8_lossy(&output.stderr));
        let _ = write!(self.text, "\n![{words}](images/{name}.png)\n");
        Ok(())
    }

    fn at_rest(&mut self) -> Result<()> {
        self.say("## At rest\n\nWho talks to whom, by workload, and the same of one namespace as a filter says it:");
        self.weir(&["edges", "--since", "1m"])?;
        self.weir(&["edges", "--since", "1m", "--by", "pod", "--filter", "server.workload=database and bytes>10kB"])?;
        self.say("\nThe three largest and, exactly, all others:");
        self.weir(&["edges", "--since", "1m", "--limit", "3"])?;
        self.say("\nThe same as it goes on, in a terminal of 80 by 24:");
        self.top("CLIENT", "", &[])?;
        self.picture("at-rest", "", WIDE, "the page at rest")?;
        let began = now();
        let calm = Expected::default();
        let rest = watch(self.settings.quiet, &calm, || Seen::unhealthy(self.demo))?;
        let (minutes, looks, said) = (rest.took.as_secs_f64() / 60.0, rest.looks, rest.wrong_looks);
        let half = rest.took / 2;
        let (before, after) = (span_until(began + half, half), span_until(began + 2 * half, half));
        let changes = Seen::changes(self.demo, &before, &after)?;
        let _ = write!(self.wrong, "{}{}", rest.wrong, calm.too_much(&changes));
        let _ = writeln!(
            self.text,
            "\nFor {minutes:.1} minutes nothing is done. `weir edges --unhealthy --since {}` was asked {looks} times in it and \
             named an edge {said} times. The second half against the first:",
            Seen::SINCE
        );
        self.weir(&["diff", "--before", &before, "--after", &after])?;
        self.say("\nThe database's edges, step by step:");
        self.weir(&["series", "--since", "5m", "--filter", "server.workload=database"])
    }

    fn visit(&mut self, stop: &Stop) -> Result<()> {
        let name = stop.fault.name();
        let _ = write!(self.text, "\n## {name}\n\nWhat is done: {}.\n", stop.fault.words());
        let minute = Duration::from_secs(60).min(self.settings.quiet);
        if self.trouble.is_some() {
            // What was before shall not be what was broken before.
            self.wrong.push_str(&watch(minute + WINDOW, &Expected::default(), || Seen::unhealthy(self.demo))?.wrong);
        }
        let before = span_until(now(), minute);
        self.tell(&["fault", name])?;
        let began = now();
        let health = Expected::of(stop.unhealthy);
        if stop.unhealthy.is_empty() {
            // A window has to be there to be compared.
            self.wrong.push_str(&watch(WINDOW, &health, || Seen::unhealthy(self.demo))?.wrong);
        } else {
            let named = awaited(LONG, &health, || Seen::unhealthy(self.demo))?;
            self.note(stop, &named, named.took);
            let _ = writeln!(self.text, "\nIt is named {:.0} s later:", named.took.as_secs_f64());
            self.weir(&["edges", "--unhealthy", "--since", Seen::SINCE])?;
            if self.trouble.is_none() {
                self.trouble = Some(now());
                self.say("\n`weir top` marks it, and `u` shows nothing else:");
                self.top("unhealthy. ", "u", &["only unhealthy", "! since"])?;
            }
            // The whole of two windows is there to be compared, and what is named stays all that is.
            let rest = (3 * WINDOW).saturating_sub(began.elapsed());
            self.wrong.push_str(&watch(rest, &health, || Seen::unhealthy(self.demo))?.wrong);
        }
        let after = || span_until(now(), began.elapsed().saturating_sub(Duration::from_secs(2)));
        let changes = Expected::of(stop.changes);
        let changed = awaited(LONG, &changes, || Seen::changes(self.demo, &before, &after()))?;
        let took = began.elapsed();
        self.note(stop, &changed, if stop.unhealthy.is_empty() { took } else { Duration::ZERO });
        let (after, took) = (after(), took.as_secs_f64());
        let _ = writeln!(self.text, "\nAgainst the minute before, {took:.0} s after it began:");
        self.weir(&["diff", "--before", &before, "--after", &after])?;
        if name == "rollout" {
            self.say("\nThe same, found by the rollout itself:");
            self.weir(&["diff", "--rollout", "shop/cart", "--window", "30s"])?;
        }
        let words = format!("the page with the fault {name}");
        self.picture(&format!("{name}-map"), "?since=1m", WIDE, &words)?;
        if name == "refused" {
            self.picture(&format!("{name}-narrow"), "?since=1m", NARROW, &format!("{words}, on a telephone"))?;
        }
        let query = format!("?since=1m&against={}", wall(began.elapsed()).replace(':', "%3A"));
        self.picture(&format!("{name}-diff"), &query, WIDE, &format!("the fault {name} in the mode of differences"))?;
        self.tell(&["fault", name, "off"])?;
        let ended = now();
        until(OVER, || Ok(ended.elapsed() > 3 * WINDOW && Seen::unhealthy(self.demo)?.is_empty()))
            .with_context(|| format!("{name} is over and still something is named"))?;
        let _ =
            writeln!(self.text, "\n{:.0} s after its end nothing is named any more.", ended.elapsed().as_secs_f64());
        Ok(())
    }
}

impl Tour<'_> {
    /// All is well again; what was is still there.
    fn look_back(&mut self) -> Result<()> {
        let Some(trouble) = self.trouble else { return Ok(()) };
        self.say("\n## Looking back\n\nAll is mended. As it was when the first fault had been named:");
        let at = wall(trouble.elapsed());
        self.weir(&["edges", "--unhealthy", "--at", &at, "--since", Seen::SINCE])?;
        let query = format!("?since=1m&at={}", at.replace(':', "%3A"));
        self.picture("looking-back", &query, WIDE, "the page as of that instant")
    }
}

/// As it is typed in a shell.
fn quoted(args: &[&str]) -> String {
    let quote = |arg: &&str| if arg.contains([' ', '<', '>', '*']) { format!("'{arg}'") } else { (*arg).to_owned() };
    args.iter().map(quote).collect::<Vec<_>>().join(" ")
}
