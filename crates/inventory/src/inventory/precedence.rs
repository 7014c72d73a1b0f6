//! Which source's word stands where several speak of one thing.
//!
//! | about | order |
//! |---|---|
//! | names, namespaces, parents, owners, addresses, validity, ports, images, everything else | kubelet, api, cri, docker, tracer, proc |
//! | the pids of a container | tracer, proc, cri, docker, kubelet, api |
//!
//! The kubelet runs the pod; the API server repeats it, late; a runtime knows its containers but no pod's status; the
//! tracer and `/proc` see processes and take the rest from paths.

use super::things::Kind;
use weir_model::fact::source;

/// A source of facts, as precedence orders them. Sources that weir does not know come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Source {
    Kubelet,
    Api,
    Cri,
    Docker,
    Tracer,
    Proc,
    Other,
}

/// Who reads what a node says. A source's word is as good as its last reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reader {
    /// The node's own name and addresses.
    Node,
    /// Everything else of a source.
    Of(Source),
}

/// How many readers there may be.
pub(crate) const READERS: usize = 2 + Source::Other as usize;

impl Reader {
    /// A dense number below [`READERS`].
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Node => 0,
            Self::Of(source) => 1 + source as usize,
        }
    }

    /// From the word that an agent tells: `node`, or a source's.
    pub(crate) fn parse(text: &str) -> Self {
        if text == "node" { Self::Node } else { Self::Of(Source::parse(text)) }
    }

    pub(crate) fn of(kind: Kind, source: Source) -> Self {
        if kind == Kind::Node { Self::Node } else { Self::Of(source) }
    }
}

impl Source {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            source::KUBELET => Self::Kubelet,
            source::API => Self::Api,
            source::CRI => Self::Cri,
            source::DOCKER => Self::Docker,
            source::TRACER => Self::Tracer,
            source::PROC => Self::Proc,
            _ => Self::Other,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Kubelet => source::KUBELET,
            Self::Api => source::API,
            Self::Cri => source::CRI,
            Self::Docker => source::DOCKER,
            Self::Tracer => source::TRACER,
            Self::Proc => source::PROC,
            Self::Other => "other",
        }
    }

    /// Its place in the order for pids.
    pub(crate) fn for_pids(self) -> u8 {
        match self {
            Self::Tracer => 0,
            Self::Proc => 1,
            Self::Cri => 2,
            Self::Docker => 3,
            Self::Kubelet => 4,
            Self::Api => 5,
            Self::Other => 6,
        }
    }

    /// Whether it knows a pod's owner: a pod without one is then a bare pod.
    pub(crate) fn tells_owners(self) -> bool {
        matches!(self, Self::Kubelet | Self::Api)
    }
}
