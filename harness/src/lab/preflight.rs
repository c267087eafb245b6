//! Checks before anything is created. Looking and judging are apart: what is judged here is numbers and text.

use std::{fmt, io, net::Ipv4Addr, path::Path};

use bollard::query_parameters::ListContainersOptionsBuilder;
use serde::Serialize;

use super::{
    engine::{Engine, EngineError},
    gc::KIND_LABEL,
    ledger::{self, Listed},
};
use crate::paths::Paths;

const GIB: u64 = 1 << 30;

/// Free disk for a first run, in bytes: Go's caches and sources (about 6 GB), root file systems and images while they are
/// assembled (about 3 GB), a lab (about 3 GB).
pub const DISK_COLD: u64 = 12 * GIB;
/// Free disk when everything is built, in bytes: three nodes' own layers, Harbor's volumes, evidence.
pub const DISK_WARM: u64 = 4 * GIB;
/// Available memory for one lab, in bytes: a control plane, three kubelets and Harbor settle at about 2.5 GB.
pub const MEMORY: u64 = 3 * GIB;
/// Three nodes' systemd, kubelet and containerd; below it kubelets fail with "too many open files".
const INOTIFY_INSTANCES: u64 = 128;
/// The same for watches.
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
    fn ok(name: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { name: name.into(), outcome: Outcome::Ok, seen: seen.into(), remedy: None }
    }

    fn not(outcome: Outcome, name: impl Into<String>, seen: impl Into<String>, remedy: impl Into<String>) -> Self {
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
    checks.push(judge_memory(std::fs::read_to_string("/proc/meminfo")));
    checks.push(judge_inotify(read_number("max_user_instances"), read_number("max_user_watches")));
    checks.push(judge_cgroups(
        Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        Path::new("/sys/fs/cgroup/unified").exists(),
    ));
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
    std::fs::read_to_string(Path::new("/proc/sys/fs/inotify").join(name)).ok()?.trim().parse().ok()
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
            Check { name: "Docker engine".into(), outcome: Outcome::Fail, seen: error.to_string(), remedy: None }
        }
    }
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

fn judge_memory(meminfo: io::Result<String>) -> Check {
    const NAME: &str = "available memory";
    let available = meminfo.map(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
    });
    match available {
        Ok(Some(free)) if free >= MEMORY => Check::ok(NAME, gib(free)),
        Ok(Some(free)) => Check::not(
            Outcome::Fail,
            NAME,
            format!("{}, and a lab needs {}", gib(free), gib(MEMORY)),
            "end other programs or labs (`cargo xtask down`)",
        ),
        _ => Check::not(Outcome::Warn, NAME, "/proc/meminfo does not say", format!("a lab needs {}", gib(MEMORY))),
    }
}

fn judge_inotify(instances: Option<u64>, watches: Option<u64>) -> Check {
    const NAME: &str = "inotify limits";
    let show = |number: Option<u64>| number.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
    let seen = format!("{} instances, {} watches", show(instances), show(watches));
    if instances.is_none_or(|instances| instances >= INOTIFY_INSTANCES)
        && watches.is_none_or(|watches| watches >= INOTIFY_WATCHES)
    {
        return Check::ok(NAME, seen);
    }
    let remedy = format!(
        "nodes may fail with \"too many open files\": sysctl fs.inotify.max_user_instances={} \
         fs.inotify.max_user_watches={}",
        INOTIFY_INSTANCES * 4,
        INOTIFY_WATCHES * 8
    );
    Check::not(Outcome::Warn, NAME, seen, remedy)
}

/// `unified`: version 2 alone at the root; `hybrid`: version 2 beside version 1 controllers.
fn judge_cgroups(unified: bool, hybrid: bool) -> Check {
    const NAME: &str = "cgroups";
    if unified {
        return Check::ok(NAME, "version 2");
    }
    let seen = if hybrid { "version 1 with a hybrid version 2 mount" } else { "version 1" };
    Check::ok(NAME, format!("{seen}; every pinned Kubernetes runs on it, 1.35 and newer would not as they are"))
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
        assert_eq!(judge_memory(Ok(meminfo.to_owned())).outcome, expected);
    }

    #[rstest]
    #[case(Some(128), Some(1_048_576), Outcome::Ok)]
    #[case(Some(127), Some(1_048_576), Outcome::Warn)]
    #[case(Some(128), Some(8192), Outcome::Warn)]
    #[case(None, None, Outcome::Ok)]
    fn inotify(#[case] instances: Option<u64>, #[case] watches: Option<u64>, #[case] expected: Outcome) {
        assert_eq!(judge_inotify(instances, watches).outcome, expected);
    }

    #[test]
    fn cgroups() {
        assert_eq!(judge_cgroups(true, false).outcome, Outcome::Ok);
        assert!(judge_cgroups(false, true).seen.starts_with("version 1 with a hybrid version 2 mount;"));
        assert!(judge_cgroups(false, false).seen.starts_with("version 1;"));
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
