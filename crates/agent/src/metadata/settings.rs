//! Which sources of metadata are read, and how; and the sources that come of it.

use super::auto::Auto;
use super::{Listed, told};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use weir_discovery::api_pods::ApiPods;
use weir_discovery::collect::{Collect, CollectError};
use weir_discovery::cri::Cri;
use weir_discovery::docker::Docker;
use weir_discovery::kubelet::client::Access;
use weir_discovery::kubelet::{Door, Kubelet};
use weir_discovery::kubernetes::client::Access as InCluster;
use weir_discovery::node::Node;
use weir_discovery::source::{Source, Trouble};
use weir_model::fact::{kind, source};

/// The kubelet's own port (`pkg/cluster/ports/ports.go`).
const KUBELET_PORT: u16 = 10_250;
/// What an agent collects of: what its sources describe as JSON.
const COLLECTED: &[&str] = &[kind::POD, kind::CONTAINER];

/// The settings of the node's metadata.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// Where the kubelet is: auto (in a cluster, port 10250 of the node's first address), off, https://ADDRESS:PORT, or
    /// http://ADDRESS:PORT for its read-only port
    #[arg(long, env = "WEIR_KUBELET", default_value = "auto", value_name = "auto|off|URL")]
    pub kubelet: String,
    /// A file that holds the token for the kubelet and the API server, read anew for every request
    /// [default: the ServiceAccount's, in a cluster]
    #[arg(long, env = "WEIR_KUBELET_TOKEN_FILE", value_name = "FILE")]
    pub kubelet_token_file: Option<PathBuf>,
    /// The certificates that the kubelet's must be signed by [default: the cluster's, in a cluster]
    #[arg(long, env = "WEIR_KUBELET_CA", value_name = "FILE")]
    pub kubelet_ca: Option<PathBuf>,
    /// Trust whoever answers at the kubelet's address; the token goes there
    #[arg(long, env = "WEIR_KUBELET_INSECURE_TLS")]
    pub kubelet_insecure_tls: bool,
    /// Read the node's pods from the API server: auto (in a cluster, while the kubelet refuses or is closed), off, on, or
    /// the API server's URL
    #[arg(long, env = "WEIR_API_PODS", default_value = "auto", value_name = "auto|off|on|URL")]
    pub api_pods: String,
    /// The container runtime's CRI: auto (a known socket that is there), off, or unix:PATH. The socket means root on
    /// the node
    #[arg(long, env = "WEIR_CRI", default_value = "auto", value_name = "auto|off|unix:PATH")]
    pub cri: String,
    /// The Docker engine: auto (its socket, where it is there), off, or unix:PATH. The socket means root on the node
    #[arg(long, env = "WEIR_DOCKER", default_value = "auto", value_name = "auto|off|unix:PATH")]
    pub docker: String,
    /// What is collected beside, again and again: KIND.NAME=JSONPATH, KIND being pod or container; for example
    /// pod.team=$.metadata.labels.team, or kubectl's pod.team={.metadata.labels.team}
    #[arg(long, env = "WEIR_COLLECT", value_delimiter = '\n', value_name = "KIND.NAME=JSONPATH")]
    pub collect: Vec<String>,
}

/// A setting that means nothing, with what may stand there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongSetting(String);

