//! The promise: an agent delivers for its own node and for no other, by its ServiceAccount's token.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use clap::Parser as _;
use std::sync::Arc;
use support::{Session, TestAgent, TestServer, clock};
use tonic::Code;
use weir_server::Args;
use weir_testkit::cluster::kubernetes::faults::Fault;
use weir_testkit::cluster::kubernetes::{ApiServer, Identity, Tls};
use weir_wire::agent::server_message::Message as ToAgent;

/// Starts a server that asks `api` about tokens.
async fn start(api: &ApiServer, more: &[&str]) -> TestServer {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let token = folder.path().join("api-token");
    std::fs::write(&token, api.token()).unwrap();
    let url = api.url();
    let fixed =
        ["--agents-auth", "service-account", "--kubernetes", &url, "--kubernetes-token-file", token.to_str().unwrap()];
    let all: Vec<&str> = fixed.iter().chain(more).copied().collect();
    TestServer::start_in(Arc::clone(&folder), clock(), &all).await
}

async fn refused(server: &TestServer, agent: &TestAgent, token: &str) -> (Code, String) {
    match Session::open_with(server, agent.hello(), Some(token)).await {
        Ok(_) => panic!("{token} was let in"),
        Err(status) => (status.code(), status.message().to_owned()),
    }
}

