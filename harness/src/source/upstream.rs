//! Tools from their projects' releases, checked against the checksums published with them; images by digest from their
//! registries; the official Harbor chart.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use futures::{TryStreamExt, future::join_all};
use oci_client::Reference;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::{
    Pins, Site,
    image::{Image, NAME_ANNOTATION},
    ingredients::{Facts, Harbor, Ingredients, LocalPath, Network, Tools},
    layout::{Layout, LayoutError},
    mirror::{DOCKER_HUB, Mirror, api_host},
    node::NodeError,
    of_minor,
    registry::{self, Registry, RegistryError},
    store::{Artifact, Building, Inputs, Recipe, Store, StoreError},
};
use crate::{
    cmd::{Cmd, CmdError},
    run::events::{Events, HarborKind},
};

/// A registry that has not answered by then is not there.
const PROBE_LIMIT: Duration = Duration::from_secs(4);
/// Fetching some 20 MB over a slow line.
const FETCH_LIMIT: Duration = Duration::from_secs(10 * 60);

/// What stock kind node images install for storage and what does not go away when our manifest is applied over it, as
/// arguments of `kubectl delete --ignore-not-found`.
pub const STOCK_STORAGE: [&[&str]; 2] =
    [&["storageclass", "standard"], &["deployment", "local-path-provisioner", "--namespace=local-path-storage"]];

/// Why something could not be had from upstream.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// A host cannot be reached, or does not give the file.
    #[error("fetch {url}: {reason}; where {host} is out of reach, use `--source packages`")]
    Fetch {
        /// The file.
        url: String,
        /// Its host.
        host: String,
        /// What was seen.
        reason: String,
    },
    /// The published checksum is of another form than it is known to have.
    #[error("read the SHA-256 of {file} from {url}: it is not there; the text begins `{seen}`")]
    NoChecksum {
        /// The file.
        file: String,
        /// The checksum's address.
        url: String,
        /// How what is there begins.
        seen: String,
    },
    /// The file is not what its project published.
    #[error("check {url}: its SHA-256 is {seen}, and should be {published}; it was thrown away")]
    Mismatch {
        /// The file.
        url: String,
        /// The file's checksum.
        seen: String,
        /// The checksum that was published, or is pinned.
        published: String,
    },
    /// A release's archive does not hold its program.
    #[error("unpack {url}: {member} is not in it")]
    NotInArchive {
        /// The archive.
        url: String,
        /// What was looked for.
        member: String,
    },
    /// A file could not be handled.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The artifact store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// helm.
    #[error("fetch Harbor's chart: {0}")]
    Chart(CmdError),
    /// An image.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The node image.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// What was fetched of the images.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// An image that is not where it was put.
    #[error("look for the image {image} in {}: it is not there; remove the folder, and it is fetched anew", path.display())]
    NotFetched {
        /// The image.
        image: String,
        /// Where it should be.
        path: PathBuf,
    },
}

/// What a registry said when it was asked whether it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The registry, by the name that images have.
    pub registry: String,
    /// The status of its answer, or why there was none.
    pub seen: Result<u16, String>,
}

impl Answer {
    /// Why the registry cannot be used, if it cannot.
    pub(super) fn why_not(&self) -> Option<String> {
        match &self.seen {
            // Both mean that the registry's API is there.
            Ok(200 | 401) => None,
            Ok(status) => Some(format!("{} (status {status})", self.registry)),
            Err(reason) => Some(format!("{} ({reason})", self.registry)),
        }
    }
}

/// Asks every image registry that upstream needs whether it is there, all at once, once each.
pub async fn ask_registries(pins: &Pins) -> Vec<Answer> {
    // Harbor's own images are on the same registry as the node's.
    let images = [&pins.node_image, &pins.local_path_image, &pins.helper_image];
    let registries: BTreeSet<&str> = images.into_iter().map(|image| registry(image)).collect();
    join_all(registries.into_iter().map(|registry| async move {
        let ask = async {
            let request = client()?.get(format!("https://{}/v2/", api_host(registry))).send();
            Ok::<_, reqwest::Error>(request.await?.status().as_u16())
        };
        let seen = match tokio::time::timeout(PROBE_LIMIT, ask).await {
            Ok(answered) => answered.map_err(|error| root_cause(&error)),
            Err(_) => Err(format!("no answer within {} s", PROBE_LIMIT.as_secs())),
        };
        Answer { registry: registry.to_owned(), seen }
    }))
    .await
}

