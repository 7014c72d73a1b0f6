//! The question: query parameters, parsed once. A wrong one is answered with its name, its value and what is allowed.

use super::expand::{EXPANDED, Expand};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use weir_model::{Protocol, UnixNanos};
use weir_store::Step;
use weir_wire::api::{Position, Problem};
use weir_wire::filter::{Comparison, Field, Filter, FilterError, Glob, Level, Scope};

/// Rows in an answer where `limit` is not given.
const LIMIT: usize = 1000;
/// The largest `limit`: about 500 MB of JSON.
const LIMIT_MAX: usize = 1_000_000;
/// Rows of a series where `limit` is not given: as many lines as a picture holds.
const SERIES_LIMIT: usize = 10;
/// The span of a series where `since` is not given: an hour.
const SERIES_NS: i64 = 3600 * 1_000_000_000;
/// The unit of history.
const WINDOW_NS: i64 = 10_000_000_000;
/// Windows in which an edge is judged at most, each held by itself: four hours.
const WINDOWS_JUDGED_MAX: i64 = 1_440;
/// The one parameter that may be given more than once.
const EXPAND: &str = "expand";
/// The span of edges and connections where `since` is not given: five minutes.
const SPAN_NS: i64 = 300_000_000_000;
/// The span of unhealthy edges where `since` is not given, a minute: what is so now, and not what is over.
const UNHEALTHY_NS: i64 = 60_000_000_000;

/// What the ends of an edge are grouped by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Grouping {
    #[default]
    Workload,
    Pod,
    Container,
    Service,
    /// By namespace, but for what is opened.
    Namespace(Expand),
    Node,
    Zone,
    Process,
    Address,
    /// By an attribute that is collected.
    Attribute(String),
}

const GROUPINGS: [(&str, Grouping); 9] = [
    ("pod", Grouping::Pod),
    ("workload", Grouping::Workload),
    ("container", Grouping::Container),
    ("service", Grouping::Service),
    ("namespace", Grouping::Namespace(Expand::NOTHING)),
    ("node", Grouping::Node),
    ("zone", Grouping::Zone),
    ("process", Grouping::Process),
    ("address", Grouping::Address),
];

/// Which connections by their condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OpenOrClosed {
    #[default]
    All,
    Open,
    Closed,
}

const CONDITIONS: [(&str, OpenOrClosed); 3] =
    [("all", OpenOrClosed::All), ("open", OpenOrClosed::Open), ("closed", OpenOrClosed::Closed)];
/// What of health is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HealthAsked {
    /// Nothing.
    #[default]
    No,
    /// Every edge's.
    All,
    /// Only edges that are unhealthy.
    Unhealthy,
}

/// `[since, until)`.
pub(crate) type Span = (UnixNanos, UnixNanos);

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    /// Two spans.
    Spans { before: Span, after: Span },
    /// What was before and what is after the newest rollout of `NAMESPACE/DEPLOYMENT`: so many nanoseconds of each.
    Rollout { workload: String, window: i64 },
}

/// The length of a span that is named by its end.
const COMPARED_NS: i64 = 600_000_000_000;

const BOOLEANS: [(&str, bool); 2] = [("true", true), ("false", false)];
const PROTOCOLS: [(&str, Protocol); 2] = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];

/// A parsed question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// `None`: everything that is kept.
    pub(crate) since: Option<UnixNanos>,
    /// `None`: until now, and what an agent's clock puts after it.
    pub(crate) until: Option<UnixNanos>,
    pub(crate) by: Grouping,
    pub(crate) from: Option<Glob>,
    pub(crate) to: Option<Glob>,
    pub(crate) name: Option<Glob>,
    pub(crate) namespace: Option<Glob>,
    pub(crate) label: Option<(String, Glob)>,
    pub(crate) cidr: Option<IpNet>,
    pub(crate) port: Option<u16>,
    pub(crate) protocol: Option<Protocol>,
    /// Of edges, connections and transactions: the Service, by `name` or `namespace/name`.
    pub(crate) service: Option<Glob>,
    /// Of metadata: the thing's kind.
    pub(crate) kind: Option<Glob>,
    pub(crate) node: Option<Glob>,
    pub(crate) state: OpenOrClosed,
    /// In the filter language.
    pub(crate) filter: Option<Arc<Filter>>,
    /// What the largest of comes first; `None`: as the answer likes.
    pub(crate) sort: Option<Field>,
    /// How long a series' steps are; `None`: they are chosen.
    pub(crate) step: Option<Step>,
    /// Of edges.
    pub(crate) health: HealthAsked,
    /// Of diff.
    pub(crate) compared: Option<Compared>,
    pub(crate) limit: usize,
}

