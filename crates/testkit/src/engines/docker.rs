//! `dockerd`, by its Engine API.

use super::{Ground, image};
use crate::process::{Process, until};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A running engine with [`image::NAME`].
#[derive(Debug)]
pub struct Docker {
    // Ended before its ground is removed.
    process: Process,
    socket: PathBuf,
    ground: Ground,
}

impl Docker {
    /// Starts one, and gives it the image.
    ///
    /// # Errors
    /// When it does not answer within a minute, with the end of its log.
    pub fn start() -> Result<Self> {
        let ground = Ground::new("docker")?;
        let socket = ground.folder.join("docker.sock");
        let process = run(&ground, &socket)?;
        let docker = Self { process, socket, ground };
        docker.answers()?;
        let layer = std::fs::read(image::layer(&docker.ground.folder)?)?;
        docker.send("POST", "/images/create?fromSrc=-&repo=weir.test/busybox&tag=1", "application/x-tar", &layer)?;
        Ok(docker)
    }

    /// `kill -9`. Its containers run on.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&mut self) -> Result<()> {
        super::kill(&mut self.process)?;
        // Its containerd dies with it, a moment later; an engine that finds that process still there, be it a zombie, waits
        // in vain for its socket.
        let file = self.ground.folder.join("exec/containerd/containerd.pid");
        let pid = std::fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
        let process = Path::new("/proc").join(pid.trim());
        until(Duration::from_secs(30), || Ok(!process.exists())).context("dockerd's containerd did not end")
    }

    /// Starts it again after [`Self::kill`]; it then ends the containers that run.
    ///
    /// # Errors
    /// When it does not answer within a minute, with the end of its log.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = run(&self.ground, &self.socket)?;
        self.answers()
    }

    fn answers(&self) -> Result<()> {
        until(Duration::from_secs(60), || Ok(self.call("GET", "/version", None).is_ok()))
            .with_context(|| format!("dockerd did not come up:\n{}", self.ground.log()))
    }

    /// The cgroup that it lies in with all that it starts.
    ///
    /// # Errors
    /// When there is no unified hierarchy.
    pub fn cgroup(&self) -> Result<PathBuf> {
        self.ground.cgroup()
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Creates a container that runs busybox with `arguments`, with `more` members of its `HostConfig`. Its id.
    ///
    /// # Errors
    /// What the engine says.
    pub fn create(&self, name: &str, arguments: &[&str], ports: &[&str], more: &Value) -> Result<String> {
        let command: Vec<&str> = std::iter::once("/bin/busybox").chain(arguments.iter().copied()).collect();
        let ports: serde_json::Map<String, Value> = ports.iter().map(|port| ((*port).to_owned(), json!({}))).collect();
        let body = json!({"Image": image::NAME, "Cmd": command, "ExposedPorts": ports, "HostConfig": more});
        let told = self.call("POST", &format!("/containers/create?name={name}"), Some(&body))?;
        Ok(told["Id"].as_str().context("a created container has an id")?.to_owned())
    }

    /// The same, started.
    ///
    /// # Errors
    /// What the engine says.
    pub fn run(&self, name: &str, arguments: &[&str], ports: &[&str], more: &Value) -> Result<String> {
        let id = self.create(name, arguments, ports, more)?;
        self.call("POST", &format!("/containers/{id}/start"), None)?;
        Ok(id)
    }

    /// What it says of a container.
    ///
    /// # Errors
    /// What the engine says.
    pub fn inspect(&self, id: &str) -> Result<Value> {
        self.call("GET", &format!("/containers/{id}/json"), None)
    }

    /// Makes a call without a body, or with a JSON one.
    ///
    /// # Errors
    /// What the engine says where it is no success.
    pub fn call(&self, method: &str, target: &str, body: Option<&Value>) -> Result<Value> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let answer = self.send(method, target, "application/json", body.as_bytes())?;
        Ok(serde_json::from_slice(&answer).unwrap_or_default())
    }

    /// HTTP/1.0: the answer's body ends with the connection.
    fn send(&self, method: &str, target: &str, kind: &str, body: &[u8]) -> Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let length = body.len();
        let head = format!(
            "{method} {target} HTTP/1.0\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("an answer has a head")?;
        let head = std::str::from_utf8(&answer[..end])?;
        let status: u16 = head.split(' ').nth(1).context("an answer has a status")?.parse()?;
        let body = answer.split_off(end + 4);
        if !(200..400).contains(&status) {
            bail!("dockerd answered {status} to {method} {target}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }
}

fn run(ground: &Ground, socket: &Path) -> Result<Process> {
    let path = |name: &str| ground.folder.join(name).display().to_string();
    let mut arguments: Vec<String> = vec!["--data-root".into(), path("data"), "--exec-root".into(), path("exec")];
    arguments.extend(["--pidfile".into(), path("pid"), "--host".into(), format!("unix://{}", socket.display())]);
    arguments.extend(["--storage-driver", "vfs", "--shutdown-timeout", "1", "--log-level", "warn"].map(Into::into));
    arguments.extend(["--cgroup-parent".into(), ground.cgroup.clone()]);
    ground.run("dockerd", &arguments)
}
