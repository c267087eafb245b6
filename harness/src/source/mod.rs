//! Where tools and images come from: `upstream` registries and releases, a `bundle` file, or `packages`, built here from
//! Debian and Go packages.

pub mod browser;
pub mod bundle;
pub mod engine;
pub mod image;
pub mod ingredients;
pub mod layout;
pub mod mirror;
pub mod node;
pub mod packages;
pub mod pin;
pub mod registry;
pub mod store;
pub mod upstream;
pub mod versions;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use self::{
    bundle::{Bundle, BundleError},
    engine::EngineRef,
    ingredients::{Harbor, Ingredients, Network, Tools},
    mirror::Mirror,
    node::Dock,
    packages::PackagesError,
    store::Artifact,
    upstream::{Answer, UpstreamError},
    versions::{Kubernetes, Versions},
};
use crate::{paths::Paths, run::events::Events};

/// Why the tools and images could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// From the upstream registries and releases.
    #[error("get the tools and images from upstream: {0}")]
    Upstream(#[from] UpstreamError),
    /// From packages.
    #[error("build the tools and images from packages: {0}")]
    Packages(#[from] PackagesError),
    /// From a bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Another Harbor than the one that there is a stand-in for.
    #[error(
        "stand in for Harbor {asked}: the packages source has a stand-in for Harbor {there} alone; use `--source upstream` or \
         a bundle, or leave `--harbor` out"
    )]
    NoStandIn {
        /// What was asked for.
        asked: String,
        /// What there is.
        there: String,
    },
}

/// Where tools and images come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// Image registries and releases, as everyone has them; the real Harbor.
    Upstream,
    /// Built here from Debian and Go packages; the Harbor stand-in.
    Packages,
    /// A file made before from one of the others.
    Bundle,
}

impl std::fmt::Display for SourceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SourceKind::Upstream => "upstream",
            SourceKind::Packages => "packages",
            SourceKind::Bundle => "bundle",
        })
    }
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SourceChoice {
    /// Upstream where its registries answer, else packages.
    #[default]
    Auto,
    /// Upstream, whatever answers.
    Upstream,
    /// Packages, whatever answers.
    Packages,
    /// A bundle.
    Bundle {
        /// Its file.
        file: PathBuf,
        /// The Kubernetes that it must have, where one was asked for.
        kubernetes: Option<String>,
    },
}

/// Which source was taken, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The source.
    pub kind: SourceKind,
    /// The reason, as the end of a sentence.
    pub why: String,
}

/// Chooses a source. `Auto` asks every image registry that upstream needs, all at once and once each.
pub async fn choose(choice: &SourceChoice, site: Site<'_>) -> Chosen {
    match choice {
        SourceChoice::Bundle { file, .. } => {
            Chosen { kind: SourceKind::Bundle, why: format!("{} was named", file.display()) }
        }
        SourceChoice::Upstream => Chosen { kind: SourceKind::Upstream, why: "it was asked for".to_owned() },
        SourceChoice::Packages => Chosen { kind: SourceKind::Packages, why: "it was asked for".to_owned() },
        SourceChoice::Auto if site.offline => {
            Chosen { kind: SourceKind::Packages, why: "`--offline` asks no registry".to_owned() }
        }
        SourceChoice::Auto => match site.mirror {
            Some(mirror) => Chosen { kind: SourceKind::Upstream, why: format!("the mirror {mirror} was named") },
            None => judge(&upstream::ask_registries(site.pins).await),
        },
    }
}

fn judge(answers: &[Answer]) -> Chosen {
    let silent: Vec<String> = answers.iter().filter_map(Answer::why_not).collect();
    if silent.is_empty() {
        let names: Vec<&str> = answers.iter().map(|answer| &*answer.registry).collect();
        let why = format!("the image registries answer ({})", names.join(", "));
        return Chosen { kind: SourceKind::Upstream, why };
    }
    let why = format!("not every image registry that upstream needs answers: {}", silent.join("; "));
    Chosen { kind: SourceKind::Packages, why }
}

/// What is pinned for one lab.
#[derive(Debug, Clone)]
pub struct Pins {
    /// The oldest Go that the packages can be built with, such as `1.24.2`.
    pub go: String,
    /// kind's version.
    pub kind: String,
    /// helm's version.
    pub helm: String,
    /// crane's version.
    pub crane: String,
    /// actionlint's version.
    pub actionlint: String,
    /// axe-core's version.
    pub axe_core: String,
    /// Kubernetes' version.
    pub kubernetes: String,
    /// kind's own node image, by digest.
    pub node_image: String,
    /// The version of etcd that this Kubernetes expects.
    pub etcd: String,
    /// The default Kubernetes' version. What a lab needs beside its Kubernetes is built with the packages of this one.
    pub default_kubernetes: String,
    /// The version of etcd that the default Kubernetes expects.
    pub default_etcd: String,
    /// The version of containerd in nodes that are built here.
    pub containerd: String,
    /// The version of the CNI plugins in nodes that are built here.
    pub cni_plugins: String,
    /// The version of coredns that is built here.
    pub coredns: String,
    /// The version of the storage provisioner that is built here.
    pub local_path_packages: String,
    /// The storage provisioner's image.
    pub local_path_image: String,
    /// The image of its helper pods.
    pub helper_image: String,
    /// Harbor's version.
    pub harbor: String,
    /// The Harbor that the stand-in was made after.
    pub default_harbor: String,
    /// The version of Harbor's chart.
    pub harbor_chart: String,
    /// The SHA-256 of the packed chart, where it is known.
    pub harbor_chart_sha256: Option<String>,
    /// Harbor's images, with their digests where those are known.
    pub harbor_images: Vec<String>,
    /// Where Harbor's chart is.
    pub harbor_chart_repository: String,
}

