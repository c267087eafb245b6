//! Running a runbook against the lab as it stands.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use futures::future::join_all;
use serde::{Deserialize, Serialize};

use super::{Block, Place, Runbook};
use crate::{
    cmd::{Cmd, CmdError},
    lab::{
        Lab, LabError,
        node::{Node, NodeError},
    },
    observe::placement::Placement,
    run::events::Step,
};

/// What one block did in one place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The runbook's file.
    pub file: String,
    /// The step's heading.
    pub step: String,
    /// The line of the block in its file.
    pub line: usize,
    /// `workstation`, or the node.
    pub place: String,
    /// How it ended: its exit status, or that it was stopped.
    pub ended: String,
    /// Whether it ended well.
    pub ok: bool,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What it printed.
    pub output: String,
}

/// What became of a runbook.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript {
    /// Each block in each place, in order. It ends with the first block that failed.
    pub records: Vec<Record>,
}

impl Transcript {
    /// The step at which it failed.
    pub fn stopped_at(&self) -> Option<String> {
        self.records.iter().find(|record| !record.ok).map(|record| record.step.clone())
    }

    /// The first command that failed, in words.
    pub fn failure(&self) -> Option<String> {
        let record = self.records.iter().find(|record| !record.ok)?;
        let last = record.output.trim().lines().last().unwrap_or("nothing");
        Some(format!(
            "step `{}` ({}:{}) failed on {}: {}; it said: {last}",
            record.step, record.file, record.line, record.place, record.ended
        ))
    }

    /// The transcript as a person reads it.
    pub fn text(&self) -> String {
        self.records
            .iter()
            .map(|record| {
                format!(
                    "## {} ({}:{}) on {}: {}, {:.1} s\n{}\n",
                    record.step,
                    record.file,
                    record.line,
                    record.place,
                    record.ended,
                    record.seconds,
                    record.output.trim_end()
                )
            })
            .collect()
    }
}

/// Runs runbooks one after the other until the end or the first failing command, in a work folder that is made anew: a backup
/// that another procedure left must not help this one.
///
/// # Errors
/// The lab's: a node's container is gone, the engine does not answer. A command that fails is no error but part of the
/// transcript.
pub async fn run(runbooks: &[&Runbook], lab: &Lab, step: &Step) -> Result<Transcript, LabError> {
    let dir = work_folder(lab)?;
    let mut transcript = Transcript::default();
    for runbook in runbooks {
        for part in &runbook.steps {
            for block in &part.blocks {
                step.waiting(format!("{} ({}:{})", part.title, runbook.file, block.line));
                let env = variables(lab).await?;
                let records = match block.on {
                    Place::Workstation => vec![on_workstation(lab, &dir, block, &env).await?],
                    place => on_nodes(&nodes(lab, place), block, &env).await?,
                };
                let ok = records.iter().all(|record| record.ok);
                let named = records.into_iter().map(|record| Record {
                    file: runbook.file.clone(),
                    step: part.title.clone(),
                    ..record
                });
                transcript.records.extend(named);
                if !ok {
                    return Ok(transcript);
                }
            }
        }
    }
    Ok(transcript)
}

/// Runs runbooks that must not fail, because the lab depends on them.
///
/// # Errors
/// The lab's, and a command that fails.
pub async fn must(runbooks: &[&Runbook], lab: &Lab, step: &Step) -> Result<(), LabError> {
    match run(runbooks, lab, step).await?.failure() {
        None => Ok(()),
        Some(failure) => Err(LabError::NotInOrder(failure)),
    }
}

/// An empty folder with the values that Harbor was installed with, and the images as their build machine has them.
fn work_folder(lab: &Lab) -> Result<PathBuf, LabError> {
    let dir = lab.dir.join("work");
    let wrong = |doing| {
        let path = dir.clone();
        move |source| LabError::File { doing, path, source }
    };
    if dir.exists() {
        std::fs::remove_dir_all(&dir).map_err(wrong("remove"))?;
    }
    std::fs::create_dir_all(&dir).map_err(wrong("make"))?;
    std::fs::copy(lab.dir.join("values.yaml"), dir.join("values.yaml")).map_err(wrong("copy values.yaml into"))?;
    for folder in [lab.images(), lab.backup()] {
        let name = folder.file_name().unwrap_or_default().to_owned();
        std::os::unix::fs::symlink(&folder, dir.join(name)).map_err(wrong("link a folder into"))?;
    }
    Ok(dir)
}

