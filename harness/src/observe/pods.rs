//! What can be seen of a pod that pulls an image. Plain data, so that it can be recorded and judged without a cluster.

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

/// One pod's attempt to pull its image, as its status tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullObservation {
    /// The node on which the pod was placed.
    pub node: String,
    /// The pod's name.
    pub pod: String,
    /// `ErrImagePull`, `ImagePullBackOff`, `ContainerCreating`, …; absent when the container does not wait.
    pub waiting_reason: Option<String>,
    /// The kubelet's words for it.
    pub waiting_message: Option<String>,
    /// The digest of the image that the container runs from, `sha256:…`; absent until it runs.
    pub digest: Option<String>,
    /// Why the pod is not on a node, where the scheduler says so.
    pub unschedulable: Option<String>,
    /// The events that say why the pull failed. From the back-off on, the status of older kubelets no longer has the cause.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    /// What the node's containerd answered when it was asked itself; absent where nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containerd: Option<String>,
}

impl PullObservation {
    /// Reads a pod with one container. A pod that no node has yet is `node` "".
    pub fn of(pod: &Pod) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let container = status.container_statuses.unwrap_or_default().into_iter().next();
        let state = container.as_ref().and_then(|container| container.state.clone()).unwrap_or_default();
        let waiting = state.waiting.unwrap_or_default();
        let ran = state.running.is_some() || state.terminated.is_some();
        Self {
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
            pod: pod.metadata.name.clone().unwrap_or_default(),
            waiting_reason: waiting.reason,
            waiting_message: waiting.message,
            digest: container
                .filter(|_| ran)
                .and_then(|container| container.image_id.rsplit_once('@').map(|(_, digest)| digest.to_owned())),
            unschedulable: status
                .conditions
                .unwrap_or_default()
                .into_iter()
                .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
                .map(|condition| {
                    format!("{}: {}", condition.reason.unwrap_or_default(), condition.message.unwrap_or_default())
                }),
            events: Vec::new(),
            containerd: None,
        }
    }

    /// Whether the kubelet has tried to pull and failed.
    pub fn failed(&self) -> bool {
        matches!(self.waiting_reason.as_deref(), Some("ErrImagePull" | "ImagePullBackOff"))
    }

    /// Whether the kubelet's words for the failure, in the status or an event, have `words` in them.
    pub fn says(&self, words: &str) -> bool {
        self.waiting_message.iter().chain(&self.events).any(|said| said.contains(words))
    }

    /// The attempt in a few words.
    pub fn words(&self) -> String {
        let node = if self.node.is_empty() { "no node" } else { &self.node };
        if let Some(digest) = &self.digest {
            return format!("{node}: pulled {}", short(digest));
        }
        match (&self.waiting_reason, &self.waiting_message, &self.unschedulable) {
            (Some(reason), Some(message), _) => format!("{node}: {reason}: {message}"),
            (Some(reason), None, _) => format!("{node}: {reason}"),
            (None, _, Some(why)) => format!("{node}: {why}"),
            (None, _, None) => format!("{node}: not started"),
        }
    }
}

/// A digest cut to the length that people compare.
pub fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}
