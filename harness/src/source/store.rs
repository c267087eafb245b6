//! The artifact store: what was built or fetched once is kept under a key made of all that went into it.
//!
//! An artifact is a folder `artifacts/<name>/<key>` with a `MANIFEST.json` that names the checksum of each of its files. It
//! is made in a folder beside and renamed, so it is there whole or not at all. Whoever builds holds the name's lock, whoever
//! uses it holds the key's: a second run waits for the first one's build, and nothing in use is dropped.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    hash,
    paths::Paths,
    run::{
        events::{Events, Step},
        poll::{Look, poll},
    },
};

/// The file that lists an artifact's files.
const MANIFEST: &str = "MANIFEST.json";
/// How many artifacts of one name are kept.
const KEPT: usize = 2;
/// What the folder of a build under way begins with.
const BUILDING: &str = ".building-";
/// How long another run may build one artifact.
const LOCK_LIMIT: Duration = Duration::from_secs(60 * 60);

/// Why an artifact could not be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of the store could not be handled.
    #[error("{doing} {}: {source} (is there free space, and is the cache folder yours?)", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another run kept the lock.
    #[error("wait for another run that builds {artifact}: {reason}; `fuser {}` names the process", lock.display())]
    Locked {
        /// The artifact.
        artifact: String,
        /// How long it was waited for.
        reason: String,
        /// The lock.
        lock: PathBuf,
    },
    /// It would have to be fetched, and nothing may be.
    #[error(
        "{step}: it is not in the cache, and `--offline` lets nothing be fetched; run once without it, or use a bundle"
    )]
    Offline {
        /// What would be done.
        step: String,
    },
    /// What was just built does not read back as it was written.
    #[error("read back {artifact}, just built: {damage}; the disk or the memory is at fault")]
    DamagedAtOnce {
        /// The artifact.
        artifact: String,
        /// The file and what is wrong with it.
        damage: String,
    },
}

impl StoreError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

/// Everything that goes into an artifact, hashed into its key.
#[derive(Debug, Clone)]
pub struct Inputs(Sha256);

impl Inputs {
    /// Nothing yet but the version of the recipe: raise it when the same inputs come to make something else.
    pub fn new(recipe_version: u32) -> Self {
        Self(Sha256::new()).text("recipe", &recipe_version.to_string()).text("arch", std::env::consts::ARCH)
    }

    /// Adds a named text, such as a version.
    #[must_use]
    pub fn text(self, name: &str, value: &str) -> Self {
        self.bytes(name, value.as_bytes())
    }

    /// Adds a file's content, or all files under a folder, by their names within it.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn files(mut self, name: &str, path: &Path) -> Result<Self, StoreError> {
        for (relative, file) in files_under(path)? {
            let content = fs::read(&file).map_err(StoreError::io("read", &file))?;
            self = self.bytes(&format!("{name}/{relative}"), &content);
            let runs = is_executable(&file);
            self = self.text("executable", if runs { "yes" } else { "no" });
        }
        Ok(self)
    }

    fn bytes(mut self, name: &str, value: &[u8]) -> Self {
        // Lengths keep `a` + `bc` apart from `ab` + `c`.
        for part in [name.as_bytes(), value] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// The key: the first 16 hexadecimal digits of the hash.
    pub fn key(self) -> String {
        hex::encode(&self.0.finalize()[..8])
    }
}

/// What to build, and how to speak of it.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The artifact's name, such as `kubernetes`.
    pub name: String,
    /// Its key.
    pub key: String,
    /// What building it is called, such as `build Kubernetes v1.34.4`.
    pub step: String,
    /// How long building it usually takes, on two cores.
    pub usually: Duration,
}

impl Recipe {
    /// The artifact's name and key, as one word.
    pub fn id(&self) -> String {
        format!("{}-{}", self.name, self.key)
    }
}

/// A build under way: where its files go.
#[derive(Debug)]
pub struct Building {
    /// The folder to fill with the artifact's files.
    pub out: PathBuf,
    /// A folder for all else; it is gone afterwards.
    pub scratch: PathBuf,
    /// The build's step.
    pub step: Step,
}

/// An artifact that is there. While one of its clones lives, no run drops it.
#[derive(Debug, Clone)]
pub struct Artifact {
    dir: PathBuf,
    _use: Arc<File>,
}

