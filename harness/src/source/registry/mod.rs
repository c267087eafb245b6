//! Fetching images from their registry, or from a mirror, into the blobs of an OCI image layout
//! (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md>).
//!
//! `oci-client`, which pushes elsewhere, keeps an answer's headers to itself: what a 429 says of the time to wait would be lost,
//! and whether a range was given. So only its types are used.

mod blob;
mod docker;
mod error;
mod host;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    env::consts,
    path::Path,
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};
use oci_client::{
    Reference,
    manifest::{
        IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
        OciDescriptor, OciImageIndex, OciImageManifest,
    },
};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::sync::Mutex;

use self::{
    blob::{Blob, Digest, Progress},
    host::Host,
};
pub use self::{
    docker::DockerFiles,
    error::{Limit, Problem, RegistryError},
};
use super::mirror::Mirror;
use crate::run::events::Step;

/// How many layers come at once: as many as Docker fetches.
const AT_ONCE: usize = 3;
/// The most bytes that a manifest may have; registries take no larger ones
/// (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-manifests>).
const LONGEST_MANIFEST: u64 = 4 * 1024 * 1024;
/// What is asked for. A registry that is not told converts to what no longer is.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// A client for every registry that images are fetched from, with the credentials and certificates that Docker has for them.
pub struct Registry {
    mirror: Option<Mirror>,
    docker: DockerFiles,
    credentials: Option<Arc<str>>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

/// An image that is in the layout whole: its manifest's descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The image's upstream name in full, such as `docker.io/library/busybox:1.36.1`; with the digest, where it was asked for by one.
    pub name: String,
    /// The manifest's media type.
    pub media_type: String,
    /// The manifest's digest. Of an image for several platforms it is the manifest for this one, not their index.
    pub digest: String,
    /// The manifest's size in bytes.
    pub size: u64,
}

impl Registry {
    /// A client with Docker's usual files.
    ///
    /// # Errors
    /// Docker's configuration is there and cannot be read.
    pub fn from_env(mirror: Option<Mirror>) -> Result<Self, RegistryError> {
        Self::new(mirror, DockerFiles::from_env())
    }

    /// A client with these files.
    ///
    /// # Errors
    /// As for [`Registry::from_env`].
    pub fn new(mirror: Option<Mirror>, docker: DockerFiles) -> Result<Self, RegistryError> {
        let credentials = docker.read_config()?.map(Arc::from);
        Ok(Self { mirror, docker, credentials, hosts: Mutex::default() })
    }

    /// Where an upstream image is asked for, and by what name.
    async fn find(&self, upstream: &Reference) -> Result<(Arc<Host>, Reference), RegistryError> {
        let mirrored = self.mirror.as_ref().and_then(|mirror| Some((mirror.name_of(upstream)?, mirror.to_string())));
        let (at, mirror) = match mirrored {
            Some((at, mirror)) => (at, Some(mirror)),
            None => (upstream.clone(), None),
        };
        let mut hosts = self.hosts.lock().await;
        // A mirror may be asked as an upstream registry too: what is said of it differs.
        let key = format!("{} {}", at.registry(), mirror.as_deref().unwrap_or_default());
        if let Some(host) = hosts.get(&key) {
            return Ok((host.clone(), at));
        }
        let host = Arc::new(Host::new(at.registry(), mirror, &self.docker, self.credentials.clone()).await?);
        hosts.insert(key, host.clone());
        Ok((host, at))
    }
}

