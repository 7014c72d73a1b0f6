//! Names that are right: a promise each (R6).

mod told;

use told::{
    Told as _, address, at, container, container_id, endpoint, fact, inventory, pod, remote, service, socket, text,
    watched,
};
use weir_inventory::inventory::{Basis, Limits};
use weir_inventory::{Inventory, LocalEnd, RemoteEnd};
use weir_model::{Certainty, Fact, Protocol};

fn names(services: &[weir_inventory::inventory::ServiceRef<'_>]) -> Vec<String> {
    services.iter().map(|service| service.name.to_owned()).collect()
}

#[test]
fn reused_pod_ip_is_not_attributed_to_the_old_pod() {
    let known = inventory(&[
        pod("old").from(100).to(200).at_addresses(&["10.0.0.1"]),
        pod("new").from(300).at_addresses(&["10.0.0.1"]),
    ]);
    assert_eq!(text(remote(&known, "10.0.0.1", 150)), "pod shop/old");
    assert_eq!(text(remote(&known, "10.0.0.1", 250)), "unknown /10.0.0.1");
    assert_eq!(text(remote(&known, "10.0.0.1", 350)), "pod shop/new");
    assert_eq!(remote(&known, "10.0.0.1", 350).certainty, Certainty::Inferred);
    // Handed on at once: the clocks of two nodes cannot tell who had it within a second of the change.
    let handed_on = inventory(&[
        pod("old").from(100).to(200).at_addresses(&["10.0.0.1"]),
        pod("new").from(200).at_addresses(&["10.0.0.1"]).on("b"),
    ]);
    let named = |began| text(remote(&handed_on, "10.0.0.1", began));
    assert_eq!(
        [named(189), named(191), named(199), named(200), named(209), named(210)],
        [
            "pod shop/old",
            "unknown /10.0.0.1",
            "unknown /10.0.0.1",
            "unknown /10.0.0.1",
            "unknown /10.0.0.1",
            "pod shop/new"
        ]
    );
}

#[test]
fn an_own_end_is_its_pod_else_its_container_else_its_process() {
    let id = container_id('c');
    let own = |known: &Inventory, container_id: &str| {
        text(known.local(&LocalEnd { container_id, process: "nginx", ..socket("10.0.0.1") }, at(150)))
    };
    assert_eq!(own(&inventory(&[]), ""), "process /nginx");
    assert_eq!(own(&inventory(&[]), &id), "container /cccccccccccc");
    assert_eq!(own(&inventory(&[container('c', "httpd", "web")]), &id), "container shop/httpd");
    assert_eq!(own(&inventory(&[container('c', "httpd", "web"), pod("web")]), &id), "pod shop/web");
    assert_eq!(text(inventory(&[]).local(&socket("10.0.0.1"), at(150))), "unknown /10.0.0.1");
}

#[test]
fn loopback_and_link_local_addresses_name_nobody() {
    let known = inventory(&[watched("node", "a", "", "a").at_addresses(&["127.0.0.1", "169.254.20.10", "fe80::1"])]);
    for nobody in ["127.0.0.1", "0.0.0.0", "::1"] {
        let who = remote(&known, nobody, 150);
        assert_eq!((who.kind(), who.certainty), ("unknown", Certainty::Unknown), "{nobody}");
    }
    assert_ne!(remote(&known, "169.254.20.10", 150).kind(), "node", "every node has it");
}

#[test]
fn an_address_that_two_pods_claim_names_nobody() {
    let known = inventory(&[pod("one").at_addresses(&["10.0.0.1"]), pod("two").at_addresses(&["10.0.0.1"]).on("b")]);
    assert_eq!(text(remote(&known, "10.0.0.1", 150)), "unknown /10.0.0.1");
}

#[test]
fn an_address_that_the_cluster_has_held_is_never_external() {
    let known = inventory(&[
        pod("gone").to(200).at_addresses(&["10.0.0.1"]),
        service("gone", "s", "10.96.0.1", "80/tcp").to(200),
        endpoint("api", "10.0.0.2", "80/tcp").with("target_pod", "somebody"),
    ]);
    for held in ["10.0.0.1", "10.96.0.1", "10.0.0.2"] {
        assert_eq!(remote(&known, held, 500).kind(), "unknown", "{held}");
        assert_eq!(remote(&known, held, 50).kind(), "unknown", "{held}");
        assert!(known.is_held(address(held)));
    }
    assert_eq!(remote(&known, "10.0.0.3", 500).kind(), "external");
}

#[test]
fn a_reused_pid_is_not_attributed_to_the_old_process() {
    let process = |start: u64, name: &str, letter| {
        fact("tracer", "process", &format!("77@{start}")).called("", name).of(&container_id(letter)).in_netns(0)
    };
    let known = inventory(&[
        pod("old").to(200),
        pod("new").from(300),
        container('a', "app", "old").to(200),
        container('b', "app", "new").from(300),
        process(10_000_000_000, "old", 'a').from(100).to(200),
        process(30_000_000_000, "new", 'b').from(300),
    ]);
    let by_pid = |start, tenths| {
        let end = LocalEnd { pid: 77, process_start: start, process: "named", ..socket("10.0.0.1") };
        let who = known.local(&end, at(tenths));
        (text(who), who.certainty)
    };
    assert_eq!(by_pid(0, 150), ("pod shop/old".into(), Certainty::Inferred));
    assert_eq!(by_pid(0, 350), ("pod shop/new".into(), Certainty::Inferred));
    assert_eq!(by_pid(0, 250).0, "process /named", "between two it is what the record calls it, and no pod's");
    // With its start a process is itself at any time; /proc rounds to 10 ms.
    assert_eq!(by_pid(10_003_000_000, 350), ("pod shop/old".into(), Certainty::Known));
    assert_eq!(by_pid(20_000_000_000, 350).0, "process /named");
}

#[test]
fn a_reused_namespace_inode_is_not_attributed_to_the_old_pod() {
    let known = inventory(&[
        pod("old").in_netns(7).to(200),
        pod("new").in_netns(7).from(300),
        pod("elsewhere").in_netns(7).on("b"),
    ]);
    let by_netns = |tenths| {
        let who = known.local(&LocalEnd { netns: 7, ..socket("10.0.0.1") }, at(tenths));
        (text(who), who.basis)
    };
    assert_eq!(by_netns(150), ("pod shop/old".into(), Basis::Netns));
    assert_eq!(by_netns(250), ("unknown /10.0.0.1".into(), Basis::Nothing));
    assert_eq!(by_netns(350), ("pod shop/new".into(), Basis::Netns));
}

#[test]
fn a_pod_younger_than_its_connection_does_not_get_it_by_its_address() {
    let known = inventory(&[pod("young").from(300).at_addresses(&["10.0.0.1"])]);
    assert_eq!(text(remote(&known, "10.0.0.1", 250)), "unknown /10.0.0.1");
    let end = |began, first_seen| RemoteEnd { seen_on: "a", address: address("10.0.0.1"), began, first_seen };
    assert_eq!(text(known.remote(&end(None, at(350)))), "pod shop/young", "nothing says that it began before");
    // Its own socket says in its cgroup whose it is, however the clocks went.
    let path = "/kubepods/besteffort/pod00000000-0000-0000-0000-000000000001/x";
    let by_cgroup =
        inventory(&[fact("kubelet", "pod", "00000000-0000-0000-0000-000000000001").called("shop", "young")]);
    let who = by_cgroup.local(&LocalEnd { cgroup_path: path, ..socket("10.0.0.1") }, at(50));
    assert_eq!((text(who), who.certainty), ("pod shop/young".into(), Certainty::Known));
}

#[test]
fn a_pod_older_than_its_connection_gets_it_also_when_it_is_gone() {
    let known = inventory(&[
        pod("old").from(100).to(400).at_addresses(&["10.0.0.1"]),
        container('a', "app", "old").from(110).to(400),
    ]);
    assert_eq!(text(remote(&known, "10.0.0.1", 390)), "pod shop/old");
    let end = LocalEnd { container_id: &container_id('a'), ..socket("10.0.0.1") };
    assert_eq!(text(known.local(&end, at(900))), "pod shop/old", "its last rows come late");
}

#[test]
fn metadata_that_is_30_s_late_still_names_the_connection() {
    let mut known = Inventory::default();
    let id = container_id('a');
    let own = LocalEnd { container_id: &id, process: "nginx", ..socket("10.0.0.1") };
    assert_eq!(remote(&known, "10.0.0.1", 150).kind(), "external");
    assert_ne!(remote(&known, "10.0.0.1", 150).certainty, Certainty::Known, "a private address may be a pod's");
    assert_eq!(text(known.local(&own, at(150))), "container /aaaaaaaaaaaa");
    let late = |fact: Fact| Fact { said: at(450), ..fact };
    known.learn(&late(pod("web").from(100).to(200).at_addresses(&["10.0.0.1"])));
    known.learn(&late(container('a', "app", "web").from(100).to(200)));
    assert_eq!(text(remote(&known, "10.0.0.1", 150)), "pod shop/web");
    assert_eq!(text(known.local(&own, at(150))), "pod shop/web");
    assert_eq!(known.local(&own, at(150)).container().map(|container| container.name), Some("app"));
}

#[test]
fn a_finished_job_is_still_named_with_its_cron_job() {
    let known = inventory(&[
        pod("backup-1-x").owned_by("Job", "backup-1", "job-uid").at_addresses(&["10.0.0.1"]).to(200),
        watched("job", "job-uid", "shop", "backup-1").owned_by("CronJob", "backup", "cron-uid").to(220),
        container('a', "dump", "backup-1-x").to(200),
    ]);
    for who in [
        remote(&known, "10.0.0.1", 150),
        known.local(&LocalEnd { container_id: &container_id('a'), ..socket("10.0.0.1") }, at(9000)),
    ] {
        let workload = who.workload().unwrap();
        assert_eq!((workload.kind, workload.namespace, workload.name), ("cron_job", "shop", "backup"));
        assert_eq!(workload.certainty, Certainty::Known);
    }
}

#[test]
fn owner_chains_end_at_what_a_person_deployed() {
    let mut known = inventory(&[
        pod("web-5d4-x").owned_by("ReplicaSet", "web-5d4", "rs"),
        watched("replica_set", "rs", "shop", "web-5d4").owned_by("Deployment", "web", "d"),
        pod("api-77f-x").owned_by("ReplicaSet", "api-77f", "unseen").with("pod_template_hash", "77f"),
        pod("old-x").owned_by("ReplicaSet", "old", "unseen-too"),
        pod("lone-x").owned_by("ReplicaSet", "lone", "lone-rs"),
        watched("replica_set", "lone-rs", "shop", "lone"),
        pod("db-0").owned_by("StatefulSet", "db", "s"),
        pod("log-x").owned_by("DaemonSet", "log", "ds"),
        pod("ray-x").owned_by("RayCluster", "ray", "r"),
        pod("bare"),
        pod("kube-proxy-a").owned_by("Node", "a", "n"),
        fact("cri", "pod", "runtime-uid").called("shop", "runtime"),
    ]);
    for (letter, uid) in ('a'..).zip([
        "web-5d4-x-uid",
        "api-77f-x-uid",
        "old-x-uid",
        "lone-x-uid",
        "db-0-uid",
        "log-x-uid",
        "ray-x-uid",
        "bare-uid",
        "kube-proxy-a-uid",
        "runtime-uid",
    ]) {
        known.learn(&fact("cri", "container", &container_id(letter)).of(uid));
    }
    let workload = |letter| {
        let id = container_id(letter);
        let who = known.local(&LocalEnd { container_id: &id, ..socket("10.0.0.1") }, at(150));
        let workload = who.workload().unwrap();
        format!("{} {} {}", workload.kind, workload.name, workload.certainty)
    };
    // Identifiers of containers are hexadecimal, but nothing here reads them.
    assert_eq!(
        ('a'..='j').map(workload).collect::<Vec<_>>(),
        [
            "deployment web known",
            "deployment api inferred",
            "replica_set old unknown",
            "replica_set lone known",
            "stateful_set db known",
            "daemon_set log known",
            "ray_cluster ray known",
            "pod bare known",
            "pod kube-proxy-a known",
            "pod runtime unknown",
        ]
    );
}

#[test]
fn a_renamed_service_keeps_its_old_name_for_old_connections() {
    let known = inventory(&[
        service("old", "s", "10.96.0.1", "80/tcp").to(200),
        service("new", "s", "10.96.0.1", "80/tcp").from(200),
        endpoint("old", "10.0.0.1", "8080/tcp").to(200),
        endpoint("new", "10.0.0.1", "8080/tcp").from(200),
    ]);
    let name = |tenths| known.service_at(address("10.96.0.1"), 80, Protocol::Tcp, at(tenths)).unwrap().name;
    assert_eq!((name(150), name(250)), ("old", "new"));
    assert_eq!(text(remote(&known, "10.96.0.1", 150)), "service shop/old");
    let of = |tenths| names(&known.services_of(address("10.0.0.1"), None, 8080, Protocol::Tcp, at(tenths)));
    assert_eq!((of(150), of(250)), (vec!["old".to_owned()], vec!["new".to_owned()]));
}

#[test]
fn a_service_deleted_and_made_anew_is_told_apart_by_time() {
    let known = inventory(&[
        service("web", "first", "10.96.0.1", "80/tcp").to(200),
        service("web", "second", "10.96.0.2", "80/tcp").from(300),
        service("other", "third", "10.96.0.1", "80/tcp").from(400),
    ]);
    let at_address = |service: &str, tenths| {
        let found = known.service_at(address(service), 80, Protocol::Tcp, at(tenths));
        found.map(|service| (service.name.to_owned(), service.id.to_owned()))
    };
    let found = |name: &str, id: &str| Some((name.to_owned(), id.to_owned()));
    assert_eq!(at_address("10.96.0.1", 150), found("web", "first"));
    assert_eq!(at_address("10.96.0.1", 250), None);
    assert_eq!(at_address("10.96.0.2", 350), found("web", "second"));
    assert_eq!(at_address("10.96.0.1", 450), found("other", "third"));
}

#[test]
fn two_containers_of_a_pod_are_told_apart() {
    let known = inventory(&[
        pod("web").at_addresses(&["10.0.0.1"]).in_netns(7),
        container('a', "httpd", "web").with("image", "httpd:2"),
        container('b', "side", "web").with("image", "side:1"),
    ]);
    for (letter, name, image) in [('a', "httpd", "httpd:2"), ('b', "side", "side:1")] {
        let id = container_id(letter);
        let who = known.local(&LocalEnd { container_id: &id, netns: 7, ..socket("10.0.0.1") }, at(150));
        assert_eq!((text(who), who.container().unwrap().name), ("pod shop/web".into(), name));
        assert_eq!(who.attribute("container", "image"), Some(image));
    }
    // By the namespace alone it is the pod, and neither container.
    let by_netns = known.local(&LocalEnd { netns: 7, ..socket("10.0.0.1") }, at(150));
    assert_eq!((text(by_netns), by_netns.container()), ("pod shop/web".into(), None));
}

#[test]
fn host_network_pods_are_told_apart_and_their_address_says_only_the_node() {
    let on_host = |name| pod(name).at_addresses(&["192.168.0.1"]).in_netns(1).with("host_network", "true");
    let known = inventory(&[
        watched("node", "a", "", "a").at_addresses(&["192.168.0.1"]).with("zone", "z1"),
        on_host("proxy"),
        on_host("exporter"),
        container('a', "proxy", "proxy"),
        container('b', "exporter", "exporter"),
        fact("tracer", "process", "1@0").called("", "systemd").in_netns(1),
        fact("tracer", "process", "900@5").called("", "proxy").of(&container_id('a')).in_netns(1),
    ]);
    let far = remote(&known, "192.168.0.1", 150);
    assert_eq!((text(far), far.node(), far.zone()), ("node /a".into(), "a", Some("z1")));
    let (proxy, exporter) = (container_id('a'), container_id('b'));
    let host = LocalEnd { netns: 1, process: "sshd", ..socket("192.168.0.1") };
    let named = |end: LocalEnd<'_>| text(known.local(&end, at(150)));
    assert_eq!(named(LocalEnd { container_id: &proxy, ..host }), "pod shop/proxy");
    assert_eq!(named(LocalEnd { container_id: &exporter, ..host }), "pod shop/exporter");
    assert_eq!(named(LocalEnd { pid: 900, ..host }), "pod shop/proxy", "by its process");
    assert_eq!(named(host), "process /sshd", "neither the namespace nor the address is one pod's");
    assert_eq!(named(LocalEnd { cgroup_path: "/system.slice/ssh.service", ..host }), "process /sshd");
    // Also where no source told of the node itself.
    let no_node = inventory(&[on_host("proxy"), on_host("exporter")]);
    assert_eq!(text(remote(&no_node, "192.168.0.1", 150)), "node /a");
}

#[test]
fn a_shared_network_namespace_names_none_of_its_containers() {
    let alone = |letter, name| fact("docker", "container", &container_id(letter)).called("", name).in_netns(7);
    let known = inventory(&[alone('a', "app").at_addresses(&["172.17.0.2"]), alone('b', "debug")]);
    let end = LocalEnd { netns: 7, process: "app", ..socket("172.17.0.9") };
    assert_eq!(text(known.local(&end, at(150))), "process /app");
    let id = container_id('b');
    let by_id = known.local(&LocalEnd { container_id: &id, ..end }, at(150));
    assert_eq!(text(by_id), "container /debug");
    let single = inventory(&[alone('a', "app")]);
    assert_eq!(text(single.local(&end, at(150))), "container /app");
    // A process of the host in the namespace makes it nobody's.
    let mut entered = single;
    entered.learn(&fact("proc", "process", "5@1").called("", "nsenter").in_netns(7));
    assert_eq!(text(entered.local(&end, at(150))), "process /app");
}

#[test]
fn a_static_pod_is_one_pod_under_both_uids() {
    let mirror = "0b6be0d3-16f6-4a38-a3a7-0d1c9f2a5a11";
    let hash = "cd24ea17f0a18698d722008e4f953339";
    let told = [
        fact("kubelet", "pod", mirror).called("kube-system", "etcd-a").with("aliases", hash).in_netns(9),
        fact("cri", "pod", hash).called("kube-system", "etcd-a").at_addresses(&["10.0.0.1"]).in_netns(9),
        fact("cri", "container", &container_id('a')).called("kube-system", "etcd").of(hash),
        fact("kubelet", "container", &container_id('a')).called("kube-system", "etcd").of(mirror),
    ];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]] {
        let known = inventory(order.map(|place| &told[place]));
        let path = format!("/kubepods/burstable/pod{hash}/{}", container_id('f'));
        let paused = known.local(&LocalEnd { cgroup_path: &path, ..socket("10.0.0.1") }, at(150));
        let id = container_id('a');
        let etcd = known.local(&LocalEnd { container_id: &id, ..socket("10.0.0.1") }, at(150));
        let by_netns = known.local(&LocalEnd { netns: 9, ..socket("10.0.0.1") }, at(150));
        for who in [paused, etcd, by_netns, remote(&known, "10.0.0.1", 150)] {
            assert_eq!(text(who), "pod kube-system/etcd-a", "{order:?}");
            assert_eq!(who.pod().unwrap().id, mirror, "{order:?}");
            assert_eq!(who.workload().unwrap().kind, "pod");
        }
        assert_eq!(known.disagreements(9).0, 0, "{order:?}: both UIDs are the same parent");
    }
}

