//! The ledger: for each lab a folder that says what the lab has made, written before it is made, so that anything can be
//! cleaned up after a kill.
//!
//! A lab's owner holds the lock on its folder. The kernel gives it up when the owner dies, so a lab whose lock is free is
//! either kept on purpose or dead. Process id and start time are for people: they say whose it was.

use std::{
    fs::{File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    nearest::{self, did_you_mean},
    paths::Paths,
};

/// The label, with the lab's id as its value, of every container, network and volume that Drydock makes itself.
pub const LAB_LABEL: &str = "io.drydock.lab";

const FILE: &str = "ledger.json";

/// Why the ledger could not be kept or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// There is a lab of this name.
    #[error("create the lab {lab}: {} exists; choose another name, or remove it with `cargo xtask gc`", dir.display())]
    Exists {
        /// The lab's id.
        lab: String,
        /// Its folder.
        dir: PathBuf,
    },
    /// There is no such lab.
    #[error("open the lab {lab}: there is no {}{suggestion} (there are: {known})", dir.display())]
    NoSuchLab {
        /// The lab's id.
        lab: String,
        /// Its folder.
        dir: PathBuf,
        /// `; did you mean …?`, or nothing.
        suggestion: String,
        /// All that there are, as a list.
        known: String,
    },
    /// Somebody uses the lab.
    #[error("open the lab {lab}: it is in use{}", by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default())]
    InUse {
        /// The lab's id.
        lab: String,
        /// Who, where the ledger can be read.
        by: Option<Owner>,
    },
    /// The id cannot be a folder's and a Docker object's name.
    #[error(
        "create the lab `{lab}`: an id has 1 to 40 lower-case letters, digits and `-`, and begins with a letter or digit"
    )]
    BadId {
        /// What was asked for.
        lab: String,
    },
    /// The ledger is not what this version writes.
    #[error("read the ledger {}: {why}; nothing of this lab was touched", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file could not be dealt with.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// The process that made or last used a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its id.
    pub pid: u32,
    /// When it started, in clock ticks after the boot: a process that has its id later has another.
    pub started: u64,
}

impl Owner {
    /// This process.
    fn own() -> Self {
        let pid = std::process::id();
        Self { pid, started: start_time(pid).unwrap_or_default() }
    }

    /// Whether the process lives.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {}{}", self.pid, if self.is_alive() { "" } else { ", which has ended" })
    }
}

/// Field 22 of `/proc/<pid>/stat`. The second field, the program's name, may hold spaces and brackets.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// A thing that a lab has made or is about to make.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Thing {
    /// A kind cluster: its node containers.
    Cluster {
        /// Its name.
        name: String,
    },
    /// A Docker network.
    Network {
        /// Its name.
        name: String,
    },
    /// A Docker container.
    Container {
        /// Its name.
        name: String,
    },
    /// A Docker volume.
    Volume {
        /// Its name.
        name: String,
    },
    /// A folder outside the lab's own.
    Folder {
        /// Its absolute path.
        path: PathBuf,
    },
    /// The lab's hold on the private engine.
    EngineHold,
    /// What was changed in a cluster that was there before; a file in the lab's folder says what that was like.
    Guest {
        /// The context's name.
        context: String,
        /// The API server's address.
        server: String,
    },
}

/// What the ledger says of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The form of this file.
    pub schema: u32,
    /// The lab's id.
    pub lab: String,
    /// The kind cluster's name.
    pub cluster: String,
    /// The engine's address.
    pub docker_host: String,
    /// The lab's Docker network.
    pub network: String,
    /// Whose it is.
    pub owner: Owner,
    /// Whether it outlives its owner (`up`).
    pub keep: bool,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// What it has made, in that order.
    pub things: Vec<Thing>,
}

impl Record {
    /// Whether the lab is in a cluster that was there before.
    pub fn is_guest(&self) -> bool {
        self.things.iter().any(|thing| matches!(thing, Thing::Guest { .. }))
    }
}

/// What is known of a lab before it makes anything.
#[derive(Debug, Clone)]
pub struct NewLab {
    /// The lab's id.
    pub lab: String,
    /// The kind cluster's name.
    pub cluster: String,
    /// The engine's address.
    pub docker_host: String,
    /// The lab's Docker network.
    pub network: String,
    /// Whether it outlives its owner.
    pub keep: bool,
}

