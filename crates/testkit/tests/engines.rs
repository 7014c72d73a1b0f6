//! The promise: what weir says of containers and pods is what the container engines that Debian packages say of them
//! themselves, and what the kernel says of their processes.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use weir_discovery::collect::Collect;
use weir_discovery::cri::Cri;
use weir_discovery::docker::Docker as Source;
use weir_discovery::said::Said;
use weir_discovery::source::{Reading, Source as _};
use weir_inventory::cgroup;
use weir_testkit::engines::containerd::{Containerd, Pod};
use weir_testkit::engines::docker::Docker;
use weir_testkit::engines::{image, netns};
use weir_testkit::is_root_or_skip;
use weir_testkit::process::until;

const PATIENCE: Duration = Duration::from_secs(30);

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn read(runtime: &Runtime, source: &mut dyn weir_discovery::source::Source) -> Result<Vec<Said>> {
    let Reading::Whole { things, missing } = runtime.block_on(source.read())? else { anyhow::bail!("not read whole") };
    ensure!(missing.is_empty(), "{missing}");
    Ok(things)
}

fn by_id<'a>(said: &'a [Said], id: &str) -> Result<&'a Said> {
    said.iter().find(|said| said.id == id).with_context(|| format!("nothing is said of {id}"))
}

fn attribute<'a>(said: &'a Said, name: &str) -> &'a str {
    said.attributes.get(name).map_or("", String::as_str)
}

/// The container that the kernel says the process is in.
fn container_of(pid: u32) -> Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    Ok(cgroup::container(cgroup::best_path(&text)).context("the process is in no container")?.to_string())
}

fn pid_of(told: &Value) -> Result<u32> {
    Ok(u32::try_from(told["State"]["Pid"].as_u64().context("it runs")?)?)
}