/// Fetches the image with this upstream name, for this machine's platform, from the mirror or its registry into `dir`, which is
/// or becomes the folder of an OCI image layout. Only blobs are written: manifest, config, layers and, of an image for several
/// platforms, their index. Each is checked against its digest, and what is there whole is not fetched again, so that an image by
/// digest that is there needs no registry.
///
/// # Errors
/// See [`RegistryError`]. What has come stays, and the next fetch goes on from there.
pub async fn fetch(client: &Registry, image: &str, dir: &Path, step: &Step) -> Result<Fetched, RegistryError> {
    let wrong_name = |reason: String| RegistryError::Name { image: image.to_owned(), reason };
    let upstream: Reference = image.parse().map_err(|error: oci_client::ParseError| wrong_name(error.to_string()))?;
    let digest = upstream.digest().map(Digest::parse).transpose().map_err(wrong_name)?;
    let (host, at) = client.find(&upstream).await?;
    let fetching = Fetching { name: upstream.to_string(), host: &host, at: &at, dir, step };

    let first = fetching.manifest(digest).await?;
    let first_name = first.digest.to_string();
    let (manifest, read) =
        match first.read().map_err(|problem| fetching.failed("read the manifest of", &first_name, problem))? {
            Read::Image(image) => (first, image),
            Read::Index(index) => {
                let failed = |problem| fetching.failed("choose from", &at.to_string(), problem);
                let chosen = choose(&index).map_err(failed)?;
                let manifest = fetching.manifest(Some(chosen)).await?;
                let failed = |problem| fetching.failed("read the manifest of", &manifest.digest.to_string(), problem);
                match manifest.read().map_err(failed)? {
                    Read::Image(image) => (manifest, image),
                    Read::Index(_) => {
                        let seen = "an index within an index".to_owned();
                        return Err(fetching.failed("choose from", &at.to_string(), Problem::MediaType { seen }));
                    }
                }
            }
        };
    fetching.blobs(&read).await?;
    let size = manifest.bytes.len() as u64;
    Ok(Fetched { name: fetching.name, media_type: manifest.media_type, digest: manifest.digest.to_string(), size })
}

/// The digest of the manifest or index that this upstream name has at its registry now, without fetching the image. By a name with
/// a digest it is that one, if the registry has it.
///
/// # Errors
/// See [`RegistryError`].
pub async fn digest(client: &Registry, image: &str) -> Result<String, RegistryError> {
    let wrong_name = |reason: String| RegistryError::Name { image: image.to_owned(), reason };
    let upstream: Reference = image.parse().map_err(|error: oci_client::ParseError| wrong_name(error.to_string()))?;
    let digest = upstream.digest().map(Digest::parse).transpose().map_err(wrong_name)?;
    let (host, at) = client.find(&upstream).await?;
    let asked = ask_for_manifest(&host, &at, digest).await.map_err(|problem| RegistryError::Fetch {
        image: upstream.to_string(),
        doing: "get the manifest of",
        what: at.to_string(),
        problem: Box::new(problem),
    })?;
    Ok(asked.digest.to_string())
}

/// One image under way.
struct Fetching<'a> {
    /// Its upstream name.
    name: String,
    host: &'a Host,
    /// Its name at the host.
    at: &'a Reference,
    dir: &'a Path,
    step: &'a Step,
}

/// A manifest or an index, checked against its digest.
struct Manifest {
    bytes: Vec<u8>,
    digest: Digest,
    media_type: String,
}

enum Read {
    Image(Box<OciImageManifest>),
    Index(OciImageIndex),
}

impl Fetching<'_> {
    fn failed(&self, doing: &'static str, what: &str, problem: Problem) -> RegistryError {
        RegistryError::Fetch { image: self.name.clone(), doing, what: what.to_owned(), problem: Box::new(problem) }
    }

    /// The manifest or index with this digest, or with the image's tag.
    async fn manifest(&self, digest: Option<Digest>) -> Result<Manifest, RegistryError> {
        let what = match &digest {
            Some(digest) => self.at.clone_with_digest(digest.to_string()).to_string(),
            None => self.at.to_string(),
        };
        let failed = |problem| self.failed("get the manifest of", &what, problem);
        if let Some(digest) = &digest
            && let Some(bytes) = blob::read_small(digest, self.dir)
        {
            return Manifest::new(bytes, digest.clone(), None).map_err(failed);
        }
        self.step.waiting(format!("the manifest of {what}"));
        let manifest = ask_for_manifest(self.host, self.at, digest).await.map_err(failed)?;
        blob::write_small(&manifest.digest, &manifest.bytes, self.dir).map_err(failed)?;
        Ok(manifest)
    }

    /// The image's config and layers.
    async fn blobs(&self, image: &OciImageManifest) -> Result<(), RegistryError> {
        let mut wanted = BTreeMap::new();
        for OciDescriptor { digest, size, .. } in image.layers.iter().chain([&image.config]) {
            let read = Digest::parse(digest).and_then(|parsed| {
                let size = u64::try_from(*size).map_err(|_| format!("{digest} has a size of {size} bytes"))?;
                Ok((parsed, size))
            });
            let failed =
                |reason| self.failed("read the manifest of", &self.at.to_string(), Problem::Malformed { reason });
            let (digest, size) = read.map_err(failed)?;
            // A layer may be in it twice.
            wanted.insert(digest, size);
        }
        let progress = Progress::new(self.step, wanted.values().sum());
        let (host, at, dir, step, progress) = (self.host, self.at, self.dir, self.step, &progress);
        let fetches = wanted.into_iter().map(|(digest, size)| async move {
            let blob = Blob { host, at, digest: &digest, size, dir, step, progress };
            blob.fetch().await.map_err(|problem| {
                let what = format!("{digest} of {}/{}", at.registry(), at.repository());
                self.failed("get the blob", &what, problem)
            })
        });
        stream::iter(fetches).buffer_unordered(AT_ONCE).try_collect().await
    }
}

