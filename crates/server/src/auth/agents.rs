//! Who may deliver: nobody is asked, whoever has the token, or an agent that its ServiceAccount's token vouches for.
//!
//! In the last way the API server reviews the token (TokenReview): it must be meant for this server (its audience), be one
//! of the expected ServiceAccounts', and be of a pod on the node that the agent says it is on. What it says is kept
//! briefly: agents that come back together cost few reviews, and one that was removed stays out. A session that is in
//! stays in, whatever becomes of the API server; a new one waits for it, and is told so.

use super::Token;
use crate::counts::Counts;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::Status;
use weir_daemon::clock::Clock;
use weir_discovery::kubernetes::reviews::{Holder, Reviewed, Reviewer};

/// How long a good token is not reviewed again: so long a removed agent that comes back is let in.
const GOOD_NS: u64 = 60_000_000_000;
/// How long a bad one is not: an agent asks again every few seconds.
const BAD_NS: u64 = 10_000_000_000;
/// Tokens that are remembered, at up to 2 KB each: 5,000 nodes' and as many replaced ones.
const REMEMBERED_MAX: usize = 10_000;
/// Reviews under way at once: 5,000 agents that come back together are through in seconds, and no burden.
const REVIEWS_AT_ONCE: usize = 16;
/// How long a review may take, waiting included.
const REVIEW: Duration = Duration::from_secs(10);
/// A longer token is none: a projected one has some 1.2 KB.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// How agents are let in.
pub(crate) enum Gate {
    /// Everyone is.
    Open,
    /// Whoever has it.
    Token(Arc<Token>),
    /// By the API server's word.
    ServiceAccounts(Box<ServiceAccounts>),
}

/// An agent that was let in, and for which node it may speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    node: Option<String>,
}

impl Admitted {
    /// Whether it may say that it is on `node`; else why not.
    pub(crate) fn may_speak_for(&self, node: &str) -> Result<(), String> {
        match &self.node {
            Some(own) if own != node => Err(format!(
                "the token is of a pod on node {own}, but the agent says it is on {node}; give weir-agent --node the \
                 node's own name (spec.nodeName)"
            )),
            _ => Ok(()),
        }
    }
}

impl Gate {
    /// Lets a call in by its `authorization`.
    pub(crate) async fn admit(&self, header: Option<&str>, counts: &Counts) -> Result<Admitted, Status> {
        let admitted = match self {
            Self::Open => Ok(Admitted { node: None }),
            Self::Token(token) if token.accepts(header) => Ok(Admitted { node: None }),
            Self::Token(_) => Err(Status::unauthenticated("this server wants the token that --token-file names")),
            Self::ServiceAccounts(accounts) => accounts.admit(header, counts).await,
        };
        if admitted.as_ref().is_err_and(|status| status.code() != tonic::Code::Unavailable) {
            counts.unauthorized.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }
}

/// What a ServiceAccount's token must be.
#[derive(Debug)]
pub(crate) struct Expected {
    /// For whom it must be meant.
    pub(crate) audience: String,
    /// `NAMESPACE/NAME` each.
    pub(crate) accounts: BTreeSet<String>,
    /// Whether one is good that does not say its node.
    pub(crate) any_node: bool,
}

impl Expected {
    /// Judges what the API server says of a token.
    fn judge(&self, reviewed: Reviewed) -> Result<Admitted, Refused> {
        let Holder { service_account, user, node } = match reviewed {
            Reviewed::Known(holder) => holder,
            Reviewed::Unknown(why) => {
                let text = format!(
                    "the API server does not accept the agent's token: {why}; it must be its ServiceAccount's, projected \
                     for the audience {}, in the file that weir-agent --token-file names",
                    self.audience
                );
                return Err(Refused::Unknown(text));
            }
        };
        if !service_account.is_some_and(|account| self.accounts.contains(&account)) {
            let accounts = self.accounts.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let text = format!(
                "the token is {user}'s, but only the ServiceAccount {accounts} may deliver; weir server \
                 --agents-service-account NAMESPACE/NAME names another"
            );
            return Err(Refused::NotAllowed(text));
        }
        if node.is_none() && !self.any_node {
            let text = "the cluster does not say which node the token is for (Kubernetes does from 1.30 on); weir server \
                        --agents-any-node lets its agents in all the same, and then one node can speak for another";
            return Err(Refused::NotAllowed(text.to_owned()));
        }
        Ok(Admitted { node })
    }
}

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refused {
    Unknown(String),
    NotAllowed(String),
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unknown(text) => Self::unauthenticated(text),
            Refused::NotAllowed(text) => Self::permission_denied(text),
        }
    }
}

