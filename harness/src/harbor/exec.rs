//! Commands in Harbor's own containers.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{AttachParams, ListParams},
};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{lab::Lab, observe::pods::is_ready};

const LIMIT: Duration = Duration::from_secs(30);

/// Runs a command in a container of the pod `name`, and returns what it printed.
///
/// # Errors
/// In words: there is no such container that runs, the command failed, or it did not end within half a minute.
pub(super) async fn run(lab: &Lab, name: &str, container: &str, command: &[&str]) -> Result<String, String> {
    let pods = Api::<Pod>::namespaced(lab.client.clone(), &lab.harbor.namespace);
    let what = || format!("run `{}` in container {container} of pod {name}", command.first().unwrap_or(&""));
    let params = AttachParams::default().container(container);
    let run = async {
        let mut process = pods.exec(name, command.iter().copied(), &params).await.map_err(|error| error.to_string())?;
        let ended = process.take_status();
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let ended = async { if let Some(ended) = ended { ended.await } else { None } };
        let (said, complained, ended) = tokio::join!(read(stdout), read(stderr), ended);
        match ended {
            Some(ended) if ended.status.as_deref() == Some("Success") => Ok(said?),
            Some(ended) => Err(format!("{}; it said: {}", ended.message.unwrap_or_default(), complained?.trim())),
            None => Err("the connection ended before the command did".to_owned()),
        }
    };
    match tokio::time::timeout(LIMIT, run).await {
        Ok(ran) => ran.map_err(|why| format!("{}: {why}", what())),
        Err(_) => Err(format!("{}: it did not end within {} s", what(), LIMIT.as_secs())),
    }
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> Result<String, String> {
    let mut text = String::new();
    if let Some(mut stream) = stream {
        stream.read_to_string(&mut text).await.map_err(|error| error.to_string())?;
    }
    Ok(text)
}

/// The name of a pod of Harbor's `component` that runs, a Ready one before others.
///
/// # Errors
/// In words: none runs, or the API server does not answer.
pub(super) async fn running(lab: &Lab, component: &str) -> Result<String, String> {
    let selector = ListParams::default().labels(&format!("release={},component={component}", lab.harbor.release));
    let pods = Api::<Pod>::namespaced(lab.client.clone(), &lab.harbor.namespace);
    let pods = pods.list(&selector).await.map_err(|error| format!("list the pods of {component}: {error}"))?;
    let running = pods.into_iter().filter(|pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        pod.metadata.deletion_timestamp.is_none() && phase == Some("Running")
    });
    let pod = running.max_by_key(is_ready).ok_or_else(|| format!("no pod of {component} runs"))?;
    Ok(pod.name_any())
}
