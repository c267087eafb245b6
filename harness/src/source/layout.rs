//! Reading an OCI image layout (OCI image specification 1.1, `image-layout.md`): a folder with `index.json` and
//! `blobs/sha256/…`, as `crane`, `skopeo`, `oras` and `docker buildx` write it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use oci_spec::image::{Arch, Descriptor, Digest, ImageIndex, ImageManifest, MediaType, Os};
use sha2::{Digest as _, Sha256};

use super::image::{NAME_ANNOTATION, REF_ANNOTATION, Stored, StoredLayer};

/// Manifests and configurations are small; what is larger is none.
const DOCUMENT_LIMIT: u64 = 4 << 20;

/// Why a layout could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file is missing or cannot be read.
    #[error("read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A document is not of the form that the specification gives it.
    #[error("read {}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A blob is not what its name says.
    #[error("read {}: its SHA-256 is {seen}", path.display())]
    Altered {
        /// The file.
        path: PathBuf,
        /// The SHA-256 of what is there.
        seen: String,
    },
    /// An image has no manifest for this machine.
    #[error("the image {name} has no manifest for linux/{wanted}, only for {there}")]
    Platform {
        /// The image.
        name: String,
        /// This machine's architecture.
        wanted: String,
        /// What it has.
        there: String,
    },
}

