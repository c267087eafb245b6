//! The hash of a file, read in pieces: some have hundreds of megabytes.

use std::{fs::File, io::Read, path::Path};

use sha2::{Digest, Sha256};

/// A file's size in bytes and its SHA-256, in hexadecimal.
///
/// # Errors
/// It cannot be read.
pub fn of_file(path: &Path) -> std::io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok((size, hex::encode(hash.finalize())));
        }
        size += read as u64;
        hash.update(&chunk[..read]);
    }
}
