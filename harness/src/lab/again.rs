//! Coming back to a lab that another process has made: what cannot be asked of the lab itself is written down beside it.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Lab, LabError, cluster, engine::Engine, order::GpuNode};
use crate::harbor::{Account, Harbor, inventory::Inventory, seed::Seed};

/// In a lab's folder.
const FILE: &str = "lab.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    host: String,
    namespace: String,
    release: String,
    chart: PathBuf,
    /// Harbor chooses its secret.
    robot: (String, String),
    reference: Inventory,
}

/// Writes down what [`reach`] needs.
///
/// # Errors
/// The file cannot be written.
pub fn write_down(lab: &Lab) -> Result<(), LabError> {
    let robot = lab.harbor.accounts.robot();
    let written = Written {
        id: lab.id.clone(),
        host: lab.harbor.host.clone(),
        namespace: lab.harbor.namespace.clone(),
        release: lab.harbor.release.clone(),
        chart: lab.chart.clone(),
        robot: (robot.name, robot.secret),
        reference: lab.reference.clone(),
    };
    let path = lab.dir.join(FILE);
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(&lab.dir)?;
        serde_json::to_writer_pretty(&mut file, &written)?;
        file.persist(&path).map_err(|error| error.error)
    };
    write().map(drop).map_err(|source| LabError::File { doing: "write", path: path.clone(), source })
}

/// The lab in `dir`, as it was written down.
///
/// # Errors
/// Nothing was written down there, or the lab's kubeconfig cannot be used.
pub async fn reach(engine: &Engine, dir: PathBuf) -> Result<Lab, LabError> {
    let path = dir.join(FILE);
    let read = || Ok(serde_json::from_slice::<Written>(&std::fs::read(&path)?)?);
    let written = read().map_err(|source| LabError::File { doing: "read", path: path.clone(), source })?;
    let (client, nodes) = cluster::connect(engine.docker(), &written.id, &dir).await?;
    let accounts = cluster::accounts();
    let (name, secret) = written.robot;
    *accounts.robot.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Account::new(name, secret);
    Ok(Lab {
        id: written.id,
        client,
        gpu_node: GpuNode::last_of(&nodes),
        nodes,
        harbor: Harbor { host: written.host, namespace: written.namespace, release: written.release, accounts },
        tools: cluster::tools(&dir),
        chart: written.chart,
        seed: Arc::new(Seed::new().map_err(|error| LabError::NotInOrder(error.to_string()))?),
        reference: written.reference,
        dir,
    })
}