/// What every command finds in its environment, looked up anew for each block: pods change their names.
async fn variables(lab: &Lab) -> Result<Vec<(String, String)>, LabError> {
    let harbor = &lab.harbor;
    let workers: Vec<&str> =
        lab.nodes.iter().filter(|node| !node.control_plane).map(|node| node.name.as_str()).collect();
    let mut variables = vec![
        ("HARBOR_HOST", harbor.host.clone()),
        ("HARBOR_URL", harbor.url()),
        ("HARBOR_NAMESPACE", harbor.namespace.clone()),
        ("HARBOR_RELEASE", harbor.release.clone()),
        ("HARBOR_CHART", lab.chart.display().to_string()),
        ("HARBOR_ADMIN_PASSWORD", harbor.accounts.admin.secret.clone()),
        ("WORKERS", workers.join(" ")),
    ];
    if let Some(gpu) = nodes(lab, Place::GpuNode).first() {
        variables.push(("GPU_NODE", gpu.name.clone()));
    }
    let placement = Placement::take(lab).await?;
    for (name, component) in [("HARBOR_REGISTRY_POD", "registry"), ("HARBOR_DATABASE_POD", "database")] {
        // One that runs, where an old and a new one are there.
        let pods = placement.pods.iter().filter(|pod| pod.component == component);
        if let Some(pod) = pods.max_by_key(|pod| (pod.ready, !pod.node.is_empty())) {
            variables.push((name, pod.name.clone()));
        }
    }
    // While Harbor is uninstalled there is no authority to name.
    if let Ok(ca) = harbor.ca(&lab.client).await {
        variables.push(("HARBOR_CA", ca));
    }
    Ok(variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn nodes(lab: &Lab, place: Place) -> Vec<Node> {
    let wanted = |node: &&Node| match place {
        Place::Workstation => false,
        Place::EachNode => true,
        Place::Workers => !node.control_plane,
        Place::GpuNode => node.name == "worker2-gpu",
    };
    lab.nodes.iter().filter(wanted).cloned().collect()
}

async fn on_workstation(lab: &Lab, dir: &Path, block: &Block, env: &[(String, String)]) -> Result<Record, LabError> {
    let path = std::env::var("PATH").unwrap_or_default();
    let cmd = Cmd::new("bash")
        .args(["-euo", "pipefail", "-c", &block.script])
        .dir(dir)
        .env("PATH", format!("{}:{path}", lab.tools.display()))
        .limit(block.timeout);
    let cmd = lab.env().iter().chain(env).fold(cmd, |cmd, (name, value)| cmd.env(name, value));
    let started = Instant::now();
    let (ok, ended, output) = match cmd.output().await {
        Ok(output) => {
            let printed = format!("{}{}", output.stdout, output.stderr);
            (output.status.success(), output.status.to_string(), printed)
        }
        Err(CmdError::TimedOut { after, said, .. }) => (false, stopped(after), said),
        Err(error) => return Err(error.into()),
    };
    Ok(record(block, "workstation", started, ok, ended, output))
}

async fn on_nodes(nodes: &[Node], block: &Block, env: &[(String, String)]) -> Result<Vec<Record>, LabError> {
    let each = nodes.iter().map(|node| async move {
        let started = Instant::now();
        let (ok, ended, output) = match node.exec(&block.script, env, block.timeout).await {
            Ok(done) => (done.code == 0, format!("exit status {}", done.code), done.output),
            Err(NodeError::TimedOut { after, said, .. }) => (false, stopped(after), said),
            Err(error) => return Err(error),
        };
        Ok(record(block, &node.name, started, ok, ended, output))
    });
    Ok(join_all(each).await.into_iter().collect::<Result<_, NodeError>>()?)
}

fn stopped(after: std::time::Duration) -> String {
    format!("stopped after {} s", after.as_secs())
}

fn record(block: &Block, place: &str, started: Instant, ok: bool, ended: String, output: String) -> Record {
    Record {
        file: String::new(),
        step: String::new(),
        line: block.line,
        place: place.to_owned(),
        ended,
        ok,
        seconds: started.elapsed().as_secs_f64(),
        output,
    }
}
