//! What clients were told about addresses by DNS: the name that an end beyond every known node gets. Pure.
//!
//! A name is the client's own: two clients may know one address by different names, and one that never asked knows none.
//! Which one it is follows from the last answer before the connection began, so it never changes afterwards (R6).

use std::collections::HashMap;
use std::net::IpAddr;
use weir_model::UnixNanos;
use weir_store::DnsName;

/// How long after an answer's time to live its name may still name a connection. Applications keep addresses longer than
/// they may: runtimes cache them, pools connect again to what they had. A day covers what is restarted or asked again
/// daily.
pub(crate) const HOLD_NS: i64 = 24 * 3600 * 1_000_000_000;
/// Names that are taken in at most: more than a store keeps (`DNS_NAMES_MAX` of the applier).
const NAMES_MAX: usize = 200_000;

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// By node and client, then by address, then by the first answer's time.
    clients: HashMap<(String, String), HashMap<IpAddr, Vec<Span>>>,
    entries: usize,
}

#[derive(Debug)]
struct Span {
    from: UnixNanos,
    until: UnixNanos,
    name: String,
}

impl Told {
    /// Takes a name in.
    pub(crate) fn learn(&mut self, told: DnsName) {
        if self.entries >= NAMES_MAX || told.name.is_empty() {
            return;
        }
        self.entries += 1;
        let addresses = self.clients.entry((told.node.0, told.client)).or_default();
        let spans = addresses.entry(told.address).or_default();
        let place = spans.partition_point(|span| (span.from, span.name.as_str()) < (told.from, told.name.as_str()));
        spans.insert(place, Span { from: told.from, until: told.until, name: told.name });
    }

    /// Whether nobody was told anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The name by which a client on a node knew an address when it connected.
    pub(crate) fn name(&self, node: &str, client: &str, address: IpAddr, connected: UnixNanos) -> Option<&str> {
        let spans = self.clients.get(&(node.to_owned(), client.to_owned()))?.get(&address)?;
        let last = spans.partition_point(|span| span.from <= connected).checked_sub(1)?;
        let span = &spans[last];
        (connected <= span.until.plus(HOLD_NS)).then_some(span.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::NodeName;

    const SECOND: i64 = 1_000_000_000;

    fn told(client: &str, name: &str, from: i64, until: i64) -> DnsName {
        DnsName {
            node: NodeName("a".into()),
            client: client.into(),
            address: [192, 0, 2, 7].into(),
            name: name.into(),
            from: UnixNanos(from * SECOND),
            last: UnixNanos(from * SECOND),
            until: UnixNanos(until * SECOND),
            netns: 1,
        }
    }

    #[test]
    fn an_address_has_the_name_that_its_client_was_told_last_before_it_connected() {
        let mut names = Told::default();
        for one in [told("c", "b.example", 20, 50), told("c", "a.example", 10, 40), told("d", "z.example", 5, 6)] {
            names.learn(one);
        }
        let name = |node, client, address: [u8; 4], at: i64| {
            names.name(node, client, address.into(), UnixNanos(at * SECOND)).map(str::to_owned)
        };
        assert_eq!(name("a", "c", [192, 0, 2, 7], 9), None, "an answer names nothing that was there before it");
        assert_eq!(name("a", "c", [192, 0, 2, 7], 15).as_deref(), Some("a.example"));
        assert_eq!(name("a", "c", [192, 0, 2, 7], 25).as_deref(), Some("b.example"));
        assert_eq!(name("a", "d", [192, 0, 2, 7], 25).as_deref(), Some("z.example"));
        assert_eq!(name("a", "e", [192, 0, 2, 7], 25), None, "who never asked was told nothing");
        assert_eq!(name("b", "c", [192, 0, 2, 7], 25), None, "another node's client is another client");
        assert_eq!(name("a", "c", [192, 0, 2, 8], 25), None);
        let hold = HOLD_NS / SECOND;
        assert_eq!(name("a", "d", [192, 0, 2, 7], 6 + hold).as_deref(), Some("z.example"));
        assert_eq!(name("a", "d", [192, 0, 2, 7], 7 + hold), None, "an answer is not for ever");
    }
}
