//! What a cgroup path says: which container, and which pod.
//!
//! Runtimes and kubelets write the container id and the pod's UID into the path, each in its own way, and not always
//! as the last element: containers make cgroups of their own below, and a node that is itself a container (kind) has
//! its own id further up. The deepest container id is the one that holds the socket.

use std::fmt;

/// A container's id: 64 hexadecimal digits, as containerd, CRI-O, Docker and Podman make them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(Box<str>);

impl ContainerId {
    /// The id in `text`, if it has the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        is_container_id(text).then(|| Self(text.into()))
    }

    /// The 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A pod's UID in the form of the API: with dashes, or the 32 digits of a static pod's manifest hash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(Box<str>);

impl PodUid {
    /// The UID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The container that a cgroup path lies in.
///
/// Forms: `<id>`, `docker-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>.scope`, `libpod-<id>.scope`,
/// `<slice>:cri-containerd:<id>`. A `crio-conmon-<id>` or `libpod-conmon-<id>` is the runtime's monitor beside the
/// container, not the container.
pub fn container(path: &str) -> Option<ContainerId> {
    container_id(path).map(|id| ContainerId(id.into()))
}

/// The id of [`container`] where it stands in the path.
pub fn container_id(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(|segment| {
        let segment = segment.strip_suffix(".scope").unwrap_or(segment);
        let (prefix, id) = segment.rsplit_once(['-', ':']).unwrap_or(("", segment));
        (!prefix.ends_with("conmon") && is_container_id(id)).then_some(id)
    })
}

/// The pod that a cgroup path lies in.
///
/// Forms: `pod<uid>` (cgroupfs), `kubepods-<class>-pod<uid with _ for ->.slice` (systemd).
pub fn pod(path: &str) -> Option<PodUid> {
    path.rsplit('/').flat_map(|segment| segment.split(':')).find_map(|segment| {
        let segment = segment.strip_suffix(".slice").unwrap_or(segment);
        let (before, uid) = segment.rsplit_once("pod")?;
        if !(before.is_empty() || before.starts_with("kubepods") && before.ends_with('-')) {
            return None;
        }
        let uid = uid.replace('_', "-");
        is_pod_uid(&uid).then(|| PodUid(uid.into()))
    })
}

/// The path that tells most among the lines of `/proc/PID/cgroup`: one that names a container, version 2's first;
/// else version 2's where it is not the root; else a controller's that is not. `/` when there is nothing better.
pub fn best_path(file: &str) -> &str {
    /// The controllers that runtimes always place a container in, and systemd's own tree.
    const PREFERRED: [&str; 5] = ["", "memory", "pids", "cpu", "name=systemd"];
    let mut lines: Vec<(&str, &str)> = file
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            rest.split_once(':')
        })
        .collect();
    let rank = |controllers: &str| {
        PREFERRED
            .iter()
            .position(|preferred| controllers.split(',').any(|controller| controller == *preferred))
            .unwrap_or(PREFERRED.len())
    };
    lines.sort_by_key(|(controllers, _)| rank(controllers));
    lines
        .iter()
        .find(|(_, path)| container(path).is_some())
        .or_else(|| lines.iter().find(|(_, path)| *path != "/"))
        .map_or("/", |(_, path)| path)
}

fn is_container_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_pod_uid(text: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.len() {
        32 => hex(text),
        36 => {
            let parts: Vec<&str> = text.split('-').collect();
            parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|part| hex(part))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "eae2780ca50271940c642eb532ec85cc6898c7a9a9512f7a41a0dcdcd2708860";
    const UID: &str = "94d6947c-3d7f-461d-9e06-17ecd60d40a4";

    fn recorded(name: &str) -> (Option<String>, Option<String>) {
        let file = match name {
            "kubepods" => include_str!("../tests/data/kubepods-cgroupfs-hybrid.txt"),
            "static" => include_str!("../tests/data/kubepods-static-pod.txt"),
            "docker" => include_str!("../tests/data/docker-cgroupfs-hybrid.txt"),
            _ => include_str!("../tests/data/containerd2-root.txt"),
        };
        let path = best_path(file.split_once('\n').unwrap().1);
        (container(path).map(|id| id.to_string()), pod(path).map(|uid| uid.to_string()))
    }

    #[test]
    fn recorded_paths_name_their_container_and_pod() {
        assert_eq!(recorded("kubepods"), (Some(ID.into()), Some(UID.into())));
        assert_eq!(
            recorded("static"),
            (
                Some("560d24db84f50b6b7a0c37c92a962665daabd4adbab310403b82fc54ba968a17".into()),
                Some("cd24ea17f0a18698d722008e4f953339".into())
            )
        );
        assert_eq!(
            recorded("docker"),
            (Some("c338997ed0f2d356232739b9ecadf6202e8b52660d71a000b0d5a64da5f29f41".into()), None)
        );
        assert_eq!(recorded("root"), (None, None));
    }

    #[test]
    fn every_runtimes_form_is_read() {
        let underscored = UID.replace('-', "_");
        for path in [
            format!("/kubepods/besteffort/pod{UID}/{ID}"),
            format!("/kubepods/pod{UID}/{ID}"),
            format!(
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{underscored}.slice/cri-containerd-{ID}.scope"
            ),
            format!("/kubepods.slice/kubepods-pod{underscored}.slice/docker-{ID}.scope"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{underscored}.slice/crio-{ID}.scope/container"
            ),
            format!("/kubepods-besteffort-pod{underscored}.slice:cri-containerd:{ID}"),
            format!("/kubepods/besteffort/pod{UID}/{ID}/kube-proxy"),
            format!("/docker/{}/kubelet/kubepods/besteffort/pod{UID}/{ID}", "a".repeat(64)),
            format!("/../../besteffort/pod{UID}/{ID}"),
        ] {
            assert_eq!(container(&path).map(|id| id.to_string()).as_deref(), Some(ID), "{path}");
            assert_eq!(pod(&path).map(|uid| uid.to_string()).as_deref(), Some(UID), "{path}");
        }
        assert_eq!(container(&format!("/machine.slice/libpod-{ID}.scope/container")).unwrap().as_str(), ID);
        assert_eq!(container(&format!("/system.slice/docker-{ID}.scope/init.scope")).unwrap().as_str(), ID);
    }

    #[test]
    fn what_is_no_container_is_not_taken_for_one() {
        for path in [
            "/".to_owned(),
            "/system.slice/ssh.service".to_owned(),
            "/user.slice/user-1000.slice/user@1000.service/app.slice/pod-tool.scope".to_owned(),
            format!("/kubepods.slice/crio-conmon-{ID}.scope"),
            format!("/machine.slice/libpod-conmon-{ID}.scope"),
            format!("/docker/{}", &ID[..63]),
            format!("/docker/{}", ID.to_uppercase()),
        ] {
            assert_eq!(container(&path), None, "{path}");
            assert_eq!(pod(&path), None, "{path}");
        }
    }

    #[test]
    fn the_best_path_is_the_one_that_tells_most() {
        assert_eq!(best_path(&format!("12:pids:/docker/{ID}\n0::/\n")), format!("/docker/{ID}"));
        assert_eq!(best_path("1:name=systemd:/a\n0::/system.slice/b\n"), "/system.slice/b");
        assert_eq!(best_path("4:memory:/m\n1:name=systemd:/a\n0::/\n"), "/m");
        assert_eq!(best_path("0::/\n"), "/");
        assert_eq!(best_path("rubbish"), "/");
    }
}