#[test]
fn the_pause_container_and_a_closed_runtime_are_named_by_the_pods_uid_in_the_path() {
    let uid = "94d6947c-3d7f-461d-9e06-17ecd60d40a4";
    let known = inventory(&[fact("kubelet", "pod", uid).called("shop", "web")]);
    let pause = container_id('e');
    for path in [
        format!("/kubepods/besteffort/pod{uid}/{pause}"),
        format!(
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{}.slice/cri-containerd-{pause}.scope",
            uid.replace('-', "_")
        ),
    ] {
        let who = known.local(&LocalEnd { cgroup_path: &path, ..socket("10.0.0.1") }, at(150));
        assert_eq!((text(who), who.certainty, who.basis), ("pod shop/web".into(), Certainty::Known, Basis::Cgroup));
        assert_eq!(who.container().unwrap().id, pause);
    }
}

#[test]
fn a_dual_stack_pod_and_service_are_one_under_both_families() {
    let six = "2001:db8::1";
    let known = inventory(&[
        pod("web").at_addresses(&["10.0.0.1", six]),
        service("web", "s", "10.96.0.1", "80/tcp").at_addresses(&["10.96.0.1", "fd00::1"]),
        endpoint("web", "10.0.0.1", "8080/tcp").with("target_pod", "web-uid"),
        endpoint("web", six, "8080/tcp").with("target_pod", "web-uid"),
    ]);
    for own in ["10.0.0.1", six, "::ffff:10.0.0.1"] {
        assert_eq!(text(remote(&known, own, 150)), "pod shop/web");
        assert_eq!(names(&known.services_of(address(own), Some("web-uid"), 8080, Protocol::Tcp, at(150))), ["web"]);
    }
    for cluster in ["10.96.0.1", "fd00::1"] {
        assert_eq!(known.service_at(address(cluster), 80, Protocol::Tcp, at(150)).unwrap().name, "web");
    }
    assert_eq!(names(&known.services_of_pod("web-uid", 8080, Protocol::Tcp, at(150))), ["web"]);
}

