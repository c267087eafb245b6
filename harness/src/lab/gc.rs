//! Removing what labs have made: at a lab's end, and after a kill what dead runs have left.
//!
//! Only what the ledger names or bears our label is touched. One thing that cannot be removed does not stop the others.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::Path,
};

use bollard::{
    Docker,
    errors::Error as DockerError,
    models::ContainerSummary,
    query_parameters::{
        ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
        RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder,
    },
};

use super::{
    engine::{ConnectOptions, Engine, EngineError},
    guest::put_back::put_back,
    ledger::{self, LAB_LABEL, LabState, Ledger, LedgerError, Record, Thing},
};
use crate::{
    paths::Paths,
    run::events::{Events, Step},
};

/// The label that kind gives its nodes, with the cluster's name.
pub const KIND_LABEL: &str = "io.x-k8s.kind.cluster";

/// What gc may remove, and where it looks.
#[derive(Debug, Clone)]
pub struct GcOptions {
    /// Also kept labs, labs of live runs, and what bears our label but is in no ledger of this cache.
    pub all: bool,
    /// The engines to look at beside those that the ledgers name.
    pub connect: ConnectOptions,
}

/// Why nothing could be removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GcError {
    /// The labs cannot be listed.
    #[error("find what dead runs have left: {0}")]
    Ledger(#[from] LedgerError),
    /// The private engine's folder cannot be read.
    #[error("find what dead runs have left: {0}")]
    Engine(#[from] EngineError),
}

/// A thing that is still there, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Such as `network drydock-1`.
    pub what: String,
    /// What was seen.
    pub why: String,
}

/// What was removed and what was not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Such as `container drydock-1-control-plane`.
    pub removed: Vec<String>,
    /// What is still there and should not be.
    pub left: Vec<Left>,
    /// What was left alone on purpose.
    pub spared: Vec<Left>,
}

impl fmt::Display for GcReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        if lines.is_empty() { f.write_str("nothing to remove") } else { f.write_str(&lines.join("\n")) }
    }
}

impl GcReport {
    fn lines(&self) -> Vec<String> {
        let removed = self.removed.iter().map(|what| format!("removed {what}"));
        let left = self.left.iter().map(|left| format!("could not remove {}: {}", left.what, left.why));
        let spared = self.spared.iter().map(|left| format!("left {}: {}", left.what, left.why));
        removed.chain(spared).chain(left).collect()
    }

    pub(super) fn spare(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.spared.push(Left { what: what.into(), why: why.into() });
    }

    pub(super) fn remove<E: fmt::Display>(&mut self, what: impl Into<String>, result: Result<(), E>) {
        let what = what.into();
        match result {
            Ok(()) => self.removed.push(what),
            Err(error) => self.leave(what, error.to_string()),
        }
    }

    pub(super) fn leave(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.left.push(Left { what: what.into(), why: why.into() });
    }

    fn append(&mut self, mut other: Self) {
        self.removed.append(&mut other.removed);
        self.left.append(&mut other.left);
        self.spared.append(&mut other.spared);
    }
}

/// Removes what dead runs have left: nodes, containers, networks, volumes, folders, holds, and a private engine that nobody
/// uses. One that is down is started for this, since what is on its disk cannot be removed otherwise, and stopped again.
///
/// # Errors
/// It cannot be seen what there is. What is seen and cannot be removed is in the report.
pub async fn gc(paths: &Paths, options: &GcOptions, events: &Events) -> Result<GcReport, GcError> {
    events.step("remove what dead runs have left", |step| async move { collect(paths, options, &step).await }).await
}