fn reviews(api: &ApiServer) -> usize {
    api.seen().iter().filter(|seen| seen.resource == "tokenreviews").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_let_in_by_its_service_account_and_for_its_own_node_only() {
    let api = ApiServer::start(Tls::Off).unwrap();
    let good = Identity::of_agent("n1");
    api.admit("good", good.clone());
    api.admit("expired", Identity { expired: true, ..good.clone() });
    api.admit(
        "for-the-api-server",
        Identity { audiences: vec!["https://kubernetes.default.svc".into()], ..good.clone() },
    );
    api.admit("other", Identity { username: "system:serviceaccount:shop:web".into(), ..good.clone() });
    api.admit("nowhere", Identity { node: None, ..good });
    let server = start(&api, &[]).await;
    let mut agent = TestAgent::new("n1", 1);
    for (token, code, words) in [
        ("unknown", Code::Unauthenticated, "invalid bearer token"),
        ("expired", Code::Unauthenticated, "expired"),
        ("for-the-api-server", Code::Unauthenticated, "audience weir"),
        ("other", Code::PermissionDenied, "only the ServiceAccount weir/weir-agent may deliver"),
        ("nowhere", Code::PermissionDenied, "--agents-any-node"),
        ("", Code::Unauthenticated, "--token-file"),
    ] {
        let (given, text) = refused(&server, &agent, token).await;
        assert!(given == code && text.contains(words), "{token}: {given:?} {text}");
    }
    let (code, text) = refused(&server, &TestAgent::new("n2", 2), "good").await;
    assert!(code == Code::PermissionDenied && text.contains("on node n1"), "{text}");

    let mut session = Session::open_with(&server, agent.hello(), Some("good")).await.unwrap();
    assert!(session.welcome.is_some());
    let batch = agent.batch(Vec::new());
    session.deliver(&batch).await;
    let (_, status) = server.get("/api/v1/status").await;
    let counters = &status["items"].as_array().unwrap().iter().find(|row| row["kind"] == "server").unwrap()["counters"];
    assert_eq!(counters["unauthorized"], 7, "{counters}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_for_another_node_is_refused_and_not_acknowledged() {
    let api = ApiServer::start(Tls::Off).unwrap();
    api.admit("good", Identity::of_agent("n1"));
    let server = start(&api, &[]).await;
    let mut agent = TestAgent::new("n1", 1);
    let mut session = Session::open_with(&server, agent.hello(), Some("good")).await.unwrap();
    agent.node = "n2".into();
    let batch = agent.batch(Vec::new());
    let status = session.send_to_be_refused(&batch).await;
    assert!(status.code() == Code::PermissionDenied && status.message().contains("n2"), "{status:?}");
    assert_eq!(server.items("/api/v1/status").await.iter().filter(|row| row["kind"] == "node").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_is_remembered_for_a_minute_and_a_refusal_for_seconds() {
    let api = ApiServer::start(Tls::Off).unwrap();
    let server = start(&api, &[]).await;
    let agent = TestAgent::new("n1", 1);
    for _ in 0..5 {
        refused(&server, &agent, "good").await;
    }
    assert_eq!(reviews(&api), 1, "a refused agent that comes every few seconds costs nothing");
    api.admit("good", Identity::of_agent("n1"));
    server.clock.advance(11_000_000_000);
    for number in 1..6 {
        Session::open_with(&server, TestAgent::new("n1", number).hello(), Some("good")).await.unwrap();
    }
    assert_eq!(reviews(&api), 2);
    server.clock.advance(61_000_000_000);
    Session::open_with(&server, TestAgent::new("n1", 9).hello(), Some("good")).await.unwrap();
    assert_eq!(reviews(&api), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_server_those_who_are_in_stay_and_new_ones_wait_and_are_told() {
    let mut api = ApiServer::start(Tls::Off).unwrap();
    api.admit("one", Identity::of_agent("n1"));
    api.admit("two", Identity::of_agent("n2"));
    let server = start(&api, &[]).await;
    let mut first = TestAgent::new("n1", 1);
    let mut session = Session::open_with(&server, first.hello(), Some("one")).await.unwrap();
    api.stop();
    let batch = first.batch(Vec::new());
    session.deliver(&batch).await;
    let second = TestAgent::new("n2", 2);
    let (code, text) = refused(&server, &second, "two").await;
    assert!(code == Code::Unavailable && text.contains("as soon as the API server can be asked"), "{text}");
    server.clock.advance(120_000_000_000);
    let batch = first.batch(Vec::new());
    session.deliver(&batch).await;
    api.start_again().unwrap();
    assert!(Session::open_with(&server, second.hello(), Some("two")).await.unwrap().welcome.is_some());
    // Where the server itself lacks the right, its words say which.
    api.fault("tokenreviews", false, Fault::Refuse, 0, 1);
    let (code, text) = refused(&server, &TestAgent::new("n3", 3), "three").await;
    assert!(code == Code::Unavailable && text.contains(r#"resources: ["tokenreviews"]"#), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_accounts_audiences_and_old_clusters_are_let_in_by_their_flags() {
    let api = ApiServer::start(Tls::On).unwrap();
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), api.ca().unwrap()).unwrap();
    let identity = Identity {
        username: "system:serviceaccount:monitoring:agent".into(),
        audiences: vec!["flows".into()],
        node: None,
        expired: false,
    };
    api.admit("old", identity);
    let more = [
        "--kubernetes-ca",
        ca.path().to_str().unwrap(),
        "--agents-audience",
        "flows",
        "--agents-service-account",
        "monitoring/agent",
        "--agents-any-node",
    ];
    let server = start(&api, &more).await;
    let session = Session::open_with(&server, TestAgent::new("n1", 1).hello(), Some("old")).await.unwrap();
    assert!(matches!(session.first, Some(ToAgent::Welcome(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_listener_beyond_loopback_needs_its_own_guard() {
    let api = ApiServer::start(Tls::Off).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let url = api.url();
    let data = folder.path().to_str().unwrap();
    let start = |listen: &str, agents: &str, more: &[&str]| {
        let fixed = ["weir-server", "--data", data, "--listen", listen, "--agents-listen", agents];
        let args = Args::parse_from(fixed.iter().chain(more));
        async move { weir_server::Server::start(args, clock(), tokio_util::sync::CancellationToken::new()).await }
    };
    let (here, beyond) = ("127.0.0.1:0", "0.0.0.0:0");
    let words = |error: Result<weir_server::Server, anyhow::Error>| match error {
        Ok(_) => panic!("it starts"),
        Err(error) => format!("{error:#}"),
    };
    let open = words(start(here, beyond, &[]).await);
    assert!(open.contains("--agents-listen") && open.contains("--agents-auth service-account"), "{open}");
    let account = ["--agents-auth", "service-account", "--kubernetes", &url];
    let open = words(start(beyond, beyond, &account).await);
    assert!(open.contains("--listen 0.0.0.0:0") && open.contains("--token-file"), "{open}");
    let nowhere = words(start(here, here, &["--agents-auth", "service-account", "--kubernetes", "off"]).await);
    assert!(nowhere.contains("--kubernetes URL"), "{nowhere}");
    let clear = words(start(here, here, &["--kubernetes", "http://192.0.2.1:6443"]).await);
    assert!(clear.contains("in the clear"), "{clear}");
    start(here, beyond, &account).await.unwrap();
}