impl Pins {
    /// What is pinned, with one of the pinned Kubernetes versions and one of Harbor's.
    pub fn new(versions: &Versions, kubernetes: &Kubernetes, harbor: &versions::Harbor) -> Self {
        // One is always pinned.
        let default = versions.all_kubernetes().next().unwrap_or(kubernetes);
        Self {
            go: kubernetes.go.as_ref().unwrap_or(&versions.go.minimum).to_string(),
            kind: versions.kind.version.to_string(),
            helm: versions.helm.version.to_string(),
            crane: versions.crane.version.to_string(),
            actionlint: versions.actionlint.version.to_string(),
            axe_core: versions.axe_core.version.to_string(),
            kubernetes: kubernetes.version.to_string(),
            node_image: kubernetes.node_image.to_string(),
            etcd: kubernetes.etcd.to_string(),
            default_kubernetes: default.version.to_string(),
            default_etcd: default.etcd.to_string(),
            containerd: versions.containerd.version.to_string(),
            cni_plugins: versions.cni_plugins.version.to_string(),
            coredns: versions.coredns.version.to_string(),
            local_path_packages: versions.local_path_provisioner.packages_version.to_string(),
            local_path_image: versions.local_path_provisioner.image.to_string(),
            helper_image: versions.local_path_provisioner.helper_image.to_string(),
            harbor: harbor.version.to_string(),
            default_harbor: versions.all_harbor().next().unwrap_or(harbor).version.to_string(),
            harbor_chart: harbor.chart.to_string(),
            harbor_chart_sha256: harbor.chart_sha256.as_ref().map(ToString::to_string),
            harbor_images: harbor.images.iter().map(ToString::to_string).collect(),
            harbor_chart_repository: versions.harbor_chart.repository.clone(),
        }
    }

    /// Sees that the Harbor is the one that the stand-in was made after.
    fn check_stand_in(&self) -> Result<(), SourceError> {
        match self.harbor == self.default_harbor {
            true => Ok(()),
            false => Err(SourceError::NoStandIn { asked: self.harbor.clone(), there: self.default_harbor.clone() }),
        }
    }
}

/// The tools and images of one lab, ready to use.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The programs.
    pub tools: Tools,
    /// The node image, present in the engine; for `kind create cluster --image`. It has every image that a lab runs.
    pub node_image: String,
    /// Whose network the node image brings.
    pub network: Network,
    /// Harbor's chart: a folder or a packed chart.
    pub chart: PathBuf,
    /// What the chart installs.
    pub harbor: Harbor,
    /// The storage provisioner's objects, as YAML.
    pub local_path_manifest: String,
    /// While these live, no other run drops what this one uses.
    pub in_use: Vec<Artifact>,
}

/// Where a lab is prepared.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The workspace's folder.
    pub root: &'a Path,
    /// The cache.
    pub paths: &'a Paths,
    /// What is pinned.
    pub pins: &'a Pins,
    /// Where upstream images are fetched from instead of their registry.
    pub mirror: Option<&'a Mirror>,
    /// Whether nothing may be fetched.
    pub offline: bool,
    /// Where it is told.
    pub events: &'a Events,
}

/// Chooses a source and fetches or builds whatever is missing.
///
/// # Errors
/// See the sources' own errors. What was finished before stays in the cache.
pub async fn prepare(
    choice: &SourceChoice,
    engine: &EngineRef,
    site: Site<'_>,
) -> Result<(SourceKind, Prepared), SourceError> {
    let Site { root, paths, pins, offline, events, .. } = site;
    let chosen = choose(choice, site).await;
    events.note(format!("source: {}, because {}", chosen.kind, chosen.why));
    let prepared = match (choice, chosen.kind) {
        (SourceChoice::Bundle { file, kubernetes }, _) => {
            let bundle = Bundle::open(file, paths, events).await?;
            bundle.check_kubernetes(kubernetes.as_deref())?;
            bundle.prepare(root, paths, engine, events).await?
        }
        (_, SourceKind::Upstream) => {
            let ingredients = upstream::ingredients(site).await?;
            Dock { root, paths, engine, events }.prepare(ingredients).await.map_err(UpstreamError::from)?
        }
        _ => {
            pins.check_stand_in()?;
            packages::prepare(root, paths, pins, engine, offline, events).await?
        }
    };
    Ok((chosen.kind, prepared))
}