impl Default for Question {
    /// About everything that is kept.
    fn default() -> Self {
        Self {
            since: None,
            until: None,
            by: Grouping::default(),
            from: None,
            to: None,
            name: None,
            namespace: None,
            label: None,
            cidr: None,
            port: None,
            protocol: None,
            service: None,
            kind: None,
            node: None,
            state: OpenOrClosed::default(),
            filter: None,
            sort: None,
            step: None,
            health: HealthAsked::default(),
            compared: None,
            limit: LIMIT,
        }
    }
}

impl Question {
    /// The filter's comparisons with their places.
    pub(crate) fn comparisons(&self) -> impl Iterator<Item = (usize, &Comparison)> {
        self.filter.iter().flat_map(|filter| filter.comparisons()).enumerate()
    }

    /// Whether the filter, as far as it is decided at this level, lets something through.
    pub(crate) fn lets(&self, level: Level, decide: impl FnMut(usize, &Comparison) -> bool) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.passes(level, decide))
    }
}

/// Which endpoint is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Edges,
    Series,
    Diff,
    Connections,
    Transactions,
    Metadata,
    Dns,
    /// Takes no parameters.
    Status,
}

impl Asked {
    /// Its parameters, in the order in which they are told.
    fn allowed(self) -> Vec<&'static str> {
        const SPAN: &[&str] = &["since", "until"];
        const AT: &[&str] = &["at"];
        const BY: &[&str] = &["by"];
        const NAMES: &[&str] = &["name", "namespace", "label", "cidr"];
        const ENDS: &[&str] = &["from", "to"];
        const FLOW: &[&str] = &["port", "protocol", "service"];
        const NODE: &[&str] = &["node"];
        const STATE: &[&str] = &["state"];
        const FILTER: &[&str] = &["filter"];
        const SORT: &[&str] = &["sort"];
        const LIMIT: &[&str] = &["limit"];
        const COMPARED: &[&str] = &["before", "after", "window", "rollout"];
        const HEALTH: &[&str] = &["health", "unhealthy"];
        match self {
            Self::Edges => [SPAN, AT, BY, &[EXPAND], ENDS, NAMES, FLOW, NODE, FILTER, SORT, LIMIT, HEALTH].concat(),
            Self::Series => [SPAN, AT, &["step"], BY, &[EXPAND], ENDS, NAMES, FLOW, NODE, FILTER, SORT, LIMIT].concat(),
            Self::Diff => [COMPARED, BY, &[EXPAND], ENDS, NAMES, FLOW, NODE, FILTER, LIMIT].concat(),
            Self::Connections => [SPAN, AT, ENDS, NAMES, FLOW, NODE, STATE, FILTER, SORT, LIMIT].concat(),
            Self::Transactions => [SPAN, ENDS, NAMES, FLOW, NODE, STATE, FILTER, LIMIT].concat(),
            Self::Dns => [SPAN, AT, BY, ENDS, NAMES, NODE, FILTER, SORT, LIMIT].concat(),
            Self::Metadata => [SPAN, AT, &["kind"], NAMES, NODE, FILTER, LIMIT].concat(),
            Self::Status => Vec::new(),
        }
    }

    /// What a filter may ask of it; `None`: it takes none.
    fn scope(self) -> Option<Scope> {
        match self {
            Self::Edges | Self::Series | Self::Diff => Some(Scope::Edges),
            Self::Connections => Some(Scope::Connections),
            Self::Transactions => Some(Scope::Transactions),
            Self::Metadata => Some(Scope::Metadata),
            Self::Dns => Some(Scope::Dns),
            Self::Status => None,
        }
    }

    /// What rows can be sorted by, the largest first; the first is the default.
    fn sorts(self) -> &'static [(&'static str, Field)] {
        match self {
            Self::Edges | Self::Series => &[
                ("bytes", Field::Bytes),
                ("sent_bytes", Field::SentBytes),
                ("recv_bytes", Field::RecvBytes),
                ("connections", Field::Connections),
                ("retransmits", Field::Retransmits),
                ("rtt_us", Field::RttUs),
                ("failures", Field::Failures),
            ],
            Self::Connections => &[
                ("bytes", Field::Bytes),
                ("sent_bytes", Field::SentBytes),
                ("recv_bytes", Field::RecvBytes),
                ("retransmits", Field::Retransmits),
                ("rtt_us", Field::RttUs),
            ],
            Self::Dns => &[
                ("queries", Field::Queries),
                ("failures", Field::Failures),
                ("retransmits", Field::Retransmits),
                ("latency_us", Field::LatencyUs),
            ],
            Self::Diff | Self::Transactions | Self::Metadata | Self::Status => &[],
        }
    }
}

