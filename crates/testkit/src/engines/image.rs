//! The one image that the engines run: Debian's static busybox at `/bin/busybox`, built here, since nothing is pulled.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Its name.
pub const NAME: &str = "weir.test/busybox:1";

/// Writes the image's one layer to `folder`.
///
/// # Errors
/// When busybox is missing.
pub(super) fn layer(folder: &Path) -> Result<PathBuf> {
    let root = folder.join("image/root");
    std::fs::create_dir_all(root.join("bin"))?;
    std::fs::create_dir_all(root.join("tmp"))?;
    std::fs::copy("/usr/bin/busybox", root.join("bin/busybox")).context("busybox-static is not installed")?;
    let layer = folder.join("image/layer.tar");
    tar(&root, &layer)?;
    Ok(layer)
}

/// Writes the image to `folder` as an archive that `ctr images import` takes.
///
/// # Errors
/// When busybox is missing.
pub(super) fn archive(folder: &Path) -> Result<PathBuf> {
    let layer = layer(folder)?;
    let digest = Command::new("sha256sum").arg(&layer).output()?;
    let digest = String::from_utf8(digest.stdout)?;
    let digest = digest.split(' ').next().context("sha256sum prints a digest")?;
    let root = folder.join("image/archive");
    std::fs::create_dir_all(&root)?;
    std::fs::rename(&layer, root.join("layer.tar"))?;
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Entrypoint": ["/bin/busybox"], "Cmd": ["sleep", "1000000"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    std::fs::write(root.join("config.json"), config.to_string())?;
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
    std::fs::write(root.join("manifest.json"), manifest.to_string())?;
    let archive = folder.join("image/image.tar");
    tar(&root, &archive)?;
    Ok(archive)
}

fn tar(root: &Path, to: &Path) -> Result<()> {
    let status = Command::new("tar").arg("-C").arg(root).arg("-cf").arg(to).arg(".").status()?;
    ensure!(status.success(), "tar failed");
    Ok(())
}