/// Asks the API server, and remembers.
pub(crate) struct ServiceAccounts {
    reviewer: Reviewer,
    expected: Expected,
    clock: Arc<dyn Clock>,
    reviews: Semaphore,
    /// By token.
    remembered: Mutex<HashMap<String, Remembered>>,
}

#[derive(Clone, Debug)]
struct Remembered {
    /// On the monotonic clock.
    until: u64,
    judged: Result<Admitted, Refused>,
}

impl ServiceAccounts {
    pub(crate) fn new(reviewer: Reviewer, expected: Expected, clock: Arc<dyn Clock>) -> Self {
        Self { reviewer, expected, clock, reviews: Semaphore::new(REVIEWS_AT_ONCE), remembered: Mutex::default() }
    }

    async fn admit(&self, header: Option<&str>, counts: &Counts) -> Result<Admitted, Status> {
        let token = header.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim).unwrap_or_default();
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Err(Status::unauthenticated(format!(
                "this server wants the agent's ServiceAccount token, projected for the audience {}; give weir-agent \
                 --token-file FILE",
                self.expected.audience
            )));
        }
        if let Some(known) = self.recall(token) {
            return Ok(known?);
        }
        let reviewed = tokio::time::timeout(REVIEW, async {
            let _permit = self.reviews.acquire().await;
            // Whoever had the permit before may have asked for this token.
            if let Some(known) = self.recall(token) {
                return Ok(known);
            }
            counts.token_reviews.fetch_add(1, Ordering::Relaxed);
            let reviewed = self.reviewer.review(token, &self.expected.audience).await?;
            let judged = self.expected.judge(reviewed);
            self.remember(token, judged.clone());
            Ok::<_, weir_discovery::kubernetes::reviews::ReviewError>(judged)
        });
        let failed = match reviewed.await {
            Ok(Ok(judged)) => return Ok(judged?),
            Ok(Err(error)) => format!("failed to {error}"),
            Err(_elapsed) => format!("the API server did not review the token within {REVIEW:?}"),
        };
        counts.token_review_failures.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(failed, "an agent waits: its token cannot be reviewed");
        Err(Status::unavailable(format!("{failed}; the agent is let in as soon as the API server can be asked")))
    }

    fn recall(&self, token: &str) -> Option<Result<Admitted, Refused>> {
        let now = self.clock.monotonic().0;
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(token).filter(|known| now < known.until).map(|known| known.judged.clone())
    }

    fn remember(&self, token: &str, judged: Result<Admitted, Refused>) {
        let now = self.clock.monotonic().0;
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, known| now < known.until);
        }
        if remembered.len() >= REMEMBERED_MAX {
            // Somebody tries tokens: reviews are repeated, memory is not spent.
            remembered.clear();
        }
        let until = now + if judged.is_ok() { GOOD_NS } else { BAD_NS };
        remembered.insert(token.to_owned(), Remembered { until, judged });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(any_node: bool) -> Expected {
        Expected { audience: "weir".into(), accounts: ["weir/weir-agent".to_owned()].into(), any_node }
    }

    fn known(account: &str, node: Option<&str>) -> Reviewed {
        Reviewed::Known(Holder {
            service_account: Some(account.into()),
            user: format!("system:serviceaccount:{}", account.replace('/', ":")),
            node: node.map(ToOwned::to_owned),
        })
    }

    #[test]
    fn only_the_expected_account_is_let_in_and_only_for_its_own_node() {
        let admitted = expected(false).judge(known("weir/weir-agent", Some("n1"))).unwrap();
        admitted.may_speak_for("n1").unwrap();
        assert!(admitted.may_speak_for("n2").unwrap_err().contains("on node n1"));
        let Err(Refused::NotAllowed(text)) = expected(true).judge(known("weir/other", Some("n1"))) else { panic!() };
        assert!(text.contains("weir/weir-agent") && text.contains("--agents-service-account"), "{text}");
        let person = Reviewed::Known(Holder { service_account: None, user: "jane".into(), node: None });
        assert!(matches!(expected(true).judge(person), Err(Refused::NotAllowed(_))));
    }

    #[test]
    fn a_cluster_that_tells_no_node_is_refused_unless_the_flag_says_otherwise() {
        let Err(Refused::NotAllowed(text)) = expected(false).judge(known("weir/weir-agent", None)) else { panic!() };
        assert!(text.contains("--agents-any-node"), "{text}");
        expected(true).judge(known("weir/weir-agent", None)).unwrap().may_speak_for("anything").unwrap();
        // Where the node is told it binds, flag or not.
        let bound = expected(true).judge(known("weir/weir-agent", Some("n1"))).unwrap();
        bound.may_speak_for("n2").unwrap_err();
    }
}