/// A lab's ledger, locked for as long as this lives.
#[derive(Debug)]
pub struct Ledger {
    dir: PathBuf,
    record: Record,
    _lock: File,
}

/// What a lab is to someone else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabState {
    /// A run has it.
    Live,
    /// Nobody has it, and it was kept on purpose.
    Kept,
    /// Its owner has ended without cleaning up.
    Dead,
}

/// A lab as found on the disk.
#[derive(Debug)]
pub struct Listed {
    /// The lab's id.
    pub lab: String,
    /// Its folder.
    pub dir: PathBuf,
    /// What it is. A lab without a ledger that can be read is dead unless it is locked.
    pub state: LabState,
    /// What its ledger says. A lab whose owner was killed before the first word has none.
    pub record: Result<Record, LedgerError>,
}

impl Ledger {
    /// Makes a lab's folder and ledger.
    ///
    /// # Errors
    /// There is a lab of this id, or the id is no good.
    pub fn create(paths: &Paths, new: NewLab) -> Result<Self, LedgerError> {
        if !is_good_id(&new.lab) {
            return Err(LedgerError::BadId { lab: new.lab });
        }
        let _all = lock_all(paths)?;
        let dir = paths.labs().join(&new.lab);
        match std::fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(LedgerError::Exists { lab: new.lab, dir });
            }
            made => made.map_err(io_error("create", &dir))?,
        }
        let lock = lock_lab(&dir)?.ok_or_else(|| LedgerError::InUse { lab: new.lab.clone(), by: None })?;
        let record = Record {
            schema: 1,
            lab: new.lab,
            cluster: new.cluster,
            docker_host: new.docker_host,
            network: new.network,
            owner: Owner::own(),
            keep: new.keep,
            created: Utc::now(),
            things: Vec::new(),
        };
        let ledger = Self { dir, record, _lock: lock };
        ledger.write()?;
        Ok(ledger)
    }

    /// Takes over a lab that nobody has: one that was kept, or a dead one.
    ///
    /// # Errors
    /// There is none, or somebody has it, or its ledger cannot be read.
    pub fn open(paths: &Paths, lab: &str) -> Result<Self, LedgerError> {
        let dir = paths.labs().join(lab);
        if !is_good_id(lab) || !dir.is_dir() {
            let labs: Vec<String> = list(paths)?.into_iter().map(|listed| listed.lab).collect();
            return Err(LedgerError::NoSuchLab {
                lab: lab.to_owned(),
                dir,
                suggestion: did_you_mean(lab, labs.iter().map(String::as_str)),
                known: nearest::list(labs.iter().map(String::as_str)),
            });
        }
        let _all = lock_all(paths)?;
        let Some(lock) = lock_lab(&dir)? else {
            return Err(LedgerError::InUse { lab: lab.to_owned(), by: read(&dir).ok().map(|record| record.owner) });
        };
        let record = Record { owner: Owner::own(), ..read(&dir)? };
        let ledger = Self { dir, record, _lock: lock };
        ledger.write()?;
        Ok(ledger)
    }

    /// What the ledger says.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The lab's folder: kubeconfig, work files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes down what is about to be made. When this returns it is on the disk.
    ///
    /// # Errors
    /// It could not be written; then the thing must not be made.
    pub fn add(&mut self, thing: Thing) -> Result<(), LedgerError> {
        if !self.record.things.contains(&thing) {
            self.record.things.push(thing);
            self.write()?;
        }
        Ok(())
    }

    /// Whether the lab is in a cluster that was there before.
    pub fn is_guest(&self) -> bool {
        self.record.is_guest()
    }

    /// Strikes out what is gone.
    ///
    /// # Errors
    /// It could not be written.
    pub fn strike(&mut self, thing: &Thing) -> Result<(), LedgerError> {
        self.record.things.retain(|other| other != thing);
        self.write()
    }

    /// Says whether the lab outlives its owner.
    ///
    /// # Errors
    /// It could not be written.
    pub fn keep(&mut self, keep: bool) -> Result<(), LedgerError> {
        self.record.keep = keep;
        self.write()
    }

    /// Removes the lab's folder, once all that it has made is gone.
    ///
    /// # Errors
    /// It could not be removed.
    pub fn remove(self) -> Result<(), LedgerError> {
        remove_dir(&self.dir)
    }

    fn write(&self) -> Result<(), LedgerError> {
        let path = self.dir.join(FILE);
        let write = || -> io::Result<()> {
            let mut temp = tempfile::NamedTempFile::new_in(&self.dir)?;
            serde_json::to_writer_pretty(&mut temp, &self.record)?;
            temp.write_all(b"\n")?;
            temp.as_file().sync_all()?;
            temp.persist(&path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(io_error("write", &path))
    }
}

/// All labs of a cache, by id.
///
/// # Errors
/// The folder of the labs cannot be read.
pub fn list(paths: &Paths) -> Result<Vec<Listed>, LedgerError> {
    let labs = paths.labs();
    if !labs.is_dir() {
        return Ok(Vec::new());
    }
    let _all = lock_all(paths)?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&labs).map_err(io_error("list", &labs))? {
        let dir = entry.map_err(io_error("list", &labs))?.path();
        let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !is_good_id(&name) || !dir.is_dir() {
            continue;
        }
        let is_free = lock_lab(&dir)?.is_some();
        let record = read(&dir);
        let state = match &record {
            _ if !is_free => LabState::Live,
            Ok(record) if record.keep => LabState::Kept,
            _ => LabState::Dead,
        };
        found.push(Listed { lab: name, dir, state, record });
    }
    found.sort_by(|one, other| one.lab.cmp(&other.lab));
    Ok(found)
}

