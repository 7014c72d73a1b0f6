//! What is fuzzed: each function takes any bytes, and panics where a promise is broken. They run under libFuzzer
//! (`make fuzz`), and on stable over the corpus with mutations (`crates/testkit/tests/fuzz.rs`).
#![allow(dead_code, reason = "every fuzz target uses one of them")]

use prost::Message as _;
use std::sync::{Arc, LazyLock};
use weir_agent::attribute::table::Outcome;
use weir_agent::attribute::{Poll, Previous, Stage, Table};
use weir_agent::observe::system_probe::decode::Decoder as SystemProbeDecoder;
use weir_agent::observe::system_probe::rows;
use weir_agent::observe::system_probe::session::Meaning;
use weir_discovery::collect::{CUT, Collect, VALUE_BYTES_MAX};
use weir_discovery::cri::known::Known as Runtime;
use weir_discovery::cri::runtime::{
    ContainerEventResponse, ContainerStatusResponse, ListContainersResponse, ListPodSandboxResponse,
    PodSandboxStatusResponse,
};
use weir_discovery::docker::answer::{Event, Listed};
use weir_discovery::docker::known::Known as Engine;
use weir_discovery::kubelet::pods;
use weir_discovery::said::Said;
use weir_tracer::dns::message;
use weir_wire::agent::{BATCH_FORMAT, Batch, Frame};
use weir_wire::feed::decode::{DecodeError, Decoder, Envelope, Limits};
use weir_wire::filter::{Filter, Scope, TEXT_MAX};

/// A target.
pub(crate) type Target = fn(&[u8]);

/// The targets by name.
pub(crate) const ALL: [(&str, Target); 8] = [
    ("feed", feed),
    ("system_probe", system_probe),
    ("batch", batch),
    ("dns", dns),
    ("pods", pods),
    ("cri", cri),
    ("docker", docker),
    ("filter", filter),
];

/// Small bounds, so that a fuzzer reaches them.
const BODY: u64 = 1 << 16;

/// The feed's JSON: however it is cut it says the same, what it says can be staged and counted, and nothing is counted
/// beyond what it tells.
pub(crate) fn feed(bytes: &[u8]) {
    let mut stage = Stage::default();
    let whole = read_feed(bytes, bytes.len().max(1), &mut stage);
    let mut again = Stage::default();
    let cut = read_feed(bytes, 1 + bytes.first().map_or(0, |byte| usize::from(*byte % 61)), &mut again);
    match (&whole, &cut) {
        (Ok(whole), Ok(cut)) => {
            assert_eq!(whole, cut);
            assert_eq!(format!("{:?}{:?}", stage.open, stage.closed), format!("{:?}{:?}", again.open, again.closed));
            assert_eq!(whole.rows, stage.len() as u64);
        }
        (Err(_), Err(_)) => {}
        _ => panic!("cut or not, it is the same body: {whole:?}, {cut:?}"),
    }
    if whole.is_ok() {
        count(&mut stage);
    }
}

fn read_feed(bytes: &[u8], size: usize, stage: &mut Stage) -> Result<Envelope, DecodeError> {
    let limits = Limits { row: 4096, envelope: 8192, body: BODY, translations: 8, dns: 4096 };
    let mut decoder = Decoder::new(limits);
    for chunk in bytes.chunks(size) {
        decoder.push(chunk, |row| stage.push(row))?;
    }
    decoder.finish()
}

/// system-probe's replies in either form, under each meaning that a session may give them.
pub(crate) fn system_probe(bytes: &[u8]) {
    for (content_type, meaning) in [
        (None, Meaning::Deltas),
        (Some("application/json"), Meaning::Baseline),
        (Some("application/protobuf"), Meaning::Restarted),
    ] {
        let read = |size: usize, stage: &mut Stage| {
            let mut decoder = SystemProbeDecoder::new(content_type, BODY);
            for chunk in bytes.chunks(size) {
                decoder.push(chunk, |connection| {
                    rows::stage(connection, meaning, 7, stage);
                })?;
            }
            decoder.finish()
        };
        let (mut stage, mut again) = (Stage::default(), Stage::default());
        let whole = read(bytes.len().max(1), &mut stage);
        let cut = read(1 + bytes.last().map_or(0, |byte| usize::from(*byte % 61)), &mut again);
        match (&whole, &cut) {
            (Ok(whole), Ok(cut)) => {
                assert_eq!(whole, cut);
                assert_eq!(stage.len(), again.len());
            }
            (Err(_), Err(_)) => {}
            _ => panic!("cut or not, it is the same body: {whole:?}, {cut:?}"),
        }
        if whole.is_ok() {
            count(&mut stage);
        }
    }
}

