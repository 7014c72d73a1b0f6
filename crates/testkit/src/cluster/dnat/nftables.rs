//! One node's rules as `nft -f` reads them, with kube-proxy's table, maps and chains.
//!
//! ```text
//! nat-prerouting, nat-output ─▶ services ─ @service-ips ─▶ service-x ─ by chance ─▶ dnat
//!                                   │                          └ affinity ─▶ endpoint-y ─▶ remember, dnat
//!                                   └ @service-nodeports ─▶ external-x ─ Cluster: mark ─▶ service-x
//!                                                                     └ Local ─▶ local-x
//! nat-postrouting ─▶ masquerading: what is marked, and pods that reach themselves
//! ```

use super::{Backend, MASQUERADE_MARK, ServicePort, View, hash};
use crate::cluster::plan::TrafficPolicy;
use std::collections::BTreeSet;
use std::fmt::Write as _;

const TABLE: &str = "kube-proxy";

/// Sets that outlive a replacement: who stays with which endpoint.
const AFFINITY: &str = "affinity-";

/// The text for one family, and the names of the Services' chains and sets in it; `known` are the ones in the kernel.
pub(crate) fn rules(view: &View, known: &BTreeSet<String>) -> (String, BTreeSet<String>) {
    let mut writer = Writer {
        ip: if view.node.is_ipv4() { "ip" } else { "ip6" },
        view,
        chains: Vec::new(),
        affinity: Vec::new(),
        elements: Vec::new(),
    };
    for port in &view.ports {
        writer.port(port);
    }
    let text = writer.text(known);
    let sets = writer.affinity.iter().map(|(name, _)| name.clone());
    (text, writer.chains.iter().map(|(name, _)| name.clone()).chain(sets).collect())
}

struct Writer<'a> {
    ip: &'static str,
    view: &'a View,
    /// Name and rules.
    chains: Vec<(String, Vec<String>)>,
    /// Name and timeout in seconds.
    affinity: Vec<(String, u64)>,
    /// Set and element.
    elements: Vec<(&'static str, String)>,
}