/// The registry that an image's name names.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => DOCKER_HUB,
    }
}

fn client() -> Result<reqwest::Client, reqwest::Error> {
    // Whoever comes first chooses; a second choice is refused and no matter.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().connect_timeout(PROBE_LIMIT).build()
}

/// The innermost reason: the outer ones repeat the address.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A program as its project releases it.
#[derive(Debug, PartialEq, Eq)]
struct Release {
    url: String,
    checksum_url: String,
    /// The program's path within the release, where that is an archive.
    member: Option<String>,
}

impl Release {
    fn kind(version: &str, arch: &str) -> Self {
        let url = format!("https://github.com/kubernetes-sigs/kind/releases/download/{version}/kind-linux-{arch}");
        Self { checksum_url: format!("{url}.sha256sum"), url, member: None }
    }

    fn kubectl(version: &str, arch: &str) -> Self {
        let url = format!("https://dl.k8s.io/release/{version}/bin/linux/{arch}/kubectl");
        Self { checksum_url: format!("{url}.sha256"), url, member: None }
    }

    fn helm(version: &str, arch: &str) -> Self {
        let url = format!("https://get.helm.sh/helm-{version}-linux-{arch}.tar.gz");
        Self { checksum_url: format!("{url}.sha256sum"), url, member: Some(format!("linux-{arch}/helm")) }
    }

    fn crane(version: &str, arch: &str) -> Self {
        let arch = if arch == "amd64" { "x86_64" } else { arch };
        let release = format!("https://github.com/google/go-containerregistry/releases/download/{version}");
        Self {
            url: format!("{release}/go-containerregistry_Linux_{arch}.tar.gz"),
            checksum_url: format!("{release}/checksums.txt"),
            member: Some("crane".to_owned()),
        }
    }
}

fn arch() -> &'static str {
    if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" }
}

/// A release's checksum as projects publish it: alone, followed by the file's name, or in a list of all their files.
fn checksum(release: &Release, text: &str) -> Result<String, UpstreamError> {
    let file = release.url.rsplit('/').next().unwrap_or_default();
    let mut lines = text.trim().lines();
    let line = match (lines.next(), lines.next()) {
        (Some(only), None) => Some(only),
        _ => text.lines().find(|line| line.split_whitespace().nth(1) == Some(file)),
    };
    let word = line.and_then(|line| line.split_whitespace().next()).unwrap_or_default();
    if word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(word.to_ascii_lowercase());
    }
    Err(UpstreamError::NoChecksum {
        file: file.to_owned(),
        url: release.checksum_url.clone(),
        seen: text.trim().chars().take(40).collect(),
    })
}

/// Fetches whatever is missing.
pub(super) async fn ingredients(site: Site<'_>) -> Result<Ingredients, UpstreamError> {
    let Site { root, paths, pins, mirror, offline, events } = site;
    let store = Store::new(paths).closed(offline);
    let (kind, kubectl, helm, crane) = tokio::try_join!(
        program(&store, "kind", &pins.kind, Release::kind(&pins.kind, arch()), events),
        program(&store, "kubectl", &pins.kubernetes, Release::kubectl(&pins.kubernetes, arch()), events),
        program(&store, "helm", &pins.helm, Release::helm(&pins.helm, arch()), events),
        program(&store, "crane", &pins.crane, Release::crane(&pins.crane, arch()), events),
    )?;
    let tools = Tools {
        kind: kind.file("kind"),
        helm: helm.file("helm"),
        kubectl: kubectl.file("kubectl"),
        crane: crane.file("crane"),
    };
    let chart = chart(&store, pins, &tools.helm, events).await?;
    let mut names = chart_images(&tools.helm, &chart.file(CHART), root).await?;
    names = names.into_iter().map(|name| with_digest(name, &pins.harbor_images)).collect();
    names.extend([&pins.local_path_image, &pins.helper_image, &pins.node_image].map(Clone::clone));
    // Nodes have them by the names that manifests have.
    let named = |image: &str| without_digest(image).to_owned();
    let local_path = LocalPath { provisioner: named(&pins.local_path_image), helper: named(&pins.helper_image) };
    let fetched = images(&store, pins, &names, mirror, events).await?;
    let mut images = Layout::new(fetched.file("")).images()?;
    let node = without_digest(&pins.node_image);
    let Some(stored) = images.remove(node) else {
        return Err(UpstreamError::NotFetched { image: node.to_owned(), path: fetched.file("") });
    };
    Ok(Ingredients {
        facts: Facts {
            kubernetes: pins.kubernetes.clone(),
            network: Network::Kind,
            harbor: Harbor { kind: HarborKind::Harbor, values: BTreeMap::new() },
            local_path,
        },
        tools,
        node: Image::stored(node, stored),
        images: images.into_iter().map(|(name, stored)| Image::stored(name, stored)).collect(),
        chart: chart.file(CHART),
        versions: versions(pins),
        in_use: vec![kind, kubectl, helm, crane, chart, fetched],
    })
}

