//! What a weir server answers, through the command line as a person asks.

use crate::process::binary;
use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use std::process::{Command, Output};
use weir_wire::api::{Answer, Edge, StatusRow, Transaction};

/// A server's answers.
#[derive(Clone, Debug)]
pub struct Answers {
    http: String,
}

impl Answers {
    /// Those of the server that listens at `http` (`127.0.0.1:7780`).
    pub fn of(http: &str) -> Self {
        Self { http: http.to_owned() }
    }

    /// The server's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// How many nodes have reported.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn nodes_reporting(&self) -> Result<usize> {
        Ok(self.status()?.items.iter().filter(|row| row.kind == "node" && row.last_seen.is_some()).count())
    }

    /// Runs a `weir` command against this server and gives its output.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn weir(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary("weir")?);
        // A debug build on a busy machine takes its time for tens of thousands of rows.
        command.args(args).args(["--server", &self.url(), "--timeout", "2m"]);
        Ok(command.output()?)
    }

    /// A reading command's answer.
    ///
    /// # Errors
    /// When the command fails or prints something else.
    pub fn answer<T: DeserializeOwned>(&self, args: &[&str]) -> Result<Answer<T>> {
        let mut all = args.to_vec();
        all.extend(["-o", "json"]);
        let output = self.weir(&all)?;
        if !matches!(output.status.code(), Some(0 | 3)) {
            bail!("weir {} failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("weir {} printed no answer", args.join(" ")))
    }

    /// Every stored transaction.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn transactions(&self) -> Result<Vec<Transaction>> {
        let answer: Answer<Transaction> = self.answer(&["transactions", "--limit", "1000000"])?;
        Ok(answer.items)
    }

    /// Every edge of the last hour, one for each client and server address.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn edges(&self) -> Result<Vec<Edge>> {
        self.edges_by("address")
    }

    /// Every edge under a grouping.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn edges_by(&self, by: &str) -> Result<Vec<Edge>> {
        let answer: Answer<Edge> = self.answer(&["edges", "--by", by, "--since", "1h", "--limit", "1000000"])?;
        Ok(answer.items)
    }

    /// The status answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn status(&self) -> Result<Answer<StatusRow>> {
        self.answer(&["status"])
    }

    /// The node's row of the status answer.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self) -> Result<StatusRow> {
        self.status()?.items.into_iter().find(|row| row.kind == "node").context("no node has reported")
    }
}