/// Removes a lab's folder that has no ledger: its owner was killed before it had made anything.
pub(super) fn remove_empty(paths: &Paths, lab: &str) -> Result<(), LedgerError> {
    let _all = lock_all(paths)?;
    let dir = paths.labs().join(lab);
    match lock_lab(&dir)? {
        Some(_lock) if !dir.join(FILE).exists() => remove_dir(&dir),
        _ => Err(LedgerError::InUse { lab: lab.to_owned(), by: None }),
    }
}

/// Removes a lab's folder whoever has it.
pub(super) fn remove_anyway(dir: &Path) -> Result<(), LedgerError> {
    remove_dir(dir)
}

fn remove_dir(dir: &Path) -> Result<(), LedgerError> {
    std::fs::remove_dir_all(dir).map_err(io_error("remove", dir))
}

fn is_good_id(lab: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    lab.len() <= 40 && lab.bytes().next().is_some_and(good) && lab.bytes().all(|byte| good(byte) || byte == b'-')
}

fn read(dir: &Path) -> Result<Record, LedgerError> {
    let path = dir.join(FILE);
    let bytes = std::fs::read(&path).map_err(io_error("read", &path))?;
    let record: Record = serde_json::from_slice(&bytes)
        .map_err(|error| LedgerError::Damaged { path: path.clone(), why: error.to_string() })?;
    if record.schema != 1 || dir.file_name().is_none_or(|name| name.to_string_lossy() != record.lab) {
        let why = format!("it is of schema {} and of the lab {}", record.schema, record.lab);
        return Err(LedgerError::Damaged { path, why });
    }
    Ok(record)
}

/// Held for moments only, so that no lab appears, changes hands or vanishes between two looks.
fn lock_all(paths: &Paths) -> Result<File, LedgerError> {
    let labs = paths.labs();
    std::fs::create_dir_all(&labs).map_err(io_error("create", &labs))?;
    let path = labs.join(".lock");
    let file = open_lock(&path)?;
    file.lock().map_err(io_error("lock", &path))?;
    Ok(file)
}

