//! One node's rules as `iptables-restore` and `ip6tables-restore` read them, with kube-proxy's chains.
//!
//! ```text
//! PREROUTING, OUTPUT ─▶ KUBE-SERVICES ─ address ─▶ KUBE-SVC-x ─ by chance or affinity ─▶ KUBE-SEP-y ─▶ DNAT
//!                            └ node's address ─▶ KUBE-NODEPORTS ─▶ KUBE-EXT-x ─ Cluster: mark ─▶ KUBE-SVC-x
//!                                                                            └ Local ─▶ KUBE-SVL-x ─▶ KUBE-SEP-y
//! POSTROUTING ─▶ KUBE-POSTROUTING ─ marked ─▶ MASQUERADE
//! ```

use super::{Backend, MASQUERADE_MARK, ServicePort, View, hash};
use crate::cluster::plan::TrafficPolicy;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The text for one family. Both tables are replaced as a whole.
pub(crate) fn rules(view: &View) -> String {
    let mut writer = Writer { view, nat: Table::default(), filter: Table::default() };
    writer.frame();
    for port in &view.ports {
        writer.port(port);
    }
    writer.node_ports();
    format!("{}{}", writer.filter.text("filter"), writer.nat.text("nat"))
}

/// Chains in the order of their names, rules in the order of their making.
#[derive(Default)]
struct Table(BTreeMap<String, Vec<String>>);

impl Table {
    fn rule(&mut self, chain: &str, rule: String) {
        self.0.entry(chain.to_owned()).or_default().push(rule);
    }

    fn text(&self, name: &str) -> String {
        let mut text = format!("*{name}\n");
        for chain in self.0.keys().filter(|chain| chain.starts_with("KUBE-")) {
            let _ = writeln!(text, ":{chain} - [0:0]");
        }
        for (chain, rules) in &self.0 {
            for rule in rules {
                let _ = writeln!(text, "-A {chain} {rule}");
            }
        }
        text.push_str("COMMIT\n");
        text
    }
}

struct Writer<'a> {
    view: &'a View,
    nat: Table,
    filter: Table,
}

