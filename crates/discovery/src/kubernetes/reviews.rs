//! Whose token is this? The API server says it (TokenReview, `authentication.k8s.io/v1`).

use super::client::path;
use super::watch::causes;
use crate::permissions::TOKEN_REVIEWS;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::Client;

/// The extra field in which an API server from 1.29 on tells the node of a pod whose token is bound to it
/// (KEP-4193: alpha in 1.29, on by default from 1.30, for every projected token from then on).
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// What a ServiceAccount's user name begins with.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// What the API server says of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reviewed {
    /// It is good, for the audience that was asked for.
    Known(Holder),
    /// It is not: expired, of another cluster, of another audience. In the API server's words.
    Unknown(String),
}

/// Who holds a good token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// `NAMESPACE/NAME` of its ServiceAccount; `None` when it is somebody else's.
    pub service_account: Option<String>,
    /// The user as the API server names it.
    pub user: String,
    /// The node of the pod that the token was made for; `None` when the cluster does not tell.
    pub node: Option<String>,
}

/// Why a token could not be reviewed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("review a token: {detail}")]
pub struct ReviewError {
    /// What failed and how to mend it.
    pub detail: String,
}

/// Asks an API server.
#[derive(Clone)]
pub struct Reviewer(Client);

impl Reviewer {
    /// Asks by `client`.
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    /// Asks about a token that must be meant for `audience`.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn review(&self, token: &str, audience: &str) -> Result<Reviewed, ReviewError> {
        review(&self.0, token, audience).await
    }
}

async fn review(client: &Client, token: &str, audience: &str) -> Result<Reviewed, ReviewError> {
    let review = TokenReview {
        spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![audience.to_owned()]) },
        ..TokenReview::default()
    };
    let failed = |detail: String| ReviewError { detail };
    let body = serde_json::to_vec(&review).map_err(|error| failed(error.to_string()))?;
    let request = http::Request::post(path(&TOKEN_REVIEWS))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(|error| failed(error.to_string()))?;
    match client.request::<TokenReview>(request).await {
        Ok(answer) => Ok(read(answer, audience)),
        Err(kube::Error::Api(status)) => {
            let mend = if status.code == 403 { format!("; {}", TOKEN_REVIEWS.missing_rule()) } else { String::new() };
            Err(failed(format!("the API server answers {}: {}{mend}", status.code, status.message)))
        }
        Err(error) => Err(failed(causes(&error))),
    }
}

/// What an answer says. An API server that does not look at audiences names none: the token may be meant for anybody.
fn read(answer: TokenReview, audience: &str) -> Reviewed {
    let status = answer.status.unwrap_or_default();
    if status.authenticated != Some(true) {
        return Reviewed::Unknown(status.error.filter(|error| !error.is_empty()).unwrap_or_else(|| {
            format!("the API server does not know it, or it is expired, or it is not for the audience {audience}")
        }));
    }
    if !status.audiences.iter().flatten().any(|one| one == audience) {
        return Reviewed::Unknown(format!("it is not for the audience {audience}"));
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let node = user.extra.as_ref().and_then(|extra| extra.get(NODE_NAME)).and_then(|names| names.first());
    Reviewed::Known(Holder {
        service_account: name.strip_prefix(SERVICE_ACCOUNT).map(|name| name.replacen(':', "/", 1)),
        node: node.filter(|node| !node.is_empty()).cloned(),
        user: name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read_status(status: &Value) -> Reviewed {
        read(serde_json::from_value(json!({"metadata": {}, "spec": {"token": "x"}, "status": status})).unwrap(), "weir")
    }

    #[test]
    fn a_good_token_tells_its_service_account_and_its_node() {
        let user = json!({
            "username": "system:serviceaccount:weir:weir-agent", "uid": "1", "groups": ["system:serviceaccounts"],
            "extra": {NODE_NAME: ["node1"], "authentication.kubernetes.io/pod-name": ["weir-agent-x"]},
        });
        let known = read_status(&json!({"authenticated": true, "audiences": ["weir"], "user": user}));
        let expected = Holder {
            service_account: Some("weir/weir-agent".into()),
            user: "system:serviceaccount:weir:weir-agent".into(),
            node: Some("node1".into()),
        };
        assert_eq!(known, Reviewed::Known(expected));
        let person = json!({"authenticated": true, "audiences": ["weir"], "user": {"username": "jane"}});
        let Reviewed::Known(person) = read_status(&person) else { panic!("it is good") };
        assert_eq!((person.service_account, person.node), (None, None));
    }

    #[test]
    fn a_token_for_somebody_else_is_not_good_here() {
        let user = json!({"username": "system:serviceaccount:weir:weir-agent"});
        for status in [
            json!({"authenticated": true, "audiences": ["https://kubernetes.default.svc"], "user": user}),
            json!({"authenticated": true, "user": user}),
            json!({"authenticated": false}),
            json!({}),
        ] {
            let Reviewed::Unknown(why) = read_status(&status) else { panic!("{status}") };
            assert!(why.contains("weir"), "{why}");
        }
        let Reviewed::Unknown(why) = read_status(&json!({"error": "token has expired"})) else { panic!() };
        assert_eq!(why, "token has expired");
    }
}
