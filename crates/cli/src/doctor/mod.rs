//! `weir doctor`: what this kernel allows, which parts answer, and how to mend the rest.
//!
//! [`facts`] reads `/proc` and `/sys`, [`checks`] and [`rights`] judge; this file asks the parts (the tracer's socket, the server's
//! API, the agent's metrics), whose addresses `up.json` tells where `weir up` runs, and prints.

pub mod checks;
pub mod facts;
pub mod rights;

use crate::args::{DoctorArgs, Feed, Output};
use crate::client::Client;
use crate::exit::{Failure, Verdict};
use crate::read;
use crate::show::csv::{self, Field};
use crate::show::progress;
use crate::show::table::{Cell, Column, Table};
use crate::show::terminal::{Paint, Surface};
use crate::show::text::escape_json;
use crate::up::folder::{Running, default_data};
use crate::up::parts::reachable;
use checks::{Check, State};
use facts::Facts;
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use weir_wire::api::{Answer, StatusRow, Transaction};
use weir_wire::feed;

/// A part on this machine that takes longer is not well.
const PATIENCE: Duration = Duration::from_secs(5);

/// Enough transactions to judge by, few enough to be quick.
const VIEWS_LIMIT: u32 = 10_000;

/// Who is asked.
#[derive(Debug)]
struct Targets {
    data: PathBuf,
    feed: PathBuf,
    metrics: String,
    server: Client,
}

/// Looks, prints and judges: [`Verdict::Unhealthy`] when a check failed.
///
/// # Errors
/// [`Failure`]: wrong flags; the output cannot be written.
pub async fn run(args: &DoctorArgs) -> Result<Verdict, Failure> {
    let targets = targets(args)?;
    let checks = progress::while_waiting("looking at this machine", examine(&targets)).await;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    print(&checks, args, &mut out)?;
    out.flush()?;
    let failed = checks.iter().any(|check| check.state == State::Failed);
    Ok(if failed { Verdict::Unhealthy } else { Verdict::Done })
}

/// A flag wins over what a running `weir up` says, and that over the defaults.
fn targets(args: &DoctorArgs) -> Result<Targets, Failure> {
    let data = args.data.clone().unwrap_or_else(|| default_data(nix::unistd::Uid::effective().is_root()));
    let running = Running::read_live(&data);
    let mut server = args.read.server.clone();
    let default_server = server.server == "http://127.0.0.1:7780";
    if default_server && let Some(http) = running.as_ref().and_then(|running| running.http) {
        server.server = format!("http://{}", reachable(http));
    }
    let feed = match (&args.feed, &running) {
        (Some(Feed(path)), _) => path.clone(),
        (None, Some(running)) if !running.feed.as_os_str().is_empty() => running.feed.clone(),
        _ => crate::up::SYSTEM_SOCKET.into(),
    };
    let metrics = args.metrics_listen.or(running.and_then(|running| running.metrics));
    let metrics = metrics.unwrap_or_else(|| ([127, 0, 0, 1], 7782).into());
    Ok(Targets {
        data,
        feed,
        metrics: format!("http://{}", reachable(metrics)),
        server: read::client(&server)?.within(PATIENCE),
    })
}

async fn examine(targets: &Targets) -> Vec<Check> {
    let facts = Facts::read(Path::new("/"));
    let tracer = Client::to_socket(&targets.feed).within(PATIENCE);
    let status = ask::<feed::Status>(&tracer, "/status", &[]).await;
    let mut checks = checks::kernel(&facts);
    checks.extend(rights::capabilities(&facts, status.as_ref().ok()));
    checks.extend(checks::tracer(&tracer.target(), status.as_ref().map_err(String::as_str)));
    checks.push(agent(&targets.metrics).await);
    let status = ask::<Answer<StatusRow>>(&targets.server, "/api/v1/status", &[]).await;
    checks.push(checks::server(&targets.server.target(), status.as_ref().map_err(String::as_str)));
    checks.push(space(&targets.data));
    if status.is_ok() {
        let query = [("state", "all".to_owned()), ("limit", VIEWS_LIMIT.to_string())];
        let rows = ask::<Answer<Transaction>>(&targets.server, "/api/v1/transactions", &query).await;
        checks.push(match rows {
            Ok(rows) => checks::views(&rows),
            Err(error) => Check::degraded("views", error, "`weir transactions` tells more"),
        });
    }
    checks
}

