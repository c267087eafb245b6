//! Images made here: layers from files, and the archive of one or more images that both `docker load` and containerd's
//! import read. Nothing runs to make one, and the same files make the same image.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    hash::{self, Hashing},
    run::events::Step,
};

/// How much is handed on at a time when an archive is streamed, in bytes.
const CHUNK: usize = 1 << 20;

/// One entry of a layer made of files. Folders above it are made, with mode 0755.
#[derive(Debug, Clone)]
enum Node {
    Dir { mode: u32 },
    File { from: PathBuf, mode: u32 },
    Text { text: String, mode: u32 },
    Link { to: String },
}

/// A layer of files, by their paths from the root, without a leading slash.
#[derive(Debug, Clone, Default)]
pub struct Files(BTreeMap<String, Node>);

impl Files {
    /// No files yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A program at `path`, copied from `from`.
    #[must_use]
    pub fn program(self, path: &str, from: PathBuf) -> Self {
        self.with(path, Node::File { from, mode: 0o755 })
    }

    /// A text file.
    #[must_use]
    pub fn text(self, path: &str, text: impl Into<String>, mode: u32) -> Self {
        self.with(path, Node::Text { text: text.into(), mode })
    }

    /// A symbolic link.
    #[must_use]
    pub fn link(self, path: &str, to: &str) -> Self {
        self.with(path, Node::Link { to: to.to_owned() })
    }

    /// A folder.
    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.with(path, Node::Dir { mode })
    }

    fn with(mut self, path: &str, entry: Node) -> Self {
        self.0.insert(path.to_owned(), entry);
        self
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(out);
        let mut made = BTreeSet::new();
        for (path, entry) in &self.0 {
            let above = path.match_indices('/').map(|(at, _)| &path[..at]);
            for dir in above.filter(|dir| !self.0.contains_key(*dir)) {
                if made.insert(dir) {
                    append(&mut tar, dir, &Node::Dir { mode: 0o755 })?;
                }
            }
            append(&mut tar, path, entry)?;
        }
        tar.finish()
    }
}

fn append(tar: &mut tar::Builder<&mut dyn Write>, path: &str, entry: &Node) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    match entry {
        Node::Dir { mode } => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(*mode);
            header.set_size(0);
            tar.append_data(&mut header, format!("{path}/"), io::empty())
        }
        Node::File { from, mode } => {
            let file = File::open(from).map_err(|error| at(from, error))?;
            header.set_mode(*mode);
            header.set_size(file.metadata()?.len());
            tar.append_data(&mut header, path, io::BufReader::with_capacity(CHUNK, file))
        }
        Node::Text { text, mode } => {
            header.set_mode(*mode);
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, path, text.as_bytes())
        }
        Node::Link { to } => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            tar.append_link(&mut header, path, to)
        }
    }
}

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A layer.
#[derive(Debug, Clone)]
pub enum Layer {
    /// An uncompressed archive, as it is.
    Tar(PathBuf),
    /// Single files.
    Files(Files),
}

impl Layer {
    /// The layer's digest, `sha256:...`.
    ///
    /// # Errors
    /// A file of it cannot be read.
    pub fn digest(&self) -> io::Result<String> {
        let mut hashing = Hashing::new(io::sink());
        self.write(&mut hashing)?;
        Ok(format!("sha256:{}", hashing.finish().1))
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Layer::Tar(path) => copy(path, out),
            Layer::Files(files) => files.write(out),
        }
    }
}

fn copy(path: &Path, out: &mut dyn Write) -> io::Result<()> {
    let mut file = File::open(path).map_err(|error| at(path, error))?;
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = file.read(&mut chunk).map_err(|error| at(path, error))?;
        if read == 0 {
            return Ok(());
        }
        out.write_all(&chunk[..read])?;
    }
}

/// An image to make.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its name with its tag.
    pub name: String,
    /// The image that its layers are laid upon, whose configuration it takes over. With nothing added it is that image.
    pub upon: Option<Stored>,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
    /// What it runs.
    pub entrypoint: Vec<String>,
    /// Its variables, each `NAME=value`, beside `PATH`.
    pub env: Vec<String>,
    /// The signal that stops it, where that is not SIGTERM.
    pub stop_signal: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Image {
    /// An image without labels that runs `entrypoint`.
    pub fn new(name: impl Into<String>, layers: Vec<Layer>, entrypoint: &[&str]) -> Self {
        Self {
            name: name.into(),
            upon: None,
            layers,
            entrypoint: entrypoint.iter().map(ToString::to_string).collect(),
            env: Vec::new(),
            stop_signal: None,
            labels: BTreeMap::new(),
        }
    }

    /// An image as it is stored, under this name.
    pub fn stored(name: impl Into<String>, stored: Stored) -> Self {
        Self { upon: Some(stored), ..Self::new(name, Vec::new(), &[]) }
    }

    /// The stored image, where nothing is added to it.
    fn as_stored(&self) -> Option<&Stored> {
        let plain = self.layers.is_empty()
            && self.entrypoint.is_empty()
            && self.env.is_empty()
            && self.stop_signal.is_none()
            && self.labels.is_empty();
        self.upon.as_ref().filter(|_| plain)
    }
}

