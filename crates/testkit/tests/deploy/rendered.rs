//! What `kubectl kustomize` makes of `deploy/kubernetes`: every variant that a user may apply.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// One rendering.
pub(crate) struct Variant {
    /// `base`, an overlay's name, or the names of components.
    pub(crate) name: String,
    /// Which components are in it.
    pub(crate) components: BTreeSet<String>,
    /// The objects.
    pub(crate) objects: Vec<Value>,
}

/// The workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A kubectl with kustomize 5: what `make test-packages` fetched, else the machine's.
fn kubectl() -> Result<PathBuf> {
    let fetched = root().join("target/tools/kubectl");
    let kubectl = if fetched.exists() { fetched } else { PathBuf::from("kubectl") };
    let remedy = "kubectl with kustomize 5 (1.27 or newer) is needed to render deploy/kubernetes: `make test-packages` \
                  fetches one into target/tools";
    let output = Command::new(&kubectl).args(["version", "--client", "-o", "json"]).output().context(remedy)?;
    let version: Value = serde_json::from_slice(&output.stdout).context(remedy)?;
    let kustomize = version["kustomizeVersion"].as_str().unwrap_or("none");
    let major: Option<u32> = kustomize.trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok());
    ensure!(major.is_some_and(|major| major >= 5), "{} brings kustomize {kustomize}; {remedy}", kubectl.display());
    Ok(kubectl)
}

fn render(kubectl: &Path, folder: &Path) -> Result<Vec<Value>> {
    let output = Command::new(kubectl).arg("kustomize").arg(folder).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    // A warning is a word that kustomize will not know one day.
    ensure!(output.status.success() && errors.is_empty(), "kubectl kustomize {}: {errors}", folder.display());
    let text = String::from_utf8(output.stdout)?;
    Ok(serde_saphyr::from_multiple(&text)?)
}

fn names_in(folder: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))? {
        names.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// The base, every overlay, and components together; rendered once.
pub(crate) fn variants() -> Result<&'static [Variant]> {
    static RENDERED: LazyLock<Result<Vec<Variant>>> = LazyLock::new(render_all);
    RENDERED.as_deref().map_err(|error| anyhow::anyhow!("{error:#}"))
}

fn render_all() -> Result<Vec<Variant>> {
    let kubectl = kubectl()?;
    let deploy = root().join("deploy/kubernetes");
    let (overlays, components) = (names_in(&deploy.join("overlays"))?, names_in(&deploy.join("components"))?);
    ensure!(overlays == components, "every component has an overlay of its name: {overlays:?}, {components:?}");
    let mut variants = vec![Variant {
        name: "base".into(),
        components: BTreeSet::new(),
        objects: render(&kubectl, &deploy.join("base"))?,
    }];
    for name in overlays {
        let objects = render(&kubectl, &deploy.join("overlays").join(&name))?;
        variants.push(Variant { name: name.clone(), components: BTreeSet::from([name]), objects });
    }
    // Who takes pods from the API server has no use for the two about the kubelet.
    for without in [&["api-pods"][..], &["kubelet-proxy", "kubelet-insecure-tls"]] {
        let together: BTreeSet<String> =
            components.iter().filter(|name| !without.contains(&name.as_str())).cloned().collect();
        variants.push(combine(&kubectl, &deploy, together)?);
    }
    Ok(variants)
}

/// As docs/operations.md tells users to: a kustomization of their own.
fn combine(kubectl: &Path, deploy: &Path, components: BTreeSet<String>) -> Result<Variant> {
    let folder = tempfile::Builder::new().prefix("weir-kustomization").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let up: PathBuf = folder.path().canonicalize()?.components().skip(1).map(|_| "..").collect();
    // kustomize takes relative paths only.
    let deploy = up.join(deploy.canonicalize()?.strip_prefix("/")?);
    let base = deploy.join("base");
    let lines = components.iter().map(|name| format!("- {}\n", deploy.join("components").join(name).display()));
    let text = format!("resources: [{}]\ncomponents:\n{}", base.display(), lines.collect::<String>());
    std::fs::write(folder.path().join("kustomization.yaml"), text)?;
    let objects = render(kubectl, folder.path())?;
    let name = components.iter().map(String::as_str).collect::<Vec<_>>().join("+");
    Ok(Variant { name, components, objects })
}

impl Variant {
    /// Every object of a kind.
    pub(crate) fn of_kind<'a>(&'a self, kind: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        let kind = Value::from(kind);
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// One object.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Result<&Value> {
        let found = self.of_kind(kind).find(|object| object["metadata"]["name"] == name);
        found.with_context(|| format!("{}: there is no {kind} {name}", self.name))
    }

    /// The pod templates, by the name of their owner.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.objects
            .iter()
            .filter(|object| object["spec"]["template"].is_object())
            .filter_map(|object| Some((object["metadata"]["name"].as_str()?, &object["spec"]["template"]["spec"])))
    }

    /// One pod template's specification.
    pub(crate) fn pod(&self, name: &str) -> Result<&Value> {
        let found = self.pods().find(|(owner, _)| *owner == name);
        Ok(found.with_context(|| format!("{}: there is no pod template in {name}", self.name))?.1)
    }
}

/// The items of a list; none where there is no list.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Every container of a pod, init containers first.
pub(crate) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(&pod["initContainers"]).iter().chain(list(&pod["containers"]))
}

/// A text.
pub(crate) fn text(value: &Value) -> Result<&str> {
    match value.as_str() {
        Some(text) => Ok(text),
        None => bail!("{value} is not a text"),
    }
}
