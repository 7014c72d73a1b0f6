//! Why a socket may not be used, and who may: its owner, its group and its mode in words.

use nix::unistd::{Gid, Group, Uid, User};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a person whose agent may not use the socket at `path` needs to know.
pub fn denied(path: &Path) -> String {
    let own =
        User::from_uid(Uid::effective()).ok().flatten().map_or_else(|| Uid::effective().to_string(), |user| user.name);
    let Ok(socket) = std::fs::metadata(path) else {
        return format!(
            "not allowed to use {}: {own} may not enter a folder on the way to it; run as its owner or join its group",
            path.display()
        );
    };
    let group = Group::from_gid(Gid::from_raw(socket.gid())).ok().flatten();
    let group = group.map_or_else(|| socket.gid().to_string(), |group| group.name);
    let owner = User::from_uid(Uid::from_raw(socket.uid())).ok().flatten();
    let owner = owner.map_or_else(|| socket.uid().to_string(), |user| user.name);
    words(&path.display().to_string(), &own, &owner, &group, socket.mode() & 0o777)
}

/// The same of a container runtime's socket, which means root; `flag` (`docker`, `cri`) names it.
pub(crate) fn denied_runtime(path: &Path, flag: &str) -> String {
    let socket = path.display();
    format!(
        "{}. Who may open it is root on this machine, so nobody may unasked: `sudo weir up --{flag} unix:{socket}` asks \
         for it, in Kubernetes a component deploy/kubernetes/components/runtime-sockets-*; --{flag} off switches this off",
        denied(path)
    )
}

/// Connecting to a unix socket takes the right to write. The group `root` is nobody's to join.
fn words(path: &str, own: &str, owner: &str, group: &str, mode: u32) -> String {
    let fix = if mode & 0o020 != 0 && group != "root" {
        format!(
            "add {own} to the group {group} (usermod -aG {group} {own}; in Kubernetes supplementalGroups) or run as {owner}"
        )
    } else {
        format!("run as {owner}")
    };
    format!("not allowed to use {path} (owner {owner}, group {group}, mode {mode:04o}): {fix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_probes_socket_names_the_group_to_join() {
        let text = words("/run/sysprobe.sock", "weir", "dd-agent", "dd-agent", 0o720);
        assert!(text.contains("mode 0720") && text.contains("usermod -aG dd-agent weir"), "{text}");
        for (group, mode) in [("docker", 0o700), ("root", 0o660)] {
            assert!(words("/x", "weir", "root", group, mode).ends_with("run as root"), "{group} {mode:o}");
        }
    }

    #[test]
    fn a_runtimes_socket_says_that_it_means_root_and_how_to_ask_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let text = denied_runtime(&socket, "docker");
        let asked = format!("`sudo weir up --docker unix:{}` asks for it", socket.display());
        assert!(text.contains(&asked) && text.contains("is root on this machine"), "{text}");
    }
}
