//! Images made here: layers from files, and the archive of one or more images that both `docker load` and containerd's
//! import read. Nothing runs to make one, and the same files make the same image.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures::Stream;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

/// How much is handed on at a time when an archive is streamed, in bytes.
const CHUNK: usize = 1 << 20;

/// One entry of a layer made of files. Folders above it are made, with mode 0755.
#[derive(Debug, Clone)]
enum Entry {
    Dir { mode: u32 },
    File { from: PathBuf, mode: u32 },
    Text { text: String, mode: u32 },
    Link { to: String },
}

/// A layer of files, by their paths from the root, without a leading slash.
#[derive(Debug, Clone, Default)]
pub struct Files(BTreeMap<String, Entry>);

impl Files {
    /// No files yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A program at `path`, copied from `from`.
    #[must_use]
    pub fn program(self, path: &str, from: PathBuf) -> Self {
        self.with(path, Entry::File { from, mode: 0o755 })
    }

    /// A text file.
    #[must_use]
    pub fn text(self, path: &str, text: impl Into<String>, mode: u32) -> Self {
        self.with(path, Entry::Text { text: text.into(), mode })
    }

    /// A symbolic link.
    #[must_use]
    pub fn link(self, path: &str, to: &str) -> Self {
        self.with(path, Entry::Link { to: to.to_owned() })
    }

    /// A folder.
    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.with(path, Entry::Dir { mode })
    }

    fn with(mut self, path: &str, entry: Entry) -> Self {
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
                    append(&mut tar, dir, &Entry::Dir { mode: 0o755 })?;
                }
            }
            append(&mut tar, path, entry)?;
        }
        tar.finish()
    }
}

fn append(tar: &mut tar::Builder<&mut dyn Write>, path: &str, entry: &Entry) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    match entry {
        Entry::Dir { mode } => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(*mode);
            header.set_size(0);
            tar.append_data(&mut header, format!("{path}/"), io::empty())
        }
        Entry::File { from, mode } => {
            let file = File::open(from).map_err(|error| at(from, error))?;
            header.set_mode(*mode);
            header.set_size(file.metadata()?.len());
            tar.append_data(&mut header, path, io::BufReader::with_capacity(CHUNK, file))
        }
        Entry::Text { text, mode } => {
            header.set_mode(*mode);
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, path, text.as_bytes())
        }
        Entry::Link { to } => {
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
        let mut meter = Meter { hash: Sha256::new(), size: 0 };
        self.write(&mut meter)?;
        Ok(format!("sha256:{}", hex::encode(meter.hash.finalize())))
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Layer::Tar(path) => {
                let mut file = File::open(path).map_err(|error| at(path, error))?;
                let mut chunk = vec![0; CHUNK];
                loop {
                    let read = file.read(&mut chunk)?;
                    if read == 0 {
                        return Ok(());
                    }
                    out.write_all(&chunk[..read])?;
                }
            }
            Layer::Files(files) => files.write(out),
        }
    }
}

/// An image to make.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its name with its tag.
    pub name: String,
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
            layers,
            entrypoint: entrypoint.iter().map(ToString::to_string).collect(),
            env: Vec::new(),
            stop_signal: None,
            labels: BTreeMap::new(),
        }
    }
}

/// What tells an image apart, whatever an engine calls it: its layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The image's name with its tag.
    pub name: String,
    /// The digest of each uncompressed layer, `sha256:...`.
    pub layers: Vec<String>,
}

/// A layer of known digest and size: both are in the archive before the layer's bytes are.
struct Measured {
    layer: Layer,
    digest: String,
    size: u64,
}

/// Images ready to be written as one archive.
pub struct Archive {
    layers: Vec<Measured>,
    configs: Vec<(String, Vec<u8>)>,
    manifest: Vec<u8>,
    identities: Vec<Identity>,
}