/// Reads the rows against a table, twice: a total is what lies before the first sight and what was counted.
fn count(stage: &mut Stage) {
    stage.order();
    let mut table = Table::new(64);
    let mut previous = None;
    for number in 1..3 {
        let at = u64::from(number) * 10_000_000_000;
        let poll = Poll { number, at, run: 7, run_since: 1, same_run: number > 1, previous, stream_began: Some(1) };
        for row in stage.closed.iter().chain(&stage.open) {
            let key = stage.key(row);
            if let Outcome::Changed(change) = table.apply(key, row, stage.carries_retransmits(row), &poll) {
                let life = &change.life;
                for field in 0..2 {
                    let counted = life.before[field].checked_add(change.delta[field]);
                    assert!(counted.is_some_and(|counted| counted <= life.totals[field]), "{change:?} of {row:?}");
                    assert!(!change.opened || counted == Some(life.totals[field]), "{change:?} of {row:?}");
                }
            }
        }
        table.finish(&poll);
        assert!(table.len() <= 64);
        previous = Some(Previous { at, unix: 1, complete: true });
    }
}

/// A batch as it comes over the network: what is taken is encoded again to the same batch.
pub(crate) fn batch(bytes: &[u8]) {
    const LIMIT: usize = 1 << 20;
    // As it is, and as what a frame with a right checksum holds.
    let frame = Frame::new(1, bytes.to_vec().into(), 0);
    let opened = frame.open(LIMIT);
    if let Ok(batch) = &opened {
        let again = Batch::from_bytes(&batch.to_bytes().expect("memory"), LIMIT + LIMIT / 2).expect("its own bytes");
        assert_eq!(*batch, again);
    }
    // And as the bytes within the compression, which a fuzzer does not find a way through.
    if let Ok(plain) = Batch::decode(bytes) {
        let bytes = plain.to_bytes().expect("memory");
        match Batch::from_bytes(&bytes, LIMIT + LIMIT / 2) {
            Ok(again) => assert_eq!(plain, again),
            Err(_) => assert_ne!(plain.format, BATCH_FORMAT),
        }
    }
}

/// A DNS message from the network.
pub(crate) fn dns(bytes: &[u8]) {
    let Some(message) = message::decode(bytes) else { return };
    assert!(message.aliases.len() <= 8 && message.answers.len() <= 16, "{message:?}");
    for name in message.aliases.iter().chain(message.question.as_ref().map(|question| &question.name)) {
        // 255 bytes of a name, each of which may stand as four characters.
        assert!(name.len() <= 4 * 255 && name.is_ascii(), "{name:?}");
    }
}

/// What is collected beside: a field, a label, everything, and a path with a filter.
static COLLECT: LazyLock<Arc<Collect>> = LazyLock::new(|| {
    let entries = [
        "pod.collected=$.metadata.labels.*",
        "container.collected=$..*",
        "container.filtered=$.status[?@.state == 'CONTAINER_RUNNING'].id",
    ];
    Arc::new(Collect::parse(&entries, &["pod", "container"]).expect("the entries are right"))
});

/// A kubelet's or an API server's list of pods: what is collected beside changes nothing else.
pub(crate) fn pods(bytes: &[u8]) {
    let Ok(mut plain) = pods::parse(bytes, &Collect::default()) else { return };
    check(&plain);
    // Numbers and depths that only the whole document has may still be refused.
    let Ok(mut collected) = pods::parse(bytes, &COLLECT) else { return };
    check(&collected);
    for said in plain.iter_mut().chain(&mut collected) {
        said.attributes.retain(|name, _| !matches!(name.as_str(), "collected" | "filtered"));
    }
    assert_eq!(plain, collected);
}

