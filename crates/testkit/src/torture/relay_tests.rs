use super::*;
use tokio::sync::Notify;
use weir_wire::agent::{Ack, Address, BATCH_FORMAT, Batch, PROTOCOL, Tombstone};

const STREAM: [u8; 16] = [7; 16];

type Answers = mpsc::Sender<Result<ServerMessage, Status>>;

/// A server that has a first call's batch waiting, and answers a second call once it has acknowledged, in the first one,
/// all that the second skips: what happens when state elsewhere stands still and its agent comes back meanwhile.
#[derive(Clone, Default)]
struct SlowServer {
    first: Arc<Mutex<Option<Answers>>>,
    passed: Arc<Notify>,
}

#[tonic::async_trait]
impl Ingest for SlowServer {
    type DeliverStream = ReceiverStream<Result<ServerMessage, Status>>;

    async fn deliver(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let mut messages = request.into_inner();
        let Some(AgentMessage { message: Some(FromAgent::Hello(hello)) }) = messages.message().await? else {
            return Err(Status::invalid_argument("no Hello"));
        };
        let (answers, stream) = mpsc::channel(QUEUE);
        if hello.oldest_sequence == 1 {
            *self.first.lock().unwrap() = Some(answers);
            #[expect(clippy::disallowed_methods, reason = "keeps the call open; ends with the test's runtime")]
            tokio::spawn(async move { while let Ok(Some(_)) = messages.message().await {} });
        } else {
            let first = self.first.lock().unwrap().clone().ok_or_else(|| Status::internal("no first call"))?;
            let acknowledged = ToAgent::Ack(Ack { sequence: hello.oldest_sequence - 1 });
            let _ = first.send(Ok(ServerMessage { message: Some(acknowledged) })).await;
            self.passed.notified().await;
        }
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn hello(oldest_sequence: u64) -> AgentMessage {
    let hello = Hello {
        protocol: PROTOCOL,
        stream_id: STREAM.to_vec().into(),
        node: "torture-0".into(),
        oldest_sequence,
        ..Hello::default()
    };
    AgentMessage { message: Some(FromAgent::Hello(hello)) }
}

fn batch(sequence: u64) -> AgentMessage {
    AgentMessage { message: Some(FromAgent::Frame(frame(sequence, None))) }
}

fn frame(sequence: u64, tombstone: Option<Tombstone>) -> Frame {
    let address = |port| Some(Address::of(SocketAddr::from(([10, 0, 0, 1], port))));
    let record = Record {
        instance_kind: InstanceKind::Socket.into(),
        cookie: 1,
        local: address(1),
        remote: address(2),
        sent_total: 100,
        ..Record::default()
    };
    let batch = Batch {
        format: BATCH_FORMAT,
        stream_id: STREAM.to_vec().into(),
        sequence,
        node: "torture-0".into(),
        records: if tombstone.is_none() { vec![record] } else { Vec::new() },
        tombstone,
        monotonic_ns: 50,
        ..Batch::default()
    };
    Frame::new(sequence, batch.to_bytes().unwrap().into(), 0)
}

/// A batch, and the tombstone that follows it because the spool had to drop it: what is known once these sequences were
/// acknowledged.
fn known_after(acknowledgements: &[u64]) -> Vec<Totals> {
    let mut shared = Shared {
        server: None,
        apart: BTreeSet::new(),
        streams: BTreeMap::new(),
        acknowledged: BTreeMap::new(),
        happened: Happened::default(),
        rates: Rates::default(),
        random: Random::new(1),
    };
    let mut last = None;
    shared.note_frame(&STREAM, &frame(1, None), &mut last);
    let tombstone = Tombstone { first_sequence: 1, last_sequence: 1, ..Tombstone::default() };
    shared.note_frame(&STREAM, &frame(2, Some(tombstone)), &mut last);
    for sequence in acknowledgements {
        shared.note_acknowledged(&STREAM, *sequence);
    }
    shared.acknowledged.into_values().collect()
}

#[test]
fn a_tombstone_that_closes_the_hole_of_a_batch_that_did_not_arrive_does_not_acknowledge_it() {
    assert_eq!(known_after(&[2]), []);
    assert_eq!(known_after(&[1, 2]), [(100, 0)]);
}

/// A server and a relay before it.
async fn start(server: SlowServer) -> Relay {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(IngestServer::new(server))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let relay = tokio::task::spawn_blocking(|| {
        Relay::start(IpAddr::from([127, 0, 0, 1]), Random::new(1), Rates::default()).unwrap()
    });
    let relay = relay.await.unwrap();
    relay.server(Some(address));
    relay
}

/// Opens a call with these messages.
async fn open(relay: &Relay, messages: Vec<AgentMessage>) -> (mpsc::Sender<AgentMessage>, Streaming<ServerMessage>) {
    let mut client = client(relay.address).await.unwrap();
    let (sender, receiver) = mpsc::channel(QUEUE);
    for message in messages {
        sender.send(message).await.unwrap();
    }
    let answers = client.deliver(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    (sender, answers)
}

async fn ended(relay: Relay) {
    tokio::task::spawn_blocking(move || drop(relay)).await.unwrap();
}

async fn frames_came(relay: &Relay, count: u64) {
    while relay.happened().frames < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_hello_skips_is_not_acknowledged_by_an_earlier_call() {
    let server = SlowServer::default();
    let relay = start(server.clone()).await;
    let (_first, mut answers) = open(&relay, vec![hello(1), batch(1), batch(2)]).await;
    frames_came(&relay, 2).await;
    // The agent has dropped both meanwhile.
    let again = open(&relay, vec![hello(3)]);
    let acknowledged = async {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.message, Some(ToAgent::Ack(Ack { sequence: 2 })));
        server.passed.notify_one();
    };
    let (_again, ()) = tokio::join!(again, acknowledged);
    assert_eq!(relay.happened().acknowledgements, 1);
    assert!(relay.acknowledged().is_empty(), "{:?}", relay.acknowledged());
    assert_eq!(relay.told_to("torture-0"), 0);
    ended(relay).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_covers_what_was_sent_before_it_and_its_poll_is_told() {
    let server = SlowServer::default();
    let relay = start(server.clone()).await;
    let (_first, mut answers) = open(&relay, vec![hello(1), batch(1), batch(2)]).await;
    frames_came(&relay, 2).await;
    let first = server.first.lock().unwrap().clone().unwrap();
    first.send(Ok(ServerMessage { message: Some(ToAgent::Ack(Ack { sequence: 1 })) })).await.unwrap();
    answers.message().await.unwrap().unwrap();
    assert_eq!(relay.acknowledged().into_values().collect::<Vec<_>>(), [(100, 0)]);
    assert_eq!(relay.told_to("torture-0"), 50);
    ended(relay).await;
}