#[test]
fn services_are_found_by_their_dns_names_and_by_those_that_they_stand_for() {
    let named = |name: &str, dns: &str| {
        watched("service", &format!("{name}-uid"), "shop", name)
            .with("service_type", "ExternalName")
            .with("external_name", dns)
    };
    let known = inventory(&[
        named("db", "db.example.com").to(200),
        named("db2", "db.example.com").from(300),
        named("db3", "db.example.com").from(400),
        service("web", "w", "10.96.0.1", "80/tcp").to(200),
    ]);
    let found = |dns: &str, tenths| names(&known.services_by_dns_name(dns, at(tenths)));
    assert_eq!(found("DB.example.com.", 150), ["db"]);
    assert_eq!(found("db.example.com", 350), ["db2"]);
    assert_eq!(found("db.example.com", 450), ["db2", "db3"], "which one was asked for is not known");
    assert!(found("example.com", 150).is_empty());
    for own in ["db.shop.svc.cluster.local", "DB.shop.svc.", "db-0.db.shop.svc.other.domain"] {
        assert_eq!(found(own, 150), ["db"], "{own}");
        assert!(found(own, 250).is_empty(), "{own}");
    }
    assert_eq!(found("web.shop.svc.cluster.local", 150), ["web"]);
    for other in ["db.front.svc.cluster.local", "svc", "shop.svc", "db.shop.pod.cluster.local", ""] {
        assert!(found(other, 150).is_empty(), "{other}");
    }
}

