//! The image under test, made here byte by byte: it needs no base image, and its digest is known before anything is pushed.

use flate2::{Compression, GzBuilder};
use serde_json::json;
use sha2::{Digest, Sha256};

/// An image, ready to push.
#[derive(Debug, Clone)]
pub struct SeedImage {
    /// The repository with its project: `library/app`.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The image configuration.
    pub config: Vec<u8>,
    /// The one layer, compressed.
    pub layer: Vec<u8>,
    /// The layer's digest before compression, which names the node's snapshot of it.
    pub diff_id: String,
}

/// The media type of an image's manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The SHA-256 digest of some bytes, as OCI writes it.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl SeedImage {
    /// An image with a program that waits to be ended, and a file of `size` bytes that no other seed's image has.
    ///
    /// # Errors
    /// The machine's architecture is neither x86-64 nor 64-bit Arm.
    pub fn build(repository: &str, tag: &str, size: usize) -> std::io::Result<Self> {
        let (architecture, program) = waiting_program()?;
        let content: Vec<u8> = (0_u64..)
            .flat_map(|block| Sha256::digest(format!("{repository}:{tag}:{block}")).to_vec())
            .take(size)
            .collect();
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes, mode) in [("app", &program, 0o755), ("content", &content, 0o644)] {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(mode);
            header.set_mtime(0);
            tar.append_data(&mut header, path, bytes.as_slice())?;
        }
        let tar = tar.into_inner()?;
        let diff_id = digest(&tar);
        let mut layer = Vec::new();
        std::io::copy(&mut tar.as_slice(), &mut GzBuilder::new().mtime(0).write(&mut layer, Compression::fast()))?;
        let config = serde_json::to_vec(&json!({
            "architecture": architecture,
            "os": "linux",
            // The program is process 1 of its container and would not heed a SIGTERM.
            "config": {"Entrypoint": ["/app"], "StopSignal": "SIGKILL"},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }))?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": digest(&config), "size": config.len()},
            "layers": [{"mediaType": LAYER, "digest": digest(&layer), "size": layer.len()}],
        }))?;
        Ok(Self { repository: repository.to_owned(), tag: tag.to_owned(), manifest, config, layer, diff_id })
    }

    /// The manifest's digest.
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// The digests of all that a node fetches.
    pub fn content(&self) -> [String; 3] {
        [digest(&self.manifest), digest(&self.config), digest(&self.layer)]
    }
}

/// An ELF executable of a few instructions: it waits, without end, in a system call.
fn waiting_program() -> std::io::Result<(&'static str, Vec<u8>)> {
    let (architecture, machine, code): (_, u16, &[u8]) = match std::env::consts::ARCH {
        // again: pause(); jump again
        "x86_64" => ("amd64", 62, &[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]),
        // again: ppoll(NULL, 0, NULL, NULL, 0); branch again
        "aarch64" => (
            "arm64",
            183,
            &[
                0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2, 0x04,
                0x00, 0x80, 0xd2, 0x28, 0x09, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xf9, 0xff, 0xff, 0x17,
            ],
        ),
        other => {
            return Err(std::io::Error::new(
                std::io::ErrorKind::Unsupported,
                format!("there is no test image for the architecture {other}"),
            ));
        }
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
    Ok((architecture, elf))
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn the_same_name_gives_the_same_bytes_and_another_name_others() {
        let one = SeedImage::build("library/app", "v1", 1000).unwrap();
        assert_eq!(one.digest(), SeedImage::build("library/app", "v1", 1000).unwrap().digest());
        assert_ne!(one.digest(), SeedImage::build("library/app", "v2", 1000).unwrap().digest());
    }

    #[test]
    fn the_layer_unpacks_to_what_the_configuration_says() {
        let image = SeedImage::build("library/app", "v1", 70_000).unwrap();
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(image.layer.as_slice()).read_to_end(&mut tar).unwrap();
        assert_eq!(digest(&tar), image.diff_id);
        let mut archive = tar::Archive::new(tar.as_slice());
        let sizes: Vec<u64> = archive.entries().unwrap().map(|entry| entry.unwrap().size()).collect();
        assert_eq!(sizes[1], 70_000);
    }

    #[test]
    fn the_program_runs_until_it_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app");
        std::fs::write(&path, waiting_program().unwrap().1).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let mut child = std::process::Command::new(&path).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
