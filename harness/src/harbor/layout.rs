//! The images as the machine has them that built them, and can push them again: OCI image layouts.

use std::path::Path;

use serde_json::json;

use super::seed::{Artifact, Seed, digest};

/// Lays every image as an OCI image layout under `dir`, as a build machine has it that can push it again, and `list`: a line
/// for each with its folder and its name without the host.
///
/// # Errors
/// A file cannot be written.
pub fn lay_out(seed: &Seed, dir: &Path) -> std::io::Result<()> {
    let mut list = String::new();
    for artifact in &seed.artifacts {
        let name = artifact.tag.as_deref().unwrap_or("untagged");
        let folder = format!("{}-{name}", artifact.repository.replace('/', "-"));
        lay_out_one(artifact, &dir.join(&folder))?;
        list.push_str(&format!("images/{folder} {}\n", artifact.name()));
    }
    std::fs::write(dir.join("list"), list)
}

fn lay_out_one(artifact: &Artifact, dir: &Path) -> std::io::Result<()> {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let entry = json!({
        "mediaType": artifact.media_type,
        "digest": artifact.digest(),
        "size": artifact.manifest.len(),
    });
    std::fs::write(dir.join("index.json"), json!({"schemaVersion": 2, "manifests": [entry]}).to_string())?;
    for part in [artifact].into_iter().chain(&artifact.children) {
        for bytes in part.blobs().chain([part.manifest.as_slice()]) {
            std::fs::write(blobs.join(digest(bytes).trim_start_matches("sha256:")), bytes)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_blob_of_a_layout_has_its_digest_as_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let seed = Seed::new().unwrap();
        lay_out(&seed, dir.path()).unwrap();
        let list = std::fs::read_to_string(dir.path().join("list")).unwrap();
        assert_eq!(list.lines().count(), seed.artifacts.len());
        let mut blobs = 0;
        for line in list.lines() {
            let folder = dir.path().join(line.split_once(' ').unwrap().0.trim_start_matches("images/"));
            for blob in std::fs::read_dir(folder.join("blobs/sha256")).unwrap() {
                let blob = blob.unwrap();
                let hash = digest(&std::fs::read(blob.path()).unwrap());
                assert_eq!(hash, format!("sha256:{}", blob.file_name().to_str().unwrap()));
                blobs += 1;
            }
        }
        // Four images of a manifest, a configuration and two layers; an index of two.
        assert_eq!(blobs, 4 * 4 + 1 + 2 * 4);
    }
}
