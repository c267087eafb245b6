//! Blobs in the folder of an OCI image layout: there whole or not at all, fetched in one piece or in several.

use std::{
    fs::{File, TryLockError},
    io::{self, Seek, SeekFrom},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use oci_client::Reference;
use reqwest::{
    Response, StatusCode,
    header::{CONTENT_RANGE, HeaderValue, RANGE},
};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::{
    error::{Problem, Unanswered},
    host::Host,
};
use crate::{
    hash,
    run::{
        events::Step,
        poll::{Look, poll},
    },
};

/// How often one blob is resumed, and only where more came than ever before.
pub(super) const RESUMES: u32 = 5;
/// Another run fetches hundreds of megabytes, maybe over a slow line.
const LOCK_LIMIT: Duration = Duration::from_secs(30 * 60);

/// A SHA-256, as it names content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Digest {
    hex: String,
}

impl Digest {
    /// From `sha256:HEX`. What is no such digest must not become a file's name.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            return Ok(Self { hex: hex.to_owned() });
        }
        Err(format!("`{text}` is not `sha256:` and 64 hexadecimal digits"))
    }

    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { hex: hex::encode(Sha256::digest(bytes)) }
    }

    /// The file that holds the content, below the folder of a layout.
    pub(super) fn path(&self, dir: &Path) -> PathBuf {
        dir.join("blobs/sha256").join(&self.hex)
    }

    /// The file that holds what has come of it. No layout's reader takes it for a blob: it is not called like a digest.
    fn partial(&self, dir: &Path) -> PathBuf {
        dir.join("blobs/sha256").join(format!("{}.partial", self.hex))
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sha256:{}", self.hex)
    }
}

/// How far the blobs of one image are, together.
pub(super) struct Progress<'a> {
    step: &'a Step,
    total: u64,
    done: AtomicU64,
    said: Mutex<u64>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(step: &'a Step, total: u64) -> Self {
        Self { step, total, done: AtomicU64::new(0), said: Mutex::new(0) }
    }

    fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // One event for each hundredth: all events are kept.
        let hundredth = done * 100 / self.total.max(1);
        if let Ok(mut said) = self.said.lock()
            && *said != hundredth
        {
            *said = hundredth;
            self.step.progress(done, self.total);
        }
    }

    fn take_back(&self, bytes: u64) {
        self.done.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Problem {
    move |source| Problem::Io { doing, path: path.to_owned(), source }
}

/// Runs what blocks on a disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// The bytes of a small blob, should it be there whole.
pub(super) fn read_small(digest: &Digest, dir: &Path) -> Option<Vec<u8>> {
    std::fs::read(digest.path(dir)).ok().filter(|bytes| Digest::of(bytes) == *digest)
}

/// Writes a small blob, whole or not at all.
pub(super) fn write_small(digest: &Digest, bytes: &[u8], dir: &Path) -> Result<(), Problem> {
    let path = digest.path(dir);
    let write = || {
        let folder = path.parent().unwrap_or(dir);
        std::fs::create_dir_all(folder)?;
        // As the others are, and not for their owner alone.
        let mode = std::fs::Permissions::from_mode(0o644);
        let mut file = tempfile::Builder::new().suffix(".partial").permissions(mode).tempfile_in(folder)?;
        io::Write::write_all(&mut file, bytes)?;
        file.persist(&path)?;
        Ok(())
    };
    write().map_err(failed("write", &path))
}

/// One blob to fetch.
pub(super) struct Blob<'a> {
    pub(super) host: &'a Host,
    /// The image by the name that it has there.
    pub(super) at: &'a Reference,
    pub(super) digest: &'a Digest,
    /// Its size in bytes, as the manifest says.
    pub(super) size: u64,
    /// The folder of the layout.
    pub(super) dir: &'a Path,
    pub(super) step: &'a Step,
    pub(super) progress: &'a Progress<'a>,
}

/// What has come of a blob.
struct Partial {
    path: PathBuf,
    file: tokio::fs::File,
    hash: Sha256,
    done: u64,
}

impl Partial {
    /// What is there, whose lock is held.
    async fn read(file: File, path: PathBuf) -> Result<Self, Problem> {
        let wrong = failed("read", &path);
        let read = blocking(move || {
            let (mut file, mut hash) = (file, Sha256::new());
            file.seek(SeekFrom::Start(0))?;
            let done = io::copy(&mut io::BufReader::with_capacity(1 << 20, &mut file), &mut HashWriter(&mut hash))?;
            Ok((file, hash, done))
        });
        let (file, hash, done) = read.await.map_err(wrong)?;
        Ok(Self { path, file: tokio::fs::File::from_std(file), hash, done })
    }

