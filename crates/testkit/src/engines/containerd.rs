//! `containerd`, by CRI calls as a kubelet makes them.
//!
//! Of the interface's messages only the fields that are set here are written down; they are a kubelet's side, which
//! weir's own client does not have.

use super::{Ground, image};
use crate::process::{Process, until};
use anyhow::{Context, Result, ensure};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// A running containerd with [`image::NAME`], whose pods get addresses of 10.233.7.0/24.
#[derive(Debug)]
pub struct Containerd {
    calls: Channel,
    runtime: tokio::runtime::Runtime,
    // Ended before its ground is removed.
    process: Process,
    socket: PathBuf,
    ground: Ground,
}

/// A pod to be made.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// Whether it uses its node's network: here the engine's.
    pub is_host_network: bool,
}

/// A pod that was made.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Its sandbox's id.
    pub id: String,
    config: PodSandboxConfig,
}

impl Containerd {
    /// Starts one, and gives it the image.
    ///
    /// # Errors
    /// When it does not answer within a minute, with the end of its log.
    pub fn start() -> Result<Self> {
        let ground = Ground::new("containerd")?;
        let folder = &ground.folder;
        let socket = folder.join("containerd.sock");
        std::fs::create_dir_all(folder.join("cni"))?;
        let at = folder.display();
        let network = serde_json::json!({"cniVersion": "0.4.0", "name": "weir-test", "plugins": [{
            "type": "bridge", "bridge": "weir0", "isGateway": true, "ipMasq": false,
            "ipam": {"type": "host-local", "dataDir": format!("{at}/ipam"), "ranges": [[{"subnet": "10.233.7.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}]},
        }]});
        std::fs::write(folder.join("cni/10-weir.conflist"), network.to_string())?;
        // Without CAP_SYS_RESOURCE, as in some virtual machines, no process may be preferred over others for memory.
        let config = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\n\
             [grpc]\naddress = \"{at}/containerd.sock\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{at}/opt\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{}\"\nrestrict_oom_score_adj = true\n\
             stream_server_port = \"0\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = \"{at}/cni\"\n",
            image::NAME
        );
        std::fs::write(folder.join("config.toml"), config)?;
        let process = run(&ground)?;
        let archive = image::archive(folder)?;
        let import = || {
            let mut command = Command::new("ctr");
            command.arg("--address").arg(&socket).args(["--namespace", "k8s.io", "images", "import"]);
            let output = command.args(["--snapshotter", "native"]).arg(&archive).output()?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok(true)
        };
        until(Duration::from_secs(60), import)
            .with_context(|| format!("containerd did not come up:\n{}", ground.log()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
        let calls = runtime.block_on(endpoint.connect())?;
        Ok(Self { calls, runtime, process, socket, ground })
    }

    /// `kill -9`. Its pods run on.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&mut self) -> Result<()> {
        super::kill(&mut self.process)
    }

    /// Starts it again after [`Self::kill`], with the pods that it had.
    ///
    /// # Errors
    /// When it does not answer within a minute, with the end of its log.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = run(&self.ground)?;
        let answers = || self.call::<_, Nothing>("Version", Nothing {}).map(|_| true);
        until(Duration::from_secs(60), answers)
            .with_context(|| format!("containerd did not come up again:\n{}", self.ground.log()))
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

    /// RunPodSandbox, with the labels and the cgroup that a kubelet gives.
    ///
    /// # Errors
    /// What containerd says.
    pub fn run_pod(&self, pod: &Pod) -> Result<Sandbox> {
        let labels = labels(pod);
        let network = if pod.is_host_network { 2 } else { 0 };
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                namespace: pod.namespace.clone(),
            }),
            log_directory: self.ground.folder.join("logs").join(&pod.uid).display().to_string(),
            labels,
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}/kubepods/besteffort/pod{}", self.ground.cgroup, pod.uid),
                security_context: Some(SecurityContext {
                    namespace_options: Some(NamespaceOption { network, pid: 1 }),
                }),
            }),
        };
        let request = RunPodSandboxRequest { config: Some(config.clone()) };
        let answer: Id = self.call("RunPodSandbox", request)?;
        Ok(Sandbox { id: answer.id, config })
    }

    /// CreateContainer and StartContainer: busybox with `arguments`. Its id.
    ///
    /// # Errors
    /// What containerd says.
    pub fn run_container(&self, sandbox: &Sandbox, name: &str, arguments: &[&str], ports: &str) -> Result<String> {
        let mut labels = sandbox.config.labels.clone();
        labels.insert("io.kubernetes.container.name".into(), name.into());
        let mut annotations = HashMap::new();
        if !ports.is_empty() {
            annotations.insert("io.kubernetes.container.ports".into(), ports.into());
        }
        let linux = sandbox.config.linux.clone().and_then(|linux| linux.security_context);
        let namespaces = linux.and_then(|context| context.namespace_options);
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into() }),
            image: Some(ImageSpec { image: image::NAME.into() }),
            command: vec!["/bin/busybox".into()],
            args: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            labels,
            annotations,
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                security_context: Some(ContainerSecurityContext { namespace_options: namespaces }),
            }),
        };
        let request = CreateContainerRequest {
            sandbox: sandbox.id.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox.config.clone()),
        };
        let Id { id } = self.call("CreateContainer", request)?;
        let _: Nothing = self.call("StartContainer", Id { id: id.clone() })?;
        Ok(id)
    }

    /// StopContainer, at once.
    ///
    /// # Errors
    /// What containerd says.
    pub fn stop_container(&self, id: &str) -> Result<()> {
        let _: Nothing = self.call("StopContainer", Id { id: id.into() })?;
        Ok(())
    }

    /// StopPodSandbox and RemovePodSandbox.
    ///
    /// # Errors
    /// What containerd says.
    pub fn remove_pod(&self, sandbox: &Sandbox) -> Result<()> {
        let _: Nothing = self.call("StopPodSandbox", Id { id: sandbox.id.clone() })?;
        let _: Nothing = self.call("RemovePodSandbox", Id { id: sandbox.id.clone() })?;
        Ok(())
    }

    fn call<Q, A>(&self, name: &'static str, request: Q) -> Result<A>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{name}"))?;
        let mut calls = tonic::client::Grpc::new(self.calls.clone());
        let answer = self.runtime.block_on(async {
            calls.ready().await?;
            let codec = ProstCodec::<Q, A>::default();
            Ok::<_, anyhow::Error>(calls.unary(tonic::Request::new(request), path, codec).await?.into_inner())
        });
        answer.with_context(|| format!("{name} failed; containerd's log ends with:\n{}", self.ground.log()))
    }
}

