//! The promise: with live container engines every edge has the names of container and pod at both of its ends, whatever
//! network they share; an engine that is killed is told as failed, and no name is wrong because of it.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use weir_testkit::engines::containerd::{Containerd, Pod, Sandbox};
use weir_testkit::engines::docker::Docker;
use weir_testkit::engines::{address, image, netns, pids};
use weir_testkit::is_root_or_skip;
use weir_testkit::process::{binary, until};
use weir_testkit::weir::{Weir, install};
use weir_wire::api::{Answer, Edge, EdgeEnd, MetadataRow, StatusRow};

const PATIENCE: Duration = Duration::from_secs(90);
/// Where the first container of a pod serves, and the second.
const PORTS: [u16; 2] = [18_431, 18_432];

/// Does what [`talk`] asks for: sends bytes to a server that sends them back.
const TALKER: &str = "while :; do \
     if [ -f /tmp/go ]; then read count to port < /tmp/go; /bin/busybox rm /tmp/go; \
     /bin/busybox head -c $count /dev/zero | /bin/busybox nc $to $port > /dev/null; fi; /bin/busybox sleep 0.1; done";

fn talker() -> Vec<String> {
    vec!["sh".into(), "-c".into(), TALKER.into()]
}

/// Serves at `port`, and talks.
fn server(port: u16) -> Vec<String> {
    let serve = format!("/bin/busybox nc -ll -p {port} -e /bin/busybox cat & {TALKER}");
    vec!["sh".into(), "-c".into(), serve]
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// Waits until something in the container's network listens.
fn listens(container: &str, port: u16) -> Result<()> {
    until(PATIENCE, || {
        let pid = *pids(container)?.first().context("it runs")?;
        let sockets = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")));
        let sockets: String = sockets.into_iter().collect::<Result<_, _>>()?;
        let mut lines = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        // 0A is LISTEN.
        Ok(lines.any(|words| words[1].ends_with(&format!(":{port:04X}")) && words[3] == "0A"))
    })
    .with_context(|| format!("nothing listens at {port} in {container}"))
}

/// Has a container send `count` bytes, and waits until it has.
fn talk(container: &str, count: u64, to: SocketAddr) -> Result<()> {
    let pid = *pids(container)?.first().with_context(|| format!("nothing runs in {container}"))?;
    let folder = Path::new("/proc").join(pid.to_string()).join("root/tmp");
    std::fs::write(folder.join("asked"), format!("{count} {} {}\n", to.ip(), to.port()))?;
    std::fs::rename(folder.join("asked"), folder.join("go"))?;
    until(PATIENCE, || Ok(!folder.join("go").exists())).with_context(|| format!("{container} did not talk"))
}

fn at(address: Ipv4Addr, server: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(address), PORTS[server])
}

fn text(end: &EdgeEnd) -> String {
    format!("{} {}/{} {}", end.kind, end.namespace.as_deref().unwrap_or_default(), end.name, end.certainty)
}

/// Client, server, port; sent and received bytes.
type Told = BTreeMap<(String, String, u16), (u64, u64)>;

/// The edges of this test's ports.
fn told(weir: &Weir, by: &str) -> Result<Told> {
    let mut told = Told::new();
    for edge in weir.edges_by(by)?.iter().filter(|edge| PORTS.contains(&edge.port)) {
        let sum = told.entry((text(&edge.client), text(&edge.server), edge.port)).or_default();
        *sum = (sum.0 + edge.sent_bytes, sum.1 + edge.recv_bytes);
    }
    Ok(told)
}

/// Waits until the edges are these and no other, all of them known.
fn expect(weir: &Weir, by: &str, talks: &[(&str, &str, usize, u64)]) -> Result<()> {
    expect_as(weir, by, "known", talks)
}