/// What a runtime answers and tells, in the order in which it comes.
#[derive(Clone, PartialEq, prost::Message)]
struct Answers {
    #[prost(message, repeated, tag = "1")]
    all: Vec<Answer>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(oneof = "OneAnswer", tags = "1, 2, 3, 4")]
    one: Option<OneAnswer>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum OneAnswer {
    #[prost(message, tag = "1")]
    Lists(Lists),
    #[prost(message, tag = "2")]
    Sandbox(PodSandboxStatusResponse),
    #[prost(message, tag = "3")]
    Container(ContainerStatusResponse),
    #[prost(message, tag = "4")]
    Event(ContainerEventResponse),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Lists {
    #[prost(message, required, tag = "1")]
    sandboxes: ListPodSandboxResponse,
    #[prost(message, required, tag = "2")]
    containers: ListContainersResponse,
}

/// A container runtime's answers: what is known after each can be said, and is said again.
pub(crate) fn cri(bytes: &[u8]) {
    let Ok(answers) = Answers::decode(bytes) else { return };
    let mut known = Runtime::new(Arc::clone(&COLLECT));
    for answer in answers.all.into_iter().filter_map(|answer| answer.one) {
        match answer {
            OneAnswer::Lists(lists) => known.list(lists.sandboxes.items, lists.containers.containers),
            OneAnswer::Sandbox(told) => known.tell_sandbox(told),
            OneAnswer::Container(told) => known.tell_container(told),
            OneAnswer::Event(event) => known.happen(event),
        }
        known.find_namespaces(|_, pid| pid);
        say_twice(|| known.say());
    }
}

/// A Docker engine's answers, a line each: a list of containers, an inspection, or an event.
pub(crate) fn docker(bytes: &[u8]) {
    let mut known = Engine::new(Arc::clone(&COLLECT));
    known.see();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(listed) = serde_json::from_slice::<Vec<Listed>>(line) {
            known.list(listed);
        } else if let Ok(event) = serde_json::from_slice::<Event>(line) {
            known.happen(&event);
        } else if let Ok(told) = serde_json::from_slice(line) {
            known.tell(&told);
        } else {
            // As when the stream of events breaks.
            known.be_blind();
        }
        known.find_namespaces(|_, pid| pid);
        say_twice(|| known.say());
    }
}

/// What is over is said once; everything else stays as it was said.
fn say_twice(mut say: impl FnMut() -> Vec<Said>) {
    let first = say();
    check(&first);
    for said in say() {
        assert!(first.contains(&said), "said only the second time: {said:?}, {first:?}");
    }
}

/// What every source keeps to.
fn check(all: &[Said]) {
    for said in all {
        assert!(matches!(said.kind, "pod" | "container") && !said.id.is_empty(), "{said:?}");
        assert!(said.from.zip(said.to).is_none_or(|(from, to)| from <= to), "ends before it begins: {said:?}");
        assert!(said.addresses.iter().all(|address| address.to_canonical() == *address), "{said:?}");
        let collected = said.attributes.get("collected").map_or(0, String::len);
        assert!(collected <= VALUE_BYTES_MAX + CUT.len(), "{collected} bytes");
    }
}

/// A filter from a reader, for every answer: what is read is printed so that it is read again as the same, and every error
/// points into the text.
pub(crate) fn filter(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for scope in Scope::ALL {
        match Filter::parse(scope, &text) {
            Ok(filter) => {
                let printed = filter.to_string();
                // Units are written out as numbers: what was just short enough may be too long then.
                if printed.chars().count() <= TEXT_MAX {
                    assert_eq!(Filter::parse(scope, &printed).as_ref(), Ok(&filter), "{printed}");
                }
            }
            Err(error) => assert!((1..=text.chars().count() + 1).contains(&error.column), "{error}"),
        }
    }
}