async fn ask<T: serde::de::DeserializeOwned>(
    client: &Client,
    path: &str,
    query: &[(&str, String)],
) -> Result<T, String> {
    let body = client.get(path, query).await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&body)
        .map_err(|error| format!("the answer of {} is not understood: {error}", client.target()))
}

async fn agent(metrics: &str) -> Check {
    let fix = "start one with `weir up`, or say where its metrics are with --metrics-listen ADDR";
    let client = match Client::to_url(metrics) {
        Ok(client) => client.within(PATIENCE),
        Err(error) => return Check::failed("agent", error.to_string(), fix),
    };
    match client.get("/metrics", &[]).await {
        Ok(body) => {
            let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#').count();
            Check::ok("agent", format!("{metrics}/metrics, {lines} series"))
        }
        Err(error) => Check::failed("agent", error.to_string(), fix),
    }
}

/// The file system of the folder, or of the first one above it that exists.
fn space(data: &Path) -> Check {
    let Some(existing) = data.ancestors().find(|folder| folder.exists()) else {
        return Check::degraded(
            "space",
            format!("{} cannot be looked at", data.display()),
            "name a folder with --data",
        );
    };
    match nix::sys::statvfs::statvfs(existing) {
        Ok(stat) => {
            let unit = stat.fragment_size();
            checks::space(&data.display().to_string(), unit * stat.blocks_available(), unit * stat.blocks())
        }
        Err(errno) => {
            Check::degraded("space", format!("{}: {}", existing.display(), errno.desc()), "name a folder with --data")
        }
    }
}

#[derive(Serialize)]
struct Items<'a> {
    items: &'a [Check],
}

fn print(checks: &[Check], args: &DoctorArgs, out: &mut impl Write) -> Result<(), Failure> {
    let surface = Surface::stdout(args.read.print.color);
    let failed = |error: serde_json::Error| Failure::Failed(anyhow::Error::new(error));
    match args.read.print.output {
        Output::Json => {
            let text = serde_json::to_string(&Items { items: checks }).map_err(failed)?;
            writeln!(out, "{}", escape_json(&text))?;
        }
        Output::Jsonl => {
            for check in checks {
                writeln!(out, "{}", escape_json(&serde_json::to_string(check).map_err(failed)?))?;
            }
        }
        Output::Csv => {
            out.write_all(csv::header(&["check", "state", "detail", "fix"]).as_bytes())?;
            for check in checks {
                let fields = [check.check, check.state.as_str(), &check.detail, &check.fix].map(Field::from);
                out.write_all(csv::line(&fields).as_bytes())?;
            }
        }
        Output::Table => out.write_all(text(checks, &surface).as_bytes())?,
    }
    Ok(())
}

/// A table of what was found, and below it what to do.
fn text(checks: &[Check], surface: &Surface) -> String {
    use std::fmt::Write as _;
    let paint = |state| match state {
        State::Ok => Paint::Good,
        State::Degraded => Paint::Warn,
        State::Failed => Paint::Bad,
    };
    let mut table = Table::new(&[Column::word("CHECK"), Column::word("STATE"), Column::text("FOUND", 20)]);
    for check in checks {
        let state = Cell::new(check.state.as_str()).painted(paint(check.state));
        table.push(vec![Cell::new(check.check), state, Cell::new(&check.detail)]);
    }
    let mut text = table.render(surface);
    let wrong: Vec<&Check> = checks.iter().filter(|check| check.state != State::Ok).collect();
    if wrong.is_empty() {
        let _ = writeln!(text, "\n{}", surface.paint(Paint::Good, "nothing to mend"));
    }
    for check in wrong {
        // The table may have shortened it.
        let line = format!("{} {}: {}\n  mend: {}", check.check, check.state.as_str(), check.detail, check.fix);
        let line = crate::show::text::escape_lines(&line).into_owned();
        let _ = writeln!(text, "\n{}", surface.paint(paint(check.state), &line));
    }
    text
}
