//! Using a bundle: it is read through and compared with its checksums before anything of it is used.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use super::{BLOBS, BundleError, DESCRIPTION, Description, FORMAT, SUMS, TOOLS};
use crate::{
    hash::{self, Hashing},
    paths::Paths,
    run::events::Events,
    source::{
        Prepared,
        engine::EngineRef,
        image::{Image, architecture},
        ingredients::{Ingredients, Tools},
        layout::Layout,
        node::Dock,
        store::{Artifact, Building, Inputs, Recipe, Store},
    },
};

/// How a file begins that Zstandard compressed (RFC 8878, 3.1.1).
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What is larger is a layer; manifests and configurations are smaller.
const SMALL: u64 = 4 << 20;
/// The window that is allowed to a bundle made by hand, as a power of two: 128 MiB, zstd's own limit.
const WINDOW: u32 = 27;

/// A bundle that was read through and is whole.
#[derive(Debug)]
pub struct Bundle {
    file: PathBuf,
    sha256: String,
    description: Description,
    /// All of it but the layers.
    small: Artifact,
}

impl Bundle {
    /// Reads a bundle through, unless the cache has it.
    ///
    /// # Errors
    /// It is no bundle, or not whole, or not for this Drydock or machine; nothing is changed then.
    pub async fn open(file: &Path, paths: &Paths, events: &Events) -> Result<Self, BundleError> {
        let hashed = file.to_owned();
        let sha256 = blocking(file, move || {
            check_magic(&hashed)?;
            Ok(hash::of_file(&hashed).map_err(BundleError::io("read the bundle", &hashed))?.1)
        })
        .await?;
        let recipe = recipe("bundle", &sha256, format!("read the bundle {}", file.display()));
        let read = |building: Building| async move {
            let (from, to) = (file.to_owned(), building.out);
            blocking(file, move || unpack(&from, &to, |path, size| !path.starts_with(BLOBS) || size <= SMALL).map(drop))
                .await
        };
        let small = Store::new(paths).ensure(&recipe, &[], events, read).await?;
        let path = small.file(DESCRIPTION);
        let text = fs::read(&path).map_err(BundleError::io("read", &path))?;
        Ok(Self { file: file.to_owned(), sha256, description: describe(file, &text)?, small })
    }

    /// What is in it.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The SHA-256 of its file, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The names of its images, that of the node left out.
    ///
    /// # Errors
    /// Its index cannot be read.
    pub fn image_names(&self) -> Result<Vec<String>, BundleError> {
        let (_, images) = self.images(&self.small)?;
        Ok(images.into_iter().map(|image| image.name).collect())
    }

    /// Sees that its Kubernetes is the one that was asked for, as `v1.34.4`, `1.34.4` or `1.34`.
    ///
    /// # Errors
    /// It is another.
    pub fn check_kubernetes(&self, asked: Option<&str>) -> Result<(), BundleError> {
        let theirs = self.description.lab.kubernetes.trim_start_matches('v');
        let Some(asked) = asked.map(|asked| asked.trim_start_matches('v')) else { return Ok(()) };
        if theirs == asked || theirs.rsplit_once('.').is_some_and(|(minor, _)| minor == asked) {
            return Ok(());
        }
        Err(BundleError::OtherKubernetes {
            path: self.file.clone(),
            theirs: theirs.to_owned(),
            asked: asked.to_owned(),
        })
    }

    /// Has its node image in the engine, with its images in it. Its layers are unpacked only where the engine lacks them.
    ///
    /// # Errors
    /// It lacks something that its description names, or the engine refuses.
    pub async fn prepare(
        &self,
        root: &Path,
        paths: &Paths,
        engine: &EngineRef,
        events: &Events,
    ) -> Result<Prepared, BundleError> {
        let dock = Dock { root, paths, engine, events };
        let (node, images) = self.images(&self.small)?;
        let tool = |path: &str| self.small.file(path);
        let [kind, helm, kubectl, crane] = TOOLS.map(tool);
        let mut ingredients = Ingredients {
            facts: self.description.lab.clone(),
            tools: Tools { kind, helm, kubectl, crane },
            node,
            images,
            chart: self.small.file(&self.description.chart),
            versions: self.description.versions.clone(),
            in_use: vec![self.small.clone()],
        };
        let (recipe, name) = dock.named(&ingredients)?;
        if let Some(state) = dock.in_engine(&recipe, &name).await? {
            ingredients.in_use.push(state);
            return Ok(dock.prepared(ingredients, name)?);
        }
        let layers = self.layers(paths, events).await?;
        (ingredients.node, ingredients.images) = self.images(&layers)?;
        Ok(dock.prepare(ingredients).await?)
    }

