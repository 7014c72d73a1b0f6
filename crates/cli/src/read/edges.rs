//! `weir edges`: who talks to whom and, where that is asked for, how well: then the exit code says whether an edge is
//! unhealthy, for pipelines and for whoever is called at night.

use super::query::Query;
use super::{Question, ask, client, parse, print};
use crate::args::EdgesCommandArgs;
use crate::exit::{Failure, Verdict};
use weir_wire::api::{Answer, Edge};

/// Asks, prints and judges.
///
/// # Errors
/// As [`super::run`].
pub async fn run(args: &EdgesCommandArgs) -> Result<Verdict, Failure> {
    let read = &args.edges.read;
    let question = Question { command: "edges", query: Query::from(args) };
    let client = client(&read.server)?;
    let body = ask(&client, &question).await?;
    print::<Edge>(&body, &read.print, &question, &client)?;
    if !(args.health || args.unhealthy) {
        return Ok(Verdict::Done);
    }
    let answer: Answer<Edge> = parse(&body, &client)?;
    let is_unhealthy = |edge: &Edge| edge.health.as_ref().is_some_and(|health| health.verdict == "unhealthy");
    Ok(if answer.items.iter().any(is_unhealthy) { Verdict::Unhealthy } else { Verdict::Done })
}