#[test]
fn docker_says_of_its_containers_what_weir_says_of_them() -> Result<()> {
    if !is_root_or_skip("docker_says_of_its_containers_what_weir_says_of_them") {
        return Ok(());
    }
    let docker = Docker::start()?;
    let runtime = runtime()?;
    let mut source = Source::new(docker.socket(), "/proc", Arc::new(Collect::default()));
    assert_eq!(read(&runtime, &mut source)?, []);
    runtime.block_on(async { timeout(PATIENCE, source.changed()).await }).context("the stream of events opens")?;

    let web = docker.run("web", &["httpd", "-f", "-p", "8080"], &["8080/tcp"], &json!({}))?;
    runtime.block_on(async { timeout(PATIENCE, source.changed()).await }).context("a start wakes the reader")?;
    let alone = docker.run("alone", &["sleep", "1000"], &[], &json!({}))?;
    let shares = docker.run("shares", &["sleep", "1000"], &[], &json!({"NetworkMode": format!("container:{web}")}))?;
    let host = docker.run("host", &["sleep", "1000"], &[], &json!({"NetworkMode": "host"}))?;
    let none = docker.run("none", &["sleep", "1000"], &[], &json!({"NetworkMode": "none"}))?;
    let made = docker.create("made", &["sleep", "1000"], &[], &json!({}))?;
    let said = read(&runtime, &mut source)?;
    assert_eq!(said.len(), 6, "{said:#?}");
    for (id, name) in [(&web, "web"), (&alone, "alone"), (&shares, "shares"), (&host, "host"), (&none, "none")] {
        let (told, said) = (docker.inspect(id)?, by_id(&said, id)?);
        let pid = pid_of(&told)?;
        assert_eq!((said.name.as_str(), attribute(said, "image")), (name, image::NAME));
        assert_eq!(attribute(said, "pids"), pid.to_string());
        assert_eq!(container_of(pid)?, *id, "the kernel has the process in that container");
        assert_eq!(said.netns, if name == "host" { 0 } else { netns(pid)? }, "{name}");
        assert_eq!((attribute(said, "state"), said.to), ("running", None));
        let address = told["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].as_str().unwrap_or_default();
        let expected = if name == "alone" { vec![address.to_owned()] } else { Vec::new() };
        assert_eq!(said.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{name}");
    }
    assert_eq!(attribute(by_id(&said, &web)?, "ports"), "8080/tcp");
    assert_eq!(attribute(by_id(&said, &shares)?, "network_mode"), format!("container:{web}"));
    assert_eq!(attribute(by_id(&said, &host)?, "network_mode"), "host");
    assert_eq!(attribute(by_id(&said, &none)?, "network_mode"), "none");
    assert_eq!(attribute(by_id(&said, &made)?, "state"), "created");
    assert_eq!(by_id(&said, &web)?.netns, by_id(&said, &shares)?.netns);

    // One stops, one is removed: both ends are the engine's own to the nanosecond.
    let held = by_id(&said, &alone)?.addresses.clone();
    docker.call("POST", &format!("/containers/{alone}/stop?t=0"), None)?;
    docker.call("DELETE", &format!("/containers/{none}?force=true"), None)?;
    runtime.block_on(async { timeout(PATIENCE, source.changed()).await }).context("an end wakes the reader")?;
    let said = read(&runtime, &mut source)?;
    let stopped = by_id(&said, &alone)?;
    assert_eq!((attribute(stopped, "state"), attribute(stopped, "pids")), ("exited", ""));
    assert_eq!(stopped.addresses, held, "what it held before its end is still true of that time");
    let finished = docker.inspect(&alone)?["State"]["FinishedAt"].as_str().unwrap_or_default().to_owned();
    let difference = stopped.to.context("it has ended")?.0 - nanoseconds(&finished)?;
    ensure!(difference.abs() < 5_000_000_000, "weir: {:?}, the engine: {finished}", stopped.to);
    let removed = by_id(&said, &none)?;
    ensure!(removed.to > removed.from, "{removed:?}");
    let said = read(&runtime, &mut source)?;
    ensure!(by_id(&said, &none).is_err(), "what is gone is not said again");

    // Started again, it is another life.
    docker.call("POST", &format!("/containers/{alone}/start"), None)?;
    runtime.block_on(async { timeout(PATIENCE, source.changed()).await }).context("a start wakes the reader")?;
    let said = read(&runtime, &mut source)?;
    let life = said.iter().rfind(|said| said.id == alone).context("it runs again")?;
    ensure!(life.from > stopped.to && life.to.is_none(), "{life:?} after {stopped:?}");
    assert_eq!(attribute(life, "pids"), pid_of(&docker.inspect(&alone)?)?.to_string());
    Ok(())
}

/// `date` reads what RFC 3339 writes.
fn nanoseconds(text: &str) -> Result<i64> {
    let output = std::process::Command::new("date").args(["-d", text, "+%s%N"]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

fn pod(name: &str, uid: &str, is_host_network: bool) -> Pod {
    Pod { name: name.into(), namespace: "demo".into(), uid: uid.into(), is_host_network }
}

#[test]
fn containerd_says_of_its_pods_what_weir_says_of_them() -> Result<()> {
    if !is_root_or_skip("containerd_says_of_its_pods_what_weir_says_of_them") {
        return Ok(());
    }
    let containerd = Containerd::start()?;
    let runtime = runtime()?;
    let mut source = Cri::new(containerd.socket(), "/proc", Arc::new(Collect::default()));
    assert_eq!(read(&runtime, &mut source)?, []);
    let (web_uid, host_uid) = ("72ed8967-adb6-4a50-b247-584e26b2fcce", "59789cdd-ae4c-49c0-ac82-c5334899b562");
    let web = containerd.run_pod(&pod("web", web_uid, false))?;
    let ports = r#"[{"name":"http","containerPort":8080,"protocol":"TCP"}]"#;
    let httpd = containerd.run_container(&web, "httpd", &["httpd", "-f", "-p", "8080"], ports)?;
    let side = containerd.run_container(&web, "side", &["sleep", "1000"], "")?;
    let host = containerd.run_pod(&pod("hostnet", host_uid, true))?;
    let sleeper = containerd.run_container(&host, "sleeper", &["sleep", "1000"], "")?;
    let said = read(&runtime, &mut source)?;
    ensure!(source.note().starts_with("containerd "), "{}", source.note());

    let told = by_id(&said, web_uid)?;
    assert_eq!((told.kind, told.name.as_str(), told.namespace.as_str()), ("pod", "web", "demo"));
    assert_eq!(told.addresses.len(), 1);
    ensure!(told.addresses[0].to_string().starts_with("10.233.7."), "{told:?}");
    let mut pids = Vec::new();
    for (id, name, uid) in [(&httpd, "httpd", web_uid), (&side, "side", web_uid), (&sleeper, "sleeper", host_uid)] {
        let said = by_id(&said, id)?;
        assert_eq!((said.kind, said.name.as_str(), said.parent.as_str()), ("container", name, uid));
        assert_eq!((attribute(said, "image"), attribute(said, "state")), (image::NAME, "running"));
        let pid: u32 = attribute(said, "pids").parse().context("a running container has a pid")?;
        assert_eq!(container_of(pid)?, *id, "the kernel has the process in that container");
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let pod = cgroup::pod(cgroup::best_path(&text)).context("and in that pod")?;
        assert_eq!(pod.as_str(), uid);
        pids.push(pid);
    }
    assert_eq!(attribute(by_id(&said, &httpd)?, "ports"), "http:8080/tcp");
    assert_eq!(told.netns, netns(pids[0])?);
    assert_eq!(told.netns, netns(pids[1])?, "two containers of a pod share its network");
    let hostnet = by_id(&said, host_uid)?;
    assert_eq!(attribute(hostnet, "host_network"), "true");
    assert_eq!((hostnet.netns, hostnet.addresses.len()), (0, 0));
    for (sandbox, uid) in [(&web, web_uid), (&host, host_uid)] {
        let pause = by_id(&said, &sandbox.id)?;
        assert_eq!((pause.parent.as_str(), attribute(pause, "container_type")), (uid, "sandbox"));
        let pid: u32 = attribute(pause, "pids").parse().context("a sandbox has a process")?;
        assert_eq!(container_of(pid)?, sandbox.id);
    }

    containerd.stop_container(&side)?;
    let said = read(&runtime, &mut source)?;
    let stopped = by_id(&said, &side)?;
    assert_eq!((attribute(stopped, "state"), attribute(stopped, "pids")), ("exited", ""));
    ensure!(stopped.to > stopped.from, "{stopped:?}");
    assert_eq!(by_id(&said, web_uid)?.to, None, "its pod goes on");
    containerd.remove_pod(&web)?;
    let said = read(&runtime, &mut source)?;
    ensure!(by_id(&said, &httpd).is_err() || by_id(&said, &httpd)?.to.is_some(), "it is over");
    ensure!(said.iter().all(|said| said.id != web_uid || said.to.is_some()), "it is over");
    assert_eq!(by_id(&said, host_uid)?.to, None);

    // This containerd tells no events, and is asked once.
    until(PATIENCE, || {
        runtime.block_on(async { tokio::task::yield_now().await });
        Ok(source.note().contains("tells no events"))
    })?;
    Ok(())
}

#[test]
fn an_engine_leaves_nothing_behind() -> Result<()> {
    if !is_root_or_skip("an_engine_leaves_nothing_behind") {
        return Ok(());
    }
    let docker = Docker::start()?;
    let id = docker.run("left", &["sleep", "1000"], &[], &json!({}))?;
    let pid = pid_of(&docker.inspect(&id)?)?;
    let folder = docker.socket().parent().context("a socket lies in a folder")?.to_owned();
    let cgroups = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&cgroups)?;
    ensure!(text.contains(&id), "{text}");
    drop(docker);
    // What was killed may wait for its end to be noticed; it runs no more.
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    ensure!(stat.is_empty() || stat.contains(") Z "), "its container runs on: {stat}");
    ensure!(!folder.exists(), "{} is left", folder.display());
    let name = folder.file_name().and_then(|name| name.to_str()).context("a folder has a name")?;
    let found = std::process::Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", name]).output()?;
    assert_eq!(String::from_utf8(found.stdout)?, "", "cgroups are left");
    Ok(())
}