/// The manifest or index with this digest, or with the tag of `at`.
async fn ask_for_manifest(host: &Host, at: &Reference, digest: Option<Digest>) -> Result<Manifest, Problem> {
    let named = digest.as_ref().map(ToString::to_string);
    let path = format!("manifests/{}", named.as_deref().or(at.tag()).unwrap_or("latest"));
    let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(ACCEPTED))]);
    let mut answer = host.get(at, &path, headers).await?;
    let from = host.called(answer.url());
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let content_type = header(CONTENT_TYPE.as_str());
    // Of a tag, what the registry calls it; a digest of another kind cannot be compared.
    let wanted = digest.or_else(|| header("docker-content-digest").and_then(|text| Digest::parse(&text).ok()));
    let mut bytes = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if (bytes.len() + chunk.len()) as u64 > LONGEST_MANIFEST => {
                return Err(Problem::TooLong { host: from, limit: LONGEST_MANIFEST });
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => {
                let reason = error::Unanswered::of(&error).into_reason();
                return Err(Problem::Silent { host: from, reason });
            }
        }
    }
    let seen = Digest::of(&bytes);
    if let Some(wanted) = wanted.filter(|wanted| *wanted != seen) {
        return Err(Problem::Digest { host: from, seen: seen.to_string(), wanted: wanted.to_string() });
    }
    Manifest::new(bytes, seen, content_type)
}

impl Manifest {
    fn new(bytes: Vec<u8>, digest: Digest, content_type: Option<String>) -> Result<Self, Problem> {
        let media_type = media_type(&bytes).ok_or_else(|| Problem::MediaType {
            seen: content_type.unwrap_or_else(|| "of no media type".to_owned()),
        })?;
        Ok(Self { bytes, digest, media_type })
    }

    fn read(&self) -> Result<Read, Problem> {
        let malformed = |error: serde_json::Error| Problem::Malformed { reason: error.to_string() };
        match &*self.media_type {
            OCI_IMAGE_MEDIA_TYPE | IMAGE_MANIFEST_MEDIA_TYPE => {
                serde_json::from_slice(&self.bytes).map(|image| Read::Image(Box::new(image))).map_err(malformed)
            }
            OCI_IMAGE_INDEX_MEDIA_TYPE | IMAGE_MANIFEST_LIST_MEDIA_TYPE => {
                serde_json::from_slice(&self.bytes).map(Read::Index).map_err(malformed)
            }
            other => Err(Problem::MediaType { seen: other.to_owned() }),
        }
    }
}

/// What a manifest says that it is; OCI's need not say it.
fn media_type(bytes: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Outline {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        config: Option<serde::de::IgnoredAny>,
    }
    let outline: Outline = serde_json::from_slice(bytes).ok()?;
    outline.media_type.or(match (outline.manifests, outline.config) {
        (Some(_), _) => Some(OCI_IMAGE_INDEX_MEDIA_TYPE.to_owned()),
        (None, Some(_)) => Some(OCI_IMAGE_MEDIA_TYPE.to_owned()),
        (None, None) => None,
    })
}

/// This machine's architecture as images name it.
fn architecture() -> &'static str {
    match consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The image for this machine.
fn choose(index: &OciImageIndex) -> Result<Digest, Problem> {
    let platforms = index.manifests.iter().filter_map(|entry| {
        let platform = entry.platform.as_ref()?;
        Some((format!("{}/{}", platform.os, platform.architecture), entry))
    });
    let wanted = format!("linux/{}", architecture());
    if let Some((_, entry)) = platforms.clone().find(|(platform, _)| *platform == wanted) {
        return Digest::parse(&entry.digest).map_err(|reason| Problem::Malformed { reason });
    }
    // What signs and describes images is in their index as of an unknown platform.
    let mut seen: Vec<String> =
        platforms.map(|(platform, _)| platform).filter(|seen| seen != "unknown/unknown").collect();
    seen.dedup();
    if seen.is_empty() {
        seen.push("no platform at all".to_owned());
    }
    Err(Problem::Platform { wanted, seen })
}