impl Artifact {
    /// One of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    artifact: String,
    key: String,
    files: BTreeMap<String, FileFacts>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileFacts {
    size: u64,
    sha256: String,
}

/// The artifacts of one cache folder.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    /// Whether nothing may be made that is not there.
    closed: bool,
}

impl Store {
    /// The store of a cache folder.
    pub fn new(paths: &Paths) -> Self {
        Self { root: paths.artifacts(), closed: false }
    }

    /// A store of which nothing is made that is not there: where making it would fetch something, and nothing may be fetched.
    #[must_use]
    pub fn closed(self, closed: bool) -> Self {
        Self { closed, ..self }
    }

    /// The artifact, if it is there and the named files of it (all, where none is named) are as they were built.
    ///
    /// # Errors
    /// The store cannot be read. Damage is no error: it is noted, and the artifact counts as absent.
    pub async fn get(&self, recipe: &Recipe, files: &[&str], events: &Events) -> Result<Option<Artifact>, StoreError> {
        let dir = self.dir(recipe);
        let in_use = match self.hold(recipe) {
            Ok(file) => file,
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let wanted: Vec<String> = files.iter().map(ToString::to_string).collect();
        let looked = dir.clone();
        match blocking(move || verify(&looked, &wanted)).await? {
            Verified::Whole => Ok(Some(Artifact { dir, _use: Arc::new(in_use) })),
            Verified::Absent => Ok(None),
            Verified::Damaged(damage) => {
                events.note(format!("{} in the cache is damaged: {damage}; it is made anew", recipe.id()));
                Ok(None)
            }
        }
    }

    /// The artifact: as it is in the store, else built. `files` are those that will be used and are verified, all where
    /// none is named.
    ///
    /// # Errors
    /// Building fails, or the store cannot be read or written.
    pub async fn ensure<E, B, F>(
        &self,
        recipe: &Recipe,
        files: &[&str],
        events: &Events,
        build: B,
    ) -> Result<Artifact, E>
    where
        E: From<StoreError> + std::fmt::Display,
        B: FnOnce(Building) -> F,
        F: Future<Output = Result<(), E>>,
    {
        if let Some(artifact) = self.get(recipe, files, events).await? {
            return Ok(artifact);
        }
        if self.closed {
            return Err(StoreError::Offline { step: recipe.step.clone() }.into());
        }
        let shelf = self.shelf(recipe);
        fs::create_dir_all(&shelf).map_err(StoreError::io("make", &shelf))?;
        let lock = self.lock(recipe, events).await?;
        // Another run may have built it while this one waited.
        if let Some(artifact) = self.get(recipe, files, &Events::discard()).await? {
            return Ok(artifact);
        }
        let made = events.step_usually(recipe.step.clone(), Some(recipe.usually), |step| async move {
            let work = shelf.join(format!("{BUILDING}{}", recipe.key));
            sweep(&shelf)?;
            let out = work.join("out");
            let scratch = work.join("scratch");
            for dir in [&out, &scratch] {
                fs::create_dir_all(dir).map_err(StoreError::io("make", dir))?;
            }
            let unfinished = RemoveOnDrop(work);
            build(Building { out: out.clone(), scratch, step }).await?;
            let (name, key) = (recipe.name.clone(), recipe.key.clone());
            let written = out.clone();
            blocking(move || write_manifest(&written, &name, &key)).await?;
            let dir = self.dir(recipe);
            remove(&dir)?;
            fs::rename(&out, &dir).map_err(StoreError::io("put in place", &dir))?;
            drop(unfinished);
            Ok::<_, E>(())
        });
        made.await?;
        let in_use = self.hold(recipe)?;
        self.drop_old(recipe, events)?;
        drop(lock);
        let dir = self.dir(recipe);
        let looked = dir.clone();
        match blocking(move || verify(&looked, &[])).await? {
            Verified::Whole => Ok(Artifact { dir, _use: Arc::new(in_use) }),
            Verified::Absent => {
                Err(StoreError::DamagedAtOnce { artifact: recipe.id(), damage: "it is not there".to_owned() }.into())
            }
            Verified::Damaged(damage) => Err(StoreError::DamagedAtOnce { artifact: recipe.id(), damage }.into()),
        }
    }

    /// Whether an artifact of this [`Recipe::id`] is there.
    pub fn has(&self, id: &str) -> bool {
        id.rsplit_once('-').is_some_and(|(name, key)| self.root.join(name).join(key).is_dir())
    }

    fn shelf(&self, recipe: &Recipe) -> PathBuf {
        self.root.join(&recipe.name)
    }

    fn dir(&self, recipe: &Recipe) -> PathBuf {
        self.shelf(recipe).join(&recipe.key)
    }

    /// The right to build artifacts of this name. Only one run has it.
    async fn lock(&self, recipe: &Recipe, events: &Events) -> Result<File, StoreError> {
        let path = self.shelf(recipe).join(".lock");
        let file = open_lock(&path)?;
        if try_lock(&file, &path)? {
            return Ok(file);
        }
        let waited = events.step(format!("wait for another run that builds {}", recipe.name), |step| async move {
            let what = format!("the lock of {}", recipe.name);
            poll(&step, &what, LOCK_LIMIT, Duration::from_millis(250), || async {
                Ok::<_, StoreError>(match try_lock(&file, &path)? {
                    true => Look::Ready(()),
                    false => Look::NotYet("another run holds it".to_owned()),
                })
            })
            .await
            .map_err(|error| StoreError::Locked {
                artifact: recipe.id(),
                reason: error.to_string(),
                lock: path.clone(),
            })?;
            Ok(file)
        });
        waited.await
    }

    /// Marks an artifact as in use, and as used last now.
    fn hold(&self, recipe: &Recipe) -> Result<File, StoreError> {
        let path = self.shelf(recipe).join(format!(".{}.use", recipe.key));
        let file = open_lock(&path)?;
        file.lock_shared().map_err(StoreError::io("lock", &path))?;
        file.set_modified(SystemTime::now()).map_err(StoreError::io("mark as used", &path))?;
        Ok(file)
    }

    /// Drops all artifacts of this name but the ones that were used last, unless some run uses them.
    fn drop_old(&self, recipe: &Recipe, events: &Events) -> Result<(), StoreError> {
        let shelf = self.shelf(recipe);
        let mut found = Vec::new();
        for entry in fs::read_dir(&shelf).map_err(StoreError::io("list", &shelf))? {
            let entry = entry.map_err(StoreError::io("list", &shelf))?;
            let key = entry.file_name().to_string_lossy().into_owned();
            if key.starts_with('.') || key == recipe.key {
                continue;
            }
            let used = shelf.join(format!(".{key}.use"));
            let when = fs::metadata(&used).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            found.push((when, key, used));
        }
        found.sort();
        let surplus = (found.len() + 1).saturating_sub(KEPT);
        for (_, key, used) in found.into_iter().take(surplus) {
            let marker = open_lock(&used)?;
            if try_lock(&marker, &used)? {
                remove(&shelf.join(&key))?;
                remove_file(&used)?;
                events.note(format!("dropped {}-{key} from the cache: newer ones took its place", recipe.name));
            }
        }
        Ok(())
    }
}

/// What a look at an artifact found.
#[derive(Debug, PartialEq, Eq)]
enum Verified {
    Whole,
    Absent,
    Damaged(String),
}

/// Compares an artifact's files with its manifest: those that are named, or all.
fn verify(dir: &Path, wanted: &[String]) -> Result<Verified, StoreError> {
    if !dir.is_dir() {
        return Ok(Verified::Absent);
    }
    let damaged = |file: &str, what: String| Ok(Verified::Damaged(format!("{}: {what}", dir.join(file).display())));
    let text = match fs::read_to_string(dir.join(MANIFEST)) {
        Ok(text) => text,
        Err(error) => return damaged(MANIFEST, error.to_string()),
    };
    let manifest: Manifest = match serde_json::from_str(&text) {
        Ok(manifest) => manifest,
        Err(error) => return damaged(MANIFEST, error.to_string()),
    };
    if let Some(stranger) = wanted.iter().find(|name| !manifest.files.contains_key(*name)) {
        return damaged(stranger, "the manifest does not name it".to_owned());
    }
    for (name, recorded) in &manifest.files {
        if !wanted.is_empty() && !wanted.contains(name) {
            continue;
        }
        match facts(&dir.join(name)) {
            Err(error) => return damaged(name, error.to_string()),
            Ok(seen) if seen.size != recorded.size => {
                return damaged(name, format!("{} bytes, should be {}", seen.size, recorded.size));
            }
            Ok(seen) if seen != *recorded => {
                return damaged(name, format!("its SHA-256 is {}, should be {}", seen.sha256, recorded.sha256));
            }
            Ok(_) => {}
        }
    }
    Ok(Verified::Whole)
}

fn write_manifest(dir: &Path, artifact: &str, key: &str) -> Result<(), StoreError> {
    let mut files = BTreeMap::new();
    for (name, path) in files_under(dir)? {
        files.insert(name, facts(&path).map_err(StoreError::io("read", &path))?);
    }
    let manifest = Manifest { artifact: artifact.to_owned(), key: key.to_owned(), files };
    let path = dir.join(MANIFEST);
    let text = serde_json::to_string_pretty(&manifest).map_err(|error| StoreError::Io {
        doing: "write",
        path: path.clone(),
        source: error.into(),
    })?;
    fs::write(&path, text).map_err(StoreError::io("write", &path))
}

fn facts(path: &Path) -> std::io::Result<FileFacts> {
    hash::of_file(path).map(|(size, sha256)| FileFacts { size, sha256 })
}

/// All files under `root` with their paths relative to it, in order. A file is under itself, by its own name.
fn files_under(root: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    if root.is_file() {
        let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(vec![(name, root.to_owned())]);
    }
    let mut files = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).map_err(StoreError::io("list", &dir))? {
            let path = entry.map_err(StoreError::io("list", &dir))?.path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                files.push((relative, path));
            }
        }
    }
    files.sort();
    Ok(files)
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0)
}