/// The versions of what is fetched beside images.
fn versions(pins: &Pins) -> BTreeMap<String, String> {
    let parts = [
        ("crane", &pins.crane),
        ("harbor", &pins.harbor),
        ("harbor-chart", &pins.harbor_chart),
        ("helm", &pins.helm),
        ("kind", &pins.kind),
        ("kubectl", &pins.kubernetes),
    ];
    parts.map(|(name, version)| (name.to_owned(), version.clone())).into()
}

/// The file of Harbor's chart.
const CHART: &str = "harbor.tgz";

/// An image's name with the digest that it is pinned by, if it is.
fn with_digest(name: String, pinned: &[String]) -> String {
    pinned.iter().find(|pinned| without_digest(pinned) == name).cloned().unwrap_or(name)
}

/// An image's name without the digest that it is pinned by.
pub(super) fn without_digest(name: &str) -> &str {
    name.split_once('@').map_or(name, |(name, _)| name)
}

/// Sees that a packed chart is the one that is pinned, where one is.
fn check_chart(packed: &Path, pins: &Pins) -> Result<(), UpstreamError> {
    let Some(pinned) = &pins.harbor_chart_sha256 else { return Ok(()) };
    let bytes =
        fs::read(packed).map_err(|source| UpstreamError::Io { doing: "read", path: packed.to_owned(), source })?;
    let seen = hex::encode(Sha256::digest(bytes));
    if seen == *pinned {
        return Ok(());
    }
    let url = format!("{}/harbor-{}.tgz", pins.harbor_chart_repository, pins.harbor_chart);
    Err(UpstreamError::Mismatch { url, seen, published: pinned.clone() })
}

/// The images that Harbor's chart names with the values of a lab.
async fn chart_images(helm: &Path, chart: &Path, root: &Path) -> Result<BTreeSet<String>, UpstreamError> {
    let home = tempfile::tempdir().map_err(|source| UpstreamError::Io {
        doing: "make a folder in",
        path: std::env::temp_dir(),
        source,
    })?;
    let values = root.join("fixtures/values/harbor.yaml");
    let template = own_helm(helm, home.path()).args(["template", "harbor"]).arg(chart).arg("--values").arg(values);
    let rendered = template.limit(FETCH_LIMIT).run().await.map_err(UpstreamError::Chart)?.stdout;
    Ok(named_images(&rendered))
}

/// The images of rendered objects, by their whole names.
fn named_images(rendered: &str) -> BTreeSet<String> {
    let value = |line: &str| {
        let image = line.trim().trim_start_matches("- ").strip_prefix("image:")?;
        Reference::from_str(image.trim().trim_matches(['"', '\''])).ok().map(|image| image.whole())
    };
    rendered.lines().filter_map(value).collect()
}