async fn collect(paths: &Paths, options: &GcOptions, step: &Step) -> Result<GcReport, GcError> {
    let mut report = GcReport::default();
    let mut by_host: BTreeMap<String, Vec<Doomed>> = BTreeMap::new();
    for lab in ledger::list(paths)? {
        match lab.state {
            LabState::Live if !options.all => {
                let by = lab.record.as_ref().map_or_else(|_| "a run".to_owned(), |record| record.owner.to_string());
                report.spare(format!("lab {}", lab.lab), format!("in use by {by}"));
            }
            LabState::Kept if !options.all => {
                report.spare(format!("lab {}", lab.lab), "kept by `up`; `cargo xtask down` ends it");
            }
            state => match (lab.record, state) {
                // Its run is changing that cluster: nobody else can put it back meanwhile.
                (Ok(record), LabState::Live) if record.is_guest() => {
                    report.spare(format!("lab {}", lab.lab), format!("in use by {}", record.owner));
                }
                (Ok(record), _) if record.is_guest() => match Ledger::open(paths, &lab.lab) {
                    Ok(ledger) => report.append(leave_cluster(ledger, step).await),
                    Err(error) => report.leave(format!("lab {}", lab.lab), error.to_string()),
                },
                (Ok(record), LabState::Live) => {
                    by_host.entry(record.docker_host.clone()).or_default().push(Doomed { record, ledger: None });
                }
                (Ok(record), _) => match Ledger::open(paths, &lab.lab) {
                    Ok(ledger) => by_host
                        .entry(record.docker_host.clone())
                        .or_default()
                        .push(Doomed { record, ledger: Some(ledger) }),
                    Err(error) => report.leave(format!("lab {}", lab.lab), error.to_string()),
                },
                (Err(error @ LedgerError::Damaged { .. }), _) => {
                    report.leave(format!("lab {}", lab.lab), error.to_string());
                }
                (Err(_), _) => {
                    report.remove(format!("folder of lab {}", lab.lab), ledger::remove_empty(paths, &lab.lab))
                }
            },
        }
    }

    let private = Engine::remains(paths)?;
    for lab in private.held_by.iter().filter(|lab| !paths.labs().join(lab).exists()) {
        report.remove(format!("hold of lab {lab} on the private engine"), Engine::release_hold(paths, lab));
    }
    if private.on_machine {
        by_host.entry(private.host.clone()).or_default();
    }
    for candidate in &options.connect.candidates {
        by_host.entry(candidate.host.clone()).or_default();
    }
    for (host, labs) in by_host {
        let is_private = host == private.host;
        match Engine::attach(&host, &options.connect, paths, step.events()).await {
            Ok(engine) => {
                for lab in labs {
                    report.append(remove_doomed(&engine, paths, lab, step).await);
                }
                report.append(remove_strays(&engine, paths, options.all).await);
                if let Err(error) = engine.leave(step.events()).await {
                    report.leave("the private Docker engine", error.to_string());
                }
                if is_private && !Engine::remains(paths)?.on_machine {
                    report.removed.push("the private Docker engine (stopped; its images stay)".to_owned());
                }
            }
            Err(error) => {
                for lab in &labs {
                    report.leave(format!("lab {}", lab.record.lab), error.to_string());
                }
                if is_private && labs.is_empty() {
                    report.leave("the private Docker engine", error.to_string());
                }
            }
        }
    }
    for line in report.lines() {
        step.events().note(line);
    }
    Ok(report)
}

/// A lab to remove. The ledger is absent for one that a live run has (`--all`).
struct Doomed {
    record: Record,
    ledger: Option<Ledger>,
}

async fn remove_doomed(engine: &Engine, paths: &Paths, lab: Doomed, step: &Step) -> GcReport {
    step.waiting(format!("the things of lab {}", lab.record.lab));
    let mut report = remove_things(engine.docker(), paths, &lab.record).await;
    let what = format!("folder of lab {}", lab.record.lab);
    if !report.left.is_empty() {
        report.leave(what, "it says what is left; run `cargo xtask gc` again");
        return report;
    }
    if let Err(error) = engine.release(&lab.record.lab) {
        report.leave(format!("hold of lab {} on the private engine", lab.record.lab), error.to_string());
    }
    let removed = match lab.ledger {
        Some(ledger) => ledger.remove(),
        None => ledger::remove_anyway(&paths.labs().join(&lab.record.lab)),
    };
    report.remove(what, removed);
    report
}

/// Removes a lab that this process has: at the end of a run, and for `down`. The folder goes only when all else is gone.
///
/// # Errors
/// None: what could not be removed is in the report, and the ledger stays for `gc`.
pub async fn remove_lab(engine: &Engine, paths: &Paths, ledger: Ledger, events: &Events) -> GcReport {
    let record = ledger.record().clone();
    let name = format!("remove the lab {}", record.lab);
    let work = |step: Step| async move {
        let report = if ledger.is_guest() {
            leave_cluster(ledger, &step).await
        } else {
            remove_doomed(engine, paths, Doomed { record, ledger: Some(ledger) }, &step).await
        };
        if report.left.is_empty() { Ok(report) } else { Err(Unfinished(report)) }
    };
    events.step(name, work).await.unwrap_or_else(|unfinished| unfinished.0)
}