impl Writer<'_> {
    fn port(&mut self, port: &ServicePort) {
        let (protocol, hash) = (port.protocol.as_str(), port.hash());
        let service = format!("{} . {protocol} . {}", port.address, port.port);
        self.elements.push(("cluster-ips", port.address.to_string()));
        if port.backends.is_empty() {
            self.elements.push(("no-endpoint-services", format!("{service} : goto reject-chain")));
            if let Some((number, _)) = port.node_port {
                self.elements.push(("no-endpoint-nodeports", format!("{protocol} . {number} : goto reject-chain")));
            }
            return;
        }
        let chain = format!("service-{hash}");
        self.elements.push(("service-ips", format!("{service} : goto {chain}")));
        let rules = self.choice(port, &port.backends);
        self.chains.push((chain, rules));
        for backend in &port.backends {
            self.elements
                .push(("hairpin-connections", format!("{0} . {0} . {protocol} . {1}", backend.address, backend.port)));
            if let Some(time) = port.affinity {
                let (name, set) = (endpoint_chain(port, *backend), affinity_set(port, *backend));
                let remember = format!("update @{set} {{ {} saddr }}", self.ip);
                let dnat = format!("meta l4proto {protocol} dnat to {}", backend.socket());
                self.affinity.push((set, time.as_secs()));
                self.chains.push((name, vec![remember, dnat]));
            }
        }
        if let Some((number, policy)) = port.node_port {
            self.external(port, number, policy);
        }
    }

    fn external(&mut self, port: &ServicePort, number: u16, policy: TrafficPolicy) {
        let (protocol, hash) = (port.protocol.as_str(), port.hash());
        let (all, external) = (format!("service-{hash}"), format!("external-{hash}"));
        self.elements.push(("service-nodeports", format!("{protocol} . {number} : goto {external}")));
        let mark = format!("meta mark set meta mark or {MASQUERADE_MARK}");
        let rules = match policy {
            TrafficPolicy::Cluster => vec![mark, format!("goto {all}")],
            TrafficPolicy::Local => {
                let local = format!("local-{hash}");
                let backends = port.local();
                let rules = if backends.is_empty() { vec!["drop".to_owned()] } else { self.choice(port, &backends) };
                self.chains.push((local.clone(), rules));
                vec![
                    format!("{} saddr {} goto {all}", self.ip, self.view.pods),
                    format!("fib saddr type local {mark} goto {all}"),
                    format!("goto {local}"),
                ]
            }
        };
        self.chains.push((external, rules));
    }

    /// To the endpoint that the client has, else to one by chance.
    fn choice(&self, port: &ServicePort, backends: &[Backend]) -> Vec<String> {
        let count = backends.len();
        let mut rules = Vec::new();
        if port.affinity.is_some() {
            for backend in backends {
                let (chain, set) = (endpoint_chain(port, *backend), affinity_set(port, *backend));
                rules.push(format!("{} saddr @{set} goto {chain}", self.ip));
            }
            let list = list(backends, |backend| format!("goto {}", endpoint_chain(port, backend)));
            rules.push(format!("numgen random mod {count} vmap {{ {list} }}"));
        } else {
            let list = list(backends, |backend| format!("{} . {}", backend.address, backend.port));
            let protocol = port.protocol.as_str();
            let ip = self.ip;
            rules.push(format!("meta l4proto {protocol} dnat {ip} to numgen random mod {count} map {{ {list} }}"));
        }
        rules
    }

    fn text(&self, known: &BTreeSet<String>) -> String {
        let (ip, view) = (self.ip, self.view);
        let mut text = format!("add table {ip} {TABLE}\nflush table {ip} {TABLE}\ntable {ip} {TABLE} {{\n");
        let (address, reject) = if ip == "ip" { ("ipv4_addr", "icmp") } else { ("ipv6_addr", "icmpv6") };
        let sets = [
            format!("set cluster-ips {{ type {address}; }}"),
            format!("set hairpin-connections {{ type {address} . {address} . inet_proto . inet_service; }}"),
            format!("map service-ips {{ type {address} . inet_proto . inet_service : verdict; }}"),
            "map service-nodeports { type inet_proto . inet_service : verdict; }".to_owned(),
            format!("map no-endpoint-services {{ type {address} . inet_proto . inet_service : verdict; }}"),
            "map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }".to_owned(),
        ];
        for set in sets {
            let _ = writeln!(text, "  {set}");
        }
        for (name, seconds) in &self.affinity {
            let _ = writeln!(text, "  set {name} {{ type {address}; flags dynamic, timeout; timeout {seconds}s; }}");
        }
        for (name, _) in &self.chains {
            let _ = writeln!(text, "  chain {name} {{\n  }}");
        }
        let node = view.node;
        let (pods, own_pods, services) = (view.pods, &view.own_pods, view.services);
        let tuple = format!("{ip} daddr . meta l4proto . th dport");
        let _ = write!(
            text,
            "  chain reject-chain {{
    reject with {reject} port-unreachable
  }}
  chain services {{
    {ip} daddr @cluster-ips {ip} saddr != {pods} meta mark set meta mark or {MASQUERADE_MARK}
    {tuple} vmap @service-ips
    {ip} daddr {node} meta l4proto . th dport vmap @service-nodeports
  }}
  chain endpoints-check {{
    {tuple} vmap @no-endpoint-services
    {ip} daddr {node} meta l4proto . th dport vmap @no-endpoint-nodeports
  }}
  chain cluster-ips-check {{
    {ip} daddr @cluster-ips reject with {reject} port-unreachable
    {ip} daddr {services} drop
  }}
  chain masquerading {{
    meta mark and {MASQUERADE_MARK} != 0 meta mark set meta mark xor {MASQUERADE_MARK} masquerade fully-random
    ct status dnat {ip} saddr . {ip} daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random
    {ip} saddr {own_pods} {ip} daddr != {pods} fib daddr type != local masquerade
  }}
  chain nat-prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    jump services
  }}
  chain nat-output {{
    type nat hook output priority -100; policy accept;
    jump services
  }}
  chain nat-postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    jump masquerading
  }}
  chain filter-input {{
    type filter hook input priority filter; policy accept;
    ct state new jump endpoints-check
  }}
  chain filter-forward {{
    type filter hook forward priority filter; policy accept;
    ct state new jump endpoints-check
    ct state new jump cluster-ips-check
  }}
  chain filter-output {{
    type filter hook output priority filter; policy accept;
    ct state new jump endpoints-check
    ct state new jump cluster-ips-check
  }}
}}
"
        );
        let maps = ["service-ips", "service-nodeports", "no-endpoint-services", "no-endpoint-nodeports"];
        for map in maps {
            let _ = writeln!(text, "flush map {ip} {TABLE} {map}");
        }
        for set in ["cluster-ips", "hairpin-connections"] {
            let _ = writeln!(text, "flush set {ip} {TABLE} {set}");
        }
        for (set, element) in &self.elements {
            let _ = writeln!(text, "add element {ip} {TABLE} {set} {{ {element} }}");
        }
        for (name, rules) in &self.chains {
            for rule in rules {
                let _ = writeln!(text, "add rule {ip} {TABLE} {name} {rule}");
            }
        }
        let is_current = |name: &str| {
            self.chains.iter().any(|(chain, _)| chain == name) || self.affinity.iter().any(|(set, _)| set == name)
        };
        for name in known.iter().filter(|name| !is_current(name)) {
            let kind = if name.starts_with(AFFINITY) { "set" } else { "chain" };
            let _ = writeln!(text, "delete {kind} {ip} {TABLE} {name}");
        }
        text
    }
}

fn list(backends: &[Backend], target: impl Fn(Backend) -> String) -> String {
    let items: Vec<String> =
        backends.iter().enumerate().map(|(index, backend)| format!("{index} : {}", target(*backend))).collect();
    items.join(", ")
}

fn endpoint_chain(port: &ServicePort, backend: Backend) -> String {
    format!("endpoint-{}", hash(&format!("{}/{}", port.hash(), backend.socket())))
}

fn affinity_set(port: &ServicePort, backend: Backend) -> String {
    format!("{AFFINITY}{}", hash(&format!("{}/{}", port.hash(), backend.socket())))
}
