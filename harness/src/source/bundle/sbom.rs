//! The software bill of materials of a bundle: CycloneDX 1.6 (ECMA-424), as JSON.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    path::Path,
};

use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::{
    hash,
    source::{image::Layer, ingredients::Ingredients},
};

/// Where Debian lists what is installed.
const DPKG: &str = "var/lib/dpkg/status";

/// Every image, program and Debian package, and the version of each other part.
pub(super) fn of(ingredients: &Ingredients) -> io::Result<Value> {
    let mut components = Vec::new();
    let mut packages = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for image in [&ingredients.node].into_iter().chain(&ingredients.images) {
        let digest = image.upon.as_ref().map(|stored| format!("sha256:{}", hash::of_bytes(&stored.manifest)));
        let mut component = json!({ "type": "container", "name": image.name });
        // One that is made here has none before it is written.
        if let Some(digest) = digest {
            component["version"] = json!(digest);
        }
        components.push(component);
        for layer in &image.layers {
            if let Layer::Tar(path) = layer
                && seen.insert(path.clone())
            {
                packages.extend(debian_packages(File::open(path)?)?);
            }
        }
        for layer in image.upon.iter().flat_map(|stored| &stored.layers) {
            if seen.insert(layer.path.clone()) {
                packages.extend(stored_packages(&layer.path, &layer.media_type)?);
            }
        }
    }
    let versions = ingredients.versions.iter();
    components
        .extend(versions.map(|(name, version)| json!({ "type": "application", "name": name, "version": version })));
    components.extend(packages.into_iter().map(|package| {
        let Package { name, version, architecture } = package;
        json!({
            "type": "library",
            "name": name,
            "version": version,
            "purl": format!("pkg:deb/debian/{name}@{}?arch={architecture}", version.replace('+', "%2B")),
        })
    }));
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": { "type": "application", "name": "drydock bundle" } },
        "components": components,
    }))
}

/// An installed Debian package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    architecture: String,
}

/// Layers of other compressions than gzip are not looked into.
fn stored_packages(path: &Path, media_type: &str) -> io::Result<Vec<Package>> {
    let file = File::open(path)?;
    match media_type {
        _ if media_type.ends_with("gzip") => debian_packages(GzDecoder::new(io::BufReader::new(file))),
        _ if media_type.ends_with("tar") => debian_packages(file),
        _ => Ok(Vec::new()),
    }
}

fn debian_packages(layer: impl Read) -> io::Result<Vec<Package>> {
    let mut archive = tar::Archive::new(layer);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()?.strip_prefix(".").unwrap_or(&entry.path()?) == Path::new(DPKG) {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            return Ok(text.split("\n\n").filter_map(package).collect());
        }
    }
    Ok(Vec::new())
}

/// A paragraph of dpkg's list, where the package is installed.
fn package(paragraph: &str) -> Option<Package> {
    let field = |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    field("Status").filter(|status| status.ends_with(" installed"))?;
    Some(Package {
        name: field("Package")?.to_owned(),
        version: field("Version")?.to_owned(),
        architecture: field("Architecture")?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_packages_are_those_that_are_installed() {
        let status = "Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:1.2+b1\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n";
        let mut layer = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(status.len() as u64);
        layer.append_data(&mut header, format!("./{DPKG}"), status.as_bytes()).unwrap();
        let layer = layer.into_inner().unwrap();
        let found = debian_packages(&*layer).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((&*found[0].name, &*found[0].version), ("zlib1g", "1:1.2+b1"));
    }
}
