//! Puts the page (`ui/dist`, built by `make ui`) into the binary. Without it a notice takes its place, so that the
//! server builds and answers all the same.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const NOTICE: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>weir</title></head><body>\
    <h1>The page is not built</h1><p>Run <code>make ui</code> and build weir again. The API is at \
    <a href=\"/openapi.json\">/openapi.json</a>, for example <a href=\"/api/v1/edges\">/api/v1/edges</a>.</p></body></html>";

fn main() -> std::io::Result<()> {
    let root = PathBuf::from(env("CARGO_MANIFEST_DIR")?).join("../../ui/dist");
    let out = PathBuf::from(env("OUT_DIR")?);
    // A folder that does not exist yet counts as changed for ever: cargo then runs this script in every build.
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    if root.join("index.html").is_file() {
        collect(&root, &root, &mut files)?;
        files.sort();
    } else {
        println!("cargo:warning=the page is not built (ui/dist/index.html is missing): run `make ui` and build again");
        let notice = out.join("notice.html");
        std::fs::write(&notice, NOTICE)?;
        files.push(("index.html".to_owned(), notice));
    }
    let mut source = "/// Every file of the page: its path below the root, its content.\n\
                      pub(super) static FILES: &[(&str, &[u8])] = &[\n"
        .to_owned();
    for (name, path) in files {
        let path = path.canonicalize()?;
        let _ = writeln!(source, "    ({name:?}, include_bytes!({:?})),", path.display().to_string());
    }
    source.push_str("];\n");
    std::fs::write(out.join("page_files.rs"), source)
}

fn env(name: &str) -> std::io::Result<String> {
    std::env::var(name).map_err(std::io::Error::other)
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, files)?;
        } else if let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) {
            files.push((name.to_owned(), path.clone()));
        }
    }
    Ok(())
}