#[test]
fn a_service_without_a_selector_is_found_by_its_address_and_its_endpoints() {
    let known = inventory(&[
        service("legacy", "s", "10.96.0.9", "5432/tcp").with("selectorless", "true"),
        endpoint("legacy", "192.0.2.10", "5432/tcp"),
    ]);
    assert_eq!(known.service_at(address("10.96.0.9"), 5432, Protocol::Tcp, at(150)).unwrap().name, "legacy");
    assert_eq!(names(&known.services_of(address("192.0.2.10"), None, 5432, Protocol::Tcp, at(150))), ["legacy"]);
    assert_eq!(remote(&known, "192.0.2.10", 150).kind(), "external", "what is behind it is not the cluster's");
}

#[test]
fn the_ports_of_a_service_are_told_apart() {
    let known = inventory(&[
        service("one", "1", "203.0.113.1", "http:80/tcp@30080,https:443/tcp@30443"),
        service("two", "2", "203.0.113.1", "dns:53/udp,dns-tcp:53/tcp"),
        watched("node", "a", "", "a").at_addresses(&["192.168.0.1"]),
        pod("proxy").at_addresses(&["192.168.0.2"]).with("host_network", "true").on("b"),
        endpoint("one", "10.0.0.1", "http:8080/tcp,https:8443/tcp"),
        endpoint("two", "10.0.0.1", "dns:5353/udp"),
    ]);
    let at_port = |holder: &str, port, protocol| {
        known.service_at(address(holder), port, protocol, at(150)).map(|service| service.name)
    };
    assert_eq!(at_port("203.0.113.1", 443, Protocol::Tcp), Some("one"));
    assert_eq!(at_port("203.0.113.1", 53, Protocol::Udp), Some("two"));
    assert_eq!(at_port("203.0.113.1", 22, Protocol::Tcp), None);
    assert_eq!(at_port("192.168.0.1", 30443, Protocol::Tcp), Some("one"), "a node port on any node");
    assert_eq!(at_port("192.168.0.2", 30080, Protocol::Tcp), Some("one"));
    assert_eq!(at_port("192.168.0.1", 30443, Protocol::Udp), None);
    assert_eq!(at_port("10.0.0.1", 30443, Protocol::Tcp), None, "a pod has no node ports");
    let of = |port, protocol| names(&known.services_of(address("10.0.0.1"), None, port, protocol, at(150)));
    assert_eq!(of(8443, Protocol::Tcp), ["one"]);
    assert_eq!(of(5353, Protocol::Udp), ["two"]);
    assert!(of(5353, Protocol::Tcp).is_empty());
}