/// Why a question is none: which parameter, its value, what is allowed, and the place in it.
#[derive(Debug)]
pub(crate) struct Wrong(pub(crate) Problem);

impl From<String> for Wrong {
    fn from(error: String) -> Self {
        Self(Problem { error, position: None })
    }
}

impl From<FilterError> for Wrong {
    fn from(error: FilterError) -> Self {
        let position =
            Position { parameter: "filter".to_owned(), column: error.column as u64, expected: error.expected.clone() };
        Self(Problem { error: error.to_string(), position: Some(position) })
    }
}

/// Parses the parameters of a request.
///
/// # Errors
/// What is wrong, in words that name what is allowed.
pub(crate) fn parse(asked: Asked, pairs: &[(String, String)], now: UnixNanos) -> Result<Question, Wrong> {
    let allowed = asked.allowed();
    let at = pairs.iter().find(|(name, _)| name == "at" && allowed.contains(&"at"));
    let at = at.map(|(_, value)| {
        let at = instant(value, now).ok_or_else(|| format!("parameter `at` is `{value}`; {INSTANTS}"))?;
        if at > now {
            return Err(format!("parameter `at` is `{value}`, which is later than now; write an earlier time"));
        }
        Ok(at)
    });
    let at = at.transpose()?;
    // Durations lead back from the instant that is asked about.
    let (really, now) = (now, at.unwrap_or(now));
    let default_since = match asked {
        Asked::Edges | Asked::Connections | Asked::Dns => Some(now.plus(-SPAN_NS)),
        Asked::Series => Some(now.plus(-SERIES_NS)),
        // What was so at the instant.
        Asked::Metadata => at,
        Asked::Diff | Asked::Transactions | Asked::Status => None,
    };
    let mut question =
        Question { limit: if asked == Asked::Series { SERIES_LIMIT } else { LIMIT }, ..Question::default() };
    let mut seen = Vec::new();
    let mut opened = Expand::default();
    for (name, value) in pairs {
        if !allowed.contains(&name.as_str()) {
            return Err(if allowed.is_empty() {
                format!("parameter `{name}` is not known here; this path takes none")
            } else {
                format!("parameter `{name}` is not known here; known are {}", allowed.join(", "))
            }
            .into());
        }
        if name != EXPAND && seen.contains(&name) {
            return Err(format!("parameter `{name}` is given twice; give it once").into());
        }
        seen.push(name);
        let wrong = |allowed: &str| format!("parameter `{name}` is `{value}`; {allowed}");
        let glob = || {
            if value.is_empty() {
                return Err(wrong("write a name, with * for any characters"));
            }
            Ok(Some(Glob::new(value)))
        };
        match name.as_str() {
            EXPAND => opened.open(value).ok_or_else(|| wrong(EXPANDED))?,
            "since" => question.since = Some(instant(value, now).ok_or_else(|| wrong(INSTANTS))?),
            "until" => question.until = Some(instant(value, now).ok_or_else(|| wrong(INSTANTS))?),
            "at" => {
                if pairs.iter().any(|(other, _)| other == "until") {
                    return Err("parameter `at` is the end of the span, as `until` is; give one of them"
                        .to_owned()
                        .into());
                }
                // An instant itself is a span of nothing: what holds at it reaches beyond.
                question.until = at.map(|at| if asked == Asked::Metadata { at.plus(1) } else { at });
            }
            "step" => question.step = Some(step(value).ok_or_else(|| wrong(STEPS))?),
            "sort" => {
                question.sort = Some(one_of(asked.sorts(), value).map_err(|allowed| wrong(&allowed))?);
            }
            "by" => question.by = grouping(value).map_err(|allowed| wrong(&allowed))?,
            "state" => question.state = one_of(&CONDITIONS, value).map_err(|allowed| wrong(&allowed))?,
            "protocol" => {
                question.protocol = Some(one_of(&PROTOCOLS, &value.to_lowercase()).map_err(|allowed| wrong(&allowed))?);
            }
            "from" => question.from = glob()?,
            "to" => question.to = glob()?,
            "name" => question.name = glob()?,
            "namespace" => question.namespace = glob()?,
            "node" => question.node = glob()?,
            "service" => question.service = glob()?,
            "kind" => question.kind = glob()?,
            "filter" => {
                let filter = asked.scope().map(|scope| Filter::parse(scope, value)).transpose()?;
                question.filter = filter.map(Arc::new);
            }
            "label" => {
                let (key, pattern) = value
                    .split_once('=')
                    .filter(|(key, _)| !key.is_empty())
                    .ok_or_else(|| wrong("write key=value, for example process=nginx"))?;
                question.label = Some((key.to_owned(), Glob::new(pattern)));
            }
            "cidr" => {
                let network = value.parse::<IpNet>().or_else(|_| value.parse::<IpAddr>().map(IpNet::from));
                let allowed = "write an address or a network, for example 10.0.0.0/8 or fd00::/8";
                question.cidr = Some(network.map_err(|_not_a_network| wrong(allowed))?);
            }
            "health" if one_of(&BOOLEANS, value).map_err(|allowed| wrong(&allowed))? => {
                // Those that are unhealthy have theirs, too.
                if question.health == HealthAsked::No {
                    question.health = HealthAsked::All;
                }
            }
            "unhealthy" if one_of(&BOOLEANS, value).map_err(|allowed| wrong(&allowed))? => {
                question.health = HealthAsked::Unhealthy;
            }
            // What is compared is joined below.
            "health" | "unhealthy" | "before" | "after" | "window" | "rollout" => {}
            "port" => {
                question.port = Some(value.parse().map_err(|_not_a_port| wrong("write a number from 0 to 65535"))?);
            }
            _ => {
                let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                question.limit = limit.ok_or_else(|| wrong(&format!("write a number from 1 to {LIMIT_MAX}")))?;
            }
        }
    }
    match &mut question.by {
        Grouping::Namespace(expand) => *expand = opened,
        _ if opened != Expand::NOTHING => {
            return Err("parameter `expand` opens what is grouped by namespace; give it with by=namespace"
                .to_owned()
                .into());
        }
        _ => {}
    }
    if asked == Asked::Diff {
        question.compared = Some(compared(pairs, now)?);
        return Ok(question);
    }
    let default_since =
        if question.health == HealthAsked::Unhealthy { Some(now.plus(-UNHEALTHY_NS)) } else { default_since };
    question.since = question.since.or(default_since);
    if let (Some(since), until) = (question.since, question.until.unwrap_or(really))
        && since >= until
    {
        let at = super::rfc3339;
        return Err(format!(
            "parameter `since` is {}, which is not before `until`, {}; write an earlier `since`",
            at(since),
            at(until)
        )
        .into());
    }
    if question.health != HealthAsked::No
        && let (Some(since), until) = (question.since, question.until.unwrap_or(really))
        && until.since(since) / WINDOW_NS > WINDOWS_JUDGED_MAX
    {
        return Err("parameter `since` is too long ago: edges are judged in spans of up to 4h, window by window; write a shorter \
                    one, or compare two spans, as `weir diff` does"
            .to_owned()
            .into());
    }
    Ok(question)
}

