//! How a command ends: the documented exit codes, and the errors that lead to them.

use std::process::ExitCode;

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything asked for was done: 0.
    Done,
    /// Done, and something is unhealthy: 3.
    Unhealthy,
    /// Done, and something changed: 3.
    Changed,
    /// Ended by a second Ctrl-C: 130, as a shell has it.
    Interrupted,
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line asks for something that does not exist: 2.
    #[error("{0}")]
    Usage(String),
    /// Anything else: 1.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// Whoever reads our output has seen enough (`| head`): nothing to say, 0.
    #[error("the reader has gone")]
    ReaderGone,
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::ReaderGone
        } else {
            Self::Failed(anyhow::Error::new(error).context("failed to write the answer"))
        }
    }
}

/// Tells the failure on standard error and gives the exit code.
pub fn conclude(outcome: &Result<Verdict, Failure>) -> ExitCode {
    match outcome {
        Ok(Verdict::Done) | Err(Failure::ReaderGone) => ExitCode::SUCCESS,
        Ok(Verdict::Unhealthy | Verdict::Changed) => ExitCode::from(3),
        Ok(Verdict::Interrupted) => ExitCode::from(130),
        Err(failure) => {
            // A closed standard error leaves nobody to tell.
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("weir: {}\n", crate::show::text::escape_lines(&failure.to_string())),
            );
            ExitCode::from(if matches!(failure, Failure::Usage(_)) { 2 } else { 1 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_pipe_is_a_quiet_end() {
        let failure = Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(matches!(failure, Failure::ReaderGone));
        assert_eq!(conclude(&Err(failure)), ExitCode::SUCCESS);
    }
}
