//! Making a bundle.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde::Serialize;

use super::{BundleError, DESCRIPTION, Description, FORMAT, SBOM, SUMS, TOOLS, sbom};
use crate::{
    hash::{self, Hashing},
    source::{
        image::{Archive, append_bytes, architecture},
        ingredients::Ingredients,
    },
};

/// zstd's own default: a higher one takes far longer for little.
const LEVEL: i32 = 3;

/// A file of the bundle that is not of its images.
enum Part {
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// Writes a bundle, and says its size in bytes and its SHA-256. The same ingredients make the same bytes. Blocks: run it in a
/// thread for such. It ends early when `cancelled` becomes true.
///
/// # Errors
/// There is a file at `out` already, or something cannot be read or written; then nothing is left at `out`.
pub fn create(ingredients: &Ingredients, out: &Path, cancelled: &AtomicBool) -> Result<(u64, String), BundleError> {
    if out.exists() {
        return Err(BundleError::Exists { path: out.to_owned() });
    }
    let folder = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // In the same folder, so that it can be renamed; gone when anything fails.
    let unfinished = tempfile::Builder::new().prefix(".drydock-bundle-").tempfile_in(folder);
    let unfinished = unfinished.map_err(BundleError::io("write to", folder))?;
    let images: Vec<_> = [&ingredients.node].into_iter().chain(&ingredients.images).cloned().collect();
    let archive = Archive::new(&images).map_err(BundleError::io("read the images for", out))?;
    let parts = parts(ingredients, out)?;
    let written = write(&archive, parts, unfinished.as_file(), cancelled).map_err(BundleError::io("write", out))?;
    let file = unfinished.persist_noclobber(out);
    file.map_err(|error| BundleError::Io { doing: "put in place", path: out.to_owned(), source: error.error })?;
    // A temporary file is its owner's alone; a bundle is to be given to others.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(out, fs::Permissions::from_mode(0o644)).map_err(BundleError::io("write", out))?;
    Ok(written)
}

/// All files but those of the images, by their paths.
fn parts(ingredients: &Ingredients, out: &Path) -> Result<BTreeMap<String, Part>, BundleError> {
    let mut parts = BTreeMap::new();
    let tools = &ingredients.tools;
    for (path, file) in TOOLS.into_iter().zip([&tools.kind, &tools.helm, &tools.kubectl, &tools.crane]) {
        parts.insert(path.to_owned(), Part::File(file.clone()));
    }
    let chart = &ingredients.chart;
    let chart_path = if chart.is_dir() {
        for (path, file) in files_under(chart).map_err(BundleError::io("read the chart", chart))? {
            parts.insert(format!("chart/{path}"), Part::File(file));
        }
        "chart"
    } else {
        parts.insert("chart.tgz".to_owned(), Part::File(chart.clone()));
        "chart.tgz"
    };
    let description = Description {
        format: FORMAT,
        architecture: architecture().to_owned(),
        lab: ingredients.facts.clone(),
        node: ingredients.node.name.clone(),
        chart: chart_path.to_owned(),
        versions: ingredients.versions.clone(),
    };
    let sbom = sbom::of(ingredients).map_err(BundleError::io("read the images for", out))?;
    let described = pretty(&description).map_err(BundleError::io("describe", out))?;
    parts.insert(DESCRIPTION.to_owned(), Part::Bytes(described));
    parts.insert(SBOM.to_owned(), Part::Bytes(pretty(&sbom).map_err(BundleError::io("describe", out))?));
    Ok(parts)
}

/// JSON for people to read.
fn pretty(value: &impl Serialize) -> io::Result<Vec<u8>> {
    Ok([serde_json::to_vec_pretty(value)?, b"\n".to_vec()].concat())
}

/// A folder's files by their paths within it, in order.
fn files_under(folder: &Path) -> io::Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match entry.file_type()?.is_dir() {
            true => found
                .extend(files_under(&entry.path())?.into_iter().map(|(path, file)| (format!("{name}/{path}"), file))),
            false => {
                found.insert(name, entry.path());
            }
        }
    }
    Ok(found)
}

fn write(
    archive: &Archive,
    mut parts: BTreeMap<String, Part>,
    out: &File,
    cancelled: &AtomicBool,
) -> io::Result<(u64, String)> {
    let mut sums: BTreeMap<String, String> =
        archive.entries().into_iter().map(|entry| (entry.path, entry.digest)).collect();
    for (path, part) in &parts {
        let digest = match part {
            Part::Bytes(bytes) => hash::of_bytes(bytes),
            Part::File(file) => hash::of_file(file)?.1,
        };
        sums.insert(path.clone(), digest);
    }
    let sums: String = sums.iter().map(|(path, digest)| format!("{digest}  {path}\n")).collect();

    let mut zstd =
        zstd::Encoder::new(Hashing::new(BufWriter::with_capacity(1 << 20, Cancellable { out, cancelled })), LEVEL)?;
    zstd.include_checksum(true)?;
    // What is written does not depend on how many there are, as long as there is one.
    let workers = thread::available_parallelism().map_or(1, usize::from);
    zstd.multithread(u32::try_from(workers).unwrap_or(1))?;
    let mut tar = tar::Builder::new(zstd);
    // What tells whether a bundle is fit for a machine comes first.
    if let Some(Part::Bytes(description)) = parts.remove(DESCRIPTION) {
        append_bytes(&mut tar, DESCRIPTION, &description)?;
    }
    append_bytes(&mut tar, SUMS, sums.as_bytes())?;
    for (path, part) in parts {
        match part {
            Part::Bytes(bytes) => append_bytes(&mut tar, &path, &bytes)?,
            Part::File(file) => append_file(&mut tar, &path, &file)?,
        }
    }
    archive.append_to(&mut tar)?;
    let mut out = tar.into_inner()?.finish()?;
    out.flush()?;
    Ok(out.finish())
}

/// Appends a file with nothing of its own but its content and whether it is a program.
fn append_file<W: Write>(tar: &mut tar::Builder<W>, path: &str, file: &Path) -> io::Result<()> {
    let file = File::open(file)?;
    let mut header = tar::Header::new_gnu();
    header.set_mode(if path.starts_with("tools/") { 0o755 } else { 0o644 });
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(file.metadata()?.len());
    tar.append_data(&mut header, path, io::BufReader::with_capacity(1 << 20, file))
}

/// A file that takes no more when what it is written for is no longer wanted.
struct Cancellable<'a> {
    out: &'a File,
    cancelled: &'a AtomicBool,
}

impl Write for Cancellable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.cancelled.load(Ordering::Relaxed) {
            true => Err(io::Error::other("it is no longer wanted")),
            false => self.out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