#[test]
fn all_services_of_a_headless_end_are_candidates_and_another_pods_are_none() {
    let known = inventory(&[
        watched("service", "h", "shop", "db").with("headless", "true").with("ports", "5432/tcp"),
        endpoint("db", "10.0.0.1", "5432/tcp").with("target_pod", "db-0-uid"),
        endpoint("db-read", "10.0.0.1", "5432/tcp").with("target_pod", "db-0-uid"),
        endpoint("stale", "10.0.0.1", "5432/tcp").with("target_pod", "old-uid"),
        pod("db-0").at_addresses(&["10.0.0.1"]),
    ]);
    let of = |pod| names(&known.services_of(address("10.0.0.1"), pod, 5432, Protocol::Tcp, at(150)));
    assert_eq!(of(Some("db-0-uid")), ["db", "db-read"]);
    assert_eq!(of(None), ["db", "db-read", "stale"]);
}

#[test]
fn a_configured_network_names_an_external() {
    let networks = [("198.51.100.0/24", "office"), ("198.51.100.64/26", "lab")];
    let named = networks.map(|(network, name)| (network.parse().unwrap(), name.to_owned()));
    let mut known = Inventory::new(Limits::default(), named);
    known.learn(&pod("inside").at_addresses(&["198.51.100.1"]));
    assert_eq!(text(remote(&known, "198.51.100.70", 150)), "external /lab");
    assert_eq!(text(remote(&known, "198.51.100.2", 150)), "external /office");
    assert_eq!(remote(&known, "198.51.100.2", 150).certainty, Certainty::Known);
    assert_eq!(text(remote(&known, "198.51.100.1", 150)), "pod shop/inside", "what the cluster holds comes first");
    assert_eq!(text(remote(&known, "203.0.113.1", 150)), "external /203.0.113.1");
}

