//! A node, and the commands run on it: in the container that kind made, or through a pod on a cluster that was there before.
//! Never on the host.

use std::time::Duration;

use bollard::{
    Docker,
    container::LogOutput,
    exec::{CreateExecOptions, StartExecResults},
};
use futures::StreamExt;

use super::guest::access::PodAccess;
use crate::cmd::{Bounded, CmdError};

/// One node of the lab.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name in Kubernetes, such as `worker1`.
    pub name: String,
    /// Whether it runs the control plane.
    pub control_plane: bool,
    access: Access,
}

/// How commands get onto a node.
#[derive(Debug, Clone)]
enum Access {
    /// Into this container.
    Container { docker: Docker, name: String },
    /// Through a privileged pod.
    Pod(PodAccess),
}

/// What a command on a node printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOutput {
    /// Its exit status.
    pub code: i64,
    /// Standard output and standard error in the order in which they came.
    pub output: String,
}

/// Why a command on a node could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The engine refused, or the node's container is gone.
    #[error("run a command on node {node}: {source}")]
    Engine {
        /// The node.
        node: String,
        /// What the engine said.
        source: bollard::errors::Error,
    },
    /// The command ended with a failure.
    #[error("a command on node {node} ended with exit status {code}; it said: {said}")]
    Failed {
        /// The node.
        node: String,
        /// Its exit status.
        code: i64,
        /// Its output.
        said: String,
    },
    /// No pod leads onto the node, or the command for it fails.
    #[error("reach node {node}: {source}")]
    Cmd {
        /// The node.
        node: String,
        /// What was seen.
        source: CmdError,
    },
    /// The node did not tell how a command ended, not even after it had been asked again for some time.
    #[error(
        "node {node} does not tell how a command ended, asked for {} s through its pod in namespace {namespace}; last seen: {said}",
        after.as_secs()
    )]
    Silent {
        /// The node.
        node: String,
        /// The pod's namespace.
        namespace: &'static str,
        /// For how long.
        after: Duration,
        /// What was said instead.
        said: String,
    },
    /// Nodes of a cluster that was there before are not restarted.
    #[error("node {node} is not Drydock's to restart")]
    NotOurs {
        /// The node.
        node: String,
    },
    /// The command did not end in time.
    #[error("a command on node {node} did not end within {} s; it said: {said}", after.as_secs())]
    TimedOut {
        /// The node.
        node: String,
        /// The limit.
        after: Duration,
        /// Its output so far.
        said: String,
    },
}

impl Node {
    /// The node that runs in `container`.
    pub fn new(docker: Docker, name: impl Into<String>, container: impl Into<String>, control_plane: bool) -> Self {
        let access = Access::Container { docker, name: container.into() };
        Self { name: name.into(), control_plane, access }
    }

    /// The container that it runs in, where Drydock knows one.
    pub fn container(&self) -> Option<&str> {
        match &self.access {
            Access::Container { name, .. } => Some(name),
            Access::Pod(_) => None,
        }
    }

    /// The node that `access` leads to.
    pub fn through_pod(access: PodAccess, control_plane: bool) -> Self {
        Self { name: access.node.clone(), control_plane, access: Access::Pod(access) }
    }

    /// Ends what still runs there of commands through its pod. Commands in a container end with it.
    pub(super) async fn stop_jobs(&self) -> Result<(), CmdError> {
        match &self.access {
            Access::Container { .. } => Ok(()),
            Access::Pod(access) => access.stop_jobs().await,
        }
    }

    /// Runs a shell script on the node; any exit status but 0 is an error. The script stops at its first failing command.
    pub async fn sh(&self, script: &str) -> Result<String, NodeError> {
        let done = self.exec(script, &[], Duration::from_secs(120)).await?;
        if done.code != 0 {
            return Err(NodeError::Failed { node: self.name.clone(), code: done.code, said: done.output });
        }
        Ok(done.output)
    }

    /// Runs a shell script on the node with variables, and returns how it ended.
    pub async fn exec(&self, script: &str, env: &[(String, String)], limit: Duration) -> Result<NodeOutput, NodeError> {
        let begun = std::time::Instant::now();
        let done = match &self.access {
            Access::Container { docker, name } => self.in_container(docker, name, script, env, limit).await?,
            Access::Pod(access) => access.run(script, env, limit).await?,
        };
        // 124 and 137 are `timeout`'s own, and others' too: a script may call it itself.
        if (done.code == 124 || done.code == 137) && begun.elapsed() >= Duration::from_secs(limit.as_secs().max(1)) {
            return Err(timed_out(&self.name, limit, &done.output));
        }
        Ok(done)
    }

    async fn in_container(
        &self,
        docker: &Docker,
        container: &str,
        script: &str,
        env: &[(String, String)],
        limit: Duration,
    ) -> Result<NodeOutput, NodeError> {
        let engine = |source| NodeError::Engine { node: self.name.clone(), source };
        // `timeout` ends the script's whole process group inside the node, which closing the stream would not.
        let seconds = limit.as_secs().max(1).to_string();
        let options = CreateExecOptions {
            cmd: Some(
                ["timeout", "--kill-after=5", &seconds, "bash", "-euo", "pipefail", "-c", script]
                    .map(str::to_owned)
                    .into(),
            ),
            env: Some(env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<String>>()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..Default::default()
        };
        let exec = docker.create_exec(container, options).await.map_err(engine)?.id;
        let mut output = Bounded::default();
        if let StartExecResults::Attached { output: mut stream, .. } =
            docker.start_exec(&exec, None).await.map_err(engine)?
        {
            let read = async {
                while let Some(chunk) = stream.next().await {
                    match chunk.map_err(engine)? {
                        LogOutput::StdOut { message } | LogOutput::StdErr { message } => output.add(&message),
                        _ => {}
                    }
                }
                Ok(())
            };
            if let Ok(result) = tokio::time::timeout(limit + Duration::from_secs(15), read).await {
                result?;
            } else {
                return Err(timed_out(&self.name, limit, &output.text()));
            }
        }
        let code = docker.inspect_exec(&exec).await.map_err(engine)?.exit_code.unwrap_or(-1);
        Ok(NodeOutput { code, output: output.text() })
    }
}

/// The error of a command on `node` that did not end in time.
pub(super) fn timed_out(node: &str, after: Duration, output: &str) -> NodeError {
    NodeError::TimedOut { node: node.to_owned(), after, said: output.trim().to_owned() }
}

/// Restarts the container of one of `nodes`, as a machine is restarted.
pub async fn restart(nodes: &[Node], name: &str) -> Result<(), NodeError> {
    let Some(node) = nodes.iter().find(|node| node.name == name) else { return Ok(()) };
    let Access::Container { docker, name } = &node.access else {
        return Err(NodeError::NotOurs { node: node.name.clone() });
    };
    let engine = |source| NodeError::Engine { node: node.name.clone(), source };
    docker.restart_container(name, None).await.map_err(engine)
}

/// Runs a script on every node at once and returns the outputs in the order of the nodes.
pub async fn on_each(nodes: &[Node], script: impl Fn(&Node) -> String) -> Result<Vec<String>, NodeError> {
    futures::future::try_join_all(nodes.iter().map(|node| {
        let script = script(node);
        async move { node.sh(&script).await }
    }))
    .await
}