/// What is compared, from `before`, `after`, `window` and `rollout`.
fn compared(pairs: &[(String, String)], now: UnixNanos) -> Result<Compared, String> {
    const WINDOWS: &str = "write how long a span is that is named by its end, 10s to 7d, for example 10m";
    const SPANS: &str = "write an instant (a duration back from now such as 30m, or an RFC 3339 time), of which the window before it \
                         is meant, or FROM..UNTIL";
    let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let wrong = |name: &str, value: &str, allowed: &str| format!("parameter `{name}` is `{value}`; {allowed}");
    let window = match value("window") {
        Some(text) => {
            let length = humantime::parse_duration(text).ok().and_then(|length| i64::try_from(length.as_nanos()).ok());
            let length = length.filter(|length| (WINDOW_NS..=7 * 24 * 3600 * 1_000_000_000).contains(length));
            length.ok_or_else(|| wrong("window", text, WINDOWS))?
        }
        None => COMPARED_NS,
    };
    if let Some(workload) = value("rollout") {
        if value("before").is_some() || value("after").is_some() {
            return Err(
                "parameter `rollout` says what is compared, as `before` and `after` do; give one of them".into()
            );
        }
        if !workload.split_once('/').is_some_and(|(namespace, name)| !namespace.is_empty() && !name.is_empty()) {
            return Err(wrong("rollout", workload, "write NAMESPACE/DEPLOYMENT, for example shop/checkout"));
        }
        return Ok(Compared::Rollout { workload: workload.to_owned(), window });
    }
    let named = |name: &str, text: &str| -> Result<(Span, bool), String> {
        let at = |text: &str| instant(text, now).ok_or_else(|| wrong(name, text, SPANS));
        match text.split_once("..") {
            Some((from, until)) => Ok(((at(from)?, at(until)?), true)),
            None => at(text).map(|until| ((until.plus(-window), until), false)),
        }
    };
    let Some(before) = value("before") else {
        return Err(format!("parameter `before` is missing; {SPANS}, or give `rollout`"));
    };
    let (before, _) = named("before", before)?;
    let (mut after, is_exact) = match value("after") {
        Some(text) => named("after", text)?,
        None => ((now.plus(-window), now), false),
    };
    if !is_exact {
        // The end was named, not the start: what both would share tells of no difference.
        after.0 = after.0.max(before.1);
    }
    let at = super::rfc3339;
    for (name, span) in [("before", before), ("after", after)] {
        if span.0 >= span.1 {
            return Err(format!(
                "the span `{name}` would be from {} until {}, which is nothing; `before` ends first, then `after`",
                at(span.0),
                at(span.1)
            ));
        }
    }
    if after.0 < before.1 {
        return Err(format!(
            "the span `after` begins at {}, before the span `before` ends, at {}; write spans that do not overlap",
            at(after.0),
            at(before.1)
        ));
    }
    if after.1 > now {
        return Err(format!(
            "the span `after` ends at {}, which is later than now; write an earlier time",
            at(after.1)
        ));
    }
    Ok(Compared::Spans { before, after })
}