#[test]
fn containers_of_two_nodes_with_one_address_are_told_apart_by_where_they_are_seen() {
    let bridge = |node, letter, name| {
        let known = fact("docker", "container", &container_id(letter)).called("", name);
        known.on(node).at_addresses(&["172.17.0.2"])
    };
    let known = inventory(&[bridge("a", 'a', "here"), bridge("b", 'b', "there")]);
    assert_eq!(text(remote(&known, "172.17.0.2", 150)), "container /here");
    let from_c = RemoteEnd { seen_on: "c", address: address("172.17.0.2"), began: None, first_seen: at(150) };
    assert_eq!(text(known.remote(&from_c)), "unknown /172.17.0.2");
}

#[test]
fn an_end_is_grouped_by_what_was_collected_about_everything_it_belongs_to() {
    let known = inventory(&[
        watched("node", "a", "", "a").with("zone", "z1").with("instance_type", "m5"),
        watched("namespace", "n", "", "shop").with("team", "red"),
        pod("web-1").owned_by("ReplicaSet", "web", "rs").with("app", "web").at_addresses(&["10.0.0.1"]),
        watched("replica_set", "rs", "shop", "web").with("tier", "front"),
        container('a', "httpd", "web-1").with("image", "httpd:2"),
        service("web", "s", "10.96.0.1", "80/tcp").with("owner", "blue"),
    ]);
    let id = container_id('a');
    let who = known.local(&LocalEnd { container_id: &id, ..socket("10.0.0.1") }, at(150));
    for (kind, name, value) in [
        ("container", "image", Some("httpd:2")),
        ("pod", "app", Some("web")),
        ("replica_set", "tier", Some("front")),
        ("job", "tier", None),
        ("node", "instance_type", Some("m5")),
        ("namespace", "team", Some("red")),
        ("pod", "nothing", None),
        ("nothing", "app", None),
    ] {
        assert_eq!(who.attribute(kind, name), value, "{kind}.{name}");
    }
    assert_eq!(who.zone(), Some("z1"));
    assert_eq!(remote(&known, "10.96.0.1", 150).attribute("service", "owner"), Some("blue"));
    assert_eq!(remote(&known, "10.0.0.1", 150).attribute("pod", "app"), Some("web"));
}

