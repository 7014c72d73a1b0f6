//! The reading commands: ask `/api/v1/<command>`, print what it answers.
//!
//! `-o json` prints the body as it came; the other forms parse it. What an answer lacks is said below a table and on
//! standard error beside jsonl and csv. [`status`], [`edges`] and [`diff`] judge besides, [`follow`] goes on.

pub mod diff;
pub mod edges;
pub mod follow;
pub mod query;
pub mod status;

use crate::args::{Output, PrintArgs, ReadArgs, ServerArgs};
use crate::client::{Client, ClientError, Connection};
use crate::exit::{Failure, Verdict};
use crate::show::point::pointed;
use crate::show::rows::{Row, Style};
use crate::show::table::Table;
use crate::show::terminal::{Paint, Surface};
use crate::show::{complete, csv, progress, text};
use hyper::body::Bytes;
use jiff::tz::TimeZone;
use query::Query;
use serde_json::value::RawValue;
use std::io::Write;
use weir_wire::api::{Answer, Completeness};
use weir_wire::filter::{Filter, Scope};

/// One reading command: which rows, and what to say when there are none.
#[derive(Debug)]
pub struct Question {
    /// The command's name, the last part of the API's path.
    pub command: &'static str,
    /// The API's parameters.
    pub query: Query,
}

/// Asks and prints.
///
/// # Errors
/// [`Failure`]: the server cannot be reached, refuses, or is none of ours; the answer cannot be written.
pub async fn run<R: Row>(read: &ReadArgs, question: &Question) -> Result<Verdict, Failure> {
    let client = client(&read.server)?;
    let body = ask(&client, question).await?;
    print::<R>(&body, &read.print, question, &client)?;
    Ok(Verdict::Done)
}

/// The client that the flags name.
///
/// # Errors
/// [`Failure::Usage`] for an address that is none, or a token that cannot be read.
pub fn client(server: &ServerArgs) -> Result<Client, Failure> {
    let client = Client::to_url(&server.server).and_then(|client| client.with_token_file(server.token_file.as_deref()));
    let client = client.map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(client.within(server.timeout))
}

/// The body of the API's answer.
///
/// # Errors
/// [`Failure`], with how to mend it.
pub async fn ask(client: &Client, question: &Question) -> Result<Bytes, Failure> {
    ask_on(&mut None, client, question).await
}

/// As [`ask`], over the connection in `kept`.
///
/// # Errors
/// As [`ask`].
pub async fn ask_on(kept: &mut Option<Connection>, client: &Client, question: &Question) -> Result<Bytes, Failure> {
    question.check()?;
    let path = format!("/api/v1/{}", question.command);
    let asking = client.get_on(kept, &path, question.query.pairs());
    let body = progress::while_waiting(&format!("asking {} for {}", client.target(), question.command), asking).await;
    body.map_err(|error| match &error {
        ClientError::Refused { status: 400, message, position: Some(position), .. } => {
            let text = question.query.value(&position.parameter).unwrap_or_default();
            Failure::Usage(pointed(message, text, position.column as usize, &position.expected))
        }
        _ => explain(error, client),
    })
}

impl Question {
    /// Reads the filter as the server will: what is wrong with it is said without one.
    fn check(&self) -> Result<(), Failure> {
        // A series is of edges, and so is a difference.
        let of = if matches!(self.command, "series" | "diff") { Scope::Edges.as_str() } else { self.command };
        let scope = Scope::ALL.into_iter().find(|scope| scope.as_str() == of);
        let (Some(text), Some(scope)) = (self.query.value("filter"), scope) else { return Ok(()) };
        Filter::parse(scope, text)
            .map(drop)
            .map_err(|error| Failure::Usage(pointed(&error.to_string(), text, error.column, &error.expected)))
    }
}

/// A client's error as a person can use it.
pub fn explain(error: ClientError, client: &Client) -> Failure {
    match error {
        ClientError::Refused { status: 400, message, .. } => Failure::Usage(message),
        ClientError::Refused { status: 404, ref target, .. } => Failure::Failed(anyhow::anyhow!(
            "{target} does not know this question: it is no weir server, or one of another version"
        )),
        ClientError::Timeout { .. } => Failure::Failed(anyhow::anyhow!(
            "{error}; ask for less (--since, --limit, a filter), wait for longer with --timeout, or see whether the server \
             is well (`weir doctor`)"
        )),
        ClientError::Unreachable { .. } => Failure::Failed(anyhow::anyhow!(
            "{error}; start a server here with `sudo weir up`, or name another with --server URL (`weir doctor` looks \
             further)"
        )),
        ClientError::Url { .. } | ClientError::Token { .. } => Failure::Usage(error.to_string()),
        ClientError::Broken { .. } => {
            Failure::Failed(anyhow::anyhow!("{error}; is {} a weir server?", client.target()))
        }
        ClientError::TooLarge { .. } | ClientError::Refused { .. } => Failure::Failed(anyhow::Error::new(error)),
    }
}

