//! The feed's socket: made with its mode and group before anybody can see it, a stale one replaced, a live one left
//! alone.

use nix::unistd::{Gid, Group, Uid};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody serves it.
    #[error("failed to serve {0}: another tracer answers there; stop it, or choose another --socket")]
    Live(PathBuf),
    /// Something else lies there.
    #[error("failed to serve {0}: something that is not a socket lies there; move it away, or choose another --socket")]
    Occupied(PathBuf),
    /// No such group.
    #[error("failed to find group `{0}`; name an existing group or its number with --socket-group")]
    Group(String),
    /// The system's answer.
    #[error("failed to {step} {path}: {source}")]
    System {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The socket, served as long as this lives; dropping it removes the file.
#[derive(Debug)]
pub struct Served {
    path: PathBuf,
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the socket was gone already");
        }
    }
}

/// Binds `path` with mode 0660, owned by `group`; its folder is made (0755) if it is missing.
pub fn bind(path: &Path, group: Option<&str>) -> Result<(UnixListener, Served), SocketError> {
    let system = |step| move |source| SocketError::System { step, path: path.into(), source };
    let group = group.map(find_group).transpose()?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(system("make the folder of"))?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(SocketError::Occupied(path.into())),
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(SocketError::Live(path.into())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(system("look at")(error)),
    }
    // Bound beside its place and moved there complete; the move replaces a stale socket.
    let fresh = path.with_extension(format!("sock-{}", std::process::id()));
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).map_err(system("bind"))?;
    let placed = std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o660))
        .and_then(|()| std::os::unix::fs::chown(&fresh, Some(Uid::effective().as_raw()), group.map(Gid::as_raw)))
        .and_then(|()| std::fs::rename(&fresh, path));
    if let Err(error) = placed {
        let _ = std::fs::remove_file(&fresh);
        return Err(system("set mode and group of")(error));
    }
    listener.set_nonblocking(true).map_err(system("serve"))?;
    Ok((listener, Served { path: path.into() }))
}

fn find_group(name: &str) -> Result<Gid, SocketError> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid),
        _ => Err(SocketError::Group(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/tracer.sock");
        let (first, served) = bind(&path, None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let refused = bind(&path, None).unwrap_err().to_string();
        assert!(refused.contains("another tracer answers") && refused.contains("tracer.sock"), "{refused}");
        drop(first);
        std::mem::forget(served);
        let (_second, served) = bind(&path, None).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(served);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tracer.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path, None), Err(SocketError::Occupied(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn an_unknown_group_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = bind(&folder.path().join("s"), Some("no-such-group")).unwrap_err();
        assert!(error.to_string().contains("`no-such-group`"));
    }
}
