//! Flags as the API's parameters. The server judges their values: it answers 400 to what it does not understand.

use crate::args::{
    ConnectionsArgs, DiffArgs, DnsArgs, EdgesArgs, EdgesCommandArgs, FilterArgs, InstantArgs, MetadataArgs, RowState,
    RowsArgs, SeriesArgs, SortArgs, TrafficArgs,
};

/// The parameters of one question, in the order of the flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    /// No parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with `key=value`, where there is a value.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: Option<impl ToString>) -> Self {
        self.0.extend(value.map(|value| (key, value.to_string())));
        self
    }

    /// The parameters.
    pub fn pairs(&self) -> &[(&'static str, String)] {
        &self.0
    }

    /// The value of a parameter.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str())
    }

    /// Whether anything but the span and the form of the rows is asked for.
    pub fn is_narrowed(&self) -> bool {
        self.0.iter().any(|(key, _)| {
            !matches!(*key, "since" | "until" | "at" | "step" | "sort" | "limit" | "by" | "expand" | "health")
        })
    }

    fn ordered(self, sort: &SortArgs, instant: &InstantArgs) -> Self {
        self.with("sort", sort.sort.as_ref()).with("at", instant.at.as_ref())
    }

    fn filtered(self, filters: &FilterArgs) -> Self {
        self.with("since", filters.since.as_ref())
            .with("until", filters.until.as_ref())
            .with("name", filters.name.as_ref())
            .with("namespace", filters.namespace.as_ref())
            .with("label", filters.label.as_ref())
            .with("cidr", filters.cidr.as_ref())
            .with("node", filters.node.as_ref())
            .with("filter", filters.filter.as_ref())
            .with("limit", filters.limit)
    }

    fn traffic(self, traffic: &TrafficArgs) -> Self {
        self.with("from", traffic.from.as_ref())
            .with("to", traffic.to.as_ref())
            .with("port", traffic.port.as_ref())
            .with("protocol", traffic.protocol.as_ref())
            .with("service", traffic.service.as_ref())
            .filtered(&traffic.filters)
    }
}

impl From<&EdgesArgs> for Query {
    fn from(args: &EdgesArgs) -> Self {
        let mut query = Self::new().with("by", args.by.as_ref());
        query.0.extend(args.expand.iter().map(|expand| ("expand", expand.clone())));
        query.ordered(&args.sort, &args.instant).traffic(&args.traffic)
    }
}

impl From<&EdgesCommandArgs> for Query {
    fn from(args: &EdgesCommandArgs) -> Self {
        Self::from(&args.edges)
            .with("health", args.health.then_some(true))
            .with("unhealthy", args.unhealthy.then_some(true))
    }
}

impl From<&SeriesArgs> for Query {
    fn from(args: &SeriesArgs) -> Self {
        let mut query = Self::from(&args.edges);
        query.0.extend(args.step.iter().map(|step| ("step", step.clone())));
        query
    }
}

impl From<&DiffArgs> for Query {
    fn from(args: &DiffArgs) -> Self {
        let which = &args.which;
        let mut query = Self::new()
            .with("before", args.before.as_ref())
            .with("after", args.after.as_ref())
            .with("window", args.window.as_ref())
            .with("rollout", args.rollout.as_ref())
            .with("by", args.by.as_ref())
            .with("from", which.from.as_ref())
            .with("to", which.to.as_ref())
            .with("port", which.port.as_ref())
            .with("protocol", which.protocol.as_ref())
            .with("service", which.service.as_ref())
            .with("name", which.name.as_ref())
            .with("namespace", which.namespace.as_ref())
            .with("label", which.label.as_ref())
            .with("cidr", which.cidr.as_ref())
            .with("node", which.node.as_ref())
            .with("filter", which.filter.as_ref())
            .with("limit", which.limit);
        query.0.extend(args.expand.iter().map(|expand| ("expand", expand.clone())));
        query
    }
}

impl From<&ConnectionsArgs> for Query {
    fn from(args: &ConnectionsArgs) -> Self {
        let mut query = Self::new().ordered(&args.sort, &args.instant);
        query.0.extend(Self::from(&args.rows).0);
        query
    }
}

impl From<&RowsArgs> for Query {
    fn from(args: &RowsArgs) -> Self {
        Self::new().with("state", args.state.map(RowState::as_str)).traffic(&args.traffic)
    }
}

impl From<&DnsArgs> for Query {
    fn from(args: &DnsArgs) -> Self {
        Self::new()
            .with("by", args.by.as_ref())
            .ordered(&args.sort, &args.instant)
            .with("from", args.from.as_ref())
            .with("to", args.to.as_ref())
            .filtered(&args.filters)
    }
}

impl From<&MetadataArgs> for Query {
    fn from(args: &MetadataArgs) -> Self {
        Self::new().with("kind", args.kind.as_ref()).with("at", args.instant.at.as_ref()).filtered(&args.filters)
    }
}