/// Puts a cluster that was there before back, and removes the lab's folder when that is done.
async fn leave_cluster(ledger: Ledger, step: &Step) -> GcReport {
    let mut report = put_back(&ledger.record().lab, ledger.dir(), step).await;
    for told in &report.spared {
        step.events().note(format!("left {}: {}", told.what, told.why));
    }
    let what = format!("folder of lab {}", ledger.record().lab);
    if report.left.is_empty() {
        report.remove(what, ledger.remove());
    } else {
        report.leave(what, "it says what is left; run `cargo xtask gc` again");
    }
    report
}

/// A removal with something left, as a step's error.
struct Unfinished(GcReport);

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left: Vec<String> = self.0.left.iter().map(|left| format!("{} ({})", left.what, left.why)).collect();
        write!(f, "still there: {}; `cargo xtask gc` tries again", left.join("; "))
    }
}

/// Removes what a lab has made, all but its own folder and its hold.
async fn remove_things(docker: &Docker, paths: &Paths, record: &Record) -> GcReport {
    let mut report = GcReport::default();
    let label = format!("{LAB_LABEL}={}", record.lab);
    // Containers first: networks and volumes in use cannot be removed.
    if record.things.iter().any(|thing| matches!(thing, Thing::Cluster { .. })) {
        let nodes = containers(docker, &format!("{KIND_LABEL}={}", record.cluster)).await;
        remove_containers(docker, nodes, Some(&record.network), &mut report).await;
    }
    remove_containers(docker, containers(docker, &label).await, None, &mut report).await;
    for thing in &record.things {
        if let Thing::Container { name } = thing {
            remove_container(docker, name, name, &mut report).await;
        }
    }
    remove_networks(docker, &label, &mut report).await;
    remove_volumes(docker, &label, &mut report).await;
    for thing in &record.things {
        match thing {
            Thing::Volume { name } => remove_volume(docker, name, &mut report).await,
            Thing::Folder { path } => remove_folder(paths, path, &mut report),
            Thing::Cluster { .. }
            | Thing::Network { .. }
            | Thing::Container { .. }
            | Thing::EngineHold
            | Thing::Guest { .. } => {}
        }
    }
    report
}

/// Removes what bears our label and has no ledger: in the private engine, which is this cache's alone. In another engine it
/// may be of another cache's live run, and goes only with `all`.
async fn remove_strays(engine: &Engine, paths: &Paths, all: bool) -> GcReport {
    let mut report = GcReport::default();
    let docker = engine.docker();
    let mut labs: Vec<String> = Vec::new();
    match containers(docker, LAB_LABEL).await {
        Ok(found) => labs.extend(found.into_iter().filter_map(|it| it.labels?.remove(LAB_LABEL))),
        Err(error) => report.leave(format!("containers of {}", engine.host()), error.to_string()),
    }
    match networks(docker, LAB_LABEL).await {
        Ok(found) => labs.extend(found.into_iter().map(|(_, lab)| lab)),
        Err(error) => report.leave(format!("networks of {}", engine.host()), error.to_string()),
    }
    match volumes(docker, LAB_LABEL).await {
        Ok(found) => labs.extend(found.into_iter().map(|(_, lab)| lab)),
        Err(error) => report.leave(format!("volumes of {}", engine.host()), error.to_string()),
    }
    labs.sort();
    labs.dedup();
    // Looked at now, not in the list from before: a run that began since has its ledger by now.
    for lab in labs.iter().filter(|lab| lab.is_empty() || !paths.labs().join(lab).exists()) {
        if !(engine.is_private() || all) {
            let why = "no ledger of this cache names it, so it may be another cache's; `gc --all` removes it";
            report.spare(format!("what is labelled {LAB_LABEL}={lab} at {}", engine.host()), why);
            continue;
        }
        let label = format!("{LAB_LABEL}={lab}");
        remove_containers(docker, containers(docker, &label).await, None, &mut report).await;
        remove_networks(docker, &label, &mut report).await;
        remove_volumes(docker, &label, &mut report).await;
    }
    report
}

async fn containers(docker: &Docker, label: &str) -> Result<Vec<ContainerSummary>, DockerError> {
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters(label)).build();
    docker.list_containers(Some(options)).await
}

/// The networks that bear `label`: id with name, and whose lab's they are.
async fn networks(docker: &Docker, label: &str) -> Result<Vec<((String, String), String)>, DockerError> {
    let options = ListNetworksOptionsBuilder::default().filters(&filters(label)).build();
    let found = docker.list_networks(Some(options)).await?;
    let lab = |labels: Option<HashMap<String, String>>| labels?.remove(LAB_LABEL);
    Ok(found.into_iter().filter_map(|it| Some(((it.id?, it.name?), lab(it.labels)?))).collect())
}