/// An image in an OCI image layout: its manifest and configuration, and where its layers are.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The media type of the manifest.
    pub media_type: String,
    /// The manifest, byte by byte.
    pub manifest: Vec<u8>,
    /// The configuration, byte by byte.
    pub config: Vec<u8>,
    /// The layers, the lowest first.
    pub layers: Vec<StoredLayer>,
}

/// A layer in an OCI image layout.
#[derive(Debug, Clone)]
pub struct StoredLayer {
    /// Its file.
    pub path: PathBuf,
    /// Its media type.
    pub media_type: String,
    /// The SHA-256 of its file, in hexadecimal.
    pub digest: String,
    /// The size of its file, in bytes.
    pub size: u64,
}

/// What a blob of an archive consists of.
#[derive(Debug, Clone)]
enum Content {
    Bytes(Vec<u8>),
    Layer(Layer),
    File(PathBuf),
}

/// A blob of known digest and size: both are in the archive before its bytes are.
#[derive(Debug)]
struct Blob {
    content: Content,
    digest: String,
    size: u64,
}

/// A file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path.
    pub path: String,
    /// Its SHA-256, in hexadecimal.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Images ready to be written as one archive: an OCI image layout (OCI image specification 1.1, `image-layout.md`), with the
/// `manifest.json` by which a Docker engine of any version loads it.
#[derive(Debug)]
pub struct Archive {
    /// By their names within the archive.
    heads: Vec<(String, Vec<u8>)>,
    blobs: Vec<Blob>,
}

/// The media type of an uncompressed layer.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// The media type of an image's configuration.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of an image's manifest.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The annotation by which containerd and Docker name an image of a layout.
pub const NAME_ANNOTATION: &str = "io.containerd.image.name";
/// The annotation by which the OCI specification does.
pub const REF_ANNOTATION: &str = "org.opencontainers.image.ref.name";