/// Reads an answer.
///
/// # Errors
/// When it is none.
pub fn parse<'a, T: serde::Deserialize<'a>>(body: &'a [u8], client: &Client) -> Result<Answer<T>, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::Failed(anyhow::anyhow!(
            "the answer of {} is not what a weir server says: {error}; check --server URL",
            client.target()
        ))
    })
}

fn print<R: Row>(body: &[u8], how: &PrintArgs, question: &Question, client: &Client) -> Result<(), Failure> {
    let surface = Surface::stdout(how.color);
    let zone = TimeZone::system();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match how.output {
        Output::Json => {
            let _: Answer<&RawValue> = parse(body, client)?;
            print_json(body, &surface, &mut out)?;
        }
        Output::Jsonl => {
            let answer: Answer<&RawValue> = parse(body, client)?;
            for item in &answer.items {
                print_item(item, &surface, &mut out)?;
            }
            out.flush()?;
            tell(&answer.completeness, how, &zone);
        }
        Output::Csv => {
            let answer: Answer<R> = parse(body, client)?;
            out.write_all(csv::header(&R::names()).as_bytes())?;
            for row in &answer.items {
                for line in row.lines() {
                    out.write_all(csv::line(&line).as_bytes())?;
                }
            }
            out.flush()?;
            tell(&answer.completeness, how, &zone);
        }
        Output::Table => {
            let answer: Answer<R> = parse(body, client)?;
            let Completeness { to: reference, steps, .. } = answer.completeness.clone();
            let style = Style { exact: how.exact, reference, zone, steps };
            if answer.items.is_empty() {
                writeln!(out, "{}", surface.paint(Paint::Dim, &nothing(&answer.completeness, question)))?;
            } else {
                out.write_all(table(&answer.items, &style).render(&surface).as_bytes())?;
            }
            writeln!(out, "{}", complete::painted(&answer.completeness, &style.zone, &surface))?;
        }
    }
    out.flush()?;
    Ok(())
}

/// The rows as a table.
pub fn table<R: Row>(rows: &[R], style: &Style) -> Table {
    let mut table = Table::new(R::COLUMNS);
    for row in rows {
        table.push(row.cells(style));
    }
    table.without_empty_columns()
}

/// The API's body as it came; on a terminal with dangerous characters as JSON escapes, which is the same JSON.
pub fn print_json(body: &[u8], surface: &Surface, out: &mut impl Write) -> Result<(), Failure> {
    if surface.is_terminal {
        out.write_all(text::escape_json(&String::from_utf8_lossy(body)).as_bytes())?;
    } else {
        out.write_all(body)?;
    }
    if !body.ends_with(b"\n") {
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// One item in one line: line ends can only stand between tokens, where they mean nothing.
pub fn print_item(item: &RawValue, surface: &Surface, out: &mut impl Write) -> Result<(), Failure> {
    let mut line = item.get().replace(['\n', '\r'], "");
    if surface.is_terminal {
        line = text::escape_json(&line).into_owned();
    }
    line.push('\n');
    out.write_all(line.as_bytes())?;
    Ok(())
}

/// Completeness beside rows that a program reads.
pub fn tell(completeness: &Completeness, how: &PrintArgs, zone: &TimeZone) {
    let surface = Surface::stderr(how.color);
    // Nobody may be listening there.
    let _ = writeln!(std::io::stderr(), "{}", complete::painted(completeness, zone, &surface));
}

/// What to say instead of rows, and what to try.
fn nothing(completeness: &Completeness, question: &Question) -> String {
    let hint = if completeness.nodes.is_empty() {
        "no agent has delivered anything yet; `weir doctor` says what is missing"
    } else if question.command == "diff" {
        "nothing changed beyond what chance explains"
    } else if question.query.value("unhealthy").is_some() {
        "no edge is unhealthy"
    } else if question.query.is_narrowed() {
        "nothing matches; try fewer filters or a longer --since"
    } else {
        "nothing moved in this span; try a longer --since"
    };
    format!("(no rows) {hint}")
}