/// Removes what builds that died have left. Only the holder of the name's lock may.
fn sweep(shelf: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(shelf).map_err(StoreError::io("list", shelf))? {
        let path = entry.map_err(StoreError::io("list", shelf))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(BUILDING)) {
            remove(&path)?;
        }
    }
    Ok(())
}

fn remove(dir: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", dir)(error)),
        _ => Ok(()),
    }
}

fn remove_file(path: &Path) -> Result<(), StoreError> {
    fs::remove_file(path).map_err(StoreError::io("remove", path))
}

fn open_lock(path: &Path) -> Result<File, StoreError> {
    File::options().create(true).truncate(false).write(true).open(path).map_err(StoreError::io("open the lock", path))
}

fn try_lock(file: &File, path: &Path) -> Result<bool, StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", path)(error)),
    }
}

/// Reading gigabytes for their checksum would stall everything else that the thread runs.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(StoreError::Io { doing: "read", path: PathBuf::from("the store"), source: std::io::Error::other(error) })
    })
}

/// A build that fails, or is dropped half way, leaves nothing.
struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::run::events::EventKind;

    fn recipe(key: &str) -> Recipe {
        Recipe {
            name: "thing".to_owned(),
            key: key.to_owned(),
            step: "build a thing".to_owned(),
            usually: Duration::from_secs(1),
        }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&Paths::at(dir.path()));
        (dir, store)
    }

    /// Builds the thing, counting how often it is really built.
    async fn ensure(store: &Store, key: &str, events: &Events, built: &AtomicUsize) -> Artifact {
        store
            .ensure::<StoreError, _, _>(&recipe(key), &[], events, |building| async move {
                built.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(50)).await;
                fs::create_dir(building.out.join("bin")).unwrap();
                fs::write(building.out.join("bin/tool"), "the tool").unwrap();
                fs::write(building.out.join("data"), "the data").unwrap();
                Ok(())
            })
            .await
            .unwrap()
    }

    fn notes(receiver: &std::sync::mpsc::Receiver<crate::run::events::Event>) -> Vec<String> {
        let note = |event: crate::run::events::Event| match event.kind {
            EventKind::Note { text } => Some(text),
            _ => None,
        };
        receiver.try_iter().filter_map(note).collect()
    }

    #[tokio::test]
    async fn an_artifact_is_built_once() {
        let (_dir, store) = store();
        let built = AtomicUsize::new(0);
        for _ in 0..2 {
            let artifact = ensure(&store, "k1", &Events::discard(), &built).await;
            assert_eq!(fs::read_to_string(artifact.file("bin/tool")).unwrap(), "the tool");
        }
        assert_eq!(built.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_damaged_artifact_is_named_and_built_anew() {
        let (_dir, store) = store();
        let built = AtomicUsize::new(0);
        type Damage = fn(&Path);
        let damages: [(&str, Damage, &str); 4] = [
            ("bin/tool", |file| fs::write(file, "the fool").unwrap(), "its SHA-256 is"),
            ("bin/tool", |file| fs::write(file, "the to").unwrap(), "6 bytes, should be 8"),
            ("data", |file| fs::remove_file(file).unwrap(), "No such file"),
            (MANIFEST, |file| fs::write(file, "{").unwrap(), "EOF"),
        ];
        for (count, (file, damage, said)) in damages.into_iter().enumerate() {
            let artifact = ensure(&store, "k1", &Events::discard(), &built).await;
            damage(&artifact.file(file));
            let (events, receiver) = Events::channel();
            let artifact = ensure(&store, "k1", &events, &built).await;
            let notes = notes(&receiver);
            assert!(notes.len() == 1 && notes[0].contains(said) && notes[0].contains(file), "{notes:?}");
            assert_eq!(fs::read_to_string(artifact.file("bin/tool")).unwrap(), "the tool");
            assert_eq!(built.load(Ordering::SeqCst), count + 2);
        }
    }

    #[tokio::test]
    async fn only_the_files_that_are_used_are_verified() {
        let (_dir, store) = store();
        let built = AtomicUsize::new(0);
        let artifact = ensure(&store, "k1", &Events::discard(), &built).await;
        fs::write(artifact.file("data"), "damaged!").unwrap();
        let events = Events::discard();
        assert!(store.get(&recipe("k1"), &["bin/tool"], &events).await.unwrap().is_some());
        assert!(store.get(&recipe("k1"), &["data"], &events).await.unwrap().is_none());
        assert!(store.get(&recipe("k1"), &["no-such-file"], &events).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn of_two_runs_at_once_one_builds_and_the_other_waits_and_says_so() {
        let (_dir, store) = store();
        let built = AtomicUsize::new(0);
        let (events, receiver) = Events::channel();
        let artifacts = tokio::join!(ensure(&store, "k1", &events, &built), ensure(&store, "k1", &events, &built));
        assert_eq!(built.load(Ordering::SeqCst), 1);
        assert_eq!(artifacts.0.file("data"), artifacts.1.file("data"));
        let waited = receiver.try_iter().any(|event| match event.kind {
            EventKind::StepStarted { name, .. } => name == "wait for another run that builds thing",
            _ => false,
        });
        assert!(waited);
    }

    #[tokio::test]
    async fn a_build_that_fails_leaves_nothing_and_what_a_dead_one_left_is_swept() {
        let (dir, store) = store();
        let shelf = dir.path().join("artifacts/thing");
        let left = shelf.join(".building-dead/out");
        fs::create_dir_all(&left).unwrap();
        let failed = store
            .ensure::<StoreError, _, _>(&recipe("k1"), &[], &Events::discard(), |building| async move {
                fs::write(building.out.join("half"), "").unwrap();
                Err(StoreError::DamagedAtOnce { artifact: "x".to_owned(), damage: "y".to_owned() })
            })
            .await;
        assert!(failed.is_err());
        let folders = fs::read_dir(&shelf).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
        assert_eq!(folders, 0);
    }

    #[tokio::test]
    async fn the_two_used_last_are_kept_and_those_in_use() {
        let (dir, store) = store();
        let built = AtomicUsize::new(0);
        let in_use = ensure(&store, "k1", &Events::discard(), &built).await;
        for key in ["k2", "k3", "k4"] {
            drop(ensure(&store, key, &Events::discard(), &built).await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(store.has("thing-k1") && !store.has("thing-k2") && !store.has("thing"));
        let there = |key: &str| dir.path().join("artifacts/thing").join(key).exists();
        assert_eq!(["k1", "k2", "k3", "k4"].map(there), [true, false, true, true]);
        drop(in_use);
    }

    #[test]
    fn every_input_changes_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "content").unwrap();
        let base = || Inputs::new(1).text("version", "v1").files("fixture", dir.path()).unwrap();
        let first = base().key();
        assert_eq!(first, base().key());
        assert_eq!(first.len(), 16);
        assert_ne!(Inputs::new(2).text("version", "v1").files("fixture", dir.path()).unwrap().key(), first);
        assert_ne!(base().text("suite", "x").key(), first);
        assert_ne!(Inputs::new(1).text("a", "bc").key(), Inputs::new(1).text("ab", "c").key());
        fs::write(&file, "other").unwrap();
        assert_ne!(base().key(), first);
        fs::rename(&file, dir.path().join("renamed")).unwrap();
        fs::write(dir.path().join("renamed"), "content").unwrap();
        assert_ne!(base().key(), first);
    }
}
