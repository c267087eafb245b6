//! Checks before anything is created. Looking and judging are apart: what is judged here is numbers and text.

use std::{fmt, io, net::Ipv4Addr, path::Path};

use bollard::query_parameters::ListContainersOptionsBuilder;
use serde::Serialize;

use super::{
    engine::{Engine, EngineError, caps::Bounding, programs},
    gc::KIND_LABEL,
    ledger::{self, Listed},
};
use crate::{
    paths::Paths,
    source::{self, Pins, SourceKind},
};

const GIB: u64 = 1 << 30;

/// Free disk for a first run, in bytes: Go's caches and sources (about 6 GB), root file systems and images while they are
/// assembled (about 3 GB), a lab (about 3 GB).
pub const DISK_COLD: u64 = 12 * GIB;
/// Free disk when everything is built, in bytes: three nodes' own layers, Harbor's volumes, evidence.
pub const DISK_WARM: u64 = 4 * GIB;
/// Available memory for one lab, in bytes: a control plane, three kubelets and Harbor settle at about 2.5 GB.
pub const MEMORY: u64 = 3 * GIB;
/// Instances of one lab: three nodes' systemd, kubelet and containerd have 73.
const INOTIFY_INSTANCES: u64 = 80;
const INOTIFY: &str = "/proc/sys/fs/inotify";
const MAX_INSTANCES: &str = "max_user_instances";
/// Watches of one lab.
const INOTIFY_WATCHES: u64 = 65_536;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// A lab may work.
    Warn,
    /// A lab cannot work.
    Fail,
}

/// One check and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it came out.
    pub outcome: Outcome,
    /// What was seen.
    pub seen: String,
    /// What to do about it, unless it is fine.
    pub remedy: Option<String>,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.seen)?;
        self.remedy.as_ref().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}

impl Check {
    pub(super) fn ok(name: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { name: name.into(), outcome: Outcome::Ok, seen: seen.into(), remedy: None }
    }

    pub(super) fn not(
        outcome: Outcome,
        name: impl Into<String>,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name: name.into(), outcome, seen: seen.into(), remedy: Some(remedy.into()) }
    }
}

/// Why nothing was created.
#[derive(Debug, thiserror::Error)]
#[error("check this machine before creating anything: {}; nothing was created", join(.0))]
pub struct Refused(
    /// The checks that failed.
    pub Vec<Check>,
);

fn join(checks: &[Check]) -> String {
    checks.iter().map(ToString::to_string).collect::<Vec<_>>().join("; and ")
}

/// What the lab to come wants.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Whether something has still to be built or fetched.
    pub cold: bool,
    /// The ports of 127.0.0.1 that it publishes.
    pub ports: Vec<u16>,
    /// The kind cluster's name.
    pub cluster: Option<String>,
    /// How many labs there will be at once.
    pub labs: usize,
}

/// Labs of one run at once, at most: more wait for the disk.
const MOST_LABS: u64 = 4;

/// How many labs fit this machine side by side, one for each core as far as memory goes, and as far as inotify instances go
/// unless their limit `may_rise`. At least one: whether that fits is for [`checks`] to say.
pub fn labs_that_fit(may_rise: bool) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_memory(&text));
    let free = match read_number(MAX_INSTANCES) {
        Some(limit) if !may_rise => Some(limit.saturating_sub(instances_in_use(Path::new("/proc")))),
        _ => None,
    };
    fit(cores, available, free)
}