/// Fetches images into an OCI image layout.
async fn images(
    store: &Store,
    pins: &Pins,
    names: &BTreeSet<String>,
    mirror: Option<&Mirror>,
    events: &Events,
) -> Result<Artifact, UpstreamError> {
    let inputs = names.iter().fold(Inputs::new(1), |inputs, name| inputs.text("image", name));
    let recipe = Recipe {
        name: of_minor("upstream-images", &pins.kubernetes),
        key: inputs.key(),
        step: match mirror {
            Some(mirror) => format!("fetch {} images from the mirror {mirror}", names.len()),
            None => format!("fetch {} images", names.len()),
        },
        usually: Duration::from_secs(120),
    };
    let fetch = |building: Building| async move {
        let registry = Registry::from_env(mirror.cloned())?;
        let mut manifests = Vec::new();
        for name in names {
            let fetched = registry::fetch(&registry, name, &building.out, &building.step).await?;
            manifests.push(serde_json::json!({
                "mediaType": fetched.media_type,
                "digest": fetched.digest,
                "size": fetched.size,
                "annotations": { NAME_ANNOTATION: without_digest(name) },
            }));
        }
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": manifests });
        for (file, text) in
            [("index.json", index.to_string()), ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#.to_owned())]
        {
            let path = building.out.join(file);
            fs::write(&path, text).map_err(|source| UpstreamError::Io { doing: "write", path, source })?;
        }
        Ok(())
    };
    store.ensure(&recipe, &[], events, fetch).await
}

/// helm with folders of its own, so that the user's are left alone.
fn own_helm(helm: &Path, home: &Path) -> Cmd {
    ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"]
        .into_iter()
        .fold(Cmd::new(helm), |cmd, variable| cmd.env(variable, home))
}

async fn program(
    store: &Store,
    name: &'static str,
    version: &str,
    release: Release,
    events: &Events,
) -> Result<Artifact, UpstreamError> {
    let recipe = Recipe {
        // Beside those that are built here, not instead of them.
        name: match name {
            "kubectl" => of_minor("upstream-kubectl", version),
            _ => format!("upstream-{name}"),
        },
        key: Inputs::new(1).text("version", version).text("url", &release.url).key(),
        step: format!("fetch {name} {version}"),
        usually: Duration::from_secs(10),
    };
    let fetch = |building: Building| async move {
        let published = checksum(&release, &text(&release.checksum_url).await?)?;
        let fetched = building.scratch.join("release");
        let seen = download(&release.url, &fetched).await?;
        if seen != published {
            return Err(UpstreamError::Mismatch { url: release.url, seen, published });
        }
        let program = building.out.join(name);
        let failed = |source| UpstreamError::Io { doing: "unpack to", path: program.clone(), source };
        match &release.member {
            None => fs::rename(&fetched, &program).map_err(failed)?,
            Some(member) => {
                if !unpack(&fetched, member, &program).map_err(failed)? {
                    return Err(UpstreamError::NotInArchive { url: release.url, member: member.clone() });
                }
            }
        }
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).map_err(failed)
    };
    store.ensure(&recipe, &[], events, fetch).await
}

async fn chart(store: &Store, pins: &Pins, helm: &Path, events: &Events) -> Result<Artifact, UpstreamError> {
    let recipe = Recipe {
        name: "upstream-harbor-chart".to_owned(),
        key: Inputs::new(1)
            .text("chart", &pins.harbor_chart)
            .text("from", &pins.harbor_chart_repository)
            .text("sha256", pins.harbor_chart_sha256.as_deref().unwrap_or_default())
            .key(),
        step: format!("fetch Harbor's chart {}", pins.harbor_chart),
        usually: Duration::from_secs(10),
    };
    let fetch = |building: Building| async move {
        let pull = own_helm(helm, &building.scratch.join("helm"))
            .args(["pull", "harbor", "--repo", &pins.harbor_chart_repository])
            .args(["--version", &pins.harbor_chart, "--destination"])
            .arg(&building.scratch);
        pull.limit(FETCH_LIMIT).run().await.map_err(UpstreamError::Chart)?;
        let packed = building.scratch.join(format!("harbor-{}.tgz", pins.harbor_chart));
        check_chart(&packed, pins)?;
        let to = building.out.join(CHART);
        fs::rename(&packed, to).map_err(|source| UpstreamError::Io { doing: "move", path: packed, source })
    };
    store.ensure(&recipe, &[], events, fetch).await
}

async fn get(url: &str) -> Result<reqwest::Response, UpstreamError> {
    let answer = async { client()?.get(url).send().await?.error_for_status() };
    answer.await.map_err(|error| failed(url, &error))
}