/// Every source that the settings name, in the order of their precedence. `variable` reads the environment.
///
/// # Errors
/// [`WrongSetting`].
pub fn sources(
    settings: &Settings,
    node: Node,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Listed>, WrongSetting> {
    let collect = Arc::new(Collect::parse(&settings.collect, COLLECTED).map_err(|error| match error {
        CollectError::Kind { .. } => WrongSetting(format!(
            "--collect {error}; what the server watches (node, namespace, service, ...) its own --collect takes"
        )),
        error => WrongSetting(format!("--collect {error}")),
    })?);
    let cluster = InCluster::in_cluster(variable);
    let mut listed = Vec::new();
    let door = kubelet(settings, &node, cluster.as_ref(), &collect, &mut listed)?;
    if let Some(pods) = api_pods(settings, &node, cluster.as_ref(), &collect, door)? {
        listed.push(Listed { reader: source::API, source: Box::new(pods) });
    }
    let (proc, collects) = (node.root.clone(), Arc::clone(&collect));
    let make = move |socket| Box::new(Cri::new(socket, &proc, Arc::clone(&collects))) as Box<dyn Source>;
    listed.extend(runtime(source::CRI, &settings.cri, Cri::find, make)?);
    let proc = node.root.clone();
    let make = move |socket| Box::new(Docker::new(socket, &proc, Arc::clone(&collect))) as Box<dyn Source>;
    listed.extend(runtime(source::DOCKER, &settings.docker, Docker::find, make)?);
    listed.push(Listed { reader: told::NODE_READER, source: Box::new(node) });
    Ok(listed)
}

/// Lists the kubelet, where it is to be read; answers what tells whether it lets us.
fn kubelet(
    settings: &Settings,
    node: &Node,
    cluster: Option<&InCluster>,
    collect: &Arc<Collect>,
    listed: &mut Vec<Listed>,
) -> Result<Option<watch::Receiver<Door>>, WrongSetting> {
    let url = match settings.kubelet.as_str() {
        "off" => return Ok(None),
        "auto" if cluster.is_none() => return Ok(None),
        "auto" => match node.addresses.first() {
            Some(IpAddr::V4(address)) => format!("https://{address}:{KUBELET_PORT}"),
            Some(IpAddr::V6(address)) => format!("https://[{address}]:{KUBELET_PORT}"),
            None => {
                let why = "the kubelet's address is not known: give WEIR_NODE_IP the field status.hostIP in the \
                           agent's manifest, or --kubelet";
                let absent = Auto::never(source::KUBELET, Trouble::Failed(why.to_owned()));
                listed.push(Listed { reader: source::KUBELET, source: Box::new(absent) });
                return Ok(Some(watch::Sender::new(Door::Closed(why.to_owned())).subscribe()));
            }
        },
        url if is_url(url) => url.trim_end_matches('/').to_owned(),
        other => {
            return Err(WrongSetting(format!(
                "--kubelet {other}: write auto, off, or a URL, for example https://10.0.0.1:10250"
            )));
        }
    };
    let access = Access {
        url,
        token_file: token_file(settings, cluster),
        ca_file: settings.kubelet_ca.clone().or_else(|| cluster.and_then(|cluster| cluster.ca_file.clone())),
        trusts_anyone: settings.kubelet_insecure_tls,
    };
    let kubelet = Kubelet::new(access, Arc::clone(collect));
    let door = kubelet.door();
    listed.push(Listed { reader: source::KUBELET, source: Box::new(kubelet) });
    Ok(Some(door))
}

fn api_pods(
    settings: &Settings,
    node: &Node,
    cluster: Option<&InCluster>,
    collect: &Arc<Collect>,
    door: Option<watch::Receiver<Door>>,
) -> Result<Option<ApiPods>, WrongSetting> {
    let token_file = token_file(settings, cluster);
    let ca_file = cluster.and_then(|cluster| cluster.ca_file.clone());
    let (url, door) = match (settings.api_pods.as_str(), cluster) {
        ("off", _) | ("auto", None) => return Ok(None),
        // A kubelet that is switched off has not refused.
        ("auto", Some(_)) if door.is_none() => return Ok(None),
        ("auto", Some(cluster)) => (cluster.url.clone(), door),
        ("on", Some(cluster)) => (cluster.url.clone(), None),
        ("on", None) => {
            return Err(WrongSetting(
                "--api-pods on: this is no cluster (KUBERNETES_SERVICE_HOST is not set); give the URL".to_owned(),
            ));
        }
        (url, _) if is_url(url) => (url.trim_end_matches('/').to_owned(), None),
        (other, _) => {
            return Err(WrongSetting(format!("--api-pods {other}: write auto, off, on, or the API server's URL")));
        }
    };
    let access = Access { url, token_file, ca_file, trusts_anyone: false };
    Ok(Some(ApiPods::new(access, &node.name, Arc::clone(collect), door)))
}

/// A runtime by its setting: at a named socket, or wherever one of the usual ones is.
fn runtime(
    name: &'static str,
    setting: &str,
    find: fn(&Path) -> Option<PathBuf>,
    make: impl Fn(PathBuf) -> Box<dyn Source> + Send + 'static,
) -> Result<Option<Listed>, WrongSetting> {
    let source: Box<dyn Source> = match (setting, setting.strip_prefix("unix:")) {
        ("off", _) => return Ok(None),
        ("auto", _) => {
            let absent = Trouble::Off(format!("no usual socket is there; --{name} unix:PATH names one"));
            Box::new(Auto::new(name, move || find(Path::new("/")).map(&make), absent))
        }
        (_, Some(path)) if !path.is_empty() => Box::new(Auto::named(name, make(path.into()))),
        (other, _) => {
            return Err(WrongSetting(format!(
                "--{name} {other}: write auto, off, or unix:PATH, for example unix:/run/docker.sock"
            )));
        }
    };
    Ok(Some(Listed { reader: name, source }))
}

fn token_file(settings: &Settings, cluster: Option<&InCluster>) -> Option<PathBuf> {
    settings.kubelet_token_file.clone().or_else(|| cluster.and_then(|cluster| cluster.token_file.clone()))
}

fn is_url(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn listed(flags: &[&str], in_cluster: bool, addresses: &[&str]) -> Result<Vec<&'static str>, String> {
        let line = Line::parse_from(["x"].iter().chain(flags));
        let node = Node {
            root: "/proc".into(),
            name: "n".into(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            is_in_pod: in_cluster,
        };
        let variable = |name: &str| (in_cluster && name == "KUBERNETES_SERVICE_HOST").then(|| "10.96.0.1".to_owned());
        let listed = sources(&line.settings, node, variable).map_err(|error| error.to_string())?;
        Ok(listed.into_iter().map(|listed| listed.reader).collect())
    }

    #[test]
    fn outside_a_cluster_nobody_asks_a_kubelet_or_an_api_server_unasked() {
        assert_eq!(listed(&[], false, &[]).unwrap(), ["cri", "docker", "node"]);
        let flags = ["--kubelet", "http://127.0.0.1:10255", "--cri", "off", "--docker", "off"];
        assert_eq!(listed(&flags, false, &[]).unwrap(), ["kubelet", "node"]);
        assert!(listed(&["--api-pods", "on"], false, &[]).unwrap_err().contains("KUBERNETES_SERVICE_HOST"));
    }

    #[test]
    fn in_a_cluster_the_kubelet_is_asked_and_the_api_server_stands_by() {
        assert_eq!(listed(&[], true, &["10.0.0.1"]).unwrap(), ["kubelet", "api", "cri", "docker", "node"]);
        assert_eq!(
            listed(&[], true, &[]).unwrap(),
            ["kubelet", "api", "cri", "docker", "node"],
            "and says what is missing"
        );
        assert_eq!(
            listed(&["--api-pods", "off", "--cri", "off", "--docker", "off"], true, &["::1"]).unwrap(),
            ["kubelet", "node"]
        );
        assert_eq!(listed(&["--kubelet", "off"], true, &["10.0.0.1"]).unwrap(), ["cri", "docker", "node"]);
        assert_eq!(
            listed(&["--kubelet", "off", "--api-pods", "on"], true, &[]).unwrap(),
            ["api", "cri", "docker", "node"]
        );
    }

    #[test]
    fn a_wrong_setting_is_refused_with_the_choice() {
        for (flags, words) in [
            (["--kubelet", "10.0.0.1:10250"], "https://10.0.0.1:10250"),
            (["--api-pods", "yes"], "auto, off, on"),
            (["--cri", "/run/x.sock"], "unix:PATH"),
            (["--docker", "on"], "unix:PATH"),
            (["--collect", "pod.team=metadata"], "character 10"),
            (["--collect", "node.rack=$.metadata.labels.rack"], "its own --collect takes"),
        ] {
            let told = listed(&flags, true, &[]).unwrap_err();
            assert!(told.starts_with(flags[0]) && told.contains(words), "{told}");
        }
    }
}