    /// All of its blobs, unpacked.
    async fn layers(&self, paths: &Paths, events: &Events) -> Result<Artifact, BundleError> {
        let step = format!("unpack the layers of the bundle {}", self.file.display());
        let unpack = |building: Building| async move {
            let (from, to) = (self.file.clone(), building.out);
            let keep = |path: &str, _| path.starts_with(BLOBS) || path == "index.json";
            blocking(&self.file, move || unpack(&from, &to, keep).map(drop)).await
        };
        Store::new(paths).ensure(&recipe("bundle-layers", &self.sha256, step), &[], events, unpack).await
    }

    /// The node image and the others, as an artifact of this bundle has them.
    fn images(&self, artifact: &Artifact) -> Result<(Image, Vec<Image>), BundleError> {
        let wrong = |source| BundleError::Layout { path: self.file.clone(), source };
        let mut images = Layout::new(artifact.file("")).images().map_err(wrong)?;
        let name = &self.description.node;
        let node = images
            .remove(name)
            .ok_or_else(|| BundleError::Missing { path: self.file.clone(), what: format!("the node image {name}") })?;
        let images = images.into_iter().map(|(name, stored)| Image::stored(name, stored)).collect();
        Ok((Image::stored(name, node), images))
    }
}

fn recipe(name: &str, sha256: &str, step: String) -> Recipe {
    let key = Inputs::new(1).text("bundle", sha256).key();
    Recipe { name: name.to_owned(), key, step, usually: Duration::from_secs(10) }
}

async fn blocking<T: Send + 'static>(
    file: &Path,
    work: impl FnOnce() -> Result<T, BundleError> + Send + 'static,
) -> Result<T, BundleError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(BundleError::io("read the bundle", file)(io::Error::other(error))))
}

fn check_magic(file: &Path) -> Result<(), BundleError> {
    let failed = BundleError::io("read the bundle", file);
    let mut begin = Vec::new();
    match File::open(file).and_then(|file| file.take(4).read_to_end(&mut begin)) {
        Err(error) => return Err(failed(error)),
        Ok(_) if begin == MAGIC => return Ok(()),
        Ok(_) => {}
    }
    let why = match begin.is_empty() {
        true => "it is empty".to_owned(),
        false => format!("it begins with {begin:02x?}, and what Zstandard compressed with {MAGIC:02x?}"),
    };
    Err(BundleError::Foreign { path: file.to_owned(), why })
}

/// Reads `drydock.json` of the bundle `file`.
fn describe(file: &Path, text: &[u8]) -> Result<Description, BundleError> {
    let path = || file.to_owned();
    let wrong = |error: serde_json::Error| BundleError::Description { path: path(), why: error.to_string() };
    // What a newer format has is not known, but that it is newer is.
    let format = serde_json::from_slice::<serde_json::Value>(text).map_err(wrong)?["format"].as_u64();
    if let Some(format) = format.filter(|format| *format > FORMAT) {
        return Err(BundleError::Newer { path: path(), format });
    }
    let description: Description = serde_json::from_slice(text).map_err(wrong)?;
    if description.architecture != architecture() {
        let theirs = description.architecture;
        return Err(BundleError::Architecture { path: path(), theirs, ours: architecture() });
    }
    Ok(description)
}