fn expect_as(weir: &Weir, by: &str, certainty: &str, talks: &[(&str, &str, usize, u64)]) -> Result<()> {
    let mut expected = Told::new();
    for (client, server, port, bytes) in talks {
        let sum = expected
            .entry((format!("{client} {certainty}"), format!("{server} {certainty}"), PORTS[*port]))
            .or_default();
        *sum = (sum.0 + bytes, sum.1 + bytes);
    }
    until(PATIENCE, || {
        let found = told(weir, by)?;
        ensure!(found == expected, "by {by}: found {found:?}, expected {expected:?}");
        Ok(true)
    })
}

fn metadata(weir: &Weir, kind: &str, source: &str) -> Result<Vec<MetadataRow>> {
    let answer: Answer<MetadataRow> = weir.answer(&["metadata", "--kind", kind, "--limit", "100000"])?;
    Ok(answer.items.into_iter().filter(|row| row.source == source).collect())
}

/// Waits until the source's row says so.
fn source_is(weir: &Weir, source: &str, health: &str, words: &str) -> Result<StatusRow> {
    let mut found = None;
    until(PATIENCE, || {
        let rows = weir.status()?.items.into_iter();
        let mut rows = rows.filter(|row| row.kind == "metadata" && row.name.ends_with(&format!("/{source}")));
        let row = rows.next().with_context(|| format!("no row of {source}"))?;
        ensure!(row.health == health && row.detail.contains(words), "{row:?}");
        found = Some(row);
        Ok(true)
    })?;
    found.context("it was found")
}

/// What is told of the container agrees with the kernel and with what was asked of the engine.
fn container_is(weir: &Weir, source: &str, id: &str, name: &str, ports: &str) -> Result<MetadataRow> {
    let mut found = None;
    until(PATIENCE, || {
        let rows = metadata(weir, "container", source)?;
        let row = rows.into_iter().find(|row| row.id == id && row.valid_to.is_none());
        let row = row.with_context(|| format!("{source} tells nothing of {name}"))?;
        let attribute = |name: &str| row.attributes.get(name).map_or("", String::as_str);
        let told: BTreeSet<u32> = attribute("pids").split(',').filter_map(|pid| pid.parse().ok()).collect();
        // Those that send or sleep come and go; the shell and the server stay.
        let held = pids(id)?;
        ensure!(held.first().is_some_and(|first| told.contains(first)), "{told:?}, the kernel has {held:?}");
        ensure!((row.name.as_str(), attribute("image")) == (name, image::NAME), "{row:?}");
        ensure!(attribute("ports") == ports, "{row:?}");
        found = Some(row);
        Ok(true)
    })?;
    found.context("it was found")
}

struct Pods {
    containerd: Containerd,
    web: Sandbox,
    /// The containers' ids by `pod/container`.
    ids: BTreeMap<&'static str, String>,
}

const WEB_UID: &str = "72ed8967-adb6-4a50-b247-584e26b2fcce";

