//! Who is who: the settings of `weir up` that agent and server take, under the same names. What stands in them is judged by
//! the part that reads it; a part that ends with wrong usage ends `weir up` with its words.

use super::supervise::Part;
use clap::Args;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Kinds that the agent collects of; every other is the server's.
const AGENTS_KINDS: [&str; 2] = ["pod", "container"];

/// The settings.
#[derive(Clone, Debug, Default, Args)]
pub struct NameArgs {
    /// The node's name. Default: the host's.
    #[arg(long, env = "WEIR_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// Reads the Docker engine there; the agent gets the socket's group where it would not have it, which means root.
    /// Default: auto, its usual socket where the agent may open it.
    #[arg(long, env = "WEIR_DOCKER", value_name = "auto|off|unix:PATH")]
    pub docker: Option<String>,
    /// The same for a container runtime's CRI (containerd, CRI-O).
    #[arg(long, env = "WEIR_CRI", value_name = "auto|off|unix:PATH")]
    pub cri: Option<String>,
    /// Reads this machine's kubelet, for example https://127.0.0.1:10250. Default: none outside a cluster.
    #[arg(long, env = "WEIR_KUBELET", value_name = "auto|off|URL")]
    pub kubelet: Option<String>,
    /// A file with the token for the kubelet, which the agent's user must be able to read.
    #[arg(long, env = "WEIR_KUBELET_TOKEN_FILE", value_name = "FILE")]
    pub kubelet_token_file: Option<PathBuf>,
    /// The certificates that vouch for the kubelet, as PEM.
    #[arg(long, env = "WEIR_KUBELET_CA", value_name = "FILE")]
    pub kubelet_ca: Option<PathBuf>,
    /// Trusts whoever answers at the kubelet's address; the token goes there.
    #[arg(long, env = "WEIR_KUBELET_INSECURE_TLS")]
    pub kubelet_insecure_tls: bool,
    /// Watches this API server for Services, nodes, owners and so on. Default: none outside a cluster.
    #[arg(long, env = "WEIR_KUBERNETES", value_name = "auto|off|URL")]
    pub kubernetes: Option<String>,
    /// A file with the token for the API server, which the server's user must be able to read.
    #[arg(long, env = "WEIR_KUBERNETES_TOKEN_FILE", value_name = "FILE")]
    pub kubernetes_token_file: Option<PathBuf>,
    /// The certificates that vouch for the API server, as PEM.
    #[arg(long, env = "WEIR_KUBERNETES_CA", value_name = "FILE")]
    pub kubernetes_ca: Option<PathBuf>,
    /// Collects this, too, for example pod.team=$.metadata.labels.team; may be repeated. Of pods and containers the agent
    /// does, of all else the server.
    #[arg(long, env = "WEIR_COLLECT", value_name = "KIND.NAME=JSONPATH", value_delimiter = '\n')]
    pub collect: Vec<String>,
    /// A name for a network, for example office=192.0.2.0/24; several times, or separated by commas.
    #[arg(long, env = "WEIR_NETWORK", value_name = "NAME=CIDR", value_delimiter = ',')]
    pub network: Vec<String>,
    /// How long history is kept. Default: 30d.
    #[arg(long, env = "WEIR_RETAIN_HISTORY", value_name = "DURATION")]
    pub retain_history: Option<String>,
}

impl NameArgs {
    /// What `part` takes of them.
    pub fn words(&self, part: Part) -> Vec<OsString> {
        let mut words = Vec::new();
        let mut flag = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
            words.extend([OsString::from(name), value.as_ref().to_owned()]);
        };
        let texts: &[(&str, &Option<String>)] = match part {
            Part::Tracer => return words,
            Part::Agent => &[
                ("--node", &self.node),
                ("--docker", &self.docker),
                ("--cri", &self.cri),
                ("--kubelet", &self.kubelet),
            ],
            Part::Server => &[("--kubernetes", &self.kubernetes), ("--retain-history", &self.retain_history)],
        };
        let files: &[(&str, &Option<PathBuf>)] = match part {
            Part::Agent => &[("--kubelet-token-file", &self.kubelet_token_file), ("--kubelet-ca", &self.kubelet_ca)],
            _ => &[("--kubernetes-token-file", &self.kubernetes_token_file), ("--kubernetes-ca", &self.kubernetes_ca)],
        };
        for (name, value) in texts {
            if let Some(value) = value {
                flag(name, value);
            }
        }
        for (name, file) in files {
            if let Some(file) = file {
                flag(name, file);
            }
        }
        for entry in self.collect.iter().filter(|entry| is_agents(entry) == (part == Part::Agent)) {
            flag("--collect", entry);
        }
        if part == Part::Server {
            for network in &self.network {
                flag("--network", network);
            }
        } else if self.kubelet_insecure_tls {
            words.push("--kubelet-insecure-tls".into());
        }
        words
    }

    /// The runtimes' sockets that were asked for by name.
    pub fn sockets(&self) -> impl Iterator<Item = &Path> {
        let settings = [&self.docker, &self.cri].into_iter().flatten();
        settings.filter_map(|setting| setting.strip_prefix("unix:")).filter(|path| !path.is_empty()).map(Path::new)
    }
}

/// Whether the entry is the agent's to collect.
fn is_agents(entry: &str) -> bool {
    entry.split_once('.').is_some_and(|(kind, _)| AGENTS_KINDS.contains(&kind.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        names: NameArgs,
    }

    fn words(flags: &str, part: Part) -> String {
        let line = Line::parse_from(["x"].into_iter().chain(flags.split_whitespace()));
        let words: Vec<String> =
            line.names.words(part).iter().map(|word| word.to_string_lossy().into_owned()).collect();
        words.join(" ")
    }

    #[test]
    fn each_part_gets_what_it_takes() {
        let agents = "--node n --docker unix:/d --cri off --kubelet https://h:1 --kubelet-token-file t --kubelet-ca c";
        let servers = "--kubernetes https://h:2 --retain-history 1d --kubernetes-token-file T --kubernetes-ca C";
        let all = format!(
            "{agents} {servers} --kubelet-insecure-tls --collect pod.team=$.a --collect service.team=$.b \
             --collect container.c=$.c --network a=10.0.0.0/8,b=10.1.0.0/16"
        );
        assert_eq!(
            words(&all, Part::Agent),
            format!("{agents} --collect pod.team=$.a --collect container.c=$.c --kubelet-insecure-tls")
        );
        assert_eq!(
            words(&all, Part::Server),
            format!("{servers} --collect service.team=$.b --network a=10.0.0.0/8 --network b=10.1.0.0/16")
        );
        assert_eq!(words(&all, Part::Tracer), "");
        assert_eq!(words("", Part::Agent), "");
    }

    #[test]
    fn only_a_socket_that_was_named_is_asked_for() {
        let sockets = |flags: &str| {
            let line = Line::parse_from(["x"].into_iter().chain(flags.split_whitespace()));
            line.names.sockets().map(Path::to_path_buf).collect::<Vec<_>>()
        };
        assert_eq!(sockets("--docker unix:/d --cri unix:/c"), [PathBuf::from("/d"), PathBuf::from("/c")]);
        assert_eq!(sockets("--docker auto --cri off"), [] as [PathBuf; 0]);
    }
}