#[test]
fn sources_that_disagree_are_counted_and_the_better_one_stands() {
    let told = [
        fact("kubelet", "pod", "u").called("shop", "right"),
        fact("cri", "pod", "u").called("shop", "wrong"),
        fact("docker", "container", &container_id('a')).called("shop", "k8s_app").of("u").with("pids", "5"),
        fact("tracer", "container", &container_id('a')).of("u").with("pids", "6").with("image", "guess"),
        fact("kubelet", "container", &container_id('a')).called("shop", "app").of("u").with("image", "real"),
    ];
    for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 4, 0, 2, 3]] {
        let known = inventory(order.map(|place| &told[place]));
        let id = container_id('a');
        let who = known.local(&LocalEnd { container_id: &id, ..socket("10.0.0.1") }, at(150));
        assert_eq!((text(who), who.container().unwrap().name), ("pod shop/right".into(), "app"));
        assert_eq!(
            (who.attribute("container", "pids"), who.attribute("container", "image")),
            (Some("6"), Some("real"))
        );
        let (count, examples) = known.disagreements(1);
        assert_eq!((count, examples.len()), (2, 1));
        let (_, all) = known.disagreements(9);
        let pod = all.iter().find(|disagreement| disagreement.kind == "pod").unwrap();
        assert_eq!((pod.id.as_str(), pod.field), ("u", "name"));
        assert_eq!(pod.says, [("kubelet", "right".to_owned()), ("cri", "wrong".to_owned())]);
    }
}

#[test]
fn tombstones_are_forgotten_in_time_and_nothing_of_them_is_left() {
    let mut known = Inventory::default();
    for life in 0..100_000_i64 {
        let (name, held) = (format!("pod-{life}"), format!("10.0.0.{}", life % 50));
        known.learn(&pod(&name).from(life).to(life + 10).at_addresses(&[&held]).in_netns(life as u32 % 50 + 1));
        if life % 1_000 == 0 {
            known.expire(at(life - 1_000));
        }
    }
    assert!(known.facts() <= 2_100, "{}", known.facts());
    assert!(known.text_bytes() <= 4_000_000, "{}", known.text_bytes());
    let left = known.facts();
    assert_eq!((known.expire(at(300_000)), known.facts()), (left, 0));
    assert!(!known.is_held(address("10.0.0.1")));
}

