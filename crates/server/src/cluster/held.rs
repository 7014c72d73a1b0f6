//! The facts of one object that have no end yet, small: as the agent protocol writes them.
//!
//! 200,000 endpoints are held for as long as they are; as values they would be 1.1 KB each, written down 250 B.

use weir_model::fact::source;
use weir_model::{Fact, NodeName, UnixNanos};
use weir_wire::agent::{Batch, MetadataFact};

/// One object's facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held(Box<[u8]>);

impl Held {
    pub(super) fn of(facts: &[Fact]) -> Self {
        let metadata = facts.iter().map(written).collect();
        Self(prost::Message::encode_to_vec(&Batch { metadata, ..Batch::default() }).into())
    }

    /// The facts again, but when they were said: nobody asks.
    pub(super) fn facts(&self) -> Vec<Fact> {
        // What was written here a moment ago can be read.
        let batch: Batch = prost::Message::decode(&*self.0).unwrap_or_default();
        batch.metadata.into_iter().map(read).collect()
    }
}

fn written(fact: &Fact) -> MetadataFact {
    MetadataFact {
        kind: fact.kind.clone(),
        id: fact.id.clone(),
        name: fact.name.clone(),
        namespace: fact.namespace.clone(),
        parent: fact.parent.clone(),
        addresses: fact.addresses.clone(),
        from_unix_ns: fact.from.0,
        attributes: fact.attributes.clone().into_iter().collect(),
        ..MetadataFact::default()
    }
}

fn read(fact: MetadataFact) -> Fact {
    Fact {
        node: NodeName(String::new()),
        source: source::API.to_owned(),
        kind: fact.kind,
        id: fact.id,
        from: UnixNanos(fact.from_unix_ns),
        said: UnixNanos(0),
        to: None,
        name: fact.name,
        namespace: fact.namespace,
        parent: fact.parent,
        netns: 0,
        addresses: fact.addresses,
        attributes: fact.attributes.into_iter().collect(),
    }
}
