//! The promise: the house is as `docs/architecture.md` describes it.

use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which crate may use which (DESIGN: edges point one way). A new arrow is a decision: it is drawn here and in
/// `docs/architecture.md`.
const ARROWS: &[(&str, &[&str])] = &[
    ("agent", &["daemon", "discovery", "inventory", "model", "wire"]),
    ("cli", &["daemon", "model", "server", "wire"]),
    ("daemon", &["model"]),
    ("discovery", &["inventory", "model", "wire"]),
    ("inventory", &["model"]),
    ("model", &[]),
    ("server", &["daemon", "discovery", "inventory", "model", "store", "wire"]),
    ("store", &["daemon", "discovery", "model"]),
    ("testkit", &["daemon", "wire"]),
    ("tracer", &["daemon", "model", "wire"]),
    ("wire", &["model"]),
];

fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.ancestors().nth(2).context("the workspace is two folders up")?.to_owned())
}

#[test]
fn crates_use_only_what_the_design_lets_them() -> Result<()> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root()?.join("Cargo.toml"))
        .no_deps()
        .other_options(vec!["--offline".into(), "--locked".into()])
        .exec()?;
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ARROWS.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    let mut seen = BTreeSet::new();
    for package in &metadata.packages {
        let name = package.name.strip_prefix("weir-").context("every crate is weir-<folder>")?;
        let rights = allowed.get(name).with_context(|| format!("the crate {name} is not in the design"))?;
        seen.insert(name.to_owned());
        for dependency in &package.dependencies {
            let Some(used) = dependency.name.strip_prefix("weir-") else { continue };
            // Tests may use the testkit, and a crate's own test doubles.
            if dependency.kind == cargo_metadata::DependencyKind::Development {
                continue;
            }
            ensure!(rights.contains(used), "{name} uses {used}, which the design does not draw");
        }
    }
    ensure!(
        seen == allowed.keys().map(ToString::to_string).collect(),
        "the design names crates that are gone: {seen:?}"
    );
    Ok(())
}

#[test]
fn the_code_map_names_what_is_there_and_nothing_else() -> Result<()> {
    let root = root()?;
    let text = std::fs::read_to_string(root.join("docs/architecture.md"))?;
    let mut named = BTreeSet::new();
    for word in text.split('`').skip(1).step_by(2) {
        let is_path =
            ["crates/", "ui/", "docs/", "scripts/", "bench/", ".ci/"].iter().any(|start| word.starts_with(start));
        if is_path && !word.contains(['*', '<', '{', ' ']) {
            ensure!(root.join(word).exists(), "docs/architecture.md names {word}, which is not there");
            named.insert(word.trim_end_matches('/').to_owned());
        }
    }
    for package in std::fs::read_dir(root.join("crates"))? {
        let source = package?.path().join("src");
        for room in std::fs::read_dir(&source)? {
            let path = room?.path();
            let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // A crate's front door, tests, and a folder that belongs to the file of its name are not rooms of their own.
            let is_annex = path.is_dir() && path.with_extension("rs").exists();
            if matches!(file, "lib.rs" | "main.rs" | "bin") || file.ends_with("tests.rs") || is_annex {
                continue;
            }
            let relative = path.strip_prefix(&root)?.to_string_lossy().into_owned();
            ensure!(named.contains(&relative), "docs/architecture.md does not name {relative}");
        }
    }
    Ok(())
}

#[test]
fn nothing_of_the_workplace_is_in_the_tree() -> Result<()> {
    let root = root()?;
    let listing = std::process::Command::new("git").args(["ls-files", "-z"]).current_dir(&root).output()?;
    ensure!(listing.status.success(), "git ls-files failed");
    // Written in halves, so that this file does not name them itself.
    let words = [["/work", "/main"].concat(), ["/work", "/shared"].concat(), ["/root", "/.cargo"].concat()];
    for file in listing.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let path = root.join(std::str::from_utf8(file)?);
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for word in &words {
            ensure!(!text.contains(word.as_str()), "{} contains {word}", path.display());
        }
    }
    Ok(())
}