fn failed(url: &str, error: &reqwest::Error) -> UpstreamError {
    let host = url.split('/').nth(2).unwrap_or(url).to_owned();
    let reason = match error.status() {
        Some(status) => format!("{host} answers {status}"),
        None => root_cause(error),
    };
    UpstreamError::Fetch { url: url.to_owned(), host, reason }
}

fn too_slow(url: &str) -> UpstreamError {
    let host = url.split('/').nth(2).unwrap_or(url).to_owned();
    let reason = format!("it is not there after {} s", FETCH_LIMIT.as_secs());
    UpstreamError::Fetch { url: url.to_owned(), host, reason }
}

pub(super) async fn text(url: &str) -> Result<String, UpstreamError> {
    let read = async { get(url).await?.text().await.map_err(|error| failed(url, &error)) };
    tokio::time::timeout(FETCH_LIMIT, read).await.unwrap_or_else(|_| Err(too_slow(url)))
}

/// Saves a file and says its SHA-256.
async fn download(url: &str, to: &Path) -> Result<String, UpstreamError> {
    let io = |source| UpstreamError::Io { doing: "write", path: to.to_owned(), source };
    let read = async {
        let mut body = get(url).await?.bytes_stream();
        let mut file = tokio::fs::File::create(to).await.map_err(io)?;
        let mut hash = Sha256::new();
        while let Some(chunk) = body.try_next().await.map_err(|error| failed(url, &error))? {
            hash.update(&chunk);
            file.write_all(&chunk).await.map_err(io)?;
        }
        file.flush().await.map_err(io)?;
        Ok(hex::encode(hash.finalize()))
    };
    tokio::time::timeout(FETCH_LIMIT, read).await.unwrap_or_else(|_| Err(too_slow(url)))
}