    /// Throws away what is there. The file stays: others may wait for its lock.
    async fn clear(&mut self) -> Result<(), Problem> {
        let clear = async {
            self.file.flush().await?;
            self.file.set_len(0).await?;
            self.file.seek(SeekFrom::Start(0)).await
        };
        clear.await.map_err(failed("empty", &self.path))?;
        (self.hash, self.done) = (Sha256::new(), 0);
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.file.write_all(bytes).await.map_err(failed("write", &self.path))?;
        self.hash.update(bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Blob<'_> {
    /// Has the blob in its file, checked. What is there whole already is not fetched; what has come of it is kept and gone on
    /// from.
    pub(super) async fn fetch(&self) -> Result<(), Problem> {
        let path = self.digest.path(self.dir);
        if self.is_whole(&path).await? {
            self.progress.add(self.size);
            return Ok(());
        }
        let partial = self.digest.partial(self.dir);
        let file = self.lock(&partial).await?;
        // Whoever had the lock before may have got done.
        if self.is_whole(&path).await? {
            self.progress.add(self.size);
            return Ok(());
        }
        let mut partial = Partial::read(file, partial).await?;
        if partial.done > self.size {
            partial.clear().await?;
        }
        self.progress.add(partial.done);
        let (mut resumed, mut furthest) = (0, partial.done);
        while partial.done < self.size {
            let Some(reason) = self.receive(&mut partial).await? else { break };
            let (done, size) = (partial.done, self.size);
            partial.file.flush().await.map_err(failed("write", &partial.path))?;
            if done <= furthest || resumed == RESUMES {
                return Err(Problem::Cut { done, size, reason, resumed });
            }
            (resumed, furthest) = (resumed + 1, done);
            let (digest, host) = (self.digest, self.host.name());
            let note =
                format!("{digest}: {host} cut the connection at {done} of {size} bytes ({reason}); it is resumed");
            self.step.events().note(note);
        }
        partial.file.flush().await.map_err(failed("write", &partial.path))?;
        let seen = Digest { hex: hex::encode(partial.hash.clone().finalize()) };
        if seen != *self.digest {
            self.progress.take_back(partial.done);
            partial.clear().await?;
            let host = self.host.name().to_owned();
            return Err(Problem::Digest { host, seen: seen.to_string(), wanted: self.digest.to_string() });
        }
        std::fs::rename(&partial.path, &path).map_err(failed("rename to", &path))
    }

    async fn is_whole(&self, path: &Path) -> Result<bool, Problem> {
        let (looked, size) = (path.to_owned(), self.size);
        let seen = blocking(move || match looked.metadata() {
            Ok(found) if found.len() == size => hash::of_file(&looked).map(|(_, hex)| Some(hex)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        Ok(seen.await.map_err(failed("read", path))?.is_some_and(|hex| hex == self.digest.hex))
    }

    /// The file for what has come, which only one run has at a time.
    async fn lock(&self, path: &Path) -> Result<File, Problem> {
        let open = || {
            std::fs::create_dir_all(path.parent().unwrap_or(self.dir))?;
            File::options().create(true).truncate(false).read(true).write(true).open(path)
        };
        let file = open().map_err(failed("open", path))?;
        let what = format!("another run that fetches {}", self.digest);
        poll(self.step, &what, LOCK_LIMIT, Duration::from_millis(100), || async {
            match file.try_lock() {
                Ok(()) => Ok(Look::Ready(())),
                Err(TryLockError::WouldBlock) => Ok(Look::NotYet(format!("it holds {}", path.display()))),
                Err(TryLockError::Error(error)) => Err(error),
            }
        })
        .await
        .map_err(|error| Problem::Locked { reason: error.to_string(), path: path.to_owned() })?;
        Ok(file)
    }

    /// Asks for the blob from this byte on.
    async fn ask(&self, from: u64) -> Result<Response, Problem> {
        let range = (from > 0).then(|| HeaderValue::from_str(&format!("bytes={from}-")).ok()).flatten();
        let headers = range.into_iter().map(|range| (RANGE, range)).collect();
        self.host.get(self.at, &format!("blobs/{}", self.digest), headers).await
    }

    /// Asks for what is missing and writes what comes; says why, should it break off.
    async fn receive(&self, partial: &mut Partial) -> Result<Option<String>, Problem> {
        let mut answer = self.ask(partial.done).await;
        let goes_on = answer.as_ref().is_ok_and(|answer| goes_on(answer, partial.done));
        if partial.done > 0 && !goes_on {
            let no_ranges = answer.as_ref().is_ok_and(|answer| answer.status() == StatusCode::OK);
            // What came is of no use where the rest cannot be had; where the registry does not answer, it is.
            if no_ranges
                || matches!(&answer, Ok(_) | Err(Problem::Status { status: StatusCode::RANGE_NOT_SATISFIABLE, .. }))
            {
                self.progress.take_back(partial.done);
                partial.clear().await?;
                if !no_ranges {
                    answer = self.ask(0).await;
                }
            }
        }
        let mut answer = answer?;
        if answer.status() == StatusCode::PARTIAL_CONTENT && !goes_on {
            return Ok(Some("it gives a part that it was not asked for".to_owned()));
        }
        let from = self.host.called(answer.url());
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) => {
                    if partial.done + chunk.len() as u64 > self.size {
                        self.progress.take_back(partial.done);
                        partial.clear().await?;
                        return Err(Problem::TooLong { host: from, limit: self.size });
                    }
                    partial.write(&chunk).await?;
                    self.progress.add(chunk.len() as u64);
                }
                Ok(None) if partial.done == self.size => return Ok(None),
                Ok(None) => return Ok(Some("it ended".to_owned())),
                Err(error) => return Ok(Some(Unanswered::of(&error).into_reason())),
            }
        }
    }
}

/// Whether an answer is the content from this byte on.
fn goes_on(answer: &Response, from: u64) -> bool {
    let range = answer.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
    answer.status() == StatusCode::PARTIAL_CONTENT && range.starts_with(&format!("bytes {from}-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sha256_in_small_letters_is_a_digest() {
        let hex = "0a".repeat(32);
        let good = Digest::parse(&format!("sha256:{hex}")).unwrap();
        assert_eq!(good.path(Path::new("/layout")), Path::new("/layout/blobs/sha256").join(&hex));
        for bad in ["", "sha256:", &hex, &format!("sha512:{hex}"), &format!("sha256:{}", hex.to_uppercase())] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
        let error = Digest::parse("sha256:../../../etc/passwd").unwrap_err();
        assert_eq!(error, "`sha256:../../../etc/passwd` is not `sha256:` and 64 hexadecimal digits");
    }
}