/// Fetches or builds whatever is missing, for a bundle.
///
/// # Errors
/// As for [`prepare`].
pub async fn ingredients(choice: &SourceChoice, site: Site<'_>) -> Result<Ingredients, SourceError> {
    let Site { root, paths, pins, offline, events, .. } = site;
    let chosen = choose(choice, site).await;
    events.note(format!("source: {}, because {}", chosen.kind, chosen.why));
    Ok(match chosen.kind {
        SourceKind::Upstream => upstream::ingredients(site).await?,
        _ => {
            pins.check_stand_in()?;
            packages::ingredients(root, paths, pins, offline, events).await?
        }
    })
}

/// The programs of this machine that a source calls, beside Go.
pub fn needs(kind: SourceKind) -> Vec<&'static str> {
    match kind {
        SourceKind::Upstream | SourceKind::Bundle => vec!["bash"],
        SourceKind::Packages => vec!["bash", "apt-get", "dpkg-deb", "unshare", "cargo"],
    }
}

/// The version of the Go that packages are built with.
///
/// # Errors
/// There is none, or it is too old; in words that say what to do.
pub async fn go(paths: &Paths, pins: &Pins) -> Result<String, String> {
    let go = packages::go::Go::find(paths, &pins.go).await;
    go.map(|go| go.version().to_owned()).map_err(|error| error.to_string())
}

/// Has the stand-in's image in the Docker engine, built from packages, and says its name.
///
/// # Errors
/// As for [`prepare`]. `None` means that the stand-in's folder of Debian packages is missing.
pub async fn stand_in_image_in_engine(
    engine: &EngineRef,
    root: &Path,
    paths: &Paths,
    pins: &Pins,
    events: &Events,
) -> Result<Option<String>, SourceError> {
    Ok(packages::stand_in_in_engine(root, paths, pins, engine, events).await?)
}

/// The actionlint program, built where it is missing: for tests.
///
/// # Errors
/// It cannot be built.
pub async fn actionlint(root: &Path, paths: &Paths, pins: &Pins, events: &Events) -> Result<PathBuf, SourceError> {
    Ok(packages::actionlint(root, paths, pins, events).await?)
}

/// What an artifact is called that goes with a Kubernetes: the store keeps few of one name, and whoever runs labs of several
/// minor versions keeps them all.
fn of_minor(name: &str, kubernetes: &str) -> String {
    let minor = kubernetes.rsplit_once('.').map_or(kubernetes, |(minor, _)| minor);
    format!("{name}-{}", minor.trim_start_matches('v'))
}

/// The storage provisioner's objects with these images.
fn local_path_manifest(root: &Path, provisioner: &str, helper: &str) -> Result<String, (PathBuf, std::io::Error)> {
    let path = root.join("fixtures/manifests/local-path-storage.yaml");
    let text = fs::read_to_string(&path).map_err(|source| (path, source))?;
    Ok(text.replace("@PROVISIONER_IMAGE@", provisioner).replace("@HELPER_IMAGE@", helper))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(registry: &str, seen: Result<u16, &str>) -> Answer {
        Answer { registry: registry.to_owned(), seen: seen.map_err(str::to_owned) }
    }

    #[test]
    fn upstream_is_taken_when_every_registry_answers() {
        // A registry that wants a token answers 401: it is there.
        let chosen = judge(&[answer("a.test", Ok(401)), answer("b.test", Ok(200))]);
        assert_eq!(chosen.kind, SourceKind::Upstream);
        assert_eq!(chosen.why, "the image registries answer (a.test, b.test)");
    }

    #[test]
    fn packages_are_taken_when_one_does_not_and_the_reason_names_it() {
        let chosen = judge(&[answer("a.test", Ok(200)), answer("b.test", Err("no such host"))]);
        assert_eq!(chosen.kind, SourceKind::Packages);
        assert_eq!(chosen.why, "not every image registry that upstream needs answers: b.test (no such host)");
        assert_eq!(judge(&[answer("a.test", Ok(503))]).kind, SourceKind::Packages);
    }

    #[test]
    fn what_goes_with_a_kubernetes_is_kept_beside_that_of_another_minor_version() {
        assert_eq!(of_minor("node", "v1.34.4"), "node-1.34");
    }

    #[test]
    fn the_storage_manifest_has_its_images_filled_in() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let manifest = local_path_manifest(&root, "x/provisioner:1", "x/helper:1").unwrap();
        assert!(manifest.contains("image: x/provisioner:1\n") && manifest.contains("image: x/helper:1\n"));
        assert!(!manifest.contains("_IMAGE@\n"), "{manifest}");
    }
}