impl Archive {
    /// Reads all layers once, for their digests.
    ///
    /// # Errors
    /// A file of a layer cannot be read.
    pub fn new(images: &[Image]) -> io::Result<Self> {
        let mut archive =
            Self { layers: Vec::new(), configs: Vec::new(), manifest: Vec::new(), identities: Vec::new() };
        let mut manifest = Vec::new();
        let mut tars: BTreeMap<PathBuf, String> = BTreeMap::new();
        for image in images {
            let mut digests = Vec::new();
            for layer in &image.layers {
                let known = match layer {
                    Layer::Tar(path) => tars.get(path).cloned(),
                    Layer::Files(_) => None,
                };
                let digest = match known {
                    Some(digest) => digest,
                    None => archive.measure(layer)?,
                };
                if let Layer::Tar(path) = layer {
                    tars.insert(path.clone(), digest.clone());
                }
                digests.push(digest);
            }
            let config = config(image, &digests)?;
            let config_name = format!("{}.json", hex::encode(Sha256::digest(&config)));
            manifest.push(json!({
                "Config": config_name,
                "RepoTags": [image.name],
                "Layers": digests.iter().map(|digest| layer_name(digest)).collect::<Vec<_>>(),
            }));
            archive.configs.push((config_name, config));
            let layers = digests.iter().map(|digest| format!("sha256:{digest}")).collect();
            archive.identities.push(Identity { name: image.name.clone(), layers });
        }
        archive.manifest = serde_json::to_vec(&manifest)?;
        Ok(archive)
    }

    /// The images, in their order.
    pub fn identities(&self) -> &[Identity] {
        &self.identities
    }

    fn measure(&mut self, layer: &Layer) -> io::Result<String> {
        let mut meter = Meter { hash: Sha256::new(), size: 0 };
        layer.write(&mut meter)?;
        let digest = hex::encode(meter.hash.finalize());
        if !self.layers.iter().any(|measured| measured.digest == digest) {
            self.layers.push(Measured { layer: layer.clone(), digest: digest.clone(), size: meter.size });
        }
        Ok(digest)
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// A file of a layer cannot be read, or is not what it was when its digest was taken, or `out` takes no more.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(out);
        for (name, config) in &self.configs {
            plain(&mut tar, name, config)?;
        }
        for measured in &self.layers {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(measured.size);
            header.set_path(layer_name(&measured.digest))?;
            header.set_cksum();
            let out = tar.get_mut();
            out.write_all(header.as_bytes())?;
            let mut meter = Tee { out, meter: Meter { hash: Sha256::new(), size: 0 } };
            measured.layer.write(&mut meter)?;
            let seen = hex::encode(meter.meter.hash.finalize());
            if seen != measured.digest {
                return Err(io::Error::other(format!("a layer changed while it was read: {:?}", measured.layer)));
            }
            let rest = (512 - measured.size % 512) % 512;
            out.write_all(&vec![0; usize::try_from(rest).unwrap_or_default()])?;
        }
        plain(&mut tar, "manifest.json", &self.manifest)?;
        tar.finish()
    }

    /// The archive as a stream of bytes, written by a thread as the reader takes them.
    pub fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
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
    }
}

fn layer_name(digest: &str) -> String {
    format!("{digest}/layer.tar")
}

fn plain(tar: &mut tar::Builder<&mut dyn Write>, name: &str, content: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, name, content)
}

fn config(image: &Image, digests: &[String]) -> io::Result<Vec<u8>> {
    let mut env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    env.extend(image.env.iter().cloned());
    let created = "1970-01-01T00:00:00Z";
    let mut config = json!({ "Env": env, "Labels": image.labels });
    if !image.entrypoint.is_empty() {
        config["Entrypoint"] = json!(image.entrypoint);
    }
    if let Some(signal) = &image.stop_signal {
        config["StopSignal"] = json!(signal);
    }
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let whole = json!({
        "architecture": architecture,
        "os": "linux",
        "created": created,
        "config": config,
        "rootfs": {
            "type": "layers",
            "diff_ids": digests.iter().map(|digest| format!("sha256:{digest}")).collect::<Vec<_>>(),
        },
        "history": digests.iter().map(|_| json!({ "created": created, "created_by": "drydock" })).collect::<Vec<_>>(),
    });
    Ok(serde_json::to_vec(&whole)?)
}

struct Meter {
    hash: Sha256,
    size: u64,
}

impl Write for Meter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Tee<'a> {
    out: &'a mut dyn Write,
    meter: Meter,
}

impl Write for Tee<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        self.meter.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
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
        let identities = archive.identities().to_vec();
        assert_eq!(identities[0].layers, identities[1].layers);
        let mut written = Vec::new();
        archive.write(&mut written).unwrap();
        let streamed: Vec<Bytes> = archive.stream().try_collect().await.unwrap();
        assert!(streamed.concat() == written);
        let names = names(&written);
        assert_eq!(names.iter().filter(|name| name.ends_with("/layer.tar")).count(), 2);
        assert_eq!(names.last().unwrap(), "manifest.json");
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