/// An OCI image layout.
#[derive(Debug, Clone)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The layout in `dir`; nothing is read yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Every image that `index.json` names, by its name.
    ///
    /// # Errors
    /// The index or a manifest cannot be read, or an image has none for this machine.
    pub fn images(&self) -> Result<BTreeMap<String, Stored>, LayoutError> {
        let path = self.dir.join("index.json");
        let index = ImageIndex::from_reader(&*read(&path)?)
            .map_err(|error| LayoutError::Malformed { path, why: error.to_string() })?;
        let mut images = BTreeMap::new();
        for descriptor in index.manifests() {
            if let Some(name) = name(descriptor) {
                images.insert(name.to_owned(), self.image(name, descriptor)?);
            }
        }
        Ok(images)
    }

    /// The image of a manifest, or of an index of manifests, which has a blob in this layout.
    ///
    /// # Errors
    /// A blob cannot be read, or there is no manifest for this machine.
    pub fn image(&self, name: &str, descriptor: &Descriptor) -> Result<Stored, LayoutError> {
        let path = self.blob(descriptor.digest());
        let bytes = self.document(descriptor.digest())?;
        let wrong = |why: String| LayoutError::Malformed { path: path.clone(), why };
        if is_index(descriptor.media_type()) {
            let index = ImageIndex::from_reader(&*bytes).map_err(|error| wrong(error.to_string()))?;
            return self.image(name, for_this_machine(name, &index)?);
        }
        let manifest = ImageManifest::from_reader(&*bytes).map_err(|error| wrong(error.to_string()))?;
        let layers = manifest.layers().iter().map(|layer| StoredLayer {
            path: self.blob(layer.digest()),
            media_type: layer.media_type().to_string(),
            digest: layer.digest().digest().to_owned(),
            size: layer.size(),
        });
        Ok(Stored {
            media_type: descriptor.media_type().to_string(),
            config: self.document(manifest.config().digest())?,
            layers: layers.collect(),
            manifest: bytes,
        })
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.algorithm().as_ref()).join(digest.digest())
    }

    /// A small blob, compared with its digest.
    fn document(&self, digest: &Digest) -> Result<Vec<u8>, LayoutError> {
        let path = self.blob(digest);
        let bytes = read(&path)?;
        let seen = hex::encode(Sha256::digest(&bytes));
        if seen != digest.digest() {
            return Err(LayoutError::Altered { path, seen });
        }
        Ok(bytes)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, LayoutError> {
    let wrong = |source| LayoutError::Io { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(wrong)?.len();
    if size > DOCUMENT_LIMIT {
        return Err(LayoutError::Malformed { path: path.to_owned(), why: format!("{size} bytes are too many") });
    }
    fs::read(path).map_err(wrong)
}

fn name(descriptor: &Descriptor) -> Option<&str> {
    let annotations = descriptor.annotations().as_ref()?;
    annotations.get(NAME_ANNOTATION).or_else(|| annotations.get(REF_ANNOTATION)).map(String::as_str)
}

/// Whether a document of this media type lists manifests.
fn is_index(media_type: &MediaType) -> bool {
    match media_type {
        MediaType::ImageIndex => true,
        MediaType::Other(other) => other == "application/vnd.docker.distribution.manifest.list.v2+json",
        _ => false,
    }
}

fn for_this_machine<'a>(name: &str, index: &'a ImageIndex) -> Result<&'a Descriptor, LayoutError> {
    let wanted = Arch::default();
    let platforms = index.manifests().iter().filter_map(|manifest| Some((manifest, manifest.platform().as_ref()?)));
    let mut there = Vec::new();
    for (manifest, platform) in platforms {
        if *platform.os() == Os::Linux && *platform.architecture() == wanted {
            return Ok(manifest);
        }
        there.push(format!("{}/{}", platform.os(), platform.architecture()));
    }
    Err(LayoutError::Platform { name: name.to_owned(), wanted: wanted.to_string(), there: there.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::image::{Archive, Files, Image, Layer};

    /// A layout in `dir` with one image.
    fn layout(dir: &Path, name: &str) -> Layout {
        let files = Files::new().text("etc/motd", "hello", 0o644);
        let image = Image::new(name, vec![Layer::Files(files)], &["sh"]);
        let mut bytes = Vec::new();
        Archive::new(&[image]).unwrap().write(&mut bytes).unwrap();
        tar::Archive::new(&*bytes).unpack(dir).unwrap();
        Layout::new(dir)
    }

    #[test]
    fn an_image_reads_back_as_it_was_written_and_is_written_again_as_it_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let images = layout(dir.path(), "x.test/y:1").images().unwrap();
        let stored = images["x.test/y:1"].clone();
        assert_eq!(stored.layers.len(), 1);
        let mut again = Vec::new();
        Archive::new(&[Image::stored("x.test/y:1", stored)]).unwrap().write(&mut again).unwrap();
        let mut index = String::new();
        for entry in tar::Archive::new(&*again).entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.path().unwrap() == Path::new("index.json") {
                io::Read::read_to_string(&mut entry, &mut index).unwrap();
            }
        }
        assert_eq!(index, fs::read_to_string(dir.path().join("index.json")).unwrap());
    }

    #[test]
    fn what_is_laid_upon_an_image_keeps_its_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let stored = layout(dir.path(), "x.test/y:1").images().unwrap().remove("x.test/y:1").unwrap();
        let mut image = Image::stored("x.test/z:1", stored);
        image.layers.push(Layer::Files(Files::new().text("etc/issue", "z", 0o644)));
        image.labels.insert("a".to_owned(), "b".to_owned());
        let above = tempfile::tempdir().unwrap();
        let mut bytes = Vec::new();
        Archive::new(&[image]).unwrap().write(&mut bytes).unwrap();
        tar::Archive::new(&*bytes).unpack(above.path()).unwrap();
        let stored = Layout::new(above.path()).images().unwrap().remove("x.test/z:1").unwrap();
        let config: serde_json::Value = serde_json::from_slice(&stored.config).unwrap();
        assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["sh"]));
        assert_eq!(config["config"]["Labels"], serde_json::json!({"a": "b"}));
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn an_altered_manifest_is_an_error_that_names_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path(), "x.test/y:1");
        let index = ImageIndex::from_file(dir.path().join("index.json")).unwrap();
        let blob = layout.blob(index.manifests()[0].digest());
        fs::write(&blob, "{}").unwrap();
        let error = layout.images().unwrap_err().to_string();
        assert!(error.starts_with(&format!("read {}: its SHA-256 is", blob.display())), "{error}");
    }

    #[test]
    fn an_image_for_other_machines_only_is_an_error_that_lists_them() {
        let index = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": format!("sha256:{}", "0".repeat(64)),
                "size": 2,
                "platform": { "os": "linux", "architecture": "s390x" },
            }],
        });
        let index = ImageIndex::from_reader(index.to_string().as_bytes()).unwrap();
        let error = for_this_machine("x.test/y:1", &index).unwrap_err().to_string();
        assert!(error.ends_with("only for linux/s390x"), "{error}");
    }
}