impl Archive {
    /// Reads all layers that are not stored ones once, for their digests.
    ///
    /// # Errors
    /// A file of a layer cannot be read.
    pub fn new(images: &[Image]) -> io::Result<Self> {
        let mut archive = Self { heads: Vec::new(), blobs: Vec::new() };
        let (mut index, mut for_docker) = (Vec::new(), Vec::new());
        let mut tars: BTreeMap<PathBuf, (String, u64)> = BTreeMap::new();
        for image in images {
            let mut layers = Vec::new();
            for layer in image.upon.iter().flat_map(|upon| &upon.layers) {
                archive.add(Content::File(layer.path.clone()), layer.digest.clone(), layer.size);
                layers.push(descriptor(&layer.media_type, &layer.digest, layer.size));
            }
            let mut own = Vec::new();
            for layer in &image.layers {
                let known = match layer {
                    Layer::Tar(path) => tars.get(path).cloned(),
                    Layer::Files(_) => None,
                };
                let (digest, size) = match known {
                    Some(known) => known,
                    None => archive.measure(layer)?,
                };
                if let Layer::Tar(path) = layer {
                    tars.insert(path.clone(), (digest.clone(), size));
                }
                layers.push(descriptor(LAYER, &digest, size));
                own.push(digest);
            }
            let (media_type, manifest, config) = match image.as_stored() {
                Some(stored) => (stored.media_type.as_str(), stored.manifest.clone(), stored.config.clone()),
                None => {
                    let config = config(image, &own)?;
                    let described = descriptor(CONFIG, &hash::of_bytes(&config), config.len() as u64);
                    let manifest = json!({
                        "schemaVersion": 2,
                        "mediaType": MANIFEST,
                        "config": described,
                        "layers": layers,
                    });
                    (MANIFEST, serde_json::to_vec(&manifest)?, config)
                }
            };
            let config_digest = archive.add_bytes(config);
            let mut described = descriptor(media_type, &hash::of_bytes(&manifest), manifest.len() as u64);
            described["annotations"] = json!({ NAME_ANNOTATION: image.name, REF_ANNOTATION: tag(&image.name) });
            index.push(described);
            archive.add_bytes(manifest);
            let paths = layers.iter().filter_map(|layer| layer["digest"].as_str()?.strip_prefix("sha256:"));
            for_docker.push(json!({
                "Config": blob_name(&config_digest),
                "RepoTags": [image.name],
                "Layers": paths.map(blob_name).collect::<Vec<_>>(),
            }));
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": index,
        });
        archive.heads = vec![
            ("index.json".to_owned(), serde_json::to_vec(&index)?),
            ("manifest.json".to_owned(), serde_json::to_vec(&for_docker)?),
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ];
        // Small ones first, and in an order that does not depend on that of the images.
        archive.blobs.sort_by(|a, b| (a.size, &a.digest).cmp(&(b.size, &b.digest)));
        Ok(archive)
    }

    /// Every file, in the order in which they are written.
    pub fn entries(&self) -> Vec<Entry> {
        let heads = self.heads.iter().map(|(path, bytes)| Entry {
            path: path.clone(),
            digest: hash::of_bytes(bytes),
            size: bytes.len() as u64,
        });
        let blobs = self.blobs.iter().map(|blob| Entry {
            path: blob_name(&blob.digest),
            digest: blob.digest.clone(),
            size: blob.size,
        });
        heads.chain(blobs).collect()
    }

    fn measure(&mut self, layer: &Layer) -> io::Result<(String, u64)> {
        let mut hashing = Hashing::new(io::sink());
        layer.write(&mut hashing)?;
        let (size, digest) = hashing.finish();
        self.add(Content::Layer(layer.clone()), digest.clone(), size);
        Ok((digest, size))
    }

    fn add_bytes(&mut self, bytes: Vec<u8>) -> String {
        let (digest, size) = (hash::of_bytes(&bytes), bytes.len() as u64);
        self.add(Content::Bytes(bytes), digest.clone(), size);
        digest
    }

    fn add(&mut self, content: Content, digest: String, size: u64) {
        if !self.blobs.iter().any(|blob| blob.digest == digest) {
            self.blobs.push(Blob { content, digest, size });
        }
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// See [`Archive::append_to`].
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(out);
        self.append_to(&mut tar)?;
        tar.finish()
    }

    /// Appends all files to an archive that may have others.
    ///
    /// # Errors
    /// A file of a layer cannot be read, or is not what it was when its digest was taken, or the archive takes no more.
    pub fn append_to<W: Write>(&self, tar: &mut tar::Builder<W>) -> io::Result<()> {
        for (name, bytes) in &self.heads {
            append_bytes(tar, name, bytes)?;
        }
        for blob in &self.blobs {
            let name = blob_name(&blob.digest);
            if let Content::Bytes(bytes) = &blob.content {
                append_bytes(tar, &name, bytes)?;
                continue;
            }
            let mut header = plain_header(blob.size);
            header.set_path(name)?;
            header.set_cksum();
            let out = tar.get_mut();
            out.write_all(header.as_bytes())?;
            let mut hashing = Hashing::new(&mut *out);
            match &blob.content {
                Content::Layer(layer) => layer.write(&mut hashing)?,
                Content::File(path) => copy(path, &mut hashing)?,
                Content::Bytes(_) => {}
            }
            if hashing.finish() != (blob.size, blob.digest.clone()) {
                return Err(io::Error::other(format!("a layer changed while it was read: {:?}", blob.content)));
            }
            let rest = (512 - blob.size % 512) % 512;
            out.write_all(&vec![0; usize::try_from(rest).unwrap_or_default()])?;
        }
        Ok(())
    }

    /// About how many bytes the archive has: its blobs.
    pub fn size(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.size).sum()
    }

    /// The archive as a stream of bytes that tells `step` how far it was read, written by a thread as the reader takes them.
    pub fn stream(self, step: &Step) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let (total, step) = (self.size(), step.clone());
        let (sender, receiver) = mpsc::channel(4);
        tokio::task::spawn_blocking(move || {
            let mut out = BufWriter::with_capacity(CHUNK, Sending(sender.clone()));
            if let Err(error) = self.write(&mut out).and_then(|()| out.flush()) {
                // A reader that is gone has its own error.
                let _ = sender.blocking_send(Err(error));
            }
        });
        futures::stream::unfold(
            receiver,
            |mut receiver| async move { receiver.recv().await.map(|chunk| (chunk, receiver)) },
        )
        .scan((0, 0), move |(done, told), chunk: io::Result<Bytes>| {
            *done += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
            // Every event is kept: one for each hundredth is enough.
            let hundredths = *done * 100 / total.max(1);
            if hundredths > *told {
                *told = hundredths;
                step.progress((*done).min(total), total);
            }
            std::future::ready(Some(chunk))
        })
    }
}

/// Where a layout has the blob of a digest.
fn blob_name(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
}

/// An image's tag.
fn tag(name: &str) -> &str {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split_once(':').map_or("latest", |(_, tag)| tag)
}

/// The header of a file of which only the content matters.
fn plain_header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}

