//! What the lab's Harbor holds, made here byte by byte: no image needs a base, and every digest is known before anything is
//! pushed. More than one image, because a repair that brings back the one that somebody looks at can lose the others.

use std::collections::BTreeMap;

use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The project that Harbor makes by itself; public.
pub const PUBLIC_PROJECT: &str = "library";
/// A private project: what is in it is pulled with the robot account's secret.
pub const PRIVATE_PROJECT: &str = "team";

/// The media type of an image's manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of the manifest of several architectures.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

const AMD64: &str = "amd64";
const ARM64: &str = "arm64";

/// The SHA-256 digest of some bytes, as OCI writes it.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// All that is pushed into the lab's Harbor.
#[derive(Debug, Clone)]
pub struct Seed {
    /// What is pushed, in this order.
    pub artifacts: Vec<Artifact>,
}

/// An image, or an index of images, ready to push.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The repository with its project: `library/app`.
    pub repository: String,
    /// The tag; an artifact that lost its tag to a newer one has none.
    pub tag: Option<String>,
    /// The media type of the manifest.
    pub media_type: &'static str,
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The image's configuration; absent for an index.
    pub config: Option<Vec<u8>>,
    /// The image's layers, the lowest first.
    pub layers: Vec<Layer>,
    /// The images of an index.
    pub children: Vec<Artifact>,
}

/// A layer, compressed.
#[derive(Debug, Clone)]
pub struct Layer {
    /// What is pushed.
    pub blob: Vec<u8>,
    /// The digest before compression, which names a node's snapshot of the lowest layer.
    pub diff_id: String,
}

impl Seed {
    /// Two tags that share a layer, an artifact that lost its tag, an index of two architectures, and a private image.
    ///
    /// # Errors
    /// This machine's architecture is neither x86-64 nor 64-bit Arm, or memory cannot be written to.
    pub fn new() -> std::io::Result<Self> {
        let own = match std::env::consts::ARCH {
            "x86_64" => AMD64,
            "aarch64" => ARM64,
            other => {
                let why = format!("there are no test images for the architecture {other}");
                return Err(std::io::Error::new(std::io::ErrorKind::Unsupported, why));
            }
        };
        let base = Layer::program(own)?;
        let app = |content: &str, tag: Option<&str>| {
            let own_layer = Layer::content(content, 128 * 1024)?;
            Ok::<_, std::io::Error>(Artifact::image("library/app", tag, own, vec![base.clone(), own_layer]))
        };
        let multi = [AMD64, ARM64].map(|architecture| {
            let layers =
                vec![Layer::program(architecture)?, Layer::content(&format!("multi {architecture}"), 32 * 1024)?];
            Ok::<_, std::io::Error>((architecture, Artifact::image("library/multi", None, architecture, layers)))
        });
        let multi = multi.into_iter().collect::<Result<Vec<_>, _>>()?;
        let private = vec![base.clone(), Layer::content("api", 64 * 1024)?];
        Ok(Self {
            artifacts: vec![
                app("app v1", Some("v1"))?,
                app("app v2", Some("v2"))?,
                app("app v0", None)?,
                Artifact::index("library/multi", "v1", multi),
                Artifact::image("team/api", Some("v1"), own, private),
            ],
        })
    }

    /// The image that a pull check looks at: `library/app:v1`.
    pub fn primary(&self) -> &Artifact {
        // `new` makes it first.
        &self.artifacts[0]
    }

    /// What a node pulls -> the digest that it must come to.
    pub fn digests(&self) -> BTreeMap<String, String> {
        self.artifacts.iter().map(|artifact| (artifact.name(), artifact.digest())).collect()
    }

    /// The digests of all that a node may fetch, and of the layers' content.
    pub fn content(&self) -> Vec<String> {
        let mut all: Vec<String> = self.artifacts.iter().flat_map(Artifact::content).collect();
        all.sort();
        all.dedup();
        all
    }
}

