//! The token that readers and agents must show, and the rule that nobody beyond this machine is let in unasked.

pub(crate) mod agents;

use anyhow::Context as _;
use std::net::SocketAddr;
use std::path::Path;

/// A bearer token.
pub(crate) struct Token(String);

impl Token {
    /// Reads it from its file; blanks around it do not count.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("failed to read token file {}", path.display()))?;
        let token = text.trim();
        anyhow::ensure!(
            token.len() >= 16 && token.chars().all(|letter| letter.is_ascii_graphic()),
            "token file {} must hold at least 16 printable characters; make one with `openssl rand -hex 32`",
            path.display()
        );
        Ok(Self(token.to_owned()))
    }

    /// Whether an `Authorization` header's value carries it. Takes the same time wherever the first difference lies.
    pub(crate) fn accepts(&self, header: Option<&str>) -> bool {
        let Some(given) = header.and_then(|value| value.strip_prefix("Bearer ")) else { return false };
        let (given, wanted) = (given.trim().as_bytes(), self.0.as_bytes());
        let differences = given.iter().zip(wanted).fold(0, |differences, (a, b)| differences | (a ^ b));
        given.len() == wanted.len() && differences == 0
    }
}

/// Refuses a listener that others can reach when nothing guards it and nobody said that nothing shall. `mend` names the
/// flags that do.
pub(crate) fn check_listener(flag: &str, address: SocketAddr, guard: Guard, mend: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        address.ip().is_loopback() || guard != Guard::Missing,
        "--{flag} {address} can be reached from other machines; give {mend}, or --insecure if everyone there may read and \
         write, or listen on 127.0.0.1"
    );
    Ok(())
}

/// What guards a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Whoever comes must prove who he is.
    Proof,
    /// The user said that none is wanted.
    Insecure,
    /// Nothing.
    Missing,
}

impl Guard {
    /// By whether a proof is asked for, and whether the user said that none is wanted.
    pub(crate) fn of(asks_for_proof: bool, insecure: bool) -> Self {
        match (asks_for_proof, insecure) {
            (true, _) => Self::Proof,
            (false, true) => Self::Insecure,
            (false, false) => Self::Missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_accepted() {
        let token = Token("0123456789abcdef".into());
        assert!(token.accepts(Some("Bearer 0123456789abcdef")));
        for wrong in [
            None,
            Some(""),
            Some("Bearer "),
            Some("Bearer 0123456789abcde"),
            Some("Bearer 0123456789abcdeg"),
            Some("0123456789abcdef"),
        ] {
            assert!(!token.accepts(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_listener_beyond_loopback_needs_a_proof_or_the_explicit_word() {
        let beyond = "0.0.0.0:1".parse().unwrap();
        let check = |address, guard| check_listener("listen", address, guard, "--token-file FILE");
        assert!(check(beyond, Guard::of(false, false)).unwrap_err().to_string().contains("--token-file"));
        check(beyond, Guard::of(false, true)).unwrap();
        check(beyond, Guard::of(true, false)).unwrap();
        check("[::1]:1".parse().unwrap(), Guard::Missing).unwrap();
    }
}