fn run(ground: &Ground) -> Result<Process> {
    ground.run("containerd", &["--config".into(), ground.folder.join("config.toml").display().to_string()])
}

fn labels(pod: &Pod) -> HashMap<String, String> {
    let pairs = [("name", &pod.name), ("namespace", &pod.namespace), ("uid", &pod.uid)];
    pairs.iter().map(|(key, value)| (format!("io.kubernetes.pod.{key}"), (*value).clone())).collect()
}

/// A message whose first field is an id: several requests and answers.
#[derive(Clone, PartialEq, prost::Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Nothing {}

#[derive(Clone, PartialEq, prost::Message)]
struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PodSandboxMetadata>,
    #[prost(string, tag = "3")]
    log_directory: String,
    #[prost(map = "string, string", tag = "6")]
    labels: HashMap<String, String>,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxPodSandboxConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LinuxPodSandboxConfig {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
    #[prost(message, optional, tag = "2")]
    security_context: Option<SecurityContext>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SecurityContext {
    #[prost(message, optional, tag = "1")]
    namespace_options: Option<NamespaceOption>,
}

/// POD 0, CONTAINER 1, NODE 2.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct NamespaceOption {
    #[prost(int32, tag = "1")]
    network: i32,
    #[prost(int32, tag = "2")]
    pid: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateContainerRequest {
    #[prost(string, tag = "1")]
    sandbox: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "2")]
    image: Option<ImageSpec>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    args: Vec<String>,
    #[prost(map = "string, string", tag = "9")]
    labels: HashMap<String, String>,
    #[prost(map = "string, string", tag = "10")]
    annotations: HashMap<String, String>,
    #[prost(string, tag = "11")]
    log_path: String,
    #[prost(message, optional, tag = "15")]
    linux: Option<LinuxContainerConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct LinuxContainerConfig {
    #[prost(message, optional, tag = "2")]
    security_context: Option<ContainerSecurityContext>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct ContainerSecurityContext {
    #[prost(message, optional, tag = "3")]
    namespace_options: Option<NamespaceOption>,
}
