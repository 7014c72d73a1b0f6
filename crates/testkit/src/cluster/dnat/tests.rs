//! What the rules say, without a kernel.

use super::*;
use crate::cluster::plan::TrafficPolicy;

fn view(policy: TrafficPolicy, affinity: Option<Duration>) -> View {
    let backend = |last, is_local| Backend { address: [10, 244, 1, last].into(), port: 8080, is_local };
    let port = |service: &str, backends: Vec<Backend>| ServicePort {
        service: service.into(),
        name: "http".into(),
        protocol: Protocol::Tcp,
        address: [10, 96, 0, 20].into(),
        port: 80,
        node_port: Some((30080, policy)),
        affinity,
        backends,
    };
    View {
        pods: "10.244.0.0/16",
        own_pods: "10.244.1.0/24".into(),
        services: "10.96.0.0/16",
        node: [10, 88, 0, 11].into(),
        ports: vec![port("demo/web", vec![backend(2, true), backend(3, false)]), port("demo/none", Vec::new())],
    }
}

#[test]
fn iptables_rules_are_kube_proxys() {
    let text = iptables::rules(&view(TrafficPolicy::Cluster, None));
    // As recorded from kube-proxy, but for the names' hashes.
    for rule in [
        "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
        "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully",
        "-m statistic --mode random --probability 0.5000000000 -j KUBE-SEP-",
        "-s 10.244.1.2 -j KUBE-MARK-MASQ",
        "-p tcp -m tcp -j DNAT --to-destination 10.244.1.3:8080",
        " ! -s 10.244.0.0/16 -d 10.96.0.20 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ",
        "-p tcp -m tcp --dport 30080 -j KUBE-EXT-",
        "--comment \"demo/none:http has no endpoints\" -j REJECT",
    ] {
        assert!(text.contains(rule), "{rule} is not in:\n{text}");
    }
    let names = text.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
    // xt_table's names take 28 letters (include/uapi/linux/netfilter/x_tables.h, XT_EXTENSION_MAXNAMELEN).
    assert!(names.into_iter().all(|name| name.len() <= 28));
}

#[test]
fn a_node_port_that_keeps_the_client_leads_to_local_endpoints_only() {
    let view = view(TrafficPolicy::Local, None);
    let text = iptables::rules(&view);
    let local: Vec<&str> = text.lines().filter(|line| line.starts_with("-A KUBE-SVL-")).collect();
    assert_eq!(local.len(), 1, "{local:?}");
    let (text, chains) = nftables::rules(&view, &BTreeSet::new());
    let chain = chains.iter().find(|name| name.starts_with("local-")).unwrap();
    let rule = text.lines().find(|line| line.starts_with(&format!("add rule ip kube-proxy {chain}"))).unwrap();
    assert!(rule.contains("10.244.1.2 . 8080") && !rule.contains("10.244.1.3"), "{rule}");
}

#[test]
fn nftables_keeps_affinities_and_removes_what_is_gone() {
    let view = view(TrafficPolicy::Cluster, Some(Duration::from_secs(60)));
    let (_, before) = nftables::rules(&view, &BTreeSet::new());
    assert_eq!(before.iter().filter(|name| name.starts_with("affinity-")).count(), 2);
    let (same, _) = nftables::rules(&view, &before);
    assert!(!same.contains("delete"), "{same}");
    assert!(!same.lines().any(|line| line.starts_with("flush set") && line.contains("affinity-")), "{same}");
    let fewer = View { ports: Vec::new(), ..view };
    let (less, after) = nftables::rules(&fewer, &before);
    assert!(after.is_empty());
    assert_eq!(less.lines().filter(|line| line.starts_with("delete ")).count(), before.len());
}
