//! Promise: who says that an answer may be old is told how old it is, and gets what everybody gets; who does not say so gets
//! one made anew.

#[cfg(test)]
mod support;

use support::*;

const MAY_BE_OLD: &str = "cache-control: max-age=10\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_an_old_answer_is_told_its_age_and_gets_the_same_rows() {
    let server = TestServer::start().await;
    let mut agent = TestAgent::new("a", 1);
    let mut session = agent.connect(&server).await;
    let batch = agent.batch(both_views(1, 40_000, 700, 30, START + POLL));
    session.deliver(&batch).await;
    server.clock.advance(POLL.unsigned_abs());
    server.until("/api/v1/edges", |answer| !answer["items"].as_array().unwrap().is_empty()).await;
    for path in ["edges?by=namespace", "series", "connections", "dns"].map(|path| format!("/api/v1/{path}")) {
        let (status, head, alone) = server.get_raw(&path, "").await;
        assert_eq!((status, head.contains("\r\nage:")), (200, false), "{path}: {head}");
        let (status, head, shared) = server.get_raw(&path, MAY_BE_OLD).await;
        assert_eq!((status, head.contains("\r\nage: 0")), (200, true), "{path}: {head}");
        assert!(head.contains("\r\ncontent-type: application/json"), "{head}");
        assert_eq!(shared, alone, "{path}");
    }
    let (status, head, _) = server.get_raw("/api/v1/status", MAY_BE_OLD).await;
    assert_eq!((status, head.contains("\r\nage:")), (200, false), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_question_is_refused_and_the_token_is_asked_for_as_ever() {
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let token = folder.path().join("token");
    std::fs::write(&token, "secret-secret-secret-secret-secret").unwrap();
    let more = ["--token-file", token.to_str().unwrap()];
    let server = TestServer::start_in(std::sync::Arc::clone(&folder), clock(), &more).await;
    let known = format!("{MAY_BE_OLD}authorization: Bearer secret-secret-secret-secret-secret\r\n");
    assert_eq!(server.get_raw("/api/v1/edges", &known).await.0, 200);
    assert_eq!(server.get_raw("/api/v1/edges", MAY_BE_OLD).await.0, 401);
    let (status, head, body) = server.get_raw("/api/v1/edges?by=pods", &known).await;
    assert_eq!((status, head.contains("\r\nage:")), (400, false), "{head}");
    assert!(String::from_utf8(body).unwrap().contains("parameter `by` is `pods`"));
}
