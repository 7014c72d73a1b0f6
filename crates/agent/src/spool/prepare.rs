//! The spool's folder, made by root for an agent that is an ordinary user: `--prepare-spool GROUP`.
//!
//! On a Kubernetes node the spool must outlive the pod, so it lies in a folder of the node, and such folders are made as
//! root's. An init container that runs as root, with no capability at all, calls this: the owner of a folder may give it
//! to a group that it is in itself.

use super::SpoolError;
use super::folder::at;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Its group may do everything in it, what is made in it belongs to that group, others may not even look.
const MODE: u32 = 0o2770;

/// Makes `folder` and gives it to `group`. What lies in it already is left as it is.
///
/// # Errors
/// When it cannot be made, or belongs to another user.
pub fn prepare(folder: &Path, group: u32) -> Result<(), SpoolError> {
    std::fs::create_dir_all(folder).map_err(at("create", folder))?;
    let is = std::fs::metadata(folder).map_err(at("look at", folder))?;
    if is.gid() != group {
        std::os::unix::fs::chown(folder, None, Some(group)).map_err(at("change the group of", folder))?;
    }
    if is.gid() != group || is.mode() & 0o7777 != MODE {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(MODE))
            .map_err(at("set the mode of", folder))?;
    }
    tracing::info!(spool = %folder.display(), group, "the spool's folder is ready");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_may_write_into_a_prepared_spool_and_preparing_again_changes_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("var/agent");
        let group = nix::unistd::getegid().as_raw();
        for _again in 0..2 {
            prepare(&folder, group).unwrap();
            let is = std::fs::metadata(&folder).unwrap();
            assert_eq!((is.gid(), is.mode() & 0o7777), (group, 0o2770));
            std::fs::write(folder.join("kept"), "x").unwrap();
        }
        assert_eq!(std::fs::read_to_string(folder.join("kept")).unwrap(), "x");
    }
}