fn pods() -> Result<Pods> {
    let containerd = Containerd::start()?;
    let pod = |name: &str, uid: &str, is_host_network| {
        containerd.run_pod(&Pod { name: name.into(), namespace: "demo".into(), uid: uid.into(), is_host_network })
    };
    let web = pod("web", WEB_UID, false)?;
    let front = pod("front", "0b7b4b5c-3b9e-4b57-8f55-d04d2b1ad2a1", false)?;
    let host = pod("hostnet", "59789cdd-ae4c-49c0-ac82-c5334899b562", true)?;
    let ports = format!(r#"[{{"name":"echo","containerPort":{},"protocol":"TCP"}}]"#, PORTS[0]);
    let mut ids = BTreeMap::new();
    for (place, sandbox, name, arguments, ports) in [
        ("web/httpd", &web, "httpd", server(PORTS[0]), ports.as_str()),
        ("web/side", &web, "side", server(PORTS[1]), ""),
        ("front/first", &front, "first", talker(), ""),
        ("front/second", &front, "second", talker(), ""),
        ("hostnet/alone", &host, "alone", talker(), ""),
    ] {
        ids.insert(place, containerd.run_container(sandbox, name, &words(&arguments), ports)?);
    }
    listens(&ids["web/httpd"], PORTS[0])?;
    listens(&ids["web/side"], PORTS[1])?;
    Ok(Pods { containerd, web, ids })
}

/// `weir`, whose tracer sees what runs in the engine's cgroup only: others on this machine talk, too. The variable is the
/// tracer's, `weir up` hands it on.
fn weir(cgroup: &Path) -> Result<Command> {
    let mut command = Command::new(binary("weir")?);
    command.env("WEIR_TRACER_CGROUP", cgroup);
    Ok(command)
}

#[test]
fn every_edge_between_pods_is_named_and_a_killed_containerd_is_told_and_survived() -> Result<()> {
    if !is_root_or_skip("every_edge_between_pods_is_named_and_a_killed_containerd_is_told_and_survived") {
        return Ok(());
    }
    let mut pods = pods()?;
    let data = tempfile::tempdir()?;
    let socket = format!("unix:{}", pods.containerd.socket().display());
    let flags = ["--docker", "off", "--cri", &socket];
    let weir = Weir::up_by(weir(&pods.containerd.cgroup()?)?, data.path(), "500ms", &flags)?;
    let ids = pods.ids.clone();
    let web = address(&ids["web/httpd"])?;
    let local = Ipv4Addr::LOCALHOST;
    talk(&ids["front/first"], 1_001, at(web, 0))?;
    talk(&ids["front/second"], 2_002, at(web, 1))?;
    talk(&ids["web/side"], 3_003, at(local, 0))?;
    talk(&ids["hostnet/alone"], 4_004, at(web, 0))?;
    let (httpd, side) = ("container demo/web/httpd", "container demo/web/side");
    let (first, second) = ("container demo/front/first", "container demo/front/second");
    let alone = "container demo/hostnet/alone";
    let mut talks =
        vec![(first, httpd, 0, 1_001), (second, side, 1, 2_002), (side, httpd, 0, 3_003), (alone, httpd, 0, 4_004)];
    expect(&weir, "container", &talks)?;
    // Who owns a pod a runtime does not know, so that its workload is not known.
    for (by, certainty) in [("pod", "known"), ("workload", "unknown")] {
        let (web, front, hostnet) = ("pod demo/web", "pod demo/front", "pod demo/hostnet");
        let talks = [(front, web, 0, 1_001), (front, web, 1, 2_002), (web, web, 0, 3_003), (hostnet, web, 0, 4_004)];
        expect_as(&weir, by, certainty, &talks)?;
    }
    source_is(&weir, "cri", "healthy", "")?;
    let uid = container_is(&weir, "cri", &ids["web/httpd"], "httpd", &format!("echo:{}/tcp", PORTS[0]))?.parent;
    assert_eq!(uid.as_deref(), Some(WEB_UID));
    for (place, id) in &ids {
        let name = place.split('/').nth(1).context("a place has a container")?;
        let ports = if name == "httpd" { format!("echo:{}/tcp", PORTS[0]) } else { String::new() };
        container_is(&weir, "cri", id, name, &ports)?;
    }
    let told = metadata(&weir, "pod", "cri")?;
    let pod = |name: &str| told.iter().find(|row| row.name == name).with_context(|| format!("no pod {name}"));
    assert_eq!(pod("web")?.addresses, [web.to_string()]);
    assert_eq!(pod("web")?.net_ns, Some(netns(pids(&ids["web/side"])?[0])?));
    assert_eq!((pod("hostnet")?.addresses.len(), pod("hostnet")?.namespace.as_deref()), (0, Some("demo")));

    // Its pods run on and talk while containerd is away, and afterwards.
    let agent = weir.pid("agent")?;
    pods.containerd.kill()?;
    source_is(&weir, "cri", "degraded", "failed: no container runtime")?;
    talk(&ids["front/first"], 10_010, at(web, 0))?;
    talks.push((first, httpd, 0, 10_010));
    expect(&weir, "container", &talks)?;
    pods.containerd.start_again()?;
    source_is(&weir, "cri", "healthy", "")?;
    talk(&ids["hostnet/alone"], 20_020, at(web, 1))?;
    talks.push((alone, side, 1, 20_020));
    expect(&weir, "container", &talks)?;
    let lives = metadata(&weir, "pod", "cri")?;
    let lives: Vec<&MetadataRow> = lives.iter().filter(|row| row.name == "web").collect();
    ensure!(lives.len() == 1 && lives[0].valid_to.is_none(), "it lived on: {lives:#?}");

    // What comes and goes afterwards is seen again.
    pods.containerd.remove_pod(&pods.web)?;
    until(PATIENCE, || {
        let told = metadata(&weir, "pod", "cri")?;
        Ok(told.iter().any(|row| row.name == "web" && row.valid_to.is_some()))
    })?;
    expect(&weir, "container", &talks)?;
    assert_eq!(weir.pid("agent")?, agent, "the agent went on");
    ensure!(weir.stop(PATIENCE)?.success());
    Ok(())
}

#[test]
fn every_edge_between_docker_containers_is_named_and_a_killed_dockerd_is_told_and_survived() -> Result<()> {
    if !is_root_or_skip("every_edge_between_docker_containers_is_named_and_a_killed_dockerd_is_told_and_survived") {
        return Ok(());
    }
    let mut docker = Docker::start()?;
    let port = format!("{}/tcp", PORTS[0]);
    let store = docker.run("store", &words(&server(PORTS[0])), &[&port], &json!({}))?;
    let shares = json!({"NetworkMode": format!("container:{store}")});
    let side = docker.run("side", &words(&server(PORTS[1])), &[], &shares)?;
    let cart = docker.run("cart", &words(&talker()), &[], &json!({}))?;
    let host = docker.run("host", &words(&talker()), &[], &json!({"NetworkMode": "host"}))?;
    listens(&store, PORTS[0])?;
    listens(&side, PORTS[1])?;
    let data = tempfile::tempdir()?;
    // By a variable of its own, for once.
    let mut command = weir(&docker.cgroup()?)?;
    command.env("WEIR_DOCKER", format!("unix:{}", docker.socket().display()));
    let weir = Weir::up_by(command, data.path(), "500ms", &["--cri", "off"])?;
    let address_of_store = address(&store)?;
    talk(&cart, 1_001, at(address_of_store, 0))?;
    talk(&cart, 2_002, at(address_of_store, 1))?;
    talk(&side, 3_003, at(Ipv4Addr::LOCALHOST, 0))?;
    talk(&host, 4_004, at(address_of_store, 0))?;
    let [store_is, side_is, cart_is, host_is] =
        ["store", "side", "cart", "host"].map(|name| format!("container /{name}"));
    let (store_is, side_is, cart_is, host_is) =
        (store_is.as_str(), side_is.as_str(), cart_is.as_str(), host_is.as_str());
    let mut talks = vec![
        (cart_is, store_is, 0, 1_001),
        (cart_is, side_is, 1, 2_002),
        (side_is, store_is, 0, 3_003),
        (host_is, store_is, 0, 4_004),
    ];
    for by in ["container", "pod", "workload"] {
        expect(&weir, by, &talks)?;
    }
    source_is(&weir, "docker", "healthy", "")?;
    for (id, name, ports) in
        [(&store, "store", port.as_str()), (&side, "side", ""), (&cart, "cart", ""), (&host, "host", "")]
    {
        container_is(&weir, "docker", id, name, ports)?;
    }
    let edges: Vec<Edge> = weir.edges_by("container")?;
    let edge = edges.iter().find(|edge| edge.sent_bytes == 1_001 && edge.port == PORTS[0]).context("it is there")?;
    assert_eq!(edge.client.address.as_deref(), Some(address(&cart)?.to_string().as_str()));
    assert_eq!(edge.server.address.as_deref(), Some(address_of_store.to_string().as_str()));

    // Its containers run on and talk while dockerd is away.
    let agent = weir.pid("agent")?;
    docker.kill()?;
    source_is(&weir, "docker", "degraded", "failed: no Docker engine")?;
    talk(&cart, 10_010, at(address_of_store, 0))?;
    talks.push((cart_is, store_is, 0, 10_010));
    expect(&weir, "container", &talks)?;

    // The new one ends what ran, and gives their addresses to others.
    docker.start_again()?;
    source_is(&weir, "docker", "healthy", "")?;
    until(PATIENCE, || Ok(pids(&store)?.is_empty() && pids(&cart)?.is_empty()))?;
    let shop = docker.run("shop", &words(&server(PORTS[0])), &[], &json!({}))?;
    let buyer = docker.run("buyer", &words(&talker()), &[], &json!({}))?;
    listens(&shop, PORTS[0])?;
    talk(&buyer, 20_020, at(address(&shop)?, 0))?;
    talks.push(("container /buyer", "container /shop", 0, 20_020));
    expect(&weir, "container", &talks)?;
    container_is(&weir, "docker", &buyer, "buyer", "")?;
    until(PATIENCE, || {
        let told = metadata(&weir, "container", "docker")?;
        Ok(told.iter().filter(|row| row.id == cart).all(|row| row.valid_to.is_some()))
    })?;
    assert_eq!(weir.pid("agent")?, agent, "the agent went on");
    ensure!(weir.stop(PATIENCE)?.success());
    Ok(())
}

/// A group that nobody is in.
const GROUP: u32 = 54_321;

#[test]
fn an_ordinary_users_agent_gets_a_runtimes_group_when_asked_and_says_which_it_lacks_when_not() -> Result<()> {
    if !is_root_or_skip("an_ordinary_users_agent_gets_a_runtimes_group_when_asked_and_says_which_it_lacks_when_not") {
        return Ok(());
    }
    let docker = Docker::start()?;
    chown(docker.socket(), Some(0), Some(GROUP))?;
    std::fs::set_permissions(docker.socket(), Permissions::from_mode(0o660))?;
    let cart = docker.run("cart", &words(&talker()), &[], &json!({}))?;
    let folder = tempfile::tempdir()?;
    install(folder.path())?;
    let setting = format!("unix:{}", docker.socket().display());
    let groups = |weir: &Weir, part: &str| -> Result<String> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", weir.pid(part)?))?;
        let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).context("a process has groups")?;
        Ok(groups.trim().to_owned())
    };
    let up = |data: &str, more: &[&str]| {
        let mut flags = vec!["--user", "nobody", "--cri", "off"];
        flags.extend(more);
        Weir::up_by(Command::new(folder.path().join("weir")), &folder.path().join(data), "500ms", &flags)
    };

    let weir = up("asked", &["--docker", &setting])?;
    source_is(&weir, "docker", "healthy", "")?;
    container_is(&weir, "docker", &cart, "cart", "")?;
    assert_eq!((groups(&weir, "agent")?.as_str(), groups(&weir, "server")?.as_str()), ("54321", ""));
    ensure!(weir.stop(PATIENCE)?.success());

    // The agent's own table is not a word to `weir up`: nobody gets root by it.
    let config = folder.path().join("weir.toml");
    std::fs::write(&config, format!("[agent]\ndocker = '{setting}'\n"))?;
    let weir = up("not-asked", &["--config", config.to_str().context("a path")?])?;
    let row = source_is(&weir, "docker", "degraded", "group 54321")?;
    ensure!(row.detail.contains(&format!("`sudo weir up --docker {setting}` asks for it")), "{row:?}");
    assert_eq!(groups(&weir, "agent")?, "");
    ensure!(weir.stop(PATIENCE)?.success());
    Ok(())
}