/// Reads a bundle through, and unpacks to `to` what `keep` wants, by path and size.
fn unpack(file: &Path, to: &Path, keep: impl Fn(&str, u64) -> bool) -> Result<Description, BundleError> {
    let opened = File::open(file).map_err(BundleError::io("read the bundle", file))?;
    let damaged = |error: io::Error| damaged(file, &error);
    let mut zstd = zstd::Decoder::new(opened).map_err(damaged)?;
    zstd.window_log_max(WINDOW).map_err(damaged)?;
    let mut tar = tar::Archive::new(BufReader::with_capacity(1 << 20, zstd));
    let altered = |what: String| BundleError::Altered { path: file.to_owned(), what };
    let (mut description, mut listed) = (None, None);
    let mut seen = BTreeMap::new();
    for entry in tar.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        if entry.header().entry_type().is_dir() {
            continue;
        }
        let path = plain_path(&entry.path().map_err(damaged)?).ok_or_else(|| {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            altered(format!("a file in it is called {name}"))
        })?;
        if !entry.header().entry_type().is_file() {
            return Err(altered(format!("{path} in it is no file")));
        }
        let size = entry.size();
        let mut hashing = Hashing::new(&mut entry);
        if path == DESCRIPTION || path == SUMS {
            let mut text = Vec::new();
            hashing.by_ref().take(SMALL).read_to_end(&mut text).map_err(damaged)?;
            write(&to.join(&path), &mut &*text, 0o644)?.map_err(damaged)?;
            match path == SUMS {
                true => listed = Some(sums(&text).map_err(altered)?),
                false => description = Some(describe(file, &text)?),
            }
        } else if keep(&path, size) {
            let mode = if path.starts_with("tools/") { 0o755 } else { 0o644 };
            write(&to.join(&path), &mut hashing, mode)?.map_err(damaged)?;
        } else {
            io::copy(&mut hashing, &mut io::sink()).map_err(damaged)?;
        }
        if seen.insert(path.clone(), hashing.finish().1).is_some() {
            return Err(altered(format!("{path} is in it twice")));
        }
    }
    // What follows the archive's end is part of what was compressed, with its checksum.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(damaged)?;
    let foreign = |what: &str| BundleError::Foreign { path: file.to_owned(), why: format!("there is no {what} in it") };
    let description = description.ok_or_else(|| foreign(DESCRIPTION))?;
    compare(&listed.ok_or_else(|| foreign(SUMS))?, &seen).map_err(altered)?;
    let missing = |what: &str| BundleError::Missing { path: file.to_owned(), what: what.to_owned() };
    if let Some(tool) = TOOLS.iter().find(|tool| !seen.contains_key(**tool)) {
        return Err(missing(tool));
    }
    let chart = &description.chart;
    if !seen.keys().any(|path| path == chart || path.starts_with(&format!("{chart}/"))) {
        return Err(missing(&format!("the chart {chart}")));
    }
    Ok(description)
}

/// What an error says while a bundle is read through.
fn damaged(file: &Path, error: &io::Error) -> BundleError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            let size = fs::metadata(file).map_or(0, |meta| meta.len());
            BundleError::Truncated { path: file.to_owned(), size }
        }
        _ => BundleError::Altered { path: file.to_owned(), what: error.to_string() },
    }
}

/// Writes a file. The inner error is the reader's.
fn write(path: &Path, from: &mut impl Read, mode: u32) -> Result<io::Result<()>, BundleError> {
    let wrong = |error| BundleError::io("unpack to", path)(error);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(wrong)?;
    }
    let mut out = File::create(path).map_err(wrong)?;
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => return Ok(Err(error)),
        };
        io::Write::write_all(&mut out, &chunk[..read]).map_err(wrong)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(wrong)?;
    Ok(Ok(()))
}

/// A path that stays within the folder that it is unpacked to.
fn plain_path(path: &Path) -> Option<String> {
    let path = path.strip_prefix(".").unwrap_or(path);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    path.to_str().filter(|path| plain && !path.is_empty()).map(str::to_owned)
}

/// The checksums by path, from lines as `sha256sum` writes them.
fn sums(text: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let text = std::str::from_utf8(text).map_err(|error| format!("{SUMS} is no text: {error}"))?;
    let line = |(number, line): (usize, &str)| {
        let parsed = line.split_once(' ').and_then(|(digest, path)| {
            let path = path.strip_prefix([' ', '*'])?;
            let path = path.strip_prefix("./").unwrap_or(path);
            (digest.len() == 64).then(|| (path.to_owned(), digest.to_ascii_lowercase()))
        });
        parsed.ok_or_else(|| format!("line {} of {SUMS} is no checksum and name: `{line}`", number + 1))
    };
    text.lines().enumerate().map(line).collect()
}

/// Compares what a list of checksums has with what was seen.
fn compare(listed: &BTreeMap<String, String>, seen: &BTreeMap<String, String>) -> Result<(), String> {
    for (path, digest) in listed {
        match seen.get(path) {
            None => return Err(format!("{SUMS} lists {path}, which is not in it")),
            Some(found) if found != digest => {
                return Err(format!("the SHA-256 of {path} is {found}, listed is {digest}"));
            }
            Some(_) => {}
        }
    }
    let listed: BTreeSet<&str> = listed.keys().map(String::as_str).chain([SUMS]).collect();
    match seen.keys().find(|path| !listed.contains(path.as_str())) {
        Some(stranger) => Err(format!("{stranger} is in it, which {SUMS} does not list")),
        None => Ok(()),
    }
}
