//! The kubelet and the API server as listeners of this test: TLS, tokens, refusals, hostile answers.

use super::*;
use crate::api_pods::ApiPods;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, pki_types};

const PODS: &str = include_str!("../../tests/data/pods/containerd1.json");
/// As a kubelet 1.36 answered without the rule.
const FORBIDDEN: &str =
    "Forbidden (user=system:serviceaccount:demo:default, verb=get, resource=nodes, subresource(s)=[pods proxy])";

/// A server that answers each connection's request by the next answer, the last one again and again.
struct Stand {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
    ca: tempfile::NamedTempFile,
    _task: JoinSet<()>,
}

type Made = Box<dyn FnMut(&str) -> String + Send>;

async fn stand(tls: bool, answers: Vec<String>) -> Stand {
    let mut answers: VecDeque<String> = answers.into();
    stand_by(
        tls,
        Box::new(move |_| if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }.unwrap()),
    )
    .await
}

async fn stand_by(tls: bool, mut make: Made) -> Stand {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(cert.pem().as_bytes()).unwrap();
    let key = pki_types::PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if tls {
                // A client that does not trust us breaks the handshake off.
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                serve(stream, &seen, &mut make).await;
            } else {
                serve(stream, &seen, &mut make).await;
            }
        }
    });
    let scheme = if tls { "https" } else { "http" };
    Stand { url: format!("{scheme}://127.0.0.1:{port}"), requests, ca, _task: task }
}

