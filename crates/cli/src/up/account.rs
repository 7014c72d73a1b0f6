//! Whose rights the parts have. Only the tracer needs root; agent and server run as the user that `--user` names, by
//! default the one behind sudo.

use crate::exit::Failure;
use nix::unistd::{Gid, Group, Uid, User};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its id.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its home.
    pub home: PathBuf,
}

/// Who runs what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// We are an ordinary user; so is everything we start.
    Ordinary,
    /// We are root, and agent and server are too: nobody else was named.
    Root,
    /// We are root; agent and server run as this user.
    Dropped(Account),
}

impl Rights {
    /// Whether the tracer can be started with root's rights.
    pub fn is_root(&self) -> bool {
        *self != Self::Ordinary
    }

    /// The user that agent and server run as, where it is not ours.
    pub fn account(&self) -> Option<&Account> {
        match self {
            Self::Dropped(account) => Some(account),
            Self::Ordinary | Self::Root => None,
        }
    }

    /// The rights of this process and the flags.
    ///
    /// # Errors
    /// [`Failure::Usage`] when the user does not exist, or cannot be taken on without root.
    pub fn find(user: Option<&str>) -> Result<Self, Failure> {
        let own = Uid::effective();
        if !own.is_root() {
            let same = user.is_none_or(|name| lookup(name).is_some_and(|account| account.uid == own.as_raw()));
            return if same {
                Ok(Self::Ordinary)
            } else {
                Err(Failure::Usage("--user takes root: only root can run the parts as another user".to_owned()))
            };
        }
        let account = match user {
            Some(name) => Some(lookup(name).ok_or_else(|| {
                Failure::Usage(format!("there is no user `{name}` on this machine: name another with --user"))
            })?),
            None => behind_sudo(),
        };
        Ok(account.filter(|account| account.uid != 0).map_or(Self::Root, Self::Dropped))
    }
}

/// The user `name`, or the one with that number.
fn lookup(name: &str) -> Option<Account> {
    let found = User::from_name(name).ok().flatten();
    let found = found.or_else(|| User::from_uid(Uid::from_raw(name.parse().ok()?)).ok().flatten())?;
    Some(Account { name: found.name, uid: found.uid.as_raw(), gid: found.gid.as_raw(), home: found.dir })
}

/// `sudo(8)` sets these; a user that only a directory service knows may have numbers alone.
fn behind_sudo() -> Option<Account> {
    let variable = |name: &str| std::env::var(name).ok();
    if let Some(account) = variable("SUDO_USER").and_then(|name| lookup(&name)) {
        return Some(account);
    }
    let uid = variable("SUDO_UID")?.parse().ok()?;
    let gid = variable("SUDO_GID")?.parse().ok()?;
    Some(Account { name: variable("SUDO_USER")?, uid, gid, home: PathBuf::from("/") })
}

/// The groups that may write to these sockets, which is what connecting takes: without `own`, each once.
pub fn groups_of<'a>(sockets: impl Iterator<Item = &'a Path>, own: u32) -> Vec<u32> {
    let group = |socket: &Path| {
        let meta = socket.metadata().ok()?;
        (meta.mode() & 0o020 != 0 && meta.gid() != own).then_some(meta.gid())
    };
    let mut groups: Vec<u32> = sockets.filter_map(group).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// A group's name, or its number where it has none.
pub fn group_name(gid: u32) -> String {
    Group::from_gid(Gid::from_raw(gid)).ok().flatten().map_or_else(|| gid.to_string(), |group| group.name)
}

/// Our own group's number, for the tracer's socket.
pub fn own_gid() -> u32 {
    Gid::effective().as_raw()
}

/// The first folder above `path` that `account` may not enter, by its mode (access lists are not read).
pub fn closed_folder(path: &Path, account: &Account) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    path.ancestors().skip(1).map(Path::to_path_buf).collect::<Vec<_>>().into_iter().rev().find(|folder| {
        folder.metadata().is_ok_and(|meta| {
            let bit = match (meta.uid() == account.uid, meta.gid() == account.gid) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            meta.mode() & bit == 0
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_socket_gives_its_group_where_the_group_may_write() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        std::fs::write(&socket, "").unwrap();
        let gid = socket.metadata().unwrap().gid();
        let groups = |mode, own| {
            std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(mode)).unwrap();
            groups_of([socket.as_path(), &socket, Path::new("/nowhere")].into_iter(), own)
        };
        assert_eq!(groups(0o660, gid + 1), [gid]);
        assert_eq!(groups(0o640, gid + 1), [] as [u32; 0]);
        assert_eq!(groups(0o660, gid), [] as [u32; 0]);
    }

    #[test]
    fn a_folder_that_the_user_may_not_enter_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("closed/inner");
        std::fs::create_dir_all(&inner).unwrap();
        let other = Account { name: "other".into(), uid: 4_000_000, gid: 4_000_000, home: "/".into() };
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(closed_folder(&inner, &other), None);
        let closed = folder.path().join("closed");
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(closed_folder(&inner, &other), Some(closed.canonicalize().unwrap()));
    }
}