/// `cores` processors, bytes of memory and inotify instances; what is not known does not limit.
fn fit(cores: u64, memory: Option<u64>, instances: Option<u64>) -> usize {
    let memory = memory.map_or(MOST_LABS, |memory| memory / MEMORY);
    let instances = instances.map_or(MOST_LABS, |instances| instances / INOTIFY_INSTANCES);
    let labs = cores.min(memory).min(instances).clamp(1, MOST_LABS);
    usize::try_from(labs).unwrap_or(1)
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Makes all checks. Without an engine those that need one are left out: its own check says why.
pub async fn checks(engine: Result<&Engine, &EngineError>, paths: &Paths, wanted: &Wanted) -> Vec<Check> {
    let mut checks = vec![judge_engine(engine)];
    let need = if wanted.cold { DISK_COLD } else { DISK_WARM };
    checks.push(judge_disk("free disk for the cache", paths.cache(), free_disk(paths.cache()), need));
    if let Ok(engine) = engine
        && engine.info().local
        && engine.info().data_root.exists()
    {
        let root = &engine.info().data_root;
        checks.push(judge_disk("free disk for the engine's data", root, free_disk(root), need));
    }
    let labs = wanted.labs.max(1) as u64;
    checks.push(judge_memory(std::fs::read_to_string("/proc/meminfo"), labs));
    let instances = Instances { limit: read_number(MAX_INSTANCES), used: instances_in_use(Path::new("/proc")), labs };
    checks.push(judge_inotify(&instances, read_number("max_user_watches")));
    checks.push(judge_cgroups(cgroup_v2(), Path::new("/sys/fs/cgroup/unified").exists()));
    checks.push(judge_capabilities(Bounding::own()));
    let any = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(drop);
    checks.push(judge_any_port(any));
    for &port in &wanted.ports {
        let bound = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        checks.push(judge_port(port, bound.map(drop)));
    }
    if let (Ok(engine), Some(cluster)) = (engine, &wanted.cluster) {
        let labs = ledger::list(paths).map_err(|error| error.to_string());
        checks.push(judge_cluster(cluster, nodes_of(engine, cluster).await, labs));
    }
    checks
}

/// Looks for the programs of this machine that labs from this source are made with.
pub async fn tools(kind: SourceKind, paths: &Paths, pins: &Pins) -> Check {
    let needs = source::needs(kind);
    let missing: Vec<&str> = needs.iter().filter(|name| programs::find(name).is_none()).copied().collect();
    let go = match kind {
        SourceKind::Packages => Some(source::go(paths, pins).await),
        SourceKind::Upstream | SourceKind::Bundle => None,
    };
    let root = rustix::process::geteuid().is_root();
    judge_tools(&needs, &missing, go, kind != SourceKind::Packages || root)
}

/// Refuses if any check failed.
///
/// # Errors
/// One failed.
pub fn refuse_on_failure(checks: &[Check]) -> Result<(), Refused> {
    let failed: Vec<Check> = checks.iter().filter(|check| check.outcome == Outcome::Fail).cloned().collect();
    if failed.is_empty() { Ok(()) } else { Err(Refused(failed)) }
}

/// Free space for this user where `path` is or will be, in bytes.
fn free_disk(path: &Path) -> io::Result<u64> {
    let there = path.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let disk = rustix::fs::statvfs(there)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn read_number(name: &str) -> Option<u64> {
    std::fs::read_to_string(Path::new(INOTIFY).join(name)).ok()?.trim().parse().ok()
}

async fn nodes_of(engine: &Engine, cluster: &str) -> Result<Vec<String>, String> {
    let label = format!("{KIND_LABEL}={cluster}");
    let filters = std::collections::HashMap::from([("label", vec![label])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let nodes = engine.docker().list_containers(Some(options)).await.map_err(|error| error.to_string())?;
    let name = |names: Vec<String>| names.first().map(|name| name.trim_start_matches('/').to_owned());
    Ok(nodes.into_iter().filter_map(|node| node.names.and_then(name)).collect())
}

fn gib(bytes: u64) -> String {
    // Tenths, rounded down: what is shown as enough is enough.
    let tenths = bytes / (GIB / 10);
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

fn judge_engine(engine: Result<&Engine, &EngineError>) -> Check {
    match engine {
        Ok(engine) => {
            let info = engine.info();
            let seen = format!(
                "{} (API {}) at {}, storage driver {}, cgroup v{} by {}{}{}",
                info.version,
                info.api,
                info.host,
                info.storage_driver,
                info.cgroup_version,
                info.cgroup_driver,
                if info.private { ", private" } else { "" },
                if info.restricted { ", without CAP_SYS_RESOURCE" } else { "" },
            );
            Check::ok("Docker engine", seen)
        }
        Err(error) => {
            // An error's last part is what to do.
            let words = error.to_string();
            let (seen, remedy) = match words.rsplit_once("; ") {
                Some((seen, remedy)) => (seen.to_owned(), Some(remedy.to_owned())),
                None => (words, None),
            };
            Check { name: "Docker engine".into(), outcome: Outcome::Fail, seen, remedy }
        }
    }
}

/// What a private engine and the nodes in it need; an engine that runs already has its own.
fn judge_capabilities(own: io::Result<Bounding>) -> Check {
    const NAME: &str = "capabilities";
    let own = match own {
        Ok(own) => own,
        Err(error) => return Check::not(Outcome::Warn, NAME, error.to_string(), "make sure that /proc can be read"),
    };
    let lacks: Vec<&str> =
        ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"].into_iter().filter(|name| !own.may_ask_for(name)).collect();
    if !lacks.is_empty() {
        let seen = format!("{} cannot be had here", lacks.join(" and "));
        let remedy = "no private engine can be started: use an engine that runs outside (DOCKER_HOST), or give this container more";
        return Check::not(Outcome::Warn, NAME, seen, remedy);
    }
    let without =
        if own.is_restricted() { ", but CAP_SYS_RESOURCE: nodes of a private engine do without it" } else { "" };
    Check::ok(NAME, format!("what nodes need{without}"))
}

fn judge_tools(needs: &[&str], missing: &[&str], go: Option<Result<String, String>>, root: bool) -> Check {
    const NAME: &str = "tools";
    let (go, no_go) = match go {
        Some(Ok(version)) => (format!(", Go {version}"), None),
        Some(Err(error)) => (String::new(), Some(error)),
        None => (String::new(), None),
    };
    let mut seen = Vec::new();
    let mut remedies = Vec::new();
    if !missing.is_empty() {
        seen.push(format!("{} not found", missing.join(", ")));
        remedies.push("install what is not found and put it on the PATH".to_owned());
    }
    if let Some(error) = no_go {
        let (what, remedy) = error.split_once("; ").unwrap_or((&error, "install a newer one"));
        seen.push(what.to_owned());
        remedies.push(remedy.to_owned());
    }
    if !root {
        seen.push("this is not root".to_owned());
        remedies.push("run as root: the packages source unpacks root file systems".to_owned());
    }
    if seen.is_empty() {
        return Check::ok(NAME, format!("{}{go}", needs.join(", ")));
    }
    Check::not(Outcome::Fail, NAME, seen.join("; "), remedies.join("; "))
}

fn judge_disk(name: &str, path: &Path, free: io::Result<u64>, need: u64) -> Check {
    match free {
        Ok(free) if free >= need => Check::ok(name, format!("{} at {}", gib(free), path.display())),
        Ok(free) => Check::not(
            Outcome::Fail,
            name,
            format!("{} at {}, and {} are needed", gib(free), path.display(), gib(need)),
            "free some, or set DRYDOCK_CACHE to a folder on a larger disk",
        ),
        Err(error) => {
            Check::not(Outcome::Warn, name, format!("{}: {error}", path.display()), "make sure that it can be read")
        }
    }
}

fn judge_memory(meminfo: io::Result<String>, labs: u64) -> Check {
    let need = MEMORY * labs;
    const NAME: &str = "available memory";
    match meminfo.map(|text| available_memory(&text)) {
        Ok(Some(free)) if free >= need => Check::ok(NAME, gib(free)),
        Ok(Some(free)) => Check::not(
            Outcome::Fail,
            NAME,
            format!("{}, and {labs} lab(s) need {}", gib(free), gib(need)),
            "end other programs or labs (`cargo xtask down`)",
        ),
        _ => Check::not(Outcome::Warn, NAME, "/proc/meminfo does not say", format!("a lab needs {}", gib(MEMORY))),
    }
}

/// The inotify instances of this user: what is there, and what is wanted of it.
struct Instances {
    limit: Option<u64>,
    used: u64,
    labs: u64,
}

impl Instances {
    fn short(&self) -> bool {
        self.limit.is_some_and(|limit| limit < self.used + self.labs * INOTIFY_INSTANCES)
    }

    fn wanted(&self) -> u64 {
        (self.used + self.labs * INOTIFY_INSTANCES).next_power_of_two()
    }
}

/// Raises the limit of inotify instances where it is too low for `labs` more labs, and tells what was done. It holds until this
/// machine starts anew.
///
/// # Errors
/// The limit cannot be written.
pub fn raise_inotify_instances(labs: usize) -> io::Result<Option<String>> {
    let instances = Instances {
        limit: read_number(MAX_INSTANCES),
        used: instances_in_use(Path::new("/proc")),
        labs: labs.max(1) as u64,
    };
    if !instances.short() {
        return Ok(None);
    }
    let wanted = instances.wanted();
    std::fs::write(Path::new(INOTIFY).join(MAX_INSTANCES), wanted.to_string())?;
    let before = instances.limit.unwrap_or_default();
    Ok(Some(format!("raised fs.inotify.{MAX_INSTANCES} from {before} to {wanted}, until this machine starts anew")))
}

/// How many inotify instances the processes of root have: nodes' processes are root's.
fn instances_in_use(proc: &Path) -> u64 {
    let processes = std::fs::read_dir(proc).into_iter().flatten().flatten();
    let own = processes.filter(|process| {
        let status = std::fs::read_to_string(process.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("Uid:\t0\t"))
    });
    let files = own.flat_map(|process| std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten());
    files
        .filter(|file| std::fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == "anon_inode:inotify"))
        .count() as u64
}

fn judge_inotify(instances: &Instances, watches: Option<u64>) -> Check {
    const NAME: &str = "inotify limits";
    let show = |number: Option<u64>| number.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
    let Instances { limit, used, labs } = instances;
    let seen = format!("{} instances, {used} in use, {} watches", show(*limit), show(watches));
    let few_watches = watches.is_some_and(|watches| watches < INOTIFY_WATCHES);
    if !instances.short() && !few_watches {
        return Check::ok(NAME, seen);
    }
    let remedy = format!(
        "{labs} lab(s) need {} instances more, or kubelets fail with \"too many open files\": --provision raises the limit, or \
         sysctl fs.inotify.max_user_instances={} fs.inotify.max_user_watches={}",
        labs * INOTIFY_INSTANCES,
        instances.wanted(),
        INOTIFY_WATCHES * 8
    );
    Check::not(if instances.short() { Outcome::Fail } else { Outcome::Warn }, NAME, seen, remedy)
}

/// `unified`: version 2 alone at the root; `hybrid`: version 2 beside version 1 controllers.
/// Whether this machine has cgroup v2 alone.
pub(super) fn cgroup_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn judge_cgroups(unified: bool, hybrid: bool) -> Check {
    const NAME: &str = "cgroups";
    if unified {
        return Check::ok(NAME, "version 2");
    }
    let seen = if hybrid { "version 1 with a hybrid version 2 mount" } else { "version 1" };
    Check::ok(NAME, format!("{seen}; every pinned Kubernetes runs on it, 1.35 and newer would not as they are"))
}

/// The API server of a lab is published on a port that is free then; Harbor's is on the lab's own network.
fn judge_any_port(bound: io::Result<()>) -> Check {
    const NAME: &str = "ports";
    match bound {
        Ok(()) => Check::ok(NAME, "a free one can be had on 127.0.0.1; none is fixed"),
        Err(error) => Check::not(
            Outcome::Fail,
            NAME,
            format!("none can be had on 127.0.0.1: {error}"),
            "see that the interface lo is up (`ip link set lo up`) and that not every port is in use",
        ),
    }
}

fn judge_port(port: u16, bound: io::Result<()>) -> Check {
    let name = format!("port {port}");
    match bound {
        Ok(()) => Check::ok(name, "free on 127.0.0.1"),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Check::not(
            Outcome::Fail,
            name,
            "in use on 127.0.0.1",
            format!("end what listens there (`ss -ltnp 'sport = :{port}'` says what), or choose another port"),
        ),
        Err(error) => Check::not(Outcome::Fail, name, error.to_string(), "choose another port"),
    }
}

fn judge_cluster(cluster: &str, nodes: Result<Vec<String>, String>, labs: Result<Vec<Listed>, String>) -> Check {
    let name = format!("cluster name {cluster}");
    let (nodes, labs) = match (nodes, labs) {
        (Ok(nodes), Ok(labs)) => (nodes, labs),
        (Err(error), _) | (_, Err(error)) => {
            return Check::not(Outcome::Fail, name, error, "without an answer it is not known whose that cluster is");
        }
    };
    let lab = labs.iter().find(|lab| lab.record.as_ref().is_ok_and(|record| record.cluster == cluster));
    match lab {
        Some(lab) => Check::not(
            Outcome::Fail,
            name,
            format!("the lab {} has it ({:?})", lab.lab, lab.state).to_lowercase(),
            "end that lab (`cargo xtask down`, or `cargo xtask gc` if its run was killed)",
        ),
        None if !nodes.is_empty() => Check::not(
            Outcome::Fail,
            name,
            format!("a kind cluster of this name exists that is not Drydock's (nodes {})", nodes.join(", ")),
            "it is left alone; choose another name, or delete it yourself",
        ),
        None => Check::ok(name, "free"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rstest::rstest;

    use super::*;
    use crate::lab::ledger::{LabState, LedgerError};

    #[rstest]
    #[case(Ok(12 * GIB), Outcome::Ok)]
    #[case(Ok(12 * GIB - 1), Outcome::Fail)]
    #[case(Err(io::ErrorKind::NotFound.into()), Outcome::Warn)]
    fn disk(#[case] free: io::Result<u64>, #[case] expected: Outcome) {
        assert_eq!(judge_disk("disk", Path::new("/x"), free, DISK_COLD).outcome, expected);
    }

    #[rstest]
    #[case("MemTotal: 9 kB\nMemAvailable:    3145728 kB\n", Outcome::Ok)]
    #[case("MemAvailable:    3145727 kB\n", Outcome::Fail)]
    #[case("MemTotal: 9 kB\n", Outcome::Warn)]
    fn memory(#[case] meminfo: &str, #[case] expected: Outcome) {
        assert_eq!(judge_memory(Ok(meminfo.to_owned()), 1).outcome, expected);
    }

    #[rstest]
    #[case(Some(128), 0, 1, Some(1_048_576), Outcome::Ok)]
    #[case(Some(128), 49, 1, Some(1_048_576), Outcome::Fail)]
    #[case(Some(128), 0, 2, Some(1_048_576), Outcome::Fail)]
    #[case(Some(128), 0, 1, Some(8192), Outcome::Warn)]
    #[case(None, 500, 1, None, Outcome::Ok)]
    fn inotify(
        #[case] limit: Option<u64>,
        #[case] used: u64,
        #[case] labs: u64,
        #[case] watches: Option<u64>,
        #[case] expected: Outcome,
    ) {
        assert_eq!(judge_inotify(&Instances { limit, used, labs }, watches).outcome, expected);
    }

    #[rstest]
    #[case::one_per_core(2, Some(24 * GIB), Some(1024), 2)]
    #[case::memory(8, Some(7 * GIB), Some(1024), 2)]
    #[case::instances(2, Some(24 * GIB), Some(128), 1)]
    #[case::never_none(1, Some(GIB), Some(0), 1)]
    #[case::never_too_many(64, None, None, 4)]
    fn labs_fit(
        #[case] cores: u64,
        #[case] memory: Option<u64>,
        #[case] instances: Option<u64>,
        #[case] expected: usize,
    ) {
        assert_eq!(fit(cores, memory, instances), expected);
    }

    #[test]
    fn inotify_instances_in_use_are_those_of_root_s_processes() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, uid) in [("1", "0"), ("2", "1000")] {
            let process = proc.path().join(pid);
            std::fs::create_dir_all(process.join("fd")).unwrap();
            std::fs::write(process.join("status"), format!("Name:\tx\nUid:\t{uid}\t0\t0\t0\n")).unwrap();
            for (file, link) in [("3", "anon_inode:inotify"), ("4", "socket:[1]"), ("5", "anon_inode:inotify")] {
                std::os::unix::fs::symlink(link, process.join("fd").join(file)).unwrap();
            }
        }
        assert_eq!(instances_in_use(proc.path()), 2);
    }

    #[test]
    fn cgroups() {
        assert_eq!(judge_cgroups(true, false).outcome, Outcome::Ok);
        assert!(judge_cgroups(false, true).seen.starts_with("version 1 with a hybrid version 2 mount;"));
        assert!(judge_cgroups(false, false).seen.starts_with("version 1;"));
    }

    #[test]
    fn what_is_missing_is_told_with_what_to_do() {
        let set = |hex: &str| Ok(Bounding::parse(&format!("CapBnd:\t{hex}\n")).unwrap());
        let found = [
            judge_capabilities(set("000001ffffffffff")),
            judge_capabilities(set("000001fffeffffff")),
            judge_capabilities(set("00000000a80425fb")),
            judge_tools(&["bash", "apt-get"], &[], Some(Ok("1.26.8".to_owned())), true),
            judge_tools(&["bash"], &[], None, true),
            judge_tools(
                &["bash", "apt-get"],
                &["apt-get"],
                Some(Err("look for Go: none; install Go".to_owned())),
                false,
            ),
            judge_any_port(Ok(())),
            judge_any_port(Err(io::ErrorKind::AddrNotAvailable.into())),
            judge_engine(Err(&EngineError::Denied { candidate: "unix:///x.sock".to_owned() })),
        ];
        let lines: Vec<String> = found.iter().map(|check| format!("{:?} {check}", check.outcome)).collect();
        insta::assert_snapshot!(lines.join("\n"));
        let bad = found.iter().filter(|check| check.outcome != Outcome::Ok);
        assert!(bad.clone().count() == 4 && bad.into_iter().all(|check| check.remedy.is_some()));
    }

    #[tokio::test]
    async fn a_port_that_something_listens_on_fails_and_a_free_one_does_not() {
        let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let (dir, error) = (tempfile::tempdir().unwrap(), EngineError::NoClient);
        let wanted = Wanted { ports: vec![port], ..Wanted::default() };
        let paths = Paths::at(dir.path());
        let outcome = async || {
            let found = checks(Err(&error), &paths, &wanted).await;
            found.into_iter().find(|check| check.name == format!("port {port}")).unwrap().outcome
        };
        assert_eq!(outcome().await, Outcome::Fail);
        drop(taken);
        assert_eq!(outcome().await, Outcome::Ok);
    }

    #[test]
    fn a_cluster_that_is_not_ours_is_refused() {
        let taken = judge_cluster("lab", Ok(vec!["lab-control-plane".into()]), Ok(Vec::new()));
        insta::assert_snapshot!(refuse_on_failure(&[taken]).unwrap_err());
        assert_eq!(judge_cluster("lab", Ok(Vec::new()), Ok(Vec::new())).outcome, Outcome::Ok);
        assert_eq!(judge_cluster("lab", Err("no answer".into()), Ok(Vec::new())).outcome, Outcome::Fail);
        let damaged = Listed {
            lab: "lab".into(),
            dir: "/labs/lab".into(),
            state: LabState::Dead,
            record: Err(LedgerError::Damaged { path: PathBuf::from("/labs/lab/ledger.json"), why: "x".into() }),
        };
        let nodes = Ok(vec!["lab-control-plane".into()]);
        assert_eq!(judge_cluster("lab", nodes, Ok(vec![damaged])).outcome, Outcome::Fail);
    }

    #[test]
    fn every_failed_check_is_named() {
        let checks = [
            judge_disk("free disk for the cache", Path::new("/cache"), Ok(GIB), DISK_WARM),
            judge_port(30003, Err(io::ErrorKind::AddrInUse.into())),
            judge_cgroups(false, true),
        ];
        insta::assert_snapshot!(refuse_on_failure(&checks).unwrap_err());
        assert!(refuse_on_failure(&checks[2..]).is_ok());
    }
}