#[test]
fn what_a_node_said_that_is_gone_for_good_is_forgotten_and_nothing_of_it_is_left() {
    let mut known = Inventory::default();
    let of_node = |node: &str, number: usize| {
        let held = format!("10.{}.{}.1", number / 256, number % 256);
        pod(&format!("pod-of-{node}")).on(node).at_addresses(&[&held])
    };
    for number in 0..40_000 {
        let node = format!("node-{number}");
        known.learn(&of_node(&node, number));
        known.vouch(&node, "kubelet", at(0), at(200));
        if number % 1_000 == 999 {
            let gone: Vec<String> = (number - 999..number).map(|gone| format!("node-{gone}")).collect();
            let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
            let mut expiry = known.plan_expiry(at(1_000), &gone);
            let mut forgotten = 0;
            while let Some(more) = known.expire_next(&mut expiry, 100) {
                assert!(more <= 100, "{more}");
                forgotten += more;
            }
            assert_eq!(forgotten, 999);
            known.vouch("living", "kubelet", at(0), at(1_000_000_000));
            if let Some(mut sweep) = known.plan_sweep(forgotten) {
                while known.sweep_next(&mut sweep, 100) {}
            }
        }
    }
    assert_eq!(known.facts(), 40, "the last node of each thousand stays");
    assert!(known.text_bytes() <= 4_000_000, "{}", known.text_bytes());
    assert_eq!(text(remote(&known, "10.3.231.1", 150)), "pod shop/pod-of-node-999");
    assert_eq!(text(remote(&known, "10.3.230.1", 150)), "external /10.3.230.1");
    // What it says once it is back stands.
    known.learn(&of_node("node-998", 998));
    known.vouch("node-998", "kubelet", at(0), at(2_000));
    assert_eq!(text(remote(&known, "10.3.230.1", 1_500)), "pod shop/pod-of-node-998");
}

#[test]
fn a_sweep_that_was_planned_before_another_change_does_nothing() {
    let mut known = Inventory::default();
    for life in 0..70_000_i64 {
        known.learn(&pod(&format!("pod-{life}")).from(life).to(life + 10));
    }
    known.expire(at(60_000));
    for life in 100_000..170_000_i64 {
        known.learn(&pod(&format!("pod-{life}")).from(life).to(life + 10));
    }
    let mut expiry = known.plan_expiry(at(160_000), &[]);
    while known.expire_next(&mut expiry, 1_000).is_some() {}
    let mut void = known.plan_sweep(1).expect("so much is new");
    known.learn(&pod("late").at_addresses(&["10.0.0.7"]));
    let before = known.text_bytes();
    assert!(!known.sweep_next(&mut void, usize::MAX));
    assert_eq!(known.text_bytes(), before);
    assert_eq!(text(remote(&known, "10.0.0.7", 150)), "pod shop/late");
    let mut sweep = known.plan_sweep(1).expect("it is still due");
    while known.sweep_next(&mut sweep, 1_000) {}
    assert!(known.text_bytes() < before / 2, "{} of {before}", known.text_bytes());
    assert_eq!(text(remote(&known, "10.0.0.7", 150)), "pod shop/late");
}

#[test]
fn when_it_is_full_the_oldest_tombstones_make_room_and_are_counted() {
    let limits = Limits { tombstones: 8, ..Limits::default() };
    let mut known = Inventory::new(limits, []);
    known.learn(&pod("living").at_addresses(&["10.0.0.100"]));
    for life in 0..30 {
        let (name, held) = (format!("pod-{life}"), format!("10.0.0.{life}"));
        known.learn(&pod(&name).to(200 + life).at_addresses(&[&held]));
    }
    assert!(known.facts() <= 10, "{}", known.facts());
    assert_eq!(known.refused().early + known.facts() as u64, 31);
    assert_eq!(text(remote(&known, "10.0.0.29", 150)), "pod shop/pod-29");
    assert_eq!(text(remote(&known, "10.0.0.100", 150)), "pod shop/living");
    assert_eq!(text(remote(&known, "10.0.0.0", 150)), "external /10.0.0.0");
}

#[test]
fn what_is_beyond_the_limits_is_refused_and_counted() {
    let limits = Limits { facts: 2, addresses: 1, attributes: 1, ..Limits::default() };
    let mut known = Inventory::new(limits, []);
    known.learn(&pod("one").at_addresses(&["10.0.0.1", "10.0.0.2"]).with("a", "1").with("b", "2"));
    known.learn(&pod("two"));
    known.learn(&pod("three"));
    known.learn(&pod("two").to(200));
    known.learn(&fact("kubelet", "dragon", "d"));
    known.learn(&fact("kubelet", "pod", ""));
    let refused = known.refused();
    assert_eq!((known.facts(), refused.full, refused.unreadable), (2, 1, 2));
    assert_eq!((refused.addresses, refused.attributes), (1, 1));
}