/// Unpacks one member of a compressed archive; false where it has no such member.
fn unpack(archive: &Path, member: &str, to: &Path) -> io::Result<bool> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(File::open(archive)?));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()? == Path::new(member) {
            io::copy(&mut entry, &mut File::create(to)?)?;
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Paths;

    #[test]
    fn releases_are_where_their_projects_put_them() {
        assert_eq!(
            Release::kind("v0.30.0", "amd64").url,
            "https://github.com/kubernetes-sigs/kind/releases/download/v0.30.0/kind-linux-amd64"
        );
        assert_eq!(
            Release::kubectl("v1.34.4", "arm64").checksum_url,
            "https://dl.k8s.io/release/v1.34.4/bin/linux/arm64/kubectl.sha256"
        );
        let helm = Release::helm("v3.19.5", "amd64");
        assert_eq!(helm.url, "https://get.helm.sh/helm-v3.19.5-linux-amd64.tar.gz");
        assert_eq!(helm.member.as_deref(), Some("linux-amd64/helm"));
        let crane = Release::crane("v0.20.7", "amd64");
        assert!(crane.url.ends_with("/download/v0.20.7/go-containerregistry_Linux_x86_64.tar.gz"), "{}", crane.url);
        assert!(crane.checksum_url.ends_with("/download/v0.20.7/checksums.txt"), "{}", crane.checksum_url);
        assert!(Release::crane("v0.20.7", "arm64").url.ends_with("_Linux_arm64.tar.gz"));
    }

    #[test]
    fn what_is_pinned_of_harbor_is_what_is_taken() {
        let digest = "docker.io/goharbor/harbor-db:v2.13.1@sha256:ab".to_owned();
        let named = |name: &str| with_digest(name.to_owned(), std::slice::from_ref(&digest));
        assert_eq!(named("docker.io/goharbor/harbor-db:v2.13.1"), digest);
        assert_eq!(named("docker.io/goharbor/harbor-db:v2.12.4"), "docker.io/goharbor/harbor-db:v2.12.4");

        let versions = include_str!("../../../fixtures/versions.toml");
        let versions = crate::source::versions::Versions::parse("versions.toml", versions).unwrap();
        let (kubernetes, harbor) = (versions.kubernetes(None).unwrap(), versions.harbor(None).unwrap());
        let with = |pinned: Option<&str>| Pins {
            harbor_chart_sha256: pinned.map(str::to_owned),
            ..Pins::new(&versions, kubernetes, harbor)
        };
        let chart = tempfile::NamedTempFile::new().unwrap();
        fs::write(chart.path(), "a chart").unwrap();
        let (own, other) = (hex::encode(Sha256::digest("a chart")), "ab".repeat(32));
        check_chart(chart.path(), &with(None)).unwrap();
        check_chart(chart.path(), &with(Some(&own))).unwrap();
        let refused = check_chart(chart.path(), &with(Some(&other))).unwrap_err().to_string();
        let says = format!("/harbor-1.17.1.tgz: its SHA-256 is {own}, and should be {other}; it was thrown away");
        assert!(refused.ends_with(&says), "{refused}");
    }

    #[test]
    fn a_checksum_is_read_alone_with_the_file_s_name_and_from_a_list() {
        let release =
            Release { url: "https://x.test/tool".into(), checksum_url: "https://x.test/sums".into(), member: None };
        let (sum, other) = ("AB".repeat(32), "0".repeat(64));
        let list = format!("{other}  tool.json\n{sum}  tool\n{other}  a/tool\n");
        for text in [sum.clone(), format!("{sum}  tool\n"), list] {
            assert_eq!(checksum(&release, &text).unwrap(), sum.to_lowercase());
        }
        let said = "read the SHA-256 of tool from https://x.test/sums: it is not there; the text begins";
        for (text, begins) in [("<html>not found</html>", "<html>not found</html>"), ("1 a\n2 b\n", "1 a\n2 b")] {
            assert_eq!(checksum(&release, text).unwrap_err().to_string(), format!("{said} `{begins}`"));
        }
    }

    #[test]
    fn the_images_of_a_chart_are_those_that_its_objects_name_by_their_whole_names() {
        let rendered = "containers:\n  - image: goharbor/harbor-core:v2.13.1\n    imagePullPolicy: IfNotPresent\n  \
                        - name: a\n    image: \"busybox:1.36.1\"\n# image: none\n    image: goharbor/harbor-core:v2.13.1\n";
        let images: Vec<String> = named_images(rendered).into_iter().collect();
        assert_eq!(images, ["docker.io/goharbor/harbor-core:v2.13.1", "docker.io/library/busybox:1.36.1"]);
    }

    #[test]
    fn an_image_s_name_names_its_registry() {
        assert_eq!(registry("docker.io/kindest/node:v1@sha256:00"), "docker.io");
        assert_eq!(registry("rancher/local-path-provisioner:v1"), "docker.io");
        assert_eq!(registry("registry.k8s.io/pause:3"), "registry.k8s.io");
        assert_eq!(registry("localhost:5000/x"), "localhost:5000");
    }

    #[tokio::test]
    async fn a_host_out_of_reach_is_named_with_what_to_do() {
        let url = "https://host.invalid/release/tool";
        let error = download(url, &std::env::temp_dir().join("never-written")).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("fetch {url}: ")), "{error}");
        assert!(error.ends_with("where host.invalid is out of reach, use `--source packages`"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_is_not_what_was_published_is_thrown_away() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            for body in ["0".repeat(64), "the program".to_owned()] {
                use tokio::io::AsyncReadExt;
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await.unwrap();
                let answer =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let url = format!("http://{address}/kind");
        let release = Release { checksum_url: format!("{url}.sum"), url, member: None };
        let store = Store::new(&Paths::at(dir.path()));
        let error = program(&store, "kind", "v1", release, &Events::discard()).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Mismatch { .. }), "{error}");
        assert!(error.to_string().contains(&"0".repeat(64)), "{error}");
        server.await.unwrap();
    }

    #[test]
    fn a_program_is_unpacked_from_its_release() {
        let dir = tempfile::tempdir().unwrap();
        let packed = dir.path().join("helm.tar.gz");
        let gzip = flate2::write::GzEncoder::new(File::create(&packed).unwrap(), flate2::Compression::fast());
        let mut archive = tar::Builder::new(gzip);
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        archive.append_data(&mut header, "linux-amd64/helm", &b"helm"[..]).unwrap();
        archive.into_inner().unwrap().finish().unwrap();
        let to = dir.path().join("helm");
        assert!(unpack(&packed, "linux-amd64/helm", &to).unwrap());
        assert_eq!(fs::read_to_string(&to).unwrap(), "helm");
        assert!(!unpack(&packed, "linux-arm64/helm", &to).unwrap());
    }
}