/// The lock on a lab, if nobody has it.
fn lock_lab(dir: &Path) -> Result<Option<File>, LedgerError> {
    let path = dir.join("lock");
    let file = open_lock(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}

fn open_lock(path: &Path) -> Result<File, LedgerError> {
    let open = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path);
    open.map_err(io_error("open", path))
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LedgerError {
    let path = path.to_owned();
    move |source| LedgerError::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path());
        (dir, paths)
    }

    fn new(lab: &str) -> NewLab {
        NewLab {
            lab: lab.into(),
            cluster: format!("drydock-{lab}"),
            docker_host: "unix:///x.sock".into(),
            network: format!("drydock-{lab}"),
            keep: false,
        }
    }

    fn states(paths: &Paths) -> Vec<(String, LabState)> {
        list(paths).unwrap().into_iter().map(|lab| (lab.lab, lab.state)).collect()
    }

    #[test]
    fn what_is_added_is_on_the_disk_at_once() {
        let (_dir, paths) = paths();
        let mut ledger = Ledger::create(&paths, new("one")).unwrap();
        ledger.add(Thing::Cluster { name: "drydock-one".into() }).unwrap();
        ledger.add(Thing::EngineHold).unwrap();
        ledger.add(Thing::EngineHold).unwrap();
        let on_disk = read(ledger.dir()).unwrap();
        assert_eq!(on_disk.things, [Thing::Cluster { name: "drydock-one".into() }, Thing::EngineHold]);
        assert_eq!(&on_disk, ledger.record());
        ledger.strike(&Thing::EngineHold).unwrap();
        assert_eq!(read(ledger.dir()).unwrap().things.len(), 1);
        ledger.remove().unwrap();
        assert_eq!(states(&paths), []);
    }

    #[test]
    fn a_lab_is_live_while_its_owner_has_it_and_dead_or_kept_after() {
        let (_dir, paths) = paths();
        let mut ledger = Ledger::create(&paths, new("one")).unwrap();
        assert_eq!(states(&paths), [("one".into(), LabState::Live)]);
        assert!(matches!(Ledger::open(&paths, "one"), Err(LedgerError::InUse { by: Some(_), .. })));
        assert!(matches!(Ledger::create(&paths, new("one")), Err(LedgerError::Exists { .. })));
        ledger.keep(true).unwrap();
        drop(ledger);
        assert_eq!(states(&paths), [("one".into(), LabState::Kept)]);
        Ledger::open(&paths, "one").unwrap().keep(false).unwrap();
        assert_eq!(states(&paths), [("one".into(), LabState::Dead)]);
    }

    #[test]
    fn a_damaged_ledger_is_an_error_and_its_lab_is_listed() {
        let (_dir, paths) = paths();
        let ledger = Ledger::create(&paths, new("one")).unwrap();
        std::fs::write(ledger.dir().join(FILE), "{").unwrap();
        drop(ledger);
        let labs = list(&paths).unwrap();
        assert_eq!(labs[0].state, LabState::Dead);
        assert!(matches!(labs[0].record, Err(LedgerError::Damaged { .. })));
        assert!(matches!(Ledger::open(&paths, "one"), Err(LedgerError::Damaged { .. })));
    }

    #[test]
    fn an_id_that_leads_elsewhere_is_refused() {
        let (_dir, paths) = paths();
        for id in ["", "..", "a/b", "A", "-a", &"a".repeat(41)] {
            assert!(matches!(Ledger::create(&paths, new(id)), Err(LedgerError::BadId { .. })), "{id}");
            assert!(matches!(Ledger::open(&paths, id), Err(LedgerError::NoSuchLab { .. })), "{id}");
        }
    }

    #[test]
    fn a_lab_that_is_not_there_is_told_with_one_that_is_called_alike() {
        let (dir, paths) = paths();
        let _ledger = Ledger::create(&paths, new("drydock")).unwrap();
        let error = Ledger::open(&paths, "drydcok").unwrap_err().to_string();
        let error = error.replace(&dir.path().display().to_string(), "CACHE");
        let end = "there is no CACHE/labs/drydcok; did you mean `drydock`? (there are: drydock)";
        assert_eq!(error, format!("open the lab drydcok: {end}"));
    }

    #[test]
    fn a_process_is_told_from_a_later_one_of_the_same_id() {
        let own = Owner::own();
        assert!(own.is_alive());
        assert!(!Owner { started: own.started + 1, ..own }.is_alive());
        assert!(!Owner { pid: u32::MAX, started: 0 }.is_alive());
    }

    #[test]
    fn the_form_of_the_ledger() {
        let record = Record {
            schema: 1,
            lab: "one".into(),
            cluster: "drydock-one".into(),
            docker_host: "unix:///x.sock".into(),
            network: "drydock-one".into(),
            owner: Owner { pid: 1, started: 2 },
            keep: false,
            created: DateTime::UNIX_EPOCH,
            things: vec![Thing::Cluster { name: "drydock-one".into() }, Thing::Folder { path: "/x".into() }],
        };
        insta::assert_json_snapshot!(record);
    }
}
