//! `weir diff`: what is different between two spans; the exit code says whether anything is.

use super::query::Query;
use super::{Question, ask, client, parse, print};
use crate::args::DiffArgs;
use crate::exit::{Failure, Verdict};
use weir_wire::api::{Answer, Change};

/// Asks, prints and judges.
///
/// # Errors
/// As [`super::run`].
pub async fn run(args: &DiffArgs) -> Result<Verdict, Failure> {
    let question = Question { command: "diff", query: Query::from(args) };
    let client = client(&args.read.server)?;
    let body = ask(&client, &question).await?;
    print::<Change>(&body, &args.read.print, &question, &client)?;
    let answer: Answer<Change> = parse(&body, &client)?;
    Ok(if answer.items.is_empty() { Verdict::Done } else { Verdict::Changed })
}
