//! A running demo, and what is asked of it: by the commands that a person types.

use crate::answers::Answers;
use crate::process::{Process, binary, until};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::process::Command;
use std::time::Duration;

/// A demo comes up, and goes, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The process of a demo.
#[derive(Debug)]
pub struct Demo {
    process: Process,
    /// Its server's answers.
    pub answers: Answers,
    address: String,
}

impl Demo {
    /// Starts one on a free port and waits until every workload of it is in an edge.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start() -> Result<Self> {
        let mut command = Command::new(binary("weir-demo")?);
        command.args(["--listen", "127.0.0.1:0"]);
        let process = Process::spawn(command)?;
        let look = loop {
            let line = process.line(PATIENCE)?;
            if line.starts_with("Look:") {
                break line;
            }
        };
        let (_, address) = look.split_once("http://").context("the page's address")?;
        let address = address.trim().to_owned();
        let demo = Self { process, answers: Answers::of(&address), address };
        until(PATIENCE, || {
            let edges = demo.answers.edges_by("workload")?;
            let is_there = |name: &str| edges.iter().any(|edge| edge.client.name == name || edge.server.name == name);
            Ok(["mail", "report", "cart", "dns", "scraper"].into_iter().all(is_there))
        })
        .context("not every workload talks")?;
        Ok(demo)
    }

    /// Where its page is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What `weir-demo ARGS` prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn tell(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(binary("weir-demo")?).args(["--listen", &self.address]).args(args).output()?;
        ensure!(
            output.status.success(),
            "weir-demo {} failed: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What `weir ARGS` prints and its exit code; a code beyond 0 and 3 (something was found) is an error.
    ///
    /// # Errors
    /// When it fails.
    pub fn weir(&self, args: &[&str]) -> Result<(String, i32)> {
        let output = self.answers.weir(args)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(code @ (0 | 3)) => Ok((text, code)),
            _ => bail!("weir {} failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// Ends it and waits.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::SIGINT)?;
        ensure!(self.process.wait(PATIENCE)?.success(), "the demo did not end well");
        Ok(())
    }
}