const STEPS: &str = "write a multiple of 10s up to 7d, for example 30s, 5m or 1h";

fn step(text: &str) -> Option<Step> {
    let step = i64::try_from(humantime::parse_duration(text).ok()?.as_nanos()).ok()?;
    ((WINDOW_NS..=7 * 24 * 3600 * 1_000_000_000).contains(&step) && step % WINDOW_NS == 0).then_some(Step(step))
}

const INSTANTS: &str = "write a duration back from now (5m, 2h, 7d) or an RFC 3339 time (2026-01-02T03:04:05Z)";

fn instant(text: &str, now: UnixNanos) -> Option<UnixNanos> {
    if let Ok(back) = humantime::parse_duration(text) {
        return Some(now.plus(-i64::try_from(back.as_nanos()).ok()?));
    }
    // A `+` of an offset that was not escaped arrives as a blank.
    let at: jiff::Timestamp = text.replace(' ', "+").parse().ok()?;
    i64::try_from(at.as_nanosecond()).ok().map(UnixNanos)
}

fn grouping(value: &str) -> Result<Grouping, String> {
    match value.strip_prefix("attribute:").filter(|name| !name.is_empty()) {
        Some(name) => Ok(Grouping::Attribute(name.to_owned())),
        None => one_of(&GROUPINGS, value).map_err(|allowed| format!("{allowed}, or attribute:NAME")),
    }
}