impl Writer<'_> {
    fn frame(&mut self) {
        let view = self.view;
        for chain in ["PREROUTING", "OUTPUT"] {
            self.nat.rule(chain, comment("kubernetes service portals", "-j KUBE-SERVICES"));
        }
        for chain in ["KUBE-SERVICES", "KUBE-NODEPORTS"] {
            self.nat.0.entry(chain.into()).or_default();
        }
        for chain in ["KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES"] {
            self.filter.0.entry(chain.into()).or_default();
        }
        self.nat.rule("POSTROUTING", comment("kubernetes postrouting rules", "-j KUBE-POSTROUTING"));
        // The CNI plugin's: a pod speaks to what is no pod by its node's address.
        self.nat.rule(
            "POSTROUTING",
            format!("-s {} ! -d {} -m addrtype ! --dst-type LOCAL -j MASQUERADE", view.own_pods, view.pods),
        );
        self.nat.rule("KUBE-MARK-MASQ", format!("-j MARK --set-xmark {MASQUERADE_MARK}/{MASQUERADE_MARK}"));
        let posting = "KUBE-POSTROUTING";
        self.nat.rule(posting, format!("-m mark ! --mark {MASQUERADE_MARK}/{MASQUERADE_MARK} -j RETURN"));
        self.nat.rule(posting, format!("-j MARK --set-xmark {MASQUERADE_MARK}/0x0"));
        let masquerade = "-j MASQUERADE --random-fully";
        self.nat.rule(posting, comment("kubernetes service traffic requiring SNAT", masquerade));

        for chain in ["INPUT", "FORWARD", "OUTPUT"] {
            let new = "-m conntrack --ctstate NEW -j ";
            if chain != "INPUT" {
                self.filter.rule(chain, format!("{new}KUBE-SERVICES"));
            }
            if chain != "OUTPUT" {
                self.filter.rule(chain, format!("{new}KUBE-EXTERNAL-SERVICES"));
            }
        }
        self.filter.rule("FORWARD", comment("kubernetes forwarding rules", "-j KUBE-FORWARD"));
        let forward = "KUBE-FORWARD";
        self.filter.rule(forward, "-m conntrack --ctstate INVALID -j DROP".into());
        self.filter.rule(forward, format!("-m mark --mark {MASQUERADE_MARK}/{MASQUERADE_MARK} -j ACCEPT"));
        self.filter.rule(forward, "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".into());
    }

    fn port(&mut self, port: &ServicePort) {
        let (protocol, name) = (port.protocol.as_str(), format!("{}:{}", port.service, port.name));
        let to = |address: &str, port: u16| format!("-d {address} -p {protocol} -m {protocol} --dport {port}");
        let service = to(&port.address.to_string(), port.port);
        if port.backends.is_empty() {
            let nobody = comment(&format!("{name} has no endpoints"), "-j REJECT");
            self.filter.rule("KUBE-SERVICES", format!("{service} {nobody}"));
            if let Some((number, _)) = port.node_port {
                let node = format!("-m addrtype --dst-type LOCAL -p {protocol} -m {protocol} --dport {number}");
                self.filter.rule("KUBE-EXTERNAL-SERVICES", format!("{node} {nobody}"));
            }
            return;
        }
        let chain = format!("KUBE-SVC-{}", port.hash());
        self.nat.rule("KUBE-SERVICES", comment(&format!("{name} cluster IP"), &format!("{service} -j {chain}")));
        self.nat.rule(&chain, format!("! -s {} {service} -j KUBE-MARK-MASQ", self.view.pods));
        self.choice(&chain, port, &port.backends);
        for backend in &port.backends {
            self.endpoint(port, *backend);
        }
        if let Some((number, policy)) = port.node_port {
            self.external(port, number, policy);
        }
    }

    fn external(&mut self, port: &ServicePort, number: u16, policy: TrafficPolicy) {
        let (protocol, name) = (port.protocol.as_str(), format!("{}:{}", port.service, port.name));
        let (all, external) = (format!("KUBE-SVC-{}", port.hash()), format!("KUBE-EXT-{}", port.hash()));
        let node = format!("-p {protocol} -m {protocol} --dport {number}");
        self.nat.rule("KUBE-NODEPORTS", comment(&name, &format!("{node} -j {external}")));
        match policy {
            TrafficPolicy::Cluster => {
                let why = format!("masquerade traffic for {name} external destinations");
                self.nat.rule(&external, comment(&why, "-j KUBE-MARK-MASQ"));
                self.nat.rule(&external, format!("-j {all}"));
            }
            TrafficPolicy::Local => {
                let local = format!("KUBE-SVL-{}", port.hash());
                self.nat.rule(&external, format!("-s {} -j {all}", self.view.pods));
                self.nat.rule(&external, "-m addrtype --src-type LOCAL -j KUBE-MARK-MASQ".into());
                self.nat.rule(&external, format!("-m addrtype --src-type LOCAL -j {all}"));
                self.nat.rule(&external, format!("-j {local}"));
                let backends = port.local();
                self.nat.0.entry(local.clone()).or_default();
                self.choice(&local, port, &backends);
                if backends.is_empty() {
                    let nobody = comment(&format!("{name} has no local endpoints"), "-j DROP");
                    let rule = format!("-m addrtype --dst-type LOCAL {node} {nobody}");
                    self.filter.rule("KUBE-EXTERNAL-SERVICES", rule);
                }
            }
        }
    }

    /// To the endpoint that the client has, else to one by chance: each rule takes an equal part of what is left.
    fn choice(&mut self, chain: &str, port: &ServicePort, backends: &[Backend]) {
        if let Some(time) = port.affinity {
            for backend in backends {
                let sep = endpoint_chain(port, *backend);
                let recent = format!("-m recent --name {sep} --rcheck --seconds {} --reap --rsource", time.as_secs());
                self.nat.rule(chain, format!("{recent} -j {sep}"));
            }
        }
        for (index, backend) in backends.iter().enumerate() {
            let left = backends.len() - index;
            let chance = match left {
                1 => String::new(),
                left => format!("-m statistic --mode random --probability {:.10} ", 1.0 / left as f64),
            };
            self.nat.rule(chain, format!("{chance}-j {}", endpoint_chain(port, *backend)));
        }
    }

    fn endpoint(&mut self, port: &ServicePort, backend: Backend) {
        let (chain, protocol) = (endpoint_chain(port, backend), port.protocol.as_str());
        // A pod that reaches itself must see the node as the client, or it would answer to itself directly.
        self.nat.rule(&chain, format!("-s {} -j KUBE-MARK-MASQ", backend.address));
        let recent = port.affinity.map(|_| format!("-m recent --name {chain} --set --rsource ")).unwrap_or_default();
        let socket = backend.socket();
        self.nat.rule(&chain, format!("{recent}-p {protocol} -m {protocol} -j DNAT --to-destination {socket}"));
    }

    fn node_ports(&mut self) {
        self.nat.rule("KUBE-SERVICES", format!("-d {} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS", self.view.node));
    }
}

fn endpoint_chain(port: &ServicePort, backend: Backend) -> String {
    format!("KUBE-SEP-{}", hash(&format!("{}/{}", port.hash(), backend.socket())))
}

fn comment(why: &str, rule: &str) -> String {
    format!("-m comment --comment \"{why}\" {rule}")
}