async fn serve(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    seen: &Mutex<Vec<String>>,
    make: &mut Made,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let answer = make(&head);
    seen.lock().unwrap().push(head);
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn token(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

impl Stand {
    fn access(&self, token: Option<&tempfile::NamedTempFile>) -> Access {
        Access {
            url: self.url.clone(),
            token_file: token.map(|file| file.path().to_owned()),
            ca_file: Some(self.ca.path().to_owned()),
            trusts_anyone: false,
        }
    }

    fn heads(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn kubelet(access: Access) -> Kubelet {
    Kubelet::new(access, Arc::default())
}

async fn things(source: &mut dyn Source) -> (usize, String) {
    match source.read().await.unwrap() {
        Reading::Whole { things, missing } => (things.len(), missing),
        Reading::Same => unreachable!("no source here says so"),
    }
}

async fn trouble(source: &mut dyn Source) -> (&'static str, String) {
    let trouble = source.read().await.unwrap_err();
    (trouble.state(), trouble.to_string())
}

#[tokio::test]
async fn pods_are_read_over_tls_with_the_token_of_the_moment() {
    let stand = stand(true, vec![answer("200 OK", PODS)]).await;
    let file = token("first\n");
    let mut kubelet = kubelet(stand.access(Some(&file)));
    assert_eq!(things(&mut kubelet).await.0, 25);
    std::fs::write(file.path(), "second").unwrap();
    things(&mut kubelet).await;
    let heads = stand.heads();
    assert!(heads[0].starts_with("GET /pods HTTP/1.1\r\n"), "{}", heads[0]);
    let tokens: Vec<&str> = heads
        .iter()
        .map(|head| head.lines().find_map(|line| line.strip_prefix("authorization: Bearer ")).unwrap())
        .collect();
    assert_eq!(tokens, ["first", "second"], "the rotated token is used without a restart");
}

#[tokio::test]
async fn a_token_that_was_rotated_under_a_request_is_tried_once_more() {
    let file = Arc::new(token("old"));
    let rotates = Arc::clone(&file);
    let stand = stand_by(
        true,
        Box::new(move |head| {
            if head.contains("Bearer new") {
                return answer("200 OK", PODS);
            }
            std::fs::write(rotates.path(), "new").unwrap();
            answer("401 Unauthorized", "Unauthorized")
        }),
    )
    .await;
    let mut kubelet = kubelet(stand.access(Some(&file)));
    things(&mut kubelet).await;
    assert_eq!(stand.heads().len(), 2);
}

#[tokio::test]
async fn a_refusal_names_the_missing_rule_or_setting() {
    let file = token("secret-token");
    let old = "Forbidden (user=weir, verb=get, resource=nodes, subresource=proxy)";
    for (status, body, words) in [
        ("403 Forbidden", FORBIDDEN, vec!["verb `get` on the resource `nodes/pods`", "serviceaccount:demo:default"]),
        ("403 Forbidden", old, vec!["`nodes/proxy`", "running commands in every pod", "--api-pods on"]),
        ("401 Unauthorized", "Unauthorized", vec!["authentication.webhook.enabled", "the token in"]),
    ] {
        let stand = stand(true, vec![answer(status, body)]).await;
        let mut kubelet = kubelet(stand.access(Some(&file)));
        let (state, told) = trouble(&mut kubelet).await;
        assert_eq!(state, "refused");
        assert!(words.iter().all(|word| told.contains(word)) && !told.contains("secret-token"), "{told}");
        assert!(matches!(&*kubelet.door().borrow(), Door::Closed(_)));
    }
    let stand = stand(true, vec![answer("401 Unauthorized", "Unauthorized")]).await;
    let (_, told) = trouble(&mut kubelet(stand.access(None))).await;
    assert!(told.contains("--kubelet-token-file"), "{told}");
}

#[tokio::test]
async fn an_untrusted_certificate_is_refused_unless_that_is_asked_for() {
    let stand = stand(true, vec![answer("200 OK", PODS)]).await;
    let other = stand_by(true, Box::new(|_| String::new())).await;
    let access = Access { ca_file: Some(other.ca.path().to_owned()), ..stand.access(None) };
    let (state, told) = trouble(&mut kubelet(access.clone())).await;
    assert_eq!(state, "refused", "{told}");
    assert!(told.contains("--kubelet-ca") && told.contains("--kubelet-insecure-tls"), "{told}");
    assert!(stand.heads().is_empty());
    things(&mut kubelet(Access { trusts_anyone: true, ..access })).await;
}

#[tokio::test]
async fn the_read_only_port_gets_no_token() {
    let stand = stand(false, vec![answer("200 OK", PODS)]).await;
    let file = token("secret");
    assert_eq!(things(&mut kubelet(stand.access(Some(&file)))).await.0, 25);
    assert!(!stand.heads()[0].contains("authorization"));
}

#[tokio::test]
async fn a_closed_port_rubbish_and_half_an_answer_fail_with_the_reason() {
    let gone = { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
    let access = Access { url: format!("http://{gone}"), ..Access::default() };
    let mut closed = kubelet(access);
    let (state, told) = trouble(&mut closed).await;
    assert!(state == "failed" && told.contains("nobody listens") && told.contains("--kubelet"), "{told}");
    assert!(matches!(&*closed.door().borrow(), Door::Closed(_)));
    let half = answer("200 OK", PODS);
    for (sent, words) in [
        (answer("200 OK", "rubbish"), "not a list of pods"),
        (half[..half.len() / 2].to_owned(), "broke"),
        (answer("500 Internal Server Error", "oops"), "500"),
        ("rubbish\r\n\r\n".to_owned(), "broke"),
    ] {
        let stand = stand(false, vec![sent]).await;
        let (state, told) = trouble(&mut kubelet(stand.access(None))).await;
        assert!(state == "failed" && told.contains(words), "{told}");
    }
}

#[tokio::test]
async fn an_answer_without_an_end_is_given_up_at_its_bound() {
    let chunk = "x".repeat(1 << 20);
    let endless =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", format!("100000\r\n{chunk}\r\n").repeat(65));
    let stand = stand(false, vec![endless]).await;
    let (state, told) = trouble(&mut kubelet(stand.access(None))).await;
    assert!(state == "failed" && told.contains("more than 67108864 bytes"), "{told}");
}

#[tokio::test]
async fn a_token_file_that_is_missing_or_empty_is_named() {
    let stand = stand(true, vec![answer("200 OK", PODS)]).await;
    let empty = token(" \n");
    let (_, told) = trouble(&mut kubelet(stand.access(Some(&empty)))).await;
    assert!(told.contains("holds no token"), "{told}");
    let access = Access { token_file: Some("/nowhere/token".into()), ..stand.access(None) };
    let (_, told) = trouble(&mut kubelet(access)).await;
    assert!(told.contains("/nowhere/token"), "{told}");
}

#[tokio::test]
async fn the_api_server_is_asked_only_while_the_kubelet_is_closed_and_says_so() {
    let closed = stand(true, vec![answer("403 Forbidden", FORBIDDEN), answer("200 OK", PODS)]).await;
    let api = stand(true, vec![answer("200 OK", PODS)]).await;
    let file = token("secret");
    let mut kubelet = kubelet(closed.access(Some(&file)));
    let mut pods = ApiPods::new(api.access(Some(&file)), "node 1", Arc::default(), Some(kubelet.door()));
    assert_eq!(trouble(&mut pods).await.0, "off");
    assert!(api.heads().is_empty(), "nobody asks before the kubelet has refused");
    trouble(&mut kubelet).await;
    pods.changed().await;
    let (count, missing) = things(&mut pods).await;
    assert_eq!(count, 25);
    assert!(missing.contains("instead of the kubelet") && missing.contains("nodes/pods"), "{missing}");
    assert!(api.heads()[0].starts_with("GET /api/v1/pods?fieldSelector=spec.nodeName%3Dnode%201&resourceVersion=0 "));
    things(&mut kubelet).await;
    pods.changed().await;
    assert_eq!(trouble(&mut pods).await, ("off", "the kubelet is read".to_owned()));
    assert_eq!(api.heads().len(), 1);
}

#[tokio::test]
async fn an_api_server_that_refuses_names_the_rule() {
    let api = stand(true, vec![answer("403 Forbidden", r#"{"kind":"Status"}"#)]).await;
    let mut pods = ApiPods::new(api.access(None), "n", Arc::default(), None);
    let (state, told) = trouble(&mut pods).await;
    assert!(state == "refused" && told.contains("`list` on the resource `pods`"), "{told}");
}