fn one_of<T: Clone>(table: &[(&str, T)], value: &str) -> Result<T, String> {
    table.iter().find(|(name, _)| *name == value).map(|(_, found)| found.clone()).ok_or_else(|| {
        let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
        format!("write one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixNanos = UnixNanos(1_700_000_000_000_000_000);

    fn ask(asked: Asked, pairs: &[(&str, &str)]) -> Result<Question, String> {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        parse(asked, &pairs, NOW).map_err(|wrong| wrong.0.error)
    }

    #[test]
    fn spans_are_durations_or_times() {
        let question = ask(Asked::Edges, &[]).unwrap();
        assert_eq!((question.since, question.until), (Some(NOW.plus(-SPAN_NS)), None));
        assert_eq!(ask(Asked::Transactions, &[]).unwrap().since, None);
        let then = NOW.plus(-86_400_000_000_000);
        let question = ask(Asked::Edges, &[("at", "1d")]).unwrap();
        assert_eq!((question.since, question.until), (Some(then.plus(-SPAN_NS)), Some(then)));
        let question = ask(Asked::Series, &[("since", "10m"), ("at", "1d"), ("step", "30s")]).unwrap();
        assert_eq!((question.since, question.until), (Some(then.plus(-600_000_000_000)), Some(then)));
        assert_eq!((question.step, question.limit), (Some(Step(30_000_000_000)), SERIES_LIMIT));
        let question = ask(Asked::Metadata, &[("at", "1d")]).unwrap();
        assert_eq!((question.since, question.until), (Some(then), Some(then.plus(1))));
        let question = ask(Asked::Edges, &[("since", "2h"), ("until", "2023-11-14T22:13:00 00:00")]).unwrap();
        assert_eq!(question.since, Some(NOW.plus(-7_200_000_000_000)));
        assert_eq!(question.until, Some(NOW.plus(-20_000_000_000)));
    }

    #[test]
    fn what_is_compared_is_two_spans_or_a_rollout() {
        let minutes = |count: i64| NOW.plus(count * 60_000_000_000);
        let compared = |pairs: &[(&str, &str)]| ask(Asked::Diff, pairs).map(|question| question.compared.unwrap());
        for (pairs, before, after) in [
            (&[("before", "1h")][..], (-70, -60), (-10, 0)),
            (&[("before", "5m")], (-15, -5), (-5, 0)),
            (&[("before", "1h"), ("after", "30m"), ("window", "5m")], (-65, -60), (-35, -30)),
            (&[("before", "2h..1h"), ("after", "20m..10m")], (-120, -60), (-20, -10)),
        ] {
            let spans = |(from, until): (i64, i64)| (minutes(from), minutes(until));
            let expected = Compared::Spans { before: spans(before), after: spans(after) };
            assert_eq!(compared(pairs), Ok(expected), "{pairs:?}");
        }
        let rollout = Compared::Rollout { workload: "shop/cart".into(), window: 60_000_000_000 };
        assert_eq!(compared(&[("rollout", "shop/cart"), ("window", "1m")]), Ok(rollout));
        for (pairs, expected) in [
            (&[][..], "parameter `before` is missing; write an instant"),
            (&[("before", "soon")], "parameter `before` is `soon`; write an instant"),
            (&[("before", "1h"), ("window", "1s")], "parameter `window` is `1s`; write how long"),
            (&[("rollout", "cart")], "parameter `rollout` is `cart`; write NAMESPACE/DEPLOYMENT"),
            (&[("rollout", "a/b"), ("before", "1h")], "parameter `rollout` says what is compared"),
            (&[("before", "1h"), ("after", "2h")], "the span `after` would be"),
            (&[("before", "1h..5m"), ("after", "10m..1m")], "the span `after` begins at"),
            (
                &[("before", "1h"), ("since", "1h")],
                "parameter `since` is not known here; known are before, after, window",
            ),
        ] {
            let problem = compared(pairs).unwrap_err();
            assert!(problem.starts_with(expected), "{problem}");
        }
    }

    #[test]
    fn a_wrong_parameter_is_named_with_its_value_and_what_is_allowed() {
        for (pairs, expected) in [
            (&[("sinse", "5m")][..], "parameter `sinse` is not known here; known are since, until, at, by"),
            (&[("since", "yesterday")], "parameter `since` is `yesterday`; write a duration"),
            (&[("by", "pods")], "parameter `by` is `pods`; write one of pod, workload, container, service"),
            (&[("by", "attribute:")], "parameter `by` is `attribute:`; write one of pod"),
            (&[("kind", "pod")], "parameter `kind` is not known here"),
            (&[("limit", "0")], "parameter `limit` is `0`; write a number from 1"),
            (&[("port", "65536")], "parameter `port` is `65536`; write a number from 0 to 65535"),
            (&[("cidr", "10.0.0.0/40")], "parameter `cidr` is `10.0.0.0/40`; write an address"),
            (&[("protocol", "icmp")], "parameter `protocol` is `icmp`; write one of tcp, udp"),
            (&[("label", "nginx")], "parameter `label` is `nginx`; write key=value"),
            (&[("from", "")], "parameter `from` is ``; write a name"),
            (&[("since", "1m"), ("since", "2m")], "parameter `since` is given twice"),
            (&[("since", "1m"), ("until", "2m")], "parameter `since` is "),
            (
                &[("sort", "name")],
                "parameter `sort` is `name`; write one of bytes, sent_bytes, recv_bytes, connections",
            ),
            (&[("at", "2023-11-14T23:00:00Z")], "parameter `at` is `2023-11-14T23:00:00Z`, which is later than now"),
            (&[("at", "5m"), ("until", "1m")], "parameter `at` is the end of the span, as `until` is"),
            (&[("step", "1m")], "parameter `step` is not known here"),
            (&[("by", "namespace"), ("expand", "a/b/c")], "parameter `expand` is `a/b/c`; write a namespace (shop)"),
            (&[("expand", "shop")], "parameter `expand` opens what is grouped by namespace; give it with by=namespace"),
            (&[("by", "pod"), ("expand", "shop")], "parameter `expand` opens what is grouped by namespace"),
            (&[("filter", "port=")], "filter, column 6: it ends after `=`"),
        ] {
            let problem = ask(Asked::Edges, pairs).unwrap_err();
            assert!(problem.starts_with(expected), "{problem}");
        }
        for wrong in ["5s", "15s", "8d", "often", "-10s"] {
            assert!(ask(Asked::Series, &[("step", wrong)]).unwrap_err().ends_with(STEPS), "{wrong}");
        }
        assert!(ask(Asked::Status, &[("limit", "1")]).unwrap_err().ends_with("this path takes none"));
        assert!(ask(Asked::Metadata, &[("by", "node")]).is_err());
        let twice = [("expand", "shop"), ("by", "namespace"), ("expand", "shop/cart")];
        let Grouping::Namespace(expand) = ask(Asked::Series, &twice).unwrap().by else { panic!("by another") };
        assert!(expand.has_namespace("shop") && expand.has_workload("shop", "cart"));
        assert!(ask(Asked::Dns, &[("by", "namespace"), ("expand", "shop")]).is_err());
        let by = |value| ask(Asked::Edges, &[("by", value)]).unwrap().by;
        assert_eq!((by("pod"), by("attribute:team")), (Grouping::Pod, Grouping::Attribute("team".into())));
    }
}