/// Appends a file of which only the content matters.
///
/// # Errors
/// The archive takes no more.
pub fn append_bytes<W: Write>(tar: &mut tar::Builder<W>, name: &str, content: &[u8]) -> io::Result<()> {
    tar.append_data(&mut plain_header(content.len() as u64), name, content)
}

/// The configuration of an image whose own layers have these digests.
fn config(image: &Image, digests: &[String]) -> io::Result<Vec<u8>> {
    let created = "1970-01-01T00:00:00Z";
    let mut whole = match &image.upon {
        Some(upon) => serde_json::from_slice(&upon.config)?,
        None => json!({
            "architecture": architecture(),
            "os": "linux",
            "created": created,
            "config": { "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] },
            "rootfs": { "type": "layers", "diff_ids": [] },
            "history": [],
        }),
    };
    let mut add = |pointer: &str, values: Vec<Value>| -> io::Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let list = whole.pointer_mut(pointer).and_then(Value::as_array_mut);
        list.ok_or_else(|| io::Error::other(format!("the configuration of {} has no {pointer}", image.name)))?
            .extend(values);
        Ok(())
    };
    add("/config/Env", image.env.iter().map(|variable| json!(variable)).collect())?;
    add("/rootfs/diff_ids", digests.iter().map(|digest| json!(format!("sha256:{digest}"))).collect())?;
    let step = json!({ "created": created, "created_by": "drydock" });
    add("/history", digests.iter().map(|_| step.clone()).collect())?;
    let own = &mut whole["config"];
    if !image.entrypoint.is_empty() {
        own["Entrypoint"] = json!(image.entrypoint);
    }
    if let Some(signal) = &image.stop_signal {
        own["StopSignal"] = json!(signal);
    }
    for (name, value) in &image.labels {
        if own["Labels"].is_null() {
            own["Labels"] = json!({});
        }
        own["Labels"][name] = json!(value);
    }
    Ok(serde_json::to_vec(&whole)?)
}

/// This machine's architecture, as images name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

struct Sending(mpsc::Sender<io::Result<Bytes>>);

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the reader is gone");
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;
    use crate::run::events::{EventKind, Events};

    fn names(tar: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(tar);
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
    }

    fn image(dir: &Path) -> Image {
        let tool = dir.join("tool");
        std::fs::write(&tool, vec![7; 3000]).unwrap();
        let lower = dir.join("lower.tar");
        let mut bytes = Vec::new();
        Files::new().text("etc/os", "linux", 0o644).write(&mut bytes).unwrap();
        std::fs::write(&lower, bytes).unwrap();
        let files = Files::new().program("usr/bin/tool", tool).link("usr/bin/t", "tool").dir("tmp", 0o1777);
        Image::new("x/y:1", vec![Layer::Tar(lower), Layer::Files(files)], &["tool"])
    }

    #[test]
    fn a_layer_has_every_folder_once_and_before_what_is_in_it() {
        let mut bytes = Vec::new();
        Files::new()
            .text("a/b/c", "1", 0o644)
            .text("a/b/d", "2", 0o644)
            .text("a/x", "3", 0o644)
            .write(&mut bytes)
            .unwrap();
        assert_eq!(names(&bytes), ["a/", "a/b/", "a/b/c", "a/b/d", "a/x"]);
    }

    #[tokio::test]
    async fn an_archive_streams_as_it_writes_and_shared_layers_are_in_it_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = image(dir.path());
        let second = Image { name: "x/z:1".to_owned(), ..first.clone() };
        let archive = Archive::new(&[first, second]).unwrap();
        let mut written = Vec::new();
        archive.write(&mut written).unwrap();
        let (events, told) = Events::channel();
        let stream = |step: Step| async move { archive.stream(&step).try_collect::<Vec<Bytes>>().await };
        let streamed = events.step("load", stream).await.unwrap();
        drop(events);
        assert!(streamed.concat() == written);
        let told: Vec<(u64, u64)> = told
            .iter()
            .filter_map(|event| match event.kind {
                EventKind::StepProgress { done, total, .. } => Some((done, total)),
                _ => None,
            })
            .collect();
        assert!(!told.is_empty() && told.is_sorted() && told.last().is_some_and(|(done, all)| done == all), "{told:?}");
        let names = names(&written);
        // Two layers, one configuration and one manifest, for both.
        assert_eq!(names.iter().filter(|name| name.starts_with("blobs/sha256/")).count(), 4);
        assert_eq!(names[..3], ["index.json", "manifest.json", "oci-layout"]);
    }

    #[test]
    fn a_layer_that_changes_after_it_was_measured_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::new(&[image(dir.path())]).unwrap();
        std::fs::write(dir.path().join("tool"), vec![8; 3000]).unwrap();
        let error = archive.write(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("changed while it was read"), "{error}");
    }
}