impl Artifact {
    fn image(repository: &str, tag: Option<&str>, architecture: &str, layers: Vec<Layer>) -> Self {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            // The program is process 1 of its container and would not heed a SIGTERM.
            "config": {"Entrypoint": ["/app"], "StopSignal": "SIGKILL"},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string()
        .into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": layers.iter().map(|layer| descriptor(LAYER, &layer.blob)).collect::<Vec<_>>(),
        });
        Self {
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            media_type: MANIFEST,
            manifest: manifest.to_string().into_bytes(),
            config: Some(config),
            layers,
            children: Vec::new(),
        }
    }

    fn index(repository: &str, tag: &str, children: Vec<(&str, Self)>) -> Self {
        let manifests: Vec<Value> = children
            .iter()
            .map(|(architecture, child)| {
                let mut entry = descriptor(MANIFEST, &child.manifest);
                entry["platform"] = json!({"architecture": architecture, "os": "linux"});
                entry
            })
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        Self {
            repository: repository.to_owned(),
            tag: Some(tag.to_owned()),
            media_type: INDEX,
            manifest: manifest.to_string().into_bytes(),
            config: None,
            layers: Vec::new(),
            children: children.into_iter().map(|(_, child)| child).collect(),
        }
    }

    /// How it is pulled, without the host: `library/app:v1`, or with its digest where it has no tag.
    pub fn name(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{}:{tag}", self.repository),
            None => format!("{}@{}", self.repository, self.digest()),
        }
    }

    /// The manifest's digest.
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// The blobs that are pushed before the manifest.
    pub fn blobs(&self) -> impl Iterator<Item = &[u8]> {
        self.config.as_deref().into_iter().chain(self.layers.iter().map(|layer| layer.blob.as_slice()))
    }

    /// The digests of the manifest, of all that it refers to, and of the layers' content.
    fn content(&self) -> Vec<String> {
        let mut all = vec![self.digest()];
        all.extend(self.blobs().map(digest));
        all.extend(self.layers.iter().map(|layer| layer.diff_id.clone()));
        all.extend(self.children.iter().flat_map(Self::content));
        all
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

impl Layer {
    /// A program that waits to be ended.
    fn program(architecture: &str) -> std::io::Result<Self> {
        Self::of("app", &waiting_program(architecture), 0o755)
    }

    /// A file of `size` bytes that no other name's layer has.
    fn content(name: &str, size: usize) -> std::io::Result<Self> {
        let bytes: Vec<u8> =
            (0_u64..).flat_map(|block| Sha256::digest(format!("{name}:{block}")).to_vec()).take(size).collect();
        Self::of("content", &bytes, 0o644)
    }

    fn of(path: &str, bytes: &[u8], mode: u32) -> std::io::Result<Self> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        header.set_mtime(0);
        tar.append_data(&mut header, path, bytes)?;
        let tar = tar.into_inner()?;
        let mut blob = Vec::new();
        std::io::copy(&mut tar.as_slice(), &mut GzBuilder::new().mtime(0).write(&mut blob, Compression::fast()))?;
        Ok(Self { blob, diff_id: digest(&tar) })
    }
}

/// An ELF executable of a few instructions: it waits, without end, in a system call.
fn waiting_program(architecture: &str) -> Vec<u8> {
    let (machine, code): (u16, &[u8]) = match architecture {
        // again: pause(); jump again
        AMD64 => (62, &[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]),
        // again: ppoll(NULL, 0, NULL, NULL, 0); branch again
        _ => (
            183,
            &[
                0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2, 0x04,
                0x00, 0x80, 0xd2, 0x28, 0x09, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xf9, 0xff, 0xff, 0x17,
            ],
        ),
    };
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    elf.extend(2_u16.to_le_bytes()); // executable
    elf.extend(machine.to_le_bytes());
    elf.extend(1_u32.to_le_bytes());
    elf.extend((BASE + HEADERS).to_le_bytes()); // entry
    elf.extend(64_u64.to_le_bytes()); // program headers
    elf.extend(0_u64.to_le_bytes()); // no section headers
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1_u32.to_le_bytes()); // load
    elf.extend(5_u32.to_le_bytes()); // read and execute
    for word in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn every_seed_is_the_same_bytes() {
        assert_eq!(Seed::new().unwrap().digests(), Seed::new().unwrap().digests());
    }

    #[test]
    fn two_tags_share_a_layer_and_one_artifact_has_no_tag() {
        let seed = Seed::new().unwrap();
        let [v1, v2, untagged, index, private] = &seed.artifacts[..] else { panic!("{:?}", seed.digests()) };
        assert_eq!(v1.layers[0].diff_id, v2.layers[0].diff_id);
        assert_ne!(v1.layers[1].diff_id, v2.layers[1].diff_id);
        assert_eq!(untagged.name(), format!("library/app@{}", untagged.digest()));
        assert_eq!(index.children.len(), 2);
        assert_eq!(private.repository.split('/').next(), Some(PRIVATE_PROJECT));
        assert_eq!(seed.primary().name(), "library/app:v1");
    }

    #[test]
    fn a_layer_unpacks_to_what_the_configuration_says() {
        for layer in &Seed::new().unwrap().primary().layers {
            let mut tar = Vec::new();
            flate2::read::GzDecoder::new(layer.blob.as_slice()).read_to_end(&mut tar).unwrap();
            assert_eq!(digest(&tar), layer.diff_id);
        }
    }

    #[test]
    fn the_program_runs_until_it_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app");
        let own = if cfg!(target_arch = "x86_64") { AMD64 } else { ARM64 };
        std::fs::write(&path, waiting_program(own)).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let mut child = std::process::Command::new(&path).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
