//! `weir top`: who talks to whom, as it goes on, in a terminal.
//!
//! ```text
//! keys ──thread──▶ run ──▶ App (pure) ──▶ draw
//!                   ▲ │
//!    server's API ──┘ └─ one question at a time, over one connection
//! ```
//!
//! The question is the same as that of `weir edges` and `weir connections`. The next one goes out a while after the last
//! answer came: a server that takes long is not asked more often for it.

pub mod app;
pub mod draw;
pub mod input;
pub mod level;
pub mod rows;

use crate::args::TopArgs;
use crate::client::{Client, ClientError, Connection};
use crate::exit::{Failure, Verdict};
use crate::read;
use crate::show::terminal::Surface;
use app::{App, SPANS, Wish};
use hyper::body::Bytes;
use level::Level;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;
use weir_wire::filter::{Filter, Scope};

/// Agents deliver every 10 s by default: a second on top is not felt.
const PAUSE: Duration = Duration::from_secs(1);
/// A server spends at most a fifth of its time on one such reader.
const SHARE: u32 = 4;
/// Keys that may wait while one is drawn: more than a hand types ahead.
const KEYS_MAX: usize = 64;

/// Runs until it is ended by a key or a signal.
///
/// # Errors
/// [`Failure`]: no terminal, a wrong setting, a terminal that cannot be read or written. A server that does not answer
/// is told on the screen, and asked again.
pub async fn run(args: &TopArgs) -> Result<Verdict, Failure> {
    let surface = Surface::stdout(args.color);
    if !surface.is_terminal || !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        return Err(Failure::Usage(
            "weir top needs a terminal to draw on and to read keys from: use weir edges in a pipe".into(),
        ));
    }
    let client = read::client(&args.server)?;
    let filter = args.filter.clone().unwrap_or_default();
    if !filter.is_empty() {
        Filter::parse(Scope::Edges, &filter).map_err(|error| {
            Failure::Usage(crate::show::point::pointed(&error.to_string(), &filter, error.column, &error.expected))
        })?;
    }
    let span = SPANS.iter().position(|span| *span == args.span).unwrap_or(1);
    let by = level::GROUPINGS.into_iter().find(|by| *by == args.by).unwrap_or("workload");
    let app = App::new(client.target(), Level::Edges(by), filter, span);
    let look = draw::Look { colour: surface.colour, exact: args.exact, zone: jiff::tz::TimeZone::system() };
    let shutdown = weir_daemon::shutdown::on_signals().map_err(anyhow::Error::new)?;
    let mut terminal = ratatui::try_init().map_err(unusable)?;
    let outcome = tokio::select! {
        outcome = go(app, &look, &client, &mut terminal) => outcome,
        () = shutdown.cancelled() => Ok(()),
    };
    // What cannot be put back cannot be mended either.
    let _ = ratatui::try_restore();
    outcome.map(|()| Verdict::Done)
}

fn unusable(error: std::io::Error) -> Failure {
    Failure::Failed(anyhow::Error::new(error).context("failed to use the terminal"))
}

/// A question under way; the connection comes back with the answer.
type Asking = Pin<Box<dyn Future<Output = (Option<Connection>, Result<Bytes, ClientError>)>>>;

async fn go(
    mut app: App,
    look: &draw::Look,
    client: &Client,
    terminal: &mut ratatui::DefaultTerminal,
) -> Result<(), Failure> {
    let mut keys = keys().map_err(unusable)?;
    let mut kept = None;
    let mut asking: Option<Asking> = Some(ask(&app, client, None));
    let mut started = Instant::now();
    let mut next = started;
    loop {
        terminal.draw(|frame| draw::frame(frame, &mut app, look)).map_err(unusable)?;
        tokio::select! {
            event = keys.recv() => {
                let wish = match event.ok_or_else(|| anyhow::anyhow!("the terminal is gone"))? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => app.key(key),
                    _ => Wish::Draw,
                };
                match wish {
                    Wish::Draw => {}
                    Wish::Quit => return Ok(()),
                    Wish::Ask => {
                        // An answer to the old question would be taken for one to the new.
                        drop(asking.take());
                        started = Instant::now();
                        asking = Some(ask(&app, client, kept.take()));
                    }
                }
            }
            (connection, body) = answered(&mut asking) => {
                asking = None;
                next = Instant::now() + PAUSE.max(started.elapsed() * SHARE);
                kept = connection;
                take(&mut app, client, body);
            }
            () = tokio::time::sleep_until(next), if asking.is_none() && !app.paused => {
                started = Instant::now();
                asking = Some(ask(&app, client, kept.take()));
            }
        }
    }
}

fn ask(app: &App, client: &Client, mut kept: Option<Connection>) -> Asking {
    let view = app.view();
    let (client, path, query) = (client.clone(), format!("/api/v1/{}", view.level.command()), view.query());
    Box::pin(async move {
        let answer = client.get_on(&mut kept, &path, query.pairs()).await;
        (kept, answer)
    })
}

/// The answer to the question under way; never, where there is none.
async fn answered(asking: &mut Option<Asking>) -> (Option<Connection>, Result<Bytes, ClientError>) {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

fn take(app: &mut App, client: &Client, body: Result<Bytes, ClientError>) {
    let outcome = body.map_err(|error| read::explain(error, client)).and_then(|body| {
        match app.view().level {
            Level::Edges(_) => app.take_edges(read::parse(&body, client)?),
            Level::Connections => app.take_connections(read::parse(&body, client)?),
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        app.failure = Some(failure.to_string());
    }
}

/// Keys and changes of size, read by a thread of its own: it ends with the process.
fn keys() -> std::io::Result<Receiver<Event>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(KEYS_MAX);
    std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}