/// The volumes that bear `label`, and whose lab's they are.
async fn volumes(docker: &Docker, label: &str) -> Result<Vec<(String, String)>, DockerError> {
    let options = ListVolumesOptionsBuilder::default().filters(&filters(label)).build();
    let found = docker.list_volumes(Some(options)).await?.volumes.unwrap_or_default();
    Ok(found.into_iter().filter_map(|mut it| Some((it.name, it.labels.remove(LAB_LABEL)?))).collect())
}

fn filters(label: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![label.to_owned()])])
}

/// Removes the containers found. With `network`, one that is not on it is not ours: a cluster of the same name that someone
/// made after the lab's was gone.
async fn remove_containers(
    docker: &Docker,
    found: Result<Vec<ContainerSummary>, DockerError>,
    network: Option<&str>,
    report: &mut GcReport,
) {
    let found = match found {
        Ok(found) => found,
        Err(error) => return report.leave("containers", format!("list them: {error}")),
    };
    for container in found {
        let Some(id) = container.id else { continue };
        let names = container.names.unwrap_or_default();
        let name = names.first().map_or(id.as_str(), |name| name.trim_start_matches('/'));
        let on = container.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        match network {
            Some(network) if !on.contains_key(network) => report.spare(
                format!("container {name}"),
                format!("it is not on the lab's network {network}, so another has made it"),
            ),
            _ => remove_container(docker, &id, name, report).await,
        }
    }
}

async fn remove_container(docker: &Docker, id: &str, name: &str, report: &mut GcReport) {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    if let Some(result) = unless_gone(docker.remove_container(id, Some(options)).await) {
        report.remove(format!("container {name}"), result);
    }
}

async fn remove_networks(docker: &Docker, label: &str, report: &mut GcReport) {
    match networks(docker, label).await {
        Ok(found) => {
            for ((id, name), _) in found {
                if let Some(result) = unless_gone(docker.remove_network(&id).await) {
                    report.remove(format!("network {name}"), result);
                }
            }
        }
        Err(error) => report.leave("networks", format!("list them: {error}")),
    }
}

async fn remove_volumes(docker: &Docker, label: &str, report: &mut GcReport) {
    match volumes(docker, label).await {
        Ok(found) => {
            for (name, _) in found {
                remove_volume(docker, &name, report).await;
            }
        }
        Err(error) => report.leave("volumes", format!("list them: {error}")),
    }
}

async fn remove_volume(docker: &Docker, name: &str, report: &mut GcReport) {
    let options = RemoveVolumeOptionsBuilder::default().force(true).build();
    if let Some(result) = unless_gone(docker.remove_volume(name, Some(options)).await) {
        report.remove(format!("volume {name}"), result);
    }
}

/// A thing that is gone already is neither removed nor left.
fn unless_gone(result: Result<(), DockerError>) -> Option<Result<(), DockerError>> {
    match result {
        Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => None,
        result => Some(result),
    }
}

/// A ledger that was tampered with must not lead to the user's files.
fn remove_folder(paths: &Paths, path: &Path, report: &mut GcReport) {
    let what = format!("folder {}", path.display());
    let in_temp = path.starts_with(std::env::temp_dir()) && path.components().count() > 2;
    let in_cache = path.starts_with(paths.cache());
    let holds_cache = paths.cache().starts_with(path);
    let is_plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    if !path.is_absolute() || !is_plain || holds_cache || !(in_temp || in_cache) {
        return report.leave(what, "it is neither in the cache folder nor in the temporary folder");
    }
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        result => report.remove(what, result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_outside_are_left() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join("cache"));
        let inside = paths.cache().join("work");
        std::fs::create_dir_all(inside.join("deep")).unwrap();
        let mut report = GcReport::default();
        for path in [Path::new("/"), Path::new("/etc"), paths.cache(), &inside.join("../../.."), Path::new("work")] {
            remove_folder(&paths, path, &mut report);
        }
        assert!(report.removed.is_empty());
        assert_eq!(report.left.len(), 5, "{report}");
        remove_folder(&paths, &inside, &mut report);
        assert!(!inside.exists());
        remove_folder(&paths, &inside, &mut report);
        assert_eq!(report.removed.len(), 1);
    }

    #[tokio::test]
    async fn an_empty_cache_has_nothing_to_remove() {
        let dir = tempfile::tempdir().unwrap();
        let connect = ConnectOptions::default();
        let options = GcOptions { all: false, connect };
        let report = gc(&Paths::at(dir.path()), &options, &Events::discard()).await.unwrap();
        assert_eq!(report.to_string(), "nothing to remove");
    }
}
