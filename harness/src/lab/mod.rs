//! The lab: one kind cluster with local-path storage and Harbor, its own kubeconfig and work folder.

pub mod again;
pub mod certs;
pub mod cluster;
pub mod diagnose;
pub mod engine;
pub mod gate;
pub mod gc;
pub mod guest;
pub mod ledger;
pub mod node;
pub mod order;
pub mod preflight;

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    cmd::{Cmd, CmdError},
    harbor::{Harbor, HarborError, inventory::Inventory, seed::Seed},
    run::poll::WaitError,
};
use node::{Node, NodeError};
use order::GpuNode;

/// In a lab's folder: the kubeconfig.
pub const KUBECONFIG: &str = "kubeconfig";
/// The images as their build machine has them: OCI layouts, and a list of them.
pub const IMAGES: &str = "images";
/// What a nightly job would have left: there from a fault on that takes it away.
pub const BACKUP: &str = "backup";

/// Where a procedure's commands run.
pub const WORK: &str = "work";

/// A lab that is up.
#[derive(Clone)]
pub struct Lab {
    /// The lab's id: the kind cluster, the Docker network and the work folder have it as their name.
    pub id: String,
    /// The work folder: kubeconfig, values.yaml, the tools' state, and what a procedure leaves.
    pub dir: PathBuf,
    /// Reads and watches the cluster.
    pub client: kube::Client,
    /// The control plane first, then the workers; the gpu node is the last.
    pub nodes: Vec<Node>,
    /// The node with the taint.
    pub gpu_node: GpuNode,
    /// The registry.
    pub harbor: Harbor,
    /// The folder with `kubectl`, `helm` and `crane`, first in every procedure's `PATH`.
    pub tools: PathBuf,
    /// The chart that Harbor was installed from: a folder or a packed chart.
    pub chart: PathBuf,
    /// What was pushed into Harbor.
    pub seed: Arc<Seed>,
    /// What Harbor held when the lab was made.
    pub reference: Inventory,
}

/// The lab failed. Nothing is said of a procedure.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// One of kind, helm, kubectl failed.
    #[error(transparent)]
    Cmd(#[from] CmdError),
    /// A command on a node failed.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The API server refused or cannot be reached.
    #[error("ask the API server to {doing}: {source}")]
    Kube {
        /// What was being done.
        doing: String,
        /// What was said.
        source: kube::Error,
    },
    /// The kubeconfig that kind wrote cannot be used.
    #[error("read the lab's kubeconfig {}: {why}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The Docker engine has no network for the lab.
    #[error(transparent)]
    Engine(#[from] engine::EngineError),
    /// The Docker engine refused.
    #[error("ask the Docker engine to {doing}: {source}")]
    Docker {
        /// What was being done.
        doing: String,
        /// What the engine said.
        source: bollard::errors::Error,
    },
    /// Harbor answered otherwise than a registry in order does.
    #[error(transparent)]
    Harbor(#[from] HarborError),
    /// A condition did not come to hold in time.
    #[error(transparent)]
    Wait(#[from] WaitError<String>),
    /// A file of the lab cannot be written or read.
    #[error("{doing} {}: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The lab is not as it must be before a scenario starts.
    #[error("the lab is not in order: {0}")]
    NotInOrder(String),
}

impl LabError {
    /// An error of the API server while `doing`.
    pub fn kube(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> LabError {
        let doing = doing.into();
        move |source| LabError::Kube { doing, source }
    }
}

impl Lab {
    /// The lab's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join(KUBECONFIG)
    }

    /// The folder of [`IMAGES`].
    pub fn images(&self) -> PathBuf {
        self.dir.join(IMAGES)
    }

    /// The folder of [`BACKUP`].
    pub fn backup(&self) -> PathBuf {
        self.dir.join(BACKUP)
    }

    /// Where a procedure's commands run.
    pub fn work(&self) -> PathBuf {
        self.dir.join(WORK)
    }

    /// The names of all nodes, control plane first.
    pub fn node_names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// `kubectl` on this lab.
    pub fn kubectl(&self) -> Cmd {
        self.tool("kubectl")
    }

    /// `helm` on this lab, with Helm's state in the work folder.
    pub fn helm(&self) -> Cmd {
        self.tool("helm")
    }

    fn tool(&self, name: &str) -> Cmd {
        // Variables of the user's, such as HELM_KUBEAPISERVER, lead elsewhere.
        let cmd = Cmd::new(self.tools.join(name)).dir(&self.dir).limit(Duration::from_secs(300)).clear_env();
        tool_env(&self.dir).into_iter().fold(cmd, |cmd, (name, value)| cmd.env(&name, value))
    }
}

/// The variables that make the tools reach the lab in `dir` and nothing else.
pub fn tool_env(dir: &std::path::Path) -> Vec<(String, String)> {
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    [
        ("HOME", dir.to_string_lossy().into_owned()),
        ("KUBECONFIG", path(KUBECONFIG)),
        // crane's logins.
        ("DOCKER_CONFIG", path("docker")),
        ("HELM_CACHE_HOME", path("helm/cache")),
        ("HELM_CONFIG_HOME", path("helm/config")),
        ("HELM_DATA_HOME", path("helm/data")),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .chain(gate::env(dir))
    .collect()
}
